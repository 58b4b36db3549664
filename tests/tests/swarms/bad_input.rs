//! Bad input: each a message that names file, line and key and says what to do; exit status 2; nothing left running.

use shoal::control::{PsReport, PsState};
use shoal_tests::{Done, Stage, stage, traces};
use std::collections::BTreeSet;
use std::process::Command;

/// A swarm file without fault; its lines are numbered from 1.
const GOOD: &str = r#"[swarm]
name = "NAME"
[channel.tasks]
message = "Task"
capacity = "64 KiB"
[agent.lister]
command = ["BIN/misbehaving", "publishes"]
publishes = ["tasks"]
[agent.worker]
command = ["BIN/misbehaving", "subscribes"]
subscribes = ["tasks"]
"#;

/// Runs a swarm file in which `from` is replaced by `to`.
fn run_changed(stage: &Stage, changes: &[(&str, &str)]) -> Done {
    let text = changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in the good file");
        text.replacen(from, to, 1)
    });
    let file = stage.write("swarm.toml", &text);
    stage.done(&["run", file.to_str().expect("a UTF-8 path")])
}

/// Exit status 2, all of these words, and nothing left.
fn assert_refused(stage: &Stage, done: &Done, words: &[&str]) {
    assert_eq!(done.status, 2, "{done:?}");
    for word in words {
        assert!(done.err.contains(word), "{word:?} is not in:\n{}", done.err);
    }
    // An agent's lines may tell of its own.
    let mut ours = done.err.lines().filter(|line| !line.starts_with("  lister | "));
    assert!(!ours.any(|line| line.contains("panicked")), "{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn file_without_fault_passes_and_runs() {
    let stage = stage!("good");
    let file = stage.write("swarm.toml", GOOD);
    let checked = stage.done(&["check", file.to_str().expect("a UTF-8 path")]);
    assert_eq!((checked.status, checked.err.as_str()), (0, ""));
    let mut shoal = stage.run(&file);
    shoal.until_ready();
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn circle_of_channels_that_block_is_warned_of() {
    let stage = stage!("circle");
    let back = "subscribes = [\"tasks\"]\npublishes = [\"back\"]\n[channel.back]\nmessage = \"Task\"";
    let circle = GOOD
        .replace("subscribes = [\"tasks\"]", back)
        .replace("publishes = [\"tasks\"]", "publishes = [\"tasks\"]\nsubscribes = [\"back\"]");
    let file = stage.write("swarm.toml", &circle);
    let checked = stage.done(&["check", file.to_str().expect("a UTF-8 path")]);
    assert_eq!(checked.status, 0, "{}", checked.err);
    for word in ["warning: ", "swarm.toml", "`lister`, `worker`", "(`tasks`, `back`)", "help: "] {
        assert!(checked.err.contains(word), "{word:?} is not in:\n{}", checked.err);
    }
    let open = circle.replace("[channel.back]\n", "[channel.back]\nwhen_full = \"reject\"\n");
    let file = stage.write("swarm.toml", &open);
    let checked = stage.done(&["check", file.to_str().expect("a UTF-8 path")]);
    assert_eq!((checked.status, checked.err.as_str()), (0, ""), "a circle that gives way is none");
}

#[test]
fn deadline_of_an_agent_that_reads_nothing_is_warned_of() {
    let stage = stage!("deadline");
    for (whose, warned) in [("publishes = [\"tasks\"]", true), ("subscribes = [\"tasks\"]", false)] {
        let text = GOOD.replacen(whose, &format!("{whose}\ndeadline = \"1s\""), 1);
        let file = stage.write("swarm.toml", &text);
        let checked = stage.done(&["check", file.to_str().expect("a UTF-8 path")]);
        assert_eq!(checked.status, 0, "{}", checked.err);
        let said = ["warning: ", "swarm.toml", "`deadline` of [agent.lister]", "help: "];
        assert_eq!(said.iter().all(|word| checked.err.contains(word)), warned, "{}", checked.err);
        assert_eq!(checked.err.is_empty(), !warned, "{}", checked.err);
    }
}

#[test]
fn faults_of_a_swarm_file_are_told_with_line_key_and_advice_before_anything_starts() {
    // What is changed, then line and column, the key, what is wrong, what to do.
    type Case<'c> = (&'c str, &'c str, [&'c str; 4]);
    let cases: [Case<'_>; 19] = [
        ("[swarm]", "[swarm", [":1:", "", "not TOML", "correct the TOML here"]),
        (
            "capacity =",
            "capcity =",
            [":5:1", "channel.tasks.capcity", "unknown key", "did you mean `capacity`?"],
        ),
        ("command =", "comand =", [":7:1", "agent.lister.comand", "unknown key", "did you mean `command`?"]),
        ("[agent.worker]", "[agnet.worker]", [":9:2", "agnet", "unknown key", "did you mean `agent`?"]),
        (
            "subscribes = [\"tasks\"]",
            "subscribes = [\"taks\"]",
            [":11:15", "agent.worker.subscribes", "unknown channel \"taks\"", "did you mean `tasks`?"],
        ),
        (
            "publishes = [\"tasks\"]\n",
            "",
            [":3:", "channel.tasks", "no agent publishes", "add publishes = [\"tasks\"]"],
        ),
        (
            "subscribes = [\"tasks\"]\n",
            "",
            [":3:", "channel.tasks", "no agent subscribes", "add subscribes = [\"tasks\"]"],
        ),
        ("\"64 KiB\"", "0", [":5:12", "channel.tasks.capacity", "too small", "4 KiB to 512 MiB"]),
        ("\"64 KiB\"", "\"0\"", [":5:12", "channel.tasks.capacity", "too small", "4 KiB to 512 MiB"]),
        ("\"64 KiB\"", "-1", [":5:12", "channel.tasks.capacity", "too small", "4 KiB to 512 MiB"]),
        ("\"64 KiB\"", "\"9 GiB\"", [":5:12", "channel.tasks.capacity", "too large", "4 KiB to 512 MiB"]),
        ("\"64 KiB\"", "\"many\"", [":5:12", "channel.tasks.capacity", "not a size", "for example"]),
        ("\"NAME\"", "\"../etc\"", [":2:8", "swarm.name", "", "help"]),
        (
            "BIN/misbehaving",
            "./nowhere",
            [":7:12", "agent.lister.command", "command not found", "correct the path"],
        ),
        (
            "BIN/misbehaving",
            "no-such-program",
            [":7:12", "agent.lister.command", "no `no-such-program` in PATH", "build the program"],
        ),
        ("BIN/misbehaving", "./plain.txt", [":7:12", "agent.lister.command", "not executable", "chmod +x"]),
        (
            "[agent.worker]",
            "[agent.worker]\nreplicas = 0",
            [":10:12", "agent.worker.replicas", "out of range", "whole number"],
        ),
        (
            "[agent.worker]",
            "[agent.worker]\nuser = \"no-such-user\"",
            [":10:8", "agent.worker.user", "no user \"no-such-user\" in /etc/passwd", "or the user's number"],
        ),
        (
            "[agent.worker]",
            "[agent.worker]\nuser = \"0\"\nuser_group = \"no-such-group\"",
            [
                ":11:14",
                "agent.worker.user_group",
                "no group \"no-such-group\" in /etc/group",
                "or the group's number",
            ],
        ),
    ];
    for (from, to, words) in cases {
        let stage = stage!("fault");
        stage.write("plain.txt", "no program");
        let done = run_changed(&stage, &[(from, to)]);
        assert_refused(&stage, &done, &words);
        let file = stage.path("swarm.toml");
        let file = file.to_str().expect("a UTF-8 path");
        assert!(done.err.contains(file), "the file is named: {}", done.err);
        let checked = stage.done(&["check", file]);
        assert_refused(&stage, &checked, &words);
        assert_eq!(checked.err.trim_end(), done.err.trim_end(), "check says the same as run");
    }
}

#[test]
fn binary_has_nothing_that_asks_the_c_library_for_names() {
    // Goal: no user, group or host is looked up by modules of the C library, which a binary with everything in it does not survive.
    // Method: what the binary under test has of the C library, by name.
    let stage = stage!("names");
    let binary = std::fs::read(stage.program()).expect("the binary");
    // As the tables of symbols have them: between zeros, perhaps with a version.
    let symbols = binary.split(|byte| *byte == 0).filter_map(|text| text.split(|byte| *byte == b'@').next());
    let symbols: BTreeSet<&[u8]> = symbols.filter(|name| (4..20).contains(&name.len())).collect();
    assert!(symbols.contains(&b"pthread_create"[..]), "and it would be found");
    for name in ["getpwnam_r", "getpwuid_r", "getgrnam_r", "getgrgid_r", "getaddrinfo"] {
        assert!(!symbols.contains(name.as_bytes()), "{name}");
    }
}

#[test]
fn files_that_are_no_swarm_files_are_refused() {
    let stage = stage!("nofile");
    for verb in ["check", "run"] {
        let done = stage.done(&[verb, "absent.toml"]);
        assert_refused(&stage, &done, &["absent.toml", "no such swarm file", "check the path"]);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, stage.path("pipe.toml"), kind, rustix::fs::Mode::RUSR, 0)
            .expect("a pipe");
        for odd in ["/", "pipe.toml", "/dev/zero", "/dev/stdin"] {
            let done = stage.done(&[verb, odd]);
            assert_refused(&stage, &done, &[odd, "not a regular file", "name a TOML file"]);
        }
        std::fs::remove_file(stage.path("pipe.toml")).expect("removed");
        std::fs::write(stage.path("latin.toml"), b"[swarm]\nname = \"\xfc\"\n").expect("a file");
        let done = stage.done(&[verb, "latin.toml"]);
        assert_refused(&stage, &done, &["latin.toml", "line 2", "not UTF-8"]);
        stage.write("empty.toml", "");
        let done = stage.done(&[verb, "empty.toml"]);
        assert_refused(
            &stage,
            &done,
            &["empty.toml", "swarm.name", "the swarm has no agents", "[agent.NAME]"],
        );
    }
}

#[test]
fn runtime_folder_that_cannot_be_used_is_told_by_every_command_that_would_use_it() {
    let stage = stage!("runtime");
    let file = stage.write("swarm.toml", GOOD);
    let file = file.to_str().expect("a UTF-8 path");
    stage.write("plain.txt", "no folder");
    for (folder, what) in [
        ("relative".into(), "no absolute path"),
        (stage.path("absent"), "No such file or directory"),
        (stage.path("plain.txt"), "not a folder"),
    ] {
        let of = |args: &[&str]| {
            let mut command = stage.shoal(args);
            // And should one be taken nevertheless, nobody's swarm is meant.
            command.env("XDG_RUNTIME_DIR", &folder).env("SHOAL_SWARM", stage.name());
            stage.finish(command)
        };
        let folder = folder.to_str().expect("a UTF-8 path");
        let orders: [&[&str]; 14] = [
            &["run", file],
            &["up", "-d", file],
            &["ps"],
            &["status"],
            &["wait"],
            &["down"],
            &["kill", "all"],
            &["logs", "lister"],
            &["events"],
            &["crashes"],
            &["reload"],
            &["dlq", "list"],
            &["demo", "."],
            &["chaos", "--for", "1s"],
        ];
        for order in orders {
            let done = of(order);
            assert_refused(&stage, &done, &["XDG_RUNTIME_DIR is ", folder, what, "unset it for /tmp/shoal-"]);
        }
        let doctor = of(&["doctor"]);
        assert_eq!(doctor.status, 2, "{doctor:?}");
        assert!(doctor.out.contains("XDG_RUNTIME_DIR is ") && doctor.out.contains(what), "{}", doctor.out);
        assert_eq!(of(&["check", file]).status, 0, "it asks for none");
    }
}

#[test]
fn agent_that_exits_before_it_is_ready_ends_the_start_with_its_place_and_its_output() {
    for kind in ["exits", "panics"] {
        let stage = stage!("exits");
        let done = run_changed(&stage, &[("\"publishes\"", &format!("\"{kind}\""))]);
        assert_refused(
            &stage,
            &done,
            &["swarm.toml:6", "lister", "before it was ready", "run its command by hand"],
        );
        if kind == "exits" {
            assert!(done.err.contains("exited with status 3"), "{}", done.err);
            assert!(done.out.contains("I have no configuration"), "what it said is shown: {}", done.out);
        }
    }
}

#[test]
fn agent_that_is_never_ready_ends_the_start() {
    // One that attaches and says nothing, one that never attaches.
    for kind in ["never-ready", "absent"] {
        let stage = stage!("unready");
        let done = run_changed(
            &stage,
            &[("\"publishes\"]", &format!("\"{kind}\"]\nready_timeout = \"300ms\"\nstop_timeout = \"1h\""))],
        );
        let words = ["swarm.toml:6", "lister", "not ready within 300ms", "agent.ready()", "ready_timeout"];
        assert_refused(&stage, &done, &words);
    }
}

#[test]
fn program_that_cannot_be_executed_after_all_ends_the_start() {
    let stage = stage!("format");
    stage.write("odd", "neither a program nor a script\n");
    let odd = stage.path("odd");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&odd, mode).expect("executable");
    let done = run_changed(&stage, &[("BIN/misbehaving", "./odd")]);
    assert_refused(&stage, &done, &["swarm.toml:6", "lister", "cannot be started"]);
}

#[test]
fn definitions_of_a_message_that_differ_are_refused_with_both_fingerprints() {
    let stage = stage!("types");
    let done = run_changed(&stage, &[("\"publishes\"", "\"publishes-other\"")]);
    let said = format!("{}{}", done.err, done.out);
    assert_refused(&stage, &done, &["swarm.toml:3"]);
    for word in ["\"tasks\"", "Task", "fingerprint", "build both with the same definition", "swarm.toml:3"] {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
    let is_fingerprint = |word: &&str| word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = said.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_fingerprint);
    let fingerprints: BTreeSet<&str> = words.collect();
    assert_eq!(fingerprints.len(), 2, "both, and no other: {said}");
}

#[test]
fn channels_that_agent_code_gets_wrong_are_told_with_the_line_to_change() {
    // What the lister does, and what it is told.
    let cases: [(&str, &[&str]); 5] = [
        (
            "publishes-unknown",
            &["asks for channel `taks`", "did you mean `tasks`? It has `tasks`", "swarm.toml"],
        ),
        ("publishes-far", &["asks for channel `elsewhere`", "swarm.toml does not have. It has `tasks`"]),
        ("publishes-count", &["carries `Task`", "swarm.toml:3", "uses it with `Count`", "change `message`"]),
        (
            "subscribes",
            &[
                "subscribes channel `tasks`",
                "it only publishes it",
                "add \"tasks\" to `subscribes` of [agent.lister]",
                "swarm.toml:6",
            ],
        ),
        ("subscribes-nothing", &[]),
    ];
    for (kind, words) in cases {
        let stage = stage!("code");
        let done = if words.is_empty() {
            run_changed(&stage, &[("\"subscribes\"", &format!("\"{kind}\""))])
        } else {
            run_changed(&stage, &[("\"publishes\"", &format!("\"{kind}\""))])
        };
        assert_refused(&stage, &done, &["swarm.toml:", "before it was ready"]);
        for word in words {
            assert!(done.out.contains(word), "{word:?} is not in:\n{}{}", done.out, done.err);
        }
        if words.is_empty() {
            assert!(done.out.contains("says ready without reading it"), "{}", done.out);
        }
    }
}

/// Nobody would read it while the agent serves, and its producers would wait for ever.
#[test]
fn serving_without_a_handler_for_a_channel_that_was_subscribed_is_refused() {
    let stage = stage!("unheard");
    let done = run_changed(&stage, &[("\"subscribes\"", "\"serves-without-handler\"")]);
    assert_refused(&stage, &done, &["swarm.toml:9", "before it was ready"]);
    for word in ["`worker` serves without a handler for channel `tasks`", "swarm.toml:3", "call `agent.on`"] {
        assert!(done.out.contains(word), "{word:?} is not in:\n{}", done.out);
    }
}

/// Those that an agent is told by its supervisor: a second one of a name would be the first that it finds.
#[test]
fn environment_variables_that_are_the_supervisors_to_set_are_refused_and_none_is_inherited() {
    let stage = stage!("environment");
    for name in ["SHOAL_SWARM", "SHOAL_AGENT", "SHOAL_CONTROL_FD", "SHOAL_ZYGOTE", "SHOAL_SECRET_KEY"] {
        let table = format!("env = {{ {name} = \"3\" }}\nsubscribes = ");
        let done = run_changed(&stage, &[("subscribes = ", &table)]);
        assert_refused(&stage, &done, &["swarm.toml:11", &format!("{name:?} is set by the supervisor")]);
    }
    let file = stage.write("swarm.toml", GOOD);
    let mut command = stage.shoal(&["run", file.to_str().expect("a UTF-8 path")]);
    let inherited = ["SHOAL_SWARM", "SHOAL_AGENT", "SHOAL_CONTROL_FD", "SHOAL_ZYGOTE", "SHOAL_SECRET_KEY"];
    inherited.iter().for_each(|name| _ = command.env(name, "9"));
    let mut shoal = stage.start(command);
    shoal.until_ready();
    let environment = std::fs::read(format!("/proc/{}/environ", shoal.pid_of("worker"))).expect("its own");
    let environment = String::from_utf8_lossy(&environment);
    let mut told: Vec<&str> =
        environment.split('\0').filter(|entry| inherited.iter().any(|n| entry.starts_with(n))).collect();
    told.sort_unstable();
    assert_eq!(told, ["SHOAL_AGENT=worker", "SHOAL_CONTROL_FD=3", &format!("SHOAL_SWARM={}", stage.name())]);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn publishing_what_an_agent_only_subscribes_is_told_with_the_line_to_change() {
    let stage = stage!("way");
    let done = run_changed(&stage, &[("\"subscribes\"]", "\"publishes\"]")]);
    assert_refused(&stage, &done, &["swarm.toml:9", "before it was ready"]);
    for word in ["publishes channel `tasks`", "it only subscribes it", "[agent.worker]", "swarm.toml:9"] {
        assert!(done.out.contains(word), "{word:?} is not in:\n{}", done.out);
    }
}

/// A size that only data shows is no fault of the start: the sender is given up, nobody else is.
#[test]
fn message_that_is_larger_than_its_lane_takes_is_told_with_the_key_and_its_sender_given_up() {
    let stage = stage!("large");
    let hasty = "\"sends-large\"]\nrestart = { policy = \"permanent\", intensity = 1 }";
    let file = stage.write("swarm.toml", &GOOD.replacen("\"publishes\"]", hasty, 1));
    let mut shoal = stage.run(&file);
    shoal.until_agent("lister", "given up", |a| (a.state == PsState::Failed).then_some(()));
    shoal.until_agent("worker", "at its work", |a| (a.state == PsState::Ready).then_some(()));
    let done = shoal.stop();
    assert_eq!(done.status, 1, "an agent failed: {}", done.err);
    for word in ["is too large", "at most 32752 bytes", "raise `capacity` of [channel.tasks]", "swarm.toml:3"]
    {
        assert!(done.out.contains(word), "{word:?} is not in:\n{}{}", done.out, done.err);
    }
    assert!(done.err.contains("lister is given up"), "{}", done.err);
    stage.assert_nothing_left();
}

#[test]
fn second_supervisor_of_the_same_name_is_refused_and_the_first_goes_on() {
    let stage = stage!("twice");
    let file = stage.write("swarm.toml", GOOD);
    let mut shoal = stage.run(&file);
    let before = shoal.until_ready();
    let done = stage.done(&["run", file.to_str().expect("a UTF-8 path")]);
    assert_eq!(done.status, 2, "{done:?}");
    let holder = format!("is running already (process {}): see `shoal status`", shoal.pid());
    assert!(done.err.contains(&holder), "{}", done.err);
    assert!(done.err.contains("end it first, or give this one another name"), "{}", done.err);
    let after = shoal.until_ready();
    let pids = |report: &PsReport| report.agents.iter().map(|a| a.pid).collect::<Vec<_>>();
    assert_eq!(pids(&before), pids(&after));
    assert_eq!(traces::shared_names(stage.name()).len(), 1, "the first one's beacon");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn agent_started_by_hand_says_who_starts_agents() {
    let stage = stage!("hand");
    let mut by_hand = Command::new(env!("CARGO_BIN_EXE_misbehaving"));
    by_hand.arg("idle").env_remove("SHOAL_SWARM");
    let done = stage.finish(by_hand);
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.err.contains("shoal run"), "{}", done.err);
    // A descriptor number in the environment that is no control socket.
    let mut mistaken = Command::new(env!("CARGO_BIN_EXE_misbehaving"));
    mistaken.arg("idle").env(shoal_runtime::wire::CONTROL_ENV, "0").stdin(std::process::Stdio::null());
    let done = stage.finish(mistaken);
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.err.contains("shoal run"), "{}", done.err);
}
