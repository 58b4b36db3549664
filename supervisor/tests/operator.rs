//! The binary's client commands against a supervisor that this test plays: a claimed run folder, a control socket
//! and answers by script.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shoal::control::{Control, PsAgent, PsReport, PsState, Request, Response, SwarmInfo};
use shoal::output::{Capture, Echo, Stream};
use shoal::run_dir::{Place, RunDir};

type Stop = std::sync::Arc<AtomicBool>;

/// A runtime folder of one's own, and the swarms that run in it.
struct Stage {
    runtime: tempfile::TempDir,
}

struct Played {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

impl Stage {
    fn new() -> Stage {
        Stage { runtime: tempfile::tempdir().unwrap() }
    }

    fn place(&self) -> Place {
        Place::at(&self.runtime.path().join("shoal"))
    }

    fn shoal(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command.args(args).env("XDG_RUNTIME_DIR", self.runtime.path()).env_remove("SHOAL_SWARM");
        command.stdin(Stdio::null());
        command
    }

    fn done(&self, args: &[&str]) -> (i32, String, String) {
        told(&self.shoal(args).output().unwrap())
    }

    /// Plays a supervisor until dropped. `answer` says None to end at once, without an answer.
    fn play(
        &self,
        name: &str,
        answer: impl Fn(&Request, &Path) -> Option<Response> + Send + 'static,
    ) -> Played {
        let stop = Stop::default();
        let run = RunDir::claim_in(&self.place(), name).unwrap();
        let mut control = Control::listen(&run.socket()).unwrap();
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                for (client, request) in control.on_ready() {
                    match answer(&request, &run.logs()) {
                        Some(response) => control.reply(client, &response),
                        None => return,
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Played { stop, thread: Some(thread) }
    }
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn report(names: &[&str]) -> PsReport {
    let agents = names.iter().map(|name| PsAgent {
        name: name.to_string(),
        set: None,
        pid: None,
        generation: 2,
        state: PsState::Backoff,
        restarts: 1,
        rescues: 0,
        hangs: 0,
        standbys: Vec::new(),
        standbys_wanted: 0,
        zygote: None,
        uptime_ms: 0,
        pss_kib: 0,
        sent: 1,
        received: 2,
        p50_ns: None,
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

/// Answers as a supervisor with a lister and two workers would.
fn ordinary(request: &Request, logs: &Path) -> Option<Response> {
    Some(match request {
        Request::Ps => Response::Ps(report(&["lister", "worker.1", "worker.2"])),
        Request::Info => Response::Info(SwarmInfo {
            swarm: "s".into(),
            pid: std::process::id(),
            supervisor: 0,
            watching_ns: 0,
            last_verdict_ns: 0,
            logs: logs.to_owned(),
            file: "/x/swarm.toml".into(),
        }),
        Request::Stop { name } if name == "lister" => Response::Error { text: "lister hangs".into() },
        Request::Stop { name } if name.starts_with("worker") => {
            Response::Done { text: format!("{name} stopped") }
        }
        _ => Response::Error { text: "no such agent".into() },
    })
}

#[test]
fn ps_prints_the_promised_json_and_a_table() {
    let stage = Stage::new();
    let _played = stage.play("s", ordinary);
    let (status, out, err) = stage.done(&["ps", "--json"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(out, serde_json::to_string(&report(&["lister", "worker.1", "worker.2"])).unwrap() + "\n");
    let (status, out, _) = stage.done(&["ps", "--swarm", "s"]);
    assert_eq!((status, out.lines().count()), (0, 4));
}

#[test]
fn clients_say_which_swarms_run_when_it_is_not_clear_which_is_meant() {
    let stage = Stage::new();
    let (status, out, err) = stage.done(&["ps"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("no swarm is running"), "{err}");
    let _one = stage.play("alpha", ordinary);
    assert_eq!(stage.done(&["ps"]).0, 0);
    let _two = stage.play("beta", ordinary);
    let (status, _, err) = stage.done(&["ps"]);
    assert_eq!(status, 2);
    assert!(err.contains("alpha, beta"), "{err}");
    assert_eq!(stage.done(&["--swarm", "beta", "ps"]).0, 0);
    let (status, _, err) = stage.done(&["ps", "--swarm", "bata"]);
    assert_eq!(status, 2);
    assert!(err.contains("did you mean `beta`?"), "{err}");
}

#[test]
fn stop_says_what_was_done_what_failed_and_who_was_probably_meant() {
    let stage = Stage::new();
    let _played = stage.play("s", ordinary);
    assert_eq!(stage.done(&["stop", "worker"]), (0, "worker stopped\n".into(), String::new()));
    assert_eq!(stage.done(&["stop", "lister"]), (1, String::new(), "shoal: lister hangs\n".into()));
    let (status, _, err) = stage.done(&["stop", "listre"]);
    assert_eq!(status, 2);
    assert!(err.contains("did you mean `lister`?"), "{err}");
}

#[test]
fn supervisor_that_ends_before_it_answers_is_told() {
    let stage = Stage::new();
    let _played = stage.play("s", |_, _| None);
    let (status, _, err) = stage.done(&["stop", "worker"]);
    assert_eq!(status, 1);
    assert!(err.contains("ended before it answered"), "{err}");
}

#[test]
fn closed_standard_output_is_no_panic() {
    let stage = Stage::new();
    let names: Vec<String> = (0..5000).map(|n| format!("worker.{n}")).collect();
    let _played = stage.play("s", move |request, logs| match request {
        Request::Ps => Some(Response::Ps(report(&names.iter().map(String::as_str).collect::<Vec<_>>()))),
        other => ordinary(other, logs),
    });
    for args in [&["ps"][..], &["ps", "--json"], &["stop", "worker"]] {
        let mut child = stage.shoal(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(told(&output), (0, String::new(), String::new()), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    let stage = Stage::new();
    for args in [&["fly"][..], &["stop"], &["ps", "--jsno"], &["demo", "--kill-every", "soon"], &[]] {
        assert_eq!(stage.done(args).0, 2, "{args:?}");
    }
    assert_eq!(stage.done(&["--help"]).0, 0);
    let (status, _, err) = stage.done(&["check", "/absent/swarm.toml"]);
    assert_eq!(status, 2);
    assert!(err.contains("no such swarm file"), "{err}");
}

#[test]
fn check_prints_what_a_swarm_file_amounts_to() {
    let stage = Stage::new();
    let file = stage.runtime.path().join("swarm.toml");
    let text = "[swarm]\nname = \"s\"\n[channel.c]\nmessage = \"M\"\n[agent.a]\ncommand = [\"true\"]\n\
                publishes = [\"c\"]\n[agent.b]\ncommand = [\"true\"]\nreplicas = 2\nsubscribes = [\"c\"]\n";
    std::fs::write(&file, text).unwrap();
    let (status, out, err) = stage.done(&["check", file.to_str().unwrap()]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.starts_with("swarm `s`: 3 processes, 1 lane of 256 KiB\n"), "{out}");
    assert!(out.contains("  channel c: M, 256 KiB per lane, block; a -> b\n"), "{out}");
    std::fs::write(&file, text.replace("replicas", "replicsa")).unwrap();
    let (status, out, err) = stage.done(&["check", file.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("replicsa") && err.contains(":10:"), "{err}");
}

fn prints(capture: &mut Capture, text: &str) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, text.as_bytes()).unwrap();
    capture.on_readable(reader.as_fd(), Stream::Out).unwrap();
}

fn captures(stage: &Stage) -> [Capture; 2] {
    let logs = stage.place().path().join("s/logs");
    ["worker.1", "worker.2"].map(|name| Capture::new(name, logs.as_path(), Echo::off()))
}

#[test]
fn logs_of_an_agent_are_those_of_its_replicas_by_time_and_prefixed() {
    let stage = Stage::new();
    let _played = stage.play("s", ordinary);
    let [mut one, mut two] = captures(&stage);
    for n in 0..3 {
        prints(&mut one, &format!("a{n}\n"));
        std::thread::sleep(Duration::from_millis(3));
        prints(&mut two, &format!("b{n}\n"));
        std::thread::sleep(Duration::from_millis(3));
    }
    let (status, out, err) = stage.done(&["logs", "worker"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let seen: Vec<(&str, &str)> =
        out.lines().map(|line| (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap())).collect();
    let (one, two) = ("worker.1", "worker.2");
    assert_eq!(seen, [(one, "a0"), (two, "b0"), (one, "a1"), (two, "b1"), (one, "a2"), (two, "b2")]);
    let (_, out, _) = stage.done(&["logs", "worker.2", "-n", "1"]);
    assert!(out.ends_with("out b2\n") && out.lines().count() == 1 && !out.contains('|'), "{out}");
    assert_eq!(stage.done(&["logs", "lister"]), (0, String::new(), String::new()));
    assert_eq!(stage.done(&["logs", "wroker"]).0, 2);
}

/// Goal: nobody who follows misses a line or waits for ever. Method: 5 MiB of lines, so that the file is rotated
/// under the follower, in small bursts; then the supervisor ends.
#[test]
fn followed_logs_go_on_over_rotations_until_the_swarm_ends() {
    let stage = Stage::new();
    let played = stage.play("s", ordinary);
    let [mut one, _two] = captures(&stage);
    prints(&mut one, "line 0\n");
    let mut child = stage.shoal(&["logs", "-f", "worker.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let filler = "x".repeat(400);
    for n in 1..=10_000 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.ends_with(&format!("line {}", n - 1)), "{line}");
        prints(&mut one, &format!("{filler} line {n}\n"));
    }
    drop(played);
    assert!(lines.next().unwrap().unwrap().ends_with("line 10000"));
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn followed_logs_end_when_nobody_reads_them() {
    let stage = Stage::new();
    let _played = stage.play("s", ordinary);
    let mut child =
        stage.shoal(&["logs", "-f", "worker"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn folder_that_others_may_enter_is_refused_with_what_to_do() {
    let stage = Stage::new();
    let _played = stage.play("s", ordinary);
    let place = stage.place();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (status, _, err) = stage.done(&["ps"]);
    assert_eq!(status, 1);
    assert!(err.contains("chmod 700"), "{err}");
}
