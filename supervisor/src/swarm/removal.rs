//! Agents that broke a rule: ended in the turn of the event loop in which that is heard, and how long it took until they were gone.
//!
//! A rule is broken by packets that are none of ours, and by words in shared memory that cannot be true. A peer that meets such words
//! says when it did, so that the time counts from there and not from when its packet is read.

use super::Swarm;
use crate::agent::Live;
use crate::log::Level;
use shoal_runtime::{Incarnation, clock};

/// Since when a violation counts: not before the life of who committed it, and not after now, whatever who saw it says.
fn seen_between(born_ns: u64, seen_ns: u64, now_ns: u64) -> u64 {
    seen_ns.clamp(born_ns.min(now_ns), now_ns)
}

impl Swarm {
    /// Ends an incarnation that broke a rule, which was seen at this time (CLOCK_MONOTONIC, ns).
    pub(super) fn remove(&mut self, of: Incarnation, seen_ns: u64, why: &str) {
        let now_ns = clock::now_ns();
        let record = &mut self.agents[of.agent as usize];
        let Some(live) = record.life_mut(of.generation) else { return };
        live.kill(self.cradle.urgency);
        let born_ns = now_ns.saturating_sub(live.born.elapsed().as_nanos() as u64);
        live.violated_ns.get_or_insert(seen_between(born_ns, seen_ns, now_ns));
        if record.generation == of.generation {
            self.blame(of.agent as usize, &format!("SIGKILL {why}"));
        }
    }

    /// A dead incarnation has its verdict: if it broke a rule, says how long that took, and if it hung, notes it.
    pub(super) fn note_removed(&mut self, agent: usize, live: &Live) {
        self.note_hung(live);
        let Some(violated_ns) = live.violated_ns else { return };
        let took_ns = clock::now_ns().saturating_sub(violated_ns);
        self.removals_ns.push(took_ns);
        let text = format!(
            "agent {} (generation {}) was removed {:.2} ms after its first seen violation",
            self.agents[agent].name,
            live.incarnation.generation,
            took_ns as f64 / 1e6
        );
        self.remark(Level::Info, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::seen_between;

    #[test]
    fn time_of_a_violation_is_bounded_by_birth_and_now_whatever_a_peer_says() {
        assert_eq!(seen_between(100, 150, 200), 150);
        assert_eq!(seen_between(100, 7, 200), 100, "nobody broke a rule before it was there");
        assert_eq!(seen_between(100, u64::MAX, 200), 200);
        assert_eq!(seen_between(300, 150, 200), 200);
    }
}
