//! UNSAFE. A zygote: a process that initialised once, and is forked for each incarnation of an agent.
//!
//! ```text
//!   supervisor ── order [control socket, standard output, standard error] ──▶ zygote ── fork (CLONE_PARENT) ──▶ child
//!        ▲                                                                                                       │
//!        └────────────────────────── "forked", over the child's own control socket ──────────────────────────────┘
//! ```
//! The zygote has one thread, maps no segment and holds no lane. A child is its sibling: a child of whoever is the parent of all
//! agents, and shares with it what `main` had made before. It has a group of its own, dies with its parent, and holds nothing of the
//! zygote's control or of its siblings; then it attaches as any other process.
//!
//! # If we die here
//! A zygote that dies takes nobody along: its children are not its children. An order that was under way ends with the last holder
//! of the socket that it brought, which the supervisor hears. A child that dies before its word is the same to the supervisor.
#![allow(unsafe_code)]

use crate::large_pages;
use crate::wire::{self, FromAgent, Received, ToAgent};
use rustix::io::{DupFlags, dup3};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setpgid};
use std::ffi::{c_long, c_void};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The environment variable that tells a process that it is one.
pub const ZYGOTE_ENV: &str = "SHOAL_ZYGOTE";
/// The environment variable that holds an agent's name.
pub const NAME_ENV: &str = "SHOAL_AGENT";

/// How often it is looked for threads that have ended and that the kernel still lists, and how long between.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Whether this process was started to be forked.
pub(crate) fn is_one() -> bool {
    std::env::var_os(ZYGOTE_ENV).is_some()
}

/// Serves orders for as long as the zygote lives; returns in a child, with the child's control socket.
///
/// # Errors
/// In the zygote: it has several threads, cannot fork, or the supervisor is gone. In a child: its parent is gone.
pub(crate) fn serve(mut orders: OwnedFd) -> io::Result<OwnedFd> {
    let parent = getppid();
    if let Err(why) = has_one_thread() {
        wire::say(&orders, &FromAgent::Unfit { why: why.clone() }, &[])?;
        return Err(io::Error::other(why));
    }
    let thread = Thread::own();
    large_pages::gather();
    wire::say(&orders, &FromAgent::Forks, &[])?;
    loop {
        let fds = match wire::hear(&orders, true)? {
            Received::Packet(ToAgent::Fork, fds) => fds,
            Received::Packet(..) => {
                return Err(io::Error::other("a zygote was told what only agents are told"));
            }
            Received::Nothing | Received::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let lacking = |_| io::Error::other("an order to fork lacks descriptors (see `ulimit -n`)");
        let [control, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).map_err(lacking)?;
        // What is not written yet would be written by each child.
        let _ = io::stdout().flush();
        if thread.fork()? {
            begin(&mut orders, parent, control, stdout, stderr)?;
            return Ok(orders);
        }
    }
}

/// In a child: becomes a process of its own, and says so.
fn begin(
    orders: &mut OwnedFd,
    parent: Option<Pid>,
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> io::Result<()> {
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    // At the zygote's own number: its socket is closed by this.
    dup3(&control, orders, DupFlags::CLOEXEC)?;
    drop((control, stdout, stderr));
    wire::say(&*orders, &FromAgent::Forked, &[])
}

/// What this process is called from here on, for the programs that it starts, too.
pub(crate) fn be_called(name: &str) {
    // SAFETY: called while a child attaches, which has one thread: the one that forked.
    unsafe {
        std::env::set_var(NAME_ENV, name);
        std::env::remove_var(ZYGOTE_ENV);
    }
}

/// Whether this process has one thread.
fn has_one_thread() -> Result<(), String> {
    let mut threads = count_threads();
    // One that was joined a moment ago may be listed still.
    for _ in 1..LOOKS {
        if !matches!(threads, Ok(2..)) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        threads = count_threads();
    }
    match threads {
        Ok(0..=1) => Ok(()),
        Ok(threads) => Err(format!(
            "this zygote (`prefork`) has {threads} threads before `shoal_agent::run`, and a fork would have only one of them: start \
             threads in the body that `run` is given, or take `prefork` out of the swarm file"
        )),
        Err(error) => Err(format!(
            "whether this zygote (`prefork`) has other threads cannot be told, because /proc/self/task cannot be read ({error}): add \
             \"/proc\" to `landlock.read`, or take `prefork` out of the swarm file"
        )),
    }
}

fn count_threads() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) => {
            // SAFETY: changes nothing in a process with one thread, and is refused in one with several.
            let alone = unsafe { libc::unshare(libc::CLONE_THREAD) };
            match io::Error::last_os_error().raw_os_error() {
                _ if alone == 0 => Ok(1),
                Some(libc::EINVAL) => Ok(2),
                _ => Err(error),
            }
        }
    }
}

/// What the C library has told the kernel about this thread, and a fork by its own means would tell of the child's.
struct Thread {
    /// Where its number is kept; null for nowhere.
    number: *mut c_void,
    /// Its list of robust locks.
    robust: (*mut c_void, usize),
}

impl Thread {
    fn own() -> Thread {
        let mut number: *mut c_void = std::ptr::null_mut();
        let mut robust: (*mut c_void, usize) = (std::ptr::null_mut(), 0);
        // SAFETY: the kernel writes a pointer, and a pointer and a number, into values that live here.
        unsafe {
            // Other libraries keep something else there.
            if cfg!(target_env = "gnu") {
                libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut number);
            }
            libc::syscall(libc::SYS_get_robust_list, 0, &raw mut robust.0, &raw mut robust.1);
        }
        Thread { number, robust }
    }

    /// Forks: true in the child. The handlers of `pthread_atfork` are not run.
    ///
    /// # If we die here
    /// Before the call there is no child; after it there are two processes, neither of which needs the other.
    fn fork(&self) -> io::Result<bool> {
        let number =
            if self.number.is_null() { 0 } else { libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID };
        let flags = c_long::from(libc::CLONE_PARENT | libc::SIGCHLD | number);
        // SAFETY: without a stack of its own and without CLONE_VM this is a fork: the copy goes on here with memory of its own. There is
        // one thread (`has_one_thread`; nothing else runs from there on), so no lock is held by anybody else. The kernel writes the
        // child's number where the C library keeps this thread's, in the child's copy.
        let pid = unsafe {
            #[cfg(target_arch = "x86_64")]
            let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, self.number, 0);
            #[cfg(not(target_arch = "x86_64"))]
            let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, self.number);
            pid
        };
        if pid < 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("forking: {error}")));
        }
        if pid == 0 && !self.robust.0.is_null() {
            // SAFETY: the list that the kernel told of; it is thread-local and lives as long as the thread.
            unsafe { libc::syscall(libc::SYS_set_robust_list, self.robust.0, self.robust.1) };
        }
        if pid == 0 {
            // Whatever it makes and leaves stays below it while it lives, as with every agent: no fork inherits that.
            // SAFETY: a plain call on this process.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        }
        Ok(pid == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_with_a_second_thread_is_told_what_to_do() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || ended.recv());
        let why = has_one_thread().expect_err("several threads");
        assert!(why.contains("threads before `shoal_agent::run`"), "{why}");
        drop(end);
        let _ = other.join();
    }
}
