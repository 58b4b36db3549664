//! What is sent: messages by size and kind, each of which says its number in every byte that can say it, so that whoever reads one
//! can tell whether it is the one that was sent.

use shoal_runtime::message::{self, EncodeError, Message, Scratch};
use std::io;
use std::mem::MaybeUninit;

/// The smallest message: 8 bytes.
#[shoal_agent::message]
#[derive(Clone)]
pub struct Tick {
    /// Its number.
    pub number: u64,
}

/// A message of a few numbers and a bool, which not every byte is: what agents mostly send.
trait Record: Message + Clone {
    /// One without a number.
    fn new() -> Self;
    /// Makes it the one of this number.
    fn number(&mut self, number: u64);
    /// Says when it was sent.
    fn stamp(&mut self, sent_ns: u64);
    /// Whether it is the one of this number, and when it was sent.
    fn read(archived: &Self::Archived, number: u64) -> (bool, u64);
}

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal bytes, $words:literal words;)+) => {$(
        $(#[$doc])*
        #[shoal_agent::message]
        #[derive(Clone)]
        pub struct $name {
            /// Its number.
            pub number: u64,
            /// When it was sent, CLOCK_MONOTONIC ns; 0 where nobody asks.
            pub sent_ns: u64,
            /// Each one more than the one before.
            pub values: [u64; $words],
            /// Something to carry.
            pub kind: u32,
            /// Not every byte is a bool.
            pub firm: bool,
        }

        const _: () = assert!(size_of::<<$name as rkyv::Archive>::Archived>() == $bytes);

        impl Record for $name {
            fn new() -> Self {
                $name { number: 0, sent_ns: 0, values: [0; $words], kind: 7, firm: true }
            }

            #[inline(always)]
            fn number(&mut self, number: u64) {
                self.number = number;
                self.values.iter_mut().zip(number..).for_each(|(value, number)| *value = number);
            }

            #[inline(always)]
            fn stamp(&mut self, sent_ns: u64) {
                self.sent_ns = sent_ns;
            }

            #[inline(always)]
            fn read(archived: &Self::Archived, number: u64) -> (bool, u64) {
                let values = archived.values.iter().zip(number..).all(|(value, number)| value.to_native() == number);
                let rest = archived.number.to_native() == number && archived.kind.to_native() == 7 && archived.firm;
                (values && rest, archived.sent_ns.to_native())
            }
        }
    )+};
}

records! {
    /// 40 bytes: with the header, most of a cache line.
    Small: 40 bytes, 2 words;
    /// 48 bytes: with the header, a cache line.
    Line: 48 bytes, 3 words;
    /// 64 bytes: with the header, two cache lines.
    Wide: 64 bytes, 5 words;
}

/// A message of 40 bytes and more with a text and a list, which takes more to serialize and to validate.
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
    /// Of 40.
    Smalls(Small),
    /// Of 48.
    Lines(Line),
    /// Of 64.
    Wides(Wide),
    /// Of 40 to [`LOAD_BYTES_MAX`], with a text and a list.
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
    /// Messages of a size, in bytes of their archive: up to 64 of numbers, up to [`LOAD_BYTES_MAX`] with a list.
    ///
    /// # Panics
    /// There are none of this size.
    pub fn of(bytes: usize) -> Loads {
        match bytes {
            8 => Loads::Ticks(Tick { number: 0 }),
            40 => Loads::Smalls(Small::new()),
            48 => Loads::Lines(Line::new()),
            64 => Loads::Wides(Wide::new()),
            ..=LOAD_BYTES_MAX => Loads::with_text(bytes),
            _ => Loads::Bytes(bytes, 0),
        }
    }

    /// Messages of a size with a text and a list.
    ///
    /// # Panics
    /// There are none of this size.
    pub fn with_text(bytes: usize) -> Loads {
        let there_are = bytes.is_multiple_of(8) && (LOAD_BYTES_MIN..=LOAD_BYTES_MAX).contains(&bytes);
        assert!(there_are, "no message of {bytes} bytes");
        Loads::Loads(Load {
            number: 0,
            sent_ns: 0,
            name: "shoal".to_owned(),
            body: vec![0; bytes - LOAD_BYTES_MIN],
            kind: 7,
            firm: true,
        })
    }

    /// Others of the same kind and size.
    pub fn like(&self) -> Loads {
        match self {
            Loads::Ticks(tick) => Loads::Ticks(tick.clone()),
            Loads::Smalls(record) => Loads::Smalls(record.clone()),
            Loads::Lines(record) => Loads::Lines(record.clone()),
            Loads::Wides(record) => Loads::Wides(record.clone()),
            Loads::Loads(load) => Loads::Loads(load.clone()),
            Loads::Bytes(bytes, number) => Loads::Bytes(*bytes, *number),
        }
    }

    /// Makes it the message of this number.
    #[inline]
    pub fn number(&mut self, number: u64) {
        match self {
            Loads::Ticks(tick) => tick.number = number,
            Loads::Smalls(record) => record.number(number),
            Loads::Lines(record) => record.number(number),
            Loads::Wides(record) => record.number(number),
            Loads::Loads(load) => {
                load.number = number;
                fill(&mut load.body, number);
            }
            Loads::Bytes(_, own) => *own = number,
        }
    }

    /// Says when it was sent, if it can.
    pub fn stamp(&mut self, sent_ns: u64) {
        match self {
            Loads::Smalls(record) => record.stamp(sent_ns),
            Loads::Lines(record) => record.stamp(sent_ns),
            Loads::Wides(record) => record.stamp(sent_ns),
            Loads::Loads(load) => load.sent_ns = sent_ns,
            Loads::Ticks(_) | Loads::Bytes(..) => {}
        }
    }

    /// Writes the archive of one that is serialized.
    #[inline]
    pub(crate) fn encode(&self, slot: &mut [MaybeUninit<u8>], scratch: &mut Scratch) -> Option<usize> {
        match self {
            Loads::Ticks(tick) => message::encode(tick, slot, scratch).ok(),
            Loads::Smalls(record) => message::encode(record, slot, scratch).ok(),
            Loads::Lines(record) => message::encode(record, slot, scratch).ok(),
            Loads::Wides(record) => message::encode(record, slot, scratch).ok(),
            Loads::Loads(load) => message::encode(load, slot, scratch).ok(),
            Loads::Bytes(..) => None,
        }
    }

    pub(crate) fn encoded_len(&self, scratch: &mut Scratch) -> Result<usize, EncodeError> {
        match self {
            Loads::Ticks(tick) => message::encoded_len(tick, scratch),
            Loads::Smalls(record) => message::encoded_len(record, scratch),
            Loads::Lines(record) => message::encoded_len(record, scratch),
            Loads::Wides(record) => message::encoded_len(record, scratch),
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
            Loads::Ticks(_) => (access::<Tick>(bytes)?.number.to_native() == number, 0),
            Loads::Smalls(_) => Small::read(access::<Small>(bytes)?, number),
            Loads::Lines(_) => Line::read(access::<Line>(bytes)?, number),
            Loads::Wides(_) => Wide::read(access::<Wide>(bytes)?, number),
            Loads::Loads(own) => {
                let load = access::<Load>(bytes)?;
                let whole = load.body.len() == own.body.len() && is_filled(&load.body, number);
                (whole && load.firm && load.number.to_native() == number, load.sent_ns.to_native())
            }
            Loads::Bytes(own, _) => (bytes.len() == *own && is_filled(bytes, number), 0),
        };
        if is_right { Ok(sent_ns) } else { Err(wrong(number, bytes)) }
    }
}

#[inline(always)]
fn access<M: Message>(bytes: &[u8]) -> io::Result<&M::Archived> {
    message::access::<M>(bytes).map_err(io::Error::other)
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
        for bytes in [40, 64, 4096] {
            assert_eq!(Loads::with_text(bytes).encoded_len(&mut Scratch::new()), Ok(bytes));
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

    #[test]
    fn every_byte_of_a_record_counts_but_when_it_was_sent_and_what_pads_it() {
        let archive = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&{
            let mut record = Wide::new();
            record.number(41);
            record
        })
        .expect("it fits");
        let loads = Loads::of(64);
        loads.check(&archive, 41).expect("it is the one that was sent");
        let mut changed = rkyv::util::AlignedVec::<16>::new();
        changed.extend_from_slice(&archive);
        for at in (0..61).filter(|at| !(8..16).contains(at)) {
            changed[at] ^= 1;
            assert!(loads.check(&changed, 41).is_err(), "byte {at}");
            changed[at] ^= 1;
        }
    }
}
