//! `shoal run FILE`: a swarm in the foreground.

use crate::config::{self, SwarmFile};
use crate::event_loop::{self, Companion};
use crate::output::{Capture, Echo};
use crate::run_dir::RunDir;
use crate::signals::Signals;
use crate::spawn;
use crate::swarm::Swarm;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;
use std::process::ExitCode;

/// Exit status when the input or the start was bad.
const BAD_INPUT: u8 = 2;

/// Descriptors that one agent costs the supervisor, with undrained predecessors.
const DESCRIPTORS_PER_AGENT: u64 = 12;
/// Descriptors that the supervisor needs besides.
const DESCRIPTORS_BESIDES: u64 = 64;

/// Runs a swarm file until the swarm is over.
pub fn run(file: &Path) -> ExitCode {
    let file = match config::read(file) {
        Ok(file) => file,
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(BAD_INPUT);
        }
    };
    match run_file(file, &mut []) {
        Ok(swarm) if swarm.failed_start.is_some() => ExitCode::from(BAD_INPUT),
        Ok(swarm) if swarm.agents.iter().any(|a| a.state == crate::child::State::Failed) => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shoal: {error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Runs a checked swarm with further companions; returns it when it is over.
///
/// # Errors
/// What is lacking, in words.
pub fn run_file(file: SwarmFile, companions: &mut [&mut dyn Companion]) -> Result<Swarm, String> {
    let agents: u64 = file.agents.iter().map(|a| u64::from(a.replicas)).sum();
    raise_descriptor_limit(agents * DESCRIPTORS_PER_AGENT + DESCRIPTORS_BESIDES)?;
    spawn::become_subreaper().map_err(|e| format!("becoming the parent of orphans: {e}"))?;
    let mut signals = Signals::new().map_err(|e| format!("watching signals: {e}"))?;
    let notices = Box::new(|text: &str| eprintln!("shoal: {text}"));
    let place = RunDir::claim(&file.name).map_err(|e| e.to_string())?;
    let logs = match &file.logs {
        Some(logs) => {
            std::fs::create_dir_all(logs)
                .map_err(|e| format!("making the folder {}: {e}", logs.display()))?;
            logs.clone()
        }
        None => place.logs(),
    };
    let echo = Echo::to_stderr().unwrap_or_default();
    let capture = |name: &str| Capture::new(name, &logs, echo.clone());
    let mut swarm = Swarm::new(file, capture, notices).map_err(|e| e.to_string())?;
    let mut all: Vec<&mut dyn Companion> = vec![&mut signals];
    all.extend(companions.iter_mut().map(|c| &mut **c as &mut dyn Companion));
    let result = event_loop::run(&mut swarm, &mut all);
    if let Some(why) = &swarm.failed_start {
        eprintln!("shoal: the swarm did not start: {why}");
    }
    result.map_err(|e| format!("waiting for events: {e}")).map(|()| swarm)
}

/// Raises the soft limit of open descriptors to the hard one and checks that it suffices.
fn raise_descriptor_limit(needed: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if hard < needed {
        return Err(format!(
            "this swarm needs up to {needed} open descriptors, the limit is {hard}: raise it (`ulimit -Hn {needed}`, or LimitNOFILE= \
             of the unit) or run fewer agents"
        ));
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|e| format!("raising the limit of open descriptors: {e}"))
}
