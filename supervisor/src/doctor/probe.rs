//! UNSAFE. Tries what the kernel gives, one thing after the other, and says what each lack means. What would change the
//! process that tries it is tried in a child, `shoal doctor-probe WHAT`, which says by its exit status whether it worked.
#![allow(unsafe_code)]

use super::{Finding, Weight};
use crate::config;
use crate::confine;
use crate::log::report;
use crate::spawn::{self, Order, Spawner, c_string, environment};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use shoal_runtime::image::Origin;
use shoal_runtime::layout::SegmentShape;
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Proof};
use shoal_runtime::{Incarnation, clock, sync};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

const GROUP: &str = "kernel";

/// What is tried: its name, how, what its lack means for swarms, and in words.
type Probe = (&'static str, fn() -> Result<String, String>, Weight, &'static str);

const PROBES: [Probe; 17] = [
    (
        "processes in /proc",
        proc_mounted,
        Weight::Stops,
        "mount /proc: shared memory is reopened read-only through it",
    ),
    (
        "sealed memory and the proof of death",
        segments,
        Weight::Stops,
        "memfd_create with F_SEAL_FUTURE_WRITE (Linux 5.1) is what makes a dead agent's memory final: use a newer kernel, or a sandbox that has it",
    ),
    (
        "memory that cannot be executed",
        noexec,
        Weight::Limits,
        "MFD_NOEXEC_SEAL came with Linux 6.3: without it an agent could execute what lies in its own segment",
    ),
    (
        "handles of processes",
        pidfds,
        Weight::Stops,
        "pidfd_open, waitid(P_PIDFD) (Linux 5.4): without them nobody knows who died",
    ),
    (
        "spawning",
        spawning,
        Weight::Stops,
        "clone with CLONE_VFORK and CLONE_PIDFD (Linux 5.2): without it no agent can be started",
    ),
    (
        "children for one's parent",
        sister,
        Weight::Limits,
        "CLONE_PARENT is refused: a supervisor cannot make its agents the children of its keeper, so they end with it",
    ),
    (
        "adopting orphans",
        || child("subreaper"),
        Weight::Limits,
        "PR_SET_CHILD_SUBREAPER is refused: processes that agents leave behind are not found and ended",
    ),
    (
        "fencing other processes",
        membarrier,
        Weight::Limits,
        "membarrier is lacking or filtered: each publish costs a fence of its own, some 10 ns",
    ),
    (
        "control groups for limits",
        confine::try_cgroups,
        Weight::Limits,
        "without them `limits.memory` bounds each process of an agent instead of all together, `limits.processes` counts all that its user \
         runs (as root: is not applied), and `limits.cpu` is not applied. Run under systemd with Delegate=yes, or `systemd-run --user --scope -p Delegate=yes`",
    ),
    (
        "rules for paths (landlock)",
        landlock,
        Weight::Limits,
        "agents cannot be confined to paths: enable it with lsm=landlock,… on the kernel's command line",
    ),
    (
        "filters for system calls (seccomp)",
        seccomp,
        Weight::Limits,
        "agents cannot be confined to system calls",
    ),
    (
        "user namespaces",
        || child("user-namespace"),
        Weight::Limits,
        "agents cannot be put into namespaces by an ordinary user: see kernel.unprivileged_userns_clone, user.max_user_namespaces or \
         kernel.apparmor_restrict_unprivileged_userns",
    ),
    (
        "real-time priority",
        || child("real-time"),
        Weight::Note,
        "not permitted: under load a recovery waits for its turn. RLIMIT_RTPRIO (LimitRTPRIO= of a unit) permits it",
    ),
    ("faults handled by a process (userfaultfd)", userfaultfd, Weight::Note, "nothing here needs it"),
    (
        "a clock without system calls",
        clocks,
        Weight::Limits,
        "reading the clock costs a system call: sampled latencies and deadlines cost more. See \
         /sys/devices/system/clocksource/clocksource0/available_clocksource",
    ),
    (
        "large pages for who asks",
        large_pages,
        Weight::Note,
        "agents with megabytes of their own take longer to end, and so to come back: write `madvise` into \
         /sys/kernel/mm/transparent_hugepage/enabled",
    ),
    (
        "processors",
        processors,
        Weight::Note,
        "agents that wait for each other on one processor switch for every message: a message takes microseconds, not a tenth of one",
    ),
];

/// Tries everything.
pub fn kernel() -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut findings = vec![Finding::fine(GROUP, "release", format!("Linux {release}"))];
    findings.extend(PROBES.iter().map(|(what, probe, weight, advice)| match probe() {
        Ok(found) => Finding::fine(GROUP, *what, found),
        Err(found) => Finding::lack(GROUP, *what, *weight, found, *advice),
    }));
    findings
}

fn said(doing: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{doing}: {error}")
}

fn proc_mounted() -> Result<String, String> {
    fs::read_link("/proc/self/exe").map(|_| "mounted".into()).map_err(said("/proc/self/exe"))
}

/// The whole life of a segment: made, mapped, sealed, reopened; its writer is seen while it maps it, and then is not.
fn segments() -> Result<String, String> {
    let shape = SegmentShape { lanes: Vec::new(), input_count: 1, state_bytes: 0 };
    let who = Incarnation { agent: 0, generation: 1 };
    let begins = Place { position: 0, sequence: 0 };
    let origin =
        Origin { swarm: 1, incarnation: who, lanes: Vec::new(), inputs: vec![begins], state: Vec::new() };
    let fd = segment::create(&shape, &origin).map_err(|e| e.to_string())?;
    let region = segment::attach(&fd, &shape, who).map_err(|e| e.to_string())?;
    segment::seal_live(&fd).map_err(|e| e.to_string())?;
    if rustix::io::pwrite(&fd, b"x", 0).is_ok() {
        return Err("a sealed segment can be written nevertheless".into());
    }
    let reopened = segment::reopen_read_only(&fd).map_err(|e| e.to_string())?;
    segment::view(&reopened, &shape, who).map_err(|e| e.to_string())?;
    if segment::prove_dead(&fd).map_err(|e| e.to_string())? != Proof::StillWritable {
        return Err("a living writer was not seen".into());
    }
    drop(region);
    match segment::prove_dead(&fd).map_err(|e| e.to_string())? {
        Proof::Dead => {
            Ok("F_SEAL_FUTURE_WRITE holds, F_SEAL_WRITE tells a living writer from a dead one".into())
        }
        Proof::StillWritable => Err("a writer that is gone is still seen".into()),
    }
}

fn noexec() -> Result<String, String> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC
        | rustix::fs::MemfdFlags::ALLOW_SEALING
        | rustix::fs::MemfdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    rustix::fs::memfd_create("shoal-doctor", flags)
        .map(|_| "MFD_NOEXEC_SEAL is known".into())
        .map_err(|error| format!("memfd_create: {error}"))
}

/// A child that does nothing, or one thing, and ends.
fn probe_child(what: &str) -> Result<std::process::Child, String> {
    let binary = config::own_binary()?;
    Command::new(binary)
        .args(["doctor-probe", what])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(said("starting a process to try it in"))
}

fn child(what: &str) -> Result<String, String> {
    let output = probe_child(what)?.wait_with_output().map_err(said("waiting for it"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false if output.stderr.is_empty() => Err(format!("it ended with {}", output.status)),
        false => Err(text(&output.stderr)),
    }
}

fn pidfds() -> Result<String, String> {
    let mut process = probe_child("wait")?;
    let tried = (|| {
        let pid = Pid::from_raw(process.id() as i32).ok_or("no process number")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| format!("pidfd_open: {e}"))?;
        pidfd_send_signal(&pidfd, Signal::KILL).map_err(|e| format!("pidfd_send_signal: {e}"))?;
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        match status.map_err(|e| format!("waitid: {e}"))?.and_then(|status| status.terminating_signal()) {
            Some(9) => Ok("opened, signalled, and waited for".to_owned()),
            other => Err(format!("a killed process ended with signal {other:?}")),
        }
    })();
    // Ended already where all went well.
    let _ = process.kill();
    let _ = process.wait();
    tried
}

fn spawning() -> Result<String, String> {
    let words = ["doctor-probe", "nothing"];
    let binary = config::own_binary()?;
    let command = std::iter::once(binary.as_str()).chain(words).map(c_string).collect::<io::Result<_>>();
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(said("a socket pair"))?;
    let null = || fs::OpenOptions::new().write(true).open("/dev/null").map(OwnedFd::from);
    let order = Order {
        command: command.map_err(said("its command"))?,
        environment: environment(|_| true, &[]).map_err(said("its environment"))?,
        control: theirs.into(),
        stdout: null().map_err(said("/dev/null"))?,
        stderr: null().map_err(said("/dev/null"))?,
        along: Vec::new(),
        cage: Default::default(),
    };
    let began = Instant::now();
    let child = Spawner::new().and_then(|mut spawner| spawner.spawn(order)).map_err(said("clone"))?;
    let took = began.elapsed();
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    status.map_err(|e| format!("waitid: {e}"))?;
    let ending = spawn::reap(&child).map_err(said("reaping"))?;
    match ending.ending {
        spawn::Ending::Exited(0) => Ok(format!("a process executes its command after {took:.0?}")),
        other => Err(format!("a process that does nothing {other}")),
    }
}

/// A child of ours makes another one for us: it is ours only if we can wait for it.
fn sister() -> Result<String, String> {
    let made = child("clone-parent")?;
    let pid = made.parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("no process: {made:?}"))?;
    match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
        Ok(Some(status)) if status.exit_status() == Some(0) => Ok("made, and waited for".into()),
        Ok(_) => Err("the process that was made ended otherwise".into()),
        Err(error) => Err(format!("waiting for the process that was made: {error}")),
    }
}

fn membarrier() -> Result<String, String> {
    match sync::can_fence_peers() {
        true => Ok("membarrier, global expedited".into()),
        false => Err("membarrier knows no global expedited fences".into()),
    }
}

fn landlock() -> Result<String, String> {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag and no attributes the call reads nothing and only returns a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    match version {
        1.. => Ok(format!("version {version}")),
        _ => Err(format!("landlock_create_ruleset: {}", io::Error::last_os_error())),
    }
}

fn seccomp() -> Result<String, String> {
    const GET_ACTION_AVAIL: libc::c_ulong = 2;
    for (action, name) in [(0x8000_0000_u32, "kill process"), (0x7fc0_0000, "notify a process")] {
        // SAFETY: the kernel reads four bytes of `action`, which lives until the call returns.
        let answer = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
        if answer != 0 {
            return Err(format!("\"{name}\" is not known: {}", io::Error::last_os_error()));
        }
    }
    Ok("kill process and notify are known".into())
}

fn userfaultfd() -> Result<String, String> {
    const USER_MODE_ONLY: libc::c_int = 1;
    // SAFETY: the call makes a descriptor, or refuses; it touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
    match i32::try_from(fd) {
        Ok(fd @ 0..) => {
            // SAFETY: the kernel has just made this descriptor for this process; nobody else knows it.
            drop(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
            Ok("permitted".into())
        }
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

fn clocks() -> Result<String, String> {
    const READS: u32 = 10_000;
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.map_or("unknown".to_owned(), |name| name.trim().to_owned());
    let began_ns = clock::now_ns();
    (0..READS).for_each(|_| _ = std::hint::black_box(clock::now_ns()));
    let each_ns = (clock::now_ns() - began_ns) / u64::from(READS);
    let found =
        format!("{source}, {each_ns} ns a read, coarse ticks of {} ms", clock::coarse_tick_ns() / 1_000_000);
    // These are read in user mode; others ask the kernel.
    let fast =
        ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&source.as_str());
    if fast { Ok(found) } else { Err(found) }
}

fn processors() -> Result<String, String> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count > 1 { Ok(format!("{count}")) } else { Err("one".into()) }
}

fn large_pages() -> Result<String, String> {
    let said = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let said = said.map_err(|_| "this kernel has none".to_owned())?;
    let chosen = said.split(['[', ']']).nth(1).unwrap_or("unknown");
    let text = format!("transparent huge pages are set to `{chosen}`");
    if matches!(chosen, "madvise" | "always") { Ok(text) } else { Err(text) }
}

/// Tries one thing in this process, which ends then.
pub fn child_main(what: &str) -> ExitCode {
    let tried = match what {
        "nothing" => Ok(String::new()),
        "wait" => wait_for_ever(),
        "subreaper" => spawn::become_subreaper().map(|()| "permitted".into()).map_err(|e| e.to_string()),
        "clone-parent" => clone_parent(),
        "user-namespace" => user_namespace(),
        "real-time" => real_time(),
        _ => Err(format!("no such probe: {what:?}")),
    };
    match tried {
        Ok(found) => {
            // Who tries it reads this, or is gone.
            let _ = crate::cli::print(format!("{found}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            report!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn wait_for_ever() -> Result<String, String> {
    // Until the parent kills it, or is gone: its end of the pipe closes then.
    let out = io::stdout();
    let mut fds = [rustix::event::PollFd::new(&out, rustix::event::PollFlags::empty())];
    rustix::event::poll(&mut fds, None).map(|_| String::new()).map_err(|e| e.to_string())
}

/// A process that is the sister of this one: its parent is this one's, who waits for it.
fn clone_parent() -> Result<String, String> {
    let mut pidfd: libc::c_int = -1;
    let flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as libc::c_ulong;
    // SAFETY: without CLONE_VM the child has a copy of all memory, and this process has one thread; the child does nothing but
    // end. The kernel writes one descriptor to `pidfd`, which lives here.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match pid {
        // SAFETY: ends this process at once; nothing of its copied memory is used any more.
        0 => unsafe { libc::_exit(0) },
        1.. => Ok(pid.to_string()),
        _ => Err(format!("clone with CLONE_PARENT: {}", io::Error::last_os_error())),
    }
}

fn user_namespace() -> Result<String, String> {
    // SAFETY: this process has one thread and ends after this; no memory is touched.
    match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
        0 => Ok("permitted".into()),
        _ => Err(format!("unshare(CLONE_NEWUSER): {}", io::Error::last_os_error())),
    }
}

fn real_time() -> Result<String, String> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads `lowest`, which lives until the call returns.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) } {
        0 => Ok("permitted".into()),
        _ => Err(format!("sched_setscheduler: {}", io::Error::last_os_error())),
    }
}
