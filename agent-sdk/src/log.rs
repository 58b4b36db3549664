//! Where an agent's reports go: one line each to standard error, which the supervisor captures; or to a test.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Reports of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    name: String,
    kept: Option<Arc<Mutex<Vec<String>>>>,
}

impl Log {
    pub(crate) fn to_stderr(name: &str) -> Self {
        Log { name: name.to_owned(), kept: None }
    }

    pub(crate) fn kept(name: &str, reports: &Arc<Mutex<Vec<String>>>) -> Self {
        Log { name: name.to_owned(), kept: Some(reports.clone()) }
    }

    pub(crate) fn report(&self, text: &str) {
        match &self.kept {
            None => {
                // What nobody takes is lost, and nothing else: `eprintln!` would panic.
                let line = format!("agent {}: {text}\n", self.name);
                let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
            }
            Some(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned()),
        }
    }
}
