//! What is known of lanes and cursors apart from a dead incarnation's own words, which of its memory is still needed, and how
//! long recoveries took.

use super::Swarm;
use crate::agent::Remains;
use crate::death::Bounds;
use crate::topology::TableSpec;
use shoal_runtime::board::Status;
use shoal_runtime::commit::{self, Key};
use shoal_runtime::mark::Place;
use shoal_runtime::{clock, desk};
use std::collections::{BTreeMap, HashSet};

impl Swarm {
    /// What is known of an agent's lanes and inputs apart from its own words.
    pub(super) fn bounds(&self, agent: usize) -> (Vec<Bounds>, Vec<Bounds>) {
        let (instance, record) = (&self.topology.agents[agent], &self.agents[agent]);
        let lanes = instance.lanes.iter().zip(&record.last.lanes).map(|(lane, &began)| {
            let awaited =
                lane.readers.iter().filter(|r| self.board.view().status(r.agent as u32) != Status::Gone);
            let cursors: Vec<_> = awaited.map(|r| self.cursor(r.agent, r.input)).collect();
            // Nobody is a whole ring ahead of another on a lane that waits for both: who says so is not believed.
            let slowest = cursors.iter().map(|p| p.position).min().unwrap_or(0);
            let lossy = lane.when_full == crate::config::WhenFull::DropOldest;
            let likely = cursors.into_iter().filter(|p| lossy || p.position - slowest <= lane.capacity_bytes);
            let least = likely.max_by_key(|p| p.position).unwrap_or(began);
            Bounds { began, least, most: None }
        });
        let inputs = instance.inputs.iter().zip(&record.last.inputs).map(|(input, &began)| {
            let most = self.tail(input.producer, input.lane);
            Bounds { began, least: began, most }
        });
        (lanes.collect(), inputs.collect())
    }

    /// The committed cursor of an input: by its group's claim table, or by its living segment, else by the last verdict.
    pub(super) fn cursor(&self, agent: usize, input: usize) -> Place {
        let record = &self.agents[agent];
        let spec = &self.topology.agents[agent].inputs[input];
        if let Some(table) = &spec.table {
            // Its cursor never moves: it still stands where the lane began.
            return self.frontier(spec, table, record.last.inputs[input]);
        }
        let living =
            record.view().and_then(|view| commit::committed(view, &record.shape, Key::Input(input)).ok());
        let last = record.last.inputs[input];
        living.filter(|l| l.position >= last.position).unwrap_or(last)
    }

    /// The committed end of a lane; `None` while its producer moves it.
    pub(super) fn tail(&self, agent: usize, lane: usize) -> Option<Place> {
        let record = &self.agents[agent];
        let last = record.last.lanes[lane];
        match record.view() {
            None => Some(last),
            Some(view) => {
                let place = commit::committed(view, &record.shape, Key::Lane(lane)).ok();
                place.map(|p| if p.position < last.position { last } else { p })
            }
        }
    }

    /// For each channel that an agent reads, how many committed messages for it lie unread.
    pub fn unread(&self, agent: usize) -> Vec<(usize, u64)> {
        let mut channels: BTreeMap<usize, u64> = BTreeMap::new();
        for (index, input) in self.topology.agents[agent].inputs.iter().enumerate() {
            *channels.entry(input.channel).or_default() += self.unread_of(agent, index);
        }
        channels.into_iter().collect()
    }

    /// The same in names and without what is read: what a group shares by the group's name, and of tables that were `told` of nothing.
    pub(super) fn unread_once(&self, agent: usize, told: &mut HashSet<TableSpec>) -> Vec<(&str, &str, u64)> {
        let mut all = BTreeMap::new();
        for (index, input) in self.topology.agents[agent].inputs.iter().enumerate() {
            if input.table.is_none_or(|table| told.insert(table)) {
                let group = input.table.map(|table| self.topology.groups[table.group].name.as_str());
                let reader = group.unwrap_or(&self.agents[agent].name);
                *all.entry((input.channel, reader)).or_default() += self.unread_of(agent, index);
            }
        }
        let unread = all.into_iter().filter(|(_, count)| *count > 0);
        unread
            .map(|((channel, reader), count)| (reader, &*self.topology.channels[channel].name, count))
            .collect()
    }

    /// How many committed messages of an input lie unread.
    pub(super) fn unread_of(&self, agent: usize, index: usize) -> u64 {
        let input = &self.topology.agents[agent].inputs[index];
        let (read, sent) = (self.cursor(agent, index), self.tail(input.producer, input.lane));
        let (from, to) = (read.sequence, sent.map_or(read.sequence, |p| p.sequence));
        let (k, n) = (u64::from(input.share.0), u64::from(input.share.1));
        // How many numbers below `end` are k modulo n.
        let below = |end: u64| (end + n - 1 - k) / n;
        match &input.table {
            Some(table) => self.groups.table(table).left(to),
            None => below(to.max(from)) - below(from),
        }
    }

    /// Lets go of an agent's dead incarnations that every reader has drained.
    pub(super) fn reclaim(&mut self, agent: usize) {
        while let Some(grave) = self.agents[agent].graves.front() {
            let lanes = self.topology.agents[agent].lanes.iter().zip(&grave.ends);
            let drained = lanes.into_iter().all(|(lane, end)| {
                lane.readers.iter().all(|r| {
                    self.board.view().status(r.agent as u32) == Status::Gone
                        || self.cursor(r.agent, r.input).position >= end.position
                })
            });
            if !drained {
                return;
            }
            let drained = self.agents[agent].graves.pop_front();
            self.remains.extend(drained.map(Remains::Grave));
            self.touch(agent);
        }
    }

    pub(super) fn history_is_full(&self, agent: usize) -> bool {
        self.agents[agent].graves.len() >= self.file.history as usize
    }

    /// Notes the moment of a death, to measure the recovery from it; the first note of a life counts.
    pub(super) fn note_death(&mut self, agent: usize) {
        self.measure_recovery(agent);
        let record = &mut self.agents[agent];
        let died_at = &mut record.died_at;
        died_at.get_or_insert((record.generation, clock::now_ns()));
    }

    /// If an agent has taken or committed a message since the death that is being measured, in a later life: notes how long
    /// that took.
    pub(super) fn measure_recovery(&mut self, agent: usize) {
        let record = &mut self.agents[agent];
        let (Some((generation, died_at_ns)), Some(view)) = (record.died_at, record.view()) else { return };
        let first_ns = desk::view(view).first_message_ns;
        if record.generation > generation && first_ns > died_at_ns {
            record.died_at = None;
            self.recoveries_ns.push(first_ns - died_at_ns);
        }
    }

    /// Measures the recovery of every living agent that has met a message since its predecessor's death.
    pub fn measure_recoveries(&mut self) {
        (0..self.agents.len()).for_each(|agent| self.measure_recovery(agent));
    }
}
