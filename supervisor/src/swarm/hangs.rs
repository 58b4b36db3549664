//! Hangs: an agent that holds one message longer than its `deadline`, without a word, is aborted and started again.
//!
//! An agent notes on its desk since when it holds a message, so a look costs a few words of fixed size for each agent that has
//! a deadline. Looks are made only while one of them is awake: after half a deadline, while it holds a message after a quarter, and
//! exactly when that is overdue. While all sleep there is no timer: the supervisor waits for a ring, as they do. (Once a second, with the look for
//! forgotten sleepers, it makes sure that nobody woke without one.)
//!
//! Nobody is blamed at first sight, and what the supervisor slept through counts for nobody: stopped and continued, it goes
//! on where it was. Nor does the time count in which an agent would have worked and was given no processor, so far as it was watched by then. Who waits for space on a full lane is not hung; its send has a time-out of its own.
//!
//! Who was stopped by a signal is hung, too, if it holds no message but is awake, or messages wait for it: from when that is seen first,
//! its deadline runs.

use super::bells::Bells;
use super::rescue::{Doing, Peek, peek};
use super::{Effect, Swarm, Timer};
use crate::agent::Live;
use crate::child::{Event, State};
use crate::config::SwarmFile;
use crate::events::Kind;
use crate::log::Level;
use crate::topology::Topology;
use shoal_runtime::{clock, desk};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long an aborted agent may take to end before SIGKILL, at most; else a quarter of its deadline.
const GRACE_MAX: Duration = Duration::from_secs(1);

/// Instead of a time since when a message is held: none is, and the process was stopped. As all stamps of the future it counts as now.
const STOPPED: u64 = u64::MAX;

/// What one look sees of an agent that holds a message: equal at two looks if it was the same message all the time, and not a
/// word in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    generation: u32,
    progress: u64,
    since_ns: u64,
    /// The parked word: another one after a wait for space.
    sleep: u64,
}

/// A hold that is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watched {
    hold: Hold,
    /// When it was seen first.
    seen_ns: u64,
    /// From when its time counts.
    from_ns: u64,
    /// What its process had had of the processors, at the last look but the first.
    fare: Option<Fare>,
}

/// What a process has had of the processors up to a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fare {
    at_ns: u64,
    /// How long it has run.
    ran_ns: u64,
    /// How long it has waited to run. The kernel counts a wait when it is over.
    waited_ns: u64,
    /// Whether it would run now, or does.
    ready: bool,
    /// So much of the wait that is not over was seen.
    ahead_ns: u64,
}

impl Fare {
    /// The same with what was seen of a wait that is not over, given what was known before; and for how long it has waited since.
    fn since(self, before: Fare) -> (Fare, u64) {
        let over_ns = self.waited_ns.saturating_sub(before.waited_ns);
        if over_ns == 0 && self.ready && self.ran_ns == before.ran_ns {
            let more_ns = self.at_ns.saturating_sub(before.at_ns);
            return (Fare { ahead_ns: before.ahead_ns + more_ns, ..self }, more_ns);
        }
        (self, over_ns.saturating_sub(before.ahead_ns))
    }
}

/// When a look is made, and what the supervisor may have slept through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    now_ns: u64,
    /// By how much it comes later than it was meant to.
    late_ns: u64,
    /// Since when looks follow each other; nothing before counts.
    since_ns: u64,
}

impl Watched {
    /// What is known of a hold after a look, from what was known before.
    fn at(before: Option<Watched>, hold: Hold, look: Look) -> Watched {
        let Look { now_ns, late_ns, since_ns } = look;
        let (seen_ns, from_ns, fare) = match before.filter(|before| before.hold == hold) {
            Some(same) => (same.seen_ns, same.from_ns, same.fare),
            None => (now_ns, hold.since_ns.max(since_ns), None),
        };
        Watched { hold, seen_ns, from_ns: from_ns.saturating_add(late_ns).min(now_ns), fare }
    }

    /// The same of a hold that was seen before, given what its process has had of the processors: for how long it waited for one since the last
    /// look does not count, beyond what a look that comes late leaves out.
    fn faring(self, fare: Fare, late_ns: u64) -> Watched {
        let (fare, waited_ns) = self.fare.map_or((fare, 0), |before| fare.since(before));
        let from_ns = self.from_ns.saturating_add(waited_ns.saturating_sub(late_ns)).min(fare.at_ns);
        Watched { from_ns, fare: Some(fare), ..self }
    }

    /// Since when it hangs, for who is told: by its own stamp where that can be true.
    fn begun_ns(&self, born_ns: u64) -> u64 {
        let said = self.hold.since_ns;
        if (born_ns..self.from_ns).contains(&said) { said } else { self.from_ns }
    }

    /// When it is overdue. Its stamp may be older than the truth by a tick of the coarse clock.
    fn due_ns(&self, deadline_ns: u64, tick_ns: u64) -> u64 {
        (self.from_ns + deadline_ns + tick_ns).max(self.seen_ns + deadline_ns / 4)
    }
}

/// An agent as one look sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// Nothing can be held.
    Asleep,
    /// It holds nothing now, or waits for space.
    Awake,
    /// It holds a message, or was stopped.
    Holds(Hold),
}

/// What is watched.
pub(super) struct Hangs {
    /// Agents with a deadline that read something: whose, how long in ns, what the last look saw.
    watched: Vec<(usize, u64, Option<Watched>)>,
    /// A doorbell could not be listened to.
    deaf: bool,
    /// What each of them had done a second ago.
    peeks: Vec<Option<Peek>>,
    /// When the next look is due; none while all sleep.
    planned_ns: Option<u64>,
    since_ns: u64,
    tick_ns: u64,
    /// Theirs.
    bells: Bells,
}

/// The agents that have a deadline and read something, and how long it is in ns.
pub(super) fn watched(file: &SwarmFile, topology: &Topology) -> Vec<(usize, u64)> {
    let readers = topology.agents.iter().enumerate().filter(|(_, agent)| !agent.inputs.is_empty());
    let watched = readers.filter_map(|(agent, instance)| {
        let deadline = file.agents[instance.config].deadline?;
        Some((agent, deadline.as_nanos() as u64))
    });
    watched.collect()
}

impl Hangs {
    pub(super) fn new(file: &SwarmFile, topology: &Topology) -> io::Result<Hangs> {
        Ok(Hangs {
            watched: watched(file, topology)
                .into_iter()
                .map(|(agent, deadline)| (agent, deadline, None))
                .collect(),
            deaf: false,
            peeks: Vec::new(),
            planned_ns: None,
            since_ns: 0,
            tick_ns: clock::coarse_tick_ns(),
            bells: Bells::new()?,
        })
    }

    /// Takes over whom to watch from now on.
    pub(super) fn watch_anew(&mut self, watched: Vec<(usize, u64)>) {
        let before = std::mem::take(&mut self.watched);
        let known =
            |agent: usize| before.iter().find(|(known, ..)| *known == agent).and_then(|(.., seen)| *seen);
        self.watched = watched.into_iter().map(|(agent, deadline)| (agent, deadline, known(agent))).collect();
    }

    fn shortest_ns(&self) -> Option<u64> {
        self.watched.iter().map(|(_, deadline_ns, _)| *deadline_ns).min()
    }
}

impl Swarm {
    /// Where the event loop hears of the first ring after [`Effect::AwaitRing`].
    pub fn bells(&self) -> BorrowedFd<'_> {
        self.hangs.bells.as_fd()
    }

    /// Whether any of these has a deadline that is watched.
    pub(super) fn watches_any(&self, of: impl Fn(usize) -> bool) -> bool {
        self.hangs.watched.iter().any(|(agent, ..)| of(*agent))
    }

    /// Whether an agent has a deadline that is watched.
    pub(super) fn is_watched(&self, agent: usize) -> bool {
        self.hangs.watched.binary_search_by_key(&agent, |(watched, ..)| *watched).is_ok()
    }

    /// A new incarnation's doorbell is listened to, if the agent has a deadline.
    pub(super) fn hear_bell(&mut self, agent: usize) {
        let Some(live) = self.agents[agent].live.as_ref().filter(|live| !live.child.adopted) else { return };
        if self.is_watched(agent) {
            // Without it the agent is looked at once a second.
            self.hangs.deaf |= self.hangs.bells.hear(&live.doorbell).is_err();
        }
    }

    /// Somebody who has a deadline is awake, or was rung: from now on there are looks.
    pub fn watch_on(&mut self) {
        let now_ns = clock::now_ns();
        if let Some(shortest_ns) = self.hangs.shortest_ns().filter(|_| self.hangs.planned_ns.is_none()) {
            self.hangs.since_ns = now_ns;
            self.plan_look(now_ns, now_ns + shortest_ns / 2);
        }
    }

    /// Whether a doorbell is not listened to, or not for sure.
    pub(super) fn is_deaf(&self) -> bool {
        self.hangs.deaf || self.is_unchecked()
    }

    /// Once a second: who woke without a ring is not overlooked.
    pub(super) fn watch_anyway(&mut self) {
        let peeked = &self.hangs.peeks;
        let watched = self.hangs.watched.iter().enumerate();
        let peeks: Vec<_> = watched
            .map(|(index, (agent, ..))| match peeked.get(index) {
                Some(before) if self.sleeps_until_rung(*agent) => *before,
                _ => peek(&self.agents[*agent]),
            })
            .collect();
        // Where all slept a second ago and nobody has done anything since, all sleep.
        let still = std::mem::replace(&mut self.hangs.peeks, peeks) == self.hangs.peeks;
        let sure = still && !self.is_deaf();
        if self.hangs.planned_ns.is_none() && !sure && !self.all_sleep() {
            self.watch_on();
        }
    }

    fn plan_look(&mut self, now_ns: u64, at_ns: u64) {
        self.hangs.planned_ns = Some(at_ns);
        let at = Instant::now() + Duration::from_nanos(at_ns.saturating_sub(now_ns));
        self.effects.push(Effect::Arm(at, 0, Timer::Hang, 0));
    }

    /// Looks at everybody who has a deadline, if a look is due; aborts who is hung, and plans the next look.
    pub(super) fn look_for_hangs(&mut self) {
        let now_ns = clock::now_ns();
        let Some(planned_ns) = self.hangs.planned_ns.take_if(|at| *at <= now_ns) else { return };
        let look = Look { now_ns, late_ns: now_ns - planned_ns, since_ns: self.hangs.since_ns };
        let mut watched = std::mem::take(&mut self.hangs.watched);
        let mut next_ns = None::<u64>;
        for (agent, deadline_ns, last) in &mut watched {
            let again_ns = match self.seen(*agent) {
                Seen::Asleep => {
                    *last = None;
                    continue;
                }
                Seen::Awake => {
                    *last = None;
                    now_ns + *deadline_ns / 2
                }
                Seen::Holds(hold) => {
                    let is_known = last.is_some_and(|last| last.hold == hold);
                    let mut hold = Watched::at(*last, hold, look);
                    if is_known {
                        hold = hold.faring(self.fare(*agent, now_ns), look.late_ns);
                    }
                    *last = Some(hold);
                    let due_ns = hold.due_ns(*deadline_ns, self.hangs.tick_ns);
                    if due_ns <= now_ns {
                        *last = None;
                        self.abort_hung(*agent, Duration::from_nanos(*deadline_ns), hold, now_ns);
                        continue;
                    }
                    // In steps: of a stop of the supervisor, only what is left of the step that it falls into is counted.
                    due_ns.min(now_ns + *deadline_ns / 4)
                }
            };
            next_ns = Some(next_ns.map_or(again_ns, |next| next.min(again_ns)));
        }
        self.hangs.watched = watched;
        match next_ns {
            Some(at_ns) => self.plan_look(now_ns, at_ns),
            None => self.await_ring(),
        }
    }

    /// Everybody sleeps: the next ring begins the looks anew.
    fn await_ring(&mut self) {
        self.hangs.bells.forget();
        // Who was rung before the rings were forgotten is awake by now, or will be seen within a second.
        match self.all_sleep() {
            true => self.effects.push(Effect::AwaitRing),
            false => self.watch_on(),
        }
    }

    /// What an agent's process has had of the processors: its main thread, which handles its messages.
    fn fare(&self, agent: usize, at_ns: u64) -> Fare {
        let pid = self.agents[agent].live.as_ref().map_or(0, |live| live.child.pid);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        let mut times = stat.split_ascii_whitespace().map(|ns| ns.parse().unwrap_or(0));
        let [ran_ns, waited_ns] = [(); 2].map(|()| times.next().unwrap_or(0));
        let ready = self.doing(agent) == Doing::Running;
        Fare { at_ns, ran_ns, waited_ns, ready, ahead_ns: 0 }
    }

    fn all_sleep(&self) -> bool {
        self.hangs.watched.iter().all(|(agent, ..)| self.seen(*agent) == Seen::Asleep)
    }

    fn seen(&self, agent: usize) -> Seen {
        let record = &self.agents[agent];
        let Some(live) = record.live.as_ref().filter(|live| live.going && !live.child.adopted) else {
            return Seen::Asleep;
        };
        let Some(sealed) = live.sealed.as_ref().filter(|_| record.state == State::Ready) else {
            return Seen::Asleep;
        };
        let Ok(view) = sealed.view() else { return Seen::Asleep };
        let words = desk::view(view);
        let holds = words.held_since_ns > 0;
        let hold = Hold {
            generation: live.incarnation.generation,
            progress: words.progress,
            since_ns: if holds { words.held_since_ns } else { STOPPED },
            sleep: words.sleep,
        };
        let stopped = || self.doing(agent) == Doing::Stopped;
        let hangs = match (words.parked, holds) {
            (false, true) => true,
            // Stopped while it waits for space, its send will not time out.
            (true, true) => stopped(),
            // Who is paused reads nothing by order, and who sleeps with nothing to read holds up nobody.
            (false, false) => !record.paused && stopped(),
            (true, false) => !record.paused && self.is_waited_for(agent) && stopped(),
        };
        match hangs {
            true => Seen::Holds(hold),
            false if words.parked && !holds => Seen::Asleep,
            false => Seen::Awake,
        }
    }

    /// Ends an agent that hangs, and tells how long it did.
    fn abort_hung(&mut self, agent: usize, deadline: Duration, watched: Watched, now_ns: u64) {
        let name = &self.agents[agent].name;
        let config = &self.file.agents[self.topology.agents[agent].config].name;
        let (generation, hold) = (watched.hold.generation, watched.hold);
        let born = self.agents[agent].live.as_ref().map(|live| live.born.elapsed().as_nanos() as u64);
        let begun_ns = watched.begun_ns(now_ns.saturating_sub(born.unwrap_or(0)));
        let lasted_ms = now_ns.saturating_sub(begun_ns) / 1_000_000;
        let (what, why, hint) = if hold.since_ns == STOPPED {
            let hint = "who is to be halted is paused by `shoal pause`".to_owned();
            ("is stopped by a signal".to_owned(), "was stopped", hint)
        } else {
            let message = self.message_in_hand(agent).unwrap_or_else(|| "a message".into());
            let hint =
                format!("call `busy()` in work that takes longer, or raise `deadline` of [agent.{config}]");
            (format!("holds {message}"), "held a message", hint)
        };
        let text = format!(
            "agent {name} (generation {generation}) {what} for {lasted_ms} ms, longer than its deadline of {deadline:?}, and is aborted: {hint}"
        );
        let why = format!("SIGABRT because it {why} for {lasted_ms} ms, beyond its deadline");
        let record = &mut self.agents[agent];
        record.hangs += 1;
        if let Some(live) = &mut record.live {
            live.hung_ns = Some(begun_ns);
        }
        self.tell(Level::Warn, Kind::Hang, Some(agent), &text);
        self.blame(agent, &why);
        self.feed(agent, Event::Hung);
    }

    /// The message that an agent holds, so far as its desk says.
    fn message_in_hand(&self, agent: usize) -> Option<String> {
        let (input, at) = desk::view(self.agents[agent].view()?).held?;
        let input = self.topology.agents[agent].inputs.get(input)?;
        let (producer, channel) =
            (&self.agents[input.producer].name, &self.topology.channels[input.channel].name);
        Some(format!("message {producer}/{channel}/{}", at.position))
    }

    /// A dead incarnation has its verdict: if it hung, notes how long that took from the beginning of the hang.
    pub(super) fn note_hung(&mut self, live: &Live) {
        let took_ns = live.hung_ns.map(|begun_ns| clock::now_ns().saturating_sub(begun_ns));
        self.hangs_ns.extend(took_ns);
    }
}

/// How long an aborted agent has until SIGKILL.
pub(super) fn grace(deadline: Option<Duration>) -> Duration {
    deadline.map_or(GRACE_MAX, |deadline| (deadline / 4).min(GRACE_MAX))
}

#[cfg(test)]
mod tests;
