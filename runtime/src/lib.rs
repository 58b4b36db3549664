//! What is in Shoal's shared memory, and the protocol over it.
//!
//! ```text
//!  producer ── claim ─ write ─ finish ─┬─ commit ── publish ──▶ ring ──▶ poll ── lease ── ack ── consumer
//!  (own segment, read-write)           │                                 (peers' segments, read-only)
//!                                      └ tail mark, or the record of a step
//!  supervisor ── board: generations, verdicts, requests ──▶ everybody (read-only)
//! ```
//! Data goes one way. Every segment has one writer. Visible means committed.

#[cfg(not(loom))]
pub mod again;
#[cfg(not(loom))]
pub mod attachment;
#[cfg(all(feature = "beacon", not(loom)))]
pub mod beacon;
pub mod board;
#[cfg(not(loom))]
pub mod bootstrap;
pub mod bug;
pub mod claims;
#[cfg(not(loom))]
pub mod clock;
pub mod commit;
pub mod consumer;
#[cfg(not(loom))]
mod cpus;
pub mod cursor;
pub mod desk;
pub mod doorbell;
#[cfg(not(loom))]
pub mod fingerprint;
pub mod frame;
#[cfg(all(any(test, feature = "hostile"), not(loom)))]
pub mod hostile;
pub mod image;
pub mod incarnation;
#[cfg(not(loom))]
pub mod journal;
#[cfg(not(loom))]
mod large_pages;
pub mod layout;
#[cfg(not(loom))]
mod lease;
pub mod links;
pub mod mark;
#[cfg(not(loom))]
pub mod message;
#[cfg(not(loom))]
pub mod port;
pub mod producer;
pub mod recorder;
mod region;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod slot;
#[cfg(all(test, not(loom)))]
mod smaps;
#[cfg(not(loom))]
pub mod spin;
#[cfg(not(loom))]
pub mod standby;
#[cfg(not(loom))]
pub mod state;
pub mod sync;
pub mod waking;
#[cfg(not(loom))]
pub mod wire;
#[cfg(not(loom))]
pub mod zygote;

pub use incarnation::{Incarnation, PeerFault};
#[cfg(not(loom))]
pub use large_pages::LargePages;
pub use region::Region;

/// FNV-1a over words: tells layouts apart.
pub(crate) fn fingerprint_of_words(words: impl Iterator<Item = u64>) -> u64 {
    words.flat_map(u64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
