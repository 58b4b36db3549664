//! UNSAFE. What a hostile process tries with a descriptor or a mapping, by bare system calls.
//!
//! Whatever is mapped here is memory that nobody in this process refers to; results are errnos.
#![allow(unsafe_code)]

use rustix::fs::{FallocateFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;

/// What was tried, and whether the kernel refused: `Ok` means that the attack succeeded.
pub type Attempt = (&'static str, io::Result<()>);

/// A number of a descriptor that this process has, whoever keeps it.
pub fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only system calls are made with it; if the number is stale they answer EBADF.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn mapped(fd: RawFd, len: usize, protection: i32) -> io::Result<*mut u8> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of this process.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

fn unmap(at: *mut u8, len: usize) {
    // SAFETY: `at..at + len` was mapped by this file and nothing refers to it.
    unsafe { libc::munmap(at.cast(), len) };
}

fn writable(fd: RawFd, len: usize) -> io::Result<()> {
    let at = mapped(fd, len, libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: mapped for writing just now.
    unsafe { at.write_volatile(0xff) };
    unmap(at, len);
    Ok(())
}

fn turned_writable(fd: RawFd, len: usize) -> io::Result<()> {
    let at = mapped(fd, len, libc::PROT_READ)?;
    // SAFETY: changes the protection of a mapping that only this function knows.
    let result = unsafe { libc::mprotect(at.cast(), len, libc::PROT_READ | libc::PROT_WRITE) };
    let error = io::Error::last_os_error();
    unmap(at, len);
    if result == 0 { Ok(()) } else { Err(error) }
}

/// Grows a read-only map of the last page beyond the file, and reads there in a child: that must end it by SIGBUS.
fn grown(fd: RawFd, len: usize) -> io::Result<()> {
    // The kernel fills the last page of a file with zeros.
    let len = len.next_multiple_of(4096);
    let at = mapped(fd, len, libc::PROT_READ)?;
    // SAFETY: a mapping that only this function knows; MAYMOVE gives the new address back.
    let more = unsafe { libc::mremap(at.cast(), len, 2 * len, libc::MREMAP_MAYMOVE) };
    if more == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        unmap(at, len);
        return Err(error);
    }
    // SAFETY: this process has one thread; the child reads one byte and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: inside the grown mapping; behind the file's end the kernel answers with SIGBUS, which ends this child.
        unsafe {
            ptr::read_volatile(more.cast::<u8>().add(len));
            libc::_exit(0);
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    unmap(more.cast(), 2 * len);
    match libc::WIFSIGNALED(status) {
        true => Err(io::Error::other(format!("signal {}", libc::WTERMSIG(status)))),
        false => Ok(()),
    }
}

/// One way to change a segment's bytes or size: its name, and what tries it through a descriptor of so many bytes.
pub type Write = (&'static str, fn(BorrowedFd<'_>, usize) -> io::Result<()>);

/// All that this file knows.
pub const WRITES: [Write; 11] = [
    ("mmap shared, for writing", |fd, len| writable(fd.as_raw_fd(), len)),
    ("mprotect of a read-only map", |fd, len| turned_writable(fd.as_raw_fd(), len)),
    ("mremap beyond the file", |fd, len| grown(fd.as_raw_fd(), len)),
    ("write", |fd, _| Ok(rustix::io::write(fd, b"shoal").map(drop)?)),
    ("pwrite", |fd, _| Ok(rustix::io::pwrite(fd, b"shoal", 4096).map(drop)?)),
    ("ftruncate, longer", |fd, len| Ok(rustix::fs::ftruncate(fd, 2 * len as u64)?)),
    ("ftruncate, shorter", |fd, _| Ok(rustix::fs::ftruncate(fd, 0)?)),
    ("punching a hole", |fd, len| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(fd, flags, 0, len as u64)?)
    }),
    ("zeroing a range", |fd, len| Ok(rustix::fs::fallocate(fd, FallocateFlags::ZERO_RANGE, 0, len as u64)?)),
    ("allocating beyond", |fd, len| {
        Ok(rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, 2 * len as u64)?)
    }),
    ("sealing against its own writer", |fd, _| Ok(rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE)?)),
];

/// What would make the death of who owns the memory unprovable by seals.
pub const SEAL_FOR_EVER: Write =
    ("sealing for ever", |fd, _| Ok(rustix::fs::fcntl_add_seals(fd, SealFlags::SEAL)?));

/// Everything that would change a segment's bytes or size, through one descriptor.
pub fn every_write(fd: BorrowedFd<'_>, len: usize) -> Vec<Attempt> {
    WRITES.iter().map(|(name, write)| (*name, write(fd, len))).collect()
}

/// Reads a whole descriptor.
pub fn bytes_of(fd: impl AsFd, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        match rustix::io::pread(&fd, &mut bytes[at..], at as u64) {
            Ok(0) | Err(_) => break,
            Ok(n) => at += n,
        }
    }
    bytes.truncate(at);
    bytes
}

/// The own segment as this process maps it, found as a hostile agent would: by the name of its file.
#[derive(Clone, Copy)]
pub struct OwnMap {
    at: *mut u8,
    len: usize,
}

impl OwnMap {
    /// Finds the writable mapping of a segment.
    pub fn find() -> Option<OwnMap> {
        Self::all("rw-s").into_iter().next()
    }

    /// All mappings of segments with these rights.
    pub fn all(rights: &str) -> Vec<OwnMap> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let segments = maps.lines().filter(|l| l.contains("shoal-segment") && l.contains(rights));
        segments.filter_map(Self::of).collect()
    }

    fn of(line: &str) -> Option<OwnMap> {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let address = |hex: &str| usize::from_str_radix(hex, 16).ok();
        let (from, to) = (address(from)?, address(to)?);
        Some(OwnMap { at: from as *mut u8, len: to - from })
    }

    /// Bytes.
    pub fn len_bytes(&self) -> usize {
        self.len
    }

    /// Lets forked children keep it.
    pub fn kept_by_children(&self) -> io::Result<()> {
        // SAFETY: only changes what a later fork copies.
        match unsafe { libc::madvise(self.at.cast(), self.len, libc::MADV_DOFORK) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Steals whoever sleeps on a word of it, which may be mapped for reading only, so that no wake-up of that word reaches them: how many.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stolen_sleepers(&self, offset: usize) -> io::Result<u64> {
        let (at, most) = (self.futex(offset), i64::from(i32::MAX));
        // SAFETY: a futex call on a mapped word and on an own one; no memory is changed.
        let stolen =
            unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_REQUEUE, 0, most, STOLEN.as_ptr(), 0) };
        u64::try_from(stolen).map_err(|_| io::Error::last_os_error())
    }

    /// Steals a thread of this process that sleeps on its first word, as it would anybody who does, and wakes it: how many there were.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn stolen_own_sleeper(&self) -> io::Result<u64> {
        let at = self.futex(0).expose_provenance();
        // What it finds changed is no sleep: then it lies down again.
        let sleeper = std::thread::spawn(move || {
            let word = ptr::with_exposed_provenance::<u32>(at);
            // SAFETY: the word stays mapped as long as the process lives; the calls only read it.
            while unsafe {
                let none = ptr::null::<libc::timespec>();
                libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, word.read_volatile(), none) != 0
            } {}
        });
        let stolen = loop {
            match self.stolen_sleepers(0)? {
                0 => std::thread::yield_now(),
                stolen => break stolen,
            }
        };
        // SAFETY: wakes whoever was put there; no memory is involved.
        done(unsafe { libc::syscall(libc::SYS_futex, STOLEN.as_ptr(), libc::FUTEX_WAKE, i32::MAX) })?;
        sleeper.join().map_err(|_| io::Error::other("the sleeper panicked"))?;
        Ok(stolen)
    }

    fn futex(&self, offset: usize) -> *mut u8 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        self.at.wrapping_add(offset)
    }

    /// Loads a word.
    pub fn load(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: inside the mapping, which lives as long as the process; every other access to it is atomic or raw.
        unsafe { self.at.add(offset).cast::<u64>().read_volatile() }
    }

    /// Stores a word.
    pub fn store(&self, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: inside the mapping, which lives as long as the process; every other access to it is atomic or raw.
        unsafe { self.at.add(offset).cast::<u64>().write_volatile(word) };
    }
}

/// On which those sleep who were stolen.
static STOLEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Forks; `None` in the child.
///
/// # Errors
/// The kernel's refusal.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the agents that call this have one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// Becomes the leader of a session of its own.
pub fn leave_session() {
    // SAFETY: no memory is involved.
    unsafe { libc::setsid() };
}

/// Ends this process as `kill -9` does.
pub fn kill_self() -> ! {
    // SAFETY: no memory is involved; SIGKILL does not return.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

/// The first of the users as whom agents attack that could hurt others of the machine: nobody else has these numbers.
pub const OWN_USERS: u32 = 1_800_000_000;

/// SIGKILL to everybody whom the kernel lets it signal: asked only as a user of the test's own, who has no rights beyond that.
///
/// # Errors
/// It would reach others than those of the test; or the kernel's refusal.
pub fn kill_everybody() -> io::Result<()> {
    is_of_no_consequence()?;
    // SAFETY: no memory is involved; nobody but processes of the test's own user can be hit.
    done(unsafe { libc::kill(-1, libc::SIGKILL) })
}

/// Whether this process has a user of the test's own, and no rights of root.
fn is_of_no_consequence() -> io::Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    // Read, not asked for: that call a hostile agent does not need, and would be ended by it before it attacks.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match uid >= OWN_USERS && rights.is_some_and(|rights| rights.trim().bytes().all(|digit| digit == b'0')) {
        true => Ok(()),
        false => Err(io::Error::other("not tried: it would reach others")),
    }
}

/// Forks, and each fork forks, for ever in every process but the first: how often the kernel refused that in the given time.
///
/// # Errors
/// Nothing bounds it, or it would reach others than those of the test.
pub fn fork_bomb(time: std::time::Duration, bound: usize) -> io::Result<u64> {
    is_of_no_consequence()?;
    let mut waiting = Vec::new();
    while waiting.len() < bound {
        match fork() {
            Ok(Some(child)) => {
                waiting.push(child);
                println!("bomb forked");
            }
            Ok(None) => loop {
                std::thread::park();
            },
            Err(_) => break,
        }
    }
    for child in &waiting {
        // SAFETY: children of this process that are not waited for yet.
        unsafe {
            libc::kill(*child, libc::SIGKILL);
            libc::waitpid(*child, ptr::null_mut(), 0);
        }
    }
    if waiting.len() >= bound {
        return Err(io::Error::other("not tried: nothing bounds it"));
    }
    let (begun, mut refused, mut first) = (std::time::Instant::now(), 0, true);
    while !first || begun.elapsed() < time {
        match fork() {
            Ok(Some(_)) => {}
            Ok(None) => first = false,
            Err(_) => refused += 1,
        }
    }
    Ok(refused)
}

/// One way by which a process reaches into another.
pub type Way = (&'static str, fn(i32) -> io::Result<()>);

fn done(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// All ways by which a process reaches into another that this file knows. None does harm where it gets in.
pub const WAYS: [Way; 14] = [
    ("ptrace", traced),
    ("process_vm_readv", |pid| copied(pid, false)),
    ("process_vm_writev", |pid| copied(pid, true)),
    ("/proc/PID/mem", |pid| opened(&format!("/proc/{pid}/mem"), true)),
    ("/proc/PID/maps", |pid| opened(&format!("/proc/{pid}/maps"), false)),
    ("/proc/PID/environ", |pid| opened(&format!("/proc/{pid}/environ"), false)),
    ("/proc/PID/fd", |pid| std::fs::read_link(format!("/proc/{pid}/fd/1")).map(|_| ())),
    ("pidfd_getfd", taken),
    ("kill", |pid| done(unsafe_kill(pid))),
    ("kill of anybody", |_| anybody()),
    ("prlimit", limited),
    ("setpriority", slowed),
    ("sched_setaffinity", moved),
    ("/proc/PID/oom_score_adj", exposed),
];

/// Signal 0: only whether it could.
fn unsafe_kill(pid: i32) -> i32 {
    // SAFETY: no memory is involved, and signal 0 does nothing.
    unsafe { libc::kill(pid, 0) }
}

/// Whether any process at all could be signalled. (`kill(-1)` itself says yes in any case: see [`kill_everybody`].)
fn anybody() -> io::Result<()> {
    let own = std::process::id() as i32;
    let all = std::fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let within_reach = pids.filter(|pid| *pid != own).any(|pid| unsafe_kill(pid) == 0);
    if within_reach { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Gives it the niceness that it has.
fn slowed(pid: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    unsafe {
        *libc::__errno_location() = 0;
        let nice = libc::getpriority(libc::PRIO_PROCESS, pid as u32);
        done(libc::setpriority(libc::PRIO_PROCESS, pid as u32, nice))
    }
}

/// Lets it run where it runs.
fn moved(pid: i32) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(pid);
    let set = rustix::thread::sched_getaffinity(pid)?;
    Ok(rustix::thread::sched_setaffinity(pid, &set)?)
}

/// Writes what it reads there.
fn exposed(pid: i32) -> io::Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, std::fs::read(&path)?)
}

fn traced(pid: i32) -> io::Result<()> {
    // SAFETY: the request reads its arguments only; what is seized without options goes on.
    done(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })?;
    // SAFETY: as above; `detach` needs it to be stopped.
    unsafe {
        libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0);
        libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
        libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
    }
    Ok(())
}

/// Reads a word of its memory, or writes nothing to where it may not be written: the rights are asked for first.
fn copied(pid: i32, writes: bool) -> io::Result<()> {
    let mut word = [0_u8; 8];
    let here = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: 8 };
    // Nothing is mapped at 1: who may gets EFAULT, who may not gets EPERM.
    let there = libc::iovec { iov_base: ptr::without_provenance_mut(1), iov_len: 8 };
    // SAFETY: the vectors are valid for the call; the other process's memory is not ours, and nothing lies there.
    let result = unsafe {
        match writes {
            true => libc::process_vm_writev(pid, &raw const here, 1, &raw const there, 1, 0),
            false => libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0),
        }
    };
    match done(result as i64) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    }
}

fn opened(path: &str, writes: bool) -> io::Result<()> {
    std::fs::OpenOptions::new().read(true).write(writes).open(path).map(|_| ())
}

fn taken(pid: i32) -> io::Result<()> {
    // SAFETY: plain system calls on numbers; what they yield is closed at once.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        done(process)?;
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process, 1, 0);
        let result = done(fd);
        libc::close(process as i32);
        if fd >= 0 {
            libc::close(fd as i32);
        }
        result
    }
}

/// Sets a bound of it to what it is.
fn limited(pid: i32) -> io::Result<()> {
    let mut bound = [0_u64; 2];
    // SAFETY: the array is as large as the kernel's structure.
    unsafe {
        let none = ptr::null::<u64>();
        done(libc::syscall(libc::SYS_prlimit64, pid, libc::RLIMIT_CORE, none, bound.as_mut_ptr()))?;
        done(libc::syscall(
            libc::SYS_prlimit64,
            pid,
            libc::RLIMIT_CORE,
            bound.as_ptr(),
            ptr::null_mut::<u64>(),
        ))
    }
}

/// Makes a descriptor blocking, by both ways. Whether one worked.
pub fn made_blocking(fd: BorrowedFd<'_>) -> bool {
    let off: libc::c_int = 0;
    // SAFETY: plain calls on a number; the integer lives as long as the call.
    unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, 0) == 0
            || libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const off) == 0
    }
}
