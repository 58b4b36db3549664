//! UNSAFE. Makes processes; the only file that forks, so that a keeper can take it over later. How they end is `spawn/end.rs`.
//!
//! A child shares the supervisor's memory until it executes its command (`CLONE_VM | CLONE_VFORK`), so a start costs the
//! same however large the supervisor is, and a command that cannot be executed is told at once. In between the child only
//! makes system calls: default signal handlers, own process group, death with its parent, orphans fall to it, its descriptors, exec.
#![allow(unsafe_code)]

pub use crate::ended::{Ended, Ending, Usage};

use crate::keeper::{self, Link, Word};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};
use rustix::process::{Pid, PidfdFlags};
use shoal_runtime::bootstrap::SECRET_ENV;
use shoal_runtime::journal::Journal;
use shoal_runtime::wire::{CONTROL_ENV, CONTROL_FD};
use shoal_runtime::zygote::{NAME_ENV, ZYGOTE_ENV};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

mod confine;
mod end;
mod urgency;

pub use confine::{Cage, Step, landlock_version, may_unshare};
pub use end::{Stray, kill_tree, reap, signal};
pub use urgency::{ORDINARY, Policy, Urgency, be_ordinary};

/// The environment variable that tells an agent the name of its swarm.
pub const SWARM_ENV: &str = "SHOAL_SWARM";

/// What a child is to be.
pub struct Order {
    /// Program and arguments; the program is a path.
    pub command: Vec<CString>,
    /// Its whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// Its end of the control socket.
    pub control: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// Further descriptors, which it has at the numbers behind the control socket's.
    pub along: Vec<OwnedFd>,
    /// What bounds it.
    pub cage: Arc<Cage>,
}

/// A process that was made, or adopted.
#[derive(Debug)]
pub struct Child {
    /// Its number, valid until it is reaped.
    pub pid: i32,
    /// Readable once it is dead.
    pub pidfd: OwnedFd,
    /// It was not made here: it is never signalled, and its status is for its own parent.
    pub adopted: bool,
}

impl Child {
    /// Whether it is dead, without waiting.
    pub fn is_dead(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut ends = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Whoever made the socket pair that this is one end of.
    ///
    /// # Errors
    /// It is no such socket, or who made it is dead, or has no number in this namespace.
    pub fn adopt(control: impl AsFd) -> io::Result<Child> {
        // Not by rustix, for which a process number is never 0.
        let maker = getsockopt(&control.as_fd(), PeerCredentials)?.pid();
        let maker = Pid::from_raw(maker).ok_or_else(|| {
            io::Error::other(
                "who is at the other end of its socket has no process number here: hand over one end of a socket pair that was \
                 made in the same namespace of process numbers as this supervisor",
            )
        })?;
        let pidfd = rustix::process::pidfd_open(maker, PidfdFlags::empty())?;
        Ok(Child { pid: maker.as_raw_nonzero().get(), pidfd, adopted: true })
    }
}

const STACK_BYTES: usize = 64 * 1024;
/// Descriptors that a child may be given for its start to cost the same however many this process has open.
const SLOTS: usize = 8;
/// How often it is tried to empty one.
const SLOT_TRIES: usize = 4;

/// Makes processes.
pub struct Spawner {
    stack: Vec<u128>,
    null: OwnedFd,
    /// Low numbers, at which a child finds what it is given; in between they are /dev/null.
    slots: Vec<OwnedFd>,
    /// The keeper, where there is one: children are made as its children.
    keeper: Option<Link>,
    /// What tells with it how many supervisors there were, and which of them this is.
    life: Option<(Arc<Journal>, u64)>,
}

/// Everything the child needs, prepared before it exists: it must not allocate.
struct Plan {
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    descriptors: Vec<(RawFd, RawFd)>,
    parent: i32,
    cage: Arc<Cage>,
    /// It begins with its parent's table of descriptors itself and leaves it, with those below this number.
    leaves_from: Option<RawFd>,
    /// Of whom it is made, as in the spawner.
    life: Option<(Arc<Journal>, u64)>,
    step: Step,
    error: c_int,
}

impl Spawner {
    /// Prepares.
    ///
    /// # Errors
    /// /dev/null cannot be opened.
    pub fn new() -> io::Result<Self> {
        let null = OwnedFd::from(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?);
        let slot = |_| fcntl_dupfd_cloexec(&null, CONTROL_FD + SLOTS as RawFd + 1);
        let slots = (0..SLOTS).map(slot).collect::<rustix::io::Result<Vec<_>>>()?;
        Ok(Spawner { stack: vec![0; STACK_BYTES / 16], null, slots, keeper: None, life: None })
    }

    /// From now on processes are made as children of a keeper, whose own child, the first of them, makes them.
    pub fn keep(&mut self, link: Link, journal: Arc<Journal>) {
        (self.keeper, self.life) = (Some(link), Some((journal, 1)));
    }

    /// A supervisor begins: what its predecessor asked the keeper is void.
    pub fn begin_link(&mut self) {
        self.keeper.iter().for_each(Link::begin);
        self.life.iter_mut().for_each(|(journal, number)| *number = keeper::word(journal, Word::Lives));
        // It may have died while a child was made.
        clear(&mut self.slots, &self.null);
    }

    /// Whose children the processes are.
    fn parent(&self) -> i32 {
        let own = || rustix::process::getpid();
        let pid = self.keeper.as_ref().map_or_else(own, |_| rustix::process::getppid().unwrap_or_else(own));
        pid.as_raw_nonzero().get()
    }

    /// Makes a process; returns when it has executed its command.
    ///
    /// # Errors
    /// No process, memory or descriptor left, or the command cannot be executed.
    pub fn spawn(&mut self, order: Order) -> io::Result<Child> {
        let Order { command, environment, control, stdout, stderr, along, cage } = order;
        let pointers = |list: &[CString]| -> Vec<*const c_char> {
            list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
        };
        let given: Vec<&OwnedFd> =
            [&self.null, &stdout, &stderr, &control].into_iter().chain(&along).collect();
        // Where it needs others besides, it gets a copy of the whole table.
        let leaves = given.len() <= SLOTS && !cage.has_descriptors();
        let mut copies = Vec::new();
        let sources: Vec<RawFd> = if leaves {
            fill(&mut self.slots, &self.null, &given)?;
            self.slots.iter().take(given.len()).map(AsRawFd::as_raw_fd).collect()
        } else {
            // Out of the way of the numbers that they are moved to.
            let high = |fd: &&OwnedFd| fcntl_dupfd_cloexec(fd, CONTROL_FD + 10 + along.len() as RawFd);
            copies = given.iter().map(high).collect::<rustix::io::Result<Vec<_>>>()?;
            copies.iter().map(AsRawFd::as_raw_fd).collect()
        };
        let low_end = self.slots.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(0) + 1;
        let descriptors = sources.into_iter().zip(0..).collect();
        let mut plan = Plan {
            argv: pointers(&command),
            envp: pointers(&environment),
            descriptors,
            parent: self.parent(),
            cage,
            leaves_from: leaves.then_some(low_end),
            life: self.life.clone(),
            step: Step::Execute,
            error: 0,
        };
        let made = self.clone_child(&mut plan);
        drop(copies);
        if leaves {
            clear(&mut self.slots, &self.null);
        }
        let child = made?;
        if plan.cage.changes_user() {
            confine::be_dumpable_again();
        }
        if plan.error != 0 {
            self.discard(&child);
            let error = io::Error::from_raw_os_error(plan.error);
            return Err(match plan.step {
                Step::Execute => error,
                step => io::Error::new(error.kind(), format!("{}: {error}", step.text())),
            });
        }
        Ok(child)
    }

    fn clone_child(&mut self, plan: &mut Plan) -> io::Result<Child> {
        let mut before = SigSet::empty();
        // A signal between clone and exec would run the supervisor's handler in the child, with the supervisor's memory.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        let mut pidfd: RawFd = -1;
        let parent = if self.keeper.is_some() { libc::CLONE_PARENT } else { 0 };
        let table = if plan.leaves_from.is_some() { libc::CLONE_FILES } else { 0 };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD | parent | table;
        let top = self.stack.as_mut_ptr_range().end;
        // SAFETY: the child runs `child` on its own stack, with a plan that outlives it: CLONE_VFORK suspends this thread
        // until the child has executed its command or ended. `child` makes system calls only. All signals are blocked.
        let pid = unsafe {
            libc::clone(child, top.cast(), flags, std::ptr::from_mut(plan).cast::<c_void>(), &raw mut pidfd)
        };
        let error = io::Error::last_os_error();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        if pid < 0 {
            return Err(io::Error::new(error.kind(), format!("making a process: {error}")));
        }
        // SAFETY: the kernel has just made this descriptor for this process (CLONE_PIDFD, close-on-exec).
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Child { pid, pidfd, adopted: false })
    }
}

/// Puts what a child is given where it finds it.
fn fill(slots: &mut [OwnedFd], null: &OwnedFd, given: &[&OwnedFd]) -> rustix::io::Result<()> {
    let filled = slots.iter_mut().zip(given).try_for_each(|(slot, fd)| dup3(fd, slot, DupFlags::CLOEXEC));
    filled.inspect_err(|_| clear(slots, null))
}

/// Lets go of what a child was given. A lack that passes is borne: what a slot holds on to would not end with the child.
fn clear(slots: &mut [OwnedFd], null: &OwnedFd) {
    for slot in slots {
        let _ = (0..SLOT_TRIES).find(|_| dup3(null, slot, DupFlags::CLOEXEC).is_ok());
    }
}

/// The child until it executes its command. System calls only: it shares its parent's memory.
extern "C" fn child(plan: *mut c_void) -> c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: `plan` is the parent's, who is suspended; the pointers in it were made from live, terminated lists; every call
    // is a plain system call on numbers of this process.
    unsafe {
        if let Some(from) = (*plan).leaves_from {
            // Before anything else: until here the table is the parent's. What is copied are the numbers below, not the thousands
            // above, each of which would have to be closed.
            let left = libc::syscall(libc::SYS_close_range, from, u32::MAX, libc::CLOSE_RANGE_UNSHARE);
            if left != 0 && libc::unshare(libc::CLONE_FILES) != 0 {
                (*plan).error = *libc::__errno_location();
                libc::_exit(127);
            }
            // Whoever made it may have died before: then what a successor gives its own child lies in the table by now. The keeper
            // writes this word before there is a successor, so who finds it as it was has left the table in time.
            let life = &(*plan).life;
            if life.as_ref().is_some_and(|(journal, own)| keeper::word(journal, Word::Lives) != *own) {
                libc::_exit(127);
            }
        }
        // SIG_DFL without flags or mask, as the kernel lays it out. By the bare call, because libc refuses 32 and 33.
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, size_of::<u64>());
        }
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Whatever it makes and leaves stays below it while it lives, so what falls to its parent is of a dead one.
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        // The parent may have died before the line above.
        if libc::getppid() != (*plan).parent {
            libc::_exit(127);
        }
        if let Err(step) = (*plan).cage.enter() {
            (*plan).step = step;
            (*plan).error = *libc::__errno_location();
            libc::_exit(127);
        }
        let descriptors = &(*plan).descriptors;
        for &(source, target) in descriptors {
            if libc::dup2(source, target) < 0 {
                (*plan).error = *libc::__errno_location();
                libc::_exit(127);
            }
        }
        libc::syscall(libc::SYS_close_range, descriptors.len(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if let Err(step) = (*plan).cage.filter() {
            (*plan).step = step;
            (*plan).error = *libc::__errno_location();
            libc::_exit(127);
        }
        libc::execve((&(*plan).argv)[0], (*plan).argv.as_ptr(), (*plan).envp.as_ptr());
        (*plan).error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// Becomes the one to whom orphaned descendants fall, and asks the kernel to tell no lies about it.
///
/// # Errors
/// The kernel's refusal.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(io::Error::from)
}

/// Whether a variable is one by which a supervisor tells an agent who it is and what it is handed.
pub fn is_told(name: &[u8]) -> bool {
    [CONTROL_ENV, NAME_ENV, SWARM_ENV, ZYGOTE_ENV].iter().any(|told| name == told.as_bytes())
        || name.starts_with(SECRET_ENV.as_bytes())
}

/// The environment of a child: those of this process's own variables that it inherits, without what a service manager told it
/// alone, or another supervisor whose agent it is, changed by `changes`.
///
/// # Errors
/// A name or value with a NUL byte.
pub fn environment(inherits: impl Fn(&[u8]) -> bool, changes: &[(&str, &str)]) -> io::Result<Vec<CString>> {
    use std::os::unix::ffi::OsStrExt;
    let told = |name: &[u8]| crate::notify::VARIABLES.iter().any(|n| name == n.as_bytes());
    let kept = std::env::vars_os().filter(|(name, _)| {
        let name = name.as_bytes();
        inherits(name) && !told(name) && !is_told(name) && !changes.iter().any(|(n, _)| name == n.as_bytes())
    });
    let kept = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let changed = changes.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
    kept.chain(changed).map(|entry| CString::new(entry).map_err(io::Error::other)).collect()
}

/// A C string for a command's part.
///
/// # Errors
/// A NUL byte in it.
pub fn c_string(part: &str) -> io::Result<CString> {
    CString::new(part).map_err(|_| io::Error::other(format!("{part:?} holds a NUL byte")))
}

#[cfg(test)]
mod tests;
