//! The supervisor dies after its swarm was changed, and while it is.

use shoal::control::{PsAgent, PsState};
use shoal_tests::failing::Failing;
use shoal_tests::tapped::{arguments, change, finish, held, let_go, lives, text, until_met, want, write};
use shoal_tests::told::Told;
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::fs;
use std::time::{Duration, Instant};

/// Everybody lives as before.
fn assert_undisturbed(shoal: &mut Running<'_>) {
    shoal.until_ready();
    let before = lives(shoal);
    shoal.succeed();
    shoal.until_ready();
    assert_eq!(lives(shoal), before, "who lived is another, or not known");
}

/// An agent dies, an added one perhaps, and comes back.
fn assert_answered(stage: &Stage, shoal: &mut Running<'_>, name: &str) {
    let (pid, generation) = lives(shoal)[name];
    assert!(traces::kill(pid.expect("a process") as i32, stage.mark()));
    shoal.until_agent(name, "again", |a| {
        (a.generation > generation && a.state == PsState::Ready).then_some(())
    });
}

/// The `ROUND` that an agent was started in.
fn environment(shoal: &mut Running<'_>, name: &str) -> String {
    let words = fs::read(format!("/proc/{}/environ", shoal.pid_of(name))).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    words.split('\0').find(|word| word.starts_with("ROUND=")).unwrap_or("none yet").to_owned()
}

/// Goal: a successor takes over what the swarm was changed to, again and again. Method: scaled, reloaded with further agents and a
/// channel, scaled down and changed back, and the supervisor killed after each; lives are compared, the next death of an added agent is
/// answered, and each number is met once.
#[test]
fn successor_takes_over_what_the_swarm_was_changed_to() {
    let stage = stage!("changed");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "replicas = 2", 0, "")));
    shoal.until_ready();
    let mut wanted = 0;
    let mut flow = |shoal: &mut Running<'_>| {
        wanted += 1000;
        want(&stage, wanted);
        until_met(&stage, shoal, wanted - 500);
        wanted
    };
    flow(&mut shoal);
    assert_eq!(change(&stage, &["scale", "relay", "4", "--json"])["outcome"], "applied");
    for _ in 0..3 {
        assert_undisturbed(&mut shoal);
        flow(&mut shoal);
    }
    assert_answered(&stage, &mut shoal, "relay.4");
    // More than there were places for: everybody who shares a lane with them is told.
    assert_eq!(change(&stage, &["scale", "relay", "10", "--json"])["outcome"], "applied");
    flow(&mut shoal);
    assert_undisturbed(&mut shoal);
    assert_answered(&stage, &mut shoal, "relay.10");
    let more = r#"
        [channel.copies]
        message = "Number"
        [agent.copyist]
        command = ["BIN/numbers", "relay"]
        env = { ON = "copies" }
        subscribes = ["numbers"]
        publishes = ["copies"]
        [agent.copies]
        command = ["BIN/numbers", "sink", "0"]
        env = { CHANNEL = "copies" }
        subscribes = ["copies"]
    "#;
    write(&stage, &text("64 KiB", "replicas = 3", 0, more));
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    flow(&mut shoal);
    assert_undisturbed(&mut shoal);
    for name in ["copyist", "copies", "relay.3", "source", "sink"] {
        assert_answered(&stage, &mut shoal, name);
    }
    let before = Book::count(&stage.path("copies"));
    flow(&mut shoal);
    until("copies, too", || (Book::count(&stage.path("copies")) > before).then_some(()));
    write(&stage, &text("64 KiB", "replicas = 1", 0, ""));
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    flow(&mut shoal);
    assert_undisturbed(&mut shoal);
    let wanted = flow(&mut shoal);
    let names: Vec<String> = lives(&shoal).into_keys().collect();
    assert_eq!(names, ["relay.1", "sink", "source"]);
    finish(&stage, shoal, wanted + 1000);
}

/// Goal: an upgrade that is done is known to successors, and one that is under way is finished by them: forwards, or back. Method: the
/// supervisor killed after one; killed at random moments in the midst of one with a command that holds, and of one with a command that
/// does not; the arguments of the processes are read.
#[test]
fn upgrade_is_known_and_finished_by_the_successor() {
    let stage = stage!("better");
    let mut shoal = stage.run(&write(&stage, &text("64 KiB", "replicas = 3", 0, "")));
    shoal.until_ready();
    want(&stage, 2000);
    until_met(&stage, &mut shoal, 100);
    let bin = arguments(&mut shoal, "relay.1").split(' ').next().expect("a program").to_owned();
    let upgrade = |more: &[&str]| {
        let args = [&["upgrade", "relay", "--prove", "40ms", "--command"], more].concat();
        stage.start(stage.shoal(&args))
    };
    let has = |shoal: &mut Running<'_>, replica: u32, end: &str| {
        arguments(shoal, &format!("relay.{replica}")).ends_with(end)
    };
    let until_all = |shoal: &mut Running<'_>, end: &str| {
        until(&format!("all with {end:?}"), || (1..=3).all(|replica| has(shoal, replica, end)).then_some(()));
    };
    let begin = |shoal: &mut Running<'_>, command: &[&str]| {
        // Nothing changes; refused while an upgrade is under way.
        until("the end of the one before", || {
            (stage.done(&["scale", "relay", "3"]).status == 0).then_some(())
        });
        let (before, told) = (lives(shoal), upgrade(command));
        until("a replica's turn", || {
            let report = shoal.try_ps()?;
            let is_next = |a: &PsAgent| before.get(&a.name).is_some_and(|(_, before)| a.generation > *before);
            report.agents.iter().any(is_next).then_some(())
        });
        told
    };
    let done = upgrade(&[&bin, "relay", "second"]).ended();
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    assert_undisturbed(&mut shoal);
    assert_answered(&stage, &mut shoal, "relay.2");
    until_all(&mut shoal, "relay second ");
    let mut chance = Chance::seeded();
    let mut wanted = 2000;
    for round in 0..4 {
        wanted += 500;
        want(&stage, wanted);
        let word = format!("word-{round}");
        let told = begin(&mut shoal, &[&bin, "relay", &word]);
        std::thread::sleep(chance.time(Duration::from_millis(60)));
        shoal.succeed();
        told.ended();
        until_all(&mut shoal, &format!("relay {word} "));
        shoal.until_ready();
    }
    let told = begin(&mut shoal, &["/bin/sh", "-c", "sleep 0.04; exit 1"]);
    std::thread::sleep(chance.time(Duration::from_millis(50)));
    shoal.succeed();
    told.ended();
    until_all(&mut shoal, "relay word-3 ");
    shoal.until_said("upgrade: all replicas of relay run the former command");
    finish(&stage, shoal, wanted + 500);
}

/// Goal: a reload that has only stopped agents is undone by the successor, and can be asked for again. Method: the relay holds a message
/// and does not stop; the supervisor is killed while the reload waits for it.
#[test]
fn reload_that_had_only_stopped_agents_is_undone_by_the_successor() {
    let stage = stage!("half");
    let mut shoal = held(&stage);
    let told = stage.start(stage.shoal(&["reload"]));
    shoal.until_agent("source", "stopped", |a| (a.state == PsState::Stopped).then_some(()));
    shoal.succeed();
    let told = told.ended();
    assert_eq!(told.status, 1, "{}{}", told.out, told.err);
    shoal.until_said("the reload is undone: the supervisor died");
    let_go(&stage, &mut shoal);
    shoal.until_ready();
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    assert_undisturbed(&mut shoal);
    finish(&stage, shoal, 1000);
}

/// Goal: wherever in a change the supervisor dies, its successor finds the swarm as it was or as it is to be, whole, and goes on.
/// Method: SIGKILL instead of one of its system calls, drawn from all after it opened the changed file, or from those around the exchange,
/// while numbers flow; the changes resize lanes, so that everybody is stopped and started, and add and remove replicas.
#[test]
fn supervisor_may_die_at_any_system_call_of_a_change() {
    let stage = stage!("anywhere");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let (mut shoal, failing) = Failing::run(&stage, &file, None);
    shoal.until_ready();
    let changed = stage.path("changed.toml").display().to_string();
    let (mut chance, mut calls, mut deaths, mut wanted) = (Chance::seeded(), 0, 0, 0);
    let sizes = ["64 KiB", "16 KiB", "64 KiB"].into_iter().cycle();
    for (round, (size, replicas)) in sizes.zip([3, 1, 10, 2, 4].into_iter().cycle()).take(24).enumerate() {
        wanted += 300;
        want(&stage, wanted);
        // Relays are started again for their lanes, the sink for this alone.
        let env = format!("env = {{ ROUND = \"{round}\" }}");
        stage.write("changed.toml", &text(size, &format!("replicas = {replicas}\n{env}"), 0, &env));
        let before = failing.seen();
        // The first is not disturbed: so many calls there are.
        match chance.below(2) {
            _ if round == 0 => {}
            0 => failing.kill_supervisor_at(chance.below(calls), "changed.toml"),
            // Around the exchange, which begins with this.
            _ => failing.kill_supervisor_at(chance.below(40), "shoal-journal"),
        }
        let told = stage.done(&["reload", &changed]);
        if round == 0 {
            assert_eq!(told.status, 0, "{}{}", told.out, told.err);
            calls = failing.seen() - before;
        }
        deaths += u64::from(failing.spare_supervisor() && round > 0);
        until("all of one file", || {
            shoal.until_ready();
            let rounds = ["relay.1", "sink"].map(|name| environment(&mut shoal, name));
            (rounds[0] == rounds[1]).then_some(())
        });
        until_met(&stage, &mut shoal, wanted - 200);
    }
    assert!(deaths > 8, "of {calls} calls only {deaths} were a supervisor's last");
    finish(&stage, shoal, wanted + 100);
}

/// Goal: a successor that lacks something ends for it, and the next one finds it; meanwhile agents go on, and nothing of it is left open. Method:
/// the supervisor of a swarm that was changed is killed, and the next so many maps of memory that its successors ask for are refused: the
/// first is that of what the swarm was changed to.
#[test]
fn successor_that_lacks_memory_has_a_successor() {
    let stage = stage!("lacks");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let (mut shoal, failing) = Failing::run(&stage, &file, None);
    shoal.until_ready();
    assert_eq!(change(&stage, &["scale", "relay", "3", "--json"])["outcome"], "applied");
    want(&stage, 500);
    // The first has other files open, for what it has written.
    shoal.succeed();
    until_met(&stage, &mut shoal, 400);
    let keeper = shoal.keeper().expect("a keeper");
    let (before, living) = (traces::descriptors(keeper), lives(&shoal));
    failing.lack("mmap", 7);
    want(&stage, 1000);
    shoal.succeed();
    shoal.until_ready();
    assert_eq!((failing.still_lacking(), lives(&shoal)), (0, living));
    assert!(shoal.err().contains("the supervisor cannot take over: "), "{}", shoal.err());
    until_met(&stage, &mut shoal, 900);
    until("no more descriptors than were open before", || {
        let open = traces::descriptors(keeper);
        open.iter().all(|(kind, count)| before.get(kind).is_some_and(|before| before >= count)).then_some(())
    });
    assert_answered(&stage, &mut shoal, "relay.3");
    finish(&stage, shoal, 1200);
}

/// Goal: wherever in the answer to an agent's death the supervisor dies, its successor answers it, though the kernel has told of the death
/// once only and tells nobody again. Method: an agent is killed while numbers flow, and the supervisor instead of one of its system calls
/// since: the first after it was told, too.
#[test]
fn supervisor_may_die_at_any_system_call_of_the_answer_to_a_death() {
    let stage = stage!("told-once");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let same = file.display().to_string();
    let (mut shoal, failing) = Failing::run(&stage, &file, None);
    shoal.until_ready();
    // Calls are counted from when the supervisor opens the file for this; the last of them are its waiting for what comes next.
    let look = || stage.done(&["reload", "--dry-run", &same]).status;
    let before = failing.seen();
    assert_eq!(look(), 0);
    let looked = failing.seen() - before;
    let (mut deaths, mut wanted) = (0, 0);
    let victims = ["relay.1", "sink", "relay.2", "source"].into_iter().cycle();
    for (nth, victim) in (looked / 2..looked / 2 + 60).zip(victims) {
        wanted += 100;
        want(&stage, wanted);
        failing.kill_supervisor_at(nth, "swarm.toml");
        // It may die over this already.
        let _ = look();
        assert_answered(&stage, &mut shoal, victim);
        deaths += u64::from(failing.spare_supervisor());
        until_met(&stage, &mut shoal, wanted - 50);
        // On a fast machine each lives for less than 100 ms, and the keeper gives up after 50 of these in a row: one lives longer.
        let since = Instant::now();
        until("a life that is not short", || {
            (nth % 25 != 0 || since.elapsed() > Duration::from_millis(150)).then_some(())
        });
    }
    assert!(deaths > 12, "after {looked} calls only {deaths} were a supervisor's last");
    finish(&stage, shoal, wanted + 100);
}

/// Goal: a take-over leaves nothing open that its predecessor did not have, also where that died before it had checked all that it took
/// over; and memory that nobody looks at is looked at when its agent dies. Method: the supervisor of many agents is killed again and
/// again, by turns as soon as it is there; the descriptors are compared; numbers of an agent that dies thereafter are met once.
#[test]
fn take_overs_in_a_row_leave_nothing_open_and_nobody_unwatched() {
    let stage = stage!("row");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "replicas = 110", 0, "")));
    shoal.until_ready();
    let keeper = shoal.keeper().expect("a keeper");
    // The first has other files open, for what it has written.
    shoal.succeed();
    shoal.until_ready();
    let (before, living) = (traces::descriptors(keeper), lives(&shoal));
    for _ in 0..5 {
        shoal.succeed();
        shoal.kill_supervisor();
        shoal.succeed();
    }
    shoal.until_ready();
    assert_eq!(lives(&shoal), living, "who lived is another, or not known");
    until("no more descriptors than were open before", || {
        let open = traces::descriptors(keeper);
        open.iter().all(|(kind, count)| before.get(kind).is_some_and(|before| before >= count)).then_some(())
    });
    want(&stage, 500);
    until_met(&stage, &mut shoal, 200);
    for victim in ["relay.1", "relay.110", "sink", "source"] {
        assert_answered(&stage, &mut shoal, victim);
    }
    finish(&stage, shoal, 900);
}

/// Goal: replicas come and go in a storm of supervisors' deaths, and each number is met once. Method: `shoal scale` again and again,
/// and SIGKILL of the supervisor, its successor, too, at random moments.
#[test]
fn scales_in_a_storm_of_supervisors_deaths_lose_nothing() {
    let stage = stage!("storm");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "replicas = 2", 0, "")));
    shoal.until_ready();
    let (mut chance, mut wanted) = (Chance::seeded(), 0);
    for replicas in ["5", "1", "12", "3", "7", "2", "13", "1"] {
        wanted += 400;
        want(&stage, wanted);
        let told = stage.start(stage.shoal(&["scale", "relay", replicas]));
        for _ in 0..=chance.below(2) {
            std::thread::sleep(chance.time(Duration::from_millis(40)));
            shoal.kill_supervisor();
        }
        told.ended();
        shoal.until_ready();
        until_met(&stage, &mut shoal, wanted - 300);
    }
    until("a scale that is not disturbed", || {
        (stage.done(&["scale", "relay", "2"]).status == 0).then_some(())
    });
    assert_undisturbed(&mut shoal);
    finish(&stage, shoal, wanted + 100);
}

/// Goal: a take-over is an event, and a service manager is told READY once, whoever takes over. Method: its socket, bound here; the
/// supervisor killed thrice, before and after a change.
#[test]
fn take_overs_are_events_and_ready_is_told_once() {
    let stage = stage!("told");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let mut command = stage.shoal(&["up", file.to_str().expect("UTF-8")]);
    let mut told = Told::by(&mut command, &stage);
    let mut hear = || told.hear();
    let mut shoal = stage.start(command);
    shoal.until_ready();
    until("READY", || hear().contains("READY=1\n").then_some(()));
    assert_undisturbed(&mut shoal);
    assert_undisturbed(&mut shoal);
    assert_eq!(change(&stage, &["scale", "relay", "3", "--json"])["outcome"], "applied");
    assert_undisturbed(&mut shoal);
    // The last of them speaks to the service manager, too.
    let fed = |told: String| told.matches("WATCHDOG=1").count();
    let before = fed(hear());
    until("the watchdog fed", || (fed(hear()) > before).then_some(()));
    assert_eq!(hear().matches("READY=1").count(), 1);
    let events = stage.done(&["events", "--json"]);
    let kinds = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["kind"].clone();
    let kinds: Vec<_> = events.out.lines().map(kinds).filter(|kind| kind == "take-over").collect();
    assert_eq!((kinds.len(), events.status), (3, 0), "{}", events.out);
    finish(&stage, shoal, 100);
}
