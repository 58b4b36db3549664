//! The time of each round trip or message of a run.

use crate::task::Row;
use hdrhistogram::Histogram;
pub use shoal_runtime::clock::now_ns;
use std::io;

/// A histogram, and when the last of them ended.
pub struct Times {
    histogram: Histogram<u64>,
    /// When the one that comes next began, CLOCK_MONOTONIC ns.
    pub last_ns: u64,
}

impl Times {
    /// Up to ten seconds each, three digits.
    ///
    /// # Errors
    /// None, as the bounds are right.
    pub fn new() -> io::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Times { histogram, last_ns: 0 })
    }

    /// Forgets all; the first begins now.
    pub fn begin(&mut self) {
        self.histogram.clear();
        self.last_ns = now_ns();
    }

    /// One has ended, and the next begins.
    #[inline]
    pub fn lap(&mut self) {
        let now_ns = now_ns();
        self.histogram.saturating_record(now_ns - self.last_ns);
        self.last_ns = now_ns;
    }

    /// What was taken does not count: it reads as longer than anything.
    pub fn discard(&mut self) {
        self.histogram.clear();
        self.histogram.saturating_record(u64::MAX);
    }

    /// p50, p95, p99, p99.9, max; zeros without any.
    pub fn row(&self) -> Row {
        if self.histogram.is_empty() {
            return Row::default();
        }
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        [at(0.5), at(0.95), at(0.99), at(0.999), self.histogram.max()]
    }
}
