//! The account of who listens: what came, what was wrong with it, and how long it took. Pure, and small enough for a state.

/// Buckets of an octave: a time is known to an eighth.
const OCTAVE_BUCKETS: u64 = 8;
/// Octaves: from 1 ns to 2^37 ns, two minutes.
const OCTAVES: u64 = 37;

/// An account: a listener's state.
#[shoal_agent::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that came, each counted once, and were what was sent.
    pub delivered: u64,
    /// Messages that had come before.
    pub repeated: u64,
    /// Numbers that were passed over where order is promised, or calls whose answer never came.
    pub missing: u64,
    /// Messages whose bytes are not those that were sent, or of nobody.
    pub wrong: u64,
    /// What was asked for: calls, each times its awaited answers.
    pub asked: u64,
    /// The first message, CLOCK_MONOTONIC ns.
    pub first_ns: u64,
    /// The last.
    pub last_ns: u64,
    /// The longest time.
    pub longest_ns: u64,
    /// How long some call had been waiting for more than [`super::agents::DOWN_AFTER`].
    pub down_ns: u64,
    /// How long calls were made and awaited.
    pub served_ns: u64,
    /// The next number of each source.
    pub next: Vec<u32>,
    /// How many took how long.
    pub times: Vec<u32>,
}

impl Tally {
    /// Of so many sources.
    pub fn of(sources: u32) -> Tally {
        Tally { next: vec![0; sources as usize], ..Tally::default() }
    }

    /// Notes a message that came in a source's order.
    pub fn note(&mut self, source: u32, number: u64, sent_ns: u64, now_ns: u64) {
        let Some(next) = self.next.get_mut(source as usize) else {
            self.wrong += 1;
            return;
        };
        if number < u64::from(*next) {
            self.repeated += 1;
            return;
        }
        self.missing += number - u64::from(*next);
        *next = number as u32 + 1;
        self.came(sent_ns, now_ns);
    }

    /// Notes a message, and how long it took.
    pub fn came(&mut self, sent_ns: u64, now_ns: u64) {
        self.delivered += 1;
        if self.first_ns == 0 {
            self.first_ns = now_ns;
        }
        self.last_ns = now_ns;
        let took_ns = now_ns.saturating_sub(sent_ns);
        self.longest_ns = self.longest_ns.max(took_ns);
        self.times.resize(bucket(u64::MAX) + 1, 0);
        self.times[bucket(took_ns)] += 1;
    }

    /// Adds another account; numbers of sources stay with whom they are of.
    pub fn merge(&mut self, other: &Tally) {
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.asked += other.asked;
        self.down_ns += other.down_ns;
        self.served_ns = self.served_ns.max(other.served_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.first_ns = match (self.first_ns, other.first_ns) {
            (0, first) | (first, 0) => first,
            (a, b) => a.min(b),
        };
        self.times.resize(bucket(u64::MAX) + 1, 0);
        self.times.iter_mut().zip(&other.times).for_each(|(own, others)| *own += others);
    }

    /// The time that `part` of the messages did not exceed, to an eighth of it; `None` when none came.
    pub fn quantile_ns(&self, part: f64) -> Option<u64> {
        let total: u64 = self.times.iter().map(|&count| u64::from(count)).sum();
        let rank = ((total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.times.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        })?;
        // What a bucket holds is less than where the next begins, and no more than the longest.
        Some(bucket_start(at + 1).min(self.longest_ns))
    }

    /// From the first message to the last, s.
    pub fn seconds(&self) -> f64 {
        self.last_ns.saturating_sub(self.first_ns) as f64 / 1e9
    }
}

fn bucket(ns: u64) -> usize {
    if ns < OCTAVE_BUCKETS {
        return ns as usize;
    }
    let octave = u64::from(63 - ns.leading_zeros());
    let within = (ns >> (octave - 3)) - OCTAVE_BUCKETS;
    ((octave - 2) * OCTAVE_BUCKETS + within).min(OCTAVES * OCTAVE_BUCKETS - 1) as usize
}

fn bucket_start(at: usize) -> u64 {
    let at = at as u64;
    if at < OCTAVE_BUCKETS {
        return at;
    }
    (OCTAVE_BUCKETS + at % OCTAVE_BUCKETS) << (at / OCTAVE_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn time_lies_in_a_bucket_that_is_an_eighth_wide(ns in 0u64..1 << 36) {
            let at = bucket(ns);
            let (low, high) = (bucket_start(at), bucket_start(at + 1));
            prop_assert!(low <= ns && ns < high && high - low <= 1 + low / 8, "{ns} in {low}..{high}");
        }

        #[test]
        fn account_tells_what_came_twice_from_what_was_left_out(
            numbers in prop::collection::vec(0u64..50, 0..200),
        ) {
            let mut tally = Tally::of(1);
            numbers.iter().for_each(|&n| tally.note(0, n, 1, 2));
            let top = numbers.iter().max().map_or(0, |top| top + 1);
            prop_assert_eq!(tally.delivered + tally.missing, top);
            prop_assert_eq!(tally.delivered + tally.repeated, numbers.len() as u64);
        }
    }

    #[test]
    fn quantiles_are_of_all_that_were_merged() {
        let mut one = Tally::of(0);
        (1..=95).for_each(|_| one.came(0, 100));
        let mut other = Tally::of(0);
        (1..=5).for_each(|_| other.came(0, 1_000_000));
        one.merge(&other);
        assert_eq!(one.delivered, 100);
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|part| one.quantile_ns(part).expect("some"));
        assert!((100..=112).contains(&p50) && p50 == p95, "{p50} {p95}");
        assert_eq!(p99, 1_000_000);
        assert_eq!(Tally::of(1).quantile_ns(0.5), None);
    }

    #[test]
    fn account_of_as_many_sources_as_there_can_be_fits_a_state() {
        let mut tally = Tally::of(super::super::swarms::SOURCES_MAX);
        tally.came(0, 1);
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&tally).expect("archived");
        assert!(bytes.len() + shoal_runtime::state::VALUE <= shoal_runtime::layout::STATE_BYTES as usize);
    }

    #[test]
    fn message_of_nobody_is_wrong() {
        let mut tally = Tally::of(2);
        tally.note(2, 0, 0, 1);
        assert_eq!((tally.wrong, tally.delivered), (1, 0));
    }
}
