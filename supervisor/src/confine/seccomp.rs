//! The profiles of system calls, compiled before any process is made.
//!
//! `default` refuses (EPERM) what one process uses to reach into another, into the kernel or into the machine. `strict` ends whoever
//! calls anything that an agent does not need. Both keep two promises that Shoal's memory needs:
//! - seals are added only together with the one against writing, which the kernel grants when nobody maps the memory for writing:
//!   who could add the final seal alone could make its own death unprovable;
//! - no descriptor is made blocking: doorbells are shared, and a full one that blocks would hold whoever rings it.

use crate::config::Profile;
use libc::{c_long, sock_filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters of a profile, in the order in which they are set; none on a kind of processor that has no list here.
///
/// # Errors
/// Our own bug.
pub(super) fn filters(profile: Profile) -> io::Result<Vec<Vec<sock_filter>>> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(Vec::new()) };
    let filter = |rules, otherwise, then| compile(rules, otherwise, then, arch).map_err(io::Error::other);
    let refused = |number: i32| SeccompAction::Errno(number as u32);
    // Its flags lie in memory, where no filter looks; the C library goes on with `clone`.
    let clone3 = || Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok(match profile {
        Profile::None => Vec::new(),
        Profile::Default => vec![
            filter(default_refuses()?, SeccompAction::Allow, refused(libc::EPERM))?,
            filter(clone3(), SeccompAction::Allow, refused(libc::ENOSYS))?,
            no_other_numbers(),
        ],
        Profile::Strict => vec![
            // What the C library tries and does without.
            filter(clone3(), SeccompAction::Allow, refused(libc::ENOSYS))?,
            filter(strict_allows()?, SeccompAction::KillProcess, SeccompAction::Allow)?,
        ],
    })
}

/// Refuses numbers of the kernel's other interface on x86_64 (x32), which a list of refused numbers does not name. Where there is
/// none it refuses what nobody calls.
fn no_other_numbers() -> Vec<sock_filter> {
    const X32: u32 = 0x4000_0000;
    let line = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number is the first word of what a filter sees.
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        line(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    then: SeccompAction,
    arch: TargetArch,
) -> Result<Vec<sock_filter>, Box<dyn std::error::Error + Send + Sync>> {
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, then, arch)?.try_into()?;
    let kernels = |i: seccompiler::sock_filter| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    Ok(program.into_iter().map(kernels).collect())
}

fn condition(argument: u8, op: Op, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, Len::Dword, op, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

const SEAL_WRITE: u64 = libc::F_SEAL_WRITE as u64;
const NONBLOCK: u64 = libc::O_NONBLOCK as u64;
const ADD_SEALS: u64 = libc::F_ADD_SEALS as u64;
const SET_FLAGS: u64 = libc::F_SETFL as u64;
/// Flags of `clone` that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// What `default` refuses.
fn default_refuses() -> io::Result<Rules> {
    let mut rules: Rules = REACHES_OUT.iter().map(|call| (*call, Vec::new())).collect();
    let without = |command: u64, flag: u64| -> io::Result<SeccompRule> {
        rule(vec![condition(1, Op::Eq, command)?, condition(2, Op::MaskedEq(flag), 0)?])
    };
    rules.insert(libc::SYS_fcntl, vec![without(ADD_SEALS, SEAL_WRITE)?, without(SET_FLAGS, NONBLOCK)?]);
    rules.insert(libc::SYS_ioctl, ioctls()?.into_iter().collect());
    rules.extend(of_others()?);
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = *flag as u64;
        rule(vec![condition(0, Op::MaskedEq(flag), flag)?])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<io::Result<_>>()?);
    Ok(rules)
}

/// What changes other processes of the same user, which no right but the user's guards: each thread may change itself, by 0.
fn of_others() -> io::Result<Rules> {
    let other = |argument: u8| rule(vec![condition(argument, Op::Ne, 0)?]);
    let users = |which: u32| rule(vec![condition(0, Op::Eq, u64::from(which))?]);
    let mut rules = Rules::new();
    for call in BY_PID {
        rules.insert(*call, vec![other(0)?]);
    }
    rules.insert(libc::SYS_setpriority, vec![other(1)?, users(libc::PRIO_USER)?]);
    rules.insert(libc::SYS_ioprio_set, vec![other(1)?, users(IOPRIO_WHO_USER)?]);
    Ok(rules)
}

/// Calls whose first argument is the process that they change.
const BY_PID: &[c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_migrate_pages,
];
const IOPRIO_WHO_USER: u32 = 3;

/// Requests that change how somebody else's descriptor behaves, or push input into a terminal.
fn ioctls() -> io::Result<Vec<SeccompRule>> {
    let of = |request: u64| rule(vec![condition(1, Op::Eq, request)?]);
    [libc::FIONBIO, libc::TIOCSTI].into_iter().map(of).collect()
}

/// What `strict` allows.
fn strict_allows() -> io::Result<Rules> {
    let mut rules: Rules = NEEDED.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(NEEDED_X86_64.iter().map(|call| (*call, Vec::new())));
    let with = |command: u64, flag: u64| -> io::Result<SeccompRule> {
        rule(vec![condition(1, Op::Eq, command)?, condition(2, Op::MaskedEq(flag), flag)?])
    };
    let others = rule(vec![condition(1, Op::Ne, ADD_SEALS)?, condition(1, Op::Ne, SET_FLAGS)?])?;
    rules.insert(libc::SYS_fcntl, vec![others, with(ADD_SEALS, SEAL_WRITE)?, with(SET_FLAGS, NONBLOCK)?]);
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![condition(0, Op::Eq, 0)?])?]);
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![rule(vec![condition(0, Op::MaskedEq(thread), thread)?])?]);
    // Anonymous memory that is shared counts for nobody: memory is private, or a descriptor's.
    let both = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
    let anonymous = libc::MAP_ANONYMOUS as u64;
    let kinds = [libc::MAP_PRIVATE as u64 | anonymous, libc::MAP_PRIVATE as u64, libc::MAP_SHARED as u64];
    let maps = kinds.into_iter().map(|kind| rule(vec![condition(3, Op::MaskedEq(both | 2), kind)?]));
    rules.insert(libc::SYS_mmap, maps.collect::<io::Result<_>>()?);
    Ok(rules)
}

/// By which a process reaches into another, into the kernel or into the machine.
const REACHES_OUT: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// What an agent of the SDK, the C library and Rust's run time need, from the command's execution to the end.
const NEEDED: &[c_long] = &[
    libc::SYS_execve,
    // Refused as unknown by the filter before.
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Signals reach nobody outside of the agent: landlock, and a user of its own.
    libc::SYS_tgkill,
];

/// The older forms, which the C library of this kind of processor still uses.
#[cfg(target_arch = "x86_64")]
const NEEDED_X86_64: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_access,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_time,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_compiles_and_none_is_empty() {
        assert!(filters(Profile::None).expect("compiled").is_empty());
        for profile in [Profile::Default, Profile::Strict] {
            let filters = filters(profile).expect("compiled");
            assert!(filters.len() >= 2);
            // The kernel takes 4096 instructions of each at most.
            assert!(filters.iter().all(|f| (3..4096).contains(&f.len())));
        }
    }

    #[test]
    fn nothing_that_reaches_out_is_needed() {
        let both: Vec<_> = REACHES_OUT.iter().filter(|call| NEEDED.contains(call)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
