//! UNSAFE. Leases of files: the kernel's word that nobody has a file open for writing.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Whether the kernel grants a lease for reading, which it does only while no descriptor that was opened for writing lives; the
/// lease is given back at once.
///
/// # Errors
/// Anything but its refusal.
pub fn nobody_writes(reader: impl AsFd) -> io::Result<bool> {
    let fd = reader.as_fd().as_raw_fd();
    // SAFETY: no memory is involved.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EAGAIN) { Ok(false) } else { Err(error) }
}
