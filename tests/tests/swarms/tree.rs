//! Goal: an agent's whole tree of processes ends with it, whatever they did to leave, and nobody else's does; no zombie is left. Method:
//! agents with broods (in a group or session of their own, orphaned, with an empty environment), killed in the midst of making them,
//! stopped, and left by whoever holds the swarm together.

use crate::confined::DELEGATED;
use rustix::process::Signal;
use shoal::control::PsState;
use shoal_tests::{Done, Running, Stage, clone, stage, traces, until};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many descendants an agent makes.
const MANY: usize = 200;
const FEW: usize = 20;
/// So often a chain goes on that nobody ends.
const HOPS_MAX: u64 = 10_000;

/// A brood's list.
fn list(stage: &Stage, agent: &str, generation: u64) -> PathBuf {
    stage.path(&format!("{agent}.{generation}"))
}

/// Those of a brood that have said their number.
fn said(stage: &Stage, agent: &str, generation: u64) -> BTreeSet<i32> {
    let text = fs::read_to_string(list(stage, agent, generation)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Those that live, by what the kernel says that they were started as.
fn living(stage: &Stage, agent: &str, generation: u64) -> BTreeSet<i32> {
    let name = list(stage, agent, generation);
    let name = name.to_str().expect("UTF-8").as_bytes();
    let is_one = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == name)
    };
    traces::processes().filter(is_one).collect()
}

fn until_ended(stage: &Stage, agent: &str, generation: u64) {
    until(&format!("the end of the brood of {agent}, generation {generation}"), || {
        living(stage, agent, generation).is_empty().then_some(())
    });
}

fn until_complete(stage: &Stage, agent: &str, generation: u64, count: usize) -> BTreeSet<i32> {
    until(&format!("the brood of {agent}, generation {generation}"), || {
        let all = said(stage, agent, generation);
        (all.len() == count).then_some(all)
    })
}

/// Waits until everybody who ended was reaped.
fn until_reaped(shoal: &Running<'_>) {
    let keeper = shoal.keeper().expect("a keeper");
    until("a keeper without zombies", || {
        let states = traces::children(keeper).into_iter().map(traces::state);
        (!states.collect::<Vec<_>>().contains(&Some('Z'))).then_some(())
    });
}

fn swarm(stage: &Stage, lines: &str) -> PathBuf {
    swarm_of(stage, lines, [MANY, FEW, FEW])
}

/// One whose agents have broods of so many.
fn swarm_of(stage: &Stage, lines: &str, counts: [usize; 3]) -> PathBuf {
    let agent = |name: &str, count: usize, more: &str| {
        let file = stage.path(name);
        format!("[agent.{name}]\ncommand = [\"BIN/brood\", \"{count}\", \"{}\"]\n{more}\n", file.display())
    };
    let text = format!(
        "[swarm]\nname = \"NAME\"\n{lines}\n{}{}{}",
        agent("a", counts[0], "limits = { processes = 1000 }"),
        agent("b", counts[1], ""),
        agent("c", counts[2], "prefork = true")
    );
    stage.write("swarm.toml", &text)
}

#[test]
fn tree_of_an_agent_ends_with_it_and_nobody_elses_does() {
    let stage = stage!("tree");
    let mut shoal = stage.run(&swarm(&stage, ""));
    let bs = until_complete(&stage, "b", 1, FEW);
    let first = shoal.pid_of("c");
    let forked = shoal.until_agent("c", "forked", |c| (c.pid == Some(first as u32)).then_some(c.generation));
    until_complete(&stage, "c", forked, FEW);
    // In the midst of it.
    until("half of a brood", || (said(&stage, "a", 1).len() >= MANY / 2).then_some(()));
    assert!(traces::kill(shoal.pid_of("a"), stage.mark()));
    until_ended(&stage, "a", 1);
    let seconds = until_complete(&stage, "a", 2, MANY);
    assert!(traces::kill(first, stage.mark()));
    until_ended(&stage, "c", forked);
    let next = shoal
        .until_agent("c", "forked", |c| (c.generation > forked && c.pid.is_some()).then_some(c.generation));
    let cs = until_complete(&stage, "c", next, FEW);
    until_reaped(&shoal);
    assert_eq!(living(&stage, "b", 1), bs, "of another agent");
    assert_eq!(living(&stage, "a", 2), seconds, "of the next life");
    assert_eq!(living(&stage, "c", next), cs, "of the next fork");
    let owner = traces::owner(shoal.pid());
    let made = traces::cgroups(&owner);
    // Its successor goes on with the same ones.
    assert!(shoal.kill_supervisor());
    for order in [["stop", "b"], ["kill", "a"]] {
        assert_eq!(stage.done(&order).status, 0, "{order:?}");
    }
    until_ended(&stage, "b", 1);
    until_ended(&stage, "a", 2);
    assert_eq!(living(&stage, "c", next), cs, "of another agent");
    until_complete(&stage, "a", 3, MANY);
    assert_eq!(traces::cgroups(&owner), made, "of the same swarm");
    // The last one has made none.
    assert!(shoal.kill_supervisor());
    assert_eq!(shoal.stop().status, 0);
    until_ended(&stage, "c", next);
    until_ended(&stage, "a", 3);
    stage.assert_nothing_left();
    assert_eq!(traces::cgroups(&owner), Vec::<PathBuf>::new(), "with the swarm");
}

/// Goal: also who is another process each time that it is looked at ends with its agent. Method: a chain of processes in sessions of their own
/// of which each forks the next and ends, as fast as it can; all of them together hold a lock, which is free when there is none any more.
#[test]
fn chain_of_processes_that_fork_and_end_all_the_time_ends_with_its_agent() {
    let stage = stage!("tree-hops");
    let file = stage.path("a");
    let text = format!(
        "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/brood\", \"hops\", \"{}\"]\n\
         restart = {{ intensity = 100, backoff = \"1ms\" }}\n",
        file.display()
    );
    let mut shoal = stage.run(&stage.write("swarm.toml", &text));
    for generation in 1..=8 {
        let agent = shoal.until_agent("a", &format!("in generation {generation}"), |a| {
            (a.generation == generation && a.state == PsState::Ready).then_some(a.pid?)
        });
        let list = list(&stage, "a", generation);
        until("some hops", || fs::metadata(&list).is_ok_and(|list| list.len() > 100).then_some(()));
        let lock = fs::File::open(&list).expect("the list");
        let free = || rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        assert!(!free(), "it is held");
        assert!(traces::kill(agent as i32, stage.mark()));
        until("the end of the chain", || free().then_some(()));
        let hops = fs::metadata(&list).expect("the list").len();
        println!("{hops} hops in generation {generation}");
        assert!(hops < HOPS_MAX, "it ended by itself");
    }
    until_reaped(&shoal);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

enum Who {
    Guard,
    Keeper,
    Supervisor,
}

fn pid_of(who: &Who, shoal: &Running<'_>) -> Option<i32> {
    match who {
        Who::Guard => Some(shoal.pid()),
        Who::Keeper => shoal.keeper(),
        Who::Supervisor => shoal.supervisor(),
    }
}

#[test]
fn everything_ends_also_what_agents_left_and_who_never_attached() {
    let all: [(&str, &[Who]); 6] = [
        ("", &[Who::Keeper]),
        ("", &[Who::Guard]),
        ("", &[Who::Keeper, Who::Supervisor]),
        ("", &[Who::Supervisor, Who::Keeper]),
        ("", &[Who::Guard, Who::Supervisor]),
        ("orphans = \"kill\"", &[Who::Supervisor]),
    ];
    for (lines, whom) in all {
        let stage = stage!("tree-ends");
        let file = swarm(&stage, lines);
        let text = fs::read_to_string(&file).expect("written");
        let mute = "[agent.mute]\ncommand = [\"/bin/sleep\", \"1000\"]\nready_timeout = \"1h\"\n";
        fs::write(&file, text + mute).expect("written");
        let shoal = stage.run(&file);
        until_complete(&stage, "a", 1, MANY);
        until_complete(&stage, "b", 1, FEW);
        let is_mute =
            |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l.starts_with(b"/bin/sleep"));
        let marked = traces::marked(stage.mark());
        assert_eq!(marked.iter().filter(|pid| is_mute(pid)).count(), 1, "who never attaches");
        let victims: Vec<i32> = whom.iter().filter_map(|who| pid_of(who, &shoal)).collect();
        assert_eq!(victims.len(), whom.len());
        // The first one's end may be the second one's already.
        let met: Vec<bool> =
            victims.iter().map(|pid| traces::send(*pid, stage.mark(), Signal::KILL)).collect();
        assert!(met[0], "{victims:?}");
        until_ended(&stage, "a", 1);
        until_ended(&stage, "b", 1);
        stage.until_no_process();
        assert_ne!(shoal.ended().status, 0);
    }
}

/// The line of docs/operations.md that begins so.
fn documented(begin: &str) -> &'static str {
    let blocks = clone::blocks(include_str!("../../../docs/operations.md"), "text");
    let line = blocks.into_iter().flat_map(str::lines).find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no line begins with {begin:?}"))
}

/// The command that is documented for asking a swarm in a namespace, for the one that this process runs.
fn asking(guard: i32) -> String {
    let line = documented("nsenter ").split('#').next().unwrap_or_default();
    line.trim_end().replace("PID", &guard.to_string())
}

/// Asks a swarm by such a command; `None` without the program that enters a namespace.
fn asked_by(stage: &Stage, line: &str) -> Option<Done> {
    if Command::new("nsenter").arg("--version").output().is_err() {
        println!("not entered: there is no nsenter here");
        return None;
    }
    let line = line.replace(" shoal ", &format!(" {} ", stage.program().display()));
    // With the environment of this stage's own commands.
    Some(stage.finish(stage.shoal_after(&format!("exec {line}"), &[])))
}

fn only_child(pid: i32) -> i32 {
    match traces::children(pid)[..] {
        [child] => child,
        ref several => panic!("one child of {pid}, not {several:?}"),
    }
}

/// Kills a guard and its keeper, so that neither can do anything about the other's death.
fn kill_at_one_instant(stage: &Stage, guard: i32) {
    let both = [only_child(guard), guard];
    assert!(both.into_iter().all(|pid| traces::send(pid, stage.mark(), Signal::STOP)));
    assert!(both.into_iter().all(|pid| traces::send(pid, stage.mark(), Signal::KILL)));
}

/// A swarm that makes cgroups where it may, and ends by itself.
const NEXT: &str = "[swarm]\nname = \"NAME\"\n[agent.a]\ncommand = [\"BIN/misbehaving\", \"subscribes-nothing\"]\n\
                    restart = { policy = \"transient\" }\nlimits = { processes = 64 }\n";

/// What a swarm is run by in a namespace of process numbers: its guard is the first process there.
const NAMESPACE: [&str; 5] = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];

#[test]
fn everything_ends_in_a_namespace_of_process_numbers_though_guard_and_keeper_die_at_one_instant() {
    let stage = stage!("tree-namespace");
    let may = stage.finish(stage.unshared(&Command::new("true"), &NAMESPACE));
    if may.status != 0 {
        println!("there may be no namespaces here: {}", may.err);
        return;
    }
    assert_eq!(documented("unshare "), format!("unshare {} shoal run FILE", NAMESPACE.join(" ")));
    let file = swarm(&stage, "");
    let plain = stage.shoal(&["run", file.to_str().expect("UTF-8")]);
    let unshare = stage.start(stage.unshared(&plain, &NAMESPACE));
    until_complete(&stage, "a", 1, MANY);
    until_complete(&stage, "b", 1, FEW);
    let guard = only_child(unshare.pid());
    let owner = traces::owner(guard);
    let inside = asking(guard);
    if let Some(done) = asked_by(&stage, &inside) {
        let told = |name: &str| done.out.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(done.status == 0 && ["a", "b", "c"].into_iter().all(told), "{done:?}");
    }
    // Who sees its files alone is told what to do, and in which words.
    if let Some(done) = asked_by(&stage, &inside.replace(" --pid ", " ")) {
        let told = done.err.contains(&format!("its process {guard} is 1 there"));
        assert!(told && done.err.contains(&format!("`{inside}`")), "{done:?}");
        assert_eq!((done.status, done.out.as_str()), (1, ""));
    }
    kill_at_one_instant(&stage, guard);
    until_ended(&stage, "a", 1);
    until_ended(&stage, "b", 1);
    stage.until_no_process();
    assert_ne!(unshare.ended().status, 0);
    // Its folder and beacon are the next command's to remove, wherever that runs.
    assert_ne!(stage.done(&["ps"]).status, 0);
    stage.assert_nothing_left();
    // So are its cgroups, by whoever looks for some and sees all processes.
    let done = stage.run(&stage.write("next.toml", NEXT)).ended();
    assert_eq!(done.status, 0, "{}", done.err);
    if traces::sees_everybody() {
        assert_eq!(traces::cgroups(&owner), Vec::<PathBuf>::new());
    }
}

/// Where control groups of version 2 are delegated to the tests (`scripts/vm`).
fn delegated() -> Option<PathBuf> {
    let delegated = std::env::var_os(DELEGATED).map(PathBuf::from);
    if delegated.is_none() {
        println!("no cgroups of version 2 are delegated here: nothing to see");
    }
    delegated
}

/// Each way to leave once: processors that are imitated take long for more.
const EACH_WAY: [usize; 3] = [5; 3];

/// Both broods that are looked at, when all have said their number.
fn broods(stage: &Stage) -> BTreeSet<i32> {
    let [a, b] = [("a", 0), ("b", 1)].map(|(agent, at)| until_complete(stage, agent, 1, EACH_WAY[at]));
    a.union(&b).copied().collect()
}

fn living_broods(stage: &Stage) -> BTreeSet<i32> {
    living(stage, "a", 1).union(&living(stage, "b", 1)).copied().collect()
}

#[test]
fn everything_in_a_delegated_cgroup_ends_by_the_documented_word_though_guard_and_keeper_died_at_one_instant()
{
    // Goal: nobody of a swarm is outside of the cgroup that it was started in, whatever became of those who would end them. Method: guard and
    // keeper are killed; what agents had made lives, in their own cgroups and beside them, until the word is written.
    let Some(delegated) = delegated() else { return };
    let stage = stage!("tree-delegated");
    // As a service manager does.
    fs::write(delegated.join("cgroup.subtree_control"), "+cpu +memory +pids").expect("handed down");
    let service = delegated.join("tree");
    let enter = |folder: PathBuf| format!("mkdir -p {0} && echo $$ >{0}/cgroup.procs", folder.display());
    let file = swarm_of(&stage, "", EACH_WAY);
    let args = ["run", file.to_str().expect("UTF-8")];
    let mut shoal = stage.start(stage.shoal_after(&enter(service.clone()), &args));
    let broods = broods(&stage);
    let agents = shoal.until_ready().agents;
    let owner = traces::owner(shoal.pid());
    let its = traces::cgroups(&owner);
    assert!(its.len() == 1 && its[0].starts_with(&service), "{its:?}");
    kill_at_one_instant(&stage, shoal.pid());
    assert_ne!(shoal.ended().status, 0);
    let is_gone = |pid: u32| matches!(traces::state(pid as i32), None | Some('Z'));
    until("the end of the agents", || agents.iter().filter_map(|a| a.pid).all(is_gone).then_some(()));
    assert_eq!(living_broods(&stage), broods, "nobody is left who would end them");
    let below = service.strip_prefix("/sys/fs/cgroup").expect("where they are mounted");
    let word = documented("echo 1 ").replace("FOLDER", &below.display().to_string());
    assert_eq!(stage.finish(stage.shoal_after(&format!("{word}\nexec true"), &[])).status, 0);
    until_ended(&stage, "a", 1);
    until_ended(&stage, "b", 1);
    stage.until_no_process();
    // The rest is put away by the next start there.
    let file = stage.write("next.toml", NEXT);
    let args = ["run", file.to_str().expect("UTF-8")];
    let done = stage.finish(stage.shoal_after(&enter(service.join("supervisor")), &args));
    assert_eq!(done.status, 0, "{}", done.err);
    assert_eq!(traces::cgroups(&owner), Vec::<PathBuf>::new());
    stage.assert_nothing_left();
    remove_cgroup(&service);
}

/// Removes a cgroup in which nobody is any more, with all below it.
fn remove_cgroup(folder: &Path) {
    let below = fs::read_dir(folder).expect("there").flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove_cgroup(&path));
    fs::remove_dir(folder).expect("nobody is in it");
}

#[test]
fn everything_in_a_delegated_cgroup_ends_and_starts_again_by_systemd_though_guard_and_keeper_died_at_one_instant()
 {
    // Goal: what the guide says of the unit. Method: a service manager of this test's own, which is told no more than the guide's commands tell it.
    let Some(delegated) = delegated() else { return };
    if Command::new("systemd").arg("--version").output().is_err() {
        return println!("there is no systemd here: nothing to see");
    }
    let stage = stage!("tree-service");
    let unit = stage.done(&["unit", swarm_of(&stage, "", EACH_WAY).to_str().expect("UTF-8")]);
    stage.write("shoal-ticks.service", &unit.out);
    let (home, own) = (stage.path("home"), delegated.join("manager"));
    for folder in [&home.join(".config/systemd/user"), &stage.path("run/systemd"), &own] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let at_home = |line: &str| {
        let mut command = stage.shoal_after(line, &["--version"]);
        command.env("HOME", &home);
        command
    };
    let manage =
        format!("echo $$ >{}/cgroup.procs && exec systemd --user --unit=basic.target", own.display());
    let mut manager = stage.start(at_home(&manage));
    until("the manager", || stage.path("run/systemd/private").exists().then_some(()));
    let begun = stage.finish(at_home(documented("cp shoal-ticks.service ")));
    assert_eq!(begun.status, 0, "{}", begun.err);
    let told = stage.finish(at_home(documented("systemctl --user status ").split('#').next().expect("one")));
    assert!(told.out.contains("of 3 agents ready"), "{}{}", told.out, told.err);
    let manager_pid = manager.pid();
    let guard = || {
        let program = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        traces::children(manager_pid).into_iter().find(|pid| program(pid) == Some(stage.program()))
    };
    manager.until_ready();
    let broods = broods(&stage);
    let first = guard().expect("it runs");
    let owner = traces::owner(first);
    kill_at_one_instant(&stage, first);
    until("the end of what its agents had made", || living_broods(&stage).is_disjoint(&broods).then_some(()));
    manager.until("the next start", |report| {
        let is_ready = report.agents.iter().all(|agent| agent.state == PsState::Ready);
        (is_ready && guard()? != first).then_some(())
    });
    assert_eq!(traces::cgroups(&owner), Vec::<PathBuf>::new());
    assert_eq!(manager.stop().status, 0);
    stage.assert_nothing_left();
    remove_cgroup(&own);
}
