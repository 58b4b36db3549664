//! Bytes in both directions over descriptors, buffered on both sides: what pipes, sockets and the brokers' protocols need.

use crate::wire::{Mode, Spinning};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// As much as is read at once at most, unless a message is larger.
const READ_BYTES: usize = 256 << 10;

/// Where to read and where to write, and what was read and is to be written.
pub struct Flow {
    from: OwnedFd,
    to: OwnedFd,
    read: Vec<u8>,
    begin: usize,
    end: usize,
    written: Vec<u8>,
    waiting: usize,
    spinning: Spinning,
}

impl Flow {
    /// Over two descriptors, which may be one and its duplicate.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(from: OwnedFd, to: OwnedFd, mode: Mode) -> io::Result<Self> {
        // A wire that spins asks without waiting.
        let spins = mode == Mode::Spin;
        rustix::io::ioctl_fionbio(&from, spins)?;
        rustix::io::ioctl_fionbio(&to, spins)?;
        Ok(Flow {
            from,
            to,
            read: vec![0; READ_BYTES],
            begin: 0,
            end: 0,
            written: Vec::new(),
            waiting: 0,
            spinning: Spinning::default(),
        })
    }

    /// Waits until so many bytes were read, and shows them; they stay until they are [`Flow::pass`]ed.
    ///
    /// # Errors
    /// The other end is gone.
    #[inline]
    pub fn need(&mut self, bytes: usize) -> io::Result<&[u8]> {
        while self.end - self.begin < bytes {
            self.read_more(bytes)?;
        }
        Ok(&self.read[self.begin..self.begin + bytes])
    }

    fn read_more(&mut self, bytes: usize) -> io::Result<()> {
        if self.read.len() - self.begin < bytes || self.begin == self.end {
            self.read.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.read.len() < bytes {
                self.read.resize(bytes, 0);
            }
        }
        match rustix::io::read(&self.from, &mut self.read[self.end..]) {
            Ok(0) => Err(io::Error::other("the other end is gone")),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.spinning.between();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that were read and not yet passed.
    #[inline]
    pub fn held(&self) -> usize {
        self.end - self.begin
    }

    /// Passes bytes that were shown.
    #[inline]
    pub fn pass(&mut self, bytes: usize) {
        self.begin += bytes;
    }

    /// A place for so many bytes behind what waits to be written.
    #[inline]
    pub fn place(&mut self, bytes: usize) -> &mut [u8] {
        let begin = self.waiting;
        self.waiting += bytes;
        if self.written.len() < self.waiting {
            self.written.resize(self.waiting, 0);
        }
        &mut self.written[begin..self.waiting]
    }

    /// Puts bytes there.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.place(bytes.len()).copy_from_slice(bytes);
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.waiting {
            match rustix::io::write(&self.to, &self.written[done..self.waiting]) {
                Ok(count) => done += count,
                Err(Errno::AGAIN | Errno::INTR) => self.spinning.between(),
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting = 0;
        Ok(())
    }

    /// Reads a line, without its end.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn line(&mut self) -> io::Result<String> {
        let mut seen = 0;
        loop {
            let shown = self.need(seen + 1)?;
            if shown[seen] == b'\n' {
                let line = String::from_utf8_lossy(&shown[..seen]).trim_end().to_owned();
                self.pass(seen + 1);
                return Ok(line);
            }
            seen += 1;
        }
    }
}
