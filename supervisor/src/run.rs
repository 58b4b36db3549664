//! `shoal run FILE`: a swarm in the foreground.

use crate::check::refused;
use crate::cli::print;
use crate::config::{self, Orphans, SwarmFile};
use crate::confine;
use crate::control::Control;
use crate::dead_letters::DeadLetters;
use crate::event_loop::{self, Companion, Watch};
use crate::herald::{Herald, Manner};
use crate::hooks::Hooks;
use crate::keeper::{self, End, Life, Split, Terms, Word, table};
use crate::log::{self, Format, LastWords, Level};
use crate::needs;
use crate::operator::Operator;
use crate::output::{Capture, Echo};
use crate::records::Records;
use crate::run_dir::{self, RunDir};
use crate::signals::Signals;
use crate::spawn::{self, Urgency};
use crate::swarm::{Notices, Swarm};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shoal_runtime::beacon::{self, Beacon};
use shoal_runtime::journal::Journal;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::os::fd::OwnedFd;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Exit status when the input or the start was bad.
const BAD_INPUT: u8 = 2;
/// Exit status when it did not go well.
const FAILED: u8 = 1;

/// The environment variable that sets level and format of the log, as `debug,json`.
const LOG_ENV: &str = "SHOAL_LOG";

/// Runs a swarm file until the swarm is over.
pub fn run(file: &Path, manner: Manner) -> ExitCode {
    manner.begin();
    match config::read(file) {
        Ok(file) => run_read(file, manner),
        Err(error) => refused(&error, manner == Manner::Json),
    }
}

/// The same of a file that was read, or made.
pub(crate) fn run_read(file: SwarmFile, manner: Manner) -> ExitCode {
    let swarm = file.name.clone();
    let words = manner.last_words(&swarm);
    let echo = manner.echo(&swarm);
    let status = begin(file, manner, words, echo.clone()).unwrap_or_else(|error| {
        words.say(&error);
        BAD_INPUT
    });
    if manner == Manner::Json {
        // Whether anybody reads it does not change how it ended.
        let end = format!("{}\n", serde_json::json!({ "swarm": swarm, "status": status }));
        let _ = print(&[&echo.take_rest(), end.as_bytes()].concat());
    }
    ExitCode::from(status)
}

fn begin(mut file: SwarmFile, manner: Manner, words: LastWords<'_>, echo: Echo) -> Result<u8, String> {
    heed_environment(&mut file)?;
    if manner == Manner::Json {
        file.records.log_format = Format::Json;
    }
    tell_panics(manner, &file.name);
    let mut signals = Signals::that_reload()?;
    let say = manner.voice();
    let mut herald = Herald::new(manner);
    let notices: Notices = match file.records.log_format {
        Format::Text => Box::new(move |text| say(&manner.for_people(text))),
        Format::Json => Box::new(say),
    };
    let setting = Setting { echo, notices, companions: vec![&mut signals, &mut herald], adopted: Vec::new() };
    let claimed = run_dir::list_running().and_then(|_| RunDir::claim(&file.name));
    let folder = claimed.map_err(|e| e.to_string())?;
    let terms = Terms { end_with_supervisor: file.orphans == Orphans::Kill, words, ..Terms::default() };
    run_kept(file, &folder, setting, terms, |ended| status_of(ended, words), |_| None)
}

/// From here on a panic is told as all else is: as a record for a program, with the time where it is kept. On a terminal it is as ever. Who
/// waits until the swarm is up is not told, for a successor goes on with the start.
fn tell_panics(manner: Manner, swarm: &str) {
    if manner == Manner::Foreground {
        return;
    }
    let swarm = swarm.to_owned();
    panic::set_hook(Box::new(move |panic| {
        let mut text = panic.to_string();
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text += &format!("\n{trace}");
        }
        log::say(&match manner {
            Manner::Json => log::record(Level::Error, &swarm, &text),
            // The lines of one text but its first are set in.
            _ => log::for_people(&text.trim_end().replace('\n', "\n  "), true),
        });
    }));
}

/// What the environment says of the log goes before the swarm file.
fn heed_environment(file: &mut SwarmFile) -> Result<(), String> {
    let said = std::env::var(LOG_ENV).unwrap_or_default();
    let (level, format) = log::parse(&said).map_err(|error| format!("{LOG_ENV}: {error}"))?;
    file.records.log_level = level.unwrap_or(file.records.log_level);
    file.records.log_format = format.unwrap_or(file.records.log_format);
    Ok(())
}

/// The exit status that a swarm's end means; says why when it is no success.
fn status_of(ended: Result<&mut Swarm, String>, words: LastWords<'_>) -> u8 {
    match ended {
        Ok(Swarm { failed_start: Some(why), .. }) => {
            words.say(&format!("the swarm did not start: {why}"));
            BAD_INPUT
        }
        Ok(Swarm { escalated: Some(why), .. }) => {
            words.say(&format!("the swarm ended: {why}"));
            FAILED
        }
        Ok(swarm) if swarm.agents.iter().any(|a| a.state == crate::child::State::Failed) => FAILED,
        Ok(_) => 0,
        Err(error) => {
            words.say(&error);
            BAD_INPUT
        }
    }
}

/// What a run shows and runs beside the swarm.
pub struct Setting<'a> {
    /// Where agents' lines are shown.
    pub echo: Echo,
    /// Where the operator is told of what happens.
    pub notices: Notices,
    /// What else runs on the supervisor's thread.
    pub companions: Vec<&'a mut dyn Companion>,
    /// Agents whose processes exist already: the name, and our end of the control socket.
    pub adopted: Vec<(&'a str, OwnedFd)>,
}

/// The folder of a swarm that a command makes for itself and watches, and the signals that end it.
pub struct Claimed {
    signals: Signals,
    folder: RunDir,
}

impl Claimed {
    /// Claims the folder of this name, once those of the dead are gone; from here on a signal ends a swarm in it, and not this process.
    ///
    /// # Errors
    /// What is lacking, in words.
    pub fn folder(name: &str) -> Result<Claimed, String> {
        let _ = run_dir::list_running();
        let signals = Signals::new()?;
        let folder = RunDir::claim(name).map_err(|e| e.to_string())?;
        Ok(Claimed { signals, folder })
    }

    /// Runs a checked swarm in it, on this process, until it is over, with one who watches it; returns it.
    ///
    /// # Errors
    /// As [`run_file`].
    pub fn run(
        mut self,
        file: SwarmFile,
        watcher: &mut impl Companion,
        notices: Notices,
    ) -> Result<Swarm, String> {
        let setting = Setting {
            echo: Echo::to_stderr().unwrap_or_default(),
            notices,
            companions: vec![&mut self.signals, watcher],
            adopted: Vec::new(),
        };
        run_file(file, &self.folder, setting)
    }
}

/// Tells the operator on standard error.
pub fn told_on_stderr() -> Notices {
    Box::new(|text| log::report!("shoal: {text}"))
}

/// Runs a checked swarm in its claimed folder, on this process, until it is over; returns it. Everything ends with this process.
///
/// # Errors
/// What is lacking, in words.
pub fn run_file(file: SwarmFile, folder: &RunDir, setting: Setting<'_>) -> Result<Swarm, String> {
    spawn::become_subreaper().map_err(|e| format!("becoming the parent of orphans: {e}"))?;
    let Made { mut swarm, mut operator, mut hooks, companions, watch, .. } = make(file, folder, setting)?;
    let ended = supervise(&mut swarm, &mut operator, &mut hooks, companions, &watch);
    // The claimed folder may serve another run.
    let _ = std::fs::remove_file(folder.socket());
    ended.map(|()| swarm)
}

/// Runs a checked swarm in its claimed folder under a keeper until it is over; returns the exit status. The process of the caller, who
/// must have one thread, waits: it is the guard. `conclude` is called in the supervisor that sees the end; `beside` runs in the guard, at
/// the times that it asks for.
///
/// # Errors
/// What is lacking, in words.
pub fn run_kept(
    file: SwarmFile,
    folder: &RunDir,
    setting: Setting<'_>,
    terms: Terms<'_>,
    conclude: impl FnOnce(Result<&mut Swarm, String>) -> u8,
    mut beside: impl FnMut(&Journal) -> Option<Duration>,
) -> Result<u8, String> {
    let (name, realtime) = (file.name.clone(), file.realtime);
    let urgency = Urgency::of(realtime);
    let echo = setting.echo.clone();
    let split = Split::prepare().map_err(|e| format!("preparing a keeper: {e}"))?;
    let Made { mut swarm, operator, hooks, logs, companions, watch } = make(file, folder, setting)?;
    let urgency = urgency.unwrap_or_else(|error| {
        let text = format!(
            "`swarm.realtime` is not permitted ({error}): supervisor and starts have no priority over others \
             (it takes root, CAP_SYS_NICE, or `ulimit -r`)"
        );
        swarm.notice(&text);
        Urgency::default()
    });
    swarm.be_urgent(urgency);
    let terms = Terms { urgency, ..terms };
    let made = split.link().and_then(|link| swarm.keep(link));
    let journal = made.map_err(|e| format!("making the journal: {e}"))?;
    let open = table::open_now().map_err(|e| format!("listing the open descriptors: {e}"))?;
    let supervisor = |life: Life| {
        let (mut swarm, mut operator, mut hooks) = (swarm, operator, hooks);
        let ready = match life.number {
            1 => Ok(()),
            _ => swarm.take_over(&open, &logs).map_err(|e| e.to_string()),
        };
        let ran = ready.and_then(|()| supervise(&mut swarm, &mut operator, &mut hooks, companions, &watch));
        let status = conclude(ran.map(|()| &mut swarm));
        echo.leave_rest();
        // What is let go of now is gone for a successor, too.
        keeper::set_word(&journal, Word::Over, 1 + u64::from(status));
        status
    };
    let guard = confine::Owner::this();
    let put_away = || {
        let _ = std::fs::remove_file(folder.socket());
        let _ = beacon::put_out(&name);
        confine::sweep_cgroups_of(guard);
        confine::give_room_back();
    };
    let sweep = || {
        put_away();
        folder.remove_for_dead();
    };
    let keeper =
        split.part(terms, &journal, supervisor, sweep).map_err(|e| format!("making a keeper: {e}"))?;
    let end = keeper::guard(keeper, || beside(&journal));
    put_away();
    match end {
        End::Status(status) => Ok(status),
        End::KeeperKilled(signal) => {
            terms.words.say(&format!(
                "the keeper of swarm {name} was killed by signal {signal}: everything of it was ended"
            ));
            Ok(FAILED)
        }
    }
}

/// What exists before any agent.
struct Made<'a> {
    swarm: Swarm,
    operator: Operator,
    hooks: Hooks,
    logs: PathBuf,
    companions: Vec<&'a mut dyn Companion>,
    watch: Watch,
}

fn make<'a>(file: SwarmFile, folder: &RunDir, setting: Setting<'a>) -> Result<Made<'a>, String> {
    let Setting { echo, notices, companions, adopted } = setting;
    raise_descriptor_limit("this swarm", needs::descriptors(&file))?;
    let logs = file.logs.clone().unwrap_or_else(|| folder.logs());
    std::fs::create_dir_all(&logs).map_err(|e| format!("making the log folder {}: {e}", logs.display()))?;
    let logs = logs.canonicalize().map_err(|e| format!("finding the log folder {}: {e}", logs.display()))?;
    let control = Control::listen(&folder.socket())
        .map_err(|e| format!("listening at {}: {e}", folder.socket().display()))?;
    // Not what it is a link to: that may be another by the next reload, and its paths begin here.
    let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
    let name = file.name.clone();
    let hooks = Hooks::of(&file, &logs, &echo).map_err(|e| format!("preparing hooks: {e}"))?;
    let letters = folder.dead_letters();
    let letters = DeadLetters::open(&letters, file.dead_letters)
        .map_err(|e| format!("opening the dead letters in {}: {e}", letters.display()))?;
    let records = Records::open(&logs, &file, notices)?;
    let log_folder: Arc<Path> = logs.as_path().into();
    let captures = Box::new(move |agent: &str| Capture::new(agent, log_folder.clone(), echo.clone()));
    let mut swarm = Swarm::new(file, letters, captures, records).map_err(|e| e.to_string())?;
    swarm.adopt(adopted);
    let beacon = light(&name, &mut swarm);
    let operator = Operator::new(control, beacon, name, path, logs.clone());
    let watch = Watch::new().map_err(|e| format!("making what watches descriptors: {e}"))?;
    Ok(Made { swarm, operator, hooks, logs, companions, watch })
}

/// A supervisor's life.
fn supervise(
    swarm: &mut Swarm,
    operator: &mut Operator,
    hooks: &mut Hooks,
    mut companions: Vec<&mut dyn Companion>,
    watch: &Watch,
) -> Result<(), String> {
    let mut all: Vec<&mut dyn Companion> = vec![hooks, operator];
    all.extend(companions.iter_mut().map(|c| &mut **c as &mut dyn Companion));
    let result = event_loop::run(swarm, &mut all, watch);
    for text in swarm.left_unread() {
        swarm.notice(&text);
    }
    swarm.over();
    result.map_err(|e| format!("waiting for events: {e}"))
}

/// Lights the beacon; a swarm without one is whole, only slower to find.
fn light(name: &str, swarm: &mut Swarm) -> Option<Beacon> {
    let lit = beacon::sweep(name).and_then(|_| Beacon::light(name, swarm.id()));
    let missed =
        lit.as_ref().err().map(|error| format!("no beacon, observers ask the control socket: {error}"));
    if let Some(text) = missed {
        swarm.notice(&text);
        swarm.lacks.push(text);
    }
    lit.ok()
}

/// Raises the soft limit of open descriptors to the hard one and checks that it suffices.
///
/// # Errors
/// It does not, for whoever needs them.
pub fn raise_descriptor_limit(who: &str, needed: u64) -> Result<(), String> {
    let asked = getrlimit(Resource::RLIMIT_NOFILE);
    let (_, hard) = asked.map_err(|e| format!("asking for the limit of open descriptors: {e}"))?;
    if hard < needed {
        return Err(format!(
            "{who} needs up to {needed} open descriptors, the limit is {hard}: raise it (`ulimit -Hn {needed}`, or LimitNOFILE= \
             of the unit) or run fewer agents"
        ));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|e| format!("raising the limit of open descriptors: {e}"))
}
