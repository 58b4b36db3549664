//! What the collector keeps: one record per entry, appended to a file before it acknowledges.
//!
//! ```text
//!   record: length of the body (u32) · checksum of length and body (u32) · body
//!   body:   entry index (u64) · path · kind (u8: 0 counted, 1 unreadable) · changed (u8)
//!           counted: bytes, lines, words (u64 each), SHA-256 (32) · unreadable: reason
//! ```
//! Killed in the middle of an append, a collector leaves a beginning of its last record: [`CollectedFile::open`]
//! cuts it off. Killed between append and acknowledgement, it gets the entry again and appends it twice: the
//! second is dropped on reload. Power loss is not covered.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::codec::{Input, invalid, put_bytes, put_u64};
use super::count::Outcome;
use super::sequential::FileResult;
use super::walk_file::{path_of, with_path};

/// The longest body, in bytes: far above any path. A longer one is damage, not a torn record.
const BODY_MAX: u32 = 16 << 20;
const HEAD_BYTES: usize = 8;

/// One entry's result on its way to, or at, the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The entry's index in the walk.
    pub index: u64,
    /// The file and what became of it.
    pub result: FileResult,
}

impl Collected {
    /// Returns the whole record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        put_u64(&mut body, self.index);
        put_bytes(&mut body, self.result.path.as_os_str().as_bytes());
        match &self.result.outcome {
            Outcome::Counted { bytes, lines, words, sha256, changed } => {
                body.extend_from_slice(&[0, u8::from(*changed)]);
                [bytes, lines, words].into_iter().for_each(|number| put_u64(&mut body, *number));
                body.extend_from_slice(sha256);
            }
            Outcome::Unreadable { reason, changed } => {
                body.extend_from_slice(&[1, u8::from(*changed)]);
                put_bytes(&mut body, reason.as_bytes());
            }
        }
        let length = u32::try_from(body.len()).ok().filter(|&length| length <= BODY_MAX);
        let length = length.expect("a path and a reason are far shorter than the limit").to_le_bytes();
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len());
        record.extend_from_slice(&length);
        record.extend_from_slice(&checksum(length, &body).to_le_bytes());
        record.extend_from_slice(&body);
        record
    }

    fn decode_body(body: &[u8]) -> io::Result<Collected> {
        let mut input = Input(body);
        let index = input.u64()?;
        let path = path_of(input.bytes()?);
        let (kind, changed) = (input.u8()?, input.bool()?);
        let outcome = match kind {
            0 => Outcome::Counted {
                bytes: input.u64()?,
                lines: input.u64()?,
                words: input.u64()?,
                sha256: input.array()?,
                changed,
            },
            1 => Outcome::Unreadable { reason: input.text()?, changed },
            _ => return Err(invalid("a record is of an unknown kind")),
        };
        input.end()?;
        Ok(Collected { index, result: FileResult { path, outcome } })
    }
}

/// What a file of records held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// The first record of every entry, in the order of the file.
    pub records: Vec<Collected>,
    /// Later records of an entry that already had one.
    pub doubled_count: u64,
    /// Bytes of the torn last record, cut off.
    pub torn_bytes: u64,
}

/// Returns the records in `bytes`.
///
/// # Errors
/// `InvalidData` if a whole record is damaged: an append that was cut short cannot do that.
pub fn decode(bytes: &[u8]) -> io::Result<Reload> {
    let mut reload = Reload::default();
    let mut known = HashSet::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((body, after)) = next_record(rest)? else {
            reload.torn_bytes = rest.len() as u64;
            break;
        };
        let record = Collected::decode_body(body)?;
        if known.insert(record.index) {
            reload.records.push(record);
        } else {
            reload.doubled_count += 1;
        }
        rest = after;
    }
    Ok(reload)
}

/// Returns the next record's body and what follows it, or `None` if only its beginning is there.
fn next_record(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let mut input = Input(bytes);
    let Ok(length) = input.array() else { return Ok(None) };
    if u32::from_le_bytes(length) > BODY_MAX {
        return Err(invalid("a record is longer than any can be"));
    }
    let Ok(sum) = input.u32() else { return Ok(None) };
    let Ok(body) = input.take(u32::from_le_bytes(length) as usize) else { return Ok(None) };
    if sum != checksum(length, body) {
        return Err(invalid("a record's checksum is wrong"));
    }
    Ok(Some((body, input.0)))
}

/// FNV-1a: enough to tell damage from a record, and nothing here is hostile.
fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let step = |sum: u32, &byte: &u8| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    length.iter().chain(body).fold(0x811c_9dc5, step)
}

/// The collector's file, open for appending.
#[derive(Debug)]
pub struct CollectedFile {
    file: File,
}

impl CollectedFile {
    /// Opens or creates the file, returns what it holds, and cuts a torn last record off.
    ///
    /// # Errors
    /// Those of the file system, and `InvalidData` for a damaged file; each with the path.
    ///
    /// # If we die here
    /// The torn record is still there or is gone; the next one to open finds either.
    pub fn open(path: &Path) -> io::Result<(CollectedFile, Reload)> {
        CollectedFile::try_open(path).map_err(|error| with_path("reload", path, &error))
    }

    fn try_open(path: &Path) -> io::Result<(CollectedFile, Reload)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let reload = decode(&bytes)?;
        if reload.torn_bytes > 0 {
            file.set_len(bytes.len() as u64 - reload.torn_bytes)?;
        }
        Ok((CollectedFile { file }, reload))
    }

    /// Appends one record with one write.
    ///
    /// # Errors
    /// Those of the write. The record may then be torn: open the file again before the next append.
    ///
    /// # If we die here
    /// The file ends with a beginning of the record, which the next [`CollectedFile::open`] cuts off.
    pub fn append(&mut self, record: &Collected) -> io::Result<()> {
        self.file.write_all(&record.encode())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Collected> {
        let outcome = prop_oneof![
            (any::<[u64; 3]>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
                |([bytes, lines, words], sha256, changed)| {
                    Outcome::Counted { bytes, lines, words, sha256, changed }
                }
            ),
            ("\\PC*", any::<bool>()).prop_map(|(reason, changed)| Outcome::Unreadable { reason, changed }),
        ];
        (prop::collection::vec(any::<u8>(), 0..40), outcome).prop_map(|(path, outcome)| Collected {
            index: 0,
            result: FileResult { path: path_of(&path), outcome },
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Goal: a collector killed anywhere in an append loses and invents nothing. Method: cut the file at
        /// every byte, open it, append what is missing, open it again.
        #[test]
        fn file_cut_anywhere_keeps_its_whole_records_and_goes_on(mut records in prop::collection::vec(any_record(), 1..4)) {
            records.iter_mut().zip(0..).for_each(|(record, index)| record.index = index);
            let whole: Vec<u8> = records.iter().flat_map(Collected::encode).collect();
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().join("collected");
            for cut in 0..=whole.len() {
                std::fs::write(&at, &whole[..cut]).unwrap();
                let (mut file, reload) = CollectedFile::open(&at).unwrap();
                let kept = reload.records.len();
                prop_assert_eq!(&reload.records[..], &records[..kept]);
                let kept_bytes: usize = records[..kept].iter().map(|record| record.encode().len()).sum();
                prop_assert_eq!(kept_bytes + reload.torn_bytes as usize, cut);
                prop_assert!(kept == records.len() || kept_bytes + records[kept].encode().len() > cut);
                for record in &records[kept..] {
                    file.append(record).unwrap();
                }
                let again = Reload { records: records.clone(), ..Reload::default() };
                prop_assert_eq!(CollectedFile::open(&at).unwrap().1, again);
            }
        }

        #[test]
        fn random_bytes_never_crash_the_reload(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damage_to_a_record_is_an_error_or_at_worst_a_torn_tail(record in any_record(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = record.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes).is_ok_and(|reload| reload.records.is_empty()) || decode(&bytes).is_err());
        }
    }

    #[test]
    fn second_record_of_an_entry_is_dropped_and_counted() {
        let outcome = Outcome::Unreadable { reason: "why".into(), changed: false };
        let record =
            |index| Collected { index, result: FileResult { path: "a".into(), outcome: outcome.clone() } };
        let bytes: Vec<u8> = [7, 3, 7].iter().flat_map(|index| record(*index).encode()).collect();
        let reload = decode(&bytes).unwrap();
        assert_eq!(reload.records, [record(7), record(3)]);
        assert_eq!((reload.doubled_count, reload.torn_bytes), (1, 0));
    }
}
