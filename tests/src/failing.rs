//! UNSAFE. A command of which one system call fails, by the kernel's own word: seccomp asks us about each that may fail, and we let it
//! be, count it, or answer it with an error; or with the death of the supervisor that makes it. Only processes of the command's own program count: agents, which inherit the filter, go on.
#![allow(unsafe_code)]

use crate::{Running, Stage};
use libc::{SYS_openat, c_long, sock_filter};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A call that may fail, and in which ways it is made to.
type Call = (c_long, &'static str, &'static [i32]);

const NO_DESCRIPTOR: &[i32] = &[libc::EMFILE, libc::ENOMEM];
const NO_ROOM: &[i32] = &[libc::ENOSPC, libc::EINTR, libc::ENOMEM];
const NOT_NOW: &[i32] = &[libc::EAGAIN, libc::ENOMEM, libc::EINTR];
const NO_MEMORY: &[i32] = &[libc::ENOMEM];
const NO_FOLDER: &[i32] = &[libc::ENOSPC, libc::ENOMEM];
const INTERRUPTED: &[i32] = &[libc::EINTR];

/// Whatever of a supervisor's calls may fail for want of something, or be interrupted.
const CALLS: &[Call] = &[
    (SYS_openat, "openat", &[libc::EMFILE, libc::ENOMEM, libc::EINTR, libc::ENOSPC]),
    (libc::SYS_mmap, "mmap", NO_MEMORY),
    (libc::SYS_mprotect, "mprotect", NO_MEMORY),
    (libc::SYS_memfd_create, "memfd_create", NO_DESCRIPTOR),
    (libc::SYS_ftruncate, "ftruncate", NO_ROOM),
    (libc::SYS_fallocate, "fallocate", NO_ROOM),
    (libc::SYS_socket, "socket", NO_DESCRIPTOR),
    (libc::SYS_socketpair, "socketpair", NO_DESCRIPTOR),
    (libc::SYS_bind, "bind", NO_FOLDER),
    (libc::SYS_accept4, "accept4", &[libc::EMFILE, libc::EINTR, libc::ENOMEM]),
    (libc::SYS_sendmsg, "sendmsg", NOT_NOW),
    (libc::SYS_sendto, "sendto", NOT_NOW),
    (libc::SYS_recvmsg, "recvmsg", NOT_NOW),
    (libc::SYS_recvfrom, "recvfrom", NOT_NOW),
    (libc::SYS_pidfd_open, "pidfd_open", NO_DESCRIPTOR),
    (libc::SYS_clone, "clone", &[libc::EAGAIN, libc::ENOMEM]),
    (libc::SYS_clone3, "clone3", &[libc::EAGAIN, libc::ENOMEM]),
    (libc::SYS_execve, "execve", &[libc::EAGAIN, libc::ENOMEM]),
    (libc::SYS_eventfd2, "eventfd2", NO_DESCRIPTOR),
    (libc::SYS_signalfd4, "signalfd4", NO_DESCRIPTOR),
    (libc::SYS_timerfd_create, "timerfd_create", NO_DESCRIPTOR),
    (libc::SYS_pipe2, "pipe2", NO_DESCRIPTOR),
    (libc::SYS_epoll_create1, "epoll_create1", NO_DESCRIPTOR),
    (libc::SYS_epoll_ctl, "epoll_ctl", &[libc::ENOMEM, libc::ENOSPC]),
    (libc::SYS_epoll_pwait, "epoll_pwait", INTERRUPTED),
    (libc::SYS_epoll_pwait2, "epoll_pwait2", INTERRUPTED),
    (libc::SYS_ppoll, "ppoll", INTERRUPTED),
    (libc::SYS_wait4, "wait4", INTERRUPTED),
    (libc::SYS_waitid, "waitid", INTERRUPTED),
    (libc::SYS_read, "read", INTERRUPTED),
    (libc::SYS_write, "write", NO_ROOM),
    (libc::SYS_writev, "writev", NO_ROOM),
    (libc::SYS_fcntl, "fcntl", NO_DESCRIPTOR),
    (libc::SYS_ioctl, "ioctl", NO_MEMORY),
    (libc::SYS_getdents64, "getdents64", NO_MEMORY),
    (libc::SYS_mkdirat, "mkdirat", NO_FOLDER),
    (libc::SYS_renameat, "renameat", NO_FOLDER),
    (libc::SYS_renameat2, "renameat2", NO_FOLDER),
    (libc::SYS_unlinkat, "unlinkat", NO_MEMORY),
    (libc::SYS_statx, "statx", NO_MEMORY),
    (libc::SYS_dup3, "dup3", &[libc::EMFILE, libc::EINTR]),
    (libc::SYS_flock, "flock", &[libc::EINTR, libc::ENOMEM]),
    (libc::SYS_unshare, "unshare", &[libc::ENOSPC, libc::ENOMEM]),
    (libc::SYS_prctl, "prctl", NO_MEMORY),
    (libc::SYS_prlimit64, "prlimit64", &[libc::EPERM]),
];

/// Those that only older kernels' numbers have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[Call] = &[
    (libc::SYS_open, "open", NO_DESCRIPTOR),
    (libc::SYS_mkdir, "mkdir", NO_FOLDER),
    (libc::SYS_rename, "rename", NO_FOLDER),
    (libc::SYS_unlink, "unlink", NO_MEMORY),
    (libc::SYS_poll, "poll", INTERRUPTED),
    (libc::SYS_epoll_wait, "epoll_wait", INTERRUPTED),
    (libc::SYS_dup2, "dup2", &[libc::EMFILE, libc::EINTR]),
    (libc::SYS_fork, "fork", &[libc::EAGAIN, libc::ENOMEM]),
    (libc::SYS_vfork, "vfork", &[libc::EAGAIN, libc::ENOMEM]),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[Call] = &[];

/// Most ways in which any call is made to fail.
pub const WAYS_MAX: usize = 4;

/// Which call fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the call, from 0 on, among all that may fail.
    pub nth: u64,
    /// The way.
    pub way: usize,
    /// Whether a call that has fewer ways takes one of them nevertheless; else it takes none.
    pub wraps: bool,
}

/// A call that was made to fail.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its name.
    pub call: &'static str,
    /// The error that it was given.
    pub errno: i32,
    /// The process, by the name that it had then.
    pub by: String,
}

/// The death of a supervisor at one of its calls.
#[derive(Clone, Debug, Default)]
struct Death {
    /// Calls count from when a file of this name is opened, or memory of this name is made; none: nobody dies.
    from: Option<String>,
    /// How many are still made; `None` before that.
    left: Option<u64>,
    nth: u64,
}

/// Calls of supervisors that lack something.
#[derive(Clone, Copy, Debug, Default)]
struct Lack {
    call: &'static str,
    /// How many more fail.
    left: u64,
}

/// The calls of a command.
pub struct Failing {
    lack: Arc<Mutex<Lack>>,
    death: Arc<Mutex<Death>>,
    seen: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<Failed>>>,
    judge: Option<std::thread::JoinHandle<io::Result<()>>>,
}

/// Whose calls count, and from when.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The program.
    pub program: PathBuf,
    /// Calls count from when a file of this name is opened: what the loader does before is not the program's.
    pub from: String,
}

impl Failing {
    /// Starts something whose calls, and those of all its descendants, are judged.
    ///
    /// # Errors
    /// The kernel has no such filters, or they are not allowed.
    pub fn start<R: Send>(
        counted: Counted,
        fault: Option<Fault>,
        start: impl FnOnce() -> R + Send,
    ) -> io::Result<(R, Failing)> {
        let (seen, failed) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Option<Failed>>>::default());
        let (death, lack) = (Arc::<Mutex<Death>>::default(), Arc::<Mutex<Lack>>::default());
        let (seen_by_all, failed_once) = (seen.clone(), failed.clone());
        let (ordered, lacked) = (death.clone(), lack.clone());
        let mut judge = Judge {
            counted,
            fault,
            begun: false,
            seen: seen_by_all,
            failed: failed_once,
            death: ordered,
            lack: lacked,
        };
        let (hand_over, take) = std::sync::mpsc::sync_channel::<OwnedFd>(1);
        // The judge must not be judged, so it is there before the filter, which is one thread's and its children's.
        let judge = std::thread::spawn(move || match take.recv() {
            Ok(listener) => judge.judge(&listener),
            Err(_) => Ok(()),
        });
        let started = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    hand_over.send(filter_this_thread()?).map_err(io::Error::other)?;
                    Ok(start())
                })
                .join()
                .map_err(|_| io::Error::other("the start panicked"))?
        });
        started.map(|started: R| (started, Failing { lack, death, seen, failed, judge: Some(judge) }))
    }

    /// `shoal run` of a stage's `swarm.toml`, whose calls count from when it opens that.
    ///
    /// # Panics
    /// There are no such filters.
    pub fn run<'s>(stage: &'s Stage, file: &Path, fault: Option<Fault>) -> (Running<'s>, Failing) {
        let counted = Counted { program: stage.program(), from: "swarm.toml".to_owned() };
        Failing::start(counted, fault, || stage.run(file)).expect("filters of system calls")
    }

    /// Orders a supervisor's death, once: by SIGKILL, instead of its `nth` call after it opened a file whose path ends so, or made
    /// memory whose name does.
    ///
    /// # Panics
    /// When the judge did.
    pub fn kill_supervisor_at(&self, nth: u64, from: &str) {
        let death = Death { from: Some(from.to_owned()), left: None, nth };
        *self.death.lock().expect("nobody panics with it") = death;
    }

    /// Lets the next so many calls of a name that supervisors make meet a lack of memory.
    ///
    /// # Panics
    /// When the judge did.
    pub fn lack(&self, call: &'static str, times: u64) {
        *self.lack.lock().expect("nobody panics with it") = Lack { call, left: times };
    }

    /// How many of them are still to come.
    ///
    /// # Panics
    /// When the judge did.
    pub fn still_lacking(&self) -> u64 {
        self.lack.lock().expect("nobody panics with it").left
    }

    /// Takes the order back; whether it was carried out.
    ///
    /// # Panics
    /// When the judge did.
    pub fn spare_supervisor(&self) -> bool {
        std::mem::take(&mut *self.death.lock().expect("nobody panics with it")).from.is_none()
    }

    /// How many calls were counted so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// What was made to fail, if it came to that.
    ///
    /// # Panics
    /// When the judge did.
    pub fn failed(&self) -> Option<Failed> {
        self.failed.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Failing {
    /// Waits until nobody is left whose calls are judged; one that fails leaves them with an error that tells it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.judge.take().map(|judge| judge.join());
        }
    }
}

/// Decides about each call.
struct Judge {
    counted: Counted,
    fault: Option<Fault>,
    begun: bool,
    seen: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<Failed>>>,
    death: Arc<Mutex<Death>>,
    lack: Arc<Mutex<Lack>>,
}

impl Judge {
    /// Until nobody has the filter any more.
    fn judge(&mut self, listener: &OwnedFd) -> io::Result<()> {
        loop {
            let mut ends = [libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            // SAFETY: one entry, which lives here.
            unsafe { libc::poll(ends.as_mut_ptr(), 1, -1) };
            if ends[0].revents & libc::POLLIN == 0 {
                return Ok(());
            }
            let Some(asked) = received(listener)? else { continue };
            let errno = self.verdict(&asked);
            answer(listener, asked.id, errno)?;
        }
    }

    /// The error that a call is to end with; 0 to let it be.
    fn verdict(&mut self, asked: &libc::seccomp_notif) -> i32 {
        let place = Path::new("/proc").join(asked.pid.to_string());
        if std::fs::read_link(place.join("exe")).ok().as_ref() != Some(&self.counted.program) {
            return 0;
        }
        let number = c_long::from(asked.data.nr);
        let call = CALLS.iter().chain(OLDER).find(|(of, ..)| *of == number);
        let Some((_, name, errors)) = call else { return 0 };
        // That never fails, and the tests know processes by their names.
        if number == libc::SYS_prctl && asked.data.args[0] == libc::PR_SET_NAME as u64 {
            return 0;
        }
        self.begun |=
            number == SYS_openat && text_at(&place, asked.data.args[1]).ends_with(&self.counted.from);
        if !self.begun {
            return 0;
        }
        self.end(&place, asked);
        if self.is_lacking(&place, name) {
            return libc::ENOMEM;
        }
        let nth = self.seen.fetch_add(1, Ordering::Relaxed);
        let way = |fault: Fault| if fault.wraps { fault.way % errors.len() } else { fault.way };
        let fault = self.fault.filter(|fault| fault.nth == nth);
        let Some(errno) = fault.and_then(|fault| errors.get(way(fault)).copied()) else { return 0 };
        let by = std::fs::read_to_string(place.join("comm")).unwrap_or_default().trim_end().to_owned();
        if let Ok(mut failed) = self.failed.lock() {
            *failed = Some(Failed { call: name, errno, by });
        }
        errno
    }
}

impl Judge {
    /// Whether it is the turn of a supervisor to lack something.
    fn is_lacking(&self, place: &Path, call: &str) -> bool {
        let Ok(mut lack) = self.lack.lock() else { return false };
        let its = lack.left > 0 && lack.call == call && is_supervisor(place);
        lack.left -= u64::from(its);
        its
    }

    /// Kills the supervisor that asks, if it is its turn: it never hears the answer.
    fn end(&self, place: &Path, asked: &libc::seccomp_notif) {
        let Ok(mut death) = self.death.lock() else { return };
        let Death { from: Some(from), left, nth } = &mut *death else { return };
        let opens = match c_long::from(asked.data.nr) {
            libc::SYS_openat => Some(asked.data.args[1]),
            libc::SYS_memfd_create => Some(asked.data.args[0]),
            _ => None,
        };
        let opened = |at| text_at(place, at).ends_with(from.as_str());
        match left {
            None if opens.is_some_and(opened) && is_supervisor(place) => *left = Some(*nth),
            Some(left) if is_supervisor(place) => match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    // SAFETY: a plain call. Who asks waits for the answer, so the number is its own.
                    unsafe { libc::kill(asked.pid as i32, libc::SIGKILL) };
                    *death = Death::default();
                }
            },
            _ => {}
        }
    }
}

/// Whether a process is a supervisor, by the name that it has then.
fn is_supervisor(process: &Path) -> bool {
    std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "shoal-superv\n")
}

/// The beginning of a text in another process's memory.
fn text_at(process: &Path, at: u64) -> String {
    let mut bytes = [0; 256];
    let memory = std::fs::File::open(process.join("mem"));
    let got = memory.and_then(|memory| memory.read_at(&mut bytes, at)).unwrap_or(0);
    let text = bytes[..got].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn received(listener: &OwnedFd) -> io::Result<Option<libc::seccomp_notif>> {
    // SAFETY: plain numbers, of which all zeros is a value; the kernel wants them so.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a struct that lives here.
    let got = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    match got {
        0 => Ok(Some(asked)),
        _ => match io::Error::last_os_error() {
            // Who asked is dead.
            error if [Some(libc::ENOENT), Some(libc::EINTR)].contains(&error.raw_os_error()) => Ok(None),
            error => Err(error),
        },
    }
}

fn answer(listener: &OwnedFd, id: u64, errno: i32) -> io::Result<()> {
    let flags = if errno == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags };
    // SAFETY: the kernel reads a struct that lives here.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// From now on the calls of this thread, and of whatever it starts, are asked about at the descriptor that is returned.
fn filter_this_thread() -> io::Result<OwnedFd> {
    let line = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word.
    let mut program = vec![line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    let calls: Vec<_> = CALLS.iter().chain(OLDER).collect();
    for (index, (number, ..)) in calls.iter().enumerate() {
        let to_ask = (calls.len() - index) as u8;
        program.push(line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_ask, 0, *number as u32));
    }
    program.push(line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: plain calls; the program lives until they return, and the kernel makes a copy of it.
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}
