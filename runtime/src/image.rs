//! What a fresh segment begins with, and a segment on the heap for tests, models and in-process harnesses.

use crate::incarnation::Incarnation;
use crate::layout::{LINE_BYTES, SEGMENT_MAGIC, SegmentShape, VERSION, header, input, lane, recorder};
use crate::mark::{self, Place};
use crate::region::Region;

/// What identifies an incarnation's segment and where its lanes and cursors begin.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Random number of the swarm.
    pub swarm: u64,
    /// Whose segment it is.
    pub incarnation: Incarnation,
    /// Base of each lane.
    pub lanes: Vec<Place>,
    /// First cursor of each input.
    pub inputs: Vec<Place>,
    /// The committed state as its predecessor's whole slot; empty for none.
    pub state: Vec<u8>,
}

/// The words that a fresh segment begins with, by offset.
pub(crate) fn image(shape: &SegmentShape, origin: &Origin) -> Vec<(usize, Vec<u64>)> {
    let mut head = vec![0u64; LINE_BYTES / 8];
    let words = [
        (header::MAGIC, SEGMENT_MAGIC),
        (header::VERSION, VERSION),
        (header::TOTAL_BYTES, shape.total_bytes() as u64),
        (header::SWARM, origin.swarm),
        (header::AGENT, u64::from(origin.incarnation.agent)),
        (header::GENERATION, u64::from(origin.incarnation.generation)),
        (header::LANE_COUNT, shape.lanes.len() as u64),
        (header::INPUT_COUNT, u64::from(shape.input_count)),
        (header::FINGERPRINT, shape.fingerprint()),
        (header::STATE_OFFSET, shape.state_offset() as u64),
        (header::STATE_BYTES, u64::from(shape.state_bytes)),
        (header::RECORDER_OFFSET, recorder::TAKEN as u64),
        (header::RECORDER_BYTES, recorder::BYTES as u64),
    ];
    words.into_iter().for_each(|(offset, value)| head[offset / 8] = value);
    let mut image = vec![(0, head)];
    for (i, cursor) in origin.inputs.iter().enumerate() {
        image.push((shape.input_offset(i) + input::CURSOR, mark::image(*cursor).to_vec()));
    }
    for (i, (base, l)) in origin.lanes.iter().zip(&shape.lanes).enumerate() {
        let facts = [
            shape.ring_offset(i) as u64,
            l.capacity_bytes,
            l.when_full as u64,
            u64::from(l.channel),
            base.position,
            base.sequence,
        ];
        image.push((shape.lane_offset(i) + lane::RING_OFFSET, facts.to_vec()));
        image.push((shape.lane_offset(i) + lane::TAIL, mark::image(*base).to_vec()));
        image.push((shape.lane_offset(i) + lane::FLOOR, vec![base.position]));
    }
    let state = origin.state.chunks_exact(8).take(shape.state_bytes as usize / 8);
    let state = state.map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    image.push((shape.state_offset(), state.collect()));
    image
}

/// A segment on the heap, as `segment::create` and `segment::attach` would give it.
#[cfg(not(loom))]
pub fn heap(shape: &SegmentShape, origin: &Origin) -> Region {
    let region = Region::heap(shape.total_bytes());
    for (offset, words) in image(shape, origin) {
        for (i, word) in words.into_iter().enumerate() {
            // Relaxed: nobody else knows the region yet.
            region.word(offset + i * 8).store(word, crate::sync::Ordering::Relaxed);
        }
    }
    region
}

/// A segment of loom's words, whose writer never dies.
#[cfg(loom)]
pub fn heap(shape: &SegmentShape, origin: &Origin) -> Region {
    mortal(shape, origin, u64::MAX)
}

/// A segment of loom's words, whose writer dies before store number `stores`: later ones are lost.
#[cfg(loom)]
pub fn mortal(shape: &SegmentShape, origin: &Origin, stores: u64) -> Region {
    use crate::layout::{WhenFull, desk, mark, record};
    use crate::region::As;
    let mut modelled = vec![desk::PARKED..desk::PARKED + 8, desk::COMMIT..desk::COMMIT + 8];
    let record_bytes = record::ENTRIES + shape.record_entries() * record::ENTRY_BYTES;
    for slot in 0..crate::layout::RECORD_SLOTS as usize {
        let at = shape.records_offset() + slot * shape.record_bytes();
        modelled.push(at..at + record_bytes);
    }
    for i in 0..shape.input_count as usize {
        let at = shape.input_offset(i) + input::CURSOR;
        modelled.push(at..at + mark::BYTES);
    }
    let mut in_place = Vec::new();
    for (i, l) in shape.lanes.iter().enumerate() {
        let (at, ring) = (shape.lane_offset(i), shape.ring_offset(i));
        modelled.extend([at + lane::WANT..at + lane::WANT + 8, at + lane::TAIL..at + lane::FLOOR + 8]);
        let ring = ring..ring + l.capacity_bytes as usize;
        // On a drop-oldest lane payloads are copied under the writer's hands, by design.
        if l.when_full == WhenFull::DropOldest { modelled.push(ring) } else { in_place.push(ring) }
    }
    let first = image(shape, origin).into_iter();
    let first =
        first.flat_map(|(at, words)| words.into_iter().enumerate().map(move |(i, w)| (at + i * 8, w)));
    let what = |offset: usize| match () {
        () if in_place.iter().any(|range| range.contains(&offset)) => As::InPlace,
        () if modelled.iter().any(|range| range.contains(&offset)) => As::Modelled,
        () => As::Plain,
    };
    Region::of(shape.total_bytes(), &first.collect(), what, stores)
}
