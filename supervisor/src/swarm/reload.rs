//! A changed swarm file is applied to a swarm that runs, in two strokes.
//!
//! First whoever's links change is stopped, the sources of the data before those that read them: a dead incarnation whose memory
//! will have another shape must be read to its end before its readers are stopped, because their next lives know the new shape only.
//! All this is undone by a start. Then, when all of them are at rest, everything is exchanged at once: places of lanes and cursors are
//! carried over by their names, tables of groups are copied, and who was stopped is started with its new manifest.
//!
//! Nobody else notices: what a living agent was told stays true, because indices only grow and nothing on the board moves.

use super::{Ends, Swarm, Timer, hangs, new_agent};
use crate::birth;
use crate::child::{Event, State};
use crate::config::{Channel, SwarmFile};
use crate::reload::{self, Plan, Stand, Work};
use crate::restart::Intensity;
use crate::topology::{Instance, Topology};
use shoal_runtime::board::{Status, Verdict, VerdictKind};
use shoal_runtime::cursor::first_position;
use shoal_runtime::layout::BoardShape;
use shoal_runtime::mark::Place;
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
    /// What a file would change.
    ///
    /// # Errors
    /// What cannot be applied to a swarm that runs, and what to do.
    pub fn prepare(&self, file: SwarmFile) -> Result<Prepared, String> {
        let file = reload::merge(&self.file, file)?;
        self.prepare_merged(file)
    }

    /// What another number of replicas would change.
    ///
    /// # Errors
    /// As [`Swarm::prepare`].
    pub fn prepare_scale(&self, name: &str, replicas: u32) -> Result<Prepared, String> {
        self.prepare_merged(reload::scaled(&self.file, name, replicas)?)
    }

    fn prepare_merged(&self, file: SwarmFile) -> Result<Prepared, String> {
        let topology = self.topology.evolve(&file);
        let board = birth::grown_board_shape(&self.board_shape, &topology).ok_or(
            "what the file adds is more than this swarm has room for on its board: end the swarm, and start it with the new file",
        )?;
        let needed = crate::run::descriptors_needed(&file);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
        if needed > limit {
            return Err(format!(
                "this file's swarm needs up to {needed} open descriptors, the limit is {limit}: run fewer agents, or end the swarm and \
                 raise the limit (`ulimit -Hn {needed}`)"
            ));
        }
        // Where the board's words lie concerns nobody here.
        let told = |file: &SwarmFile, topology: &Topology| -> Vec<Manifest> {
            let manifest = |agent| birth::manifest(file, topology, &BoardShape::default(), agent);
            (0..topology.agents.len()).map(manifest).collect()
        };
        let (old, new) = (told(&self.file, &self.topology), told(&file, &topology));
        let before = Stand { file: &self.file, topology: &self.topology, manifests: &old };
        let after = Stand { file: &file, topology: &topology, manifests: &new };
        let (plan, work) = reload::plan(before, after);
        Ok(Prepared { plan, work, file, topology, board })
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
        if !prepared.plan.is_empty() {
            self.outgrow();
        }
        let affected: BTreeSet<usize> = prepared.work.relink.union(&prepared.work.stop).copied().collect();
        let stages = self.topology.stop_order().into_iter();
        let stages = stages.map(|stage| stage.into_iter().filter(|a| affected.contains(a)).collect());
        let runs = |agent: &usize| !self.agents[*agent].state.is_at_rest() || self.waiting.contains(agent);
        let up = prepared.work.relink.iter().copied().filter(runs).collect();
        self.waiting.retain(|agent| !affected.contains(agent));
        self.outcome = None;
        self.reload = Some(Reload {
            stages: stages.collect(),
            stage: 0,
            asked: BTreeSet::new(),
            up,
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
            return Err("an upgrade is under way: ask again when it is done".into());
        }
        if !self.started_once() {
            return Err("the swarm is just starting: ask again when every agent was ready".into());
        }
        Ok(())
    }

    /// What became of the last reload; `None` while it is under way.
    pub fn reload_outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Looks how far the reload is, and goes on with it.
    pub(super) fn go_on_reloading(&mut self) {
        let Some(mut reload) = self.reload.take() else { return };
        if self.ends != Ends::No {
            self.outcome = Some(Outcome::Undone("the swarm is stopping".into()));
            return;
        }
        match self.stopped_for(&mut reload) {
            Ok(true) => self.exchange(reload),
            Ok(false) => {
                self.reload = Some(reload);
                self.arm(Instant::now() + LOOK_EVERY, 0, Timer::Reload);
            }
            Err(why) => self.undo(&reload, why),
        }
    }

    /// Asks to stop whose turn it is. Whether all are at rest, and what they left is read as far as it must be.
    fn stopped_for(&mut self, reload: &mut Reload) -> Result<bool, String> {
        while let Some(stage) = reload.stages.get(reload.stage) {
            for &agent in stage {
                if !reload.asked.contains(&agent) && self.may_stop_for(&reload.prepared.work, stage, agent) {
                    reload.asked.insert(agent);
                    self.dismiss_spares(agent);
                    self.order(agent, Event::StopAsked);
                }
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
        let undrained = reload.prepared.work.reshaped.iter().filter(|&&a| a < self.agents.len());
        let undrained: Vec<&str> = undrained
            .filter(|&&a| !self.agents[a].graves.is_empty())
            .map(|&a| self.agents[a].name.as_str())
            .collect();
        Err(match undrained[..] {
            [] => format!("agent {name} did not stop in time"),
            _ => format!(
                "what {} sent was not read in time, and must be before its memory changes: see `shoal ps` for who should read it, \
                 and reload again, or with a longer --timeout",
                undrained.join(", ")
            ),
        })
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
            !stage.contains(p)
                && (work.reshaped.contains(p) || (work.stop.contains(p) && work.stop.contains(&agent)))
        };
        producers.into_iter().filter(must_be_read).all(|producer| self.is_drained(producer))
    }

    /// Nothing comes of it: who was stopped runs again as before.
    fn undo(&mut self, reload: &Reload, why: String) {
        self.notice(&format!("the reload is undone: {why}"));
        let were_up =
            reload.asked.iter().filter(|a| reload.up.contains(a) || reload.prepared.work.stop.contains(a));
        for &agent in were_up {
            self.feed(agent, Event::StartAsked);
        }
        self.outcome = Some(Outcome::Undone(why));
    }

    /// Exchanges everything, and starts who is to run.
    fn exchange(&mut self, reload: Reload) {
        let Reload { prepared: Prepared { plan, work, file, topology, board }, up, .. } = reload;
        let unread = self.unread_for_good(&work, &topology);
        let lasts = self.carried_over(&topology, &work);
        if let Err(error) = self.groups.follow(&self.topology, &topology, &lasts, &self.agents, &work) {
            // Nothing was exchanged yet.
            let why = format!("no memory for the tables of groups: {error}");
            self.notice(&format!("the reload is undone: {why}"));
            up.iter().chain(&work.stop).for_each(|&agent| self.feed(agent, Event::StartAsked));
            self.outcome = Some(Outcome::Undone(why));
            return;
        }
        let old = std::mem::replace(&mut self.topology, topology);
        let new = &self.topology;
        self.trials.carry_over(|agent, input| {
            let input = old.agents.get(agent)?.inputs.get(input)?;
            let key = old.agents[input.producer].lanes[input.lane].key();
            let same = |i: &crate::topology::InputSpec| {
                i.producer == input.producer && new.agents[i.producer].lanes[i.lane].key() == key
            };
            new.agents[agent].inputs.iter().position(same)
        });
        let former_board = std::mem::replace(&mut self.board_shape, board);
        self.board.reshape(self.board_shape.clone());
        self.file = file;
        self.supervision.follow(&self.file, &self.topology, self.cradle.swarm ^ self.reloads);
        self.stages = self.topology.stop_order();
        self.reloads += 1;
        self.follow_agents(lasts, &former_board);
        self.watch_new_deadlines();
        for &agent in &work.stop {
            self.agents[agent].state = State::Ended;
            self.strike(agent);
        }
        let started: Vec<usize> = work.start.union(&up).copied().collect();
        self.waiting.extend(&started);
        for &agent in &work.again {
            if self.agents[agent].live.is_some() {
                self.dismiss_spares(agent);
                self.order(agent, Event::RestartAsked);
            }
        }
        for text in &unread {
            self.notice(&format!("reload: {text}"));
        }
        let started: Vec<usize> = started.into_iter().chain(work.again).collect();
        self.notice(if plan.is_empty() { "reload: nothing changed" } else { "reload: applied" });
        self.outcome = Some(Outcome::Applied { unread, started });
        self.start_due();
    }

    /// Agents take over their new shapes, names and places; those that were not there are added.
    fn follow_agents(&mut self, lasts: Vec<Option<Verdict>>, former: &BoardShape) {
        for (agent, last) in lasts.into_iter().enumerate() {
            let instance = &self.topology.agents[agent];
            let restart = self.file.agents[instance.config].restart.clone();
            let seed = self.cradle.swarm ^ (u64::from(self.reloads as u32) << 32 | agent as u64);
            let Some(record) = self.agents.get_mut(agent) else {
                let last = last.unwrap_or_else(|| super::beginning(&self.topology, instance));
                let capture = (self.captures)(&instance.name);
                let mut record = new_agent(
                    &instance.name,
                    birth::segment_shape(instance),
                    Intensity::new(restart, seed),
                    last,
                    capture,
                );
                record.was_ready = !instance.active;
                self.agents.push(record);
                if !instance.active {
                    self.rest(agent);
                }
                continue;
            };
            if record.intensity.restart() != &restart {
                record.intensity = Intensity::new(restart, seed);
            }
            if record.name != instance.name {
                record.name.clone_from(&instance.name);
                record.capture = (self.captures)(&instance.name);
            }
            if let Some(last) = last {
                record.shape = birth::segment_shape(instance);
                record.last = last;
            }
            let moved = former.agents.get(agent) != self.board_shape.agents.get(agent);
            if moved && record.last.generation > 0 {
                // Where it lay before, nobody looks any more: its readers are told the new shape.
                self.board.verdict(agent as u32, &record.last);
            }
        }
        self.board.announce();
    }

    fn watch_new_deadlines(&mut self) {
        self.hangs.watch_anew(hangs::watched(&self.file, &self.topology));
        (0..self.agents.len()).for_each(|agent| self.hear_bell(agent));
        self.watch_on();
    }

    /// For each agent that is at rest where its lanes end and its cursors stand in the new order; `None` for one that goes on living as
    /// it is.
    fn carried_over(&self, topology: &Topology, work: &Work) -> Vec<Option<Verdict>> {
        let lanes: Vec<Vec<Place>> = (0..topology.agents.len()).map(|a| self.lanes_in(topology, a)).collect();
        let lanes_of = &lanes;
        let inputs = |agent: usize| {
            topology.agents[agent].inputs.iter().map(move |input| {
                let end = lanes_of[input.producer][input.lane];
                self.input_in(topology, work, agent, input).unwrap_or(end)
            })
        };
        let verdict = |agent: usize| {
            let record = self.agents.get(agent);
            if record.is_some_and(|record| record.live.is_some()) {
                return None;
            }
            let (generation, kind) =
                record.map_or((0, VerdictKind::Committed), |r| (r.last.generation, r.last.kind));
            Some(Verdict { generation, kind, lanes: lanes[agent].clone(), inputs: inputs(agent).collect() })
        };
        (0..topology.agents.len()).map(verdict).collect()
    }

    /// Where the lanes of an agent end, in the new order.
    fn lanes_in(&self, topology: &Topology, agent: usize) -> Vec<Place> {
        let former = self.topology.agents.get(agent).zip(self.agents.get(agent));
        let place = |lane: &crate::topology::LaneSpec| {
            let first = first_position(lane.capacity_bytes);
            let begun = Place { position: first, sequence: 0 };
            let Some((instance, record)) = former else { return begun };
            let Some(at) = instance.lanes.iter().position(|l| l.key() == lane.key()) else { return begun };
            let last = record.last.lanes[at];
            match instance.lanes[at].capacity_bytes == lane.capacity_bytes {
                true => last,
                // A ring of another size begins where its producer may begin; nobody has anything left to read before.
                false if last.sequence == 0 => begun,
                false => Place { position: last.position.max(first), ..last },
            }
        };
        topology.agents[agent].lanes.iter().map(place).collect()
    }

    /// Where the cursor of an input stands, if it goes on from where it was; else it begins at the lane's end.
    fn input_in(
        &self,
        topology: &Topology,
        work: &Work,
        agent: usize,
        input: &crate::topology::InputSpec,
    ) -> Option<Place> {
        let (instance, record) = self.topology.agents.get(agent).zip(self.agents.get(agent))?;
        let lane = &topology.agents[input.producer].lanes[input.lane];
        let former = |i: &crate::topology::InputSpec| {
            let same = &self.topology.agents[i.producer].lanes[i.lane];
            (i.producer == input.producer && same.key() == lane.key()).then_some(same)
        };
        let (at, was) = instance.inputs.iter().enumerate().find_map(|(at, i)| Some((at, former(i)?)))?;
        let comes_back = work.start.contains(&agent) && input.table.is_none();
        (was.capacity_bytes == lane.capacity_bytes && !comes_back).then(|| record.last.inputs[at])
    }

    /// What is left in lanes whose last readers are removed, in words.
    fn unread_for_good(&self, work: &Work, after: &Topology) -> Vec<String> {
        let mut texts = Vec::new();
        for &agent in &work.stop {
            let others = |instance: &Instance| {
                let same_group = |other: &usize| {
                    let config = |a: usize| &self.file.agents[after.agents[a].config].group;
                    after.agents[*other].active && *config(*other) == *config(agent)
                };
                instance.inputs.iter().any(|i| i.table.is_some())
                    && (0..after.agents.len()).any(|other| other != agent && same_group(&other))
            };
            if others(&self.topology.agents[agent]) {
                continue;
            }
            for (channel, count) in self.unread(agent).into_iter().filter(|(_, count)| *count > 0) {
                let Channel { name, .. } = &self.topology.channels[channel];
                texts.push(format!(
                    "{count} messages of channel {name} were not read by {}, which is removed, and are dropped",
                    self.agents[agent].name
                ));
            }
        }
        texts
    }

    /// Whether an agent is struck from the board.
    pub fn is_gone(&self, agent: usize) -> bool {
        self.board.view().status(agent as u32) == Status::Gone
    }
}
