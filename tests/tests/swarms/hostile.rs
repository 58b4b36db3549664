//! Goal: what is promised of the tier `hostile` holds for every attack, and not only where a trusted or isolated agent tries it. Method: the
//! attacks of `attack.rs` and some more, by an agent that is given /proc to read, so that it finds what it attacks; the others count every
//! number.

use crate::attack::{
    HOSTILE, assert_ear_is_exact, assert_filled_and_stole_nobody, assert_nobody_else_died,
    assert_sink_is_exact, play_with,
};
use shoal_tests::attacked::Told;

fn play(role: &str) -> Told {
    let told = play_with(role, "block", HOSTILE);
    assert_sink_is_exact(&told);
    assert_nobody_else_died(&told);
    assert!(told.stdout.contains("bad ends in generation"), "{}", told.all());
    told
}

/// The first call that an agent does not need ended its first life.
fn assert_ended_by_its_filter(told: &Told) {
    assert!(told.stderr.contains("agent bad (generation 1) was killed by SIGSYS"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
}

#[test]
fn hostile_agent_that_lies_about_its_cursor_or_its_frames_is_removed() {
    let lies =
        [("lie-ahead", "source"), ("lie-back", "source"), ("lie-length", "ear"), ("lie-number", "ear")];
    for (role, met_by) in lies {
        let told = play(role);
        assert!(told.stderr.contains(&format!("agent {met_by} accuses bad")), "{role}: {}", told.all());
        assert!(told.stderr.contains("and is killed"), "{role}: {}", told.all());
        assert!(told.stdout.contains("bad ends in generation 2"), "{role}: {}", told.all());
    }
}

#[test]
fn hostile_agent_that_says_garbage_is_removed() {
    let told = play("garbage");
    assert!(told.stderr.contains("agent bad is killed"), "{}", told.all());
    assert_ear_is_exact(&told);
}

#[test]
fn hostile_agent_is_ended_when_it_seals_itself_or_makes_a_doorbell_blocking_or_writes_through_a_descriptor() {
    for role in ["seal", "bells", "attacker"] {
        let told = play(role);
        assert_ended_by_its_filter(&told);
        assert_ear_is_exact(&told);
        // It did not come to tell what came of its attempt, after which it would be ended, too.
        let came_through = ["sealed: true", "made blocking:", "attacker tried", "BROKEN"];
        assert!(!came_through.iter().any(|said| told.stdout.contains(said)), "{}", told.all());
    }
}

#[test]
fn hostile_agent_that_writes_its_frames_while_they_are_read_hurts_no_reader() {
    assert!(play("flicker").stdout.contains("ear saw"));
}

#[test]
fn hostile_agent_that_fills_doorbells_or_prints_without_end_disturbs_nobody() {
    for role in ["fill", "flood"] {
        let told = play(role);
        assert_ear_is_exact(&told);
        assert!(!told.stderr.contains("was woken"), "{}", told.all());
        if role == "fill" {
            assert_filled_and_stole_nobody(&told);
        }
    }
}
