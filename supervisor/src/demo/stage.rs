//! The demo's supervisor as `shoal demo` sees it: started, asked for passes, told of signals, ended.

use super::agents::{self, Read, TREE};
use super::backstage::{Done, Pass, READY};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shoal_agent::SupervisorGone;
use shoal_runtime::wire::{self, Received};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A supervisor of this process's own.
pub struct Stage {
    /// `None` only while it is being dropped.
    line: Option<OwnedFd>,
    child: Child,
    signals: Handle,
}

impl Stage {
    /// Starts a supervisor for swarms over a tree. From here on signals that end a command go to it, who ends the swarm.
    ///
    /// # Errors
    /// What is lacking, in words.
    pub fn open(tree: &Path) -> Result<Stage, String> {
        Stage::try_open(tree).map_err(|e| format!("starting the demo's supervisor: {e}"))
    }

    fn try_open(tree: &Path) -> io::Result<Stage> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let (line, theirs) = pair()?;
        let child = Command::new(std::env::current_exe()?)
            .arg("demo-supervisor")
            .env(TREE, tree)
            .stdin(theirs)
            .stdout(Stdio::null())
            // A group of its own: what the terminal sends comes once, by way of us.
            .process_group(0)
            .spawn()?;
        let stage = Stage { line: Some(line), child, signals: signals.handle() };
        let supervisor = pidfd_open(Pid::from_child(&stage.child), PidfdFlags::empty())?;
        // Before that a signal would end it by default; ours wait.
        if !matches!(wire::take(stage.line())?, Received::Packet(said, _) if said == READY) {
            return Err(io::Error::other("it ended at once"));
        }
        std::thread::spawn(move || {
            for signal in signals.forever().filter_map(Signal::from_named_raw) {
                // Refused when it has ended, and so do we.
                let _ = pidfd_send_signal(&supervisor, signal);
            }
        });
        Ok(stage)
    }

    fn line(&self) -> &OwnedFd {
        self.line.as_ref().expect("a line until the end")
    }

    /// Lets a swarm pass over the tree, and reads its results: this process is one of its agents meanwhile.
    ///
    /// # Errors
    /// Why it did not start or not end, in words.
    pub fn pass(&self, pass: &Pass, each: impl FnMut()) -> Result<(Done, Read), String> {
        let lost = |e: io::Error| format!("speaking with the demo's supervisor: {e}");
        let line = self.line();
        let (ours, theirs) = pair().map_err(lost)?;
        let order = serde_json::to_vec(pass).map_err(|e| e.to_string())?;
        wire::hand(line, &order, &[theirs.as_fd()]).map_err(lost)?;
        drop(theirs);
        let read = agents::reader(ours, each);
        if !read.as_ref().is_ok_and(|read| !read.stopped) {
            // Nobody reads any more: the rest of the swarm need not go on, nor wait for an operator.
            let _ = rustix::net::shutdown(line, rustix::net::Shutdown::Write);
        }
        let Received::Packet(answer, _) = wire::take(line).map_err(lost)? else {
            return Err("the demo's supervisor was killed".into());
        };
        match (serde_json::from_slice(&answer).map_err(|e| e.to_string())?, read) {
            (Done::Failed(why), _) => Err(why),
            // Cut off because the swarm was killed.
            (Done::Interrupted, Err(error)) if error.is::<SupervisorGone>() => {
                Ok((Done::Interrupted, Read::default()))
            }
            (_, Err(error)) => Err(format!("reading the results: {error}")),
            (done, Ok(read)) => Ok((done, read)),
        }
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Drop for Stage {
    /// Waits until the supervisor has ended whatever runs and tidied up: it does when the line ends.
    fn drop(&mut self) {
        self.line = None;
        let _ = self.child.wait();
        self.signals.close();
    }
}
