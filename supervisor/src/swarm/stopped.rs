//! Stopped processes: an agent that a signal has stopped (SIGSTOP, a terminal, a debugger) is shown as `suspended`. With a `deadline` it is
//! ended as one that hangs (`hangs.rs`); without one the operator is told, once for each stop, if it is held up in something or holds up
//! messages.
//!
//! With the look for forgotten sleepers (once a second; and at night only of who may wake by itself), each agent is looked at that has done nothing since the last look though it is awake
//! or something waits for it. Only of these is the kernel asked. Who sleeps with nothing to read holds up nobody, stopped or not.

use super::Swarm;
use super::rescue::{Doing, Peek};
use crate::child::State;
use crate::events::Kind;
use crate::log::Level;

impl Swarm {
    /// Whether a signal has stopped the process of an agent that is ready.
    pub fn is_suspended(&self, agent: usize) -> bool {
        self.agents[agent].state == State::Ready && self.doing(agent) == Doing::Stopped
    }

    /// Tells of who is stopped, if that holds up something and nobody will end it: once a stop.
    pub(super) fn tell_of_stops(&mut self, before: &[Option<Peek>], now: &[Option<Peek>], calm: &[bool]) {
        for (agent, now) in now.iter().enumerate() {
            let still = now.filter(|now| before.get(agent).copied().flatten() == Some(*now));
            // Of who is calm it is known that nothing waits: a look would map what it and its producers write.
            let stopped = still
                .filter(|still| !calm[agent] && self.holds_up(agent, *still) && self.is_suspended(agent));
            let told = &mut self.agents[agent].told_of_stop;
            let Some(Peek { generation, .. }) = stopped else {
                // Who goes on does something: the next stop is another one.
                *told = told.filter(|_| still.is_some());
                continue;
            };
            if told.replace(generation) != Some(generation) {
                self.tell_of_stop(agent);
            }
        }
    }

    fn holds_up(&self, agent: usize, still: Peek) -> bool {
        !self.agents[agent].paused
            && !self.is_watched(agent)
            && (!still.is_asleep() || self.is_waited_for(agent))
    }

    fn tell_of_stop(&mut self, agent: usize) {
        let record = &self.agents[agent];
        let (name, generation) = (&record.name, record.generation);
        let pid = record.live.as_ref().map_or(0, |live| live.child.pid);
        let config = &self.file.agents[self.topology.agents[agent].config].name;
        let text = format!(
            "agent {name} (generation {generation}, process {pid}) was stopped by a signal, and messages may wait for it: SIGCONT lets it go \
             on, `shoal restart {name}` starts it anew, and with a `deadline` of [agent.{config}] it would be ended by itself"
        );
        self.tell(Level::Warn, Kind::Notice, Some(agent), &text);
    }
}
