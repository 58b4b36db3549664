//! Messages: encoded straight into a claim, read in place from a lease.
//!
//! What lives here: the trait of a message, [`encode`], [`encoded_len`] and [`access`]. Where the bytes lie and when
//! they become visible is the lane's business; which type they have is in `fingerprint.rs`; the bytes that an archive is
//! written to are in `slot.rs`. There is no unsafe here: rkyv's validation is what stands between a peer's bytes and a reference.
//!
//! A type that contains itself cannot have a fingerprint, hence is no message. So the depth of every archive is
//! bounded by its type, and no archive can exhaust the stack of whoever validates it.

use core::fmt;
use core::mem::{MaybeUninit, align_of};

use rkyv::api::low::{self, LowDeserializer, LowSerializer, LowValidator};
use rkyv::api::serialize_using;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{BoxedError, Failure, Source, Strategy};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::{Positional, Serializer, Writer};
use rkyv::{Archive, Deserialize, Serialize};

use crate::fingerprint::Typed;
pub use crate::slot::Slot;

/// The alignment of every payload: no archived type may ask for more.
pub const MESSAGE_ALIGN: usize = 16;

/// The longest archive. Far inside the ±2 GiB that an archived pointer reaches (beyond it rkyv panics).
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A type that can be sent: `#[shoal_agent::message]` implements it.
///
/// The bounds are what rkyv's low-level interface needs: serialized without a heap, always validated, and once more
/// with [`BoxedError`] to say what was wrong.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Shoal message",
    note = "mark its definition with `#[shoal_agent::message]`"
)]
pub trait Message:
    Typed
    + Archive<
        Archived: for<'a> CheckBytes<LowValidator<'a, Failure>>
                      + for<'a> CheckBytes<LowValidator<'a, BoxedError>>
                      + Deserialize<Self, LowDeserializer<Failure>>,
    > + for<'a> Serialize<LowSerializer<Slot<'a>, SubAllocator<'a>, Failure>>
    + for<'a> Serialize<LowSerializer<Counter, SubAllocator<'a>, Failure>>
    + for<'a> Serialize<LowSerializer<Counter, SubAllocator<'a>, BoxedError>>
    + Sized
    + 'static
{
    /// The name that the swarm file uses.
    const NAME: &'static str;
}

/// Why a message was not encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The slot is too small for this message; [`encoded_len`] says what it needs. An outcome, not a fault.
    SlotTooSmall,
    /// The message takes more than [`MESSAGE_BYTES_MAX`]: no slot can hold it.
    TooLarge {
        /// The message's type.
        message: &'static str,
    },
    /// Serializing failed for another reason: more scratch than is ever given, or an error from a hand-written
    /// implementation.
    Refused {
        /// The message's type.
        message: &'static str,
        /// What rkyv said.
        reason: String,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotTooSmall => write!(f, "the claimed slot is too small for this message"),
            Self::TooLarge { message } => {
                write!(
                    f,
                    "this `{message}` takes more than {} MiB, the most a frame holds",
                    MESSAGE_BYTES_MAX >> 20
                )
            }
            Self::Refused { message, reason } => {
                write!(f, "this `{message}` could not be serialized: {reason}")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

/// Why bytes are not the message they were said to be: evidence against their writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessError {
    /// The type that was expected.
    pub message: &'static str,
    /// How many bytes were looked at.
    pub length_bytes: usize,
    /// What the validation said.
    pub reason: String,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are not a valid `{}`: {}", self.length_bytes, self.message, self.reason)
    }
}

impl std::error::Error for AccessError {}

/// Memory that serializing needs besides the slot: for a `Vec` of anything but plain numbers, a few words for each
/// element until the elements are written. One per producer, used again for every message.
///
/// It begins with 4 KiB inline. A message that needs more makes it grow, once; from then on nothing is allocated.
pub struct Scratch {
    inline: [MaybeUninit<u8>; Scratch::INLINE_BYTES],
    grown: Box<[MaybeUninit<u8>]>,
}

impl Scratch {
    const INLINE_BYTES: usize = 4 << 10;
    /// Some two million elements. A message that needs more is refused.
    const BYTES_MAX: usize = 64 << 20;

    /// Creates the arena, without allocating.
    #[must_use]
    pub fn new() -> Self {
        Self { inline: [MaybeUninit::uninit(); Self::INLINE_BYTES], grown: Box::default() }
    }

    /// How many bytes it holds now.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.grown.len().max(Self::INLINE_BYTES)
    }

    fn allocator(&mut self) -> SubAllocator<'_> {
        if self.grown.is_empty() {
            SubAllocator::new(&mut self.inline)
        } else {
            SubAllocator::new(&mut self.grown)
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("capacity_bytes", &self.capacity_bytes()).finish()
    }
}

/// Counts the bytes of an archive and keeps none. Named only in the bounds of [`Message`].
#[derive(Debug, Default)]
pub struct Counter {
    length_bytes: usize,
    is_full: bool,
}

impl Positional for Counter {
    #[inline]
    fn pos(&self) -> usize {
        self.length_bytes
    }
}

impl<E: Source> Writer<E> for Counter {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        if bytes.len() > MESSAGE_BYTES_MAX - self.length_bytes {
            self.is_full = true;
            return Err(slot_is_full());
        }
        self.length_bytes += bytes.len();
        Ok(())
    }
}

#[cold]
pub(crate) fn slot_is_full<E: Source>() -> E {
    E::new(EncodeError::SlotTooSmall)
}

/// Serializes `message` straight into `slot`, which is aligned to [`MESSAGE_ALIGN`]; returns the exact length of the
/// archive, which begins at the slot's first byte. Padding inside the archive is zeroed, so nothing older shows.
///
/// Allocates nothing, except when `scratch` has to grow. On an error, or if a panic of a hand-written implementation
/// passes through, the slot's bytes are undefined and must not be published.
///
/// # Errors
/// [`EncodeError::SlotTooSmall`] is an outcome; the others are permanent for this message.
///
/// # If we die here
/// The slot lies past the lane's tail: no reader looks at it, the next incarnation's lane does not contain it.
#[inline]
pub fn encode<M: Message>(
    message: &M,
    slot: &mut [MaybeUninit<u8>],
    scratch: &mut Scratch,
) -> Result<usize, EncodeError> {
    const { assert!(align_of::<M::Archived>() <= MESSAGE_ALIGN, "a payload is aligned to 16 bytes") };
    let capacity_bytes = slot.len().min(MESSAGE_BYTES_MAX);
    let mut grow = Growth::new();
    loop {
        let slot = Slot::new(&mut slot[..capacity_bytes]);
        let mut serializer = Serializer::new(slot, scratch.allocator(), ());
        let resolver = message.serialize(Strategy::<_, Failure>::wrap(&mut serializer));
        let mut slot = serializer.writer;
        match resolver.and_then(|resolver| slot.root(message, resolver)) {
            Ok(()) => return Ok(slot.len()),
            Err(Failure) if slot.is_full() && capacity_bytes < MESSAGE_BYTES_MAX => {
                return Err(EncodeError::SlotTooSmall);
            }
            Err(Failure) if slot.is_full() => {
                return Err(EncodeError::TooLarge { message: M::NAME });
            }
            Err(Failure) => {}
        }
        grow.next(message, scratch)?;
    }
}

/// Counts how long the archive of `message` is, without writing it anywhere: for the producer whose free space is
/// cut by the ring's end. It costs about as much as [`encode`] without the copy.
///
/// # Errors
/// As [`encode`], but a slot is never too small.
pub fn encoded_len<M: Message>(message: &M, scratch: &mut Scratch) -> Result<usize, EncodeError> {
    let mut grow = Growth::new();
    loop {
        let mut serializer = Serializer::new(Counter::default(), scratch.allocator(), ());
        match serialize_using::<_, Failure>(message, &mut serializer) {
            Ok(_) => return Ok(serializer.writer.length_bytes),
            Err(Failure) if serializer.writer.is_full => {
                return Err(EncodeError::TooLarge { message: M::NAME });
            }
            Err(Failure) => {}
        }
        grow.next(message, scratch)?;
    }
}

/// The attempts with ever more scratch. rkyv does not say how much was missing, so the arena is multiplied by
/// eight: at most five attempts, once in the life of a producer.
struct Growth {
    before: Option<Box<[MaybeUninit<u8>]>>,
}

impl Growth {
    fn new() -> Self {
        Self { before: None }
    }

    /// Grows `scratch`. If it already holds all that is ever given, takes back what did not help, and says what
    /// rkyv says.
    #[cold]
    fn next<M: Message>(&mut self, message: &M, scratch: &mut Scratch) -> Result<(), EncodeError> {
        let capacity_bytes = scratch.capacity_bytes();
        if capacity_bytes < Scratch::BYTES_MAX {
            let wanted_bytes = (capacity_bytes * 8).min(Scratch::BYTES_MAX);
            let smaller = core::mem::replace(&mut scratch.grown, Box::new_uninit_slice(wanted_bytes));
            self.before.get_or_insert(smaller);
            return Ok(());
        }
        let mut serializer = Serializer::new(Counter::default(), scratch.allocator(), ());
        let reason = match serialize_using::<_, BoxedError>(message, &mut serializer) {
            Ok(_) => "it failed once and then passed: its Serialize is not deterministic".to_owned(),
            Err(error) => error.to_string(),
        };
        if let Some(before) = self.before.take() {
            scratch.grown = before;
        }
        Err(EncodeError::Refused { message: M::NAME, reason })
    }
}

/// Reads `bytes`, an archive of exactly this length, in place. The whole archive is validated every time: pointers,
/// bounds, UTF-8, discriminants. Allocates nothing.
///
/// # Errors
/// If the bytes are not a valid `M`; the reason is found by a second pass. Bytes of *another* type may well be valid:
/// compare fingerprints first.
#[inline]
pub fn access<M: Message>(bytes: &[u8]) -> Result<&M::Archived, AccessError> {
    match low::access::<M::Archived, Failure>(bytes) {
        Ok(archived) => Ok(archived),
        Err(Failure) => Err(explain::<M>(bytes)),
    }
}

#[cold]
fn explain<M: Message>(bytes: &[u8]) -> AccessError {
    let reason = match low::access::<M::Archived, BoxedError>(bytes) {
        Ok(_) => "it failed once and then passed: somebody writes these bytes".to_owned(),
        Err(error) => error.to_string(),
    };
    AccessError { message: M::NAME, length_bytes: bytes.len(), reason }
}

/// Makes an owned message of an archived one. This one allocates, as the message's own `String`s and `Vec`s do.
///
/// # Errors
/// If the memory for a part cannot be described (a hand-written implementation; never after [`access`] otherwise).
pub fn to_owned<M: Message>(archived: &M::Archived) -> Result<M, AccessError> {
    low::deserialize::<M, Failure>(archived).map_err(|Failure| AccessError {
        message: M::NAME,
        length_bytes: size_of::<M::Archived>(),
        reason: "it could not be copied out of the archive".to_owned(),
    })
}

#[cfg(test)]
mod tests;
