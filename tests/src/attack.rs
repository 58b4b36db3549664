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

/// Everything that would change a segment's bytes or size, through one descriptor.
pub fn every_write(fd: BorrowedFd<'_>, len: usize) -> Vec<Attempt> {
    let raw = fd.as_raw_fd();
    let keep = FallocateFlags::KEEP_SIZE;
    let done = |result: rustix::io::Result<usize>| result.map(|_| ()).map_err(io::Error::from);
    let plain = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    vec![
        ("mmap shared, for writing", writable(raw, len)),
        ("mprotect of a read-only map", turned_writable(raw, len)),
        ("mremap beyond the file", grown(raw, len)),
        ("write", done(rustix::io::write(fd, b"shoal"))),
        ("pwrite", done(rustix::io::pwrite(fd, b"shoal", 4096))),
        ("ftruncate, longer", plain(rustix::fs::ftruncate(fd, 2 * len as u64))),
        ("ftruncate, shorter", plain(rustix::fs::ftruncate(fd, 0))),
        (
            "punching a hole",
            plain(rustix::fs::fallocate(fd, FallocateFlags::PUNCH_HOLE | keep, 0, len as u64)),
        ),
        ("zeroing a range", plain(rustix::fs::fallocate(fd, FallocateFlags::ZERO_RANGE, 0, len as u64))),
        ("allocating beyond", plain(rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, 2 * len as u64))),
        ("sealing against its own writer", plain(rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE))),
    ]
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
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let line = maps.lines().find(|l| l.contains("shoal-segment") && l.contains("rw-s"))?;
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

    /// Stores a word.
    pub fn store(&self, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: inside the mapping, which lives as long as the process; every other access to it is atomic or raw.
        unsafe { self.at.add(offset).cast::<u64>().write_volatile(word) };
    }
}

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
