//! The restart of a set while it is under way: who is to be down before anybody comes back, and who comes back when. Pure.

use crate::child::{self, Event, State};
use crate::restart::Policy;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is to be done to a process of a set, or noted of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// `Event::SetAside` to this one.
    SetAside(usize),
    /// `Event::Recalled` to this one.
    Recall(usize),
    /// `Event::GaveUp` to this one.
    GiveUp(usize),
    /// All of this set is down: another life of it begins.
    Begins(usize),
}

/// The restart of a set, or of a part of one, under way: who is to be down before anybody comes back, and who comes back.
///
/// One for each outermost set; what dies meanwhile is added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Plan {
    falls: BTreeSet<usize>,
    returns: BTreeSet<usize>,
    lost: BTreeSet<usize>,
    begins: BTreeSet<usize>,
    not_before: Duration,
}

impl Plan {
    /// These processes fall, and come back, in order, no earlier than this.
    pub fn add(&mut self, processes: impl IntoIterator<Item = usize>, not_before: Duration) {
        for process in processes {
            self.falls.insert(process);
            self.returns.insert(process);
        }
        self.not_before = self.not_before.max(not_before);
    }

    /// These processes fall, and do not come back.
    pub fn add_lost(&mut self, processes: impl IntoIterator<Item = usize>) {
        for process in processes {
            self.falls.insert(process);
            self.returns.remove(&process);
            self.lost.insert(process);
        }
    }

    /// This set begins another life when all is down.
    pub fn add_begin(&mut self, set: usize) {
        self.begins.insert(set);
    }

    /// Nobody falls any more, and nobody is brought back.
    pub fn cancel(&mut self) {
        *self = Plan::default();
    }

    /// Whether nothing is under way.
    pub fn is_over(&self) -> bool {
        self.falls.is_empty() && self.returns.is_empty()
    }

    /// Whether this process is to be down before anybody comes back.
    pub fn is_falling(&self, process: usize) -> bool {
        self.falls.contains(&process)
    }

    /// When it goes on, if it waits for a time and for nothing else.
    pub fn waits_until(&self, now: Duration) -> Option<Duration> {
        (self.falls.is_empty() && !self.returns.is_empty() && now < self.not_before)
            .then_some(self.not_before)
    }

    /// What is to be done now. To be called again when that has been done, and whenever something has happened, until there is
    /// nothing.
    ///
    /// Those of the highest rank are set aside first, all of a rank at once, and the next when they are down. When all are, the
    /// lowest rank is recalled, and the next when it is up: ready, at rest, or waiting for its readers, who may come after it.
    pub fn step(
        &mut self,
        rank: impl Fn(usize) -> usize,
        state: impl Fn(usize) -> State,
        now: Duration,
    ) -> Vec<Order> {
        let standing = |process: &usize| !is_down(state(*process));
        if let Some(highest) = self.falls.iter().copied().filter(standing).map(&rank).max() {
            let next = self.falls.iter().copied().filter(|p| standing(p) && rank(*p) == highest);
            return next.filter(|&p| moves(state(p))).map(Order::SetAside).collect();
        }
        let mut orders = Vec::new();
        if !self.falls.is_empty() {
            // Who was stopped meanwhile, or ended for good, stays as it is.
            let rests = |process: &usize| state(*process).is_at_rest();
            self.returns.retain(|process| !rests(process));
            orders.extend(self.lost.iter().filter(|p| !rests(p)).map(|&p| Order::GiveUp(p)));
            self.falls.clear();
            self.lost.clear();
        }
        if now >= self.not_before {
            orders.extend(std::mem::take(&mut self.begins).into_iter().map(Order::Begins));
            let missing = |process: &usize| !is_up(state(*process));
            match self.returns.iter().copied().filter(missing).map(&rank).min() {
                Some(lowest) => {
                    let next = self.returns.iter().copied().filter(|&p| rank(p) == lowest);
                    orders.extend(next.filter(|&p| state(p) == State::Aside).map(Order::Recall));
                }
                None => self.cancel(),
            }
        }
        orders
    }
}

/// Whether a process is down and stays so until it is recalled, or an operator asks.
fn is_down(state: State) -> bool {
    state == State::Aside || state.is_at_rest()
}

/// Whether the next may start.
fn is_up(state: State) -> bool {
    state == State::Ready || state == State::Draining || state.is_at_rest()
}

/// Whether setting it aside means anything to it.
fn moves(state: State) -> bool {
    child::next(state, Event::SetAside, Policy::Permanent).0 != state
}
