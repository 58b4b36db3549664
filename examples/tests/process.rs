//! Goal: what `shoal_agent::run` makes of its supervisor, and with which status it ends. Method: the real worker as a
//! process, and this test as a supervisor of one agent.
#![allow(missing_docs)]

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use shoal_runtime::Incarnation;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::wire::{
    self, ChannelEntry, FromAgent, InputEntry, LaneEntry, Manifest, NeighbourEntry, Received, ToAgent,
};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn manifest() -> Manifest {
    let lane = |channel| LaneShape { capacity_bytes: 4096, when_full: WhenFull::Block, channel };
    let channel = |index, name: &str, message: &str, line| ChannelEntry {
        index,
        name: name.into(),
        message: message.into(),
        line,
    };
    let lister = SegmentShape { lanes: vec![lane(0)], input_count: 0, state_bytes: 0 };
    Manifest {
        swarm: "wordcount".into(),
        file: "wordcount.toml".into(),
        name: "worker".into(),
        line: 20,
        agent: 0,
        generation: 1,
        owner: 0,
        prefetch: 1,
        replica: (0, 1),
        cpu_percent: None,
        fence_by_sleeper: false,
        permanent: false,
        standby: false,
        is_stood_by: false,
        shape: SegmentShape { lanes: vec![lane(1)], input_count: 1, state_bytes: 0 },
        board: BoardShape { channel_count: 2, agents: vec![(1, 1), (1, 0)], ..BoardShape::default() },
        channels: vec![channel(0, "tasks", "Task", 5), channel(1, "counts", "Count", 9)],
        channel_names: "tasks\ncounts".into(),
        neighbours: vec![NeighbourEntry {
            agent: 1,
            name: "lister".into(),
            shape: lister.into(),
            read: true,
        }],
        lanes: vec![LaneEntry { channel: 1, line: 21, readers: Vec::new(), groups: Vec::new() }],
        inputs: vec![InputEntry {
            channel: 0,
            line: 22,
            neighbour: 0,
            lane: 0,
            share: (0, 1),
            table: None,
            copied: false,
        }],
        given: Vec::new(),
        attempts_max: 3,
        claims: Vec::new(),
    }
}

/// Starts the worker and brings it to its first declaration.
fn start() -> (Child, OwnedFd) {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
    // The shell puts the socket where an agent looks for it.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" 3<&0 </dev/null", env!("CARGO_BIN_EXE_worker")]);
    command.env(wire::CONTROL_ENV, wire::CONTROL_FD.to_string());
    let child = command.stdin(Stdio::from(there)).stderr(Stdio::piped()).spawn().expect("the worker starts");
    drop(command);

    let manifest = manifest();
    let place = Place { position: 4096, sequence: 0 };
    let incarnation = Incarnation { agent: 0, generation: 1 };
    let origin = Origin { swarm: 1, incarnation, lanes: vec![place], inputs: vec![place], state: Vec::new() };
    let own = segment::create(&manifest.shape, &origin).expect("a segment");
    let (board, board_fd) = segment::create_board(manifest.board.clone(), 1).expect("a board");
    let doorbell = Doorbell::create().expect("a doorbell");
    let told = segment::freeze("manifest", &manifest.to_bytes().expect("bytes")).expect("frozen");
    let fds = [own.as_fd(), board_fd.as_fd(), doorbell.as_fd(), told.as_fd()];
    wire::tell(&here, &ToAgent::Hello, &fds).expect("told");
    assert_eq!(hear(&here), FromAgent::Mapped);
    segment::seal_live(&own).expect("sealed");
    board.publish_generation(incarnation);
    board.announce();
    wire::tell(&here, &ToAgent::Go, &[]).expect("told");
    assert!(matches!(hear(&here), FromAgent::Declare { channel: 1, publishes: true, .. }));
    (child, here)
}

fn hear(socket: &OwnedFd) -> FromAgent {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match wire::listen(socket).expect("heard") {
            Received::Packet(message, _) => return message,
            Received::Nothing if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            other => panic!("the worker said nothing: {other:?}"),
        }
    }
}

fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_agent_whose_supervisor_is_gone_ends_at_once_with_its_own_status_and_one_line() {
    let (child, socket) = start();
    wire::tell(&socket, &ToAgent::Declared, &[]).expect("told");
    assert!(matches!(hear(&socket), FromAgent::Declare { channel: 0, publishes: false, .. }));
    wire::tell(&socket, &ToAgent::Declared, &[]).expect("told");
    assert_eq!(hear(&socket), FromAgent::Ready);
    drop(socket);
    let status = i32::from(shoal_agent::EXIT_SUPERVISOR_GONE);
    assert_eq!(end(child), (Some(status), "agent worker: the supervisor is gone\n".to_owned()));
}

#[test]
fn a_refused_type_ends_the_agent_with_both_sides_in_words() {
    let (child, socket) = start();
    wire::tell(&socket, &ToAgent::Refused("`collector` reads it as 00000000deadbeef".into()), &[])
        .expect("told");
    let (status, text) = end(child);
    assert_eq!(status, Some(1));
    for part in ["agent worker: ", "`counts`", "wordcount.toml:9", "`Count`", "`collector`", "deadbeef"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
}

#[test]
fn an_agent_started_by_hand_says_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let child = command.env_remove(wire::CONTROL_ENV).stderr(Stdio::piped()).spawn().expect("it starts");
    let (status, text) = end(child);
    assert_eq!(status, Some(1));
    assert!(text.contains("shoal run"), "{text}");
}
