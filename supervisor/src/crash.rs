//! Crash reports: what is known of each death that was not a normal end, one JSON file each.
//!
//! ```text
//!   <logs>/crashes/            0700
//!     └ 12.json                0600   one `Crash`
//! ```
//! What lives here: the report, and what of it is kept. What does not: the evidence (`swarm/crashes.rs`), the page that people
//! read (`crash/page.rs`), where the kernel leaves a core (`crash/core_file.rs`), files on a shelf (`shelf.rs`).
//!
//! A report is written when the next incarnation is on its way already, by one small write and a rename, without waiting for a
//! disk. The last ones are in memory, too: they can be asked for while nothing can be written.

pub mod core_file;
pub mod page;

pub use core_file::Core;

use crate::ended::Usage;
use crate::shelf::{self, Bounds, Shelf};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;

/// The name of the folder in the log folder.
pub const FOLDER: &str = "crashes";
/// How many reports are kept unless the swarm file says otherwise.
pub const BOUNDS: Bounds = Bounds { count: 200, bytes: 16 << 20 };
/// How many are kept in memory.
pub const IN_MEMORY_MAX: usize = 32;
/// What the name of a report ends with.
const EXTENSION: &str = "json";
/// The largest report, bytes: twenty lines of a kilobyte, escaped, and room.
const BYTES_MAX: u64 = 1 << 20;

/// A crash report; as JSON the file, and what `shoal crashes --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Its number, by which `shoal crashes show` finds it.
    pub id: u64,
    /// The swarm.
    pub swarm: String,
    /// Which run of the swarm, in hexadecimal.
    pub run: String,
    /// Which process: `worker.1` of four replicas, else the agent's own name.
    pub agent: String,
    /// Which of its lives.
    pub generation: u32,
    /// Its process number; another process may have it by now.
    pub pid: i32,
    /// When the death was proved, UTC.
    pub at: String,
    /// How long it lived, ms.
    pub lived_ms: u64,
    /// The state in which it died, in the word of docs/states.md.
    pub state: String,
    /// How it ended, in words.
    pub how: String,
    /// The exit status, if it ended by itself.
    pub status: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The name of that signal.
    pub signal_name: Option<String>,
    /// What it had used; nothing is known of a process that was handed over.
    pub usage: Option<Usage>,
    /// The core that the kernel wrote of it, if it did.
    pub core: Option<Core>,
    /// Whether somebody ordered this death: then it counts for nothing.
    pub ordered: bool,
    /// Who or what ended it, if it did not end by itself.
    pub by: Option<String>,
    /// The supervisor's word on its memory: `committed`, `corrupt`, or `none` for one that never wrote any.
    pub verdict: String,
    /// The message that it had in hand.
    pub in_hand: Option<InHand>,
    /// The last messages that it took, oldest first.
    pub received: Vec<Seen>,
    /// The last messages that it sent, oldest first.
    pub sent: Vec<Seen>,
    /// What it had counted.
    pub counts: Counts,
    /// The last lines that it printed, oldest first.
    pub output: Vec<String>,
    /// What follows, and why.
    pub decision: Decision,
}

/// The message that a dead process had in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InHand {
    /// Its id: `producer/channel/position`.
    pub message: String,
    /// Who sent it.
    pub producer: String,
    /// Its channel.
    pub channel: String,
    /// Where on the producer's lane.
    pub position: u64,
    /// Its number on that lane.
    pub sequence: u64,
    /// Which attempt at it this was, from 1.
    pub attempt: u32,
    /// After how many attempts it is given up; 0: never.
    pub attempts_max: u32,
    /// How long it was held, ms, to the kernel's tick; since `step.busy()` where that was called.
    pub held_ms: u64,
}

/// A message that a dead process had taken or sent, as its flight recorder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id: `producer/channel/position`. For one that was sent, the position behind it: several of one step count as one.
    pub message: String,
    /// Which attempt at it this was, from 1; 0 for one that was sent.
    pub attempt: u32,
    /// How long before the end of the process, ms; none if no time was noted with it.
    pub before_end_ms: Option<u64>,
}

/// What a dead process had counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Messages received and acknowledged.
    pub received: u64,
    /// Steps that were aborted.
    pub aborted: u64,
    /// Sends that full lanes refused.
    pub rejected: u64,
    /// Faults of peers seen.
    pub peer_faults: u64,
}

/// What follows a death.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub what: What,
    /// Why, in words.
    pub why: String,
    /// How long its next start waits, µs.
    pub pause_us: Option<u64>,
    /// Whether it counts towards the intensity.
    pub counted: bool,
    /// How many deaths the window holds.
    pub deaths: u32,
    /// How many are borne.
    pub deaths_max: u32,
    /// How long the window is, ms of lived time.
    pub period_ms: u64,
}

/// What follows, as a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is started again at once.
    Restarted,
    /// It is started again after a pause.
    Pauses,
    /// Its next start waits until readers have drained its predecessors.
    Drains,
    /// It is started again when those of its set that fall with it are down.
    Together,
    /// It is given up.
    GivenUp,
    /// It stays down, as it was asked to.
    Stopped,
    /// It has ended, as its policy says.
    #[default]
    Ended,
}

/// What became of a report.
#[derive(Debug)]
pub enum Filed {
    /// It is in its file.
    Written,
    /// It is in memory only; with the reason the first time that this happens.
    InMemory(Option<String>),
}

/// The crash reports of a running swarm.
pub struct Crashes {
    shelf: Option<Shelf>,
    kept: VecDeque<Crash>,
    failing: bool,
    numbers: u64,
}

impl Crashes {
    /// Kept in memory only.
    pub fn in_memory() -> Crashes {
        Crashes { shelf: None, kept: VecDeque::new(), failing: false, numbers: 1 }
    }

    /// Kept in a log folder, too.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn in_folder(logs: &Path, bounds: Bounds) -> io::Result<Crashes> {
        let shelf = Shelf::open(&logs.join(FOLDER), EXTENSION, bounds)?;
        Ok(Crashes { shelf: Some(shelf), ..Crashes::in_memory() })
    }

    /// Goes on from what a predecessor of this supervisor left in the folder; no number of it is used again.
    pub fn take_over(&mut self) {
        self.shelf.iter_mut().for_each(|shelf| shelf.restore_next(0));
    }

    /// The number of the next report.
    pub fn number(&mut self) -> u64 {
        match &mut self.shelf {
            Some(shelf) => shelf.take_number(),
            None => {
                self.numbers += 1;
                self.numbers - 1
            }
        }
    }

    /// Files a report.
    pub fn file(&mut self, crash: Crash) -> Filed {
        let written = match &mut self.shelf {
            None => Ok(()),
            Some(shelf) => {
                let bytes = serde_json::to_vec_pretty(&crash).map_err(io::Error::other);
                bytes.and_then(|mut bytes| {
                    bytes.push(b'\n');
                    shelf.put(crash.id, &[&bytes]).map(|_| ())
                })
            }
        };
        if self.kept.len() == IN_MEMORY_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(crash);
        match written {
            Ok(()) => {
                self.failing = false;
                Filed::Written
            }
            Err(error) => {
                let first = !std::mem::replace(&mut self.failing, true);
                let place = self.shelf.as_ref().map(|shelf| shelf.folder().display().to_string());
                let text = || {
                    format!(
                        "crash reports cannot be written to {}: {error}; make room there: until then the last {IN_MEMORY_MAX} are in memory \
                         only",
                        place.unwrap_or_default()
                    )
                };
                Filed::InMemory(first.then(text))
            }
        }
    }

    /// Those in memory, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Crash> {
        self.kept.iter()
    }
}

/// The reports in a log folder, oldest first; none if there is no folder. One that another process removes meanwhile is left
/// out.
///
/// # Errors
/// The system's refusal, or a file that is no report.
pub fn list(logs: &Path) -> io::Result<Vec<Crash>> {
    let folder = logs.join(FOLDER);
    let mut crashes = Vec::new();
    for id in shelf::sizes(&folder, EXTENSION)?.into_keys() {
        crashes.extend(read(logs, id)?);
    }
    Ok(crashes)
}

/// One report; `None` if there is none of this number.
///
/// # Errors
/// As `list`.
pub fn read(logs: &Path, id: u64) -> io::Result<Option<Crash>> {
    let Some((file, path)) = shelf::open(&logs.join(FOLDER), EXTENSION, id)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let text = format!("{} is no crash report of this build: {error}; remove it", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

#[cfg(test)]
pub(crate) mod tests;
