//! `shoal demo`: the main job on real input. A tree of files is walked, every file is counted, and the
//! result of the swarm must be identical to a plain sequential computation.
//!
//! ```text
//!   walk ──► entries 0..n ──► count (each file) ──► collected ──► compare ──► report
//!              │ walk_file      by the workers        │ appended,     ▲         JSON, table,
//!              │ (kept, so that a killed lister       │ reloaded      │         exit status
//!              ▼  resumes at entry k)                 ▼               │
//!            sequential: the same walk, the same count, one process ──┘
//! ```
//!
//! Here lives what is pure and needs one process only. Not here: agents, lanes and kills.

pub mod agents;
pub mod collected;
pub mod command;
pub mod compare;
pub mod count;
pub mod killer;
pub mod report;
pub mod sequential;
pub mod walk;
pub mod walk_file;

mod codec;
mod open;
mod table;

pub use collected::{Collected, CollectedFile, Reload};
pub use compare::{Comparison, compare};
pub use count::{Counter, Outcome, count};
pub use report::{Asked, Figures, Report, exit_status};
pub use sequential::{FileResult, sequential};
pub use walk::{Entry, Kind, Seen, Walk, walk};

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Returns a path for humans on one line: what is no text is shown lossily, control characters escaped.
pub fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().flat_map(escaped_if_control).collect()
}

fn escaped_if_control(c: char) -> Vec<char> {
    if c.is_control() || c == '\\' { c.escape_default().collect() } else { vec![c] }
}

/// Compares two paths as bytes. (`Path` itself compares by components, and takes `a//b` for `a/b`.)
pub fn by_bytes(a: &Path, b: &Path) -> std::cmp::Ordering {
    a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes())
}
