//! `shoal bench scenario [NAME]`.

use super::outcome::Outcome;
use super::play;
use super::swarms::{ALL, Named};
use crate::cli::{BAD_INPUT, BenchOptions, FAILED, print, print_error};
use crate::log::report;
use serde::Serialize;
use shoal_measure::outcome::Machine;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// What `--json` writes.
#[derive(Serialize)]
struct Run {
    machine: Machine,
    scenarios: Vec<Outcome>,
}

/// Runs those that are asked for, or lists them.
pub fn scenario(options: &BenchOptions) -> ExitCode {
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err((status, text)) => {
            report!("shoal bench scenario: {text}");
            if options.json.as_deref() == Some(Path::new("-")) {
                print_error(&text);
            }
            ExitCode::from(status)
        }
    }
}

fn run(options: &BenchOptions) -> Result<bool, (u8, String)> {
    let failed = |text: String| (FAILED, text);
    let asked: Vec<&Named> = match options.scenario.as_deref() {
        None => {
            let lines: String =
                ALL.iter().map(|named| format!("{:<16} {}\n", named.name, named.what)).collect();
            return print(lines.as_bytes()).map(|_| true).map_err(|failure| failed(failure.to_string()));
        }
        Some("all") => ALL.iter().collect(),
        Some(name) => vec![Named::of(name).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|named| named.name).collect();
            (BAD_INPUT, format!("there is no scenario `{name}`; there are: {}, and all", names.join(", ")))
        })?],
    };
    if options.compare.is_some() || options.report.is_some() {
        let text = "a scenario has no floor to compare: --compare and --report are for the other cases";
        return Err((BAD_INPUT, text.to_owned()));
    }
    let json_only = options.json.as_deref() == Some(Path::new("-"));
    let mut run = Run { machine: Machine::here(), scenarios: Vec::new() };
    for named in asked {
        let outcome = play::perform(named, options.quick).map_err(failed)?;
        if !json_only {
            print(format!("{}\n", outcome.text()).as_bytes())
                .map_err(|failure| failed(failure.to_string()))?;
        }
        run.scenarios.push(outcome);
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&run).map_err(|e| failed(e.to_string()))? + "\n";
        match json_only {
            true => print(text.as_bytes()).map(drop).map_err(|failure| failed(failure.to_string()))?,
            false => fs::write(path, text).map_err(|e| failed(format!("writing {}: {e}", path.display())))?,
        }
    }
    Ok(run.scenarios.iter().all(|outcome| outcome.passed))
}
