//! The agents of the swarms under attack: `bad-agent ROLE N`, on the bare runtime. Good ones are source, sink and ear.

use rustix::process::{Pid, getpid, getppid};
use shoal_runtime::attachment::{Attachment, Found, attach};
use shoal_runtime::consumer::Frame;
use shoal_runtime::cursor::HEADER_BYTES;
use shoal_runtime::frame::EXTENSION_BYTES;
use shoal_runtime::layout::{header, input, mark};
use shoal_runtime::wire::{self, CONTROL_FD, FromAgent, Manifest, Received, ToAgent};
use shoal_runtime::{Incarnation, bootstrap, segment};
use shoal_tests::agents::RawNumber;
use shoal_tests::attack::{self, OwnMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The message at which a bad agent shows its nature.
const TURN: u64 = 3_000;
/// What is written into a message that was sent.
const REWRITTEN: u64 = 0xbad;
/// More descriptors go with no packet: the kernel's bound.
const DESCRIPTORS_MAX: usize = 253;

/// Who writes over all of its memory before it is ready does so in so many lives.
const EARLY_LIVES: u32 = 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let count = args[2].parse::<u64>().expect("a number");
    // Where it is ended by its first call, its next life is a good one.
    if args[1] == "attacker" && !note("attacked").exists() {
        let _ = std::fs::write(note("attacked"), "");
        return attacker();
    }
    if args[1] == "write-one" {
        let life = lives_before();
        if life <= attack::WRITES.len() {
            return write_one(attack::WRITES.get(life));
        }
    }
    let mut a = attach().expect("attached");
    if args[1] == "scribble-early" && a.manifest.generation <= EARLY_LIVES {
        // Some of its peers have mapped it by now, others not.
        scribble(OwnMap::find().expect("a segment"), 0);
        attack::kill_self();
    }
    a.ready().expect("ready");
    let first_life = a.manifest.generation == 1;
    match args[1].as_str() {
        "source" => source(&mut a, count),
        "sink" => {
            leave("sink", &std::process::id().to_string());
            listen(&mut a, "sink", count);
        }
        "ear" => {
            leave("ear", &std::process::id().to_string());
            listen(&mut a, "ear", count);
        }
        role => {
            if !first_life && role.starts_with("zombie") {
                no_zombie_is_left();
            }
            relay(&mut a, if first_life || role == "reach-one" { role } else { "good" });
        }
    }
}

fn note(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("NOTES").expect("a folder")).join(name)
}

/// Leaves a note, whole: others leave theirs at the same time.
fn leave(name: &str, text: &str) {
    let half = note(&format!("half-{name}"));
    std::fs::write(&half, text).expect("noted");
    std::fs::rename(half, note(name)).expect("noted");
}

/// The process of another agent, the sink, by its own word.
fn victim() -> i32 {
    process_of("sink")
}

fn process_of(name: &str) -> i32 {
    loop {
        match std::fs::read_to_string(note(name)) {
            Ok(pid) => return pid.parse().expect("a number"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn write(a: &mut Attachment, value: u64) -> bool {
    let sent = a.outputs.write(0, &mut a.world, None, &mut RawNumber(value)).expect("alive").is_ok();
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

/// Counts, and says what was not the next number. The ear counts the supervisor's descriptors, too, before and after many are sent there.
fn listen(a: &mut Attachment, name: &str, count: u64) {
    let (mut seen, mut odd, mut descriptors) = (0, 0, None);
    while let Some((input, frame, value)) = next(a) {
        if seen == TURN / 2 && name == "ear" && note("descriptors").exists() {
            descriptors = Some(of_supervisor());
        }
        if seen == TURN - 1 && name == "ear" && note("rewrites").exists() {
            println!("{name} holds {value}, and then {}", leased_again(a, input, &frame));
        }
        // The first that came after them.
        if seen == TURN - 1
            && let Some(before) = descriptors.take()
        {
            until_closed(before);
        }
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
    if role == "descriptors" {
        std::fs::write(note("descriptors"), "").expect("noted");
    }
    while let Some((input, frame, value)) = next(a) {
        met += 1;
        if role == "reach-one" && met == 10 {
            reach_one(a);
        }
        if met == TURN && role != "reach-one" {
            turn(a, role, value);
        }
        if role.starts_with("lie") && met == TURN {
            // Its cursor stays where the lie put it.
            std::thread::sleep(Duration::from_secs(if role == "lie-ahead" { 60 } else { 1 }));
            attack::kill_self();
        }
        if !write(a, value) {
            break;
        }
        acknowledge(a, input, &frame);
    }
    println!("bad ends in generation {}", a.manifest.generation);
}

/// Reaches out, by the way that this life has not tried, at the message that is its turn.
fn reach_one(a: &Attachment) {
    let Some((name, way)) = attack::WAYS.get(a.manifest.generation as usize - 1) else { return };
    tell(name, way(victim()));
    attack::kill_self();
}

fn tell(name: &str, came: std::io::Result<()>) {
    println!("tried {name}: {}", came.map_or_else(|error| error.to_string(), |()| "succeeded".to_owned()));
}

/// Reaches out, by every way, to another agent that is there.
fn reach() {
    let victim = victim();
    // Some are asked of processes of one user only: that must not be what stops them.
    for (name, way) in attack::WAYS {
        tell(name, way(victim));
    }
}

/// Adds the seal that forbids all further ones to the own segment, and dies.
fn seal_self() {
    let mut came = Vec::new();
    for map in std::fs::read_dir("/proc/self/map_files").into_iter().flatten().flatten() {
        let to = std::fs::read_link(map.path()).unwrap_or_default();
        if to.to_string_lossy().contains("shoal-segment") {
            let fd = reopened(&map.path().display().to_string(), libc::O_RDWR);
            came.extend(fd.map(|fd| rustix::fs::fcntl_add_seals(fd, rustix::fs::SealFlags::SEAL)));
        }
    }
    // Without a way to open what is mapped: the descriptor that was kept.
    let kept = (3..64).map(attack::borrowed).filter(|fd| rustix::fs::fcntl_get_seals(fd).is_ok());
    came.extend(kept.map(|fd| rustix::fs::fcntl_add_seals(fd, rustix::fs::SealFlags::SEAL)));
    let best = came.iter().find(|came| came.is_ok()).or(came.first());
    println!("sealed: {}", best.is_some_and(|came| came.is_ok()));
    attack::kill_self();
}

/// The doorbells that this process has.
fn bells() -> Vec<std::os::fd::BorrowedFd<'static>> {
    let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let bells = links.filter(|link| {
        std::fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().contains("[eventfd]"))
    });
    bells.filter_map(|link| Some(attack::borrowed(link.file_name().to_str()?.parse().ok()?))).collect()
}

/// Fills every doorbell, again and again, for a while; first tries to make them blocking if that is asked for.
fn fill_bells(blocking: bool) {
    let bells = bells();
    if blocking {
        let made = bells.iter().filter(|bell| attack::made_blocking(**bell)).count();
        println!("made blocking: {made} of {}", bells.len());
    }
    let began = std::time::Instant::now();
    let mut filled = vec![0_u64; bells.len()];
    while began.elapsed() < Duration::from_millis(300) {
        for (bell, times) in bells.iter().zip(&mut filled) {
            let fits = |bit: &u32| rustix::io::write(bell, &(1u64 << *bit).to_ne_bytes()).is_ok();
            // All but the last is there since the first time.
            *times += (0..u64::BITS).rev().filter(fits).count() as u64;
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }
    println!("filled doorbells, each so often: {filled:?}");
}

/// Reads every doorbell, without end, while it does what it should.
fn empty_bells() {
    let bells = bells();
    println!("empties {} doorbells", bells.len());
    std::thread::spawn(move || {
        loop {
            for bell in &bells {
                let _ = rustix::io::read(bell, &mut [0; 8]);
            }
        }
    });
}

/// Tries to put to sleep for ever whoever sleeps on a word of memory that others let it read.
fn steal_sleepers() {
    let maps = OwnMap::all("r--s");
    let own = maps.first().map(OwnMap::stolen_own_sleeper);
    let words = maps.iter().flat_map(|map| (0..map.len_bytes()).step_by(4).map(move |offset| (map, offset)));
    let others: std::io::Result<u64> = words.map(|(map, offset)| map.stolen_sleepers(offset)).sum();
    println!("stole from {} maps: own {own:?}, others {others:?}", maps.len());
}

/// Writes over its lanes' bytes as fast as it can while its reader reads them.
fn flicker(a: &Attachment, map: OwnMap) {
    let at = a.manifest.shape.ring_offset(0);
    let began = std::time::Instant::now();
    let mut beat = 0_u64;
    while began.elapsed() < Duration::from_millis(500) {
        beat = beat.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for offset in (at + 16..map.len_bytes()).step_by(64) {
            map.store(offset & !7, beat);
        }
    }
    attack::kill_self();
}

/// Prints as fast as it is read, for a while, and more than is kept.
fn flood() {
    let line = "x".repeat(4000);
    let (began, mut lines) = (std::time::Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(700) || lines < 4000 {
        println!("{line}");
        lines += 1;
    }
}

/// How many descriptors the supervisor has, which only who is trusted may look at; it is a sibling.
fn of_supervisor() -> usize {
    let parent = getppid().expect("a parent").as_raw_nonzero().get();
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let children = shoal_tests::traces::children(parent);
    let supervisor = children.into_iter().find(|pid| name(pid).trim_end() == "shoal-superv");
    let supervisor = supervisor.expect("a supervisor");
    std::fs::read_dir(format!("/proc/{supervisor}/fd")).expect("readable").count()
}

/// Accuses everybody whose memory it does not see, there or not, and lives of its neighbours that have not begun.
fn slander(a: &Attachment) {
    let neighbours: Vec<u32> = a.manifest.neighbours.iter().map(|neighbour| neighbour.agent).collect();
    for agent in (0..9).filter(|agent| *agent != a.manifest.agent) {
        let generation = if neighbours.contains(&agent) { 2 } else { 1 };
        let of = Incarnation { agent, generation };
        wire::say(attack::borrowed(CONTROL_FD), &FromAgent::Fault { of, seen_ns: 1 }, &[]).expect("said");
    }
}

/// Sound packets, each with as many descriptors as one may carry.
fn hand_descriptors() {
    let socket = attack::borrowed(CONTROL_FD);
    let null = std::fs::File::open("/dev/null").expect("there is one");
    let many = vec![null.as_fd(); DESCRIPTORS_MAX];
    let (began, mut sent) = (std::time::Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        sent += u64::from(wire::say(socket, &FromAgent::LinksTaken, &many).is_ok());
    }
    // Nothing is printed: that would open its log. Who is hostile renames nothing, so this note is not left whole.
    std::fs::write(note("sent"), sent.to_string()).expect("noted");
}

/// Waits until the supervisor has no more descriptors than before they were sent.
fn until_closed(before: usize) {
    let (began, mut after) = (std::time::Instant::now(), of_supervisor());
    while after > before && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
        after = of_supervisor();
    }
    println!("of the supervisor's descriptors there are {} more", after.saturating_sub(before));
}

/// Writes a message, without committing it; where it lies in the own segment.
fn written_at(a: &mut Attachment, map: OwnMap, value: u64) -> usize {
    let producer = a.outputs.producer(0);
    let position = producer.pending().position;
    assert!(write(a, value), "there is room");
    let ring = a.manifest.shape.ring_offset(0);
    let at = ring + (position & (a.manifest.shape.lanes[0].capacity_bytes - 1)) as usize;
    // The facts are the header's second word: what it is, is said in these bits. Where the lap ends, the message is at the beginning.
    let is_message = map.load(at + 8) >> 28 & 3 == 0;
    if is_message { at } else { ring }
}

/// Sends a message whose header lies about its length, or about its number.
fn lie_in_a_header(a: &mut Attachment, map: OwnMap, value: u64, lie: impl FnOnce(u64) -> u64) {
    let facts = written_at(a, map, value) + 8;
    map.store(facts, lie(map.load(facts)));
    a.outputs.commit(None, &mut a.world).expect("alive");
}

/// Sends a message, and writes another value into it while its reader, which has looked at it once, holds it.
fn rewrite(a: &mut Attachment, map: OwnMap, value: u64) {
    let at = written_at(a, map, value);
    // Every so often a message is stamped, and begins behind its stamp: that is said in this bit.
    let is_stamped = map.load(at + 8) >> 30 & 1 == 1;
    let stamp = if is_stamped { EXTENSION_BYTES } else { 0 };
    let payload = at + (HEADER_BYTES + stamp) as usize;
    std::fs::write(note("rewrites"), "").expect("noted");
    a.outputs.commit(None, &mut a.world).expect("alive");
    until_noted("leased");
    map.store(payload, REWRITTEN);
    std::fs::write(note("rewritten"), "").expect("noted");
}

/// What a reader sees of a message that it holds, once its sender has written it anew.
fn leased_again(a: &mut Attachment, input: usize, frame: &Frame) -> u64 {
    std::fs::write(note("leased"), "").expect("noted");
    until_noted("rewritten");
    let (sources, _) = a.inputs.consumer(input).split();
    u64::from_le_bytes(sources.leased(frame).try_into().expect("eight bytes"))
}

fn until_noted(name: &str) {
    while std::fs::read(note(name)).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn turn(a: &mut Attachment, role: &str, value: u64) {
    match role {
        "reach" => return reach(),
        "kill-all" => return tell("kill(-1)", attack::kill_everybody()),
        "fork-bomb" => {
            let refused = attack::fork_bomb(Duration::from_millis(500), 200).expect("bounded");
            println!("bomb refused {refused} times");
            attack::kill_self();
        }
        "descriptors" => return hand_descriptors(),
        "empty" => return empty_bells(),
        "slander" => return slander(a),
        _ => {}
    }
    let map = OwnMap::find().expect("a segment");
    match role {
        "zombie" => make_zombie(map, false),
        "zombie-session" => make_zombie(map, true),
        "impostor" => claim_to_be_another(map),
        "scribble" => {
            scribble(map, 0);
            attack::kill_self();
        }
        "lie-ahead" => lie(a, map, 1 << 40),
        "lie-back" => lie(a, map, 64 * 1024),
        "lie-length" => lie_in_a_header(a, map, value, |facts| facts | 0xf_fff0),
        "rewrites" => rewrite(a, map, value),
        "lie-number" => lie_in_a_header(a, map, value, |facts| facts + (7 << 32)),
        "garbage" => garbage(),
        "chatter" => chatter(),
        "seal" => seal_self(),
        "bells" | "fill" => {
            fill_bells(role == "bells");
            steal_sleepers();
        }
        "flicker" => flicker(a, map),
        "flood" => flood(),
        _ => {}
    }
}

/// A cursor that is whole, and a lie.
fn lie(a: &Attachment, map: OwnMap, position: u64) {
    let at = a.manifest.shape.input_offset(0) + input::CURSOR;
    for (i, word) in [position, position, 0, 0, 0].into_iter().enumerate() {
        map.store(at + mark::POSITION + i * 8, word);
    }
    // As a reader that made room: its producer may sleep on a full ring, and would not look.
    for bell in bells() {
        let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
    }
}

/// Says in its header that it is another, of another size and another build, and has its reader begin anew, which is to map it.
fn claim_to_be_another(map: OwnMap) {
    let told = [header::MAGIC, header::VERSION, header::TOTAL_BYTES, header::AGENT, header::GENERATION];
    for word in told.into_iter().chain([header::FINGERPRINT]) {
        map.store(word, 0xbad);
    }
    let ear = Pid::from_raw(process_of("ear")).expect("a process");
    rustix::process::kill_process(ear, rustix::process::Signal::KILL)
        .expect("its reader is of the same user");
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

/// How many lives have noted that they began; this one does, too.
fn lives_before() -> usize {
    let before = std::fs::read(note("lives")).map_or(0, |lives| lives.len());
    // Who is hostile renames nothing, so this note is not left whole: it is added to.
    let mut lives = std::fs::OpenOptions::new().create(true).append(true).open(note("lives")).expect("noted");
    std::io::Write::write_all(&mut lives, b".").expect("noted");
    before
}

/// Tries one way to write to the memory of a peer, by the descriptor that was handed over, and dies; without one it tries the seal on its own
/// memory that forbids all further ones.
fn write_one(write: Option<&attack::Write>) {
    let (_, own, linked) = attach_by_hand();
    let (name, write) = write.unwrap_or(&attack::SEAL_FOR_EVER);
    let of = if *name == attack::SEAL_FOR_EVER.0 { &own } else { &linked };
    let fd = of.first().expect("handed over");
    let len = rustix::fs::fstat(fd).map_or(0, |seen| seen.st_size) as usize;
    println!("tries {name}");
    tell(name, write(fd.as_fd(), len));
    attack::kill_self();
}

/// Attaches by hand, and keeps every descriptor that it is handed: its own, and its peers' memory.
fn attach_by_hand() -> (impl Sized, Vec<OwnedFd>, Vec<OwnedFd>) {
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
    // It is not to be closed: that would be this agent's end.
    std::mem::forget(socket);
    (own, handed, linked)
}

/// Attaches by hand, and tries everything with what it is handed and with all that /proc has.
fn attacker() {
    let (own, handed, linked) = attach_by_hand();
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
    let links = linked.iter().map(|fd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)));
    let mut writers: Vec<OwnedFd> = links.filter_map(|path| reopened(&path, libc::O_RDWR)).collect();
    writers.extend(handed.into_iter().take(1));
    let for_ever = |fd: &&OwnedFd| rustix::fs::fcntl_add_seals(fd, rustix::fs::SealFlags::SEAL).is_ok();
    println!("sealed for ever: {} of {}", writers.iter().filter(for_ever).count(), writers.len());
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
