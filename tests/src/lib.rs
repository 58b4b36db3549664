//! Integration tests.

pub mod attack;
pub mod attacked;
