//! Chaos's swarm file: as the swarm is started, and as a reload changes it.

use super::account::{CAPACITY_BYTES, HISTORY};
use super::{SOURCES, WORKERS, WORKERS_MAX};
use crate::config::{self, SwarmFile};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a reload changes; at the start there is neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// The lanes of the sources' numbers have half the room: sources and workers start again. A step still fits.
    pub narrow: bool,
    /// Somebody else reads the beats, too: the beat starts again.
    pub onlooker: bool,
}

/// The agents that may be upgraded: those that are always there.
pub const NAMES: [&str; 6] = ["source", "worker", "counter", "sink", "beat", "listener"];

/// The file with so many workers. Its agents are this same binary.
///
/// # Errors
/// The binary cannot be named.
pub fn read(name: &str, workers: u32, shape: Shape) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?);
    let channel = |name: &str| {
        let narrow = shape.narrow && name == "numbers";
        let capacity = if narrow { CAPACITY_BYTES / 2 } else { CAPACITY_BYTES };
        format!("[channel.{name}]\nmessage = \"Number\"\ncapacity = {capacity}\n")
    };
    let agent = |name: &str, replicas: u32, ways: &str| {
        let places = if name == "worker" { WORKERS_MAX } else { replicas };
        // Deaths that come from elsewhere are no reason to give up.
        format!(
            "[agent.{name}]\ncommand = [{binary}, \"agent\", \"chaos\", \"{name}\"]\nreplicas = {replicas}\nreplicas_max = {places}\n{ways}\n\
             stop_timeout = \"30s\"\nready_timeout = \"60s\"\n\
             restart = {{ intensity = 10000, period = \"1s\", backoff = \"1ms..10ms\" }}\n"
        )
    };
    let onlooker =
        if shape.onlooker { agent("onlooker", 1, "subscribes = [\"beats\"]") } else { String::new() };
    let text = [
        format!("[swarm]\nname = \"{name}\"\nhistory = {HISTORY}\n"),
        ["numbers", "direct", "results", "beats"].map(channel).concat(),
        agent("source", SOURCES, "publishes = [\"numbers\", \"direct\"]"),
        // Their lives are forks of one process, which chaos does not disturb itself; the others' are started by their command.
        agent("worker", workers, "subscribes = [\"numbers\"]\npublishes = [\"results\"]\nprefork = true"),
        agent("counter", 1, "subscribes = [\"direct\"]"),
        agent("sink", 1, "subscribes = [\"results\"]"),
        agent("beat", 1, "publishes = [\"beats\"]"),
        agent("listener", 1, "subscribes = [\"beats\"]"),
        onlooker,
    ]
    .concat();
    config::parse(Path::new("chaos's swarm file"), &text).map_err(|e| e.to_string())
}

impl Shape {
    /// How many workers a swarm is to have by the file that it runs.
    pub fn workers_of(file: &SwarmFile) -> u32 {
        file.agents.iter().find(|agent| agent.name == "worker").map_or(WORKERS, |agent| agent.replicas)
    }
}
