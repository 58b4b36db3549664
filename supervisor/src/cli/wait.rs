//! `shoal wait`: until agents are ready, or have ended.

use std::time::Duration;

use clap::Args;

use super::client::{Target, check_name};
use super::{Failure, NOT_RUNNING, duration, json, print};
use crate::control::{Request, Response};

/// What `shoal wait` is asked for.
#[derive(Debug, Args)]
pub(super) struct WaitOptions {
    /// An agent, or one replica of it; without it all, or with --ended the swarm
    name: Option<String>,
    /// Until they are ready; this is what is waited for unless --ended is given
    #[arg(long, conflicts_with = "ended")]
    ready: bool,
    /// Until they have ended: stopped, done or given up
    #[arg(long)]
    ended: bool,
    /// Give up after this time, such as `30s` or `2m`
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Waits.
pub(super) fn wait(swarm: Option<&str>, options: &WaitOptions) -> Result<(), Failure> {
    let what = if options.ended { "ended" } else { "ready" };
    let late = || {
        let whom = options.name.as_deref().unwrap_or("the swarm");
        Failure::failed(format!("{whom} is not {what} after {:?}", options.timeout.unwrap_or_default()))
    };
    let whole = options.ended && options.name.is_none();
    let target = match Target::find(swarm) {
        // It has ended.
        Err(failure) if whole && failure.status == NOT_RUNNING => {
            let which = swarm.map_or(String::new(), |name| format!(" `{name}`"));
            return said(options, &format!("no swarm{which} is running"), &[]);
        }
        target => target?,
    };
    let mut client = target.connect()?;
    if whole {
        return match client.until_gone(options.timeout)? {
            true => said(options, &format!("the swarm `{}` ended", target.name()), &[]),
            false => Err(late()),
        };
    }
    let request = Request::Wait { name: options.name.clone(), ended: options.ended };
    if options.timeout.is_none() {
        client.be_heard()?;
    }
    match client.ask_within(&request, options.timeout)? {
        None => Err(late()),
        Some(Response::Ordered { text, agents }) => said(options, &text, &agents),
        Some(refused) => {
            if let Some(name) = &options.name {
                check_name(name, &client.ps()?)?;
            }
            Err(client.unexpected(&refused))
        }
    }
}

fn said(options: &WaitOptions, text: &str, agents: &[String]) -> Result<(), Failure> {
    let line = match options.json {
        true => json(&serde_json::json!({ "done": text, "agents": agents }))?,
        false => format!("{text}\n"),
    };
    print(line.as_bytes()).map(|_| ())
}
