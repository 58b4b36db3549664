//! What a swarm's supervisor keeps for its operator, and how much: keys of `[swarm]`.

use super::keys::Table;
use super::walk::Walker;
use crate::crash;
use crate::log::{Format, Level};
use crate::shelf::Bounds;

/// What is kept of what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Records {
    /// How many crash reports are kept.
    pub crashes: Bounds,
    /// The least severe of the supervisor's own remarks that are written.
    pub log_level: Level,
    /// How they are written.
    pub log_format: Format,
}

impl Default for Records {
    fn default() -> Self {
        Records { crashes: crash::BOUNDS, log_level: Level::default(), log_format: Format::default() }
    }
}

/// The least room for numbered files, bytes: the largest fits into it.
const BYTES_MIN: u64 = 64 << 10;

impl Walker<'_> {
    pub(super) fn records(&mut self, swarm: &Table<'_>) -> Records {
        let default = Records::default();
        let level = self
            .optional_text(swarm, "log_level")
            .and_then(|(word, entry)| self.word(&word, &entry, "the levels", &Level::ALL, Level::word));
        let format = self
            .optional_text(swarm, "log_format")
            .and_then(|(word, entry)| self.word(&word, &entry, "the formats", &Format::ALL, Format::word));
        Records {
            crashes: self.bounds(swarm, "crashes", "crash reports", default.crashes),
            log_level: level.unwrap_or(default.log_level),
            log_format: format.unwrap_or(default.log_format),
        }
    }

    /// `{ count = 1000, bytes = "64 MiB" }`.
    pub(super) fn bounds(&mut self, swarm: &Table<'_>, key: &str, what: &str, default: Bounds) -> Bounds {
        let mut bounds = default;
        let Some(table) = swarm.get(key).and_then(|entry| self.table(&entry)) else { return bounds };
        self.known(&table, &["count", "bytes"]);
        bounds.count = self.count(&table, "count", 1, 100_000).unwrap_or(bounds.count);
        if let Some((bytes, entry)) = self.size(&table, "bytes") {
            match u64::try_from(bytes).ok().filter(|b| (BYTES_MIN..=1 << 40).contains(b)) {
                Some(fitting) => bounds.bytes = fitting,
                None => {
                    let what = format!("{bytes} bytes for all {what} together are out of range");
                    self.note(entry.span, &entry.key, what, "choose 64 KiB to 1024 GiB");
                }
            }
        }
        bounds
    }
}
