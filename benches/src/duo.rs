//! Two processes that attach to this one as agents do to a supervisor: real sealed segments, links, doorbells and board.
//!
//! They are copies of the running binary, so its `main` must begin with [`crate::peer::run_if_peer`]. Each has a lane to the
//! other. There are no restarts here.

use crate::baseline::Baseline;
use crate::floor::Floor;
use crate::peer::{BASELINE_ENV, FLOOR_ENV, Op, Reply};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use shoal_runtime::board::BoardWriter;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::{BoardShape, LaneShape, SegmentShape, WhenFull};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::wire::{
    self, ChannelEntry, FromAgent, InputEntry, LaneEntry, Manifest, NeighbourEntry, ReaderEntry, Received,
    ToAgent,
};
use shoal_runtime::{Incarnation, cursor};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Capacity of the lanes.
pub const CAPACITY_BYTES: u64 = 1 << 20;

/// Two processes, and what keeps them going.
pub struct Duo {
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

impl Duo {
    /// Starts both and waits until they have met.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start() -> io::Result<Self> {
        let (floor, floor_path) = Floor::create()?;
        let baseline = Baseline::create().map_err(|e| io::Error::other(e.to_string()))?;
        let board_shape = BoardShape { channel_count: 2, agents: vec![(1, 1); 2] };
        let (writer, board) = segment::create_board(board_shape.clone(), 1)?;
        let variables = [(FLOOR_ENV, floor_path.as_str()), (BASELINE_ENV, baseline.get_os_id())];
        let ends = (0..2).map(|agent| End::start(&manifest(agent, &board_shape), &board, variables));
        let ends = ends.collect::<io::Result<Vec<_>>>()?;
        link(&ends, &writer)?;
        let mut duo = Duo { ends, _board: writer, _floor: floor };
        // The name goes as soon as both have it open: nothing is left in /dev/shm, however this process ends.
        duo.run(Op::Meet, 0)?;
        drop(baseline);
        Ok(duo)
    }

    /// Pins each to a CPU.
    ///
    /// # Errors
    /// They are gone.
    pub fn pin(&mut self, cpus: [usize; 2]) -> io::Result<()> {
        for (end, cpu) in self.ends.iter_mut().zip(cpus) {
            end.tell(Op::Pin, cpu as u64)?;
        }
        self.ends.iter_mut().try_for_each(|end| end.hear().map(drop))
    }

    /// Lets both do the same thing; returns the time from the first's begin to the end of both, and the row of single times if
    /// one of them kept one.
    ///
    /// # Errors
    /// They are gone.
    pub fn run(&mut self, op: Op, count: u64) -> io::Result<Reply> {
        self.ends.iter_mut().try_for_each(|end| end.tell(op, count))?;
        let replies = self.ends.iter_mut().map(End::hear).collect::<io::Result<Vec<_>>>()?;
        let end_ns = replies.iter().map(|r| r.end_ns).max().unwrap_or_default();
        let row = replies.iter().map(|r| r.row).find(|row| row[0] > 0).unwrap_or_default();
        Ok(Reply { begin_ns: replies[0].begin_ns, end_ns, row })
    }
}

impl Drop for Duo {
    fn drop(&mut self) {
        for end in &mut self.ends {
            // It is our own child, and it may spin.
            let _ = end.child.kill();
            let _ = end.child.wait();
        }
    }
}

impl End {
    fn start(manifest: &Manifest, board: &OwnedFd, variables: [(&str, &str); 2]) -> io::Result<Self> {
        let place = Place { position: cursor::first_position(CAPACITY_BYTES), sequence: 0 };
        let incarnation = manifest.incarnation();
        let origin =
            Origin { swarm: 1, incarnation, lanes: vec![place], inputs: vec![place], state: Vec::new() };
        let segment = segment::create(&manifest.shape, &origin)?;
        let doorbell = Doorbell::create()?;
        let told = segment::freeze("shoal-manifest", &manifest.to_bytes()?)?;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        wire::tell(
            &control,
            &ToAgent::Hello,
            &[segment.as_fd(), board.as_fd(), doorbell.as_fd(), told.as_fd()],
        )?;
        let (commands, replies) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .env(wire::CONTROL_ENV, wire::CONTROL_FD.to_string())
            .envs(variables)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(OwnedFd::from(replies)))
            .spawn()?;
        Ok(End { child, told: BufReader::new(commands), control, segment, doorbell })
    }

    fn wait_mapped(&self) -> io::Result<()> {
        loop {
            match wire::listen(&self.control)? {
                Received::Packet(FromAgent::Mapped, _) => return segment::seal_live(&self.segment),
                Received::Nothing => std::thread::sleep(Duration::from_micros(200)),
                other => return Err(io::Error::other(format!("a peer said {other:?} first"))),
            }
        }
    }

    fn tell(&mut self, op: Op, count: u64) -> io::Result<()> {
        writeln!(self.told.get_mut(), "{} {count}", op as usize)
    }

    fn hear(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Reply::parse(&line).ok_or_else(|| io::Error::other("a peer of the bench died"))
    }
}

/// What the supervisor does: seals, hands over, publishes, and lets them go.
fn link(ends: &[End], board: &BoardWriter) -> io::Result<()> {
    let of = |agent: usize| Incarnation { agent: agent as u32, generation: 1 };
    for end in ends {
        end.wait_mapped()?;
    }
    for (agent, end) in ends.iter().enumerate() {
        let peer = &ends[1 - agent];
        let segment = segment::reopen_read_only(&peer.segment)?;
        let handed = [segment.as_fd(), peer.doorbell.as_fd()];
        wire::tell(&end.control, &ToAgent::Links(vec![of(1 - agent)]), &handed)?;
        board.publish_generation(of(agent));
    }
    board.announce();
    ends.iter().try_for_each(|end| wire::tell(&end.control, &ToAgent::Go, &[]))
}

pub(crate) fn manifest(agent: u32, board: &BoardShape) -> Manifest {
    let lane = LaneShape { capacity_bytes: CAPACITY_BYTES, when_full: WhenFull::Block, channel: agent };
    let shape =
        |channel| SegmentShape { lanes: vec![LaneShape { channel, ..lane }], input_count: 1, state_bytes: 0 };
    let (name, message) = (|agent| format!("peer.{agent}"), "Quote".to_owned());
    let channel = |name: &str| ChannelEntry { name: name.into(), message: message.clone(), line: 0 };
    let reader = ReaderEntry { neighbour: 0, input: 0, share: (0, 1), group: None };
    let neighbour =
        NeighbourEntry { agent: 1 - agent, name: name(1 - agent), shape: shape(1 - agent), read: true };
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
        fence_by_sleeper: shoal_runtime::sync::can_fence_peers(),
        permanent: true,
        shape: shape(agent),
        board: board.clone(),
        channels: vec![channel("there"), channel("back")],
        neighbours: vec![neighbour],
        lanes: vec![LaneEntry { channel: agent, line: 0, readers: vec![reader], groups: vec![] }],
        inputs: vec![InputEntry {
            channel: 1 - agent,
            line: 0,
            neighbour: 0,
            lane: 0,
            share: (0, 1),
            table: None,
        }],
        given: Vec::new(),
        attempts_max: 0,
        claims: Vec::new(),
    }
}
