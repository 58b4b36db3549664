//! Many agents: how long until all are ready and until all have ended, what the supervisor and an agent take in memory and
//! descriptors, and what CPU time they use while nothing happens. And many lanes: what one takes beyond its ring.
//!
//! Agents work in pairs of their own, each with lanes that the other reads, so that a swarm of a thousand is no star.

use super::kept::{self, Measured};
use super::lives::raw_starts_ns;
use super::table;
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::run::told_on_stderr;
use crate::run_dir::list_running;
use crate::scenario::usage;
use crate::swarm::Swarm;
use serde::{Deserialize, Serialize};
use shoal_measure::cases::Bench;
use shoal_measure::outcome::Outcome;
use shoal_measure::pairs::percentile;
use shoal_runtime::clock::now_ns;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many agents, how often they are started and stopped, and how long they do nothing in the first of these runs.
const SIZES: [(usize, usize, Duration); 2] =
    [(100, 9, Duration::from_secs(10)), (1000, 5, Duration::from_secs(60))];
/// The same of a quick run.
const SIZES_QUICK: [(usize, usize, Duration); 1] = [(100, 3, Duration::from_secs(2))];
/// Agents of the swarms whose lanes are counted, and how many lanes each has: the one swarm without, the other with many more.
const LANES: (usize, [usize; 2]) = (10, [1, 33]);
/// Of each lane, as configured.
const LANE_KIB: u64 = 64;
/// What is left to settle after all are ready: what was needed for the start is given back after two quiet seconds.
const SETTLE: Duration = Duration::from_secs(3);
/// The same before an observer counts, and how long it has in the end to say what it counted.
const LEAD: Duration = Duration::from_secs(1);

/// What the process is told to be that observes the supervisor.
pub(super) const OBSERVER: &str = "observer";

/// What a swarm is to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    agents: usize,
    /// That each agent writes, and reads.
    lanes: usize,
    /// How long nothing happens while CPU time is counted; it is ended when it is ready if that is none.
    rest: Duration,
}

/// Runs swarms of each size, with a small share of the work only small ones; then one with few lanes and one with many.
///
/// # Errors
/// In words: what is lacking.
pub fn run(share: u64, bench: &mut Bench<'_>) -> Result<(), String> {
    let sizes = if share > 1 { &SIZES_QUICK[..] } else { &SIZES };
    for &(agents, runs, rest) in sizes {
        measure(agents, runs, rest)?.into_iter().for_each(&mut *bench.each);
    }
    (bench.each)(measure_lanes()?);
    Ok(())
}

/// What a lane takes beyond the ring that was configured: pages of segments, spares included, and of both ends' and the supervisor's
/// maps. The difference of two swarms that differ in nothing but the number of lanes.
fn measure_lanes() -> Result<Outcome, String> {
    let (agents, [few, many]) = LANES;
    let rest = Duration::from_millis(1);
    let [less, more] =
        [few, many].map(|lanes| see(Plan { agents, lanes, rest }).map(|(seen, _)| seen.all_kib));
    let lanes = (agents * (many - few)) as u64;
    let lane_bytes = more?.saturating_sub(less?) * 1024 / lanes;
    let beyond_bytes = lane_bytes.saturating_sub(LANE_KIB * 1024);
    Ok(Outcome {
        case: "scale".into(),
        mode: format!("lane of {LANE_KIB} KiB"),
        count: lanes,
        memory_bytes: Some(beyond_bytes),
        against: format!("{beyond_bytes} bytes beyond it, with what maps and watches it"),
        message: format!("{agents} idle agents with {few} and with {many} lanes each; trusted"),
        ..Outcome::default()
    })
}

fn measure(agents: usize, runs: usize, rest: Duration) -> Result<[Outcome; 3], String> {
    let (first, stopped) = see(Plan { agents, lanes: 1, rest })?;
    let (mut ready, mut stopped) = (vec![first.ready_ns], vec![stopped]);
    for _ in 1..runs {
        let (seen, ended) = see(Plan { agents, lanes: 1, rest: Duration::ZERO })?;
        ready.push(seen.ready_ns);
        stopped.push(ended);
    }
    let outcome = |mode: &str, took: &mut [u64]| Outcome {
        case: "scale".into(),
        mode: format!("{mode} {agents}"),
        count: agents as u64,
        p50_ns: percentile(took, 50).map(|ns| ns as f64),
        p99_ns: percentile(took, 99).map(|ns| ns as f64),
        message: format!("idle agents, a lane of {LANE_KIB} KiB each; trusted"),
        ..Outcome::default()
    };
    let floor = raw_starts_ns(agents)?;
    let ratio = percentile(&mut ready, 50).map(|ns| ns as f64 / floor);
    Ok([
        Outcome {
            floor: Some(floor),
            ratio_p50: ratio,
            against: "as many times vfork and exec to main, one after the other".into(),
            ..outcome("ready", &mut ready)
        },
        first.idle(outcome("idle", &mut []), agents, rest),
        Outcome {
            against: "until nothing of it is left: no process, no folder".into(),
            ..outcome("stopped", &mut stopped)
        },
    ])
}

/// Runs a swarm in a process of its own until it was seen: what was seen, and how long its end took, ns.
fn see(plan: Plan) -> Result<(Seen, u64), String> {
    let seen: Seen = kept::measure(Measured::Scale(plan))?;
    let stopped_ns = now_ns().saturating_sub(seen.stop_ns);
    let left = list_running().map_err(|e| e.to_string())?.into_iter().find(|it| it.name.starts_with(NAME));
    match left {
        Some(left) => Err(format!("swarm {} is left", left.name)),
        None => Ok((seen, stopped_ns)),
    }
}

/// How the swarms' names begin.
const NAME: &str = "bench-scale-";

/// Runs a swarm in this process until it was seen idle for a time, and says [`Seen`].
///
/// # Errors
/// In words: what is lacking.
pub(super) fn watch(plan: Plan) -> Result<u8, String> {
    let file = swarm_file(&format!("{NAME}{}", std::process::id()), plan.agents, plan.lanes, "")?;
    let watcher =
        Watcher { phase: Phase::Starting(Instant::now()), rest: plan.rest, observer: None, seen: None };
    kept::run(file, watcher, told_on_stderr(), |watcher, _| {
        watcher.seen.take().ok_or_else(|| "interrupted before all was seen".into())
    })
}

/// What was seen of a swarm that is ready.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Seen {
    ready_ns: u64,
    supervisor_bytes: u64,
    /// All agents' own memory, their page tables and the pages of all memfds.
    all_kib: u64,
    /// CPU time while nothing happened: the supervisor's, and all agents'.
    supervisor_ns: u64,
    agents_ns: u64,
    descriptors: u64,
    /// When it was asked to end, CLOCK_MONOTONIC ns.
    stop_ns: u64,
}

impl Seen {
    /// As a result.
    fn idle(&self, idle: Outcome, agents: usize, rest: Duration) -> Outcome {
        let agent_kib = (self.all_kib / agents as u64).saturating_sub(LANE_KIB);
        let per_second = self.supervisor_ns as f64 / rest.as_secs_f64();
        Outcome {
            memory_bytes: Some(self.supervisor_bytes),
            agent_bytes: Some(agent_kib * 1024),
            supervisor_cpu_ns: Some(per_second),
            agents_cpu_ns: Some(self.agents_ns),
            descriptors: Some(self.descriptors),
            against: format!(
                "supervisor {} KiB, {} of CPU a second; an agent {agent_kib} KiB beside its lane, all agents {} of CPU in {rest:?}; \
                 {} descriptors",
                self.supervisor_bytes / 1024,
                table::time(per_second),
                table::time(self.agents_ns as f64),
                self.descriptors
            ),
            ..idle
        }
    }
}

#[derive(Clone, Copy)]
enum Phase {
    /// Since when.
    Starting(Instant),
    /// All are ready, after so many ns; when it is to be looked at.
    Settling(u64, Instant),
    /// The agents' CPU time was noted; until when nothing happens.
    Resting(u64, u64, Instant),
    Over,
}

struct Watcher {
    phase: Phase,
    rest: Duration,
    /// Counts the supervisor's CPU time meanwhile.
    observer: Option<Child>,
    seen: Option<Seen>,
}

impl Watcher {
    fn look(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        match self.phase {
            Phase::Settling(ready_ns, until) if until <= Instant::now() => {
                let agents_ns = agents_ns(swarm);
                // Who counted its own time would count the turn of the loop in which it does.
                self.observer = Some(observe(self.rest)?);
                self.phase = Phase::Resting(ready_ns, agents_ns, Instant::now() + LEAD + self.rest + LEAD);
            }
            Phase::Resting(ready_ns, before_ns, until) if until <= Instant::now() => {
                let agents_ns = agents_ns(swarm);
                let seen = Seen {
                    ready_ns,
                    supervisor_bytes: memory(std::process::id(), "Rss:")?,
                    all_kib: pids(swarm).filter_map(usage::own_kib).sum::<u64>() + usage::memfds_kib(),
                    supervisor_ns: observed(self.observer.take())?,
                    agents_ns: agents_ns.saturating_sub(before_ns),
                    descriptors: usage::descriptors() as u64,
                    ..Seen::default()
                };
                self.end(swarm, seen);
            }
            Phase::Starting(_) | Phase::Settling(..) | Phase::Resting(..) | Phase::Over => {}
        }
        Ok(())
    }

    fn end(&mut self, swarm: &mut Swarm, seen: Seen) {
        self.phase = Phase::Over;
        self.seen = Some(Seen { stop_ns: now_ns(), ..seen });
        swarm.shut_down();
    }
}

fn pids(swarm: &Swarm) -> impl Iterator<Item = u32> {
    swarm.agents.iter().filter_map(|agent| agent.live.as_ref()).map(|live| live.child.pid as u32)
}

/// Starts who counts the CPU time of this process, but for a moment first.
fn observe(rest: Duration) -> io::Result<Child> {
    let this = std::process::id().to_string();
    Command::new(config::own_binary().map_err(io::Error::other)?)
        .args([super::PEER[0], OBSERVER, &rest.as_millis().to_string(), &this])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Is that one: says how much CPU time a process used in so many milliseconds, ns.
pub(super) fn be_observer(rest_ms: u64, of: u32) {
    let count = || usage::cpu_ns(of);
    std::thread::sleep(LEAD);
    let before = count();
    std::thread::sleep(Duration::from_millis(rest_ms));
    if let (Some(before), Some(after)) = (before, count()) {
        let _ = writeln!(io::stdout(), "{}", after - before);
    }
}

/// What it counted.
fn observed(observer: Option<Child>) -> io::Result<u64> {
    let said = observer.map(Child::wait_with_output).transpose()?;
    let said = said.and_then(|said| String::from_utf8_lossy(&said.stdout).trim().parse().ok());
    said.ok_or_else(|| io::Error::other("who was to count the supervisor's CPU time did not say it"))
}

/// CPU time of all agents, ns.
fn agents_ns(swarm: &Swarm) -> u64 {
    pids(swarm).filter_map(usage::cpu_ns).sum()
}

/// A line of a process's memory, bytes.
fn memory(pid: u32, line: &str) -> io::Result<u64> {
    let kib = usage::rollup_kib(pid, line);
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {line} of process {pid}")))
}

impl Companion for Watcher {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting(_) | Phase::Over => None,
            Phase::Settling(_, until) | Phase::Resting(_, _, until) => Some(until),
        }
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_some() || swarm.is_ending() {
            return;
        }
        if let Err(error) = self.look(swarm) {
            swarm.notice(&format!("measuring: {error}"));
            self.phase = Phase::Over;
            swarm.shut_down();
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        if let Phase::Starting(since) = self.phase
            && swarm.started_once()
        {
            let ready_ns = since.elapsed().as_nanos() as u64;
            match self.rest.is_zero() {
                true => self.end(swarm, Seen { ready_ns, ..Seen::default() }),
                false => self.phase = Phase::Settling(ready_ns, Instant::now() + SETTLE),
            }
        }
    }
}

/// A swarm of so many agents, which wait in pairs for messages on each other's lanes, and of what `more` says.
pub(super) fn swarm_file(name: &str, agents: usize, lanes: usize, more: &str) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?);
    let mut text = format!("[swarm]\nname = \"{name}\"\n");
    for pair in 0..agents / 2 {
        for (own, other) in [("a", "b"), ("b", "a")] {
            let names =
                |side: &str| (0..lanes).map(|lane| format!("{side}{pair}x{lane}")).collect::<Vec<_>>();
            let (publishes, subscribes) = (names(own), names(other));
            for channel in &publishes {
                let _ = write!(
                    text,
                    r#"
                    [channel.{channel}]
                    message = "Beat"
                    capacity = "{LANE_KIB} KiB"
                    "#
                );
            }
            let _ = write!(
                text,
                r#"
                [agent.{own}{pair}]
                command = [{binary}, "agent", "bench", "idle", "{lanes}", "{own}{pair}", "{other}{pair}"]
                publishes = {publishes:?}
                subscribes = {subscribes:?}
                stop_timeout = "10s"
                ready_timeout = "60s"
                # However often one is killed, it comes back at once.
                restart = {{ policy = "permanent", period = "1ms" }}
                "#
            );
        }
    }
    text.push_str(more);
    config::parse(Path::new("the bench's swarm file"), &text).map_err(|e| e.to_string())
}
