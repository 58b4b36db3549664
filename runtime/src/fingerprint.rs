//! What type a message has, as one number that two processes can compare.
//!
//! rkyv archives carry no type identity, and validation was seen to pass on the wrong type. So every message type
//! has a fingerprint, computed at compile time: FNV-1a over the names and types of its fields and the layout of
//! its archived form. It stands in the lane's header and is compared once, at attach. How a message is written
//! and read is in `message.rs`.

use core::fmt;
use core::mem::{align_of, size_of};

use rkyv::Archive;
use rkyv::primitive::{ArchivedU64, FixedUsize};

/// The version of what this crate itself hashes, and of how it lays an archive into a frame. Any change of either
/// raises it, so that two builds which would disagree have no fingerprint in common.
pub const MESSAGE_LAYOUT_VERSION: u64 = 1;

// The seed below says "little". A build in which rkyv archives otherwise does not compile here.
const _: fn(ArchivedU64) -> rkyv::rend::u64_le = |archived| archived;

/// The identity of a message type: equal if and only if name, fields, types and archived layout are (up to a
/// collision of 64-bit hashes).
///
/// It guards against mistakes, not against malice: whoever wants a collision can construct one, and then meets
/// the validation of every access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Computes a [`Fingerprint`] in a constant. Texts are hashed with their length and numbers as eight bytes, so no
/// two different sequences of calls feed the same bytes by regrouping.
///
/// Source: FNV-1a, 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>.
#[derive(Clone, Copy)]
#[must_use]
pub struct FingerprintBuilder(u64);

impl FingerprintBuilder {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Starts the fingerprint of `T`, called `name`: the seed (format, endianness, width of archived pointers,
    /// version of this layout), then the name, size and alignment of the archived type.
    pub const fn of<T: Archive>(name: &str) -> Self {
        Self(Self::OFFSET_BASIS)
            .text("rkyv 0.8 little")
            .number(size_of::<FixedUsize>() as u64)
            .number(MESSAGE_LAYOUT_VERSION)
            .text(name)
            .number(size_of::<T::Archived>() as u64)
            .number(align_of::<T::Archived>() as u64)
    }

    /// Adds a name.
    pub const fn text(self, text: &str) -> Self {
        let mut hash = self.number(text.len() as u64);
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = hash.byte(bytes[at]);
            at += 1;
        }
        hash
    }

    /// Adds a number: an offset, a count, a discriminant.
    pub const fn number(self, number: u64) -> Self {
        let mut hash = self;
        let bytes = number.to_le_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = hash.byte(bytes[at]);
            at += 1;
        }
        hash
    }

    /// Adds the type of a part.
    pub const fn part<T: Typed>(self) -> Self {
        self.number(T::FINGERPRINT.0)
    }

    /// Adds a field: its name, its type and where it lies in the archived type.
    pub const fn field<T: Typed>(self, name: &str, offset_bytes: usize) -> Self {
        self.text(name).part::<T>().number(offset_bytes as u64)
    }

    /// Ends the computation.
    pub const fn finish(self) -> Fingerprint {
        Fingerprint(self.0)
    }

    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(Self::PRIME))
    }
}

/// A type that may stand in a message, and its fingerprint.
///
/// `#[message]` implements it. There is deliberately no implementation for
/// - `usize` and `isize`: archived with 32 bits, a larger value would panic while it is sent (use `u64`, `i64`);
/// - `Rc` and `Arc`: sharing needs a map on the heap on both sides;
/// - `HashMap` and `HashSet`: send a `Vec` of pairs, and the order is the sender's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a Shoal message",
    label = "no fingerprint is known for `{Self}`",
    note = "of your own types, those marked `#[shoal_agent::message]` can",
    note = "of the standard ones: bool, char, u8..u128, i8..i128, f32, f64, String, Vec, Option, Box, arrays and tuples of up to six",
    note = "`usize` and `isize` differ between machines: use `u64` or `i64`; instead of a map, send a Vec of pairs"
)]
pub trait Typed: Archive {
    /// The identity of this type in an archive.
    const FINGERPRINT: Fingerprint;
}

macro_rules! typed_by_name {
    ($($type:ty),* $(,)?) => {$(
        impl Typed for $type {
            const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<Self>(stringify!($type)).finish();
        }
    )*};
}

typed_by_name!((), bool, char, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, String);

impl<T: Typed> Typed for Vec<T> {
    const FINGERPRINT: Fingerprint = {
        // The only way to a length beyond 32 bits in a frame of 256 MiB, and rkyv panics on such a length.
        assert!(
            size_of::<T::Archived>() > 0,
            "a Vec of an empty type cannot be sent: send its length as a u64"
        );
        FingerprintBuilder::of::<Self>("Vec").part::<T>().finish()
    };
}

impl<T: Typed> Typed for Option<T> {
    const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<Self>("Option").part::<T>().finish();
}

impl<T: Typed> Typed for Box<T> {
    const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<Self>("Box").part::<T>().finish();
}

impl<T: Typed, const N: usize> Typed for [T; N] {
    const FINGERPRINT: Fingerprint =
        FingerprintBuilder::of::<Self>("array").part::<T>().number(N as u64).finish();
}

macro_rules! typed_tuple {
    ($($part:ident),*) => {
        impl<$($part: Typed),*> Typed for ($($part,)*) {
            const FINGERPRINT: Fingerprint =
                FingerprintBuilder::of::<Self>("tuple")$(.part::<$part>())*.finish();
        }
    };
}

typed_tuple!(A);
typed_tuple!(A, B);
typed_tuple!(A, B, C);
typed_tuple!(A, B, C, D);
typed_tuple!(A, B, C, D, E);
typed_tuple!(A, B, C, D, E, F);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_two_of_the_known_types_share_a_fingerprint() {
        let all = [
            ("()", <()>::FINGERPRINT),
            ("bool", bool::FINGERPRINT),
            ("char", char::FINGERPRINT),
            ("u8", u8::FINGERPRINT),
            ("u16", u16::FINGERPRINT),
            ("u32", u32::FINGERPRINT),
            ("u64", u64::FINGERPRINT),
            ("u128", u128::FINGERPRINT),
            ("i8", i8::FINGERPRINT),
            ("i16", i16::FINGERPRINT),
            ("i32", i32::FINGERPRINT),
            ("i64", i64::FINGERPRINT),
            ("i128", i128::FINGERPRINT),
            ("f32", f32::FINGERPRINT),
            ("f64", f64::FINGERPRINT),
            ("String", String::FINGERPRINT),
            ("Vec<u8>", Vec::<u8>::FINGERPRINT),
            ("Vec<String>", Vec::<String>::FINGERPRINT),
            ("Vec<Vec<u8>>", Vec::<Vec<u8>>::FINGERPRINT),
            ("Option<u8>", Option::<u8>::FINGERPRINT),
            ("Option<Option<u8>>", Option::<Option<u8>>::FINGERPRINT),
            ("Box<u8>", Box::<u8>::FINGERPRINT),
            ("[u8; 1]", <[u8; 1]>::FINGERPRINT),
            ("[u8; 2]", <[u8; 2]>::FINGERPRINT),
            ("(u8,)", <(u8,)>::FINGERPRINT),
            ("(u8, u16)", <(u8, u16)>::FINGERPRINT),
            ("(u16, u8)", <(u16, u8)>::FINGERPRINT),
            ("((u8, u8), u8)", <((u8, u8), u8)>::FINGERPRINT),
            ("(u8, (u8, u8))", <(u8, (u8, u8))>::FINGERPRINT),
            ("(u8, u8, u8)", <(u8, u8, u8)>::FINGERPRINT),
            ("(u8; 6)", <(u8, u8, u8, u8, u8, u8)>::FINGERPRINT),
        ];
        let mut seen = BTreeMap::new();
        for (name, fingerprint) in all {
            if let Some(other) = seen.insert(fingerprint, name) {
                panic!("{name} and {other} share {fingerprint}");
            }
        }
    }

    #[test]
    fn names_cannot_be_regrouped_into_another_type() {
        let split = FingerprintBuilder::of::<()>("T").text("ab").text("c").finish();
        let other = FingerprintBuilder::of::<()>("T").text("a").text("bc").finish();
        assert_ne!(split, other);
    }

    #[test]
    fn a_field_that_only_moves_changes_the_fingerprint() {
        let at_0 = FingerprintBuilder::of::<u64>("T").field::<u32>("a", 0).finish();
        let at_4 = FingerprintBuilder::of::<u64>("T").field::<u32>("a", 4).finish();
        assert_ne!(at_0, at_4);
    }

    #[test]
    fn the_size_of_the_archived_type_is_part_of_the_fingerprint() {
        assert_ne!(FingerprintBuilder::of::<u32>("T").finish(), FingerprintBuilder::of::<u64>("T").finish());
    }

    #[test]
    fn a_fingerprint_prints_as_sixteen_hexadecimal_digits() {
        assert_eq!(Fingerprint(0xbeef).to_string(), "000000000000beef");
    }

    #[test]
    fn the_fingerprint_of_a_build_stays_what_it_was() {
        // If this fails, running swarms of the last build refuse this one: raise MESSAGE_LAYOUT_VERSION knowingly.
        assert_eq!(FingerprintBuilder(FingerprintBuilder::OFFSET_BASIS).byte(b'a').0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(<(u64, Vec<String>)>::FINGERPRINT.to_string(), "88fa047cfebea6bf");
    }
}
