//! The plain sequential computation that the swarm's result is held against: one process, no lane.

use std::path::PathBuf;

use super::count::{Counter, Outcome};
use super::walk::{Seen, Walk};

/// One file and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileResult {
    /// Relative to the walked folder.
    pub path: PathBuf,
    /// What the walk saw of it.
    pub seen: Seen,
    /// Its counts, or why there are none.
    pub outcome: Outcome,
}

/// Counts every file of the walk, in the walk's order (sorted by bytes).
pub fn sequential(walk: &Walk) -> Vec<FileResult> {
    let mut counter = Counter::default();
    walk.files()
        .map(|(path, seen)| FileResult {
            path: path.to_owned(),
            seen,
            outcome: counter.count(&walk.dir.join(path), seen),
        })
        .collect()
}
