//! Two result sets of one walk, held against each other.

use std::path::{Path, PathBuf};

use super::count::Outcome;
use super::sequential::FileResult;
use super::walk::Seen;
use super::{Sums, by_bytes, shown};

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
    /// Files that either side saw changed, or that came or went in between, sorted by bytes.
    pub changed: Vec<PathBuf>,
}

impl Comparison {
    fn differ(&mut self, difference: impl FnOnce() -> String) {
        self.identical = false;
        self.differences_count += 1;
        if self.differences.len() < SHOWN_MAX {
            self.differences.push(difference());
        }
    }

    fn same_path(&mut self, expected: &FileResult, got: &[&FileResult]) {
        let moved = |result: &&FileResult| result.seen != expected.seen || result.outcome.changed();
        if expected.outcome.changed() || got.iter().any(moved) {
            self.changed.push(expected.path.clone());
            return;
        }
        for result in got {
            if result.outcome != expected.outcome {
                let (one, other) = (words(&result.outcome), words(&expected.outcome));
                self.differ(|| format!("different: {}: {one}, not {other}", shown(&expected.path)));
            }
        }
    }

    fn once(&mut self, got: &[&FileResult]) {
        for doubled in got.iter().skip(1) {
            self.differ(|| format!("doubled: {}", shown(&doubled.path)));
        }
    }

    /// A file that the swarm has no result of: lost, unless it is no longer as the walk saw it.
    fn missing(&mut self, expected: &FileResult, now: Option<Seen>) {
        if now == Some(expected.seen) {
            self.differ(|| format!("missing: {}", shown(&expected.path)));
        } else {
            self.changed.push(expected.path.clone());
        }
    }

    /// A file that the walk did not see: invented, unless it came meanwhile. It did if it is there, or was when it was read.
    fn extra(&mut self, got: &FileResult, now: Option<Seen>) {
        let was_there = matches!(got.outcome, Outcome::Counted { .. }) || got.outcome.changed();
        if was_there || now.is_some() {
            self.changed.push(got.path.clone());
        } else {
            self.differ(|| format!("extra: {}", shown(&got.path)));
        }
    }

    /// Holds the collector's sums, which it told once, against those of what was read beside it, and, if nothing changed
    /// meanwhile, of what was expected.
    pub fn check_sums(&mut self, told: &[Sums], got: &[FileResult], expected: &[FileResult]) {
        let [told] = told else {
            return self.differ(|| format!("the collector told its sums {} times, not once", told.len()));
        };
        self.check_against("what was read", told, &Sums::of(got));
        if self.changed.is_empty() {
            self.check_against("one process", told, &Sums::of(expected));
        }
    }

    fn check_against(&mut self, whose: &str, told: &Sums, sums: &Sums) {
        if told != sums {
            self.differ(|| format!("the collector's sums: {told}, those of {whose}: {sums}"));
        }
    }
}

/// Compares what the swarm got with what was expected; the order of either does not matter. `now` looks at a file again, to
/// tell what was lost or invented from what went or came meanwhile.
pub fn compare(
    expected: &[FileResult],
    got: &[FileResult],
    now: impl Fn(&Path) -> Option<Seen>,
) -> Comparison {
    let (expected, got) = (sorted(expected), sorted(got));
    let mut expected = expected.chunk_by(|a, b| a.path == b.path).peekable();
    let mut got = got.chunk_by(|a, b| a.path == b.path).peekable();
    let mut found = Comparison { identical: true, ..Comparison::default() };
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
                    found.differ(|| format!("doubled in the expected result: {}", shown(&e[0].path)));
                }
                found.once(g);
                found.same_path(e[0], g);
            }
            (Some(e), None) => found.missing(e[0], now(&e[0].path)),
            (None, Some(g)) => {
                found.once(g);
                found.extra(g[0], now(&g[0].path));
            }
            (None, None) => break,
        }
    }
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

    const SEEN: Seen = Seen { size_bytes: 1, mtime_ns: 1 };

    fn result(path: &str, words: u64, changed: bool) -> FileResult {
        let outcome = Outcome::Counted { bytes: 1, lines: 1, words, sha256: [0; 32], changed };
        FileResult { path: path.into(), seen: SEEN, outcome }
    }

    fn unreadable(path: &str) -> FileResult {
        let outcome = Outcome::Unreadable { reason: "why".into(), changed: false };
        FileResult { path: path.into(), seen: SEEN, outcome }
    }

    /// Compares where every file is still as it was seen.
    fn compare_still(expected: &[FileResult], got: &[FileResult]) -> Comparison {
        compare(expected, got, |_| Some(SEEN))
    }

    fn words_of(found: &Comparison) -> Vec<String> {
        assert_eq!(found.identical, found.differences.is_empty());
        found.differences.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn differences(expected: &[FileResult], got: &[FileResult]) -> Vec<String> {
        words_of(&compare_still(expected, got))
    }

    #[test]
    fn same_records_in_another_order_are_identical() {
        let (a, b) = (result("a", 1, false), result("a/b", 2, false));
        assert!(differences(&[a.clone(), b.clone()], &[b, a]).is_empty());
        assert!(differences(&[], &[]).is_empty());
    }

    #[test]
    fn missing_doubled_and_different_records_are_each_reported() {
        let all: Vec<_> = ["a", "b", "c"].iter().map(|path| result(path, 1, false)).collect();
        assert_eq!(differences(&all, &all[..2]), ["missing c"]);
        assert_eq!(differences(&all[..1], &[all[0].clone(), all[0].clone()]), ["doubled a"]);
        assert_eq!(differences(&[], &[all[0].clone(), all[0].clone()]), ["doubled a"]);
        assert_eq!(differences(&all[..1], &[result("a", 2, false)]), ["different a"]);
        assert_eq!(differences(&all[..1], &[unreadable("a")]), ["different a"]);
    }

    #[test]
    fn changed_file_may_differ_but_must_be_there_once() {
        let (then, now) = (result("a", 1, false), result("a", 2, true));
        let found = compare_still(std::slice::from_ref(&then), std::slice::from_ref(&now));
        assert!(found.identical);
        assert_eq!(found.changed, [PathBuf::from("a")]);
        assert_eq!(compare_still(std::slice::from_ref(&now), &[then]).changed, [PathBuf::from("a")]);
        assert_eq!(differences(std::slice::from_ref(&now), &[]), ["missing a"]);
        assert_eq!(differences(std::slice::from_ref(&now), &[now.clone(), now.clone()]), ["doubled a"]);
    }

    #[test]
    fn file_that_came_went_or_moved_between_the_walks_is_changed() {
        let a = result("a", 1, false);
        let moved = FileResult { seen: Seen { size_bytes: 2, mtime_ns: 2 }, ..result("a", 2, false) };
        let changed = |expected: &[FileResult], got: &[FileResult], now| {
            let found = compare(expected, got, |_| now);
            assert_eq!(words_of(&found), [""; 0]);
            found.changed
        };
        assert_eq!(changed(std::slice::from_ref(&a), std::slice::from_ref(&moved), None), [Path::new("a")]);
        assert_eq!(changed(std::slice::from_ref(&a), &[], None), [Path::new("a")]);
        assert_eq!(changed(std::slice::from_ref(&a), &[], Some(moved.seen)), [Path::new("a")]);
        assert_eq!(changed(&[], std::slice::from_ref(&a), None), [Path::new("a")]);
        assert_eq!(changed(&[], &[unreadable("a")], Some(SEEN)), [Path::new("a")]);
        assert_eq!(words_of(&compare(&[], &[unreadable("a")], |_| None)), ["extra a"]);
    }

    #[test]
    fn sums_that_the_collector_did_not_tell_once_and_right_are_differences() {
        let (one, two) = ([result("a", 1, false)], [result("a", 2, false)]);
        let checked = |told: &[Sums], got: &[FileResult], changed: &[&str]| {
            let changed = changed.iter().map(PathBuf::from).collect();
            let mut found = Comparison { identical: true, changed, ..Comparison::default() };
            found.check_sums(told, got, &one);
            assert_eq!(found.identical, found.differences.is_empty());
            found.differences_count
        };
        let sums = |results: &[FileResult]| Sums::of(results);
        assert_eq!(checked(&[sums(&one)], &one, &[]), 0);
        assert_eq!(checked(&[], &one, &[]), 1);
        assert_eq!(checked(&[sums(&one), sums(&one)], &one, &[]), 1);
        assert_eq!(checked(&[sums(&two)], &one, &[]), 2, "neither what was read nor what was expected");
        assert_eq!(checked(&[sums(&two)], &two, &[]), 1, "not what was expected");
        assert_eq!(checked(&[sums(&two)], &two, &["a"]), 0, "which nobody can expect of a file that changed");
    }

    #[test]
    fn only_the_first_twenty_differences_are_spelled_out_and_all_are_counted() {
        let many: Vec<_> = (0..100).map(|number| result(&number.to_string(), 1, false)).collect();
        let found = compare_still(&many, &[]);
        assert_eq!((found.differences.len(), found.differences_count, found.identical), (20, 100, false));
    }
}
