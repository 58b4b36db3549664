//! The supervisor.

pub mod demo;
pub mod run_dir;
