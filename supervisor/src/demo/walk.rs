//! The walk: everything below a folder, in one order that never depends on the file system.
//! Not here: keeping the list (`walk_file`) and reading the files (`count`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
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
    /// Returns the files with their entry index: the demo's work, in order.
    pub fn files(&self) -> impl Iterator<Item = (u64, &Path, Seen)> {
        self.entries.iter().zip(0..).filter_map(|(entry, index)| match entry.kind {
            Kind::File(seen) => Some((index, entry.path.as_path(), seen)),
            Kind::Skipped(_) | Kind::Unreadable(_) => None,
        })
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
}

/// Lists everything below `dir`. Symbolic links are not followed (except `dir` itself), and nothing but
/// folders is opened. With `skip_build_folders` (no DIR was given) folders named `target` or `.git` are
/// left out.
///
/// # Errors
/// If `dir` does not exist, is no folder, or cannot be listed. What cannot be read below it is an entry.
pub fn walk(dir: &Path, skip_build_folders: bool) -> io::Result<Walk> {
    let dir = std::fs::canonicalize(dir).map_err(|error| cannot_walk(dir, &error))?;
    let root = open_folder(&dir).map_err(|error| cannot_walk(&dir, &error))?;
    let mut listing = Listing { skip_build_folders, entries: Vec::new(), folders: Vec::new() };
    listing.list(Path::new(""), root).map_err(|error| cannot_walk(&dir, &error))?;
    // A stack of its own: the depth of a tree is bounded by the disk, the call stack is not as large.
    while let Some(folder) = listing.folders.pop() {
        let listed = open_folder(&dir.join(&folder)).and_then(|opened| listing.list(&folder, opened));
        if let Err(error) = listed {
            listing.entries.push(Entry { path: folder, kind: Kind::Unreadable(error.to_string()) });
        }
    }
    let mut entries = listing.entries;
    entries.sort_by(|a, b| by_bytes(&a.path, &b.path));
    // A name can be listed twice when the folder changes meanwhile.
    entries.dedup_by(|later, first| later.path == first.path);
    Ok(Walk { dir, entries })
}

struct Listing {
    skip_build_folders: bool,
    entries: Vec<Entry>,
    /// Folders still to be listed.
    folders: Vec<PathBuf>,
}

impl Listing {
    /// Adds what is directly in `folder`; what was added stays if a later part cannot be read.
    fn list(&mut self, folder: &Path, opened: OwnedFd) -> io::Result<()> {
        let mut names = Dir::new(opened)?;
        while let Some(name) = names.read() {
            let name = name?;
            let name = name.file_name();
            if name != c"." && name != c".." {
                let stat = statat(names.fd()?.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
                self.add(folder, name.to_bytes(), stat);
            }
        }
        Ok(())
    }

    fn add(&mut self, folder: &Path, name: &[u8], stat: rustix::io::Result<Stat>) {
        let path = folder.join(OsStr::from_bytes(name));
        let kind = match stat {
            Err(error) => Kind::Unreadable(io::Error::from(error).to_string()),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::File(Seen::of(&stat)),
                FileType::Directory => {
                    if !(self.skip_build_folders && BUILD_FOLDERS.contains(&name)) {
                        self.folders.push(path);
                    }
                    return;
                }
                other => Kind::Skipped(name_of(other).to_owned()),
            },
        };
        self.entries.push(Entry { path, kind });
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
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn by_name(walk: &Walk) -> BTreeMap<Vec<u8>, Kind> {
        walk.entries.iter().map(|e| (e.path.as_os_str().as_bytes().to_vec(), e.kind.clone())).collect()
    }

    #[test]
    fn odd_names_are_files_in_byte_order() {
        let dir = tempfile::tempdir().unwrap();
        let names: [&[u8]; 8] =
            [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"a-b", b"a/b", b"a.b", b"\\\"'\x01"];
        fs::create_dir(dir.path().join("a")).unwrap();
        for name in names {
            fs::write(dir.path().join(OsString::from_vec(name.to_vec())), name).unwrap();
        }
        let walked = walk(dir.path(), false).unwrap();
        let found: Vec<_> = walked.entries.iter().map(|e| e.path.as_os_str().as_bytes()).collect();
        let mut expected = names.to_vec();
        expected.sort();
        assert_eq!(found, expected);
        for (entry, name) in walked.entries.iter().zip(expected) {
            assert!(
                matches!(entry.kind, Kind::File(Seen { size_bytes, .. }) if size_bytes == name.len() as u64)
            );
        }
    }

    #[test]
    fn links_fifos_sockets_and_devices_are_skipped_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink(".", at("loop")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let found = by_name(&walk(dir.path(), false).unwrap());
        let skipped = |name: &str| found[name.as_bytes()].clone();
        assert_eq!(found.len(), 4);
        assert_eq!(skipped("loop"), Kind::Skipped("symbolic link".into()));
        assert_eq!(skipped("dangling"), Kind::Skipped("symbolic link".into()));
        assert_eq!(skipped("fifo"), Kind::Skipped("FIFO".into()));
        assert_eq!(skipped("socket"), Kind::Skipped("socket".into()));
        let devices = by_name(&walk(Path::new("/dev"), false).unwrap());
        assert_eq!(devices[b"null".as_slice()], Kind::Skipped("character device".into()));
    }

    #[test]
    fn default_walk_leaves_out_folders_named_target_or_git_and_a_named_one_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["target", "sub/.git", "targets"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("file"), "x").unwrap();
        }
        fs::write(dir.path().join("sub/target"), "a file of that name is no folder").unwrap();
        let names = |skip| by_name(&walk(dir.path(), skip).unwrap()).into_keys().collect::<Vec<_>>();
        assert_eq!(names(true), [b"sub/target".to_vec(), b"targets/file".to_vec()]);
        assert_eq!(names(false).len(), 4);
    }

    #[test]
    fn missing_folder_and_a_file_in_its_place_are_clear_errors() {
        let dir = tempfile::tempdir().unwrap();
        let error = walk(&dir.path().join("gone"), false).unwrap_err().to_string();
        assert!(error.contains("gone: it does not exist"), "{error}");
        fs::write(dir.path().join("file"), "x").unwrap();
        let error = walk(&dir.path().join("file"), false).unwrap_err().to_string();
        assert!(error.contains("file: it is not a folder"), "{error}");
    }

    #[test]
    fn folder_that_may_not_be_listed_is_unreadable() {
        if nix::unistd::geteuid().is_root() {
            return; // root may list everything; `count` tests an unreadable kind that root cannot read either
        }
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let found = by_name(&walk(dir.path(), false).unwrap());
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(&found[b"closed".as_slice()], Kind::Unreadable(why) if why.contains("denied")));
    }

    /// Goal: neither the call stack nor `PATH_MAX` bounds the depth. Method: 3000 folders in each other,
    /// made relative to descriptors, path of 33,000 bytes; the file at the bottom is counted too.
    #[test]
    fn tree_deeper_than_a_path_may_be_long_is_walked_and_counted() {
        use rustix::fs::{Mode, mkdirat, openat};
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open_folder(dir.path()).unwrap();
        for _ in 0..3000 {
            mkdirat(&folder, "0123456789", Mode::RWXU).unwrap();
            folder =
                openat(&folder, "0123456789", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        }
        let bottom = openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&bottom, b"two words\n").unwrap();
        let walked = walk(dir.path(), false).unwrap();
        assert_eq!(walked.entries.len(), 1);
        let (_, path, seen) = walked.files().next().unwrap();
        let outcome = crate::demo::count(&walked.dir.join(path), seen);
        assert!(
            matches!(outcome, crate::demo::Outcome::Counted { words: 2, bytes: 10, changed: false, .. }),
            "{outcome:?}"
        );
    }
}
