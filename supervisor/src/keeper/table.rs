//! UNSAFE. The table of descriptors that a supervisor shares with its keeper: what a successor finds open in it, and takes or closes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor as a journal names it: its number, and what it was of, so that a number that was used again is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Held {
    /// Its number in the table.
    pub number: RawFd,
    /// Device and inode: memory, sockets and pipes have their own, and so have processes on newer kernels; the others of a kind share one.
    of: (u64, u64),
}

impl Held {
    /// None.
    pub const NONE: Held = Held { number: -1, of: (0, 0) };

    /// Of an open descriptor.
    pub fn new(fd: impl AsFd) -> Held {
        let fd = fd.as_fd();
        Held { number: fd.as_raw_fd(), of: identity(fd) }
    }
}

/// What is behind a descriptor; nothing known of it is nothing, too.
fn identity(fd: BorrowedFd<'_>) -> (u64, u64) {
    rustix::fs::fstat(fd).map_or((0, 0), |seen| (seen.st_dev, seen.st_ino))
}

/// What is open in this process.
///
/// # Errors
/// No /proc.
pub fn open_now() -> io::Result<BTreeSet<RawFd>> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut open: BTreeSet<RawFd> = numbers.collect();
    // The folder that was just read was open under one of them.
    open.retain(|&fd| {
        // SAFETY: asks about a number.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    });
    Ok(open)
}

/// Closes what a dead supervisor had opened and nobody knows: all but these. Before anything else is opened.
///
/// # Errors
/// No /proc.
pub fn close_others(known: &BTreeSet<RawFd>) -> io::Result<usize> {
    let strange: Vec<RawFd> = open_now()?.into_iter().filter(|fd| !known.contains(fd)).collect();
    for &fd in &strange {
        // SAFETY: the process that owned it is dead, and no value of this one does: it is in no record.
        unsafe { libc::close(fd) };
    }
    Ok(strange.len())
}

/// Takes a descriptor over that a dead supervisor's journal names; `None` when it is not open, or is of something else.
///
/// Each is to be claimed once.
pub fn claim(held: Held) -> Option<OwnedFd> {
    if !is_open(held.number) {
        return None;
    }
    // SAFETY: it is open (asked above), and nobody of this process closes it meanwhile.
    let is_it = identity(unsafe { BorrowedFd::borrow_raw(held.number) }) == held.of;
    // SAFETY: it is open and what the journal names, its owner is dead, and the journal names each once.
    is_it.then(|| unsafe { OwnedFd::from_raw_fd(held.number) })
}

/// As [`claim`], of a number that whoever opens it knows otherwise.
pub fn claim_number(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: it is open (asked here), its owner is dead, and what it is shows when it is opened.
    is_open(number).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: asks about a number.
    number >= 0 && unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// Makes something, has its number used again by something else, and claims it.
    fn claimed_after<A: Into<OwnedFd>, B: Into<OwnedFd>>(
        make: impl Fn() -> A,
        other: impl Fn() -> B,
    ) -> bool {
        let first: OwnedFd = make().into();
        let held = Held::new(&first);
        let number = first.into_raw_fd();
        // Still what was named.
        let again = claim(held).expect("it is open and the same");
        let other: OwnedFd = other().into();
        rustix::io::dup2(&other, &mut std::mem::ManuallyDrop::new(again)).expect("used again");
        let taken = claim(held);
        if taken.is_none() {
            // SAFETY: `dup2` made it, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
        taken.is_some()
    }

    #[test]
    fn number_that_was_used_again_for_something_else_is_not_taken() {
        let memory = || shoal_runtime::segment::freeze("held", b"x").expect("memory");
        let pipe = || std::io::pipe().expect("a pipe").0;
        let socket = || std::os::unix::net::UnixStream::pair().expect("a pair").0;
        assert!(!claimed_after(memory, memory), "other memory");
        assert!(!claimed_after(pipe, pipe), "another pipe");
        assert!(!claimed_after(socket, socket), "another socket");
        assert!(!claimed_after(memory, socket) && !claimed_after(socket, memory));
    }

    #[test]
    fn what_is_not_open_is_not_taken() {
        let held = Held::new(shoal_runtime::segment::freeze("gone", b"x").expect("memory"));
        // Nobody else here opens something that is the same.
        assert!(claim(held).is_none() && claim(Held::NONE).is_none());
    }
}
