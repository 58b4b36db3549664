//! Goal: what one agent does to its own memory, its socket or its descriptors changes nothing that others read, and the swarm
//! goes on. Method: real processes under the real supervisor, one of them bad; the others count every number.

use shoal_tests::attacked::{Play, Told, run};
use std::time::Duration;

const COUNT: u64 = 20_000;

fn play(role: &str, when_full: &str) -> Told {
    play_with(role, when_full, "")
}

/// The same, with further lines in the bad agent's table.
fn play_with(role: &str, when_full: &str, lines: &str) -> Told {
    let (shoal, agents) = (env!("CARGO_BIN_EXE_shoal-under-test"), env!("CARGO_BIN_EXE_bad-agent"));
    run(&Play { shoal, agents, role, count: COUNT, when_full, lines }, Duration::from_secs(60))
}

/// The attempts that the bad agent told: what, and what came of it.
fn attempts(told: &Told) -> Vec<(&str, &str)> {
    let lines = told.stdout.lines().filter_map(|line| line.split_once("tried ").map(|(_, rest)| rest));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

fn assert_ear_is_exact(told: &Told) {
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
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
    // Whom the swarm trusts can do that, and the deaths of all are proved nevertheless.
    assert!(told.stdout.contains("sealed for ever: 3 of 3"), "{}", told.all());
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
    assert_removed(&told);
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
    assert_removed(&told);
}

#[test]
fn agent_that_chatters_without_end_does_not_keep_the_supervisor_from_the_others() {
    let told = play("chatter", "block");
    assert_sink_is_exact(&told);
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
}

/// What the supervisor said of removals, for who runs this with `--nocapture`: the figures are this machine's, and no judgement.
fn assert_removed(told: &Told) {
    let removals: Vec<_> = told.stderr.lines().filter(|line| line.contains("was removed")).collect();
    assert!(!removals.is_empty(), "{}", told.all());
    assert!(removals.iter().all(|line| line.ends_with("ms after its first seen violation")), "{removals:?}");
    println!("{}", removals.join("\n"));
}

/// Ways by which one process reaches into another; all that `reach` tries.
const REACHES: usize = 14;

// The ways are real: whom the swarm trusts, and the kernel lets, gets in by them.
#[test]
fn trusted_agent_of_the_same_user_reaches_into_its_peers_and_uses_it_for_nothing() {
    let told = play("reach", "block");
    assert_sink_is_exact(&told);
    let attempts = attempts(&told);
    assert_eq!(attempts.len(), REACHES, "{}", told.all());
    let open = attempts.iter().filter(|(_, came)| *came == "succeeded").count();
    assert!(open >= 8, "{attempts:?}");
}

#[test]
fn isolated_agent_of_the_same_user_reaches_into_no_other_process() {
    let told = play_with("reach", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    let attempts = attempts(&told);
    assert_eq!(attempts.len(), REACHES, "{}", told.all());
    assert!(attempts.iter().all(|(_, came)| *came != "succeeded"), "{attempts:?}");
}

#[test]
fn isolated_agent_changes_no_segment_by_any_descriptor() {
    let told = play_with("attacker", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert!(!told.stdout.contains("BROKEN"), "{}", told.all());
    assert!(told.stdout.contains("attacker tried"), "{}", told.all());
    assert!(told.stdout.contains("sealed for ever: 0 of 3"), "{}", told.all());
}

// Every life tries one thing more. The filter ends it there, the supervisor starts it again, and nobody else notices.
#[test]
fn hostile_agent_is_ended_by_the_first_call_that_it_does_not_need() {
    let told = play_with("reach-one", "block", "trust = \"hostile\"\nenv_allow = [\"NOTES\"]");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    let attempts = attempts(&told);
    assert!(attempts.iter().all(|(_, came)| *came != "succeeded"), "{attempts:?}");
    let ended = told.stderr.matches("was killed by SIGSYS").count();
    assert!(ended >= 8, "{ended} {}", told.all());
    assert!(told.stdout.contains(&format!("bad ends in generation {}", REACHES + 1)), "{}", told.all());
}

#[test]
fn agent_that_writes_its_frames_while_they_are_read_hurts_no_reader_that_copies() {
    let told = play_with("flicker", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    // What the ear counts is the liar's own affair; that it lives to count is not.
    assert!(told.stdout.contains("ear saw"), "{}", told.all());
    assert!(!told.stderr.contains("agent ear (generation"), "{}", told.all());
}

#[test]
fn agent_that_seals_its_own_segment_for_ever_dies_as_any_other() {
    let told = play("seal", "block");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert!(told.stdout.contains("sealed: true"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
}

#[test]
fn isolated_agent_makes_no_doorbell_blocking_and_filling_them_leaves_nobody_asleep() {
    let told = play_with("bells", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert!(told.stdout.contains("made blocking: 0 of"), "{}", told.all());
    assert!(told.stdout.contains("filled "), "{}", told.all());
}

#[test]
fn agent_that_fills_its_peers_doorbells_leaves_nobody_asleep() {
    let told = play("fill", "block");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert!(told.stdout.contains("filled "), "{}", told.all());
    assert!(!told.stderr.contains("was woken"), "{}", told.all());
}

#[test]
fn accused_agent_that_is_trusted_less_than_its_accuser_is_killed_at_once() {
    let told = play_with("lie-back", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("is trusted less than who accuses it and is killed"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert_removed(&told);
}

#[test]
fn agent_that_prints_without_end_disturbs_nobody() {
    let told = play("flood", "block");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
}
