//! What is left when somebody dies whom agents need: keeper, guard, or, where the swarm file says so, their supervisor is killed by SIGKILL, and
//! every process of the swarm is waited for; beside as many processes that only wait, killed one after the other.

use super::EACH_MS;
use super::guarded::{PATIENCE, Swarm, pidfd_of};
use super::lives::outcome;
use crate::config::{Orphans, own_binary};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use shoal_measure::cases::Bench;
use shoal_measure::outcome::Outcome;
use shoal_runtime::clock::now_ns;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// How many agents, and how many deaths of each.
const SIZES: [(usize, usize); 2] = [(100, 9), (1000, 5)];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Keeper,
    Guard,
    Supervisor,
}

impl Who {
    const ALL: [Who; 3] = [Who::Keeper, Who::Guard, Who::Supervisor];

    fn name(self) -> &'static str {
        match self {
            Who::Keeper => "keeper",
            Who::Guard => "guard",
            Who::Supervisor => "supervisor",
        }
    }
}

/// Measures; with a small share of the work a hundred agents only, and fewer deaths.
///
/// # Errors
/// In words: what is lacking, or is left.
pub fn run(share: u64, bench: &mut Bench<'_>) -> Result<(), String> {
    let sizes = if share > 1 { &[(SIZES[0].0, 2)] } else { &SIZES[..] };
    for &(agents, deaths) in sizes {
        for who in Who::ALL {
            let measured = measure(agents, deaths, who);
            (bench.each)(
                measured.map_err(|error| format!("the {} of {agents} agents: {error}", who.name()))?,
            );
        }
    }
    Ok(())
}

fn measure(agents: usize, deaths: usize, who: Who) -> io::Result<Outcome> {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..deaths {
        ours.push(orphan(agents, who)?);
        floor.push(kill_plain(agents)?);
    }
    let mode = format!("{} {agents}", who.name());
    Ok(Outcome {
        message: "killed by SIGKILL, until no process of the swarm is left; trusted".into(),
        ..outcome("orphans", &mode, &ours, &floor, "as many that only wait, killed one by one")
    })
}

/// Kills one of a swarm that so many agents need; how long until all of its processes were gone, ns.
fn orphan(agents: usize, who: Who) -> io::Result<u64> {
    let orphans = if who == Who::Supervisor { Orphans::Kill } else { Orphans::Keep };
    let mut swarm = Swarm::start(agents, EACH_MS, orphans)?;
    let report = swarm.ready()?;
    let guard = pidfd_of(swarm.guard.id())?;
    let keeper = pidfd_of(only_child(swarm.guard.id())?)?;
    let (_, supervisor) = swarm.supervisor()?;
    let pids = report.agents.iter().filter_map(|agent| agent.pid);
    let agents = pids.map(pidfd_of).collect::<io::Result<Vec<OwnedFd>>>()?;
    let victim = match who {
        Who::Keeper => &keeper,
        Who::Guard => &guard,
        Who::Supervisor => &supervisor,
    };
    let killed_ns = now_ns();
    pidfd_send_signal(victim, Signal::KILL)?;
    for one in [&guard, &keeper, &supervisor].into_iter().chain(&agents) {
        until_dead(one)?;
    }
    let took_ns = now_ns() - killed_ns;
    match swarm.socket.as_deref().is_some_and(|socket| socket.exists()) {
        true => Err(io::Error::other("its control socket is left")),
        false => Ok(took_ns),
    }
}

/// The same of processes that nobody needs and that need nobody.
fn kill_plain(count: usize) -> io::Result<u64> {
    let binary = own_binary().map_err(io::Error::other)?;
    let mut all = Plain(Vec::new());
    for _ in 0..count {
        let mut command = Command::new(&binary);
        command.args([super::PEER[0], super::RAW, "0", super::LARGE]);
        all.0.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    }
    for child in &mut all.0 {
        // It says a byte when it is there, and one when it has its memory.
        child.stdout.as_mut().map_or(Ok(()), |said| said.read_exact(&mut [0; 2]))?;
    }
    let pidfds = all.0.iter().map(|child| pidfd_of(child.id())).collect::<io::Result<Vec<OwnedFd>>>()?;
    let killed_ns = now_ns();
    pidfds.iter().try_for_each(|pidfd| pidfd_send_signal(pidfd, Signal::KILL))?;
    pidfds.iter().try_for_each(until_dead)?;
    Ok(now_ns() - killed_ns)
}

/// Children that end with this.
struct Plain(Vec<Child>);

impl Drop for Plain {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until_dead(pidfd: &OwnedFd) -> io::Result<()> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], Some(&patience))? {
        0 => Err(io::Error::other(format!("a process of the swarm is left after {PATIENCE:?}"))),
        _ => Ok(()),
    }
}

/// The child of a process that has one.
fn only_child(pid: u32) -> io::Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next().and_then(|child| child.parse().ok());
    first.ok_or_else(|| io::Error::other("the guard has no keeper"))
}
