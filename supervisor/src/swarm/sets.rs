//! Sets of agents that are restarted together: does what `strategy.rs` orders, and tells the operator.

use super::{Effect, Swarm, Timer};
use crate::child::{Event, State};
use crate::counted::counted;
use crate::events::Kind;
use crate::log::Level;
use crate::restart::Decision;
use crate::strategy::{Course, Order};
use std::time::Instant;

impl Swarm {
    /// An agent died and its policy wants it back: after a pause, with those that fall with it, or not at all.
    pub(super) fn spawn_after(&mut self, agent: usize, counted: bool) {
        let now = self.started.elapsed();
        let goes_back = self.goes_back(agent);
        let counted = counted && !goes_back;
        let decision = self.agents[agent].intensity.died(now, !counted);
        // A start that never was is undone as a whole; a swarm that ends begins nothing anew.
        let first = !self.agents[agent].was_ready || self.is_awaited(agent);
        let course = match decision {
            Decision::GiveUp if first || self.is_ending() => Course::Fails,
            Decision::Now if self.is_ending() => Course::Now,
            Decision::After(pause) if self.is_ending() => Course::After(pause),
            decision => self.supervision.died(agent, decision, now),
        };
        let why = self.tell_course(agent, &course);
        let why = why.or_else(|| {
            goes_back.then(|| "it goes back to the command that it had before an upgrade".to_owned())
        });
        self.note_decision(agent, counted, &course, why);
        match course {
            Course::Now => self.feed(agent, Event::BackoffOver),
            Course::After(pause) => self.arm(Instant::now() + pause, agent, Timer::Backoff),
            Course::Together(_) | Course::SetFails { .. } => self.feed(agent, Event::SetAside),
            Course::Restarts { processes, .. } => {
                processes.into_iter().for_each(|process| self.agents[process].intensity.forget());
                self.feed(agent, Event::SetAside);
            }
            Course::Fails => self.feed(agent, Event::GaveUp),
            Course::SwarmEnds { given_up } => {
                self.escalated = Some(self.chain(agent, &given_up));
                self.feed(agent, Event::GaveUp);
                self.shut_down();
            }
        }
    }

    fn tell_course(&mut self, agent: usize, course: &Course) -> Option<String> {
        let set_name = |set: usize| self.supervision.sets.all()[set].name.as_str();
        let text = match course {
            Course::Together(along) if !along.is_empty() => self.along(agent, along),
            Course::Restarts { set, given_up, .. } => {
                format!("{}: set {} restarts as a whole", self.chain(agent, given_up), set_name(*set))
            }
            Course::SetFails { set, given_up } => {
                let chain = self.chain(agent, given_up);
                format!("{chain}: set {} is given up, with all that is in it", set_name(*set))
            }
            Course::SwarmEnds { given_up } => format!("{}: the swarm ends", self.chain(agent, given_up)),
            Course::Now | Course::After(_) | Course::Together(_) | Course::Fails => return None,
        };
        self.tell(Level::Warn, Kind::Set, Some(agent), &text);
        Some(text)
    }

    /// Who falls with an agent, in words.
    fn along(&self, agent: usize, along: &[usize]) -> String {
        let own = self.topology.agents[agent].config;
        let names = along.iter().filter(|&&a| a != own).map(|&a| self.file.agents[a].name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let set = self.supervision.set_of(agent).map(|set| &self.supervision.sets.all()[set]);
        let set = set.map_or(String::new(), |set| format!("set {}, {}", set.name, set.strategy.word()));
        let who = if names.is_empty() { "its replicas".into() } else { names };
        format!(
            "agent {} died, {who} fall with it: they start again together ({set})",
            self.agents[agent].name
        )
    }

    /// Who was given up, and what for, in words.
    fn chain(&self, agent: usize, given_up: &[usize]) -> String {
        let config = &self.file.agents[self.topology.agents[agent].config];
        let how = self.agents[agent].last_ending.as_deref().unwrap_or("is gone");
        let (count, period) = (config.restart.intensity, config.restart.period);
        let mut text = format!(
            "agent {} died more than {} within {period:?} of its life (the last: it {how})",
            self.agents[agent].name,
            counted(count, "time")
        );
        for &set in given_up {
            let set = &self.supervision.sets.all()[set];
            let (count, period) = (set.restart.intensity, set.restart.period);
            text += &format!(
                ", set {} would be restarted for that more than {} within {period:?}",
                set.name,
                counted(count, "time")
            );
        }
        text
    }

    /// The set with which an agent was given up, if it was.
    pub(super) fn given_up_with(&self, agent: usize) -> Option<&str> {
        let set = self.supervision.set_of(agent)?;
        self.supervision.given_up[set].then(|| self.supervision.sets.all()[set].name.as_str())
    }

    /// Goes on with the restarts of sets that are under way. Called after every batch of events.
    pub(super) fn advance_sets(&mut self) {
        if self.is_ending() {
            return self.leave_sets();
        }
        loop {
            let now = self.started.elapsed();
            let orders = self.supervision.step(|process| self.agents[process].state, now);
            if orders.is_empty() {
                let until = self.supervision.waits_until(now);
                if until != self.set_timer {
                    self.set_timer = until;
                    let arm = until.map(|at| Effect::Arm(self.started + at, 0, Timer::Set, 0));
                    self.effects.extend(arm);
                }
                return;
            }
            // Before anybody is asked: whoever is set aside is brought back by whom knows of it.
            self.write_swarm();
            for order in orders {
                match order {
                    Order::SetAside(process) => {
                        self.blame(process, "its set, whose members start again together");
                        self.order(process, Event::SetAside);
                    }
                    Order::Recall(process) => self.feed(process, Event::Recalled),
                    Order::GiveUp(process) => self.feed(process, Event::GaveUp),
                    Order::Begins(_) => {}
                }
            }
        }
    }

    /// The swarm ends, and with it every restart of a set: who waits for its turn comes back if it has messages to read.
    fn leave_sets(&mut self) {
        self.supervision.cancel();
        for agent in 0..self.agents.len() {
            if self.agents[agent].state == State::Aside {
                let returns = !self.is_killed() && self.has_to_read(agent);
                self.feed(agent, if returns { Event::Recalled } else { Event::StopAsked });
            }
        }
    }
}
