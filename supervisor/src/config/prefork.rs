//! `prefork`: whether an agent's processes are forked of one that initialised once, and what that cannot go with.

use super::confine::{Confinement, Profile, Trust};
use super::keys::Table;
use super::walk::Walker;

impl Walker<'_> {
    /// Reads `prefork`, and notes what each process is to have for itself, which forks of one process share.
    pub(super) fn prefork(&mut self, table: &Table<'_>, confinement: &Confinement) -> bool {
        let prefork = self.flag(table, "prefork").unwrap_or(false);
        let Some(entry) = table.get("prefork").filter(|_| prefork) else { return prefork };
        let limits = &confinement.limits;
        let bounded = [
            ("memory", limits.memory_bytes.is_some()),
            ("cpu", limits.cpu_percent.is_some()),
            ("processes", limits.processes.is_some()),
        ];
        let mut whys = Vec::new();
        if confinement.trust != Trust::Trusted {
            whys.push((
                format!(
                    "an agent that is {} is kept from its likes, and forks of one process are not",
                    confinement.trust.word()
                ),
                "take one of the two out: `prefork` is for trusted agents",
            ));
        } else if let Some((key, _)) = bounded.iter().find(|(_, is)| *is) {
            whys.push((
                format!("limits.{key} bounds each process by a group of its own, and forks of one process share one"),
                "take one of the two out; bounds that a fork inherits go with `prefork`: open_files, cpu_time, nice, cpus and the like",
            ));
        }
        if confinement.profile == Profile::Strict {
            whys.push((
                "seccomp = \"strict\" ends who makes processes, and a zygote does".to_owned(),
                "choose seccomp = \"default\", or take `prefork` out",
            ));
        }
        for (what, help) in whys {
            self.note(entry.span.clone(), &entry.key, what, help);
        }
        prefork
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::path::Path;

    /// What is complained about of an agent with these keys: its line, its key, and why.
    fn refused(keys: &str) -> Vec<(usize, String, String)> {
        let text = format!("[swarm]\nname = \"s\"\n[agent.a]\ncommand = [\"x\"]\n{keys}\nprefork = true\n");
        let problems = match parse(Path::new("/dir/swarm.toml"), &text) {
            Ok(file) => {
                assert!(file.agents[0].prefork);
                Vec::new()
            }
            Err(error) => error.problems,
        };
        problems.into_iter().map(|p| (p.line, p.key.clone(), p.what.clone())).collect()
    }

    #[test]
    fn forks_go_with_what_they_inherit_and_with_standbys() {
        for keys in ["", "standby = 2", "limits = { open_files = 64, nice = 5 }", "seccomp = \"default\""] {
            assert_eq!(refused(keys), [], "{keys}");
        }
    }

    #[test]
    fn what_each_process_is_to_have_for_itself_is_refused_at_the_key() {
        let whys = [
            ("trust = \"isolated\"", "kept from its likes"),
            ("trust = \"hostile\"", "kept from its likes"),
            ("limits = { memory = \"8 MiB\" }", "limits.memory"),
            ("limits = { cpu = \"50%\" }", "limits.cpu"),
            ("limits = { processes = 4 }", "limits.processes"),
            ("seccomp = \"strict\"", "\"strict\" ends who makes processes"),
        ];
        for (keys, why) in whys {
            let (line, key, what) = refused(keys).into_iter().next().expect("refused");
            assert_eq!((line, key.as_str()), (6, "agent.a.prefork"), "{keys}");
            assert!(what.contains(why), "{what}");
        }
    }
}
