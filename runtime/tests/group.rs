//! Goal: members of a group take every message once although their producer was started again, and again, while messages of its
//! former lives are in hand. Method: both ends in this process; a life of the producer is a segment, its end a verdict.
#![cfg(not(loom))]
#![allow(missing_docs)]

use shoal_runtime::board::{BoardWriter, Verdict, VerdictKind};
use shoal_runtime::claims::{self, ClaimTable};
use shoal_runtime::consumer::{Consumer, Frame, InputEnd, Membership, Polled};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::links::{Link, Links, Neighbour, Port};
use shoal_runtime::mark::Place;
use shoal_runtime::producer::{Claimed, Producer, ReaderEnd};
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::{Incarnation, Region};
use std::io;
use std::sync::Arc;
use std::time::Instant;

const CAPACITY_BYTES: u64 = 4096;
const ENTRIES: u64 = claims::entries_of(CAPACITY_BYTES);

struct Nowhere;

impl Port for Nowhere {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(Vec::new())
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }
}

struct Member {
    links: Links,
    consumer: Consumer,
}

impl Member {
    fn poll(&mut self) -> Option<Frame> {
        self.links.sync(&mut Nowhere).expect("linked");
        self.consumer.sync(&mut self.links);
        match self.consumer.poll() {
            Polled::Frame(frame) => Some(frame),
            Polled::Empty => None,
            Polled::Fault(fault) => panic!("{fault:?}"),
        }
    }

    fn take_all(&mut self) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(frame) = self.poll() {
            self.consumer.ack(&frame);
            taken.push(frame.at.sequence);
        }
        taken
    }
}

struct Swarm {
    board: BoardWriter,
    writes: Arc<SegmentShape>,
    table: ClaimTable,
    end: Place,
    generation: u32,
    members: Vec<Member>,
}

impl Swarm {
    fn of(members: u32) -> Self {
        let lane = LaneShape { capacity_bytes: CAPACITY_BYTES, when_full: WhenFull::Block, channel: 0 };
        let writes = Arc::new(SegmentShape { lanes: vec![lane], input_count: 0, state_bytes: 0 });
        let mut agents = vec![(1, 0)];
        agents.extend((0..members).map(|_| (0, 1)));
        let shape = BoardShape { channel_count: 1, agents, ..BoardShape::default() };
        let board = BoardWriter::create(Region::heap(shape.total_bytes()), shape, 1);
        let table = ClaimTable::new(Region::heap(claims::table_bytes(ENTRIES)), 0, ENTRIES);
        let end = Place { position: CAPACITY_BYTES, sequence: 0 };
        let reads = SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 };
        let member = |agent| {
            let incarnation = Incarnation { agent, generation: 1 };
            let own =
                Origin { swarm: 1, incarnation, lanes: Vec::new(), inputs: vec![end], state: Vec::new() };
            let input = InputEnd { neighbour: 0, lane: 0, share: (0, 1) };
            let own = segment::heap(&reads, &own);
            let mut consumer = Consumer::open(own, &reads, 0, input, writes.clone());
            consumer.join(Membership { table: table.clone(), owner: agent, prefetch: 1 });
            let links = Links::new(board.view().clone(), vec![Neighbour::new(0, writes.clone(), true)]);
            Member { links, consumer }
        };
        let members = (1..=members).map(member).collect();
        Swarm { board, writes, table, end, generation: 0, members }
    }

    /// One life of the producer: it sends so many messages, each the smallest frame, or as many as it may, and dies.
    fn life_of_the_producer(&mut self, messages: u64) -> u64 {
        self.generation += 1;
        let incarnation = Incarnation { agent: 0, generation: self.generation };
        let lanes = vec![self.end];
        let origin = Origin { swarm: 1, incarnation, lanes, inputs: Vec::new(), state: Vec::new() };
        let region = segment::heap(&self.writes, &origin);
        let end = |member| ReaderEnd::new(member, 0, (0, 1)).in_group(Some(0));
        let ends = (0..self.members.len()).map(end).collect();
        let mut producer = Producer::open(region.clone(), &self.writes, 0, ends);
        producer.add_group(self.table.clone());
        let shape = Arc::new(SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 });
        let neighbours =
            (1..=self.members.len()).map(|agent| Neighbour::new(agent as u32, shape.clone(), false));
        let links = Links::new(self.board.view().clone(), neighbours.collect());
        let mut sent = 0;
        while sent < messages {
            let Claimed::Space(claim) = producer.claim(8, &links) else { break };
            sent += 1;
            producer.fill(&claim, &[1; 8]);
            producer.finish(claim, 8, None);
        }
        producer.publish();
        self.end = producer.tail();
        self.board.publish_generation(incarnation);
        let bell = Doorbell::create().expect("a doorbell");
        for member in &mut self.members {
            member.links.add_all(vec![Link::new(incarnation, region.clone(), bell.clone())]);
        }
        let (generation, kind, lanes) = (self.generation, VerdictKind::Committed, vec![self.end]);
        self.board.verdict(0, &Verdict { generation, kind, lanes, inputs: Vec::new() });
        self.board.announce();
        sent
    }
}

#[test]
fn producer_started_again_never_sends_further_ahead_than_the_table_reaches() {
    let mut swarm = Swarm::of(2);
    assert_eq!(swarm.life_of_the_producer(50), 50);
    let slow = swarm.members[0].poll().expect("the first message");
    assert_eq!(swarm.life_of_the_producer(50), ENTRIES - 1 - 50, "what the predecessor left takes space");
    assert_eq!(swarm.life_of_the_producer(50), 0);
    let before = swarm.members[1].take_all();
    assert_eq!(before, (1..ENTRIES - 1).collect::<Vec<_>>(), "all but the one in hand");
    swarm.members[0].consumer.ack(&slow);
    assert_eq!(swarm.table.frontier_place(Place::default()), swarm.end);
    assert_eq!(swarm.life_of_the_producer(50), 50, "once the frontier has moved");
    assert_eq!(swarm.members[0].take_all().len(), 50);
}

#[test]
fn lone_member_lets_go_of_the_rings_that_it_has_drained() {
    let mut swarm = Swarm::of(1);
    for life in 1..=6 {
        swarm.life_of_the_producer(3);
        assert_eq!(swarm.members[0].take_all().len(), 3);
        assert!(swarm.members[0].consumer.oldest_needed() + 1 >= life, "life {life}");
    }
}
