//! Who is started when, and whose end is the swarm's.

use super::{Ends, Swarm};
use crate::child::{Event, State};
use crate::counted::counted;
use crate::events::{Kind, Of};
use crate::log::Level;

impl Swarm {
    /// Starts who has nobody to wait for; the others follow as those they wait for get ready.
    pub fn start(&mut self) {
        let postman = self.postman.agent;
        self.begun = true;
        let is_to_run = |agent: &usize| *agent != postman && self.topology.agents[*agent].active;
        self.waiting = (0..self.agents.len()).filter(is_to_run).collect();
        let text =
            format!("{}, by {}", counted(self.waiting.len() as u64, "agent"), self.file.path.display());
        self.write_journal();
        self.records.events.note(Kind::SwarmStarted, Of::default(), &text);
        self.start_due();
        self.look_soon();
    }

    /// Whether an agent waits for others before its first start.
    pub fn is_waiting(&self, agent: usize) -> bool {
        self.waiting.contains(&agent)
    }

    /// Whether others wait for an agent before their first start.
    pub(super) fn is_awaited(&self, agent: usize) -> bool {
        let before = self.topology.agents[agent].config;
        let after = |waiting: &usize| &self.file.agents[self.topology.agents[*waiting].config].after;
        self.waiting.iter().any(|waiting| after(waiting).contains(&before))
    }

    /// Starts who waited for agents that are ready now, or have ended well before: a preparation that is done.
    pub(super) fn start_due(&mut self) {
        // One at a time: a start that fails may end the swarm, and with it all waiting.
        while let Some(place) = self.waiting.iter().position(|&agent| self.is_due(agent)) {
            let agent = self.waiting.remove(place);
            self.feed(agent, Event::StartAsked);
        }
    }

    fn is_due(&self, agent: usize) -> bool {
        let config = &self.file.agents[self.topology.agents[agent].config];
        config.after.iter().all(|&before| {
            let mut instances = self.topology.active(before);
            instances.all(|other| {
                let record = &self.agents[other];
                record.state == State::Ready || (record.was_ready && record.state == State::Ended)
            })
        })
    }

    /// An agent ended normally, for good: if it is significant and the last of its replicas, the swarm ends.
    pub(super) fn ended_well(&mut self, agent: usize) {
        let config = self.topology.agents[agent].config;
        let significant = self.file.agents[config].significant;
        let all = self.topology.active(config).all(|other| self.agents[other].state == State::Ended);
        if significant && all && self.ends == Ends::No {
            let text = format!(
                "agent {} has done its work and is significant: the swarm ends",
                self.file.agents[config].name
            );
            self.tell(Level::Info, Kind::SwarmEnding, Some(agent), &text);
            self.shut_down();
        }
    }
}
