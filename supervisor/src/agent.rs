//! One agent as the supervisor knows it: its state, its living incarnation, its predecessors that are not drained yet.

use crate::child::State;
use crate::output::Capture;
use crate::restart::Intensity;
use crate::spawn::{self, Child, Urgency};
use crate::swarm::Timer;
use shoal_runtime::board::Verdict;
use shoal_runtime::desk::{self, Counter, Histogram};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::SegmentShape;
use shoal_runtime::mark::Place;
use shoal_runtime::message::{self, Message};
use shoal_runtime::{Incarnation, Region, again::insist, segment, state};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// One agent.
pub struct Agent {
    /// Its name, with the replica.
    pub name: String,
    /// The shape of its segments.
    pub shape: SegmentShape,
    /// Where it is in its life.
    pub state: State,
    /// Moves with every change of state: timers of an earlier one are void.
    pub state_serial: u64,
    /// The generation of its present or last process.
    pub generation: u32,
    /// The last generation number that was used, by a process or a standby.
    pub numbered: u32,
    /// Deaths and pauses.
    pub intensity: Intensity,
    /// Its process, if there is one.
    pub live: Option<Live>,
    /// Its standbys, oldest first; those with an ordered death are being ended.
    pub spares: VecDeque<Live>,
    /// Standbys that died by themselves since one was parked.
    pub spare_deaths: u32,
    /// Dead incarnations that some reader has not drained, oldest first.
    pub graves: VecDeque<Grave>,
    /// Where its lanes end and its cursors stand by its last verdict.
    pub last: Verdict,
    /// Its state by its last verdict, as a whole slot; empty for none.
    pub last_state: Vec<u8>,
    /// Whether it was ever ready.
    pub was_ready: bool,
    /// Starts after the first.
    pub restarts: u64,
    /// How often it was found asleep though work waited, and rung.
    pub rescues: u64,
    /// How often it held a message beyond its deadline, and was aborted.
    pub hangs: u64,
    /// The life in which the operator was told that a signal stopped it, until it goes on.
    pub told_of_stop: Option<u32>,
    /// What its dead incarnations counted.
    pub past: Totals,
    /// The death whose recovery is being measured: generation and CLOCK_MONOTONIC ns.
    pub died_at: Option<(u32, u64)>,
    /// Its output.
    pub capture: Capture,
    /// How its last incarnation ended, for messages.
    pub last_ending: Option<String>,
    /// Its last end that nobody had asked for.
    pub last_crash: Option<Crash>,
    /// An operator wants it to take nothing new.
    pub paused: bool,
    /// What its state waits for: which timer, until when, armed in which state.
    pub timer: Option<(Timer, Instant, u64)>,
    /// Deaths that nobody asked for, and starts that failed.
    pub faults: u64,
    /// What it is started with instead of its command, while its replicas are replaced.
    pub command: Option<Vec<String>>,
    /// What it was when it had gone for good, while somebody reads in its place what it left.
    pub stand_in: Option<State>,
}

/// An end that nobody had asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Which generation it was.
    pub generation: u32,
    /// How it ended.
    pub how: String,
    /// When, since the swarm was started.
    pub at: Duration,
}

/// A living process and what it was handed.
pub struct Live {
    /// Which life of which agent.
    pub incarnation: Incarnation,
    /// Its number in the swarm: what it claims bears it.
    pub owner: u32,
    /// The process.
    pub child: Child,
    /// Our end of its control socket.
    pub control: OwnedFd,
    /// Its segment, for sealing only: never mapped here.
    pub segment: OwnedFd,
    /// Its doorbell.
    pub doorbell: Doorbell,
    /// Its standard output and error, until they end.
    pub pipes: [Option<OwnedFd>; 2],
    /// What exists once it has mapped its segment and the seals hold.
    pub sealed: Option<Sealed>,
    /// Links that it is to be told of.
    pub post: Post,
    /// Whether it is a standby that was not promoted.
    pub parked: bool,
    /// Whether its segment says where its lanes begin: of a standby only once it has written what it inherits.
    pub begun: bool,
    /// Whether it begins by itself once it has taken over.
    pub at_once: bool,
    /// Whether it was told to begin, or has said that it does.
    pub going: bool,
    /// The number of the question that is being answered.
    pub asked: u32,
    /// Since when.
    pub born: Instant,
    /// When it was killed here, CLOCK_MONOTONIC ns.
    pub killed_ns: Option<u64>,
    /// When it was first seen to break a rule, CLOCK_MONOTONIC ns.
    pub violated_ns: Option<u64>,
    /// Since when it hung, if it was aborted for that, CLOCK_MONOTONIC ns.
    pub hung_ns: Option<u64>,
    /// Its death was ordered by an operator, the demo or chaos.
    pub ordered: bool,
    /// Who or what ends it, as far as that is known here.
    pub by: Option<String>,
    /// When the proof of its death was first asked for.
    pub dead_since: Option<Instant>,
}

impl Live {
    /// Ends it: SIGKILL to its whole tree, before others if that is urgent. An adopted process finds its supervisor gone instead, and leaves.
    pub fn kill(&self, urgency: Urgency) {
        urgency.hurry(&self.child);
        spawn::kill_tree(&self.child);
        if self.child.adopted {
            // Refused when it has left already.
            let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
        }
    }
}

/// A sealed segment as peers see it.
pub struct Sealed {
    /// The read-only descriptor that peers are handed.
    pub read_only: OwnedFd,
    head_bytes: usize,
    /// The supervisor's own read-only view, as long as it is mapped.
    view: OnceCell<Region>,
}

impl Sealed {
    /// One that is seen for the first time: it is checked.
    ///
    /// # Errors
    /// It is not what it should be, or the kernel refuses to map it.
    pub fn new(read_only: OwnedFd, shape: &SegmentShape, of: Incarnation) -> io::Result<Sealed> {
        let view = segment::look(&read_only, shape, of)?;
        Ok(Sealed { view: view.into(), ..Sealed::seen_before(read_only, shape) })
    }

    /// One that was checked by a predecessor of this supervisor: it is mapped when it is looked at.
    pub fn seen_before(read_only: OwnedFd, shape: &SegmentShape) -> Sealed {
        Sealed { read_only, head_bytes: shape.ring_offset(0), view: OnceCell::new() }
    }

    /// The supervisor's own read-only view.
    ///
    /// # Errors
    /// There is no room to map it.
    pub fn view(&self) -> io::Result<&Region> {
        if let Some(view) = self.view.get() {
            return Ok(view);
        }
        let view = insist(|| segment::look_again(&self.read_only, self.head_bytes))?;
        Ok(self.view.get_or_init(|| view))
    }

    /// Gives the pages of the view back, until somebody looks again soon.
    pub fn leave_pages(&self) {
        self.view.get().into_iter().for_each(Region::leave_pages);
    }

    /// Gives the view back, until somebody looks again.
    pub fn leave(&mut self) {
        self.view.take();
    }
}

/// A dead incarnation that is not drained yet.
pub struct Grave {
    /// Which life of which agent.
    pub incarnation: Incarnation,
    /// What peers are handed.
    pub read_only: OwnedFd,
    /// Its doorbell, handed along though nobody listens.
    pub doorbell: Doorbell,
    /// Where its lanes end.
    pub ends: Vec<Place>,
}

/// What is let go of when the journal names it no longer.
pub enum Remains {
    /// A dead incarnation whose end is written down.
    Live(Box<Live>),
    /// A dead incarnation that is drained.
    Grave(Grave),
    /// A pipe at its end.
    Pipe(OwnedFd),
}

/// Links that are to be handed over: one packet is under way at a time, later ones coalesce.
#[derive(Default)]
pub struct Post {
    /// Whether a packet was sent and not acknowledged.
    pub under_way: bool,
    /// What comes next.
    pub pending: VecDeque<Incarnation>,
}

impl Post {
    /// Adds a link. A newer incarnation replaces an older one of the same agent unless the receiver reads its lanes.
    pub fn add(&mut self, link: Incarnation, reads: bool) {
        if !reads {
            self.pending.retain(|l| l.agent != link.agent || l.generation > link.generation);
        }
        self.add_ahead(link);
    }

    /// Adds the link of a standby, which replaces none.
    pub fn add_ahead(&mut self, link: Incarnation) {
        if !self.pending.contains(&link) {
            self.pending.push_back(link);
        }
    }

    /// Whether everything was handed over and taken.
    pub fn is_done(&self) -> bool {
        !self.under_way && self.pending.is_empty()
    }
}

/// Sums over incarnations.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Messages sent.
    pub sent: u64,
    /// Messages received and acknowledged.
    pub received: u64,
    /// Publish to poll, sampled.
    pub latency: Histogram,
}

impl Totals {
    /// Adds what a desk says.
    pub fn add(&mut self, view: &Region) {
        self.sent = self.sent.wrapping_add(desk::counter(view, Counter::Sent));
        self.received = self.received.wrapping_add(desk::counter(view, Counter::Received));
        self.latency.add_desk(view);
    }
}

impl Agent {
    /// The state that its last dead incarnation had committed, if it is one of this type.
    pub fn committed_state<S: Message>(&self) -> Option<S> {
        let (bytes, fingerprint) = state::value(&self.last_state)?;
        // An archive is read where its alignment is right.
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        let archived = (fingerprint == S::FINGERPRINT.0).then(|| message::access::<S>(&aligned).ok())??;
        message::to_owned(archived).ok()
    }

    /// The view of its living, sealed segment.
    pub fn view(&self) -> Option<&Region> {
        self.live.as_ref().filter(|l| l.begun).and_then(|l| l.sealed.as_ref()?.view().ok())
    }

    /// Its process and its standbys.
    pub fn lives(&self) -> impl Iterator<Item = &Live> {
        self.live.iter().chain(&self.spares)
    }

    /// Its process, or one of its standbys.
    pub fn life(&self, generation: u32) -> Option<&Live> {
        self.lives().find(|live| live.incarnation.generation == generation)
    }

    /// As [`Agent::lives`], to be changed.
    pub fn lives_mut(&mut self) -> impl Iterator<Item = &mut Live> {
        self.live.iter_mut().chain(&mut self.spares)
    }

    /// As [`Agent::life`], to be changed.
    pub fn life_mut(&mut self, generation: u32) -> Option<&mut Live> {
        self.lives_mut().find(|live| live.incarnation.generation == generation)
    }

    /// Its standbys that are parked.
    pub fn parked(&self) -> impl Iterator<Item = &Live> {
        self.spares.iter().filter(|spare| spare.sealed.is_some() && !spare.ordered)
    }

    /// What it counted in all its lives.
    pub fn totals(&self) -> Totals {
        let mut totals = self.past.clone();
        self.view().into_iter().for_each(|view| totals.add(view));
        totals
    }

    /// Messages sent and received in all its lives: as [`Agent::totals`], without the histograms.
    pub fn counts(&self) -> (u64, u64) {
        let live = |which| self.view().map_or(0, |view| desk::counter(view, which));
        (
            self.past.sent.wrapping_add(live(Counter::Sent)),
            self.past.received.wrapping_add(live(Counter::Received)),
        )
    }

    /// The descriptors of one of its incarnations, living, parked or not drained.
    pub fn handles(&self, of: Incarnation) -> Option<(&OwnedFd, &Doorbell)> {
        let living = self.life(of.generation).filter(|l| l.incarnation == of);
        if let Some((live, sealed)) = living.and_then(|l| Some((l, l.sealed.as_ref()?))) {
            return Some((&sealed.read_only, &live.doorbell));
        }
        self.graves.iter().find(|g| g.incarnation == of).map(|g| (&g.read_only, &g.doorbell))
    }
}
