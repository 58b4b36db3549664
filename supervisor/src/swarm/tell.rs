//! What is told of the swarm: to the operator, to the log, to the events.

use super::Swarm;
use crate::crash::Crash;
use crate::events::{Event, Kind, Of};
use crate::log::Level;

impl Swarm {
    /// Tells the operator something.
    pub fn notice(&mut self, text: &str) {
        self.tell(Level::Warn, Kind::Notice, None, text);
    }

    /// Tells the operator something that happened, to an agent or to the swarm; it is an event, too.
    pub fn tell(&mut self, level: Level, kind: Kind, agent: Option<usize>, text: &str) {
        self.records.log.say(level, text);
        let of = agent.map(|agent| (self.agents[agent].name.as_str(), self.agents[agent].generation));
        self.records.events.note(kind, Of { agent: of, crash: None }, text);
    }

    /// Tells the operator of something that is an event already, or none.
    pub(super) fn remark(&mut self, level: Level, text: &str) {
        self.records.log.say(level, text);
    }

    /// Something happened to an agent that nobody needs to be told of: an event, and of interest who looks for a fault.
    pub fn happened(&mut self, kind: Kind, agent: usize, text: &str) {
        let generation = self.agents[agent].generation;
        self.happened_in(kind, agent, generation, text, None);
    }

    /// The same in a certain life of the agent, with the number of the crash report.
    pub(super) fn happened_in(
        &mut self,
        kind: Kind,
        agent: usize,
        generation: u32,
        text: &str,
        crash: Option<u64>,
    ) {
        let name = self.agents[agent].name.as_str();
        if self.records.log.hears(Level::Debug) {
            self.records.log.say(Level::Debug, &format!("agent {name} (generation {generation}): {text}"));
        }
        self.records.events.note(kind, Of { agent: Some((name, generation)), crash }, text);
    }

    /// Writes what was noted since the last call, and says what cannot be written.
    pub fn write_out(&mut self) {
        self.records.events.write_out();
        let faults = [self.records.events.fault(), self.records.log.fault()];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        faults.iter().for_each(|text| self.records.log.say(Level::Warn, text));
    }

    /// Nothing of the swarm runs any more.
    pub fn over(&mut self) {
        if std::mem::replace(&mut self.told_over, true) {
            return self.write_out();
        }
        self.records.events.note(Kind::SwarmEnded, Of::default(), "nothing of it runs any more");
        self.write_out();
    }

    /// The events that are kept from a number on, and the number of the next one.
    pub fn events_from(&self, n: u64) -> (Vec<Event>, u64) {
        (self.records.events.from(n), self.records.events.next())
    }

    /// The number of the next event.
    pub fn next_event(&self) -> u64 {
        self.records.events.next()
    }

    /// The crash reports in memory, oldest first.
    pub fn crashes(&self) -> impl Iterator<Item = &Crash> {
        self.records.crashes.kept()
    }
}
