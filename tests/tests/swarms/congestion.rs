//! Goal: descriptors that an agent has under way on sockets, as many as the kernel lets its user have, end nobody else: what cannot be handed
//! over meanwhile waits, and an isolated agent never comes that far. Method: a swarm of a user who has no rights of root, as root's are not
//! counted; only root may become one that is nobody else's: elsewhere these tests say that they could not look.

use crate::layers::user;
use shoal::control::{PsAgent, PsReport, PsState};
use shoal_tests::stage::HARDY;
use shoal_tests::{Running, Stage, stage, until};
use std::fs;
use std::path::{Path, PathBuf};

/// What the kernel calls it.
const REFUSED: &str = "Too many references";
/// How the supervisor tells of it.
const TOLD: &str = "descriptors cannot be handed over";

/// Runs a swarm with so few descriptors that they are soon under way.
fn run<'s>(stage: &'s Stage, file: &Path) -> Running<'s> {
    stage.start(stage.shoal_limited("-n 2000", &["run", file.to_str().expect("UTF-8")]))
}

/// An agent's table; its command waits for the file `on`.
fn held(stage: &Stage, name: &str, command: &str, lines: &str) -> String {
    let on = stage.path("on");
    let script = format!("until test -e {}; do sleep 0.01; done; exec BIN/{command}", on.display());
    format!("[agent.{name}]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n{lines}\n{HARDY}\n")
}

fn agent(name: &str, command: &str, lines: &str) -> String {
    format!("[agent.{name}]\ncommand = [\"BIN/{}\"]\n{lines}\n", command.replace(' ', "\", \""))
}

fn write(stage: &Stage, channels: [&str; 2], tables: &[String]) -> PathBuf {
    let channel = |name: &str| format!("[channel.{name}]\nmessage = \"Number\"\ncapacity = \"16 KiB\"\n");
    let channels = channels.map(channel).concat();
    stage.write("swarm.toml", &format!("[swarm]\nname = \"NAME\"\n{channels}{}", tables.concat()))
}

/// From now on as many are under way as may be.
fn hoard(stage: &Stage) {
    stage.write("hoard", "");
    until("descriptors under way", || stage.path("hoarded").exists().then_some(()));
}

/// The processes of these agents.
fn pids(report: &PsReport, names: &[&str]) -> Vec<Option<u32>> {
    let of = |name: &&str| report.agents.iter().find(|agent| agent.name == **name).expect("there").pid;
    names.iter().map(of).collect()
}

#[test]
fn starts_and_links_wait_while_an_agent_has_too_many_descriptors_under_way_and_nobody_dies_of_it() {
    let Some((uid, _)) = user(4) else { return };
    let stage = stage!("congested").given_to(uid);
    let mut tables = vec![
        agent("hoard", "misbehaving hoards", ""),
        agent("source", "numbers source 0", "publishes = [\"numbers\"]"),
        held(&stage, "relay", "numbers relay", "subscribes = [\"numbers\"]\npublishes = [\"relayed\"]"),
        agent("sink", "numbers sink 1", "subscribes = [\"relayed\"]"),
        agent("forked", "misbehaving idle", "prefork = true"),
    ];
    let file = write(&stage, ["numbers", "relayed"], &tables);
    stage.write("on", "");
    let mut shoal = run(&stage, &file);
    let others = pids(&shoal.until_ready(), &["hoard", "source", "sink"]);
    // One was handed its own memory, and has mapped it when nothing can be handed over: its links wait, and those of its neighbours.
    fs::remove_file(stage.path("on")).expect("there");
    let kill = |name: &str| assert_eq!(stage.done(&["kill", name]).status, 0);
    kill("relay");
    shoal.until_agent("relay", "born", |a| (a.generation > 1 && a.pid.is_some()).then_some(()));
    hoard(&stage);
    stage.write("on", "");
    shoal.until_said(TOLD);
    // Who stands by has been handed all before. Of the next fork, and of the relay, the start itself waits.
    let first = shoal.pid_of("forked");
    kill("forked");
    until("who stood by", || (shoal.pid_of("forked") != first).then_some(()));
    for name in ["relay", "forked"] {
        kill(name);
        let waits = |a: &PsAgent| (a.state == PsState::Backoff && a.pid.is_none()).then_some(());
        shoal.until_agent(name, "waiting", waits);
    }
    // For its successor it is the same.
    let told = || shoal.err().matches(TOLD).count();
    let before = told();
    shoal.succeed();
    until("the successor's word", || (told() > before).then_some(()));
    // And for who is new.
    tables.push(agent("late", "misbehaving idle", ""));
    write(&stage, ["numbers", "relayed"], &tables);
    let reload = stage.start(stage.shoal(&["reload"]));
    shoal.until_agent("late", "waiting", |a| (a.state == PsState::Backoff).then_some(()));
    let now = shoal.try_ps().expect("an answer");
    assert_eq!(pids(&now, &["hoard", "source", "sink"]), others, "{}", shoal.err());
    fs::remove_file(stage.path("hoard")).expect("there");
    let whole = shoal.until_ready();
    assert_eq!(pids(&whole, &["hoard", "source", "sink"]), others);
    let reloaded = reload.ended();
    assert_eq!(reloaded.status, 0, "{reloaded:?}");
    let done = shoal.stop();
    assert_eq!((done.status, stage.violations()), (0, String::new()), "{}", done.err);
    assert!(!done.err.contains(REFUSED) && !done.err.contains("given up"), "{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn isolated_agent_with_as_many_descriptors_under_way_as_it_may_have_holds_up_neither_supervisor_nor_letters()
{
    let Some((uid, _)) = user(5) else { return };
    let stage = stage!("congested-isolated").given_to(uid);
    let isolated = "trust = \"isolated\"";
    // Its first death would be its last.
    let sink = format!(
        "subscribes = [\"numbers\"]\npublishes = [\"handled\"]\n{isolated}\n\
         restart = {{ policy = \"transient\", intensity = 0 }}"
    );
    let file = write(
        &stage,
        ["numbers", "handled"],
        &[
            agent("hoard", "misbehaving hoards", isolated),
            held(&stage, "source", "letters source 3", "publishes = [\"numbers\"]\nready_timeout = \"1h\""),
            agent("sink", "letters sink", &sink),
            agent("teller", "letters teller", "subscribes = [\"handled\"]"),
            agent("other", "misbehaving idle", ""),
        ],
    );
    stage.write("poison", "1 rejects\n");
    let mut shoal = run(&stage, &file);
    let [_, _, first] = ["hoard", "sink", "other"].map(|name| shoal.pid_of(name));
    hoard(&stage);
    assert_eq!(stage.done(&["kill", "other"]).status, 0);
    until("the next start", || (shoal.pid_of("other") != first).then_some(()));
    // The source's links are handed over, too. The letter's bytes are a descriptor of an isolated agent's: it waits.
    stage.write("on", "");
    until("the letter's turn", || {
        let tried = fs::read_to_string(stage.path("tried")).unwrap_or_default();
        tried.contains("1 attempt").then_some(())
    });
    fs::remove_file(stage.path("hoard")).expect("there");
    until("the letter", || stage.done(&["dlq", "list"]).out.contains("numbers").then_some(()));
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert!(!done.err.contains(TOLD) && !done.err.contains("given up"), "{}", done.err);
    stage.until_no_process();
}
