//! Placeholder of `shoal demo`, until the demo is merged.

use std::process::ExitCode;

use crate::cli::{DemoOptions, FAILED};

/// Placeholder: says that there is no demo yet.
pub fn demo(_options: &DemoOptions) -> ExitCode {
    eprintln!("shoal: the demo is not built in yet");
    ExitCode::from(FAILED)
}
