//! Many agents: how long until all are ready and until all have ended, what the supervisor and an agent take in memory and
//! descriptors, and what CPU time all of them use while nothing happens. And many lanes: what one takes beyond its ring.
//!
//! Agents work in pairs of their own, each with lanes that the other reads, so that a swarm of a thousand is no star.

use super::lives::raw_starts_ns;
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::run::{Claimed, told_on_stderr};
use crate::scenario::usage;
use crate::swarm::Swarm;
use shoal_measure::cases::Bench;
use shoal_measure::outcome::Outcome;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many agents.
const SIZES: [usize; 2] = [100, 1000];
/// Agents of the swarms whose lanes are counted, and how many lanes each has: the one swarm without, the other with many more.
const LANES: (usize, [usize; 2]) = (10, [1, 33]);
/// Of each lane, as configured.
const LANE_KIB: u64 = 64;
/// How long nothing happens while CPU time is counted.
const REST: Duration = Duration::from_secs(2);
/// What is left to settle after all are ready.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs a swarm of each size, with a small share of the work only the small one; then one with few lanes and one with many.
///
/// # Errors
/// In words: what is lacking.
pub fn run(share: u64, bench: &mut Bench<'_>) -> Result<(), String> {
    let sizes = SIZES.into_iter().take(if share > 1 { 1 } else { SIZES.len() });
    for agents in sizes {
        measure(agents)?.into_iter().for_each(&mut *bench.each);
    }
    (bench.each)(measure_lanes()?);
    Ok(())
}

/// What a lane takes beyond the ring that was configured: pages of segments, spares included, and of both ends' and the supervisor's
/// maps. The difference of two swarms that differ in nothing but the number of lanes.
fn measure_lanes() -> Result<Outcome, String> {
    let (agents, [few, many]) = LANES;
    let [less, more] =
        [few, many].map(|lanes| watch(agents, lanes, Duration::ZERO).map(|(seen, _)| seen.all_kib));
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

fn measure(agents: usize) -> Result<[Outcome; 3], String> {
    let (seen, stopped) = watch(agents, 1, REST)?;
    let outcome = |mode: &str, took: Option<Duration>| Outcome {
        case: "scale".into(),
        mode: format!("{mode} {agents}"),
        count: agents as u64,
        p50_ns: took.map(|took| took.as_nanos() as f64),
        message: format!("idle agents, a lane of {LANE_KIB} KiB each; trusted"),
        ..Outcome::default()
    };
    let mut idle = outcome("idle", None);
    (idle.memory_bytes, idle.idle_ticks) = (Some(seen.supervisor_bytes), Some(seen.ticks));
    idle.descriptors = Some(seen.descriptors);
    idle.against = format!(
        "supervisor {} KiB, an agent {} KiB with its share of maps, {} ticks of CPU in {REST:?}, {} descriptors",
        seen.supervisor_bytes / 1024,
        seen.agent_bytes / 1024,
        seen.ticks,
        seen.descriptors
    );
    let stopped = outcome("stopped", Some(stopped));
    let mut ready = outcome("ready", Some(seen.ready));
    let floor = raw_starts_ns(agents)?;
    (ready.floor, ready.ratio_p50) = (Some(floor), Some(seen.ready.as_nanos() as f64 / floor));
    ready.against = "as many times vfork and exec to main, one after the other".into();
    Ok([ready, idle, stopped])
}

/// Runs a swarm until it was seen idle for a time: what was seen, and how long its end took.
fn watch(agents: usize, lanes: usize, rest: Duration) -> Result<(Seen, Duration), String> {
    let name = format!("bench-scale-{}", std::process::id());
    let claimed = Claimed::folder(&name)?;
    let file = swarm_file(&name, agents, lanes)?;
    let mut watcher = Watcher { phase: Phase::Starting(Instant::now()), rest, seen: None, stopped_at: None };
    let mut swarm = claimed.run(file, &mut watcher, told_on_stderr())?;
    if let Some(why) = swarm.failed_start.take() {
        return Err(why);
    }
    let (Some(seen), Some(stopped_at)) = (watcher.seen, watcher.stopped_at) else {
        return Err("interrupted before all was seen".into());
    };
    Ok((seen, stopped_at.elapsed()))
}

/// What was seen of a swarm that is ready.
#[derive(Clone, Copy)]
struct Seen {
    ready: Duration,
    supervisor_bytes: u64,
    agent_bytes: u64,
    /// All agents' own memory and the pages of all memfds.
    all_kib: u64,
    ticks: u64,
    descriptors: u64,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Since when.
    Starting(Instant),
    /// All are ready, after this time; when it is to be looked at.
    Settling(Duration, Instant),
    /// CPU time was noted; until when nothing happens.
    Resting(Duration, u64, Instant),
    Over,
}

struct Watcher {
    phase: Phase,
    rest: Duration,
    seen: Option<Seen>,
    stopped_at: Option<Instant>,
}

impl Watcher {
    fn look(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        match self.phase {
            Phase::Settling(ready, until) if until <= Instant::now() => {
                self.phase = Phase::Resting(ready, ticks(swarm)?, Instant::now() + self.rest);
            }
            Phase::Resting(ready, before, until) if until <= Instant::now() => {
                let ticks = ticks(swarm)?.saturating_sub(before);
                let agents: Vec<u64> = pids(swarm).filter_map(|pid| memory(pid, "Pss:").ok()).collect();
                self.seen = Some(Seen {
                    ready,
                    supervisor_bytes: memory(std::process::id() as i32, "Rss:")?,
                    agent_bytes: agents.iter().sum::<u64>() / agents.len().max(1) as u64,
                    all_kib: pids(swarm).filter_map(|pid| usage::own_kib(pid as u32)).sum::<u64>()
                        + usage::memfds_kib(),
                    ticks,
                    descriptors: usage::descriptors() as u64,
                });
                (self.phase, self.stopped_at) = (Phase::Over, Some(Instant::now()));
                swarm.shut_down();
            }
            Phase::Starting(_) | Phase::Settling(..) | Phase::Resting(..) | Phase::Over => {}
        }
        Ok(())
    }
}

fn pids(swarm: &Swarm) -> impl Iterator<Item = i32> {
    swarm.agents.iter().filter_map(|agent| agent.live.as_ref()).map(|live| live.child.pid)
}

/// CPU time of the supervisor and all agents, clock ticks.
fn ticks(swarm: &Swarm) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids(swarm).chain([std::process::id() as i32]) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in brackets and may hold anything; user and system time are the 12th and 13th fields behind it.
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        sum += behind
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

/// A line of a process's memory, bytes.
fn memory(pid: i32, line: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix(line)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
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
            self.phase = Phase::Settling(since.elapsed(), Instant::now() + SETTLE);
        }
    }
}

/// A swarm of so many agents, which wait in pairs for messages on each other's lanes.
pub(super) fn swarm_file(name: &str, agents: usize, lanes: usize) -> Result<SwarmFile, String> {
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
                "#
            );
        }
    }
    config::parse(Path::new("the bench's swarm file"), &text).map_err(|e| e.to_string())
}
