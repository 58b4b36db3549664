//! UNSAFE. An allocator that asks the kernel for large pages, for processes that are to be back soon: a process is dead only when the kernel has
//! taken its memory apart, page by page, and nobody may follow it before.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout, System};

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
        let first = pointer.addr().next_multiple_of(PAGE_BYTES);
        let end = (pointer.addr() + bytes) / PAGE_BYTES * PAGE_BYTES;
        // SAFETY: the range lies within what was allocated just now, and the advice is one about its speed. A refusal does no harm.
        let _ = unsafe { madvise(pointer.with_addr(first).cast(), end - first, Advice::LinuxHugepage) };
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smaps::maps;

    /// How many bytes of a range may be in large pages.
    fn may_be_large(from: usize, bytes: usize) -> usize {
        let large = maps().into_iter().filter(|(_, flags)| flags.split(' ').any(|flag| flag == "hg"));
        large.map(|(map, _)| map.end.min(from + bytes).saturating_sub(map.start.max(from))).sum()
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
