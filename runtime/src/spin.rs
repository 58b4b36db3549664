//! How long to spin before sleeping: a pure policy, fed with what was seen.
//!
//! A hand-over to a sleeper on another, idle core costs some 25 µs and 20 µs of the sender's time; to an awake reader it
//! costs a cache line. But a reader that spins on the core its peer needs only delays it, and after a pause of a millisecond
//! sleeping at once is best. So: spin only while messages have lately come within the price of a wake-up or two, never when
//! the peer last ran on this CPU, never on a machine with one or within a quota of less than two, and never in vain for long.
//!
//! Where messages come within half of that price spinning costs less CPU than sleeping would. Between the two it costs more, up to
//! three times as much; yet who never spins there never finds out that its peer, who sleeps, too, would answer sooner. So there
//! it is done by turns: for a few waits in a row out of more, at times that chance gives each agent, so that two meet soon.

use crate::cpus;

/// What a wake-up costs at most, unless the processor sleeps deeply. Two of them are what a wait takes when its peer slept, too: with less
/// as the bound two agents that sleep between each other's messages would never find out that they need not.
const WAKE_PRICE_NS: u64 = 25_000;

/// Up to this gap every wait begins with a spin: two of them are what the CPUs of sleeper and waker spend for a sleep.
const DENSE_NS: u64 = WAKE_PRICE_NS / 2;

/// Above it so many waits in a row have one answer, and of all such turns three eighths are for spinning.
const TURN_WAITS: u32 = 4;

/// How long who spins looks as often as it can: an answer that is being written comes within that.
pub(crate) const EAGER_NS: u64 = 4_000;

/// How many hints to the processor a look is followed by, after so long a spin: the longer it took, the longer it may take, and the
/// less it should disturb a peer that shares the core.
pub(crate) fn hints(spun_ns: u64) -> usize {
    if spun_ns < EAGER_NS { 1 } else { 16 }
}

/// What an agent has seen of its own waits.
#[derive(Clone, Debug)]
pub struct Spin {
    /// Whether there are several CPUs, once that was asked: to find out takes as long as a wake-up.
    several_cpus: Option<bool>,
    gap_ns: u64,
    in_vain: u32,
    /// Of what decides whose turn is for spinning; never 0.
    chance: u32,
    /// Waits left of this turn.
    turn: u32,
    is_for_spinning: bool,
}

impl Default for Spin {
    /// Nothing was seen yet.
    fn default() -> Self {
        Spin {
            several_cpus: None,
            gap_ns: 4 * WAKE_PRICE_NS,
            in_vain: 0,
            chance: 1,
            turn: 0,
            is_for_spinning: false,
        }
    }
}

impl Spin {
    /// Of the agent of this index, which is bound to so many percent of a CPU, if it is.
    pub fn within(cpu_percent: Option<u32>, agent: u32) -> Self {
        let several_cpus = cpu_percent.filter(|&percent| !cpus::allows_several(percent)).map(|_| false);
        Spin { several_cpus, chance: agent.wrapping_mul(2).wrapping_add(1), ..Spin::default() }
    }

    /// How long to spin now, given whether a peer last ran on the CPU that this agent runs on, and, if that decides, whether there are
    /// several CPUs.
    pub fn budget_ns(&mut self, peer_on_this_cpu: bool, several_cpus: impl FnOnce() -> bool) -> u64 {
        let likely = self.gap_ns <= DENSE_NS || self.gap_ns <= 2 * WAKE_PRICE_NS && self.has_its_turn();
        if peer_on_this_cpu
            || !likely
            || self.in_vain >= 8
            || !*self.several_cpus.get_or_insert_with(several_cpus)
        {
            return 0;
        }
        (2 * self.gap_ns).clamp(2_000, 2 * WAKE_PRICE_NS)
    }

    /// Whether this wait is one of a turn that is for spinning.
    fn has_its_turn(&mut self) -> bool {
        if self.turn == 0 {
            self.turn = TURN_WAITS;
            // Marsaglia's xorshift.
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 17;
            self.chance ^= self.chance << 5;
            self.is_for_spinning = self.chance >> 29 < 3;
        }
        self.turn -= 1;
        self.is_for_spinning
    }

    /// Learns from a wait that ended with something to do: how long it took, and whether it ended while spinning.
    pub fn learn(&mut self, waited_ns: u64, while_spinning: bool, budget_ns: u64) {
        // A moving mean of the gaps; one long pause counts as a few prices, so that a burst after it is noticed soon.
        let gap = waited_ns.min(16 * WAKE_PRICE_NS);
        self.gap_ns = (3 * self.gap_ns + gap) / 4;
        if while_spinning {
            self.in_vain = 0;
        } else if budget_ns > 0 {
            self.in_vain += 1;
        } else {
            // Sleeping showed how dense messages are; after a while spinning may be tried again.
            self.in_vain = self.in_vain.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: impl IntoIterator<Item = u64>) -> Spin {
        let mut spin = Spin::default();
        for gap in gaps {
            let budget = spin.budget_ns(false, || true);
            spin.learn(gap, gap <= budget, budget);
        }
        spin
    }

    #[test]
    fn who_is_bound_to_less_than_two_cpus_never_spins_however_dense_messages_are() {
        let spins = |percent| {
            let mut spin = Spin::within(percent, 0);
            (0..50).for_each(|_| spin.learn(500, true, 1000));
            spin.budget_ns(false, || true) > 0
        };
        assert_eq!(
            [None, Some(200), Some(199), Some(100), Some(50)].map(spins),
            [true, true, false, false, false]
        );
    }

    #[test]
    fn dense_messages_are_spun_for_and_sparse_ones_are_not() {
        assert!(after([1_000; 20]).budget_ns(false, || true) >= 2_000);
        assert_eq!(after([1_000_000; 20]).budget_ns(false, || true), 0);
    }

    /// How many of 8,000 waits for messages that come every `gap_ns` begin with a spin.
    fn spun(agent: u32, gap_ns: u64) -> usize {
        let mut spin = Spin::within(None, agent);
        (0..100).for_each(|_| spin.learn(gap_ns, true, gap_ns));
        let waits = (0..8000).filter(|_| {
            let budget = spin.budget_ns(false, || true);
            spin.learn(gap_ns, gap_ns <= budget, budget);
            budget > 0
        });
        waits.count()
    }

    #[test]
    fn between_dense_and_sparse_three_eighths_of_the_waits_are_spun() {
        assert_eq!([1_000, DENSE_NS].map(|gap| spun(3, gap)), [8000, 8000]);
        for agent in 0..50 {
            let middle = [15_000, 20_000, 2 * WAKE_PRICE_NS].map(|gap| spun(agent, gap));
            assert!(middle.iter().all(|count| (2500..3500).contains(count)), "agent {agent}: {middle:?}");
        }
        assert_eq!(spun(3, 2 * WAKE_PRICE_NS + 1), 0);
    }

    // Goal: two agents that answer each other at once, but both sleep, find out that they need not. Method: who spins has the answer
    // after a microsecond if the other spins, too, and after what its wake-up takes if not, which is also what a sleeper waits.
    #[test]
    fn two_that_sleep_find_each_other_awake() {
        for (one, other) in (0..50).map(|first| (first, first + 1)) {
            let mut both = [Spin::within(None, one), Spin::within(None, other)];
            both.iter_mut().for_each(|spin| (0..20).for_each(|_| spin.learn(20_000, false, 0)));
            let awake = (0..400).position(|_| {
                let budgets = both.each_mut().map(|spin| spin.budget_ns(false, || true));
                let wait_ns = if budgets.iter().all(|&budget| budget > 1_000) { 1_000 } else { 20_000 };
                for (spin, budget) in both.iter_mut().zip(budgets) {
                    spin.learn(wait_ns, budget >= wait_ns, budget);
                }
                both.iter().all(|spin| spin.gap_ns <= DENSE_NS)
            });
            assert!(awake.is_some(), "agents {one} and {other} slept through 400 waits");
        }
    }

    #[test]
    fn a_burst_after_a_pause_is_noticed_within_a_dozen_messages() {
        let gaps = std::iter::repeat_n(1_000_000, 50).chain(std::iter::repeat_n(1_000, 12));
        assert!(after(gaps).budget_ns(false, || true) > 0);
    }

    #[test]
    fn nobody_spins_on_one_cpu_or_on_the_cpu_of_its_peer() {
        assert_eq!(after([1_000; 20]).budget_ns(true, || true), 0);
        let mut one = Spin::default();
        (0..20).for_each(|_| one.learn(1_000, true, 0));
        assert_eq!(one.budget_ns(false, || false), 0);
    }

    #[test]
    fn cpus_are_counted_once_and_only_where_that_decides() {
        let never = || -> bool { panic!("nobody needs to know") };
        assert_eq!(Spin::default().budget_ns(false, never), 0, "nothing was seen yet");
        assert_eq!(after([1_000; 20]).budget_ns(true, never), 0);
        assert!(after([1_000; 20]).budget_ns(false, never) > 0, "they were counted before");
    }

    #[test]
    fn spinning_in_vain_stops() {
        let mut spin = after([1_000; 20]);
        for _ in 0..8 {
            let budget = spin.budget_ns(false, || true);
            spin.learn(40_000, false, budget);
        }
        assert_eq!(spin.budget_ns(false, || true), 0);
    }
}
