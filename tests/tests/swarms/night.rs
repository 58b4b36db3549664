//! A swarm in which nobody does anything: it costs its supervisor nothing, and whoever is rung is seen to.

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use shoal_tests::{stage, traces, until};
use std::fs;
use std::os::fd::OwnedFd;

/// Whether a process waits in its epoll for as long as it takes: without a timer.
fn waits_for_ever(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let words: Vec<&str> = call.split_whitespace().collect();
    let number = |at: usize| -> Option<i64> {
        let word = words.get(at)?;
        match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(|word| word as i64),
            None => word.parse().ok(),
        }
    };
    match number(0) {
        Some(libc::SYS_epoll_pwait) => number(4).is_some_and(|timeout| timeout as i32 == -1),
        Some(libc::SYS_epoll_pwait2) => number(4) == Some(0),
        _ => false,
    }
}

/// The eventfds of a process: its doorbell, and those of its peers.
fn doorbells(pid: i32) -> Vec<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid).expect("a process"), PidfdFlags::empty()).expect("it lives");
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
    let is_bell = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("[eventfd"))
    };
    let number = |fd: fs::DirEntry| fd.file_name().to_string_lossy().parse().expect("a number");
    let get = |fd| pidfd_getfd(&process, number(fd), PidfdGetfdFlags::empty()).expect("its doorbell");
    fds.filter(is_bell).map(get).collect()
}

/// Goal: a supervisor of agents that all sleep, some of them with a deadline, does not turn its loop: no timer. A ring wakes it, and when
/// nothing comes of that, it is night again. Method: the kernel says in which call it waits, and for how long; agents' doorbells are rung
/// from outside, of which nobody tells the supervisor, nor does a question for what it knows.
#[test]
fn supervisor_of_agents_that_all_sleep_has_no_timer_until_one_of_them_is_rung() {
    let stage = stage!("night");
    let idle = |own: &str, other: &str, more: &str| {
        format!(
            "[channel.{own}x0]\nmessage = \"Beat\"\ncapacity = \"64 KiB\"\n[agent.{own}]\n\
             command = [\"BIN/shoal-under-test\", \"agent\", \"bench\", \"idle\", \"1\", \"{own}\", \"{other}\"]\n\
             publishes = [\"{own}x0\"]\nsubscribes = [\"{other}x0\"]\n{more}\n"
        )
    };
    let agents = [
        // Whoever is ready waits for no time-out of its start.
        idle("a", "b", "ready_timeout = \"1h\""),
        idle("b", "a", "deadline = \"100ms\""),
        idle("c", "d", "trust = \"isolated\""),
        idle("d", "c", "trust = \"hostile\""),
    ];
    let file = stage.write("night.toml", &format!("[swarm]\nname = \"NAME\"\n{}", agents.concat()));
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    let [a, b, supervisor] =
        [shoal.pid_of("a"), shoal.pid_of("b"), shoal.supervisor().expect("a supervisor")];
    for rung in [a, b, a] {
        until("the night", || waits_for_ever(supervisor).then_some(()));
        let before = traces::sleeps(supervisor);
        for bell in doorbells(rung) {
            rustix::io::write(&bell, &1u64.to_ne_bytes()).expect("rung");
        }
        until("the day", || (traces::sleeps(supervisor) > before).then_some(()));
    }
    until("the night", || waits_for_ever(supervisor).then_some(()));
    // Who takes over watches by day first.
    shoal.succeed();
    let supervisor = shoal.supervisor().expect("a supervisor");
    until("the night of another supervisor", || waits_for_ever(supervisor).then_some(()));
    let done = shoal.stop();
    assert_eq!((done.status, done.err.contains("a bug of Shoal")), (0, false), "{}", done.err);
    stage.assert_nothing_left();
}
