//! Pauses: an operator asks agents to take nothing new, and later to go on. The board says it, so an agent that is started
//! again meanwhile reads it, too; the message in hand is finished first. Who is paused sleeps, and is neither hung nor forgotten.
//! What waits for a paused agent stays in its lanes; a producer meets full ones as those of any slow reader.

use super::{Ends, Swarm};
use crate::agent::Agent;
use crate::child::State;
use shoal_runtime::board::Request;
use shoal_runtime::desk;

impl Swarm {
    /// Pauses an agent, or lets it go on. False when nothing changes, or the swarm is being ended.
    pub fn pause(&mut self, agent: usize, paused: bool) -> bool {
        if self.ends != Ends::No || self.agents[agent].paused == paused {
            return false;
        }
        self.agents[agent].paused = paused;
        // Before it is asked: a successor must know that it was, and asks it if this one could not.
        self.write_agent(agent);
        self.ask_to_pause(agent);
        true
    }

    /// Asks an agent to pause or to go on, if it was not. Who is being stopped is asked for that; the next start reads this.
    pub(super) fn ask_to_pause(&mut self, agent: usize) {
        let work = self.work_of(agent);
        let works = matches!(self.agents[agent].state, State::Starting | State::Ready);
        if works && self.board.view().request(agent as u32) != work {
            self.board.publish_request(agent as u32, work);
            self.board.announce();
            if let Some(live) = &self.agents[agent].live {
                live.doorbell.ring();
            }
        }
    }

    /// What an agent that runs is asked for.
    pub(super) fn work_of(&self, agent: usize) -> Request {
        if self.agents[agent].paused { Request::Pause } else { Request::Run }
    }

    /// Before the swarm is ended: what waits for paused agents is read first.
    pub(super) fn end_pauses(&mut self) {
        for agent in 0..self.agents.len() {
            self.pause(agent, false);
        }
    }

    /// An agent has come to its pause: other members of its groups may take now what it left, and it rings none of them.
    pub fn ring_mates(&self, agent: usize) {
        for input in &self.topology.agents[agent].inputs {
            let lane = &self.topology.agents[input.producer].lanes[input.lane];
            let mates = lane.readers.iter().filter(|reader| reader.agent != agent);
            mates
                .filter_map(|mate| self.agents[mate.agent].live.as_ref())
                .for_each(|live| live.doorbell.ring());
        }
    }
}

/// Whether an agent that is paused holds no message, so far as its desk says.
pub fn is_at_pause(agent: &Agent) -> bool {
    agent.view().is_none_or(|view| desk::view(view).held_since_ns == 0)
}
