//! A swarm that is measured is run as `shoal run` runs one: under a keeper, and so in a process of its own, which is the guard. Who watches
//! it sits in its supervisor and says in the end what it saw, as JSON on standard output. It ends when who measures is gone.

use super::ends::{self, Why};
use super::{PEER, lives, scale};
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::keeper::Terms;
use crate::log::report;
use crate::output::Echo;
use crate::run::{Setting, run_kept};
use crate::run_dir::{self, RunDir};
use crate::signals::Signals;
use crate::swarm::{Notices, Swarm};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Instant;

/// What the process that runs the swarm is told to be.
pub(super) const SWARM: &str = "kept";

/// What is measured so.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Measured {
    /// Starts and recoveries.
    Lives(lives::Plan),
    /// Agents that the supervisor ends, so many.
    Ends(Why, usize),
    /// Many agents, or many lanes.
    Scale(scale::Plan),
}

/// Measures in a process of its own.
///
/// # Errors
/// In words: what is lacking, or went wrong there.
pub(super) fn measure<T: DeserializeOwned>(what: Measured) -> Result<T, String> {
    let what = serde_json::to_string(&what).map_err(|e| e.to_string())?;
    let ended = Command::new(config::own_binary()?)
        .args([PEER[0], SWARM, &what, &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("starting a swarm to measure: {e}"))?;
    let told: Option<Result<T, String>> = serde_json::from_slice(&ended.stdout).ok();
    told.unwrap_or_else(|| Err(format!("the measured swarm ended with {}", ended.status)))
}

/// Is the process that runs the swarm, for the process of this number.
pub(super) fn be_swarm(what: &str, bench: u32) -> ExitCode {
    let ran = match serde_json::from_str(what) {
        Err(error) => Err(error.to_string()),
        Ok(what) => ends_with(bench).and_then(|()| match what {
            Measured::Lives(plan) => lives::watch(plan),
            Measured::Ends(why, count) => ends::watch(why, count),
            Measured::Scale(plan) => scale::watch(plan),
        }),
    };
    match ran {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&Err::<(), String>(error));
            ExitCode::from(crate::cli::FAILED)
        }
    }
}

/// From here on this process is asked to end when that one, which has started it, is gone.
///
/// # Errors
/// In words: it is gone already, or the kernel refuses.
pub(super) fn ends_with(bench: u32) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| error.to_string())?;
    match getppid().is_some_and(|parent| parent.as_raw_pid() == bench as i32) {
        true => Ok(()),
        false => Err("who measures is gone".into()),
    }
}

/// Runs a swarm until it is over, with one who watches it, and says what that one saw.
///
/// # Errors
/// In words: what is lacking. What went wrong later is said.
pub(super) fn run<W: Companion, T: Serialize>(
    file: SwarmFile,
    watcher: W,
    notices: Notices,
    seen: impl FnOnce(&mut W, &mut Swarm) -> Result<T, String>,
) -> Result<u8, String> {
    let _ = run_dir::list_running();
    let mut signals = Signals::new()?;
    let folder = RunDir::claim(&file.name).map_err(|e| e.to_string())?;
    let watcher = Rc::new(RefCell::new(watcher));
    let mut companion = Shared(Rc::clone(&watcher));
    let setting = Setting {
        echo: Echo::to_stderr().unwrap_or_default(),
        notices,
        companions: vec![&mut signals, &mut companion],
        adopted: Vec::new(),
    };
    let conclude = |ran: Result<&mut Swarm, String>| {
        let seen = ran.and_then(|swarm| match swarm.failed_start.take() {
            Some(why) => Err(why),
            None => seen(&mut watcher.borrow_mut(), swarm),
        });
        say(&seen);
        u8::from(seen.is_err())
    };
    run_kept(file, &folder, setting, Terms::default(), conclude, |_| None)
}

fn say<T: Serialize>(seen: &Result<T, String>) {
    let text = serde_json::to_vec(seen).unwrap_or_default();
    if let Err(error) = io::stdout().write_all(&text) {
        report!("shoal: saying what was measured: {error}");
    }
}

/// Whoever watches, and is asked in the end.
struct Shared<W>(Rc<RefCell<W>>);

impl<W: Companion> Companion for Shared<W> {
    fn register(&mut self, watch: &Watch) -> io::Result<()> {
        self.0.borrow_mut().register(watch)
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.borrow().deadline()
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, watch: &Watch) {
        self.0.borrow_mut().run(ready, swarm, watch);
    }

    fn is_done(&self) -> bool {
        self.0.borrow().is_done()
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        self.0.borrow_mut().passed(swarm);
    }
}
