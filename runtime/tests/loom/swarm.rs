//! A swarm of a model: some senders (agents 0..n), each with one lane to one receiver (agent n), or to a group of two (agents
//! n and n + 1), and its supervisor's board.

use shoal_runtime::board::{BoardWriter, Verdict, VerdictKind};
use shoal_runtime::claims::{self, ClaimTable};
use shoal_runtime::commit::{self, Committer, Key};
use shoal_runtime::consumer::{Consumer, Frame, Glance, InputEnd, Membership, Polled};
use shoal_runtime::desk::Desk;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::image::{self, Origin};
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::links::{Link, Links, Neighbour};
use shoal_runtime::mark::Place;
use shoal_runtime::producer::{Claimed, Producer, ReaderEnd};
use shoal_runtime::waking::{self, Fence, Party};
use shoal_runtime::{Incarnation, Region};
use std::sync::Arc;

/// Runs a model with at most so many preemptions; all interleavings when `None`. The environment overrides it.
pub fn model(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 50_000;
    builder.check(f);
}

/// What message number `sequence` says, in every word.
pub fn word_of(sequence: u64) -> u64 {
    1000 + sequence
}

/// An incarnation's segment and doorbell.
#[derive(Clone)]
pub struct Life {
    pub who: Incarnation,
    pub region: Region,
    pub bell: Doorbell,
}

impl Life {
    pub fn link(&self) -> Link {
        Link::new(self.who, self.region.clone(), self.bell.clone())
    }
}

/// The supervisor of a model.
pub struct Swarm {
    pub board: BoardWriter,
    senders: usize,
    lane: LaneShape,
    first: Place,
    /// Which messages the receiver takes.
    pub share: (u32, u32),
    /// By which the receivers share the one sender's lane.
    pub table: Option<ClaimTable>,
    /// How many of its messages each of them may hold.
    pub prefetch: usize,
}

impl Swarm {
    /// `senders` senders with rings of `capacity` bytes, whose first message lies at `first`.
    pub fn new(senders: usize, capacity: u64, when_full: WhenFull, first: Place) -> Self {
        let mut agents = vec![(1, 0); senders];
        agents.push((0, senders as u32));
        let board = BoardWriter::heap(BoardShape { channel_count: 0, agents, ..BoardShape::default() });
        Swarm {
            board,
            senders,
            lane: LaneShape { capacity_bytes: capacity, when_full, channel: 0 },
            first,
            share: (0, 1),
            table: None,
            prefetch: 1,
        }
    }

    /// One sender, and two receivers who share its lane.
    pub fn group(capacity: u64) -> Self {
        let mut swarm = Swarm::block(capacity);
        swarm.board = BoardWriter::heap(BoardShape {
            channel_count: 0,
            agents: vec![(1, 0), (0, 1), (0, 1)],
            ..BoardShape::default()
        });
        let entries = claims::entries_of(capacity);
        swarm.table = Some(ClaimTable::new(Region::heap(claims::table_bytes(entries)), 0, entries));
        swarm
    }

    pub fn block(capacity: u64) -> Self {
        Swarm::new(1, capacity, WhenFull::Block, Place { position: capacity, sequence: 0 })
    }

    pub fn sender_shape(&self) -> SegmentShape {
        SegmentShape { lanes: vec![self.lane.clone()], input_count: 0, state_bytes: 0 }
    }

    pub fn receiver_shape(&self) -> SegmentShape {
        SegmentShape { lanes: vec![], input_count: self.senders as u32, state_bytes: 0 }
    }

    /// Makes a segment and a doorbell; lanes and cursors begin where `at` says, or where the swarm began.
    pub fn bear(&self, agent: usize, generation: u32, at: Option<&[Place]>, stores: u64) -> Life {
        let who = Incarnation { agent: agent as u32, generation };
        let begin = vec![self.first; if agent >= self.senders { self.senders } else { 1 }];
        let begin = at.map_or(begin, <[Place]>::to_vec);
        let (shape, lanes, inputs) = if agent >= self.senders {
            (self.receiver_shape(), vec![], begin)
        } else {
            (self.sender_shape(), begin, vec![])
        };
        let region = image::mortal(
            &shape,
            &Origin { swarm: 1, incarnation: who, lanes, inputs, state: Vec::new() },
            stores,
        );
        Life { who, region, bell: Doorbell::model() }
    }

    /// Tells everybody that an incarnation is there.
    pub fn announce(&self, who: Incarnation) {
        self.board.publish_generation(who);
        self.board.announce();
    }

    /// First lives of all senders and of the receiver.
    pub fn begin(&self) -> (Vec<Life>, Life) {
        let lives: Vec<Life> = (0..=self.senders).map(|a| self.bear(a, 1, None, u64::MAX)).collect();
        lives.iter().for_each(|l| self.announce(l.who));
        (lives[..self.senders].to_vec(), lives[self.senders].clone())
    }

    /// First lives of the sender and of both members of the group, as they are at work.
    pub fn begin_group(&self) -> (Sender, [Receiver; 2], [Life; 3]) {
        let lives = [0, 1, 2].map(|agent| self.bear(agent, 1, None, u64::MAX));
        lives.iter().for_each(|life| self.announce(life.who));
        let members = [1, 2].map(|i: usize| self.receiver(&lives[i], vec![lives[0].link()]));
        (self.sender_to(&lives[0], vec![lives[1].link(), lives[2].link()]), members, lives)
    }

    /// Writes and announces the verdict on a dead incarnation, as the supervisor derives it; rings `neighbours`.
    pub fn judge(&self, dead: &Life, neighbours: &[&Life]) -> Vec<Place> {
        let of = |shape: &SegmentShape, key| commit::committed(&dead.region, shape, key).expect("it is dead");
        let is_receiver = dead.who.agent as usize >= self.senders;
        let places: Vec<Place> = if is_receiver {
            (0..self.senders).map(|i| of(&self.receiver_shape(), Key::Input(i))).collect()
        } else {
            vec![of(&self.sender_shape(), Key::Lane(0))]
        };
        let (lanes, inputs) = if is_receiver { (vec![], places.clone()) } else { (places.clone(), vec![]) };
        let verdict =
            Verdict { generation: dead.who.generation, kind: VerdictKind::Committed, lanes, inputs };
        self.board.verdict(dead.who.agent, &verdict);
        self.board.announce();
        neighbours.iter().for_each(|life| life.bell.ring());
        places
    }

    pub fn sender(&self, life: &Life, receiver: Link) -> Sender {
        self.sender_to(life, vec![receiver])
    }

    fn sender_to(&self, life: &Life, receivers: Vec<Link>) -> Sender {
        let shape = Arc::new(self.receiver_shape());
        let neighbour = |i: usize| Neighbour::new((self.senders + i) as u32, shape.clone(), false);
        let neighbours = (0..receivers.len()).map(neighbour).collect();
        let input = life.who.agent as usize;
        let group = self.table.as_ref().map(|_| 0);
        let end = |i: usize| ReaderEnd::new(i, input, self.share).in_group(group);
        let ends = (0..receivers.len()).map(end).collect();
        let agent = self.agent(life, neighbours, receivers);
        let mut producer = Producer::open(life.region.clone(), &self.sender_shape(), 0, ends);
        self.table.iter().for_each(|table| producer.add_group(table.clone()));
        Sender { agent, producers: vec![producer] }
    }

    pub fn receiver(&self, life: &Life, senders: Vec<Link>) -> Receiver {
        let shape = Arc::new(self.sender_shape());
        let neighbours = (0..self.senders).map(|a| Neighbour::new(a as u32, shape.clone(), true)).collect();
        let agent = self.agent(life, neighbours, senders);
        let open = |i| {
            let end = InputEnd { neighbour: i, lane: 0, share: self.share };
            let mut consumer =
                Consumer::open(life.region.clone(), &self.receiver_shape(), i, end, shape.clone());
            if let Some(table) = self.table.clone() {
                consumer.join(Membership { table, owner: life.who.agent, prefetch: self.prefetch });
            }
            consumer
        };
        let mut receiver = Receiver {
            agent,
            consumers: (0..self.senders).map(open).collect(),
            committer: Committer::new(&life.region, &self.receiver_shape(), life.who.generation),
            received: Vec::new(),
        };
        receiver.sync();
        receiver
    }

    fn agent(&self, life: &Life, neighbours: Vec<Neighbour>, links: Vec<Link>) -> Agent {
        let mut all = Links::new(self.board.view().clone(), neighbours);
        all.add_all(links);
        let mut port = life.bell.clone();
        all.sync(&mut port).expect("a model's port does not fail");
        Agent { links: all, port, desk: Desk::new(life.region.clone()) }
    }
}

/// What waiting and ringing need.
pub struct Agent {
    pub links: Links,
    pub port: Doorbell,
    pub desk: Desk,
}

impl Party for Agent {
    type Port = Doorbell;

    fn parts(&mut self) -> (&mut Links, &mut Doorbell, &Desk) {
        (&mut self.links, &mut self.port, &self.desk)
    }
}

/// A sender: what `attachment::Outputs` does, without clocks.
pub struct Sender {
    pub agent: Agent,
    pub producers: Vec<Producer>,
}

impl Sender {
    /// Writes the next message, hidden, `words` words long; waits for space as a blocking channel does.
    pub fn write(&mut self, words: usize) {
        let Sender { agent, producers } = self;
        let producer = &mut producers[0];
        let len = words as u64 * 8;
        let claim = match producer.claim(len, &agent.links) {
            Claimed::Space(claim) => claim,
            Claimed::Never => panic!("it never fits"),
            Claimed::Full { want } => {
                producer.want(want, &mut agent.links);
                let claim = waking::park(agent, Fence::Own, None, &mut |agent, thorough| {
                    let (claim, faults) =
                        waking::look_for_space(producer, len, want, thorough, false, &mut agent.links);
                    assert!(faults.is_empty(), "{faults:?}");
                    claim
                });
                producer.want(0, &mut agent.links);
                claim.expect("a model's port does not fail").expect("there is no deadline")
            }
        };
        let bytes = word_of(producer.pending().sequence).to_le_bytes().repeat(words);
        producer.fill(&claim, &bytes);
        producer.finish(claim, len, None);
    }

    /// Publishes what was written and rings.
    pub fn publish(&mut self) {
        waking::publish_and_ring(&mut self.producers, None, &mut self.agent).expect("a model's port");
    }

    pub fn send(&mut self, words: usize) {
        self.write(words);
        self.publish();
    }
}

/// A receiver: what `attachment::Inputs` does, without clocks.
pub struct Receiver {
    pub agent: Agent,
    pub consumers: Vec<Consumer>,
    pub committer: Committer,
    /// Input and number of each message.
    pub received: Vec<(usize, u64)>,
}

impl Receiver {
    pub fn sync(&mut self) {
        for (i, consumer) in self.consumers.iter_mut().enumerate() {
            consumer.sync(&mut self.agent.links);
            self.agent.links.release(i, consumer.oldest_needed());
        }
    }

    fn look_with(consumers: &mut [Consumer], agent: &mut Agent, thorough: bool) -> Option<(usize, Frame)> {
        for (i, consumer) in consumers.iter_mut().enumerate() {
            if consumer.stale(&agent.links) {
                consumer.sync(&mut agent.links);
                agent.links.release(i, consumer.oldest_needed());
            }
            match consumer.glance() {
                Glance::Message(frame) => return Some((i, frame)),
                Glance::Empty if !thorough => continue,
                Glance::Empty | Glance::Unusual => {}
            }
            match waking::look_at_input(consumer, thorough, &mut agent.links) {
                Polled::Frame(frame) => return Some((i, frame)),
                Polled::Empty => {}
                Polled::Fault(fault) => panic!("{fault}"),
            }
        }
        None
    }

    /// One look, thorough or not.
    pub fn look(&mut self, thorough: bool) -> Option<(usize, Frame)> {
        Self::look_with(&mut self.consumers, &mut self.agent, thorough)
    }

    /// Waits for a message.
    pub fn wait(&mut self) -> (usize, Frame) {
        let Receiver { agent, consumers, .. } = self;
        let found = waking::park(agent, Fence::Left, None, &mut |agent, thorough| {
            Self::look_with(consumers, agent, thorough)
        });
        found.expect("a model's port does not fail").expect("there is no deadline")
    }

    /// Reads a message and checks that it is whole; `None` when it was overwritten (drop-oldest).
    pub fn read(&mut self, (input, frame): &(usize, Frame)) -> Option<()> {
        let (sources, _) = self.consumers[*input].split();
        if !sources.lease(frame) {
            return None;
        }
        let payload = sources.leased(frame);
        assert!(!payload.is_empty());
        for word in payload.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            assert_eq!(word, word_of(frame.at.sequence), "a message is whole");
        }
        Some(())
    }

    /// Acknowledges a message, and rings the sender when it waits for that.
    pub fn ack(&mut self, (input, frame): &(usize, Frame)) {
        let (_, cursor) = self.consumers[*input].split();
        waking::publish_and_ring(&mut [], Some((cursor, frame)), &mut self.agent).expect("a model's port");
        self.received.push((*input, frame.at.sequence));
    }

    /// Waits for a message, reads and acknowledges it.
    pub fn receive(&mut self) {
        let found = self.wait();
        self.read(&found).expect("not overwritten");
        self.ack(&found);
    }

    /// Looks once, and takes what it finds.
    pub fn try_receive(&mut self, thorough: bool) -> bool {
        let Some(found) = self.look(thorough) else { return false };
        if self.read(&found).is_some() {
            self.ack(&found);
        }
        true
    }

    /// Numbers of the messages received on an input.
    pub fn numbers(&self, input: usize) -> Vec<u64> {
        self.received.iter().filter(|(i, _)| *i == input).map(|(_, n)| *n).collect()
    }
}
