//! `shoal up`: in the foreground as `shoal run`; with `-d` in the background, as a process in a session of its own that
//! says `ready` on its standard output. Until then, or its end, we wait: a start that fails is told here, and undone there.

use crate::check::refused;
use crate::log::BYTES_MAX;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{BAD_INPUT, Failure, duration, json, print};
use crate::config::{self, SwarmFile};
use crate::herald::{Manner, READY};
use crate::run_dir::{ClaimError, Place, list_running_in};

/// What `shoal up` is asked for.
#[derive(Debug, Args)]
pub(super) struct UpOptions {
    /// The swarm file
    pub(super) file: PathBuf,
    /// In the background: returns when all agents are ready, or says why they are not
    #[arg(short, long)]
    detach: bool,
    /// Where the supervisor's own words go; default: NAME.log beside the swarm's runtime folder
    #[arg(long, value_name = "FILE", requires = "detach")]
    log: Option<PathBuf>,
    /// Give up, and stop what was started, after this time: milliseconds, or with a unit (`30s`)
    #[arg(long, value_name = "DURATION", requires = "detach", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print one JSON object; without -d one a line: of what agents print, and of all that the supervisor says
    #[arg(long)]
    json: bool,
}

/// Starts a swarm.
pub(super) fn up(options: &UpOptions) -> Result<ExitCode, Failure> {
    if !options.detach {
        return Ok(crate::run::run(&options.file, Manner::of(false, options.json)));
    }
    match config::read(&options.file) {
        Ok(file) => detached(&file, options).map(|()| ExitCode::SUCCESS),
        Err(error) => Ok(refused(&error, options.json)),
    }
}

fn detached(file: &SwarmFile, options: &UpOptions) -> Result<(), Failure> {
    let place = Place::of_user();
    let running = list_running_in(&place).map_err(|error| Failure::bad_input(error.to_string()))?;
    if let Some(same) = running.iter().find(|running| running.name == file.name) {
        let running = ClaimError::Running { name: file.name.clone(), pid: same.pid };
        return Err(Failure::bad_input(running.to_string()));
    }
    let log = match &options.log {
        Some(log) => log.clone(),
        None => place.log(&file.name).map_err(|error| Failure::bad_input(error.to_string()))?,
    };
    let mut log = Log::open(&log)?;
    let mut daemon = spawn(&options.file, &log)?;
    match until_ready(&mut daemon, options.timeout)? {
        true => {
            let agents: u32 = file.agents.iter().map(|agent| agent.replicas).sum();
            let (name, pid, at) = (&file.name, daemon.id(), log.path.display().to_string());
            let text = match options.json {
                true => json(&serde_json::json!({ "swarm": name, "pid": pid, "agents": agents, "log": at }))?,
                false => format!("swarm `{name}` is up: {agents} agents ready, process {pid}, log {at}\n"),
            };
            print(text.as_bytes()).map(|_| ())
        }
        false => Err(failed(&mut daemon, &mut log, file, options.timeout)),
    }
}

/// The supervisor's log.
struct Log {
    path: PathBuf,
    file: File,
    /// Where this run begins in it.
    from: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Log, Failure> {
        let refused = |error| {
            Failure::bad_input(format!(
                "opening the log {}: {error}; name another with --log",
                path.display()
            ))
        };
        if std::fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.len() > BYTES_MAX) {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".1");
            std::fs::rename(path, aside).map_err(refused)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = file.map_err(refused)?;
        let from = file.seek(SeekFrom::End(0)).map_err(refused)?;
        Ok(Log { path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), file, from })
    }

    /// What this run wrote.
    fn words(&mut self) -> String {
        let mut bytes = Vec::new();
        // One that was put aside meanwhile is shorter.
        let from = self.file.metadata().map_or(0, |seen| if seen.len() < self.from { 0 } else { self.from });
        let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.read_to_end(&mut bytes));
        read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

fn spawn(file: &Path, log: &Log) -> Result<Child, Failure> {
    let binary = config::own_binary().map_err(Failure::bad_input)?;
    let errors =
        log.file.try_clone().map_err(|error| Failure::bad_input(format!("using the log: {error}")))?;
    Command::new(binary)
        .args(["run", "--daemon", "--"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::bad_input(format!("starting the supervisor: {error}")))
}

/// Waits for the word that all agents are ready; false when the supervisor ended instead, or was not in time.
fn until_ready(daemon: &mut Child, max: Option<Duration>) -> Result<bool, Failure> {
    let Some(words) = daemon.stdout.take() else { return Ok(false) };
    let end = max.map(|max| Instant::now() + max);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&words, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::failed(format!("waiting for the supervisor: {error}"))),
        }
    }
    let mut word = String::new();
    Ok(BufReader::new(words).read_line(&mut word).is_ok() && word == READY)
}

/// Why the start failed; nothing of it is left.
fn failed(daemon: &mut Child, log: &mut Log, file: &SwarmFile, max: Option<Duration>) -> Failure {
    let late = matches!(daemon.try_wait(), Ok(None)) && max.is_some();
    if late {
        // Not reaped yet, so the number is still its own.
        if let Some(pid) = rustix::process::Pid::from_raw(daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
    let ended = daemon.wait();
    let words = log.words();
    let words = words.trim_end();
    let why = match ended {
        _ if late => {
            format!("the agents were not all ready within {:?}; it was stopped", max.unwrap_or_default())
        }
        Ok(status) if status.code() == Some(i32::from(BAD_INPUT)) => "its start failed and was undone".into(),
        Ok(status) => format!("its supervisor ended before all agents were ready: {status}"),
        Err(error) => format!("its supervisor cannot be waited for: {error}"),
    };
    let said = if words.is_empty() { String::new() } else { format!("\n{words}") };
    Failure::bad_input(format!(
        "the swarm `{}` is not up: {why}; log {}{said}",
        file.name,
        log.path.display()
    ))
}
