//! What an agent's process may do: how far it is trusted, as whom and where it runs, with which environment, secrets, limits and
//! filters. Types, and the walk over these keys; what the kernel makes of them is `confine.rs` of the crate.

use super::keys::{Entry, Span, Table};
use super::value::DURATION_MAX;
use super::walk::Walker;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

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

impl Walker<'_> {
    /// Reads what bounds an agent.
    pub(super) fn confinement(&mut self, table: &Table<'_>) -> Confinement {
        let trust = self.optional_text(table, "trust").and_then(|(word, entry)| {
            self.word(&word, &entry, "the tiers of trust", &Trust::ALL, Trust::word)
        });
        let trust = trust.unwrap_or_default();
        let profile = self
            .optional_text(table, "seccomp")
            .and_then(|(word, entry)| self.word(&word, &entry, "the profiles", &Profile::ALL, Profile::word));
        let (least, quotas) = match trust {
            Trust::Trusted => (Profile::None, Limits::default()),
            Trust::Isolated => (Profile::Default, Limits::default()),
            Trust::Hostile => (Profile::Strict, quotas()),
        };
        let (no_new_privs, env_clear) = (self.flag(table, "no_new_privs"), self.flag(table, "env_clear"));
        let confinement = Confinement {
            trust,
            identity: self.identity(table),
            cwd: self.path_of(table, "cwd", Wanted::Folder),
            env_clear: env_clear.unwrap_or(trust == Trust::Hostile),
            env_allow: self.env_allow(table),
            secrets: self.secrets(table),
            no_new_privs: no_new_privs.unwrap_or(true),
            profile: profile.unwrap_or(least),
            // A hostile agent reaches no file but its program's.
            reach: self.reach(table).or((trust == Trust::Hostile).then(Reach::default)),
            limits: self.limits(table).or(quotas),
        };
        self.check_promises(table, &confinement, least);
        confinement
    }

    /// Notes what would take back what the tier promises.
    fn check_promises(&mut self, table: &Table<'_>, confinement: &Confinement, least: Profile) {
        let (trust, profile) = (confinement.trust.word(), confinement.profile);
        let filtered =
            confinement.trust != Trust::Trusted || profile != Profile::None || confinement.reach.is_some();
        if let Some(entry) = table.get("no_new_privs").filter(|_| filtered && !confinement.no_new_privs) {
            let help = "leave it out, or leave out seccomp, landlock and trust below \"trusted\"";
            self.note(entry.span, &entry.key, "the kernel filters only who can gain no new rights", help);
        }
        if let Some(entry) = table.get("seccomp").filter(|_| (profile as u8) < least as u8) {
            let what = format!("agents that are {trust} need seccomp = \"{}\" at least", least.word());
            self.note(entry.span, &entry.key, what, "leave it out");
        }
        if confinement.trust == Trust::Hostile
            && let Some(entry) = table.get("replicas").filter(|_| self.replicas_of(table) > 1)
        {
            let what = "hostile agents are members of no group, so they have no replicas";
            self.note(entry.span, &entry.key, what, "write several agents, each with a channel of its own");
        }
    }

    fn replicas_of(&self, table: &Table<'_>) -> u32 {
        match table.get("replicas").map(|entry| entry.value) {
            Some(DeValue::Integer(number)) => {
                u32::from_str_radix(number.as_str(), number.radix()).unwrap_or(1)
            }
            _ => 1,
        }
    }

    /// Notes groups whose members are not of one trust, and hostile members; `tables` are the agents'.
    pub(super) fn check_groups(&mut self, tables: &[Table<'_>]) {
        for (index, table) in tables.iter().enumerate() {
            let own = &self.swarm.agents[index];
            let (trust, name) = (own.confinement.trust, own.name.clone());
            let mates = self.swarm.agents.iter().enumerate();
            let mates = mates.filter(|(other, agent)| *other != index && agent.group == own.group);
            let shares = |agent: &super::Agent| {
                agent.subscribes.iter().any(|r| own.subscribes.iter().any(|o| o.channel == r.channel))
            };
            let mut mates = mates.filter(|(_, agent)| shares(agent)).map(|(_, agent)| agent);
            let odd = mates.find(|agent| trust == Trust::Hostile || agent.confinement.trust > trust);
            let Some(odd) = odd else { continue };
            let what = match trust {
                Trust::Hostile => {
                    format!("hostile agents are members of no group, and {name} would be with {}", odd.name)
                }
                _ => format!(
                    "a group's members write one claim table, so they are trusted alike: {name} is {}, {} is {}",
                    trust.word(),
                    odd.name,
                    odd.confinement.trust.word()
                ),
            };
            let entry = table.get("group").or_else(|| table.get("trust"));
            let span = entry.as_ref().map_or(table.span.clone(), |entry| entry.span.clone());
            let key = entry.map_or(table.key.clone(), |entry| entry.key);
            self.note(span, &key, what, "give it a group of its own, or the same `trust`");
        }
    }

    fn identity(&mut self, table: &Table<'_>) -> Option<Identity> {
        let group = self.optional_text(table, "user_group");
        let Some((user, entry)) = self.optional_text(table, "user") else {
            if let Some((_, entry)) = group {
                self.note(entry.span, &entry.key, "a group without a user", "add user = \"NAME\"");
            }
            return None;
        };
        let found = found_user(&user);
        if found.is_none() {
            let what = format!("no user {user:?} on this machine");
            self.note(entry.span.clone(), &entry.key, what, "write a user's name, or its number");
        }
        if !rustix::process::geteuid().is_root() && found.is_some_and(|(uid, _)| uid != own_uid()) {
            let help = "run the supervisor as root, or leave it out";
            self.note(entry.span, &entry.key, "only root may run agents as somebody else", help);
        }
        let (uid, mut gid) = found?;
        if let Some((name, entry)) = group {
            match found_group(&name) {
                Some(found) => gid = found,
                None => {
                    let what = format!("no group {name:?} on this machine");
                    self.note(entry.span, &entry.key, what, "write a group's name, or its number");
                }
            }
        }
        Some(Identity { uid, gid })
    }

    /// A path relative to the swarm file's folder, checked for words only.
    fn path_of(&mut self, table: &Table<'_>, name: &str, wanted: Wanted) -> Option<PathBuf> {
        let (text, entry) = self.optional_text(table, name)?;
        if text.is_empty() || text.contains('\0') {
            self.note(entry.span, &entry.key, "this is not a path", "name a folder, or leave the key out");
            return None;
        }
        Some(self.look_up(&text, entry.span, entry.key, wanted))
    }

    /// The path beside the swarm file; whether it is there is looked at later.
    fn look_up(&mut self, text: &str, span: Span, key: String, wanted: Wanted) -> PathBuf {
        let path = self.beside(text);
        self.lookups.push(Lookup { span, key, path: path.clone(), wanted });
        path
    }

    fn beside(&self, text: &str) -> PathBuf {
        let folder = std::path::absolute(&self.swarm.path).unwrap_or_else(|_| self.swarm.path.clone());
        folder.parent().unwrap_or(Path::new("/")).join(text).components().collect()
    }

    fn env_allow(&mut self, table: &Table<'_>) -> Vec<String> {
        let help = "write a list of names, for example env_allow = [\"PATH\", \"HOME\"]";
        let Some(entry) = table.get("env_allow") else { return Vec::new() };
        let names = self.texts(&entry, help).unwrap_or_default();
        for (name, span) in &names {
            if name.is_empty() || name.contains(['=', '\0']) {
                let what = format!("{name:?} cannot name an environment variable");
                self.note(span.clone(), &entry.key, what, "use a name without `=` and NUL");
            }
        }
        names.into_iter().map(|(name, _)| name).collect()
    }

    fn secrets(&mut self, table: &Table<'_>) -> BTreeMap<String, PathBuf> {
        let mut secrets = BTreeMap::new();
        let Some(table) = table.get("secrets").and_then(|entry| self.table(&entry)) else { return secrets };
        for entry in &table.entries {
            let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            if entry.name.is_empty() || entry.name.len() > 64 || entry.name.contains(odd) {
                let what = format!("{:?} cannot name a secret", entry.name);
                let help = "use 1 to 64 letters, digits and `_`";
                self.note(entry.key_span.clone(), &entry.key, what, help);
            }
            let Some(path) = self.path_of(&table, entry.name, Wanted::Secret) else { continue };
            secrets.insert(entry.name.to_owned(), path);
        }
        if secrets.len() > SECRETS_MAX {
            let what = format!("{} secrets are too many", secrets.len());
            let help = format!("name {SECRETS_MAX} at most; one file may hold several");
            self.note(table.span.clone(), &table.key, what, &help);
        }
        secrets
    }

    fn reach(&mut self, table: &Table<'_>) -> Option<Reach> {
        let entry = table.get("landlock")?;
        let table = self.table(&entry)?;
        self.known(&table, &["read", "write"]);
        let mut paths = |name: &str| {
            let help = format!("write a list of paths, for example {name} = [\"/srv/work\"]");
            let Some(entry) = table.get(name) else { return Vec::new() };
            let texts = self.texts(&entry, &help).unwrap_or_default();
            texts
                .into_iter()
                .map(|(text, span)| self.look_up(&text, span, entry.key.clone(), Wanted::Anything))
                .collect()
        };
        Some(Reach { read: paths("read"), write: paths("write") })
    }

    fn limits(&mut self, table: &Table<'_>) -> Limits {
        let mut limits = Limits::default();
        let Some(table) = table.get("limits").and_then(|entry| self.table(&entry)) else { return limits };
        self.known(
            &table,
            &[
                "memory",
                "cpu",
                "cpu_time",
                "processes",
                "open_files",
                "file_size",
                "core_size",
                "nice",
                "scheduling",
                "cpus",
            ],
        );
        limits.memory_bytes = self.size_within(&table, "memory", 1 << 20);
        limits.cpu_percent = self.percent(&table, "cpu");
        limits.cpu_time = self.duration(&table, "cpu_time", Duration::from_secs(1), DURATION_MAX);
        limits.processes = self.count(&table, "processes", 1, 100_000);
        // Standard streams, control socket, epoll and what attaching needs.
        limits.open_files = self.count(&table, "open_files", 16, 1 << 20);
        limits.file_size_bytes = self.size_within(&table, "file_size", 0);
        limits.core_size_bytes = self.size_within(&table, "core_size", 0);
        limits.nice = self.nice(&table);
        limits.scheduling = self.optional_text(&table, "scheduling").and_then(|(word, entry)| {
            let found = Scheduling::of(&word);
            if found.is_none() {
                let help = "write \"other\", \"batch\", \"idle\", \"fifo:1\" to \"fifo:99\" or \"rr:1\" to \"rr:99\"";
                self.note(entry.span, &entry.key, format!("unknown word {word:?}"), help);
            }
            found
        });
        limits.cpus = self.cpus(&table);
        limits
    }

    fn size_within(&mut self, table: &Table<'_>, name: &str, min: u64) -> Option<u64> {
        let (bytes, entry) = self.size(table, name)?;
        let fitting = u64::try_from(bytes).ok().filter(|bytes| (min..=1 << 50).contains(bytes));
        if fitting.is_none() {
            let what = format!("{bytes} bytes are out of range");
            self.note(entry.span, &entry.key, what, &format!("choose {min} bytes to 1048576 GiB"));
        }
        fitting
    }

    /// `"150%"`: one and a half processors.
    fn percent(&mut self, table: &Table<'_>, name: &str) -> Option<u32> {
        let (text, entry) = self.optional_text(table, name)?;
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        let percent = percent.filter(|percent| (1..=100_000).contains(percent));
        if percent.is_none() {
            let help = "write hundredths of a processor, for example \"50%\" or \"200%\" (1% to 100000%)";
            self.note(entry.span, &entry.key, "this is no share of a processor", help);
        }
        percent
    }

    fn nice(&mut self, table: &Table<'_>) -> Option<i32> {
        let entry = table.get("nice")?;
        let help = "write a whole number, -20 (first) to 19 (last)";
        let DeValue::Integer(number) = entry.value else {
            return self.wrong_type(&entry, "a whole number", entry.value, help);
        };
        let nice = i32::from_str_radix(number.as_str(), number.radix()).ok();
        let nice = nice.filter(|nice| (-20..=19).contains(nice));
        if nice.is_none() {
            self.note(entry.span, &entry.key, format!("{number} is out of range"), help);
        }
        nice
    }

    fn cpus(&mut self, table: &Table<'_>) -> Vec<u32> {
        const HELP: &str = "write a list of processors' numbers, for example cpus = [0, 1]";
        let Some(entry) = table.get("cpus") else { return Vec::new() };
        let DeValue::Array(items) = entry.value else {
            self.wrong_type::<()>(&entry, "a list of whole numbers", entry.value, HELP);
            return Vec::new();
        };
        let mut cpus = Vec::new();
        for item in items.iter() {
            let item = Entry { value: item.get_ref(), span: item.span(), ..entry.clone() };
            let number = match item.value {
                DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            };
            match number.filter(|number| *number < CPUS_MAX) {
                Some(number) => cpus.push(number),
                None => self.note(item.span, &entry.key, "this is no processor's number", HELP),
            }
        }
        cpus
    }
}

/// The most processors that an affinity can name.
pub const CPUS_MAX: u32 = 1024;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn found_user(name: &str) -> Option<(u32, u32)> {
    let user = match name.parse::<u32>() {
        Ok(uid) => match nix::unistd::User::from_uid(uid.into()).ok().flatten() {
            Some(user) => user,
            // A number needs no name.
            None => return Some((uid, uid)),
        },
        Err(_) => nix::unistd::User::from_name(name).ok().flatten()?,
    };
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

fn found_group(name: &str) -> Option<u32> {
    if let Ok(gid) = name.parse() {
        return Some(gid);
    }
    nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// A path that has to be there when the file is read for a run or a check.
pub(super) struct Lookup {
    pub(super) span: Span,
    pub(super) key: String,
    path: PathBuf,
    wanted: Wanted,
}

enum Wanted {
    Folder,
    Secret,
    Anything,
}

impl Lookup {
    /// What is wrong, and what to do.
    pub(super) fn fault(&self) -> Option<(String, &'static str)> {
        let shown = self.path.display();
        let found = std::fs::metadata(&self.path);
        match (&self.wanted, found) {
            (_, Err(error)) => Some((format!("{shown}: {error}"), "correct the path, or make it")),
            (Wanted::Folder, Ok(found)) if !found.is_dir() => {
                Some((format!("{shown} is not a folder"), "name a folder"))
            }
            (Wanted::Secret, Ok(found)) if !found.is_file() => {
                Some((format!("{shown} is not a file"), "name a file"))
            }
            (Wanted::Secret, Ok(found)) if found.len() > SECRET_BYTES_MAX => {
                let what = format!("{shown} is larger than {SECRET_BYTES_MAX} bytes");
                Some((what, "hand over a key, and put the rest into a file"))
            }
            (Wanted::Secret, Ok(found)) if found.len() == 0 => {
                Some((format!("{shown} is empty"), "write the secret into it"))
            }
            (Wanted::Secret, Ok(_)) => {
                let error = std::fs::File::open(&self.path).err()?;
                Some((format!("{shown}: {error}"), "make it readable for who runs the supervisor"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
