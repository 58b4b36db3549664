//! The final account: what the sources committed against what the receivers committed. Pure.

use super::account::Account;
use serde::Serialize;

/// What agents had committed when the swarm ended.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// For each source what it says it sent, and the ends of its lanes, in messages, by its last verdict.
    pub sources: Vec<(u64, Vec<u64>)>,
    /// For each receiver what should have come to it, and its account.
    pub flows: Vec<Flow>,
    /// What all workers together should have passed on, and did.
    pub passed: (u64, u64),
    /// What workers found not to be whole.
    pub corrupted: u64,
}

/// What one receiver receives.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What each of its sources says it sent.
    pub sent: Vec<u64>,
    /// What came; `None` if the receiver never kept an account.
    pub account: Option<Account>,
    /// Whether order is promised.
    pub ordered: bool,
}

/// What is wrong, and how much went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Committed by its sender, and not by its receiver.
    pub lost: u64,
    /// Received again.
    pub duplicated: u64,
    /// Received after a later one, where order is promised.
    pub reordered: u64,
    /// Not whole, or never committed by its sender.
    pub corrupted: u64,
    /// Came when there were too many gaps: the account is not exact.
    pub unaccounted: u64,
    /// Different messages received, by all receivers together.
    pub messages: u64,
}

impl Balance {
    /// Compares.
    pub fn of(committed: &Committed) -> Balance {
        let mut balance = Balance { corrupted: committed.corrupted, ..Balance::default() };
        committed.flows.iter().for_each(|flow| balance.add(flow));
        balance.contradiction(committed.passed.0, committed.passed.1);
        balance.messages += committed.passed.1;
        for (sent, lanes) in &committed.sources {
            lanes.iter().for_each(|&lane| balance.contradiction(*sent, lane));
        }
        balance
    }

    fn add(&mut self, flow: &Flow) {
        let Some(account) = &flow.account else {
            self.lost += flow.sent.iter().sum::<u64>();
            return;
        };
        self.corrupted += account.corrupted;
        for (source, &sent) in flow.sent.iter().enumerate() {
            // A state that is not the one that was kept may know nothing of a source.
            let Some(of) = account.of.get(source) else {
                self.lost += sent;
                continue;
            };
            let (lost, unsent) = of.compared_with(sent);
            self.lost += lost;
            self.corrupted += unsent;
            self.duplicated += of.duplicated;
            self.reordered += if flow.ordered { of.reordered } else { 0 };
            self.unaccounted += of.beyond;
            self.messages += of.came();
        }
    }

    /// What was to be done so often was done so often: too rarely is lost, too often is doubled.
    fn contradiction(&mut self, expected: u64, done: u64) {
        self.lost += expected.saturating_sub(done);
        self.duplicated += done.saturating_sub(expected);
    }

    /// Whether every message took effect exactly once.
    pub fn is_even(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.reordered, self.corrupted, self.unaccounted];
        wrong.iter().all(|&count| count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sources that sent three and two, and everything came.
    fn even() -> Committed {
        let mut account = Account::new(2);
        for message in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)] {
            account.note(Some(message));
        }
        let flow = |ordered| Flow { sent: vec![3, 2], account: Some(account.clone()), ordered };
        Committed {
            sources: vec![(3, vec![3, 3]), (2, vec![2, 2])],
            flows: vec![flow(true), flow(false)],
            passed: (5, 5),
            corrupted: 0,
        }
    }

    fn changed(change: impl FnOnce(&mut Committed)) -> Balance {
        let mut committed = even();
        change(&mut committed);
        Balance::of(&committed)
    }

    #[test]
    fn everything_once_is_even_and_all_receivers_messages_count() {
        assert_eq!(Balance::of(&even()), Balance { messages: 15, ..Balance::default() });
        assert!(Balance::of(&even()).is_even());
    }

    #[test]
    fn every_single_contradiction_is_found() {
        let found = |balance: Balance| {
            assert!(!balance.is_even(), "{balance:?}");
            [balance.lost, balance.duplicated, balance.reordered, balance.corrupted, balance.unaccounted]
        };
        assert_eq!(found(changed(|c| c.passed.1 -= 1)), [1, 0, 0, 0, 0], "a worker lost one");
        assert_eq!(found(changed(|c| c.passed.1 += 1)), [0, 1, 0, 0, 0], "a worker did one twice");
        assert_eq!(found(changed(|c| c.sources[1].1[0] = 3)), [0, 1, 0, 0, 0], "a source's state is behind");
        assert_eq!(found(changed(|c| c.sources[0].1[1] = 2)), [1, 0, 0, 0, 0], "a source's lane is behind");
        assert_eq!(found(changed(|c| c.corrupted = 1)), [0, 0, 0, 1, 0]);
        assert_eq!(
            found(changed(|c| c.flows[0].account = None)),
            [5, 0, 0, 0, 0],
            "a receiver without a state"
        );
        let note =
            |message| move |c: &mut Committed| c.flows[1].account.as_mut().expect("there").note(message);
        assert_eq!(found(changed(note(Some((1, 1))))), [0, 1, 0, 0, 0]);
        assert_eq!(found(changed(note(Some((1, 2))))), [0, 0, 0, 1, 0], "received and never committed");
        assert_eq!(found(changed(note(None))), [0, 0, 0, 1, 0]);
        assert_eq!(found(changed(note(Some((0, 1 << 40))))), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn order_counts_only_where_it_is_promised() {
        let mut account = Account::new(1);
        [1, 0].into_iter().for_each(|n| account.note(Some((0, n))));
        let of = |account: &Account, ordered| {
            let flow = Flow { sent: vec![2], account: Some(account.clone()), ordered };
            Balance::of(&Committed { flows: vec![flow], ..Committed::default() })
        };
        assert!(of(&account, false).is_even());
        assert_eq!(of(&account, true).reordered, 1);
    }
}
