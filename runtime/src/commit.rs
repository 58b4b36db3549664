//! The commit record: what a step changes on any number of lanes becomes real with one store.
//!
//! A step writes its frames past the tails, then a record slot naming the new tail of every lane it sent on and the new
//! cursor of the input it took, then `commit.store(n)`. Marks and frame headers follow, as the fast path. The truth about a
//! lane or an input is the later of its mark and the last record, whoever asks and whenever.

use crate::bug::{Bug, placed};
use crate::layout::{RECORD_SLOTS, SegmentShape, desk, record};
use crate::mark::{self, Place};
use crate::region::{Region, Row, Table, Words};
use crate::sync::{Ordering, Site, fence, ordering};

/// What an entry of a record moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// The tail of a lane that the incarnation writes.
    Lane(usize),
    /// The cursor of a lane that it reads.
    Input(usize),
    /// The message of a lane that it claimed in its group, and is done with: its own place. It has no mark.
    Claim(usize),
}

impl Key {
    fn pack(self) -> u64 {
        match self {
            Key::Lane(i) => (i as u64) << 2,
            Key::Input(i) => (i as u64) << 2 | 1,
            Key::Claim(i) => (i as u64) << 2 | 2,
        }
    }

    fn mark_offset(self, shape: &SegmentShape) -> Option<usize> {
        match self {
            Key::Lane(i) => Some(shape.lane_offset(i) + crate::layout::lane::TAIL),
            Key::Input(i) => Some(shape.input_offset(i) + crate::layout::input::CURSOR),
            Key::Claim(_) => None,
        }
    }
}

/// Writes the commit records of its own incarnation.
pub struct Committer {
    number_word: Row<1>,
    slots: Table<{ RECORD_SLOTS as usize }>,
    generation: u64,
    number: u64,
    state_slot: u64,
}

impl Committer {
    /// Begins the records of a fresh segment.
    pub fn new(region: &Region, shape: &SegmentShape, generation: u32) -> Self {
        Committer {
            number_word: Row::new(region, desk::COMMIT),
            slots: Table::new(
                region,
                shape.records_offset(),
                shape.record_bytes(),
                record::ENTRIES + shape.record_entries() * record::ENTRY_BYTES,
            ),
            generation: u64::from(generation),
            number: 0,
            state_slot: 1,
        }
    }

    /// Steps committed by this incarnation.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Says which state slot holds from the next commit on: 1 or 2; an unchanged state keeps its slot.
    #[inline]
    pub fn name_state(&mut self, slot: u64) {
        self.state_slot = slot;
    }

    /// Begins the record of the next step.
    #[inline(always)]
    pub fn draft(&mut self) -> Draft<'_> {
        let number = self.number + 1;
        // Release fence: pairs with the Acquire fence in `read`. A reader that sees any word of this slot change also
        // sees, when it looks again, the number of the step before, and does not take the mixture for a record.
        fence(Site::RecordFence, Ordering::Release);
        if placed(Bug::CommitBeforeFields) {
            self.number_word.word(0).store(number, Ordering::Release);
        }
        self.number = number;
        let Committer { number_word, slots, generation, state_slot, .. } = self;
        let (slot, generation, state_slot) = (slots.row(slot_of(number)), *generation, *state_slot);
        Draft {
            number_word,
            slot,
            generation,
            state_slot,
            number,
            count: 0,
            sum: Checksum::new(number, generation),
        }
    }

    /// Commits a record of these entries: see [`Draft::commit`].
    ///
    /// # If we die here
    /// As in [`Draft::commit`].
    ///
    /// # Panics
    /// As [`Draft::add`].
    pub fn commit(&mut self, entries: &[(Key, Place)]) {
        let mut draft = self.draft();
        entries.iter().for_each(|(key, place)| draft.add(*key, *place));
        draft.commit();
    }
}

/// A record that is being written. One that is not committed uses up a number.
pub struct Draft<'a> {
    number_word: &'a Row<1>,
    slot: Words<'a>,
    generation: u64,
    state_slot: u64,
    number: u64,
    count: usize,
    sum: Checksum,
}

impl Draft<'_> {
    /// Adds an entry.
    ///
    /// # If we die here
    /// Nothing: the slot's number is not committed.
    ///
    /// # Panics
    /// With more entries than the segment has lanes and inputs: that is our own bug.
    #[inline(always)]
    pub fn add(&mut self, key: Key, place: Place) {
        let words = [key.pack(), place.position, place.sequence];
        // Relaxed: published by the Release of the number in `commit`.
        self.slot.store((record::ENTRIES + self.count * record::ENTRY_BYTES) / 8, words);
        self.sum.add(words);
        self.count += 1;
    }

    /// Ends the record and commits it. The caller publishes marks and headers afterwards.
    ///
    /// # If we die here
    /// Before the store of the number nothing of the step exists; after it all of it does, marks and headers or not.
    #[inline(always)]
    pub fn commit(mut self) {
        let (number, count) = (self.number, self.count as u64);
        self.sum.add([self.state_slot, count, 0]);
        // Relaxed: published by the Release of the number below.
        self.slot.store(0, [number, self.generation, count, self.sum.0, self.state_slot]);
        // Release: pairs with the Acquire in `read` (peers before they sleep, supervisor after a death); publishes the
        // slot, and every frame, fact and payload that the step wrote. This store is the commit.
        self.number_word.word(0).store(number, ordering(Site::CommitStore, Ordering::Release));
    }
}

const _: () = assert!(
    record::NUMBER == 0
        && record::GENERATION == 8
        && record::COUNT == 16
        && record::CHECKSUM == 24
        && record::STATE_SLOT == 32,
    "`Draft::commit` stores them as a row"
);

/// The slot of a step's record.
#[inline]
fn slot_of(number: u64) -> usize {
    if placed(Bug::OneRecordSlot) { 0 } else { (number % RECORD_SLOTS) as usize }
}

/// A sum of products: it catches a slot that is torn or scribbled over, not a liar. Every word is multiplied by odd factors, so a change
/// of one word always shows; three words at a time do not wait for each other.
#[derive(Clone, Copy)]
struct Checksum(u64);

impl Checksum {
    #[inline(always)]
    fn new(number: u64, generation: u64) -> Self {
        let mut sum = Checksum(0x5348_4f41_4c31_0001);
        sum.add([number, generation, 0]);
        sum
    }

    #[inline(always)]
    fn add(&mut self, words: [u64; 3]) {
        let [first, second, third] = words;
        let sum = self.0.wrapping_add(first);
        let sum = sum.wrapping_add(second.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let sum = sum.wrapping_add(third.wrapping_mul(0x6a09_e667_f3bc_c909));
        self.0 = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The last record of a segment could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Its writer commits faster than this reader reads.
    Busy,
    /// Its words contradict each other: its writer scribbled over its own memory.
    Corrupt,
}

/// The last committed record of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Number of the step; 0 when none was committed.
    pub number: u64,
    /// Which state slot holds: 1 or 2.
    pub state_slot: u64,
    entries: Vec<(u64, Place)>,
}

impl Record {
    /// Where the record puts a lane or an input, if it touches it.
    pub fn place(&self, key: Key) -> Option<Place> {
        self.entries.iter().find(|(packed, _)| *packed == key.pack()).map(|(_, place)| *place)
    }
}

/// Reads the last committed record, from a living or a dead segment.
///
/// # Errors
/// [`RecordError`]
pub fn read(region: &Region, shape: &SegmentShape) -> Result<Record, RecordError> {
    let mut record = Record::default();
    read_into(region, shape, &mut record).map(|()| record)
}

fn read_into(region: &Region, shape: &SegmentShape, into: &mut Record) -> Result<(), RecordError> {
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        into.entries.clear();
        // Acquire: pairs with the Release in `commit`.
        into.number = region.word(desk::COMMIT).load(ordering(Site::CommitLoad, Ordering::Acquire));
        if into.number == 0 {
            return Ok(());
        }
        let sound = slot_into(region, shape, into);
        // Acquire fence: pairs with the Release fence in `commit`; the words above were read before the number is
        // read again.
        fence(Site::RecordReadFence, Ordering::Acquire);
        // Relaxed: only compared; the fence orders it.
        let now = region.word(desk::COMMIT).load(Ordering::Relaxed);
        if now.wrapping_sub(into.number) < RECORD_SLOTS - 2 {
            return if sound { Ok(()) } else { Err(RecordError::Corrupt) };
        }
    }
    Err(RecordError::Busy)
}

/// Reads the slot of `into.number`; false when its words contradict each other.
fn slot_into(region: &Region, shape: &SegmentShape, into: &mut Record) -> bool {
    let at = shape.records_offset() + slot_of(into.number) * shape.record_bytes();
    // Relaxed: ordered by the Acquire of the number before and the fence after.
    let word = |offset: usize| region.word(at + offset).load(Ordering::Relaxed);
    let count = word(record::COUNT);
    if word(record::NUMBER) != into.number || count > shape.record_entries() as u64 {
        return false;
    }
    let mut sum = Checksum::new(into.number, word(record::GENERATION));
    for i in 0..count as usize {
        let entry = record::ENTRIES + i * record::ENTRY_BYTES;
        let [key, position, sequence] = [0, 8, 16].map(|o| word(entry + o));
        sum.add([key, position, sequence]);
        into.entries.push((key, Place { position, sequence }));
    }
    into.state_slot = word(record::STATE_SLOT);
    sum.add([into.state_slot, count, 0]);
    (sum.0 == word(record::CHECKSUM) || placed(Bug::ChecksumForgotten)) && matches!(into.state_slot, 1 | 2)
}

/// The committed place of a lane or an input: the later of its mark and the last record.
///
/// # Errors
/// [`RecordError`]; `Busy` also when the mark moved under the reader.
pub fn committed(region: &Region, shape: &SegmentShape, key: Key) -> Result<Place, RecordError> {
    let record = read(region, shape)?;
    committed_with(&record, region, shape, key)
}

/// As [`committed`], with a record that was already read.
///
/// # Errors
/// [`RecordError::Busy`] when the mark moved under the reader, or nothing in it belongs together.
pub fn committed_with(
    record: &Record,
    region: &Region,
    shape: &SegmentShape,
    key: Key,
) -> Result<Place, RecordError> {
    let mark = match key.mark_offset(shape) {
        Some(offset) => mark::read(region, offset).ok_or(RecordError::Busy)?,
        None => Place::default(),
    };
    Ok(match record.place(key) {
        Some(place) if placed(Bug::RecordAlwaysBelieved) => place,
        Some(place) if place.position > mark.position && !placed(Bug::RecordOverlooked) => place,
        _ => mark,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::{LaneShape, WhenFull};
    use proptest::prelude::*;

    fn shape() -> SegmentShape {
        let lane = LaneShape { capacity_bytes: 4096, when_full: WhenFull::Block, channel: 0 };
        SegmentShape { lanes: vec![lane; 2], input_count: 2, state_bytes: 0 }
    }

    proptest! {
        #[test]
        fn the_last_record_reads_as_it_was_written(steps in proptest::collection::vec(
            proptest::collection::vec((0usize..4, 1u64..1 << 40, 0u64..1 << 32), 0..4), 1..20)) {
            let region = Region::heap(shape().ring_offset(0));
            let mut committer = Committer::new(&region, &shape(), 3);
            for (n, entries) in steps.iter().enumerate() {
                let mut expected = std::collections::BTreeMap::new();
                for &(key, position, sequence) in entries {
                    expected.entry(key).or_insert(Place { position, sequence });
                }
                let key_of = |key| if key < 2 { Key::Lane(key) } else { Key::Input(key - 2) };
                let record: Vec<_> = expected.iter().map(|(key, place)| (key_of(*key), *place)).collect();
                committer.commit(&record);
                let record = read(&region, &shape()).expect("nobody writes now");
                prop_assert_eq!(record.number, n as u64 + 1);
                for key in 0..4 {
                    prop_assert_eq!(record.place(key_of(key)), expected.get(&key).copied());
                }
            }
        }

        #[test]
        fn a_record_with_one_flipped_bit_is_corrupt_or_another_number(bit in 0usize..8 * 88) {
            let region = Region::heap(shape().ring_offset(0));
            let mut committer = Committer::new(&region, &shape(), 3);
            let place = |position, sequence| Place { position, sequence };
            committer.commit(&[(Key::Lane(1), place(4112, 1)), (Key::Input(0), place(4128, 2))]);
            let at = shape().records_offset() + shape().record_bytes() + bit / 64 * 8;
            let old = region.word(at).load(Ordering::Relaxed);
            region.word(at).store(old ^ 1 << (bit % 64), Ordering::Relaxed);
            prop_assert!(read(&region, &shape()).is_err());
        }
    }
}
