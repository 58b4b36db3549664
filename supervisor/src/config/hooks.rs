//! `[hooks]`: commands that are run when something happens to an agent.

use std::time::Duration;

use super::Hooks;
use super::keys::{Span, Table};
use super::value::DURATION_MAX;
use super::walk::Walker;
use crate::hooks::{AT_ONCE_DEFAULT, Occasion, TIMEOUT_DEFAULT};

const HELP: &str = "write the program and its arguments, for example crash = [\"./page-me\", \"--urgent\"]";
/// The most hooks that may run at once.
const AT_ONCE_MAX: u32 = 64;

impl Walker<'_> {
    /// Reads the hooks; returns where the program of each command stands.
    pub(super) fn hooks(&mut self, root: &Table<'_>) -> Vec<(usize, Span)> {
        let mut spans = Vec::new();
        let Some(table) = root.get("hooks").and_then(|entry| self.table(&entry)) else { return spans };
        let own = ["timeout", "at_once"];
        let known: Vec<&str> = Occasion::ALL.map(Occasion::word).into_iter().chain(own).collect();
        self.known(&table, &known);
        let ms = Duration::from_millis(1);
        let timeout = self.duration(&table, "timeout", ms, DURATION_MAX).unwrap_or(TIMEOUT_DEFAULT);
        let at_once = self.count(&table, "at_once", 1, AT_ONCE_MAX).unwrap_or(AT_ONCE_DEFAULT);
        let mut commands = Vec::new();
        for occasion in Occasion::ALL {
            let Some(entry) = table.get(occasion.word()) else { continue };
            let Some(items) = self.texts(&entry, HELP) else { continue };
            let nul = items.iter().find(|(word, _)| word.contains('\0'));
            match (items.first(), nul) {
                (None, _) => self.note(entry.span, &entry.key, "the command is empty", HELP),
                (Some((program, span)), _) if program.trim().is_empty() => {
                    self.note(span.clone(), &entry.key, "the program's name is empty", HELP);
                }
                (_, Some((_, span))) => {
                    self.note(span.clone(), &entry.key, "an argument contains a NUL", "remove the NUL");
                }
                (Some((_, span)), None) => {
                    spans.push((commands.len(), span.clone()));
                    commands.push((occasion, items.into_iter().map(|(word, _)| word).collect()));
                }
            }
        }
        self.swarm.hooks = Hooks { commands, timeout, at_once };
        spans
    }
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks { commands: Vec::new(), timeout: TIMEOUT_DEFAULT, at_once: AT_ONCE_DEFAULT }
    }
}

impl Hooks {
    /// What is run on this occasion, if anything.
    pub fn command(&self, occasion: Occasion) -> Option<&[String]> {
        self.commands.iter().find(|(known, _)| *known == occasion).map(|(_, command)| command.as_slice())
    }
}
