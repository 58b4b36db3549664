//! What a channel carries: a typed message, or raw bytes.

use shoal_runtime::fingerprint::{Fingerprint, FingerprintBuilder};
use shoal_runtime::message::{self, AccessError, Message};

/// What a channel carries: a type marked with [`macro@crate::message`], or [`Bytes`].
///
/// There is nothing to implement: messages have it.
pub trait Payload: 'static {
    /// What a reader sees, in place.
    type Archived: ?Sized;
    /// A copy of it outside the lane.
    type Owned;
    /// The name that the swarm file uses.
    const NAME: &'static str;
    /// What a writer and a reader must agree on.
    #[doc(hidden)]
    const FINGERPRINT: Fingerprint;

    /// No message is shorter, bytes.
    #[doc(hidden)]
    const MIN_BYTES: usize;

    /// Looks at the bytes of a message, validated.
    #[doc(hidden)]
    fn access(bytes: &[u8]) -> Result<&Self::Archived, AccessError>;

    /// Copies a message out of the lane: this one allocates.
    ///
    /// # Errors
    /// Only for a type with a hand-written implementation of its parts.
    fn to_owned(archived: &Self::Archived) -> Result<Self::Owned, AccessError>;
}

impl<M: Message> Payload for M {
    type Archived = M::Archived;
    type Owned = M;
    const NAME: &'static str = <M as Message>::NAME;
    const FINGERPRINT: Fingerprint = <M as shoal_runtime::fingerprint::Typed>::FINGERPRINT;
    const MIN_BYTES: usize = size_of::<M::Archived>();

    #[inline]
    fn access(bytes: &[u8]) -> Result<&Self::Archived, AccessError> {
        message::access::<M>(bytes)
    }

    fn to_owned(archived: &Self::Archived) -> Result<M, AccessError> {
        message::to_owned::<M>(archived)
    }
}

/// Raw bytes, written by hand straight into the lane (`send_with`) and read as a `&[u8]`: for large buffers. The swarm file
/// says `message = "Bytes"`. They begin 16-aligned.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {}

impl Payload for Bytes {
    type Archived = [u8];
    type Owned = Vec<u8>;
    const NAME: &'static str = "Bytes";
    const FINGERPRINT: Fingerprint = FingerprintBuilder::of::<()>("Bytes").text("raw").finish();
    const MIN_BYTES: usize = 0;

    #[inline]
    fn access(bytes: &[u8]) -> Result<&[u8], AccessError> {
        Ok(bytes)
    }

    fn to_owned(bytes: &[u8]) -> Result<Vec<u8>, AccessError> {
        Ok(bytes.to_vec())
    }
}
