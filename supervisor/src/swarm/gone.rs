//! Agents that will not return by themselves: what becomes of what they had not read, and who reads in their place until that is put with
//! the dead letters.
//!
//! Who stands in is the next incarnation of the agent itself, with another command: it goes on at the committed cursors, what it does is
//! exactly once as any step, and when it dies another follows. What is done with a reader that is gone is chosen by `on_gone.rs`.

use super::Swarm;
use crate::child::{Action, Event, State};
use crate::config::{self, OnGone, Policy};
use crate::counted::{counted, one_or};
use crate::events::Kind;
use crate::log::Level;
use crate::on_gone::Course;
use crate::reload::LETS_GO;
use crate::stand_in;
use crate::topology::Instance;
use shoal_runtime::board::Status;
use std::collections::BTreeSet;

impl Swarm {
    pub(super) fn on_gone_of(&self, agent: usize) -> OnGone {
        self.file.agents[self.topology.agents[agent].config].on_gone
    }

    /// For each input of an agent, how many messages it left that nobody else of its group reads.
    pub(super) fn left_by(&self, agent: usize) -> Vec<u64> {
        let inputs = 0..self.topology.agents[agent].inputs.len();
        inputs
            .map(|input| if self.others_read(agent, input) { 0 } else { self.unread_of(agent, input) })
            .collect()
    }

    /// Whether others of an agent's group read on what an input of it brings.
    fn others_read(&self, agent: usize, input: usize) -> bool {
        let input = &self.topology.agents[agent].inputs[input];
        let readers = &self.topology.agents[input.producer].lanes[input.lane].readers;
        let is_expected = |other: usize| {
            !self.board.view().status(other as u32).sends_no_more() || self.waiting.contains(&other)
        };
        input.table.is_some()
            && readers.iter().any(|other| {
                let of_group = self.topology.agents[other.agent].inputs[other.input].table == input.table;
                of_group && other.agent != agent && is_expected(other.agent)
            })
    }

    /// Whether others read on all that an agent read.
    fn is_replaced(&self, agent: usize) -> bool {
        (0..self.topology.agents[agent].inputs.len()).all(|input| self.others_read(agent, input))
    }

    /// An agent will not return by itself.
    pub(super) fn go(&mut self, agent: usize) {
        self.leave(agent, false);
    }

    /// A changed file does not run an agent any more. A predecessor of this supervisor may have begun with it, or be done.
    pub(super) fn depart(&mut self, agent: usize) {
        if self.is_gone(agent) || self.agents[agent].stand_in.is_some() {
            return;
        }
        // What is dropped was told with the change.
        if self.on_gone_of(agent) == OnGone::Drop || self.is_replaced(agent) {
            return self.strike(agent);
        }
        self.leave(agent, false);
    }

    fn leave(&mut self, agent: usize, stood_in: bool) {
        let unread: u64 = self.left_by(agent).iter().sum();
        let (messages, are) = (counted(unread, "message"), one_or(unread, "is", "are"));
        let name = self.agents[agent].name.clone();
        let key =
            format!("`on_gone` of [agent.{}]", self.file.agents[self.topology.agents[agent].config].name);
        match self.on_gone_of(agent).course(unread, stood_in, self.is_killed()) {
            Course::Strike => {
                self.strike(agent);
                if unread > 0 {
                    let text = format!(
                        "agent {name} is gone, and {messages} that it has not read {are} dropped ({key})"
                    );
                    self.tell(Level::Warn, Kind::Gone, Some(agent), &text);
                }
            }
            Course::Keep => {
                self.publish_gone(agent, Status::Kept);
                let Instance { active, config, .. } = self.topology.agents[agent];
                let until = match (active, self.file.agents[config].removed) {
                    (true, _) => {
                        format!("it is started (`shoal start {name}`) or `shoal reload` brings another {key}")
                    }
                    (false, true) => {
                        format!("the swarm file, or `shoal scale`, brings it back, or {LETS_GO}")
                    }
                    (false, false) => "`shoal reload` or `shoal scale` brings it back".to_owned(),
                };
                let text = format!(
                    "agent {name} is gone, and its senders wait for it, with {messages} that it has not read, until {until}"
                );
                self.tell(Level::Warn, Kind::Gone, Some(agent), &text);
            }
            Course::StandIn => {
                let text = format!(
                    "agent {name} is gone, and {messages} that it has not read {are} put with the dead letters ({key})"
                );
                self.tell(Level::Warn, Kind::Gone, Some(agent), &text);
                self.begin_standing_in(agent);
            }
        }
    }

    fn begin_standing_in(&mut self, agent: usize) {
        let record = &mut self.agents[agent];
        record.stand_in = Some(record.state);
        record.paused = false;
        // Deaths of the one say nothing of the other.
        record.intensity.forget();
        record.state = State::Starting;
        record.state_serial += 1;
        self.touch(agent);
        self.happened(Kind::State, agent, "somebody stands in for it");
        // A successor makes it, if it finds it in no record.
        self.write_agent(agent);
        self.act(agent, Action::Spawn, Event::BackoffOver);
    }

    /// The policy by which an agent comes back: who stands in for it does until it is done, one whose upgrade failed does in any case.
    pub(super) fn policy_of(&self, agent: usize) -> Policy {
        match self.agents[agent].stand_in {
            Some(_) => Policy::Transient,
            None if self.goes_back(agent) => Policy::Permanent,
            None => self.file.agents[self.topology.agents[agent].config].restart.policy,
        }
    }

    /// Who stands in for an agent is asked for the agent itself: then that is started. Returns what happens to it.
    pub(super) fn call_back(&mut self, agent: usize, event: Event) -> Event {
        let asked = matches!(event, Event::StartAsked | Event::RestartAsked);
        if asked && self.agents[agent].stand_in.take().is_some() { Event::RestartAsked } else { event }
    }

    /// Whoever stood in for an agent is done, or was given up: the agent is what it was, and is struck. False if nobody did.
    pub(super) fn ends_standing_in(&mut self, agent: usize) -> bool {
        let Some(was) = self.agents[agent].stand_in.take() else { return false };
        self.agents[agent].state = was;
        self.leave(agent, true);
        true
    }

    /// What an agent is started as while somebody stands in for it.
    pub(super) fn as_stand_in(&self, agent: usize) -> Option<config::Agent> {
        self.agents[agent].stand_in?;
        let config = &self.file.agents[self.topology.agents[agent].config];
        // A binary that was found once, for the one that replays dead letters.
        let binary = self.file.agents[self.topology.agents[self.postman.agent].config].command.first()?;
        let command = stand_in::command(binary, &self.left_by(agent));
        Some(config::Agent {
            command,
            confinement: Default::default(),
            env: Default::default(),
            ..config.clone()
        })
    }

    /// Another swarm file holds: who was kept by the former one may not be any more, and for whom others have come has nothing to be kept for.
    pub(super) fn review_gone(&mut self) {
        for agent in self.kept() {
            let removed = !self.topology.agents[agent].active;
            match self.on_gone_of(agent) {
                OnGone::Block if removed && self.is_replaced(agent) => self.strike(agent),
                OnGone::Block => {}
                OnGone::Drop | OnGone::DeadLetter if removed => self.depart(agent),
                OnGone::Drop | OnGone::DeadLetter => self.go(agent),
            }
        }
    }

    /// Who is gone and waited for.
    pub(super) fn kept(&self) -> BTreeSet<usize> {
        let status = |agent: &usize| self.board.view().status(*agent as u32);
        (0..self.agents.len()).filter(|agent| status(agent) == Status::Kept).collect()
    }

    /// Takes an agent off its lanes: no producer waits for it, and its readers will hear that it ended.
    pub(super) fn strike(&mut self, agent: usize) {
        self.publish_gone(agent, Status::Gone);
    }

    fn publish_gone(&mut self, agent: usize, status: Status) {
        self.board.publish_status(agent as u32, status);
        self.board.announce();
        for neighbour in self.topology.neighbours(agent) {
            if let Some(other) = &self.agents[neighbour].live {
                other.doorbell.ring();
            }
            self.reclaim(neighbour);
        }
    }
}
