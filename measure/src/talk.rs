//! Sending and receiving on the bare runtime, the whole way: encode into the claim, commit, publish, fence, look at parked words
//! and the epoch; poll, validate in place, acknowledge, fence, look at wants.

use crate::load::Loads;
use shoal_runtime::attachment::{Attachment, Encode, Found};
use shoal_runtime::consumer::Frame;
use shoal_runtime::links::Port;
use shoal_runtime::message::Scratch;
use shoal_runtime::waking;
use std::io;
use std::mem::MaybeUninit;

/// An input and a message on it.
pub type Got = (usize, Frame);

/// An agent with one lane.
pub struct Talker<P> {
    /// What it is attached by.
    pub at: Attachment<P>,
    /// What it sends.
    pub sending: Sending,
    inputs: Vec<usize>,
}

/// A message, and what encoding it needs.
pub struct Sending {
    /// The message.
    pub loads: Loads,
    scratch: Scratch,
}

impl Encode for Sending {
    #[inline]
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        self.loads.encode(slot, &mut self.scratch)
    }

    fn exact(&mut self) -> Option<usize> {
        self.loads.encoded_len(&mut self.scratch).ok()
    }
}

impl<P: Port> Talker<P> {
    /// Sends on lane 0 and reads all inputs.
    pub fn new(at: Attachment<P>) -> Self {
        let inputs = (0..at.manifest.inputs.len()).collect();
        Talker { at, sending: Sending { loads: Loads::of(48), scratch: Scratch::new() }, inputs }
    }

    /// Writes the message of this number, hidden.
    ///
    /// # Errors
    /// The supervisor is gone, or the lane refuses.
    #[inline]
    pub fn write(&mut self, number: u64) -> io::Result<()> {
        self.sending.loads.number(number);
        let Attachment { outputs, world, .. } = &mut self.at;
        let written = match &self.sending.loads {
            Loads::Bytes(bytes, _) => outputs
                .write_by_hand(0, *bytes, world, None, |slot| {
                    crate::load::fill(&mut slot[..*bytes], number);
                    Ok::<_, io::Error>(*bytes)
                })?
                .map(|_| ()),
            _ => outputs.write(0, world, None, &mut self.sending)?,
        };
        written.map_err(|error| io::Error::other(format!("{error:?}")))
    }

    /// Commits what was written and, if there is one, the acknowledgement of a message.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn commit(&mut self, got: Option<Got>) -> io::Result<()> {
        let Attachment { outputs, inputs, world, .. } = &mut self.at;
        let input = got.as_ref().map(|(input, frame)| {
            let (_, cursor) = inputs.consumer(*input).split();
            (*input, cursor, frame)
        });
        outputs.commit(input, world)
    }

    /// Looks once for a message.
    #[inline]
    pub fn look(&mut self) -> Option<Got> {
        match self.at.inputs.look(&self.inputs, &mut self.at.world, false) {
            Some(Found::Message(input, frame)) => Some((input, frame)),
            _ => None,
        }
    }

    /// The message behind one that was got, if it is there already: both are acknowledged together.
    #[inline]
    pub fn look_behind(&mut self, got: &Got) -> Option<Got> {
        let (sources, cursor) = self.at.inputs.consumer(got.0).split();
        let frame = sources.behind(&got.1)?;
        cursor.take_along(&frame);
        Some((got.0, frame))
    }

    /// Looks until there is a message.
    ///
    /// # Errors
    /// None; as the other ways of waiting have it.
    #[inline]
    pub fn spin(&mut self) -> io::Result<Got> {
        loop {
            if let Some(got) = self.look() {
                return Ok(got);
            }
        }
    }

    /// Waits for a message as the SDK does.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn wait(&mut self) -> io::Result<Got> {
        let Attachment { inputs, world, .. } = &mut self.at;
        let among = &self.inputs;
        taken(world.wait(None, |world, thorough| inputs.look(among, world, thorough))?)
    }

    /// Takes a message, and sleeps at once when there is none.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn park(&mut self) -> io::Result<Got> {
        if let Some(got) = self.look() {
            return Ok(got);
        }
        let Attachment { inputs, world, .. } = &mut self.at;
        let among = &self.inputs;
        taken(waking::park(world, None, &mut |world, thorough| inputs.look(among, world, thorough))?)
    }

    /// Leases a message, looks at it in place, validated, and whether it is the one of this number; returns when it was sent.
    ///
    /// # Errors
    /// It is not.
    #[inline]
    pub fn read(&mut self, got: &Got, number: u64) -> io::Result<u64> {
        let (sources, _) = self.at.inputs.consumer(got.0).split();
        assert!(sources.lease(&got.1));
        self.sending.loads.check(sources.leased(&got.1), number)
    }
}

fn taken(found: Option<Found>) -> io::Result<Got> {
    match found {
        Some(Found::Message(input, frame)) => Ok((input, frame)),
        other => Err(io::Error::other(format!("{other:?} instead of a message"))),
    }
}
