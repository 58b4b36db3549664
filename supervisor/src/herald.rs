//! The herald, a companion of the event loop: tells whoever started the supervisor how the swarm is. The process that
//! `up -d` left waiting is told once, that all agents are ready; a service manager that asked for it (`NOTIFY_SOCKET`) is told
//! that, what the agents do, that the loop turns, and that the swarm is being ended.

use crate::child::State;
use crate::event_loop::{Companion, Watch};
use crate::log::{self, LastWords};
use crate::notify::Service;
use crate::output::Echo;
use crate::swarm::Swarm;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// What `up -d` is told when all agents are ready; anything else is why they will not be.
pub const READY: &str = "ready\n";

/// By this name a successor is left whether it was said that all is ready.
const KEPT: &str = "herald";
/// Between two words about the agents to a service manager, at least.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How a supervisor runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// In a shell or under a service manager: agents' lines are shown on standard output.
    Foreground,
    /// The same for a program: all that is printed is a JSON object a line.
    Json,
    /// In a session of its own, started by `up -d`: standard output is a pipe to that, standard error a log.
    Daemon,
}

impl Manner {
    /// By the options of `run`.
    pub fn of(daemon: bool, json: bool) -> Manner {
        match (daemon, json) {
            (true, _) => Manner::Daemon,
            (false, true) => Manner::Json,
            (false, false) => Manner::Foreground,
        }
    }

    /// Where lines of a swarm's agents are shown: in the background only their log files have them.
    pub fn echo(self, swarm: &str) -> Echo {
        match self {
            Manner::Foreground => Echo::to_stdout().unwrap_or_default(),
            Manner::Json => Echo::to_stdout().unwrap_or_default().in_objects(swarm),
            Manner::Daemon => Echo::off(),
        }
    }

    /// By what the operator is told a line: a log in the background must not grow for ever.
    pub fn voice(self) -> fn(&str) {
        match self {
            Manner::Foreground | Manner::Json => log::say,
            Manner::Daemon => log::say_bounded,
        }
    }

    /// How it is told why a swarm ends.
    pub fn last_words(self, swarm: &str) -> LastWords<'_> {
        LastWords {
            for_program: (self == Manner::Json).then_some(swarm),
            in_background: self == Manner::Daemon,
        }
    }

    /// What the operator is told in words.
    pub fn for_people(self, text: &str) -> String {
        log::for_people(text, self == Manner::Daemon)
    }

    /// Leaves the terminal's session, if this is a daemon. Refused only to who leads a group already: then there is nothing to
    /// leave.
    pub fn begin(self) {
        if self == Manner::Daemon {
            let _ = rustix::process::setsid();
        }
    }
}

/// Tells who started us.
pub struct Herald {
    manner: Manner,
    service: Option<Service>,
    said_ready: bool,
    said_stopping: bool,
    status: String,
    status_due: Instant,
    ping_due: Option<Instant>,
}

impl Herald {
    /// One that has said nothing yet; a service manager is the one that the environment names.
    pub fn new(manner: Manner) -> Herald {
        let service = Service::of_environment();
        let now = Instant::now();
        let ping_due = service.as_ref().and_then(Service::ping_every).map(|_| now);
        Herald {
            manner,
            service,
            said_ready: false,
            said_stopping: false,
            status: String::new(),
            status_due: now,
            ping_due,
        }
    }

    fn say_ready(&mut self) {
        self.said_ready = true;
        if self.manner == Manner::Daemon {
            // Who asked may have been interrupted: the swarm runs nevertheless.
            let mut out = io::stdout();
            let _ = out.write_all(READY.as_bytes()).and_then(|()| out.flush());
            // Its end of the pipe goes with it.
            let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
        }
        self.tell("READY=1");
    }

    fn tell(&self, text: &str) {
        if let Some(service) = &self.service {
            service.tell(text);
        }
    }

    fn tell_status(&mut self, swarm: &Swarm, now: Instant) {
        // What a predecessor has told stands until all agents are remembered, in turns.
        if self.service.is_none() || now < self.status_due || swarm.agents.any_put_off() {
            return;
        }
        let status = status(swarm);
        if status != self.status {
            self.tell(&format!("STATUS={status}"));
            self.status = status;
            self.status_due = now + STATUS_EVERY;
        }
    }
}

/// The agents in a line: `5 agents ready, 1 failed`.
fn status(swarm: &Swarm) -> String {
    let shown = (0..swarm.agents.len()).filter(|&agent| swarm.is_shown(agent));
    let states: Vec<State> = shown.map(|agent| swarm.agents[agent].state).collect();
    line(&states, swarm.is_ending())
}

fn line(states: &[State], ending: bool) -> String {
    let mut text = if ending { "stopping: ".to_owned() } else { String::new() };
    let ready = states.iter().filter(|state| **state == State::Ready).count();
    text += &format!("{ready} of {} agents ready", states.len());
    for word in ["starting", "stopping", "backoff", "stopped", "failed"] {
        let count = states.iter().filter(|state| state.shown() == word).count();
        if count > 0 {
            text += &format!(", {count} {word}");
        }
    }
    text
}

impl Companion for Herald {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.ping_due
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        let every = self.service.as_ref().and_then(Service::ping_every);
        let (None, Some(every)) = (ready, every) else { return };
        let now = Instant::now();
        self.tell("WATCHDOG=1");
        self.ping_due = Some(now + every);
        self.tell_status(swarm, now);
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        // A predecessor may have said it.
        self.said_ready = self.said_ready || swarm.kept_for(KEPT) == Some(&[1]);
        if !self.said_ready && !swarm.is_ending() && swarm.started_once() {
            self.say_ready();
            swarm.keep_for(KEPT, vec![1]);
        }
        if !self.said_stopping && swarm.is_ending() {
            self.said_stopping = true;
            self.tell("STOPPING=1");
        }
        if self.service.is_some() {
            self.tell_status(swarm, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Next;

    #[test]
    fn status_counts_agents_by_what_they_do() {
        assert_eq!(line(&[State::Ready, State::Ready], false), "2 of 2 agents ready");
        let states = [State::Ready, State::Failed, State::Backoff, State::Draining, State::Ended];
        assert_eq!(line(&states, false), "1 of 5 agents ready, 2 backoff, 1 stopped, 1 failed");
        assert_eq!(line(&[State::Stopping(Next::Rest)], true), "stopping: 0 of 1 agents ready, 1 stopping");
    }
}
