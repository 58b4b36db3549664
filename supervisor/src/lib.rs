//! The supervisor.

pub mod agent;
pub mod birth;
pub mod child;
pub mod config;
pub mod control;
pub mod death;
pub mod demo;
pub mod event_loop;
pub mod output;
pub mod restart;
pub mod run;
pub mod run_dir;
pub mod signals;
pub mod spawn;
pub mod swarm;
pub mod topology;
