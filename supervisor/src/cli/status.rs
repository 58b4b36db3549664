//! `shoal status`: whether a swarm is well, in a few lines and an exit status.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Cell, CellAlignment, Table};

use super::client::{Client, Target, check_name};
use super::{Failure, duration, json, print, ps};
use crate::control::status::{Health, StatusAgent, StatusReport};
use crate::control::{PsState, is_meant};
use crate::dead_letters;
use crate::run_dir::{Place, list_dead_letters_in};

/// What `shoal status` is asked for.
#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// An agent (all its replicas) or one replica; without it the whole swarm
    name: Option<String>,
    /// Count messages for this long, to tell how many there are a second; 0 does not
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    over: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints how a swarm, or an agent, is; fails unless that is well.
pub(super) fn status(swarm: Option<&str>, options: &StatusOptions) -> Result<(), Failure> {
    let target = Target::find(swarm)?;
    let mut client = target.connect()?;
    let mut report = measured(&mut client, options.over)?;
    report.dead_letters = letters(&report.swarm);
    if let Some(name) = &options.name {
        narrow(&mut report, name, &mut client)?;
    }
    print(if options.json { json(&report)? } else { text(&report, options.name.is_none()) }.as_bytes())?;
    match report.health {
        Health::Healthy => Ok(()),
        // The report says it.
        Health::Starting | Health::Degraded | Health::Stopping => Err(Failure::printed("")),
    }
}

/// Keeps the agents of a name; the health is theirs then.
fn narrow(report: &mut StatusReport, name: &str, client: &mut Client) -> Result<(), Failure> {
    check_name(name, &client.ps()?)?;
    report.agents.retain(|agent| is_meant(name, &agent.name));
    report.health =
        Health::of(report.health == Health::Stopping, report.agents.iter().map(|agent| agent.state));
    Ok(())
}

/// Asks twice, and says how many messages came a second in between.
fn measured(client: &mut Client, over: Duration) -> Result<StatusReport, Failure> {
    let before = client.status()?;
    if over.is_zero() {
        return Ok(before);
    }
    let asked = Instant::now();
    std::thread::sleep(over);
    let mut report = client.status()?;
    let seconds = asked.elapsed().as_secs_f64();
    let received: HashMap<&str, u64> = before.agents.iter().map(|a| (a.name.as_str(), a.received)).collect();
    let mut sum = 0;
    for agent in &mut report.agents {
        let came =
            received.get(agent.name.as_str()).map_or(0, |before| agent.received.saturating_sub(*before));
        let rate = (came as f64 / seconds).round() as u64;
        agent.messages_per_s = Some(rate);
        sum += rate;
    }
    report.messages_per_s = Some(sum);
    Ok(report)
}

/// How many dead letters a swarm has: files, that are counted here.
fn letters(swarm: &str) -> u64 {
    let folders = Place::of_user().and_then(|place| list_dead_letters_in(&place)).unwrap_or_default();
    let folder = folders.into_iter().find(|(name, _)| name == swarm);
    folder.and_then(|(_, folder)| dead_letters::list(&folder).ok()).map_or(0, |letters| letters.len() as u64)
}

/// The report for people.
pub(super) fn text(report: &StatusReport, whole: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "swarm `{}`: {}, up {}",
        report.swarm,
        report.health.word(),
        ps::uptime(report.uptime_ms)
    );
    let counted = |state: PsState| report.agents.iter().filter(|agent| agent.state == state).count();
    let states = PsState::ALL.into_iter().filter_map(|state| match counted(state) {
        0 => None,
        count => Some(format!("{count} {}", state.word())),
    });
    let restarts: u64 = report.agents.iter().map(|agent| agent.restarts).sum();
    let _ = writeln!(text, "  agents       {}", states.collect::<Vec<_>>().join(", "));
    let _ = writeln!(text, "  restarts     {restarts}");
    if let Some(rate) = report.messages_per_s.filter(|_| whole) {
        let _ = writeln!(text, "  messages     {rate} a second");
    }
    if let Some(agent) = last_crash(report) {
        let _ = writeln!(text, "  last crash   {}", crash(agent).unwrap_or_default());
    }
    if report.dead_letters > 0 {
        let _ = writeln!(text, "  dead letters {} (`shoal dlq list`)", report.dead_letters);
    }
    for name in report.scaled_to_nothing.iter().filter(|_| whole) {
        let _ = writeln!(text, "  scaled to 0  {name} (`shoal scale {name} 1` starts it)");
    }
    if let Some(what) = &report.under_way {
        let _ = writeln!(text, "  under way    {what}");
    }
    for lack in &report.lacks {
        let _ = writeln!(text, "  not applied  {lack}");
    }
    let _ = writeln!(text, "  supervisor   process {}", report.supervisor);
    if report.pid != report.supervisor {
        let _ = writeln!(text, "  guard        process {}: signals to end it all go there", report.pid);
    }
    let _ = writeln!(text, "  swarm file   {}", report.file);
    let troubled: Vec<&StatusAgent> = match whole {
        true => {
            report.agents.iter().filter(|a| !matches!(a.state, PsState::Ready | PsState::Stopped)).collect()
        }
        false => report.agents.iter().collect(),
    };
    if !troubled.is_empty() {
        text += &table(&troubled);
    }
    text
}

fn last_crash(report: &StatusReport) -> Option<&StatusAgent> {
    let crashed = report.agents.iter().filter_map(|agent| Some((agent, agent.last_crash.as_ref()?.ago_ms)));
    crashed.min_by_key(|(_, ago_ms)| *ago_ms).map(|(agent, _)| agent)
}

fn crash(agent: &StatusAgent) -> Option<String> {
    let crash = agent.last_crash.as_ref()?;
    let ago = ps::uptime(crash.ago_ms);
    Some(format!("{} (generation {}) {}, {ago} ago", agent.name, crash.generation, crash.how))
}

fn table(agents: &[&StatusAgent]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["AGENT", "PID", "GEN", "STATE", "UPTIME", "RESTARTS", "HANGS", "MSGS/S", "LAST CRASH"]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for agent in agents {
        table.add_row(vec![
            Cell::new(&agent.name),
            right(agent.pid.map_or("-".into(), |pid| pid.to_string())),
            right(agent.generation.to_string()),
            Cell::new(agent.state.word()),
            right(ps::uptime(agent.uptime_ms)),
            right(agent.restarts.to_string()),
            right(agent.hangs.to_string()),
            right(agent.messages_per_s.map_or("-".into(), |rate| rate.to_string())),
            Cell::new(
                agent
                    .last_crash
                    .as_ref()
                    .map_or("-".into(), |c| format!("{}, {} ago", c.how, ps::uptime(c.ago_ms))),
            ),
        ]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
