//! One run's surroundings: source, mate, sinks, board and claim table over real memory, and the worker in a process of its own.

use super::super::ear::Ear;
use super::super::sink::Sink;
use super::super::stage::{Ended, Heir, Order, SOURCE, Sealed, WORKER, sink_shape};
use super::super::tracer::{self, Child, Control, Map, Stop, Word, fork_heir, phase};
use super::member::Member;
use super::reader::Reader;
use super::setting::{self, MATE_OWNER, Source, TABLE_BYTES, mate, worker_shape};
use super::story::{Event, GroupStory};
use shoal_runtime::board::BoardWriter;
use shoal_runtime::claims::ClaimTable;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::links::Link;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::{Incarnation, Region, image};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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
    /// The same, as its peers see it; `None` until it has mapped and the seal is on.
    pub view: Option<Region>,
    doorbell: Doorbell,
}

/// Everything around one worker.
pub struct Stage<'a> {
    /// What shall happen.
    pub story: &'a GroupStory,
    /// The supervisor's words.
    pub board: BoardWriter,
    board_fd: OwnedFd,
    /// The group's memory.
    pub table_fd: OwnedFd,
    /// The claim table in it.
    pub table: ClaimTable,
    /// The source.
    pub source: Source,
    /// The other member, in this process.
    pub mate: Member<'a>,
    /// What wakes it.
    pub mate_bell: Doorbell,
    /// What hears whether it is rung.
    pub mate_ear: Ear,
    /// The readers of the worker's lanes.
    pub readers: Vec<Reader>,
    sink_fds: Vec<OwnedFd>,
    /// What the worker's process and this one share, its diary too.
    pub control: Control,
}

impl<'a> Stage<'a> {
    /// Sets everything up; the source has filled its ring.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn new(story: &'a GroupStory) -> io::Result<Self> {
        let (board, board_fd) = segment::create_board(setting::board_shape(story), 0)?;
        let table_fd = segment::create_table(TABLE_BYTES)?;
        let memory = segment::open_table(&table_fd, TABLE_BYTES, true)?;
        setting::age(&memory, story);
        let table = setting::table(&memory);
        let mut source = Source::create(story, board.view(), table.clone())?;
        board.publish_generation(Incarnation { agent: SOURCE, generation: 1 });
        board.publish_generation(Incarnation { agent: mate(story), generation: 1 });
        let (mut readers, mut sink_fds) = (Vec::new(), Vec::new());
        let shape = Arc::new(worker_shape(story));
        for lane in 0..story.lanes {
            let incarnation = Incarnation { agent: WORKER + 1 + lane as u32, generation: 1 };
            let inputs = vec![story.lane_base(lane)];
            let first = Origin { swarm: 0, incarnation, lanes: Vec::new(), inputs, state: Vec::new() };
            let Sealed { read_only, own } = Sealed::create(&sink_shape(), &first)?;
            let sink = Sink::new(own, Doorbell::create()?, board.view().clone(), shape.clone(), lane);
            readers.push(Reader::new(sink, Vec::new()));
            sink_fds.push(read_only);
            board.publish_generation(incarnation);
        }
        board.announce();
        let (own, mate_bell) =
            (image::heap(&setting::mate_shape(), &setting::mate_origin(story)), Doorbell::create()?);
        source.meet(Link::new(
            Incarnation { agent: mate(story), generation: 1 },
            own.clone(),
            mate_bell.clone(),
        ));
        let links = vec![Link::new(
            Incarnation { agent: SOURCE, generation: 1 },
            source.sealed.own.clone(),
            source.doorbell.clone(),
        )];
        let told = setting::mate_manifest(story, MATE_OWNER);
        let mate = Member::open(story, &own, &told, &memory, board.view().clone(), links, None)?;
        source.send(story);
        let control = Control::new()?;
        Ok(Stage {
            story,
            board,
            board_fd,
            table_fd,
            table,
            source,
            mate,
            mate_ear: Ear::at(&mate_bell)?,
            mate_bell,
            readers,
            sink_fds,
            control,
        })
    }

    /// Makes an incarnation of the worker that continues where `began` ended.
    ///
    /// # Errors
    /// No memory, descriptors or processes.
    pub fn bear(&self, generation: u32, began: &Ended, order: Order) -> io::Result<Worker> {
        let origin = setting::worker_origin(self.story, generation, began);
        let segment = segment::create(&worker_shape(self.story), &origin)?;
        let doorbell = Doorbell::create()?;
        for word in [Word::Phase, Word::Heir] {
            self.control.set(word, 0);
        }
        let live = || self.live(&segment, generation, order);
        let child = Child::fork_worker(order.traced, self.story.name, live)?;
        Ok(Worker { child, generation, began: began.clone(), segment, view: None, doorbell })
    }

    /// The life of a worker, in its own process.
    fn live(&self, segment: &OwnedFd, generation: u32, order: Order) -> Result<(), String> {
        let stop = |phase| {
            self.control.set(Word::Phase, phase);
            if order.traced {
                tracer::breakpoint();
            }
        };
        let told = setting::worker_manifest(self.story, generation);
        let text = |error: io::Error| error.to_string();
        if order.from_birth {
            stop(phase::BEGIN);
        }
        let own = segment::attach(segment, &told.shape, told.incarnation()).map_err(text)?;
        let memory = segment::open_table(&self.table_fd, TABLE_BYTES, true).map_err(text)?;
        stop(phase::MAPPED);
        if order.heir != Heir::None {
            self.control.set(Word::Heir, fork_heir(order.heir == Heir::Keeping).map_err(text)?);
        }
        let board = segment::open_board(&self.board_fd, told.board.clone()).map_err(text)?;
        let source = setting::view_source(&self.source.sealed).map_err(text)?;
        let first = |agent| Incarnation { agent, generation: 1 };
        let mut links = vec![Link::new(first(SOURCE), source, self.source.doorbell.clone())];
        for (i, (fd, reader)) in self.sink_fds.iter().zip(&self.readers).enumerate() {
            let incarnation = first(WORKER + 1 + i as u32);
            let region = segment::view(fd, &sink_shape(), incarnation).map_err(text)?;
            links.push(Link::new(incarnation, region, reader.sink.doorbell.clone()));
        }
        let diary = Some(&self.control);
        let mut member = Member::open(self.story, &own, &told, &memory, board, links, diary).map_err(text)?;
        for nth in 0..order.warm + order.stepped {
            if nth == order.warm && !order.from_birth {
                stop(phase::BEGIN);
            }
            if !member.step()? {
                break;
            }
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
        let link = Link::new(incarnation, view.clone(), worker.doorbell.clone());
        self.source.meet(link.clone());
        for reader in &mut self.readers {
            reader.sink.meet(vec![link.clone()]).map_err(io::Error::other)?;
        }
        worker.view = Some(view);
        Ok(())
    }

    /// A mapping of a worker's segment to watch it by.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(&self, worker: &Worker) -> io::Result<Map> {
        Map::watch(segment::reopen_read_only(&worker.segment)?, worker_shape(self.story).total_bytes())
    }

    /// Runs a traced worker up to a phase, sealing its segment on the way. False if it ended before.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn run_to_phase(&mut self, worker: &mut Worker, phase: u64) -> io::Result<bool> {
        while worker.child.run()? == Stop::Trapped {
            if self.control.get(Word::Phase) == phase::MAPPED && worker.view.is_none() {
                self.introduce(worker)?;
            }
            if self.control.get(Word::Phase) == phase {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for the first stop of a traced worker and runs it to the beginning of its section; there the source fills its ring
    /// anew, and readers have taken and acknowledged what was sent before.
    ///
    /// # Errors
    /// The kernel's refusal, what was wrong, or it ended before.
    pub fn run_to_section(&mut self, worker: &mut Worker) -> io::Result<()> {
        let early = || io::Error::other("the worker ended before its section began");
        if worker.child.wait()? != Stop::Trapped {
            return Err(early());
        }
        if self.control.get(Word::Phase) == phase::MAPPED {
            self.introduce(worker)?;
        }
        if self.control.get(Word::Phase) != phase::BEGIN && !self.run_to_phase(worker, phase::BEGIN)? {
            return Err(early());
        }
        self.take_all(true).map_err(io::Error::other)?;
        self.readers.iter_mut().for_each(|reader| reader.sink.ack());
        self.source.send(self.story);
        Ok(())
    }

    /// All readers take what there is.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn take_all(&mut self, confirming: bool) -> Result<(), String> {
        for (lane, reader) in self.readers.iter_mut().enumerate() {
            let taken = reader.take(self.story, lane, confirming);
            taken.map_err(|what| format!("a reader of lane {lane}: {what}"))?;
        }
        Ok(())
    }

    /// Source and mate go on until neither can.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn others_go_on(&mut self) -> Result<(), String> {
        loop {
            let sent = self.source.send(self.story);
            let taken = self.mate.work(u64::MAX).map_err(|what| format!("the mate: {what}"))?;
            if sent + taken == 0 {
                return Ok(());
            }
        }
    }

    /// What the worker noted.
    pub fn diary(&self) -> Vec<(Event, u64)> {
        self.control.noted().into_iter().map(Event::of).collect()
    }
}
