//! The demo's agents: lister, worker, collector. Separate processes of this same binary (`shoal agent NAME FOLDER`), written
//! with nothing but the SDK.
//!
//! FOLDER is the run's temporary folder: `tree` names the walked folder, `list` is the lister's walk, `records` is what the
//! collector has gathered.

use super::{Collected, CollectedFile, Counter, FileResult, Outcome, Seen, walk, walk_file};
use shoal_agent::{Agent, Next, Result};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A file to be counted.
#[shoal_agent::message]
struct Task {
    /// Its number in the walk.
    index: u64,
    /// Its path below the walked folder, as bytes.
    path: Vec<u8>,
    /// Its size at the walk.
    size_bytes: u64,
    /// Its time of change at the walk, ns.
    mtime_ns: i64,
}

/// What a file was found to hold.
#[shoal_agent::message]
struct Tally {
    /// Its number in the walk.
    index: u64,
    /// Its path below the walked folder, as bytes.
    path: Vec<u8>,
    /// Its figures, or why there are none.
    found: Found,
    /// Whether it changed since the walk.
    changed: bool,
}

/// The figures of a file.
#[shoal_agent::message]
enum Found {
    /// It was read.
    Counted {
        /// Its size.
        bytes: u64,
        /// Newlines.
        lines: u64,
        /// Words, as `LC_ALL=C wc -w` counts them.
        words: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// It could not be read, and why.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// What lies where in the run's temporary folder.
pub struct Folder(PathBuf);

impl Folder {
    /// The run's folder.
    pub fn new(path: &Path) -> Self {
        Folder(path.to_owned())
    }

    /// Makes it, and writes down which tree is to be walked and how.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn create(&self, tree: &Path, skip_build_folders: bool) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let how = [u8::from(skip_build_folders)];
        std::fs::write(self.0.join("tree"), [&how[..], tree.as_os_str().as_bytes()].concat())
    }

    fn tree(&self) -> io::Result<(PathBuf, bool)> {
        let bytes = std::fs::read(self.0.join("tree"))?;
        let (how, tree) = bytes.split_first().ok_or_else(|| io::Error::other("the run's `tree` is empty"))?;
        Ok((PathBuf::from(OsString::from_vec(tree.to_vec())), *how == 1))
    }

    /// The lister's walk.
    pub fn list(&self) -> PathBuf {
        self.0.join("list")
    }

    /// Where the collector gathers.
    pub fn records(&self) -> PathBuf {
        self.0.join("records")
    }
}

/// Runs one of the demo's agents.
pub fn main(args: &[OsString]) -> ExitCode {
    let [name, folder] = args else {
        eprintln!("usage: shoal agent lister|worker|collector FOLDER (started by `shoal demo`)");
        return ExitCode::from(2);
    };
    let folder = Folder::new(Path::new(folder));
    match name.to_str() {
        Some("lister") => shoal_agent::run(|agent| lister(agent, &folder)),
        Some("worker") => shoal_agent::run(|agent| worker(agent, &folder)),
        Some("collector") => shoal_agent::run(|agent| collector(agent, &folder)),
        _ => {
            eprintln!("shoal: the demo has no agent {name:?}");
            ExitCode::from(2)
        }
    }
}

/// Walks the tree and sends a task for every file. A successor goes on with the same walk behind the last committed task.
fn lister(agent: &mut Agent, folder: &Folder) -> Result<()> {
    let tasks = agent.publish::<Task>("tasks")?;
    agent.ready()?;
    let (tree, skip_build_folders) = folder.tree()?;
    let walk = match walk_file::load(&folder.list()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let walk = walk(&tree, skip_build_folders)?;
            walk_file::save(&walk, &folder.list())?;
            walk
        }
        other => other?,
    };
    let sent = agent.sent(&tasks);
    for (index, path, seen) in walk.files().skip(usize::try_from(sent)?) {
        if agent.stopping() {
            break;
        }
        let path = path.as_os_str().as_bytes().to_vec();
        agent.send(&tasks, &Task { index, path, size_bytes: seen.size_bytes, mtime_ns: seen.mtime_ns })?;
    }
    Ok(())
}

/// Reads each file and sends its figures.
fn worker(agent: &mut Agent, folder: &Folder) -> Result<()> {
    let (tree, _) = folder.tree()?;
    let tallies = agent.publish::<Tally>("tallies")?;
    let mut counter = Counter::default();
    agent.on::<Task>("tasks", move |step, task| {
        let seen = Seen { size_bytes: task.size_bytes.to_native(), mtime_ns: task.mtime_ns.to_native() };
        let outcome = counter.count(&tree.join(OsStr::from_bytes(&task.path)), seen);
        let changed = outcome.changed();
        let found = match outcome {
            Outcome::Counted { bytes, lines, words, sha256, .. } => {
                Found::Counted { bytes, lines, words, sha256 }
            }
            Outcome::Unreadable { reason, .. } => Found::Unreadable { reason },
        };
        step.send(
            &tallies,
            &Tally { index: task.index.to_native(), path: task.path.to_vec(), found, changed },
        )
    })?;
    agent.serve()
}

/// Gathers the figures in a file. One that died between writing and acknowledging finds the record there and skips it.
fn collector(agent: &mut Agent, folder: &Folder) -> Result<()> {
    let tallies = agent.subscribe::<Tally>("tallies")?;
    let (mut file, reload) = CollectedFile::open(&folder.records())?;
    let mut known: HashSet<u64> = reload.records.iter().map(|r| r.index).collect();
    loop {
        match agent.receive(&tallies, None)? {
            Next::Message(received) => {
                let record = collected(received.message());
                if known.insert(record.index) {
                    file.append(&record)?;
                }
                received.commit()?;
            }
            Next::TimedOut => {}
            Next::Closed | Next::Stopping => return Ok(()),
        }
    }
}

fn collected(tally: &ArchivedTally) -> Collected {
    let changed = tally.changed;
    let outcome = match &tally.found {
        ArchivedFound::Counted { bytes, lines, words, sha256 } => Outcome::Counted {
            bytes: bytes.to_native(),
            lines: lines.to_native(),
            words: words.to_native(),
            sha256: *sha256,
            changed,
        },
        ArchivedFound::Unreadable { reason } => Outcome::Unreadable { reason: reason.to_string(), changed },
    };
    let path = PathBuf::from(OsStr::from_bytes(&tally.path));
    Collected { index: tally.index.to_native(), result: FileResult { path, outcome } }
}
