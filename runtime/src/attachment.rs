//! An incarnation attached to its swarm: its lanes, its inputs, its links, and the one place where it waits.

use crate::board::{Request, Status};
use crate::bug::{Bug, placed};
use crate::commit::{Committer, Key};
use crate::consumer::{Consumer, Cursor, Frame, InputEnd, Polled};
use crate::desk::{Counter, Desk, Life};
use crate::doorbell::Doorbell;
use crate::incarnation::PeerFault;
use crate::layout::{SegmentShape, WhenFull};
use crate::links::{Links, Neighbour, Port};
use crate::port::{Control, ControlPort};
use crate::producer::{Claim, Claimed, Producer, ReaderEnd};
use crate::spin::Spin;
use crate::state::StateWriter;
use crate::waking::{self, Party};
use crate::wire::{self, FromAgent, Manifest, Received, ToAgent};
use crate::{Region, bootstrap, clock, segment, sync};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every so many messages of a lane one carries the time of its publishing.
const STAMP_EVERY: u64 = 64;

/// An attached incarnation. Its port is the control socket's, or a harness's.
pub struct Attachment<P = ControlPort> {
    /// What it was told.
    pub manifest: Manifest,
    /// What it writes.
    pub outputs: Outputs,
    /// What it reads.
    pub inputs: Inputs,
    /// Whom it knows, and how it waits.
    pub world: World<P>,
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
    /// How many of them the supervisor heard already.
    told: usize,
    /// Whether this incarnation took or committed a message yet.
    met_message: bool,
}

/// The writing ends, and the commit record.
pub struct Outputs {
    producers: Vec<Producer>,
    committer: Committer,
    stamp_next: bool,
    state: StateWriter,
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
    if manifest.fence_by_sleeper {
        // Before any peer knows of this incarnation.
        sync::let_peers_fence()?;
    }
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
            told: 0,
            met_message: false,
        }
    }

    /// What the supervisor asks.
    #[inline]
    pub fn request(&self) -> Request {
        self.links.board.request(self.agent)
    }

    /// Faults of peers seen since the last call.
    pub fn take_faults(&mut self) -> Vec<PeerFault> {
        self.told = 0;
        std::mem::take(&mut self.faults)
    }

    /// Whether there is something for [`World::take_faults`].
    #[inline]
    pub fn faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The same world with another port.
    pub fn map_port<Q>(self, map: impl FnOnce(P) -> Q) -> World<Q> {
        let World { links, port, desk, agent, spin, faults, told, met_message } = self;
        World { links, port: map(port), desk, agent, spin, faults, told, met_message }
    }

    /// Notes the first message of this incarnation: how long a recovery took.
    #[inline]
    fn note_message(&mut self) {
        if !self.met_message {
            self.met_message = true;
            self.desk.first_message(clock::now_ns());
        }
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
        waking::park(self, deadline, &mut |world: &mut Self, thorough| {
            let found = look(world, thorough);
            if found.is_none() {
                // If the supervisor is gone, the sleep will say so.
                let _ = world.tell();
            }
            found
        })
    }

    /// Accuses peers before a sleep: it may be one of them that this agent waits for.
    fn tell(&mut self) -> io::Result<()> {
        for fault in &self.faults[self.told..] {
            self.port.accuse(fault.incarnation)?;
        }
        self.told = self.faults.len();
        Ok(())
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

impl<P: Control> World<P> {
    /// Accuses peers of the faults seen since the last call; returns them for the agent's log.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn accuse(&mut self) -> io::Result<Vec<PeerFault>> {
        self.tell()?;
        Ok(self.take_faults())
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
        Outputs {
            producers,
            committer,
            stamp_next: false,
            state: StateWriter::open(region.clone(), &manifest.shape),
        }
    }

    /// A lane's writing end.
    #[inline]
    pub fn producer(&mut self, lane: usize) -> &mut Producer {
        &mut self.producers[lane]
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
        if let Some(claim) = producer.claim_room()
            && try_fill(producer, claim, stamp_ns, message)
        {
            return Ok(Ok(()));
        }
        let Some(len) = message.exact() else { return Ok(Err(SendError::Refused)) };
        let claim = match self.claim(lane, len as u64 + skip_bytes(stamp_ns), world, timeout)? {
            Ok(claim) => claim,
            Err(error) => return Ok(Err(error)),
        };
        let filled = try_fill(&mut self.producers[lane], claim, stamp_ns, message);
        assert!(filled, "a message is encoded in as many bytes as it was measured to take");
        Ok(Ok(()))
    }

    /// Writes one hidden frame by hand: claims `len` bytes and lets `fill` write them and say how many it used.
    ///
    /// # Errors
    /// The outer: as [`Port::receive`]. Then: why there was no claim. The inner: `fill`'s own, and nothing was written.
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
        let claim = match self.claim(lane, (len as u64).saturating_add(skip), world, timeout)? {
            Ok(claim) => claim,
            Err(error) => return Ok(Err(error)),
        };
        let producer = &mut self.producers[lane];
        Ok(Ok(fill(&mut producer.bytes_by_hand(&claim)[skip as usize..]).map(|used| {
            assert!(used <= len, "a claim of {len} bytes was filled with {used}");
            producer.finish(claim, used as u64 + skip, stamp_ns);
        })))
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
                producer.want(want, &mut world.links);
                // The clock is read only now that there is a wait. A time-out beyond its range is none.
                let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
                let found = world.wait(deadline, |world, thorough| {
                    let (claim, faults) =
                        waking::look_for_space(producer, len, want, thorough, &mut world.links);
                    faults.into_iter().for_each(|fault| world.note(fault));
                    match claim {
                        Some(claim) => Some(Ok(claim)),
                        None => (world.request() == Request::Stop).then_some(Err(SendError::Stopping)),
                    }
                });
                producer.want(0, &mut world.links);
                Ok(found?.unwrap_or(Err(SendError::TimedOut)))
            }
        }
    }

    /// Forgets every hidden frame.
    pub fn abort(&mut self) {
        self.producers.iter_mut().for_each(Producer::abort);
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
        if let Some((_, cursor, frame)) = input.as_mut().filter(|_| placed(Bug::AcknowledgeBeforeCommit)) {
            cursor.publish_early(frame);
        }
        let touched = self.producers.iter().filter(|p| p.touched()).count();
        if self.state.changed()
            || touched + usize::from(input.is_some()) > 1 + usize::from(placed(Bug::RecordSpared))
        {
            for (lane, producer) in self.producers.iter().enumerate().filter(|(_, p)| p.touched()) {
                if placed(Bug::RecordWithoutLastLane) && lane > 0 {
                    continue;
                }
                let mut end = producer.pending();
                end.sequence += u64::from(placed(Bug::RecordNumberedAhead));
                self.committer.add(Key::Lane(lane), end);
            }
            if let Some((index, _, frame)) = input.as_ref().filter(|_| !placed(Bug::RecordWithoutInput)) {
                self.committer.add(Key::Input(*index), frame.next());
            }
            let named = if placed(Bug::StateSlotKept) { 1 } else { self.state.named() };
            self.committer.name_state(named);
            if placed(Bug::PublishBeforeCommit) {
                self.producers.iter_mut().for_each(Producer::publish);
            }
            self.committer.commit();
            self.state.commit();
        }
        world.note_message();
        let input = input.map(|(_, cursor, frame)| (cursor, frame));
        if waking::publish_and_ring(&mut self.producers, input, world)? > 0 {
            self.stamp_next = true;
        }
        Ok(())
    }
}

fn skip_bytes(stamp_ns: Option<u64>) -> u64 {
    if stamp_ns.is_some() { crate::frame::EXTENSION_BYTES } else { 0 }
}

#[inline]
fn try_fill(producer: &mut Producer, claim: Claim, stamp_ns: Option<u64>, message: &mut impl Encode) -> bool {
    let skip = skip_bytes(stamp_ns) as usize;
    let Some(slot) = producer.bytes(&claim).get_mut(skip..) else { return false };
    let Some(written) = message.fill(slot) else { return false };
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
        for _ in among {
            if self.next >= among.len() {
                self.next = 0;
            }
            let input = among[self.next];
            self.next += 1;
            if let Some(frame) = self.poll(input, world, thorough) {
                return Some(Found::Message(input, frame));
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
                world.note_message();
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

impl<P: Control> Attachment<P> {
    /// The same attachment behind a port of any kind: for code that is written once.
    pub fn boxed(self) -> Attachment<Box<dyn Control>>
    where
        P: 'static,
    {
        let Attachment { manifest, outputs, inputs, world } = self;
        Attachment { manifest, outputs, inputs, world: world.map_port(|port| Box::new(port) as _) }
    }

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
}
