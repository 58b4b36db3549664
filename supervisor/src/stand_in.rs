//! Who reads in the place of an agent that is gone, in the swarm's own binary: puts what the agent left with the dead letters, and ends.
//!
//! It is the agent's next incarnation: it begins at the committed cursors and maps what the agent would have mapped. It opens no message:
//! the bytes go as they lie to the supervisor, which stores them, and each is acknowledged then. So a message is stored once, whoever is
//! killed meanwhile.

use crate::log::report;
use shoal_runtime::attachment::{self, Attachment, Found};
use shoal_runtime::wire::Park;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// Its name among the agents of this binary.
pub const NAME: &str = "stand-in";
/// Why it gives messages up.
const WHY: &str = "its reader is gone";

/// What is executed to read so many messages of each input.
pub fn command(binary: &str, left: &[u64]) -> Vec<String> {
    let counts = left.iter().map(u64::to_string);
    [binary, "agent", NAME].into_iter().map(str::to_owned).chain(counts).collect()
}

/// Stands in, for so many messages of each input.
pub fn main(args: &[OsString]) -> ExitCode {
    let counts = args.iter().map(|arg| arg.to_str()?.parse().ok()).collect::<Option<Vec<u64>>>();
    let Some(left) = counts else {
        report!("usage: shoal agent {NAME} COUNT… (started by the supervisor)");
        return ExitCode::from(2);
    };
    match read_out(left) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report!("putting what was not read with the dead letters: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_out(mut left: Vec<u64>) -> io::Result<()> {
    let mut a = attachment::attach()?;
    if a.manifest.inputs.len() != left.len() {
        return Err(io::Error::other(format!(
            "{} inputs, and {} counts",
            a.manifest.inputs.len(),
            left.len()
        )));
    }
    a.ready()?;
    loop {
        // What was sent since is not for a reader that is gone.
        let among: Vec<usize> = (0..left.len()).filter(|&input| left[input] > 0).collect();
        if among.is_empty() || !park_next(&mut a, &among, &mut left)? {
            return Ok(());
        }
        for fault in a.world.accuse()? {
            report!("{fault}");
        }
    }
}

/// Parks the next message of these inputs, and counts it; false when there is none.
///
/// # If we die here
/// Before it is stored nothing has happened. After that the supervisor knows that it is, and the next life only acknowledges it.
fn park_next(a: &mut Attachment, among: &[usize], left: &mut [u64]) -> io::Result<bool> {
    a.world.moved()?;
    let Some(Found::Message(index, frame)) = a.inputs.look(among, &mut a.world, true) else {
        return Ok(false);
    };
    let (sources, cursor) = a.inputs.consumer(index).split();
    if !sources.lease(&frame) {
        // It was overwritten meanwhile, on a lane that drops the oldest.
        return Ok(true);
    }
    let bytes = sources.leased(&frame);
    let len_bytes = bytes.len() as u64;
    let why = WHY.to_owned();
    let letter = Park { input: index as u32, at: frame.at, len_bytes, attempts: 0, rejected: false, why };
    a.world.give_up(letter, bytes)?.map_err(io::Error::other)?;
    a.outputs.commit(Some((index, cursor, &frame)), &mut a.world)?;
    a.world.desk.release();
    left[index] -= 1;
    Ok(true)
}
