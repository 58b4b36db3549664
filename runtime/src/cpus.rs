//! How many CPUs this process has to do with: those of the machine, within what its control groups allow (cgroup v2).
//!
//! Not those that it is bound to: one that is bound to a CPU may well have its peers on others. But a quota is used up by who spins, and
//! then nothing runs until the next period; it may be shared with all peers. Less than two CPUs of it are as good as one.

use std::path::{Path, PathBuf};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Whether so many agents are clearly more than the CPUs that this process may use: most of those that could run wait for one.
pub(crate) fn are_few_for(agents: usize) -> bool {
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count() as usize);
    agents > 2 * cpus
}

/// Whether there are several CPUs for this process and its peers.
pub(crate) fn are_several() -> bool {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    are_several_of(online.ok().as_deref(), &own, Path::new(GROUPS))
}

/// The same, of what the kernel says: the CPUs that are online, the groups of the process, and where all groups are.
fn are_several_of(online: Option<&str>, own: &str, groups: &Path) -> bool {
    let of_machine = match online {
        Some(online) => online.contains([',', '-']),
        // Not to be seen from in here.
        None => std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1),
    };
    of_machine && quota_percent(own, groups).is_none_or(allows_several)
}

/// Whether so many percent of a CPU are as good as several.
pub(crate) fn allows_several(percent: u32) -> bool {
    percent >= 200
}

/// The least that any group up the tree allows, percent of a CPU; `None` for no bound.
fn quota_percent(own: &str, groups: &Path) -> Option<u32> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Of groups outside of what can be seen only the topmost shows here.
    let group = if group.split('/').any(|part| part == "..") { "" } else { group };
    let path: PathBuf = groups.join(group);
    let up = path.ancestors().take_while(|folder| folder.starts_with(groups));
    up.filter_map(|folder| percent_of(&std::fs::read_to_string(folder.join("cpu.max")).ok()?)).min()
}

/// What a `cpu.max` says: `QUOTA PERIOD` in µs, or `max PERIOD`.
fn percent_of(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    u32::try_from(quota.checked_mul(100)?.checked_div(period)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    #[test]
    fn who_is_bound_to_one_cpu_counts_those_of_its_peers() {
        let bound = || {
            let allowed = sched_getaffinity(None)?;
            let mut one = CpuSet::new();
            one.set((0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap_or(0));
            sched_setaffinity(None, &one).map(|()| are_several())
        };
        assert_eq!(std::thread::spawn(bound).join().expect("no panic"), Ok(are_several()));
    }

    #[test]
    fn quota_is_read_in_percent_and_no_quota_is_none() {
        let said = [
            ("max 100000\n", None),
            ("50000 100000\n", Some(50)),
            ("150000 100000", Some(150)),
            ("1000 1000000", Some(0)),
            ("", None),
            ("50000", None),
            ("50000 0", None),
            ("-1 100000", None),
            ("18446744073709551615 1", None),
        ];
        said.iter().for_each(|(text, percent)| assert_eq!(percent_of(text), *percent, "{text:?}"));
    }

    #[test]
    fn least_quota_up_the_tree_counts_and_less_than_two_cpus_of_it_are_one() {
        let folder = std::env::temp_dir().join(format!("shoal-cpus-{}", std::process::id()));
        let _left = Left(&folder);
        let inner = folder.join("swarm/agent");
        std::fs::create_dir_all(&inner).expect("folders");
        let write = |path: &str, text: &str| std::fs::write(folder.join(path), text).expect("written");
        let several = |own: &str| are_several_of(Some("0-3\n"), own, &folder);
        let own = "12:cpu:/elsewhere\n0::/swarm/agent\n";
        assert!(several(own), "no file says anything");
        write("swarm/agent/cpu.max", "max 100000\n");
        assert!(several(own));
        write("swarm/agent/cpu.max", "50000 100000\n");
        assert!(!several(own), "half a CPU of its own");
        write("swarm/agent/cpu.max", "400000 100000\n");
        assert!(several(own));
        write("swarm/cpu.max", "199000 100000\n");
        assert!(!several(own), "of all together less than two");
        assert!(several("0::/other\n") && several("3:cpu:/swarm/agent\n") && several(""));
        write("cpu.max", "100000 100000\n");
        assert!(!several("0::/\n") && !several("0::/../../swarm\n"), "of the topmost that can be seen");
        write("cpu.max", "max 100000\n");
        write("swarm/cpu.max", "200000 100000\n");
        assert!(several(own) && !are_several_of(Some("0\n"), own, &folder), "but the machine has one");
    }

    /// A folder that is removed however the test ends.
    struct Left<'a>(&'a std::path::Path);

    impl Drop for Left<'_> {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0);
        }
    }
}
