//! Groups: each sees every message, one member of it works on each, and what a member holds is little and soon another's.

use rustix::process::Signal;
use shoal_tests::stage::HARDY;
use shoal_tests::tapped::{until_met, want};
use shoal_tests::{Book, Stage, stage, traces, until};
use std::fs;

/// A tap, agents that relay its numbers, and a sink that takes them in any order.
fn swarm(stage: &Stage, source: &str, relays: &str) -> std::path::PathBuf {
    let text = format!(
        r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        capacity = "64 KiB"
        [channel.relayed]
        message = "Number"
        [agent.source]
        command = ["BIN/numbers", {source}]
        publishes = ["numbers"]
        {HARDY}
        [agent.sink]
        command = ["BIN/numbers", "sink", "0"]
        subscribes = ["relayed"]
        {HARDY}
        {relays}
        "#
    );
    stage.write("swarm.toml", &text)
}

/// An agent that relays in the group `relays`.
fn relay(name: &str, more: &str) -> String {
    format!(
        r#"
        [agent.{name}]
        command = ["BIN/numbers", "relay"]
        group = "relays"
        subscribes = ["numbers"]
        publishes = ["relayed"]
        {HARDY}
        {more}
        "#
    )
}

/// What an agent held and in which attempt: `NAME VALUE ATTEMPT`, a line each time.
fn held(stage: &Stage) -> Vec<String> {
    let text = fs::read_to_string(stage.path("held")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The numbers that the sink has not met of so many.
fn missing(stage: &Stage, count: u64) -> Vec<u64> {
    let met = Book::read(&stage.path("sink")).expect("the sink's book");
    (0..count).filter(|n| !met.contains(n)).collect()
}

/// Goal: a slow member holds what it works on and no more. Method: of three members one waits with a message in hand; the
/// others must bring everything else, hundreds of messages, and a second group everything.
#[test]
fn slow_member_holds_its_message_and_the_others_all_else() {
    let stage = stage!("slow");
    let other = r#"
        [channel.seen]
        message = "Number"
        [agent.watcher]
        command = ["BIN/numbers", "relay"]
        env = { ON = "seen" }
        replicas = 2
        subscribes = ["numbers"]
        publishes = ["seen"]
        [agent.notebook]
        command = ["BIN/numbers", "sink", "0"]
        env = { CHANNEL = "seen" }
        subscribes = ["seen"]
    "#;
    let file = swarm(&stage, r#""tap""#, &(relay("slow", "") + &relay("quick", "replicas = 2") + other));
    fs::write(stage.path("hold-slow"), "").expect("a hold");
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    // Few at a time, until the slow one has taken one.
    let mut sent = 0;
    until("a message in the slow member's hand", || {
        sent += 1;
        want(&stage, sent);
        (!held(&stage).is_empty()).then_some(())
    });
    let count = sent + 300;
    want(&stage, count);
    until_met(&stage, &mut shoal, count - 1);
    assert_eq!(held(&stage).len(), 1, "it holds one");
    assert_eq!(held(&stage)[0], format!("slow {} 1", missing(&stage, count)[0]));
    until("everything at the other group", || (Book::count(&stage.path("notebook")) == count).then_some(()));
    fs::remove_file(stage.path("hold-slow")).expect("let go");
    until_met(&stage, &mut shoal, count);
    assert_eq!((missing(&stage, count), stage.violations().as_str()), (vec![], ""));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: what a dead member held is another's at once, with its attempts told: a death from outside counts, an ordered one
/// does not. Method: the member that holds a message is killed by SIGKILL from outside, then the next by `shoal kill`.
#[test]
fn message_of_a_dead_member_goes_to_another_with_its_attempts() {
    let stage = stage!("dead");
    let file = swarm(&stage, r#""tap""#, &relay("member", "replicas = 3"));
    let all = ["member.1", "member.2", "member.3"];
    let hold = |name: &str| stage.path(&format!("hold-{name}"));
    all.iter().for_each(|name| fs::write(hold(name), "").expect("a hold"));
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    want(&stage, 1);
    let holder = |deliveries: usize| {
        until("a message in hand", || {
            let held = held(&stage);
            (held.len() == deliveries).then(|| held[deliveries - 1].clone())
        })
    };
    let name = |line: &str| line.split(' ').next().expect("a name").to_owned();
    let first = holder(1);
    assert!(first.ends_with(" 0 1"), "{first}");
    let pid = shoal.pid_of(&name(&first));
    assert!(traces::kill(pid, stage.mark()));
    let second = holder(2);
    assert!(second.ends_with(" 0 2"), "a death from outside counts: {second}");
    let killed = stage.done(&["kill", &name(&second)]);
    assert_eq!(killed.status, 0, "{}", killed.err);
    let third = holder(3);
    assert!(third.ends_with(" 0 2"), "an ordered death does not: {third}");
    all.iter().for_each(|name| fs::remove_file(hold(name)).expect("let go"));
    until_met(&stage, &mut shoal, 1);
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: a stopped member keeps nobody waiting. Method: SIGSTOP of an idle member, which has claimed nothing; SIGCONT later.
#[test]
fn stopped_member_keeps_nobody_waiting_and_goes_on_later() {
    let stage = stage!("stopped");
    let mut shoal = stage.run(&swarm(&stage, r#""tap""#, &relay("member", "replicas = 2\nprefetch = 4")));
    shoal.until_ready();
    want(&stage, 10);
    until_met(&stage, &mut shoal, 10);
    let pid = shoal.pid_of("member.1");
    stage.halt(pid);
    // More than the ring holds.
    want(&stage, 3000);
    until_met(&stage, &mut shoal, 3000);
    assert!(traces::send(pid, stage.mark(), Signal::CONT));
    let other = shoal.pid_of("member.2");
    stage.halt(other);
    want(&stage, 6000);
    until_met(&stage, &mut shoal, 6000 - 4);
    assert!(traces::send(other, stage.mark(), Signal::CONT));
    until_met(&stage, &mut shoal, 6000);
    assert_eq!((missing(&stage, 6000), stage.violations().as_str()), (vec![], ""));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: `prefetch` messages are held and no more. Method: a member with a prefetch of four waits; all others go elsewhere.
#[test]
fn member_with_a_prefetch_holds_so_many() {
    let stage = stage!("prefetch");
    let file = swarm(&stage, r#""tap""#, &(relay("greedy", "prefetch = 4") + &relay("quick", "")));
    fs::write(stage.path("hold-greedy"), "").expect("a hold");
    fs::write(stage.path("hold-quick"), "").expect("a hold");
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    want(&stage, 100);
    until("a message in each hand", || (held(&stage).len() == 2).then_some(()));
    fs::remove_file(stage.path("hold-quick")).expect("let go");
    until("all that are not held", || {
        let left = missing(&stage, 100).len();
        assert!(left > 0, "it holds some");
        (left <= 4).then_some(())
    });
    fs::remove_file(stage.path("hold-greedy")).expect("let go");
    until_met(&stage, &mut shoal, 100);
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: a group hears that its lanes are closed when the last message is done, not before, and all its members do. Method: a
/// source that ends; one member waits with a message in hand while the others have nothing left; then it dies with it.
#[test]
fn group_ends_when_its_last_message_is_done_wherever_it_was() {
    let stage = stage!("closing");
    let file = swarm(&stage, r#""source", "50""#, &relay("member", "replicas = 3"));
    let hold = |n: u32| stage.path(&format!("hold-member.{n}"));
    (1..=3).for_each(|n| fs::write(hold(n), "").expect("a hold"));
    let mut shoal = stage.run(&file);
    until("messages in three hands", || (held(&stage).len() == 3).then_some(()));
    fs::remove_file(hold(3)).expect("let go");
    until_met(&stage, &mut shoal, 48);
    // The third has nothing left to do, but does not end: what the others hold may come back.
    shoal.until_agent("source", "ended", |a| (a.state == shoal::control::PsState::Stopped).then_some(()));
    let pid = shoal.pid_of("member.1");
    assert!(traces::kill(pid, stage.mark()));
    // Whoever takes the message, the third or the next life, lets go of it.
    fs::remove_file(hold(1)).expect("let go");
    until_met(&stage, &mut shoal, 49);
    fs::remove_file(hold(2)).expect("let go");
    let done = shoal.ended();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert_eq!(missing(&stage, 50), Vec::<u64>::new());
    stage.assert_nothing_left();
}

/// Goal: what a member has in hand stays its own whoever dies under the next supervisor, which gives no number twice by which claims are told
/// apart. Method: one member holds a message while another, whose words cannot be believed, so that its claims are found by its number, dies
/// more often than the first supervisor gave numbers.
#[test]
fn message_in_hand_stays_its_members_whoever_dies_under_the_next_supervisor() {
    let stage = stage!("numbered");
    let mut shoal = stage.run(&swarm(&stage, r#""tap""#, &(relay("holder", "") + &relay("mortal", ""))));
    let [holds, scribbles] = ["hold-holder", "scribble-mortal"].map(|name| stage.path(name));
    fs::write(&holds, "").expect("a hold");
    shoal.until_ready();
    let mut sent = 0;
    until("a message in the holder's hand", || {
        sent += 1;
        want(&stage, sent);
        (!held(&stage).is_empty()).then_some(())
    });
    until_met(&stage, &mut shoal, sent - 1);
    let in_hand = missing(&stage, sent);
    shoal.succeed();
    fs::write(&scribbles, "").expect("an order");
    let mortal = shoal.pid_of("mortal");
    assert!(traces::kill(mortal, stage.mark()));
    shoal.until_agent("mortal", "dead often enough", |a| (a.generation > 10).then_some(()));
    fs::remove_file(&scribbles).expect("let go");
    shoal.pid_of("mortal");
    assert!(shoal.err().contains("agent mortal wrote over its own memory"), "{}", shoal.err());
    want(&stage, sent + 20);
    until_met(&stage, &mut shoal, sent + 19);
    assert_eq!(missing(&stage, sent + 20), in_hand, "nobody else is given it");
    fs::remove_file(&holds).expect("let go");
    until_met(&stage, &mut shoal, sent + 20);
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert_eq!(Book::count(&stage.path("sink")), sent + 20, "each once");
    stage.assert_nothing_left();
}
