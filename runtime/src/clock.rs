//! CLOCK_MONOTONIC, exact and coarse, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Now.
#[inline]
pub fn now_ns() -> u64 {
    ns(ClockId::Monotonic)
}

/// By how much [`coarse_ns`] may lie behind [`now_ns`]: the kernel's tick.
pub fn coarse_tick_ns() -> u64 {
    let tick = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    tick.tv_sec as u64 * 1_000_000_000 + tick.tv_nsec as u64
}

/// Now, to the kernel's tick (1 to 4 ms), at a fraction of the price.
#[inline]
pub fn coarse_ns() -> u64 {
    ns(ClockId::MonotonicCoarse)
}
