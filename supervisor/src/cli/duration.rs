//! Durations on the command line: as in the swarm file, without quotes.

use crate::config::duration;
use std::time::Duration;

/// Reads `50ms`, `2m`, `1h`, `200us`, and `0`.
///
/// # Errors
/// What is expected instead.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| {
        "this is not a duration: write a whole number and us, ms, s, m or h, for example 500ms".to_owned()
    })
}
