//! What a member of a group does with each message that it happens to claim, known before anybody runs.
//!
//! Which member is given a message is not known: so every output names the message that it was sent for, and the worker's state
//! is the set of messages that it consumed.

use super::super::story::{RING_BYTES, Row};
use shoal_runtime::mark::Place;

/// Capacity of the source's lane: it, and the claim table of as many entries as frames may fit, begin anew inside the section.
pub const SOURCE_RING_BYTES: u64 = 4096;
/// Number of the first message: the table's next lap begins inside the section.
pub const FIRST_SEQUENCE: u64 = 50;
/// Messages in all: more than two rings of them.
const TOTAL: u64 = 48;
const HEAD_BYTES: usize = 24;

/// A scenario's script.
#[derive(Debug)]
pub struct GroupStory {
    /// Its name, for the report.
    pub name: &'static str,
    /// Lanes that the worker sends on: with none it has no state either, and acknowledges only.
    pub lanes: usize,
    /// Messages that the worker may hold at once.
    pub prefetch: usize,
    /// Messages before the section that is stepped; none: the section begins with its birth.
    pub warm: u64,
    /// Messages in that section.
    pub stepped: u64,
    /// What the source sends.
    pub input: Row,
    /// What the worker sends: of each lane, for each input.
    outputs: Vec<Vec<Vec<Vec<u8>>>>,
}

impl GroupStory {
    /// A member that claims, handles, sends on two lanes, keeps state, commits, settles.
    pub fn step(stepped: u64) -> Self {
        Self::of("group", 2, 1, 10, stepped)
    }

    /// The same, from before it maps its segment.
    pub fn birth() -> Self {
        Self::of("group-birth", 2, 1, 0, 2)
    }

    /// The same with two messages held at once.
    pub fn prefetch(stepped: u64) -> Self {
        Self::of("group-prefetch", 2, 2, 10, stepped)
    }

    /// A member that only acknowledges, now by a step, now outside of one.
    pub fn ack(stepped: u64) -> Self {
        Self::of("group-ack", 0, 1, 10, stepped)
    }

    fn of(name: &'static str, lanes: usize, prefetch: usize, warm: u64, stepped: u64) -> Self {
        let base = Place { position: 3 * SOURCE_RING_BYTES - 640, sequence: FIRST_SEQUENCE };
        let input = Row::plan(base, (SOURCE_RING_BYTES, false), 7, 0..TOTAL, |_| 1);
        let of_input = |lane: usize, sequence: u64| {
            let count = if lane == 0 { u64::from(sequence % 5 != 4) } else { sequence % 3 };
            (0..count).map(|nth| output(lane, sequence, nth)).collect()
        };
        let of_lane =
            |lane: usize| (FIRST_SEQUENCE..FIRST_SEQUENCE + TOTAL).map(|s| of_input(lane, s)).collect();
        let outputs = (0..lanes).map(of_lane).collect();
        GroupStory { name, lanes, prefetch, warm, stepped, input, outputs }
    }

    /// Number behind the last message.
    pub fn end(&self) -> u64 {
        FIRST_SEQUENCE + TOTAL
    }

    /// Where a lane of the worker begins.
    pub fn lane_base(&self, lane: usize) -> Place {
        let position = (2 + lane as u64) * RING_BYTES - 960 - 320 * lane as u64;
        Place { position, sequence: FIRST_SEQUENCE }
    }

    /// What the worker sends on a lane for an input, in order.
    pub fn outputs(&self, lane: usize, sequence: u64) -> &[Vec<u8>] {
        &self.outputs[lane][(sequence - FIRST_SEQUENCE) as usize]
    }

    /// The input for which, and the place among its outputs at which, a message was sent.
    ///
    /// # Errors
    /// It is none of a lane's.
    pub fn read_output(&self, lane: usize, bytes: &[u8]) -> Result<(u64, u64), String> {
        let word =
            |i: usize| bytes.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let (Some(sequence), Some(nth)) = (word(0), word(1)) else {
            return Err(format!(
                "a message of lane {lane} has {} bytes, less than {HEAD_BYTES}",
                bytes.len()
            ));
        };
        let known = (FIRST_SEQUENCE..self.end()).contains(&sequence);
        if known && self.outputs(lane, sequence).get(nth as usize).is_some_and(|output| bytes == output) {
            Ok((sequence, nth))
        } else {
            Err(format!("lane {lane} shows bytes that nobody was to send, for input {sequence}"))
        }
    }
}

/// The bytes of one output: what it is, and then what depends on that.
fn output(lane: usize, sequence: u64, nth: u64) -> Vec<u8> {
    let mut mix = (sequence << 8 | nth << 4 | lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes: Vec<u8> = [sequence, nth, lane as u64].iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.extend((0..16 + (mix >> 40) % 200).map(|_| {
        mix = mix.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (mix >> 56) as u8
    }));
    bytes
}

/// The worker's state: how many messages it consumed, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Consumed {
    /// How many.
    pub count: u64,
    bits: u64,
}

impl Consumed {
    /// Adds a message; a second time shows in the count.
    pub fn add(&mut self, sequence: u64) {
        self.count += 1;
        self.bits |= 1 << (sequence - FIRST_SEQUENCE);
    }

    /// Whether it was consumed.
    pub fn has(&self, sequence: u64) -> bool {
        self.bits >> (sequence - FIRST_SEQUENCE) & 1 == 1
    }

    /// Whether none was consumed twice.
    pub fn each_once(&self) -> bool {
        self.count == u64::from(self.bits.count_ones())
    }

    /// As bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.bits) << 64 | u128::from(self.count)).to_le_bytes()
    }

    /// From bytes; nothing consumed from none.
    ///
    /// # Errors
    /// They are no state.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self, String> {
        let Some(bytes) = bytes else { return Ok(Consumed::default()) };
        let word = bytes.try_into().map(u128::from_le_bytes).map_err(|_| format!("a state of {bytes:x?}"))?;
        Ok(Consumed { count: word as u64, bits: (word >> 64) as u64 })
    }
}

/// What a member noted of a message while it worked on it; the judge compares it with what shared memory says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Event {
    /// It was given it.
    Received,
    /// It is about to say that it is in hand.
    Holding,
    /// It has said so.
    Held,
    /// It is about to commit.
    Committing,
    /// The commit returned.
    Committed,
}

impl Event {
    /// As an entry of a diary.
    pub fn entry(self, sequence: u64) -> u64 {
        sequence << 3 | self as u64
    }

    /// From an entry of a diary.
    pub fn of(entry: u64) -> (Event, u64) {
        let all = [Event::Received, Event::Holding, Event::Held, Event::Committing, Event::Committed];
        (all[(entry & 7) as usize], entry >> 3)
    }
}
