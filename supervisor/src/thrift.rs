//! UNSAFE. Memory that a supervisor needed once and holds on to: it is given back to the kernel when there is nothing else to do.

#![allow(unsafe_code)]

use std::ops::Range;

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
