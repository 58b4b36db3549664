//! Giving a message up: its bytes to the dead letters, then the acknowledgement by itself.

use super::{Parts, Received, Step};
use crate::error::{self, Error, Result};
use crate::handle;
use crate::payload::Payload;
use shoal_runtime::consumer::{Cursor, Frame};
use shoal_runtime::wire::Park;

/// A leased message and what acknowledges it.
pub(crate) struct Lease<'a> {
    pub(crate) index: usize,
    pub(crate) frame: &'a Frame,
    /// Its payload as it came, not validated.
    pub(crate) bytes: &'a [u8],
    pub(crate) cursor: &'a mut Cursor,
}

/// Parks a message. What its step has sent is forgotten; when the supervisor has stored the message, it is acknowledged.
///
/// # If we die here
/// Before it is stored nothing has happened. After that the supervisor tells the next incarnation that the message is settled,
/// and it comes here again before any handler: it is stored once.
///
/// # Errors
/// The runtime's, or in words that the supervisor refused.
#[cold]
pub(crate) fn park(
    parts: &mut Parts<'_>,
    lease: Lease<'_>,
    attempts: u32,
    rejected: bool,
    why: &str,
) -> Result<()> {
    let Lease { index, frame, bytes, cursor } = lease;
    parts.outputs.abort();
    let letter = Park {
        input: index as u32,
        at: frame.at,
        len_bytes: bytes.len() as u64,
        attempts,
        rejected,
        why: why.to_owned(),
    };
    if let Err(refusal) = parts.world.give_up(letter, bytes).map_err(error::of_runtime)? {
        let id = handle::message_id(parts.manifest, index, frame);
        return Err(Error::from(format!("message {id} cannot be put with the dead letters: {refusal}")));
    }
    parts.outputs.commit(Some((index, cursor, frame)), parts.world).map_err(error::of_runtime)?;
    parts.world.desk.release();
    Ok(())
}

impl Step<'_> {
    /// Parks the message of this step, which its handler rejects.
    #[cold]
    pub(crate) fn reject(mut self, cursor: &mut Cursor, bytes: &[u8], reason: &str) -> Result<()> {
        self.why = format!("rejected: {reason}");
        let attempts = self.attempt();
        let Some(input) = &self.input else { return Err("there is no message to reject".into()) };
        let lease = Lease { index: input.index, frame: &input.frame, bytes, cursor };
        park(&mut self.parts, lease, attempts, true, reason)?;
        self.done = true;
        Ok(())
    }
}

impl<T: Payload> Received<'_, T> {
    /// Gives the message up for good: nothing that was sent for it becomes visible, and it lies with the dead letters from now
    /// on, with this reason (`shoal dlq list`). The next receive goes on with the message behind it.
    ///
    /// In a step of several ([`Received::advance`]) nothing of the step happens instead: its messages come again, this one in a step that
    /// it begins, to be given up there.
    ///
    /// # Errors
    /// The supervisor cannot store it, or is gone.
    pub fn reject(self, reason: &str) -> Result<()> {
        let Received { step, cursor, bytes, .. } = self;
        let step = step.into_inner();
        if step.is_along() { Ok(()) } else { step.reject(cursor, bytes, reason) }
    }
}
