//! The flight recorder: on its desk an incarnation notes the last messages that it took and sent, for whoever asks after its
//! death, or meanwhile, what it was at.
//!
//! Two rings of entries of two words. What is taken is noted where it is held, at the place that the number of messages let go of says; what
//! is sent where it is published, once for each lane of a step, at the place that a count says. All stores are Relaxed: nothing
//! depends on an entry, and who reads one compares it with what else is known. Times are those that the agent had read anyway.

use crate::desk::Desk;
use crate::layout::{RECORDER_ENTRIES, desk, recorder};
use crate::mark::Place;
use crate::region::Region;
use crate::sync::Ordering;

/// A message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The input that it came by.
    pub input: usize,
    /// Its position.
    pub position: u64,
    /// Which attempt at it this was, from 1; 63 stands for all above.
    pub attempt: u32,
    /// When, CLOCK_MONOTONIC ns, to a millisecond.
    pub at_ns: u64,
}

/// What a step sent on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The lane.
    pub lane: usize,
    /// The position behind it.
    pub end: u64,
    /// Not before this time, CLOCK_MONOTONIC ns, to a millisecond; 0 where the agent had read no clock.
    pub at_ns: u64,
}

/// What a flight recorder says, oldest first. Its writer may have written anything: nothing is checked here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The last messages that were taken.
    pub taken: Vec<Taken>,
    /// The last sends.
    pub sent: Vec<Sent>,
}

/// A unit of time in an entry: 2^20 ns, about a millisecond.
const TIME_BITS: u32 = 20;
const INDEX_BITS: u32 = 16;
const ATTEMPT_BITS: u32 = 6;

/// The second word: index of input or lane (65535: none below), attempt, time.
#[inline]
fn pack(index: usize, attempt: u32, at_ns: u64) -> u64 {
    let index = (index as u64).min((1 << INDEX_BITS) - 1);
    let attempt = u64::from(attempt).min((1 << ATTEMPT_BITS) - 1);
    (at_ns >> TIME_BITS) << (INDEX_BITS + ATTEMPT_BITS) | attempt << INDEX_BITS | index
}

fn unpack(word: u64) -> (usize, u32, u64) {
    let index = word & ((1 << INDEX_BITS) - 1);
    let attempt = word >> INDEX_BITS & ((1 << ATTEMPT_BITS) - 1);
    let at_ns = (word >> (INDEX_BITS + ATTEMPT_BITS)) << TIME_BITS;
    (index as usize, attempt as u32, at_ns)
}

/// Where entry `number` of a ring lies.
#[inline]
fn entry(ring: usize, number: u64) -> usize {
    ring + (number % RECORDER_ENTRIES) as usize * recorder::ENTRY_BYTES
}

impl Desk {
    /// Notes a message that is taken, when so many were let go of.
    ///
    /// # If we die here
    /// Its entry is half that of an older message: its position or its index and time are that one's.
    #[inline]
    pub(crate) fn note_taken(&self, number: u64, input: usize, at: Place, attempt: u32, now_ns: u64) {
        if cfg!(loom) {
            return;
        }
        let at_entry = entry(recorder::TAKEN, number);
        // Relaxed: see the head of this file.
        self.word(at_entry).store(at.position, Ordering::Relaxed);
        self.word(at_entry + 8).store(pack(input, attempt, now_ns), Ordering::Relaxed);
    }

    /// Notes what a step has published on a lane; `stamp_ns` is the last time that a frame of the lane carries.
    ///
    /// # If we die here
    /// As in `note_taken`, or the entry is one that the count does not know yet.
    #[inline]
    pub(crate) fn note_sent(&self, lane: usize, end: Place, stamp_ns: u64) {
        if cfg!(loom) {
            return;
        }
        let count = self.word(recorder::SENT_COUNT);
        // Relaxed: see the head of this file.
        let number = count.load(Ordering::Relaxed);
        let held_ns = self.word(desk::HELD_SINCE_NS).load(Ordering::Relaxed);
        let at_entry = entry(recorder::SENT, number);
        self.word(at_entry).store(end.position, Ordering::Relaxed);
        self.word(at_entry + 8).store(pack(lane, 0, stamp_ns.max(held_ns)), Ordering::Relaxed);
        count.store(number.wrapping_add(1), Ordering::Relaxed);
    }
}

/// Reads a flight recorder. While its writer lives an entry may be torn: its two words of two messages.
pub fn read(region: &Region) -> Recorded {
    // Relaxed: see the head of this file.
    let word = |offset: usize| region.word(offset).load(Ordering::Relaxed);
    let ring = |ring: usize, next: u64| {
        let first = next.saturating_sub(RECORDER_ENTRIES);
        (first..next).map(move |number| entry(ring, number)).map(move |at| (word(at), word(at + 8)))
    };
    // Position 0 is no frame's: lanes begin behind it.
    let whole = |entry: &(u64, u64)| entry.0 != 0;
    let holds = word(desk::HELD_INPUT) != 0;
    let count = word(desk::PROGRESS).wrapping_add(u64::from(holds));
    let taken = ring(recorder::TAKEN, count).filter(whole).map(|(position, word)| {
        let (input, attempt, at_ns) = unpack(word);
        Taken { input, position, attempt, at_ns }
    });
    let sent = ring(recorder::SENT, word(recorder::SENT_COUNT)).filter(whole).map(|(end, word)| {
        let (lane, _, at_ns) = unpack(word);
        Sent { lane, end, at_ns }
    });
    Recorded { taken: taken.collect(), sent: sent.collect() }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1 << TIME_BITS;

    fn at(position: u64) -> Place {
        Place { position, sequence: position / 64 }
    }

    #[test]
    fn the_last_sixteen_are_read_oldest_first_and_the_one_in_hand_is_the_last() {
        let region = Region::heap(8192);
        let desk_ = Desk::new(region.clone());
        assert_eq!(read(&region), Recorded::default());
        for step in 1..=40 {
            desk_.hold(3, at(step * 64), 2, step * MS);
            desk_.note_sent(1, at(step * 128), 0);
            if step < 40 {
                desk_.release();
            }
        }
        let Recorded { taken, sent } = read(&region);
        let positions: Vec<u64> = taken.iter().map(|t| t.position / 64).collect();
        assert_eq!(positions, (25..=40).collect::<Vec<_>>());
        assert_eq!(taken[15], Taken { input: 3, position: 40 * 64, attempt: 2, at_ns: 40 * MS });
        assert_eq!(sent.iter().map(|s| s.end / 128).collect::<Vec<_>>(), (25..=40).collect::<Vec<_>>());
        assert_eq!(sent[0], Sent { lane: 1, end: 25 * 128, at_ns: 25 * MS });
        desk_.release();
        assert_eq!(read(&region).taken.len(), 16, "what is done is still known");
        desk_.note_sent(0, at(64), 99 * MS);
        assert_eq!(read(&region).sent[15], Sent { lane: 0, end: 64, at_ns: 99 * MS }, "a stamp is a time");
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was_within_its_bounds(index in 0usize..65535, attempt in 0u32..63, at_ms in 0u64..1 << 41) {
            prop_assert_eq!(unpack(pack(index, attempt, at_ms * MS + 5)), (index, attempt, at_ms * MS));
        }

        #[test]
        fn any_words_are_read_without_harm(words in proptest::collection::vec(any::<u64>(), 1024)) {
            let region = Region::heap(8192);
            for (index, word) in words.into_iter().enumerate() {
                region.word(index * 8).store(word, Ordering::Relaxed);
            }
            let Recorded { taken, sent } = read(&region);
            prop_assert!(taken.len() <= 16 && sent.len() <= 16);
        }
    }
}
