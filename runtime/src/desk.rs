//! The desk: where an incarnation writes about itself, and how others read it.

use crate::layout::{HISTOGRAM_BUCKETS, SegmentShape, desk, input, recorder};
use crate::mark::Place;
use crate::region::{Region, Row};
use crate::sync::{AtomicU64, Ordering, Site, fence, fence_of_sleeper};

/// What an incarnation says of its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Life {
    /// Attached, not ready yet.
    Starting = 0,
    /// Ready for messages.
    Ready = 1,
    /// Told to stop, finishing.
    Stopping = 2,
}

/// For messages of which channel an agent waits, if it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Awaits {
    /// For none: it waits for space, for a pause to end, or on a descriptor in a runtime of its own.
    #[default]
    Nothing,
    /// For those of every channel that it reads.
    All,
    /// For those of the channel of this index.
    Channel(u32),
}

impl Awaits {
    fn pack(self) -> u64 {
        match self {
            Awaits::Nothing => 0,
            Awaits::All => 1,
            Awaits::Channel(index) => u64::from(index) + 2,
        }
    }

    fn unpack(word: u64) -> Self {
        match word & !UNTIL_RUNG {
            1 => Awaits::All,
            // A channel that is not there is none.
            index @ 2.. => u32::try_from(index - 2).map_or(Awaits::Nothing, Awaits::Channel),
            0 => Awaits::Nothing,
        }
    }

    /// Whether it waits for messages of this channel.
    pub fn concerns(self, channel: u32) -> bool {
        self == Awaits::All || self == Awaits::Channel(channel)
    }
}

/// In the word of what is awaited: the wait has no end but a ring, or a word from the supervisor.
const UNTIL_RUNG: u64 = 1 << 63;

/// How an incarnation rests, as a look from outside sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Not at all: it is awake.
    Awake,
    /// It sleeps, and may wake by itself: after a time-out, or on a descriptor of its own.
    Light,
    /// It sleeps until it is rung, or told something by the supervisor.
    UntilRung,
}

/// The counters of a desk, in their order in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Counter {
    /// Messages sent, on all lanes.
    Sent,
    /// Messages received and acknowledged, on all inputs.
    Received,
    /// Steps that were aborted.
    Aborted,
    /// Doorbells rung.
    Rings,
    /// Times it slept.
    Sleeps,
    /// Sends refused by a full lane.
    Rejected,
    /// Times a send waited for space.
    Blocked,
    /// Faults of peers seen.
    PeerFaults,
}

/// An incarnation's own desk.
#[derive(Clone)]
pub struct Desk {
    /// All of it before the histogram.
    words: Row<WORDS>,
}

/// Words of a desk and its flight recorder.
const WORDS: usize = (recorder::TAKEN + recorder::BYTES - desk::LIFE) / 8;

impl Desk {
    /// The desk of a segment that this process writes.
    pub fn new(region: Region) -> Self {
        Desk { words: Row::new(&region, desk::LIFE) }
    }

    /// The word at an offset of the segment.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        self.words.word((offset - desk::LIFE) / 8)
    }

    /// Adds to a counter.
    ///
    /// # If we die here
    /// A count is lost; nothing depends on it.
    #[inline]
    pub fn count(&self, counter: Counter, by: u64) {
        let word = self.word(desk::COUNTERS + counter as usize * 8);
        // Relaxed: one writer, and readers only show it.
        word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Says how far in its life the incarnation is.
    pub fn life(&self, life: Life) {
        // Relaxed: the supervisor hears of it over the socket; this word is for show.
        self.word(desk::LIFE).store(life as u64, Ordering::Relaxed);
    }

    /// Says for what a wait is that begins, or, with nothing, that it ended; and whether nothing but a ring, or the supervisor, can end it.
    ///
    /// # If we die here
    /// Nobody asks who is dead.
    pub fn awaits(&self, what: Awaits, until_rung: bool) {
        let until_rung = if until_rung { UNTIL_RUNG } else { 0 };
        // Relaxed: the supervisor compares it with itself a second later.
        self.word(desk::AWAITS).store(what.pack() | until_rung, Ordering::Relaxed);
    }

    /// Notes the CPU that the agent runs on.
    pub fn cpu(&self, cpu: u32) {
        // Relaxed: a hint.
        self.word(desk::CPU).store(u64::from(cpu) + 1, Ordering::Relaxed);
    }

    /// Notes that a message is held, which attempt at it this is (from 1), and since when.
    ///
    /// # If we die here
    /// Between the stores nothing is held, or the words speak of two messages: their reader compares them with the cursors.
    #[inline]
    pub fn hold(&self, input: usize, at: Place, attempt: u32, now_ns: u64) {
        // Relaxed: read by the supervisor when it looks for hangs and after a death; each word stands for itself.
        self.word(desk::HELD_POSITION).store(at.position, Ordering::Relaxed);
        self.word(desk::HELD_SEQUENCE).store(at.sequence, Ordering::Relaxed);
        let held = u64::from(attempt) << 32 | (input as u64 + 1);
        self.word(desk::HELD_INPUT).store(held, Ordering::Relaxed);
        self.word(desk::HELD_SINCE_NS).store(now_ns, Ordering::Relaxed);
        let number = self.word(desk::PROGRESS).load(Ordering::Relaxed);
        self.note_taken(number, input, at, attempt, now_ns);
    }

    /// Notes that no message is held, and one more that was let go of.
    #[inline]
    pub fn release(&self) {
        let progress = self.word(desk::PROGRESS);
        // Relaxed: as in `hold`.
        self.word(desk::HELD_SINCE_NS).store(0, Ordering::Relaxed);
        self.word(desk::HELD_INPUT).store(0, Ordering::Relaxed);
        progress.store(progress.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Notes that who holds a message is still at it: the time that it may take begins anew. Nothing is noted when none is held.
    pub fn still_at_it(&self, now_ns: u64) {
        let since = self.word(desk::HELD_SINCE_NS);
        // Relaxed: as in `hold`.
        if since.load(Ordering::Relaxed) > 0 {
            since.store(now_ns, Ordering::Relaxed);
        }
    }

    /// Notes when the incarnation took or committed its first message.
    pub fn first_message(&self, now_ns: u64) {
        // Relaxed: for measurement only.
        self.word(desk::FIRST_MESSAGE_NS).store(now_ns, Ordering::Relaxed);
    }

    /// Adds a latency to the histogram.
    pub fn latency(&self, ns: u64) {
        let word = self.words.region().word(desk::HISTOGRAM + bucket(ns) * 8);
        // Relaxed: one writer, and readers only show it.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The parked word.
    pub fn parked(&self) -> Parked<'_> {
        Parked { word: self.word(desk::PARKED) }
    }
}

/// In a parked word: it sleeps, or is about to.
pub(crate) const ASLEEP: u64 = 1;
/// In a parked word: between what is published for it and a look at this word the publisher fences itself.
pub(crate) const LEFT: u64 = 2;
/// One sleep more, behind those bits: no two sleeps have the same word.
const SLEEP: u64 = 4;

/// The parked word of the own desk.
pub struct Parked<'a> {
    word: &'a AtomicU64,
}

impl Parked<'_> {
    /// Announces a sleep; the caller looks at everything once more before it sleeps.
    ///
    /// # If we die here
    /// Peers ring a dead incarnation's doorbell: harmless, and the link epoch makes them ring its successor once.
    pub fn set(&self) {
        self.announce(0);
        // The sleeper's fence: pairs with the publisher's in `Links::fence`. Either the publisher sees the word set, or this agent's
        // look after the fence sees what was published.
        fence_of_sleeper(Site::ParkFence);
    }

    /// The same, of a sleep for messages, and leaves the fence of further sleeps to those who publish: as cheap as it can be for who sleeps
    /// between few messages. `settled` says that it was left to them before, that they were fenced since, and that no link has
    /// come since: then there is none to make for them.
    ///
    /// # If we die here
    /// As in [`Parked::set`].
    pub fn set_leaving(&self, settled: bool) {
        self.announce(LEFT);
        if settled {
            // SeqCst fence: pairs with the one in `Links::ring_if_parked`, as the two of `Parked::set`.
            fence(Site::ParkFence, Ordering::SeqCst);
        } else {
            fence_of_sleeper(Site::ParkFence);
        }
    }

    fn announce(&self, left: u64) {
        // Relaxed: this word has one writer, and a fence follows.
        let now = self.word.load(Ordering::Relaxed);
        self.word.store(((now & !ASLEEP) + SLEEP) | left | ASLEEP, Ordering::Relaxed);
    }

    /// Whether the fence is left to those who publish.
    #[inline]
    pub fn is_left(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LEFT != 0
    }

    /// Takes the fence back, for who finds many messages without sleeping: the next sleep fences for those who publish.
    #[inline]
    pub fn take_back(&self) {
        let now = self.word.load(Ordering::Relaxed);
        // Relaxed: a publisher that still reads the other value fences once too often.
        if now & LEFT != 0 {
            self.word.store(now & !LEFT, Ordering::Relaxed);
        }
    }

    /// Announces that the agent is awake.
    pub fn clear(&self) {
        let now = self.word.load(Ordering::Relaxed);
        // Relaxed: a publisher that still reads the old value rings once too often, never once too little.
        if now & ASLEEP != 0 {
            self.word.store(now & !ASLEEP, Ordering::Relaxed);
        }
    }
}

/// What others read from a desk; never trusted, only shown or compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeskView {
    /// CPU that the agent last ran on, if it said so.
    pub cpu: Option<u64>,
    /// When it took or committed its first message, CLOCK_MONOTONIC ns; 0 before.
    pub first_message_ns: u64,
    /// Messages that it let go of.
    pub progress: u64,
    /// Input and place of the message in hand.
    pub held: Option<(usize, Place)>,
    /// Which attempt at it this is, from 1; 0 when none.
    pub held_attempt: u32,
    /// Since when, coarse CLOCK_MONOTONIC ns.
    pub held_since_ns: u64,
    /// Whether it sleeps.
    pub parked: bool,
    /// The parked word: another one for every sleep.
    pub sleep: u64,
    /// What it waits for.
    pub awaits: Awaits,
}

/// The CPU that an agent last ran on, if it said so. Reads nothing that the agent writes for every message: a peer may ask often.
#[inline]
pub fn cpu_of(region: &Region) -> Option<u64> {
    // Relaxed: a hint.
    region.word(desk::CPU).load(Ordering::Relaxed).checked_sub(1)
}

/// Reads a desk.
pub fn view(region: &Region) -> DeskView {
    // Relaxed: shown or compared by itself; nothing is derived from two words together.
    let word = |offset: usize| region.word(offset).load(Ordering::Relaxed);
    let held = word(desk::HELD_INPUT);
    DeskView {
        cpu: cpu_of(region),
        first_message_ns: word(desk::FIRST_MESSAGE_NS),
        progress: word(desk::PROGRESS),
        held: (held as u32).checked_sub(1).map(|input| {
            let (position, sequence) = (word(desk::HELD_POSITION), word(desk::HELD_SEQUENCE));
            (input as usize, Place { position, sequence })
        }),
        held_attempt: (held >> 32) as u32,
        held_since_ns: word(desk::HELD_SINCE_NS),
        parked: word(desk::PARKED) & 1 == 1,
        sleep: word(desk::PARKED),
        awaits: Awaits::unpack(word(desk::AWAITS)),
    }
}

/// Looks at a desk without a map: how the incarnation rests, and a number that is another one after anything that it did or counted.
/// Torn, it only ever says that there is something to look at; made up, it keeps others from looking at who made it up.
///
/// # Errors
/// The kernel's refusal.
#[cfg(not(loom))]
pub fn peek(segment: impl std::os::fd::AsFd) -> std::io::Result<(Rest, u64)> {
    const BYTES: usize = crate::layout::recorder::TAKEN - desk::LIFE;
    let mut bytes = [0; BYTES];
    if rustix::io::pread(segment, &mut bytes[..], desk::LIFE as u64)? != BYTES {
        return Err(std::io::Error::other("a segment is shorter than its desk"));
    }
    let (words, _) = bytes.as_chunks::<8>();
    let word = |offset: usize| u64::from_le_bytes(words[(offset - desk::LIFE) / 8]);
    let rest = match (word(desk::PARKED) & ASLEEP, word(desk::AWAITS) & UNTIL_RUNG) {
        (0, _) => Rest::Awake,
        (_, 0) => Rest::Light,
        _ => Rest::UntilRung,
    };
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let sum = words.iter().fold(0, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    Ok((rest, sum))
}

/// Reads what a member of groups noted before it claimed: the numbers of the messages of an input that it held, or was about to.
pub fn intents(region: &Region, shape: &SegmentShape, index: usize) -> Vec<u64> {
    let first = shape.input_offset(index) + input::INTENTS;
    // Relaxed: its writer is dead; what the numbers say is compared with the claim table.
    let words = (0..input::INTENT_COUNT).map(|i| region.word(first + i * 8).load(Ordering::Relaxed));
    words.filter_map(|word| word.checked_sub(1)).collect()
}

/// Reads a counter of a desk.
pub fn counter(region: &Region, counter: Counter) -> u64 {
    // Relaxed: for show.
    region.word(desk::COUNTERS + counter as usize * 8).load(Ordering::Relaxed)
}

/// A latency histogram outside shared memory: 16 buckets an octave, at most 6.25 % wide.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Empty while nothing was counted: most of a thousand never are.
    counts: Vec<u64>,
}

const SUB_BITS: u32 = 4;

/// The bucket of a value: exact below 16, then 16 an octave; the last bucket takes everything above.
fn bucket(ns: u64) -> usize {
    let sub = 1u64 << SUB_BITS;
    if ns < sub {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros();
    let within = (ns >> (octave - SUB_BITS)) - sub;
    let index = (u64::from(octave - SUB_BITS) + 1) * sub + within;
    (index as usize).min(HISTOGRAM_BUCKETS.saturating_sub(1))
}

/// The least value of a bucket.
fn bucket_start(index: usize) -> u64 {
    let sub = 1usize << SUB_BITS;
    if index < sub {
        return index as u64;
    }
    let (octave, within) = (index / sub - 1, index % sub);
    ((sub + within) as u64) << octave
}

impl Histogram {
    /// How many values each bucket holds; nothing while none holds any.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// What [`Histogram::counts`] gave; what has another number of buckets is of another build and counts as nothing.
    pub fn from_counts(counts: Vec<u64>) -> Self {
        match counts.len() == HISTOGRAM_BUCKETS {
            true => Histogram { counts },
            false => Histogram::default(),
        }
    }

    /// Adds what a desk has counted.
    pub fn add_desk(&mut self, region: &Region) {
        for i in 0..HISTOGRAM_BUCKETS {
            // Relaxed: for show.
            let more = region.word(desk::HISTOGRAM + i * 8).load(Ordering::Relaxed);
            if more > 0 {
                let count = &mut self.buckets()[i];
                *count = count.wrapping_add(more);
            }
        }
    }

    /// Adds one value.
    pub fn add(&mut self, ns: u64) {
        self.buckets()[bucket(ns)] += 1;
    }

    fn buckets(&mut self) -> &mut [u64] {
        self.counts.resize(HISTOGRAM_BUCKETS, 0);
        &mut self.counts
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        if !other.counts.is_empty() {
            self.buckets().iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |a, &b| a.wrapping_add(b))
    }

    /// The value below which `quantile` (0..=1) of the values lie, within a bucket's width; `None` when empty.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        let rank = (quantile * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        let index = self.counts.iter().position(|&count| {
            seen = seen.wrapping_add(count);
            seen >= rank && total > 0
        })?;
        Some(bucket_start(index))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_starts_at_most_a_sixteenth_below_it() {
        for ns in
            (0..5000).chain((0..44).map(|b| 1u64 << b)).chain((5..43).map(|b| (1u64 << b) + 12345 % (1 << b)))
        {
            let start = bucket_start(bucket(ns));
            assert!(start <= ns && ns - start <= start / 16, "{ns} in a bucket from {start}");
        }
    }

    #[test]
    fn quantiles_of_a_uniform_row_lie_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        (0..10_000).for_each(|ns| histogram.add(ns));
        for (q, truth) in [(0.5, 5000.0), (0.99, 9900.0), (0.001, 10.0)] {
            let got = histogram.quantile(q).expect("not empty") as f64;
            assert!((got - truth).abs() <= truth / 16.0 + 1.0, "{q}: {got}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn histogram_that_counted_nothing_has_no_buckets_and_merges_as_one_that_has() {
        let region = Region::heap(desk::HISTOGRAM + HISTOGRAM_BUCKETS * 8);
        let mut sum = Histogram::default();
        sum.add_desk(&region);
        sum.merge(&Histogram::default());
        assert!(sum.counts().is_empty());
        Desk::new(region.clone()).latency(100);
        sum.add_desk(&region);
        let mut other = Histogram::default();
        other.merge(&sum);
        other.merge(&Histogram::default());
        other.merge(&Histogram::from_counts(sum.counts().to_vec()));
        assert_eq!((sum.count(), other.count(), other.quantile(1.0)), (1, 2, sum.quantile(0.5)));
    }

    #[test]
    fn who_is_still_at_it_holds_since_now_and_who_holds_nothing_still_does_not() {
        let region = Region::heap(4096);
        let desk_ = Desk::new(region.clone());
        desk_.still_at_it(5);
        assert_eq!(view(&region).held_since_ns, 0);
        desk_.hold(0, Place { position: 64, sequence: 1 }, 1, 5);
        desk_.still_at_it(9);
        assert_eq!((view(&region).held_since_ns, view(&region).progress), (9, 0));
        desk_.release();
        desk_.still_at_it(12);
        assert_eq!((view(&region).held_since_ns, view(&region).progress), (0, 1));
    }

    #[test]
    fn parked_says_whether_it_is_set_and_is_never_the_same_twice() {
        let desk_ = Desk::new(Region::heap(4096));
        let mut seen = std::collections::HashSet::new();
        for again in [false, true, false] {
            desk_.parked().set();
            if again {
                desk_.parked().set_leaving(again);
            }
            let word = desk_.parked().word.load(Ordering::Relaxed);
            assert!(word & ASLEEP != 0 && desk_.parked().is_left() == again && seen.insert(word));
            desk_.parked().clear();
            desk_.parked().clear();
            assert_eq!(desk_.parked().word.load(Ordering::Relaxed), word - ASLEEP);
            desk_.parked().take_back();
            desk_.parked().take_back();
            assert_eq!(desk_.parked().word.load(Ordering::Relaxed), word & !(ASLEEP | LEFT));
        }
    }
}
