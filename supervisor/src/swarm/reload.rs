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
        let affected: BTreeSet<usize> = prepared.work.relink.union(&prepared.work.stop).copied().collect();
        let stages = self.topology.stop_order().into_iter();
        let stages = stages.map(|stage| stage.into_iter().filter(|a| affected.contains(a)).collect());
        let runs = |agent: &usize| !self.agents[*agent].state.is_at_rest() || self.waiting.contains(agent);
        let ran: BTreeSet<usize> = affected.iter().copied().filter(runs).collect();
        let up = ran.intersection(&prepared.work.relink).copied().collect();
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

    /// Exchanges everything, and starts who is to run.
    fn exchange(&mut self, reload: Reload) {
        let Reload { prepared: Prepared { plan, work, file, topology, board }, up, .. } = reload;
        let unread = self.unread_for_good(&work, &topology);
        let lasts = self.carried_over(&topology, &work);
        // What is lacking is lacking here, before anything is exchanged.
        let next = match self.next_stand(&file, &topology, &board) {
            Ok(next) => next,
            Err(why) => return self.undo(why),
        };
        let former = match self.groups.follow(&self.topology, &topology, &lasts, &self.agents, &work) {
            Ok(former) => former,
            Err(error) => return self.undo(format!("no memory for the tables of groups: {error}")),
        };
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
        work.stop.iter().for_each(|&agent| self.agents[agent].state = State::Ended);
        let started: Vec<usize> = work.start.union(&up).copied().collect();
        self.waiting.extend(&started);
        self.called.clear();
        let live = |&agent: &usize| Some((agent, self.agents[agent].live.as_ref()?.incarnation.generation));
        self.again = work.again.iter().filter_map(live).collect();
        self.struck = work.stop.iter().copied().collect();
        // Whatever is done to the board and to agents follows this.
        self.publish_stand(next);
        drop(former);
        self.act_on_exchange();
        self.review_zygotes();
        for text in &unread {
            self.notice(&format!("reload: {text}"));
        }
        let started: Vec<usize> = started.into_iter().chain(work.again).collect();
        self.notice(if plan.is_empty() { "reload: nothing changed" } else { "reload: applied" });
        self.outcome = Some(Outcome::Applied { unread, started });
        self.start_due();
    }

    /// Strikes who runs no more, and starts those again that run with what they were told before: what a predecessor had begun is done
    /// once more.
    pub(super) fn act_on_exchange(&mut self) {
        std::mem::take(&mut self.struck).into_iter().for_each(|agent| self.strike(agent));
        for (agent, generation) in std::mem::take(&mut self.again) {
            let live = self.agents[agent].live.as_ref();
            if live.is_some_and(|live| live.incarnation.generation == generation) {
                self.dismiss_spares(agent);
                self.order(agent, Event::RestartAsked);
            }
        }
    }

    /// Agents take over their new shapes, names and places; those that were not there are added.
    fn follow_agents(&mut self, lasts: Vec<Option<Verdict>>, former: &BoardShape) {
        for (agent, last) in lasts.into_iter().enumerate() {
            let is_new = self.fit(agent);
            let record = &mut self.agents[agent];
            if let Some(last) = last {
                record.last = last;
            }
            if is_new {
                if !self.topology.agents[agent].active {
                    self.rest(agent);
                }
                continue;
            }
            let moved = former.agents.get(agent) != self.board_shape.agents.get(agent);
            if moved && record.last.generation > 0 {
                // Where it lay before, nobody looks any more: its readers are told the new shape.
                self.board.verdict(agent as u32, &record.last);
            }
        }
        self.board.announce();
    }

    /// An agent takes over its shape, its name, where its output goes and how it is restarted; one that was not there is added. Whether
    /// it was.
    pub(super) fn fit(&mut self, agent: usize) -> bool {
        let instance = &self.topology.agents[agent];
        let restart = self.file.agents[instance.config].restart.clone();
        let seed = self.cradle.swarm ^ (u64::from(self.reloads as u32) << 32 | agent as u64);
        let shape = birth::segment_shape(instance);
        let Some(record) = self.agents.get_mut(agent) else {
            let last = super::beginning(&self.topology, instance);
            let capture = (self.captures)(&instance.name);
            let mut record = new_agent(&instance.name, shape, Intensity::new(restart, seed), last, capture);
            record.was_ready = !instance.active;
            self.agents.push(record);
            return true;
        };
        if record.intensity.restart() != &restart {
            record.intensity = Intensity::new(restart, seed);
        }
        if record.name != instance.name {
            record.name.clone_from(&instance.name);
            record.capture = (self.captures)(&instance.name);
        }
        // Of one that lives on it is the same.
        record.shape = shape;
        false
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
