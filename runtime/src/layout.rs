//! Every shared word: where it lies, who writes it, who reads it. `docs/layout.md` is the same for people.
//!
//! ```text
//! segment (one incarnation writes, everybody else maps it read-only)
//! 0      header   magic, version, size, swarm, incarnation, counts               supervisor, before anybody maps
//! 128    desk     life · parked · progress · commit · counters                   the incarnation
//! 768             flight recorder: the last messages taken, the last sent
//! 1408            histogram publish → poll
//! ....   records  four slots of the commit record
//! ....   inputs   one line a lane that it reads: cursor mark, counters
//! ....   lanes    two lines a lane that it writes: fixed facts and want │ tail mark, floor, counters
//! ....   state    two slots of the agent's state
//! 4096·k rings    the lanes' cyclic bytes, each a power of two
//! ```
//! A *line* is 128 bytes, two cache lines, because the processor fetches them in pairs: words of different writers or
//! of different cadence never share one. All words are little-endian `u64`.

use crate::fingerprint_of_words;

/// First word of a segment.
pub const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"SHOALseg");
/// First word of a board.
pub const BOARD_MAGIC: u64 = u64::from_le_bytes(*b"SHOALbrd");
/// Layout major version: another major is refused.
pub const MAJOR: u32 = 1;
/// Layout minor version: compatible with the one before.
pub const MINOR: u32 = 5;
/// Major and minor as one word.
pub const VERSION: u64 = (MAJOR as u64) << 32 | MINOR as u64;

/// Distance of words of different writers or cadence.
pub const LINE_BYTES: usize = 128;
/// Rings begin on pages.
pub const PAGE_BYTES: usize = 4096;
/// Segments are sized in these units, which are pages on arm64 too.
pub const SEGMENT_UNIT_BYTES: usize = 64 * 1024;

/// Least capacity of a ring.
pub const CAPACITY_MIN_BYTES: u64 = 4096;
/// Bytes of each of an agent's two state slots.
pub const STATE_BYTES: u32 = 8192;
/// Largest capacity of a ring: a frame is at most half of it and its length has 28 bits.
pub const CAPACITY_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Offsets in the header of a segment.
pub mod header {
    #![expect(missing_docs, reason = "the names are the documentation")]
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const TOTAL_BYTES: usize = 16;
    pub const SWARM: usize = 24;
    pub const AGENT: usize = 32;
    pub const GENERATION: usize = 40;
    pub const LANE_COUNT: usize = 48;
    pub const INPUT_COUNT: usize = 56;
    pub const FINGERPRINT: usize = 64;
    /// The two state slots: offset of the first and size of each in bytes.
    pub const STATE_OFFSET: usize = 72;
    pub const STATE_BYTES: usize = 80;
    /// The flight recorder: offset and size in bytes.
    pub const RECORDER_OFFSET: usize = 88;
    pub const RECORDER_BYTES: usize = 96;
}

/// Offsets in the desk of a segment; the incarnation writes, the readers are named.
pub mod desk {
    use super::LINE_BYTES;
    /// Rarely written: life state. Readers: supervisor.
    pub const LIFE: usize = LINE_BYTES;
    /// CPU that the agent last ran on, plus one. Readers: peers, to judge whether spinning helps.
    pub const CPU: usize = LINE_BYTES + 8;
    /// When this incarnation took or committed its first message, CLOCK_MONOTONIC ns; 0 before. Readers: supervisor.
    pub const FIRST_MESSAGE_NS: usize = LINE_BYTES + 16;
    /// What the agent waits for when it sleeps, see [`crate::desk::Awaits`]. Readers: supervisor.
    pub const AWAITS: usize = LINE_BYTES + 24;
    /// Odd while the agent sleeps or is about to, one more on every change. Readers: linked producers and consumers.
    pub const PARKED: usize = 2 * LINE_BYTES;
    /// Messages let go of: acknowledged, or to be given again. Readers: supervisor.
    pub const PROGRESS: usize = 3 * LINE_BYTES;
    /// Coarse CLOCK_MONOTONIC ns since when a message is held; 0 when none. Readers: supervisor.
    pub const HELD_SINCE_NS: usize = 3 * LINE_BYTES + 8;
    /// Input whose message is held, plus one, and in the upper half which attempt at it this is; 0 when none. Readers:
    /// supervisor.
    pub const HELD_INPUT: usize = 3 * LINE_BYTES + 16;
    /// Position of the held message. Readers: supervisor.
    pub const HELD_POSITION: usize = 3 * LINE_BYTES + 24;
    /// Number of the held message. Readers: supervisor.
    pub const HELD_SEQUENCE: usize = 3 * LINE_BYTES + 40;
    /// Number of the last committed step. Readers: peers before they sleep, supervisor after a death.
    pub const COMMIT: usize = 4 * LINE_BYTES;
    /// Counters, one word each, in the order of [`crate::desk::Counter`]. Readers: supervisor, observers.
    pub const COUNTERS: usize = 5 * LINE_BYTES;
    /// Room for sixteen counters.
    pub const COUNTER_COUNT: usize = 16;
    /// Latency histogram publish → poll. Readers: supervisor, observers.
    pub const HISTOGRAM: usize = 11 * LINE_BYTES;
}

/// Entries of each of the flight recorder's two rings.
pub const RECORDER_ENTRIES: u64 = 16;

/// Offsets in a segment of the flight recorder, see [`crate::recorder`]; the incarnation writes, the supervisor reads.
pub mod recorder {
    use super::{LINE_BYTES, RECORDER_ENTRIES};
    /// An entry: a position, then index, attempt and time in one word.
    pub const ENTRY_BYTES: usize = 16;
    /// The ring of messages taken; entry `step` modulo the entries.
    pub const TAKEN: usize = 6 * LINE_BYTES;
    /// The ring of sends; entry `count` modulo the entries.
    pub const SENT: usize = 8 * LINE_BYTES;
    /// How many sends were noted.
    pub const SENT_COUNT: usize = 10 * LINE_BYTES;
    /// Bytes of all of it.
    pub const BYTES: usize = SENT_COUNT + LINE_BYTES - TAKEN;
    const _: () = assert!(TAKEN + RECORDER_ENTRIES as usize * ENTRY_BYTES == SENT);
    const _: () = assert!(SENT + RECORDER_ENTRIES as usize * ENTRY_BYTES == SENT_COUNT);
}

/// Buckets of the latency histogram.
#[cfg(not(loom))]
pub const HISTOGRAM_BUCKETS: usize = 640;
/// Buckets of the latency histogram: none in models.
#[cfg(loom)]
pub const HISTOGRAM_BUCKETS: usize = 0;

/// Slots of the commit record.
pub const RECORD_SLOTS: u64 = 4;

/// Offsets in one slot of the commit record.
pub mod record {
    #![expect(missing_docs, reason = "the names are the documentation")]
    pub const NUMBER: usize = 0;
    pub const GENERATION: usize = 8;
    pub const COUNT: usize = 16;
    pub const CHECKSUM: usize = 24;
    /// Which state slot holds after this step: 1 or 2.
    pub const STATE_SLOT: usize = 32;
    pub const ENTRIES: usize = 40;
    /// An entry: key (lane or input), position, sequence.
    pub const ENTRY_BYTES: usize = 24;
}

/// Offsets in a mark: a position with its sequence number, replaced by one store.
pub mod mark {
    /// The truth; its sequence stands in the slot that names the same position.
    pub const POSITION: usize = 0;
    /// Two slots of (position, sequence).
    pub const SLOTS: usize = 8;
    /// Bytes of a mark.
    pub const BYTES: usize = 40;
}

/// Offsets in the line of an input.
pub mod input {
    #![expect(missing_docs, reason = "the names are the documentation")]
    /// The cursor mark: everything before it is acknowledged. Readers: the lane's producer, supervisor.
    pub const CURSOR: usize = 0;
    pub const RECEIVED: usize = 40;
    pub const MISSED: usize = 48;
    pub const FAULTS: usize = 56;
    /// Where the lane is shared in a group: numbers, plus one, of the messages that are claimed or about to be; 0 for none.
    /// Readers: supervisor, after a death.
    pub const INTENTS: usize = 64;
    pub const INTENT_COUNT: usize = 8;
}

/// Offsets in the two lines of a lane.
pub mod lane {
    #![expect(missing_docs, reason = "the names are the documentation")]
    use super::LINE_BYTES;
    pub const RING_OFFSET: usize = 0;
    pub const CAPACITY: usize = 8;
    pub const POLICY: usize = 16;
    pub const CHANNEL: usize = 24;
    /// First position of this incarnation's ring: where its predecessor's verdict ended.
    pub const BASE: usize = 32;
    pub const BASE_SEQUENCE: usize = 40;
    /// Fingerprint of the message type, 0 until declared. Readers: consumers, before the first message.
    pub const FINGERPRINT: usize = 48;
    /// Cursor that a blocked producer waits for, 0 when it waits for none. Readers: the lane's consumers, at each ack.
    pub const WANT: usize = 56;
    /// The tail mark: everything before it is committed. Readers: consumers before they sleep, supervisor.
    pub const TAIL: usize = LINE_BYTES;
    /// `drop-oldest`: positions below it may be overwritten. Readers: the lane's consumers.
    pub const FLOOR: usize = LINE_BYTES + 40;
    pub const DROPPED: usize = LINE_BYTES + 48;
    pub const REJECTED: usize = LINE_BYTES + 56;
    pub const BLOCKED: usize = LINE_BYTES + 64;
    /// Bytes of a lane's lines.
    pub const BYTES: usize = 2 * LINE_BYTES;
}

/// What a full ring does.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Hash, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[repr(u64)]
pub enum WhenFull {
    /// The producer waits, with a deadline if it has one.
    #[default]
    Block = 0,
    /// The producer gets an error.
    Reject = 1,
    /// The oldest frames make room; readers are told exactly how many they missed.
    DropOldest = 2,
}

impl WhenFull {
    /// All of them.
    pub fn all() -> [WhenFull; 3] {
        [WhenFull::Block, WhenFull::Reject, WhenFull::DropOldest]
    }

    /// The word for people, and of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            WhenFull::Block => "block",
            WhenFull::Reject => "reject",
            WhenFull::DropOldest => "drop-oldest",
        }
    }
}

/// The fixed facts of a lane that shape its segment.
#[derive(Clone, PartialEq, Eq, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct LaneShape {
    /// Capacity of the ring, a power of two.
    pub capacity_bytes: u64,
    /// What happens when it is full.
    pub when_full: WhenFull,
    /// Index of the channel on the board.
    pub channel: u32,
}

/// The fixed facts from which every offset of a segment follows; the same for all incarnations of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct SegmentShape {
    /// The lanes that the agent writes.
    pub lanes: Vec<LaneShape>,
    /// How many lanes the agent reads.
    pub input_count: u32,
    /// Bytes of each of the two state slots, a multiple of 16; 0 for none.
    pub state_bytes: u32,
}

const fn round_up(value: usize, unit: usize) -> usize {
    value.div_ceil(unit) * unit
}

impl SegmentShape {
    /// Entries that one slot of the commit record can hold: one a lane and one an input, so no step exceeds it.
    pub fn record_entries(&self) -> usize {
        self.lanes.len() + self.input_count as usize
    }

    /// Bytes of one slot of the commit record.
    pub fn record_bytes(&self) -> usize {
        round_up(record::ENTRIES + self.record_entries() * record::ENTRY_BYTES, LINE_BYTES)
    }

    /// Offset of the first slot of the commit record.
    pub fn records_offset(&self) -> usize {
        round_up(desk::HISTOGRAM + HISTOGRAM_BUCKETS * 8, LINE_BYTES)
    }

    /// Offset of the line of an input.
    pub fn input_offset(&self, input: usize) -> usize {
        self.records_offset() + RECORD_SLOTS as usize * self.record_bytes() + input * LINE_BYTES
    }

    /// Offset of the two lines of a lane.
    pub fn lane_offset(&self, lane: usize) -> usize {
        self.input_offset(self.input_count as usize) + lane * lane::BYTES
    }

    /// Offset of the first of the two state slots.
    pub fn state_offset(&self) -> usize {
        self.lane_offset(self.lanes.len())
    }

    /// Offset of the ring of a lane.
    pub fn ring_offset(&self, lane: usize) -> usize {
        let before: u64 = self.lanes[..lane].iter().map(|l| l.capacity_bytes).sum();
        let state_end = self.state_offset() + 2 * self.state_bytes as usize;
        round_up(state_end, RING_ALIGN_BYTES) + before as usize
    }

    /// Bytes of the whole segment.
    pub fn total_bytes(&self) -> usize {
        round_up(self.ring_offset(self.lanes.len()), SEGMENT_TOTAL_UNIT_BYTES)
    }

    /// Bytes that have words of somebody: only they have memory, and are mapped. What follows is a hole up to the whole.
    pub fn used_bytes(&self) -> usize {
        round_up(self.ring_offset(self.lanes.len()), RING_ALIGN_BYTES)
    }

    /// A number that differs when any offset differs.
    pub fn fingerprint(&self) -> u64 {
        let words =
            self.lanes.iter().flat_map(|l| [l.capacity_bytes, l.when_full as u64, u64::from(l.channel)]);
        let head = [VERSION, u64::from(self.input_count), u64::from(self.state_bytes)];
        fingerprint_of_words(head.into_iter().chain(words))
    }
}

#[cfg(not(loom))]
const RING_ALIGN_BYTES: usize = PAGE_BYTES;
#[cfg(not(loom))]
const SEGMENT_TOTAL_UNIT_BYTES: usize = SEGMENT_UNIT_BYTES;
// A model pays for every word, so nothing is padded there.
#[cfg(loom)]
const RING_ALIGN_BYTES: usize = 16;
#[cfg(loom)]
const SEGMENT_TOTAL_UNIT_BYTES: usize = 16;

/// The board: supervisor's words about everybody.
pub mod board {
    #![expect(missing_docs, reason = "the names are the documentation")]
    use super::LINE_BYTES;
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const TOTAL_BYTES: usize = 16;
    pub const SWARM: usize = 24;
    pub const AGENT_COUNT: usize = 32;
    pub const CHANNEL_COUNT: usize = 40;
    /// One more at every change of links, verdicts or states.
    pub const EPOCH: usize = LINE_BYTES;
    pub const CHANNELS: usize = 2 * LINE_BYTES;

    /// Offsets in an agent's line.
    pub const GENERATION: usize = 0;
    pub const STATUS: usize = 8;
    pub const REQUEST: usize = 16;
    pub const LAST_VERDICT: usize = 24;
    pub const AGENT_BYTES: usize = LINE_BYTES;

    /// Verdicts kept for each agent; at least `history` + 2, a power of two.
    #[cfg(not(loom))]
    pub const VERDICT_SLOTS: u64 = 16;
    #[cfg(loom)]
    pub const VERDICT_SLOTS: u64 = 2;
    /// Offsets in a verdict: generation (0 while it is being written), kind, then (position, sequence) a lane and an input.
    pub const VERDICT_GENERATION: usize = 0;
    pub const VERDICT_KIND: usize = 8;
    pub const VERDICT_MARKS: usize = 16;
}

/// The fixed facts from which every offset of a board follows.
#[derive(Clone, PartialEq, Eq, Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct BoardShape {
    /// Channels of the swarm.
    pub channel_count: u32,
    /// For each agent its number of lanes and of inputs.
    pub agents: Vec<(u32, u32)>,
    /// Room for what is added while the swarm runs; none for a board that stays as it is.
    pub room: BoardRoom,
}

/// Room on a board: nothing that has a place moves when something is added.
#[derive(Clone, PartialEq, Eq, Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct BoardRoom {
    /// Channels that there is room for; less than there are: no room but for these.
    pub channels: u32,
    /// Agents that there is room for; likewise.
    pub agents: u32,
    /// Where the verdicts of each agent begin; empty: they follow each other.
    pub verdicts_at: Vec<u64>,
    /// Bytes of the whole board; 0: as many as are used.
    pub total_bytes: u64,
}

/// Channels and agents that a board has room for beyond those that it begins with.
const BOARD_ROOM: u32 = 64;
/// Bytes of verdicts that it has room for, at least; else as many as it begins with.
const BOARD_ROOM_BYTES: usize = 2 * SEGMENT_UNIT_BYTES;

impl BoardShape {
    /// A board for a swarm that may grow while it runs.
    pub fn with_room(channel_count: u32, agents: Vec<(u32, u32)>) -> BoardShape {
        let room = BoardRoom {
            channels: channel_count + BOARD_ROOM,
            agents: agents.len() as u32 + BOARD_ROOM,
            ..BoardRoom::default()
        };
        let mut shape = BoardShape { channel_count, agents, room };
        let offsets = shape.verdict_offsets();
        let used = offsets.last().map_or(0, |end| end - offsets[0]);
        shape.room.total_bytes = (shape.total_bytes() + used.max(BOARD_ROOM_BYTES)) as u64;
        shape.room.verdicts_at = offsets.iter().take(shape.agents.len()).map(|&at| at as u64).collect();
        shape
    }

    /// The same board with so many channels and these agents: the first are those that it has. Verdicts of an agent whose number
    /// of lanes or inputs changes get a new place. `None` when there is not enough room.
    pub fn grown(&self, channel_count: u32, agents: Vec<(u32, u32)>) -> Option<BoardShape> {
        let mut end = self.verdict_offsets().last().copied().unwrap_or(0);
        let mut shape = BoardShape { channel_count, agents, room: self.room.clone() };
        for agent in 0..shape.agents.len() {
            if self.agents.get(agent) == Some(&shape.agents[agent]) {
                continue;
            }
            match shape.room.verdicts_at.get_mut(agent) {
                Some(at) => *at = end as u64,
                None => shape.room.verdicts_at.push(end as u64),
            }
            end = shape.verdicts_end(end, agent);
        }
        let fits = channel_count <= self.room.channels
            && shape.agents.len() <= self.room.agents as usize
            && end as u64 <= self.room.total_bytes;
        fits.then_some(shape)
    }

    fn verdicts_end(&self, at: usize, agent: usize) -> usize {
        round_up(at + board::VERDICT_SLOTS as usize * self.verdict_bytes(agent), LINE_BYTES)
    }

    pub(crate) fn channel_offset(&self, channel: usize) -> usize {
        board::CHANNELS + channel * 8
    }

    pub(crate) fn agent_offset(&self, agent: usize) -> usize {
        let channels = self.channel_count.max(self.room.channels);
        round_up(self.channel_offset(channels as usize), LINE_BYTES) + agent * board::AGENT_BYTES
    }

    fn marks(&self, agent: usize) -> usize {
        (self.agents[agent].0 + self.agents[agent].1) as usize
    }

    fn verdict_bytes(&self, agent: usize) -> usize {
        board::VERDICT_MARKS + self.marks(agent) * 16
    }

    /// Offsets of the verdicts of all agents, and the end behind the last.
    pub(crate) fn verdict_offsets(&self) -> Vec<usize> {
        let mut end = self.agent_offset(self.agents.len().max(self.room.agents as usize));
        let mut offsets = Vec::with_capacity(self.agents.len() + 1);
        for agent in 0..self.agents.len() {
            let at = self.room.verdicts_at.get(agent).map_or(end, |&at| at as usize);
            offsets.push(at);
            end = end.max(self.verdicts_end(at, agent));
        }
        offsets.push(end);
        offsets
    }

    pub(crate) fn verdict_slot_offset(&self, first: usize, agent: usize, generation: u32) -> usize {
        first + (u64::from(generation) % board::VERDICT_SLOTS) as usize * self.verdict_bytes(agent)
    }

    /// Bytes of the whole board.
    pub fn total_bytes(&self) -> usize {
        if self.room.total_bytes > 0 {
            return self.room.total_bytes as usize;
        }
        let end = self.verdict_offsets().last().copied().unwrap_or(0);
        round_up(end, SEGMENT_TOTAL_UNIT_BYTES)
    }
}

const _: () = assert!(mark::SLOTS + 32 == mark::BYTES);
const _: () = assert!(input::CURSOR + mark::BYTES == input::RECEIVED && input::FAULTS < input::INTENTS);
const _: () = assert!(input::INTENTS + input::INTENT_COUNT * 8 <= LINE_BYTES);
const _: () = assert!(
    lane::WANT < LINE_BYTES && lane::TAIL + mark::BYTES == lane::FLOOR && lane::BLOCKED < lane::BYTES
);
const _: () = assert!(desk::COUNTERS + desk::COUNTER_COUNT * 8 <= recorder::TAKEN);
const _: () = assert!(recorder::TAKEN + recorder::BYTES <= desk::HISTOGRAM);
const _: () = assert!(header::RECORDER_BYTES < desk::LIFE && board::CHANNEL_COUNT < board::EPOCH);
const _: () = assert!(CAPACITY_MAX_BYTES / 2 <= 1 << 28);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn shape(lanes: &[u64], input_count: u32) -> SegmentShape {
        let lanes =
            lanes.iter().map(|&c| LaneShape { capacity_bytes: c, when_full: WhenFull::Block, channel: 0 });
        SegmentShape { lanes: lanes.collect(), input_count, state_bytes: 4096 }
    }

    #[test]
    fn parts_of_a_segment_follow_each_other_without_overlap() {
        for (lanes, inputs) in [(vec![], 0), (vec![4096], 3), (vec![4096, 1 << 20, 8192], 100)] {
            let s = shape(&lanes, inputs);
            assert!(s.records_offset() >= desk::HISTOGRAM + HISTOGRAM_BUCKETS * 8);
            assert_eq!(s.input_offset(0), s.records_offset() + 4 * s.record_bytes());
            for (lane, capacity) in lanes.iter().enumerate() {
                assert!(s.lane_offset(lane) + lane::BYTES <= s.ring_offset(0));
                assert_eq!(s.ring_offset(lane) % PAGE_BYTES, 0);
                assert!(s.ring_offset(lane) + *capacity as usize <= s.ring_offset(lane + 1));
            }
            assert_eq!(s.total_bytes() % SEGMENT_UNIT_BYTES, 0);
        }
    }

    #[test]
    fn board_with_room_grows_in_place_until_it_is_full() {
        let first = BoardShape::with_room(2, vec![(1, 0), (2, 3)]);
        let areas = |shape: &BoardShape| {
            let offsets = shape.verdict_offsets();
            let area = |agent: usize| (offsets[agent], shape.verdicts_end(offsets[agent], agent));
            (0..shape.agents.len()).map(area).collect::<Vec<_>>()
        };
        let next = first.grown(5, vec![(1, 4), (2, 3), (1, 1), (0, 9)]).expect("it fits");
        assert_eq!(
            (first.channel_offset(1), first.agent_offset(1)),
            (next.channel_offset(1), next.agent_offset(1))
        );
        assert_eq!(first.total_bytes(), next.total_bytes());
        assert_eq!(areas(&first)[1], areas(&next)[1], "who does not change keeps its place");
        let mut all = areas(&next);
        all.push(areas(&first)[0]);
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].0), "no two overlap: {all:?}");
        assert!(all[0].0 >= next.agent_offset(next.room.agents as usize));
        assert!(all.last().is_some_and(|last| last.1 <= next.total_bytes()));
        assert_eq!(next.grown(5, next.agents.clone()), Some(next.clone()));
        assert_eq!(next.grown(first.room.channels + 1, next.agents.clone()), None);
        assert_eq!(next.grown(5, vec![(1, 1); first.room.agents as usize + 1]), None);
        assert_eq!(next.grown(5, vec![(100, 900); 4]), None);
    }

    #[test]
    fn fingerprint_differs_when_a_capacity_or_a_count_differs() {
        let prints = [shape(&[4096], 1), shape(&[8192], 1), shape(&[4096], 2), shape(&[4096, 4096], 1)];
        for (i, a) in prints.iter().enumerate() {
            for b in &prints[i + 1..] {
                assert_ne!(a.fingerprint(), b.fingerprint());
            }
        }
    }
}
