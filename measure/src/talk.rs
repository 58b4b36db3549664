//! Sending and receiving on the bare runtime, the whole way: encode into the claim, commit, publish, fence, look at parked words
//! and the epoch; poll, validate in place, acknowledge, fence, look at wants.

use crate::load::Freight;
use shoal_runtime::attachment::{Attachment, Encode, Found};
use shoal_runtime::consumer::Frame;
use shoal_runtime::links::Port;
use shoal_runtime::message::Scratch;
use std::io;
use std::mem::MaybeUninit;

/// An agent with one lane.
pub struct Talker<P> {
    /// What it is attached by.
    pub at: Attachment<P>,
    scratch: Scratch,
    inputs: Vec<usize>,
    /// An input, and the message on it that is in hand. It stays where it was found: who moved it would wait for its parts to be
    /// stored, to load them as a whole.
    in_hand: Option<(usize, Frame)>,
}

/// A message, and what encoding it needs.
struct Sending<'a, L> {
    load: &'a L,
    scratch: &'a mut Scratch,
}

impl<L: Freight> Encode for Sending<'_, L> {
    #[inline(always)]
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        self.load.encode(slot, self.scratch)
    }

    fn exact(&mut self) -> Option<usize> {
        self.load.encoded_len(self.scratch).ok()
    }
}

impl<P: Port> Talker<P> {
    /// Sends on lane 0 and reads all inputs.
    pub fn new(at: Attachment<P>) -> Self {
        let inputs = (0..at.manifest.inputs.len()).collect();
        Talker { at, scratch: Scratch::new(), inputs, in_hand: None }
    }

    /// Writes the message of this number, hidden.
    ///
    /// # Errors
    /// The supervisor is gone, or the lane refuses.
    #[inline]
    pub fn write<L: Freight>(&mut self, load: &mut L, number: u64) -> io::Result<()> {
        load.number(number);
        let Attachment { outputs, world, .. } = &mut self.at;
        let written = match load.by_hand() {
            Some(bytes) => outputs
                .write_by_hand(0, bytes, world, None, |slot| {
                    crate::load::fill(&mut slot[..bytes], number);
                    Ok::<_, io::Error>(bytes)
                })?
                .map(|_| ()),
            None => outputs.write(0, world, None, &mut Sending { load, scratch: &mut self.scratch })?,
        };
        written.map_err(|error| io::Error::other(format!("{error:?}")))
    }

    /// Commits what was written and, if there is one, the acknowledgement of the message in hand.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn commit(&mut self) -> io::Result<()> {
        let Attachment { outputs, inputs, world, .. } = &mut self.at;
        let input = self.in_hand.as_ref().map(|(input, frame)| {
            let (_, cursor) = inputs.consumer(*input).split();
            (*input, cursor, frame)
        });
        outputs.commit(input, world)?;
        self.in_hand = None;
        Ok(())
    }

    /// Commits what was written by itself: the message in hand stays there.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn commit_sent(&mut self) -> io::Result<()> {
        let Attachment { outputs, world, .. } = &mut self.at;
        outputs.commit(None, world)
    }

    /// Looks once for a message: true if it is in hand now.
    #[inline]
    pub fn look(&mut self) -> bool {
        match self.at.inputs.look(&self.inputs, &mut self.at.world, false) {
            Some(Found::Message(input, frame)) => {
                self.in_hand = Some((input, frame));
                true
            }
            _ => false,
        }
    }

    /// Takes the message behind the one in hand, if it is there already: both are acknowledged together.
    #[inline]
    pub fn look_behind(&mut self) -> bool {
        let Some((input, in_hand)) = &mut self.in_hand else { return false };
        let (sources, cursor) = self.at.inputs.consumer(*input).split();
        let Some(frame) = sources.behind(in_hand) else { return false };
        cursor.take_along(&frame);
        *in_hand = frame;
        true
    }

    /// The input of the message in hand.
    ///
    /// # Panics
    /// There is none.
    pub fn input(&self) -> usize {
        self.in_hand.as_ref().expect("a message is in hand").0
    }

    /// Looks until there is a message.
    ///
    /// # Errors
    /// None; as the other ways of waiting have it.
    #[inline]
    pub fn spin(&mut self) -> io::Result<()> {
        while !self.look() {}
        Ok(())
    }

    /// Waits for a message as the SDK does.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn wait(&mut self) -> io::Result<()> {
        let Attachment { inputs, world, .. } = &mut self.at;
        let among = &self.inputs;
        let found = world.wait(None, |world, thorough| inputs.look(among, world, thorough))?;
        self.in_hand = Some(taken(found)?);
        Ok(())
    }

    /// Takes a message, and sleeps at once when there is none.
    ///
    /// # Errors
    /// The supervisor is gone.
    #[inline]
    pub fn park(&mut self) -> io::Result<()> {
        if self.look() {
            return Ok(());
        }
        let Attachment { inputs, world, .. } = &mut self.at;
        let among = &self.inputs;
        let found = world.park(None, &mut |world, thorough| inputs.look(among, world, thorough))?;
        self.in_hand = Some(taken(found)?);
        Ok(())
    }

    /// Leases the message in hand, looks at it in place, validated, and whether it is the one of this number; returns when it was sent.
    ///
    /// # Errors
    /// It is not.
    ///
    /// # Panics
    /// There is none in hand.
    #[inline]
    pub fn read<L: Freight>(&mut self, load: &L, number: u64) -> io::Result<u64> {
        let (input, frame) = self.in_hand.as_ref().expect("a message is in hand");
        let (sources, _) = self.at.inputs.consumer(*input).split();
        assert!(sources.lease(frame));
        load.check(sources.leased(frame), number)
    }
}

fn taken(found: Option<Found>) -> io::Result<(usize, Frame)> {
    match found {
        Some(Found::Message(input, frame)) => Ok((input, frame)),
        other => Err(io::Error::other(format!("{other:?} instead of a message"))),
    }
}
