//! Kills the supervisor at random, again and again, from the guard, which outlives them all.
//!
//! Most get time to take over and to work; every fourth is killed within a few milliseconds, in the midst of its take-over perhaps.

use super::number::mix;
use crate::keeper::{Word, set_word, word};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shoal_runtime::clock;
use shoal_runtime::journal::Journal;
use std::time::{Duration, Instant};

/// How soon it looks again for somebody to kill.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How soon it looks again whether it may kill.
const REST: Duration = Duration::from_millis(20);

/// When the next one is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Draw {
    /// So long after the last one.
    pause: Duration,
    /// Whether it has taken over or not.
    hasty: bool,
}

/// Draws it. Pure.
fn draw(state: u64) -> Draw {
    let (kind, time) = (mix(state), mix(mix(state)));
    match kind % 4 {
        0 => Draw { pause: Duration::from_micros(time % 10_000), hasty: true },
        _ => Draw { pause: Duration::from_millis(100 + time % 300), hasty: false },
    }
}

/// Kills supervisors.
pub struct SupervisorKiller {
    state: u64,
    next: Option<(Instant, Draw)>,
}

impl SupervisorKiller {
    /// Draws its times from a seed.
    pub fn new(seed: u64) -> SupervisorKiller {
        SupervisorKiller { state: mix(!seed), next: None }
    }

    /// Kills one if it is time to; when it wants to be called next.
    pub fn turn(&mut self, journal: &Journal) -> Option<Duration> {
        if word(journal, Word::Storm) == 0 {
            self.next = None;
            return Some(REST);
        }
        let now = Instant::now();
        let (due, Draw { hasty, .. }) = match self.next {
            Some(next) => next,
            None => self.draw_next(now),
        };
        if now < due {
            return Some(due - now);
        }
        let watches = word(journal, Word::Watching) == word(journal, Word::Lives);
        if !(hasty || watches) || !kill(journal) {
            return Some(LOOK_AGAIN);
        }
        let (due, _) = self.draw_next(now);
        Some(due - now)
    }

    fn draw_next(&mut self, now: Instant) -> (Instant, Draw) {
        self.state = self.state.wrapping_add(1);
        let draw = draw(self.state);
        *self.next.insert((now + draw.pause, draw))
    }
}

/// Kills the living supervisor; false when there is none.
fn kill(journal: &Journal) -> bool {
    let number = word(journal, Word::Supervisor);
    let Some(pid) = Pid::from_raw(number as i32) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // The number may have been used again before it was opened: not if the keeper names it still.
    if word(journal, Word::Supervisor) != number {
        return false;
    }
    set_word(journal, Word::KilledAt, clock::now_ns());
    pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_is_killed_at_once_and_the_others_get_time() {
        let drawn: Vec<Draw> = (0..4000).map(draw).collect();
        let hasty = drawn.iter().filter(|draw| draw.hasty).count();
        assert!((900..1100).contains(&hasty), "{hasty}");
        assert!(drawn.iter().all(|draw| draw.hasty == (draw.pause < Duration::from_millis(10))));
    }
}
