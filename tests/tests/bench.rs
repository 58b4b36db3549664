//! `shoal bench` as a user runs it: what it prints, counts and refuses. Never how fast.
#![allow(missing_docs)]

use serde_json::Value;
use shoal_tests::{Done, Stage, stage};
use std::fs;

/// Spinning processes share two CPUs badly with more of their kind.
static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn json(done: &Done) -> Value {
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("JSON alone: {e}\n{}", done.out))
}

fn results(run: &Value) -> &[Value] {
    run["results"].as_array().expect("results")
}

fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().filter(|n| *n > 0.0).unwrap_or_else(|| panic!("no {key:?} in {result}"))
}

#[test]
fn latency_has_every_way_of_waiting_and_size_with_ratios_of_twenty_pairs_and_more() {
    let _alone = alone();
    let stage = stage!("bench");
    let run = json(&stage.done(&["bench", "latency", "--quick", "--json", "-"]));
    assert!(run["machine"]["cpu"].is_string() && run["machine"]["cpus"].as_u64() > Some(0), "{run}");
    let results = results(&run);
    let first = &results[0];
    let name = (first["case"].as_str(), first["mode"].as_str(), first["size_bytes"].as_u64());
    assert_eq!(name, (Some("latency"), Some("spin"), Some(64)));
    for mode in ["spin", "adaptive", "parked"] {
        for bytes in [8, 40, 64, 1024, 16384, 65536] {
            for case in ["latency", "round_trip"] {
                let is = |r: &&Value| r["case"] == case && r["mode"] == mode && r["size_bytes"] == bytes;
                assert_eq!(results.iter().filter(is).count(), 1, "{case} {mode} {bytes}");
            }
        }
    }
    for result in results {
        let [p50, p99, p999] = ["p50_ns", "p99_ns", "p999_ns"].map(|key| number(result, key));
        assert!(p50 <= p99 && p99 <= p999, "{result}");
        for key in ["count", "floor", "ratio_p50", "ratio_p99"] {
            number(result, key);
        }
        assert!(result["ratios"].as_array().is_some_and(|ratios| ratios.len() >= 20), "{result}");
    }
    stage.assert_nothing_left();
}

#[test]
fn removals_are_of_a_real_hostile_agent_and_beside_a_raw_kill() {
    let _alone = alone();
    let stage = stage!("bench");
    let run = json(&stage.done(&["bench", "removal", "--json", "-"]));
    let [removal] = results(&run) else { panic!("one result: {run}") };
    assert_eq!((removal["case"].as_str(), removal["mode"].as_str()), (Some("removal"), Some("hostile")));
    assert!(number(removal, "count") >= 41.0 && number(removal, "floor") > 0.0, "{removal}");
    assert!(number(removal, "p50_ns") <= number(removal, "p99_ns"), "{removal}");
    stage.assert_nothing_left();
}

#[test]
fn recoveries_are_of_real_kills_and_a_run_compared_with_itself_is_noise() {
    let _alone = alone();
    let stage = stage!("bench");
    let file = stage.path("former.json");
    let former = file.to_str().expect("UTF-8");
    let done = stage.done(&["bench", "recovery", "--json", former, "--report", stage.mark()]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    for way in ["cold", "standby", "fork"] {
        assert!(done.out.contains(&format!("recovery {way}")), "{}", done.out);
    }
    let run: Value = serde_json::from_str(&fs::read_to_string(&file).expect("written")).expect("JSON");
    let recovery = &results(&run)[0];
    assert!(number(recovery, "count") >= 20.0 && number(recovery, "p50_ns") > 1000.0, "{recovery}");
    let page = fs::read_to_string(stage.path("bench.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("recovery"), "{page}");
    // Every ratio ten times what it was.
    let mut worse = run.clone();
    for ratio in worse["results"][0]["ratios"].as_array_mut().expect("ratios") {
        *ratio = Value::from(ratio.as_f64().expect("a number") * 10.0);
    }
    let worse_file = stage.write("worse.json", &worse.to_string());
    let worse = worse_file.to_str().expect("UTF-8");
    for (results, compare, word) in
        [(former, former, "noise"), (former, worse, "faster"), (worse, former, "slower")]
    {
        let done = stage.done(&["bench", "--results", results, "--compare", compare]);
        let said = done.out.lines().find(|line| line.contains("confidence"));
        assert!(said.is_some_and(|line| line.contains(word)), "{word}: {}{}", done.out, done.err);
    }
    stage.assert_nothing_left();
}

#[test]
fn hundred_idle_agents_get_ready_and_end_and_what_they_cost_is_told() {
    let _alone = alone();
    let stage = stage!("bench");
    let run = json(&stage.done(&["bench", "scale", "--quick", "--json", "-"]));
    let modes: Vec<_> = results(&run).iter().filter_map(|result| result["mode"].as_str()).collect();
    assert_eq!(modes, ["ready 100", "idle 100", "stopped 100"]);
    for at in [0, 2] {
        assert!(number(&results(&run)[at], "p50_ns") > 1000.0, "{run}");
    }
    let idle = &results(&run)[1];
    assert_eq!(number(idle, "count"), 100.0);
    // More than a descriptor for each agent, and no more than the supervisor reckons with.
    assert!((100.0..1300.0).contains(&number(idle, "descriptors")), "{idle}");
    assert!(number(idle, "memory_bytes") > 1e6 && idle["idle_ticks"].is_u64(), "{idle}");
    stage.assert_nothing_left();
}

#[test]
fn fans_and_steps_count_what_was_delivered() {
    let _alone = alone();
    let stage = stage!("bench");
    let fans = json(&stage.done(&["bench", "fan", "--quick", "--json", "-"]));
    assert_eq!(results(&fans).len(), 6);
    for fan in results(&fans) {
        // 21 pairs of a tenth of 10,000 messages, whoever sends them and whoever receives them.
        assert!(number(fan, "count") >= 20_000.0 && number(fan, "msgs_per_s") > 0.0, "{fan}");
    }
    let steps = json(&stage.done(&["bench", "step", "--quick", "--json", "-"]));
    assert!(results(&steps).iter().all(|step| number(step, "count") >= 4_000.0), "{steps}");
    stage.assert_nothing_left();
}

#[test]
fn places_pauses_and_single_messages_are_measured_beside_their_floors() {
    let _alone = alone();
    let stage = stage!("bench");
    for (case, count) in [("placement", 4), ("sparse", 4), ("message", 16)] {
        let run = json(&stage.done(&["bench", case, "--quick", "--json", "-"]));
        assert_eq!(results(&run).len(), count, "{run}");
        for result in results(&run) {
            let figures = ["count", "p50_ns", "floor", "ratio_p50"].map(|name| number(result, name));
            assert!(figures.into_iter().all(|figure| figure > 0.0), "{result}");
            assert_eq!(case == "sparse", result["cpu_ns"].is_number(), "{result}");
        }
    }
    stage.assert_nothing_left();
}

fn refused(stage: &Stage, args: &[&str], said: &str) {
    let done = stage.done(args);
    assert_eq!((done.status, done.out.as_str()), (2, ""), "{args:?}: {}", done.err);
    assert!(done.err.contains(said), "{args:?}: {said:?} is not in {}", done.err);
}

#[test]
fn what_cannot_be_measured_or_compared_is_refused_before_anything_runs() {
    let _alone = alone();
    let stage = stage!("bench");
    refused(
        &stage,
        &["bench", "speed"],
        "there are: latency, throughput, placement, sparse, message, step, fan, spawn, recovery, removal, scale",
    );
    refused(&stage, &["bench", "--compare", "/nowhere.json"], "/nowhere.json");
    for (text, said) in [
        ("{", "no JSON"),
        ("{}", "not what `shoal bench --json` writes"),
        (r#"{"machine": {"format": 99}, "results": []}"#, "format 99"),
    ] {
        let file = stage.write("former.json", text);
        refused(&stage, &["bench", "latency", "--compare", file.to_str().expect("UTF-8")], said);
    }
    refused(&stage, &["bench-peer"], "starts the processes that it measures itself");
}
