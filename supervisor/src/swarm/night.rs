//! Night: nobody did anything from one look to the next, and nothing waits for anybody. Then nobody is looked at who cannot wake without
//! being rung: all doorbells together are listened to instead, and the first ring, or anything else that the supervisor is told, ends
//! the night. A thousand agents that sleep so cost it not one turn of its loop.
//!
//! No message can be forgotten at night: who could send one without being rung or told something first is a light sleeper, and looked at.

use super::Swarm;
use super::rescue::{Peek, peek};
use rustix::event::{Timespec, epoll};
use shoal_runtime::again::insist;
use shoal_runtime::desk::Rest;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// While it is night.
pub(super) struct Night {
    /// Becomes readable when anybody is rung.
    rings: OwnedFd,
    /// Who may wake by itself: as after a time-out.
    light: Vec<usize>,
}

/// Who may wake without being rung.
fn light_sleepers(peeks: &[Option<Peek>]) -> Vec<usize> {
    let is_light = |peek: &Option<Peek>| peek.is_none_or(|peek| peek.rest != Rest::UntilRung);
    peeks.iter().enumerate().filter(|(_, peek)| is_light(peek)).map(|(agent, _)| agent).collect()
}

impl Night {
    fn of(swarm: &Swarm, peeks: &[Option<Peek>]) -> io::Result<Night> {
        let rings = insist(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for live in swarm.agents.iter().filter_map(|agent| agent.live.as_ref()) {
            insist(|| epoll::add(&rings, &live.doorbell, epoll::EventData::new_u64(0), edge))?;
        }
        let night = Night { rings, light: light_sleepers(peeks) };
        forget_rings(&night.rings);
        Ok(night)
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

/// Forgets the rings that such an epoll has heard so far. Each is told once, so this ends.
pub(super) fn forget_rings(bells: &OwnedFd) {
    let mut rung: Vec<epoll::Event> = Vec::with_capacity(64);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while matches!(epoll::wait(bells, rustix::buffer::spare_capacity(&mut rung), Some(&now)), Ok(1..)) {
        rung.clear();
    }
}

impl Swarm {
    /// Where the event loop hears of the first ring of a night; `None` by day.
    pub fn night_rings(&self) -> Option<BorrowedFd<'_>> {
        self.sleepers.night.as_ref().map(|night| night.rings.as_fd())
    }

    /// Night for all who sleep as these peeks say, unless somebody was rung or woke while it fell; `None` too where the kernel has no room for it:
    /// then there are looks as by day.
    pub(super) fn nightfall(&self, peeks: &[Option<Peek>]) -> Option<Night> {
        let night = Night::of(self, peeks).ok()?;
        // Who was rung before the rings were forgotten has woken since, or sleeps another sleep.
        let is_as_before = |(agent, before): (&_, &_)| peek(agent) == *before;
        self.agents.iter().zip(peeks).all(is_as_before).then_some(night)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_sleepers_are_all_who_may_wake_without_a_ring() {
        let peek = |rest| Some(Peek { generation: 1, rest, done: 5 });
        let [awake, light, until_rung] = [Rest::Awake, Rest::Light, Rest::UntilRung].map(peek);
        assert_eq!(light_sleepers(&[until_rung, light, None, until_rung, awake]), [1, 2, 4]);
    }
}
