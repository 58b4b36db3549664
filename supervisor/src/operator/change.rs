//! What an operator changes about a running swarm: reload, scale, upgrade. Answered when it is done, or undone.

use super::{Operator, STOPPING};
use crate::child::State;
use crate::config::{self, OnGone};
use crate::control::{ChangeReport, ClientId, Outcome, Response};
use crate::reload::{self, Change, Plan};
use crate::swarm::{self, Prepared, Proof, Swarm, Upgraded};
use std::path::Path;
use std::time::{Duration, Instant};

/// Who waits for the end of a change.
pub(super) struct Pending {
    client: ClientId,
    /// What was planned; `None` for an upgrade.
    plan: Option<Plan>,
    /// Until when agents that are started for it may take to get ready, if not for ever.
    until: Option<Instant>,
}

impl Pending {
    /// When it is to be looked at though nothing happened; what is to be undone is so a moment later.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.until.map(|until| until.max(Instant::now() + super::LOOK_EVERY))
    }
}

/// Reads the file of a reload: the one that was named, else the swarm's own.
///
/// # Errors
/// What is wrong with it, as `shoal check` says.
pub fn read_again(swarm: &Swarm, file: Option<&Path>) -> Result<config::SwarmFile, String> {
    let path = file.unwrap_or(&swarm.file.path);
    // Anything else could be waited for.
    if std::fs::metadata(path).is_ok_and(|seen| !seen.is_file()) {
        return Err(format!("{}: this is not a plain file", path.display()));
    }
    config::read(path).map_err(|error| error.to_string())
}

impl Operator {
    pub(super) fn reload(
        &mut self,
        client: ClientId,
        (file, on_gone): (Option<&Path>, Option<OnGone>),
        (dry_run, patience): (bool, Duration),
        swarm: &mut Swarm,
    ) {
        let prepared = read_again(swarm, file).and_then(|file| swarm.prepare(file, on_gone));
        self.change(client, prepared, (dry_run, patience), swarm);
    }

    pub(super) fn scale(
        &mut self,
        client: ClientId,
        (name, replicas): (&str, u32),
        (dry_run, patience): (bool, Duration),
        swarm: &mut Swarm,
    ) {
        match reload::scaled(&swarm.file, name, replicas) {
            Err(text) => self.control.reply(client, &Response::BadInput { text }),
            Ok(file) => {
                let prepared = swarm.prepare_merged(file);
                self.change(client, prepared, (dry_run, patience), swarm);
            }
        }
    }

    fn change(
        &mut self,
        client: ClientId,
        prepared: Result<Prepared, String>,
        (dry_run, patience): (bool, Duration),
        swarm: &mut Swarm,
    ) {
        let begun = prepared.and_then(|prepared| {
            let plan = prepared.plan.clone();
            if !dry_run {
                swarm.reload(prepared, patience)?;
            }
            Ok(plan)
        });
        match begun {
            Err(text) => self.control.reply(client, &Response::Error { text }),
            Ok(plan) if dry_run => {
                let report = ChangeReport { plan: Some(plan), ..ChangeReport::of(Outcome::Planned) };
                self.control.reply(client, &Response::Change(Box::new(report)));
            }
            Ok(plan) => {
                let until = Instant::now().checked_add(patience);
                self.pending = Some(Pending { client, plan: Some(plan), until });
            }
        }
    }

    pub(super) fn upgrade(
        &mut self,
        client: ClientId,
        (name, command): (&str, Option<Vec<String>>),
        (proof, patience): (Proof, Option<Duration>),
        swarm: &mut Swarm,
    ) {
        let begun = match new_command(swarm, name, command) {
            Err(text) => return self.control.reply(client, &Response::BadInput { text }),
            Ok((config, command)) => swarm.upgrade(config, command, proof),
        };
        match begun {
            Err(text) => self.control.reply(client, &Response::Error { text }),
            Ok(()) => {
                let until = patience.and_then(|patience| Instant::now().checked_add(patience));
                self.pending = Some(Pending { client, plan: None, until });
            }
        }
    }

    /// Answers who waits for a change that is over.
    pub(super) fn settle_change(&mut self, swarm: &Swarm) {
        let Some(Pending { client, plan, until }) = &self.pending else { return };
        let late = until.is_some_and(|until| until <= Instant::now());
        let report = match plan {
            Some(plan) => reloaded(plan, late, swarm),
            None => upgraded(late, swarm),
        };
        if let Some(report) = report {
            self.control.reply(*client, &Response::Change(Box::new(report)));
            self.pending = None;
        }
    }
}

/// The agent that is meant, and the command that its replicas are to run: what was given, or what its file says now.
fn new_command(
    swarm: &Swarm,
    name: &str,
    command: Option<Vec<String>>,
) -> Result<(usize, Vec<String>), String> {
    let agents = &swarm.file.agents;
    let known =
        |agent: &config::Agent| agent.name == name && name != crate::postman::NAME && agent.replicas > 0;
    let config = agents.iter().position(known).ok_or_else(|| {
        let near = reload::did_you_mean(&swarm.file, name);
        format!("swarm {} has no agent {name:?} to upgrade{near}", swarm.file.name)
    })?;
    if let Some(mut command) = command {
        let Some(program) = command.first_mut() else { return Err("the new command is empty".into()) };
        *program = config::find_command(&swarm.file.path, program)
            .map_err(|(what, help)| format!("{what}: {help}"))?;
        return Ok((config, command));
    }
    let file = read_again(swarm, None)?;
    let agent = file.agents.into_iter().find(|agent| agent.name == name);
    let agent = agent.ok_or_else(|| format!("{} has no agent {name} any more", swarm.file.path.display()))?;
    Ok((config, agent.command))
}

/// What became of a reload; `None` while it is under way, unless it is late: then who is not ready is told.
fn reloaded(plan: &Plan, late: bool, swarm: &Swarm) -> Option<ChangeReport> {
    let report = |outcome| ChangeReport { plan: Some(plan.clone()), ..ChangeReport::of(outcome) };
    match swarm.reload_outcome()? {
        swarm::Outcome::Undone(why) => {
            Some(ChangeReport { why: Some(why.clone()), ..report(Outcome::Undone) })
        }
        swarm::Outcome::Applied { unread, started } => {
            let record = |agent: &usize| &swarm.agents[*agent];
            let is_over = |agent: &usize| {
                let state = record(agent).state;
                state == State::Ready || state.is_at_rest() && !swarm.is_waiting(*agent)
            };
            let (all_are_over, is_ending) = (started.iter().all(is_over), swarm.is_ending());
            if !all_are_over && !is_ending && !late {
                return None;
            }
            let names = |agents: &mut dyn Iterator<Item = &usize>| -> Vec<String> {
                agents.map(|agent| record(agent).name.clone()).collect()
            };
            let failed = names(&mut started.iter().filter(|agent| record(agent).state == State::Failed));
            let late = names(&mut started.iter().filter(|agent| !is_over(agent)));
            let why = (is_ending && !all_are_over).then(|| STOPPING.to_owned());
            let outcome = if plan.is_empty() { Outcome::Unchanged } else { Outcome::Applied };
            Some(ChangeReport { unread: unread.clone(), failed, late, why, ..report(outcome) })
        }
    }
}

/// What became of an upgrade; `None` as of a reload.
fn upgraded(late: bool, swarm: &Swarm) -> Option<ChangeReport> {
    let report = match swarm.upgrade_outcome() {
        None if late => {
            let (late, why) = (swarm.not_upgraded(), swarm.change_under_way());
            ChangeReport { late, why, ..ChangeReport::of(Outcome::UnderWay) }
        }
        None => return None,
        Some(Upgraded::Done(replicas)) => {
            let restart = replicas
                .iter()
                .map(|name| Change { name: name.clone(), why: vec!["its command changes".into()] });
            let plan = Plan { restart: restart.collect(), ..Plan::default() };
            ChangeReport { plan: Some(plan), ..ChangeReport::of(Outcome::Applied) }
        }
        Some(Upgraded::RolledBack(why)) => {
            ChangeReport { why: Some(why.clone()), ..ChangeReport::of(Outcome::RolledBack) }
        }
    };
    Some(report)
}
