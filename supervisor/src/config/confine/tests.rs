//! What the keys of an agent's confinement say, and what is refused.

use super::*;
use crate::config::{SwarmFile, parse};
use std::path::Path;

fn text(agent: &str) -> String {
    format!(
        "[swarm]\nname = \"s\"\n[channel.c]\nmessage = \"M\"\n[agent.p]\ncommand = [\"x\"]\npublishes = [\"c\"]\n\
         [agent.a]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\n{agent}\n"
    )
}

fn read(agent: &str) -> SwarmFile {
    parse(Path::new("/dir/swarm.toml"), &text(agent)).unwrap_or_else(|error| panic!("{error}"))
}

fn confinement(agent: &str) -> Confinement {
    Confinement::clone(&read(agent).agents[1].confinement)
}

/// The keys that are complained about, each on its line.
fn refused(agent: &str) -> Vec<(usize, String)> {
    let error = parse(Path::new("/dir/swarm.toml"), &text(agent)).expect_err("refused");
    error.problems.iter().map(|p| (p.line, p.key.clone())).collect()
}

#[test]
fn agent_of_which_nothing_is_said_is_trusted_and_gains_no_rights() {
    assert_eq!(confinement(""), Confinement::default());
    assert!(Confinement::default().no_new_privs);
}

#[test]
fn every_bound_is_read() {
    let limits = confinement(
        "limits = { memory = \"64 MiB\", cpu = \"150%\", cpu_time = \"5s\", processes = 3, open_files = 64, file_size = 0, \
         core_size = 4096, nice = -5, scheduling = \"fifo:7\", cpus = [0, 1] }",
    )
    .limits;
    let expected = Limits {
        memory_bytes: Some(64 << 20),
        cpu_percent: Some(150),
        cpu_time: Some(Duration::from_secs(5)),
        processes: Some(3),
        open_files: Some(64),
        file_size_bytes: Some(0),
        core_size_bytes: Some(4096),
        nice: Some(-5),
        scheduling: Some(Scheduling::Fifo(7)),
        cpus: vec![0, 1],
    };
    assert_eq!(limits, expected);
}

#[test]
fn tiers_bring_their_filters_and_a_hostile_one_its_quotas() {
    let isolated = confinement("trust = \"isolated\"");
    assert_eq!((isolated.profile, isolated.env_clear), (Profile::Default, false));
    let hostile = confinement("trust = \"hostile\"\nlimits = { memory = \"2 MiB\" }");
    assert_eq!((hostile.profile, hostile.env_clear), (Profile::Strict, true));
    assert_eq!(hostile.limits.memory_bytes, Some(2 << 20), "the file's word stands");
    let quotas = confinement("trust = \"hostile\"").limits;
    assert_eq!(
        (quotas.memory_bytes, quotas.processes, quotas.open_files),
        (Some(512 << 20), Some(64), Some(256))
    );
    assert_eq!((quotas.file_size_bytes, quotas.core_size_bytes), (Some(64 << 20), Some(0)));
}

#[test]
fn paths_are_relative_to_the_swarm_file() {
    let all = confinement(
        "cwd = \"work\"\nsecrets = { KEY = \"../key\" }\nlandlock = { read = [\"/usr\"], write = [\"out\"] }",
    );
    assert_eq!(all.cwd, Some("/dir/work".into()));
    assert_eq!(all.secrets["KEY"], Path::new("/dir/../key"));
    let reach = all.reach.expect("paths");
    assert_eq!((reach.read, reach.write), (vec!["/usr".into()], vec!["/dir/out".into()]));
}

#[test]
fn what_takes_back_a_tiers_promise_is_refused() {
    let key = |name: &str| vec![(11, format!("agent.a.{name}"))];
    assert_eq!(refused("seccomp = \"none\"\ntrust = \"isolated\""), key("seccomp"));
    assert_eq!(refused("seccomp = \"default\"\ntrust = \"hostile\""), key("seccomp"));
    assert_eq!(refused("no_new_privs = false\nseccomp = \"default\""), key("no_new_privs"));
    assert_eq!(refused("replicas = 2\ntrust = \"hostile\""), key("replicas"));
}

#[test]
fn members_of_a_group_are_trusted_alike_and_hostile_ones_are_members_of_none() {
    let mate = |trust: &str| {
        format!(
            "group = \"g\"\n[agent.b]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\ngroup = \"g\"\ntrust = \"{trust}\""
        )
    };
    assert_eq!(read(&mate("trusted")).agents.len(), 3);
    assert_eq!(refused(&mate("isolated")), [(15, "agent.b.group".to_owned())]);
    let hostile = refused(&mate("hostile"));
    assert!(hostile.contains(&(15, "agent.b.group".to_owned())), "{hostile:?}");
    let same = format!("trust = \"isolated\"\n{}", mate("isolated"));
    assert_eq!(read(&same).agents.len(), 3);
}

#[test]
fn bad_values_are_told_with_line_and_key() {
    for (value, key) in [
        ("trust = \"friend\"", "trust"),
        ("seccomp = \"lax\"", "seccomp"),
        ("user = \"nobody-of-that-name\"", "user"),
        ("user_group = \"users\"", "user_group"),
        ("cwd = \"\"", "cwd"),
        ("env_allow = [\"A=B\"]", "env_allow"),
        ("secrets = { \"A-B\" = \"x\" }", "secrets.A-B"),
        ("landlock = { reed = [] }", "landlock.reed"),
        ("limits = { memory = \"1 KiB\" }", "limits.memory"),
        ("limits = { cpu = \"0%\" }", "limits.cpu"),
        ("limits = { cpu = 1 }", "limits.cpu"),
        ("limits = { processes = 0 }", "limits.processes"),
        ("limits = { open_files = 3 }", "limits.open_files"),
        ("limits = { nice = 20 }", "limits.nice"),
        ("limits = { scheduling = \"fifo\" }", "limits.scheduling"),
        ("limits = { cpus = [1024] }", "limits.cpus"),
        ("limits = { memroy = 1 }", "limits.memroy"),
    ] {
        assert_eq!(refused(value), [(11, format!("agent.a.{key}"))], "{value}");
    }
}

#[test]
fn what_is_not_on_this_machine_is_told_when_the_file_is_read_for_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("swarm.toml");
    std::fs::write(folder.path().join("large"), vec![b'x'; SECRET_BYTES_MAX as usize + 1]).expect("written");
    std::fs::write(folder.path().join("key"), "s3cret").expect("written");
    let lines = "cwd = \"none\"\nsecrets = { GONE = \"gone\", LARGE = \"large\", DIR = \".\", KEY = \"key\" }\n\
                 landlock = { read = [\"key\", \"nothing\"] }";
    std::fs::write(&path, text(lines).replace("\"x\"", "\"/bin/true\"")).expect("written");
    let error = crate::config::read(&path).expect_err("refused");
    let told: Vec<_> = error.problems.iter().map(|p| (p.line, p.key.as_str())).collect();
    let expected = [
        (11, "agent.a.cwd"),
        (12, "agent.a.secrets.GONE"),
        (12, "agent.a.secrets.LARGE"),
        (12, "agent.a.secrets.DIR"),
        (13, "agent.a.landlock.read"),
    ];
    assert_eq!(told, expected, "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
