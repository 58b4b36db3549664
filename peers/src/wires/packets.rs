//! A Unix seqpacket socket: a message is a packet, sent and received by a system call.

use crate::wire::{Mode, Spinning, Wire};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use std::io;
use std::os::fd::OwnedFd;

/// The largest packet that the usual limit of a socket's buffer lets through.
pub const BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES: usize = 1 << 20;

/// One end.
pub struct Packets {
    socket: OwnedFd,
    buffer: Vec<u8>,
    dont_wait: bool,
}

impl Packets {
    /// Over a socket.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(socket: OwnedFd, bytes: usize, mode: Mode) -> io::Result<Self> {
        sockopt::set_socket_send_buffer_size(&socket, BUFFER_BYTES)?;
        Ok(Packets { socket, buffer: vec![0; bytes + 1], dont_wait: mode == Mode::Spin })
    }
}

/// Asks until it is done.
fn insist<T>(mut ask: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    let mut spinning = Spinning::default();
    loop {
        match ask() {
            Err(Errno::AGAIN | Errno::INTR) => spinning.between(),
            other => return other.map_err(io::Error::from),
        }
    }
}

impl Wire for Packets {
    #[inline]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        fill(&mut self.buffer[..bytes]);
        let flags = if self.dont_wait { SendFlags::DONTWAIT } else { SendFlags::empty() };
        insist(|| send(&self.socket, &self.buffer[..bytes], flags)).map(drop)
    }

    #[inline]
    fn receive(&mut self, _limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let flags = if self.dont_wait { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let (count, _) = insist(|| recv(&self.socket, &mut self.buffer[..], flags))?;
        if count == 0 {
            return Err(io::Error::other("the other end is gone"));
        }
        look(&self.buffer[..count]);
        Ok(1)
    }
}
