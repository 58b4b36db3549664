//! A supervisor of which one system call fails.

use shoal::control::{PsAgent, PsState};
use shoal_tests::failing::{Failed, Failing, Fault, WAYS_MAX};
use shoal_tests::stage::{HARDY, Relayed};
use shoal_tests::{Book, Running, Stage, stage, traces, until};
use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Forked relays, a sink with a standby, an agent that is bounded in every way, and a hook.
fn swarm(stage: &Stage) -> PathBuf {
    let relay = "replicas = 2\nprefork = true";
    let relayed = Relayed { relay, sink: "standby = 1", ways: 0, ..Relayed::default() }.write(stage);
    // Only root gives agents a user.
    let user =
        if rustix::process::geteuid().is_root() { "user = \"12347\"\nuser_group = \"12347\"" } else { "" };
    let relayed = fs::read_to_string(relayed).expect("a file of the stage");
    let confined = format!(
        "[agent.confined]\ncommand = [\"BIN/confined\", \"idles\"]\n{user}\ntrust = \"hostile\"\nenv_allow = [\"SHOAL_TEST_FOLDER\"]\n\
         landlock = {{ read = [\"/proc\"] }}\nsecrets = {{ KEY = \"key\" }}\n\
         limits = {{ memory = \"1 GiB\", processes = 64, open_files = 256, core_size = 0, nice = 1 }}\n{HARDY}\n\
         [hooks]\ncrash = [\"/bin/true\"]\n"
    );
    fs::write(stage.path("key"), "of nobody's interest").expect("a file of the stage");
    stage.write("swarm.toml", &(relayed + &confined))
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
    /// How many descriptors it had open before its end.
    descriptors: Descriptors,
}

/// How many descriptors a process has open of each kind.
type Descriptors = BTreeMap<String, usize>;

/// An agent's log is open, once, from its first word on, and whether it ever says one is its own affair.
fn count(open: &Descriptors) -> usize {
    open.iter().map(|(kind, &times)| times - usize::from(kind.ends_with(".log"))).sum()
}

/// A life of a swarm: start, a death and a restart, commands, the end. With a fault in it, it either works all the same, or does not
/// come to a start and says why.
fn live(fault: Option<Fault>, run: &mut Run, without_fault: Option<&Descriptors>) {
    let stage = stage!("failing");
    let file = swarm(&stage);
    let (mut shoal, failing) = Failing::run(&stage, &file, fault);
    let failing = Noted { failing, run };
    let is_started = until("a start, or an end", || match shoal.poll() {
        Some(_) => Some(false),
        None => all_ready(&shoal).then_some(true),
    });
    let said = if is_started { go_on(&stage, shoal, failing.run, without_fault) } else { refused(shoal) };
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
    shoal.try_ps().is_some_and(|report| report.agents.iter().all(|a| a.state == PsState::Ready))
}

/// It did not start: it says why, once.
fn refused(shoal: Running<'_>) -> String {
    let done = shoal.ended();
    assert!([1, 2].contains(&done.status), "{}: {}", done.status, done.err);
    assert!(
        ["shoal: ", "error: "].iter().any(|word| done.err.starts_with(word)),
        "it says nothing: {:?}",
        done.err
    );
    done.err
}

/// It started, so it is to work: messages flow, deaths are answered, a command is, nothing is hoarded, and it ends as asked.
fn go_on(
    stage: &Stage,
    mut shoal: Running<'_>,
    run: &mut Run,
    without_fault: Option<&Descriptors>,
) -> String {
    let supervisor = shoal.supervisor().expect("a supervisor");
    let book = stage.path("sink");
    for victim in ["relay.1", "sink", "confined"] {
        let pid = shoal.pid_of(victim);
        assert!(traces::kill(pid, stage.mark()));
        shoal.until_agent(victim, "restarted", |a| (a.restarts >= 1).then_some(()));
        shoal.until_ready();
        let due = Book::count(&book) + 50;
        until("further numbers", || (Book::count(&book) > due).then_some(()));
    }
    // One command may be told of the lack, and what was begun is undone then. Who is there in the end needs the memory of its former lives
    // no longer; of who is gone it would be kept.
    let scaled = ["3", "2", "3"].map(|replicas| vec!["scale", "relay", replicas]);
    for command in [vec!["restart", "source"]].iter().chain(&scaled) {
        until("an answer to a command", || (stage.done(command).status == 0).then_some(()));
    }
    assert_eq!(shoal.supervisor(), Some(supervisor), "the supervisor died: {}", shoal.err());
    shoal.succeed();
    let supervisor = shoal.supervisor().expect("a successor");
    let report = shoal.until("every agent ready, with its standbys", |report| {
        let whole = |a: &PsAgent| a.state == PsState::Ready && a.standbys.len() as u64 == a.standbys_wanted;
        report.agents.iter().all(whole).then(|| report.clone())
    });
    assert!(report.agents.iter().all(|a| a.rescues == 0), "somebody was not woken: {report:?}");
    run.descriptors = traces::descriptors(supervisor);
    if let Some(without_fault) = without_fault {
        until("no more open descriptors than without a fault", || {
            run.descriptors = traces::descriptors(supervisor);
            (1..=count(without_fault)).contains(&count(&run.descriptors)).then_some(())
        });
    }
    assert_eq!(shoal.supervisor(), Some(supervisor), "the supervisor died: {}", shoal.err());
    let done = shoal.stop();
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    let mut book = Book::read(&book).expect("the sink's book");
    book.sort_unstable();
    assert!(book.iter().enumerate().all(|(due, met)| due as u64 == *met), "a number is lost or doubled");
    done.err
}

/// Lives through each of these faults, two at a time, and tells all that are not borne; how many calls were made to fail.
fn sweep(faults: impl Iterator<Item = Fault> + Send, whole: &Run) -> usize {
    let (faults, wrong) = (Mutex::new(faults), Mutex::new(Vec::new()));
    let met = AtomicUsize::new(0);
    let next = || faults.lock().expect("not poisoned").next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(fault) = next() {
                    let mut run = Run::default();
                    let lived = AssertUnwindSafe(|| live(Some(fault), &mut run, Some(&whole.descriptors)));
                    let lived = std::panic::catch_unwind(lived);
                    let Some(Failed { call, errno, by }) = run.failed else { continue };
                    met.fetch_add(1, Ordering::Relaxed);
                    let error = std::io::Error::from_raw_os_error(errno);
                    let what = format!("call {}, {call} of {by}, {error}", fault.nth);
                    match lived {
                        Ok(()) => println!("{what}: {}", run.said.trim_end().replace('\n', " | ")),
                        Err(why) => {
                            let why = why.downcast_ref::<String>().map_or("", String::as_str);
                            let told = format!("{what}: {why}\nopen: {:?}", run.descriptors);
                            println!("NOT BORNE: {told}");
                            wrong.lock().expect("not poisoned").push(told);
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("not poisoned");
    let met = met.into_inner();
    assert!(met > 0, "nothing was made to fail");
    let (some, which, open) = (wrong.len(), wrong.join("\n"), &whole.descriptors);
    assert!(wrong.is_empty(), "{some} faults are not borne:\n{which}\nopen without a fault: {open:?}");
    met
}

/// A life without a fault, with the most descriptors of three such lives: one alone may be looked at when something is not yet open that
/// stays open in all others, and then none of them would be borne.
fn unharmed() -> Run {
    let lives = (0..3).map(|_| {
        let mut run = Run::default();
        live(None, &mut run, None);
        run
    });
    lives.max_by_key(|run| count(&run.descriptors)).expect("three lives")
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Goal: whatever call of guard, keeper and supervisor fails once, the swarm works or says why it does not start. Method: the kernel asks
/// us about each call that may fail, and the k-th is answered with an error, for a k in each stretch of the life; once each.
#[test]
fn swarm_bears_that_a_system_call_of_its_supervisor_fails() {
    let whole = unharmed();
    assert!(whole.seen > 500, "{} calls", whole.seen);
    let calls = (0..whole.seen).step_by(number("SHOAL_FAULT_STEP", 37) as usize);
    let planned = calls.clone().count();
    let faults = calls.enumerate().map(|(way, nth)| Fault { nth, way, wraps: true });
    let met = sweep(faults, &whole);
    // Some lives have fewer calls than the longest of three: the last of them may be met by nobody.
    println!("{met} of {planned} were met");
    assert!(met >= planned * 3 / 4, "{met} of {planned}");
}

/// Every k and every way, or those of `SHOAL_FAULT_FROM` to `SHOAL_FAULT_TO`.
#[test]
#[ignore = "takes half an hour"]
fn swarm_bears_that_any_system_call_of_its_supervisor_fails() {
    let whole = unharmed();
    let calls = number("SHOAL_FAULT_FROM", 0)..number("SHOAL_FAULT_TO", whole.seen);
    let calls = calls.step_by(number("SHOAL_FAULT_STEP", 1) as usize);
    sweep(calls.flat_map(|nth| (0..WAYS_MAX).map(move |way| Fault { nth, way, wraps: false })), &whole);
}

/// Goal: a full disk behind standard output and error takes words, and nothing else. Method: both are /dev/full; an agent is killed and
/// told of, and its supervisor is still the same.
#[test]
fn supervisor_whose_words_nobody_takes_goes_on() {
    let stage = stage!("mute");
    let file = swarm(&stage);
    let file = file.to_str().expect("a UTF-8 path");
    let mut shoal = stage.start(stage.shoal_after("exec >/dev/full 2>&1", &["run", file]));
    shoal.until_ready();
    let supervisor = shoal.supervisor();
    let pid = shoal.pid_of("sink");
    assert!(traces::kill(pid, stage.mark()));
    shoal.until_agent("sink", "restarted", |a| (a.restarts >= 1).then_some(()));
    shoal.until_ready();
    let due = Book::count(&stage.path("sink")) + 50;
    until("further numbers", || (Book::count(&stage.path("sink")) > due).then_some(()));
    assert_eq!(shoal.supervisor(), supervisor, "the supervisor died");
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}
