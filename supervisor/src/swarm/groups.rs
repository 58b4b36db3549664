//! The claim tables of groups: made before any agent, handed to members and producers, and settled for members that died.

use super::{Agents, Swarm};
use crate::agent::{Live, Sealed};
use crate::keeper::table::Held;
use crate::reload::Work;
use crate::settle::{self, DeadMember};
use crate::topology::{InputSpec, TableSpec, Topology};
use shoal_runtime::board::Verdict;
use shoal_runtime::claims::{self, ClaimTable};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::mark::Place;
use shoal_runtime::{Region, segment};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

/// The memory of all groups.
pub(super) struct Groups {
    all: Vec<Memory>,
    /// The number of the last incarnation.
    owners: u32,
}

pub(super) struct Memory {
    /// What members are handed.
    pub(super) writable: OwnedFd,
    /// What producers of its lanes are handed.
    pub(super) read_only: OwnedFd,
    /// The supervisor's own map: it settles what the dead held.
    pub(super) region: Region,
}

impl Memory {
    fn new(bytes: usize) -> io::Result<Memory> {
        let writable = segment::create_table(bytes)?;
        let region = segment::open_table(&writable, bytes, true)?;
        region.bequeath()?;
        let read_only = segment::reopen_read_only(&writable)?;
        Ok(Memory { writable, read_only, region })
    }

    /// Lets go of the map, and of no descriptor.
    fn forget(self) {
        let _ = (self.writable.into_raw_fd(), self.read_only.into_raw_fd());
    }
}

/// Who read a lane alone, for the group of this table, before there was one. Who `reads` ran, or was waited for.
fn sole_reader(
    before: &Topology,
    after: &Topology,
    producer: usize,
    lane: usize,
    table: &TableSpec,
    reads: impl Fn(usize) -> bool,
) -> Option<(usize, usize)> {
    let key = after.agents[producer].lanes[lane].key();
    let former = before.agents.get(producer)?.lanes.iter().find(|lane| lane.key() == key)?;
    let members = &after.groups[table.group].members;
    let alone = |r: &&crate::topology::ReaderRef| {
        let input = &before.agents[r.agent].inputs[r.input];
        input.table.is_none() && input.share == (0, 1) && reads(r.agent)
    };
    let mut readers = former.readers.iter().filter(|r| members.contains(&r.agent)).filter(alone);
    let reader = readers.next()?;
    readers.next().is_none().then_some((reader.agent, reader.input))
}

impl Groups {
    /// Makes the tables, empty: all messages are free.
    ///
    /// # Errors
    /// No descriptors or no memory left.
    pub(super) fn new(topology: &Topology) -> io::Result<Self> {
        let memory = topology.groups.iter().map(|group| Memory::new(group.bytes));
        Ok(Groups { all: memory.collect::<io::Result<_>>()?, owners: 0 })
    }

    /// Makes room for the tables of a changed swarm whose members and producers are at rest: what is claimed and done stays so; a
    /// table that is new begins where its group's reader stood, or at the lane's end. `lasts` are in the new order. Returns memory that
    /// is used no more, which a successor knows until it is told of the change.
    ///
    /// # Errors
    /// No descriptors or no memory left; then nothing has changed.
    pub(super) fn follow(
        &mut self,
        before: &Topology,
        after: &Topology,
        lasts: &[Option<Verdict>],
        agents: &Agents,
        (work, kept): (&Work, &BTreeSet<usize>),
    ) -> io::Result<Vec<Memory>> {
        let reads = |agent: usize| before.agents[agent].active || kept.contains(&agent);
        let (mut grown, mut former) = (Vec::new(), Vec::new());
        for (index, group) in after.groups.iter().enumerate() {
            if before.groups.get(index).is_none_or(|old| old.bytes != group.bytes) {
                let memory = Memory::new(group.bytes)?;
                if let Some(old) = self.all.get(index) {
                    claims::copy(&old.region, &memory.region);
                }
                grown.push((index, memory));
            }
        }
        for (index, memory) in grown {
            match self.all.get_mut(index) {
                Some(old) => former.push(std::mem::replace(old, memory)),
                None => self.all.push(memory),
            }
        }
        for (producer, instance) in after.agents.iter().enumerate() {
            for (lane, spec) in instance.lanes.iter().enumerate() {
                let same =
                    before.agents.get(producer).and_then(|i| i.lanes.iter().find(|l| l.key() == spec.key()));
                for (place, table) in spec.groups.iter().enumerate() {
                    let known = same.is_some_and(|lane| lane.groups.contains(table));
                    if known && !work.begun_anew.contains(&(producer, lane, place)) {
                        continue;
                    }
                    let Some(last) = &lasts[producer] else { continue };
                    let end = last.lanes[lane];
                    let alone =
                        (!known).then(|| sole_reader(before, after, producer, lane, table, reads)).flatten();
                    let same_ring = same.is_some_and(|lane| lane.capacity_bytes == spec.capacity_bytes);
                    let stood =
                        alone.filter(|_| same_ring).map(|(agent, input)| agents[agent].last.inputs[input]);
                    self.table(table).begin_at(stood.unwrap_or(end));
                }
            }
        }
        Ok(former)
    }

    /// The descriptors of each group's memory: for members, for producers.
    pub(super) fn held(&self) -> Vec<(Held, Held)> {
        let held = |m: &Memory| (Held::new(&m.writable), Held::new(&m.read_only));
        self.all.iter().map(held).collect()
    }

    /// Goes on with the memory that a predecessor of this supervisor had. What this process inherited is forgotten: the predecessor may
    /// have closed it, and used its numbers again.
    pub(super) fn take_over(&mut self, memory: Vec<Memory>) {
        std::mem::replace(&mut self.all, memory).into_iter().for_each(Memory::forget);
    }

    /// A number that no incarnation of the swarm has had.
    pub(super) fn next_owner(&mut self) -> u32 {
        self.owners += 1;
        self.owners
    }

    /// The number of the last incarnation.
    pub(super) fn owners(&self) -> u32 {
        self.owners
    }

    /// Goes on from what a predecessor of this supervisor knew.
    pub(super) fn restore_owners(&mut self, owners: u32) {
        self.owners = self.owners.max(owners);
    }

    /// What an agent is handed, in the order of its manifest.
    pub(super) fn handles(&self, topology: &Topology, agent: usize) -> Vec<BorrowedFd<'_>> {
        let claims = topology.claims_of(agent).into_iter();
        claims
            .map(|(group, member)| match member {
                true => self.all[group].writable.as_fd(),
                false => self.all[group].read_only.as_fd(),
            })
            .collect()
    }

    /// A claim table.
    pub(super) fn table(&self, spec: &TableSpec) -> ClaimTable {
        ClaimTable::new(self.all[spec.group].region.clone(), spec.offset, spec.entries)
    }
}

impl Swarm {
    /// The place before which a group is done with a lane. A table that says the impossible, which any member may have written,
    /// says nothing.
    pub(super) fn frontier(&self, input: &InputSpec, table: &TableSpec, first: Place) -> Place {
        let frontier = self.groups.table(table).frontier_place(first);
        let tail = self.tail(input.producer, input.lane).unwrap_or(frontier);
        if frontier.position <= tail.position && frontier.sequence <= tail.sequence {
            frontier
        } else {
            first
        }
    }

    /// Settles what a dead member held, with the attempts that were noted before, and wakes the other members. After the proof of
    /// the death.
    pub(super) fn settle_claims(&self, agent: usize, live: &Live) {
        let Some(Ok(view)) = live.sealed.as_ref().map(Sealed::view) else { return };
        let shape = &self.agents[agent].shape;
        let inputs = self.topology.agents[agent].inputs.iter().enumerate();
        let tables: Vec<(usize, ClaimTable)> =
            inputs.filter_map(|(i, input)| Some((i, self.groups.table(input.table.as_ref()?)))).collect();
        let dead = DeadMember { view, shape, owner: live.owner };
        let trial = |input, sequence| self.trials.of(self.reader_of(agent, input), sequence);
        settle::settle(&dead, &tables, trial, self.bells_of_groups_of(agent));
    }

    /// Wakes the members of an agent's groups: a lane is closed, and they sleep behind what this member did last.
    pub(super) fn ring_group_of(&self, agent: usize) {
        settle::wake(self.bells_of_groups_of(agent));
    }

    fn bells_of_groups_of(&self, agent: usize) -> impl Iterator<Item = &Doorbell> {
        let groups = self.topology.claims_of(agent).into_iter().filter(|(_, member)| *member);
        let members = groups.flat_map(|(group, _)| &self.topology.groups[group].members);
        members.filter_map(|&member| Some(&self.agents[member].live.as_ref()?.doorbell))
    }
}
