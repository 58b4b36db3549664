//! The start of an incarnation: spawned, sealed, introduced to its peers, told to begin. Or never ready.

use super::congestion::Waits;
use super::{Effect, Ends, Swarm};
use crate::agent::{Live, Sealed};
use crate::child::{Event, State};
use crate::events::Kind;
use crate::log::Level;
use shoal_runtime::again::is_congested;
use shoal_runtime::wire::{self, LINKS_PER_PACKET, ToAgent};
use shoal_runtime::{Incarnation, segment};
use std::os::fd::{AsFd, BorrowedFd};

/// How many of an agent's lines a failed start repeats.
const LAST_LINES_MAX: usize = 10;

impl Swarm {
    pub(super) fn spawn(&mut self, agent: usize) {
        self.reclaim(agent);
        if self.history_is_full(agent) {
            self.feed(agent, Event::HistoryFull);
            return;
        }
        if self.awaits_fork(agent) && !self.has_standby(agent) {
            // It waits as one that waits for its readers; when there is a fork, it looks again.
            self.feed(agent, Event::HistoryFull);
            return;
        }
        self.expect(agent);
        if self.promote(agent) {
            return;
        }
        match self.bear(agent, false) {
            Ok(live) => {
                // Before it is watched: of a child that is in no record, a successor knows only that it is none of its own.
                let watch = Effect::Watch(live.incarnation);
                self.take_place(agent, live);
                self.tell_of_life(agent);
                self.effects.push(watch);
            }
            Err(error) if is_congested(&error) => {
                // It waits as one that waits for its readers.
                self.hand_over_later(Waits::Agent(agent));
                self.feed(agent, Event::HistoryFull);
            }
            Err(error) => {
                let config = &self.file.agents[self.topology.agents[agent].config];
                let text = format!(
                    "{}: agent {} ({:?}) cannot be started: {error}",
                    self.place_of(agent),
                    self.agents[agent].name,
                    config.command.first().map_or("", String::as_str)
                );
                let how = format!("cannot be started: {error}");
                self.agents[agent].faults += 1;
                self.tell(Level::Error, Kind::NotStarted, Some(agent), &text);
                self.fails_upgrade(agent, &how);
                self.agents[agent].last_ending = Some(how);
                self.feed(agent, Event::SpawnFailed);
            }
        }
    }

    /// Tells, before the first start, what of its confinement cannot be applied here.
    pub(super) fn tell_lacks(&mut self, agent: usize) {
        let name = self.agents[agent].name.clone();
        let config = &self.file.agents[self.topology.agents[agent].config];
        // What fails is told by the start itself.
        let Ok((_, lacks)) = self.cradle.cages.of(self.cradle.urgency, agent as u32, &name, config) else {
            return;
        };
        for lack in lacks {
            let text = format!("{}: agent {name} runs without {lack}", self.place_of(agent));
            self.tell(Level::Warn, Kind::Notice, Some(agent), &text);
        }
    }

    /// Whether every agent was ready once, or need not be, having ended or, adopted, left: from then on a failing agent does not end the swarm.
    pub fn started_once(&self) -> bool {
        if self.started_once.get() {
            return true;
        }
        let has_left =
            |agent: usize| self.agents[agent].live.is_none() && self.cradle.was_adopted(agent as u32);
        let is_done =
            |(agent, a): (usize, &super::Agent)| a.was_ready || a.state == State::Ended || has_left(agent);
        // It stays so, and is asked in each turn: after a long rest a look at all costs more than the turn.
        self.started_once.set(self.reloads > 0 || self.agents.iter().enumerate().all(is_done));
        self.started_once.get()
    }

    /// `file:line` of an agent.
    pub(super) fn place_of(&self, agent: usize) -> String {
        let config = &self.file.agents[self.topology.agents[agent].config];
        format!("{}:{}", self.file.path.display(), config.line)
    }

    pub(super) fn never_ready(&mut self, agent: usize) {
        let config = &self.file.agents[self.topology.agents[agent].config];
        let text = format!(
            "{}: agent {} was not ready within {:?}: call `agent.serve()` or `agent.ready()` in it, or raise `ready_timeout` \
             of [agent.{}]",
            self.place_of(agent),
            self.agents[agent].name,
            config.ready_timeout,
            config.name
        );
        self.tell(Level::Warn, Kind::NotReady, Some(agent), &text);
        if !self.agents[agent].was_ready {
            self.fail_start_of(agent, &text);
        }
    }

    /// The start fails for an agent: with what it printed last, for of a start that was undone nothing else is left.
    pub(super) fn fail_start_of(&mut self, agent: usize, why: &str) {
        if self.failed_start.is_some() || self.started_once() {
            return;
        }
        let record = &mut self.agents[agent];
        record.capture.flush();
        let lines: Vec<&str> = record.capture.recent().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES_MAX)..];
        let printed = match last {
            [] => "; it printed nothing".to_owned(),
            last => {
                "; it printed last:".to_owned()
                    + &last.iter().map(|line| format!("\n  {} | {line}", record.name)).collect::<String>()
            }
        };
        self.fail_start(format!("{why}{printed}"));
    }

    pub(super) fn fail_start(&mut self, why: String) {
        if self.failed_start.is_none() && !self.started_once() {
            self.failed_start = Some(why);
            self.end_at_once(self.ends.max(Ends::Undone));
        }
    }

    /// An incarnation has mapped its segment: seal it, hand it to its peers, publish its generation.
    pub(super) fn on_mapped(&mut self, of: Incarnation) {
        let many = self.are_many();
        let record = &mut self.agents[of.agent as usize];
        let shape = record.shape.clone();
        let Some(live) = record.life_mut(of.generation).filter(|l| l.sealed.is_none()) else { return };
        let sealed = segment::seal_live(&live.segment)
            .and_then(|()| segment::reopen_read_only(&live.segment))
            .and_then(|fd| Sealed::new(fd, &shape, of));
        match sealed {
            Ok(mut sealed) => {
                if many {
                    sealed.leave();
                }
                live.sealed = Some(sealed);
            }
            Err(error) => {
                live.kill(self.cradle.urgency);
                let text = format!("agent {} is killed: {error}", record.name);
                self.blame(of.agent as usize, &format!("SIGKILL: {error}"));
                self.notice(&text);
                return;
            }
        }
        if !live.begun {
            return self.on_standby_sealed(of);
        }
        self.introduce_everywhere(of);
    }

    /// Makes a sealed incarnation and its peers known to each other; publishes its generation unless it is a standby.
    pub(super) fn introduce_everywhere(&mut self, of: Incarnation) {
        let agent = of.agent as usize;
        let neighbours = self.topology.neighbours(agent);
        let begun = self.agents[agent].life(of.generation).is_some_and(|live| live.begun);
        for &neighbour in &neighbours {
            let reads = self.reads(neighbour, agent);
            let lives = self.agents[neighbour].lives_mut();
            for live in lives.filter(|l| neighbour != agent && l.sealed.is_some()) {
                match begun {
                    true => live.post.add(of, reads),
                    false => live.post.add_ahead(of),
                }
            }
            // Before anybody acts on it.
            self.note_post(neighbour, false);
            self.introduce(of, neighbour);
        }
        if begun {
            self.board.publish_generation(of);
        }
        self.board.announce();
        for neighbour in neighbours {
            self.flush(neighbour);
        }
        self.flush(agent);
    }

    /// Whether an agent reads a lane of another.
    pub(super) fn reads(&self, agent: usize, of: usize) -> bool {
        self.topology.agents[agent].inputs.iter().any(|i| i.producer == of)
    }

    /// Puts what a newcomer shall know of `of` into its post: the undrained dead first, then the living, then standbys.
    pub(super) fn introduce(&mut self, to: Incarnation, of: usize) {
        let reads = self.reads(to.agent as usize, of);
        let graves: Vec<Incarnation> = self.agents[of].graves.iter().map(|g| g.incarnation).collect();
        let sealed = self.agents[of].lives().filter(|l| l.sealed.is_some());
        let (living, ahead): (Vec<_>, Vec<_>) = sealed.map(|l| (l.incarnation, l.begun)).partition(|l| l.1);
        let Some(live) = self.agents[to.agent as usize].life_mut(to.generation) else { return };
        // A standby is handed them when it is promoted.
        if reads && live.begun {
            graves.into_iter().for_each(|grave| live.post.add(grave, true));
        }
        living.into_iter().for_each(|(l, _)| live.post.add(l, reads));
        ahead.into_iter().for_each(|(l, _)| live.post.add_ahead(l));
    }

    /// Sends the next packet of links to an agent's process and standbys; tells it to begin when there are none left.
    pub(super) fn flush(&mut self, agent: usize) {
        let lives: Vec<u32> = self.agents[agent].lives().map(|live| live.incarnation.generation).collect();
        lives.into_iter().for_each(|generation| self.flush_life(agent, generation));
        let begins = |live: &&mut Live| live.begun && live.sealed.is_some() && live.post.is_done();
        let Some(live) = self.agents[agent].live.as_mut().filter(begins) else { return };
        if !std::mem::replace(&mut live.going, true) {
            let told = !live.at_once;
            // Before it begins: a successor must know that it may have done something.
            self.write_agent(agent);
            if told {
                self.tell_to_begin(agent);
            }
        }
        self.note_post(agent, true);
    }

    /// Tells an agent to begin; twice does no harm.
    pub(super) fn tell_to_begin(&mut self, agent: usize) {
        let Some(live) = &self.agents[agent].live else { return };
        let (of, told) = (live.incarnation, wire::tell(&live.control, &ToAgent::Go, &[]));
        let going = self.was_told(of, told);
        if let Some(live) = &mut self.agents[agent].live {
            live.going = going;
        }
    }

    /// Whether a link is of a standby: it counts from when the board names it.
    fn is_ahead(&self, link: &Incarnation) -> bool {
        self.agents[link.agent as usize].life(link.generation).is_some_and(|live| !live.begun)
    }

    fn flush_life(&mut self, agent: usize, generation: u32) {
        let Some(live) = self.agents[agent].life(generation).filter(|l| l.sealed.is_some()) else { return };
        let Some(first) = live.post.pending.front().filter(|_| !live.post.under_way) else { return };
        let ahead = self.is_ahead(first);
        let like = live.post.pending.iter().take_while(|link| self.is_ahead(link) == ahead);
        let batch: Vec<Incarnation> = like.take(LINKS_PER_PACKET).copied().collect();
        let taken = batch.len();
        let handed: Vec<_> = batch
            .into_iter()
            .filter_map(|l| self.agents[l.agent as usize].handles(l).map(|(fd, bell)| (l, fd, bell)))
            .collect();
        let fds: Vec<BorrowedFd<'_>> =
            handed.iter().flat_map(|(_, fd, bell)| [fd.as_fd(), bell.as_fd()]).collect();
        let links = handed.iter().map(|(l, ..)| *l).collect();
        let packet = if ahead { ToAgent::Ahead(links) } else { ToAgent::Links(links) };
        // One packet is under way at most, so the socket is never full; a peer that is gone is heard of elsewhere.
        let (of, sent) = (live.incarnation, wire::tell(&live.control, &packet, &fds));
        if sent.as_ref().is_err_and(is_congested) {
            return self.hand_over_later(Waits::Agent(agent));
        }
        let sent = self.was_told(of, sent);
        if let Some(live) = self.agents[agent].life_mut(generation) {
            live.post.pending.drain(..taken);
            live.post.under_way = sent;
        }
    }
}
