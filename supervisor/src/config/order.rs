//! `after`: which agents are ready before another is started. Names, read when all agents are known, and circles among them.

use super::keys::Table;
use super::problem::suggest;
use super::walk::Walker;
use std::collections::HashSet;

const HELP: &str = "write a list of agents, for example after = [\"store\"]";

impl Walker<'_> {
    /// Reads `after` of every agent; `tables` are theirs.
    pub(super) fn orders(&mut self, tables: &[Table<'_>]) {
        let names: Vec<String> = self.swarm.agents.iter().map(|agent| agent.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (index, table) in tables.iter().enumerate() {
            self.swarm.agents[index].after = self.after(table, &names);
        }
        let mut blamed = HashSet::new();
        for (index, table) in tables.iter().enumerate() {
            let circle = circle(index, |agent| &self.swarm.agents[agent].after);
            let Some((circle, entry)) = circle.zip(table.get("after")) else { continue };
            if circle.iter().any(|agent| !blamed.insert(*agent)) {
                // One of its agents was blamed for it already.
                continue;
            }
            let ring = circle.iter().chain([&index]).map(|&agent| format!("`{}`", names[agent]));
            let ring = ring.collect::<Vec<_>>().join(" after ");
            let what = format!("nobody of a circle can be started first: {ring}");
            self.note(entry.span, &entry.key, what, "remove one of them from another's `after`");
        }
    }

    fn after(&mut self, table: &Table<'_>, names: &[&str]) -> Vec<usize> {
        let Some(entry) = table.get("after") else { return Vec::new() };
        let mut after = Vec::new();
        for (word, span) in self.texts(&entry, HELP).unwrap_or_default() {
            match names.iter().position(|name| *name == word) {
                None => {
                    let help = suggest(&word, "the agents of this file", names);
                    self.note(span, &entry.key, format!("unknown agent {word:?}"), &help);
                }
                Some(agent) if after.contains(&agent) => {
                    self.note(span, &entry.key, format!("agent {word:?} is named twice"), "name it once");
                }
                Some(agent) => after.push(agent),
            }
        }
        after
    }
}

/// A way from an agent over those that it is started after back to itself, if there is one; it begins with the agent.
fn circle<'a>(start: usize, after: impl Fn(usize) -> &'a Vec<usize>) -> Option<Vec<usize>> {
    let mut met = HashSet::new();
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        for &next in after(way[way.len() - 1]) {
            if next == start {
                return Some(way);
            }
            if met.insert(next) {
                ways.push(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}
