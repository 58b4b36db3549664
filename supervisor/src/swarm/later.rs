//! What waits while the next incarnation is on its way: reports of deaths, letting go of the dead, and ending what they left running. A
//! disk, taking the memory of a process back, or the list of a thousand children may take longer than a whole recovery.

use super::Swarm;
use crate::agent::Remains;
use crate::crash::Crash;
use std::time::{Duration, Instant};

/// What was put off is done when nothing else came for so long.
const PAUSE: Duration = Duration::from_millis(1);
/// So long after it at the latest.
const AT_LATEST: Duration = Duration::from_millis(20);

/// What was put off.
#[derive(Default)]
pub(super) struct Later {
    /// Since when there is something.
    since: Option<Instant>,
    /// Reports of deaths, by agent.
    crashes: Vec<(usize, Crash)>,
    /// What the journal names no longer.
    remains: Vec<Remains>,
    /// Whether somebody died who may have left processes.
    strays: bool,
}

impl Later {
    fn is_empty(&self) -> bool {
        self.crashes.is_empty() && self.remains.is_empty() && !self.strays
    }
}

impl Swarm {
    /// A batch of events is done: writes the journal, which then names nothing any more that is to be let go of.
    pub fn settle_batch(&mut self) {
        self.write_journal();
        for remains in std::mem::take(&mut self.remains) {
            match remains {
                Remains::Pipe(_) => continue,
                Remains::Live(mut live) => {
                    // The kernel tells of a pipe at its end for as long as it is watched.
                    live.pipes = [None, None];
                    self.later.remains.push(Remains::Live(live));
                }
                Remains::Grave(_) => self.later.remains.push(remains),
            }
            self.later.since.get_or_insert_with(Instant::now);
        }
    }

    /// Puts off the report of a death.
    pub(super) fn report_later(&mut self, agent: usize, crash: Crash) {
        self.later.since.get_or_insert_with(Instant::now);
        self.later.crashes.push((agent, crash));
    }

    /// Puts off ending the processes that a dead one left.
    pub(super) fn end_strays_later(&mut self) {
        self.later.since.get_or_insert_with(Instant::now);
        self.later.strays = true;
    }

    /// Files the reports that were put off.
    pub fn file_crashes(&mut self) {
        for (agent, crash) in std::mem::take(&mut self.later.crashes) {
            self.file_crash(agent, crash);
        }
    }

    /// Does what was put off: when nothing else is to be done, or it was put off long enough.
    pub fn catch_up(&mut self, idle: bool) {
        if idle || self.later.since.is_some_and(|since| since.elapsed() >= AT_LATEST) {
            self.file_crashes();
            for remains in std::mem::take(&mut self.later.remains) {
                if let Remains::Live(live) = remains {
                    self.cradle.spawner.bury(live.child);
                }
            }
            // Of all agents the processes are to be known for that: a successor first remembers them, in turns.
            if !self.agents.any_put_off() && std::mem::take(&mut self.later.strays) {
                self.end_strays();
            }
            self.later.since.take_if(|_| !self.later.strays);
        }
    }

    /// Lets go of what the readers of an agent have drained; whether nothing of its former lives is left.
    pub fn has_let_go(&mut self, agent: usize) -> bool {
        self.reclaim(agent);
        self.agents[agent].graves.is_empty() && self.remains.is_empty() && self.later.is_empty()
    }

    /// How long to wait for something else to do before that.
    pub fn catch_up_pause(&self) -> Option<Duration> {
        (!self.later.is_empty()).then_some(PAUSE)
    }
}
