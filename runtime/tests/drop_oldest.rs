//! Goal: a reader of a drop-oldest lane never believes a copy that was overwritten while it was made. Method: both ends in
//! this process, and the overwriting done between the poll and the lease.
#![cfg(not(loom))]
#![allow(missing_docs)]

use shoal_runtime::board::{Board, BoardWriter};
use shoal_runtime::consumer::{Consumer, InputEnd, Polled};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::links::{Link, Links, Neighbour, Port};
use shoal_runtime::mark::Place;
use shoal_runtime::producer::{Claimed, Producer};
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::{Incarnation, Region};
use std::io;
use std::sync::Arc;
use std::time::Instant;

struct Nowhere(Vec<Link>);

impl Port for Nowhere {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(std::mem::take(&mut self.0))
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }
}

fn send(producer: &mut Producer, links: &Links, count: u8) {
    for n in 0..count {
        let Claimed::Space(claim) = producer.claim(100, links) else {
            panic!("drop-oldest always has space")
        };
        producer.fill(&claim, &[n; 100]);
        producer.finish(claim, 100, None);
        producer.publish();
    }
}

#[test]
fn a_frame_given_up_between_poll_and_lease_is_not_read() {
    let lane = LaneShape { capacity_bytes: 4096, when_full: WhenFull::DropOldest, channel: 0 };
    let writes = Arc::new(SegmentShape { lanes: vec![lane], input_count: 0, state_bytes: 0 });
    let reads = SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 };
    let place = Place { position: 4096, sequence: 0 };
    let (writer, reader) = (Incarnation { agent: 0, generation: 1 }, Incarnation { agent: 1, generation: 1 });
    let theirs =
        Origin { swarm: 1, incarnation: writer, lanes: vec![place], inputs: Vec::new(), state: Vec::new() };
    let own =
        Origin { swarm: 1, incarnation: reader, lanes: Vec::new(), inputs: vec![place], state: Vec::new() };
    let (theirs, own) = (segment::heap(&writes, &theirs), segment::heap(&reads, &own));
    let shape = BoardShape { channel_count: 1, agents: vec![(1, 0), (0, 1)], ..BoardShape::default() };
    let region = Region::heap(shape.total_bytes());
    let board = BoardWriter::create(region.clone(), shape.clone(), 1);
    board.publish_generation(writer);
    let board = Board::open(region, shape).expect("it fits");
    let mut links = Links::new(board, vec![Neighbour::new(0, writes.clone(), true)]);
    let doorbell = Doorbell::create().expect("a doorbell");
    links.sync(&mut Nowhere(vec![Link::new(writer, theirs.clone(), doorbell)])).expect("linked");

    let mut producer = Producer::open(theirs, &writes, 0, Vec::new());
    let end = InputEnd { neighbour: 0, lane: 0, share: (0, 1) };
    let mut consumer = Consumer::open(own, &reads, 0, end, writes);
    consumer.sync(&mut links);
    send(&mut producer, &links, 3);
    let Polled::Frame(frame) = consumer.poll() else { panic!("no frame") };
    assert!(consumer.split().0.lease(&frame));
    assert_eq!(consumer.split().0.leased(&frame), [0; 100]);
    send(&mut producer, &links, 40);
    assert!(!consumer.split().0.lease(&frame), "it was overwritten");
    let Polled::Frame(newer) = consumer.poll() else { panic!("no frame") };
    assert!(newer.at.position > frame.at.position && consumer.split().0.lease(&newer));
    assert_eq!(consumer.missed(), newer.at.sequence, "the gap is counted exactly");
}
