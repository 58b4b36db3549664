//! Commands of this same binary, run once each, and what they printed.

use crate::config;
use crate::log::report;
use serde_json::Value;
use std::collections::HashMap;
use std::process::{Command, Stdio};

/// Bytes of a command's last words that are told when it fails.
const LAST_WORDS_BYTES: usize = 400;

/// What commands said, by their words: each is run once.
#[derive(Default)]
pub struct Probes {
    said: HashMap<String, Result<Value, String>>,
}

impl Probes {
    /// Runs a command if it was not yet, and returns the JSON that it printed.
    ///
    /// # Errors
    /// In words: it could not be run, or printed something else.
    pub fn ask(&mut self, command: &str) -> Result<Value, String> {
        if let Some(said) = self.said.get(command) {
            return said.clone();
        }
        report!("shoal certify: {command}");
        let said = run(command).map_err(|why| format!("`{command}`: {why}"));
        self.said.insert(command.to_owned(), said.clone());
        said
    }
}

fn run(command: &str) -> Result<Value, String> {
    let words = command.split(' ').skip(1);
    let output = Command::new(config::own_binary()?)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("it could not be started: {e}"))?;
    // A scenario that failed says so in its JSON, and exits with 1; what could not be done at all is an object, too.
    let told: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    told.filter(|told| told["error"].is_null()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim_end();
        let from = said.len().saturating_sub(LAST_WORDS_BYTES);
        let from = (from..=said.len()).find(|&at| said.is_char_boundary(at)).unwrap_or(said.len());
        format!("it ended with {} and no report: {}", output.status, &said[from..])
    })
}
