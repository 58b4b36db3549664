//! The reading end of a lane: poll, lease, ack, through a producer's whole lineage.
//!
//! A consumer reads the ring of one incarnation up to its verdict, then the next one's; positions go on. It believes a
//! frame when its commit word names its position, or when it lies before what the producer's mark and record, or its
//! verdict, say is committed. Every fact is read once, checked, and only the local is used.
//!
//! ```text
//!   Consumer ── Sources   the producer's rings, oldest first; what is read from them is checked there
//!            └─ Cursor    what was acknowledged: a mark of its own
//!                  └─ Member   or, where a group shares the lane, claims in the group's table
//! ```

use crate::board::{Board, VerdictKind};
use crate::bug::{Bug, placed};
use crate::cursor::{HEADER_BYTES, frame_bytes};
use crate::incarnation::{Incarnation, PeerFault};
use crate::layout::{SegmentShape, input, lane};
use crate::links::Links;
use crate::mark::{self, MarkWriter, Place};
use crate::region::Region;
use crate::sync::Site;
use member::Member;
use sources::{CHASES_MAX, Look};
use std::sync::Arc;

mod cursor;
mod member;
mod sources;

pub use cursor::Cursor;
pub use member::Membership;
pub use sources::{Glance, Sources};

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

/// A message that failed. No message lies at position 0, so the default means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(loom), derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize))]
pub struct Given {
    /// Where it begins.
    pub position: u64,
    /// How often it was given in vain: 0 when it only failed a step that others began; [`Given::SETTLED`] when it lies with the dead letters
    /// and is only to be acknowledged.
    pub attempts: u32,
}

impl Given {
    /// More attempts than any bound.
    pub const SETTLED: u32 = u32::MAX;
}

/// A frame that was polled and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins.
    pub at: Place,
    /// Who wrote it.
    pub from: Incarnation,
    /// How often it was given in vain before: to other members of the group, or to incarnations before this one.
    pub attempts: u32,
    /// Bytes of its payload: a frame's length has 28 bits.
    len: u32,
    /// Bytes from its begin to its payload.
    skip: u32,
    /// Of a frame that says so.
    stamp_ns: u64,
}

impl Frame {
    /// Place of the cursor once the frame is acknowledged.
    #[inline]
    pub fn next(&self) -> Place {
        let behind_header = u64::from(self.skip) + u64::from(self.len) - HEADER_BYTES;
        Place { position: self.at.position + frame_bytes(behind_header), sequence: self.at.sequence + 1 }
    }

    /// Bytes of its payload.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len as usize
    }

    /// Position of its payload.
    #[inline]
    fn payload(&self) -> u64 {
        self.at.position + u64::from(self.skip)
    }

    /// When it was published, CLOCK_MONOTONIC ns, for the sampled frames that say so.
    pub fn stamp_ns(&self) -> Option<u64> {
        (u64::from(self.skip) > HEADER_BYTES).then_some(self.stamp_ns)
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
        let mark = MarkWriter::new(&region, offset + input::CURSOR, Site::CursorStore);
        let want_offset = producer.lane_offset(end.lane) + lane::WANT;
        let sources = Sources::new(producer, end.lane, end.share.1 == 1);
        let cursor = Cursor::new(region, offset, at, mark, end.neighbour, want_offset);
        Consumer { sources, cursor, end, version: u64::MAX }
    }

    /// Takes over what the supervisor knows of attempts of incarnations before this one.
    pub fn told(&mut self, given: Given) {
        self.sources.told(given);
    }

    /// Copies every message before it is looked at: its producer may change any byte at any time.
    pub fn copy_each(&mut self) {
        self.sources.copy_each();
    }

    /// Makes it a member of a group that shares the lane: it takes the messages that it claims.
    pub fn join(&mut self, membership: Membership) {
        self.sources.pin_by(membership.table.clone());
        self.cursor.join(membership);
    }

    /// Whether there is anything to look at: an incarnation of the producer.
    #[inline]
    pub fn has_source(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether a group shares the lane.
    #[inline]
    pub fn in_group(&self) -> bool {
        self.cursor.in_group()
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
        let newest = self.sources.newest();
        for link in neighbour.links().filter(|l| l.incarnation.generation > newest) {
            self.sources.add(link.incarnation, link.region.clone());
        }
        if !placed(Bug::VerdictOverlooked) {
            self.sources.end_by(|incarnation| {
                let verdict = links.board.verdict(incarnation)?;
                let end = *verdict.lanes.get(self.end.lane)?;
                Some((end, verdict.kind == VerdictKind::Corrupt))
            });
        }
        self.version = links.version();
    }

    /// The oldest incarnation that is still needed; older ones may be let go.
    pub fn oldest_needed(&self) -> u32 {
        self.sources.oldest()
    }

    /// Whether everything was taken that the producer committed before its last verdict.
    pub fn drained(&self, board: &Board, agent: u32) -> bool {
        let last = board.last_verdict(agent);
        if last < board.generation(agent) {
            return false;
        }
        let verdict = board.verdict(Incarnation { agent, generation: last });
        let end = verdict.and_then(|v| v.lanes.get(self.end.lane).copied());
        last == 0
            || end.is_some_and(|end| match &self.cursor.member {
                Some(member) => member.has_passed(end),
                None => self.cursor.at.position >= end.position,
            })
    }

    /// The fingerprint that the lane's producer declared; 0 when it did not yet.
    pub fn fingerprint(&self) -> u64 {
        self.sources.fingerprint()
    }

    /// A quick look: finds what [`Consumer::poll`] would find, or says that this is to be asked. Who spins sees a message as soon as
    /// this turns round.
    #[inline(always)]
    pub fn glance(&self) -> Glance {
        if self.cursor.is_published() { self.sources.glance(self.cursor.at) } else { Glance::Unusual }
    }

    /// Has the next message fetched whole, if it is small, when it comes: for who looks again at once.
    #[inline(always)]
    pub fn foresee(&self) {
        self.sources.foresee(self.cursor.at);
    }

    /// Looks for the next message for this consumer. Skips padding, other members' messages, and exhausted incarnations.
    pub fn poll(&mut self) -> Polled {
        if self.cursor.in_group() {
            return self.poll_in_group();
        }
        let mut gaps = 0;
        loop {
            match self.sources.look(self.cursor.at) {
                Look::Message(frame) if self.takes(frame.at.sequence) => return Polled::Frame(frame),
                Look::Message(frame) => self.cursor.at = frame.next(),
                Look::Skip(next) => self.cursor.at = next,
                Look::Exhausted => self.sources.let_go_of_oldest(),
                Look::Gap(to, missed) => {
                    self.cursor.miss(to, missed);
                    gaps += 1;
                    if gaps > CHASES_MAX {
                        return Polled::Empty;
                    }
                }
                Look::Empty | Look::Passed => return Polled::Empty,
                Look::Fault(fault) => return Polled::Fault(fault),
            }
        }
    }

    /// The message that this member of a group claimed already and is to work on next.
    pub fn claimed_ahead(&self) -> Option<Frame> {
        self.cursor.member.as_ref()?.next(true)
    }

    /// Looks for a message that this member holds or can claim.
    ///
    /// # If we die here
    /// As in `Member::meet`.
    fn poll_in_group(&mut self) -> Polled {
        let Consumer { sources, cursor, .. } = self;
        loop {
            let Some(member) = &mut cursor.member else { return Polled::Empty };
            if let Some(frame) = member.next(false) {
                return Polled::Frame(frame);
            }
            if member.catch_up() {
                sources.seek(member.walk, member.frontier());
            }
            match sources.look(member.walk) {
                // Nobody may claim it yet. Who moves the frontier is awake and comes here next; it rings nobody.
                Look::Message(frame) if member.is_beyond_reach(&frame) => {
                    return member.next(true).map_or(Polled::Empty, Polled::Frame);
                }
                Look::Message(frame) => member.meet(frame),
                Look::Skip(next) => member.walk = next,
                Look::Exhausted => sources.seek(member.walk, member.frontier()),
                Look::Passed => {}
                Look::Gap(to, _) => match member.forfeit(to) {
                    0 => return member.next(true).map_or(Polled::Empty, Polled::Frame),
                    missed => cursor.count_missed(missed),
                },
                Look::Empty if member.is_behind() => {}
                Look::Empty => return member.next(true).map_or(Polled::Empty, Polled::Frame),
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
        let at = self.cursor.member.as_ref().map_or(self.cursor.at, |member| member.walk);
        self.sources.confirm(at)
    }

    /// Publishes the cursor if polling moved it over what was not for this consumer; in a group, if `thorough`, moves the
    /// frontier over what dead members left done. True if so. The caller then looks at the producer's want.
    ///
    /// # If we die here
    /// The successor skips the same frames again.
    #[inline]
    pub fn publish_skipped(&mut self, thorough: bool) -> bool {
        (thorough || !self.cursor.in_group()) && self.cursor.publish_skipped()
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
