//! The command line.
//!
//! | status | when |
//! |---|---|
//! | 0 | done; also when nobody reads our output any more, and after `--help` |
//! | 1 | the operation failed: no swarm runs, the supervisor ended or refused, an agent did not stop, a result differs |
//! | 2 | wrong usage or bad input: unknown command, option or agent, no such swarm, a swarm file with problems, a start that fails |
//! | 3 | `status`, `down` and `wait` only: no such swarm is running |
//!
//! What each command means by them stands in `docs/operations.md`.
//!
//! Text for people goes to standard error, what was asked for to standard output. Here is what is asked; how it is
//! asked of a running supervisor is in `cli/client.rs`, each larger command has a file.

mod change;
mod client;
mod dlq;
mod doctor;
mod down;
mod duration;
mod follow;
mod logs;
mod named;
mod papers;
mod past;
mod ps;
mod signal;
mod status;
mod up;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::control::Request;
use crate::herald::Manner;
use crate::run_dir::Place;

/// The operation failed.
pub const FAILED: u8 = 1;
/// Wrong usage or bad input.
pub const BAD_INPUT: u8 = 2;
/// No such swarm is running: where that is an answer.
pub const NOT_RUNNING: u8 = 3;

/// A crash-proof swarm of agent processes that exchange messages through shared memory.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, max_term_width = 100, after_help = STATUSES)]
struct Shoal {
    /// The swarm that is meant; not needed while only one is running
    #[arg(long, global = true, value_name = "NAME", env = crate::spawn::SWARM_ENV)]
    swarm: Option<String>,
    #[command(subcommand)]
    command: Command,
}

const STATUSES: &str = "Exit status: 0 done, 1 the operation failed, 2 wrong usage or bad input, 3 not running \
                        (status, down, wait).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the swarm of a swarm file and run it until it ends or is interrupted
    Run {
        /// The swarm file
        file: PathBuf,
        /// Be the process that `up -d` starts: an own session, `ready` on standard output when all agents are
        #[arg(long, hide = true)]
        daemon: bool,
        /// Print one JSON object a line: of what agents print, and of all that the supervisor says
        #[arg(long, conflicts_with = "daemon")]
        json: bool,
    },
    /// Start the swarm of a swarm file: in the foreground as `run`, or with -d in the background
    Up(up::UpOptions),
    /// End a swarm in order, wait for its end, and say what was left unread
    Down(down::DownOptions),
    /// Say whether a swarm, or one agent, is well
    Status(status::StatusOptions),
    /// Wait until agents are ready, or have ended
    Wait(wait::WaitOptions),
    /// Check a swarm file without running it
    Check {
        /// The swarm file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the agents of a running swarm
    Ps {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print what an agent printed
    Logs(logs::LogsOptions),
    /// Print what happened: starts, deaths, changes of state, orders, hangs, and all else
    Events(past::EventsOptions),
    /// Show what is known of deaths: crash reports, all or of one agent, or one of them in full
    Crashes(past::CrashesOptions),
    /// Stop an agent (all its replicas), or one replica such as worker.1, and wait until it stopped
    Stop(Order),
    /// Start a stopped agent or replica
    Start(TimedOrder),
    /// Stop an agent or replica and start it again
    Restart(TimedOrder),
    /// Kill an agent or replica with SIGKILL, to see it come back; or send its process another signal
    Kill {
        #[command(flatten)]
        order: Order,
        /// The signal, by name or number; what comes of it counts as the agent's own doing
        #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal::parse)]
        signal: i32,
    },
    /// Let an agent finish what it has in hand and take nothing new; it stays paused over restarts
    Pause(Order),
    /// Let a paused agent go on
    Resume(Order),
    /// Look at the messages that agents gave up (dead letters): list, show, replay, purge
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Try what the kernel and the limits here give, say what each lack means, and find what former runs left
    Doctor(doctor::DoctorOptions),
    /// Try one thing of the kernel, in a process of its own
    #[command(hide = true)]
    DoctorProbe {
        /// Which
        what: String,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// Write `shoal.1`, `shoal-ps.1` and so on into this folder
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print a systemd unit that runs a swarm file
    Unit {
        /// The swarm file
        file: PathBuf,
    },
    /// Count the files of a tree with a swarm whose agents are killed meanwhile, and compare with a plain count
    Demo(DemoOptions),
    /// Apply a changed swarm file to the swarm that runs; who is not concerned goes on
    Reload(change::ReloadOptions),
    /// Run another number of replicas of an agent
    Scale(change::ScaleOptions),
    /// Replace the replicas of an agent one by one, and go back if the new command does not prove itself
    Upgrade(change::UpgradeOptions),
    /// Be the demo's supervisor
    #[command(hide = true)]
    DemoSupervisor,
    /// Kill, stop and restart agents of a swarm at full speed, at random, and count what is lost, doubled, out of order or damaged
    Chaos(ChaosOptions),
    /// Measure latency, throughput, messages, steps, fans, starts and recoveries, each beside its floor
    Bench(BenchOptions),
    /// Measure the project's eight targets with real processes, and write a report that says which hold
    Certify(crate::certify::command::CertifyOptions),
    /// Be a process that is measured
    #[command(hide = true)]
    BenchPeer {
        /// `born`: say so, and wait; `swarm AGENTS PID`: run so many idle agents for the process of this number
        what: Vec<String>,
    },
    /// Be an agent of the demo, chaos or bench, or the one that replays dead letters
    #[command(hide = true, disable_help_flag = true)]
    Agent {
        /// Which one, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "NAME")]
        args: Vec<OsString>,
    },
}

/// Whom an order is for.
#[derive(Debug, Args)]
struct Order {
    /// An agent, or one replica of it; `all` means every agent
    name: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// An order that ends with agents that are ready.
#[derive(Debug, Args)]
struct TimedOrder {
    #[command(flatten)]
    order: Order,
    /// How long that is waited for; it goes on when the time is over
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

impl TimedOrder {
    fn timeout_ms(&self) -> Option<u64> {
        u64::try_from(self.timeout.as_millis()).ok()
    }
}

/// What `shoal demo` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoOptions {
    /// The tree to count; default: the current folder without `target` and `.git`
    pub dir: Option<PathBuf>,
    /// Kill an agent this often, such as `50ms` or `1s`; 0 kills none
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = duration::parse)]
    pub kill_every: Duration,
    /// Repeat passes until this many kills were proven
    #[arg(long, value_name = "N")]
    pub kills: Option<u64>,
    /// How many workers; default: by the number of processors
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroU32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Do not fail because a file was changed meanwhile
    #[arg(long)]
    pub allow_changes: bool,
}

/// What `shoal chaos` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ChaosOptions {
    /// For how long, such as `25s` or `10m`
    #[arg(long = "for", value_name = "DURATION", default_value = "25s", value_parser = duration::parse)]
    pub time: Duration,
    /// Go on after that until this many kills were proven
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub kills: u64,
    /// Go on after that until this many messages were received
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub messages: u64,
    /// Draw whom, what and when from this number; default: a new one, which is printed
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Disturbances a second
    #[arg(long, value_name = "N", default_value_t = 75, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Kill the supervisor at random, too
    #[arg(long)]
    pub kill_supervisor: bool,
    /// Reload changed swarm files and upgrade agents at random, too, also to commands that must be rolled back
    #[arg(long)]
    pub changes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `shoal bench` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct BenchOptions {
    /// Only this: latency, throughput, placement, sparse, text, message, step, fan, spawn, recovery, hardship, removal, hang, scale, takeover or orphans; `scenario` lists swarms with a job, and runs one
    pub case: Option<String>,
    /// Which scenario, or `all`
    pub scenario: Option<String>,
    /// Write the results as JSON; `-` prints them alone on standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Say what is faster or slower than in a former run's JSON
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Measure nothing: take the results from this JSON, to show, compare or report them
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Write a page with plots into this folder
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Send a tenth of the messages: to see that it works, not how fast
    #[arg(long)]
    pub quick: bool,
}

/// Why a command failed, and the status that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    text: String,
    /// What was printed tells it already.
    is_printed: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    fn failed(text: impl Into<String>) -> Failure {
        Failure { status: FAILED, text: text.into(), is_printed: false }
    }

    fn bad_input(text: impl Into<String>) -> Failure {
        Failure { status: BAD_INPUT, text: text.into(), is_printed: false }
    }

    /// That of a command that has printed what was asked for, which tells it, too.
    fn printed(text: impl Into<String>) -> Failure {
        Failure { is_printed: true, ..Failure::failed(text) }
    }

    /// Says it, with `json` also as an object on standard output; the status that it means.
    fn tell(self, json: bool) -> ExitCode {
        let Failure { status, text, is_printed } = self;
        if !text.is_empty() {
            // Nowhere to say it if standard error is gone; the status tells.
            let _ = writeln!(io::stderr(), "shoal: {text}");
        }
        if json && !is_printed {
            print_error(&text);
        }
        ExitCode::from(status)
    }
}

/// Where this user's swarms are.
fn own_place() -> Result<Place, Failure> {
    Place::of_user().map_err(|error| Failure::bad_input(error.to_string()))
}

/// Whether a command takes an option, by the name of its field.
pub(crate) fn takes(command: &str, option: &str) -> bool {
    let whole = Shoal::command();
    let found = whole.find_subcommand(command);
    found.is_some_and(|command| command.get_arguments().any(|arg| arg.get_id() == option))
}

/// Is an agent of this binary's own.
fn agent(args: &[OsString]) -> ExitCode {
    match args.split_first() {
        Some((first, rest)) if first == crate::hooks::NAME => crate::hooks::wear(rest),
        Some((first, rest)) if first == crate::postman::NAME => crate::postman::main(rest),
        Some((first, rest)) if first == crate::stand_in::NAME => crate::stand_in::main(rest),
        Some((first, rest)) if first == "chaos" => crate::chaos::agents::main(rest),
        Some((first, rest)) if first == "bench" => crate::bench::agents::main(rest),
        Some((first, rest)) if first == "scenario" => crate::scenario::agents::main(rest),
        _ => crate::demo::agents::main(args),
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // An agent of ours is one process of a thousand, and begins in the middle of a recovery: it does without the tree of all commands,
    // which takes 100 KiB.
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [first, args @ ..] = &words[..]
        && first == "agent"
        && !args.is_empty()
    {
        return agent(args);
    }
    let (Shoal { swarm, command }, matches) = match parsed() {
        Ok(parsed) => parsed,
        Err(status) => return status,
    };
    let json = wants_json(&matches);
    match named::meant(swarm, &matches, &command) {
        Ok(swarm) => perform(command, swarm.as_deref()),
        Err(failure) => Err(failure),
    }
    .unwrap_or_else(|failure| failure.tell(json))
}

/// What the command line says.
///
/// # Errors
/// The status, where that was help, or is no command line of ours: what there is to say is said.
fn parsed() -> Result<(Shoal, ArgMatches), ExitCode> {
    let parsed = Shoal::command().try_get_matches().and_then(|m| Ok((Shoal::from_arg_matches(&m)?, m)));
    parsed.map_err(|said| {
        let status = u8::try_from(said.exit_code()).unwrap_or(BAD_INPUT);
        match said.print().and_then(|()| io::stdout().flush()) {
            Err(error) if status == 0 && error.kind() != io::ErrorKind::BrokenPipe => {
                unwritten(&error).tell(false)
            }
            _ => ExitCode::from(status),
        }
    })
}

/// Whether an object is to be printed. (A command whose `--json` takes a file sees to that itself.)
fn wants_json(matches: &ArgMatches) -> bool {
    let mut last = matches;
    while let Some((_, of_command)) = last.subcommand() {
        last = of_command;
    }
    matches!(last.try_get_one("json"), Ok(Some(true)))
}

fn perform(command: Command, swarm: Option<&str>) -> Result<ExitCode, Failure> {
    match command {
        Command::Run { file, daemon, json } => return Ok(crate::run::run(&file, Manner::of(daemon, json))),
        Command::Check { file, json } => return Ok(crate::check::check(&file, json)),
        Command::Demo(options) => return Ok(crate::demo::command::demo(&options)),
        Command::DemoSupervisor => return Ok(crate::demo::backstage::main()),
        Command::Chaos(options) => return Ok(crate::chaos::command::chaos(&options)),
        Command::Certify(options) => return Ok(crate::certify::command::certify(&options)),
        Command::Bench(options) => return Ok(crate::bench::command::bench(&options)),
        Command::BenchPeer { what } => return Ok(crate::bench::peer(&what)),
        Command::Agent { args } => return Ok(agent(&args)),
        Command::Doctor(options) => return doctor::doctor(&options),
        Command::DoctorProbe { what } => return Ok(crate::doctor::probe::child_main(&what)),
        Command::Completions { shell } => papers::completions(shell),
        Command::Man { dir } => papers::man(dir.as_deref()),
        Command::Unit { file } => papers::unit(&file),
        Command::Reload(options) => change::reload(swarm, &options),
        Command::Scale(options) => change::scale(swarm, &options),
        Command::Upgrade(options) => change::upgrade(swarm, &options),
        Command::Ps { json } => ps::ps(swarm, json),
        Command::Dlq(command) => dlq::dlq(swarm, &command),
        Command::Logs(options) => logs::logs(swarm, &options),
        Command::Events(options) => past::events(swarm, &options),
        Command::Crashes(options) => past::crashes(swarm, &options),
        Command::Up(options) => return up::up(&options),
        Command::Down(options) => down::down(swarm, &options),
        Command::Status(options) => status::status(swarm, &options),
        Command::Wait(options) => wait::wait(swarm, &options),
        Command::Stop(order) => client::order(swarm, &order, |name| Request::Stop { name }),
        Command::Start(timed) => {
            let timeout_ms = timed.timeout_ms();
            client::order(swarm, &timed.order, |name| Request::Start { name, timeout_ms })
        }
        Command::Pause(order) => client::order(swarm, &order, |name| Request::Pause { name }),
        Command::Resume(order) => client::order(swarm, &order, |name| Request::Resume { name }),
        Command::Restart(timed) => {
            let timeout_ms = timed.timeout_ms();
            client::order(swarm, &timed.order, |name| Request::Restart { name, timeout_ms })
        }
        Command::Kill { order, signal } => {
            let signal = Some(signal).filter(|number| *number != nix::libc::SIGKILL);
            client::order(swarm, &order, |name| Request::Kill { name, signal })
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard output. That nobody reads it any more (`shoal ps | head -1`) is no failure.
///
/// # Errors
/// A full disk, for example.
pub(crate) fn print(text: &[u8]) -> Result<Printed, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Whole),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::NobodyReads),
        Err(error) => Err(unwritten(&error)),
    }
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::failed(format!("writing to standard output: {error}"))
}

/// Prints why a command failed for who asked for objects.
pub(crate) fn print_error(text: &str) {
    // Whether anybody reads it does not change what failed.
    let _ = print(format!("{}\n", serde_json::json!({ "error": text.trim_end() })).as_bytes());
}

/// One line of JSON.
fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(text + "\n")
}

/// What became of text for standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    /// It was written.
    Whole,
    /// There is no reader, and there will be none.
    NobodyReads,
}

#[cfg(test)]
mod tests;
