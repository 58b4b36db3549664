//! SIGINT, SIGTERM and SIGHUP as a companion of the event loop: the first ends the swarm in stages, the second by SIGKILL.
//!
//! Where the swarm file can be read again, SIGHUP does that, as `shoal reload` does; but if it comes because the terminal is gone, it
//! ends the swarm, too.

use crate::event_loop::{Companion, Watch};
use crate::events::Kind;
use crate::log::Level;
use crate::operator::read_again;
use crate::swarm::Swarm;
use rustix::event::epoll::EventFlags;
use shoal_runtime::again::insist;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::unregister;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod bell;

/// The token of the signals' pipe.
const TOKEN: u64 = 1;
/// The token of the pipe of SIGHUP, where it reloads.
const RELOAD_TOKEN: u64 = 3;
/// How long agents may take to stop and be read for a reload by signal.
const PATIENCE: Duration = Duration::from_secs(60);

/// By this name a successor is left whether the signals that are still there were heard.
const KEPT: &str = "signals";

/// Watches the signals that end a swarm.
pub struct Signals {
    read: UnixStream,
    reload: Option<UnixStream>,
    /// Whether there was a terminal that can go away.
    had_terminal: bool,
    ids: Vec<signal_hook::SigId>,
}

impl Signals {
    /// Begins to watch.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, String> {
        Signals::watch(false).map_err(|e| format!("watching signals: {e}"))
    }

    /// Begins to watch; SIGHUP reads the swarm file again.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn that_reload() -> Result<Self, String> {
        Signals::watch(true).map_err(|e| format!("watching signals: {e}"))
    }

    fn watch(reloads: bool) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut ids = Vec::new();
        for signal in [SIGINT, SIGTERM] {
            ids.push(bell::register(signal, write.try_clone()?)?);
        }
        let mut reload = None;
        if reloads {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            write.set_nonblocking(true)?;
            ids.push(bell::register(SIGHUP, write)?);
            reload = Some(read);
        } else {
            ids.push(bell::register(SIGHUP, write)?);
        }
        // A write beyond a limit of file sizes is an error, and not the end: agents get the default back.
        ids.push(signal_hook::flag::register(SIGXFSZ, Arc::default())?);
        Ok(Signals { read, reload, had_terminal: has_terminal(), ids })
    }
}

/// Whether this process has a terminal that is still there.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Reads the swarm file again, and applies what changed; what is wrong is said.
fn reload(swarm: &mut Swarm) {
    swarm.tell(Level::Debug, Kind::Order, None, "somebody (SIGHUP): shoal reload");
    let prepared = read_again(swarm, None).and_then(|file| swarm.prepare(file, None));
    if let Err(why) = prepared.and_then(|prepared| swarm.reload(prepared, PATIENCE)) {
        swarm.notice(&format!("nothing is reloaded: {why}"));
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
        watch.add(&self.read, TOKEN, EventFlags::IN)?;
        self.reload.as_ref().map_or(Ok(()), |read| watch.add(read, RELOAD_TOKEN, EventFlags::IN))
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        let mut bytes = [0; 16];
        if ready == Some(RELOAD_TOKEN) {
            let read = self.reload.as_mut().map(|read| insist(|| read.read(&mut bytes)));
            if !read.is_some_and(|read| read.is_ok_and(|count| count > 0)) {
                return;
            }
            if !self.had_terminal || has_terminal() {
                return reload(swarm);
            }
            swarm.shut_down();
            return;
        }
        if ready != Some(TOKEN) {
            return;
        }
        if swarm.kept_for(KEPT) == Some(&[1]) {
            // A predecessor has done what these say, and died before it took them.
            let _ = insist(|| self.read.read(&mut bytes));
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
        // What stays there would be heard as asked again.
        let _ = insist(|| self.read.read(&mut bytes[..count]));
        swarm.keep_for(KEPT, vec![0]);
    }
}
