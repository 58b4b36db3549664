//! `shoal doctor`: prints what the doctor found. Exit status 0: all is fine; 1: something limits; 2: swarms, or the one of
//! this file, cannot run here.

use crate::check::refused;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{BAD_INPUT, FAILED, Failure, json, print};
use crate::config;
use crate::doctor::{Finding, Weight, limits, probe, strays, worst};
use crate::run_dir::Place;

/// What `shoal doctor` is asked for.
#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// A swarm file: whether the limits suffice for it
    pub(super) file: Option<PathBuf>,
    /// Remove what former runs left
    #[arg(long)]
    sweep: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    verdict: &'static str,
    findings: &'a [Finding],
}

/// Looks at everything and prints it.
pub(super) fn doctor(options: &DoctorOptions) -> Result<ExitCode, Failure> {
    let file = match options.file.as_deref().map(config::read).transpose() {
        Ok(file) => file,
        Err(error) => return Ok(refused(&error, options.json)),
    };
    let mut findings = probe::kernel();
    findings.extend(limits::limits(file.as_ref()));
    // Without a place the limits say so, and nothing lies in it.
    if let Ok(place) = Place::of_user() {
        findings.extend(strays::strays(&place, options.sweep));
    }
    let worst = worst(&findings);
    let text = match options.json {
        true => json(&Report { verdict: verdict(worst), findings: &findings })?,
        false => text(&findings, worst),
    };
    print(text.as_bytes())?;
    Ok(match worst {
        Weight::Limits => ExitCode::from(FAILED),
        Weight::Stops => ExitCode::from(BAD_INPUT),
        Weight::Fine | Weight::Note => ExitCode::SUCCESS,
    })
}

fn verdict(worst: Weight) -> &'static str {
    match worst {
        Weight::Fine | Weight::Note => "fine",
        Weight::Limits => "limited",
        Weight::Stops => "cannot run",
    }
}

fn text(findings: &[Finding], worst: Weight) -> String {
    let mut text = String::new();
    let mut group = "";
    for finding in findings {
        if finding.group != group {
            group = finding.group;
            text += &format!("{group}\n");
        }
        text += &format!("  {:<6} {}: {}\n", finding.weight.word(), finding.what, finding.found);
        if !finding.advice.is_empty() {
            text += &format!("         {}\n", finding.advice);
        }
    }
    text + match worst {
        Weight::Fine | Weight::Note => "swarms run here, and nothing is lacking\n",
        Weight::Limits => "swarms run here; what is marked `limits` works less well, or not at all\n",
        Weight::Stops => "what is marked `STOPS` must be had first\n",
    }
}
