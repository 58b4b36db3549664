//! Standbys: spare processes of an agent that are attached and parked, so that a death is answered by promoting one.
//!
//! ```text
//!   made (own generation number) ─> mapped, sealed, linked ahead ─> parked ─> promoted: inherits what the verdict says ─> begun, and goes
//! ```
//!
//! A standby's segment lies ready in its peers before anybody knows what it continues. At the promotion it is told where its lanes
//! begin, writes that itself, says so and begins; heard, it is named on the board: from then on it is an incarnation as any other. Standbys are taken oldest
//! first, so that generations only grow; a new one is made when the agent is ready again. The death of a standby concerns nobody.

use super::congestion::Waits;
use super::hear::PACKETS_AT_ONCE;
use super::{Effect, Ends, Swarm, Timer, live_of};
use crate::agent::{Live, Remains};
use crate::child::{Event, State};
use crate::config::SwarmFile;
use crate::events::Kind;
use crate::hooks::Occasion;
use crate::log::Level;
use crate::spawn::{Ended, Ending};
use crate::{birth, spawn};
use shoal_runtime::again::is_congested;
use shoal_runtime::board::Status;
use shoal_runtime::layout::board::VERDICT_SLOTS;
use shoal_runtime::standby::Inheritance;
use shoal_runtime::wire::{self, FromAgent, Received};
use shoal_runtime::{Incarnation, state};
use std::io;
use std::time::{Duration, Instant};

/// The pause after a standby died by itself; doubled each time, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long no standby is made after so many of them died in a row.
pub(super) fn pause_after(deaths: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << deaths.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// The next generation number: higher than all, and on the board without a slot that a verdict in use has.
pub(super) fn next_number(last: u32, in_use: impl Fn(u64) -> bool) -> u32 {
    let free = (1..=VERDICT_SLOTS as u32).map(|ahead| last + ahead);
    free.clone().find(|number| !in_use(u64::from(*number) % VERDICT_SLOTS)).unwrap_or(last + 1)
}

/// The agents of a file that have standbys or a zygote.
pub(super) fn reared(file: &SwarmFile) -> Vec<usize> {
    let agents = file.agents.iter().enumerate();
    agents.filter(|(_, agent)| agent.standby > 0 || agent.prefork).map(|(config, _)| config).collect()
}

impl Swarm {
    /// Makes an incarnation, with a generation number of its own.
    ///
    /// # Errors
    /// What is lacking, in words.
    pub(super) fn bear(&mut self, agent: usize, standby: bool) -> io::Result<Live> {
        let forked = self.take_fork(agent);
        let stands_in = self.as_stand_in(agent);
        if forked.is_none() && stands_in.is_none() {
            self.tell_lacks(agent);
        }
        let inputs = 0..self.topology.agents[agent].inputs.len();
        let given = inputs.map(|input| self.trials.told(self.reader_of(agent, input))).collect();
        let config = &self.file.agents[self.topology.agents[agent].config];
        let record = &mut self.agents[agent];
        let in_use = |slot: u64| {
            let lives = record.lives().map(|live| live.incarnation);
            let all = lives.chain(record.graves.iter().map(|grave| grave.incarnation));
            all.into_iter().any(|i| u64::from(i.generation) % VERDICT_SLOTS == slot)
        };
        record.numbered = next_number(record.numbered, in_use);
        let mut manifest = birth::manifest(&self.file, &self.topology, &self.board_shape, agent);
        (manifest.generation, manifest.standby) = (record.numbered, standby);
        manifest.given = given;
        manifest.owner = self.groups.next_owner();
        let instead = record.command.clone();
        let instead = instead.map(|command| crate::config::Agent { command, ..config.clone() });
        let instead = stands_in.or(instead);
        let config = instead.as_ref().unwrap_or(config);
        let claims = self.groups.handles(&self.topology, agent);
        let origin = (!standby).then_some((&record.last, record.last_state.as_slice()));
        birth::bear(&mut self.cradle, &manifest, config, origin, &claims, forked)
    }

    /// Makes a standby if one is lacking: one after the other, while the agent itself is well.
    pub(super) fn refill(&mut self, agent: usize) {
        // A zygote that cannot be started has recalled whoever waits for its forks, this agent, too.
        if !self.lacks_standby(agent) || self.awaits_fork(agent) || !self.lacks_standby(agent) {
            return;
        }
        match self.bear(agent, true) {
            Ok(live) => {
                self.effects.push(Effect::Watch(live.incarnation));
                self.agents[agent].spares.push_back(live);
                // Its number is used: a successor, which ends it, must not give it to another.
                self.write_agent(agent);
            }
            Err(error) if is_congested(&error) => self.hand_over_later(Waits::Agent(agent)),
            Err(error) => {
                let text = format!(
                    "{}: a standby of agent {} cannot be started: {error}",
                    self.place_of(agent),
                    self.agents[agent].name
                );
                self.notice(&text);
                self.refill_later(agent);
            }
        }
    }

    /// Whether a standby is to be made now.
    fn lacks_standby(&self, agent: usize) -> bool {
        let record = &self.agents[agent];
        let under_way = record.spares.iter().any(|spare| spare.sealed.is_none());
        let well = record.state == State::Ready && self.ends == Ends::No;
        record.spares.len() < self.standbys_wanted(agent) && !under_way && well
    }

    /// Makes a standby after a pause, which is the longer the more died in a row.
    fn refill_later(&mut self, agent: usize) -> Duration {
        let record = &mut self.agents[agent];
        record.spare_deaths = record.spare_deaths.saturating_add(1);
        let pause = pause_after(record.spare_deaths);
        self.effects.push(Effect::Arm(Instant::now() + pause, agent, Timer::Standby, 0));
        pause
    }

    /// How many standbys the swarm file wants of an agent.
    pub fn standbys_wanted(&self, agent: usize) -> usize {
        let itself = self.agents[agent].stand_in.is_none();
        if itself { self.file.agents[self.topology.agents[agent].config].standby as usize } else { 0 }
    }

    /// The oldest standby that can be promoted.
    fn oldest_spare(&self, agent: usize) -> Option<usize> {
        self.agents[agent].spares.iter().position(|spare| !spare.ordered && !spare.child.is_dead())
    }

    /// Whether a start can be answered by a promotion.
    pub(super) fn has_standby(&self, agent: usize) -> bool {
        self.oldest_spare(agent).is_some()
    }

    /// Answers a start by promoting the oldest standby. False when there is none.
    pub(super) fn promote(&mut self, agent: usize) -> bool {
        let Some(oldest) = self.oldest_spare(agent) else { return false };
        let record = &mut self.agents[agent];
        let Some(mut live) = record.spares.remove(oldest) else { return false };
        (live.parked, live.born) = (false, Instant::now());
        self.cradle.urgency.hurry(&live.child);
        self.take_place(agent, live);
        // It is told first: whatever else is to be done, it does its part meanwhile.
        if live_is_sealed(&self.agents[agent].live) {
            self.bequeath(agent);
        }
        self.tell_of_life(agent);
        true
    }

    /// An incarnation, new or promoted, is the agent's process from here on.
    pub(super) fn take_place(&mut self, agent: usize, live: Live) {
        let record = &mut self.agents[agent];
        record.intensity.started(self.started.elapsed());
        record.restarts += u64::from(record.generation > 0);
        record.generation = live.incarnation.generation;
        record.live = Some(live);
        self.write_agent(agent);
    }

    /// What follows from it for everybody else.
    pub(super) fn tell_of_life(&mut self, agent: usize) {
        let pid = live_of(&self.agents[agent]).child.pid;
        self.happened(Kind::Started, agent, &format!("process {pid}"));
        self.tell_hooks(agent, Occasion::Started, "process started");
        self.hear_bell(agent);
        self.feed(agent, Event::Spawned);
    }

    /// What is asked of an agent, and that it is expected, before its next life.
    pub(super) fn expect(&mut self, agent: usize) {
        let request = self.work_of(agent);
        self.agents[agent].capture.begin();
        self.board.publish_request(agent as u32, request);
        self.board.publish_status(agent as u32, Status::Expected);
    }

    /// Tells a promoted standby, which its peers have seen sealed, what it continues.
    fn bequeath(&mut self, agent: usize) {
        let inputs = 0..self.topology.agents[agent].inputs.len();
        let given = inputs.map(|input| self.trials.told(self.reader_of(agent, input))).collect();
        let record = &self.agents[agent];
        let (lanes, inputs) = (record.last.lanes.clone(), record.last.inputs.clone());
        let state = state::used(&record.last_state).to_vec();
        let graves: Vec<Incarnation> = self
            .topology
            .neighbours(agent)
            .into_iter()
            .filter(|&of| self.reads(agent, of))
            .flat_map(|of| self.agents[of].graves.iter().map(|grave| grave.incarnation))
            .collect();
        let Some(live) = &mut self.agents[agent].live else { return };
        graves.into_iter().for_each(|grave| live.post.add(grave, true));
        // What is to be handed to it before it begins, it waits for.
        live.at_once = live.post.is_done();
        let inheritance = Inheritance { lanes, inputs, given, state, at_once: live.at_once };
        let told = inheritance.hand_over(&live.control);
        if told.is_err() {
            // It is dead, or cannot be told: the next one is.
            live.kill(self.cradle.urgency);
        }
        self.flush(agent);
    }

    /// A promoted standby has written what it inherits: the board names it. If it has begun already, it may have rung others that found
    /// nothing of it, and others its predecessor: all look again.
    pub(super) fn on_begun(&mut self, agent: usize) {
        let Some(live) = &mut self.agents[agent].live else { return };
        if live.begun || live.sealed.is_none() {
            return;
        }
        live.begun = true;
        let incarnation = live.incarnation;
        // Before anybody is told: from here on its death wants a verdict.
        self.write_agent(agent);
        self.board.publish_generation(incarnation);
        self.board.announce();
        if live_of(&self.agents[agent]).at_once {
            for other in self.topology.neighbours(agent).into_iter().chain([agent]) {
                self.agents[other].live.iter().for_each(|other| other.doorbell.ring());
            }
        }
        self.flush(agent);
    }

    /// A standby, or one that was promoted meanwhile, is sealed and can be linked ahead.
    pub(super) fn on_standby_sealed(&mut self, of: Incarnation) {
        let agent = of.agent as usize;
        self.agents[agent].spare_deaths = 0;
        self.settle_urgency(of);
        self.introduce_everywhere(of);
        if self.agents[agent].live.as_ref().is_some_and(|live| live.incarnation == of) {
            self.bequeath(agent);
        } else {
            self.refill(agent);
            self.tend(self.topology.agents[agent].config);
        }
    }

    /// Hears a standby.
    pub fn on_spare_control(&mut self, of: Incarnation) {
        for _ in 0..PACKETS_AT_ONCE {
            let Some(spare) = self.spare(of) else { return };
            let said = match wire::listen(&spare.control) {
                Ok(Received::Packet(said, _)) => said,
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) => return,
                Err(_) => return spawn::kill_tree(&spare.child),
            };
            match said {
                FromAgent::Mapped => self.on_mapped(of),
                FromAgent::LinksTaken => {
                    if let Some(spare) = self.agents[of.agent as usize].life_mut(of.generation) {
                        spare.post.under_way = false;
                    }
                    self.flush(of.agent as usize);
                }
                // Nothing else is said before a promotion.
                _ => return spawn::kill_tree(&spare.child),
            }
        }
        self.effects.push(Effect::HearOn(of));
    }

    fn spare(&self, of: Incarnation) -> Option<&Live> {
        self.agents[of.agent as usize].spares.iter().find(|spare| spare.incarnation == of)
    }

    /// A standby is dead. Nobody has read its memory, so there is no verdict; a new one takes its place.
    pub fn on_spare_death(&mut self, of: Incarnation) {
        let agent = of.agent as usize;
        let Some(place) = self.agents[agent].spares.iter().position(|spare| spare.incarnation == of) else {
            return;
        };
        let Some(spare) = self.agents[agent].spares.remove(place) else { return };
        spawn::kill_tree(&spare.child);
        self.drain_output(agent, &spare.pipes);
        let ended = self.cradle.spawner.ended(&spare.child).unwrap_or(Ended::unknown(Ending::Exited(255)));
        if !spare.ordered {
            let name = &self.agents[agent].name;
            let text = format!("a standby of agent {name} (generation {}) {}", of.generation, ended.ending);
            self.remark(Level::Warn, &text);
            let pause = self.refill_later(agent);
            self.report_standby(agent, &spare, &ended, pause);
        }
        self.remains.push(Remains::Live(Box::new(spare)));
        self.end_strays_later();
    }

    /// Ends the standbys of an agent that will not need them. They are let go of when they are dead.
    pub(super) fn dismiss_spares(&mut self, agent: usize) {
        for spare in &mut self.agents[agent].spares {
            spare.ordered = true;
            spawn::kill_tree(&spare.child);
        }
    }

    /// Reads what a standby printed.
    pub fn on_spare_output(&mut self, of: Incarnation, pipe: usize) {
        self.read_output(of.agent as usize, of.generation, pipe);
    }
}

fn live_is_sealed(live: &Option<Live>) -> bool {
    live.as_ref().is_some_and(|live| live.sealed.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::nursery::{Member, Role};
    use super::*;
    use crate::config;
    use crate::dead_letters::DeadLetters;
    use crate::output::{Capture, Echo};
    use crate::records::Records;
    use crate::spawn::Child;
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};

    /// An agent that is to have one standby, and is forked of a zygote that cannot be started.
    const FORKED: &str =
        "[swarm]\nname = \"s\"\n[agent.a]\ncommand = [\"/nowhere\"]\nprefork = true\nstandby = 1\n";

    fn swarm(text: &str, folder: &Path) -> Swarm {
        let file = config::parse(Path::new("t.toml"), text).unwrap_or_else(|error| panic!("{error}"));
        let letters = DeadLetters::open(&folder.join("letters"), file.dead_letters).expect("opened");
        let records = Records::open(folder, &file, Box::new(|_| ())).expect("opened");
        let logs = PathBuf::from(folder);
        let captures = Box::new(move |agent: &str| Capture::new(agent, logs.as_path(), Echo::off()));
        Swarm::new(file, letters, captures, records).expect("made")
    }

    /// A process that waits to be an agent's, and the other end of its socket: this one, which is never signalled.
    fn forked(serial: u32) -> (Member, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let child = Some(Child::adopt(&ours).expect("this process"));
        let (control, pipes) = (ours.into(), [None, None]);
        let since = Instant::now();
        (Member { serial, role: Role::Forked, child, control, pipes, since, ordered: false }, theirs)
    }

    /// Goal: what the failed start of a zygote calls back does not refill once more what it has refilled. Method: no zygote runs and none can
    /// be started, two forks are left to be taken, and one standby is wanted.
    #[test]
    fn refill_within_whose_course_the_zygote_cannot_be_started_makes_one_standby() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut swarm = swarm(FORKED, folder.path());
        let (forks, _others): (Vec<_>, Vec<_>) = [1, 2].map(forked).into_iter().unzip();
        swarm.nurseries.of.entry(0).or_default().members = forks;
        swarm.agents[0].state = State::Ready;
        swarm.refill(0);
        let nursery = &swarm.nurseries.of[&0];
        assert_eq!(nursery.failures, 1, "the zygote was to be started");
        assert_eq!((swarm.agents[0].spares.len(), nursery.members.len()), (1, 1), "standbys, and forks left");
    }

    #[test]
    fn standbys_that_die_in_a_row_are_made_ever_later_up_to_a_bound() {
        let pauses: Vec<u128> = (1..=8).map(|deaths| pause_after(deaths).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn generation_numbers_grow_and_spare_the_slots_of_verdicts_in_use() {
        assert_eq!(next_number(4, |_| false), 5);
        assert_eq!(next_number(4, |slot| slot == 5), 6, "generation 5 would overwrite a verdict in use");
        assert_eq!(next_number(15, |slot| slot == 0 || slot == 1), 18);
        assert_eq!(next_number(4, |_| true), 5, "all in use: the oldest verdict goes");
    }
}
