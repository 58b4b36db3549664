//! The account of a receiver: for each source which of its numbers have come. Pure.
//!
//! ```text
//!   0 ── all came ── [ part: 64 bits ] ── all came ── [ part ] [ part ] ── end: nothing came from here on
//! ```
//!
//! Where messages overtake each other on their way, a number may come as late as you like: a worker's results wait for as long as the
//! sink has no link to them, and that is handed over by a supervisor, which may be dead; the other workers go on meanwhile. But few
//! are missing at a time: a lane holds at most [`CAPACITY_BYTES`] in frames of at least 128 bytes, of its living producer and of up to
//! `history` dead ones, and the group is never more than a lane ahead of what it has not done. So only what has gaps is kept.

use super::{SOURCES, WORKERS_MAX};

/// Bytes of each lane of the swarm.
pub const CAPACITY_BYTES: u64 = 16 << 10;
/// Undrained dead incarnations of an agent, as in the swarm file.
pub const HISTORY: u64 = 4;
/// How many numbers a part has.
const PART: u64 = 64;
/// Parts of all sources together, at most: what fits a state.
const PARTS_MAX: usize = 440;

const LANE_MESSAGES: u64 = CAPACITY_BYTES / 128 * (HISTORY + 1);
// A lane of results of each worker, one of asides of each source, and one of numbers, if what is missing is not scattered.
const _: () = assert!(LANE_MESSAGES * (WORKERS_MAX as u64 + SOURCES as u64 + 1) <= PARTS_MAX as u64 * PART);

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
    /// So many parts there are; of those that are not listed every number has come.
    pub end: u64,
    /// Those with gaps, in order.
    pub parts: Vec<Part>,
    /// The highest number that has come, plus one.
    pub next: u64,
    /// Messages that had come before.
    pub duplicated: u64,
    /// First comings after a higher number.
    pub reordered: u64,
    /// Messages for which there were too many gaps: the account is not exact then.
    pub beyond: u64,
}

/// Some numbers of which not all have come.
#[shoal_agent::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The how manieth it is.
    pub place: u64,
    /// A bit for each number that has come.
    pub came: u64,
}

impl Account {
    /// Nothing has come.
    pub fn new(sources: u32) -> Account {
        let of = (0..sources).map(|_| OfSource::new()).collect();
        Account { of, corrupted: 0 }
    }

    /// The sink's: after the sources' results come their asides.
    pub fn of_sink() -> Account {
        Account::new(2 * SOURCES)
    }

    /// What of the sink's account is of the asides. What was not whole is not told twice.
    pub fn asides(&self) -> Account {
        Account { of: self.of.get(SOURCES as usize..).unwrap_or_default().to_vec(), corrupted: 0 }
    }

    /// Notes a message: whose and its number, or that it was not whole.
    pub fn note(&mut self, message: Option<(u32, u64)>) {
        let parts: usize = self.of.iter().map(|of| of.parts.len()).sum();
        match message.and_then(|(source, sequence)| Some((self.of.get_mut(source as usize)?, sequence))) {
            Some((of, sequence)) => of.note(sequence, PARTS_MAX.saturating_sub(parts)),
            None => self.corrupted += 1,
        }
    }
}

impl OfSource {
    fn new() -> OfSource {
        OfSource { end: 0, parts: Vec::new(), next: 0, duplicated: 0, reordered: 0, beyond: 0 }
    }

    /// Notes a number, where there is room for so many parts more.
    fn note(&mut self, sequence: u64, room: usize) {
        let (place, bit) = (sequence / PART, 1 << (sequence % PART));
        if place >= self.end {
            if place - self.end >= room as u64 {
                self.beyond += 1;
                return;
            }
            self.parts.extend((self.end..=place).map(|place| Part { place, came: 0 }));
            self.end = place + 1;
        }
        let Ok(at) = self.parts.binary_search_by_key(&place, |part| part.place) else {
            self.duplicated += 1;
            return;
        };
        let came = &mut self.parts[at].came;
        if *came & bit != 0 {
            self.duplicated += 1;
            return;
        }
        *came |= bit;
        if *came == u64::MAX {
            self.parts.remove(at);
        }
        self.reordered += u64::from(sequence < self.next);
        self.next = self.next.max(sequence + 1);
    }

    /// How many different numbers have come.
    pub fn came(&self) -> u64 {
        let missing = self.parts.iter().map(|part| u64::from(part.came.count_zeros())).sum();
        self.end.saturating_mul(PART).saturating_sub(missing)
    }

    /// How many of the first `sent` numbers have not come, and how many came that are not among these.
    pub fn compared_with(&self, sent: u64) -> (u64, u64) {
        let missing = |part: &Part| {
            let numbers = part.place * PART..(part.place + 1) * PART;
            numbers.filter(|&n| n < sent && part.came & 1 << (n % PART) == 0).count() as u64
        };
        let lost = self.parts.iter().map(missing).sum::<u64>() + sent.saturating_sub(self.end * PART);
        (lost, self.came().saturating_sub(sent.saturating_sub(lost)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Numbers below this have room for gaps everywhere.
    const SCATTERED: u64 = PARTS_MAX as u64 * PART;

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
        sequences.iter().for_each(|&n| of.note(n, PARTS_MAX - of.parts.len()));
        assert_eq!(of.beyond, 0);
        let (lost, unsent) = of.compared_with(sent);
        (lost, of.duplicated, of.reordered, unsent)
    }

    proptest! {
        #[test]
        fn account_is_exact_whatever_comes(
            sequences in prop::collection::vec(0..SCATTERED, 0..300), sent in 0..2 * SCATTERED,
        ) {
            prop_assert_eq!(judged(&sequences, sent), oracle(&sequences, sent));
        }

        #[test]
        fn account_of_many_stays_exact_however_late_some_come(
            count in 1u64..50_000, swaps in prop::collection::vec((any::<prop::sample::Index>(), 0usize..50_000), 0..50),
            twice in prop::collection::vec(any::<prop::sample::Index>(), 0..20), left_out: Option<prop::sample::Index>,
        ) {
            let mut sequences: Vec<u64> = (0..count).collect();
            for (at, by) in swaps {
                let at = at.index(sequences.len());
                let other = (at + by).min(sequences.len() - 1);
                let late = sequences.remove(at);
                sequences.insert(other, late);
            }
            for at in twice {
                let again = sequences[at.index(sequences.len())];
                sequences.push(again);
            }
            if let Some(at) = left_out {
                let lost = at.index(count as usize) as u64;
                sequences.retain(|&n| n != lost);
            }
            prop_assert_eq!(judged(&sequences, count), oracle(&sequences, count));
        }
    }

    #[test]
    fn what_there_are_too_many_gaps_for_is_said_and_counts_as_lost() {
        let mut account = Account::new(2);
        account.note(Some((0, 0)));
        let first_beyond = PARTS_MAX as u64 * PART;
        account.note(Some((0, first_beyond)));
        account.note(Some((1, first_beyond - PART)));
        let of =
            |source: usize| (account.of[source].beyond, account.of[source].compared_with(first_beyond + 1));
        assert_eq!(of(0), (1, (first_beyond, 0)));
        assert_eq!(of(1), (1, (first_beyond + 1, 0)), "the room is that of all together");
    }

    #[test]
    fn message_that_is_not_whole_or_of_no_source_is_corrupted() {
        let mut account = Account::new(2);
        account.note(None);
        account.note(Some((2, 0)));
        assert_eq!((account.corrupted, account.of[0].came(), account.of[1].came()), (2, 0, 0));
    }

    #[test]
    fn fullest_account_fits_a_state() {
        let mut account = Account::of_sink();
        account.note(Some((0, PARTS_MAX as u64 * PART - 1)));
        assert_eq!(account.of[0].parts.len(), PARTS_MAX);
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&account).expect("archived");
        assert!(bytes.len() + shoal_runtime::state::VALUE <= shoal_runtime::layout::STATE_BYTES as usize);
    }

    #[test]
    fn asides_of_a_source_stand_behind_the_results_of_all() {
        let mut account = Account::of_sink();
        account.note(Some((SOURCES - 1, 0)));
        account.note(Some((SOURCES, 0)));
        account.note(None);
        let came = |account: &Account| account.of.iter().map(OfSource::came).collect::<Vec<_>>();
        assert_eq!((came(&account), came(&account.asides())), (vec![0, 1, 1, 0], vec![1, 0]));
        assert_eq!(account.asides().corrupted, 0);
    }
}
