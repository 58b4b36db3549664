//! `shoal reload`, `shoal scale`, `shoal upgrade`: asks, waits until it is done, prints what was.

use super::client::{Client, check_name};
use super::{Failure, duration, print};
use crate::config::{self, OnGone};
use crate::control::{ChangeReport, Outcome, Request, Response, logs_of};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// What `shoal reload` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ReloadOptions {
    /// The changed swarm file; default: the one that the swarm was started from
    pub file: Option<PathBuf>,
    /// What becomes of what agents that the file names no more have not read, also of those removed before for whom it is kept; default: what
    /// was last said of each
    #[arg(long, value_name = "WORD")]
    on_gone: Option<OnGone>,
    #[command(flatten)]
    change: ChangeOptions,
}

impl ValueEnum for OnGone {
    fn value_variants<'a>() -> &'a [Self] {
        &OnGone::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.word().into())
    }
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
    /// How long it may take: agents to stop and their readers to read what they sent, before all is undone; then those that are
    /// started to get ready, which the exit status tells, and is not undone
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
    /// How long all of it is waited for; it goes on when the time is over. Default: as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
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
    // Where the supervisor runs in another folder; and a link stays one.
    let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
    let file = options.file.as_ref().map(absolute);
    let path = match &file {
        Some(file) => file.clone(),
        None => client.swarm_info()?.file,
    };
    // Here first: what is wrong with it is bad input, told as `shoal check` tells it.
    config::read(&path).map_err(|error| Failure::bad_input(error.to_string()))?;
    let ReloadOptions { change, on_gone, .. } = options;
    let (on_gone, timeout_ms) = (*on_gone, millis(change.timeout));
    let request = Request::Reload { file, on_gone, dry_run: change.dry_run, timeout_ms };
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
    let UpgradeOptions { name, prove, prove_messages, timeout, json, command } = options;
    let mut client = Client::connect(swarm)?;
    check_name(name, &client.ps()?)?;
    let (name, command) = (name.clone(), command.clone());
    let (prove_ms, prove_messages, timeout_ms) = (millis(*prove), *prove_messages, timeout.map(millis));
    ask(&mut client, &Request::Upgrade { name, command, prove_ms, prove_messages, timeout_ms }, *json)
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
        Outcome::Planned | Outcome::Unchanged | Outcome::Applied => match not_up(&report) {
            None => Ok(()),
            Some(text) => Err(Failure::printed(text)),
        },
        Outcome::Undone => Err(Failure::printed(format!("nothing is changed: {}", why()))),
        Outcome::RolledBack => {
            Err(Failure::printed(format!("all replicas run the former command: {}", why())))
        }
        Outcome::UnderWay => Err(Failure::printed(format!(
            "{} not done in time; that goes on: {}; `shoal status` shows how far it is",
            report.late.join(", "),
            why()
        ))),
    }
}

/// Who was started for a change and is not ready, in words.
fn not_up(report: &ChangeReport) -> Option<String> {
    let ChangeReport { failed, late, .. } = report;
    let failed = failed
        .first()
        .map(|_| format!("{} could not be started: see {}", failed.join(", "), logs_of(failed)));
    let late = late.first().map(|_| {
        let all = late.join(", ");
        match &report.why {
            Some(why) => format!("{all} was not started again: {why}"),
            None => format!(
                "{all} not ready in time, and not given up: the change stays applied; see `shoal ps`, {}",
                logs_of(late)
            ),
        }
    });
    let texts: Vec<String> = failed.into_iter().chain(late).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The report for people.
fn text(report: &ChangeReport) -> String {
    let mut lines = report.plan.as_ref().map(crate::reload::Plan::lines).unwrap_or_default();
    lines.extend(report.unread.iter().cloned());
    lines.push(report.outcome.word().to_owned());
    lines.join("\n")
}
