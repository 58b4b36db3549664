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

/// What goes over a lane, one message at a time.
pub trait Freight {
    /// Makes it the message of this number.
    fn number(&mut self, number: u64);

    /// Says when it was sent, if it can.
    fn stamp(&mut self, _sent_ns: u64) {}

    /// How many bytes it has, if it is written by hand: those of [`fill`].
    fn by_hand(&self) -> Option<usize> {
        None
    }

    /// Writes its archive.
    fn encode(&self, slot: &mut [MaybeUninit<u8>], scratch: &mut Scratch) -> Option<usize>;

    /// Bytes of its archive.
    ///
    /// # Errors
    /// It cannot be encoded.
    fn encoded_len(&self, scratch: &mut Scratch) -> Result<usize, EncodeError>;

    /// Validates a message in place and looks whether it is the one of this number; returns when it was sent, if it says.
    ///
    /// # Errors
    /// It is not valid, or another one.
    fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64>;
}

/// What [`Freight`] of rkyv has in common.
macro_rules! archived {
    () => {
        #[inline(always)]
        fn encode(&self, slot: &mut [MaybeUninit<u8>], scratch: &mut Scratch) -> Option<usize> {
            message::encode(self, slot, scratch).ok()
        }

        fn encoded_len(&self, scratch: &mut Scratch) -> Result<usize, EncodeError> {
            message::encoded_len(self, scratch)
        }
    };
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

        impl Default for $name {
            fn default() -> Self {
                $name { number: 0, sent_ns: 0, values: [0; $words], kind: 7, firm: true }
            }
        }

        impl Freight for $name {
            archived!();

            #[inline(always)]
            fn number(&mut self, number: u64) {
                self.number = number;
                self.values.iter_mut().zip(number..).for_each(|(value, number)| *value = number);
            }

            fn stamp(&mut self, sent_ns: u64) {
                self.sent_ns = sent_ns;
            }

            #[inline(always)]
            fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64> {
                let archived = access::<$name>(bytes)?;
                let values = archived.values.iter().zip(number..).all(|(value, number)| value.to_native() == number);
                let rest = archived.number.to_native() == number && archived.kind.to_native() == 7 && archived.firm;
                found(values && rest, archived.sent_ns.to_native(), number, bytes)
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

/// Raw bytes, written by hand.
pub struct Bytes {
    /// How many.
    pub bytes: usize,
}

/// Messages of one kind and size.
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
    Texts(Load),
    /// Larger ones.
    Bytes(Bytes),
}

/// Does the same with messages of whichever kind: for each the compiler makes code of its own, as for an agent's message.
#[macro_export]
macro_rules! with_load {
    ($loads:expr, $load:pat => $act:expr) => {
        match $loads {
            $crate::load::Loads::Ticks($load) => $act,
            $crate::load::Loads::Smalls($load) => $act,
            $crate::load::Loads::Lines($load) => $act,
            $crate::load::Loads::Wides($load) => $act,
            $crate::load::Loads::Texts($load) => $act,
            $crate::load::Loads::Bytes($load) => $act,
        }
    };
}

impl Freight for Tick {
    archived!();

    #[inline(always)]
    fn number(&mut self, number: u64) {
        self.number = number;
    }

    #[inline(always)]
    fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64> {
        found(access::<Tick>(bytes)?.number.to_native() == number, 0, number, bytes)
    }
}

impl Freight for Load {
    archived!();

    #[inline(always)]
    fn number(&mut self, number: u64) {
        self.number = number;
        fill(&mut self.body, number);
    }

    fn stamp(&mut self, sent_ns: u64) {
        self.sent_ns = sent_ns;
    }

    #[inline(always)]
    fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64> {
        let load = access::<Load>(bytes)?;
        let whole = load.body.len() == self.body.len() && is_filled(&load.body, number);
        let right = whole && load.firm && load.number.to_native() == number;
        found(right, load.sent_ns.to_native(), number, bytes)
    }
}

impl Freight for Bytes {
    fn number(&mut self, _number: u64) {}

    fn by_hand(&self) -> Option<usize> {
        Some(self.bytes)
    }

    fn encode(&self, _slot: &mut [MaybeUninit<u8>], _scratch: &mut Scratch) -> Option<usize> {
        None
    }

    fn encoded_len(&self, _scratch: &mut Scratch) -> Result<usize, EncodeError> {
        Ok(self.bytes)
    }

    #[inline(always)]
    fn check(&self, bytes: &[u8], number: u64) -> io::Result<u64> {
        found(bytes.len() == self.bytes && is_filled(bytes, number), 0, number, bytes)
    }
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
            40 => Loads::Smalls(Small::default()),
            48 => Loads::Lines(Line::default()),
            64 => Loads::Wides(Wide::default()),
            ..=LOAD_BYTES_MAX => Loads::Texts(Load::of(bytes)),
            _ => Loads::Bytes(Bytes { bytes }),
        }
    }
}

impl Load {
    /// One of a size.
    ///
    /// # Panics
    /// There is none of this size.
    pub fn of(bytes: usize) -> Load {
        let there_is = bytes.is_multiple_of(8) && (LOAD_BYTES_MIN..=LOAD_BYTES_MAX).contains(&bytes);
        assert!(there_is, "no message of {bytes} bytes");
        let body = vec![0; bytes - LOAD_BYTES_MIN];
        Load { number: 0, sent_ns: 0, name: "shoal".to_owned(), body, kind: 7, firm: true }
    }
}

#[inline(always)]
fn found(is_right: bool, sent_ns: u64, number: u64, bytes: &[u8]) -> io::Result<u64> {
    if is_right { Ok(sent_ns) } else { Err(wrong(number, bytes)) }
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
            let len = with_load!(Loads::of(bytes), load => load.encoded_len(&mut Scratch::new()));
            assert_eq!(len, Ok(bytes));
        }
        for bytes in [40, 64, 4096] {
            assert_eq!(Load::of(bytes).encoded_len(&mut Scratch::new()), Ok(bytes));
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
        assert!(Bytes { bytes: 256 << 5 }.check(&vec![0; 256 << 5], 1).is_err());
    }

    #[test]
    fn every_byte_of_a_record_counts_but_when_it_was_sent_and_what_pads_it() {
        let mut wide = Wide::default();
        wide.number(41);
        let archive = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&wide).expect("it fits");
        wide.check(&archive, 41).expect("it is the one that was sent");
        let mut changed = rkyv::util::AlignedVec::<16>::new();
        changed.extend_from_slice(&archive);
        for at in (0..61).filter(|at| !(8..16).contains(at)) {
            changed[at] ^= 1;
            assert!(wide.check(&changed, 41).is_err(), "byte {at}");
            changed[at] ^= 1;
        }
    }
}
