//! A pipe each way, or a Unix stream socket: messages of one size follow each other, without a header. A batch is one
//! `write`; a `read` takes what is there.

use super::flow::Flow;
use crate::wire::{Mode, Wire};
use rustix::net::sockopt;
use std::io;
use std::os::fd::OwnedFd;

/// What the kernel is asked to hold; it may hold less.
const BUFFER_BYTES: usize = 1 << 20;

/// One end.
pub struct Bytes {
    flow: Flow,
    bytes: usize,
}

impl Bytes {
    /// Over a pipe each way: where to read, where to write.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn pipes([from, to]: [OwnedFd; 2], bytes: usize, mode: Mode) -> io::Result<Self> {
        // More than the system's limit is refused: then what there is must do.
        let _ = rustix::pipe::fcntl_setpipe_size(&to, BUFFER_BYTES);
        Ok(Bytes { flow: Flow::new(from, to, mode)?, bytes })
    }

    /// Over a stream socket.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn socket(socket: OwnedFd, bytes: usize, mode: Mode) -> io::Result<Self> {
        sockopt::set_socket_send_buffer_size(&socket, BUFFER_BYTES)?;
        Ok(Bytes { flow: Flow::new(socket.try_clone()?, socket, mode)?, bytes })
    }
}

impl Wire for Bytes {
    const BATCHES: bool = true;

    #[inline]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        fill(self.flow.place(bytes));
        Ok(())
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        self.flow.flush()
    }

    #[inline]
    fn receive(&mut self, limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut count = 0;
        while count == 0 || (count < limit && self.flow.held() >= self.bytes) {
            look(self.flow.need(self.bytes)?);
            self.flow.pass(self.bytes);
            count += 1;
        }
        Ok(count)
    }
}
