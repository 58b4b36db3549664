//! What an incarnation is made of: its manifest, its segment, its sockets and pipes, its process.

use crate::agent::{Live, Post};
use crate::config::{SwarmFile, Trust};
use crate::confine::{self, Cages};
use crate::spawn::{self, Cage, Child, Order, Spawner, Urgency};
use crate::topology::{InputSpec, Instance, LaneSpec, TableSpec, Topology};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use shoal_runtime::board::Verdict;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{self, BoardShape, LaneShape, SegmentShape};
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::wire::{
    self, ChannelEntry, ClaimsEntry, InputEntry, LaneEntry, Manifest, NeighbourEntry, ReaderEntry,
    TableEntry, ToAgent,
};
use shoal_runtime::zygote::NAME_ENV;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// The shape of an instance's segments.
pub fn segment_shape(instance: &Instance) -> SegmentShape {
    let lanes = instance.lanes.iter().map(|lane| LaneShape {
        capacity_bytes: lane.capacity_bytes,
        when_full: lane.when_full,
        channel: lane.channel as u32,
    });
    SegmentShape {
        lanes: lanes.collect(),
        input_count: instance.inputs.len() as u32,
        state_bytes: layout::STATE_BYTES,
    }
}

/// The shape of the board, with room for what reloads add.
pub fn board_shape(topology: &Topology) -> BoardShape {
    BoardShape::with_room(topology.channels.len() as u32, marks(topology))
}

/// The shape that a board grows to; `None` when it has not enough room.
pub fn grown_board_shape(board: &BoardShape, topology: &Topology) -> Option<BoardShape> {
    board.grown(topology.channels.len() as u32, marks(topology))
}

fn marks(topology: &Topology) -> Vec<(u32, u32)> {
    topology.agents.iter().map(|a| (a.lanes.len() as u32, a.inputs.len() as u32)).collect()
}

/// The channels that an instance has a lane of.
fn own_channels(instance: &Instance) -> BTreeSet<usize> {
    let lanes = instance.lanes.iter().map(|lane| lane.channel);
    lanes.chain(instance.inputs.iter().map(|input| input.channel)).collect()
}

/// What all incarnations of an agent are told alike; the generation is put in at each birth.
pub fn manifest(file: &SwarmFile, topology: &Topology, board: &BoardShape, agent: usize) -> Manifest {
    let instance = &topology.agents[agent];
    let config = &file.agents[instance.config];
    let neighbours = topology.neighbours(agent);
    let place = |agent: usize| neighbours.binary_search(&agent).unwrap_or_default() as u32;
    let line_of = |references: &[crate::config::Reference], channel: usize| {
        references.iter().find(|r| r.channel == channel).map_or(config.line, |r| r.line) as u32
    };
    let read: HashSet<usize> = instance.inputs.iter().map(|i| i.producer).collect();
    let trust_of = |agent: usize| file.agents[topology.agents[agent].config].confinement.trust;
    let claims = topology.claims_of(agent);
    let table = |spec: &TableSpec| TableEntry {
        claims: claims.iter().position(|(group, _)| *group == spec.group).unwrap_or_default() as u32,
        offset: spec.offset as u64,
        entries: spec.entries,
    };
    let reader = |lane: &LaneSpec, r: &crate::topology::ReaderRef| {
        let InputSpec { share, table, .. } = topology.agents[r.agent].inputs[r.input];
        let group = table.and_then(|table| lane.groups.iter().position(|t| *t == table));
        let group = group.map(|group| group as u32);
        ReaderEntry { neighbour: place(r.agent), input: r.input as u32, share, group }
    };
    Manifest {
        swarm: file.name.clone(),
        file: file.path.display().to_string(),
        name: instance.name.clone(),
        line: config.line as u32,
        agent: agent as u32,
        generation: 0,
        owner: 0,
        prefetch: config.prefetch,
        replica: (instance.replica, instance.replicas),
        cpu_percent: config.confinement.limits.cpu_percent,
        fence_by_sleeper: shoal_runtime::sync::can_fence_peers(),
        permanent: config.restart.policy == crate::config::Policy::Permanent,
        standby: false,
        is_stood_by: config.standby > 0 || config.prefork,
        shape: segment_shape(instance),
        board: board.clone(),
        channels: own_channels(instance)
            .into_iter()
            .map(|index| {
                let c = &topology.channels[index];
                let (name, message) = (c.name.clone(), c.message.clone());
                ChannelEntry { index: index as u32, name, message, line: c.line as u32 }
            })
            .collect(),
        channel_names: topology.channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join("\n"),
        neighbours: neighbours
            .iter()
            .map(|&n| NeighbourEntry {
                agent: n as u32,
                name: topology.agents[n].name.clone(),
                shape: segment_shape(&topology.agents[n]).into(),
                read: read.contains(&n),
            })
            .collect(),
        lanes: instance
            .lanes
            .iter()
            .map(|lane| LaneEntry {
                channel: lane.channel as u32,
                line: line_of(&config.publishes, lane.channel),
                readers: lane.readers.iter().map(|r| reader(lane, r)).collect(),
                groups: lane.groups.iter().map(table).collect(),
            })
            .collect(),
        inputs: instance
            .inputs
            .iter()
            .map(|input| InputEntry {
                channel: input.channel as u32,
                line: line_of(&config.subscribes, input.channel),
                neighbour: place(input.producer),
                lane: input.lane as u32,
                share: input.share,
                table: input.table.as_ref().map(table),
                copied: trust_of(input.producer) != Trust::Trusted,
            })
            .collect(),
        given: Vec::new(),
        attempts_max: config.max_attempts,
        claims: claims
            .iter()
            .map(|&(group, member)| ClaimsEntry { bytes: topology.groups[group].bytes as u64, member })
            .collect(),
    }
}

/// What is the same at every birth.
pub struct Cradle {
    /// Makes processes.
    pub spawner: Spawner,
    /// What bounds them.
    pub cages: Cages,
    /// With which priority that is done.
    pub urgency: Urgency,
    /// Random number of the swarm.
    pub swarm: u64,
    /// The board, read-only.
    pub board: OwnedFd,
    /// The agents that are adopted instead of spawned, each with our end of its control socket until it is born.
    pub adopted: HashMap<u32, Option<OwnedFd>>,
}

impl Cradle {
    /// Whether an agent's process was adopted: once it has left, it cannot be born again.
    pub fn was_adopted(&self, agent: u32) -> bool {
        matches!(self.adopted.get(&agent), Some(None))
    }
}

/// A process, our end of its control socket, and its output if we hear it.
pub type Process = (Child, OwnedFd, [Option<OwnedFd>; 2]);

/// Makes an incarnation: its segment continues where the verdict ended, with the state; its process runs but was not told to begin.
/// Without an origin it is a standby's. One that is adopted has its process already, and once only; another may be `forked` already.
/// `claims` are those of the manifest.
///
/// # Errors
/// What is lacking, in words, for the operator.
pub fn bear(
    cradle: &mut Cradle,
    manifest: &Manifest,
    config: &crate::config::Agent,
    from: Option<(&Verdict, &[u8])>,
    claims: &[BorrowedFd<'_>],
    forked: Option<Process>,
) -> io::Result<Live> {
    let incarnation = manifest.incarnation();
    let origin = Origin {
        swarm: cradle.swarm,
        incarnation,
        lanes: from.map(|(last, _)| last.lanes.clone()).unwrap_or_default(),
        inputs: from.map(|(last, _)| last.inputs.clone()).unwrap_or_default(),
        state: from.map(|(_, state)| state.to_vec()).unwrap_or_default(),
    };
    let segment = segment::create(&manifest.shape, &origin)?;
    let doorbell = Doorbell::create()?;
    let told = segment::freeze("shoal-manifest", &manifest.to_bytes()?)?;
    // Hello waits in the socket before the process reads from it for the first time.
    let writer = segment::reopen_for_writer(&segment)?;
    let own = [writer.as_fd(), cradle.board.as_fd(), doorbell.as_fd(), told.as_fd()];
    let handed = [&own, claims].concat();
    let (child, control, pipes) = match (cradle.adopted.get_mut(&manifest.agent), forked) {
        (Some(socket), _) => adopt(socket, &handed)?,
        (None, Some(process)) => {
            if let Err(error) = wire::tell(&process.1, &ToAgent::Hello, &handed) {
                spawn::kill_tree(&process.0);
                return Err(error);
            }
            cradle.urgency.hurry(&process.0);
            process
        }
        (None, None) => {
            let (cage, _) = cradle.cages.of(cradle.urgency, manifest.agent, &manifest.name, config)?;
            let own = [(spawn::SWARM_ENV, manifest.swarm.as_str()), (NAME_ENV, &manifest.name)];
            spawn(&mut cradle.spawner, cage, config, &own, &handed)?
        }
    };
    Ok(Live {
        incarnation,
        owner: manifest.owner,
        child,
        control,
        segment,
        doorbell,
        pipes,
        sealed: None,
        post: Post::default(),
        parked: from.is_none(),
        begun: from.is_some(),
        at_once: false,
        going: false,
        asked: 0,
        born: Instant::now(),
        killed_ns: None,
        violated_ns: None,
        hung_ns: None,
        ordered: false,
        by: None,
        dead_since: None,
    })
}

/// Takes the socket only from whom it has told.
fn adopt(socket: &mut Option<OwnedFd>, handed: &[BorrowedFd<'_>]) -> io::Result<Process> {
    let has_left = "its process was adopted and has left: only who handed it over can do so again";
    let control = socket.take().ok_or_else(|| io::Error::other(has_left))?;
    let told = Child::adopt(&control)
        .and_then(|child| wire::tell(&control, &ToAgent::Hello, handed).map(|()| child));
    match told {
        Ok(child) => Ok((child, control, [None, None])),
        Err(error) => {
            *socket = Some(control);
            Err(error)
        }
    }
}

/// Both ends of a process's control socket, output and errors.
pub struct Wires {
    /// Ours.
    pub ours: (OwnedFd, [Option<OwnedFd>; 2]),
    /// Its own.
    pub theirs: [OwnedFd; 3],
}

impl Wires {
    /// Makes them.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn make() -> io::Result<Wires> {
        let flags = SocketFlags::CLOEXEC;
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err_read, err_write) = pipe_with(PipeFlags::CLOEXEC)?;
        for ours in [&out_read, &err_read] {
            rustix::io::ioctl_fionbio(ours, true)?;
        }
        let ours = (control, [Some(out_read), Some(err_read)]);
        Ok(Wires { ours, theirs: [theirs, out_write, err_write] })
    }
}

/// Starts an agent's command, with variables of its own; hello waits for it if something is handed to it.
///
/// # Errors
/// What is lacking.
pub fn spawn(
    spawner: &mut Spawner,
    cage: Arc<Cage>,
    config: &crate::config::Agent,
    own: &[(&str, &str)],
    handed: &[BorrowedFd<'_>],
) -> io::Result<Process> {
    let Wires { ours: (control, pipes), theirs: [theirs, stdout, stderr] } = Wires::make()?;
    if !handed.is_empty() {
        wire::tell(&control, &ToAgent::Hello, handed)?;
    }
    let number = wire::CONTROL_FD.to_string();
    let own = own.iter().copied().chain([(wire::CONTROL_ENV, number.as_str())]);
    let given = config.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let (along, numbers) = confine::handed(&config.confinement.secrets)?;
    let numbers = numbers.iter().map(|(name, number)| (name.as_str(), number.as_str()));
    let bounds = &config.confinement;
    let inherits = |name: &[u8]| !bounds.env_clear || bounds.env_allow.iter().any(|n| n.as_bytes() == name);
    let order = Order {
        command: config.command.iter().map(|part| spawn::c_string(part)).collect::<io::Result<_>>()?,
        environment: spawn::environment(inherits, &given.chain(own).chain(numbers).collect::<Vec<_>>())?,
        control: theirs,
        stdout,
        stderr,
        along,
        cage,
    };
    Ok((spawner.spawn(order)?, control, pipes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::fmt::Write;
    use std::path::Path;

    /// What the first of so many pairs is told.
    fn told(pairs: usize) -> Manifest {
        let mut text = String::from("[swarm]\nname = \"s\"\n");
        for pair in 0..pairs {
            for (own, other) in [("a", "b"), ("b", "a")] {
                let channel = format!(
                    "[channel.{own}{pair}]\nmessage = \"M\"\n[agent.{own}{pair}]\ncommand = [\"x\"]\n"
                );
                let ways = format!("publishes = [\"{own}{pair}\"]\nsubscribes = [\"{other}{pair}\"]\n");
                write!(text, "{channel}{ways}").expect("written");
            }
        }
        let file = config::parse(Path::new("t.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
        let topology = Topology::of(&file);
        manifest(&file, &topology, &board_shape(&topology), 0)
    }

    #[test]
    fn process_is_adopted_once_and_one_that_could_not_be_told_stays_to_be_adopted() {
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair")
        };
        let (ours, theirs) = pair();
        drop(theirs);
        let mut socket = Some(ours);
        adopt(&mut socket, &[]).expect_err("nobody is there to be told");
        assert!(socket.is_some(), "that was its only life");
        let (ours, _theirs) = pair();
        let mut socket = Some(ours);
        let (child, ..) = adopt(&mut socket, &[]).expect("adopted");
        assert!(child.adopted && socket.is_none());
        let error = adopt(&mut socket, &[]).expect_err("it has had its life");
        assert_eq!(error.to_string().matches("has left").count(), 1, "{error}");
    }

    #[test]
    fn agent_is_told_of_its_own_channels_and_of_others_hardly_more_than_their_names() {
        let (few, many) = (told(2), told(200));
        assert_eq!(few.channels, many.channels);
        assert_eq!((many.channels.len(), many.channel_names.lines().count()), (2, 400));
        let bytes = |m: &Manifest| m.to_bytes().expect("encoded").len();
        let each = (bytes(&many) - bytes(&few)) / 396;
        assert!(
            each <= 32,
            "another agent with a channel of its own adds {each} bytes to what everybody is told"
        );
    }
}
