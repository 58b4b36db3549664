//! UNSAFE. Fork, single steps, breakpoints, and the bytes of a segment as the tracer sees them.
//!
//! Tracer and tracee share one core: a single step is then two cheap switches. The tracee is forked from a process of one
//! thread, so its code lies at the same addresses, and the place of a boundary in one run is its place in all.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// A forked process that this one traces, or just waits for.
pub struct Child {
    pid: libc::pid_t,
    gone: bool,
}

/// Why a child stands still, or no longer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It executed one instruction, or hit a breakpoint.
    Trapped,
    /// It ended by itself.
    Exited(i32),
    /// A signal ended it, or would have.
    Signalled(i32),
}

/// Seconds after which a child ends itself: a seeded bug may let it spin.
const LIFE_MAX_S: u32 = 20;

fn asked(result: libc::c_long, what: &str) -> io::Result<libc::c_long> {
    if result == -1 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("{what}: {error}")));
    }
    Ok(result)
}

/// Binds this process, and all that it forks, to one core: the `nth` of those that it may use, or as many further round.
pub fn pin(nth: usize) {
    // SAFETY: the sets are plain data, initialised by zeroes; the calls write the first and read the second only.
    unsafe {
        let (mut allowed, mut set): (libc::cpu_set_t, libc::cpu_set_t) = std::mem::zeroed();
        libc::sched_getaffinity(0, std::mem::size_of_val(&allowed), &raw mut allowed);
        let usable = (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed));
        let usable: Vec<usize> = usable.collect();
        libc::CPU_SET(usable.get(nth % usable.len().max(1)).copied().unwrap_or(0), &mut set);
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &raw const set);
    }
}

/// Stops the traced process that runs this.
#[inline(never)]
pub fn breakpoint() {
    // SAFETY: a trap instruction changes no state; the tracer goes on behind it.
    unsafe { std::arch::asm!("int3", options(nomem, nostack, preserves_flags)) };
}

impl Child {
    /// Forks; the child runs `body` and exits with what it says. With `traced` this process is its tracer.
    ///
    /// # Errors
    /// No more processes.
    pub fn fork(traced: bool, body: impl FnOnce() -> i32) -> io::Result<Child> {
        // SAFETY: this process has one thread, so the child may do anything that this one may.
        match asked(libc::c_long::from(unsafe { libc::fork() }), "fork")? {
            0 => {
                // SAFETY: plain system calls of the child on itself.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::alarm(LIFE_MAX_S);
                    if traced {
                        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                    }
                }
                let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
                // SAFETY: ends the child without running what belongs to its parent.
                unsafe { libc::_exit(status) }
            }
            pid => Ok(Child { pid: pid as libc::pid_t, gone: false }),
        }
    }

    /// Forks a worker of a story; if it ends with words, it prints them and exits with 3.
    ///
    /// # Errors
    /// As [`Child::fork`].
    pub fn fork_worker(
        traced: bool,
        story: &str,
        live: impl FnOnce() -> Result<(), String>,
    ) -> io::Result<Child> {
        Child::fork(traced, || match live() {
            Ok(()) => 0,
            Err(what) => {
                eprintln!("the worker of {story} says: {what}");
                3
            }
        })
    }

    /// Waits until it stands still or is gone.
    ///
    /// # Errors
    /// It is no child of ours any more.
    pub fn wait(&mut self) -> io::Result<Stop> {
        let mut status = 0;
        // SAFETY: `status` is ours for the time of the call.
        asked(libc::c_long::from(unsafe { libc::waitpid(self.pid, &mut status, libc::__WALL) }), "waitpid")?;
        Ok(if libc::WIFSTOPPED(status) {
            match libc::WSTOPSIG(status) {
                libc::SIGTRAP => Stop::Trapped,
                signal => Stop::Signalled(signal),
            }
        } else {
            self.gone = true;
            match libc::WIFEXITED(status) {
                true => Stop::Exited(libc::WEXITSTATUS(status)),
                false => Stop::Signalled(libc::WTERMSIG(status)),
            }
        })
    }

    fn resume(&mut self, request: libc::c_uint) -> io::Result<Stop> {
        // SAFETY: resumes a stopped tracee without a signal; no memory of ours is involved.
        asked(unsafe { libc::ptrace(request, self.pid, 0, 0) }, "resuming a tracee")?;
        self.wait()
    }

    /// Executes one instruction.
    ///
    /// # Errors
    /// It does not stand still.
    pub fn step(&mut self) -> io::Result<Stop> {
        self.resume(libc::PTRACE_SINGLESTEP)
    }

    /// Runs on.
    ///
    /// # Errors
    /// It does not stand still.
    pub fn run(&mut self) -> io::Result<Stop> {
        self.resume(libc::PTRACE_CONT)
    }

    /// Address of the next instruction.
    ///
    /// # Errors
    /// It does not stand still.
    pub fn rip(&self) -> io::Result<u64> {
        let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
        // SAFETY: reads a register of a stopped tracee.
        asked(unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.pid, offset, 0) }, "reading rip")
            .map(|r| r as u64)
    }

    fn set_rip(&self, rip: u64) -> io::Result<()> {
        let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
        // SAFETY: writes a register of a stopped tracee.
        asked(unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.pid, offset, rip) }, "writing rip").map(drop)
    }

    /// Replaces the first byte of an instruction by `byte`; returns what stood there.
    fn poke(&self, at: u64, byte: u8) -> io::Result<u8> {
        // SAFETY: reads the tracee's own copy of the code.
        let word = asked(unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.pid, at, 0) }, "reading code")?;
        let patched = word & !0xff | libc::c_long::from(byte);
        // SAFETY: writes the tracee's own copy of the code: private pages, so nobody else's changes.
        asked(unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.pid, at, patched) }, "writing code")?;
        Ok(word as u8)
    }

    /// Runs until it stands before the instruction at `at` for the `nth` time (from 1); false if something else came first.
    ///
    /// # Errors
    /// It does not stand still.
    pub fn run_to(&mut self, at: u64, nth: usize) -> io::Result<bool> {
        let mut seen = usize::from(self.rip()? == at);
        while seen < nth {
            if seen > 0 && self.step()? != Stop::Trapped {
                return Ok(false);
            }
            if seen > 0 && self.rip()? == at {
                seen += 1;
                continue;
            }
            let byte = self.poke(at, 0xcc)?;
            if self.run()? != Stop::Trapped {
                return Ok(false);
            }
            self.poke(at, byte)?;
            if self.rip()? != at + 1 {
                return Ok(false);
            }
            self.set_rip(at)?;
            seen += 1;
        }
        Ok(true)
    }

    /// Kills it, wherever it stands, and waits for the end.
    ///
    /// # Errors
    /// It is no child of ours any more.
    pub fn kill(&mut self) -> io::Result<()> {
        // SAFETY: a signal to a child that was not waited for yet, so its number is its own still.
        asked(libc::c_long::from(unsafe { libc::kill(self.pid, libc::SIGKILL) }), "killing a child")?;
        while !self.gone {
            self.wait()?;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.kill();
        }
    }
}

/// Forks a child of the tracee that does nothing; returns its number. With `keeping` it has every segment mapped for writing.
/// Without, it has what a child of an agent has: nothing.
///
/// # Errors
/// No more processes.
pub fn fork_heir(keeping: bool) -> io::Result<u64> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        if !keeping || !line.contains("shoal-segment") || !line.contains(" rw-s ") {
            continue;
        }
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let Some((from, to)) = range else { continue };
        let parse = |text| usize::from_str_radix(text, 16).map_err(io::Error::other);
        let (from, to) = (parse(from)?, parse(to)?);
        // SAFETY: only says that the mapping shall be inherited.
        unsafe { libc::madvise(from as *mut _, to - from, libc::MADV_DOFORK) };
    }
    // SAFETY: the tracee has one thread; its child only sleeps.
    match asked(libc::c_long::from(unsafe { libc::fork() }), "fork of an heir")? {
        0 => loop {
            // SAFETY: sleeps until a signal ends it; the alarm is one of its own, fork clears the parent's.
            unsafe {
                libc::alarm(LIFE_MAX_S);
                libc::pause();
            }
        },
        pid => Ok(pid as u64),
    }
}

/// Kills a process that the tracee forked: it was given the number by the tracee, and nobody has waited for it.
pub fn kill_heir(pid: u64) {
    if pid > 1 {
        // SAFETY: a signal; the number is that of a sub-child which this process adopted and did not reap.
        unsafe {
            libc::kill(pid as libc::pid_t, libc::SIGKILL);
            libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0);
        }
    }
}

/// Makes orphans of tracees children of this process.
pub fn adopt_orphans() {
    // SAFETY: a plain attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// A mapping of the tracer: a segment that it watches, or a page that it shares with its tracee.
pub struct Map {
    base: *mut u8,
    len: usize,
}

impl Map {
    /// Maps a descriptor that was opened read-only.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn watch(fd: impl AsFd, len: usize) -> io::Result<Map> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Map { base: base.cast(), len })
        }
    }

    /// Copies the bytes into `into` if they differ; true if so. Their writer stands still.
    pub fn copy_if_changed(&self, into: &mut Vec<u8>) -> bool {
        // SAFETY: the mapping lives as long as `self`, and its only writer is stopped or dead while this runs.
        let now = unsafe { std::slice::from_raw_parts(self.base, self.len) };
        if into.as_slice() == now {
            return false;
        }
        into.clear();
        into.extend_from_slice(now);
        true
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nothing borrowed from it outlives it.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Bytes that forked processes do not get: a fork copies the table of every page of this process, and images are most of them.
pub struct Aside {
    map: Map,
    used: usize,
}

impl Aside {
    /// Copies the bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn of(bytes: &[u8]) -> io::Result<Aside> {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let (used, len) = (bytes.len(), bytes.len().max(1));
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = Map { base: base.cast(), len };
        // SAFETY: the mapping is that long, ours alone, and no child looks at it.
        unsafe {
            libc::madvise(base, len, libc::MADV_DONTFORK);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.base, bytes.len());
        }
        Ok(Aside { map, used })
    }
}

impl std::ops::Deref for Aside {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as `self`, and nobody writes to it any more.
        unsafe { std::slice::from_raw_parts(self.map.base, self.used) }
    }
}

/// Words that tracer and tracee share: how far it is.
pub struct Control {
    map: Map,
}

/// A word of [`Control`].
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Word {
    /// How far the tracee's life is: one of [`phase`].
    Phase,
    /// Steps that it began.
    Begun,
    /// Steps whose commit returned.
    Done,
    /// The child that it forked.
    Heir,
}

/// Where in the page the diary begins: a count, then entries.
const DIARY: usize = 8;

/// Values of [`Word::Phase`].
pub mod phase {
    /// It has mapped its segment.
    pub const MAPPED: u64 = 1;
    /// The stepped section begins.
    pub const BEGIN: u64 = 2;
    /// The stepped section is over.
    pub const END: u64 = 3;
}

impl Control {
    /// Makes the page; forked children inherit it.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Control> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Control { map: Map { base: base.cast(), len: 4096 } })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: inside the page, aligned, and only ever reached as atomics.
        unsafe { &*self.map.base.cast::<AtomicU64>().add(word as usize) }
    }

    /// Reads a word.
    #[inline]
    pub fn get(&self, word: Word) -> u64 {
        // Relaxed: the tracee stands still when the tracer reads.
        self.word(word).load(Ordering::Relaxed)
    }

    /// Writes a word.
    #[inline]
    pub fn set(&self, word: Word, value: u64) {
        // Relaxed: as in `get`.
        self.word(word).store(value, Ordering::Relaxed);
    }

    fn diary(&self, index: usize) -> &AtomicU64 {
        assert!((DIARY + index) * 8 < 4096, "the diary is full");
        // SAFETY: inside the page (checked above), aligned, and only ever reached as atomics.
        unsafe { &*self.map.base.cast::<AtomicU64>().add(DIARY + index) }
    }

    /// Adds an entry to the diary.
    #[inline]
    pub fn note(&self, entry: u64) {
        // Relaxed: as in `get`. The entry before the count: a tracee that dies in between has not noted it.
        let count = self.diary(0).load(Ordering::Relaxed);
        self.diary(1 + count as usize).store(entry, Ordering::Relaxed);
        self.diary(0).store(count + 1, Ordering::Relaxed);
    }

    /// Everything that was noted, in order.
    pub fn noted(&self) -> Vec<u64> {
        let count = self.diary(0).load(Ordering::Relaxed) as usize;
        (0..count).map(|i| self.diary(1 + i).load(Ordering::Relaxed)).collect()
    }
}
