//! The second stroke of a reload: everything is exchanged at once, by name, and who was stopped is started.

use super::{Outcome, Prepared, Reload};
use crate::birth;
use crate::child::{Event, State};
use crate::config::SwarmFile;
use crate::counted::{counted, one_or};
use crate::reload::Work;
use crate::restart::Intensity;
use crate::swarm::{Swarm, beginning, hangs, new_agent, standby};
use crate::topology::{Instance, TableSpec, Topology};
use shoal_runtime::board::{Status, Verdict, VerdictKind};
use shoal_runtime::cursor::first_position;
use shoal_runtime::layout::BoardShape;
use shoal_runtime::mark::Place;
use std::collections::{BTreeSet, HashSet};

impl Swarm {
    /// Exchanges everything, and starts who is to run.
    pub(super) fn exchange(&mut self, reload: Reload) {
        let Reload { prepared: Prepared { plan, work, file, topology, board }, up, .. } = reload;
        let unread = self.unread_for_good(&work, &topology, &file);
        let kept = self.kept();
        let lasts = self.carried_over(&topology, &work, &kept);
        // What is lacking is lacking here, before anything is exchanged.
        let next = match self.next_stand(&file, &topology, &board) {
            Ok(next) => next,
            Err(why) => return self.undo(why),
        };
        let former = match self.groups.follow(&self.topology, &topology, &lasts, &self.agents, (&work, &kept))
        {
            Ok(former) => former,
            Err(error) => return self.undo(format!("no memory for the tables of groups: {error}")),
        };
        let old = std::mem::replace(&mut self.topology, topology);
        let new = &self.topology;
        self.trials.carry_over(|agent, input| {
            let input = old.agents.get(agent)?.inputs.get(input)?;
            let key = old.agents[input.producer].lanes[input.lane].key();
            let same = |i: &crate::topology::InputSpec| {
                i.producer == input.producer && new.agents[i.producer].lanes[i.lane].key() == key
            };
            new.agents[agent].inputs.iter().position(same)
        });
        let former_board = std::mem::replace(&mut self.board_shape, board);
        self.board.reshape(self.board_shape.clone());
        self.file = file;
        self.supervision.follow(&self.file, &self.topology, self.cradle.swarm ^ self.reloads);
        self.stages = self.topology.stop_order();
        self.reared = standby::reared(&self.file);
        self.reloads += 1;
        self.follow_agents(lasts, &former_board);
        self.watch_new_deadlines();
        for &agent in &work.stop {
            // Should it come back, it begins as one that is new.
            (self.agents[agent].state, self.agents[agent].paused) = (State::Ended, false);
        }
        let started: Vec<usize> = work.start.union(&up).copied().collect();
        self.waiting.extend(&started);
        self.called.clear();
        let again = work.again.iter().filter(|agent| self.comes_again(**agent));
        self.again = again.map(|&agent| (agent, self.agents[agent].generation)).collect();
        self.struck = work.stop.iter().copied().collect();
        // Whatever is done to the board and to agents follows this.
        self.publish_stand(next);
        drop(former);
        self.act_on_exchange();
        self.review_zygotes();
        for text in &unread {
            self.notice(&format!("reload: {text}"));
        }
        let started: Vec<usize> = started.into_iter().chain(work.again).collect();
        self.notice(if plan.is_empty() { "reload: nothing changed" } else { "reload: applied" });
        self.outcome = Some(Outcome::Applied { unread, started });
        self.start_due();
    }

    /// Lets go of who runs no more, and starts those again that run with what they were told before: what a predecessor had begun is done
    /// once more.
    pub(in crate::swarm) fn act_on_exchange(&mut self) {
        std::mem::take(&mut self.struck).into_iter().for_each(|agent| self.depart(agent));
        for (agent, generation) in std::mem::take(&mut self.again) {
            if self.agents[agent].generation == generation && self.comes_again(agent) {
                self.dismiss_spares(agent);
                self.order(agent, Event::RestartAsked);
            }
        }
        self.review_gone();
    }

    /// Whether an agent that is changed is started for that: also if it waits for its next start, or was given up, which says nothing of what
    /// it is now. Who was stopped or has done its work rests on.
    pub(super) fn comes_again(&self, agent: usize) -> bool {
        !matches!(self.agents[agent].state, State::Stopped | State::Ended)
    }

    /// Agents take over their new shapes, names and places; those that were not there are added.
    fn follow_agents(&mut self, lasts: Vec<Option<Verdict>>, former: &BoardShape) {
        for (agent, last) in lasts.into_iter().enumerate() {
            let is_new = self.fit(agent);
            let record = &mut self.agents[agent];
            if let Some(last) = last {
                record.last = last;
            }
            if is_new {
                if !self.topology.agents[agent].active {
                    self.rest(agent);
                }
                continue;
            }
            let moved = former.agents.get(agent) != self.board_shape.agents.get(agent);
            if moved && record.last.generation > 0 {
                // Where it lay before, nobody looks any more: its readers are told the new shape.
                self.board.verdict(agent as u32, &record.last);
            }
        }
        self.board.announce();
    }

    /// An agent takes over its shape, its name, where its output goes and how it is restarted; one that was not there is added. Whether
    /// it was.
    pub(in crate::swarm) fn fit(&mut self, agent: usize) -> bool {
        let instance = &self.topology.agents[agent];
        let restart = self.file.agents[instance.config].restart.clone();
        let seed = self.cradle.swarm ^ (u64::from(self.reloads as u32) << 32 | agent as u64);
        let shape = birth::segment_shape(instance);
        let Some(record) = self.agents.get_mut(agent) else {
            let last = beginning(&self.topology, instance);
            let capture = (self.captures)(&instance.name);
            let mut record = new_agent(&instance.name, shape, Intensity::new(restart, seed), last, capture);
            record.was_ready = !instance.active;
            self.agents.push(record);
            return true;
        };
        if record.intensity.restart() != &restart {
            record.intensity = Intensity::new(restart, seed);
        }
        if record.name != instance.name {
            record.name.clone_from(&instance.name);
            record.capture = (self.captures)(&instance.name);
        }
        // Of one that lives on it is the same.
        record.shape = shape;
        false
    }

    fn watch_new_deadlines(&mut self) {
        self.hangs.watch_anew(hangs::watched(&self.file, &self.topology));
        (0..self.agents.len()).for_each(|agent| self.hear_bell(agent));
        self.watch_on();
    }

    /// For each agent that is at rest where its lanes end and its cursors stand in the new order; `None` for one that goes on living as
    /// it is.
    fn carried_over(&self, topology: &Topology, work: &Work, kept: &BTreeSet<usize>) -> Vec<Option<Verdict>> {
        let lanes: Vec<Vec<Place>> = (0..topology.agents.len()).map(|a| self.lanes_in(topology, a)).collect();
        let lanes_of = &lanes;
        let inputs = |agent: usize| {
            topology.agents[agent].inputs.iter().map(move |input| {
                let end = lanes_of[input.producer][input.lane];
                let anew = work.start.contains(&agent) && input.table.is_none() && !kept.contains(&agent);
                let goes_on = (!anew).then(|| self.input_in(topology, agent, input)).flatten();
                goes_on.unwrap_or(end)
            })
        };
        let verdict = |agent: usize| {
            let record = self.agents.get(agent);
            if record.is_some_and(|record| record.live.is_some()) {
                return None;
            }
            let (generation, kind) =
                record.map_or((0, VerdictKind::Committed), |r| (r.last.generation, r.last.kind));
            Some(Verdict { generation, kind, lanes: lanes[agent].clone(), inputs: inputs(agent).collect() })
        };
        (0..topology.agents.len()).map(verdict).collect()
    }

    /// Where the lanes of an agent end, in the new order.
    fn lanes_in(&self, topology: &Topology, agent: usize) -> Vec<Place> {
        let former = self.topology.agents.get(agent).zip(self.agents.get(agent));
        let place = |lane: &crate::topology::LaneSpec| {
            let first = first_position(lane.capacity_bytes);
            let begun = Place { position: first, sequence: 0 };
            let Some((instance, record)) = former else { return begun };
            let Some(at) = instance.lanes.iter().position(|l| l.key() == lane.key()) else { return begun };
            let last = record.last.lanes[at];
            match instance.lanes[at].capacity_bytes == lane.capacity_bytes {
                true => last,
                // A ring of another size begins where its producer may begin; nobody has anything left to read before.
                false if last.sequence == 0 => begun,
                false => Place { position: last.position.max(first), ..last },
            }
        };
        topology.agents[agent].lanes.iter().map(place).collect()
    }

    /// Where the cursor of an input stands, if it can go on from where it was.
    fn input_in(
        &self,
        topology: &Topology,
        agent: usize,
        input: &crate::topology::InputSpec,
    ) -> Option<Place> {
        let (instance, record) = self.topology.agents.get(agent).zip(self.agents.get(agent))?;
        let lane = &topology.agents[input.producer].lanes[input.lane];
        let former = |i: &crate::topology::InputSpec| {
            let same = &self.topology.agents[i.producer].lanes[i.lane];
            (i.producer == input.producer && same.key() == lane.key()).then_some(same)
        };
        let (at, was) = instance.inputs.iter().enumerate().find_map(|(at, i)| Some((at, former(i)?)))?;
        (was.capacity_bytes == lane.capacity_bytes).then(|| record.last.inputs[at])
    }

    /// What is left in lanes whose last readers are removed, in words.
    fn unread_for_good(&self, work: &Work, after: &Topology, file: &SwarmFile) -> Vec<String> {
        let (mut texts, mut told) = (Vec::new(), HashSet::new());
        for &(agent, channel) in &work.lost {
            let count = self.unread_of_channel(agent, channel, &mut told);
            if count > 0 {
                let (name, of) = (&self.topology.channels[channel].name, &self.agents[agent].name);
                let messages = counted(count, "message");
                let (were, are) = (one_or(count, "was", "were"), one_or(count, "is", "are"));
                texts.push(format!(
                    "{messages} of channel {name} {were} not read by {of}, which subscribes it no more, and {are} dropped"
                ));
            }
        }
        for &agent in work.stop.union(&work.let_go) {
            let others = |instance: &Instance| {
                let same_group = |other: &usize| {
                    let config = |a: usize| &self.file.agents[after.agents[a].config].group;
                    after.agents[*other].active && *config(*other) == *config(agent)
                };
                instance.inputs.iter().any(|i| i.table.is_some())
                    && (0..after.agents.len()).any(|other| other != agent && same_group(&other))
            };
            if others(&self.topology.agents[agent]) {
                continue;
            }
            for (reader, channel, count) in self.unread_once(agent, &mut told) {
                let messages = counted(count, "message");
                let (were, are) = (one_or(count, "was", "were"), one_or(count, "is", "are"));
                texts.push(format!(
                    "{messages} of channel {channel} {were} not read by {reader}, which is removed, and {are} {}",
                    file.agents[after.agents[agent].config].on_gone.says()
                ));
            }
        }
        texts
    }

    /// How many messages of a channel an agent has not read; those that a group's table tells of but once.
    fn unread_of_channel(&self, agent: usize, channel: usize, told: &mut HashSet<TableSpec>) -> u64 {
        let inputs = self.topology.agents[agent].inputs.iter().enumerate();
        let counted = inputs.filter(|(_, input)| {
            input.channel == channel && input.table.is_none_or(|table| told.insert(table))
        });
        counted.map(|(index, _)| self.unread_of(agent, index)).sum()
    }

    /// Whether an agent is struck from the board.
    pub fn is_gone(&self, agent: usize) -> bool {
        self.board.view().status(agent as u32) == Status::Gone
    }
}
