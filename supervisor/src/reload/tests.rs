//! What stays, stays where it is; who is not in the plan would be told the same.

use super::*;
use crate::birth;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::Path;

/// A swarm that runs, with who replays dead letters.
#[derive(Clone)]
struct Side {
    file: SwarmFile,
    topology: Topology,
    board: BoardShape,
}

impl Side {
    fn first(text: &str) -> Side {
        let mut file = parse(text);
        let mut topology = Topology::of(&file);
        topology.add_postman(&file, crate::postman::NAME);
        file.agents.push(crate::postman::agent(Path::new("/nowhere")).expect("an agent"));
        let board = birth::board_shape(&topology);
        Side { file, topology, board }
    }

    fn next(&self, text: &str) -> Result<Side, String> {
        self.follow(merge(&self.file, parse(text))?)
    }

    fn follow(&self, file: SwarmFile) -> Result<Side, String> {
        let topology = self.topology.evolve(&file);
        let board = birth::grown_board_shape(&self.board, &topology).ok_or("no room")?;
        Ok(Side { file, topology, board })
    }

    fn manifests(&self) -> Vec<Manifest> {
        let manifest = |agent| birth::manifest(&self.file, &self.topology, &self.board, agent);
        (0..self.topology.agents.len()).map(manifest).collect()
    }

    fn to(&self, next: &Side) -> (Plan, Work) {
        self.with_kept(next, &BTreeSet::new())
    }

    /// The same while the senders of some who are gone wait for them.
    fn with_kept(&self, next: &Side, kept: &BTreeSet<usize>) -> (Plan, Work) {
        let (old, new) = (self.manifests(), next.manifests());
        let stand = |side: &'_ Side, manifests: &'_ [Manifest]| -> (Plan, Work) {
            let before = Stand { file: &self.file, topology: &self.topology, manifests: &old };
            let after = Stand { file: &side.file, topology: &side.topology, manifests };
            plan(before, after, kept, &BTreeSet::new())
        };
        stand(next, &new)
    }

    fn names(&self, agents: &BTreeSet<usize>) -> Vec<&str> {
        agents.iter().map(|&agent| self.topology.agents[agent].name.as_str()).collect()
    }
}

fn parse(text: &str) -> SwarmFile {
    config::parse(Path::new("t.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

const LISTER: &str = "[agent.lister]\ncommand = [\"x\"]\npublishes = [\"tasks\"]\n";
const COLLECTOR: &str = "[agent.collector]\ncommand = [\"x\"]\nsubscribes = [\"counts\"]\n";

fn wordcount(replicas: u32, more: &str) -> String {
    format!(
        "[swarm]\nname = \"s\"\n[channel.tasks]\nmessage = \"T\"\n[channel.counts]\nmessage = \"C\"\n{LISTER}{COLLECTOR}\
         [agent.worker]\ncommand = [\"x\"]\nreplicas = {replicas}\nsubscribes = [\"tasks\"]\npublishes = [\"counts\"]\n{more}"
    )
}

#[test]
fn same_file_changes_nothing() {
    let side = Side::first(&wordcount(2, ""));
    let next = side.next(&wordcount(2, "# a remark, and a line more\n")).expect("merged");
    assert_eq!(side.topology, next.topology);
    let (plan, work) = side.to(&next);
    assert!(plan.is_empty() && work == Work::default(), "{plan:?}");
    assert_eq!(plan.kept, 4);
}

#[test]
fn replicas_that_have_a_place_come_and_go_without_anybody_else() {
    let side = Side::first(&wordcount(2, ""));
    let more = side.follow(scaled(&side.file, "worker", 6).expect("scaled")).expect("room");
    let (plan, work) = side.to(&more);
    assert_eq!(plan.start, ["worker.3", "worker.4", "worker.5", "worker.6"]);
    assert!(work.relink.is_empty() && work.again.is_empty() && work.reshaped.is_empty(), "{plan:?}");
    let fewer = more.follow(scaled(&more.file, "worker", 1).expect("scaled")).expect("room");
    let (plan, work) = more.to(&fewer);
    assert_eq!((plan.stop.len(), plan.kept), (5, 3));
    assert!(work.relink.is_empty() && work.begun_anew.is_empty(), "{plan:?}");
    let none = fewer.follow(scaled(&fewer.file, "worker", 0).expect("scaled")).expect("room");
    let (plan, work) = none.to(&fewer);
    assert_eq!(plan.start, ["worker.1"]);
    let relinked = none.names(&work.relink);
    assert_eq!(relinked, ["lister", crate::postman::NAME], "its group begins where their lanes end");
    assert_eq!(work.begun_anew.len(), 2);
}

#[test]
fn one_that_becomes_several_takes_its_neighbours_along_and_keeps_its_place() {
    let side = Side::first(&wordcount(1, ""));
    let next = side.next(&wordcount(2, "")).expect("merged");
    let (plan, work) = side.to(&next);
    assert_eq!(next.names(&work.relink), ["lister", "collector", "worker.1", crate::postman::NAME]);
    assert_eq!((plan.restart.len(), plan.start.as_slice()), (3, &["worker.2".to_owned()][..]));
    let why = &plan.restart.iter().find(|change| change.name == "worker").expect("it is told").why;
    assert!(why.iter().any(|why| why == "it is named worker.1 now"), "{why:?}");
    let of =
        |name: &str| plan.restart.iter().find(|change| change.name == name).expect("it is told").why.clone();
    assert_eq!(of("lister"), ["sends tasks to worker.2"], "and to no place that nobody has");
    assert_eq!(of("collector"), ["reads counts of worker.2"]);
    assert_eq!(side.topology.find("worker")[0], next.topology.find("worker.1")[0]);
}

#[test]
fn new_reader_restarts_those_whom_it_reads_and_a_removed_one_nobody() {
    let side = Side::first(&wordcount(2, ""));
    let tap = "[agent.tap]\ncommand = [\"x\"]\nsubscribes = [\"counts\"]\n";
    let next = side.next(&wordcount(2, tap)).expect("merged");
    let (plan, work) = side.to(&next);
    assert_eq!(next.names(&work.relink), ["worker.1", "worker.2"]);
    assert_eq!((plan.start.as_slice(), plan.kept), (&["tap".to_owned()][..], 2));
    assert_eq!(plan.restart[0].why, ["sends counts to tap"]);
    let back = next.next(&wordcount(2, "")).expect("merged");
    let (plan, work) = next.to(&back);
    assert_eq!((plan.stop.as_slice(), plan.kept), (&["tap".to_owned()][..], 4));
    assert!(work.relink.is_empty());
    let again = back.next(&wordcount(2, tap)).expect("merged");
    let (_, work) = back.to(&again);
    assert_eq!(again.names(&work.relink), ["worker.1", "worker.2"], "it begins at the ends of their lanes");
}

#[test]
fn resized_channel_restarts_its_producers_and_readers_and_says_so() {
    let side = Side::first(&wordcount(2, ""));
    let text = wordcount(2, "").replace("message = \"C\"", "message = \"C\"\ncapacity = \"64 KiB\"");
    let next = side.next(&text).expect("merged");
    let (plan, work) = side.to(&next);
    let mut relinked = next.names(&work.relink);
    relinked.sort_unstable();
    assert_eq!(
        relinked,
        ["collector", crate::postman::NAME, "lister", "worker.1", "worker.2"],
        "memory of all changes"
    );
    assert_eq!(
        plan.channels,
        [Change { name: "counts".into(), why: vec!["resized from 256 KiB to 64 KiB".into()] }]
    );
    assert_eq!(plan.kept, 0);
}

#[test]
fn command_and_settings_concern_their_agent_alone() {
    let side = Side::first(&wordcount(2, ""));
    let other =
        wordcount(2, "").replace("[agent.lister]\ncommand = [\"x\"]", "[agent.lister]\ncommand = [\"y\"]");
    let other = other.replace("[agent.collector]\n", "[agent.collector]\nstop_timeout = \"9s\"\n");
    let next = side.next(&other).expect("merged");
    let (plan, work) = side.to(&next);
    assert_eq!((next.names(&work.again), work.relink.len()), (vec!["lister"], 0));
    assert_eq!(plan.restart, [Change { name: "lister".into(), why: vec!["its command changes".into()] }]);
    assert_eq!(plan.settings, [Change { name: "collector".into(), why: vec!["stop_timeout".into()] }]);
    assert_eq!(plan.kept, 3);
}

/// Whatever a line adds to an agent's table is seen: it is started again, or told of a new setting.
#[test]
fn each_key_of_an_agent_that_changes_starts_it_again_or_is_a_setting_that_is_named() {
    let side = Side::first(&wordcount(2, ""));
    let of = |line: &str| {
        let other = wordcount(2, "").replace("[agent.lister]\n", &format!("[agent.lister]\n{line}\n"));
        let next = side.next(&other).unwrap_or_else(|error| panic!("{line}: {error}"));
        let (plan, work) = side.to(&next);
        let again: Vec<String> = next.names(&work.again).into_iter().map(str::to_owned).collect();
        (again, plan)
    };
    for (line, why) in [
        ("env = { A = \"b\" }", "env"),
        ("prefetch = 2", "prefetch"),
        ("prefork = true", "prefork, standby"),
        ("prefork = true\nstandby = 0", "prefork"),
        ("max_attempts = 5", "max_attempts"),
        ("restart = \"temporary\"", "restart policy"),
        ("standby = 1", "standby"),
        ("trust = \"isolated\"", "confinement"),
        ("cwd = \"/\"", "confinement"),
        ("env_clear = true", "confinement"),
        ("env_allow = [\"HOME\"]", "confinement"),
        ("no_new_privs = false", "confinement"),
        ("seccomp = \"default\"", "confinement"),
        ("landlock = { read = [\"/tmp\"] }", "confinement"),
        ("landlock = { write = [\"/tmp\"] }", "confinement"),
        ("limits = { memory = \"48 MiB\" }", "confinement"),
        ("limits = { cpu = \"50%\" }", "confinement"),
        ("limits = { cpu_time = \"5s\" }", "confinement"),
        ("limits = { processes = 9 }", "confinement"),
        ("limits = { open_files = 64 }", "confinement"),
        ("limits = { file_size = 9 }", "confinement"),
        ("limits = { core_size = 9 }", "confinement"),
        ("limits = { nice = 9 }", "confinement"),
        ("limits = { scheduling = \"batch\" }", "confinement"),
        ("limits = { cpus = [0] }", "confinement"),
    ] {
        let (again, plan) = of(line);
        assert_eq!((again, plan.settings), (vec!["lister".to_owned()], vec![]), "{line}");
        let of_it = plan.restart.iter().find(|change| change.name == "lister").expect("it is told");
        assert_eq!(of_it.why, [format!("its {why} changes")], "{line}");
        // Whom it may not believe concerns its neighbours, too.
        assert_eq!(plan.kept, if line.starts_with("trust") { 1 } else { 3 }, "{line}");
    }
    for (line, why) in [
        ("stop_timeout = \"9s\"", "stop_timeout"),
        ("ready_timeout = \"9s\"", "ready_timeout"),
        ("deadline = \"9s\"", "deadline"),
        ("on_gone = \"block\"", "on_gone"),
        ("restart = { intensity = 9 }", "restart"),
        ("restart = { period = \"9s\" }", "restart"),
        ("restart = { backoff = \"9ms..9s\" }", "restart"),
        ("restart = { jitter = \"9%\" }", "restart"),
        ("restart = { on_give_up = \"escalate\" }", "restart"),
        ("after = [\"collector\"]", "after"),
    ] {
        let (again, plan) = of(line);
        assert_eq!((again, plan.restart), (vec![], vec![]), "{line}");
        assert_eq!(plan.settings, [Change { name: "lister".into(), why: vec![why.to_owned()] }], "{line}");
    }
}

#[test]
fn what_cannot_change_is_refused_by_name() {
    let side = Side::first(&wordcount(2, ""));
    let refused = |text: &str| side.next(text).err().expect("refused");
    assert!(refused(&wordcount(2, "").replace("name = \"s\"", "name = \"t\"")).contains("`t`"));
    assert!(refused(&wordcount(2, "").replace("message = \"C\"", "message = \"D\"")).contains("counts"));
    assert!(scaled(&side.file, "wroker", 2).expect_err("refused").contains("did you mean `worker`"));
    assert!(scaled(&side.file, crate::postman::NAME, 2).is_err());
    assert!(scaled(&side.file, "worker", config::REPLICAS_MAX + 1).is_err());
}

/// Some agents over four channels, each channel with both ends: name, replicas, subscribes, publishes, capacity of each channel.
fn any_file() -> impl Strategy<Value = String> {
    let agent = (
        0usize..6,
        1u32..5,
        proptest::collection::btree_set(0usize..4, 0..3),
        proptest::collection::btree_set(0usize..4, 0..3),
        proptest::bool::weighted(0.2),
    );
    let channels = proptest::collection::vec((0u32..2, proptest::bool::weighted(0.2)), 4);
    (proptest::collection::vec(agent, 0..6), channels).prop_map(|(agents, channels)| {
        const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
        let mut text = String::from("[swarm]\nname = \"s\"\n");
        for (name, (size, lossy)) in CHANNELS.iter().zip(&channels) {
            let full = if *lossy { "drop-oldest" } else { "block" };
            let kib = 8 << size;
            let _ = writeln!(
                text,
                "[channel.{name}]\nmessage = \"M\"\ncapacity = \"{kib} KiB\"\nwhen_full = \"{full}\""
            );
        }
        let _ = writeln!(text, "[agent.source]\ncommand = [\"x\"]\npublishes = {CHANNELS:?}");
        let _ = writeln!(text, "[agent.sink]\ncommand = [\"x\"]\nsubscribes = {CHANNELS:?}");
        let mut seen = BTreeSet::new();
        for (name, replicas, subscribes, publishes, other) in &agents {
            if !seen.insert(name) {
                continue;
            }
            let pick = |set: &BTreeSet<usize>| set.iter().map(|i| CHANNELS[*i]).collect::<Vec<_>>();
            let command = if *other { "y" } else { "x" };
            let _ = writeln!(text, "[agent.n{name}]\ncommand = [\"{command}\"]\nreplicas = {replicas}");
            let _ = writeln!(text, "subscribes = {:?}\npublishes = {:?}", pick(subscribes), pick(publishes));
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn indices_stay_and_who_is_not_in_the_plan_would_be_told_the_same(files in proptest::collection::vec(any_file(), 2..5)) {
        let mut side = Side::first(&files[0]);
        for text in &files[1..] {
            let Ok(next) = side.next(text) else { continue };
            let (plan, work) = side.to(&next);
            // What was there has its index still.
            for (old, new) in side.topology.agents.iter().zip(&next.topology.agents) {
                prop_assert_eq!((old.config, old.replica), (new.config, new.replica));
            }
            prop_assert!(side.topology.agents.len() <= next.topology.agents.len());
            for (old, new) in side.topology.channels.iter().zip(next.topology.channels.iter()) {
                prop_assert_eq!(&old.name, &new.name);
            }
            // Exactly the file's replicas are to run.
            for agent in parse(text).agents {
                let index = next.file.agents.iter().position(|known| known.name == agent.name).expect("merged");
                prop_assert_eq!(next.topology.active(index).count() as u32, agent.replicas);
            }
            let wanted: u64 = parse(text).agents.iter().map(|agent| u64::from(agent.replicas)).sum();
            let active = next.topology.agents.iter().filter(|agent| agent.active).count() as u64;
            prop_assert_eq!(active, wanted + 1);
            // Inputs and readers are two views of the same links.
            for (agent, instance) in next.topology.agents.iter().enumerate() {
                for (input, spec) in instance.inputs.iter().enumerate() {
                    let lane = &next.topology.agents[spec.producer].lanes[spec.lane];
                    let reader = crate::topology::ReaderRef { agent, input };
                    prop_assert!(lane.readers.contains(&reader) && lane.channel == spec.channel);
                }
                let readers = instance.lanes.iter().map(|lane| lane.readers.len()).sum::<usize>();
                let inputs = next.topology.agents.iter().flat_map(|a| &a.inputs).filter(|i| i.producer == agent).count();
                prop_assert_eq!(readers, inputs);
            }
            // Tables do not overlap, and those that stay keep their place.
            let mut spans: Vec<_> = next.topology.agents.iter().flat_map(|a| &a.lanes).flat_map(|lane| &lane.groups)
                .map(|t| (t.group, t.offset, t.offset + shoal_runtime::claims::table_bytes(t.entries))).collect();
            spans.sort_unstable();
            prop_assert!(spans.windows(2).all(|w| w[0].0 != w[1].0 || w[0].2 <= w[1].1), "{:?}", spans);
            prop_assert!(spans.iter().all(|(group, _, end)| *end <= next.topology.groups[*group].bytes));
            // Who is kept would be told the same, and shares lanes with nobody whose memory changes.
            let (old, new) = (side.manifests(), next.manifests());
            for agent in 0..side.topology.agents.len() {
                let runs = side.topology.agents[agent].active && next.topology.agents[agent].active;
                if runs && !work.relink.contains(&agent) {
                    prop_assert_eq!(essence(&old[agent]), essence(&new[agent]));
                    for neighbour in next.topology.neighbours(agent) {
                        prop_assert!(!work.reshaped.contains(&neighbour));
                    }
                }
            }
            prop_assert_eq!(plan.start.len(), work.start.len());
            // The same file once more changes nothing.
            let again = next.next(text).expect("the same");
            let (nothing, idle) = next.to(&again);
            prop_assert!(nothing.is_empty() && idle == Work::default(), "{:?}", nothing);
            side = next;
        }
    }
}

#[test]
fn plan_says_what_becomes_of_what_the_last_readers_of_a_group_left() {
    for (word, said) in
        [("drop", "dropped"), ("dead-letter", "put with the dead letters"), ("block", "kept for it")]
    {
        let key = format!("on_gone = \"{word}\"\n");
        let side = Side::first(&wordcount(3, &key));
        let fewer = side.follow(scaled(&side.file, "worker", 1).expect("scaled")).expect("room");
        let (plan, _) = side.to(&fewer);
        assert_eq!((plan.stop.len(), plan.left.len()), (2, 0), "worker.1 reads on: {plan:?}");
        let none = fewer.follow(scaled(&fewer.file, "worker", 0).expect("scaled")).expect("room");
        let (plan, _) = fewer.to(&none);
        let [left] = &plan.left[..] else { panic!("{plan:?}") };
        assert!(left.name == "worker.1" && left.why[0].contains(said), "{left:?}");
        assert!(plan.lines()[0].starts_with(&format!("stop worker.1: what it has not read is {said}")));
    }
    let side = Side::first(&wordcount(1, &LISTER.replace("lister", "other")));
    let (plan, _) = side.to(&side.next(&wordcount(1, "")).expect("merged"));
    assert_eq!((plan.stop.as_slice(), plan.left.len()), (&["other".to_owned()][..], 0), "it reads nothing");
}

#[test]
fn reader_that_was_waited_for_comes_back_without_anybody_else() {
    let tap = "[agent.tap]\ncommand = [\"x\"]\nsubscribes = [\"counts\"]\non_gone = \"block\"\n";
    let side = Side::first(&wordcount(2, tap));
    let gone = side.next(&wordcount(2, "")).expect("merged");
    let at = side.topology.find("tap")[0];
    let back = gone.next(&wordcount(2, tap)).expect("merged");
    let (plan, work) = gone.with_kept(&back, &BTreeSet::from([at]));
    assert_eq!((plan.start.as_slice(), plan.restart.len()), (&["tap".to_owned()][..], 0), "{plan:?}");
    assert!(work.relink.is_empty() && work.begun_anew.is_empty(), "{work:?}");
    // Of a group one is enough that is waited for.
    let none = side.follow(scaled(&side.file, "worker", 0).expect("scaled")).expect("room");
    let last = side.topology.find("worker.2")[0];
    let some = none.follow(scaled(&none.file, "worker", 1).expect("scaled")).expect("room");
    let (plan, work) = none.with_kept(&some, &BTreeSet::from([last]));
    assert_eq!(plan.start, ["worker.1"]);
    assert!(work.relink.is_empty() && work.begun_anew.is_empty(), "{work:?}");
}
