//! The operator's side of a running swarm, a companion of the event loop: answers on the control socket, the beacon.

use crate::agent::Agent;
use crate::child::{Event, State};
use crate::config::{self, Member};
use crate::control::{
    ALL, ClientId, Control, PsAgent, PsReport, PsSet, PsSetState, PsState, Request, Response, SwarmInfo,
    is_meant, logs_of,
};
use crate::ended::is_signal;
use crate::event_loop::{Companion, Watch};
use crate::scenario::usage;
use crate::swarm::pause::is_at_pause;
use crate::swarm::{Proof, Swarm};
use rustix::event::epoll::EventFlags;
use shoal_runtime::beacon::{Beacon, Counts};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

mod end;
mod records;
mod status;

/// The token of the control socket.
const TOKEN: u64 = 2;

/// What is said of agents that were asked to pause.
const PAUSED: &str = "paused";
/// Why nothing is begun any more.
const STOPPING: &str = "the swarm is stopping";
/// How often it is looked whether they hold a message still.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often it is looked while anything is waited for with a time-out, however long that is.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(3600);

/// Answers operators.
pub struct Operator {
    control: Control,
    beacon: Option<Beacon>,
    info: SwarmInfo,
    waiting: Vec<Waiting>,
    /// Who is told when the swarm is over.
    until_over: end::UntilOver,
    /// Who follows the events.
    followers: Vec<records::Follower>,
    pending: Option<change::Pending>,
}

mod change;

pub use change::read_again;

/// A question that is answered when something has come to pass.
struct Waiting {
    client: ClientId,
    verb: &'static str,
    /// Agents, each with the generation it had when it was asked about.
    agents: Vec<(usize, u32)>,
    over: fn(&Agent, u32) -> Option<bool>,
    /// Until when, if not for ever, and whom the operator named.
    until: Option<(Instant, String)>,
}

/// What an operator orders: in words, what happens to the agents, when that is done, and how long it is waited for.
struct Order {
    verb: &'static str,
    event: Event,
    over: fn(&Agent, u32) -> Option<bool>,
    patience: Option<Duration>,
}

impl Operator {
    /// Serves a control socket; without a beacon observers ask the socket.
    pub fn new(
        control: Control,
        beacon: Option<Beacon>,
        swarm: String,
        file: PathBuf,
        logs: PathBuf,
    ) -> Self {
        // The one that claimed the name, before a keeper parts from it; signals go there.
        let pid = std::process::id();
        let info = SwarmInfo { swarm, pid, supervisor: pid, watching_ns: 0, last_verdict_ns: 0, logs, file };
        Operator {
            control,
            beacon,
            info,
            waiting: Vec::new(),
            until_over: end::UntilOver::default(),
            followers: Vec::new(),
            pending: None,
        }
    }

    fn answer(&mut self, client: ClientId, request: Request, swarm: &mut Swarm) {
        self.note_order(client, &request, swarm);
        if request != Request::Info {
            swarm.recollect();
        }
        let response = match request {
            Request::Ps => {
                let report = report(swarm);
                swarm.leave_views();
                Response::Ps(report)
            }
            Request::Info => {
                let (supervisor, watching_ns) = (std::process::id(), swarm.watching_ns());
                let last_verdict_ns = swarm.last_verdict_ns;
                Response::Info(SwarmInfo { supervisor, watching_ns, last_verdict_ns, ..self.info.clone() })
            }
            Request::Shutdown => {
                swarm.shut_down();
                Response::Done { text: STOPPING.into() }
            }
            Request::Status => Response::Status(Box::new(status::status(swarm, &self.info))),
            Request::Down => {
                self.add_until_over(client, swarm);
                if !swarm.is_ending() {
                    swarm.shut_down();
                }
                return;
            }
            Request::Crashes { name } => Operator::crashes(swarm, name.as_deref()),
            Request::Events { from, wait } => return self.events(client, from, wait, swarm),
            Request::Kill { name, signal } => kill(swarm, &name, signal),
            Request::Wait { name, ended } => {
                return self.wait(client, name.as_deref().unwrap_or(ALL), ended, swarm);
            }
            Request::Pause { name } => return self.pause(client, &name, swarm),
            Request::Resume { name } => resume(swarm, &name),
            Request::Reload { file, on_gone, dry_run, timeout_ms } => {
                let how = (dry_run, Duration::from_millis(timeout_ms));
                return self.reload(client, (file.as_deref(), on_gone), how, swarm);
            }
            Request::Scale { name, replicas, dry_run, timeout_ms } => {
                let how = (dry_run, Duration::from_millis(timeout_ms));
                return self.scale(client, (&name, replicas), how, swarm);
            }
            Request::Upgrade { name, command, prove_ms, prove_messages, timeout_ms } => {
                let proof = Proof { time: Duration::from_millis(prove_ms), messages: prove_messages };
                let patience = timeout_ms.map(Duration::from_millis);
                return self.upgrade(client, (&name, command), (proof, patience), swarm);
            }
            Request::Replay { ids } => return self.replay(client, ids.as_deref(), swarm),
            Request::Stop { name } => {
                let order = Order { verb: "stopped", event: Event::StopAsked, over: stopped, patience: None };
                return self.ask(client, &name, order, swarm);
            }
            Request::Start { name, timeout_ms } => {
                let patience = timeout_ms.map(Duration::from_millis);
                let order = Order { verb: "started", event: Event::StartAsked, over: started, patience };
                return self.ask(client, &name, order, swarm);
            }
            Request::Restart { name, timeout_ms } => {
                let patience = timeout_ms.map(Duration::from_millis);
                let order =
                    Order { verb: "restarted", event: Event::RestartAsked, over: restarted, patience };
                return self.ask(client, &name, order, swarm);
            }
        };
        self.control.reply(client, &response);
    }

    /// Replays dead letters; answered when all of them lie in their lanes.
    fn replay(&mut self, client: ClientId, ids: Option<&[u64]>, swarm: &mut Swarm) {
        if swarm.is_ending() {
            self.control.reply(client, &Response::Error { text: STOPPING.into() });
            return;
        }
        match swarm.replay(ids) {
            Err(text) => self.control.reply(client, &Response::Error { text }),
            Ok(agent) => {
                let agents = vec![(agent, swarm.agents[agent].generation.saturating_sub(1))];
                self.waiting.push(Waiting { client, verb: "replayed", agents, over: replayed, until: None });
            }
        }
    }

    fn ask(&mut self, client: ClientId, name: &str, order: Order, swarm: &mut Swarm) {
        let Order { verb, event, over, patience } = order;
        if swarm.is_ending() && event != Event::StopAsked {
            self.control.reply(client, &Response::Error { text: STOPPING.into() });
            return;
        }
        let mut agents = match meant(swarm, name) {
            Ok(agents) => agents,
            Err(response) => return self.control.reply(client, &response),
        };
        agents.retain(|&agent| swarm.topology.agents[agent].active);
        if agents.is_empty() && name != ALL {
            let text = format!(
                "{name} is removed; what it has not read is being put with the dead letters, and then it is gone"
            );
            return self.control.reply(client, &Response::Error { text });
        }
        let agents: Vec<_> = agents.into_iter().map(|a| (a, swarm.agents[a].generation)).collect();
        agents.iter().for_each(|&(agent, _)| swarm.order(agent, event));
        let until = patience.map(|patience| (Instant::now() + patience, name.to_owned()));
        self.waiting.push(Waiting { client, verb, agents, over, until });
    }

    /// Answers when agents are ready, or have ended.
    fn wait(&mut self, client: ClientId, name: &str, ended: bool, swarm: &Swarm) {
        match meant(swarm, name) {
            Err(response) => self.control.reply(client, &response),
            Ok(agents) => {
                let agents = agents.into_iter().map(|a| (a, 0)).collect();
                let (verb, over): (_, fn(&Agent, u32) -> Option<bool>) =
                    if ended { ("ended", over) } else { ("ready", ready) };
                self.waiting.push(Waiting { client, verb, agents, over, until: None });
            }
        }
    }

    /// Pauses agents; answered when none of them holds a message any more.
    fn pause(&mut self, client: ClientId, name: &str, swarm: &mut Swarm) {
        if swarm.is_ending() {
            self.control.reply(client, &Response::Error { text: STOPPING.into() });
            return;
        }
        match meant(swarm, name) {
            Err(response) => self.control.reply(client, &response),
            Ok(agents) => {
                agents.iter().for_each(|&agent| _ = swarm.pause(agent, true));
                let agents = agents.into_iter().map(|a| (a, 0)).collect();
                self.waiting.push(Waiting { client, verb: PAUSED, agents, over: paused, until: None });
            }
        }
    }

    /// Answers what has come to pass.
    fn settle(&mut self, swarm: &Swarm) {
        let control = &mut self.control;
        self.waiting.retain(|waiting| {
            let all = waiting.agents.iter().map(|&(a, g)| (a, (waiting.over)(&swarm.agents[a], g)));
            let all: Vec<_> = all.collect();
            if all.iter().any(|(_, over)| over.is_none()) {
                let late = waiting.overtaken(swarm).or_else(|| waiting.late(swarm));
                late.iter().for_each(|late| control.reply(waiting.client, late));
                return late.is_none();
            }
            if waiting.verb == PAUSED {
                waiting.agents.iter().for_each(|&(agent, _)| swarm.ring_mates(agent));
            }
            let names = |good: bool| -> Vec<String> {
                let names = all.iter().filter(|(_, o)| *o == Some(good));
                names.map(|&(a, _)| swarm.agents[a].name.clone()).collect()
            };
            let failed = names(false);
            let response = if failed.is_empty() {
                let agents = all.iter().map(|&(a, _)| swarm.agents[a].name.clone()).collect();
                Response::Ordered { text: format!("{} {}", names(true).join(", "), waiting.verb), agents }
            } else {
                let text = if waiting.verb == PAUSED && swarm.is_ending() {
                    STOPPING.into()
                } else {
                    not_done(&failed, waiting.verb)
                };
                Response::Error { text }
            };
            control.reply(waiting.client, &response);
            false
        });
    }

    fn shine(&self, swarm: &Swarm) {
        // What a predecessor has lit shines on.
        let Some(beacon) = self.beacon.as_ref().filter(|_| !swarm.agents.any_put_off()) else { return };
        beacon.update(&Counts {
            agents: (0..swarm.agents.len()).filter(|&agent| swarm.is_shown(agent)).count() as u64,
            ready: swarm.agents.iter().filter(|a| a.state == State::Ready).count() as u64,
            restarts: swarm.agents.iter().map(|a| a.restarts).sum(),
            messages: swarm.agents.iter().map(|a| a.past.received).sum(),
        });
    }
}

impl Waiting {
    /// The answer when the swarm is being ended, and with it whoever was to be there again.
    fn overtaken(&self, swarm: &Swarm) -> Option<Response> {
        let starts = matches!(self.verb, "started" | "restarted");
        (starts && swarm.is_ending()).then(|| Response::Error { text: STOPPING.into() })
    }

    /// The answer when it has not come to pass in time.
    fn late(&self, swarm: &Swarm) -> Option<Response> {
        let (_, name) = self.until.as_ref().filter(|(until, _)| *until <= Instant::now())?;
        let late = self.agents.iter().filter(|(agent, g)| (self.over)(&swarm.agents[*agent], *g).is_none());
        let late = late.map(|&(agent, _)| {
            format!("{} ({})", swarm.agents[agent].name, status::state(swarm, agent).word())
        });
        let late = late.collect::<Vec<_>>().join(", ");
        let text = format!(
            "{late} not {} in time; that goes on: `shoal wait {name}` waits for it, `shoal ps` shows how far it is",
            self.verb
        );
        Some(Response::Error { text })
    }
}

fn stopped(agent: &Agent, _: u32) -> Option<bool> {
    agent.state.is_at_rest().then_some(true)
}

fn started(agent: &Agent, _: u32) -> Option<bool> {
    match agent.state {
        State::Ready | State::Ended => Some(true),
        State::Failed | State::Stopped => Some(false),
        _ => None,
    }
}

fn restarted(agent: &Agent, before: u32) -> Option<bool> {
    if agent.generation > before {
        started(agent, before)
    } else {
        (agent.state == State::Failed).then_some(false)
    }
}

fn ready(agent: &Agent, _: u32) -> Option<bool> {
    match agent.state {
        State::Ready | State::Ended => Some(true),
        State::Failed => Some(false),
        _ => None,
    }
}

fn over(agent: &Agent, _: u32) -> Option<bool> {
    (agent.state.is_at_rest() && agent.generation > 0).then_some(true)
}

/// No event tells that an agent let go of its message: it is looked at. The pause of one may be over before it began.
fn paused(agent: &Agent, _: u32) -> Option<bool> {
    (!agent.paused || is_at_pause(agent)).then_some(agent.paused)
}

/// Lets paused agents go on.
fn resume(swarm: &mut Swarm, name: &str) -> Response {
    match meant(swarm, name) {
        Err(response) => response,
        Ok(agents) => {
            agents.iter().for_each(|&agent| _ = swarm.pause(agent, false));
            let agents: Vec<String> = agents.iter().map(|&a| swarm.agents[a].name.clone()).collect();
            Response::Ordered { text: format!("{} resumed", agents.join(", ")), agents }
        }
    }
}

fn not_done(failed: &[String], verb: &str) -> String {
    let (names, logs) = (failed.join(", "), logs_of(failed));
    match verb {
        "ready" => format!("{names} will not get ready, being given up: see {logs}"),
        PAUSED => format!("{names} could not be paused: it was let go on before"),
        _ => format!("{names} could not be {verb}: see {logs}"),
    }
}

fn replayed(agent: &Agent, _: u32) -> Option<bool> {
    agent.state.is_at_rest().then_some(agent.state == State::Ended)
}

/// Kills agents' whole trees, or sends their processes another signal.
fn kill(swarm: &mut Swarm, name: &str, signal: Option<i32>) -> Response {
    let agents = match meant(swarm, name) {
        Ok(agents) => agents,
        Err(response) => return response,
    };
    if let Some(number) = signal.filter(|number| !is_signal(*number)) {
        return Response::Error { text: format!("{number} is no signal of this system") };
    }
    let reached = agents.iter().copied().filter(|&agent| match signal {
        None => swarm.kill(agent),
        Some(signal) => swarm.signal(agent, signal),
    });
    let reached: Vec<usize> = reached.collect();
    if reached.is_empty() {
        return Response::Error { text: format!("{name} does not run; `shoal start {name}` starts it") };
    }
    let verb = match signal {
        None => "killed".to_owned(),
        Some(signal) => format!("sent signal {signal}"),
    };
    let text = format!("{name} {verb} ({} of {})", reached.len(), agents.len());
    Response::Ordered { text, agents: reached.iter().map(|&a| swarm.agents[a].name.clone()).collect() }
}

/// The agents that a name means.
fn meant(swarm: &Swarm, name: &str) -> Result<Vec<usize>, Response> {
    let all = swarm.agents.iter().enumerate().filter(|(agent, _)| swarm.is_shown(*agent));
    let agents = all.filter(|(_, a)| is_meant(name, &a.name));
    let agents: Vec<_> = agents.map(|(i, _)| i).collect();
    if !agents.is_empty() {
        return Ok(agents);
    }
    if name == ALL {
        return Ok((0..swarm.agents.len()).filter(|&agent| swarm.is_shown(agent)).collect());
    }
    let near = crate::reload::did_you_mean(&swarm.file, name);
    Err(Response::Error { text: format!("swarm {} has no agent {name:?}{near}", swarm.file.name) })
}

fn report(swarm: &Swarm) -> PsReport {
    let now = Instant::now();
    let shown_agents = swarm.agents.iter().enumerate().filter(|(agent, _)| swarm.is_shown(*agent));
    // Replicas side by side, in the order of the file, wherever their places are.
    let place = |agent: usize| {
        let instance = &swarm.topology.agents[agent];
        (instance.config, instance.replica)
    };
    let mut shown_agents: Vec<_> = shown_agents.collect();
    shown_agents.sort_by_key(|(agent, _)| place(*agent));
    let agents = shown_agents.into_iter().map(|(index, agent)| {
        let totals = agent.totals();
        let pid = agent.live.as_ref().map(|l| l.child.pid as u32);
        PsAgent {
            name: agent.name.clone(),
            set: set_of(swarm, index).map(|set| set.name.clone()),
            pid,
            generation: u64::from(agent.generation),
            state: status::state(swarm, index),
            restarts: agent.restarts,
            rescues: agent.rescues,
            hangs: agent.hangs,
            standbys: agent.parked().map(|spare| spare.child.pid as u32).collect(),
            standbys_wanted: swarm.standbys_wanted(index) as u64,
            zygote: swarm.zygote_of(index),
            uptime_ms: agent.live.as_ref().map_or(0, |l| (now - l.born).as_millis() as u64),
            // The proportional share, its part of shared segments included.
            pss_kib: pid.and_then(|pid| usage::rollup_kib(pid, "Pss:")).unwrap_or(0),
            sent: totals.sent,
            received: totals.received,
            p50_ns: totals.latency.quantile(0.5),
            p99_ns: totals.latency.quantile(0.99),
            unapplied: swarm.unapplied(index).to_vec(),
        }
    });
    PsReport {
        swarm: swarm.file.name.clone(),
        agents: agents.collect(),
        sets: sets(swarm),
        under_way: swarm.change_under_way(),
        scaled_to_nothing: swarm.scaled_to_nothing(),
    }
}

fn set_of(swarm: &Swarm, agent: usize) -> Option<&config::Set> {
    let sets = &swarm.supervision.sets;
    sets.set_of(swarm.topology.agents[agent].config).map(|set| &sets.all()[set])
}

fn sets(swarm: &Swarm) -> Vec<PsSet> {
    let supervision = &swarm.supervision;
    let all = supervision.sets.all();
    let name = |member: &Member| match *member {
        Member::Agent(agent) => swarm.file.agents[agent].name.clone(),
        Member::Set(set) => all[set].name.clone(),
    };
    let shown = all.iter().enumerate().map(|(index, set)| PsSet {
        name: set.name.clone(),
        members: set.members.iter().map(name).collect(),
        strategy: set.strategy.word().to_owned(),
        restarts: supervision.restarts[index],
        state: match (supervision.given_up[index], supervision.is_restarting(index)) {
            (true, _) => PsSetState::Failed,
            (false, true) => PsSetState::Restarting,
            (false, false) => PsSetState::Running,
        },
    });
    shown.collect()
}

fn shown(state: State) -> PsState {
    match state {
        State::Starting => PsState::Starting,
        State::Ready => PsState::Ready,
        State::Stopping(_) | State::Unproven(_) => PsState::Stopping,
        State::Backoff | State::Draining | State::Aside => PsState::Backoff,
        State::Stopped | State::Ended => PsState::Stopped,
        State::Failed => PsState::Failed,
    }
}

impl Companion for Operator {
    fn register(&mut self, watch: &Watch) -> io::Result<()> {
        watch.add(self.control.fd(), TOKEN, EventFlags::IN)
    }

    fn deadline(&self) -> Option<Instant> {
        let looks = self.waiting.iter().any(|waiting| waiting.verb == PAUSED);
        let look = looks.then(|| Instant::now() + LOOK_EVERY);
        let late = self.waiting.iter().filter_map(|waiting| Some(waiting.until.as_ref()?.0));
        let change = self.pending.as_ref().and_then(change::Pending::look_at);
        look.into_iter().chain(self.until_over.look_at()).chain(late).chain(change).min().map(|at| {
            // A kernel may refuse to wait for weeks.
            at.min(Instant::now() + LOOK_AT_LEAST_EVERY)
        })
    }

    fn is_done(&self) -> bool {
        self.until_over.is_done()
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready != Some(TOKEN) {
            return;
        }
        for (client, request) in self.control.on_ready() {
            self.answer(client, request, swarm);
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        self.settle(swarm);
        self.tell_followers(swarm);
        self.tell_over(swarm);
        self.settle_change(swarm);
        self.shine(swarm);
    }
}
