//! A hundred agents of one swarm file.

use shoal_tests::{Done, Stage, stage, traces};
use std::fmt::Write;
use std::path::PathBuf;

const AGENTS: u64 = 100;

/// One who calls, a hundred who answer, one who counts. Each agent by name: replicas would share the calls.
fn hundred(stage: &Stage) -> PathBuf {
    let mut text = String::from(
        r#"
        [swarm]
        name = "NAME"
        [channel.calls]
        message = "Number"
        capacity = "4 KiB"
        [channel.answers]
        message = "Answer"
        capacity = "4 KiB"
        [agent.caller]
        command = ["BIN/calls", "caller"]
        publishes = ["calls"]
        ready_timeout = "80s"
        stop_timeout = "60s"
        "#,
    );
    let _ = writeln!(
        text,
        "[agent.counter]\ncommand = [\"BIN/calls\", \"counter\", \"{AGENTS}\"]\nsubscribes = [\"answers\"]\n\
         ready_timeout = \"80s\"\nstop_timeout = \"60s\""
    );
    for number in 0..AGENTS {
        let _ = writeln!(
            text,
            "[agent.answerer{number}]\ncommand = [\"BIN/calls\", \"answerer\"]\nsubscribes = [\"calls\"]\n\
             publishes = [\"answers\"]\nready_timeout = \"80s\"\nstop_timeout = \"60s\""
        );
    }
    stage.write("swarm.toml", &text)
}

fn assert_all_answered_once(stage: &Stage, done: &Done) {
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(stage.violations(), "");
    assert!(done.out.contains(&format!("counted {AGENTS} answers of {AGENTS} agents")), "{}", done.out);
}

/// Goal: a broadcast reaches a hundred agents, a hundred answers come back, and a stop leaves nothing. Method: the real
/// binary, with a soft limit of 256 descriptors, which does not suffice; the memory files that its processes hold are
/// noted before the stop, and looked for in every process after it.
#[test]
fn hundred_agents_each_answer_a_broadcast_once_and_stop_with_nothing_left() {
    let stage = stage!("hundred");
    let file = hundred(&stage);
    let mut shoal =
        stage.start(stage.shoal_limited("-Sn 256", &["run", file.to_str().expect("a UTF-8 path")]));
    let report = shoal.until_ready();
    assert_eq!(report.agents.len() as u64, AGENTS + 2);
    shoal.until_said(&format!("all {AGENTS} answered"));
    let processes = traces::marked(stage.mark());
    assert_eq!(processes.len() as u64, AGENTS + 5, "the agents, the supervisor, its keeper and the guard");
    let memory = traces::memory_files(processes);
    assert!(memory.len() as u64 > AGENTS, "each has a segment: {}", memory.len());
    assert_eq!(traces::shared_names(stage.name()).len(), 1, "the beacon");

    let done = shoal.stop();
    assert_all_answered_once(&stage, &done);
    assert_eq!(traces::held_memory(&memory), Vec::<u64>::new());
    stage.assert_nothing_left();
}

#[test]
fn hard_limit_of_descriptors_that_is_too_low_is_told_before_anything_starts() {
    let stage = stage!("limited");
    let file = hundred(&stage);
    let done = stage.finish(stage.shoal_limited("-n 256", &["run", file.to_str().expect("a UTF-8 path")]));
    assert_eq!(done.status, 2, "{}", done.err);
    assert!(done.err.contains("open descriptors, the limit is 256"), "{}", done.err);
    assert!(done.err.contains("ulimit -Hn"), "says what to do: {}", done.err);
    stage.assert_nothing_left();
}
