//! `shoal certify` as a user runs it: what it writes, and that a broken swarm is not certified. Never how fast: whether this build on this
//! machine reaches the targets is the gate's question, which asks a release build.

use serde_json::Value;
use shoal_tests::{Done, Stage, stage};
use std::fs;

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("JSON: {e}\n{text}"))
}

/// The only metric of a report.
pub(super) fn metric(report: &Value) -> &Value {
    assert_eq!(report["metrics"].as_array().map(Vec::len), Some(1), "{report}");
    &report["metrics"][0]
}

fn certified(stage: &Stage, only: &str) -> Done {
    let out = stage.path("out");
    stage.done(&["certify", "--quick", "--json", "--only", only, "--out", out.to_str().expect("UTF-8")])
}

#[test]
fn report_says_metric_target_own_bar_measured_method_and_verdict_in_both_files() {
    let stage = stage!("certify");
    let done = certified(&stage, "recovery");
    let report = json(&done.out);
    assert_eq!(report, json(&fs::read_to_string(stage.path("out/certification.json")).expect("written")));
    let recovery = metric(&report);
    let holds = recovery["target"]["measured"].as_f64().expect("measured") < 5.0;
    let verdict = if holds { "passed" } else { "failed" };
    assert_eq!((recovery["verdict"].as_str(), done.status), (Some(verdict), i32::from(!holds)), "{recovery}");
    let own_bar = recovery["own_bar"].as_str();
    assert!(matches!(own_bar, Some("met" | "missed")), "{recovery}");
    assert_eq!((&report["partial"], &report["format"]), (&Value::Bool(true), &Value::from(1)));
    for key in
        ["metric", "name", "target", "verdict", "bars", "own_bar", "besides", "method", "commands", "why"]
    {
        assert!(!recovery[key].is_null(), "{key}: {recovery}");
    }
    for key in ["what", "side", "limit", "unit"] {
        assert!(
            !recovery["target"][key].is_null() && !recovery["bars"][0][key].is_null(),
            "{key}: {recovery}"
        );
    }
    let page = fs::read_to_string(stage.path("out/certification.md")).expect("written");
    for said in ["| recovery time | < 5 s |", "`shoal bench recovery --json -`", "this certifies nothing"] {
        assert!(page.contains(said), "{said:?} is not in {page}");
    }
    stage.assert_nothing_left();
}

/// Goal: where no agent runs nothing is certified. Method: the real command without descriptors for a swarm.
#[test]
fn swarm_without_agents_is_not_certified() {
    let stage = stage!("certify");
    let mut command = std::process::Command::new("prlimit");
    let shoal = stage.shoal(&["certify", "--quick", "--json", "--only", "agents", "--out"]);
    command.arg("--nofile=24:24").arg(shoal.get_program()).args(shoal.get_args()).arg(stage.path("out"));
    for (name, value) in shoal.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let done = stage.start(command).ended();
    let report = json(&done.out);
    let agents = metric(&report);
    assert_eq!(
        (done.status, agents["verdict"].as_str(), &report["passed"]),
        (1, Some("failed"), &Value::Bool(false))
    );
    assert!(agents["target"]["measured"].is_null(), "{agents}");
    assert!(agents["why"][0].as_str().is_some_and(|why| why.contains("descriptor")), "{agents}");
}

#[test]
fn what_cannot_be_asked_for_or_written_is_refused_before_anything_runs() {
    let stage = stage!("certify");
    let file = stage.write("file", "");
    let nowhere = file.join("out");
    let nowhere = nowhere.to_str().expect("UTF-8");
    for (args, said) in [
        (&["certify", "--only", "speed"][..], "possible values: latency, throughput, agents"),
        (&["certify", "--out", nowhere], nowhere),
    ] {
        let done = stage.done(args);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
        assert!(done.err.contains(said), "{args:?}: {said:?} is not in {}", done.err);
    }
}
