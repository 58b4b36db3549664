//! A shelf: numbered files in one folder, bounded in number and bytes. Dead letters and crash reports lie on one each.
//!
//! A file is written whole under another name and then renamed: it is there or it is not. Numbers go up and none is used twice
//! while the shelf is open. What is too much goes oldest first.

use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Bounds {
    /// The most files.
    pub count: u32,
    /// The most bytes of them together.
    pub bytes: u64,
}

/// An open shelf.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    extension: &'static str,
    bounds: Bounds,
    next: u64,
    /// Bytes of each file.
    sizes: BTreeMap<u64, u64>,
}

impl Shelf {
    /// The files of an extension in a folder, which need not exist; half-written ones are swept.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(folder: &Path, extension: &'static str, bounds: Bounds) -> io::Result<Shelf> {
        for path in entries(folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "new")) {
            fs::remove_file(path)?;
        }
        let sizes = sizes(folder, extension)?;
        let next = sizes.keys().next_back().map_or(1, |last| last + 1);
        Ok(Shelf { folder: folder.to_owned(), extension, bounds, next, sizes })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much is kept.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The number of the next file.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes on from what a predecessor of this process knew, and from what it left in the folder.
    pub fn restore_next(&mut self, next: u64) {
        self.sizes = sizes(&self.folder, self.extension).unwrap_or_default();
        let there = self.sizes.keys().next_back().map_or(1, |last| last + 1);
        self.next = self.next.max(next).max(there);
    }

    /// Uses a number up, whatever becomes of its file.
    pub fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Puts a file on the shelf; returns the numbers of those that made room for it. With an error it is not there.
    ///
    /// # If we die here
    /// The file is there or it is not. A dropped one may be gone without the new one being there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn put(&mut self, id: u64, parts: &[&[u8]]) -> io::Result<Vec<u64>> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let dropped = self.make_room(bytes)?;
        self.write(&format!("{id}.{}", self.extension), parts)?;
        self.next = self.next.max(id + 1);
        self.sizes.insert(id, bytes);
        Ok(dropped)
    }

    /// Drops the oldest until one of so many bytes fits.
    fn make_room(&mut self, bytes: u64) -> io::Result<Vec<u64>> {
        if self.has_room(bytes) {
            return Ok(Vec::new());
        }
        // An operator may have removed some.
        self.sizes = sizes(&self.folder, self.extension)?;
        let mut dropped = Vec::new();
        while !self.has_room(bytes) {
            let Some((oldest, _)) = self.sizes.pop_first() else { break };
            if remove(&self.folder, self.extension, oldest)? {
                dropped.push(oldest);
            }
        }
        Ok(dropped)
    }

    fn has_room(&self, bytes: u64) -> bool {
        let kept: u64 = self.sizes.values().sum();
        self.sizes.len() < self.bounds.count as usize
            && (self.sizes.is_empty() || kept.saturating_add(bytes) <= self.bounds.bytes)
    }

    /// Writes a file of any name into the folder, which is made if it is not there.
    ///
    /// # Errors
    /// The system's refusal; then there is no such file, or the one of before.
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        written.and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }
}

/// Removes a file; false if there is none of this number.
///
/// # Errors
/// The system's refusal.
pub fn remove(folder: &Path, extension: &str, id: u64) -> io::Result<bool> {
    match fs::remove_file(path_of(folder, extension, id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Opens a file for reading, with its path; `None` if there is none of this number. A link or a pipe of this name is refused,
/// not followed and not waited for.
///
/// # Errors
/// The system's refusal.
pub fn open(folder: &Path, extension: &str, id: u64) -> io::Result<Option<(File, PathBuf)>> {
    let path = path_of(folder, extension, id);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(|file| Some((file, path))),
    }
}

/// The numbers of the files of an extension in a folder, oldest first, and their bytes; none if there is no folder.
///
/// # Errors
/// The system's refusal.
pub fn sizes(folder: &Path, extension: &str) -> io::Result<BTreeMap<u64, u64>> {
    let mut sizes = BTreeMap::new();
    for path in entries(folder)? {
        let number = path
            .extension()
            .filter(|e| *e == extension)
            .and_then(|_| path.file_stem()?.to_str()?.parse().ok());
        let Some(id) = number else { continue };
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            seen => _ = sizes.insert(id, seen?.len()),
        }
    }
    Ok(sizes)
}

fn path_of(folder: &Path, extension: &str, id: u64) -> PathBuf {
    folder.join(format!("{id}.{extension}"))
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(folder: &Path, count: u32, bytes: u64) -> Shelf {
        Shelf::open(folder, "page", Bounds { count, bytes }).expect("a shelf")
    }

    #[test]
    fn the_oldest_make_room_by_number_and_by_bytes_and_no_number_is_used_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shelf_ = shelf(folder.path(), 3, 100);
        for size in [10, 10, 10, 10] {
            let id = shelf_.next();
            shelf_.put(id, &[&vec![b'x'; size]]).expect("written");
        }
        let there = |path: &Path| sizes(path, "page").expect("read").into_keys().collect::<Vec<_>>();
        assert_eq!(there(folder.path()), [2, 3, 4], "three at most");
        assert_eq!(shelf_.put(5, &[&[0; 85]]).expect("written"), [2, 3], "100 bytes at most");
        assert_eq!(shelf_.take_number(), 6);
        assert_eq!(shelf_.put(7, &[&[0; 500]]).expect("written"), [4, 5], "one is kept, however large");
        assert_eq!(there(folder.path()), [7]);
        fs::write(folder.path().join("8.page.new"), "half").expect("written");
        assert_eq!(shelf(folder.path(), 3, 100).next(), 8);
        assert!(!folder.path().join("8.page.new").exists(), "half-written ones are swept");
    }

    #[test]
    fn what_cannot_be_written_is_not_there_and_an_older_one_of_the_name_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shelf_ = shelf(folder.path(), 3, 100);
        shelf_.put(1, &[b"whole"]).expect("written");
        fs::create_dir(folder.path().join("1.page.new")).expect("a folder in the way");
        assert!(shelf_.put(1, &[b"other"]).is_err());
        assert_eq!(fs::read(folder.path().join("1.page")).expect("read"), b"whole");
    }
}
