//! UNSAFE. What a child does to itself between its making and its command, so that it is bounded from its first instruction on.
//!
//! It shares the supervisor's memory until then, so this makes system calls only, by their bare numbers where the C library would
//! do more (changing the user there tells all threads of the supervisor). What is needed was prepared by `crate::confine`.
#![allow(unsafe_code)]

use super::urgency::Policy;
use libc::{c_int, c_long, c_ulong};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Everything prepared for one agent's processes; used for each of its starts.
#[derive(Debug, Default)]
pub struct Cage {
    /// `cgroup.procs` of the cgroups that it joins.
    pub cgroups: Vec<OwnedFd>,
    /// `cgroup.kill` of one of them, where there is such a thing.
    pub kill: Option<OwnedFd>,
    /// The namespaces that it makes for itself, as flags of the kernel; 0 for none.
    pub namespaces: c_int,
    /// Resource and bound, soft and hard alike.
    pub rlimits: Vec<(u32, u64)>,
    /// Niceness.
    pub nice: Option<i32>,
    /// Policy and priority, if they are not to be its parent's.
    pub scheduling: Option<Policy>,
    /// The processors that it may run on, as the kernel's mask; empty for all.
    pub cpus: Vec<u64>,
    /// User and group.
    pub identity: Option<(u32, u32)>,
    /// The working folder.
    pub cwd: Option<CString>,
    /// Whether it gives up every capability.
    pub drops_capabilities: bool,
    /// Whether it can gain no rights.
    pub no_new_privs: bool,
    /// The landlock rules.
    pub landlock: Option<OwnedFd>,
    /// The filters of system calls, in the order in which they are set.
    pub filters: Vec<Vec<libc::sock_filter>>,
}

/// What a child was doing when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Executing the command.
    Execute = 0,
    /// Joining a cgroup.
    Cgroup,
    /// Making namespaces.
    Namespaces,
    /// Setting a bound.
    Limit,
    /// Setting niceness, policy or processors.
    Schedule,
    /// Changing the folder.
    Folder,
    /// Changing user and group.
    Identity,
    /// Giving up rights.
    Rights,
    /// Restricting paths.
    Landlock,
    /// Filtering system calls.
    Seccomp,
}

impl Step {
    /// What it was doing, in words.
    pub fn text(self) -> &'static str {
        match self {
            Step::Execute => "executing its command",
            Step::Cgroup => "joining its cgroup",
            Step::Namespaces => "making its namespaces",
            Step::Limit => "setting its `limits`",
            Step::Schedule => "setting its nice, scheduling or cpus of `limits`",
            Step::Folder => "changing to its `cwd`",
            Step::Identity => "changing to its `user`",
            Step::Rights => "giving up rights (`no_new_privs`)",
            Step::Landlock => "restricting its paths (`landlock`)",
            Step::Seccomp => "filtering its system calls (`seccomp`)",
        }
    }

    /// All.
    pub const ALL: [Step; 10] = [
        Step::Execute,
        Step::Cgroup,
        Step::Namespaces,
        Step::Limit,
        Step::Schedule,
        Step::Folder,
        Step::Identity,
        Step::Rights,
        Step::Landlock,
        Step::Seccomp,
    ];
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// More than the kernel knows: it refuses the first that it does not.
const CAPABILITIES_MAX: c_long = 64;

impl Cage {
    /// Bounds this process, but for its filters. In a child that shares its parent's memory.
    ///
    /// # Errors
    /// The step that the kernel refused; its reason is in `errno`.
    ///
    /// # Safety
    /// Only in a child before it executes its command; its parent is suspended and keeps `self`.
    pub(super) unsafe fn enter(&self) -> Result<(), Step> {
        // SAFETY: plain system calls on numbers of this process and on memory of `self`, which lives as long as the call.
        unsafe {
            for group in &self.cgroups {
                // 0 stands for whoever writes.
                asked(libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) as c_long, Step::Cgroup)?;
            }
            if self.namespaces != 0 {
                asked(libc::syscall(libc::SYS_unshare, self.namespaces), Step::Namespaces)?;
            }
            for &(resource, bound) in &self.rlimits {
                let limit = [bound, bound];
                let none = std::ptr::null_mut::<u64>();
                asked(libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), none), Step::Limit)?;
            }
            self.schedule()?;
            self.leave_user()?;
            if let Some(cwd) = &self.cwd {
                asked(libc::syscall(libc::SYS_chdir, cwd.as_ptr()), Step::Folder)?;
            }
            if self.drops_capabilities {
                for capability in 0..CAPABILITIES_MAX {
                    if libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                        // Unknown from here on, or none to drop them with.
                        break;
                    }
                }
                let (header, none) = ([CAPABILITY_VERSION_3, 0], [0u32; 6]);
                asked(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()), Step::Rights)?;
            }
            if self.no_new_privs {
                asked(libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Step::Rights)?;
            }
            if let Some(rules) = &self.landlock {
                asked(libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0), Step::Landlock)?;
            }
        }
        Ok(())
    }

    unsafe fn schedule(&self) -> Result<(), Step> {
        // SAFETY: as in `enter`.
        unsafe {
            if !self.cpus.is_empty() {
                let bytes = size_of_val(&self.cpus[..]);
                asked(
                    libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, self.cpus.as_ptr()),
                    Step::Schedule,
                )?;
            }
            if let Some(nice) = self.nice {
                asked(libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice), Step::Schedule)?;
            }
            if let Some((policy, priority)) = self.scheduling {
                let parameter = [priority];
                let set = libc::syscall(libc::SYS_sched_setscheduler, 0, policy, parameter.as_ptr());
                asked(set, Step::Schedule)?;
            }
        }
        Ok(())
    }

    unsafe fn leave_user(&self) -> Result<(), Step> {
        let Some((uid, gid)) = self.identity else { return Ok(()) };
        // SAFETY: as in `enter`; the bare calls change this task only.
        unsafe {
            asked(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), Step::Identity)?;
            asked(libc::syscall(libc::SYS_setresgid, gid, gid, gid), Step::Identity)?;
            asked(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Step::Identity)?;
            // The kernel forgot it with the old user.
            asked(
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0),
                Step::Identity,
            )?;
        }
        Ok(())
    }

    /// Sets the filters: from here on nothing but executing the command and ending is sure to be allowed.
    ///
    /// # Errors
    /// As `enter`.
    ///
    /// # Safety
    /// As `enter`.
    pub(super) unsafe fn filter(&self) -> Result<(), Step> {
        for filter in &self.filters {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            // SAFETY: as in `enter`; the kernel copies the program.
            let set = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
            };
            asked(set, Step::Seccomp)?;
        }
        Ok(())
    }

    /// Whether a child needs descriptors of this process for it.
    pub fn has_descriptors(&self) -> bool {
        !self.cgroups.is_empty() || self.landlock.is_some()
    }

    /// Whether the child changes its user: then the kernel marks the memory that it shares as not dumpable.
    pub fn changes_user(&self) -> bool {
        self.identity.is_some()
    }
}

fn asked(result: c_long, step: Step) -> Result<(), Step> {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// Makes this process dumpable again: a child that changed its user while it shared this memory has taken that away, and with it
/// our own files in /proc.
pub(super) fn be_dumpable_again() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}

/// Whether a child may make these namespaces: one tries, which does nothing else.
///
/// # Errors
/// The kernel's refusal, of the namespaces or of the child.
pub fn may_unshare(namespaces: c_int) -> io::Result<()> {
    // Nobody is told of its end, but who waits for it by its number.
    let no_flags: c_ulong = 0;
    // SAFETY: without CLONE_VM the child has a copy of all memory; it makes two system calls, the second of which ends it.
    let pid = unsafe {
        match libc::syscall(libc::SYS_clone, no_flags, 0, 0, 0, 0) {
            0 => libc::_exit(match libc::unshare(namespaces) {
                0 => 0,
                _ => *libc::__errno_location(),
            }),
            pid => pid as libc::pid_t,
        }
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    loop {
        return match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => continue,
            Err(error) => Err(error.into()),
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
            Ok(_) => Err(io::Error::other("whoever tried them was killed")),
        };
    }
}

/// The kernel's version of landlock; 0 where there is none.
pub fn landlock_version() -> i32 {
    // SAFETY: asks for the version only; no memory is involved.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1 /* the version */)
    };
    version.max(0) as i32
}
