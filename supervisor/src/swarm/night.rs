//! Night: nobody did anything from one look to the next, and nothing waits for anybody. Then nobody is looked at who cannot wake without
//! being rung: all doorbells together are listened to instead, and the first ring, or anything else that the supervisor is told, ends
//! the night. A thousand agents that sleep so cost it not one turn of its loop.
//!
//! No message can be forgotten at night: who could send one without being rung or told something first is a light sleeper, and looked at.

use super::Swarm;
use super::bells::Bells;
use super::rescue::{Peek, peek};
use shoal_runtime::desk::Rest;
use shoal_runtime::doorbell::Doorbell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// While it is night.
pub(super) struct Night {
    /// Of all agents.
    bells: Bells,
    /// Who may wake by itself: as after a time-out.
    light: Vec<usize>,
}

/// Who may wake without being rung.
fn light_sleepers(peeks: &[Option<Peek>]) -> Vec<usize> {
    let is_light = |peek: &Option<Peek>| peek.is_none_or(|peek| peek.rest != Rest::UntilRung);
    peeks.iter().enumerate().filter(|(_, peek)| is_light(peek)).map(|(agent, _)| agent).collect()
}

impl Night {
    /// Night for all who sleep as these peeks say, unless a further one at each shows that somebody woke while their doorbells were gathered.
    fn fall<'a>(
        peeks: &[Option<Peek>],
        doorbells: impl Iterator<Item = &'a Doorbell>,
        again: impl Fn(usize) -> Option<Peek>,
    ) -> io::Result<Option<Night>> {
        let bells = Bells::new()?;
        for doorbell in doorbells {
            bells.hear(doorbell)?;
        }
        bells.forget();
        // Whoever rang one before it was forgotten was awake for that, and now sleeps another sleep if any; what is rung later is heard.
        let slept_on = peeks.iter().enumerate().all(|(agent, before)| again(agent) == *before);
        Ok(slept_on.then(|| Night { bells, light: light_sleepers(peeks) }))
    }

    /// Whether somebody sleeps until it is rung.
    pub(super) fn covers(&self, agent: usize) -> bool {
        self.light.binary_search(&agent).is_err()
    }

    /// Who may wake by itself.
    pub(super) fn light(&self) -> &[usize] {
        &self.light
    }
}

impl Swarm {
    /// Where the event loop hears of the first ring of a night; `None` by day.
    pub fn night_rings(&self) -> Option<BorrowedFd<'_>> {
        self.sleepers.night.as_ref().map(|night| night.bells.as_fd())
    }

    /// Night for all who sleep as these peeks say, unless somebody woke while it fell; `None` too where the kernel has no room for it:
    /// then there are looks as by day.
    pub(super) fn nightfall(&self, peeks: &[Option<Peek>]) -> Option<Night> {
        let lives = self.agents.iter().filter_map(|agent| agent.live.as_ref());
        let doorbells = lives.map(|live| &live.doorbell);
        Night::fall(peeks, doorbells, |agent| peek(&self.agents[agent])).ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::cell::Cell;

    #[test]
    fn light_sleepers_are_all_who_may_wake_without_a_ring() {
        let peek = |rest| Some(Peek { generation: 1, rest, done: 5 });
        let [awake, light, until_rung] = [Rest::Awake, Rest::Light, Rest::UntilRung].map(peek);
        assert_eq!(light_sleepers(&[until_rung, light, None, until_rung, awake]), [1, 2, 4]);
    }

    /// Goal: no ring is lost between day and night. Method: an agent wakes once, at each moment of a nightfall in turn, and rings another; the
    /// one that it rings has not noticed yet when it is looked at.
    #[test]
    fn ring_while_night_falls_is_heard_then_or_keeps_it_day() {
        let [ringer, rung] = [0, 1];
        let asleep = |done| Some(Peek { generation: 1, rest: Rest::UntilRung, done });
        // Before each doorbell is added and when all are, then before each look.
        for (moment, falls) in [false, false, false, false, true].into_iter().enumerate() {
            let doorbells = [(); 2].map(|()| Doorbell::create().expect("a doorbell"));
            let (moments, done) = (Cell::new(0), Cell::new(7));
            let pass = || {
                if moments.replace(moments.get() + 1) == moment {
                    done.set(9);
                    doorbells[rung].ring();
                }
            };
            let again = |agent| {
                pass();
                asleep(if agent == ringer { done.get() } else { 7 })
            };
            let mut listed = doorbells.iter();
            let gathered = std::iter::from_fn(|| {
                pass();
                listed.next()
            });
            let night = Night::fall(&[asleep(7); 2], gathered, again).expect("room for it");
            assert_eq!(night.as_ref().map(is_disturbed), falls.then_some(true), "rung at moment {moment}");
        }
        let doorbell = Doorbell::create().expect("a doorbell");
        let night = Night::fall(&[asleep(7)], [&doorbell].into_iter(), |_| asleep(7));
        assert!(!is_disturbed(&night.expect("room for it").expect("a night")), "nobody rang");
    }

    /// Whether a ring was heard.
    fn is_disturbed(night: &Night) -> bool {
        let mut polled = [PollFd::new(&night.bells, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("its epoll") == 1
    }
}
