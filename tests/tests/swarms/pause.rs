//! Paused agents take nothing new, are not taken for hung or forgotten, stay paused over a death, and lose nothing.

use serde_json::Value;
use shoal::control::PsState;
use shoal_tests::tapped::{held, want, with_tap};
use shoal_tests::{Running, Stage, stage, until};
use std::fs;

fn done(stage: &Stage, args: &[&str]) -> String {
    let done = stage.done(args);
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}");
    done.out
}

/// Goal: all of the above. Method: a source and a sink that checks every number; both paused, their supervisor killed, then
/// themselves, and left so for longer than the deadline and two looks for forgotten sleepers; then let go one after the other.
#[test]
fn paused_agents_take_nothing_new_until_resumed_also_after_a_kill() {
    let stage = stage!("pause");
    let file = with_tap(
        &stage,
        r#"
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        env = { CHANNEL = "numbers" }
        subscribes = ["numbers"]
        deadline = "100ms"
        "#,
    );
    want(&stage, 10);
    let mut shoal = stage.run(&file);
    shoal.until_agent("sink", "has ten", |a| (a.received == 10).then_some(()));
    assert_eq!(done(&stage, &["pause", "sink"]), "sink paused\n");
    // Ten wait for the sink from here on.
    want(&stage, 20);
    shoal.until_agent("tap", "has sent twenty", |a| (a.sent == 20).then_some(()));
    assert_eq!(done(&stage, &["pause", "all"]), "tap, sink paused\n");
    want(&stage, 30);
    assert_eq!(stage.done(&["status"]).status, 0, "who is paused is well");
    // The next supervisor knows of it.
    until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
    shoal.until_said("takes over");
    for name in ["tap", "sink"] {
        assert_eq!(shoal.until_agent(name, "shown", |agent| Some(agent.state)), PsState::Paused, "{name}");
    }
    done(&stage, &["kill", "all"]);
    let report = shoal.until("two seconds of the next lives", |report| {
        let long = |a: &shoal::control::PsAgent| a.generation == 2 && a.uptime_ms > 2300;
        report.agents.iter().all(long).then(|| report.clone())
    });
    for agent in &report.agents {
        assert_eq!((agent.state, agent.rescues, agent.hangs), (PsState::Paused, 0, 0), "{agent:?}");
    }
    assert_eq!((report.agents[0].sent, report.agents[1].received), (20, 10), "nothing new");
    assert_eq!(done(&stage, &["resume", "tap"]), "tap resumed\n");
    shoal.until_agent("tap", "has sent thirty", |a| (a.sent == 30).then_some(()));
    let sink = shoal.until_agent("sink", "shown", |a| Some(a.clone()));
    assert_eq!((sink.state, sink.received), (PsState::Paused, 10));
    let resumed: Value =
        serde_json::from_str(&done(&stage, &["resume", "--json", "sink"])).expect("an object");
    assert_eq!(resumed["agents"][0], "sink");
    shoal.until_agent("sink", "has thirty", |a| (a.received == 30).then_some(()));
    // The end of the swarm ends the pause: what was sent meanwhile is read.
    done(&stage, &["pause", "sink"]);
    want(&stage, 35);
    shoal.until_agent("tap", "has sent all", |a| (a.sent == 35).then_some(()));
    assert_eq!(done(&stage, &["down"]), format!("swarm `{}` is down\n", stage.name()));
    assert_eq!(shoal.ended().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

#[test]
fn members_of_a_group_go_on_while_one_is_paused() {
    let stage = stage!("pause-group");
    let file = with_tap(
        &stage,
        r#"
        [channel.relayed]
        message = "Number"
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        replicas = 2
        subscribes = ["numbers"]
        publishes = ["relayed"]
        [agent.reader]
        command = ["BIN/misbehaving", "reads-relayed"]
        subscribes = ["relayed"]
        "#,
    );
    want(&stage, 0);
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    assert_eq!(done(&stage, &["pause", "relay.1"]), "relay.1 paused\n");
    want(&stage, 1000);
    shoal.until_agent("relay.2", "has all", |a| (a.received == 1000).then_some(()));
    let paused = shoal.until_agent("relay.1", "shown", |a| Some(a.clone()));
    assert_eq!((paused.state, paused.received), (PsState::Paused, 0));
    done(&stage, &["resume", "relay.1"]);
    done(&stage, &["pause", "relay.2"]);
    want(&stage, 2000);
    shoal.until_agent("relay.1", "has the others", |a| (a.received == 1000).then_some(()));
    done(&stage, &["down"]);
    assert_eq!(shoal.ended().status, 0);
    stage.assert_nothing_left();
}

/// Goal: a pause that is taken back before it began is not told as one, whether by an operator or by the end of the swarm. Method: a relay
/// that holds a message is paused; it is let go on, and paused again, and the swarm is ended.
#[test]
fn pause_that_is_taken_back_before_it_began_is_told_as_such() {
    let stage = stage!("back");
    let mut shoal = held(&stage);
    let paused = |shoal: &mut Running<'_>| {
        let asked = stage.start(stage.shoal(&["pause", "relay"]));
        shoal.until_agent("relay", "asked to pause", |a| (a.state == PsState::Paused).then_some(()));
        asked
    };
    let asked = paused(&mut shoal);
    assert_eq!(done(&stage, &["resume", "relay"]), "relay resumed\n");
    let told = asked.ended();
    assert_eq!((told.status, told.out.as_str()), (1, ""), "{}", told.err);
    assert!(told.err.contains("relay could not be paused: it was let go on before"), "{}", told.err);
    let asked = paused(&mut shoal);
    let down = stage.start(stage.shoal(&["down"]));
    let told = asked.ended();
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    assert_eq!((told.status, told.out.as_str()), (1, ""), "{}", told.err);
    assert!(told.err.contains("the swarm is stopping"), "{}", told.err);
    assert_eq!(down.ended().status, 0);
    assert_eq!(shoal.ended().status, 0);
    stage.assert_nothing_left();
}
