//! What happens to an agent is applied to the state table, and what the table says is done.

use super::{DRAIN_RETRY, Effect, Swarm, Timer, hangs};
use crate::child::{self, Action, Event, State};
use crate::events::Kind;
use crate::hooks::Occasion;
use crate::spawn;
use shoal_runtime::{Incarnation, clock};
use std::time::Instant;

impl Swarm {
    /// Sends SIGKILL to an agent's whole tree, marked as ordered. False when it does not run.
    pub fn kill(&mut self, agent: usize) -> bool {
        let Some(live) = &mut self.agents[agent].live else { return false };
        live.ordered = true;
        live.killed_ns.get_or_insert_with(clock::now_ns);
        live.by.get_or_insert_with(|| "an order to kill".to_owned());
        self.note_death(agent);
        // Before it is done: a successor that finds the agent dead must not count this against it.
        self.write_agent(agent);
        self.feed(agent, Event::KillAsked);
        true
    }

    /// Sends an agent's process a signal, by its number. What comes of it counts as the agent's own doing. False when it does not run.
    pub fn signal(&mut self, agent: usize, number: i32) -> bool {
        let Some(live) = &self.agents[agent].live else { return false };
        spawn::signal(&live.child, number);
        true
    }

    /// An order, of an operator or of its set: a death that it causes does not count against the agent.
    pub fn order(&mut self, agent: usize, event: Event) {
        if let Some(live) = &mut self.agents[agent].live {
            live.ordered = true;
            self.write_agent(agent);
        }
        self.waiting.retain(|&waiting| waiting != agent);
        self.feed(agent, event);
    }

    /// Feeds the state table and does what it says.
    pub fn feed(&mut self, agent: usize, event: Event) {
        let config = self.topology.agents[agent].config;
        let event = self.call_back(agent, event);
        let policy = self.policy_of(agent);
        self.touch(agent);
        let before = self.agents[agent].state;
        let (state, action) = child::next(before, event, policy);
        if state != before {
            self.agents[agent].state = state;
            self.agents[agent].state_serial += 1;
            self.happened(Kind::State, agent, &format!("{} → {}", before.name(), state.name()));
            if state.is_at_rest() || state == State::Stopping(child::Next::Rest) {
                self.dismiss_spares(agent);
            }
            if state.is_at_rest() {
                self.release_zygote(config);
            }
        }
        if matches!(event, Event::StartAsked | Event::RestartAsked) {
            self.agents[agent].intensity.forget();
            self.supervision.forgive(agent, self.started.elapsed());
        }
        let itself = self.agents[agent].stand_in.is_none();
        if state != before && itself && matches!(state, State::Stopped | State::Ended) {
            let reason = if state == State::Stopped { "stopped" } else { "ended by its policy" };
            self.tell_hooks(agent, Occasion::Stopped, reason);
        }
        if event == Event::Ready && state == State::Ready {
            self.tell_hooks(agent, Occasion::Ready, "said ready");
            self.agents[agent].was_ready = true;
            let of = Incarnation { agent: agent as u32, generation: self.agents[agent].generation };
            self.settle_urgency(of);
            self.watch_on();
            self.start_due();
            self.refill(agent);
            self.tend(config);
        }
        self.act(agent, action, event);
    }

    pub(super) fn act(&mut self, agent: usize, action: Action, event: Event) {
        if matches!(action, Action::GiveUp | Action::MarkEnded) && self.ends_standing_in(agent) {
            return;
        }
        let config = &self.file.agents[self.topology.agents[agent].config];
        let now = Instant::now();
        match action {
            Action::None => {}
            Action::AwaitReady => self.arm(now + config.ready_timeout, agent, Timer::Ready),
            Action::Spawn => self.spawn(agent),
            Action::SpawnAfter { counted } => self.spawn_after(agent, counted),
            Action::AskToStop => {
                self.arm(now + config.stop_timeout, agent, Timer::Stop);
                // Before it is asked: a successor that finds it at its end must know that it was, and what follows.
                self.write_agent(agent);
                self.ask_to_stop(agent);
            }
            Action::Abort => {
                let grace = hangs::grace(config.deadline);
                if let Some(live) = &self.agents[agent].live {
                    self.cradle.urgency.hurry(&live.child);
                    spawn::signal(&live.child, libc::SIGABRT);
                }
                self.arm(now + grace, agent, Timer::Stop);
            }
            Action::KillTree => {
                match event {
                    Event::StopTimedOut => self.blame(agent, "SIGKILL because it did not end in time"),
                    Event::ReadyTimedOut => self.blame(agent, "SIGKILL because it was not ready in time"),
                    _ => {}
                }
                if let Some(live) = &self.agents[agent].live {
                    live.kill(self.cradle.urgency);
                }
                if event == Event::ReadyTimedOut {
                    self.never_ready(agent);
                }
            }
            Action::GiveUp => self.give_up(agent),
            Action::MarkEnded => {
                self.go(agent);
                self.start_due();
                if matches!(event, Event::Exited { normal: true, .. }) {
                    self.ended_well(agent);
                }
            }
        }
        // What the history was full of may have been drained since.
        if self.agents[agent].state == State::Draining {
            self.arm(now + DRAIN_RETRY, agent, Timer::Drain);
        }
    }

    pub(super) fn arm(&mut self, at: Instant, agent: usize, timer: Timer) {
        let serial = self.agents[agent].state_serial;
        if matches!(timer, Timer::Ready | Timer::Stop | Timer::Backoff) {
            self.agents[agent].timer = Some((timer, at, serial));
        }
        self.effects.push(Effect::Arm(at, agent, timer, serial));
    }

    /// Whether a timer that was armed in a state (by its serial number) still means something.
    pub fn awaits(&self, agent: usize, timer: Timer, serial: u64) -> bool {
        !timer.is_of_a_state() || self.agents[agent].state_serial == serial
    }

    /// A timer that was armed, and is awaited.
    pub fn on_timer(&mut self, agent: usize, timer: Timer) {
        if timer == Timer::Zygote {
            return self.tend(agent);
        }
        self.touch(agent);
        match timer {
            Timer::Ready => self.feed(agent, Event::ReadyTimedOut),
            Timer::Stop => self.feed(agent, Event::StopTimedOut),
            Timer::Backoff => self.feed(agent, Event::BackoffOver),
            Timer::Proof => {
                if self.agents[agent].live.as_ref().is_some_and(|l| l.dead_since.is_some()) {
                    self.on_death(agent);
                }
            }
            Timer::Stage => self.on_stage_over(agent),
            Timer::Rescue => self.on_look(),
            Timer::Hang => self.look_for_hangs(),
            // The sets go on after every batch of events.
            Timer::Set => {}
            Timer::Standby => self.refill(agent),
            Timer::Zygote => {}
            Timer::Reload => {
                self.go_on_reloading();
                self.go_on_upgrading();
            }
            Timer::HandOver => self.try_handing_over(),
            Timer::Drain => {
                self.reclaim(agent);
                if self.history_is_full(agent) {
                    self.arm(Instant::now() + DRAIN_RETRY, agent, Timer::Drain);
                } else if !self.awaits_descriptors(agent) && !self.awaits_fork(agent) {
                    self.feed(agent, Event::HistoryFreed);
                }
            }
        }
    }
}
