//! The dead letters of a swarm: one file each in its run folder, which outlives the run.
//!
//! ```text
//!   <run folder>/dead-letters/           0700
//!     ├ 7.letter                         0600   one line of JSON (`Letter`), then the message's bytes as they came
//!     └ orders                           0600   what is being replayed (`Orders`), while it is
//! ```
//! How files of a folder are written and bounded is in `shelf.rs`; whoever asks to keep a letter is told which made room for it.

pub use crate::shelf::Bounds;

use crate::shelf::{self, Shelf};
use crate::trial::Report;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The name of the folder in a run folder.
pub const FOLDER: &str = "dead-letters";
/// The name of the file with the orders.
const ORDERS: &str = "orders";
/// What the name of a letter ends with.
const EXTENSION: &str = "letter";
/// The longest line of JSON in a letter, bytes: sixteen reports of twenty lines, and room.
const FACTS_BYTES_MAX: u64 = 4 << 20;

/// What is known of a dead letter; as JSON what `shoal dlq` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number, by which `shoal dlq` finds it.
    pub id: u64,
    /// The message's id: `producer/channel/position`.
    pub message: String,
    /// The swarm.
    pub swarm: String,
    /// Which run of the swarm, in hexadecimal.
    pub run: String,
    /// The channel.
    pub channel: String,
    /// The name of its message type.
    pub message_type: String,
    /// The fingerprint of that type, in hexadecimal.
    pub fingerprint: String,
    /// Who sent it.
    pub producer: String,
    /// Where on the producer's lane.
    pub position: u64,
    /// Which process gave it up.
    pub agent: String,
    /// The agent of the swarm file that it is a replica of.
    pub group: String,
    /// How often it was given, the last time included.
    pub attempts: u32,
    /// Whether it was rejected on purpose.
    pub rejected: bool,
    /// Why it was given up.
    pub reason: String,
    /// When the first attempt ended, UTC.
    pub first: String,
    /// When it was given up, UTC.
    pub parked: String,
    /// Bytes of the message.
    pub bytes: u64,
    /// Whether they are here: false for a message larger than all dead letters may be together.
    pub kept: bool,
    /// What became of each attempt.
    pub reports: Vec<Report>,
}

/// What is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// A number that no orders of this run had.
    pub batch: u64,
    /// Letter by letter.
    pub letters: Vec<Order>,
}

/// One letter that is to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// The lane of the agent that replays it.
    pub lane: u32,
}

/// How many letters are kept unless the swarm file says otherwise.
pub const BOUNDS: Bounds = Bounds { count: 1000, bytes: 64 << 20 };

/// The dead letters of a running swarm.
#[derive(Debug)]
pub struct DeadLetters {
    shelf: Shelf,
}

/// What became of keeping a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub id: u64,
    /// Whether its bytes are kept.
    pub whole: bool,
    /// The numbers of those that made room for it.
    pub dropped: Vec<u64>,
}

impl DeadLetters {
    /// Those in a folder, which need not exist; half-written ones and orders of a run that is over are swept.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(folder: &Path, bounds: Bounds) -> io::Result<DeadLetters> {
        let shelf = Shelf::open(folder, EXTENSION, bounds)?;
        match fs::remove_file(folder.join(ORDERS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(DeadLetters { shelf }),
        }
    }

    /// Keeps a letter, whose number is given here. What is too much is dropped, oldest first.
    ///
    /// # If we die here
    /// The letter is there or it is not. A dropped one may be gone without the new one being there.
    ///
    /// # Errors
    /// The system's refusal, with the place and what to do; then nothing is kept.
    pub fn keep(&mut self, mut letter: Letter, bytes: &[u8]) -> io::Result<Kept> {
        letter.id = self.shelf.next();
        letter.kept = true;
        let mut facts = line_of(&letter)?;
        if (facts.len() + bytes.len()) as u64 > self.shelf.bounds().bytes {
            letter.kept = false;
            facts = line_of(&letter)?;
        }
        let bytes = if letter.kept { bytes } else { &[] };
        let dropped = self.shelf.put(letter.id, &[&facts, bytes]).map_err(|error| {
            let (size, place) = (facts.len() + bytes.len(), self.folder().display());
            let text = format!("writing a dead letter of {size} bytes to {place}: {error}; make room there");
            io::Error::new(error.kind(), text)
        })?;
        Ok(Kept { id: letter.id, whole: letter.kept, dropped })
    }

    /// The number that the next letter is given.
    pub fn next(&self) -> u64 {
        self.shelf.next()
    }

    /// Goes on from what a predecessor of this supervisor knew; a letter that it kept and did not write down has its number.
    pub fn restore_next(&mut self, next: u64) {
        self.shelf.restore_next(next);
    }

    /// The letter of a message that a group gave up in this run, if there is one.
    pub fn find(&self, run: &str, message: &str, group: &str) -> Option<u64> {
        let is_it = |letter: &Letter| letter.run == run && letter.message == message && letter.group == group;
        list(self.folder()).ok()?.iter().find(|letter| is_it(letter)).map(|letter| letter.id)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.shelf.folder()
    }

    /// The facts of all letters, or of those of these numbers.
    ///
    /// # Errors
    /// As `list`, or there is none of a number.
    pub fn facts(&self, ids: Option<&[u64]>) -> io::Result<Vec<Letter>> {
        let all = list(self.folder())?;
        let Some(ids) = ids else { return Ok(all) };
        let of = |id: &u64| {
            let found = all.iter().find(|letter| letter.id == *id).cloned();
            found.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("there is no dead letter {id}"))
            })
        };
        ids.iter().collect::<std::collections::BTreeSet<_>>().into_iter().map(of).collect()
    }

    /// Leaves orders for the agent that replays letters.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn order(&self, batch: u64, letters: Vec<Order>) -> io::Result<()> {
        let orders = serde_json::to_vec(&Orders { batch, letters })?;
        self.shelf.write(ORDERS, &[&orders])
    }
}

fn line_of(letter: &Letter) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(letter)?;
    line.push(b'\n');
    Ok(line)
}

/// Whether a folder holds letters.
pub fn is_worth_keeping(folder: &Path) -> bool {
    !shelf::sizes(folder, EXTENSION).is_ok_and(|sizes| sizes.is_empty())
}

/// The letters in a folder, oldest first; none if there is no folder. One that another process removes meanwhile is left out.
///
/// # Errors
/// The system's refusal, or a file that is no letter.
pub fn list(folder: &Path) -> io::Result<Vec<Letter>> {
    let mut letters = Vec::new();
    for id in shelf::sizes(folder, EXTENSION)?.into_keys() {
        letters.extend(open(folder, id)?.map(|(letter, _)| letter));
    }
    Ok(letters)
}

/// One letter with the bytes of its message; `None` if there is none of this number.
///
/// # Errors
/// As `list`.
pub fn read(folder: &Path, id: u64) -> io::Result<Option<(Letter, Vec<u8>)>> {
    let Some((letter, mut rest)) = open(folder, id)? else { return Ok(None) };
    let mut bytes = Vec::new();
    rest.read_to_end(&mut bytes)?;
    if letter.kept && bytes.len() as u64 != letter.bytes {
        return Err(not_a_letter(
            &folder.join(format!("{id}.{EXTENSION}")),
            "its message is not of the length that it says",
        ));
    }
    Ok(Some((letter, bytes)))
}

/// The orders in a folder, if there are some.
///
/// # Errors
/// The system's refusal, or what is there are none.
pub fn orders(folder: &Path) -> io::Result<Option<Orders>> {
    match fs::read(folder.join(ORDERS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}

/// The orders are done.
///
/// # Errors
/// The system's refusal.
pub fn forget_orders(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(ORDERS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // An empty folder is not worth keeping; a full one refuses.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Removes a letter; false if there is none of this number.
///
/// # Errors
/// The system's refusal.
pub fn remove(folder: &Path, id: u64) -> io::Result<bool> {
    let removed = shelf::remove(folder, EXTENSION, id);
    // An empty folder is not worth keeping; a full one refuses.
    let _ = fs::remove_dir(folder);
    removed
}

fn open(folder: &Path, id: u64) -> io::Result<Option<(Letter, BufReader<File>)>> {
    let Some((file, path)) = shelf::open(folder, EXTENSION, id)? else { return Ok(None) };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    (&mut reader).take(FACTS_BYTES_MAX).read_until(b'\n', &mut line)?;
    let letter: Letter =
        serde_json::from_slice(&line).map_err(|error| not_a_letter(&path, &error.to_string()))?;
    Ok(Some((letter, reader)))
}

fn not_a_letter(path: &Path, why: &str) -> io::Error {
    let text = format!("{} is no dead letter of this build: {why}; remove it", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
