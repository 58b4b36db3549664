//! Results as one page of HTML with plots in SVG, which needs nothing else. Pure.

use super::table::{histogram, rate, time};
use shoal_measure::outcome::{Outcome, Run};
use std::fmt::Write;

const COLUMNS: usize = 24;

/// The page.
pub fn page(run: &Run) -> String {
    let machine = &run.machine;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>shoal bench</title>\n<style>\n\
         body{{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}}\n\
         table{{border-collapse:collapse;width:100%}}th,td{{text-align:right;padding:.2em .6em;border-bottom:1px solid #8884}}\n\
         th:first-child,td:first-child,td:last-child{{text-align:left}}rect{{fill:#2a7ab0}}.floor{{fill:#999}}\n</style></head><body>\n\
         <h1>shoal bench</h1>\n<p>shoal {} · {}, {} CPUs · Linux {} · load {}</p>\n\
         <p>Each figure stands beside its floor, measured in turns with it. Ratios are medians of the pairs; the last plot shows how \
         the pairs lie around it, from half to twice.</p>\n",
        escape(&machine.shoal),
        escape(&machine.cpu),
        machine.cpus,
        escape(&machine.kernel),
        machine.load,
    );
    let mut cases: Vec<&str> = run.results.iter().map(|o| o.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let of_case: Vec<&Outcome> = run.results.iter().filter(|o| o.case == case).collect();
        // Round trips come between latencies.
        if page.contains(&format!("<h2>{}</h2>", escape(case))) {
            continue;
        }
        section(&mut page, case, &of_case);
    }
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, case: &str, outcomes: &[&Outcome]) {
    let longest = outcomes.iter().map(|o| figure(o).max(o.floor.unwrap_or_default())).fold(0.0, f64::max);
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<h2>{}</h2>\n<table><tr><th>mode, size</th><th>p50</th><th>p99</th><th>messages/s</th><th>floor</th><th>ratio</th>\
         <th>measured, floor</th><th>pairs</th><th></th></tr>\n",
        escape(case)
    );
    for outcome in outcomes {
        let name = outcome.name();
        let name = name.strip_prefix(case).unwrap_or(&name).trim();
        let ns = |ns: Option<f64>| ns.map_or_else(String::new, time);
        let floor = outcome.floor.unwrap_or_default();
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            ns(outcome.p50_ns),
            ns(outcome.p99_ns),
            outcome.msgs_per_s.map_or_else(String::new, rate),
            if outcome.is_rate() { rate(floor) } else { time(floor) },
            outcome.ratio_p50.map_or_else(String::new, |r| format!("{r:.2}")),
            bars(figure(outcome), floor, longest),
            pairs(outcome),
            escape(&outcome.against),
        );
    }
    page.push_str("</table>\n");
}

/// What is drawn of a result.
fn figure(outcome: &Outcome) -> f64 {
    outcome.msgs_per_s.or(outcome.p50_ns).unwrap_or_default()
}

/// Two bars, on a scale of logarithms: sizes differ by thousands.
fn bars(ours: f64, floor: f64, longest: f64) -> String {
    let width = |value: f64| 200.0 * (1.0 + value.max(0.0)).ln() / (1.0 + longest.max(1.0)).ln();
    format!(
        "<svg width=\"200\" height=\"16\" role=\"img\"><rect width=\"{:.1}\" height=\"7\"/>\
         <rect class=\"floor\" y=\"9\" width=\"{:.1}\" height=\"7\"/></svg>",
        width(ours),
        width(floor)
    )
}

fn pairs(outcome: &Outcome) -> String {
    if outcome.ratios.is_empty() {
        return String::new();
    }
    let counts = histogram(&outcome.ratios, COLUMNS);
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let column = |(at, count): (usize, &usize)| {
        let height = 18 * count / most;
        format!("<rect x=\"{}\" y=\"{}\" width=\"4\" height=\"{height}\"/>", 5 * at, 18 - height)
    };
    let columns: String = counts.iter().enumerate().map(column).collect();
    format!("<svg width=\"120\" height=\"18\" role=\"img\">{columns}</svg>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_measure::outcome::Machine;

    #[test]
    fn page_shows_every_result_with_its_plots_and_escapes_what_comes_from_outside() {
        let outcome = |case: &str, mode: &str| Outcome {
            case: case.into(),
            mode: mode.into(),
            p50_ns: Some(100.0),
            floor: Some(50.0),
            ratios: vec![2.0, 2.1],
            ..Outcome::default()
        };
        let results =
            vec![outcome("latency", "spin"), outcome("round_trip", "spin"), outcome("latency", "parked")];
        let machine = Machine { cpu: "<CPU>".into(), ..Machine::here() };
        let page = page(&Run { machine, results });
        assert_eq!((page.matches("<h2>").count(), page.matches("<tr><td>").count()), (2, 3));
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.contains("&lt;CPU&gt;") && !page.contains("<CPU>"));
    }
}
