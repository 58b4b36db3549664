//! Sets of agents that are restarted together: who falls with whom, in which order, and to whom too many deaths are told.

use rustix::process::{Pid, Signal, kill_process};
use shoal::control::{PsSetState, PsState};
use shoal_tests::tapped::{want, with_tap};
use shoal_tests::{Book, Chance, Running, Stage, stage, until};
use std::fs;
use std::time::Duration;

fn order(stage: &Stage) -> Vec<String> {
    let text = fs::read_to_string(stage.path("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn may(stage: &Stage, names: &[&str]) {
    for name in names {
        fs::write(stage.path(&format!("let-{name}")), "").expect("a file of the stage");
    }
}

/// Kills the process of an agent that is ready from outside: a crash, which nobody ordered.
fn crash(shoal: &mut Running<'_>, name: &str) {
    let pid = Pid::from_raw(shoal.pid_of(name)).expect("a process number");
    kill_process(pid, Signal::KILL).expect("it lives");
}

fn until_life(shoal: &mut Running<'_>, name: &str, generation: u64) {
    shoal.until_agent(name, &format!("ready in generation {generation}"), |a| {
        (a.state == PsState::Ready && a.generation == generation).then_some(())
    });
}

/// Four agents that fall with those named before them, and one beside.
const SITE: &str = r#"
    [swarm]
    name = "NAME"
    [set.site]
    members = ["store", "cache", "page", "ads"]
    strategy = "rest_for_one"
    [agent.ads]
    command = ["BIN/stages", "slow"]
    [agent.page]
    command = ["BIN/stages", "slow"]
    [agent.cache]
    command = ["BIN/stages", "slow"]
    [agent.store]
    command = ["BIN/stages", "slow"]
    [agent.beside]
    command = ["BIN/stages", "slow"]
"#;

/// Goal: with `rest_for_one` those after the dead are stopped, last first, and all start again, first first, each when the one
/// before it is ready; those before it live on. Method: SIGKILL to the second of four that note their begins and ends.
#[test]
fn death_in_a_rest_for_one_set_restarts_those_after_it_in_order() {
    let stage = stage!("rest");
    may(&stage, &["store", "cache", "page", "ads", "beside"]);
    let mut shoal = stage.run(&stage.write("swarm.toml", SITE));
    shoal.until_ready();
    let mut first = order(&stage);
    first.retain(|line| !line.starts_with("beside"));
    let begins = |name: &str| [format!("{name} begins"), format!("{name} is ready")];
    assert_eq!(
        first,
        ["store", "cache", "page", "ads"].map(begins).concat(),
        "the set is started in its order"
    );
    let before = order(&stage).len();
    crash(&mut shoal, "cache");
    until_life(&mut shoal, "ads", 2);
    let report = shoal.until_ready();
    assert_eq!(
        order(&stage)[before..],
        [
            "ads ends",
            "page ends",
            "cache begins",
            "cache is ready",
            "page begins",
            "page is ready",
            "ads begins",
            "ads is ready",
        ]
    );
    let lives = ["store", "cache", "page", "ads", "beside"].map(|name| {
        let agent = report.agents.iter().find(|a| a.name == name).expect(name);
        (agent.generation, agent.set.as_deref())
    });
    let site = Some("site");
    assert_eq!(lives, [(1, site), (2, site), (2, site), (2, site), (1, None)]);
    let set = &report.sets[0];
    assert_eq!((set.strategy.as_str(), set.restarts, set.state), ("rest_for_one", 0, PsSetState::Running));
    assert_eq!(set.members, ["store", "cache", "page", "ads"]);
    let table = stage.done(&["ps"]).out;
    assert!(table.contains("site, rest_for_one"), "{table}");
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("agent cache died, page, ads fall with it"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: the restart of a set that was under way goes on under the next supervisor, in its order. Method: the first that comes back is not
/// let become ready, and the supervisor is killed; then again at random moments of a restart.
#[test]
fn restart_of_a_set_goes_on_under_the_next_supervisor() {
    let stage = stage!("rest");
    may(&stage, &["store", "cache", "page", "ads", "beside"]);
    let mut shoal = stage.run(&stage.write("swarm.toml", SITE));
    shoal.until_ready();
    let mut chance = Chance::seeded();
    let mut last = 1;
    for round in 1..=5 {
        let before = order(&stage).len();
        let lines = || order(&stage)[before..].to_vec();
        let all = ["ads ends", "page ends"].into_iter().map(str::to_owned);
        let begins = |name| [format!("{name} begins"), format!("{name} is ready")];
        let all: Vec<String> = all.chain(["cache", "page", "ads"].into_iter().flat_map(begins)).collect();
        if round == 1 {
            fs::remove_file(stage.path("let-cache")).expect("it was let");
            crash(&mut shoal, "cache");
            until("the first of them", || (lines().len() == 3).then_some(()));
            until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
            shoal.until_said("takes over");
            shoal.until_agent("page", "known to the successor", |_| Some(()));
            assert_eq!(lines(), all[..3], "nobody comes back before those that it comes after");
            may(&stage, &["cache"]);
        } else {
            crash(&mut shoal, "cache");
            std::thread::sleep(chance.time(Duration::from_millis(60)));
            until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
        }
        // A birth that the supervisor's death cut off is begun anew: that uses up a generation, and nothing of the agent has run.
        last = shoal.until_agent("ads", &format!("ready again after generation {last}"), |a| {
            (a.state == PsState::Ready && a.generation > last).then_some(a.generation)
        });
        shoal.until_ready();
        assert_eq!(lines(), all, "in round {round}");
    }
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: with `one_for_all` every process of the set is started again, replicas too, and nobody begins before the last has ended; a
/// kill that an operator ordered is followed by the same. Method: one replica of two is killed, by `shoal kill`.
#[test]
fn death_in_a_one_for_all_set_restarts_all_of_it() {
    let stage = stage!("all");
    may(&stage, &["store", "page.1", "page.2", "beside"]);
    let text = r#"
        [swarm]
        name = "NAME"
        [set.site]
        members = ["store", "page"]
        strategy = "one_for_all"
        [agent.store]
        command = ["BIN/stages", "slow"]
        [agent.page]
        command = ["BIN/stages", "slow"]
        replicas = 2
        [agent.beside]
        command = ["BIN/stages", "slow"]
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    shoal.until_ready();
    let before = order(&stage).len();
    assert_eq!(stage.done(&["kill", "page.1"]).status, 0);
    for name in ["store", "page.1", "page.2"] {
        until_life(&mut shoal, name, 2);
    }
    let lines = order(&stage);
    assert_eq!(lines[before..before + 4], ["page.2 ends", "store ends", "store begins", "store is ready"]);
    let beside = shoal.until_agent("beside", "there", |a| Some(a.generation));
    assert_eq!(beside, 1);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: an agent that dies too often restarts its set as a whole, then the set around it, then ends the swarm, in stages, with status 1
/// and a message that names the chain. Method: an agent that fails as soon as it is ready; in each set one that is well.
#[test]
fn too_many_deaths_are_told_from_set_to_set_until_the_swarm_ends_with_status_1() {
    let stage = stage!("chain");
    may(&stage, &["near", "far", "beside"]);
    let text = r#"
        [swarm]
        name = "NAME"
        [set.outer]
        members = ["inner", "far"]
        intensity = 1
        [set.inner]
        members = ["bad", "near"]
        intensity = 1
        [agent.bad]
        command = ["BIN/stages", "fails"]
        after = ["near", "far", "beside"]
        restart = { intensity = 1 }
        [agent.near]
        command = ["BIN/stages", "slow"]
        [agent.far]
        command = ["BIN/stages", "slow"]
        [agent.beside]
        command = ["BIN/stages", "slow"]
        "#;
    let done = stage.run(&stage.write("swarm.toml", text)).ended();
    assert_eq!(done.status, 1, "{}", done.err);
    let last = done.err.lines().last().unwrap_or_default();
    for part in [
        "the swarm ended",
        "agent bad died more than 1 time within",
        "exited with status 1",
        "set inner",
        "set outer",
    ] {
        assert!(last.contains(part), "{part:?} in {last:?}");
    }
    let gave_up = done.err.lines().find(|line| line.contains("agent bad is given up")).unwrap_or_default();
    assert!(
        gave_up.contains("sets the bounds") && !gave_up.contains("shoal start"),
        "nothing is left to start: {gave_up}"
    );
    let lines = order(&stage);
    let count = |what: &str| lines.iter().filter(|line| *line == what).count();
    // 1 restart of the inner set in each of the outer's 2 lives, and who was asked to end did.
    assert_eq!((count("near begins"), count("far begins"), count("beside begins")), (4, 2, 1), "{lines:?}");
    assert_eq!((count("near ends"), count("far ends"), count("beside ends")), (4, 2, 1), "{lines:?}");
    stage.assert_nothing_left();
}

/// Goal: a set within a set falls as a whole, in its order, with whoever it is a member with, and within it its own strategy holds. Method:
/// SIGKILL to the second of three with `rest_for_one`, then to the first of the `one_for_all` set around these.
#[test]
fn set_within_a_set_falls_as_a_member_of_it_and_keeps_its_own_strategy() {
    let stage = stage!("nested");
    const NAMES: [&str; 5] = ["base", "store", "cache", "page", "last"];
    may(&stage, &NAMES);
    let agents = NAMES.map(|name| format!("[agent.{name}]\ncommand = [\"BIN/stages\", \"slow\"]\n")).concat();
    let text = format!(
        "[swarm]\nname = \"NAME\"\n[set.outer]\nmembers = [\"base\", \"inner\", \"last\"]\nstrategy = \"one_for_all\"\n\
         [set.inner]\nmembers = [\"store\", \"cache\", \"page\"]\nstrategy = \"rest_for_one\"\n{agents}"
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    shoal.until_ready();
    let comes_back = |name: &&str| [format!("{name} begins"), format!("{name} is ready")];
    let fall_and_come_back =
        |shoal: &mut Running<'_>, victim: &str, down: &[&str], up: &[&str], generations: [u64; 5]| {
            let before = order(&stage).len();
            crash(shoal, victim);
            for (name, generation) in NAMES.into_iter().zip(generations) {
                until_life(shoal, name, generation);
            }
            let ends = down.iter().map(|name| format!("{name} ends"));
            let due: Vec<String> = ends.chain(up.iter().flat_map(comes_back)).collect();
            assert_eq!(order(&stage)[before..], due, "after the death of {victim}");
        };
    fall_and_come_back(&mut shoal, "cache", &["page"], &["cache", "page"], [1, 1, 2, 2, 1]);
    fall_and_come_back(&mut shoal, "base", &["last", "page", "cache", "store"], &NAMES, [2, 2, 3, 3, 2]);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: a significant member of a set has its set fall with it while it fails, and ends the swarm, and nobody starts again, once it ends
/// well. Method: a batch worker whose first life fails in the middle, with one that falls with it; a source that never ends feeds it.
#[test]
fn significant_member_of_a_set_takes_its_set_along_when_it_fails_and_ends_the_swarm_when_it_is_done() {
    let stage = stage!("significant");
    may(&stage, &["beside"]);
    let text = r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        [set.batch]
        members = ["beside", "worker"]
        strategy = "one_for_all"
        [agent.source]
        command = ["BIN/numbers", "source", "0"]
        publishes = ["numbers"]
        [agent.worker]
        command = ["BIN/stages", "worker", "1000"]
        subscribes = ["numbers"]
        restart = "transient"
        significant = true
        [agent.beside]
        command = ["BIN/stages", "slow"]
        "#;
    let done = stage.run(&stage.write("swarm.toml", text)).ended();
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("agent worker died, beside fall"), "{}", done.err);
    assert!(done.err.contains("agent worker has done its work and is significant"), "{}", done.err);
    assert!(done.out.contains("1000 numbers were read"), "{}", done.out);
    let life = ["beside begins", "beside is ready", "beside ends"];
    let mut lines = order(&stage);
    lines.retain(|line| line.starts_with("beside"));
    assert_eq!(lines, [life, life].concat());
    stage.assert_nothing_left();
}

/// Goal: a set that says `on_give_up = "fail"` is given up with all that is in it, the rest goes on, and an operator can start it
/// again. Method: as above; then the agent is let to live.
#[test]
fn set_that_fails_leaves_the_rest_alone_and_starts_again_when_an_operator_asks() {
    let stage = stage!("fails");
    may(&stage, &["near", "beside"]);
    let text = r#"
        [swarm]
        name = "NAME"
        [set.inner]
        members = ["bad", "near"]
        intensity = 0
        on_give_up = "fail"
        [agent.bad]
        command = ["BIN/stages", "fails"]
        after = ["near", "beside"]
        restart = { intensity = 0 }
        [agent.near]
        command = ["BIN/stages", "slow"]
        [agent.beside]
        command = ["BIN/stages", "slow"]
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    let report = shoal.until("the set given up", |report| {
        let failed = |name: &str| report.agents.iter().any(|a| a.name == name && a.state == PsState::Failed);
        (failed("bad") && failed("near")).then(|| report.clone())
    });
    assert_eq!(report.sets[0].state, PsSetState::Failed);
    assert!(stage.done(&["ps"]).out.contains("inner, one_for_one"));
    until_life(&mut shoal, "beside", 1);
    assert!(shoal.err().contains("agent near is given up with its set inner"), "{}", shoal.err());
    let report = stage.done(&["crashes", "show", "1", "--json"]).out;
    let report: serde_json::Value = serde_json::from_str(&report).expect("an object");
    assert_eq!((&report["agent"], &report["decision"]["what"]), (&"bad".into(), &"given-up".into()));
    let why = report["decision"]["why"].as_str().expect("a text");
    assert!(why.ends_with("set inner is given up, with all that is in it"), "{why}");
    let started = stage.done(&["start", "near"]);
    assert_eq!(started.status, 0, "{}", started.err);
    let done = shoal.stop();
    assert_eq!(done.status, 1, "one stayed down: {}", done.err);
    stage.assert_nothing_left();
}

/// Goal: what a strategy orders costs no message and is no attempt at one. Method: a relay that may try each message once is made to
/// hold one, and falls, killed after its `stop_timeout`, with a bystander that dies; the sink is to meet every number once.
#[test]
fn restart_ordered_by_a_strategy_is_no_attempt_and_loses_no_message() {
    let stage = stage!("once");
    may(&stage, &["beside"]);
    let hold = stage.path("hold-relay");
    fs::write(&hold, "").expect("a file of the stage");
    want(&stage, 100);
    let text = r#"
        [channel.relayed]
        message = "Number"
        [set.pair]
        members = ["beside", "relay"]
        strategy = "rest_for_one"
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        max_attempts = 1
        stop_timeout = "20ms"
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        [agent.beside]
        command = ["BIN/stages", "slow"]
        "#;
    let mut shoal = stage.run(&with_tap(&stage, text));
    let held = |count: usize| {
        until("a message in hand", || {
            let text = fs::read_to_string(stage.path("held")).unwrap_or_default();
            (text.lines().count() == count).then_some(text)
        })
    };
    for life in 1..=3 {
        until_life(&mut shoal, "relay", life);
        held(life as usize);
        crash(&mut shoal, "beside");
    }
    until_life(&mut shoal, "relay", 4);
    assert_eq!(held(4), "relay 0 1\n".repeat(4), "the first attempt each time");
    fs::remove_file(&hold).expect("it was there");
    until("all numbers", || (Book::count(&stage.path("sink")) == 100).then_some(()));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

/// Goal: a swarm that is asked to end while a set restarts ends, and brings nobody back. Method: SIGTERM while the last of the set does
/// not end, and the one before it is still to be stopped.
#[test]
fn stop_of_a_swarm_whose_set_restarts_ends_it() {
    let stage = stage!("amid");
    may(&stage, &["store", "cache", "page"]);
    let text = r#"
        [swarm]
        name = "NAME"
        [set.site]
        members = ["store", "cache", "page"]
        strategy = "one_for_all"
        [agent.store]
        command = ["BIN/stages", "slow"]
        [agent.cache]
        command = ["BIN/stages", "slow"]
        [agent.page]
        command = ["BIN/stages", "slow"]
        stop_timeout = "10m"
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    shoal.until_ready();
    let stay = stage.path("stay-page");
    fs::write(&stay, "").expect("a file of the stage");
    crash(&mut shoal, "store");
    let others = shoal.until("the page stopping", |report| {
        let of = |name: &str| report.agents.iter().find(|a| a.name == name).map(|a| a.state);
        (of("page") == Some(PsState::Stopping)).then(|| (of("store"), of("cache"), report.sets[0].state))
    });
    assert_eq!(others, (Some(PsState::Backoff), Some(PsState::Ready), PsSetState::Restarting));
    shoal.send(Signal::TERM);
    shoal.until_agent("store", "stopped", |a| (a.state == PsState::Stopped).then_some(()));
    fs::remove_file(&stay).expect("it was there");
    let done = shoal.ended();
    assert_eq!(done.status, 0, "{}", done.err);
    let lines = order(&stage);
    assert_eq!(lines.iter().filter(|line| line.ends_with("begins")).count(), 3, "{lines:?}");
    stage.assert_nothing_left();
}
