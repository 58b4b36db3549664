//! UNSAFE. Who outlives a supervisor: the keeper, which forks the next one; and the guard, which outlives the keeper.
//!
//! ```text
//!   the shell's process ── guard    waits; its death ends everything, and so does the keeper's
//!        └─ keeper                  parent of everything; holds every descriptor; forks the supervisor again when that dies
//!             ├─ supervisor         shares the keeper's table of descriptors, and nothing else of its memory but the
//!             │                     journal, the board and the claim tables
//!             ├─ agent …            cloned by the supervisor as its siblings; they die with the keeper
//!             └─ orphaned descendants of agents
//! ```
//! Before the split everything is made that exists before any agent: swarm file, topology, board, control socket. A supervisor is a
//! copy of the keeper (`clone` without an address space of its own choosing: copy on write), so a successor has all of it as it was then,
//! and the journal says what came since: what happened to agents, and what the swarm was changed to (`swarm/stand.rs`). The table of descriptors is *shared* (`CLONE_FILES`): what a supervisor opens is open in the
//! keeper, under the same number, when that supervisor is gone. So nothing has to be handed over, agents never read an end of file, and
//! the keeper needs to know of no descriptor at all.
//!
//! The keeper uses no heap after the split, and reads nothing but fixed-size words, and the numbers of its children, as the kernel lists them,
//! to end these; but when the guard is dead and all are ended, it puts away what the guard would have. What it does for the supervisor is what
//! only a parent can: ask how a child ended, and reap it (`keeper/link.rs` asks). All of it is here, in `tree.rs`, and in `link.rs` what serves. Decision: docs/decisions/0010.
#![allow(unsafe_code)]

mod guard;
pub mod link;
pub mod table;
mod tree;
mod words;

use crate::ended::Ending;
use crate::log::LastWords;
use crate::spawn::Urgency;
use libc::{c_int, pid_t};
use shoal_runtime::journal::Journal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

pub use guard::{End, guard};
pub use link::Link;
pub use tree::end_children;
use words::note_ended;
pub use words::{TOLD_MAX, Word, ended, note_told, set_word, told, word};

/// When the keeper gives up.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Everything ends when the supervisor dies (`orphans = "kill"`).
    pub end_with_supervisor: bool,
    /// So many supervisors in a row may die as soon as they are started.
    pub short_lives_max: u32,
    /// With which priority keeper and supervisors run.
    pub urgency: Urgency,
    /// How it is said that it does.
    pub words: LastWords<'a>,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Terms {
            end_with_supervisor: false,
            short_lives_max: 50,
            urgency: Urgency::default(),
            words: LastWords::default(),
        }
    }
}

/// A supervisor that lived so long ends the row of short lives, ns.
const SHORT_LIFE_NS: u64 = 100_000_000;

/// Which supervisor a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// From 1: whoever is not the first takes over.
    pub number: u64,
}

/// Exit status when supervisors die too often, or the keeper cannot go on.
const GAVE_UP: u8 = 1;
/// Exit status of a supervisor that panicked.
pub const PANICKED: u8 = 101;
/// Exit status of a supervisor that could not take over for want of something.
pub const LACKED: u8 = 102;

/// Ends this supervisor for want of something that the next one may find: as any death, it has a successor.
pub fn leave_to_next() -> ! {
    // What it holds stays open for that.
    exit(LACKED)
}

/// What the guard and the keeper have in common before they part.
pub struct Split {
    /// The keeper's end.
    keepers: OwnedFd,
    /// The supervisor's end.
    supervisors: OwnedFd,
    guard: OwnedFd,
    children: OwnedFd,
}

impl Split {
    /// Prepares, and makes this process the guard. The thread that calls it must be the only one.
    ///
    /// # Errors
    /// No descriptors left, or the kernel refuses to let us be the parent of orphans.
    pub fn prepare() -> io::Result<Split> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (keepers, supervisors) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        let guard =
            rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
        crate::spawn::become_subreaper()?;
        let mask = child_died();
        // SAFETY: a plain call with a set that lives here; -1 asks for a new descriptor.
        let children = unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if children < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for this process, and nobody else knows its number.
        let children = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(children) };
        Ok(Split { keepers, supervisors, guard, children })
    }

    /// What the supervisor asks its keeper with.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn link(&self) -> io::Result<Link> {
        Ok(Link::new(self.supervisors.try_clone()?))
    }

    /// Splits this process: the caller goes on as the guard, with the keeper's process number. In each supervisor `supervise` is
    /// called, and its result is the exit status of everything. When the guard dies the keeper ends everything, and then calls
    /// `sweep`.
    ///
    /// # Errors
    /// No process left.
    pub fn part(
        self,
        terms: Terms<'_>,
        journal: &Journal,
        supervise: impl FnOnce(Life) -> u8,
        sweep: impl FnOnce(),
    ) -> io::Result<pid_t> {
        // What is buffered would be printed by each copy.
        let _ = io::Write::flush(&mut io::stdout());
        // What reading the swarm file took and left would be copied with each.
        crate::thrift::trim_heap();
        know_processor();
        // SAFETY: there is one thread (`prepare`), so the copy is whole.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => keep(&self, terms, journal, supervise, sweep),
            keeper => {
                // What it holds is for supervisors: here it would be taken down.
                std::mem::forget(supervise);
                Ok(keeper)
            }
        }
    }
}

/// What the processor can is asked once, for all copies: each would ask anew, and a virtual machine asks its host, 0.1 ms and more, in which
/// nobody else has the processor.
fn know_processor() {
    #[cfg(target_arch = "x86_64")]
    let _ = std::is_x86_feature_detected!("avx2");
}

fn child_died() -> libc::sigset_t {
    // SAFETY: a set of signals is plain bits, filled by the calls below.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// The keeper's life. No heap from here on.
fn keep(
    split: &Split,
    terms: Terms<'_>,
    journal: &Journal,
    supervise: impl FnOnce(Life) -> u8,
    sweep: impl FnOnce(),
) -> ! {
    let mask = child_died();
    // SAFETY: plain calls on this process: out of the terminal's group, so that what is typed there reaches the guard alone; deaths of
    // children are told by a descriptor; orphans fall to this process; a name that `ps` shows.
    unsafe {
        libc::setpgid(0, 0);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"shoal-keeper".as_ptr());
    }
    // Each supervisor inherits it.
    terms.urgency.begin();
    let words = terms.words;
    let (mut number, mut short_lives) = (0, 0);
    // Dead, and to be reaped once it has a successor: the kernel takes milliseconds for one that has asked for thousands of paths below /proc.
    let mut former = None;
    loop {
        number += 1;
        set_word(journal, Word::Lives, number);
        let born_ns = shoal_runtime::clock::now_ns();
        let mut supervisor = clone_supervisor();
        if supervisor < 0 && reap(&mut former) {
            supervisor = clone_supervisor();
        }
        if supervisor == 0 {
            let status = become_supervisor().map_or(GAVE_UP, |()| supervise(Life { number }));
            std::process::exit(status.into());
        }
        if supervisor < 0 {
            give_up(words, "no process is left for a supervisor: everything is ended");
        }
        set_word(journal, Word::Supervisor, supervisor as u64);
        reap(&mut former);
        let Some(ended) = watch(split, supervisor) else {
            // The guard is dead: the swarm has nobody who would wait for it.
            tree::end_children();
            sweep();
            exit(GAVE_UP);
        };
        set_word(journal, Word::Supervisor, 0);
        let now_ns = shoal_runtime::clock::now_ns();
        if let Some(status) = word(journal, Word::Over).checked_sub(1) {
            // Killed while it let go of what it held, perhaps: a successor would let go of it again.
            tree::end_children();
            exit(status as u8);
        }
        match ended {
            // A panic is a death, too, and so is a lack.
            Ending::Exited(status) if ![PANICKED, LACKED].map(c_int::from).contains(&status) => {
                tree::end_children();
                exit(status as u8);
            }
            Ending::Signalled(libc::SIGKILL) => {
                set_word(journal, Word::Kills, word(journal, Word::Kills) + 1)
            }
            Ending::Exited(_) | Ending::Signalled(_) => {}
        }
        set_word(journal, Word::DiedAt, now_ns);
        note_ended(journal, ended);
        former = Some(supervisor);
        short_lives = if now_ns - born_ns < SHORT_LIFE_NS { short_lives + 1 } else { 0 };
        if terms.end_with_supervisor {
            give_up(words, "the supervisor died, and `orphans = \"kill\"`: everything is ended");
        }
        if short_lives > terms.short_lives_max {
            give_up(words, "supervisors die as soon as they are started: everything is ended");
        }
        // What it asked and did not hear is void.
        link::drain(split.keepers.as_raw_fd());
    }
}

/// Reaps a former supervisor; false when there is none.
fn reap(former: &mut Option<pid_t>) -> bool {
    former.take().is_some_and(|dead| tree::reap_if_dead(dead).is_some())
}

/// A copy of this process that shares its table of descriptors; 0 in the copy.
fn clone_supervisor() -> pid_t {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without a stack of its own and without CLONE_VM this is a fork: the copy goes on here with memory of its own. There is one
    // thread, so no lock is held by anybody else. What `fork` of the C library does besides (its own handlers) nobody here asked for.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as pid_t }
}

/// In the copy: it dies with the keeper, and hears of signals as before.
fn become_supervisor() -> io::Result<()> {
    // A panic is a death as any other. Unwinding would close what the successor is to find open in the table.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        exit(PANICKED);
    }));
    let mask = child_died();
    // SAFETY: plain calls on this process.
    unsafe {
        let keeper = libc::getppid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0);
        libc::prctl(libc::PR_SET_NAME, c"shoal-superv".as_ptr());
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const mask, std::ptr::null_mut());
        // The keeper may have died before the second line: then this process fell to the guard.
        if libc::getppid() != keeper {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    Ok(())
}

/// Serves the supervisor until it is dead, and to be reaped: how it ended. `None` when the guard is dead.
fn watch(split: &Split, supervisor: pid_t) -> Option<Ending> {
    let (requests, children) = (split.keepers.as_raw_fd(), split.children.as_raw_fd());
    let watched = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [watched(requests), watched(children), watched(split.guard.as_raw_fd())];
    loop {
        // SAFETY: the three entries live here.
        unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) };
        if fds[2].revents != 0 {
            return None;
        }
        if fds[0].revents != 0 {
            link::serve(requests);
        }
        if fds[1].revents != 0 {
            let mut told = [0u8; 128 * 8];
            // SAFETY: reads into bytes that live here; the descriptor never blocks.
            unsafe { libc::read(children, told.as_mut_ptr().cast(), told.len()) };
        }
        if let Some(ended) = tree::ended(supervisor) {
            return Some(ended);
        }
    }
}

fn give_up(words: LastWords<'_>, why: &str) -> ! {
    words.say_briefly(why);
    tree::end_children();
    exit(GAVE_UP)
}

/// Ends this process without a word to anybody: what it holds is the guard's to remove.
fn exit(status: u8) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(status.into()) }
}
