//! Waking: what who sleeps and who publishes owe each other. The models run this very code.
//!
//! Who sleeps announces it, fences, looks at everything once more, and only then sleeps. Who publishes a frame, a cursor or
//! a want fences, and then looks at the epoch and at who sleeps. Of the two, at least one sees the other. No clock and no
//! descriptor is named here: [`Port`] stands for both.

use crate::bug::{Bug, placed};
use crate::consumer::{Consumer, Cursor, Frame, Polled};
use crate::desk::{Counter, Desk};
use crate::incarnation::PeerFault;
use crate::links::{Links, Port};
use crate::producer::{Claim, Claimed, Producer};
use crate::sync::{Site, left_out};
use std::io;
use std::time::Instant;

/// An agent as far as waking goes.
pub trait Party {
    /// Where it sleeps and hears of links.
    type Port: Port;

    /// Its links, its port, and its desk.
    fn parts(&mut self) -> (&mut Links, &mut Self::Port, &Desk);
}

/// Who makes the fence that a sleep needs between what others store and their look at who sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// The sleeper, for all: each time a system call, which interrupts every peer that runs.
    Own,
    /// Where that was done once, those who publish: a sleep for messages, whose parked word they look at. Who reads looks at a want, and
    /// that says nothing of fences.
    Left,
}

/// Sleeps until `look` finds something, or the deadline.
///
/// `look` is called with `true` before each sleep: thoroughly.
///
/// # Errors
/// As [`Port::receive`].
pub fn park<P: Party, T>(
    party: &mut P,
    by: Fence,
    deadline: Option<Instant>,
    look: &mut impl FnMut(&mut P, bool) -> Option<T>,
) -> io::Result<Option<T>> {
    loop {
        let (links, port, desk) = party.parts();
        // Announce, then look at everything once more: headers, records, the board. Either way fences in between.
        match by {
            Fence::Own => desk.parked().set(),
            Fence::Left => links.leave_fence(&desk.parked()),
        }
        if links.stale() {
            links.sync(port)?;
        }
        let found = if left_out(Site::LookBeforeSleep) { None } else { look(party, true) };
        let (links, port, desk) = party.parts();
        if found.is_some() || deadline.is_some_and(|at| Instant::now() >= at) {
            desk.parked().clear();
            return Ok(found);
        }
        desk.count(Counter::Sleeps, 1);
        let heard = port.sleep(deadline)?;
        desk.parked().clear();
        if heard {
            links.sync(port)?;
        }
        // Mostly it was woken for what lies there now: found before the next sleep is announced, which costs a system call.
        if let Some(found) = look(party, false) {
            return Ok(Some(found));
        }
    }
}

/// After something was published or acknowledged and fenced: takes over new links if the board moved. True if so: the
/// caller then rings unconditionally.
///
/// # Errors
/// As [`Port::receive`].
#[inline(always)]
pub fn moved(links: &mut Links, port: &mut impl Port) -> io::Result<bool> {
    if left_out(Site::EpochLook) || !links.stale() {
        return Ok(false);
    }
    links.sync(port)?;
    Ok(true)
}

/// Publishes the hidden frames of all lanes and, if the step had an input, its cursor; then rings who sleeps and is
/// concerned. Returns how many were rung.
///
/// # If we die here
/// As in [`Producer::publish`] and [`Cursor::publish`]; of a death the supervisor tells all ends, rung or not.
///
/// # Errors
/// As [`Port::receive`]; everything is published then.
#[inline(always)]
pub fn publish_and_ring<P: Party>(
    producers: &mut [Producer],
    mut input: Option<(&mut Cursor, &Frame)>,
    party: &mut P,
) -> io::Result<u64> {
    let (links, port, desk) = party.parts();
    let before = links.rings();
    if placed(Bug::RingBeforePublish) {
        producers.iter_mut().filter(|p| p.touched()).for_each(|p| p.ring_readers_early(links));
    }
    let sent = match producers {
        // Nearly always: without a loop, which is 25 instructions less.
        [producer] => publish_one(producer, desk),
        _ => producers.iter_mut().map(|producer| publish_one(producer, desk)).sum(),
    };
    if let Some((cursor, frame)) = &mut input {
        let received = cursor.advance(frame);
        cursor.publish();
        desk.count(Counter::Received, received);
    }
    if !producers.is_empty() {
        desk.count(Counter::Sent, sent);
    }
    links.fence();
    let moved = moved(links, port)?;
    if !placed(Bug::RingForgotten) {
        producers.iter_mut().for_each(|producer| producer.ring_readers(links, moved));
    }
    if let Some((cursor, _)) = &mut input {
        cursor.ring_if_wanted(links);
    }
    let rung = links.rings() - before;
    if rung > 0 {
        desk.count(Counter::Rings, rung);
    }
    Ok(rung)
}

/// Publishes the hidden frames of a lane, if there are any. Returns how many messages they are.
#[inline(always)]
fn publish_one(producer: &mut Producer, desk: &Desk) -> u64 {
    if !producer.touched() {
        return 0;
    }
    let sent = producer.pending().sequence - producer.tail().sequence;
    producer.publish();
    desk.note_sent(producer.lane(), producer.tail(), producer.stamped_ns());
    sent
}

/// One look of a producer that waits for space: says again what it wants before a sleep, and claims; one that is choosy, only where a
/// good part of the ring is free.
pub fn look_for_space(
    producer: &mut Producer,
    len: u64,
    want: u64,
    thorough: bool,
    choosy: bool,
    links: &mut Links,
) -> (Option<Claim>, Vec<PeerFault>) {
    if thorough {
        // Readers that were given up meanwhile, or that sleep behind what they do not want.
        producer.want(want, links);
    }
    if choosy && !producer.is_roomy(links) {
        return (None, producer.take_faults());
    }
    let claim = match producer.claim(len, links) {
        Claimed::Space(claim) => Some(claim),
        Claimed::Full { .. } | Claimed::Never => None,
    };
    (claim, producer.take_faults())
}

/// One look at an input: polls, before a sleep also what records say, and acknowledges what was skipped.
pub fn look_at_input(consumer: &mut Consumer, thorough: bool, links: &mut Links) -> Polled {
    let mut polled = consumer.poll();
    if thorough && polled == Polled::Empty {
        polled = match consumer.confirm() {
            Ok(true) => consumer.poll(),
            Ok(false) => Polled::Empty,
            Err(fault) => Polled::Fault(fault),
        };
    }
    if consumer.publish_skipped(thorough) {
        links.fence();
        let (_, cursor) = consumer.split();
        cursor.ring_if_wanted(links);
    }
    polled
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::board::BoardWriter;
    use crate::hostile::Arrived;
    use crate::incarnation::Incarnation;
    use crate::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
    use crate::mark::Place;
    use crate::region::Region;
    use crate::segment::{self, Origin};
    use crate::{cursor, recorder};

    struct Alone(Links, Arrived, Desk);

    impl Party for Alone {
        type Port = Arrived;

        fn parts(&mut self) -> (&mut Links, &mut Arrived, &Desk) {
            (&mut self.0, &mut self.1, &self.2)
        }
    }

    // Goal: what a crash report says was sent last names the lane, also when a step sent on one of several only. Method: publish that
    // one alone, as such a step does, and read the flight recorder.
    #[test]
    fn who_sends_on_one_of_its_lanes_is_recorded_with_that_lane() {
        let capacity = 4096;
        let lane = |channel| LaneShape { capacity_bytes: capacity, when_full: WhenFull::Block, channel };
        let shape = SegmentShape { lanes: (0..3).map(lane).collect(), input_count: 0, state_bytes: 0 };
        let place = Place { position: cursor::first_position(capacity), sequence: 0 };
        let incarnation = Incarnation { agent: 0, generation: 1 };
        let origin =
            Origin { swarm: 1, incarnation, lanes: vec![place; 3], inputs: Vec::new(), state: Vec::new() };
        let region = segment::heap(&shape, &origin);
        let board = BoardShape { channel_count: 3, agents: vec![(3, 0)], ..BoardShape::default() };
        let writer = BoardWriter::create(Region::heap(board.total_bytes()), board, 1);
        let links = Links::new(writer.view().clone(), Vec::new());
        let mut alone = Alone(links, Arrived(Vec::new()), Desk::new(region.clone()));
        let mut producers: Vec<Producer> =
            (0..3).map(|index| Producer::open(region.clone(), &shape, index, Vec::new())).collect();
        for index in [2, 0, 1] {
            let Claimed::Space(claim) = producers[index].claim(8, &alone.0) else { panic!("there is room") };
            producers[index].finish(claim, 8, None);
            publish_and_ring(&mut producers[index..=index], None, &mut alone).expect("nothing can fail");
        }
        let lanes: Vec<usize> = recorder::read(&region).sent.iter().map(|sent| sent.lane).collect();
        assert_eq!(lanes, [2, 0, 1]);
    }
}
