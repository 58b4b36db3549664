//! A member of a group that shares a lane: it looks for a free message, claims it, and settles it when it is done.
//!
//! Every member walks over the frames behind the frontier on its own; the claim table says whose each message is. A member
//! that was stopped finds itself behind the frontier, where frames may be overwritten: what it read there is not believed,
//! and it goes on from the frontier. A claim that succeeds proves that the frame was never passed.

use super::Frame;
use crate::bug::{Bug, placed};
use crate::claims::{Claim, ClaimTable};
use crate::layout::input;
use crate::mark::Place;
use crate::region::Region;
use crate::sync::Ordering;
use std::collections::VecDeque;

/// What a member needs to know of its group's share in a lane.
#[derive(Clone)]
pub struct Membership {
    /// The lane's claim table.
    pub table: ClaimTable,
    /// The incarnation's number in the swarm.
    pub owner: u32,
    /// How many messages it may hold at once, 1 to [`input::INTENT_COUNT`].
    pub prefetch: usize,
}

/// One input's part in a group.
pub(super) struct Member {
    table: ClaimTable,
    owner: u32,
    prefetch: usize,
    region: Region,
    intents: usize,
    /// Where the lane began: the place of a frontier that never moved.
    first: Place,
    /// The next frame to look at. Everything before it was someone's when it was looked at.
    pub(super) walk: Place,
    returned: u64,
    /// What it holds, in the order of its claims; the first is in hand or will be next.
    held: VecDeque<Frame>,
}

impl Member {
    /// A member that begins at the frontier. `input` is the offset of the input's line in the own segment.
    pub(super) fn new(membership: Membership, region: Region, input: usize, first: Place) -> Self {
        let Membership { table, owner, prefetch } = membership;
        let returned = table.returned();
        let walk = table.frontier_place(first);
        let prefetch = prefetch.clamp(1, input::INTENT_COUNT);
        let held = VecDeque::with_capacity(prefetch);
        let intents = input + input::INTENTS;
        Member { table, owner, prefetch, region, intents, first, walk, returned, held }
    }

    /// Everything before it is done.
    pub(super) fn frontier(&self) -> Place {
        self.table.frontier_place(self.first)
    }

    /// Whether messages before a place are all done.
    pub(super) fn has_passed(&self, end: Place) -> bool {
        self.table.frontier() >= end.sequence
    }

    /// The message that is in hand or comes next, if as many are held as may be, or `anyway`.
    pub(super) fn next(&self, anyway: bool) -> Option<Frame> {
        self.held.front().filter(|_| anyway || self.held.len() >= self.prefetch).copied()
    }

    /// Goes back, or on, to the frontier when messages have come back or others are ahead. True when it moved.
    pub(super) fn catch_up(&mut self) -> bool {
        let returned = self.table.returned();
        let behind = self.is_behind();
        if !behind && (returned == self.returned || placed(Bug::ReturnOverlooked)) {
            return false;
        }
        self.returned = returned;
        self.walk = self.frontier();
        true
    }

    /// Whether the frontier has passed the walk: what was read there is not to be believed.
    pub(super) fn is_behind(&self) -> bool {
        self.table.frontier() > self.walk.sequence
    }

    /// Whether a message lies further ahead of the frontier than the table reaches: its entry is still another's. No producer sends
    /// so far ahead, but numbers jump where one scribbled over its own memory.
    pub(super) fn is_beyond_reach(&self, frame: &Frame) -> bool {
        let frontier = self.table.frontier();
        frame.at.sequence >= frontier && !self.table.within(frame.at.sequence, frontier)
    }

    /// Claims the message at the walk if it is free, and walks on.
    ///
    /// # If we die here
    /// Before the swap of the claim word nothing happened; after it the supervisor finds the intent, and the message is free
    /// again.
    pub(super) fn meet(&mut self, frame: Frame) {
        let claimed = self.take(frame.at.sequence);
        if let Ok(attempts) = claimed {
            if !placed(Bug::ClaimEndForgotten) {
                self.table.note_end(frame.at.sequence, frame.next().position);
            }
            self.held.push_back(Frame { attempts: u32::from(attempts), ..frame });
        }
        self.walk = frame.next();
    }

    fn take(&self, sequence: u64) -> Result<u8, Claim> {
        // Behind the frontier the entry is a later message's; the frontier may have moved since it was looked at.
        if !self.table.within(sequence, self.table.frontier()) {
            return Err(Claim::Done);
        }
        // Most that a member meets is someone's already.
        match self.table.see(sequence) {
            Claim::Free { .. } => {}
            Claim::Owned { .. } if placed(Bug::ClaimUnseen) => {}
            other => return Err(other),
        }
        if placed(Bug::ClaimWithoutIntent) {
            return self.table.take(sequence, self.owner);
        }
        let intent = self.intent(0);
        if placed(Bug::ClaimIntentAfterwards) {
            let taken = self.table.take(sequence, self.owner);
            self.region.word(intent).store(if taken.is_ok() { sequence + 1 } else { 0 }, Ordering::Relaxed);
            return taken;
        }
        // Relaxed: this and the swap are of one thread, and who reads them reads them after its proved death.
        self.region.word(intent).store(sequence + 1, Ordering::Relaxed);
        let taken = self.table.take(sequence, self.owner);
        if taken.is_err() {
            self.region.word(intent).store(0, Ordering::Relaxed);
        }
        taken
    }

    /// The offset of the intent that says `word`: a message's number plus one, or 0 for a free one.
    fn intent(&self, word: u64) -> usize {
        let all = (0..input::INTENT_COUNT).map(|i| self.intents + i * 8);
        let found = { all }.find(|&offset| self.region.word(offset).load(Ordering::Relaxed) == word);
        found.expect("there are as many intents as messages may be held")
    }

    /// Settles a message as done, and moves the frontier.
    ///
    /// # If we die here
    /// Before the swap the message is done if the record says so, else it is free again; after it, it is done.
    pub(super) fn finish(&mut self, frame: &Frame) {
        let first = self.held.pop_front();
        assert!(
            first.is_some_and(|f| f.at == frame.at),
            "a message is settled once, in the order of the claims"
        );
        self.done(frame.at.sequence);
    }

    fn done(&self, sequence: u64) {
        if placed(Bug::ClaimIntentClearedEarly) {
            self.region.word(self.intent(sequence + 1)).store(0, Ordering::Relaxed);
        }
        let settled = self.table.settle(sequence, self.owner, Claim::Done);
        debug_assert!(settled, "nobody settles the claim of a living member");
        if !placed(Bug::ClaimWithoutIntent) && !placed(Bug::ClaimIntentClearedEarly) {
            self.region.word(self.intent(sequence + 1)).store(0, Ordering::Relaxed);
        }
        self.table.advance();
    }

    /// Settles a message that is still in hand: a deliberate bug.
    pub(super) fn finish_early(&self, frame: &Frame) {
        self.table.settle(frame.at.sequence, self.owner, Claim::Done);
    }

    /// Moves the frontier over what others left done when they died.
    pub(super) fn advance(&self) {
        self.table.advance();
    }

    /// Takes the messages from the walk to `end`, which nobody can read, and settles them as done. Returns how many; fewer than
    /// all when one in between is another's, who may have read it in time.
    pub(super) fn forfeit(&mut self, end: Place) -> u64 {
        let mut forfeited = 0;
        while self.walk.sequence < end.sequence && self.take(self.walk.sequence).is_ok() {
            let sequence = self.walk.sequence;
            // They have no length that is known: all but the last end where they begin.
            if sequence + 1 == end.sequence {
                self.walk.position = end.position;
            }
            self.table.note_end(sequence, self.walk.position);
            self.done(sequence);
            self.walk.sequence += 1;
            forfeited += 1;
        }
        if self.walk.sequence == end.sequence {
            self.walk = end;
        }
        forfeited
    }
}
