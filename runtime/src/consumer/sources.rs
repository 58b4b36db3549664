//! The rings that a consumer reads: one for each incarnation of its producer that is not drained yet.

use super::{Frame, Given};
use crate::bug::{Bug, placed};
use crate::claims::ClaimTable;
use crate::commit::{self, Key, RecordError};
use crate::cursor::HEADER_BYTES;
use crate::frame::{self, EXTENSION_BYTES, Facts, Kind};
use crate::incarnation::{Incarnation, PeerFault};
use crate::layout::{SegmentShape, WhenFull, lane};
use crate::mark::{self, Place};
use crate::region::{Region, Ring};
use crate::sync::{Ordering, Site, fence, ordering};
use std::sync::Arc;

/// How often a reader of a drop-oldest lane runs after a floor that moves under it before it says that there is nothing: who
/// moves it publishes after that, and rings.
#[cfg(not(loom))]
pub(super) const CHASES_MAX: usize = 16;
/// A model pays for every look.
#[cfg(loom)]
pub(super) const CHASES_MAX: usize = 1;
/// How far behind a frame lines are fetched for reading.
const PREFETCH_BYTES: [u64; 2] = [64, 128];
/// No lane gets this far; what says so lies, and behind it arithmetic would overflow.
const POSITION_MAX: u64 = 1 << 62;

/// One incarnation's ring.
struct Source {
    incarnation: Incarnation,
    region: Region,
    ring: Ring,
    /// Whether a quick look may judge it: it lives as far as is known, waits for its readers, and all of it is for this one.
    plain: bool,
    /// The end that its verdict gave it.
    end: Option<Place>,
    /// Its verdict says that it wrote over its own memory: only commit words prove its frames.
    corrupt: bool,
    /// What its mark and record were last seen to say.
    confirmed: u64,
    /// It wrote something impossible; nothing more of it is read.
    cut: bool,
}

/// The part of a consumer that a lease borrows.
pub struct Sources {
    shape: Arc<SegmentShape>,
    rings: Vec<Source>,
    /// The ring that is looked at. Always the first, but for a group: its members hold messages in older ones.
    current: usize,
    /// The group's table: behind its frontier frames may be overwritten at any time.
    pinned_by: Option<ClaimTable>,
    lane_offset: usize,
    ring_offset: usize,
    capacity: u64,
    when_full: WhenFull,
    lane: usize,
    /// Whether all of its messages are for this consumer.
    whole: bool,
    /// The message that failed in incarnations before this one, and how often it was given in vain.
    given: Given,
    /// Whether every payload is copied before anybody looks at it.
    copies: bool,
    copy: rkyv::util::AlignedVec<16>,
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

/// What a look at a place showed.
pub(super) enum Look {
    Message(Frame),
    Skip(Place),
    /// The ring ends here, and there is a next one.
    Exhausted,
    Gap(Place, u64),
    /// The group's frontier went by meanwhile: whatever was read is not to be believed.
    Passed,
    Empty,
    Fault(PeerFault),
}

/// What a quick look at a place showed.
pub enum Glance {
    /// A message.
    Message(Frame),
    /// Nothing yet.
    Empty,
    /// Something that a quick look does not judge: look again, thoroughly.
    Unusual,
}

impl Source {
    /// Fetches the frames behind, while this one is worked on: each tells where the next begins, so that nothing else would.
    #[inline(always)]
    fn prefetch(&self, end: u64) {
        PREFETCH_BYTES.iter().for_each(|ahead| self.ring.prefetch(end + ahead));
    }
}

impl Sources {
    /// No ring yet of a producer's lane, all of whose messages are for this consumer or only a share.
    pub(super) fn new(shape: Arc<SegmentShape>, lane: usize, whole: bool) -> Self {
        let shape_drops = shape.lanes[lane].when_full == WhenFull::DropOldest;
        Sources {
            lane_offset: shape.lane_offset(lane),
            ring_offset: shape.ring_offset(lane),
            capacity: shape.lanes[lane].capacity_bytes,
            when_full: shape.lanes[lane].when_full,
            shape,
            rings: Vec::new(),
            current: 0,
            pinned_by: None,
            lane,
            whole,
            given: Given::default(),
            // Loom cannot lend its words as bytes: in a model every payload is copied.
            copies: shape_drops || cfg!(loom),
            copy: rkyv::util::AlignedVec::new(),
        }
    }

    /// From here on every payload is copied before anybody looks at it: its producer may write it at any time.
    pub(super) fn copy_each(&mut self) {
        self.copies = true;
    }

    /// From here on frames stay only as long as the frontier of this table has not passed them.
    pub(super) fn pin_by(&mut self, table: ClaimTable) {
        self.pinned_by = Some(table);
        self.rings.iter_mut().for_each(|source| source.plain = false);
    }

    /// Adds the ring of a new incarnation.
    pub(super) fn add(&mut self, incarnation: Incarnation, region: Region) {
        let plain = self.whole && self.when_full != WhenFull::DropOldest && self.pinned_by.is_none();
        let ring = Ring::new(&region, self.ring_offset, self.capacity);
        let (end, corrupt, confirmed, cut) = (None, false, 0, false);
        self.rings.push(Source { incarnation, region, ring, plain, end, corrupt, confirmed, cut });
    }

    /// Takes over verdicts: where a ring ends, and whether its incarnation wrote over its own memory.
    pub(super) fn end_by(&mut self, verdict: impl Fn(Incarnation) -> Option<(Place, bool)>) {
        for source in self.rings.iter_mut().filter(|source| source.end.is_none()) {
            if let Some((end, corrupt)) = verdict(source.incarnation) {
                (source.end, source.corrupt, source.plain) = (Some(end), corrupt, false);
            }
        }
    }

    /// Generation of the newest incarnation known; 0 for none.
    pub(super) fn newest(&self) -> u32 {
        self.rings.last().map_or(0, |source| source.incarnation.generation)
    }

    /// Generation of the oldest incarnation kept; 0 for none.
    pub(super) fn oldest(&self) -> u32 {
        self.rings.first().map_or(0, |source| source.incarnation.generation)
    }

    /// The fingerprint of the type that the producer declared; 0 before.
    pub(super) fn fingerprint(&self) -> u64 {
        self.rings.first().map_or(0, |source| {
            // Relaxed: as in `Producer::declare`.
            source.region.word(self.lane_offset + lane::FINGERPRINT).load(Ordering::Relaxed)
        })
    }

    /// Lets go of the oldest ring.
    pub(super) fn let_go_of_oldest(&mut self) {
        if !self.rings.is_empty() {
            self.rings.remove(0);
        }
    }

    /// Looks at the ring in which a place lies, and lets go of those that lie before the frontier.
    pub(super) fn seek(&mut self, at: Place, frontier: Place) {
        let ended =
            |source: &Source, place: Place| source.end.is_some_and(|end| end.position <= place.position);
        while self.rings.len() > 1 && ended(&self.rings[0], frontier) {
            self.rings.remove(0);
        }
        let last = self.rings.len().saturating_sub(1);
        self.current = self.rings.iter().position(|source| !ended(source, at)).unwrap_or(last);
    }

    /// Whether the group's frontier has passed a message.
    fn has_passed(&self, at: Place) -> bool {
        self.pinned_by.as_ref().is_some_and(|table| table.frontier() > at.sequence)
    }

    /// The ring of an incarnation.
    #[inline]
    fn ring_of(&self, incarnation: Incarnation) -> Option<&Source> {
        // Nearly always the one that is looked at.
        let current = self.rings.get(self.current).filter(|source| source.incarnation == incarnation);
        current.or_else(|| self.rings.iter().find(|source| source.incarnation == incarnation))
    }

    #[inline(always)]
    fn ring_word(&self, source: &Source, position: u64, word: usize, site: Site) -> u64 {
        // Acquire: for the commit word, pairs with the Release in `Producer::publish`; for facts on a drop-oldest lane,
        // with the Release fence in `Producer::make_room`: who reads facts of a later lap sees the floor that gave way.
        source.ring.word(position + word as u64).load(ordering(site, Ordering::Acquire))
    }

    /// A look at the usual case: a living producer, a lane that waits for its readers and that nobody shares, and nothing or a
    /// message without a time in its header. It believes what [`Sources::look`] believes, by the same checks.
    #[inline(always)]
    pub(super) fn glance(&self, at: Place) -> Glance {
        let Some(source) = self.rings.get(self.current) else { return Glance::Empty };
        if !source.plain {
            return Glance::Unusual;
        }
        let position = at.position;
        if self.ring_word(source, position, frame::POSITION, Site::CommitWordLoad) != position {
            return if position < source.confirmed { Glance::Unusual } else { Glance::Empty };
        }
        let word = self.ring_word(source, position, frame::FACTS, Site::FactsLoad);
        match Facts::check_plain(word, position, self.capacity) {
            Some(facts) if facts.sequence == at.sequence as u32 => {
                let end = facts.end(position);
                source.prefetch(end);
                Glance::Message(self.frame(source, at, facts, None))
            }
            _ => Glance::Unusual,
        }
    }

    /// The message behind one that is leased, if it is there, may be leased beside it, and neither failed in an incarnation before.
    #[inline(always)]
    pub fn behind(&self, frame: &Frame) -> Option<Frame> {
        let failed = |frame: &Frame| frame.at.position == self.given.position;
        // Where each is copied there is one copy.
        if self.copies || failed(frame) {
            return None;
        }
        match self.glance(frame.next()) {
            Glance::Message(frame) if !failed(&frame) => Some(frame),
            _ => None,
        }
    }

    /// Fetches the lines behind the one in which the next frame begins, while nothing is there yet: who writes a frame takes them over
    /// before it says that the frame is there, so that those of a small message come together with its first.
    #[inline(always)]
    pub(super) fn foresee(&self, at: Place) {
        if let Some(source) = self.rings.get(self.current) {
            source.prefetch(at.position);
        }
    }

    /// The frame of facts that are believed.
    #[inline(always)]
    fn frame(&self, source: &Source, at: Place, facts: Facts, stamp_ns: Option<u64>) -> Frame {
        let extension = if stamp_ns.is_some() { EXTENSION_BYTES } else { 0 };
        Frame {
            at,
            from: source.incarnation,
            attempts: if at.position == self.given.position { self.given.attempts } else { 0 },
            len: (facts.len - extension) as u32,
            skip: (HEADER_BYTES + extension) as u32,
            stamp_ns: stamp_ns.unwrap_or_default(),
        }
    }

    /// Where the payload of a frame lies in its segment.
    #[inline]
    fn payload_offset(&self, frame: &Frame) -> usize {
        self.ring_offset + (frame.payload() & (self.capacity - 1)) as usize
    }

    #[inline]
    pub(super) fn look(&mut self, at: Place) -> Look {
        let Some(source) = self.rings.get(self.current) else { return Look::Empty };
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
            let last = self.current + 1 == self.rings.len();
            return Some(if last { Look::Empty } else { Look::Exhausted });
        }
        // What a faulty incarnation left cannot be read: it is missed, exactly.
        source.cut.then(|| Look::Gap(end, end.sequence.saturating_sub(at.sequence)))
    }

    /// Whether it has no ring.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Takes over what the supervisor knows of attempts of incarnations before this one.
    pub(super) fn told(&mut self, given: Given) {
        self.given = given;
    }

    /// Reads and checks the frame at `at`, which is committed or says so.
    fn believe(&mut self, at: Place) -> Look {
        let Some(source) = self.rings.get(self.current) else { return Look::Empty };
        let word = self.ring_word(source, at.position, frame::FACTS, Site::FactsLoad);
        // With `Producer::refresh`: who reads facts of a later lap sees the frontier that gave way.
        if self.has_passed(at) {
            return Look::Passed;
        }
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
        let source = &self.rings[self.current];
        if source.end.is_some_and(|last| end > last.position) {
            return Look::Fault(self.cut(at, "a frame runs over the end that its verdict gave the lane"));
        }
        if facts.kind == Kind::Padding {
            return Look::Skip(Place { position: end, sequence: at.sequence });
        }
        source.prefetch(end);
        let stamp_ns = facts
            .extended
            .then(|| self.ring_word(source, at.position, HEADER_BYTES as usize, Site::FactsLoad));
        Look::Message(self.frame(source, at, facts, stamp_ns))
    }

    fn cut(&mut self, at: Place, what: &str) -> PeerFault {
        let source = &mut self.rings[self.current];
        (source.cut, source.plain) = (true, false);
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
            let Some(source) = self.rings.first() else { return Look::Empty };
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
        match self.rings.first() {
            Some(source) if source.end.is_some() => {
                Look::Fault(self.cut(at, "its tail mark and its floor contradict each other"))
            }
            _ => Look::Empty,
        }
    }

    pub(super) fn confirm(&mut self, at: Place) -> Result<bool, PeerFault> {
        let (index, capacity) = (self.lane, self.capacity);
        let more = self.current + 1 < self.rings.len();
        let Some(source) = self.rings.get_mut(self.current) else { return Ok(false) };
        if source.end.is_some() || source.cut {
            return Ok(source.end.is_some_and(|end| at.position < end.position) || more);
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
                    // Or, in a group, others have gone on since this member looked at the frontier.
                    if self.has_passed(at) {
                        return Ok(true);
                    }
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
    /// when it was overwritten meanwhile: poll again. It is copied, too, where the producer is not trusted to leave it alone.
    /// Elsewhere nobody writes it before the ack.
    #[inline]
    pub fn lease(&mut self, frame: &Frame) -> bool {
        if !self.copies {
            return true;
        }
        let Some(source) = self.rings.iter().find(|s| s.incarnation == frame.from) else { return false };
        self.copy.resize(frame.len_bytes(), 0);
        source.region.copy_out(self.payload_offset(frame), &mut self.copy);
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
        if self.copies {
            return &self.copy;
        }
        let source = self.ring_of(frame.from).expect("a frame is read before its ring is let go of");
        // SAFETY: the frame was checked to lie inside the ring, and believed; its producer does not write it before this
        // consumer's cursor passes it, which takes the other half of the consumer and ends this borrow's use.
        unsafe { source.region.leased(self.payload_offset(frame), frame.len_bytes()) }
    }

    /// Copies the payload of a frame out.
    pub fn copy_payload(&self, frame: &Frame, into: &mut [u8]) {
        let source = self.ring_of(frame.from).expect("a frame is read before its ring is let go of");
        source.region.copy_out(self.payload_offset(frame), into);
    }
}
