//! A changed swarm file is applied to a swarm that runs, in two strokes.
//!
//! First whoever's links change is stopped, the sources of the data before those that read them: a dead incarnation whose memory
//! will have another shape must be read to its end before its readers are stopped, because their next lives know the new shape only.
//! All this is undone by a start. Then, when all of them are at rest, everything is exchanged at once: places of lanes and cursors are
//! carried over by their names, tables of groups are copied, and who was stopped is started with its new manifest.
//!
//! Nobody else notices: what a living agent was told stays true, because indices only grow and nothing on the board moves.
//!
//! When the supervisor dies in the first stroke its successor undoes it; once all is exchanged in memory the new order is published for
//! a successor (`swarm/stand.rs`), and only then acted upon: from there on it is finished by whoever lives.

mod exchange;

use super::{Ends, Swarm, Timer};
use crate::birth;
use crate::child::{Event, State};
use crate::config::{OnGone, SwarmFile};
use crate::needs;
use crate::reload::{self, LETS_GO, Plan, Stand, Work};
use crate::topology::Topology;
use nix::sys::resource::Resource;
use shoal_runtime::layout::BoardShape;
use shoal_runtime::wire::Manifest;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often it is looked whether all are at rest.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a changed file amounts to.
pub struct Prepared {
    /// What is to be done, in words.
    pub plan: Plan,
    work: Work,
    file: SwarmFile,
    topology: Topology,
    board: BoardShape,
}

/// What is under way.
pub(super) struct Reload {
    prepared: Prepared,
    /// Who is stopped, sources first.
    stages: Vec<Vec<usize>>,
    stage: usize,
    /// Who was asked to stop, and runs again if nothing comes of it.
    asked: BTreeSet<usize>,
    /// Who ran, and runs again afterwards.
    up: BTreeSet<usize>,
    /// Who ran, and runs again if nothing comes of it.
    ran: BTreeSet<usize>,
    until: Instant,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied; what was not read, and whose readers are no more, in words; and who is started for it.
    Applied {
        /// What nobody will read.
        unread: Vec<String>,
        /// Who is started.
        started: Vec<usize>,
    },
    /// Nothing changed, and why.
    Undone(String),
}

impl Swarm {
    /// What a file would change; with a word for what those have not read that it does not name, if another holds than was said of each.
    ///
    /// # Errors
    /// What cannot be applied to a swarm that runs, and what to do.
    pub fn prepare(&self, file: SwarmFile, on_gone: Option<OnGone>) -> Result<Prepared, String> {
        let mut file = reload::merge(&self.file, file)?;
        for agent in file.agents.iter_mut().filter(|agent| agent.removed) {
            agent.on_gone = on_gone.unwrap_or(agent.on_gone);
        }
        self.prepare_merged(file)
    }

    /// What another number of replicas would change.
    ///
    /// # Errors
    /// As [`Swarm::prepare`].
    pub fn prepare_scale(&self, name: &str, replicas: u32) -> Result<Prepared, String> {
        self.prepare_merged(reload::scaled(&self.file, name, replicas)?)
    }

    /// What a file in the order of the one that runs would change.
    ///
    /// # Errors
    /// As [`Swarm::prepare`].
    pub fn prepare_merged(&self, file: SwarmFile) -> Result<Prepared, String> {
        let topology = self.topology.evolve(&file);
        let board = birth::grown_board_shape(&self.board_shape, &topology).ok_or(
            "what the file adds is more than this swarm has room for on its board: end the swarm, and start it with the new file",
        )?;
        self.check_descriptors(&file, &topology)?;
        // Where the board's words lie concerns nobody here.
        let told = |file: &SwarmFile, topology: &Topology| -> Vec<Manifest> {
            let manifest = |agent| birth::manifest(file, topology, &BoardShape::default(), agent);
            (0..topology.agents.len()).map(manifest).collect()
        };
        let (old, new) = (told(&self.file, &self.topology), told(&file, &topology));
        let before = Stand { file: &self.file, topology: &self.topology, manifests: &old };
        let after = Stand { file: &file, topology: &topology, manifests: &new };
        let (plan, work) = reload::plan(before, after, &self.kept(), &self.resting());
        if !plan.stop.is_empty() && !self.is_run_by_somebody(&topology, &work) {
            return Err(format!(
                "without {} nobody would run, and the swarm would end: `shoal down` ends it, `shoal stop` lets an agent rest and the swarm go on",
                plan.stop.join(", ")
            ));
        }
        Ok(Prepared { plan, work, file, topology, board })
    }

    /// What needs no more than what runs is not refused, however low the limit.
    fn check_descriptors(&self, file: &SwarmFile, topology: &Topology) -> Result<(), String> {
        let of = |file, topology| needs::descriptors(file) + needs::descriptors_of_empty_groups(topology);
        let (now, needed) = (of(&self.file, &self.topology), of(file, topology));
        let limit = crate::confine::hard_limit(Resource::RLIMIT_NOFILE).unwrap_or(u64::MAX);
        if needed <= limit.max(now) {
            return Ok(());
        }
        Err(format!(
            "the swarm would need up to {needed} open descriptors instead of {now}, the limit is {limit}: run fewer agents, or end the \
             swarm and raise the limit (`ulimit -Hn {needed}`, or LimitNOFILE= of the unit)"
        ))
    }

    /// Who rests, whatever changes, as long as nobody starts it.
    fn resting(&self) -> BTreeSet<usize> {
        let rests = |agent: &usize| !self.comes_again(*agent) && !self.is_waiting(*agent);
        (0..self.agents.len()).filter(rests).collect()
    }

    /// Whether somebody is there after a change for whose sake the swarm goes on: who runs, is started, or was stopped by an operator.
    fn is_run_by_somebody(&self, topology: &Topology, work: &Work) -> bool {
        let is_over = |agent: usize| match self.agents.get(agent).map(|record| record.state) {
            Some(State::Ended) => !work.start.contains(&agent),
            Some(State::Failed) => {
                ![&work.start, &work.relink, &work.again].iter().any(|s| s.contains(&agent))
            }
            _ => false,
        };
        let instances = topology.agents.iter().enumerate();
        instances.into_iter().any(|(agent, i)| i.active && agent != self.postman.agent && !is_over(agent))
    }

    /// Agents of the file that are scaled to nothing.
    pub fn scaled_to_nothing(&self) -> Vec<String> {
        let agents = self.file.agents.iter().filter(|agent| agent.replicas == 0 && !agent.removed);
        agents.map(|agent| agent.name.clone()).collect()
    }

    /// Begins to apply a changed file; [`Swarm::reload_outcome`] tells what became of it.
    ///
    /// # Errors
    /// Why not now.
    pub fn reload(&mut self, prepared: Prepared, patience: Duration) -> Result<(), String> {
        self.may_change()?;
        if self.agents[self.postman.agent].live.is_some() {
            return Err("dead letters are being replayed: ask again when that is done".into());
        }
        for line in prepared.plan.lines() {
            self.notice(&format!("reload: {line}"));
        }
        let affected: BTreeSet<usize> = prepared.work.relink.union(&prepared.work.stop).copied().collect();
        let stages = self.topology.stop_order().into_iter();
        let stages = stages.map(|stage| stage.into_iter().filter(|a| affected.contains(a)).collect());
        let runs = |agent: &usize| {
            let record = &self.agents[*agent];
            let itself = !record.state.is_at_rest() && record.stand_in.is_none();
            itself || self.waiting.contains(agent)
        };
        let ran: BTreeSet<usize> = affected.iter().copied().filter(runs).collect();
        let mut up: BTreeSet<usize> = ran.intersection(&prepared.work.relink).copied().collect();
        // It is not what it was given up for any more.
        let given_up = |agent: &&usize| self.agents[**agent].state == State::Failed;
        up.extend(prepared.work.relink.iter().filter(given_up));
        self.waiting.retain(|agent| !affected.contains(agent));
        self.outcome = None;
        self.reload = Some(Reload {
            stages: stages.collect(),
            stage: 0,
            asked: BTreeSet::new(),
            up,
            ran,
            until: Instant::now() + patience,
            prepared,
        });
        self.go_on_reloading();
        Ok(())
    }

    /// Whether a file may be applied, or replicas replaced, now.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_change(&self) -> Result<(), String> {
        if self.ends != Ends::No {
            return Err("the swarm is stopping".into());
        }
        if self.reload.is_some() {
            return Err("another reload is under way: ask again when it is done".into());
        }
        if self.upgrade.is_some() {
            return Err(
                "an upgrade is under way (`shoal status` says how far it is): ask again when it is done"
                    .into(),
            );
        }
        if !self.started_once() {
            return Err("the swarm is just starting: ask again when every agent was ready".into());
        }
        Ok(())
    }

    /// What of a reload or an upgrade is under way, in words.
    pub fn change_under_way(&self) -> Option<String> {
        let reload =
            || self.reload.as_ref().map(|_| "a reload: who is concerned is being stopped".to_owned());
        self.upgrade_under_way().or_else(reload)
    }

    /// What became of the last reload; `None` while it is under way.
    pub fn reload_outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Looks how far the reload is, and goes on with it.
    pub(super) fn go_on_reloading(&mut self) {
        let Some(mut reload) = self.reload.take() else { return };
        if self.ends != Ends::No {
            self.called.clear();
            self.outcome = Some(Outcome::Undone("the swarm is stopping".into()));
            return;
        }
        match self.stopped_for(&mut reload) {
            Ok(true) => self.exchange(reload),
            Ok(false) => {
                self.reload = Some(reload);
                self.arm(Instant::now() + LOOK_EVERY, 0, Timer::Reload);
            }
            Err(why) => self.undo(why),
        }
    }

    /// Asks to stop whose turn it is. Whether all are at rest, and what they left is read as far as it must be.
    fn stopped_for(&mut self, reload: &mut Reload) -> Result<bool, String> {
        // Who reads in the place of one that is gone knows the present order only, and is soon done.
        if let Some(agent) = self.agents.iter().position(|a| a.stand_in.is_some() && !a.state.is_at_rest()) {
            return self.not_yet(reload, agent);
        }
        while let Some(stage) = reload.stages.get(reload.stage) {
            let mut due: Vec<usize> = stage.clone();
            due.retain(|agent| {
                !reload.asked.contains(agent) && self.may_stop_for(&reload.prepared.work, stage, *agent)
            });
            if !due.is_empty() {
                self.called.extend(due.iter().filter(|agent| reload.ran.contains(agent)));
                // Before they are asked: a successor must know for whom it is to be undone.
                self.write_swarm();
            }
            for agent in due {
                reload.asked.insert(agent);
                self.dismiss_spares(agent);
                self.order(agent, Event::StopAsked);
            }
            let at_rest = |a: &&usize| {
                let record = &self.agents[**a];
                record.state.is_at_rest() && record.lives().next().is_none()
            };
            if let Some(&agent) = stage.iter().find(|a| !reload.asked.contains(a) || !at_rest(a)) {
                return self.not_yet(reload, agent);
            }
            reload.stage += 1;
        }
        // Who is set aside waits for others of its set, and is recalled by the present order.
        let sets = 0..self.supervision.sets.all().len();
        if sets.into_iter().any(|set| self.supervision.is_restarting(set)) {
            return self.not_yet(reload, 0);
        }
        for &agent in &reload.prepared.work.reshaped {
            if agent < self.agents.len() && !self.is_drained(agent) {
                return self.not_yet(reload, agent);
            }
        }
        Ok(true)
    }

    fn not_yet(&self, reload: &Reload, agent: usize) -> Result<bool, String> {
        if Instant::now() < reload.until {
            return Ok(false);
        }
        let name = &self.agents[agent].name;
        let work = &reload.prepared.work;
        let due = work.owed.iter().map(|(_, producer)| producer).chain(&work.reshaped);
        let undrained: BTreeSet<usize> =
            due.copied().filter(|&a| a < self.agents.len() && !self.agents[a].graves.is_empty()).collect();
        let reads_it = |reader: &usize| {
            self.topology.agents[*reader].inputs.iter().any(|input| undrained.contains(&input.producer))
        };
        let removed = |reader: &usize| self.file.agents[self.topology.agents[*reader].config].removed;
        let missing = self.names(self.kept().into_iter().filter(|a| removed(a) && reads_it(a)));
        let reader = match missing.is_empty() {
            true => "see `shoal ps` for who should read it".to_owned(),
            false => format!(
                "{missing} should, which is removed and waited for; with the file as it was, {LETS_GO}"
            ),
        };
        let undrained = self.names(undrained.into_iter());
        Err(match &*undrained {
            _ if self.agents[agent].stand_in.is_some() && !self.agents[agent].state.is_at_rest() => {
                format!("what {name} has not read was not put with the dead letters in time")
            }
            "" => format!("agent {name} did not stop in time"),
            _ => format!(
                "what {undrained} sent was not read in time, and must be before its memory or its readers change: {reader}, \
                 and reload again, or with a longer --timeout"
            ),
        })
    }

    fn names(&self, agents: impl Iterator<Item = usize>) -> String {
        agents.map(|agent| self.agents[agent].name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether everything that an agent's dead incarnations left was read.
    fn is_drained(&mut self, agent: usize) -> bool {
        self.reclaim(agent);
        self.agents[agent].graves.is_empty()
    }

    /// Whether an agent may be asked to stop: what it alone can read of those stopped before it, it has read.
    fn may_stop_for(&mut self, work: &Work, stage: &[usize], agent: usize) -> bool {
        let producers: BTreeSet<usize> =
            self.topology.agents[agent].inputs.iter().map(|i| i.producer).collect();
        let must_be_read = |p: &usize| {
            let of_both = work.stop.contains(p) && work.stop.contains(&agent);
            !stage.contains(p) && (work.reshaped.contains(p) || of_both || work.owed.contains(&(agent, *p)))
        };
        producers.into_iter().filter(must_be_read).all(|producer| self.is_drained(producer))
    }

    /// Nothing comes of it: who was stopped runs again as before.
    pub(super) fn undo(&mut self, why: String) {
        self.notice(&format!("the reload is undone: {why}"));
        for agent in std::mem::take(&mut self.called) {
            // Who has ended by itself meanwhile, or was given up, was not stopped for it.
            if !matches!(self.agents[agent].state, State::Ended | State::Failed) {
                self.feed(agent, Event::StartAsked);
            }
        }
        self.outcome = Some(Outcome::Undone(why));
    }
}
