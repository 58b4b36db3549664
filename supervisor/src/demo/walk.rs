//! The walk: everything below a folder, in one order that never depends on the file system.
//! Not here: reading the files (`count`).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, statat};

use super::{by_bytes, open, shown};

/// Folders that the default walk (no DIR given) leaves out, at every depth.
const BUILD_FOLDERS: [&[u8]; 2] = [b"target", b".git"];

/// The entries below one folder, sorted by the bytes of their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The folder, absolute, so that processes with another working directory name the same files.
    pub dir: PathBuf,
    /// Everything found, except the folders that could be listed.
    pub entries: Vec<Entry>,
}

impl Walk {
    /// Returns the files: the demo's work, in order.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Seen)> {
        self.entries.iter().filter_map(|entry| Some((entry.path.as_path(), entry.file()?)))
    }
}

/// One thing in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the walked folder; any bytes but NUL.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// What the walk saw of it, if it is a file.
    pub fn file(&self) -> Option<Seen> {
        match self.kind {
            Kind::File(seen) => Some(seen),
            Kind::Skipped(_) | Kind::Unreadable(_) => None,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, to be counted.
    File(Seen),
    /// Nothing to be read, with the reason: a symbolic link, FIFO, socket or device.
    Skipped(String),
    /// A folder that could not be listed, or a name that could not be looked up, with the reason.
    Unreadable(String),
}

/// What the walk saw of a file; if it is different later, the file is `changed`.
#[shoal_agent::message]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The time of the last change in nanoseconds since 1970. It wraps in the year 2262 and is compared
    /// for equality only.
    pub mtime_ns: i64,
}

impl Seen {
    /// Takes size and time from what the kernel says of a file.
    pub(super) fn of(stat: &Stat) -> Seen {
        #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
        let (size_bytes, seconds, ns) =
            (stat.st_size as u64, stat.st_mtime as i64, stat.st_mtime_nsec as i64);
        Seen { size_bytes, mtime_ns: seconds.wrapping_mul(1_000_000_000).wrapping_add(ns) }
    }

    /// What is to be seen of a file now; `None` if there is none.
    pub(super) fn now(path: &Path) -> Option<Seen> {
        let opened = open::open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let stat = rustix::fs::fstat(opened).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| Seen::of(&stat))
    }
}

/// Lists everything below `dir`. Symbolic links are not followed (except `dir` itself), and nothing but
/// folders is opened. With `skip_build_folders` (no DIR was given) folders named `target` or `.git` are
/// left out.
///
/// # Errors
/// If `dir` does not exist, is no folder, or cannot be listed. What cannot be read below it is an entry.
pub fn walk(dir: &Path, skip_build_folders: bool) -> io::Result<Walk> {
    let steps = Steps::behind(dir, skip_build_folders, Place::default())?;
    let (dir, mut entries) = (steps.dir.clone(), Vec::from_iter(steps));
    // A folder that cannot be listed is met where its contents would be.
    entries.sort_by(|a, b| by_bytes(&a.path, &b.path));
    Ok(Walk { dir, entries })
}

/// How many bytes of a path a place keeps: any path that the kernel takes in one call.
const PLACE_BYTES_MAX: usize = 4096;

/// How far a walk has come: small enough for an agent's state, and enough to go on behind it.
#[shoal_agent::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The path of the last file, its first 4096 bytes.
    path: Vec<u8>,
    /// How many files with just these first bytes there were: more than one only if they are 4096.
    count: u64,
}

impl Place {
    /// Moves behind the next file.
    pub fn pass(&mut self, path: &Path) {
        let path = kept(path.as_os_str().as_bytes());
        if self.path == path {
            self.count += 1;
        } else {
            *self = Place { path: path.to_vec(), count: 1 };
        }
    }

    /// Whether what has this key, and everything below it, lies before this place.
    fn is_behind(&self, key: &[u8]) -> bool {
        let key = kept(key);
        let holds_the_place = key.ends_with(b"/") && self.path.starts_with(key);
        key < &self.path[..] && !holds_the_place
    }
}

fn kept(path: &[u8]) -> &[u8] {
    &path[..path.len().min(PLACE_BYTES_MAX)]
}

/// A walk that lists a folder when it comes to it. It yields files in the order of the bytes of their paths.
pub struct Steps {
    dir: PathBuf,
    skip_build_folders: bool,
    from: Place,
    /// What lies ahead, the next one last.
    ahead: Vec<(Vec<u8>, Ahead)>,
}

enum Ahead {
    Entry(Kind),
    Folder,
}

impl Steps {
    /// A walk as [`walk`] makes it, that begins behind the last file that `from` has passed.
    ///
    /// # Errors
    /// As [`walk`].
    pub fn behind(dir: &Path, skip_build_folders: bool, from: Place) -> io::Result<Steps> {
        let dir = std::fs::canonicalize(dir).map_err(|error| cannot_walk(dir, &error))?;
        let mut steps = Steps { dir, skip_build_folders, from, ahead: Vec::new() };
        let root = open_folder(&steps.dir).and_then(|root| steps.list(b"", root));
        root.map_err(|error| cannot_walk(&steps.dir, &error))?;
        Ok(steps)
    }

    /// Puts what is directly in a folder ahead; what was found stays if a later part cannot be read.
    fn list(&mut self, folder: &[u8], opened: OwnedFd) -> io::Result<()> {
        // A name can be listed twice when the folder changes meanwhile.
        let mut names = BTreeSet::new();
        let mut listing = Dir::new(opened)?;
        let mut listed = Ok(());
        while let Some(name) = listing.read() {
            match name {
                Ok(name) => names.insert(name.file_name().to_owned()),
                Err(error) => {
                    listed = Err(io::Error::from(error));
                    break;
                }
            };
        }
        let begin = self.ahead.len();
        for name in names.iter().filter(|name| ![c".", c".."].contains(&name.as_c_str())) {
            let key = [folder, name.to_bytes()].concat();
            // The one that is in neither case ahead needs no look.
            if self.from.is_behind(&key) && self.from.is_behind(&[&key[..], b"/"].concat()) {
                continue;
            }
            let stat = statat(listing.fd()?.as_fd(), name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
            self.put_ahead(key, name.to_bytes(), stat);
        }
        // A folder stands where its contents do: behind `a.b`, because of the slash.
        self.ahead[begin..].sort_by(|(a, _), (b, _)| b.cmp(a));
        listed
    }

    fn put_ahead(&mut self, mut key: Vec<u8>, name: &[u8], stat: rustix::io::Result<Stat>) {
        let ahead = match stat {
            Err(error) => Ahead::Entry(Kind::Unreadable(io::Error::from(error).to_string())),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ahead::Entry(Kind::File(Seen::of(&stat))),
                FileType::Directory if self.skip_build_folders && BUILD_FOLDERS.contains(&name) => return,
                FileType::Directory => {
                    key.push(b'/');
                    Ahead::Folder
                }
                other => Ahead::Entry(Kind::Skipped(name_of(other).to_owned())),
            },
        };
        if !self.from.is_behind(&key) {
            self.ahead.push((key, ahead));
        }
    }

    /// Whether a file at the very place was passed already.
    fn was_passed(&mut self, path: &[u8]) -> bool {
        let passed = self.from.count > 0 && kept(path) == self.from.path;
        self.from.count -= u64::from(passed);
        passed
    }
}

impl Iterator for Steps {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        // A stack of its own: the depth of a tree is bounded by the disk, the call stack is not as large.
        while let Some((mut key, ahead)) = self.ahead.pop() {
            let kind = match ahead {
                Ahead::Entry(Kind::File(_)) if self.was_passed(&key) => continue,
                Ahead::Entry(kind) => kind,
                Ahead::Folder => {
                    // Without the slash, which would follow a symbolic link.
                    let folder = self.dir.join(OsStr::from_bytes(&key[..key.len() - 1]));
                    match open_folder(&folder).and_then(|opened| self.list(&key, opened)) {
                        Ok(()) => continue,
                        Err(error) => {
                            key.pop();
                            Kind::Unreadable(error.to_string())
                        }
                    }
                }
            };
            return Some(Entry { path: PathBuf::from(OsString::from_vec(key)), kind });
        }
        None
    }
}

/// Returns the word for what is no regular file.
pub(super) fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "of an unknown kind",
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(open::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?)
}

fn cannot_walk(dir: &Path, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist; name an existing folder",
        io::ErrorKind::NotADirectory => "it is not a folder; name a folder",
        io::ErrorKind::PermissionDenied => "this user may not list it",
        _ => "it cannot be listed",
    };
    io::Error::new(error.kind(), format!("cannot walk {}: {advice} ({error})", shown(dir)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests;
