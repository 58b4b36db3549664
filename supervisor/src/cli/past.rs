//! `shoal crashes` and `shoal events`: what happened. A running supervisor is asked for what it has in memory, and its files are
//! read directly; of a swarm that has ended the files are left, if its swarm file names a log folder.

use crate::log::report;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use super::client::{Client, check_name};
use super::{Failure, Printed, json, print};
use crate::config;
use crate::control::{Request, Response, is_meant, nearest};
use crate::crash::{self, Crash, page};
use crate::events::{self, Event};
use crate::output::{FILES_MAX, shown};

/// What `shoal crashes` is asked for.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CrashesOptions {
    #[command(subcommand)]
    show: Option<Show>,
    #[command(flatten)]
    list: ListOptions,
}

impl CrashesOptions {
    /// The swarm file whose swarm is asked about, if one is given.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.show {
            Some(Show::Show { file, .. }) => file.as_deref(),
            None => self.list.file.as_deref(),
        }
    }
}

/// One crash report.
#[derive(Debug, Subcommand)]
enum Show {
    /// Show one crash report: all that is known of a death
    Show {
        /// Its number in the list
        id: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Read what the swarm of this swarm file left, whether it runs or not
        #[arg(long, value_name = "SWARM FILE")]
        file: Option<PathBuf>,
    },
}

/// Which crash reports.
#[derive(Debug, Args)]
struct ListOptions {
    /// An agent (all its replicas), or one replica such as worker.1; default: all
    name: Option<String>,
    /// Only the last N
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read what the swarm of this swarm file left, whether it runs or not
    #[arg(long, value_name = "SWARM FILE")]
    file: Option<PathBuf>,
}

/// What `shoal events` is asked for.
#[derive(Debug, Args)]
pub(super) struct EventsOptions {
    /// An agent (all its replicas), or one replica such as worker.1; default: all, and the swarm itself
    name: Option<String>,
    /// Go on with what happens from now on, until the swarm ends
    #[arg(short, long, conflicts_with = "file")]
    follow: bool,
    /// Only the last N of what is kept
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Read what the swarm of this swarm file left, whether it runs or not
    #[arg(long, value_name = "SWARM FILE")]
    pub(super) file: Option<PathBuf>,
}

/// Where the past of a swarm is kept.
struct Past {
    swarm: String,
    logs: PathBuf,
    client: Option<Client>,
}

impl Past {
    /// Of a running swarm, or of the one of a swarm file; of an agent that is there, if one is named.
    fn of(swarm: Option<&str>, file: Option<&Path>, name: Option<&str>) -> Result<Past, Failure> {
        if let Some(file) = file {
            return Past::of_file(file, name);
        }
        let mut client = Client::connect(swarm).map_err(|failure| Failure {
            text: format!("{failure}; what an ended swarm left is read with `--file SWARM FILE`"),
            ..failure
        })?;
        let info = client.swarm_info()?;
        if let Some(name) = name {
            check_name(name, &client.ps()?)?;
        }
        Ok(Past { swarm: info.swarm, logs: info.logs, client: Some(client) })
    }

    fn of_file(path: &Path, name: Option<&str>) -> Result<Past, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::bad_input(format!("reading {}: {error}", path.display())))?;
        // The agents' programs need not be there any more.
        let file = config::parse(path, &text).map_err(|error| Failure::bad_input(error.to_string()))?;
        let Some(logs) = file.logs else {
            return Err(Failure::bad_input(format!(
                "{} names no folder for logs, so what its swarm leaves goes with it: set `logs` of [swarm]",
                path.display()
            )));
        };
        let names: Vec<&str> = file.agents.iter().map(|agent| agent.name.as_str()).collect();
        if let Some(name) = name.filter(|name| !names.iter().any(|known| is_meant(known, name))) {
            let hint = nearest(name, &names).map_or(String::new(), |near| format!("did you mean `{near}`? "));
            let list = names.join(", ");
            return Err(Failure::bad_input(format!(
                "the swarm `{}` has no agent `{}`; {hint}agents: {list}",
                file.name,
                name.escape_debug()
            )));
        }
        Ok(Past { swarm: file.name, logs, client: None })
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::failed(format!("{what} of `{}` in {}: {error}", self.swarm, self.logs.display()))
    }

    fn unexpected(&self, answer: &Response) -> Failure {
        // Only who has a client was answered.
        self.client.as_ref().map_or_else(|| Failure::failed(""), |client| client.unexpected(answer))
    }

    fn ask(&mut self, request: &Request) -> Result<Option<Response>, Failure> {
        self.client.as_mut().map(|client| client.ask(request, Some(super::client::ANSWER_MAX))).transpose()
    }

    /// All crash reports of this swarm, oldest first: of the files, and of what could not be written to one.
    fn crashes(&mut self) -> Result<Vec<Crash>, Failure> {
        let in_memory = match self.ask(&Request::Crashes { name: None })? {
            Some(Response::Crashes { crashes }) => crashes,
            Some(other) => return Err(self.unexpected(&other)),
            None => Vec::new(),
        };
        let in_files = crash::list(&self.logs).map_err(|error| self.failed("crash reports", &error))?;
        let all = in_files.into_iter().filter(|crash| crash.swarm == self.swarm).chain(in_memory);
        let all: BTreeMap<u64, Crash> = all.map(|crash| (crash.id, crash)).collect();
        Ok(all.into_values().collect())
    }

    /// All events that are kept, oldest first, and the number of the next one.
    fn events(&mut self) -> Result<(Vec<Event>, u64), Failure> {
        let mut all = BTreeMap::new();
        for age in (0..FILES_MAX).rev() {
            let name = if age == 0 { events::FILE.to_owned() } else { format!("{}.{age}", events::FILE) };
            let bytes = match std::fs::read(self.logs.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(|error| self.failed("events", &error))?,
            };
            let lines = bytes.split(|byte| *byte == b'\n').filter_map(events::parse);
            all.extend(lines.map(|event| (event.n, event)));
        }
        let mut next = all.keys().next_back().map_or(1, |n| n + 1);
        // What comes between the files and the answer is in the answer.
        match self.ask(&Request::Events { from: 0, wait: false })? {
            Some(Response::Events { events, next: coming }) => {
                all.extend(events.into_iter().map(|event| (event.n, event)));
                next = coming;
            }
            Some(other) => return Err(self.unexpected(&other)),
            None => {}
        }
        Ok((all.into_values().collect(), next))
    }
}

/// What `crashes --json` prints.
#[derive(Serialize)]
struct Listed<'a> {
    swarm: &'a str,
    crashes: &'a [Crash],
}

/// Prints crash reports.
pub(super) fn crashes(swarm: Option<&str>, options: &CrashesOptions) -> Result<(), Failure> {
    if let Some(Show::Show { id, json, file }) = &options.show {
        return show(Past::of(swarm, file.as_deref(), None)?, *id, *json);
    }
    let ListOptions { name, last, json: as_json, file } = &options.list;
    let mut past = Past::of(swarm, file.as_deref(), name.as_deref())?;
    let mut crashes = past.crashes()?;
    crashes.retain(|crash| name.as_ref().is_none_or(|name| is_meant(name, &crash.agent)));
    let are_none = crashes.is_empty();
    crashes.drain(..crashes.len().saturating_sub(last.unwrap_or(usize::MAX)));
    let text = match (as_json, crashes.as_slice()) {
        (true, crashes) => json(&Listed { swarm: &past.swarm, crashes })?,
        (false, []) if !are_none => String::new(),
        (false, []) => format!("of the swarm `{}` there are no crash reports\n", past.swarm),
        (false, crashes) => page::table(crashes),
    };
    print(text.as_bytes()).map(|_| ())
}

fn show(mut past: Past, id: u64, as_json: bool) -> Result<(), Failure> {
    let crashes = past.crashes()?;
    let Some(crash) = crashes.iter().find(|crash| crash.id == id) else {
        let there = match (crashes.first(), crashes.last()) {
            (Some(first), Some(last)) => format!("there are {} to {}", first.id, last.id),
            _ => "there is none".to_owned(),
        };
        return Err(Failure::bad_input(format!(
            "the swarm `{}` has no crash report {id}; {there}",
            past.swarm
        )));
    };
    let text = if as_json { json(crash)? } else { page::page(crash) };
    print(text.as_bytes()).map(|_| ())
}

/// Prints events, and with `-f` all that follow.
pub(super) fn events(swarm: Option<&str>, options: &EventsOptions) -> Result<(), Failure> {
    let mut past = Past::of(swarm, options.file.as_deref(), options.name.as_deref())?;
    let (mut events, next) = past.events()?;
    events.retain(|event| concerns(event, options.name.as_deref()));
    events.drain(..events.len().saturating_sub(options.last.unwrap_or(usize::MAX)));
    if print(&lines(&events, options.json)?)? == Printed::NobodyReads {
        return Ok(());
    }
    match past.client {
        Some(client) if options.follow => follow(client, next, options),
        _ => Ok(()),
    }
}

fn concerns(event: &Event, name: Option<&str>) -> bool {
    name.is_none_or(|name| event.agent.as_ref().is_some_and(|agent| is_meant(name, agent)))
}

fn lines(events: &[Event], as_json: bool) -> Result<Vec<u8>, Failure> {
    let mut text = String::new();
    for event in events {
        text += &if as_json { json(event)? } else { line(event) };
    }
    Ok(text.into_bytes())
}

/// An event for people.
fn line(event: &Event) -> String {
    let whom = match (&event.agent, event.generation) {
        (Some(agent), Some(generation)) => format!("{agent} ({generation}) "),
        (Some(agent), None) => format!("{agent} "),
        _ => String::new(),
    };
    let crash = event.crash.map_or(String::new(), |id| format!(" (`shoal crashes show {id}`)"));
    format!("{} {:<13} {whom}{}{crash}\n", event.at, event.kind.word(), shown(event.text.as_bytes()))
}

/// Prints what comes until the supervisor ends, nobody reads any more, or a signal ends this process.
fn follow(mut client: Client, mut next: u64, options: &EventsOptions) -> Result<(), Failure> {
    let mut failed_at = None;
    loop {
        let (events, coming) = match wait(&mut client, next) {
            Ok(Some(Response::Events { events, next })) => (events, next),
            Ok(None) => return Ok(()),
            Ok(Some(other)) => return Err(client.unexpected(&other)),
            // A supervisor with too many clients cuts off who idles; that is not its end. Twice at one place it is no accident.
            Err(failure) => match client.again() {
                Some(_) if failed_at == Some(next) => return Err(failure),
                Some(again) => {
                    (client, failed_at) = (again, Some(next));
                    continue;
                }
                None => return Ok(()),
            },
        };
        if let Some(first) = events.first().filter(|first| first.n > next) {
            let missed = first.n - next;
            // Told where it is seen and harms no JSON.
            report!("shoal: {missed} events came faster than they were read and are in the file only");
        }
        let concerned: Vec<Event> =
            events.into_iter().filter(|event| concerns(event, options.name.as_deref())).collect();
        if print(&lines(&concerned, options.json)?)? == Printed::NobodyReads {
            return Ok(());
        }
        next = coming;
    }
}

/// Waits for events from a number on; `None` when nobody reads them any more.
fn wait(client: &mut Client, from: u64) -> Result<Option<Response>, Failure> {
    // If that fails the supervisor has left, and may have left its last words.
    let _ = client.tell(&Request::Events { from, wait: true });
    let out = io::stdout();
    loop {
        let mut fds = [
            PollFd::new(client.socket(), PollFlags::IN),
            PollFd::new(&out, PollFlags::empty()), // tells when its reader is gone
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Failure::failed(format!("waiting for events: {error}"))),
        }
        if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Ok(None);
        }
        if !fds[0].revents().is_empty() {
            return client.await_answer(None);
        }
    }
}
