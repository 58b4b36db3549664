//! Whether a message is the one that was to come. Messages are numbered from 1, one more each, as long as the pair lives;
//! a number is in every byte, and every byte is looked at.

use shoal_measure::load::is_filled;
use std::fmt;

/// What is wrong with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It has so many bytes.
    Size(usize),
    /// Its bytes say no number.
    Damaged,
    /// It is this later one: what was to come is lost, or comes too late.
    Lost(u64),
    /// It is this earlier one: it came before, or comes too late.
    Again(u64),
}

/// Looks at all bytes of a message.
///
/// # Errors
/// It is not whole, or not the one with this number.
#[inline]
pub fn check(message: &[u8], bytes: usize, awaited: u64) -> Result<(), Wrong> {
    if message.len() == bytes && is_filled(message, awaited) {
        Ok(())
    } else {
        Err(wrong(message, bytes, awaited))
    }
}

#[cold]
fn wrong(message: &[u8], bytes: usize, awaited: u64) -> Wrong {
    if message.len() != bytes {
        return Wrong::Size(message.len());
    }
    let number = message.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    match number {
        _ if !is_filled(message, number) || number == awaited => Wrong::Damaged,
        later if later > awaited => Wrong::Lost(later),
        earlier => Wrong::Again(earlier),
    }
}

impl Wrong {
    /// As an error about a number.
    pub fn error(self, awaited: u64) -> std::io::Error {
        std::io::Error::other(format!("message {awaited} was to come, and {self}"))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Size(bytes) => write!(f, "one of {bytes} bytes came"),
            Wrong::Damaged => write!(f, "one came whose bytes are not those that were sent"),
            Wrong::Lost(number) => write!(f, "{number} came: one was lost or overtaken"),
            Wrong::Again(number) => write!(f, "{number} came: it came twice or late"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_measure::load::fill;

    #[test]
    fn message_is_the_awaited_one_or_is_told_from_it() {
        for bytes in [8, 64, 4096] {
            let of = |number| {
                let mut message = vec![0; bytes];
                fill(&mut message, number);
                message
            };
            assert_eq!(check(&of(7), bytes, 7), Ok(()));
            assert_eq!(check(&of(9), bytes, 7), Err(Wrong::Lost(9)));
            assert_eq!(check(&of(6), bytes, 7), Err(Wrong::Again(6)));
            assert_eq!(check(&of(7)[..bytes - 8], bytes, 7), Err(Wrong::Size(bytes - 8)));
            if bytes > 8 {
                let mut damaged = of(7);
                damaged[bytes - 1] ^= 1;
                assert_eq!(check(&damaged, bytes, 7), Err(Wrong::Damaged));
                assert_eq!(check(&vec![0; bytes], bytes, 7), Err(Wrong::Damaged));
            }
        }
    }
}
