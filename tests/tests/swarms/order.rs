//! Who is started before whom, and whose end ends the swarm.

use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::tapped::{want, with_tap};
use shoal_tests::{Stage, stage, traces, until};
use std::fs;

fn order(stage: &Stage) -> Vec<String> {
    let text = fs::read_to_string(stage.path("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Goal: an agent is started when those that it comes after are ready, all their replicas, and ended before them. Method: each
/// may say ready only when the test lets it; what begins, gets ready and ends is noted in one file. The file of the swarm names
/// them against their order.
#[test]
fn agents_start_after_those_they_need_and_end_before_them() {
    let stage = stage!("after");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.page]
        command = ["BIN/stages", "slow"]
        after = ["cache", "store"]
        stop_timeout = "10m"
        [agent.cache]
        command = ["BIN/stages", "slow"]
        after = ["store"]
        [agent.store]
        command = ["BIN/stages", "slow"]
        replicas = 2
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    let seen = |last: &str| until(last, || order(&stage).iter().any(|line| line == last).then_some(()));
    let may = |name: &str| fs::write(stage.path(&format!("let-{name}")), "").expect("a file of the stage");
    seen("store.1 begins");
    seen("store.2 begins");
    may("store.1");
    shoal.until_agent("store.1", "ready", |a| (a.state == PsState::Ready).then_some(()));
    // It waits, for the other replica of the store.
    shoal
        .until_agent("cache", "waiting", |a| (a.state == PsState::Starting && a.pid.is_none()).then_some(()));
    may("store.2");
    seen("cache begins");
    may("cache");
    seen("page begins");
    may("page");
    shoal.until_ready();
    let stay = stage.path("stay-page");
    fs::write(&stay, "").expect("a file of the stage");
    shoal.send(Signal::TERM);
    let others = shoal.until("the page stopping", |report| {
        let stopping = report.agents.iter().any(|a| a.name == "page" && a.state == PsState::Stopping);
        let others = report.agents.iter().filter(|a| a.name != "page").map(|a| a.state);
        stopping.then(|| others.collect::<Vec<_>>())
    });
    assert_eq!(others, [PsState::Ready; 3], "nobody else is asked while the page stays");
    fs::remove_file(&stay).expect("it was there");
    let done = shoal.ended();
    assert_eq!(done.status, 0, "{}", done.err);
    let mut lines = order(&stage);
    lines[..2].sort();
    let last = lines.len() - 2;
    lines[last..].sort();
    assert_eq!(
        lines,
        [
            "store.1 begins",
            "store.2 begins",
            "store.1 is ready",
            "store.2 is ready",
            "cache begins",
            "cache is ready",
            "page begins",
            "page is ready",
            "page ends",
            "cache ends",
            "store.1 ends",
            "store.2 ends",
        ]
    );
    stage.assert_nothing_left();
}

/// Goal: a swarm that is asked to end while some wait for their first start ends, and starts nobody. Method: SIGTERM while an agent
/// waits for one that never gets ready.
#[test]
fn stop_of_a_swarm_that_still_starts_starts_nobody_more() {
    let stage = stage!("early");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.page]
        command = ["BIN/stages", "slow"]
        after = ["store"]
        [agent.store]
        command = ["BIN/stages", "slow"]
        stop_timeout = "100ms"
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    until("the store's begin", || (order(&stage) == ["store begins"]).then_some(()));
    shoal.until_agent("page", "waiting", |a| (a.state == PsState::Starting && a.pid.is_none()).then_some(()));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(order(&stage), ["store begins"]);
    stage.assert_nothing_left();
}

/// Goal: nobody waits for ever for one that will not come. Method: of two that an agent comes after, one fails after it was ready and
/// is given up, while the other is never ready.
#[test]
fn start_is_undone_when_one_that_others_wait_for_is_given_up() {
    let stage = stage!("hopeless");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.page]
        command = ["BIN/stages", "slow"]
        after = ["store", "cache"]
        [agent.store]
        command = ["BIN/stages", "fails"]
        restart = { intensity = 0 }
        [agent.cache]
        command = ["BIN/stages", "slow"]
        ready_timeout = "10m"
        "#;
    let done = stage.run(&stage.write("swarm.toml", text)).ended();
    assert_eq!(done.status, 2, "{}", done.err);
    assert!(
        done.err.contains("did not start") && done.err.contains("agent store is given up"),
        "{}",
        done.err
    );
    assert!(!order(&stage).iter().any(|line| line.starts_with("page")));
    stage.assert_nothing_left();
}

/// Goal: the normal end of a significant agent, and no other, ends a swarm of permanent agents well, and in stages. Method: the
/// first life of the worker fails, the second reads to its end; a source that never ends feeds it.
#[test]
fn normal_end_of_a_significant_agent_ends_the_swarm_with_status_0() {
    let stage = stage!("batch");
    let text = r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
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
    fs::write(stage.path("let-beside"), "").expect("a file of the stage");
    let done = stage.run(&stage.write("swarm.toml", text)).ended();
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("agent worker (generation 1) exited with status 1"), "{}", done.err);
    assert!(done.err.contains("agent worker has done its work and is significant"), "{}", done.err);
    assert!(done.out.contains("1000 numbers were read"), "{}", done.out);
    assert!(done.out.contains("sent "), "the source was asked, not killed: {}", done.out);
    let mut lines = order(&stage);
    lines.retain(|line| line.starts_with("beside"));
    assert_eq!(lines, ["beside begins", "beside is ready", "beside ends"]);
    stage.assert_nothing_left();
}

/// Goal: a significant agent of several processes ends the swarm when all of them have ended, and not before. Method: one of two sources stands
/// still until the other has ended.
#[test]
fn significant_agent_of_several_processes_ends_the_swarm_with_the_last_of_them() {
    let stage = stage!("replicas");
    let text = r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        [channel.relayed]
        message = "Number"
        [agent.source]
        command = ["BIN/numbers", "source", "50000"]
        publishes = ["numbers"]
        replicas = 2
        restart = "transient"
        significant = true
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        [agent.sink]
        command = ["BIN/numbers", "mourner"]
        subscribes = ["relayed"]
        "#;
    // Nobody ends before both are there: the first number is held.
    fs::write(stage.path("hold-relay"), "").expect("a file of the stage");
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    let slow = shoal.pid_of("source.2");
    shoal.until_ready();
    stage.halt(slow);
    fs::remove_file(stage.path("hold-relay")).expect("it was there");
    shoal.until_agent("source.1", "ended", |a| (a.state == PsState::Stopped).then_some(()));
    assert!(!shoal.err().contains("is significant"), "{}", shoal.err());
    shoal.until_agent("relay", "still at work", |a| (a.state == PsState::Ready).then_some(()));
    assert!(traces::send(slow, stage.mark(), Signal::CONT));
    let done = shoal.ended();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert_eq!(done.err.matches("has done its work and is significant").count(), 1, "{}", done.err);
    assert_eq!(done.out.matches("sent 50000").count(), 2, "{}", done.out);
    stage.assert_nothing_left();
}

/// Goal: why a swarm ends is known to the supervisor that ends it, though another has begun to. Method: an agent is given up and escalates; one that
/// is asked to end for that stays until the next supervisor is there.
#[test]
fn swarm_that_ends_because_of_an_agent_says_so_also_under_the_next_supervisor() {
    let stage = stage!("escalates-on");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.well]
        command = ["BIN/stages", "slow"]
        stop_timeout = "10m"
        [agent.bad]
        command = ["BIN/stages", "fails"]
        after = ["well"]
        restart = { intensity = 2, on_give_up = "escalate" }
        "#;
    for file in ["let-well", "stay-well"] {
        fs::write(stage.path(file), "").expect("a file of the stage");
    }
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    shoal.until_agent("well", "asked to end", |a| (a.state == PsState::Stopping).then_some(()));
    shoal.succeed();
    fs::remove_file(stage.path("stay-well")).expect("it was there");
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.contains("the swarm ended: agent bad died more than 2 times"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: why a swarm did not start is known to the supervisor that ends it, though another has begun to. Method: an agent fails before it is ready;
/// the hook that is told of that stays until the next supervisor is there.
#[test]
fn swarm_that_did_not_start_says_so_also_under_the_next_supervisor() {
    let stage = stage!("unstarted-on");
    let text = r#"
        [swarm]
        name = "NAME"
        [hooks]
        crash = ["/bin/sh", "-c", "touch told; while [ -e stay ]; do sleep 0.01; done"]
        [agent.bad]
        command = ["BIN/misbehaving", "exits"]
        "#;
    fs::write(stage.path("stay"), "").expect("a file of the stage");
    let shoal = stage.run(&stage.write("swarm.toml", text));
    until("a hook", || stage.path("told").exists().then_some(()));
    shoal.succeed();
    fs::remove_file(stage.path("stay")).expect("it was there");
    let done = shoal.ended();
    assert_eq!(done.status, 2, "{}", done.err);
    assert!(
        done.err.contains("the swarm did not start: ") && done.err.contains("agent bad exited"),
        "{}",
        done.err
    );
    stage.assert_nothing_left();
}

/// Goal: `on_give_up = "escalate"` without a set ends the swarm, with status 1 and the reason; `fail` leaves it running. Method: an agent that
/// dies at once, beside one that is well.
#[test]
fn agent_that_is_given_up_and_escalates_ends_the_swarm_though_it_is_in_no_set() {
    for (on_give_up, ends) in [("escalate", true), ("fail", false)] {
        let stage = stage!("escalates");
        let text = format!(
            "[swarm]\nname = \"NAME\"\n[agent.well]\ncommand = [\"BIN/stages\", \"slow\"]\n[agent.bad]\n\
             command = [\"BIN/stages\", \"fails\"]\nafter = [\"well\"]\n\
             restart = {{ intensity = 2, on_give_up = \"{on_give_up}\" }}\n"
        );
        fs::write(stage.path("let-well"), "").expect("a file of the stage");
        let mut shoal = stage.run(&stage.write("swarm.toml", &text));
        if !ends {
            shoal.until_agent("bad", "given up", |a| (a.state == PsState::Failed).then_some(()));
            shoal.until_agent("well", "well", |a| (a.state == PsState::Ready).then_some(()));
            assert_eq!(shoal.stop().status, 1, "an agent was given up");
        } else {
            let done = shoal.ended();
            assert_eq!(done.status, 1, "{}", done.err);
            assert!(done.err.contains("the swarm ended: agent bad died more than 2 times"), "{}", done.err);
        }
        assert_eq!(order(&stage), ["well begins", "well is ready", "well ends"]);
        stage.assert_nothing_left();
    }
}

#[test]
fn agent_is_told_of_peers_that_are_gone_for_good_when_all_that_they_sent_is_read() {
    // Goal: who asked is told of who does not come back, after its last message, and not of a death that is answered: by `on_gone`, in a
    // receive that waits without limit, and by the descriptor. Method: SIGKILL to a relay that comes back, and to one whose policy ends it
    // while its readers stand still; an operator starts that again, and it is killed again.
    let stage = stage!("gone");
    let relay = |name: &str, restart: &str| {
        format!(
            "[agent.{name}]\ncommand = [\"BIN/numbers\", \"relay\"]\nsubscribes = [\"numbers\"]\npublishes = [\"relayed\"]\n\
             restart = \"{restart}\"\ngroup = \"{name}\"\n"
        )
    };
    let mourner = |name: &str, ways: &str| {
        format!(
            "[agent.{name}]\ncommand = [\"BIN/numbers\", \"mourner\"{ways}]\nsubscribes = [\"relayed\"]\n"
        )
    };
    const MOURNERS: [&str; 3] = ["handler", "receiver", "waiter"];
    let text = format!(
        "[channel.relayed]\nmessage = \"Number\"\n{}{}{}{}{}",
        relay("hardy", "permanent"),
        relay("mortal", "temporary"),
        mourner(MOURNERS[0], ""),
        mourner(MOURNERS[1], ", \"receive\""),
        mourner(MOURNERS[2], ", \"descriptor\""),
    );
    let mut shoal = stage.run(&with_tap(&stage, &text));
    shoal.until_ready();
    let gone = |name: &str| std::fs::read_to_string(stage.path(&format!("gone-{name}"))).unwrap_or_default();
    want(&stage, 5);
    for name in MOURNERS {
        shoal.until_agent(name, "told of all numbers", |agent| (agent.received == 10).then_some(()));
    }
    let hardy = shoal.pid_of("hardy");
    assert!(traces::kill(hardy, stage.mark()));
    shoal.until_agent("hardy", "back", |agent| {
        (agent.generation == 2 && agent.state == PsState::Ready).then_some(())
    });
    assert_eq!(MOURNERS.map(gone), ["", "", ""], "who comes back is not gone");
    // What it sends last lies unread while its readers stand still.
    let mortal = shoal.pid_of("mortal");
    let mourners = MOURNERS.map(|name| shoal.pid_of(name));
    let all = |signal| mourners.iter().for_each(|&pid| assert!(traces::send(pid, stage.mark(), signal)));
    all(Signal::STOP);
    want(&stage, 9);
    for name in ["hardy", "mortal"] {
        shoal.until_agent(name, "nine numbers on", |agent| (agent.sent == 9).then_some(()));
    }
    assert!(traces::kill(mortal, stage.mark()));
    shoal.until_agent("mortal", "given up", |agent| (agent.state == PsState::Failed).then_some(()));
    all(Signal::CONT);
    let firsts = MOURNERS.map(|name| {
        until(&format!("word of the mortal one at {name}"), || gone(name).ends_with('\n').then_some(()));
        let first = gone(name);
        let read: u64 =
            first.trim().strip_prefix("mortal ").and_then(|count| count.parse().ok()).expect("a count");
        assert!((14..=18).contains(&read), "all that it had sent was read: {first:?}");
        first
    });
    assert_eq!(stage.done(&["start", "mortal"]).status, 0);
    let again = shoal.pid_of("mortal");
    for name in MOURNERS {
        shoal.until_agent(name, "told of all numbers", |agent| (agent.received == 18).then_some(()));
    }
    assert!(traces::kill(again, stage.mark()));
    for (name, first) in MOURNERS.into_iter().zip(firsts) {
        let told = format!("{first}mortal 18\n");
        until(&format!("{told:?} at {name}"), || (gone(name) == told).then_some(()));
    }
    assert_eq!(shoal.stop().status, 1, "somebody was given up");
    stage.assert_nothing_left();
}
