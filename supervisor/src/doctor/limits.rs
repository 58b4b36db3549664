//! What a swarm needs (`needs.rs`) beside what there is, and where those numbers come from.

use super::{Finding, Weight};
use crate::config::SwarmFile;
use crate::confine::hard_limit;
use crate::needs::Needs;
use crate::run_dir::{Place, check_place};
use nix::sys::resource::Resource;
use std::fs;
use std::path::{Path, PathBuf};

const GROUP: &str = "bounds";
/// Whether what there is suffices; `None`: there is no limit.
pub fn suffices(what: &str, need: u64, have: Option<u64>, unit: &str, advice: &str) -> Finding {
    match have {
        None => Finding::fine(GROUP, what, format!("needs {need}{unit}, there is no limit")),
        Some(have) if need <= have => {
            Finding::fine(GROUP, what, format!("needs {need}{unit} of {have}{unit}"))
        }
        Some(have) => Finding::lack(
            GROUP,
            what,
            Weight::Stops,
            format!("needs {need}{unit}, there are {have}{unit}"),
            advice,
        ),
    }
}

/// Compares what a swarm needs with what there is.
pub fn limits(file: Option<&SwarmFile>) -> Vec<Finding> {
    let needs = Needs::of(file);
    let mut findings = vec![
        suffices(
            "open descriptors",
            needs.descriptors,
            hard_limit(Resource::RLIMIT_NOFILE),
            "",
            "raise the hard limit: `ulimit -Hn`, LimitNOFILE= of a unit, or nofile in /etc/security/limits.conf",
        ),
        suffices(
            "processes",
            needs.processes,
            processes_left(),
            "",
            "raise the limit: `ulimit -u`, TasksMax= of a unit, kernel.pid_max or kernel.threads-max",
        ),
        suffices(
            "memory",
            needs.memory_bytes >> 20,
            memory_available().map(|bytes| bytes >> 20),
            " MiB",
            "smaller lanes (`capacity`), fewer agents, or more memory: what lanes need is allocated at the start",
        ),
    ];
    findings.push(shared_folder());
    findings.push(
        match Place::of_user().map_err(|error| error.to_string()).and_then(|place| check_place(&place)) {
            Ok(path) => Finding::fine(GROUP, "runtime folder", path.display().to_string()),
            Err(why) => Finding::lack(
                GROUP,
                "runtime folder",
                Weight::Stops,
                why,
                "no swarm of this user can be run or spoken with",
            ),
        },
    );
    findings
}

/// How many processes this user may still make. Root may make as many as the system has numbers for.
fn processes_left() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let all =
        ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(number).min();
    let limit = hard_limit(Resource::RLIMIT_NPROC).filter(|_| !rustix::process::geteuid().is_root());
    let limit = limit.into_iter().chain(all).min()?;
    let used = fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
        // `runnable/all` of all users.
        text.split(' ').nth(3)?.split_once('/')?.1.parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.unwrap_or(0)))
}

/// What the machine has left, and the control groups that this process is in.
fn memory_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let all = line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    all.into_iter().chain(memory_left_in(Path::new("/sys/fs/cgroup"), own)).min()
}

/// The least that is left in a control group (version 2), and in those around it, below a root; `None` if nothing bounds them.
fn memory_left_in(root: &Path, own: &str) -> Option<u64> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let own = root.join(own);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let left = groups.filter_map(|group| {
        let max = number(group.join("memory.max"))?;
        Some(max.saturating_sub(number(group.join("memory.current")).unwrap_or(0)))
    });
    left.min()
}

/// Beacons lie in /dev/shm; lanes do not.
fn shared_folder() -> Finding {
    let what = "/dev/shm";
    let advice = "without it observers of a swarm ask its supervisor instead of reading a beacon; lanes do not lie there";
    let path = format!("/dev/shm/shoal-doctor-{}", std::process::id());
    match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(_) => {
            let _ = fs::remove_file(&path);
            Finding::fine(GROUP, what, "can be written")
        }
        Err(error) => Finding::lack(GROUP, what, Weight::Limits, error.to_string(), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_the_tightest_group_around() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, max: &str, current: &str| {
            fs::create_dir_all(root.path().join(path)).unwrap();
            fs::write(root.path().join(path).join("memory.max"), format!("{max}\n")).unwrap();
            fs::write(root.path().join(path).join("memory.current"), format!("{current}\n")).unwrap();
        };
        group("a/b/c", "max", "70");
        group("a/b", "1000", "400");
        assert_eq!(memory_left_in(root.path(), "a/b/c"), Some(600));
        group("a", "900", "850");
        assert_eq!(memory_left_in(root.path(), "a/b/c"), Some(50));
        group("a", "900", "950");
        assert_eq!(memory_left_in(root.path(), "a/b/c"), Some(0));
        assert_eq!(memory_left_in(root.path(), ""), None);
        assert_eq!(memory_left_in(root.path(), "elsewhere"), None);
    }

    #[test]
    fn need_that_fits_is_fine_and_one_more_stops() {
        let of = |need, have| suffices("x", need, have, "", "raise it").weight;
        assert_eq!(of(5, Some(5)), Weight::Fine);
        assert_eq!(of(6, Some(5)), Weight::Stops);
        assert_eq!(of(u64::MAX, None), Weight::Fine);
    }
}
