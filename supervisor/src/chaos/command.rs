//! `shoal chaos`: the swarm, its storm, and the report.

use super::account::Account;
use super::agents::{Passed, Sent};
use super::balance::{Balance, Committed, Flow};
use super::disturber::{Disturber, Goal, Progress};
use super::done::Done;
use super::file::{self, ASIDES, Shape};
use super::plan::Plan;
use super::supervisor_killer::SupervisorKiller;
use super::{OTHERS, SOURCES, WORKERS, WORKERS_MAX};
use crate::agent::Agent;
use crate::cli::{ChaosOptions, print, print_error};
use crate::keeper::Terms;
use crate::log::report;
use crate::output::Echo;
use crate::run::{Setting, run_file, run_kept, told_on_stderr};
use crate::run_dir::{self, RunDir};
use crate::signals::Signals;
use crate::swarm::Swarm;
use crate::topology::Instance;
use serde::Serialize;
use shoal_measure::pairs::percentile;
use std::hash::BuildHasher;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The longest time that it takes.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is printed; as JSON one object.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Draws the same plan again.
    seed: u64,
    #[serde(flatten)]
    balance: Balance,
    /// Agents that slept though work waited.
    rescues: u64,
    /// Accusations of peers.
    accusations: u64,
    /// Kills that a wait status proved.
    kills: u64,
    /// Supervisors that were killed.
    supervisor_kills: u64,
    #[serde(flatten)]
    done: Done,
    agents: u64,
    seconds: f64,
    msgs_per_s: u64,
    verdict_p50_us: Option<u64>,
    verdict_p99_us: Option<u64>,
    recovery_p50_us: Option<u64>,
    recovery_p99_us: Option<u64>,
    /// From a supervisor's death to when its successor watches everything.
    take_over_p50_us: Option<u64>,
    take_over_p99_us: Option<u64>,
    /// Ended before its time.
    interrupted: bool,
    /// Everything took effect exactly once, nobody was forgotten, and what was asked for was done.
    passed: bool,
}

/// Runs chaos and prints its report.
pub fn chaos(options: &ChaosOptions) -> ExitCode {
    ExitCode::from(run(options).unwrap_or_else(|error| status_of(Err(error), options.json)))
}

fn run(options: &ChaosOptions) -> Result<u8, String> {
    if options.time.is_zero() || options.time > TIME_MAX {
        return Err(format!("--for {:?}: give a time of more than nothing and at most 24h", options.time));
    }
    let name = format!("chaos-{}", std::process::id());
    let _ = run_dir::list_running();
    let mut signals = Signals::new()?;
    let folder = RunDir::claim(&name).map_err(|e| e.to_string())?;
    let file = file::read(&name, WORKERS, Shape::default())?;
    let seed = options.seed.unwrap_or_else(drawn_seed);
    // Before anything can go wrong: the seed is what draws it again.
    report!("shoal chaos: seed {seed}");
    let (sources, workers) = (SOURCES as usize, WORKERS as usize);
    let agents = sources + workers + OTHERS as usize;
    // The places of more workers come behind those that run from the start.
    let group = (sources..sources + workers).chain(agents..agents + (WORKERS_MAX - WORKERS) as usize);
    let all = agents + (WORKERS_MAX - WORKERS) as usize;
    let plan = Plan::new(seed, all, group.collect(), WORKERS_MAX, options.rate).with_changes(options.changes);
    let &ChaosOptions { time, kills, messages, changes, .. } = options;
    let goal = Goal { time, kills, messages, changes };
    let mut disturber = Disturber::new(plan, goal);
    let began = Instant::now();
    let setting = Setting {
        echo: Echo::to_stderr().unwrap_or_default(),
        notices: told_on_stderr(),
        companions: vec![&mut signals, &mut disturber],
        adopted: Vec::new(),
    };
    if options.kill_supervisor {
        // The last of the supervisors reports.
        let conclude = |ran: Result<&mut Swarm, String>| {
            let progress = ran.as_ref().ok().and_then(|swarm| Progress::kept_in(swarm)).unwrap_or_default();
            let told = ran.and_then(|swarm| tell(options, seed, began.elapsed(), swarm, &progress));
            status_of(told, options.json)
        };
        let mut killer = SupervisorKiller::new(seed);
        return run_kept(file, &folder, setting, Terms::default(), conclude, |journal| killer.turn(journal));
    }
    let mut swarm = run_file(file, &folder, setting)?;
    tell(options, seed, began.elapsed(), &mut swarm, &disturber.progress()).map(|passed| u8::from(!passed))
}

/// Prints the report; whether it is a good one.
fn tell(
    options: &ChaosOptions,
    seed: u64,
    took: Duration,
    swarm: &mut Swarm,
    progress: &Progress,
) -> Result<bool, String> {
    if let Some(why) = swarm.failed_start.take() {
        return Err(format!("the swarm did not start: {why}"));
    }
    let report = report(options, seed, took, swarm, progress);
    let text = match options.json {
        true => serde_json::to_string(&report).map_err(|e| e.to_string())?,
        false => report.text(options),
    };
    if let Err(failure) = print(format!("{text}\n").as_bytes()) {
        report!("shoal chaos: {failure}");
        return Ok(false);
    }
    Ok(report.passed)
}

fn status_of(told: Result<bool, String>, json: bool) -> u8 {
    match told {
        Ok(true) => 0,
        Ok(false) => crate::cli::FAILED,
        Err(error) => {
            report!("shoal chaos: {error}");
            if json {
                print_error(&error);
            }
            crate::cli::BAD_INPUT
        }
    }
}

fn drawn_seed() -> u64 {
    // Short enough to be typed.
    std::hash::RandomState::new().hash_one(std::process::id()) >> 32
}

fn report(
    options: &ChaosOptions,
    seed: u64,
    took: Duration,
    swarm: &mut Swarm,
    progress: &Progress,
) -> Report {
    let balance = Balance::of(&committed(swarm));
    let (kills, rescues, accusations) = (swarm.kills_proven, swarm.rescues(), swarm.accusations);
    let interrupted = !progress.is_over();
    let supervisor_kills = swarm.supervisor_kills();
    let mut take_overs_ns = swarm.take_overs_ns();
    let enough = kills >= options.kills.max(1)
        && balance.messages >= options.messages.max(1)
        && (supervisor_kills > 0 || !options.kill_supervisor)
        && (progress.done.has_every_change() || !options.changes);
    let us = |ns: Option<u64>| ns.map(|ns| ns / 1000);
    Report {
        seed,
        balance,
        rescues,
        accusations,
        kills,
        supervisor_kills,
        done: progress.done,
        agents: swarm.topology.agents.iter().filter(|agent| agent.active).count() as u64,
        seconds: took.as_secs_f64(),
        msgs_per_s: (balance.messages as f64 / took.as_secs_f64()) as u64,
        verdict_p50_us: us(percentile(&mut swarm.verdicts_ns, 50)),
        verdict_p99_us: us(percentile(&mut swarm.verdicts_ns, 99)),
        recovery_p50_us: us(percentile(&mut swarm.recoveries_ns, 50)),
        recovery_p99_us: us(percentile(&mut swarm.recoveries_ns, 99)),
        take_over_p50_us: us(percentile(&mut take_overs_ns, 50)),
        take_over_p99_us: us(percentile(&mut take_overs_ns, 99)),
        interrupted,
        passed: balance.is_even()
            && [rescues, accusations, progress.done.not_rolled_back] == [0; 3]
            && enough
            && !interrupted,
    }
}

/// What every agent had committed when its last incarnation ended.
fn committed(swarm: &Swarm) -> Committed {
    let is_named = |agent: &Agent, name| agent.name.split('.').next() == Some(name);
    let named = |name: &'static str| swarm.agents.iter().filter(move |agent| is_named(agent, name));
    let account = |name| named(name).next().and_then(Agent::committed_state::<Account>);
    let sent = |name, on: fn(Sent) -> u64| -> Vec<u64> {
        named(name).map(|agent| agent.committed_state::<Sent>().map_or(0, on)).collect()
    };
    let count = |name| sent(name, |sent| sent.count);
    // A lane of asides begins anew whenever their channel comes.
    let lanes = |(instance, agent): (&Instance, &Agent)| -> Vec<u64> {
        let lanes = instance.lanes.iter().zip(&agent.last.lanes);
        let always = lanes.filter(|(lane, _)| swarm.topology.channels[lane.channel].name != ASIDES);
        always.map(|(_, place)| place.sequence).collect()
    };
    let of = |name: &'static str| {
        let all = swarm.topology.agents.iter().zip(swarm.agents.iter());
        all.filter(move |(_, agent)| is_named(agent, name)).map(lanes)
    };
    let sources = ["source", "beat"].into_iter().flat_map(|name| count(name).into_iter().zip(of(name)));
    let passed: Vec<Passed> = named("worker").filter_map(Agent::committed_state).collect();
    let flow = |from, to, ordered| Flow { sent: count(from), account: account(to), ordered };
    let asides = Flow {
        sent: sent("source", |sent| sent.asides),
        account: account("sink").map(|account| account.asides()),
        ordered: true,
    };
    Committed {
        sources: sources.collect(),
        flows: vec![
            flow("source", "counter", true),
            flow("source", "sink", false),
            flow("beat", "listener", true),
            asides,
        ],
        passed: (count("source").iter().sum(), passed.iter().map(|p| p.count).sum()),
        corrupted: passed.iter().map(|p| p.corrupted).sum(),
    }
}

impl Report {
    fn text(&self, options: &ChaosOptions) -> String {
        let Report { seed, balance, rescues, accusations, kills, done, .. } = self;
        let Done { stops, restarts, scales, reloads, channels, upgrades, roll_backs, not_rolled_back } = done;
        let Balance { lost, duplicated, reordered, corrupted, unaccounted, messages } = balance;
        let us = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{us} µs"));
        let mut lines = vec![
            format!("seed {seed}, {} agents, {:.1} s", self.agents, self.seconds),
            format!("{messages} messages, {} a second", self.msgs_per_s),
            format!(
                "{kills} kills, {stops} stops, {restarts} restarts ordered, {scales} times more or fewer workers"
            ),
            format!("a kill's verdict: p50 {}, p99 {}", us(self.verdict_p50_us), us(self.verdict_p99_us)),
            format!(
                "a kill's successor at work: p50 {}, p99 {}",
                us(self.recovery_p50_us),
                us(self.recovery_p99_us)
            ),
            format!("lost {lost}, duplicated {duplicated}, reordered {reordered}, corrupted {corrupted}"),
            format!("rescues {rescues}, accusations {accusations}"),
        ];
        if options.changes {
            lines.push(format!(
                "{reloads} reloads applied, {channels} times a channel added or removed; {upgrades} upgrades done, {roll_backs} rolled back"
            ));
            if *not_rolled_back > 0 {
                lines.push(format!(
                    "{not_rolled_back} upgrades to commands that crash-loop did not roll back"
                ));
            }
            if !done.has_every_change() {
                let wanted = "a reload, a channel added or removed, an upgrade done and one rolled back";
                lines.push(format!("not enough was done: {wanted} were wanted"));
            }
        }
        if options.kill_supervisor {
            lines.push(format!(
                "{} supervisors killed; a successor watches everything: p50 {}, p99 {}",
                self.supervisor_kills,
                us(self.take_over_p50_us),
                us(self.take_over_p99_us)
            ));
        }
        if *unaccounted > 0 {
            lines.push(format!("{unaccounted} messages came too early to be accounted: `lost` is too high"));
        }
        if *kills < options.kills.max(1) || *messages < options.messages.max(1) {
            let (kills, messages) = (options.kills.max(1), options.messages.max(1));
            lines.push(format!("not enough was done: {kills} kills and {messages} messages were wanted"));
        }
        if self.interrupted {
            lines.push("interrupted: this is what was counted so far".to_owned());
        }
        lines.push(format!(
            "every message took effect exactly once: {}",
            if self.passed { "yes" } else { "NO" }
        ));
        lines.join("\n")
    }
}
