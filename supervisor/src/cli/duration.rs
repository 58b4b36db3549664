//! Durations on the command line.

use std::time::Duration;

/// Reads `50`, `50ms`, `1.5s`, `2m`, `1h`, `200us`; a number alone is milliseconds.
///
/// # Errors
/// What is expected instead.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration: write 50 (milliseconds), 50ms, 1.5s, 2m or 1h");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let second = match unit.trim() {
        "us" | "µs" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * second).map_err(|_| expected())
}
