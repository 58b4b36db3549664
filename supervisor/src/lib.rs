//! The supervisor.

pub mod demo;
