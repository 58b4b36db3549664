//! `shoal bench` as a user runs it: what it prints, counts and refuses. Never how fast.
//!
//! A binary of its own: processes that spin on the CPUs would hold up the whole swarms of `swarms/`, and be held up by them.
#![allow(missing_docs)]

use rustix::process::Signal;
use serde_json::Value;
use shoal_tests::clone::{self, Clone};
use shoal_tests::{Done, Stage, stage, traces, until};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// They share two CPUs badly with more of their kind, too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Goal: every case measures what it says, beside its floor, and the README's commands show and compare it. Method: its commands as
/// written, with a tenth of the messages, in a folder like a clone; then what they wrote is looked at.
#[test]
fn the_readmes_commands_measure_every_case_and_compare_with_the_run_before() {
    let _alone = alone();
    let clone = Clone::new(env!("CARGO_BIN_EXE_shoal-under-test"));
    let block = clone::blocks(include_str!("../../README.md"), "sh");
    let block = block.into_iter().find(|block| block.contains("cargo bench")).expect("a block that measures");
    let block = block.replace("shoal bench", "shoal bench --quick");
    let out = clone.run(&format!("export PATH=\"$PWD/target/release:$PATH\"\n{block}"));
    for said in [
        "latency spin 64 B",
        "fan 100 into 1 64 B",
        "500 of 500 messages delivered",
        "recovery cold",
        "recovery standby",
        "recovery fork",
        "confidence",
    ] {
        assert!(out.contains(said), "{said:?} is not in {out}");
    }
    assert_eq!(clone.noted(), "bench\n");
    let file = clone.path("bench.json");
    let run: Value = serde_json::from_str(&fs::read_to_string(&file).expect("written")).expect("JSON");
    assert!(run["machine"]["cpu"].is_string() && run["machine"]["cpus"].as_u64() > Some(0), "{run}");
    latency_has_every_way_of_waiting_and_size_with_ratios_of_twenty_pairs_and_more(results(&run));
    kills_are_real_and_beside_a_raw_one(&run);
    fans_and_steps_count_what_was_delivered(&run);
    places_pauses_and_single_messages_are_beside_their_floors(&run);
    hundred_idle_agents_get_ready_and_end_and_what_they_cost_is_told(&run);
    recorded_run_is_shown_and_compared(&run);
}

/// The results of a case.
fn of<'r>(run: &'r Value, case: &str) -> Vec<&'r Value> {
    results(run).iter().filter(|result| result["case"] == case).collect()
}

fn latency_has_every_way_of_waiting_and_size_with_ratios_of_twenty_pairs_and_more(results: &[Value]) {
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
    for result in results.iter().filter(|r| r["case"] == "latency" || r["case"] == "round_trip") {
        let [p50, p99, p999] = ["p50_ns", "p99_ns", "p999_ns"].map(|key| number(result, key));
        assert!(p50 <= p99 && p99 <= p999, "{result}");
        for key in ["count", "floor", "ratio_p50", "ratio_p99"] {
            number(result, key);
        }
        assert!(result["ratios"].as_array().is_some_and(|ratios| ratios.len() >= 20), "{result}");
    }
}

fn kills_are_real_and_beside_a_raw_one(run: &Value) {
    let [removal] = of(run, "removal")[..] else { panic!("one removal: {run}") };
    assert_eq!(removal["mode"].as_str(), Some("hostile"));
    assert!(number(removal, "count") >= 41.0 && number(removal, "floor") > 0.0, "{removal}");
    assert!(number(removal, "p50_ns") <= number(removal, "p99_ns"), "{removal}");
    for (hang, (mode, deadline_ns)) in of(run, "hang").into_iter().zip([("20 ms", 20e6), ("100 ms", 100e6)]) {
        assert_eq!(hang["mode"].as_str(), Some(mode), "{hang}");
        // Nobody is ended before its deadline, by its own stamp; nor is a kill beside it free.
        assert!(number(hang, "p50_ns") >= deadline_ns && number(hang, "floor") > deadline_ns, "{hang}");
        assert!(number(hang, "count") >= 20.0 && number(hang, "p50_ns") <= number(hang, "p99_ns"), "{hang}");
    }
    assert_eq!(of(run, "hang").len(), 2);
    let takeovers = of(run, "takeover");
    let modes: Vec<_> = takeovers.iter().filter_map(|result| result["mode"].as_str()).collect();
    let of_each = |n: u32| {
        let kinds =
            ["watching N", "N", "next death seen N", "messages meanwhile N", "messages beside work N"];
        let in_a_row = ["messages in a row meanwhile N", "messages in a row beside work N"];
        kinds.into_iter().chain(in_a_row).map(|mode| mode.replace('N', &n.to_string())).collect::<Vec<_>>()
    };
    let crowded = ["watching 100 crowded", "100 crowded"].map(str::to_owned);
    assert_eq!(modes, [of_each(10), of_each(100), crowded.to_vec()].concat());
    let (messages, takeovers): (Vec<&Value>, Vec<&Value>) = takeovers
        .into_iter()
        .partition(|result| result["mode"].as_str().is_some_and(|mode| mode.starts_with("messages")));
    assert_eq!(messages.len(), 8);
    for taken in messages {
        // Some were under way each time, and some while nothing died.
        assert!(number(taken, "count") > 0.0 && number(taken, "floor") > 0.0, "{taken}");
        assert!(number(taken, "p50_ns") <= number(taken, "p99_ns"), "{taken}");
    }
    for takeover in takeovers {
        // More than no time, and beside one raw death each.
        assert!(number(takeover, "p50_ns") > 10_000.0 && number(takeover, "floor") > 0.0, "{takeover}");
        assert_eq!(number(takeover, "count"), 41.0, "{takeover}");
        assert!(number(takeover, "p50_ns") <= number(takeover, "p99_ns"), "{takeover}");
    }
    let orphans = of(run, "orphans");
    let modes: Vec<_> = orphans.iter().filter_map(|result| result["mode"].as_str()).collect();
    assert_eq!(modes, ["keeper 100", "guard 100", "supervisor 100"]);
    for orphan in orphans {
        assert_eq!(number(orphan, "count"), 2.0, "{orphan}");
        assert!(number(orphan, "p50_ns") > 100_000.0 && number(orphan, "floor") > 100_000.0, "{orphan}");
    }
    let plain = of(run, "recovery");
    let modes: Vec<_> = plain.iter().filter_map(|result| result["mode"].as_str()).collect();
    assert_eq!(modes, ["cold", "standby", "fork"]);
    let hard = of(run, "hardship");
    let modes: Vec<_> = hard.iter().filter_map(|result| result["mode"].as_str()).collect();
    let ways = ["cold", "standby", "fork"];
    let each = |hows: &[&str]| {
        ways.map(|way| hows.iter().map(|how| format!("{way}{how}")).collect::<Vec<_>>()).concat()
    };
    let crowded = each(&[" crowded", " crowded, killed from outside"]);
    let gathered = |how: &str| ["standby", "fork"].map(|way| format!("{way} 16 MiB {how}")).to_vec();
    let large = [
        each(&[" 16 MiB"]),
        gathered("loaded ahead"),
        gathered("taken at work"),
        each(&[" 16 MiB in small pages"]),
    ];
    let last = vec!["cold, after 1,000 kills".into()];
    assert_eq!(modes, [large.concat(), crowded, each(&[" rested"]), last].concat());
    let last = hard.last().expect("several");
    let held = ["descriptors", "memory_bytes"].map(|key| last[key].as_u64());
    assert_eq!(held, [Some(0), Some(0)], "nothing is held more: {last}");
    for recovery in plain.iter().chain(&hard) {
        assert!(number(recovery, "count") >= 41.0 && number(recovery, "p50_ns") > 1000.0, "{recovery}");
    }
}

fn hundred_idle_agents_get_ready_and_end_and_what_they_cost_is_told(run: &Value) {
    let scale = of(run, "scale");
    let modes: Vec<_> = scale.iter().filter_map(|result| result["mode"].as_str()).collect();
    assert_eq!(modes, ["ready 100", "idle 100", "stopped 100", "lane of 64 KiB"]);
    // Beside its ring a lane has a header, a place in its reader's segment, and what both ends and the supervisor keep of it.
    let beyond = number(scale[3], "memory_bytes");
    assert!(
        (1.0..=8192.0).contains(&beyond),
        "a lane takes {beyond} bytes beyond its ring, more than two pages, or nothing"
    );
    for at in [0, 2] {
        assert!(number(scale[at], "p50_ns") > 1000.0, "{run}");
    }
    let idle = scale[1];
    assert_eq!(number(idle, "count"), 100.0);
    // More than a descriptor for each agent, and no more than the supervisor reckons with.
    assert!((100.0..1300.0).contains(&number(idle, "descriptors")), "{idle}");
    assert!(number(idle, "memory_bytes") > 1e6 && number(idle, "agent_bytes") > 1e4, "{idle}");
    // Nobody wakes an agent that has nothing to do.
    assert_eq!(idle["agents_cpu_ns"].as_u64(), Some(0), "{idle}");
    assert!(idle["supervisor_cpu_ns"].is_f64(), "{idle}");
}

fn fans_and_steps_count_what_was_delivered(run: &Value) {
    assert_eq!(of(run, "fan").len(), 6);
    for fan in of(run, "fan") {
        // 21 pairs of a tenth of 200,000 messages or so, whoever sends them and whoever receives them.
        assert!(number(fan, "count") >= 20_000.0 && number(fan, "msgs_per_s") > 0.0, "{fan}");
    }
    let steps = of(run, "step");
    assert!(!steps.is_empty() && steps.iter().all(|step| number(step, "count") >= 4_000.0), "{steps:?}");
}

fn places_pauses_and_single_messages_are_beside_their_floors(run: &Value) {
    for (case, count) in [("placement", 4), ("sparse", 4), ("text", 2), ("message", 20)] {
        assert_eq!(of(run, case).len(), count, "{run}");
        for result in of(run, case) {
            let figures = ["count", "p50_ns", "floor", "ratio_p50"].map(|name| number(result, name));
            assert!(figures.into_iter().all(|figure| figure > 0.0), "{result}");
            assert_eq!(case == "sparse", result["cpu_ns"].is_number(), "{result}");
        }
    }
}

/// A run that was recorded makes a page, and beside itself is noise; beside one ten times worse it is faster.
fn recorded_run_is_shown_and_compared(run: &Value) {
    let stage = stage!("bench");
    let kept: Vec<_> = of(run, "recovery");
    let former = serde_json::json!({ "machine": run["machine"], "results": kept });
    let mut worse = former.clone();
    for ratio in worse["results"][0]["ratios"].as_array_mut().expect("ratios") {
        *ratio = Value::from(ratio.as_f64().expect("a number") * 10.0);
    }
    let [former, worse] = [("former.json", former), ("worse.json", worse)]
        .map(|(name, run)| stage.write(name, &run.to_string()).to_str().expect("UTF-8").to_owned());
    let done = stage.done(&["bench", "--results", &former, "--report", stage.mark()]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    let page = fs::read_to_string(stage.path("bench.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("recovery"), "{page}");
    for (results, compare, word) in
        [(&former, &former, "noise"), (&former, &worse, "faster"), (&worse, &former, "slower")]
    {
        let done = stage.done(&["bench", "--results", results, "--compare", compare]);
        let said = done.out.lines().find(|line| line.contains("confidence"));
        assert!(said.is_some_and(|line| line.contains(word)), "{word}: {}{}", done.out, done.err);
    }
}

/// Goal: a swarm that was started to be measured does not outlive the measurement. Method: SIGKILL as soon as agents run in it.
#[test]
fn killed_measurement_leaves_no_swarm() {
    let _alone = alone();
    let stage = stage!("bench");
    let mut shoal = stage.start(stage.shoal(&["bench", "takeover", "--quick"]));
    let agents = || traces::marked(stage.mark()).len() > 5;
    until("agents of the measured swarm", || agents().then_some(()));
    // Those that talk note what they see, and write it down when they are asked to end.
    until("all of them ready", || {
        let report: Value = serde_json::from_str(&stage.done(&["ps", "--json"]).out).ok()?;
        report["agents"].as_array()?.iter().all(|agent| agent["state"] == "ready").then_some(())
    });
    let notes = std::env::temp_dir().join(format!("shoal-bench-{}", shoal.pid()));
    shoal.send(Signal::KILL);
    assert_eq!(shoal.ended().status, 128 + 9);
    stage.until_no_process();
    assert!(!notes.exists(), "{} is left", notes.display());
    stage.assert_nothing_left();
}

/// One case alone, on standard output alone.
#[test]
fn json_of_one_case_is_all_that_is_printed() {
    let _alone = alone();
    let stage = stage!("bench");
    let run = json(&stage.done(&["bench", "message", "--quick", "--json", "-"]));
    assert_eq!(of(&run, "message").len(), results(&run).len(), "{run}");
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
        "there are: latency, throughput, placement, sparse, text, message, step, fan, spawn, recovery, hardship, removal, hang, scale",
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
