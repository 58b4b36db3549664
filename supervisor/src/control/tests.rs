use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn fresh() -> (tempfile::TempDir, PathBuf, Control) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control");
    let control = Control::listen(&path).unwrap();
    (dir, path, control)
}

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Turns the server until it has questions or nothing more happens.
fn turn(control: &mut Control) -> Vec<(ClientId, Request)> {
    let mut requests = Vec::new();
    for _ in 0..200 {
        requests.extend(control.on_ready());
        if !is_readable(control) {
            break;
        }
    }
    requests
}

fn is_readable(control: &Control) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = control.fd();
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&zero)).unwrap() > 0
}

fn line_of(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn rest_of(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text); // a cut connection may end in ECONNRESET
    String::from_utf8(text).unwrap()
}

fn done(text: &str) -> Response {
    Response::Done { text: text.to_owned() }
}

#[test]
fn ps_report_is_written_exactly_as_promised() {
    let agent = PsAgent {
        name: "worker.1".into(),
        pid: None,
        generation: 3,
        state: PsState::Backoff,
        restarts: 2,
        rescues: 0,
        set: None,
        hangs: 0,
        standbys: Vec::new(),
        standbys_wanted: 0,
        zygote: None,
        uptime_ms: 0,
        pss_kib: 4,
        sent: 5,
        received: 6,
        p50_ns: None,
        p99_ns: Some(7),
        unapplied: Vec::new(),
    };
    let report = PsReport {
        swarm: "s".into(),
        agents: vec![agent],
        sets: Vec::new(),
        under_way: None,
        scaled_to_nothing: Vec::new(),
    };
    let expected = r#"{"swarm":"s","agents":[{"name":"worker.1","set":null,"pid":null,"generation":3,"state":"backoff","restarts":2,"rescues":0,"hangs":0,"standbys":[],"standbys_wanted":0,"zygote":null,"uptime_ms":0,"pss_kib":4,"sent":5,"received":6,"p50_ns":null,"p99_ns":7,"unapplied":[]}],"sets":[],"under_way":null,"scaled_to_nothing":[]}"#;
    assert_eq!(serde_json::to_string(&report).unwrap(), expected);
    let answer = serde_json::to_string(&Response::Ps(report.clone())).unwrap();
    assert_eq!(serde_json::from_str::<Response>(&answer).unwrap(), Response::Ps(report));
}

#[test]
fn states_are_the_promised_words() {
    use PsState::*;
    for (state, word) in [
        (Starting, "starting"),
        (Ready, "ready"),
        (Suspended, "suspended"),
        (Stopping, "stopping"),
        (Backoff, "backoff"),
        (Stopped, "stopped"),
        (Failed, "failed"),
    ] {
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{word}\""));
        assert_eq!(state.word(), word);
    }
}

#[test]
fn name_means_an_instance_or_all_replicas_of_an_agent() {
    assert!(is_meant("worker", "worker"));
    assert!(is_meant("worker", "worker.12"));
    assert!(is_meant("worker.1", "worker.1"));
    assert!(!is_meant("worker.1", "worker.12"));
    assert!(!is_meant("work", "worker.1"));
    assert!(!is_meant("", "worker.1"));
    assert_eq!(agent_of("worker.x"), "worker.x");
}

#[test]
fn socket_is_open_to_its_owner_only() {
    let (_dir, path, _control) = fresh();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(Control::listen(&path).err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn question_is_answered_later_and_the_next_one_after_it() {
    let (_dir, path, mut control) = fresh();
    let mut client = connect(&path);
    client.write_all(b"{\"ask\":\"stop\",\"name\":\"worker.1\"}\n").unwrap();
    let requests = turn(&mut control);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].1, Request::Stop { name: "worker.1".into() });
    assert!(!is_readable(&control));
    control.reply(requests[0].0, &done("worker.1 stopped"));
    assert_eq!(line_of(&client), "{\"answer\":\"done\",\"text\":\"worker.1 stopped\"}\n");
    client.write_all(b"{\"ask\":\"ps\"}\n").unwrap();
    let requests = turn(&mut control);
    assert_eq!(requests[0].1, Request::Ps);
    drop(client);
    turn(&mut control);
    assert_eq!(control.clients_count(), 0);
    control.reply(requests[0].0, &done("nobody listens"));
}

#[test]
fn half_lines_are_put_together_and_a_lost_half_is_forgotten() {
    let (_dir, path, mut control) = fresh();
    let mut client = connect(&path);
    for byte in b"{\"ask\":\"info\"}" {
        client.write_all(&[*byte]).unwrap();
        assert_eq!(turn(&mut control), []);
    }
    client.write_all(b"\n").unwrap();
    assert_eq!(turn(&mut control)[0].1, Request::Info);
    let mut half = connect(&path);
    half.write_all(b"{\"ask\":\"shut").unwrap();
    drop(half);
    assert_eq!(turn(&mut control), []);
    assert_eq!(control.clients_count(), 1);
}

#[test]
fn client_that_closed_its_sending_side_still_gets_its_answer_without_a_spinning_loop() {
    let (_dir, path, mut control) = fresh();
    let mut client = connect(&path);
    client.write_all(b"{\"ask\":\"shutdown\"}\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let requests = turn(&mut control);
    assert_eq!(requests.len(), 1);
    assert!(!is_readable(&control), "the loop would spin on the end of file");
    control.reply(requests[0].0, &done("bye"));
    assert_eq!(rest_of(client), "{\"answer\":\"done\",\"text\":\"bye\"}\n");
    assert_eq!(control.clients_count(), 0);
}

#[test]
fn noise_is_answered_with_an_error_and_cut_off() {
    for noise in [
        &b"\n"[..],
        b"hello\n",
        b"{\"ask\":\"fly\"}\n",
        b"{\"ask\":\"stop\"}\n",
        b"\xff\xfe\x00\n",
        b"{\"ask\":\"stop\",\"name\":\"\xff\"}\n",
        b"{\"ask\":\"ps\"}\n{\"ask\":\"ps\"}\n",
    ] {
        let (_dir, path, mut control) = fresh();
        let mut client = connect(&path);
        client.write_all(noise).unwrap();
        assert_eq!(turn(&mut control), []);
        assert_eq!((control.clients_count(), control.refused_count()), (0, 1));
        assert!(rest_of(client).starts_with("{\"answer\":\"error\""));
    }
}

#[test]
fn deeply_nested_question_is_refused_not_a_stack_overflow() {
    let (_dir, path, mut control) = fresh();
    let mut client = connect(&path);
    client.write_all("[".repeat(60_000).as_bytes()).unwrap();
    client.write_all(b"\n").unwrap();
    assert_eq!(turn(&mut control), []);
    assert!(rest_of(client).starts_with("{\"answer\":\"error\""));
}

/// Goal: no line, however long, costs more than its bound. Method: 10 MB without an end of line from a thread.
#[test]
fn endless_line_is_cut_off_after_64_kib() {
    let (_dir, path, mut control) = fresh();
    let client = connect(&path);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (&client).write_all(&vec![b'x'; 10 << 20]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while control.refused_count() == 0 {
            assert!(Instant::now() < deadline);
            assert_eq!(control.on_ready(), []);
            assert!(control.clients.values().all(|c| c.unread_bytes() <= REQUEST_BYTES_MAX + (16 << 10)));
        }
        assert!(writer.join().unwrap().is_err());
    });
    assert_eq!(control.clients_count(), 0);
}

#[test]
fn longest_allowed_question_is_understood() {
    let (_dir, path, mut control) = fresh();
    let client = connect(&path);
    let empty = serde_json::to_string(&Request::Stop { name: String::new() }).unwrap().len();
    let name = "x".repeat(REQUEST_BYTES_MAX - empty);
    let mut line = serde_json::to_string(&Request::Stop { name: name.clone() }).unwrap();
    assert_eq!(line.len(), REQUEST_BYTES_MAX);
    line.push('\n');
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(line.as_bytes()).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline);
            if let Some((_, request)) = control.on_ready().pop() {
                assert_eq!(request, Request::Stop { name });
                break;
            }
        }
    });
}

#[test]
fn reader_that_never_reads_is_cut_off_and_blocks_nobody() {
    let (_dir, path, mut control) = fresh();
    let mut slow = connect(&path);
    let big = done(&"x".repeat(1 << 20));
    let mut answers = 0;
    while control.refused_count() == 0 {
        if slow.write_all(b"{\"ask\":\"ps\"}\n").is_err() {
            break;
        }
        for (client, _) in turn(&mut control) {
            control.reply(client, &big);
            answers += 1;
        }
        assert!(answers <= 2 + UNSENT_BYTES_MAX / (1 << 20), "nothing bounds what waits for a slow reader");
    }
    assert_eq!(control.clients_count(), 0);
    assert!(answers > 2);
}

#[test]
fn large_answer_reaches_a_slow_reader_whole() {
    let (_dir, path, mut control) = fresh();
    let mut client = connect(&path);
    client.write_all(b"{\"ask\":\"ps\"}\n").unwrap();
    let (id, _) = turn(&mut control)[0].clone();
    control.reply(id, &done(&"y".repeat(3 << 20)));
    assert_eq!(control.clients_count(), 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| line_of(&client).len());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() {
            assert!(Instant::now() < deadline);
            control.on_ready();
        }
        assert!(reader.join().unwrap() > 3 << 20);
    });
    assert!(!is_readable(&control));
}

#[test]
fn flood_of_clients_leaves_room_for_one_more() {
    let (_dir, path, mut control) = fresh();
    let mut asking = connect(&path);
    asking.write_all(b"{\"ask\":\"stop\",\"name\":\"x\"}\n").unwrap();
    let (first, _) = turn(&mut control)[0].clone();
    let mut idle = Vec::new();
    for _ in 0..3 * CLIENTS_MAX {
        idle.push(connect(&path));
        turn(&mut control);
        assert!(control.clients_count() <= CLIENTS_MAX);
    }
    let mut late = connect(&path);
    late.write_all(b"{\"ask\":\"ps\"}\n").unwrap();
    let requests = turn(&mut control);
    assert_eq!(requests.len(), 1);
    control.reply(requests[0].0, &done("late"));
    assert!(line_of(&late).contains("late"));
    control.reply(first, &done("first"));
    assert!(line_of(&asking).contains("first"), "who waits for an answer gave way to who idles");
}

#[test]
fn path_too_long_for_an_address_works_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::set_permissions(&deep, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = deep.join("control");
    let mut control = Control::listen(&path).unwrap();
    let (address, _folder) = server::address_of(&path).unwrap();
    let mut client = connect(&address);
    client.write_all(b"{\"ask\":\"ps\"}\n").unwrap();
    assert_eq!(turn(&mut control).len(), 1);
}

#[test]
fn logs_of_several_replicas_are_those_of_their_agent_and_of_several_agents_a_command_each() {
    let of = |names: &[&str]| logs_of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(of(&["dst.2"]), "`shoal logs dst.2`");
    assert_eq!(of(&["dst.1", "dst.2"]), "`shoal logs dst`");
    assert_eq!(of(&["dst.1", "a", "dst.2"]), "`shoal logs dst`, `shoal logs a`");
}
