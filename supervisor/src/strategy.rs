//! What a set of agents does when a member dies: who falls with it, who comes back and in which order, and to whom it is told
//! when there were too many deaths. Pure: states and time come in, orders go out.
//!
//! What lives here: the strategies, and who is in which set. In `strategy/plan.rs` a restart that is under way, in
//! `strategy/supervision.rs` what comes of a death. What does not: what `[set.NAME]` says (`config/sets.rs`), the arithmetic of
//! deaths (`restart.rs`), the life of one agent (`child.rs`: `SetAside`, `Recalled`), and who does what is ordered
//! (`swarm/sets.rs`).
//!
//! ```text
//!   db ─ cache ─ web      rest_for_one: cache dies
//!         ✗
//!         aside   web is asked to stop        last first
//!         aside   aside                       all down: the pause that the death costs
//!         starting                            first first
//!         ready   starting
//!         ready   ready                       over
//! ```
//!
//! The whole is told by level, not by edge: a step looks at what is, and says what is to be done next, so it does not matter
//! what dies, is stopped or is started by an operator meanwhile.
//!
//! Source: OTP's `supervisor.erl` for the strategies. There a supervisor counts the deaths of all its children; here an agent counts
//! its own, and its set how often that was too much.

mod plan;
mod supervision;

use crate::config::{Member, Set, SwarmFile};
use crate::restart::OnGiveUp;
use std::collections::HashSet;

pub use plan::{Order, Plan};
pub use supervision::{Course, Standing, Supervision};

/// Who falls with a member that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// The members that are named after it.
    RestForOne,
    /// All members.
    OneForAll,
}

impl Strategy {
    /// All strategies, in the order of the documentation.
    pub const ALL: [Strategy; 3] = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Strategy::OneForOne => "one_for_one",
            Strategy::RestForOne => "rest_for_one",
            Strategy::OneForAll => "one_for_all",
        }
    }

    /// Whether the members are started one after the other, as they are named.
    pub fn is_ordered(self) -> bool {
        self != Strategy::OneForOne
    }

    /// Which of `count` members fall when the one at `died` dies; itself only where all of it falls, its replicas too.
    pub fn falls(self, count: usize, died: usize) -> std::ops::Range<usize> {
        match self {
            Strategy::OneForOne => 0..0,
            Strategy::RestForOne => died + 1..count,
            Strategy::OneForAll => 0..count,
        }
    }
}

/// The sets of a swarm file, and who is in which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    sets: Vec<Set>,
    /// For each set the one that it is a member of.
    parents: Vec<Option<usize>>,
    /// For each agent of the swarm file the set that it is a member of.
    of_agent: Vec<Option<usize>>,
    /// For each agent how many stand before it, one after the other, by `after`.
    ranks: Vec<usize>,
    /// For each agent what it says to being given up.
    on_give_up: Vec<Option<OnGiveUp>>,
}

impl Sets {
    /// Those of a checked swarm file.
    pub fn of(file: &SwarmFile) -> Sets {
        let mut sets = Sets {
            sets: file.sets.clone(),
            parents: vec![None; file.sets.len()],
            of_agent: vec![None; file.agents.len()],
            ranks: ranks(file.agents.len(), |agent| &file.agents[agent].after),
            on_give_up: file.agents.iter().map(|agent| agent.restart.on_give_up).collect(),
        };
        for (index, set) in file.sets.iter().enumerate() {
            for member in &set.members {
                match *member {
                    Member::Agent(agent) => sets.of_agent[agent] = Some(index),
                    Member::Set(inner) => sets.parents[inner] = Some(index),
                }
            }
        }
        sets
    }

    /// The sets, in the order of the file.
    pub fn all(&self) -> &[Set] {
        &self.sets
    }

    /// The set that an agent of the file is a member of.
    pub fn set_of(&self, agent: usize) -> Option<usize> {
        self.of_agent.get(agent).copied().flatten()
    }

    /// The set that a set is a member of.
    pub fn parent(&self, set: usize) -> Option<usize> {
        self.parents[set]
    }

    /// The outermost set around a set.
    pub fn top(&self, set: usize) -> usize {
        std::iter::successors(Some(set), |&set| self.parents[set]).last().unwrap_or(set)
    }

    /// The set itself and all sets within it.
    pub fn within(&self, set: usize) -> Vec<usize> {
        let inner = |&set: &usize| {
            self.sets[set].members.iter().filter_map(|member| match member {
                Member::Set(inner) => Some(*inner),
                Member::Agent(_) => None,
            })
        };
        let mut all = vec![set];
        let mut next = 0;
        while let Some(set) = all.get(next) {
            let more: Vec<usize> = inner(set).collect();
            all.extend(more);
            next += 1;
        }
        all
    }

    /// The agents of a set and of all sets within it, as they are named.
    pub fn agents(&self, set: usize) -> Vec<usize> {
        self.sets[set].members.iter().flat_map(|member| self.agents_of(*member)).collect()
    }

    fn agents_of(&self, member: Member) -> Vec<usize> {
        match member {
            Member::Agent(agent) => vec![agent],
            Member::Set(set) => self.agents(set),
        }
    }

    /// The agents that fall, with all their replicas, when a process of an agent dies.
    pub fn fall_with(&self, agent: usize) -> Vec<usize> {
        let Some(set) = self.set_of(agent).map(|set| &self.sets[set]) else { return Vec::new() };
        let died = set.members.iter().position(|member| *member == Member::Agent(agent));
        let falls = died.map_or(0..0, |died| set.strategy.falls(set.members.len(), died));
        set.members[falls].iter().flat_map(|member| self.agents_of(*member)).collect()
    }

    /// How many agents stand before this one, one after the other: sets start and stop by that.
    pub fn rank(&self, agent: usize) -> usize {
        self.ranks.get(agent).copied().unwrap_or(0)
    }

    /// What follows when an agent is given up.
    pub fn on_give_up(&self, agent: usize) -> OnGiveUp {
        let inside = if self.set_of(agent).is_some() { OnGiveUp::Escalate } else { OnGiveUp::Fail };
        self.on_give_up.get(agent).copied().flatten().unwrap_or(inside)
    }
}

/// For each of `count` agents the length of the longest way over those that it comes after. Circles are refused before.
pub fn ranks<'a>(count: usize, after: impl Fn(usize) -> &'a Vec<usize>) -> Vec<usize> {
    let mut ranks: Vec<Option<usize>> = vec![None; count];
    let mut stack: Vec<usize> = (0..count).collect();
    let mut open = HashSet::new();
    while let Some(&agent) = stack.last() {
        let missing: Vec<usize> =
            after(agent).iter().copied().filter(|&a| ranks[a].is_none() && !open.contains(&a)).collect();
        if ranks[agent].is_none() && !missing.is_empty() {
            open.insert(agent);
            stack.extend(missing);
            continue;
        }
        let before = after(agent).iter().filter_map(|&a| ranks[a]).map(|rank| rank + 1);
        let rank = before.max().unwrap_or(0);
        ranks[agent].get_or_insert(rank);
        open.remove(&agent);
        stack.pop();
    }
    ranks.into_iter().map(|rank| rank.unwrap_or(0)).collect()
}

/// The strategies as markdown, for `docs/`: who falls with a member of five.
pub fn table_markdown() -> String {
    const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let mut text = format!("| strategy \\ who dies | {} |\n", MEMBERS.join(" | "));
    text += &format!("|{}\n", "---|".repeat(MEMBERS.len() + 1));
    for strategy in Strategy::ALL {
        let cells = (0..MEMBERS.len()).map(|died| {
            let falls: Vec<usize> = strategy.falls(MEMBERS.len(), died).filter(|&m| m != died).collect();
            let stops = falls.iter().rev().map(|&m| format!("-{}", MEMBERS[m]));
            let mut back = falls.clone();
            back.push(died);
            back.sort_unstable();
            let starts = back.into_iter().map(|m| format!("+{}", MEMBERS[m]));
            stops.chain(starts).collect::<Vec<_>>().join(" ")
        });
        text += &format!("| {} | {} |\n", strategy.word(), cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

#[cfg(test)]
mod tests;
