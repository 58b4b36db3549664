//! Zygotes: a program initialises once and is forked for each of its starts; nothing is lost or doubled over it, and a zygote's own
//! death concerns nobody.

use rustix::process::Signal;
use shoal::control::{PsAgent, PsReport, PsState};
use shoal_tests::stage::Relayed;
use shoal_tests::tapped::arguments;
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

const FORKED: &str = "prefork = true\nenv = { INIT = \"1\" }";

/// Numbers from a source over three forked relays, which share them, to a forked sink.
fn numbers(stage: &Stage, count: u64) -> PathBuf {
    let relay = &format!("replicas = 3\n{FORKED}");
    Relayed { count, relay, sink: FORKED, ways: 0, ..Relayed::default() }.write(stage)
}

/// What a life of an agent said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Life {
    name: String,
    pid: u32,
    /// Which process had initialised, and where what it made lies.
    made: (u32, String),
}

fn lives(stage: &Stage) -> Vec<Life> {
    let text = fs::read_to_string(stage.path("lives")).unwrap_or_default();
    let of = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, pid, by, at] = words[..] else { panic!("a life says {line:?}") };
        let number = |word: &str| word.parse().expect("a process number");
        Life { name: name.to_owned(), pid: number(pid), made: (number(by), at.to_owned()) }
    };
    text.lines().map(of).collect()
}

/// How often a program has initialised.
fn initialised(stage: &Stage) -> usize {
    fs::read_to_string(stage.path("init")).unwrap_or_default().lines().count()
}

/// Waits until an agent is ready and has a zygote.
fn until_forked(shoal: &mut Running<'_>, name: &str) -> (PsAgent, u32) {
    shoal.until_agent(name, "ready, with a zygote", |agent| {
        (agent.state == PsState::Ready).then(|| Some((agent.clone(), agent.zygote?)))?
    })
}

/// Waits until every agent is ready, and every one that is forked has a zygote.
fn until_whole(shoal: &mut Running<'_>) -> PsReport {
    let is_whole = |a: &PsAgent| a.state == PsState::Ready && (a.name == "source" || a.zygote.is_some());
    shoal.until("every agent ready, with its zygote", |report| {
        report.agents.iter().all(is_whole).then(|| report.clone())
    })
}

/// Kills an agent and waits until another process is ready in its place.
fn killed_and_followed(stage: &Stage, shoal: &mut Running<'_>, name: &str) -> u32 {
    let before = shoal.pid_of(name) as u32;
    assert!(traces::kill(before as i32, stage.mark()));
    shoal.until_agent(name, "followed", |agent| {
        (agent.pid != Some(before) && agent.state == PsState::Ready).then_some(agent.pid?)
    })
}

fn until_further(stage: &Stage, before: u64) {
    until("more numbers in the sink's book", || (Book::count(&stage.path("sink")) > before).then_some(()));
}

/// The swarm ends well, the sink has met each number that was sent once, and nothing is left.
fn assert_whole_at_the_end(stage: &Stage, shoal: Running<'_>) {
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    let sent =
        done.out.lines().rev().find_map(|line| line.rsplit_once("sent ")?.1.trim().parse::<u64>().ok());
    let mut noted = Book::read(&stage.path("sink")).expect("the sink's book");
    noted.sort_unstable();
    assert_eq!(noted.len() as u64, sent.expect("the source says how many it sent"));
    assert!(noted.iter().zip(0..).all(|(noted, due)| *noted == due), "every number once");
    stage.assert_nothing_left();
}

#[test]
fn program_initialises_once_for_all_replicas_and_all_their_lives() {
    // Goal: starts and restarts are forks of one process. Method: each life says who had made what it finds, and where; the relays are
    // killed one after the other.
    let stage = stage!("prefork");
    let mut shoal = stage.run(&numbers(&stage, 0));
    let report = until_whole(&mut shoal);
    let zygotes: BTreeSet<u32> = report.agents.iter().filter_map(|agent| agent.zygote).collect();
    assert_eq!(zygotes.len(), 2, "one for the relays, one for the sink");
    for round in 0..2 {
        for name in ["relay.1", "relay.2", "relay.3", "sink"] {
            let pid = killed_and_followed(&stage, &mut shoal, name);
            let life = lives(&stage).into_iter().rfind(|life| life.pid == pid).expect("its word");
            assert_eq!(life.name, name, "in round {round}");
            assert_ne!(life.made.0, pid, "it has not initialised itself");
        }
        let met = Book::count(&stage.path("sink"));
        until_further(&stage, met);
    }
    let mut made: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for life in lives(&stage) {
        made.entry(life.made.0).or_default().insert(life.made.1);
    }
    assert_eq!(made.keys().copied().collect::<BTreeSet<_>>(), zygotes, "all lives are of these two");
    assert!(made.values().all(|places| places.len() == 1), "what was made lies where it lay: {made:?}");
    assert_eq!((lives(&stage).len(), initialised(&stage)), (4 + 8, 2));
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn death_of_a_zygote_disturbs_nobody_and_another_is_made() {
    // Goal: who was forked needs its zygote no more. Method: SIGKILL to it; the agents keep their processes, the next death is answered,
    // and once there is another zygote, by a fork of that.
    let stage = stage!("prefork-zygote");
    let mut shoal = stage.run(&numbers(&stage, 0));
    let before = until_whole(&mut shoal);
    let (_, zygote) = until_forked(&mut shoal, "relay.2");
    assert!(traces::kill(zygote as i32, stage.mark()));
    shoal.until_agent("relay.2", "without that zygote", |agent| (agent.zygote != Some(zygote)).then_some(()));
    killed_and_followed(&stage, &mut shoal, "relay.2");
    let (_, next) = until_forked(&mut shoal, "relay.2");
    assert_ne!(next, zygote);
    let pids = |report: &PsReport| {
        let others = report.agents.iter().filter(|agent| agent.name != "relay.2");
        others.map(|agent| agent.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(&before), pids(&until_whole(&mut shoal)), "nobody else has another process");
    // The fork that its predecessor left, and then its own.
    let by = |pid: u32| lives(&stage).into_iter().rfind(|life| life.pid == pid).map(|life| life.made.0);
    until("a life of the new zygote", || {
        let pid = killed_and_followed(&stage, &mut shoal, "relay.2");
        (by(pid) == Some(next)).then_some(())
    });
    assert!(shoal.err().contains("the zygote of agent relay was killed by SIGKILL"), "{}", shoal.err());
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn storm_of_kills_among_forks_and_zygotes_loses_and_doubles_nothing() {
    // Goal: exactly once over forks. Method: SIGKILL at random moments to any process of the swarm's but the source; then the source is
    // let end, and the sink's book must hold every number once.
    let stage = stage!("prefork-storm");
    let mut shoal = stage.run(&numbers(&stage, 0));
    let mut chance = Chance::seeded();
    until_whole(&mut shoal);
    let keeper = shoal.keeper().expect("a keeper");
    let mut killed = 0;
    while killed < 80 {
        let spared = [shoal.supervisor(), Some(shoal.pid_of("source"))];
        let victims: Vec<i32> =
            traces::children(keeper).into_iter().filter(|pid| !spared.contains(&Some(*pid))).collect();
        if victims.is_empty() || spared[0].is_none() {
            continue;
        }
        std::thread::sleep(chance.time(Duration::from_millis(4)));
        let victim = victims[chance.below(victims.len() as u64) as usize];
        killed += u32::from(traces::kill(victim, stage.mark()));
        if chance.below(8) == 0 {
            let met = Book::count(&stage.path("sink"));
            until_further(&stage, met);
        }
    }
    until_whole(&mut shoal);
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn zygote_with_a_second_thread_is_refused_with_what_to_do() {
    // Goal: a fork of several threads never happens silently. Method: a program that leaves a thread running before it is an agent.
    let stage = stage!("prefork-thread");
    let relay = "prefork = true\nenv = { INIT = \"thread\" }";
    let file = Relayed { relay, ..Relayed::default() }.write(&stage);
    let done = stage.run(&file).ended();
    assert_eq!(done.status, 2, "{}", done.err);
    let said = "agent relay: this zygote (`prefork`) has 2 threads before `shoal_agent::run`";
    assert!(done.err.contains(said) && done.err.contains("swarm.toml:"), "{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn zygote_that_lies_is_ended_and_its_agents_are_started_by_their_command() {
    // Goal: what a zygote says is checked. Method: one that says of itself that it was forked.
    let stage = stage!("prefork-lie");
    let relay = "prefork = true\nenv = { INIT = \"lie\" }";
    let file = Relayed { count: 1000, relay, ..Relayed::default() }.write(&stage);
    let mut shoal = stage.run(&file);
    shoal.until_said("the zygote of agent relay is killed: it says that it forked what it did not");
    let done = shoal.ended();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(Book::count(&stage.path("sink")), 1000);
    assert!(lives(&stage).iter().all(|life| life.made.0 == life.pid), "each had initialised itself");
    stage.assert_nothing_left();
}

#[test]
fn fork_without_a_word_is_ended_and_reaped_at_once() {
    // Goal: what nobody knows leaves no zombie behind. Method: a zygote's first fork closes its socket without a word and lives on; the
    // second is as it should be, so that nothing is looked for any more.
    let stage = stage!("prefork-silent");
    let relay = "prefork = true\nstandby = 0\nenv = { INIT = \"silent\" }";
    let mut shoal = stage.run(&Relayed { relay, ..Relayed::default() }.write(&stage));
    shoal.until_said("the zygote of agent relay forked a process that died before its first word");
    let forks: Vec<i32> = until("another fork", || {
        let text = fs::read_to_string(stage.path("forks")).unwrap_or_default();
        let forks: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
        (forks.len() == 2).then_some(forks)
    });
    until("the end of the first, and no zombie", || traces::state(forks[0]).is_none().then_some(()));
    assert!(traces::state(forks[1]).is_some_and(|state| state != 'Z'), "the second lives");
    shoal.until_ready();
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn zygote_that_does_not_answer_is_replaced_and_the_start_is_made_without_it() {
    // Goal: nobody waits for a zygote for ever. Method: it is stopped, and two replicas without standbys die: one fork lay ready, for the
    // other it is waited.
    let stage = stage!("prefork-stopped");
    let relay = &format!("replicas = 3\nstandby = 0\n{FORKED}");
    let mut shoal = stage.run(&Relayed { relay, sink: FORKED, ways: 0, ..Relayed::default() }.write(&stage));
    let (_, zygote) = {
        until_whole(&mut shoal);
        until_forked(&mut shoal, "relay.1")
    };
    assert!(traces::send(zygote as i32, stage.mark(), Signal::STOP));
    for name in ["relay.1", "relay.2"] {
        killed_and_followed(&stage, &mut shoal, name);
    }
    let (_, next) = until_forked(&mut shoal, "relay.1");
    assert_ne!(next, zygote);
    assert!(shoal.err().contains("is killed: it did not fork within"), "{}", shoal.err());
    assert_whole_at_the_end(&stage, shoal);
}

/// The sockets and pipes of a process.
fn own_ends(pid: i32) -> BTreeSet<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links =
        all.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|link| link.display().to_string());
    links.filter(|link| link.starts_with("socket:") || link.starts_with("pipe:")).collect()
}

/// How many descriptors a process has open.
fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn forks_hold_nothing_of_each_other_and_a_hundred_deaths_leave_nothing() {
    // Goal: a fork has its own descriptors only, and neither zygote nor supervisor grows. Method: sockets and pipes of all processes are
    // compared; a relay is killed a hundred times, and the descriptors of both are counted before and after.
    let stage = stage!("prefork-growth");
    let mut shoal = stage.run(&numbers(&stage, 0));
    until_whole(&mut shoal);
    let (keeper, supervisor) = (shoal.keeper().expect("a keeper"), shoal.supervisor());
    let supervisor = supervisor.expect("a supervisor");
    for _ in 0..3 {
        killed_and_followed(&stage, &mut shoal, "relay.2");
    }
    let (_, zygote) = until_forked(&mut shoal, "relay.2");
    let most = (descriptors(supervisor) + 8, descriptors(zygote as i32));
    for _ in 0..100 {
        killed_and_followed(&stage, &mut shoal, "relay.2");
    }
    assert_eq!(until_forked(&mut shoal, "relay.2").1, zygote);
    until("descriptors as before", || {
        (descriptors(supervisor) <= most.0 && descriptors(zygote as i32) <= most.1).then_some(())
    });
    // Seven of agents and zygotes, four that stand by and two forks that wait, perhaps one of them on its way.
    until("processes that share no socket and no pipe", || {
        let pids: Vec<i32> = traces::children(keeper).into_iter().filter(|pid| *pid != supervisor).collect();
        let ends: Vec<BTreeSet<String>> = pids.iter().map(|pid| own_ends(*pid)).collect();
        let all: BTreeSet<&String> = ends.iter().flatten().collect();
        let living = pids.len() >= 13 && ends.iter().all(|ends| ends.len() >= 3);
        (living && all.len() == ends.iter().map(BTreeSet::len).sum::<usize>()).then_some(())
    });
    assert_eq!(lives(&stage).iter().map(|life| life.made.0).collect::<BTreeSet<_>>().len(), 2);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn successor_of_a_killed_supervisor_makes_zygotes_anew() {
    // Goal: a take-over ends what it does not know, and has forks again. Method: SIGKILL to the supervisor, several times, and to a relay.
    let stage = stage!("prefork-keeper");
    let mut shoal = stage.run(&numbers(&stage, 0));
    let before = until_whole(&mut shoal);
    let mut zygote = until_forked(&mut shoal, "relay.1").1;
    for _ in 0..3 {
        until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
        let former = zygote;
        zygote = shoal
            .until_agent("relay.1", "with another zygote", |agent| agent.zygote.filter(|z| *z != former));
    }
    let pids = |report: &PsReport| report.agents.iter().map(|agent| agent.pid).collect::<Vec<_>>();
    assert_eq!(pids(&until_whole(&mut shoal)), pids(&before), "the agents went on");
    let pid = killed_and_followed(&stage, &mut shoal, "relay.1");
    let life = lives(&stage).into_iter().rfind(|life| life.pid == pid).expect("its word");
    assert_eq!(life.made.0, zygote);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn forks_stand_by_unasked_and_a_filter_of_system_calls_lets_them_be_made() {
    // Goal: each death is answered by a fork that has its segment and its links, also with seccomp = "default". Method: a relay that says
    // nothing of standbys is killed; who stood by takes over, and both had been forked.
    let stage = stage!("prefork-standby");
    let relay = &format!("{FORKED}\nseccomp = \"default\"");
    let mut shoal = stage.run(&Relayed { relay, ways: 0, ..Relayed::default() }.write(&stage));
    let parked = |shoal: &mut Running<'_>| {
        shoal.until_agent("relay", "ready, with a standby and a zygote", |agent| {
            (agent.state == PsState::Ready && agent.zygote.is_some())
                .then(|| agent.standbys.first().copied())?
        })
    };
    for _ in 0..2 {
        let standby = parked(&mut shoal);
        assert_eq!(killed_and_followed(&stage, &mut shoal, "relay"), standby);
    }
    let zygote = until_forked(&mut shoal, "relay").1;
    assert!(lives(&stage).iter().all(|life| life.made.0 == zygote && life.pid != zygote));
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn changed_file_ends_the_zygote_that_it_leaves_without_sense() {
    // Goal: nobody is forked of what the file no longer says. Method: reloads that change the environment, and take `prefork` out.
    let stage = stage!("prefork-reload");
    let write = |relay: &str| {
        let relay = &format!("replicas = 2\n{relay}");
        Relayed { relay, ways: 0, ..Relayed::default() }.write(&stage)
    };
    let mut shoal = stage.run(&write(FORKED));
    let reloaded = || {
        let done = stage.done(&["reload"]);
        assert_eq!(done.status, 0, "{}", done.err);
    };
    let (_, first) = until_forked(&mut shoal, "relay.2");
    shoal.until_ready();
    write(&format!("{FORKED}\nstop_timeout = \"3s\""));
    reloaded();
    assert_eq!(until_forked(&mut shoal, "relay.2").1, first, "what does not concern it leaves it alone");
    write("prefork = true\nenv = { INIT = \"1\", MORE = \"1\" }");
    reloaded();
    let second = until_forked(&mut shoal, "relay.2").1;
    assert_ne!(second, first);
    until("the end of the former zygote", || traces::state(first as i32).is_none().then_some(()));
    write("env = { INIT = \"1\" }");
    reloaded();
    let zygote = shoal.until_agent("relay.2", "ready", |a| (a.state == PsState::Ready).then_some(a.zygote));
    assert_eq!(zygote, None);
    until("the end of the zygote", || traces::state(second as i32).is_none().then_some(()));
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn upgrade_of_forked_agents_leaves_nobody_forked_of_the_former_program_and_a_reload_goes_back() {
    // Goal: nobody is forked of a program that was replaced. Method: each life says who had initialised it; the command gets another
    // argument by an upgrade, a replica is killed, and a reload goes by the file again.
    let stage = stage!("prefork-upgrade");
    let mut shoal = stage.run(&numbers(&stage, 0));
    until_whole(&mut shoal);
    let first = until_forked(&mut shoal, "relay.1").1;
    let bin = arguments(&mut shoal, "relay.1").split(' ').next().expect("a program").to_owned();
    let done = stage.done(&["upgrade", "relay", "--prove", "50ms", "--command", &bin, "relay", "second"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    let made = |pid: u32| lives(&stage).into_iter().rfind(|life| life.pid == pid).expect("its word").made.0;
    until("the end of the former zygote", || traces::state(first as i32).is_none().then_some(()));
    for name in ["relay.1", "relay.2", "relay.3"] {
        let pid = shoal.pid_of(name) as u32;
        assert_eq!(made(pid), pid, "{name} was started by the new command");
        assert!(arguments(&mut shoal, name).ends_with("relay second "), "{name}");
    }
    let again = |shoal: &mut Running<'_>, name: &str, words: &str| {
        until("a fork", || {
            let pid = killed_and_followed(&stage, shoal, name);
            assert!(arguments(shoal, name).ends_with(words), "{name} {words}");
            (made(pid) != pid).then_some(())
        });
    };
    again(&mut shoal, "relay.2", "relay second ");
    let done = stage.done(&["reload"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    for name in ["relay.1", "relay.2", "relay.3"] {
        again(&mut shoal, name, "relay ");
    }
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    assert_whole_at_the_end(&stage, shoal);
}

#[test]
fn forks_of_another_user_are_that_users_and_end_with_the_supervisors_keeper() {
    // Goal: a fork has the user of its zygote, and is not forgotten at the end, though the kernel forgets whose death ends a process that
    // changes its user. Method: what the kernel says of each process; a kill of one; then of the process that was started.
    if !rustix::process::geteuid().is_root() {
        return; // the file is refused then: `agent_runs_as_the_user_that_the_file_names_and_dies_with_its_supervisor`
    }
    let stage = stage!("prefork-user");
    // Agents of that user write there, too.
    fs::set_permissions(stage.path("."), fs::Permissions::from_mode(0o777)).expect("opened to all");
    let relay = &format!("replicas = 2\n{FORKED}\nuser = \"12345\"\nuser_group = \"54321\"");
    for note in ["init", "lives", "order", "violations"] {
        fs::write(stage.path(note), "").expect("a page");
        fs::set_permissions(stage.path(note), fs::Permissions::from_mode(0o666)).expect("opened to all");
    }
    let mut shoal = stage.run(&Relayed { relay, ways: 0, ..Relayed::default() }.write(&stage));
    let (_, zygote) = until_forked(&mut shoal, "relay.1");
    shoal.until_ready();
    killed_and_followed(&stage, &mut shoal, "relay.2");
    let ids = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let of = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)?.split('\t').nth(1)?.parse().ok())
        };
        (of("Uid:"), of("Gid:"))
    };
    for pid in [zygote, shoal.pid_of("relay.1") as u32, shoal.pid_of("relay.2") as u32] {
        assert_eq!(ids(pid), (Some(12345), Some(54321)), "process {pid}");
    }
    until("a fork of that user", || {
        let pid = killed_and_followed(&stage, &mut shoal, "relay.1");
        let life = lives(&stage).into_iter().rfind(|life| life.pid == pid).expect("its word");
        (life.made.0 != pid && ids(pid) == (Some(12345), Some(54321))).then_some(())
    });
    let met = Book::count(&stage.path("sink"));
    until_further(&stage, met);
    shoal.send(Signal::KILL);
    assert_eq!(shoal.ended().status, 128 + 9);
    stage.until_no_process();
}

/// Goal: zygotes, forks that wait and forks at work are gone with the keeper, and with the guard. Method: SIGKILL of each while numbers flow.
#[test]
fn zygotes_and_forks_end_with_the_keeper_and_with_the_guard() {
    let stage = stage!("endings");
    let file = numbers(&stage, 1_000_000_000);
    let mut shoal = stage.run(&file);
    until_whole(&mut shoal);
    until_further(&stage, 0);
    assert!(traces::kill(shoal.keeper().expect("a keeper"), stage.mark()));
    let done = shoal.ended();
    assert_eq!(done.status, 1, "{}", done.err);
    stage.assert_nothing_left();
    // The next swarm begins at the first number.
    fs::remove_file(stage.path("sink")).expect("the sink's book");
    let mut shoal = stage.run(&file);
    until_whole(&mut shoal);
    shoal.send(Signal::KILL);
    assert_eq!(shoal.ended().status, 128 + 9);
    stage.until_no_process();
    stage.assert_nothing_left();
}
