//! The readers of a lane, as its producer knows them: how far they are, and whom a message concerns.

use crate::board::Status;
use crate::bug::{Bug, placed};
use crate::claims::ClaimTable;
use crate::cursor;
use crate::incarnation::PeerFault;
use crate::layout::input;
use crate::links::Links;
use crate::mark::{self, Place};
use crate::sync::{Ordering, Site, fence};

/// A reader of a lane.
#[derive(Clone, Debug)]
pub struct ReaderEnd {
    /// The reader's place among the neighbours.
    pub neighbour: usize,
    /// The input of the reader that is this lane.
    pub input: usize,
    /// It takes the messages whose number is `share.0` modulo `share.1`.
    pub share: (u32, u32),
    /// Which of the groups that share the lane it belongs to; `None` when it reads for itself.
    pub group: Option<usize>,
    /// Its cursor as last seen; never goes back.
    seen: u64,
    /// The generation whose cursor was found impossible: said once.
    accused: u32,
}

impl ReaderEnd {
    /// A reader for itself, that was not looked at yet.
    pub fn new(neighbour: usize, input: usize, share: (u32, u32)) -> Self {
        ReaderEnd { neighbour, input, share, group: None, seen: 0, accused: 0 }
    }

    /// The same as a member of a group.
    pub fn in_group(self, group: Option<usize>) -> Self {
        ReaderEnd { group, ..self }
    }

    /// Whether one of the messages `first..end` is for it.
    pub(super) fn concerned(&self, first: u64, end: u64) -> bool {
        let (k, n) = (u64::from(self.share.0), u64::from(self.share.1));
        n == 1 || end - first >= n || (first..end).any(|sequence| sequence % n == k)
    }

    /// Whether its cursor is not known to have passed a position.
    pub(super) fn is_behind(&self, position: u64) -> bool {
        self.seen < position
    }
}

/// A group that shares the lane: its frontier is its cursor.
struct Group {
    table: ClaimTable,
    /// Where the lane's first incarnation began: the place of a frontier that never moved.
    first: Place,
    seen: u64,
}

/// All readers of a lane.
pub(super) struct Readers {
    ends: Vec<ReaderEnd>,
    groups: Vec<Group>,
    faults: Vec<PeerFault>,
}

impl Readers {
    /// Readers that were not looked at since the ring began at `base`.
    pub(super) fn new(ends: Vec<ReaderEnd>, base: u64) -> Self {
        let ends = ends.into_iter().map(|r| ReaderEnd { seen: base, ..r }).collect();
        Readers { ends, groups: Vec::new(), faults: Vec::new() }
    }

    pub(super) fn add_group(&mut self, table: ClaimTable, first: u64) {
        let first = Place { position: first, sequence: 0 };
        self.groups.push(Group { table, first, seen: 0 });
    }

    pub(super) fn ends(&self) -> &[ReaderEnd] {
        &self.ends
    }

    pub(super) fn take_faults(&mut self) -> Vec<PeerFault> {
        std::mem::take(&mut self.faults)
    }

    /// The least cursor as last seen, of those who read for themselves.
    pub(super) fn slowest(&self) -> u64 {
        self.ends.iter().filter(|r| r.group.is_none()).map(|r| r.seen).min().unwrap_or(u64::MAX)
    }

    /// Looks at all cursors and frontiers; the least position that somebody still needs.
    ///
    /// What who reads for itself still has in a predecessor's ring takes no space in this one, which began at `base`.
    pub(super) fn look(&mut self, base: u64, tail: Place, links: &Links) -> u64 {
        let mut least = tail.position;
        for reader in self.ends.iter_mut().filter(|r| r.group.is_none()) {
            let neighbour = links.neighbour(reader.neighbour);
            if links.board.status(neighbour.agent) == Status::Gone {
                continue;
            }
            if let Some(link) = neighbour.newest() {
                let offset = neighbour.shape.input_offset(reader.input) + input::CURSOR;
                let cursor = mark::position(&link.region, offset, Site::CursorLoad).max(base);
                if cursor::cursor_plausible(cursor, reader.seen, tail.position) {
                    reader.seen = cursor;
                } else if reader.accused != link.incarnation.generation {
                    reader.accused = link.incarnation.generation;
                    let what =
                        format!("its cursor {cursor} lies outside {}..={}", reader.seen, tail.position);
                    self.faults.push(PeerFault { incarnation: link.incarnation, what });
                }
            }
            least = least.min(reader.seen);
        }
        for (index, group) in self.groups.iter_mut().enumerate() {
            if placed(Bug::GroupNotAwaited) {
                continue;
            }
            let mut members = self.ends.iter().filter(|r| r.group == Some(index));
            let gone = |r: &ReaderEnd| links.board.status(links.neighbour(r.neighbour).agent) == Status::Gone;
            if members.all(gone) {
                continue;
            }
            // Also what it still has in a predecessor's ring takes space: its table has an entry for each frame of one ring, so
            // no message is ever further ahead of the frontier than the table reaches.
            let frontier = group.table.frontier_place(group.first).position;
            // Who of the members wrote an impossible one cannot be told; it is not believed.
            if cursor::cursor_plausible(frontier, group.seen, tail.position) {
                group.seen = frontier;
            }
            least = least.min(group.seen);
        }
        if !self.groups.is_empty() {
            // Release fence: pairs with the Acquire of facts in `Sources::ring_word`. A member that was left behind, and reads
            // facts that are written below, sees the frontier that gave way.
            fence(Site::ReuseFence, Ordering::Release);
        }
        least
    }
}
