//! `shoal chaos` as a user runs it: its verdict on a sound build, and on one with a bug placed in it.

use rustix::process::Signal;
use serde_json::Value;
use shoal_tests::{Done, stage};

/// The one object on standard output.
fn object(done: &Done) -> Value {
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.len(), 1, "{}{}", done.out, done.err);
    serde_json::from_str(lines[0]).expect("one JSON object")
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("no {key:?} in {report}"))
}

const WRONG: [&str; 7] =
    ["lost", "duplicated", "reordered", "corrupted", "unaccounted", "rescues", "accusations"];

/// Goal: nothing is lost, doubled, out of order or damaged, and nobody sleeps with work waiting, under kills, stops and
/// restarts at full speed. Method: the real command, for as many kills and messages as it takes.
#[test]
fn chaos_on_a_sound_build_counts_nothing_wrong_and_says_what_it_did() {
    let stage = stage!("chaos");
    let wanted = ["--kills", "100", "--messages", "20000"];
    let args = ["chaos", "--for", "2s", "--seed", "42", "--json"];
    let done = stage.done(&[&args[..], &wanted].concat());
    let report = object(&done);
    for key in WRONG {
        assert_eq!(count(&report, key), 0, "{key}: {report}\n{}", done.err);
    }
    assert_eq!(count(&report, "supervisor_kills"), 0, "nobody asked for it");
    assert!(count(&report, "kills") >= 100 && count(&report, "messages") >= 20_000, "{report}");
    for key in [
        "stops",
        "restarts",
        "scales",
        "agents",
        "msgs_per_s",
        "verdict_p50_us",
        "recovery_p50_us",
        "recovery_p99_us",
    ] {
        assert!(count(&report, key) > 0, "{key}: {report}");
    }
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 2.0), "{report}");
    assert_eq!((count(&report, "seed"), &report["passed"], done.status), (42, &Value::Bool(true), 0));
    stage.assert_nothing_left();
}

/// Goal: the same holds while the supervisor is killed, too. Method: the real command, whose guard kills supervisors in the storm, some
/// of them in the midst of their take-over.
#[test]
fn chaos_that_kills_its_supervisor_counts_nothing_wrong_either() {
    let stage = stage!("chaos");
    let args = ["chaos", "--for", "3s", "--kill-supervisor", "--kills", "50", "--seed", "42", "--json"];
    let done = stage.done(&args);
    let report = object(&done);
    for key in WRONG {
        assert_eq!(count(&report, key), 0, "{key}: {report}\n{}", done.err);
    }
    for key in ["kills", "supervisor_kills", "take_over_p50_us", "take_over_p99_us", "stops", "scales"] {
        assert!(count(&report, key) > 0, "{key}: {report}\n{}", done.err);
    }
    assert_eq!((&report["passed"], done.status), (&Value::Bool(true), 0), "{report}\n{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn chaos_that_is_interrupted_ends_in_order_with_what_was_counted_and_fails() {
    let stage = stage!("chaos");
    let mut shoal = stage.start(stage.shoal(&["chaos", "--for", "1h"]));
    shoal.until("a restart", |report| report.agents.iter().any(|a| a.restarts > 0).then_some(()));
    shoal.send(Signal::INT);
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}{}", done.out, done.err);
    for said in
        ["interrupted: this is what was counted so far", "lost 0, duplicated 0, reordered 0, corrupted 0"]
    {
        assert!(done.out.contains(said), "{said:?} is not in {}{}", done.out, done.err);
    }
    stage.assert_nothing_left();
}

#[test]
fn chaos_refuses_what_it_cannot_do_and_says_what_it_can() {
    let stage = stage!("chaos");
    for (args, said) in [
        (&["--for", "0s"][..], "more than nothing and at most 24h"),
        (&["--for", "25h"], "more than nothing and at most 24h"),
        (&["--for", "soon"], "is no duration"),
        (&["--rate", "0"], "1..=1000"),
        (&["--seed", "x"], "invalid digit"),
        (&["--kills", "-1"], "unexpected argument"),
        (&["again"], "unexpected argument"),
    ] {
        let done = stage.done(&[&["chaos"], args].concat());
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(said), "{args:?}: {said:?} is not in {}", done.err);
    }
}

/// A sparse swarm: the teller always sleeps when a tick comes.
fn ticks(stage: &shoal_tests::Stage) -> std::path::PathBuf {
    let text = r#"
        [swarm]
        name = "NAME"
        [channel.ticks]
        message = "Tick"
        [agent.ticker]
        command = ["BIN/example-ticker"]
        publishes = ["ticks"]
        [agent.teller]
        command = ["BIN/example-teller"]
        subscribes = ["ticks"]
        "#;
    stage.write("ticks.toml", text)
}

#[test]
fn healthy_swarm_is_looked_at_and_nobody_is_rescued() {
    let stage = stage!("ticks");
    let mut shoal = stage.run(&ticks(&stage));
    // Each tick found the teller asleep; that takes several looks.
    let rescues = shoal.until("thirty ticks", |report| {
        let received: u64 = report.agents.iter().map(|a| a.received).sum();
        (received >= 30).then(|| report.agents.iter().map(|a| a.rescues).sum::<u64>())
    });
    assert_eq!(rescues, 0);
    assert_eq!(shoal.stop().status, 0);
}

/// Bugs are compiled into builds with debug assertions, see `runtime/src/bug.rs`.
#[cfg(any(feature = "seeded-bugs", debug_assertions))]
mod bugs {
    use super::*;

    /// What chaos says of a build with a bug, in the first run that meets it: a swarm that has no time on a busy machine may be killed
    /// past the one moment that a bug spoils.
    fn chaos_with(bug: &str) -> (Value, Done) {
        let stage = stage!("chaos");
        let args = ["chaos", "--for", "2s", "--kills", "50", "--json", "--seed"];
        let run = |seed: u32| {
            let mut command = stage.shoal(&[&args[..], &[&seed.to_string()]].concat());
            command.env("SHOAL_BUG", bug);
            let done = stage.finish(command);
            let report = object(&done);
            assert_eq!(report["passed"] == Value::Bool(true), done.status == 0, "{report}\n{}", done.err);
            (done.status == 1).then_some((report, done))
        };
        (5..15).find_map(run).expect("ten runs did not meet the bug")
    }

    #[test]
    fn chaos_finds_who_was_not_rung() {
        let (report, done) = chaos_with("RingForgotten");
        assert!(count(&report, "rescues") > 0, "{report}");
        assert_eq!(count(&report, "lost") + count(&report, "duplicated"), 0, "it costs time, not messages");
        assert!(done.err.contains("listener (generation"), "who it was: {}", done.err);
    }

    #[test]
    fn chaos_finds_a_state_that_is_not_the_committed_one() {
        let (report, _) = chaos_with("StateSlotKept");
        assert!(count(&report, "duplicated") > 0, "{report}");
    }

    #[test]
    fn chaos_finds_messages_that_no_successor_of_their_reader_gets() {
        let (report, _) = chaos_with("VerdictOverlooked");
        assert!(count(&report, "lost") > 0, "{report}");
    }

    #[test]
    fn chaos_finds_messages_of_a_dead_member_that_its_group_does_not_get_back() {
        let (report, _) = chaos_with("ClaimNeverReturned");
        assert!(count(&report, "lost") > 0, "{report}");
    }

    #[test]
    fn swarm_whose_rings_are_forgotten_goes_on_by_rescues_and_ps_counts_them() {
        let stage = stage!("ticks");
        let mut command = stage.shoal(&["run", ticks(&stage).to_str().expect("UTF-8")]);
        command.env("SHOAL_BUG", "RingForgotten");
        let mut shoal = stage.start(command);
        let (rescues, received) = shoal
            .until_agent("teller", "rescued twice", |a| (a.rescues >= 2).then_some((a.rescues, a.received)));
        shoal.until_agent("teller", "rescued on, and reading", |a| {
            (a.rescues > rescues && a.received > received).then_some(())
        });
        shoal.until_said("slept though messages waited for it");
        shoal.stop();
    }
}
