//! The claim table of a group on one lane: which member works on which message, and what is done.
//!
//! ```text
//! 0            frontier   number of the first message that is not done; only grows (compare-and-swap)
//! 128          returned   one more whenever messages of a dead member are free again
//! 256 + 16·i   claim      of message number s with s % entries == i: owner 32 │ attempt 8 │ state 2 │ lap 22
//! 264 + 16·i   end        position behind that message
//! ```
//! A word of an older lap means free, attempt 0: nobody resets it. A claimed message is pinned: the frontier cannot pass it,
//! so its producer does not overwrite it. Members note in their own segment what they are about to claim, so that after a death
//! the supervisor finds the word and settles it: done if the dead's record says so, else free again with one attempt more.
//! The table is one of the two places that several processes write: all members of a group are of one level of trust. It
//! stays while the incarnations of producers and members come and go, as numbers and positions go on through them.

use crate::bug::{Bug, placed};
use crate::cursor::FRAME_ALIGN_BYTES;
use crate::layout::LINE_BYTES;
use crate::mark::Place;
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering, Site, ordering};

const FRONTIER: usize = 0;
const RETURNED: usize = LINE_BYTES;
const ENTRIES: usize = 2 * LINE_BYTES;
const ENTRY_BYTES: usize = 16;
const LAP_MASK: u64 = (1 << 22) - 1;
const STATE_SHIFT: u32 = 22;
const ATTEMPT_SHIFT: u32 = 24;
const OWNER_SHIFT: u32 = 32;

/// Entries of the table of a lane: one for each frame that its ring can hold. Its producer is never as many messages ahead of
/// the frontier: a ring is never quite full.
pub const fn entries_of(capacity_bytes: u64) -> u64 {
    capacity_bytes / FRAME_ALIGN_BYTES
}

/// Bytes of a table with so many entries.
pub const fn table_bytes(entries: u64) -> usize {
    ENTRIES + entries as usize * ENTRY_BYTES
}

/// What a claim word says of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Nobody works on it.
    Free {
        /// How often it was given before.
        attempts: u8,
    },
    /// An incarnation works on it.
    Owned {
        /// The incarnation's number in the swarm.
        owner: u32,
        /// How often it was given before.
        attempts: u8,
    },
    /// It is done.
    Done,
}

/// Copies what the tables in one region say to the beginning of a larger one. While nobody else maps either, or all who do are
/// dead.
#[cfg(not(loom))]
pub fn copy(from: &Region, to: &Region) {
    for offset in (0..from.len_bytes().min(to.len_bytes())).step_by(8) {
        // Relaxed: the writers of the one are dead, and those of the other are told of it later.
        to.word(offset).store(from.word(offset).load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The claim table of one lane, as a member or the supervisor maps it.
#[derive(Clone)]
pub struct ClaimTable {
    region: Region,
    offset: usize,
    entries: u64,
}

impl ClaimTable {
    /// A table of `entries` entries that begins at `offset` of a region.
    ///
    /// # Panics
    /// When it does not lie inside: that is our own bug, sizes come from the supervisor.
    pub fn new(region: Region, offset: usize, entries: u64) -> Self {
        assert!(entries.is_power_of_two() && offset + table_bytes(entries) <= region.len_bytes());
        ClaimTable { region, offset, entries }
    }

    /// Begins at a place of a lane that exists already: everything before it is done, everything behind it free. While nobody else
    /// maps the table, or all who do are dead.
    pub fn begin_at(&self, place: Place) {
        for sequence in place.sequence..place.sequence + self.entries {
            let free = self.pack(sequence, Claim::Free { attempts: 0 });
            // Relaxed, all of them: who maps the table later is told of it by the supervisor.
            self.word(sequence).store(free, Ordering::Relaxed);
        }
        if let Some(last) = place.sequence.checked_sub(1) {
            self.region.word(self.entry(last) + 8).store(place.position, Ordering::Relaxed);
        }
        self.region.word(self.offset + FRONTIER).store(place.sequence, Ordering::Relaxed);
    }

    /// How far a producer may be ahead of the frontier, in messages.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn word(&self, sequence: u64) -> &AtomicU64 {
        self.region.word(self.entry(sequence))
    }

    fn entry(&self, sequence: u64) -> usize {
        self.offset + ENTRIES + (sequence & (self.entries - 1)) as usize * ENTRY_BYTES
    }

    fn lap(&self, sequence: u64) -> u64 {
        if placed(Bug::ClaimWithoutLap) { 0 } else { (sequence / self.entries) & LAP_MASK }
    }

    fn pack(&self, sequence: u64, claim: Claim) -> u64 {
        let (state, owner, attempts) = match claim {
            Claim::Free { attempts } => (0, 0, attempts),
            Claim::Owned { owner, attempts } => (1, owner, attempts),
            Claim::Done => (2, 0, 0),
        };
        u64::from(owner) << OWNER_SHIFT
            | u64::from(attempts) << ATTEMPT_SHIFT
            | state << STATE_SHIFT
            | self.lap(sequence)
    }

    /// What a word says of a message: of an older lap free, of a later one done.
    fn unpack(&self, sequence: u64, word: u64) -> Claim {
        let behind = self.lap(sequence).wrapping_sub(word) & LAP_MASK;
        match (behind, word >> STATE_SHIFT & 3) {
            (0, 0) => Claim::Free { attempts: (word >> ATTEMPT_SHIFT) as u8 },
            (0, 1) => {
                Claim::Owned { owner: (word >> OWNER_SHIFT) as u32, attempts: (word >> ATTEMPT_SHIFT) as u8 }
            }
            (0, _) => Claim::Done,
            (laps, _) if laps <= LAP_MASK / 2 => Claim::Free { attempts: 0 },
            _ => Claim::Done,
        }
    }

    /// What the table says of a message.
    pub fn see(&self, sequence: u64) -> Claim {
        // Acquire: pairs with the Release of `replace`.
        self.unpack(sequence, self.word(sequence).load(ordering(Site::ClaimLoad, Ordering::Acquire)))
    }

    /// Whether a message may be claimed at all: further ahead its entry is still another's.
    pub fn within(&self, sequence: u64, frontier: u64) -> bool {
        sequence >= frontier && sequence - frontier < self.entries - 1
    }

    /// Takes a free message; the attempts before this one, or what it is instead.
    ///
    /// # If we die here
    /// The supervisor finds the intent in the dead's segment, and the word if the swap was made.
    ///
    /// # Errors
    /// What the word says instead.
    pub fn take(&self, sequence: u64, owner: u32) -> Result<u8, Claim> {
        // Relaxed: the swap below is what counts.
        let word = self.word(sequence).load(Ordering::Relaxed);
        match self.unpack(sequence, word) {
            Claim::Owned { attempts, .. } if placed(Bug::ClaimUnseen) => {
                let taken = self.pack(sequence, Claim::Owned { owner, attempts });
                self.replace(sequence, word, taken).map(|()| attempts)
            }
            Claim::Free { attempts } => {
                let taken = self.pack(sequence, Claim::Owned { owner, attempts });
                self.replace(sequence, word, taken).map(|()| attempts)
            }
            other => Err(other),
        }
    }

    /// Settles a message that `owner` holds: done, or free again. False when it does not hold it.
    ///
    /// # If we die here
    /// The word is the old or the new one.
    pub fn settle(&self, sequence: u64, owner: u32, to: Claim) -> bool {
        // Relaxed: as in `take`.
        let word = self.word(sequence).load(Ordering::Relaxed);
        let held = matches!(self.unpack(sequence, word), Claim::Owned { owner: by, .. } if by == owner);
        held && self.replace(sequence, word, self.pack(sequence, to)).is_ok()
    }

    fn replace(&self, sequence: u64, from: u64, to: u64) -> Result<(), Claim> {
        // AcqRel: the Release half pairs with the Acquire of `see` and orders what the member did with the message before its
        // end; the Acquire half, with the Release half of a claim's return, what its former owner did.
        let swapped = self.word(sequence).compare_exchange(
            from,
            to,
            ordering(Site::ClaimSwap, Ordering::AcqRel),
            Ordering::Relaxed,
        );
        swapped.map(|_| ()).map_err(|now| self.unpack(sequence, now))
    }

    /// Notes where a message ends. Only its owner does.
    pub fn note_end(&self, sequence: u64, position: u64) {
        // Release: pairs with the Acquire in `frontier_place`. Who reads an end of a later lap there sees, when it looks
        // again, a frontier that has moved on.
        self.region
            .word(self.entry(sequence) + 8)
            .store(position, ordering(Site::EndStore, Ordering::Release));
    }

    /// Number of the first message that is not done.
    pub fn frontier(&self) -> u64 {
        // Acquire: pairs with the Release in `advance`; everything before it is done.
        self.region.word(self.offset + FRONTIER).load(ordering(Site::FrontierLoad, Ordering::Acquire))
    }

    /// Moves the frontier over what is done. After a message was settled as done: of two members that are done with two
    /// messages at once, at least one sees both.
    ///
    /// # If we die here
    /// The frontier is behind the truth: the next member moves it, and every member looks once after a death.
    pub fn advance(&self) {
        let word = self.region.word(self.offset + FRONTIER);
        // AcqRel, and a swap though it changes nothing: pairs with itself in another member. Both have settled a message before;
        // the later of the two swaps sees what the earlier member settled.
        let first = word.fetch_max(0, ordering(Site::FrontierSwap, Ordering::AcqRel));
        let mut sequence = first;
        let done = |claim| match claim {
            Claim::Owned { .. } => placed(Bug::FrontierOverOwned),
            claim => claim == Claim::Done,
        };
        while sequence - first < self.entries && done(self.see(sequence)) {
            sequence += 1;
        }
        if sequence > first {
            // Release: pairs with the Acquire in `frontier`, also for what others did before they settled what was just seen.
            word.fetch_max(sequence, ordering(Site::FrontierStore, Ordering::Release));
        }
    }

    /// The frontier with its position: where the message before it ends; `first` as long as there was none.
    ///
    /// It looks again while others move it.
    pub fn frontier_place(&self, first: Place) -> Place {
        loop {
            let sequence = self.frontier();
            let Some(last) = sequence.checked_sub(1) else { return first };
            // Acquire: pairs with the Release in `note_end`.
            let order = ordering(Site::EndLoad, Ordering::Acquire);
            let position = self.region.word(self.entry(last) + 8).load(order);
            // The entry is used anew only when the frontier has moved on.
            if self.frontier() == sequence {
                return Place { position, sequence };
            }
            crate::sync::spin_hint();
        }
    }

    /// How often messages came back.
    pub fn returned(&self) -> u64 {
        // Acquire: pairs with the Release in `tell_returned`; what came back is seen free.
        self.region.word(self.offset + RETURNED).load(ordering(Site::ReturnedLoad, Ordering::Acquire))
    }

    /// Tells the members that messages are free again: they look from the frontier on. They have to be rung, too.
    pub fn tell_returned(&self) {
        // Release: pairs with the Acquire in `returned`.
        let order = ordering(Site::ReturnedStore, Ordering::Release);
        self.region.word(self.offset + RETURNED).fetch_add(1, order);
    }

    /// How many messages between the frontier and `end` are not done.
    pub fn left(&self, end: u64) -> u64 {
        let frontier = self.frontier();
        let to = end.min(frontier + self.entries);
        (frontier..to).filter(|&sequence| self.see(sequence) != Claim::Done).count() as u64
    }

    /// The messages between the frontier and `end` that `owner` holds: for a dead member whose own words cannot be believed.
    pub fn held_by(&self, owner: u32, end: u64) -> Vec<u64> {
        let frontier = self.frontier();
        let held =
            |&sequence: &u64| matches!(self.see(sequence), Claim::Owned { owner: by, .. } if by == owner);
        (frontier..end.min(frontier + self.entries)).filter(held).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> ClaimTable {
        ClaimTable::new(Region::heap(table_bytes(64)), 0, 64)
    }

    #[test]
    fn message_goes_to_one_of_two_and_returns_with_one_attempt_more() {
        let table = table();
        assert_eq!(table.take(5, 1), Ok(0));
        assert_eq!(table.take(5, 2), Err(Claim::Owned { owner: 1, attempts: 0 }));
        assert!(!table.settle(5, 2, Claim::Done), "only its owner, or who settles for it, ends a claim");
        assert!(table.settle(5, 1, Claim::Free { attempts: 1 }));
        assert_eq!(table.take(5, 2), Ok(1));
        assert!(table.settle(5, 2, Claim::Done));
        assert_eq!(table.take(5, 3), Err(Claim::Done));
    }

    #[test]
    fn member_that_was_stopped_for_a_lap_takes_nothing() {
        let table = table();
        assert_eq!(table.take(5, 1), Ok(0));
        assert!(table.settle(5, 1, Claim::Done));
        assert_eq!(table.take(5 + 64, 2), Ok(0), "the next lap is free without a reset");
        assert_eq!(table.take(5, 3), Err(Claim::Done));
        assert_eq!(table.see(5 + 128), Claim::Free { attempts: 0 });
    }

    proptest! {
        #[test]
        fn words_say_what_was_packed_of_their_own_lap(sequence in 0u64..1 << 40, owner: u32, attempts: u8) {
            let table = table();
            for claim in [Claim::Free { attempts }, Claim::Owned { owner, attempts }, Claim::Done] {
                prop_assert_eq!(table.unpack(sequence, table.pack(sequence, claim)), claim);
            }
        }
    }

    #[test]
    fn table_of_a_lane_that_exists_begins_where_it_is_told_even_after_many_laps() {
        for sequence in [0, 1, 63, 64, 1000, 64 * (LAP_MASK / 2 + 5) + 3] {
            let table = table();
            let place = Place { position: 1 << 40, sequence };
            table.begin_at(place);
            let first = Place { position: 4096, sequence: 0 };
            assert_eq!(table.frontier_place(first), if sequence == 0 { first } else { place });
            let free = |s: u64| table.see(s) == Claim::Free { attempts: 0 };
            assert!((sequence..sequence + 63).all(free), "{sequence}");
            assert_eq!(table.take(sequence, 7), Ok(0));
            assert!(table.settle(sequence, 7, Claim::Done));
            table.note_end(sequence, place.position + 64);
            table.advance();
            assert_eq!(table.frontier(), sequence + 1);
        }
    }

    #[test]
    fn frontier_never_goes_back_and_knows_its_position() {
        let table = table();
        let first = Place { position: 4096, sequence: 0 };
        assert_eq!(table.frontier_place(first), first);
        for (sequence, end) in [(1, 4224), (0, 4160)] {
            assert_eq!(table.take(sequence, 7), Ok(0));
            table.note_end(sequence, end);
        }
        assert!(table.settle(1, 7, Claim::Done));
        table.advance();
        assert_eq!((table.frontier_place(first), table.left(5)), (first, 4));
        assert!(table.settle(0, 7, Claim::Done));
        table.advance();
        table.advance();
        assert_eq!(table.frontier_place(first), Place { position: 4224, sequence: 2 });
        assert_eq!((table.left(5), table.held_by(7, 5)), (3, vec![]));
    }
}
