//! UNSAFE. Who goes before others: real-time priority, for as long as somebody waits for a process to die, or to be ready.
#![allow(unsafe_code)]

use super::Child;
use libc::{c_int, pid_t};
use std::fs;
use std::io;

/// A policy of the scheduler, and the priority in it.
pub type Policy = (c_int, c_int);

/// What a process has that nothing was said of.
pub const ORDINARY: Policy = (libc::SCHED_OTHER, 0);

/// The priority with which a swarm's supervisor does what others wait for; none if the swarm file names none, or it is not permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency(Option<c_int>);

impl Urgency {
    /// With the priority that the swarm file names, 1 to 99.
    ///
    /// # Errors
    /// The kernel does not permit it.
    pub fn of(priority: Option<u8>) -> io::Result<Urgency> {
        let Some(priority) = priority.map(c_int::from) else { return Ok(Urgency::default()) };
        // A thread tries: what it gets ends with it.
        let tries = std::thread::Builder::new()
            .name("urgency".into())
            .spawn(move || schedule(0, (libc::SCHED_FIFO, priority)))?;
        tries.join().map_err(|_| io::Error::other("whoever tried it panicked"))??;
        Ok(Urgency(Some(priority)))
    }

    /// Whether there is one.
    pub fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// For this thread, and all that is made by it, from here on. Without the heap.
    pub fn begin(self) {
        if let Some(priority) = self.0 {
            // It was permitted a moment ago.
            let _ = schedule(0, (libc::SCHED_FIFO, priority));
        }
    }

    /// Lets a process go before others. One that is gone has no need of it.
    pub fn hurry(self, child: &Child) {
        if let Some(priority) = self.0.filter(|_| !child.adopted) {
            schedule_all(child.pid, (libc::SCHED_FIFO, priority));
        }
    }

    /// Gives a process the place that it is to have.
    pub fn settle(self, child: &Child, policy: Policy) {
        if self.is_some() && !child.adopted {
            schedule_all(child.pid, policy);
        }
    }
}

/// This process, which was made by one that is urgent, is not.
pub fn be_ordinary() {
    // Giving up what one has is always permitted.
    let _ = schedule(0, ORDINARY);
}

/// All threads of a process, also those that others make meanwhile: they are like who makes them.
fn schedule_all(pid: i32, policy: Policy) {
    for _ in 0..2 {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse::<pid_t>().ok());
        let scheduled = threads.filter(|&thread| schedule(thread, policy).is_ok()).count();
        if scheduled < 2 {
            break;
        }
    }
}

fn schedule(thread: pid_t, (policy, priority): Policy) -> io::Result<()> {
    // By the bare call: some C libraries have none that concerns one thread.
    // SAFETY: the kernel reads one number that lives here: a `sched_param`.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, policy, &raw const priority) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
