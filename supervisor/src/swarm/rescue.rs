//! Rescues: an agent that sleeps though messages wait for it is rung, and counted. Whoever publishes rings, so in a healthy
//! swarm there is never one; a count above zero is a bug of the protocol that was survived.
//!
//! Once a second a few words of fixed size are read of every agent; a sleeper costs two words more for each lane that it reads. When
//! nobody at all has done anything from one look to the next, nor told the supervisor anything, it is night (`swarm/night.rs`): looked at
//! is only who may wake by itself, and each pause between two looks is four times the last, up to 16 seconds.
//!
//! A single glance may catch an agent that is just being woken, and a producer between its publish and its ring.
//! So only what two looks saw alike counts, and only of processes that the kernel shows neither running nor stopped.

use super::night::Night;
use super::{Effect, Swarm, Timer};
use crate::agent::{Agent, Sealed};
use crate::events::Kind;
use crate::log::Level;
use shoal_runtime::claims::{Claim, ClaimTable};
use shoal_runtime::desk::{self, Awaits, Counter, Rest};
use shoal_runtime::mark::Place;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same at most, when nobody does anything.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(16);

/// Claims that a look goes through on one lane: what lies further ahead is seen when the first are done.
const CLAIMS_MAX: usize = 1 << 16;

/// So many agents' heads (some pages each) stay mapped with their pages; of more, only those of who does something, without their pages.
const MANY: usize = 100;

/// What the last look saw.
#[derive(Default)]
pub(super) struct Sleepers {
    /// One glance an agent; `None` for one that was awake or had nothing to read.
    seen: Vec<Option<Glance>>,
    /// What each had done.
    peeks: Vec<Option<Peek>>,
    /// Between the last look and the next.
    pause: Duration,
    /// When the next look is due, and when the timer for it, or for who has a deadline; none at a night without light sleepers.
    due: Option<Instant>,
    armed: Option<Instant>,
    /// While nobody does anything.
    pub(super) night: Option<Night>,
}

/// How long to wait after a look, from how long it was before.
fn pause_after(still: bool, before: Duration) -> Duration {
    if still { (before * 4).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY) } else { LOOK_EVERY }
}

/// Whether nobody has done anything since the last look, and nobody is waited for.
fn is_still(before: &[Option<Peek>], now: &[Option<Peek>], seen: &[Option<Glance>]) -> bool {
    let sleeps_on = |now: &Option<Peek>| now.is_some_and(|now| now.is_asleep());
    before == now && now.iter().all(sleeps_on) && seen.iter().all(Option::is_none)
}

/// What an agent has done, and whether it sleeps: equal at two looks if it did nothing in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peek {
    pub(super) generation: u32,
    pub(super) rest: Rest,
    pub(super) done: u64,
}

impl Peek {
    /// Whether it sleeps.
    pub(super) fn is_asleep(self) -> bool {
        self.rest != Rest::Awake
    }
}

/// Whether there is nothing new to see of an agent since a look that saw nothing wait for it: it sleeps one and the same sleep, and so do all
/// who could send it something.
fn is_calm(
    before: &[Option<Peek>],
    now: &[Option<Peek>],
    agent: usize,
    from: impl Iterator<Item = usize>,
) -> bool {
    let mut all = std::iter::once(agent).chain(from);
    all.all(|agent| now[agent].is_some_and(Peek::is_asleep) && before.get(agent) == Some(&now[agent]))
}

/// An agent that sleeps while committed messages that concern it wait.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Glance {
    /// Its life, and its parked word: another one for each sleep.
    sleep: (u32, u64),
    /// The lanes on which something waits.
    waiting: Vec<Waiting>,
}

/// A lane on which something waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    /// The input of the sleeper that is this lane.
    input: usize,
    /// The position up to which it was read; in a group, the number of the first message that nobody works on.
    read: u64,
    /// Up to where it was committed.
    committed: u64,
}

/// What a process does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// There is none, and a verdict on the last one: of a death all neighbours are told.
    Gone,
    /// It waits in the kernel.
    Asleep,
    /// It runs, or would like to.
    Running,
    /// It is stopped, by a signal or a debugger.
    Stopped,
    /// It is dead and not buried yet.
    Dead,
}

/// Whether an agent was forgotten: it slept one and the same sleep from one look to the next while a message waited, and the
/// message's producer has since left the publish that should have rung.
///
/// A publish rings before it ends, and an agent sleeps only outside of one. A producer that runs has left the publish of
/// what it committed before the first look if it has committed more since.
///
/// The sleeper is asked for last: who was rung while the others were looked at sleeps no more.
fn forgotten(
    before: &Glance,
    now: &Glance,
    sleeper: impl FnOnce() -> Doing,
    producer: impl Fn(usize) -> Doing,
) -> bool {
    let left_its_publish = |before: &Waiting, now: &Waiting| match producer(now.input) {
        Doing::Gone | Doing::Asleep => true,
        Doing::Running => now.committed > before.committed,
        Doing::Stopped | Doing::Dead => false,
    };
    let waits_since = |now: &Waiting| {
        let lane = before.waiting.iter().find(|w| w.input == now.input);
        lane.is_some_and(|before| before.read == now.read && left_its_publish(before, now))
    };
    before.sleep == now.sleep && now.waiting.iter().any(waits_since) && sleeper() == Doing::Asleep
}

/// The first message of a group's lane that nobody works on, if one may be claimed. What a member works on concerns no other.
fn free(table: &ClaimTable, end: u64) -> Option<u64> {
    let frontier = table.frontier();
    let claimable = (frontier..end).take_while(|&sequence| table.within(sequence, frontier));
    claimable.take(CLAIMS_MAX).find(|&sequence| matches!(table.see(sequence), Claim::Free { .. }))
}

/// What is noted instead of what a life has done, of an agent that has none.
const RESTS: u64 = u64::MAX;

/// What an agent has done in its life up to now. Who has no process can do nothing until it has one again, with another number: as who
/// replays dead letters, from whom everybody reads.
pub(super) fn peek(agent: &Agent) -> Option<Peek> {
    let Some(live) = &agent.live else {
        return Some(Peek { generation: agent.last.generation, rest: Rest::UntilRung, done: RESTS });
    };
    if !live.going {
        return None;
    }
    let (rest, done) = desk::peek(&live.sealed.as_ref()?.read_only).ok()?;
    Some(Peek { generation: live.incarnation.generation, rest, done })
}

impl Swarm {
    /// How many rescues there were.
    pub fn rescues(&self) -> u64 {
        self.agents.iter().map(|agent| agent.rescues).sum()
    }

    /// Something was told: whoever does something is looked at soon again.
    pub fn stir(&mut self) {
        if self.sleepers.pause > LOOK_EVERY {
            self.look_soon();
        }
    }

    /// It is day: the next look is made in a second, as is the first one.
    pub(super) fn look_soon(&mut self) {
        self.sleepers.night = None;
        self.sleepers.pause = LOOK_EVERY;
        self.sleepers.due = Some(Instant::now() + LOOK_EVERY);
        self.arm_look();
    }

    /// The timer of a look, or of a look at who has a deadline.
    pub(super) fn on_look(&mut self) {
        let now = Instant::now();
        // Of two that were armed the later one may be void.
        if self.sleepers.armed.is_some_and(|at| at > now) {
            return;
        }
        self.recollect();
        if self.sleepers.due.is_some_and(|due| due <= now) {
            self.look();
            self.sleepers.due = Some(now + self.sleepers.pause);
        }
        self.watch_anyway();
        self.arm_look();
    }

    fn arm_look(&mut self) {
        if self.sleepers.night.as_ref().is_some_and(|night| night.light().is_empty()) {
            (self.sleepers.due, self.sleepers.armed) = (None, None);
            return;
        }
        let at = match self.sleepers.due {
            Some(due) if !self.watches_any(|agent| !self.sleeps_until_rung(agent)) => due,
            // Who has a deadline may have woken by itself.
            _ => Instant::now() + LOOK_EVERY,
        };
        self.sleepers.armed = Some(at);
        self.effects.push(Effect::Arm(at, 0, Timer::Rescue, 0));
    }

    /// Looks at who may have woken by itself since night fell, or by day at all agents.
    fn look(&mut self) {
        let slept_on = |agent: &usize| self.sleepers.peeks.get(*agent) == Some(&peek(&self.agents[*agent]));
        match &self.sleepers.night {
            Some(night) if night.light().iter().all(slept_on) => {
                self.sleepers.pause = pause_after(true, self.sleepers.pause);
            }
            Some(_) => {
                self.sleepers.night = None;
                self.rescue_sleepers();
            }
            None => self.rescue_sleepers(),
        }
    }

    /// Whether it is night and somebody cannot wake without a ring, which ends it.
    pub(super) fn sleeps_until_rung(&self, agent: usize) -> bool {
        self.sleepers.night.as_ref().is_some_and(|night| night.covers(agent))
    }

    /// Looks at all agents, and rings who was forgotten. What was read of the dead since the last death goes, too: nobody tells of it.
    fn rescue_sleepers(&mut self) {
        let with_graves = |agent: &usize| !self.agents[*agent].graves.is_empty();
        let bereaved: Vec<usize> = (0..self.agents.len()).filter(with_graves).collect();
        bereaved.into_iter().for_each(|agent| self.reclaim(agent));
        let mut seen = std::mem::take(&mut self.sleepers.seen);
        seen.resize(self.agents.len(), None);
        let peeks: Vec<_> = self.agents.iter().map(peek).collect();
        let peeked = std::mem::take(&mut self.sleepers.peeks);
        let many = self.are_many();
        let mut calms = Vec::with_capacity(seen.len());
        for (agent, before) in seen.iter_mut().enumerate() {
            let inputs = &self.topology.agents[agent].inputs;
            let from = inputs.iter().map(|input| input.producer);
            // In a group others than producers can leave something for it.
            let alone = inputs.iter().all(|input| input.table.is_none());
            let calm = alone && before.is_none() && is_calm(&peeked, &peeks, agent, from);
            let now = if calm { None } else { self.glance(agent) };
            calms.push(calm);
            if let (Some(before), Some(now)) = (before.as_ref(), &now)
                && self.is_forgotten(agent, before, now)
            {
                self.rescue(agent);
            }
            *before = now;
        }
        self.tell_of_stops(&peeked, &peeks, &calms);
        let still = is_still(&peeked, &peeks, &seen);
        self.sleepers.pause = pause_after(still, self.sleepers.pause);
        if still && !self.is_deaf() {
            self.sleepers.night = self.nightfall(&peeks);
            self.effects.push(Effect::AwaitDawn);
        }
        (self.sleepers.seen, self.sleepers.peeks) = (seen, peeks);
        if many {
            for (agent, calm) in self.agents.iter_mut().zip(calms) {
                let sealed = agent.lives_mut().filter_map(|live| live.sealed.as_mut());
                sealed.for_each(|sealed| if calm { sealed.leave() } else { sealed.leave_pages() });
            }
        }
    }

    /// Whether the heads of all segments together are too much to be kept in memory here.
    pub(super) fn are_many(&self) -> bool {
        self.agents.len() > MANY
    }

    /// All agents were looked at: of many, the views are given back. A supervisor that dies with them takes longer to be gone.
    pub fn leave_views(&mut self) {
        if self.are_many() {
            let lives = self.agents.iter_mut().flat_map(|agent| agent.lives_mut());
            lives.filter_map(|live| live.sealed.as_mut()).for_each(Sealed::leave);
        }
    }

    fn is_forgotten(&self, agent: usize, before: &Glance, now: &Glance) -> bool {
        // Most sleep another sleep by now: that costs no look at any process.
        before.sleep == now.sleep
            && forgotten(
                before,
                now,
                || self.doing(agent),
                |input| self.doing(self.topology.agents[agent].inputs[input].producer),
            )
    }

    fn rescue(&mut self, agent: usize) {
        let record = &mut self.agents[agent];
        let Some(live) = &record.live else { return };
        live.doorbell.ring();
        record.rescues += 1;
        let text = format!(
            "agent {} (generation {}) slept though messages waited for it, and was woken: a bug of Shoal, please report it",
            record.name, live.incarnation.generation
        );
        self.tell(Level::Error, Kind::Rescue, Some(agent), &text);
    }

    /// What is to be seen of an agent that sleeps though something waits. One that accused a peer reads on as it can.
    fn glance(&self, agent: usize) -> Option<Glance> {
        let record = &self.agents[agent];
        let live = record.live.as_ref().filter(|live| live.going && live.post.is_done())?;
        let view = live.sealed.as_ref()?.view().ok()?;
        let words = desk::view(view);
        let accuses = || desk::counter(view, Counter::PeerFaults) > 0;
        if !words.parked || words.awaits == Awaits::Nothing || record.paused || accuses() {
            return None;
        }
        let inputs = self.topology.agents[agent].inputs.iter().enumerate();
        let concerns = inputs.filter(|(_, input)| words.awaits.concerns(input.channel as u32));
        let waiting: Vec<_> = concerns.filter_map(|(index, _)| self.waiting(agent, index)).collect();
        let sleep = (live.incarnation.generation, words.sleep);
        (!waiting.is_empty()).then_some(Glance { sleep, waiting })
    }

    /// Whether something waits on any lane that an agent reads.
    pub(super) fn is_waited_for(&self, agent: usize) -> bool {
        (0..self.topology.agents[agent].inputs.len()).any(|index| self.waiting(agent, index).is_some())
    }

    /// What waits on one lane for one of its readers.
    fn waiting(&self, agent: usize, index: usize) -> Option<Waiting> {
        let input = &self.topology.agents[agent].inputs[index];
        let committed = self.tail(input.producer, input.lane)?;
        if let Some(table) = &input.table {
            let read = free(&self.groups.table(table), committed.sequence)?;
            return Some(Waiting { input: index, read, committed: committed.position });
        }
        let read = self.cursor(agent, index);
        // The share tells whose message each is by its number.
        let (k, n) = (u64::from(input.share.0), u64::from(input.share.1));
        let below = |end: u64| (end + n - 1 - k) / n;
        let concerned = below(committed.sequence) > below(read.sequence);
        let [read, committed] = [read, committed].map(|place: Place| place.position);
        (concerned && committed > read).then_some(Waiting { input: index, read, committed })
    }

    /// What an agent's process does.
    pub(super) fn doing(&self, agent: usize) -> Doing {
        let Some(live) = &self.agents[agent].live else { return Doing::Gone };
        // The state stands behind the name, which is in brackets and may hold anything.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", live.child.pid)).unwrap_or_default();
        match stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().as_bytes().first()) {
            Some(Some(b'S')) => Doing::Asleep,
            Some(Some(b'R' | b'D')) => Doing::Running,
            Some(Some(b'T' | b't')) => Doing::Stopped,
            _ => Doing::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance(sleep: u64, read: u64, committed: u64) -> Glance {
        Glance { sleep: (1, sleep), waiting: vec![Waiting { input: 2, read, committed }] }
    }

    #[test]
    fn only_the_same_sleep_with_the_same_message_waiting_at_two_looks_is_forgotten() {
        let now = glance(7, 64, 128);
        let asleep = |before: &Glance| forgotten(before, &now, || Doing::Asleep, |_| Doing::Asleep);
        assert!(asleep(&now));
        assert!(!asleep(&glance(5, 64, 128)), "it was awake in between");
        assert!(!asleep(&glance(7, 0, 128)), "it read in between");
        let other_life = Glance { sleep: (2, 7), ..now.clone() };
        assert!(!asleep(&other_life));
        let other_lane = Glance { waiting: vec![Waiting { input: 1, ..now.waiting[0] }], ..now.clone() };
        assert!(!asleep(&other_lane), "the message came after the first look");
    }

    #[test]
    fn calm_is_who_sleeps_on_while_all_who_send_to_it_sleep_on() {
        let peek = |generation, done| Some(Peek { generation, rest: Rest::Light, done });
        let awake = Some(Peek { generation: 1, rest: Rest::Awake, done: 5 });
        let before = [peek(1, 7), peek(1, 3), awake, peek(2, 9)];
        let calm = |now: [Option<Peek>; 4], from: &[usize]| is_calm(&before, &now, 0, from.iter().copied());
        assert!(calm(before, &[1, 3]));
        assert!(!calm(before, &[1, 2]), "who is awake may send at any time");
        let [own, first, second, third] = before;
        assert!(!calm([peek(1, 9), first, second, third], &[1]), "it was awake in between");
        assert!(!calm([own, peek(1, 5), second, third], &[1]), "it may have sent something");
        assert!(
            !calm([own, first, second, peek(3, 9)], &[3]),
            "the end of a life may show more than was seen"
        );
        assert!(!is_calm(&[], &before, 0, std::iter::empty()), "the first look sees everything");
    }

    #[test]
    fn looks_become_rarer_while_nobody_does_anything_and_frequent_as_soon_as_somebody_does() {
        let mut pause = LOOK_EVERY;
        let mut seconds = |still| {
            pause = pause_after(still, pause);
            pause.as_secs()
        };
        assert_eq!([true; 4].map(&mut seconds), [4, 16, 16, 16]);
        assert_eq!([false, false, true].map(&mut seconds), [1, 1, 4]);

        let asleep = |done| Some(Peek { generation: 1, rest: Rest::Light, done });
        let still = [asleep(1), asleep(2)];
        assert!(is_still(&still, &still, &[None, None]));
        assert!(!is_still(&[], &still, &[None, None]), "the first look");
        assert!(!is_still(&[asleep(1), asleep(3)], &still, &[None, None]), "it did something");
        assert!(!is_still(&still, &still, &[None, Some(glance(7, 64, 128))]), "something waits");
        let awake = [asleep(1), Some(Peek { generation: 1, rest: Rest::Awake, done: 2 })];
        assert!(!is_still(&awake, &awake, &[None, None]), "it is awake");
        assert!(!is_still(&[None], &[None], &[None]), "it is being started");
    }

    #[test]
    fn nobody_is_forgotten_who_does_not_sleep_in_the_kernel() {
        let now = glance(7, 64, 128);
        let all =
            [(Doing::Asleep, true), (Doing::Running, false), (Doing::Stopped, false), (Doing::Dead, false)];
        for (doing, expected) in all {
            assert_eq!(forgotten(&now, &now, || doing, |_| Doing::Asleep), expected, "{doing:?}");
        }
    }

    #[test]
    fn nobody_is_forgotten_whose_producer_may_still_be_about_to_ring() {
        let (before, more) = (glance(7, 64, 128), glance(7, 64, 192));
        for (doing, same, moved) in [
            (Doing::Gone, true, true),
            (Doing::Asleep, true, true),
            (Doing::Running, false, true),
            (Doing::Stopped, false, false),
            (Doing::Dead, false, false),
        ] {
            assert_eq!(forgotten(&before, &before, || Doing::Asleep, |_| doing), same, "{doing:?}");
            assert_eq!(forgotten(&before, &more, || Doing::Asleep, |_| doing), moved, "{doing:?}");
        }
    }
}
