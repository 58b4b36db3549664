//! Sending and receiving on the bare runtime, the whole way: encode into the claim, commit, publish, fence, look at parked words
//! and the epoch; poll, validate in place, acknowledge, fence, look at wants.

use crate::Quote;
use shoal_runtime::attachment::{Attachment, Encode, Found};
use shoal_runtime::consumer::Frame;
use shoal_runtime::links::Port;
use shoal_runtime::message::{self, Scratch};
use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;

/// An input and a message on it.
pub type Got = (usize, Frame);

/// An agent with one lane and one input.
pub struct Talker<P> {
    /// What it is attached by.
    pub at: Attachment<P>,
    /// What it sends.
    pub sending: Sending,
}

/// A message, and what encoding it needs.
pub struct Sending {
    /// The message.
    pub quote: Quote,
    scratch: Scratch,
}

impl Encode for Sending {
    #[inline]
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        message::encode(black_box(&self.quote), slot, &mut self.scratch).ok()
    }

    fn exact(&mut self) -> Option<usize> {
        message::encoded_len(&self.quote, &mut self.scratch).ok()
    }
}

impl<P: Port> Talker<P> {
    /// Sends on lane 0 and reads input 0.
    pub fn new(at: Attachment<P>) -> Self {
        Talker { at, sending: Sending { quote: Quote::example(), scratch: Scratch::new() } }
    }

    /// Writes one message, hidden.
    ///
    /// # Errors
    /// The supervisor is gone, or the lane refuses.
    #[inline]
    pub fn write(&mut self) -> io::Result<()> {
        self.sending.quote.number += 1;
        let written = self.at.outputs.write(0, &mut self.at.world, None, &mut self.sending)?;
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
        match self.at.inputs.look(&[0], &mut self.at.world, false) {
            Some(Found::Message(input, frame)) => Some((input, frame)),
            _ => None,
        }
    }

    /// Leases a message and looks at it in place, validated; returns when it was sent.
    ///
    /// # Errors
    /// It is none.
    #[inline]
    pub fn read(&mut self, got: &Got) -> io::Result<u64> {
        let (sources, _) = self.at.inputs.consumer(got.0).split();
        assert!(sources.lease(&got.1));
        let quote = message::access::<Quote>(sources.leased(&got.1)).map_err(io::Error::other)?;
        black_box(quote.number.to_native());
        black_box(quote.prices[1].to_native());
        Ok(quote.sent_ns.to_native())
    }
}
