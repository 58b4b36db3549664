//! The death of the supervisor, of its keeper, and of the process that a shell started.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use serde_json::Value;
use shoal::control::{PsAgent, PsState};
use shoal_tests::stage::Relayed;
use shoal_tests::tapped::{held, lives, until_met, want, with_tap};
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

fn numbers(stage: &Stage, swarm: &str) -> PathBuf {
    Relayed { swarm, relay: "replicas = 2", ways: 0, ..Relayed::default() }.write(stage)
}

fn kill_supervisor(shoal: &Running<'_>) {
    until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
}

/// Every number from 0 on was met once.
fn assert_exactly_once(stage: &Stage) {
    assert_eq!(stage.violations(), "");
    let mut book = Book::read(&stage.path("sink")).expect("the sink's book");
    book.sort_unstable();
    assert!(!book.is_empty());
    assert!(book.iter().enumerate().all(|(due, met)| due as u64 == *met), "a number is lost or doubled");
}

/// Goal: agents go on while their supervisor is killed, keep process and generation, and a successor serves operators. Method: SIGKILL
/// at random moments while numbers flow; each time more arrive, and the same processes are shown.
#[test]
fn agents_go_on_under_the_next_supervisor() {
    let stage = stage!("heirs");
    let mut shoal = stage.run(&numbers(&stage, ""));
    let before = shoal.until_ready();
    let mut chance = Chance::seeded();
    for _ in 0..12 {
        std::thread::sleep(chance.time(Duration::from_millis(40)));
        kill_supervisor(&shoal);
        if chance.below(3) == 0 {
            // Its successor, too, in the middle of the take-over perhaps.
            std::thread::sleep(chance.time(Duration::from_millis(8)));
            shoal.kill_supervisor();
        }
        let due = Book::count(&stage.path("sink")) + 1;
        until("further numbers", || (Book::count(&stage.path("sink")) > due).then_some(()));
    }
    let after = shoal.until_ready();
    for (before, after) in before.agents.iter().zip(&after.agents) {
        assert_eq!((before.pid, before.generation), (after.pid, after.generation), "{}", after.name);
    }
    assert!(shoal.err().contains("the supervisor was killed by SIGKILL: number "), "{}", shoal.err());
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Goal: a death that nobody saw is concluded by the successor, a start that was begun is made again. Method: an agent and the supervisor
/// are killed together, in either order and a random moment apart.
#[test]
fn deaths_and_births_are_finished_by_the_successor() {
    let stage = stage!("unfinished");
    let mut shoal = stage.run(&numbers(&stage, ""));
    shoal.until_ready();
    let mut chance = Chance::seeded();
    let mut kills = 0;
    for round in 0..12 {
        let names = ["relay.1", "relay.2", "sink", "source"];
        let victim = shoal.pid_of(names[round % names.len()]);
        if chance.below(2) == 0 {
            kill_supervisor(&shoal);
            kills += u64::from(traces::kill(victim, stage.mark()));
        } else {
            kills += u64::from(traces::kill(victim, stage.mark()));
            std::thread::sleep(chance.time(Duration::from_millis(12)));
            kill_supervisor(&shoal);
        }
        shoal.until_ready();
    }
    let report = shoal.until_ready();
    let restarts: u64 = report.agents.iter().map(|agent| agent.restarts).sum();
    assert!(kills == 12 && restarts >= kills, "{restarts} restarts after {kills} kills");
    let due = Book::count(&stage.path("sink")) + 100;
    until("further numbers", || (Book::count(&stage.path("sink")) > due).then_some(()));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Goal: a death that the supervisor was told of, and had no time to note, is concluded by the next one. Method: while the supervisor is
/// stopped an agent is killed, and what the supervisor's epoll says of that is taken by somebody else, as by a wait that is killed
/// before it returns; an edge is not told twice. Then the supervisor is killed.
#[test]
fn death_that_the_supervisor_was_told_of_as_it_died_is_concluded_by_the_next() {
    let stage = stage!("told");
    let mut shoal = stage.run(&numbers(&stage, ""));
    shoal.until_ready();
    for round in 1..=3 {
        let (victim, supervisor) = (shoal.pid_of("relay.1"), shoal.supervisor().expect("a supervisor"));
        stage.halt(supervisor);
        assert!(traces::kill(victim, stage.mark()));
        until("a death", || matches!(traces::state(victim), None | Some('Z')).then_some(()));
        assert!(taken_events(supervisor) > 0, "nothing was told of the death");
        shoal.kill_supervisor();
        shoal.until_agent("relay.1", "its next life", |a| (a.restarts == round).then_some(()));
    }
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Takes what the epolls of a process have to say; how much that is.
fn taken_events(process: i32) -> usize {
    let pid = Pid::from_raw(process).expect("a process");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a process");
    let fds = std::fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors").flatten();
    let epolls =
        fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("anon_inode:[eventpoll]")));
    let taken = epolls.map(|fd| {
        let number = fd.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
        let epoll = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).expect("its epoll");
        let mut events = Vec::with_capacity(64);
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&Timespec::default())).expect("its events")
    });
    taken.sum()
}

/// Goal: an order that was begun is finished. Method: SIGTERM, and the supervisor killed a random moment later, again and again until
/// the end.
#[test]
fn shutdown_is_finished_by_the_successor() {
    let stage = stage!("evening");
    let mut chance = Chance::seeded();
    for _ in 0..3 {
        let _ = std::fs::remove_file(stage.path("sink"));
        let mut shoal = stage.run(&numbers(&stage, ""));
        shoal.until_ready();
        shoal.send(Signal::TERM);
        for _ in 0..2 {
            std::thread::sleep(chance.time(Duration::from_millis(15)));
            shoal.kill_supervisor();
        }
        let done = shoal.ended();
        assert_eq!(done.status, 0, "{}", done.err);
        assert_exactly_once(&stage);
        stage.assert_nothing_left();
    }
}

/// Goal: `shoal down` says how the swarm ended, whoever ended it. Method: the relay holds a message, so that the end waits for it; the
/// supervisor is killed meanwhile, thrice, and the relay goes on.
#[test]
fn down_is_answered_by_the_successor() {
    let stage = stage!("downed");
    let mut shoal = held(&stage);
    let down = stage.start(stage.shoal(&["down", "--json"]));
    shoal.until_agent("source", "stopped", |a| (a.state == PsState::Stopped).then_some(()));
    for _ in 0..3 {
        shoal.succeed();
    }
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    let down = down.ended();
    assert_eq!(down.status, 0, "{}{}", down.out, down.err);
    let report: Value = serde_json::from_str(&down.out).expect("an object");
    assert_eq!((&report["killed"], &report["unread"]), (&Value::from(false), &serde_json::json!([])));
    assert_eq!(shoal.ended().status, 0);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Goal: who asks a swarm to end is told how it ended also if he is slow to ask the successor, and who is gone is not waited for. Method: as
/// above, with `shoal down` stopped until every agent has ended; then killed instead.
#[test]
fn down_is_answered_though_all_was_over_before_it_asked_the_successor() {
    for killed in [false, true] {
        let stage = stage!("slow-asker");
        let mut shoal = held(&stage);
        let down = stage.start(stage.shoal(&["down", "--json"]));
        shoal.until_agent("source", "stopped", |a| (a.state == PsState::Stopped).then_some(()));
        assert!(traces::send(down.pid(), stage.mark(), Signal::STOP));
        until("a stopped command", || (traces::state(down.pid()) == Some('T')).then_some(()));
        shoal.succeed();
        let agents = lives(&shoal).into_values().filter_map(|(pid, _)| pid).collect::<Vec<_>>();
        fs::remove_file(stage.path("hold-relay")).expect("let go");
        until("the end of every agent", || {
            agents.iter().all(|pid| traces::state(*pid as i32).is_none()).then_some(())
        });
        assert!(traces::send(down.pid(), stage.mark(), if killed { Signal::KILL } else { Signal::CONT }));
        let down = down.ended();
        if !killed {
            assert_eq!(down.status, 0, "{}{}", down.out, down.err);
            let report: Value = serde_json::from_str(&down.out).expect("an object");
            assert_eq!(report["unread"], serde_json::json!([]));
        }
        assert_eq!(shoal.ended().status, 0);
        assert_exactly_once(&stage);
        stage.assert_nothing_left();
    }
}

/// Goal: `shoal pause` says when the agent holds nothing, whoever sees it. Method: the relay holds a message, so that the answer waits for
/// it; the supervisor is killed meanwhile, and the relay goes on.
#[test]
fn pause_is_answered_by_the_successor() {
    let stage = stage!("paused");
    let mut shoal = held(&stage);
    let pause = stage.start(stage.shoal(&["pause", "relay"]));
    let is_paused = |a: &PsAgent| (a.state == PsState::Paused).then_some(());
    shoal.until_agent("relay", "to pause", is_paused);
    shoal.succeed();
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    let pause = pause.ended();
    assert_eq!((pause.status, pause.out.as_str()), (0, "relay paused\n"), "{}", pause.err);
    shoal.until_agent("relay", "paused", is_paused);
    assert_eq!(stage.done(&["resume", "relay"]).status, 0);
    until_met(&stage, &mut shoal, 500);
    assert_eq!(shoal.stop().status, 0);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Goal: what `shoal status` calls the supervisor may be killed, and what it calls the guard stays. Method: that is done; text and JSON
/// say the same.
#[test]
fn status_names_supervisor_and_guard_and_the_first_may_be_killed() {
    let stage = stage!("named");
    let mut shoal = stage.run(&numbers(&stage, ""));
    shoal.until_ready();
    let status = || -> (i64, i64) {
        let done = stage.done(&["status", "--over", "0", "--json"]);
        let report: Value = serde_json::from_str(&done.out).expect("an object");
        let number = |key: &str| report[key].as_i64().expect("a number");
        (number("pid"), number("supervisor"))
    };
    let (guard, supervisor) = status();
    assert_eq!((Some(supervisor as i32), guard as i32), (shoal.supervisor(), shoal.pid()));
    let said = stage.done(&["status", "--over", "0"]).out;
    let lines = [format!("supervisor   process {supervisor}\n"), format!("guard        process {guard}:")];
    assert!(lines.iter().all(|line| said.contains(line)), "{said}");
    assert!(traces::kill(supervisor as i32, stage.mark()));
    shoal.until_said("takes over");
    let (still, next) = status();
    assert!(still == guard && next != supervisor, "{still} {next}");
    assert_eq!(shoal.stop().status, 0);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// Goal: who wants it so has no agents without a supervisor. Method: `orphans = "kill"`, and the supervisor killed.
#[test]
fn everything_ends_with_the_supervisor_where_the_swarm_file_says_so() {
    let stage = stage!("strict");
    let mut shoal = stage.run(&numbers(&stage, "orphans = \"kill\""));
    shoal.until_ready();
    kill_supervisor(&shoal);
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.contains("orphans"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: when keeper or guard are killed, nothing is left. Method: SIGKILL of each while numbers flow.
#[test]
fn everything_ends_with_the_keeper_and_with_the_guard() {
    let stage = stage!("endings");
    let file = numbers(&stage, "");
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    assert!(traces::kill(shoal.keeper().expect("a keeper"), stage.mark()));
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}", done.err);
    assert!(done.err.contains("everything of it was ended"), "{}", done.err);
    stage.assert_nothing_left();
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    shoal.send(Signal::KILL);
    assert_eq!(shoal.ended().status, 128 + 9);
    stage.until_no_process();
    stage.assert_nothing_left();
}

/// Goal: the keeper, which must not die, needs nothing that it could be refused. Method: supervisors and agents are killed; the keeper, which
/// starts, tells of and buries them, has as much memory of its own in the end as before.
#[test]
fn keeper_takes_no_memory_whatever_it_does() {
    let stage = stage!("frugal");
    let mut shoal = stage.run(&numbers(&stage, ""));
    shoal.until_ready();
    let keeper = shoal.keeper().expect("a keeper");
    let own = || {
        let status = fs::read_to_string(format!("/proc/{keeper}/status")).expect("it lives");
        let lines = status.lines().filter(|line| line.starts_with("VmData:") || line.starts_with("VmStk:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = own();
    assert_eq!(before.len(), 2, "{before:?}");
    for _ in 0..5 {
        shoal.succeed();
        let relay = shoal.pid_of("relay.1");
        assert!(traces::kill(relay, stage.mark()));
        shoal.until_agent("relay.1", "another", |a| {
            (a.pid != Some(relay as u32) && a.pid.is_some()).then_some(())
        });
    }
    assert_eq!(own(), before);
    assert_eq!(shoal.stop().status, 0);
    assert_exactly_once(&stage);
    stage.assert_nothing_left();
}

/// An agent is given up after as many deaths as it may die, however many supervisors have seen one of them each.
#[test]
fn deaths_of_an_agent_are_counted_over_the_deaths_of_supervisors() {
    let stage = stage!("counted");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.mortal]
        command = ["BIN/misbehaving", "idle"]
        restart = { intensity = 2, period = "1h", backoff = "1ms" }
        [agent.other]
        command = ["BIN/misbehaving", "idle"]
        "#;
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    for generation in 1..=3 {
        shoal.until_agent("mortal", "ready", |a| {
            (a.generation == generation && a.state == PsState::Ready).then_some(())
        });
        shoal.succeed();
        assert!(traces::kill(shoal.pid_of("mortal"), stage.mark()));
    }
    let generation = shoal.until_agent("mortal", "given up or back", |a| {
        (a.state == PsState::Failed || a.generation > 3).then_some(a.generation)
    });
    assert_eq!(generation, 3, "{}", shoal.err());
    assert!(shoal.err().contains("mortal is given up"), "{}", shoal.err());
    assert_eq!(shoal.stop().status, 1, "one was given up");
    stage.assert_nothing_left();
}

/// Goal: the state of an agent that does not run outlives the supervisor that took it over from its memory. Method: one that counts what it reads in
/// its state, and says so when that is not the number that it is given, is stopped, and started by the next supervisor but one.
#[test]
fn state_of_a_stopped_agent_outlives_supervisors() {
    let stage = stage!("stateful");
    let text = r#"
        [channel.relayed]
        message = "Number"
        [agent.relay]
        command = ["BIN/numbers", "steps", "handler"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        "#;
    let mut shoal = stage.run(&with_tap(&stage, text));
    want(&stage, 10);
    until_met(&stage, &mut shoal, 10);
    assert_eq!(stage.done(&["stop", "relay"]).status, 0);
    shoal.succeed();
    shoal.succeed();
    want(&stage, 20);
    assert_eq!(stage.done(&["start", "relay"]).status, 0, "{}", shoal.err());
    until_met(&stage, &mut shoal, 20);
    assert!(Book::read(&stage.path("sink")).expect("a book").into_iter().eq(0..20));
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: the keeper uses no heap after its start, whatever it does. Method: what the C library knows of the free pieces of the keeper's heap is
/// made nonsense, so that whoever asks for one, or gives one back, is aborted. It serves and buries as before; and each supervisor that it
/// starts then, a copy of it, is aborted at once, until it ends everything.
#[test]
#[cfg(target_env = "gnu")]
fn keeper_goes_on_though_whoever_uses_its_heap_is_aborted() {
    let stage = stage!("heapless");
    let mut shoal = stage.run(&numbers(&stage, ""));
    shoal.until_ready();
    let keeper = shoal.keeper().expect("a keeper");
    spoil_heap(keeper);
    for name in ["relay.1", "sink"] {
        let victim = shoal.pid_of(name);
        assert!(traces::kill(victim, stage.mark()));
        shoal.until_agent(name, "another", |a| {
            (a.state == PsState::Ready && a.pid != Some(victim as u32)).then_some(())
        });
        until("the burial", || traces::state(victim).is_none().then_some(()));
    }
    assert_eq!(shoal.keeper(), Some(keeper));
    kill_supervisor(&shoal);
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}", done.err);
    let last = "supervisors die as soon as they are started: everything is ended";
    assert!(done.err.contains(last), "the keeper itself says so: {}", done.err);
    stage.assert_nothing_left();
}

/// Overwrites the first piece of a process's heap, in which its only thread keeps the lists of free pieces.
#[cfg(target_env = "gnu")]
fn spoil_heap(process: i32) {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("it lives");
    let line = maps.lines().find(|line| line.ends_with("[heap]")).expect("it was used before the split");
    let from = line.split('-').next().and_then(|hex| u64::from_str_radix(hex, 16).ok()).expect("an address");
    let memory = fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem"));
    let memory = memory.expect("memory of our own");
    let mut size = [0; 8];
    memory.read_exact_at(&mut size, from + 8).expect("the piece's size");
    let size = u64::from_le_bytes(size) & !7;
    assert!((256..4096).contains(&size), "{size}");
    memory.write_all_at(&vec![0xa5; size as usize - 16], from + 16).expect("overwritten");
}
