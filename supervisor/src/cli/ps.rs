//! `shoal ps`.

use comfy_table::{Cell, CellAlignment, Table};

use super::client::Client;
use super::{Failure, print};
use crate::control::{PsAgent, PsReport};

/// Prints how the agents are.
pub(super) fn ps(swarm: Option<&str>, json: bool) -> Result<(), Failure> {
    let report = Client::connect(swarm)?.ps()?;
    let mut text = match json {
        true => serde_json::to_string(&report).map_err(|error| Failure::failed(error.to_string()))?,
        false => table(&report),
    };
    text.push('\n');
    print(text.as_bytes()).map(|_| ())
}

pub(super) fn table(report: &PsReport) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let head =
        ["AGENT", "PID", "GEN", "STATE", "RESTARTS", "UPTIME", "MEMORY", "SENT", "RECEIVED", "P50", "P99"];
    // Only a swarm that has sets says who is in which.
    let sets = !report.sets.is_empty();
    table.set_header(head.into_iter().chain(sets.then_some("SET")));
    for agent in &report.agents {
        let mut cells = row(agent);
        cells.extend(sets.then(|| Cell::new(set(report, agent))));
        table.add_row(cells);
    }
    let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    let scaled = report.scaled_to_nothing.iter();
    lines.extend(scaled.map(|name| format!("scaled to 0: {name} (`shoal scale {name} 1` starts it)")));
    lines.extend(report.under_way.iter().map(|what| format!("under way: {what}")));
    lines.join("\n")
}

/// `store, one_for_all`, and how often it was restarted as a whole if it was.
fn set(report: &PsReport, agent: &PsAgent) -> String {
    let Some(set) = report.sets.iter().find(|set| agent.set.as_ref() == Some(&set.name)) else {
        return "-".into();
    };
    let restarts = if set.restarts == 0 { String::new() } else { format!(", restarted {}", set.restarts) };
    format!("{}, {}{restarts}", set.name, set.strategy)
}

fn row(agent: &PsAgent) -> Vec<Cell> {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let latency = |ns: Option<u64>| right(ns.map_or("-".into(), latency));
    vec![
        Cell::new(&agent.name),
        right(agent.pid.map_or("-".into(), |pid| pid.to_string())),
        right(agent.generation.to_string()),
        Cell::new(agent.state.word()),
        right(agent.restarts.to_string()),
        right(uptime(agent.uptime_ms)),
        right(memory(agent.pss_kib)),
        right(agent.sent.to_string()),
        right(agent.received.to_string()),
        latency(agent.p50_ns),
        latency(agent.p99_ns),
    ]
}

pub(super) fn uptime(ms: u64) -> String {
    let second = ms / 1000;
    match second {
        0 => format!("{ms} ms"),
        1..60 => format!("{second} s"),
        60..3600 => format!("{} min {:02} s", second / 60, second % 60),
        3600..86_400 => format!("{} h {:02} min", second / 3600, second / 60 % 60),
        _ => format!("{} d {:02} h", second / 86_400, second / 3600 % 24),
    }
}

pub(super) fn memory(kib: u64) -> String {
    match kib {
        0..10_240 => format!("{kib} KiB"),
        10_240..10_485_760 => format!("{} MiB", kib / 1024),
        _ => format!("{} GiB", kib / (1024 * 1024)),
    }
}

pub(super) fn latency(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}
