//! The traces of a stage outside its folder: processes, memory files and names in /dev/shm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that marks every process of a stage, and tells its agents the stage's folder.
pub const MARK: &str = "SHOAL_TEST_FOLDER";

/// All processes that this user may look at.
pub fn processes() -> impl Iterator<Item = i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process belongs to a stage: it inherited its mark. A dead one that is not reaped has none.
pub fn is_marked(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = format!("{MARK}={mark}");
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// The processes of a stage, whoever is their parent.
pub fn marked(mark: &str) -> Vec<i32> {
    processes().filter(|&pid| is_marked(pid, mark)).collect()
}

/// Sends SIGKILL to a process of a stage. False when it was gone before; another process that has its number by now is
/// spared.
pub fn kill(pid: i32, mark: &str) -> bool {
    send(pid, mark, Signal::KILL)
}

/// Sends a signal to a process of a stage, as `kill` does.
pub fn send(pid: i32, mark: &str, signal: Signal) -> bool {
    let Some(Ok(process)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return false;
    };
    is_marked(pid, mark) && pidfd_send_signal(&process, signal).is_ok()
}

/// A process's children.
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A process's parent.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// How many descriptors a process has open, by what they lead to: each file by its path, sockets and the like by their kind.
pub fn descriptors(pid: i32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        let kind =
            if target.starts_with('/') { &target } else { target.split(":[").next().unwrap_or_default() };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// The files, other than memory, that processes hold open to write to.
pub fn written_files(pids: impl IntoIterator<Item = i32>) -> BTreeSet<PathBuf> {
    let is_regular = |path: &Path| fs::metadata(path).is_ok_and(|seen| seen.is_file());
    let mut files = BTreeSet::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let path = fs::read_link(entry.path()).unwrap_or_default();
            let info = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
            let writes = i32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o3 != 0);
            let is_memory = path.to_string_lossy().starts_with("/memfd:") || path.starts_with("/dev/shm");
            let is_file = writes && is_regular(&entry.path()) && !is_memory;
            // The number may have come to mean another file meanwhile.
            if is_file && fs::read_link(entry.path()).is_ok_and(|still| still == path) {
                files.insert(path);
            }
        }
    }
    files
}

/// The state letter of a process (`R`, `S`, `T`, `Z`…); `None` when there is none.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The process that runs a swarm, as its cgroups name it: the namespace in which it has its number, and that.
///
/// # Panics
/// When there is none.
pub fn owner(pid: i32) -> String {
    let space = fs::metadata(format!("/proc/{pid}/ns/pid")).expect("the process runs").ino();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("the kernel tells");
    format!("{space}.{}", numbers.split_whitespace().last().expect("a number"))
}

/// Whether this process is in the namespace of process numbers that holds all others, and may ask all processes but the first for theirs.
pub fn sees_everybody() -> bool {
    const FIRST_SPACE: u64 = 4026531836;
    let space = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/pid")).map(|seen| seen.ino());
    let is_hidden = |pid: i32| {
        space(&pid.to_string()).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    space("self").is_ok_and(|own| own == FIRST_SPACE) && !processes().any(|pid| pid != 1 && is_hidden(pid))
}

/// The cgroups that the swarm of a process has made.
pub fn cgroups(owner: &str) -> Vec<PathBuf> {
    let its = format!("shoal-{owner}-");
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let kinds = mounts.lines().map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>());
    let mut folders: Vec<PathBuf> =
        kinds.filter(|parts| parts[1].starts_with("cgroup")).map(|parts| parts[0].into()).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let is_its = entry.file_name().to_string_lossy().starts_with(&its);
                if is_its { found.push(entry.path()) } else { folders.push(entry.path()) }
            }
        }
    }
    found
}

/// How often a process went to sleep in the kernel.
///
/// # Panics
/// When there is none.
pub fn sleeps(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("the kernel counts").trim().parse().expect("a number")
}

/// The memory files (their inodes) that processes map or hold open.
pub fn memory_files(pids: impl IntoIterator<Item = i32>) -> BTreeSet<u64> {
    let mut files = BTreeSet::new();
    for pid in pids {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let mapped = maps.lines().filter(|line| line.contains("/memfd:"));
        files.extend(mapped.filter_map(|line| line.split_ascii_whitespace().nth(4)?.parse::<u64>().ok()));
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_memory = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("/memfd:"));
            if is_memory && let Ok(seen) = fs::metadata(entry.path()) {
                files.insert(std::os::unix::fs::MetadataExt::ino(&seen));
            }
        }
    }
    files
}

/// Which of these memory files any process still holds.
pub fn held_memory(files: &BTreeSet<u64>) -> Vec<u64> {
    memory_files(processes()).intersection(files).copied().collect()
}

/// The names in /dev/shm that contain a swarm's.
pub fn shared_names(swarm: &str) -> Vec<String> {
    let all = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(swarm)).collect()
}
