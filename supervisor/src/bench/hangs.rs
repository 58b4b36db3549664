//! Hangs: an agent holds its first message for ever in every life. How long it takes from when it takes the message, as its own desk says,
//! until the supervisor has found that out, aborted it, proved it dead and published its verdict; beside it the deadline and a raw kill.

use super::ends::{Ends, Why};
use super::kept::{self, Measured};
use super::lives::outcome;
use shoal_measure::outcome::Outcome;

/// The deadlines that are measured, ms, and by what part of the lives.
const DEADLINES: [(u64, usize); 2] = [(20, 1), (100, 2)];

/// Runs the swarm with each deadline until there were so many hangs.
///
/// # Errors
/// In words: what is lacking, or did not come.
pub fn run(hangs: usize) -> Result<Vec<Outcome>, String> {
    DEADLINES.into_iter().map(|(deadline_ms, part)| with(deadline_ms, hangs / part)).collect()
}

fn with(deadline_ms: u64, hangs: usize) -> Result<Outcome, String> {
    let ends: Ends = kept::measure(Measured::Ends(Why::Hang { deadline_ms }, hangs))?;
    let floor_ns: Vec<u64> = ends.raw_ns.iter().map(|raw_ns| raw_ns + deadline_ms * 1_000_000).collect();
    let mode = format!("{deadline_ms} ms");
    let mut outcome = outcome("hang", &mode, &ends.ours_ns, &floor_ns, "the deadline, and kill, pidfd, reap");
    outcome.message = "an agent that held a message for ever, until its verdict; trusted".into();
    Ok(outcome)
}
