//! Goal: an agent's process is bounded as the swarm file says, from its first instruction on, and what cannot be applied is said.
//! Method: real agents under the real supervisor tell what the kernel says of them, or strain at their bounds.

use crate::urgent::may_schedule;
use rustix::process::{Pid, getpriority_process};
use rustix::thread::sched_getaffinity;
use shoal::control::{PsAgent, PsState};
use shoal_tests::stage::Relayed;
use shoal_tests::{Running, Stage, stage, traces};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn swarm(stage: &Stage, kind: &str, lines: &str) -> std::path::PathBuf {
    let text = format!(
        "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/confined\", \"{kind}\"]\n{lines}\n\
         [agent.b]\ncommand = [\"BIN/confined\", \"idles\"]\n"
    );
    stage.write("swarm.toml", &text)
}

/// What an agent with these lines in its table tells of itself; and what the supervisor said.
fn told(stage: &Stage, lines: &str) -> (String, String) {
    let mut running = stage.run(&swarm(stage, "tells", lines));
    running.until_said("told");
    let (out, err) = (running.out(), running.err());
    assert_eq!(running.stop().status, 0, "{err}");
    stage.assert_nothing_left();
    (out, err)
}

fn assert_said(out: &str, lines: &[&str]) {
    for line in lines {
        assert!(out.lines().any(|said| said.ends_with(line)), "no {line:?} in\n{out}");
    }
}

#[test]
fn agent_of_which_nothing_is_said_gains_no_rights_and_is_free_otherwise() {
    let stage = stage!("confined-not");
    let (out, err) = told(&stage, "");
    assert_said(&out, &["NoNewPrivs: 1", "Seccomp: 0", "policy 0"]);
    assert!(!err.contains("runs without"), "{err}");
}

#[test]
fn bounds_of_the_swarm_file_are_the_processes() {
    let stage = stage!("confined");
    fs::create_dir(stage.path("inside")).expect("a folder");
    fs::write(stage.path("inside/file"), "x").expect("written");
    fs::write(stage.path("outside"), "x").expect("written");
    fs::write(stage.path("key"), "s3cret\n").expect("written");
    let cpu = rustix::thread::sched_getaffinity(None).expect("an affinity");
    let cpu = (0..1024).find(|number| cpu.is_set(*number)).expect("a processor");
    let (out, _) = told(
        &stage,
        &format!(
            "cwd = \".\"\nenv_clear = true\nenv_allow = [\"SHOAL_TEST_FOLDER\"]\nsecrets = {{ KEY = \"key\" }}\n\
             seccomp = \"default\"\nlandlock = {{ read = [\"inside\", \"/proc\"] }}\n\
             limits = {{ cpu_time = \"300s\", open_files = 64, file_size = \"3 MiB\", core_size = 0, nice = 7, \
             scheduling = \"batch\", cpus = [{cpu}] }}"
        ),
    );
    assert_said(
        &out,
        &[
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "Max cpu time 300 300 seconds",
            "Max file size 3145728 3145728 bytes",
            "Max core file size 0 0 bytes",
            "Max open files 64 64 files",
            "nice 7 policy 3",
            &format!("Cpus_allowed_list: {cpu}"),
            &format!("cwd {}", stage.mark()),
            "environment SHOAL_AGENT SHOAL_CONTROL_FD SHOAL_SECRET_KEY SHOAL_SWARM SHOAL_TEST_FOLDER",
            "secret KEY has 7 bytes: Secret(7 bytes)",
            "outside Permission denied (os error 13) inside read",
        ],
    );
    assert!(out.contains("was given no secret \"NONE\": add secrets = { NONE = \"FILE\" }"), "{out}");
}

#[test]
fn hostile_agent_of_whose_bounds_nothing_is_said_has_those_of_its_tier() {
    let stage = stage!("confined-quotas");
    let (out, _) = told(&stage, "trust = \"hostile\"\nlandlock = { read = [\"/proc\"] }");
    let bounds =
        ["file size 67108864 67108864 bytes", "core file size 0 0 bytes", "open files 256 256 files"];
    assert_said(&out, &bounds.map(|bound| format!("Max {bound}")).each_ref().map(String::as_str));
}

#[test]
fn secret_stands_in_no_command_line_no_environment_no_log_and_no_file_but_its_own() {
    let stage = stage!("confined-secret");
    fs::write(stage.path("key"), "s3cret-of-nobody\n").expect("written");
    let mut running = stage.run(&swarm(&stage, "tells", "secrets = { KEY = \"key\" }"));
    running.until_said("told");
    let processes = traces::marked(stage.mark());
    assert!(processes.len() >= 3, "{processes:?}");
    for pid in processes {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains("s3cret"), "{file} of {pid}");
        }
    }
    // Nor in what is told of its death, and of its next life, which is given it again.
    assert!(traces::kill(running.pid_of("a"), stage.mark()));
    running.until_agent("a", "back", |a| (a.generation == 2 && a.state == PsState::Ready).then_some(()));
    for asked in
        [&["crashes", "show", "1", "--json"][..], &["crashes", "show", "1"], &["events"], &["ps", "--json"]]
    {
        let done = stage.done(asked);
        assert!(
            done.status == 0 && !done.out.is_empty() && !done.out.contains("s3cret"),
            "{asked:?}: {done:?}"
        );
    }
    let (out, err) = (running.out(), running.err());
    assert!(out.contains("secret KEY has 17 bytes") && !(out + &err).contains("s3cret"));
    let holders = files_with(&stage.path(""), "s3cret");
    assert_eq!(holders, [stage.path("key")]);
    assert_eq!(running.stop().status, 0);
}

#[test]
fn secret_is_read_again_at_each_start_and_children_do_not_inherit_it_once_it_was_read() {
    let stage = stage!("confined-secret-read");
    fs::write(stage.path("key"), "s3cret\n").expect("written");
    let mut running = stage.run(&swarm(&stage, "hands-down", "secrets = { KEY = \"key\" }"));
    running.until_said("a secret of 7 bytes, inherited before: true, after: false");
    fs::write(stage.path("key"), "another s3cret\n").expect("written");
    assert_eq!(stage.done(&["restart", "a"]).status, 0, "{}", running.err());
    running.until_said("a secret of 15 bytes, inherited before: true, after: false");
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

/// The files below a folder that hold a text.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file()
            && String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(text)
        {
            found.push(path);
        }
    }
    found
}

/// It gives a process further groups.
const SETPRIV: &str = "/usr/bin/setpriv";

/// The same command by somebody of two further groups, which nobody inherits who is somebody else.
fn in_more_groups(command: Command) -> Command {
    if !Path::new(SETPRIV).exists() {
        eprintln!("no further groups: there is no {SETPRIV}");
        return command;
    }
    let mut more = Command::new(SETPRIV);
    more.args(["--groups", "4711,4712"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => more.env(name, value),
            None => more.env_remove(name),
        };
    }
    more.current_dir(command.get_current_dir().expect("the stage's folder")).stdin(Stdio::null());
    more
}

#[test]
fn hostile_agent_is_of_no_group_of_the_supervisors_and_whoever_has_its_user_keeps_them() {
    if !rustix::process::geteuid().is_root() || !Path::new(SETPRIV).exists() {
        return eprintln!(
            "not looked at: only root runs agents as somebody else, and {SETPRIV} has it in groups"
        );
    }
    let hostile = "trust = \"hostile\"\nlandlock = { read = [\"/proc\"] }";
    for (lines, groups) in [(hostile, "Groups:"), ("", "Groups: 4711 4712")] {
        let stage = stage!("confined-groups");
        let file = swarm(&stage, "tells", lines);
        let mut running = stage.start(in_more_groups(stage.shoal(&["run", file.to_str().expect("UTF-8")])));
        running.until_said("told");
        assert_said(&running.out(), &[groups]);
        assert_eq!(running.stop().status, 0);
    }
}

#[test]
fn agent_runs_as_the_user_that_the_file_names_and_dies_with_its_supervisor() {
    if !rustix::process::geteuid().is_root() {
        // Only root may run agents as somebody else: then the file is refused.
        let stage = stage!("confined-user");
        let done = stage.done(&["check", swarm(&stage, "tells", "user = \"0\"").to_str().expect("UTF-8")]);
        assert!(done.status == 2 && done.err.contains("only root"), "{done:?}");
        return;
    }
    let stage = stage!("confined-user");
    let file = swarm(&stage, "tells", "user = \"12345\"\nuser_group = \"54321\"\nlimits = { processes = 9 }");
    let mut running = stage.start(in_more_groups(stage.shoal(&["run", file.to_str().expect("UTF-8")])));
    running.until_said("told");
    assert_said(
        &running.out(),
        &[
            "Uid: 12345 12345 12345 12345",
            "Gid: 54321 54321 54321 54321",
            "Groups:",
            "CapEff: 0000000000000000",
        ],
    );
    // The kernel forgets whose death ends a process when its user changes.
    running.send(rustix::process::Signal::KILL);
    stage.until_no_process();
}

#[test]
fn agent_that_allocates_beyond_its_bound_dies_alone_and_comes_back() {
    let stage = stage!("confined-memory");
    let mut running = stage.run(&swarm(&stage, "hoards", "limits = { memory = \"48 MiB\" }"));
    running.until_said("hoarder is back");
    let report = running.until_ready();
    let b = report.agents.iter().find(|agent| agent.name == "b").expect("b");
    assert_eq!(b.generation, 1);
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn agent_makes_as_many_processes_as_it_may_and_they_end_with_it() {
    let stage = stage!("confined-forks");
    let lines = if rustix::process::geteuid().is_root() {
        "user = \"12346\"\nlimits = { processes = 20 }"
    } else {
        "limits = { processes = 20 }"
    };
    let mut running = stage.run(&swarm(&stage, "forks", lines));
    running.until_said("refused after ");
    let said = running.out();
    let count =
        said.split("refused after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count < 20), "{said}");
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

/// Waits until the agent that strained at a bound died of it, in words that begin so, and is back; nobody else has died.
fn died_of_it_alone<'s>(stage: &'s Stage, kind: &str, lines: &str, how: &str) -> Running<'s> {
    let mut running = stage.run(&swarm(stage, kind, lines));
    running.until_said(&format!("{kind}: it is back"));
    let report = running.until_ready();
    let generations: Vec<u64> = report.agents.iter().map(|agent| agent.generation).collect();
    assert_eq!(generations, [2, 1], "{}", running.err());
    let said = format!("agent a (generation 1) was killed by {how}");
    assert!(running.err().contains(&said), "no {said:?} in {}", running.err());
    running
}

#[test]
fn agent_that_uses_more_time_than_it_may_dies_alone_and_comes_back() {
    let stage = stage!("confined-time");
    let running = died_of_it_alone(&stage, "burns", "limits = { cpu_time = \"1s\" }", "SIG");
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn agent_that_writes_a_larger_file_than_it_may_dies_alone_and_the_file_is_no_larger() {
    let stage = stage!("confined-file");
    let lines = "cwd = \".\"\nlimits = { file_size = \"1 MiB\", core_size = 0 }";
    let running = died_of_it_alone(&stage, "writes", lines, "SIGXFSZ");
    assert_eq!(fs::metadata(stage.path("much")).expect("a file").len(), 1 << 20);
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

/// What the kernel calls the core of a process if its pattern is `core`.
fn cores_name(pid: Option<u64>) -> String {
    let with_pid = fs::read_to_string("/proc/sys/kernel/core_uses_pid").unwrap_or_default();
    if with_pid.trim() == "1" { format!("core.{}", pid.expect("a process")) } else { "core".to_owned() }
}

#[test]
fn core_file_of_an_agent_is_no_larger_than_it_may_be_and_its_report_says_where_it_lies() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    if pattern.trim() != "core" || hard.is_some_and(|hard| hard < 64 << 10) {
        return; // Cores go elsewhere, or nowhere.
    }
    let stage = stage!("confined-core");
    fs::create_dir(stage.path("cores")).expect("a folder");
    let cores = || {
        let names = fs::read_dir(stage.path("cores")).expect("a folder").flatten();
        let names = names.filter(|entry| entry.file_name().to_string_lossy().starts_with("core"));
        names.map(|entry| entry.metadata().expect("a file").len()).collect::<Vec<_>>()
    };
    for (size, most) in [("0", 0), ("\"64 KiB\"", 64 << 10)] {
        let lines = format!("cwd = \"cores\"\nlimits = {{ core_size = {size} }}");
        let running = died_of_it_alone(&stage, "aborts", &lines, "SIGABRT");
        let report = stage.done(&["crashes", "show", "1", "--json"]).out;
        let report: serde_json::Value = serde_json::from_str(&report).expect("an object");
        let told = report["core"]["path"].as_str().map(std::path::Path::new);
        let lies = (most > 0).then(|| stage.path("cores").join(cores_name(report["pid"].as_u64())));
        assert_eq!(told, lies.as_deref(), "with {size}: {report}");
        assert_eq!(running.stop().status, 0);
        let found = cores();
        assert_eq!(found.len(), usize::from(most > 0), "with {size}: {found:?}");
        assert!(found.iter().all(|bytes| (1..=most).contains(bytes)), "with {size}: {found:?}");
    }
    stage.assert_nothing_left();
}

/// Everybody is in its first life still; and ends it.
fn assert_nobody_died(stage: &Stage, mut running: Running<'_>) {
    let report = running.until_ready();
    assert!(report.agents.iter().all(|agent| agent.generation == 1), "{}", running.err());
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn agent_opens_as_many_files_as_it_may_and_goes_on() {
    let stage = stage!("confined-open");
    let mut running = stage.run(&swarm(&stage, "opens", "limits = { open_files = 64 }"));
    running.until_said("refused after ");
    let said = running.out();
    let count =
        said.split("refused after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| (32..64).contains(&count)), "{said}");
    assert_nobody_died(&stage, running);
}

#[test]
fn agent_that_uses_more_than_its_share_of_a_processor_is_slowed_down_alone() {
    // Where there is no control group for it, that is said: `what_cannot_be_applied_is_said_at_the_start_and_shown`.
    let stage = stage!("confined-share");
    let mut running = stage.run(&swarm(&stage, "throttled", "limits = { cpu = \"20%\" }"));
    let report = running.until_ready();
    let lacks: Vec<_> = report.agents.iter().flat_map(|agent| &agent.unapplied).collect();
    if !lacks.is_empty() {
        return eprintln!("not looked at: {lacks:?}");
    }
    running.until_said("it was throttled");
    assert_nobody_died(&stage, running);
}

// Goal: a hostile agent has neither the machine's network nor its System V memory, queues and names, or it is said that it has; and
// nobody else loses them. Method: the kernel says in which namespaces the processes are.
#[test]
fn hostile_agent_has_namespaces_of_its_own_or_it_is_said() {
    let stage = stage!("confined-namespaces");
    let mut running = stage.run(&swarm(&stage, "idles", "trust = \"hostile\""));
    let report = running.until_ready();
    let of = |name: &str| report.agents.iter().find(|agent| agent.name == name).expect("an agent");
    let namespace =
        |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
    let pid = |name: &str| of(name).pid.expect("a process");
    let is_said = of("a").unapplied.iter().any(|lack| lack.contains("namespaces"));
    if rustix::process::geteuid().is_root() {
        for kind in ["net", "ipc", "uts"] {
            assert_eq!(namespace(pid("a"), kind) == namespace(std::process::id(), kind), is_said, "{kind}");
            assert_eq!(namespace(pid("b"), kind), namespace(std::process::id(), kind), "{kind}");
        }
    } else {
        // Whoever may not look may not make them either.
        assert!(is_said, "{:?}", of("a").unapplied);
    }
    assert_eq!(running.stop().status, 0);
}

#[test]
fn what_cannot_be_applied_is_said_at_the_start_and_shown() {
    let stage = stage!("confined-lacks");
    // A share of a processor needs a cgroup; the kernel counts no processes of root.
    let mut running = stage.run(&swarm(&stage, "idles", "limits = { cpu = \"50%\" }"));
    let report = running.until_ready();
    let a = report.agents.iter().find(|agent| agent.name == "a").expect("a");
    let said = running.err().contains("agent a runs without limits.cpu");
    assert_eq!(said, !a.unapplied.is_empty(), "{} {:?}", running.err(), a.unapplied);
    let bounded = |pid: u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
        groups.lines().any(|line| line.contains("cpu") && line.contains("/shoal-"))
            || groups.lines().any(|line| line.starts_with("0::") && line.contains("/shoal-"))
    };
    // Either it is in a cgroup, or it is said that it is not.
    assert_ne!(bounded(a.pid.expect("a process")), said, "{}", running.err());
    assert_eq!(running.stop().status, 0);
}

/// The files of a cgroup that say a bound, of both versions, and what they say of these bounds.
const BOUNDS: [(&str, &[(&str, &str)]); 3] = [
    ("limits.memory", &[("memory.max", "50331648"), ("memory.limit_in_bytes", "50331648")]),
    ("limits.processes", &[("pids.max", "9")]),
    ("limits.cpu", &[("cpu.max", "50000 100000"), ("cpu.cfs_quota_us", "50000")]),
];
/// Said by who has delegated control groups of version 2 with all controllers, and where: then nothing may be lacking.
pub const DELEGATED: &str = "SHOAL_TEST_DELEGATED";

#[test]
fn every_bound_that_needs_a_cgroup_is_in_the_one_that_its_agent_is_in() {
    // Goal: as the file says, also when another agent had asked for another bound before. Method: three agents with one bound each, one with all;
    // the kernel's files say what bounds whom.
    let stage = stage!("confined-cgroups");
    let [memory, processes, cpu] = ["memory = \"48 MiB\"", "processes = 9", "cpu = \"50%\""];
    let all = [memory, processes, cpu].join(", ");
    let limits = [memory, processes, cpu, &all];
    let agent = |(n, limits): (usize, &&str)| {
        format!("[agent.a{n}]\ncommand = [\"BIN/confined\", \"idles\"]\nlimits = {{ {limits} }}\n")
    };
    let agents: String = limits.iter().enumerate().map(agent).collect();
    let file = stage.write("swarm.toml", &format!("[swarm]\nname = \"NAME\"\n{agents}"));
    let delegated = std::env::var_os(DELEGATED).map(std::path::PathBuf::from);
    assert_bounded(&stage, stage.run(&file), delegated.as_deref());
    // A service has its cgroup to itself, and is in it; or in one below it, where its manager puts it there.
    for (service, own) in [("service", ""), ("unit", "supervisor")] {
        let Some(service) = delegated.as_ref().map(|delegated| delegated.join(service)) else { continue };
        let own = service.join(own);
        let enter = format!("mkdir -p {0} && echo $$ >{0}/cgroup.procs", own.display());
        // Whoever is put there next finds it as it was.
        let is_as_it_was = || {
            let handed_down = fs::read_to_string(own.join("cgroup.subtree_control")).expect("read");
            !own.join("supervisor").exists() && handed_down.trim().is_empty()
        };
        let doctor = stage.finish(stage.shoal_after(&enter, &["doctor"]));
        assert!(doctor.out.contains(&format!("limits.cpu in {}", service.display())), "{}", doctor.out);
        assert!(is_as_it_was(), "after the doctor");
        let args = ["run", file.to_str().expect("UTF-8")];
        assert_bounded(&stage, stage.start(stage.shoal_after(&enter, &args)), Some(&service));
        assert!(is_as_it_was(), "after the swarm");
        // Then its keeper puts all away.
        let mut running = stage.start(stage.shoal_after(&enter, &args));
        running.until_ready();
        running.send(rustix::process::Signal::KILL);
        stage.until_no_process();
        assert!(is_as_it_was(), "after a guard that was killed");
    }
}

#[test]
fn first_bounds_of_a_swarm_come_with_a_reload_where_the_service_manager_says_that_it_delegated() {
    // Goal: a service of systemd that started without limits gets them by a reload. Method: a cgroup that says it was delegated, as systemd does,
    // and one that says nothing, to which nothing is done.
    let Some(delegated) = std::env::var_os(DELEGATED).map(std::path::PathBuf::from) else {
        return println!("no cgroups of version 2 are delegated here: nothing to see");
    };
    let stage = stage!("confined-reload");
    // As the service manager does.
    fs::write(delegated.join("cgroup.subtree_control"), "+cpu +memory +pids").expect("handed down");
    let agent =
        |n: usize, limits: &str| format!("[agent.a{n}]\ncommand = [\"BIN/confined\", \"idles\"]\n{limits}\n");
    let text = |limits: &str| {
        format!("[swarm]\nname = \"NAME\"\n{}{}", agent(0, limits), agent(1, "limits = { open_files = 512 }"))
    };
    for says in [true, false] {
        let service = delegated.join(format!("reload-{says}"));
        fs::create_dir_all(&service).expect("a cgroup");
        if says {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&service, "user.delegate", b"1", flags).expect("said");
        }
        let file = stage.write("swarm.toml", &text(""));
        let enter = format!("echo $$ >{}/cgroup.procs", service.display());
        let args = ["run", file.to_str().expect("UTF-8")];
        let mut running = stage.start(stage.shoal_after(&enter, &args));
        running.until_ready();
        assert_eq!(service.join("supervisor").exists(), says);
        stage.write("swarm.toml", &text("limits = { cpu = \"50%\" }"));
        let reloaded = stage.finish(stage.shoal(&["reload"]));
        assert_eq!(reloaded.status, 0, "{reloaded:?}");
        let lacks = &running.until_ready().agents[0].unapplied;
        // Here root may make one in the cgroup above, too: that of others.
        assert!(lacks.is_empty(), "{lacks:?}");
        let owner = traces::owner(running.pid());
        let bounded: Vec<_> =
            traces::cgroups(&owner).into_iter().filter(|it| it.starts_with(&service)).collect();
        assert_eq!(bounded.len(), usize::from(says), "{bounded:?}");
        assert_eq!(running.stop().status, 0);
        assert!(!service.join("supervisor").exists());
        let handed_down = fs::read_to_string(service.join("cgroup.subtree_control")).expect("read");
        assert_eq!(handed_down.trim(), "");
        fs::remove_dir(&service).expect("empty");
        stage.assert_nothing_left();
    }
}

/// Each is bounded as asked; by one cgroup of version 2 in the delegated one, if there is such.
fn assert_bounded(stage: &Stage, mut running: Running<'_>, delegated: Option<&Path>) {
    let report = running.until_ready();
    let owner = traces::owner(running.pid());
    let made = traces::cgroups(&owner);
    for (n, agent) in report.agents.iter().enumerate() {
        let is_its = |folder: &&std::path::PathBuf| folder.ends_with(format!("shoal-{owner}-{}", agent.name));
        let its: Vec<_> = made.iter().filter(is_its).collect();
        let pid = agent.pid.expect("a process").to_string();
        for folder in &its {
            let inside = fs::read_to_string(folder.join("cgroup.procs")).expect("a list");
            assert!(inside.lines().any(|line| line == pid), "{} is not in {}", agent.name, folder.display());
        }
        if let Some(delegated) = delegated {
            assert!(agent.unapplied.is_empty(), "{:?}", agent.unapplied);
            assert!(matches!(its[..], [one] if one.parent() == Some(delegated)), "{its:?}");
        }
        for (asked, (key, files)) in BOUNDS.into_iter().enumerate().filter(|(asked, _)| n == 3 || n == *asked)
        {
            let said =
                |(file, _): &(&str, &str)| its.iter().find_map(|its| fs::read_to_string(its.join(file)).ok());
            let found = files.iter().find_map(|file| Some((said(file)?, file.1)));
            match found {
                Some((found, due)) => assert_eq!(found.trim(), due, "{key} of {}", agent.name),
                // Memory is bounded by another means then, and processes of who is not root.
                None => assert!(
                    delegated.is_none() && (asked < 2 || !agent.unapplied.is_empty()),
                    "{key} of {}",
                    agent.name
                ),
            }
        }
    }
    assert_eq!(running.stop().status, 0);
    assert_eq!(traces::cgroups(&owner), Vec::<std::path::PathBuf>::new());
    stage.assert_nothing_left();
}

#[test]
fn agent_whose_bounds_cannot_be_set_is_not_started_and_the_step_is_named() {
    let stage = stage!("confined-refused");
    let file = swarm(&stage, "idles", "limits = { cpus = [1023] }");
    let done = stage.finish(stage.shoal(&["run", file.to_str().expect("UTF-8")]));
    assert_ne!(done.status, 0, "{done:?}");
    assert!(done.err.contains("setting its nice, scheduling or cpus of `limits`"), "{done:?}");
    stage.assert_nothing_left();
}

#[test]
fn agent_changes_files_in_the_folders_that_it_may_write_and_reads_those_that_it_may_read() {
    // Goal: `landlock.write` lets an agent change what lies there, `landlock.read` read alone, and nothing else is within reach, while
    // another agent has its user's rights. Method: both try all in three folders; then the folders are looked at from outside.
    const ALL: &str = "reads writes creates folders renames removes";
    let stage = stage!("confined-write");
    let folders = ["outside", "readable", "writable"];
    for agent in ["a", "b"] {
        for folder in folders {
            let folder = stage.path(agent).join(folder);
            fs::create_dir_all(&folder).expect("a folder");
            for name in ["file", "spare"] {
                fs::write(folder.join(name), "x").expect("written");
            }
        }
    }
    let table = |name: &str, lines: &str| {
        format!("[agent.{name}]\ncommand = [\"BIN/confined\", \"changes\"]\ncwd = \"{name}\"\n{lines}\n")
    };
    let bounded = table("a", "landlock = { read = [\"a/readable\"], write = [\"a/writable\"] }");
    let text = format!("[swarm]\nname = \"NAME\"\n{bounded}{}", table("b", ""));
    let mut running = stage.run(&stage.write("swarm.toml", &text));
    for name in ["a", "b"] {
        running.until_said(&format!("{name} | changed"));
    }
    if running.err().contains("landlock: this kernel has none") {
        return println!("not looked at: this kernel has no landlock");
    }
    let (out, written) = (running.out(), format!("a | writable: {ALL}"));
    assert_said(&out, &["a | outside: ", "a | readable: reads", &written]);
    assert_said(&out, &folders.map(|folder| format!("b | {folder}: {ALL}")).each_ref().map(String::as_str));
    for (folder, changed) in folders.into_iter().zip([false, false, true]) {
        let at = |name: &str| stage.path("a").join(folder).join(name);
        let left = ["file", "new", "folder", "spare", "moved"].map(|name| at(name).exists());
        assert_eq!(left, [true, changed, changed, !changed, false], "{folder}");
        assert_eq!(fs::read_to_string(at("file")).expect("read"), if changed { "xy" } else { "x" });
    }
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn filters_of_a_trusted_agent_refuse_or_end_it_as_they_do_others() {
    // Goal: `seccomp` is the word of the file, whatever the trust. Method: an agent of each profile makes one call that `default` refuses, and
    // one that `strict` does not know.
    let stage = stage!("confined-filters");
    let agent = |profile: &str| {
        format!("[agent.{profile}]\ncommand = [\"BIN/confined\", \"filtered\"]\nseccomp = \"{profile}\"\n")
    };
    let file = ["none", "default", "strict"].map(agent).concat();
    let mut running = stage.run(&stage.write("swarm.toml", &format!("[swarm]\nname = \"NAME\"\n{file}")));
    for said in ["none | socket: true", "default | socket: true", "strict | filtered: it is back"] {
        running.until_said(said);
    }
    let out = running.out();
    assert_said(&out, &["none | chroot: Err(NotFound)", "default | chroot: Err(PermissionDenied)"]);
    assert!(!out.contains("strict | chroot"), "ended inside the call: {out}");
    let report = running.until_ready();
    let generations = report.agents.iter().map(|agent| agent.generation).collect::<Vec<_>>();
    assert_eq!(generations, [1, 1, 2], "{}", running.err());
    assert!(running.err().contains("agent strict (generation 1) was killed by SIGSYS"), "{}", running.err());
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn real_time_is_of_the_agents_that_ask_for_it_and_gaining_rights_of_those_that_may() {
    // Goal: policy, priority and `no_new_privs` are those of the file, and the defaults for who says nothing. Method: the kernel is asked
    // about each process from outside.
    let stage = stage!("confined-real-time");
    let agent = |name: &str, lines: &str| {
        format!("[agent.{name}]\ncommand = [\"BIN/confined\", \"idles\"]\n{lines}\n")
    };
    let text = [
        "[swarm]\nname = \"NAME\"\n".to_owned(),
        agent("fifo", "limits = { scheduling = \"fifo:7\" }"),
        agent("rr", "limits = { scheduling = \"rr:9\" }"),
        agent("lax", "no_new_privs = false"),
        agent("plain", ""),
    ];
    let file = stage.write("swarm.toml", &text.concat());
    if !may_schedule() {
        let done = stage.finish(stage.shoal(&["run", file.to_str().expect("UTF-8")]));
        assert!(done.err.contains("setting its nice, scheduling or cpus of `limits`"), "{done:?}");
        return;
    }
    let mut running = stage.run(&file);
    let report = running.until_ready();
    let may_gain = |pid: u32| status(pid, "NoNewPrivs:") == "0";
    let seen = report.agents.iter().map(|agent| {
        let pid = agent.pid.expect("a process");
        let how = scheduled(pid);
        (agent.name.as_str(), how.policy, how.priority, may_gain(pid))
    });
    let own = scheduled(std::process::id());
    // Who may not gain any hands that on.
    let may_this = may_gain(std::process::id());
    let wanted = [
        ("fifo", 1, 7, false),
        ("rr", 2, 9, false),
        ("lax", own.policy, own.priority, may_this),
        ("plain", own.policy, own.priority, false),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), wanted);
    assert_eq!(running.stop().status, 0);
    stage.assert_nothing_left();
}

/// A line of what the kernel says of a process.
fn status(pid: u32, line: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let found = status.lines().find_map(|it| it.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no {line} of {pid}")).trim().to_owned()
}

/// How a process is scheduled, as the kernel says from outside: niceness, policy and its real-time priority, and the processors that it
/// may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scheduled {
    nice: i32,
    policy: u32,
    priority: u32,
    cpus: Vec<usize>,
}

fn scheduled(pid: u32) -> Scheduled {
    let process = Pid::from_raw(pid as i32);
    let cpus = sched_getaffinity(process).expect("an affinity");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The 40th field of all, and the 41st; the name, which may hold anything, is the second.
    let field = |at| stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(at)?.parse().ok());
    Scheduled {
        nice: getpriority_process(process).expect("a niceness"),
        priority: field(37).expect("a priority"),
        policy: field(38).expect("a policy"),
        cpus: (0..1024).filter(|number| cpus.is_set(*number)).collect(),
    }
}

/// Goal: every process of an agent is scheduled as the file says, and nobody else: who is executed, who stands by, who follows a death,
/// a zygote and its forks. Method: the kernel is asked about each of them from outside; the agents are killed and followed twice.
#[test]
fn niceness_policy_and_processors_are_those_of_the_file_for_every_process_of_an_agent() {
    let stage = stage!("scheduled");
    let own = scheduled(std::process::id());
    let [first, last] = [own.cpus.first(), own.cpus.last()].map(|cpu| *cpu.expect("a processor"));
    let relay = format!("limits = {{ nice = 7, scheduling = \"batch\", cpus = [{first}] }}\nstandby = 1");
    let sink = format!("limits = {{ nice = 8, cpus = [{last}] }}\nprefork = true");
    let file = Relayed { relay: &relay, sink: &sink, ..Relayed::default() }.write(&stage);
    let mut shoal = stage.run(&file);
    let of_relay = Scheduled { nice: 7, policy: 3, priority: 0, cpus: vec![first] };
    let of_sink = Scheduled { nice: 8, policy: own.policy, priority: own.priority, cpus: vec![last] };
    for round in 0..3 {
        let whole = |a: &PsAgent| {
            let is_forked = a.name != "sink" || a.zygote.is_some();
            a.state == PsState::Ready && a.standbys.len() as u64 == a.standbys_wanted && is_forked
        };
        let report = shoal.until("everybody, with standbys and zygote", |report| {
            report.agents.iter().all(whole).then(|| report.clone())
        });
        for agent in &report.agents {
            let (wanted, count) = match agent.name.as_str() {
                "relay" => (&of_relay, 2),
                "sink" => (&of_sink, 3),
                _ => (&own, 1),
            };
            let processes = agent.pid.iter().chain(&agent.standbys).chain(&agent.zygote);
            assert_eq!(processes.clone().count(), count, "{agent:?}");
            for &pid in processes {
                assert_eq!(scheduled(pid), *wanted, "process {pid} of {} in round {round}", agent.name);
            }
        }
        assert_eq!(shoal.supervisor().map(|pid| scheduled(pid as u32)), Some(own.clone()));
        for agent in report.agents.iter().filter(|agent| agent.name != "source") {
            assert!(traces::kill(agent.pid.expect("a process") as i32, stage.mark()));
            shoal.until_agent(&agent.name, "followed", |now| {
                (now.generation > agent.generation).then_some(())
            });
        }
    }
    assert_eq!(shoal.stop().status, 0);
    assert_eq!(stage.violations(), "");
    stage.assert_nothing_left();
}
