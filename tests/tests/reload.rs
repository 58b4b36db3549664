//! A swarm is changed while it runs: no number is lost or doubled, and who is not concerned keeps its process.
#![allow(missing_docs)]

use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::stage::HARDY;
use shoal_tests::{Book, Running, Stage, stage, traces, until};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A tap, relays that share its numbers, and a sink; `relays` and `more` are what a test changes.
fn text(numbers: &str, relays: &str, ways: u32, more: &str) -> String {
    format!(
        r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        capacity = "{numbers}"
        [channel.relayed]
        message = "Number"
        [agent.source]
        command = ["BIN/numbers", "tap"]
        publishes = ["numbers"]
        {HARDY}
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        {relays}
        subscribes = ["numbers"]
        publishes = ["relayed"]
        {HARDY}
        [agent.sink]
        command = ["BIN/numbers", "sink", "{ways}"]
        subscribes = ["relayed"]
        {HARDY}
        {more}
        "#
    )
}

fn write(stage: &Stage, text: &str) -> PathBuf {
    stage.write("swarm.toml", text)
}

fn want(stage: &Stage, count: u64) {
    // In one piece: the tap reads it at any time.
    fs::write(stage.path("want.new"), count.to_string()).expect("a wish");
    fs::rename(stage.path("want.new"), stage.path("want")).expect("a wish");
}

fn until_met(stage: &Stage, shoal: &mut Running<'_>, count: u64) {
    until(&format!("{count} numbers at the sink"), || {
        assert_eq!(shoal.poll(), None, "the swarm ended: {}", shoal.err());
        assert_eq!(stage.violations(), "");
        (Book::count(&stage.path("sink")) >= count).then_some(())
    });
}

/// Process and generation of each agent.
fn lives(shoal: &Running<'_>) -> BTreeMap<String, (Option<u32>, u64)> {
    let report = shoal.try_ps().expect("an answer");
    report.agents.into_iter().map(|a| (a.name, (a.pid, a.generation))).collect()
}

/// Does it, and reads what it says about it.
fn change(stage: &Stage, args: &[&str]) -> serde_json::Value {
    let done = stage.done(args);
    assert_eq!(done.status, 0, "{args:?}: {}{}", done.out, done.err);
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

/// Ends the swarm when the sink has met every number once.
fn finish(stage: &Stage, mut shoal: Running<'_>, count: u64) {
    want(stage, count);
    until_met(stage, &mut shoal, count);
    let met = Book::read(&stage.path("sink")).expect("the sink's book");
    assert_eq!(met.len() as u64, count, "each once");
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: replicas come and go while numbers flow, each number once, and the others do not notice. Method: a swarm that sends without
/// pause is scaled up and down; processes and generations of all others are compared.
#[test]
fn replicas_come_and_go_while_numbers_flow_and_nobody_else_notices() {
    let stage = stage!("scale");
    let mut shoal = stage.run(&write(&stage, &text("64 KiB", "replicas = 2", 0, "")));
    shoal.until_ready();
    let before = lives(&shoal);
    want(&stage, u64::MAX / 2);
    for (replicas, all) in [("6", 6), ("1", 1), ("4", 4), ("0", 0), ("2", 2)] {
        let met = Book::count(&stage.path("sink"));
        until_met(&stage, &mut shoal, met + 200);
        let report = change(&stage, &["scale", "relay", replicas, "--json"]);
        assert_eq!(report["outcome"], "applied");
        let now = lives(&shoal);
        assert_eq!(now.keys().filter(|name| name.starts_with("relay.")).count(), all, "{now:?}");
        assert_eq!(before["sink"], now["sink"]);
        if replicas == "0" {
            break;
        }
        assert_eq!(before["source"], now["source"], "it is not started again");
        assert_eq!(report["plan"]["restart"].as_array().map(Vec::len), Some(0), "{report}");
    }
    // Nobody of the group runs: what it has not read is dropped, and counted; then it begins anew.
    drop(shoal);
}
