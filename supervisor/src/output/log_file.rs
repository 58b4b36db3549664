//! One agent's log files: appended to, rotated by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{FILE_BYTES_MAX, FILES_MAX};

/// After how much that was written without a fault another one is news, bytes: on a full disk what is short still finds room at times.
const SOUND_BYTES: usize = 64 << 10;
/// What is held on to of the room for what is not written yet, bytes.
const UNWRITTEN_KEPT_BYTES: usize = 1 << 10;

/// `<agent>.log`, and `.log.1` (younger) to `.log.3` (older). A record lies in one file, whole.
pub struct LogFile {
    path: PathBuf,
    /// Opened with the first record.
    file: Option<File>,
    written_bytes: u64,
    unwritten: Vec<u8>,
    unwritten_count: u64,
    lost_count: u64,
    last_error: Option<io::Error>,
    /// The last try failed; whether anybody was told of that, and how much was written since.
    failing: bool,
    told: bool,
    sound_bytes: usize,
}

impl LogFile {
    /// The files of an agent in a folder; none is made before there is something to write.
    pub fn new(dir: &Path, agent: &str) -> LogFile {
        LogFile::at(LogFile::path_of(dir, agent, 0))
    }

    /// The files at a path, and beside it; none is made before there is something to write.
    pub fn at(path: PathBuf) -> LogFile {
        LogFile {
            path,
            file: None,
            written_bytes: 0,
            unwritten: Vec::new(),
            unwritten_count: 0,
            lost_count: 0,
            last_error: None,
            failing: false,
            told: false,
            sound_bytes: 0,
        }
    }

    /// Where an agent's log is: 0 the one that is written, 1 the one before it.
    pub fn path_of(dir: &Path, agent: &str, age: usize) -> PathBuf {
        match age {
            0 => dir.join(format!("{agent}.log")),
            age => dir.join(format!("{agent}.log.{age}")),
        }
    }

    /// Whose log a file of this name is, if it is one.
    pub fn agent_of(file: &str) -> Option<&str> {
        let aged = || file.rsplit_once('.').filter(|(_, age)| age.parse::<usize>().is_ok());
        file.strip_suffix(".log").or_else(|| aged()?.0.strip_suffix(".log"))
    }

    pub(super) fn faults(&self) -> (u64, Option<&io::Error>) {
        (self.lost_count, self.last_error.as_ref())
    }

    /// Why nothing can be written, once for each time that it begins to fail after it went well for a while.
    pub fn take_fault(&mut self) -> Option<String> {
        if !self.failing || std::mem::replace(&mut self.told, true) {
            return None;
        }
        let why = self.last_error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        Some(format!("{} cannot be written{why}; make room there, what is lost is lost", self.path.display()))
    }

    /// Adds a record; written with `write_out`, or before when the file is full.
    pub fn append(&mut self, record: &[u8]) {
        if self.file.is_none() {
            self.open();
        }
        let total = self.written_bytes + (self.unwritten.len() + record.len()) as u64;
        if total > FILE_BYTES_MAX && self.written_bytes + self.unwritten.len() as u64 > 0 {
            self.write_out();
            self.rotate();
        }
        self.unwritten.extend_from_slice(record);
        self.unwritten_count += 1;
    }

    /// Writes what was appended. What the disk refuses is counted and given up: a full disk stops no swarm.
    pub fn write_out(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let written = match &mut self.file {
            Some(file) => file.write_all(&self.unwritten),
            None => Err(io::ErrorKind::NotFound.into()), // `open` noted why
        };
        match written {
            Ok(()) => {
                self.written_bytes += self.unwritten.len() as u64;
                self.failing = false;
                self.sound_bytes = self.sound_bytes.saturating_add(self.unwritten.len());
                self.told &= self.sound_bytes < SOUND_BYTES;
            }
            Err(error) => {
                self.lost_count += self.unwritten_count;
                (self.failing, self.sound_bytes) = (true, 0);
                if let Some(file) = self.file.take() {
                    self.last_error = Some(error);
                    // What fitted is half a record: it would run into the next one.
                    let before = file.metadata().map_or(0, |seen| seen.len().min(self.written_bytes));
                    let _ = file.set_len(before);
                }
            }
        }
        self.unwritten.clear();
        self.unwritten.shrink_to(UNWRITTEN_KEPT_BYTES);
        self.unwritten_count = 0;
    }

    fn open(&mut self) {
        match open(&self.path) {
            Ok((file, len_bytes)) => {
                self.file = Some(file);
                self.written_bytes = len_bytes;
            }
            Err(error) => self.last_error = Some(error),
        }
    }

    /// # If we die here
    /// A name is missing in the row; readers skip it, the next rotation closes the gap.
    fn rotate(&mut self) {
        for age in (0..FILES_MAX - 1).rev() {
            let _ = std::fs::rename(self.aged(age), self.aged(age + 1));
        }
        self.file = None;
        self.written_bytes = 0;
        self.open();
    }

    fn aged(&self, age: usize) -> PathBuf {
        if age == 0 {
            return self.path.clone();
        }
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{age}"));
        path.into()
    }
}

/// Opens for appending; a symbolic link or a pipe of this name is refused, not followed and not waited for.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let seen = file.metadata()?;
    if !seen.is_file() {
        return Err(io::Error::other(format!("{} is not a plain file", path.display())));
    }
    Ok((file, seen.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends a record of so many bytes, on a disk that is full or is not; whether that is told.
    fn told(log: &mut LogFile, full: bool, bytes: usize) -> bool {
        if full {
            log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        }
        log.append(&vec![b'x'; bytes]);
        log.write_out();
        log.take_fault().is_some()
    }

    #[test]
    fn disk_that_stays_full_is_told_once_though_short_lines_find_room_and_again_after_it_had_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(folder.path(), "a");
        assert!(!told(&mut log, false, 10));
        assert!(told(&mut log, true, 1000));
        for _ in 0..3 {
            assert!(!told(&mut log, false, 10));
            assert!(!told(&mut log, true, 1000));
        }
        assert_eq!(log.faults().0, 4);
        for _ in 0..SOUND_BYTES / 1000 + 1 {
            assert!(!told(&mut log, false, 1000));
        }
        assert!(told(&mut log, true, 1000));
    }

    #[test]
    fn file_is_known_as_a_log_of_its_agent() {
        for (file, agent) in [
            ("a.log", Some("a")),
            ("a.2.log", Some("a.2")),
            ("a.2.log.3", Some("a.2")),
            ("a.log.old", None),
            ("events.jsonl.1", None),
        ] {
            assert_eq!(LogFile::agent_of(file), agent, "{file}");
        }
    }
}
