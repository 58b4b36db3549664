//! The demo's supervisor: a child of `shoal demo`, which adopts its parent as the swarm's reader. And the line between the two.
//!
//! ```text
//!   shoal demo ── Pass [control socket of the reader] ──► shoal demo-supervisor ──► lister, workers, collector
//!       ▲  └────────────────── Done ◄──────────────────────────┘                        │
//!       └────────────────────────────── tallies, sums (lanes) ──────────────────────────┘
//! ```
//! The results come by the lanes; over the line go what to do and what the supervisor alone knows. When the line ends, because
//! `shoal demo` does or was killed, the supervisor kills its swarm, tidies up and ends.

use super::Figures;
use super::agents::{EVERYTHING, SOURCES};
use super::killer::Killer;
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::log::report;
use crate::output::Echo;
use crate::run::{Setting, run_file};
use crate::run_dir::{self, RunDir};
use crate::signals::Signals;
use crate::swarm::Swarm;
use rustix::event::epoll::EventFlags;
use serde::{Deserialize, Serialize};
use shoal_measure::pairs::percentile;
use shoal_runtime::desk::Histogram;
use shoal_runtime::wire::{self, Received};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The name of the reader in the swarm.
const READER: &str = "reader";
/// What the supervisor says first.
pub const READY: &[u8] = b"ready";
/// The token of the line's end.
const TOKEN: u64 = 3;

/// What the supervisor is asked for: one pass of a swarm over the tree. The control socket of its reader comes along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pass {
    /// The swarm's name.
    pub name: String,
    /// How many workers.
    pub workers: u32,
    /// How often an agent is killed; zero for never.
    pub kill_every: Duration,
    /// Whether folders that builds make are left out.
    pub skip_build_folders: bool,
}

/// How a pass ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Done {
    /// By itself; the figures of all passes so far.
    Passed(Figures),
    /// Somebody asked it to.
    Interrupted,
    /// It did not start, and why.
    Failed(String),
}

/// Is the supervisor; the line is its standard input.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report!("shoal: the demo's supervisor, which `shoal demo` starts itself: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> Result<(), String> {
    let line = io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let mut signals = Signals::new()?;
    // From here on signals can be passed on to us.
    wire::hand(&line, READY, &[]).map_err(|e| e.to_string())?;
    let mut backstage = None;
    while let Ok(Received::Packet(bytes, fds)) = wire::take(&line) {
        let pass = serde_json::from_slice::<Pass>(&bytes).map_err(|e| e.to_string())?;
        let [reader] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| "a pass came without its reader")?;
        let done = run_pass(&mut backstage, &mut signals, &line, &pass, reader);
        let done = serde_json::to_vec(&done.unwrap_or_else(Done::Failed)).map_err(|e| e.to_string())?;
        if wire::hand(&line, &done, &[]).is_err() {
            break;
        }
    }
    Ok(())
}

fn run_pass(
    backstage: &mut Option<Backstage>,
    signals: &mut Signals,
    line: &OwnedFd,
    pass: &Pass,
    reader: OwnedFd,
) -> Result<Done, String> {
    let backstage = match backstage {
        Some(backstage) => backstage,
        None => backstage.insert(Backstage::new(pass)?),
    };
    backstage.pass(signals, line, pass, reader)
}

/// What lasts from the first pass to the last.
struct Backstage {
    folder: RunDir,
    killer: Killer,
    sums: Sums,
}

/// What the passes sum up to.
#[derive(Default)]
struct Sums {
    passes: u64,
    messages: u64,
    kills: u64,
    restarts: u64,
    seconds: f64,
    recoveries_ns: Vec<u64>,
    latency: Histogram,
}

impl Backstage {
    fn new(pass: &Pass) -> Result<Self, String> {
        let _ = run_dir::list_running();
        let folder = RunDir::claim(&pass.name).map_err(|e| e.to_string())?;
        Ok(Backstage { folder, killer: Killer::new(pass.kill_every), sums: Sums::default() })
    }

    fn pass(
        &mut self,
        signals: &mut Signals,
        line: &OwnedFd,
        pass: &Pass,
        reader: OwnedFd,
    ) -> Result<Done, String> {
        let file = swarm_file(pass)?;
        self.killer.begin_pass(self.sums.passes > 0 && self.sums.kills == 0);
        let began = Instant::now();
        let mut line = Line(line);
        let setting = Setting {
            echo: Echo::to_stderr().unwrap_or_default(),
            notices: Box::new(notice),
            companions: vec![signals, &mut self.killer, &mut line],
            adopted: vec![(READER, reader)],
        };
        let swarm = run_file(file, &self.folder, setting)?;
        self.sums.add(&swarm, began.elapsed());
        Ok(match swarm.failed_start.clone() {
            Some(why) => Done::Failed(why),
            None if swarm.is_ending() => Done::Interrupted,
            None => Done::Passed(self.sums.figures()),
        })
    }
}

/// Says something on standard error; the progress bar that may stand in this line draws itself again.
fn notice(text: &str) {
    let clear = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    report!("{clear}shoal: {text}");
}

/// The line as a companion of the event loop: when it ends, the swarm is killed.
struct Line<'a>(&'a OwnedFd);

impl Companion for Line<'_> {
    fn register(&mut self, watch: &Watch) -> io::Result<()> {
        watch.add(self.0, TOKEN, EventFlags::RDHUP | EventFlags::ET)
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready == Some(TOKEN) {
            swarm.kill_all();
        }
    }
}

/// The demo's swarm file. Its agents are this same binary, and this process's parent.
fn swarm_file(pass: &Pass) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?).to_string();
    let Pass { name, workers, .. } = pass;
    let what = if pass.skip_build_folders { SOURCES } else { EVERYTHING };
    // Kills that come from outside during the demo are no reason to give up an agent, nor a file.
    let restart = "restart = { policy = \"transient\", intensity = 1000, period = \"1s\", backoff = \"1ms..10ms\" }\n\
                   max_attempts = 0";
    let text = format!(
        r#"
        [swarm]
        name = "{name}"
        [channel.tasks]
        message = "Task"
        capacity = "1 MiB"
        [channel.tallies]
        message = "Tally"
        capacity = "1 MiB"
        [channel.sums]
        message = "Sums"
        capacity = "4 KiB"
        [agent.lister]
        command = [{binary}, "agent", "lister", "{what}"]
        publishes = ["tasks"]
        {restart}
        [agent.worker]
        command = [{binary}, "agent", "worker"]
        replicas = {workers}
        subscribes = ["tasks"]
        publishes = ["tallies"]
        {restart}
        [agent.collector]
        command = [{binary}, "agent", "collector"]
        subscribes = ["tallies"]
        publishes = ["sums"]
        {restart}
        [agent.{READER}]
        command = [{binary}, "demo"]
        subscribes = ["tallies", "sums"]
        restart = "temporary"
        "#
    );
    config::parse(Path::new("the demo's swarm file"), &text).map_err(|e| e.to_string())
}

impl Sums {
    fn add(&mut self, swarm: &Swarm, took: Duration) {
        self.passes += 1;
        self.kills += swarm.kills_proven;
        self.seconds += took.as_secs_f64();
        self.recoveries_ns.extend(&swarm.recoveries_ns);
        for agent in swarm.agents.iter() {
            let totals = agent.totals();
            self.messages += totals.received;
            self.restarts += agent.restarts;
            self.latency.merge(&totals.latency);
        }
    }

    fn figures(&mut self) -> Figures {
        let us = |ns: Option<u64>| ns.map(|ns| ns / 1000);
        Figures {
            messages: self.messages,
            kills: self.kills,
            restarts: self.restarts,
            recovery_p50_us: us(percentile(&mut self.recoveries_ns, 50)),
            recovery_p99_us: us(percentile(&mut self.recoveries_ns, 99)),
            latency_p50_ns: self.latency.quantile(0.5),
            latency_p99_ns: self.latency.quantile(0.99),
            passes: self.passes,
            seconds: self.seconds,
        }
    }
}
