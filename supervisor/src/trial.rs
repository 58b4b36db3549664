//! A message that an agent was given in vain: how often, and what became of each attempt. Pure.
//!
//! An attempt counts when its handler failed, or when its process died with the message in hand and nobody had ordered that
//! death. What an agent says about itself, in a packet or on its desk, raises the count by one at most: the rest of what it
//! may claim is not believed.

use crate::spawn::Ending;
use serde::{Deserialize, Serialize};
use shoal_runtime::consumer::Given;
use std::collections::VecDeque;

/// Reports kept of one message; the oldest go first.
pub const REPORTS_MAX: usize = 16;

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The life of the agent in which it was made.
    pub generation: u32,
    /// When it ended, UTC.
    pub at: String,
    /// How it ended, in words.
    pub how: String,
    /// The exit status of the process, if that ended with it.
    pub status: Option<i32>,
    /// The signal that killed the process.
    pub signal: Option<i32>,
    /// The last lines that this life of the agent printed, if it ended.
    pub output: Vec<String>,
}

impl Report {
    /// A handler failed; its process lives.
    pub fn of_handler(generation: u32, at: String, why: &str) -> Report {
        let why = if why.is_empty() { "the message was dropped without a commit" } else { why };
        let how = format!("failed: {}", crate::output::shown(why.as_bytes()));
        Report { generation, at, how, status: None, signal: None, output: Vec::new() }
    }

    /// The process ended.
    pub fn of_process(generation: u32, at: String, ending: Ending, output: Vec<String>) -> Report {
        let (status, signal) = match ending {
            Ending::Exited(status) => (Some(status), None),
            Ending::Signalled(signal) => (None, Some(signal)),
        };
        Report { generation, at, how: ending.to_string(), status, signal, output }
    }
}

/// Whether a death is the order's and not the message's: an order kills, or asks for an end in peace.
pub fn is_ordered(ordered: bool, ending: Ending) -> bool {
    ordered && matches!(ending, Ending::Signalled(9 | 15) | Ending::Exited(0))
}

/// The attempts at one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    position: u64,
    attempts: u32,
    /// It lies with the dead letters; only the acknowledgement is missing.
    settled: bool,
    reports: VecDeque<Report>,
}

impl Trial {
    /// Of the message at a position.
    pub fn of(position: u64) -> Trial {
        Trial { position, ..Trial::default() }
    }

    /// Where the message begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How often it was given in vain.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether it lies with the dead letters.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// An attempt ended in vain: the agent's handler says so, or its desk after its death. One that is counted is not counted
    /// again.
    pub fn count(&mut self, attempt: u32, report: Report) {
        if attempt <= self.attempts || self.settled {
            return;
        }
        self.attempts = self.attempts.saturating_add(1);
        if self.reports.len() == REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
    }

    /// What became of the attempts, as far as it is kept.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }

    /// It lies with the dead letters now, and what was known of it with it.
    pub fn settle(&mut self) {
        self.settled = true;
        self.reports.clear();
    }

    /// What the next incarnation is told.
    pub fn told(&self) -> Given {
        Given {
            position: self.position,
            attempts: if self.settled { Given::SETTLED } else { self.attempts.min(Given::SETTLED - 1) },
        }
    }
}

/// The trials of an agent, one an input.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    of_inputs: Vec<Option<Trial>>,
}

impl Trials {
    /// None yet.
    pub fn new(inputs: usize) -> Trials {
        Trials { of_inputs: vec![None; inputs] }
    }

    /// The trial of the message at a position of an input; a new one if it is another message's.
    pub fn at(&mut self, input: usize, position: u64) -> &mut Trial {
        let slot = &mut self.of_inputs[input];
        slot.take_if(|trial| trial.position != position);
        slot.get_or_insert_with(|| Trial::of(position))
    }

    /// Forgets what was acknowledged: what lies before the cursor of its input.
    pub fn forget_before(&mut self, cursors: impl Iterator<Item = u64>) {
        for (slot, cursor) in self.of_inputs.iter_mut().zip(cursors) {
            slot.take_if(|trial| trial.position < cursor);
        }
    }

    /// What the next incarnation is told, one word an input.
    pub fn told(&self) -> Vec<Given> {
        self.of_inputs.iter().map(|slot| slot.as_ref().map_or(Given::default(), Trial::told)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(how: &str) -> Report {
        Report::of_handler(1, String::new(), how)
    }

    #[test]
    fn an_order_excuses_only_the_death_that_it_asked_for() {
        use Ending::{Exited, Signalled};
        for ending in [Exited(0), Signalled(9), Signalled(15)] {
            assert!(is_ordered(true, ending) && !is_ordered(false, ending), "{ending}");
        }
        for ending in [Exited(1), Exited(101), Signalled(6), Signalled(11)] {
            assert!(!is_ordered(true, ending), "{ending}: its own doing, whatever was ordered meanwhile");
        }
    }

    /// What happens to a message in hand.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        /// Its handler fails and the agent says so.
        Fails,
        /// The process dies with it in hand.
        Dies,
        /// The process dies after it said that the handler failed, before its desk says that nothing is held.
        FailsAndDies,
        /// It is killed by an order.
        IsKilled,
        /// Its words are any.
        Lies(u32),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            Just(Happens::Fails),
            Just(Happens::Dies),
            Just(Happens::FailsAndDies),
            Just(Happens::IsKilled),
            any::<u32>().prop_map(Happens::Lies),
        ]
    }

    proptest! {
        #[test]
        fn each_attempt_in_vain_counts_once_orders_never_and_lies_by_one_at_most(
            events in proptest::collection::vec(happens(), 0..60)
        ) {
            let mut trials = Trials::new(1);
            let mut expected = 0;
            for event in events {
                let told = trials.at(0, 4096).told().attempts;
                prop_assert_eq!(told, expected, "the next incarnation is told what is known");
                let attempt = told + 1;
                let trial = trials.at(0, 4096);
                match event {
                    Happens::Fails | Happens::Dies => trial.count(attempt, report("x")),
                    Happens::FailsAndDies => (0..2).for_each(|_| trial.count(attempt, report("x"))),
                    Happens::IsKilled => {}
                    Happens::Lies(number) => trial.count(number, report("x")),
                }
                let counts = match event {
                    Happens::Lies(number) => number > told,
                    Happens::IsKilled => false,
                    _ => true,
                };
                expected += u32::from(counts);
            }
            let trial = trials.at(0, 4096);
            prop_assert_eq!(trial.reports.len(), (expected as usize).min(REPORTS_MAX));
            trials.forget_before([4096].into_iter());
            prop_assert_eq!(trials.told()[0].attempts, expected, "not acknowledged, not forgotten");
            trials.forget_before([4160].into_iter());
            prop_assert_eq!(trials.told()[0], Given::default());
        }
    }

    #[test]
    fn a_settled_message_is_told_as_settled_until_it_is_acknowledged_and_counts_no_more() {
        let mut trials = Trials::new(2);
        trials.at(1, 64).count(1, report("first"));
        assert_eq!(trials.at(1, 64).reports().count(), 1);
        trials.at(1, 64).settle();
        trials.at(1, 64).count(2, report("late"));
        assert_eq!(trials.told(), [Given::default(), Given { position: 64, attempts: Given::SETTLED }]);
        assert_eq!(trials.at(1, 128).told(), Given { position: 128, attempts: 0 }, "another message");
    }
}
