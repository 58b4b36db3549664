//! What agents say and print, and what they are asked.

use super::{Effect, Ends, Swarm, live_of};
use crate::agent::Remains;
use crate::child::Event;
use crate::config::Trust;
use crate::events::Kind;
use crate::log::Level;
use crate::output::{Drained, Stream};
use crate::{death, spawn};
use shoal_runtime::board::{Request, VerdictKind};
use shoal_runtime::wire::{self, FromAgent, Received, ToAgent};
use shoal_runtime::{Incarnation, clock};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// How many packets of one agent are heard before the others have their turn.
pub(super) const PACKETS_AT_ONCE: usize = 64;
/// More than a socket holds.
const PACKETS_LEFT_MAX: usize = 4096;

/// What a control socket may bring besides.
enum Heard {
    /// More.
    Open,
    /// Nothing: the other end is closed.
    Closed,
    /// Nothing of whom it was heard.
    NoMore,
}

impl Swarm {
    /// Reads what an agent said; who says more than a piece at once is heard on when the others were.
    pub fn on_control(&mut self, agent: usize) {
        let heard = self.hear(agent, PACKETS_AT_ONCE);
        let Some(live) = &self.agents[agent].live else { return };
        match heard {
            Heard::Open => self.effects.push(Effect::HearOn(live.incarnation)),
            // All that it said is heard. That it is dead is told through its pidfd, too, a little later.
            Heard::Closed if live.dead_since.is_none() && live.child.is_dead() => self.on_death(agent),
            Heard::Closed | Heard::NoMore => {}
        }
    }

    /// Reads what a dead agent said last: nobody adds to it any more, but perhaps children that it left.
    pub fn hear_last(&mut self, agent: usize) {
        self.hear(agent, PACKETS_LEFT_MAX);
    }

    /// Reads so many packets of an agent.
    fn hear(&mut self, agent: usize, packets: usize) -> Heard {
        for _ in 0..packets {
            let Some(live) = &self.agents[agent].live else { return Heard::NoMore };
            match wire::overhear(&live.control) {
                Ok(Received::Packet((message, number), along)) => {
                    if let Some(live) = &mut self.agents[agent].live {
                        live.asked = number;
                    }
                    self.on_said(agent, message, &along);
                    // Only when what follows from it is written down: a successor would hear it again.
                    self.write_journal();
                    let dropped =
                        self.agents[agent].live.as_ref().map(|l| (l.incarnation, wire::drop_one(&l.control)));
                    if let Some((of, Err(error))) = dropped {
                        // It would be heard again.
                        self.end_unheard(of, &format!("what it said cannot be taken: {error}"));
                        return Heard::NoMore;
                    }
                }
                // An adopted process leaves by this and may live on.
                Ok(Received::Closed) if live.child.adopted && live.dead_since.is_none() => {
                    self.on_death(agent);
                    return Heard::NoMore;
                }
                // Asked for anew, an edge is told also when the kernel had only said so for want of something.
                Ok(Received::Nothing) => return Heard::Open,
                Ok(Received::Closed) => return Heard::Closed,
                Err(error) => {
                    let of = live.incarnation;
                    self.remove(
                        of,
                        clock::now_ns(),
                        &format!("because what it said cannot be read: {error}"),
                    );
                    let text = format!("agent {} is killed: {error}", self.agents[agent].name);
                    self.notice(&text);
                    return Heard::NoMore;
                }
            }
        }
        Heard::Open
    }

    /// Descriptors that nobody asked for are closed.
    pub(super) fn on_said(&mut self, agent: usize, message: FromAgent, along: &[OwnedFd]) {
        match message {
            FromAgent::Mapped => {
                let of = live_of(&self.agents[agent]).incarnation;
                self.on_mapped(of);
            }
            FromAgent::Begun => self.on_begun(agent),
            FromAgent::LinksTaken => {
                if let Some(live) = &mut self.agents[agent].live {
                    live.post.under_way = false;
                }
                self.flush(agent);
            }
            FromAgent::Declare { channel, publishes, fingerprint } => {
                self.on_declared(agent, channel, publishes, fingerprint);
            }
            FromAgent::Ready => self.feed(agent, Event::Ready),
            FromAgent::Fault { of, seen_ns } => self.on_accused(agent, of, seen_ns),
            FromAgent::Failed { input, at, attempt, why } => {
                self.on_failed(agent, input, at, attempt, &why);
            }
            FromAgent::Park(park) => self.on_park(agent, &park, along),
            FromAgent::Closed => self.ring_group_of(agent),
            // It is none of these any more.
            FromAgent::Forks | FromAgent::Forked | FromAgent::Unfit { .. } => {}
        }
    }

    pub(super) fn on_declared(&mut self, agent: usize, channel: u32, publishes: bool, fingerprint: u64) {
        let answer = self.check_declared(agent, channel, publishes, fingerprint);
        if let ToAgent::Refused(text) = &answer {
            let text = format!("agent {}: {text}", self.agents[agent].name);
            self.notice(&text);
        }
        self.answer(agent, &answer);
    }

    /// Answers what an agent asked.
    pub(super) fn answer(&mut self, agent: usize, answer: &ToAgent) {
        let Some(live) = &self.agents[agent].live else { return };
        let (of, told) = (live.incarnation, wire::answer(&live.control, answer, live.asked));
        self.was_told(of, told);
    }

    /// Whether an incarnation was told something. One that could not be is ended, and started again: it would wait for ever. One that
    /// is gone is heard of elsewhere.
    pub(super) fn was_told(&mut self, of: Incarnation, told: io::Result<()>) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
        match &told {
            Err(error) if ![BrokenPipe, ConnectionReset, NotConnected].contains(&error.kind()) => {
                self.end_unheard(of, &format!("it cannot be told what it waits for: {error}"));
            }
            _ => {}
        }
        told.is_ok()
    }

    /// Ends an incarnation with which it is impossible to speak.
    fn end_unheard(&mut self, of: Incarnation, why: &str) {
        let record = &self.agents[of.agent as usize];
        let Some(live) = record.life(of.generation) else { return };
        live.kill(self.cradle.urgency);
        let text = format!("agent {} (generation {}) is killed: {why}", record.name, of.generation);
        self.notice(&text);
        if self.agents[of.agent as usize].generation == of.generation {
            self.blame(of.agent as usize, &format!("SIGKILL: {why}"));
        }
    }

    pub(super) fn check_declared(
        &self,
        agent: usize,
        channel: u32,
        publishes: bool,
        fingerprint: u64,
    ) -> ToAgent {
        let instance = &self.topology.agents[agent];
        let index = channel as usize;
        let allowed = if publishes {
            instance.lanes.iter().any(|l| l.channel == index)
        } else {
            instance.inputs.iter().any(|i| i.channel == index)
        };
        if !allowed || fingerprint == 0 {
            return ToAgent::Refused(format!(
                "channel {channel} is not one that this agent {}",
                if publishes { "publishes" } else { "subscribes" }
            ));
        }
        let known = self.board.view().fingerprint(channel);
        if known == 0 {
            self.board.declare(channel, fingerprint);
        } else if known != fingerprint {
            let channel = &self.topology.channels[index];
            return ToAgent::Refused(format!(
                "channel {:?} carries {:?} of fingerprint {known:016x}, as another agent declared first, but this agent was built with \
                 fingerprint {fingerprint:016x}: build both with the same definition of {:?}, or give them channels of their own \
                 ({}:{})",
                channel.name,
                channel.message,
                channel.message,
                self.file.path.display(),
                channel.line
            ));
        }
        ToAgent::Declared
    }

    pub(super) fn on_accused(&mut self, agent: usize, accused: Incarnation, seen_ns: u64) {
        self.accusations += 1;
        let known = self.topology.neighbours(agent).contains(&(accused.agent as usize));
        let Some(other) = self.agents.get(accused.agent as usize).filter(|_| known) else { return };
        let text = format!(
            "agent {} accuses {} (generation {}) of impossible words",
            self.agents[agent].name, other.name, accused.generation
        );
        // What fixed-size words show decides: an accusation alone proves nothing, but by who is trusted more.
        let living = other.live.as_ref().filter(|l| l.incarnation == accused).is_some();
        let culprit = accused.agent as usize;
        let believed = self.trust_of(agent) > self.trust_of(culprit);
        let contradicts = living && self.contradicts_itself(culprit);
        self.tell(Level::Warn, Kind::Accusation, Some(agent), &text);
        if living && (believed || contradicts) {
            let name = &self.agents[culprit].name;
            let (text, why) = match contradicts {
                true => (
                    format!("agent {name} contradicts itself and is killed"),
                    "because its own words contradict each other",
                ),
                false => (
                    format!("agent {name} is trusted less than who accuses it and is killed"),
                    "because an agent that is trusted more accused it",
                ),
            };
            self.remove(accused, seen_ns, why);
            self.tell(Level::Warn, Kind::Accusation, Some(culprit), &text);
        }
    }

    /// How far an agent is trusted.
    fn trust_of(&self, agent: usize) -> Trust {
        self.file.agents[self.topology.agents[agent].config].confinement.trust
    }

    /// Whether an agent's own words are impossible.
    pub(super) fn contradicts_itself(&self, agent: usize) -> bool {
        let Some(view) = self.agents[agent].view() else { return false };
        let (lanes, inputs) = self.bounds(agent);
        let record = &self.agents[agent];
        death::verdict(record.generation, Some((view, &record.shape)), &lanes, &inputs).kind
            == VerdictKind::Corrupt
    }

    /// Reads what an agent printed.
    pub fn on_output(&mut self, agent: usize, pipe: usize) {
        let generation = self.agents[agent].live.as_ref().map(|live| live.incarnation.generation);
        if let Some(generation) = generation {
            self.read_output(agent, generation, pipe);
        }
    }

    /// Reads what one of its processes printed.
    pub(super) fn read_output(&mut self, agent: usize, generation: u32, pipe: usize) {
        let record = &mut self.agents[agent];
        let mut lives = record.live.iter_mut().chain(&mut record.spares);
        let Some(live) = lives.find(|live| live.incarnation.generation == generation) else { return };
        let Some(fd) = &live.pipes[pipe] else { return };
        let stream = if pipe == 0 { Stream::Out } else { Stream::Err };
        match record.capture.on_readable(fd.as_fd(), stream) {
            Ok(Drained::Open) => {}
            Ok(Drained::Closed) | Err(_) => {
                let ended = live.pipes[pipe].take();
                self.remains.extend(ended.map(Remains::Pipe));
                self.touch(agent);
            }
        }
        if let Some(text) = self.agents[agent].capture.take_log_fault() {
            self.remark(Level::Warn, &text);
        }
    }

    pub(super) fn ask_to_stop(&mut self, agent: usize) {
        let request = if self.ends == Ends::No { Request::Stop } else { Request::Drain };
        self.board.publish_request(agent as u32, request);
        self.board.announce();
        if self.ends != Ends::No {
            self.blame(agent, "the end of the swarm");
        }
        if let Some(live) = &self.agents[agent].live {
            live.doorbell.ring();
            if live.sealed.is_none() {
                // It does not speak with us (yet): the shell's way.
                spawn::signal(&live.child, libc::SIGTERM);
            }
        }
    }
}
