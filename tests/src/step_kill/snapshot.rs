//! Snapshot mode: one pass of single steps; the shared bytes at every boundary are judged when they changed.

use super::judge::{Judged, Left, Scene};
use super::report::Report;
use super::sink::Sink;
use super::stage::{Heir, Order, Stage, Worker, beginning};
use super::story::Story;
use super::tracer::{Aside, Stop, Word, phase};
use shoal_runtime::mark::Place;
use std::io;

/// Instructions after which a section is taken to spin.
const STEPS_MAX: usize = 400_000;
/// Messages that the sinks leave unacknowledged: the worker's rings are never empty, and never full.
const UNACKED: u64 = 3;

/// One distinct image of a pass.
pub struct Image {
    /// The first boundary that showed it.
    pub boundary: usize,
    /// The bytes of the worker's segment.
    pub bytes: Aside,
    /// Its judgement; `None` if that failed.
    pub judged: Option<Judged>,
    /// Published cursors of the sinks.
    pub acked: Vec<Place>,
}

/// What a pass has shown: the address of every boundary, and every image.
#[derive(Default)]
pub struct Pass {
    /// Address of the next instruction at each boundary.
    pub trace: Vec<u64>,
    /// The images, in order.
    pub images: Vec<Image>,
}

/// Steps the first worker of a story through its section.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &Story, report: &mut Report) -> io::Result<Pass> {
    let name = format!("snapshot/{}", story.name);
    let mut stage = Stage::new(story)?;
    let order =
        Order { traced: true, warm: story.warm, stepped: story.stepped, from_birth: false, heir: Heir::None };
    let mut worker = stage.bear(1, &beginning(story), order)?;
    if let Err(error) = stage.run_to_section(&mut worker) {
        report.violation(&name, None, error);
        return Ok(Pass::default());
    }
    let source = (stage.source.sealed.own.clone(), stage.source.tail());
    let mut scene = Scene::new(story, source, Vec::new())?;
    step_through(&name, &mut stage, &mut worker, &mut scene, report)
}

/// Steps a worker that stands at the beginning of its section to the end of it, and judges every image.
///
/// # Errors
/// The system's, not the protocol's.
pub fn step_through(
    name: &str,
    stage: &mut Stage<'_>,
    worker: &mut Worker,
    scene: &mut Scene<'_>,
    report: &mut Report,
) -> io::Result<Pass> {
    let map = stage.watch(worker)?;
    let (mut pass, mut bytes, mut introduced) = (Pass::default(), Vec::new(), worker.read_only.is_some());
    while stage.control.get(Word::Phase) != phase::END && !report.enough() {
        let rip = worker.child.rip()?;
        if worker.read_only.is_none() && stage.control.get(Word::Phase) == phase::MAPPED {
            stage.introduce(worker)?;
        }
        let news = std::mem::replace(&mut introduced, worker.read_only.is_some()) != introduced;
        if map.copy_if_changed(&mut bytes) || news {
            let acked: Vec<Place> = stage.sinks.iter().map(Sink::acked).collect();
            let left = Left {
                bytes: worker.read_only.is_some().then_some(&bytes),
                generation: worker.generation,
                begun: stage.control.get(Word::Begun).max(scene.steps_before()),
                done: stage.control.get(Word::Done).max(scene.steps_before()),
                acked,
            };
            let mut judged = scene.judge(&left).map_err(|what| report.violation(name, Some(rip), what)).ok();
            if let Some(what) = judged.as_ref().and_then(|_| scene.held_in_halves(&left)) {
                report.violation(name, Some(rip), what);
                judged = None;
            }
            report.images += 1;
            let Left { acked, .. } = left;
            pass.images.push(Image { boundary: pass.trace.len(), bytes: Aside::of(&bytes)?, judged, acked });
            // Those who live through it, and never look back.
            if let Err(what) = stage.take_all(pass.images.len() % 2 == 0) {
                report.violation(name, Some(rip), format!("a reader that lives on: {what}"));
                break;
            }
            for sink in stage.sinks.iter_mut().filter(|s| s.at().sequence > s.acked().sequence + UNACKED) {
                sink.ack();
            }
        }
        pass.trace.push(rip);
        report.boundaries += 1;
        match worker.child.step()? {
            Stop::Trapped if pass.trace.len() < STEPS_MAX => {}
            ended => {
                report.violation(name, Some(rip), format!("the worker's section ended with {ended:?}"));
                break;
            }
        }
    }
    Ok(pass)
}
