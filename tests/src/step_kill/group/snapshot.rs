//! Snapshot mode: one pass of single steps; segment and claim table at every boundary are judged when they changed.

use super::super::report::Report;
use super::super::stage::{Heir, Order};
use super::super::tracer::{Aside, Map, Stop, Word, phase};
use super::judge::{Judge, Left};
use super::setting::{TABLE_BYTES, beginning};
use super::stage::{Stage, Worker};
use super::story::GroupStory;
use shoal_runtime::Region;
use shoal_runtime::segment;
use std::io;

/// Instructions after which a section is taken to spin.
const STEPS_MAX: usize = 400_000;
/// Messages that readers leave unacknowledged: the worker's rings are never empty, and never full.
const UNACKED: u64 = 3;
/// Messages that a busy mate leaves to the worker.
const LEFT_TO_THE_WORKER: u64 = 3;
/// Images between two messages of a busy mate.
const MATE_EVERY: usize = 7;

/// One distinct image of a pass.
pub struct Image {
    /// The first boundary that showed it.
    pub boundary: usize,
    /// What the worker leaves if it dies there.
    pub left: Left,
}

/// What a pass has shown.
#[derive(Default)]
pub struct Pass {
    /// Address of the next instruction at each boundary.
    pub trace: Vec<u64>,
    /// The images, in order.
    pub images: Vec<Image>,
    /// The source's segment; what is in its ring still is what the images are about if the mate stood still.
    pub source: Option<Region>,
}

/// The order that every first worker of a story gets.
pub fn order(story: &GroupStory, heir: Heir) -> Order {
    let (warm, stepped) = (story.warm, story.stepped);
    Order { traced: true, warm, stepped, from_birth: warm == 0, heir }
}

/// Steps the first worker of a story through its section. With `busy`, its mate takes messages and the source sends meanwhile.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &GroupStory, busy: bool, report: &mut Report) -> io::Result<Pass> {
    let name = format!("snapshot/{}{}", story.name, if busy { "-busy" } else { "" });
    let mut stage = Stage::new(story)?;
    let mut worker = stage.bear(1, &beginning(story), order(story, Heir::None))?;
    if let Err(error) = stage.run_to_section(&mut worker) {
        report.violation(&name, None, error);
        return Ok(Pass::default());
    }
    let mut judge = Judge::new(story, stage.source.sealed.own.clone())?;
    let mut pass = Pass { source: Some(stage.source.sealed.own.clone()), ..Pass::default() };
    let map = stage.watch(&worker)?;
    let table_map = Map::watch(segment::reopen_read_only(&stage.table_fd)?, TABLE_BYTES)?;
    let (mut bytes, mut table, mut introduced) = (Vec::new(), Vec::new(), worker.view.is_some());
    while stage.control.get(Word::Phase) != phase::END && !report.enough() {
        let rip = worker.child.rip()?;
        if worker.view.is_none() && stage.control.get(Word::Phase) == phase::MAPPED {
            stage.introduce(&mut worker)?;
        }
        let news = std::mem::replace(&mut introduced, worker.view.is_some()) != introduced;
        if map.copy_if_changed(&mut bytes) | table_map.copy_if_changed(&mut table) | news {
            let left = left(&stage, &worker, &bytes, &table, pass.images.len())?;
            report.images += 1;
            if let Err(what) = judge.judge(&left) {
                report.violation(&name, Some(rip), what);
            }
            pass.images.push(Image { boundary: pass.trace.len(), left });
            if let Err(what) = live_on(&mut stage, busy, pass.images.len()) {
                report.violation(&name, Some(rip), format!("who lives on: {what}"));
                break;
            }
        }
        pass.trace.push(rip);
        report.boundaries += 1;
        match worker.child.step()? {
            Stop::Trapped if pass.trace.len() < STEPS_MAX => {}
            ended => {
                report.violation(&name, Some(rip), format!("the worker's section ended with {ended:?}"));
                break;
            }
        }
    }
    Ok(pass)
}

/// What the worker leaves if it dies now; the circumstances of the death take turns.
fn left(stage: &Stage<'_>, worker: &Worker, bytes: &[u8], table: &[u8], turn: usize) -> io::Result<Left> {
    let acked = |reader: &super::reader::Reader| (reader.sink.acked(), reader.acknowledged());
    Ok(Left {
        bytes: worker.view.is_some().then(|| Aside::of(bytes)).transpose()?,
        table: Aside::of(table)?,
        diary: stage.diary(),
        mate_done: stage.mate.done.iter().map(|(sequence, _)| *sequence).collect(),
        acked: stage.readers.iter().map(acked).collect(),
        tail: stage.source.tail(),
        ordered: turn % 5 == 4,
        eager: turn % 4 != 3,
        mate_first: turn.is_multiple_of(2),
    })
}

/// What those do who live through it, and never look back.
fn live_on(stage: &mut Stage<'_>, busy: bool, turn: usize) -> Result<(), String> {
    stage.take_all(turn.is_multiple_of(2))?;
    for reader in &mut stage.readers {
        if reader.sink.at().sequence > reader.sink.acked().sequence + UNACKED {
            reader.sink.ack();
        }
    }
    if !busy {
        return Ok(());
    }
    stage.source.send(stage.story);
    let reserve = LEFT_TO_THE_WORKER + stage.story.prefetch as u64;
    if turn.is_multiple_of(MATE_EVERY) && stage.table.left(stage.source.tail().sequence) > reserve {
        stage.mate.step()?;
        stage.source.send(stage.story);
    }
    Ok(())
}
