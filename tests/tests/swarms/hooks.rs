//! Lifecycle hooks: what they are told, that nobody waits for them, and that none outlives its time or the swarm.

use rustix::process::{Pid, Signal, kill_process};
use shoal::control::PsState;
use shoal_tests::{Running, Stage, stage, until};
use std::fs;

/// The lines that hooks wrote into the file `told`.
fn told(stage: &Stage) -> Vec<String> {
    let text = fs::read_to_string(stage.path("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn until_told(stage: &Stage, line: &str) {
    until(&format!("{line:?} told by a hook"), || told(stage).iter().any(|told| told == line).then_some(()));
}

/// Goal: each hook is run when it should be and knows what, who, which life and why; what it says is in its log, and a bad status is
/// told. Method: shell commands one at a time, so in order, for an agent that crashes and is given up and one that is stopped.
#[test]
fn hooks_are_told_of_starts_crashes_giving_up_and_rest() {
    let stage = stage!("hooks");
    fs::write(stage.path("let-good"), "").expect("a file of the stage");
    let tell = "echo $SHOAL_HOOK $SHOAL_AGENT $SHOAL_GENERATION: $SHOAL_REASON >> told";
    let text = format!(
        r#"
        [swarm]
        name = "NAME"
        logs = "logs"
        [hooks]
        started = ["/bin/sh", "-c", "{tell}"]
        ready = ["/bin/sh", "-c", "{tell}"]
        crash = ["/bin/sh", "-c", "{tell}; echo pager: $SHOAL_SWARM; echo no line >&2; exit 3"]
        give_up = ["/bin/sh", "-c", "{tell}"]
        stopped = ["/bin/sh", "-c", "{tell}"]
        at_once = 1
        [agent.good]
        command = ["BIN/stages", "slow"]
        [agent.bad]
        command = ["BIN/stages", "fails"]
        after = ["good"]
        restart = {{ intensity = 1 }}
        "#
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    shoal.until_agent("bad", "given up", |a| (a.state == PsState::Failed).then_some(()));
    let seen = until("giving up", || {
        let seen = told(&stage);
        seen.iter().any(|line| line.starts_with("give_up")).then_some(seen)
    });
    assert_eq!(
        seen[..8],
        [
            "started good 1: process started",
            "ready good 1: said ready",
            "started bad 1: process started",
            "ready bad 1: said ready",
            "crash bad 1: exited with status 1",
            "started bad 2: process started",
            "ready bad 2: said ready",
            "crash bad 2: exited with status 1",
        ]
    );
    assert!(seen[8].starts_with("give_up bad 2: agent bad is given up"), "{}", seen[8]);
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert_eq!(stage.done(&["stop", "good"]).status, 0);
    until_told(&stage, "stopped good 1: stopped");
    shoal.until_said("hook crash for agent bad ended with status 3");
    assert_eq!(shoal.stop().status, 1, "one agent stayed down");
    let log = fs::read_to_string(stage.path("logs/hook.crash.log")).expect("the log of the hook");
    let said = [format!("bad: pager: {}", stage.name()), "bad: no line".to_owned()];
    let lines: Vec<_> = log.lines().map(|line| line.split_once(" sup ").expect("a record").1).collect();
    assert_eq!(lines, [said.clone(), said].concat());
    stage.assert_nothing_left();
}

/// Goal: a hook that never ends is killed with all that it started, and nobody waits for it meanwhile. Method: a hook that sleeps with a
/// child that does; the agent comes back, and its death again, before the time-out.
#[test]
fn hook_that_never_ends_holds_up_nobody_and_is_killed_with_its_children() {
    let stage = stage!("hang");
    fs::write(stage.path("let-a"), "").expect("a file of the stage");
    let text = r#"
        [swarm]
        name = "NAME"
        [hooks]
        crash = ["/bin/sh", "-c", "sleep 1000 & echo $$ $! >> told; wait"]
        timeout = "1s"
        [agent.a]
        command = ["BIN/stages", "slow"]
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    for life in 1..=2 {
        let pid = shoal.until_agent("a", "ready again", |a| {
            (a.state == PsState::Ready && a.generation == life).then_some(a.pid?)
        });
        kill_process(Pid::from_raw(pid as i32).expect("a number"), Signal::KILL).expect("it lives");
    }
    shoal.until_agent("a", "ready", |a| (a.state == PsState::Ready && a.generation == 3).then_some(()));
    until("two hooks", || (told(&stage).len() == 2).then_some(()));
    shoal.until_said("hook crash for agent a was killed: it ran for longer than 1s");
    until("the end of the hooks", || {
        let pids = told(&stage).join(" ");
        let mut alive = pids.split(' ').filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("sleep"))
        });
        alive.next().is_none().then_some(())
    });
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: no more hooks run at once than the file says, and none is forgotten. Method: five agents get ready at once, and each hook
/// notes its begin and its end, between which it waits until all agents are known to be ready.
#[test]
fn no_more_hooks_run_at_once_than_the_file_says() {
    let stage = stage!("atonce");
    for replica in 1..=5 {
        fs::write(stage.path(&format!("let-a.{replica}")), "").expect("a file of the stage");
    }
    let text = r#"
        [swarm]
        name = "NAME"
        [hooks]
        ready = ["/bin/sh", "-c", "echo begins >> told; while [ ! -e go ]; do sleep 0.01; done; echo ends >> told"]
        at_once = 2
        [agent.a]
        command = ["BIN/stages", "slow"]
        replicas = 5
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    shoal.until_ready();
    until("two hooks", || (told(&stage).len() >= 2).then_some(()));
    fs::write(stage.path("go"), "").expect("a file of the stage");
    until("all hooks", || (told(&stage).len() == 10).then_some(()));
    let mut running = 0;
    for line in told(&stage) {
        running += if line == "begins" { 1 } else { -1 };
        assert!(running <= 2, "{:?}", told(&stage));
    }
    assert_eq!(running, 0);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: a swarm that ends lets its hooks say their word; one that is killed takes them along, and so does the supervisor's own death.
/// Method: a hook that goes on after the last agent's end; one that sleeps for ever under a second signal, and under SIGKILL.
#[test]
fn hooks_end_with_the_swarm() {
    let stage = stage!("along");
    fs::write(stage.path("let-a"), "").expect("a file of the stage");
    let file = |hook: &str| {
        let text = format!(
            r#"
            [swarm]
            name = "NAME"
            [hooks]
            stopped = ["/bin/sh", "-c", "{hook}"]
            timeout = "10m"
            [agent.a]
            command = ["BIN/stages", "slow"]
            "#
        );
        stage.write("swarm.toml", &text)
    };
    let mut shoal =
        stage.run(&file("echo begins >> told; while [ ! -e go ]; do sleep 0.01; done; echo ends >> told"));
    shoal.until_ready();
    shoal.send(Signal::TERM);
    until_told(&stage, "begins");
    assert_eq!(shoal.poll(), None, "it waits for the hook");
    fs::write(stage.path("go"), "").expect("a file of the stage");
    assert_eq!(shoal.ended().status, 0);
    assert_eq!(told(&stage), ["begins", "ends"]);
    stage.assert_nothing_left();
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = fs::remove_file(stage.path("told"));
        let mut shoal = stage.run(&file("echo sleeps >> told; exec sleep 1000"));
        shoal.until_ready();
        shoal.send(Signal::TERM);
        until_told(&stage, "sleeps");
        shoal.send(signal);
        shoal.ended();
        stage.until_no_process();
    }
}

/// Goal: what a hook had been run for when the supervisor dies is not lost: the next one runs it again. Method: a hook that waits to be let
/// go, and another that waits for its turn; the supervisor is killed meanwhile.
#[test]
fn hooks_that_ran_or_waited_are_run_by_the_next_supervisor() {
    let stage = stage!("heirs");
    fs::write(stage.path("let-good"), "").expect("a file of the stage");
    let wait = "echo $SHOAL_GENERATION begins >> told; while [ ! -e go ]; do sleep 0.005; done; echo $SHOAL_GENERATION ends >> told";
    let text = format!(
        r#"
        [swarm]
        name = "NAME"
        [hooks]
        crash = ["/bin/sh", "-c", "{wait}"]
        at_once = 1
        [agent.good]
        command = ["BIN/stages", "slow"]
        "#
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    for generation in 1..=2 {
        let pid = shoal.pid_of("good");
        kill_process(Pid::from_raw(pid).expect("a number"), Signal::KILL).expect("it lives");
        shoal.until_agent("good", "again", |a| {
            (a.generation == generation + 1 && a.state == PsState::Ready).then_some(())
        });
    }
    until_told(&stage, "1 begins");
    until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
    until("the hook, once more", || (told(&stage).len() == 2).then_some(()));
    fs::write(stage.path("go"), "").expect("a file of the stage");
    until_told(&stage, "2 ends");
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(told(&stage), ["1 begins", "1 begins", "1 ends", "2 begins", "2 ends"]);
    stage.assert_nothing_left();
}

/// Goal: the time that `down` is given bounds hooks, too, those that run and those that wait; without one they are waited for. Method: a
/// hook that never ends by itself, for two agents that are stopped one after the other, so that one waits and the other runs; then hooks that
/// end when they are let go.
#[test]
fn down_waits_for_hooks_and_no_longer_than_it_is_to() {
    let stage = stage!("hooks-down");
    let text = r#"
        [swarm]
        name = "NAME"
        [hooks]
        stopped = ["/bin/sh", "-c", "echo waits; echo begins >> told; while [ ! -e go ]; do sleep 0.01; done; echo ends >> told"]
        timeout = "10m"
        at_once = 1
        [agent.a]
        command = ["BIN/stages", "slow"]
        replicas = 2
        "#;
    let file = stage.write("swarm.toml", &format!("{text}\n"));
    let ready = || {
        (1..=2).for_each(|replica| fs::write(stage.path(&format!("let-a.{replica}")), "").expect("a file"));
        let mut shoal = stage.run(&file);
        shoal.until_ready();
        shoal
    };
    let down = |args: &[&str]| stage.start(stage.shoal(&[&["down", "--json"], args].concat()));
    let report = |out: &str| serde_json::from_str::<serde_json::Value>(out).expect("an object");

    let shoal = ready();
    for agent in ["a.1", "a.2"] {
        assert_eq!(stage.done(&["stop", agent]).status, 0);
        until_told(&stage, "begins");
    }
    let done = down(&["--timeout", "50ms"]).ended();
    assert_eq!((done.status, report(&done.out)["killed"].as_bool()), (1, Some(true)), "{}", done.err);
    let err = shoal.ended().err;
    assert!(err.contains("hook stopped for agent a.1 was killed with the swarm"), "{err}");
    assert!(err.contains("1 hooks were not run: the swarm was killed"), "{err}");
    assert_eq!(told(&stage), ["begins"]);
    stage.assert_nothing_left();

    let shoal = ready();
    let mut down = down(&[]);
    until("a hook", || (told(&stage).len() == 2).then_some(()));
    assert_eq!(down.poll(), None, "it waits for the hooks");
    fs::write(stage.path("go"), "").expect("a file of the stage");
    let done = down.ended();
    assert_eq!((done.status, report(&done.out)["killed"].as_bool()), (0, Some(false)), "{}", done.err);
    assert_eq!(shoal.ended().status, 0);
    assert_eq!(told(&stage), ["begins", "begins", "ends", "begins", "ends"]);
    stage.assert_nothing_left();
}

/// Goal: a start that is undone lets its hooks to their end, and no longer than `down --timeout`, or whoever interrupts it, wants. Method:
/// an agent that ends before it is ready, so that a hook runs that never ends by itself and others wait for their turn; then both ways of asking,
/// also of a successor of the supervisor that undid the start.
#[test]
fn hooks_of_a_start_that_is_undone_end_when_they_are_to() {
    let stage = stage!("hooks-undone");
    let text = r#"
        [swarm]
        name = "NAME"
        [hooks]
        crash = ["/bin/sh", "-c", "echo begins >> told; exec sleep 1000"]
        stopped = ["/bin/sh", "-c", "echo never >> told"]
        timeout = "10m"
        at_once = 1
        [agent.bad]
        command = ["/bin/sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; exit 3"]
        [agent.good]
        command = ["BIN/misbehaving", "idle"]
        "#;
    let file = stage.write("swarm.toml", text);
    let undone = || {
        let mut shoal = stage.run(&file);
        shoal.until_agent("good", "ready", |a| (a.state == PsState::Ready).then_some(()));
        fs::write(stage.path("go"), "").expect("a file of the stage");
        until_told(&stage, "begins");
        shoal.until("all at rest", |r| r.agents.iter().all(|a| a.state == PsState::Stopped).then_some(()));
        shoal
    };
    let was_cut_short = |shoal: Running<'_>, begun: &[&str]| {
        let done = shoal.ended();
        assert_eq!(done.status, 2, "{}", done.err);
        for said in [
            "hook crash for agent bad was killed with the swarm",
            "2 hooks were not run: the swarm was killed",
            "the swarm did not start",
        ] {
            assert!(done.err.contains(said), "{}", done.err);
        }
        assert_eq!(told(&stage), begun);
        stage.assert_nothing_left();
        fs::remove_file(stage.path("told")).and(fs::remove_file(stage.path("go"))).expect("for the next one");
    };

    let shoal = undone();
    let done = stage.done(&["down", "--timeout", "50ms", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&done.out).expect("an object");
    assert_eq!((done.status, report["killed"].as_bool()), (1, Some(true)), "{done:?}");
    was_cut_short(shoal, &["begins"]);

    let mut shoal = undone();
    shoal.succeed();
    until("the hook, once more", || (told(&stage).len() == 2).then_some(()));
    shoal.send(Signal::INT);
    was_cut_short(shoal, &["begins", "begins"]);
}
