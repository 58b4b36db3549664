//! One agent's log files read as one stream, over rotations.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::output::{FILES_MAX, LogFile};

/// Reads on where it stopped, whatever the files are called by then.
pub(super) struct Follower {
    dir: PathBuf,
    agent: String,
    /// The file that is being read. While it is open its inode means it and no other.
    file: Option<File>,
    begun: Vec<u8>,
}

impl Follower {
    /// Begins with the oldest file that is kept; there may be none yet.
    pub(super) fn new(dir: &Path, agent: &str) -> Follower {
        Follower { dir: dir.to_owned(), agent: agent.to_owned(), file: None, begun: Vec::new() }
    }

    /// The whole lines that came since the last call.
    ///
    /// # Errors
    /// The system's refusal to read a file.
    pub(super) fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = std::mem::take(&mut self.begun);
        loop {
            let next = self.next_file()?;
            // After the look for a successor: a file that has one gets no more, so this reads all of it.
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut bytes)?;
            }
            match next {
                Some(next) => self.file = Some(next),
                None => break,
            }
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.begun = bytes.split_off(whole);
        bytes.pop();
        let lines =
            if whole == 0 { Vec::new() } else { bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect() };
        Ok(lines)
    }

    /// The same, and a line that was not ended: nothing more comes.
    ///
    /// # Errors
    /// As `read`.
    pub(super) fn finish(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = self.read()?;
        if !self.begun.is_empty() {
            lines.push(std::mem::take(&mut self.begun));
        }
        Ok(lines)
    }

    /// The file after the one that is being read, if there is one: the next younger in the row; the oldest if ours
    /// has left the row, or there is none yet.
    fn next_file(&self) -> io::Result<Option<File>> {
        let Some(file) = &self.file else { return self.oldest() };
        let seen = file.metadata()?;
        let ours = (seen.dev(), seen.ino());
        loop {
            let Some(age) = self.age_of(ours) else {
                // Rotated out: what is left is younger. But without a youngest the folder is being removed, and what is left
                // of it was read already.
                return if self.path(0).exists() { self.oldest() } else { Ok(None) };
            };
            if age == 0 {
                return Ok(None);
            }
            let next = self.open(age - 1)?;
            // A rotation in between would have made that name a younger file's.
            if self.age_of(ours) != Some(age) {
                continue;
            }
            return Ok(next);
        }
    }

    fn age_of(&self, ours: (u64, u64)) -> Option<usize> {
        (0..FILES_MAX).find(|age| {
            std::fs::symlink_metadata(self.path(*age)).is_ok_and(|seen| (seen.dev(), seen.ino()) == ours)
        })
    }

    fn oldest(&self) -> io::Result<Option<File>> {
        for age in (0..FILES_MAX).rev() {
            if let Some(file) = self.open(age)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn open(&self, age: usize) -> io::Result<Option<File>> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(self.path(age)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, age: usize) -> PathBuf {
        LogFile::path_of(&self.dir, &self.agent, age)
    }
}
