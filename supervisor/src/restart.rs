//! How often a dead agent is started again, and after what pause.
//!
//! Pure: time comes in as an argument, a `Duration` since any fixed moment (the supervisor passes
//! CLOCK_MONOTONIC). What a death *means* is decided by `child.rs`; who waits is the event loop.
//!
//! The rule, in the words of OTP: deaths are counted in a sliding window of `period`.
//! - The first and the second death of a window are followed by an immediate restart.
//! - The third waits `backoff_min`, each further one twice as long, at most `backoff_max`; each pause is shortened by
//!   chance, by at most `jitter_percent`, so that many that fell together do not come back together.
//! - A `period` lived without a death ends the streak: the next death is a first one again.
//! - More than `intensity` deaths within `period`: give up.
//! - A death that an operator, the demo or chaos ordered is not counted and is followed at once.
//!
//! Only lived time counts towards `period`; see `Intensity`. Chance comes from a seed, so that the same deaths are followed by
//! the same pauses.
//!
//! Source: OTP's `supervisor.erl` (intensity, period); back-off, its jitter and its reset are ours; the generator is
//! Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (splitmix64).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Which deaths are followed by a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum Policy {
    /// After every death.
    #[default]
    Permanent,
    /// After an abnormal death only: an exit with status 0 ends the agent.
    Transient,
    /// Never.
    Temporary,
}

impl Policy {
    /// All policies, in the order of the documentation.
    pub const ALL: [Policy; 3] = [Policy::Permanent, Policy::Transient, Policy::Temporary];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Policy::Permanent => "permanent",
            Policy::Transient => "transient",
            Policy::Temporary => "temporary",
        }
    }

    /// Whether a death is followed by a restart; `normal` is an exit with status 0.
    pub fn restarts(self, normal: bool) -> bool {
        match self {
            Policy::Permanent => true,
            Policy::Transient => !normal,
            Policy::Temporary => false,
        }
    }
}

/// What follows when there were too many deaths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum OnGiveUp {
    /// It is told to whoever is above: the set, or the swarm.
    Escalate,
    /// It stays down; the rest goes on.
    Fail,
}

impl OnGiveUp {
    /// Both, in the order of the documentation.
    pub const ALL: [OnGiveUp; 2] = [OnGiveUp::Escalate, OnGiveUp::Fail];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            OnGiveUp::Escalate => "escalate",
            OnGiveUp::Fail => "fail",
        }
    }
}

/// An agent's restart configuration, or a set's.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restart {
    /// Which deaths are followed by a restart.
    pub policy: Policy,
    /// How many deaths within `period` are borne; one more and the agent is given up.
    pub intensity: u32,
    /// The width of the window in which deaths are counted.
    pub period: Duration,
    /// The pause before the third start within a window.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// By how much a pause may be shortened by chance, percent of it, 0 ..= 100.
    pub jitter_percent: u32,
    /// What follows when it is given up; `None`: `Fail`, or for a member of a set `Escalate`.
    pub on_give_up: Option<OnGiveUp>,
}

/// `permanent`, 10 deaths in 1 s, 5 ms doubling to 1 s, each shortened by up to a fifth.
///
/// An agent that dies at once is given up after 1.0 to 1.3 s of pauses (0 + 0 + 5 + 10 + … + 640 ms), which outlasts
/// a short outage of what it needs.
impl Default for Restart {
    fn default() -> Restart {
        Restart {
            policy: Policy::Permanent,
            intensity: 10,
            period: Duration::from_secs(1),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_secs(1),
            jitter_percent: 20,
            on_give_up: None,
        }
    }
}

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the next incarnation at once.
    Now,
    /// Start it after this pause.
    After(Duration),
    /// Too many deaths: do not start it again.
    GiveUp,
}

/// The record of one agent's deaths.
///
/// Only the time that the agent *lived* counts towards `period`. Otherwise an agent that dies at once would
/// never be given up: its own back-off would space its deaths out of the window (with 10 in 1 s and 5 ms..1 s
/// the eleventh death comes 1.28 s after the first).
#[derive(Clone, Debug)]
pub struct Intensity {
    restart: Arc<Restart>,
    /// Lived time, summed over all lives that have ended.
    lived: Duration,
    /// When the present life began; `None` between lives.
    born: Option<Duration>,
    /// The lived time at each counted death that is still inside the window, oldest first.
    deaths: VecDeque<Duration>,
    /// How many pauses were made since the last quiet period.
    pauses_count: u32,
    /// The state of the generator of chance.
    chance: u64,
}

/// A record of deaths, to be kept.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Streak {
    /// Lived time, summed over all lives that have ended.
    pub lived: Duration,
    /// When the present life began.
    pub born: Option<Duration>,
    /// The lived time at each death that is inside the window.
    pub deaths: Vec<Duration>,
    /// How many pauses were made since the last quiet period.
    pub pauses_count: u32,
}

impl Intensity {
    /// An empty record; the seed decides by how much pauses are shortened.
    pub fn new(restart: impl Into<Arc<Restart>>, seed: u64) -> Intensity {
        Intensity {
            restart: restart.into(),
            lived: Duration::ZERO,
            born: None,
            deaths: VecDeque::new(),
            pauses_count: 0,
            chance: seed,
        }
    }

    /// What a supervisor's successor must know of it.
    pub fn streak(&self) -> Streak {
        let Intensity { lived, born, deaths, pauses_count, .. } = self;
        let deaths = deaths.iter().copied().collect();
        Streak { lived: *lived, born: *born, deaths, pauses_count: *pauses_count }
    }

    /// Goes on from what a predecessor knew.
    pub fn restore(&mut self, streak: Streak) {
        let Streak { lived, born, deaths, pauses_count } = streak;
        (self.lived, self.born, self.deaths) = (lived, born, deaths.into());
        self.pauses_count = pauses_count;
    }

    /// What the swarm file says.
    pub fn restart(&self) -> &Arc<Restart> {
        &self.restart
    }

    /// Notes that an incarnation was spawned at `now`.
    pub fn started(&mut self, now: Duration) {
        self.born = Some(now);
    }

    /// Notes a death at `now` and decides what follows. Whether the policy wants a restart at all is asked
    /// before (`Policy::restarts`); an `ordered` death only adds to the lived time.
    ///
    /// A `now` before the start counts as no time. A death without a start (a spawn that failed) lived no time.
    pub fn died(&mut self, now: Duration, ordered: bool) -> Decision {
        if let Some(born) = self.born.take() {
            self.lived += now.saturating_sub(born);
        }
        if ordered {
            return Decision::Now;
        }
        let (at, period) = (self.lived, self.restart.period);
        if self.deaths.back().is_none_or(|last| at - *last >= period) {
            self.pauses_count = 0;
        }
        while self.deaths.front().is_some_and(|first| at - *first >= period) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(at);
        if self.deaths_count() > self.restart.intensity {
            return Decision::GiveUp;
        }
        if self.deaths.len() < 3 && self.pauses_count == 0 {
            return Decision::Now;
        }
        let pause = jittered(
            pause(&self.restart, self.pauses_count),
            self.restart.jitter_percent,
            draw(&mut self.chance),
        );
        self.pauses_count = self.pauses_count.saturating_add(1);
        Decision::After(pause)
    }

    /// How many deaths the window held at the last death.
    pub fn deaths_count(&self) -> u32 {
        u32::try_from(self.deaths.len()).unwrap_or(u32::MAX)
    }

    /// Forgets every death: an operator who starts an agent gives it a clean record.
    pub fn forget(&mut self) {
        *self = Intensity::new(self.restart.clone(), self.chance);
    }
}

/// The pause after `before` earlier pauses of the same streak: `backoff_min` doubled `before` times, at most
/// `backoff_max`.
pub fn pause(restart: &Restart, before: u32) -> Duration {
    let factor = 2u32.checked_pow(before).unwrap_or(u32::MAX);
    restart.backoff_min.saturating_mul(factor).min(restart.backoff_max)
}

/// A pause shortened by a chance of all 2^64, by at most so many percent of it.
pub fn jittered(pause: Duration, percent: u32, chance: u64) -> Duration {
    let most_ns = pause.as_nanos() * u128::from(percent.min(100)) / 100;
    let less_ns = (most_ns * u128::from(chance)) >> 64;
    pause - Duration::from_nanos(u64::try_from(less_ns).unwrap_or(u64::MAX))
}

/// The next number of a generator (splitmix64).
pub fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// The default without chance.
    fn plain() -> Restart {
        Restart { jitter_percent: 0, ..Restart::default() }
    }

    /// Lives one life of `lived` and waits as decided; returns the decision and the time of the next start.
    fn life(record: &mut Intensity, start: Duration, lived: Duration) -> (Decision, Duration) {
        record.started(start);
        let decision = record.died(start + lived, false);
        let wait = if let Decision::After(pause) = decision { pause } else { Duration::ZERO };
        (decision, start + lived + wait)
    }

    #[test]
    fn the_first_two_deaths_are_followed_at_once_and_the_third_waits() {
        let mut record = Intensity::new(plain(), 1);
        let mut now = Duration::from_secs(100);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (decision, next) = life(&mut record, now, MS);
            seen.push(decision);
            now = next;
        }
        let after = |ms| Decision::After(Duration::from_millis(ms));
        assert_eq!(seen, [Decision::Now, Decision::Now, after(5), after(10), after(20)]);
    }

    #[test]
    fn an_agent_that_dies_at_once_is_given_up_although_its_back_off_is_long() {
        let mut record = Intensity::new(plain(), 1);
        let (mut now, mut decisions) = (Duration::ZERO, Vec::new());
        for _ in 0..11 {
            let (decision, next) = life(&mut record, now, MS);
            decisions.push(decision);
            now = next;
        }
        assert!(now > Restart::default().period, "the pauses alone exceed the period: {now:?}");
        assert_eq!(decisions.iter().position(|d| *d == Decision::GiveUp), Some(10));
    }

    #[test]
    fn agents_that_fell_together_come_back_one_by_one() {
        let third = |seed| {
            let mut record = Intensity::new(Restart { jitter_percent: 50, ..plain() }, seed);
            (0..3).map(|_| life(&mut record, Duration::ZERO, Duration::ZERO).0).last()
        };
        let pauses: std::collections::HashSet<_> =
            (0..100).map(|seed| format!("{:?}", third(seed))).collect();
        assert!(pauses.len() > 90, "{pauses:?}");
    }

    #[test]
    fn a_quiet_period_ends_the_streak() {
        let mut record = Intensity::new(plain(), 1);
        let mut now = Duration::ZERO;
        for _ in 0..6 {
            now = life(&mut record, now, MS).1;
        }
        assert_eq!(life(&mut record, now, Duration::from_secs(1)).0, Decision::Now);
        assert_eq!(record.deaths_count(), 1);
    }

    #[test]
    fn waiting_is_not_taken_for_health() {
        let mut record = Intensity::new(plain(), 1);
        let mut now = Duration::ZERO;
        for _ in 0..3 {
            now = life(&mut record, now, MS).1;
        }
        let later = now + Duration::from_secs(3600);
        assert_eq!(life(&mut record, later, MS).0, Decision::After(10 * MS));
    }

    #[test]
    fn an_operators_start_gives_a_clean_record() {
        let mut record = Intensity::new(Restart { intensity: 1, ..plain() }, 1);
        assert_eq!(life(&mut record, Duration::ZERO, MS).0, Decision::Now);
        assert_eq!(life(&mut record, MS, MS).0, Decision::GiveUp);
        record.forget();
        assert_eq!(life(&mut record, MS, MS).0, Decision::Now);
    }

    #[test]
    fn an_intensity_of_zero_bears_no_death() {
        let mut record = Intensity::new(Restart { intensity: 0, ..plain() }, 1);
        assert_eq!(life(&mut record, Duration::ZERO, Duration::from_secs(9)).0, Decision::GiveUp);
    }

    #[test]
    fn a_policy_says_which_deaths_are_followed_by_a_restart() {
        let table = Policy::ALL.map(|p| (p.word(), p.restarts(true), p.restarts(false)));
        assert_eq!(
            table,
            [("permanent", true, true), ("transient", false, true), ("temporary", false, false)]
        );
    }

    fn any_restart() -> impl Strategy<Value = Restart> {
        let numbers = (0u32..50, 1u64..5000, 1u64..1000, 0u64..100_000, 0u32..=100);
        numbers.prop_map(|(intensity, period, min, more, jitter_percent)| Restart {
            policy: Policy::Permanent,
            intensity,
            period: Duration::from_millis(period),
            backoff_min: Duration::from_millis(min),
            backoff_max: Duration::from_millis(min + more),
            jitter_percent,
            on_give_up: None,
        })
    }

    proptest! {
        #[test]
        fn deaths_spaced_by_a_share_of_the_period_never_lead_to_giving_up(
            restart in any_restart().prop_filter("bears a death", |r| r.intensity > 0),
            extra in proptest::collection::vec(0u64..50, 1..200),
            seed: u64,
        ) {
            let spacing = restart.period / restart.intensity + Duration::from_nanos(1);
            let mut record = Intensity::new(restart, seed);
            let mut now = Duration::ZERO;
            for more in extra {
                let (decision, next) = life(&mut record, now, spacing + Duration::from_millis(more));
                prop_assert_ne!(decision, Decision::GiveUp);
                now = next;
            }
        }

        #[test]
        fn an_agent_that_lives_no_time_is_given_up_after_exactly_its_intensity(
            restart in any_restart(),
            seed: u64,
        ) {
            let intensity = restart.intensity;
            let mut record = Intensity::new(restart, seed);
            let mut now = Duration::ZERO;
            for death in 1..=intensity + 1 {
                let (decision, next) = life(&mut record, now, Duration::ZERO);
                prop_assert_eq!(decision == Decision::GiveUp, death > intensity);
                now = next;
            }
        }

        #[test]
        fn back_off_is_bounded_and_grows_until_a_quiet_period(
            restart in any_restart(),
            lives in proptest::collection::vec(0u64..6000, 1..200),
            seed: u64,
        ) {
            // Chance may make a longer pause shorter than the one before: without it they grow.
            let restart = Restart { jitter_percent: 0, ..restart };
            let mut record = Intensity::new(restart.clone(), seed);
            let (mut now, mut last, mut deaths) = (Duration::ZERO, Duration::ZERO, 0);
            for lived in lives.into_iter().map(Duration::from_millis) {
                if lived >= restart.period {
                    (last, deaths) = (Duration::ZERO, 0);
                }
                let (decision, next) = life(&mut record, now, lived);
                deaths += 1;
                match decision {
                    Decision::Now => prop_assert_eq!(last, Duration::ZERO),
                    Decision::After(pause) => {
                        prop_assert!(deaths >= 3, "a pause after death {}", deaths);
                        prop_assert!(pause >= restart.backoff_min && pause <= restart.backoff_max);
                        prop_assert!(pause >= last && (last.is_zero() || pause <= last * 2));
                        last = pause;
                    }
                    Decision::GiveUp => break,
                }
                now = next;
            }
        }

        #[test]
        fn chance_shortens_a_pause_by_no_more_than_its_share_and_is_that_of_the_seed(
            restart in any_restart(),
            lives in proptest::collection::vec(0u64..2000, 1..100),
            seed: u64,
        ) {
            let exact = Restart { jitter_percent: 0, ..restart.clone() };
            let mut records =
                [(exact, seed), (restart.clone(), seed), (restart.clone(), seed)].map(|(r, s)| Intensity::new(r, s));
            let mut now = Duration::ZERO;
            for lived in lives {
                let [full, one, same] = records.each_mut().map(|r| life(r, now, Duration::from_millis(lived)).0);
                prop_assert_eq!(one, same);
                match (full, one) {
                    (Decision::After(full), Decision::After(one)) => {
                        prop_assert!(one <= full && one >= full * (100 - restart.jitter_percent) / 100);
                    }
                    (full, one) => prop_assert_eq!(full, one),
                }
                now += Duration::from_secs(1);
            }
        }

        #[test]
        fn ordered_deaths_change_no_later_decision(
            restart in any_restart(),
            lives in proptest::collection::vec((0u64..2000, 0usize..4), 1..100),
            seed: u64,
        ) {
            let (mut with, mut without) = (Intensity::new(restart.clone(), seed), Intensity::new(restart, seed));
            let mut now = Duration::ZERO;
            for (lived, ordered) in lives {
                for _ in 0..ordered {
                    with.started(now);
                    prop_assert_eq!(with.died(now, true), Decision::Now);
                }
                let a = life(&mut with, now, Duration::from_millis(lived));
                let b = life(&mut without, now, Duration::from_millis(lived));
                prop_assert_eq!(a, b);
                now = a.1;
            }
        }
    }
}
