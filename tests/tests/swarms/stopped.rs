//! Agents that a signal from outside has stopped.

use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::tapped::{want, with_tap};
use shoal_tests::{Running, Stage, stage, traces, until};

fn proceed(stage: &Stage, pid: i32) {
    assert!(traces::send(pid, stage.mark(), Signal::CONT));
}

fn until_received(shoal: &mut Running<'_>, name: &str, count: u64) {
    shoal.until_agent(name, "given its numbers", |a| (a.received == count).then_some(()));
}

/// In its first life, and never ended for a hang.
fn assert_untouched(shoal: &mut Running<'_>, name: &str, state: PsState) {
    let seen = shoal.until_agent(name, "shown", |a| Some((a.state, a.generation, a.hangs)));
    assert_eq!(seen, (state, 1, 0), "{name}: {}", shoal.err());
}

/// Goal: who was stopped while it held no message is ended after its deadline once messages wait for it, or if it was awake; who has nothing
/// to read, and who is paused, is left alone. Method: SIGSTOP to one that sleeps, to one that is paused, and to one that is awake and never
/// receives; many deadlines pass before the first is sent something, and over one that is asked to pause and does not hear of it.
#[test]
fn stopped_agent_that_messages_wait_for_is_ended_after_its_deadline_and_no_idle_or_paused_one() {
    let stage = stage!("stopped");
    let text = r#"
        [channel.flood]
        message = "Number"
        [agent.asleep]
        command = ["BIN/numbers", "sink", "1"]
        env = { CHANNEL = "numbers" }
        subscribes = ["numbers"]
        deadline = "200ms"
        [agent.paused]
        command = ["BIN/numbers", "sink", "1"]
        env = { CHANNEL = "numbers" }
        subscribes = ["numbers"]
        deadline = "200ms"
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        env = { ON = "flood" }
        subscribes = ["numbers"]
        publishes = ["flood"]
        [agent.awake]
        command = ["BIN/slow", "naps", "200"]
        subscribes = ["flood"]
        deadline = "200ms"
        [agent.asked]
        command = ["BIN/slow", "naps", "200"]
        subscribes = ["flood"]
        deadline = "200ms"
        "#;
    let mut shoal = stage.run(&with_tap(&stage, text));
    shoal.until_ready();
    let [asleep, paused, awake] = ["asleep", "paused", "awake"].map(|name| shoal.pid_of(name));
    want(&stage, 5);
    until_received(&mut shoal, "asleep", 5);
    until_received(&mut shoal, "paused", 5);
    assert_untouched(&mut shoal, "awake", PsState::Ready);

    let asked = shoal.pid_of("asked");
    let pause = stage.start(stage.shoal(&["pause", "asked"]));
    shoal.until_agent("asked", "asked to pause", |a| (a.state == PsState::Paused).then_some(()));
    let supervisor = shoal.supervisor().expect("a supervisor");
    stage.halt(asked);
    // Twice a deadline it looks at who is awake.
    let looks = traces::sleeps(supervisor) + 20;
    until("ten deadlines", || (traces::sleeps(supervisor) > looks).then_some(()));
    assert_untouched(&mut shoal, "asked", PsState::Suspended);
    assert_eq!(stage.done(&["stop", "asked"]).status, 0);
    drop(pause);

    stage.halt(awake);
    let ended = |a: &shoal::control::PsAgent| (a.hangs == 1 && a.generation == 2).then_some(());
    shoal.until_agent("awake", "ended", ended);
    // It naps on and keeps the supervisor awake otherwise.
    assert_eq!(stage.done(&["stop", "awake"]).status, 0);

    assert_eq!(stage.done(&["pause", "paused"]).status, 0);
    [asleep, paused].into_iter().for_each(|pid| stage.halt(pid));
    shoal.until_quiet();
    assert_untouched(&mut shoal, "asleep", PsState::Suspended);
    want(&stage, 10);
    shoal.until_agent("asleep", "ended", ended);
    until_received(&mut shoal, "asleep", 10);
    shoal.until_quiet();
    assert_untouched(&mut shoal, "paused", PsState::Suspended);
    proceed(&stage, paused);
    assert_eq!(stage.done(&["resume", "paused"]).status, 0);
    until_received(&mut shoal, "paused", 10);
    assert_untouched(&mut shoal, "paused", PsState::Ready);

    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    for name in ["asleep", "awake"] {
        let notice = format!("agent {name} (generation 1) is stopped by a signal for ");
        assert_eq!(done.err.matches(&notice).count(), 1, "{}", done.err);
        assert!(done.err.contains(&format!("agent {name} (generation 1) was killed by SIG")), "{}", done.err);
    }
    stage.assert_nothing_left();
}

/// Goal: of who was stopped and has no deadline the operator is told once a stop, and it is shown; it is not ended. Method: SIGSTOP to a
/// sleeper for which messages wait, and to one with a message in hand; then the first is stopped once more.
#[test]
fn stopped_agent_without_a_deadline_is_shown_and_told_of_once_a_stop_and_goes_on() {
    let stage = stage!("stopped");
    let text = r#"
        [channel.relayed]
        message = "Number"
        [agent.asleep]
        command = ["BIN/numbers", "sink", "1"]
        env = { CHANNEL = "numbers" }
        subscribes = ["numbers"]
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        "#;
    let mut shoal = stage.run(&with_tap(&stage, text));
    shoal.until_ready();
    let [asleep, relay] = ["asleep", "relay"].map(|name| shoal.pid_of(name));
    want(&stage, 5);
    until_received(&mut shoal, "asleep", 5);
    until_received(&mut shoal, "sink", 5);
    stage.halt(asleep);
    let hold = stage.path("hold-relay");
    std::fs::write(&hold, "").expect("a file in the stage's folder");
    want(&stage, 10);
    let told =
        |name: &str, pid: i32| format!("agent {name} (generation 1, process {pid}) was stopped by a signal");
    shoal.until_said(&told("asleep", asleep));
    assert_untouched(&mut shoal, "asleep", PsState::Suspended);
    let status = stage.done(&["status"]);
    assert!(
        status.status != 0 && status.out.contains("degraded") && status.out.contains("suspended"),
        "{}",
        status.out
    );
    // Two looks later nothing more is said of the first.
    stage.halt(relay);
    shoal.until_said(&told("relay", relay));
    assert_eq!(shoal.err().matches(&told("asleep", asleep)).count(), 1, "{}", shoal.err());

    [asleep, relay].into_iter().for_each(|pid| proceed(&stage, pid));
    std::fs::remove_file(&hold).expect("it was there");
    until_received(&mut shoal, "asleep", 10);
    until_received(&mut shoal, "sink", 10);
    assert_untouched(&mut shoal, "relay", PsState::Ready);
    stage.halt(asleep);
    want(&stage, 15);
    until("the second stop told", || {
        (shoal.err().matches(&told("asleep", asleep)).count() == 2).then_some(())
    });
    proceed(&stage, asleep);
    until_received(&mut shoal, "asleep", 15);
    assert_untouched(&mut shoal, "asleep", PsState::Ready);
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}
