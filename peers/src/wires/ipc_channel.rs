//! Servo's ipc-channel, with channels of bytes, which neither serialize nor open a descriptor for each message, as its shared
//! memory does.

use crate::wire::{Mode, Spinning, Wire, peers_own};
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};
use std::io;

/// One end.
pub struct IpcChannel {
    to: IpcBytesSender,
    from: IpcBytesReceiver,
    buffer: Vec<u8>,
    spins: bool,
}

/// An end that does not have the other's sender yet.
pub struct Offered {
    server: IpcOneShotServer<IpcBytesSender>,
    ours: (IpcBytesSender, IpcBytesReceiver),
}

impl Offered {
    /// Opens a place where the other end finds this one, and says its name.
    ///
    /// # Errors
    /// What the crate says.
    pub fn new() -> io::Result<(Self, String)> {
        let (server, name) = IpcOneShotServer::new()?;
        Ok((Offered { server, ours: bytes_channel()? }, name))
    }

    /// Gives the other end a sender, and takes its.
    ///
    /// # Errors
    /// What the crate says.
    pub fn meet(self, name: &str, mode: Mode) -> io::Result<IpcChannel> {
        let (sender, from) = self.ours;
        let meeting: IpcSender<IpcBytesSender> = IpcSender::connect(name.to_owned())?;
        meeting.send(sender).map_err(peers_own)?;
        let (_, to) = self.server.accept().map_err(peers_own)?;
        Ok(IpcChannel { to, from, buffer: Vec::new(), spins: mode == Mode::Spin })
    }
}

impl Wire for IpcChannel {
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        self.buffer.resize(bytes, 0);
        fill(&mut self.buffer);
        self.to.send(&self.buffer)
    }

    fn receive(&mut self, _limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let message = if self.spins {
            let mut spinning = Spinning::default();
            loop {
                match self.from.try_recv() {
                    Ok(message) => break message,
                    Err(TryRecvError::Empty) => spinning.between(),
                    Err(error) => return Err(peers_own(error)),
                }
            }
        } else {
            self.from.recv().map_err(peers_own)?
        };
        look(&message);
        Ok(1)
    }
}
