//! The rest of the swarm: a board, a source for each lane that the agent reads, and one sink for all that it writes.

use super::Ending;
use super::port::{HarnessPort, PeerPort};
use super::roster::{self, AGENT, ChannelSpec};
use rkyv::util::AlignedVec;
use shoal_runtime::Region;
use shoal_runtime::attachment::{self, Attachment, Found, Inputs, Outputs, World};
use shoal_runtime::board::{Board, BoardWriter, Request, Status, Verdict, VerdictKind};
use shoal_runtime::commit::{self, Key};
use shoal_runtime::cursor::first_position;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::links::{Link, Links, Port};
use shoal_runtime::mark::Place;
use shoal_runtime::message::{self, Message, Scratch};
use shoal_runtime::producer::{Claimed, Producer};
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::wire::{Manifest, Park};
use std::collections::VecDeque;
use std::io;

/// Writes one message, hidden; false when the lane is full.
type Feed = Box<dyn FnMut(&mut Producer, &Links) -> bool>;

struct Source {
    channel: u32,
    peer: Attachment<PeerPort>,
    pending: VecDeque<Feed>,
}

pub(super) struct Outside {
    pub(super) board: BoardWriter,
    board_region: Region,
    manifest: Manifest,
    /// The segment of the agent's last incarnation.
    region: Option<Region>,
    sources: Vec<Source>,
    sink: Attachment<PeerPort>,
    links: Vec<Link>,
    sent: Vec<(u32, AlignedVec<16>)>,
    rejected: Vec<(u32, AlignedVec<16>, String)>,
    fed: usize,
    ended: bool,
    pub(super) ending: Option<Ending>,
    pub(super) collects: bool,
    pub(super) by_hand: bool,
    pub(super) ready: bool,
    pub(super) accusations: usize,
}

impl Outside {
    pub(super) fn new(name: &str, replica: (u32, u32), channels: &[ChannelSpec]) -> Self {
        let manifests = roster::manifests(name, replica, channels);
        let board_region = Region::heap(manifests[0].board.total_bytes());
        let board = BoardWriter::create(board_region.clone(), manifests[0].board.clone(), 1);
        for (index, channel) in channels.iter().enumerate() {
            board.declare(index as u32, channel.fingerprint);
        }
        let mut links = Vec::new();
        let mut peers: VecDeque<Attachment<PeerPort>> = manifests[1..]
            .iter()
            .map(|manifest| {
                let region = segment::heap(&manifest.shape, &origin(manifest, None));
                let doorbell = Doorbell::create().unwrap_or_else(|e| panic!("a doorbell: {e}"));
                board.publish_generation(manifest.incarnation());
                links.push(Link::new(manifest.incarnation(), region.clone(), doorbell));
                attach(manifest.clone(), region, view(&board_region, manifest), PeerPort::default())
                    .unwrap_or_else(|e| panic!("a peer of the harness: {e}"))
            })
            .collect();
        let sink = peers.pop_back().unwrap_or_else(|| unreachable!("there is always a sink"));
        let sources = peers.into_iter().map(|peer| Source {
            channel: peer.manifest.lanes[0].channel,
            peer,
            pending: VecDeque::new(),
        });
        Outside {
            board,
            board_region,
            manifest: manifests[0].clone(),
            region: None,
            sources: sources.collect(),
            sink,
            links,
            sent: Vec::new(),
            rejected: Vec::new(),
            fed: 0,
            ended: false,
            ending: None,
            collects: true,
            by_hand: false,
            ready: false,
            accusations: 0,
        }
    }

    /// The peers' links, for an incarnation of the agent.
    pub(super) fn links(&self) -> Vec<Link> {
        self.links.clone()
    }

    /// Makes the agent's next incarnation, with the verdict on the one before, and links it to its peers.
    pub(super) fn incarnate(
        &mut self,
        doorbell: Doorbell,
        port: HarnessPort,
    ) -> io::Result<Attachment<HarnessPort>> {
        let state = self.region.as_ref().map_or(Vec::new(), |region| kept(&self.manifest, region));
        let verdict = self.region.take().map(|region| verdict(&self.manifest, &region));
        if let Some(verdict) = &verdict {
            self.board.verdict(AGENT, verdict);
            self.manifest.generation += 1;
        }
        let incarnation = self.manifest.incarnation();
        let region = segment::heap(
            &self.manifest.shape,
            &Origin { state, ..origin(&self.manifest, verdict.as_ref()) },
        );
        self.region = Some(region.clone());
        self.board.publish_request(AGENT, Request::Run);
        (self.ended, self.ready) = (false, false);
        self.board.publish_generation(incarnation);
        self.board.announce();
        for peer in self.sources.iter_mut().map(|s| &mut s.peer).chain([&mut self.sink]) {
            peer.world.port.links.push(Link::new(incarnation, region.clone(), doorbell.clone()));
            peer.world.links.sync(&mut peer.world.port)?;
            peer.inputs.sync(&mut peer.world.links);
        }
        if !self.by_hand {
            self.pump_inputs();
        }
        attach(self.manifest.clone(), region, view(&self.board_region, &self.manifest), port)
    }

    fn channel(&self, name: &str) -> u32 {
        let found = self.manifest.channels.iter().position(|c| c.name == name);
        found.unwrap_or_else(|| panic!("the harness has no channel `{name}`")) as u32
    }

    fn push(&mut self, channel: &str, feed: Feed) {
        let index = self.channel(channel);
        let mut sources: Vec<&mut Source> = self.sources.iter_mut().filter(|s| s.channel == index).collect();
        assert!(!sources.is_empty(), "the agent does not subscribe channel `{channel}`");
        let turn = self.fed % sources.len();
        self.fed += 1;
        sources[turn].pending.push_back(feed);
    }

    pub(super) fn feed<T: Message>(&mut self, channel: &str, message: T) {
        let mut scratch = Scratch::new();
        let name = channel.to_owned();
        self.push(
            channel,
            Box::new(move |producer, links| {
                let len = message::encoded_len(&message, &mut scratch).unwrap_or_else(|e| panic!("{e}"));
                put(producer, links, &name, len, |producer, claim| {
                    let written = message::encode(&message, producer.bytes(&claim), &mut scratch);
                    let written = written.unwrap_or_else(|e| panic!("{e}"));
                    producer.finish(claim, written as u64, None);
                })
            }),
        );
    }

    pub(super) fn feed_bytes(&mut self, channel: &str, bytes: Vec<u8>) {
        let name = channel.to_owned();
        self.push(
            channel,
            Box::new(move |producer, links| {
                put(producer, links, &name, bytes.len(), |producer, claim| {
                    producer.fill(&claim, &bytes);
                    producer.finish(claim, bytes.len() as u64, None);
                })
            }),
        );
    }

    /// Takes what the agent sent and feeds what is left; true when anything moved.
    pub(super) fn pump(&mut self) -> bool {
        let collected = self.collects && self.collect();
        self.pump_inputs() || collected
    }

    /// Feeds what fits; true when anything did.
    pub(super) fn pump_inputs(&mut self) -> bool {
        let mut moved = false;
        for Source { peer, pending, .. } in &mut self.sources {
            while let Some(feed) = pending.front_mut()
                && peer.outputs.write_through(0, |producer| feed(producer, &peer.world.links))
            {
                peer.outputs.commit(None, &mut peer.world).unwrap_or_else(|e| panic!("{e}"));
                pending.pop_front();
                moved = true;
            }
        }
        moved
    }

    /// Takes what the agent sent; true when there was anything.
    pub(super) fn collect(&mut self) -> bool {
        let Attachment { manifest, outputs, inputs, world } = &mut self.sink;
        let among: Vec<usize> = (0..manifest.inputs.len()).collect();
        let before = self.sent.len();
        while let Some(Found::Message(input, frame)) = inputs.look(&among, world, true) {
            let (sources, cursor) = inputs.consumer(input).split();
            if sources.lease(&frame) {
                let mut bytes = AlignedVec::new();
                bytes.extend_from_slice(sources.leased(&frame));
                self.sent.push((manifest.inputs[input].channel, bytes));
                let acked = outputs.commit(Some((input, cursor, &frame)), world);
                acked.unwrap_or_else(|e| panic!("{e}"));
            }
        }
        self.sent.len() > before
    }

    /// Takes the payloads collected from a channel.
    pub(super) fn take_sent(&mut self, channel: &str) -> Vec<AlignedVec<16>> {
        let index = self.channel(channel);
        let (taken, left) = std::mem::take(&mut self.sent).into_iter().partition(|(of, _)| *of == index);
        self.sent = left;
        let taken: Vec<(u32, AlignedVec<16>)> = taken;
        taken.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Keeps a message that the agent rejects.
    pub(super) fn reject(&mut self, park: &Park, mut bytes: AlignedVec<16>) {
        let channel = self.manifest.inputs[park.input as usize].channel;
        // Nothing was frozen as one byte.
        bytes.resize(park.len_bytes as usize, 0);
        self.rejected.push((channel, bytes, park.why.clone()));
    }

    /// Takes the payloads that were rejected on a channel, with the reasons.
    pub(super) fn take_rejected(&mut self, channel: &str) -> Vec<(AlignedVec<16>, String)> {
        let index = self.channel(channel);
        let of_channel = self.rejected.extract_if(.., |(of, ..)| *of == index);
        of_channel.map(|(_, bytes, why)| (bytes, why)).collect()
    }

    /// Asks for the end of a run once nothing is left to feed; true when that is news.
    pub(super) fn finish(&mut self) -> bool {
        match self.ending {
            Some(ending) if !self.ended && self.sources.iter().all(|s| s.pending.is_empty()) => {
                self.end(ending);
                true
            }
            _ => false,
        }
    }

    pub(super) fn end(&mut self, how: Ending) {
        self.ended = true;
        match how {
            Ending::Drain => self.board.publish_request(AGENT, Request::Drain),
            Ending::Stop => self.board.publish_request(AGENT, Request::Stop),
            Ending::Close => {
                for (index, Source { peer, .. }) in self.sources.iter_mut().enumerate() {
                    let agent = peer.manifest.agent;
                    let tail = peer.outputs.producer(0).tail();
                    debug_assert_eq!(agent, index as u32 + 1);
                    let kind = VerdictKind::Committed;
                    let verdict = Verdict { generation: 1, kind, lanes: vec![tail], inputs: Vec::new() };
                    self.board.verdict(agent, &verdict);
                    self.board.publish_status(agent, Status::Gone);
                }
                self.board.announce();
            }
        }
        // As the supervisor does after a request.
        self.sink.world.links.ring(0);
    }
}

/// Claims `len` bytes and has them written, if there is space.
fn put(
    producer: &mut Producer,
    links: &Links,
    channel: &str,
    len: usize,
    write: impl FnOnce(&mut Producer, shoal_runtime::producer::Claim),
) -> bool {
    match producer.claim(len as u64, links) {
        Claimed::Space(claim) => {
            write(producer, claim);
            true
        }
        Claimed::Full { .. } => false,
        Claimed::Never => panic!("a message of {len} bytes never fits channel `{channel}`: see `capacity`"),
    }
}

/// Where the lanes and cursors of a fresh segment begin.
fn origin(manifest: &Manifest, verdict: Option<&Verdict>) -> Origin {
    let first = |capacity: u64| Place { position: first_position(capacity), sequence: 0 };
    let inputs = manifest.inputs.iter().map(|input| {
        let producer = &manifest.neighbours[input.neighbour as usize].shape;
        first(producer.lanes[input.lane as usize].capacity_bytes)
    });
    let lanes = manifest.shape.lanes.iter().map(|lane| first(lane.capacity_bytes));
    let (lanes, inputs) = match verdict {
        Some(verdict) => (verdict.lanes.clone(), verdict.inputs.clone()),
        None => (lanes.collect(), inputs.collect()),
    };
    Origin { swarm: 1, incarnation: manifest.incarnation(), lanes, inputs, state: Vec::new() }
}

/// The state that a dead incarnation committed.
fn kept(manifest: &Manifest, region: &Region) -> Vec<u8> {
    let record = commit::read(region, &manifest.shape);
    record.map_or(Vec::new(), |record| shoal_runtime::state::committed(region, &manifest.shape, &record))
}

/// What a dead incarnation committed.
fn verdict(manifest: &Manifest, region: &Region) -> Verdict {
    let committed = |key| {
        let place = commit::committed(region, &manifest.shape, key);
        place.unwrap_or_else(|e| panic!("the record of a dead incarnation: {e:?}"))
    };
    Verdict {
        generation: manifest.generation,
        kind: VerdictKind::Committed,
        lanes: (0..manifest.lanes.len()).map(|i| committed(Key::Lane(i))).collect(),
        inputs: (0..manifest.inputs.len()).map(|i| committed(Key::Input(i))).collect(),
    }
}

fn view(region: &Region, manifest: &Manifest) -> Board {
    Board::open(region.clone(), manifest.board.clone()).unwrap_or_else(|e| panic!("{e}"))
}

/// What `attachment::attach` does, with everything on the heap.
fn attach<P: Port>(manifest: Manifest, region: Region, board: Board, port: P) -> io::Result<Attachment<P>> {
    let links = Links::new(board, attachment::neighbours(&manifest));
    let mut world = World::new(&manifest, links, port, region.clone());
    let outputs = Outputs::open(&region, &manifest, &[]);
    let mut inputs = Inputs::open(&region, &manifest, &[]);
    if manifest.agent == AGENT {
        world.links.sync(&mut world.port)?;
        inputs.sync(&mut world.links);
    }
    Ok(Attachment { manifest, outputs, inputs, world })
}
