//! One hook while it runs: its process, what it says, its end.

use super::Happening;
use crate::spawn::SWARM_ENV;
use rustix::event::epoll;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use shoal_runtime::zygote::NAME_ENV;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

/// How this binary is told, as an agent of itself, to become a hook.
pub const NAME: &str = "hook";
/// How much of what a hook says is kept, bytes.
const SAID_BYTES_MAX: usize = 64 << 10;
/// How often a pipe is read at one look, at most: a hook that never stops talking does not hold up the loop.
const READS_MAX: usize = 16;

/// A hook that runs.
pub(super) struct Run {
    /// What it was run for.
    pub of: Happening,
    /// When it has had its time.
    pub deadline: Instant,
    child: Child,
    /// What it says, on either stream.
    pipe: io::PipeReader,
    said: Vec<u8>,
    cut: bool,
    /// Readable at its end; watched as long as it is here.
    _pidfd: OwnedFd,
}

impl Run {
    /// Starts a hook in a process group of its own, and lets this epoll tell of it.
    pub fn begin(
        command: &[String],
        swarm: &str,
        of: Happening,
        deadline: Instant,
        watch: &OwnedFd,
    ) -> Result<Run, (Happening, io::Error)> {
        match spawn(command, swarm, &of, watch) {
            Ok((child, pipe, pidfd)) => {
                Ok(Run { of, deadline, child, pipe, said: Vec::new(), cut: false, _pidfd: pidfd })
            }
            Err(error) => Err((of, error)),
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Reads what it has said since.
    pub fn hear(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..READS_MAX {
            match self.pipe.read(&mut bytes) {
                Ok(1..) if self.cut => {}
                Ok(got @ 1..) => {
                    let room = SAID_BYTES_MAX - self.said.len();
                    self.said.extend_from_slice(&bytes[..got.min(room)]);
                    self.cut = got > room;
                }
                // At its end, for now or for good.
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// What it said, line by line.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let text = String::from_utf8_lossy(&self.said).into_owned();
        let cut = self.cut.then(|| "… (the rest is not kept)".to_owned());
        text.lines().map(str::to_owned).chain(cut).collect::<Vec<_>>().into_iter()
    }

    pub fn has_had_its_time(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// How it ended, if it did: in words, nothing if it ended well. What it started ends with it.
    pub fn ended(&mut self) -> Option<String> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status,
            Err(error) => return Some(format!("is lost: {error}")),
        };
        self.hear();
        self.kill_group();
        Some(match (status.code(), status.signal()) {
            (Some(0), _) => String::new(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or(0)),
        })
    }

    /// Ends it, and what it started.
    pub fn kill(&mut self) {
        // Not reaped yet, so the number is its own.
        self.kill_group();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.hear();
    }

    fn kill_group(&self) {
        if let Some(group) = Pid::from_raw(self.pid()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn spawn(
    command: &[String],
    swarm: &str,
    of: &Happening,
    watch: &OwnedFd,
) -> io::Result<(Child, io::PipeReader, OwnedFd)> {
    let (pipe, theirs) = io::pipe()?;
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let binary = crate::config::own_binary().map_err(io::Error::other)?;
    let mut child = Command::new(binary)
        .args(["agent", NAME])
        .arg(std::process::id().to_string())
        .args(command)
        .env("SHOAL_HOOK", of.occasion.word())
        .env(SWARM_ENV, swarm)
        .env(NAME_ENV, &of.agent)
        .env("SHOAL_GENERATION", of.generation.to_string())
        .env("SHOAL_REASON", of.reason.replace('\0', " "))
        .stdin(Stdio::null())
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        .process_group(0)
        .spawn()?;
    let watched = Pid::from_raw(child.id() as i32)
        .ok_or_else(|| io::Error::other("a child without a number"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
        .and_then(|pidfd| {
            for fd in [pidfd.as_fd(), pipe.as_fd()] {
                let data = epoll::EventData::new_u64(0);
                // Edges: a pipe at its end is no news, and what was read last is not asked for again.
                epoll::add(watch, fd, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            }
            Ok(pidfd)
        });
    match watched {
        Ok(pidfd) => Ok((child, pipe, pidfd)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Becomes a hook: dies with the supervisor (whose number is the first argument), and executes the command that follows.
pub fn wear(args: &[OsString]) -> ExitCode {
    let failed = |what: String| {
        crate::log::say(&what);
        ExitCode::from(127)
    };
    crate::spawn::be_ordinary();
    let Some((parent, [program, rest @ ..])) = args.split_first() else {
        return failed("a hook is a number and a command".into());
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(format!("asking for the end with the supervisor: {error}"));
    }
    // It may have died before the line above.
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent.to_str() != Some(now.to_string().as_str()) {
        return failed("the supervisor is gone".into());
    }
    let error = Command::new(program).args(rest).exec();
    failed(format!("{} cannot be executed: {error}", program.display()))
}
