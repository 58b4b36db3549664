//! The links of an agent: which incarnation of each neighbour it knows, and whom to ring.
//!
//! The supervisor hands a new incarnation's segment and doorbell to its neighbours, publishes its generation, moves the
//! board's epoch, and only then lets it run. Whoever publishes or acknowledges therefore fences and reads two things: the
//! neighbour's parked (or want) word, and the epoch. When the epoch moved it takes over the new links and rings once
//! unconditionally, because the word it read was perhaps a dead desk's.

use crate::board::Board;
use crate::desk::{ASLEEP, LEFT, Parked};
use crate::doorbell::Doorbell;
use crate::incarnation::Incarnation;
use crate::layout::{SegmentShape, desk};
use crate::region::{Region, Row};
use crate::sync::{Ordering, Site, fence, fence_of_publisher, sleeper_fences};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// A neighbour's incarnation as handed over: its segment, read-only, and its doorbell.
#[derive(Clone)]
pub struct Link {
    /// Whose it is.
    pub incarnation: Incarnation,
    /// Its segment.
    pub region: Region,
    /// What wakes it.
    pub doorbell: Doorbell,
    parked: Row<1>,
    /// The parked word that was rung for last: one ring a sleep suffices.
    rung: u64,
    /// Whether it is a standby's, which counts from when the board names it.
    ahead: bool,
}

impl Link {
    /// A link as handed over.
    pub fn new(incarnation: Incarnation, region: Region, doorbell: Doorbell) -> Self {
        let parked = Row::new(&region, desk::PARKED);
        Link { incarnation, region, doorbell, parked, rung: 0, ahead: false }
    }

    /// Rings, if it sleeps and was not rung for this sleep; true if so.
    #[inline(never)]
    fn ring_once(&mut self, mut parked: u64) -> bool {
        let asks = |parked: u64, rung: u64| parked & ASLEEP != 0 && parked != rung;
        if parked & LEFT != 0 && !asks(parked, self.rung) {
            // SeqCst fence: pairs with the one in `Parked::set_leaving`; what was published before lies before it.
            fence(Site::LeftFence, Ordering::SeqCst);
            // Relaxed: ordered by the fence.
            parked = self.parked.word(0).load(Ordering::Relaxed);
        }
        if !asks(parked, self.rung) {
            return false;
        }
        self.rung = parked;
        self.doorbell.ring();
        true
    }

    /// The same link as a standby's: it counts from when the board names its generation.
    pub fn ahead(self) -> Self {
        Link { ahead: true, ..self }
    }
}

/// An agent that shares a lane with this one.
pub struct Neighbour {
    /// Its index on the board.
    pub agent: u32,
    /// The shape of its segments.
    pub shape: Arc<SegmentShape>,
    /// Whether this agent reads a lane of it, and so needs its dead incarnations until it drained them.
    pub read: bool,
    links: Vec<Link>,
    /// Standbys that the board has not named yet, oldest first.
    ahead: Vec<Link>,
}

impl Neighbour {
    /// A neighbour without a link yet.
    pub fn new(agent: u32, shape: Arc<SegmentShape>, read: bool) -> Self {
        Neighbour { agent, shape, read, links: Vec::new(), ahead: Vec::new() }
    }

    /// Its newest incarnation that was handed over.
    #[inline]
    pub fn newest(&self) -> Option<&Link> {
        self.links.last()
    }

    /// All incarnations that are kept, oldest first.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    fn add(&mut self, link: Link, board: &Board) {
        // What was ahead of this one is older.
        self.settle(board);
        match link.ahead {
            true => insert(&mut self.ahead, link),
            false => self.take(link),
        }
        self.settle(board);
    }

    /// Keeps a link; without lanes to drain only the newest.
    fn take(&mut self, link: Link) {
        if !self.read && self.newest().is_none_or(|l| l.incarnation.generation < link.incarnation.generation)
        {
            self.links.clear();
        }
        if self.read || self.links.is_empty() {
            insert(&mut self.links, link);
        }
    }

    /// Takes over standbys that the board has named since. Below the one that it names lie those that lived and died, which
    /// have a verdict, and those that never lived.
    fn settle(&mut self, board: &Board) {
        if self.ahead.is_empty() {
            return;
        }
        let named = board.generation(self.agent);
        while self.ahead.first().is_some_and(|l| l.incarnation.generation <= named) {
            let link = self.ahead.remove(0);
            if link.incarnation.generation == named || board.verdict(link.incarnation).is_some() {
                self.take(Link { ahead: false, ..link });
            }
        }
    }
}

/// Puts a link in the order of generations, unless it is there.
fn insert(links: &mut Vec<Link>, link: Link) {
    let before = links.iter().take_while(|l| l.incarnation.generation < link.incarnation.generation).count();
    if links.get(before).is_none_or(|l| l.incarnation != link.incarnation) {
        links.insert(before, link);
    }
}

/// Where links come from and where an agent sleeps: the control socket and the doorbell, or a model of them.
pub trait Port {
    /// Takes the links that have arrived. When `wait` is true it waits for the supervisor's next packet, which may be
    /// without any: the incarnation that was to come has died meanwhile.
    ///
    /// # Errors
    /// The supervisor is gone, or what it sent cannot be used.
    fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>>;

    /// Sleeps until the doorbell rings, a link arrives, or the deadline passes; may wake for nothing. Returns whether there may be
    /// something to receive.
    ///
    /// # Errors
    /// As [`Port::receive`].
    fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool>;

    /// Says that a peer wrote what cannot be true. Nobody listens to a model.
    ///
    /// # Errors
    /// The supervisor is gone.
    fn accuse(&mut self, _of: Incarnation) -> io::Result<()> {
        Ok(())
    }

    /// Says that a lane which a group shares is closed, so that its other members are woken. Nobody listens to a model.
    ///
    /// # Errors
    /// The supervisor is gone.
    fn tell_closed(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All links of an agent.
pub struct Links {
    /// The board.
    pub board: Board,
    neighbours: Vec<Neighbour>,
    epoch: u64,
    version: u64,
    rings: u64,
    /// The board's epoch when this agent last fenced for those who publish; before, none.
    fenced: u64,
    /// In a model: publishing only keeps its program order, as in a registered process.
    #[cfg(loom)]
    pub is_registered: bool,
}

impl Links {
    /// Begins without any link: the first [`Links::sync`] takes them.
    pub fn new(board: Board, neighbours: Vec<Neighbour>) -> Self {
        Links {
            board,
            neighbours,
            epoch: 0,
            version: 0,
            rings: 0,
            fenced: u64::MAX,
            #[cfg(loom)]
            is_registered: false,
        }
    }

    /// A neighbour by its place in the list.
    #[inline]
    pub fn neighbour(&self, index: usize) -> &Neighbour {
        &self.neighbours[index]
    }

    /// Moves with every sync: who keeps something derived from links compares it.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Doorbells rung so far.
    pub fn rings(&self) -> u64 {
        self.rings
    }

    /// Whether the board changed since the last sync.
    #[inline]
    pub fn stale(&self) -> bool {
        self.board.epoch() != self.epoch
    }

    /// Takes over links until every neighbour's newest is the one that the board names.
    ///
    /// It may wait for the supervisor, which never waits for an agent.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn sync(&mut self, port: &mut impl Port) -> io::Result<()> {
        loop {
            let epoch = self.board.epoch();
            let mut arrived = port.receive(false)?;
            loop {
                self.add_all(arrived);
                if self.complete() {
                    break;
                }
                arrived = port.receive(true)?;
            }
            self.epoch = epoch;
            self.version += 1;
            if self.board.epoch() == epoch {
                return Ok(());
            }
        }
    }

    fn complete(&self) -> bool {
        self.neighbours.iter().all(|n| {
            let newest = n.links.last().map_or(0, |l| l.incarnation.generation);
            let named = self.board.generation(n.agent);
            // Of an incarnation that is dead by now only its readers need the link, and it will wake them.
            newest >= named || self.board.last_verdict(n.agent) >= named
        })
    }

    /// Adds links that came outside of a sync.
    pub fn add_all(&mut self, links: Vec<Link>) {
        self.neighbours.iter_mut().for_each(|n| n.settle(&self.board));
        for link in links {
            let found = self.neighbours.iter_mut().find(|n| n.agent == link.incarnation.agent);
            if let Some(neighbour) = found {
                neighbour.add(link, &self.board);
            }
        }
    }

    /// Lets go of all but the newest incarnation of each neighbour: what a standby needs of the others it is handed when it
    /// takes over.
    pub fn keep_newest(&mut self) {
        for neighbour in &mut self.neighbours {
            let older = neighbour.links.len().saturating_sub(1);
            neighbour.links.drain(..older);
        }
    }

    /// Whether any neighbour's newest link is as asked.
    pub fn any_newest(&self, is: impl Fn(&Link) -> bool) -> bool {
        self.neighbours.iter().filter_map(|n| n.links.last()).any(is)
    }

    /// Lets go of a neighbour's incarnations before `generation`, all of whose messages were acknowledged.
    pub fn release(&mut self, neighbour: usize, generation: u32) {
        let links = &mut self.neighbours[neighbour].links;
        while links.len() > 1 && links[0].incarnation.generation < generation {
            links.remove(0);
        }
    }

    /// Orders what was stored before (a frame, a cursor) against the look at parked words, wants and the epoch.
    #[inline]
    pub fn fence(&self) {
        #[cfg(loom)]
        if self.is_registered {
            return;
        }
        // Pairs with the fence in `Parked::set`. Of two that store and then look at the other's word, at least one sees the
        // other's store.
        fence_of_publisher(Site::PublishFence);
    }

    /// As [`Links::fence`], whole by itself: where a producer stores its want and looks at parked words, before it parks.
    pub fn fence_whole(&self) {
        // SeqCst fence: pairs with the one in `Parked::set` of a reader that sleeps behind messages of others.
        fence(Site::PublishFence, Ordering::SeqCst);
    }

    /// Announces a sleep for messages whose fence is left to the peers, if they were fenced for that since the board last changed.
    ///
    /// Who publishes after that fence has read the epoch and the parked word after it, too; so it knows this incarnation, if the board
    /// named it by then, and that it fences itself.
    pub fn leave_fence(&mut self, parked: &Parked<'_>) {
        if !sleeper_fences() {
            return parked.set();
        }
        // Before the fence: what the board said by then, whoever publishes later has seen.
        let epoch = self.board.epoch();
        parked.set_leaving(parked.is_left() && self.fenced == epoch);
        self.fenced = epoch;
    }

    /// Rings a neighbour that sleeps, once a sleep. After [`Links::fence`].
    #[inline]
    pub fn ring_if_parked(&mut self, neighbour: usize) {
        if let Some(link) = self.neighbours[neighbour].links.last_mut() {
            // Relaxed: ordered by the fence before; a wrong word costs a ring.
            let parked = link.parked.word(0).load(Ordering::Relaxed);
            if parked & (ASLEEP | LEFT) != 0 {
                self.rings += u64::from(link.ring_once(parked));
            }
        }
    }

    /// Rings a neighbour whatever its desk says.
    pub fn ring(&mut self, neighbour: usize) {
        if let Some(link) = self.neighbours[neighbour].links.last() {
            link.doorbell.ring();
            self.rings += 1;
        }
    }
}
