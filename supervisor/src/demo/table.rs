//! The table at the demo's end, for humans.

use comfy_table::Table;

use super::report::Report;

/// Returns the table, and below it what differs, if anything does.
pub(super) fn table(report: &Report) -> String {
    let figures = &report.figures;
    let either = |p50: Option<u64>, p99: Option<u64>, unit_ns| {
        format!("{} / {}", duration(p50, unit_ns), duration(p99, unit_ns))
    };
    let rows = [
        ("files", report.files.len().to_string()),
        ("skipped", report.skipped.len().to_string()),
        ("unreadable", report.unreadable.len().to_string()),
        ("changed meanwhile", report.changed.len().to_string()),
        ("bytes", report.bytes.to_string()),
        ("passes", figures.passes.to_string()),
        ("messages", figures.messages.to_string()),
        ("kills, proven", figures.kills.to_string()),
        ("restarts", figures.restarts.to_string()),
        ("kill to next message, p50 / p99", either(figures.recovery_p50_us, figures.recovery_p99_us, 1000)),
        ("message latency, p50 / p99", either(figures.latency_p50_ns, figures.latency_p99_ns, 1)),
        ("throughput", throughput(report)),
        ("identical to the sequential result", if report.identical { "yes" } else { "NO" }.to_owned()),
    ];
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    let mut text = table.to_string();
    for difference in &report.differences {
        text.push_str("\n  ");
        text.push_str(difference);
    }
    let left_out = report.differences_count.saturating_sub(report.differences.len() as u64);
    if left_out > 0 {
        text.push_str(&format!("\n  and {left_out} more"));
    }
    text
}

fn throughput(report: &Report) -> String {
    let Some(messages_per_s) = report.messages_per_s else { return "-".to_owned() };
    let bytes = report.bytes as f64 * report.figures.passes as f64;
    let mib_per_s = bytes / report.figures.seconds / f64::from(1 << 20);
    format!("{messages_per_s:.0} messages/s, {mib_per_s:.1} MiB/s")
}

/// Returns a duration of so many units of `unit_ns` in the unit that reads best, or `-`.
fn duration(value: Option<u64>, unit_ns: u64) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let ns = value.saturating_mul(unit_ns);
    let (scale_ns, unit) = match ns {
        0..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let rounded = format!("{:.1}", ns as f64 / scale_ns as f64);
    format!("{} {unit}", rounded.strip_suffix(".0").unwrap_or(&rounded))
}
