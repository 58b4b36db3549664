//! `shoal up`: in the foreground as `shoal run`; with `-d` in the background, as a process in a session of its own that
//! says `ready` on its standard output, or why it ends. Until then, or its end, we wait: a start that fails is told here, and undone there.

use crate::check::refused;
use crate::counted::counted;
use crate::log::BYTES_MAX;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shoal_runtime::again::insist;

use super::{BAD_INPUT, Failure, duration, json, own_place, print};
use crate::config::{self, SwarmFile};
use crate::herald::{Manner, READY};
use crate::run_dir::{ClaimError, list_running_in};

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
    /// Give up, and stop what was started, after this time, such as `30s` or `2m`
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
    let place = own_place()?;
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
    let start = until_ready(&mut daemon, options.timeout)?;
    if start.came != Came::Ready {
        return Err(failed(&mut daemon, &mut log, file, &start));
    }
    let agents: u32 = file.agents.iter().map(|agent| agent.replicas).sum();
    let (name, pid, at) = (&file.name, daemon.id(), log.path.display().to_string());
    let text = match options.json {
        true => json(&serde_json::json!({ "swarm": name, "pid": pid, "agents": agents, "log": at }))?,
        false => {
            format!("swarm `{name}` is up: {} ready, process {pid}, log {at}\n", counted(agents, "agent"))
        }
    };
    print(text.as_bytes()).map(|_| ())
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

/// What came of a start.
struct Start {
    came: Came,
    /// Why it failed, by the supervisor's own words.
    said: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// All agents are ready.
    Ready,
    /// The supervisor ended instead, or is about to.
    Ended,
    /// They were not in this time.
    Late(Duration),
}

/// Waits for the word that all agents are ready.
fn until_ready(daemon: &mut Child, max: Option<Duration>) -> Result<Start, Failure> {
    let mut heard = Vec::new();
    let came = match &mut daemon.stdout {
        Some(words) => hear(words, max, &mut heard),
        None => Ok(Came::Ended),
    };
    let came = came.map_err(|error| Failure::failed(format!("waiting for the supervisor: {error}")))?;
    Ok(Start { came, said: String::from_utf8_lossy(&heard).into_owned() })
}

fn hear(words: &mut ChildStdout, max: Option<Duration>, heard: &mut Vec<u8>) -> io::Result<Came> {
    let end = max.map(|max| Instant::now() + max);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(words, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(Came::Late(max.unwrap_or_default())),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 4096];
        let got = insist(|| words.read(&mut bytes))?;
        heard.extend_from_slice(&bytes[..got]);
        if got == 0 {
            return Ok(Came::Ended);
        }
        if heard == READY.as_bytes() {
            return Ok(Came::Ready);
        }
    }
}

/// Why the start failed; nothing of it is left.
fn failed(daemon: &mut Child, log: &mut Log, file: &SwarmFile, start: &Start) -> Failure {
    if matches!(start.came, Came::Late(_)) {
        // Not reaped yet, so the number is still its own.
        if let Some(pid) = rustix::process::Pid::from_raw(daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
    let why = match (start.came, daemon.wait()) {
        (Came::Late(max), _) => format!("the agents were not all ready within {max:?}; it was stopped"),
        (_, Ok(status)) if status.code() == Some(i32::from(BAD_INPUT)) => {
            "its start failed and was undone".into()
        }
        (_, Ok(status)) => format!("its supervisor ended before all agents were ready: {status}"),
        (_, Err(error)) => format!("its supervisor cannot be waited for: {error}"),
    };
    let mut text = format!("the swarm `{}` is not up: {why}; log {}", file.name, log.path.display());
    let words = log.words();
    // The log's disk may have been full.
    let unwritten = start.said.lines().filter(|line| !words.contains(line));
    words.trim_end().lines().chain(unwritten).for_each(|line| text += &format!("\n{line}"));
    Failure::bad_input(text)
}
