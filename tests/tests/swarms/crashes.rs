//! Crash reports, events and the supervisor's log on real swarms: every kind of death, orders, hangs, storms, full disks.
//!
//! Method: as in `dead_letters.rs` a source sends numbers to a sink, which does with them what the file `poison` says.

use rustix::process::Signal;
use serde_json::Value;
use shoal::control::PsState;
use shoal_tests::{Running, Stage, stage, traces, until};
use std::fs;
use std::path::PathBuf;

const COUNT: u64 = 60;

/// The swarm file: a source of numbers and a sink that takes them as `poison` says.
fn swarm_file(stage: &Stage, poison: &str, swarm: &str, sink: &str) -> PathBuf {
    fs::write(stage.path("poison"), poison).expect("written");
    stage.write(
        "swarm.toml",
        &format!(
            r#"
            [swarm]
            name = "NAME"
            {swarm}
            [channel.numbers]
            message = "Number"
            capacity = "4 KiB"
            [channel.handled]
            message = "Number"
            capacity = "4 KiB"
            [agent.source]
            command = ["BIN/letters", "source", "{COUNT}"]
            publishes = ["numbers"]
            [agent.sink]
            command = ["BIN/letters", "sink"]
            subscribes = ["numbers"]
            publishes = ["handled"]
            {sink}
            [agent.teller]
            command = ["BIN/letters", "teller"]
            subscribes = ["handled"]
            "#
        ),
    )
}

fn until_handled(stage: &Stage, shoal: &mut Running<'_>, last: u64) {
    until("the last number", || {
        assert_eq!(shoal.poll(), None, "{}", shoal.err());
        let text = fs::read_to_string(stage.path("handled")).unwrap_or_default();
        text.lines().any(|line| line == last.to_string()).then_some(())
    });
}

fn crashes(stage: &Stage, args: &[&str]) -> Vec<Value> {
    let done = stage.done(&[&["crashes"], args, &["--json"]].concat());
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}");
    let listed: Value = serde_json::from_str(&done.out).expect("one JSON object");
    assert_eq!(listed["swarm"], stage.name());
    listed["crashes"].as_array().expect("a list").clone()
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn messages(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|seen| text(&seen["message"]).to_owned()).collect()
}

/// Goal: a report of each death says how, with which message in hand, after what, and what follows. Method: four numbers kill the
/// sink in four ways, three times each.
#[test]
fn each_kind_of_death_is_reported_with_its_message_the_last_messages_its_output_and_what_follows() {
    let kinds = [
        (3, "aborts", None, Some(6), "was killed by SIGABRT", None),
        (4, "crashes", None, Some(11), "was killed by SIGSEGV", None),
        (9, "exits", Some(7), None, "exited with status 7", Some("number 9 makes me exit")),
        (50, "panics", Some(1), None, "exited with status 1", Some("number 50 makes me panic")),
    ];
    let poison: String = kinds.iter().map(|(value, how, ..)| format!("{value} {how}\n")).collect();
    let stage = stage!("crashes");
    let bounds = r#"restart = { intensity = 100, period = "1h", backoff = "1ms..4ms" }"#;
    let mut shoal = stage.run(&swarm_file(&stage, &poison, "logs = \"kept\"", bounds));
    until_handled(&stage, &mut shoal, COUNT - 1);
    let reports = crashes(&stage, &["sink"]);
    assert_eq!(reports.len(), 12);
    for (index, report) in reports.iter().enumerate() {
        let (value, _, status, signal, how, said) = kinds[index / 3];
        let attempt = index as u64 % 3 + 1;
        assert_eq!((&report["status"], &report["signal"]), (&status.into(), &signal.into()), "{report}");
        assert_eq!(
            (&report["how"], &report["ordered"], &report["by"]),
            (&how.into(), &false.into(), &Value::Null)
        );
        assert_eq!((&report["agent"], &report["generation"]), (&"sink".into(), &(index + 1).into()));
        assert_eq!((&report["state"], &report["verdict"]), (&"ready".into(), &"committed".into()));
        let held = &report["in_hand"];
        assert_eq!(
            (&held["sequence"], &held["attempt"], &held["attempts_max"]),
            (&value.into(), &attempt.into(), &3.into())
        );
        let id = format!("source/numbers/{}", held["position"]);
        assert_eq!(held["message"], id);
        let received = messages(&report["received"]);
        assert_eq!(received.last(), Some(&id), "what it had in hand is what it took last");
        assert_eq!(report["received"].as_array().and_then(|l| l.last()).expect("one")["attempt"], attempt);
        let output: Vec<&str> = report["output"].as_array().expect("a list").iter().map(text).collect();
        assert!(said.is_none_or(|said| output.iter().any(|line| line.contains(said))), "{output:?}");
        assert!(report["usage"]["max_rss_kib"].as_u64() > Some(100), "{report}");
        let decision = &report["decision"];
        let what = if index < 2 { "restarted" } else { "pauses" };
        assert_eq!(
            (&decision["what"], &decision["counted"], &decision["deaths"]),
            (&what.into(), &true.into(), &(index + 1).into())
        );
    }
    // Number 50 came after the 40 numbers since number 9 was parked: of those the last sixteen are known, each in its order.
    let first_of_50 = &reports[9];
    assert_eq!(
        (first_of_50["counts"]["received"].as_u64(), first_of_50["counts"]["sent"].as_u64()),
        (Some(41), Some(40))
    );
    let position = |message: &String| {
        message.rsplit('/').next().and_then(|p| p.parse::<u64>().ok()).expect("a position")
    };
    for (list, way) in [("received", "source/numbers/"), ("sent", "sink/handled/")] {
        let seen = messages(&first_of_50[list]);
        assert_eq!(seen.len(), 16, "{seen:?}");
        assert!(seen.iter().all(|message| message.starts_with(way)), "{seen:?}");
        assert!(seen.windows(2).all(|pair| position(&pair[0]) < position(&pair[1])), "{seen:?}");
    }
    assert_eq!(messages(&reports[10]["sent"]).len(), 0, "its next life has sent nothing that was committed");
    let page = stage.done(&["crashes", "show", &reports[9]["id"].to_string()]);
    assert!(page.status == 0 && page.out.contains("number 50 makes me panic"), "{page:?}");
    let unknown = stage.done(&["crashes", "show", "999"]);
    assert!(
        unknown.status == 2 && unknown.err.contains("no crash report 999; there are 1 to 12"),
        "{unknown:?}"
    );
    let nobody = stage.done(&["crashes", "sing"]);
    assert!(nobody.status == 2 && nobody.err.contains("did you mean `sink`?"), "{nobody:?}");
    assert_eq!(shoal.stop().status, 0);
    // The swarm is gone, what it left in its log folder is not.
    let file = stage.path("swarm.toml");
    assert_eq!(crashes(&stage, &["--file", file.to_str().expect("UTF-8"), "-n", "2"]), reports[10..]);
    assert_eq!(stage.done(&["crashes"]).status, 1);
    purge(&stage);
}

fn purge(stage: &Stage) {
    let done = stage.done(&["dlq", "purge", "--all", "--swarm", stage.name()]);
    assert!(done.status == 0 || done.err.contains("none has left dead letters"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: an ordered death names who ordered it and counts for nothing; followers hear everything in order, to the end. Method: the
/// sink holds a number when it is killed by an order, and is stopped later; an event stream is read from beginning to end.
#[test]
fn an_ordered_death_names_who_ordered_it_and_events_are_followed_to_the_end() {
    let stage = stage!("orders");
    let mut shoal = stage.run(&swarm_file(&stage, "5 holds\n", "", ""));
    until_handled(&stage, &mut shoal, 4);
    let follower = stage.start(stage.shoal(&["events", "-f", "--json"]));
    let done = stage.done(&["kill", "sink"]);
    assert_eq!(done.status, 0, "{done:?}");
    shoal.until_agent("sink", "back", |a| (a.generation == 2 && a.state == PsState::Ready).then_some(()));
    let [report] = crashes(&stage, &[]).try_into().expect("one report");
    assert_eq!((&report["ordered"], &report["signal_name"]), (&true.into(), &"SIGKILL".into()));
    let by = text(&report["by"]);
    assert!(by.starts_with("an operator (user ") && by.ends_with("): shoal kill sink"), "{by}");
    assert_eq!((&report["in_hand"]["sequence"], &report["in_hand"]["attempt"]), (&5.into(), &1.into()));
    let decision = &report["decision"];
    assert_eq!(
        (&decision["what"], &decision["counted"], &decision["deaths"]),
        (&"restarted".into(), &false.into(), &0.into())
    );
    fs::write(stage.path("poison"), "").expect("written");
    until_handled(&stage, &mut shoal, COUNT - 1);
    assert_eq!(stage.done(&["restart", "teller"]).status, 0);
    let of_teller = stage.done(&["events", "teller", "--json"]);
    assert_eq!(shoal.stop().status, 0);
    let done = follower.ended();
    assert_eq!((done.status, done.err.as_str()), (0, ""), "the end of the swarm is its end");
    let all = events(&done.out);
    let numbers: Vec<u64> = all.iter().map(|event| event["n"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>(), "none is missing");
    let of = |kind: &str, agent: &str| -> Vec<&Value> {
        all.iter().filter(|event| event["kind"] == kind && event["agent"] == agent).collect()
    };
    assert_eq!(
        (&all[0]["kind"], &all[all.len() - 1]["kind"]),
        (&"swarm-started".into(), &"swarm-ended".into())
    );
    assert_eq!(of("started", "sink").len(), 2);
    let states: Vec<&str> = of("state", "sink").iter().map(|event| text(&event["text"])).collect();
    assert!(
        states.starts_with(&[
            "stopped → starting",
            "starting → ready",
            "ready → backoff",
            "backoff → starting"
        ]),
        "{states:?}"
    );
    let died = of("died", "sink");
    assert_eq!((&died[0]["crash"], &died[0]["generation"]), (&report["id"], &1.into()));
    assert!(
        all.iter().any(|event| event["kind"] == "order" && text(&event["text"]).ends_with("shoal kill sink"))
    );
    let of_teller = events(&of_teller.out);
    assert!(of_teller.len() > 5 && of_teller.iter().all(|event| event["agent"] == "teller"), "{of_teller:?}");
    // A stop and a restart that end well are no crashes.
    assert!(of("died", "teller").iter().all(|event| event["crash"].is_null()));
    stage.assert_nothing_left();
}

/// Goal: an agent that its policy does not start again is given up for that, in the log, the event and the hook. Method: one that is
/// `temporary` is killed.
#[test]
fn a_temporary_agent_is_given_up_for_its_policy_and_not_for_too_many_deaths() {
    let stage = stage!("temporary");
    let hook = "[hooks]\ngive_up = [\"/bin/sh\", \"-c\", \"echo \\\"$SHOAL_REASON\\\" > hooked\"]";
    let text = format!(
        "[swarm]\nname = \"NAME\"\n[agent.once]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n\
         restart = {{ policy = \"temporary\" }}\n[agent.other]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n{hook}\n"
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    shoal.until_ready();
    assert!(traces::kill(shoal.pid_of("once"), stage.mark()));
    let hooked = until("the hook's word", || {
        fs::read_to_string(stage.path("hooked")).ok().filter(|said| said.ends_with('\n'))
    });
    let why = "agent once is given up: it was killed by SIGKILL, and its policy is temporary";
    assert!(hooked.starts_with(why), "{hooked}");
    assert!(shoal.err().contains(why), "{}", shoal.err());
    let told = events(&stage.done(&["events", "--json", "once"]).out);
    let told: Vec<&Value> = told.iter().filter(|event| event["kind"] == "give-up").collect();
    assert!(told.len() == 1 && self::text(&told[0]["text"]).starts_with(why), "{told:?}");
    let report = &crashes(&stage, &["once"])[0];
    assert_eq!(
        (&report["decision"]["what"], self::text(&report["decision"]["why"])),
        (&"given-up".into(), "its policy is temporary")
    );
    assert_eq!(shoal.stop().status, 1);
    stage.assert_nothing_left();
}

/// Goal: the end of an agent that is wanted always, and that nobody asked for, is a crash also with status 0: reported, shown by `status`,
/// and told to the hook; that of one that may end is none. Method: both end when they are told to by a file.
#[test]
fn a_permanent_agent_that_ends_with_status_0_has_crashed_and_status_shows_it() {
    let stage = stage!("ends-well");
    let hook =
        "[hooks]\ncrash = [\"/bin/sh\", \"-c\", \"echo \\\"$SHOAL_AGENT $SHOAL_REASON\\\" >> hooked\"]";
    let text = format!(
        "[swarm]\nname = \"NAME\"\n[agent.may]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n\
         restart = {{ policy = \"transient\" }}\n[agent.must]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n{hook}\n"
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    shoal.until_ready();
    stage.write("leave", "");
    shoal.until_agent("may", "at rest", |a| (a.state == PsState::Stopped).then_some(()));
    shoal.until_agent("must", "back", |a| (a.generation > 1).then_some(()));
    std::fs::remove_file(stage.path("leave")).expect("removed");
    let status = until("the crash", || {
        let status: Value =
            serde_json::from_str(&stage.done(&["status", "--over", "0", "--json"]).out).ok()?;
        let must = status["agents"].as_array()?.iter().find(|agent| agent["name"] == "must")?;
        (!must["last_crash"].is_null()).then(|| status.clone())
    });
    let of = |name| status["agents"].as_array().expect("a list").iter().find(|agent| agent["name"] == name);
    assert_eq!(of("must").expect("it")["last_crash"]["how"], "exited with status 0");
    assert_eq!(of("may").expect("it")["last_crash"], Value::Null);
    assert!(crashes(&stage, &[]).iter().all(|report| report["agent"] == "must" && report["status"] == 0));
    let hooked = until("the hook's word", || {
        fs::read_to_string(stage.path("hooked")).ok().filter(|said| said.ends_with('\n'))
    });
    assert!(hooked.lines().all(|line| line == "must exited with status 0"), "{hooked}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: the report of a hang says that the deadline ended it, and which message was held.
#[test]
fn a_hung_agents_report_names_its_deadline_and_the_message_it_held() {
    let stage = stage!("hangs");
    // After a quarter of it more SIGKILL follows: on a busy machine an agent may not get to die of SIGABRT within 25 ms.
    let mut shoal = stage.run(&swarm_file(&stage, "2 holds\n", "", "deadline = \"600ms\"\nmax_attempts = 1"));
    until_handled(&stage, &mut shoal, COUNT - 1);
    let [report] = crashes(&stage, &["sink"]).try_into().expect("one report");
    assert_eq!((&report["signal_name"], &report["ordered"]), (&"SIGABRT".into(), &false.into()));
    let by = report["by"].as_str().unwrap_or_default();
    let lasted_ms = by.strip_prefix("SIGABRT because it held a message for ");
    let lasted_ms = lasted_ms.and_then(|rest| rest.strip_suffix(" ms, beyond its deadline"));
    let lasted_ms: u64 = lasted_ms.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{by:?}"));
    assert!(lasted_ms >= 600, "{by}");
    assert_eq!(
        (&report["state"], &report["in_hand"]["sequence"]),
        (&"stopping, then decide".into(), &2.into())
    );
    assert!(report["in_hand"]["held_ms"].as_u64() >= Some(596), "{report}");
    let all = events(&stage.done(&["events", "--json"]).out);
    assert!(all.iter().any(|event| event["kind"] == "hang" && event["agent"] == "sink"), "{all:?}");
    assert_eq!(shoal.stop().status, 0);
    purge(&stage);
}

/// Goal: however often something dies, the last reports are there and no more than were asked for. Method: a message that is never
/// given up kills its reader until that is given up.
#[test]
fn a_storm_of_deaths_leaves_as_many_reports_as_were_asked_for_and_the_last_says_that_it_is_given_up() {
    let stage = stage!("storm");
    let sink = "max_attempts = 0\nrestart = { intensity = 30, period = \"1h\", backoff = \"1ms\" }";
    let file =
        swarm_file(&stage, "7 exits\n", "logs = \"kept\"\ncrashes = { count = 5, bytes = \"64 KiB\" }", sink);
    let mut shoal = stage.run(&file);
    shoal.until_agent("sink", "given up", |a| (a.state == PsState::Failed).then_some(()));
    // Those in memory are more, and come in the answer of a running supervisor.
    assert_eq!(crashes(&stage, &[]).len(), 31);
    let files = fs::read_dir(stage.path("kept").join("crashes")).expect("a folder").count();
    assert_eq!(files, 5);
    assert_eq!(shoal.stop().status, 1, "an agent was given up");
    let left = crashes(&stage, &["--file", file.to_str().expect("UTF-8")]);
    let ids: Vec<u64> = left.iter().map(|report| report["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids, [27, 28, 29, 30, 31]);
    let (before, last) = (&left[3]["decision"], &left[4]["decision"]);
    assert_eq!((&before["what"], &before["deaths"]), (&"pauses".into(), &30.into()));
    assert!((1..=1000).contains(&before["pause_us"].as_u64().expect("a pause")), "{before}");
    assert_eq!(
        (&last["what"], &last["deaths"], &last["deaths_max"]),
        (&"given-up".into(), &31.into(), &30.into())
    );
    purge(&stage);
}

/// Goal: pauses double up to their cap, each shortened by chance and no more than by its share; a life as long as the period makes all before
/// it void, so that who dies once in a while is never given up. Method: two agents are killed from outside as soon as they are ready, again
/// and again; no life is short beside the period of one of them, none is long beside the other's. Their reports say what was decided.
#[test]
fn pauses_grow_to_their_cap_with_chance_and_a_quiet_period_ends_the_streak() {
    const DEATHS: u64 = 12;
    let stage = stage!("pauses");
    let agent = |name: &str, restart: &str| {
        format!("[agent.{name}]\ncommand = [\"BIN/misbehaving\", \"talks\"]\nrestart = {{ {restart} }}\n")
    };
    let text = [
        "[swarm]\nname = \"NAME\"\n".to_owned(),
        agent("hasty", "intensity = 1000, period = \"24h\", backoff = \"8ms..32ms\", jitter = \"50%\""),
        // Between a spawn and `ready` a program is executed, which takes longer.
        agent("rare", "intensity = 1, period = \"1ms\", backoff = \"1h\""),
    ];
    let mut shoal = stage.run(&stage.write("swarm.toml", &text.concat()));
    for generation in 1..=DEATHS {
        for name in ["hasty", "rare"] {
            let pid = shoal.until_agent(name, &format!("ready in generation {generation}"), |a| {
                (a.state == PsState::Ready && a.generation == generation).then_some(a.pid?)
            });
            assert!(traces::kill(pid as i32, stage.mark()));
        }
    }
    for name in ["hasty", "rare"] {
        shoal.until_agent(name, "back", |a| (a.generation > DEATHS).then_some(()));
    }
    let decisions = |name: &str| -> Vec<Value> {
        crashes(&stage, &[name]).into_iter().map(|report| report["decision"].clone()).collect()
    };
    let (hasty, rare) = (decisions("hasty"), decisions("rare"));
    assert_eq!((hasty.len() as u64, rare.len() as u64), (DEATHS, DEATHS));
    assert!(rare.iter().all(|d| d["what"] == "restarted" && d["deaths"] == 1), "{rare:?}");
    assert!(hasty[..2].iter().all(|d| d["what"] == "restarted"), "{hasty:?}");
    let pauses =
        hasty[2..].iter().map(|d| d["pause_us"].as_u64().unwrap_or_else(|| panic!("a pause in {d}")));
    let dues = [8_000, 16_000].into_iter().chain(std::iter::repeat(32_000));
    let shares: Vec<f64> = pauses.zip(dues).map(|(pause, due)| pause as f64 / due as f64).collect();
    assert!(shares.iter().all(|share| (0.499..=1.0).contains(share)), "{shares:?}");
    assert!(shares.iter().any(|share| *share != shares[0]), "chance: {shares:?}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: a full disk is told and stops nothing; what could not be written is in memory. Method: the log folder is a file system
/// of 24 KiB of its own, in a namespace of mounts; where there may be none, a file stands where the folder of the reports belongs.
#[test]
fn a_supervisor_whose_disk_is_full_says_so_once_and_goes_on() {
    let stage = stage!("full");
    let sink = "max_attempts = 12\nrestart = { intensity = 100, period = \"1h\", backoff = \"1ms\" }";
    let file = swarm_file(&stage, "7 exits\n", "logs = \"kept\"", sink);
    let kept = stage.path("kept");
    fs::create_dir(&kept).expect("made");
    let plain = stage.shoal(&["run", file.to_str().expect("UTF-8")]);
    let mount = "mount -t tmpfs -o size=24k none kept && exec \"$@\"";
    let namespace = stage.unshared(&plain, &["-rm", "/bin/sh", "-c", mount, "sh"]);
    let has_namespaces =
        std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let mut shoal = if has_namespaces.is_ok_and(|output| output.status.success()) {
        stage.start(namespace)
    } else {
        fs::write(kept.join("crashes"), "").expect("a file in the way");
        stage.start(plain)
    };
    until_handled(&stage, &mut shoal, COUNT - 1);
    shoal.until_said("crash reports cannot be written to");
    let reports = crashes(&stage, &["sink"]);
    assert_eq!(reports.len(), 12, "written or not, all are told");
    assert_eq!(stage.done(&["crashes", "-n", "0"]).out, "", "none of those that there are");
    assert_eq!(stage.done(&["restart", "sink"]).status, 0, "it still does what it is told");
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(done.err.matches("crash reports cannot be written").count(), 1, "{}", done.err);
    purge(&stage);
}

/// Goal: a supervisor under a limit of file sizes lives, too. Method: an agent prints more than a file may hold.
#[test]
fn a_supervisor_whose_files_may_not_grow_says_so_and_goes_on() {
    let stage = stage!("limit");
    let text = r#"
        [swarm]
        name = "NAME"
        [agent.talker]
        command = ["/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' '\\n'; exec sleep 1000"]
        ready_timeout = "1h"
        [agent.idle]
        command = ["BIN/misbehaving", "idle"]
    "#;
    let file = stage.write("swarm.toml", text);
    // In units of 512 or of 1024 bytes: a segment fits, a hundred thousand lines with their times do not.
    let mut shoal = stage.start(stage.shoal_limited("-Sf 512", &["run", file.to_str().expect("UTF-8")]));
    shoal.until_said("talker.log cannot be written");
    shoal.pid_of("idle");
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: level and format are those of the swarm file, or of the environment before it, on the terminal and in the file.
#[test]
fn the_supervisors_log_has_the_level_and_format_that_were_asked_for() {
    let stage = stage!("log");
    let swarm = "logs = \"kept\"\nlog_level = \"error\"";
    let file = swarm_file(&stage, "7 exits\n", swarm, "max_attempts = 1");
    let file = file.to_str().expect("UTF-8");
    let mut shoal = stage.start(stage.shoal(&["run", file]));
    until_handled(&stage, &mut shoal, COUNT - 1);
    let quiet = shoal.stop();
    assert_eq!((quiet.status, quiet.err.as_str()), (0, ""), "a crash that is dealt with is no error");
    for name in ["handled", "tried", "kept/shoal.supervisor.log"] {
        let _ = fs::remove_file(stage.path(name));
    }
    purge(&stage);
    let mut loud = stage.shoal(&["run", file]);
    loud.env("SHOAL_LOG", "debug,json");
    let mut shoal = stage.start(loud);
    until_handled(&stage, &mut shoal, COUNT - 1);
    let loud = shoal.stop();
    assert_eq!(loud.status, 0);
    let said = events(&loud.err);
    let has = |level: &str, words: &str| {
        said.iter().any(|r| r["level"] == level && text(&r["text"]).contains(words))
    };
    assert!(has("warn", "agent sink (generation 1) exited with status 7"), "{}", loud.err);
    assert!(has("debug", "agent sink (generation 2): starting → ready"), "{}", loud.err);
    assert_eq!(fs::read_to_string(stage.path("kept/shoal.supervisor.log")).expect("a file"), loud.err);
    purge(&stage);
    let mut bad = stage.shoal(&["run", file]);
    bad.env("SHOAL_LOG", "loud");
    let bad = stage.finish(bad);
    assert!(bad.status == 2 && bad.err.contains("SHOAL_LOG: \"loud\" is no level"), "{bad:?}");
}

/// Goal: the report of a death names the core that the kernel left. Method: an agent with a folder of its own aborts.
#[test]
fn a_report_names_the_core_where_the_agent_ran() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    if pattern.trim() != "core" || hard.is_some_and(|hard| hard < 1 << 20) {
        return eprintln!("not looked at: cores go elsewhere ({pattern:?}), or nowhere");
    }
    let stage = stage!("core");
    fs::create_dir(stage.path("inside")).expect("a folder");
    let text = "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/confined\", \"aborts\"]\ncwd = \"inside\"\n\
                limits = { core_size = \"1 MiB\" }\n";
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    shoal.until_agent("a", "back", |a| (a.state == PsState::Ready && a.generation == 2).then_some(()));
    let [report] = crashes(&stage, &["a"]).try_into().expect("one report");
    let path = PathBuf::from(report["core"]["path"].as_str().expect("a path"));
    assert_eq!(path.parent(), Some(stage.path("inside").as_path()), "{report}");
    assert!(fs::metadata(&path).is_ok_and(|core| core.len() > 0), "{report}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// Goal: the death of an agent while nobody supervises is reported as any other, by the next supervisor. Method: the keeper stands still
/// while the supervisor and then the agent are killed.
#[test]
fn a_death_while_the_supervisor_was_dead_is_reported_by_the_next_one() {
    let stage = stage!("orphaned");
    let text = "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/confined\", \"idles\"]\n";
    let mut shoal = stage.run(&stage.write("swarm.toml", text));
    let agent = shoal.pid_of("a");
    let keeper = shoal.keeper().expect("a keeper");
    let supervisor = shoal.supervisor().expect("a supervisor");
    stage.halt(keeper);
    for pid in [supervisor, agent] {
        assert!(traces::kill(pid, stage.mark()));
        until("its death", || (traces::state(pid) == Some('Z')).then_some(()));
    }
    assert!(traces::send(keeper, stage.mark(), Signal::CONT));
    shoal.until_agent("a", "back", |a| (a.state == PsState::Ready && a.generation == 2).then_some(()));
    assert_ne!(shoal.supervisor(), Some(supervisor));
    let [report] = crashes(&stage, &["a"]).try_into().expect("one report");
    assert_eq!((&report["pid"], &report["generation"]), (&agent.into(), &1.into()), "{report}");
    assert_eq!((&report["signal_name"], &report["ordered"]), (&"SIGKILL".into(), &false.into()), "{report}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}
