//! Processes that attach to this one as agents do to a supervisor: real sealed segments, links, doorbells and board.
//!
//! They are copies of the running binary, so its `main` must lead to [`crate::peer::run_if_peer`]. The hub has a lane to all
//! spokes, each spoke one to the hub. There are no restarts here.

#[cfg(feature = "peers")]
use crate::baseline::Baseline;
use crate::floor::Floor;
use crate::peer::{self, PROCESSES_ENV, RING_ENV};
use crate::task::{Op, Reply, Task};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use shoal_runtime::board::BoardWriter;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::wire::{
    self, ChannelEntry, FromAgent, InputEntry, LINKS_PER_PACKET, LaneEntry, Manifest, NeighbourEntry,
    ReaderEntry, Received, ToAgent,
};
use shoal_runtime::{Incarnation, cursor};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// Capacity of the lanes, unless they are made for few or for large messages.
pub const CAPACITY_BYTES: u64 = 1 << 20;
/// Where inherited descriptors begin: above the control socket's.
const INHERITED: RawFd = 100;

/// A hub and its spokes, and what keeps them going.
pub struct Star {
    ends: Vec<End>,
    _board: BoardWriter,
    _floor: OwnedFd,
}

struct End {
    child: Child,
    told: BufReader<UnixStream>,
    control: OwnedFd,
    segment: OwnedFd,
    doorbell: Doorbell,
}

impl Star {
    /// Starts a hub and so many spokes, with `args` on their command line, and waits until they have met.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start(spokes: u32, args: &[&str]) -> io::Result<Self> {
        Star::start_with(spokes, CAPACITY_BYTES, args)
    }

    /// The same with lanes, and rings of the floor, of another capacity.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start_with(spokes: u32, capacity_bytes: u64, args: &[&str]) -> io::Result<Self> {
        let count = spokes + 1;
        let (floor, path) = Floor::create(count as usize, capacity_bytes as usize)?;
        let bells = (0..4).map(|_| inherited_bell()).collect::<io::Result<Vec<_>>>()?;
        let numbers: Vec<String> = bells.iter().map(|bell| bell.as_raw_fd().to_string()).collect();
        let mut variables = vec![
            (peer::FLOOR_ENV, path),
            (PROCESSES_ENV, count.to_string()),
            (RING_ENV, capacity_bytes.to_string()),
            (peer::BELLS_ENV, numbers.join(" ")),
        ];
        #[cfg(feature = "peers")]
        let baseline = Baseline::create().map_err(|e| io::Error::other(e.to_string()))?;
        #[cfg(feature = "peers")]
        variables.push((peer::BASELINE_ENV, baseline.get_os_id().to_owned()));
        let shape = BoardShape { channel_count: 2, agents: agents(spokes), ..BoardShape::default() };
        let (writer, board) = segment::create_board(shape.clone(), 1)?;
        variables.push((wire::CONTROL_ENV, wire::CONTROL_FD.to_string()));
        let ends = (0..count).map(|agent| {
            let manifest = manifest(agent, spokes, capacity_bytes, &shape);
            End::start(&manifest, capacity_bytes, &board, args, &variables)
        });
        let ends = ends.collect::<io::Result<Vec<_>>>()?;
        link(&ends, &writer)?;
        let mut star = Star { ends, _board: writer, _floor: floor };
        // The name goes as soon as all have it open: nothing is left in /dev/shm, however this process ends.
        star.run(Task::new(Op::Meet, 0))?;
        Ok(star)
    }

    /// Pins hub and first spoke to a CPU each.
    ///
    /// # Errors
    /// They are gone.
    pub fn pin(&mut self, cpus: [usize; 2]) -> io::Result<()> {
        for (end, cpu) in self.ends.iter_mut().zip(cpus) {
            end.tell(Task::new(Op::Pin, cpu as u64))?;
        }
        let end = self.ends.len().min(2);
        self.hear(0..end).map(drop)
    }

    /// Lets all do the same thing; returns the time from the hub's begin to the end of all, what all received, and the row
    /// of single times if one of them kept one.
    ///
    /// # Errors
    /// One is gone, or found a message that is not the one that was sent.
    pub fn run(&mut self, task: Task) -> io::Result<Reply> {
        self.run_each(|_| task)
    }

    /// Tells each its own task, by its number.
    ///
    /// # Errors
    /// As [`Star::run`].
    pub fn run_each(&mut self, task: impl Fn(usize) -> Task) -> io::Result<Reply> {
        self.ends.iter_mut().enumerate().try_for_each(|(agent, end)| end.tell(task(agent)))?;
        let replies = self.hear(0..self.ends.len())?;
        Ok(Reply {
            begin_ns: replies[0].begin_ns,
            end_ns: replies.iter().map(|r| r.end_ns).max().unwrap_or_default(),
            received: replies.iter().map(|r| r.received).sum(),
            cpu_ns: replies[1..].iter().map(|r| r.cpu_ns).sum(),
            row: replies.iter().map(|r| r.row).find(|row| row[0] > 0).unwrap_or_default(),
        })
    }

    /// Hears the answers as they come: one that failed leaves others waiting for it.
    fn hear(&mut self, of: std::ops::Range<usize>) -> io::Result<Vec<Reply>> {
        let mut replies: Vec<Option<Reply>> = vec![None; of.len()];
        while replies.iter().any(Option::is_none) {
            let open = |at: &usize| replies[*at - of.start].is_none();
            let waiting: Vec<usize> = of.clone().filter(open).collect();
            let mut fds: Vec<PollFd<'_>> =
                waiting.iter().map(|&at| PollFd::new(self.ends[at].told.get_ref(), PollFlags::IN)).collect();
            poll(&mut fds, None)?;
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (at, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
                replies[at - of.start] = Some(self.ends[at].hear()?);
            }
        }
        Ok(replies.into_iter().flatten().collect())
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        for end in &mut self.ends {
            // It is our own child, and it may spin.
            let _ = end.child.kill();
            let _ = end.child.wait();
        }
    }
}

/// An eventfd that children inherit, out of the way of the control socket.
fn inherited_bell() -> io::Result<OwnedFd> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC)?;
    let high = rustix::io::fcntl_dupfd_cloexec(&bell, INHERITED)?;
    rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty())?;
    Ok(high)
}

impl End {
    fn start(
        manifest: &Manifest,
        capacity_bytes: u64,
        board: &OwnedFd,
        args: &[&str],
        variables: &[(&str, String)],
    ) -> io::Result<Self> {
        let place = Place { position: cursor::first_position(capacity_bytes), sequence: 0 };
        let incarnation = manifest.incarnation();
        let inputs = vec![place; manifest.inputs.len()];
        let origin = Origin { swarm: 1, incarnation, lanes: vec![place], inputs, state: Vec::new() };
        let segment = segment::create(&manifest.shape, &origin)?;
        let doorbell = Doorbell::create()?;
        let told = segment::freeze("shoal-manifest", &manifest.to_bytes()?)?;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let fds = [segment.as_fd(), board.as_fd(), doorbell.as_fd(), told.as_fd()];
        wire::tell(&control, &ToAgent::Hello, &fds)?;
        let (commands, replies) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args(args)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(OwnedFd::from(replies)))
            .spawn()?;
        Ok(End { child, told: BufReader::new(commands), control, segment, doorbell })
    }

    fn wait_for(&self, word: &FromAgent) -> io::Result<()> {
        loop {
            match wire::listen(&self.control)? {
                Received::Packet(said, _) if said == *word => return Ok(()),
                Received::Nothing => {
                    poll(&mut [PollFd::new(&self.control, PollFlags::IN)], None)?;
                }
                other => {
                    return Err(io::Error::other(format!("a measured process said {other:?}, not {word:?}")));
                }
            }
        }
    }

    fn seal(&self) -> io::Result<()> {
        self.wait_for(&FromAgent::Mapped)?;
        segment::seal_live(&self.segment)
    }

    fn tell(&mut self, task: Task) -> io::Result<()> {
        self.told.get_mut().write_all(task.line().as_bytes())
    }

    fn hear(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let said = if line.is_empty() { "it ended" } else { line.trim_end() };
        Reply::parse(&line).ok_or_else(|| io::Error::other(format!("a measured process failed: {said}")))
    }
}

/// What the supervisor does: seals, hands over, publishes, and lets them go.
fn link(ends: &[End], board: &BoardWriter) -> io::Result<()> {
    let of = |agent: usize| Incarnation { agent: agent as u32, generation: 1 };
    ends.iter().try_for_each(End::seal)?;
    let views =
        ends.iter().map(|end| segment::reopen_read_only(&end.segment)).collect::<io::Result<Vec<_>>>()?;
    for (agent, end) in ends.iter().enumerate() {
        let peers: Vec<usize> = if agent == 0 { (1..ends.len()).collect() } else { vec![0] };
        for peers in peers.chunks(LINKS_PER_PACKET) {
            let handed: Vec<_> =
                peers.iter().flat_map(|&p| [views[p].as_fd(), ends[p].doorbell.as_fd()]).collect();
            wire::tell(&end.control, &ToAgent::Links(peers.iter().copied().map(of).collect()), &handed)?;
            end.wait_for(&FromAgent::LinksTaken)?;
        }
        board.publish_generation(of(agent));
    }
    board.announce();
    ends.iter().try_for_each(|end| wire::tell(&end.control, &ToAgent::Go, &[]))
}

/// Lanes and inputs of the agents of a star, for its board.
pub(crate) fn agents(spokes: u32) -> Vec<(u32, u32)> {
    let spoke = (0..spokes).map(|_| (1, 1));
    std::iter::once((1, spokes)).chain(spoke).collect()
}

/// The manifest of one agent of a star; the hub is agent 0.
pub(crate) fn manifest(agent: u32, spokes: u32, capacity_bytes: u64, board: &BoardShape) -> Manifest {
    let channel_of = |agent: u32| u32::from(agent > 0);
    let shape = |agent: u32| SegmentShape {
        lanes: vec![LaneShape { capacity_bytes, when_full: WhenFull::Block, channel: channel_of(agent) }],
        input_count: board.agents[agent as usize].1,
        state_bytes: 0,
    };
    let name = |agent: u32| if agent == 0 { "hub".to_owned() } else { format!("spoke.{agent}") };
    let peers: Vec<u32> = if agent == 0 { (1..=spokes).collect() } else { vec![0] };
    let channel =
        |index, name: &str| ChannelEntry { index, name: name.into(), message: "Load".into(), line: 0 };
    // What a spoke sends arrives at the hub's input of its place; what the hub sends, at each spoke's only one.
    let reader = |place: usize| ReaderEntry {
        neighbour: place as u32,
        input: agent.saturating_sub(1),
        share: (0, 1),
        group: None,
    };
    let neighbour =
        |&peer: &u32| NeighbourEntry { agent: peer, name: name(peer), shape: shape(peer).into(), read: true };
    let input = |place: usize| InputEntry {
        channel: 1 - channel_of(agent),
        line: 0,
        neighbour: place as u32,
        lane: 0,
        share: (0, 1),
        table: None,
        copied: false,
    };
    Manifest {
        swarm: "bench".into(),
        file: String::new(),
        name: name(agent),
        line: 0,
        agent,
        generation: 1,
        owner: 0,
        prefetch: 1,
        replica: (0, 1),
        cpu_percent: None,
        fence_by_sleeper: shoal_runtime::sync::can_fence_peers(),
        permanent: true,
        standby: false,
        is_stood_by: false,
        shape: shape(agent),
        board: board.clone(),
        channels: vec![channel(0, "there"), channel(1, "back")],
        channel_names: "there\nback".into(),
        neighbours: peers.iter().map(neighbour).collect(),
        lanes: vec![LaneEntry {
            channel: channel_of(agent),
            line: 0,
            readers: (0..peers.len()).map(reader).collect(),
            groups: vec![],
        }],
        inputs: (0..peers.len()).map(input).collect(),
        given: Vec::new(),
        attempts_max: 0,
        claims: Vec::new(),
    }
}
