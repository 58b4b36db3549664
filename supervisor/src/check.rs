//! `shoal check FILE`: what a swarm file says, without running it.

use crate::counted::counted;
use crate::log::report;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{BAD_INPUT, FAILED, print, print_error};
use crate::config::{self, ConfigError, SwarmFile};
use crate::topology::Topology;

/// Checks a swarm file and prints what it amounts to, or everything that is wrong with it.
pub fn check(file: &Path, json: bool) -> ExitCode {
    match config::read(file) {
        Ok(file) => {
            let topology = Topology::of(&file);
            let warnings = warnings(&file, &topology);
            warnings.iter().for_each(|warning| report!("{warning}"));
            let text = match json {
                true => format!("{}\n", facts(&file, &topology, &warnings)),
                false => summary(&file, &topology),
            };
            match print(text.as_bytes()) {
                Ok(_) => ExitCode::SUCCESS,
                Err(failure) => {
                    report!("shoal: {failure}");
                    ExitCode::from(FAILED)
                }
            }
        }
        Err(error) => refused(&error, json),
    }
}

/// Says what is wrong with a swarm file, with `json` also as an object; the status that it means.
pub fn refused(error: &ConfigError, json: bool) -> ExitCode {
    let text = error.to_string();
    report!("{}", text.trim_end());
    if json {
        print_error(&text);
    }
    ExitCode::from(BAD_INPUT)
}

/// The summary as JSON.
fn facts(file: &SwarmFile, topology: &Topology, warnings: &[String]) -> serde_json::Value {
    let lanes = || topology.agents.iter().flat_map(|agent| &agent.lanes);
    let channels = file.channels.iter().enumerate().map(|(at, channel)| {
        serde_json::json!({
            "name": channel.name,
            "message": channel.message,
            "capacity_bytes": channel.capacity_bytes,
            "when_full": channel.when_full.word(),
            "publishers": named(file, at, |agent| &agent.publishes),
            "subscribers": named(file, at, |agent| &agent.subscribes),
        })
    });
    let agents = file.agents.iter().map(|agent| {
        serde_json::json!({ "name": agent.name, "replicas": agent.replicas, "command": agent.command })
    });
    serde_json::json!({
        "swarm": file.name,
        "processes": topology.agents.iter().filter(|instance| instance.active).count(),
        "lanes": lanes().count(),
        "lane_bytes": lanes().map(|lane| lane.capacity_bytes).sum::<u64>(),
        "channels": channels.collect::<Vec<_>>(),
        "agents": agents.collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

/// The agents that name a channel in a list of theirs.
fn named(file: &SwarmFile, channel: usize, list: fn(&config::Agent) -> &Vec<config::Reference>) -> Vec<&str> {
    let agents = file.agents.iter().filter(|agent| list(agent).iter().any(|r| r.channel == channel));
    agents.map(|agent| agent.name.as_str()).collect()
}

/// What is allowed and probably not meant.
fn warnings(file: &SwarmFile, topology: &Topology) -> Vec<String> {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let circle = |(agents, channels): (Vec<&str>, Vec<&str>)| {
        format!(
            "warning: {}: the agents {} feed each other over channels that block ({}): when all of these are full, each waits \
             for the next until its sends time out\n  = help: let one of them say when_full = \"reject\", or make sure that \
             an agent sends no more than it reads",
            file.path.display(),
            quoted(&agents),
            quoted(&channels)
        )
    };
    let reads_nothing = |agent: &&config::Agent| agent.deadline.is_some() && agent.subscribes.is_empty();
    let idle_deadline = |agent: &config::Agent| {
        format!(
            "warning: {}: the `deadline` of [agent.{}] bounds nothing: it is how long a message may be held, and this agent \
             subscribes to no channel\n  = help: take it out, or let the agent read what it works on",
            file.path.display(),
            agent.name
        )
    };
    let circles = topology.blocking_circles().into_iter().map(circle);
    circles.chain(file.agents.iter().filter(reads_nothing).map(idle_deadline)).collect()
}

/// The swarm on a screen.
fn summary(file: &SwarmFile, topology: &Topology) -> String {
    let running = || topology.agents.iter().filter(|a| a.active);
    let bytes: u64 = running().flat_map(|a| &a.lanes).map(|lane| lane.capacity_bytes).sum();
    let lanes: usize = running().map(|a| a.lanes.len()).sum();
    let lanes = counted(lanes as u64, "lane");
    let mut text = String::new();
    let processes = counted(running().count() as u64, "process");
    let _ = writeln!(text, "swarm `{}`: {processes}, {lanes} of {} KiB", file.name, bytes / 1024);
    for (at, channel) in file.channels.iter().enumerate() {
        let (name, message, kib) = (&channel.name, &channel.message, channel.capacity_bytes / 1024);
        let full = channel.when_full.word();
        let (from, to) =
            (named(file, at, |a| &a.publishes).join(", "), named(file, at, |a| &a.subscribes).join(", "));
        let _ = writeln!(text, "  channel {name}: {message}, {kib} KiB per lane, {full}; {from} -> {to}");
    }
    for agent in &file.agents {
        let (name, replicas) = (&agent.name, agent.replicas);
        let _ = writeln!(text, "  agent {name}: {replicas} x {}", agent.command.join(" "));
    }
    for (occasion, command) in &file.hooks.commands {
        let _ = writeln!(text, "  hook {}: {}", occasion.word(), command.join(" "));
    }
    for set in &file.sets {
        let name = |member: &config::Member| match *member {
            config::Member::Agent(agent) => file.agents[agent].name.as_str(),
            config::Member::Set(set) => file.sets[set].name.as_str(),
        };
        let members = set.members.iter().map(name).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  set {}: {} of {members}", set.name, set.strategy.word());
    }
    text
}
