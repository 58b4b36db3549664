//! What is in memory.

pub mod fingerprint;
pub mod message;
