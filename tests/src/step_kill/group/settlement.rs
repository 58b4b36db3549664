//! The second death: a supervisor dies at every instruction of a settlement, after a sample of first deaths, and settles again.

use super::super::report::Report;
use super::super::tracer::{Child, Control, Map, Stop, Word, breakpoint, phase};
use super::judge::{GENERATION, Judge, unpanicked};
use super::setting::{self, TABLE_BYTES, worker_shape};
use super::snapshot::{Image, Pass};
use super::story::{Event, GroupStory};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::{Region, segment};
use std::io;

/// Instructions after which a settlement is taken to spin.
const STEPS_MAX: u64 = 100_000;

/// Steps a supervisor through the settlement of `firsts` of the deaths that a pass has shown.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &GroupStory, pass: &Pass, firsts: usize, report: &mut Report) -> io::Result<()> {
    let Some(source) = &pass.source else { return Ok(()) };
    let mut judge = Judge::new(story, source.clone())?;
    for image in sample(pass, firsts) {
        if report.enough() {
            break;
        }
        let name = format!("settlement/{} after a death at boundary {}", story.name, image.boundary);
        let halves = match step_through(story, &mut judge, image, report)? {
            Ok(halves) => halves,
            Err(what) => {
                report.violation(&name, None, what);
                continue;
            }
        };
        for (rip, half) in halves {
            report.images += 1;
            if let Err(what) = judge.judge_again(&image.left, &half) {
                report.violation(&name, Some(rip), format!("settled again: {what}"));
            }
        }
    }
    Ok(())
}

/// Deaths with something to settle, evenly: of a mate that takes all it can before, and goes on first.
fn sample(pass: &Pass, count: usize) -> Vec<&Image> {
    let working = |image: &&Image| {
        let noted = image.left.diary.last();
        noted.is_some_and(|(event, _)| *event != Event::Committed)
            && image.left.eager
            && image.left.mate_first
            && image.left.bytes.is_some()
    };
    let all: Vec<&Image> = pass.images.iter().filter(working).collect();
    let every = all.len().div_ceil(count.max(1)).max(1);
    all.into_iter().step_by(every).collect()
}

type Halves = Vec<(u64, Vec<u8>)>;

/// Steps one settlement; every distinct content of the claim table on the way, with the instruction that was next.
fn step_through(
    story: &GroupStory,
    judge: &mut Judge<'_>,
    image: &Image,
    report: &mut Report,
) -> io::Result<Result<Halves, String>> {
    if let Err(what) = unpanicked(|| judge.begin(&image.left).map(drop)) {
        return Ok(Err(what));
    }
    let (control, bell) = (Control::new()?, Doorbell::create()?);
    let (image_fd, table_fd) = (&judge.image_fd, &judge.table_fd);
    let mut child = Child::fork(true, || {
        let view = Region::map_read_only(image_fd, worker_shape(story).total_bytes());
        let memory = segment::open_table(table_fd, TABLE_BYTES, true);
        let (Ok(view), Ok(memory)) = (view, memory) else { return 1 };
        let table = setting::table(&memory);
        breakpoint();
        setting::settle(story, GENERATION, &view, image.left.ordered, &table, &bell);
        control.set(Word::Phase, phase::END);
        breakpoint();
        0
    })?;
    if child.wait()? != Stop::Trapped {
        return Ok(Err("the supervisor ended before its section began".into()));
    }
    let map = Map::watch(segment::reopen_read_only(table_fd)?, TABLE_BYTES)?;
    let (mut bytes, mut halves, mut steps) = (Vec::new(), Halves::new(), 0);
    while control.get(Word::Phase) != phase::END {
        let rip = child.rip()?;
        if map.copy_if_changed(&mut bytes) {
            halves.push((rip, bytes.clone()));
        }
        report.boundaries += 1;
        steps += 1;
        if child.step()? != Stop::Trapped || steps > STEPS_MAX {
            return Ok(Err("the supervisor ended inside its section".into()));
        }
    }
    Ok(Ok(halves))
}
