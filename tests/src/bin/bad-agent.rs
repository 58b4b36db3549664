//! The agents of the swarms under attack: `bad-agent ROLE N`, on the bare runtime. Good ones are source, sink and ear.

use rustix::process::{Pid, getpid, getppid};
use shoal_runtime::attachment::{Attachment, Encode, Found, attach};
use shoal_runtime::consumer::Frame;
use shoal_runtime::layout::{header, input, mark};
use shoal_runtime::wire::{self, CONTROL_FD, FromAgent, Manifest, Received, ToAgent};
use shoal_runtime::{bootstrap, segment};
use shoal_tests::attack::{self, OwnMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The message at which a bad agent shows its nature.
const TURN: u64 = 3_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let count = args[2].parse::<u64>().expect("a number");
    if args[1] == "attacker" {
        return attacker();
    }
    let mut a = attach().expect("attached");
    a.ready().expect("ready");
    let first_life = a.manifest.generation == 1;
    match args[1].as_str() {
        "source" => source(&mut a, count),
        "sink" | "ear" => listen(&mut a, &args[1], count),
        role => {
            if !first_life && role.starts_with("zombie") {
                no_zombie_is_left();
            }
            relay(&mut a, if first_life { role } else { "good" });
        }
    }
}

fn note(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("NOTES").expect("a folder")).join(name)
}

/// Eight bytes.
struct Number(u64);

impl Encode for Number {
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let slot = slot.get_mut(..8)?;
        slot.iter_mut().zip(self.0.to_le_bytes()).for_each(|(to, byte)| _ = to.write(byte));
        Some(8)
    }

    fn exact(&mut self) -> Option<usize> {
        Some(8)
    }
}

fn write(a: &mut Attachment, value: u64) -> bool {
    let sent = a.outputs.write(0, &mut a.world, None, &mut Number(value)).expect("alive").is_ok();
    a.world.accuse().expect("alive");
    sent
}

fn source(a: &mut Attachment, count: u64) {
    loop {
        let value = a.outputs.producer(0).tail().sequence;
        if value >= count || !write(a, value) {
            return;
        }
        a.outputs.commit(None, &mut a.world).expect("alive");
    }
}

fn next(a: &mut Attachment) -> Option<(usize, Frame, u64)> {
    let all: Vec<usize> = (0..a.manifest.inputs.len()).collect();
    loop {
        let inputs = &mut a.inputs;
        let found = a.world.wait(None, |world, thorough| inputs.look(&all, world, thorough)).expect("alive");
        a.world.accuse().expect("alive");
        let Some(Found::Message(input, frame)) = found else { return None };
        let (sources, _) = a.inputs.consumer(input).split();
        if sources.lease(&frame) {
            let bytes = sources.leased(&frame);
            return Some((input, frame, u64::from_le_bytes(bytes.try_into().expect("eight bytes"))));
        }
    }
}

fn acknowledge(a: &mut Attachment, input: usize, frame: &Frame) {
    let (_, cursor) = a.inputs.consumer(input).split();
    a.outputs.commit(Some((input, cursor, frame)), &mut a.world).expect("alive");
}

/// Counts, and says what was not the next number.
fn listen(a: &mut Attachment, name: &str, count: u64) {
    let (mut seen, mut odd) = (0, 0);
    while let Some((input, frame, value)) = next(a) {
        if value != seen {
            odd += 1;
        }
        seen = value + 1;
        acknowledge(a, input, &frame);
    }
    println!("{name} saw {seen} of {count}, {odd} odd");
}

fn relay(a: &mut Attachment, role: &str) {
    let mut met = 0;
    while let Some((input, frame, value)) = next(a) {
        met += 1;
        if met == TURN {
            turn(a, role);
        }
        if role.starts_with("lie") && met == TURN {
            // Its cursor stays where the lie put it.
            std::thread::sleep(Duration::from_secs(if role == "lie-back" { 1 } else { 60 }));
            attack::kill_self();
        }
        if !write(a, value) {
            break;
        }
        acknowledge(a, input, &frame);
    }
    println!("bad ends in generation {}", a.manifest.generation);
}

fn turn(a: &mut Attachment, role: &str) {
    let map = OwnMap::find().expect("a segment");
    match role {
        "zombie" => make_zombie(map, false),
        "zombie-session" => make_zombie(map, true),
        "scribble" => {
            scribble(map, 0);
            attack::kill_self();
        }
        "lie-ahead" => lie(a, map, 1 << 40),
        "lie-back" => lie(a, map, 64 * 1024),
        "garbage" => garbage(),
        "chatter" => chatter(),
        _ => {}
    }
}

/// A cursor that is whole, and a lie.
fn lie(a: &Attachment, map: OwnMap, position: u64) {
    let at = a.manifest.shape.input_offset(0) + input::CURSOR;
    for (i, word) in [position, position, 0, 0, 0].into_iter().enumerate() {
        map.store(at + mark::POSITION + i * 8, word);
    }
}

/// Random words over the whole segment.
fn scribble(map: OwnMap, from: usize) {
    let mut word = 0x5eed_u64;
    for offset in (from..map.len_bytes()).step_by(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        map.store(offset, word);
    }
}

/// Leaves a child that has the segment mapped and goes on writing to it, and dies by SIGKILL.
fn make_zombie(map: OwnMap, session: bool) {
    map.kept_by_children().expect("kept");
    let own = getpid();
    if attack::fork().expect("forked").is_none() {
        if session {
            attack::leave_session();
            // The one between ends when its child is there: that is an orphan of another session then.
            if attack::fork().expect("forked").is_some() {
                std::thread::sleep(Duration::from_millis(20));
                std::process::exit(0);
            }
        }
        zombie(map, own);
    }
    while !note("zombie").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    attack::kill_self();
}

/// Writes to the dead parent's memory as long as it lives: to a word that is the dead's own to write and that changes no verdict,
/// since what changes one is a lie, and another test.
fn zombie(map: OwnMap, parent: Pid) -> ! {
    let pid = getpid().as_raw_nonzero();
    std::fs::write(note("half"), pid.to_string()).expect("noted");
    std::fs::rename(note("half"), note("zombie")).expect("noted");
    let mut beats = 0_u64;
    loop {
        beats += 1;
        map.store(header::RECORDER_BYTES, beats);
        if getppid() != Some(parent) && beats.is_multiple_of(1000) {
            let _ = std::fs::write(note("orphan-beats"), beats.to_string());
        }
    }
}

/// The successor runs, so the verdict was given, so the zombie is gone.
fn no_zombie_is_left() {
    let pid = std::fs::read_to_string(note("zombie")).expect("noted");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("gone", |(_, rest)| &rest[..1]);
    println!("zombie {pid} is {state}");
}

/// Packets that are none of ours, with descriptors, as many as the supervisor lets.
fn garbage() {
    let socket = attack::borrowed(CONTROL_FD);
    let null = std::fs::File::open("/dev/null").expect("there is one");
    let many = vec![null.as_fd(); 200];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    loop {
        for len in [0, 1, 31, 32, 33, 8192, 100_000] {
            let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
            control.push(rustix::net::SendAncillaryMessage::ScmRights(&many));
            let packet = vec![0xa5; len];
            let parts = [std::io::IoSlice::new(&packet)];
            let _ = rustix::net::sendmsg(socket, &parts, &mut control, rustix::net::SendFlags::NOSIGNAL);
        }
    }
}

/// Sound packets without end.
fn chatter() {
    let socket = attack::borrowed(CONTROL_FD);
    std::fs::write(note("chatter"), "").expect("noted");
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let _ = wire::say(socket, &FromAgent::LinksTaken, &[]);
    }
    std::fs::write(note("chatter-over"), "").expect("noted");
}

/// Attaches by hand, keeps every descriptor that it is handed, and tries everything with these and with all that /proc has.
fn attacker() {
    let socket = bootstrap::take_control_socket().expect("a socket");
    let Ok(Received::Packet(ToAgent::Hello, handed)) = wire::hear(&socket, true) else { panic!("no hello") };
    let manifest = Manifest::from_bytes(&segment::thaw(&handed[3]).expect("thawed")).expect("a manifest");
    let own = segment::attach(&handed[0], &manifest.shape, manifest.incarnation()).expect("attached");
    wire::say(&socket, &FromAgent::Mapped, &[]).expect("said");
    let mut linked: Vec<OwnedFd> = Vec::new();
    loop {
        match wire::hear(&socket, true).expect("heard") {
            Received::Packet(ToAgent::Links(_), fds) => {
                // Segments and doorbells take turns.
                linked.extend(fds.into_iter().step_by(2));
                wire::say(&socket, &FromAgent::LinksTaken, &[]).expect("said");
            }
            Received::Packet(ToAgent::Go, _) => break,
            _ => {}
        }
    }
    wire::say(&socket, &FromAgent::Ready, &[]).expect("said");
    let (mut targets, mut broken) = (0, 0);
    let mut attack = |what: &str, fd: &OwnedFd| {
        let len = rustix::fs::fstat(fd).map_or(0, |s| s.st_size) as usize;
        let before = attack::bytes_of(fd, 128);
        targets += 1;
        for (how, result) in attack::every_write(fd.as_fd(), len) {
            if result.is_ok() {
                broken += 1;
                println!("BROKEN: {how} through {what}");
            }
        }
        let size = rustix::fs::fstat(fd).map_or(0, |s| s.st_size) as usize;
        assert_eq!((attack::bytes_of(fd, 128), size), (before, len), "a header changed through {what}");
    };
    for (i, fd) in handed.iter().enumerate().filter(|(i, _)| *i != 2) {
        attack(&format!("handed {i}"), fd);
    }
    for (i, fd) in linked.iter().enumerate() {
        attack(&format!("link {i}"), fd);
        for (flags, name) in [(libc::O_RDWR, "read-write"), (libc::O_RDWR | libc::O_TRUNC, "truncating")] {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
            reopened(&path, flags)
                .into_iter()
                .for_each(|fd| attack(&format!("link {i} reopened {name}"), &fd));
        }
    }
    for path in of_others() {
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC] {
            reopened(&path, flags).into_iter().for_each(|fd| attack(&format!("{path} ({flags:o})"), &fd));
        }
    }
    drop(own);
    println!("attacker tried {targets} descriptors, {broken} ways in");
}

fn reopened(path: &str, flags: i32) -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::from_bits_retain(flags as u32) | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()
}

/// Paths by which /proc names Shoal's memory in the supervisor and in the other agents: descriptors and mappings.
fn of_others() -> Vec<String> {
    let supervisor = getppid().expect("a parent").as_raw_nonzero().to_string();
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    let mut pids: Vec<String> = children.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    pids.push(supervisor);
    let own = getpid().as_raw_nonzero().to_string();
    let folders = pids
        .iter()
        .filter(|p| **p != own)
        .flat_map(|p| [format!("/proc/{p}/fd"), format!("/proc/{p}/map_files")]);
    let entries = folders.filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten().map(|e| e.path());
    let ours = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("memfd:shoal"))
    };
    entries.filter(ours).map(|p| p.display().to_string()).collect()
}
