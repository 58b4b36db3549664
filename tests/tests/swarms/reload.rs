//! A swarm is changed while it runs: no number is lost or doubled, and who is not concerned keeps its process.

use rustix::process::Signal;
use serde_json::Value;
use shoal::control::{PsAgent, PsState};
use shoal_tests::tapped::{arguments, change, finish, held, let_go, lives, text, until_met, want, write};
use shoal_tests::{Book, stage, traces, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

/// Goal: replicas come and go while numbers flow, each number once, and the others do not notice. Method: while numbers are under way
/// the swarm is scaled up and down; processes and generations of all others are compared.
#[test]
fn replicas_come_and_go_while_numbers_flow_and_nobody_else_notices() {
    let stage = stage!("scale");
    let mut shoal = stage.run(&write(&stage, &text("64 KiB", "replicas = 2", 0, "")));
    shoal.until_ready();
    let before = lives(&shoal);
    let mut wanted = 0;
    for (replicas, all) in [("6", 6), ("1", 1), ("4", 4), ("2", 2)] {
        wanted += 3000;
        want(&stage, wanted);
        until_met(&stage, &mut shoal, wanted - 2900);
        let report = change(&stage, &["scale", "relay", replicas, "--json"]);
        assert_eq!(report["outcome"], "applied");
        assert_eq!(report["plan"]["restart"].as_array().map(Vec::len), Some(0), "{report}");
        let now = lives(&shoal);
        assert_eq!(now.keys().filter(|name| name.starts_with("relay.")).count(), all, "{now:?}");
        for name in ["source", "sink", "relay.1"] {
            assert_eq!(before[name], now[name], "{name} is not started again");
        }
    }
    let names: Vec<_> = shoal.try_ps().expect("an answer").agents.into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["source", "relay.1", "relay.2", "sink"], "in the order of the file");
    finish(&stage, shoal, wanted + 10);
}

/// Goal: lanes are resized, readers added and removed while numbers flow, none lost, doubled or out of order, and only who is concerned
/// is started again. Method: one relay, so that order is promised; the sink notes each number in order; several reloads, one by SIGHUP.
#[test]
fn lanes_are_resized_and_readers_added_while_numbers_flow_in_order() {
    let stage = stage!("resize");
    let notebook = r#"
        [agent.notebook]
        command = ["BIN/numbers", "sink", "0"]
        env = { CHANNEL = "relayed" }
        subscribes = ["relayed"]
    "#;
    let mut shoal = stage.run(&write(&stage, &text("64 KiB", "", 1, "")));
    shoal.until_ready();
    let (mut wanted, mut before) = (0, lives(&shoal));
    let relayed =
        |text: String| text.replace("[channel.relayed]", "[channel.relayed]\n        capacity = \"8 KiB\"");
    let steps = [
        // The file, who is started again, who is new or gone.
        (text("4 KiB", "", 1, ""), vec!["relay", "source"]),
        (text("256 KiB", "", 1, ""), vec!["relay", "source"]),
        (text("256 KiB", "", 1, notebook), vec!["relay"]),
        (relayed(text("256 KiB", "", 1, notebook)), vec!["notebook", "relay", "sink", "source"]),
        (relayed(text("256 KiB", "", 1, "")), vec![]),
    ];
    for (step, (text, restarted)) in steps.into_iter().enumerate() {
        wanted += 2000;
        want(&stage, wanted);
        until_met(&stage, &mut shoal, wanted - 1900);
        write(&stage, &text);
        let report = change(&stage, &["reload", "--json"]);
        assert_eq!(report["outcome"], "applied", "step {step}: {report}");
        let now = lives(&shoal);
        let again = now.keys().filter(|name| before.get(*name).is_some_and(|life| *life != now[*name]));
        assert_eq!(again.collect::<Vec<_>>(), restarted, "step {step}: {report}");
        before = now;
    }
    assert_eq!(before.keys().collect::<Vec<_>>(), ["relay", "sink", "source"]);
    assert!(Book::count(&stage.path("notebook")) > 0, "the reader that came and went has read");
    write(&stage, &relayed(text_with_stop_timeout()));
    shoal.send(Signal::HUP);
    shoal.until_said("reload: applied");
    assert_eq!(lives(&shoal), before, "a setting of the supervisor starts nobody again");
    finish(&stage, shoal, wanted + 10);
}

fn text_with_stop_timeout() -> String {
    text("256 KiB", "stop_timeout = \"9s\"", 1, "")
}

/// Goal: one process becomes a group and is one again, and each number is met once. Method: what was acknowledged by a cursor goes on as
/// claims in a table, with numbers under way.
#[test]
fn one_reader_becomes_a_group_where_it_stands() {
    let stage = stage!("group");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "", 0, "")));
    shoal.until_ready();
    let mut wanted = 0;
    for (relays, all) in [("replicas = 3", 3), ("replicas = 9", 9), ("replicas = 1", 1)] {
        wanted += 2000;
        want(&stage, wanted);
        until_met(&stage, &mut shoal, wanted - 1900);
        write(&stage, &text("16 KiB", relays, 0, ""));
        let report = change(&stage, &["reload", "--json"]);
        assert_eq!(report["outcome"], "applied", "{report}");
        let now = lives(&shoal);
        assert_eq!(now.keys().filter(|name| name.starts_with("relay")).count(), all, "{now:?}");
    }
    finish(&stage, shoal, wanted + 2000);
}

/// Goal: what is wrong, or only asked for, changes nothing. Method: bad files, a plan only, the same file again; lives are compared.
#[test]
fn bad_files_and_dry_runs_change_nothing() {
    let stage = stage!("nothing");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    let before = lives(&shoal);
    write(&stage, &text("16 KiB", "replicas = 3", 0, ""));
    let report = change(&stage, &["reload", "--dry-run", "--json"]);
    assert_eq!((&report["outcome"], &report["plan"]["start"][0]), (&"planned".into(), &"relay.3".into()));
    let done = stage.done(&["reload", "--dry-run"]);
    assert!(
        done.out.contains("start relay.3\n4 agents keep their processes\nplanned, not applied\n"),
        "{}",
        done.out
    );
    write(&stage, &text("16 KiB", "replicas = \"three\"", 0, ""));
    let done = stage.done(&["reload"]);
    assert_eq!(done.status, 2, "{}{}", done.out, done.err);
    assert!(done.err.contains("swarm.toml:16") && done.err.contains("replicas"), "{}", done.err);
    write(&stage, &text("16 KiB", "replicas = 2", 0, "").replace("\"Number\"", "\"Other\""));
    let done = stage.done(&["reload"]);
    assert_eq!(done.status, 1, "{}{}", done.out, done.err);
    assert!(done.err.contains("give the new one another name"), "{}", done.err);
    for (args, says) in [
        (["scale", "rely", "2"], "did you mean `relay`"),
        (["scale", "dead-letter", "2"], "no agent \"dead-letter\" to scale\n"),
        (["scale", "relay", "1001"], "is not in 0..=1000"),
    ] {
        let done = stage.done(&args);
        assert_eq!(done.status, 2, "{}{}", done.out, done.err);
        assert!(done.err.contains(says), "{}", done.err);
    }
    write(&stage, &text("16 KiB", "replicas = 2", 0, "# only a remark"));
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "unchanged");
    assert_eq!(lives(&shoal), before);
    finish(&stage, shoal, 100);
}

/// Goal: who ordered a change, and which, is among the events; who only asks leaves none. Method: each way to order one, and plans.
#[test]
fn orders_to_change_the_swarm_are_events() {
    let stage = stage!("ordered");
    let file = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    let (file, user) = (file.display().to_string(), rustix::process::getuid().as_raw());
    let bin = arguments(&mut shoal, "relay.1").split(' ').next().expect("a program").to_owned();
    let orders = [
        vec!["reload"],
        vec!["reload", &file],
        vec!["scale", "relay", "3"],
        vec!["upgrade", "relay", "--prove=1ms", "--command", &bin, "relay", "second"],
    ];
    for plan in [vec!["reload", "--dry-run"], vec!["scale", "relay", "4", "--dry-run"]] {
        assert_eq!(stage.done(&plan).status, 0, "{plan:?}");
    }
    for order in &orders {
        assert_eq!(stage.done(order).status, 0, "{order:?}");
    }
    shoal.send(Signal::HUP);
    let said = until("the orders", || {
        let events = stage.done(&["events", "--json"]).out;
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
        let orders = events.filter(|event| event["kind"] == "order");
        let orders: Vec<String> =
            orders.map(|event| event["text"].as_str().expect("a text").into()).collect();
        (orders.len() == 5).then_some(orders)
    });
    for (order, said) in orders.iter().zip(&said) {
        let words: Vec<&str> = order.iter().copied().filter(|word| *word != "--prove=1ms").collect();
        assert!(said.starts_with(&format!("an operator (user {user}, process ")), "{said}");
        assert!(said.ends_with(&format!("): shoal {}", words.join(" "))), "{said} {order:?}");
    }
    assert_eq!(said[4], "somebody (SIGHUP): shoal reload");
    finish(&stage, shoal, 100);
}

/// Goal: a reload that agents do not make way for is undone, another meanwhile is refused, and nothing is lost. Method: the relay
/// holds a message and does not stop; it is let go later.
#[test]
fn reload_that_nobody_makes_way_for_is_undone_and_another_meanwhile_refused() {
    let stage = stage!("undone");
    let mut shoal = held(&stage);
    let first = stage.start(stage.shoal(&["reload", "--timeout", "1500ms"]));
    shoal.until_said("reload: restart relay");
    let second = stage.done(&["scale", "relay", "2"]);
    assert_eq!(second.status, 1, "{}{}", second.out, second.err);
    assert!(second.err.contains("another reload is under way"), "{}", second.err);
    let first = first.ended();
    assert_eq!(first.status, 1, "{}{}", first.out, first.err);
    assert!(first.err.contains("nothing is changed"), "{}", first.err);
    let_go(&stage, &mut shoal);
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied", "and now it is made way for");
    finish(&stage, shoal, 1000);
}

/// Goal: replicas are replaced one by one while numbers flow; a command that does not hold is taken back everywhere. Method: another
/// argument, seen on the processes; then a command that ends with an error, and one that never gets ready.
#[test]
fn replicas_are_replaced_one_by_one_and_go_back_from_a_command_that_fails() {
    let stage = stage!("upgrade");
    let relays = "replicas = 3\n        ready_timeout = \"2s\"";
    let mut shoal = stage.run(&write(&stage, &text("64 KiB", relays, 0, "")));
    shoal.until_ready();
    let before = lives(&shoal);
    want(&stage, 5000);
    until_met(&stage, &mut shoal, 100);
    let bin = arguments(&mut shoal, "relay.1").split(' ').next().expect("a program").to_owned();
    let upgrade = |more: &[&str]| {
        stage.done(&[&["upgrade", "relay", "--prove", "50ms", "--json", "--command"], more].concat())
    };
    let done = upgrade(&[&bin, "relay", "second"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    for replica in 1..=3 {
        assert!(arguments(&mut shoal, &format!("relay.{replica}")).ends_with("relay second "));
    }
    want(&stage, 10_000);
    until_met(&stage, &mut shoal, 5100);
    for command in [&["/bin/false"][..], &["/bin/sleep", "1000"], &["/no/such/program"]] {
        let done = upgrade(command);
        let (status, said) =
            if command[0].starts_with("/no") { (2, "command not found") } else { (1, "former command") };
        assert_eq!(done.status, status, "{command:?}: {}{}", done.out, done.err);
        assert!(done.err.contains(said), "{command:?}: {}", done.err);
        for replica in 1..=3 {
            let is = arguments(&mut shoal, &format!("relay.{replica}"));
            assert!(is.ends_with("relay second "), "{command:?}: {is}");
        }
    }
    let now = lives(&shoal);
    assert!(["source", "sink"].iter().all(|name| before[*name] == now[*name]), "{now:?}");
    finish(&stage, shoal, 10_500);
}

/// Agents that are idle, one of each policy, of which a single death is too many; they may take long to get ready.
fn idlers() -> String {
    let idler = |policy: &str| {
        format!(
            "[agent.{policy}]\ncommand = [\"BIN/misbehaving\", \"idle\"]\nready_timeout = \"600s\"\n\
             restart = {{ policy = \"{policy}\", intensity = 0 }}\n"
        )
    };
    ["permanent", "transient", "temporary"].map(idler).concat()
}

/// Goal: the first end before a replica has proved itself takes an upgrade back, whatever its status, the policy and the intensity; only who
/// was ready and is done by its policy has nothing to prove. Method: commands that end before they are ready, at once and later, and
/// one that ends well after; lives are counted: one of the new command, one of the former.
#[test]
fn first_end_before_the_proof_takes_an_upgrade_back_whatever_its_status() {
    let stage = stage!("ends");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "", 0, &idlers())));
    shoal.until_ready();
    let bin = stage.program().with_file_name("misbehaving").display().to_string();
    let commands: [&[&str]; 4] =
        [&["/bin/true"], &["/bin/false"], &["/bin/sh", "-c", "sleep 0.2"], &[&bin, "subscribes-nothing"]];
    for policy in ["permanent", "transient", "temporary"] {
        for command in commands {
            let (_, before) = lives(&shoal)[policy];
            let done = stage.done(&[&["upgrade", policy, "--prove", "60s", "--command"], command].concat());
            let (is_done, said) =
                (command[0] == bin && policy != "permanent", format!("{}{}", done.out, done.err));
            assert_eq!(done.status, i32::from(!is_done), "{policy} {command:?}: {said}");
            let (_, now) = lives(&shoal)[policy];
            if is_done {
                assert_eq!(now, before + 1, "{policy} {command:?}: {said}");
                continue;
            }
            assert!(done.err.contains("all replicas run the former command: agent"), "{said}");
            let early = done.err.contains("before it was ready with the new command");
            assert_eq!(early, command[0] != bin, "{said}");
            assert_eq!(now, before + 2, "{policy} {command:?}: {said}");
            assert!(arguments(&mut shoal, policy).ends_with("misbehaving idle "), "{policy} {command:?}");
        }
    }
    finish(&stage, shoal, 100);
}

/// Goal: `ps` and `status` say that an upgrade is under way, which an order to kill does not end, and a kill by somebody else does. Method:
/// a command that never gets ready; both kills.
#[test]
fn upgrade_that_is_under_way_is_shown_and_goes_on_after_an_order_to_kill() {
    let stage = stage!("shown");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "", 0, &idlers())));
    shoal.until_ready();
    let shown = || change(&stage, &["ps", "--json"])["under_way"].clone();
    assert_eq!(shown(), Value::Null);
    let told = stage.start(stage.shoal(&["upgrade", "permanent", "--command", "/bin/sleep", "1000"]));
    let until_new = |after: u64| {
        until("a process of the new command", || {
            let (pid, generation) = lives(&shoal)["permanent"];
            let words = fs::read(format!("/proc/{}/cmdline", pid?)).ok()?;
            (words.ends_with(b"sleep\x001000\0") && generation > after).then_some((pid?, generation))
        })
    };
    let (_, first) = until_new(0);
    let words = "an upgrade of permanent: permanent is to prove itself with the new command";
    assert_eq!(shown(), words);
    assert!(stage.done(&["ps"]).out.ends_with(&format!("\nunder way: {words}\n")));
    let status = stage.done(&["status", "--over", "0"]);
    assert_eq!(status.status, 1, "{}", status.out);
    assert!(status.out.contains(&format!("\n  under way    {words}\n")), "{}", status.out);
    let refused = stage.done(&["scale", "relay", "2"]);
    assert!(refused.status == 1 && refused.err.contains("an upgrade is under way"), "{}", refused.err);
    assert_eq!(stage.done(&["kill", "permanent"]).status, 0);
    let (second, _) = until_new(first);
    assert_eq!(shown(), words);
    assert!(traces::kill(second as i32, stage.mark()), "somebody else kills it");
    let told = told.ended();
    assert_eq!(told.status, 1, "{}{}", told.out, told.err);
    assert!(told.err.contains("was killed by SIGKILL before it was ready"), "{}", told.err);
    assert!(arguments(&mut shoal, "permanent").ends_with("misbehaving idle "));
    assert_eq!(shown(), Value::Null);
    finish(&stage, shoal, 100);
}

/// Goal: who waits for an upgrade waits no longer than `--timeout` says, is told who is not done, and it goes on. Method: a command that gets
/// ready when it may, for two replicas; then one that is done in time.
#[test]
fn upgrade_that_is_not_done_in_time_names_who_is_not_and_goes_on() {
    let stage = stage!("late-upgrade");
    let idlers =
        "[agent.a]\ncommand = [\"BIN/misbehaving\", \"idle\"]\nready_timeout = \"600s\"\nreplicas = 2\n";
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "", 0, idlers)));
    shoal.until_ready();
    let [idle, slow] =
        ["misbehaving", "stages"].map(|name| stage.program().with_file_name(name).display().to_string());
    let upgrade = |more: &[&str]| stage.done(&[&["upgrade", "a", "--prove", "1ms"], more].concat());

    let done = upgrade(&["--timeout", "50ms", "--json", "--command", &slow, "slow"]);
    assert_eq!(done.status, 1, "{}{}", done.out, done.err);
    let report: Value = serde_json::from_str(&done.out).expect("an object");
    assert_eq!(
        (&report["outcome"], &report["late"]),
        (&"under-way".into(), &serde_json::json!(["a.1", "a.2"]))
    );
    assert!(
        done.err.contains("a.1, a.2 not done in time; that goes on: an upgrade of a: a.1"),
        "{}",
        done.err
    );
    let refused = upgrade(&["--timeout", "50ms"]);
    assert!(refused.status == 1 && refused.err.contains("an upgrade is under way"), "{}", refused.err);
    for name in ["a.1", "a.2"] {
        fs::write(stage.path(&format!("let-{name}")), "").expect("a file of the stage");
    }
    shoal.until("the end of the upgrade", |report| report.under_way.is_none().then_some(()));
    for name in ["a.1", "a.2"] {
        assert!(arguments(&mut shoal, name).ends_with("stages slow "), "{name}");
    }

    let done = upgrade(&["--timeout", "10m", "--command", &idle, "idle"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    finish(&stage, shoal, 100);
}

/// Goal: a reload that changes an agent that was given up starts it, whether its command changes or its lanes, and who was stopped by an
/// operator rests on. Method: a command that is no good, corrected, alone and with another size of a lane.
#[test]
fn reload_starts_whom_it_changes_also_who_had_been_given_up() {
    let stage = stage!("again");
    let file = |kind: &str, capacity: &str| {
        let command =
            if kind == "false" { "/bin/false".to_owned() } else { format!("BIN/misbehaving\", \"{kind}") };
        let more = format!(
            "[agent.reader]\ncommand = [\"{command}\"]\nsubscribes = [\"relayed\"]\non_gone = \"drop\"\n\
             restart = {{ policy = \"transient\", intensity = 0 }}\n\
             [agent.resting]\ncommand = [\"BIN/misbehaving\", \"idle\"]\nenv = {{ KIND = \"{kind}\" }}\n"
        );
        let text = text("16 KiB", "", 0, &more);
        write(&stage, &text.replace("[channel.relayed]", &format!("[channel.relayed]\n{capacity}")))
    };
    let mut shoal = stage.run(&file("reads-relayed", ""));
    shoal.until_ready();
    assert_eq!(stage.done(&["stop", "resting"]).status, 0);
    let (_, at_rest) = lives(&shoal)["resting"];
    for capacity in ["", "capacity = \"8 KiB\""] {
        file("false", "");
        let bad = stage.done(&["reload"]);
        assert_eq!(bad.status, 1, "{}{}", bad.out, bad.err);
        assert!(bad.err.contains("reader could not be started: see `shoal logs reader`"), "{}", bad.err);
        let (_, before) = lives(&shoal)["reader"];
        file("reads-relayed", capacity);
        let report = change(&stage, &["reload", "--json"]);
        assert_eq!((&report["outcome"], &report["failed"]), (&"applied".into(), &Value::Array(vec![])));
        shoal.until_agent("reader", "started again", |agent| {
            (agent.state == PsState::Ready && agent.generation == before + 1).then_some(())
        });
        assert_eq!(lives(&shoal)["resting"], (None, at_rest));
    }
    finish(&stage, shoal, 500);
}

/// Goal: the plan says what happens: who was stopped by an operator, or has done its work, is not started, but told with its next start. Method:
/// one of whom a lane changes, two of whom the environment does, and one that nothing concerns; a plan, then the same done, then a start.
#[test]
fn plan_names_who_rests_and_is_told_with_its_next_start() {
    let stage = stage!("at-rest");
    let file = |capacity: &str, kind: &str| {
        let agent = |name: &str, how: &str, more: &str| {
            format!("[agent.{name}]\ncommand = [\"BIN/misbehaving\", \"{how}\"]\n{more}\n")
        };
        let env = format!("env = {{ KIND = \"{kind}\" }}");
        let agents = [
            agent("talks", "publishes", "publishes = [\"tasks\"]"),
            agent("hears", "subscribes", "subscribes = [\"tasks\"]"),
            agent("idle", "idle", &env),
            agent("done", "subscribes-nothing", &format!("restart = \"transient\"\n{env}")),
            agent("other", "idle", ""),
        ];
        let head = format!(
            "[swarm]\nname = \"NAME\"\n[channel.tasks]\nmessage = \"Task\"\ncapacity = \"{capacity}\"\n"
        );
        write(&stage, &(head + &agents.concat()))
    };
    let mut shoal = stage.run(&file("8 KiB", "first"));
    shoal.until("all ready, or done", |report| {
        let is_there = |a: &PsAgent| {
            a.generation > 0 && a.state == if a.name == "done" { PsState::Stopped } else { PsState::Ready }
        };
        report.agents.iter().all(is_there).then_some(())
    });
    for name in ["talks", "idle"] {
        assert_eq!(stage.done(&["stop", name]).status, 0);
    }
    let before = lives(&shoal);

    file("16 KiB", "second");
    let names = |report: &Value, of: &str| -> Vec<String> {
        let changes = report["plan"][of].as_array().expect("a list").iter();
        changes.map(|change| change["name"].as_str().expect("a name").to_owned()).collect()
    };
    for args in [&["reload", "--dry-run", "--json"][..], &["reload", "--json"]] {
        let report = change(&stage, args);
        assert_eq!(names(&report, "restart"), ["hears"], "{report}");
        assert_eq!(names(&report, "next_start"), ["talks", "idle", "done"], "{report}");
        assert_eq!(report["plan"]["kept"], 1, "{report}");
    }
    shoal.until_said("reload: next start of idle: its env changes");
    let now = lives(&shoal);
    assert_eq!(now["hears"].1, before["hears"].1 + 1);
    for name in ["talks", "idle", "done", "other"] {
        assert_eq!(before[name], now[name], "{name} is not started");
    }
    file("16 KiB", "third");
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied", "there is something to do");
    assert_eq!(stage.done(&["start", "idle"]).status, 0);
    let environment = fs::read(format!("/proc/{}/environ", shoal.pid_of("idle"))).expect("its environment");
    assert!(environment.split(|byte| *byte == 0).any(|entry| entry == b"KIND=third"));
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: who does not get ready is not waited for beyond `--timeout`: a reload, a scale, a start and a restart say who is not, and what was ordered
/// goes on. Method: a command that never gets ready and has long to, and a short time-out.
#[test]
fn timeout_bounds_the_wait_for_who_does_not_get_ready() {
    let stage = stage!("late");
    let mut shoal = stage.run(&write(&stage, &text("16 KiB", "", 0, &idlers())));
    shoal.until_ready();
    let idler = "[\"BIN/misbehaving\", \"idle\"]";
    write(&stage, &text("16 KiB", "", 0, &idlers().replacen(idler, "[\"/bin/sleep\", \"1000\"]", 1)));
    // Where the stops take longer it is undone, and may be asked again.
    let applied = |args: &[&str]| {
        let args = [args, &["--timeout", "500ms", "--json"]].concat();
        until("a change that is not undone", || {
            let done = stage.done(&args);
            (!done.out.contains("\"undone\"")).then_some(done)
        })
    };
    let late = applied(&["reload"]);
    let report: Value = serde_json::from_str(&late.out).expect("a report");
    assert_eq!((late.status, &report["outcome"]), (1, &"applied".into()), "{}{}", late.out, late.err);
    assert_eq!(report["late"], serde_json::json!(["permanent"]));
    assert!(
        late.err.contains("permanent not ready in time") && late.err.contains("stays applied"),
        "{}",
        late.err
    );
    for order in ["start", "restart"] {
        let late = stage.done(&[order, "permanent", "--timeout", "100ms"]);
        let said = format!(") not {order}ed in time; that goes on: `shoal wait permanent` waits for it");
        assert!(late.status == 1 && late.err.contains(&said), "{order}: {}{}", late.out, late.err);
        assert!(late.err.contains("permanent ("), "whom, and what it does: {}", late.err);
    }
    let late = applied(&["scale", "permanent", "2"]);
    assert!(
        late.status == 1 && late.err.contains("permanent.2 not ready in time"),
        "{}{}",
        late.out,
        late.err
    );
    let names: Vec<String> = lives(&shoal).into_keys().filter(|name| name.starts_with("permanent")).collect();
    assert_eq!(names, ["permanent.1", "permanent.2"], "and it is applied");
    write(&stage, &text("16 KiB", "", 0, &idlers()));
    assert_eq!(change(&stage, &["reload", "--json"])["late"], serde_json::json!([]));
    finish(&stage, shoal, 100);
}

/// Goal: a change after which nobody would run is refused, also as a plan, and the swarm goes on; who is scaled to nothing is shown, and whoever
/// asks for it is told what to do. Method: three agents, of which one has done its work; scales, and a file that names that one alone.
#[test]
fn change_after_which_nobody_would_run_is_refused_and_who_is_scaled_to_nothing_is_shown() {
    let stage = stage!("nobody");
    let agent = |name: &str, kind: &str| {
        format!("[agent.{name}]\ncommand = [\"BIN/misbehaving\", \"{kind}\"]\nrestart = \"transient\"\n")
    };
    let head = "[swarm]\nname = \"NAME\"\n";
    let all =
        [head, &agent("ticker", "idle"), &agent("teller", "idle"), &agent("done", "subscribes-nothing")];
    let mut shoal = stage.run(&write(&stage, &all.concat()));
    shoal.until_agent("done", "done", |agent| {
        (agent.generation > 0 && agent.state == PsState::Stopped).then_some(())
    });
    for name in ["ticker", "teller"] {
        shoal.until_agent(name, "ready", |agent| (agent.state == PsState::Ready).then_some(()));
    }
    assert_eq!(change(&stage, &["scale", "teller", "0", "--json"])["outcome"], "applied");
    let shown = "scaled to 0: teller (`shoal scale teller 1` starts it)";
    assert!(
        stage.done(&["ps"]).out.contains(shown)
            && stage.done(&["status"]).out.contains("  scaled to 0  teller (")
    );
    for order in [["start", "teller"], ["logs", "teller"], ["status", "teller.1"], ["wait", "teller"]] {
        let refused = stage.done(&order);
        let said = "is scaled to 0: `shoal scale teller 1` starts it";
        assert!(
            refused.status == 2 && refused.err.contains(said),
            "{order:?}: {}{}",
            refused.out,
            refused.err
        );
    }
    let before = lives(&shoal);
    write(&stage, &[head, &agent("done", "subscribes-nothing")].concat());
    for refused in [&["scale", "ticker", "0"][..], &["scale", "ticker", "0", "--dry-run"], &["reload"]] {
        let done = stage.done(refused);
        assert_eq!(done.status, 1, "{refused:?}: {}{}", done.out, done.err);
        assert!(done.err.contains("nobody would run") && done.err.contains("`shoal down`"), "{}", done.err);
    }
    assert_eq!(lives(&shoal), before);
    assert_eq!(change(&stage, &["scale", "teller", "1", "--json"])["outcome"], "applied");
    assert_eq!(change(&stage, &["ps", "--json"])["scaled_to_nothing"], serde_json::json!([]));
    // Who is named no more is not said to be scaled.
    write(&stage, &[head, &agent("ticker", "idle")].concat());
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    assert_eq!(change(&stage, &["ps", "--json"])["scaled_to_nothing"], serde_json::json!([]));
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: a reload that was applied, and whose agents the end of the swarm keeps from starting, is not told as done. Method: the environment of
/// a relay that holds a message changes, and the swarm is ended before it lets go.
#[test]
fn reload_that_the_end_of_the_swarm_overtakes_names_who_was_not_started() {
    let stage = stage!("overtaken");
    let mut shoal = held(&stage);
    write(&stage, &text("16 KiB", "stop_timeout = \"60s\"\nenv = { MORE = \"1\" }", 1, ""));
    let reload = stage.start(stage.shoal(&["reload", "--json"]));
    shoal.until_agent("relay", "asked to stop", |a| (a.state == PsState::Stopping).then_some(()));
    let down = stage.start(stage.shoal(&["down"]));
    let told = reload.ended();
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    let report: Value = serde_json::from_str(&told.out).expect("a report");
    assert_eq!((told.status, &report["outcome"]), (1, &"applied".into()), "{}{}", told.out, told.err);
    assert_eq!((&report["late"], &report["why"]), (&["relay"].into(), &"the swarm is stopping".into()));
    assert!(told.err.contains("relay was not started again: the swarm is stopping"), "{}", told.err);
    assert_eq!(down.ended().status, 0);
    assert_eq!(shoal.ended().status, 0);
    stage.assert_nothing_left();
}

/// Goal: what a removed group had not read is told once, and at the end nobody is told that it has not read what was sent since. Method: a group
/// that never reads is removed, and numbers go on to another reader.
#[test]
fn what_a_removed_group_has_not_read_is_told_once_and_nothing_that_is_sent_since() {
    let stage = stage!("since");
    let head = r#"
        [swarm]
        name = "NAME"
        [channel.flood]
        message = "Number"
        [agent.tap]
        command = ["BIN/numbers", "tap"]
        env = { ON = "flood" }
        publishes = ["flood"]
        [agent.sink]
        command = ["BIN/numbers", "sink", "1"]
        env = { CHANNEL = "flood" }
        subscribes = ["flood"]
    "#;
    let idlers = r#"
        [agent.idler]
        command = ["BIN/slow", "naps", "100"]
        replicas = 2
        subscribes = ["flood"]
    "#;
    let mut shoal = stage.run(&write(&stage, &[head, idlers].concat()));
    shoal.until_ready();
    want(&stage, 10);
    until_met(&stage, &mut shoal, 10);
    write(&stage, head);
    let told = change(&stage, &["reload", "--json"]);
    let unread = "10 messages of channel flood were not read by idler, which is removed, and are dropped";
    assert_eq!(told["unread"], serde_json::json!([unread]), "{told}");
    want(&stage, 20);
    until_met(&stage, &mut shoal, 20);
    assert_eq!(change(&stage, &["down", "--json"])["unread"], serde_json::json!([]));
    let done = shoal.ended();
    assert_eq!(
        (done.status, done.err.matches("not read by").count()),
        (0, 1),
        "with the reload: {}",
        done.err
    );
    stage.assert_nothing_left();
}

/// Goal: a swarm file behind a link is the one that the link names now, and its paths begin at the link, at the start and later. Method: a
/// link to one of two versions in a folder of their own, its agents beside the link; the link is made to name the other.
#[test]
fn swarm_file_behind_a_link_is_found_behind_it_again_and_its_paths_begin_at_the_link() {
    let stage = stage!("link");
    let at = |name: &str| stage.path(name);
    let agent = |name: &str| format!("[agent.{name}]\ncommand = [\"./program\", \"idle\"]\n");
    let head = "[swarm]\nname = \"NAME\"\n";
    fs::create_dir(at("versions")).expect("a folder");
    stage.write("versions/1.toml", &[head, &agent("one")].concat());
    stage.write("versions/2.toml", &[head, &agent("one"), &agent("two")].concat());
    symlink(env!("CARGO_BIN_EXE_misbehaving"), at("program")).expect("a program");
    symlink("versions/1.toml", at("current.toml")).expect("a link");
    let mut shoal = stage.start(stage.shoal(&["run", "current.toml"]));
    shoal.until_ready();
    let before = lives(&shoal);
    for again in [&["reload", "--json"][..], &["reload", "current.toml", "--json"]] {
        assert_eq!(change(&stage, again)["outcome"], "unchanged", "{again:?}");
    }
    symlink("versions/2.toml", at("next")).expect("a link");
    fs::rename(at("next"), at("current.toml")).expect("another link");
    let report = change(&stage, &["reload", "--json"]);
    assert_eq!(
        (&report["outcome"], &report["plan"]["start"]),
        (&"applied".into(), &["two"].into()),
        "{report}"
    );
    assert_eq!(lives(&shoal)["one"], before["one"]);
    let unit = stage.done(&["unit", "current.toml"]).out;
    for line in
        [format!("up {}", at("current.toml").display()), format!("WorkingDirectory={}\n", at("").display())]
    {
        assert!(unit.contains(line.trim_end_matches("/\n")), "{line} is not in:\n{unit}");
    }
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: whoever dies in the middle of a reload, each number is met once and the reload is applied. Method: SIGKILL of all agents in
/// turn, from outside, while reloads resize lanes to and fro.
#[test]
fn agents_killed_in_the_middle_of_reloads_lose_nothing() {
    let stage = stage!("killed");
    let file = |numbers: &str| text(numbers, "replicas = 2", 0, "");
    let mut shoal = stage.run(&write(&stage, &file("16 KiB")));
    shoal.until_ready();
    let mut wanted = 0;
    for (round, size) in ["64 KiB", "8 KiB", "32 KiB", "16 KiB"].into_iter().cycle().take(8).enumerate() {
        wanted += 1000;
        want(&stage, wanted);
        write(&stage, &file(size));
        let reload = stage.start(stage.shoal(&["reload"]));
        for name in ["source", "relay.1", "sink", "relay.2"] {
            let pid = shoal.try_ps().and_then(|r| r.agents.into_iter().find(|a| a.name == name)?.pid);
            pid.into_iter().for_each(|pid| _ = traces::kill(pid as i32, stage.mark()));
        }
        let done = reload.ended();
        assert_eq!(done.status, 0, "round {round}: {}{}", done.out, done.err);
    }
    shoal.until_ready();
    finish(&stage, shoal, wanted + 100);
}

/// Goal: a path that no successor of the supervisor could be told of is refused, whichever way it comes, and the swarm goes on. Method: a
/// swarm whose file lies in a folder with a name in Latin-1; it is reloaded by name and without, scaled, and has each number once.
#[test]
fn file_whose_path_is_not_utf_8_is_refused_by_reload_and_scale_and_nothing_changes() {
    let stage = stage!("latin");
    let folder = stage.path("run").parent().expect("a folder").join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).expect("a folder");
    let told = write(&stage, &text("16 KiB", "replicas = 2", 0, ""));
    let file = folder.join("swarm.toml");
    fs::copy(told, &file).expect("a swarm file");
    let mut run = stage.shoal(&["run"]);
    run.arg(&file);
    let mut shoal = stage.start(run);
    shoal.until_ready();
    let before = lives(&shoal);
    let changed = text("16 KiB", "replicas = 3\n        stop_timeout = \"9s\"", 0, "");
    fs::copy(write(&stage, &changed), &file).expect("a swarm file");
    let mut by_name = stage.shoal(&["reload"]);
    by_name.arg(&file);
    let orders = [
        // What cannot be asked at all is bad input; what cannot be answered, or done, is a failure.
        (by_name, 2, "this cannot be asked of swarm"),
        (stage.shoal(&["reload"]), 1, "the answer cannot be told"),
        (stage.shoal(&["scale", "relay", "3"]), 1, "a successor of the supervisor could not be told"),
    ];
    for (order, status, said) in orders {
        let done = stage.finish(order);
        assert_eq!(done.status, status, "{said}: {}{}", done.out, done.err);
        assert!(done.err.contains(said) && done.err.contains("invalid UTF-8"), "{said}: {}", done.err);
    }
    shoal.until_ready();
    assert_eq!(lives(&shoal).keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    finish(&stage, shoal, 1000);
}
