//! `shoal demo`: the main job on real input. A tree of files is walked, every file is counted, and the
//! result of the swarm must be identical to a plain sequential computation.
//!
//! ```text
//!   shoal demo: walk ──► sequential ───────────────────────────────────────────► compare ──► report
//!                                                                                   ▲        JSON, table,
//!   the swarm:  lister ──tasks──► worker.k ──tallies──┬───────────► reader ─────────┤        exit status
//!                 state: place                        └─► collector ──sums──► reader┘
//!                 in the walk                             state: sums
//! ```
//! The reader is the process `shoal demo` itself (`stage`, `agents`); its child is the supervisor, who adopts it (`backstage`).
//! Nobody keeps a file: what outlives a kill is in the agents' states and lanes.

pub mod agents;
pub mod backstage;
pub mod command;
pub mod compare;
mod count;
pub mod killer;
pub mod report;
pub mod sequential;
pub mod stage;
pub mod sums;
pub mod walk;

mod open;
mod table;

pub use compare::{Comparison, compare};
pub use count::{Counter, Outcome, count};
pub use report::{Asked, Figures, Report, exit_status};
pub use sequential::{FileResult, sequential};
pub use sums::Sums;
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
