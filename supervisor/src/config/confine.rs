//! What an agent's process may do: how far it is trusted, as whom and where it runs, with which environment, secrets, limits and
//! filters.
//!
//! What lives here: the types. What does not: the walk over these keys (`confine/walk.rs`, of limits `confine/limits.rs`), what of them
//! this machine must have (`confine/found.rs`, users and groups `confine/accounts.rs`), and what the kernel makes of them (`confine.rs` of the crate).

mod accounts;
mod found;
mod limits;
mod walk;

pub(super) use found::Lookup;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The keys of `[agent.NAME]` that are read here.
pub(super) const KEYS: [&str; 11] = [
    "trust",
    "user",
    "user_group",
    "cwd",
    "env_clear",
    "env_allow",
    "secrets",
    "no_new_privs",
    "seccomp",
    "landlock",
    "limits",
];

/// The largest secret, bytes.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;
/// The most secrets of an agent.
pub const SECRETS_MAX: usize = 32;
/// The most processors that an affinity can name.
pub const CPUS_MAX: u32 = 1024;

/// How far an agent is trusted: docs/trust.md says what each promises.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum Trust {
    /// It means harm: not more than its own memory and its own links are within its reach.
    Hostile,
    /// It may do anything to its own memory at any time.
    Isolated,
    /// It may be wrong, and means no harm.
    #[default]
    Trusted,
}

impl Trust {
    /// All, the most trusted first.
    pub const ALL: [Trust; 3] = [Trust::Trusted, Trust::Isolated, Trust::Hostile];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Trust::Trusted => "trusted",
            Trust::Isolated => "isolated",
            Trust::Hostile => "hostile",
        }
    }
}

/// Which system calls an agent may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Profile {
    /// All.
    #[default]
    None,
    /// All but those by which one process reaches into another, into the kernel or into the machine: these are refused.
    Default,
    /// Those that an agent needs; any other ends it.
    Strict,
}

impl Profile {
    /// All, the widest first.
    pub const ALL: [Profile; 3] = [Profile::None, Profile::Default, Profile::Strict];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Profile::None => "none",
            Profile::Default => "default",
            Profile::Strict => "strict",
        }
    }
}

/// How the kernel schedules a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scheduling {
    /// As any process.
    Other,
    /// As one that computes long.
    Batch,
    /// When nobody else wants the processor.
    Idle,
    /// Real time, first in first out, with this priority.
    Fifo(u32),
    /// Real time, in turns, with this priority.
    Rr(u32),
}

impl Scheduling {
    /// Of the swarm file's word; `None` for another.
    pub fn of(word: &str) -> Option<Scheduling> {
        let priority = |text: &str| text.parse().ok().filter(|p| (1..=99).contains(p));
        Some(match word.split_once(':') {
            None if word == "other" => Scheduling::Other,
            None if word == "batch" => Scheduling::Batch,
            None if word == "idle" => Scheduling::Idle,
            Some(("fifo", text)) => Scheduling::Fifo(priority(text)?),
            Some(("rr", text)) => Scheduling::Rr(priority(text)?),
            _ => return None,
        })
    }
}

/// Bounds of one process (and, where a cgroup holds it, its children).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Bytes that it may allocate.
    pub memory_bytes: Option<u64>,
    /// Hundredths of a processor.
    pub cpu_percent: Option<u32>,
    /// Time on a processor after which it is killed.
    pub cpu_time: Option<Duration>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// Open descriptors.
    pub open_files: Option<u32>,
    /// The largest file that it writes, bytes.
    pub file_size_bytes: Option<u64>,
    /// The largest core file, bytes.
    pub core_size_bytes: Option<u64>,
    /// Niceness.
    pub nice: Option<i32>,
    /// How it is scheduled.
    pub scheduling: Option<Scheduling>,
    /// The processors that it may run on; none for all.
    pub cpus: Vec<u32>,
}

impl Limits {
    /// Whether something is bounded that takes a control group.
    pub fn want_cgroup(&self) -> bool {
        self.memory_bytes.is_some() || self.cpu_percent.is_some() || self.processes.is_some()
    }

    /// Sets what the file leaves open.
    fn or(self, default: Limits) -> Limits {
        Limits {
            memory_bytes: self.memory_bytes.or(default.memory_bytes),
            cpu_percent: self.cpu_percent.or(default.cpu_percent),
            cpu_time: self.cpu_time.or(default.cpu_time),
            processes: self.processes.or(default.processes),
            open_files: self.open_files.or(default.open_files),
            file_size_bytes: self.file_size_bytes.or(default.file_size_bytes),
            core_size_bytes: self.core_size_bytes.or(default.core_size_bytes),
            nice: self.nice.or(default.nice),
            scheduling: self.scheduling.or(default.scheduling),
            cpus: if self.cpus.is_empty() { default.cpus } else { self.cpus },
        }
    }
}

/// What a hostile agent is bounded by if the file says nothing.
pub fn quotas() -> Limits {
    Limits {
        memory_bytes: Some(512 << 20),
        processes: Some(64),
        open_files: Some(256),
        file_size_bytes: Some(64 << 20),
        core_size_bytes: Some(0),
        ..Limits::default()
    }
}

/// Whom a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Files that a process may reach; all others it may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reach {
    /// Files and folders that it may read and execute.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may change, too.
    pub write: Vec<PathBuf>,
}

/// Everything that bounds an agent's process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Confinement {
    /// How far it is trusted.
    pub trust: Trust,
    /// Whom it runs as; `None`: whoever runs the supervisor, or a hostile agent's own number.
    pub identity: Option<Identity>,
    /// Its working folder; `None`: the supervisor's.
    pub cwd: Option<PathBuf>,
    /// Whether it is given no variable of the supervisor's environment but those in `env_allow`.
    pub env_clear: bool,
    /// Names of variables that are handed on nevertheless.
    pub env_allow: Vec<String>,
    /// Files whose content is handed over, by name.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Whether it and its children can never gain rights.
    pub no_new_privs: bool,
    /// Which system calls it may make.
    pub profile: Profile,
    /// Which files it may reach; `None`: all that its user may.
    pub reach: Option<Reach>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Confinement {
    fn default() -> Self {
        Confinement {
            trust: Trust::Trusted,
            identity: None,
            cwd: None,
            env_clear: false,
            env_allow: Vec::new(),
            secrets: BTreeMap::new(),
            no_new_privs: true,
            profile: Profile::None,
            reach: None,
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests;
