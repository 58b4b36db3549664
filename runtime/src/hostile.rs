//! What a hostile writer can put before those who read its memory: bytes become stores into a peer's segment and looks at it.
//!
//! For tests and the fuzz target only. Everything is real but the processes: segments on the heap, a board, links, a
//! [`Consumer`] and a [`Producer`]. The rules that are asserted: nobody panics, no payload lies outside of its ring, no
//! cursor goes back, no look goes on for ever.

use crate::board::{Board, BoardWriter, Verdict, VerdictKind};
use crate::commit::{Committer, Key};
use crate::consumer::{Consumer, InputEnd, Polled};
use crate::cursor::{FRAME_ALIGN_BYTES, first_position};
use crate::doorbell::Doorbell;
use crate::frame::{self, Facts, Kind};
use crate::incarnation::{Incarnation, PeerFault};
use crate::layout::{BoardShape, LaneShape, SegmentShape, WhenFull, desk, input, lane};
use crate::links::{Link, Links, Neighbour, Port};
use crate::mark::{self, Place};
use crate::producer::{Claimed, Producer, ReaderEnd};
use crate::region::Region;
use crate::segment::{self, Origin};
use crate::sync::Ordering;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Frames that one look may take at most: more than any ring here holds.
const FRAMES_MAX: usize = 2 * CAPACITY as usize / FRAME_ALIGN_BYTES as usize;
/// Bytes of the rings.
pub const CAPACITY: u64 = 4096;

const LIAR: Incarnation = Incarnation { agent: 0, generation: 1 };
const VICTIM: Incarnation = Incarnation { agent: 1, generation: 1 };

/// Links that are already here; nobody sleeps.
pub(crate) struct Arrived(pub(crate) Vec<Link>);

impl Port for Arrived {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(std::mem::take(&mut self.0))
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }
}

/// One liar and one victim, each reading the other's lane 1 of two, so that a ring has neighbours on both sides.
pub struct Scene {
    liar: Region,
    liar_shape: Arc<SegmentShape>,
    own: Region,
    own_shape: Arc<SegmentShape>,
    board: BoardWriter,
    links: Links,
    consumer: Consumer,
    producer: Producer,
    committer: Committer,
    end: InputEnd,
    /// What came of it, so that a test can see that it did not only knock at closed doors.
    pub seen: Seen,
}

/// Outcomes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames that were believed.
    pub frames: u64,
    /// Faults of the liar's lane.
    pub lane_faults: u64,
    /// Faults of the liar's cursor.
    pub cursor_faults: u64,
    /// Messages counted as missed.
    pub missed: u64,
}

const LANE: usize = 1;
const LANE_COUNT: usize = 3;

fn shape(when_full: WhenFull) -> Arc<SegmentShape> {
    let lane = LaneShape { capacity_bytes: CAPACITY, when_full, channel: 0 };
    Arc::new(SegmentShape { lanes: vec![lane; LANE_COUNT], input_count: 1, state_bytes: 0 })
}

impl Scene {
    /// A scene whose lanes begin in the `lap`-th lap.
    ///
    /// # Panics
    /// Without descriptors for a doorbell.
    pub fn new(when_full: WhenFull, share: (u32, u32), lap: u64) -> Self {
        let first = Place { position: first_position(CAPACITY) + lap * CAPACITY, sequence: lap * 3 };
        let (liar_shape, own_shape) = (shape(when_full), shape(WhenFull::Block));
        let origin = |incarnation| Origin {
            swarm: 1,
            incarnation,
            lanes: vec![first; LANE_COUNT],
            inputs: vec![first],
            state: Vec::new(),
        };
        let (liar, own) =
            (segment::heap(&liar_shape, &origin(LIAR)), segment::heap(&own_shape, &origin(VICTIM)));
        let board_shape =
            BoardShape { channel_count: 1, agents: vec![(LANE_COUNT as u32, 1); 2], ..BoardShape::default() };
        let region = Region::heap(board_shape.total_bytes());
        let board = BoardWriter::create(region, board_shape, 1);
        board.publish_generation(LIAR);
        let view: Board = board.view().clone();
        let mut links = Links::new(view, vec![Neighbour::new(LIAR.agent, liar_shape.clone(), true)]);
        let doorbell = Doorbell::create().unwrap_or_else(|e| panic!("a doorbell: {e}"));
        let arrived = links.sync(&mut Arrived(vec![Link::new(LIAR, liar.clone(), doorbell)]));
        arrived.unwrap_or_else(|e| panic!("a link: {e}"));
        let end = InputEnd { neighbour: 0, lane: LANE, share };
        let consumer = Consumer::open(own.clone(), &own_shape, 0, end.clone(), liar_shape.clone());
        let readers = vec![ReaderEnd::new(0, 0, (0, 1))];
        let producer = Producer::open(own.clone(), &own_shape, LANE, readers);
        let committer = Committer::new(&liar, &liar_shape, 1);
        let seen = Seen::default();
        let mut scene = Scene {
            liar,
            liar_shape,
            own,
            own_shape,
            board,
            links,
            consumer,
            producer,
            committer,
            end,
            seen,
        };
        scene.consumer.sync(&mut scene.links);
        scene
    }

    fn store(&self, offset: usize, word: u64) {
        // Relaxed: one thread.
        self.liar.word(offset).store(word, Ordering::Relaxed);
    }

    fn ring_offset(&self, position: u64) -> usize {
        self.liar_shape.ring_offset(LANE) + (position & (CAPACITY - 1)) as usize
    }

    fn lane_offset(&self) -> usize {
        self.liar_shape.lane_offset(LANE)
    }

    /// Where the victim reads next.
    pub fn at(&self) -> Place {
        self.consumer.at()
    }

    /// A header at the victim's next position: the right commit word, and whatever facts.
    pub fn header(&self, facts: u64) {
        self.header_at(self.at().position, facts);
    }

    fn header_at(&self, position: u64, facts: u64) {
        let at = self.ring_offset(position & !(FRAME_ALIGN_BYTES - 1));
        self.store(at + frame::FACTS, facts);
        self.store(at + frame::POSITION, position);
    }

    /// The tail mark, whole.
    pub fn tail(&self, place: Place) {
        for (i, word) in mark::image(place).into_iter().enumerate() {
            self.store(self.lane_offset() + lane::TAIL + i * 8, word);
        }
    }

    /// A sound record that says something impossible.
    pub fn record(&mut self, key: Key, place: Place) {
        self.committer.commit(&[(key, place)]);
    }

    /// The floor of a drop-oldest lane.
    pub fn floor(&self, position: u64) {
        self.store(self.lane_offset() + lane::FLOOR, position);
    }

    /// The cursor in the victim's lane, whole.
    pub fn cursor(&self, place: Place) {
        for (i, word) in mark::image(place).into_iter().enumerate() {
            self.store(self.liar_shape.input_offset(0) + input::CURSOR + i * 8, word);
        }
    }

    /// Any word of the liar's segment.
    pub fn scribble(&self, offset: usize, word: u64) {
        self.store((offset % self.liar.len_bytes()) & !7, word);
    }

    /// A verdict as the supervisor gives it: at most one ring, and one message per 16 bytes, ahead.
    pub fn verdict(&mut self, ahead: u64, kind: VerdictKind) {
        let at = self.at();
        let ahead = (ahead % (CAPACITY + 1)) & !(FRAME_ALIGN_BYTES - 1);
        let end = Place { position: at.position + ahead, sequence: at.sequence + ahead / FRAME_ALIGN_BYTES };
        let verdict = Verdict { generation: 1, kind, lanes: vec![end; LANE_COUNT], inputs: vec![end] };
        self.board.verdict(LIAR.agent, &verdict);
        self.board.announce();
        let _ = self.links.sync(&mut Arrived(Vec::new()));
        self.consumer.sync(&mut self.links);
    }

    /// The victim forgets that it cut the liar off, as its next incarnation does.
    pub fn reopen(&mut self) {
        self.consumer =
            Consumer::open(self.own.clone(), &self.own_shape, 0, self.end.clone(), self.liar_shape.clone());
        self.consumer.sync(&mut self.links);
    }

    /// The victim reads all that there is, as an agent does: polls, confirms before it would sleep, reads payloads in place.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn read(&mut self) {
        for looks in 0.. {
            assert!(looks <= FRAMES_MAX, "a look at a liar's lane goes on for ever");
            let before = self.consumer.at();
            let mut polled = self.consumer.poll();
            if polled == Polled::Empty {
                polled = match self.consumer.confirm() {
                    Ok(true) => self.consumer.poll(),
                    Ok(false) => Polled::Empty,
                    Err(fault) => Polled::Fault(fault),
                };
            }
            self.consumer.publish_skipped(true);
            let after = self.consumer.at();
            assert!(after.position >= before.position && after.sequence >= before.sequence);
            assert!(after.position.is_multiple_of(FRAME_ALIGN_BYTES));
            match polled {
                Polled::Frame(frame) => self.take(&frame),
                Polled::Fault(PeerFault { incarnation, .. }) => {
                    assert_eq!(incarnation, LIAR);
                    self.seen.lane_faults += 1;
                }
                Polled::Empty => break,
            }
        }
        self.seen.missed += self.consumer.missed();
        let (_, cursor) = self.consumer.split();
        self.links.fence();
        cursor.ring_if_wanted(&mut self.links);
        let _ = self.consumer.fingerprint();
        let _ = crate::desk::view(&self.liar);
    }

    fn take(&mut self, frame: &crate::consumer::Frame) {
        let ring = &raw const *self.liar.word(self.liar_shape.ring_offset(LANE)) as usize;
        let dropping = self.liar_shape.lanes[LANE].when_full == WhenFull::DropOldest;
        let (sources, _) = self.consumer.split();
        if sources.lease(frame) {
            let payload = sources.leased(frame);
            let (at, len) = (payload.as_ptr() as usize, payload.len());
            assert_eq!(len, frame.len_bytes());
            assert!(len as u64 <= CAPACITY / 2);
            assert!(dropping || (at >= ring && at + len <= ring + CAPACITY as usize));
            let mut copy = vec![0; len];
            sources.copy_payload(frame, &mut copy);
            assert_eq!(copy, payload);
        }
        self.seen.frames += 1;
        self.consumer.ack(frame);
    }

    /// The victim sends as much as it is let, with the liar as its only reader.
    ///
    /// # Panics
    /// When a rule is broken.
    pub fn send(&mut self, len: u64) {
        for sends in 0.. {
            assert!(sends <= FRAMES_MAX, "a full ring took more than it holds");
            match self.producer.claim(len % 3000, &self.links) {
                Claimed::Space(claim) => {
                    self.producer.fill(&claim, &vec![7; claim.len as usize]);
                    self.producer.finish(claim, claim.len, None);
                    self.producer.publish();
                }
                Claimed::Full { want } => {
                    self.producer.want(want, &mut self.links);
                    break;
                }
                Claimed::Never => break,
            }
        }
        self.producer.ring_readers(&mut self.links, false);
        for fault in self.producer.take_faults() {
            assert_eq!(fault.incarnation, LIAR);
            self.seen.cursor_faults += 1;
        }
    }
}

/// Plays a row of bytes: what a liar stores, and when its victim looks. Returns what came of it.
///
/// # Panics
/// When a rule is broken.
pub fn play(bytes: &[u8]) -> Seen {
    let mut rest = Bytes(bytes);
    let setting = rest.byte();
    let when_full = [WhenFull::Block, WhenFull::DropOldest, WhenFull::Reject][usize::from(setting) % 3];
    let share = [(0, 1), (1, 3), (2, 7)][usize::from(setting / 3) % 3];
    let mut scene = Scene::new(when_full, share, u64::from(setting / 9));
    while !rest.0.is_empty() {
        one(&mut scene, &mut rest);
    }
    scene.read();
    scene.send(40);
    scene.seen
}

fn one(scene: &mut Scene, bytes: &mut Bytes<'_>) {
    let at = scene.at();
    match bytes.byte() % 16 {
        0 => scene.header(bytes.word()),
        1 => scene.header_at(at.position + bytes.slot(), bytes.word()),
        // A header that passes every check but perhaps one, so that play goes deep.
        2..=4 => {
            let (position, sequence) = (at.position, at.sequence.wrapping_add(bytes.rarely()) as u32);
            let room = CAPACITY - (position & (CAPACITY - 1));
            let choice = bytes.byte();
            let padding = choice.is_multiple_of(8);
            let len = if padding { room - 16 } else { u64::from(choice) * 8 };
            let kind = if padding { Kind::Padding } else { Kind::Message };
            let facts =
                Facts { len: len.wrapping_add(bytes.rarely()), kind, extended: choice & 64 != 0, sequence };
            scene.header(facts.pack());
        }
        5 => scene.tail(Place { position: at.position.wrapping_add(bytes.slot()), sequence: bytes.word() }),
        6 => scene.tail(Place { position: bytes.word(), sequence: bytes.word() }),
        7 => {
            let position =
                if bytes.byte() & 1 == 0 { at.position.wrapping_add(bytes.slot()) } else { bytes.word() };
            let key = if bytes.byte() & 3 == 0 { Key::Input(0) } else { Key::Lane(LANE) };
            scene.record(key, Place { position, sequence: bytes.word() });
        }
        8 => scene.floor(at.position.wrapping_add(bytes.slot())),
        9 => scene.floor(bytes.word()),
        10 => scene.cursor(Place { position: at.position.wrapping_add(bytes.slot()), sequence: 0 }),
        11 => {
            let offset = bytes.word() as usize;
            scene.scribble(offset, bytes.word());
        }
        12 => {
            let words = [desk::PARKED, desk::COMMIT, desk::CPU, desk::HELD_INPUT];
            scene.scribble(words[usize::from(bytes.byte()) % 4], bytes.word());
            scene.store(scene.lane_offset() + lane::WANT, bytes.word());
        }
        13 => scene.send(bytes.slot()),
        14 => scene.reopen(),
        _ => {
            if bytes.byte() < 8 {
                let corrupt = bytes.byte() & 1 == 1;
                let kind = if corrupt { VerdictKind::Corrupt } else { VerdictKind::Committed };
                scene.verdict(bytes.word(), kind);
            }
            scene.read();
        }
    }
}

/// The rest of a row of bytes; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// A multiple of 16 up to some laps.
    fn slot(&mut self) -> u64 {
        (u64::from(self.byte()) | u64::from(self.byte()) << 8) % 1024 * FRAME_ALIGN_BYTES
    }

    /// Mostly 0.
    fn rarely(&mut self) -> u64 {
        u64::from(self.byte()).saturating_sub(224)
    }
}

#[cfg(test)]
mod tests;
