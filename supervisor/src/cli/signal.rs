//! Signals on the command line.

use crate::ended::is_signal;
use nix::libc;
use nix::sys::signal::Signal;

/// Reads `TERM`, `SIGTERM`, `term` or `15`, and of those for real-time use `RTMIN+1`, `RTMAX-1` or `35`.
///
/// # Errors
/// What is expected instead.
pub(super) fn parse(text: &str) -> Result<i32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = text.parse().ok().or_else(|| real_time(name)).or_else(|| named(name));
    number.filter(|number| is_signal(*number)).ok_or_else(|| {
        format!(
            "`{text}` is no signal: write its name or number, such as TERM, SIGHUP, 10 or RTMIN+1 (`kill -l` lists them)"
        )
    })
}

fn named(name: &str) -> Option<i32> {
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

/// Of `RTMIN`, `RTMIN+1`, `RTMAX-1`, `RTMAX`: those of the C library, which keeps the first two of the kernel's for itself.
fn real_time(name: &str) -> Option<i32> {
    let (from, rest) = match name.strip_prefix("RTMIN") {
        Some(rest) => (libc::SIGRTMIN(), rest),
        None => (libc::SIGRTMAX(), name.strip_prefix("RTMAX")?),
    };
    let far: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
    let number = from.checked_add(far)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        for bad in ["", "SIG", "TREM", "0", "-9", "65", "99", "9 ", "32", "33"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_for_real_time_use_are_read_as_the_shell_lists_them() {
        for (text, number) in [
            ("34", 34),
            ("RTMIN", 34),
            ("SIGRTMIN+1", 35),
            ("rtmin+15", 49),
            ("RTMAX-14", 50),
            ("64", 64),
            ("SIGRTMAX", 64),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for bad in ["RTMIN-1", "RTMAX+1", "RTMIN+31", "RTMIN+x", "RTMID", "RTMIN+", "RTMIN+2147483647"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
