//! `shoal check FILE`: what a swarm file says, without running it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{BAD_INPUT, FAILED, print};
use crate::config::{self, SwarmFile};
use crate::topology::Topology;

/// Checks a swarm file and prints what it amounts to, or everything that is wrong with it.
pub fn check(file: &Path) -> ExitCode {
    match config::read(file) {
        Ok(file) => {
            let topology = Topology::of(&file);
            warnings(&file, &topology).iter().for_each(|warning| eprintln!("{warning}"));
            match print(summary(&file, &topology).as_bytes()) {
                Ok(_) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(FAILED),
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// What is allowed and probably not meant.
fn warnings(file: &SwarmFile, topology: &Topology) -> Vec<String> {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let warning = |(agents, channels): (Vec<&str>, Vec<&str>)| {
        format!(
            "warning: {}: the agents {} feed each other over channels that block ({}): when all of these are full, each waits \
             for the next until its sends time out\n  = help: let one of them say when_full = \"reject\", or make sure that \
             an agent sends no more than it reads",
            file.path.display(),
            quoted(&agents),
            quoted(&channels)
        )
    };
    topology.blocking_circles().into_iter().map(warning).collect()
}

/// The swarm on a screen.
fn summary(file: &SwarmFile, topology: &Topology) -> String {
    let bytes: u64 = topology.agents.iter().flat_map(|a| &a.lanes).map(|lane| lane.capacity_bytes).sum();
    let lanes: usize = topology.agents.iter().map(|a| a.lanes.len()).sum();
    let mut text = String::new();
    let processes = topology.agents.len();
    let _ =
        writeln!(text, "swarm `{}`: {processes} processes, {lanes} lanes of {} KiB", file.name, bytes / 1024);
    for (at, channel) in file.channels.iter().enumerate() {
        let named = |pick: fn(&config::Agent) -> &Vec<config::Reference>| {
            let agents = file.agents.iter().filter(|agent| pick(agent).iter().any(|r| r.channel == at));
            agents.map(|agent| agent.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let (name, message, kib) = (&channel.name, &channel.message, channel.capacity_bytes / 1024);
        let full = channel.when_full.word();
        let (from, to) = (named(|a| &a.publishes), named(|a| &a.subscribes));
        let _ = writeln!(text, "  channel {name}: {message}, {kib} KiB per lane, {full}; {from} -> {to}");
    }
    for agent in &file.agents {
        let (name, replicas) = (&agent.name, agent.replicas);
        let _ = writeln!(text, "  agent {name}: {replicas} x {}", agent.command.join(" "));
    }
    text
}
