//! A mark: a position and the sequence number that belongs to it, replaced together by one store.
//!
//! The position is the truth. Its sequence stands in whichever of two slots names the same position; the slot that is
//! being written never names the current one, so a death at any instruction leaves a whole pair.

use crate::bug::{Bug, placed};
use crate::layout::mark;
use crate::region::{Region, Row};
use crate::sync::{Ordering, Site, ordering};

/// A position in a lane with the number of the message that begins there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(not(loom), derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize))]
pub struct Place {
    /// Bytes since the lane began.
    pub position: u64,
    /// Messages since the lane began.
    pub sequence: u64,
}

/// Words of a mark.
const WORDS: usize = mark::BYTES / 8;

/// Where a mark lies, and which of its slots is written next: private to its one writer.
pub(crate) struct MarkWriter {
    words: Row<WORDS>,
    slot: usize,
    site: Site,
}

impl MarkWriter {
    /// Takes over a mark that was initialised with its pair in slot 0.
    pub(crate) fn new(region: &Region, offset: usize, site: Site) -> Self {
        MarkWriter {
            words: Row::new(region, offset),
            slot: usize::from(!placed(Bug::MarkFirstSlotFirst)),
            site,
        }
    }

    /// Moves the mark.
    ///
    /// # If we die here
    /// Before the last store the old pair stands whole, after it the new one.
    #[inline]
    pub(crate) fn publish(&mut self, place: Place) {
        // One bit: so it is seen that it lies inside.
        let slot = mark::SLOTS / 8 + (self.slot & 1) * 2;
        let position = self.words.word(mark::POSITION / 8);
        if placed(Bug::MarkPositionFirst) {
            position.store(place.position, Ordering::Release);
        }
        // Relaxed: published by both Releases below.
        self.words.word(slot).store(place.position, Ordering::Relaxed);
        // Release: pairs with the Acquire of the sequence in `read`. A reader that was about to read this slot's former
        // pair, and reads the new sequence, sees that the slot names another position by now.
        self.words.word(slot + 1).store(place.sequence, ordering(Site::MarkSequenceStore, Ordering::Release));
        // Release: pairs with the Acquire of `position` and `read` in other processes; publishes the slot, and for a
        // tail the frames before it, for a cursor that they are no longer read.
        position.store(place.position, ordering(self.site, Ordering::Release));
        self.slot ^= usize::from(!placed(Bug::MarkOneSlot));
    }
}

/// Reads the position of a mark.
#[inline]
pub(crate) fn position(region: &Region, offset: usize, site: Site) -> u64 {
    // Acquire: pairs with the Release in `publish`.
    region.word(offset + mark::POSITION).load(ordering(site, Ordering::Acquire))
}

/// Reads a whole mark; `None` when no slot names its position (its writer moved it meanwhile, or scribbled over it).
pub(crate) fn read(region: &Region, offset: usize) -> Option<Place> {
    let position = position(region, offset, Site::MarkLoad);
    (0..2).find_map(|slot| {
        let at = offset + mark::SLOTS + slot * 16;
        // Relaxed: the Acquire above saw the Release that published this slot.
        let named = || region.word(at).load(Ordering::Relaxed) == position;
        if !named() {
            return None;
        }
        // Acquire: pairs with the Release in `publish`, against a slot that is used again: positions never come back, so
        // a slot that still names this one held its sequence when that was read.
        let sequence = region.word(at + 8).load(ordering(Site::MarkSequenceLoad, Ordering::Acquire));
        named().then_some(Place { position, sequence })
    })
}

/// The words of an initial mark, for a segment's image.
pub(crate) fn image(place: Place) -> [u64; 5] {
    [place.position, place.position, place.sequence, 0, 0]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_interrupted_after_any_store_reads_as_the_old_pair_or_the_new_one() {
        let places = |n: u64| Place { position: 4096 + n * 16, sequence: n };
        for stores in 0..=3 {
            let region = Region::heap(64);
            for (i, word) in image(places(0)).into_iter().enumerate() {
                region.word(i * 8).store(word, Ordering::Relaxed);
            }
            let mut writer = MarkWriter::new(&region, 0, Site::TailStore);
            (1..5).for_each(|n| writer.publish(places(n)));
            // The three stores of the next publish, cut off after `stores` of them.
            let at = mark::SLOTS + writer.slot * 16;
            let next = places(5);
            let all = [(at, next.position), (at + 8, next.sequence), (0, next.position)];
            all[..stores].iter().for_each(|&(o, v)| region.word(o).store(v, Ordering::Relaxed));
            assert_eq!(read(&region, 0), Some(if stores == 3 { next } else { places(4) }));
        }
    }
}
