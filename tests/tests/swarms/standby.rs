//! Standbys: a death is answered by promoting one, nothing is lost or doubled over it, and their own deaths concern nobody.

use rustix::process::Signal;
use shoal::control::{PsAgent, PsState};
use shoal_tests::stage::Relayed;
use shoal_tests::tapped::{change, finish, text, want, write};
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

/// Numbers from a source over a relay to a sink; the relay and the sink have standbys.
fn numbers(stage: &Stage, count: u64, standbys: u32) -> PathBuf {
    let standby = &format!("standby = {standbys}");
    Relayed { count, relay: standby, sink: standby, ..Relayed::default() }.write(stage)
}

/// Waits until an agent is ready and all its standbys are parked.
fn until_parked(shoal: &mut Running<'_>, name: &str) -> PsAgent {
    shoal.until_agent(name, "ready, with its standbys", |agent| {
        let whole = agent.standbys.len() as u64 == agent.standbys_wanted && agent.standbys_wanted > 0;
        (agent.state == PsState::Ready && whole).then(|| agent.clone())
    })
}

/// Kills an agent and waits until another process is ready in its place, and its standbys are parked.
fn killed_and_followed(stage: &Stage, shoal: &mut Running<'_>, before: &PsAgent) -> PsAgent {
    assert!(traces::kill(before.pid.expect("a process") as i32, stage.mark()));
    shoal.until_agent(&before.name, "followed", |agent| {
        (agent.pid != before.pid && agent.generation > before.generation).then_some(())
    });
    until_parked(shoal, &before.name)
}

/// The sink has noted every number below `count` once, in order, and nobody has seen anything else.
fn assert_all_arrived(stage: &Stage, count: u64) {
    assert_eq!(stage.violations(), "");
    let noted = Book::read(&stage.path("sink")).expect("the sink's book");
    assert_eq!(noted.len() as u64, count);
    assert!(noted.iter().zip(0..).all(|(noted, due)| *noted == due), "every number once, in order");
}

/// The system call that a process sleeps in.
fn sleeps_in(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    Some(text.split(' ').next()?.to_owned()).filter(|call| call.parse::<u32>().is_ok())
}

/// How often a process has gone to sleep.
fn switches(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.expect("a count").trim().parse().expect("a number")
}

/// The sink has come further than before.
fn until_further(stage: &Stage, before: u64) {
    until("more numbers in the sink's book", || (Book::count(&stage.path("sink")) > before).then_some(()));
}

#[test]
fn dead_agent_is_followed_by_the_process_that_stood_by() {
    // Goal: a death is answered by a process that existed before it. Method: the pids of `shoal ps` before and after a SIGKILL.
    let stage = stage!("standby");
    let file = numbers(&stage, 0, 1);
    let mut shoal = stage.run(&file);
    for name in ["relay", "sink", "relay"] {
        let before = until_parked(&mut shoal, name);
        let after = killed_and_followed(&stage, &mut shoal, &before);
        assert_eq!(after.pid, before.standbys.first().copied(), "the standby of {name} is the agent now");
        assert_ne!(after.standbys, before.standbys, "it has a standby of its own");
        assert!(after.generation > before.generation);
        assert_eq!(after.restarts, before.restarts + 1);
        let met = Book::count(&stage.path("sink"));
        until_further(&stage, met);
    }
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

#[test]
fn promoted_standby_begins_before_it_is_named_and_nothing_that_it_did_is_lost() {
    // Goal: who was promoted waits for no second word of the supervisor's. What it does before the board names it is seen by its reader
    // afterwards, what is sent to it meanwhile is seen by it, both without a rescue, and what it did counts if it dies before. Method: it and
    // the supervisor are stopped in turns, so that a whole step lies between its word and the supervisor's hearing it; those that it
    // talks with sleep meanwhile. There is no program for another standby, whose links would wake
    // them. In the first round nothing more is sent; in the third it is killed then.
    let stage = stage!("standby-unnamed");
    let file = numbers(&stage, 0, 1);
    let text = fs::read_to_string(&file).expect("the swarm file");
    let program = text.split('"').find(|word| word.ends_with("/numbers")).expect("a program").to_owned();
    let own = stage.path("relays");
    let text = text.replace("\"source\", \"0\"", "\"tap\"");
    let text = text.replace(&format!("\"{program}\", \"relay\""), &format!("{own:?}, \"relay\""));
    fs::write(&file, text).expect("written");
    symlink(&program, &own).expect("a program of its own");
    let mut shoal = stage.run(&file);
    let met = || Book::count(&stage.path("sink"));
    // Everything is declared.
    want(&stage, 1);
    until("the first number", || (met() == 1).then_some(()));
    let supervisor = shoal.supervisor().expect("a supervisor");
    let (tap, sink) = (shoal.pid_of("source"), shoal.pid_of("sink"));
    let hold = stage.path("hold-relay");
    for (more, killed) in [(false, false), (true, false), (true, true)] {
        let before = until_parked(&mut shoal, "relay");
        let standby = before.standbys[0] as i32;
        until_parked(&mut shoal, "sink");
        // Its own, and those of its peers; that it has them is heard before the next question.
        until("a standby that has all links", || (segments(standby as u32) == 4).then_some(()));
        shoal.until_ready();
        fs::write(&hold, "").expect("a hold");
        let first = met();
        want(&stage, first + 1);
        until("a number in hand", || {
            let held = fs::read_to_string(stage.path("held")).unwrap_or_default();
            held.lines().any(|line| line == format!("relay {first} 1")).then_some(())
        });
        assert!(traces::send(standby, stage.mark(), Signal::STOP));
        assert!(traces::kill(before.pid.expect("a process") as i32, stage.mark()));
        shoal.until_agent("relay", "being promoted", |agent| {
            (agent.pid == Some(standby as u32) && agent.state == PsState::Starting).then_some(())
        });
        stage.halt(supervisor);
        fs::remove_file(&hold).expect("no hold");
        fs::remove_file(&own).expect("no program");
        assert!(traces::send(standby, stage.mark(), Signal::CONT));
        until("a step, and its sleep", || (sleeps_in(standby)? == sleeps_in(sink)?).then_some(()));
        want(&stage, first + 1 + u64::from(more));
        let looks = switches(tap);
        until("another number for it", || (switches(tap) > looks + 3).then_some(()));
        assert_eq!(met(), first, "nobody knows of it yet");
        if killed {
            assert!(traces::kill(standby, stage.mark()));
            symlink(&program, &own).expect("a program");
        }
        assert!(traces::send(supervisor, stage.mark(), Signal::CONT));
        until("all numbers", || (met() == first + 1 + u64::from(more)).then_some(()));
        if !killed {
            symlink(&program, &own).expect("a program");
        }
    }
    let report = shoal.until_ready();
    assert!(report.agents.iter().all(|agent| agent.rescues == 0), "somebody was not woken: {report:?}");
    assert_eq!(shoal.stop().status, 0);
    assert_all_arrived(&stage, 6);
    stage.assert_nothing_left();
}

/// Goal: a successor makes standbys anew, also of an agent that has them only since the swarm was changed. Method: the relay has one; the
/// supervisor is killed, the sink is given one by a reload, and the supervisor is killed again; then both are killed.
#[test]
fn successor_makes_standbys_anew_also_of_who_was_given_them_by_a_change() {
    let stage = stage!("standby-heirs");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "standby = 1", 0, "")));
    let another = |shoal: &mut Running<'_>, name: &str, former: Option<u32>| {
        shoal.until_agent(name, "ready, with another standby", |agent| {
            let standby = agent.standbys.first().copied().filter(|standby| Some(*standby) != former);
            standby.filter(|_| agent.state == PsState::Ready)
        })
    };
    let first = another(&mut shoal, "relay", None);
    shoal.succeed();
    let second = another(&mut shoal, "relay", Some(first));
    write(&stage, &text("16 KiB", "standby = 1", 0, "standby = 1"));
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    let third = another(&mut shoal, "sink", None);
    shoal.succeed();
    another(&mut shoal, "sink", Some(third));
    another(&mut shoal, "relay", Some(second));
    for name in ["relay", "sink"] {
        let before = until_parked(&mut shoal, name);
        let after = killed_and_followed(&stage, &mut shoal, &before);
        assert_eq!(after.pid, before.standbys.first().copied(), "the standby of {name} is the agent now");
    }
    finish(&stage, shoal, 100);
}

#[test]
fn storm_of_kills_among_agents_and_standbys_loses_and_doubles_nothing() {
    // Goal: exactly once over promotions. Method: SIGKILL at random moments to agents and standbys alike, until 60 deaths were
    // answered by a standby; then the source is let end, and the sink's book must hold every number once, in order.
    let stage = stage!("standby-storm");
    let file = numbers(&stage, 0, 2);
    let mut shoal = stage.run(&file);
    let mut chance = Chance::seeded();
    until_parked(&mut shoal, "relay");
    let (mut stood_by, mut promoted) = (BTreeSet::new(), BTreeSet::new());
    while promoted.len() < 60 {
        let Some(report) = shoal.try_ps() else { continue };
        let victims = report.agents.iter().filter(|agent| agent.standbys_wanted > 0);
        for agent in victims {
            stood_by.extend(agent.standbys.iter().copied());
            promoted.extend(agent.pid.filter(|pid| stood_by.contains(pid)));
        }
        let all: Vec<u32> = report
            .agents
            .iter()
            // More often the active one than one of its standbys.
            .flat_map(|agent| [agent.pid, agent.pid, agent.standbys.first().copied()])
            .flatten()
            .collect();
        let victim = all[chance.below(all.len() as u64) as usize];
        std::thread::sleep(chance.time(Duration::from_millis(4)));
        let met = Book::count(&stage.path("sink"));
        traces::kill(victim as i32, stage.mark());
        if chance.below(4) == 0 {
            until_further(&stage, met);
        }
    }
    for name in ["source", "relay", "sink"] {
        shoal.pid_of(name);
    }
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    let sent = done.out.lines().rev().find_map(|line| line.rsplit_once("sent ")?.1.trim().parse().ok());
    assert_all_arrived(&stage, sent.expect("the source says how many it sent"));
    stage.assert_nothing_left();
}

#[test]
fn standby_that_dies_while_it_is_promoted_leaves_everything_as_it_was() {
    // Goal: a promotion can fail at its worst moment. Method: the standby is stopped, so that it cannot answer; the agent is
    // killed; once the standby is the agent's process, it is killed too.
    let stage = stage!("standby-promoted");
    let file = numbers(&stage, 20_000, 1);
    fs::write(stage.path("hold-relay"), "").expect("a hold");
    let mut shoal = stage.run(&file);
    for _ in 0..3 {
        let before = until_parked(&mut shoal, "relay");
        let standby = before.standbys[0];
        assert!(traces::send(standby as i32, stage.mark(), Signal::STOP));
        assert!(traces::kill(before.pid.expect("a process") as i32, stage.mark()));
        shoal.until_agent("relay", "being promoted", |agent| {
            (agent.pid == Some(standby) && agent.state == PsState::Starting).then_some(())
        });
        assert!(traces::kill(standby as i32, stage.mark()));
        let after = until_parked(&mut shoal, "relay");
        assert!(after.generation > before.generation + 1, "the promoted one used a generation up");
    }
    fs::remove_file(stage.path("hold-relay")).expect("no hold");
    let done = shoal.ended();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_all_arrived(&stage, 20_000);
    stage.assert_nothing_left();
}

#[test]
fn death_of_a_standby_disturbs_nobody_and_is_made_good() {
    // Goal: an agent does not notice what happens to its standbys. Method: SIGKILL to them; the agent keeps process and generation.
    let stage = stage!("standby-killed");
    let file = numbers(&stage, 0, 2);
    let mut shoal = stage.run(&file);
    let before = until_parked(&mut shoal, "sink");
    let mut killed = BTreeSet::new();
    for _ in 0..4 {
        let now = until_parked(&mut shoal, "sink");
        assert_eq!((now.pid, now.generation, now.restarts), (before.pid, before.generation, before.restarts));
        assert!(now.standbys.iter().all(|pid| !killed.contains(pid)));
        killed.insert(now.standbys[1]);
        assert!(traces::kill(now.standbys[1] as i32, stage.mark()));
        shoal.until_agent("sink", "without the dead standby", |agent| {
            (!agent.standbys.contains(&now.standbys[1])).then_some(())
        });
    }
    assert!(shoal.err().contains("a standby of agent sink (generation"), "{}", shoal.err());
    let listed = stage.done(&["crashes", "sink", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("one JSON object");
    let reported = listed["crashes"].as_array().expect("a list").iter().map(|report| {
        assert_eq!(
            (&report["state"], &report["signal_name"]),
            (&"standby".into(), &"SIGKILL".into()),
            "{report}"
        );
        report["pid"].as_u64().expect("a number") as u32
    });
    assert_eq!(reported.collect::<BTreeSet<u32>>(), killed, "a report of each");
    // Generation numbers were used up by the dead: the next life jumps over them.
    let now = until_parked(&mut shoal, "sink");
    let after = killed_and_followed(&stage, &mut shoal, &now);
    assert_eq!(after.pid, Some(now.standbys[0]));
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

/// Segments that a process maps.
fn segments(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains("shoal-segment")).count()
}

#[test]
fn parked_standby_holds_no_memory_of_peers_that_died_meanwhile() {
    // Goal: a standby that waits for long stays small. Method: its peers die forty times; the segments that it maps are counted.
    let stage = stage!("standby-parked");
    let file = numbers(&stage, 0, 1);
    let mut shoal = stage.run(&file);
    let parked = until_parked(&mut shoal, "sink").standbys[0];
    let mut relay = until_parked(&mut shoal, "relay");
    for _ in 0..40 {
        relay = killed_and_followed(&stage, &mut shoal, &relay);
        let met = Book::count(&stage.path("sink"));
        until_further(&stage, met);
    }
    assert_eq!(until_parked(&mut shoal, "sink").standbys, [parked]);
    // Its own, the living relay's, its standby's, and perhaps one that died just now.
    until("a standby that maps no dead relays", || (segments(parked) <= 4).then_some(()));
    assert!(relay.generation > 40);
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

/// How many descriptors a process has open.
fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn two_hundred_deaths_leave_no_descriptor_and_no_memory_behind() {
    // Goal: a supervisor does not grow with the deaths that it answers. Method: SIGKILL two hundred times to a relay with a standby;
    // its descriptors and the segments that it maps are counted before and after, each time when all is at rest.
    let stage = stage!("standby-growth");
    let file = numbers(&stage, 0, 1);
    let mut shoal = stage.run(&file);
    let mut relay = until_parked(&mut shoal, "relay");
    until_parked(&mut shoal, "sink");
    let supervisor = shoal.supervisor().expect("a supervisor");
    // A few deaths bring everything to its usual height.
    for _ in 0..10 {
        relay = killed_and_followed(&stage, &mut shoal, &relay);
    }
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    let usual = (descriptors(supervisor), segments(supervisor as u32));
    assert!(usual.0 > 30 && usual.1 > 2, "whoever this is, it does not supervise: {usual:?}");
    let most = (usual.0 + 8, usual.1 + 2);
    for _ in 0..200 {
        relay = killed_and_followed(&stage, &mut shoal, &relay);
    }
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    until("descriptors and maps as before", || {
        let now = (descriptors(supervisor), segments(supervisor as u32));
        (now.0 <= most.0 && now.1 <= most.1).then_some(())
    });
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

#[test]
fn swarm_with_many_standbys_runs_with_just_the_descriptors_that_its_unit_gives() {
    // Goal: what `shoal unit` writes as LimitNOFILE suffices, and one less is refused at the start. Method: that limit, four relays that
    // are forked and have eight standbys each; all are parked; agents are killed, and nothing was lacking.
    let stage = stage!("standby-limit");
    let relay = "replicas = 4\nreplicas_max = 4\nstandby = 8\nprefork = true";
    let file = Relayed { relay, ways: 0, ..Relayed::default() }.write(&stage);
    let path = file.to_str().expect("a UTF-8 path");
    let unit = stage.done(&["unit", path]);
    let limit = unit.out.lines().find_map(|line| line.strip_prefix("LimitNOFILE="));
    let limit: u64 = limit.expect("a limit").parse().expect("a number");
    let refused = stage.finish(stage.shoal_limited(&format!("-n {}", limit - 1), &["run", path]));
    assert_eq!(refused.status, 2, "{}", refused.err);
    let mut shoal = stage.start(stage.shoal_limited(&format!("-n {limit}"), &["run", path]));
    let names = ["relay.1", "relay.2", "relay.3", "relay.4"];
    let before = names.map(|name| until_parked(&mut shoal, name));
    for before in &before {
        killed_and_followed(&stage, &mut shoal, before);
    }
    assert!(!shoal.err().contains("cannot be"), "{}", shoal.err());
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

/// A swarm of a source and a sink of 16 MiB that it has in such pages, and that comes back in such a way.
fn large_sink(stage: &Stage, pages: &str, way: &str) -> PathBuf {
    let text = format!(
        r#"
        [swarm]
        name = "NAME"
        [channel.beats]
        message = "Beat"
        [agent.source]
        command = ["BIN/shoal-under-test", "agent", "bench", "source", "1000"]
        publishes = ["beats"]
        [agent.sink]
        command = ["BIN/shoal-under-test", "agent", "bench", "sink", "16777216", "{pages}"]
        subscribes = ["beats"]
        {way}
        "#
    );
    stage.write("swarm.toml", &text)
}

/// Memory of its own that a process has in large pages, KiB.
fn in_large_pages(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let kib = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.strip_suffix("kB"));
    kib.map_or(0, |kib| kib.trim().parse().expect("a number"))
}

/// Goal: who is to be back soon is soon taken apart. Method: a sink of 16 MiB is killed; what the kernel says of it before and after.
#[test]
fn much_memory_is_in_large_pages_in_each_life_of_who_is_stood_by() {
    let kernel = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let gives = kernel.contains("[madvise]") || kernel.contains("[always]");
    let cases = [
        ("large", "prefork = true", true),
        ("small", "prefork = true", false),
        ("ahead", "prefork = true", true),
        // Who is executed to begin at once, as the first one is, gathers while it works, as who takes it then.
        ("ahead", "standby = 1", true),
        ("pieces", "standby = 1", true),
        ("pieces", "prefork = true", true),
    ];
    for (pages, way, large) in cases {
        let stage = stage!("standby-pages");
        let file = large_sink(&stage, pages, way);
        let mut shoal = stage.run(&file);
        let mut sink = until_parked(&mut shoal, "sink");
        for _ in 0..3 {
            // Who gathers would have done so long before.
            let messages = if gives && large { 1 } else { 200 };
            let pid = until_at_work(&mut shoal, &sink, messages);
            if gives && large {
                until("large pages", || (in_large_pages(pid) >= 12 << 10).then_some(()));
            } else {
                assert!(in_large_pages(pid) < 12 << 10, "{pages}, {way}");
            }
            sink = killed_and_followed(&stage, &mut shoal, &sink);
        }
        let done = shoal.stop();
        assert_eq!(done.status, 0, "{}", done.err);
        stage.assert_nothing_left();
    }
}

/// Goal: who is not to be back soon pays nothing for it. Method: a sink of 16 MiB without a standby, after so many messages, a millisecond
/// apart, that one with a standby would have gathered long ago.
#[test]
fn memory_of_who_is_not_stood_by_stays_as_it_is() {
    let stage = stage!("not-stood-by");
    let mut shoal = stage.run(&large_sink(&stage, "pieces", ""));
    let sink = shoal.until_agent("sink", "a life", |agent| agent.pid.map(|_| agent.clone()));
    let pid = until_at_work(&mut shoal, &sink, 200);
    let kernel = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if !kernel.contains("[always]") {
        assert_eq!(in_large_pages(pid), 0);
    }
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Waits until a sink has taken so many messages and one more, with the first of which it takes its memory; its process.
fn until_at_work(shoal: &mut Running<'_>, sink: &PsAgent, messages: u64) -> u32 {
    shoal.until_agent("sink", "at work with its memory", |agent| {
        agent.pid.filter(|_| agent.generation == sink.generation && agent.received > sink.received + messages)
    })
}
