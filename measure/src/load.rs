//! What is sent: three kinds of message by size, each of which says its number in every byte that can say it, so that whoever
//! reads one can tell whether it is the one that was sent.

use shoal_runtime::message::{self, EncodeError, Scratch};
use std::io;
use std::mem::MaybeUninit;

/// The smallest message: 8 bytes.
#[shoal_agent::message]
#[derive(Clone)]
pub struct Tick {
    /// Its number.
    pub number: u64,
}

/// A message of 40 bytes and more: numbers, a text and a bool, so that validation has something to look at.
#[shoal_agent::message]
#[derive(Clone)]
pub struct Load {
    /// Its number.
    pub number: u64,
    /// When it was sent, CLOCK_MONOTONIC ns; 0 where nobody asks.
    pub sent_ns: u64,
    /// At most eight bytes, which rkyv keeps inline.
    pub name: String,
    /// [`fill`]ed.
    pub body: Vec<u8>,
    /// Something to carry.
    pub kind: u32,
    /// Not every byte is a bool.
    pub firm: bool,
}

/// Bytes of an archived [`Load`] without a body.
pub const LOAD_BYTES_MIN: usize = 40;
/// Larger messages are raw bytes, written by hand.
pub const LOAD_BYTES_MAX: usize = 4096;

const _: () = assert!(size_of::<<Load as rkyv::Archive>::Archived>() == LOAD_BYTES_MIN);

/// Messages of one size, one at a time.
pub enum Loads {
    /// Of 8 bytes.
    Ticks(Tick),
    /// Of 40 to [`LOAD_BYTES_MAX`].
    Loads(Load),
    /// Larger ones.
    Bytes(usize, u64),
}

/// Above this many bytes the same code works for the lanes and the floors, whatever the compiler made of the rest around it.
const LARGE_BYTES: usize = 256;

/// Writes a message's number into all bytes, eight at a time, each word one more than the one before.
#[inline]
pub fn fill(bytes: &mut [u8], number: u64) {
    if bytes.len() > LARGE_BYTES { fill_large(bytes, number) } else { fill_words(bytes, number) }
}

/// Whether these are the bytes that [`fill`] wrote: each is read, and their sum compared.
#[inline]
pub fn is_filled(bytes: &[u8], number: u64) -> bool {
    let count = (bytes.len() / 8) as u64;
    let expected = number.wrapping_mul(count).wrapping_add(count * count.saturating_sub(1) / 2);
    expected == if bytes.len() > LARGE_BYTES { sum_large(bytes) } else { sum_words(bytes) }
}

#[inline(never)]
fn fill_large(bytes: &mut [u8], number: u64) {
    fill_words(bytes, number);
}

#[inline(never)]
fn sum_large(bytes: &[u8]) -> u64 {
    sum_words(bytes)
}

#[inline(always)]
fn fill_words(bytes: &mut [u8], number: u64) {
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&number.wrapping_add(index as u64).to_le_bytes());
    }
}

#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    words.fold(0, u64::wrapping_add)
}

impl Loads {
    /// Messages of a size, in bytes of their archive.
    ///
    /// # Panics
    /// There are none of this size.
    pub fn of(bytes: usize) -> Loads {
        assert!(
            bytes.is_multiple_of(8) && (bytes == 8 || bytes >= LOAD_BYTES_MIN),
            "no message of {bytes} bytes"
        );
        match bytes {
            8 => Loads::Ticks(Tick { number: 0 }),
            ..=LOAD_BYTES_MAX => Loads::Loads(Load {
                number: 0,
                sent_ns: 0,
                name: "shoal".to_owned(),
                body: vec![0; bytes - LOAD_BYTES_MIN],
                kind: 7,
                firm: true,
            }),
            _ => Loads::Bytes(bytes, 0),
        }
    }

    /// Others of the same kind and size.
    pub fn like(&self) -> Loads {
        match self {
            Loads::Ticks(tick) => Loads::Ticks(tick.clone()),
            Loads::Loads(load) => Loads::Loads(load.clone()),
            Loads::Bytes(bytes, number) => Loads::Bytes(*bytes, *number),
        }
    }

    /// Makes it the message of this number.
    #[inline]
    pub fn number(&mut self, number: u64) {
        match self {
            Loads::Ticks(tick) => tick.number = number,
            Loads::Loads(load) => {
                load.number = number;
                fill(&mut load.body, number);
            }
            Loads::Bytes(_, own) => *own = number,
        }
    }

    /// Says when it was sent, if it can.
    pub fn stamp(&mut self, sent_ns: u64) {
        if let Loads::Loads(load) = self {
            load.sent_ns = sent_ns;
        }
    }

    /// Writes the archive of one that is serialized.
    #[inline]
    pub(crate) fn encode(&self, slot: &mut [MaybeUninit<u8>], scratch: &mut Scratch) -> Option<usize> {
        match self {
            Loads::Ticks(tick) => message::encode(std::hint::black_box(tick), slot, scratch).ok(),
            Loads::Loads(load) => message::encode(std::hint::black_box(load), slot, scratch).ok(),
            Loads::Bytes(..) => None,
        }
    }

    pub(crate) fn encoded_len(&self, scratch: &mut Scratch) -> Result<usize, EncodeError> {
        match self {
            Loads::Ticks(tick) => message::encoded_len(tick, scratch),
            Loads::Loads(load) => message::encoded_len(load, scratch),
            Loads::Bytes(bytes, _) => Ok(*bytes),
        }
    }

    /// Validates a message in place and looks whether it is the one of this number; returns when it was sent, if it says.
    ///
    /// # Errors
    /// It is not valid, or another one.
    #[inline]
    pub fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64> {
        let (is_right, sent_ns) = match self {
            Loads::Ticks(_) => {
                (message::access::<Tick>(bytes).map_err(io::Error::other)?.number.to_native() == number, 0)
            }
            Loads::Loads(own) => {
                let load = message::access::<Load>(bytes).map_err(io::Error::other)?;
                let whole = load.body.len() == own.body.len() && is_filled(&load.body, number);
                (whole && load.firm && load.number.to_native() == number, load.sent_ns.to_native())
            }
            Loads::Bytes(own, _) => (bytes.len() == *own && is_filled(bytes, number), 0),
        };
        if is_right { Ok(sent_ns) } else { Err(wrong(number, bytes)) }
    }
}

#[cold]
fn wrong(number: u64, bytes: &[u8]) -> io::Error {
    io::Error::other(format!(
        "a message is not the one that was sent: number {number} was awaited, and {} bytes that begin with {:02x?} came",
        bytes.len(),
        &bytes[..bytes.len().min(16)]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_exactly_the_size_that_was_asked_for() {
        for bytes in [8, 40, 48, 64, 256, 1024, 4096, 16384] {
            assert_eq!(Loads::of(bytes).encoded_len(&mut Scratch::new()), Ok(bytes));
        }
    }

    #[test]
    fn every_byte_of_what_was_filled_counts() {
        let mut bytes = vec![0; 256];
        fill(&mut bytes, 41);
        assert!(is_filled(&bytes, 41) && !is_filled(&bytes, 42));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(!is_filled(&bytes, 41), "byte {at}");
            bytes[at] ^= 1;
        }
        assert!(Loads::of(256 << 5).check(&vec![0; 256 << 5], 1).is_err());
    }
}
