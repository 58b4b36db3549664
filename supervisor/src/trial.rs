//! A message that an agent was given in vain: how often, and what became of each attempt. Pure.
//!
//! An attempt counts when its handler failed, or when its process died with the message in hand and nobody had ordered that
//! death. What an agent says about itself, in a packet or on its desk, raises the count by one at most: the rest of what it
//! may claim is not believed. A handler that failed in a step that other messages began was no attempt: it is known, so that the message
//! begins a step the next time, in another life, too.

use crate::spawn::Ending;
use serde::{Deserialize, Serialize};
use shoal_runtime::consumer::Given;
use shoal_runtime::mark::Place;
use std::collections::{BTreeMap, VecDeque};

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
    pub fn of_process(generation: u32, at: String, ending: Ending) -> Report {
        let (status, signal) = match ending {
            Ending::Exited(status) => (Some(status), None),
            Ending::Signalled(signal) => (None, Some(signal)),
        };
        Report { generation, at, how: ending.to_string(), status, signal, output: Vec::new() }
    }
}

/// Whether a death is the order's and not the message's: an order kills, or asks for an end in peace.
pub fn is_ordered(ordered: bool, ending: Ending) -> bool {
    ordered && matches!(ending, Ending::Signalled(9 | 15) | Ending::Exited(0))
}

/// Who is given a message: an input of one agent, or the group that shares a lane by a claim table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// An agent's own input.
    Input(usize, usize),
    /// A group, and where in its memory the lane's table lies.
    Group(usize, usize),
}

/// The attempts at one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    at: Place,
    attempts: u32,
    /// It lies with the dead letters; only the acknowledgement is missing.
    settled: bool,
    reports: VecDeque<Report>,
}

impl Trial {
    /// How often it was given in vain.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether it lies with the dead letters.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// What became of the attempts, as far as it is kept.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }

    /// An attempt ended in vain: the agent's handler says so, or its desk after its death. One that is counted is not counted
    /// again, and attempt 0 is none. True when it counts now.
    pub fn count(&mut self, attempt: u32, report: Report) -> bool {
        if attempt <= self.attempts || self.settled {
            return false;
        }
        self.attempts = self.attempts.saturating_add(1).min(Given::SETTLED - 1);
        if self.reports.len() == REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back(report);
        true
    }

    /// What the last report's process had printed.
    pub fn add_output(&mut self, output: Vec<String>) {
        if let Some(last) = self.reports.back_mut() {
            last.output = output;
        }
    }

    /// It lies with the dead letters now, and what was known of it with it.
    pub fn settle(&mut self) {
        self.settled = true;
        self.reports.clear();
    }

    /// What the next incarnation is told.
    pub fn told(&self) -> Given {
        let attempts = if self.settled { Given::SETTLED } else { self.attempts };
        Given { position: self.at.position, attempts }
    }
}

/// The trials of a swarm.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    /// By the message's number. Of an input that is one agent's there is one at most: the message that failed last. It lies at the cursor, or
    /// not far behind it, if it failed in a step of several; those before it are done, one by one if need be, before it is given again. If
    /// one of them fails meanwhile, that is the one, and what was known of the other is forgotten.
    all: BTreeMap<(Reader, u64), Trial>,
    /// Moves when something may have changed.
    version: u64,
}

/// A trial as it is kept: whose (an agent's input, or a group's table), its place, attempts, whether it is settled, its reports.
type KeptTrial = (bool, usize, usize, u64, u64, u32, bool, VecDeque<Report>);

impl Trials {
    /// The trial of a message; a new one if it is the first attempt.
    pub fn at(&mut self, reader: Reader, at: Place) -> &mut Trial {
        self.version += 1;
        if matches!(reader, Reader::Input(..)) {
            self.all.retain(|(of, sequence), _| *of != reader || *sequence == at.sequence);
        }
        self.all.entry((reader, at.sequence)).or_insert_with(|| Trial { at, ..Trial::default() })
    }

    /// The trial of a message, if there is one.
    pub fn of(&self, reader: Reader, sequence: u64) -> Option<&Trial> {
        self.all.get(&(reader, sequence))
    }

    /// Forgets what a reader has acknowledged: what lies before a place.
    pub fn forget_before(&mut self, reader: Reader, place: Place) {
        let before = self.all.len();
        self.all.retain(|(of, sequence), _| *of != reader || *sequence >= place.sequence);
        self.version += u64::from(self.all.len() != before);
    }

    /// Another one whenever something may have changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everything, for a supervisor's successor; without the reports where it would be more than so many bytes.
    pub fn to_json(&self, max_bytes: usize) -> Vec<u8> {
        let kept = |reports: bool| -> Vec<u8> {
            let all = self.all.iter().map(|((reader, _), trial)| -> KeptTrial {
                let (grouped, a, b) = match *reader {
                    Reader::Input(agent, input) => (false, agent, input),
                    Reader::Group(group, offset) => (true, group, offset),
                };
                let Place { position, sequence } = trial.at;
                let reports = if reports { trial.reports.clone() } else { VecDeque::new() };
                (grouped, a, b, position, sequence, trial.attempts, trial.settled, reports)
            });
            serde_json::to_vec(&all.collect::<Vec<_>>()).unwrap_or_default()
        };
        Some(kept(true)).filter(|json| json.len() <= max_bytes).unwrap_or_else(|| kept(false))
    }

    /// Goes on from what a predecessor had kept.
    pub fn restore(&mut self, json: &[u8]) {
        let kept: Vec<KeptTrial> = serde_json::from_slice(json).unwrap_or_default();
        self.version += 1;
        self.all = kept
            .into_iter()
            .map(|(grouped, a, b, position, sequence, attempts, settled, reports)| {
                let reader = if grouped { Reader::Group(a, b) } else { Reader::Input(a, b) };
                ((reader, sequence), Trial { at: Place { position, sequence }, attempts, settled, reports })
            })
            .collect();
    }

    /// Inputs have other numbers from now on, or are no more.
    pub fn carry_over(&mut self, input: impl Fn(usize, usize) -> Option<usize>) {
        let moved = std::mem::take(&mut self.all).into_iter().filter_map(|((reader, sequence), trial)| {
            let reader = match reader {
                Reader::Input(agent, of) => Reader::Input(agent, input(agent, of)?),
                group @ Reader::Group(..) => group,
            };
            Some(((reader, sequence), trial))
        });
        self.all = moved.collect();
        self.version += 1;
    }

    /// What the next incarnation is told of an input of its own.
    pub fn told(&self, reader: Reader) -> Given {
        let mut of_reader = self.all.range((reader, 0)..=(reader, u64::MAX));
        of_reader.next().map_or(Given::default(), |(_, trial)| trial.told())
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
    fn successor_knows_of_every_trial_what_its_predecessor_knew() {
        let mut trials = Trials::default();
        let at = |sequence| Place { position: 4096 + 64 * sequence, sequence };
        trials.at(Reader::Input(3, 0), at(7)).count(1, report("failed"));
        trials.at(Reader::Group(0, 128), at(1)).count(1, report("failed"));
        trials.at(Reader::Group(0, 128), at(2)).settle();
        let mut successor = Trials::default();
        successor.restore(&trials.to_json(1 << 20));
        assert_eq!(successor.all, trials.all);
        successor.restore(&trials.to_json(10));
        assert_eq!(successor.told(Reader::Input(3, 0)), trials.told(Reader::Input(3, 0)));
        assert_eq!(
            successor.at(Reader::Input(3, 0), at(7)).reports().count(),
            0,
            "there was no room for words"
        );
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
            let mut trials = Trials::default();
            let (reader, at) = (Reader::Input(3, 0), Place { position: 4096, sequence: 7 });
            let mut expected = 0;
            for event in events {
                let told = trials.at(reader, at).told().attempts;
                prop_assert_eq!(told, expected, "the next incarnation is told what is known");
                let attempt = told + 1;
                let trial = trials.at(reader, at);
                match event {
                    Happens::Fails | Happens::Dies => _ = trial.count(attempt, report("x")),
                    Happens::FailsAndDies => (0..2).for_each(|_| _ = trial.count(attempt, report("x"))),
                    Happens::IsKilled => {}
                    Happens::Lies(number) => _ = trial.count(number, report("x")),
                }
                let counts = match event {
                    Happens::Lies(number) => number > told,
                    Happens::IsKilled => false,
                    _ => true,
                };
                expected += u32::from(counts);
            }
            let trial = trials.at(reader, at);
            prop_assert_eq!(trial.reports.len(), (expected as usize).min(REPORTS_MAX));
            trials.forget_before(Reader::Input(3, 1), Place { position: 1 << 40, sequence: 1 << 40 });
            trials.forget_before(reader, at);
            prop_assert_eq!(trials.told(reader).attempts, expected, "not acknowledged, not forgotten");
            trials.forget_before(reader, Place { position: 4160, sequence: 8 });
            prop_assert_eq!(trials.told(reader), Given::default());
        }
    }

    #[test]
    fn a_settled_message_is_told_as_settled_until_it_is_acknowledged_and_counts_no_more() {
        let mut trials = Trials::default();
        let (reader, at) = (Reader::Input(0, 1), Place { position: 64, sequence: 1 });
        trials.at(reader, at).count(1, report("first"));
        assert_eq!(trials.at(reader, at).reports().count(), 1);
        trials.at(reader, at).settle();
        assert!(!trials.at(reader, at).count(2, report("late")));
        assert_eq!(trials.told(reader), Given { position: 64, attempts: Given::SETTLED });
        let next = Place { position: 128, sequence: 2 };
        assert_eq!(trials.at(reader, next).told(), Given { position: 128, attempts: 0 }, "another message");
    }

    #[test]
    fn a_message_that_failed_in_a_step_that_others_began_is_told_and_nothing_is_held_against_it() {
        let mut trials = Trials::default();
        let (reader, at) = (Reader::Input(0, 0), Place { position: 192, sequence: 3 });
        assert!(!trials.at(reader, at).count(0, report("in company")));
        let mut successor = Trials::default();
        successor.restore(&trials.to_json(1 << 20));
        for trials in [&mut trials, &mut successor] {
            assert_eq!(trials.told(reader), Given { position: 192, attempts: 0 });
            assert_eq!(trials.at(reader, at).reports().count(), 0);
            assert!(trials.at(reader, at).count(1, report("alone")), "its first attempt");
            assert_eq!(trials.told(reader), Given { position: 192, attempts: 1 });
        }
    }

    #[test]
    fn messages_of_a_group_are_tried_side_by_side_and_those_of_an_agent_one_by_one() {
        let mut trials = Trials::default();
        let at = |sequence| Place { position: 64 * sequence, sequence };
        for reader in [Reader::Group(0, 0), Reader::Input(0, 0)] {
            (1..=3).for_each(|sequence| _ = trials.at(reader, at(sequence)).count(1, report("x")));
        }
        let known = |reader| (1..=3).filter(|&sequence| trials.of(reader, sequence).is_some()).count();
        assert_eq!((known(Reader::Group(0, 0)), known(Reader::Input(0, 0))), (3, 1));
    }
}
