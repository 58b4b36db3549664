//! The start of an incarnation: spawned, sealed, introduced to its peers, told to begin. Or never ready.

use super::{Effect, Swarm};
use crate::agent::Sealed;
use crate::birth;
use crate::child::{Event, State};
use crate::events::Kind;
use crate::log::Level;
use shoal_runtime::board::Status;
use shoal_runtime::wire::{self, LINKS_PER_PACKET, ToAgent};
use shoal_runtime::{Incarnation, segment};
use std::os::fd::{AsFd, BorrowedFd};

impl Swarm {
    pub(super) fn spawn(&mut self, agent: usize) {
        self.reclaim(agent);
        if self.history_is_full(agent) {
            self.feed(agent, Event::HistoryFull);
            return;
        }
        let config = &self.file.agents[self.topology.agents[agent].config];
        let inputs = 0..self.topology.agents[agent].inputs.len();
        let given = inputs.map(|input| self.trials.told(self.reader_of(agent, input))).collect();
        let request = self.work_of(agent);
        let record = &mut self.agents[agent];
        record.generation += 1;
        record.intensity.started(self.started.elapsed());
        let manifest = &mut self.manifests[agent];
        manifest.generation = record.generation;
        manifest.given = given;
        record.capture.begin();
        manifest.owner = self.groups.next_owner();
        self.board.publish_request(agent as u32, request);
        self.board.publish_status(agent as u32, Status::Expected);
        let claims = self.groups.handles(&self.topology, agent);
        match birth::bear(&mut self.cradle, manifest, config, &record.last, &record.last_state, &claims) {
            Ok(live) => {
                if record.generation > 1 {
                    record.restarts += 1;
                }
                let pid = live.child.pid;
                record.live = Some(live);
                self.happened(Kind::Started, agent, &format!("process {pid}"));
                self.effects.push(Effect::Watch(agent));
                self.hear_bell(agent);
                self.feed(agent, Event::Spawned);
            }
            Err(error) => {
                let text = format!(
                    "{}: agent {} ({:?}) cannot be started: {error}",
                    self.place_of(agent),
                    self.agents[agent].name,
                    config.command.first().map_or("", String::as_str)
                );
                self.agents[agent].last_ending = Some(format!("cannot be started: {error}"));
                self.tell(Level::Error, Kind::NotStarted, Some(agent), &text);
                self.feed(agent, Event::SpawnFailed);
            }
        }
    }

    /// Whether every agent was ready once: from then on a failing agent does not end the swarm.
    pub fn started_once(&self) -> bool {
        self.agents.iter().all(|a| a.was_ready || a.state == State::Ended)
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
            self.fail_start(text);
        }
    }

    pub(super) fn fail_start(&mut self, why: String) {
        if self.failed_start.is_none() && !self.started_once() {
            self.failed_start = Some(why);
            self.kill_all();
        }
    }

    /// The agent has mapped its segment: seal it, hand it to its peers, publish its generation.
    pub(super) fn on_mapped(&mut self, agent: usize) {
        let record = &mut self.agents[agent];
        let Some(live) = record.live.as_mut().filter(|l| l.sealed.is_none()) else { return };
        let sealed = segment::seal_live(&live.segment)
            .and_then(|()| segment::reopen_read_only(&live.segment))
            .and_then(|fd| {
                Ok(Sealed { view: segment::view(&fd, &record.shape, live.incarnation)?, read_only: fd })
            });
        match sealed {
            Ok(sealed) => live.sealed = Some(sealed),
            Err(error) => {
                live.kill();
                let text = format!("agent {} is killed: {error}", self.agents[agent].name);
                self.blame(agent, &format!("SIGKILL: {error}"));
                self.notice(&text);
                return;
            }
        }
        let incarnation = live.incarnation;
        for neighbour in self.topology.neighbours(agent) {
            if neighbour != agent {
                self.introduce(neighbour, agent);
            }
            self.introduce(agent, neighbour);
        }
        self.board.publish_generation(incarnation);
        self.board.announce();
        for neighbour in self.topology.neighbours(agent) {
            self.flush(neighbour);
        }
        self.flush(agent);
    }

    /// Puts what `to` shall know of `of` into its post: the undrained dead first, then the living.
    pub(super) fn introduce(&mut self, to: usize, of: usize) {
        let reads = self.topology.agents[to].inputs.iter().any(|i| i.producer == of);
        let fresh = self.agents[to].live.as_ref().is_some_and(|l| !l.going);
        let graves: Vec<Incarnation> = self.agents[of].graves.iter().map(|g| g.incarnation).collect();
        let living = self.agents[of].live.as_ref().filter(|l| l.sealed.is_some()).map(|l| l.incarnation);
        let Some(live) = &mut self.agents[to].live else { return };
        if live.sealed.is_none() {
            // It will be introduced to everybody once it is sealed itself.
            return;
        }
        if reads && fresh {
            graves
                .into_iter()
                .filter(|g| !live.post.pending.contains(g))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|g| live.post.add(g, true));
        }
        living.into_iter().for_each(|l| live.post.add(l, reads));
    }

    /// Sends the next packet of links to an agent; tells it to begin when there are none left.
    pub(super) fn flush(&mut self, agent: usize) {
        let Some(live) = self.agents[agent].live.as_ref().filter(|l| l.sealed.is_some()) else { return };
        if !live.post.under_way && !live.post.pending.is_empty() {
            let batch: Vec<Incarnation> = live.post.pending.iter().take(LINKS_PER_PACKET).copied().collect();
            let taken = batch.len();
            let handed: Vec<_> = batch
                .into_iter()
                .filter_map(|l| self.agents[l.agent as usize].handles(l).map(|(fd, bell)| (l, fd, bell)))
                .collect();
            let fds: Vec<BorrowedFd<'_>> =
                handed.iter().flat_map(|(_, fd, bell)| [fd.as_fd(), bell.as_fd()]).collect();
            let links = handed.iter().map(|(l, ..)| *l).collect();
            // One packet is under way at most, so the socket is never full; a peer that is gone is heard of elsewhere.
            let sent = wire::tell(&live.control, &ToAgent::Links(links), &fds);
            if let Some(live) = &mut self.agents[agent].live {
                live.post.pending.drain(..taken);
                live.post.under_way = sent.is_ok();
            }
        }
        if let Some(live) = self.agents[agent].live.as_mut().filter(|l| !l.going && l.post.is_done()) {
            live.going = wire::tell(&live.control, &ToAgent::Go, &[]).is_ok();
        }
    }
}
