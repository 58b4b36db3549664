//! Agents that the supervisor ends by itself, again and again: a swarm of a source, a sink that counts, and the agent that is ended in every
//! life; beside each end a raw kill, seen by a pidfd. What it is ended for, and how long that takes, is said by `removals` and `hangs`.

use super::kept;
use super::lives::{all_arrived, raw_child};
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::swarm::Swarm;
use serde::{Deserialize, Serialize};
use shoal_measure::floor::RawChild;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// An end that takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an agent is ended for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Why {
    /// A hostile one breaks a rule.
    Rule,
    /// It holds a message beyond its deadline.
    Hang {
        /// The deadline, ms.
        deadline_ms: u64,
    },
}

impl Why {
    /// In one word, of several.
    fn what(self) -> &'static str {
        match self {
            Why::Rule => "removals",
            Why::Hang { .. } => "hangs",
        }
    }

    /// What the agent is called for `shoal agent bench`.
    fn agent(self) -> &'static str {
        match self {
            Why::Rule => "rogue",
            Why::Hang { .. } => "hung",
        }
    }

    /// Further lines of its table.
    fn lines(self) -> String {
        match self {
            Why::Rule => "trust = \"hostile\"".into(),
            // A core file is written by the kernel, and none of ours.
            Why::Hang { deadline_ms } => {
                format!("deadline = \"{deadline_ms}ms\"\nlimits = {{ core_size = 0 }}")
            }
        }
    }

    /// How long each end took, as the supervisor notes it.
    fn of(self, swarm: &Swarm) -> &[u64] {
        match self {
            Why::Rule => &swarm.removals_ns,
            Why::Hang { .. } => &swarm.hangs_ns,
        }
    }
}

/// How long each took: the ends, and the raw kills beside them, ns.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ends {
    pub(super) ours_ns: Vec<u64>,
    pub(super) raw_ns: Vec<u64>,
}

/// Runs the swarm in this process until there were so many ends, and says [`Ends`].
///
/// # Errors
/// In words: what is lacking.
pub(super) fn watch(why: Why, count: usize) -> Result<u8, String> {
    let name = format!("bench-{}-{}", why.what(), std::process::id());
    let counter =
        Counter { count, why, raw: None, raw_ns: Vec::new(), due: Instant::now() + PATIENCE, failed: None };
    // Each end is told: they are what is measured.
    kept::run(swarm_file(&name, why)?, counter, Box::new(|_| ()), move |counter, swarm| {
        if let Some(failed) = counter.failed.take() {
            return Err(failed);
        }
        let ours_ns = why.of(swarm);
        let done = ours_ns.len().min(counter.raw_ns.len());
        if done < count {
            return Err(format!("interrupted after {done} of {count} {}", why.what()));
        }
        let ends = Ends { ours_ns: ours_ns[..count].to_vec(), raw_ns: std::mem::take(&mut counter.raw_ns) };
        all_arrived(swarm).map(|()| ends)
    })
}

/// Ends the swarm after so many ends, and makes a raw one beside each.
struct Counter {
    count: usize,
    why: Why,
    /// A child of the supervisor.
    raw: Option<RawChild>,
    raw_ns: Vec<u64>,
    due: Instant,
    failed: Option<String>,
}

impl Companion for Counter {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        self.raw = Some(raw_child().map_err(io::Error::other)?);
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        (self.raw_ns.len() < self.count).then_some(self.due)
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_none() && Instant::now() >= self.due && !swarm.is_ending() {
            self.failed = Some(format!("no more {} within {PATIENCE:?}", self.why.what()));
            swarm.shut_down();
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        while self.raw_ns.len() < self.why.of(swarm).len().min(self.count) && !swarm.is_ending() {
            let Some(raw) = &mut self.raw else { return };
            match raw.recover() {
                Ok(life) => self.raw_ns.push(life.death_ns),
                Err(error) => {
                    self.failed = Some(error.to_string());
                    return swarm.shut_down();
                }
            }
            self.due = Instant::now() + PATIENCE;
            if self.raw_ns.len() == self.count {
                swarm.shut_down();
            }
        }
    }
}

fn swarm_file(name: &str, why: Why) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?);
    let (agent, lines) = (why.agent(), why.lines());
    let text = format!(
        r#"
        [swarm]
        name = "{name}"
        [channel.beats]
        message = "Beat"
        # What the agent that is ended does not read in half a minute: else its source waits for it.
        capacity = "8 MiB"
        [agent.source]
        command = [{binary}, "agent", "bench", "source"]
        publishes = ["beats"]
        stop_timeout = "10s"
        [agent.sink]
        command = [{binary}, "agent", "bench", "sink"]
        subscribes = ["beats"]
        stop_timeout = "10s"
        [agent.{agent}]
        command = [{binary}, "agent", "bench", "{agent}"]
        subscribes = ["beats"]
        stop_timeout = "1s"
        max_attempts = 0
        restart = {{ policy = "permanent", intensity = 10000, period = "1s", backoff = "1ms..2ms" }}
        {lines}
        "#
    );
    config::parse(Path::new("the bench's swarm file"), &text).map_err(|e| e.to_string())
}
