//! Signals on the command line.

use nix::sys::signal::Signal;

/// Reads `TERM`, `SIGTERM`, `term` or `15`.
///
/// # Errors
/// What is expected instead.
pub(super) fn parse(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let named = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let signal = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => named.parse::<Signal>().ok(),
    };
    signal.map(|signal| signal as i32).ok_or_else(|| {
        format!("`{text}` is no signal: write its name or number, such as TERM, SIGHUP or 10 (`kill -l` lists them)")
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        for bad in ["", "SIG", "TREM", "0", "-9", "99", "9 "] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
