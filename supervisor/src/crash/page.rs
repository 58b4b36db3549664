//! Crash reports for people: the page of one, the table of many.

use super::{Crash, Decision, Seen, What};
use comfy_table::{Cell, CellAlignment, Table};
use std::fmt::Write as _;

/// The page of one report; every line of foreign text is escaped already.
pub fn page(crash: &Crash) -> String {
    let mut text = format!(
        "crash {}: {} (generation {}, process {}) {}\n",
        crash.id, crash.agent, crash.generation, crash.pid, crash.how
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    line("when", format!("{}, of swarm {} (run {})", crash.at, crash.swarm, crash.run));
    line("lived", format!("{}, its state was: {}", ms(crash.lived_ms), crash.state));
    line("ordered", if crash.ordered { "yes: it counts for nothing".into() } else { "no".into() });
    crash.by.iter().for_each(|by| line("ended by", by.clone()));
    line("decision", decision(&crash.decision));
    match &crash.in_hand {
        Some(held) => {
            let of = if held.attempts_max > 0 { format!(" of {}", held.attempts_max) } else { String::new() };
            let (message, sequence, attempt) = (&held.message, held.sequence, held.attempt);
            line(
                "in hand",
                format!("{message} (number {sequence}), attempt {attempt}{of}, for {}", ms(held.held_ms)),
            );
        }
        None => line("in hand", "no message".into()),
    }
    let counts = &crash.counts;
    line(
        "counted",
        format!(
            "{} sent, {} received, {} steps aborted, {} sends refused, {} faults of peers",
            counts.sent, counts.received, counts.aborted, counts.rejected, counts.peer_faults
        ),
    );
    if crash.verdict != "committed" {
        line("memory", format!("its verdict is: {}", crash.verdict));
    }
    if let Some(usage) = &crash.usage {
        line(
            "used",
            format!(
                "{} user, {} system, {} KiB at most, {} + {} page faults (minor + major), {} + {} switches (own + forced)",
                us(usage.user_us),
                us(usage.system_us),
                usage.max_rss_kib,
                usage.minor_faults,
                usage.major_faults,
                usage.voluntary_switches,
                usage.involuntary_switches
            ),
        );
    }
    if let Some(core) = &crash.core {
        line(
            "core",
            match &core.path {
                Some(path) => path.display().to_string(),
                None => format!("written by the pattern {:?}; see core(5)", core.pattern),
            },
        );
    }
    seen(&mut text, "took", &crash.received);
    seen(&mut text, "sent", &crash.sent);
    match crash.output.as_slice() {
        [] => text += "it printed nothing\n",
        lines => {
            text += "its last lines:\n";
            lines.iter().for_each(|line| {
                let _ = writeln!(text, "  | {line}");
            });
        }
    }
    text
}

fn seen(text: &mut String, verb: &str, messages: &[Seen]) {
    if messages.is_empty() {
        return;
    }
    let _ = writeln!(text, "the last that it {verb}, oldest first:");
    for seen in messages {
        let attempt = if seen.attempt > 1 { format!(", attempt {}", seen.attempt) } else { String::new() };
        let before =
            seen.before_end_ms.map_or(String::new(), |before| format!(", {} before its end", ms(before)));
        let _ = writeln!(text, "  {}{attempt}{before}", seen.message);
    }
}

fn decision(decision: &Decision) -> String {
    let Decision { what, why, .. } = decision;
    let what = match what {
        What::Restarted => "started again at once".to_owned(),
        What::Pauses => format!("started again after {}", us(decision.pause_us.unwrap_or(0))),
        What::Drains => "started again when its predecessors are drained".to_owned(),
        What::Together => "started again with others of its set".to_owned(),
        What::GivenUp => "given up".to_owned(),
        What::Stopped => "stays down".to_owned(),
        What::Ended => "ended".to_owned(),
    };
    if why.is_empty() { what } else { format!("{what}: {why}") }
}

/// The table of many reports.
pub fn table(crashes: &[Crash]) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "WHEN", "AGENT", "GEN", "PID", "HOW", "ORDERED", "LIVED", "IN HAND", "THEN"]);
    for crash in crashes {
        table.add_row(vec![
            right(crash.id.to_string()),
            Cell::new(&crash.at),
            Cell::new(&crash.agent),
            right(crash.generation.to_string()),
            right(crash.pid.to_string()),
            Cell::new(&crash.how),
            Cell::new(if crash.ordered { "yes" } else { "no" }),
            right(ms(crash.lived_ms)),
            Cell::new(crash.in_hand.as_ref().map_or("-", |held| &held.message)),
            Cell::new(word(crash.decision.what)),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn word(what: What) -> &'static str {
    match what {
        What::Restarted => "restarted",
        What::Pauses => "pauses",
        What::Drains => "drains",
        What::Together => "together",
        What::GivenUp => "given up",
        What::Stopped => "stopped",
        What::Ended => "ended",
    }
}

fn ms(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{}.{} s", ms / 1000, ms / 100 % 10),
        _ => format!("{} min", ms / 60_000),
    }
}

/// A time of so many microseconds, in the unit in which it is read best.
pub fn us(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} µs"),
        _ => ms(us / 1000),
    }
}
