//! UNSAFE. The floors: what the machine itself can do, with nothing of Shoal in between.
//!
//! One memfd that both processes map. Its first page holds words, each on a line of its own; then comes a ring of 64-byte
//! slots.

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a slot of the raw ring.
pub const SLOT_BYTES: usize = 64;
/// Slots of the raw ring: as many bytes as the lane beside it.
const SLOTS: u64 = 1 << 14;
const RING: usize = 4096;
const LINE: usize = 128;
const BYTES: usize = RING + SLOTS as usize * SLOT_BYTES;

/// The words of the first page.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Word {
    /// Written by the first process, in the ping-pong of two lines.
    Ping,
    /// Written by the second.
    Pong,
    /// Written by both in turn, in the ping-pong of one line.
    Both,
    /// Where the first process waits for the second.
    FirstHere,
    /// Where the second waits for the first.
    SecondHere,
    /// Slots written to the raw ring.
    Tail,
    /// Slots read from it.
    Head,
    /// Wake-ups asked for.
    Woken,
    /// When the last was asked for.
    WokenAtNs,
}

/// The shared memory of the floors.
pub struct Floor {
    map: MmapRaw,
}

impl Floor {
    /// Makes the memory, and the path at which a child of this process opens it.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn create() -> io::Result<(OwnedFd, String)> {
        let fd = rustix::fs::memfd_create("shoal-floor", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, BYTES as u64)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        Ok((fd, path))
    }

    /// Maps it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Floor { map: MmapOptions::new().len(BYTES).populate().map_raw(&file)? })
    }

    /// A word.
    #[inline]
    pub fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: inside the first page of the map (nine lines) and aligned; both processes only use it as an atomic.
        unsafe { &*self.map.as_mut_ptr().add(word as usize * LINE).cast::<AtomicU64>() }
    }

    fn slot(&self, number: u64) -> *mut [u8; SLOT_BYTES] {
        // SAFETY: the offset is below `BYTES`, the length of the map.
        unsafe { self.map.as_mut_ptr().add(RING + (number % SLOTS) as usize * SLOT_BYTES).cast() }
    }

    /// Waits until both processes are here.
    pub fn meet(&self, first: bool) {
        let words = [Word::FirstHere, Word::SecondHere].map(|w| self.word(w));
        let (own, other) = if first { (words[0], words[1]) } else { (words[1], words[0]) };
        let number = own.load(Ordering::Relaxed) + 1;
        own.store(number, Ordering::SeqCst);
        while other.load(Ordering::SeqCst) < number {
            std::thread::yield_now();
        }
    }

    /// One cache line that goes to and fro: each process stores the next number when it sees the other's.
    pub fn ping_pong_one_line(&self, first: bool, rounds: u64, mut each: impl FnMut()) {
        let word = self.word(Word::Both);
        let mut number = word.load(Ordering::Acquire) & !1;
        for _ in 0..rounds {
            let awaited = if first { number + 2 } else { number + 1 };
            if first {
                word.store(number + 1, Ordering::Release);
            }
            while word.load(Ordering::Acquire) != awaited {}
            if !first {
                word.store(number + 2, Ordering::Release);
            }
            number += 2;
            each();
        }
    }

    /// Two cache lines, each written by one process only, as a lane's are.
    pub fn ping_pong_two_lines(&self, first: bool, rounds: u64, mut each: impl FnMut()) {
        let words = [Word::Ping, Word::Pong].map(|w| self.word(w));
        let (own, other) = if first { (words[0], words[1]) } else { (words[1], words[0]) };
        let mut number = own.load(Ordering::Relaxed);
        for _ in 0..rounds {
            number += 1;
            if first {
                own.store(number, Ordering::Release);
            }
            while other.load(Ordering::Acquire) != number {}
            if !first {
                own.store(number, Ordering::Release);
            }
            each();
        }
    }

    /// Writes 64-byte slots into the raw ring, unchecked, one store of the tail each.
    pub fn ring_write(&self, count: u64) {
        let (tail, head) = (self.word(Word::Tail), self.word(Word::Head));
        let begin = tail.load(Ordering::Relaxed);
        let mut seen = head.load(Ordering::Acquire);
        let mut bytes = [7u8; SLOT_BYTES];
        for number in begin..begin + count {
            while number - seen >= SLOTS {
                seen = head.load(Ordering::Acquire);
            }
            bytes[..8].copy_from_slice(&number.to_ne_bytes());
            // SAFETY: the reader has passed this slot's last lap (`seen`, Acquire), and there is one writer.
            unsafe { self.slot(number).write(std::hint::black_box(bytes)) };
            tail.store(number + 1, Ordering::Release);
        }
    }

    /// Reads them, one store of the head each.
    pub fn ring_read(&self, count: u64) {
        let (tail, head) = (self.word(Word::Tail), self.word(Word::Head));
        let begin = head.load(Ordering::Relaxed);
        let mut seen = begin;
        for number in begin..begin + count {
            while number >= seen {
                seen = tail.load(Ordering::Acquire);
            }
            // SAFETY: the writer has passed this slot (`seen`, Acquire) and does not write it again before the head moves.
            std::hint::black_box(unsafe { self.slot(number).read() });
            head.store(number + 1, Ordering::Release);
        }
    }
}
