//! Handlers that hang, and those that only look as if they did.

use rustix::process::Signal;
use shoal::control::{PsAgent, PsReport, PsState};
use shoal_tests::tapped::{want, with_tap};
use shoal_tests::{Stage, stage, traces, until};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const DEADLINE_MS: u64 = 200;

/// An agent that reads the tap's numbers in some way.
fn reader(name: &str, way: &str, deadline_ms: u64) -> String {
    format!(
        r#"
        [agent.{name}]
        command = ["BIN/slow", "{way}", "{deadline_ms}"]
        subscribes = ["numbers"]
        deadline = "{deadline_ms}ms"
        "#
    )
}

fn slow(stage: &Stage, way: &str) -> PathBuf {
    with_tap(stage, &reader("slow", way, DEADLINE_MS))
}

/// The numbers that an agent handled, each with the life that did it and the attempt that it was.
fn handled(stage: &Stage, name: &str) -> Vec<[u64; 3]> {
    let text = fs::read_to_string(stage.path(&format!("handled-{name}"))).unwrap_or_default();
    let entry = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().expect("a number")).collect();
        numbers.try_into().expect("three numbers")
    };
    text.lines().map(entry).collect()
}

fn until_handled(stage: &Stage, name: &str, count: usize) {
    until("numbers handled", || (handled(stage, name).len() >= count).then_some(()));
}

/// Goal: a handler that sleeps, loops, is stopped or does not heed SIGABRT is ended, its message is given to its next life, and nothing else
/// is. Method: numbers 5 and 15 hang, in the first life that meets them; the second of them comes after the whole swarm slept and the
/// supervisor with it, which looks at nobody then. Who cannot die of SIGABRT dies of the SIGKILL that follows.
#[test]
fn hung_handler_is_ended_and_its_message_comes_again_though_everybody_slept_before() {
    for (way, signal) in [("sleeps", ""), ("loops", ""), ("stops", "KILL"), ("ignores", "KILL")] {
        let stage = stage!("hung");
        let mut shoal = stage.run(&slow(&stage, way));
        want(&stage, 10);
        shoal.until_agent("slow", "ended once", |a| (a.hangs == 1 && a.generation == 2).then_some(()));
        until_handled(&stage, "slow", 10);
        shoal.until_quiet();
        want(&stage, 20);
        let restarts = shoal.until_agent("slow", "ended twice", |a| {
            (a.hangs == 2 && a.state == PsState::Ready).then_some(a.restarts)
        });
        until_handled(&stage, "slow", 20);
        assert_eq!(restarts, 2, "{way}");
        let life = |value: u64| 1 + u64::from(value >= 5) + u64::from(value >= 15);
        let attempt = |value: u64| 1 + u64::from(value == 5 || value == 15);
        let expected: Vec<_> = (0..20).map(|value| [value, life(value), attempt(value)]).collect();
        assert_eq!(handled(&stage, "slow"), expected, "{way}");
        let done = shoal.stop();
        assert_eq!(done.status, 0, "{}", done.err);
        let notice = "agent slow (generation 1) holds message tap/numbers/";
        assert!(done.err.contains(notice) && done.err.contains("`deadline` of [agent.slow]"), "{}", done.err);
        for generation in 1..=2 {
            let how = format!("agent slow (generation {generation}) was killed by SIG{signal}");
            assert!(done.err.contains(&how), "{way}: {}", done.err);
        }
        stage.assert_nothing_left();
    }
}

/// What an agent did in former lives, and how often it hung, is shown by the next supervisor as by the one that saw it.
#[test]
fn what_former_lives_counted_is_known_to_the_next_supervisor() {
    let stage = stage!("counted-on");
    let mut shoal = stage.run(&slow(&stage, "sleeps"));
    want(&stage, 10);
    until_handled(&stage, "slow", 10);
    // Its third life is given nothing, and the tap's second has nothing to send.
    for name in ["slow", "tap"] {
        assert_eq!(stage.done(&["restart", name]).status, 0, "{}", shoal.err());
    }
    let counted = |report: &PsReport| {
        let of = |a: &PsAgent| (a.hangs, a.sent, a.received, a.p50_ns, a.p99_ns);
        report.agents.iter().map(|a| (a.name.clone(), of(a))).collect::<BTreeMap<_, _>>()
    };
    let before = counted(&shoal.until_ready());
    let &(hangs, _, received, p50_ns, _) = before.get("slow").expect("an agent");
    assert!(hangs >= 1 && received >= 10 && p50_ns.is_some() && before["tap"].1 == 10, "{before:?}");
    shoal.succeed();
    assert_eq!(counted(&shoal.until_ready()), before);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: nobody is taken for hung who is not. Method: side by side, for eight deadlines, one who works and says so, one who waits
/// for space, one who never receives, and one who sleeps; each has the same deadline, and all are in their first life at the end.
#[test]
fn busy_blocked_idle_and_sleeping_agents_outlive_their_deadlines() {
    let stage = stage!("busy");
    let text = format!(
        r#"
        [channel.flood]
        message = "Number"
        capacity = "4 KiB"
        [agent.floods]
        command = ["BIN/slow", "floods", "{DEADLINE_MS}"]
        subscribes = ["numbers"]
        publishes = ["flood"]
        deadline = "{DEADLINE_MS}ms"
        [agent.naps]
        command = ["BIN/slow", "naps", "{DEADLINE_MS}"]
        subscribes = ["flood"]
        deadline = "{DEADLINE_MS}ms"
        {}{}"#,
        reader("busy", "busy", DEADLINE_MS),
        reader("sleeper", "sleeps", DEADLINE_MS)
    );
    let mut shoal = stage.run(&with_tap(&stage, &text));
    // The sleeper gets its number 5 when the others are done.
    want(&stage, 5);
    until_handled(&stage, "sleeper", 5);
    fs::write(stage.path("met-sleeper-5"), "").expect("a file in the stage's folder");
    let begun = Instant::now();
    want(&stage, 6);
    until_handled(&stage, "busy", 6);
    until_handled(&stage, "floods", 6);
    assert!(begun.elapsed() >= Duration::from_millis(DEADLINE_MS) * 8, "they did take their time");
    // What it prints comes by a pipe of its own.
    until("its words", || shoal.out().contains("channel `flood` stayed full for 1.6s").then_some(()));
    let report = shoal.until_ready();
    for agent in &report.agents {
        assert_eq!((agent.generation, agent.hangs), (1, 0), "{}: {}", agent.name, shoal.err());
    }
    for name in ["busy", "floods", "sleeper"] {
        let expected: Vec<_> = (0..6).map(|value| [value, 1, 1]).collect();
        assert_eq!(handled(&stage, name), expected, "{name}");
    }
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: a handler that yields may work for longer than its deadline, and hears there that a pause is wanted. Method: number 5 is worked on until
/// then, which is many deadlines later.
#[test]
fn handler_that_yields_outlives_its_deadline_and_hears_of_a_pause() {
    let stage = stage!("yields");
    let mut shoal = stage.run(&slow(&stage, "yields"));
    want(&stage, 10);
    until_handled(&stage, "slow", 5);
    let begun = Instant::now();
    until("many deadlines", || (begun.elapsed() >= Duration::from_millis(DEADLINE_MS) * 8).then_some(()));
    assert_eq!(handled(&stage, "slow").len(), 5, "{}", shoal.err());
    assert_eq!(stage.done(&["pause", "slow"]).status, 0);
    assert_eq!(handled(&stage, "slow").len(), 6, "it came to its end, and took nothing new");
    assert_eq!(stage.done(&["resume", "slow"]).status, 0);
    until_handled(&stage, "slow", 10);
    let lives = shoal.until_agent("slow", "shown", |a| Some((a.generation, a.hangs)));
    assert_eq!(lives, (1, 0), "{}", shoal.err());
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Processes that do nothing but spin; ended when dropped.
struct Load(Vec<Child>);

impl Load {
    fn of(stage: &Stage, processes: usize) -> Load {
        let spinning = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "while :; do :; done"]).env(traces::MARK, stage.mark());
            command.spawn().expect("a process that spins")
        };
        Load((0..processes).map(|_| spinning()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Goal: on a machine that has far too much to do nobody is taken for hung who is not, and who hangs is ended. Method: beside eight processes
/// that spin, one works for many deadlines without a pause, a twentieth of one for each number, and one holds number 15 for ever in its first
/// life.
#[test]
fn overloaded_machine_makes_nobody_hung_who_is_not_and_hides_nobody_who_is() {
    const COUNT: u64 = 300;
    let stage = stage!("loaded");
    fs::write(stage.path("met-sleeps-5"), "").expect("a file in the stage's folder");
    let readers = ["works", "sleeps"].map(|way| reader(way, way, 400)).concat();
    let mut shoal = stage.run(&with_tap(&stage, &readers));
    shoal.until_ready();
    let load = Load::of(&stage, 8);
    want(&stage, COUNT);
    for (name, lives) in [("works", (1, 0)), ("sleeps", (2, 1))] {
        let seen = shoal.until_agent(name, "given all", |a| {
            assert!((a.generation, a.hangs) <= lives, "{name}: {a:?}");
            let done = handled(&stage, name).len() as u64 == COUNT && a.received == COUNT;
            done.then_some((a.generation, a.hangs))
        });
        assert_eq!(seen, lives, "{name}: {}", shoal.err());
    }
    drop(load);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: who would work and is given no processor is not hung. Method: an agent has the least weight of all beside eight processes that spin, so that
/// it waits for many deadlines between two slices, with a message in hand that takes it a twentieth of one.
#[test]
fn who_is_given_no_processor_over_its_deadline_is_not_hung() {
    const COUNT: u64 = 4;
    let stage = stage!("starved");
    let works = reader("works", "works", 100);
    let mut shoal = stage.run(&with_tap(&stage, &format!("{works}limits = {{ nice = 19 }}")));
    shoal.until_ready();
    let load = Load::of(&stage, 8);
    want(&stage, COUNT);
    shoal.until_agent("works", "given all", |a| {
        assert_eq!((a.generation, a.hangs), (1, 0), "{a:?}");
        (a.received == COUNT).then_some(())
    });
    drop(load);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: a supervisor that was stopped, as with the whole machine, blames nobody for the time that passed; it goes on watching.
/// Method: both it and an agent that holds a message are stopped for five deadlines, ten seconds, and continued; only then may the agent go on.
/// Then it holds the next message for ever.
#[test]
fn supervisor_that_was_stopped_for_several_deadlines_kills_nobody_who_was_not_hung() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let stage = stage!("frozen");
    let text = r#"
        [channel.relayed]
        message = "Number"
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        deadline = "2s"
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        "#;
    let mut shoal = stage.run(&with_tap(&stage, text));
    let relay = shoal.pid_of("relay");
    shoal.until_ready();
    let hold = stage.path("hold-relay");
    fs::write(&hold, "").expect("a file in the stage's folder");
    want(&stage, 1);
    let held = |line: &str| {
        let text = fs::read_to_string(stage.path("held")).unwrap_or_default();
        text.lines().any(|held| held == line).then_some(())
    };
    until("the message in hand", || held("relay 0 1"));
    // Long enough for a look at it, which comes half a deadline after it woke.
    let begun = Instant::now();
    until("the first look", || (begun.elapsed() >= DEADLINE * 6 / 10).then_some(()));
    let supervisor = shoal.supervisor().expect("a supervisor");
    for pid in [supervisor, relay] {
        stage.halt(pid);
    }
    let stopped = Instant::now();
    until("five deadlines", || (stopped.elapsed() >= DEADLINE * 5).then_some(()));
    for pid in [relay, supervisor] {
        assert!(traces::send(pid, stage.mark(), Signal::CONT));
    }
    // The second answer comes behind all that was overdue at the first.
    for _ in 0..2 {
        let report = until("an answer", || shoal.try_ps());
        let relay = report.agents.iter().find(|a| a.name == "relay").expect("it is there");
        assert_eq!((relay.generation, relay.hangs), (1, 0), "{}", shoal.err());
    }
    fs::remove_file(&hold).expect("it was there");
    shoal.until_agent("relay", "through with its message", |a| {
        assert_eq!((a.generation, a.hangs), (1, 0), "it is not hung");
        (a.received == 1).then_some(())
    });
    fs::write(&hold, "").expect("a file in the stage's folder");
    want(&stage, 2);
    shoal.until_agent("relay", "ended", |a| (a.generation == 2 && a.hangs == 1).then_some(()));
    fs::remove_file(&hold).expect("it was there");
    shoal.until_agent("sink", "given both", |a| (a.received == 2).then_some(()));
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert!(done.err.contains("agent relay (generation 1) was killed by SIGABRT"), "{}", done.err);
    stage.assert_nothing_left();
}
