//! What `shoal status` is answered, gathered from the swarm: words of fixed size and what the supervisor knows itself, so it
//! may be asked often.

use super::shown;
use crate::agent::Agent;
use crate::control::PsState;
use crate::control::SwarmInfo;
use crate::control::status::{Health, LastCrash, StatusAgent, StatusReport};
use crate::swarm::Swarm;
use std::time::Instant;

/// How the swarm is now.
pub(super) fn status(swarm: &Swarm, info: &SwarmInfo) -> StatusReport {
    let shown_agents = (0..swarm.agents.len()).filter(|&agent| swarm.is_shown(agent));
    let agents: Vec<StatusAgent> = shown_agents.map(|agent| of_agent(swarm, agent)).collect();
    StatusReport {
        swarm: swarm.file.name.clone(),
        health: Health::of(swarm.is_ending(), agents.iter().map(|a| a.state)),
        pid: info.pid,
        supervisor: std::process::id(),
        file: info.file.display().to_string(),
        uptime_ms: swarm.elapsed().as_millis() as u64,
        messages_per_s: None,
        dead_letters: 0,
        lacks: swarm.lacks.clone(),
        under_way: swarm.change_under_way(),
        scaled_to_nothing: swarm.scaled_to_nothing(),
        agents,
    }
}

fn of_agent(swarm: &Swarm, index: usize) -> StatusAgent {
    let agent = &swarm.agents[index];
    let (sent, received) = agent.counts();
    StatusAgent {
        name: agent.name.clone(),
        pid: agent.live.as_ref().map(|l| l.child.pid as u32),
        generation: u64::from(agent.generation),
        state: state(swarm, index),
        restarts: agent.restarts,
        hangs: agent.hangs,
        uptime_ms: agent.live.as_ref().map_or(0, |l| (Instant::now() - l.born).as_millis() as u64),
        sent,
        received,
        messages_per_s: None,
        last_crash: last_crash(swarm, agent),
    }
}

/// The state of an agent as operators see it.
pub(super) fn state(swarm: &Swarm, agent: usize) -> PsState {
    let record = &swarm.agents[agent];
    match shown(record.state) {
        _ if swarm.is_waiting(agent) => PsState::Starting,
        PsState::Ready if swarm.is_suspended(agent) => PsState::Suspended,
        PsState::Ready if record.paused => PsState::Paused,
        state => state,
    }
}

fn last_crash(swarm: &Swarm, agent: &Agent) -> Option<LastCrash> {
    let crash = agent.last_crash.as_ref()?;
    Some(LastCrash {
        generation: u64::from(crash.generation),
        how: crash.how.clone(),
        ago_ms: swarm.elapsed().saturating_sub(crash.at).as_millis() as u64,
    })
}
