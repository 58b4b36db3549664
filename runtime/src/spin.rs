//! How long to spin before sleeping: a pure policy, fed with what was seen.
//!
//! A hand-over to a sleeper on another, idle core costs some 25 µs and 20 µs of the sender's time; to an awake reader it
//! costs a cache line. But a reader that spins on the core its peer needs only delays it, and after a pause of a millisecond
//! sleeping at once is best. So: spin only while messages have lately come within the price of a wake-up or two, never when
//! the peer last ran on this CPU, never on a machine with one or within a quota of less than two, and never in vain for long.

use crate::cpus;

/// What a wake-up costs at most, unless the processor sleeps deeply. Two of them are what a wait takes when its peer slept, too: with less
/// as the bound two agents that sleep between each other's messages would never find out that they need not.
const WAKE_PRICE_NS: u64 = 25_000;

/// How long who spins looks as often as it can: an answer that is being written comes within that.
const EAGER_NS: u64 = 4_000;

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
}

impl Default for Spin {
    /// Nothing was seen yet.
    fn default() -> Self {
        Spin { several_cpus: None, gap_ns: 4 * WAKE_PRICE_NS, in_vain: 0 }
    }
}

impl Spin {
    /// Of an agent that is bound to so many percent of a CPU, if it is.
    pub fn within(cpu_percent: Option<u32>) -> Self {
        let several_cpus = cpu_percent.filter(|&percent| !cpus::allows_several(percent)).map(|_| false);
        Spin { several_cpus, ..Spin::default() }
    }

    /// How long to spin now, given whether a peer last ran on the CPU that this agent runs on, and, if that decides, whether there are
    /// several CPUs.
    pub fn budget_ns(&mut self, peer_on_this_cpu: bool, several_cpus: impl FnOnce() -> bool) -> u64 {
        let likely = self.gap_ns <= 2 * WAKE_PRICE_NS;
        if peer_on_this_cpu
            || !likely
            || self.in_vain >= 8
            || !*self.several_cpus.get_or_insert_with(several_cpus)
        {
            return 0;
        }
        (2 * self.gap_ns).clamp(2_000, 2 * WAKE_PRICE_NS)
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
            let mut spin = Spin::within(percent);
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
