//! What an operator does with a running swarm.

use rustix::process::{Pid, Signal, kill_process};
use shoal::control::PsState;
use shoal_tests::tapped::held;
use shoal_tests::{Running, Stage, stage, until};
use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// One plain agent that prints, and three replicas of another.
fn swarm(stage: &Stage) -> std::path::PathBuf {
    stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.tasks]
        message = "Task"
        [agent.talker]
        command = ["BIN/misbehaving", "talks"]
        [agent.lister]
        command = ["BIN/misbehaving", "publishes"]
        publishes = ["tasks"]
        [agent.worker]
        command = ["BIN/misbehaving", "subscribes"]
        replicas = 3
        subscribes = ["tasks"]
        "#,
    )
}

/// Name, generation and state of each agent.
fn lives(shoal: &Running<'_>) -> Vec<(String, u64, PsState)> {
    let report = shoal.try_ps().expect("an answer");
    report.agents.into_iter().map(|a| (a.name, a.generation, a.state)).collect()
}

fn life(shoal: &Running<'_>, name: &str) -> (u64, PsState) {
    let found = lives(shoal).into_iter().find(|life| life.0 == name);
    found.map(|(_, generation, state)| (generation, state)).expect("an agent of this name")
}

#[test]
fn ps_json_has_exactly_the_documented_fields() {
    let stage = stage!("fields");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let done = stage.done(&["ps", "--json"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&done.out).expect("one JSON object");
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(
        keys(&report),
        BTreeSet::from(["agents", "scaled_to_nothing", "sets", "swarm", "under_way"].map(String::from))
    );
    assert_eq!(report["swarm"], stage.name());
    let documented = [
        "name",
        "set",
        "pid",
        "generation",
        "state",
        "restarts",
        "rescues",
        "hangs",
        "standbys",
        "standbys_wanted",
        "zygote",
        "unapplied",
        "uptime_ms",
        "pss_kib",
        "sent",
        "received",
        "p50_ns",
        "p99_ns",
    ];
    let agents = report["agents"].as_array().expect("a list");
    for agent in agents {
        assert_eq!(keys(agent), BTreeSet::from(documented.map(String::from)));
        assert_eq!(agent["state"], "ready");
        assert!(agent["pss_kib"].as_u64() > Some(0), "{agent}");
    }
    let names: Vec<_> = agents.iter().filter_map(|a| a["name"].as_str()).collect();
    assert_eq!(names, ["talker", "lister", "worker.1", "worker.2", "worker.3"]);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn one_replica_or_all_of_them_are_stopped_started_restarted_and_killed() {
    let stage = stage!("orders");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let order = |args: &[&str]| {
        let done = stage.done(args);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}");
    };
    order(&["stop", "worker.2"]);
    let seen = lives(&shoal);
    let states: Vec<_> = seen.iter().map(|life| life.2).collect();
    use PsState::{Ready, Stopped};
    assert_eq!(states, [Ready, Ready, Ready, Stopped, Ready], "the answer comes when it stopped");
    order(&["start", "worker.2"]);
    assert_eq!(life(&shoal, "worker.2"), (2, Ready), "the answer comes when it is ready");
    order(&["restart", "worker"]);
    let generations = |shoal: &Running<'_>| lives(shoal).iter().map(|life| life.1).collect::<Vec<_>>();
    assert_eq!(generations(&shoal), [1, 1, 2, 3, 2]);
    order(&["stop", "worker"]);
    order(&["start", "worker"]);
    assert_eq!(generations(&shoal), [1, 1, 3, 4, 3]);
    order(&["kill", "worker.3"]);
    shoal.until_agent("worker.3", "back", |a| (a.generation == 4 && a.state == Ready).then_some(()));
    order(&["kill", "worker"]);
    shoal.until("all back", |report| {
        let back = report.agents.iter().all(|a| a.state == Ready);
        (back && report.agents[2].generation == 4 && report.agents[4].generation == 5).then_some(())
    });
    assert_eq!(generations(&shoal), [1, 1, 4, 5, 5], "who was not meant goes on");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn orders_that_cannot_be_followed_say_why() {
    let stage = stage!("refusals");
    let nobody = stage.done(&["ps"]);
    assert_eq!(nobody.status, 1);
    assert!(nobody.err.contains("no swarm is running: start one with `shoal run FILE`"), "{}", nobody.err);
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    for verb in ["stop", "start", "restart", "kill", "logs"] {
        let done = stage.done(&[verb, "wroker"]);
        assert_eq!(done.status, 2, "{}", done.err);
        assert!(done.err.contains("did you mean `worker`?"), "{}", done.err);
    }
    assert_eq!(stage.done(&["stop", "worker.1"]).status, 0);
    let done = stage.done(&["kill", "worker.1"]);
    assert_eq!(done.status, 1);
    assert!(done.err.contains("worker.1 does not run"), "{}", done.err);
    let done = stage.done(&["ps", "--swarm", "elsewhere"]);
    assert_eq!(done.status, 2);
    assert!(done.err.contains(stage.name()), "lists what is running: {}", done.err);
    assert_eq!(shoal.stop().status, 0);
}

/// A command cannot know of a swarm whose folder it does not see: in another runtime folder, another `/tmp`, another mount namespace.
#[test]
fn command_that_looks_in_another_folder_says_in_which_and_how_the_swarm_is_asked() {
    let stage = stage!("elsewhere");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let other = stage.path("other");
    std::fs::create_dir(&other).expect("a folder");
    let looked =
        format!("looked in {}/shoal; one that was started with another XDG_RUNTIME_DIR", other.display());
    let commands = [(&["status"][..], 3), (&["down"], 3), (&["ps"], 1), (&["dlq", "list"], 1)];
    for (args, status) in commands.into_iter().chain([(&["ps", "--swarm", stage.name()][..], 2)]) {
        let mut command = stage.shoal(args);
        command.env("XDG_RUNTIME_DIR", &other);
        let done = stage.finish(command);
        assert_eq!(done.status, status, "{args:?}: {}", done.err);
        assert!(
            done.err.contains(&looked) && done.err.contains("from inside, as `nsenter"),
            "{args:?}: {}",
            done.err
        );
    }
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn several_swarms_are_told_apart_by_name() {
    let stage = stage!("several");
    let plain = |file: &str, name: &str| {
        let text =
            format!("[swarm]\nname = \"{name}\"\n[agent.a]\ncommand = [\"BIN/misbehaving\", \"idle\"]\n");
        stage.write(file, &text)
    };
    let mut one = stage.run(&plain("one.toml", "NAME-one"));
    let mut two = stage.run(&plain("two.toml", "NAME-two"));
    for (shoal, which) in [(&mut one, "one"), (&mut two, "two")] {
        let name = format!("{}-{which}", stage.name());
        until("it is ready", || {
            assert_eq!(shoal.poll(), None, "{}", shoal.err());
            let done = stage.done(&["ps", "--json", "--swarm", &name]);
            (done.status == 0 && done.out.contains("\"state\":\"ready\"")).then_some(())
        });
    }
    let done = stage.done(&["ps"]);
    let list = format!("{0}-one, {0}-two", stage.name());
    assert_eq!(done.status, 2);
    assert!(done.err.contains(&list) && done.err.contains("--swarm"), "{}", done.err);
    let done = stage.done(&["stop", "a"]);
    assert_eq!(done.status, 2, "an order is not guessed: {}", done.err);
    let [first, second] = ["one", "two"].map(|which| format!("{}-{which}", stage.name()));
    for given in [&["down", &second][..], &["check", "two.toml"], &["events", "--file", "two.toml"]] {
        let done = stage.done(&[&["--swarm", &first], given].concat());
        assert_eq!(done.status, 2, "{given:?}: {}", done.err);
        assert!(done.err.contains(&format!("`--swarm {first}` is not `{second}`")), "{}", done.err);
    }
    let done = stage.done(&["--swarm", "nosuch", "wait", "--ended"]);
    assert_eq!((done.status, done.out.as_str()), (0, "no swarm `nosuch` is running\n"), "{}", done.err);
    let by_environment = |swarm: &str, args: &[&str]| {
        let mut command = stage.shoal(args);
        command.env("SHOAL_SWARM", swarm);
        stage.finish(command)
    };
    let done = by_environment("", &["ps"]);
    assert!(done.err.contains(&format!("several swarms are running, name one with `--swarm NAME`: {list}")));
    assert_eq!(by_environment(&first, &["ps"]).status, 0);
    assert_eq!(by_environment(&first, &["check", "two.toml"]).status, 0);
    assert_eq!(by_environment(&first, &["down", &second]).status, 0, "what is named goes before");
    assert_eq!(two.ended().status, 0);
    let done = stage.done(&["ps"]);
    assert_eq!(done.status, 0, "one is left: {}", done.err);
    assert_eq!(one.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn logs_show_both_streams_and_follow_until_the_end() {
    let stage = stage!("logs");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let mut follower = stage.start(stage.shoal(&["logs", "-f", "talker"]));
    follower.until_said("talker begins");
    stage.write("say.new", "hello\n");
    std::fs::rename(stage.path("say.new"), stage.path("say")).expect("renamed");
    follower.until_said("talker says hello");
    follower.until_said("talker warns hello");
    let done = stage.done(&["logs", "talker"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines[0].ends_with("out talker begins"), "{}", done.out);
    assert!(lines.iter().any(|line| line.ends_with("out talker says hello")), "{}", done.out);
    assert!(lines.iter().any(|line| line.ends_with("err talker warns hello")), "{}", done.out);
    assert!(follower.poll().is_none(), "it follows on");

    // What a killed one said stays, and its successor's lines follow.
    assert_eq!(stage.done(&["kill", "talker"]).status, 0);
    until("the successor's line", || {
        let done = stage.done(&["logs", "talker"]);
        (done.out.matches("talker begins").count() == 2).then_some(())
    });
    let run = shoal.stop();
    assert_eq!(run.status, 0);
    assert!(
        run.out.contains("talker") && run.out.contains("says hello"),
        "shown by the run too: {}",
        run.out
    );
    let followed = follower.ended();
    assert_eq!((followed.status, followed.err.as_str()), (0, ""));
    assert!(followed.out.lines().any(|line| line.ends_with("out talker ends")), "{}", followed.out);
    stage.assert_nothing_left();
}

#[test]
fn only_the_owner_can_open_the_control_socket() {
    let stage = stage!("private");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let socket = std::fs::symlink_metadata(stage.run_folder().join("control")).expect("the socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o7777, 0o600);
    for folder in [stage.run_folder(), stage.path("run").join("shoal")] {
        let seen = std::fs::symlink_metadata(&folder).expect("the folder");
        assert_eq!(seen.mode() & 0o7777, 0o700, "{}", folder.display());
        assert_eq!(seen.uid(), rustix::process::getuid().as_raw());
    }
    assert_eq!(shoal.stop().status, 0);
}

#[test]
fn logs_of_an_agent_hold_what_it_said_under_another_name_before_it_was_scaled() {
    let stage = stage!("renamed");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    assert_eq!(stage.done(&["scale", "talker", "2"]).status, 0);
    until("all that was said", || {
        let done = stage.done(&["logs", "talker"]);
        let is_said = |said: &&str| done.out.lines().any(|line| line.starts_with(*said));
        ["talker | ", "talker.1 | ", "talker.2 | "].iter().all(is_said).then_some(())
    });
    let done = stage.done(&["logs", "talker.2"]);
    assert!(done.out.contains("talker.2 begins") && !done.out.contains(" | "), "{}", done.out);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: who follows an agent follows its replicas that come later, too, and its end is the swarm's. Method: one replica, then two by scale and
/// three by reload; what each says first, and at the end.
#[test]
fn who_follows_an_agent_follows_replicas_that_come_later() {
    let stage = stage!("newcomers");
    let file = swarm(&stage);
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    let mut follower = stage.start(stage.shoal(&["logs", "-f", "talker"]));
    follower.until_said("out talker begins");
    assert_eq!(stage.done(&["scale", "talker", "2"]).status, 0);
    for name in ["talker.1", "talker.2"] {
        follower.until_said(&format!("out {name} begins"));
    }
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("[agent.talker]", "[agent.talker]\nreplicas = 3")).expect("written");
    assert_eq!(stage.done(&["reload"]).status, 0);
    follower.until_said("out talker.3 begins");
    assert!(follower.poll().is_none(), "it follows on");
    assert_eq!(shoal.stop().status, 0);
    let followed = follower.ended();
    assert_eq!((followed.status, followed.err.as_str()), (0, ""));
    for name in ["talker.1", "talker.2", "talker.3"] {
        let lines = followed.out.lines().filter(|line| line.starts_with(&format!("{name} | ")));
        let said: Vec<_> = lines.filter_map(|line| line.split_once(" out ")).map(|(_, said)| said).collect();
        let [begins, ends] = ["begins", "ends"].map(|what| format!("{name} {what}"));
        assert_eq!((said.first(), said.last()), (Some(&&*begins), Some(&&*ends)), "{said:?}");
    }
    stage.assert_nothing_left();
}

/// Goal: a restart that the end of the swarm overtakes is told as such, and when that begins. Method: a relay that holds a message is to be
/// started again, and the swarm is ended before it lets go.
#[test]
fn restart_that_the_end_of_the_swarm_overtakes_says_so_at_once() {
    let stage = stage!("overtaken");
    let mut shoal = held(&stage);
    let restart = stage.start(stage.shoal(&["restart", "relay"]));
    shoal.until_agent("relay", "asked to stop", |a| (a.state == PsState::Stopping).then_some(()));
    let down = stage.start(stage.shoal(&["down"]));
    let told = restart.ended();
    std::fs::remove_file(stage.path("hold-relay")).expect("let go");
    assert_eq!((told.status, told.out.as_str()), (1, ""), "{}", told.err);
    assert!(told.err.contains("the swarm is stopping"), "{}", told.err);
    assert_eq!(down.ended().status, 0);
    assert_eq!(shoal.ended().status, 0);
    stage.assert_nothing_left();
}

/// Goal: an operator is not left waiting by a supervisor that is stopped. Method: SIGSTOP, then orders, all at once.
#[test]
fn stopped_supervisor_is_told_as_such() {
    let stage = stage!("asleep");
    let mut shoal = stage.run(&swarm(&stage));
    shoal.until_ready();
    let supervisor = Pid::from_raw(shoal.supervisor().expect("a supervisor")).expect("a number");
    kill_process(supervisor, Signal::STOP).expect("stopped");
    let asked = [
        &["ps"][..],
        &["kill", "talker"],
        &["pause", "talker"],
        &["stop", "talker"],
        &["scale", "talker", "2", "--timeout", "2s"],
        &["wait"],
        &["down"],
    ];
    let asked = asked.map(|args| (args, stage.start(stage.shoal(args))));
    for (args, asking) in asked {
        let done = asking.ended();
        assert_eq!(done.status, 1, "{args:?}");
        assert!(done.err.contains("does not answer: is it stopped?"), "{args:?}: {}", done.err);
    }
    kill_process(supervisor, Signal::CONT).expect("continued");
    assert_eq!(shoal.stop().status, 0);
}
