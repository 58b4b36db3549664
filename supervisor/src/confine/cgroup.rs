//! Cgroups for agents, where this process may make them: version 2 where it is delegated, else version 1.
//!
//! An agent's cgroup is a folder beside or below the supervisor's own, named after the supervisor's process, so that what a killed
//! supervisor left is known and removed by the next. It exists only for limits that need one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What bounds what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// Bytes.
    Memory,
    /// Processes and threads.
    Pids,
    /// Hundredths of a processor.
    Cpu,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Cpu => "cpu",
        }
    }

    /// The key of the swarm file.
    pub(super) fn key(self) -> &'static str {
        match self {
            Controller::Memory => "limits.memory",
            Controller::Pids => "limits.processes",
            Controller::Cpu => "limits.cpu",
        }
    }

    /// Which files say it, and what.
    fn words(self, version: Version, amount: u64) -> Vec<(&'static str, String)> {
        // A tenth of a second is shared out at a time.
        let (period, quota) = (100_000, amount * 1000);
        match (self, version) {
            (Controller::Memory, Version::Two) => vec![("memory.max", amount.to_string())],
            (Controller::Memory, Version::One) => vec![("memory.limit_in_bytes", amount.to_string())],
            (Controller::Pids, _) => vec![("pids.max", amount.to_string())],
            (Controller::Cpu, Version::Two) => vec![("cpu.max", format!("{quota} {period}"))],
            (Controller::Cpu, Version::One) => {
                vec![("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())]
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The supervisor's own folder in a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    version: Version,
    /// Of version 1: the controllers that are mounted here.
    controllers: Vec<String>,
    folder: PathBuf,
}

/// Cgroups that were made; they go with this.
#[derive(Default)]
pub(super) struct Cgroups {
    homes: Option<Vec<Home>>,
    made: BTreeSet<PathBuf>,
}

impl Cgroups {
    /// Makes, or finds, the cgroup in which a controller bounds an agent; yields its folder and what a process joins it by.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) fn join(
        &mut self,
        controller: Controller,
        agent: &str,
        amount: u64,
    ) -> Result<(PathBuf, OwnedFd), String> {
        let homes = self.homes.get_or_insert_with(|| {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            let homes = homes(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
            homes.iter().for_each(|home| sweep(&home.folder));
            homes
        });
        let name = controller.name();
        let mut whys = Vec::new();
        for (version, folder) in places(homes, name) {
            let made = folder.join(format!("{PREFIX}{}-{agent}", std::process::id()));
            match prepare(version, controller, &folder, &made, amount) {
                Ok(procs) => {
                    self.made.insert(made.clone());
                    return Ok((made, procs));
                }
                Err(error) => whys.push(format!("{}: {error}", folder.display())),
            }
        }
        Err(match whys.is_empty() {
            true => format!("no cgroup with the {name} controller"),
            false => format!("no cgroup with the {name} controller is delegated ({})", whys.join("; ")),
        })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for made in &self.made {
            // Refused as long as somebody is in it: then the next supervisor removes it.
            let _ = fs::remove_dir(made);
        }
    }
}

const PREFIX: &str = "shoal-";

fn prepare(
    version: Version,
    controller: Controller,
    folder: &Path,
    made: &Path,
    amount: u64,
) -> io::Result<OwnedFd> {
    let name = controller.name();
    if version == Version::Two {
        let enabled = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
        if !enabled.split_whitespace().any(|word| word == name) {
            put(&folder.join("cgroup.subtree_control"), &format!("+{name}"))?;
        }
    }
    match fs::create_dir(made) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for (file, word) in controller.words(version, amount) {
        put(&made.join(file), &word)?;
    }
    Ok(fs::OpenOptions::new().write(true).open(made.join("cgroup.procs"))?.into())
}

fn put(file: &Path, word: &str) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut f| f.write_all(word.as_bytes()))
        .map_err(named)
}

/// Removes the empty cgroups of supervisors that are gone.
fn sweep(folder: &Path) {
    let folders = [Some(folder), folder.parent()];
    let entries = folders.into_iter().flatten().filter_map(|f| fs::read_dir(f).ok()).flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        if owner(&name.to_string_lossy()).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The supervisor's process that made a cgroup of this name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Where a controller may be found: version 2 first, and there in the own cgroup, then in the one above (a cgroup with processes
/// of its own may not hand controllers down, unless it is the root; the supervisor is then a leaf of what was delegated).
fn places(homes: &[Home], controller: &str) -> Vec<(Version, PathBuf)> {
    let mut places = Vec::new();
    for home in homes.iter().filter(|home| home.version == Version::Two) {
        for folder in [Some(home.folder.as_path()), home.folder.parent()].into_iter().flatten() {
            let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
            if there.split_whitespace().any(|word| word == controller) {
                places.push((Version::Two, folder.to_owned()));
            }
        }
    }
    let first = homes.iter().filter(|home| home.controllers.iter().any(|c| c == controller));
    places.extend(first.map(|home| (Version::One, home.folder.clone())));
    places
}

/// The own folders in all hierarchies that are mounted.
fn homes(mountinfo: &str, own: &str) -> Vec<Home> {
    let mut homes = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let mut mount = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (mount.next(), mount.next()) else { continue };
        let mut kind = kind.split(' ');
        let (version, options) = match (kind.next(), kind.nth(1)) {
            (Some("cgroup2"), _) => (Version::Two, ""),
            (Some("cgroup"), Some(options)) => (Version::One, options),
            _ => continue,
        };
        let controllers: Vec<String> = options.split(',').map(str::to_owned).collect();
        let mine = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            let same = match version {
                Version::Two => names.is_empty(),
                Version::One => names.split(',').any(|name| controllers.iter().any(|c| c == name)),
            };
            same.then_some(path)
        });
        let Some(path) = mine else { continue };
        // A container may see a part of the tree only.
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("").trim_start_matches('/');
        homes.push(Home {
            version,
            controllers,
            folder: Path::new(point).join(below).components().collect(),
        });
    }
    homes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_folders_are_found_in_both_versions_and_below_a_containers_root() {
        let mounts = "25 22 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      26 22 0:23 /box /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
                      27 22 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      28 22 0:25 / /proc rw - proc proc rw\n";
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/box/c\n0::/\n";
        let folders: Vec<_> = homes(mounts, own).into_iter().map(|h| (h.version, h.folder)).collect();
        let expected = [
            (Version::One, "/sys/fs/cgroup/memory/a/b".into()),
            (Version::One, "/sys/fs/cgroup/cpu/c".into()),
            (Version::Two, "/sys/fs/cgroup/unified".into()),
        ];
        assert_eq!(folders, expected);
    }

    #[test]
    fn cgroup_of_a_supervisor_names_its_process() {
        assert_eq!(owner("shoal-12-worker.1"), Some(12));
        for other in ["shoal-", "shoal-x-y", "system.slice", "shoal-12"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn share_of_a_processor_is_said_in_each_versions_words() {
        assert_eq!(Controller::Cpu.words(Version::Two, 150), [("cpu.max", "150000 100000".to_owned())]);
        let first = Controller::Cpu.words(Version::One, 50);
        assert_eq!(first[1], ("cpu.cfs_quota_us", "50000".to_owned()));
    }
}
