//! The operator's guide does what it says: every command in its `sh` blocks is run, on real swarms, and what it prints is
//! looked at.
//!
//! Method: as `clone.rs` says; each block is a script of its own, and leaves no process.

use shoal_tests::clone::{Clone, blocks, root};
use std::fs;

const GUIDE: &str = include_str!("../../../docs/operations.md");

/// Each block by a text that only it holds, and what its output must hold.
const KNOWN: [(&str, &[&str]); BLOCKS] = [
    ("shoal completions bash", &["shoal.bash", "shoal-status.1"]),
    ("shoal check examples/ticks.toml", &["swarm `ticks`: 2 processes", "\"processes\":2"]),
    (
        "shoal up -d examples/ticks.toml\nshoal status\n",
        &["is up: 2 agents ready", "swarm `ticks`: healthy", "is down"],
    ),
    ("shoal up examples/wordcount.toml", &["words in"]),
    ("one line an agent", &["teller", "\"state\":\"ready\"", "STATE", "tick "]),
    ("shoal status teller", &["messages", "LAST CRASH", "status 3"]),
    ("shoal wait --timeout", &["ready", "the swarm `ticks` ended"]),
    ("shoal pause ticker", &["ticker paused", "paused", "ticker resumed"]),
    (
        "shoal kill --signal HUP",
        &["teller killed (1 of 1)", "sent signal 1 ", "teller restarted", "ticker stopped", "ticker started"],
    ),
    ("shoal crashes show 1", &["teller", "SIGKILL", "restarted", "\"kind\":\"died\""]),
    ("examples/spare.toml", &["\"standbys_wanted\":1", "teller killed (1 of 1)", "ticks` is down"]),
    ("examples/hooked.toml", &["teller sent signal 6", "SIGABRT", "ticks` is down"]),
    (
        "shoal reload --dry-run",
        &["planned, not applied", "restart teller", "\napplied\n", "\"outcome\":\"applied\"", "is down\n5\n"],
    ),
    ("shoal dlq list", &["no dead letters"]),
    ("shoal doctor examples/ticks.toml", &["kernel", "open descriptors", "\"verdict\":"]),
    ("shoal unit examples/ticks.toml", &["shoal-ticks.service"]),
];
const BLOCKS: usize = 16;

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let all = blocks(GUIDE, "sh");
    for block in &all {
        let known: Vec<_> = KNOWN.iter().filter(|(text, _)| block.contains(text)).collect();
        assert_eq!(known.len(), 1, "not tried, or not told apart:\n{block}");
    }
    assert_eq!(all.len(), KNOWN.len(), "a block of the guide is gone");
    // Each on its own, a few at once: most of their time they wait.
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(block) = all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    try_block(block);
                }
            });
        }
    });
}

fn try_block(block: &str) {
    let (_, expected) = KNOWN.iter().find(|(text, _)| block.contains(text)).expect("it is known");
    let clone = Clone::new(env!("CARGO_BIN_EXE_shoal-under-test"));
    words(&clone);
    let out = clone.run(&format!("export PATH=\"$PWD/target/release:$PATH\"\n{block}"));
    for text in *expected {
        assert!(out.contains(text), "{text:?} is not in what this printed:\n{block}\n{out}");
    }
}

/// A small tree for the swarm that counts words.
fn words(clone: &Clone) {
    let file = clone.path("examples/wordcount.toml");
    let text = fs::read_to_string(&file).expect("read").replace("/usr/include", "words");
    fs::write(&file, text).expect("written");
    fs::create_dir_all(clone.path("words")).expect("made");
    for n in 1..=20 {
        fs::write(clone.path(&format!("words/{n}")), "one two\n".repeat(n)).expect("written");
    }
}

/// The blocks of other documents that show commands, by a text that only one holds, and the tests that run the same.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("shoal dlq show 1", "dead_letters.rs", "the_commands_of_the_guide_do_what_it_says"),
    ("shoal dlq replay", "dead_letters.rs", "the_commands_of_the_guide_do_what_it_says"),
    (
        "$ shoal crashes show 1",
        "crashes.rs",
        "each_kind_of_death_is_reported_with_its_message_the_last_messages_its_output_and_what_follows",
    ),
    (
        "shoal reload [FILE]",
        "operations.rs",
        "forms_of_commands_that_change_a_swarm_name_options_that_there_are",
    ),
];

/// The contents of all fenced blocks that show a command of ours, whatever their language.
fn commands(document: &str) -> impl Iterator<Item = &str> {
    let fenced =
        document.split("\n```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1));
    let is_command = |line: &str| line.trim_start_matches("$ ").starts_with("shoal ");
    fenced.filter(move |block| block.lines().any(is_command))
}

#[test]
fn commands_of_other_documents_are_run_by_tests_that_are_named_here() {
    let mut named = 0;
    for entry in fs::read_dir(root().join("docs")).expect("listed") {
        let path = entry.expect("read").path();
        if path.extension().is_none_or(|ext| ext != "md") || path.ends_with("operations.md") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("read");
        for block in commands(&text) {
            let known: Vec<_> = ELSEWHERE.iter().filter(|(text, ..)| block.contains(text)).collect();
            assert_eq!(known.len(), 1, "{}: no test runs\n{block}", path.display());
            let (_, file, test) = known[0];
            let source =
                fs::read_to_string(root().join("tests/tests/swarms").join(file)).expect("a file of tests");
            assert!(source.contains(&format!("\nfn {test}(")), "{file} has no {test}");
            named += 1;
        }
    }
    assert_eq!(named, ELSEWHERE.len(), "a block is gone");
}

#[test]
fn forms_of_commands_that_change_a_swarm_name_options_that_there_are() {
    let all = include_str!("../../../docs/reload.md");
    let forms = commands(all).next().expect("forms").lines();
    let mut looked_up = 0;
    for form in forms.filter(|line| line.starts_with("shoal ")) {
        let command = form.split(' ').nth(1).expect("a command");
        let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_shoal-under-test"));
        let help = help.args([command, "--help"]).output().expect("it runs");
        let help = String::from_utf8_lossy(&help.stdout);
        let options = form.split(['[', ' ', ']']).filter(|word| word.starts_with("--"));
        for option in options {
            looked_up += 1;
            assert!(
                help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")),
                "{form}: {option}"
            );
        }
    }
    assert!(looked_up > 9, "{looked_up}");
}

/// The commands that the help of a command offers; that of the command line without one.
pub(super) fn offered(command: &[&str]) -> Vec<String> {
    let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_shoal-under-test"));
    let help = help.args(command).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    let commands =
        help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let lines = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// Every command that the command line offers has a row in the guide's table of exit statuses.
#[test]
fn guide_names_every_command() {
    let names = offered(&[]);
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(
            GUIDE.contains(&format!("| `{name}`")) || GUIDE.contains(&format!(", `{name}`")),
            "{name} has no row"
        );
    }
}
