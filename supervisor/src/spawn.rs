//! UNSAFE. Makes and reaps processes; the only file that forks, so that a keeper can take it over later.
//!
//! A child shares the supervisor's memory until it executes its command (`CLONE_VM | CLONE_VFORK`), so a start costs the
//! same however large the supervisor is, and a command that cannot be executed is told at once. In between the child only
//! makes system calls: default signal handlers, own process group, death with its parent, its descriptors, exec.
#![allow(unsafe_code)]

pub use crate::ended::{Ended, Ending, Usage};

use crate::keeper::Link;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};
use rustix::process::{PidfdFlags, Signal};
use shoal_runtime::again::insist;
use shoal_runtime::wire::CONTROL_FD;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

mod confine;

pub use confine::{Cage, Step, landlock_version};

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
    /// It is no such socket, or who made it is dead.
    pub fn adopt(control: impl AsFd) -> io::Result<Child> {
        let maker = rustix::net::sockopt::socket_peercred(control)?.pid;
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
        Ok(Spawner { stack: vec![0; STACK_BYTES / 16], null, slots, keeper: None })
    }

    /// From now on processes are made as children of a keeper, whose own child makes them.
    pub fn keep(&mut self, link: Link) {
        self.keeper = Some(link);
    }

    /// A supervisor begins: what its predecessor asked the keeper is void.
    pub fn begin_link(&mut self) {
        self.keeper.iter().for_each(Link::begin);
        // It may have died while a child was made.
        clear(&mut self.slots, &self.null);
    }

    /// Whose children the processes are.
    fn parent(&self) -> i32 {
        let own = || rustix::process::getpid();
        let pid = self.keeper.as_ref().map_or_else(own, |_| rustix::process::getppid().unwrap_or_else(own));
        pid.as_raw_nonzero().get()
    }

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
    fn discard(&self, child: &Child) {
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
    /// process. Returns those that were killed: they are dead soon, and are to be buried then.
    pub fn end_strays(&self, known: impl Fn(i32) -> bool) -> Vec<Stray> {
        let (own, parent) = (std::process::id() as i32, self.parent());
        let strays = children_of(parent).into_iter().filter(|&pid| pid != own && !known(pid));
        let mut killed = Vec::new();
        for pid in strays.filter_map(rustix::process::Pid::from_raw) {
            // Through a pidfd: a number read from a list may have been used again. Only a child can be waited for.
            let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let stray = Stray { pid: pid.as_raw_nonzero().get(), pidfd };
            if let Ok(true) = self.bury_stray(&stray).map(|dead| !dead) {
                let _ = rustix::process::pidfd_send_signal(&stray.pidfd, Signal::KILL);
                killed.push(stray);
            }
        }
        killed
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
        }
        // SIG_DFL without flags or mask, as the kernel lays it out. By the bare call, because libc refuses 32 and 33.
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, size_of::<u64>());
        }
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
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

/// Sends a signal to a child; none to an adopted one.
pub fn signal(child: &Child, signal: Signal) {
    if child.adopted {
        return;
    }
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, signal);
}

/// Becomes the one to whom orphaned descendants fall, and asks the kernel to tell no lies about it.
///
/// # Errors
/// The kernel's refusal.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(io::Error::from)
}

/// The children of a process with one thread, as the kernel lists them.
fn children_of(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The environment of a child: those of this process's own variables that it inherits, without what a service manager told it
/// alone, changed by `changes`.
///
/// # Errors
/// A name or value with a NUL byte.
pub fn environment(inherits: impl Fn(&[u8]) -> bool, changes: &[(&str, &str)]) -> io::Result<Vec<CString>> {
    use std::os::unix::ffi::OsStrExt;
    let told = |name: &[u8]| crate::notify::VARIABLES.iter().any(|n| name == n.as_bytes());
    let kept = std::env::vars_os().filter(|(name, _)| {
        let name = name.as_bytes();
        inherits(name) && !told(name) && !changes.iter().any(|(n, _)| name == n.as_bytes())
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
mod tests {
    use super::*;

    fn order(command: &[&str]) -> (Order, OwnedFd, OwnedFd) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let order = Order {
            command: command.iter().map(|c| c_string(c).unwrap()).collect(),
            environment: environment(|_| true, &[("SHOAL_TEST", "yes")]).unwrap(),
            control: theirs.into(),
            stdout: write.try_clone().unwrap(),
            stderr: write,
            along: Vec::new(),
            cage: Arc::default(),
        };
        (order, read, ours.into())
    }

    #[test]
    fn child_costs_no_table_of_descriptors_and_leaves_its_parents_as_it_was() {
        // Goal: a start does not copy, and then close, what this process has open. Method: hundreds of descriptors, a child, and both
        // tables are looked at; its own ends as it ends, so nothing holds its pipe open.
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let mut spawner = Spawner::new().unwrap();
        // Far above its low numbers, which lie where the tests beside this one leave room.
        let low_end = spawner.slots.iter().map(AsRawFd::as_raw_fd).max().unwrap() as usize + 1;
        let far = 512.max(low_end.next_power_of_two() * 4);
        let many: Vec<OwnedFd> =
            (0..400).map(|_| fcntl_dupfd_cloexec(&read, far as RawFd).unwrap()).collect();
        let table = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("FDSize:")).unwrap().trim().to_owned();
            line.parse::<usize>().unwrap()
        };
        let (order, output, _ours) = order(&["/bin/sh", "-c", "echo on; read -r line <&3"]);
        let child = spawner.spawn(order).unwrap();
        let mut word = [0; 3];
        io::Read::read_exact(&mut std::fs::File::from(output.try_clone().unwrap()), &mut word).unwrap();
        assert!(table(std::process::id()) > far && table(child.pid as u32) < far, "its table is small");
        for fd in &many {
            assert_eq!(
                rustix::io::fcntl_getfd(fd),
                Ok(rustix::io::FdFlags::CLOEXEC),
                "the parent's is whole"
            );
        }
        kill_tree(&child);
        io::Read::read_to_end(&mut std::fs::File::from(output), &mut Vec::new()).unwrap();
        assert_eq!(reap(&child).unwrap().ending, Ending::Signalled(9));
        let refused = spawner.spawn(self::order(&["/nowhere/at/all"]).0);
        assert!(refused.is_err());
        let is_null = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_rdev;
        assert!(spawner.slots.iter().all(|slot| is_null(slot) == is_null(&spawner.null)), "nothing is kept");
    }

    fn output_of(command: &[&str]) -> (String, Ending) {
        let (order, read, _ours) = order(command);
        let child = Spawner::new().unwrap().spawn(order).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
        (text, reap(&child).unwrap().ending)
    }

    #[test]
    fn child_has_its_environment_its_descriptors_and_nothing_else() {
        let (text, ending) = output_of(&["/bin/sh", "-c", "echo $SHOAL_TEST; ls /proc/self/fd; exit 3"]);
        assert_eq!(ending, Ending::Exited(3));
        // `ls` itself has one more descriptor: the folder that it lists.
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["yes", "0", "1", "2", "3", "4"]);
    }

    #[test]
    fn child_begins_with_default_handlers_no_blocked_signals_and_its_own_group() {
        // `cat` installs no handlers of its own.
        let (text, _) = output_of(&["/bin/cat", "/proc/self/status", "/proc/self/stat"]);
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        for mask in ["SigBlk:", "SigIgn:", "SigCgt:"] {
            assert_eq!(field(mask), Some("0000000000000000"), "{mask} {text}");
        }
        let stat: Vec<&str> = text.lines().last().unwrap().split(' ').collect();
        assert_eq!(stat[0], stat[4], "it leads its own process group");
    }

    #[test]
    fn command_that_cannot_be_executed_is_an_error_at_once() {
        let (order, _read, _ours) = order(&["/nowhere/at/all"]);
        let error = Spawner::new().unwrap().spawn(order).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn reaping_tells_what_the_child_had_used() {
        let (order, read, _ours) =
            order(&["/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; kill -SEGV $$"]);
        let child = Spawner::new().unwrap().spawn(order).unwrap();
        io::Read::read_to_end(&mut std::fs::File::from(read), &mut Vec::new()).unwrap();
        let Ended { ending, usage, .. } = reap(&child).unwrap();
        let usage = usage.expect("it is our own child");
        assert_eq!(ending, Ending::Signalled(11));
        assert!(usage.user_us + usage.system_us > 1000 && usage.minor_faults > 0, "{usage:?}");
        assert!((200..1 << 20).contains(&usage.max_rss_kib), "{usage:?}");
    }

    #[test]
    fn adopted_process_is_who_made_the_pair_and_is_never_signalled() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let child = Child::adopt(&ours).unwrap();
        assert_eq!(child.pid, std::process::id() as i32);
        // Either would end this test.
        kill_tree(&child);
        signal(&child, Signal::TERM);
        assert_eq!(reap(&child).unwrap().ending, Ending::Exited(0));
    }

    #[test]
    fn killed_child_takes_its_group_along() {
        let (order, read, _ours) = order(&["/bin/sh", "-c", "sleep 1000 & echo started; wait"]);
        let child = Spawner::new().unwrap().spawn(order).unwrap();
        let mut text = [0; 8];
        io::Read::read_exact(&mut std::fs::File::from(read.try_clone().unwrap()), &mut text).unwrap();
        kill_tree(&child);
        // The pipe ends only when the last holder, `sleep`, is gone.
        let mut rest = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(read), &mut rest).unwrap();
        assert_eq!(reap(&child).unwrap().ending, Ending::Signalled(9));
    }
}
