//! `[set.NAME]`: which agents are restarted together. Read when all agents are known.
//!
//! A set whose members fall with each other is started in its order, too: each member comes `after` the one before it.

use super::keys::Table;
use super::problem::suggest;
use super::walk::{POLICIES_OF_SETS, Walker, last_part};
use super::{Member, Restart, Set, Strategy, TABLES_MAX};
use std::collections::HashMap;
use std::time::Duration;

const HELP: &str = "write the names of agents, or of other sets, for example members = [\"store\", \"web\"]";

impl Walker<'_> {
    /// Reads the sets, and brings their order into the agents' `after`.
    pub(super) fn sets(&mut self, root: &Table<'_>) {
        let tables = self.named_tables(root, "set");
        if let Some(table) = tables.get(TABLES_MAX) {
            let what = format!("more than {TABLES_MAX} tables of this kind");
            self.note(table.span.clone(), &table.key, what, "put several sets into one");
        }
        for table in &tables {
            let name = last_part(&table.key);
            if self.swarm.agents.iter().any(|agent| agent.name == name) {
                let help = "choose another name: members of sets are told apart by their names";
                self.note(table.span.clone(), &table.key, format!("an agent is named {name:?}"), help);
            }
            let set = self.set(table, name);
            self.swarm.sets.push(set);
        }
        let mut taken = HashMap::new();
        for (index, table) in tables.iter().enumerate() {
            self.swarm.sets[index].members = self.members(index, table, &mut taken);
        }
        for (index, table) in tables.iter().enumerate() {
            if !self.refuse_circle(index, table) && self.swarm.sets[index].strategy.is_ordered() {
                self.order_members(index, table);
            }
        }
    }

    fn set(&mut self, table: &Table<'_>, name: String) -> Set {
        self.known(table, &["members", "strategy", "intensity", "period", "backoff", "jitter", "on_give_up"]);
        let mut restart = Set::restart_default();
        self.restart_numbers(table, &mut restart);
        let strategy = self.optional_text(table, "strategy").and_then(|(word, entry)| {
            self.word(&word, &entry, POLICIES_OF_SETS, &Strategy::ALL, Strategy::word)
        });
        Set {
            name,
            members: Vec::new(),
            strategy: strategy.unwrap_or_default(),
            restart,
            line: self.line_of(table.span.start),
        }
    }

    /// The members of a set; `taken` says who is a member already, and of which.
    fn members(&mut self, set: usize, table: &Table<'_>, taken: &mut HashMap<Member, usize>) -> Vec<Member> {
        let Some(entry) = table.get("members") else {
            self.note(table.span.clone(), &format!("{}.members", table.key), "missing", HELP);
            return Vec::new();
        };
        let Some(words) = self.texts(&entry, HELP) else { return Vec::new() };
        if words.is_empty() {
            self.note(entry.span.clone(), &entry.key, "a set has at least one member", HELP);
        }
        let mut members = Vec::new();
        for (word, span) in words {
            let agent = self.swarm.agents.iter().position(|agent| agent.name == word).map(Member::Agent);
            let inner = || self.swarm.sets.iter().position(|set| set.name == word).map(Member::Set);
            let Some(member) = agent.or_else(inner) else {
                let agents = self.swarm.agents.iter().map(|agent| agent.name.clone());
                let names: Vec<String> =
                    agents.chain(self.swarm.sets.iter().map(|set| set.name.clone())).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let help = suggest(&word, "the agents and sets of this file", &names);
                self.note(span, &entry.key, format!("unknown agent or set {word:?}"), &help);
                continue;
            };
            match taken.insert(member, set) {
                Some(other) if other == set => {
                    self.note(span, &entry.key, format!("{word:?} is named twice"), "name it once");
                }
                Some(other) => {
                    let what =
                        format!("{word:?} is a member of set {:?} already", self.swarm.sets[other].name);
                    let help = "let it be in one of them, and name that set as a member of the other";
                    self.note(span, &entry.key, what, help);
                }
                None => members.push(member),
            }
        }
        members
    }

    /// Whether a set is, over any number of sets, a member of itself; then it loses its members.
    fn refuse_circle(&mut self, set: usize, table: &Table<'_>) -> bool {
        let parent = |inner: usize| {
            let mut sets = self.swarm.sets.iter();
            sets.position(|set| set.members.contains(&Member::Set(inner)))
        };
        let mut above = parent(set);
        // A way up that does not come back here ends, or turns in a circle above: no longer than there are sets.
        for _ in 0..self.swarm.sets.len() {
            match above {
                Some(outer) if outer != set => above = parent(outer),
                _ => break,
            }
        }
        if above != Some(set) {
            return false;
        }
        self.swarm.sets[set].members.clear();
        if let Some(entry) = table.get("members") {
            let what = "this set is a member of itself";
            self.note(entry.span, &entry.key, what, "remove it from a set that is within it");
        }
        true
    }

    /// Lets each member come after the one before it.
    fn order_members(&mut self, set: usize, table: &Table<'_>) {
        let members = self.swarm.sets[set].members.clone();
        for pair in members.windows(2) {
            for before in self.agents_of(pair[0]) {
                for later in self.agents_of(pair[1]) {
                    if !self.comes_after(before, later) {
                        if !self.swarm.agents[later].after.contains(&before) {
                            self.swarm.agents[later].after.push(before);
                        }
                        continue;
                    }
                    let [first, second] = [before, later].map(|agent| &self.swarm.agents[agent].name);
                    let what = format!(
                        "`{first}` stands before `{second}`, and is started after it by `after`, or by another set"
                    );
                    let help =
                        "turn them round here, or choose strategy = \"one_for_one\", which has no order";
                    if let Some(entry) = table.get("members") {
                        self.note(entry.span, &entry.key, what, help);
                    }
                    return;
                }
            }
        }
    }

    /// The agents of a member, as far as sets are not within themselves.
    fn agents_of(&self, member: Member) -> Vec<usize> {
        let (mut agents, mut open) = (Vec::new(), vec![member]);
        let mut met = std::collections::HashSet::new();
        while let Some(member) = open.pop() {
            match member {
                Member::Agent(agent) => agents.push(agent),
                Member::Set(set) if met.insert(set) => open.extend(&self.swarm.sets[set].members),
                Member::Set(_) => {}
            }
        }
        agents
    }

    /// Whether an agent comes after another, over any number of agents.
    fn comes_after(&self, agent: usize, other: usize) -> bool {
        let (mut met, mut open) = (std::collections::HashSet::new(), vec![agent]);
        while let Some(agent) = open.pop() {
            for &before in &self.swarm.agents[agent].after {
                if before == other {
                    return true;
                }
                if met.insert(before) {
                    open.push(before);
                }
            }
        }
        false
    }
}

impl Set {
    /// 3 restarts as a whole in a minute, the third after 100 ms, doubling to 10 s; then it escalates.
    ///
    /// The window is wide, because a member is given up only after a streak of deaths, with all the pauses of that.
    pub fn restart_default() -> Restart {
        Restart {
            intensity: 3,
            period: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            ..Restart::default()
        }
    }
}
