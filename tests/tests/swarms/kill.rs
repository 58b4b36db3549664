//! Kills from outside: of agents, of the supervisor, at a shutdown.

use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::stage::Relayed;
use shoal_tests::tapped::want;
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Numbers from a source over relays to a sink.
fn numbers(stage: &Stage, count: u64, relays: u64) -> PathBuf {
    // A group of several keeps no order.
    let ways = if relays > 1 { 0 } else { 1 };
    let relay = &format!("replicas = {relays}");
    Relayed { count, relay, ways, ..Relayed::default() }.write(stage)
}

/// Messages that agents of a swarm have received so far; 0 while nobody tells.
fn received(shoal: &Running<'_>) -> u64 {
    shoal.try_ps().map_or(0, |report| report.agents.iter().map(|a| a.received).sum())
}

/// Waits until agents received more messages than `before`, or the swarm is over. A storm without pause would leave a busy
/// machine no time for anything but starts.
fn until_further(shoal: &mut Running<'_>, before: u64) {
    until("another message after a kill", || {
        (shoal.poll().is_some() || received(shoal) > before).then_some(())
    });
}

/// How many pieces of agents' memory a supervisor has open.
fn segments(shoal: &Running<'_>) -> usize {
    let supervisor = shoal.supervisor().expect("a supervisor");
    traces::descriptors(supervisor).get("/memfd:shoal-segment (deleted)").copied().unwrap_or(0)
}

#[test]
fn memory_of_the_dead_goes_when_it_was_read_though_nobody_dies_any_more() {
    // Goal: what a dead agent left is held for its readers, and no longer. Method: the reader is stopped while its producer dies and comes
    // back; then it goes on, of which nobody tells the supervisor.
    let stage = stage!("graves");
    let mut shoal = stage.run(&numbers(&stage, 0, 1));
    shoal.until_ready();
    let before = segments(&shoal);
    let sink = shoal.pid_of("sink");
    assert!(traces::send(sink, stage.mark(), Signal::STOP));
    assert!(traces::kill(shoal.pid_of("relay"), stage.mark()));
    shoal.until_agent("relay", "restarted", |a| (a.restarts >= 1 && a.state == PsState::Ready).then_some(()));
    until("the memory of the dead beside that of the living", || (segments(&shoal) > before).then_some(()));
    assert!(traces::send(sink, stage.mark(), Signal::CONT));
    until("that of the living alone", || (segments(&shoal) == before).then_some(()));
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}

/// An outsider who kills agents: by the pids of `shoal ps --json`, and those who were just started by the list of the
/// supervisor's children.
struct Outsider<'s> {
    stage: &'s Stage,
    chance: Chance,
    /// Kills that met a living process, by agent.
    kills: BTreeSet<String>,
    count: u64,
    in_start: u64,
}

impl<'s> Outsider<'s> {
    fn new(stage: &'s Stage) -> Self {
        Outsider { stage, chance: Chance::seeded(), kills: BTreeSet::new(), count: 0, in_start: 0 }
    }

    /// Kills one agent, if there is one to kill.
    fn strike(&mut self, shoal: &Running<'_>) {
        let Some(report) = shoal.try_ps() else { return };
        // The demo's reader is the command itself.
        let may_die = |pid: u32| pid as i32 != shoal.pid();
        let living: Vec<_> = report.agents.iter().filter(|a| a.pid.is_some_and(may_die)).collect();
        if living.is_empty() {
            return;
        }
        // One of those whose like was not killed yet, else anyone.
        let spared = |name: &str| !self.kills.contains(name.split('.').next().unwrap_or_default());
        let first: Vec<_> = living.iter().copied().filter(|a| spared(&a.name)).collect();
        let among = if first.is_empty() { living } else { first };
        let victim = among[self.chance.below(among.len() as u64) as usize];
        std::thread::sleep(self.chance.time(Duration::from_millis(4)));
        let pid = victim.pid.unwrap_or(0) as i32;
        let Some(supervisor) = traces::parent(pid) else { return };
        let before = traces::children(supervisor);
        if !traces::kill(pid, self.stage.mark()) {
            return;
        }
        self.kills.insert(victim.name.split('.').next().unwrap_or_default().to_owned());
        self.count += 1;
        self.in_start += u64::from(victim.state == PsState::Starting);
        if self.chance.below(2) == 0 {
            self.strike_newborn(supervisor, &before);
        }
    }

    /// Kills who was started in place of the last victim, at a moment before it is ready or soon after.
    fn strike_newborn(&mut self, supervisor: i32, before: &[i32]) {
        let born = (0..2000).find_map(|_| {
            let born = traces::children(supervisor).into_iter().find(|pid| !before.contains(pid));
            if born.is_none() {
                std::thread::yield_now();
            }
            born
        });
        let Some(born) = born else { return };
        std::thread::sleep(self.chance.time(Duration::from_millis(3)));
        if traces::kill(born, self.stage.mark()) {
            self.count += 1;
            self.in_start += 1;
        }
    }
}

/// Folders, empty files, odd names, a large file, symbolic links: about 2000 files. The paths are so long that the tasks do
/// not fit their lane at once, so that the lister lives long enough to be killed.
fn make_tree(root: &Path) -> usize {
    let mut count = 0;
    let mut put = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).expect("a file of the tree");
        count += 1;
    };
    for folder in 0..40 {
        let long = "long ".repeat(45);
        let folder = root.join(format!("folder {folder}/{long}/{long}/{long}/{long}"));
        fs::create_dir_all(&folder).expect("a folder of the tree");
        for file in 0..49 {
            let text = format!("file {file}\n").repeat(file * 13);
            put(&folder.join(format!("{file}.txt")), text.as_bytes());
        }
    }
    fs::create_dir(root.join("empty")).expect("a folder of the tree");
    put(&root.join("none"), b"");
    put(&root.join("new\nline"), b"a b\n\nc");
    put(&root.join("\u{fc}\u{1f41f}"), "\u{fc} \u{1f41f}".as_bytes());
    put(&root.join("large"), &b"0123456789 abcdef\n".repeat(300_000));
    std::os::unix::fs::symlink("none", root.join("link")).expect("a symbolic link");
    count
}

/// Goal: the demo's result is the same whoever is killed from outside. Method: agents of all three kinds, drawn by a seeded
/// generator from `shoal ps --json`, get SIGKILL while it runs, many of them while they start; the demo kills none itself.
#[test]
fn demo_under_kills_from_outside_ends_identical() {
    let stage = stage!("demo");
    let root = stage.path("tree");
    fs::create_dir(&root).expect("a tree");
    let files = make_tree(&root);
    let root = root.to_str().expect("a UTF-8 path").to_owned();
    let mut outsider = Outsider::new(&stage);
    let mut passes = 0;
    while outsider.kills.len() < 3 || outsider.count < 10 {
        passes += 1;
        assert!(passes < 20, "killed in 50 passes: {:?}, {}", outsider.kills, outsider.count);
        let mut shoal =
            stage.start(stage.shoal(&["demo", &root, "--json", "--kill-every", "0", "--workers", "3"]));
        let begun = outsider.count;
        while shoal.poll().is_none() && outsider.count - begun < 40 {
            let before = received(&shoal);
            outsider.strike(&shoal);
            until_further(&mut shoal, before);
        }
        let done = shoal.ended();
        assert_eq!(done.status, 0, "{}", done.err);
        let report: serde_json::Value = serde_json::from_str(&done.out).expect("one JSON object");
        assert_eq!(report["identical"], true);
        assert_eq!(report["files"].as_array().map(Vec::len), Some(files));
        stage.assert_nothing_left();
    }
    let Outsider { kills, count, in_start, .. } = outsider;
    println!("{count} kills of {kills:?} in {passes} passes, {in_start} of them in a start");
}

/// Goal: every number arrives exactly once, through a group and through a lone relay, there in order, whoever is killed.
/// Method: source, relays and sink, each killed at random (seeded), in their starts too; the sink compares every number with
/// those that it met, or with the one that is due.
#[test]
fn numbers_arrive_exactly_once_and_in_order_under_a_storm_of_kills() {
    let kills: u64 = std::env::var("SHOAL_TEST_STORM").map_or(120, |n| n.parse().expect("a number"));
    for relays in [3, 1] {
        storm(relays, kills / 2);
    }
}

fn storm(relays: u64, kills: u64) {
    let stage = stage!("storm");
    let file = numbers(&stage, 0, relays);
    let mut shoal = stage.run(&file);
    let mut outsider = Outsider::new(&stage);
    while outsider.count < kills {
        let before = Book::count(&stage.path("sink"));
        outsider.strike(&shoal);
        until("the next number at the sink", || {
            assert_eq!(shoal.poll(), None, "the swarm ended: {}", shoal.err());
            assert_eq!(stage.violations(), "");
            (Book::count(&stage.path("sink")) > before).then_some(())
        });
    }
    let Outsider { kills, count, in_start, .. } = outsider;
    let met = Book::count(&stage.path("sink"));
    println!("{count} kills of {kills:?}, {in_start} of them in a start, {met} numbers");
    assert_eq!(kills.len(), 3, "{kills:?}");
    shoal.until_ready();
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert_whole(&stage, &done.out);
    stage.assert_nothing_left();
}

/// What the source sent is what the sink met.
fn assert_whole(stage: &Stage, out: &str) {
    let sent = out.lines().rev().find_map(|line| line.rsplit_once("sent ")?.1.trim().parse::<u64>().ok());
    let mut met = Book::read(&stage.path("sink")).expect("the sink's book");
    met.sort_unstable();
    assert_eq!(sent, Some(met.len() as u64), "sent and met: {out}");
    assert!(met.into_iter().eq(0..sent.unwrap_or(0)), "every number once");
}

/// Goal: a source that ended for good ends the swarm, and a death of the others at that moment changes nothing. Method:
/// relay and sink are killed at random until the swarm is over.
#[test]
fn swarm_whose_source_ends_is_over_by_itself_under_kills() {
    let stage = stage!("finite");
    let mut shoal = stage.run(&numbers(&stage, 60_000, 1));
    let mut outsider = Outsider::new(&stage);
    while shoal.poll().is_none() {
        let before = received(&shoal);
        outsider.strike(&shoal);
        until_further(&mut shoal, before);
    }
    let done = shoal.ended();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert_eq!(Book::count(&stage.path("sink")), 60_000, "after {} kills", outsider.count);
    stage.assert_nothing_left();
}

/// A swarm of agents that are hard to end.
fn stubborn(stage: &Stage) -> std::path::PathBuf {
    stage.write(
        "stubborn.toml",
        r#"
        [swarm]
        name = "NAME"
        [agent.plain]
        command = ["BIN/misbehaving", "idle"]
        [agent.busy]
        command = ["BIN/misbehaving", "busy"]
        stop_timeout = "300ms"
        [agent.deaf]
        command = ["BIN/misbehaving", "deaf"]
        stop_timeout = "300ms"
        [agent.absent]
        command = ["/bin/sleep", "1000"]
        ready_timeout = "10m"
        "#,
    )
}

/// Waits until every agent of `stubborn` is as far as it ever gets.
fn until_up(shoal: &mut Running<'_>) -> Vec<i32> {
    shoal.until("three ready and one starting", |report| {
        let count = |state| report.agents.iter().filter(|a| a.state == state).count();
        let up = count(PsState::Ready) == 3 && count(PsState::Starting) == 1;
        up.then(|| report.agents.iter().filter_map(|a| Some(a.pid? as i32)).collect())
    })
}

/// Goal: when `shoal run` itself is killed, every agent ends, and the next start sweeps what is left. Method: SIGKILL with
/// a plain agent, one that never attaches, one in a busy loop and a deaf one; then the same swarm again, twice.
#[test]
fn agents_of_a_killed_supervisor_end_and_the_next_start_sweeps() {
    let stage = stage!("orphans");
    let file = stubborn(&stage);
    for _ in 0..2 {
        let mut shoal = stage.run(&file);
        let pids = until_up(&mut shoal);
        assert_eq!(pids.len(), 4);
        let memory = traces::memory_files(traces::marked(stage.mark()));
        assert!(memory.len() >= 4);
        shoal.send(Signal::KILL);
        assert_eq!(shoal.ended().status, 128 + 9);
        stage.until_no_process();
        assert_eq!(traces::held_memory(&memory), Vec::<u64>::new());
        // The keeper, which outlives it, tidies up.
        until("an empty place", || (!stage.run_folder().exists()).then_some(()));
    }
    let mut shoal = stage.run(&file);
    until_up(&mut shoal);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: nothing is lost at a stop: sources end first, then who reads them. Method: SIGINT and SIGTERM in the middle of a
/// stream; the agents note their ends, the sink what it met.
#[test]
fn first_signal_stops_everything_in_the_order_of_the_messages() {
    for signal in [Signal::INT, Signal::TERM] {
        let stage = stage!("orderly");
        let mut shoal = stage.run(&numbers(&stage, 0, 2));
        shoal.until_ready();
        until("numbers", || (Book::count(&stage.path("sink")) > 100).then_some(()));
        shoal.send(signal);
        let done = shoal.ended();
        assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
        let order = fs::read_to_string(stage.path("order")).expect("the order of the ends");
        let order: Vec<&str> = order.lines().map(|name| name.split('.').next().unwrap_or(name)).collect();
        assert_eq!(order, ["source", "relay", "relay", "sink"]);
        assert_whole(&stage, &done.out);
        stage.assert_nothing_left();
    }
}

/// Goal: a shutdown loses nothing of what a reader that is down has not read. Method: the sink is killed until its next start
/// waits; then messages are sent, and the swarm is asked to end.
#[test]
fn reader_that_is_down_at_a_shutdown_comes_back_and_drains() {
    assert_drained(&stage!("drained"), |shoal| shoal.send(Signal::TERM));
}

/// The successor goes on with the time that a stage of the shutdown has.
#[test]
fn reader_that_is_down_at_a_shutdown_comes_back_and_drains_also_under_the_next_supervisor() {
    assert_drained(&stage!("drained-on"), |shoal| {
        shoal.send(Signal::TERM);
        shoal.until_agent("tap", "stopped", |a| (a.state == PsState::Stopped).then_some(()));
        shoal.succeed();
    });
}

/// Runs a swarm whose sink is down, and has all to read, when it is asked to end.
fn assert_drained(stage: &Stage, end: impl FnOnce(&mut Running<'_>)) {
    let file = stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.relayed]
        message = "Number"
        [agent.tap]
        command = ["BIN/numbers", "tap"]
        publishes = ["relayed"]
        env = { ON = "relayed" }
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        restart = { policy = "permanent", intensity = 10000, period = "1h", backoff = "1s..1s" }
        stop_timeout = "60s"
        "#,
    );
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    shoal.until("the sink's pause", |report| {
        let sink = report.agents.iter().find(|a| a.name == "sink")?;
        if let (PsState::Ready, Some(pid)) = (sink.state, sink.pid) {
            traces::kill(pid as i32, stage.mark());
        }
        (sink.state == PsState::Backoff).then_some(())
    });
    want(stage, 50);
    shoal.until_agent("tap", "done", |a| (a.sent == 50).then_some(()));
    end(&mut shoal);
    let done = shoal.ended();
    assert_eq!((done.status, stage.violations().as_str()), (0, ""), "{}", done.err);
    assert!(!done.err.contains("not read by"), "{}", done.err);
    assert_eq!(Book::count(&stage.path("sink")), 50);
    stage.assert_nothing_left();
}

/// Goal: who does not want to wait need not. Method: an agent that does not listen, with a long time to stop; the second
/// signal comes once the first has been heard.
#[test]
fn second_signal_kills_what_is_left() {
    let stage = stage!("impatient");
    let file = stage.write(
        "swarm.toml",
        "[swarm]\nname = \"NAME\"\n[agent.deaf]\ncommand = [\"BIN/misbehaving\", \"deaf\"]\nstop_timeout = \"1h\"\n",
    );
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    shoal.send(Signal::INT);
    shoal.until_agent("deaf", "stopping", |a| (a.state == PsState::Stopping).then_some(()));
    shoal.send(Signal::TERM);
    let done = shoal.ended();
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(done.err.contains("asked again"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: a stopped process holds up no shutdown. Method: SIGSTOP before SIGTERM; its time to stop is 300 ms.
#[test]
fn stopped_agent_is_killed_after_its_time_at_a_shutdown() {
    let stage = stage!("frozen");
    let file = stage.write(
        "swarm.toml",
        "[swarm]\nname = \"NAME\"\n[agent.idle]\ncommand = [\"BIN/misbehaving\", \"idle\"]\nreplicas = 2\n\
         stop_timeout = \"300ms\"\n",
    );
    let mut shoal = stage.run(&file);
    let pid = shoal.pid_of("idle.1");
    shoal.until_ready();
    stage.halt(pid);
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}
