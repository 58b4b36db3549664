//! Tests of messages: the way there and back, slots and scratch too small, bytes that are no message.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rkyv::util::AlignedVec;

use super::*;
use crate::fingerprint::{Fingerprint, FingerprintBuilder};

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Kind {
    Nothing,
    Named(String),
    Sized { bytes: u64, parts: Vec<u32> },
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Sample {
    number: u64,
    path: String,
    tags: Vec<String>,
    kinds: Vec<Kind>,
    maybe: Option<Box<(u8, char)>>,
    body: Vec<u8>,
}

// What `#[message]` writes; kept short here, its own tests are in agent-sdk.
impl Typed for Sample {
    const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<Self>("Sample").finish();
}
impl Message for Sample {
    const NAME: &'static str = "Sample";
}

#[repr(align(16))]
struct Memory<const N: usize>([MaybeUninit<u8>; N]);

fn sample() -> Sample {
    Sample {
        number: 7,
        path: "/usr/include/stdio.h, longer than what is kept inline".to_owned(),
        tags: vec!["a".to_owned(), "a tag that is not kept inline".to_owned()],
        kinds: vec![Kind::Nothing, Kind::Named("n".repeat(40)), Kind::Sized { bytes: 9, parts: vec![1, 2] }],
        maybe: Some(Box::new((3, 'é'))),
        body: vec![0xab; 100],
    }
}

fn archive(message: &Sample) -> AlignedVec<16> {
    let mut memory = Box::new(Memory([MaybeUninit::new(0xEE); 8192]));
    let mut scratch = Scratch::new();
    let length_bytes = encode(message, &mut memory.0, &mut scratch).unwrap();
    let mut bytes = AlignedVec::new();
    for byte in &memory.0[..length_bytes] {
        // SAFETY: the array was initialized in full, with 0xEE.
        #[allow(unsafe_code)]
        bytes.push(unsafe { byte.assume_init() });
    }
    bytes
}

/// Looks at every byte that an archived sample leads to.
fn walk(sample: &ArchivedSample) -> u64 {
    let mut sum = sample.number.to_native();
    sum = sum.wrapping_add(sample.path.chars().map(u64::from).sum());
    for tag in sample.tags.iter() {
        sum = sum.wrapping_add(tag.chars().map(u64::from).sum());
    }
    for kind in sample.kinds.iter() {
        sum = sum.wrapping_add(match kind {
            ArchivedKind::Nothing => 1,
            ArchivedKind::Named(name) => name.chars().map(u64::from).sum(),
            ArchivedKind::Sized { bytes, parts } => {
                parts.iter().fold(bytes.to_native(), |sum, part| sum.wrapping_add(part.to_native().into()))
            }
        });
    }
    if let Some(pair) = sample.maybe.as_ref() {
        sum = sum.wrapping_add(u64::from(pair.0)).wrapping_add(u64::from(pair.1.to_native()));
    }
    sample.body.iter().fold(sum, |sum, byte| sum.wrapping_add((*byte).into()))
}

#[test]
fn a_message_comes_back_as_it_was_sent() {
    let bytes = archive(&sample());
    let archived = access::<Sample>(&bytes).unwrap();
    assert_eq!(archived.path.as_str(), sample().path);
    assert_eq!(to_owned::<Sample>(archived).unwrap(), sample());
}

#[test]
fn an_encoded_message_takes_exactly_its_counted_length() {
    let length_bytes = encoded_len(&sample(), &mut Scratch::new()).unwrap();
    assert_eq!(length_bytes, archive(&sample()).len());
    let mut memory = Memory::<1024>([MaybeUninit::uninit(); 1024]);
    assert_eq!(encode(&sample(), &mut memory.0[..length_bytes], &mut Scratch::new()), Ok(length_bytes));
}

#[test]
fn a_slot_too_small_is_an_outcome_at_every_length() {
    let length_bytes = archive(&sample()).len();
    let mut memory = Memory::<1024>([MaybeUninit::uninit(); 1024]);
    let mut scratch = Scratch::new();
    for short in 0..length_bytes {
        let outcome = encode(&sample(), &mut memory.0[..short], &mut scratch);
        assert_eq!(outcome, Err(EncodeError::SlotTooSmall), "a slot of {short} bytes");
    }
    assert_eq!(scratch.capacity_bytes(), Scratch::INLINE_BYTES, "a full slot is not a full scratch");
}

#[test]
fn a_list_of_many_strings_makes_the_scratch_grow_once() {
    let mut many = sample();
    many.tags = (0..20_000).map(|n| format!("a tag of some length, number {n}")).collect();
    let mut scratch = Scratch::new();
    let length_bytes = encoded_len(&many, &mut scratch).unwrap();
    let grown_bytes = scratch.capacity_bytes();
    assert!(grown_bytes > Scratch::INLINE_BYTES);
    let mut slot: Vec<MaybeUninit<u8>> = vec![MaybeUninit::uninit(); length_bytes + 16];
    let start = slot.as_ptr().align_offset(MESSAGE_ALIGN);
    assert_eq!(encode(&many, &mut slot[start..start + length_bytes], &mut scratch), Ok(length_bytes));
    assert_eq!(scratch.capacity_bytes(), grown_bytes);
}

#[test]
fn a_message_beyond_the_largest_frame_is_refused_before_rkyv_panics() {
    let mut large = sample();
    large.body = vec![0; MESSAGE_BYTES_MAX + 1];
    let outcome = encoded_len(&large, &mut Scratch::new());
    assert_eq!(outcome, Err(EncodeError::TooLarge { message: "Sample" }));
    let mut memory = Memory::<1024>([MaybeUninit::uninit(); 1024]);
    assert_eq!(encode(&large, &mut memory.0, &mut Scratch::new()), Err(EncodeError::SlotTooSmall));
}

#[test]
fn padding_inside_an_archive_shows_nothing_older() {
    let bytes =
        archive(&Sample { path: String::new(), tags: vec![], kinds: vec![Kind::Nothing], ..sample() });
    assert!(!bytes.contains(&0xEE), "a byte of the slot's past is in the archive");
}

#[test]
fn an_error_names_the_type_the_length_and_the_reason() {
    let mut bytes = archive(&sample());
    let text = bytes.iter().position(|byte| *byte == b'/').unwrap();
    bytes[text] = 0xff;
    let error = access::<Sample>(&bytes).err().unwrap().to_string();
    assert!(error.starts_with(&format!("{} bytes are not a valid `Sample`: ", bytes.len())), "{error}");
    assert!(error.contains("UTF-8"), "{error}");
}

#[test]
fn an_archive_cut_short_is_an_error_at_every_length() {
    let bytes = archive(&sample());
    for short in 0..size_of::<ArchivedSample>() {
        assert!(access::<Sample>(&bytes[..short]).is_err(), "{short} bytes");
    }
    assert!(access::<Sample>(&bytes[1..]).is_err(), "not aligned");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn random_bytes_are_an_error_or_can_be_read_to_the_end(random in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = AlignedVec::<16>::new();
        bytes.extend_from_slice(&random);
        if let Ok(archived) = access::<Sample>(&bytes) {
            walk(archived);
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error_or_can_be_read_to_the_end(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = archive(&sample());
        let length_bytes = bytes.len();
        for (at, byte) in damage {
            bytes[at.index(length_bytes)] = byte;
        }
        if let Ok(archived) = access::<Sample>(&bytes) {
            walk(archived);
        }
    }

    #[test]
    fn any_sample_survives_the_way(
        number: u64, path: String, tags in prop::collection::vec(any::<String>(), 0..6), body: Vec<u8>,
        maybe: Option<(u8, char)>,
    ) {
        let maybe = maybe.map(Box::new);
        let sent = Sample { number, path, tags, kinds: vec![Kind::Nothing], maybe, body };
        let length_bytes = encoded_len(&sent, &mut Scratch::new()).unwrap();
        prop_assume!(length_bytes <= 8192);
        let bytes = archive(&sent);
        prop_assert_eq!(bytes.len(), length_bytes);
        prop_assert_eq!(to_owned::<Sample>(access::<Sample>(&bytes).unwrap()).unwrap(), sent);
    }
}
