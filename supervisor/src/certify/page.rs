//! The report as Markdown. Pure.

use super::report::{Bar, Check, Metric, Report, Verdict};
use std::fmt::Write;

/// The page.
pub fn page(report: &Report) -> String {
    let Report { machine, quick, partial, passed, own_bars_met, seconds, metrics, .. } = report;
    let verdict = match (partial, passed) {
        (true, _) => "Only some of the metrics were measured: this certifies nothing.",
        (false, true) => "**Certified**: every target holds.",
        (false, false) => "**Not certified**: a target is missed.",
    };
    let bars = if *own_bars_met {
        "Every bar of Shoal's own is met."
    } else {
        "Not every bar of Shoal's own is met."
    };
    let mut page = format!(
        "# Certification of Shoal {}\n\n{verdict} {bars}\n\n{}, {} CPUs, Linux {}, load {} at the begin; {seconds:.0} s{}.\n\n\
         | metric | target | measured | verdict | own bar | measured | own bar |\n|---|---|---|---|---|---|---|\n",
        machine.shoal,
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.load,
        if *quick { ", with `--quick`: shorter runs and fewer agents" } else { "" },
    );
    for metric in metrics {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            metric.name,
            metric.target.wanted(),
            metric.target.found(),
            word(metric.verdict),
            lines(&metric.bars, |check| format!("{} {}", check.what, check.wanted())),
            lines(&metric.bars, Check::found),
            lines(&metric.bars, |check| (if check.holds() { "met" } else { "missed" }).to_owned()),
        );
    }
    page.push_str("\n## How it was measured\n\n");
    metrics.iter().for_each(|metric| section(&mut page, metric));
    page
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
    }
}

fn lines(checks: &[Check], line: impl Fn(&Check) -> String) -> String {
    checks.iter().map(line).collect::<Vec<_>>().join("<br>")
}

fn section(page: &mut String, metric: &Metric) {
    let Metric { name, target, method, commands, why, besides, .. } = metric;
    let commands: Vec<String> = commands.iter().map(|command| format!("`{command}`")).collect();
    let _ = write!(page, "- **{name}** ({}): {method}. {}", target.what, commands.join(", "));
    if !besides.is_empty() {
        let besides: Vec<String> = besides.iter().map(|b| format!("{}: {}", b.what, b.found())).collect();
        let _ = write!(page, ". Besides: {}", besides.join("; "));
    }
    page.push('\n');
    for why in why {
        let _ = writeln!(page, "  - went wrong: {}", why.replace('\n', " "));
    }
}

/// One line for each metric, for a terminal.
pub fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.metrics.iter().map(line).collect();
    lines.push(match (report.partial, report.passed) {
        (true, true) => {
            "what was asked for holds; only some metrics were measured: this certifies nothing".to_owned()
        }
        (_, true) => "certified: every target holds".to_owned(),
        (_, false) => "NOT certified: a target is missed".to_owned(),
    });
    lines.join("\n")
}

fn line(metric: &Metric) -> String {
    let bar = if metric.own_bar == Bar::Met { "met" } else { "missed" };
    let mut line = format!(
        "{:<26} {:<7} {:>24} (target {}) · own bar {bar}",
        metric.name,
        word(metric.verdict),
        metric.target.found(),
        metric.target.wanted(),
    );
    for check in &metric.bars {
        let sign = if check.holds() { "met   " } else { "missed" };
        let _ = write!(line, "\n    {sign} {}: {} (bar {})", check.what, check.found(), check.wanted());
    }
    for why in &metric.why {
        let _ = write!(line, "\n    went wrong: {why}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{ALL, Size, measure};
    use super::*;
    use shoal_measure::outcome::Machine;

    #[test]
    fn page_has_a_row_and_a_method_for_each_metric_and_says_what_went_wrong() {
        let size = Size { quick: true, kills_supervisor: false };
        let metrics = ALL.map(|word| measure(word, size, &mut |_| Err("no\nway".to_owned())));
        let report = Report::of(Machine::here(), true, false, 12.0, metrics.into());
        let page = page(&report);
        assert_eq!(page.matches("| FAILED |").count(), 8, "{page}");
        assert!(page.contains("**Not certified**") && page.contains("went wrong: no way"));
        assert!(text(&report).ends_with("NOT certified: a target is missed"));
    }
}
