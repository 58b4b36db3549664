//! Sizes, durations and names, as words of the swarm file. Pure: text in, value or reason out.

use std::time::Duration;

/// The longest duration that the file may name: a day.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Splits `"64 KiB"` into its number and its unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

/// A size in bytes: `"65536"`, `"64 KiB"`, `"10 MB"`.
pub(super) fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// What `size_bytes` understands.
pub(super) const SIZE_HELP: &str =
    "write whole bytes, or a string with B, KiB, MiB, GiB, kB, MB or GB, for example \"64 KiB\"";

/// A duration: `"250us"`, `"5ms"`, `"1s"`, `"2m"`, `"1h"`; `"0"` is nothing in every unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "" if number == 0 => Duration::ZERO,
        _ => return None,
    };
    unit.checked_mul(u32::try_from(number).ok()?)
}

/// What `duration` understands.
pub(super) const DURATION_HELP: &str =
    "write a string of a whole number and us, ms, s, m or h, at most \"24h\", for example \"500ms\"";

/// Why a name cannot be used.
pub(super) fn name_fault(name: &str) -> Option<String> {
    let odd = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
    match odd {
        _ if name.is_empty() => Some("the name is empty".into()),
        Some(odd) => Some(format!("the name contains {odd:?}")),
        None if name.len() > 64 => Some(format!("the name has {} characters", name.len())),
        None => None,
    }
}

/// What a name may be.
pub(super) const NAME_HELP: &str =
    "use 1 to 64 of A-Z, a-z, 0-9, `_` and `-` (a dot separates an agent from its replica's number)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        let read =
            ["0", "4096", "64 KiB", "64KiB", " 1 MiB ", "10 MB", "2 GiB", "3 kB", "7 B"].map(size_bytes);
        let bytes = [0, 4096, 65536, 65536, 1 << 20, 10_000_000, 2 << 30, 3000, 7].map(Some);
        assert_eq!(read, bytes);
    }

    #[test]
    fn sizes_that_are_not_plain_are_refused() {
        for text in ["", "KiB", "-1", "1.5 MiB", "64 kib", "64k", "1 MiB x", "99999999999 GiB", "1e3", "１"]
        {
            assert_eq!(size_bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        let read = ["250us", "5ms", "1s", "2m", "1 h"].map(duration);
        assert_eq!(
            read,
            [250, 5_000, 1_000_000, 120_000_000, 3_600_000_000].map(|us| Some(Duration::from_micros(us)))
        );
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for text in ["", "5", "ms", "-1s", "1.5s", "1 day", "1S", "99999999999999999999s", "4294967296h"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!(name_fault("word-count_2"), None);
        assert_eq!(name_fault(&"a".repeat(64)), None);
        for name in ["", "a.b", "a b", "ü", "a/b", &"a".repeat(65)] {
            assert!(name_fault(name).is_some(), "{name:?}");
        }
    }
}
