//! The swarm: applies what happens to the state table and does what the table says. Never waits.
//!
//! Order of a start: segment → process maps it → seals → read-only descriptors to the peers → generation on the board → go.
//! Order of a death: pidfd → tree killed → proof → verdict on the board → doorbells → reap → the table decides.

use crate::agent::{Agent, Grave, Live, Sealed, Totals};
use crate::birth::{self, Cradle};
use crate::child::{self, Action, Event, State};
use crate::config::SwarmFile;
use crate::death::{self, Bounds};
use crate::output::{Capture, Drained, Stream};
use crate::restart::{Decision, Intensity};
use crate::spawn::{self, Ending, Spawner};
use crate::topology::Topology;
use shoal_runtime::board::{BoardWriter, Request, Status, Verdict, VerdictKind};
use shoal_runtime::commit::{self, Key};
use shoal_runtime::cursor::first_position;
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Proof};
use shoal_runtime::wire::{self, FromAgent, LINKS_PER_PACKET, Manifest, Received, ToAgent};
use shoal_runtime::{Incarnation, clock, desk};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a death may stay unproved before the agent is shown as `unproven`.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);
/// How often the proof is asked for again.
const PROOF_RETRY: Duration = Duration::from_millis(1);
/// How often a start that waits for readers to drain looks again.
const DRAIN_RETRY: Duration = Duration::from_millis(2);

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// The agent should be ready by now.
    Ready,
    /// It should have ended by now.
    Stop,
    /// Its pause is over.
    Backoff,
    /// Ask for the proof of its death again.
    Proof,
    /// Look whether its predecessors are drained.
    Drain,
}

/// What the event loop is to do for the swarm.
pub enum Effect {
    /// Watch the descriptors of a new incarnation.
    Watch(usize),
    /// Feed a timer of an agent at a time, if its state serial is still this one.
    Arm(Instant, usize, Timer, u64),
}

/// Why the swarm is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// It is not.
    No,
    /// In stages, sources first; this one now.
    Stage(usize),
    /// At once.
    Killed,
}

/// The swarm.
pub struct Swarm {
    /// The swarm file.
    pub file: SwarmFile,
    /// Who reads whom.
    pub topology: Topology,
    /// The agents, in the order of the topology.
    pub agents: Vec<Agent>,
    manifests: Vec<Manifest>,
    board: BoardWriter,
    cradle: Cradle,
    effects: Vec<Effect>,
    ends: Ends,
    stages: Vec<Vec<usize>>,
    /// The first start of the whole swarm failed, and why.
    pub failed_start: Option<String>,
    started: Instant,
    /// SIGKILLs ordered here that a wait status proved.
    pub kills_proven: u64,
    /// Death to the first message that the next incarnation took or committed, ns.
    pub recoveries_ns: Vec<u64>,
    /// Accusations of peers heard.
    pub accusations: u64,
    notices: Notices,
}

/// Where the operator is told of what happens.
pub type Notices = Box<dyn FnMut(&str)>;

impl Swarm {
    /// Makes the board and everything else that exists before any agent.
    ///
    /// # Errors
    /// What is lacking.
    pub fn new(
        file: SwarmFile,
        mut capture: impl FnMut(&str) -> Capture,
        notices: Box<dyn FnMut(&str)>,
    ) -> io::Result<Self> {
        let topology = Topology::of(&file);
        let swarm: u64 = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), clock::now_ns());
        let (board, board_fd) = segment::create_board(birth::board_shape(&topology), swarm)?;
        let cradle = Cradle { spawner: Spawner::new()?, swarm, board: board_fd };
        let manifests: Vec<_> =
            (0..topology.agents.len()).map(|a| birth::manifest(&file, &topology, a)).collect();
        let agents = topology.agents.iter().zip(&manifests).map(|(instance, manifest)| Agent {
            name: instance.name.clone(),
            shape: manifest.shape.clone(),
            state: State::Stopped,
            state_serial: 0,
            generation: 0,
            intensity: Intensity::new(file.agents[instance.config].restart.clone()),
            live: None,
            graves: VecDeque::new(),
            last: beginning(&topology, instance),
            was_ready: false,
            restarts: 0,
            past: Totals::default(),
            died_at: None,
            capture: capture(&instance.name),
            last_ending: None,
        });
        let agents = agents.collect();
        let stages = topology.stop_order();
        Ok(Swarm {
            agents,
            manifests,
            topology,
            file,
            board,
            cradle,
            effects: Vec::new(),
            ends: Ends::No,
            stages,
            failed_start: None,
            started: Instant::now(),
            kills_proven: 0,
            recoveries_ns: Vec::new(),
            accusations: 0,
            notices,
        })
    }

    /// What the event loop is to do since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The swarm's random number.
    pub fn id(&self) -> u64 {
        self.cradle.swarm
    }

    /// Tells the operator something.
    pub fn notice(&mut self, text: &str) {
        (self.notices)(text);
    }

    /// Starts every agent.
    pub fn start(&mut self) {
        (0..self.agents.len()).for_each(|agent| self.feed(agent, Event::StartAsked));
    }

    /// Whether there is nothing left to wait for.
    pub fn is_over(&self) -> bool {
        let ending = self.ends != Ends::No;
        self.agents.iter().all(|a| match a.state {
            State::Ended | State::Failed => a.live.is_none(),
            state => ending && state.is_at_rest() && a.live.is_none(),
        })
    }

    /// Whether the swarm is being ended.
    pub fn is_ending(&self) -> bool {
        self.ends != Ends::No
    }

    /// Ends the swarm: in stages, sources first; asked again, by SIGKILL.
    pub fn shut_down(&mut self) {
        match self.ends {
            Ends::No => {
                self.begin_stage(0);
                self.advance();
            }
            Ends::Stage(_) | Ends::Killed => self.kill_all(),
        }
    }

    /// Ends the swarm by SIGKILL.
    pub fn kill_all(&mut self) {
        self.ends = Ends::Killed;
        for agent in 0..self.agents.len() {
            self.feed(agent, Event::StopAsked);
            self.kill(agent);
        }
    }

    /// Goes on with the next stage of a shutdown when the present one is at rest. Called after every batch of events.
    pub fn advance(&mut self) {
        while let Ends::Stage(stage) = self.ends {
            let members = self.stages.get(stage).cloned().unwrap_or_default();
            if stage >= self.stages.len() || !members.iter().all(|&a| self.agents[a].state.is_at_rest()) {
                return;
            }
            self.begin_stage(stage + 1);
        }
    }

    fn begin_stage(&mut self, stage: usize) {
        self.ends = Ends::Stage(stage);
        let members = self.stages.get(stage).cloned().unwrap_or_default();
        members.into_iter().for_each(|agent| self.feed(agent, Event::StopAsked));
    }

    /// Sends SIGKILL to an agent's whole tree, marked as ordered. False when it does not run.
    pub fn kill(&mut self, agent: usize) -> bool {
        let Some(live) = &mut self.agents[agent].live else { return false };
        live.ordered = true;
        self.note_death(agent);
        self.feed(agent, Event::KillAsked);
        true
    }

    /// An operator's order: a death that it causes does not count against the agent.
    pub fn order(&mut self, agent: usize, event: Event) {
        if let Some(live) = &mut self.agents[agent].live {
            live.ordered = true;
        }
        self.feed(agent, event);
    }

    /// Feeds the state table and does what it says.
    pub fn feed(&mut self, agent: usize, event: Event) {
        let config = self.topology.agents[agent].config;
        let policy = self.file.agents[config].restart.policy;
        let before = self.agents[agent].state;
        let (state, action) = child::next(before, event, policy);
        if state != before {
            self.agents[agent].state = state;
            self.agents[agent].state_serial += 1;
        }
        if matches!(event, Event::StartAsked | Event::RestartAsked) {
            self.agents[agent].intensity.forget();
        }
        if event == Event::Ready && state == State::Ready {
            self.agents[agent].was_ready = true;
        }
        self.act(agent, action, event);
    }

    fn act(&mut self, agent: usize, action: Action, event: Event) {
        let config = &self.file.agents[self.topology.agents[agent].config];
        let now = Instant::now();
        match action {
            Action::None => {}
            Action::AwaitReady => self.arm(now + config.ready_timeout, agent, Timer::Ready),
            Action::Spawn => self.spawn(agent),
            Action::SpawnAfter { counted } => self.spawn_after(agent, counted),
            Action::AskToStop => {
                let timeout = config.stop_timeout;
                self.ask_to_stop(agent);
                self.arm(now + timeout, agent, Timer::Stop);
            }
            Action::KillTree => {
                if let Some(live) = &self.agents[agent].live {
                    spawn::kill_tree(&live.child);
                }
                if event == Event::ReadyTimedOut {
                    self.never_ready(agent);
                }
            }
            Action::GiveUp => self.give_up(agent),
            Action::MarkEnded => self.strike(agent),
        }
        // What the history was full of may have been drained since.
        if self.agents[agent].state == State::Draining {
            self.arm(now + DRAIN_RETRY, agent, Timer::Drain);
        }
    }

    fn arm(&mut self, at: Instant, agent: usize, timer: Timer) {
        self.effects.push(Effect::Arm(at, agent, timer, self.agents[agent].state_serial));
    }

    /// A timer that was armed, and whose state has not changed since.
    pub fn on_timer(&mut self, agent: usize, timer: Timer) {
        match timer {
            Timer::Ready => self.feed(agent, Event::ReadyTimedOut),
            Timer::Stop => self.feed(agent, Event::StopTimedOut),
            Timer::Backoff => self.feed(agent, Event::BackoffOver),
            Timer::Proof => {
                if self.agents[agent].live.as_ref().is_some_and(|l| l.dead_since.is_some()) {
                    self.on_death(agent);
                }
            }
            Timer::Drain => {
                self.reclaim(agent);
                if self.history_is_full(agent) {
                    self.arm(Instant::now() + DRAIN_RETRY, agent, Timer::Drain);
                } else {
                    self.feed(agent, Event::HistoryFreed);
                }
            }
        }
    }

    // ---- starts ----

    fn spawn(&mut self, agent: usize) {
        self.reclaim(agent);
        if self.history_is_full(agent) {
            self.feed(agent, Event::HistoryFull);
            return;
        }
        let config = &self.file.agents[self.topology.agents[agent].config];
        let record = &mut self.agents[agent];
        record.generation += 1;
        record.intensity.started(self.started.elapsed());
        let manifest = &mut self.manifests[agent];
        manifest.generation = record.generation;
        self.board.publish_request(agent as u32, Request::Run);
        self.board.publish_status(agent as u32, Status::Expected);
        match birth::bear(&mut self.cradle, manifest, config, &record.last) {
            Ok(live) => {
                if record.generation > 1 {
                    record.restarts += 1;
                }
                record.live = Some(live);
                self.effects.push(Effect::Watch(agent));
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
                self.notice(&text);
                self.feed(agent, Event::SpawnFailed);
            }
        }
    }

    fn spawn_after(&mut self, agent: usize, counted: bool) {
        let now = self.started.elapsed();
        match self.agents[agent].intensity.died(now, !counted) {
            Decision::Now => self.feed(agent, Event::BackoffOver),
            Decision::After(pause) => self.arm(Instant::now() + pause, agent, Timer::Backoff),
            Decision::GiveUp => self.feed(agent, Event::GaveUp),
        }
    }

    /// Whether every agent was ready once: from then on a failing agent does not end the swarm.
    fn started_once(&self) -> bool {
        self.agents.iter().all(|a| a.was_ready || a.state == State::Ended)
    }

    /// `file:line` of an agent.
    fn place_of(&self, agent: usize) -> String {
        let config = &self.file.agents[self.topology.agents[agent].config];
        format!("{}:{}", self.file.path.display(), config.line)
    }

    fn never_ready(&mut self, agent: usize) {
        let config = &self.file.agents[self.topology.agents[agent].config];
        let text = format!(
            "{}: agent {} was not ready within {:?}: call `agent.serve()` or `agent.ready()` in it, or raise `ready_timeout` \
             of [agent.{}]",
            self.place_of(agent),
            self.agents[agent].name,
            config.ready_timeout,
            config.name
        );
        self.notice(&text);
        if !self.agents[agent].was_ready {
            self.fail_start(text);
        }
    }

    fn fail_start(&mut self, why: String) {
        if self.failed_start.is_none() && !self.started_once() {
            self.failed_start = Some(why);
            self.kill_all();
        }
    }

    // ---- what agents say ----

    /// Reads what an agent said.
    pub fn on_control(&mut self, agent: usize) {
        loop {
            let Some(live) = &self.agents[agent].live else { return };
            match wire::listen(&live.control) {
                Ok(Received::Packet(message, _)) => self.on_said(agent, message),
                // Its death is heard of through the pidfd; until then there is nothing to read.
                Ok(Received::Nothing | Received::Closed) => return,
                Err(error) => {
                    let text = format!("agent {} is killed: {error}", self.agents[agent].name);
                    self.notice(&text);
                    spawn::kill_tree(&live_of(&self.agents[agent]).child);
                    return;
                }
            }
        }
    }

    fn on_said(&mut self, agent: usize, message: FromAgent) {
        match message {
            FromAgent::Mapped => self.on_mapped(agent),
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
            FromAgent::Fault(accused) => self.on_accused(agent, accused),
        }
    }

    /// The agent has mapped its segment: seal it, hand it to its peers, publish its generation.
    fn on_mapped(&mut self, agent: usize) {
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
                spawn::kill_tree(&live.child);
                let text = format!("agent {} is killed: {error}", self.agents[agent].name);
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
    fn introduce(&mut self, to: usize, of: usize) {
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
    fn flush(&mut self, agent: usize) {
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

    fn on_declared(&mut self, agent: usize, channel: u32, publishes: bool, fingerprint: u64) {
        let answer = self.check_declared(agent, channel, publishes, fingerprint);
        if let ToAgent::Refused(text) = &answer {
            let text = format!("agent {}: {text}", self.agents[agent].name);
            self.notice(&text);
        }
        let _ = wire::tell(&live_of(&self.agents[agent]).control, &answer, &[]);
    }

    fn check_declared(&self, agent: usize, channel: u32, publishes: bool, fingerprint: u64) -> ToAgent {
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

    fn on_accused(&mut self, agent: usize, accused: Incarnation) {
        self.accusations += 1;
        let known = self.topology.neighbours(agent).contains(&(accused.agent as usize));
        let Some(other) = self.agents.get(accused.agent as usize).filter(|_| known) else { return };
        let text = format!(
            "agent {} accuses {} (generation {}) of impossible words",
            self.agents[agent].name, other.name, accused.generation
        );
        // What fixed-size words show decides: an accusation alone proves nothing.
        let guilty = other.live.as_ref().filter(|l| l.incarnation == accused).is_some()
            && self.contradicts_itself(accused.agent as usize);
        self.notice(&text);
        if guilty {
            let text = format!(
                "agent {} contradicts itself and is killed",
                self.agents[accused.agent as usize].name
            );
            self.notice(&text);
            spawn::kill_tree(&live_of(&self.agents[accused.agent as usize]).child);
        }
    }

    /// Whether an agent's own words are impossible.
    fn contradicts_itself(&self, agent: usize) -> bool {
        let Some(view) = self.agents[agent].view() else { return false };
        let (lanes, inputs) = self.bounds(agent);
        let record = &self.agents[agent];
        death::verdict(record.generation, Some((view, &record.shape)), &lanes, &inputs).kind
            == VerdictKind::Corrupt
    }

    /// Reads what an agent printed.
    pub fn on_output(&mut self, agent: usize, pipe: usize) {
        let record = &mut self.agents[agent];
        let Some(live) = &mut record.live else { return };
        let Some(fd) = &live.pipes[pipe] else { return };
        let stream = if pipe == 0 { Stream::Out } else { Stream::Err };
        match record.capture.on_readable(fd.as_fd(), stream) {
            Ok(Drained::Open) => {}
            Ok(Drained::Closed) | Err(_) => live.pipes[pipe] = None,
        }
    }

    fn ask_to_stop(&mut self, agent: usize) {
        let request = if self.ends == Ends::No { Request::Stop } else { Request::Drain };
        self.board.publish_request(agent as u32, request);
        self.board.announce();
        if let Some(live) = &self.agents[agent].live {
            live.doorbell.ring();
            if live.sealed.is_none() {
                // It does not speak with us (yet): the shell's way.
                spawn::signal(&live.child, rustix::process::Signal::TERM);
            }
        }
    }

    // ---- deaths ----

    /// A process is dead: prove it, and when it is proved, draw the conclusions.
    pub fn on_death(&mut self, agent: usize) {
        let now = Instant::now();
        let Some(live) = &mut self.agents[agent].live else { return };
        spawn::kill_tree(&live.child);
        let since = *live.dead_since.get_or_insert(now);
        match segment::prove_dead(&live.segment) {
            Ok(Proof::Dead) => self.on_proved(agent),
            Ok(Proof::StillWritable) => {
                self.end_strays();
                if now - since > PROOF_PATIENCE && !matches!(self.agents[agent].state, State::Unproven(_)) {
                    let text = format!(
                        "agent {} is dead but something still maps its memory: it stays down until that is gone",
                        self.agents[agent].name
                    );
                    self.notice(&text);
                    self.feed(agent, Event::ProofRefused);
                }
                self.arm(now + PROOF_RETRY, agent, Timer::Proof);
            }
            Err(error) => {
                let text = format!("agent {}: {error}", self.agents[agent].name);
                self.notice(&text);
                self.arm(now + PROOF_PATIENCE, agent, Timer::Proof);
            }
        }
    }

    /// Ends descendants of agents that fell to this process.
    fn end_strays(&self) {
        spawn::end_strays(|pid| {
            self.agents.iter().any(|a| a.live.as_ref().is_some_and(|l| l.child.pid == pid))
        });
    }

    fn on_proved(&mut self, agent: usize) {
        self.note_death(agent);
        let (lanes, inputs) = self.bounds(agent);
        let record = &mut self.agents[agent];
        let Some(mut live) = record.live.take() else { return };
        let segment = live.sealed.as_ref().map(|s| (&s.view, &record.shape));
        let verdict = death::verdict(live.incarnation.generation, segment, &lanes, &inputs);
        self.board.verdict(agent as u32, &verdict);
        self.board.announce();
        let corrupt = verdict.kind == VerdictKind::Corrupt;
        let record = &mut self.agents[agent];
        record.last = verdict;
        if let Some(sealed) = &live.sealed {
            record.past.add(&sealed.view);
        }
        let ends = self.agents[agent].last.lanes.clone();
        if let Some(sealed) = live.sealed.take()
            && !ends.is_empty()
        {
            let grave = Grave {
                incarnation: live.incarnation,
                read_only: sealed.read_only,
                doorbell: live.doorbell.clone(),
                ends,
            };
            self.agents[agent].graves.push_back(grave);
        }
        self.reclaim(agent);
        for neighbour in self.topology.neighbours(agent) {
            if let Some(other) = &self.agents[neighbour].live {
                other.doorbell.ring();
            }
            self.reclaim(neighbour);
        }
        let ending = spawn::reap(&live.child);
        self.drain_output(agent, &mut live);
        self.conclude(agent, &live, ending, corrupt);
    }

    /// What the death means for the agent's life.
    fn conclude(&mut self, agent: usize, live: &Live, ending: io::Result<Ending>, corrupt: bool) {
        let ending = ending.unwrap_or(Ending::Exited(255));
        if live.ordered && ending == Ending::Signalled(9) {
            self.kills_proven += 1;
        }
        let expected = matches!(self.agents[agent].state, State::Stopping(_)) || ending == Ending::Exited(0);
        self.agents[agent].last_ending = Some(ending.to_string());
        let name = self.agents[agent].name.clone();
        if corrupt {
            self.notice(&format!(
                "agent {name} wrote over its own memory before it died (generation {}): what it committed last is lost, its \
                 lanes end where their readers had accepted them",
                live.incarnation.generation
            ));
        }
        if !expected && !live.ordered {
            self.notice(&format!("agent {name} (generation {}) {ending}", live.incarnation.generation));
        }
        let before_ready = !self.agents[agent].was_ready && !self.started_once();
        if before_ready && matches!(ending, Ending::Exited(_)) && self.ends == Ends::No && !live.ordered {
            self.fail_start(format!(
                "{}: agent {name} {ending} before it was ready: run its command by hand to see why, and see its output above",
                self.place_of(agent)
            ));
        }
        self.feed(agent, Event::Exited { normal: ending == Ending::Exited(0), ordered: live.ordered });
    }

    fn drain_output(&mut self, agent: usize, live: &mut Live) {
        let streams = [Stream::Out, Stream::Err];
        for (pipe, stream) in live.pipes.iter_mut().zip(streams) {
            let Some(fd) = pipe.take() else { continue };
            // What the dead has written fits the pipe's buffer; a descendant that writes on is not waited for.
            for _ in 0..64 {
                let mut waiting = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                let ready = rustix::event::poll(
                    &mut waiting,
                    Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
                );
                if !matches!(ready, Ok(1..)) {
                    break;
                }
                if !matches!(self.agents[agent].capture.on_readable(fd.as_fd(), stream), Ok(Drained::Open)) {
                    break;
                }
            }
        }
    }

    /// What is known of an agent's lanes and inputs apart from its own words.
    fn bounds(&self, agent: usize) -> (Vec<Bounds>, Vec<Bounds>) {
        let (instance, record) = (&self.topology.agents[agent], &self.agents[agent]);
        let lanes = instance.lanes.iter().zip(&record.last.lanes).map(|(lane, &began)| {
            let cursors = lane.readers.iter().map(|r| self.cursor(r.agent, r.input));
            let least = cursors.max_by_key(|p| p.position).unwrap_or(began);
            Bounds { began, least, most: None }
        });
        let inputs = instance.inputs.iter().zip(&record.last.inputs).map(|(input, &began)| {
            let most = self.tail(input.producer, input.lane);
            Bounds { began, least: began, most }
        });
        (lanes.collect(), inputs.collect())
    }

    /// The committed cursor of an input: by its living segment, else by the last verdict.
    fn cursor(&self, agent: usize, input: usize) -> Place {
        let record = &self.agents[agent];
        let living =
            record.view().and_then(|view| commit::committed(view, &record.shape, Key::Input(input)).ok());
        let last = record.last.inputs[input];
        living.filter(|l| l.position >= last.position).unwrap_or(last)
    }

    /// The committed end of a lane; `None` while its producer moves it.
    fn tail(&self, agent: usize, lane: usize) -> Option<u64> {
        let record = &self.agents[agent];
        let last = record.last.lanes[lane].position;
        match record.view() {
            None => Some(last),
            Some(view) => {
                commit::committed(view, &record.shape, Key::Lane(lane)).ok().map(|p| p.position.max(last))
            }
        }
    }

    /// Lets go of an agent's dead incarnations that every reader has drained.
    fn reclaim(&mut self, agent: usize) {
        while let Some(grave) = self.agents[agent].graves.front() {
            let lanes = self.topology.agents[agent].lanes.iter().zip(&grave.ends);
            let drained = lanes.into_iter().all(|(lane, end)| {
                lane.readers.iter().all(|r| {
                    self.board.view().status(r.agent as u32) == Status::Gone
                        || self.cursor(r.agent, r.input).position >= end.position
                })
            });
            if !drained {
                return;
            }
            self.agents[agent].graves.pop_front();
        }
    }

    fn history_is_full(&self, agent: usize) -> bool {
        self.agents[agent].graves.len() >= self.file.history as usize
    }

    /// Notes the moment of a death, to measure the recovery from it; the first note of a life counts.
    fn note_death(&mut self, agent: usize) {
        self.measure_recovery(agent);
        let record = &mut self.agents[agent];
        let died_at = &mut record.died_at;
        died_at.get_or_insert((record.generation, clock::now_ns()));
    }

    /// If an agent has taken or committed a message since the death that is being measured, in a later life: notes how long
    /// that took.
    fn measure_recovery(&mut self, agent: usize) {
        let record = &mut self.agents[agent];
        let (Some((generation, died_at_ns)), Some(view)) = (record.died_at, record.view()) else { return };
        let first_ns = desk::view(view).first_message_ns;
        if record.generation > generation && first_ns > died_at_ns {
            record.died_at = None;
            self.recoveries_ns.push(first_ns - died_at_ns);
        }
    }

    /// Measures the recovery of every living agent that has met a message since its predecessor's death.
    pub fn measure_recoveries(&mut self) {
        (0..self.agents.len()).for_each(|agent| self.measure_recovery(agent));
    }

    fn give_up(&mut self, agent: usize) {
        let how = self.agents[agent].last_ending.clone().unwrap_or_default();
        let config = &self.file.agents[self.topology.agents[agent].config];
        let text = format!(
            "agent {} is given up: more than {} deaths within {:?} of its life, the last: it {how}; nobody waits for it any more \
             (`shoal start {}` tries again; `restart` of [agent.{}] sets the bounds)",
            self.agents[agent].name,
            config.restart.intensity,
            config.restart.period,
            self.agents[agent].name,
            config.name
        );
        self.notice(&text);
        let never = !self.agents[agent].was_ready;
        self.strike(agent);
        if never {
            self.fail_start(format!("{}: {text}", self.place_of(agent)));
        }
    }

    /// Takes an agent off its lanes: no producer waits for it, and its readers will hear that it ended.
    fn strike(&mut self, agent: usize) {
        self.board.publish_status(agent as u32, Status::Gone);
        self.board.announce();
        for neighbour in self.topology.neighbours(agent) {
            if let Some(other) = &self.agents[neighbour].live {
                other.doorbell.ring();
            }
            self.reclaim(neighbour);
        }
    }
}

fn live_of(agent: &Agent) -> &Live {
    agent.live.as_ref().expect("asked only while the process lives")
}

/// Where lanes and cursors stand before the first incarnation.
fn beginning(topology: &Topology, instance: &crate::topology::Instance) -> Verdict {
    let first = |capacity: u64| Place { position: first_position(capacity), sequence: 0 };
    let capacity_of =
        |i: &crate::topology::InputSpec| topology.agents[i.producer].lanes[i.lane].capacity_bytes;
    Verdict {
        generation: 0,
        kind: VerdictKind::Committed,
        lanes: instance.lanes.iter().map(|l| first(l.capacity_bytes)).collect(),
        inputs: instance.inputs.iter().map(|i| first(capacity_of(i))).collect(),
    }
}
