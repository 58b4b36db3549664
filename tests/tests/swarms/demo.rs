//! `shoal demo` from outside: where its results go, and how it ends when it is not let finish.

use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::{Done, Running, Stage, stage, traces, until};
use std::fs;
use std::path::{Path, PathBuf};

/// A demo that goes on until somebody ends it: no number of kills is enough.
fn endless<'s>(stage: &'s Stage, kill_every: &str) -> Running<'s> {
    let tree = stage.path("tree");
    for n in 0..600 {
        let folder = tree.join(format!("folder {}", n % 7));
        fs::create_dir_all(&folder).expect("a folder of the tree");
        fs::write(folder.join(format!("{n}.txt")), "some words\n".repeat(n)).expect("a file of the tree");
    }
    let tree = tree.to_str().expect("a UTF-8 path");
    let kills = u64::MAX.to_string();
    stage.start(stage.shoal(&["demo", tree, "--json", "--kill-every", kill_every, "--kills", &kills]))
}

/// Waits until results have come to the command itself.
fn until_it_reads(shoal: &mut Running<'_>) {
    let pid = shoal.pid();
    shoal.until_agent("reader", "reading", |a| {
        assert!(a.pid.is_none_or(|reader| reader as i32 == pid), "the reader is the command itself");
        (a.received > 0).then_some(())
    });
}

/// All files below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).expect("below it").to_owned());
            }
        }
    }
    files
}

/// Whether there are 64 hexadecimal digits in a row.
fn holds_a_digest(bytes: &[u8]) -> bool {
    bytes.split(|byte| !byte.is_ascii_hexdigit()).any(|digits| digits.len() >= 64)
}

/// Goal: the results go through lanes and states, and nothing that an agent needs after a kill is in a file. Method: while
/// agents are killed and come back, look at what is in the run folder, and at what any process of it has open to write to.
#[test]
fn demo_keeps_no_results_in_files() {
    let stage = stage!("nofiles");
    let mut shoal = endless(&stage, "5ms");
    let place = stage.path("run").join("shoal");
    let is_no_result = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        // What agents print, what happened to them, and how they died.
        let is_log =
            path.parent().is_some_and(|folder| folder.ends_with("logs") || folder.ends_with("logs/crashes"));
        name == "lock" || name == "control" || is_log
    };
    for _ in 0..50 {
        until_it_reads(&mut shoal);
        let kept = files_below(&place);
        assert!(kept.iter().all(|path| is_no_result(path)), "{kept:?}");
        for path in &kept {
            // A file may be gone meanwhile, or be rotated.
            let bytes = fs::read(place.join(path)).unwrap_or_default();
            let name = path.to_string_lossy();
            // A report has another name until it is whole.
            let name = name.strip_suffix(".new").unwrap_or(&name);
            let tells = name.ends_with(".json") || name.ends_with(".jsonl");
            // What tells of deaths grows with them, but holds no result: no digest of a file.
            assert!(tells || bytes.len() < 2000, "{} holds {} bytes", path.display(), bytes.len());
            assert!(!holds_a_digest(&bytes), "{} holds a digest", path.display());
        }
        let written = traces::written_files(traces::marked(stage.mark()));
        let own_output = |path: &Path| path.extension().is_some_and(|end| end == "out" || end == "err");
        let others: Vec<_> = written.iter().filter(|path| !is_no_result(path) && !own_output(path)).collect();
        assert_eq!(others, [""; 0].map(Path::new).each_ref(), "written to");
    }
    shoal.send(Signal::TERM);
    assert_eq!(shoal.ended().status, 2);
    stage.assert_nothing_left();
}

/// Sends the demo signals, and checks that it ends by them with all that it has started.
fn assert_ends_by(signals: &[Signal], wait: impl Fn(&mut Running<'_>)) {
    let stage = stage!("signals");
    let mut shoal = endless(&stage, "5ms");
    wait(&mut shoal);
    for &signal in signals {
        if shoal.poll().is_none() {
            shoal.send(signal);
        }
    }
    let done = shoal.ended();
    assert_eq!(done.status, 2, "{}", done.err);
    assert!(done.err.contains("shoal demo: interrupted"), "{}", done.err);
    stage.assert_nothing_left();
}

/// Goal: who ends the demo ends it whole, in order, whether from the terminal or by the process's number. Method: each signal
/// once, and one after another; the supervisor hears of it from the command alone.
#[test]
fn signal_to_the_demo_ends_its_supervisor_and_its_agents() {
    for signals in [&[Signal::INT][..], &[Signal::TERM], &[Signal::HUP], &[Signal::INT, Signal::TERM]] {
        assert_ends_by(signals, until_it_reads);
    }
}

/// Goal: no moment of the start is too early for a signal. Method: it is sent as soon as there is a supervisor, who cannot have
/// asked for signals yet.
#[test]
fn signal_to_a_demo_whose_supervisor_has_just_begun_ends_both() {
    for _ in 0..10 {
        assert_ends_by(&[Signal::INT], |shoal| {
            until("a supervisor", || (!traces::children(shoal.pid()).is_empty()).then_some(()));
        });
    }
}

/// Goal: when the command is killed, nothing of it goes on, and nothing is left that a next one would meet. Method: SIGKILL to
/// it alone, in the middle of a pass that would never end by itself, because a worker is stopped.
#[test]
fn killed_demo_leaves_no_process_no_memory_and_no_folder() {
    for _ in 0..3 {
        let stage = stage!("killed");
        let mut shoal = endless(&stage, "1h");
        until("a stopped worker", || {
            let pid = shoal.pid_of("worker.1");
            // It may end before it hears of it, and the next pass has another.
            let stopped = || match traces::state(pid) {
                Some('T') => Some(true),
                None | Some('Z') => Some(false),
                _ => None,
            };
            let sent = traces::send(pid, stage.mark(), Signal::STOP);
            (sent && until("its stop", stopped)).then_some(())
        });
        let memory = traces::memory_files(traces::marked(stage.mark()));
        assert!(memory.len() >= 4, "lanes of lister, worker, collector; the reader's own segment");
        shoal.send(Signal::KILL);
        assert_eq!(shoal.ended().status, 128 + 9);
        stage.until_no_process();
        assert_eq!(traces::held_memory(&memory), Vec::<u64>::new());
        stage.assert_nothing_left();
    }
}

/// Goal: a demo whose supervisor is killed says so and ends, and the next one is not hindered. Method: SIGKILL to its child.
#[test]
fn demo_whose_supervisor_is_killed_ends_and_says_so() {
    let stage = stage!("headless");
    let mut shoal = endless(&stage, "5ms");
    until_it_reads(&mut shoal);
    let supervisor = traces::children(shoal.pid());
    assert_eq!(supervisor.len(), 1);
    assert!(traces::kill(supervisor[0], stage.mark()));
    let done = shoal.ended();
    assert_eq!(done.status, 2, "{}", done.err);
    assert!(done.err.contains("supervisor was killed"), "{}", done.err);
    stage.until_no_process();
    // What could not be tidied up is no longer claimed by anybody.
    let again =
        stage.done(&["demo", stage.path("tree").to_str().expect("a UTF-8 path"), "--kill-every", "0"]);
    assert_eq!(again.status, 0, "{}{}", again.err, again.out);
    assert!(again.out.contains("yes"), "{}", again.out);
    stage.assert_nothing_left();
}

/// Goal: a process that was adopted is never killed, also not when an operator orders it; it leaves the swarm. Method: the
/// orders to the demo's reader, which is the command itself.
#[test]
fn orders_to_the_reader_make_it_leave_and_never_kill_the_command() {
    for order in ["kill", "restart", "stop"] {
        let stage = stage!("orders");
        let mut shoal = endless(&stage, "5ms");
        until_it_reads(&mut shoal);
        // Again, if it came between two passes: there was nobody to be ordered.
        until("the end of the demo", || {
            stage.done(&[order, "reader"]);
            shoal.poll()
        });
        assert_interrupted(order, shoal.ended());
        stage.assert_nothing_left();
    }
}

/// Goal: a reader that leaves before it was ready was interrupted as well: nothing failed. Method: the command is stopped as soon
/// as its swarm can be spoken to (again, if it had begun to read by then), and goes on when the order has arrived.
#[test]
fn orders_to_a_reader_that_has_just_begun_make_it_leave() {
    for order in ["kill", "restart", "stop"] {
        until("a reader that was stopped before it was ready", || {
            let stage = stage!("early");
            let mut shoal = endless(&stage, "5ms");
            let swarms = stage.path("run").join("shoal");
            until("a swarm", || {
                files_below(&swarms).iter().any(|path| path.ends_with("control")).then_some(())
            });
            shoal.send(Signal::STOP);
            let report = shoal.try_ps();
            let reader = report.as_ref().and_then(|it| it.agents.iter().find(|agent| agent.name == "reader"));
            if reader.is_none_or(|reader| reader.state != PsState::Starting) {
                shoal.send(Signal::TERM);
                shoal.send(Signal::CONT);
                shoal.ended();
                return None;
            }
            let asked = stage.start(stage.shoal(&[order, "reader"]));
            shoal.until_agent("reader", "its order", |r| (r.state != PsState::Starting).then_some(()));
            shoal.send(Signal::CONT);
            asked.ended();
            assert_interrupted(order, shoal.ended());
            stage.assert_nothing_left();
            Some(())
        });
    }
}

fn assert_interrupted(order: &str, done: Done) {
    assert_eq!(done.status, 2, "{order}: {}", done.err);
    assert!(done.err.contains("shoal demo: interrupted"), "{order}: {}", done.err);
}
