//! Keeping a walk in a file: a killed lister's successor resumes at entry k of exactly the same list.
//!
//! ```text
//!   "SHOALWK1" · folder · number of entries (u64) · entries
//!   entry: path · kind (u8: 0 file, 1 skipped, 2 unreadable) · file: size (u64), mtime (u64); else: reason
//!   folder, path, reason: length (u32) and bytes.   Little-endian.
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::codec::{Input, invalid, put_bytes, put_u64};
use super::walk::{Entry, Kind, Seen, Walk};

const MAGIC: &[u8; 8] = b"SHOALWK1";

/// Writes the walk to `path`: to a temporary name in the same folder first, then renamed over it, so that
/// a reader finds the whole list or none.
///
/// # Errors
/// Those of the file system, with the path.
///
/// # If we die here
/// A file named `.tmp…` is left beside `path`; the run's temporary folder takes it along.
pub fn save(walk: &Walk, path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(&encode(walk))?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).map_err(|error| with_path("write", path, &error))
}

/// Reads back what [`save`] wrote.
///
/// # Errors
/// `NotFound` if there is none yet; `InvalidData` if it is not a whole list; each with the path.
pub fn load(path: &Path) -> io::Result<Walk> {
    fs::read(path).and_then(|bytes| decode(&bytes)).map_err(|error| with_path("read", path, &error))
}

/// Returns the walk as bytes.
pub fn encode(walk: &Walk) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_bytes(&mut out, walk.dir.as_os_str().as_bytes());
    put_u64(&mut out, walk.entries.len() as u64);
    for entry in &walk.entries {
        put_bytes(&mut out, entry.path.as_os_str().as_bytes());
        match &entry.kind {
            Kind::File(seen) => {
                out.push(0);
                put_u64(&mut out, seen.size_bytes);
                put_u64(&mut out, seen.mtime_ns.cast_unsigned());
            }
            Kind::Skipped(reason) => {
                out.push(1);
                put_bytes(&mut out, reason.as_bytes());
            }
            Kind::Unreadable(reason) => {
                out.push(2);
                put_bytes(&mut out, reason.as_bytes());
            }
        }
    }
    out
}

/// Returns the walk that [`encode`] made the bytes of.
///
/// # Errors
/// `InvalidData` for any other bytes.
pub fn decode(bytes: &[u8]) -> io::Result<Walk> {
    let mut input = Input(bytes);
    if input.array()? != *MAGIC {
        return Err(invalid("it is not a list of this version's walk"));
    }
    let dir = path_of(input.bytes()?);
    let count = input.u64()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let path = path_of(input.bytes()?);
        let kind = match input.u8()? {
            0 => Kind::File(Seen { size_bytes: input.u64()?, mtime_ns: input.u64()?.cast_signed() }),
            1 => Kind::Skipped(input.text()?),
            2 => Kind::Unreadable(input.text()?),
            _ => return Err(invalid("an entry is of an unknown kind")),
        };
        entries.push(Entry { path, kind });
    }
    input.end()?;
    Ok(Walk { dir, entries })
}

pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

pub(super) fn with_path(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", super::shown(path)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_walk() -> impl Strategy<Value = Walk> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| path_of(&b));
        let kind = prop_oneof![
            (any::<u64>(), any::<i64>())
                .prop_map(|(size_bytes, mtime_ns)| Kind::File(Seen { size_bytes, mtime_ns })),
            "\\PC*".prop_map(Kind::Skipped),
            "\\PC*".prop_map(Kind::Unreadable),
        ];
        let entry = (bytes(), kind).prop_map(|(path, kind)| Entry { path, kind });
        (bytes(), prop::collection::vec(entry, 0..20)).prop_map(|(dir, entries)| Walk { dir, entries })
    }

    proptest! {
        #[test]
        fn list_comes_back_exactly_and_no_beginning_of_it_is_taken_for_whole(walk in any_walk(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&walk);
            prop_assert_eq!(decode(&bytes).unwrap(), walk);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
        }

        #[test]
        fn random_bytes_never_crash_the_reader(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            bytes.splice(0..0, *MAGIC);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn saved_list_replaces_the_former_one_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("list");
        let first = Walk { dir: "/a".into(), entries: vec![] };
        let second = Walk { dir: "/b".into(), entries: vec![] };
        assert_eq!(load(&at).unwrap_err().kind(), io::ErrorKind::NotFound);
        save(&first, &at).unwrap();
        save(&second, &at).unwrap();
        assert_eq!(load(&at).unwrap(), second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
