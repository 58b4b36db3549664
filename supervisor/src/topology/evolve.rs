//! From a swarm file to instances and lanes, and from what runs to what a changed file wants: what stays keeps its index.
//!
//! Indices only grow. An agent that a file no longer names, or a replica that is one too many, keeps its place, its lanes and its
//! inputs, and is not *active*: the supervisor has struck it from the board, and nobody who shares a lane with it has to be told
//! anything. So has a replica that was never started: places that `replicas_max` reserves. Who is active again needs no more than a
//! start. Pure.

use super::{Group, InputSpec, Instance, LaneSpec, ReaderRef, TableSpec, Topology};
use crate::config::{self, SwarmFile, WhenFull};
use shoal_runtime::claims;
use shoal_runtime::layout::LINE_BYTES;
use std::collections::{BTreeMap, HashMap};

/// Places for replicas of an agent that has several, if its file does not say.
const PLACES: u32 = 8;

/// How many replicas an agent has a place for: so many can run without anybody else being started again.
pub fn places(agent: &config::Agent) -> u32 {
    let least = if agent.replicas > 1 { PLACES } else { 0 };
    agent.replicas_max.unwrap_or(least).max(agent.replicas)
}

/// A link to be: who reads which lane, and how.
struct Link {
    reader: usize,
    producer: usize,
    lane: usize,
    share: (u32, u32),
    table: Option<TableSpec>,
}

impl Topology {
    /// Expands a checked swarm file.
    pub fn of(file: &SwarmFile) -> Topology {
        Topology::default().evolve(file)
    }

    /// What becomes of this when a file is applied whose channels and agents stand in the order of this one's, new ones behind
    /// (as [`crate::reload::merge`] makes it).
    pub fn evolve(&self, file: &SwarmFile) -> Topology {
        let mut next = Topology {
            channels: file.channels.clone(),
            agents: self.agents.clone(),
            groups: self.groups.clone(),
            configs: self.configs.clone(),
            after: Vec::new(),
        };
        for (index, agent) in file.agents.iter().enumerate() {
            next.after.extend(agent.after.iter().map(|&before| (index, before)));
            if index == next.configs.len() {
                next.configs.push((agent.name.clone(), Vec::new()));
            }
        }
        // Those that run first, so that their numbers are those of the file; then the places.
        for active in [true, false] {
            (0..file.agents.len()).for_each(|index| next.add_places(file, index, active));
        }
        next.agents.iter_mut().for_each(|instance| instance.follow(file));
        next.link(self, file);
        next
    }

    fn add_places(&mut self, file: &SwarmFile, index: usize, active: bool) {
        let agent = &file.agents[index];
        let end = if active { agent.replicas } else { places(agent) };
        for replica in self.configs[index].1.len() as u32..end {
            self.configs[index].1.push(self.agents.len());
            self.agents.push(Instance {
                name: String::new(),
                config: index,
                replica,
                replicas: agent.replicas,
                active,
                lanes: Vec::new(),
                inputs: Vec::new(),
            });
        }
        let several = self.configs[index].1.len() > 1;
        for &place in &self.configs[index].1 {
            let instance = &mut self.agents[place];
            // Who is removed keeps the name under which it is known.
            if agent.replicas > 0 || instance.name.is_empty() {
                instance.name = match several {
                    true => format!("{}.{}", agent.name, instance.replica + 1),
                    false => agent.name.clone(),
                };
            }
        }
    }

    /// Adds an agent behind all others, with a lane for each group that subscribes a channel, read by that group alone. Its lanes
    /// block, whatever their channels do. Returns for each lane the channel and the group.
    ///
    /// `file` does not know it yet: it is to become its last agent.
    pub fn add_postman(&mut self, file: &SwarmFile, name: &str) -> Vec<(usize, String)> {
        let (sharers, postman) = (self.sharers(file), self.agents.len());
        let lane = |(channel, group): &(usize, String)| LaneSpec {
            channel: *channel,
            capacity_bytes: self.channels[*channel].capacity_bytes,
            when_full: WhenFull::Block,
            only: Some(group.clone()),
            readers: Vec::new(),
            groups: Vec::new(),
        };
        let instance = Instance {
            name: name.to_owned(),
            config: self.configs.len(),
            replica: 0,
            replicas: 1,
            active: true,
            lanes: sharers.iter().map(|(key, _)| lane(key)).collect(),
            inputs: Vec::new(),
        };
        let before = self.clone();
        self.configs.push((name.to_owned(), vec![postman]));
        self.agents.push(instance);
        self.agents.iter_mut().for_each(Instance::unlink);
        self.link(&before, file);
        sharers.into_iter().map(|(key, _)| key).collect()
    }

    /// For each channel and group, in the order of the file, the instances that share the channel's messages.
    fn sharers(&self, file: &SwarmFile) -> Vec<((usize, String), Vec<usize>)> {
        let mut order = Vec::new();
        let mut members: BTreeMap<(usize, String), Vec<usize>> = BTreeMap::new();
        // By agent, then by replica, wherever their places are.
        let instances = file
            .agents
            .iter()
            .zip(&self.configs)
            .flat_map(|(agent, (_, places))| places.iter().map(move |&place| (place, agent)));
        for (index, agent) in instances {
            for reference in &agent.subscribes {
                let key = (reference.channel, agent.group.clone());
                let sharing = members.entry(key.clone()).or_insert_with(|| {
                    order.push(key);
                    Vec::new()
                });
                sharing.push(index);
            }
        }
        let taken = |key: (usize, String)| members.remove(&key).map(|sharing| (key, sharing));
        order.into_iter().filter_map(taken).collect()
    }

    /// Gives every subscriber an input per lane, and every lane its readers. What was there before stays where it was.
    fn link(&mut self, before: &Topology, file: &SwarmFile) {
        let mut links = Vec::new();
        let mut lanes_of = vec![Vec::new(); self.channels.len()];
        for (producer, instance) in self.agents.iter().enumerate() {
            for (lane, spec) in instance.lanes.iter().enumerate() {
                lanes_of[spec.channel].push((producer, lane));
            }
        }
        for ((channel, name), members) in self.sharers(file) {
            for &(producer, lane) in &lanes_of[channel] {
                let only = &self.agents[producer].lanes[lane].only;
                if only.as_ref().is_none_or(|only| *only == name) {
                    self.read_by(before, (producer, lane), &name, &members, &mut links);
                }
            }
        }
        self.settle_inputs(before, &links);
        self.agents.iter_mut().for_each(Instance::shrink);
    }

    /// Notes the members of a group as readers of a lane.
    fn read_by(
        &mut self,
        before: &Topology,
        (producer, lane): (usize, usize),
        name: &str,
        members: &[usize],
        links: &mut Vec<Link>,
    ) {
        let LaneSpec { capacity_bytes, when_full, .. } = self.agents[producer].lanes[lane];
        let known = before.table_of(producer, &self.agents[producer].lanes[lane], name);
        let claims = when_full != WhenFull::DropOldest && (members.len() > 1 || known.is_some());
        let table = claims.then(|| {
            let entries = claims::entries_of(capacity_bytes);
            let known = known.filter(|table| table.entries == entries);
            self.note_members(name, members);
            known.unwrap_or_else(|| self.add_table(name, entries))
        });
        self.agents[producer].lanes[lane].groups.extend(table);
        let active = members.iter().filter(|&&member| self.agents[member].active).count() as u32;
        let mut place = 0;
        for &reader in members {
            let shares = !claims && self.agents[reader].active;
            let share = if shares { (place, active) } else { (0, 1) };
            place += u32::from(shares);
            links.push(Link { reader, producer, lane, share, table });
        }
    }

    /// The table by which a group shared a lane before, if it did.
    fn table_of(&self, producer: usize, lane: &LaneSpec, name: &str) -> Option<TableSpec> {
        let lanes = &self.agents.get(producer)?.lanes;
        let same = lanes.iter().find(|l| l.key() == lane.key())?;
        same.groups.iter().copied().find(|table| self.groups[table.group].name == name)
    }

    /// Adds a claim table for a lane to the memory of a group.
    fn add_table(&mut self, name: &str, entries: u64) -> TableSpec {
        let group = self.group(name);
        let record = &mut self.groups[group];
        let offset = record.bytes;
        record.bytes += claims::table_bytes(entries).next_multiple_of(LINE_BYTES);
        TableSpec { group, offset, entries }
    }

    fn note_members(&mut self, name: &str, members: &[usize]) {
        let group = self.group(name);
        let all = &mut self.groups[group].members;
        all.extend(members);
        all.sort_unstable();
        all.dedup();
    }

    fn group(&mut self, name: &str) -> usize {
        self.groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            self.groups.push(Group { name: name.to_owned(), members: Vec::new(), bytes: 0 });
            self.groups.len() - 1
        })
    }

    /// Puts the links into inputs and readers: those that were there before in their former order, then the others.
    fn settle_inputs(&mut self, before: &Topology, links: &[Link]) {
        let mut of_reader: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut of_lane: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for (index, link) in links.iter().enumerate() {
            of_reader.entry(link.reader).or_default().push(index);
            of_lane.entry((link.producer, link.lane)).or_default().push(index);
        }
        let mut input_of = vec![0; links.len()];
        for (&reader, mine) in &mut of_reader {
            let former = before.agents.get(reader).map_or(&[][..], |instance| &instance.inputs);
            let key = |link: &Link| (link.producer, self.agents[link.producer].lanes[link.lane].key());
            let places: HashMap<_, _> = former
                .iter()
                .enumerate()
                .map(|(place, input)| {
                    ((input.producer, before.agents[input.producer].lanes[input.lane].key()), place)
                })
                .collect();
            // Stable: what is new stays in the order of the file.
            mine.sort_by_key(|&link| places.get(&key(&links[link])).copied().unwrap_or(usize::MAX));
            mine.iter().enumerate().for_each(|(input, &link)| input_of[link] = input);
            let spec = |&link: &usize| {
                let Link { producer, lane, share, table, .. } = links[link];
                InputSpec { channel: self.agents[producer].lanes[lane].channel, producer, lane, share, table }
            };
            let inputs = mine.iter().map(spec).collect();
            self.agents[reader].inputs = inputs;
        }
        for (&(producer, lane), mine) in &mut of_lane {
            let key = self.agents[producer].lanes[lane].key();
            let former = before.agents.get(producer).and_then(|i| i.lanes.iter().find(|l| l.key() == key));
            let places: HashMap<_, _> = former
                .iter()
                .flat_map(|lane| lane.readers.iter().enumerate().map(|(place, reader)| (reader.agent, place)))
                .collect();
            mine.sort_by_key(|&link| places.get(&links[link].reader).copied().unwrap_or(usize::MAX));
            let readers = mine.iter().map(|&l| ReaderRef { agent: links[l].reader, input: input_of[l] });
            self.agents[producer].lanes[lane].readers = readers.collect();
        }
    }
}

impl Instance {
    /// Takes over what a file says of its agent: whether it is to run, and its lanes, unlinked.
    fn follow(&mut self, file: &SwarmFile) {
        self.unlink();
        let Some(agent) = file.agents.get(self.config).filter(|_| !self.is_postman()) else { return };
        self.active = self.replica < agent.replicas;
        self.replicas = agent.replicas;
        let published = |lane: &LaneSpec| agent.publishes.iter().any(|r| r.channel == lane.channel);
        self.lanes.retain(published);
        for reference in &agent.publishes {
            if !self.lanes.iter().any(|lane| lane.channel == reference.channel) {
                self.lanes.push(LaneSpec::new(reference.channel));
            }
        }
        for lane in &mut self.lanes {
            let channel = &file.channels[lane.channel];
            (lane.capacity_bytes, lane.when_full) = (channel.capacity_bytes, channel.when_full);
        }
    }

    /// Gives back the room for more than it has: of a thousand it is as much as all the rest.
    fn shrink(&mut self) {
        self.inputs.shrink_to_fit();
        self.lanes.shrink_to_fit();
        for lane in &mut self.lanes {
            lane.readers.shrink_to_fit();
            lane.groups.shrink_to_fit();
        }
    }

    fn unlink(&mut self) {
        self.inputs.clear();
        for lane in &mut self.lanes {
            lane.readers.clear();
            lane.groups.clear();
        }
    }

    fn is_postman(&self) -> bool {
        self.lanes.iter().any(|lane| lane.only.is_some())
    }
}

impl LaneSpec {
    fn new(channel: usize) -> LaneSpec {
        LaneSpec {
            channel,
            capacity_bytes: 0,
            when_full: WhenFull::Block,
            only: None,
            readers: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// What a lane is known by among those of its producer.
    pub fn key(&self) -> (usize, Option<&str>) {
        (self.channel, self.only.as_deref())
    }
}
