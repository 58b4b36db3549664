//! One run's surroundings: source, sinks and board over real sealed memory, and the worker's births in processes.

use super::life::Life;
use super::sink::Sink;
use super::story::{RING_BYTES, SOURCE_RING_BYTES, STATE_SLOT_BYTES, Story};
use super::tracer::{self, Child, Control, Map, Stop, Word, fork_heir, phase};
use shoal::death::{self, Bounds};
use shoal_runtime::board::{BoardWriter, Verdict, VerdictKind};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::links::{Link, Links, Neighbour};
use shoal_runtime::mark::Place;
use shoal_runtime::producer::{Claimed, Producer, ReaderEnd};
use shoal_runtime::segment::{self, Origin, Proof};
use shoal_runtime::wire::{InputEntry, LaneEntry, Manifest, NeighbourEntry, ReaderEntry};
use shoal_runtime::{Incarnation, Region, commit, state};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Index of the source on the board.
pub const SOURCE: u32 = 0;
/// Index of the worker, which is stepped and killed.
pub const WORKER: u32 = 1;
/// Index of the reader of the worker's first lane.
const SINK: u32 = 2;
const SWARM: u64 = 0x5ea1;

fn lane(capacity_bytes: u64, channel: u32) -> LaneShape {
    LaneShape { capacity_bytes, when_full: WhenFull::Block, channel }
}

/// Shape of the source's segment.
pub fn source_shape() -> SegmentShape {
    SegmentShape { lanes: vec![lane(SOURCE_RING_BYTES, 0)], input_count: 0, state_bytes: 0 }
}

/// Shape of a sink's segment.
pub fn sink_shape() -> SegmentShape {
    SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 }
}

/// Shape of the worker's segments.
pub fn worker_shape(story: &Story) -> SegmentShape {
    let lanes = (0..story.lanes.len()).map(|i| lane(RING_BYTES, i as u32 + 1));
    let state_bytes = if story.stateful { STATE_SLOT_BYTES } else { 0 };
    SegmentShape { lanes: lanes.collect(), input_count: u32::from(story.input.is_some()), state_bytes }
}

/// Shape of the board.
pub fn board_shape(story: &Story) -> BoardShape {
    let lanes = story.lanes.len() as u32;
    let mut agents = vec![(1, 0), (lanes, u32::from(story.input.is_some()))];
    agents.extend((0..lanes).map(|_| (0, 1)));
    BoardShape { channel_count: lanes + 1, agents, ..BoardShape::default() }
}

/// What the worker is told.
pub fn manifest(story: &Story, generation: u32) -> Manifest {
    let lanes = story.lanes.len();
    let inputs = usize::from(story.input.is_some());
    let neighbour = |agent: u32, shape: SegmentShape, read| NeighbourEntry {
        agent,
        name: String::new(),
        shape: shape.into(),
        read,
    };
    let mut neighbours = vec![neighbour(SOURCE, source_shape(), true); inputs];
    neighbours.extend((0..lanes).map(|i| neighbour(SINK + i as u32, sink_shape(), false)));
    let reader =
        |i: usize| ReaderEntry { neighbour: (inputs + i) as u32, input: 0, share: (0, 1), group: None };
    let writes = |i| LaneEntry { channel: i as u32 + 1, line: 0, readers: vec![reader(i)], groups: vec![] };
    let input =
        InputEntry { channel: 0, line: 0, neighbour: 0, lane: 0, share: (0, 1), table: None, copied: false };
    Manifest {
        swarm: String::new(),
        file: String::new(),
        name: String::new(),
        line: 0,
        agent: WORKER,
        generation,
        owner: 0,
        prefetch: 1,
        replica: (0, 1),
        permanent: true,
        standby: false,
        is_stood_by: false,
        cpu_percent: None,
        fence_by_sleeper: false,
        shape: worker_shape(story),
        board: board_shape(story),
        channels: Vec::new(),
        channel_names: String::new(),
        neighbours,
        lanes: (0..lanes).map(writes).collect(),
        inputs: vec![input; inputs],
        given: Vec::new(),
        attempts_max: 0,
        claims: Vec::new(),
    }
}

/// How an incarnation ended: what its successor begins with.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Where its lanes and cursors ended.
    pub verdict: Verdict,
    /// The slot of its committed state.
    pub state: Vec<u8>,
}

/// The end that stands for "nothing happened yet".
pub fn beginning(story: &Story) -> Ended {
    let verdict = Verdict {
        generation: 0,
        kind: VerdictKind::Committed,
        lanes: story.lanes.iter().map(|row| row.base).collect(),
        inputs: story.input.iter().map(|row| row.base).collect(),
    };
    Ended { verdict, state: Vec::new() }
}

/// An incarnation of the worker as the image of a fresh segment.
pub fn origin(generation: u32, last: &Ended) -> Origin {
    let incarnation = Incarnation { agent: WORKER, generation };
    Origin {
        swarm: SWARM,
        incarnation,
        lanes: last.verdict.lanes.clone(),
        inputs: last.verdict.inputs.clone(),
        state: last.state.clone(),
    }
}

/// Makes the bounds that a supervisor knows, and asks for the verdict that it would write.
pub fn end_of(
    story: &Story,
    generation: u32,
    segment: Option<&Region>,
    began: &Ended,
    accepted: &[Place],
    source_tail: Option<Place>,
) -> Ended {
    let lanes: Vec<Bounds> = began
        .verdict
        .lanes
        .iter()
        .zip(accepted)
        .map(|(&began, &least)| Bounds { began, least, most: None })
        .collect();
    let inputs: Vec<Bounds> = began
        .verdict
        .inputs
        .iter()
        .map(|&began| Bounds { began, least: Place::default(), most: source_tail })
        .collect();
    let shape = worker_shape(story);
    let verdict = death::verdict(generation, segment.map(|region| (region, &shape)), &lanes, &inputs);
    let state = match segment {
        Some(_) if verdict.kind == VerdictKind::Corrupt => Vec::new(),
        Some(region) => commit::read(region, &shape)
            .map(|last| state::committed(region, &shape, &last))
            .unwrap_or_default(),
        None => began.state.clone(),
    };
    Ended { verdict, state }
}

/// A segment that is mapped by this process, sealed, and open for others to read.
pub struct Sealed {
    /// What they are handed.
    pub read_only: OwnedFd,
    /// The own mapping.
    pub own: Region,
}

impl Sealed {
    pub(super) fn create(shape: &SegmentShape, origin: &Origin) -> io::Result<Sealed> {
        let fd = segment::create(shape, origin)?;
        let own = segment::attach(&fd, shape, origin.incarnation)?;
        segment::seal_live(&fd)?;
        Ok(Sealed { read_only: segment::reopen_read_only(&fd)?, own })
    }
}

/// The source: it has sent every input before anything begins.
pub struct Source {
    /// Its segment.
    pub sealed: Sealed,
    /// What wakes it.
    pub doorbell: Doorbell,
    /// Its lane.
    pub producer: Producer,
}

impl Source {
    fn create(story: &Story, board: &shoal_runtime::board::Board) -> io::Result<Source> {
        let base =
            story.input.as_ref().map_or(Place { position: SOURCE_RING_BYTES, sequence: 0 }, |row| row.base);
        let incarnation = Incarnation { agent: SOURCE, generation: 1 };
        let first =
            Origin { swarm: SWARM, incarnation, lanes: vec![base], inputs: Vec::new(), state: Vec::new() };
        let sealed = Sealed::create(&source_shape(), &first)?;
        let links =
            Links::new(board.clone(), vec![Neighbour::new(WORKER, worker_shape(story).into(), false)]);
        let readers = vec![ReaderEnd::new(0, 0, (0, 1))];
        let mut producer = Producer::open(sealed.own.clone(), &source_shape(), 0, readers);
        for message in story.input.iter().flat_map(|row| row.messages()) {
            let stamped = producer.pending().sequence.is_multiple_of(64);
            let skip = if stamped { shoal_runtime::frame::EXTENSION_BYTES as usize } else { 0 };
            let len = message.payload.len() as u64 + skip as u64;
            let Claimed::Space(claim) = producer.claim(len, &links) else {
                return Err(io::Error::other("the inputs of a story do not fit the source's ring"));
            };
            producer.bytes_by_hand(&claim)[skip..].copy_from_slice(&message.payload);
            producer.finish(claim, len, stamped.then_some(1));
        }
        producer.publish();
        Ok(Source { sealed, doorbell: Doorbell::create()?, producer })
    }

    /// Where its lane ends.
    pub fn tail(&self) -> Place {
        self.producer.tail()
    }
}

/// An incarnation of the worker in a process of its own.
pub struct Worker {
    /// Its process.
    pub child: Child,
    /// Which life it is.
    pub generation: u32,
    /// Where it began.
    pub began: Ended,
    /// Its segment, as its supervisor holds it.
    pub segment: OwnedFd,
    /// The same, as its peers get it; `None` until it has mapped and the seal is on.
    pub read_only: Option<(OwnedFd, Region)>,
    doorbell: Doorbell,
}

/// A child that a worker forks, and that outlives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heir {
    /// There is none.
    None,
    /// It keeps the segment mapped for writing.
    Keeping,
    /// It has what any child of an agent has: nothing of the segment.
    Plain,
}

/// What a process of the worker shall do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Traced: it stops when it has mapped, and around the section.
    pub traced: bool,
    /// Steps before the section.
    pub warm: u64,
    /// Steps in the section.
    pub stepped: u64,
    /// The section begins before the segment is mapped, not after the warm steps.
    pub from_birth: bool,
    /// It forks a child.
    pub heir: Heir,
}

/// Everything around one worker.
pub struct Stage<'a> {
    /// What shall happen.
    pub story: &'a Story,
    /// The supervisor's words.
    pub board: BoardWriter,
    board_fd: OwnedFd,
    /// The source.
    pub source: Source,
    /// The sinks, one a lane.
    pub sinks: Vec<Sink>,
    sink_fds: Vec<OwnedFd>,
    /// What the worker's process and this one share.
    pub control: Control,
}

impl<'a> Stage<'a> {
    /// Sets everything up.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn new(story: &'a Story) -> io::Result<Self> {
        let sinks_at: Vec<Place> = story.lanes.iter().map(|row| row.base).collect();
        Self::with_sinks_at(story, &sinks_at)
    }

    /// Sets everything up with sinks that stand somewhere already.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn with_sinks_at(story: &'a Story, sinks_at: &[Place]) -> io::Result<Self> {
        let (board, board_fd) = segment::create_board(board_shape(story), SWARM)?;
        let source = Source::create(story, board.view())?;
        let (mut sinks, mut sink_fds) = (Vec::new(), Vec::new());
        let shape = Arc::new(worker_shape(story));
        board.publish_generation(Incarnation { agent: SOURCE, generation: 1 });
        for (i, at) in sinks_at.iter().enumerate() {
            let incarnation = Incarnation { agent: SINK + i as u32, generation: 1 };
            let first =
                Origin { swarm: SWARM, incarnation, lanes: Vec::new(), inputs: vec![*at], state: Vec::new() };
            let Sealed { read_only, own } = Sealed::create(&sink_shape(), &first)?;
            let doorbell = Doorbell::create()?;
            sinks.push(Sink::new(own, doorbell, board.view().clone(), shape.clone(), i));
            sink_fds.push(read_only);
            board.publish_generation(incarnation);
        }
        board.announce();
        Ok(Stage { story, board, board_fd, source, sinks, sink_fds, control: Control::new()? })
    }

    /// Makes an incarnation of the worker that continues where `began` ended.
    ///
    /// # Errors
    /// No memory, descriptors or processes.
    pub fn bear(&self, generation: u32, began: &Ended, order: Order) -> io::Result<Worker> {
        let shape = worker_shape(self.story);
        let segment = segment::create(&shape, &origin(generation, began))?;
        let doorbell = Doorbell::create()?;
        for word in [Word::Phase, Word::Begun, Word::Done, Word::Heir] {
            self.control.set(word, 0);
        }
        let live = || self.live(&segment, generation, order);
        let child = Child::fork_worker(order.traced, self.story.name, live)?;
        Ok(Worker { child, generation, began: began.clone(), segment, read_only: None, doorbell })
    }

    /// The life of a worker, in its own process.
    fn live(&self, segment: &OwnedFd, generation: u32, order: Order) -> Result<(), String> {
        let stop = |phase| {
            self.control.set(Word::Phase, phase);
            if order.traced {
                tracer::breakpoint();
            }
        };
        let told = manifest(self.story, generation);
        let text = |error: io::Error| error.to_string();
        if order.from_birth {
            stop(phase::BEGIN);
        }
        let own = segment::attach(segment, &told.shape, told.incarnation()).map_err(text)?;
        stop(phase::MAPPED);
        if order.heir != Heir::None {
            self.control.set(Word::Heir, fork_heir(order.heir == Heir::Keeping).map_err(text)?);
        }
        let board = segment::open_board(&self.board_fd, told.board.clone()).map_err(text)?;
        let mut links = Vec::new();
        let mut link = |agent, generation, fd: &OwnedFd, shape: &SegmentShape, bell: &Doorbell| {
            let incarnation = Incarnation { agent, generation };
            let region = segment::view(fd, shape, incarnation).map_err(text)?;
            links.push(Link::new(incarnation, region, bell.clone()));
            Ok::<(), String>(())
        };
        if self.story.input.is_some() {
            link(SOURCE, 1, &self.source.sealed.read_only, &source_shape(), &self.source.doorbell)?;
        }
        for (i, (fd, sink)) in self.sink_fds.iter().zip(&self.sinks).enumerate() {
            link(SINK + i as u32, 1, fd, &sink_shape(), &sink.doorbell)?;
        }
        let mut life = Life::open(self.story, &own, &told, board, links).map_err(text)?;
        let first = life.next_step().ok_or("it begins between two steps")?;
        life.check_state(first)?;
        let section = first + order.warm;
        for step in first..(section + order.stepped).min(self.story.total) {
            if step == section && !order.from_birth {
                stop(phase::BEGIN);
            }
            self.control.set(Word::Begun, step + 1);
            life.step(step)?;
            self.control.set(Word::Done, step + 1);
        }
        stop(phase::END);
        Ok(())
    }

    /// Seals the segment of a worker that has mapped it, and hands it to its peers.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn introduce(&mut self, worker: &mut Worker) -> io::Result<()> {
        segment::seal_live(&worker.segment)?;
        let fd = segment::reopen_read_only(&worker.segment)?;
        let incarnation = Incarnation { agent: WORKER, generation: worker.generation };
        let view = segment::view(&fd, &worker_shape(self.story), incarnation)?;
        self.board.publish_generation(incarnation);
        self.board.announce();
        for sink in &mut self.sinks {
            let link = Link::new(incarnation, view.clone(), worker.doorbell.clone());
            sink.meet(vec![link]).map_err(io::Error::other)?;
        }
        worker.read_only = Some((fd, view));
        Ok(())
    }

    /// Puts the segment of a dead first incarnation before everybody's eyes, with its verdict.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn bury(&mut self, image: &super::snapshot::Image, ended: &Ended) -> io::Result<Region> {
        let shape = worker_shape(self.story);
        let incarnation = Incarnation { agent: WORKER, generation: 1 };
        let fd = segment::create(&shape, &origin(1, &beginning(self.story)))?;
        rustix::io::pwrite(&fd, &image.bytes, 0)?;
        segment::seal_live(&fd)?;
        if segment::prove_dead(&fd)? != Proof::Dead {
            return Err(io::Error::other("nobody maps it, yet it is writable"));
        }
        let view = segment::view(segment::reopen_read_only(&fd)?, &shape, incarnation)?;
        self.board.publish_generation(incarnation);
        self.board.verdict(WORKER, &ended.verdict);
        self.board.announce();
        let doorbell = Doorbell::create()?;
        for sink in &mut self.sinks {
            sink.meet(vec![Link::new(incarnation, view.clone(), doorbell.clone())])
                .map_err(io::Error::other)?;
        }
        Ok(view)
    }

    /// A mapping of a worker's segment to watch it by.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(&self, worker: &Worker) -> io::Result<Map> {
        let shape = worker_shape(self.story);
        Map::watch(segment::reopen_read_only(&worker.segment)?, shape.total_bytes())
    }

    /// Runs a traced worker up to a phase, sealing its segment on the way. False if it ended before.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn run_to_phase(&mut self, worker: &mut Worker, phase: u64) -> io::Result<bool> {
        while worker.child.run()? == Stop::Trapped {
            if self.control.get(Word::Phase) == phase::MAPPED && worker.read_only.is_none() {
                self.introduce(worker)?;
            }
            if self.control.get(Word::Phase) == phase {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for the first stop of a traced worker and runs it to the beginning of its section.
    ///
    /// # Errors
    /// The kernel's refusal, or it ended before.
    pub fn run_to_section(&mut self, worker: &mut Worker) -> io::Result<()> {
        let first = worker.child.wait()?;
        if first == Stop::Trapped {
            if self.control.get(Word::Phase) == phase::MAPPED {
                self.introduce(worker)?;
            }
            if self.control.get(Word::Phase) == phase::BEGIN || self.run_to_phase(worker, phase::BEGIN)? {
                return Ok(());
            }
        }
        Err(io::Error::other("the worker ended before its section began"))
    }

    /// Asks the kernel for the proof of a worker's death.
    ///
    /// # Errors
    /// Anything but its refusal.
    pub fn proof(&self, worker: &Worker) -> io::Result<Proof> {
        segment::prove_dead(&worker.segment)
    }

    /// All sinks take what there is.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn take_all(&mut self, confirming: bool) -> Result<(), String> {
        for (i, (sink, row)) in self.sinks.iter_mut().zip(&self.story.lanes).enumerate() {
            sink.take(row, confirming).map_err(|what| format!("lane {i}: {what}"))?;
        }
        Ok(())
    }
}
