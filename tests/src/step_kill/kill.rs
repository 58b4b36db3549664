//! Kill mode: a process of its own is brought to a boundary and dies there, for real; then its successor runs, for real.
//!
//! Also at a boundary: a worker that only stands still, and one that died and left a child with its memory, are never
//! given a verdict; and a reader (or a producer that wants space) that falls asleep there is rung, or has seen everything.

use super::ear::Ear;
use super::report::Report;
use super::snapshot::Pass;
use super::stage::{Heir, Order, Stage, WORKER, Worker, beginning, end_of, worker_shape};
use super::story::Story;
use super::tracer::{Stop, Word, kill_heir, phase};
use shoal_runtime::Incarnation;
use shoal_runtime::board::VerdictKind;
use shoal_runtime::cursor::FRAME_ALIGN_BYTES;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::input;
use shoal_runtime::links::{Link, Links, Neighbour};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::Proof;
use std::collections::HashMap;
use std::io;

/// What happens at a boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It dies.
    Killed,
    /// It dies, and a child of it keeps its memory for a while.
    Kept,
    /// It dies, and a child of it that has nothing of its memory lives on.
    Survived,
    /// It goes on, but its readers fell asleep there.
    Parked,
    /// It stands still while its group goes on, and then goes on itself.
    Stopped,
}

impl Fate {
    /// Its name, for the report.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Killed => "killed",
            Fate::Kept => "kept",
            Fate::Survived => "survived",
            Fate::Parked => "parked",
            Fate::Stopped => "stopped",
        }
    }
}

/// A worker that stands at a boundary, and what surrounds it.
struct Stopped<'a> {
    stage: Stage<'a>,
    worker: Worker,
}

/// An instruction boundary of a pass: its number, where it is, and how often the pass has been there, this time included.
pub(super) struct Boundary {
    pub(super) k: usize,
    pub(super) rip: u64,
    pub(super) nth: usize,
}

/// Every so many of a pass's boundaries.
pub(super) fn sampled(trace: &[u64], every: usize) -> impl Iterator<Item = Boundary> {
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let boundaries = trace.iter().enumerate().map(move |(k, &rip)| {
        let nth = seen.entry(rip).or_default();
        *nth += 1;
        Boundary { k, rip, nth: *nth }
    });
    boundaries.filter(move |boundary| boundary.k.is_multiple_of(every))
}

/// Lets `fate` happen at every so many of a pass's boundaries.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &Story, pass: &Pass, every: usize, fate: Fate, report: &mut Report) -> io::Result<()> {
    let name = format!("{}/{}", fate.name(), story.name);
    for Boundary { k, rip, nth } in sampled(&pass.trace, every) {
        if report.enough() {
            break;
        }
        report.boundaries += 1;
        if let Err(what) = at_boundary(story, rip, nth, fate)? {
            report.violation(&name, Some(rip), format!("{what} (boundary {k})"));
        }
    }
    Ok(())
}

fn at_boundary(story: &Story, rip: u64, nth: usize, fate: Fate) -> io::Result<Result<(), String>> {
    let mut stage = Stage::new(story)?;
    let heir = match fate {
        Fate::Kept => Heir::Keeping,
        Fate::Survived => Heir::Plain,
        Fate::Killed | Fate::Parked | Fate::Stopped => Heir::None,
    };
    let order = Order { traced: true, warm: story.warm, stepped: story.stepped, from_birth: false, heir };
    let mut worker = stage.bear(1, &beginning(story), order)?;
    if let Err(error) = stage.run_to_section(&mut worker) {
        return Ok(Err(error.to_string()));
    }
    if let Err(what) = stage.take_all(true) {
        return Ok(Err(format!("a reader before the section: {what}")));
    }
    stage.sinks.iter_mut().for_each(super::sink::Sink::ack);
    if !worker.child.run_to(rip, nth)? {
        // Another path than in the pass (a clock read took another turn): its end is a boundary like any other.
        if stage.control.get(Word::Phase) != phase::END {
            return Ok(Err("the worker ended before its section was over".into()));
        }
    }
    let stopped = Stopped { stage, worker };
    match fate {
        Fate::Parked => stopped.park(),
        Fate::Killed | Fate::Kept | Fate::Survived | Fate::Stopped => stopped.kill(heir),
    }
}

impl Stopped<'_> {
    /// Kills it, proves it, and lets a successor finish the story.
    fn kill(mut self, heir: Heir) -> io::Result<Result<(), String>> {
        if self.stage.proof(&self.worker)? != Proof::StillWritable {
            return Ok(Err("a worker that only stands still is taken for dead".into()));
        }
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("a live reader: {what}")));
        }
        self.worker.child.kill()?;
        let proof = self.stage.proof(&self.worker)?;
        kill_heir(self.stage.control.get(Word::Heir));
        match (heir, proof) {
            (Heir::Keeping, Proof::Dead) => {
                return Ok(Err("a verdict is possible while a child keeps the memory".into()));
            }
            (Heir::None | Heir::Plain, Proof::StillWritable) => {
                return Ok(Err("a death cannot be proved".into()));
            }
            _ if self.stage.proof(&self.worker)? != Proof::Dead => {
                return Ok(Err("a death cannot be proved when all children are gone".into()));
            }
            _ => {}
        }
        self.succeed()
    }

    /// The verdict, and the next incarnation in a process of its own.
    fn succeed(mut self) -> io::Result<Result<(), String>> {
        let story = self.stage.story;
        let visible: Vec<Place> = self.stage.sinks.iter().map(|sink| sink.at()).collect();
        let (begun, done) = (self.stage.control.get(Word::Begun), self.stage.control.get(Word::Done));
        let view = self.worker.read_only.as_ref().map(|(_, view)| view);
        let ended = end_of(story, 1, view, &self.worker.began, &visible, Some(self.stage.source.tail()));
        let verdict = &ended.verdict;
        let lanes: Vec<u64> = verdict.lanes.iter().map(|place| place.sequence).collect();
        let step = story.step_at(&lanes, verdict.inputs.first().map(|place| place.sequence));
        if verdict.kind != VerdictKind::Committed || verdict.lanes != visible {
            return Ok(Err(format!("readers had seen {visible:?}, the verdict is {verdict:?}")));
        }
        if !step.is_some_and(|step| (done..=begun).contains(&step)) {
            return Ok(Err(format!("after {done} to {begun} steps the verdict is {verdict:?}")));
        }
        self.stage.board.verdict(WORKER, verdict);
        self.stage.board.announce();
        let order =
            Order { traced: true, warm: 0, stepped: story.total, from_birth: false, heir: Heir::None };
        let mut next = self.stage.bear(2, &ended, order)?;
        if let Err(what) = self.finish(&mut next)? {
            return Ok(Err(format!("the successor: {what}")));
        }
        Ok(self.all_is_there(&next))
    }

    fn finish(&mut self, next: &mut Worker) -> io::Result<Result<(), String>> {
        let done = self.stage.control.get(Word::Phase) == phase::END;
        if let Err(error) = self.stage.run_to_section(next)
            && !done
            && self.stage.control.get(Word::Phase) != phase::END
        {
            return Ok(Err(error.to_string()));
        }
        if self.stage.control.get(Word::Phase) != phase::END && !self.stage.run_to_phase(next, phase::END)? {
            return Ok(Err("it ended before it was done".into()));
        }
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("a reader of it: {what}")));
        }
        match next.child.run()? {
            Stop::Exited(0) => Ok(Ok(())),
            ended => Ok(Err(format!("it ended with {ended:?}"))),
        }
    }

    fn all_is_there(&self, next: &Worker) -> Result<(), String> {
        let story = self.stage.story;
        let seen: Vec<Place> = self.stage.sinks.iter().map(|sink| sink.at()).collect();
        let lanes: Vec<u64> = seen.iter().map(|place| place.sequence).collect();
        let view = next.read_only.as_ref().map(|(_, view)| view);
        let end = end_of(story, 2, view, &next.began, &seen, Some(self.stage.source.tail())).verdict;
        let input = end.inputs.first().map(|place| place.sequence);
        let all = end.kind == VerdictKind::Committed && end.lanes == seen;
        if all && story.step_at(&lanes, input) == Some(story.total) {
            Ok(())
        } else {
            Err(format!("in the end readers had seen {seen:?}, and the verdict is {end:?}"))
        }
    }

    /// Its readers fall asleep where it stands; it goes on to the end of its section.
    fn park(mut self) -> io::Result<Result<(), String>> {
        let story = self.stage.story;
        let at_source = Ear::at(&self.stage.source.doorbell)?;
        let mut ears = Vec::new();
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("a live reader: {what}")));
        }
        for sink in &self.stage.sinks {
            ears.push(Ear::at(&sink.doorbell)?);
            sink.park(true);
        }
        // They have said that they sleep; now they look once more.
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("a live reader: {what}")));
        }
        let asleep_at: Vec<Place> = self.stage.sinks.iter().map(|sink| sink.at()).collect();
        let (map, mut bytes) = (self.stage.watch(&self.worker)?, Vec::new());
        let cursor_offset = worker_shape(story).input_offset(0) + input::CURSOR;
        let mut cursor = || {
            map.copy_if_changed(&mut bytes);
            bytes[cursor_offset..cursor_offset + 8].try_into().map_or(0, u64::from_le_bytes)
        };
        let wanted = story.input.is_some().then(|| cursor() + FRAME_ALIGN_BYTES);
        if let Some(wanted) = wanted {
            let view = self.worker.read_only.as_ref().map(|(_, view)| view.clone());
            let incarnation = Incarnation { agent: WORKER, generation: 1 };
            let mut links = Links::new(
                self.stage.board.view().clone(),
                vec![Neighbour::new(WORKER, worker_shape(story).into(), false)],
            );
            links.add_all(
                view.into_iter()
                    .map(|v| {
                        Link::new(
                            incarnation,
                            v,
                            Doorbell::create().unwrap_or_else(|_| self.stage.source.doorbell.clone()),
                        )
                    })
                    .collect(),
            );
            self.stage.source.producer.want(wanted, &mut links);
        }
        if self.stage.control.get(Word::Phase) != phase::END
            && !self.stage.run_to_phase(&mut self.worker, phase::END)?
        {
            return Ok(Err("it ended before its section was over".into()));
        }
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("a reader at the end: {what}")));
        }
        for (lane, ((sink, before), ear)) in self.stage.sinks.iter().zip(&asleep_at).zip(&ears).enumerate() {
            if sink.at() != *before && !ear.has_heard() {
                return Ok(Err(format!("the reader of lane {lane} sleeps with work waiting")));
            }
        }
        if wanted.is_some_and(|wanted| cursor() >= wanted) && !at_source.has_heard() {
            return Ok(Err("the producer sleeps although the space that it waits for is there".into()));
        }
        Ok(Ok(()))
    }
}
