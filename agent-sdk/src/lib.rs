//! The SDK.
#![forbid(unsafe_code)]

/// The library that archives messages, for those who want its types by name.
pub use rkyv;
pub use shoal_agent_macros::message;

/// What the expansion of `#[message]` names. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use shoal_runtime::fingerprint::{Fingerprint, FingerprintBuilder, Typed};
    pub use shoal_runtime::message::{MESSAGE_ALIGN, Message};
}
