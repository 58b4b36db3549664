//! UNSAFE. The table of descriptors that a supervisor shares with its keeper: what a successor finds open in it, and takes or closes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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

/// Takes a descriptor over that a dead supervisor's journal names; `None` when it is not open.
///
/// Each is to be claimed once.
pub fn claim(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks about a number.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open (asked above), its owner is dead, and the journal names each once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
