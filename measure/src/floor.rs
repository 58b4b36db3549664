//! UNSAFE. The floors: what the machine itself can do, with nothing of Shoal in between. Read it like C.
//!
//! One memfd that all processes of a star map:
//!
//! ```text
//!   WORDS  words that are waited on, each on two lines of its own
//!   AREAS  what goes along in a ping-pong with a payload, one area a side
//!   RINGS  a ring of raw slots for each process, as large as the lane beside it
//! ```
//!
//! And what a start and a death take by themselves: a child of vfork and exec that says a byte, is killed, seen by its pidfd and reaped.

use crate::load::{Load, fill, is_filled};
use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::futex;
use shoal_runtime::clock::now_ns;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const LINE: usize = 128;
/// Processes that a floor serves at most.
pub const PROCESSES_MAX: usize = 1024;
/// Of more than so many processes each touches only what it uses: to map all rings into all takes longer than what is measured.
const POPULATED_MAX: usize = 16;
/// How far behind a slot a line is taken over for writing.
const OWNED_AHEAD_BYTES: usize = 192;
/// Where larger slots go the processor foresees itself.
const OWNED_BYTES_MAX: usize = 256;
const AREAS: usize = 3 * PROCESSES_MAX * LINE;
const AREA_BYTES: usize = 1 << 20;
const RINGS: usize = AREAS + 2 * AREA_BYTES;

/// The first words; then come one tail and one head for each process.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Word {
    /// Written by the first process, in the ping-pong of two lines.
    Ping,
    /// Written by the second.
    Pong,
    /// Written by both in turn, in the ping-pong of one line.
    Both,
    /// Wake-ups asked for.
    Woken,
    /// When the last was asked for.
    WokenAtNs,
    /// How often any process has come to where all wait for all.
    Here,
    /// Slots written to each ring.
    Tail = PROCESSES_MAX,
    /// Slots read of each ring, or by each process of the first ring.
    Head = 2 * PROCESSES_MAX,
}

/// The shared memory of the floors.
pub struct Floor {
    map: MmapRaw,
    processes: usize,
    ring_bytes: usize,
}

/// One process's part in a stream of slots.
#[derive(Clone, Copy)]
pub struct Stream {
    /// Slots.
    pub count: u64,
    /// Bytes of a slot.
    pub bytes: usize,
    /// Slots that are published at once.
    pub every: u64,
    /// Whether more processes than two are awake: then who waits gives way.
    pub crowded: bool,
}

impl Floor {
    fn len(processes: usize, ring_bytes: usize) -> usize {
        RINGS + processes * ring_bytes
    }

    /// Makes the memory, and the path at which a child of this process opens it.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn create(processes: usize, ring_bytes: usize) -> io::Result<(OwnedFd, String)> {
        let fd = rustix::fs::memfd_create("shoal-floor", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, Floor::len(processes, ring_bytes) as u64)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        Ok((fd, path))
    }

    /// Maps it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(path: &str, processes: usize, ring_bytes: usize) -> io::Result<Self> {
        assert!(processes <= PROCESSES_MAX);
        let file = File::options().read(true).write(true).open(path)?;
        let mut options = MmapOptions::new();
        options.len(Floor::len(processes, ring_bytes));
        if processes <= POPULATED_MAX {
            options.populate();
        }
        Ok(Floor { map: options.map_raw(&file)?, processes, ring_bytes })
    }

    /// A word.
    #[inline]
    pub fn word(&self, word: Word) -> &AtomicU64 {
        self.word_of(word, 0)
    }

    fn word_of(&self, word: Word, process: usize) -> &AtomicU64 {
        // SAFETY: before AREAS, inside the map, and aligned; all processes only use it as an atomic.
        unsafe { &*self.map.as_mut_ptr().add((word as usize + process) * LINE).cast::<AtomicU64>() }
    }

    /// The word as a futex: its low half.
    fn futex(&self, word: Word) -> &AtomicU32 {
        // SAFETY: as in `word_of`. The ping-pong of futexes uses this half only.
        unsafe { &*self.map.as_mut_ptr().add(word as usize * LINE).cast::<AtomicU32>() }
    }

    /// Bytes at an offset.
    fn bytes(&self, at: usize, len: usize) -> *mut [u8] {
        debug_assert!(at + len <= Floor::len(self.processes, self.ring_bytes));
        // SAFETY: inside the map: areas and rings are asked for with lengths that fit them.
        std::ptr::slice_from_raw_parts_mut(unsafe { self.map.as_mut_ptr().add(at) }, len)
    }

    /// Waits until all processes are here: nobody comes a second time before everybody has come once.
    pub fn meet(&self) {
        let (here, all) = (self.word(Word::Here), self.processes as u64);
        let complete = (here.fetch_add(1, Ordering::SeqCst) / all + 1) * all;
        while here.load(Ordering::SeqCst) < complete {
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

    /// Two cache lines, each written by one process only, as a lane's are. With them goes a payload: written whole, read
    /// whole and summed up: so many bytes, through so many places in turn. True if each was the one that was sent.
    pub fn ping_pong_two_lines(
        &self,
        first: bool,
        rounds: u64,
        payload: [usize; 2],
        mut each: impl FnMut(),
    ) -> bool {
        let words = [Word::Ping, Word::Pong].map(|w| self.word(w));
        let (own, other) = if first { (0, 1) } else { (1, 0) };
        let [bytes, places] = payload;
        let places = places.min(AREA_BYTES / bytes.max(1)).max(1) as u64;
        let area = |side: usize, number: u64| {
            self.bytes(AREAS + side * AREA_BYTES + (number % places) as usize * bytes, bytes)
        };
        let mut number = words[own].load(Ordering::Relaxed);
        let mut right = true;
        let send = |number| {
            // SAFETY: the other has answered the number before, so it reads this area no more until the store below.
            fill(unsafe { &mut *area(own, number) }, number);
            words[own].store(number, Ordering::Release);
        };
        for _ in 0..rounds {
            number += 1;
            if first {
                send(number);
            }
            while words[other].load(Ordering::Acquire) != number {
                if bytes > 0 {
                    // On the sibling of a core a bare spin would take from the other side what it copies with.
                    std::hint::spin_loop();
                }
            }
            // SAFETY: the other has published this area (Acquire) and writes it again only after this side's answer.
            right &= is_filled(unsafe { &*area(other, number) }, number);
            if !first {
                send(number);
            }
            each();
        }
        right
    }

    /// To and fro by futexes: each side sleeps until the other has stored and woken.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn ping_pong_futex(&self, first: bool, rounds: u64, mut each: impl FnMut()) -> io::Result<()> {
        let words = [Word::Ping, Word::Pong].map(|w| self.futex(w));
        let (own, other) = if first { (words[0], words[1]) } else { (words[1], words[0]) };
        let mut number = own.load(Ordering::Relaxed);
        let send = |number| {
            own.store(number, Ordering::Release);
            futex::wake(own, futex::Flags::empty(), 1).map(drop)
        };
        for _ in 0..rounds {
            number = number.wrapping_add(1);
            if first {
                send(number)?;
            }
            loop {
                let seen = other.load(Ordering::Acquire);
                if seen == number {
                    break;
                }
                match futex::wait(other, futex::Flags::empty(), seen, None) {
                    Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !first {
                send(number)?;
            }
            each();
        }
        // The low half only was counted: as whole words they say the same.
        Ok(())
    }

    /// To and fro by eventfds as a lane's doorbells are: watched edge-triggered and never read, the number beside them.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn ping_pong_epoll(
        &self,
        bells: [&OwnedFd; 2],
        first: bool,
        rounds: u64,
        mut each: impl FnMut(),
    ) -> io::Result<()> {
        let words = [Word::Ping, Word::Pong].map(|w| self.word(w));
        let (own, other) = if first { (words[0], words[1]) } else { (words[1], words[0]) };
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &poll,
            bells[0],
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        let mut number = own.load(Ordering::Relaxed);
        let send = |number| {
            own.store(number, Ordering::Release);
            rustix::io::write(bells[1], &1u64.to_ne_bytes()).map(drop)
        };
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        for _ in 0..rounds {
            number += 1;
            if first {
                send(number)?;
            }
            while other.load(Ordering::Acquire) != number {
                match epoll::wait(&poll, &mut events, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !first {
                send(number)?;
            }
            each();
        }
        Ok(())
    }

    /// Writes slots into the ring of `ring` for the heads of `readers`; publishes every so many.
    pub fn ring_write(&self, ring: usize, readers: std::ops::Range<usize>, stream: Stream) {
        let Stream { count, bytes, every, crowded } = stream;
        let slots = (self.ring_bytes / bytes) as u64;
        let tail = self.word_of(Word::Tail, ring);
        let read = || readers.clone().map(|r| self.word_of(Word::Head, r).load(Ordering::Acquire)).min();
        let begin = tail.load(Ordering::Relaxed);
        let mut seen = begin;
        for number in begin..begin + count {
            let mut looks = 0;
            while number - seen >= slots {
                seen = read().unwrap_or(seen).max(begin);
                give_way(crowded, &mut looks);
                if number - seen >= slots && tail.load(Ordering::Relaxed) != number {
                    tail.store(number, Ordering::Release);
                }
            }
            let slot = self.bytes(RINGS + ring * self.ring_bytes + (number % slots) as usize * bytes, bytes);
            // As the producer of a lane does with small messages: its readers have the lines from the lap before.
            if bytes <= OWNED_BYTES_MAX {
                prefetch_for_writing(slot.cast::<u8>().wrapping_add(OWNED_AHEAD_BYTES));
            }
            // SAFETY: the readers have passed this slot's last lap (`seen`, Acquire), and there is one writer.
            fill(unsafe { &mut *slot }, number);
            if (number + 1).is_multiple_of(every) || number + 1 == begin + count {
                tail.store(number + 1, Ordering::Release);
            }
        }
    }

    /// Reads slots of the rings of `rings`, as the reader `head` of each, or as itself where `head` is none, and publishes
    /// its place every so many. True if each was the one that was sent.
    pub fn ring_read(&self, rings: std::ops::Range<usize>, head: Option<usize>, stream: Stream) -> bool {
        let Stream { count, bytes, every, crowded } = stream;
        let slots = (self.ring_bytes / bytes) as u64;
        let head = |ring: usize| self.word_of(Word::Head, head.unwrap_or(ring));
        let mut places: Vec<(usize, u64, u64)> =
            rings.map(|ring| (ring, head(ring).load(Ordering::Relaxed), count)).collect();
        let (mut right, mut left, mut looks) = (true, count * places.len() as u64, 0);
        while left > 0 {
            let before = left;
            for (ring, next, of_ring) in &mut places {
                // A batch at a time, so that no ring starves.
                let tail =
                    self.word_of(Word::Tail, *ring).load(Ordering::Acquire).min(*next + (*of_ring).min(64));
                while *next < tail {
                    let at = RINGS + *ring * self.ring_bytes + (*next % slots) as usize * bytes;
                    // SAFETY: the writer has passed this slot (`tail`, Acquire) and does not write it before the head moves.
                    right &= is_filled(unsafe { &*self.bytes(at, bytes) }, *next);
                    *next += 1;
                    *of_ring -= 1;
                    left -= 1;
                    if next.is_multiple_of(every) || *of_ring == 0 || *next == tail {
                        head(*ring).store(*next, Ordering::Release);
                    }
                }
            }
            if left == before {
                give_way(crowded, &mut looks);
            }
        }
        right
    }

    /// Makes all rings empty and equal again: between streams of different sizes or directions. All processes meet before and after.
    pub fn ring_reset(&self) {
        for process in 0..self.processes {
            self.word_of(Word::Tail, process).store(0, Ordering::SeqCst);
            self.word_of(Word::Head, process).store(0, Ordering::SeqCst);
        }
    }
}

/// Fetches a line for writing; behind the last ring's end nothing is fetched.
#[inline(always)]
fn prefetch_for_writing(at: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, wherever it points.
    unsafe {
        core::arch::asm!("prefetchw [{at}]", at = in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Lets others run now and then, where more are awake than there may be CPUs.
fn give_way(crowded: bool, looks: &mut u32) {
    *looks += 1;
    if crowded && looks.is_multiple_of(64) {
        std::thread::yield_now();
    }
}

/// To and fro by eventfds: each side sleeps in `read` until the other has written. `bells` are the own and the other's.
///
/// # Errors
/// The kernel's refusal.
pub fn ping_pong_eventfd(
    bells: [&OwnedFd; 2],
    first: bool,
    rounds: u64,
    mut each: impl FnMut(),
) -> io::Result<()> {
    let ring = || rustix::io::write(bells[1], &1u64.to_ne_bytes()).map(drop);
    let mut counter = [0; 8];
    for _ in 0..rounds {
        if first {
            ring()?;
        }
        while rustix::io::read(bells[0], &mut counter)? != 8 {}
        if !first {
            ring()?;
        }
        each();
    }
    Ok(())
}

/// Reads an archive that nobody validated: what validation costs is seen beside it. For bytes that this process has just archived only.
#[inline]
pub fn access_unvalidated(archive: &rkyv::util::AlignedVec) -> &rkyv::Archived<Load> {
    // SAFETY: an aligned buffer that `rkyv::to_bytes` made of a `Load` in this process; nobody else has it.
    unsafe { rkyv::access_unchecked(archive) }
}

/// A child that says one byte, takes its memory, says another and waits to be killed.
pub struct RawChild {
    argv: Vec<CString>,
    read: OwnedFd,
    write: OwnedFd,
    pidfd: OwnedFd,
    /// Its second byte was read.
    settled: bool,
}

/// What the death of a raw child and the start of the next took, ns.
#[derive(Clone, Copy, Debug)]
pub struct RawLife {
    /// From SIGKILL until its pidfd said so and it was reaped.
    pub death_ns: u64,
    /// From vfork until the next one's first byte.
    pub start_ns: u64,
}

impl RawLife {
    /// From SIGKILL until the next one's first byte.
    pub fn all_ns(&self) -> u64 {
        self.death_ns + self.start_ns
    }
}

impl RawChild {
    /// Starts one: a command that becomes [`be_raw_child`].
    ///
    /// # Errors
    /// The kernel's refusal, or an argument with a NUL byte.
    pub fn start(argv: &[&str]) -> io::Result<RawChild> {
        let argv = argv.iter().map(|arg| CString::new(*arg)).collect::<Result<Vec<_>, _>>()?;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let pidfd = born(&argv, &read, &write)?;
        Ok(RawChild { argv, read, write, pidfd, settled: false })
    }

    /// Whether it has taken its memory: until then it keeps a processor busy. Does not wait.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn is_settled(&mut self) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !self.settled && poll(&mut [PollFd::new(&self.read, PollFlags::IN)], Some(&now))? > 0 {
            rustix::io::read(&self.read, &mut [0])?;
            self.settled = true;
        }
        Ok(self.settled)
    }

    /// Kills it, once it has taken its memory, and starts another: how long both took.
    ///
    /// # Errors
    /// The kernel's refusal, or one of them ended of itself.
    pub fn recover(&mut self) -> io::Result<RawLife> {
        while !self.is_settled()? {
            wait_for_word(&self.read, &self.pidfd)?;
        }
        let killed_ns = now_ns();
        let status = end(&self.pidfd)?;
        let dead_ns = now_ns();
        if !status.is_some_and(|status| status.killed()) {
            return Err(io::Error::other("a raw child ended of itself"));
        }
        (self.pidfd, self.settled) = (born(&self.argv, &self.read, &self.write)?, false);
        Ok(RawLife { death_ns: dead_ns - killed_ns, start_ns: now_ns() - dead_ns })
    }
}

impl Drop for RawChild {
    fn drop(&mut self) {
        // Refused when it was reaped already, and no other was born.
        let _ = end(&self.pidfd);
    }
}

/// Kills a child, waits until its pidfd says that it is dead, and reaps it.
fn end(pidfd: &OwnedFd) -> io::Result<Option<rustix::process::WaitIdStatus>> {
    pidfd_send_signal(pidfd, Signal::KILL)?;
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None)?;
    Ok(waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?)
}

/// Starts a raw child, and waits for its first byte.
fn born(argv: &[CString], read: &OwnedFd, write: &OwnedFd) -> io::Result<OwnedFd> {
    let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
    let pidfd = vfork_exec(&argv, write)?;
    wait_for_word(read, &pidfd)?;
    rustix::io::read(read, &mut [0])?;
    Ok(pidfd)
}

/// Waits until a raw child has said something.
fn wait_for_word(read: &OwnedFd, pidfd: &OwnedFd) -> io::Result<()> {
    // The write end is ours, too: a child that ended without a word is seen by its pidfd.
    let mut ends = [PollFd::new(read, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut ends, None)?;
    if ends[0].revents().is_empty() {
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
        return Err(io::Error::other("a raw child ended of itself"));
    }
    Ok(())
}

/// Is the raw child: says a byte, takes so many bytes of memory, says another and waits to be killed.
///
/// # Errors
/// The kernel's refusal, or nobody reads the bytes.
pub fn be_raw_child(bytes: usize) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::io::write(io::stdout(), b".")?;
    let _taken = std::hint::black_box(vec![1u8; bytes]);
    rustix::io::write(io::stdout(), b".")?;
    loop {
        std::thread::park();
    }
}

/// What becomes of a raw child between vfork and exec, and what it costs: `argv` is executed with `out` as its standard output;
/// returns its pidfd.
fn vfork_exec(argv: &[&CStr], out: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|part| part.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [std::ptr::null::<libc::c_char>()];
    let mut actions = std::mem::MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let mut pid = 0;
    // SAFETY: `actions` is initialised by the first call and destroyed by the last; the lists are terminated and outlive the
    // call. glibc's posix_spawn is clone(CLONE_VM | CLONE_VFORK) and execve.
    let error = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), out.as_raw_fd(), 1);
        let (argv, path) = (pointers.as_ptr().cast::<*mut libc::c_char>(), pointers[0]);
        let error = libc::posix_spawn(
            &raw mut pid,
            path,
            actions.as_ptr(),
            std::ptr::null(),
            argv,
            environment.as_ptr().cast(),
        );
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        error
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: a plain system call; the descriptor that it makes is ours alone.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made in the line above.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd as i32) })
}

/// Takes over a descriptor that this process inherited under a number that it was told.
///
/// # Errors
/// There is none of this number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: a plain system call on a number.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (above), and who started this process passed it on for this purpose only.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
