//! The judge of a group: given what a worker left, in its segment and in the claim table, what do its readers, its mate, its
//! supervisor and its successor make of it? All of them are the real code, over copies.

use super::super::ear::Ear;
use super::super::sink::Sink;
use super::super::stage::{Ended, SOURCE, WORKER, sink_shape};
use super::super::tracer::Aside;
use super::account::{self, Holding};
use super::member::Member;
use super::reader::{self, Reader, Seen};
use super::setting::{self, HEIR_OWNER, TABLE_BYTES, mate, owner_of, worker_shape};
use super::story::{Event, GroupStory};
use shoal_runtime::board::{BoardWriter, VerdictKind};
use shoal_runtime::claims::{Claim, ClaimTable};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::links::Link;
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::{Incarnation, Region, desk, image};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a worker left, and how far the others were.
pub struct Left {
    /// The bytes of its segment; `None` if it never was introduced.
    pub bytes: Option<Aside>,
    /// The bytes of the claim table.
    pub table: Aside,
    /// What it noted.
    pub diary: Vec<(Event, u64)>,
    /// What its mate is done with.
    pub mate_done: Vec<u64>,
    /// Published cursors of its readers, and what they saw before those.
    pub acked: Vec<(Place, Vec<Seen>)>,
    /// The end of the source's lane.
    pub tail: Place,
    /// The death was ordered.
    pub ordered: bool,
    /// The mate takes everything before the death is noticed, and then sleeps; if not, it has claimed one message and works on it.
    pub eager: bool,
    /// After the settlement it wakes before there is a successor.
    pub mate_first: bool,
}

/// What images are judged with.
pub struct Judge<'a> {
    story: &'a GroupStory,
    source: Region,
    bell: Doorbell,
    /// The copy of the worker's segment.
    pub image_fd: OwnedFd,
    image: Region,
    previous: Vec<u8>,
    /// The copy of the group's memory.
    pub table_fd: OwnedFd,
    memory: Region,
}

/// The first life of a worker is the one that is judged.
pub const GENERATION: u32 = 1;

impl<'a> Judge<'a> {
    /// A judge of images of a worker whose source is this.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn new(story: &'a GroupStory, source: Region) -> std::io::Result<Self> {
        let total = worker_shape(story).total_bytes();
        let image_fd = rustix::fs::memfd_create("shoal-image", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&image_fd, total as u64)?;
        let image = Region::map_read_only(&image_fd, total)?;
        let table_fd = segment::create_table(TABLE_BYTES)?;
        let memory = segment::open_table(&table_fd, TABLE_BYTES, true)?;
        let (bell, previous) = (Doorbell::create()?, vec![0; total]);
        Ok(Judge { story, source, bell, image_fd, image, previous, table_fd, memory })
    }

    /// Judges what a worker left.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn judge(&mut self, left: &Left) -> Result<(), String> {
        unpanicked(|| self.begin(left)?.end())
    }

    /// As [`Judge::judge`], after a settlement that died and left these bytes in the table.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn judge_again(&mut self, left: &Left, half_settled: &[u8]) -> Result<(), String> {
        unpanicked(|| {
            let after = self.begin(left)?;
            after.judge.load_table(half_settled)?;
            after.end()
        })
    }

    /// Loads what a worker left, and lets its readers and its mate do what they can before its death is noticed.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn begin<'j>(&'j mut self, left: &'j Left) -> Result<Aftermath<'j>, String> {
        if let Some(bytes) = &left.bytes {
            self.load(bytes).map_err(|e| e.to_string())?;
        }
        self.load_table(&left.table)?;
        Aftermath::new(self, left)
    }

    /// Copies the pages that changed into the image.
    fn load(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for (i, (old, new)) in self.previous.chunks_mut(512).zip(bytes.chunks(512)).enumerate() {
            if old != new {
                rustix::io::pwrite(&self.image_fd, new, i as u64 * 512)?;
                old.copy_from_slice(new);
            }
        }
        Ok(())
    }

    fn load_table(&self, bytes: &[u8]) -> Result<(), String> {
        rustix::io::pwrite(&self.table_fd, bytes, 0).map(drop).map_err(|e| e.to_string())
    }
}

/// Runs a judgement; a panic of the code that is judged is a finding.
///
/// # Errors
/// What was wrong, in words.
pub fn unpanicked(judgement: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(judgement)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without words")))
    })
}

/// The swarm around a dead worker: a board, readers and a mate of its own, and then a successor.
pub struct Aftermath<'a> {
    judge: &'a Judge<'a>,
    left: &'a Left,
    board: BoardWriter,
    table: ClaimTable,
    readers: Vec<Reader>,
    mate: Member<'a>,
    bell: Doorbell,
    ear: Ear,
    holdings: Vec<Holding>,
    /// Messages that an acknowledgement alone settled before the worker died.
    settled: Vec<u64>,
}

impl<'a> Aftermath<'a> {
    fn new(judge: &'a Judge<'a>, left: &'a Left) -> Result<Self, String> {
        let story = judge.story;
        let text = |error: std::io::Error| error.to_string();
        let board_shape = setting::board_shape(story);
        let board = BoardWriter::create(Region::heap(board_shape.total_bytes()), board_shape, 0);
        let source = Incarnation { agent: SOURCE, generation: 1 };
        board.publish_generation(source);
        board.publish_generation(Incarnation { agent: mate(story), generation: 1 });
        let worker = Arc::new(worker_shape(story));
        let incarnation = Incarnation { agent: WORKER, generation: GENERATION };
        let link = Link::new(incarnation, judge.image.clone(), judge.bell.clone());
        let link = left.bytes.is_some().then(|| vec![link]);
        if link.is_some() {
            board.publish_generation(incarnation);
        }
        let reader = |(lane, (at, seen)): (usize, &(Place, Vec<Seen>))| {
            let incarnation = Incarnation { agent: WORKER + 1 + lane as u32, generation: 1 };
            let inputs = vec![*at];
            let first = Origin { swarm: 0, incarnation, lanes: Vec::new(), inputs, state: Vec::new() };
            let own = image::heap(&sink_shape(), &first);
            board.publish_generation(incarnation);
            let sink = Sink::new(own, judge.bell.clone(), board.view().clone(), worker.clone(), lane);
            Reader::new(sink, seen.clone())
        };
        let readers: Vec<Reader> = left.acked.iter().enumerate().map(reader).collect();
        board.announce();
        let own = image::heap(&setting::mate_shape(), &setting::mate_origin(story));
        let links = vec![Link::new(source, judge.source.clone(), judge.bell.clone())];
        let told = setting::mate_manifest(story, HEIR_OWNER);
        let mate = Member::open(story, &own, &told, &judge.memory, board.view().clone(), links, None)
            .map_err(text)?;
        let bell = Doorbell::create().map_err(text)?;
        let ear = Ear::at(&bell).map_err(text)?;
        let table = setting::table(&judge.memory);
        let (holdings, settled) = (Vec::new(), Vec::new());
        let mut after = Aftermath { judge, left, board, table, readers, mate, bell, ear, holdings, settled };
        for reader in &mut after.readers {
            reader.sink.meet(link.clone().unwrap_or_default())?;
        }
        after.before_the_settlement()?;
        Ok(after)
    }

    fn take(&mut self, confirming: bool) -> Result<(), String> {
        let story = self.judge.story;
        for (lane, reader) in self.readers.iter_mut().enumerate() {
            reader.take(story, lane, confirming).map_err(|what| format!("lane {lane}: {what}"))?;
        }
        Ok(())
    }

    fn before_the_settlement(&mut self) -> Result<(), String> {
        self.take(false).map_err(|what| format!("a live reader: {what}"))?;
        self.take(true).map_err(|what| format!("a live reader that confirms: {what}"))?;
        if self.left.eager {
            self.mate.work(u64::MAX).map_err(|what| format!("the mate: {what}"))?;
            self.mate.park(true);
            if self.mate.finds_something()? {
                return Err("the mate took all that there was, and then there was more".into());
            }
        } else {
            self.mate.finds_something().map_err(|what| format!("the mate: {what}"))?;
        }
        let (story, left) = (self.judge.story, self.left);
        let owner = owner_of(GENERATION);
        self.holdings = account::pins(story, &self.table, owner, &left.diary, left.tail, left.eager)?;
        let acknowledged = |sequence: &u64| {
            let committing = account::last_event(&left.diary, *sequence) == Some(Event::Committing);
            committing && self.table.see(*sequence) == Claim::Done
        };
        self.settled = (story.input.base.sequence..left.tail.sequence).filter(acknowledged).collect();
        Ok(())
    }

    /// The verdict, the settlement, and everybody's life after it.
    fn end(mut self) -> Result<(), String> {
        let (story, left) = (self.judge.story, self.left);
        let visible = reader::places(&self.readers);
        let region = left.bytes.is_some().then_some(&self.judge.image);
        let began = setting::beginning(story);
        let ended = setting::end_of(story, GENERATION, region, &began, &visible, left.tail);
        if ended.verdict.kind != VerdictKind::Committed || ended.verdict.lanes != visible {
            return Err(format!("readers had seen {visible:?}, the verdict is {:?}", ended.verdict));
        }
        let consumed = account::consumed(&ended)?;
        reader::check(story, &self.readers, consumed)?;
        self.board.verdict(WORKER, &ended.verdict);
        self.board.announce();
        if let Some(view) = region {
            setting::settle(story, GENERATION, view, left.ordered, &self.table, &self.bell);
        }
        let freed = account::settled(&self.table, &self.holdings, consumed, &left.diary, left.ordered)?;
        if left.eager && !self.ear.has_heard() && !freed.is_empty() {
            return Err("the mate sleeps although messages are free again".into());
        }
        self.mate.park(false);
        self.go_on(&ended, &freed)
    }

    /// Mate and successor do the rest.
    fn go_on(&mut self, ended: &Ended, freed: &[Holding]) -> Result<(), String> {
        let (story, left) = (self.judge.story, self.left);
        if left.mate_first {
            self.mate.work(u64::MAX).map_err(|what| format!("the mate: {what}"))?;
            let given = |h: &&Holding| self.mate.done.contains(&(h.sequence, u32::from(h.attempts)));
            if let Some(lost) = freed.iter().find(|h| !given(h)) {
                return Err(format!("the mate was not given {lost:?}, which is free again"));
            }
        }
        let incarnation = Incarnation { agent: WORKER, generation: GENERATION + 1 };
        let told = setting::worker_manifest(story, incarnation.generation);
        let own = image::heap(&told.shape, &setting::worker_origin(story, incarnation.generation, ended));
        self.board.publish_generation(incarnation);
        self.board.announce();
        let link = Link::new(incarnation, own.clone(), self.judge.bell.clone());
        self.readers.iter_mut().try_for_each(|reader| reader.sink.meet(vec![link.clone()]))?;
        self.take(true).map_err(|what| format!("a reader after the verdict: {what}"))?;
        self.readers.iter_mut().for_each(|reader| reader.sink.ack());
        let (board, memory) = (self.board.view().clone(), &self.judge.memory);
        let mut successor = Member::open(story, &own, &told, memory, board, self.links(), None)
            .map_err(|what| format!("the successor: {what}"))?;
        while successor.step().map_err(|what| format!("the successor: {what}"))? {
            self.take(successor.done.len() % 2 == 0).map_err(|what| format!("a reader of it: {what}"))?;
            self.readers.iter_mut().for_each(|reader| reader.sink.ack());
        }
        self.take(true).map_err(|what| format!("a reader of the successor: {what}"))?;
        self.mate.work(u64::MAX).map_err(|what| format!("the mate, at last: {what}"))?;
        let given = |h: &&Holding| {
            let given = (h.sequence, u32::from(h.attempts));
            self.mate.done.contains(&given) || successor.done.contains(&given)
        };
        if let Some(lost) = freed.iter().find(|h| !given(h)) {
            return Err(format!("nobody was given {lost:?}, which is free again"));
        }
        self.finished(&own, &mut successor)
    }

    fn links(&self) -> Vec<Link> {
        let link = |agent, region: &Region| {
            Link::new(Incarnation { agent, generation: 1 }, region.clone(), self.judge.bell.clone())
        };
        let sinks = self.readers.iter().enumerate();
        let sinks = sinks.map(|(i, reader)| link(WORKER + 1 + i as u32, &reader.sink.own));
        std::iter::once(link(SOURCE, &self.judge.source)).chain(sinks).collect()
    }

    /// Everything took effect exactly once.
    fn finished(&self, own: &Region, successor: &mut Member<'_>) -> Result<(), String> {
        let (story, left) = (self.judge.story, self.left);
        let consumed = successor.consumed()?;
        reader::check(story, &self.readers, consumed)?;
        let by_worker = |sequence| match story.lanes {
            0 => acknowledged(&left.diary, &self.settled, &successor.done, sequence),
            _ => u64::from(consumed.has(sequence)),
        };
        let by_mate = |sequence| {
            let now = self.mate.done.iter().filter(|(s, _)| *s == sequence).count();
            (now + left.mate_done.iter().filter(|s| **s == sequence).count()) as u64
        };
        account::once(by_worker, by_mate, left.tail.sequence)?;
        let frontier = self.table.frontier_place(story.input.base);
        if frontier != left.tail {
            return Err(format!(
                "all is done up to {:?}, but the frontier stands at {frontier:?}",
                left.tail
            ));
        }
        let (held, intents) = (desk::view(own).held, desk::intents(own, &worker_shape(story), 0));
        if held.is_some() || !intents.is_empty() {
            return Err(format!("the successor still holds {held:?}, or intends {intents:?}"));
        }
        Ok(())
    }
}

/// How often a worker that only acknowledges is done with a message: as it noted, as the table said when it died, or in its
/// successor's life.
fn acknowledged(diary: &[(Event, u64)], settled: &[u64], later: &[(u64, u32)], sequence: u64) -> u64 {
    let noted = diary.contains(&(Event::Committed, sequence)) || settled.contains(&sequence);
    u64::from(noted) + later.iter().filter(|(s, _)| *s == sequence).count() as u64
}
