//! The replicas of an agent are replaced one by one: each is stopped, drained of what it has in hand, and started with another command;
//! it must become ready and prove itself. If one does not, all go back to the former command: its first end that nobody ordered says so,
//! and is not held against it, whatever its policy and its intensity. It is journalled: a successor goes on with it.

use super::record::UpgradeRecord;
use super::{Swarm, Timer};
use crate::child::{Event, State};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When a replica has proved itself: after so long, or so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Alive and ready for so long.
    pub time: Duration,
    /// Or before, when it has received and sent so many messages; `None`: the time counts.
    pub messages: Option<u64>,
}

/// What is under way.
pub(super) struct Upgrade {
    config: usize,
    command: Vec<String>,
    proof: Proof,
    /// Who is to be replaced, the one whose turn it is in front.
    todo: VecDeque<usize>,
    done: Vec<usize>,
    now: Option<Turn>,
    /// Why all go back.
    failed: Option<String>,
}

/// The replica whose turn it is.
struct Turn {
    agent: usize,
    /// The generation and the deaths of its own that it had before; of one that has failed, with that.
    generation: u32,
    faults: u64,
    ready_since: Option<Instant>,
    /// Messages in all its lives before it was ready.
    messages: u64,
}

/// What became of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// These replicas run the new command.
    Done(Vec<String>),
    /// All run the former command, and why.
    RolledBack(String),
}

impl Swarm {
    /// Begins to replace the replicas of an agent; [`Swarm::upgrade_outcome`] tells what became of it.
    ///
    /// # Errors
    /// Why not now.
    pub fn upgrade(&mut self, config: usize, command: Vec<String>, proof: Proof) -> Result<(), String> {
        self.may_change()?;
        let todo: VecDeque<usize> = self.topology.active(config).collect();
        if todo.is_empty() {
            return Err(format!("agent {} has no replicas", self.file.agents[config].name));
        }
        self.upgraded = None;
        let (done, now, failed) = (Vec::new(), None, None);
        self.upgrade = Some(Upgrade { config, command, proof, todo, done, now, failed });
        self.go_on_upgrading();
        Ok(())
    }

    /// What became of the last upgrade; `None` while it is under way.
    pub fn upgrade_outcome(&self) -> Option<&Upgraded> {
        self.upgraded.as_ref()
    }

    /// What is under way, for a successor.
    pub(super) fn upgrade_record(&self) -> Option<UpgradeRecord> {
        let Upgrade { config, command, proof, todo, done, now, failed } = self.upgrade.as_ref()?;
        Some(UpgradeRecord {
            config: *config as u64,
            command: command.clone(),
            proof: (proof.time, proof.messages),
            todo: todo.iter().map(|agent| *agent as u64).collect(),
            done: done.iter().map(|agent| *agent as u64).collect(),
            now: now.as_ref().map(|turn| (turn.agent as u64, turn.generation, turn.faults)),
            failed: failed.clone(),
        })
    }

    /// Takes over what was under way. Whose turn it is proves itself from the beginning.
    pub(super) fn restore_upgrade(&mut self, record: UpgradeRecord) {
        let UpgradeRecord { config, command, proof: (time, messages), todo, done, now, failed } = record;
        let todo: VecDeque<usize> = todo.into_iter().map(|agent| agent as usize).collect();
        let done: Vec<usize> = done.into_iter().map(|agent| agent as usize).collect();
        // Who has the new command, and was not given the former one back.
        let with_new: Vec<usize> =
            if failed.is_none() { done.clone() } else { todo.iter().copied().collect() };
        for agent in with_new {
            self.agents[agent].command = Some(command.clone());
        }
        let now = now.map(|(agent, generation, faults)| Turn {
            agent: agent as usize,
            generation,
            faults,
            ready_since: None,
            messages: 0,
        });
        let (config, proof) = (config as usize, Proof { time, messages });
        self.upgrade = Some(Upgrade { config, command, proof, todo, done, now, failed });
    }

    /// Looks how far the upgrade is, and goes on with it.
    pub(super) fn go_on_upgrading(&mut self) {
        if self.upgrade.is_none() {
            return;
        }
        if self.is_ending() {
            self.upgrade = None;
            self.upgraded = Some(Upgraded::RolledBack("the swarm is stopping".into()));
            return;
        }
        loop {
            match self.turn() {
                Some(true) => {}
                Some(false) => return self.arm(Instant::now() + LOOK_EVERY, 0, Timer::Reload),
                None => return self.end_upgrade(),
            }
        }
    }

    /// What of it is under way, in words.
    pub(super) fn upgrade_under_way(&self) -> Option<String> {
        let Upgrade { config, todo, now, failed, .. } = self.upgrade.as_ref()?;
        let whom = now.as_ref().map_or("the next one", |turn| &self.agents[turn.agent].name);
        let what = match failed {
            None => format!("{whom} is to prove itself with the new command"),
            Some(_) => format!("back to the former command, {whom} now"),
        };
        let more = if todo.is_empty() { String::new() } else { format!(", {} more to go", todo.len()) };
        Some(format!("an upgrade of {}: {what}{more}", self.file.agents[*config].name))
    }

    /// Whose turn is not over, forwards or back.
    pub fn not_upgraded(&self) -> Vec<String> {
        let now = self.upgrade.iter().filter_map(|upgrade| Some(upgrade.now.as_ref()?.agent));
        let todo = self.upgrade.iter().flat_map(|upgrade| upgrade.todo.iter().copied());
        now.chain(todo).map(|agent| self.agents[agent].name.clone()).collect()
    }

    /// An agent has ended, or could not be started, and nobody had ordered that. Whether it was to prove itself: then all go back, this one
    /// with its next start.
    pub(super) fn fails_upgrade(&mut self, agent: usize, how: &str) -> bool {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.failed.is_none()) else {
            return false;
        };
        let Some(turn) = upgrade.now.as_mut().filter(|turn| turn.agent == agent) else { return false };
        let record = &mut self.agents[agent];
        (turn.generation, turn.faults) = (record.generation, record.faults);
        record.command = None;
        let why = format!("agent {} {how} with the new command", record.name);
        upgrade.done.retain(|&done| done != agent);
        upgrade.todo = std::mem::take(&mut upgrade.done).into();
        self.dismiss_spares(agent);
        self.notice(&format!("upgrade: {why}; all replicas go back to the former one"));
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.failed = Some(why);
        }
        true
    }

    /// Whether an agent has failed with a new command, and its next life, with the former one, is still to come.
    pub(super) fn goes_back(&self, agent: usize) -> bool {
        let failed = self.upgrade.as_ref().filter(|upgrade| upgrade.failed.is_some());
        let turn = failed.and_then(|upgrade| upgrade.now.as_ref());
        let record = &self.agents[agent];
        let now = (agent, record.generation, record.faults);
        turn.is_some_and(|turn| now == (turn.agent, turn.generation, turn.faults))
    }

    /// The turn of the next replica begins. `None` when there is none left.
    fn begin_turn(&mut self) -> Option<bool> {
        let upgrade = self.upgrade.as_mut()?;
        let agent = upgrade.todo.pop_front()?;
        let record = &mut self.agents[agent];
        record.command = upgrade.failed.is_none().then(|| upgrade.command.clone());
        if upgrade.failed.is_none() {
            upgrade.done.push(agent);
        }
        // Who was given up was so with a command that may be no good.
        let starts = !record.state.is_at_rest() || record.state == State::Failed;
        let (generation, faults) = (record.generation, record.faults);
        upgrade.now = starts.then_some(Turn { agent, generation, faults, ready_since: None, messages: 0 });
        // They were started with the other command.
        self.dismiss_spares(agent);
        if starts {
            self.order(agent, Event::RestartAsked);
        }
        Some(true)
    }

    /// Goes on with the replica whose turn it is, or the next one. Whether there was something to do; `None` when all is done.
    fn turn(&mut self) -> Option<bool> {
        let upgrade = self.upgrade.as_mut()?;
        let Some(turn) = &mut upgrade.now else { return self.begin_turn() };
        let (agent, record) = (turn.agent, &self.agents[turn.agent]);
        if upgrade.failed.is_none() && (record.faults > turn.faults || record.state == State::Failed) {
            // It was given up with its set; or a predecessor of this supervisor has heard of its end, and was not heard of again.
            // A life after that one may have been ended in order before this look.
            let crash = record.last_crash.as_ref().filter(|crash| crash.generation > turn.generation);
            let how = crash.map(|crash| crash.how.clone()).or_else(|| record.last_ending.clone());
            let how = how.unwrap_or_else(|| "is given up".to_owned());
            self.fails_upgrade(agent, &how);
            self.order(agent, Event::RestartAsked);
            return Some(true);
        }
        let ready = record.generation > turn.generation && record.state == State::Ready;
        if record.state.is_at_rest() || upgrade.failed.is_some() && (ready || record.faults > turn.faults) {
            // It has done its work, or an operator stopped it: there is nothing to prove. Or it is back with the former command: that it
            // came is all that was waited for.
            upgrade.now = None;
            return Some(true);
        }
        if !ready || upgrade.failed.is_some() {
            turn.ready_since = None;
            return Some(false);
        }
        let totals = record.totals();
        let messages = totals.sent + totals.received;
        let Some(since) = turn.ready_since else {
            (turn.ready_since, turn.messages) = (Some(Instant::now()), messages);
            return Some(false);
        };
        let enough = upgrade.proof.messages.is_some_and(|enough| messages >= turn.messages + enough);
        let proved = enough || since.elapsed() >= upgrade.proof.time;
        if proved {
            let name = record.name.clone();
            upgrade.now = None;
            self.notice(&format!("upgrade: agent {name} runs the new command"));
        }
        Some(proved)
    }

    fn end_upgrade(&mut self) {
        let Some(Upgrade { config, command, done, failed, .. }) = self.upgrade.take() else { return };
        for instance in self.topology.instances(config) {
            self.agents[instance].command = None;
        }
        let name = self.file.agents[config].name.clone();
        let which = if failed.is_none() { "new" } else { "former" };
        self.notice(&format!("upgrade: all replicas of {name} run the {which} command"));
        // It was started by the former program, which may have had the same name.
        self.dismiss_zygote(config);
        self.upgraded = Some(match failed {
            Some(why) => Upgraded::RolledBack(why),
            None => {
                self.file.agents[config].command = command;
                self.write_stand();
                Upgraded::Done(done.into_iter().map(|agent| self.agents[agent].name.clone()).collect())
            }
        });
    }
}
