//! The walk over the TOML of a swarm file: every key read once, every problem noted, none the last.
//!
//! What cannot be read is noted and replaced by its default, so that the walk goes on and tells everything
//! at once; a file with any problem is refused as a whole by `Walked::finish`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use crate::control::ALL;
use crate::postman;
use crate::spawn;

use super::Orphans;
use super::alike;
use super::confine::{self, Lookup};
use super::keys::{Entry, Span, Table};
use super::problem::{ConfigError, Problem, nearest, suggest};
use super::value::{self, DURATION_MAX, NAME_HELP};
use super::{
    Agent, CAPACITY_BYTES_DEFAULT, CAPACITY_BYTES_MAX, CAPACITY_BYTES_MIN, Channel, DEADLINE_MIN,
    INSTANCES_MAX, MAX_ATTEMPTS_DEFAULT, PREFETCH_MAX, Policy, REPLICAS_MAX, Reference, STANDBYS_MAX,
    SwarmFile, TABLES_MAX, WhenFull,
};

/// A swarm file as far as it could be read.
pub(super) struct Walked {
    pub(super) swarm: SwarmFile,
    pub(super) problems: Vec<Problem>,
    /// For each agent, where its program is named, if it is.
    pub(super) command_spans: Vec<Option<Span>>,
    /// For each hook, where its program is named.
    pub(super) hook_spans: Vec<(usize, Span)>,
    /// What has to be there on this machine.
    pub(super) lookups: Vec<Lookup>,
}

impl Walked {
    /// The file, if nothing is wrong with it.
    pub(super) fn finish(self) -> Result<SwarmFile, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.swarm);
        }
        Err(ConfigError::new(&self.swarm.path, &self.swarm.text, self.problems))
    }
}

/// Who mentions a channel.
#[derive(Clone, Copy, Default)]
struct Uses {
    published: bool,
    subscribed: bool,
}

/// Reads the whole text.
pub(super) fn walk(path: &Path, text: &str) -> Walked {
    let swarm = SwarmFile {
        path: path.to_owned(),
        text: text.to_owned(),
        name: String::new(),
        logs: None,
        history: 4,
        orphans: Orphans::default(),
        realtime: None,
        dead_letters: crate::dead_letters::BOUNDS,
        records: super::Records::default(),
        channels: Arc::default(),
        agents: Vec::new(),
        sets: Vec::new(),
        hooks: Default::default(),
    };
    let mut walker = Walker {
        text,
        lines: std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect(),
        swarm,
        problems: Vec::new(),
        command_spans: Vec::new(),
        hook_spans: Vec::new(),
        lookups: Vec::new(),
        uses: Vec::new(),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        walker.root(&Table::of("", 0..0, root.get_ref()));
    }
    let mut doubled = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            // A table that is there twice, so what is in it may be, too.
            if doubled.is_some_and(|header| is_inside(text, header, span.start)) {
                continue;
            }
            doubled = Some(span.start).filter(|at| is_header(text, *at));
        }
        let what = format!("this is not TOML: {}", error.message().replace('\n', "; "));
        walker.note(span, "", what, "correct the TOML here (see toml.io)");
    }
    Walked {
        swarm: walker.swarm,
        problems: walker.problems,
        command_spans: walker.command_spans,
        hook_spans: walker.hook_spans,
        lookups: walker.lookups,
    }
}

/// Whether a place lies in the header of a table.
fn is_header(text: &str, at: usize) -> bool {
    let line = text.get(..at).and_then(|before| before.rsplit('\n').next());
    line.is_some_and(|line| line.trim_start().starts_with('['))
}

/// Whether a place lies in the table whose header is at another.
fn is_inside(text: &str, header: usize, at: usize) -> bool {
    let is_begun = |line: &str| line.trim_start().starts_with('[');
    text.get(header..at).is_some_and(|between| !between.lines().skip(1).any(is_begun))
}

/// What the walk has found so far.
pub(super) struct Walker<'s> {
    pub(super) text: &'s str,
    /// Where its lines begin.
    lines: Vec<usize>,
    pub(super) swarm: SwarmFile,
    pub(super) problems: Vec<Problem>,
    command_spans: Vec<Option<Span>>,
    hook_spans: Vec<(usize, Span)>,
    pub(super) lookups: Vec<Lookup>,
    /// For each channel, who mentions it, or probably means it.
    uses: Vec<Uses>,
}

impl Walker<'_> {
    /// The line, from 1, of a byte of the text.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    // The tables of a swarm file.

    fn root(&mut self, root: &Table<'_>) {
        self.known(root, &["swarm", "channel", "agent", "set", "hooks"]);
        match root.get("swarm") {
            Some(entry) => self.swarm_table(&entry),
            None => self.note(0..0, "swarm.name", "missing", "begin with [swarm] and name = \"my-swarm\""),
        }
        let channels = self.named_tables(root, "channel");
        self.swarm.channels = Arc::new(channels.iter().map(|table| self.channel(table)).collect());
        self.uses = vec![Uses::default(); channels.len()];
        let agents = self.named_tables(root, "agent");
        let mistyped = |e: &Entry<'_>| e.name != "agent" && nearest(e.name, ["agent"]).is_some();
        if agents.is_empty() && !root.entries.iter().any(mistyped) {
            let span = root.get("agent").map_or(0..0, |entry| entry.key_span);
            self.note(
                span,
                "agent",
                "the swarm has no agents",
                "add [agent.NAME] with command = [\"./program\"]",
            );
        }
        for table in &agents {
            self.check_taken(table);
            let mut agent = self.agent(table);
            alike::share(&self.swarm.agents, &mut agent);
            self.swarm.agents.push(agent);
        }
        self.orders(&agents);
        self.sets(root);
        self.hook_spans = self.hooks(root);
        self.check_groups(&agents);
        self.check_amount(&channels, &agents);
        for (index, table) in channels.iter().enumerate() {
            self.check_use(table, self.uses[index]);
        }
    }

    /// Notes an agent's name that means something else.
    fn check_taken(&mut self, table: &Table<'_>) {
        let help = match last_part(&table.key).as_str() {
            postman::NAME => "choose another name: the agent that replays dead letters has this one",
            ALL => "choose another name: `shoal kill all` and other orders mean every agent by this one",
            _ => return,
        };
        self.note(table.span.clone(), &table.key, "this name is taken", help);
    }

    /// Notes the first table that is one too many.
    fn check_amount(&mut self, channels: &[Table<'_>], agents: &[Table<'_>]) {
        for table in [channels, agents].iter().filter_map(|tables| tables.get(TABLES_MAX)) {
            let what = format!("more than {TABLES_MAX} tables of this kind");
            self.note(
                table.span.clone(),
                &table.key,
                what,
                "use replicas for like agents, or several swarms",
            );
        }
        let mut total: u64 = 0;
        let over = self.swarm.agents.iter().position(|agent| {
            total += u64::from(agent.replicas);
            total > INSTANCES_MAX
        });
        if let Some(table) = over.and_then(|index| agents.get(index)) {
            let what = format!("with this agent the swarm has more than {INSTANCES_MAX} processes");
            self.note(table.span.clone(), &table.key, what, "lower `replicas`, here or above");
        }
    }

    fn swarm_table(&mut self, entry: &Entry<'_>) {
        let Some(table) = self.table(entry) else { return };
        self.known(
            &table,
            &[
                "name",
                "logs",
                "history",
                "dead_letters",
                "crashes",
                "log_level",
                "log_format",
                "orphans",
                "realtime",
            ],
        );
        if let Some((name, entry)) = self.required_text(&table, "name", "add name = \"my-swarm\"") {
            if let Some(fault) = value::name_fault(&name) {
                self.note(entry.span, &entry.key, fault, NAME_HELP);
            }
            self.swarm.name = name;
        }
        if let Some((logs, entry)) = self.optional_text(&table, "logs") {
            if logs.is_empty() || logs.contains('\0') {
                self.note(
                    entry.span,
                    &entry.key,
                    "this is not a folder",
                    "name a folder, or leave the key out",
                );
            }
            self.swarm.logs = Some(self.swarm.path.parent().unwrap_or(Path::new("")).join(logs));
        }
        if let Some(history) = self.count(&table, "history", 1, 64) {
            self.swarm.history = history;
        }
        let default = self.swarm.dead_letters;
        self.swarm.dead_letters = self.bounds(&table, "dead_letters", "dead letters", default);
        self.swarm.records = self.records(&table);
        let orphans = self.optional_text(&table, "orphans").and_then(|(word, entry)| {
            let what = "what becomes of agents whose supervisor dies";
            self.word(&word, &entry, what, &Orphans::ALL, Orphans::word)
        });
        self.swarm.orphans = orphans.unwrap_or_default();
        self.swarm.realtime = self.count(&table, "realtime", 1, 99).map(|priority| priority as u8);
    }

    fn channel(&mut self, table: &Table<'_>) -> Channel {
        self.known(table, &["message", "capacity", "when_full"]);
        let message = self.required_text(table, "message", "add message = \"TypeName\"");
        if let Some((name, entry)) = &message {
            let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
            if name.is_empty() || name.len() > 128 || name.contains(odd) {
                let what = format!("{name:?} is not the name of a message type");
                let help = "write the Rust type's name, for example \"Task\"";
                self.note(entry.span.clone(), &entry.key, what, help);
            }
        }
        let when_full = self.optional_text(table, "when_full").and_then(|(word, entry)| {
            self.word(&word, &entry, "the policies for a full lane", &WhenFull::all(), WhenFull::word)
        });
        Channel {
            name: last_part(&table.key),
            message: message.map(|(name, _)| name).unwrap_or_default(),
            capacity_bytes: self.capacity(table).unwrap_or(CAPACITY_BYTES_DEFAULT),
            when_full: when_full.unwrap_or_default(),
            line: self.line_of(table.span.start),
        }
    }

    fn agent(&mut self, table: &Table<'_>) -> Agent {
        let known = [
            "command",
            "replicas",
            "replicas_max",
            "group",
            "prefetch",
            "subscribes",
            "publishes",
            "restart",
            "stop_timeout",
            "ready_timeout",
            "deadline",
            "max_attempts",
            "on_gone",
            "significant",
            "after",
            "env",
            "standby",
            "prefork",
        ];
        self.known(table, &[&known[..], &confine::KEYS].concat());
        let (day, none, ms) = (DURATION_MAX, Duration::ZERO, Duration::from_millis(1));
        let restart = self.restart(table);
        let significant = self.significant(table, restart.policy);
        let replicas = self.count(table, "replicas", 1, REPLICAS_MAX).unwrap_or(1);
        let confinement = self.confinement(table);
        let prefork = self.prefork(table, &confinement);
        Agent {
            name: last_part(&table.key),
            command: self.command(table),
            replicas,
            removed: false,
            replicas_max: self.count(table, "replicas_max", replicas, REPLICAS_MAX),
            group: self.group(table),
            prefetch: self.count(table, "prefetch", 1, PREFETCH_MAX).unwrap_or(1),
            subscribes: self.references(table, "subscribes"),
            publishes: self.references(table, "publishes"),
            restart: restart.into(),
            stop_timeout: self.duration(table, "stop_timeout", none, day).unwrap_or(Duration::from_secs(2)),
            ready_timeout: self.duration(table, "ready_timeout", ms, day).unwrap_or(Duration::from_secs(10)),
            deadline: self.duration(table, "deadline", DEADLINE_MIN, day),
            max_attempts: self.count(table, "max_attempts", 0, 100).unwrap_or(MAX_ATTEMPTS_DEFAULT),
            on_gone: self.on_gone(table),
            standby: self.count(table, "standby", 0, STANDBYS_MAX).unwrap_or(prefork.into()),
            prefork,
            significant,
            // Read when all agents are known.
            after: Vec::new(),
            env: self.env(table),
            confinement: confinement.into(),
            line: self.line_of(table.span.start),
        }
    }

    // The keys of a channel.

    fn capacity(&mut self, table: &Table<'_>) -> Option<u64> {
        let (bytes, entry) = self.size(table, "capacity")?;
        let fitting =
            u64::try_from(bytes).ok().filter(|b| (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(b));
        if fitting.is_none() {
            let what =
                format!("a lane of {bytes} bytes is too {}", if bytes < 4096 { "small" } else { "large" });
            let help = "choose 4 KiB to 512 MiB; half of it is the largest frame";
            self.note(entry.span, &entry.key, what, help);
        }
        fitting.map(u64::next_power_of_two)
    }

    /// Notes a channel that lacks a producer or a consumer.
    fn check_use(&mut self, table: &Table<'_>, uses: Uses) {
        let name = last_part(&table.key);
        let (what, help) = match (uses.published, uses.subscribed) {
            (true, true) => return,
            (false, true) => ("no agent publishes to this channel", format!("add publishes = [\"{name}\"]")),
            (true, false) => {
                ("no agent subscribes to this channel", format!("add subscribes = [\"{name}\"]"))
            }
            (false, false) => {
                ("no agent uses this channel", format!("add publishes and subscribes = [\"{name}\"]"))
            }
        };
        self.note(
            table.span.clone(),
            &table.key,
            what,
            &format!("{help} to an agent, or remove the channel"),
        );
    }

    // The keys of an agent.

    fn command(&mut self, table: &Table<'_>) -> Vec<String> {
        self.command_spans.push(None);
        let Some(entry) = table.get("command") else {
            self.note(table.span.clone(), &format!("{}.command", table.key), "missing", COMMAND_HELP);
            return Vec::new();
        };
        let Some(items) = self.texts(&entry, COMMAND_HELP) else { return Vec::new() };
        let Some((program, span)) = items.first() else {
            self.note(entry.span, &entry.key, "the command is empty", COMMAND_HELP);
            return Vec::new();
        };
        let nul = items.iter().find(|(word, _)| word.contains('\0'));
        if program.trim().is_empty() {
            self.note(span.clone(), &entry.key, "the program's name is empty", COMMAND_HELP);
        } else if let Some((_, span)) = nul {
            self.note(span.clone(), &entry.key, "an argument contains a NUL", "remove the NUL");
        } else if let Some(last) = self.command_spans.last_mut() {
            *last = Some(span.clone());
        }
        let mut words: Vec<String> = items.into_iter().map(|(word, _)| word).collect();
        // It has the room of what it was made of.
        words.shrink_to_fit();
        words
    }

    /// The group that the agent names, or its own name.
    fn group(&mut self, table: &Table<'_>) -> String {
        let Some((name, entry)) = self.optional_text(table, "group") else { return last_part(&table.key) };
        if let Some(fault) = value::name_fault(&name) {
            self.note(entry.span, &entry.key, fault, NAME_HELP);
        }
        name
    }

    fn references(&mut self, table: &Table<'_>, name: &str) -> Vec<Reference> {
        let Some(entry) = table.get(name) else { return Vec::new() };
        let help = format!("write a list of channel names, for example {name} = [\"tasks\"]");
        let Some(items) = self.texts(&entry, &help) else {
            // What was meant cannot be told, so no channel is blamed for it.
            self.uses.iter_mut().for_each(|uses| *uses = Uses { published: true, subscribed: true });
            return Vec::new();
        };
        let (mut seen, mut references) = (HashSet::new(), Vec::new());
        for (word, span) in items {
            let names: Vec<String> = self.swarm.channels.iter().map(|c| c.name.clone()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let found = names.iter().position(|name| *name == word);
            let meant = found.or_else(|| {
                let near = nearest(&word, names.iter().copied())?;
                names.iter().position(|name| *name == near)
            });
            if let Some(uses) = meant.and_then(|index| self.uses.get_mut(index)) {
                uses.published |= name == "publishes";
                uses.subscribed |= name == "subscribes";
            }
            let Some(channel) = found else {
                let help = suggest(&word, "the channels of this file", &names);
                let help = format!("{help}; or add [channel.{}]", word.escape_debug());
                self.note(span, &entry.key, format!("unknown channel {word:?}"), &help);
                continue;
            };
            if !seen.insert(channel) {
                self.note(span, &entry.key, format!("channel {word:?} is named twice"), "name it once");
                continue;
            }
            references.push(Reference { channel, line: self.line_of(span.start) });
        }
        references
    }

    fn significant(&mut self, table: &Table<'_>, policy: Policy) -> bool {
        let significant = self.flag(table, "significant").unwrap_or(false);
        if let Some(entry) = table.get("significant").filter(|_| significant && policy == Policy::Permanent) {
            let what = "a permanent agent never ends normally";
            self.note(entry.span, &entry.key, what, "add restart = \"transient\"");
        }
        significant
    }

    fn env(&mut self, table: &Table<'_>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(table) = table.get("env").and_then(|entry| self.table(&entry)) else { return env };
        for entry in &table.entries {
            if entry.name.is_empty() || entry.name.contains(['=', '\0']) {
                let what = format!("{:?} cannot name an environment variable", entry.name);
                self.note(entry.key_span.clone(), &entry.key, what, "use a name without `=` and NUL");
            }
            if spawn::is_told(entry.name.as_bytes()) {
                let what = format!("{:?} is set by the supervisor", entry.name);
                self.note(entry.key_span.clone(), &entry.key, what, "use another name");
            }
            let Some((text, entry)) = self.optional_text(&table, entry.name) else { continue };
            if text.contains('\0') {
                self.note(entry.span, &entry.key, "the value contains a NUL", "remove the NUL");
            }
            env.insert(entry.name.to_owned(), text);
        }
        env
    }
}

const COMMAND_HELP: &str =
    "write the program and its arguments, for example command = [\"./worker\", \"--fast\"]";
/// What `strategy` may be.
pub(super) const POLICIES_OF_SETS: &str = "the strategies";

/// The name at the end of `channel.NAME`, `agent.NAME` or `set.NAME`; a (refused) name may itself contain dots.
pub(super) fn last_part(key: &str) -> String {
    key.split_once('.').map_or(key, |(_, name)| name).to_owned()
}
