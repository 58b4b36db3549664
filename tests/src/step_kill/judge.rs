//! The judge: given the bytes that a worker left, what do its readers, its supervisor and its successor make of them?
//!
//! It runs the runtime's own readers, `shoal::death::verdict`, and a successor that finishes the story, all in this
//! process over copies, and compares what comes out with the story.

use super::life::Life;
use super::sink::Sink;
use super::stage::{self, Ended, SOURCE, WORKER, beginning, board_shape, manifest, sink_shape, worker_shape};
use super::story::Story;
use shoal_runtime::board::{BoardWriter, Verdict, VerdictKind};
use shoal_runtime::desk;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::image;
use shoal_runtime::links::Link;
use shoal_runtime::mark::Place;
use shoal_runtime::segment::Origin;
use shoal_runtime::{Incarnation, Region};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A dead incarnation with its end.
#[derive(Clone)]
pub struct Grave {
    /// What it left.
    pub region: Region,
    /// What the supervisor made of it.
    pub ended: Ended,
}

/// What surrounds an image.
pub struct Scene<'a> {
    /// What shall happen.
    pub story: &'a Story,
    /// The source's segment, and the end of its lane.
    pub source: (Region, Place),
    /// Dead incarnations before this one, oldest first.
    pub graves: Vec<Grave>,
    doorbell: Doorbell,
    scratch: OwnedFd,
    image: Region,
    previous: Vec<u8>,
}

/// What a worker left.
pub struct Left<'a> {
    /// The bytes of its segment; `None` if it never was introduced.
    pub bytes: Option<&'a Vec<u8>>,
    /// Which life it was.
    pub generation: u32,
    /// Steps that it had begun, at the most.
    pub begun: u64,
    /// Steps whose commit had returned.
    pub done: u64,
    /// Published cursors of the sinks.
    pub acked: Vec<Place>,
}

/// What a judgement found.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Steps that took effect.
    pub step: u64,
    /// How it ended.
    pub ended: Ended,
}

impl<'a> Scene<'a> {
    /// A scene around images of a worker's segment.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn new(story: &'a Story, source: (Region, Place), graves: Vec<Grave>) -> std::io::Result<Self> {
        let total = worker_shape(story).total_bytes();
        let scratch = rustix::fs::memfd_create("shoal-image", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&scratch, total as u64)?;
        let image = Region::map_read_only(&scratch, total)?;
        let doorbell = Doorbell::create()?;
        Ok(Scene { story, source, graves, doorbell, scratch, image, previous: vec![0; total] })
    }

    /// Steps that took effect before this incarnation began.
    pub fn steps_before(&self) -> u64 {
        let Some(grave) = self.graves.last() else { return 0 };
        let sequences: Vec<u64> = grave.ended.verdict.lanes.iter().map(|place| place.sequence).collect();
        let input = grave.ended.verdict.inputs.first().map(|place| place.sequence);
        self.story.step_at(&sequences, input).unwrap_or(0)
    }

    /// The copy of the worker's segment that the last judgement was about.
    pub fn image(&self) -> &Region {
        &self.image
    }

    /// Judges what a worker left.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn judge(&mut self, left: &Left<'_>) -> Result<Judged, String> {
        if let Some(bytes) = left.bytes {
            self.load(bytes).map_err(|e| e.to_string())?;
        }
        catch_unwind(AssertUnwindSafe(|| self.judged(left))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("without words")))
        })
    }

    /// What is wrong with what the last worker's desk says that it has in hand, if anything: it must be a message of the story.
    pub fn held_in_halves(&self, left: &Left<'_>) -> Option<String> {
        let (_, at) = left.bytes.and(desk::view(&self.image).held)?;
        let row = self.story.input.as_ref()?;
        let is_one = row.message(at.sequence).is_some_and(|message| message.at == at);
        (!is_one).then(|| format!("its desk says that it holds {at:?}: there is no such message"))
    }

    /// Copies the pages that changed into the image.
    fn load(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for (i, (old, new)) in self.previous.chunks_mut(512).zip(bytes.chunks(512)).enumerate() {
            if old != new {
                rustix::io::pwrite(&self.scratch, new, i as u64 * 512)?;
                old.copy_from_slice(new);
            }
        }
        Ok(())
    }

    fn judged(&self, left: &Left<'_>) -> Result<Judged, String> {
        let story = self.story;
        let mut after = Aftermath::new(self, left)?;
        after.take(false).map_err(|what| format!("a live reader: {what}"))?;
        after.take(true).map_err(|what| format!("a live reader that confirms: {what}"))?;
        let visible: Vec<Place> = after.sinks.iter().map(Sink::at).collect();
        let began = self.graves.last().map_or_else(|| beginning(story), |g| g.ended.clone());
        let region = left.bytes.map(|_| &self.image);
        let ended = stage::end_of(story, left.generation, region, &began, &visible, Some(self.source.1));
        let step = check(story, left, &ended.verdict, &visible)?;
        after.succeed(&ended, step)?;
        Ok(Judged { step, ended })
    }
}

/// Checks a verdict against the story and against what readers saw.
fn check(story: &Story, left: &Left<'_>, verdict: &Verdict, visible: &[Place]) -> Result<u64, String> {
    if verdict.kind != VerdictKind::Committed {
        return Err("the verdict on a clean death is corrupt".into());
    }
    let sequences = |places: &[Place]| places.iter().map(|p| p.sequence).collect::<Vec<_>>();
    let input = verdict.inputs.first().map(|p| p.sequence);
    let lanes = sequences(&verdict.lanes);
    let Some(step) = story.step_at(&lanes, input) else {
        return Err(format!("the verdict lies inside a step: lanes {lanes:?}, input {input:?}"));
    };
    if step < left.done || step > left.begun {
        return Err(format!("{step} steps took effect, of {} finished and {} begun", left.done, left.begun));
    }
    if verdict.lanes != visible {
        return Err(format!("readers had seen {visible:?}, the verdict says {:?}", verdict.lanes));
    }
    Ok(step)
}

/// The swarm around a dead worker: a board and readers of its own, and then a successor.
struct Aftermath<'a> {
    scene: &'a Scene<'a>,
    board: BoardWriter,
    sinks: Vec<Sink>,
    generation: u32,
}

impl<'a> Aftermath<'a> {
    fn new(scene: &'a Scene<'a>, left: &Left<'_>) -> Result<Self, String> {
        let story = scene.story;
        let shape = board_shape(story);
        let board = BoardWriter::create(Region::heap(shape.total_bytes()), shape, 0);
        board.publish_generation(Incarnation { agent: SOURCE, generation: 1 });
        let worker = Arc::new(worker_shape(story));
        let mut links: Vec<Link> = Vec::new();
        let mut link = |generation, region: &Region| {
            let incarnation = Incarnation { agent: WORKER, generation };
            links.push(Link::new(incarnation, region.clone(), scene.doorbell.clone()));
            board.publish_generation(incarnation);
        };
        for grave in &scene.graves {
            link(grave.ended.verdict.generation, &grave.region);
            board.verdict(WORKER, &grave.ended.verdict);
        }
        if left.bytes.is_some() {
            link(left.generation, &scene.image);
        }
        let sink = |(i, at): (usize, &Place)| {
            let incarnation = Incarnation { agent: WORKER + 1 + i as u32, generation: 1 };
            let first =
                Origin { swarm: 0, incarnation, lanes: Vec::new(), inputs: vec![*at], state: Vec::new() };
            let own = image::heap(&sink_shape(), &first);
            board.publish_generation(incarnation);
            Sink::new(own, scene.doorbell.clone(), board.view().clone(), worker.clone(), i)
        };
        let mut sinks: Vec<Sink> = left.acked.iter().enumerate().map(sink).collect();
        board.announce();
        for sink in &mut sinks {
            sink.meet(links.clone())?;
        }
        Ok(Aftermath { scene, board, sinks, generation: left.generation })
    }

    fn take(&mut self, confirming: bool) -> Result<(), String> {
        for (i, (sink, row)) in self.sinks.iter_mut().zip(&self.scene.story.lanes).enumerate() {
            sink.take(row, confirming).map_err(|what| format!("lane {i}: {what}"))?;
        }
        Ok(())
    }

    /// Publishes the verdict, and lets a successor finish the story.
    fn succeed(&mut self, ended: &Ended, begins_with: u64) -> Result<(), String> {
        let story = self.scene.story;
        self.board.verdict(WORKER, &ended.verdict);
        self.board.announce();
        let incarnation = Incarnation { agent: WORKER, generation: self.generation + 1 };
        let told = manifest(story, incarnation.generation);
        let own = image::heap(&told.shape, &stage::origin(incarnation.generation, ended));
        self.board.publish_generation(incarnation);
        self.board.announce();
        let link = Link::new(incarnation, own.clone(), self.scene.doorbell.clone());
        self.sinks.iter_mut().try_for_each(|sink| sink.meet(vec![link.clone()]))?;
        self.take(true).map_err(|what| format!("a reader after the verdict: {what}"))?;
        self.sinks.iter_mut().for_each(Sink::ack);
        let mut life = Life::open(story, &own, &told, self.board.view().clone(), self.links())
            .map_err(|e| format!("the successor: {e}"))?;
        let first = life.next_step().ok_or("the successor begins between two steps")?;
        if first != begins_with {
            return Err(format!("the successor begins with step {first}, not {begins_with}"));
        }
        life.check_state(first).map_err(|what| format!("the successor: {what}"))?;
        for step in first..story.total {
            life.step(step).map_err(|what| format!("the successor in step {step}: {what}"))?;
            self.take(step % 2 == 0).map_err(|what| format!("a reader of the successor: {what}"))?;
            self.sinks.iter_mut().for_each(Sink::ack);
        }
        self.take(true).map_err(|what| format!("a reader of the successor: {what}"))?;
        life.check_state(story.total).map_err(|what| format!("the successor: {what}"))?;
        self.finished(&own, ended)
    }

    /// What the successor is given: the source and the sinks.
    fn links(&self) -> Vec<Link> {
        let link = |agent, region: &Region| {
            Link::new(Incarnation { agent, generation: 1 }, region.clone(), self.scene.doorbell.clone())
        };
        let source = self.scene.story.input.is_some().then(|| link(SOURCE, &self.scene.source.0));
        let sinks = self.sinks.iter().enumerate().map(|(i, sink)| link(WORKER + 1 + i as u32, &sink.own));
        source.into_iter().chain(sinks).collect()
    }

    /// Everything took effect exactly once, and what the successor says of itself is the same.
    fn finished(&self, own: &Region, began: &Ended) -> Result<(), String> {
        let story = self.scene.story;
        let seen: Vec<Place> = self.sinks.iter().map(Sink::at).collect();
        for (i, (place, row)) in seen.iter().zip(&story.lanes).enumerate() {
            let expected = row.sequence_at(story.total);
            if place.sequence != expected {
                return Err(format!("lane {i} ended with message {}, not {expected}", place.sequence));
            }
        }
        let generation = self.generation + 1;
        let end =
            stage::end_of(story, generation, Some(own), began, &seen, Some(self.scene.source.1)).verdict;
        let lanes: Vec<u64> = end.lanes.iter().map(|p| p.sequence).collect();
        let done = story.step_at(&lanes, end.inputs.first().map(|p| p.sequence));
        let all_taken = end.inputs.iter().all(|p| *p == self.scene.source.1);
        if end.kind != VerdictKind::Committed || end.lanes != seen || done != Some(story.total) || !all_taken
        {
            return Err(format!("the successor did everything, but its words say {end:?}"));
        }
        let held = desk::view(own).held;
        if held.is_some() { Err(format!("the successor still holds {held:?}")) } else { Ok(()) }
    }
}
