//! Zygotes (`prefork`): an agent's program is started once, initialises, and is forked for each start of the agent.
//!
//! ```text
//!   zygote: started ─> fit ─> ordered to fork ─> fit …          egg: ordered ─> its word, by the kernel's proof of who says it
//!                                                                         ─> forked ─> taken by a start: hello, as for any process
//! ```
//! One fork is made ahead, so that a start needs to wait for nobody. Where there is none, the start waits (as `draining`) for as long as
//! one is on its way; while a zygote pauses after it failed, and when it cannot be forked at all, agents are started by their command.
//! Nobody who takes over knows of zygotes: what is not yet an agent's process is ended as a stray, and made anew.

use super::congestion::Waits;
use super::nursery::{End, Member, Nursery, Role, Watched, word};
use super::standby::pause_after;
use super::{Ends, Swarm, Timer};
use crate::birth::{self, Process, Wires};
use crate::child::State;
use crate::confine;
use crate::events::Kind;
use crate::log::Level;
use crate::output::{Drained, Stream};
use crate::spawn::{self, Child};
use crate::swarm::Effect;
use shoal_runtime::again::is_congested;
use shoal_runtime::wire::{self, FromAgent, Received, ToAgent};
use shoal_runtime::zygote::{NAME_ENV, ZYGOTE_ENV};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Forks that wait for a start.
const AHEAD: usize = 1;
/// How long a zygote may take to fork.
const FORK_PATIENCE: Duration = Duration::from_secs(1);

impl Swarm {
    /// The process that an agent is forked of.
    pub fn zygote_of(&self, agent: usize) -> Option<u32> {
        let nursery = self.nurseries.of.get(&self.topology.agents[agent].config)?;
        let fit = nursery.zygote().filter(|m| m.role == Role::Fit)?;
        fit.child.as_ref().map(|child| child.pid as u32)
    }

    /// What is to be watched of a process of a nursery.
    pub fn nursling(&self, config: usize, serial: u32) -> Watched<'_> {
        let members = self.nurseries.of.get(&config).map_or(&[][..], |nursery| &nursery.members);
        let Some(member) = members.iter().find(|m| m.serial == serial) else { return Vec::new() };
        let mut watched = vec![(member.control.as_fd(), word(serial, End::Control), End::Control)];
        watched.extend(member.child.iter().map(|c| (c.pidfd.as_fd(), word(serial, End::Death), End::Death)));
        // What a fork prints is its agent's.
        let pipes = member.pipes.iter().zip([End::Output, End::Errors]).filter(|_| member.is_zygote());
        watched
            .extend(pipes.filter_map(|(pipe, end)| Some((pipe.as_ref()?.as_fd(), word(serial, end), end))));
        watched
    }

    /// A descriptor of such a process is ready.
    pub fn on_nursling(&mut self, config: usize, told: u32) {
        let serial = told >> 2;
        let Some(role) = self.nurseries.member(config, serial).map(|m| m.role) else { return };
        match told & 3 {
            end if end == End::Control as u32 => match role {
                Role::Starting | Role::Fit => self.hear_zygote(config, serial),
                Role::Egg => self.hear_egg(config, serial),
                // Nothing is said before hello.
                Role::Forked => self.nurseries.member(config, serial).iter().for_each(|m| m.kill()),
            },
            end if end == End::Death as u32 => self.on_nursling_death(config, serial),
            end => self.read_zygote(config, serial, end as usize - End::Output as usize),
        }
    }

    /// Whether a start has to wait for a fork that is on its way; sees to it that one is.
    pub(super) fn awaits_fork(&mut self, agent: usize) -> bool {
        let config = self.topology.agents[agent].config;
        if !self.is_forked(agent) {
            return false;
        }
        self.tend(config);
        self.nurseries.of.get(&config).is_some_and(|nursery| {
            let on_its_way = nursery.has_egg() || nursery.zygote().is_some();
            on_its_way
                && !nursery.pauses()
                && !nursery.unfit
                && !nursery.members.iter().any(Member::is_to_take)
        })
    }

    /// The fork that an agent's next process is.
    pub(super) fn take_fork(&mut self, agent: usize) -> Option<Process> {
        let config = self.topology.agents[agent].config;
        if !self.is_forked(agent) {
            return None;
        }
        let members = &mut self.nurseries.of.get_mut(&config)?.members;
        let place = members.iter().position(Member::is_to_take)?;
        let Member { child, control, pipes, .. } = members.remove(place);
        Some((child?, control, pipes))
    }

    /// Whether an agent is started by a fork. One that is being upgraded is started by its new command.
    fn is_forked(&self, agent: usize) -> bool {
        let config = self.topology.agents[agent].config;
        let record = &self.agents[agent];
        let itself = record.command.is_none() && record.stand_in.is_none();
        self.file.agents[config].prefork && itself && !self.is_killed()
    }

    /// Whether any process of an agent of the file is, or may come to be.
    fn is_at_work(&self, config: usize) -> bool {
        let mut instances = self.topology.active(config);
        instances.any(|a| !self.agents[a].state.is_at_rest() || self.agents[a].live.is_some())
    }

    /// Makes what a nursery lacks, and ends what takes too long.
    pub(super) fn tend(&mut self, config: usize) {
        if !self.file.agents[config].prefork {
            return;
        }
        let now = Instant::now();
        let ready_timeout = self.file.agents[config].ready_timeout;
        let nursery = self.nurseries.of.entry(config).or_default();
        let is_late = |m: &&Member| match m.role {
            Role::Starting => !m.ordered && now >= m.since + ready_timeout,
            Role::Egg => now >= m.since + FORK_PATIENCE,
            Role::Fit | Role::Forked => false,
        };
        if let Some((serial, role)) = nursery.members.iter().find(is_late).map(|m| (m.serial, m.role)) {
            let what = match role {
                Role::Egg => format!("did not fork within {FORK_PATIENCE:?}"),
                _ => format!("did not call `shoal_agent::run` within {ready_timeout:?} (`ready_timeout`)"),
            };
            if role == Role::Egg {
                self.nurseries.remove(config, serial);
            }
            self.end_zygote(config, &what);
        }
        let Some(nursery) = self.nurseries.of.get(&config).filter(|n| !n.pauses() && !n.unfit) else {
            return;
        };
        if nursery.zygote().is_none() {
            if self.ends == Ends::No && self.is_at_work(config) {
                self.start_zygote(config);
            }
            return;
        }
        let ahead = nursery.members.iter().filter(|m| m.is_to_take()).count();
        if ahead < AHEAD && !nursery.has_egg() {
            self.order_fork(config);
        }
    }

    /// Ends the zygotes that a changed file, or another command, leaves without sense, and sees to the others.
    pub(super) fn review_zygotes(&mut self) {
        let configs: Vec<usize> = self.nurseries.of.keys().copied().collect();
        for config in configs {
            let now = &self.file.agents[config];
            let same = self.nurseries.of[&config].of.as_ref().is_some_and(|of| {
                (&of.command, &of.env, &of.confinement) == (&now.command, &now.env, &now.confinement)
            });
            if !same || !now.prefork || !self.is_at_work(config) {
                self.dismiss_zygote(config);
            }
            self.tend(config);
        }
    }

    /// An agent of the file is at rest: when all are, nothing is to be forked.
    pub(super) fn release_zygote(&mut self, config: usize) {
        if self.nurseries.of.contains_key(&config) && !self.is_at_work(config) {
            self.dismiss_zygote(config);
        }
    }

    /// Ends a zygote, and its forks that nobody has taken.
    pub(super) fn dismiss_zygote(&mut self, config: usize) {
        let Some(nursery) = self.nurseries.of.get_mut(&config) else { return };
        // A child that has not spoken finds its socket closed.
        nursery.members.retain(|m| m.child.is_some());
        for member in &mut nursery.members {
            member.ordered = true;
            member.kill();
        }
        (nursery.of, nursery.failures, nursery.pause, nursery.unfit) = (None, 0, None, false);
    }

    fn add_member(
        &mut self,
        config: usize,
        role: Role,
        (child, control, pipes): (Option<Child>, OwnedFd, [Option<OwnedFd>; 2]),
    ) {
        self.nurseries.serial = (self.nurseries.serial + 1) & (u32::MAX >> 2);
        let serial = self.nurseries.serial;
        let member = Member { serial, role, child, control, pipes, since: Instant::now(), ordered: false };
        self.nurseries.of.entry(config).or_default().members.push(member);
        self.effects.push(Effect::WatchNursling(config, serial));
    }

    fn start_zygote(&mut self, config: usize) {
        let Some(agent) = self.topology.active(config).next() else { return };
        self.tell_lacks(agent);
        let told = &self.file.agents[config];
        let started = self
            .cradle
            .cages
            .of(self.cradle.urgency, agent as u32, &self.agents[agent].name, told)
            .and_then(|(cage, _)| {
                let own =
                    [(spawn::SWARM_ENV, self.file.name.as_str()), (NAME_ENV, &told.name), (ZYGOTE_ENV, "1")];
                birth::spawn(&mut self.cradle.spawner, cage, told, &own, &[])
            });
        let (told, ready_timeout) = (told.clone(), told.ready_timeout);
        match started {
            Ok((child, control, pipes)) => {
                let text = format!("zygote started: process {}", child.pid);
                self.nurseries.of.entry(config).or_default().of = Some(told);
                self.add_member(config, Role::Starting, (Some(child), control, pipes));
                self.effects.push(Effect::Arm(Instant::now() + ready_timeout, config, Timer::Zygote, 0));
                self.happened(Kind::Notice, agent, &text);
            }
            Err(error) => self.fail_zygote(config, &format!("cannot be started: {error}")),
        }
    }

    fn order_fork(&mut self, config: usize) {
        let Some(zygote) = self.nurseries.of.get(&config).and_then(Nursery::zygote) else { return };
        if zygote.role != Role::Fit {
            return;
        }
        let ordered = Wires::make().and_then(|wires| {
            wire::ask_for_senders(&wires.ours.0)?;
            let theirs = wires.theirs.each_ref().map(AsFd::as_fd);
            wire::tell(&zygote.control, &ToAgent::Fork, &theirs)?;
            Ok(wires.ours)
        });
        match ordered {
            Ok((control, pipes)) => {
                self.add_member(config, Role::Egg, (None, control, pipes));
                self.effects.push(Effect::Arm(Instant::now() + FORK_PATIENCE, config, Timer::Zygote, 0));
            }
            Err(error) if is_congested(&error) => self.hand_over_later(Waits::Zygote(config)),
            Err(error) => self.end_zygote(config, &format!("cannot be ordered to fork: {error}")),
        }
    }

    fn hear_zygote(&mut self, config: usize, serial: u32) {
        loop {
            let Some(zygote) = self.nurseries.member(config, serial).filter(|m| !m.ordered) else { return };
            match wire::listen(&zygote.control) {
                Ok(Received::Packet(FromAgent::Forks, _)) if zygote.role == Role::Starting => {
                    zygote.role = Role::Fit;
                    let settled = confine::settled(&self.file.agents[config]);
                    zygote.child.iter().for_each(|child| self.cradle.urgency.settle(child, settled));
                    self.tend(config);
                }
                Ok(Received::Packet(FromAgent::Unfit { why }, _)) if zygote.role == Role::Starting => {
                    return self.on_unfit(config, &why);
                }
                Ok(Received::Nothing) => return,
                // Its death tells more.
                Ok(Received::Closed) => return zygote.kill(),
                Ok(Received::Packet(..)) => {
                    return self.end_zygote(config, "said what no zygote says");
                }
                Err(error) => return self.end_zygote(config, &format!("cannot be heard: {error}")),
            }
        }
    }

    /// A zygote that says that it cannot be forked: that is its program's fault, and stays so.
    fn on_unfit(&mut self, config: usize, why: &str) {
        let place = format!("{}:{}", self.file.path.display(), self.file.agents[config].line);
        let text = format!("{place}: agent {}: {why}", self.file.agents[config].name);
        if let Some(nursery) = self.nurseries.of.get_mut(&config) {
            nursery.unfit = true;
        }
        let first = self.topology.active(config).next();
        self.tell(Level::Error, Kind::Notice, first, &text);
        self.fail_start(text);
        self.recall(config);
    }

    fn hear_egg(&mut self, config: usize, serial: u32) {
        let Some(egg) = self.nurseries.member(config, serial) else { return };
        let pid = match wire::listen_whom(&egg.control) {
            Ok(Received::Packet((FromAgent::Forked, pid), _)) => pid,
            Ok(Received::Nothing) => return,
            Ok(Received::Closed) => {
                self.nurseries.remove(config, serial);
                return self.fail_zygote(config, "forked a process that died before its first word");
            }
            Ok(Received::Packet(..)) | Err(_) => {
                self.nurseries.remove(config, serial);
                return self.end_zygote(config, "has a child that does not say that it was forked");
            }
        };
        let known = self.knows(pid);
        match self.cradle.spawner.foster(pid) {
            Ok(child) if !known => {
                let Some(nursery) = self.nurseries.of.get_mut(&config) else { return };
                (nursery.failures, nursery.pause) = (0, None);
                if let Some(egg) = nursery.members.iter_mut().find(|m| m.serial == serial) {
                    (egg.child, egg.role) = (Some(child), Role::Forked);
                }
                self.effects.push(Effect::WatchNursling(config, serial));
                self.end_due_strays();
                self.recall(config);
            }
            fostered => {
                let why =
                    fostered.err().map_or_else(|| format!("process {pid} is an agent's"), |e| e.to_string());
                self.nurseries.remove(config, serial);
                self.end_zygote(config, &format!("says that it forked what it did not: {why}"));
            }
        }
    }

    /// Ends a zygote that does not do what it should; its death is its failure.
    fn end_zygote(&mut self, config: usize, what: &str) {
        let text = format!("the zygote of agent {} is killed: it {what}", self.file.agents[config].name);
        self.notice(&text);
        let Some(nursery) = self.nurseries.of.get(&config) else { return };
        nursery.zygote().iter().for_each(|zygote| zygote.kill());
    }

    /// Something of it went wrong: nothing is tried for a while, and agents are started by their command.
    fn fail_zygote(&mut self, config: usize, what: &str) {
        let Some(nursery) = self.nurseries.of.get_mut(&config) else { return };
        if !nursery.unfit {
            nursery.failures = nursery.failures.saturating_add(1);
            let pause = pause_after(nursery.failures);
            nursery.pause = Some(Instant::now() + pause);
            self.effects.push(Effect::Arm(Instant::now() + pause, config, Timer::Zygote, 0));
            let name = &self.file.agents[config].name;
            let text =
                format!("the zygote of agent {name} {what}: for {pause:?} it is started by its command");
            self.notice(&text);
        }
        // What died before its word is known to nobody.
        self.end_strays_later();
        self.recall(config);
    }

    fn on_nursling_death(&mut self, config: usize, serial: u32) {
        let Some(mut member) = self.nurseries.remove(config, serial) else { return };
        let was_zygote = matches!(member.role, Role::Starting | Role::Fit);
        let first = self.topology.active(config).next();
        if let (true, Some(agent)) = (was_zygote, first) {
            self.drain_output(agent, &member.pipes);
        }
        let Some(child) = member.child.take() else { return };
        spawn::kill_tree(&child);
        let ended = self.cradle.spawner.ended(&child);
        self.cradle.spawner.bury(child);
        if member.ordered {
            // What it had ordered and nobody heard of.
            return self.end_strays_later();
        }
        let how = ended.map_or_else(|error| error.to_string(), |ended| ended.ending.to_string());
        match was_zygote {
            true => self.fail_zygote(config, &how),
            false => self.fail_zygote(config, &format!("has a fork that nobody used yet, which {how}")),
        }
    }

    /// Whatever waits for a fork looks again.
    fn recall(&mut self, config: usize) {
        let instances: Vec<usize> = self.topology.active(config).collect();
        for &agent in &instances {
            if self.agents[agent].state == State::Draining {
                self.on_timer(agent, Timer::Drain);
            }
        }
        instances.into_iter().for_each(|agent| self.refill(agent));
    }

    /// What a zygote prints stands with what the first of its agents prints.
    fn read_zygote(&mut self, config: usize, serial: u32, pipe: usize) {
        let Some(agent) = self.topology.active(config).next() else { return };
        let Some(member) = self.nurseries.member(config, serial) else { return };
        let Some(fd) = &member.pipes[pipe] else { return };
        let stream = if pipe == 0 { Stream::Out } else { Stream::Err };
        let drained: io::Result<Drained> = self.agents[agent].capture.on_readable(fd.as_fd(), stream);
        if !matches!(drained, Ok(Drained::Open)) {
            member.pipes[pipe] = None;
        }
    }
}
