//! Results as lines of a terminal: figures, a bar, and the shape of a result's pairs. Pure.

use shoal_measure::compare::Verdict;
use shoal_measure::outcome::{Machine, Outcome};
use shoal_measure::pairs::spread;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BAR_WIDTH: f64 = 12.0;
const SHAPE_WIDTH: usize = 12;
/// The longest name: rows are shown as they come, so nobody can wait and see.
const NAME_WIDTH: usize = 45;

/// The lines above all results.
pub fn head(machine: &Machine) -> String {
    let Machine { cpu, cpus, kernel, load, shoal, .. } = machine;
    let busy = if *load > 0.5 * *cpus as f64 { "  (busy: compare ratios, not figures)" } else { "" };
    format!(
        "shoal {shoal} · {cpu}, {cpus} CPUs · Linux {kernel} · load {load}{busy}\n\
         {:<NAME_WIDTH$} {:>10} {:>10} {:>10} {:>12} {:>10} {:>7}  {:<12}  {}",
        "", "p50", "p99", "p99.9", "messages/s", "floor", "ratio", "", "its pairs"
    )
}

/// One result.
pub fn line(outcome: &Outcome) -> String {
    let time = |ns: Option<f64>| ns.map_or_else(|| "-".to_owned(), time);
    let is_rate = outcome.is_rate();
    let floor =
        outcome.floor.map_or_else(|| "-".to_owned(), |f| if is_rate { rate(f) } else { self::time(f) });
    let ratio = outcome.ratio_p50;
    format!(
        "{:<NAME_WIDTH$} {:>10} {:>10} {:>10} {:>12} {:>10} {:>7}  {:<12}  {} {}{}",
        outcome.name(),
        time(outcome.p50_ns),
        time(outcome.p99_ns),
        time(outcome.p999_ns),
        outcome.msgs_per_s.map_or_else(|| "-".to_owned(), rate),
        floor,
        ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}")),
        ratio.map_or_else(String::new, bar),
        shape(&outcome.ratios),
        outcome.against,
        cpu(outcome),
    )
}

/// What the receiver takes of a CPU for a message, and the floor's.
fn cpu(outcome: &Outcome) -> String {
    match (outcome.cpu_ns, outcome.floor_cpu_ns) {
        (Some(ours), Some(floor)) => format!("; CPU a message {} beside {}", time(ours), time(floor)),
        _ => String::new(),
    }
}

/// What became of a result since a former run.
pub fn verdict(outcome: &Outcome, verdict: Option<Verdict>) -> String {
    let name = outcome.name();
    match verdict {
        None => format!("{name:<NAME_WIDTH$} not in the former run"),
        Some(Verdict { word, change, confidence }) => {
            format!(
                "{name:<NAME_WIDTH$} {word:<7} {:>+7.1} %  confidence {:.1} %",
                100.0 * change,
                100.0 * confidence
            )
        }
    }
}

/// A time as people read it.
pub fn time(ns: f64) -> String {
    match ns {
        ..1000.0 => format!("{ns:.0} ns"),
        1000.0..1e6 => format!("{:.1} µs", ns / 1e3),
        1e6..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// A rate as people read it.
pub fn rate(per_s: f64) -> String {
    match per_s {
        ..1e3 => format!("{per_s:.0}"),
        1e3..1e6 => format!("{:.0} k", per_s / 1e3),
        _ => format!("{:.1} M", per_s / 1e6),
    }
}

/// How much of its room a ratio fills: the floor is a quarter, four floors are all.
fn bar(ratio: f64) -> String {
    let filled = (ratio / 4.0).clamp(0.0, 1.0) * BAR_WIDTH;
    "█".repeat(filled.round().max(1.0) as usize)
}

/// How many pairs had which ratio, from the lowest to the highest, each tenth of the median a column; the outermost hold the rest.
fn shape(ratios: &[f64]) -> String {
    if ratios.is_empty() {
        return String::new();
    }
    let counts = histogram(ratios, SHAPE_WIDTH);
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let block = |count: usize| if count == 0 { ' ' } else { BLOCKS[(count * 7).div_ceil(most).min(7)] };
    counts.into_iter().map(block).collect()
}

/// Counts in columns around the median, from half to twice of it; the first and the last hold what lies beyond.
pub fn histogram(ratios: &[f64], columns: usize) -> Vec<usize> {
    let median = spread(ratios.iter().copied()).median.max(f64::MIN_POSITIVE);
    let mut counts = vec![0; columns];
    for ratio in ratios {
        // From -1 (half) to 1 (twice).
        let at = (ratio / median).max(f64::MIN_POSITIVE).log2();
        let column = ((at + 1.0) / 2.0 * columns as f64).clamp(0.0, columns as f64 - 1.0);
        counts[column as usize] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_measure::compare::read;

    #[test]
    fn figures_are_written_with_the_unit_that_fits() {
        assert_eq!([80.4, 1500.0, 2.5e6, 3e9].map(time), ["80 ns", "1.5 µs", "2.50 ms", "3.00 s"]);
        assert_eq!([900.0, 12_000.0, 2.15e7].map(rate), ["900", "12 k", "21.5 M"]);
    }

    #[test]
    fn histogram_counts_every_pair_once_and_keeps_outliers_at_its_ends() {
        let ratios = [1.0, 1.0, 1.1, 0.9, 100.0, 0.001];
        let counts = histogram(&ratios, 8);
        assert_eq!(counts.iter().sum::<usize>(), ratios.len());
        assert_eq!((counts[0], counts[7]), (1, 1));
    }

    #[test]
    fn line_shows_what_there_is_and_a_dash_for_what_there_is_not() {
        let outcome = Outcome {
            case: "latency".into(),
            mode: "spin".into(),
            size_bytes: Some(65536),
            p50_ns: Some(3500.0),
            floor: Some(1750.0),
            ratio_p50: Some(2.0),
            against: "a line and a copy".into(),
            ratios: vec![2.0; 21],
            ..Outcome::default()
        };
        let line = line(&outcome);
        for said in ["latency spin 64 KiB", "3.5 µs", "1.8 µs", "2.00", "██████ ", "a line and a copy", " - "]
        {
            assert!(line.contains(said), "{said:?} is not in {line:?}");
        }
    }

    #[test]
    fn no_name_of_the_recorded_run_pushes_the_columns_behind_it_and_the_longest_needs_all_the_room() {
        let run = read(include_str!("../../../docs/performance/bench.json")).expect("a run");
        let longest = run.results.iter().max_by_key(|outcome| outcome.name().chars().count());
        let longest = longest.expect("results").name();
        assert_eq!(longest.chars().count(), NAME_WIDTH, "NAME_WIDTH is to be that of {longest:?}");
        let head = head(&run.machine);
        let end = head.lines().last().and_then(|line| line.find("p50")).expect("a column") + "p50".len();
        for outcome in &run.results {
            let line = line(outcome);
            let figure: String = line.chars().take(end).skip(NAME_WIDTH).collect();
            let due = outcome.p50_ns.map_or_else(|| "-".to_owned(), time);
            assert_eq!(figure.trim_start(), due, "{line}");
        }
    }
}
