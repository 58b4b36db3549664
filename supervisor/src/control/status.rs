//! What `shoal status` is answered: the swarm's health, and each agent's life in short.
//!
//! What lives here: the words, and the health as a pure function of the agents' states. What does not: where the figures
//! come from (`operator/status.rs`), how they are shown (`cli/status.rs`).

use serde::{Deserialize, Serialize};

use super::PsState;

/// How a swarm is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every agent is ready, paused, or at rest because somebody wanted it so, or its work is done.
    Healthy,
    /// Not every agent was ready yet, and none is in trouble.
    Starting,
    /// Some agent was given up, is dead and waits for its next start, or was stopped by a signal.
    Degraded,
    /// The swarm is being ended.
    Stopping,
}

impl Health {
    /// The health of a swarm whose agents are in these states.
    pub fn of(ending: bool, states: impl IntoIterator<Item = PsState>) -> Health {
        if ending {
            return Health::Stopping;
        }
        states
            .into_iter()
            .map(Health::of_agent)
            .max_by_key(|health| health.weight())
            .unwrap_or(Health::Healthy)
    }

    fn of_agent(state: PsState) -> Health {
        match state {
            PsState::Ready | PsState::Paused | PsState::Stopped => Health::Healthy,
            PsState::Starting | PsState::Stopping => Health::Starting,
            PsState::Suspended | PsState::Backoff | PsState::Failed => Health::Degraded,
        }
    }

    fn weight(self) -> u8 {
        match self {
            Health::Healthy => 0,
            Health::Starting => 1,
            Health::Degraded => 2,
            Health::Stopping => 3,
        }
    }

    /// The word that people and JSON see.
    pub fn word(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Starting => "starting",
            Health::Degraded => "degraded",
            Health::Stopping => "stopping",
        }
    }
}

/// How a swarm is; as JSON what `shoal status --json` prints, with the rates that the client measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The swarm's name.
    pub swarm: String,
    /// As a whole.
    pub health: Health,
    /// The process that was started, and that ends it: signals go there.
    pub pid: u32,
    /// Its supervisor at the moment; the same where that has no successor.
    #[serde(default)]
    pub supervisor: u32,
    /// Its swarm file, absolute.
    pub file: String,
    /// Since the supervisor started it.
    pub uptime_ms: u64,
    /// Messages received a second, by all agents, over the time that the client looked; none before it looked twice.
    #[serde(default)]
    pub messages_per_s: Option<u64>,
    /// Messages that were given up, kept with the dead letters.
    pub dead_letters: u64,
    /// What the swarm file asks for and this machine does not give, in words.
    pub lacks: Vec<String>,
    /// What of a reload or an upgrade is under way, in words.
    #[serde(default)]
    pub under_way: Option<String>,
    /// Agents of the swarm file that are scaled to nothing, and not among the others.
    #[serde(default)]
    pub scaled_to_nothing: Vec<String>,
    /// Its agents, as in `shoal ps`.
    pub agents: Vec<StatusAgent>,
}

/// How one agent, or one replica of it, is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAgent {
    /// Its name, with the replica.
    pub name: String,
    /// Its process; none while there is none.
    pub pid: Option<u32>,
    /// The latest generation.
    pub generation: u64,
    /// Where it is in its life.
    pub state: PsState,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it held a message beyond its deadline, and was aborted.
    pub hangs: u64,
    /// Since its process was started; 0 while there is none.
    pub uptime_ms: u64,
    /// Messages sent, by all its generations.
    pub sent: u64,
    /// Messages received, by all its generations.
    pub received: u64,
    /// Messages received a second, as of the swarm.
    #[serde(default)]
    pub messages_per_s: Option<u64>,
    /// Its last end that nobody had asked for.
    pub last_crash: Option<LastCrash>,
}

/// An end that nobody had asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCrash {
    /// Which of its generations it was.
    pub generation: u64,
    /// How it ended: `was killed by signal 11`.
    pub how: String,
    /// How long ago.
    pub ago_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use PsState::{Backoff, Failed, Paused, Ready, Starting, Stopped, Stopping, Suspended};

    #[test]
    fn health_is_that_of_the_agent_in_the_worst_state() {
        assert_eq!(Health::of(false, []), Health::Healthy);
        assert_eq!(Health::of(false, [Ready, Paused, Stopped]), Health::Healthy);
        assert_eq!(Health::of(false, [Ready, Starting]), Health::Starting);
        assert_eq!(Health::of(false, [Stopping, Ready]), Health::Starting);
        assert_eq!(Health::of(false, [Starting, Backoff, Ready]), Health::Degraded);
        assert_eq!(Health::of(false, [Ready, Failed]), Health::Degraded);
        assert_eq!(Health::of(false, [Ready, Suspended]), Health::Degraded);
        assert_eq!(Health::of(true, [Ready, Failed]), Health::Stopping);
    }
}
