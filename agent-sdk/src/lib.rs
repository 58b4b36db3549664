//! Write a Shoal agent: a small program that is given messages and sends messages.
//!
//! The normal form is a handler over a *step*. What the handler sends, and the acknowledgement of the message that it was
//! given, become visible together when it returns `Ok`; on `Err`, on a panic, or when the process is killed, none of it
//! does, and the message comes again.
//!
//! ```no_run
//! #[shoal_agent::message] struct Task { path: String }
//! #[shoal_agent::message] struct Count { path: String, words: u64 }
//!
//! fn main() -> std::process::ExitCode {
//!     shoal_agent::run(|agent| {
//!         let counts = agent.publish::<Count>("counts")?;
//!         agent.on::<Task>("tasks", move |step, task| {
//!             let text = std::fs::read(task.path.as_str())?;
//!             let words = text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).count() as u64;
//!             step.send(&counts, &Count { path: task.path.to_string(), words })
//!         })?;
//!         agent.serve()
//!     })
//! }
//! ```
//!
//! - Messages are marked with [`macro@message`] and read in place: a handler sees the archived form of its type.
//! - [`Agent::receive`] is the loop form, [`Agent::arm`] is for async runtimes, [`Agent::send`] for sources.
//! - [`Agent::batch`], and [`Received::advance`] in the loop form, let a step take several messages that are there already: many small
//!   ones cost half as much so. One that fails there is tried by itself before that counts.
//! - [`Agent::on_gone`], in the loop form [`Agent::gone`], tells which peers will not come back.
//! - A handler that returns a [`Reject`] gives its message up for good; a message that was given in vain several times is given
//!   up by itself. Both lie with the dead letters (`shoal dlq`).
//! - [`Bytes`] are large buffers written by hand, straight into the lane.
//! - [`secret()`] reads what the swarm file hands over as a secret.
//! - [`harness`] tests an agent without a supervisor.
//! - Which channels there are, and who publishes and subscribes them, stands in the swarm file; a mismatch is an error that
//!   names the line.
#![forbid(unsafe_code)]

mod agent;
mod core;
mod error;
mod gone;
mod handle;
pub mod harness;
mod log;
mod payload;
mod run;
mod secret;
mod state;
mod step;

pub use agent::{Agent, Next, Peers};
pub use error::{Error, InvalidMessage, Reject, Result, SendError, SupervisorGone};
pub use handle::{Publisher, Subscription};
pub use payload::{Bytes, Payload};
pub use run::{EXIT_SUPERVISOR_GONE, run};
pub use secret::{Secret, secret};
pub use state::State;
pub use step::{MessageId, Received, SEND_TIMEOUT, Step};

/// The library that archives messages, for those who want its types by name.
pub use rkyv;
pub use shoal_agent_macros::message;
pub use shoal_runtime::LargePages;
pub use shoal_runtime::message::{AccessError, EncodeError, Message};

use log::Log;

/// Where an agent waits and whom it tells: the control socket, or a harness. Never on the hot path.
type Port = Box<dyn shoal_runtime::port::Control>;

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
