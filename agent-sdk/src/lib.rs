//! The SDK.
#![forbid(unsafe_code)]

/// The library that archives messages, for those who want its types by name.
pub use rkyv;
pub use shoal_agent_macros::message;

/// What the expansion of `#[message]` names. Not for use by hand.
///
/// What cannot be sent does not compile:
/// ```compile_fail
/// #[shoal_agent::message] struct T { shared: std::sync::Arc<u8> }
/// ```
/// ```compile_fail
/// #[shoal_agent::message] struct T { map: std::collections::HashMap<u8, u8> }
/// ```
/// ```compile_fail,E0277
/// #[shoal_agent::message] struct T { length: usize }
/// ```
/// ```compile_fail,E0275
/// #[shoal_agent::message] struct A { b: Vec<B> }
/// #[shoal_agent::message] struct B { a: Vec<A> }
/// ```
/// and the same with what can:
/// ```
/// #[shoal_agent::message] struct T { shared: Box<u8>, map: Vec<(u8, u8)>, length: u64, b: Vec<B> }
/// #[shoal_agent::message] struct B { a: Vec<u8> }
/// ```
#[doc(hidden)]
pub mod __private {
    pub use shoal_runtime::fingerprint::{Fingerprint, FingerprintBuilder, Typed};
    pub use shoal_runtime::message::{MESSAGE_ALIGN, Message};
}
