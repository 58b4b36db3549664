//! When the kernel takes no descriptors along: it counts those that are under way on sockets for all processes of a user together, and lets
//! nobody who is not root send more beyond as many as one may have open. Who has them under way may be anybody; whom something was to be
//! handed to has done nothing. So links and starts wait, and are tried again.
//!
//! An isolated agent has a lower bound than its supervisor (`confine.rs`), so it never comes that far.

use super::{Effect, Swarm, Timer};
use crate::child::State;
use crate::events::Kind;
use crate::log::Level;
use shoal_runtime::wire;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Nobody tells when it is over: so often that is tried.
const RETRY: Duration = Duration::from_millis(10);
/// What goes on is told so often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Who waits until descriptors can be handed over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waits {
    /// An agent: for links, its next start, or a standby.
    Agent(usize),
    /// The zygote of an agent of the file, for what its next fork is to have.
    Zygote(usize),
}

/// All who wait.
#[derive(Default)]
pub(super) struct Congestion {
    waiting: BTreeSet<Waits>,
    told: Option<Instant>,
}

impl Swarm {
    /// Whether an agent waits until descriptors can be handed over.
    pub(super) fn awaits_descriptors(&self, agent: usize) -> bool {
        self.congestion.waiting.contains(&Waits::Agent(agent))
    }

    /// Gives somebody another turn when descriptors can be handed over again.
    pub(super) fn hand_over_later(&mut self, who: Waits) {
        self.tell_congestion();
        if self.congestion.waiting.is_empty() {
            self.try_handing_over_later();
        }
        self.congestion.waiting.insert(who);
    }

    fn try_handing_over_later(&mut self) {
        self.effects.push(Effect::Arm(Instant::now() + RETRY, 0, Timer::HandOver, 0));
    }

    /// Tells that, and what is to be done, unless it was told lately.
    fn tell_congestion(&mut self) {
        if self.congestion.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.congestion.told = Some(Instant::now());
        let text = format!(
            "descriptors cannot be handed over, so starts and links wait: processes of user {} have too many under way on Unix \
             sockets. End who sends them and reads none: of these agents one that is trusted (`trust = \"isolated\"` bounds it), or \
             another process",
            rustix::process::geteuid().as_raw()
        );
        self.tell(Level::Error, Kind::Notice, None, &text);
    }

    /// The timer: all who wait have their turn, if it is over.
    pub(super) fn try_handing_over(&mut self) {
        if !wire::may_hand_over() {
            self.tell_congestion();
            return self.try_handing_over_later();
        }
        for who in std::mem::take(&mut self.congestion.waiting) {
            match who {
                Waits::Agent(agent) => self.hand_over_to(agent),
                Waits::Zygote(config) => self.tend(config),
            }
        }
    }

    fn hand_over_to(&mut self, agent: usize) {
        self.touch(agent);
        if self.agents[agent].state == State::Draining {
            self.on_timer(agent, Timer::Drain);
        }
        self.flush(agent);
        self.refill(agent);
    }
}
