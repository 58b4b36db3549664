//! The claim tables of groups: made before any agent, handed to members and producers, and settled for members that died.

use super::Swarm;
use crate::agent::Live;
use crate::topology::{InputSpec, TableSpec, Topology};
use crate::trial::Trial;
use shoal_runtime::bug::{Bug, placed};
use shoal_runtime::claims::{Claim, ClaimTable};
use shoal_runtime::commit::{self, Key, Record};
use shoal_runtime::mark::Place;
use shoal_runtime::{Region, desk, segment};
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

    /// Settles what a dead member held: done if its record says so, else free again, with the attempts that were noted before.
    /// Then wakes the other members. After the proof of the death.
    pub(super) fn settle_claims(&self, agent: usize, live: &Live) {
        let Some(sealed) = &live.sealed else { return };
        let shape = &self.agents[agent].shape;
        let record = commit::read(&sealed.view, shape).ok();
        for (index, input) in self.topology.agents[agent].inputs.iter().enumerate() {
            let Some(spec) = &input.table else { continue };
            let table = self.groups.table(spec);
            let claimed = match record {
                Some(_) => desk::intents(&sealed.view, shape, index),
                // What it scribbled over says nothing: the table is searched.
                None => table.held_by(live.owner, u64::MAX),
            };
            let reader = self.reader_of(agent, index);
            let returned = claimed.into_iter().filter(|&sequence| {
                let trial = self.trials.of(reader, sequence);
                // What lies with the dead letters is done, too.
                let done = is_done(record.as_ref(), index, sequence) || trial.is_some_and(Trial::is_settled);
                settle(&table, sequence, live.owner, done, trial.map_or(0, Trial::attempts))
            });
            if returned.count() > 0 {
                table.tell_returned();
            }
        }
        self.ring_group_of(agent);
    }

    /// Wakes the members of an agent's group: a message is free again, the frontier can be moved, or a lane is closed and they
    /// sleep behind what this member did last.
    pub(super) fn ring_group_of(&self, agent: usize) {
        if placed(Bug::GroupNotRung) {
            return;
        }
        let groups = self.topology.claims_of(agent).into_iter().filter(|(_, member)| *member);
        for live in groups.flat_map(|(group, _)| &self.topology.groups[group].members) {
            if let Some(live) = &self.agents[*live].live {
                live.doorbell.ring();
            }
        }
    }
}

/// Whether a dead member's record says that it was done with a message.
fn is_done(record: Option<&Record>, input: usize, sequence: u64) -> bool {
    let said = record.and_then(|record| record.place(Key::Claim(input)));
    said.is_some_and(|place| place.sequence == sequence) && !placed(Bug::ClaimRecordOverlooked)
}

/// Settles one claim of a dead member; true when the message is free again. Whoever claims it next is told how often it was
/// given in vain.
fn settle(table: &ClaimTable, sequence: u64, owner: u32, done: bool, in_vain: u32) -> bool {
    let Claim::Owned { owner: by, attempts } = table.see(sequence) else { return false };
    if by != owner || placed(Bug::ClaimNeverReturned) {
        return false;
    }
    if done {
        table.settle(sequence, owner, Claim::Done);
        return false;
    }
    let attempts = attempts.max(in_vain.min(u32::from(u8::MAX)) as u8);
    table.settle(sequence, owner, Claim::Free { attempts })
}
