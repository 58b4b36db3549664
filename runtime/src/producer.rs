//! The writing end of a lane: claim, write past the tail, commit, publish.
//!
//! Frames are written past the tail and stay hidden: no reader looks there. [`Producer::publish`] moves the tail mark,
//! which commits them (a step commits by its record before), and stores their commit words, the fast path to the reader.
//! An abort forgets what is hidden.

use crate::bug::{Bug, IfSeeded, placed};
use crate::claims::ClaimTable;
use crate::cursor::{self, FRAME_ALIGN_BYTES, HEADER_BYTES, Placement};
use crate::frame::{self, EXTENSION_BYTES, Facts, Kind};
use crate::incarnation::PeerFault;
use crate::layout::{LaneShape, SegmentShape, WhenFull, lane};
use crate::links::Links;
use crate::mark::{self, MarkWriter, Place};
use crate::region::{Region, Ring};
use crate::sync::{Ordering, Site, fence, left_out, ordering};

/// How far behind a frame lines are taken over for writing. A reader has them from the lap before, and stores leave a processor in
/// order: each would wait until its line is there, and the next one's way would begin only then. Nearer ones a reader that waits
/// fetches again.
const OWNED_AHEAD_BYTES: [u64; 2] = [192, 256];
/// Where longer frames go the processor foresees itself.
const OWNED_FRAME_BYTES_MAX: u64 = 512;

mod readers;

pub use readers::ReaderEnd;
use readers::Readers;

/// Space for one frame, past the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    placement: Placement,
    /// Offset of the first byte behind the header in the segment.
    offset: usize,
    /// Bytes that may be written there.
    pub len: u64,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// There is space.
    Space(Claim),
    /// Readers have not passed this cursor yet.
    Full {
        /// The cursor to wait for.
        want: u64,
    },
    /// It does not fit: longer than half the ring, or with what the step already wrote longer than the ring.
    Never,
}

/// The writing end of one lane of one incarnation.
pub struct Producer {
    region: Region,
    lane: usize,
    lane_offset: usize,
    ring_offset: usize,
    ring: Ring,
    capacity: u64,
    when_full: WhenFull,
    base: Place,
    tail: Place,
    pending: Place,
    mark: MarkWriter,
    /// Where hidden frames begin, but for the one at the tail.
    hidden: Vec<u64>,
    /// Position up to which a claim with its next header is known to fit.
    limit: u64,
    floor: u64,
    readers: Readers,
    /// Number of the first message whose readers were not rung.
    unrung: u64,
    /// The last time that a frame carries.
    stamped_ns: u64,
    late: IfSeeded<Vec<(u64, u64)>>,
}

impl Producer {
    /// Opens a lane of the own, fresh segment.
    ///
    /// # Panics
    /// When the segment's image is not of this shape: that is our own bug, `segment::attach` has checked it.
    pub fn open(region: Region, shape: &SegmentShape, index: usize, readers: Vec<ReaderEnd>) -> Self {
        let LaneShape { capacity_bytes: capacity, when_full, .. } = shape.lanes[index];
        let lane_offset = shape.lane_offset(index);
        let tail = mark::read(&region, lane_offset + lane::TAIL).unwrap_or_default();
        assert!(tail.position >= cursor::first_position(capacity) && frame::aligned(tail.position));
        let readers = Readers::new(readers, tail.position);
        let ring = Ring::new(&region, shape.ring_offset(index), capacity);
        Producer {
            mark: MarkWriter::new(&region, lane_offset + lane::TAIL, Site::TailStore),
            region,
            lane: index,
            lane_offset,
            ring_offset: shape.ring_offset(index),
            ring,
            capacity,
            when_full,
            base: tail,
            tail,
            pending: tail,
            hidden: Vec::with_capacity(16),
            limit: tail.position + capacity - HEADER_BYTES,
            floor: tail.position,
            readers,
            unrung: tail.sequence,
            stamped_ns: 0,
            late: IfSeeded::default(),
        }
    }

    /// Its number among the incarnation's lanes.
    #[inline]
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// What a full ring does.
    pub fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// The last time that a frame of this incarnation carries; 0 before the first.
    #[inline]
    pub fn stamped_ns(&self) -> u64 {
        self.stamped_ns
    }

    /// The committed end of the lane.
    #[inline]
    pub fn tail(&self) -> Place {
        self.tail
    }

    /// Where this incarnation's ring began.
    pub fn base(&self) -> Place {
        self.base
    }

    /// The end of what was written, hidden frames included.
    #[inline]
    pub fn pending(&self) -> Place {
        self.pending
    }

    /// The longest payload that the lane takes.
    pub fn payload_max(&self) -> u64 {
        cursor::payload_max(self.capacity)
    }

    /// Readers of the lane.
    pub fn readers(&self) -> &[ReaderEnd] {
        self.readers.ends()
    }

    /// Says that a group shares the lane by this table: those readers whose [`ReaderEnd::group`] is its number, from 0 in the
    /// order of the calls.
    pub fn add_group(&mut self, table: ClaimTable) {
        self.readers.add_group(table, cursor::first_position(self.capacity));
        // How far the group is has to be looked at before the first claim.
        self.limit = self.tail.position;
    }

    /// Impossible cursors seen since the last call.
    pub fn take_faults(&mut self) -> Vec<PeerFault> {
        self.readers.take_faults()
    }

    /// Publishes the fingerprint of the lane's message type.
    pub fn declare(&self, fingerprint: u64) {
        // Relaxed: the word stands for itself, and the first frame's commit word publishes it to who sees that.
        self.region.word(self.lane_offset + lane::FINGERPRINT).store(fingerprint, Ordering::Relaxed);
    }

    #[inline(always)]
    fn ring_word(&self, position: u64, word: usize) -> &crate::sync::AtomicU64 {
        self.ring.word(position + word as u64)
    }

    /// Claims space for `len` bytes behind a header, looking at the readers' cursors only when needed.
    #[inline]
    pub fn claim(&mut self, len: u64, links: &Links) -> Claimed {
        if len > self.payload_max() {
            return Claimed::Never;
        }
        let placement = cursor::place(self.pending.position, cursor::frame_bytes(len), self.capacity);
        if placement.end > self.limit {
            if !cursor::fits(placement.end, self.tail.position, self.capacity) {
                return Claimed::Never;
            }
            self.refresh(links);
            if self.when_full == WhenFull::DropOldest {
                self.make_room(placement.end);
            }
            if placement.end > self.limit {
                return Claimed::Full { want: cursor::cursor_wanted(placement.end, self.capacity) };
            }
        }
        if placed(Bug::TailBeforePayload) {
            let sequence = self.pending.sequence + 1;
            self.mark.publish(Place { position: placement.end, sequence });
        }
        Claimed::Space(self.claim_at(placement, len))
    }

    /// The longest claim at the tail that needs neither padding nor a look at the readers; `None` when there is no room.
    #[inline(always)]
    pub fn claim_room(&self) -> Option<Claim> {
        let position = self.pending.position;
        let before_wrap = self.capacity - (position & (self.capacity - 1));
        let free = self.limit.checked_sub(position)?;
        let total = before_wrap.min(free).min(self.capacity / 2) & !(FRAME_ALIGN_BYTES - 1);
        let len = total.checked_sub(HEADER_BYTES)?;
        let placement = Placement { padding: 0, position, end: position + total };
        Some(self.claim_at(placement, len))
    }

    #[inline(always)]
    fn claim_at(&self, placement: Placement, len: u64) -> Claim {
        let in_ring = placement.position & (self.capacity - 1);
        Claim { placement, offset: self.ring_offset + (in_ring + HEADER_BYTES) as usize, len }
    }

    /// The cursor to wait for until a good part of the ring is free, given the one to wait for at least.
    pub fn want_of_room(&self, want: u64) -> u64 {
        (want + self.capacity / 8).min(self.tail.position)
    }

    /// Looks at the readers' cursors: whether a good part of the ring is free, or all that can be.
    pub fn is_roomy(&mut self, links: &Links) -> bool {
        self.refresh(links);
        let all_is_read = self.limit == self.tail.position + self.capacity - HEADER_BYTES;
        all_is_read || self.limit.saturating_sub(self.pending.position) >= self.capacity / 8
    }

    /// Looks at the readers' cursors and moves the limit.
    fn refresh(&mut self, links: &Links) {
        let least = self.readers.look(self.base.position, self.tail, links);
        if self.when_full != WhenFull::DropOldest {
            self.limit = least + self.capacity - HEADER_BYTES;
        }
    }

    /// Moves the floor over the oldest frames until a claim that ends at `end` fits.
    ///
    /// # If we die here
    /// Readers skip what lies below the floor although it was not overwritten: they count it as missed, exactly.
    fn make_room(&mut self, end: u64) {
        let slowest = self.readers.slowest();
        let mut dropped = 0;
        while !cursor::fits(end, self.floor, self.capacity) && self.floor < self.tail.position {
            // Relaxed: own words.
            let facts = Facts::check(
                self.ring_word(self.floor, frame::FACTS).load(Ordering::Relaxed),
                self.floor,
                self.capacity,
            );
            let Ok(facts) = facts else { panic!("own ring is damaged at position {}", self.floor) };
            if facts.kind == Kind::Message && self.floor >= slowest {
                dropped += 1;
            }
            self.floor = facts.end(self.floor);
        }
        // Relaxed and a Release fence: pairs with the Acquire fence in `Sources::lease` and the Acquire of facts in
        // `Sources::ring_word`. A reader that read any byte written below sees this floor when it looks again.
        self.region.word(self.lane_offset + lane::FLOOR).store(self.floor, Ordering::Relaxed);
        fence(Site::FloorFence, Ordering::Release);
        self.limit = self.floor + self.capacity - HEADER_BYTES;
        self.add(lane::DROPPED, dropped);
    }

    /// Adds to one of the lane's counters.
    pub(crate) fn add(&self, counter: usize, by: u64) {
        let word = self.region.word(self.lane_offset + counter);
        // Relaxed: one writer, readers only show it.
        word.store(word.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// Frames dropped before every reader had them.
    pub fn dropped(&self) -> u64 {
        self.region.word(self.lane_offset + lane::DROPPED).load(Ordering::Relaxed)
    }

    /// Counts a send that the full lane refused.
    pub fn count_rejected(&self) {
        self.add(lane::REJECTED, 1);
    }

    /// The bytes of a claim, to be written by hand or by a serializer.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn bytes(&mut self, claim: &Claim) -> &mut [core::mem::MaybeUninit<u8>] {
        assert!(claim.placement.position >= self.pending.position && claim.placement.end <= self.limit);
        // SAFETY: the claim lies past the tail (checked: at or behind `pending`) and inside what readers have passed
        // (checked: up to `limit`); this producer is the lane's only one and is borrowed exclusively.
        unsafe { self.region.claimed(claim.offset, claim.len as usize) }
    }

    /// The bytes of a claim as initialised ones: what is not written keeps what an earlier frame of this lane left there.
    #[cfg(not(loom))]
    #[allow(unsafe_code)]
    #[inline]
    pub fn bytes_by_hand(&mut self, claim: &Claim) -> &mut [u8] {
        let bytes = self.bytes(claim);
        // SAFETY: a segment is zeroed when it is made (memfd or zeroed heap) and only bytes are ever written to it, so all
        // of it is initialised; the exclusive right is that of `bytes`.
        unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<u8>(), bytes.len()) }
    }

    /// Copies a payload into a claim.
    pub fn fill(&mut self, claim: &Claim, payload: &[u8]) {
        assert!(payload.len() as u64 <= claim.len && claim.placement.end <= self.limit);
        self.region.copy_in(claim.offset, payload);
    }

    /// Ends a claim with the exact length of what was written: the frame is whole but hidden.
    ///
    /// A stamped frame begins with an extension of 16 bytes, whose first eight are `stamp_ns`.
    ///
    /// # If we die here
    /// Nothing: everything lies past the tail.
    #[inline(always)]
    pub fn finish(&mut self, claim: Claim, len: u64, stamp_ns: Option<u64>) {
        let Placement { padding, position, .. } = claim.placement;
        assert!(len <= claim.len && position >= self.pending.position);
        let sequence = self.pending.sequence as u32;
        if placed(Bug::TailBeforeFacts) {
            let position = position + cursor::frame_bytes(len);
            self.mark.publish(Place { position, sequence: self.pending.sequence + 1 });
        }
        if padding > 0 {
            let sequence = sequence + u32::from(placed(Bug::PaddingNumbered));
            let facts = Facts { len: padding - HEADER_BYTES, kind: Kind::Padding, extended: false, sequence };
            self.write_header(position - padding, facts);
        }
        if let Some(now_ns) = stamp_ns {
            assert!(len >= EXTENSION_BYTES);
            self.stamped_ns = now_ns;
            self.ring_word(position, HEADER_BYTES as usize).store(now_ns, Ordering::Relaxed);
            self.ring_word(position, HEADER_BYTES as usize + 8).store(0, Ordering::Relaxed);
        }
        let facts = Facts { len, kind: Kind::Message, extended: stamp_ns.is_some(), sequence };
        self.write_header(position, facts);
        let end = facts.end(position);
        if end - position <= OWNED_FRAME_BYTES_MAX {
            OWNED_AHEAD_BYTES.into_iter().for_each(|ahead| self.ring.prefetch_for_writing(end + ahead));
        }
        // The header behind is invalidated before this frame is published: bytes of an earlier lap there, forged or not, are
        // never taken for a frame. Only if they name that very position: a store would take the line from who polls it.
        // Relaxed: own words, published with the frame.
        let behind = self.ring_word(end, frame::POSITION);
        if behind.load(Ordering::Relaxed) == end && !placed(Bug::NextHeaderLeftAlone) {
            behind.store(0, Ordering::Relaxed);
        }
        self.pending = Place { position: end, sequence: self.pending.sequence + 1 };
    }

    #[inline(always)]
    fn write_header(&mut self, position: u64, facts: Facts) {
        // Relaxed: published by the Release of the tail mark, the record, or the commit word.
        let early = if placed(Bug::CommitWordAtOnce) { position } else { 0 };
        self.ring_word(position, frame::POSITION).store(early, Ordering::Relaxed);
        if placed(Bug::FactsAfterCommit) {
            self.late.iter_mut().for_each(|late| late.push((position, facts.pack())));
            self.hide(position);
            return;
        }
        self.ring_word(position, frame::FACTS).store(facts.pack(), Ordering::Relaxed);
        self.hide(position);
    }

    /// Notes a hidden frame.
    #[inline(always)]
    fn hide(&mut self, position: u64) {
        if position != self.tail.position {
            self.hidden.push(position);
        }
    }

    /// Forgets every hidden frame.
    pub fn abort(&mut self) {
        self.hidden.clear();
        self.pending = self.tail;
    }

    /// Publishes the hidden frames: moves the tail mark, then stores their commit words. Rings nobody.
    ///
    /// # If we die here
    /// Before the tail mark the frames do not exist, unless a record named them before; after it they are committed, and a
    /// reader that finds no commit word learns of them from the mark, the record, or the verdict.
    #[inline]
    pub fn publish(&mut self) {
        if !self.touched() {
            return;
        }
        for (position, facts) in std::mem::take(&mut self.late).into_iter().flatten() {
            self.ring_word(position, frame::FACTS).store(facts, Ordering::Relaxed);
        }
        if !placed(Bug::CommitWordsBeforeTail) {
            self.mark.publish(self.pending);
        }
        self.show(self.tail.position);
        for i in 0..self.hidden.len() {
            self.show(self.hidden[i]);
        }
        if placed(Bug::CommitWordsBeforeTail) {
            self.mark.publish(self.pending);
        }
        self.hidden.clear();
        self.tail = self.pending;
    }

    /// Stores the commit word of a hidden frame.
    #[inline]
    fn show(&self, position: u64) {
        // Release: pairs with the Acquire in `Consumer::poll`; publishes the frame's facts and payload. Itself Release because
        // the store of the tail mark before it does not keep later stores from rising.
        self.ring_word(position, frame::POSITION)
            .store(position, ordering(Site::CommitWordStore, Ordering::Release));
    }

    /// Rings the readers that the messages published since the last call concern: those asleep, or all when `all`. After
    /// [`Links::fence`].
    #[inline]
    pub fn ring_readers(&mut self, links: &mut Links, all: bool) {
        let (first, end) = (self.unrung, self.tail.sequence);
        if first == end {
            return;
        }
        self.unrung = end;
        for reader in self.readers.ends() {
            if all {
                links.ring(reader.neighbour);
            } else if reader.concerned(first, end) {
                links.ring_if_parked(reader.neighbour);
            }
        }
    }

    /// Rings for what is not published yet: a deliberate bug.
    pub(crate) fn ring_readers_early(&mut self, links: &mut Links) {
        let tail = self.tail.sequence;
        self.unrung = self.pending.sequence;
        self.readers.ends().iter().filter(|reader| reader.concerned(tail, tail)).for_each(|reader| {
            links.ring_if_parked(reader.neighbour);
        });
    }

    /// Says which cursor this producer waits for (0: none) and rings every reader that sleeps behind it, concerned or not.
    ///
    /// # If we die here
    /// Consumers ring the dead's doorbell: harmless.
    pub fn want(&mut self, cursor: u64, links: &mut Links) {
        // Relaxed and, by the caller's `Parked::set`, a SeqCst fence: pairs with `Links::fence` of a consumer that moves
        // its cursor and then looks here.
        self.region.word(self.lane_offset + lane::WANT).store(cursor, Ordering::Relaxed);
        if cursor != 0 && !left_out(Site::WantRing) {
            links.fence_whole();
            for reader in self.readers.ends().iter().filter(|r| r.is_behind(cursor)) {
                links.ring_if_parked(reader.neighbour);
            }
        }
    }

    /// Whether there are hidden frames.
    #[inline]
    pub fn touched(&self) -> bool {
        self.pending.position != self.tail.position
    }

    /// Counts a wait for space.
    pub fn count_blocked(&self) {
        self.add(lane::BLOCKED, 1);
    }
}
