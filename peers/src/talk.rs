//! What both ends do with any wire: round trips, and a stream from the first to the second.

use crate::check::check;
use crate::wire::Wire;
use shoal_measure::load::fill;
use shoal_measure::task::Reply;
use shoal_measure::times::Times;
use shoal_measure::times::now_ns;
use std::io;

/// Messages that are taken at once from a stream.
const TAKEN_MAX: u64 = 64;

/// A wire, and what was sent and received over it.
pub struct Talk<W> {
    wire: W,
    first: bool,
    bytes: usize,
    sent: u64,
    received: u64,
    times: Times,
}

impl<W: Wire> Talk<W> {
    /// Nothing was sent yet.
    ///
    /// # Errors
    /// No memory for the times.
    pub fn new(wire: W, first: bool, bytes: usize) -> io::Result<Self> {
        Ok(Talk { wire, first, bytes, sent: 0, received: 0, times: Times::new()? })
    }

    /// Round trips; the first end keeps the time of each.
    ///
    /// # Errors
    /// The other end is gone, or something else came than was sent.
    pub fn round_trips(&mut self, count: u64) -> io::Result<Reply> {
        // Once unmeasured: both are here then.
        self.round_trip()?;
        let before = self.received;
        self.times.begin();
        let begin_ns = now_ns();
        for _ in 0..count {
            self.round_trip()?;
            if self.first {
                self.times.lap();
            }
        }
        let received = self.received - before;
        Ok(Reply { begin_ns, end_ns: now_ns(), received, cpu_ns: 0, row: self.times.row() })
    }

    /// Messages one way, given to the system `every` so many.
    ///
    /// # Errors
    /// As [`Talk::round_trips`].
    pub fn stream(&mut self, count: u64, every: u64) -> io::Result<Reply> {
        self.round_trip()?;
        let (begin_ns, before) = (now_ns(), self.received);
        let mut left = count;
        while left > 0 {
            if self.first {
                let batch = left.min(every);
                (0..batch).try_for_each(|_| self.send())?;
                self.wire.flush()?;
                left -= batch;
            } else {
                left -= self.receive(left.min(TAKEN_MAX))?;
            }
        }
        Ok(Reply {
            begin_ns,
            end_ns: now_ns(),
            received: self.received - before,
            cpu_ns: 0,
            row: Default::default(),
        })
    }

    #[inline]
    fn round_trip(&mut self) -> io::Result<()> {
        if self.first {
            self.send()?;
            self.wire.flush()?;
        }
        self.receive(1)?;
        if !self.first {
            self.send()?;
            self.wire.flush()?;
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self) -> io::Result<()> {
        self.sent += 1;
        let number = self.sent;
        self.wire.send(self.bytes, |message| fill(message, number))
    }

    #[inline]
    fn receive(&mut self, limit: u64) -> io::Result<u64> {
        let (bytes, mut awaited) = (self.bytes, self.received + 1);
        let mut all = Ok(());
        let count = self.wire.receive(limit, |message| {
            if all.is_ok() {
                all = check(message, bytes, awaited);
                awaited += u64::from(all.is_ok());
            }
        })?;
        all.map_err(|wrong| wrong.error(awaited))?;
        self.received += count;
        Ok(count)
    }
}
