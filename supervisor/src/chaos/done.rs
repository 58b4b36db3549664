//! What was done to the swarm, counted. Pure.

use crate::swarm::{Outcome, Upgraded};
use serde::{Deserialize, Serialize};

/// A change of the swarm that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pending {
    /// Another file.
    Reload,
    /// Other processes for the replicas of an agent.
    Upgrade {
        /// Their command ends by itself, soon and always: all must go back.
        doomed: bool,
    },
}

/// How often what was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Agents that were stopped.
    pub stops: u64,
    /// Restarts that were ordered.
    pub restarts: u64,
    /// Changes of the number of workers that were begun.
    pub scales: u64,
    /// Reloads that were applied.
    pub reloads: u64,
    /// How often a channel was added or removed.
    pub channels: u64,
    /// Upgrades of which every replica has proved itself.
    pub upgrades: u64,
    /// Upgrades to a command that crash-loops that went back by themselves.
    pub roll_backs: u64,
    /// Such upgrades that did not: there may be none.
    pub not_rolled_back: u64,
}

impl Done {
    /// Counts a reload that is over; one that was undone is not counted.
    pub fn reloaded(&mut self, outcome: &Outcome) {
        self.reloads += u64::from(matches!(outcome, Outcome::Applied { .. }));
    }

    /// Counts an upgrade that is over. One to a command that is sound and went back is not counted.
    pub fn upgraded(&mut self, doomed: bool, outcome: &Upgraded) {
        let count = match (outcome, doomed) {
            (Upgraded::Done(_), false) => &mut self.upgrades,
            (Upgraded::Done(_), true) => &mut self.not_rolled_back,
            (Upgraded::RolledBack(_), true) => &mut self.roll_backs,
            (Upgraded::RolledBack(_), false) => return,
        };
        *count += 1;
    }

    /// Whether every kind of change was seen to its end.
    pub fn has_every_change(&self) -> bool {
        [self.reloads, self.channels, self.upgrades, self.roll_backs].iter().all(|&count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgraded(doomed: bool, outcome: Upgraded) -> Done {
        let mut done = Done::default();
        done.upgraded(doomed, &outcome);
        done
    }

    #[test]
    fn upgrade_counts_by_what_was_to_become_of_it() {
        let (there, back) = (|| Upgraded::Done(Vec::new()), || Upgraded::RolledBack(String::new()));
        assert_eq!(upgraded(false, there()), Done { upgrades: 1, ..Done::default() });
        assert_eq!(upgraded(true, back()), Done { roll_backs: 1, ..Done::default() });
        assert_eq!(upgraded(true, there()), Done { not_rolled_back: 1, ..Done::default() });
        assert_eq!(upgraded(false, back()), Done::default());
    }

    #[test]
    fn reload_counts_when_it_is_applied() {
        let mut done = Done::default();
        done.reloaded(&Outcome::Undone(String::new()));
        assert_eq!(done, Done::default());
        done.reloaded(&Outcome::Applied { unread: Vec::new(), started: Vec::new() });
        assert_eq!(done, Done { reloads: 1, ..Done::default() });
    }

    #[test]
    fn every_change_is_a_reload_a_channel_an_upgrade_and_a_roll_back() {
        let all = Done { reloads: 1, channels: 1, upgrades: 1, roll_backs: 1, ..Done::default() };
        assert!(all.has_every_change());
        for lacking in [
            Done { reloads: 0, ..all },
            Done { channels: 0, ..all },
            Done { upgrades: 0, ..all },
            Done { roll_backs: 0, ..all },
        ] {
            assert!(!lacking.has_every_change(), "{lacking:?}");
        }
    }
}
