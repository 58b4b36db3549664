//! Who reads whom: the swarm file expanded into instances, lanes and inputs. Pure.
//!
//! ```text
//!   lister ──lane 0 (tasks)──┬─> worker.1  input 0 ─┐ group `worker`: each message to whoever
//!                            └─> worker.2  input 0 ─┘ claims it first, in a table for the lane
//!   worker.1 ──lane 0 (counts)──> collector  input 0
//!   worker.2 ──lane 0 (counts)──> collector  input 1
//! ```
//!
//! An instance has one lane per channel that it publishes, and one input per lane of the channels that it
//! subscribes to. Instances of one group that subscribe to the same channel share its lanes by claims; on a channel that drops
//! the oldest, where nobody is waited for, by the messages' numbers. All orders are those of the swarm file, so that a restarted supervisor finds the same.

use crate::config::{self, Channel, WhenFull};
use std::collections::BTreeMap;
use std::sync::Arc;

mod evolve;

pub use evolve::places;

/// The swarm as processes and lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Topology {
    /// The channels, as in the swarm file.
    pub channels: Arc<Vec<Channel>>,
    /// The instances: an agent's replicas side by side, in the order of the swarm file; then places for more of them, and what
    /// later files added.
    pub agents: Vec<Instance>,
    /// The groups that share lanes by claims.
    pub groups: Vec<Group>,
    /// For each agent of the swarm file its name and its instances, by replica.
    configs: Vec<(String, Vec<usize>)>,
    /// Which agent of the swarm file is started after which other.
    after: Vec<(usize, usize)>,
}

/// One process to be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Instance {
    /// `worker.1` to `worker.4` if there are four replicas, else the agent's own name.
    pub name: String,
    /// Index into `SwarmFile::agents`.
    pub config: usize,
    /// Which replica it is, from 0.
    pub replica: u32,
    /// How many there are.
    pub replicas: u32,
    /// Whether it is to run. A place for a replica, and what was removed, keep their links, and nobody waits for them.
    pub active: bool,
    /// What it writes, one lane per channel.
    pub lanes: Vec<LaneSpec>,
    /// What it reads, one input per lane.
    pub inputs: Vec<InputSpec>,
}

/// Instances that share lanes by claims.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Group {
    /// Its name in the swarm file.
    pub name: String,
    /// Its instances: indices into `Topology::agents`, sorted.
    pub members: Vec<usize>,
    /// Bytes of the memory that holds its claim tables.
    pub bytes: usize,
}

/// The claim table of a group on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct TableSpec {
    /// Index into `Topology::groups`.
    pub group: usize,
    /// Where it lies in the group's memory.
    pub offset: usize,
    /// How many messages it tells of at once.
    pub entries: u64,
}

/// One instance's way into one channel.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaneSpec {
    /// Index into `Topology::channels`.
    pub channel: usize,
    /// The ring's size in bytes, a power of two.
    pub capacity_bytes: u64,
    /// What a full ring does.
    #[serde(with = "config::WhenFullWord")]
    pub when_full: WhenFull,
    /// The only group that reads it, whatever its channel says: on the lanes of who replays dead letters.
    pub only: Option<String>,
    /// Who reads it.
    pub readers: Vec<ReaderRef>,
    /// The groups that share it by claims.
    pub groups: Vec<TableSpec>,
}

/// A reader of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ReaderRef {
    /// Index into `Topology::agents`.
    pub agent: usize,
    /// Index into that instance's `inputs`.
    pub input: usize,
}

/// One lane as its reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct InputSpec {
    /// Index into `Topology::channels`.
    pub channel: usize,
    /// The writing instance: index into `Topology::agents`.
    pub producer: usize,
    /// Index into that instance's `lanes`.
    pub lane: usize,
    /// `(k, n)`: the frames whose sequence is k modulo n are this reader's.
    pub share: (u32, u32),
    /// By which a group shares it; `None` for who reads it alone, or by `share`.
    pub table: Option<TableSpec>,
}

impl Topology {
    /// The groups whose memory an instance maps, each once, and whether as a member.
    pub fn claims_of(&self, agent: usize) -> Vec<(usize, bool)> {
        let instance = &self.agents[agent];
        let member = instance.inputs.iter().filter_map(|input| Some((input.table?.group, true)));
        let producer = instance.lanes.iter().flat_map(|lane| &lane.groups).map(|table| (table.group, false));
        let mut all: BTreeMap<usize, bool> = BTreeMap::new();
        member.chain(producer).for_each(|(group, member)| *all.entry(group).or_default() |= member);
        all.into_iter().collect()
    }

    /// The instances that share a lane with this one, sorted, each once; itself if it reads its own lane.
    ///
    /// # Panics
    /// If there is no such instance.
    pub fn neighbours(&self, agent: usize) -> Vec<usize> {
        let instance = &self.agents[agent];
        let producers = instance.inputs.iter().map(|input| input.producer);
        let readers = instance.lanes.iter().flat_map(|lane| lane.readers.iter().map(|reader| reader.agent));
        let mut all: Vec<usize> = producers.chain(readers).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The stages of a shutdown: sources first, then whoever's producers are all in earlier stages, so that
    /// lanes drain in the direction of the data. Agents that read each other in a circle share a stage. Whoever was started after
    /// another is in an earlier stage, unless the data says otherwise.
    pub fn stop_order(&self) -> Vec<Vec<usize>> {
        let mut feeds = self.feeds();
        for &(later, before) in &self.after {
            // As if it fed the other; no circle comes of it.
            if !feeds.has(before, later) {
                feeds.add(later, before);
            }
        }
        let mut left: Vec<usize> = (0..self.configs.len()).collect();
        let mut stages = Vec::new();
        while !left.is_empty() {
            // Whoever feeds it, over any number of steps, is also fed by it: then they are one circle, and
            // nobody outside of it is to be waited for. Such an agent exists in every finite graph.
            let due = |a: usize| left.iter().all(|&b| !feeds.has(b, a) || feeds.has(a, b));
            let (stage, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|a| due(**a));
            assert!(!stage.is_empty(), "a finite graph has a first circle");
            stages.push(stage.into_iter().flat_map(|config| self.instances(config)).collect());
            left = rest;
        }
        stages
    }

    /// The agents that feed each other in a circle over channels that block, each circle with the names of its agents and of
    /// those channels: when all lanes of a circle are full, each waits for the next.
    pub fn blocking_circles(&self) -> Vec<(Vec<&str>, Vec<&str>)> {
        let blocks = |channel: usize| self.channels[channel].when_full == WhenFull::Block;
        let feeds = self.feeds_over(blocks);
        let mut left: Vec<usize> = (0..self.configs.len()).filter(|&a| feeds.has(a, a)).collect();
        let mut circles = Vec::new();
        while let Some(&first) = left.first() {
            let (circle, rest): (Vec<usize>, Vec<usize>) =
                left.iter().partition(|&&a| feeds.has(first, a) && feeds.has(a, first));
            left = rest;
            let inside = |agent: usize| circle.contains(&self.agents[agent].config);
            let within = |channel: usize| {
                let mut members = self.agents.iter().enumerate().filter(|(agent, _)| inside(*agent));
                blocks(channel)
                    && members
                        .any(|(_, a)| a.inputs.iter().any(|i| i.channel == channel && inside(i.producer)))
            };
            let channels = (0..self.channels.len()).filter(|&channel| within(channel));
            let channels = channels.map(|channel| self.channels[channel].name.as_str()).collect();
            circles.push((circle.iter().map(|&a| self.configs[a].0.as_str()).collect(), channels));
        }
        circles
    }

    /// Who feeds whom among the agents of the file, over any number of steps.
    fn feeds(&self) -> Feeds {
        self.feeds_over(|_| true)
    }

    /// The same over some of the channels.
    fn feeds_over(&self, counts: impl Fn(usize) -> bool) -> Feeds {
        let count = self.configs.len();
        let mut feeds = Feeds { rows: vec![vec![0; count.div_ceil(64)]; count] };
        for instance in &self.agents {
            for input in instance.inputs.iter().filter(|input| counts(input.channel)) {
                let producer = self.agents[input.producer].config;
                feeds.rows[producer][instance.config / 64] |= 1 << (instance.config % 64);
            }
        }
        // Warshall's closure, 64 agents at a time.
        for via in 0..count {
            let reached = feeds.rows[via].clone();
            for from in 0..count {
                if feeds.has(from, via) {
                    feeds.rows[from].iter_mut().zip(&reached).for_each(|(row, more)| *row |= more);
                }
            }
        }
        feeds
    }

    /// The instances of one agent of the swarm file, active or not.
    pub fn instances(&self, config: usize) -> impl Iterator<Item = usize> {
        self.configs[config].1.iter().copied()
    }

    /// Those of them that are to run.
    pub fn active(&self, config: usize) -> impl Iterator<Item = usize> {
        self.instances(config).filter(|&instance| self.agents[instance].active)
    }

    /// The instances that a name means: one instance, or all replicas of an agent; empty if unknown.
    pub fn find(&self, name: &str) -> Vec<usize> {
        if let Some(config) = self.configs.iter().position(|(known, _)| known == name) {
            return self.active(config).collect();
        }
        self.agents.iter().position(|instance| instance.name == name).into_iter().collect()
    }
}

/// A relation between the agents of the file: one row of bits per producer.
struct Feeds {
    rows: Vec<Vec<u64>>,
}

impl Feeds {
    /// Adds that `from` feeds `to`, and all that follows from it.
    fn add(&mut self, from: usize, to: usize) {
        let reached = self.rows[to].clone();
        for feeder in 0..self.rows.len() {
            if feeder == from || self.has(feeder, from) {
                self.rows[feeder].iter_mut().zip(&reached).for_each(|(row, more)| *row |= more);
                self.rows[feeder][to / 64] |= 1 << (to % 64);
            }
        }
    }

    /// Whether `from` feeds `to`.
    fn has(&self, from: usize, to: usize) -> bool {
        self.rows[from][to / 64] >> (to % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_runtime::claims;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    /// One agent: name, replicas, subscribes, publishes.
    type Line<'a> = (&'a str, u32, &'a [&'a str], &'a [&'a str]);

    fn topology(agents: &[Line<'_>]) -> Topology {
        let mut text = String::from("[swarm]\nname = \"s\"\n");
        let channels: BTreeSet<_> = agents.iter().flat_map(|a| a.2.iter().chain(a.3)).collect();
        for channel in channels {
            writeln!(text, "[channel.{channel}]\nmessage = \"M\"\ncapacity = \"8 KiB\"").expect("written");
        }
        for (name, replicas, subscribes, publishes) in agents {
            writeln!(
                text,
                "[agent.{name}]\ncommand = [\"x\"]\nreplicas = {replicas}\nreplicas_max = {replicas}"
            )
            .expect("written");
            writeln!(text, "subscribes = {subscribes:?}\npublishes = {publishes:?}").expect("written");
        }
        Topology::of(&config::parse(Path::new("t.toml"), &text).unwrap_or_else(|error| panic!("{error}")))
    }

    fn wordcount() -> Topology {
        topology(&[
            ("collector", 1, &["counts"], &[]),
            ("worker", 2, &["tasks"], &["counts"]),
            ("lister", 1, &[], &["tasks"]),
        ])
    }

    fn names(topology: &Topology, agents: &[usize]) -> Vec<String> {
        agents.iter().map(|agent| topology.agents[*agent].name.clone()).collect()
    }

    /// The stages by name.
    fn stages(topology: &Topology) -> Vec<Vec<String>> {
        topology.stop_order().iter().map(|stage| names(topology, stage)).collect()
    }

    #[test]
    fn replicas_become_instances_with_numbered_names() {
        let t = wordcount();
        assert_eq!(names(&t, &[0, 1, 2, 3]), ["collector", "worker.1", "worker.2", "lister"]);
        let replicas: Vec<_> = t.agents.iter().map(|a| (a.config, a.replica, a.replicas)).collect();
        assert_eq!(replicas, [(0, 0, 1), (1, 0, 2), (1, 1, 2), (2, 0, 1)]);
    }

    #[test]
    fn each_publishing_instance_has_one_lane_per_channel_with_all_its_readers() {
        let t = wordcount();
        let lane = &t.agents[3].lanes[0];
        assert_eq!((lane.capacity_bytes, lane.when_full), (8192, WhenFull::Block));
        assert_eq!(t.channels[lane.channel].name, "tasks");
        assert_eq!(lane.readers, [ReaderRef { agent: 1, input: 0 }, ReaderRef { agent: 2, input: 0 }]);
        assert_eq!(t.agents[2].lanes[0].readers, [ReaderRef { agent: 0, input: 1 }]);
    }

    #[test]
    fn each_subscribing_instance_has_one_input_per_lane_and_replicas_share_its_table() {
        let t = wordcount();
        let tables: Vec<_> =
            t.agents[1..3].iter().map(|a| (a.inputs[0].producer, a.inputs[0].table)).collect();
        let table = TableSpec { group: 0, offset: 0, entries: 128 };
        assert_eq!(tables, [(3, Some(table)), (3, Some(table))]);
        assert_eq!(t.agents[3].lanes[0].groups, [table]);
        assert_eq!((t.groups[0].name.as_str(), &t.groups[0].members[..]), ("worker", &[1, 2][..]));
        assert_eq!(
            (t.claims_of(1), t.claims_of(3), t.claims_of(0)),
            (vec![(0, true)], vec![(0, false)], vec![])
        );
        let inputs: Vec<_> = t.agents[0].inputs.iter().map(|i| (i.producer, i.lane, i.share)).collect();
        assert_eq!(inputs, [(1, 0, (0, 1)), (2, 0, (0, 1))]);
    }

    #[test]
    fn neighbours_are_producers_and_readers_and_itself_only_if_it_reads_itself() {
        let t = wordcount();
        assert_eq!(t.neighbours(1), [0, 3]);
        assert_eq!(t.neighbours(0), [1, 2]);
        let own = topology(&[("echo", 1, &["c"], &["c"]), ("alone", 1, &[], &[])]);
        assert_eq!(own.neighbours(0), [0]);
        assert!(own.neighbours(1).is_empty());
    }

    #[test]
    fn a_postman_has_a_lane_to_each_group_of_a_channel_alone_and_changes_no_other() {
        let text = "[swarm]\nname = \"s\"\n[channel.c]\nmessage = \"M\"\nwhen_full = \"drop-oldest\"\n\
                    [agent.p]\ncommand = [\"x\"]\npublishes = [\"c\"]\n\
                    [agent.a]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\nreplicas = 2\nreplicas_max = 2\n\
                    [agent.b]\ncommand = [\"x\"]\nsubscribes = [\"c\"]\n";
        let file = config::parse(Path::new("t.toml"), text).unwrap_or_else(|error| panic!("{error}"));
        let (before, mut t) = (Topology::of(&file), Topology::of(&file));
        let lanes = t.add_postman(&file, "postman");
        assert_eq!(lanes, [(0, "a".to_owned()), (0, "b".to_owned())]);
        let postman = t.find("postman")[0];
        let readers = |lane: &LaneSpec| lane.readers.iter().map(|r| r.agent).collect::<Vec<_>>();
        let of = &t.agents[postman].lanes;
        assert_eq!(of.iter().map(readers).collect::<Vec<_>>(), [t.find("a"), t.find("b")]);
        assert!(of.iter().all(|lane| lane.when_full == WhenFull::Block));
        assert_eq!((of[0].groups.len(), of[1].groups.len()), (1, 0), "who shares a lane that blocks claims");
        for (before, now) in before.agents.iter().zip(&t.agents) {
            assert_eq!((&before.lanes, &before.inputs[..]), (&now.lanes, &now.inputs[..before.inputs.len()]));
        }
        assert_eq!(stages(&t)[0], ["p", "postman"], "it is asked to end with the sources");
    }

    #[test]
    fn sources_stop_first_and_sinks_last() {
        let t = wordcount();
        assert_eq!(stages(&t), [vec!["lister"], vec!["worker.1", "worker.2"], vec!["collector"]]);
    }

    #[test]
    fn a_circle_stops_as_one_stage_between_what_feeds_it_and_what_it_feeds() {
        let t = topology(&[
            ("sink", 1, &["out"], &[]),
            ("ping", 1, &["in", "pong"], &["ping"]),
            ("pong", 2, &["ping"], &["pong", "out"]),
            ("source", 1, &[], &["in"]),
        ]);
        assert_eq!(stages(&t), [vec!["source"], vec!["ping", "pong.1", "pong.2"], vec!["sink"]]);
    }

    #[test]
    fn circles_are_told_by_their_agents_and_channels_if_all_of_them_block() {
        let t = topology(&[
            ("sink", 1, &["out"], &[]),
            ("ping", 1, &["in", "pong"], &["ping"]),
            ("pong", 2, &["ping"], &["pong", "out"]),
            ("echo", 1, &["own"], &["own"]),
            ("source", 1, &[], &["in"]),
        ]);
        let circles = [(vec!["ping", "pong"], vec!["ping", "pong"]), (vec!["echo"], vec!["own"])];
        assert_eq!(t.blocking_circles(), circles);
        let mut open = t;
        let pong = open.channels.iter().position(|c| c.name == "pong").expect("it is there");
        Arc::make_mut(&mut open.channels)[pong].when_full = WhenFull::Reject;
        assert_eq!(open.blocking_circles(), circles[1..]);
    }

    #[test]
    fn an_agent_that_reads_itself_stops_with_its_replicas() {
        let t = topology(&[("echo", 2, &["c"], &["c"])]);
        assert_eq!(stages(&t), [vec!["echo.1", "echo.2"]]);
    }

    #[test]
    fn a_chain_of_the_most_agents_is_ordered_one_by_one() {
        let count = config::TABLES_MAX;
        let channels: Vec<String> = (0..count).map(|i| format!("c{i}")).collect();
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        let names: Vec<String> = (0..count).map(|i| format!("a{i}")).collect();
        // Agent i reads channel i and writes channel i + 1, but for the ends.
        let reads = |i: usize| if i == 0 { &channels[..0] } else { &channels[i..=i] };
        let writes = |i: usize| if i + 1 == count { &channels[..0] } else { &channels[i + 1..i + 2] };
        let agents: Vec<Line<'_>> = (0..count).map(|i| (names[i].as_str(), 1, reads(i), writes(i))).collect();
        let t = topology(&agents);
        assert_eq!(t.stop_order(), (0..count).map(|agent| vec![agent]).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_finds_an_instance_or_all_replicas() {
        let t = wordcount();
        assert_eq!(t.find("worker"), [1, 2]);
        assert_eq!(t.find("worker.2"), [2]);
        assert_eq!(t.find("lister"), [3]);
        for unknown in ["worker.0", "worker.3", "lister.1", "", "nobody"] {
            assert!(t.find(unknown).is_empty(), "{unknown}");
        }
    }

    /// Some agents over four channels; unused ends are closed by two more agents.
    fn any_swarm() -> impl Strategy<Value = Topology> {
        let agent = (
            1u32..4,
            proptest::collection::btree_set(0usize..4, 0..3),
            proptest::collection::btree_set(0usize..4, 0..3),
        );
        proptest::collection::vec(agent, 1..8).prop_map(|agents| {
            const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
            let pick = |set: &BTreeSet<usize>| set.iter().map(|i| CHANNELS[*i]).collect::<Vec<_>>();
            let agents: Vec<_> = agents
                .iter()
                .enumerate()
                .map(|(i, a)| (format!("n{i}"), a.0, pick(&a.1), pick(&a.2)))
                .collect();
            let mut lines: Vec<Line<'_>> =
                agents.iter().map(|a| (a.0.as_str(), a.1, a.2.as_slice(), a.3.as_slice())).collect();
            let lacks =
                |used: Vec<&str>| CHANNELS.into_iter().filter(|c| !used.contains(c)).collect::<Vec<_>>();
            let unread = lacks(agents.iter().flat_map(|a| a.2.clone()).collect());
            let unwritten = lacks(agents.iter().flat_map(|a| a.3.clone()).collect());
            lines.push(("reader", 1, &unread, &[]));
            lines.push(("writer", 1, &[], &unwritten));
            topology(&lines)
        })
    }

    proptest! {
        #[test]
        fn inputs_and_readers_are_two_views_of_the_same_links(t in any_swarm()) {
            for (agent, instance) in t.agents.iter().enumerate() {
                for (input, spec) in instance.inputs.iter().enumerate() {
                    let lane = &t.agents[spec.producer].lanes[spec.lane];
                    prop_assert_eq!(lane.channel, spec.channel);
                    let reader = ReaderRef { agent, input };
                    prop_assert!(lane.readers.contains(&reader));
                }
                for (lane, spec) in instance.lanes.iter().enumerate() {
                    for reader in &spec.readers {
                        let input = t.agents[reader.agent].inputs[reader.input];
                        prop_assert_eq!((input.producer, input.lane), (agent, lane));
                    }
                }
            }
        }

        #[test]
        fn each_frame_is_one_members_by_its_number_or_by_a_table_of_its_own(t in any_swarm(), sequence in 0u64..1000) {
            let mut spans = Vec::new();
            for lane in t.agents.iter().flat_map(|a| &a.lanes) {
                let configs: BTreeSet<_> = lane.readers.iter().map(|r| t.agents[r.agent].config).collect();
                let specs = || lane.readers.iter().map(|r| t.agents[r.agent].inputs[r.input]);
                let numbered = specs().filter(|s| s.table.is_none()).filter(|s| {
                    let (k, n) = s.share;
                    sequence % u64::from(n) == u64::from(k)
                });
                let tables: BTreeSet<_> = specs().filter_map(|s| s.table).map(|t| (t.group, t.offset)).collect();
                let listed: BTreeSet<_> = lane.groups.iter().map(|t| (t.group, t.offset)).collect();
                prop_assert_eq!(&tables, &listed);
                prop_assert_eq!(numbered.count() + tables.len(), configs.len());
                spans.extend(lane.groups.iter().map(|t| (t.group, t.offset, t.offset + claims::table_bytes(t.entries))));
            }
            spans.sort_unstable();
            for pair in spans.windows(2) {
                prop_assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "tables overlap: {:?}", pair);
            }
            prop_assert!(spans.iter().all(|(group, _, end)| *end <= t.groups[*group].bytes));
        }

        #[test]
        fn who_starts_later_stops_earlier_unless_the_data_says_otherwise(
            mut t in any_swarm(), pairs in proptest::collection::vec((0usize..9, 0usize..9), 0..6),
        ) {
            let configs = t.configs.len();
            // A later agent of the file after an earlier one: no circle.
            let pairs = pairs.into_iter().map(|(a, b)| (a.max(b), a.min(b)));
            t.after = pairs.filter(|(later, before)| *later < configs && later != before).collect();
            let stages = t.stop_order();
            let stage_of = |config: usize| {
                stages.iter().position(|stage| stage.contains(&t.configs[config].1[0])).expect("everybody has one")
            };
            let feeds = t.feeds();
            for from in 0..configs {
                for to in (0..configs).filter(|&to| feeds.has(from, to) && !feeds.has(to, from)) {
                    prop_assert!(stage_of(from) < stage_of(to), "the data's order");
                }
            }
            if let [(later, before)] = t.after[..] {
                let (there, back) = (feeds.has(before, later), feeds.has(later, before));
                prop_assert_eq!(stage_of(later) < stage_of(before), !there);
                prop_assert!(!(there && back) || stage_of(later) == stage_of(before), "a circle");
            }
        }

        #[test]
        fn stages_hold_everybody_once_and_only_a_circle_shares_a_stage_with_its_producer(t in any_swarm()) {
            let stages = t.stop_order();
            let mut all: Vec<usize> = stages.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..t.agents.len()).collect::<Vec<_>>());
            let mut stage_of = vec![0; t.agents.len()];
            for (index, stage) in stages.iter().enumerate() {
                stage.iter().for_each(|agent| stage_of[*agent] = index);
            }
            let feeds = t.feeds();
            for (agent, instance) in t.agents.iter().enumerate() {
                for input in &instance.inputs {
                    let circle = feeds.has(instance.config, t.agents[input.producer].config);
                    let (from, to) = (stage_of[input.producer], stage_of[agent]);
                    prop_assert!(from < to || (circle && from == to), "{} -> {}", from, to);
                }
            }
        }
    }
}
