//! The attribute `#[message]`. Users name it `#[shoal_agent::message]`; what it makes of a type is in `message.rs`.

mod message;

use proc_macro::TokenStream;

/// Makes a struct or an enum a Shoal message: adds the rkyv derives, the fingerprint and the name.
///
/// The archived form of `Task` is `ArchivedTask`, with the same fields: a handler reads `task.path.as_str()` in
/// place. Every field is a type that has a fingerprint: a primitive, `String`, `Vec`, `Option`, `Box`, an array, a
/// tuple, or another `#[message]`. Generic and recursive types are refused.
#[proc_macro_attribute]
pub fn message(arguments: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(&arguments.into(), item.into()).into()
}
