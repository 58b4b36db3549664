//! SIGINT, SIGTERM and SIGHUP as a companion of the event loop: the first ends the swarm in stages, the second by SIGKILL.

use crate::event_loop::{Companion, Watch};
use crate::swarm::Swarm;
use rustix::event::epoll::EventFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::{pipe, unregister};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

/// The token of the signals' pipe.
const TOKEN: u64 = 1;

/// By this name a successor is left whether the signals that are still there were heard.
const KEPT: &str = "signals";

/// Watches the signals that end a swarm.
pub struct Signals {
    read: UnixStream,
    ids: Vec<signal_hook::SigId>,
}

impl Signals {
    /// Begins to watch.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, String> {
        Signals::watch().map_err(|e| format!("watching signals: {e}"))
    }

    fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut ids = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            ids.push(pipe::register(signal, write.try_clone()?)?);
        }
        // A write beyond a limit of file sizes is an error, and not the end: agents get the default back.
        ids.push(signal_hook::flag::register(SIGXFSZ, Arc::default())?);
        Ok(Signals { read, ids })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.ids.drain(..).for_each(|id| {
            unregister(id);
        });
    }
}

impl Companion for Signals {
    fn register(&mut self, watch: &Watch) -> io::Result<()> {
        watch.add(&self.read, TOKEN, EventFlags::IN)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready != Some(TOKEN) {
            return;
        }
        let mut bytes = [0; 16];
        if swarm.kept_for(KEPT) == Some(&[1]) {
            // A predecessor has done what these say, and died before it took them.
            let _ = self.read.read(&mut bytes);
            swarm.keep_for(KEPT, vec![0]);
            return;
        }
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let (count, _) = rustix::net::recv(&self.read, &mut bytes[..], flags).unwrap_or((0, 0));
        for _ in 0..count {
            swarm.notice(if swarm.is_ending() {
                "asked again: killing what is left"
            } else {
                "stopping; asked again it kills"
            });
            swarm.shut_down();
        }
        swarm.keep_for(KEPT, vec![1]);
        swarm.write_journal();
        let _ = self.read.read(&mut bytes[..count]);
        swarm.keep_for(KEPT, vec![0]);
    }
}
