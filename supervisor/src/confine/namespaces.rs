//! Namespaces of a hostile agent's own: what of the machine has a name, and no file.
//!
//! What is behind them is mostly behind its filter already, which allows neither sockets nor System V calls: they are a second line of
//! defence. A process's numbers stay those of the machine: the first process of a namespace of numbers would not be told of SIGABRT.

use nix::sched::{CloneFlags, unshare};
use std::ffi::c_int;
use std::io;

/// Network, System V memory and message queues, and the names of the host.
const OWN: CloneFlags =
    CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWIPC).union(CloneFlags::CLONE_NEWUTS);

/// The flags by which a child makes them, if it may: a thread tries, whose own they are and end with it.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn permitted() -> io::Result<c_int> {
    let tries = std::thread::Builder::new().name("namespaces".into()).spawn(|| unshare(OWN))?;
    match tries.join() {
        Ok(tried) => Ok(tried.map(|()| OWN.bits())?),
        Err(_) => Err(io::Error::other("whoever tried it panicked")),
    }
}
