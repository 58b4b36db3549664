//! The reading ends of an incarnation: looking at them in turns, closing, draining.

use super::World;
use crate::board::Request;
use crate::consumer::{Consumer, Frame, Glance, InputEnd, Membership, Polled};
use crate::layout::SegmentShape;
use crate::links::{Links, Port};
use crate::waking::{self};
use crate::wire::Manifest;
use crate::{Region, clock};
use std::collections::HashMap;
use std::sync::Arc;

/// Of so many inputs that are looked at in turns the next messages are fetched ahead: of more, they would push each other out.
const FORESEEN_MAX: usize = 8;
/// So many messages of one input are given before it is another's turn: who went on after each would look at all that have nothing, and
/// meet other lines of memory, for every message.
const TURN_MESSAGES: u32 = 16;

/// The reading ends.
pub struct Inputs {
    consumers: Vec<Consumer>,
    /// Whose turn it is, in the order of those that are looked at, and how many messages it may still give.
    turn: usize,
    left: u32,
    /// The version of the links that all consumers have taken over.
    synced: u64,
    /// A permanent agent waits for producers that an operator may start again.
    closes: bool,
    /// Inputs of groups of which the supervisor was told that they are closed.
    told_closed: Vec<bool>,
}

/// What a look at the inputs found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A message on an input.
    Message(usize, Frame),
    /// The supervisor asks for an end, and nothing is left that should be done before.
    Stop,
    /// All producers ended for good and everything was read.
    Closed,
}

impl Inputs {
    /// Opens the inputs that a manifest names in the own segment; `claims` are those of the manifest, mapped.
    pub fn open(region: &Region, manifest: &Manifest, claims: &[Region]) -> Self {
        let shapes: HashMap<usize, Arc<SegmentShape>> =
            manifest.neighbours.iter().enumerate().map(|(i, n)| (i, Arc::clone(&n.shape))).collect();
        let inputs = manifest.inputs.iter().enumerate();
        let consumers = inputs.map(|(i, entry)| {
            let neighbour = entry.neighbour as usize;
            let end = InputEnd { neighbour, lane: entry.lane as usize, share: entry.share };
            let mut consumer =
                Consumer::open(region.clone(), &manifest.shape, i, end, shapes[&neighbour].clone());
            consumer.told(manifest.given.get(i).copied().unwrap_or_default());
            if entry.copied {
                consumer.copy_each();
            }
            if let Some(entry) = &entry.table {
                let (owner, prefetch) = (manifest.owner, manifest.prefetch as usize);
                consumer.join(Membership { table: super::table(entry, claims), owner, prefetch });
            }
            consumer
        });
        let consumers: Vec<Consumer> = consumers.collect();
        let told_closed = vec![false; consumers.len()];
        Inputs {
            consumers,
            turn: 0,
            left: TURN_MESSAGES,
            synced: u64::MAX,
            closes: !manifest.permanent,
            told_closed,
        }
    }

    /// A reading end.
    #[inline]
    pub fn consumer(&mut self, input: usize) -> &mut Consumer {
        &mut self.consumers[input]
    }

    /// Takes over new incarnations and verdicts; lets go of what no input needs.
    pub fn sync(&mut self, links: &mut Links) {
        self.consumers.iter_mut().for_each(|c| c.sync(links));
        self.synced = links.version();
        let mut oldest: HashMap<usize, u32> = HashMap::new();
        for consumer in &self.consumers {
            let needed = oldest.entry(consumer.end().neighbour).or_insert(u32::MAX);
            *needed = (*needed).min(consumer.oldest_needed());
        }
        oldest.into_iter().for_each(|(neighbour, generation)| links.release(neighbour, generation));
    }

    /// Looks once at the inputs in `among`, in turns of some messages each, so that none starves.
    ///
    /// `None` when there is nothing. Skipped messages are acknowledged here.
    #[inline(always)]
    pub fn look<P: Port>(&mut self, among: &[usize], world: &mut World<P>, thorough: bool) -> Option<Found> {
        if self.synced != world.links.version() {
            self.sync(&mut world.links);
        }
        let request = world.request();
        if request == Request::Stop {
            return Some(Found::Stop);
        }
        if request == Request::Pause {
            return self.claimed_ahead(among);
        }
        if self.left == 0 {
            // Many at once: no time for those who publish to fence.
            world.desk.parked().take_back();
            self.pass_on();
        }
        for _ in among {
            if self.turn >= among.len() {
                self.turn = 0;
            }
            let input = among[self.turn];
            match self.consumers[input].glance() {
                Glance::Message(frame) => {
                    self.left -= 1;
                    world.note_message();
                    return Some(Found::Message(input, frame));
                }
                Glance::Empty if !thorough => {
                    if among.len() <= FORESEEN_MAX {
                        self.consumers[input].foresee();
                    }
                    self.pass_on();
                    continue;
                }
                Glance::Empty | Glance::Unusual => {}
            }
            if let Some(frame) = self.poll(input, world, thorough) {
                self.left -= 1;
                return Some(Found::Message(input, frame));
            }
            self.pass_on();
        }
        if thorough { self.look_for_an_end(among, world, request) } else { None }
    }

    /// It is the next input's turn.
    #[inline(always)]
    fn pass_on(&mut self) {
        (self.turn, self.left) = (self.turn + 1, TURN_MESSAGES);
    }

    #[cold]
    fn look_for_an_end<P: Port>(
        &mut self,
        among: &[usize],
        world: &mut World<P>,
        request: Request,
    ) -> Option<Found> {
        // A thorough look found nothing: nothing is committed that was not read.
        self.tell_closed(among, world);
        let closed = self.closes && !among.is_empty() && among.iter().all(|&i| self.closed(i, &world.links));
        match request {
            _ if closed => Some(Found::Closed),
            Request::Drain => Some(Found::Stop),
            Request::Run | Request::Stop | Request::Pause => None,
        }
    }

    /// A message that this member of a group claimed before it was asked to pause: no other could take it.
    #[cold]
    fn claimed_ahead(&self, among: &[usize]) -> Option<Found> {
        let held = among.iter().find_map(|&input| Some((input, self.consumers[input].claimed_ahead()?)));
        held.map(|(input, frame)| Found::Message(input, frame))
    }

    /// Tells the supervisor of shared lanes that are closed: other members sleep while the last message is in hand elsewhere.
    fn tell_closed<P: Port>(&mut self, among: &[usize], world: &mut World<P>) {
        for &input in among {
            let untold = self.consumers[input].in_group() && !self.told_closed[input];
            if untold && self.closed(input, &world.links) {
                // If the supervisor is gone, the sleep will say so.
                self.told_closed[input] = world.port.tell_closed().is_ok();
            }
        }
    }

    /// Whether an agent has lived, will not come back unless an operator starts it, and everything that it sent was read.
    pub fn is_gone(&self, agent: u32, links: &Links) -> bool {
        let of = |consumer: &&Consumer| links.neighbour(consumer.end().neighbour).agent == agent;
        links.board.status(agent).sends_no_more()
            && links.board.generation(agent) > 0
            && self.consumers.iter().filter(of).all(|consumer| consumer.drained(&links.board, agent))
    }

    fn closed(&self, input: usize, links: &Links) -> bool {
        let consumer = &self.consumers[input];
        let agent = links.neighbour(consumer.end().neighbour).agent;
        links.board.status(agent).sends_no_more() && consumer.drained(&links.board, agent)
    }

    fn poll<P: Port>(&mut self, input: usize, world: &mut World<P>, thorough: bool) -> Option<Frame> {
        // Most producers of dead letters never run: not worth a look each time.
        if !thorough && !self.consumers[input].has_source() {
            return None;
        }
        let polled = waking::look_at_input(&mut self.consumers[input], thorough, &mut world.links);
        match polled {
            Polled::Frame(frame) => {
                // A producer that was gone is back.
                self.told_closed[input] = false;
                world.note_message();
                if let Some(stamp_ns) = frame.stamp_ns() {
                    world.desk.latency(clock::now_ns().saturating_sub(stamp_ns));
                }
                Some(frame)
            }
            Polled::Empty => None,
            Polled::Fault(fault) => {
                world.note(fault);
                None
            }
        }
    }
}
