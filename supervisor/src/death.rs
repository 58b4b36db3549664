//! The proof of a death, and the verdict that follows from the dead incarnation's own words. Pure but for the seal.

use shoal_runtime::Region;
use shoal_runtime::board::{Verdict, VerdictKind};
use shoal_runtime::commit::{self, Key, Record};
use shoal_runtime::cursor::{FRAME_ALIGN_BYTES, HEADER_BYTES};
use shoal_runtime::layout::{LaneShape, SegmentShape};
use shoal_runtime::mark::Place;

/// No lane gets this far; what says so lies, and its successors would overflow.
const POSITION_MAX: u64 = 1 << 61;

/// What is known of a lane or an input apart from the dead's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where its verdict put it when this incarnation began.
    pub began: Place,
    /// It cannot lie before this: what readers have accepted of a lane.
    pub least: Place,
    /// It cannot lie behind this: what a producer has committed for an input.
    pub most: Option<Place>,
}

/// Writes the verdict on an incarnation whose death is proved.
///
/// `segment` is `None` when it never began: then everything stands as it was. If its words contradict each other or what is
/// known, the verdict is `corrupt`. Its lanes end a whole ring behind what readers have accepted, so behind anything that a reader
/// may have taken meanwhile: they take what commit words prove and count the rest as missed. Its cursors stand where its words
/// are possible, else at the end of what its producers have committed: what lies before may be overwritten already.
pub fn verdict(
    generation: u32,
    segment: Option<(&Region, &SegmentShape)>,
    lanes: &[Bounds],
    inputs: &[Bounds],
) -> Verdict {
    let as_it_was = |bounds: &[Bounds]| bounds.iter().map(|b| b.began).collect();
    let Some((region, shape)) = segment else {
        let kind = VerdictKind::Committed;
        return Verdict { generation, kind, lanes: as_it_was(lanes), inputs: as_it_was(inputs) };
    };
    let record = commit::read(region, shape).ok();
    let place = |key, b| record.as_ref().and_then(|record| place(record, region, shape, key, b));
    let lane_places: Vec<_> = lanes.iter().enumerate().map(|(i, b)| place(Key::Lane(i), b)).collect();
    let input_places: Vec<_> = inputs.iter().enumerate().map(|(i, b)| place(Key::Input(i), b)).collect();
    let sound = lane_places.iter().chain(&input_places).all(Option::is_some);
    let past_all = |(b, lane): (&Bounds, &LaneShape)| {
        let accepted = later(b.began, b.least);
        let messages = lane.capacity_bytes / FRAME_ALIGN_BYTES;
        Place { position: accepted.position + lane.capacity_bytes, sequence: accepted.sequence + messages }
    };
    let lanes = match sound {
        true => lane_places.into_iter().flatten().collect(),
        false => lanes.iter().zip(&shape.lanes).map(past_all).collect(),
    };
    let input = |(place, b): (Option<Place>, &Bounds)| place.or(b.most).unwrap_or(b.began);
    let inputs = input_places.into_iter().zip(inputs).map(input).collect();
    let kind = if sound { VerdictKind::Committed } else { VerdictKind::Corrupt };
    Verdict { generation, kind, lanes, inputs }
}

fn later(a: Place, b: Place) -> Place {
    if b.position > a.position { b } else { a }
}

/// The committed place of a lane or an input, if it is possible.
fn place(record: &Record, region: &Region, shape: &SegmentShape, key: Key, bounds: &Bounds) -> Option<Place> {
    let place = commit::committed_with(record, region, shape, key).ok()?;
    let possible = place.position.is_multiple_of(FRAME_ALIGN_BYTES)
        && place.position >= bounds.began.position
        && place.sequence >= bounds.began.sequence
        && place.position >= bounds.least.position
        && bounds.most.is_none_or(|most| place.position <= most.position)
        && place.position < POSITION_MAX
        && place.sequence - bounds.began.sequence <= (place.position - bounds.began.position) / HEADER_BYTES;
    possible.then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_runtime::Incarnation;
    use shoal_runtime::layout::WhenFull;
    use shoal_runtime::segment::{self, Origin};

    fn at(position: u64, sequence: u64) -> Place {
        Place { position, sequence }
    }

    fn dead() -> (Region, SegmentShape) {
        let lane = LaneShape { capacity_bytes: 4096, when_full: WhenFull::Block, channel: 0 };
        let shape = SegmentShape { lanes: vec![lane], input_count: 1, state_bytes: 0 };
        let incarnation = Incarnation { agent: 0, generation: 4 };
        let origin = Origin {
            swarm: 1,
            incarnation,
            lanes: vec![at(4160, 2)],
            inputs: vec![at(8192, 9)],
            state: Vec::new(),
        };
        (segment::heap(&shape, &origin), shape)
    }

    fn bounds(least: u64, most: Option<u64>) -> ([Bounds; 1], [Bounds; 1]) {
        let lane = Bounds { began: at(4160, 2), least: at(least, 3), most: None };
        let most = most.map(|position| at(position, 60));
        let input = Bounds { began: at(8192, 9), least: at(0, 0), most };
        ([lane], [input])
    }

    #[test]
    fn verdict_takes_the_record_where_it_is_ahead_of_the_marks() {
        let (region, shape) = dead();
        let mut committer = commit::Committer::new(&region, &shape, 4);
        committer.commit(&[(Key::Lane(0), at(4224, 3)), (Key::Input(0), at(8256, 10))]);
        let (lanes, inputs) = bounds(0, Some(9000));
        let verdict = verdict(4, Some((&region, &shape)), &lanes, &inputs);
        assert_eq!(verdict.kind, VerdictKind::Committed);
        assert_eq!((verdict.lanes, verdict.inputs), (vec![at(4224, 3)], vec![at(8256, 10)]));
    }

    #[test]
    fn words_that_readers_or_producers_contradict_are_corrupt_and_lose_nothing_that_was_accepted() {
        let (region, shape) = dead();
        for (least, most) in [(5000, None), (0, Some(8000))] {
            let (lanes, inputs) = bounds(least, most);
            let verdict = verdict(4, Some((&region, &shape)), &lanes, &inputs);
            assert_eq!(verdict.kind, VerdictKind::Corrupt);
            assert_eq!(
                verdict.lanes[0].position,
                least.max(4160) + 4096,
                "behind all that a reader may hold"
            );
            assert_eq!(verdict.inputs[0], most.map_or(at(8192, 9), |most| at(most, 60)));
        }
    }

    #[test]
    fn incarnation_that_never_began_changes_nothing() {
        let (lanes, inputs) = bounds(0, None);
        let verdict = verdict(5, None, &lanes, &inputs);
        assert_eq!((verdict.lanes, verdict.inputs), (vec![at(4160, 2)], vec![at(8192, 9)]));
    }
}
