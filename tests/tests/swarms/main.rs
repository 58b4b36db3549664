//! Whole swarms, real kills, agents that misbehave: one module for each subject, in one binary, so that all is linked once and what
//! waits for processes waits beside what computes. One subject alone: `cargo test -p shoal-tests --test swarms reload::`.
#![allow(missing_docs)]

mod attack;
mod bad_input;
mod baseline;
mod batches;
// As `shoal_runtime::bug::SEEDED` says.
#[cfg(any(feature = "seeded-bugs", debug_assertions))]
mod bugs;
mod certify;
mod chaos;
mod confined;
mod congestion;
mod crashes;
mod dead_letters;
mod demo;
mod doctor;
mod failing;
mod groups;
mod hangs;
mod heirs;
mod hooks;
mod hostile;
mod keeper;
mod kill;
mod lane_deaths;
mod layers;
mod night;
mod on_gone;
mod operations;
mod operator;
mod order;
mod pause;
mod prefork;
mod readme;
mod reload;
mod scenario;
mod service;
mod sets;
mod sparse;
mod standby;
mod statuses;
mod step_kill;
mod stopped;
mod swarm;
mod tree;
mod up_down;
mod urgent;
mod zombie;

/// A file that nobody names is compiled by nobody, and its tests would be missed by nobody.
#[test]
fn every_file_of_this_folder_is_a_module_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/swarms");
    let names = std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("read").file_name());
    for name in names.map(|name| name.into_string().expect("UTF-8")).filter(|name| name != "main.rs") {
        let module = format!("\nmod {};", name.trim_end_matches(".rs"));
        assert!(include_str!("main.rs").contains(&module), "{name} is no module of the tests");
    }
}
