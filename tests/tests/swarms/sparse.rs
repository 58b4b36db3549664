//! Messages few and far between, and readers that are not there yet: nothing is lost, nobody sleeps over a message.

use shoal::control::PsState;
use shoal_tests::tapped::{self, want};
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::fs;
use std::time::Duration;

/// A tap that sends as many numbers as it is told to, and a sink.
fn tap(stage: &Stage) -> std::path::PathBuf {
    stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        capacity = "64 KiB"
        [agent.tap]
        command = ["BIN/numbers", "tap"]
        publishes = ["numbers"]
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["numbers"]
        env = { CHANNEL = "numbers" }
        restart = { policy = "permanent", intensity = 10000, period = "1s", backoff = "1ms..5ms" }
        max_attempts = 0
        "#,
    )
}

/// Waits until the sink has met so many, and no more.
fn until_met(stage: &Stage, shoal: &mut Running<'_>, count: u64) {
    tapped::until_met(stage, shoal, count);
    assert_eq!(Book::count(&stage.path("sink")), count);
}

/// Goal: what is sent while a consumer is stopped waits for its next incarnation. Method: stop, send, start, five times;
/// the sink compares each number with the one that is due.
#[test]
fn messages_sent_while_their_consumer_is_stopped_are_delivered_when_it_is_started() {
    let stage = stage!("late");
    let mut shoal = stage.run(&tap(&stage));
    shoal.until_ready();
    for round in 1..=5 {
        assert_eq!(stage.done(&["stop", "sink"]).status, 0);
        let (before, wanted) = ((round - 1) * 300, round * 300);
        want(&stage, wanted);
        shoal.until_agent("tap", "has sent them", |a| (a.sent >= wanted).then_some(()));
        assert_eq!(Book::count(&stage.path("sink")), before, "nobody was there to read");
        assert_eq!(stage.done(&["start", "sink"]).status, 0);
        until_met(&stage, &mut shoal, wanted);
    }
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: what is sent before a restarted consumer has mapped its lane is delivered. Method: a SIGKILL and, at the same
/// moment, ten more numbers, a hundred times.
#[test]
fn messages_sent_while_their_killed_consumer_comes_back_are_delivered() {
    let stage = stage!("again");
    let mut shoal = stage.run(&tap(&stage));
    shoal.until_ready();
    for round in 1..=100 {
        let sink = shoal.until_agent("sink", "alive", |a| a.pid) as i32;
        traces::kill(sink, stage.mark());
        want(&stage, round * 10);
        until_met(&stage, &mut shoal, round * 10);
    }
    let restarts = shoal.until_agent("sink", "shown", |a| Some(a.restarts));
    assert!(restarts >= 100, "{restarts}");
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: no wake-up is lost and no message is doubled when a reader is replaced under a sender that sends rarely. Method:
/// the sender waits for the answer to each number; the reader gets SIGKILL at random moments (seeded): parked, at work,
/// starting. After each kill the sender must get one to four answers before the next kill, which would otherwise heal a hang.
fn reader_is_killed(kills: u64) {
    let stage = stage!("sparse");
    let file = stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.asks]
        message = "Number"
        capacity = "4 KiB"
        [channel.answers]
        message = "Number"
        capacity = "4 KiB"
        [agent.asker]
        command = ["BIN/echo", "asker", "2000"]
        publishes = ["asks"]
        subscribes = ["answers"]
        restart = "temporary"
        [agent.answerer]
        command = ["BIN/echo", "answerer"]
        subscribes = ["asks"]
        publishes = ["answers"]
        restart = { policy = "permanent", intensity = 10000, period = "1s", backoff = "100us..1ms" }
        "#,
    );
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    let mut chance = Chance::seeded();
    let answered = stage.path("answered");
    let (mut done, mut in_start, mut busy) = (0, 0, 0);
    while done < kills {
        let (pid, state) = shoal.until_agent("answerer", "alive", |a| Some((a.pid? as i32, a.state)));
        std::thread::sleep(chance.time(Duration::from_millis(3)));
        busy += u64::from(traces::state(pid) == Some('R'));
        let newborn_too = chance.below(4) == 0;
        let before = traces::children(shoal.keeper().expect("a keeper"));
        if !traces::kill(pid, stage.mark()) {
            continue;
        }
        done += 1;
        in_start += u64::from(state == PsState::Starting);
        if newborn_too && let Some(born) = next_child(shoal.keeper().expect("a keeper"), &before) {
            std::thread::sleep(chance.time(Duration::from_millis(3)));
            let killed = u64::from(traces::kill(born, stage.mark()));
            (done, in_start) = (done + killed, in_start + killed);
        }
        // The first answer may be to what waited for the reader; a later one needs that its sender rings it.
        let due = Book::count(&answered) + 1 + chance.below(4);
        until("answers after a kill", || {
            assert_eq!(stage.violations(), "");
            (Book::count(&answered) >= due).then_some(())
        });
    }
    let report = shoal.until_ready();
    let asker = &report.agents[0];
    assert_eq!((asker.name.as_str(), asker.restarts), ("asker", 0), "nobody else noticed");
    assert!(report.agents[1].restarts >= done, "{} restarts", report.agents[1].restarts);
    let end = shoal.stop();
    assert_eq!((end.status, stage.violations().as_str()), (0, ""), "{}", end.err);
    let book = Book::read(&answered).expect("the asker's book");
    assert!(book.iter().copied().eq(0..book.len() as u64), "each number once, in order");
    println!("{done} kills, {busy} at work, {in_start} in a start; {} numbers answered", book.len());
    stage.assert_nothing_left();
}

/// The process that a supervisor started since, if it appears soon.
fn next_child(supervisor: i32, before: &[i32]) -> Option<i32> {
    (0..2000).find_map(|_| {
        std::thread::yield_now();
        traces::children(supervisor).into_iter().find(|pid| !before.contains(pid))
    })
}

fn kills_wanted(normal: u64) -> u64 {
    std::env::var("SHOAL_TEST_KILLS").map_or(normal, |n| n.parse().expect("SHOAL_TEST_KILLS: a number"))
}

#[test]
fn sparse_sender_gets_every_answer_once_while_its_reader_is_killed() {
    reader_is_killed(kills_wanted(300));
}

#[test]
#[ignore = "minutes; run with --ignored"]
fn sparse_sender_gets_every_answer_once_while_its_reader_is_killed_ten_thousand_times() {
    reader_is_killed(kills_wanted(10_000));
}

/// Goal: a supervisor of many agents keeps no memory of those that do nothing mapped: it would look into all of it every second, and take
/// longer to be gone when it dies. Method: pairs that wait for each other; the supervisor's maps are counted until there is none of theirs.
#[test]
fn supervisor_of_many_idle_agents_keeps_none_of_their_memory_mapped() {
    let stage = stage!("calm");
    let mut swarm = String::from("[swarm]\nname = \"NAME\"\n");
    for pair in 0..51 {
        for (own, other) in [("a", "b"), ("b", "a")] {
            swarm += &format!(
                r#"
                [channel.{own}{pair}x0]
                message = "Beat"
                capacity = "4 KiB"
                [agent.{own}{pair}]
                command = ["BIN/shoal-under-test", "agent", "bench", "idle", "1", "{own}{pair}", "{other}{pair}"]
                publishes = ["{own}{pair}x0"]
                subscribes = ["{other}{pair}x0"]
                ready_timeout = "60s"
                "#
            );
        }
    }
    let mut shoal = stage.run(&stage.write("swarm.toml", &swarm));
    shoal.until_ready();
    let supervisor = shoal.supervisor().expect("it runs");
    // An answer about all of them ends with none mapped: from the next looks on it counts. Each reads a word of every agent.
    let reads = || {
        let io = fs::read_to_string(format!("/proc/{supervisor}/io")).expect("it runs");
        io.lines()
            .find_map(|line| line.strip_prefix("syscr: ")?.parse::<u64>().ok())
            .expect("a count of reads")
    };
    let before = reads();
    until("three looks at all agents", || (reads() >= before + 3 * 102).then_some(()));
    until("maps without an agent's memory", || {
        let maps = fs::read_to_string(format!("/proc/{supervisor}/maps")).expect("it runs");
        (!maps.contains("shoal-segment")).then_some(())
    });
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}
