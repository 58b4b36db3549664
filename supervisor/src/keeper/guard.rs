//! The guard: the process that was started, which waits for the keeper, and ends what that left.

use super::tree;
use crate::ended::Ending;
use libc::{c_int, pid_t};

/// How it ended, as the guard sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With this exit status, of the last supervisor or, when that cannot be, of the keeper.
    Status(u8),
    /// The keeper was killed by this signal, and everything with it.
    KeeperKilled(c_int),
}

/// Waits for the keeper, then ends what it left: for the guard. `beside` is called at the times that it asks for.
pub fn guard(keeper: pid_t, mut beside: impl FnMut() -> Option<std::time::Duration>) -> End {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = rustix::process::Pid::from_raw(keeper);
    let pidfd =
        pid.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    let ended = loop {
        let pause = beside();
        match (&pidfd, pause) {
            (Some(pidfd), pause) => {
                let pause =
                    pause.map(|p| Timespec { tv_sec: p.as_secs() as i64, tv_nsec: p.subsec_nanos().into() });
                let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], pause.as_ref());
            }
            (None, pause) => std::thread::sleep(pause.unwrap_or(std::time::Duration::from_millis(20))),
        }
        if let Some(ended) = tree::reap_if_dead(keeper) {
            break ended;
        }
    };
    tree::end_children();
    match ended {
        Ending::Exited(status) => End::Status(status as u8),
        Ending::Signalled(signal) => End::KeeperKilled(signal),
    }
}
