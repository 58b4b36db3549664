//! `shoal chaos` as a user runs it: its verdict on a sound build, and on one with a bug placed in it.

use rustix::process::Signal;
use serde_json::Value;
use shoal_tests::{Done, stage};

/// The one object on standard output.
pub(super) fn object(done: &Done) -> Value {
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.len(), 1, "{}{}", done.out, done.err);
    serde_json::from_str(lines[0]).expect("one JSON object")
}

pub(super) fn count(report: &Value, key: &str) -> u64 {
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
    for key in ["supervisor_kills", "reloads", "channels", "upgrades", "roll_backs"] {
        assert_eq!(count(&report, key), 0, "nobody asked for {key}");
    }
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

/// Goal: the same holds while the swarm is changed, too, and while the supervisor dies over that; also over a channel that comes and goes,
/// and over replicas that crash-loop until they are rolled back. Method: the real command, which reloads swarm files with other lanes,
/// channels and agents, and replaces the replicas of agents by sound ones and by such that end by themselves, among all else that it does.
#[test]
fn chaos_that_changes_its_swarm_counts_nothing_wrong_either() {
    let stage = stage!("chaos");
    for more in [&[][..], &["--kill-supervisor"]] {
        let args = ["chaos", "--for", "3s", "--changes", "--rate", "150", "--seed", "42", "--json"];
        let done = stage.done(&[&args[..], more].concat());
        let report = object(&done);
        for key in WRONG {
            assert_eq!(count(&report, key), 0, "{key}: {report}\n{}", done.err);
        }
        for key in ["kills", "scales", "reloads", "channels", "upgrades", "roll_backs"] {
            assert!(count(&report, key) > 0, "{key}: {report}\n{}", done.err);
        }
        assert_eq!(count(&report, "not_rolled_back"), 0, "{report}\n{}", done.err);
        assert_eq!((&report["passed"], done.status), (&Value::Bool(true), 0), "{report}\n{}", done.err);
        stage.assert_nothing_left();
    }
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
        (&["--for", "soon"], "this is not a duration"),
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
pub(super) fn ticks(stage: &shoal_tests::Stage) -> std::path::PathBuf {
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
