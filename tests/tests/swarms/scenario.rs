//! `shoal bench scenario` as a user runs it: what is delivered, and that what is not is said. Never how fast.

use serde_json::Value;
use shoal_tests::{Done, stage};

/// The only scenario that a run printed as JSON.
pub(super) fn scenario(done: &Done) -> Value {
    let run: Value = serde_json::from_str(&done.out)
        .unwrap_or_else(|e| panic!("JSON alone: {e}\n{}{}", done.out, done.err));
    assert_eq!(run["scenarios"].as_array().map(Vec::len), Some(1), "{run}");
    run["scenarios"][0].clone()
}

pub(super) fn count(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no {key:?} in {of}"))
}

#[test]
fn list_names_every_scenario_and_an_unknown_one_is_refused() {
    let stage = stage!("scenario");
    let done = stage.done(&["bench", "scenario"]);
    assert_eq!(done.status, 0, "{}", done.err);
    let lines: Vec<&str> = done.out.lines().collect();
    assert!(lines.len() >= 14 && lines.iter().any(|line| line.starts_with("tasks-25000 ")), "{}", done.out);
    for (args, said) in [
        (&["bench", "scenario", "start-11"][..], "there are: start-10, start-100"),
        (&["bench", "latency", "start-10"], "shoal bench scenario start-10"),
        (&["bench", "scenario", "start-10", "--report", "x"], "has no floor"),
    ] {
        let done = stage.done(args);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(said), "{args:?}: {said:?} is not in {}", done.err);
    }
}

/// Goal: a hundred agents exchange what they are told to, and every message and task is counted once. Method: the real command.
#[test]
fn hundred_agents_deliver_all_messages_and_all_tasks() {
    let stage = stage!("scenario");
    let done = stage.done(&["bench", "scenario", "team-100", "--json", "-"]);
    let team = scenario(&done);
    assert_eq!((count(&team, "agents"), count(&team, "ready"), done.status), (100, 100, 0), "{team}");
    assert_eq!((count(&team, "expected"), count(&team, "delivered")), (700, 700), "{team}");
    let parts = team["parts"].as_array().expect("parts");
    let told: Vec<_> = parts.iter().map(|part| (part["what"].as_str(), count(part, "delivered"))).collect();
    assert_eq!(told, [(Some("messages"), 500), (Some("tasks"), 200)]);
    for part in parts {
        let [p50, p95, p99, max] = ["p50_ns", "p95_ns", "p99_ns", "max_ns"].map(|key| count(part, key));
        assert!(p50 > 0 && p50 <= p95 && p95 <= p99 && p99 <= max, "{part}");
    }
    assert_eq!((&team["success"], &team["passed"]), (&Value::from(1.0), &Value::Bool(true)), "{team}");
    stage.assert_nothing_left();
}

#[test]
fn agents_that_idle_use_next_to_no_cpu_and_their_memory_is_counted_with_that_of_their_lanes() {
    let stage = stage!("scenario");
    let start = scenario(&stage.done(&["bench", "scenario", "start-10", "--quick", "--json", "-"]));
    let idle = &start["idle"];
    assert_eq!((count(&start, "delivered"), count(idle, "agents")), (8 + 20 * 8, 9), "{start}");
    let number = |key: &str| idle[key].as_f64().unwrap_or_else(|| panic!("no {key:?} in {idle}"));
    assert!(number("cpu_percent_max") < 5.0, "an agent that waits for nothing: {idle}");
    // A segment of some lanes at least, and whatever a process takes; no agent has 50 MiB.
    assert!(
        number("memfd_kib_mean") >= 16.0 && number("memory_kib_mean") > number("memfd_kib_mean"),
        "{idle}"
    );
    assert!(number("memory_kib_max") < 51_200.0, "{idle}");
    stage.assert_nothing_left();
}

/// Goal: lives come and go without a trace in the supervisor, and no call is lost or answered twice over them. Method: real SIGKILL
/// to a worker as soon as it works, a hundred times.
#[test]
fn hundred_spawns_and_kills_lose_nothing_and_leave_memory_and_descriptors_flat() {
    let stage = stage!("scenario");
    let done = stage.done(&["bench", "scenario", "spawn-kill", "--quick", "--json", "-"]);
    let cycles = scenario(&done);
    assert_eq!(
        (count(&cycles, "kills"), &cycles["passed"]),
        (100, &Value::Bool(true)),
        "{cycles}{}",
        done.err
    );
    assert_eq!(cycles["flat"]["cycles"], serde_json::json!([10, 100]));
    assert!(count(&cycles, "delivered") > 100 && cycles["recovery_ns"][0].as_u64() > Some(0), "{cycles}");
    stage.assert_nothing_left();
}
