//! `shoal logs`: the files are read directly, the supervisor only tells where they are.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::path::Path;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use super::client::{Client, check_name};
use super::follow::Follower;
use super::{Failure, Printed, print};
use crate::control::is_meant;
use crate::output::{LogFile, object, shown};

/// What `shoal logs` is asked for.
#[derive(Debug, Args)]
pub(super) struct LogsOptions {
    /// An agent (all its replicas), or one replica such as worker.1
    name: String,
    /// Go on with what it prints from now on, replicas that come later too, until the swarm ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of what is kept
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints an agent's kept output, and with `-f` all that follows.
pub(super) fn logs(swarm: Option<&str>, options: &LogsOptions) -> Result<(), Failure> {
    let mut client = Client::connect(swarm)?;
    let dir = client.swarm_info()?.logs;
    let report = client.ps()?;
    let instances = check_name(&options.name, &report)?;
    // Watched before anything is read: what comes in between is not missed.
    let watch = options.follow.then(|| watch(&dir)).transpose()?;
    let mut tail = Tail::new(&dir, &options.name, &instances, form(options.json));
    tail.take_in();
    let mut records = tail.read()?;
    if let Some(count) = options.lines {
        records.drain(..records.len().saturating_sub(count));
    }
    if tail.print(&records)? == Printed::NobodyReads {
        return Ok(());
    }
    match watch {
        Some(watch) => follow(client, &mut tail, &watch),
        None => Ok(()),
    }
}

/// How lines are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// As they are.
    Raw,
    /// With what could steer the terminal escaped.
    Terminal,
    /// As JSON objects.
    Json,
}

fn form(json: bool) -> Form {
    match json {
        true => Form::Json,
        false if io::stdout().is_terminal() => Form::Terminal,
        false => Form::Raw,
    }
}

fn watch(dir: &Path) -> Result<rustix::fd::OwnedFd, Failure> {
    let failed = |error: rustix::io::Errno| Failure::failed(format!("watching {}: {error}", dir.display()));
    let watch =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
    let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, dir, flags).map_err(failed)?;
    Ok(watch)
}

/// Prints what comes until the supervisor ends, nobody reads any more, or a signal ends this process.
fn follow(mut client: Client, tail: &mut Tail<'_>, watch: &rustix::fd::OwnedFd) -> Result<(), Failure> {
    let out = io::stdout();
    loop {
        let mut fds = [
            PollFd::new(watch, PollFlags::IN),
            PollFd::new(client.socket(), PollFlags::IN),
            PollFd::new(&out, PollFlags::empty()), // tells when its reader is gone
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::failed(format!("waiting for output: {error}"))),
        }
        if fds[2].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Ok(());
        }
        let ended = !fds[1].revents().is_empty();
        if take_events(watch) {
            tail.take_in();
        }
        let records = tail.read()?;
        if tail.print(&records)? == Printed::NobodyReads {
            return Ok(());
        }
        if ended {
            // A supervisor with too many clients cuts off who idles; that is not its end.
            match client.again() {
                Some(again) => client = again,
                None => {
                    let records = tail.finish()?;
                    return tail.print(&records).map(|_| ());
                }
            }
        }
    }
}

/// That something happened is enough to know, and whether there may be a file that was not there; what, the files tell.
fn take_events(watch: &rustix::fd::OwnedFd) -> bool {
    use inotify::ReadFlags;
    let news = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::QUEUE_OVERFLOW;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut has_news = false;
    while let Ok(event) = reader.next() {
        has_news |= event.events().intersects(news);
    }
    has_news
}

/// The logs of one or several replicas as one stream.
struct Tail<'a> {
    dir: &'a Path,
    /// Who was asked for.
    name: &'a str,
    followers: Vec<(String, Follower)>,
    form: Form,
}

/// One line, and which of the followers it is of.
type Record = (usize, Vec<u8>);

impl<'a> Tail<'a> {
    fn new(dir: &'a Path, name: &'a str, instances: &[&str], form: Form) -> Tail<'a> {
        let followers = instances.iter().map(|name| (name.to_string(), Follower::new(dir, name))).collect();
        Tail { dir, name, followers, form }
    }

    /// Takes in who else of this name has a log: an agent has other replicas, and one alone another name, once it was scaled.
    fn take_in(&mut self) {
        let files =
            std::fs::read_dir(self.dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let logged = files.filter_map(|file| Some(LogFile::agent_of(file.to_str()?)?.to_owned()));
        let is_new =
            |of: &String| is_meant(self.name, of) && self.followers.iter().all(|(name, _)| name != of);
        let others: BTreeSet<String> = logged.filter(is_new).collect();
        self.followers.extend(others.into_iter().map(|of| {
            let follower = Follower::new(self.dir, &of);
            (of, follower)
        }));
    }

    /// What came since the last call, by time.
    fn read(&mut self) -> Result<Vec<Record>, Failure> {
        self.gather(Follower::read)
    }

    /// The same, unfinished lines too.
    fn finish(&mut self) -> Result<Vec<Record>, Failure> {
        self.gather(Follower::finish)
    }

    fn gather(
        &mut self,
        read: impl Fn(&mut Follower) -> io::Result<Vec<Vec<u8>>>,
    ) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        for (at, (name, follower)) in self.followers.iter_mut().enumerate() {
            let lines = read(follower)
                .map_err(|error| Failure::failed(format!("reading the log of `{name}`: {error}")))?;
            records.extend(lines.into_iter().map(|line| (at, line)));
        }
        // Each begins with its time, which sorts as text; lines of one replica keep their order.
        records.sort_by(|(_, a), (_, b)| a.get(..24).cmp(&b.get(..24)));
        Ok(records)
    }

    fn print(&self, records: &[Record]) -> Result<Printed, Failure> {
        let mut text = Vec::new();
        for (at, line) in records {
            let name = &self.followers[*at].0;
            if self.followers.len() > 1 && self.form != Form::Json {
                text.extend_from_slice(format!("{name} | ").as_bytes());
            }
            match self.form {
                Form::Terminal => text.extend_from_slice(shown(line).as_bytes()),
                Form::Raw => text.extend_from_slice(line),
                Form::Json => text.extend_from_slice(object(name, line).as_bytes()),
            }
            text.push(b'\n');
        }
        print(&text)
    }
}
