//! Goal: with `swarm.realtime` keeper, supervisor, and trusted agents until they are ready go before others, and nobody else does. Method:
//! agents that tarry before they are ready, standbys, forks and a hook; the kernel is asked how each is scheduled.

use shoal::control::PsAgent;
use shoal_tests::{Running, Stage, stage, traces, until};
use std::fs;
use std::path::PathBuf;

const ORDINARY: (i32, i32) = (0, 0);
const URGENT: (i32, i32) = (1, 7);
const BATCH: (i32, i32) = (3, 0);

/// Policy and real-time priority of a process.
fn scheduled(pid: i32) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name: the priority is the 40th field of all, the policy the 41st.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[38].parse().ok()?, fields[37].parse().ok()?))
}

/// Whether this process has CAP_SYS_NICE.
pub fn may_schedule() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("of this process");
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("its capabilities");
    u64::from_str_radix(bits.trim(), 16).expect("a mask") & 1 << 23 != 0
}

fn until_scheduled(what: &str, wanted: (i32, i32), mut pid: impl FnMut() -> Option<i32>) {
    let mut seen = None;
    until(&format!("{what} scheduled as {wanted:?}"), || {
        seen = pid().and_then(scheduled);
        (seen == Some(wanted)).then_some(())
    });
}

fn swarm(stage: &Stage) -> PathBuf {
    let agent = |name: &str, kind: &str, lines: &str| {
        format!("[agent.{name}]\ncommand = [\"BIN/confined\", \"{kind}\"]\nready_timeout = \"1h\"\n{lines}\n")
    };
    let hook = stage.path("hook");
    let text = [
        "[swarm]\nname = \"NAME\"\nrealtime = 7\n".into(),
        agent("a", "tarries", ""),
        agent("b", "tarries", "trust = \"isolated\""),
        agent("c", "tarries", "limits = { scheduling = \"batch\" }"),
        agent("d", "idles", "standby = 1"),
        agent("e", "idles", "prefork = true"),
        format!(
            "[hooks]\nready = [\"/bin/sh\", \"-c\", \"cut -d' ' -f41 /proc/self/stat >> {}\"]\n",
            hook.display()
        ),
    ];
    stage.write("swarm.toml", &text.concat())
}

fn pid(shoal: &Running<'_>, name: &str) -> Option<i32> {
    let report = shoal.try_ps()?;
    report.agents.iter().find(|agent| agent.name == name)?.pid.map(|pid| pid as i32)
}

fn standby(shoal: &Running<'_>, name: &str) -> Option<i32> {
    let report = shoal.try_ps()?;
    let agent: &PsAgent = report.agents.iter().find(|agent| agent.name == name)?;
    agent.standbys.first().map(|pid| *pid as i32)
}

#[test]
fn urgent_is_whoever_others_wait_for_and_nobody_else() {
    let stage = stage!("urgent");
    let shoal = stage.run(&swarm(&stage));
    until("agents that tarry", || {
        ["a", "b", "c"].iter().all(|name| pid(&shoal, name).is_some()).then_some(())
    });
    if shoal.err().contains("`swarm.realtime` is not permitted") {
        assert!(!may_schedule(), "{}", shoal.err());
        until_scheduled("a", ORDINARY, || pid(&shoal, "a"));
        return;
    }
    for (name, wanted) in [("a", URGENT), ("b", ORDINARY), ("c", URGENT)] {
        until_scheduled(name, wanted, || pid(&shoal, name));
    }
    until_scheduled("the guard", ORDINARY, || Some(shoal.pid()));
    until_scheduled("the keeper", URGENT, || shoal.keeper());
    until_scheduled("the supervisor", URGENT, || shoal.supervisor());
    assert!(shoal.kill_supervisor());
    until_scheduled("the next supervisor", URGENT, || shoal.supervisor());
    fs::write(stage.path("go"), "").expect("written");
    for (name, wanted) in [("a", ORDINARY), ("b", ORDINARY), ("c", BATCH), ("d", ORDINARY), ("e", ORDINARY)] {
        until_scheduled(name, wanted, || pid(&shoal, name));
    }
    for name in ["d", "e"] {
        until_scheduled("a standby", ORDINARY, || standby(&shoal, name));
        let parked = standby(&shoal, name).expect("a standby");
        assert!(traces::kill(pid(&shoal, name).expect("it runs"), stage.mark()));
        until("the standby in its place", || (pid(&shoal, name) == Some(parked)).then_some(()));
        until_scheduled(name, ORDINARY, || pid(&shoal, name));
    }
    let zygote = shoal.try_ps().and_then(|report| report.agents.iter().find_map(|agent| agent.zygote));
    until_scheduled("the zygote", ORDINARY, || zygote.map(|pid| pid as i32));
    let told = fs::read_to_string(stage.path("hook")).unwrap_or_default();
    assert!(told.lines().count() >= 5 && told.lines().all(|policy| policy == "0"), "{told}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}
