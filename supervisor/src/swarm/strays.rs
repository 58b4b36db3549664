//! Strays: descendants of agents that were orphaned, and forks that died, or went silent, before their first word. They fall to the keeper,
//! or to this process. They are ended when they are found, and reaped as soon as they are dead; then it is looked for what they left.

use super::{Effect, Swarm};
use crate::spawn::Stray;
use std::os::fd::{AsFd, BorrowedFd};

/// All of a swarm.
#[derive(Default)]
pub(super) struct Strays {
    dying: Vec<Stray>,
    /// They were to be ended when nobody could tell them from a fork that has yet to say who it is.
    due: bool,
    /// So many turns of the loop from now who took over looks for them, or as soon as it has nothing else to do.
    put_off: Option<u32>,
}

/// Whoever asks a supervisor that has just taken over is answered before the thousands of children are gone through.
const TURNS: u32 = 8;

impl Strays {
    /// A supervisor has taken over.
    pub(super) fn put_off(&mut self) {
        self.put_off = Some(TURNS);
    }

    /// Whether they are still to be looked for.
    pub(super) fn are_put_off(&self) -> bool {
        self.put_off.is_some()
    }

    /// A turn of the loop: whether it is time.
    fn turn(&mut self, idle: bool) -> bool {
        let Some(left) = self.put_off else { return false };
        let is_time = idle || left <= 1;
        self.put_off = (!is_time).then(|| left - 1);
        is_time
    }
}

impl Swarm {
    /// Ends descendants of agents that fell to this process. Not while a child of a zygote has yet to say who it is: it is no stray; then
    /// that is made up for by [`Swarm::end_due_strays`].
    pub(super) fn end_strays(&mut self) {
        self.strays.due = self.nurseries.hatch();
        if self.strays.due {
            return;
        }
        let dying = |pid| self.strays.dying.iter().any(|stray| stray.pid == pid);
        let mut agents: Vec<i32> = self.agents.iter().flat_map(|a| a.lives()).map(|l| l.child.pid).collect();
        agents.sort_unstable();
        let is_agents = |pid: i32| agents.binary_search(&pid).is_ok() || self.nurseries.know(pid);
        let known = |pid| self.guests.contains(&pid) || is_agents(pid) || dying(pid);
        for stray in self.cradle.spawner.end_strays(known) {
            self.effects.push(Effect::WatchStray(stray.pid));
            self.strays.dying.push(stray);
        }
    }

    /// Ends, after a take-over, what a predecessor had cloned and not written down, and orphans.
    pub(super) fn end_strays_put_off(&mut self, idle: bool) {
        if self.strays.turn(idle) {
            self.end_strays();
        }
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
        self.end_strays();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strays_are_looked_for_once_after_a_take_over_at_the_first_pause_or_soon() {
        let mut strays = Strays::default();
        assert!(!strays.turn(true), "nobody took over");
        strays.put_off();
        assert_eq!([true, true].map(|idle| strays.turn(idle)), [true, false]);
        strays.put_off();
        assert!(strays.are_put_off());
        let turns: Vec<bool> = (0..=TURNS).map(|_| strays.turn(false)).collect();
        let looks: Vec<u32> = (1..).zip(turns).filter_map(|(turn, looks)| looks.then_some(turn)).collect();
        assert_eq!(looks, [TURNS], "nobody who asks without end keeps it from that");
        assert!(!strays.are_put_off());
    }
}
