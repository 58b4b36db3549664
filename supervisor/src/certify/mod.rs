//! `shoal certify`: the eight targets of the project, measured with real processes, and a report that says which hold.
//!
//! It measures nothing itself: it runs this same binary's own commands (`bench`, `bench scenario`, `chaos`), reads the JSON that
//! they print, and compares. So every figure can be had again by the command that stands beside it. What could not be measured
//! counts as missed.
//!
//! Pure: what is asked for and what of the commands' words answers it (`metrics`), the verdicts (`report`), the pages (`page`). The
//! rest runs: `probe`, `command`.

pub mod command;
pub mod metrics;
pub mod page;
pub mod probe;
pub mod report;
