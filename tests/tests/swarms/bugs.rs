//! What each of some deliberate bugs of the protocol does to a real swarm, and that chaos, scenarios and the certificate find it. Only in
//! builds that have the bugs in them, see `runtime/src/bug.rs`.

use crate::{certify, chaos, scenario};
use serde_json::Value;
use shoal_tests::{Done, stage};

/// Goal: a swarm that loses messages is not certified. Method: the bug is placed in a real run with real kills.
#[test]
fn swarm_that_loses_what_a_dead_reader_had_not_read_is_not_certified() {
    let stage = stage!("certify");
    let out = stage.path("out");
    let out = out.to_str().expect("UTF-8");
    let mut command = stage.shoal(&["certify", "--quick", "--json", "--only", "reliability", "--out", out]);
    command.env("SHOAL_BUG", "VerdictOverlooked");
    let done = stage.start(command).ended();
    let report = certify::json(&done.out);
    let reliability = certify::metric(&report);
    assert_eq!((done.status, reliability["own_bar"].as_str()), (1, Some("missed")), "{reliability}");
    assert_eq!(reliability["verdict"].as_str(), Some("failed"), "{reliability}");
}

/// What chaos says of a build with a bug, in the first run that meets it: a swarm that has no time on a busy machine may be killed
/// past the one moment that a bug spoils.
fn chaos_with(bug: &str) -> (Value, Done) {
    chaos_that_shows(bug, |_| true)
}

/// The same in the first run in which the bug shows in a certain way.
fn chaos_that_shows(bug: &str, shows: impl Fn(&Value) -> bool) -> (Value, Done) {
    let stage = stage!("chaos");
    let args = ["chaos", "--for", "2s", "--kills", "50", "--json", "--seed"];
    let run = |seed: u32| {
        let mut command = stage.shoal(&[&args[..], &[&seed.to_string()]].concat());
        command.env("SHOAL_BUG", bug);
        let done = stage.finish(command);
        let report = chaos::object(&done);
        assert_eq!(report["passed"] == Value::Bool(true), done.status == 0, "{report}\n{}", done.err);
        (done.status == 1 && shows(&report)).then_some((report, done))
    };
    (5..15).find_map(run).expect("ten runs did not meet the bug")
}

#[test]
fn chaos_finds_who_was_not_rung() {
    let (report, done) = chaos_with("RingForgotten");
    assert!(chaos::count(&report, "rescues") > 0, "{report}");
    assert_eq!(
        chaos::count(&report, "lost") + chaos::count(&report, "duplicated"),
        0,
        "it costs time, not messages"
    );
    assert!(done.err.contains("listener (generation"), "who it was: {}", done.err);
}

#[test]
fn chaos_finds_a_state_that_is_not_the_committed_one() {
    // An older state takes messages twice. A slot that was never written knows of none, which is not what is looked for.
    let is_older = |report: &Value| chaos::count(report, "duplicated") > 0;
    let (report, _) = chaos_that_shows("StateSlotKept", is_older);
    assert!(chaos::count(&report, "duplicated") > 0, "{report}");
}

#[test]
fn chaos_finds_messages_that_no_successor_of_their_reader_gets() {
    let (report, _) = chaos_with("VerdictOverlooked");
    assert!(chaos::count(&report, "lost") > 0, "{report}");
}

#[test]
fn chaos_finds_messages_of_a_dead_member_that_its_group_does_not_get_back() {
    let (report, _) = chaos_with("ClaimNeverReturned");
    assert!(chaos::count(&report, "lost") > 0, "{report}");
}

#[test]
fn swarm_whose_rings_are_forgotten_goes_on_by_rescues_and_ps_counts_them() {
    let stage = stage!("ticks");
    let mut command = stage.shoal(&["run", chaos::ticks(&stage).to_str().expect("UTF-8")]);
    command.env("SHOAL_BUG", "RingForgotten");
    let mut shoal = stage.start(command);
    let (rescues, received) =
        shoal.until_agent("teller", "rescued twice", |a| (a.rescues >= 2).then_some((a.rescues, a.received)));
    shoal.until_agent("teller", "rescued on, and reading", |a| {
        (a.rescues > rescues && a.received > received).then_some(())
    });
    shoal.until_said("slept though messages waited for it");
    shoal.stop();
}

/// Goal: who may wake without being rung is looked at also at night, and who it sends something to is not forgotten. Method: one wakes every
/// few seconds, longer than it takes until night falls, and its reader is never rung; nobody asks the supervisor anything meanwhile.
#[test]
fn reader_that_nobody_rings_is_rescued_though_it_is_night() {
    let stage = stage!("doze");
    let text = r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        [channel.relayed]
        message = "Number"
        [agent.dozer]
        command = ["BIN/numbers", "dozer"]
        publishes = ["numbers"]
        subscribes = ["relayed"]
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        "#;
    let mut command = stage.shoal(&["run", stage.write("doze.toml", text).to_str().expect("UTF-8")]);
    command.env("SHOAL_BUG", "RingForgotten");
    let mut shoal = stage.start(command);
    shoal.until_said("agent relay (generation 1) slept though messages waited for it");
    assert!(shoal.until_agent("relay", "rescued", |a| (a.rescues > 0 && a.received > 0).then_some(true)));
    shoal.stop();
}

/// Goal: a swarm that loses what its worker's successor should have got is not passed. Method: the bug is placed in a real run with
/// real kills.
#[test]
fn calls_that_no_successor_of_a_killed_worker_gets_fail_the_scenario() {
    let stage = stage!("scenario");
    let mut command = stage.shoal(&["bench", "scenario", "spawn-kill", "--quick", "--json", "-"]);
    command.env("SHOAL_BUG", "VerdictOverlooked");
    let done = stage.start(command).ended();
    let cycles = scenario::scenario(&done);
    assert_eq!((done.status, &cycles["passed"]), (1, &Value::Bool(false)), "{cycles}");
    assert!(scenario::count(&cycles, "delivered") < scenario::count(&cycles, "expected"), "{cycles}");
}
