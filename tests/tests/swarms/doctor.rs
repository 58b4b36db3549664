//! The doctor on this machine: it tries what swarms need, compares limits with a swarm file, finds and sweeps strays.

use rustix::process::Signal;
use serde_json::Value;
use shoal_tests::{Done, Stage, stage, traces, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn report(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}{}", done.out, done.err))
}

fn finding<'r>(report: &'r Value, what: &str) -> &'r Value {
    let findings = report["findings"].as_array().expect("findings");
    findings.iter().find(|f| f["what"] == what).unwrap_or_else(|| panic!("nothing on {what}: {report}"))
}

fn swarm(stage: &Stage) -> String {
    let file = stage.write(
        "swarm.toml",
        "[swarm]\nname = \"NAME\"\n[channel.tasks]\nmessage = \"Task\"\n[agent.lister]\ncommand = [\"BIN/misbehaving\", \"publishes\"]\n\
         publishes = [\"tasks\"]\n[agent.worker]\ncommand = [\"BIN/misbehaving\", \"subscribes\"]\nreplicas = 20\nsubscribes = [\"tasks\"]\n",
    );
    file.to_str().expect("a UTF-8 path").to_owned()
}

#[test]
fn what_these_tests_use_is_found_to_work_and_its_exit_status_is_the_worst_finding() {
    let stage = stage!("doctor");
    let done = stage.done(&["doctor", "--json", &swarm(&stage)]);
    let report = report(&done);
    // Swarms run in these tests, so nothing of this can be lacking.
    for what in [
        "sealed memory and the proof of death",
        "handles of processes",
        "spawning",
        "open descriptors",
        "memory",
    ] {
        assert_eq!(finding(&report, what)["weight"], "fine", "{report}");
    }
    let weights: Vec<_> =
        report["findings"].as_array().expect("findings").iter().map(|f| f["weight"].as_str()).collect();
    let limited = weights.contains(&Some("limits"));
    let expected = if limited { (1, "limited") } else { (0, "fine") };
    assert_eq!((done.status, report["verdict"].as_str().unwrap_or_default()), expected);
    let said = stage.done(&["doctor"]);
    assert_eq!(said.status, done.status);
    assert!(said.out.starts_with("kernel\n") && said.out.contains("\nbounds\n"), "{}", said.out);
    // What was tried left nothing.
    stage.assert_nothing_left();
}

/// Goal: doctor and start agree about control groups. Method: a share of a processor, which nothing stands in for, is asked for.
#[test]
fn a_limit_that_needs_a_control_group_is_said_to_lack_one_by_doctor_and_start_alike() {
    let stage = stage!("doctor-groups");
    let doctor = report(&stage.done(&["doctor", "--json"]));
    let found = finding(&doctor, "control groups for limits");
    let lacks = found["found"].as_str().is_some_and(|found| found.contains("limits.cpu: "));
    let file = stage.write(
        "swarm.toml",
        "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/confined\", \"idles\"]\nlimits = { cpu = \"50%\" }\n",
    );
    let mut shoal = stage.run(&file);
    let unapplied = shoal.until_ready().agents.remove(0).unapplied;
    assert_eq!(lacks, unapplied.iter().any(|lack| lack.starts_with("limits.cpu")), "{found} {unapplied:?}");
    assert_eq!(
        found["weight"] == "fine",
        !found["found"].as_str().is_some_and(|f| f.contains(": ")),
        "{found}"
    );
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn swarm_that_needs_more_descriptors_than_there_are_cannot_run_here() {
    let stage = stage!("doctor-limits");
    let file = swarm(&stage);
    let done = stage.finish(stage.shoal_limited("-n 200", &["doctor", "--json", &file]));
    let report = report(&done);
    assert_eq!((done.status, &report["verdict"]), (2, &Value::from("cannot run")));
    let lack = finding(&report, "open descriptors");
    assert_eq!((&lack["weight"], &lack["found"]), (&"stops".into(), &"needs 396, there are 200".into()));
    assert!(lack["advice"].as_str().is_some_and(|advice| advice.contains("ulimit -Hn")), "{lack}");
    // And so it is: the supervisor refuses for the same reason.
    let run = stage.finish(stage.shoal_limited("-n 200", &["run", &file]));
    assert_eq!(run.status, 2);
    assert!(run.err.contains("needs up to 396 open descriptors"), "{}", run.err);
    assert_eq!(stage.done(&["doctor", "absent.toml"]).status, 2);
}

/// Goal: an agent whose supervisor is gone is found whoever adopted it, and one that was started by hand is not. Method: a process with an
/// agent's environment and a session of its own, as adopted ones have; and one in the session of its parent.
#[test]
fn agents_that_somebody_adopted_are_strays_and_agents_that_somebody_starts_are_none() {
    let stage = stage!("doctor-adopted");
    let start = |program: &str, args: &[&str], name: &str| {
        let mut command = Command::new(program);
        command.args(args).env("SHOAL_AGENT", name).env("SHOAL_SWARM", stage.name());
        stage.start(command)
    };
    let by_hand = start("sleep", &["1000"], "hand");
    let adopted = start("setsid", &["sleep", "1000"], "heir");
    let found = until("the stray", || {
        let report = report(&stage.done(&["doctor", "--json"]));
        let findings = report["findings"].as_array().expect("findings").clone();
        let what = findings.iter().filter_map(|f| f["what"].as_str());
        let ours: Vec<String> = what.filter(|what| what.contains(stage.name())).map(str::to_owned).collect();
        (!ours.is_empty()).then_some(ours)
    });
    assert_eq!(found, [format!("agent heir of `{}`, process {}", stage.name(), adopted.pid())]);
    drop((by_hand, adopted));
}

/// What the doctor says was left on this stage.
fn strays(stage: &Stage, report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    // Other tests' beacons come and go.
    let ours = findings.iter().filter(|f| f["group"] == "strays" && f["weight"] != "fine");
    let ours = ours.filter_map(|f| f["what"].as_str()).filter(|what| what.contains(stage.name()));
    ours.map(str::to_owned).collect()
}

/// Kills all processes of a swarm, and nobody tidies up.
fn kill_all(stage: &Stage) {
    // Stopped first, so that nobody who survives the others does; and children before their parents, whose end would have the kernel
    // continue them.
    for signal in [Signal::STOP, Signal::KILL] {
        let pids = traces::marked(stage.mark()).into_iter().rev();
        pids.for_each(|pid| _ = traces::send(pid, stage.mark(), signal));
    }
    stage.until_no_process();
}

/// A control group of a test's own, and one below it; they go with this.
struct Groups(PathBuf);

impl Groups {
    fn make(stage: &Stage) -> Option<Groups> {
        let mounts = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        mounts.into_iter().filter(|mount| mount.join("cgroup.procs").exists()).find_map(|mount| {
            let groups = Groups(mount.join(stage.name()));
            fs::create_dir(&groups.0).and_then(|()| fs::create_dir(groups.own())).ok().map(|()| groups)
        })
    }

    fn own(&self) -> PathBuf {
        self.0.join("own")
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in [self.own(), self.0.clone()] {
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            below.for_each(|entry| _ = fs::remove_dir(entry.path()));
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Goal: the control groups of a swarm of which everybody was killed are said, and go when that is asked for, not before. Method: a swarm
/// with a bound, in a group of the test's own, where no other swarm looks for what was left.
#[test]
fn control_groups_of_a_killed_swarm_are_found_and_stay_until_they_are_swept() {
    let stage = stage!("doctor-groups-left");
    let Some(groups) = Groups::make(&stage) else {
        return println!("nobody may make control groups here: nothing to see");
    };
    let text = "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/misbehaving\", \"idle\"]\nlimits = { processes = 9 }\n";
    let file = stage.write("swarm.toml", text);
    let enter = format!("echo $$ >{}/cgroup.procs", groups.own().display());
    let there = |args: &[&str]| stage.shoal_after(&enter, args);
    let found = || strays(&stage, &report(&stage.finish(there(&["doctor", "--json"]))));
    let mut shoal = stage.start(there(&["run", file.to_str().expect("a UTF-8 path")]));
    shoal.until_ready();
    let made = traces::cgroups(&traces::owner(shoal.pid()));
    let made: Vec<_> = made.into_iter().filter(|made| made.starts_with(&groups.0)).collect();
    assert!(!made.is_empty(), "the swarm made none");
    let of_groups = |found: &[String]| found.iter().filter(|what| what.starts_with("control group ")).count();
    assert_eq!(of_groups(&found()), 0, "what runs has left nothing");
    kill_all(&stage);
    drop(shoal);
    for _ in 0..2 {
        let found = found();
        assert_eq!(of_groups(&found), made.len(), "{found:?}");
        assert!(
            made.iter().all(|made| found.contains(&format!("control group {}", made.display()))),
            "{found:?}"
        );
    }
    let swept = stage.finish(there(&["doctor", "--sweep"]));
    for made in made {
        assert!(swept.out.contains(&format!("control group {}: removed\n", made.display())), "{}", swept.out);
        assert!(!made.exists());
    }
    assert_eq!(of_groups(&found()), 0);
    stage.assert_nothing_left();
}

#[test]
fn what_a_killed_supervisor_left_is_found_and_swept() {
    let stage = stage!("doctor-strays");
    let file = swarm(&stage);
    let mut shoal = stage.run(file.as_ref());
    shoal.until_ready();
    let lived = report(&stage.done(&["doctor", "--json"]));
    let strays = |report: &Value| strays(&stage, report);
    assert_eq!(strays(&lived), Vec::<String>::new(), "what runs is no stray");
    kill_all(&stage);
    drop(shoal);
    let found = strays(&report(&stage.done(&["doctor", "--json"])));
    assert!(found.iter().any(|what| what.starts_with("folder of ")), "{found:?}");
    assert!(found.iter().any(|what| what.starts_with("beacon of ")), "{found:?}");
    let swept = stage.done(&["doctor", "--sweep"]);
    assert!(swept.out.contains(&format!("folder of `{}`", stage.name())), "{}", swept.out);
    assert_eq!(strays(&report(&stage.done(&["doctor", "--json"]))), Vec::<String>::new());
    stage.assert_nothing_left();
}

/// Goal: a swarm whose folder was removed under it is found, once, and what is advised ends it. Method: a second one of its name runs
/// beside it, and is not found.
#[test]
fn swarm_that_runs_without_its_folder_is_found_and_ends_as_is_advised() {
    let stage = stage!("doctor-homeless");
    let file = swarm(&stage);
    let mut lost = stage.run(file.as_ref());
    lost.until_ready();
    fs::remove_dir_all(stage.run_folder()).expect("removed");
    let mut second = stage.run(file.as_ref());
    second.until_ready();
    let doctor = || report(&stage.done(&["doctor", "--json", "--sweep"]));
    let seen = doctor();
    let what = format!("swarm of {}, process {}", stage.run_folder().display(), lost.pid());
    assert_eq!(strays(&stage, &seen), [what.as_str()]);
    let stray = finding(&seen, &what);
    assert_eq!(stray["weight"], "limits", "{stray}");
    let advised = format!("`kill {}` ends it in order", lost.pid());
    assert!(stray["advice"].as_str().is_some_and(|advice| advice.starts_with(&advised)), "{stray}");
    assert_eq!(lost.stop().status, 0);
    assert_eq!(strays(&stage, &doctor()), Vec::<String>::new());
    assert_eq!(second.stop().status, 0);
}
