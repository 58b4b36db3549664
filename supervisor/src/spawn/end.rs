//! How processes end: signals, their status, their burial, and strays, which nobody knows.

use super::{Child, Ended, Ending, Spawner, Usage};
use crate::courtesy::Courtesy;
use rustix::process::{PidfdFlags, Signal};
use shoal_runtime::again::insist;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

impl Spawner {
    /// A process that another made for us: it must be a living child of the one whose children all are, and lead its own group.
    ///
    /// # Errors
    /// It is not, or no descriptor is left.
    pub fn foster(&self, pid: i32) -> io::Result<Child> {
        let other = |what: &str| io::Error::other(format!("process {pid} {what}"));
        let number = rustix::process::Pid::from_raw(pid).ok_or_else(|| other("is none"))?;
        // A child's number is its own until it is reaped, which only we do.
        let pidfd = insist(|| rustix::process::pidfd_open(number, PidfdFlags::empty()))?;
        let waited = match &self.keeper {
            Some(keeper) => keeper.wait(pidfd.as_raw_fd(), true),
            None => crate::keeper::link::wait(pidfd.as_raw_fd(), true),
        };
        match waited {
            Ok(None) => {}
            Ok(Some(_)) => return Err(other("is dead")),
            Err(error) => return Err(other(&format!("is no child of ours: {error}"))),
        }
        match rustix::process::getpgid(Some(number)) {
            Ok(group) if group == number => Ok(Child { pid, pidfd, adopted: false }),
            _ => Err(other("does not lead its own process group")),
        }
    }

    /// How a dead child ended. One that was adopted has left, and may live on. It is to be buried when that is written down.
    ///
    /// # Errors
    /// It is not dead, or not ours.
    pub fn ended(&self, child: &Child) -> io::Result<Ended> {
        match &self.keeper {
            _ if child.adopted => Ok(Ended::unknown(Ending::Exited(0))),
            keeper => {
                let pidfd = child.pidfd.as_raw_fd();
                let own = || crate::keeper::link::wait(pidfd, true);
                let waited = keeper.as_ref().map_or_else(own, |keeper| keeper.wait(pidfd, true))?;
                waited.map(ended_of).ok_or_else(|| io::Error::other("a child is not dead yet"))
            }
        }
    }

    /// Gives the number of a dead child free, if it was not yet.
    pub fn bury(&self, child: Child) {
        match &self.keeper {
            _ if child.adopted => {}
            Some(keeper) => keeper.bury(child.pidfd),
            None => drop(crate::keeper::link::wait(child.pidfd.as_raw_fd(), false)),
        }
    }

    /// Reaps a child that is about to end.
    pub(super) fn discard(&self, child: &Child) {
        let Some(keeper) = &self.keeper else {
            let _ = reap(child);
            return;
        };
        let _ = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN)],
            None,
        );
        let _ = keeper.wait(child.pidfd.as_raw_fd(), false);
    }

    /// Kills what is no child that anybody knows, or reaps it: descendants of agents that were orphaned, and fell to the keeper or to this
    /// process. Returns those that were killed, which are dead soon, and are to be buried then; and whether another had ended before it could be
    /// killed: what that left is to be looked for now, as nobody will hear of its death.
    pub fn end_strays(&self, known: impl Fn(i32) -> bool) -> (Vec<Stray>, bool) {
        let (own, parent) = (std::process::id() as i32, self.parent());
        if let Some(keeper) = &self.keeper {
            keeper.settle();
        }
        let strays = children_of(parent).into_iter().filter(|&pid| pid != own && !known(pid));
        let (mut killed, mut outran) = (Vec::new(), false);
        for pid in strays.filter_map(rustix::process::Pid::from_raw) {
            // Through a pidfd: a number read from a list may have been used again. Only a child can be waited for.
            let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let stray = Stray { pid: pid.as_raw_nonzero().get(), pidfd };
            match self.bury_stray(&stray) {
                Ok(false) => {
                    let _ = rustix::process::pidfd_send_signal(&stray.pidfd, Signal::KILL);
                    killed.push(stray);
                }
                Ok(true) => outran = true,
                Err(_) => {}
            }
        }
        (killed, outran)
    }

    /// Reaps a stray, if it is dead.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn bury_stray(&self, stray: &Stray) -> io::Result<bool> {
        let pidfd = stray.pidfd.as_raw_fd();
        let waited = match &self.keeper {
            Some(keeper) => keeper.wait(pidfd, false),
            None => crate::keeper::link::wait(pidfd, false),
        };
        Ok(waited?.is_some())
    }
}

/// A process that nobody knows, that was killed and not reaped yet.
pub struct Stray {
    /// Its number, which is its own until it is reaped.
    pub pid: i32,
    /// Says when it is dead.
    pub pidfd: OwnedFd,
}

/// Reaps a dead child: from here on its number may be used again. One that was adopted has left, and may live on.
///
/// # Errors
/// It is not dead, or not ours.
pub fn reap(child: &Child) -> io::Result<Ended> {
    if child.adopted {
        return Ok(Ended::unknown(Ending::Exited(0)));
    }
    let mut ends = [rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN)];
    loop {
        if let Some(waited) = crate::keeper::link::wait(child.pidfd.as_raw_fd(), false)? {
            return Ok(ended_of(waited));
        }
        match rustix::event::poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn ended_of(waited: crate::keeper::link::Waited) -> Ended {
    let ending = match waited.code {
        libc::CLD_EXITED => Ending::Exited(waited.status),
        _ => Ending::Signalled(waited.status),
    };
    Ended { ending, usage: Some(usage_of(&waited.usage)), core_dumped: waited.code == libc::CLD_DUMPED }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Usage {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
    }
}

/// Sends SIGKILL to a child and to everything in its process group. The child must not have been reaped yet. An adopted one
/// is left alone.
pub fn kill_tree(child: &Child) {
    if child.adopted {
        return;
    }
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
    if let Some(group) = rustix::process::Pid::from_raw(child.pid) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Sends a signal, by its number, to a child; none to an adopted one.
pub fn signal(child: &Child, number: i32) {
    if child.adopted {
        return;
    }
    let (call, pidfd) = (libc::SYS_pidfd_send_signal, child.pidfd.as_raw_fd());
    // SAFETY: the call takes three numbers and no memory (what would go with the signal is null), and changes nothing in this process.
    // The child outlives it, so the descriptor is open. `rustix` has no name for the signals of real-time use.
    unsafe { libc::syscall(call, pidfd, number, std::ptr::null::<libc::siginfo_t>(), 0) };
}

/// So much of the list of children is read at once: of a thousand the kernel makes it in 0.4 ms.
const CHILDREN_BYTES: usize = 512;

/// The children of a process with one thread, as the kernel lists them. None is to be reaped meanwhile: another would be missed. In between
/// whoever waits for this processor has it.
pub(super) fn children_of(pid: i32) -> Vec<i32> {
    let mut courtesy = Courtesy::default();
    let (mut list, mut piece) = (Vec::new(), [0; CHILDREN_BYTES]);
    let read = File::open(format!("/proc/{pid}/task/{pid}/children")).and_then(|mut children| {
        loop {
            match insist(|| children.read(&mut piece))? {
                0 => return Ok(()),
                CHILDREN_BYTES => {
                    list.extend_from_slice(&piece);
                    courtesy.give_way();
                }
                bytes => list.extend_from_slice(&piece[..bytes]),
            }
        }
    });
    if read.is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&list).split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}
