//! A supervisor of which one system call fails.
#![allow(missing_docs)]

use shoal_tests::failing::{Counted, Failed, Failing, Fault, WAYS_MAX};
use shoal_tests::stage::Relayed;
use shoal_tests::{Book, Running, Stage, stage, traces, until};
use std::path::PathBuf;

fn swarm(stage: &Stage) -> PathBuf {
    Relayed { relay: "replicas = 2", sink: "standby = 1", ways: 0, ..Relayed::default() }.write(stage)
}

/// What came of a run.
#[derive(Default)]
struct Run {
    /// How many calls could have failed.
    seen: u64,
    /// The one that did.
    failed: Option<Failed>,
    /// What the supervisor said.
    said: String,
}

/// A life of a swarm: start, a death and a restart, commands, the end. With a fault in it, it either works all the same, or does not
/// come to a start and says why.
fn live(fault: Option<Fault>, run: &mut Run) {
    let stage = stage!("failing");
    let file = swarm(&stage);
    let counted = Counted { program: stage.program(), from: "swarm.toml".to_owned() };
    let (mut shoal, failing) =
        Failing::start(counted, fault, || stage.run(&file)).expect("filters of system calls");
    let failing = Noted { failing, run };
    let is_started = until("a start, or an end", || match shoal.poll() {
        Some(_) => Some(false),
        None => all_ready(&shoal).then_some(true),
    });
    let said = if is_started { go_on(&stage, shoal) } else { refused(shoal) };
    assert!(!said.contains("panicked"), "{said}");
    stage.assert_nothing_left();
    failing.run.said = said;
}

/// Notes, also when a test fails, which call it was.
struct Noted<'r> {
    failing: Failing,
    run: &'r mut Run,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        (self.run.seen, self.run.failed) = (self.failing.seen(), self.failing.failed());
    }
}

fn all_ready(shoal: &Running<'_>) -> bool {
    use shoal::control::PsState;
    shoal.try_ps().is_some_and(|report| report.agents.iter().all(|a| a.state == PsState::Ready))
}

/// It did not start: it says why, once.
fn refused(shoal: Running<'_>) -> String {
    let done = shoal.ended();
    assert!([1, 2].contains(&done.status), "{}: {}", done.status, done.err);
    assert!(["shoal: ", "error: "].iter().any(|word| done.err.starts_with(word)), "it says nothing: {:?}", done.err);
    done.err
}

/// It started, so it is to work: messages flow, a death is answered, commands are, and it ends as asked.
fn go_on(stage: &Stage, mut shoal: Running<'_>) -> String {
    let supervisor = shoal.supervisor().expect("a supervisor");
    let book = stage.path("sink");
    for victim in ["relay.1", "sink"] {
        let pid = shoal.pid_of(victim);
        assert!(traces::kill(pid, stage.mark()));
        shoal.until_agent(victim, "restarted", |a| (a.restarts >= 1).then_some(()));
        shoal.until_ready();
        let due = Book::count(&book) + 50;
        until("further numbers", || (Book::count(&book) > due).then_some(()));
    }
    let asked = until("an answer to a command", || {
        let done = stage.done(&["restart", "source"]);
        (done.status == 0).then_some(())
    });
    let () = asked;
    shoal.until_ready();
    assert_eq!(shoal.supervisor(), Some(supervisor), "the supervisor died: {}", shoal.err());
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    let mut book = Book::read(&book).expect("the sink's book");
    book.sort_unstable();
    assert!(book.iter().enumerate().all(|(due, met)| due as u64 == *met), "a number is lost or doubled");
    done.err
}

fn sweep(faults: impl Iterator<Item = Fault>) {
    let mut wrong = Vec::new();
    for fault in faults {
        let mut run = Run::default();
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(Some(fault), &mut run)));
        let Some(Failed { call, errno, by }) = run.failed else { continue };
        let what = format!("call {}, {call} of {by}, {}", fault.nth, std::io::Error::from_raw_os_error(errno));
        match lived {
            Ok(()) => println!("{what}: {}", run.said.trim_end().replace('\n', " | ")),
            Err(why) => {
                let why = why.downcast_ref::<String>().map_or("", String::as_str);
                println!("WRONG {what}: {why}");
                wrong.push(format!("{what}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults are not borne:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn swarm_bears_that_any_system_call_of_its_supervisor_fails_once() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let mut whole = Run::default();
    live(None, &mut whole);
    println!("{} calls may fail: {}", whole.seen, whole.said);
    let (from, step) = (number("SHOAL_FAULT_FROM", 0), number("SHOAL_FAULT_STEP", 37));
    let to = number("SHOAL_FAULT_TO", whole.seen);
    let ways = number("SHOAL_FAULT_WAYS", 1) as usize;
    let calls = (from..to).step_by(step as usize);
    sweep(calls.flat_map(|nth| {
        let ways = if ways == 1 { nth as usize % 3..nth as usize % 3 + 1 } else { 0..WAYS_MAX };
        ways.map(move |way| Fault { nth, way })
    }));
}
