//! The end of a swarm: in stages, sources first, each until it is at rest or has had its time; or at once.

use super::{Effect, Ends, Swarm, Timer};
use crate::child::{Event, State};
use crate::counted::{counted, one_or};
use crate::events::{Kind, Of};
use std::collections::HashSet;
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
        let unread = self.unread_by_reader().into_iter();
        let texts = unread.map(|(reader, channel, count)| {
            let (messages, were) = (counted(count, "message"), one_or(count, "was", "were"));
            format!("{messages} of channel {channel} {were} not read by {reader}")
        });
        texts.collect()
    }

    /// What nobody read: who should have, on which channel, and how many. What a group shares counts once, by the group's name. For who is
    /// removed nobody sends any more; what it had not read was told with the change.
    pub fn unread_by_reader(&self) -> Vec<(&str, &str, u64)> {
        let (mut all, mut told) = (Vec::<(&str, &str, u64)>::new(), HashSet::new());
        for (agent, instance) in self.topology.agents.iter().enumerate() {
            // A place that no replica has tells of nothing, but for the first of who is scaled to nothing.
            let others_run = self.topology.active(instance.config).next().is_some();
            let is_empty_place = !instance.active && (instance.replica > 0 || others_run);
            if is_empty_place || self.file.agents[instance.config].removed && self.is_gone(agent) {
                continue;
            }
            for (reader, channel, count) in self.unread_once(agent, &mut told) {
                match all.iter_mut().rev().find(|(r, c, _)| (*r, *c) == (reader, channel)) {
                    Some((.., sum)) => *sum += count,
                    None => all.push((reader, channel, count)),
                }
            }
        }
        all
    }
}
