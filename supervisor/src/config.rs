//! The swarm file: what a swarm consists of, read from TOML and checked.
//!
//! What lives here: the types and the two ways in. What does not: the walk over the TOML (`config/walk.rs`,
//! `config/keys.rs`),
//! sizes and durations (`config/value.rs`), the search for commands (`config/command.rs`), errors as text
//! (`config/problem.rs`), restarts and sets (`config/restarts.rs`, `config/sets.rs`), and what follows from the file (`topology.rs`).
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `swarm.name` | how `--swarm` finds it | required |
//! | `swarm.logs` | folder of the agents' output, relative to the file | none |
//! | `swarm.orphans` | `keep` agents whose supervisor dies for the next one, or `kill` everything | `keep` |
//! | `swarm.realtime` | the real-time priority of keeper, supervisor, starts and kills, 1 ..= 99 | none |
//! | `swarm.history` | undrained predecessors of an agent that are allowed, 1 ..= 64 | 4 |
//! | `swarm.dead_letters.count`, `.bytes` | how many dead letters are kept, and how large together | 1000, 64 MiB |
//! | `swarm.crashes.count`, `.bytes` | the same of crash reports | 200, 16 MiB |
//! | `swarm.log_level` | `error`, `warn`, `info` or `debug`: what the supervisor says of itself | `info` |
//! | `swarm.log_format` | `text` or `json` | `text` |
//! | `channel.NAME.message` | name of the message type | required |
//! | `channel.NAME.capacity` | bytes per lane, 4 KiB ..= 512 MiB, rounded up to a power of two | 256 KiB |
//! | `channel.NAME.when_full` | `block`, `reject` or `drop-oldest` | `block` |
//! | `agent.NAME.command` | program and arguments | required |
//! | `agent.NAME.replicas` | 1 ..= 1000 | 1 |
//! | `agent.NAME.replicas_max` | replicas that `shoal scale` reaches without starting anybody else again, `replicas` ..= 1000 | 8 if there are several, else 1 |
//! | `agent.NAME.subscribes`, `.publishes` | names of channels | none |
//! | `agent.NAME.group` | with whom it shares the messages of its channels | its own name |
//! | `agent.NAME.prefetch` | messages of a shared lane that a process claims at once, 1 ..= 8 | 1 |
//! | `agent.NAME.restart` | a policy, or a table of `policy`, `intensity`, `period`, `backoff`, `jitter`, `on_give_up` | `Restart::default()` |
//! | `agent.NAME.stop_timeout` | until SIGKILL after a stop; 0 kills at once | 2 s |
//! | `agent.NAME.ready_timeout` | until a start counts as a death | 10 s |
//! | `agent.NAME.deadline` | how long it may hold one message without a word, 20 ms ..= 24 h | none |
//! | `agent.NAME.max_attempts` | attempts after which a message is parked with the dead letters; 0: never | 3 |
//! | `agent.NAME.on_gone` | what becomes of what it had not read when it will not return: `drop`, `dead-letter` or `block` | `drop` |
//! | `agent.NAME.standby` | spare processes that are attached and parked, 0 ..= 8 | 0, with `prefork` 1 |
//! | `agent.NAME.prefork` | its processes are forked of one that initialised once | `false` |
//! | `agent.NAME.significant` | its normal end ends the swarm | `false` |
//! | `agent.NAME.after` | agents that are ready before it is started | none |
//! | `agent.NAME.env` | environment variables, beside the inherited ones | none |
//! | `agent.NAME.trust` | `trusted`, `isolated` or `hostile` | `trusted` |
//! | `agent.NAME.user`, `.user_group` | whom it runs as; for root only | none |
//! | `agent.NAME.cwd` | its working folder | none |
//! | `agent.NAME.env_clear`, `.env_allow` | whether it inherits only these variables | `false` |
//! | `agent.NAME.secrets` | files whose content is handed over | none |
//! | `agent.NAME.no_new_privs` | it can gain no rights | `true` |
//! | `agent.NAME.seccomp` | `none`, `default` or `strict` | `none` |
//! | `agent.NAME.landlock.read`, `.write` | the only paths that it may reach | none |
//! | `agent.NAME.limits.memory`, `.cpu`, `.cpu_time`, `.processes`, `.open_files`, `.file_size`, `.core_size` | bounds of each process | none |
//! | `agent.NAME.limits.nice`, `.scheduling`, `.cpus` | how each process is scheduled | none |
//! | `set.NAME.members` | agents, and other sets, that are restarted together | required |
//! | `set.NAME.strategy` | who falls with a member that dies | `one_for_one` |
//! | `set.NAME.intensity`, `.period`, `.backoff`, `.jitter` | how often it is restarted as a whole | `Set::restart_default()` |
//! | `set.NAME.on_give_up` | what follows when that was too often | `escalate` |
//! | `hooks.started`, `.ready`, `.crash`, `.give_up`, `.stopped` | what is run when that happens to an agent | none |
//! | `hooks.timeout`, `.at_once` | how long a hook may run, how many may at once | 10 s, 4 |
//!
//! Sizes are bytes or `"64 KiB"`, durations `"5ms"`; names are 1 ..= 64 of `A-Z a-z 0-9 _ -`.

mod alike;
mod command;
mod confine;
mod hooks;
mod keys;
mod order;
mod prefork;
mod problem;
mod records;
mod restarts;
mod sets;
mod value;
mod walk;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;

pub use crate::dead_letters::Bounds;
pub use crate::hooks::Occasion;
pub use crate::on_gone::OnGone;
pub use crate::restart::{OnGiveUp, Policy, Restart};
pub use crate::strategy::Strategy;
pub use command::{find_command, own_binary};
pub use confine::{
    CPUS_MAX, Confinement, Identity, Limits, Profile, Reach, SECRET_BYTES_MAX, SECRETS_MAX, Scheduling, Trust,
};
pub use problem::{ConfigError, Problem};
pub use records::Records;
pub use shoal_runtime::layout::WhenFull;
pub(crate) use value::duration;

/// The smallest lane, bytes.
pub const CAPACITY_BYTES_MIN: u64 = 4 << 10;
/// The largest lane, bytes.
pub const CAPACITY_BYTES_MAX: u64 = 512 << 20;
/// The capacity of a lane if the file names none, bytes.
pub const CAPACITY_BYTES_DEFAULT: u64 = 256 << 10;
/// The shortest deadline.
pub const DEADLINE_MIN: Duration = Duration::from_millis(20);
/// The most replicas of an agent.
pub const REPLICAS_MAX: u32 = 1000;
/// The most messages of a shared lane that a process may claim at once.
pub const PREFETCH_MAX: u32 = 8;
/// The most standbys of a process.
pub const STANDBYS_MAX: u32 = 8;
/// The most `[agent.NAME]` tables, and the most `[channel.NAME]` tables.
pub const TABLES_MAX: usize = 1000;
/// The most processes of a swarm, all replicas counted.
pub const INSTANCES_MAX: u64 = 10_000;
/// How often a message is given before it is parked, if the file says nothing.
pub const MAX_ATTEMPTS_DEFAULT: u32 = 3;
/// The largest swarm file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A checked swarm file.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SwarmFile {
    /// Where it was read from, as the user named it.
    pub path: PathBuf,
    /// Its text, for messages that point into it.
    pub text: String,
    /// The swarm's name.
    pub name: String,
    /// The folder for the agents' output, joined to the file's folder.
    pub logs: Option<PathBuf>,
    /// How many predecessors of an agent may be undrained before its restart waits.
    pub history: u32,
    /// What becomes of the agents when the supervisor dies.
    pub orphans: Orphans,
    /// The real-time priority of supervisor, keeper, starts and kills.
    pub realtime: Option<u8>,
    /// How many dead letters are kept.
    pub dead_letters: Bounds,
    /// What else is kept for the operator: crash reports, events, the supervisor's own log.
    pub records: Records,
    /// The channels, in the order of the file.
    pub channels: Arc<Vec<Channel>>,
    /// The agents, in the order of the file.
    pub agents: Vec<Agent>,
    /// The sets of agents that are restarted together, in the order of the file.
    pub sets: Vec<Set>,
    /// What is run when something happens to an agent.
    pub hooks: Hooks,
}

/// Commands that are run when something happens to an agent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hooks {
    /// Program and arguments for each occasion that has a hook. After `read` the program is an absolute path.
    pub commands: Vec<(Occasion, Vec<String>)>,
    /// How long one may run before it is killed.
    pub timeout: Duration,
    /// How many run at once.
    pub at_once: u32,
}

/// Agents that are restarted together.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its members, in the order in which they are started. Nobody is a member of two sets.
    pub members: Vec<Member>,
    /// Who falls with a member that dies.
    pub strategy: Strategy,
    /// How often it is restarted as a whole because a member was given up, and what follows when that was too often; its
    /// policy says nothing.
    pub restart: Restart,
    /// The line of its table in the file, from 1.
    pub line: usize,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Member {
    /// An agent, with all its replicas: index into `SwarmFile::agents`.
    Agent(usize),
    /// Another set: index into `SwarmFile::sets`.
    Set(usize),
}

/// What becomes of the agents when the supervisor dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Orphans {
    /// They go on, and the next supervisor takes over.
    #[default]
    Keep,
    /// Everything ends.
    Kill,
}

impl Orphans {
    /// Both, in the order of the documentation.
    pub const ALL: [Orphans; 2] = [Orphans::Keep, Orphans::Kill];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Orphans::Keep => "keep",
            Orphans::Kill => "kill",
        }
    }
}

/// How [`WhenFull`] is written down for a successor of the supervisor.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(remote = "WhenFull")]
pub(crate) enum WhenFullWord {
    Block,
    Reject,
    DropOldest,
}

/// A named, typed stream: one lane per producer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The name of its message type.
    pub message: String,
    /// Bytes per lane, a power of two.
    pub capacity_bytes: u64,
    /// What a full lane does.
    #[serde(with = "WhenFullWord")]
    pub when_full: WhenFull,
    /// The line of its table in the file, from 1.
    pub line: usize,
}

/// A program of the swarm.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Program and arguments. After `read` the program is an absolute path; after `parse` as written.
    pub command: Vec<String>,
    /// How many processes share its work.
    pub replicas: u32,
    /// Whether a changed file does not name it any more: then it has no replicas.
    pub removed: bool,
    /// For how many of them there is a place from the start, if the file says so.
    pub replicas_max: Option<u32>,
    /// With whom it shares the messages of its channels: agents of one group, replicas or not, get each message once.
    pub group: String,
    /// How many messages of a shared lane each process claims at once.
    pub prefetch: u32,
    /// The channels it reads.
    pub subscribes: Vec<Reference>,
    /// The channels it writes.
    pub publishes: Vec<Reference>,
    /// When and how often it is started again.
    pub restart: Arc<Restart>,
    /// How long it may take to stop before it is killed.
    pub stop_timeout: Duration,
    /// How long it may take to say ready.
    pub ready_timeout: Duration,
    /// How long it may hold one message without saying that it is busy, before it counts as hung; `None`: for ever.
    pub deadline: Option<Duration>,
    /// After how many attempts a message is parked with the dead letters; 0: never.
    pub max_attempts: u32,
    /// What becomes of what it had not read when it will not return.
    pub on_gone: OnGone,
    /// How many spare processes each of its processes has, attached and parked.
    pub standby: u32,
    /// Whether its processes are forked of one that initialised once.
    pub prefork: bool,
    /// Whether the swarm ends when all its processes have ended normally, for good.
    pub significant: bool,
    /// Which agents are ready, or have ended well, before it is started, by `after` and by the order of its set: indices into
    /// `SwarmFile::agents`.
    pub after: Vec<usize>,
    /// Environment variables, beside the inherited ones.
    pub env: BTreeMap<String, String>,
    /// What bounds its processes.
    pub confinement: Arc<Confinement>,
    /// The line of its table in the file, from 1.
    pub line: usize,
}

/// An agent's mention of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Reference {
    /// Index into `SwarmFile::channels`.
    pub channel: usize,
    /// The line of the mention, from 1.
    pub line: usize,
}

/// Reads and checks a swarm file, and finds the commands of its agents.
///
/// # Errors
/// All problems of the file at once; each names file, line, column and key and says what to do.
pub fn read(path: &Path) -> Result<SwarmFile, ConfigError> {
    let text = read_text(path)?;
    let mut walked = walk::walk(path, &text);
    let places = command::Places::of(path);
    for (agent, span) in walked.swarm.agents.iter_mut().zip(&walked.command_spans) {
        let (Some(span), Some(program)) = (span, agent.command.first_mut()) else { continue };
        match places.resolve(program) {
            Ok(resolved) => *program = resolved,
            Err((what, help)) => {
                let key = format!("agent.{}.command", agent.name);
                walked.problems.push(Problem::at(&text, span.clone(), key, what, help));
            }
        }
    }
    for (hook, span) in std::mem::take(&mut walked.hook_spans) {
        let (occasion, command) = &mut walked.swarm.hooks.commands[hook];
        match places.resolve(&command[0]) {
            Ok(resolved) => command[0] = resolved,
            Err((what, help)) => {
                let key = format!("hooks.{}", occasion.word());
                walked.problems.push(Problem::at(&text, span, key, what, help));
            }
        }
    }
    for lookup in std::mem::take(&mut walked.lookups) {
        if let Some((what, help)) = lookup.fault() {
            walked.problems.push(Problem::at(&text, lookup.span, lookup.key, what, help.to_owned()));
        }
    }
    walked.finish()
}

/// Checks the text of a swarm file without looking for its commands and paths.
///
/// # Errors
/// As `read`.
pub fn parse(path: &Path, text: &str) -> Result<SwarmFile, ConfigError> {
    walk::walk(path, text).finish()
}

/// The file's text; problems that no line can be blamed for are told here.
fn read_text(path: &Path) -> Result<String, ConfigError> {
    let refuse = |what: String, help: &str| Err(ConfigError::of_file(path, what, help.to_owned()));
    // A pipe without a writer would be waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened.and_then(|file| Ok((file.metadata()?.is_file(), file))) {
        Ok((true, file)) => file,
        Ok((false, _)) => {
            return refuse(
                "the swarm file is not a regular file".into(),
                "name a TOML file, for example swarm.toml",
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse("no such swarm file".into(), "check the path, or write the file first");
        }
        Err(error) => {
            return refuse(format!("the swarm file cannot be opened: {error}"), "make it readable for you");
        }
    };
    let mut bytes = Vec::new();
    if let Err(error) = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes) {
        let help = "name a TOML file, for example swarm.toml";
        return refuse(format!("the swarm file cannot be read: {error}"), help);
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let help = "name a TOML file; generate fewer agents, or use `replicas`";
        return refuse(format!("the swarm file is larger than {FILE_BYTES_MAX} bytes"), help);
    }
    String::from_utf8(bytes).or_else(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        refuse(format!("line {line} of the swarm file is not UTF-8"), "save it as UTF-8 text")
    })
}

#[cfg(test)]
mod tests;
