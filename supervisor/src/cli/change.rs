//! `shoal reload`, `shoal scale`, `shoal upgrade`: asks, waits until it is done, prints what was.

use super::client::{Client, check_name};
use super::{Failure, duration, print};
use crate::config;
use crate::control::{ChangeReport, Outcome, Request, Response};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What `shoal reload` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ReloadOptions {
    /// The changed swarm file; default: the one that the swarm was started from
    pub file: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeOptions,
}

/// What `shoal scale` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ScaleOptions {
    /// An agent
    name: String,
    /// How many replicas of it are to run
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(config::REPLICAS_MAX)))]
    replicas: u32,
    #[command(flatten)]
    change: ChangeOptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct ChangeOptions {
    /// Print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long agents may take to stop, and their readers to read what they sent, before all is undone
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `shoal upgrade` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct UpgradeOptions {
    /// An agent: its replicas are replaced one by one
    name: String,
    /// How long each must live after it is ready before the next one's turn comes
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    prove: Duration,
    /// It has proved itself, too, when it has received and sent so many messages
    #[arg(long, value_name = "N")]
    prove_messages: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The new command and its arguments, up to the end of the line; default: what the swarm file says now
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "COMMAND")]
    command: Option<Vec<String>>,
}

/// Applies a changed swarm file.
pub(super) fn reload(swarm: Option<&str>, options: &ReloadOptions) -> Result<(), Failure> {
    let mut client = Client::connect(swarm)?;
    let file = options.file.as_ref().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
    let path = match &file {
        Some(file) => file.clone(),
        None => client.swarm_info()?.file,
    };
    // Here first: what is wrong with it is bad input, told as `shoal check` tells it.
    config::read(&path).map_err(|error| Failure::bad_input(error.to_string()))?;
    let ReloadOptions { change, .. } = options;
    let request = Request::Reload { file, dry_run: change.dry_run, timeout_ms: millis(change.timeout) };
    ask(&mut client, &request, change.json)
}

/// Runs another number of replicas.
pub(super) fn scale(swarm: Option<&str>, options: &ScaleOptions) -> Result<(), Failure> {
    let ScaleOptions { name, replicas, change } = options;
    let mut client = Client::connect(swarm)?;
    let timeout_ms = millis(change.timeout);
    let request =
        Request::Scale { name: name.clone(), replicas: *replicas, dry_run: change.dry_run, timeout_ms };
    ask(&mut client, &request, change.json)
}

/// Replaces replicas one by one.
pub(super) fn upgrade(swarm: Option<&str>, options: &UpgradeOptions) -> Result<(), Failure> {
    let UpgradeOptions { name, prove, prove_messages, json, command } = options;
    let mut client = Client::connect(swarm)?;
    check_name(name, &client.ps()?)?;
    let (command, prove_ms, prove_messages) = (command.clone(), millis(*prove), *prove_messages);
    ask(&mut client, &Request::Upgrade { name: name.clone(), command, prove_ms, prove_messages }, *json)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn ask(client: &mut Client, request: &Request, json: bool) -> Result<(), Failure> {
    let report = match client.ask(request, None)? {
        Response::Change(report) => *report,
        refused => return Err(client.unexpected(&refused)),
    };
    let text = match json {
        true => serde_json::to_string(&report).map_err(|error| Failure::failed(error.to_string()))?,
        false => text(&report),
    };
    print(format!("{text}\n").as_bytes())?;
    let why = || report.why.clone().unwrap_or_default();
    match report.outcome {
        Outcome::Planned | Outcome::Unchanged | Outcome::Applied if report.failed.is_empty() => Ok(()),
        Outcome::Planned | Outcome::Unchanged | Outcome::Applied => {
            let failed = report.failed.join(", ");
            Err(Failure::printed(format!(
                "{failed} could not be started: see `shoal logs {}`",
                report.failed[0]
            )))
        }
        Outcome::Undone => Err(Failure::printed(format!("nothing is changed: {}", why()))),
        Outcome::RolledBack => {
            Err(Failure::printed(format!("all replicas run the former command: {}", why())))
        }
    }
}

/// The report for people.
fn text(report: &ChangeReport) -> String {
    let mut lines = report.plan.as_ref().map(crate::reload::Plan::lines).unwrap_or_default();
    lines.extend(report.unread.iter().cloned());
    lines.push(report.outcome.word().to_owned());
    lines.join("\n")
}
