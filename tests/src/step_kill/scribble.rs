//! A dying agent that wrote over its own memory: a word of its last record or marks that contradicts the others is noticed.

use super::report::Report;
use super::snapshot::Pass;
use super::stage::{self, worker_shape};
use super::story::Story;
use shoal_runtime::Region;
use shoal_runtime::board::VerdictKind;
use shoal_runtime::layout::{RECORD_SLOTS, desk, record};
use std::io;

/// Flips every bit of the last record, one at a time, in the image whose record is farthest ahead of its marks.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &Story, pass: &Pass, report: &mut Report) -> io::Result<()> {
    let shape = worker_shape(story);
    let Some(image) = ahead_of_its_marks(pass) else { return Ok(()) };
    let fd = rustix::fs::memfd_create("shoal-image", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::pwrite(&fd, &image.bytes, 0)?;
    let region = Region::map_read_only(&fd, shape.total_bytes())?;
    let word = |at: usize| image.bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let number = word(desk::COMMIT);
    let slot = shape.records_offset() + (number % RECORD_SLOTS) as usize * shape.record_bytes();
    let bytes = record::ENTRIES + word(slot + record::COUNT) as usize * record::ENTRY_BYTES;
    let began = stage::beginning(story);
    for bit in 0..bytes * 8 {
        let at = slot + bit / 8;
        rustix::io::pwrite(&fd, &[image.bytes[at] ^ 1 << (bit % 8)], at as u64)?;
        let ended = stage::end_of(story, 1, Some(&region), &began, &began.verdict.lanes, None);
        rustix::io::pwrite(&fd, &image.bytes[at..=at], at as u64)?;
        report.images += 1;
        if ended.verdict.kind != VerdictKind::Corrupt {
            let what =
                format!("bit {} of word {} of the last record is wrong, and believed", bit % 64, bit / 64);
            report.violation(&format!("scribble/{}", story.name), None, what);
            if report.enough() {
                break;
            }
        }
    }
    Ok(())
}

/// The image right after the last commit of the pass: its marks have not followed yet.
fn ahead_of_its_marks(pass: &Pass) -> Option<&super::snapshot::Image> {
    let number = |image: &super::snapshot::Image| image.bytes[desk::COMMIT..desk::COMMIT + 8].to_vec();
    let pairs = pass.images.iter().zip(pass.images.iter().skip(1));
    pairs.rev().find(|(before, after)| number(before) != number(after)).map(|(_, after)| after)
}
