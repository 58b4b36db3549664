//! Carries out the plan on the supervisor's own thread, then leaves the swarm in peace for a while, and ends it.
//!
//! In the calm nothing wakes anybody but the messages themselves: whoever sleeps then though work waits is found by the
//! supervisor's looks for sleepers, which deaths and starts would hide.

use super::done::{Done, Pending};
use super::file::{self, NAMES, Shape};
use super::plan::{Disturbance, Plan, What};
use crate::child::{Event, State};
use crate::event_loop::{Companion, Watch};
use crate::spawn;
use crate::swarm::{Proof, Swarm, instant_of, ns_of};
use serde::{Deserialize, Serialize};
use std::io;
use std::iter::Peekable;
use std::time::{Duration, Instant};

/// How long the swarm is left in peace at the end: time for two looks for sleepers, and one more.
const CALM: Duration = Duration::from_secs(3);
/// How long a change of the swarm may take.
const CHANGE_MAX: Duration = Duration::from_secs(60);
/// How long a replica that was upgraded must live: it is killed soon.
const PROOF: Proof = Proof { time: Duration::from_millis(5), messages: None };
/// The same of one that ends by itself: it never lives so long.
const DOOMED: Proof = Proof { time: CHANGE_MAX, messages: None };
/// How often it is looked whether enough was done, once the time is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is not reached after so many times the asked time, and a minute, is not waited for any more.
const TIMES_MAX: u32 = 4;
const GRACE: Duration = Duration::from_secs(60);

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// For so long at least.
    pub time: Duration,
    /// So many kills at least.
    pub kills: u64,
    /// So many messages received at least.
    pub messages: u64,
    /// Every kind of change at least.
    pub changes: bool,
}

/// By this name a successor is left how far it got.
const KEPT: &str = "disturber";

/// How far it got, for a successor and for the report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// So many disturbances of the plan were begun.
    taken: usize,
    /// Not yet, storm, calm, over; with its time, CLOCK_MONOTONIC ns.
    phase: (u8, u64),
    /// Agent, generation, until when (CLOCK_MONOTONIC ns).
    stopped: Vec<(usize, u32, u64)>,
    /// An upgrade that is under way: a successor sees its end.
    pending: Option<Pending>,
    /// Whether there was the channel that comes and goes.
    asides: bool,
    /// What was done.
    pub done: Done,
}

impl Progress {
    /// What the last of several supervisors has left in the journal.
    pub fn kept_in(swarm: &Swarm) -> Option<Progress> {
        serde_json::from_slice(swarm.kept_for(KEPT)?).ok()
    }

    /// Whether the swarm was ended by the disturber, and not by somebody else before.
    pub fn is_over(&self) -> bool {
        self.phase.0 == 3
    }
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not everybody was ready yet.
    Before,
    /// Since.
    Storm(Instant),
    /// Until.
    Calm(Instant),
    /// It has ended the swarm.
    Over,
}

/// Disturbs.
pub struct Disturber {
    plan: Peekable<Plan>,
    goal: Goal,
    phase: Phase,
    look_next: Instant,
    /// Who is stopped: agent, generation, until when.
    stopped: Vec<(usize, u32, Instant)>,
    done: Done,
    /// What was begun, and not seen to be over.
    pending: Option<Pending>,
    /// Whether there was the channel that comes and goes.
    asides: bool,
    /// So many disturbances of the plan were begun.
    taken: usize,
    /// Whether it was looked for what a predecessor has left.
    has_looked: bool,
}

impl Disturber {
    /// Carries out a plan until a goal is reached.
    pub fn new(plan: Plan, goal: Goal) -> Disturber {
        let (plan, stopped) = (plan.peekable(), Vec::new());
        let (phase, look_next) = (Phase::Before, Instant::now());
        Disturber {
            plan,
            goal,
            phase,
            look_next,
            stopped,
            done: Done::default(),
            pending: None,
            asides: false,
            taken: 0,
            has_looked: false,
        }
    }

    /// How far it got.
    pub fn progress(&self) -> Progress {
        let phase = match self.phase {
            Phase::Before => (0, 0),
            Phase::Storm(began) => (1, ns_of(began)),
            Phase::Calm(until) => (2, ns_of(until)),
            Phase::Over => (3, 0),
        };
        let stopped =
            self.stopped.iter().map(|&(agent, generation, until)| (agent, generation, ns_of(until)));
        // What becomes of a reload is told to who began it only.
        let pending = self.pending.filter(|pending| matches!(pending, Pending::Upgrade { .. }));
        let &Disturber { taken, asides, done, .. } = self;
        Progress { taken, phase, stopped: stopped.collect(), pending, asides, done }
    }

    /// Leaves it to a successor.
    fn keep(&self, swarm: &mut Swarm) {
        if swarm.journal().is_some() {
            swarm.keep_for(KEPT, serde_json::to_vec(&self.progress()).unwrap_or_default());
        }
    }

    /// Goes on where a predecessor was, if there was one.
    fn look_back(&mut self, swarm: &Swarm) {
        if std::mem::replace(&mut self.has_looked, true) {
            return;
        }
        let Some(kept) = Progress::kept_in(swarm) else { return };
        let Progress { taken, phase, stopped, pending, asides, done } = kept;
        self.plan.by_ref().take(taken).for_each(drop);
        let at = instant_of(phase.1);
        self.phase =
            [Phase::Before, Phase::Storm(at), Phase::Calm(at), Phase::Over][usize::from(phase.0.min(3))];
        self.stopped = stopped.into_iter().map(|(a, g, until)| (a, g, instant_of(until))).collect();
        (self.taken, self.pending, self.asides, self.done) = (taken, pending, asides, done);
    }

    fn disturb(&mut self, what: What, swarm: &mut Swarm, now: Instant) {
        match what {
            What::Kill(agents) => agents.into_iter().for_each(|agent| {
                swarm.kill(agent);
            }),
            What::Stop(agent, time) => {
                if let Some(live) = &swarm.agents[agent].live {
                    self.stopped.push((agent, live.incarnation.generation, now + time));
                    self.done.stops += 1;
                    // Before it is stopped: whoever is not known to be is let go on by nobody.
                    self.keep(swarm);
                    swarm.write_journal();
                }
                if let Some(live) = &swarm.agents[agent].live {
                    spawn::signal(&live.child, libc::SIGSTOP);
                }
            }
            What::Restart(agent) => {
                // Of one that is down it would be a start.
                if swarm.agents[agent].state == State::Ready {
                    swarm.order(agent, Event::RestartAsked);
                    self.done.restarts += 1;
                }
            }
            What::Scale(workers) => {
                self.note_change(swarm);
                // Refused while the last one is under way.
                let prepared = swarm.prepare_scale("worker", workers);
                if prepared.and_then(|prepared| swarm.reload(prepared, CHANGE_MAX)).is_ok() {
                    self.done.scales += 1;
                }
            }
            What::Reload(shape) => {
                self.note_change(swarm);
                // One that changes nothing is none.
                if reload(swarm, shape) == Ok(true) {
                    self.pending = Some(Pending::Reload);
                }
            }
            What::Upgrade { agent, doomed } => {
                self.note_change(swarm);
                if upgrade(swarm, NAMES[agent], doomed).is_ok() {
                    self.pending = Some(Pending::Upgrade { doomed: doomed.is_some() });
                }
            }
        }
    }

    /// Counts a change that is over.
    fn note_change(&mut self, swarm: &Swarm) {
        // By the file: so it counts also what a predecessor had changed, and died before it saw that.
        let asides = Shape::has_asides(&swarm.file);
        self.done.channels += u64::from(asides != self.asides);
        self.asides = asides;
        match (self.pending, swarm.reload_outcome(), swarm.upgrade_outcome()) {
            (Some(Pending::Reload), Some(outcome), _) => self.done.reloaded(outcome),
            (Some(Pending::Upgrade { doomed }), _, Some(outcome)) => self.done.upgraded(doomed, outcome),
            _ => return,
        }
        self.pending = None;
    }

    /// Lets go on who was stopped long enough; everybody, when `all`.
    fn go_on(&mut self, swarm: &Swarm, now: Instant, all: bool) {
        self.stopped.retain(|&(agent, generation, until)| {
            let due = all || until <= now;
            let live = swarm.agents[agent].live.as_ref();
            if let Some(live) = live.filter(|live| due && live.incarnation.generation == generation) {
                spawn::signal(&live.child, libc::SIGCONT);
            }
            !due
        });
    }

    fn storm(&mut self, began: Instant, swarm: &mut Swarm, now: Instant) {
        while let Some(Disturbance { what, .. }) = self.plan.next_if(|next| began + next.at <= now) {
            self.taken += 1;
            self.disturb(what, swarm, now);
        }
        let past = now - began;
        if past < self.goal.time || now < self.look_next {
            return;
        }
        self.look_next = now + LOOK_EVERY;
        let received = || swarm.agents.iter().map(|agent| agent.totals().received).sum::<u64>();
        let changed = !self.goal.changes || self.done.has_every_change();
        let reached = changed && swarm.kills_proven >= self.goal.kills && received() >= self.goal.messages;
        if reached || past > self.goal.time * TIMES_MAX + GRACE {
            self.go_on(swarm, now, true);
            self.phase = Phase::Calm(now + CALM);
            swarm.let_supervisors_be_killed(false);
        }
    }
}

/// Begins to change the swarm's file to one of another shape, with as many workers as it has; whether that changes anything.
fn reload(swarm: &mut Swarm, shape: Shape) -> Result<bool, String> {
    let file = file::read(&swarm.file.name, Shape::workers_of(&swarm.file), shape)?;
    let prepared = swarm.prepare(file, None)?;
    let changes = !prepared.plan.is_empty();
    swarm.reload(prepared, CHANGE_MAX).map(|()| changes)
}

/// Begins to replace the replicas of an agent of the file.
fn upgrade(swarm: &mut Swarm, name: &str, doomed: Option<Duration>) -> Result<(), String> {
    let config = swarm.file.agents.iter().position(|config| config.name == name);
    let config = config.ok_or("no such agent")?;
    let proof = if doomed.is_some() { DOOMED } else { PROOF };
    swarm.upgrade(config, file::command(name, doomed)?, proof)
}

impl Companion for Disturber {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Before | Phase::Over => None,
            Phase::Storm(began) => {
                // The plan has no end.
                let mut plan = self.plan.clone();
                let next = plan.peek().map(|next| began + next.at);
                next.into_iter().chain([(began + self.goal.time).max(self.look_next)]).min()
            }
            Phase::Calm(until) => Some(until),
        };
        self.stopped.iter().map(|(.., until)| *until).chain(phase).min()
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_some() {
            return;
        }
        let now = Instant::now();
        self.go_on(swarm, now, swarm.is_ending());
        if swarm.is_ending() {
            return;
        }
        swarm.measure_recoveries();
        self.note_change(swarm);
        match self.phase {
            Phase::Storm(began) => self.storm(began, swarm, now),
            Phase::Calm(until) if until <= now => {
                self.phase = Phase::Over;
                self.keep(swarm);
                swarm.shut_down();
            }
            Phase::Before | Phase::Calm(_) | Phase::Over => {}
        }
        self.keep(swarm);
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        self.look_back(swarm);
        if self.phase == Phase::Before && swarm.agents.iter().all(|agent| agent.was_ready) {
            self.phase = Phase::Storm(Instant::now());
            swarm.let_supervisors_be_killed(true);
            self.keep(swarm);
        }
        if swarm.is_ending() && !self.stopped.is_empty() {
            self.go_on(swarm, Instant::now(), true);
        }
    }
}
