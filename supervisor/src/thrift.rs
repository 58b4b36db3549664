//! UNSAFE. Memory that a supervisor needed once and holds on to: it is given back to the kernel when there is nothing else to do.

#![allow(unsafe_code)]

use std::ops::Range;
use std::time::{Duration, Instant};

/// So long nothing is to be done before what was needed for the last thing is given back.
const QUIET: Duration = Duration::from_secs(2);

/// When something is given back: as soon as all have been started and nothing is to be done; once more when what follows a start is done, too;
/// and the heap whenever something was done (who asks for everything there is to know takes a megabyte) and quiet has come.
///
/// The program's instructions are not given back after that: who dies later is to be answered without reading them again.
pub struct Thrift {
    /// What there is of a start on its heap is its keeper's.
    successor: bool,
    /// How often the program was given back.
    programs: u32,
    /// When something was done last of which nothing was given back.
    done: Option<Instant>,
}

/// What is to be given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Give {
    /// What the heap keeps.
    Heap,
    /// The program's instructions.
    Program,
    /// Both.
    All,
}

impl Thrift {
    /// Of a supervisor that begins.
    pub fn new(successor: bool) -> Thrift {
        Thrift { successor, programs: 0, done: None }
    }

    /// Something was done.
    pub fn note(&mut self, now: Instant) {
        self.done = Some(now);
    }

    /// When something is to be given back once more, if nothing else is to be done until then.
    pub fn at(&self) -> Option<Instant> {
        self.done.filter(|_| self.programs > 0).map(|done| done + QUIET)
    }

    /// What is to be given back by who has nothing to do now.
    pub fn due(&mut self, now: Instant) -> Option<Give> {
        if self.programs == 0 {
            (self.programs, self.done) = (1, Some(now));
            return Some(if self.successor { Give::Program } else { Give::All });
        }
        self.done.take_if(|done| now.saturating_duration_since(*done) >= QUIET)?;
        self.programs += 1;
        Some(if self.programs == 2 { Give::All } else { Give::Heap })
    }
}

/// Gives back what the heap keeps of what was freed: reading a swarm file takes several times what it leaves.
pub fn trim_heap() {
    // SAFETY: gives pages back that hold nothing.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Gives back the program's own instructions: what is needed again is there again, from the file's pages, and what only a start needs is not
/// needed again. That the kernel refuses does no harm.
pub fn leave_program() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    for range in maps.lines().filter_map(|line| instructions(line, own.to_str()?)) {
        // SAFETY: the range is mapped from the program's file and was never written (it may not be), so that what is dropped is read
        // again as it was.
        let _ = unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `maps`, if it is of a file's instructions that nobody may write.
fn instructions(line: &str, file: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, path) = (words.next()?, words.next()?, words.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let at = |number| usize::from_str_radix(number, 16).ok();
    (rights == "r-xp" && path == file).then_some(at(start)?..at(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_given_back_at_once_and_once_more_and_the_heap_after_all_that_was_done() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut thrift = Thrift::new(false);
        thrift.note(start);
        assert_eq!(thrift.at(), None, "not all have been started");
        assert_eq!([10, 20, 1000].map(|ms| thrift.due(at(ms))), [Some(Give::All), None, None]);
        assert_eq!(thrift.at(), Some(at(2010)));
        assert_eq!([2010, 2020, 9000].map(|ms| thrift.due(at(ms))), [Some(Give::All), None, None]);
        assert_eq!(thrift.at(), None, "there is nothing to wake for");
        thrift.note(at(9500));
        thrift.note(at(10_000));
        assert_eq!(Thrift::new(true).due(start), Some(Give::Program));
        let looks = [11_000, 12_000, 13_000].map(|ms| thrift.due(at(ms)));
        assert_eq!(
            looks,
            [None, Some(Give::Heap), None],
            "two seconds after the last thing that was done, once"
        );
    }

    #[test]
    fn only_instructions_of_the_program_are_left() {
        let line = |rights: &str, path: &str| {
            format!("00345000-00934000 {rights} 00144000 fe:00 10018847    {path}")
        };
        assert_eq!(instructions(&line("r-xp", "/b/shoal"), "/b/shoal"), Some(0x345000..0x934000));
        for (rights, path) in
            [("r--p", "/b/shoal"), ("rwxp", "/b/shoal"), ("r-xp", "/b/libc.so"), ("r-xp", "")]
        {
            assert_eq!(instructions(&line(rights, path), "/b/shoal"), None, "{rights} {path}");
        }
    }

    #[test]
    fn program_goes_on_without_its_pages() {
        let before = std::hint::black_box([3u64, 1, 2]);
        leave_program();
        trim_heap();
        let mut after = before.to_vec();
        after.sort_unstable();
        assert_eq!(after, [1, 2, 3]);
    }
}
