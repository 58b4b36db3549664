//! Strays: descendants of agents that are dead, and forks that died, or went silent, before their first word. They fall to the keeper,
//! or to this process: descendants only once their agent is dead, for until then whatever is orphaned falls to the agent itself
//! (`spawn.rs`). So nobody has to ask whose they were. They are looked for after each death, killed, and reaped as soon as they are dead;
//! then it is looked for what they left, and at once for what those left who were dead before.

use super::{Effect, Swarm};
use crate::spawn::Stray;
use std::os::fd::{AsFd, BorrowedFd};

/// So often it is looked again at once for what those left who had ended before they were killed: who forks and ends all the time is met
/// between the two sooner or later, and others wait meanwhile.
const LOOKS_MAX: u32 = 32;

/// All of a swarm.
#[derive(Default)]
pub(super) struct Strays {
    dying: Vec<Stray>,
    /// They were to be ended when nobody could tell them from a fork that has yet to say who it is.
    due: bool,
}

impl Swarm {
    /// Ends descendants of dead agents. Not while a child of a zygote has yet to say who it is: it is no stray; then that is made up for by
    /// [`Swarm::end_due_strays`].
    pub(super) fn end_strays(&mut self) {
        self.strays.due = self.nurseries.hatch();
        if self.strays.due {
            return;
        }
        self.recollect();
        let mut agents: Vec<i32> = self.agents.iter().flat_map(|a| a.lives()).map(|l| l.child.pid).collect();
        agents.sort_unstable();
        for _ in 0..LOOKS_MAX {
            if !self.end_those_there_are(&agents) {
                return;
            }
        }
        self.end_strays_later();
    }

    /// Ends those that there are beside the processes of agents, in order. True when one had ended by itself: then there may be others.
    fn end_those_there_are(&mut self, agents: &[i32]) -> bool {
        let dying = |pid| self.strays.dying.iter().any(|stray| stray.pid == pid);
        let is_agents = |pid: i32| agents.binary_search(&pid).is_ok() || self.nurseries.know(pid);
        let known = |pid| self.guests.contains(&pid) || is_agents(pid) || dying(pid);
        let (killed, outran) = self.cradle.spawner.end_strays(known);
        for stray in killed {
            self.effects.push(Effect::WatchStray(stray.pid));
            self.strays.dying.push(stray);
        }
        outran
    }

    /// A fork has said who it is, or never will.
    pub(super) fn end_due_strays(&mut self) {
        if self.strays.due {
            self.end_strays();
        }
    }

    /// Says when a stray is dead.
    pub fn stray(&self, pid: i32) -> Option<BorrowedFd<'_>> {
        self.strays.dying.iter().find(|stray| stray.pid == pid).map(|stray| stray.pidfd.as_fd())
    }

    /// A stray is dead: its number may be used again, and its children are nobody's.
    pub fn on_stray_death(&mut self, pid: i32) {
        let Some(place) = self.strays.dying.iter().position(|stray| stray.pid == pid) else { return };
        let stray = self.strays.dying.remove(place);
        // Whoever cannot be reaped is not ours.
        let _ = self.cradle.spawner.bury_stray(&stray);
        self.end_strays_later();
    }
}
