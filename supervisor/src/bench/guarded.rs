//! A swarm in a process of its own, which runs it as `shoal run` does, for only that has a keeper: of idle agents and of two that talk. It ends
//! when who measures it is gone.

use super::kept::ends_with;
use super::scale::swarm_file;
use crate::cli::BAD_INPUT;
use crate::config::{Orphans, own_binary};
use crate::control::{ANSWER_BYTES_MAX, PsReport, PsState, Request, Response, SwarmInfo, address_of};
use crate::herald::Manner;
use crate::log::report;
use crate::run::run_read;
use crate::run_dir::list_running;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What takes longer ends the measurement.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the process that runs the swarm is told to be.
pub(super) const SWARM: &str = "swarm";

fn name_for(bench: u32) -> String {
    format!("bench-kept-{bench}")
}

/// Where one agent writes how long its messages took.
fn notes(bench: u32) -> PathBuf {
    std::env::temp_dir().join(format!("shoal-bench-{bench}"))
}

/// How many of the agents talk meanwhile.
const TALKERS: usize = 2;

/// They.
fn talk(binary: &str, pace: &str, bench: u32) -> String {
    let (binary, notes) =
        (toml::Value::from(binary), toml::Value::from(notes(bench).to_string_lossy().as_ref()));
    format!(
        r#"
        [channel.pings]
        message = "Beat"
        capacity = "64 KiB"
        [channel.pongs]
        message = "Beat"
        capacity = "64 KiB"
        [agent.ping]
        command = [{binary}, "agent", "bench", "ping", "{pace}", {notes}]
        publishes = ["pings"]
        subscribes = ["pongs"]
        stop_timeout = "10s"
        ready_timeout = "60s"
        [agent.pong]
        command = [{binary}, "agent", "bench", "pong"]
        publishes = ["pongs"]
        subscribes = ["pings"]
        stop_timeout = "10s"
        ready_timeout = "60s"
        "#
    )
}

/// Is the process that runs a swarm of so many agents, two of which talk at a pace, with the word of `swarm.orphans`, for the process of this number:
/// it is asked to end when that is gone.
pub(super) fn be_swarm(agents: usize, pace: &str, orphans: &str, bench: u32) -> ExitCode {
    let made = own_binary()
        .and_then(|binary| swarm_file(&name_for(bench), agents - TALKERS, 1, &talk(&binary, pace, bench)));
    match ends_with(bench).and(made) {
        Ok(mut file) => {
            file.orphans = Orphans::ALL.into_iter().find(|it| it.word() == orphans).unwrap_or_default();
            let status = run_read(file, Manner::Foreground);
            // Who would read what was noted removes it, too.
            if ends_with(bench).is_err() {
                let _ = std::fs::remove_file(notes(bench));
            }
            status
        }
        Err(error) => {
            report!("shoal: {error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Whether somebody asked this process to end.
struct Interrupted {
    asked: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Interrupted {
    fn watch() -> io::Result<Interrupted> {
        let mut watch = Interrupted { asked: Arc::default(), registered: Vec::new() };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            watch.registered.push(signal_hook::flag::register(signal, Arc::clone(&watch.asked))?);
        }
        Ok(watch)
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        self.registered.drain(..).for_each(|id| _ = signal_hook::low_level::unregister(id));
    }
}

/// The process that runs the swarm; it ends with this.
pub(super) struct Swarm {
    name: String,
    pub(super) guard: Child,
    pub(super) socket: Option<PathBuf>,
    interrupted: Interrupted,
}

impl Swarm {
    /// Starts it, of so many agents, two of which talk at a pace.
    ///
    /// # Errors
    /// No process is left.
    pub(super) fn start(agents: usize, pace: &str, orphans: Orphans) -> io::Result<Swarm> {
        let bench = std::process::id();
        let interrupted = Interrupted::watch()?;
        let guard = Command::new(own_binary().map_err(io::Error::other)?)
            .args([super::PEER[0], SWARM, &agents.to_string(), pace, orphans.word(), &bench.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Swarm { name: name_for(bench), guard, socket: None, interrupted })
    }

    /// Tries something until it comes to pass.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Swarm) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look(self)? {
                return Ok(seen);
            }
            if let Some(status) = self.guard.try_wait()? {
                return Err(io::Error::other(format!(
                    "the swarm ended ({status}) while {what} was waited for"
                )));
            }
            if self.interrupted.asked.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            if Instant::now() >= end {
                return Err(io::Error::other(format!("{what} did not come within {PATIENCE:?}")));
            }
        }
    }

    /// Waits until all agents are ready.
    pub(super) fn ready(&mut self) -> io::Result<PsReport> {
        self.until("an answer of agents that are all ready", |swarm| {
            if swarm.socket.is_none() {
                let running = list_running().map_err(|e| io::Error::other(e.to_string()))?;
                swarm.socket = running.into_iter().find(|it| it.name == swarm.name).map(|it| it.socket);
            }
            if let Some(Response::Ps(report)) = swarm.ask(&Request::Ps)
                && report.agents.iter().all(|agent| agent.state == PsState::Ready)
            {
                return Ok(Some(report));
            }
            std::thread::sleep(LOOK_EVERY);
            Ok(None)
        })
    }

    pub(super) fn info(&mut self) -> io::Result<Option<SwarmInfo>> {
        match self.ask(&Request::Info) {
            Some(Response::Info(info)) => Ok(Some(info)),
            _ => Ok(None),
        }
    }

    /// The supervisor's number, and what it can be killed by.
    pub(super) fn supervisor(&mut self) -> io::Result<(u32, OwnedFd)> {
        let former = self.until("an answer", Swarm::info)?.supervisor;
        let pidfd = pidfd_of(former)?;
        // The number was its own when the descriptor was opened, since it has it still.
        match self.until("an answer", Swarm::info)?.supervisor == former {
            true => Ok((former, pidfd)),
            false => Err(io::Error::other("the supervisor died of itself")),
        }
    }

    /// Asks the supervisor; `None` when none answers. The socket is the keeper's, so that who asks in between waits.
    pub(super) fn ask(&self, request: &Request) -> Option<Response> {
        ask(self.socket.as_deref()?, request).ok()
    }

    /// Ends it; when each ping was sent, CLOCK_MONOTONIC ns, and how long it took.
    pub(super) fn end(mut self) -> io::Result<Vec<(u64, u64)>> {
        kill_process(Pid::from_child(&self.guard), Signal::TERM)?;
        let status = self.until("the end of the swarm", |swarm| {
            std::thread::sleep(LOOK_EVERY);
            swarm.guard.try_wait()
        })?;
        if !status.success() {
            return Err(io::Error::other(format!("the swarm ended with {status}")));
        }
        let text = std::fs::read_to_string(notes(std::process::id()))?;
        let of = |line: &str| {
            line.split_once(' ').and_then(|(at, took)| Some((at.parse().ok()?, took.parse().ok()?)))
        };
        Ok(text.lines().filter_map(of).collect())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Ok(None) = self.guard.try_wait() {
            // Its keeper ends everything, and removes its folder.
            let _ = self.guard.kill();
            let _ = self.guard.wait();
        }
        let _ = std::fs::remove_file(notes(std::process::id()));
    }
}

/// A descriptor of a process.
///
/// # Errors
/// There is none of this number, or no descriptor is left.
pub(super) fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("a process without number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn ask(socket: &Path, request: &Request) -> io::Result<Response> {
    let (address, _folder) = address_of(socket)?;
    let mut stream = UnixStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let line = serde_json::to_string(request)? + "\n";
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
