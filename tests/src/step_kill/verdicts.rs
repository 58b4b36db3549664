//! The supervisor's own writing: it stands still, or dies, between any two stores of a verdict, an announcement, a birth.
//!
//! A reader of the board finds the old words, or the new ones, or that there are none: never a mixture.

use super::report::Report;
use super::tracer::{Child, Control, Map, Stop, Word, breakpoint, phase};
use shoal_runtime::board::{Board, BoardWriter, Verdict, VerdictKind};
use shoal_runtime::layout::{BoardShape, board};
use shoal_runtime::mark::Place;
use shoal_runtime::{Incarnation, Region};
use std::io;
use std::os::fd::OwnedFd;

const NAME: &str = "verdicts";
const AGENT: u32 = 1;
/// Verdicts in the stepped section.
const STEPPED: u32 = 3;

fn shape() -> BoardShape {
    BoardShape { channel_count: 1, agents: vec![(1, 0), (2, 2)], ..BoardShape::default() }
}

fn verdict(generation: u32) -> Verdict {
    let place = |mark: u64| {
        let position = (u64::from(generation) << 20) + mark * 4096;
        Place { position, sequence: u64::from(generation) * 1000 + mark }
    };
    let kind = if generation.is_multiple_of(3) { VerdictKind::Corrupt } else { VerdictKind::Committed };
    Verdict { generation, kind, lanes: vec![place(0), place(1)], inputs: vec![place(2), place(3)] }
}

fn publish(writer: &BoardWriter, generation: u32) {
    writer.verdict(AGENT, &verdict(generation));
    writer.announce();
    writer.publish_generation(Incarnation { agent: AGENT, generation: generation + 1 });
    writer.announce();
}

/// Steps a supervisor through the writing of verdicts into slots that were used before.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(report: &mut Report) -> io::Result<()> {
    let slots = board::VERDICT_SLOTS as u32;
    let total = shape().total_bytes();
    let fd = rustix::fs::memfd_create("shoal-board", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, total as u64)?;
    let control = Control::new()?;
    let mut child = Child::fork(true, || {
        let Ok(region) = Region::map_writable(&fd, total) else { return 1 };
        let writer = BoardWriter::create(region, shape(), 0);
        (1..=slots).for_each(|generation| publish(&writer, generation));
        breakpoint();
        (slots + 1..=slots + STEPPED).for_each(|generation| {
            control.set(Word::Begun, u64::from(generation));
            publish(&writer, generation);
            control.set(Word::Done, u64::from(generation));
        });
        control.set(Word::Phase, phase::END);
        breakpoint();
        0
    })?;
    if child.wait()? != Stop::Trapped {
        report.violation(NAME, None, "the supervisor ended before its section began");
        return Ok(());
    }
    let (map, mut bytes) = (Map::watch(&fd, total)?, Vec::new());
    let reader = Board::open(Region::map_read_only(&fd, total)?, shape()).map_err(io::Error::other)?;
    let mut epoch = reader.epoch();
    while control.get(Word::Phase) != phase::END && !report.enough() {
        let rip = child.rip()?;
        report.boundaries += 1;
        if map.copy_if_changed(&mut bytes) {
            report.images += 1;
            let writing = control.get(Word::Begun).max(u64::from(slots)) as u32;
            let done = control.get(Word::Done) as u32;
            if let Err(what) = check(&reader, writing, done, &mut epoch) {
                report.violation(NAME, Some(rip), what);
            }
        }
        if child.step()? != Stop::Trapped {
            report.violation(NAME, Some(rip), "the supervisor ended inside its section");
            break;
        }
    }
    let _: OwnedFd = fd;
    Ok(())
}

/// Checks everything that a reader can find while the verdict on `writing` is being written.
fn check(reader: &Board, writing: u32, done: u32, epoch: &mut u64) -> Result<(), String> {
    let slots = board::VERDICT_SLOTS as u32;
    let last = reader.last_verdict(AGENT);
    let of = |generation| reader.verdict(Incarnation { agent: AGENT, generation });
    for generation in 1..=writing + 1 {
        let found = of(generation);
        let displaced = generation + slots <= writing;
        match &found {
            Some(found) if *found != verdict(generation) => {
                return Err(format!("the verdict on generation {generation} reads {found:?}"));
            }
            Some(_) if generation > writing => return Err("a verdict that nobody wrote".into()),
            None if generation < writing && !displaced => {
                return Err(format!("the verdict on generation {generation} is gone"));
            }
            None if generation <= last && !displaced => {
                return Err(format!("the last verdict is said to be {last}, but it cannot be read"));
            }
            _ => {}
        }
    }
    if last < done || reader.generation(AGENT) < done + u32::from(done > 0) {
        return Err(format!("verdict {done} was published, but the board names {last}"));
    }
    // Whoever saw an epoch sees what it told: two announcements a verdict.
    let now = reader.epoch();
    let told = (now / 2) as u32 + u32::from(now % 2 == 1);
    if now < *epoch || last < told || (now.is_multiple_of(2) && reader.generation(AGENT) < told + 1) {
        return Err(format!("epoch {now} tells of verdict {told}, but the board names {last}"));
    }
    *epoch = now;
    Ok(())
}
