//! The supervisor.

pub mod restart;
