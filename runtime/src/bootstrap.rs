//! UNSAFE. What a child inherits, taken once.
#![allow(unsafe_code)]

use crate::wire::{CONTROL_ENV, CONTROL_FD};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the environment variables begin with that tell at which number a secret lies; its name follows.
pub const SECRET_ENV: &str = "SHOAL_SECRET_";

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the control socket that the supervisor left at its agreed number.
///
/// # Errors
/// When this process was not started by a supervisor, or the socket was taken before.
pub fn take_control_socket() -> io::Result<OwnedFd> {
    let by_hand = || {
        io::Error::other(
            "this agent was not started by a Shoal supervisor: name it in a swarm file and start that with \
             `shoal run FILE`; for a test without a supervisor see `shoal_agent::harness`",
        )
    };
    if std::env::var(CONTROL_ENV).ok().and_then(|v| v.parse().ok()) != Some(CONTROL_FD) {
        return Err(by_hand());
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other(
            "the agent is attached already: `shoal_agent::run` works once in a process",
        ));
    }
    // SAFETY: only asks the kernel about a number; no ownership is taken yet.
    let probe = unsafe { std::os::fd::BorrowedFd::borrow_raw(CONTROL_FD) };
    let kind = rustix::net::sockopt::socket_type(probe).map_err(|_| by_hand())?;
    if kind != rustix::net::SocketType::SEQPACKET {
        return Err(by_hand());
    }
    // SAFETY: the descriptor is open (checked above), was left there for this process by the supervisor, and is taken
    // once (`TAKEN`), so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Reads a secret that the supervisor left; as often as it is asked. Children that this process makes do not inherit it from
/// then on.
///
/// # Errors
/// The swarm file names no such secret for this agent; or the kernel's refusal.
pub fn secret(name: &str) -> io::Result<Vec<u8>> {
    let variable = format!("{SECRET_ENV}{name}");
    let none = || {
        let what = format!(
            "this agent was given no secret {name:?}: add secrets = {{ {name} = \"FILE\" }} to its table in the swarm file"
        );
        io::Error::new(io::ErrorKind::NotFound, what)
    };
    let number = std::env::var(variable).ok().and_then(|number| number.parse::<RawFd>().ok());
    let number = number.filter(|number| *number > CONTROL_FD).ok_or_else(none)?;
    // SAFETY: only system calls are made with it, while nobody closes it: whoever could would have to guess its number. If it is
    // closed they answer EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(|_| none())?;
    Ok(crate::segment::thaw(fd)?.into_vec())
}
