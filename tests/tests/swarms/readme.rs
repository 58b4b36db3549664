//! The README's commands do what it says, its worker is the example's, and no document points at nothing.
//!
//! Method: as `clone.rs` says. `.ci/run` runs what is only noted there. What the README measures is measured by `bench.rs`.

use shoal_tests::clone::{self, Clone, root};
use std::fs;
use std::path::{Path, PathBuf};

const README: &str = include_str!("../../../README.md");
const WORKER: &str = include_str!("../../../examples/src/bin/worker.rs");
const MESSAGES: &str = include_str!("../../../examples/src/lib.rs");

/// The README's fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    clone::blocks(README, language)
}

fn a_clone() -> Clone {
    Clone::new(env!("CARGO_BIN_EXE_shoal-under-test"))
}

/// The `sh` block that holds a text.
fn block_with(text: &str) -> &'static str {
    let found = blocks("sh").into_iter().find(|block| block.contains(text));
    found.unwrap_or_else(|| panic!("no block with {text:?}"))
}

#[test]
fn the_two_commands_print_an_identical_result() {
    let clone = a_clone();
    for n in 0..40 {
        fs::write(clone.path(&format!("examples/file-{n}")), "some words\n".repeat(n * 50)).expect("written");
    }
    let out = clone.run(block_with("-- demo"));
    let line = out.lines().find(|line| line.contains("identical to the sequential result"));
    assert!(line.is_some_and(|line| line.contains("yes")), "{out}");
    assert_eq!(clone.noted(), "test --workspace\n");
}

#[test]
fn the_wordcount_swarm_runs_as_written_and_counts_what_there_is() {
    let clone = a_clone();
    // The folder that the file names may hold anything, or nothing; this one is known.
    let file = clone.path("examples/wordcount.toml");
    let text = fs::read_to_string(&file).expect("read").replace("/usr/include", "words");
    fs::write(&file, text).expect("written");
    for n in 1..=60 {
        fs::create_dir_all(clone.path(&format!("words/{}", n % 7))).expect("made");
        fs::write(clone.path(&format!("words/{}/{n}", n % 7)), "one two\n".repeat(n)).expect("written");
    }
    let out = clone.run(block_with("run examples/wordcount.toml"));
    assert!(out.contains("swarm `wordcount`: 6 processes"), "{out}");
    assert!(out.contains("collector | 3660 words in 60 files"), "{out}");
    assert_eq!(clone.noted(), "build --release -p shoal -p shoal-examples\n");
}

#[test]
fn a_running_swarm_is_spoken_with_as_written_and_its_count_has_no_gap() {
    let clone = a_clone();
    // The `PATH` of the block before.
    let block = block_with("shoal kill ticker");
    let out = clone.run(&format!("export PATH=\"$PWD/target/release:$PATH\"\n{block}"));
    let json = r#"{"swarm":"ticks","#;
    for said in ["ticker killed (1 of 1)", "teller restarted", "ticker stopped", "ticker started", json] {
        assert!(out.contains(said), "{said:?} is not in {out}");
    }
    let told = fs::read_to_string(clone.path("ticks.out")).expect("read");
    let ticks = told.lines().filter_map(|line| line.strip_prefix("teller | tick ")?.parse::<u64>().ok());
    let ticks: Vec<u64> = ticks.collect();
    assert!(ticks.len() >= 5 && ticks.iter().copied().eq(1..=ticks.len() as u64), "{told}");
}

#[test]
fn chaos_runs_as_written_and_every_message_took_effect_exactly_once() {
    let clone = a_clone();
    // A shorter time, for the same commands.
    let block = block_with("shoal chaos").replace("25s", "1s");
    let out = clone.run(&format!("export PATH=\"$PWD/target/release:$PATH\"\n{block}"));
    assert!(out.contains("every message took effect exactly once: yes"), "{out}");
    assert!(out.contains(r#"{"seed":7,"lost":0,"duplicated":0,"reordered":0,"corrupted":0,"#), "{out}");
}

#[test]
fn the_workers_code_is_that_of_the_example() {
    let rust = blocks("rust");
    assert!(rust.contains(&WORKER), "the README's worker is not examples/src/bin/worker.rs");
    let known = |code: &&str| *code == WORKER || MESSAGES.contains(*code);
    assert!(rust.iter().all(known), "a type of the README is not the example's");
}

#[test]
fn every_command_block_is_one_that_these_tests_know() {
    let known = [
        "-- demo",
        "run examples/wordcount.toml",
        "shoal kill ticker",
        "scripts/crash-test",
        "shoal chaos",
        "cargo bench",
    ];
    for block in blocks("sh") {
        assert_eq!(known.iter().filter(|text| block.contains(**text)).count(), 1, "not tried:\n{block}");
    }
}

/// The markdown files of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].iter().map(|f| root().join(f)).collect();
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(folder)).expect("listed");
        let paths = entries.map(|entry| entry.expect("read").path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    found
}

#[test]
fn documents_point_at_files_that_exist() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("read");
        let folder = document.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{} points at {link}", document.display());
            }
        }
    }
}

#[test]
fn tests_that_documents_name_exist() {
    let mut code = String::new();
    for folder in ["runtime", "agent-sdk", "measure", "supervisor", "examples", "tests"] {
        gather(&root().join(folder), &mut code);
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let sentence = |name: &&str| name.matches('_').count() >= 4 && name.bytes().all(plain);
    let mut count = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("read");
        for name in text.split('`').skip(1).step_by(2).filter(sentence) {
            count += 1;
            let there = code.contains(&format!("fn {name}("));
            assert!(there, "{} names {name}, which is no test", document.display());
        }
    }
    assert!(count >= 40, "the documents name {count} tests");
}

fn gather(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            gather(&path, code);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            code.push_str(&fs::read_to_string(&path).expect("read"));
        }
    }
}
