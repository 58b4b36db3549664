//! The guide's table of exit statuses is true: each of its cells is brought about here, or by the test that is named; and what its last
//! column says of `--json` is so for each command of the row.

use shoal_tests::tapped::{text, write};
use shoal_tests::{Stage, stage};
use std::cell::RefCell;
use std::collections::BTreeSet;

const GUIDE: &str = include_str!("../../../docs/operations.md");

/// A row of the table: its commands, the statuses of which it says something, and what `--json` prints.
struct Row {
    commands: Vec<&'static str>,
    statuses: Vec<i32>,
    json: &'static str,
}

impl Row {
    /// The names in the object that is printed last, where the row is a list of names.
    fn names(&self) -> Vec<&'static str> {
        let last = self.json.rsplit("; at last ").next().unwrap_or_default();
        let names: Vec<_> = last.split(", ").collect();
        if names.iter().any(|name| name.contains(' ')) { Vec::new() } else { names }
    }
}

fn table() -> Vec<Row> {
    let rows = GUIDE.split("| command | 0 | 1 | 2 | 3 |").nth(1).expect("the table").lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let commands = match cells[1] {
            "`up` with -d" => vec!["up -d"],
            names => names.split('`').skip(1).step_by(2).collect(),
        };
        let statuses = (0..4).filter(|status| !cells[2 + *status as usize].is_empty()).collect();
        Row { commands, statuses, json: cells[6] }
    });
    rows.collect()
}

/// What was seen: a row of the table, by its first command, and a status.
struct Seen {
    table: Vec<Row>,
    all: RefCell<BTreeSet<(&'static str, i32)>>,
    /// Commands that did what they were asked for and printed objects.
    printed: RefCell<BTreeSet<&'static str>>,
}

impl Seen {
    /// Runs a command, whose first word names its row, and checks its status, and with `--json`, if its row has it, what it prints.
    fn ends(&self, stage: &Stage, args: &[&str], status: i32) {
        let command = if args[..2.min(args.len())] == ["up", "-d"] { "up -d" } else { args[0] };
        let row = self.row(command);
        let mut args = args.to_vec();
        if !row.json.is_empty() {
            // What follows this is another command's.
            let at = args.iter().position(|word| *word == "--command").unwrap_or(args.len());
            let json: &[&str] = if command == "bench" { &["--json", "-"] } else { &["--json"] };
            args.splice(at..at, json.iter().copied());
        }
        let done = stage.done(&args);
        assert_eq!(done.status, status, "{args:?}: {}{}", done.out, done.err);
        if !row.json.is_empty() {
            let is_usage = done.err.contains("try '--help'");
            assert_eq!(self.prints_objects(row, &args, &done.out), !is_usage, "{args:?}: {}", done.out);
        }
        if !row.json.is_empty() && status == 0 {
            self.printed.borrow_mut().extend(row.commands.iter().filter(|name| **name == command));
        }
        self.note(command, status);
    }

    /// Whether it printed anything; each line is an object then, and, of what was done, the last has the names that the row says.
    fn prints_objects(&self, row: &Row, args: &[&str], out: &str) -> bool {
        let object = |line: &str| match serde_json::from_str(line) {
            Ok(serde_json::Value::Object(object)) => object,
            other => panic!("{args:?} prints no object: {other:?}: {line}"),
        };
        let objects: Vec<_> = out.lines().map(object).collect();
        assert!(row.json.contains("a line") || objects.len() <= 1, "{args:?} prints several: {out}");
        let failed = |last: &serde_json::Map<_, _>| last.contains_key("error");
        if let Some(last) = objects.last().filter(|last| !failed(last)) {
            row.names()
                .iter()
                .for_each(|name| assert!(last.contains_key(*name), "{args:?}: no {name} in {out}"));
        }
        !objects.is_empty()
    }

    fn row(&self, command: &str) -> &Row {
        self.table.iter().find(|row| row.commands.contains(&command)).expect("a row")
    }

    /// Whether it is news.
    fn note(&self, command: &str, status: i32) -> bool {
        self.all.borrow_mut().insert((self.row(command).commands[0], status))
    }
}

/// Cells that the tests of these names bring about.
const ELSEWHERE: [(&str, i32, &str, &str); 8] = [
    ("down", 1, "up_down", "down_kills_what_does_not_end_in_time_and_counts_what_was_not_read"),
    ("doctor", 0, "doctor", "what_these_tests_use_is_found_to_work_and_its_exit_status_is_the_worst_finding"),
    ("doctor", 1, "doctor", "what_these_tests_use_is_found_to_work_and_its_exit_status_is_the_worst_finding"),
    ("chaos", 0, "chaos", "chaos_on_a_sound_build_counts_nothing_wrong_and_says_what_it_did"),
    ("chaos", 1, "chaos", "chaos_that_is_interrupted_ends_in_order_with_what_was_counted_and_fails"),
    ("bench", 0, "../bench", "the_readmes_commands_measure_every_case_and_compare_with_the_run_before"),
    ("certify", 0, "certify", "report_says_metric_target_own_bar_measured_method_and_verdict_in_both_files"),
    ("certify", 1, "certify", "swarm_without_agents_is_not_certified"),
];

/// Commands whose `--json` the tests of these names read.
const JSON_ELSEWHERE: [(&str, &str, &str); 4] = [
    ("doctor", "doctor", "what_these_tests_use_is_found_to_work_and_its_exit_status_is_the_worst_finding"),
    ("chaos", "chaos", "chaos_on_a_sound_build_counts_nothing_wrong_and_says_what_it_did"),
    ("bench", "../bench", "json_of_one_case_is_all_that_is_printed"),
    ("certify", "certify", "report_says_metric_target_own_bar_measured_method_and_verdict_in_both_files"),
];

/// Sees that there is such a test.
fn is_tested(file: &str, test: &str) {
    let path = format!("{}/tests/swarms/{file}.rs", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(&path).expect("the tests");
    assert!(source.contains(&format!("\nfn {test}(")), "{path} has no {test}");
}

/// Goal and method: as the head of this file says. Nothing runs; then a swarm that is well; then one of which an agent is given up.
#[test]
fn every_row_of_the_guides_table_of_exit_statuses_is_so() {
    let stage = stage!("statuses");
    let seen = Seen { table: table(), all: RefCell::default(), printed: RefCell::default() };
    let of = |args: &[&str], status: i32| seen.ends(&stage, args, status);
    without_a_swarm(&stage, &of);
    with_one(&stage, &of);
    for (command, status, file, test) in ELSEWHERE {
        is_tested(file, test);
        assert!(seen.note(command, status), "{command} {status} is brought about here");
    }
    let said = seen.table.iter().flat_map(|row| row.statuses.iter().map(|status| (row.commands[0], *status)));
    assert_eq!(seen.all.take(), said.collect());
    for (command, file, test) in JSON_ELSEWHERE {
        is_tested(file, test);
        assert!(seen.printed.borrow_mut().insert(command), "{command} prints objects here");
    }
    let rows = seen.table.iter().filter(|row| !row.json.is_empty());
    assert_eq!(seen.printed.take(), rows.flat_map(|row| row.commands.iter().copied()).collect());
    stage.assert_nothing_left();
}

fn without_a_swarm(stage: &Stage, of: &dyn Fn(&[&str], i32)) {
    let file = |name: &str, kind: &str| {
        let text = format!(
            "[swarm]\nname = \"NAME\"\n[channel.tasks]\nmessage = \"Task\"\ncapacity = \"4 KiB\"\n[agent.a]\n\
             command = [\"BIN/misbehaving\", \"{kind}\"]\npublishes = [\"tasks\"]\n\
             restart = {{ policy = \"transient\", intensity = 0 }}\n\
             [agent.b]\ncommand = [\"BIN/misbehaving\", \"subscribes\"]\nsubscribes = [\"tasks\"]\n\
             restart = {{ policy = \"transient\" }}\n"
        );
        stage.write(name, &text).display().to_string()
    };
    let (good, bad) = (file("good.toml", "publishes-nothing"), file("bad.toml", "exits"));
    let given_up = file("given-up.toml", "sends-large");
    for (args, status) in [
        (&["run", &good][..], 0),
        (&["up", &good], 0),
        (&["run", &given_up], 1),
        (&["run", &bad], 2),
        (&["up", "-d", "--log", "up.log", &bad], 2),
        (&["down"], 3),
        (&["status"], 3),
        (&["wait"], 3),
        (&["check", &good], 0),
        (&["check", "absent.toml"], 2),
        (&["ps"], 1),
        (&["stop", "a"], 1),
        (&["reload"], 1),
        (&["scale", "a", "2"], 1),
        (&["crashes"], 1),
        (&["dlq", "list"], 1),
        (&["doctor", "absent.toml"], 2),
        (&["completions", "bash"], 0),
        (&["completions", "csh"], 2),
        (&["unit", "absent.toml"], 2),
        (&["bench", "nothing"], 2),
        (&["certify", "--only", "nothing"], 2),
        (&["chaos", "--for", "soon"], 2),
        (&["demo", "absent"], 2),
    ] {
        of(args, status);
    }
    let tree = stage.path("tree");
    std::fs::create_dir(&tree).expect("a tree");
    std::fs::write(tree.join("one"), "one two\n").expect("a file");
    let tree = tree.to_str().expect("a UTF-8 path");
    of(&["demo", tree, "--kill-every", "0"], 0);
    for args in [
        &["--help"][..],
        &["check", &good],
        &["completions", "bash"],
        &["demo", tree, "--kill-every", "0"],
        &["chaos", "--for", "1ms", "--json"],
    ] {
        let mut unwritten = stage.shoal(args);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let ended = unwritten.stdout(full).stderr(std::process::Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("writing to standard output: "), "{args:?}: {said}");
    }
    of(&["demo", tree, "--kill-every", "1h"], 1);
}

fn with_one(stage: &Stage, of: &dyn Fn(&[&str], i32)) {
    let mortal = "restart = { policy = \"transient\", intensity = 0 }";
    let other = format!("[agent.other]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n{mortal}");
    let swarm = write(stage, &text("16 KiB", "replicas = 2", 0, &other));
    of(&["up", "-d", "--log", "up.log", swarm.to_str().expect("a UTF-8 path")], 0);
    for (args, status) in [
        (&["status"][..], 0),
        (&["status", "absent"], 2),
        (&["wait"], 0),
        (&["wait", "absent"], 2),
        (&["wait", "--ended", "--timeout", "1ms", "sink"], 1),
        (&["ps"], 0),
        (&["ps", "--swarm", "absent"], 2),
        (&["logs", "other"], 0),
        (&["logs", "absent"], 2),
        (&["stop", "sink"], 0),
        (&["kill", "sink"], 1),
        (&["restart", "relay"], 0),
        (&["pause", "relay"], 0),
        (&["resume", "relay"], 0),
        (&["kill", "--signal", "NONE", "sink"], 2),
        (&["pause", "absent"], 2),
        (&["start", "sink"], 0),
        (&["reload"], 0),
        (&["reload", "absent.toml"], 2),
        (&["scale", "relay", "3"], 0),
        (&["scale", "absent", "3"], 2),
        (&["scale", "relay", "100000"], 2),
        (&["scale", "relay.1", "3"], 2),
        (&["upgrade", "relay", "--prove", "1ms"], 0),
        (&["upgrade", "relay", "--command", "/bin/false"], 1),
        (&["upgrade", "relay.1"], 2),
        (&["upgrade", "relay", "--command", "/no/such/program"], 2),
        (&["crashes"], 0),
        (&["crashes", "show", "99"], 2),
        (&["events"], 0),
        (&["events", "absent"], 2),
        (&["dlq", "list"], 0),
        (&["dlq", "show", "99"], 2),
        (&["kill", "--signal", "ABRT", "other"], 0),
        (&["wait", "--ended", "other"], 0),
        (&["status"], 1),
        (&["down"], 0),
    ] {
        of(args, status);
    }
}
