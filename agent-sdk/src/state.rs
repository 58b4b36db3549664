//! The state of an agent: a small value that its next incarnation finds exactly as it was at the last commit.

use crate::error::{Error, Result};
use shoal_runtime::message::{self, EncodeError, Message, Scratch};
use shoal_runtime::state::StateWriter;
use std::fmt;
use std::marker::PhantomData;

/// The agent's one state, of type `S`: a plain handle, made by [`crate::Agent::state`].
///
/// A step reads it with `load` and changes it with `keep`; a change becomes real with everything else that the step does, or
/// not at all. There is one: what else is to be kept is a field of it.
/// ```no_run
/// #[shoal_agent::message] struct Tick { by: u64 }
/// #[shoal_agent::message] struct Total { sum: u64 }
///
/// fn main() -> std::process::ExitCode {
///     shoal_agent::run(|agent| {
///         let total = agent.state::<Total>()?;
///         agent.on::<Tick>("ticks", move |step, tick| {
///             let sum = step.load(&total)?.map_or(0, |t| t.sum) + tick.by.to_native();
///             step.keep(&total, &Total { sum })
///         })?;
///         agent.serve()
///     })
/// }
/// ```
pub struct State<S> {
    carries: PhantomData<fn(S) -> S>,
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for State<S> {}

impl<S> fmt::Debug for State<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl<S: Message> State<S> {
    /// A handle, if what was kept is of this type.
    pub(crate) fn open(agent: &str, writer: &StateWriter) -> Result<Self> {
        match writer.value() {
            Some((_, kept)) if kept != S::FINGERPRINT.0 => Err(Error::from(format!(
                "agent `{agent}` kept a state of fingerprint {kept:016x}, but `{}` is {} in this build: go back to the former \
                 definition, or start the swarm anew, which begins without a state",
                S::NAME,
                S::FINGERPRINT
            ))),
            _ => Ok(State { carries: PhantomData }),
        }
    }
}

/// Refuses a state beside another: both would lie in one place.
pub(crate) fn second(agent: &str, first: &str, second: &str) -> Error {
    Error::from(format!(
        "agent `{agent}` asks for a state `{second}` and has one already, `{first}`: an agent has one state, so put both in one message"
    ))
}

/// The value as the step in hand sees it.
pub(crate) fn load<S: Message>(writer: &StateWriter) -> Result<Option<S>> {
    let Some((bytes, _)) = writer.value() else { return Ok(None) };
    Ok(Some(message::to_owned::<S>(message::access::<S>(bytes)?)?))
}

/// Changes the value, as a part of the step in hand.
pub(crate) fn keep<S: Message>(writer: &mut StateWriter, scratch: &mut Scratch, value: &S) -> Result<()> {
    let mut problem = None;
    let fits = writer.replace(S::FINGERPRINT.0, |slot| match message::encode(value, slot, scratch) {
        // An empty archive is still a value.
        Ok(len) => Some(len.max(1)),
        Err(error) => {
            problem = Some(error);
            None
        }
    });
    match problem {
        _ if fits => Ok(()),
        Some(EncodeError::SlotTooSmall) | None => {
            let takes =
                message::encoded_len(value, scratch).map_or(String::new(), |n| format!(" of {n} bytes"));
            Err(Error::from(format!(
                "a state `{}`{takes} is too large: a state takes up to {} bytes; keep what is larger in a store of its own",
                S::NAME,
                writer.max_bytes()
            )))
        }
        Some(error) => Err(error.into()),
    }
}
