//! What former runs left: runtime folders, beacons and control groups whose supervisor is gone, agents that outlived theirs. A swarm that
//! runs, its log, and dead letters are no strays; one that runs on without its folder, where no command finds it, is said with them.

use super::{Finding, Weight};
use crate::confine;
use crate::run_dir::{self, Place};
use crate::spawn::SWARM_ENV;
use shoal_runtime::beacon;
use shoal_runtime::zygote::NAME_ENV;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const GROUP: &str = "strays";

/// Something that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stray {
    /// The runtime folder of a swarm.
    Folder(String, PathBuf),
    /// The beacon of a swarm.
    Beacon(String, PathBuf),
    /// The control group of an agent.
    Group(PathBuf),
    /// The process of an agent.
    Agent(u32, String),
    /// The process that was started for a swarm whose folder was removed meanwhile, and where that was.
    Homeless(u32, String),
}

impl Stray {
    fn what(&self) -> String {
        match self {
            Stray::Folder(name, path) => format!("folder of `{name}`, {}", path.display()),
            Stray::Beacon(name, path) => format!("beacon of `{name}`, {}", path.display()),
            Stray::Group(path) => format!("control group {}", path.display()),
            Stray::Agent(pid, name) => format!("agent {name}, process {pid}"),
            Stray::Homeless(pid, folder) => format!("swarm of {folder}, process {pid}"),
        }
    }

    /// Removes it. Processes are left alone: what they do is not ours to judge.
    fn sweep(&self, place: &Place) -> Result<bool, String> {
        match self {
            Stray::Folder(name, _) => run_dir::sweep_in(place, name).map_err(|error| error.to_string()),
            Stray::Beacon(name, _) => match beacon::sweep(name) {
                Ok(swept) => Ok(swept == beacon::Swept::Removed),
                Err(error) => Err(error.to_string()),
            },
            Stray::Group(path) => match fs::remove_dir(path) {
                Ok(()) => Ok(true),
                // A start has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(error) => {
                    Err(format!("{error}: `cgroup.procs` there names the processes that are in it"))
                }
            },
            Stray::Agent(..) | Stray::Homeless(..) => Ok(false),
        }
    }

    /// Who removes it otherwise.
    fn heir(&self) -> &'static str {
        match self {
            Stray::Group(_) => "the next start here of a swarm with limits",
            _ => "the next start of that name",
        }
    }
}

/// Looks for what was left; removes it if that is wanted.
pub fn strays(place: &Place, sweep: bool) -> Vec<Finding> {
    let found = match find(place) {
        Ok(found) => found,
        Err(why) => {
            return vec![Finding::lack(GROUP, "strays", Weight::Limits, why, "nothing could be looked for")];
        }
    };
    if found.is_empty() {
        return vec![Finding::fine(GROUP, "strays of former runs", "none")];
    }
    let told = found.iter().map(|stray| {
        let swept = if sweep { stray.sweep(place) } else { Ok(false) };
        match (swept, stray) {
            (Ok(true), _) => Finding::fine(GROUP, stray.what(), "removed"),
            (Err(why), _) => Finding::lack(GROUP, stray.what(), Weight::Limits, why, "remove it by hand"),
            (Ok(false), Stray::Agent(pid, _)) => Finding::lack(
                GROUP,
                stray.what(),
                Weight::Limits,
                "it runs without a supervisor",
                format!("see what it does, then `kill {pid}`"),
            ),
            (Ok(false), Stray::Homeless(pid, _)) => Finding::lack(
                GROUP,
                stray.what(),
                Weight::Limits,
                "it runs, but its folder was removed: no command finds it",
                format!("`kill {pid}` ends it in order; then start it again"),
            ),
            (Ok(false), _) => Finding::lack(
                GROUP,
                stray.what(),
                Weight::Note,
                "its supervisor is gone",
                format!("`shoal doctor --sweep` removes it, as does {}", stray.heir()),
            ),
        }
    });
    told.collect()
}

fn find(place: &Place) -> Result<Vec<Stray>, String> {
    let mut found: Vec<Stray> = run_dir::abandoned_in(place)
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|(name, path)| Stray::Folder(name, path))
        .collect();
    found.extend(beacons(Path::new("/dev/shm")));
    found.extend(confine::abandoned_cgroups().into_iter().map(Stray::Group));
    found.extend(agents());
    found.extend(homeless());
    Ok(found)
}

/// Beacons of this user's swarms that nobody tends.
fn beacons(folder: &Path) -> Vec<Stray> {
    let uid = rustix::process::geteuid().as_raw();
    let prefix = format!("shoal-{uid}-");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?.strip_prefix(&prefix)?.to_owned();
        entry.metadata().is_ok_and(|seen| seen.uid() == uid).then(|| (name, entry.path()))
    });
    // One that is just being lit says nothing yet; it is younger than a look.
    let dead = named.filter(|(name, _)| beacon::read(name).is_none_or(|reading| !reading.alive));
    dead.map(|(name, path)| Stray::Beacon(name, path)).collect()
}

/// The numbers of all processes.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// This user's swarms that hold the lock of a folder that is gone, by the process that was started: keeper and supervisor hold it, too. One
/// without a keeper is about to leave.
fn homeless() -> Vec<Stray> {
    let holders: BTreeMap<u32, (u32, String)> =
        processes().filter_map(|pid| Some((pid, lost_home(pid)?))).collect();
    let has_child = |pid: &u32| holders.values().any(|(parent, _)| parent == pid);
    let first = holders.iter().filter(|(pid, (parent, _))| has_child(pid) && !holders.contains_key(parent));
    first.map(|(pid, (_, folder))| Stray::Homeless(*pid, folder.clone())).collect()
}

/// The parent of a process of ours that holds a lock though its folder was removed, and that folder. What others hold cannot be read.
fn lost_home(pid: u32) -> Option<(u32, String)> {
    let (name, parent, _) = stat(pid)?;
    if !name.starts_with("shoal") {
        return None;
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let folder = links.find_map(|link| home_of_lost_lock(link.to_str()?).map(str::to_owned))?;
    Some((parent, folder))
}

/// The folder of a lock, by how the kernel names an open file that is removed.
fn home_of_lost_lock(link: &str) -> Option<&str> {
    link.strip_suffix("/lock (deleted)").filter(|folder| folder.starts_with('/'))
}

/// This user's processes that were started as agents and have been adopted.
fn agents() -> Vec<Stray> {
    let strays = processes().filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let agent = variable(&environment, NAME_ENV)?;
        let swarm = variable(&environment, SWARM_ENV)?;
        is_adopted(&Seen::of(pid)?).then(|| Stray::Agent(pid, format!("{agent} of `{swarm}`")))
    });
    strays.collect()
}

/// An agent's process and its parent.
struct Seen {
    session: u32,
    parent: u32,
    parents_name: String,
    parents_session: u32,
    /// Its children have the same environment; they are judged with it.
    parent_is_agent: bool,
}

impl Seen {
    fn of(pid: u32) -> Option<Seen> {
        let (_, parent, session) = stat(pid)?;
        let (parents_name, _, parents_session) = stat(parent)?;
        let environment = fs::read(format!("/proc/{parent}/environ")).unwrap_or_default();
        let parent_is_agent = variable(&environment, "SHOAL_AGENT").is_some();
        Some(Seen { session, parent, parents_name, parents_session, parent_is_agent })
    }
}

/// Whether a process has been given another parent: process 1, or who asked for orphans, as `systemd --user` does. That one is no
/// `shoal`, and has a session of its own; who starts an agent by hand has that of the agent.
fn is_adopted(seen: &Seen) -> bool {
    let elsewhere = seen.parents_session != seen.session && !seen.parents_name.starts_with("shoal");
    !seen.parent_is_agent && (seen.parent == 1 || elsewhere)
}

/// A process's name, parent and session.
fn stat(pid: u32) -> Option<(String, u32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let (named, rest) = stat.rsplit_once(") ")?;
    let rest: Vec<&str> = rest.split(' ').collect();
    Some((named.split_once('(')?.1.to_owned(), rest.get(1)?.parse().ok()?, rest.get(3)?.parse().ok()?))
}

fn variable(environment: &[u8], name: &str) -> Option<String> {
    let entries = environment.split(|byte| *byte == 0);
    let mut values = entries.filter_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.next().map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_another_session_than_its_parent_is_adopted_unless_that_is_a_shoal_or_an_agent() {
        let seen = |parent: u32, name: &str, parents_session: u32, parent_is_agent: bool| Seen {
            session: 50,
            parent,
            parents_name: name.to_owned(),
            parents_session,
            parent_is_agent,
        };
        assert!(is_adopted(&seen(1, "init", 1, false)) && is_adopted(&seen(70, "systemd", 70, false)));
        assert!(!is_adopted(&seen(60, "bash", 50, false)), "started by hand");
        assert!(!is_adopted(&seen(60, "shoal-keeper", 61, false)), "an agent that left its session");
        assert!(!is_adopted(&seen(60, "worker", 61, true)), "a child of an agent's");
    }

    #[test]
    fn control_group_is_removed_unless_something_is_in_it_and_then_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let (place, group) = (Place::at(folder.path()), folder.path().join("group"));
        fs::create_dir_all(group.join("below")).expect("made");
        let stray = Stray::Group(group.clone());
        assert!(stray.sweep(&place).expect_err("refused").contains("cgroup.procs"));
        fs::remove_dir(group.join("below")).expect("removed");
        assert_eq!((stray.sweep(&place), group.exists()), (Ok(true), false));
        assert_eq!(stray.sweep(&place), Ok(true), "somebody else has removed it");
        assert_eq!(stray.what(), format!("control group {}", group.display()));
    }

    #[test]
    fn lost_lock_names_its_folder() {
        assert_eq!(home_of_lost_lock("/run/user/1/shoal/a/lock (deleted)"), Some("/run/user/1/shoal/a"));
        for link in ["/run/user/1/shoal/a/lock", "/memfd:lock (deleted)", "socket:[1]"] {
            assert_eq!(home_of_lost_lock(link), None, "{link}");
        }
    }

    #[test]
    fn variable_is_found_by_its_whole_name() {
        let environment = b"MY_SHOAL_AGENT=a\0SHOAL_AGENT=worker.1\0SHOAL_AGENTS=b\0";
        assert_eq!(variable(environment, "SHOAL_AGENT").as_deref(), Some("worker.1"));
        assert_eq!(variable(environment, "SHOAL"), None);
    }
}
