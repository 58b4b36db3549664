//! Handles of channels, and the checks against the swarm file when they are made.

use crate::error::{Error, Result};
use crate::payload::Payload;
use crate::step::MessageId;
use shoal_runtime::consumer::Frame;
use shoal_runtime::cursor::payload_max;
use shoal_runtime::wire::Manifest;
use std::fmt;
use std::marker::PhantomData;

/// Where messages of one type are sent: a plain handle, made by [`crate::Agent::publish`].
pub struct Publisher<T> {
    lane: u32,
    carries: PhantomData<fn(T)>,
}

impl<T> Publisher<T> {
    pub(crate) fn new(lane: usize) -> Self {
        Publisher { lane: lane as u32, carries: PhantomData }
    }

    #[inline]
    pub(crate) fn lane(&self) -> usize {
        self.lane as usize
    }
}

impl<T> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Publisher<T> {}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher(lane {})", self.lane)
    }
}

/// Where messages of one type come from: a plain handle, made by [`crate::Agent::subscribe`]. One lane for each producer.
pub struct Subscription<T> {
    index: u32,
    carries: PhantomData<fn() -> T>,
}

impl<T> Subscription<T> {
    pub(crate) fn new(index: usize) -> Self {
        Subscription { index: index as u32, carries: PhantomData }
    }

    pub(crate) fn index(&self) -> usize {
        self.index as usize
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.index)
    }
}

/// Who sent the message at a frame, on what, and where.
pub(crate) fn message_id<'a>(manifest: &'a Manifest, input: usize, frame: &Frame) -> MessageId<'a> {
    let entry = &manifest.inputs[input];
    MessageId {
        agent: &manifest.neighbours[entry.neighbour as usize].name,
        channel: &manifest.channel(entry.channel).name,
        position: frame.at.position,
    }
}

/// The agent's table in the swarm file.
fn table(manifest: &Manifest) -> &str {
    let replica = format!(".{}", manifest.replica.0 + 1);
    let name = &manifest.name;
    if manifest.replica.1 > 1 { name.strip_suffix(&replica).unwrap_or(name) } else { name }
}

/// Finds a channel that carries `T`.
pub(crate) fn channel<T: Payload>(manifest: &Manifest, name: &str, way: Way) -> Result<u32> {
    let Manifest { file, name: agent, channels, channel_names, .. } = manifest;
    let Some(entry) = channels.iter().find(|c| c.name == name) else {
        if channel_names.lines().any(|known| known == name) {
            return Err(wrong_way(manifest, name, way));
        }
        let near = channel_names.lines().map(|c| (strsim::damerau_levenshtein(c, name), c)).min();
        let hint = match near {
            Some((distance, near)) if distance <= 1 + name.len() / 3 => format!("; did you mean `{near}`?"),
            _ => ".".to_owned(),
        };
        let all: Vec<String> = channel_names.lines().map(|c| format!("`{c}`")).collect();
        return Err(Error::from(format!(
            "agent `{agent}` asks for channel `{name}`, which {file} does not have{hint} It has {}",
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        )));
    };
    if entry.message != T::NAME {
        return Err(Error::from(format!(
            "channel `{name}` carries `{}` ({file}:{}), but agent `{agent}` uses it with `{}`: change `message` there, \
             or the type here",
            entry.message,
            entry.line,
            T::NAME
        )));
    }
    Ok(entry.index)
}

/// Which way a channel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Publishes,
    Subscribes,
}

impl Way {
    fn key(self) -> &'static str {
        match self {
            Way::Publishes => "publishes",
            Way::Subscribes => "subscribes",
        }
    }
}

/// The agent has no lane of a channel in this direction.
pub(crate) fn wrong_way(manifest: &Manifest, name: &str, way: Way) -> Error {
    let Manifest { file, line, name: agent, .. } = manifest;
    let channel = manifest.channels.iter().find(|c| c.name == name).map(|c| c.index);
    let has_other = match way {
        Way::Publishes => manifest.inputs.iter().any(|i| Some(i.channel) == channel),
        Way::Subscribes => manifest.lanes.iter().any(|l| Some(l.channel) == channel),
    };
    let other = match (has_other, way) {
        (false, _) => "",
        (true, Way::Publishes) => " (it only subscribes it)",
        (true, Way::Subscribes) => " (it only publishes it)",
    };
    let (key, table) = (way.key(), table(manifest));
    Error::from(format!(
        "agent `{agent}` {key} channel `{name}`, but the swarm file does not say so{other}: add \"{name}\" to \
         `{key}` of [agent.{table}] ({file}:{line})"
    ))
}

/// The supervisor refused a declaration.
pub(crate) fn refused<T: Payload>(manifest: &Manifest, channel: u32, way: Way, refusal: &str) -> Error {
    let Manifest { file, name: agent, .. } = manifest;
    let entry = manifest.channel(channel);
    Error::from(format!(
        "agent `{agent}` {} channel `{}` ({file}:{}) with a `{}` of fingerprint {}: {refusal}",
        way.key(),
        entry.name,
        entry.line,
        T::NAME,
        T::FINGERPRINT
    ))
}

/// A channel that the swarm file says the agent reads, and that it does not.
pub(crate) fn unread(manifest: &Manifest, input: usize) -> Error {
    let Manifest { file, name: agent, .. } = manifest;
    let entry = &manifest.inputs[input];
    let channel = &manifest.channel(entry.channel).name;
    Error::from(format!(
        "agent `{agent}` subscribes channel `{channel}` ({file}:{}) but says ready without reading it, so that its \
         producers would wait for ever: call `agent.on` or `agent.subscribe` before, or take it out of `subscribes` of \
         [agent.{}]",
        entry.line,
        table(manifest)
    ))
}

/// A channel that the agent subscribed without a handler, and that nobody reads while it serves.
pub(crate) fn unserved(manifest: &Manifest, channel: u32) -> Error {
    let Manifest { file, name: agent, .. } = manifest;
    let entry = manifest.channel(channel);
    let channel = &entry.name;
    Error::from(format!(
        "agent `{agent}` serves without a handler for channel `{channel}` ({file}:{}), so that its producers would wait for ever: call \
         `agent.on` instead of `agent.subscribe`, or `agent.receive` instead of `agent.serve`",
        entry.line
    ))
}

/// Refuses a type of which no message ever fits its lane.
pub(crate) fn check_size<T: Payload>(manifest: &Manifest, lane: usize) -> Result<()> {
    let max_bytes = payload_max(manifest.shape.lanes[lane].capacity_bytes);
    if T::MIN_BYTES as u64 <= max_bytes {
        return Ok(());
    }
    let entry = manifest.channel(manifest.lanes[lane].channel);
    Err(Error::from(format!(
        "a message `{}` takes {} bytes at least, channel `{}` takes {max_bytes} (half of its capacity): raise `capacity` of \
         [channel.{}] ({}:{})",
        T::NAME,
        T::MIN_BYTES,
        entry.name,
        entry.name,
        manifest.file,
        entry.line
    )))
}
