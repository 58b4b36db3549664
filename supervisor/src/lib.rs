//! The supervisor.

pub mod control;
pub mod demo;
pub mod run_dir;
