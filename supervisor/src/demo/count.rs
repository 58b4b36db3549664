//! One file's lines, words, bytes and SHA-256, in one pass and constant memory.
//! Not here: which files there are (`walk`).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};
use sha2::{Digest, Sha256};

use super::open;
use super::walk::{Seen, name_of};

/// How much is read at once, in bytes. Half of the size from which malloc asks the kernel anew every time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What became of one file.
#[shoal_agent::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was read to its end.
    Counted {
        /// Bytes read.
        bytes: u64,
        /// Newlines, as `wc -l` counts them.
        lines: u64,
        /// Words, as `LC_ALL=C wc -w` counts them.
        words: u64,
        /// SHA-256 of the bytes read.
        sha256: [u8; 32],
        /// Size or time were not what the walk saw, before or after the reading.
        changed: bool,
    },
    /// It could not be read.
    Unreadable {
        /// Why.
        reason: String,
        /// It is no longer the regular file that the walk saw: gone, or something else by now.
        changed: bool,
    },
}

impl Outcome {
    /// Says whether the file is not what the walk saw.
    pub fn changed(&self) -> bool {
        match self {
            Outcome::Counted { changed, .. } | Outcome::Unreadable { changed, .. } => *changed,
        }
    }
}

/// Counts files one after another with one buffer.
pub struct Counter {
    buffer: Box<[u8]>,
}

impl Default for Counter {
    fn default() -> Self {
        Counter { buffer: vec![0; CHUNK_BYTES].into_boxed_slice() }
    }
}

impl Counter {
    /// Reads the file at `path` and compares it with what the walk saw. It never blocks on a FIFO, follows
    /// no symbolic link at the end of the path, and every failure is an outcome.
    pub fn count(&mut self, path: &Path, seen: Seen) -> Outcome {
        self.try_count(path, seen).unwrap_or_else(|error| {
            // ENOENT and ENOTDIR: gone. ELOOP: a link now. ENXIO: a socket or a device without a driver.
            let gone = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ENXIO];
            let changed = error.raw_os_error().is_none_or(|number| gone.contains(&number));
            Outcome::Unreadable { reason: error.to_string(), changed }
        })
    }

    fn try_count(&mut self, path: &Path, seen: Seen) -> io::Result<Outcome> {
        // The name may mean something else by now: NONBLOCK opens a FIFO without waiting for its writer.
        let opened = open::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let before = fstat(&opened)?;
        let kind = FileType::from_raw_mode(before.st_mode);
        if kind != FileType::RegularFile {
            return Err(io::Error::other(format!("it was a regular file, it is now a {}", name_of(kind))));
        }
        let mut file = File::from(opened);
        let mut tally = Tally::default();
        let mut hash = Sha256::new();
        loop {
            let length = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            tally.add(&self.buffer[..length]);
            hash.update(&self.buffer[..length]);
        }
        let changed = Seen::of(&before) != seen || Seen::of(&fstat(&file)?) != seen;
        let Tally { bytes, lines, words, .. } = tally;
        Ok(Outcome::Counted { bytes, lines, words, sha256: hash.finalize().into(), changed })
    }
}

/// Counts one file; see [`Counter::count`].
pub fn count(path: &Path, seen: Seen) -> Outcome {
    Counter::default().count(path, seen)
}

/// The counts of `LC_ALL=C wc -lwc`, chunk by chunk.
///
/// The rule is that of GNU coreutils 9.1 (seen on this machine for every byte, and in its `wc.c`, where
/// `isprint` decides): white space (`\t \n \v \f \r` and the space) ends a word, a printable byte begins or
/// continues one, and any other byte (control bytes, NUL, DEL, 0x80 and up) does neither: `a\0b` is one
/// word, `\0` none. Since coreutils 9.5 (its NEWS: unprintable characters and encoding errors no longer
/// ignored) every byte that is not white space is part of a word; that rule is *not* implemented. Where the
/// machine's `wc` has it, the tests and `scripts/check-demo` compare the words of plain text only.
#[derive(Default)]
struct Tally {
    bytes: u64,
    lines: u64,
    words: u64,
    /// 1 inside a word, else 0.
    in_word: u8,
}

/// Bit 0: the byte belongs to a word. Bit 1: it leaves a word going.
const CLASS: [u8; 256] = {
    let mut class = [0b10; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte > 0x20 && byte < 0x7f {
            class[byte] = 0b11;
        } else if byte == 0x20 || (byte >= 0x09 && byte <= 0x0d) {
            class[byte] = 0b00;
        }
        byte += 1;
    }
    class
};

impl Tally {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.lines += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
        // No branch: on text the end of a word is not predictable, and a miss costs more than the loop.
        let (mut words, mut in_word) = (0_u64, self.in_word);
        for &byte in chunk {
            let class = CLASS[usize::from(byte)];
            words += u64::from(class & 1 & !in_word);
            in_word = (in_word & (class >> 1)) | (class & 1);
        }
        self.words += words;
        self.in_word = in_word;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn seen(path: &Path) -> Seen {
        Seen::of(&rustix::fs::lstat(path).unwrap())
    }

    fn tool(program: &str, arguments: &[&str], input: &Path) -> String {
        let output = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::from(File::open(input).unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Says whether this machine's `wc` follows the rule of coreutils 9.1.
    fn wc_begins_words_with_printable_bytes_only() -> bool {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\x80 \x01").unwrap();
        tool("wc", &["-w"], file.path()).trim() == "0"
    }

    fn assert_same_as_wc_and_sha256sum(content: &[u8]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let outcome = count(file.path(), seen(file.path()));
        let Outcome::Counted { bytes, lines, words, sha256, changed } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(!changed);
        let plain = content.iter().all(|b| (b' '..=b'~').contains(b) || b.is_ascii_whitespace());
        let wc = tool("wc", &["-lwc"], file.path());
        let wc: Vec<u64> = wc.split_whitespace().map(|number| number.parse().unwrap()).collect();
        if plain || wc_begins_words_with_printable_bytes_only() {
            assert_eq!([lines, words, bytes], wc[..], "of {:?}", &content[..content.len().min(200)]);
        } else {
            assert_eq!([lines, bytes], [wc[0], wc[2]]);
        }
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, tool("sha256sum", &[], file.path()).split_whitespace().next().unwrap());
    }

    #[test]
    fn odd_contents_count_as_wc_and_sha256sum_do() {
        let all: Vec<u8> = (0..=255).collect();
        let pairs: Vec<u8> = (0..=255).flat_map(|byte| [b'a', byte, b'b', b' ', byte, b' ']).collect();
        let contents: [&[u8]; 12] = [
            b"",
            b"\n",
            b" ",
            b"x",
            b"no newline at the end",
            b"a\0b",
            b"\0\0",
            b"a\r\nb\r\n",
            b"\xff",
            b"\xc3\xa9\n",
            &all,
            &pairs,
        ];
        for content in contents {
            assert_same_as_wc_and_sha256sum(content);
        }
    }

    #[test]
    fn file_of_many_chunks_counts_as_wc_and_sha256sum_do() {
        let mut state = 7_u64;
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        assert_same_as_wc_and_sha256sum(&random.take(3_000_001).collect::<Vec<_>>());
        // Words that begin, end and lie exactly at the chunks' borders.
        assert_same_as_wc_and_sha256sum(&b"word ".repeat(CHUNK_BYTES));
        assert_same_as_wc_and_sha256sum(&vec![b'x'; 3 * CHUNK_BYTES]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn random_bytes_count_as_wc_and_sha256sum_do(
            content in prop::collection::vec(prop_oneof![any::<u8>(), 0..=b' ', Just(b'a')], 0..300),
        ) {
            assert_same_as_wc_and_sha256sum(&content);
        }

        #[test]
        fn counts_do_not_depend_on_where_chunks_end(
            content in prop::collection::vec(prop_oneof![any::<u8>(), 0..=b' ', Just(b'a')], 0..100),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut whole, mut halves) = (Tally::default(), Tally::default());
            whole.add(&content);
            let (head, tail) = content.split_at(cut.index(content.len() + 1));
            halves.add(head);
            halves.add(tail);
            prop_assert_eq!((whole.lines, whole.words), (halves.lines, halves.words));
        }
    }

    #[test]
    fn file_of_another_size_or_time_than_seen_is_changed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"before").unwrap();
        let first = seen(file.path());
        assert!(!count(file.path(), first).changed());
        assert!(count(file.path(), Seen { mtime_ns: first.mtime_ns + 1, ..first }).changed());
        file.write_all(b" after").unwrap();
        assert!(matches!(count(file.path(), first), Outcome::Counted { words: 2, changed: true, .. }));
    }

    /// Goal: a change in the middle of the reading is seen. Method: a file that grows as long as it is read.
    #[test]
    fn file_that_changes_during_the_reading_is_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap(); // tens of milliseconds to hash
        let before = seen(file.path());
        let path = file.path().to_owned();
        let reading = std::thread::spawn(move || count(&path, before));
        std::thread::sleep(std::time::Duration::from_millis(5));
        fs::OpenOptions::new().append(true).open(file.path()).unwrap().write_all(b"x").unwrap();
        assert!(reading.join().unwrap().changed());
    }

    #[test]
    fn what_took_a_files_place_is_an_outcome_and_never_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["fifo", "socket", "link", "folder", "gone", "file/below"] {
            let outcome = count(&at(name), seen(&at("file")));
            assert!(matches!(outcome, Outcome::Unreadable { changed: true, .. }), "{name}: {outcome:?}");
        }
    }

    #[test]
    fn file_that_cannot_be_read_is_unreadable_with_the_reason() {
        // Not even root reads these: a regular file whose read fails (EIO or EINVAL at offset 0).
        let path = Path::new("/proc/self/mem");
        let outcome = count(path, seen(path));
        assert!(
            matches!(&outcome, Outcome::Unreadable { reason, changed: false } if reason.contains("os error")),
            "{outcome:?}"
        );
        if !nix::unistd::geteuid().is_root() {
            use std::os::unix::fs::PermissionsExt;
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o000)).unwrap();
            let outcome = count(file.path(), seen(file.path()));
            assert!(
                matches!(&outcome, Outcome::Unreadable { reason, changed: false } if reason.contains("denied"))
            );
        }
    }
}
