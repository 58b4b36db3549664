//! CLOCK_MONOTONIC, exact and coarse, in nanoseconds: as the C library reads them, without a system call also in a binary that has the
//! library in it (rustix finds no vDSO there).

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_getres, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    // Never refused: both clocks are there since Linux 2.6.32.
    clock_gettime(clock).map_or(0, |now| now.num_nanoseconds() as u64)
}

/// Now.
#[inline]
pub fn now_ns() -> u64 {
    ns(ClockId::CLOCK_MONOTONIC)
}

/// By how much [`coarse_ns`] may lie behind [`now_ns`]: the kernel's tick.
pub fn coarse_tick_ns() -> u64 {
    // As above.
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |tick| tick.num_nanoseconds() as u64)
}

/// Now, to the kernel's tick (1 to 4 ms), at a fraction of the price.
#[inline]
pub fn coarse_ns() -> u64 {
    ns(ClockId::CLOCK_MONOTONIC_COARSE)
}
