//! The supervisor.

// They panic when what they write to is full or gone: `log::say` and `cli::print` do not.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

pub mod agent;
pub mod bench;
pub mod birth;
pub mod certify;
pub mod chaos;
pub mod check;
pub mod child;
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod counted;
pub mod courtesy;
pub mod crash;
pub mod dead_letters;
pub mod death;
pub mod demo;
pub mod doctor;
pub mod ended;
pub mod event_loop;
pub mod events;
pub mod herald;
pub mod hooks;
pub mod keeper;
pub mod log;
pub mod needs;
pub mod notify;
pub mod on_gone;
pub mod operator;
pub mod output;
pub mod postman;
pub mod records;
pub mod reload;
pub mod restart;
pub mod run;
pub mod run_dir;
pub mod scenario;
pub mod settle;
pub mod shelf;
pub mod signals;
pub mod spawn;
pub mod stand_in;
pub mod strategy;
pub mod swarm;
pub mod thrift;
pub mod topology;
pub mod trial;

/// Does what the command line says.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
