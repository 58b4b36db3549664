use super::*;

const EXAMPLE: &str = r#"[swarm]
name = "wordcount"
[channel.tasks]
message = "Task"                          # a name; checked with the fingerprint at attach
capacity = "1 MiB"                        # per lane; the largest frame is half of it
when_full = "block"                       # block | reject | drop-oldest
[channel.counts]
message = "Count"
capacity = "256 KiB"
[agent.lister]
command = ["./lister", "/usr/include"]    # relative to this file
publishes = ["tasks"]
restart = "transient"
[agent.worker]
command = ["./worker"]
replicas = 4                              # each task goes to one of them
subscribes = ["tasks"]
publishes = ["counts"]
restart = { policy = "permanent", intensity = 10, period = "1s", backoff = "5ms..1s" }
stop_timeout = "2s"
[agent.collector]
command = ["./collector"]
subscribes = ["counts"]
"#;

fn good(text: &str) -> SwarmFile {
    parse(Path::new("dir/swarm.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

fn bad(text: &str) -> ConfigError {
    parse(Path::new("dir/swarm.toml"), text).expect_err("the file is refused")
}

/// The example with one line replaced (or several, by what `with` holds).
fn example_with(line: &str, with: &str) -> String {
    assert_eq!(EXAMPLE.matches(line).count(), 1, "{line:?}");
    EXAMPLE.replace(line, with)
}

/// Checks that exactly one problem is told, with its place, key and parts of its text.
fn told(text: &str, line: usize, key: &str, parts: &[&str]) {
    let error = bad(text);
    assert_eq!(error.problems.len(), 1, "{error}");
    let problem = &error.problems[0];
    assert_eq!((problem.line, problem.key.as_str()), (line, key), "{error}");
    shows(&error, problem, text, parts);
}

/// Checks that the report points at file, line and column, quotes the line, and says what to do.
fn shows(error: &ConfigError, problem: &Problem, text: &str, parts: &[&str]) {
    let report = error.to_string();
    let place = format!("dir/swarm.toml:{}:{}", problem.line, problem.column);
    assert!(report.contains(&place), "no {place} in\n{report}");
    let quoted = text.lines().nth(problem.line - 1).unwrap_or_default().trim_end();
    assert!(report.contains(quoted) && report.contains('^'), "no excerpt of {quoted:?} in\n{report}");
    assert!(!problem.help.is_empty() && report.contains("help: "), "{report}");
    for part in parts {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
}

#[test]
fn the_example_of_the_issue_is_read_whole() {
    let swarm = good(EXAMPLE);
    assert_eq!((swarm.name.as_str(), swarm.history, swarm.logs), ("wordcount", 4, None));
    let channel = |name: &str, message: &str, capacity_bytes, line| Channel {
        name: name.into(),
        message: message.into(),
        capacity_bytes,
        when_full: WhenFull::Block,
        line,
    };
    assert_eq!(
        *swarm.channels,
        [channel("tasks", "Task", 1 << 20, 3), channel("counts", "Count", 1 << 18, 7)]
    );
    let names: Vec<_> = swarm.agents.iter().map(|a| (a.name.as_str(), a.replicas, a.line)).collect();
    assert_eq!(names, [("lister", 1, 10), ("worker", 4, 14), ("collector", 1, 21)]);
    let worker = &swarm.agents[1];
    assert_eq!(worker.subscribes, [Reference { channel: 0, line: 17 }]);
    assert_eq!(worker.publishes, [Reference { channel: 1, line: 18 }]);
    assert_eq!(*worker.restart, Restart::default());
    assert_eq!(worker.stop_timeout, Duration::from_secs(2));
    assert_eq!(worker.ready_timeout, Duration::from_secs(10));
    assert_eq!(swarm.agents[0].restart.policy, Policy::Transient);
    assert_eq!(swarm.agents[0].command, ["./lister", "/usr/include"]);
}

#[test]
fn every_other_key_is_read() {
    let swarm = good(
        r#"
[swarm]
name = "s"
logs = "log"
history = 2
[channel.c]
message = "shop::Order"
capacity = 10_000_000
when_full = "drop-oldest"
[agent.a]
command = ["x"]
publishes = ["c"]
subscribes = ["c"]
ready_timeout = "250ms"
stop_timeout = "0s"
standby = 2
prefork = true
env = { RUST_LOG = "debug", EMPTY = "" }
[agent.a.restart]
policy = "temporary"
intensity = 0
period = "2m"
backoff = "7ms"
[agent.alone]
command = ["y"]
"#,
    );
    assert_eq!((swarm.logs, swarm.history), (Some("dir/log".into()), 2));
    let channel = &swarm.channels[0];
    assert_eq!((channel.capacity_bytes, channel.when_full), (1 << 24, WhenFull::DropOldest));
    let agent = &swarm.agents[0];
    assert_eq!((agent.ready_timeout, agent.stop_timeout), (Duration::from_millis(250), Duration::ZERO));
    assert_eq!(agent.env, BTreeMap::from([("RUST_LOG".into(), "debug".into()), ("EMPTY".into(), "".into())]));
    assert_eq!((agent.standby, swarm.agents[1].standby), (2, 0));
    assert_eq!((agent.prefork, swarm.agents[1].prefork), (true, false));
    let seven = Duration::from_millis(7);
    let restart = Restart {
        policy: Policy::Temporary,
        intensity: 0,
        period: Duration::from_secs(120),
        backoff_min: seven,
        backoff_max: seven,
        ..Restart::default()
    };
    assert_eq!(*agent.restart, restart);
    assert!(swarm.agents[1].subscribes.is_empty() && swarm.agents[1].publishes.is_empty());
}

#[test]
fn a_file_that_is_not_toml_is_pointed_at() {
    let text = example_with("replicas = 4 ", "replicas = = 4 ");
    let error = bad(&text);
    assert_eq!(error.problems[0].line, 16, "{error}");
    shows(&error, &error.problems[0], &text, &["not TOML"]);
    let error = bad(&example_with("[agent.collector]", "[agent.worker]"));
    assert_eq!(error.problems[0].line, 21, "{error}");
    assert!(error.to_string().contains("duplicate"), "{error}");
    let twice = "[agent.a]\ncommand = [\"/bin/true\"]\nreplicas = 2\n";
    let error =
        bad(&example_with("[swarm]", &format!("{twice}{twice}[swarm]\nname = \"x\"\nname = \"y\"\n")));
    let lines: Vec<usize> = error.problems.iter().map(|problem| problem.line).collect();
    let first = lines[0];
    assert!(
        lines.starts_with(&[first, first + 5]),
        "of a table that is there twice only that is told: {error}"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    told(
        &example_with("replicas = 4 ", "replica = 4 "),
        16,
        "agent.worker.replica",
        &["unknown key", "`replicas`?"],
    );
    told(
        &example_with("when_full =", "whenfull ="),
        6,
        "channel.tasks.whenfull",
        &["did you mean `when_full`?"],
    );
    told(&example_with("intensity", "intensitiy"), 19, "agent.worker.restart.intensitiy", &["`intensity`?"]);
    told(&example_with("name =", "name = \"x\"\nlog ="), 3, "swarm.log", &["did you mean `logs`?"]);
    let text = example_with("capacity = \"256 KiB\"", "colour = 3");
    told(&text, 9, "channel.counts.colour", &["known here: `message`, `capacity`, `when_full`"]);
    let error = bad("[swarm]\nname = \"a\"\n[agents.x]\ncommand = [\"x\"]\n");
    assert_eq!(error.problems.len(), 1, "{error}");
    assert!(error.to_string().contains("did you mean `agent`?"), "{error}");
}

#[test]
fn an_unknown_channel_names_the_nearest_and_blames_nothing_else() {
    let text = example_with("publishes = [\"tasks\"]", "publishes = [\"taks\"]");
    told(
        &text,
        12,
        "agent.lister.publishes",
        &["unknown channel \"taks\"", "did you mean `tasks`?", "[channel.taks]"],
    );
}

#[test]
fn a_channel_without_producer_or_consumer_is_told() {
    let text = example_with("publishes = [\"tasks\"]\n", "");
    told(&text, 3, "channel.tasks", &["no agent publishes", "add publishes = [\"tasks\"]"]);
    let text = example_with("subscribes = [\"counts\"]\n", "");
    told(&text, 7, "channel.counts", &["no agent subscribes", "add subscribes = [\"counts\"]"]);
    let text = example_with("[agent.lister]", "[channel.idle]\nmessage = \"X\"\n[agent.lister]");
    told(&text, 10, "channel.idle", &["no agent uses", "remove the channel"]);
}

#[test]
fn a_channel_named_twice_is_told() {
    let text = example_with("subscribes = [\"counts\"]", "subscribes = [\"counts\", \"counts\"]");
    told(&text, 23, "agent.collector.subscribes", &["named twice", "name it once"]);
}

#[test]
fn zero_and_absurd_sizes_are_told() {
    let capacity = |value: &str| example_with("capacity = \"256 KiB\"", &format!("capacity = {value}"));
    let key = "channel.counts.capacity";
    for small in ["0", "-1", "4095", "\"0 KiB\""] {
        told(&capacity(small), 9, key, &["too small", "4 KiB to 512 MiB"]);
    }
    for large in ["536870913", "\"1 GiB\"", "\"600 MB\"", "0x7fff_ffff_ffff_ffff"] {
        told(&capacity(large), 9, key, &["too large", "4 KiB to 512 MiB"]);
    }
    for odd in [
        "\"\"",
        "\"64 kib\"",
        "\"-1 MiB\"",
        "\"99999999999999999999\"",
        "99999999999999999999999999999999999999999",
    ] {
        let error = bad(&capacity(odd));
        shows(&error, &error.problems[0], &capacity(odd), &["not a size", "64 KiB"]);
    }
    told(&capacity("1.5"), 9, key, &["expected a size, found a float"]);
    assert_eq!(good(&capacity("4096")).channels[1].capacity_bytes, CAPACITY_BYTES_MIN);
    assert_eq!(good(&capacity("\"512 MiB\"")).channels[1].capacity_bytes, CAPACITY_BYTES_MAX);
}

#[test]
fn replicas_outside_their_range_are_told() {
    for odd in ["0", "1001", "-1", "\"4\"", "4.0", "true"] {
        let text = example_with("replicas = 4 ", &format!("replicas = {odd} "));
        told(&text, 16, "agent.worker.replicas", &["write a whole number, 1 to 1000"]);
    }
}

#[test]
fn too_many_tables_or_processes_are_told() {
    let agents = |count: usize, replicas: u32| {
        let agent = |i| format!("[agent.a{i}]\ncommand = [\"x\"]\nreplicas = {replicas}\n");
        format!("[swarm]\nname = \"s\"\n{}", (0..count).map(agent).collect::<String>())
    };
    assert_eq!(good(&agents(1000, 10)).agents.len(), 1000);
    told(&agents(1001, 1), 3003, "agent.a1000", &["more than 1000 tables", "use replicas"]);
    told(&agents(11, 1000), 33, "agent.a10", &["more than 10000 processes", "lower `replicas`"]);
}

#[test]
fn bad_durations_are_told() {
    for odd in ["\"2\"", "2", "\"2 days\"", "\"25h\"", "\"-2s\""] {
        let text = example_with("stop_timeout = \"2s\"", &format!("stop_timeout = {odd}"));
        told(&text, 20, "agent.worker.stop_timeout", &["for example"]);
    }
    let text = example_with("stop_timeout = \"2s\"", "ready_timeout = \"0s\"");
    told(&text, 20, "agent.worker.ready_timeout", &["out of range", "choose 1ms to 24h"]);
    let text = example_with("period = \"1s\"", "period = \"0s\"");
    told(&text, 19, "agent.worker.restart.period", &["out of range"]);
}

#[test]
fn bad_restart_words_and_pauses_are_told() {
    let text = example_with("restart = \"transient\"", "restart = \"transent\"");
    told(&text, 13, "agent.lister.restart", &["did you mean `transient`?", "`permanent`"]);
    told(
        &example_with("restart = \"transient\"", "restart = 5"),
        13,
        "agent.lister.restart",
        &["found an integer"],
    );
    for odd in ["\"1s..5ms\"", "\"0ms..1s\"", "\"5ms...1s\"", "\"fast\"", "\"1s..25h\""] {
        let text = example_with("\"5ms..1s\"", odd);
        told(&text, 19, "agent.worker.restart.backoff", &["for example \"5ms..1s\""]);
    }
    let text = example_with("when_full = \"block\"", "when_full = \"drop\"");
    told(&text, 6, "channel.tasks.when_full", &["`drop-oldest`"]);
}

#[test]
fn a_bad_command_is_told() {
    let command = |value: &str| example_with("command = [\"./collector\"]", value);
    let key = "agent.collector.command";
    told(&command(""), 21, key, &["missing", "for example command = ["]);
    told(&command("command = []"), 22, key, &["the command is empty"]);
    told(&command("command = [\"\"]"), 22, key, &["name is empty"]);
    told(&command("command = \"./collector\""), 22, key, &["expected a list of strings, found a string"]);
    told(&command("command = [\"x\", 5]"), 22, key, &["expected a string, found an integer"]);
    told(&command("command = [\"x\", \"\\u0000\"]"), 22, key, &["contains a NUL"]);
}

#[test]
fn levels_formats_and_bounds_of_records_are_read_and_mistakes_told() {
    let with = |line: &str| EXAMPLE.replacen("[swarm]\n", &format!("[swarm]\n{line}\n"), 1);
    let keys = "crashes = { count = 7, bytes = \"1 MiB\" }\nlog_level = \"debug\"\nlog_format = \"json\"";
    let records = good(&with(keys)).records;
    assert_eq!((records.crashes.count, records.crashes.bytes), (7, 1 << 20));
    assert_eq!((records.log_level.word(), records.log_format.word()), ("debug", "json"));
    for (line, key, help) in [
        ("crashes = { bytes = 1 }", "swarm.crashes.bytes", "choose 64 KiB to 1024 GiB"),
        ("crashes = { counts = 1 }", "swarm.crashes.counts", "did you mean `count`"),
        ("log_level = \"dbug\"", "swarm.log_level", "did you mean `debug`"),
        ("log_format = \"yaml\"", "swarm.log_format", "`text`, `json`"),
    ] {
        let text = parse(Path::new("swarm.toml"), &with(line)).expect_err(line).to_string();
        assert!(text.contains(key) && text.contains(help), "{text}");
    }
}

#[test]
fn bad_bounds_of_attempts_and_dead_letters_are_told() {
    let text = example_with("stop_timeout = \"2s\"", "max_attemps = 5");
    told(&text, 20, "agent.worker.max_attemps", &["unknown key", "did you mean `max_attempts`?"]);
    for odd in ["101", "-1", "\"three\""] {
        let text = example_with("stop_timeout = \"2s\"", &format!("max_attempts = {odd}"));
        told(&text, 20, "agent.worker.max_attempts", &["write a whole number, 0 to 100"]);
    }
    let text = example_with("stop_timeout = \"2s\"", "on_gone = \"dead-leter\"");
    told(&text, 20, "agent.worker.on_gone", &["did you mean `dead-letter`?", "`drop`", "`block`"]);
    let text = example_with("[agent.collector]", "[agent.dead-letters]");
    told(&text, 21, "agent.dead-letters", &["this name is taken", "choose another name"]);
    let text = example_with("[agent.collector]", "[agent.all]");
    told(&text, 21, "agent.all", &["this name is taken", "mean every agent"]);
    let line = EXAMPLE.lines().position(|line| line.starts_with("name =")).expect("a name") + 1;
    for (odd, key, says) in [
        ("{ count = 0 }", "swarm.dead_letters.count", "1 to 100000"),
        ("{ bytes = \"1 KiB\" }", "swarm.dead_letters.bytes", "choose 64 KiB to 1024 GiB"),
        ("{ bytes = \"much\" }", "swarm.dead_letters.bytes", "this is not a size"),
        ("{ max = 5 }", "swarm.dead_letters.max", "known here: `count`, `bytes`"),
        ("1000", "swarm.dead_letters", "expected a table"),
    ] {
        let text = EXAMPLE.replacen("[swarm]\n", &format!("[swarm]\ndead_letters = {odd}\n"), 1);
        told(&text, line, key, &[says]);
    }
}

#[test]
fn who_starts_after_whom_is_read_and_what_cannot_be_is_told() {
    let with = |lister: &str, worker: &str| {
        let text = example_with("restart = \"transient\"", &format!("restart = \"transient\"\n{lister}"));
        text.replace("replicas = 4 ", &format!("{worker}\nreplicas = 4 "))
    };
    let file =
        good(&with("after = [\"collector\", \"worker\"]\nsignificant = true", "after = [\"collector\"]"));
    let after = file.agents.iter().map(|agent| agent.after.clone()).collect::<Vec<_>>();
    assert_eq!(after, [vec![2, 1], vec![2], vec![]]);
    assert_eq!(file.agents.iter().map(|agent| agent.significant).collect::<Vec<_>>(), [true, false, false]);
    let (lister, worker) = ("agent.lister.after", "agent.worker.after");
    told(
        &with("after = [\"wroker\"]", ""),
        14,
        lister,
        &["unknown agent \"wroker\"", "did you mean `worker`?"],
    );
    told(&with("after = [\"worker\", \"worker\"]", ""), 14, lister, &["named twice"]);
    told(&with("after = \"worker\"", ""), 14, lister, &["a list of agents"]);
    told(&with("", "after = [\"worker\"]"), 17, worker, &["`worker` after `worker`"]);
    // Told once, at the first of its agents.
    let circle = with("after = [\"worker\"]", "after = [\"lister\"]");
    told(&circle, 14, lister, &["`lister` after `worker` after `lister`"]);
}

#[test]
fn a_significant_agent_that_never_ends_normally_is_told() {
    let with = |keys: &str| example_with("stop_timeout = \"2s\"", keys);
    told(&with("significant = true"), 20, "agent.worker.significant", &["never ends normally", "transient"]);
    told(&with("significant = \"yes\""), 20, "agent.worker.significant", &["true or false"]);
    assert!(!good(&with("significant = false")).agents[1].significant);
}

#[test]
fn bad_names_are_told() {
    let long = "x".repeat(65);
    told(&example_with("[agent.collector]", "[agent.\"a b\"]"), 21, "agent.a b", &["contains ' '", "A-Z"]);
    told(&example_with("[agent.collector]", "[agent.\"a.b\"]"), 21, "agent.a.b", &["contains '.'"]);
    told(
        &example_with("[agent.collector]", &format!("[agent.{long}]")),
        21,
        &format!("agent.{long}"),
        &["65"],
    );
    told(&example_with("name = \"wordcount\"", "name = \"\""), 2, "swarm.name", &["the name is empty"]);
    told(&example_with("name = \"wordcount\"", "name = 3"), 2, "swarm.name", &["found an integer"]);
    told(&example_with("name = \"wordcount\"", ""), 1, "swarm.name", &["missing", "add name ="]);
    told(&example_with("message = \"Count\"", "message = \"a b\""), 8, "channel.counts.message", &["type"]);
    told(&example_with("message = \"Count\"", ""), 7, "channel.counts.message", &["missing"]);
}

#[test]
fn a_swarm_without_agents_is_told() {
    told("[swarm]\nname = \"a\"\n[agent]\n", 3, "agent", &["no agents", "[agent.NAME]"]);
    let error = bad("");
    let keys: Vec<_> = error.problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["swarm.name", "agent"], "{error}");
    assert!(error.to_string().contains("dir/swarm.toml:1:1"), "{error}");
}

#[test]
fn a_bad_environment_is_told() {
    let env = |value: &str| example_with("stop_timeout = \"2s\"", &format!("env = {value}"));
    told(&env("{ A = 3 }"), 20, "agent.worker.env.A", &["expected a string"]);
    told(&env("{ \"A=B\" = \"\" }"), 20, "agent.worker.env.A=B", &["cannot name"]);
    told(&env("\"A=B\""), 20, "agent.worker.env", &["expected a table"]);
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = EXAMPLE
        .replace("replicas = 4 ", "replicas = 0 ")
        .replace("1 MiB", "1 B")
        .replace("\"block\"", "\"blok\"");
    let error = bad(&text);
    let lines: Vec<usize> = error.problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [5, 6, 16], "{error}");
    for problem in &error.problems {
        shows(&error, problem, &text, &[&problem.what]);
    }
}

#[test]
fn a_report_looks_like_this() {
    let text = example_with("replicas = 4 ", "replica = 4 ");
    let report = bad(&text).to_string();
    let want = "error: `agent.worker.replica`: unknown key
  --> dir/swarm.toml:16:1
   |
16 | replica = 4                              # each task goes to one of them
   | ^^^^^^^
   |
   = help: did you mean `replicas`? known here: `command`, `replicas`, `replicas_max`, `group`, `prefetch`, `subscribes`, `publishes`, `restart`, `stop_timeout`, `ready_timeout`, `deadline`, `max_attempts`, and 17 more";
    assert_eq!(report, want, "\n{report}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}", cut in 0usize..600, odd in "[\\[\\]=\"'.\\n\\x00{}é0a]{0,6}") {
        let _ = parse(Path::new("x"), &text).map_err(|error| error.to_string());
        let cut = (0..=cut).rev().find(|at| EXAMPLE.is_char_boundary(*at)).unwrap_or(0);
        let torn = format!("{}{odd}{}", &EXAMPLE[..cut], &EXAMPLE[cut..]);
        let _ = parse(Path::new("x"), &torn).map_err(|error| error.to_string());
    }
}

// With files: `read`.

/// A folder with a swarm file of one agent, and some files beside it.
fn folder(command: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode set");
    };
    write("agent", "#!/bin/sh\n", 0o755);
    write("plain", "text\n", 0o644);
    // A program and a folder whose names are also found in PATH.
    write("sh", "#!/bin/sh\n", 0o755);
    std::fs::create_dir(folder.path().join("env")).expect("created");
    std::fs::create_dir(folder.path().join("sub")).expect("created");
    write(
        "swarm.toml",
        &format!("[swarm]\nname = \"s\"\n[agent.a]\ncommand = [\"{command}\", \"arg\"]\n"),
        0o644,
    );
    folder
}

/// What `read` makes of a command.
fn read_command(command: &str) -> Result<(String, PathBuf), ConfigError> {
    let folder = folder(command);
    let real = folder.path().to_owned();
    read(&folder.path().join("swarm.toml")).map(|swarm| (swarm.agents[0].command[0].clone(), real))
}

#[test]
fn a_command_is_found_beside_the_file_and_then_in_path() {
    for written in ["./agent", "agent", "./sub/../agent", "sh"] {
        let (command, folder) = read_command(written).unwrap_or_else(|error| panic!("{error}"));
        let want = folder.join(written.strip_prefix("./").unwrap_or(written));
        assert_eq!(PathBuf::from(command), want);
    }
    let (command, _) = read_command("env").unwrap_or_else(|error| panic!("{error}"));
    assert!(command.ends_with("bin/env"), "{command}");
    assert_eq!(read_command("/bin/sh").map(|(command, _)| command).ok(), Some("/bin/sh".into()));
}

#[test]
fn a_command_that_cannot_be_executed_is_told_with_its_place() {
    for (written, what, help) in [
        ("./absent", "command not found", "build the program, or correct the path"),
        ("surely-absent", "and no `surely-absent` in PATH", "build the program"),
        ("./plain", "command is not executable", "chmod +x"),
        ("plain", "command is not executable", "chmod +x"),
        ("./sub", "command is a folder", "name a program inside it"),
        ("/dev/null", "command is not a file", "name a program"),
        ("./plain/x", "command not accessible", "correct the path"),
    ] {
        let error = read_command(written).expect_err("refused");
        let problem = &error.problems[0];
        assert_eq!(
            (problem.line, problem.column, problem.key.as_str()),
            (4, 12, "agent.a.command"),
            "{error}"
        );
        let report = error.to_string();
        assert!(
            report.contains("swarm.toml:4:12") && report.contains(what) && report.contains(help),
            "{report}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let folder = folder("agent");
    let report = |name: &str| read(&folder.path().join(name)).expect_err("refused").to_string();
    let missing = report("swarm.tml");
    assert!(missing.contains("swarm.tml") && missing.contains("no such swarm file"), "{missing}");
    assert!(missing.contains("help: check the path"), "{missing}");
    let directory = report("sub");
    assert!(
        directory.contains("not a regular file") && directory.contains("help: name a TOML file"),
        "{directory}"
    );
    std::fs::write(folder.path().join("latin"), b"[swarm]\nname = \"\xe9\"\n").expect("written");
    let latin = report("latin");
    assert!(latin.contains("line 2") && latin.contains("help: save it as UTF-8"), "{latin}");
    let large = std::fs::File::create(folder.path().join("large")).expect("made");
    large.set_len(FILE_BYTES_MAX + 1).expect("its length");
    assert!(report("large").contains("larger than"), "{}", report("large"));
    let device = read(Path::new("/dev/zero")).expect_err("refused").to_string();
    assert!(device.contains("not a regular file"), "{device}");
}

#[test]
fn read_tells_problems_of_commands_beside_all_others() {
    let folder = folder("./absent");
    let path = folder.path().join("swarm.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, format!("{text}replicas = 0\n")).expect("written");
    let error = read(&path).expect_err("refused");
    assert_eq!(error.problems.iter().map(|p| p.line).collect::<Vec<_>>(), [4, 5], "{error}");
}

/// A file of some agents and sets.
fn sets(text: &str) -> String {
    let agent = |name: &str| format!("[agent.{name}]\ncommand = [\"x\"]\n");
    format!("[swarm]\nname = \"s\"\n{}{text}", ["a", "b", "c"].map(agent).concat())
}

#[test]
fn sets_are_read_and_order_their_members() {
    let swarm = good(&sets(
        "[set.outer]\nmembers = [\"inner\", \"a\"]\nstrategy = \"one_for_all\"\non_give_up = \"fail\"\n\
         [set.inner]\nmembers = [\"c\", \"b\"]\nintensity = 7\nperiod = \"2m\"\nbackoff = \"3ms\"\njitter = \"5%\"\n",
    ));
    let [inner, outer] = [1, 0].map(|set: usize| &swarm.sets[set]);
    assert_eq!((outer.strategy, outer.restart.on_give_up), (Strategy::OneForAll, Some(OnGiveUp::Fail)));
    assert_eq!(outer.members, [Member::Set(1), Member::Agent(0)]);
    assert_eq!((inner.strategy, inner.restart.on_give_up), (Strategy::OneForOne, None));
    assert_eq!(inner.members, [Member::Agent(2), Member::Agent(1)]);
    let Restart { intensity, period, backoff_min, backoff_max, jitter_percent, .. } = inner.restart;
    let three = Duration::from_millis(3);
    assert_eq!((intensity, period, jitter_percent), (7, Duration::from_secs(120), 5));
    assert_eq!((backoff_min, backoff_max), (three, three));
    let mut after = swarm.agents[0].after.clone();
    after.sort_unstable();
    assert_eq!(after, [1, 2], "the outer set has an order");
    assert!(swarm.agents[1].after.is_empty() && swarm.agents[2].after.is_empty(), "the inner one has none");
}

#[test]
fn mistakes_in_sets_are_told() {
    for (text, words) in [
        ("[set.s]\n", vec!["set.s.members", "missing"]),
        ("[set.s]\nmembers = []\n", vec!["at least one member"]),
        ("[set.s]\nmembers = [\"aa\"]\n", vec!["unknown agent or set \"aa\"", "`a`"]),
        ("[set.s]\nmembers = [\"a\", \"a\"]\n", vec!["\"a\" is named twice"]),
        (
            "[set.s]\nmembers = [\"a\"]\n[set.t]\nmembers = [\"b\", \"a\"]\n",
            vec!["\"a\" is a member of set \"s\" already", "set.t.members"],
        ),
        ("[set.a]\nmembers = [\"b\"]\n", vec!["an agent is named \"a\""]),
        ("[set.s]\nmembers = [\"s\"]\n", vec!["a member of itself"]),
        ("[set.s]\nmembers = [\"t\"]\n[set.t]\nmembers = [\"s\"]\n", vec!["a member of itself"]),
        ("[set.s]\nmembers = [\"a\"]\nstrategy = \"all_for_one\"\n", vec!["all_for_one", "one_for_all"]),
        ("[set.s]\nmembers = [\"a\"]\non_give_up = \"escalat\"\n", vec!["escalat", "escalate"]),
        ("[set.s]\nmembers = [\"a\"]\nstrategie = \"one_for_all\"\n", vec!["unknown key", "strategy"]),
    ] {
        let text = sets(text);
        let error = bad(&text).to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    }
}

#[test]
fn a_set_whose_order_contradicts_after_is_refused_and_one_without_order_is_not() {
    let text = |strategy: &str| {
        sets(&format!("[set.s]\nmembers = [\"c\", \"b\", \"a\"]\nstrategy = \"{strategy}\"\n")).replacen(
            "[agent.c]\n",
            "[agent.c]\nafter = [\"a\"]\n",
            1,
        )
    };
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        let error = bad(&text(strategy.word())).to_string();
        assert!(error.contains("`c` stands before") || error.contains("`b` stands before"), "{error}");
        assert!(error.contains("set.s.members"), "{error}");
    }
    good(&text("one_for_one"));
}

#[test]
fn hooks_are_read_and_their_mistakes_told() {
    let text = |hooks: &str| sets(&format!("[hooks]\n{hooks}\n"));
    let swarm = good(&text("crash = [\"./page\", \"me\"]\ntimeout = \"3s\"\nat_once = 2"));
    assert_eq!(swarm.hooks.command(Occasion::Crash), Some(["./page".to_owned(), "me".to_owned()].as_slice()));
    assert_eq!(swarm.hooks.command(Occasion::Ready), None);
    assert_eq!((swarm.hooks.timeout, swarm.hooks.at_once), (Duration::from_secs(3), 2));
    for (hooks, words) in [
        ("crash = []", vec!["hooks.crash", "empty"]),
        ("crash = \"page me\"", vec!["hooks.crash", "a list of strings"]),
        ("crashed = [\"x\"]", vec!["unknown key", "`crash`"]),
        ("timeout = \"0ms\"", vec!["hooks.timeout", "out of range"]),
        ("at_once = 0", vec!["hooks.at_once", "out of range"]),
        ("ready = [\" \"]", vec!["hooks.ready", "name is empty"]),
    ] {
        let error = bad(&text(hooks)).to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    }
}
