//! The state of an agent: a small value that the next incarnation finds exactly as it was at the last commit.
//!
//! Two slots lie in the segment. A step that changes the state writes the spare one; the commit record names the slot that
//! holds; an unchanged state keeps its slot. What a record names is never written before a later record names the other.
//!
//! ```text
//! 0   length       bytes of the value, 0 when there is none
//! 8   fingerprint  of its type
//! 16  value        an archive
//! ```

use crate::bug::{Bug, placed};
use crate::commit::Record;
use crate::layout::{SegmentShape, header};
use crate::region::Region;
use crate::sync::Ordering;

const LENGTH: usize = 0;
const FINGERPRINT: usize = 8;
/// Where a value begins in its slot.
pub const VALUE: usize = 16;

/// Writes the own state.
pub struct StateWriter {
    region: Region,
    offset: usize,
    slot_bytes: usize,
    current: usize,
    changed: bool,
}

impl StateWriter {
    /// Takes over the state that the supervisor put into the fresh segment.
    pub fn open(region: Region, shape: &SegmentShape) -> Self {
        let (offset, slot_bytes) = (shape.state_offset(), shape.state_bytes as usize);
        StateWriter { region, offset, slot_bytes, current: 0, changed: false }
    }

    /// The longest value, bytes.
    pub fn max_bytes(&self) -> usize {
        self.slot_bytes.saturating_sub(VALUE)
    }

    fn slot(&self, index: usize) -> usize {
        self.offset + index * self.slot_bytes
    }

    /// The value as this step sees it: its own change, else what was committed. With its type's fingerprint; none at first.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    pub fn value(&self) -> Option<(&[u8], u64)> {
        if self.slot_bytes == 0 {
            return None;
        }
        let at = self.slot(if self.changed { 1 - self.current } else { self.current });
        // Relaxed: own words.
        let len = self.region.word(at + LENGTH).load(Ordering::Relaxed) as usize;
        let fingerprint = self.region.word(at + FINGERPRINT).load(Ordering::Relaxed);
        if len == 0 || len > self.max_bytes() {
            return None;
        }
        // SAFETY: the slot lies in the own segment, which only this process writes, and it is written only through the
        // exclusive borrow of `replace`.
        Some((unsafe { self.region.leased(at + VALUE, len) }, fingerprint))
    }

    /// Writes a changed value into the spare slot: `fill` gets the room and says the length. False when it does not fit.
    ///
    /// # If we die here
    /// The slot that the last record names is untouched.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    pub fn replace(
        &mut self,
        fingerprint: u64,
        fill: impl FnOnce(&mut [core::mem::MaybeUninit<u8>]) -> Option<usize>,
    ) -> bool {
        if self.slot_bytes == 0 {
            return false;
        }
        let at = self.slot(if placed(Bug::StateInPlace) { self.current } else { 1 - self.current });
        // SAFETY: the spare slot lies in the own segment, only this process writes it, and it is borrowed exclusively here.
        let room = unsafe { self.region.claimed(at + VALUE, self.max_bytes()) };
        let Some(len) = fill(room) else { return false };
        // Relaxed: published by the Release of the commit; read by others only after a death.
        self.region.word(at + LENGTH).store(len as u64, Ordering::Relaxed);
        self.region.word(at + FINGERPRINT).store(fingerprint, Ordering::Relaxed);
        self.changed = true;
        true
    }

    /// Whether this step changed the state.
    #[inline]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// The slot that the next record names, plus one.
    #[inline]
    pub fn named(&self) -> u64 {
        (if self.changed && !placed(Bug::StateInPlace) { 1 - self.current } else { self.current }) as u64 + 1
    }

    /// The record is committed: the changed value is the state.
    #[inline]
    pub fn commit(&mut self) {
        if self.changed {
            self.current = if placed(Bug::StateInPlace) { self.current } else { 1 - self.current };
            self.changed = false;
        }
    }

    /// Forgets the change.
    pub fn abort(&mut self) {
        self.changed = placed(Bug::StateAbortForgotten);
    }
}

/// Copies the committed state of a dead incarnation: a whole slot, as the next segment's first.
pub fn committed(region: &Region, shape: &SegmentShape, record: &Record) -> Vec<u8> {
    let slot_bytes = shape.state_bytes as usize;
    let slot = if record.number == 0 { 0 } else { usize::from(record.state_slot == 2) };
    let mut bytes = vec![0; slot_bytes];
    if slot_bytes > 0 {
        region.copy_out(shape.state_offset() + slot * slot_bytes, &mut bytes);
    }
    bytes
}

/// A whole slot without the zeros that it ends with, in whole words.
pub fn used(slot: &[u8]) -> &[u8] {
    let (words, rest) = slot.as_chunks::<8>();
    let last = words.iter().rposition(|word| u64::from_ne_bytes(*word) != 0);
    match rest.iter().any(|byte| *byte != 0) {
        true => slot,
        false => &slot[..last.map_or(0, |last| (last + 1) * 8)],
    }
}

/// The value in a whole slot that [`committed`] copied, and the fingerprint of its type; `None` when there is none.
pub fn value(slot: &[u8]) -> Option<(&[u8], u64)> {
    let word = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let len = usize::try_from(word(LENGTH)?).ok().filter(|&len| len > 0)?;
    Some((slot.get(VALUE..)?.get(..len)?, word(FINGERPRINT)?))
}

const _: () = assert!(header::STATE_BYTES == header::STATE_OFFSET + 8);
