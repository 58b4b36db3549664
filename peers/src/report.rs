//! What came of it: rows in the words of `shoal bench --json`, with who was measured and the ratio to Shoal; and the table.

use serde::{Deserialize, Serialize};
use shoal_measure::outcome::{Machine, size};
use shoal_measure::pairs::spread;
use std::collections::BTreeMap;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub results: Vec<Row>,
    /// What was not, and why.
    pub not_measured: Vec<Missing>,
}

/// One peer in one case and mode with messages of one size. Times are nanoseconds one way; what a case does not have is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `latency`, `throughput` or `throughput_batch`.
    pub case: String,
    /// How it waits.
    pub mode: String,
    /// Bytes of a message.
    pub size_bytes: usize,
    /// Who: `shoal`, or a peer.
    pub peer: String,
    /// How it is used.
    pub how: String,
    /// Messages that were received and found right.
    pub count: u64,
    /// Half are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<f64>,
    /// 95 of 100 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ns: Option<f64>,
    /// 99 of 100 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<f64>,
    /// 999 of 1000 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ns: Option<f64>,
    /// Messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msgs_per_s: Option<f64>,
    /// The same of the floor: p50 in ns, or messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// What the floor is.
    pub against: String,
    /// Of the rounds, the median of this peer : floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p50: Option<f64>,
    /// The same of the p99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p99: Option<f64>,
    /// Of the rounds, the median of this peer : Shoal. Of times more than 1 is slower than Shoal, of rates less than 1.
    pub ratio_shoal_p50: f64,
    /// The same of the p99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_shoal_p99: Option<f64>,
    /// The ratio to Shoal of every round, in order.
    pub ratios_shoal: Vec<f64>,
}

/// What has no figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// Who.
    pub peer: String,
    /// In which mode, if only in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// With messages of which size, if only of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<usize>,
    /// Why.
    pub why: String,
    /// Whether it went wrong, which is more than not to be there.
    pub failed: bool,
}

impl Report {
    /// An empty one.
    pub fn new(machine: Machine) -> Report {
        Report { machine, results: Vec::new(), not_measured: Vec::new() }
    }

    /// What was not measured, a line for each peer and reason.
    pub fn missing(&self) -> Vec<String> {
        let mut lines: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for missing in &self.not_measured {
            let place = match (&missing.mode, missing.size_bytes) {
                (Some(mode), Some(bytes)) => vec![format!("{mode} {}", size(bytes))],
                _ => Vec::new(),
            };
            lines.entry((&missing.peer, &missing.why)).or_default().extend(place);
        }
        let line = |((peer, why), places): (_, Vec<String>)| match places[..] {
            [] => format!("{peer}: not measured: {why}"),
            _ => format!("{peer}, {}: not measured: {why}", places.join(", ")),
        };
        lines.into_iter().map(line).collect()
    }
}

/// The head of a table.
pub fn head(machine: &Machine) -> String {
    format!(
        "{}, {} CPUs, Linux {}, load {}\nof times and rates the medians; ratios peer : floor and peer : Shoal of the rounds, with quartiles\n\n{:<32} {:<15} {:>10} {:>10} {:>9} {:>9}  {:<26} {}",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.load,
        "case",
        "peer",
        "p50, rate",
        "p99",
        ": floor",
        "p99",
        ": Shoal",
        "used how"
    )
}

/// A row of it.
pub fn line(row: &Row) -> String {
    let ratio = |number: Option<f64>| number.map_or(String::new(), |r| format!("{r:.2}"));
    let to_shoal = match row.peer.as_str() {
        "shoal" => String::new(),
        _ => spread(row.ratios_shoal.iter().copied()).to_string(),
    };
    format!(
        "{:<32} {:<15} {:>10} {:>10} {:>9} {:>9}  {:<26} {}",
        format!("{} {} {}", row.case, row.mode, size(row.size_bytes)),
        row.peer,
        row.msgs_per_s.map_or_else(|| time(row.p50_ns), rate),
        time(row.p99_ns),
        ratio(row.ratio_p50),
        ratio(row.ratio_p99),
        to_shoal,
        row.how,
    )
    .trim_end()
    .to_owned()
}

fn time(ns: Option<f64>) -> String {
    match ns {
        None => String::new(),
        Some(ns) if ns < 1e3 => format!("{ns:.0} ns"),
        Some(ns) if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        Some(ns) => format!("{:.1} ms", ns / 1e6),
    }
}

fn rate(per_s: f64) -> String {
    if per_s >= 1e6 { format!("{:.2} M/s", per_s / 1e6) } else { format!("{:.1} k/s", per_s / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_one_line_for_each_peer_and_reason() {
        let mut report = Report::new(Machine::here());
        let missing = |peer: &str, size_bytes: Option<usize>, why: &str| Missing {
            peer: peer.into(),
            mode: size_bytes.map(|_| "spin".into()),
            size_bytes,
            why: why.into(),
            failed: false,
        };
        report.not_measured = vec![
            missing("a", Some(64), "so"),
            missing("a", Some(1 << 20), "so"),
            missing("b", None, "not installed"),
        ];
        assert_eq!(
            report.missing(),
            ["a, spin 64 B, spin 1024 KiB: not measured: so", "b: not measured: not installed"]
        );
    }
}
