//! Giving way: a supervisor that takes over has milliseconds of work to do in one go, while agents answer each other on the same processors.
//! Who wakes beside it may have to wait for the kernel's next tick, up to 4 ms; so it offers the processor again and again.
//!
//! Whoever takes it may be one who has an answer to give, and is done in microseconds; or one who computes, and keeps it for milliseconds each
//! time. So what may be given away is bounded: beside the latter the take-over goes on as any other work.

use std::time::{Duration, Instant};

/// So much of a supervisor's time is given away at most.
const GIVEN_AT_MOST: Duration = Duration::from_millis(2);

/// What may still be given away.
pub struct Courtesy {
    left: Duration,
}

impl Default for Courtesy {
    fn default() -> Self {
        Courtesy { left: GIVEN_AT_MOST }
    }
}

impl Courtesy {
    /// Lets who waits for this processor have it, if there is anybody, and if not too much was given away.
    pub fn give_way(&mut self) {
        if !self.left.is_zero() {
            let since = Instant::now();
            std::thread::yield_now();
            self.spend(since.elapsed());
        }
    }

    fn spend(&mut self, given: Duration) {
        self.left = self.left.saturating_sub(given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_is_given_often_to_who_is_brief_and_once_to_who_is_not() {
        let times = |each: Duration| {
            let mut courtesy = Courtesy::default();
            (1..).find(|_| {
                courtesy.spend(each);
                courtesy.left.is_zero()
            })
        };
        assert_eq!(times(Duration::from_micros(10)), Some(200));
        assert_eq!(times(Duration::from_millis(3)), Some(1));
    }
}
