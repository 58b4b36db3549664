//! Two result sets of one walk, held against each other.

use std::path::{Path, PathBuf};

use super::count::Outcome;
use super::sequential::FileResult;
use super::{by_bytes, shown};

/// How many differences are spelled out.
const SHOWN_MAX: usize = 20;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// No record is missing, extra, doubled or different. A file that changed meanwhile need not be the
    /// same in both, but must be there once.
    pub identical: bool,
    /// The first 20 differences, for humans.
    pub differences: Vec<String>,
    /// How many there are in all.
    pub differences_count: u64,
    /// Files that either side saw changed, sorted by bytes.
    pub changed: Vec<PathBuf>,
}

impl Comparison {
    fn differ(&mut self, what: &str, path: &Path, more: &str) {
        self.differences_count += 1;
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(format!("{what}: {}{more}", shown(path)));
        }
    }

    fn same_path(&mut self, expected: &FileResult, got: &[&FileResult]) {
        for _ in 1..got.len() {
            self.differ("doubled", &expected.path, "");
        }
        if expected.outcome.changed() || got.iter().any(|result| result.outcome.changed()) {
            self.changed.push(expected.path.clone());
            return;
        }
        for result in got {
            if result.outcome != expected.outcome {
                let both = format!(": {}, not {}", words(&result.outcome), words(&expected.outcome));
                self.differ("different", &expected.path, &both);
            }
        }
    }
}

/// Compares what the swarm got with what was expected; the order of either does not matter.
pub fn compare(expected: &[FileResult], got: &[FileResult]) -> Comparison {
    let (expected, got) = (sorted(expected), sorted(got));
    let mut expected = expected.chunk_by(|a, b| a.path == b.path).peekable();
    let mut got = got.chunk_by(|a, b| a.path == b.path).peekable();
    let mut found = Comparison::default();
    loop {
        let order = match (expected.peek(), got.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(e), Some(g)) => by_bytes(&e[0].path, &g[0].path),
        };
        let e = if order.is_le() { expected.next() } else { None };
        let g = if order.is_ge() { got.next() } else { None };
        match (e, g) {
            (Some(e), Some(g)) => {
                if e.len() > 1 {
                    found.differ("doubled in the expected result", &e[0].path, "");
                }
                found.same_path(e[0], g);
            }
            (Some(e), None) => found.differ("missing", &e[0].path, ""),
            (None, Some(g)) => g.iter().for_each(|extra| found.differ("extra", &extra.path, "")),
            (None, None) => break,
        }
    }
    found.identical = found.differences_count == 0;
    found
}

fn sorted(results: &[FileResult]) -> Vec<&FileResult> {
    let mut sorted: Vec<_> = results.iter().collect();
    sorted.sort_by(|a, b| by_bytes(&a.path, &b.path));
    sorted
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Counted { bytes, lines, words, sha256, .. } => {
            format!("{lines} lines, {words} words, {bytes} bytes, sha256 {}", super::report::hex(sha256))
        }
        Outcome::Unreadable { reason, .. } => format!("unreadable ({reason})"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;

    fn result(path: &str, words: u64, changed: bool) -> FileResult {
        let outcome = Outcome::Counted { bytes: 1, lines: 1, words, sha256: [0; 32], changed };
        FileResult { path: path.into(), outcome }
    }

    fn differences(expected: &[FileResult], got: &[FileResult]) -> Vec<String> {
        let found = compare(expected, got);
        assert_eq!(found.identical, found.differences.is_empty());
        found.differences.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn same_records_in_another_order_are_identical() {
        let (a, b) = (result("a", 1, false), result("a/b", 2, false));
        assert!(differences(&[a.clone(), b.clone()], &[b, a]).is_empty());
        assert!(differences(&[], &[]).is_empty());
    }

    #[test]
    fn missing_extra_doubled_and_different_records_are_each_reported() {
        let all: Vec<_> = ["a", "b", "c"].iter().map(|path| result(path, 1, false)).collect();
        assert_eq!(differences(&all, &all[..2]), ["missing c"]);
        assert_eq!(differences(&all[1..], &all), ["extra a"]);
        assert_eq!(differences(&all[..1], &[all[0].clone(), all[0].clone()]), ["doubled a"]);
        assert_eq!(differences(&all[..1], &[result("a", 2, false)]), ["different a"]);
        let unreadable = Outcome::Unreadable { reason: "why".into(), changed: false };
        assert_eq!(
            differences(&all[..1], &[FileResult { path: "a".into(), outcome: unreadable }]),
            ["different a"]
        );
    }

    #[test]
    fn changed_file_may_differ_but_must_be_there_once() {
        let (then, now) = (result("a", 1, false), result("a", 2, true));
        let found = compare(std::slice::from_ref(&then), std::slice::from_ref(&now));
        assert!(found.identical);
        assert_eq!(found.changed, [PathBuf::from("a")]);
        assert_eq!(compare(std::slice::from_ref(&now), &[then]).changed, [PathBuf::from("a")]);
        assert_eq!(differences(std::slice::from_ref(&now), &[]), ["missing a"]);
        assert_eq!(differences(std::slice::from_ref(&now), &[now.clone(), now.clone()]), ["doubled a"]);
    }

    #[test]
    fn only_the_first_twenty_differences_are_spelled_out_and_all_are_counted() {
        let many: Vec<_> = (0..100).map(|number| result(&number.to_string(), 1, false)).collect();
        let found = compare(&many, &[]);
        assert_eq!((found.differences.len(), found.differences_count, found.identical), (20, 100, false));
    }
}
