//! Goal: a child process that keeps its dead parent's segment mapped and writes to it delays the verdict until it is gone, and
//! nothing that anybody reads changes. Method: an agent forks such a child (same group; own session) and dies by SIGKILL; its
//! successor looks for the child before anything else.

use shoal_tests::attacked::{Play, Told, run};
use std::time::Duration;

const COUNT: u64 = 20_000;

fn play(role: &str) -> Told {
    let (shoal, agents) = (env!("CARGO_BIN_EXE_shoal-under-test"), env!("CARGO_BIN_EXE_bad-agent"));
    let told = run(
        &Play { shoal, agents, role, count: COUNT, when_full: "block", lines: "" },
        Duration::from_secs(40),
    );
    for name in ["sink", "ear"] {
        let exact = format!("{name} saw {COUNT} of {COUNT}, 0 odd");
        assert!(told.stdout.contains(&exact), "{}", told.all());
    }
    assert_eq!(told.status, Some(0), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert!(!told.stderr.contains("wrote over its own memory"), "{}", told.all());
    told
}

fn assert_zombie_was_gone(told: &Told) {
    let line =
        told.stdout.lines().find(|l| l.contains("zombie ")).unwrap_or_else(|| panic!("{}", told.all()));
    assert!(line.ends_with("is gone") || line.ends_with("is Z") || line.ends_with("is X"), "{line}");
}

#[test]
fn zombie_of_the_same_group_is_gone_before_the_verdict() {
    assert_zombie_was_gone(&play("zombie"));
}

#[test]
fn zombie_in_a_session_of_its_own_is_gone_before_the_verdict() {
    assert_zombie_was_gone(&play("zombie-session"));
}
