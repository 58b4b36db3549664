//! Watches a scene on the supervisor's own thread: when all are there, when those who keep accounts have ended, what it costs
//! meanwhile; kills whom the scene has killed; and ends the swarm.

use super::usage;
use crate::child::State;
use crate::event_loop::{Companion, Watch};
use crate::spawn;
use crate::swarm::Swarm;
use serde::Serialize;
use shoal_runtime::desk;
use std::io;
use std::time::{Duration, Instant};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it looks whether a killed agent works again.
const CYCLE_LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long agents are left alone before they count as idle.
const SETTLE: Duration = Duration::from_millis(700);
/// Cycles after which memory and descriptors are as they stay, of so many.
const WARM_PART: u64 = 10;

/// What a scene has done to it besides.
#[derive(Clone, Debug)]
pub enum Cue {
    /// Nothing.
    Nothing,
    /// When the asker has ended, agents idle for so long; then the swarm is ended.
    Idle(Duration),
    /// Of the agents whose names begin so, one after the other is killed every so often.
    Kill(&'static str, Duration),
    /// This agent is killed as soon as it works, so many times; then the asker is asked to end.
    Cycle(&'static str, u64),
    /// What a message costs is looked at.
    Cost,
}

/// What was seen of agents that idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Idle {
    /// Agents that were looked at.
    pub agents: u64,
    /// For how long, s.
    pub seconds: f64,
    /// CPU of all together, % of one CPU, divided by their number.
    pub cpu_percent_mean: f64,
    /// CPU of the one that used most, % of one CPU.
    pub cpu_percent_max: f64,
    /// Memory of one: private and proportional pages, page tables, and its share of all memfds, KiB.
    pub memory_kib_mean: f64,
    /// The same of the largest.
    pub memory_kib_max: f64,
    /// Of that, its share of all memfds: desk, lanes, claim tables, board.
    pub memfd_kib_mean: f64,
}

/// Memory and descriptors of the supervisor over the cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Flat {
    /// After how many cycles it was looked first, and at the end.
    pub cycles: [u64; 2],
    /// Descriptors then.
    pub descriptors: [u64; 2],
    /// Anonymous memory then, KiB.
    pub anonymous_kib: [u64; 2],
    /// All memfds then, KiB.
    pub memfd_kib: [u64; 2],
}

impl Flat {
    /// Whether nothing grows: no descriptor more, and less than this many KiB.
    pub fn is_flat(&self) -> bool {
        const GROWTH_KIB: u64 = 1024;
        let grown = |[before, after]: [u64; 2]| after.saturating_sub(before);
        self.cycles[1] > self.cycles[0]
            && grown(self.descriptors) == 0
            && grown(self.anonymous_kib) <= GROWTH_KIB
            && grown(self.memfd_kib) <= GROWTH_KIB
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Agents that were ready in one moment, the most.
    pub ready_max: u64,
    /// From the begin until all were, s.
    pub all_ready_s: Option<f64>,
    /// Idle agents.
    pub idle: Option<Idle>,
    /// Cycles.
    pub flat: Option<Flat>,
    /// CPU of all agents together for each message that was received, ns.
    pub cpu_ns_per_message: Option<f64>,
    /// It took too long, and what was waited for.
    pub late: Option<String>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Not all are ready.
    Before,
    /// At work.
    Work,
    /// Left alone, until.
    Settle(Instant),
    /// Looked at, since: processes and their CPU time then.
    Idle(Instant, Vec<(u32, u64)>),
    /// The swarm is being ended.
    Over,
}

/// The director.
pub struct Director {
    cue: Cue,
    accountants: Vec<String>,
    began: Instant,
    patience: Duration,
    phase: Phase,
    look_next: Instant,
    kill_next: Option<Instant>,
    kills: u64,
    /// The life that was killed last.
    killed: u32,
    cost_from: Option<(u64, u64)>,
    /// What was seen.
    pub seen: Seen,
}

impl Director {
    /// Waits so long at most for the end of those who keep accounts.
    pub fn new(cue: Cue, accountants: Vec<String>, patience: Duration) -> Director {
        let began = Instant::now();
        Director {
            cue,
            accountants,
            began,
            patience,
            phase: Phase::Before,
            look_next: began,
            kill_next: None,
            kills: 0,
            killed: 0,
            cost_from: None,
            seen: Seen::default(),
        }
    }

    fn end(&mut self, swarm: &mut Swarm) {
        self.phase = Phase::Over;
        swarm.shut_down();
    }

    fn have_ended(&self, swarm: &Swarm, name: &str) -> bool {
        let at_rest = |state| matches!(state, State::Ended | State::Stopped | State::Failed);
        swarm.agents.iter().all(|agent| agent.name != name || at_rest(agent.state))
    }

    fn look(&mut self, swarm: &mut Swarm, now: Instant) {
        if now > self.began + self.patience {
            self.seen.late = Some(format!("it was not over after {:?}", self.patience));
            return self.end(swarm);
        }
        match self.phase.clone() {
            Phase::Before | Phase::Over => {}
            Phase::Work => self.work(swarm, now),
            Phase::Settle(until) if now >= until => {
                let used = living(swarm).filter_map(|pid| Some((pid, usage::cpu_ns(pid)?))).collect();
                self.phase = Phase::Idle(now, used);
            }
            Phase::Settle(_) => {}
            Phase::Idle(since, used) => {
                if let Cue::Idle(time) = self.cue
                    && now >= since + time
                {
                    self.seen.idle = Some(idle(&used, now - since));
                    self.end(swarm);
                }
            }
        }
    }

    fn work(&mut self, swarm: &mut Swarm, now: Instant) {
        match self.cue {
            Cue::Idle(_) if self.have_ended(swarm, "asker") => {
                self.phase = Phase::Settle(now + SETTLE);
                return;
            }
            Cue::Kill(victims, every) if self.kill_next.is_none_or(|at| now >= at) => {
                self.kill_one(swarm, victims);
                // The first is killed when one interval has passed.
                self.kill_next = Some(now + every);
            }
            Cue::Cycle(victim, cycles) => self.cycle(swarm, victim, cycles),
            Cue::Cost | Cue::Idle(_) => self.cost(swarm),
            _ => {}
        }
        if self.accountants.iter().all(|name| self.have_ended(swarm, name)) {
            self.end(swarm);
        }
    }

    fn kill_one(&mut self, swarm: &mut Swarm, victims: &str) {
        if self.kill_next.is_none() {
            return;
        }
        let those: Vec<usize> = (0..swarm.agents.len())
            .filter(|&a| swarm.topology.agents[a].active && swarm.agents[a].name.starts_with(victims))
            .collect();
        let victim = those[self.kills as usize % those.len()];
        self.kills += u64::from(swarm.kill(victim));
    }

    fn cycle(&mut self, swarm: &mut Swarm, victim: &str, cycles: u64) {
        swarm.measure_recoveries();
        let Some(victim) = swarm.agents.iter().position(|agent| agent.name == victim) else { return };
        let agent = &swarm.agents[victim];
        let works = agent.view().is_some_and(|view| desk::view(view).first_message_ns > 0);
        let generation = agent.generation;
        if agent.state != State::Ready || !works || generation == self.killed {
            return;
        }
        let (is_warm, is_last) = (self.kills == cycles / WARM_PART, self.kills >= cycles);
        // What is left of former lives lies there or not, as the turns of the loop and of readers happen to fall.
        if (is_warm || is_last) && !swarm.has_let_go(victim) {
            return;
        }
        if is_warm {
            self.sample(0);
        }
        if !is_last {
            self.killed = generation;
            self.kills += u64::from(swarm.kill(victim));
        } else if let Some(asker) = swarm.agents.iter().find(|agent| agent.name == "asker")
            && let Some(live) = &asker.live
        {
            self.killed = generation;
            self.sample(1);
            spawn::signal(&live.child, libc::SIGUSR1);
        }
    }

    /// Notes what the supervisor holds while everybody works.
    fn sample(&mut self, at: usize) {
        let flat = self.seen.flat.get_or_insert_default();
        flat.cycles[at] = self.kills;
        flat.descriptors[at] = usage::descriptors() as u64;
        flat.anonymous_kib[at] = usage::anonymous_kib().unwrap_or_default();
        flat.memfd_kib[at] = usage::memfds_kib();
    }

    fn cost(&mut self, swarm: &Swarm) {
        let cpu: u64 = living(swarm).filter_map(usage::cpu_ns).sum();
        let received: u64 = swarm.agents.iter().map(|agent| agent.totals().received).sum();
        match self.cost_from {
            None if received > 0 => self.cost_from = Some((cpu, received)),
            // Who has ended takes its time with it: only while all are there.
            Some((cpu_from, received_from)) if received > received_from && cpu > cpu_from => {
                let each = (cpu - cpu_from) as f64 / (received - received_from) as f64;
                if living(swarm).count() as u64 >= self.seen.ready_max {
                    self.seen.cpu_ns_per_message = Some(each);
                }
            }
            _ => {}
        }
    }
}

/// The processes of all agents.
fn living(swarm: &Swarm) -> impl Iterator<Item = u32> {
    swarm.agents.iter().filter_map(|agent| agent.live.as_ref()).map(|live| live.child.pid as u32)
}

fn idle(used: &[(u32, u64)], time: Duration) -> Idle {
    let now: Vec<(u64, u64)> = used
        .iter()
        .filter_map(|&(pid, before)| Some((usage::cpu_ns(pid)?.saturating_sub(before), usage::own_kib(pid)?)))
        .collect();
    let agents = now.len().max(1) as f64;
    let percent = |ns: u64| 100.0 * ns as f64 / time.as_nanos() as f64;
    let memfd_kib = usage::memfds_kib() as f64 / agents;
    let own = |kib: u64| kib as f64 + memfd_kib;
    Idle {
        agents: now.len() as u64,
        seconds: time.as_secs_f64(),
        cpu_percent_mean: percent(now.iter().map(|(ns, _)| ns).sum()) / agents,
        cpu_percent_max: percent(now.iter().map(|(ns, _)| *ns).max().unwrap_or_default()),
        memory_kib_mean: own(0) + now.iter().map(|(_, kib)| *kib).sum::<u64>() as f64 / agents,
        memory_kib_max: own(now.iter().map(|(_, kib)| *kib).max().unwrap_or_default()),
        memfd_kib_mean: memfd_kib,
    }
}

impl Companion for Director {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Over => None,
            _ => Some(self.look_next),
        }
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_some() || swarm.is_ending() {
            return;
        }
        let now = Instant::now();
        let every = if matches!(self.cue, Cue::Cycle(..)) { CYCLE_LOOK_EVERY } else { LOOK_EVERY };
        self.look_next = now + every;
        self.look(swarm, now);
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        if swarm.is_ending() || matches!(self.phase, Phase::Over) {
            return;
        }
        let ready = swarm.agents.iter().filter(|agent| agent.state == State::Ready).count() as u64;
        self.seen.ready_max = self.seen.ready_max.max(ready);
        if matches!(self.phase, Phase::Before) && swarm.agents.iter().all(|agent| agent.was_ready) {
            self.phase = Phase::Work;
            self.seen.all_ready_s = Some(self.began.elapsed().as_secs_f64());
            self.look_next = Instant::now();
            if let Cue::Kill(_, every) = self.cue {
                self.kill_next = Some(Instant::now() + every);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_by_a_descriptor_or_a_mebibyte_or_was_never_looked_at_is_not_flat() {
        let flat = Flat {
            cycles: [100, 1000],
            descriptors: [30, 30],
            anonymous_kib: [900, 1000],
            memfd_kib: [64, 64],
        };
        assert!(flat.is_flat());
        assert!(!Flat { descriptors: [30, 31], ..flat }.is_flat());
        assert!(!Flat { anonymous_kib: [900, 3000], ..flat }.is_flat());
        assert!(!Flat { memfd_kib: [64, 2048], ..flat }.is_flat());
        assert!(!Flat { cycles: [0, 0], ..flat }.is_flat());
    }
}
