//! The claim tables of groups: made before any agent, handed to members and producers, and settled for members that died.

use super::Swarm;
use crate::agent::Live;
use crate::settle::{self, DeadMember};
use crate::topology::{InputSpec, TableSpec, Topology};
use shoal_runtime::claims::ClaimTable;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::mark::Place;
use shoal_runtime::{Region, segment};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The memory of all groups.
pub(super) struct Groups {
    all: Vec<Memory>,
    /// The number of the last incarnation.
    owners: u32,
}

struct Memory {
    /// What members are handed.
    writable: OwnedFd,
    /// What producers of its lanes are handed.
    read_only: OwnedFd,
    /// The supervisor's own map: it settles what the dead held.
    region: Region,
}

impl Groups {
    /// Makes the tables, empty: all messages are free.
    ///
    /// # Errors
    /// No descriptors or no memory left.
    pub(super) fn new(topology: &Topology) -> io::Result<Self> {
        let memory = |group: &crate::topology::Group| -> io::Result<Memory> {
            let writable = segment::create_table(group.bytes)?;
            let region = segment::open_table(&writable, group.bytes, true)?;
            region.bequeath()?;
            let read_only = segment::reopen_read_only(&writable)?;
            Ok(Memory { writable, read_only, region })
        };
        Ok(Groups { all: topology.groups.iter().map(memory).collect::<io::Result<_>>()?, owners: 0 })
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
        let Some(sealed) = &live.sealed else { return };
        let (view, shape) = (&sealed.view, &self.agents[agent].shape);
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
