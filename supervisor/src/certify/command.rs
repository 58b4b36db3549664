//! `shoal certify`.

use super::metrics::{self, ALL, Size};
use super::page;
use super::probe::Probes;
use super::report::Report;
use crate::cli::{BAD_INPUT, FAILED, print, print_error, takes};
use crate::log::report;
use clap::Args;
use clap::builder::PossibleValuesParser;
use shoal_measure::outcome::Machine;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What `shoal certify` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CertifyOptions {
    /// Shorter runs and fewer agents: about a minute
    #[arg(long)]
    pub quick: bool,
    /// Where certification.md and certification.json are written
    #[arg(long, value_name = "DIR", default_value = "shoal-certification")]
    pub out: PathBuf,
    /// Only this metric, which certifies nothing; may be given more than once
    #[arg(long, value_name = "METRIC", value_parser = PossibleValuesParser::new(ALL))]
    pub only: Vec<String>,
    /// Print the report as JSON, too
    #[arg(long)]
    pub json: bool,
}

/// Measures, writes the report, and says what holds.
pub fn certify(options: &CertifyOptions) -> ExitCode {
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err((status, text)) => {
            report!("shoal certify: {text}");
            if options.json {
                print_error(&text);
            }
            ExitCode::from(status)
        }
    }
}

fn run(options: &CertifyOptions) -> Result<bool, (u8, String)> {
    let CertifyOptions { quick, out, only, json } = options;
    // Before minutes are spent.
    fs::create_dir_all(out).map_err(|e| (BAD_INPUT, format!("making {}: {e}", out.display())))?;
    let (machine, began) = (Machine::here(), Instant::now());
    let mut probes = Probes::default();
    let size = Size { quick: *quick, kills_supervisor: takes("chaos", "kill_supervisor") };
    let asked = ALL.into_iter().filter(|word| only.is_empty() || only.iter().any(|only| only == word));
    let metrics: Vec<_> =
        asked.map(|word| metrics::measure(word, size, &mut |command| probes.ask(command))).collect();
    let partial = metrics.len() < ALL.len();
    let report = Report::of(machine, *quick, partial, began.elapsed().as_secs_f64(), metrics);
    let failed = |text: String| (FAILED, text);
    let as_json = serde_json::to_string_pretty(&report).map_err(|e| failed(e.to_string()))? + "\n";
    for (name, text) in [("certification.md", page::page(&report)), ("certification.json", as_json.clone())] {
        let path = out.join(name);
        fs::write(&path, text).map_err(|e| failed(format!("writing {}: {e}", path.display())))?;
    }
    let said = if *json { as_json } else { page::text(&report) + "\n" };
    print(said.as_bytes()).map_err(|failure| failed(failure.to_string()))?;
    report!("shoal certify: wrote {} and certification.json", out.join("certification.md").display());
    Ok(report.passed)
}
