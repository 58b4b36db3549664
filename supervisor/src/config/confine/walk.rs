//! The walk over the keys that bound an agent, but for its limits (`limits.rs` beside this).

use super::found::{Lookup, Wanted, own_uid};
use super::{Confinement, Identity, Limits, Profile, Reach, SECRETS_MAX, Trust, accounts, quotas};
use crate::config::Agent;
use crate::config::keys::{Span, Table};
use crate::config::walk::Walker;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

impl Walker<'_> {
    /// Reads what bounds an agent.
    pub(in crate::config) fn confinement(&mut self, table: &Table<'_>) -> Confinement {
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
    pub(in crate::config) fn check_groups(&mut self, tables: &[Table<'_>]) {
        for (index, table) in tables.iter().enumerate() {
            let own = &self.swarm.agents[index];
            let (trust, name) = (own.confinement.trust, own.name.clone());
            let mates = self.swarm.agents.iter().enumerate();
            let mates = mates.filter(|(other, agent)| *other != index && agent.group == own.group);
            let shares = |agent: &Agent| {
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
        let found = accounts::user(&user);
        if found.is_none() {
            let what = format!("no user {user:?} in /etc/passwd");
            self.note(
                entry.span.clone(),
                &entry.key,
                what,
                "write a name that stands there, or the user's number",
            );
        }
        if !rustix::process::geteuid().is_root() && found.is_some_and(|(uid, _)| uid != own_uid()) {
            let help = "run the supervisor as root, or leave it out";
            self.note(entry.span, &entry.key, "only root may run agents as somebody else", help);
        }
        let (uid, mut gid) = found?;
        if let Some((name, entry)) = group {
            match accounts::group(&name) {
                Some(found) => gid = found,
                None => {
                    let what = format!("no group {name:?} in /etc/group");
                    self.note(
                        entry.span,
                        &entry.key,
                        what,
                        "write a name that stands there, or the group's number",
                    );
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
}
