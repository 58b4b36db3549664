//! What the messages hold: all of it follows from who sent it and its number, and a checksum says so.

/// A message of the swarm, from a source or from a worker.
#[shoal_agent::message]
pub struct Number {
    /// The source that it began with, from 0.
    pub source: u32,
    /// Its number among all that this source ever sent, from 0.
    pub sequence: u64,
    /// Follows from source and sequence; the workers change it.
    pub value: u64,
    /// Bytes that follow from the value, more or fewer of them.
    pub filler: Vec<u8>,
    /// Over all of the above.
    pub check: u64,
}

/// Whose hands a message went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It comes from its source.
    Sent,
    /// A worker has changed it.
    Worked,
}

/// Bytes of filler that each message has at least, so that its frame takes two cache lines or more.
const FILLER_MIN_BYTES: u64 = 16;
/// How much the number of bytes varies.
const FILLER_SPAN_BYTES: u64 = 100;

/// Mixes a number thoroughly. Source: splitmix64.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn value(stage: Stage, source: u32, sequence: u64) -> u64 {
    let sent = mix(mix(u64::from(source)) ^ sequence);
    if stage == Stage::Sent { sent } else { mix(!sent) }
}

fn check(source: u32, sequence: u64, value: u64, filler: &[u8]) -> u64 {
    let head = mix(mix(mix(u64::from(source)) ^ sequence) ^ value);
    let (words, rest) = filler.as_chunks::<8>();
    let sum = words.iter().fold(head, |sum, word| mix(sum ^ u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, &byte| mix(sum ^ u64::from(byte)))
}

/// Fills the number of a source into `into`, whose memory is used again.
pub fn write(stage: Stage, source: u32, sequence: u64, into: &mut Number) {
    let value = value(stage, source, sequence);
    into.filler.clear();
    let len = FILLER_MIN_BYTES + value % FILLER_SPAN_BYTES;
    into.filler.extend(value.to_le_bytes().iter().cycle().take(len as usize));
    let check = check(source, sequence, value, &into.filler);
    (into.source, into.sequence, into.value, into.check) = (source, sequence, value, check);
}

/// An empty message, to be filled.
pub fn blank() -> Number {
    Number { source: 0, sequence: 0, value: 0, filler: Vec::new(), check: 0 }
}

/// Source and sequence of a message that is whole: checksum, value and source are what they must be.
pub fn read(stage: Stage, sources: u32, number: &ArchivedNumber) -> Option<(u32, u64)> {
    let (source, sequence) = (number.source.to_native(), number.sequence.to_native());
    let found = number.value.to_native();
    let whole = source < sources
        && number.check.to_native() == check(source, sequence, found, &number.filler)
        && found == value(stage, source, sequence);
    whole.then_some((source, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_runtime::message;

    fn seen(stage: Stage, number: &Number) -> Option<(u32, u64)> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(number).expect("archived");
        assert!(bytes.len() > 48, "in one cache line: more could be missing than an account has room for");
        read(stage, 2, message::access::<Number>(&bytes).expect("an archive"))
    }

    proptest! {
        #[test]
        fn message_with_any_bit_changed_is_not_whole(
            source in 0u32..2, sequence: u64, worked: bool, field in 0usize..5, bit in 0u32..64, byte: prop::sample::Index,
        ) {
            let (stage, other) = if worked { (Stage::Worked, Stage::Sent) } else { (Stage::Sent, Stage::Worked) };
            let mut number = blank();
            write(stage, source, sequence, &mut number);
            prop_assert_eq!(seen(stage, &number), Some((source, sequence)));
            prop_assert_eq!(seen(other, &number), None);
            let len = number.filler.len();
            match field {
                0 => number.source ^= 1 << (bit % 32),
                1 => number.sequence ^= 1 << bit,
                2 => number.value ^= 1 << bit,
                3 => number.check ^= 1 << bit,
                _ => number.filler[byte.index(len)] ^= 1 << (bit % 8),
            }
            prop_assert_eq!(seen(stage, &number), None);
        }
    }
}
