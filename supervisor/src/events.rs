//! What happens to a swarm, event by event: the last ones in memory, and all in a file that is rotated.
//!
//! ```text
//!   Swarm ─► Events ─┬─► the last 1024 in memory     ─► control socket ─► shoal events [-f]
//!                    └─► <logs>/events.jsonl, .1, …  ─► shoal events --file, after the swarm has ended
//! ```
//! Numbers go up by one, over the runs that share a log folder, so that who follows knows what he missed.

use crate::output::{LogFile, utc_of};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

/// The name of the file in the log folder.
pub const FILE: &str = "events.jsonl";
/// How many are kept in memory.
pub const KEPT_MAX: usize = 1024;
/// How much of the file of a former run is read to go on with its numbers, bytes: less if that holds a whole event.
const TAIL_BYTES: [u64; 2] = [4 << 10, 64 << 10];
/// The longest text of an event, bytes.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The swarm begins.
    SwarmStarted,
    /// The swarm was asked to end, or ends by itself.
    SwarmEnding,
    /// Nothing of it runs any more.
    SwarmEnded,
    /// An agent's process was made.
    Started,
    /// An agent's process could not be made.
    NotStarted,
    /// An agent is in another state.
    State,
    /// An agent was not ready in time.
    NotReady,
    /// A process is dead, and that is proved.
    Died,
    /// A process is dead and something still maps its memory.
    Unproven,
    /// A dead process had written over its own memory.
    Corrupt,
    /// An agent held a message beyond its deadline.
    Hang,
    /// An agent slept though messages waited, and was rung.
    Rescue,
    /// An agent accused another of impossible words.
    Accusation,
    /// An agent is not started again.
    GiveUp,
    /// What becomes of what an agent that will not return had not read.
    Gone,
    /// The members of a set start again together, or are given up together.
    Set,
    /// Somebody ordered something.
    Order,
    /// A message was put with the dead letters.
    DeadLetter,
    /// Another supervisor goes on with the swarm.
    TakeOver,
    /// Anything else that the operator was told.
    Notice,
}

impl Kind {
    /// The word of the JSON.
    pub fn word(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }
}

/// One event; as JSON a line of the file and of `shoal events --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub n: u64,
    /// When, UTC.
    pub at: String,
    /// What kind it is.
    pub kind: Kind,
    /// To whom it happened, if not to the swarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// In which of its lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// What happened, in words.
    pub text: String,
    /// The number of the crash report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash: Option<u64>,
}

/// What happened to what: an [`Event`] before it has its time and number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Of<'a> {
    /// To whom.
    pub agent: Option<(&'a str, u32)>,
    /// The number of the crash report.
    pub crash: Option<u64>,
}

/// The events of a running swarm.
pub struct Events {
    kept: VecDeque<Event>,
    /// How many of them, the last ones, are not in the file yet.
    unwritten: usize,
    next: u64,
    file: Option<LogFile>,
}

impl Events {
    /// Kept in memory only.
    pub fn in_memory() -> Events {
        Events { kept: VecDeque::new(), unwritten: 0, next: 1, file: None }
    }

    /// Kept in a log folder, too; goes on with the numbers of what is there.
    pub fn in_folder(logs: &Path) -> Events {
        let path = logs.join(FILE);
        let last = tail(&path).or_else(|| tail(&logs.join(format!("{FILE}.1"))));
        let (kept, next) = (VecDeque::new(), last.map_or(1, |n| n + 1));
        Events { kept, unwritten: 0, next, file: Some(LogFile::at(path)) }
    }

    /// Notes an event. It is in the file after [`Events::write_out`].
    pub fn note(&mut self, kind: Kind, of: Of<'_>, text: &str) {
        let event = Event {
            n: self.next,
            at: utc_of(SystemTime::now()),
            kind,
            agent: of.agent.map(|(name, _)| name.to_owned()),
            generation: of.agent.map(|(_, generation)| generation).filter(|generation| *generation > 0),
            text: cut(text),
            crash: of.crash,
        };
        self.next += 1;
        if self.unwritten == KEPT_MAX {
            self.write_out();
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
        self.unwritten += 1;
    }

    /// Writes to the file what was noted since the last call.
    pub fn write_out(&mut self) {
        let first = self.kept.len() - std::mem::take(&mut self.unwritten);
        let Some(file) = &mut self.file else { return };
        for mut line in self.kept.range(first..).flat_map(serde_json::to_vec) {
            line.push(b'\n');
            file.append(&line);
        }
        file.write_out();
    }

    /// Why the file could not be written, once for each time that it begins to fail.
    pub fn fault(&mut self) -> Option<String> {
        self.file.as_mut().and_then(LogFile::take_fault)
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is kept from a number on, oldest first.
    pub fn from(&self, n: u64) -> Vec<Event> {
        self.kept.iter().filter(|event| event.n >= n).cloned().collect()
    }
}

/// The number of the last event in a file.
fn tail(path: &Path) -> Option<u64> {
    let mut file = std::fs::File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    TAIL_BYTES.into_iter().find_map(|most| {
        file.seek(SeekFrom::Start(len.saturating_sub(most))).ok()?;
        let mut bytes = Vec::with_capacity(most as usize);
        file.by_ref().take(most).read_to_end(&mut bytes).ok()?;
        bytes.split(|byte| *byte == b'\n').rev().find_map(parse).map(|event| event.n)
    })
}

/// An event from a line of a file; `None` for one that a full disk has torn.
pub fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = if end < text.len() { "…" } else { "" };
    format!("{}{mark}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(events: &Events, from: u64) -> Vec<u64> {
        events.from(from).iter().map(|event| event.n).collect()
    }

    #[test]
    fn numbers_go_on_over_runs_and_a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut events = Events::in_folder(folder.path());
        events.note(Kind::SwarmStarted, Of::default(), "it begins");
        events.note(Kind::Started, Of { agent: Some(("worker.1", 3)), crash: None }, "process 7");
        events.write_out();
        assert_eq!((numbers(&events, 0), numbers(&events, 2)), (vec![1, 2], vec![2]));
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("written");
        let second = parse(text.lines().nth(1).expect("a line").as_bytes()).expect("an event");
        assert_eq!(second, events.from(2)[0]);
        assert_eq!((second.agent.as_deref(), second.generation), (Some("worker.1"), Some(3)));
        // Also one that is longer than what is read first.
        for torn in ["", &"x".repeat(10_000)] {
            std::fs::write(&path, format!("{text}{{\"n\":9,\"at{torn}")).expect("written");
            assert_eq!(Events::in_folder(folder.path()).next(), 3);
        }
    }

    #[test]
    fn the_last_thousand_are_kept_and_long_texts_are_cut() {
        let mut events = Events::in_memory();
        for _ in 0..KEPT_MAX + 5 {
            events.note(Kind::State, Of::default(), &"ü".repeat(5000));
        }
        let kept = events.from(0);
        assert_eq!((kept.len(), kept[0].n, events.next()), (KEPT_MAX, 6, KEPT_MAX as u64 + 6));
        assert!(kept[0].text.len() <= TEXT_BYTES_MAX + 3 && kept[0].text.ends_with("ü…"));
    }
}
