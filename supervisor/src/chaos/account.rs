//! The account of a receiver: for each source which of its numbers have come. Pure.
//!
//! ```text
//!   0 ─────── all came ─────── low ── window: one bit a number ── low + WINDOW
//! ```
//!
//! Where messages overtake each other on their way, the window must span all that can be under way at once. It is the
//! group of workers that lets them: one is stopped while the others go on. What bounds it: a lane holds at most
//! [`CAPACITY_BYTES`] in frames of at least 128 bytes, of its living producer and of up to `history` dead ones. The group is
//! never more than a lane ahead of what it has not done; and the sink reads its lanes in turn, so while it reads a full one, as
//! many come through each of the others.

use super::WORKERS_MAX;

/// Bytes of each lane of the swarm.
pub const CAPACITY_BYTES: u64 = 16 << 10;
/// Undrained dead incarnations of an agent, as in the swarm file.
pub const HISTORY: u64 = 4;
/// Numbers that the window of a source spans: more than the head of this file needs, since messages were seen to come some thousands of
/// numbers late while supervisors were killed, for a reason that is not known yet.
pub const WINDOW: u64 = 16384;

const LANE_MESSAGES: u64 = CAPACITY_BYTES / 128 * (HISTORY + 1);
// A lane of results of each worker, and one of numbers.
const _: () = assert!(LANE_MESSAGES * (WORKERS_MAX as u64 + 1) <= WINDOW);

/// What a receiver has received: its state.
#[shoal_agent::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// For each source.
    pub of: Vec<OfSource>,
    /// Messages that were not whole. Whose they were is not known, so they count nowhere else.
    pub corrupted: u64,
}

/// What has come of one source.
#[shoal_agent::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfSource {
    /// All numbers below have come.
    pub low: u64,
    /// Bit `n` modulo [`WINDOW`] says whether number `n` has come, for those from `low` on.
    pub window: Vec<u64>,
    /// The highest that has come, plus one.
    pub next: u64,
    /// Messages that had come before.
    pub duplicated: u64,
    /// First comings after a higher number.
    pub reordered: u64,
    /// Messages too far ahead for the window: the account is not exact then.
    pub beyond: u64,
}

impl Account {
    /// Nothing has come.
    pub fn new(sources: u32) -> Account {
        let of = (0..sources).map(|_| OfSource::new()).collect();
        Account { of, corrupted: 0 }
    }

    /// Notes a message: whose and its number, or that it was not whole.
    pub fn note(&mut self, message: Option<(u32, u64)>) {
        match message.and_then(|(source, sequence)| Some((self.of.get_mut(source as usize)?, sequence))) {
            Some((of, sequence)) => of.note(sequence),
            None => self.corrupted += 1,
        }
    }
}

impl OfSource {
    fn new() -> OfSource {
        let window = vec![0; (WINDOW / 64) as usize];
        OfSource { low: 0, window, next: 0, duplicated: 0, reordered: 0, beyond: 0 }
    }

    fn bit(&mut self, sequence: u64) -> (&mut u64, u64) {
        let at = sequence % WINDOW;
        (&mut self.window[(at / 64) as usize], 1 << (at % 64))
    }

    fn has(&mut self, sequence: u64) -> bool {
        let (word, bit) = self.bit(sequence);
        *word & bit != 0
    }

    fn note(&mut self, sequence: u64) {
        if sequence < self.low {
            self.duplicated += 1;
            return;
        }
        if sequence - self.low >= WINDOW {
            self.beyond += 1;
            return;
        }
        let (word, bit) = self.bit(sequence);
        if *word & bit != 0 {
            self.duplicated += 1;
            return;
        }
        *word |= bit;
        self.reordered += u64::from(sequence < self.next);
        self.next = self.next.max(sequence + 1);
        while self.has(self.low) {
            let (word, bit) = self.bit(self.low);
            *word &= !bit;
            self.low += 1;
        }
    }

    /// How many different numbers have come.
    pub fn came(&self) -> u64 {
        self.low + self.window.iter().map(|word| u64::from(word.count_ones())).sum::<u64>()
    }

    /// How many of the first `sent` numbers have not come, and how many came that are not among these.
    pub fn compared_with(&self, sent: u64) -> (u64, u64) {
        let above = (self.low.max(sent)..self.low + WINDOW).filter(|&n| {
            let at = n % WINDOW;
            self.window[(at / 64) as usize] & (1 << (at % 64)) != 0
        });
        let unsent = self.low.saturating_sub(sent) + above.count() as u64;
        (sent + unsent - self.came(), unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The same with all numbers kept.
    fn oracle(sequences: &[u64], sent: u64) -> (u64, u64, u64, u64) {
        let (mut seen, mut duplicated, mut reordered) = (BTreeSet::new(), 0, 0);
        for &n in sequences {
            let late = seen.last().is_some_and(|&last| n < last);
            match seen.insert(n) {
                true => reordered += u64::from(late),
                false => duplicated += 1,
            }
        }
        let lost = (0..sent).filter(|n| !seen.contains(n)).count() as u64;
        (lost, duplicated, reordered, seen.range(sent..).count() as u64)
    }

    fn judged(sequences: &[u64], sent: u64) -> (u64, u64, u64, u64) {
        let mut of = OfSource::new();
        sequences.iter().for_each(|&n| of.note(n));
        assert_eq!(of.beyond, 0);
        let (lost, unsent) = of.compared_with(sent);
        (lost, of.duplicated, of.reordered, unsent)
    }

    proptest! {
        #[test]
        fn within_the_window_an_account_is_exact_whatever_comes(
            sequences in prop::collection::vec(0..WINDOW, 0..300), sent in 0..2 * WINDOW,
        ) {
            prop_assert_eq!(judged(&sequences, sent), oracle(&sequences, sent));
        }

        #[test]
        fn window_moves_along_and_stays_exact(
            count in 1u64..20_000, swaps in prop::collection::vec((any::<prop::sample::Index>(), 0usize..2000), 0..50),
            twice in prop::collection::vec(any::<prop::sample::Index>(), 0..20), left_out: Option<prop::sample::Index>,
        ) {
            let mut sequences: Vec<u64> = (0..count).collect();
            for (at, by) in swaps {
                let at = at.index(sequences.len());
                let other = (at + by).min(sequences.len() - 1);
                // Each is moved by less than a window, but not again and again.
                if sequences[at] == at as u64 && sequences[other] == other as u64 {
                    sequences.swap(at, other);
                }
            }
            for at in twice {
                let again = sequences[at.index(sequences.len())];
                sequences.push(again);
            }
            // One that never comes holds the window where it is: only among the last.
            if let Some(at) = left_out {
                let lost = count - 1 - at.index(count.min(1000) as usize) as u64;
                sequences.retain(|&n| n != lost);
            }
            prop_assert_eq!(judged(&sequences, count), oracle(&sequences, count));
        }
    }

    #[test]
    fn what_lies_beyond_the_window_is_said_and_counts_as_lost() {
        let mut of = OfSource::new();
        of.note(WINDOW);
        assert_eq!((of.beyond, of.compared_with(WINDOW + 1)), (1, (WINDOW + 1, 0)));
    }

    #[test]
    fn message_that_is_not_whole_or_of_no_source_is_corrupted() {
        let mut account = Account::new(2);
        account.note(None);
        account.note(Some((2, 0)));
        assert_eq!((account.corrupted, account.of[0].came(), account.of[1].came()), (2, 0, 0));
    }

    #[test]
    fn account_of_all_sources_fits_a_state() {
        let account = Account::new(super::super::SOURCES);
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&account).expect("archived");
        assert!(bytes.len() + shoal_runtime::state::VALUE <= shoal_runtime::layout::STATE_BYTES as usize);
    }
}
