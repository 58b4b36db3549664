//! A swarm that is changed while numbers flow: a tap that sends as many as it is told to, relays that share them, and a sink that keeps
//! a book of them.

use crate::stage::HARDY;
use crate::{Book, Running, Stage, until};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A tap, relays that share its numbers, and a sink; `relays` and `more` are what a test changes.
pub fn text(numbers: &str, relays: &str, ways: u32, more: &str) -> String {
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

/// Writes the swarm file.
pub fn write(stage: &Stage, text: &str) -> PathBuf {
    stage.write("swarm.toml", text)
}

/// Writes a swarm file: a tap of numbers, and what is given besides.
pub fn with_tap(stage: &Stage, more: &str) -> PathBuf {
    const TAP: &str = r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        [agent.tap]
        command = ["BIN/numbers", "tap"]
        publishes = ["numbers"]
        "#;
    write(stage, &format!("{TAP}{more}"))
}

/// Lets the tap send numbers up to this one.
pub fn want(stage: &Stage, count: u64) {
    // In one piece: the tap reads it at any time.
    fs::write(stage.path("want.new"), count.to_string()).expect("a wish");
    fs::rename(stage.path("want.new"), stage.path("want")).expect("a wish");
}

/// A swarm with a reload ahead that has to wait: its relay holds a message of 500 that are wanted, and has a minute to stop; the file asks for
/// another size of its lane. [`let_go`] ends that.
pub fn held<'a>(stage: &'a Stage) -> Running<'a> {
    let patient = "stop_timeout = \"60s\"";
    let mut shoal = stage.run(&write(stage, &text("16 KiB", patient, 1, "")));
    shoal.until_ready();
    fs::write(stage.path("hold-relay"), "").expect("a hold");
    want(stage, 500);
    until("a message in the relay's hand", || stage.path("held").exists().then_some(()));
    write(stage, &text("64 KiB", patient, 1, ""));
    shoal
}

/// The relay that holds a message goes on, and the sink meets all that are wanted.
pub fn let_go(stage: &Stage, shoal: &mut Running<'_>) {
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    until_met(stage, shoal, 500);
}

/// Waits until the sink has met so many.
pub fn until_met(stage: &Stage, shoal: &mut Running<'_>, count: u64) {
    until(&format!("{count} numbers at the sink"), || {
        assert_eq!(shoal.poll(), None, "the swarm ended: {}", shoal.err());
        assert_eq!(stage.violations(), "");
        (Book::count(&stage.path("sink")) >= count).then_some(())
    });
}

/// Process and generation of each agent.
pub fn lives(shoal: &Running<'_>) -> BTreeMap<String, (Option<u32>, u64)> {
    let report = shoal.try_ps().expect("an answer");
    report.agents.into_iter().map(|a| (a.name, (a.pid, a.generation))).collect()
}

/// Does it, and reads what it says about it.
pub fn change(stage: &Stage, args: &[&str]) -> serde_json::Value {
    let done = stage.done(args);
    assert_eq!(done.status, 0, "{args:?}: {}{}", done.out, done.err);
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

/// Ends the swarm when the sink has met every number once.
pub fn finish(stage: &Stage, mut shoal: Running<'_>, count: u64) {
    want(stage, count);
    until_met(stage, &mut shoal, count);
    let mut met = Book::read(&stage.path("sink")).expect("the sink's book");
    met.sort_unstable();
    assert!(
        met.iter().copied().eq(0..count),
        "a number is lost or doubled: {} of {count} were met",
        met.len()
    );
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// The arguments of an agent's process.
pub fn arguments(shoal: &mut Running<'_>, name: &str) -> String {
    until("a process that lives and has begun", || {
        let words = fs::read(format!("/proc/{}/cmdline", shoal.pid_of(name))).ok()?;
        (!words.is_empty()).then(|| String::from_utf8_lossy(&words).replace('\0', " "))
    })
}
