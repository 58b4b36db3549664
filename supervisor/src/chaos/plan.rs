//! Who is disturbed, how and when: a pure function of the seed.

use super::file::{NAMES, Shape};
use super::number::mix;
use std::time::Duration;

/// Longest pause of an agent by SIGSTOP.
const STOP_MAX: Duration = Duration::from_millis(200);
/// Longest life of an agent that ends by itself, milliseconds.
const DOOMED_MAX_MS: u64 = 10;

/// One disturbance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disturbance {
    /// When, since the plan began.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What is done to whom; agents by their index in the swarm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// SIGKILL, to all of these at once.
    Kill(Vec<usize>),
    /// SIGSTOP, and SIGCONT after a time.
    Stop(usize, Duration),
    /// Restarted in order, as by `shoal restart`.
    Restart(usize),
    /// So many workers from now on, as by `shoal scale`.
    Scale(u32),
    /// A changed swarm file, as by `shoal reload`.
    Reload(Shape),
    /// The replicas of one agent of the file are replaced, as by `shoal upgrade`.
    Upgrade {
        /// By its index in [`NAMES`].
        agent: usize,
        /// How long each life of the new command lasts: all must go back. `None`: it is sound.
        doomed: Option<Duration>,
    },
}

/// The plan: disturbances in the order of time, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    state: u64,
    agents: usize,
    group: Vec<usize>,
    /// The most workers.
    workers_max: u32,
    /// Whether the swarm is reloaded and upgraded, too.
    changes: bool,
    mean: Duration,
    at: Duration,
}

impl Plan {
    /// Draws from a seed, for a swarm of so many agents with one group among them, of so many at most; `rate` disturbances a second.
    pub fn new(seed: u64, agents: usize, group: Vec<usize>, workers_max: u32, rate: u32) -> Plan {
        let mean = Duration::from_secs(1) / rate.max(1);
        Plan { state: mix(seed), agents, group, workers_max, changes: false, mean, at: Duration::ZERO }
    }

    /// The same with reloads and upgrades instead of some other numbers of workers.
    pub fn with_changes(self, changes: bool) -> Plan {
        Plan { changes, ..self }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(1);
        mix(mix(self.state)) % end.max(1)
    }

    fn anyone(&mut self) -> usize {
        self.below(self.agents as u64) as usize
    }

    /// One to three agents, each once.
    fn several(&mut self) -> Vec<usize> {
        let mut several: Vec<usize> = (0..2 + self.below(2)).map(|_| self.anyone()).collect();
        several.sort_unstable();
        several.dedup();
        several
    }

    fn shape(&mut self) -> Shape {
        let mut drawn = || self.below(2) == 0;
        Shape { narrow: drawn(), onlooker: drawn(), asides: drawn() }
    }

    /// A sound command half of the time; else one that ends before it is an agent, or soon.
    fn upgrade(&mut self) -> What {
        let agent = self.below(NAMES.len() as u64) as usize;
        let doomed = match self.below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(1 + self.below(DOOMED_MAX_MS))),
            _ => None,
        };
        What::Upgrade { agent, doomed }
    }

    /// From nothing to [`STOP_MAX`], the shorter the likelier.
    fn stop_time(&mut self) -> Duration {
        let part = self.below(1000) as f64 / 1000.0;
        STOP_MAX.mul_f64(part.powi(3))
    }
}

impl Iterator for Plan {
    type Item = Disturbance;

    fn next(&mut self) -> Option<Disturbance> {
        let gap = self.below(2 * self.mean.as_micros() as u64 + 1);
        self.at += Duration::from_micros(gap);
        let what = match self.below(100) {
            0..68 => What::Kill(vec![self.anyone()]),
            68..76 => What::Kill(self.several()),
            76..78 => What::Kill(self.group.clone()),
            78..92 => What::Stop(self.anyone(), self.stop_time()),
            92..96 => What::Restart(self.anyone()),
            98 if self.changes => What::Reload(self.shape()),
            99 if self.changes => self.upgrade(),
            _ => What::Scale(1 + self.below(u64::from(self.workers_max)) as u32),
        };
        Some(Disturbance { at: self.at, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plan_is_a_function_of_its_seed_and_keeps_its_rate(seed: u64, rate in 1u32..=1000) {
            let plan = || Plan::new(seed, 7, vec![2, 3, 4], 3, rate).take(4000).collect::<Vec<_>>();
            let drawn = plan();
            prop_assert_eq!(&drawn, &plan());
            prop_assert_ne!(&drawn, &Plan::new(seed.wrapping_add(1), 7, vec![2, 3, 4], 3, rate).take(4000).collect::<Vec<_>>());
            prop_assert!(drawn.is_sorted_by_key(|d| d.at));
            let mean = drawn[3999].at.as_secs_f64() / 4000.0 * f64::from(rate);
            prop_assert!((0.9..1.1).contains(&mean), "{mean}");
        }
    }

    #[test]
    fn with_changes_every_shape_and_every_upgrade_comes_and_all_else_too() {
        let plan = Plan::new(1, 7, vec![2, 3, 4], 3, 50).with_changes(true);
        let drawn: Vec<_> = plan.take(20_000).map(|d| d.what).collect();
        for bits in 0..8 {
            let has = |bit: u32| bits & 1 << bit != 0;
            let shape = Shape { narrow: has(0), onlooker: has(1), asides: has(2) };
            assert!(drawn.contains(&What::Reload(shape)), "{shape:?}");
        }
        for agent in 0..NAMES.len() {
            let of = |what: &What| match *what {
                What::Upgrade { agent: of, doomed } if of == agent => Some(doomed),
                _ => None,
            };
            let drawn: Vec<Option<Duration>> = drawn.iter().filter_map(of).collect();
            assert!(drawn.contains(&None), "{agent} is replaced by a sound one");
            assert!(drawn.contains(&Some(Duration::ZERO)), "{agent} by one that is no agent before it ends");
            let mut late = drawn.iter().flatten().filter(|life| !life.is_zero()).peekable();
            assert!(late.peek().is_some(), "{agent} by one that lives for a while");
            assert!(late.all(|life| *life <= Duration::from_millis(DOOMED_MAX_MS)));
        }
        assert!((1..=3).all(|workers| drawn.contains(&What::Scale(workers))));
        assert!(drawn.contains(&What::Kill(vec![2, 3, 4])) && drawn.contains(&What::Restart(6)));
    }

    #[test]
    fn everybody_is_killed_stopped_and_restarted_and_now_and_then_the_whole_group_is_killed() {
        let drawn: Vec<_> = Plan::new(1, 7, vec![2, 3, 4], 3, 50).take(4000).map(|d| d.what).collect();
        for agent in 0..7 {
            assert!(drawn.contains(&What::Kill(vec![agent])) && drawn.contains(&What::Restart(agent)));
            assert!(
                drawn
                    .iter()
                    .any(|what| matches!(what, What::Stop(who, time) if *who == agent && *time <= STOP_MAX))
            );
        }
        assert!((1..=3).all(|workers| drawn.contains(&What::Scale(workers))));
        assert!(drawn.contains(&What::Kill(vec![2, 3, 4])));
        assert!(!drawn.iter().any(|what| matches!(what, What::Reload(_) | What::Upgrade { .. })));
        let kills = drawn.iter().filter(|what| matches!(what, What::Kill(_))).count();
        assert!((2800..3500).contains(&kills), "{kills}");
    }
}
