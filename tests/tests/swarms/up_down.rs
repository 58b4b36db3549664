//! A swarm in the background: `up -d`, `status`, `wait`, `kill --signal`, `down`, and what each says by its exit status.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shoal_tests::stage::Relayed;
use shoal_tests::{Done, PANICS, Stage, stage, traces, until};
use std::io::Write;
use std::path::PathBuf;

/// One plain agent that prints, and two replicas of a reader.
fn swarm(stage: &Stage) -> PathBuf {
    stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.tasks]
        message = "Task"
        [agent.talker]
        command = ["BIN/misbehaving", "talks"]
        restart = { policy = "permanent", intensity = 10000, period = "1s", backoff = "1ms..5ms" }
        [agent.lister]
        command = ["BIN/misbehaving", "publishes"]
        publishes = ["tasks"]
        [agent.worker]
        command = ["BIN/misbehaving", "subscribes"]
        replicas = 2
        subscribes = ["tasks"]
        "#,
    )
}

fn path(file: &std::path::Path) -> &str {
    file.to_str().expect("a UTF-8 path")
}

/// Starts a swarm file in the background; its log lies on the stage.
fn up(stage: &Stage, file: &std::path::Path) -> Done {
    let log = stage.path("up.log");
    stage.done(&["up", "-d", "--log", path(&log), path(file)])
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON object: {error}: {text}"))
}

/// What one command prints with `--json`, and its status.
fn asked(stage: &Stage, args: &[&str]) -> (i32, Value) {
    let done = stage.done(&[args, &["--json"]].concat());
    (done.status, object(&done.out))
}

/// The session of process `pid`; 0 if its leader is outside our pid namespace, as ours may be in a container.
fn session(pid: &str) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    after_name.split_whitespace().nth(3).expect("a session").parse().expect("a number")
}

/// Ends a stage's swarm, and sees that nothing of it is left.
fn down(stage: &Stage) {
    let done = stage.done(&["down"]);
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{}", done.out);
    assert!(done.out.starts_with(&format!("swarm `{}` is down\n", stage.name())), "{}", done.out);
    stage.assert_nothing_left();
}

#[test]
fn swarm_in_the_background_is_ready_when_up_returns_and_gone_when_down_returns() {
    let stage = stage!("background");
    let done = up(&stage, &swarm(&stage));
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(
        done.out.starts_with(&format!("swarm `{}` is up: 4 agents ready, process ", stage.name())),
        "{}",
        done.out
    );
    let (status, report) = asked(&stage, &["status", "--over", "0"]);
    let states: Vec<_> = report["agents"]
        .as_array()
        .expect("agents")
        .iter()
        .map(|a| a["state"].as_str().unwrap_or_default())
        .collect();
    assert_eq!((status, states), (0, vec!["ready"; 4]), "{report}");
    assert_eq!(report["health"], "healthy");
    // It has a session of its own: the terminal's signals do not reach it.
    let its = session(&report["pid"].to_string());
    assert_ne!(its, 0, "the session of a process outside");
    assert_ne!(its, session("self"));
    down(&stage);
    // What the supervisor said is kept; what agents said never was in it.
    let log = std::fs::read_to_string(stage.path("up.log")).expect("the log");
    assert!(!log.contains("talker begins"), "{log}");
}

#[test]
fn up_without_d_runs_in_the_foreground_until_a_signal() {
    let stage = stage!("foreground");
    let file = swarm(&stage);
    let mut shoal = stage.start(stage.shoal(&["up", path(&file)]));
    shoal.until_ready();
    shoal.until_said("talker | talker begins");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

/// What a command printed on both streams, each line of which is an object.
fn objects(done: &Done) -> [Vec<Value>; 2] {
    [&done.out, &done.err].map(|stream| stream.lines().map(object).collect())
}

/// Whether one of these says this under a name.
fn says(objects: &[Value], name: &str, text: &str) -> bool {
    objects.iter().any(|object| object[name].as_str().is_some_and(|said| said.contains(text)))
}

/// Goal: with --json a program can read all that is printed in the foreground, whoever is the supervisor. Method: an agent that prints on
/// both streams and is killed, before and after a take-over; each line is read as JSON, and what the agent printed is what `logs` shows.
#[test]
fn all_that_is_printed_in_the_foreground_is_objects_when_asked_for() {
    let stage = stage!("objects");
    let file = swarm(&stage);
    let mut shoal = stage.start(stage.shoal(&["run", "--json", path(&file)]));
    let mut said = Vec::new();
    for word in ["\"one\"", "two"] {
        shoal.until_ready();
        std::fs::write(stage.path("say"), format!("{word}\n")).expect("written");
        for kind in ["says", "warns"] {
            shoal.until_said(&Value::from(format!("talker {kind} {word}")).to_string());
        }
        let generation = shoal.until_agent("talker", "known", |a| Some(a.generation));
        assert_eq!(stage.done(&["kill", "--signal", "ABRT", "talker"]).status, 0);
        shoal.until_agent("talker", "its next life", |a| (a.generation > generation).then_some(()));
        // A birth that the take-over cuts off is begun anew.
        shoal.succeed();
        said.push((word, generation));
    }
    shoal.until_ready();
    let kept = stage.done(&["logs", "talker", "--json"]).out;
    let done = shoal.stop();
    let [out, err] = objects(&done);
    assert_eq!(done.status, 0, "{err:?}");
    for (word, generation) in said {
        let of = |stream: &str, kind: &str| {
            let text = format!("talker {kind} {word}");
            out.iter().any(|o| o["agent"] == "talker" && o["stream"] == stream && o["text"] == text)
        };
        assert!(of("out", "says") && of("err", "warns"), "{word}: {out:?}");
        let died = format!("agent talker (generation {generation}) was killed by");
        assert!(says(&err, "text", &died), "{died}: {err:?}");
    }
    for line in kept.lines() {
        assert!(done.out.contains(line), "logs print another object: {line}\n{}", done.out);
    }
    assert!(err.iter().all(|record| record["swarm"] == stage.name() && record["at"].is_string()), "{err:?}");
    assert_eq!(out.last(), Some(&serde_json::json!({ "swarm": stage.name(), "status": 0 })));
    stage.assert_nothing_left();
}

/// Goal: the panic of a supervisor is told in one object, whatever it says in how many lines, and all that follows is objects, too.
/// Method: the supervisor gets the signal at which the command line under test panics; each line is read as JSON.
#[test]
fn panic_of_a_supervisor_is_an_object_when_asked_for() {
    let stage = stage!("panics");
    let file = swarm(&stage);
    for command in ["run", "up"] {
        let mut shoal = stage.start(stage.shoal(&[command, "--json", path(&file)]));
        shoal.until_ready();
        let first = shoal.supervisor().expect("a supervisor");
        until("a supervisor that waits", || (traces::state(first) == Some('S')).then_some(()));
        assert!(traces::send(first, stage.mark(), PANICS));
        shoal.until_said("the supervisor panicked: number 2 takes over");
        shoal.until_ready();
        assert_ne!(shoal.supervisor().expect("a successor"), first);
        let done = shoal.stop();
        let [out, err] = objects(&done);
        let is_of_it = |o: &&Value| o["text"].as_str().is_some_and(|text| text.contains("panicked at "));
        let told: Vec<&Value> = out.iter().chain(&err).filter(is_of_it).collect();
        let [record] = told[..] else { panic!("one object tells of the panic: {out:?} {err:?}") };
        assert_eq!((&record["level"], &record["swarm"]), (&"error".into(), &stage.name().into()));
        assert!(
            record["text"].as_str().is_some_and(|text| text.ends_with("\na test wants it so")),
            "{record}"
        );
        assert_eq!(out.last(), Some(&serde_json::json!({ "swarm": stage.name(), "status": 0 })));
        stage.assert_nothing_left();
    }
}

/// Goal: also why it ends is an object, whoever says it. Method: the supervisor of a start that fails, of a second start, and of a swarm that
/// an agent ends; the keeper, whose supervisor is killed; the guard, whose keeper is.
#[test]
fn last_words_in_the_foreground_are_objects_when_asked_for() {
    let stage = stage!("last-words");
    let of = |swarm: &str, command: &str| {
        let text = format!(
            "[swarm]\nname = \"NAME\"\n{swarm}\n[agent.well]\ncommand = [\"BIN/misbehaving\", \"idle\"]\n[agent.bad]\n\
             command = [{command}]\nafter = [\"well\"]\nrestart = {{ intensity = 0, on_give_up = \"escalate\" }}\n"
        );
        stage.write("swarm.toml", &text)
    };
    let up = |file: &std::path::Path| stage.shoal(&["up", "--json", path(file)]);
    let ends = |done: Done, status: i32, why: &str| {
        let [out, err] = objects(&done);
        assert_eq!(done.status, status, "{err:?}");
        assert!(says(&err, "text", why), "{why}: {err:?}");
        assert_eq!(out.last(), Some(&serde_json::json!({ "swarm": stage.name(), "status": status })));
    };
    ends(stage.finish(up(&of("", "\"BIN/misbehaving\", \"exits\""))), 2, "the swarm did not start: ");
    ends(stage.finish(up(&of("", "\"BIN/stages\", \"fails\""))), 1, "the swarm ended: ");
    let file = of("orphans = \"kill\"", "\"BIN/misbehaving\", \"idle\"");
    let mut shoal = stage.start(up(&file));
    shoal.until_ready();
    ends(stage.finish(up(&file)), 2, "is running already (process ");
    until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
    ends(shoal.ended(), 1, "the supervisor died, and `orphans = \"kill\"`: everything is ended");
    let mut shoal = stage.start(up(&file));
    shoal.until_ready();
    assert!(traces::kill(shoal.keeper().expect("a keeper"), stage.mark()));
    ends(shoal.ended(), 1, "was killed by signal 9");
    let mut shoal = stage.shoal(&["run", "--json", path(&file)]);
    shoal.env("SHOAL_LOG", "loud");
    ends(stage.finish(shoal), 2, "is no level of the log");
    stage.assert_nothing_left();
}

#[test]
fn start_that_fails_is_told_with_its_reason_and_undone() {
    let stage = stage!("fails");
    let good = std::fs::read_to_string(swarm(&stage)).expect("read");
    let log = stage.path("up.log");
    for (broken, said) in [
        (good.replace("misbehaving\", \"talks", "misbehaving\", \"exits"), "I have no configuration"),
        (good.replace("misbehaving\", \"talks", "absent"), "no such command"),
        (good.replace("replicas", "replicsa"), "replicsa"),
    ] {
        let file = stage.write("broken.toml", &broken);
        let done = up(&stage, &file);
        let told = done.err.clone() + &std::fs::read_to_string(&log).unwrap_or_default();
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{}", done.err);
        assert!(done.err.contains(said) || told.contains("exited with status 3"), "{said:?}: {told}");
        stage.assert_nothing_left();
    }
}

/// Goal: what an agent printed before it failed a start is told by whoever tells of that, in words and as objects, and of one that printed
/// nothing that is said. Method: agents that exit, that a signal kills, and that are never ready, their last line not ended; one without words.
#[test]
fn start_that_fails_repeats_what_its_agent_printed_last() {
    let stage = stage!("failed-words");
    let log = stage.path("up.log");
    let ways: [(&str, &[&str]); 4] = [
        ("in the foreground", &["run"]),
        ("as objects", &["up", "--json"]),
        ("in the background", &["up", "-d", "--log", path(&log)]),
        ("in the background, as an object", &["up", "-d", "--json", "--log", path(&log)]),
    ];
    let words = "it printed last:\n  bad | first\n  bad | CONFIG-MISSING";
    for (script, told) in [
        ("echo first; printf CONFIG-MISSING >&2; exit 7", words),
        ("echo first; printf CONFIG-MISSING >&2; kill -ABRT $$", words),
        ("echo first; printf CONFIG-MISSING >&2; exec sleep 1000", words),
        ("exit 7", "it printed nothing"),
    ] {
        let text = format!(
            "[swarm]\nname = \"NAME\"\n[agent.bad]\ncommand = [\"/bin/sh\", \"-c\", '{script}']\nready_timeout = \"1s\"\n\
             restart = {{ intensity = 0 }}\n"
        );
        let file = stage.write("bad.toml", &text);
        for (how, args) in ways {
            let done = stage.done(&[args, &[path(&file)]].concat());
            let said = if how == "as objects" {
                let [_, err] = objects(&done);
                err.iter().filter_map(|o| o["text"].as_str()).collect::<Vec<_>>().join("\n")
            } else {
                done.err
            };
            assert_eq!(done.status, 2, "{how}: {said}");
            let why = said.split_once("the swarm did not start: ").map(|(_, why)| why);
            assert!(why.is_some_and(|why| why.contains(told)), "{how}, {script}: {said}");
            assert!(!said.contains("above"), "{how}: {said}");
            stage.assert_nothing_left();
        }
    }
}

/// Goal: who waits for a start learns why it failed though nothing can be written to any file. Method: no file may grow, so neither the log
/// nor the lock of the runtime folder can be written, as on a disk that is full; what `up` says goes into a pipe.
#[test]
fn start_that_fails_for_want_of_room_is_told_with_its_reason() {
    let stage = stage!("no-room");
    let (file, log) = (swarm(&stage), stage.path("up.log"));
    let mut up = stage.shoal_limited("-f 0", &["up", "-d", "--log", path(&log), path(&file)]);
    let done = up.output().expect("a shell");
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(2), &b""[..]), "{err}");
    assert_eq!(std::fs::read_to_string(&log).expect("the log"), "");
    let reason = err.lines().nth(1).unwrap_or_default();
    assert!(reason.starts_with("shoal: writing ") && reason.contains("/lock: File too large"), "{err}");
    assert_eq!(err.lines().count(), 2, "{err}");
    stage.until_no_process();
}

/// Goal: the log of a swarm in the background says when, over several runs, and who waits is told nothing twice. Method: a run of which the
/// supervisor panics and an agent dies, and a start that fails; each text begins with a time, and times never go back.
#[test]
fn log_of_the_background_says_when() {
    let stage = stage!("dated");
    let log = stage.path("up.log");
    assert_eq!(up(&stage, &swarm(&stage)).status, 0);
    let supervisor =
        asked(&stage, &["status", "--over", "0"]).1["supervisor"].as_i64().expect("a process") as i32;
    until("a supervisor that waits", || (traces::state(supervisor) == Some('S')).then_some(()));
    assert!(traces::send(supervisor, stage.mark(), PANICS));
    let has_panicked = |said: &str| said.contains("the supervisor panicked: number 2 takes over");
    kill_until(&stage, &log, "a panic and a death in the log", |said| {
        has_panicked(said) && said.contains("talker")
    });
    down(&stage);
    let good = std::fs::read_to_string(swarm(&stage)).expect("read");
    let done = up(&stage, &stage.write("broken.toml", &good.replace("\"talks\"", "\"exits\"")));
    assert_eq!(done.err.matches("did not start").count(), 1, "{}", done.err);
    let said = std::fs::read_to_string(&log).expect("the log");
    assert!(said.contains(":\n  a test wants it so\n"), "{said}");
    let texts: Vec<&str> = said.lines().filter(|line| !line.starts_with("  ")).collect();
    let times: Vec<&str> = texts.iter().filter_map(|line| Some(line.split_once(" shoal: ")?.0)).collect();
    assert!(times.len() == texts.len() && times.is_sorted(), "{said}");
    let is_time = |time: &&str| time.len() == 24 && time.starts_with("20") && time.ends_with('Z');
    assert!(times.iter().all(is_time) && times.len() >= 2, "{said}");
    stage.assert_nothing_left();
}

#[test]
fn start_that_takes_too_long_is_stopped() {
    let stage = stage!("late");
    let text = std::fs::read_to_string(swarm(&stage)).expect("read").replace("\"talks\"", "\"never-ready\"");
    let file = stage.write("late.toml", &text);
    let log = stage.path("up.log");
    let done = stage.done(&["up", "-d", "--timeout", "300ms", "--log", path(&log), path(&file)]);
    assert_eq!((done.status, done.out.as_str()), (2, ""), "{}", done.err);
    assert!(done.err.contains("not all ready within 300ms"), "{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn second_start_of_the_same_swarm_is_refused_and_harms_nothing() {
    let stage = stage!("twice");
    let file = swarm(&stage);
    assert_eq!(up(&stage, &file).status, 0);
    let done = up(&stage, &file);
    assert_eq!(done.status, 2);
    assert!(done.err.contains("is running already (process "), "{}", done.err);
    assert_eq!(stage.done(&["status"]).status, 0);
    down(&stage);
}

#[test]
fn log_lies_beside_the_runtime_folder_unless_told_otherwise() {
    let stage = stage!("log");
    let done = stage.done(&["up", "-d", "--json", path(&swarm(&stage))]);
    assert_eq!(done.status, 0, "{}", done.err);
    let report = object(&done.out);
    let log = PathBuf::from(report["log"].as_str().expect("a path"));
    assert_eq!(log, stage.path("run").join("shoal").join(format!("{}.log", stage.name())));
    assert_eq!((report["agents"].as_u64(), report["swarm"].as_str()), (Some(4), Some(stage.name())));
    assert_eq!(stage.done(&["down"]).status, 0);
    std::fs::remove_file(&log).expect("the log outlives the run");
    std::fs::remove_dir(log.parent().expect("a folder")).expect("nothing else is left");
    stage.assert_nothing_left();
}

/// Kills an agent until the log is so; what it says then.
fn kill_until(stage: &Stage, log: &std::path::Path, what: &str, seen: impl Fn(&str) -> bool) -> String {
    until(what, || {
        stage.done(&["kill", "--signal", "ABRT", "talker"]);
        assert_eq!(stage.done(&["wait", "talker"]).status, 0);
        let said = std::fs::read_to_string(log).unwrap_or_default();
        seen(&said).then_some(said)
    })
}

/// Goal: the log of a swarm in the background does not grow for ever, and what is said later is in it. Method: the
/// log is filled to a little below its bound, and an agent killed until it is put aside; filled once more, over a supervisor's death.
#[test]
fn log_is_put_aside_while_the_swarm_runs_and_goes_on() {
    let stage = stage!("bounded");
    let (log, aside) = (stage.path("up.log"), stage.path("up.log.1"));
    let filler = |word: &str, bytes: usize| format!("{word}\n").repeat(bytes / (word.len() + 1));
    let first = filler("first", (1 << 20) - 300);
    std::fs::write(&log, &first).expect("written");
    assert_eq!(up(&stage, &swarm(&stage)).status, 0);
    let rest = kill_until(&stage, &log, "a log that is begun anew", |said| said.len() < 1 << 19);
    let kept = std::fs::read_to_string(&aside).expect("put aside");
    assert!(kept.starts_with(&first) && kept.contains("talker"), "{}", kept.len());
    assert!(kept.len() < (1 << 20) + 4096 && !rest.contains("first"), "{} {}", kept.len(), rest.len());
    // Whoever else has it open goes on at its end.
    let mut other = std::fs::OpenOptions::new().append(true).open(&log).expect("the log");
    other.write_all(filler("second", 1 << 20).as_bytes()).expect("written");
    let (_, report) = asked(&stage, &["status", "--over", "0"]);
    let supervisor = report["supervisor"].as_i64().expect("a process") as i32;
    assert!(traces::kill(supervisor, stage.mark()));
    until("another log put aside", || {
        let kept = std::fs::read_to_string(&aside).unwrap_or_default();
        (kept.contains("second\n") && kept.contains("takes over")).then_some(())
    });
    assert!(traces::send(report["pid"].as_i64().expect("a process") as i32, stage.mark(), Signal::TERM));
    stage.until_no_process();
    let said = std::fs::read_to_string(&log).expect("the log");
    assert!(said.len() < 4096 && !said.contains('\0') && !said.contains("second"), "{said}");
    assert!(said.contains("stopping"), "{said}");
    stage.assert_nothing_left();
}

#[test]
fn status_tells_a_swarm_that_is_degraded_or_not_running_by_its_exit_status() {
    let stage = stage!("status");
    for args in [&["status"][..], &["down"], &["wait"], &["status", "--swarm", "absent"]] {
        let done = stage.done(args);
        assert_eq!((done.status, done.out.as_str()), (3, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains("running"), "{}", done.err);
    }
    assert_eq!(stage.done(&["wait", "--ended"]).status, 0, "it has ended");
    // The talker may not die, so a death is the last.
    let text =
        std::fs::read_to_string(swarm(&stage)).expect("read").replace("intensity = 10000", "intensity = 0");
    assert_eq!(up(&stage, &stage.write("once.toml", &text)).status, 0);
    let (status, report) = asked(&stage, &["status", "--over", "0"]);
    assert_eq!((status, report["agents"][0]["last_crash"].is_null()), (0, true));
    let pid = report["agents"][0]["pid"].as_i64().expect("a process") as i32;
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::ABORT).expect("killed");
    let report = until("the talker given up", || {
        let (status, report) = asked(&stage, &["status", "--over", "0"]);
        (report["agents"][0]["state"] == "failed").then_some((status, report))
    });
    assert_eq!((report.0, &report.1["health"]), (1, &Value::from("degraded")));
    assert_eq!(report.1["agents"][0]["last_crash"]["how"], "was killed by SIGABRT");
    assert_eq!(stage.done(&["status", "worker"]).status, 0, "of the workers there is nothing to say");
    let done = stage.done(&["status"]);
    assert!(done.out.contains("3 ready, 1 failed") && done.out.contains("SIGABRT"), "{}", done.out);
    assert_eq!(stage.done(&["status", "tlaker"]).status, 2);
    // One that is given up does not get ready.
    let done = stage.done(&["wait", "talker"]);
    assert_eq!(done.status, 1, "{}", done.out);
    assert!(done.err.contains("given up"), "{}", done.err);
    let (status, report) = asked(&stage, &["down"]);
    assert_eq!((status, &report["failed"][0]), (0, &Value::from("talker")));
    stage.assert_nothing_left();
}

#[test]
fn wait_ends_when_agents_are_ready_or_have_ended_and_gives_up_in_time() {
    let stage = stage!("wait");
    assert_eq!(up(&stage, &swarm(&stage)).status, 0);
    assert_eq!(stage.done(&["wait"]).status, 0, "all are ready");
    let done = stage.done(&["wait", "--ended", "--timeout", "50ms", "talker"]);
    assert_eq!(done.status, 1, "{}", done.out);
    assert!(done.err.contains("is not ended after 50ms"), "{}", done.err);
    // One waits for the end of an agent, one for that of the swarm.
    let agent = stage.start(stage.shoal(&["wait", "--ended", "--json", "worker"]));
    let swarm = stage.start(stage.shoal(&["wait", "--ended"]));
    assert_eq!(stage.done(&["stop", "worker"]).status, 0);
    let done = agent.ended();
    assert_eq!(
        (done.status, &object(&done.out)["agents"]),
        (0, &serde_json::json!(["worker.1", "worker.2"]))
    );
    assert_eq!(stage.done(&["wait", "lister"]).status, 0);
    assert_eq!(stage.done(&["down"]).status, 0);
    assert_eq!(swarm.ended().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn kill_sends_the_signal_that_is_asked_for() {
    let stage = stage!("signals");
    assert_eq!(up(&stage, &swarm(&stage)).status, 0);
    let pid = |name: &str| {
        let (_, report) = asked(&stage, &["ps"]);
        let agents = report["agents"].as_array().expect("agents").clone();
        let agent = agents.into_iter().find(|a| a["name"] == name).expect("the agent");
        (agent["pid"].as_i64(), agent["generation"].as_u64())
    };
    let (first, _) = pid("worker.1");
    for (signal, said) in [("0", "no signal"), ("TREM", "no signal"), ("65", "no signal")] {
        let done = stage.done(&["kill", "--signal", signal, "worker.1"]);
        assert_eq!(done.status, 2, "{signal}");
        assert!(done.err.contains(said), "{}", done.err);
    }
    let done = stage.done(&["kill", "--signal", "STOP", "worker.1"]);
    assert_eq!((done.status, done.out.as_str()), (0, "worker.1 sent signal 19 (1 of 1)\n"), "{}", done.err);
    let state =
        || std::fs::read_to_string(format!("/proc/{}/stat", first.expect("a process"))).unwrap_or_default();
    until("the worker stopped", || state().contains(") T ").then_some(()));
    let (status, report) = asked(&stage, &["kill", "--signal", "18", "worker.1"]);
    assert_eq!((status, &report["agents"]), (0, &serde_json::json!(["worker.1"])));
    until("the worker continued", || (!state().contains(") T ")).then_some(()));
    assert_eq!(pid("worker.1"), (first, Some(1)), "it lives");
    // One for real-time use ends who does not handle it, and that is its own doing.
    let done = stage.done(&["kill", "--signal", "RTMIN+1", "worker.1"]);
    assert_eq!((done.status, done.out.as_str()), (0, "worker.1 sent signal 35 (1 of 1)\n"), "{}", done.err);
    let died = || stage.done(&["crashes", "worker.1"]).out;
    until("the crash of the worker", || died().contains("was killed by signal 35").then_some(()));
    // SIGKILL by name is the whole tree's, as without a name.
    assert_eq!(stage.done(&["kill", "--signal", "sigkill", "all"]).out, "all killed (4 of 4)\n");
    until("all started again", || (pid("talker").1 >= Some(2)).then_some(()));
    assert_eq!(stage.done(&["wait"]).status, 0);
    down(&stage);
}

#[test]
fn down_kills_what_does_not_end_in_time_and_counts_what_was_not_read() {
    let stage = stage!("late-end");
    let file = stage.write(
        "deaf.toml",
        r#"
        [swarm]
        name = "NAME"
        [agent.deaf]
        command = ["BIN/misbehaving", "deaf"]
        stop_timeout = "10m"
        "#,
    );
    assert_eq!(up(&stage, &file).status, 0);
    let (status, report) = asked(&stage, &["down", "--timeout", "200ms"]);
    assert_eq!((status, &report["killed"]), (1, &Value::from(true)), "{report}");
    stage.assert_nothing_left();
}

#[test]
fn down_says_what_nobody_read() {
    let stage = stage!("unread");
    // The relay holds its first message for ever, and is killed with the others unread.
    std::fs::write(stage.path("hold-stuck"), "").expect("written");
    let file = stage.write(
        "unread.toml",
        r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        [channel.relayed]
        message = "Number"
        [agent.source]
        command = ["BIN/numbers", "source", "20"]
        publishes = ["numbers"]
        [agent.stuck]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        stop_timeout = "300ms"
        [agent.reader]
        command = ["BIN/numbers", "sink", "1"]
        subscribes = ["relayed"]
        "#,
    );
    assert_eq!(up(&stage, &file).status, 0);
    until("twenty messages sent", || {
        let (_, report) = asked(&stage, &["ps"]);
        (report["agents"][0]["sent"] == 20).then_some(())
    });
    let (status, report) = asked(&stage, &["down"]);
    let unread = &report["unread"][0];
    assert_eq!(
        (status, &unread["agent"], &unread["channel"]),
        (0, &Value::from("stuck"), &Value::from("numbers"))
    );
    assert!(unread["count"].as_u64() == Some(20), "{report}");
    stage.assert_nothing_left();
}

/// Goal: with `--json` each line is an object however late it is read, the last says how the swarm ended, and what was not shown is told. Method:
/// lines of which a pipe takes some and a part of one; it is read when the swarm is over.
#[test]
fn run_in_objects_that_is_read_late_ends_with_whole_lines() {
    let stage = stage!("late");
    let file = stage.write(
        "late.toml",
        r#"
        [swarm]
        name = "NAME"
        logs = "logs"
        [agent.talker]
        command = ["/bin/sh", "-c", "line=$(head -c 8190 /dev/zero | tr '\\0' y); for i in 0 1 2 3 4 5 6 7 8 9; do echo $line; done; exec BIN/misbehaving subscribes-nothing"]
        restart = "temporary"
        "#,
    );
    let mut command = stage.shoal(&["run", "--json", path(&file)]);
    let mut run = command.stdout(std::process::Stdio::piped()).spawn().expect("it runs");
    until("the end of the swarm", || {
        let events = std::fs::read_to_string(stage.path("logs/events.jsonl")).unwrap_or_default();
        (events.contains("swarm-ended") && stage.done(&["status"]).status == 3).then_some(())
    });
    let mut out = String::new();
    std::io::Read::read_to_string(run.stdout.as_mut().expect("piped"), &mut out).expect("text");
    assert_eq!(run.wait().expect("its end").code(), Some(0));
    let objects: Vec<Value> = out.lines().map(object).collect();
    let [.., remark, end] = &objects[..] else { panic!("{out}") };
    assert_eq!(end, &serde_json::json!({ "swarm": stage.name(), "status": 0 }));
    let lost = format!("{} lines not shown here", 10 - (objects.len() - 2));
    assert!(remark["text"].as_str().is_some_and(|text| text.contains(&lost)), "{lost}: {remark}");
    stage.assert_nothing_left();
}

/// Goal: what a group shares is told once when nobody read it, and not for each of its members and places; where members share by number,
/// each tells of its own, and no place that nobody has. Method: two replicas with places for eight hold a message each for ever, and are killed.
#[test]
fn down_says_once_what_nobody_of_a_group_read() {
    let left =
        |agent: &str, count: u32| serde_json::json!({ "agent": agent, "channel": "numbers", "count": count });
    let cases =
        [("block", vec![left("stuck", 20)]), ("drop-oldest", vec![left("relay.1", 10), left("relay.2", 10)])];
    for (when_full, unread) in cases {
        let stage = stage!("group");
        for hold in ["hold-relay.1", "hold-relay.2"] {
            std::fs::write(stage.path(hold), "").expect("written");
        }
        let relayed = Relayed {
            count: 20,
            relay: "group = \"stuck\"\nreplicas = 2\nstop_timeout = \"300ms\"",
            ways: 0,
            ..Relayed::default()
        };
        let text = std::fs::read_to_string(relayed.write(&stage)).expect("written");
        let full = format!("[channel.numbers]\nwhen_full = \"{when_full}\"");
        let file = stage.write("swarm.toml", &text.replace("[channel.numbers]", &full));
        assert_eq!(up(&stage, &file).status, 0);
        until("twenty messages sent", || {
            let (_, report) = asked(&stage, &["ps"]);
            (report["agents"][0]["sent"] == 20).then_some(())
        });
        let (status, report) = asked(&stage, &["down"]);
        assert_eq!((status, &report["unread"]), (0, &Value::from(unread)), "{when_full}: {report}");
        stage.assert_nothing_left();
    }
}

#[test]
fn orders_and_logs_print_objects_when_asked_for() {
    let stage = stage!("json");
    let file = swarm(&stage);
    let (status, checked) = asked(&stage, &["check", path(&file)]);
    assert_eq!(
        (status, &checked["processes"], &checked["warnings"]),
        (0, &Value::from(4), &serde_json::json!([]))
    );
    assert_eq!(checked["channels"][0]["subscribers"], serde_json::json!(["worker"]));
    let (status, refused) = asked(&stage, &["check", "absent.toml"]);
    assert_eq!((status, refused["error"].is_string()), (2, true));
    assert_eq!(up(&stage, &file).status, 0);
    for (order, name) in
        [("stop", "worker.2"), ("start", "worker.2"), ("restart", "talker"), ("kill", "lister")]
    {
        let (status, done) = asked(&stage, &[order, name]);
        assert_eq!(
            (status, &done["agents"], &done["swarm"]),
            (0, &serde_json::json!([name]), &Value::from(stage.name()))
        );
    }
    let done = until("both lines of the talker", || {
        let done = stage.done(&["logs", "--json", "talker"]);
        (done.out.lines().count() >= 3).then_some(done)
    });
    let first = object(done.out.lines().next().expect("a line"));
    assert_eq!(
        (&first["agent"], &first["stream"], &first["text"]),
        (&Value::from("talker"), &Value::from("out"), &Value::from("talker begins"))
    );
    assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{first}");
    down(&stage);
}

#[test]
fn sigterm_to_the_process_that_up_names_ends_the_swarm_in_order() {
    let stage = stage!("term");
    let log = stage.path("up.log");
    let done = stage.done(&["up", "-d", "--json", "--log", path(&log), path(&swarm(&stage))]);
    let pid = object(&done.out)["pid"].as_i64().expect("a process") as i32;
    let pidfd = rustix::process::pidfd_open(
        Pid::from_raw(pid).expect("a process"),
        rustix::process::PidfdFlags::empty(),
    );
    let pidfd = pidfd.expect("it lives");
    rustix::process::pidfd_send_signal(&pidfd, Signal::TERM).expect("signalled");
    until("the end of every process", || traces::marked(stage.mark()).is_empty().then_some(()));
    stage.assert_nothing_left();
    assert!(std::fs::read_to_string(&log).expect("the log").contains("stopping"), "in order");
}
