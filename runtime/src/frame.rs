//! The header of a frame, and what a reader checks before it believes one.
//!
//! ```text
//! 0  position   the commit word: the frame's own position, stored last, so a frame of an earlier lap, or bytes
//!               forged inside a payload, are never taken for a new frame
//! 8  facts      length 28 bits │ kind 2 bits │ extended 1 bit │ 0 │ sequence 32 bits
//! 16 payload    (extended: 16 bytes of extension first: time of publishing, reserved)
//! ```
//! The commit word is only the fast path to the truth: facts and payload are written before the commit, so a reader that
//! knows from the producer's tail mark or record that a frame is committed reads it without the commit word.

use crate::cursor::{FRAME_ALIGN_BYTES, HEADER_BYTES, frame_bytes, payload_max};

/// Offset of the commit word in a header.
pub(crate) const POSITION: usize = 0;
/// Offset of the facts in a header.
pub(crate) const FACTS: usize = 8;
/// Bytes of the extension that a stamped frame carries before its payload.
pub const EXTENSION_BYTES: u64 = 16;

const LEN_BITS: u32 = 28;
const LEN_MASK: u64 = (1 << LEN_BITS) - 1;
const KIND_SHIFT: u32 = 28;
const EXTENDED: u64 = 1 << 30;
const RESERVED: u64 = 1 << 31;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message: the payload is one archive.
    Message,
    /// Bytes that end a lap.
    Padding,
}

/// The facts of a frame as one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Bytes behind the header, the extension included, exactly.
    pub len: u64,
    /// What the frame is.
    pub kind: Kind,
    /// Whether the payload begins with an extension.
    pub extended: bool,
    /// Low 32 bits of the frame's number in its lane; padding carries the number of the next message.
    pub sequence: u32,
}

impl Facts {
    /// Packs the facts into the header's word.
    #[inline]
    pub fn pack(self) -> u64 {
        let kind = match self.kind {
            Kind::Message => 0,
            Kind::Padding => 1,
        };
        let extended = if self.extended { EXTENDED } else { 0 };
        self.len & LEN_MASK | kind << KIND_SHIFT | extended | u64::from(self.sequence) << 32
    }

    /// Unpacks and checks the word of a frame at `position` of a ring of `capacity` bytes.
    ///
    /// A frame that passes lies wholly inside the ring, before the wrap, and its extension inside its payload.
    ///
    /// # Errors
    /// What is impossible about it, in words.
    #[inline]
    pub fn check(word: u64, position: u64, capacity: u64) -> Result<Facts, &'static str> {
        let len = word & LEN_MASK;
        let extended = word & EXTENDED != 0;
        let room = capacity - (position & (capacity - 1));
        if word & RESERVED != 0 {
            return Err("a reserved bit is set in a frame's header");
        }
        let kind = match word >> KIND_SHIFT & 3 {
            0 => Kind::Message,
            1 => Kind::Padding,
            _ => return Err("a frame is of no known kind"),
        };
        match kind {
            Kind::Message if len > payload_max(capacity) => {
                return Err("a frame is longer than half the ring");
            }
            Kind::Message if frame_bytes(len) > room => return Err("a frame runs over the end of the ring"),
            Kind::Message if extended && len < EXTENSION_BYTES => {
                return Err("a frame is shorter than its extension");
            }
            Kind::Padding if len + HEADER_BYTES != room || extended => {
                return Err("padding does not end the lap");
            }
            // So padding is never followed by padding, and a reader that skips it always comes to a message.
            Kind::Padding if room >= capacity / 2 => {
                return Err("padding is longer than the frame that it makes room for");
            }
            Kind::Message | Kind::Padding => {}
        }
        Ok(Facts { len, kind, extended, sequence: (word >> 32) as u32 })
    }

    /// The same for the usual frame, a message without an extension; `None` for any other, and for an impossible one.
    #[inline(always)]
    pub fn check_plain(word: u64, position: u64, capacity: u64) -> Option<Facts> {
        let len = word & LEN_MASK;
        let room = capacity - (position & (capacity - 1));
        let unusual = word & (RESERVED | EXTENDED | 3 << KIND_SHIFT) != 0;
        if unusual || len > payload_max(capacity) || frame_bytes(len) > room {
            return None;
        }
        Some(Facts { len, kind: Kind::Message, extended: false, sequence: (word >> 32) as u32 })
    }

    /// Position behind the frame that begins at `position`.
    #[inline]
    pub fn end(self, position: u64) -> u64 {
        position + frame_bytes(self.len)
    }
}

/// Whether a position can begin a frame.
#[inline]
pub fn aligned(position: u64) -> bool {
    position.is_multiple_of(FRAME_ALIGN_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000_000 / 16))]

        #[test]
        fn random_headers_are_refused_or_lie_wholly_inside_the_ring(words: [u64; 16], slot in 0u64..4096, shift in 12u32..28) {
            let capacity = 1u64 << shift;
            let position = capacity * 3 + slot * FRAME_ALIGN_BYTES % capacity;
            for word in words {
                let believed = Facts::check(word, position, capacity);
                let plain = believed.ok().filter(|facts| facts.kind == Kind::Message && !facts.extended);
                prop_assert_eq!(Facts::check_plain(word, position, capacity), plain);
                if let Ok(facts) = believed {
                    prop_assert!(position % capacity + frame_bytes(facts.len) <= capacity);
                    prop_assert!(facts.kind == Kind::Padding || facts.len <= payload_max(capacity));
                    prop_assert_eq!(Facts::check(facts.pack(), position, capacity), Ok(facts));
                }
            }
        }
    }

    #[test]
    fn a_frame_of_exactly_half_the_ring_is_believed_and_one_byte_more_is_not() {
        let facts = |len| Facts { len, kind: Kind::Message, extended: false, sequence: 7 };
        assert!(Facts::check(facts(payload_max(4096)).pack(), 4096, 4096).is_ok());
        assert!(Facts::check(facts(payload_max(4096) + 1).pack(), 4096, 4096).is_err());
    }
}
