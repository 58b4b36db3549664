//! Kill at every instruction: a tracer that single-steps real agents through whole steps, and judges what a death leaves.
//!
//! ```text
//!  story   what the agent shall do, and every byte that its readers may see: the oracle
//!  life    the agent: the runtime's own code over real segments, in a process or in the judge
//!  stage   source, sinks and board of one run, and the birth of a worker in a process of its own
//!  tracer  UNSAFE  fork, ptrace, breakpoints
//!  judge   from the bytes of a dead worker: live readers, verdict, successor, and whether all of it is right
//! ```
//! Modes: [`snapshot`] (linear: the bytes at every boundary are judged), [`kill`] (a real death, proof and successor at
//! every boundary; also a worker that stands still, a child that keeps the memory, a reader that falls asleep there),
//! [`succession`] (the second death, at every boundary of recovery), [`verdicts`] (the supervisor's own writing), and
//! [`scribble`] (words that a dying agent wrote over).

pub mod judge;
pub mod kill;
pub mod life;
pub mod report;
pub mod scribble;
pub mod sink;
pub mod snapshot;
pub mod stage;
pub mod story;
pub mod succession;
pub mod tracer;
pub mod verdicts;

use kill::Fate;
use report::Report;
use std::io;
use std::time::Instant;
use story::Story;

/// How much of it is done.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Steps of the stepped section of the large scenarios.
    stepped: u64,
    /// First deaths that successions are stepped after, and steps of the successor.
    firsts: (usize, u64),
    /// Of the boundaries, every so many is a real death.
    kill_every: usize,
    /// Of the boundaries, every so many is one at which a reader falls asleep.
    park_every: usize,
    /// Of the boundaries, every so many is a death with a child that keeps the memory, or one that does not.
    keep_every: usize,
}

impl Extent {
    /// Every boundary, in every mode.
    pub const FULL: Extent =
        Extent { stepped: 8, firsts: (64, 3), kill_every: 1, park_every: 1, keep_every: 16 };
    /// Below three minutes.
    pub const QUICK: Extent =
        Extent { stepped: 8, firsts: (6, 2), kill_every: 13, park_every: 17, keep_every: 149 };
    /// Some seconds.
    pub const SMOKE: Extent =
        Extent { stepped: 3, firsts: (2, 1), kill_every: 499, park_every: 499, keep_every: 1999 };
}

/// Runs every scenario in every mode.
///
/// # Errors
/// The system's, not the protocol's.
pub fn everything(extent: Extent, report: &mut Report) -> io::Result<()> {
    tracer::pin();
    tracer::adopt_orphans();
    let stories = [
        Story::step(extent.stepped),
        Story::send(extent.stepped),
        Story::mixed(extent.stepped),
        Story::ack(3),
        Story::plain_ack(3),
    ];
    let mut timed = |name: &str, run: &mut dyn FnMut(&mut Report) -> io::Result<()>| {
        if report.enough() {
            return Ok::<(), io::Error>(());
        }
        let (began, boundaries, images) = (Instant::now(), report.boundaries, report.images);
        run(report)?;
        let (boundaries, images) = (report.boundaries - boundaries, report.images - images);
        eprintln!("{name}: {boundaries} boundaries, {images} images, {:.1?}", began.elapsed());
        Ok(())
    };
    let mut passes = Vec::new();
    for story in &stories {
        timed(&format!("snapshot/{}", story.name), &mut |report| {
            passes.push(snapshot::run(story, report)?);
            Ok(())
        })?;
    }
    timed("verdicts", &mut |report| verdicts::run(report))?;
    for (story, pass) in stories.iter().zip(&passes) {
        timed(&format!("scribble/{}", story.name), &mut |report| scribble::run(story, pass, report))?;
    }
    for (story, pass) in stories.iter().zip(&passes) {
        let (firsts, steps) = extent.firsts;
        let run = &mut |report: &mut Report| succession::run(story, pass, firsts, steps, report);
        timed(&format!("succession/{}", story.name), run)?;
    }
    let fates = [
        (Fate::Killed, extent.kill_every),
        (Fate::Parked, extent.park_every),
        (Fate::Kept, extent.keep_every),
        (Fate::Survived, extent.keep_every),
    ];
    for (fate, every) in fates {
        for (story, pass) in stories.iter().zip(&passes) {
            let run = &mut |report: &mut Report| kill::run(story, pass, every, fate, report);
            timed(&format!("{}/{}", format!("{fate:?}").to_lowercase(), story.name), run)?;
        }
    }
    Ok(())
}
