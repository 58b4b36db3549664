//! UNSAFE. Memory in large pages, for processes that are to be back soon: a process is dead only when the kernel has taken its memory apart, page
//! by page, and nobody may follow it before. What a process has before it stands by or is forked is gathered into such pages; what it takes
//! later, when it would sleep; or an allocator asks for such from the start.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// From so many bytes on large pages are asked for.
const LARGE_BYTES: usize = 4 << 20;
/// The size of one.
const PAGE_BYTES: usize = 2 << 20;

/// The system's allocator, and for whatever takes 4 MiB or more the question for pages of 2 MiB. What does not begin or end with such a page
/// begins and ends in small ones. Of a large page all is taken as soon as one byte is touched: what is never filled takes more than without.
///
/// The kernel gives them where `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise` or `always`, and has them; else all is as without.
///
/// ```
/// #[global_allocator]
/// static MEMORY: shoal_runtime::LargePages = shoal_runtime::LargePages;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages;

// SAFETY: all of it is done by the system's allocator; the question changes no bytes and nothing about whose they are.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller vouches for is what the system's allocator wants.
        asked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        asked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        asked(unsafe { System.realloc(pointer, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn asked(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if bytes >= LARGE_BYTES && !pointer.is_null() {
        let pages = whole_pages(pointer.addr()..pointer.addr() + bytes);
        // SAFETY: the range lies within what was allocated just now, and the advice is one about its speed. A refusal does no harm.
        let _ = unsafe { madvise(pointer.with_addr(pages.start).cast(), pages.len(), Advice::LinuxHugepage) };
    }
    pointer
}

/// The part of a range that large pages can be.
fn whole_pages(range: Range<usize>) -> Range<usize> {
    range.start.next_multiple_of(PAGE_BYTES)..range.end / PAGE_BYTES * PAGE_BYTES
}

/// Where the kernel says whether it gives large pages to nobody, to who asks, or to all.
const WHETHER: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Of the small pages of a large one, so many are there already: not much more is taken than before.
const THERE_MIN: usize = SMALL_PER_LARGE * 7 / 8;
const SMALL_PER_LARGE: usize = PAGE_BYTES / SMALL_BYTES;
const SMALL_BYTES: usize = 4096;

/// So long is spent on it at most, about, before a process says that it is there: somebody may be waiting after all.
const PATIENCE: Duration = Duration::from_millis(100);
/// So much is copied with one call then.
const AT_ONCE_BYTES: usize = 16 << 20;
/// So many large pages are looked at before it is looked whether there is something else to do.
const LOOKS: usize = 64;

/// Copies what this process has of private memory into large pages, where it fills such; about 0.6 ms for each, for at most [`PATIENCE`]. When
/// the kernel has no more, or this process may not read what it has itself, all stays as it is.
pub(crate) fn gather() {
    if are_given() {
        // Nothing is lost by a refusal but time at the end of this process.
        let _ = gather_until(Instant::now() + PATIENCE);
    }
}

fn are_given() -> bool {
    let given = fs::read_to_string(WHETHER).is_ok_and(|said| !said.contains("[never]"));
    given && rustix::param::page_size() == SMALL_BYTES
}

fn gather_until(end: Instant) -> io::Result<()> {
    let mut from = 0;
    while let Some(next) = gather_next(from, AT_ONCE_BYTES)?.next
        && Instant::now() < end
    {
        from = next;
    }
    Ok(())
}

/// How many times as long as it took, nothing is gathered: who takes and gives back all the time pays no more than this share.
const REST_TIMES: u32 = 64;

/// So many times in a row what cannot be had now is tried again without that more is taken.
const PUT_OFF_MAX: u32 = 3;

/// Gathers what an agent takes while it works: a large page whenever it is about to sleep, if it took so many small ones since the last time.
pub(crate) struct Gatherer {
    /// How many pages the process had taken when the last pass began.
    taken: u64,
    /// Until then nothing is gathered.
    rests_until: Instant,
    pass: Option<Pass>,
    /// How many passes in a row left something for a better time.
    put_off: u32,
}

/// One way through all memory.
struct Pass {
    taken: u64,
    next: usize,
    spent: Duration,
    /// Something could not be had now.
    put_off: bool,
}

/// What there is to gather.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    Now,
    /// There is something, from then on.
    At(Instant),
}

impl Gatherer {
    /// Of a process that has gathered what it has, as a standby does before it says that it is there; or has not.
    pub fn new(has_gathered: bool) -> Gatherer {
        Gatherer {
            taken: if has_gathered { pages_taken() } else { 0 },
            rests_until: Instant::now(),
            pass: None,
            put_off: 0,
        }
    }

    /// Whether there is something to gather: asked before each sleep, a system call of a fraction of a microsecond.
    #[inline]
    pub fn due(&mut self) -> Due {
        if self.pass.is_some() {
            return Due::Now;
        }
        let taken = pages_taken();
        if taken < self.taken + THERE_MIN as u64 { Due::Nothing } else { self.begin(taken) }
    }

    #[cold]
    fn begin(&mut self, taken: u64) -> Due {
        if Instant::now() < self.rests_until {
            return Due::At(self.rests_until);
        }
        if !are_given() {
            self.taken = taken;
            return Due::Nothing;
        }
        self.pass = Some(Pass { taken, next: 0, spent: Duration::ZERO, put_off: false });
        Due::Now
    }

    /// Gathers one large page, or looks at some that are none; the less is to be done, the sooner it returns.
    pub fn gather_one(&mut self) {
        let Some(mut pass) = self.pass.take() else { return };
        let began = Instant::now();
        let gathered = gather_next(pass.next, PAGE_BYTES);
        let now = Instant::now();
        pass.spent += now - began;
        let Gathered { next, all } = gathered.unwrap_or(Gathered { next: None, all: true });
        pass.put_off |= !all;
        if let Some(next) = next {
            self.pass = Some(Pass { next, ..pass });
            return;
        }
        self.rests_until = now + pass.spent * REST_TIMES;
        self.put_off = if pass.put_off { self.put_off + 1 } else { 0 };
        // All was seen; or it is refused, and tried again when there is more.
        if !(1..=PUT_OFF_MAX).contains(&self.put_off) {
            (self.taken, self.put_off) = (pass.taken, 0);
        }
    }
}

/// How many pages this process has taken since it began, as the kernel counts the faults by which it did.
fn pages_taken() -> u64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| usage.minor_page_faults() as u64)
}

/// What became of a piece of all memory.
struct Gathered {
    /// Where to go on, if not all was seen.
    next: Option<usize>,
    /// Whether all that was to be copied was.
    all: bool,
}

/// Copies what fills the next large pages in a row from an address on, at most so many bytes, or looks at [`LOOKS`].
fn gather_next(from: usize, at_once_bytes: usize) -> io::Result<Gathered> {
    let there = File::open("/proc/self/pagemap")?;
    let mut looks = 0;
    for map in private_maps(&fs::read_to_string("/proc/self/maps")?) {
        let pages = whole_pages(map.start.max(from)..map.end);
        let mut run = pages.start..pages.start;
        for page in pages.step_by(PAGE_BYTES) {
            let next = page + PAGE_BYTES;
            let is_filled = count_there(&there, page)? >= THERE_MIN && !is_large(&there, page);
            looks += 1;
            if is_filled {
                run.end = next;
            }
            if !run.is_empty() && (!is_filled || run.len() >= at_once_bytes) || looks == LOOKS {
                return Ok(Gathered { next: Some(next), all: collapse(&run)? });
            }
            if !is_filled {
                run = next..next;
            }
        }
        if !run.is_empty() {
            return Ok(Gathered { next: Some(run.end), all: collapse(&run)? });
        }
    }
    Ok(Gathered { next: None, all: true })
}

/// Whether a large page is one already; kernels before 6.7 do not tell, and are asked for it once more.
fn is_large(pagemap: &File, page: usize) -> bool {
    /// `PAGE_IS_HUGE` of linux/fs.h.
    const HUGE: u64 = 1 << 6;
    let mut found = [0u64; 3];
    // `struct pm_scan_arg`: its size, flags, from where, to where, where it ended; where to say it, room for how many, no bound of pages; nothing
    // inverted, all that are of this kind, no alternatives, of what kind they are.
    let room = found.as_mut_ptr().expose_provenance() as u64;
    let mut scan = [96, 0, page as u64, (page + PAGE_BYTES) as u64, 0, room, 1, 0, 0, HUGE, 0, HUGE];
    // SAFETY: the kernel reads and writes the twelve words, and writes one region of three words where they say.
    let regions = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, scan.as_mut_ptr()) };
    regions == 1 && found[0] == page as u64 && found[1] == (page + PAGE_BYTES) as u64
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 3 << 30 | 96 << 16 | (b'f' as libc::c_ulong) << 8 | 16;

/// The maps that are nobody else's, no file's, and no stack's, of what `/proc/PID/maps` says.
fn private_maps(maps: &str) -> Vec<Range<usize>> {
    let one = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (bounds, rights, file) = (words.next()?, words.next()?, words.nth(2)?);
        let name = words.next().unwrap_or("[heap]");
        let (start, end) = bounds.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let is_one = rights == "rw-p" && file == "0" && (name == "[heap]" || name.starts_with("[anon:"));
        is_one.then_some(hex(start)?..hex(end)?)
    };
    maps.lines().filter_map(one).collect()
}

/// How many small pages of a large one are there, and nobody else's.
fn count_there(pagemap: &File, page: usize) -> io::Result<usize> {
    const THERE: u64 = 1 << 63;
    // By this process alone; a page of zeros for all who only read is nobody's.
    const OWN: u64 = 1 << 56;
    let mut words = [0u8; SMALL_PER_LARGE * 8];
    pagemap.read_exact_at(&mut words, (page / SMALL_BYTES * 8) as u64)?;
    let words = words.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
    Ok(words.filter(|word| word & (THERE | OWN) == THERE | OWN).count())
}

/// Makes large pages of a range; false when that cannot be now.
fn collapse(range: &Range<usize>) -> io::Result<bool> {
    if range.is_empty() {
        return Ok(true);
    }
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the kernel changes where the bytes of the range lie and none of them; nothing here reads or writes by `start`.
    match unsafe { libc::madvise(start, range.len(), libc::MADV_COLLAPSE) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            // There is no large page.
            error if error.raw_os_error() == Some(libc::ENOMEM) => Err(error),
            error => Ok(!matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smaps::maps;

    #[test]
    fn only_what_is_private_and_no_files_and_no_stack_is_gathered() {
        let maps = "1000-2000 rw-p 00000000 00:00 0 \n2000-3000 rw-p 00000000 00:00 0                          [heap]\n\
                    3000-4000 r--p 00000000 00:00 0 \n4000-5000 rw-s 00000000 00:01 9 /memfd:shoal (deleted)\n\
                    5000-6000 rw-p 00001000 08:01 7 /usr/lib/libc.so.6\n6000-7000 rw-p 00000000 00:00 0 [stack]\n\
                    7000-8000 rw-p 00000000 00:00 0 [anon:model]\n8000-9000 ---p 00000000 00:00 0 \n";
        assert_eq!(private_maps(maps), [0x1000..0x2000, 0x2000..0x3000, 0x7000..0x8000]);
    }

    /// What a map that begins here has in large pages, KiB.
    fn kib_in_large(at: *mut u8) -> usize {
        maps().into_iter().find(|map| map.range.start == at.addr()).expect("such a map").large_kib
    }

    #[test]
    fn what_fills_large_pages_is_gathered_with_its_bytes_and_what_is_mostly_empty_is_not() {
        const BYTES: usize = 8 << 20;
        let layout = Layout::from_size_align(BYTES + PAGE_BYTES, 8).expect("a layout");
        // SAFETY: they are used within their bounds, and given back with the layout that they have.
        unsafe {
            let all = [(); 3].map(|()| System.alloc_zeroed(layout));
            // Maps of their own, since others are to be kept out of a core.
            let [full, empty, read_only] = all.map(|some| {
                let first = some.add(some.align_offset(PAGE_BYTES));
                madvise(first.cast(), BYTES, Advice::LinuxDontDump).expect("advised");
                first
            });
            (0..BYTES).for_each(|i| full.add(i).write((i / 7) as u8));
            (0..BYTES).step_by(8 * SMALL_BYTES).for_each(|i| empty.add(i).write(1));
            // Read only: pages that are nobody's.
            assert_eq!(
                (0..BYTES).step_by(SMALL_BYTES).map(|i| u64::from(read_only.add(i).read())).sum::<u64>(),
                0
            );
            gather_until(Instant::now() + Duration::from_secs(60)).expect("there is memory");
            assert!((0..BYTES).all(|i| full.add(i).read() == (i / 7) as u8));
            let said = fs::read_to_string(WHETHER).unwrap_or_default();
            match ["[always]", "[madvise]"].map(|word| said.contains(word)) {
                [true, _] => assert_eq!(kib_in_large(full), BYTES >> 10),
                [_, true] => assert_eq!([full, empty, read_only].map(kib_in_large), [BYTES >> 10, 0, 0]),
                _ => assert_eq!([full, empty, read_only].map(kib_in_large), [0; 3]),
            }
            for some in all {
                System.dealloc(some, layout);
            }
        }
    }

    #[test]
    fn what_was_taken_meanwhile_is_gathered_once_and_then_it_rests() {
        const BYTES: usize = 6 << 20;
        let said = fs::read_to_string(WHETHER).unwrap_or_default();
        let [always, never] = ["[always]", "[never]"].map(|word| said.contains(word));
        // Fresh memory, of which the last bytes are written: as many pages are taken.
        let taken = || {
            let rights = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
            // SAFETY: a map of its own, wherever the kernel has room, that nobody else knows of; it is used within its bounds.
            unsafe {
                let map = rustix::mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    BYTES + PAGE_BYTES,
                    rights,
                    rustix::mm::MapFlags::PRIVATE,
                );
                let map = map.expect("mapped").cast::<u8>();
                let first = map.add(map.align_offset(PAGE_BYTES));
                // Not of one kind with its neighbours: others are to be kept out of a core.
                madvise(first.cast(), BYTES, Advice::LinuxDontDump).expect("advised");
                (0..BYTES).step_by(8).for_each(|i| first.add(i).cast::<usize>().write(i));
                (map, first)
            }
        };
        let mut gatherer = Gatherer::new(true);
        let (map, first) = taken();
        let pagemap = File::open("/proc/self/pagemap").expect("opened");
        let is_first_large = || is_large(&pagemap, first.addr());
        assert!(always || !is_first_large());
        if !always {
            assert_eq!(gatherer.due(), if never { Due::Nothing } else { Due::Now });
        }
        let end = Instant::now() + Duration::from_secs(60);
        while gatherer.pass.is_some() {
            assert!(Instant::now() < end, "no end");
            gatherer.gather_one();
        }
        assert_eq!(kib_in_large(first), if never { 0 } else { BYTES >> 10 });
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let number = |at: usize| kernel.split(['.', '-']).nth(at).and_then(|word| word.parse().ok());
        // Since then it tells.
        if number(0).zip(number(1)) >= Some((6, 7)) {
            assert_eq!(is_first_large(), !never);
        }
        // SAFETY: within its bounds.
        assert!((0..BYTES).step_by(8).all(|i| unsafe { first.add(i).cast::<usize>().read() } == i));
        // It rests after that, however much is taken meanwhile.
        gatherer.rests_until = Instant::now() + Duration::from_secs(60);
        let (more, _) = taken();
        if !always {
            assert_eq!(gatherer.due(), if never { Due::Nothing } else { Due::At(gatherer.rests_until) });
        }
        for map in [map, more] {
            // SAFETY: mapped above, and used no more.
            unsafe { rustix::mm::munmap(map.cast(), BYTES + PAGE_BYTES).expect("unmapped") };
        }
    }

    /// How many bytes of a range may be in large pages.
    fn may_be_large(from: usize, bytes: usize) -> usize {
        let large = maps().into_iter().filter(|map| map.flags.split(' ').any(|flag| flag == "hg"));
        large.map(|map| map.range.end.min(from + bytes).saturating_sub(map.range.start.max(from))).sum()
    }

    #[test]
    fn what_is_large_is_asked_for_in_large_pages_and_nothing_else() {
        let layout = |bytes| Layout::from_size_align(bytes, 8).expect("a layout");
        let large = 16 << 20;
        // SAFETY: each is given back with the layout that it has, and used only before.
        unsafe {
            let small = LargePages.alloc(layout(1 << 20));
            assert_eq!(may_be_large(small.addr(), 1 << 20), 0);
            let grown = LargePages.realloc(small, layout(1 << 20), large);
            let zeroed = LargePages.alloc_zeroed(layout(large));
            let plain = LargePages.alloc(layout(large));
            for pointer in [grown, zeroed, plain] {
                let asked = may_be_large(pointer.addr(), large);
                assert!(asked >= large - 2 * PAGE_BYTES, "{asked} bytes of {large}");
                pointer.add(large - 1).write(7);
            }
            assert_eq!(zeroed.add(large / 2).read(), 0);
            for pointer in [grown, zeroed, plain] {
                LargePages.dealloc(pointer, layout(large));
            }
        }
    }
}
