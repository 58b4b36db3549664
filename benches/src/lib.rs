//! What the benches are made of: two real processes, what they do, the floors beside them, and the arithmetic of pairs.
//!
//! A bench binary starts itself twice more ([`duo`]); both copies attach to it as agents do to a supervisor, and then do what
//! they are told over a socket ([`peer`]): something on a lane, or the same thing on a raw floor ([`floor`]), in turns.

#[allow(unsafe_code)]
pub mod baseline;
pub mod duo;
#[allow(unsafe_code)]
pub mod floor;
pub mod pairs;
pub mod peer;
pub mod talk;
pub mod within;

/// The message that is measured: 64 bytes on the lane, of which 48 are the archive and 16 the header; with a text and a bool, so that
/// validation has something to look at.
#[shoal_agent::message]
#[derive(Clone)]
pub struct Quote {
    /// Number of the message.
    pub number: u64,
    /// When it was sent, CLOCK_MONOTONIC ns; 0 where nobody asks.
    pub sent_ns: u64,
    /// Something to carry.
    pub prices: [f64; 2],
    /// At most eight bytes, which rkyv keeps inline.
    pub name: String,
    /// Something to carry.
    pub kind: u32,
    /// Not every byte is a bool.
    pub firm: bool,
}

const _: () = assert!(size_of::<<Quote as rkyv::Archive>::Archived>() == 48);

impl Quote {
    /// A quote with something in every field.
    pub fn example() -> Self {
        let (prices, name) = ([1.0, 2.0], "shoal".to_owned());
        Quote { number: 0, sent_ns: 0, prices, name, kind: 7, firm: true }
    }
}
