//! The agent that replays dead letters, in the swarm's own binary: started by the supervisor when an operator asks, ends when it
//! is done.
//!
//! It has a lane for each group that subscribes a channel, read by that group alone. Each letter is one step: the bytes as they
//! came, and a state that says how far in its orders it is, become real together; then the letter is removed. Whoever dies
//! meanwhile, no letter is sent twice, and none is removed that was not sent.

use crate::log::report;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use shoal_runtime::attachment::{self, Attachment, SendError};

use crate::config::{self, Policy, Restart};
use crate::dead_letters::{self, Order};

/// Its name in the swarm; no agent of a swarm file may have it.
pub const NAME: &str = shoal_runtime::wire::POSTMAN;
/// The fingerprint of its state: the batch, and how many orders of it are done.
const STATE: u64 = u64::from_le_bytes(*b"postman\0");

/// What the swarm file would say of it.
///
/// # Errors
/// The own binary cannot be found.
pub fn agent(folder: &Path) -> io::Result<config::Agent> {
    let binary = config::own_binary().map_err(io::Error::other)?;
    let text = |path: PathBuf| path.into_os_string().into_string().map_err(|_| io::ErrorKind::InvalidInput);
    let millisecond = Duration::from_millis(1);
    Ok(config::Agent {
        name: NAME.to_owned(),
        command: vec![binary, "agent".to_owned(), NAME.to_owned(), text(folder.to_owned())?],
        replicas: 1,
        removed: false,
        replicas_max: None,
        group: NAME.to_owned(),
        prefetch: 1,
        subscribes: Vec::new(),
        publishes: Vec::new(),
        restart: Arc::new(Restart {
            policy: Policy::Transient,
            // What it waits for is not its own fault.
            intensity: 10_000,
            period: Duration::from_secs(1),
            backoff_min: millisecond,
            backoff_max: 100 * millisecond,
            ..Restart::default()
        }),
        stop_timeout: Duration::from_secs(2),
        ready_timeout: Duration::from_secs(10),
        deadline: None,
        standby: 0,
        prefork: false,
        significant: false,
        after: Vec::new(),
        max_attempts: 0,
        on_gone: Default::default(),
        env: Default::default(),
        confinement: Default::default(),
        line: 0,
    })
}

/// Replays what the orders in a folder say.
pub fn main(args: &[OsString]) -> ExitCode {
    let [folder] = args else {
        report!("usage: shoal agent {NAME} FOLDER (started by `shoal dlq replay`)");
        return ExitCode::from(2);
    };
    match deliver(Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report!("replaying dead letters: {error}");
            ExitCode::FAILURE
        }
    }
}

fn deliver(folder: &Path) -> io::Result<()> {
    let mut a = attachment::attach()?;
    a.ready()?;
    let Some(orders) = dead_letters::orders(folder)? else { return Ok(()) };
    let done = done_of(&mut a, orders.batch);
    for (index, order) in (0..).zip(&orders.letters) {
        if index >= done && !send(&mut a, folder, order, (orders.batch, index + 1))? {
            return Ok(());
        }
        // Sent, by this life or one before it.
        dead_letters::remove(folder, order.id)?;
    }
    dead_letters::forget_orders(folder)
}

/// How many orders of a batch lives before this one have done.
fn done_of(a: &mut Attachment, batch: u64) -> u64 {
    let words = a.outputs.state().value().filter(|(_, fingerprint)| *fingerprint == STATE);
    let words = words.and_then(|(bytes, _)| Some((word(bytes, 0)?, word(bytes, 8)?)));
    words.filter(|(of, _)| *of == batch).map_or(0, |(_, done)| done)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Sends a letter and notes it as done, in one step; false when it is asked to end before there is room.
///
/// # If we die here
/// Before the commit nothing was sent; after it the state says that it was, and the next life only removes the letter.
fn send(a: &mut Attachment, folder: &Path, order: &Order, progress: (u64, u64)) -> io::Result<bool> {
    // One that was purged meanwhile is not sent.
    let Some((letter, bytes)) = dead_letters::read(folder, order.id)? else { return Ok(true) };
    let lane = order.lane as usize;
    let channel = a.manifest.lanes.get(lane).map(|lane| lane.channel);
    let channel = channel.ok_or_else(|| io::Error::other(format!("there is no lane {lane}")))?;
    let fingerprint = u64::from_str_radix(&letter.fingerprint, 16).map_err(io::Error::other)?;
    a.declare(channel, true, fingerprint)?.map_err(io::Error::other)?;
    let written = a.outputs.write_by_hand(lane, bytes.len(), &mut a.world, None, |slot| {
        slot[..bytes.len()].copy_from_slice(&bytes);
        Ok::<_, io::Error>(bytes.len())
    })?;
    match written {
        Ok(filled) => filled?,
        Err(SendError::Stopping) => return Ok(false),
        Err(error) => {
            return Err(io::Error::other(format!("dead letter {} cannot be sent: {error:?}", letter.id)));
        }
    }
    let words = [progress.0.to_le_bytes(), progress.1.to_le_bytes()].concat();
    let kept = a.outputs.state().replace(STATE, |room| {
        let room = room.get_mut(..words.len())?;
        room.iter_mut().zip(&words).for_each(|(to, byte)| _ = to.write(*byte));
        Some(words.len())
    });
    assert!(kept, "two words fit any state");
    a.outputs.commit(None, &mut a.world)?;
    for fault in a.world.accuse()? {
        report!("{fault}");
    }
    Ok(true)
}
