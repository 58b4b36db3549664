//! A wire that does wrong what a wire can do wrong, so that the tests see the check fail. No peer is measured with it.

use crate::wire::Wire;
use serde::{Deserialize, Serialize};
use std::io;

/// What a peer can do to a message that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It never comes.
    Lose,
    /// It comes twice.
    Double,
    /// It comes after the next.
    Swap,
    /// A bit of it is another.
    Flip,
}

/// A wire that does something wrong to every seventh message.
pub struct Broken<W> {
    wire: W,
    fault: Fault,
    sent: u64,
    held: Option<Vec<u8>>,
}

impl<W: Wire> Broken<W> {
    /// Around a right one.
    pub fn new(wire: W, fault: Fault) -> Self {
        Broken { wire, fault, sent: 0, held: None }
    }
}

impl<W: Wire> Wire for Broken<W> {
    const BATCHES: bool = W::BATCHES;

    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut message = vec![0; bytes];
        fill(&mut message);
        self.sent += 1;
        let mut pass = |message: &[u8]| self.wire.send(bytes, |slot| slot.copy_from_slice(message));
        match self.fault {
            _ if !self.sent.is_multiple_of(7) => {
                pass(&message)?;
                self.held.take().map_or(Ok(()), |held| pass(&held))
            }
            Fault::Lose => Ok(()),
            Fault::Double => pass(&message).and_then(|()| pass(&message)),
            Fault::Swap => {
                self.held = Some(message);
                Ok(())
            }
            Fault::Flip => {
                message[bytes / 2] ^= 1;
                pass(&message)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }

    fn receive(&mut self, limit: u64, look: impl FnMut(&[u8])) -> io::Result<u64> {
        self.wire.receive(limit, look)
    }
}
