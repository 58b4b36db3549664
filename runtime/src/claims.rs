//! The claim table of a group on one lane: which member works on which message, and what is done.
//!
//! ```text
//! 0            frontier   number of the first message that is not done; only grows (compare-and-swap)
//! 128 + 16·i   claim      of message number s with s % entries == i: owner 32 │ attempt 8 │ state 2 │ lap 22
//! 136 + 16·i   end        position behind that message
//! ```
//! A word of an older lap means free, attempt 0: nobody resets it. A claimed message is pinned: the frontier cannot pass it,
//! so its producer does not overwrite it. Members note on their desk what they are about to claim, so that after a death the
//! supervisor finds the word and settles it: done if the dead's record says so, else free again with one attempt more.
//! The table is one of the two places that several processes write: all members of a group are of one level of trust.

use crate::layout::LINE_BYTES;
use crate::mark::Place;
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

const FRONTIER: usize = 0;
const ENTRY_BYTES: usize = 16;
const LAP_MASK: u64 = (1 << 22) - 1;
const STATE_SHIFT: u32 = 22;
const ATTEMPT_SHIFT: u32 = 24;
const OWNER_SHIFT: u32 = 32;

/// Entries of the table of a lane: one for every 64 bytes of its ring; a producer is never further ahead of the frontier.
pub const fn entries_of(capacity_bytes: u64) -> u64 {
    capacity_bytes / 64
}

/// Bytes of a table with so many entries.
pub const fn table_bytes(entries: u64) -> usize {
    LINE_BYTES + entries as usize * ENTRY_BYTES
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

    /// How far a producer may be ahead of the frontier, in messages.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn word(&self, sequence: u64) -> &AtomicU64 {
        self.region.word(self.entry(sequence))
    }

    fn entry(&self, sequence: u64) -> usize {
        self.offset + LINE_BYTES + (sequence & (self.entries - 1)) as usize * ENTRY_BYTES
    }

    fn lap(&self, sequence: u64) -> u64 {
        (sequence / self.entries) & LAP_MASK
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
        self.unpack(sequence, self.word(sequence).load(Ordering::Acquire))
    }

    /// Takes a free message; the attempts before this one, or what it is instead.
    ///
    /// # If we die here
    /// The supervisor finds the intent on the desk, and the word if the swap was made.
    ///
    /// # Errors
    /// What the word says instead.
    pub fn take(&self, sequence: u64, owner: u32) -> Result<u8, Claim> {
        let word = self.word(sequence).load(Ordering::Acquire);
        match self.unpack(sequence, word) {
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
        let word = self.word(sequence).load(Ordering::Acquire);
        let held = matches!(self.unpack(sequence, word), Claim::Owned { owner: by, .. } if by == owner);
        held && self.replace(sequence, word, self.pack(sequence, to)).is_ok()
    }

    fn replace(&self, sequence: u64, from: u64, to: u64) -> Result<(), Claim> {
        // AcqRel: the Release half pairs with the Acquire of `see` and `take` and orders what the member did with the message
        // before its end; the Acquire half orders the reading of the message after the claim.
        let swapped = self.word(sequence).compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(|_| ()).map_err(|now| self.unpack(sequence, now))
    }

    /// Notes where a message ends; every member that walks over it writes the same.
    pub fn note_end(&self, sequence: u64, position: u64) {
        // Relaxed: read only behind a frontier that was moved, with Release, after it.
        self.region.word(self.entry(sequence) + 8).store(position, Ordering::Relaxed);
    }

    /// Number of the first message that is not done.
    pub fn frontier(&self) -> u64 {
        // Acquire: pairs with the Release in `advance`; everything before it is done.
        self.region.word(self.offset + FRONTIER).load(Ordering::Acquire)
    }

    /// Moves the frontier to at least `sequence`.
    ///
    /// # If we die here
    /// The frontier is behind the truth: the next member moves it.
    pub fn advance(&self, sequence: u64) {
        // Release: pairs with the Acquire in `frontier`; publishes the ends noted before it.
        self.region.word(self.offset + FRONTIER).fetch_max(sequence, Ordering::AcqRel);
    }

    /// The frontier with its position: where the message before it ends. `None` before the first, or when the table went
    /// round meanwhile.
    pub fn frontier_place(&self) -> Option<Place> {
        let sequence = self.frontier();
        let last = sequence.checked_sub(1)?;
        // Relaxed: written before the frontier was moved here.
        let position = self.region.word(self.entry(last) + 8).load(Ordering::Relaxed);
        // Acquire fence: the entry was read before the frontier is read again; it is used anew only a round later.
        core::sync::atomic::fence(Ordering::Acquire);
        (self.frontier() - sequence < self.entries / 2).then_some(Place { position, sequence })
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
    fn frontier_never_goes_back_and_knows_its_position() {
        let table = table();
        assert_eq!(table.frontier_place(), None);
        table.note_end(0, 4160);
        table.note_end(1, 4224);
        table.advance(2);
        table.advance(1);
        assert_eq!(table.frontier_place(), Some(Place { position: 4224, sequence: 2 }));
    }
}
