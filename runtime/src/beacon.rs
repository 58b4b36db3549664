//! UNSAFE. The beacon: one small named segment per running swarm, for who only wants to look.
//!
//! What lives here: `/shoal-<uid>-<name>` with a pid, its start time and four counters. Nothing else of Shoal has
//! a name, and nothing on the data path needs this one: without it, the control socket tells the same.
//!
//! ```text
//!   0 magic │ 8 layout │ 16 swarm id │ 24 pid │ 32 start time │ … │ 64 agents │ 72 ready │ 80 restarts │ 88 messages
//! ```
//! The `shared_memory` crate maps it; its hazards are answered here (docs/decisions/0002): only the process that
//! made a beacon unlinks it, no link files, the length is checked before a word is read, observers lose the right
//! to write, and its page is allocated before it is touched.
#![allow(unsafe_code)]

use crate::again::insist;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use shared_memory::{Shmem, ShmemConf, ShmemError};

use crate::sync::{AtomicU64, Ordering};

/// `ShoalBea` as bytes.
const MAGIC: u64 = u64::from_le_bytes(*b"ShoalBea");
/// The layout's version.
const LAYOUT: u64 = 1;
/// The segment's size.
const BEACON_BYTES: usize = 4096;
/// The longest name of a swarm, bytes.
const NAME_BYTES_MAX: usize = 64;

/// The words of a beacon, by index. Written by the supervisor only.
mod word {
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const SWARM_ID: usize = 2;
    pub const PID: usize = 3;
    pub const START_TIME: usize = 4;
    pub const AGENTS: usize = 8;
    pub const READY: usize = 9;
    pub const RESTARTS: usize = 10;
    pub const MESSAGES: usize = 11;
}

/// The figures of a swarm that a beacon shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Agents that the swarm has.
    pub agents: u64,
    /// Agents that are ready.
    pub ready: u64,
    /// Restarts since the swarm started.
    pub restarts: u64,
    /// Messages sent since the swarm started.
    pub messages: u64,
}

/// What an observer read. The counts are each exact but not of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconReading {
    /// The swarm's random number.
    pub swarm_id: u64,
    /// The supervisor's pid.
    pub pid: u32,
    /// When the supervisor started, in the kernel's ticks since boot.
    pub start_time: u64,
    /// Whether that very process lives.
    pub alive: bool,
    /// The figures.
    pub counts: Counts,
}

/// What `sweep` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// There was no beacon.
    Nothing,
    /// A beacon without a living supervisor is removed.
    Removed,
    /// A living supervisor's beacon was left alone.
    Alive {
        /// Its pid.
        pid: u32,
    },
}

/// A running swarm's beacon; removed when dropped by the process that lit it.
pub struct Beacon {
    map: Shmem,
    /// Who lit it: a forked child must not unlink its parent's beacon.
    pid: u32,
}

impl Beacon {
    /// Makes the beacon of this process's swarm. Call `sweep` first, with the swarm's name claimed.
    ///
    /// # Errors
    /// `AlreadyExists` if somebody's beacon has this name; else the kernel's refusal, `ENOSPC` among them.
    pub fn light(name: &str, swarm_id: u64) -> io::Result<Beacon> {
        let id = os_id(name)?;
        let pid = std::process::id();
        let start_time = start_time(pid).ok_or_else(|| {
            io::Error::other("the supervisor cannot read its own start time in /proc/self/stat")
        })?;
        // `shared_memory` takes descriptor 0 for "none" and would neither unlink nor close it.
        // SAFETY: only asks about the number 0; no ownership is taken.
        rustix::io::fcntl_getfd(unsafe { std::os::fd::BorrowedFd::borrow_raw(0) }).map_err(|_| {
            io::Error::other("descriptor 0 is closed: start the supervisor with a standard input")
        })?;
        let map =
            ShmemConf::new().os_id(&id).size(BEACON_BYTES).create().map_err(|error| io_error(&id, &error))?;
        let beacon = Beacon { map, pid };
        beacon.allocate(&id)?;
        for (at, value) in [
            (word::LAYOUT, LAYOUT),
            (word::SWARM_ID, swarm_id),
            (word::PID, u64::from(pid)),
            (word::START_TIME, start_time),
        ] {
            // Relaxed: published by the magic below.
            at_word(&beacon.map, at).store(value, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `look`; publishes the words above. If we die before, an observer
        // sees no beacon and `sweep` removes it.
        at_word(&beacon.map, word::MAGIC).store(MAGIC, Ordering::Release);
        Ok(beacon)
    }

    /// Asks for the page now, so that a lack of memory is an error and not a SIGBUS later.
    fn allocate(&self, id: &str) -> io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(path_of(id))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BEACON_BYTES as u64)?;
        Ok(())
    }

    /// Shows new figures.
    ///
    /// # If we die here
    /// Each word is either the old or the new one.
    pub fn update(&self, counts: &Counts) {
        for (at, value) in [
            (word::AGENTS, counts.agents),
            (word::READY, counts.ready),
            (word::RESTARTS, counts.restarts),
            (word::MESSAGES, counts.messages),
        ] {
            // Relaxed: figures for the eye; no reader concludes anything from two of them together.
            at_word(&self.map, at).store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        self.map.set_owner(std::process::id() == self.pid);
    }
}

/// Removes the beacon of a supervisor that is gone. Call it with the swarm's name claimed: a beacon that is just
/// being lit cannot be told from one whose supervisor died lighting it.
///
/// # Errors
/// A name that no swarm may have, another user's object of this name, the kernel's refusal to unlink it.
pub fn sweep(name: &str) -> io::Result<Swept> {
    let id = os_id(name)?;
    let Ok(seen) = std::fs::symlink_metadata(path_of(&id)) else { return Ok(Swept::Nothing) };
    if seen.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to user {}: ask them to remove it", path_of(&id).display(), seen.uid()),
        ));
    }
    if let Some(found) = look(&id)
        && found.alive
    {
        return Ok(Swept::Alive { pid: found.pid });
    }
    // By path and not by `set_owner`: a half-made beacon of zero bytes cannot be opened at all.
    match std::fs::remove_file(path_of(&id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Swept::Removed),
    }
}

/// Puts a swarm's beacon out, whoever lit it. Call it with the swarm's name claimed.
///
/// # Errors
/// A name that no swarm may have, or the kernel's refusal to unlink it.
pub fn put_out(name: &str) -> io::Result<()> {
    match std::fs::remove_file(path_of(&os_id(name)?)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a swarm's beacon without disturbing it; None if there is none, or none that is whole and this user's.
pub fn read(name: &str) -> Option<BeaconReading> {
    look(&os_id(name).ok()?)
}

fn look(id: &str) -> Option<BeaconReading> {
    let seen = std::fs::symlink_metadata(path_of(id)).ok()?;
    let ours = seen.uid() == rustix::process::geteuid().as_raw() && seen.mode() & 0o077 == 0;
    if !ours || !seen.is_file() || seen.len() != BEACON_BYTES as u64 {
        return None;
    }
    let map = ShmemConf::new().os_id(id).size(BEACON_BYTES).open().ok()?;
    if map.len() != BEACON_BYTES {
        return None;
    }
    // SAFETY: the range is exactly the mapping that `map` owns until the end of this function, and nothing in this
    // process writes through it: observers only load.
    unsafe { rustix::mm::mprotect(map.as_ptr().cast(), map.len(), rustix::mm::MprotectFlags::READ) }.ok()?;
    // Acquire: pairs with the Release in `light`; after it the words that name the supervisor are whole.
    if at_word(&map, word::MAGIC).load(Ordering::Acquire) != MAGIC {
        return None;
    }
    // Relaxed: written before the magic or, the figures, of no order at all.
    let load = |at| at_word(&map, at).load(Ordering::Relaxed);
    if load(word::LAYOUT) != LAYOUT {
        return None;
    }
    let pid = u32::try_from(load(word::PID)).ok()?;
    let born = load(word::START_TIME);
    Some(BeaconReading {
        swarm_id: load(word::SWARM_ID),
        pid,
        start_time: born,
        alive: start_time(pid) == Some(born),
        counts: Counts {
            agents: load(word::AGENTS),
            ready: load(word::READY),
            restarts: load(word::RESTARTS),
            messages: load(word::MESSAGES),
        },
    })
}

/// When a living process started, in the kernel's ticks since boot; None if there is none, or only its zombie.
pub fn start_time(pid: u32) -> Option<u64> {
    // Out of descriptors for a moment, a living one would be taken for dead.
    let stat = insist(|| std::fs::read(format!("/proc/{pid}/stat"))).ok()?;
    // The name, in parentheses, may hold anything, spaces and parentheses too.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// One word of a beacon's mapping.
fn at_word(map: &Shmem, index: usize) -> &AtomicU64 {
    assert!(index < map.len().min(BEACON_BYTES) / 8, "a beacon has no word {index}");
    // SAFETY: inside the mapping (checked above), 8-aligned because mappings begin on a page, an atomic because
    // another process may write it, and borrowed no longer than the mapping lives.
    unsafe { &*map.as_ptr().cast::<AtomicU64>().add(index) }
}

fn os_id(name: &str) -> io::Result<String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        let what = format!("{name:?} is no name of a swarm: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ -");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(format!("/shoal-{}-{name}", rustix::process::geteuid().as_raw()))
}

fn path_of(id: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm{id}"))
}

fn io_error(id: &str, error: &ShmemError) -> io::Error {
    match error {
        ShmemError::MappingIdExists => {
            io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path_of(id).display()))
        }
        ShmemError::MapCreateFailed(errno) | ShmemError::UnknownOsError(errno) => {
            let error = io::Error::from_raw_os_error(*errno as i32);
            io::Error::new(error.kind(), format!("{} cannot be made: {error}", path_of(id).display()))
        }
        other => io::Error::other(format!("{}: {other}", path_of(id).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::process::{Child, Command, Stdio};

    const LIT_BY_CHILD: &str = "SHOAL_TEST_BEACON";

    /// A name that no other run of the tests uses.
    fn fresh(of: &str) -> String {
        format!("test-{of}-{}", std::process::id())
    }

    /// Not a test by itself: what `lit_by_child` starts. Lights a beacon and sleeps until it is killed.
    #[test]
    fn a_child_lights_a_beacon_and_waits_to_be_killed() {
        let Ok(name) = std::env::var(LIT_BY_CHILD) else { return };
        let beacon = Beacon::light(&name, 7).unwrap();
        beacon.update(&Counts { agents: 3, ready: 2, restarts: 1, messages: 9 });
        eprintln!("lit");
        std::thread::sleep(std::time::Duration::from_secs(60));
        drop(beacon);
    }

    fn lit_by_child(name: &str) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "beacon::tests::a_child_lights_a_beacon_and_waits_to_be_killed", "--nocapture"])
            .env(LIT_BY_CHILD, name)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "lit"), "the child ended before it lit its beacon");
        child
    }

    #[test]
    fn beacon_is_read_by_an_observer_and_gone_after_drop() {
        let name = fresh("read");
        let beacon = Beacon::light(&name, 42).unwrap();
        beacon.update(&Counts { agents: 4, ready: 3, restarts: 2, messages: 1 << 40 });
        let got = read(&name).unwrap();
        assert_eq!((got.swarm_id, got.pid, got.alive), (42, std::process::id(), true));
        assert_eq!(got.counts, Counts { agents: 4, ready: 3, restarts: 2, messages: 1 << 40 });
        assert_eq!(sweep(&name).unwrap(), Swept::Alive { pid: std::process::id() });
        let mode = std::fs::metadata(path_of(&os_id(&name).unwrap())).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(beacon);
        assert_eq!(read(&name), None);
        assert_eq!(sweep(&name).unwrap(), Swept::Nothing);
    }

    /// Method: the pid that `light` noted is changed, as if this were a forked child.
    #[test]
    fn beacon_dropped_by_another_process_than_its_maker_stays() {
        let name = fresh("forked");
        let mut beacon = Beacon::light(&name, 1).unwrap();
        beacon.pid += 1;
        drop(beacon);
        assert_eq!(read(&name).unwrap().swarm_id, 1);
        std::fs::remove_file(path_of(&os_id(&name).unwrap())).unwrap();
    }

    #[test]
    fn second_beacon_of_a_name_is_refused_and_leaves_the_first() {
        let name = fresh("twice");
        let first = Beacon::light(&name, 1).unwrap();
        let refused = Beacon::light(&name, 2).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&name).unwrap().swarm_id, 1);
        drop(first);
    }

    /// Goal: no beacon stays for ever. Method: a real process that lit one is killed with SIGKILL; looked at while
    /// it is a zombie, too.
    #[test]
    fn beacon_of_a_killed_supervisor_is_swept() {
        let name = fresh("killed");
        let mut child = lit_by_child(&name);
        assert_eq!(sweep(&name).unwrap(), Swept::Alive { pid: child.id() });
        let living = read(&name).unwrap();
        assert!(living.alive);
        assert_eq!(living.counts, Counts { agents: 3, ready: 2, restarts: 1, messages: 9 });
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while read(&name).unwrap().alive {
            assert!(std::time::Instant::now() < deadline, "a zombie counts as alive");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(sweep(&name).unwrap(), Swept::Removed);
        child.wait().unwrap();
        assert_eq!(read(&name), None);
        drop(Beacon::light(&name, 8).unwrap());
    }

    #[test]
    fn beacon_of_another_life_of_the_same_pid_is_swept() {
        let name = fresh("pid-reuse");
        let beacon = Beacon::light(&name, 1).unwrap();
        at_word(&beacon.map, word::START_TIME).fetch_sub(1, Ordering::Relaxed);
        assert!(!read(&name).unwrap().alive);
        assert_eq!(sweep(&name).unwrap(), Swept::Removed);
    }

    #[test]
    fn beacon_with_a_wrong_size_magic_or_version_is_no_beacon_and_is_swept() {
        for (case, bytes) in [
            ("empty", vec![]),
            ("short", vec![0xFF; 100]),
            ("long", vec![0xFF; 3 * BEACON_BYTES]),
            ("zeros", vec![0; BEACON_BYTES]),
            ("noise", vec![0xA5; BEACON_BYTES]),
        ] {
            let name = fresh(case);
            let path = path_of(&os_id(&name).unwrap());
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(read(&name), None, "{case}");
            assert_eq!(sweep(&name).unwrap(), Swept::Removed, "{case}");
        }
    }

    #[test]
    fn symlink_in_place_of_a_beacon_is_not_followed() {
        let name = fresh("symlink");
        let victim = std::env::temp_dir().join(fresh("victim"));
        std::fs::write(&victim, vec![7; BEACON_BYTES]).unwrap();
        std::os::unix::fs::symlink(&victim, path_of(&os_id(&name).unwrap())).unwrap();
        assert_eq!(read(&name), None);
        assert!(Beacon::light(&name, 1).is_err());
        assert_eq!(sweep(&name).unwrap(), Swept::Removed);
        assert_eq!(std::fs::read(&victim).unwrap(), vec![7; BEACON_BYTES]);
        std::fs::remove_file(victim).unwrap();
    }

    #[test]
    fn name_with_a_slash_or_a_dot_is_refused() {
        for name in ["", "a/b", "..", "a b", "é", &"x".repeat(65)] {
            assert_eq!(Beacon::light(name, 1).err().unwrap().kind(), io::ErrorKind::InvalidInput);
            assert!(sweep(name).is_err());
            assert_eq!(read(name), None);
        }
    }

    #[test]
    fn start_time_is_none_for_no_process() {
        assert_eq!(start_time(u32::MAX), None);
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(std::process::id()), start_time(std::process::id()));
    }
}
