//! The control socket: who may ask the supervisor, and the words of asking.
//!
//! One JSON object per line each way. A client asks, waits for the answer, and may then ask again; answers may come
//! long after their question (`stop` waits until the agent stopped), so a client that asks twice at once is told so
//! and cut off. Nobody but this user and root is heard.
//!
//! ```text
//!   {"ask":"ps"}                      ──►   {"answer":"ps","swarm":"wordcount","agents":[…]}
//!   {"ask":"stop","name":"worker.1"}  ──►   {"answer":"done","text":"worker.1 stopped"}
//! ```
//! What lives here: the words, and who a name means. What does not: sockets (`control/server.rs`), answers
//! (the event loop), the asking side (`cli/client.rs`).

mod server;
pub mod status;

use std::path::PathBuf;

use crate::config::OnGone;
use crate::reload::Plan;
use serde::{Deserialize, Serialize};

pub(crate) use server::address_of;
pub use server::{ClientId, Control};

/// The longest question, bytes, its end of line not counted.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The most that waits for a slow reader before it is cut off, bytes. Ten thousand agents need 2 MiB.
pub const UNSENT_BYTES_MAX: usize = 8 << 20;
/// The longest answer that who asks reads, bytes.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The most clients at once; then the one that idles longest gives way.
pub const CLIENTS_MAX: usize = 64;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// How are the agents?
    Ps,
    /// Stop these agents; answered when they stopped.
    Stop {
        /// An agent (all its replicas) or one replica, as in `is_meant`.
        name: String,
    },
    /// Start these agents; answered when they are ready.
    Start {
        /// As in `Stop`.
        name: String,
        /// How long that is waited for; none for as long as it takes.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Stop and start these agents; answered when they are ready again.
    Restart {
        /// As in `Stop`.
        name: String,
        /// As in `Start`.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Kill these agents' processes, to see them come back; or send them another signal.
    Kill {
        /// As in `Stop`.
        name: String,
        /// The signal's number; none for SIGKILL to the whole tree.
        #[serde(default)]
        signal: Option<i32>,
    },
    /// How is the swarm?
    Status,
    /// Say when these agents are ready, or have ended.
    Wait {
        /// As in `Stop`; none for all.
        name: Option<String>,
        /// For their end.
        ended: bool,
    },
    /// Stop the whole swarm; answered when it is over.
    Down,
    /// Let these agents take nothing new; answered when they hold no message.
    Pause {
        /// As in `Stop`.
        name: String,
    },
    /// Let these agents go on.
    Resume {
        /// As in `Stop`.
        name: String,
    },
    /// Replay dead letters; answered when they lie in the lanes of those that gave them up.
    Replay {
        /// Their numbers; none for all.
        ids: Option<Vec<u64>>,
    },
    /// What is in memory of crash reports?
    Crashes {
        /// As in `Stop`; none for all.
        name: Option<String>,
    },
    /// What happened?
    Events {
        /// From this number on.
        from: u64,
        /// If that has not happened yet: answered when it has.
        wait: bool,
    },
    /// Apply a changed swarm file; answered when it is applied and who was started for it is ready or has had its time, or when it is undone.
    Reload {
        /// The file, absolute; none for the one that the swarm runs.
        file: Option<PathBuf>,
        /// What becomes of what agents that it does not name have not read; none for what was said of each.
        #[serde(default)]
        on_gone: Option<OnGone>,
        /// Only say what would be done.
        dry_run: bool,
        /// How long it may take: until agents are stopped and read, or it is undone; then until those that are started are ready.
        timeout_ms: u64,
    },
    /// Run another number of replicas of an agent; answered as `Reload`.
    Scale {
        /// An agent.
        name: String,
        /// How many.
        replicas: u32,
        /// As in `Reload`.
        dry_run: bool,
        /// As in `Reload`.
        timeout_ms: u64,
    },
    /// Replace the replicas of an agent one by one; answered when all run the new command, or the former one again, or when that has had
    /// its time.
    Upgrade {
        /// An agent.
        name: String,
        /// The new command; none for what the swarm file says now.
        command: Option<Vec<String>>,
        /// How long each must live.
        prove_ms: u64,
        /// Or how many messages it must have met.
        prove_messages: Option<u64>,
        /// How long all of it is waited for; none for as long as it takes.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// Stop the whole swarm.
    Shutdown,
    /// What swarm is this?
    Info,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Response {
    /// How the agents are.
    Ps(PsReport),
    /// It is done.
    Done {
        /// What was done.
        text: String,
    },
    /// What became of a reload, a change of scale or an upgrade.
    Change(Box<ChangeReport>),
    /// What swarm this is.
    Info(SwarmInfo),
    /// How the swarm is.
    Status(Box<status::StatusReport>),
    /// An order was carried out.
    Ordered {
        /// What was done, in words.
        text: String,
        /// With which agents.
        agents: Vec<String>,
    },
    /// The swarm is over.
    Down(DownReport),
    /// What is known of deaths.
    Crashes {
        /// Oldest first.
        crashes: Vec<crate::crash::Crash>,
    },
    /// What happened.
    Events {
        /// Oldest first; those that are kept.
        events: Vec<crate::events::Event>,
        /// The number of the next one.
        next: u64,
    },
    /// It is not done.
    Error {
        /// Why, and what to do.
        text: String,
    },
    /// It cannot be done here, nor later: what was asked for is not there, or not right.
    BadInput {
        /// As in `Error`.
        text: String,
    },
}

/// What became of a change to a running swarm; as JSON what `shoal reload --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What was done, or would be.
    pub plan: Option<Plan>,
    /// What nobody will read, because its readers are removed.
    pub unread: Vec<String>,
    /// Agents that were started for it and given up.
    pub failed: Vec<String>,
    /// Agents that were started for it and are not ready in time; of an upgrade those whose turn is not over.
    #[serde(default)]
    pub late: Vec<String>,
    /// Why nothing came of it; of an upgrade that is under way how far it is.
    pub why: Option<String>,
}

impl ChangeReport {
    /// A report with nothing but its outcome.
    pub fn of(outcome: Outcome) -> ChangeReport {
        let (unread, failed, late) = (Vec::new(), Vec::new(), Vec::new());
        ChangeReport { outcome, plan: None, unread, failed, late, why: None }
    }
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was only asked what would be done.
    Planned,
    /// There was nothing to do.
    Unchanged,
    /// It is done.
    Applied,
    /// Everything is as it was.
    Undone,
    /// The new command did not prove itself; all run the former one.
    RolledBack,
    /// An upgrade is not done in time, and goes on.
    UnderWay,
}

impl Outcome {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Planned => "planned, not applied",
            Outcome::Unchanged => "unchanged",
            Outcome::Applied => "applied",
            Outcome::Undone => "undone",
            Outcome::RolledBack => "rolled back",
            Outcome::UnderWay => "under way",
        }
    }
}

/// What swarm this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInfo {
    /// Its name.
    pub swarm: String,
    /// The process that was started, and that ends it: signals go there.
    pub pid: u32,
    /// Its supervisor, at the moment.
    #[serde(default)]
    pub supervisor: u32,
    /// Since when that watches all agents, CLOCK_MONOTONIC ns; 0 where a supervisor has no successor.
    #[serde(default)]
    pub watching_ns: u64,
    /// When this supervisor last published a verdict, CLOCK_MONOTONIC ns; 0 if it has published none.
    #[serde(default)]
    pub last_verdict_ns: u64,
    /// Where its agents' output goes, absolute.
    pub logs: PathBuf,
    /// Its swarm file, absolute.
    pub file: PathBuf,
}

/// How a swarm ended; as JSON what `shoal down --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownReport {
    /// The swarm's name.
    pub swarm: String,
    /// Whether it was ended by SIGKILL, because it was asked twice.
    pub killed: bool,
    /// Agents that had been given up.
    pub failed: Vec<String>,
    /// What nobody read.
    pub unread: Vec<Unread>,
}

/// Messages that an agent did not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Who should have read them: an agent, or a group that shares them.
    pub agent: String,
    /// From where.
    pub channel: String,
    /// How many.
    pub count: u64,
}

/// How the agents are; as JSON what `shoal ps --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsReport {
    /// The swarm's name.
    pub swarm: String,
    /// Its agents, replicas side by side, in the order of the swarm file.
    pub agents: Vec<PsAgent>,
    /// Its sets of agents that are restarted together, in the order of the swarm file.
    #[serde(default)]
    pub sets: Vec<PsSet>,
    /// What of a reload or an upgrade is under way, in words.
    #[serde(default)]
    pub under_way: Option<String>,
    /// Agents of the swarm file that are scaled to nothing, and not among the others.
    #[serde(default)]
    pub scaled_to_nothing: Vec<String>,
}

/// How a set of agents is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsSet {
    /// Its name.
    pub name: String,
    /// Its members, agents and sets, in the order in which they are started.
    pub members: Vec<String>,
    /// Who falls with a member that dies: `one_for_one`, `rest_for_one` or `one_for_all`.
    pub strategy: String,
    /// How often it was restarted as a whole, because a member was given up.
    pub restarts: u64,
    /// What it is doing.
    pub state: PsSetState,
}

/// What a set of agents is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PsSetState {
    /// Nothing: its members live their own lives.
    Running,
    /// Some of its members, or of the sets around it, are stopped and started again.
    Restarting,
    /// It was given up.
    Failed,
}

/// How one agent, or one replica of it, is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsAgent {
    /// `worker.1` to `worker.4` if there are four replicas, else the agent's own name.
    pub name: String,
    /// The set that it is a member of, if it is.
    #[serde(default)]
    pub set: Option<String>,
    /// Its process; none while there is none.
    pub pid: Option<u32>,
    /// The latest generation.
    pub generation: u64,
    /// Where it is in its life.
    pub state: PsState,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it was found asleep though work waited for it, and rung: never, in a healthy swarm.
    pub rescues: u64,
    /// How often it held a message beyond its deadline, and was aborted.
    pub hangs: u64,
    /// Processes of standbys that are parked, ready to take over, oldest first.
    #[serde(default)]
    pub standbys: Vec<u32>,
    /// Standbys that the swarm file wants.
    #[serde(default)]
    pub standbys_wanted: u64,
    /// The process that its processes are forked of, once it can be.
    #[serde(default)]
    pub zygote: Option<u32>,
    /// Since its process was started; 0 while there is none.
    pub uptime_ms: u64,
    /// Its proportional share of memory.
    pub pss_kib: u64,
    /// Messages sent, by all its generations.
    pub sent: u64,
    /// Messages received, by all its generations.
    pub received: u64,
    /// Median time from publish to poll; none while nothing was measured.
    pub p50_ns: Option<u64>,
    /// The 99th percentile of the same.
    pub p99_ns: Option<u64>,
    /// What of its confinement could not be applied here, in words.
    #[serde(default)]
    pub unapplied: Vec<String>,
}

/// Where an agent is in its life, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PsState {
    /// It has not said ready yet.
    Starting,
    /// It said ready.
    Ready,
    /// It said ready, and takes nothing new because an operator wants it so.
    Paused,
    /// It said ready, and a signal has stopped its process.
    Suspended,
    /// It is being ended, or its end is being proved.
    Stopping,
    /// Dead; its next start is waited for.
    Backoff,
    /// Ended as it should.
    Stopped,
    /// Given up.
    Failed,
}

impl PsState {
    /// Every state, the good ones first.
    pub const ALL: [PsState; 8] = [
        PsState::Ready,
        PsState::Paused,
        PsState::Suspended,
        PsState::Starting,
        PsState::Stopping,
        PsState::Backoff,
        PsState::Stopped,
        PsState::Failed,
    ];

    /// The word that people and JSON see.
    pub fn word(self) -> &'static str {
        match self {
            PsState::Starting => "starting",
            PsState::Ready => "ready",
            PsState::Paused => "paused",
            PsState::Suspended => "suspended",
            PsState::Stopping => "stopping",
            PsState::Backoff => "backoff",
            PsState::Stopped => "stopped",
            PsState::Failed => "failed",
        }
    }
}

/// Whether an operator who says `name` means this instance: by its own name, or by its agent's (`worker` means
/// `worker.1` and all others).
pub fn is_meant(name: &str, instance: &str) -> bool {
    name == instance || agent_of(instance) == name
}

/// The word that means every agent, unless one has this name.
pub const ALL: &str = "all";

/// The agent that an instance is a replica of: `worker` of `worker.1`. Agents' own names hold no dot.
pub fn agent_of(instance: &str) -> &str {
    match instance.rsplit_once('.') {
        Some((agent, replica)) if replica.parse::<u32>().is_ok() => agent,
        _ => instance,
    }
}

/// The known word that a mistyped one probably means.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), *k))
        .filter(|(distance, k)| *distance <= (k.chars().count() / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// The commands that show what these instances printed: one an agent, of one instance if that is the only one.
pub fn logs_of(instances: &[String]) -> String {
    let mut commands: Vec<String> = Vec::new();
    for instance in instances {
        let agent = agent_of(instance);
        let several = instances.iter().filter(|other| agent_of(other) == agent).count() > 1;
        let command = format!("`shoal logs {}`", if several { agent } else { instance });
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands.join(", ")
}

#[cfg(test)]
mod tests;
