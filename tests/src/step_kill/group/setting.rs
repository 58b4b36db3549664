//! Who there is, of what shape, and what each is told: source → group of worker and mate → a sink for each of the worker's lanes.

use super::super::stage::{Ended, SOURCE, Sealed, WORKER, sink_shape};
use super::super::story::{RING_BYTES, STATE_SLOT_BYTES};
use super::story::{FIRST_SEQUENCE, GroupStory, SOURCE_RING_BYTES};
use shoal::death::{self, Bounds};
use shoal::settle::{self, DeadMember};
use shoal::spawn::Ending;
use shoal::trial::{self, Reader, Report, Trials};
use shoal_runtime::board::{Board, Verdict, VerdictKind};
use shoal_runtime::claims::{self, Claim, ClaimTable};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::links::{Link, Links, Neighbour};
use shoal_runtime::mark::Place;
use shoal_runtime::producer::{Claimed, Producer, ReaderEnd};
use shoal_runtime::segment::Origin;
use shoal_runtime::wire::{
    ClaimsEntry, InputEntry, LaneEntry, Manifest, NeighbourEntry, ReaderEntry, TableEntry,
};
use shoal_runtime::{Incarnation, Region, commit, desk, state};
use std::io;

/// Number in the swarm of whoever consumed what lies before the first message.
const ELDER: u32 = 1;
/// Number in the swarm of the mate that lives through a run.
pub const MATE_OWNER: u32 = 2;
/// Number in the swarm of the mate that the judge lets live on.
pub const HEIR_OWNER: u32 = 3;
/// Entries of the claim table.
const ENTRIES: u64 = claims::entries_of(SOURCE_RING_BYTES);

/// Bytes of the group's memory.
pub const TABLE_BYTES: usize = claims::table_bytes(ENTRIES);

/// Number in the swarm of an incarnation of the worker.
pub fn owner_of(generation: u32) -> u32 {
    10 + generation
}

/// Index of the worker's mate on the board.
pub fn mate(story: &GroupStory) -> u32 {
    WORKER + 1 + story.lanes as u32
}

fn lane(capacity_bytes: u64, channel: u32) -> LaneShape {
    LaneShape { capacity_bytes, when_full: WhenFull::Block, channel }
}

fn source_shape() -> SegmentShape {
    SegmentShape { lanes: vec![lane(SOURCE_RING_BYTES, 0)], input_count: 0, state_bytes: 0 }
}

/// Shape of the worker's segments.
pub fn worker_shape(story: &GroupStory) -> SegmentShape {
    let lanes = (0..story.lanes).map(|i| lane(RING_BYTES, i as u32 + 1)).collect();
    let state_bytes = if story.lanes > 0 { STATE_SLOT_BYTES } else { 0 };
    SegmentShape { lanes, input_count: 1, state_bytes }
}

/// Shape of the mate's segment: it only acknowledges.
pub fn mate_shape() -> SegmentShape {
    SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 }
}

/// Shape of the board.
pub fn board_shape(story: &GroupStory) -> BoardShape {
    let lanes = story.lanes as u32;
    let mut agents = vec![(1, 0), (lanes, 1)];
    agents.extend((0..=lanes).map(|_| (0, 1)));
    BoardShape { channel_count: lanes + 1, agents, ..BoardShape::default() }
}

fn manifest(story: &GroupStory, agent: u32, generation: u32, owner: u32) -> Manifest {
    let worker = agent == WORKER;
    let lanes = if worker { story.lanes } else { 0 };
    let neighbour = |agent: u32, shape: SegmentShape, read| NeighbourEntry {
        agent,
        name: String::new(),
        shape: shape.into(),
        read,
    };
    let mut neighbours = vec![neighbour(SOURCE, source_shape(), true)];
    neighbours.extend((0..lanes).map(|i| neighbour(WORKER + 1 + i as u32, sink_shape(), false)));
    let reader = |i: usize| ReaderEntry { neighbour: 1 + i as u32, input: 0, share: (0, 1), group: None };
    let writes = |i| LaneEntry { channel: i as u32 + 1, line: 0, readers: vec![reader(i)], groups: vec![] };
    let table = Some(TableEntry { claims: 0, offset: 0, entries: ENTRIES });
    Manifest {
        swarm: String::new(),
        file: String::new(),
        name: String::new(),
        line: 0,
        agent,
        generation,
        owner,
        prefetch: if worker { story.prefetch as u32 } else { 1 },
        replica: (0, 1),
        permanent: true,
        standby: false,
        is_stood_by: false,
        cpu_percent: None,
        fence_by_sleeper: false,
        shape: if worker { worker_shape(story) } else { mate_shape() },
        board: board_shape(story),
        channels: Vec::new(),
        channel_names: String::new(),
        neighbours,
        lanes: (0..lanes).map(writes).collect(),
        inputs: vec![InputEntry {
            channel: 0,
            line: 0,
            neighbour: 0,
            lane: 0,
            share: (0, 1),
            table,
            copied: false,
        }],
        given: Vec::new(),
        attempts_max: 0,
        claims: vec![ClaimsEntry { bytes: TABLE_BYTES as u64, member: true }],
    }
}

/// What an incarnation of the worker is told.
pub fn worker_manifest(story: &GroupStory, generation: u32) -> Manifest {
    manifest(story, WORKER, generation, owner_of(generation))
}

/// What the mate is told.
pub fn mate_manifest(story: &GroupStory, owner: u32) -> Manifest {
    manifest(story, mate(story), 1, owner)
}

/// The claim table in a mapping of the group's memory.
pub fn table(region: &Region) -> ClaimTable {
    ClaimTable::new(region.clone(), 0, ENTRIES)
}

/// Makes the table of a group that has consumed everything before the first message: its next lap will meet what that left.
pub fn age(region: &Region, story: &GroupStory) {
    let table = table(region);
    for sequence in 0..FIRST_SEQUENCE {
        let taken = table.take(sequence, ELDER);
        table.note_end(sequence, story.input.base.position);
        let settled = table.settle(sequence, ELDER, Claim::Done);
        assert!(taken == Ok(0) && settled, "a fresh table is free");
    }
    table.advance();
}

/// A fresh incarnation of the worker as the image of a segment.
pub fn worker_origin(story: &GroupStory, generation: u32, last: &Ended) -> Origin {
    let incarnation = Incarnation { agent: WORKER, generation };
    Origin {
        swarm: 0,
        incarnation,
        lanes: last.verdict.lanes.clone(),
        inputs: vec![story.input.base],
        state: last.state.clone(),
    }
}

/// The mate as the image of a segment.
pub fn mate_origin(story: &GroupStory) -> Origin {
    let incarnation = Incarnation { agent: mate(story), generation: 1 };
    Origin { swarm: 0, incarnation, lanes: Vec::new(), inputs: vec![story.input.base], state: Vec::new() }
}

/// The end that stands for "nothing happened yet".
pub fn beginning(story: &GroupStory) -> Ended {
    let verdict = Verdict {
        generation: 0,
        kind: VerdictKind::Committed,
        lanes: (0..story.lanes).map(|lane| story.lane_base(lane)).collect(),
        inputs: vec![story.input.base],
    };
    Ended { verdict, state: Vec::new() }
}

/// Asks for the verdict that a supervisor would write on a worker; `accepted` is where its readers stand.
pub fn end_of(
    story: &GroupStory,
    generation: u32,
    segment: Option<&Region>,
    began: &Ended,
    accepted: &[Place],
    source_tail: Place,
) -> Ended {
    let lanes = began.verdict.lanes.iter().zip(accepted);
    let lanes: Vec<Bounds> = lanes.map(|(&began, &least)| Bounds { began, least, most: None }).collect();
    let input = Bounds { began: story.input.base, least: story.input.base, most: Some(source_tail) };
    let shape = worker_shape(story);
    let verdict = death::verdict(generation, segment.map(|region| (region, &shape)), &lanes, &[input]);
    let state = match segment {
        Some(region) => commit::read(region, &shape)
            .map(|last| state::committed(region, &shape, &last))
            .unwrap_or_default(),
        None => began.state.clone(),
    };
    Ended { verdict, state }
}

/// Settles what a dead worker held and wakes its mate, as a supervisor does: it first notes what was given in vain.
pub fn settle(
    story: &GroupStory,
    generation: u32,
    view: &Region,
    ordered: bool,
    tables: &ClaimTable,
    mate: &Doorbell,
) {
    let (shape, owner, desk) = (worker_shape(story), owner_of(generation), desk::view(view));
    let (mut trials, reader, ending) = (Trials::default(), Reader::Group(0, 0), Ending::Signalled(9));
    let claimed =
        |at: &Place| matches!(tables.see(at.sequence), Claim::Owned { owner: by, .. } if by == owner);
    if let Some((0, at)) = desk.held.filter(|(_, at)| claimed(at) && !trial::is_ordered(ordered, ending)) {
        trials.at(reader, at).count(desk.held_attempt, Report::of_process(generation, String::new(), ending));
    }
    let dead = DeadMember { view, shape: &shape, owner };
    let trial = |_, sequence| trials.of(reader, sequence);
    settle::settle(&dead, &[(0, tables.clone())], trial, [mate].into_iter());
}

/// The source: it sends as far as the group lets it.
pub struct Source {
    /// Its segment.
    pub sealed: Sealed,
    /// What wakes it.
    pub doorbell: Doorbell,
    producer: Producer,
    links: Links,
}

impl Source {
    /// A source that has sent nothing yet.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn create(story: &GroupStory, board: &Board, table: ClaimTable) -> io::Result<Source> {
        let incarnation = Incarnation { agent: SOURCE, generation: 1 };
        let lanes = vec![story.input.base];
        let first = Origin { swarm: 0, incarnation, lanes, inputs: Vec::new(), state: Vec::new() };
        let sealed = Sealed::create(&source_shape(), &first)?;
        let members = [(WORKER, worker_shape(story)), (mate(story), mate_shape())];
        let members = members.map(|(agent, shape)| Neighbour::new(agent, shape.into(), false));
        let links = Links::new(board.clone(), members.into_iter().collect());
        let readers = (0..2).map(|i| ReaderEnd::new(i, 0, (0, 1)).in_group(Some(0))).collect();
        let mut producer = Producer::open(sealed.own.clone(), &source_shape(), 0, readers);
        producer.add_group(table);
        Ok(Source { sealed, doorbell: Doorbell::create()?, producer, links })
    }

    /// Makes a member known to it.
    pub fn meet(&mut self, link: Link) {
        self.links.add_all(vec![link]);
    }

    /// Sends what there is room for. How many messages.
    pub fn send(&mut self, story: &GroupStory) -> u64 {
        let first = self.producer.tail().sequence;
        while let Some(message) = story.input.message(self.producer.pending().sequence) {
            let stamped = self.producer.pending().sequence.is_multiple_of(64);
            let skip = if stamped { shoal_runtime::frame::EXTENSION_BYTES as usize } else { 0 };
            let len = (message.payload.len() + skip) as u64;
            let Claimed::Space(claim) = self.producer.claim(len, &self.links) else { break };
            self.producer.bytes_by_hand(&claim)[skip..].copy_from_slice(&message.payload);
            self.producer.finish(claim, len, stamped.then_some(1));
        }
        self.producer.publish();
        self.links.fence();
        self.producer.ring_readers(&mut self.links, false);
        self.producer.tail().sequence - first
    }

    /// Where its lane ends.
    pub fn tail(&self) -> Place {
        self.producer.tail()
    }

    /// Says that it waits until the frontier has passed a position.
    pub fn want(&mut self, position: u64) {
        self.producer.want(position, &mut self.links);
    }
}

/// Maps the source's segment in a worker.
///
/// # Errors
/// The kernel's refusal.
pub fn view_source(sealed: &Sealed) -> io::Result<Region> {
    let incarnation = Incarnation { agent: SOURCE, generation: 1 };
    shoal_runtime::segment::view(&sealed.read_only, &source_shape(), incarnation)
}
