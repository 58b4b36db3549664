//! UNSAFE. A range of mapped (or, in tests, heap) bytes: checked offset → word or bytes.
//!
//! This is the only file that turns an offset into a pointer. A word is an `AtomicU64` at an 8-aligned offset;
//! bytes are reached as a raw copy, or as a slice where the protocol forbids that anybody writes them meanwhile.
//! Under loom a region is a row of loom's atomics, and bytes are copied word by word.
#![allow(unsafe_code)]

#[cfg(not(loom))]
pub use mapped::Region;
#[cfg(not(loom))]
pub(crate) use mapped::{Ring, Row, Table, Words};
#[cfg(loom)]
pub use modelled::Region;
#[cfg(loom)]
pub(crate) use modelled::{As, Ring, Row, Table, Words};

#[cfg(not(loom))]
mod mapped {
    use crate::bug::{Bug, placed};
    use crate::layout::LINE_BYTES;
    use crate::sync::{AtomicU64, Ordering};
    use core::{mem::MaybeUninit, ptr::NonNull};
    use memmap2::{Advice, MmapOptions, MmapRaw};
    use std::{io, os::fd::AsFd, os::fd::AsRawFd, sync::Arc};

    /// Anonymous memory that this process shares with the children that it forks.
    struct Anonymous {
        base: NonNull<u8>,
        len_bytes: usize,
    }

    // SAFETY: it only remembers what to unmap; nothing in it is bound to a thread.
    unsafe impl Send for Anonymous {}
    // SAFETY: as above; it gives out nothing.
    unsafe impl Sync for Anonymous {}

    impl Drop for Anonymous {
        fn drop(&mut self) {
            // SAFETY: the range was mapped by `map_inherited`, and nothing but this value unmaps it; the last clone of the
            // region, which alone gives out pointers into it, is gone.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len_bytes) };
        }
    }

    enum Backing {
        Map(#[allow(dead_code, reason = "unmaps when dropped")] MmapRaw),
        Anonymous(#[allow(dead_code, reason = "unmaps when dropped")] Anonymous),
        Heap(#[allow(dead_code, reason = "freed when dropped")] Box<[AtomicU64]>),
    }

    /// A range of bytes that other processes may read or write. Clones share the mapping; the last one unmaps it.
    #[derive(Clone)]
    pub struct Region {
        base: NonNull<u8>,
        len_bytes: usize,
        _backing: Arc<Backing>,
    }

    // SAFETY: a region gives out atomics, raw copies, and slices whose absence of writers the caller promises;
    // nothing in it is bound to a thread, and the mapping lives as long as any clone.
    unsafe impl Send for Region {}
    // SAFETY: as above; all shared access is through atomics or under the protocol's ownership.
    unsafe impl Sync for Region {}

    impl Region {
        /// Maps the whole of a descriptor for reading and writing, populated, and kept from forked children.
        ///
        /// That it is read once from front to back, which is what the kernel is told, is not so. But of such a map alone it notes no page as
        /// lately used when the process dies: pages that it is about to note are in use until every processor has had its turn, and for as
        /// long the proof of death would wait (`mm/memfd.c`, `lru_add_drain_all`).
        ///
        /// # Errors
        /// The kernel's refusal: a sealed or read-only descriptor, or no memory.
        pub fn map_writable(fd: impl AsFd, len_bytes: usize) -> io::Result<Self> {
            let map = MmapOptions::new().len(len_bytes).populate().map_raw(fd.as_fd().as_raw_fd())?;
            map.advise(Advice::Sequential)?;
            Self::from_map(map, len_bytes)
        }

        /// Maps the whole of a descriptor for reading only, populated, and kept from forked children.
        ///
        /// # Errors
        /// The kernel's refusal.
        pub fn map_read_only(fd: impl AsFd, len_bytes: usize) -> io::Result<Self> {
            let map =
                MmapOptions::new().len(len_bytes).populate().map_raw_read_only(fd.as_fd().as_raw_fd())?;
            Self::from_map(map, len_bytes)
        }

        /// As [`Region::map_read_only`], but a page is there only once it is read: for memory of which little is looked at.
        ///
        /// # Errors
        /// The kernel's refusal.
        pub fn map_read_only_sparsely(fd: impl AsFd, len_bytes: usize) -> io::Result<Self> {
            let map = MmapOptions::new().len(len_bytes).map_raw_read_only(fd.as_fd().as_raw_fd())?;
            Self::from_map(map, len_bytes)
        }

        /// As [`Region::map_writable`], but a page is there only once it is touched.
        ///
        /// # Errors
        /// As [`Region::map_writable`].
        pub fn map_writable_sparsely(fd: impl AsFd, len_bytes: usize) -> io::Result<Self> {
            let map = MmapOptions::new().len(len_bytes).map_raw(fd.as_fd().as_raw_fd())?;
            Self::from_map(map, len_bytes)
        }

        fn from_map(map: MmapRaw, len_bytes: usize) -> io::Result<Self> {
            if !placed(Bug::InheritedByChildren) {
                map.advise(Advice::DontFork)?;
            }
            map.advise(Advice::DontDump)?;
            let base =
                NonNull::new(map.as_mut_ptr()).ok_or_else(|| io::Error::other("mmap returned null"))?;
            Ok(Region { base, len_bytes, _backing: Arc::new(Backing::Map(map)) })
        }

        /// Maps zeroed memory without a name or a descriptor, which forked children have, too, and nobody else. Its pages are
        /// taken when they are first written.
        ///
        /// # Errors
        /// No address space.
        pub fn map_inherited(len_bytes: usize) -> io::Result<Self> {
            use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
            let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            // SAFETY: no address is asked for, so nothing that is mapped already is touched.
            let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len_bytes, protection, flags)? };
            let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
            let backing = Arc::new(Backing::Anonymous(Anonymous { base, len_bytes }));
            Ok(Region { base, len_bytes, _backing: backing })
        }

        /// Gives the pages of a map back, for as long as nobody looks at them: what is looked at again is there again. That the kernel
        /// refuses does no harm.
        pub fn leave_pages(&self) {
            match &*self._backing {
                Backing::Map(map) => {
                    // SAFETY: the map is shared and of a memfd, so dropped pages come back as they are there; nothing is lost.
                    let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
                }
                Backing::Anonymous(shared) => {
                    use rustix::mm::{Advice, madvise};
                    // SAFETY: as above; what is shared without a name is the kernel's until nobody maps it.
                    let _ = unsafe {
                        madvise(shared.base.as_ptr().cast(), shared.len_bytes, Advice::LinuxDontNeed)
                    };
                }
                Backing::Heap(_) => {}
            }
        }

        /// Leaves a mapped region to the children that this process forks: what a supervisor writes, its successor goes on
        /// writing.
        ///
        /// # Errors
        /// The kernel's refusal.
        pub fn bequeath(&self) -> io::Result<()> {
            match &*self._backing {
                Backing::Map(map) => map.advise(Advice::DoFork),
                Backing::Anonymous(_) | Backing::Heap(_) => Ok(()),
            }
        }

        /// Makes a zeroed region on the heap, for tests and in-process use.
        pub fn heap(len_bytes: usize) -> Self {
            let words: Box<[AtomicU64]> =
                (0..(len_bytes + LINE_BYTES).div_ceil(16) * 2).map(|_| AtomicU64::new(0)).collect();
            let start = words.as_ptr() as *mut u8;
            // As a mapping does it begins with a line; the allocation has one spare to shift by.
            let shift = start.align_offset(LINE_BYTES);
            let base = NonNull::new(start.wrapping_add(shift)).unwrap_or(NonNull::dangling());
            Region { base, len_bytes, _backing: Arc::new(Backing::Heap(words)) }
        }

        /// Length in bytes.
        pub fn len_bytes(&self) -> usize {
            self.len_bytes
        }

        /// The word at an 8-aligned offset.
        ///
        /// # Panics
        /// When the offset is not aligned or not inside: that is our own bug, offsets from peers are checked before.
        #[inline]
        pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
            assert!(offset.is_multiple_of(8) && offset < self.len_bytes);
            // SAFETY: inside the mapping and aligned (checked above; the base is at least 8-aligned, and what is mapped or
            // allocated ends at a multiple of 8 at or behind the length). Every access to shared words is atomic, on both
            // sides, so a reference to an atomic is all that is ever formed.
            unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
        }

        /// Copies bytes in. The caller owns `offset..offset + bytes.len()` by the protocol.
        ///
        /// # Panics
        /// When the range is not inside.
        #[inline]
        pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
            assert!(offset <= self.len_bytes && self.len_bytes - offset >= bytes.len());
            // SAFETY: inside the mapping (checked above); a raw copy forms no reference to shared bytes.
            unsafe { self.base.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }

        /// Copies bytes out. They may be overwritten meanwhile: the caller checks that afterwards.
        ///
        /// # Panics
        /// When the range is not inside.
        #[inline]
        pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
            assert!(offset <= self.len_bytes && self.len_bytes - offset >= into.len());
            // SAFETY: inside the mapping (checked above); a raw copy forms no reference to shared bytes.
            unsafe { into.as_mut_ptr().copy_from_nonoverlapping(self.base.as_ptr().add(offset), into.len()) };
        }

        /// Bytes that nobody writes while the slice lives.
        ///
        /// # Safety
        /// By the protocol no process writes `offset..offset + len` while the slice lives: they belong to a committed
        /// frame that this consumer has not acknowledged, in memory of a trusted producer.
        ///
        /// # Panics
        /// When the range is not inside.
        #[inline]
        pub(crate) unsafe fn leased(&self, offset: usize, len: usize) -> &[u8] {
            assert!(offset <= self.len_bytes && self.len_bytes - offset >= len);
            // SAFETY: inside the mapping (checked above); not written meanwhile (the caller's promise).
            unsafe { core::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
        }

        /// Bytes that only this process writes and nobody reads while the slice lives.
        ///
        /// # Safety
        /// By the protocol `offset..offset + len` lies past the tail of a lane whose only producer is the caller, and
        /// no other slice of it is alive.
        ///
        /// # Panics
        /// When the range is not inside.
        #[inline]
        #[expect(
            clippy::mut_from_ref,
            reason = "the exclusive right comes from the protocol, not from the borrow"
        )]
        pub(crate) unsafe fn claimed(&self, offset: usize, len: usize) -> &mut [MaybeUninit<u8>] {
            assert!(offset <= self.len_bytes && self.len_bytes - offset >= len);
            // SAFETY: inside the mapping (checked above); exclusive (the caller's promise).
            unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().add(offset).cast(), len) }
        }
    }

    /// Neighbouring words of a region, checked once: what is used for every message.
    #[derive(Clone)]
    pub(crate) struct Row<const N: usize> {
        words: NonNull<[AtomicU64; N]>,
        /// Keeps them mapped.
        region: Region,
    }

    // SAFETY: as for the region that it is a part of.
    unsafe impl<const N: usize> Send for Row<N> {}
    // SAFETY: as above.
    unsafe impl<const N: usize> Sync for Row<N> {}

    impl<const N: usize> Row<N> {
        /// The words from an 8-aligned offset.
        ///
        /// # Panics
        /// When the offset is not aligned or they are not all inside: that is our own bug.
        pub(crate) fn new(region: &Region, offset: usize) -> Self {
            assert!(
                offset.is_multiple_of(8) && offset < region.len_bytes && region.len_bytes - offset >= N * 8
            );
            // SAFETY: inside the mapping (checked above), so the address is not null.
            let words = unsafe { NonNull::new_unchecked(region.base.as_ptr().add(offset).cast()) };
            Row { words, region: region.clone() }
        }

        /// The word of an index.
        #[inline(always)]
        pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
            // SAFETY: inside the mapping and aligned (checked by `new`), which the region keeps; as in `Region::word`.
            let words = unsafe { self.words.as_ref() };
            &words[index]
        }

        /// The region that it is a part of.
        pub(crate) fn region(&self) -> &Region {
            &self.region
        }
    }

    /// `ROWS` rows of words, each as long, at equal distances: checked once.
    pub(crate) struct Table<const ROWS: usize> {
        words: NonNull<AtomicU64>,
        stride_words: usize,
        row_words: usize,
        /// Keeps them mapped.
        _region: Region,
    }

    // SAFETY: as for the region that it is a part of.
    unsafe impl<const ROWS: usize> Send for Table<ROWS> {}
    // SAFETY: as above.
    unsafe impl<const ROWS: usize> Sync for Table<ROWS> {}

    impl<const ROWS: usize> Table<ROWS> {
        /// The rows of `row_bytes` from an 8-aligned offset, each `stride_bytes` behind the one before.
        ///
        /// # Panics
        /// When they are not aligned, overlap, or are not all inside: that is our own bug.
        pub(crate) fn new(region: &Region, offset: usize, stride_bytes: usize, row_bytes: usize) -> Self {
            assert!([offset, stride_bytes, row_bytes].iter().all(|bytes| bytes.is_multiple_of(8)));
            assert!(row_bytes <= stride_bytes);
            assert!(offset < region.len_bytes && (region.len_bytes - offset) / stride_bytes >= ROWS);
            // SAFETY: inside the mapping (checked above), so the address is not null.
            let words = unsafe { NonNull::new_unchecked(region.base.as_ptr().add(offset).cast()) };
            let (stride_words, row_words) = (stride_bytes / 8, row_bytes / 8);
            Table { words, stride_words, row_words, _region: region.clone() }
        }

        /// A row.
        ///
        /// # Panics
        /// When there is no such row: that is our own bug.
        #[inline(always)]
        pub(crate) fn row(&self, index: usize) -> Words<'_> {
            assert!(index < ROWS);
            let first = self.words.as_ptr().wrapping_add(index * self.stride_words);
            // SAFETY: `new` found all rows inside the mapping and aligned, and the region keeps that; as in `Region::word`.
            Words(unsafe { core::slice::from_raw_parts(first, self.row_words) })
        }
    }

    /// A row of a table.
    #[derive(Clone, Copy)]
    pub(crate) struct Words<'a>(&'a [AtomicU64]);

    impl Words<'_> {
        /// Stores neighbouring words from word `first` on; in no order among them.
        ///
        /// # Panics
        /// When they are not all in the row: that is our own bug.
        #[inline(always)]
        pub(crate) fn store<const N: usize>(self, first: usize, values: [u64; N]) {
            for (word, value) in self.0[first..first + N].iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// A power of two of bytes of a region, by positions that go on and on: checked once.
    #[derive(Clone)]
    pub(crate) struct Ring {
        base: NonNull<u8>,
        /// Of the bytes at which words begin.
        mask: usize,
        /// Keeps it mapped.
        _region: Region,
    }

    // SAFETY: as for the region that it is a part of.
    unsafe impl Send for Ring {}
    // SAFETY: as above.
    unsafe impl Sync for Ring {}

    impl Ring {
        /// The ring of so many bytes from an 8-aligned offset.
        ///
        /// # Panics
        /// When it is no power of two, not aligned, or not wholly inside: that is our own bug, shapes are checked before.
        pub(crate) fn new(region: &Region, offset: usize, capacity: u64) -> Self {
            let bytes = capacity as usize;
            assert!(bytes.is_power_of_two() && bytes >= 8 && offset.is_multiple_of(8));
            assert!(offset < region.len_bytes && region.len_bytes - offset >= bytes);
            // SAFETY: inside the mapping (checked above), so the address is not null.
            let base = unsafe { NonNull::new_unchecked(region.base.as_ptr().add(offset)) };
            Ring { base, mask: bytes - 8, _region: region.clone() }
        }

        /// The word in which a position lies.
        #[inline(always)]
        pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
            // SAFETY: the mask leaves a multiple of 8 below the ring's length, which `new` found inside the mapping; the region
            // keeps that. As in `Region::word`.
            unsafe { &*self.base.as_ptr().add(position as usize & self.mask).cast::<AtomicU64>() }
        }

        /// Fetches the line of a position for reading.
        #[inline(always)]
        pub(crate) fn prefetch(&self, position: u64) {
            #[cfg(target_arch = "x86_64")]
            {
                use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                let at = self.base.as_ptr().wrapping_add(position as usize & self.mask);
                // SAFETY: a prefetch has no effect but on caches, and the address lies inside the mapping.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = position;
        }

        /// Fetches the line of a position for writing: takes it over from whoever has it.
        #[inline(always)]
        pub(crate) fn prefetch_for_writing(&self, position: u64) {
            #[cfg(target_arch = "x86_64")]
            {
                let at = self.base.as_ptr().wrapping_add(position as usize & self.mask);
                // The intrinsic becomes a prefetch for reading where the compiler does not know of this instruction; every x86-64
                // processor takes it, if as one that does nothing.
                // SAFETY: a prefetch has no effect but on caches, and the address lies inside the mapping.
                unsafe {
                    core::arch::asm!("prefetchw [{at}]", at = in(reg) at, options(nostack, preserves_flags))
                };
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = position;
        }
    }
}

#[cfg(loom)]
mod modelled {
    use crate::sync::{AtomicU64, Death, Ordering};
    use loom::cell::UnsafeCell;
    use std::collections::HashMap;
    use std::sync::Arc;

    struct Word {
        value: AtomicU64,
        /// Stands for the bytes of a payload that is read in place: loom reports who touches it without an order.
        in_place: Option<UnsafeCell<()>>,
    }

    // SAFETY: the cell holds nothing; loom itself checks that its accesses are ordered.
    unsafe impl Send for Word {}
    // SAFETY: as above.
    unsafe impl Sync for Word {}

    /// A row of loom atomics that stands for a mapping.
    #[derive(Clone)]
    pub struct Region {
        words: Arc<Vec<Word>>,
        death: Death,
    }

    /// What a word is in a model.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum As {
        /// One of loom's atomics.
        Modelled,
        /// One of loom's atomics that also is part of a ring whose payloads are read in place.
        InPlace,
        /// For show only: loom does not follow it.
        Plain,
    }

    #[expect(missing_docs, reason = "documented on the mapped form")]
    impl Region {
        pub fn heap(len_bytes: usize) -> Self {
            Self::of(len_bytes, &HashMap::new(), |_| As::Modelled, u64::MAX)
        }

        /// A region whose words by offset begin as `first` says and are what `what` says; its writer dies before store
        /// number `stores`.
        pub(crate) fn of(
            len_bytes: usize,
            first: &HashMap<usize, u64>,
            what: impl Fn(usize) -> As,
            stores: u64,
        ) -> Self {
            let death = Death::before_store(stores);
            let word = |offset: usize| {
                let value = first.get(&offset).copied().unwrap_or(0);
                let what = what(offset);
                Word {
                    value: match what {
                        As::Plain => AtomicU64::plain(value, death.clone()),
                        As::Modelled | As::InPlace => AtomicU64::modelled(value, death.clone()),
                    },
                    in_place: (what == As::InPlace).then(|| UnsafeCell::new(())),
                }
            };
            let words = (0..len_bytes.div_ceil(8)).map(|i| word(i * 8)).collect();
            Region { words: Arc::new(words), death }
        }

        /// Whether its writer's death came.
        pub fn is_dead(&self) -> bool {
            self.death.came()
        }

        pub fn len_bytes(&self) -> usize {
            self.words.len() * 8
        }

        #[track_caller]
        pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
            assert!(offset.is_multiple_of(8));
            &self.words[offset / 8].value
        }

        pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
            assert!(offset.is_multiple_of(8) && bytes.len().is_multiple_of(8));
            for (i, chunk) in bytes.chunks_exact(8).enumerate() {
                let word = &self.words[offset / 8 + i];
                if let Some(cell) = &word.in_place {
                    cell.with_mut(|_| ());
                }
                word.value
                    .store(u64::from_le_bytes(chunk.try_into().expect("eight bytes")), Ordering::Relaxed);
            }
        }

        pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
            assert!(offset.is_multiple_of(8) && into.len().is_multiple_of(8));
            for (i, chunk) in into.chunks_exact_mut(8).enumerate() {
                let word = &self.words[offset / 8 + i];
                if let Some(cell) = &word.in_place {
                    cell.with(|_| ());
                }
                chunk.copy_from_slice(&word.value.load(Ordering::Relaxed).to_le_bytes());
            }
        }

        /// Never called: see `Sources::leased`.
        pub(crate) unsafe fn leased(&self, _: usize, _: usize) -> &[u8] {
            unreachable!("loom's words are not bytes")
        }
    }

    /// Neighbouring words of a region.
    #[derive(Clone)]
    pub(crate) struct Row<const N: usize> {
        region: Region,
        offset: usize,
    }

    #[expect(missing_docs, reason = "documented on the mapped form")]
    impl<const N: usize> Row<N> {
        pub(crate) fn new(region: &Region, offset: usize) -> Self {
            Row { region: region.clone(), offset }
        }

        #[track_caller]
        pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
            assert!(index < N);
            self.region.word(self.offset + index * 8)
        }

        pub(crate) fn region(&self) -> &Region {
            &self.region
        }
    }

    /// Rows of words of a region.
    pub(crate) struct Table<const ROWS: usize> {
        region: Region,
        offset: usize,
        stride_bytes: usize,
        row_bytes: usize,
    }

    #[expect(missing_docs, reason = "documented on the mapped form")]
    impl<const ROWS: usize> Table<ROWS> {
        pub(crate) fn new(region: &Region, offset: usize, stride_bytes: usize, row_bytes: usize) -> Self {
            Table { region: region.clone(), offset, stride_bytes, row_bytes }
        }

        pub(crate) fn row(&self, index: usize) -> Words<'_> {
            assert!(index < ROWS);
            let first = self.offset + index * self.stride_bytes;
            Words { region: &self.region, first, end: first + self.row_bytes }
        }
    }

    /// A row of a table.
    #[derive(Clone, Copy)]
    pub(crate) struct Words<'a> {
        region: &'a Region,
        first: usize,
        end: usize,
    }

    #[expect(missing_docs, reason = "documented on the mapped form")]
    impl Words<'_> {
        #[track_caller]
        pub(crate) fn store<const N: usize>(self, first: usize, values: [u64; N]) {
            let first = self.first + first * 8;
            assert!(first + N * 8 <= self.end);
            for (i, value) in values.into_iter().enumerate() {
                self.region.word(first + i * 8).store(value, Ordering::Relaxed);
            }
        }
    }

    /// A power of two of bytes of a region.
    #[derive(Clone)]
    pub(crate) struct Ring {
        region: Region,
        offset: usize,
        mask: usize,
    }

    #[expect(missing_docs, reason = "documented on the mapped form")]
    impl Ring {
        pub(crate) fn new(region: &Region, offset: usize, capacity: u64) -> Self {
            Ring { region: region.clone(), offset, mask: capacity as usize - 8 }
        }

        #[track_caller]
        pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
            self.region.word(self.offset + (position as usize & self.mask))
        }

        /// A model has no caches.
        pub(crate) fn prefetch(&self, _position: u64) {}

        pub(crate) fn prefetch_for_writing(&self, _position: u64) {}
    }
}
