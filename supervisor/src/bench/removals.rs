//! Removals: a hostile agent breaks a rule with its first message in every life. How long it takes from when that is seen until the supervisor
//! has proved it dead and published its verdict.

use super::ends::{Ends, Why};
use super::kept::{self, Measured};
use super::lives::outcome;
use shoal_measure::outcome::Outcome;

/// Runs the swarm until there were so many removals.
///
/// # Errors
/// In words: what is lacking, or did not come.
pub fn run(removals: usize) -> Result<Outcome, String> {
    let ends: Ends = kept::measure(Measured::Ends(Why::Rule, removals))?;
    let mut outcome = outcome("removal", "hostile", &ends.ours_ns, &ends.raw_ns, "kill, pidfd, reap");
    outcome.message = "an agent that broke a rule, until its verdict; hostile".into();
    Ok(outcome)
}
