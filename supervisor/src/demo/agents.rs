//! The demo's agents: lister, worker, collector, and the reader that `shoal demo` itself is. Written with nothing but the SDK;
//! the first three are processes of this same binary (`shoal agent NAME`), in whose environment [`TREE`] is the walked folder.
//! None of them keeps a file: what the next incarnation needs is their state.

use super::walk::{Place, Steps};
use super::{Counter, FileResult, Outcome, Seen, Sums};
use crate::log::report;
use shoal_agent::{Agent, Next, Result, rkyv};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The environment variable that names the walked folder: any bytes, which a swarm file could not hold.
pub const TREE: &str = "SHOAL_DEMO_TREE";

/// The lister's argument for a walk of everything.
pub const EVERYTHING: &str = "everything";
/// The lister's argument for a walk without the folders that builds make.
pub const SOURCES: &str = "sources";

/// A file to be counted.
#[shoal_agent::message]
struct Task {
    /// Its path below the walked folder, as bytes.
    path: Vec<u8>,
    /// What the lister saw of it.
    seen: Seen,
}

/// What a file was found to hold.
#[shoal_agent::message]
struct Tally {
    /// Its path below the walked folder, as bytes.
    path: Vec<u8>,
    /// What the lister saw of it.
    seen: Seen,
    /// Its figures, or why there are none.
    outcome: Outcome,
}

/// Runs one of the demo's agents.
pub fn main(args: &[OsString]) -> ExitCode {
    let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let Some(tree) = std::env::var_os(TREE).map(PathBuf::from) else {
        report!("shoal: `shoal demo` starts its agents itself");
        return ExitCode::from(2);
    };
    match args[..] {
        ["lister", what] => shoal_agent::run(|agent| lister(agent, &tree, what == SOURCES)),
        ["worker"] => shoal_agent::run(|agent| worker(agent, &tree)),
        ["collector"] => shoal_agent::run(collector),
        _ => {
            report!("shoal: the demo has no agent {args:?}");
            ExitCode::from(2)
        }
    }
}

/// Walks the tree and sends a task for every file. Its state is its place: a successor goes on behind it.
fn lister(agent: &mut Agent, tree: &Path, skip_build_folders: bool) -> Result<()> {
    let tasks = agent.publish::<Task>("tasks")?;
    let state = agent.state::<Place>()?;
    agent.ready()?;
    let mut place = agent.load(&state)?.unwrap_or_default();
    for entry in Steps::behind(tree, skip_build_folders, place.clone())? {
        let Some(seen) = entry.file() else { continue };
        if agent.stopping() {
            break;
        }
        place.pass(&entry.path);
        let task = Task { path: entry.path.into_os_string().into_vec(), seen };
        agent.step(|step| {
            step.keep(&state, &place)?;
            step.send(&tasks, &task)
        })?;
    }
    Ok(())
}

/// Reads each file and sends its figures.
fn worker(agent: &mut Agent, tree: &Path) -> Result<()> {
    let tallies = agent.publish::<Tally>("tallies")?;
    let mut counter = Counter::default();
    let tree = tree.to_owned();
    agent.on::<Task>("tasks", move |step, task| {
        let seen = rkyv::deserialize::<Seen, rkyv::rancor::Error>(&task.seen)?;
        let outcome = counter.count(&tree.join(OsStr::from_bytes(&task.path)), seen);
        step.send(&tallies, &Tally { path: task.path.to_vec(), seen, outcome })
    })?;
    agent.serve()
}

/// Sums the figures up. Its state is the sums, and it tells them once, when all workers have ended.
fn collector(agent: &mut Agent) -> Result<()> {
    let tallies = agent.subscribe::<Tally>("tallies")?;
    let told = agent.publish::<Sums>("sums")?;
    let state = agent.state::<Sums>()?;
    let mut sums = agent.load(&state)?.unwrap_or_default();
    loop {
        match agent.receive(&tallies, None)? {
            Next::Message(received) => {
                sums.add(&result_of(received.message())?);
                received.keep(&state, &sums)?;
                received.commit()?;
            }
            Next::TimedOut => {}
            Next::Stopping => return Ok(()),
            Next::Closed => break,
        }
    }
    // Killed behind this send, it comes back and finds it done.
    if agent.sent(&told) == 0 {
        agent.send(&told, &sums)?;
    }
    Ok(())
}

/// What the reader has read.
#[derive(Default)]
pub struct Read {
    /// What the workers found.
    pub results: Vec<FileResult>,
    /// What the collector told; once, if all is well.
    pub sums: Vec<Sums>,
    /// It was asked to end before everything had come.
    pub stopped: bool,
}

/// Is the reader, in this process, until all is read: it sees every message that the collector sees, and the collector's own.
/// `each` is called for every result.
///
/// # Errors
/// The supervisor is gone, or what came is no message.
pub fn reader(control: OwnedFd, mut each: impl FnMut()) -> Result<Read> {
    let mut agent = Agent::attach_through(control)?;
    let tallies = agent.subscribe::<Tally>("tallies")?;
    let sums = agent.subscribe::<Sums>("sums")?;
    let mut read = Read::default();
    loop {
        match agent.receive(&tallies, None)? {
            Next::Message(received) => {
                read.results.push(result_of(received.message())?);
                received.commit()?;
                each();
            }
            Next::TimedOut => {}
            Next::Stopping => return Ok(Read { stopped: true, ..read }),
            Next::Closed => break,
        }
    }
    loop {
        match agent.receive(&sums, None)? {
            Next::Message(received) => {
                read.sums.push(rkyv::deserialize::<Sums, rkyv::rancor::Error>(received.message())?);
                received.commit()?;
            }
            Next::TimedOut => {}
            Next::Stopping => return Ok(Read { stopped: true, ..read }),
            Next::Closed => return Ok(read),
        }
    }
}

fn result_of(tally: &ArchivedTally) -> Result<FileResult> {
    let Tally { path, seen, outcome } = rkyv::deserialize::<Tally, rkyv::rancor::Error>(tally)?;
    Ok(FileResult { path: PathBuf::from(OsString::from_vec(path)), seen, outcome })
}
