//! What a supervisor keeps for its operator: its log, the events, the crash reports.

use crate::config::SwarmFile;
use crate::crash::Crashes;
use crate::events::Events;
use crate::log::Log;
use std::path::Path;

/// What is kept of one swarm.
pub struct Records {
    /// What the supervisor says.
    pub log: Log,
    /// What happens.
    pub events: Events,
    /// What is known of deaths.
    pub crashes: Crashes,
}

impl Records {
    /// Goes on from what a predecessor of this supervisor left in the log folder.
    pub fn take_over(&mut self, logs: &Path) {
        self.events = Events::in_folder(logs);
        self.crashes.take_over();
    }

    /// Those of a swarm in its log folder, which exists. `terminal` is told each line of the log, without its end.
    ///
    /// # Errors
    /// The folder cannot be read, in words.
    pub fn open(logs: &Path, file: &SwarmFile, terminal: Box<dyn FnMut(&str)>) -> Result<Records, String> {
        let crashes = Crashes::in_folder(logs, file.records.crashes)
            .map_err(|error| format!("opening the crash reports in {}: {error}", logs.display()))?;
        let (level, format) = (file.records.log_level, file.records.log_format);
        Ok(Records {
            log: Log::to_terminal(terminal).into_folder(logs, &file.name, level, format),
            events: Events::in_folder(logs),
            crashes,
        })
    }
}
