//! The report: metric, target, own bar, what was measured, verdict. Pure. Its JSON is described in docs/certify.md, and stable.

use serde::Serialize;
use shoal_measure::outcome::Machine;

/// The version of the JSON.
pub const FORMAT: u32 = 1;

/// Whether a target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was measured, and holds.
    Passed,
    /// It does not hold, or was not measured.
    Failed,
}

/// Whether one of Shoal's own bars holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bar {
    /// It was measured, and holds.
    Met,
    /// It does not hold, or was not measured.
    Missed,
}

/// On which side of its limit a figure must lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Less than it.
    Below,
    /// More than it.
    Above,
    /// It, or more.
    AtLeast,
}

/// A figure and its limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What the figure is.
    pub what: String,
    /// Where it must lie.
    pub side: Side,
    /// Of what.
    pub limit: f64,
    /// Of figure and limit.
    pub unit: String,
    /// The figure; nothing where it was not measured.
    pub measured: Option<f64>,
}

impl Check {
    /// A check of nothing yet.
    pub fn new(what: &str, side: Side, limit: f64, unit: &str) -> Check {
        Check { what: what.into(), side, limit, unit: unit.into(), measured: None }
    }

    /// Whether it was measured and holds.
    pub fn holds(&self) -> bool {
        self.measured.is_some_and(|figure| {
            figure.is_finite()
                && match self.side {
                    Side::Below => figure < self.limit,
                    Side::Above => figure > self.limit,
                    Side::AtLeast => figure >= self.limit,
                }
        })
    }

    fn sign(&self) -> &'static str {
        match self.side {
            Side::Below => "<",
            Side::Above => ">",
            Side::AtLeast => "≥",
        }
    }

    /// Its limit in words.
    pub fn wanted(&self) -> String {
        format!("{} {} {}", self.sign(), figure(self.limit), self.unit).trim_end().to_owned()
    }

    /// Its figure in words.
    pub fn found(&self) -> String {
        let Some(measured) = self.measured else { return "not measured".to_owned() };
        format!("{} {}", figure(measured), self.unit).trim_end().to_owned()
    }
}

/// A number with as many digits as tell something.
fn figure(number: f64) -> String {
    let text = match number.abs() {
        0.0 => "0".to_owned(),
        // A share of a hundred must not be rounded up to it.
        99.0..100.0 => format!("{number:.5}"),
        1e6.. => return format!("{:.1} million", number / 1e6),
        100.0.. => format!("{number:.0}"),
        0.1.. => format!("{number:.2}"),
        _ => format!("{number:.5}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// One of the eight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// A word for it: `latency`, `throughput`, `agents`, `reliability`, `cpu`, `memory`, `recovery`, `uptime`.
    pub metric: String,
    /// Its name.
    pub name: String,
    /// What the project's origin asks for.
    pub target: Check,
    /// Whether that holds.
    pub verdict: Verdict,
    /// What Shoal asks of itself.
    pub bars: Vec<Check>,
    /// Whether all of these hold.
    pub own_bar: Bar,
    /// Further figures, which have no limit.
    pub besides: Vec<Check>,
    /// How it was measured.
    pub method: String,
    /// The commands that measure it.
    pub commands: Vec<String>,
    /// What went wrong.
    pub why: Vec<String>,
}

impl Metric {
    /// Says what holds. Where something went wrong, nothing does.
    pub fn judged(mut self) -> Metric {
        let sound = self.why.is_empty();
        self.verdict = if sound && self.target.holds() { Verdict::Passed } else { Verdict::Failed };
        self.own_bar = match sound && !self.bars.is_empty() && self.bars.iter().all(Check::holds) {
            true => Bar::Met,
            false => Bar::Missed,
        };
        self
    }
}

/// What `shoal certify` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Where.
    pub machine: Machine,
    /// Shorter runs, and fewer agents.
    pub quick: bool,
    /// Only some metrics were asked for: this certifies nothing.
    pub partial: bool,
    /// Every target holds.
    pub passed: bool,
    /// Every own bar holds, too.
    pub own_bars_met: bool,
    /// How long it took, s.
    pub seconds: f64,
    /// Each.
    pub metrics: Vec<Metric>,
}

impl Report {
    /// Of judged metrics.
    pub fn of(machine: Machine, quick: bool, partial: bool, seconds: f64, metrics: Vec<Metric>) -> Report {
        let passed = !metrics.is_empty() && metrics.iter().all(|m| m.verdict == Verdict::Passed);
        let own_bars_met = !metrics.is_empty() && metrics.iter().all(|m| m.own_bar == Bar::Met);
        Report { format: FORMAT, machine, quick, partial, passed, own_bars_met, seconds, metrics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(measured: Option<f64>, bar: Option<f64>, why: &[&str]) -> Metric {
        let check = |measured| Check { measured, ..Check::new("P95", Side::Below, 10.0, "ms") };
        Metric {
            metric: "latency".into(),
            name: "latency".into(),
            target: check(measured),
            verdict: Verdict::Passed,
            bars: vec![check(bar)],
            own_bar: Bar::Met,
            besides: Vec::new(),
            method: String::new(),
            commands: Vec::new(),
            why: why.iter().map(|&why| why.to_owned()).collect(),
        }
        .judged()
    }

    #[test]
    fn what_was_not_measured_or_went_wrong_fails_and_misses() {
        for (metric, expected) in [
            (metric(Some(1.0), Some(1.0), &[]), (Verdict::Passed, Bar::Met)),
            (metric(Some(1.0), Some(11.0), &[]), (Verdict::Passed, Bar::Missed)),
            (metric(Some(1.0), None, &[]), (Verdict::Passed, Bar::Missed)),
            (metric(Some(10.0), Some(1.0), &[]), (Verdict::Failed, Bar::Met)),
            (metric(None, Some(1.0), &[]), (Verdict::Failed, Bar::Met)),
            (metric(Some(f64::NAN), Some(1.0), &[]), (Verdict::Failed, Bar::Met)),
            (metric(Some(1.0), Some(1.0), &["nothing was delivered"]), (Verdict::Failed, Bar::Missed)),
        ] {
            assert_eq!((metric.verdict, metric.own_bar), expected, "{metric:?}");
        }
    }

    #[test]
    fn report_passes_when_there_are_metrics_and_each_passed() {
        let report = |metrics| Report::of(Machine::here(), false, false, 1.0, metrics);
        let good = || metric(Some(1.0), None, &[]);
        assert!(report(vec![good(), good()]).passed && !report(vec![good()]).own_bars_met);
        assert!(!report(vec![good(), metric(None, None, &[])]).passed);
        assert!(!report(Vec::new()).passed);
    }

    #[test]
    fn figures_keep_what_tells_something_and_a_share_is_never_rounded_up_to_all() {
        for (number, text) in
            [(0.0, "0"), (0.00042, "0.00042"), (1.5, "1.5"), (812.4, "812"), (2.15e7, "21.5 million")]
        {
            assert_eq!(figure(number), text);
        }
        assert_eq!(figure(99.9996), "99.9996");
        assert_eq!(figure(100.0), "100");
    }
}
