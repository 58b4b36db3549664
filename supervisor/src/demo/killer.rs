//! Kills the demo's agents, all three kinds in turn, on the supervisor's own thread. Never the reader.

use crate::child::State;
use crate::event_loop::{Companion, Watch};
use crate::swarm::Swarm;
use shoal_runtime::desk;
use shoal_runtime::mark::Place;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

/// How soon it looks again when there was nobody to kill.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Kills an agent every so often.
pub struct Killer {
    every: Duration,
    next_kill: Option<Instant>,
    turn: usize,
    /// What an agent held when it was killed last: no worker is killed twice on one file.
    last_held: HashMap<usize, Option<(usize, Place)>>,
    /// Kill whoever runs, whether it has worked already or not.
    hasty: bool,
}

impl Killer {
    /// Kills every `every`; never, if that is zero.
    pub fn new(every: Duration) -> Self {
        let next_kill = (!every.is_zero()).then(|| Instant::now() + every);
        Killer { every, next_kill, turn: 0, last_held: HashMap::new(), hasty: false }
    }

    /// Begins another pass: what was held before says nothing about it. `hasty` does not wait until an agent has worked.
    pub fn begin_pass(&mut self, hasty: bool) {
        self.last_held.clear();
        self.hasty = hasty;
    }

    fn kill_one(&mut self, swarm: &mut Swarm) -> bool {
        let count = swarm.agents.len();
        for _ in 0..count {
            let kinds = swarm.file.agents.len();
            let agent = self.candidate(swarm, self.turn % kinds, self.turn / kinds);
            self.turn += 1;
            if let Some(agent) = agent.filter(|&a| self.may_die(swarm, a)) {
                let held = swarm.agents[agent].view().and_then(|view| desk::view(view).held);
                self.last_held.insert(agent, held);
                return swarm.kill(agent);
            }
        }
        false
    }

    /// The agent of a kind whose turn it is.
    fn candidate(&self, swarm: &Swarm, kind: usize, round: usize) -> Option<usize> {
        let of_kind = swarm.topology.agents.iter().enumerate().filter(|(_, i)| i.config == kind && i.active);
        let of_kind: Vec<usize> = of_kind.map(|(agent, _)| agent).collect();
        of_kind.get(round % of_kind.len().max(1)).copied()
    }

    fn may_die(&self, swarm: &Swarm, agent: usize) -> bool {
        let record = &swarm.agents[agent];
        if record.live.as_ref().is_none_or(|live| live.child.adopted) {
            return false;
        }
        let Some(view) = record.view().filter(|_| record.state == State::Ready) else { return false };
        let words = desk::view(view);
        let same_file = words.held.is_some() && self.last_held.get(&agent) == Some(&words.held);
        !same_file && (self.hasty || words.first_message_ns != 0 || words.held.is_some())
    }
}

impl Companion for Killer {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.next_kill
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_some() {
            return;
        }
        let now = Instant::now();
        swarm.measure_recoveries();
        if self.next_kill.is_some_and(|at| at <= now) && !swarm.is_ending() {
            let killed = self.kill_one(swarm);
            self.next_kill = Some(now + if killed { self.every } else { LOOK_AGAIN.min(self.every) });
        }
    }
}
