//! Lifecycle hooks, a companion of the event loop: commands of the swarm file that are run when something happens to an agent.
//!
//! ```text
//!   swarm ── Happening ──► queue (bounded) ──► at most `at_once` processes ──► hook.NAME.log
//!                                              each in a group of its own, killed at its time-out
//! ```
//! Nothing waits for a hook: the swarm notes what happened and goes on. What is queued or runs when the swarm is over is still
//! let to its end, each for its time-out; a swarm that somebody has killed takes its hooks along. What is queued or runs when the supervisor dies is
//! run by its successor, from the beginning.
//!
//! A hook is executed by this very binary (`wear`), which first asks the kernel for its own death with the supervisor's: so a hook ends
//! with the swarm, however that ends.

use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::output::{Capture, Echo};
use crate::swarm::Swarm;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

mod run;

use run::Run;
pub use run::{NAME, wear};

/// The token of the hooks' own epoll.
const TOKEN: u64 = 7;
/// How many happenings may wait for their hooks; more are dropped, counted and told.
pub const QUEUE_MAX: usize = 256;
/// By this name a successor is left what the hooks that run are run for.
const KEPT: &str = "hooks";
/// How long a hook may run if the file says nothing.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How many hooks run at once if the file says nothing.
pub const AT_ONCE_DEFAULT: u32 = 4;

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Occasion {
    /// An incarnation's process was made.
    Started,
    /// It said ready.
    Ready,
    /// It died, and nobody had ordered that.
    Crash,
    /// Its agent was given up.
    GiveUp,
    /// Its agent is at rest: stopped, or ended by its policy.
    Stopped,
}

impl Occasion {
    /// All occasions, in the order of the documentation.
    pub const ALL: [Occasion; 5] =
        [Occasion::Started, Occasion::Ready, Occasion::Crash, Occasion::GiveUp, Occasion::Stopped];

    /// The key of the swarm file, and the value of `SHOAL_HOOK`.
    pub fn word(self) -> &'static str {
        match self {
            Occasion::Started => "started",
            Occasion::Ready => "ready",
            Occasion::Crash => "crash",
            Occasion::GiveUp => "give_up",
            Occasion::Stopped => "stopped",
        }
    }
}

/// Something that a hook is told of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Happening {
    /// What kind of thing.
    pub occasion: Occasion,
    /// To which agent, with the replica.
    pub agent: String,
    /// In which of its lives.
    pub generation: u32,
    /// Why, in words.
    pub reason: String,
}

/// What happened and was not looked at yet. Nothing is noted that no hook is for.
#[derive(Clone, Debug, Default)]
pub struct Happenings {
    wanted: Vec<Occasion>,
    waiting: VecDeque<Happening>,
    dropped: u64,
}

impl Happenings {
    /// For the hooks of a file.
    pub fn of(hooks: &config::Hooks) -> Happenings {
        let wanted = Occasion::ALL.into_iter().filter(|occasion| hooks.command(*occasion).is_some());
        Happenings { wanted: wanted.collect(), ..Happenings::default() }
    }

    /// Whether there is a hook for it.
    pub fn wants(&self, occasion: Occasion) -> bool {
        self.wanted.contains(&occasion)
    }

    /// Notes a happening that a hook is for; beyond the bound the latest are dropped, for the first tell more.
    pub fn note(&mut self, happening: Happening) {
        if !self.wants(happening.occasion) {
            return;
        }
        if self.waiting.len() < QUEUE_MAX {
            self.waiting.push_back(happening);
        } else {
            self.dropped += 1;
        }
    }

    /// What waits, for a successor.
    pub fn to_json(&self) -> Vec<u8> {
        if self.waiting.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(&self.waiting).unwrap_or_default()
        }
    }

    /// What waited, or ran, under a predecessor comes before what waits here.
    pub fn put_back(&mut self, json: &[u8]) {
        let mut before: VecDeque<Happening> = serde_json::from_slice(json).unwrap_or_default();
        before.append(&mut self.waiting);
        self.waiting = before;
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Happening> {
        self.waiting.pop_front()
    }

    /// How many were dropped since this was asked the last time.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Runs the hooks of a swarm.
pub struct Hooks {
    hooks: config::Hooks,
    swarm: String,
    /// One log for each occasion.
    logs: Vec<(Occasion, Capture)>,
    /// Says when one of the running wants to be looked at.
    epoll: OwnedFd,
    running: Vec<Run>,
    idle: bool,
    /// Whether a successor is to be told anew of what runs.
    changed: bool,
    /// Whether it was looked for what a predecessor has left.
    has_looked: bool,
}

impl Hooks {
    /// The hooks of a file, with logs in a folder that exists.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn of(file: &SwarmFile, logs: &Path, echo: &Echo) -> io::Result<Hooks> {
        let log = |occasion: Occasion| {
            (occasion, Capture::new(&format!("hook.{}", occasion.word()), logs, echo.clone()))
        };
        let hooks = file.hooks.clone();
        let used = Occasion::ALL.into_iter().filter(|occasion| hooks.command(*occasion).is_some());
        Ok(Hooks {
            logs: used.map(log).collect(),
            swarm: file.name.clone(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            running: Vec::new(),
            idle: true,
            changed: false,
            has_looked: false,
            hooks,
        })
    }

    /// Looks at everyone that runs: reads what it said, and takes leave of who has ended or had its time.
    fn look(&mut self, swarm: &mut Swarm) {
        let now = Instant::now();
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|run| {
            run.hear();
            let over = if run.has_had_its_time(now) {
                run.kill();
                Some(format!("was killed: it ran for longer than {:?}", self.hooks.timeout))
            } else {
                run.ended()
            };
            let Some(how) = over else { return true };
            self.take_leave(swarm, run, &how);
            false
        });
        self.running = running;
    }

    /// One has ended: keeps what it said, and tells how it ended, if that was not well.
    fn take_leave(&mut self, swarm: &mut Swarm, run: &Run, how: &str) {
        self.changed = true;
        swarm.end_guest(run.pid());
        let Happening { occasion, agent, .. } = &run.of;
        if let Some((_, log)) = self.logs.iter_mut().find(|(known, _)| known == occasion) {
            run.lines().for_each(|line| log.note(&format!("{agent}: {line}")));
        }
        if !how.is_empty() {
            swarm.notice(&format!("hook {} for agent {agent} {how}", occasion.word()));
        }
    }

    /// Begins what waits, as far as there is room.
    fn begin(&mut self, swarm: &mut Swarm) {
        while self.running.len() < self.hooks.at_once as usize {
            let Some(of) = swarm.happenings.take() else { break };
            let Some(command) = self.hooks.command(of.occasion) else { continue };
            let deadline = Instant::now() + self.hooks.timeout;
            match Run::begin(command, &self.swarm, of, deadline, &self.epoll) {
                Ok(run) => {
                    swarm.add_guest(run.pid());
                    self.running.push(run);
                    self.changed = true;
                }
                Err((of, error)) => {
                    let (word, agent) = (of.occasion.word(), of.agent);
                    swarm.notice(&format!("hook {word} for agent {agent} cannot be run: {error}"));
                }
            }
        }
        let dropped = swarm.happenings.take_dropped();
        if dropped > 0 {
            swarm.notice(&format!(
                "{dropped} hooks were not run: more than {QUEUE_MAX} waited for those before them"
            ));
        }
        self.idle = self.running.is_empty();
    }

    /// What ran when a predecessor died, and died with it, runs again.
    fn look_back(&mut self, swarm: &mut Swarm) {
        if !std::mem::replace(&mut self.has_looked, true)
            && let Some(kept) = swarm.kept_for(KEPT).map(<[u8]>::to_vec)
        {
            swarm.happenings.put_back(&kept);
        }
    }

    /// Leaves to a successor what they run for.
    fn keep(&mut self, swarm: &mut Swarm) {
        if std::mem::take(&mut self.changed) && swarm.journal().is_some() {
            let running: Vec<&Happening> = self.running.iter().map(|run| &run.of).collect();
            swarm.keep_for(KEPT, serde_json::to_vec(&running).unwrap_or_default());
        }
    }

    fn kill_all(&mut self, swarm: &mut Swarm) {
        for mut run in std::mem::take(&mut self.running) {
            run.kill();
            self.take_leave(swarm, &run, "was killed with the swarm");
        }
        let unrun = std::iter::from_fn(|| swarm.happenings.take()).count();
        if unrun > 0 {
            swarm.notice(&format!("{unrun} hooks were not run: the swarm was killed"));
        }
        self.idle = true;
    }
}

impl Companion for Hooks {
    fn register(&mut self, watch: &Watch) -> io::Result<()> {
        watch.add(&self.epoll, TOKEN, epoll::EventFlags::IN)
    }

    fn deadline(&self) -> Option<Instant> {
        self.running.iter().map(|run| run.deadline).min()
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_none_or(|token| token == TOKEN) {
            self.look(swarm);
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        self.look_back(swarm);
        // A start that is undone is no wish to hear no more.
        if swarm.is_cut_short() {
            self.kill_all(swarm);
        } else {
            self.begin(swarm);
        }
        self.keep(swarm);
    }

    fn is_done(&self) -> bool {
        self.idle
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.running.iter_mut().for_each(Run::kill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(number: u32, occasion: Occasion) -> Happening {
        Happening { occasion, agent: "a".into(), generation: number, reason: String::new() }
    }

    #[test]
    fn only_what_a_hook_is_for_is_noted_in_order_and_not_without_bound() {
        let mut happenings = Happenings { wanted: vec![Occasion::Crash], ..Happenings::default() };
        happenings.note(happening(0, Occasion::Ready));
        assert!(happenings.is_empty());
        for number in 0..QUEUE_MAX as u32 + 3 {
            happenings.note(happening(number, Occasion::Crash));
        }
        assert_eq!((happenings.take_dropped(), happenings.take_dropped()), (3, 0));
        let taken: Vec<u32> = std::iter::from_fn(|| happenings.take()).map(|h| h.generation).collect();
        assert_eq!(taken, (0..QUEUE_MAX as u32).collect::<Vec<_>>());
    }
}
