//! The end of a swarm: in stages, sources first, each until it is at rest or has had its time; or at once.

use super::{Effect, Ends, Swarm, Timer};
use crate::child::{Event, State};
use crate::counted::{counted, one_or};
use crate::events::{Kind, Of};
use std::time::Instant;

impl Swarm {
    /// Ends the swarm: in stages, sources first; asked again, by SIGKILL.
    pub fn shut_down(&mut self) {
        match self.ends {
            Ends::No => {
                self.records.events.note(Kind::SwarmEnding, Of::default(), "in stages, sources first");
                self.end_pauses();
                self.begin_stage(0);
                self.advance();
            }
            Ends::Stage(_) | Ends::Undone | Ends::Killed => self.kill_all(),
        }
    }

    /// Ends the swarm by SIGKILL.
    pub fn kill_all(&mut self) {
        self.end_at_once(Ends::Killed);
    }

    pub(super) fn end_at_once(&mut self, ends: Ends) {
        self.ends = ends;
        self.waiting.clear();
        self.records.events.note(Kind::SwarmEnding, Of::default(), "by SIGKILL");
        for agent in 0..self.agents.len() {
            self.blame(agent, "the end of the swarm by SIGKILL");
            self.feed(agent, Event::StopAsked);
            self.kill(agent);
        }
    }

    /// Goes on with the restarts of sets, and with the next stage of a shutdown when the present one is at rest. Called after every batch of events.
    pub fn advance(&mut self) {
        self.advance_sets();
        while let Ends::Stage(stage) = self.ends {
            let members = self.stages.get(stage).cloned().unwrap_or_default();
            for &agent in &members {
                self.ask_in_stage(agent);
            }
            if stage >= self.stages.len() || !members.iter().all(|&a| self.agents[a].state.is_at_rest()) {
                return;
            }
            self.begin_stage(stage + 1);
        }
    }

    fn begin_stage(&mut self, stage: usize) {
        self.waiting.clear();
        self.ends = Ends::Stage(stage);
        let members = self.stages.get(stage).cloned().unwrap_or_default();
        let patience =
            members.iter().map(|&a| self.file.agents[self.topology.agents[a].config].stop_timeout).max();
        let deadline = Instant::now() + patience.unwrap_or_default();
        self.note_stage_due(deadline);
        self.effects.push(Effect::Arm(deadline, stage, Timer::Stage, 0));
    }

    /// Asks a member of the present stage to stop; one that is down with messages to read comes back first, and drains them.
    fn ask_in_stage(&mut self, agent: usize) {
        let record = &self.agents[agent];
        let down = matches!(record.state, State::Starting | State::Backoff | State::Draining);
        let returns = down && self.has_to_read(agent);
        let running =
            matches!(record.state, State::Starting | State::Ready | State::Backoff | State::Draining);
        if running && !returns {
            self.feed(agent, Event::StopAsked);
        }
    }

    /// Whether an agent that is down left messages that it is to read.
    pub(super) fn has_to_read(&self, agent: usize) -> bool {
        self.agents[agent].was_ready && self.unread(agent).iter().any(|(_, count)| *count > 0)
    }

    /// The present stage has had its time: who has not come back by now is not waited for.
    pub(super) fn on_stage_over(&mut self, stage: usize) {
        if self.ends == Ends::Stage(stage) {
            let members = self.stages.get(stage).cloned().unwrap_or_default();
            members.into_iter().for_each(|agent| self.feed(agent, Event::StopAsked));
        }
    }

    /// What nobody read, in words: for the end of a swarm.
    pub fn left_unread(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for (agent, record) in self.agents.iter().enumerate() {
            for (channel, count) in self.unread(agent).into_iter().filter(|(_, count)| *count > 0) {
                let channel = &self.topology.channels[channel].name;
                let (messages, were) = (counted(count, "message"), one_or(count, "was", "were"));
                texts.push(format!("{messages} of channel {channel} {were} not read by {}", record.name));
            }
        }
        texts
    }
}
