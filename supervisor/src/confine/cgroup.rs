//! Cgroups for agents, where this process may make them: version 2 where it is delegated, else version 1.
//!
//! An agent's cgroup is a folder beside or below the supervisor's own, named after the process that runs the swarm and the namespace in which
//! that has its number: it is the same for each of its supervisors, goes with the swarm, and what a killed swarm left is known and removed by the
//! next. It exists only for limits that need one, and, where version 2 is delegated, for who is bounded in its processes: all of them are
//! killed by one word there.

use super::owner::Owner;
use shoal_runtime::again::insist;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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

/// The cgroup below its own into which a process moves that was alone there.
const LEAF: &str = "supervisor";

/// Where this process was before it moved below it.
static LEFT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Makes room for the cgroups of agents, before this process has children: of version 2, who has a cgroup to itself, as a service and a scope of
/// systemd have, and has controllers there, moves into one below it, because they are handed down only from where no process is. Where that
/// is refused, all stays as it is. It does so when one is wanted, and where the service manager says that it delegated: a reload may
/// want some, when there are children.
pub(super) fn make_room(wanted: bool) {
    let own = std::process::id().to_string();
    for Home { folder, .. } in own_homes().iter().filter(|home| home.version == Version::Two) {
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let is_root = !folder.join("cgroup.type").try_exists().unwrap_or(false);
        let has_some = !read("cgroup.controllers").trim().is_empty();
        let due = wanted || is_delegated(folder);
        if due && !is_root && !is_leaf(folder) && has_some && read("cgroup.procs").trim() == own {
            let leaf = folder.join(LEAF);
            let _ = fs::create_dir(&leaf);
            match put(&leaf.join("cgroup.procs"), &own) {
                Ok(()) => *LEFT.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.clone()),
                Err(_) => _ = fs::remove_dir(&leaf),
            }
        }
    }
}

/// How systemd says that it delegated a cgroup: to everybody, and, before version 251, to root alone.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Whether the service manager says that it leaves everything below a cgroup to who is in it.
fn is_delegated(folder: &Path) -> bool {
    DELEGATED.into_iter().any(|name| {
        let mut said = [0u8; 1];
        rustix::fs::getxattr(folder, name, &mut said).is_ok_and(|length| said[..length] == *b"1")
    })
}

/// Moves back, if nobody else is there any more: whoever comes next finds all as it was.
pub fn give_room_back() {
    let Some(folder) = LEFT.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count();
    if below == 1 {
        let control = folder.join("cgroup.subtree_control");
        for controller in fs::read_to_string(&control).unwrap_or_default().split_whitespace() {
            let _ = put(&control, &format!("-{controller}"));
        }
        let _ = put(&folder.join("cgroup.procs"), &std::process::id().to_string());
        let _ = fs::remove_dir(folder.join(LEAF));
    }
}

/// Cgroups that were made; they go with this, and so does the room that was made for them.
pub(super) struct Cgroups {
    homes: Option<Vec<Home>>,
    made: BTreeSet<PathBuf>,
    owner: Owner,
}

impl Default for Cgroups {
    fn default() -> Self {
        Cgroups { homes: None, made: BTreeSet::new(), owner: Owner::this() }
    }
}

impl Cgroups {
    /// The process that runs the swarm.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Some that leave alone what others left.
    pub(super) fn beside() -> Cgroups {
        let mut cgroups = Cgroups::default();
        cgroups.homes = Some(own_homes());
        cgroups
    }

    fn homes(&mut self) -> &[Home] {
        self.homes.get_or_insert_with(|| {
            let (homes, own) = (own_homes(), self.owner);
            homes.iter().for_each(|home| sweep(&home.folder, |owner| owner.is_gone(own)));
            homes
        })
    }

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
        let name = controller.name();
        let mut whys = Vec::new();
        for (version, folder) in places(self.homes(), name) {
            let made = self.folder_for(&folder, agent);
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

    fn folder_for(&self, folder: &Path, agent: &str) -> PathBuf {
        folder.join(self.owner.name_for(agent))
    }

    /// Makes, or finds, a cgroup of version 2 that bounds nothing; yields its folder and what a process joins it by. `None` where none is
    /// delegated.
    pub(super) fn join_plain(&mut self, agent: &str) -> Option<(PathBuf, OwnedFd)> {
        let places: Vec<PathBuf> = second(self.homes()).map(|(folder, _)| folder.to_owned()).collect();
        places.into_iter().find_map(|folder| {
            let made = self.folder_for(&folder, agent);
            let procs = make(&made).ok()?;
            self.made.insert(made.clone());
            Some((made, procs))
        })
    }
}

/// What ends all processes of a cgroup at once, where the kernel has it: version 2, Linux 5.14.
pub(super) fn kill_file(folder: &Path) -> Option<OwnedFd> {
    fs::OpenOptions::new().write(true).open(folder.join("cgroup.kill")).ok().map(Into::into)
}

/// What swarms have left that nobody runs any more, where a start here looks for it.
pub fn abandoned() -> Vec<PathBuf> {
    let own = Owner::this();
    let homes = own_homes().into_iter();
    homes.flat_map(|home| made_by(&home.folder, |owner| owner.is_gone(own))).collect()
}

/// Removes what the swarm of a process has left, when nobody is in it any more.
pub fn sweep_of(owner: Owner) {
    own_homes().iter().for_each(|home| sweep(&home.folder, |of| of == owner));
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for made in &self.made {
            // Refused as long as somebody is in it: then the next supervisor removes it.
            let _ = fs::remove_dir(made);
        }
        give_room_back();
    }
}

fn prepare(
    version: Version,
    controller: Controller,
    folder: &Path,
    made: &Path,
    amount: u64,
) -> io::Result<OwnedFd> {
    let name = controller.name();
    if version == Version::Two {
        may_hand_down(folder)?;
        let enabled = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
        if !enabled.split_whitespace().any(|word| word == name) {
            put(&folder.join("cgroup.subtree_control"), &format!("+{name}"))?;
        }
    }
    let procs = make(made)?;
    for (file, word) in controller.words(version, amount) {
        put(&made.join(file), &word)?;
    }
    Ok(procs)
}

/// Of version 2, whether controllers may be enabled for cgroups below this one: only where no processes are, unless it is the root. The kernel
/// itself refuses that for memory only. For processes and shares of a processor it agrees, and lets nobody into the cgroups below from then on.
fn may_hand_down(folder: &Path) -> io::Result<()> {
    let is_root = !folder.join("cgroup.type").try_exists()?;
    // Of many processes the first one says enough.
    if is_root || fs::File::open(folder.join("cgroup.procs"))?.read(&mut [0])? == 0 {
        return Ok(());
    }
    Err(io::Error::other("processes are in it, and only a cgroup without any hands controllers down"))
}

fn make(folder: &Path) -> io::Result<OwnedFd> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let kind = fs::read_to_string(folder.join("cgroup.type")).unwrap_or_default();
    if kind.contains("invalid") {
        let _ = fs::remove_dir(folder);
        return Err(io::Error::other("the cgroup is for threads: no processes may be put below it"));
    }
    Ok(fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?.into())
}

fn put(file: &Path, word: &str) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", file.display()));
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut f| f.write_all(word.as_bytes()))
        .map_err(named)
}

/// Removes the empty cgroups of swarms that are run by these processes.
fn sweep(folder: &Path, of: impl Fn(Owner) -> bool) {
    made_by(folder, of).iter().for_each(|made| _ = fs::remove_dir(made));
}

/// The cgroups of swarms that are run by these processes.
fn made_by(folder: &Path, of: impl Fn(Owner) -> bool) -> Vec<PathBuf> {
    let entries = around(folder).filter_map(|f| fs::read_dir(f).ok()).flatten().flatten();
    let theirs =
        entries.filter(|entry| Owner::in_name(&entry.file_name().to_string_lossy()).is_some_and(&of));
    theirs.map(|entry| entry.path()).collect()
}

/// Where a controller may be found: version 2 first, and there in the own cgroup, then in the one above (a cgroup with processes
/// of its own may not hand controllers down, unless it is the root; the supervisor is then a leaf of what was delegated).
fn places(homes: &[Home], controller: &str) -> Vec<(Version, PathBuf)> {
    let has_it = |there: &str| there.split_whitespace().any(|word| word == controller);
    let second = second(homes).filter(|(_, there)| has_it(there));
    let mut places: Vec<_> = second.map(|(folder, _)| (Version::Two, folder.to_owned())).collect();
    let first = homes.iter().filter(|home| home.controllers.iter().any(|c| c == controller));
    places.extend(first.map(|home| (Version::One, home.folder.clone())));
    places
}

/// The own cgroup and the one above; and the one above that for who has moved below its own.
fn around(own: &Path) -> impl Iterator<Item = &Path> {
    own.ancestors().take(if is_leaf(own) { 3 } else { 2 })
}

/// Whether it is one that was made for the supervisor: by this process, or by a service manager that was told to.
fn is_leaf(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name == LEAF)
}

/// Folders of version 2 in which there may be cgroups for agents, and the controllers there.
fn second(homes: &[Home]) -> impl Iterator<Item = (&Path, String)> {
    let homes = homes.iter().filter(|home| home.version == Version::Two);
    let folders = homes.flat_map(|home| around(&home.folder));
    folders.filter_map(|folder| Some((folder, fs::read_to_string(folder.join("cgroup.controllers")).ok()?)))
}

fn own_homes() -> Vec<Home> {
    let read = |path| insist(|| fs::read_to_string(path)).unwrap_or_default();
    homes(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
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
    fn what_a_swarm_left_is_found_in_the_own_cgroup_and_in_the_one_above_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("own");
        let [owner, other] = [u32::MAX, u32::MAX - 1].map(|pid| Owner::this().with(pid));
        let theirs = [own.join(owner.name_for("a")), folder.path().join(owner.name_for("b"))];
        let others = [own.join(other.name_for("a")), own.join("system.slice"), own.join("deep")];
        let deeper = others[2].join(owner.name_for("c"));
        for path in theirs.iter().chain(&others).chain([&deeper]) {
            fs::create_dir_all(path).expect("made");
        }
        assert_eq!(made_by(&own, |of| of == owner), theirs);
        sweep(&own, |of| of == owner);
        assert!(!theirs.iter().any(|path| path.exists()) && others.iter().all(|path| path.exists()));
    }

    #[test]
    fn one_word_ends_everybody_in_a_cgroup_and_its_owner_names_what_is_swept() {
        let [owner, other] = [u32::MAX, u32::MAX - 1].map(|pid| Owner::this().with(pid));
        let mut cgroups = Cgroups { homes: None, made: BTreeSet::new(), owner };
        let Some((folder, procs)) = cgroups.join_plain("a") else {
            println!("no cgroup v2 is delegated here: nothing to see");
            return;
        };
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("a child");
        rustix::io::write(&procs, child.id().to_string().as_bytes()).expect("joined");
        sweep_of(owner);
        assert!(folder.exists(), "somebody is in it");
        match kill_file(&folder) {
            Some(kill) => _ = rustix::io::write(kill, b"1").expect("killed"),
            None => child.kill().expect("killed"),
        }
        let ended = child.wait().expect("ended");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        sweep_of(other);
        assert!(folder.exists(), "another's");
        sweep_of(owner);
        assert!(!folder.exists(), "nobody is in it any more");
    }

    #[test]
    fn share_of_a_processor_is_said_in_each_versions_words() {
        assert_eq!(Controller::Cpu.words(Version::Two, 150), [("cpu.max", "150000 100000".to_owned())]);
        let first = Controller::Cpu.words(Version::One, 50);
        assert_eq!(first[1], ("cpu.cfs_quota_us", "50000".to_owned()));
    }
}
