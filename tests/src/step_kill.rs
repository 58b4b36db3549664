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
//! [`scribble`] (words that a dying agent wrote over). [`group`] has the same for the members of a group.

pub mod ear;
pub mod group;
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

use group::story::GroupStory;
use kill::Fate;
use report::Report;
use std::io;
use std::time::Instant;
use story::Story;

/// How much of it is done.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Only these stories; all if it is empty.
    stories: &'static [&'static str],
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
    /// Of the boundaries of a group's member, every so many is a real death, every so many one at which it only stands still, or
    /// at which its producer begins to wait.
    member_every: (usize, usize),
    /// First deaths of a group's member that settlements are stepped after.
    settlements: usize,
}

impl Extent {
    /// Every boundary, in every mode.
    pub const FULL: Extent = Extent {
        stories: &[],
        stepped: 8,
        firsts: (64, 3),
        kill_every: 1,
        park_every: 1,
        keep_every: 16,
        member_every: (1, 4),
        settlements: 1000,
    };
    /// Some minutes.
    pub const QUICK: Extent = Extent {
        stories: &[],
        stepped: 8,
        firsts: (6, 2),
        kill_every: 13,
        park_every: 17,
        keep_every: 149,
        member_every: (29, 97),
        settlements: 12,
    };
    /// Some seconds.
    pub const SMOKE: Extent = Extent {
        stories: &["send", "ack", "group-ack"],
        stepped: 2,
        firsts: (1, 1),
        kill_every: 1499,
        park_every: 1999,
        keep_every: 3999,
        member_every: (1499, 2999),
        settlements: 2,
    };
}

/// Runs every scenario in every mode. Snapshots come first: they are fast, and find most.
///
/// # Errors
/// The system's, not the protocol's.
pub fn everything(extent: Extent, report: &mut Report) -> io::Result<()> {
    tracer::pin(report.part.0);
    tracer::adopt_orphans();
    let mut agents = vec![
        Story::step(extent.stepped),
        Story::several(extent.stepped.min(4)),
        Story::send(extent.stepped),
        Story::mixed(extent.stepped),
        Story::ack(3),
        Story::plain_ack(3),
    ];
    let mut members = vec![
        GroupStory::step(extent.stepped),
        GroupStory::prefetch(extent.stepped),
        GroupStory::ack(3),
        GroupStory::birth(),
    ];
    let told = |name: &str| extent.stories.is_empty() || extent.stories.contains(&name);
    agents.retain(|story| told(story.name));
    members.retain(|story| told(story.name));
    let (mut agent_passes, mut member_passes) = (Vec::new(), Vec::new());
    // All parts need what the snapshots find out; the first reports it.
    let mut aside = Report::default();
    let of_snapshots = if report.part.0 == 0 { &mut *report } else { &mut aside };
    for story in &agents {
        timed("snapshot", story.name, of_snapshots, |report| {
            agent_passes.push(snapshot::run(story, report)?);
            Ok(())
        })?;
    }
    for story in &members {
        timed("snapshot", story.name, of_snapshots, |report| {
            member_passes.push(group::snapshot::run(story, false, report)?);
            group::snapshot::run(story, true, report).map(drop)
        })?;
    }
    timed("verdicts", "board", report, verdicts::run)?;
    for (story, pass) in agents.iter().zip(&agent_passes) {
        timed("scribble", story.name, report, |report| scribble::run(story, pass, report))?;
    }
    of_members(&members, &member_passes, extent, report)?;
    of_agents(&agents, &agent_passes, extent, report)
}

/// Runs a mode, unless there is nothing more to find out, and tells how long it took.
fn timed(
    mode: &str,
    story: &str,
    report: &mut Report,
    run: impl FnOnce(&mut Report) -> io::Result<()>,
) -> io::Result<()> {
    if report.enough() || !report.wants(mode, story) {
        return Ok(());
    }
    let (began, boundaries, images) = (Instant::now(), report.boundaries, report.images);
    run(report)?;
    let (boundaries, images) = (report.boundaries - boundaries, report.images - images);
    eprintln!("{mode}/{story}: {boundaries} boundaries, {images} images, {:.1?}", began.elapsed());
    Ok(())
}

/// Members of a group: settlements that are broken off, and real deaths.
fn of_members(
    stories: &[GroupStory],
    passes: &[group::snapshot::Pass],
    extent: Extent,
    report: &mut Report,
) -> io::Result<()> {
    for (story, pass) in stories.iter().zip(passes) {
        timed("settlement", story.name, report, |report| {
            group::settlement::run(story, pass, extent.settlements, report)
        })?;
    }
    let fates = [
        (Fate::Parked, extent.member_every.1),
        (Fate::Stopped, extent.member_every.1),
        (Fate::Killed, extent.member_every.0),
        (Fate::Kept, extent.keep_every),
        (Fate::Survived, extent.keep_every),
    ];
    for (fate, every) in fates {
        for (story, pass) in stories.iter().zip(passes) {
            timed(fate.name(), story.name, report, |report| {
                group::kill::run(story, pass, every, fate, report)
            })?;
        }
    }
    Ok(())
}

/// Agents that have their inputs for themselves: successions, and real deaths.
fn of_agents(
    stories: &[Story],
    passes: &[snapshot::Pass],
    extent: Extent,
    report: &mut Report,
) -> io::Result<()> {
    for (story, pass) in stories.iter().zip(passes) {
        let (firsts, steps) = extent.firsts;
        timed("succession", story.name, report, |report| {
            succession::run(story, pass, firsts, steps, report)
        })?;
    }
    let fates = [
        (Fate::Parked, extent.park_every),
        (Fate::Killed, extent.kill_every),
        (Fate::Kept, extent.keep_every),
        (Fate::Survived, extent.keep_every),
    ];
    for (fate, every) in fates {
        for (story, pass) in stories.iter().zip(passes) {
            timed(fate.name(), story.name, report, |report| kill::run(story, pass, every, fate, report))?;
        }
    }
    Ok(())
}
