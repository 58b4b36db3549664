//! The second death: a successor dies at every instruction of its birth and first steps, after a sample of first deaths.

use super::judge::{Grave, Scene};
use super::report::Report;
use super::snapshot::{Image, Pass, step_through};
use super::stage::{Heir, Order, Stage};
use super::story::Story;
use std::io;

/// Steps a successor through attach, opening and `steps` steps, after `firsts` of the deaths that a pass has shown.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &Story, first: &Pass, firsts: usize, steps: u64, report: &mut Report) -> io::Result<()> {
    for image in sample(first, firsts) {
        let Some(judged) = &image.judged else { continue };
        if report.enough() {
            break;
        }
        let name = format!("succession/{} after a death at boundary {}", story.name, image.boundary);
        let mut stage = Stage::with_sinks_at(story, &image.acked)?;
        let grave = Grave { region: stage.bury(image, &judged.ended)?, ended: judged.ended.clone() };
        let source = (stage.source.sealed.own.clone(), stage.source.tail());
        let mut scene = Scene::new(story, source, vec![grave])?;
        let order = Order { traced: true, warm: 0, stepped: steps, from_birth: true, heir: Heir::None };
        let mut worker = stage.bear(2, &judged.ended, order)?;
        match stage.run_to_section(&mut worker) {
            Ok(()) => drop(step_through(&name, &mut stage, &mut worker, &mut scene, report)?),
            Err(error) => report.violation(&name, None, error),
        }
    }
    Ok(())
}

/// First deaths, evenly: always some right after a commit, whose marks had not followed.
fn sample(pass: &Pass, count: usize) -> Vec<&Image> {
    let step = |image: &Image| image.judged.as_ref().map(|j| j.step);
    let fresh = pass.images.windows(2).filter(|pair| step(&pair[0]) != step(&pair[1])).map(|pair| &pair[1]);
    let fresh: Vec<&Image> = fresh.collect();
    let every = |of: usize| of.div_ceil(count.div_ceil(2).max(1)).max(1);
    let evenly = pass.images.iter().step_by(every(pass.images.len()));
    evenly.chain(fresh.iter().copied().step_by(every(fresh.len()))).collect()
}
