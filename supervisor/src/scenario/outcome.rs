//! What came of a scenario, as JSON and as lines. Pure.

use super::director::{Flat, Idle};
use super::tally::Tally;
use crate::bench::table::{rate, time};
use serde::Serialize;

/// One kind of message of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// What they are: `messages`, `tasks`, `calls`, `answers`, `first words`.
    pub what: String,
    /// How many had to come.
    pub expected: u64,
    /// How many came, each once.
    pub delivered: u64,
    /// How many came again.
    pub repeated: u64,
    /// How many were passed over, or never answered.
    pub missing: u64,
    /// How many were not what was sent.
    pub wrong: u64,
    /// Half took less, ns: from when it was made (of a task: until it was answered), to an eighth of it.
    pub p50_ns: Option<u64>,
    /// 95 of 100 took less.
    pub p95_ns: Option<u64>,
    /// 99 of 100 took less.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
    /// Delivered a second, from the first to the last.
    pub msgs_per_s: Option<f64>,
}

/// What came of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub scenario: String,
    /// What it is, in a line.
    pub what: String,
    /// Agents of its swarm.
    pub agents: u64,
    /// How many of them were ready in one moment.
    pub ready: u64,
    /// From the begin until all were, s.
    pub all_ready_s: Option<f64>,
    /// Messages of all kinds that had to come.
    pub expected: u64,
    /// That came.
    pub delivered: u64,
    /// delivered : expected.
    pub success: f64,
    /// The highest P95 of all kinds, ns.
    pub p95_ns: Option<u64>,
    /// The highest P99.
    pub p99_ns: Option<u64>,
    /// Each kind.
    pub parts: Vec<Part>,
    /// All in all, s.
    pub seconds: f64,
    /// Kills that a wait status proved.
    pub kills: u64,
    /// From a kill to the next life's first message: p50, p99, ns.
    pub recovery_ns: Option<[u64; 2]>,
    /// Share of the time in which no call had waited for more than 250 ms.
    pub uptime: Option<f64>,
    /// CPU of all agents together for each message, ns.
    pub cpu_ns_per_message: Option<f64>,
    /// Agents that idle.
    pub idle: Option<Idle>,
    /// Memory and descriptors over the cycles.
    pub flat: Option<Flat>,
    /// Everything was delivered, once and right, and what should not grow did not.
    pub passed: bool,
    /// Why not.
    pub why: Vec<String>,
}

impl Part {
    /// What an account says, compared with what had to come.
    pub fn of(what: &str, expected: u64, tally: &Tally) -> Part {
        let seconds = tally.seconds();
        let quantile = |part| tally.quantile_ns(part);
        Part {
            what: what.into(),
            expected,
            delivered: tally.delivered,
            repeated: tally.repeated,
            missing: tally.missing,
            wrong: tally.wrong,
            p50_ns: quantile(0.5),
            p95_ns: quantile(0.95),
            p99_ns: quantile(0.99),
            max_ns: (tally.delivered > 0).then_some(tally.longest_ns),
            msgs_per_s: (seconds > 0.0).then(|| (tally.delivered - 1) as f64 / seconds),
        }
    }

    fn faults(&self) -> Vec<String> {
        let Part { what, expected, delivered, repeated, missing, wrong, .. } = self;
        let mut faults = Vec::new();
        if *expected == 0 {
            faults.push(format!("no {what} were sent"));
        } else if delivered != expected {
            faults.push(format!("{delivered} of {expected} {what} were delivered"));
        }
        for (count, fault) in
            [(repeated, "came twice"), (missing, "were left out"), (wrong, "were not what was sent")]
        {
            if *count > 0 {
                faults.push(format!("{count} {what} {fault}"));
            }
        }
        faults
    }
}

impl Outcome {
    /// Sums up the parts, and judges; `why` may hold more that went wrong already.
    pub fn judged(mut self) -> Outcome {
        self.expected = self.parts.iter().map(|part| part.expected).sum();
        self.delivered = self.parts.iter().map(|part| part.delivered).sum();
        self.success = if self.expected == 0 { 0.0 } else { self.delivered as f64 / self.expected as f64 };
        self.p95_ns = self.parts.iter().filter_map(|part| part.p95_ns).max();
        self.p99_ns = self.parts.iter().filter_map(|part| part.p99_ns).max();
        if self.agents == 0 || self.parts.is_empty() {
            self.why.push("there were no agents".to_owned());
        }
        if self.ready < self.agents && self.all_ready_s.is_none() {
            self.why.push(format!("{} of {} agents became ready", self.ready, self.agents));
        }
        self.parts.iter().for_each(|part| self.why.extend(part.faults()));
        if self.flat.is_some_and(|flat| !flat.is_flat()) {
            self.why.push("memory or descriptors grow".to_owned());
        }
        self.passed = self.why.is_empty();
        self
    }

    /// As lines.
    pub fn text(&self) -> String {
        let ns = |ns: Option<u64>| ns.map_or("-".to_owned(), |ns| time(ns as f64));
        let mut lines = vec![format!("{}: {}", self.scenario, self.what)];
        if let Some(seconds) = self.all_ready_s {
            lines.push(format!("  {} agents, all ready after {seconds:.2} s", self.agents));
        }
        for part in &self.parts {
            lines.push(format!(
                "  {} of {} {} delivered · P50 {} · P95 {} · P99 {} · longest {}{}",
                part.delivered,
                part.expected,
                part.what,
                ns(part.p50_ns),
                ns(part.p95_ns),
                ns(part.p99_ns),
                ns(part.max_ns),
                part.msgs_per_s.map_or_else(String::new, |r| format!(" · {} a second", rate(r))),
            ));
        }
        if self.kills > 0 {
            let [p50, p99] = self.recovery_ns.map_or([None; 2], |ns| ns.map(Some));
            lines.push(format!(
                "  {} kills · next message after: p50 {}, p99 {}",
                self.kills,
                ns(p50),
                ns(p99)
            ));
        }
        if let Some(uptime) = self.uptime {
            lines.push(format!("  in service {:.4} % of the time", 100.0 * uptime));
        }
        if let Some(cost) = self.cpu_ns_per_message {
            lines.push(format!("  {cost:.0} ns of CPU for each message, all agents together"));
        }
        if let Some(idle) = self.idle {
            lines.push(format!(
                "  idle: {:.3} % of a CPU for the busiest, {:.0} KiB of memory for each ({:.0} of them shared memory)",
                idle.cpu_percent_max, idle.memory_kib_mean, idle.memfd_kib_mean
            ));
        }
        if let Some(flat) = self.flat {
            let row = |what: &str, [before, after]: [u64; 2]| format!("{what} {before} → {after}");
            lines.push(format!(
                "  supervisor: {}, {}, {}",
                row("descriptors", flat.descriptors),
                row("memory KiB", flat.anonymous_kib),
                row("shared memory KiB", flat.memfd_kib)
            ));
        }
        let verdict = match self.passed {
            true => "passed".to_owned(),
            false => format!("FAILED: {}", self.why.join("; ")),
        };
        lines.push(format!("  success {:.4} % · {:.1} s · {verdict}", 100.0 * self.success, self.seconds));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(expected: u64, tally: &Tally) -> Outcome {
        Outcome {
            agents: 1,
            ready: 1,
            all_ready_s: Some(0.1),
            parts: vec![Part::of("messages", expected, tally)],
            ..Outcome::default()
        }
        .judged()
    }

    fn heard(numbers: &[u64]) -> Tally {
        let mut tally = Tally::of(1);
        numbers.iter().for_each(|&number| tally.note(0, number, 1, 2));
        tally
    }

    #[test]
    fn scenario_passes_when_everything_came_once_and_only_then() {
        let passed = outcome(3, &heard(&[0, 1, 2]));
        assert!(passed.passed && passed.success == 1.0, "{passed:?}");
        for (expected, numbers) in
            [(3, &[0, 1][..]), (3, &[0, 1, 1, 2]), (3, &[0, 2]), (0, &[]), (3, &[]), (2, &[0, 1, 2])]
        {
            let failed = outcome(expected, &heard(numbers));
            assert!(!failed.passed && !failed.why.is_empty(), "{expected} {numbers:?}");
            assert!(failed.text().contains("FAILED"));
        }
    }

    #[test]
    fn no_agents_no_success() {
        let nothing = Outcome::default().judged();
        assert!(!nothing.passed && nothing.success == 0.0);
        let unready = Outcome { agents: 2, ready: 1, all_ready_s: None, ..outcome(1, &heard(&[0])) };
        assert!(!Outcome { why: Vec::new(), ..unready }.judged().passed);
    }

    #[test]
    fn what_grows_fails() {
        let flat = Flat { cycles: [1, 2], descriptors: [3, 9], ..Flat::default() };
        let grown = Outcome { flat: Some(flat), ..outcome(1, &heard(&[0])) };
        assert!(!Outcome { why: Vec::new(), ..grown }.judged().passed);
    }
}
