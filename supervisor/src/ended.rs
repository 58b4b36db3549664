//! How a process ended and what it had used: what reaping it tells.

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(status) => write!(f, "exited with status {status}"),
            Ending::Signalled(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// The name of a signal, as `SIGSEGV`.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(signal).ok().map(nix::sys::signal::Signal::as_str)
}

/// Whether a process can be sent this signal: one with a name, or of those for real-time use, without the C library's own.
pub fn is_signal(number: i32) -> bool {
    signal_name(number).is_some() || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number)
}

/// What a process and the children that it had waited for have used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in its own code, µs.
    pub user_us: u64,
    /// Processor time in the kernel for it, µs.
    pub system_us: u64,
    /// The most memory it had at once.
    pub max_rss_kib: u64,
    /// Pages that were mapped without reading them.
    pub minor_faults: u64,
    /// Pages that had to be read.
    pub major_faults: u64,
    /// How often it waited by itself.
    pub voluntary_switches: u64,
    /// How often it was made to wait.
    pub involuntary_switches: u64,
}

/// A process that is dead and reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// How it ended.
    pub ending: Ending,
    /// What it had used; nothing is known of one that was adopted.
    pub usage: Option<Usage>,
    /// Whether the kernel wrote a core of it.
    pub core_dumped: bool,
}

impl Ended {
    /// Of this ending only this much is known.
    pub fn unknown(ending: Ending) -> Ended {
        Ended { ending, usage: None, core_dumped: false }
    }
}
