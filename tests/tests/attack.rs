//! Goal: what one agent does to its own memory, its socket or its descriptors changes nothing that others read, and the swarm
//! goes on. Method: real processes under the real supervisor, one of them bad; the others count every number.
#![allow(missing_docs)]

use shoal_tests::attacked::{Play, Told, run};
use std::time::Duration;

const COUNT: u64 = 20_000;

fn play(role: &str, when_full: &str) -> Told {
    let (shoal, agents) = (env!("CARGO_BIN_EXE_shoal-under-test"), env!("CARGO_BIN_EXE_bad-agent"));
    run(&Play { shoal, agents, role, count: COUNT, when_full }, Duration::from_secs(40))
}

fn assert_sink_is_exact(told: &Told) {
    let exact = format!("sink saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
    assert_eq!(told.status, Some(0), "{}", told.all());
}

#[test]
fn no_descriptor_of_the_same_user_changes_a_ready_peers_segment() {
    let told = play("attacker", "block");
    assert_sink_is_exact(&told);
    assert!(!told.stdout.contains("BROKEN"), "{}", told.all());
    let line = told
        .stdout
        .lines()
        .find(|l| l.contains("attacker tried"))
        .unwrap_or_else(|| panic!("{}", told.all()));
    let tried: u32 = line.split_whitespace().find_map(|w| w.parse().ok()).expect("a number");
    assert!(tried >= 20, "{line}");
}

#[test]
fn agent_that_scribbles_over_its_own_segment_and_dies_disturbs_nobody_and_comes_back() {
    let told = play("scribble", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("wrote over its own memory"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert!(told.stdout.contains("ear saw"), "{}", told.all());
}

#[test]
fn agent_that_says_its_cursor_is_ahead_is_restarted() {
    let told = play("lie-ahead", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("contradicts itself and is killed"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
}

// Its record still names the true cursor, so its words do not convict it: the accusation is told, its producer does not believe
// it, and nobody is hurt.
#[test]
fn agent_whose_cursor_goes_back_is_accused_and_not_believed() {
    let told = play("lie-back", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("accuses bad"), "{}", told.all());
    assert_eq!(told.stderr.matches("accuses").count(), 1, "once, however often it looks: {}", told.all());
    assert!(!told.stderr.contains("is killed"), "{}", told.all());
}

#[test]
fn agent_that_floods_its_socket_with_garbage_is_killed_and_comes_back() {
    let told = play("garbage", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("agent bad is killed"), "{}", told.all());
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
}

#[test]
fn agent_that_chatters_without_end_does_not_keep_the_supervisor_from_the_others() {
    let told = play("chatter", "block");
    assert_sink_is_exact(&told);
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
}
