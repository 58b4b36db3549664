//! An agent with many descendants, some of which try to leave: `brood COUNT FILE`. Each writes its number into FILE and lives on until that
//! is gone. They are made by `brood linger HOW FILE`. `brood hops FILE` has one that is another process all the time: each forks the next and
//! ends, 10,000 times at most: one that nobody ends must not use up the machine's numbers. Whoever of them lives holds the lock of FILE.

use shoal_agent::{Agent, Result};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What they do to leave.
const WAYS: [&str; 5] = ["stays", "own-group", "own-session", "orphaned", "no-environment"];

const HOPS_MAX: u64 = 10_000;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [linger, how, file] if linger == "linger" => {
            live_on(how, file);
            std::process::ExitCode::SUCCESS
        }
        [hops, file] if hops == "hops" => shoal_agent::run(|agent| hopped(agent, file)),
        [count, file] => {
            let count = count.parse().expect("a number");
            shoal_agent::run(|agent| body(agent, count, file))
        }
        _ => std::process::ExitCode::FAILURE,
    }
}

fn body(agent: &mut Agent, count: usize, file: &str) -> Result<()> {
    agent.ready()?;
    // Each life has a file of its own.
    let file = format!("{file}.{}", agent.generation());
    let mut children = Vec::new();
    for how in WAYS.into_iter().cycle().take(count) {
        children.push(make(how, &file)?);
    }
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Makes the first of those that hop.
fn hopped(agent: &mut Agent, file: &str) -> Result<()> {
    agent.ready()?;
    let file = format!("{file}.{}", agent.generation());
    let _first = make("hops", &file)?;
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Leaves, and hops. Children have the lock, too, as it is of what they inherit.
fn hop(file: &str) -> std::io::Result<()> {
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    rustix::fs::flock(&list, rustix::fs::FlockOperation::LockExclusive)?;
    while list.metadata()?.len() < HOPS_MAX && Path::new(file).exists() {
        rustix::process::setsid()?;
        if shoal_tests::attack::fork()?.is_some() {
            break;
        }
        list.write_all(b".")?;
    }
    Ok(())
}

fn make(how: &str, file: &str) -> std::io::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["linger", how, file]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if how == "no-environment" {
        command.env_clear();
    }
    command.spawn()
}

fn live_on(how: &str, file: &str) {
    match how {
        "own-group" => rustix::process::setpgid(None, None).expect("a group"),
        "own-session" | "no-environment" => _ = rustix::process::setsid().expect("a session"),
        "hops" => return hop(file).expect("hops"),
        "orphaned" => {
            drop(make("own-session", file));
            return;
        }
        _ => {}
    }
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the list");
    list.write_all(format!("{}\n", std::process::id()).as_bytes()).expect("a line");
    // Nothing is left behind by a test that failed.
    while Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
