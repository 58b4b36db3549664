//! Chaos's swarm file: as the swarm is started, and as a reload changes it.

use super::account::{CAPACITY_BYTES, HISTORY};
use super::{SOURCES, WORKERS, WORKERS_MAX};
use crate::config::{self, SwarmFile};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// What a reload changes; at the start there is none of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// The lanes of the sources' numbers have half the room: sources and workers start again. A step still fits.
    pub narrow: bool,
    /// Somebody else reads the beats, too: the beat starts again.
    pub onlooker: bool,
    /// There is one more channel, of the sources to the sink: they start again, and so do all who share lanes with them.
    pub asides: bool,
}

/// The agents that may be upgraded: those that are always there.
pub const NAMES: [&str; 6] = ["source", "worker", "counter", "sink", "beat", "listener"];

/// The channel that comes and goes.
pub const ASIDES: &str = "asides";
/// It says to an agent that there is that channel.
pub const ASIDES_ENV: &str = "CHAOS_ASIDES";

/// The command of one of its agents, which are this same binary. What is `doomed` ends by itself after such a time.
///
/// # Errors
/// The binary cannot be named.
pub fn command(name: &str, doomed: Option<Duration>) -> Result<Vec<String>, String> {
    let words = ["agent", "chaos", name].map(str::to_owned);
    let time = doomed.map(|time| time.as_millis().to_string());
    Ok([config::own_binary()?].into_iter().chain(words).chain(time).collect())
}

/// The file with so many workers.
///
/// # Errors
/// The binary cannot be named.
pub fn read(name: &str, workers: u32, shape: Shape) -> Result<SwarmFile, String> {
    let channel = |name: &str| {
        let narrow = shape.narrow && name == "numbers";
        let capacity = if narrow { CAPACITY_BYTES / 2 } else { CAPACITY_BYTES };
        format!("[channel.{name}]\nmessage = \"Number\"\ncapacity = {capacity}\n")
    };
    let agent = |name: &str, replicas: u32, ways: &str| -> Result<String, String> {
        let command = toml::Value::from(command(name, None)?);
        let places = if name == "worker" { WORKERS_MAX } else { replicas };
        // Deaths that come from elsewhere are no reason to give up.
        Ok(format!(
            "[agent.{name}]\ncommand = {command}\nreplicas = {replicas}\nreplicas_max = {places}\n{ways}\n\
             stop_timeout = \"30s\"\nready_timeout = \"60s\"\n\
             restart = {{ intensity = 10000, period = \"1s\", backoff = \"1ms..10ms\" }}\n"
        ))
    };
    let only = |is_there: bool, text: String| if is_there { text } else { String::new() };
    let asides = only(shape.asides, format!(", \"{ASIDES}\""));
    let told = only(shape.asides, format!("env = {{ {ASIDES_ENV} = \"1\" }}"));
    let text = [
        format!("[swarm]\nname = \"{name}\"\nhistory = {HISTORY}\n"),
        ["numbers", "direct", "results", "beats"].map(channel).concat(),
        only(shape.asides, channel(ASIDES)),
        agent("source", SOURCES, &format!("publishes = [\"numbers\", \"direct\"{asides}]\n{told}"))?,
        // Their lives are forks of one process, which chaos does not disturb itself; the others' are started by their command.
        agent("worker", workers, "subscribes = [\"numbers\"]\npublishes = [\"results\"]\nprefork = true")?,
        agent("counter", 1, "subscribes = [\"direct\"]")?,
        // It reads what is there of a channel before it subscribes it no more: nothing of that may be lost.
        agent("sink", 1, &format!("subscribes = [\"results\"{asides}]\non_gone = \"dead-letter\"\n{told}"))?,
        agent("beat", 1, "publishes = [\"beats\"]")?,
        agent("listener", 1, "subscribes = [\"beats\"]")?,
        only(shape.onlooker, agent("onlooker", 1, "subscribes = [\"beats\"]")?),
    ]
    .concat();
    config::parse(Path::new("chaos's swarm file"), &text).map_err(|e| e.to_string())
}

impl Shape {
    /// How many workers a swarm is to have by the file that it runs.
    pub fn workers_of(file: &SwarmFile) -> u32 {
        file.agents.iter().find(|agent| agent.name == "worker").map_or(WORKERS, |agent| agent.replicas)
    }

    /// Whether a swarm has the channel that comes and goes by the file that it runs.
    pub fn has_asides(file: &SwarmFile) -> bool {
        let mut read = file.agents.iter().flat_map(|agent| &agent.subscribes);
        read.any(|reference| file.channels[reference.channel].name == ASIDES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_that_comes_and_goes_has_both_ends_or_is_not_there() {
        for asides in [false, true] {
            let file = read("chaos", WORKERS, Shape { asides, ..Shape::default() }).expect("a file");
            let channel = file.channels.iter().position(|channel| channel.name == ASIDES);
            assert_eq!((channel.is_some(), Shape::has_asides(&file)), (asides, asides));
            let uses =
                |references: &[config::Reference]| references.iter().any(|r| Some(r.channel) == channel);
            for agent in &file.agents {
                let told = agent.env.iter().any(|(name, _)| name == ASIDES_ENV);
                assert_eq!(uses(&agent.publishes), asides && agent.name == "source", "{}", agent.name);
                assert_eq!(uses(&agent.subscribes), asides && agent.name == "sink", "{}", agent.name);
                assert_eq!(told, uses(&agent.publishes) || uses(&agent.subscribes), "{}", agent.name);
            }
        }
    }
}
