//! The supervisor.

pub mod child;
pub mod restart;
