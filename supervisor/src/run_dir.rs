//! The place of a running swarm: a folder of its name that only its user can enter, and the claim to that name.
//!
//! ```text
//!   $XDG_RUNTIME_DIR/shoal/          or, without it, /tmp/shoal-<uid>/             0700, ours, no symlink
//!     ├ <name>.log         what its supervisor says when it runs in the background; outlives the run
//!     └ <name>/                                                                   0700
//!         ├ lock       held by flock as long as the swarm runs; says "pid start_time"
//!         ├ control    the socket (control.rs)
//!         ├ logs/      the agents' output (output.rs)
//!         └ dead-letters/  what agents gave up (dead_letters.rs); outlives the run
//! ```
//! The lock is the truth, the files are not: the kernel drops it with the process, however that ends. A lock counts
//! only while the locked file is still the one at its path; who removes a folder removes the lock file last, so
//! that a claimant is either refused, or finds his lock on a file that is gone and tries again.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use shoal_runtime::again::{insist, is_passing};
use shoal_runtime::beacon;

use crate::dead_letters;

/// How long a claimant waits for who holds the lock without being a supervisor: a sweep takes microseconds.
const SWEEP_MAX: Duration = Duration::from_millis(500);
/// The variable that names the folder of what a user runs (XDG Base Directory Specification).
const VARIABLE: &str = "XDG_RUNTIME_DIR";
/// The longest name of a swarm, bytes.
const NAME_BYTES_MAX: usize = 64;

/// The folder that holds the folders of all swarms of this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// This user's: in the runtime folder that the environment names, or in `/tmp`, whatever else is called temporary: all
    /// commands of a user meet there.
    ///
    /// # Errors
    /// `ClaimError::Variable` if the folder that is named is none of this user's: what is in another place is another swarm.
    pub fn of_user() -> Result<Place, ClaimError> {
        Place::chosen(std::env::var_os(VARIABLE).map(PathBuf::from))
    }

    /// Any other folder; tests have their own.
    pub fn at(path: &Path) -> Place {
        Place { path: path.to_owned() }
    }

    fn chosen(named: Option<PathBuf>) -> Result<Place, ClaimError> {
        let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) else {
            return Ok(Place::in_tmp());
        };
        match unusable(&named) {
            None => Ok(Place { path: named.join("shoal") }),
            Some(what) => Err(ClaimError::Variable { path: named, what }),
        }
    }

    fn in_tmp() -> Place {
        Place { path: format!("/tmp/shoal-{}", own_uid()).into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the words of a supervisor in the background go unless somebody says otherwise; its folder is made. Like dead
    /// letters it outlives the run: no swarm's name has a dot.
    ///
    /// # Errors
    /// An unsafe folder, or the system's refusal to make it.
    pub fn log(&self, name: &str) -> Result<PathBuf, ClaimError> {
        make_dir(&self.path)?;
        Ok(self.path.join(format!("{name}.log")))
    }
}

/// A claimed name and its folder; removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    name: String,
    path: PathBuf,
    lock: File,
    /// Who claimed it: a forked child must not remove its parent's folder.
    pid: u32,
    gone: bool,
}

/// Why a name could not be claimed.
#[derive(Debug)]
pub enum ClaimError {
    /// No swarm may have this name.
    Name(String),
    /// A swarm of this name is running.
    Running {
        /// Its name.
        name: String,
        /// The process that claimed the name, if it says so: the guard.
        pid: Option<u32>,
    },
    /// The environment names a folder for what this user runs that cannot be used.
    Variable {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The folder is not safe to use.
    Unsafe {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// The system refused.
    System {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Its answer.
        error: io::Error,
    },
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::Name(name) => {
                write!(f, "{name:?} is no name of a swarm: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ -")
            }
            ClaimError::Running { name, pid } => {
                let who = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                write!(
                    f,
                    "the swarm `{name}` is running already{who}: see `shoal status`; end it first, or give this one another name"
                )
            }
            ClaimError::Variable { path, what } => write!(
                f,
                "{VARIABLE} is {}, and {what}: set it to a folder of your own, or unset it for {}",
                path.display(),
                Place::in_tmp().path.display()
            ),
            ClaimError::Unsafe { path, what } => write!(f, "{} is not safe to use: {what}", path.display()),
            ClaimError::System { doing, path, error } => write!(f, "{doing} {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ClaimError {}

/// A swarm of this user that is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its supervisor, if it says so.
    pub pid: Option<u32>,
    /// Its control socket.
    pub socket: PathBuf,
}

impl RunDir {
    /// Claims a name for this process and sweeps what a killed predecessor left: socket, logs, beacon.
    ///
    /// # Errors
    /// `ClaimError::Running` if the name is taken; else a bad name, an unsafe folder or the system's refusal.
    pub fn claim(name: &str) -> Result<RunDir, ClaimError> {
        RunDir::claim_in(&Place::of_user()?, name)
    }

    /// As `claim`, in a place of one's own.
    ///
    /// # Errors
    /// As `claim`.
    pub fn claim_in(place: &Place, name: &str) -> Result<RunDir, ClaimError> {
        if !is_name(name) {
            return Err(ClaimError::Name(name.to_owned()));
        }
        let claimed = RunDir::claim_at(place, name);
        if matches!(claimed, Err(ClaimError::System { .. })) {
            // Empty, if this process has made them.
            let _ = fs::remove_dir(place.path.join(name)).and_then(|()| fs::remove_dir(&place.path));
            let _ = fs::remove_dir(&place.path);
        }
        claimed
    }

    fn claim_at(place: &Place, name: &str) -> Result<RunDir, ClaimError> {
        let path = place.path.join(name);
        let started = Instant::now();
        loop {
            match make_dir(&place.path).and_then(|()| make_dir(&path)) {
                // Who gives up the last name removes the place, too: perhaps just now.
                Err(ClaimError::System { error, .. })
                    if error.kind() == io::ErrorKind::NotFound && started.elapsed() < SWEEP_MAX =>
                {
                    std::thread::yield_now();
                    continue;
                }
                made => made?,
            }
            match try_lock(&path.join("lock"), true) {
                Ok(Lock::Ours(lock)) => return RunDir::settle(name, path, lock),
                Ok(Lock::Gone) => {}
                Ok(Lock::Theirs(holder)) => {
                    let living = holder.filter(Holder::lives);
                    if living.is_some() || started.elapsed() > SWEEP_MAX {
                        return Err(ClaimError::Running {
                            name: name.to_owned(),
                            pid: living.map(|h| h.pid),
                        });
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => {
                    return Err(ClaimError::System { doing: "locking", path: path.join("lock"), error });
                }
            }
        }
    }

    /// Writes down who holds the lock, and makes the folder as new.
    fn settle(name: &str, path: PathBuf, lock: File) -> Result<RunDir, ClaimError> {
        let system = |doing, path: &Path| {
            let path = path.to_owned();
            move |error| ClaimError::System { doing, path, error }
        };
        let pid = std::process::id();
        let mut dir = RunDir { name: name.to_owned(), path, lock, pid, gone: false };
        let unknown = || io::Error::other("this process has no start time in /proc (is it mounted?)");
        beacon::start_time(pid)
            .ok_or_else(unknown)
            .and_then(|since| {
                dir.lock.set_len(0)?;
                dir.lock.rewind()?;
                dir.lock.write_all(format!("{pid} {since}\n").as_bytes())
            })
            .map_err(system("writing", &dir.path.join("lock")))?;
        empty(&dir.path).map_err(system("sweeping", &dir.path))?;
        // A beacon that cannot be swept hinders nobody but the next beacon, whose maker will say so.
        let _ = beacon::sweep(name);
        DirBuilder::new().mode(0o700).create(dir.logs()).map_err(system("making", &dir.logs()))?;
        Ok(dir)
    }

    /// The swarm's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket belongs.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control")
    }

    /// Where the agents' output goes unless the swarm file says otherwise; made.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where the dead letters belong; not made.
    pub fn dead_letters(&self) -> PathBuf {
        self.path.join(dead_letters::FOLDER)
    }

    /// Removes the folder with all that is in it but dead letters, and gives the name free.
    ///
    /// # Errors
    /// The system's refusal; the name is free nevertheless.
    pub fn remove(mut self) -> io::Result<()> {
        self.clear()
    }

    /// Removes the folder for its claimant, who is dead: what a process does that has the claim from it and outlives it.
    pub fn remove_for_dead(&self) {
        if is_at(&self.lock, &self.path.join("lock")) {
            let _ = dismantle(&self.path);
        }
    }

    /// # If we die here
    /// The lock falls, and the next claim or listing sweeps what is left.
    fn clear(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.gone, true) || std::process::id() != self.pid {
            return Ok(());
        }
        if !is_at(&self.lock, &self.path.join("lock")) {
            return Ok(()); // somebody removed the folder by hand; what is there now is not ours
        }
        dismantle(&self.path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// The running swarms of this user, by name; what killed supervisors left is swept.
///
/// # Errors
/// An unsafe folder, or the system's refusal to list it.
pub fn list_running() -> Result<Vec<Running>, ClaimError> {
    list_running_in(&Place::of_user()?)
}

/// As `list_running`, in a place of one's own.
///
/// # Errors
/// As `list_running`.
pub fn list_running_in(place: &Place) -> Result<Vec<Running>, ClaimError> {
    let folders = folders_in(place)?;
    Ok(folders.into_iter().filter_map(|(name, path)| look_at(&name, &path)).collect())
}

/// The folders of swarms, by name: safe ones only.
fn folders_in(place: &Place) -> Result<Vec<(String, PathBuf)>, ClaimError> {
    let refused = |error| ClaimError::System { doing: "reading", path: place.path.clone(), error };
    match check_dir(&place.path) {
        Err(ClaimError::System { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        checked => checked?,
    }
    let mut folders = Vec::new();
    let entries = match fs::read_dir(&place.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(refused)?,
    };
    for entry in entries {
        let entry = entry.map_err(refused)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_name(&name) && check_dir(&entry.path()).is_ok() {
            folders.push((name, entry.path()));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Folders of swarms that do not run and that hold more than dead letters: a supervisor was killed. Nothing is swept.
///
/// # Errors
/// As `list_running`.
pub fn abandoned_in(place: &Place) -> Result<Vec<(String, PathBuf)>, ClaimError> {
    let abandoned =
        |(_, path): &(String, PathBuf)| matches!(try_lock(&path.join("lock"), false), Ok(Lock::Ours(_)));
    Ok(folders_in(place)?.into_iter().filter(abandoned).collect())
}

/// Sweeps the folder and the beacon of a swarm that does not run. False when it runs.
///
/// # Errors
/// The system's refusal.
pub fn sweep_in(place: &Place, name: &str) -> io::Result<bool> {
    let path = place.path.join(name);
    match try_lock(&path.join("lock"), false)? {
        Lock::Ours(_lock) => {
            let _ = beacon::sweep(name);
            dismantle(&path).map(|()| true)
        }
        Lock::Theirs(_) | Lock::Gone => Ok(false),
    }
}

/// Whether this user's swarms can have their folders in a place: its path.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn check_place(place: &Place) -> Result<PathBuf, String> {
    // Made and removed, unless it is in use.
    make_dir(&place.path).map_err(|error| error.to_string())?;
    let _ = remove_unless_used(&place.path);
    Ok(place.path.clone())
}

/// The folders of dead letters of this user's swarms, running or not, by the swarms' names.
///
/// # Errors
/// As `list_running`.
pub fn list_dead_letters_in(place: &Place) -> Result<Vec<(String, PathBuf)>, ClaimError> {
    let mut found = Vec::new();
    for (name, path) in folders_in(place)? {
        let letters = path.join(dead_letters::FOLDER);
        if letters.is_dir() {
            found.push((name, letters));
        }
    }
    Ok(found)
}

/// Removes the folder of a swarm that does not run and of which nothing is left, its last dead letter purged.
pub fn forget_in(place: &Place, name: &str) {
    // A running swarm's has a lock in it, a claimant's that is removed is made again by the claimant.
    let _ = remove_unless_used(&place.path.join(name)).and_then(|()| remove_unless_used(&place.path));
}

/// One swarm's folder: running, or swept. A folder in the middle of a claim or a sweep counts as not running.
fn look_at(name: &str, path: &Path) -> Option<Running> {
    match try_lock(&path.join("lock"), false) {
        Ok(Lock::Theirs(holder)) => {
            let pid = holder.filter(Holder::lives)?.pid;
            Some(Running { name: name.to_owned(), pid: Some(pid), socket: path.join("control") })
        }
        Ok(Lock::Ours(_lock)) => {
            let _ = beacon::sweep(name);
            let _ = dismantle(path);
            None
        }
        Ok(Lock::Gone) | Err(_) => None,
    }
}

/// What came of trying a lock.
enum Lock {
    /// It is held, and its file is the one at the path.
    Ours(File),
    /// Somebody else holds it.
    Theirs(Option<Holder>),
    /// Its file is not, or no longer, at the path.
    Gone,
}

/// Who a lock file says holds it.
#[derive(Clone, Copy)]
struct Holder {
    pid: u32,
    start_time: u64,
}

impl Holder {
    fn read(file: &mut File) -> Option<Holder> {
        let mut text = String::new();
        file.take(64).read_to_string(&mut text).ok()?;
        let (pid, start_time) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }

    /// Whether that very process lives; a sweeper holds the lock of one that does not.
    fn lives(&self) -> bool {
        beacon::start_time(self.pid) == Some(self.start_time)
    }
}

fn try_lock(path: &Path, create: bool) -> io::Result<Lock> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags as i32)
        .open(path);
    match opened {
        Ok(file) => take_lock(file, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::Gone),
        Err(error) => Err(error),
    }
}

/// Locks a file that was opened at a path; between the two its holder may have removed it.
fn take_lock(mut file: File, path: &Path) -> io::Result<Lock> {
    // Held by another is an answer, and no lack that passes.
    let locked = insist(|| match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        locked => locked.map(|()| true),
    });
    match locked? {
        true if is_at(&file, path) => Ok(Lock::Ours(file)),
        true => Ok(Lock::Gone),
        false => Ok(Lock::Theirs(Holder::read(&mut file))),
    }
}

/// Whether an open file is still the one at its path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |seen: fs::Metadata| (seen.dev(), seen.ino());
    match (insist(|| file.metadata()), insist(|| fs::symlink_metadata(path))) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

/// Removes everything in a swarm's folder but the lock file and dead letters. Symbolic links are removed, not followed.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == "lock" {
            continue;
        }
        let removed = match entry.file_type()?.is_dir() {
            true if entry.file_name() == dead_letters::FOLDER
                && dead_letters::is_worth_keeping(&entry.path()) =>
            {
                Ok(())
            }
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        absent_is_fine(removed)?;
    }
    Ok(())
}

/// Removes a swarm's folder whose lock is held: the lock file last. The name is free as soon as that is gone.
fn dismantle(dir: &Path) -> io::Result<()> {
    let emptied = insist(|| empty(dir));
    insist(|| absent_is_fine(fs::remove_file(dir.join("lock"))))?;
    emptied?;
    remove_unless_used(dir)?;
    dir.parent().map_or(Ok(()), remove_unless_used)
}

/// Removes a folder unless dead letters, or the next claimant, are in it.
fn remove_unless_used(dir: &Path) -> io::Result<()> {
    match insist(|| fs::remove_dir(dir)) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => absent_is_fine(removed),
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make_dir(path: &Path) -> Result<(), ClaimError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(ClaimError::System { doing: "making", path: path.to_owned(), error })
        }
        _ => check_dir(path),
    }
}

/// Verifies that a folder is a folder, this user's, and closed to others.
fn check_dir(path: &Path) -> Result<(), ClaimError> {
    let unsafe_because = |what: String| Err(ClaimError::Unsafe { path: path.to_owned(), what });
    let seen = fs::symlink_metadata(path).map_err(|error| ClaimError::System {
        doing: "looking at",
        path: path.to_owned(),
        error,
    })?;
    if seen.is_symlink() {
        return unsafe_because("it is a symbolic link; remove it".into());
    }
    if !seen.is_dir() {
        return unsafe_because("it is not a folder; remove it".into());
    }
    if seen.uid() != own_uid() {
        return unsafe_because(format!(
            "it belongs to user {}; set {VARIABLE} to a folder of your own",
            seen.uid()
        ));
    }
    if seen.mode() & 0o077 != 0 {
        let mode = seen.mode() & 0o7777;
        return unsafe_because(format!("others may enter it (mode {mode:04o}); run `chmod 700` on it"));
    }
    Ok(())
}

/// Why a folder cannot be the one for what this user runs.
fn unusable(folder: &Path) -> Option<String> {
    if !folder.is_absolute() {
        return Some("that is no absolute path".into());
    }
    match insist(|| fs::metadata(folder)) {
        // What is made in it tells the lack.
        Err(error) if is_passing(&error) => None,
        Err(error) => Some(format!("it cannot be used: {error}")),
        Ok(seen) if !seen.is_dir() => Some("that is not a folder".into()),
        Ok(seen) if seen.uid() != own_uid() => Some(of_another(seen.uid(), seen.gid())),
        Ok(_) => None,
    }
}

/// Root, too, speaks with others' swarms as their user only: what lies in their folders may have been put there for it.
fn of_another(uid: u32, gid: u32) -> String {
    let so = match own_uid() {
        0 => format!(" (its swarms hear `setpriv --reuid={uid} --regid={gid} --clear-groups shoal …`)"),
        _ => String::new(),
    };
    format!("it belongs to user {uid}, not to user {}{so}", own_uid())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests;
