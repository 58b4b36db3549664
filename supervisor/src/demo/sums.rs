//! Any number of results in a few words: totals, and a digest that does not depend on their order.

use super::count::Outcome;
use super::sequential::FileResult;
use sha2::{Digest, Sha256};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The sums of results. Equal sums are equal results, but for a collision of SHA-256.
#[shoal_agent::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Files, the unreadable too.
    pub files: u64,
    /// Those that could not be read.
    pub unreadable: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Their newlines.
    pub lines: u64,
    /// Their words.
    pub words: u64,
    /// The sum of the results' SHA-256 modulo 2^256, the least significant word first.
    pub digest: [u64; 4],
}

impl Sums {
    /// The sums of these results.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a FileResult>) -> Sums {
        let mut sums = Sums::default();
        results.into_iter().for_each(|result| sums.add(result));
        sums
    }

    /// Adds one result.
    pub fn add(&mut self, result: &FileResult) {
        self.files += 1;
        let mut hash = Sha256::new();
        // Its length first: a path ends where it ends.
        let path = result.path.as_os_str().as_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        match &result.outcome {
            Outcome::Counted { bytes, lines, words, sha256, changed } => {
                self.bytes = self.bytes.wrapping_add(*bytes);
                self.lines = self.lines.wrapping_add(*lines);
                self.words = self.words.wrapping_add(*words);
                [bytes, lines, words].into_iter().for_each(|number| hash.update(number.to_le_bytes()));
                hash.update(sha256);
                hash.update([u8::from(*changed)]);
            }
            Outcome::Unreadable { reason, changed } => {
                self.unreadable += 1;
                hash.update(reason);
                hash.update([2 + u8::from(*changed)]);
            }
        }
        self.add_to_digest(&hash.finalize().into());
    }

    fn add_to_digest(&mut self, hash: &[u8; 32]) {
        let mut carry = false;
        for (word, bytes) in self.digest.iter_mut().zip(hash.as_chunks().0) {
            let (sum, over) = word.overflowing_add(u64::from_le_bytes(*bytes));
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = over || over_again;
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sums { files, unreadable, bytes, lines, words, digest: [a, b, c, d] } = self;
        write!(f, "{files} files ({unreadable} unreadable), {lines} lines, {words} words, {bytes} bytes, ")?;
        write!(f, "digest {d:016x}{c:016x}{b:016x}{a:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Seen;
    use proptest::prelude::*;

    fn any_result() -> impl Strategy<Value = FileResult> {
        let outcome = prop_oneof![
            (any::<[u64; 3]>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
                |([bytes, lines, words], sha256, changed)| {
                    Outcome::Counted { bytes, lines, words, sha256, changed }
                }
            ),
            ("[ab]{0,2}", any::<bool>())
                .prop_map(|(reason, changed)| Outcome::Unreadable { reason, changed }),
        ];
        let seen = Seen { size_bytes: 0, mtime_ns: 0 };
        ("[ab]{0,2}", outcome).prop_map(move |(path, outcome)| FileResult {
            path: path.into(),
            seen,
            outcome,
        })
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order_and_tell_a_lost_doubled_or_changed_result(
            results in prop::collection::vec(any_result(), 1..20),
            other in any_result(),
            at in any::<prop::sample::Index>(),
        ) {
            let sums = Sums::of(&results);
            let mut turned = results.clone();
            turned.rotate_left(at.index(results.len()));
            turned.reverse();
            prop_assert_eq!(&Sums::of(&turned), &sums);
            let mut lost = results.clone();
            let taken = lost.remove(at.index(results.len()));
            prop_assert_ne!(Sums::of(&lost).digest, sums.digest);
            let doubled = results.iter().chain([&taken]);
            prop_assert_ne!(Sums::of(doubled).digest, sums.digest);
            let same = taken == other;
            prop_assert_eq!(Sums::of(lost.iter().chain([&other])).digest == sums.digest, same);
        }
    }

    #[test]
    fn carry_goes_through_all_words_and_falls_off_at_the_end() {
        let mut sums = Sums { digest: [u64::MAX; 4], ..Sums::default() };
        let mut one = [0; 32];
        one[0] = 1;
        sums.add_to_digest(&one);
        assert_eq!(sums.digest, [0; 4]);
        sums.add_to_digest(&[255; 32]);
        sums.add_to_digest(&[255; 32]);
        assert_eq!(sums.digest, [u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]);
    }
}
