//! Goal: each layer between an agent and the others refuses by itself what docs/trust.md says of it. Method: attacker and victim are agents
//! of one user that has no rights of root, so that no other guard of the kernel's stands between them; all layers are off, one is on, or
//! both are. Only root may give agents a user: elsewhere these tests say that they could not look.

use crate::attack::{
    HOSTILE, REACHES, assert_ear_is_exact, assert_nobody_else_died, assert_sink_is_exact, attempts,
    play_among, play_with,
};
use shoal_tests::attack::OWN_USERS;
use shoal_tests::{traces, until};
use std::collections::BTreeSet;
use std::fs;

/// A user of nobody's but one test's, and the lines that make an agent run as it.
pub fn user(test: u32) -> Option<(u32, String)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not looked at: only root gives agents a user");
        return None;
    }
    let number = OWN_USERS + (std::process::id() % 0x40_0000) * 8 + test;
    Some((number, format!("user = \"{number}\"\nuser_group = \"{number}\"")))
}

/// What an agent with these lines gets by, of all ways to reach into another.
fn open_ways(user: &str, lines: &str) -> BTreeSet<String> {
    let told = play_among("reach", "block", &format!("{user}\n{lines}"), user);
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert_nobody_else_died(&told);
    let attempts = attempts(&told);
    assert_eq!(attempts.len(), REACHES, "{}", told.all());
    let open = attempts.iter().filter(|(_, came)| *came == "succeeded");
    open.map(|(way, _)| (*way).to_owned()).collect()
}

#[test]
fn each_layer_refuses_by_itself_what_is_said_of_it() {
    let Some((_, user)) = user(0) else { return };
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !matches!(scope.trim(), "" | "0") {
        return eprintln!("not looked at: the kernel itself (yama) keeps processes of one user apart");
    }
    let memory = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"];
    let shown = ["/proc/PID/mem", "/proc/PID/maps", "/proc/PID/environ", "/proc/PID/fd"];
    let bounds = ["prlimit", "setpriority", "sched_setaffinity"];
    let (signals, exposed) = (["kill", "kill of anybody"], ["/proc/PID/oom_score_adj"]);
    let ways = |groups: &[&[&str]]| groups.concat().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let all = ways(&[&memory, &shown, &bounds, &signals, &exposed]);
    assert_eq!(all.len(), REACHES);
    assert_eq!(open_ways(&user, ""), all, "none: the ways are real");
    let by_filter = open_ways(&user, "seccomp = \"default\"");
    assert_eq!(by_filter, ways(&[&shown, &signals, &exposed]), "the filter of system calls alone");
    let by_rules = open_ways(&user, "landlock = { read = [\"/proc\", \"notes\"] }");
    assert_eq!(by_rules, ways(&[&bounds, &signals]), "landlock alone, of who is trusted");
    assert_eq!(
        open_ways(&user, "trust = \"isolated\""),
        ways(&[]),
        "both, and landlock's bounds for signals"
    );
}

/// Everything that a user runs is ended, and there was nothing of it.
fn assert_runs_nothing(uid: u32) {
    let of_user = || {
        let owner = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok())
        };
        traces::processes().filter(|pid| owner(pid) == Some(uid)).collect::<Vec<_>>()
    };
    let left = of_user();
    until("the end of all that this user runs", || {
        let running = of_user();
        let pids = running.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid));
        pids.for_each(|pid| _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        running.is_empty().then_some(())
    });
    assert!(left.is_empty(), "{left:?} outlived their swarm");
}

#[test]
fn signal_to_everybody_reaches_the_agents_of_its_user_and_from_an_isolated_or_hostile_one_nobody() {
    let Some((uid, user)) = user(1) else { return };
    let told = play_among("kill-all", "block", &user, &user);
    assert!(told.stderr.contains("agent source (generation 1) was killed by SIGKILL"), "{}", told.all());
    for (lines, filtered) in [(format!("{user}\ntrust = \"isolated\""), false), (HOSTILE.to_owned(), true)] {
        let told = play_among("kill-all", "block", &lines, &user);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        assert_eq!(
            told.stderr.contains("agent bad (generation 1) was killed by SIGSYS"),
            filtered,
            "{}",
            told.all()
        );
        assert_eq!(attempts(&told).len(), usize::from(!filtered), "{}", told.all());
        assert!(!told.stdout.contains("not tried"), "{}", told.all());
    }
    assert_runs_nothing(uid);
}

#[test]
fn fork_bomb_is_bounded_disturbs_nobody_and_ends_with_its_agent() {
    let Some((uid, user)) = user(2) else { return };
    for trust in ["trusted", "isolated"] {
        let told = play_with(
            "fork-bomb",
            "block",
            &format!("{user}\ntrust = \"{trust}\"\nlimits = {{ processes = 40 }}"),
        );
        // Whatever came of it, it must not go on.
        assert_runs_nothing(uid);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        let refused = told
            .stdout
            .split("bomb refused ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert!(refused.is_some_and(|count| count > 0), "{trust}: {}", told.all());
        assert!(told.stdout.contains("bomb forked"), "{trust}: {}", told.all());
        assert!(told.stdout.contains("bad ends in generation 2"), "{trust}: {}", told.all());
    }
}

/// Who is hostile makes no process at all: its filter ends it inside the first call that would.
#[test]
fn fork_bomb_of_a_hostile_agent_is_ended_at_its_first_fork() {
    let told = play_with("fork-bomb", "block", HOSTILE);
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert_nobody_else_died(&told);
    if !rustix::process::geteuid().is_root() {
        // Its user is that of the tests then, as whom the attack is not tried.
        return;
    }
    assert!(told.stderr.contains("agent bad (generation 1) was killed by SIGSYS"), "{}", told.all());
    assert!(!told.stdout.contains("bomb"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
}
