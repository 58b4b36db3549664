//! An incarnation attached to its swarm: its lanes, its inputs, its links, and the one place where it waits.

use crate::board::{Asked, Request};
use crate::claims::ClaimTable;
use crate::desk::{Counter, Desk, Life};
use crate::doorbell::Doorbell;
use crate::incarnation::PeerFault;
use crate::links::{Links, Neighbour, Port};
use crate::port::{Control, ControlPort};
use crate::spin::{self, Spin};
use crate::standby;
use crate::waking::{self, Fence, Party};
use crate::wire::{self, FromAgent, Manifest, Park, Received, TableEntry, ToAgent};
use crate::{Region, bootstrap, clock, cpus, large_pages, segment, sync, zygote};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

mod inputs;
mod outputs;

pub use inputs::{Found, Inputs};
pub use outputs::{Encode, Outputs, SendError};

/// How often who spins looks before it reads the clock again.
const LOOKS_PER_CLOCK: usize = 8;

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
    asked: Asked,
    /// Whether many agents share each CPU.
    crowded: bool,
    spin: Spin,
    faults: Vec<PeerFault>,
    /// How many of them the supervisor heard already.
    told: usize,
    /// Whether this incarnation took or committed a message yet.
    met_message: bool,
}

/// Attaches the process to the supervisor that started it; returns when every peer has been told and it may begin. A standby
/// waits in here until it takes over; a zygote stays in here, and each child that is forked of it comes out.
///
/// # Errors
/// Not started by a supervisor, a segment of another build, no memory or descriptors, or the supervisor is gone.
pub fn attach() -> io::Result<Attachment> {
    let socket = bootstrap::take_control_socket()?;
    if !zygote::is_one() {
        return attach_through(socket);
    }
    // From here on in a child.
    let attachment = attach_through(zygote::serve(socket)?)?;
    zygote::be_called(&attachment.manifest.name);
    Ok(attachment)
}

/// Attaches the process through a control socket that it was handed, or made itself; otherwise as [`attach`].
///
/// # Errors
/// As [`attach`].
pub fn attach_through(socket: OwnedFd) -> io::Result<Attachment> {
    let Received::Packet(ToAgent::Hello, fds) = wire::hear(&socket, true)? else {
        return Err(io::Error::other("the supervisor did not say hello first"));
    };
    let mut fds = fds.into_iter();
    let lacking = || io::Error::other("the supervisor's hello lacks descriptors (see `ulimit -n`)");
    let mut next = || fds.next().ok_or_else(lacking);
    let (own, board, doorbell) = (next()?, next()?, next()?);
    let mut manifest = Manifest::from_bytes(&segment::thaw(&next()?)?)?;
    let claims = manifest.claims.iter().map(|entry| {
        let bytes = entry.bytes as usize;
        segment::open_table(next()?, bytes, entry.member)
    });
    let claims = claims.collect::<io::Result<Vec<Region>>>()?;
    if manifest.fence_by_sleeper {
        // Before any peer knows of this incarnation.
        sync::let_peers_fence()?;
    }
    if manifest.standby && !zygote::is_one() {
        // Nobody waits for it yet.
        large_pages::gather();
    }
    let region = segment::attach(&own, &manifest.shape, manifest.incarnation())?;
    drop(own);
    wire::say(&socket, &FromAgent::Mapped, &[])?;
    // Of a large swarm it is most of what is told, and is needed once.
    let board = segment::open_board(&board, std::mem::take(&mut manifest.board))?;
    let shapes = manifest.neighbours.iter().map(|n| (n.agent, Arc::clone(&n.shape))).collect();
    let mut port = ControlPort::new(socket, &Doorbell::from_fd(doorbell), shapes)?;
    if manifest.is_stood_by {
        port.gather(manifest.standby);
    }
    let mut world = World::new(&manifest, Links::new(board, neighbours(&manifest)), port, region.clone());
    if manifest.standby {
        let inherited = world.port.wait_for_inheritance(&mut world.links)?;
        standby::take_over(&region, &manifest.shape, manifest.incarnation(), &inherited)?;
        manifest.given = inherited.given;
        world.port.say(&FromAgent::Begun)?;
    }
    let links = world.port.wait_for_go()?;
    world.links.add_all(links);
    world.links.sync(&mut world.port)?;
    let outputs = Outputs::open(&region, &manifest, &claims);
    let mut inputs = Inputs::open(&region, &manifest, &claims);
    inputs.sync(&mut world.links);
    Ok(Attachment { manifest, outputs, inputs, world })
}

/// The claim table of a group on a lane.
fn table(entry: &TableEntry, claims: &[Region]) -> ClaimTable {
    ClaimTable::new(claims[entry.claims as usize].clone(), entry.offset as usize, entry.entries)
}

/// The CPU that this thread runs on, as the C library knows it without a system call.
fn this_cpu() -> u64 {
    nix::sched::sched_getcpu().map_or(0, |cpu| cpu as u64)
}

/// The neighbours of a manifest, without links.
pub fn neighbours(manifest: &Manifest) -> Vec<Neighbour> {
    let entries = manifest.neighbours.iter();
    entries.map(|n| Neighbour::new(n.agent, Arc::clone(&n.shape), n.read)).collect()
}

impl<P: Port> World<P> {
    /// A world of the given links and port.
    pub fn new(manifest: &Manifest, links: Links, port: P, region: Region) -> Self {
        World {
            asked: links.board.asked(manifest.agent),
            crowded: cpus::are_few_for(links.board.agents()),
            links,
            port,
            desk: Desk::new(region),
            agent: manifest.agent,
            spin: Spin::within(manifest.cpu_percent, manifest.agent),
            faults: Vec::new(),
            told: 0,
            met_message: false,
        }
    }

    /// What the supervisor asks.
    #[inline]
    pub fn request(&self) -> Request {
        self.asked.now()
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
        let World { links, port, desk, agent, asked, crowded, spin, faults, told, met_message } = self;
        World { links, port: map(port), desk, agent, asked, crowded, spin, faults, told, met_message }
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

    /// Waits for messages, or what the supervisor asks, until `look` finds something, or the deadline. The only place where an agent waits.
    ///
    /// `look` is called with `true` for the thorough look before a sleep: it then reads producers' records too.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn wait<T>(
        &mut self,
        deadline: Option<Instant>,
        look: impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.wait_by(None, deadline, look)
    }

    /// The same for anything, given who makes the fence of the sleep; `None`: as for messages.
    fn wait_by<T>(
        &mut self,
        by: Option<Fence>,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        if let Some(found) = look(self, false) {
            return Ok(Some(found));
        }
        let began_ns = clock::now_ns();
        let has_peer_here = self.has_peer_here();
        let by = by.unwrap_or_else(|| self.fence(has_peer_here));
        let budget_ns = self.spin.budget_ns(has_peer_here, cpus::are_several);
        let mut spun_ns = 0;
        while spun_ns < budget_ns {
            for _ in 0..LOOKS_PER_CLOCK {
                if let Some(found) = look(self, false) {
                    let waited_ns = clock::now_ns() - began_ns;
                    self.spin.learn(waited_ns, true, budget_ns);
                    if waited_ns < spin::EAGER_NS {
                        self.desk.parked().take_back();
                    }
                    return Ok(Some(found));
                }
                for _ in 0..spin::hints(spun_ns) {
                    sync::spin_hint();
                }
            }
            spun_ns = clock::now_ns() - began_ns;
        }
        let found = self.park_by(by, deadline, &mut look)?;
        self.spin.learn(clock::now_ns() - began_ns, false, budget_ns);
        Ok(found)
    }

    /// As [`World::wait`], without a spin before the sleep.
    ///
    /// # Errors
    /// As [`World::wait`].
    pub fn park<T>(
        &mut self,
        deadline: Option<Instant>,
        look: &mut impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let by = self.fence(self.has_peer_here());
        self.park_by(by, deadline, look)
    }

    /// Who makes the fence of a sleep for messages. Where there are CPUs enough the time of the sleeper's call is not lost: a peer that runs may
    /// well publish meanwhile. Where many agents share each, or a peer this one, it only keeps others from running.
    fn fence(&self, has_peer_here: bool) -> Fence {
        if self.crowded || has_peer_here { Fence::Left } else { Fence::Own }
    }

    /// Whether a peer last ran on this CPU.
    fn has_peer_here(&self) -> bool {
        let here = this_cpu();
        self.links.any_newest(|link| crate::desk::cpu_of(&link.region) == Some(here))
    }

    fn park_by<T>(
        &mut self,
        by: Fence,
        deadline: Option<Instant>,
        look: &mut impl FnMut(&mut Self, bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.desk.cpu(this_cpu() as u32);
        waking::park(self, by, deadline, &mut |world: &mut Self, thorough| {
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

    /// Takes over new links if the board moved; true if so.
    ///
    /// # Errors
    /// As [`Port::receive`].
    #[inline]
    pub fn moved(&mut self) -> io::Result<bool> {
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

    /// Asks the supervisor, and takes over the links that came before its answer.
    ///
    /// # Errors
    /// The outer: the supervisor is gone. The inner: its refusal.
    fn ask(&mut self, message: &FromAgent, along: Option<BorrowedFd<'_>>) -> io::Result<Result<(), String>> {
        let (answer, links) = self.port.ask(message, along)?;
        self.links.add_all(links);
        Ok(answer)
    }

    /// Has the supervisor store a message with the dead letters, of which these are the bytes as they came. The caller then acknowledges
    /// it.
    ///
    /// # If we die here
    /// Before it is stored nothing has happened. After that the supervisor tells the next incarnation that the message is settled: it
    /// is stored once.
    ///
    /// # Errors
    /// The outer: no memory, or the supervisor is gone. The inner: its refusal.
    pub fn give_up(&mut self, letter: Park, bytes: &[u8]) -> io::Result<Result<(), String>> {
        let frozen = segment::freeze("shoal-letter", bytes)?;
        self.ask(&FromAgent::Park(letter), Some(frozen.as_fd()))
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
        self.world.port.say(&FromAgent::Ready)
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
        self.world.ask(&FromAgent::Declare { channel, publishes, fingerprint }, None)
    }
}
