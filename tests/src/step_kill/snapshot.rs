//! Snapshot mode: one pass of single steps; the shared bytes at every boundary are judged when they changed.

use super::judge::{Left, Scene};
use super::report::Report;
use super::stage::{Order, Stage, beginning};
use super::story::Story;
use super::tracer::{Stop, Word, phase};
use shoal_runtime::mark::Place;
use std::io;

/// Instructions after which a section is taken to spin.
const STEPS_MAX: usize = 400_000;

/// One distinct image of a pass.
pub struct Image {
    /// The first boundary that showed it.
    pub boundary: usize,
    /// The bytes of the worker's segment.
    pub bytes: Vec<u8>,
    /// Steps that took effect, by its judgement; `None` if that failed.
    pub step: Option<u64>,
    /// Steps begun and done.
    pub begun_done: (u64, u64),
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

/// Steps a worker of a story through its section.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &Story, report: &mut Report) -> io::Result<Pass> {
    let mut stage = Stage::new(story)?;
    let order =
        Order { traced: true, warm: story.warm, stepped: story.stepped, from_birth: false, keeper: false };
    let mut worker = stage.bear(1, &beginning(story), order)?;
    if let Err(error) = stage.run_to_section(&mut worker) {
        report.violation(story.name, None, error);
        return Ok(Pass::default());
    }
    let map = stage.watch(&worker)?;
    let source = (stage.source.sealed.own.clone(), stage.source.tail());
    let mut scene = Scene::new(story, source, Vec::new())?;
    let (mut pass, mut bytes) = (Pass::default(), Vec::new());
    let mut taken: u64 = 0;
    while stage.control.get(Word::Phase) != phase::END && !report.enough() {
        let rip = worker.child.rip()?;
        if map.copy_if_changed(&mut bytes) {
            let begun_done = (stage.control.get(Word::Begun), stage.control.get(Word::Done));
            let acked: Vec<Place> = stage.sinks.iter().map(|sink| sink.acked()).collect();
            let left =
                Left { bytes: Some(&bytes), generation: 1, begun: begun_done.0, done: begun_done.1, acked };
            let judged = scene.judge(&left);
            let step = judged.as_ref().ok().map(|j| j.step);
            if let Err(what) = judged {
                report.violation(story.name, Some(rip), what);
            }
            // Those who live through it, and never look back.
            if let Err(what) = stage.take_all(pass.images.len() % 2 == 0) {
                report.violation(story.name, Some(rip), format!("a reader that lives on: {what}"));
                break;
            }
            let now = stage.sinks.iter().map(|s| s.at().sequence).sum();
            if now >= taken + 3 {
                taken = now;
                stage.sinks.iter_mut().for_each(super::sink::Sink::ack);
            }
            report.images += 1;
            let Left { acked, .. } = left;
            pass.images.push(Image {
                boundary: pass.trace.len(),
                bytes: bytes.clone(),
                step,
                begun_done,
                acked,
            });
        }
        pass.trace.push(rip);
        report.boundaries += 1;
        match worker.child.step()? {
            Stop::Trapped if pass.trace.len() < STEPS_MAX => {}
            ended => {
                report.violation(story.name, Some(rip), format!("the worker's section ended with {ended:?}"));
                break;
            }
        }
    }
    Ok(pass)
}
