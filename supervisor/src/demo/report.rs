//! What the demo says at its end: the JSON object, and the exit status. The table is in `table`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::count::Outcome;
use super::sequential::FileResult;
use super::walk::{Kind, Walk};

/// The object of `shoal demo --json`. Values that do not exist are null (no kill, no recovery).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Is the swarm's result identical to the sequential one?
    pub identical: bool,
    /// The first 20 differences, for humans.
    pub differences: Vec<String>,
    /// How many differences there are in all.
    pub differences_count: u64,
    /// The files that were counted.
    pub files: Vec<FileLine>,
    /// Links, FIFOs, sockets and devices.
    pub skipped: Vec<ReasonLine>,
    /// Folders and files that could not be read.
    pub unreadable: Vec<ReasonLine>,
    /// Files whose size or time moved meanwhile, or that went away.
    pub changed: Vec<PathLine>,
    /// Bytes of the files counted, in one pass.
    pub bytes: u64,
    /// The swarm's figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Messages of all passes, by the second.
    pub messages_per_s: Option<f64>,
}

/// What the run measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages received, of all passes.
    pub messages: u64,
    /// Kills proven by wait status.
    pub kills: u64,
    /// Incarnations started after the first of each agent.
    pub restarts: u64,
    /// From the kill to the first message of the next incarnation, in µs.
    pub recovery_p50_us: Option<u64>,
    /// The same, 99th percentile.
    pub recovery_p99_us: Option<u64>,
    /// From publish to poll, in ns.
    pub latency_p50_ns: Option<u64>,
    /// The same, 99th percentile.
    pub latency_p99_ns: Option<u64>,
    /// How often the whole walk went through the swarm.
    pub passes: u64,
    /// How long the passes took.
    pub seconds: f64,
}

/// One counted file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLine {
    /// Its path.
    #[serde(flatten)]
    pub path: PathLine,
    /// Its size.
    pub bytes: u64,
    /// Newlines.
    pub lines: u64,
    /// Words.
    pub words: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// A path and a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonLine {
    /// The path.
    #[serde(flatten)]
    pub path: PathLine,
    /// Why it was not counted.
    pub reason: String,
}

/// A path relative to the walked folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathLine {
    /// The path, lossy if it is not UTF-8.
    pub path: String,
    /// The exact bytes in hex, only if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
}

impl From<&Path> for PathLine {
    fn from(path: &Path) -> Self {
        let exact = path.to_str().is_none().then(|| hex(path.as_os_str().as_bytes()));
        PathLine { path: path.to_string_lossy().into_owned(), path_bytes: exact }
    }
}

impl Report {
    /// Puts together the walk, the swarm's result (sorted by bytes here), its comparison and its figures.
    pub fn new(walk: &Walk, got: &[FileResult], comparison: &Comparison, figures: Figures) -> Report {
        let mut report = Report {
            identical: comparison.identical,
            differences: comparison.differences.clone(),
            differences_count: comparison.differences_count,
            files: Vec::with_capacity(got.len()),
            skipped: Vec::new(),
            unreadable: Vec::new(),
            changed: comparison.changed.iter().map(|path| path.as_path().into()).collect(),
            bytes: 0,
            messages_per_s: (figures.seconds > 0.0).then(|| figures.messages as f64 / figures.seconds),
            figures,
        };
        for entry in &walk.entries {
            let line =
                |reason: &String| ReasonLine { path: entry.path.as_path().into(), reason: reason.clone() };
            match &entry.kind {
                Kind::File(_) => {}
                Kind::Skipped(reason) => report.skipped.push(line(reason)),
                Kind::Unreadable(reason) => report.unreadable.push(line(reason)),
            }
        }
        let mut got: Vec<_> = got.iter().collect();
        got.sort_by(|a, b| super::by_bytes(&a.path, &b.path));
        got.iter().for_each(|result| report.add(result));
        report
    }

    fn add(&mut self, result: &FileResult) {
        let path = result.path.as_path().into();
        match &result.outcome {
            Outcome::Counted { bytes, lines, words, sha256, .. } => {
                self.bytes = self.bytes.saturating_add(*bytes);
                let sha256 = hex(sha256);
                self.files.push(FileLine { path, bytes: *bytes, lines: *lines, words: *words, sha256 });
            }
            Outcome::Unreadable { reason, .. } => {
                self.unreadable.push(ReasonLine { path, reason: reason.clone() });
            }
        }
    }

    /// Returns the table for humans, without a newline at its end.
    pub fn table(&self) -> String {
        super::table::table(self)
    }

    /// Returns the exit status of the run that ended with this report.
    pub fn exit_status(&self, asked: Asked) -> u8 {
        exit_status(self.identical, self.changed.len(), self.figures.kills, asked)
    }
}

/// What the user asked for, as far as the exit status depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Agents were to be killed.
    pub kills: bool,
    /// `--allow-changes`.
    pub allow_changes: bool,
}

/// Returns 1 if the result is not identical, files changed and that is not allowed, or kills were asked for
/// and none was proven; else 0.
pub fn exit_status(identical: bool, changed_count: usize, kills_proven: u64, asked: Asked) -> u8 {
    let changes_spoil = changed_count > 0 && !asked.allow_changes;
    let kills_fail = asked.kills && kills_proven == 0;
    u8::from(!identical || changes_spoil || kills_fail)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use crate::demo::{compare, sequential, walk};
    use std::ffi::OsStr;

    fn report_of(dir: &Path, figures: Figures) -> Report {
        let walked = walk(dir, false).unwrap();
        let results = sequential(&walked);
        let compared = compare(&results, &results, |_| None);
        Report::new(&walked, &results, &compared, figures)
    }

    #[test]
    fn json_has_every_promised_field_and_null_for_what_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "two words\n").unwrap();
        std::fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let report = report_of(dir.path(), Figures { messages: 4, seconds: 2.0, ..Figures::default() });
        let json = serde_json::to_value(&report).unwrap();
        let expected = serde_json::json!({
            "identical": true, "differences": [], "differences_count": 0,
            "files": [
                {"path": "a", "bytes": 10, "lines": 1, "words": 2,
                 "sha256": "3ba81c80b8b23ead1ff322d46b1f7d70b5503096a5df33c1cd7013639adf1692"},
                {"path": "\u{fffd}", "path_bytes": "ff", "bytes": 0, "lines": 0, "words": 0,
                 "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
            ],
            "skipped": [{"path": "link", "reason": "symbolic link"}],
            "unreadable": [], "changed": [], "bytes": 10, "messages": 4, "kills": 0, "restarts": 0,
            "recovery_p50_us": null, "recovery_p99_us": null, "latency_p50_ns": null, "latency_p99_ns": null,
            "passes": 0, "seconds": 2.0, "messages_per_s": 2.0,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }

    #[test]
    fn table_shows_a_dash_for_what_does_not_exist_and_units_for_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let table = report_of(dir.path(), Figures::default()).table();
        assert!(table.lines().any(|l| l.contains("kill to next message") && l.contains("- / -")), "{table}");
        assert!(table.lines().any(|l| l.contains("identical") && l.contains("yes")), "{table}");
        let figures =
            Figures { recovery_p50_us: Some(1500), recovery_p99_us: Some(20), ..Figures::default() };
        let table = report_of(dir.path(), figures).table();
        assert!(table.contains("1.5 ms / 20 µs"), "{table}");
    }

    #[test]
    fn exit_status_is_1_for_each_single_reason_and_0_without_one() {
        let asked = Asked { kills: true, allow_changes: false };
        assert_eq!(exit_status(true, 0, 1, asked), 0);
        assert_eq!(exit_status(false, 0, 1, asked), 1);
        assert_eq!(exit_status(true, 1, 1, asked), 1);
        assert_eq!(exit_status(true, 1, 1, Asked { allow_changes: true, ..asked }), 0);
        assert_eq!(exit_status(false, 1, 1, Asked { allow_changes: true, ..asked }), 1);
        assert_eq!(exit_status(true, 0, 0, asked), 1);
        assert_eq!(exit_status(true, 0, 0, Asked::default()), 0);
    }
}
