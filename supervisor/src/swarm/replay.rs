//! Replaying dead letters: what is checked before, and the start of the agent that does it.

use super::Swarm;
use crate::child::{Event, State};
use crate::dead_letters::{Letter, Order};
use crate::postman;
use crate::topology::Topology;
use shoal_runtime::board::Status;
use shoal_runtime::cursor::payload_max;

/// The agent that replays dead letters.
pub(super) struct Postman {
    /// Its index among the agents.
    pub(super) agent: usize,
    /// For each of its lanes the channel, and the group that reads it.
    lanes: Vec<(usize, String)>,
    /// The number of the last batch.
    pub(super) batch: u64,
}

impl Postman {
    /// Adds it to a swarm that is to be; its lanes cost memory only while it runs.
    pub(super) fn join(topology: &mut Topology, file: &crate::config::SwarmFile) -> Postman {
        let lanes = topology.add_postman(file, postman::NAME);
        Postman { agent: topology.agents.len() - 1, lanes, batch: 0 }
    }
}

impl Swarm {
    /// Whether an agent is one of the swarm file, or runs to replay dead letters just now, or leaves some.
    pub fn is_shown(&self, agent: usize) -> bool {
        let runs = self.topology.agents[agent].active && agent != self.postman.agent;
        runs || self.agents[agent].live.is_some() || self.agents[agent].stand_in.is_some()
    }

    /// An agent rests until it is asked for, and nobody waits for it.
    pub(super) fn rest(&mut self, agent: usize) {
        self.agents[agent].state = State::Ended;
        // Its first start is not the swarm's.
        self.agents[agent].was_ready = true;
        self.board.publish_status(agent as u32, Status::Gone);
    }

    /// Starts to replay dead letters, all or those of these numbers. Returns the agent that does it: it ends when every letter
    /// lies in the lane of the group that gave it up.
    ///
    /// # Errors
    /// Which letter cannot be replayed, why, and what to do; then none is.
    pub fn replay(&mut self, ids: Option<&[u64]>) -> Result<usize, String> {
        let postman = self.postman.agent;
        if !self.agents[postman].state.is_at_rest() || self.agents[postman].live.is_some() {
            return Err("dead letters are being replayed already: ask again when that is done".into());
        }
        let letters = self.dead_letters.facts(ids).map_err(|error| error.to_string())?;
        let orders = letters.iter().map(|letter| Ok(Order { id: letter.id, lane: self.lane_for(letter)? }));
        let orders = orders.collect::<Result<Vec<_>, String>>()?;
        self.postman.batch += 1;
        self.dead_letters.order(self.postman.batch, orders).map_err(|error| error.to_string())?;
        self.feed(postman, Event::StartAsked);
        Ok(postman)
    }

    /// The postman's lane to the group that gave a letter up.
    fn lane_for(&self, letter: &Letter) -> Result<u32, String> {
        let Letter { id, channel, group, .. } = letter;
        let refuse = |why: String| Err(format!("dead letter {id} cannot be replayed: {why}"));
        let is_its = |(of, by): &(usize, String)| self.topology.channels[*of].name == *channel && by == group;
        let Some(lane) = self.postman.lanes.iter().position(is_its) else {
            return refuse(format!("no agent of group `{group}` subscribes channel `{channel}` any more"));
        };
        let spec = &self.topology.agents[self.postman.agent].lanes[lane];
        let entry = &self.topology.channels[spec.channel];
        let known = self.board.view().fingerprint(spec.channel as u32);
        if entry.message != letter.message_type
            || (known != 0 && format!("{known:016x}") != letter.fingerprint)
        {
            return refuse(format!(
                "it is a `{}` of fingerprint {}, but channel `{channel}` carries `{}` of fingerprint {known:016x} now: go back \
                 to the former definition, or purge it",
                letter.message_type, letter.fingerprint, entry.message
            ));
        }
        if !letter.kept {
            return refuse("its bytes were too many to keep; purge it".into());
        }
        let max_bytes = payload_max(spec.capacity_bytes);
        if letter.bytes > max_bytes {
            return refuse(format!(
                "it has {} bytes, and channel `{channel}` takes {max_bytes}: raise `capacity` of [channel.{channel}]",
                letter.bytes
            ));
        }
        let board = self.board.view();
        if spec.readers.iter().all(|reader| board.status(reader.agent as u32).sends_no_more()) {
            return refuse(format!("nobody of group `{group}` runs: start one with `shoal start`"));
        }
        Ok(lane as u32)
    }
}
