//! An incarnation attached to its swarm: its lanes, its inputs, its links, and the one place where it waits.

use crate::board::{Request, Status};
use crate::commit::{Committer, Key};
use crate::consumer::{Consumer, Cursor, Frame, InputEnd, Polled};
use crate::desk::{Counter, Desk, Life};
use crate::doorbell::Doorbell;
use crate::incarnation::PeerFault;
use crate::layout::{SegmentShape, WhenFull};
use crate::links::{Links, Neighbour, Port};
use crate::port::ControlPort;
use crate::producer::{Claim, Claimed, Producer, ReaderEnd};
use crate::spin::Spin;
use crate::waking::{self, Party};
use crate::wire::{self, FromAgent, Manifest, Received, ToAgent};
use crate::{Region, bootstrap, clock, segment, sync};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Every so many messages of a lane one carries the time of its publishing.
const STAMP_EVERY: u64 = 64;

/// An attached incarnation.
pub struct Attachment {
    /// What it was told.
    pub manifest: Manifest,
    /// What it writes.
    pub outputs: Outputs,
    /// What it reads.
    pub inputs: Inputs,
    /// Whom it knows, and how it waits.
    pub world: World<ControlPort>,
}

/// The links, the port and the desk: what waiting and ringing need.
pub struct World<P> {
    /// The neighbours.
    pub links: Links,
    /// Where links come from and where it sleeps.
    pub port: P,
    /// Where it writes about itself.
    pub desk: Desk,
    /// The own index on the board.
    pub agent: u32,
    spin: Spin,
    faults: Vec<PeerFault>,
}

/// The writing ends, and the commit record.
pub struct Outputs {
    producers: Vec<Producer>,
    committer: Committer,
    stamp_next: bool,
    committed_once: bool,
}

/// The reading ends.
pub struct Inputs {
    consumers: Vec<Consumer>,
    next: usize,
    /// A permanent agent waits for producers that an operator may start again.
    closes: bool,
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
}

/// Attaches the process to the supervisor that started it; returns when every peer has been told and it may begin.
///
/// # Errors
/// Not started by a supervisor, a segment of another build, no memory or descriptors, or the supervisor is gone.
pub fn attach() -> io::Result<Attachment> {
    let socket = bootstrap::take_control_socket()?;
    let Received::Packet(ToAgent::Hello, fds) = wire::hear(&socket, true)? else {
        return Err(io::Error::other("the supervisor did not say hello first"));
    };
    let fds: [OwnedFd; 4] = fds
        .try_into()
        .map_err(|_| io::Error::other("the supervisor's hello lacks descriptors (see `ulimit -n`)"))?;
    let [own, board, doorbell, manifest] = fds;
    let manifest = Manifest::from_bytes(&segment::thaw(&manifest)?)?;
    let region = segment::attach(&own, &manifest.shape, manifest.incarnation())?;
    drop(own);
    wire::say(&socket, FromAgent::Mapped)?;
    let board = segment::open_board(&board, manifest.board.clone())?;
    let shapes = manifest.neighbours.iter().map(|n| (n.agent, Arc::new(n.shape.clone()))).collect();
    let port = ControlPort::new(socket, &Doorbell::from_fd(doorbell), shapes)?;
    let mut world = World::new(&manifest, Links::new(board, neighbours(&manifest)), port, region.clone());
    let links = world.port.wait_for_go()?;
    world.links.add_all(links);
    world.links.sync(&mut world.port)?;
    let outputs = Outputs::open(&region, &manifest);
    let mut inputs = Inputs::open(&region, &manifest);
    inputs.sync(&mut world.links);
    Ok(Attachment { manifest, outputs, inputs, world })
}

/// The neighbours of a manifest, without links.
pub fn neighbours(manifest: &Manifest) -> Vec<Neighbour> {
    let entries = manifest.neighbours.iter();
    entries.map(|n| Neighbour::new(n.agent, Arc::new(n.shape.clone()), n.read)).collect()
}

impl<P: Port> World<P> {
    /// A world of the given links and port.
    pub fn new(manifest: &Manifest, links: Links, port: P, region: Region) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        World {
            links,
            port,
            desk: Desk::new(region),
            agent: manifest.agent,
            spin: Spin::new(cpus),
            faults: Vec::new(),
        }
    }

    /// What the supervisor asks.
    #[inline]
    pub fn request(&self) -> Request {
        self.links.board.request(self.agent)
    }

    /// Faults of peers seen since the last call.
    pub fn take_faults(&mut self) -> Vec<PeerFault> {
        std::mem::take(&mut self.faults)
    }

    /// Notes a fault of a peer.
    pub fn note(&mut self, fault: PeerFault) {
        self.desk.count(Counter::PeerFaults, 1);
        self.faults.push(fault);
    }

    /// Waits until `look` finds something, or the deadline. The only place where an agent waits.
    ///
    /// `look` is called with `true` for the thorough look before a sleep: it then reads producers' records too.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn wait<T>(
        &mut self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        if let Some(found) = look(self, false) {
            return Ok(Some(found));
        }
        let began_ns = clock::now_ns();
        let budget_ns = self.spin_budget();
        while budget_ns > 0 && clock::now_ns() - began_ns < budget_ns {
            for _ in 0..32 {
                sync::spin_hint();
            }
            if let Some(found) = look(self, false) {
                self.spin.learn(clock::now_ns() - began_ns, true, budget_ns);
                return Ok(Some(found));
            }
        }
        let found = self.park(deadline, &mut look)?;
        self.spin.learn(clock::now_ns() - began_ns, false, budget_ns);
        Ok(found)
    }

    fn park<T>(
        &mut self,
        deadline: Option<Instant>,
        look: &mut impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.note_cpu();
        waking::park(self, deadline, look)
    }

    fn note_cpu(&self) {
        self.desk.cpu(rustix::thread::sched_getcpu() as u32);
    }

    fn spin_budget(&self) -> u64 {
        let here = rustix::thread::sched_getcpu() as u64;
        let same = self.links.any_newest(|link| crate::desk::view(&link.region).cpu == Some(here));
        self.spin.budget_ns(same)
    }

    #[inline]
    fn moved(&mut self) -> io::Result<bool> {
        waking::moved(&mut self.links, &mut self.port)
    }
}

impl<P: Port> Party for World<P> {
    type Port = P;

    #[inline]
    fn parts(&mut self) -> (&mut Links, &mut P, &Desk) {
        (&mut self.links, &mut self.port, &self.desk)
    }
}

impl Outputs {
    /// Opens the lanes that a manifest names in the own segment.
    pub fn open(region: &Region, manifest: &Manifest) -> Self {
        let ends = |entry: &wire::LaneEntry| -> Vec<ReaderEnd> {
            let readers = entry.readers.iter();
            readers.map(|r| ReaderEnd::new(r.neighbour as usize, r.input as usize, r.share)).collect()
        };
        let lanes = manifest.lanes.iter().enumerate();
        let producers =
            lanes.map(|(i, l)| Producer::open(region.clone(), &manifest.shape, i, ends(l))).collect();
        let committer = Committer::new(region.clone(), &manifest.shape, manifest.generation);
        Outputs { producers, committer, stamp_next: false, committed_once: false }
    }

    /// A lane's writing end.
    #[inline]
    pub fn producer(&mut self, lane: usize) -> &mut Producer {
        &mut self.producers[lane]
    }

    /// Writes one hidden frame: claims, lets `fill` write into the claim and say the length, waits for space as the channel
    /// says.
    ///
    /// `fill` gets at least `len(…)` bytes; it returns `None` when the slot was too small, and is called again with as much
    /// as `exact` says.
    ///
    /// # Errors
    /// The outer: as [`Port::receive`]. The inner: why it was not written.
    pub fn write<P: Port>(
        &mut self,
        lane: usize,
        world: &mut World<P>,
        deadline: Option<Instant>,
        fill: &mut dyn FnMut(&mut [core::mem::MaybeUninit<u8>]) -> Option<usize>,
        exact: &mut dyn FnMut() -> usize,
    ) -> io::Result<Result<(), SendError>> {
        let stamp_next = std::mem::take(&mut self.stamp_next);
        let producer = &mut self.producers[lane];
        let stamped = stamp_next || producer.pending().sequence.is_multiple_of(STAMP_EVERY);
        let stamp_ns = stamped.then(clock::now_ns);
        if let Some(claim) = producer.claim_room()
            && try_fill(producer, claim, stamp_ns, fill)
        {
            return Ok(Ok(()));
        }
        let len = exact() as u64 + if stamped { crate::frame::EXTENSION_BYTES } else { 0 };
        let claim = match self.claim(lane, len, world, deadline)? {
            Ok(claim) => claim,
            Err(error) => return Ok(Err(error)),
        };
        let filled = try_fill(&mut self.producers[lane], claim, stamp_ns, fill);
        assert!(filled, "a message is encoded in as many bytes as it was measured to take");
        Ok(Ok(()))
    }

    /// Claims space for a payload of `len` bytes, waiting as the channel says.
    ///
    /// # Errors
    /// As [`Outputs::write`].
    pub fn claim<P: Port>(
        &mut self,
        lane: usize,
        len: u64,
        world: &mut World<P>,
        deadline: Option<Instant>,
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
                producer.want(want, &mut world.links);
                let found = world.wait(deadline, |world, thorough| {
                    let (claim, faults) =
                        waking::look_for_space(producer, len, want, thorough, &mut world.links);
                    faults.into_iter().for_each(|fault| world.note(fault));
                    claim
                });
                producer.want(0, &mut world.links);
                Ok(found?.ok_or(SendError::TimedOut))
            }
        }
    }

    /// Forgets every hidden frame.
    pub fn abort(&mut self) {
        self.producers.iter_mut().for_each(Producer::abort);
    }

    /// Commits a step: its hidden frames on all lanes and, if it had one, its input. Then publishes and rings.
    ///
    /// A step of one lane without an input commits by the lane's tail mark alone.
    ///
    /// # If we die here
    /// Before the record's number (or the one tail mark) nothing of the step exists; after it all of it does, whether marks,
    /// headers and cursor were published or not.
    ///
    /// # Errors
    /// As [`Port::receive`]; the step is committed then.
    pub fn commit<P: Port>(
        &mut self,
        input: Option<(usize, &mut Cursor, &Frame)>,
        world: &mut World<P>,
    ) -> io::Result<()> {
        let touched = self.producers.iter().filter(|p| p.touched()).count();
        if touched + usize::from(input.is_some()) > 1 {
            for (lane, producer) in self.producers.iter().enumerate().filter(|(_, p)| p.touched()) {
                self.committer.add(Key::Lane(lane), producer.pending());
            }
            if let Some((index, _, frame)) = &input {
                self.committer.add(Key::Input(*index), frame.next());
            }
            self.committer.commit();
        }
        if !self.committed_once && touched + usize::from(input.is_some()) > 0 {
            self.committed_once = true;
            world.desk.first_commit(clock::now_ns());
        }
        let input = input.map(|(_, cursor, frame)| (cursor, frame));
        if waking::publish_and_ring(&mut self.producers, input, world)? > 0 {
            self.stamp_next = true;
        }
        Ok(())
    }
}

fn try_fill(
    producer: &mut Producer,
    claim: Claim,
    stamp_ns: Option<u64>,
    fill: &mut dyn FnMut(&mut [core::mem::MaybeUninit<u8>]) -> Option<usize>,
) -> bool {
    let skip = if stamp_ns.is_some() { crate::frame::EXTENSION_BYTES as usize } else { 0 };
    let Some(slot) = producer.bytes(&claim).get_mut(skip..) else { return false };
    let Some(written) = fill(slot) else { return false };
    producer.finish(claim, (written + skip) as u64, stamp_ns);
    true
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
    /// Opens the inputs that a manifest names in the own segment.
    pub fn open(region: &Region, manifest: &Manifest) -> Self {
        let shapes: HashMap<usize, Arc<SegmentShape>> =
            manifest.neighbours.iter().enumerate().map(|(i, n)| (i, Arc::new(n.shape.clone()))).collect();
        let inputs = manifest.inputs.iter().enumerate();
        let consumers = inputs.map(|(i, entry)| {
            let neighbour = entry.neighbour as usize;
            let end = InputEnd { neighbour, lane: entry.lane as usize, share: entry.share };
            Consumer::open(region.clone(), &manifest.shape, i, end, shapes[&neighbour].clone())
        });
        Inputs { consumers: consumers.collect(), next: 0, closes: !manifest.permanent }
    }

    /// A reading end.
    #[inline]
    pub fn consumer(&mut self, input: usize) -> &mut Consumer {
        &mut self.consumers[input]
    }

    /// Takes over new incarnations and verdicts; lets go of what no input needs.
    pub fn sync(&mut self, links: &mut Links) {
        self.consumers.iter_mut().for_each(|c| c.sync(links));
        let mut oldest: HashMap<usize, u32> = HashMap::new();
        for consumer in &self.consumers {
            let needed = oldest.entry(consumer.end().neighbour).or_insert(u32::MAX);
            *needed = (*needed).min(consumer.oldest_needed());
        }
        oldest.into_iter().for_each(|(neighbour, generation)| links.release(neighbour, generation));
    }

    /// Looks once at the inputs in `among`, in turns so that none starves.
    ///
    /// `None` when there is nothing. Skipped messages are acknowledged here.
    pub fn look<P: Port>(&mut self, among: &[usize], world: &mut World<P>, thorough: bool) -> Option<Found> {
        if self.consumers.iter().any(|c| c.stale(&world.links)) {
            self.sync(&mut world.links);
        }
        let request = world.request();
        if request == Request::Stop {
            return Some(Found::Stop);
        }
        for turn in 0..among.len() {
            let at = (self.next + turn) % among.len();
            if let Some(frame) = self.poll(among[at], world, thorough) {
                self.next = at + 1;
                return Some(Found::Message(among[at], frame));
            }
        }
        if !thorough {
            return None;
        }
        // A thorough look found nothing: nothing is committed that was not read.
        let closed = self.closes && !among.is_empty() && among.iter().all(|&i| self.closed(i, &world.links));
        match request {
            _ if closed => Some(Found::Closed),
            Request::Drain => Some(Found::Stop),
            Request::Run | Request::Stop => None,
        }
    }

    fn closed(&self, input: usize, links: &Links) -> bool {
        let consumer = &self.consumers[input];
        let agent = links.neighbour(consumer.end().neighbour).agent;
        links.board.status(agent) == Status::Gone && consumer.drained(&links.board, agent)
    }

    fn poll<P: Port>(&mut self, input: usize, world: &mut World<P>, thorough: bool) -> Option<Frame> {
        let polled = waking::look_at_input(&mut self.consumers[input], thorough, &mut world.links);
        match polled {
            Polled::Frame(frame) => {
                if let Some(stamp_ns) = frame.stamp_ns {
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

impl Attachment {
    /// Says ready.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn ready(&mut self) -> io::Result<()> {
        self.world.desk.life(Life::Ready);
        self.world.port.say(FromAgent::Ready)
    }

    /// Declares the type of a channel's messages on the lanes (publishing) or for this reader.
    ///
    /// The board usually knows the fingerprint already; only the first to declare it asks the supervisor.
    ///
    /// # Errors
    /// The outer: the supervisor is gone. The inner: its refusal, for the agent's author.
    pub fn declare(
        &mut self,
        channel: u32,
        publishes: bool,
        fingerprint: u64,
    ) -> io::Result<Result<(), String>> {
        if publishes {
            let lanes = self.manifest.lanes.iter().enumerate().filter(|(_, l)| l.channel == channel);
            lanes.for_each(|(i, _)| self.outputs.producers[i].declare(fingerprint));
        }
        if self.world.links.board.fingerprint(channel) == fingerprint {
            return Ok(Ok(()));
        }
        let message = FromAgent::Declare { channel, publishes, fingerprint };
        let (answer, links) = self.world.port.declare(message)?;
        self.world.links.add_all(links);
        Ok(answer)
    }

    /// Accuses peers of the faults seen since the last call; returns them for the agent's log.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn accuse(&mut self) -> io::Result<Vec<PeerFault>> {
        let faults = self.world.take_faults();
        for fault in &faults {
            self.world.port.say(FromAgent::Fault(fault.incarnation))?;
        }
        Ok(faults)
    }
}
