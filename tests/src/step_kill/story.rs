//! What the agent of a scenario shall do: every message that it takes and sends, known before it runs.
//!
//! Payloads carry forged headers wherever a later lap begins a frame, so a reader that looks where nothing was published
//! finds something that it would believe if the protocol let it.

use shoal_runtime::cursor::{self, HEADER_BYTES};
use shoal_runtime::frame::{EXTENSION_BYTES, Facts, Kind};
use shoal_runtime::mark::Place;

/// Capacity of the worker's lanes: small, so that laps end inside the stepped section.
pub const RING_BYTES: u64 = 4096;
/// Capacity of the source's lane, which holds every input at once.
pub const SOURCE_RING_BYTES: u64 = 64 * 1024;
/// Every so many messages a frame carries its time, and is longer.
const STAMP_EVERY: u64 = 64;
/// Bytes of each state slot.
pub const STATE_SLOT_BYTES: u32 = 272;
/// Fingerprint that the state's type is given.
pub const STATE_FINGERPRINT: u64 = 0x5_7a7e;
/// Number of the first message of each lane, so that a stamped one comes soon.
const FIRST_SEQUENCE: u64 = 50;
/// Bytes that the warm steps put on a lane at the most: readers acknowledge only after them, and the section shall come to
/// what they wrote.
const WARM_BYTES_MAX: u64 = 3700;
/// Steps before the section at the most.
const WARM_STEPS_MAX: u64 = 16;

/// A message as it shall be.
#[derive(Debug)]
pub struct Message {
    /// The step that sends it, or answers it.
    pub step: u64,
    /// Where it lies.
    pub at: Place,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// All messages of a lane, in order.
#[derive(Debug)]
pub struct Row {
    /// Where the lane begins.
    pub base: Place,
    /// Where its last message ends.
    pub end: u64,
    messages: Vec<Message>,
}

/// How an agent acknowledges and sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Through `Outputs::commit`, as agents do.
    Step,
    /// Through `Consumer::ack`, for inputs without outputs.
    PlainAck,
}

/// A scenario's script.
#[derive(Debug)]
pub struct Story {
    /// Its name, for the report.
    pub name: &'static str,
    /// How messages are acknowledged.
    pub manner: Manner,
    /// Messages of the input; `None` without an input.
    pub input: Option<Row>,
    /// Messages of each lane.
    pub lanes: Vec<Row>,
    /// Whether the agent has a state.
    pub stateful: bool,
    /// Steps before the section that is stepped.
    pub warm: u64,
    /// Steps in that section.
    pub stepped: u64,
    /// Steps in all.
    pub total: u64,
}

impl Story {
    /// Receive, handle, send on two lanes, commit, publish, acknowledge, ring.
    pub fn step(stepped: u64) -> Self {
        let frames = |lane: usize, step: u64| match lane {
            0 => u64::from(step % 5 != 4),
            _ => step % 3,
        };
        Self::build("step", Manner::Step, |_| 1, 2, stepped, frames)
    }

    /// Takes up to four messages in a step, sends on a lane, keeps a state: one record and one acknowledgement for all of them.
    pub fn several(stepped: u64) -> Self {
        Self::build("several", Manner::Step, |step| 1 + (step + 2) % 4, 1, stepped, |_, step| step % 3)
    }

    /// Sends without an input, now on two lanes, now on one: committed now by a record, now by a tail mark.
    pub fn mixed(stepped: u64) -> Self {
        let frames = |lane: usize, step: u64| if lane == 0 { 1 } else { step % 2 };
        Self::build("mixed", Manner::Step, |_| 0, 2, stepped, frames)
    }

    /// Sends without an input: one lane, committed by its tail mark alone.
    pub fn send(stepped: u64) -> Self {
        Self::build("send", Manner::Step, |_| 0, 1, stepped, |_, step| 1 + u64::from(step % 3 == 2))
    }

    /// Acknowledges without an output, up to three messages in a step.
    pub fn ack(stepped: u64) -> Self {
        Self::build("ack", Manner::Step, |step| 1 + step % 3, 0, stepped, |_, _| 0)
    }

    /// Acknowledges outside of a step.
    pub fn plain_ack(stepped: u64) -> Self {
        Self::build("plain-ack", Manner::PlainAck, |_| 1, 0, stepped, |_, _| 0)
    }

    fn build(
        name: &'static str,
        manner: Manner,
        takes: impl Fn(u64) -> u64,
        lanes: usize,
        stepped: u64,
        frames: impl Fn(usize, u64) -> u64,
    ) -> Self {
        let base = |lap: u64, back: u64, capacity: u64| Place {
            position: lap * capacity - back,
            sequence: FIRST_SEQUENCE,
        };
        let rows = |total: u64| -> Vec<Row> {
            let plan = |lane: usize| {
                let base = base(2 + lane as u64, 960 + 320 * lane as u64, RING_BYTES);
                Row::plan(base, (RING_BYTES, false), lane as u64, 0..total, |step| frames(lane, step))
            };
            (0..lanes).map(plan).collect()
        };
        let fits = |steps: &u64| rows(*steps).iter().all(|row| row.end - row.base.position <= WARM_BYTES_MAX);
        let warm = (0..=WARM_STEPS_MAX).take_while(fits).last().unwrap_or(0);
        let total = warm + stepped + 3;
        let input_base = base(3, 640, SOURCE_RING_BYTES);
        let input =
            (takes(0) > 0).then(|| Row::plan(input_base, (SOURCE_RING_BYTES, true), 7, 0..total, takes));
        Story {
            name,
            manner,
            input,
            lanes: rows(total),
            stateful: ["step", "several"].contains(&name),
            warm,
            stepped,
            total,
        }
    }

    /// Whether a step changes the state.
    pub fn changes_state(&self, step: u64) -> bool {
        self.stateful && step % 4 != 3
    }

    /// The state before a step; empty while there is none.
    pub fn state_at(&self, step: u64) -> Vec<u8> {
        let last = (0..step).rev().find(|&step| self.changes_state(step));
        last.map_or_else(Vec::new, |step| {
            (0..24 + step * 37 % 200).map(|i| (step * 31 + i * 7) as u8 | 1).collect()
        })
    }

    /// The step that comes when the lanes and the input stand at these numbers; `None` when they fit no step.
    pub fn step_at(&self, lanes: &[u64], input: Option<u64>) -> Option<u64> {
        (0..=self.total).find(|&step| {
            let lanes_fit = self.lanes.iter().zip(lanes).all(|(row, &at)| row.sequence_at(step) == at);
            let input_fits = match (&self.input, input) {
                (Some(row), Some(at)) => row.sequence_at(step) == at,
                _ => true,
            };
            lanes_fit && input_fits
        })
    }
}

impl Row {
    /// So many messages a step. Where they are read `together`, a step ends before one that carries its time or begins a lap: such
    /// are not taken along.
    pub(super) fn plan(
        base: Place,
        (capacity, together): (u64, bool),
        salt: u64,
        steps: std::ops::Range<u64>,
        frames: impl Fn(u64) -> u64,
    ) -> Row {
        let mut messages = Vec::new();
        let mut places = Vec::new();
        let mut at = base;
        for step in steps {
            for i in 0..frames(step) {
                let mut mix = (at.sequence + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt << 32;
                let len = 40 + (mix >> 40) % 300;
                let payload: Vec<u8> = (0..len)
                    .map(|_| {
                        mix = mix
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (mix >> 56) as u8 | 1
                    })
                    .collect();
                let extension = if at.sequence.is_multiple_of(STAMP_EVERY) { EXTENSION_BYTES } else { 0 };
                let placed = cursor::place(at.position, cursor::frame_bytes(len + extension), capacity);
                let behind_another = extension == 0 && placed.position == at.position;
                if together && i > 0 && !behind_another {
                    break;
                }
                places.push((at, placed.position + HEADER_BYTES + extension));
                messages.push(Message { step, at: Place { position: placed.position, ..at }, payload });
                at = Place { position: placed.end, sequence: at.sequence + 1 };
            }
        }
        for (message, (_, begin)) in messages.iter_mut().zip(&places) {
            for (later, _) in &places {
                forge(&mut message.payload, *begin, *later, capacity);
            }
        }
        Row { base, end: at.position, messages }
    }

    /// Number of the next message before a step.
    pub fn sequence_at(&self, step: u64) -> u64 {
        self.base.sequence + self.messages.iter().filter(|m| m.step < step).count() as u64
    }

    /// A message by its number.
    pub fn message(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(sequence.checked_sub(self.base.sequence)? as usize)
    }

    /// The messages of a step.
    pub fn of_step(&self, step: u64) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |m| m.step == step)
    }

    /// All messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }
}

/// Puts a header for `later` where its lap's predecessor lies inside this payload.
fn forge(payload: &mut [u8], begin: u64, later: Place, capacity: u64) {
    let Some(at) = later.position.checked_sub(capacity).and_then(|before| before.checked_sub(begin)) else {
        return;
    };
    let Some(bytes) = payload.get_mut(at as usize..at as usize + 16) else { return };
    let facts = Facts { len: 8, kind: Kind::Message, extended: false, sequence: later.sequence as u32 };
    bytes[..8].copy_from_slice(&later.position.to_le_bytes());
    bytes[8..].copy_from_slice(&facts.pack().to_le_bytes());
}
