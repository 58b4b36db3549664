//! Removals: a swarm of a source, a sink and a hostile agent, which breaks a rule with its first message in every life. How long it takes
//! from when that is seen until the supervisor has proved it dead and published its verdict; beside it a raw kill, seen by a pidfd.

use super::kept::{self, Measured};
use super::lives::{all_arrived, outcome, raw_child};
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::swarm::Swarm;
use serde::{Deserialize, Serialize};
use shoal_measure::floor::RawChild;
use shoal_measure::outcome::Outcome;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// A removal that takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured, ns: from its first violation to its verdict, and a raw kill beside each.
#[derive(Serialize, Deserialize)]
struct Removals {
    ours_ns: Vec<u64>,
    raw_ns: Vec<u64>,
}

/// Measures so many removals, in a process of its own.
///
/// # Errors
/// In words: what is lacking, or did not come.
pub fn run(removals: usize) -> Result<Outcome, String> {
    let seen: Removals = kept::measure(Measured::Removals(removals))?;
    let mut outcome = outcome("removal", "hostile", &seen.ours_ns, &seen.raw_ns, "kill, pidfd, reap");
    outcome.message = "an agent that broke a rule, until its verdict; hostile".into();
    Ok(outcome)
}

/// Runs the swarm in this process until there were so many removals, and says them.
///
/// # Errors
/// In words: what is lacking.
pub(super) fn watch(removals: usize) -> Result<u8, String> {
    let name = format!("bench-removals-{}", std::process::id());
    let counter =
        Counter { removals, raw: None, raw_ns: Vec::new(), due: Instant::now() + PATIENCE, why: None };
    // Each removal is told: they are what is measured.
    kept::run(swarm_file(&name)?, counter, Box::new(|_| ()), move |counter, swarm| {
        if let Some(why) = counter.why.take() {
            return Err(why);
        }
        let done = swarm.removals_ns.len().min(counter.raw_ns.len());
        if done < removals {
            return Err(format!("interrupted after {done} of {removals} removals"));
        }
        let (ours_ns, raw_ns) = (swarm.removals_ns[..removals].to_vec(), std::mem::take(&mut counter.raw_ns));
        all_arrived(swarm).map(|()| Removals { ours_ns, raw_ns })
    })
}

/// Ends the swarm after so many removals, and makes a raw one beside each.
struct Counter {
    removals: usize,
    /// A child of the supervisor.
    raw: Option<RawChild>,
    raw_ns: Vec<u64>,
    due: Instant,
    why: Option<String>,
}

impl Companion for Counter {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        self.raw = Some(raw_child(0).map_err(io::Error::other)?);
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        (self.raw_ns.len() < self.removals).then_some(self.due)
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_none() && Instant::now() >= self.due && !swarm.is_ending() {
            self.why = Some(format!("no further removal within {PATIENCE:?}"));
            swarm.shut_down();
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        while self.raw_ns.len() < swarm.removals_ns.len().min(self.removals) && !swarm.is_ending() {
            let Some(raw) = &mut self.raw else { return };
            match raw.recover() {
                Ok(life) => self.raw_ns.push(life.death_ns),
                Err(error) => {
                    self.why = Some(error.to_string());
                    return swarm.shut_down();
                }
            }
            self.due = Instant::now() + PATIENCE;
            if self.raw_ns.len() == self.removals {
                swarm.shut_down();
            }
        }
    }
}

fn swarm_file(name: &str) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?);
    let text = format!(
        r#"
        [swarm]
        name = "{name}"
        [channel.beats]
        message = "Beat"
        capacity = "1 MiB"
        [agent.source]
        command = [{binary}, "agent", "bench", "source"]
        publishes = ["beats"]
        stop_timeout = "10s"
        [agent.sink]
        command = [{binary}, "agent", "bench", "sink"]
        subscribes = ["beats"]
        stop_timeout = "10s"
        [agent.rogue]
        command = [{binary}, "agent", "bench", "rogue"]
        subscribes = ["beats"]
        trust = "hostile"
        stop_timeout = "1s"
        max_attempts = 0
        restart = {{ policy = "permanent", intensity = 10000, period = "1s", backoff = "1ms..2ms" }}
        "#
    );
    config::parse(Path::new("the bench's swarm file"), &text).map_err(|e| e.to_string())
}
