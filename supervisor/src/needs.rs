//! What a swarm file asks of the machine: descriptors, processes, memory. Pure sums.
//!
//! An agent of the file has `replicas` times a life and its standbys; with `prefork` there are a zygote and a fork that waits besides.

use crate::config::{Agent, Confinement, SwarmFile};
use crate::control::CLIENTS_MAX;
use crate::postman;
use crate::topology::{Group, Topology};

/// Descriptors of a life: pidfd, control socket, segment and what peers are handed of it, doorbell, output, errors.
const LIFE_DESCRIPTORS: u64 = 7;
/// Of a replica besides: its log, and what is left of its last lives until they are drained and let go of.
const REPLICA_DESCRIPTORS: u64 = 5;
/// Of a process that has no life yet, or never: pidfd, control socket, output, errors.
const NURSLING_DESCRIPTORS: u64 = 4;
/// What bounds a replica, if something does: three control groups, rules for paths.
const CAGE_DESCRIPTORS: u64 = 4;
/// Of a group: its claim tables, to be written and to be read.
const GROUP_DESCRIPTORS: u64 = 2;
/// Of a hook that runs: pidfd, output.
const HOOK_DESCRIPTORS: u64 = 2;
/// What the supervisor and its keeper have of their own, and what a start takes for a moment.
const OWN_DESCRIPTORS: u64 = 64;

/// The supervisor, its keeper, the guard, and the one that replays dead letters.
const OWN_PROCESSES: u64 = 4;
/// A zygote, and a fork that waits.
const NURSLINGS: u64 = 2;

/// What an agent's segment takes beside its lanes, and its process beside all segments, bytes: the least that idle agents were
/// seen to take.
const PROCESS_BYTES: u64 = 1 << 20;
/// Segments of dead predecessors that readers have not drained, at most, as long as nobody lags: one.
const SEGMENTS_PER_REPLICA: u64 = 2;

/// What a swarm file asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Descriptors of the supervisor.
    pub descriptors: u64,
    /// Processes, the supervisor's own included.
    pub processes: u64,
    /// Memory of segments and processes, bytes.
    pub memory_bytes: u64,
}

impl Needs {
    /// Those of a file; without one those of a swarm of ten.
    pub fn of(file: Option<&SwarmFile>) -> Needs {
        let Some(file) = file else {
            return Needs { descriptors: 260, processes: 14, memory_bytes: 64 << 20 };
        };
        let topology = Topology::of(file);
        let running = topology.agents.iter().filter(|instance| instance.active);
        let segments_bytes = running.map(|instance| {
            let lanes: u64 = instance.lanes.iter().map(|lane| lane.capacity_bytes).sum();
            lanes * (SEGMENTS_PER_REPLICA + standbys(&file.agents[instance.config]))
        });
        let processes: u64 = file.agents.iter().map(processes).sum();
        Needs {
            descriptors: descriptors(file),
            processes: processes + OWN_PROCESSES,
            memory_bytes: segments_bytes.sum::<u64>() + processes * PROCESS_BYTES,
        }
    }
}

/// How many descriptors the supervisor of a swarm may come to hold; `file` may be the one that runs, with what reloads removed.
pub fn descriptors(file: &SwarmFile) -> u64 {
    let of_agent = |agent: &Agent| {
        let cage = if agent.confinement.as_ref() == &Confinement::default() { 0 } else { CAGE_DESCRIPTORS };
        let replica = (1 + standbys(agent)) * LIFE_DESCRIPTORS + REPLICA_DESCRIPTORS + cage;
        replicas(agent) * replica + nurslings(agent) * NURSLING_DESCRIPTORS + GROUP_DESCRIPTORS
    };
    let runs = |agent: &&Agent| agent.replicas > 0 && agent.name != postman::NAME;
    let agents: u64 = file.agents.iter().filter(runs).map(of_agent).sum();
    // Who replays dead letters is in a file that runs, and in no other.
    let postman = LIFE_DESCRIPTORS + REPLICA_DESCRIPTORS;
    let hooks = if file.hooks.commands.is_empty() { 0 } else { u64::from(file.hooks.at_once) };
    agents + postman + hooks * HOOK_DESCRIPTORS + CLIENTS_MAX as u64 + OWN_DESCRIPTORS
}

/// How many descriptors are held besides for groups of which reloads have left nobody: they keep their claim tables.
pub fn descriptors_of_empty_groups(topology: &Topology) -> u64 {
    let is_empty = |group: &&Group| !group.members.iter().any(|&member| topology.agents[member].active);
    topology.groups.iter().filter(is_empty).count() as u64 * GROUP_DESCRIPTORS
}

/// How many processes an agent of the file may have.
fn processes(agent: &Agent) -> u64 {
    replicas(agent) * (1 + standbys(agent)) + nurslings(agent)
}

fn replicas(agent: &Agent) -> u64 {
    agent.replicas.into()
}

fn standbys(agent: &Agent) -> u64 {
    agent.standby.into()
}

fn nurslings(agent: &Agent) -> u64 {
    if agent.prefork && agent.replicas > 0 { NURSLINGS } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    fn file(keys: &str) -> SwarmFile {
        let text = format!(
            "[swarm]\nname = \"s\"\n[channel.c]\nmessage = \"M\"\ncapacity = \"64 KiB\"\n[agent.a]\ncommand = [\"x\"]\n\
             publishes = [\"c\"]\n{keys}\n[agent.b]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\n"
        );
        config::parse(Path::new("/dir/swarm.toml"), &text).unwrap()
    }

    fn needs(keys: &str) -> Needs {
        Needs::of(Some(&file(keys)))
    }

    /// What one agent's keys ask for, beside what it asks for without them.
    fn more(keys: &str) -> (u64, u64, u64) {
        let (before, after) = (needs(""), needs(keys));
        let difference = |of: fn(&Needs) -> u64| of(&after) - of(&before);
        (difference(|n| n.descriptors), difference(|n| n.processes), difference(|n| n.memory_bytes) >> 10)
    }

    #[test]
    fn standbys_and_forks_are_reckoned_as_lives_and_processes() {
        let plain = needs("");
        assert_eq!((plain.processes, plain.memory_bytes), (6, (2 << 20) + (128 << 10)));
        assert_eq!(more("standby = 1"), (7, 1, 1024 + 64));
        assert_eq!(more("standby = 8"), (56, 8, 8 * (1024 + 64)));
        assert_eq!(more("replicas = 3"), (24, 2, 2 * (1024 + 128)));
        assert_eq!(more("replicas = 3\nstandby = 2"), (24 + 42, 2 + 6, 2 * 1024 + 128 * 2 + 6 * (1024 + 64)));
        // One that stands by is implied; a zygote and a fork have no lane.
        assert_eq!(more("prefork = true"), (7 + 8, 3, 3 * 1024 + 64));
        assert_eq!(more("prefork = true\nstandby = 0"), (8, 2, 2 * 1024));
        assert_eq!(more("limits = { memory = \"8 MiB\" }"), (4, 0, 0));
    }

    #[test]
    fn hooks_and_an_agent_that_was_removed_are_reckoned() {
        let hooks = "[hooks]\ncrash = [\"x\"]\nat_once = 3";
        assert_eq!(more(hooks).0, 6);
        let mut removed = file("prefork = true");
        removed.agents[0].replicas = 0;
        assert_eq!(Needs::of(Some(&removed)).processes, 5);
    }

    #[test]
    fn file_that_runs_needs_no_more_descriptors_than_it_did_when_it_was_read() {
        let read = file("");
        let mut running = read.clone();
        running.agents.push(postman::agent(Path::new("/nowhere")).unwrap());
        assert_eq!(descriptors(&running), descriptors(&read));
        // One whose agent a reload has replaced by another.
        let removed = Agent { name: "former".into(), replicas: 0, ..read.agents[1].clone() };
        running.agents.push(removed);
        assert_eq!(descriptors(&running), descriptors(&read));
        running.agents[1].replicas = 2;
        assert_eq!(descriptors(&running), descriptors(&read) + LIFE_DESCRIPTORS + REPLICA_DESCRIPTORS);
    }

    #[test]
    fn group_of_several_that_was_removed_keeps_its_claim_tables() {
        let several = file("[agent.c]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\nreplicas = 2");
        let of = Topology::of(&several);
        assert_eq!((of.groups.len(), descriptors_of_empty_groups(&of)), (1, 0));
        let mut removed = several.clone();
        removed.agents[1].replicas = 0;
        assert_eq!(descriptors_of_empty_groups(&of.evolve(&removed)), GROUP_DESCRIPTORS);
    }
}
