//! Claim, commit, ack as arithmetic; no payload, no unsafe.
//!
//! A position is a monotonic 64-bit count of bytes; its place in the ring is `position % capacity`. A lane starts at
//! position `capacity`, so that zeroed memory never looks like a frame.

/// Frames begin at multiples of this: a cache line, so that a small message costs one line's transfer and nobody polls a line that
/// another message lies in.
#[cfg(not(loom))]
pub const FRAME_ALIGN_BYTES: u64 = 64;
/// Frames begin at multiples of this: a model pays for every word.
#[cfg(loom)]
pub const FRAME_ALIGN_BYTES: u64 = 16;
/// Bytes of a frame's header.
pub const HEADER_BYTES: u64 = 16;

/// First position of the first incarnation of a lane.
pub const fn first_position(capacity: u64) -> u64 {
    capacity
}

/// Bytes that a frame with a payload of `len` bytes takes.
#[inline]
pub const fn frame_bytes(len: u64) -> u64 {
    (HEADER_BYTES + len + FRAME_ALIGN_BYTES - 1) & !(FRAME_ALIGN_BYTES - 1)
}

/// The longest payload that a ring of `capacity` takes: a frame is at most half of it.
pub const fn payload_max(capacity: u64) -> u64 {
    capacity / 2 - HEADER_BYTES
}

/// Where a frame goes, and the padding before it that ends the lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Bytes of padding frame at the tail, header included; 0 when the frame fits before the wrap.
    pub padding: u64,
    /// Position of the frame.
    pub position: u64,
    /// Position behind the frame.
    pub end: u64,
}

/// Places a frame of `total` bytes (aligned, at most half of the capacity) at `tail`.
#[inline]
pub const fn place(tail: u64, total: u64, capacity: u64) -> Placement {
    let room = capacity - (tail & (capacity - 1));
    if total <= room {
        Placement { padding: 0, position: tail, end: tail + total }
    } else {
        Placement { padding: room, position: tail + room, end: tail + room + total }
    }
}

/// Whether everything up to `end`, and the header behind it that a publisher invalidates, overwrites nothing that a
/// reader at `cursor` still needs.
#[inline]
pub const fn fits(end: u64, cursor: u64, capacity: u64) -> bool {
    end + HEADER_BYTES <= cursor + capacity
}

/// The cursor that all readers must have passed for a claim that ends at `end`.
#[inline]
pub const fn cursor_wanted(end: u64, capacity: u64) -> u64 {
    (end + HEADER_BYTES).saturating_sub(capacity)
}

/// Whether a reader's cursor is believable: it never goes back and never passes what was written.
#[inline]
pub const fn cursor_plausible(cursor: u64, seen: u64, written: u64) -> bool {
    seen <= cursor && cursor <= written && cursor.is_multiple_of(FRAME_ALIGN_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn placement_is_contiguous_aligned_and_within_a_lap(lap in 1u64..1000, slot in 0u64..64, len in 0u64..2032) {
            let capacity = 4096;
            let tail = lap * capacity + slot * FRAME_ALIGN_BYTES;
            let total = frame_bytes(len);
            let p = place(tail, total, capacity);
            prop_assert_eq!(p.position % FRAME_ALIGN_BYTES, 0);
            prop_assert_eq!(p.position, tail + p.padding);
            prop_assert!(p.position % capacity + total <= capacity);
            prop_assert_eq!(p.end - p.position, total);
            prop_assert!(p.padding < total || p.padding == 0);
        }

        #[test]
        fn a_claim_fits_exactly_when_the_wanted_cursor_is_passed(end in 4096u64..100_000, cursor in 0u64..100_000) {
            prop_assert_eq!(fits(end, cursor, 4096), cursor >= cursor_wanted(end, 4096));
        }

        #[test]
        fn the_largest_frame_fits_an_empty_ring_at_every_tail(slot in 0u64..64) {
            let tail = 4096 + slot * FRAME_ALIGN_BYTES;
            let p = place(tail, frame_bytes(payload_max(4096)), 4096);
            prop_assert!(fits(p.end, tail, 4096));
        }
    }
}
