//! A supervisor's journal: what its successor must know, in memory that outlives it.
//!
//! ```text
//!   plan             how many words, records and series there are, and how large
//!   words            one by one: counters and flags that stand for themselves
//!   series           values that are only ever added: a count, then the values
//!   record 0         turn │ slot A: sequence, length, checksum, bytes │ slot B: the same
//!   record 1 …       the slots are written alternately; `turn` names the one that holds
//!   long ones        two slots more for each record, for what is longer than the others have room for
//! ```
//! Most records are a few hundred bytes long, and might become many thousands: those lie close together, so that a page holds several of
//! them, and the room for what they might become is never touched.
//!
//! The keeper maps it before it forks the first supervisor and writes only words; the living supervisor writes everything else. It
//! has no name and no descriptor. One that is made later (for a swarm that is changed) has a descriptor, by which a successor finds it;
//! its plan lies in itself. What a record's bytes mean is the supervisor's business.

use crate::region::Region;
use crate::segment;
use crate::sync::Ordering;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a journal begins with.
const MAGIC: u64 = u64::from_le_bytes(*b"shoaljnl");
/// Words of a plan before the sizes: the magic, then how many words, records and series.
const PLAN_WORDS: usize = 4;
/// More of anything is no plan.
const PLAN_MAX: u64 = 1 << 24;

/// Bytes before a slot's own: sequence, length, checksum, and one word to keep the bytes 16-aligned.
const SLOT_HEAD_BYTES: usize = 32;
/// Bytes before a record's slots: the word that names the one that holds, and room to keep lines apart.
const RECORD_HEAD_BYTES: usize = 64;

/// Bytes of a record that its first two slots have room for.
const SHORT_BYTES_MAX: usize = 672;

/// A record did not fit the room that was planned for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Its length.
    pub bytes: usize,
    /// The room.
    pub max_bytes: usize,
}

/// Where a series lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: usize,
    max_bytes: usize,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    /// The word that names the slot that holds; behind it the two for short ones.
    offset: usize,
    short_max: usize,
    /// The two for long ones, if there are any.
    long_at: usize,
    max_bytes: usize,
}

impl Slots {
    fn short_bytes(short_max: usize) -> usize {
        RECORD_HEAD_BYTES + 2 * (SLOT_HEAD_BYTES + short_max)
    }

    fn slot(self, turn: Turn) -> usize {
        let (at, room) = match turn.long {
            false => (self.offset + RECORD_HEAD_BYTES, self.short_max),
            true => (self.long_at, self.max_bytes),
        };
        at + (turn.count % 2) as usize * (SLOT_HEAD_BYTES + room)
    }
}

/// How often a record was written, and where it was last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    count: u64,
    long: bool,
}

impl Turn {
    fn of(word: u64) -> Turn {
        Turn { count: word >> 1, long: word & 1 == 1 }
    }

    fn word(self) -> u64 {
        self.count << 1 | u64::from(self.long)
    }
}

/// How large everything is, and where it lies. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    /// What the journal begins with.
    plan: Vec<u64>,
    /// Where the words lie.
    words_at: usize,
    records: Vec<Slots>,
    series: Vec<Place>,
    total_bytes: usize,
}

impl Layout {
    fn of(words: usize, records_bytes_max: &[usize], series_values_max: &[usize]) -> Layout {
        let counts = [words, records_bytes_max.len(), series_values_max.len()];
        let numbers = counts.iter().chain(records_bytes_max).chain(series_values_max);
        let plan: Vec<u64> = std::iter::once(MAGIC).chain(numbers.map(|number| *number as u64)).collect();
        let words_at = (8 * plan.len()).next_multiple_of(64);
        let mut end = (words_at + words * 8).next_multiple_of(64);
        let mut place = |max_bytes: usize, bytes: &dyn Fn(usize) -> usize| {
            let max_bytes = max_bytes.next_multiple_of(64);
            let offset = end;
            end = (offset + bytes(max_bytes)).next_multiple_of(64);
            Place { offset, max_bytes }
        };
        let series: Vec<Place> =
            series_values_max.iter().map(|count| place(count * 8, &|bytes| 64 + bytes)).collect();
        let short = records_bytes_max.iter().map(|max| {
            let short_max = max.next_multiple_of(64).min(SHORT_BYTES_MAX);
            let Place { offset, .. } = place(short_max, &|_| Slots::short_bytes(short_max));
            (offset, short_max, *max)
        });
        let short: Vec<_> = short.collect();
        let records = short.into_iter().map(|(offset, short_max, max)| {
            let is_short = max.next_multiple_of(64) <= short_max;
            let both = |bytes: usize| if is_short { 0 } else { 2 * (SLOT_HEAD_BYTES + bytes) };
            let Place { offset: long_at, max_bytes } = place(max, &both);
            Slots { offset, short_max, long_at, max_bytes }
        });
        let records = records.collect();
        Layout { plan, words_at, records, series, total_bytes: end.max(64) }
    }

    /// What the plan at the beginning of a journal says; `None` when that is none.
    fn read(word: impl Fn(usize) -> Option<u64>) -> Option<Layout> {
        let count = |at: usize| Some(word(at).filter(|count| *count <= PLAN_MAX)? as usize);
        if word(0)? != MAGIC {
            return None;
        }
        let (words, records, series) = (count(1)?, count(2)?, count(3)?);
        let size = |at: usize| word(PLAN_WORDS + at)?.try_into().ok().filter(|size: &usize| *size < 1 << 40);
        let sizes: Vec<usize> = (0..records + series).map(size).collect::<Option<_>>()?;
        Some(Layout::of(words, &sizes[..records], &sizes[records..]))
    }
}

/// The journal. Forked children have the same one.
pub struct Journal {
    region: Region,
    words: usize,
    words_at: usize,
    records: Vec<Slots>,
    series: Vec<Place>,
}

impl Journal {
    /// Makes an empty journal of so many words, with records of up to so many bytes, and series of up to so many values. Pages that
    /// are never written cost nothing.
    ///
    /// # Errors
    /// No address space.
    pub fn create(
        words: usize,
        records_bytes_max: &[usize],
        series_values_max: &[usize],
    ) -> io::Result<Journal> {
        let layout = Layout::of(words, records_bytes_max, series_values_max);
        let region = Region::map_inherited(layout.total_bytes)?;
        Ok(Self::begin(region, words, layout))
    }

    /// The same with a descriptor, for who cannot inherit it.
    ///
    /// # Errors
    /// No descriptors, memory or address space left.
    pub fn create_named(words: usize, records_bytes_max: &[usize]) -> io::Result<(Journal, OwnedFd)> {
        let layout = Layout::of(words, records_bytes_max, &[]);
        let fd = segment::create_journal(layout.total_bytes)?;
        let region = Region::map_writable_sparsely(&fd, layout.total_bytes)?;
        Ok((Self::begin(region, words, layout), fd))
    }

    /// Opens one by its descriptor.
    ///
    /// # Errors
    /// It is none, or the kernel's refusal.
    pub fn open(fd: impl AsFd) -> io::Result<Journal> {
        let size = rustix::fs::fstat(&fd)?.st_size as usize;
        let none = || io::Error::other("this descriptor is not of a journal");
        if size < 64 {
            return Err(none());
        }
        let region = Region::map_writable_sparsely(&fd, size)?;
        // Relaxed: written before anybody was told of it.
        let word = |at: usize| (at * 8 + 8 <= size).then(|| region.word(at * 8).load(Ordering::Relaxed));
        let layout = Layout::read(word).filter(|layout| layout.total_bytes == size).ok_or_else(none)?;
        let words = layout.plan[1] as usize;
        Ok(Self::with(region, words, layout))
    }

    fn begin(region: Region, words: usize, layout: Layout) -> Journal {
        for (at, value) in layout.plan.iter().enumerate() {
            // Relaxed: nobody was told of it yet.
            region.word(at * 8).store(*value, Ordering::Relaxed);
        }
        Self::with(region, words, layout)
    }

    fn with(region: Region, words: usize, layout: Layout) -> Journal {
        let Layout { words_at, records, series, .. } = layout;
        Journal { region, words, words_at, records, series }
    }

    /// Gives back the pages that this process has of it, for as long as it does not look at them: all that was written stays.
    pub fn leave_pages(&self) {
        self.region.leave_pages();
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// A word that stands for itself.
    pub fn word(&self, index: usize) -> u64 {
        assert!(index < self.words);
        // Acquire: pairs with the Release in `set_word`, by another process.
        self.region.word(self.words_at + index * 8).load(Ordering::Acquire)
    }

    /// Writes such a word.
    pub fn set_word(&self, index: usize, value: u64) {
        assert!(index < self.words);
        // Release: pairs with the Acquire in `word`.
        self.region.word(self.words_at + index * 8).store(value, Ordering::Release);
    }

    /// Writes a record; false when it holds these bytes already.
    ///
    /// # If we die here
    /// The record holds what it held before, or all of this.
    ///
    /// # Errors
    /// It is longer than was planned; then it holds what it held before.
    pub fn write(&self, record: usize, bytes: &[u8]) -> Result<bool, TooLong> {
        let place = self.records[record];
        if bytes.len() > place.max_bytes {
            return Err(TooLong { bytes: bytes.len(), max_bytes: place.max_bytes });
        }
        // Relaxed: one writer, and whoever reads it later was forked after this process ended.
        let turn = Turn::of(self.region.word(place.offset).load(Ordering::Relaxed));
        let sum = checksum(bytes);
        if turn.count > 0 {
            let [_, length, held] = self.head(place.slot(turn));
            if (length, held) == (bytes.len() as u64, sum) {
                return Ok(false);
            }
        }
        let next = Turn { count: turn.count + 1, long: bytes.len() > place.short_max };
        let at = place.slot(next);
        for (word, value) in [next.count, bytes.len() as u64, sum].into_iter().enumerate() {
            self.region.word(at + word * 8).store(value, Ordering::Relaxed);
        }
        self.region.copy_in(at + SLOT_HEAD_BYTES, bytes);
        // Release: publishes the slot; a death before leaves the other one, whole.
        self.region.word(place.offset).store(next.word(), Ordering::Release);
        Ok(true)
    }

    /// What a record holds; `None` when it was never written, or somebody wrote over it.
    pub fn read(&self, record: usize) -> Option<rkyv::util::AlignedVec<16>> {
        let place = self.records[record];
        // Acquire: pairs with the Release in `write`.
        let turn = Turn::of(self.region.word(place.offset).load(Ordering::Acquire));
        let at = place.slot(turn);
        let room = if turn.long { place.max_bytes } else { place.short_max };
        let [sequence, length, sum] = self.head(at);
        if turn.count == 0 || sequence != turn.count || length as usize > room {
            return None;
        }
        let mut bytes = rkyv::util::AlignedVec::with_capacity(length as usize);
        bytes.resize(length as usize, 0);
        self.region.copy_out(at + SLOT_HEAD_BYTES, &mut bytes);
        (checksum(&bytes) == sum).then_some(bytes)
    }

    fn head(&self, at: usize) -> [u64; 3] {
        // Relaxed: ordered by the word that names the slot.
        [0, 8, 16].map(|offset| self.region.word(at + offset).load(Ordering::Relaxed))
    }

    /// Adds values to a series; what there is no room for is not kept.
    ///
    /// # If we die here
    /// All of them are there, or none.
    pub fn extend(&self, series: usize, values: &[u64]) {
        let place = self.series[series];
        // Relaxed: one writer.
        let count = self.region.word(place.offset).load(Ordering::Relaxed) as usize;
        let room = place.max_bytes / 8 - count;
        let values = &values[..values.len().min(room)];
        for (index, value) in values.iter().enumerate() {
            self.region.word(place.offset + 64 + (count + index) * 8).store(*value, Ordering::Relaxed);
        }
        // Release: publishes the values.
        self.region.word(place.offset).store((count + values.len()) as u64, Ordering::Release);
    }

    /// How many values a series holds.
    pub fn series_len(&self, series: usize) -> usize {
        let place = self.series[series];
        // Acquire: pairs with the Release in `extend`.
        (self.region.word(place.offset).load(Ordering::Acquire) as usize).min(place.max_bytes / 8)
    }

    /// The values of a series.
    pub fn series(&self, series: usize) -> Vec<u64> {
        let at = self.series[series].offset + 64;
        // Relaxed: ordered by the count.
        (0..self.series_len(series)).map(|i| self.region.word(at + i * 8).load(Ordering::Relaxed)).collect()
    }
}

/// Eight bytes at a time: a record is a few thousand bytes, written often.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn record_holds_what_was_written_last_and_only_what_fits(
            writes in proptest::collection::vec((0usize..4, prop_oneof![0usize..200, 600usize..2100], any::<u8>()), 0..40)
        ) {
            let rooms = [64, 128, 192, 2048];
            let journal = Journal::create(8, &rooms, &[]).expect("made");
            let mut held: [Option<Vec<u8>>; 4] = Default::default();
            for (record, length, byte) in writes {
                let bytes = vec![byte; length];
                let fits = bytes.len() <= rooms[record];
                let changes = held[record].as_ref() != Some(&bytes);
                match journal.write(record, &bytes) {
                    Ok(written) => {
                        prop_assert!(fits);
                        prop_assert_eq!(written, changes);
                        held[record] = Some(bytes);
                    }
                    Err(_) => prop_assert!(!fits),
                }
                for (record, held) in held.iter().enumerate() {
                    prop_assert_eq!(journal.read(record).map(|bytes| bytes.to_vec()), held.clone());
                }
            }
        }
    }

    #[test]
    fn writer_that_dies_before_the_last_store_leaves_the_record_before_whole() {
        let journal = Journal::create(8, &[64], &[]).expect("made");
        journal.write(0, b"first").expect("it fits");
        journal.write(0, b"second").expect("it fits");
        // The death: everything of the third is written but the word that names its slot.
        let turn = journal.region.word(journal.records[0].offset).load(Ordering::Relaxed);
        journal.write(0, b"third").expect("it fits");
        journal.region.word(journal.records[0].offset).store(turn, Ordering::Relaxed);
        assert_eq!(journal.read(0).as_deref(), Some(&b"second"[..]));
        journal.write(0, b"fourth").expect("it fits");
        assert_eq!(journal.read(0).as_deref(), Some(&b"fourth"[..]));
    }

    #[test]
    fn writer_that_dies_in_a_long_record_leaves_none_behind_that_a_short_one_is_taken_for() {
        let journal = Journal::create(8, &[2048], &[]).expect("made");
        let long = vec![7; 2000];
        journal.write(0, b"short").expect("it fits");
        let turn = journal.region.word(journal.records[0].offset).load(Ordering::Relaxed);
        journal.write(0, &long).expect("it fits");
        assert_eq!(journal.read(0).as_deref(), Some(&long[..]));
        // The death, again before the last store; the next writer's record has the same number, and lies elsewhere.
        journal.region.word(journal.records[0].offset).store(turn, Ordering::Relaxed);
        assert_eq!(journal.read(0).as_deref(), Some(&b"short"[..]));
        journal.write(0, b"shorter").expect("it fits");
        assert_eq!(journal.read(0).as_deref(), Some(&b"shorter"[..]));
    }

    #[test]
    fn short_records_lie_close_together_whatever_room_they_have() {
        let layout = Layout::of(8, &[1 << 20; 1000], &[]);
        let short = layout.records.windows(2).map(|two| two[1].offset - two[0].offset).max();
        assert_eq!(short, Some(Slots::short_bytes(SHORT_BYTES_MAX)));
        assert!(layout.records.iter().all(|record| record.long_at > layout.records[999].offset));
    }

    #[test]
    fn record_that_was_written_over_is_none() {
        let journal = Journal::create(8, &[64], &[]).expect("made");
        assert!(journal.read(0).is_none(), "it was never written");
        journal.write(0, b"whole and sound").expect("it fits");
        let at = journal.records[0].slot(Turn { count: 1, long: false }) + SLOT_HEAD_BYTES;
        journal.region.word(at).store(7, Ordering::Relaxed);
        assert!(journal.read(0).is_none());
    }

    #[test]
    fn journal_is_opened_by_its_descriptor_with_all_that_it_holds() {
        let (journal, fd) = Journal::create_named(3, &[64, 200]).expect("made");
        journal.set_word(2, 77);
        journal.write(1, b"held").expect("it fits");
        drop(journal);
        let again = Journal::open(&fd).expect("opened");
        assert_eq!((again.word(2), again.records()), (77, 2));
        assert_eq!((again.read(0).as_deref(), again.read(1).as_deref()), (None, Some(&b"held"[..])));
        again.write(1, b"more").expect("it fits");
        assert_eq!(again.read(1).as_deref(), Some(&b"more"[..]));
    }

    #[test]
    fn what_is_no_journal_is_not_opened() {
        let (journal, fd) = Journal::create_named(3, &[64, 200]).expect("made");
        for (at, value) in [(0, 7), (1, 4), (2, 9), (2, u64::MAX), (3, 1), (4, u64::MAX), (5, 4096)] {
            let held = journal.region.word(at * 8).load(Ordering::Relaxed);
            journal.region.word(at * 8).store(value, Ordering::Relaxed);
            assert_eq!(Journal::open(&fd).is_ok(), (at, value) == (1, 4), "word {at} is {value}");
            journal.region.word(at * 8).store(held, Ordering::Relaxed);
        }
        let other = segment::create_journal(64).expect("made");
        assert!(Journal::open(&other).is_err());
    }

    #[test]
    fn pages_that_are_left_hold_what_was_written() {
        for journal in [
            Journal::create(3, &[64, 20_000], &[8]).expect("made"),
            Journal::create_named(3, &[64, 20_000]).map(|(journal, _)| journal).expect("made"),
        ] {
            let long = vec![7; 20_000];
            journal.set_word(2, 77);
            journal.write(0, b"short").expect("it fits");
            journal.write(1, &long).expect("it fits");
            journal.leave_pages();
            assert_eq!(journal.word(2), 77);
            assert_eq!(
                (journal.read(0).as_deref(), journal.read(1).as_deref()),
                (Some(&b"short"[..]), Some(&long[..]))
            );
        }
    }

    #[test]
    fn series_keeps_what_there_is_room_for() {
        let journal = Journal::create(8, &[], &[8, 3]).expect("made");
        journal.extend(0, &[1, 2]);
        journal.extend(1, &[9]);
        journal.extend(0, &[3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(journal.series(0), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(journal.series(1), [9]);
        assert_eq!((journal.series_len(0), journal.series_len(1)), (8, 1));
        journal.set_word(3, 77);
        assert_eq!((journal.word(3), journal.word(4)), (77, 0));
    }
}
