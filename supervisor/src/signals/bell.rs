//! UNSAFE. What a signal does to the process that it reaches: a byte into a socket, whose other end the supervisor reads.
//!
//! The process that a shell signals is the guard, which shares nothing but that socket with its supervisor: so a byte that meets a
//! passing lack is sent again, and the signal is not lost.
#![allow(unsafe_code)]

use libc::c_int;
use signal_hook::SigId;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// How often a byte is sent that is not taken.
const TIMES: u32 = 8;

/// From now on each signal of this kind sends a byte.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn register(signal: c_int, to: UnixStream) -> io::Result<SigId> {
    let send = move || {
        // SAFETY: where this thread keeps its last error: what was interrupted may be about to read it.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { *errno };
        for _ in 0..TIMES {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: one byte of a constant; the socket lives as long as this closure.
            if unsafe { libc::send(to.as_raw_fd(), c"!".as_ptr().cast(), 1, flags) } == 1 {
                break;
            }
        }
        // SAFETY: as above.
        unsafe { *errno = before };
    };
    // SAFETY: a handler may do what is safe between any two instructions: it sends, and touches nothing but a number of its own.
    unsafe { signal_hook::low_level::register(signal, send) }
}
