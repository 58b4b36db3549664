//! What surrounds a swarm on a host: a service manager that is told how it is, a unit, completions, manual pages.

use super::operations::offered;
use shoal_tests::told::Told;
use shoal_tests::{Stage, stage, traces, until};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn swarm(stage: &Stage) -> PathBuf {
    stage.write(
        "swarm.toml",
        r#"
        [swarm]
        name = "NAME"
        [agent.talker]
        command = ["BIN/misbehaving", "talks"]
        [agent.heir]
        command = ["sh", "-c", "env > heir.env; exec BIN/misbehaving talks"]
        "#,
    )
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Goal: a service manager learns all that sd_notify(3) promises. Method: its socket, bound here; a real swarm.
#[test]
fn service_manager_is_told_ready_status_watchdog_and_stopping_and_agents_are_not() {
    let stage = stage!("notify");
    let mut command = stage.shoal(&["up", text(&swarm(&stage))]);
    let mut told = Told::by(&mut command, &stage);
    let mut hear = || told.hear();
    let mut shoal = stage.start(command);
    shoal.until_ready();
    until("READY, a status, and the watchdog fed thrice", || {
        let told = hear();
        let fed = told.lines().filter(|line| *line == "WATCHDOG=1").count();
        (told.contains("READY=1\n") && told.contains("STATUS=2 of 2 agents ready\n") && fed > 2).then_some(())
    });
    assert_eq!(hear().matches("READY=1").count(), 1);
    assert!(!hear().contains("STOPPING"));
    // A supervisor that is stopped feeds nothing.
    let supervisor = shoal.supervisor().expect("it runs");
    let send = |signal| {
        let pid = rustix::process::Pid::from_raw(supervisor).expect("a number");
        rustix::process::kill_process(pid, signal).expect("sent");
    };
    send(rustix::process::Signal::STOP);
    until("the supervisor stopped", || (traces::state(supervisor) == Some('T')).then_some(()));
    let fed = |told: &str| told.matches("WATCHDOG=1").count();
    let before = fed(&hear());
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(fed(&hear()), before);
    send(rustix::process::Signal::CONT);
    until("the watchdog fed again", || (fed(&hear()) > before).then_some(()));
    let inherited = std::fs::read_to_string(stage.path("heir.env")).expect("the agent's environment");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!inherited.contains(name), "{name} is inherited");
    }
    assert_eq!(shoal.stop().status, 0);
    assert!(hear().contains("STOPPING=1\n"));
    stage.assert_nothing_left();
}

/// The checker of units, where there is one.
fn analyze(unit: &Path) -> Option<(bool, String)> {
    let checked = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output().ok()?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    Some((checked.status.success(), said))
}

#[test]
fn unit_of_a_swarm_file_is_one_that_systemd_takes() {
    let stage = stage!("unit");
    let file = swarm(&stage);
    let done = stage.done(&["unit", text(&file)]);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(done.out.contains(&format!(" up {}\n", text(&file))), "{}", done.out);
    assert!(done.out.contains("Type=notify\n") && done.out.contains("KillMode=mixed\n"), "{}", done.out);
    let unit = stage.path("shoal-tested.service");
    std::fs::write(&unit, &done.out).expect("written");
    if let Some((good, said)) = analyze(&unit) {
        assert!(good && !said.contains("shoal-tested"), "{said}");
        // And the checker would say if it were none.
        std::fs::write(&unit, done.out.replace("Type=notify", "Typ=notify")).expect("written");
        let (_, said) = analyze(&unit).expect("it ran");
        assert!(said.contains("Typ"), "{said}");
    }
    assert_eq!(stage.done(&["unit", "absent.toml"]).status, 2);
}

#[test]
fn descriptors_of_a_unit_suffice_for_start_doctor_and_reloads_that_do_not_grow_the_swarm() {
    // Goal: unit, start, doctor and reload reckon alike. Method: the limit that the unit gives; an unchanged file, one in which an agent has
    // another name, and one agent more; then a lower limit.
    let stage = stage!("unit-limit");
    let file = swarm(&stage);
    let unit = stage.done(&["unit", text(&file)]).out;
    let limit: u64 =
        unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")?.parse().ok()).expect("a limit");
    let doctor = |limit: u64| {
        let done = stage.finish(stage.shoal_limited(&format!("-n {limit}"), &["doctor", text(&file)]));
        done.out.contains(&format!("there are {limit}"))
    };
    assert!(!doctor(limit) && doctor(limit - 1));
    let mut shoal = stage.start(stage.shoal_limited(&format!("-n {limit}"), &["run", text(&file)]));
    shoal.until_ready();
    for order in [&["reload", "--dry-run"][..], &["reload"], &["scale", "talker", "1"]] {
        let done = stage.done(order);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{order:?}");
    }
    let grown = stage.done(&["scale", "talker", "2"]);
    let refused = format!("would need up to {} open descriptors instead of {limit}", limit + 12);
    assert!(grown.status == 1 && grown.err.contains(&refused), "{grown:?}");
    let renamed = std::fs::read_to_string(&file).expect("the file").replace("[agent.heir]", "[agent.child]");
    std::fs::write(&file, renamed).expect("written");
    for _ in 0..2 {
        let done = stage.done(&["reload"]);
        assert_eq!((done.status, done.err.as_str()), (0, ""));
    }
    assert!(shoal.until_ready().agents.iter().any(|agent| agent.name == "child"));
    // A limit that somebody lowered since forbids nothing that needs no more than what runs.
    let pid = shoal.supervisor().and_then(rustix::process::Pid::from_raw);
    let lower = rustix::process::Rlimit { current: Some(limit - 9), maximum: Some(limit - 9) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, lower).expect("lowered");
    assert_eq!(stage.done(&["reload"]).status, 0);
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn descriptors_of_a_unit_suffice_for_as_many_replicas_as_there_are_places() {
    // Goal: a swarm whose unit gives it its descriptors is scaled as far as `replicas_max`, and no further. Method: the limit that the unit
    // gives; an agent that says how many it may have, and one with the places that each group has.
    let stage = stage!("unit-places");
    let lines = r#"
        [swarm]
        name = "NAME"
        [agent.single]
        command = ["BIN/misbehaving", "idle"]
        replicas_max = 3
        [agent.group]
        command = ["BIN/misbehaving", "idle"]
        replicas = 2
        "#;
    let file = stage.write("swarm.toml", lines);
    let unit = stage.done(&["unit", text(&file)]).out;
    let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).expect("a limit");
    let mut shoal = stage.start(stage.shoal_limited(&format!("-n {limit}"), &["run", text(&file)]));
    shoal.until_ready();
    for (name, places) in [("single", "3"), ("group", "8")] {
        let done = stage.done(&["scale", name, places]);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{name}");
    }
    assert_eq!(shoal.until_ready().agents.len(), 11);
    let grown = stage.done(&["scale", "group", "9"]);
    assert!(grown.status == 1 && grown.err.contains(&format!("instead of {limit}")), "{grown:?}");
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn template_of_a_unit_is_one_that_systemd_takes() {
    let stage = stage!("template");
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/shoal@.service");
    let template = std::fs::read_to_string(template).expect("the template");
    let unit = stage.path("shoal@tested.service");
    // The binary of the template need not be installed here.
    std::fs::write(&unit, template.replace("/usr/local/bin/shoal", "/bin/true")).expect("written");
    if let Some((good, said)) = analyze(&unit) {
        assert!(good && !said.contains("shoal@"), "{said}");
    }
}

/// Goal: what the template says of how root speaks with its swarm is so. Method: its line, with a swarm of another user.
#[test]
fn root_speaks_with_the_swarm_of_another_user_as_the_template_says() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        return; // only root becomes another user
    }
    let stage = stage!("others");
    let template = include_str!("../../../scripts/shoal@.service");
    let line =
        template.lines().find_map(|line| line.strip_prefix("#   dir=/run/shoal-NAME; ")).expect("a line");
    let folder = stage.path("theirs");
    std::fs::create_dir(&folder).expect("a folder");
    std::os::unix::fs::chown(&folder, Some(12348), Some(54328)).expect("given away");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(stage.path("."), open).expect("to be entered");
    let program = stage.program();
    let of = |line: &str| {
        let mut command = Command::new("/bin/sh");
        let line = format!(
            "dir={}; exec {}",
            text(&folder),
            line.replace(" shoal ", &format!(" {} ", text(&program)))
        );
        command.args(["-c", &line]).current_dir(stage.path(".")).env_remove("SHOAL_SWARM");
        command.env(traces::MARK, stage.mark());
        command
    };
    let run = "[swarm]\nname = \"NAME\"\n[agent.talker]\ncommand = [\"BIN/misbehaving\", \"talks\"]\n";
    let file = stage.write("swarm.toml", run);
    let as_user = |order: &str| of(&line.replace(" shoal status", &format!(" shoal {order}")));
    let mut shoal = stage.start(as_user(&format!("run {}", text(&file))));
    let answer = until("an answer to the line of the template", || {
        assert_eq!(shoal.poll(), None, "{}", shoal.err());
        let done = stage.finish(of(line));
        (done.status == 0).then_some(done.out)
    });
    assert!(answer.contains(&format!("swarm `{}`: healthy", stage.name())), "{answer}");
    let mut as_root = stage.shoal(&["status"]);
    as_root.env("XDG_RUNTIME_DIR", &folder);
    let done = stage.finish(as_root);
    assert_eq!(done.status, 2, "{done:?}");
    assert!(done.err.contains("setpriv --reuid=12348 --regid=54328 --clear-groups shoal"), "{}", done.err);
    assert_eq!(stage.finish(as_user("down")).status, 0);
    until("the end", || shoal.poll());
    stage.assert_nothing_left();
}

#[test]
fn completions_offer_the_commands_and_are_what_the_shell_takes() {
    let stage = stage!("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = stage.done(&["completions", shell]);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{shell}");
        for word in ["restart", "doctor", "pause", "completions"] {
            assert!(done.out.contains(word), "{shell} does not offer {word}");
        }
        // Hidden commands are for ourselves.
        assert!(!done.out.contains("demo-supervisor"), "{shell}");
    }
    let script = stage.done(&["completions", "bash"]).out
        + "\nCOMP_WORDS=(shoal sta) COMP_CWORD=1; _shoal shoal sta shoal; echo \"${COMPREPLY[*]}\"\n";
    let file = stage.path("completed.sh");
    std::fs::write(&file, script).expect("written");
    let Ok(shown) = Command::new("bash").arg(&file).output() else { return };
    assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "status start", "{shown:?}");
}

#[test]
fn manual_has_a_page_for_every_command() {
    let stage = stage!("manual");
    let page = stage.done(&["man"]);
    assert_eq!((page.status, page.err.as_str()), (0, ""));
    assert!(page.out.contains(".TH shoal 1") && page.out.contains("shoal\\-status(1)"), "{}", page.out);
    let folder = stage.path("man");
    assert_eq!(stage.done(&["man", "--dir", text(&folder)]).status, 0);
    let mut due = BTreeSet::from(["shoal.1".to_owned()]);
    for command in offered(&[]) {
        due.extend(offered(&[&command]).iter().map(|below| format!("shoal-{command}-{below}.1")));
        due.insert(format!("shoal-{command}.1"));
    }
    assert!(due.contains("shoal-dlq-list.1"), "{due:?}");
    let pages = std::fs::read_dir(&folder).expect("listed").map(|page| page.expect("read").file_name());
    let pages = pages.map(|page| page.into_string().expect("UTF-8")).collect();
    assert_eq!(due, pages, "what is offered has a page, and hidden commands have none");
}
