//! Goal: whoever dies wherever, every committed message arrives once and in order through the whole lineage, and none that was
//! not committed. Method: both ends in this process on heap segments; a death drops the private handles and leaves the shared
//! bytes; the verdict is the supervisor's own.

use shoal::death::{self, Bounds};
use shoal_runtime::board::{Board, BoardWriter, Verdict, VerdictKind};
use shoal_runtime::commit::{self, Committer, Key};
use shoal_runtime::consumer::{Consumer, Frame, InputEnd, Polled};
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

const CAPACITY: u64 = 4096;
const FIRST: Place = Place { position: CAPACITY, sequence: 0 };

struct Arrived(Vec<Link>);

impl Port for Arrived {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(std::mem::take(&mut self.0))
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }
}

/// What a producer has done of its last message when it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    Claimed,
    Finished,
    /// The step's record is committed; tail mark and headers are not published.
    Recorded,
    Published,
}

/// A lane's two ends (agent 0 writes, agent 1 reads), what is dead of them, and the supervisor's words.
struct Lane {
    shapes: [Arc<SegmentShape>; 2],
    board: BoardWriter,
    /// Every incarnation of the producer.
    lineage: Vec<(Incarnation, Region)>,
    own: Region,
    last: [Place; 2],
    generations: [u32; 2],
    producer: Producer,
    committer: Committer,
    producer_links: Links,
    consumer: Consumer,
    links: Links,
    sent: u64,
    read: u64,
}

fn link(incarnation: Incarnation, region: &Region) -> Link {
    Link::new(incarnation, region.clone(), Doorbell::create().expect("a doorbell"))
}

fn links(board: &BoardWriter, of: u32, shape: &Arc<SegmentShape>, all: Vec<Link>) -> Links {
    let mut links = Links::new(Board::clone(board.view()), vec![Neighbour::new(of, shape.clone(), of == 0)]);
    links.add_all(all);
    links
}

impl Lane {
    fn new() -> Lane {
        let lane = LaneShape { capacity_bytes: CAPACITY, when_full: WhenFull::Block, channel: 0 };
        let writes = Arc::new(SegmentShape { lanes: vec![lane], input_count: 0, state_bytes: 0 });
        let reads = Arc::new(SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 });
        let shape = BoardShape { channel_count: 1, agents: vec![(1, 0), (0, 1)], ..BoardShape::default() };
        let board = BoardWriter::create(Region::heap(shape.total_bytes()), shape, 1);
        let shapes = [writes, reads];
        let theirs = fresh(&shapes, 0, 1, FIRST);
        let own = fresh(&shapes, 1, 1, FIRST);
        let (reader, end) = (ReaderEnd::new(0, 0, (0, 1)), InputEnd { neighbour: 0, lane: 0, share: (0, 1) });
        let mut lane = Lane {
            producer: Producer::open(theirs.clone(), &shapes[0], 0, vec![reader]),
            committer: Committer::new(&theirs, &shapes[0], 1),
            producer_links: links(&board, 1, &shapes[1], Vec::new()),
            consumer: Consumer::open(own.clone(), &shapes[1], 0, end, shapes[0].clone()),
            links: links(&board, 0, &shapes[0], Vec::new()),
            lineage: Vec::new(),
            own,
            last: [FIRST; 2],
            generations: [1; 2],
            shapes,
            board,
            sent: 0,
            read: 0,
        };
        lane.begin_consumer(1);
        lane.begin_producer(1);
        lane
    }

    fn begin_producer(&mut self, generation: u32) {
        let incarnation = Incarnation { agent: 0, generation };
        let region = fresh(&self.shapes, 0, generation, self.last[0]);
        self.lineage.push((incarnation, region.clone()));
        self.producer =
            Producer::open(region.clone(), &self.shapes[0], 0, vec![ReaderEnd::new(0, 0, (0, 1))]);
        self.committer = Committer::new(&region, &self.shapes[0], generation);
        let reader = link(Incarnation { agent: 1, generation: self.generations[1] }, &self.own);
        self.producer_links = links(&self.board, 1, &self.shapes[1], vec![reader]);
        self.board.publish_generation(incarnation);
        self.board.announce();
        self.links.sync(&mut Arrived(vec![link(incarnation, &region)])).expect("linked");
        self.consumer.sync(&mut self.links);
        self.generations[0] = generation;
    }

    fn begin_consumer(&mut self, generation: u32) {
        let incarnation = Incarnation { agent: 1, generation };
        // The supervisor hands on what is not drained.
        let oldest = self.consumer.oldest_needed();
        self.lineage.retain(|(i, _)| i.generation >= oldest);
        self.own = fresh(&self.shapes, 1, generation, self.last[1]);
        let end = InputEnd { neighbour: 0, lane: 0, share: (0, 1) };
        self.consumer = Consumer::open(self.own.clone(), &self.shapes[1], 0, end, self.shapes[0].clone());
        let all = self.lineage.iter().map(|(i, r)| link(*i, r)).collect();
        self.links = links(&self.board, 0, &self.shapes[0], all);
        self.consumer.sync(&mut self.links);
        self.board.publish_generation(incarnation);
        let living = link(incarnation, &self.own);
        self.producer_links.add_all(vec![living]);
        self.generations[1] = generation;
    }

    /// Sends the next message; dies in it where it is told to. False when the ring is full.
    fn send(&mut self, len: u64, dies: Option<Dies>) -> bool {
        let len = len.max(8);
        let Claimed::Space(claim) = self.producer.claim(len, &self.producer_links) else { return false };
        let mut payload = vec![0; len as usize];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        self.producer.fill(&claim, &payload);
        assert!(self.producer.take_faults().is_empty());
        if dies == Some(Dies::Claimed) {
            return true;
        }
        self.producer.finish(claim, len, None);
        if dies == Some(Dies::Finished) {
            return true;
        }
        self.committer.commit(&[(Key::Lane(0), self.producer.pending())]);
        self.sent += 1;
        if dies != Some(Dies::Recorded) {
            self.producer.publish();
        }
        true
    }

    fn producer_dies(&mut self, len: u64, dies: Dies) {
        self.send(len, Some(dies));
        let region = &self.lineage.last().expect("one lives").1;
        let least = commit::committed(&self.own, &self.shapes[1], Key::Input(0)).expect("sound");
        let bounds = [Bounds { began: self.last[0], least, most: None }];
        let verdict = death::verdict(self.generations[0], Some((region, &self.shapes[0])), &bounds, &[]);
        self.judge(0, &verdict, verdict.lanes[0]);
        self.begin_producer(self.generations[0] + 1);
    }

    fn consumer_dies(&mut self) {
        let most =
            commit::committed(&self.lineage.last().expect("one lives").1, &self.shapes[0], Key::Lane(0));
        let bounds = [Bounds { began: self.last[1], least: self.last[1], most: most.ok() }];
        let verdict = death::verdict(self.generations[1], Some((&self.own, &self.shapes[1])), &[], &bounds);
        self.judge(1, &verdict, verdict.inputs[0]);
        self.begin_consumer(self.generations[1] + 1);
    }

    fn judge(&mut self, agent: u32, verdict: &Verdict, last: Place) {
        assert_eq!(verdict.kind, VerdictKind::Committed);
        self.last[agent as usize] = last;
        self.board.verdict(agent, verdict);
        self.board.announce();
        self.links.sync(&mut Arrived(Vec::new())).expect("linked");
        self.consumer.sync(&mut self.links);
    }

    /// The next message, checked, not acknowledged.
    fn next(&mut self) -> Option<Frame> {
        let mut polled = self.consumer.poll();
        if polled == Polled::Empty && self.consumer.confirm().expect("no fault") {
            polled = self.consumer.poll();
        }
        let frame = match polled {
            Polled::Frame(frame) => frame,
            Polled::Empty => return None,
            Polled::Fault(fault) => panic!("{fault}"),
        };
        let (sources, _) = self.consumer.split();
        assert!(sources.lease(&frame));
        let number = sources.leased(&frame)[..8].try_into().map(u64::from_le_bytes).expect("eight bytes");
        assert_eq!((number, frame.at.sequence), (self.read, self.read), "once, in order");
        Some(frame)
    }

    fn take(&mut self) -> bool {
        let Some(frame) = self.next() else { return false };
        self.consumer.ack(&frame);
        self.read += 1;
        true
    }

    fn drain(&mut self) {
        while self.take() {}
        assert_eq!(self.read, self.sent, "every committed message, and no other");
    }
}

fn fresh(shapes: &[Arc<SegmentShape>; 2], agent: u32, generation: u32, last: Place) -> Region {
    let shape = &shapes[agent as usize];
    let (lanes, inputs) = if agent == 0 { (vec![last], Vec::new()) } else { (Vec::new(), vec![last]) };
    let incarnation = Incarnation { agent, generation };
    segment::heap(shape, &Origin { swarm: 1, incarnation, lanes, inputs, state: Vec::new() })
}

/// A producer dies at one point, at every place of the ring (so with padding before the message, too).
fn dies_at_every_place(dies: Dies, counts: bool) {
    for before in 0..70 {
        let mut lane = Lane::new();
        for _ in 0..before {
            assert!(lane.send(104, None) && lane.take());
        }
        let sent = lane.sent;
        lane.producer_dies(300, dies);
        assert_eq!(lane.sent - sent, u64::from(counts));
        lane.drain();
        assert!(lane.send(104, None), "the successor goes on");
        lane.drain();
    }
}

#[test]
fn producer_killed_after_claim_leaves_no_frame() {
    dies_at_every_place(Dies::Claimed, false);
}

#[test]
fn producer_killed_after_finish_leaves_no_frame() {
    dies_at_every_place(Dies::Finished, false);
}

#[test]
fn producer_killed_after_its_record_has_sent_the_message_without_any_header() {
    dies_at_every_place(Dies::Recorded, true);
}

#[test]
fn producer_killed_after_publish_has_sent_the_message() {
    dies_at_every_place(Dies::Published, true);
}

#[test]
fn consumer_killed_before_its_cursor_gets_the_message_again() {
    let mut lane = Lane::new();
    assert!(lane.send(8, None));
    assert!(lane.next().is_some());
    lane.consumer_dies();
    lane.drain();
}

#[test]
fn consumer_killed_after_its_cursor_does_not_get_the_message_again() {
    let mut lane = Lane::new();
    assert!(lane.send(8, None) && lane.take());
    lane.consumer_dies();
    assert!(lane.next().is_none());
}

#[test]
fn undrained_predecessors_are_read_in_order_even_when_some_never_committed() {
    let mut lane = Lane::new();
    for generation in 0..6 {
        if generation != 2 && generation != 3 {
            while lane.sent % 20 != 19 && lane.send(120, None) {}
        }
        lane.producer_dies(8, if generation % 2 == 0 { Dies::Finished } else { Dies::Recorded });
    }
    lane.consumer_dies();
    lane.drain();
}

#[test]
fn deaths_of_both_ends_in_any_order_lose_and_repeat_nothing() {
    for seed in 0..400_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut lane = Lane::new();
        for _ in 0..200 {
            let len = next() % 900;
            match next() % 16 {
                0 if lane.generations[0] - lane.consumer.oldest_needed() < 5 => {
                    let all = [Dies::Claimed, Dies::Finished, Dies::Recorded, Dies::Published];
                    lane.producer_dies(len, all[next() as usize % 4]);
                }
                1 => lane.consumer_dies(),
                2..9 => _ = lane.send(len, None),
                _ => _ = lane.take(),
            }
        }
        lane.drain();
    }
}
