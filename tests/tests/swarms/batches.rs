//! Steps of several messages: whole or not at all whoever dies, and no message is blamed for another.
//!
//! Method: as in `dead_letters.rs`, with a sink that begins when all numbers are there and takes up to 64 in a step; and numbers that flow
//! through a relay of such steps while it and its source are killed.

use super::dead_letters::{COUNT, Swarm, but, swarm_with};
use serde_json::Value;
use shoal::control::{PsAgent, PsState};
use shoal_tests::stage::Relayed;
use shoal_tests::{Book, Chance, Stage, stage, traces, until};
use std::fs;
use std::time::Duration;

const FORMS: [&str; 2] = ["\"sink\", \"64\"", "\"loop\", \"64\""];

/// The swarm, with room for all numbers.
fn swarm<'s>(stage: &'s Stage, sink: &str, poison: &str, more: &str) -> Swarm<'s> {
    swarm_with("16 KiB", stage, sink, poison, more, "")
}

/// Every number but the poisoned was tried as if nothing had ever failed, and some of them again, since a step of several failed.
fn assert_innocent(swarm: &Swarm<'_>, poisoned: &[u64]) {
    let tries: Vec<Vec<String>> = but(poisoned).into_iter().map(|value| swarm.tried(value)).collect();
    let first = |line: &String| line.ends_with(" attempt 1");
    assert!(tries.iter().flatten().all(first), "{tries:?}");
    assert!(tries.iter().any(|tries| tries.len() > 1), "no step of several was cut short: {tries:?}");
}

/// The number of the message that each had in hand.
fn sequences(reports: &[Value]) -> Vec<u64> {
    reports.iter().map(|report| report["in_hand"]["sequence"].as_u64().expect("one in hand")).collect()
}

fn crashes(stage: &Stage) -> Vec<Value> {
    let done = stage.done(&["crashes", "sink", "--json"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    let listed: Value = serde_json::from_str(&done.out).expect("one JSON object");
    listed["crashes"].as_array().expect("a list").clone()
}

/// Goal: a message that kills its reader in the middle of a step is parked after as many deaths as it may cause, no other is, and letter and
/// crash report name that very one. Method: three numbers kill the sink in three ways.
#[test]
fn a_message_that_kills_its_reader_in_the_middle_of_a_step_is_parked_and_no_other_is() {
    for sink in FORMS {
        for attempts in [1, 3] {
            let stage = stage!("batch-kills");
            let more = format!("max_attempts = {attempts}");
            let mut swarm = swarm(&stage, sink, "20 aborts\n41 exits\n90 panics\n", &more);
            swarm.until_done();
            assert_eq!(swarm.handled(), but(&[20, 41, 90]), "each exactly once and in order");
            assert_innocent(&swarm, &[20, 41, 90]);
            let reports = crashes(&stage);
            let deaths = |value| vec![value; attempts];
            assert_eq!(sequences(&reports), [deaths(20), deaths(41), deaths(90)].concat());
            let letters = swarm.letters();
            assert_eq!(letters.len(), 3);
            for (letter, (value, reports)) in
                letters.iter().zip([20, 41, 90].into_iter().zip(reports.chunks(attempts)))
            {
                let tried: Vec<_> = (1..=attempts).map(|n| format!("{value} attempt {n}")).collect();
                assert_eq!(swarm.tried(value), tried);
                assert_eq!(letter["attempts"], attempts);
                for (report, attempt) in reports.iter().zip(1..) {
                    let held = &report["in_hand"];
                    assert_eq!((&held["message"], &held["attempt"]), (&letter["message"], &attempt.into()));
                    let last =
                        report["received"].as_array().and_then(|taken| taken.last()).expect("what it took");
                    assert_eq!(last["message"], letter["message"]);
                }
                // Each of those before it in the step was taken, one by one.
                let taken = reports[0]["received"].as_array().expect("a list");
                let positions: Vec<_> = taken.iter().map(|taken| taken["position"].as_u64()).collect();
                assert!(positions.len() == 16 && positions.is_sorted(), "{positions:?}");
            }
            swarm.end();
        }
    }
}

/// Goal: a handler that fails in the middle of a step is tried by itself as often as it may be, also by the next life, and the others
/// are done once. Method: numbers that fail, that are rejected, and one at whose failure a body in the loop form ends.
#[test]
fn a_message_that_fails_in_the_middle_of_a_step_has_all_its_attempts_by_itself() {
    for (sink, kind) in [(FORMS[0], "fails"), (FORMS[1], "fails"), (FORMS[1], "ends")] {
        for attempts in [1, 2] {
            let stage = stage!("batch-fails");
            let poison = format!("33 {kind}\n50 rejects\n");
            let mut swarm = swarm(&stage, sink, &poison, &format!("max_attempts = {attempts}"));
            swarm.until_done();
            assert_eq!(swarm.handled(), but(&[33, 50]), "each exactly once and in order");
            assert_innocent(&swarm, &[33, 50]);
            let alone = (1..=attempts).map(|n| format!("33 attempt {n}"));
            let tried: Vec<_> = std::iter::once("33 attempt 1".to_owned()).chain(alone).collect();
            assert_eq!(swarm.tried(33), tried, "once where others began the step: that counts for nothing");
            let letters = swarm.letters();
            assert_eq!(letters.len(), 2);
            assert_eq!(
                (&letters[0]["attempts"], letters[0]["reports"].as_array().map(Vec::len)),
                (&attempts.into(), Some(attempts))
            );
            assert_eq!(
                (&letters[1]["attempts"], &letters[1]["reason"]),
                (&1.into(), &"nobody wants 50".into())
            );
            swarm.end();
        }
    }
}

/// Goal: a message that hangs its reader in the middle of a step is the one that is named, and parked. Method: a number that is held for ever.
#[test]
fn a_message_held_beyond_the_deadline_in_the_middle_of_a_step_is_named_and_parked() {
    let stage = stage!("batch-hangs");
    let mut swarm = swarm(&stage, FORMS[0], "20 holds\n", "max_attempts = 2\ndeadline = \"150ms\"");
    swarm.until_done();
    assert_eq!(swarm.handled(), but(&[20]));
    assert_innocent(&swarm, &[20]);
    assert_eq!(swarm.tried(20), ["20 attempt 1", "20 attempt 2"]);
    let letters = swarm.letters();
    assert_eq!(letters.len(), 1);
    let message = letters[0]["message"].as_str().expect("a text");
    for generation in [1, 2] {
        swarm.shoal.until_said(&format!("agent sink (generation {generation}) holds message {message} for "));
    }
    swarm.end();
}

/// Goal: a pause that is asked for in the middle of a step ends it with the message in hand. Method: a number that is held until then.
#[test]
fn a_pause_asked_for_in_the_middle_of_a_step_ends_it_with_the_message_in_hand() {
    for sink in FORMS {
        let stage = stage!("batch-pause");
        let mut swarm = swarm(&stage, sink, "20 holds\n", "");
        until("20 in hand", || (!swarm.tried(20).is_empty()).then_some(()));
        assert!(swarm.handled().len() < 20, "it is not the first of its step");
        let pause = stage.start(stage.shoal(&["pause", "sink"]));
        swarm.shoal.until_agent("sink", "asked to pause", |a| (a.state == PsState::Paused).then_some(()));
        fs::write(stage.path("poison"), "").expect("written");
        assert_eq!(pause.ended().status, 0);
        let received = |a: &PsAgent| (a.received > 20).then_some(a.received);
        assert_eq!(swarm.shoal.until_agent("sink", "done with its step", received), 21);
        assert_eq!(stage.done(&["resume", "sink"]).status, 0);
        swarm.until_done();
        assert_eq!(swarm.handled(), but(&[]), "each exactly once and in order");
        swarm.end();
    }
}

/// Goal: members of a group take their messages one by one, however many a step may take. Method: three members, and numbers that kill.
#[test]
fn members_of_a_group_take_one_message_a_step() {
    let stage = stage!("batch-group");
    let swarm = swarm(&stage, FORMS[0], "20 aborts\n41 fails\n", "replicas = 3\nprefetch = 4");
    let handled = until("all that can be handled", || {
        let handled = swarm.handled();
        (handled.len() as u64 >= COUNT - 2 && swarm.letters().len() == 2).then_some(handled)
    });
    let mut sorted = handled.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, but(&[20, 41]), "each exactly once");
    for value in 0..COUNT {
        let poisoned = [20, 41].contains(&value);
        let tried: Vec<_> =
            (1..=if poisoned { 3 } else { 1 }).map(|n| format!("{value} attempt {n}")).collect();
        assert_eq!(swarm.tried(value), tried);
    }
    swarm.end();
}

/// Goal: what goes through steps of up to 64 arrives exactly once and in order, and fits the relay's state, whoever is killed. Method: relay and
/// source are killed at random (seeded) while numbers flow; the relay compares each with its state, the sink with the one that is due.
#[test]
fn steps_of_several_take_effect_exactly_once_and_in_order_under_a_storm_of_kills() {
    let kills: u64 = std::env::var("SHOAL_TEST_STORM").map_or(40, |n| n.parse().expect("a number"));
    for form in ["loop", "handler"] {
        let stage = stage!("batch-storm");
        let how = &format!("\"steps\", \"{form}\"");
        let mut shoal = stage.run(&Relayed { how, ..Relayed::default() }.write(&stage));
        let mut chance = Chance::seeded();
        let met = || Book::count(&stage.path("sink"));
        let mut killed = 0;
        while killed < kills {
            let before = met();
            until("more numbers at the sink", || {
                assert_eq!(shoal.poll(), None, "the swarm ended: {}", shoal.err());
                assert_eq!(stage.violations(), "");
                (met() > before + 100).then_some(())
            });
            let victim = if chance.below(4) == 0 { "source" } else { "relay" };
            let pid = shoal.pid_of(victim);
            std::thread::sleep(chance.time(Duration::from_millis(3)));
            killed += u64::from(traces::kill(pid, stage.mark()));
        }
        shoal.until_ready();
        let done = shoal.stop();
        assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
        let sent =
            done.out.lines().rev().find_map(|line| line.rsplit_once("sent ")?.1.trim().parse::<u64>().ok());
        let book = Book::read(&stage.path("sink")).expect("the sink's book");
        assert_eq!(sent, Some(book.len() as u64), "sent and met: {}", done.out);
        assert!(book.into_iter().eq(0..sent.unwrap_or(0)), "every number once and in order");
        if form == "loop" {
            let largest = fs::read_to_string(stage.path("largest")).expect("noted");
            let largest: u64 = largest.trim().parse().expect("a number");
            assert!((2..=64).contains(&largest), "a step took {largest} at most");
        }
        stage.assert_nothing_left();
    }
}
