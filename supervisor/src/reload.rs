//! What a changed swarm file changes: the two files made comparable, and the plan of what is to be done. Pure.
//!
//! ```text
//!   file that runs ─┐                            ┌─ settings   taken over, nobody notices
//!                   ├─ merge ─ evolve ─ plan ────┼─ stop       drained, stopped, struck from the board
//!   file that comes ┘                            ├─ restart    why: its own lanes, or those of whom it shares a lane with
//!                                                └─ start
//! ```
//! Who is not in the plan keeps its process. What an agent is told at its start is its manifest; if it would be told something else,
//! it is started again, and says why.

use crate::config::{self, Agent, Reference, SwarmFile};
use crate::control::nearest;
use crate::counted::counted;
use crate::on_gone::OnGone;
use crate::topology::{InputSpec, Topology};
use serde::{Deserialize, Serialize};
use shoal_runtime::layout::BoardShape;
use shoal_runtime::wire::{InputEntry, LaneEntry, Manifest, ReaderEntry};
use std::collections::{BTreeMap, BTreeSet};

/// What is done to apply a changed swarm file, by names; as JSON what `shoal reload --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Channels that are added, removed, resized: what about them.
    pub channels: Vec<Change>,
    /// Agents that are stopped and removed.
    pub stop: Vec<String>,
    /// Those of them behind whom nobody reads on, and what becomes of what they have not read.
    pub left: Vec<Change>,
    /// Agents that are started again, and why.
    pub restart: Vec<Change>,
    /// Agents that rest, stopped by an operator or done with their work: they are told with their next start, whoever orders that.
    #[serde(default)]
    pub next_start: Vec<Change>,
    /// Agents that are started.
    pub start: Vec<String>,
    /// Agents of which only settings change that nobody has to be started again for.
    pub settings: Vec<Change>,
    /// Agents that keep their processes.
    pub kept: u64,
    /// What is said in the file and cannot be applied to a swarm that runs.
    pub remarks: Vec<String>,
}

/// What changes about something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A channel or an agent.
    pub name: String,
    /// What changes, or why it is started again.
    pub why: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
            && self.stop.is_empty()
            && self.restart.is_empty()
            && self.next_start.is_empty()
            && self.start.is_empty()
            && self.settings.is_empty()
    }

    /// The plan, a line each.
    pub fn lines(&self) -> Vec<String> {
        let change =
            |what: &str, change: &Change| format!("{what} {}: {}", change.name, change.why.join("; "));
        let mut lines: Vec<String> = self.channels.iter().map(|c| change("channel", c)).collect();
        let left = |name: &String| self.left.iter().find(|left| left.name == *name);
        lines.extend(self.stop.iter().map(|name| match left(name) {
            Some(left) => change("stop", left),
            None => format!("stop {name}"),
        }));
        lines.extend(self.restart.iter().map(|c| change("restart", c)));
        lines.extend(self.next_start.iter().map(|c| change("next start of", c)));
        lines.extend(self.start.iter().map(|name| format!("start {name}")));
        lines.extend(self.settings.iter().map(|c| change("settings of", c)));
        lines.extend(self.remarks.iter().map(|remark| format!("not applied: {remark}")));
        lines.push(match (self.is_empty(), self.kept) {
            (true, _) => "nothing changes".to_owned(),
            (false, 0) => "nobody keeps its process".to_owned(),
            (false, 1) => "1 agent keeps its process".to_owned(),
            (false, kept) => format!("{kept} agents keep their processes"),
        });
        lines
    }
}

/// The same by indices, for who carries it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Agents that run no more.
    pub stop: BTreeSet<usize>,
    /// Agents that are to run from now on.
    pub start: BTreeSet<usize>,
    /// Agents that are stopped before the change and started after it, because their links change.
    pub relink: BTreeSet<usize>,
    /// Agents, running or not, whose memory has another shape: what their dead incarnations left must be read before.
    pub reshaped: BTreeSet<usize>,
    /// Agents that stay and subscribe a channel no more, each with it.
    pub lost: BTreeSet<(usize, usize)>,
    /// Those of them that read before what is there, as their `on_gone` wants it, each with who sends it.
    pub owed: BTreeSet<(usize, usize)>,
    /// Agents that were removed before and are waited for no more.
    pub let_go: BTreeSet<usize>,
    /// Agents that are restarted after it.
    pub again: BTreeSet<usize>,
    /// Tables, by producer and lane in the new order, whose groups come back and begin at the lane's end.
    pub begun_anew: BTreeSet<(usize, usize, usize)>,
}

/// A swarm as it is or is to be.
#[derive(Clone, Copy)]
pub struct Stand<'a> {
    /// Its file, merged.
    pub file: &'a SwarmFile,
    /// Who reads whom.
    pub topology: &'a Topology,
    /// What each agent is told.
    pub manifests: &'a [Manifest],
}

/// Puts a file that comes into the order of one that runs: channels and agents that stay keep their indices, those that it does not
/// name any more stay as agents without replicas, new ones come behind.
///
/// # Errors
/// What cannot change while a swarm runs.
pub fn merge(old: &SwarmFile, new: SwarmFile) -> Result<SwarmFile, String> {
    if old.name != new.name {
        return Err(format!(
            "the file names the swarm `{}`, and `{}` runs: end it, and start the other",
            new.name, old.name
        ));
    }
    let mut channels = old.channels.to_vec();
    let mut channel_of = Vec::with_capacity(new.channels.len());
    for channel in new.channels.iter() {
        match channels.iter().position(|known| known.name == channel.name) {
            Some(at) if channels[at].message != channel.message => {
                return Err(format!(
                    "channel `{}` carries {:?}, and the file says {:?}: the type of a channel's messages cannot change while it runs; \
                     give the new one another name",
                    channel.name, channels[at].message, channel.message
                ));
            }
            Some(at) => {
                channels[at] = channel.clone();
                channel_of.push(at);
            }
            None => {
                channel_of.push(channels.len());
                channels.push(channel.clone());
            }
        }
    }
    let removed = |agent: &Agent| Agent {
        replicas: 0,
        removed: true,
        significant: false,
        after: Vec::new(),
        ..agent.clone()
    };
    let taken = crate::postman::NAME;
    let mut agents: Vec<Agent> = old
        .agents
        .iter()
        .map(|agent| if agent.name == taken { agent.clone() } else { removed(agent) })
        .collect();
    let mut agent_of = Vec::with_capacity(new.agents.len());
    for agent in &new.agents {
        let at = agents.iter().position(|known| known.name == agent.name).unwrap_or(agents.len());
        agent_of.push(at);
        let follow = |references: &[Reference]| {
            references.iter().map(|r| Reference { channel: channel_of[r.channel], line: r.line }).collect()
        };
        let agent = Agent {
            subscribes: follow(&agent.subscribes),
            publishes: follow(&agent.publishes),
            ..agent.clone()
        };
        if at == agents.len() { agents.push(agent) } else { agents[at] = agent }
    }
    for &at in &agent_of {
        agents[at].after.iter_mut().for_each(|before| *before = agent_of[*before]);
    }
    let mut sets = new.sets.clone();
    for member in sets.iter_mut().flat_map(|set| &mut set.members) {
        if let config::Member::Agent(agent) = member {
            *agent = agent_of[*agent];
        }
    }
    // How it keeps its own records, and with which priority, was settled at its start.
    Ok(SwarmFile {
        channels: channels.into(),
        agents,
        sets,
        records: old.records,
        realtime: old.realtime,
        ..new
    })
}

/// The file that runs with another number of replicas of an agent.
///
/// # Errors
/// No such agent, or a number out of bounds.
pub fn scaled(file: &SwarmFile, name: &str, replicas: u32) -> Result<SwarmFile, String> {
    let mut file = file.clone();
    let at = file.agents.iter().position(|agent| agent.name == name && name != crate::postman::NAME);
    let Some(at) = at else {
        let near = did_you_mean(&file, name);
        return Err(format!("swarm {} has no agent {name:?} to scale{near}", file.name));
    };
    if replicas > config::REPLICAS_MAX {
        return Err(format!(
            "{replicas} replicas of `{name}` are too many: at most {}",
            config::REPLICAS_MAX
        ));
    }
    file.agents[at].replicas = replicas;
    file.agents[at].removed &= replicas == 0;
    let total: u64 = file.agents.iter().map(|agent| u64::from(agent.replicas)).sum();
    if total > config::INSTANCES_MAX + 1 {
        return Err(format!(
            "with {} of `{name}` the swarm has more than {} processes",
            counted(replicas, "replica"),
            config::INSTANCES_MAX
        ));
    }
    Ok(file)
}

/// A question for whoever named no agent of a file, if one has a name that is near.
pub fn did_you_mean(file: &SwarmFile, name: &str) -> String {
    let named = file.agents.iter().filter(|agent| agent.name != crate::postman::NAME && !agent.removed);
    let names: Vec<&str> = named.map(|agent| agent.name.as_str()).collect();
    nearest(name, &names).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}

/// What a manifest says that a living agent depends on, and that only its next life can be told otherwise.
fn essence(manifest: &Manifest) -> Manifest {
    let mut m = Manifest {
        file: String::new(),
        line: 0,
        generation: 0,
        owner: 0,
        prefetch: 0,
        replica: (manifest.replica.0, 0),
        permanent: false,
        is_stood_by: false,
        board: BoardShape::default(),
        channels: Vec::new(),
        channel_names: String::new(),
        cpu_percent: None,
        given: Vec::new(),
        attempts_max: 0,
        ..manifest.clone()
    };
    m.neighbours.iter_mut().for_each(|n| n.name.clear());
    m.lanes.iter_mut().for_each(|lane| lane.line = 0);
    m.inputs.iter_mut().for_each(|input| input.line = 0);
    m
}

/// What an agent's configuration says that only its next life heeds: everything but what the supervisor alone heeds, or what is
/// said of its links.
fn told(agent: &Agent) -> Agent {
    Agent {
        replicas: 0,
        removed: false,
        replicas_max: None,
        group: String::new(),
        subscribes: Vec::new(),
        publishes: Vec::new(),
        restart: config::Restart { policy: agent.restart.policy, ..config::Restart::default() }.into(),
        stop_timeout: Default::default(),
        ready_timeout: Default::default(),
        deadline: None,
        on_gone: Default::default(),
        significant: false,
        after: Vec::new(),
        line: 0,
        ..agent.clone()
    }
}

/// Why an agent's links change; nothing if they do not.
fn relinked(before: Stand<'_>, after: Stand<'_>, agent: usize) -> Vec<String> {
    let (old, new) = (&before.manifests[agent], &after.manifests[agent]);
    if essence(old) == essence(new) {
        return Vec::new();
    }
    let mut why = Vec::new();
    let channel = |channel: u32| after.topology.channels[channel as usize].name.as_str();
    let name = |manifest: &Manifest, place: u32| manifest.neighbours[place as usize].agent;
    let named = |agent: u32| after.topology.agents[agent as usize].name.as_str();
    if old.name != new.name {
        why.push(format!("it is named {} now", new.name));
    }
    let lane_of = |m: &Manifest, at: usize| m.shape.lanes[at].clone();
    for (at, lane) in new.lanes.iter().enumerate() {
        match old.lanes.iter().position(|l| l.channel == lane.channel) {
            None => why.push(format!("it publishes {}", channel(lane.channel))),
            Some(was) if lane_of(old, was) != lane_of(new, at) => {
                why.push(format!("its lane of {} is another", channel(lane.channel)));
            }
            Some(_) => {}
        }
    }
    let gone = |lane: &&LaneEntry| !new.lanes.iter().any(|l| l.channel == lane.channel);
    why.extend(
        old.lanes.iter().filter(gone).map(|lane| format!("it publishes {} no more", channel(lane.channel))),
    );
    let inputs = |m: &Manifest| -> BTreeSet<(u32, u32)> {
        m.inputs.iter().map(|i: &InputEntry| (i.channel, name(m, i.neighbour))).collect()
    };
    let readers = |m: &Manifest| -> BTreeSet<(u32, u32)> {
        let of = |lane: &LaneEntry| -> Vec<(u32, u32)> {
            lane.readers.iter().map(|r: &ReaderEntry| (lane.channel, name(m, r.neighbour))).collect()
        };
        m.lanes.iter().flat_map(of).collect()
    };
    // Not of places for further replicas, unless they are all that it is about.
    let runs = |agent: u32| {
        let on = |stand: Stand<'_>| stand.topology.agents.get(agent as usize).is_some_and(|i| i.active);
        on(before) || on(after)
    };
    let mut tell = |what: &str, mut pairs: Vec<(u32, u32)>| {
        if pairs.iter().any(|&(_, agent)| runs(agent)) {
            pairs.retain(|&(_, agent)| runs(agent));
        }
        let mut by_channel: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        pairs.into_iter().for_each(|(on, agent)| by_channel.entry(on).or_default().push(named(agent)));
        by_channel.into_iter().for_each(|(on, agents)| {
            let end = if what.starts_with("reads") { "of" } else { "to" };
            why.push(format!("{what} {} {end} {}", channel(on), list(&agents)));
        });
    };
    let minus =
        |a: BTreeSet<(u32, u32)>, b: &BTreeSet<(u32, u32)>| a.difference(b).copied().collect::<Vec<_>>();
    tell("reads", minus(inputs(new), &inputs(old)));
    tell("reads no more", minus(inputs(old), &inputs(new)));
    tell("sends", minus(readers(new), &readers(old)));
    tell("sends no more", minus(readers(old), &readers(new)));
    let reshaped: Vec<&str> = new
        .neighbours
        .iter()
        .filter(|n| old.neighbours.iter().any(|o| o.agent == n.agent && o.shape != n.shape))
        .map(|n| named(n.agent))
        .collect();
    if !reshaped.is_empty() {
        why.push(format!("shares lanes with {}, whose memory changes", list(&reshaped)));
    }
    if why.is_empty() {
        why.push("shares the messages of its lanes differently".to_owned());
    }
    why
}

/// A few names, and how many more.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What of an agent's settings changes without a start.
fn settings(old: &Agent, new: &Agent) -> Vec<String> {
    let changed = [
        ("replicas_max", old.replicas_max != new.replicas_max),
        ("restart", old.restart != new.restart),
        ("stop_timeout", old.stop_timeout != new.stop_timeout),
        ("ready_timeout", old.ready_timeout != new.ready_timeout),
        ("deadline", old.deadline != new.deadline),
        ("on_gone", old.on_gone != new.on_gone),
        ("significant", old.significant != new.significant),
        ("after", old.after != new.after),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect()
}

/// The lanes on which somebody comes back who reads them by a place of its own, or a group none of whose members ran: unless it was
/// waited for, it begins at their ends, so their producers are started again. By producer and lane; the table if it is a group's.
fn coming_back(
    before: &Topology,
    after: &Topology,
    kept: &BTreeSet<usize>,
) -> BTreeSet<(usize, usize, Option<usize>)> {
    let mut lanes = BTreeSet::new();
    let returns =
        |agent: usize| before.agents.get(agent).is_some_and(|a| !a.active) && after.agents[agent].active;
    for (agent, instance) in after.agents.iter().enumerate().filter(|(agent, _)| returns(*agent)) {
        for input in &instance.inputs {
            let lane = &after.agents[input.producer].lanes[input.lane];
            let ran = |r: &crate::topology::ReaderRef| {
                before.agents.get(r.agent).is_some_and(|a| a.active) || kept.contains(&r.agent)
            };
            let of_group = |r: &crate::topology::ReaderRef| {
                input.table.is_some() && after.agents[r.agent].inputs[r.input].table == input.table
            };
            if lane.readers.iter().any(|r| (r.agent == agent || of_group(r)) && ran(r)) {
                continue;
            }
            let table = input.table.and_then(|table| lane.groups.iter().position(|g| *g == table));
            lanes.insert((input.producer, input.lane, table));
        }
    }
    lanes
}

/// For an agent that stays, what becomes of what it has not read of channels that it subscribes no more; `None` if there are none.
fn unsubscribed(before: Stand<'_>, after: Stand<'_>, agent: usize, work: &mut Work) -> Option<String> {
    let reads = |channel: usize| after.topology.agents[agent].inputs.iter().any(|i| i.channel == channel);
    let inputs = before.topology.agents[agent].inputs.iter().filter(|input| !reads(input.channel));
    let on_gone = after.file.agents[after.topology.agents[agent].config].on_gone;
    let mut channels = BTreeSet::new();
    for input in inputs {
        channels.insert(input.channel);
        if on_gone != OnGone::Drop {
            work.owed.insert((agent, input.producer));
        }
    }
    let names: Vec<&str> = channels.iter().map(|&channel| &*before.topology.channels[channel].name).collect();
    let says = || format!("what it has not read of {} is {}", list(&names), on_gone.says_of_a_channel());
    let text = (!names.is_empty()).then(says);
    work.lost.extend(channels.into_iter().map(|channel| (agent, channel)));
    text
}

fn unread_is(on_gone: OnGone) -> String {
    format!("what it has not read is {}", on_gone.says())
}

/// For an agent that is removed, what becomes of what it has not read, if nobody of its group reads on.
fn left(after: Stand<'_>, agent: usize) -> Option<Vec<String>> {
    let instance = &after.topology.agents[agent];
    let reads_on = |input: &InputSpec| {
        let readers = &after.topology.agents[input.producer].lanes[input.lane].readers;
        readers.iter().any(|r| {
            let other = &after.topology.agents[r.agent];
            other.active && input.table.is_some() && other.inputs[r.input].table == input.table
        })
    };
    let is_left = !instance.inputs.iter().all(reads_on);
    let Agent { on_gone, removed, .. } = after.file.agents[instance.config];
    let way_out = (removed && on_gone == OnGone::Block).then_some(LETS_GO);
    is_left.then(|| [Some(&*unread_is(on_gone)), way_out].into_iter().flatten().map(str::to_owned).collect())
}

/// The way out for the senders of an agent that a file names no more and that is waited for.
pub const LETS_GO: &str = "`shoal reload --on-gone drop` (or `dead-letter`) lets go of it";

/// What is to be done, by names and by indices. Who is `kept` is gone, and comes back to where it was; who is `resting` has no process, and
/// is given none.
pub fn plan(
    before: Stand<'_>,
    after: Stand<'_>,
    kept: &BTreeSet<usize>,
    resting: &BTreeSet<usize>,
) -> (Plan, Work) {
    let (mut plan, mut work) = (Plan::default(), Work::default());
    let mut why: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let runs = |topology: &Topology, agent: usize| topology.agents.get(agent).is_some_and(|a| a.active);
    for (agent, manifest) in after.manifests.iter().enumerate() {
        if before.manifests.get(agent).is_some_and(|old| old.shape != manifest.shape) {
            work.reshaped.insert(agent);
        }
        match (runs(before.topology, agent), runs(after.topology, agent)) {
            (false, true) => _ = work.start.insert(agent),
            (true, false) => _ = work.stop.insert(agent),
            (true, true) => {
                let mut reasons = relinked(before, after, agent);
                reasons.extend(unsubscribed(before, after, agent, &mut work));
                if !reasons.is_empty() {
                    why.insert(agent, reasons);
                }
            }
            (false, false) => {}
        }
    }
    for (producer, lane, table) in coming_back(before.topology, after.topology, kept) {
        if runs(before.topology, producer) && runs(after.topology, producer) {
            let channel = &after.topology.channels[after.topology.agents[producer].lanes[lane].channel].name;
            why.entry(producer).or_default().push(format!("a reader of {channel} comes back"));
        }
        work.begun_anew.extend(table.map(|table| (producer, lane, table)));
    }
    work.relink = why.keys().copied().collect();
    for (index, agent) in after.file.agents.iter().enumerate() {
        let Some(old) = before.file.agents.get(index) else { continue };
        let running = |&agent: &usize| runs(before.topology, agent) && runs(after.topology, agent);
        let instances: Vec<usize> = after.topology.instances(index).filter(running).collect();
        if instances.is_empty() {
            continue;
        }
        if told(old) != told(agent) {
            for &instance in &instances {
                if !work.relink.contains(&instance) {
                    work.again.insert(instance);
                }
                why.entry(instance).or_default().push(what_is_told(old, agent));
            }
        } else if let changed @ [_, ..] = &settings(old, agent)[..] {
            plan.settings.push(Change { name: agent.name.clone(), why: changed.to_vec() });
        }
    }
    let name = |topology: &Topology, agent: usize| topology.agents[agent].name.clone();
    plan.stop = work.stop.iter().map(|&agent| name(before.topology, agent)).collect();
    let left = |&agent: &usize| Some(Change { name: name(before.topology, agent), why: left(after, agent)? });
    plan.left = work.stop.iter().filter_map(left).collect();
    let word = |agent: usize| after.file.agents[after.topology.agents[agent].config].on_gone;
    let is_let_go = |agent: usize| {
        let stays_away = !runs(before.topology, agent) && !runs(after.topology, agent);
        stays_away && word(agent) != OnGone::Block
    };
    work.let_go = kept.iter().copied().filter(|&agent| is_let_go(agent)).collect();
    plan.settings.extend(work.let_go.iter().map(|&agent| Change {
        name: name(before.topology, agent),
        why: vec!["on_gone".into(), unread_is(word(agent))],
    }));
    plan.start = work.start.iter().map(|&agent| name(after.topology, agent)).collect();
    let postman = |agent: usize| after.topology.agents[agent].name == crate::postman::NAME;
    for (agent, why) in why.into_iter().filter(|(agent, _)| !postman(*agent)) {
        let told = if resting.contains(&agent) { &mut plan.next_start } else { &mut plan.restart };
        told.push(Change { name: name(before.topology, agent), why });
    }
    let runs_on = |agent: usize| runs(before.topology, agent) && runs(after.topology, agent);
    let running = (0..after.topology.agents.len())
        .filter(|agent| runs_on(*agent) && !postman(*agent) && !resting.contains(agent));
    plan.kept = (running.count() - plan.restart.len()) as u64;
    plan.channels = channels(before, after);
    if before.file.sets != after.file.sets {
        plan.settings.extend(sets(before.file, after.file));
    }
    if before.file.logs != after.file.logs {
        plan.remarks
            .push("`logs` of [swarm]: the folder is another from the next start of the swarm on".to_owned());
    }
    if before.file.dead_letters != after.file.dead_letters {
        plan.remarks.push("`dead_letters` of [swarm]: from the next start of the swarm on".to_owned());
    }
    (plan, work)
}

fn what_is_told(old: &Agent, new: &Agent) -> String {
    let changed = [
        ("command", old.command != new.command),
        ("env", old.env != new.env),
        ("prefetch", old.prefetch != new.prefetch),
        ("prefork", old.prefork != new.prefork),
        ("max_attempts", old.max_attempts != new.max_attempts),
        ("restart policy", old.restart.policy != new.restart.policy),
        ("standby", old.standby != new.standby),
        ("confinement", old.confinement != new.confinement),
    ];
    let keys: Vec<&str> = changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect();
    if keys.is_empty() {
        "its settings change".to_owned()
    } else {
        format!("its {} changes", keys.join(", "))
    }
}

/// What changes about sets, but for the lines in which they stand.
fn sets(before: &SwarmFile, after: &SwarmFile) -> Vec<Change> {
    let words = |file: &SwarmFile| -> BTreeMap<String, String> {
        file.sets
            .iter()
            .map(|set| (set.name.clone(), format!("{:?}", config::Set { line: 0, ..set.clone() })))
            .collect()
    };
    let (old, new) = (words(before), words(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let what = |name: &String| match (old.get(name), new.get(name)) {
        (None, _) => Some("added"),
        (_, None) => Some("removed"),
        (old, new) => (old != new).then_some("changed"),
    };
    let change =
        |name: &String| Some(Change { name: format!("set {name}"), why: vec![what(name)?.to_owned()] });
    names.into_iter().filter_map(change).collect()
}

/// What changes about channels that somebody uses.
fn channels(before: Stand<'_>, after: Stand<'_>) -> Vec<Change> {
    let used = |stand: Stand<'_>, channel: usize| {
        let agents = stand.file.agents.iter().filter(|agent| agent.replicas > 0);
        agents.flat_map(|agent| agent.publishes.iter().chain(&agent.subscribes)).any(|r| r.channel == channel)
    };
    let mut changes = Vec::new();
    for (at, new) in after.file.channels.iter().enumerate() {
        let mut why = Vec::new();
        let old = before.file.channels.get(at);
        match (old.is_some() && used(before, at), used(after, at)) {
            (false, true) => why.push("added".to_owned()),
            (true, false) => why.push("removed".to_owned()),
            _ => {}
        }
        if let Some(old) = old.filter(|old| old.capacity_bytes != new.capacity_bytes) {
            why.push(format!(
                "resized from {} KiB to {} KiB",
                old.capacity_bytes / 1024,
                new.capacity_bytes / 1024
            ));
        }
        if let Some(old) = old.filter(|old| old.when_full != new.when_full) {
            why.push(format!("when_full changes from {} to {}", old.when_full.word(), new.when_full.word()));
        }
        if !why.is_empty() {
            changes.push(Change { name: new.name.clone(), why });
        }
    }
    changes
}

#[cfg(test)]
mod tests;
