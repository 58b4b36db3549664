//! What hooks are told, and which processes of this one are theirs.

use super::Swarm;
use crate::hooks::{Happening, Occasion};

impl Swarm {
    /// Notes what happened to an agent, for the hook that there may be for it.
    pub(super) fn tell_hooks(&mut self, agent: usize, occasion: Occasion, reason: &str) {
        if !self.happenings.wants(occasion) || !self.is_shown(agent) {
            return;
        }
        let record = &self.agents[agent];
        self.happenings.note(Happening {
            occasion,
            agent: record.name.clone(),
            generation: record.generation,
            reason: reason.to_owned(),
        });
    }

    /// Whether a hook runs, or waits to be run.
    pub fn awaits_hooks(&self) -> bool {
        !self.guests.is_empty() || !self.happenings.is_empty()
    }

    /// A child of this process that is no agent's: it is no stray.
    pub fn add_guest(&mut self, pid: i32) {
        self.guests.push(pid);
    }

    /// It is gone.
    pub fn end_guest(&mut self, pid: i32) {
        self.guests.retain(|guest| *guest != pid);
    }
}
