use super::*;
use crate::control::{PsAgent, PsReport, PsState};
use crate::output::{Capture, Echo, LogFile, Stream};
use crate::run_dir::{Place, Running};
use clap::CommandFactory;
use std::os::fd::AsFd;
use std::path::Path;

fn demo_of(args: &[&str]) -> DemoOptions {
    match Shoal::try_parse_from([&["shoal", "demo"], args].concat()).unwrap().command {
        Command::Demo(options) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn command_line_is_consistent() {
    Shoal::command().debug_assert();
    assert!(
        super::takes("chaos", "kills")
            && !super::takes("chaos", "nothing")
            && !super::takes("nothing", "kills")
    );
}

#[test]
fn demo_kills_every_50_ms_unless_told_otherwise() {
    let plain = demo_of(&[]);
    assert_eq!((plain.kill_every, plain.kills, plain.dir), (Duration::from_millis(50), None, None));
    assert_eq!(demo_of(&["--kill-every", "0"]).kill_every, Duration::ZERO);
    assert_eq!(demo_of(&["--kill-every", "7ms"]).kill_every, Duration::from_millis(7));
    assert_eq!(demo_of(&["--kill-every", "200us"]).kill_every, Duration::from_micros(200));
    let all = demo_of(&["/x", "--kills", "100", "--workers", "3", "--json", "--allow-changes"]);
    assert_eq!((all.kills, all.workers), (Some(100), NonZeroU32::new(3)));
}

#[test]
fn durations_are_those_of_the_swarm_file_and_a_number_alone_is_none() {
    assert_eq!(duration::parse("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(duration::parse("0"), Ok(Duration::ZERO));
    for bad in
        ["30", "25", "1.5s", "-1", "-1s", "x", "", "1 day", "1e3", "nan", "inf", "99999999999999999999999h"]
    {
        let refused = duration::parse(bad).expect_err(bad);
        assert!(refused.contains("this is not a duration") && refused.contains("ms, s, m or h"), "{refused}");
    }
    // Wherever one is taken.
    for args in [
        &["up", "-d", "--timeout", "30", "x"][..],
        &["down", "--timeout", "30"],
        &["wait", "--timeout", "30"],
        &["status", "--over", "30"],
        &["reload", "--timeout", "30"],
        &["scale", "x", "2", "--timeout", "30"],
        &["upgrade", "x", "--prove", "30"],
        &["upgrade", "x", "--timeout", "30"],
        &["demo", "--kill-every", "30"],
        &["chaos", "--for", "30"],
    ] {
        let with = |last: &str| {
            let args = args.iter().map(|arg| if *arg == "30" { last } else { arg });
            Shoal::try_parse_from(std::iter::once("shoal").chain(args)).map(|_| ())
        };
        let refused = with("30").expect_err(args[0]).to_string();
        assert!(refused.contains("this is not a duration"), "{refused}");
        assert!(with("30s").is_ok(), "{args:?}");
    }
}

#[test]
fn agent_keeps_its_arguments_as_they_are() {
    let parsed = Shoal::try_parse_from(["shoal", "agent", "worker", "--help", "-x", "--swarm", "y"]).unwrap();
    let Command::Agent { args } = parsed.command else { panic!() };
    assert_eq!(args, ["worker", "--help", "-x", "--swarm", "y"]);
}

fn running(names: &[&str]) -> Vec<Running> {
    let of = |name: &&str| Running { name: name.to_string(), pid: None, socket: PathBuf::new() };
    names.iter().map(of).collect()
}

#[test]
fn swarm_is_the_one_named_or_the_only_one() {
    let choose =
        |names: &[&str], wanted| client::choose(&Place::at(Path::new("/run/x")), running(names), wanted);
    assert_eq!(choose(&["a"], None).unwrap().name, "a");
    assert_eq!(choose(&["a", "b"], Some("b")).unwrap().name, "b");
    let none = choose(&[], None).unwrap_err();
    assert_eq!(none.status, FAILED);
    let none_of_that_name = choose(&[], Some("a")).unwrap_err();
    for text in [none.text, none_of_that_name.text] {
        assert!(text.contains("looked in /run/x; ") && text.contains("nsenter"), "{text}");
    }
    let several = choose(&["alpha", "beta"], None).unwrap_err();
    assert_eq!(several.status, BAD_INPUT);
    assert!(several.text.contains("alpha, beta") && several.text.contains("--swarm"), "{}", several.text);
    let unknown = choose(&["alpha", "beta"], Some("alpah")).unwrap_err();
    assert!(unknown.text.contains("did you mean `alpha`?"), "{}", unknown.text);
}

fn report(names: &[&str]) -> PsReport {
    let agents = names.iter().map(|name| PsAgent {
        name: name.to_string(),
        pid: Some(4711),
        generation: 1,
        state: PsState::Ready,
        restarts: 0,
        rescues: 0,
        set: None,
        hangs: 0,
        standbys: Vec::new(),
        standbys_wanted: 0,
        zygote: None,
        uptime_ms: 61_000,
        pss_kib: 2048,
        sent: 3,
        received: 4,
        p50_ns: Some(900),
        p99_ns: None,
        unapplied: Vec::new(),
    });
    PsReport {
        swarm: "s".into(),
        agents: agents.collect(),
        sets: Vec::new(),
        under_way: None,
        scaled_to_nothing: Vec::new(),
    }
}

#[test]
fn unknown_agent_is_told_with_the_nearest_name() {
    let report = report(&["lister", "worker.1", "worker.2"]);
    assert_eq!(client::check_name("worker", &report).unwrap(), ["worker.1", "worker.2"]);
    assert_eq!(client::check_name("worker.2", &report).unwrap(), ["worker.2"]);
    let unknown = client::check_name("wroker", &report).unwrap_err();
    assert_eq!(unknown.status, BAD_INPUT);
    assert!(unknown.text.contains("did you mean `worker`?"), "{}", unknown.text);
    assert!(unknown.text.ends_with("agents: lister, worker"), "{}", unknown.text);
    assert!(client::check_name("worker.9", &report).unwrap_err().text.contains("`worker.1`"));
    assert!(!client::check_name("\x1b[2J", &report).unwrap_err().text.contains('\x1b'));
}

#[test]
fn table_has_a_line_per_agent_and_dashes_for_what_is_not_measured() {
    let text = ps::table(&report(&["lister", "worker.1"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    let want = "worker.1 4711 1 ready 0 1 min 01 s 2048 KiB 3 4 900 ns -";
    assert_eq!(words.join(" "), want);
}

fn prints(capture: &mut Capture, text: &str) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, text.as_bytes()).unwrap();
    capture.on_readable(reader.as_fd(), Stream::Out).unwrap();
}

/// Goal: a follower sees every line once, however many rotations lie between two looks (but for what is rotated
/// out). Method: a real capture, looks after random amounts.
#[test]
fn follower_reads_every_line_once_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    let mut follower = follow::Follower::new(dir.path(), "a");
    assert!(follower.read().unwrap().is_empty());
    let (mut written, mut seen) = (0, 0);
    for burst in [1, 700, 20_000, 3, 45_000, 60_000, 0, 5, 80_000] {
        for _ in 0..burst {
            prints(&mut capture, &format!("line {written}\n"));
            written += 1;
        }
        for line in follower.read().unwrap() {
            assert!(
                line.ends_with(format!(" out line {seen}").as_bytes()),
                "{}",
                String::from_utf8_lossy(&line)
            );
            seen += 1;
        }
        assert_eq!(seen, written);
    }
    assert!(LogFile::path_of(dir.path(), "a", 3).exists());
}

#[test]
fn follower_that_was_outrun_goes_on_with_the_oldest_line_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new("a", dir.path(), Echo::off());
    let mut follower = follow::Follower::new(dir.path(), "a");
    prints(&mut capture, "first\n");
    assert_eq!(follower.read().unwrap().len(), 1);
    let text: String = "x".repeat(4000) + "\n";
    for _ in 0..2000 {
        prints(&mut capture, &text);
    }
    prints(&mut capture, "last\n");
    let lines = follower.read().unwrap();
    assert!(lines.len() > 700 && lines.len() < 2000);
    assert!(lines.last().unwrap().ends_with(b"out last"));
    assert!(follower.read().unwrap().is_empty());
}

#[test]
fn follower_keeps_a_half_line_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = LogFile::path_of(dir.path(), "a", 0);
    let mut follower = follow::Follower::new(dir.path(), "a");
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(b"one\ntw").unwrap();
    assert_eq!(follower.read().unwrap(), [b"one"]);
    file.write_all(b"o\n\nthr").unwrap();
    assert_eq!(follower.read().unwrap(), [&b"two"[..], b""]);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(follower.finish().unwrap(), [b"thr"]);
}
