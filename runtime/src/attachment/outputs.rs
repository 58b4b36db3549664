//! The writing ends of an incarnation: writing hidden frames, waiting for space, committing a step.

use super::World;
use crate::board::Request;
use crate::bug::{Bug, placed};
use crate::commit::{Committer, Key};
use crate::consumer::{Cursor, Frame};
use crate::desk::Counter;
use crate::layout::WhenFull;
use crate::links::Port;
use crate::mark::Place;
use crate::producer::{Claim, Claimed, Producer, ReaderEnd};
use crate::state::StateWriter;
use crate::waking::{self, Fence};
use crate::wire::{self, Manifest};
use crate::{Region, clock};
use std::io;
use std::time::{Duration, Instant};

/// Every so many messages of a lane one carries the time of its publishing.
const STAMP_EVERY: u64 = 64;

/// So long who waits for space is content with nothing less than a good part of the ring: who takes each place as soon as it is free soon
/// waits again, is woken for every message, and looks at cursors that their readers want to move.
const CHOOSY: Duration = Duration::from_millis(1);
/// Afterwards so many looks, as long as it spins, still are.
const ROOM_LOOKS_MAX: u32 = 512;
/// Of those every so many really looks.
const ROOM_LOOKED_FOR_EVERY: u32 = 16;

/// The writing ends, and the commit record.
pub struct Outputs {
    pub(super) producers: Vec<Producer>,
    /// The lanes that hold hidden frames.
    touched: Vec<usize>,
    committer: Committer,
    stamp_next: bool,
    state: StateWriter,
}

/// Why a send did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The lane is full and its channel says `reject`.
    Full,
    /// The lane stayed full until the deadline.
    TimedOut,
    /// It would never fit: longer than half the ring, or with the step's other messages longer than the ring.
    TooLarge {
        /// The longest payload that the lane takes.
        max_bytes: u64,
    },
    /// It waited for space, and the supervisor asks for an end.
    Stopping,
    /// What was to be encoded refused.
    Refused,
}

/// What writes itself into a claim.
pub trait Encode {
    /// Writes into the slot and says how many bytes; `None` when it is too small.
    fn fill(&mut self, slot: &mut [core::mem::MaybeUninit<u8>]) -> Option<usize>;
    /// The bytes that it takes exactly; `None` when it cannot be encoded at all.
    fn exact(&mut self) -> Option<usize>;
}

impl Outputs {
    /// Opens the lanes that a manifest names in the own segment; `claims` are those of the manifest, mapped.
    pub fn open(region: &Region, manifest: &Manifest, claims: &[Region]) -> Self {
        let reader = |r: &wire::ReaderEntry| {
            let group = r.group.map(|group| group as usize);
            ReaderEnd::new(r.neighbour as usize, r.input as usize, r.share).in_group(group)
        };
        let producers = manifest.lanes.iter().enumerate().map(|(i, lane)| {
            let readers = lane.readers.iter().map(reader).collect();
            let mut producer = Producer::open(region.clone(), &manifest.shape, i, readers);
            lane.groups.iter().for_each(|entry| producer.add_group(super::table(entry, claims)));
            producer
        });
        let producers: Vec<Producer> = producers.collect();
        let committer = Committer::new(region, &manifest.shape, manifest.generation);
        Outputs {
            touched: Vec::with_capacity(producers.len()),
            producers,
            committer,
            stamp_next: false,
            state: StateWriter::open(region.clone(), &manifest.shape),
        }
    }

    /// A lane's writing end.
    #[inline]
    pub fn producer(&self, lane: usize) -> &Producer {
        &self.producers[lane]
    }

    /// Lets `write` write hidden frames through a lane's end itself.
    pub fn write_through<R>(&mut self, lane: usize, write: impl FnOnce(&mut Producer) -> R) -> R {
        let producer = &mut self.producers[lane];
        let first = !producer.touched();
        let written = write(producer);
        let began = first && producer.touched();
        self.note_touched(lane, began);
        written
    }

    /// Writes one hidden frame: claims, lets the message write itself into the claim, waits for space as the channel says.
    ///
    /// A first try takes the room at the tail as it is, so that a message is measured only when that was too small.
    ///
    /// # Errors
    /// The outer: as [`Port::receive`]. The inner: why it was not written.
    #[inline]
    pub fn write<P: Port>(
        &mut self,
        lane: usize,
        world: &mut World<P>,
        timeout: Option<Duration>,
        message: &mut impl Encode,
    ) -> io::Result<Result<(), SendError>> {
        let stamp_ns = self.stamp(lane);
        let producer = &mut self.producers[lane];
        let first = !producer.touched();
        if let Some(claim) = producer.claim_room()
            && try_fill(producer, claim, stamp_ns, message)
        {
            self.note_touched(lane, first);
            return Ok(Ok(()));
        }
        self.write_measured(lane, world, timeout, stamp_ns, message)
    }

    /// Writes a message that did not fit into the room at the tail.
    #[cold]
    fn write_measured<P: Port>(
        &mut self,
        lane: usize,
        world: &mut World<P>,
        timeout: Option<Duration>,
        stamp_ns: Option<u64>,
        message: &mut impl Encode,
    ) -> io::Result<Result<(), SendError>> {
        let first = !self.producers[lane].touched();
        let Some(len) = message.exact() else { return Ok(Err(SendError::Refused)) };
        let claim = match self.claim(lane, len as u64 + skip_bytes(stamp_ns), world, timeout)? {
            Ok(claim) => claim,
            Err(error) => return Ok(Err(error)),
        };
        let filled = try_fill(&mut self.producers[lane], claim, stamp_ns, message);
        assert!(filled, "a message is encoded in as many bytes as it was measured to take");
        self.note_touched(lane, first);
        Ok(Ok(()))
    }

    #[inline]
    fn note_touched(&mut self, lane: usize, first: bool) {
        if first {
            self.touched.push(lane);
        }
    }

    /// Writes one hidden frame by hand: claims `len` bytes and lets `fill` write them and say how many it used.
    ///
    /// # Errors
    /// The outer: as [`Port::receive`]. Then: why there was no claim. The inner: `fill`'s own, and nothing was written.
    #[inline]
    pub fn write_by_hand<P: Port, E>(
        &mut self,
        lane: usize,
        len: usize,
        world: &mut World<P>,
        timeout: Option<Duration>,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> io::Result<Result<Result<(), E>, SendError>> {
        let stamp_ns = self.stamp(lane);
        let skip = skip_bytes(stamp_ns);
        let needed = (len as u64).saturating_add(skip);
        let claim = match self.producers[lane].claim_room().filter(|room| room.len >= needed) {
            Some(room) => room,
            None => match self.claim(lane, needed, world, timeout)? {
                Ok(claim) => claim,
                Err(error) => return Ok(Err(error)),
            },
        };
        let producer = &mut self.producers[lane];
        let first = !producer.touched();
        let filled = fill(&mut producer.bytes_by_hand(&claim)[skip as usize..needed as usize]);
        if let Ok(used) = filled {
            assert!(used <= len, "a claim of {len} bytes was filled with {used}");
            producer.finish(claim, used as u64 + skip, stamp_ns);
            self.note_touched(lane, first);
        }
        Ok(Ok(filled.map(|_| ())))
    }

    /// The time for the next frame's header, if it is one of the sampled.
    #[inline]
    fn stamp(&mut self, lane: usize) -> Option<u64> {
        let next = std::mem::take(&mut self.stamp_next);
        let sampled = next || self.producers[lane].pending().sequence.is_multiple_of(STAMP_EVERY);
        sampled.then(clock::now_ns)
    }

    /// Claims space for a payload of `len` bytes, waiting as the channel says, but not when asked to stop.
    ///
    /// # Errors
    /// As [`Outputs::write`].
    pub fn claim<P: Port>(
        &mut self,
        lane: usize,
        len: u64,
        world: &mut World<P>,
        timeout: Option<Duration>,
    ) -> io::Result<Result<Claim, SendError>> {
        let producer = &mut self.producers[lane];
        let max_bytes = producer.payload_max();
        let mut claimed = producer.claim(len, &world.links);
        if matches!(claimed, Claimed::Full { .. }) && world.moved()? {
            claimed = producer.claim(len, &world.links);
        }
        producer.take_faults().into_iter().for_each(|fault| world.note(fault));
        match claimed {
            Claimed::Space(claim) => Ok(Ok(claim)),
            Claimed::Never => Ok(Err(SendError::TooLarge { max_bytes })),
            Claimed::Full { .. } if producer.when_full() != WhenFull::Block => {
                producer.count_rejected();
                world.desk.count(Counter::Rejected, 1);
                Ok(Err(SendError::Full))
            }
            Claimed::Full { want } => {
                producer.count_blocked();
                world.desk.count(Counter::Blocked, 1);
                // The clock is read only now that there is a wait. A time-out beyond its range is none.
                let now = Instant::now();
                let deadline = timeout.and_then(|t| now.checked_add(t));
                let choosy = deadline.map_or(now + CHOOSY, |deadline| deadline.min(now + CHOOSY));
                let roomy = Wish { len, want: producer.want_of_room(want), choosy: true };
                let mut found = wait_for_space(producer, world, Some(choosy), roomy);
                if let Ok(None) = found {
                    found = wait_for_space(producer, world, deadline, Wish { len, want, choosy: false });
                }
                producer.want(0, &mut world.links);
                // Waiting for space is no hang of who waits.
                world.desk.still_at_it(clock::coarse_ns());
                Ok(found?.unwrap_or(Err(SendError::TimedOut)))
            }
        }
    }

    /// Forgets every hidden frame.
    pub fn abort(&mut self) {
        if !placed(Bug::AbortForgotten) {
            self.touched.drain(..).for_each(|lane| self.producers[lane].abort());
        }
        self.state.abort();
    }

    /// The agent's state: a change is part of the step.
    pub fn state(&mut self) -> &mut StateWriter {
        &mut self.state
    }

    /// Commits a step: its hidden frames on all lanes and, if it had one, its input. Then publishes and rings.
    ///
    /// A step that only sends on one lane commits by the lane's tail mark, one that only acknowledges by the cursor mark.
    ///
    /// # If we die here
    /// Before the record's number (or the one tail mark) nothing of the step exists; after it all of it does, whether marks,
    /// headers and cursor were published or not.
    ///
    /// # Errors
    /// As [`Port::receive`]; the step is committed then.
    pub fn commit<P: Port>(
        &mut self,
        mut input: Option<(usize, &mut Cursor, &Frame)>,
        world: &mut World<P>,
    ) -> io::Result<()> {
        if let Some((_, cursor, frame)) = &mut input
            && (placed(Bug::AcknowledgeBeforeCommit) || placed(Bug::ClaimSettledEarly) && cursor.in_group())
        {
            cursor.publish_early(frame);
        }
        if self.touched.is_empty() && !self.state.changed() {
            // Of a step that only acknowledges nothing else is asked.
            return publish(&mut [], input, &mut self.stamp_next, world);
        }
        if self.state.changed()
            || self.touched.len() + usize::from(input.is_some()) > 1 + usize::from(placed(Bug::RecordSpared))
        {
            if placed(Bug::PublishBeforeCommit) {
                self.producers.iter_mut().for_each(Producer::publish);
            }
            let named = if placed(Bug::StateSlotKept) { 1 } else { self.state.named() };
            self.committer.name_state(named);
            let mut record = self.committer.draft();
            match self.touched[..] {
                // Nearly always: without a loop.
                [lane] => record.add(Key::Lane(lane), end_of(&self.producers[lane])),
                _ => {
                    for &lane in &self.touched {
                        if lane == 0 || !placed(Bug::RecordWithoutLastLane) {
                            record.add(Key::Lane(lane), end_of(&self.producers[lane]));
                        }
                    }
                }
            }
            if let Some((index, cursor, frame)) = input.as_ref().filter(|_| !placed(Bug::RecordWithoutInput))
            {
                match cursor.in_group() {
                    true if placed(Bug::RecordWithoutClaim) => {}
                    true => record.add(Key::Claim(*index), frame.at),
                    false if placed(Bug::RecordBeforeLast) && frame.at != cursor.at() => {
                        record.add(Key::Input(*index), frame.at);
                    }
                    false => record.add(Key::Input(*index), frame.next()),
                }
            }
            record.commit();
            self.state.commit();
        }
        let touched = match self.touched[..] {
            [lane] => std::slice::from_mut(&mut self.producers[lane]),
            _ => &mut self.producers[..],
        };
        self.touched.clear();
        publish(touched, input, &mut self.stamp_next, world)
    }
}

/// Publishes what is committed, and rings; a ring makes the next frame carry its time.
#[inline(always)]
fn publish<P: Port>(
    touched: &mut [Producer],
    input: Option<(usize, &mut Cursor, &Frame)>,
    stamp_next: &mut bool,
    world: &mut World<P>,
) -> io::Result<()> {
    world.note_message();
    let input = input.map(|(_, cursor, frame)| (cursor, frame));
    if waking::publish_and_ring(touched, input, world)? > 0 {
        *stamp_next = true;
    }
    Ok(())
}

/// What a producer waits for.
struct Wish {
    /// Space for a payload of so many bytes,
    len: u64,
    /// which is there when readers have passed this cursor;
    want: u64,
    /// and besides a good part of the ring.
    choosy: bool,
}

/// Waits for space: a claim, why there will be none, or `None` when it took too long.
fn wait_for_space<P: Port>(
    producer: &mut Producer,
    world: &mut World<P>,
    deadline: Option<Instant>,
    wish: Wish,
) -> io::Result<Option<Result<Claim, SendError>>> {
    let Wish { len, want, choosy } = wish;
    producer.want(want, &mut world.links);
    let mut looks = 0;
    world.wait_by(Some(Fence::Own), deadline, |world, thorough| {
        looks += 1;
        let any_will_do = !choosy && (thorough || looks >= ROOM_LOOKS_MAX);
        if any_will_do || thorough || looks % ROOM_LOOKED_FOR_EVERY == 0 {
            let (claim, faults) =
                waking::look_for_space(producer, len, want, thorough, !any_will_do, &mut world.links);
            faults.into_iter().for_each(|fault| world.note(fault));
            if let Some(claim) = claim {
                return Some(Ok(claim));
            }
        }
        (world.request() == Request::Stop).then_some(Err(SendError::Stopping))
    })
}

/// Where a record puts a lane.
#[inline(always)]
fn end_of(producer: &Producer) -> Place {
    let Place { position, sequence } = producer.pending();
    Place { position, sequence: sequence + u64::from(placed(Bug::RecordNumberedAhead)) }
}

fn skip_bytes(stamp_ns: Option<u64>) -> u64 {
    if stamp_ns.is_some() { crate::frame::EXTENSION_BYTES } else { 0 }
}

#[inline(always)]
fn try_fill(producer: &mut Producer, claim: Claim, stamp_ns: Option<u64>, message: &mut impl Encode) -> bool {
    let skip = skip_bytes(stamp_ns) as usize;
    let Some(slot) = producer.bytes(&claim).get_mut(skip..) else { return false };
    let Some(written) = message.fill(slot) else { return false };
    producer.finish(claim, (written + skip) as u64, stamp_ns);
    true
}
