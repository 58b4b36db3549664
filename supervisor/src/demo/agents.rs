//! Placeholder of the demo's agents, until the demo is merged.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::FAILED;

/// Placeholder: says that there are no demo agents yet.
pub fn main(_args: Vec<OsString>) -> ExitCode {
    eprintln!("shoal: the demo's agents are not built in yet");
    ExitCode::from(FAILED)
}
