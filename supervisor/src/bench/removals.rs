//! Removals: a swarm of a source, a sink and a hostile agent, which breaks a rule with its first message in every life. How long it takes
//! from when that is seen until the supervisor has proved it dead and published its verdict; beside it a raw kill, seen by a pidfd.

use super::agents::Heard;
use super::lives::{outcome, raw_child};
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::run::Claimed;
use crate::swarm::Swarm;
use shoal_measure::floor::RawChild;
use shoal_measure::outcome::Outcome;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// A removal that takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the swarm until there were so many removals.
///
/// # Errors
/// In words: what is lacking, or did not come.
pub fn run(removals: usize) -> Result<Outcome, String> {
    let name = format!("bench-removals-{}", std::process::id());
    let claimed = Claimed::folder(&name)?;
    let mut counter = Counter {
        removals,
        raw: raw_child()?,
        raw_ns: Vec::new(),
        due: Instant::now() + PATIENCE,
        why: None,
    };
    // Each removal is told: they are what is measured.
    let mut swarm = claimed.run(swarm_file(&name)?, &mut counter, Box::new(|_| ()))?;
    if let Some(why) = swarm.failed_start.take().or(counter.why.take()) {
        return Err(why);
    }
    let done = swarm.removals_ns.len().min(counter.raw_ns.len());
    if done < removals {
        return Err(format!("interrupted after {done} of {removals} removals"));
    }
    let heard = |name: &str| {
        let agent = swarm.agents.iter().find(|agent| agent.name == name);
        agent.and_then(|agent| agent.committed_state::<Heard>()).map_or(0, |heard| heard.count)
    };
    let (sent, received) = (heard("source"), heard("sink"));
    if sent != received || received == 0 {
        return Err(format!("{sent} messages were sent and {received} received beside the removals"));
    }
    let (ours, raw) = (&swarm.removals_ns[..removals], &counter.raw_ns[..removals]);
    let mut outcome = outcome("removal", "hostile", ours, raw, "kill, pidfd, reap");
    outcome.message = "an agent that broke a rule, until its verdict; hostile".into();
    Ok(outcome)
}

/// Ends the swarm after so many removals, and makes a raw one beside each.
struct Counter {
    removals: usize,
    raw: RawChild,
    raw_ns: Vec<u64>,
    due: Instant,
    why: Option<String>,
}

impl Companion for Counter {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
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
            match self.raw.recover() {
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
