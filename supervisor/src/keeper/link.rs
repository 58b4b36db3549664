//! UNSAFE. What a supervisor asks its keeper, who is the parent of the agents: how a child ended, and to reap it.
//!
//! Packets of fixed words; both ends lie in the table of descriptors that they share, so a child is named by its pidfd's number in it.

use shoal_runtime::again::{insist, is_passing};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Wait for the end of this child, which must be dead, and reap it.
const REAP: u64 = 1;
/// The same, but leave it to be asked again.
const LOOK: u64 = 2;
/// Reap it, close its pidfd, say nothing.
const BURY: u64 = 3;

/// How often a call between the two is made again for want of something.
const LACKS_MAX: u32 = 16;

/// A question.
#[repr(C)]
#[derive(Clone, Copy)]
struct Question {
    number: u64,
    what: u64,
    pidfd: i64,
}

/// An answer: what `waitid` says.
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    number: u64,
    /// 0, an error's number, or -1 when the child is not dead.
    error: i64,
    code: i32,
    status: i32,
    usage: libc::rusage,
}

/// How a child ended, as the kernel says it.
#[derive(Clone, Copy)]
pub struct Waited {
    /// `CLD_EXITED` and the like.
    pub code: i32,
    /// The exit status, or the signal.
    pub status: i32,
    /// What it had used.
    pub usage: libc::rusage,
}

/// Asks the kernel for a child's end, without waiting; `None` when it is not dead.
///
/// # Errors
/// It is no child of this process.
pub fn wait(pidfd: RawFd, leave: bool) -> io::Result<Option<Waited>> {
    let flags = libc::WEXITED | libc::WNOHANG | if leave { libc::WNOWAIT } else { 0 };
    // SAFETY: both are plain numbers, of which all zeros is a value.
    let (mut seen, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    loop {
        // The bare call: the C library's leaves out what the child had used.
        // SAFETY: the kernel fills two structs that live here.
        let done = unsafe {
            libc::syscall(libc::SYS_waitid, libc::P_PIDFD, pidfd, &raw mut seen, flags, &raw mut usage)
        };
        match io::Error::last_os_error() {
            _ if done >= 0 => break,
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
    // SAFETY: `waitid` has filled the part of a child's end, or left all zeros.
    let (pid, status) = unsafe { (seen.si_pid(), seen.si_status()) };
    Ok((pid != 0).then_some(Waited { code: seen.si_code, status, usage }))
}

/// The supervisor's end.
pub struct Link {
    socket: OwnedFd,
    number: AtomicU64,
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Link {
        Link { socket, number: AtomicU64::new(0) }
    }

    /// What a dead supervisor asked and did not hear is void.
    pub fn begin(&self) {
        drain(self.socket.as_raw_fd());
        self.number.store(shoal_runtime::clock::now_ns(), Ordering::Relaxed);
    }

    /// How a child of the keeper ended; `None` when it is not dead. With `leave` it can be asked again, else it is reaped.
    ///
    /// # Errors
    /// It is no child of the keeper, or the keeper does not answer.
    pub fn wait(&self, pidfd: RawFd, leave: bool) -> io::Result<Option<Waited>> {
        let number = self.ask(if leave { LOOK } else { REAP }, pidfd)?;
        let mut lacks = 0;
        loop {
            let mut answer = std::mem::MaybeUninit::<Answer>::uninit();
            // SAFETY: receives at most the answer's size into memory that lives here.
            let got = unsafe {
                libc::recv(self.socket.as_raw_fd(), answer.as_mut_ptr().cast(), size_of::<Answer>(), 0)
            };
            if got < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    // Its answer is on the way, and would be taken for that to the next question.
                    error if is_passing(&error) && lacks < LACKS_MAX => lacks += 1,
                    error => return Err(error),
                }
                continue;
            }
            if got as usize != size_of::<Answer>() {
                return Err(io::Error::other("the keeper answers in another language"));
            }
            // SAFETY: all of it was received, and all of it is plain numbers.
            let answer = unsafe { answer.assume_init() };
            if answer.number != number {
                continue;
            }
            return match answer.error {
                0 => Ok(Some(Waited { code: answer.code, status: answer.status, usage: answer.usage })),
                -1 => Ok(None),
                error => Err(io::Error::from_raw_os_error(error as i32)),
            };
        }
    }

    /// Waits until the keeper has done all that it was asked.
    pub fn settle(&self) {
        // No process has this descriptor; what comes of it answers for all that was asked before.
        let _ = self.wait(-1, true);
    }

    /// Has a dead child reaped, and its pidfd closed: from here on both numbers may be used again.
    pub fn bury(&self, pidfd: OwnedFd) {
        use std::os::fd::IntoRawFd;
        // The keeper closes it, in the table that it shares with us.
        let _ = self.ask(BURY, pidfd.into_raw_fd());
    }

    fn ask(&self, what: u64, pidfd: RawFd) -> io::Result<u64> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let question = Question { number, what, pidfd: i64::from(pidfd) };
        insist(|| {
            // SAFETY: bytes of a struct of plain numbers that lives here.
            let sent = unsafe {
                libc::send(
                    self.socket.as_raw_fd(),
                    (&raw const question).cast(),
                    size_of::<Question>(),
                    libc::MSG_NOSIGNAL,
                )
            };
            if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
        })
    }
}

/// The keeper's side: answers what was asked. No heap.
pub(super) fn serve(socket: RawFd) {
    loop {
        let mut question = Question { number: 0, what: 0, pidfd: -1 };
        let size = size_of::<Question>();
        // SAFETY: receives at most its size into a struct of plain numbers that lives here.
        let got = unsafe { libc::recv(socket, (&raw mut question).cast(), size, libc::MSG_DONTWAIT) };
        if got as usize != size {
            return;
        }
        let pidfd = question.pidfd as RawFd;
        let waited = wait(pidfd, question.what == LOOK);
        if question.what == BURY {
            // SAFETY: the supervisor has given it away (`Link::bury`), and the table is shared.
            unsafe { libc::close(pidfd) };
            continue;
        }
        // SAFETY: plain numbers, of which all zeros is a value.
        let nothing: libc::rusage = unsafe { std::mem::zeroed() };
        let mut answer = Answer { number: question.number, error: 0, code: 0, status: 0, usage: nothing };
        match waited {
            Ok(Some(Waited { code, status, usage })) => {
                (answer.code, answer.status, answer.usage) = (code, status, usage);
            }
            Ok(None) => answer.error = -1,
            Err(error) => answer.error = i64::from(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
        let (from, size) = ((&raw const answer).cast(), size_of::<Answer>());
        // Who asked waits for it.
        for _ in 0..=LACKS_MAX {
            // SAFETY: bytes of a struct of plain numbers that lives here.
            let sent = unsafe { libc::send(socket, from, size, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
            if sent >= 0 || !is_passing(&io::Error::last_os_error()) {
                break;
            }
        }
    }
}

/// Forgets what lies in a socket.
pub(super) fn drain(socket: RawFd) {
    let mut bytes = [0u8; size_of::<Answer>()];
    // SAFETY: receives into bytes that live here.
    while unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) } > 0 {}
}
