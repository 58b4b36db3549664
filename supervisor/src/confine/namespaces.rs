//! Namespaces of a hostile agent's own: what of the machine has a name, and no file.
//!
//! What is behind them is mostly behind its filter already, which allows neither sockets nor System V calls: they are a second line of
//! defence. A process's numbers stay those of the machine: the first process of a namespace of numbers would not be told of SIGABRT.

use crate::spawn::may_unshare;
use nix::sched::CloneFlags;
use shoal_runtime::again::insist;
use std::ffi::c_int;

/// Network, System V memory and message queues, and the names of the host.
const OWN: CloneFlags =
    CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWIPC).union(CloneFlags::CLONE_NEWUTS);

/// Whether a child may make them, once somebody needed to know.
#[derive(Default)]
pub(super) struct Namespaces {
    tried: Option<Result<(), String>>,
}

impl Namespaces {
    /// The flags by which a child makes them.
    ///
    /// # Errors
    /// The kernel's refusal, in words.
    pub(super) fn permitted(&mut self) -> Result<c_int, &str> {
        // What comes of it holds for all hostile agents from then on.
        let try_them = || insist(|| may_unshare(OWN.bits())).map_err(|error| error.to_string());
        let tried = self.tried.get_or_insert_with(try_them);
        tried.as_ref().map(|()| OWN.bits()).map_err(String::as_str)
    }
}
