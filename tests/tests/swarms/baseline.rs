//! UNSAFE. What a death leaves: of a lock of `raw_sync` in a segment of `shared_memory`, and of a Shoal lane.
//!
//! The helpers at the end are this binary started again as another process.
#![allow(unsafe_code)]

use raw_sync::Timeout;
use raw_sync::locks::{LockInit, Mutex};
use rustix::process::{Pid, Signal, getpid, kill_process};
use shared_memory::ShmemConf;
use shoal_runtime::attachment::{Attachment, Encode, Found, attach};
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SEGMENT_ENV: &str = "SHOAL_TEST_SEGMENT";
const SWARM_ENV: &str = "SHOAL_TEST_SWARM";
const MESSAGES: u64 = 20;
/// The message at which the first incarnation of the source dies, claimed and written and not committed.
const DIES_AT: u64 = 7;

/// The arguments by which this binary plays a helper.
fn playing(name: &str) -> [String; 4] {
    let helper = format!("{}::{name}", module_path!().rsplit("::").next().unwrap_or_default());
    ["--exact", &helper, "--ignored", "--nocapture"].map(str::to_owned)
}

fn helper(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(playing(name));
    command
}

#[test]
fn raw_sync_mutex_whose_holder_was_killed_is_locked_for_ever() {
    // Goal: say what Shoal would have inherited. Method: SIGKILL a real process inside the lock, then try to take it.
    let map = ShmemConf::new().size(4096).create().expect("a named segment");
    // SAFETY: the segment is fresh, zeroed, page-aligned and larger than a mutex; nobody else has it yet.
    let (mutex, _) = unsafe { Mutex::new(map.as_ptr(), map.as_ptr().add(1024)) }.expect("a mutex");
    let mut holder = helper("holder")
        .env(SEGMENT_ENV, map.get_os_id())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let said = BufReader::new(holder.stdout.take().expect("piped")).lines();
    assert!(said.map_while(Result::ok).any(|line| line.contains("held")), "the holder has the lock");
    kill_process(Pid::from_child(&holder), Signal::KILL).expect("killed");
    assert!(!holder.wait().expect("reaped").success());
    for _ in 0..2 {
        // 1000 ms: `raw_sync` adds nanoseconds without a carry, so that others often return at once.
        let taken = mutex.try_lock(Timeout::Val(Duration::from_millis(1000)));
        assert!(taken.is_err(), "the dead's lock was given to the living");
    }
    let name = Path::new("/dev/shm").join(map.get_os_id().trim_start_matches('/'));
    assert!(name.exists());
    drop((mutex, map));
    assert!(!name.exists(), "the named segment is left behind");
}

#[test]
fn shoal_lane_whose_producer_was_killed_between_claim_and_commit_goes_on() {
    // Goal: the same death on a lane costs nobody anything. Method: a source SIGKILLs itself with a frame claimed and written;
    // the supervisor proves it and starts the next incarnation; the reader must see every number once, in order.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("swarm.toml");
    let this = std::env::current_exe().expect("this binary");
    let agent = |name: &str, way: &str| {
        let command = [&[this.to_str().expect("a name").to_owned()][..], &playing("agent")].concat();
        format!("[agent.{name}]\ncommand = {command:?}\n{way} = [\"numbers\"]\nrestart = \"transient\"\n")
    };
    let channel = "[swarm]\nname = \"baseline\"\n[channel.numbers]\nmessage = \"Number\"\ncapacity = \"4 KiB\"\nwhen_full = \"block\"\n";
    let swarm = [channel, &agent("source", "publishes"), &agent("reader", "subscribes")].concat();
    std::fs::write(&file, swarm).expect("written");
    let output = helper("supervisor").env(SWARM_ENV, &file).output().expect("a supervisor");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let seen = std::fs::read_to_string(folder.path().join("seen"));
    let context = || format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(seen.unwrap_or_else(|e| panic!("{e}\n{}", context())), format!("{MESSAGES} of 2 lives"));
}

#[test]
#[ignore = "a process of another test"]
fn holder() {
    let Ok(id) = std::env::var(SEGMENT_ENV) else { return };
    let map = ShmemConf::new().os_id(id).open().expect("opened");
    // SAFETY: the test initialised the mutex there; the mapping outlives the handle.
    let (mutex, _) = unsafe { Mutex::from_existing(map.as_ptr(), map.as_ptr().add(1024)) }.expect("a mutex");
    let _guard = mutex.lock().expect("free");
    println!("held");
    // It is killed here; were it not, it would end by itself.
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
#[ignore = "a process of another test"]
fn supervisor() {
    let Ok(file) = std::env::var(SWARM_ENV) else { return };
    let _ = shoal::run::run(Path::new(&file), shoal::herald::Manner::Foreground);
}

#[test]
#[ignore = "a process of another test"]
fn agent() {
    let Ok(mut at) = attach() else { return };
    at.ready().expect("ready");
    if at.manifest.lanes.is_empty() { read(&mut at) } else { send(&mut at) }
}

struct Number(u64);

impl Encode for Number {
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let slot = slot.get_mut(..8)?;
        slot.iter_mut().zip(self.0.to_le_bytes()).for_each(|(slot, byte)| {
            slot.write(byte);
        });
        Some(8)
    }

    fn exact(&mut self) -> Option<usize> {
        Some(8)
    }
}

fn send(at: &mut Attachment) {
    loop {
        let number = at.outputs.producer(0).tail().sequence;
        if number == MESSAGES {
            return;
        }
        let (outputs, world) = (&mut at.outputs, &mut at.world);
        outputs.write(0, world, None, &mut Number(number)).expect("alive").expect("written");
        if number == DIES_AT && at.manifest.generation == 1 {
            kill_process(getpid(), Signal::KILL).expect("killed");
        }
        at.outputs.commit(None, &mut at.world).expect("alive");
    }
}

fn read(at: &mut Attachment) {
    let mut lives = std::collections::HashSet::new();
    for expected in 0..MESSAGES {
        let Attachment { inputs, world, .. } = at;
        let found = world.wait(None, |world, thorough| inputs.look(&[0], world, thorough)).expect("alive");
        let Some(Found::Message(input, frame)) = found else { panic!("{found:?} instead of {expected}") };
        let (sources, cursor) = at.inputs.consumer(input).split();
        assert!(sources.lease(&frame));
        assert_eq!(sources.leased(&frame), expected.to_le_bytes());
        lives.insert(frame.from.generation);
        at.outputs.commit(Some((input, cursor, &frame)), &mut at.world).expect("alive");
    }
    let folder = Path::new(&at.manifest.file).parent().expect("a folder");
    std::fs::write(folder.join("seen"), format!("{MESSAGES} of {} lives", lives.len())).expect("written");
}
