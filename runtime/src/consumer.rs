//! The reading end of a lane: poll, lease, ack, through a producer's whole lineage.
//!
//! A consumer reads the ring of one incarnation up to its verdict, then the next one's; positions go on. It believes a
//! frame when its commit word names its position, or when it lies before what the producer's mark and record, or its
//! verdict, say is committed. Every fact is read once, checked, and only the local is used.

use crate::board::{Board, VerdictKind};
use crate::bug::{Bug, placed};
use crate::commit::{self, Key, RecordError};
use crate::cursor::HEADER_BYTES;
use crate::frame::{self, EXTENSION_BYTES, Facts, Kind};
use crate::incarnation::{Incarnation, PeerFault};
use crate::layout::{SegmentShape, WhenFull, input, lane};
use crate::links::Links;
use crate::mark::{self, MarkWriter, Place};
use crate::region::Region;
use crate::sync::{Ordering, Site, fence, ordering};
use std::collections::VecDeque;
use std::sync::Arc;

/// How often a reader of a drop-oldest lane runs after a floor that moves under it before it says that there is nothing: who
/// moves it publishes after that, and rings.
#[cfg(not(loom))]
const CHASES_MAX: usize = 16;
/// A model pays for every look.
#[cfg(loom)]
const CHASES_MAX: usize = 1;
/// How far behind a frame lines are fetched for reading.
#[cfg(not(loom))]
const PREFETCH_BYTES: [u64; 2] = [64, 128];
/// No lane gets this far; what says so lies, and behind it arithmetic would overflow.
const POSITION_MAX: u64 = 1 << 62;

/// Which lane a consumer reads, and which of its messages.
#[derive(Clone, Debug)]
pub struct InputEnd {
    /// The producer's place among the neighbours.
    pub neighbour: usize,
    /// The producer's lane.
    pub lane: usize,
    /// It takes the messages whose number is `share.0` modulo `share.1`.
    pub share: (u32, u32),
}

/// A message that was given in vain. No message lies at position 0, so the default means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(loom), derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize))]
pub struct Given {
    /// Where it begins.
    pub position: u64,
    /// How often; [`Given::SETTLED`] when it lies with the dead letters and is only to be acknowledged.
    pub attempts: u32,
}

impl Given {
    /// More attempts than any bound.
    pub const SETTLED: u32 = u32::MAX;
}

/// One incarnation's ring.
struct Source {
    incarnation: Incarnation,
    region: Region,
    /// The end that its verdict gave it.
    end: Option<Place>,
    /// Its verdict says that it wrote over its own memory: only commit words prove its frames.
    corrupt: bool,
    /// What its mark and record were last seen to say.
    confirmed: u64,
    /// It wrote something impossible; nothing more of it is read.
    cut: bool,
}

/// A frame that was polled and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins.
    pub at: Place,
    next: Place,
    offset: usize,
    len: usize,
    /// When it was published, CLOCK_MONOTONIC ns, for the sampled frames that say so.
    pub stamp_ns: Option<u64>,
    /// Who wrote it.
    pub from: Incarnation,
    /// How often it was given in vain before this incarnation.
    pub attempts: u32,
}

impl Frame {
    /// Place of the cursor once the frame is acknowledged.
    pub fn next(&self) -> Place {
        self.next
    }

    /// Bytes of its payload.
    pub fn len_bytes(&self) -> usize {
        self.len
    }
}

/// What came of a poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled {
    /// A message.
    Frame(Frame),
    /// Nothing yet.
    Empty,
    /// The producer wrote something impossible. It is cut off until its next incarnation.
    Fault(PeerFault),
}

/// The reading end of one lane.
pub struct Consumer {
    sources: Sources,
    cursor: Cursor,
    end: InputEnd,
    version: u64,
}

/// The part of a consumer that a lease borrows.
pub struct Sources {
    shape: Arc<SegmentShape>,
    rings: VecDeque<Source>,
    lane_offset: usize,
    ring_offset: usize,
    capacity: u64,
    when_full: WhenFull,
    lane: usize,
    /// The message that incarnations before this one were given in vain, and how often.
    given: Given,
    copy: rkyv::util::AlignedVec<16>,
}

/// The part of a consumer that an ack moves.
pub struct Cursor {
    region: Region,
    offset: usize,
    at: Place,
    published: u64,
    mark: MarkWriter,
    missed: u64,
    neighbour: usize,
    want_offset: usize,
    rung_want: u64,
}

impl Consumer {
    /// Opens an input of the own, fresh segment.
    pub fn open(
        region: Region,
        shape: &SegmentShape,
        index: usize,
        end: InputEnd,
        producer: Arc<SegmentShape>,
    ) -> Self {
        let offset = shape.input_offset(index);
        let at = mark::read(&region, offset + input::CURSOR).unwrap_or_default();
        let mark = MarkWriter::new(offset + input::CURSOR, Site::CursorStore);
        let sources = Sources {
            lane_offset: producer.lane_offset(end.lane),
            ring_offset: producer.ring_offset(end.lane),
            capacity: producer.lanes[end.lane].capacity_bytes,
            when_full: producer.lanes[end.lane].when_full,
            shape: producer,
            rings: VecDeque::new(),
            lane: end.lane,
            given: Given::default(),
            copy: rkyv::util::AlignedVec::new(),
        };
        let cursor = Cursor {
            region,
            offset,
            at,
            published: at.position,
            mark,
            missed: 0,
            neighbour: end.neighbour,
            want_offset: sources.lane_offset + lane::WANT,
            rung_want: 0,
        };
        Consumer { sources, cursor, end, version: u64::MAX }
    }

    /// Takes over what the supervisor knows of attempts of incarnations before this one.
    pub fn told(&mut self, given: Given) {
        self.sources.given = given;
    }

    /// Which lane this is.
    pub fn end(&self) -> &InputEnd {
        &self.end
    }

    /// Everything before this was acknowledged or was not for this consumer.
    pub fn at(&self) -> Place {
        self.cursor.at
    }

    /// Messages missed on a drop-oldest lane, exactly.
    pub fn missed(&self) -> u64 {
        self.cursor.missed
    }

    /// Whether links or verdicts changed since [`Consumer::sync`].
    #[inline]
    pub fn stale(&self, links: &Links) -> bool {
        self.version != links.version()
    }

    /// Takes over new incarnations and verdicts from the links.
    pub fn sync(&mut self, links: &mut Links) {
        let neighbour = links.neighbour(self.end.neighbour);
        let newest = self.sources.rings.back().map_or(0, |s| s.incarnation.generation);
        for link in neighbour.links().filter(|l| l.incarnation.generation > newest) {
            self.sources.rings.push_back(Source {
                incarnation: link.incarnation,
                region: link.region.clone(),
                end: None,
                corrupt: false,
                confirmed: 0,
                cut: false,
            });
        }
        for source in &mut self.sources.rings {
            if source.end.is_none() && !placed(Bug::VerdictOverlooked) {
                let verdict = links.board.verdict(source.incarnation);
                source.corrupt = verdict.as_ref().is_some_and(|v| v.kind == VerdictKind::Corrupt);
                source.end = verdict.and_then(|v| v.lanes.get(self.end.lane).copied());
            }
        }
        self.version = links.version();
    }

    /// The oldest incarnation that is still needed; older ones may be let go.
    pub fn oldest_needed(&self) -> u32 {
        self.sources.rings.front().map_or(0, |s| s.incarnation.generation)
    }

    /// Whether everything was taken that the producer committed before its last verdict.
    pub fn drained(&self, board: &Board, agent: u32) -> bool {
        let last = board.last_verdict(agent);
        if last < board.generation(agent) {
            return false;
        }
        let verdict = board.verdict(Incarnation { agent, generation: last });
        let end = verdict.and_then(|v| v.lanes.get(self.end.lane).copied());
        last == 0 || end.is_some_and(|end| self.cursor.at.position >= end.position)
    }

    /// The fingerprint that the lane's producer declared; 0 when it did not yet.
    pub fn fingerprint(&self) -> u64 {
        self.sources.rings.front().map_or(0, |source| {
            // Relaxed: as in `Producer::declare`.
            source.region.word(self.sources.lane_offset + lane::FINGERPRINT).load(Ordering::Relaxed)
        })
    }

    /// Looks for the next message for this consumer. Skips padding, other members' messages, and exhausted incarnations.
    #[inline]
    pub fn poll(&mut self) -> Polled {
        let mut gaps = 0;
        loop {
            match self.sources.look(self.cursor.at) {
                Look::Message(frame) if self.takes(frame.at.sequence) => return Polled::Frame(frame),
                Look::Message(frame) => self.cursor.at = frame.next,
                Look::Skip(next) => self.cursor.at = next,
                Look::Exhausted => {
                    self.sources.rings.pop_front();
                }
                Look::Gap(to, missed) => {
                    self.cursor.miss(to, missed);
                    gaps += 1;
                    if gaps > CHASES_MAX {
                        return Polled::Empty;
                    }
                }
                Look::Empty => return Polled::Empty,
                Look::Fault(fault) => return Polled::Fault(fault),
            }
        }
    }

    fn takes(&self, sequence: u64) -> bool {
        let (k, n) = self.end.share;
        n == 1 || sequence % u64::from(n) == u64::from(k)
    }

    /// Looks at the producer's mark and record for frames that were committed but whose commit words are missing; before a
    /// sleep and after a death. True when there is something to poll.
    ///
    /// # Errors
    /// What is impossible about them.
    pub fn confirm(&mut self) -> Result<bool, PeerFault> {
        self.sources.confirm(self.cursor.at)
    }

    /// Publishes the cursor if polling moved it over what was not for this consumer; true if so. The caller then looks at
    /// the producer's want.
    ///
    /// # If we die here
    /// The successor skips the same frames again.
    pub fn publish_skipped(&mut self) -> bool {
        let moved = self.cursor.at.position != self.cursor.published;
        if moved {
            self.cursor.publish();
        }
        moved
    }

    /// The consumer's two parts: what a lease borrows, and what an ack moves.
    #[inline]
    pub fn split(&mut self) -> (&mut Sources, &mut Cursor) {
        (&mut self.sources, &mut self.cursor)
    }

    /// Acknowledges a frame by itself: the plain form, without a step.
    ///
    /// # If we die here
    /// As in [`Cursor::publish`].
    pub fn ack(&mut self, frame: &Frame) {
        self.cursor.advance(frame);
        self.cursor.publish();
    }
}

impl Cursor {
    /// Moves over a frame, privately.
    #[inline]
    pub fn advance(&mut self, frame: &Frame) {
        assert!(frame.at == self.at, "a frame is acknowledged once, in order");
        self.at = frame.next;
    }

    /// Publishes the cursor.
    ///
    /// # If we die here
    /// Before the store the message comes again, unless a record named the cursor before; after it, it does not.
    #[inline]
    pub fn publish(&mut self) {
        self.mark.publish(&self.region, self.at);
        self.published = self.at.position;
    }

    /// Publishes the cursor behind a frame that it stays before: a deliberate bug.
    pub(crate) fn publish_early(&mut self, frame: &Frame) {
        self.mark.publish(&self.region, frame.next);
    }

    /// Where the cursor stands, privately.
    pub fn at(&self) -> Place {
        self.at
    }

    /// Rings the producer when it waits for space that the cursor has passed. After [`Links::fence`].
    #[inline]
    pub fn ring_if_wanted(&mut self, links: &mut Links) {
        let Some(link) = links.neighbour(self.neighbour).newest() else { return };
        // Relaxed: ordered by the fence before; a wrong word costs a ring.
        let want = link.region.word(self.want_offset).load(Ordering::Relaxed);
        if placed(Bug::WantForgotten) {
            return;
        }
        if want != 0 && want != self.rung_want && self.published >= want {
            self.rung_want = want;
            links.ring(self.neighbour);
        }
    }

    fn miss(&mut self, to: Place, missed: u64) {
        self.at = to;
        self.missed += missed;
        // Relaxed: one writer, readers only show it.
        self.region.word(self.offset + input::MISSED).store(self.missed, Ordering::Relaxed);
    }
}

/// The place of a floor, given what stands there.
fn to_floor(
    at: Place,
    floor: u64,
    tail: Place,
    facts: Option<u64>,
    capacity: u64,
) -> Result<Place, &'static str> {
    let Some(facts) = facts.filter(|_| floor < POSITION_MAX) else {
        return Err("its floor is no position of a frame");
    };
    if tail.position - floor > capacity {
        return Err("its floor lies more than a ring behind its tail");
    }
    let missed = if tail.position == floor {
        tail.sequence.wrapping_sub(at.sequence)
    } else {
        u64::from(Facts::check(facts, floor, capacity)?.sequence.wrapping_sub(at.sequence as u32))
    };
    if missed > (floor - at.position) / HEADER_BYTES {
        return Err("more messages were dropped than fit below its floor");
    }
    Ok(Place { position: floor, sequence: at.sequence + missed })
}

enum Look {
    Message(Frame),
    Skip(Place),
    Exhausted,
    Gap(Place, u64),
    Empty,
    Fault(PeerFault),
}

impl Sources {
    fn ring_word(&self, source: &Source, position: u64, word: usize, site: Site) -> u64 {
        let offset = self.ring_offset + (position & (self.capacity - 1)) as usize + word;
        // Acquire: for the commit word, pairs with the Release in `Producer::publish`; for facts on a drop-oldest lane,
        // with the Release fence in `Producer::make_room`: who reads facts of a later lap sees the floor that gave way.
        source.region.word(offset).load(ordering(site, Ordering::Acquire))
    }

    #[inline]
    fn look(&mut self, at: Place) -> Look {
        let Some(source) = self.rings.front() else { return Look::Empty };
        if (source.end.is_some() || source.cut)
            && let Some(look) = self.at_end(source, at)
        {
            return look;
        }
        let position = at.position;
        let said = self.ring_word(source, position, frame::POSITION, Site::CommitWordLoad) == position;
        let known = position < source.confirmed || source.end.is_some_and(|end| position < end.position);
        if !said && source.corrupt {
            // What it committed last cannot be told from what it scribbled: the rest, up to the end that its verdict gave it
            // beyond anything it can have written, is missed.
            let end = source.end.unwrap_or(at);
            return Look::Gap(end, end.sequence.saturating_sub(at.sequence));
        }
        if !said && !known {
            return if self.when_full == WhenFull::DropOldest {
                self.look_below_floor(at)
            } else {
                Look::Empty
            };
        }
        self.believe(at)
    }

    /// What an incarnation with a verdict, or one that was cut off, leaves to do.
    fn at_end(&self, source: &Source, at: Place) -> Option<Look> {
        let Some(end) = source.end else { return Some(Look::Empty) };
        if at.position >= end.position {
            let last = self.rings.len() == 1;
            return Some(if last { Look::Empty } else { Look::Exhausted });
        }
        // What a faulty incarnation left cannot be read: it is missed, exactly.
        source.cut.then(|| Look::Gap(end, end.sequence.saturating_sub(at.sequence)))
    }

    /// Reads and checks the frame at `at`, which is committed or says so.
    fn believe(&mut self, at: Place) -> Look {
        let Some(source) = self.rings.front() else { return Look::Empty };
        let word = self.ring_word(source, at.position, frame::FACTS, Site::FactsLoad);
        // What was overwritten can look like anything, padding too.
        if self.when_full == WhenFull::DropOldest && self.floor(source) > at.position {
            return self.look_below_floor(at);
        }
        let checked = Facts::check(word, at.position, self.capacity).and_then(|facts| {
            let next = (facts.sequence == at.sequence as u32).then_some(facts);
            next.ok_or("a frame's sequence number is not the next one")
        });
        let facts = match checked {
            Ok(facts) => facts,
            Err(what) => return Look::Fault(self.cut(at, what)),
        };
        let end = facts.end(at.position);
        let source = &self.rings[0];
        if source.end.is_some_and(|last| end > last.position) {
            return Look::Fault(self.cut(at, "a frame runs over the end that its verdict gave the lane"));
        }
        if facts.kind == Kind::Padding {
            return Look::Skip(Place { position: end, sequence: at.sequence });
        }
        #[cfg(not(loom))]
        self.prefetch(end);
        let skip = if facts.extended { EXTENSION_BYTES } else { 0 };
        let stamp_ns = facts
            .extended
            .then(|| self.ring_word(source, at.position, HEADER_BYTES as usize, Site::FactsLoad));
        let in_ring = (at.position & (self.capacity - 1)) + HEADER_BYTES + skip;
        Look::Message(Frame {
            at,
            next: Place { position: end, sequence: at.sequence + 1 },
            offset: self.ring_offset + in_ring as usize,
            len: (facts.len - skip) as usize,
            stamp_ns,
            from: source.incarnation,
            attempts: if at.position == self.given.position { self.given.attempts } else { 0 },
        })
    }

    /// Fetches the frames behind, while this one is worked on: each tells where the next begins, so that nothing else would.
    #[cfg(not(loom))]
    #[inline]
    fn prefetch(&self, end: u64) {
        let region = &self.rings[0].region;
        for ahead in PREFETCH_BYTES {
            region.prefetch(self.ring_offset + ((end + ahead) & (self.capacity - 1)) as usize);
        }
    }

    fn cut(&mut self, at: Place, what: &str) -> PeerFault {
        let source = &mut self.rings[0];
        source.cut = true;
        let what = format!("{what} (lane {}, position {})", self.lane, at.position);
        PeerFault { incarnation: source.incarnation, what }
    }

    fn floor(&self, source: &Source) -> u64 {
        // Relaxed: where the order matters, the facts read before it were read with Acquire.
        source.region.word(self.lane_offset + lane::FLOOR).load(Ordering::Relaxed)
    }

    /// On a drop-oldest lane: jumps to the floor when the frame at `at` was given up.
    fn look_below_floor(&mut self, at: Place) -> Look {
        for _ in 0..CHASES_MAX {
            let Some(source) = self.rings.front() else { return Look::Empty };
            let floor = self.floor(source);
            if floor <= at.position {
                return Look::Empty;
            }
            // The tail before the facts: what lies at the floor is a frame only if the tail was past it already. `None`, or
            // a tail before the floor: the producer publishes right now and has not fenced yet; it will ring.
            let tail = mark::read(&source.region, self.lane_offset + lane::TAIL);
            let Some(tail) = tail.filter(|tail| tail.position >= floor) else { continue };
            // The floor's own frame tells how many were missed; it may be given up while we look, then we look again.
            let facts =
                frame::aligned(floor).then(|| self.ring_word(source, floor, frame::FACTS, Site::FactsLoad));
            if self.floor(source) != floor {
                continue;
            }
            return match to_floor(at, floor, tail, facts, self.capacity) {
                Ok(to) => Look::Gap(to, to.sequence - at.sequence),
                Err(what) => Look::Fault(self.cut(at, what)),
            };
        }
        // Who lives and moves them publishes after this, and rings. The dead move nothing.
        match self.rings.front() {
            Some(source) if source.end.is_some() => {
                Look::Fault(self.cut(at, "its tail mark and its floor contradict each other"))
            }
            _ => Look::Empty,
        }
    }

    fn confirm(&mut self, at: Place) -> Result<bool, PeerFault> {
        let (index, capacity) = (self.lane, self.capacity);
        let Some(source) = self.rings.front_mut() else { return Ok(false) };
        if source.end.is_some() || source.cut {
            return Ok(source.end.is_some_and(|end| at.position < end.position) || self.rings.len() > 1);
        }
        let committed = if placed(Bug::ConfirmByMarkOnly) {
            mark::read(&source.region, self.lane_offset + lane::TAIL).ok_or(RecordError::Busy)
        } else {
            commit::committed(&source.region, &self.shape, Key::Lane(index))
        };
        match committed {
            Ok(tail) if tail.position > at.position => {
                // A lag of more than the ring is a lie on a lane that waits for its readers; on a drop-oldest lane the
                // floor has moved and tells.
                if tail.position - at.position > capacity && self.when_full != WhenFull::DropOldest {
                    return Err(self.cut(at, "its tail lies more than a ring ahead"));
                }
                source.confirmed = tail.position;
                Ok(true)
            }
            // Behind us: it drains a predecessor's ring still, or has committed nothing new.
            Ok(_) => Ok(false),
            // It commits right now: there is something to poll, or will be at once, and it will ring.
            Err(RecordError::Busy) => Ok(true),
            Err(RecordError::Corrupt) => Err(self.cut(at, "its commit record contradicts itself")),
        }
    }

    /// Makes sure that the payload of the frame at the cursor can be read: on a drop-oldest lane it is copied, and false
    /// when it was overwritten meanwhile: poll again. Elsewhere nobody writes it before the ack.
    #[inline]
    pub fn lease(&mut self, frame: &Frame) -> bool {
        let Some(source) = self.rings.front().filter(|s| s.incarnation == frame.from) else { return false };
        // Loom cannot lend its words as bytes: in a model every payload is copied.
        if self.when_full != WhenFull::DropOldest && !cfg!(loom) {
            return true;
        }
        self.copy.resize(frame.len, 0);
        source.region.copy_out(frame.offset, &mut self.copy);
        if self.when_full != WhenFull::DropOldest {
            return true;
        }
        // Acquire fence: pairs with the Release fence in `Producer::make_room`.
        fence(Site::CopyFence, Ordering::Acquire);
        // Relaxed: ordered by the fence.
        let floor = source.region.word(self.lane_offset + lane::FLOOR).load(Ordering::Relaxed);
        floor <= frame.at.position
    }

    /// The payload of the frame that was leased.
    ///
    /// # Panics
    /// When it was not: that is our own bug.
    #[allow(unsafe_code)]
    #[inline]
    pub fn leased(&self, frame: &Frame) -> &[u8] {
        if self.when_full == WhenFull::DropOldest || cfg!(loom) {
            return &self.copy;
        }
        let source = &self.rings[0];
        assert!(source.incarnation == frame.from, "a frame is read before its ring is let go of");
        // SAFETY: the frame was checked to lie inside the ring, and believed; its producer does not write it before this
        // consumer's cursor passes it, which takes the other half of the consumer and ends this borrow's use.
        unsafe { source.region.leased(frame.offset, frame.len) }
    }

    /// Copies the payload of a frame out.
    pub fn copy_payload(&self, frame: &Frame, into: &mut [u8]) {
        let source = &self.rings[0];
        source.region.copy_out(frame.offset, into);
    }
}
