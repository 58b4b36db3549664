//! Models of the protocol over shared memory: every interleaving, and every value that a weak memory may show.
//!
//! The code under test is the crate's own; only words, bytes and doorbells are loom's. A deadlock is a lost wake-up. Run by
//! `scripts/loom`; `scripts/loom --weakened` takes every ordering away once and demands that a model fails.

mod group;
mod handover;
mod lane;
mod record;
mod swarm;
mod wakeup;
