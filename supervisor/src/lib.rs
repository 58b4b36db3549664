//! The supervisor.

pub mod control;
pub mod demo;
pub mod output;
pub mod run_dir;
