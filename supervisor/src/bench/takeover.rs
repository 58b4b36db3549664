//! Take-overs: the supervisor of a swarm of idle agents is killed under its keeper, again and again, and asked who it is. What answers is
//! the next one, which says since when it watches all agents: the answer itself comes a little later. The swarm has a process of its own, which runs it as `shoal run` does, for only
//! that has a keeper; it ends when who measures it is gone.

use super::kept::ends_with;
use super::lives::{kills, outcome, raw_child};
use super::scale::swarm_file;
use crate::cli::BAD_INPUT;
use crate::config;
use crate::control::{ANSWER_BYTES_MAX, PsReport, PsState, Request, Response, address_of};
use crate::herald::Manner;
use crate::log::report;
use crate::run::run_read;
use crate::run_dir::list_running;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use shoal_measure::cases::Bench;
use shoal_measure::outcome::Outcome;
use shoal_runtime::clock::now_ns;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many agents.
const SIZES: [usize; 3] = [10, 100, 1000];
/// How long a swarm is left alone between them.
const REST: Duration = Duration::from_millis(20);
/// What takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the process that runs the swarm is told to be.
pub(super) const SWARM: &str = "swarm";

fn name_for(bench: u32) -> String {
    format!("bench-takeover-{bench}")
}

/// Is the process that runs a swarm of so many agents, for the process of this number: it is asked to end when that is gone.
pub(super) fn be_swarm(agents: usize, bench: u32) -> ExitCode {
    match ends_with(bench).and_then(|()| swarm_file(&name_for(bench), agents, 1)) {
        Ok(file) => run_read(file, Manner::Foreground),
        Err(error) => {
            report!("shoal: {error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Runs a swarm of each size; with a small share of the work none of a thousand, and fewer kills.
///
/// # Errors
/// In words: what is lacking.
pub fn run(share: u64, bench: &mut Bench<'_>) -> Result<(), String> {
    let sizes = if share > 1 { 2 } else { SIZES.len() };
    for agents in SIZES.into_iter().take(sizes) {
        let measured = measure(agents, kills(share)).map_err(|error| format!("{agents} agents: {error}"))?;
        measured.into_iter().for_each(&mut *bench.each);
    }
    Ok(())
}

/// How long one take-over took since the kill, ns.
struct TakeOver {
    /// Until the successor watches all agents.
    watching_ns: u64,
    /// Until it has answered.
    answered_ns: u64,
}

fn measure(agents: usize, kills: usize) -> io::Result<[Outcome; 2]> {
    let mut raw = raw_child(0).map_err(io::Error::other)?;
    let mut swarm = Swarm::start(agents)?;
    let before = swarm.ready()?;
    let (mut watching, mut answered, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    while floor.len() < kills {
        let took = swarm.take_over()?;
        watching.push(took.watching_ns);
        answered.push(took.answered_ns);
        floor.push(raw.recover()?.all_ns());
        std::thread::sleep(REST);
    }
    let lives = |report: &PsReport| report.agents.iter().map(|a| (a.pid, a.generation)).collect::<Vec<_>>();
    if lives(&swarm.ready()?) != lives(&before) {
        return Err(io::Error::other("an agent was started again over the deaths of its supervisor"));
    }
    swarm.end()?;
    let outcome = |mode: &str, until: &str, ours: &[u64]| Outcome {
        message: format!("idle agents, until the next supervisor {until}; trusted"),
        ..outcome("takeover", mode, ours, &floor, "kill, pidfd, vfork and exec to main")
    };
    Ok([
        outcome(&format!("watching {agents}"), "watches all of them", &watching),
        outcome(&agents.to_string(), "answers", &answered),
    ])
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
struct Swarm {
    name: String,
    guard: Child,
    socket: Option<PathBuf>,
    interrupted: Interrupted,
}

impl Swarm {
    fn start(agents: usize) -> io::Result<Swarm> {
        let bench = std::process::id();
        let interrupted = Interrupted::watch()?;
        let guard = Command::new(config::own_binary().map_err(io::Error::other)?)
            .args([super::PEER[0], SWARM, &agents.to_string(), &bench.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Swarm { name: name_for(bench), guard, socket: None, interrupted })
    }

    /// Tries something until it comes to pass.
    fn until<T>(
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
    fn ready(&mut self) -> io::Result<PsReport> {
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
            std::thread::sleep(REST);
            Ok(None)
        })
    }

    /// Kills the supervisor; how long until another watched all and answered.
    fn take_over(&mut self) -> io::Result<TakeOver> {
        let info = |swarm: &mut Swarm| match swarm.ask(&Request::Info) {
            Some(Response::Info(info)) => Ok(Some(info)),
            _ => Ok(None),
        };
        let former = self.until("an answer", info)?.supervisor;
        let pid =
            Pid::from_raw(former as i32).ok_or_else(|| io::Error::other("a supervisor without number"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // The number was its own when the descriptor was opened, since it has it still.
        if self.until("an answer", info)?.supervisor != former {
            return Err(io::Error::other("the supervisor died of itself"));
        }
        let killed_ns = now_ns();
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        let other = |swarm: &mut Swarm| Ok(info(swarm)?.filter(|now| now.supervisor != former));
        let next = self.until("another supervisor", other)?;
        let answered_ns = now_ns() - killed_ns;
        // Both by the clock of this machine.
        let watching_ns = next
            .watching_ns
            .checked_sub(killed_ns)
            .ok_or_else(|| io::Error::other("another supervisor watched all before this one was killed"))?;
        Ok(TakeOver { watching_ns, answered_ns })
    }

    /// Asks the supervisor; `None` when none answers. The socket is the keeper's, so that who asks in between waits.
    fn ask(&self, request: &Request) -> Option<Response> {
        ask(self.socket.as_deref()?, request).ok()
    }

    fn end(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.guard), Signal::TERM)?;
        let status = self.until("the end of the swarm", |swarm| {
            std::thread::sleep(REST);
            swarm.guard.try_wait()
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the swarm ended with {status}")))
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if let Ok(None) = self.guard.try_wait() {
            // Its keeper ends everything, and removes its folder.
            let _ = self.guard.kill();
            let _ = self.guard.wait();
        }
    }
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
