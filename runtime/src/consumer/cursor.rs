//! How far a consumer is: what an ack moves.

use super::{Frame, Member};
use crate::bug::{Bug, placed};
use crate::layout::input;
use crate::links::Links;
use crate::mark::{MarkWriter, Place};
use crate::region::{Region, Row};
use crate::sync::Ordering;

/// The part of a consumer that an ack moves.
pub struct Cursor {
    region: Region,
    offset: usize,
    pub(super) at: Place,
    /// Where the last message lies that a step took along behind the one at the cursor.
    along: Place,
    /// The position up to which the producer knows that it may reuse space.
    published: u64,
    mark: MarkWriter,
    pub(super) missed: u64,
    neighbour: usize,
    want_offset: usize,
    /// The want of the producer's newest incarnation, as of this version of the links.
    want: (u64, Option<Row<1>>),
    rung_want: u64,
    /// Where the lane is shared in a group, that counts and not the cursor.
    pub(super) member: Option<Member>,
}

impl Cursor {
    /// The cursor whose input's line lies at `offset` of the own segment, and whose lane's want lies at `want_offset` of the
    /// producer's.
    pub(super) fn new(
        region: Region,
        offset: usize,
        at: Place,
        mark: MarkWriter,
        neighbour: usize,
        want_offset: usize,
    ) -> Self {
        let (missed, rung_want, member, published, along) = (0, 0, None, at.position, Place::default());
        let want = (u64::MAX, None);
        Cursor {
            region,
            offset,
            at,
            along,
            published,
            mark,
            missed,
            neighbour,
            want_offset,
            want,
            rung_want,
            member,
        }
    }

    /// Makes it a member of a group that shares the lane.
    pub(super) fn join(&mut self, membership: super::Membership) {
        self.member = Some(Member::new(membership, self.region.clone(), self.offset, self.at));
    }

    /// Whether the lane is shared in a group.
    #[inline]
    pub fn in_group(&self) -> bool {
        self.member.is_some()
    }

    /// Notes that a step took along a frame that [`Sources::behind`](super::Sources::behind) found: it is acknowledged with all
    /// before it.
    #[inline]
    pub fn take_along(&mut self, frame: &Frame) {
        if placed(Bug::TakenAlongAcknowledged) {
            self.mark.publish(frame.at);
        }
        self.along = frame.at;
    }

    /// Moves over a frame and all that were taken before it in the same step, privately; in a group, settles it as done. Returns how
    /// many they are.
    ///
    /// # If we die here
    /// In a group: before the swap of the claim word the message is done if the record says so, else it is free again.
    ///
    /// # Panics
    /// When it is neither the message at the cursor nor the last that was taken along: that is our own bug.
    #[inline]
    pub fn advance(&mut self, frame: &Frame) -> u64 {
        match &mut self.member {
            Some(member) => {
                member.finish(frame);
                1
            }
            None => {
                let along = frame.at == self.along && frame.at.position > self.at.position;
                assert!(frame.at == self.at || along, "a frame is acknowledged once, in order");
                let before = std::mem::replace(&mut self.at, frame.next());
                self.at.sequence - before.sequence
            }
        }
    }

    /// Publishes the cursor.
    ///
    /// # If we die here
    /// Before the store the message comes again, unless a record named the cursor before; after it, it does not.
    #[inline]
    pub fn publish(&mut self) {
        match &self.member {
            Some(member) => self.published = member.frontier().position,
            None => {
                self.mark.publish(self.at);
                self.published = self.at.position;
            }
        }
    }

    /// Whether it stands where the producer sees it.
    #[inline]
    pub(super) fn is_published(&self) -> bool {
        self.published == self.at.position
    }

    /// Publishes what polling moved over without a message for this consumer, or what dead members left done. True when there
    /// was something; the caller then looks at the producer's want.
    #[inline]
    pub(super) fn publish_skipped(&mut self) -> bool {
        let before = self.published;
        match &self.member {
            Some(member) => {
                member.advance();
                self.published = member.frontier().position;
            }
            None if self.at.position != before => self.publish(),
            None => {}
        }
        self.published != before
    }

    /// Publishes the cursor behind a frame that it stays before: a deliberate bug.
    pub(crate) fn publish_early(&mut self, frame: &Frame) {
        match &self.member {
            Some(member) => member.finish_early(frame),
            None => self.mark.publish(frame.next()),
        }
    }

    /// Where the cursor stands, privately.
    pub fn at(&self) -> Place {
        self.at
    }

    /// Rings the producer when it waits for space that the cursor has passed. After [`Links::fence`].
    #[inline]
    pub fn ring_if_wanted(&mut self, links: &mut Links) {
        if self.want.0 != links.version() {
            self.look_up_want(links);
        }
        let Some(want) = &self.want.1 else { return };
        // Relaxed: ordered by the fence before; a wrong word costs a ring.
        let want = want.word(0).load(Ordering::Relaxed);
        if placed(Bug::WantForgotten) || placed(Bug::GroupWantForgotten) && self.in_group() {
            return;
        }
        if want != 0 && want != self.rung_want && self.published >= want {
            self.rung_want = want;
            links.ring(self.neighbour);
        }
    }

    #[cold]
    fn look_up_want(&mut self, links: &Links) {
        let newest = links.neighbour(self.neighbour).newest();
        self.want = (links.version(), newest.map(|link| Row::new(&link.region, self.want_offset)));
    }

    /// Moves over messages that are lost to this consumer.
    pub(super) fn miss(&mut self, to: Place, missed: u64) {
        self.at = to;
        self.count_missed(missed);
    }

    /// Counts messages that are lost.
    pub(super) fn count_missed(&mut self, missed: u64) {
        self.missed += missed;
        // Relaxed: one writer, readers only show it.
        self.region.word(self.offset + input::MISSED).store(self.missed, Ordering::Relaxed);
    }
}
