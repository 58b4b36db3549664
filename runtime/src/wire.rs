//! What supervisor and agent say to each other over the inherited socket, and the manifest that an agent is given.
//!
//! Packets of little-endian words on a `SOCK_SEQPACKET` pair; descriptors ride along. The supervisor's sends never block.

use crate::again::{self, insist};
use crate::consumer::Given;
use crate::incarnation::Incarnation;
use crate::layout::{BoardShape, SegmentShape};
use crate::mark::Place;
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

/// The descriptor number that a spawned agent finds its control socket at.
pub const CONTROL_FD: RawFd = 3;
/// The environment variable that says so.
pub const CONTROL_ENV: &str = "SHOAL_CONTROL_FD";
/// Links in one packet: two descriptors each, of 253 that a packet may carry.
pub const LINKS_PER_PACKET: usize = 100;
const PACKET_BYTES: usize = 8192;
/// Bytes that a packet to an agent may carry behind its tag.
pub const BODY_BYTES_MAX: usize = PACKET_BYTES - 64;
const FDS_MAX: usize = 253;

/// A channel as an agent needs to know it.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ChannelEntry {
    /// Its index on the board.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The message type that the swarm file names.
    pub message: String,
    /// Its line in the swarm file.
    pub line: u32,
}

/// An agent that shares a lane with the one that is told.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct NeighbourEntry {
    /// Its index on the board.
    pub agent: u32,
    /// Its name.
    pub name: String,
    /// The shape of its segments. Of who replays dead letters it has a lane for each channel of the swarm: there is one copy in a process.
    pub shape: Arc<SegmentShape>,
    /// Whether the agent that is told reads a lane of it.
    pub read: bool,
}

/// Memory that the members of a group share: what it says of one lane is a [`TableEntry`].
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ClaimsEntry {
    /// Its size.
    pub bytes: u64,
    /// Whether the agent that is told is a member, and not only a producer.
    pub member: bool,
}

/// The claim table of a group on one lane.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableEntry {
    /// Which of the manifest's claims it lies in.
    pub claims: u32,
    /// Where.
    pub offset: u64,
    /// How many messages it tells of at once.
    pub entries: u64,
}

/// Who reads a lane: place among the neighbours, input there, share.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ReaderEntry {
    /// Place among the neighbours.
    pub neighbour: u32,
    /// The reader's input.
    pub input: u32,
    /// It takes the messages whose number is the first modulo the second.
    pub share: (u32, u32),
    /// Which of the lane's groups it is a member of; `None` when it reads for itself.
    pub group: Option<u32>,
}

/// A lane that the agent writes.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct LaneEntry {
    /// Its channel.
    pub channel: u32,
    /// The line of the swarm file that says so.
    pub line: u32,
    /// Its readers.
    pub readers: Vec<ReaderEntry>,
    /// The groups that share it.
    pub groups: Vec<TableEntry>,
}

/// A lane that the agent reads.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct InputEntry {
    /// Its channel.
    pub channel: u32,
    /// The line of the swarm file that says so.
    pub line: u32,
    /// The producer's place among the neighbours.
    pub neighbour: u32,
    /// The producer's lane.
    pub lane: u32,
    /// It takes the messages whose number is the first modulo the second.
    pub share: (u32, u32),
    /// The table by which a group shares it; `None` when the agent reads it for itself.
    pub table: Option<TableEntry>,
    /// Whether its producer may change any byte at any time: then each message is copied before it is looked at.
    pub copied: bool,
}

/// The version of what an incarnation is told, which comes first in its bytes. It goes up with every change of [`Manifest`] or of what is
/// in it, whatever becomes of the layout of shared memory: bytes of another build may look like ours.
pub const MANIFEST_VERSION: u32 = 1;
/// By what the bytes of a manifest begin; then the version.
const MANIFEST_MAGIC: [u8; 12] = *b"shoal told\0\0";
/// Magic and version; as long as the rest is aligned.
const MANIFEST_HEAD_BYTES: usize = 16;

/// Everything an incarnation is told before it maps anything.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Manifest {
    /// Name of the swarm.
    pub swarm: String,
    /// Path of the swarm file.
    pub file: String,
    /// Name of the agent, with its replica.
    pub name: String,
    /// Line of the agent in the swarm file.
    pub line: u32,
    /// The agent's index on the board.
    pub agent: u32,
    /// The number of this life.
    pub generation: u32,
    /// The incarnation's number in the swarm: no other has it.
    pub owner: u32,
    /// How many messages of a shared lane it may claim at once.
    pub prefetch: u32,
    /// Which replica it is, and of how many.
    pub replica: (u32, u32),
    /// Whether it is restarted even after a normal end: then its channels never count as closed.
    pub permanent: bool,
    /// Whether it waits, attached, until it is told to take over from another incarnation.
    pub standby: bool,
    /// Whether another stands by for it: then its death is to be over soon, and it gathers its memory into large pages.
    pub is_stood_by: bool,
    /// Whether whoever parks fences its peers by `membarrier`, so that publishing needs no fence: all of a swarm, or none.
    pub fence_by_sleeper: bool,
    /// What `limits.cpu` bounds it to, percent of a CPU.
    pub cpu_percent: Option<u32>,
    /// Shape of its segment.
    pub shape: SegmentShape,
    /// Shape of the board. Who is attached has it there.
    pub board: BoardShape,
    /// The channels that it has a lane of, in either direction, in the order of their indices.
    pub channels: Vec<ChannelEntry>,
    /// The names of all channels of the swarm, a line each: for who asks for one that it has not.
    pub channel_names: String,
    /// All agents it shares a lane with.
    pub neighbours: Vec<NeighbourEntry>,
    /// The lanes it writes.
    pub lanes: Vec<LaneEntry>,
    /// The lanes it reads.
    pub inputs: Vec<InputEntry>,
    /// For each of them the message that earlier incarnations were given in vain.
    pub given: Vec<Given>,
    /// After how many attempts in vain a message is parked with the dead letters; 0: never.
    pub attempts_max: u32,
    /// Memory of groups that it is a member of, or writes for.
    pub claims: Vec<ClaimsEntry>,
}

impl Manifest {
    /// The incarnation that is told.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { agent: self.agent, generation: self.generation }
    }

    /// The channel of an index on the board.
    ///
    /// # Panics
    /// When the agent has no lane of it: who asks has the index from one of its lanes.
    pub fn channel(&self, index: u32) -> &ChannelEntry {
        let place = self.channels.binary_search_by_key(&index, |c| c.index);
        &self.channels[place.expect("an agent is told of the channels of its lanes")]
    }

    /// As bytes.
    ///
    /// # Errors
    /// More memory than there is.
    pub fn to_bytes(&self) -> io::Result<rkyv::util::AlignedVec> {
        let mut bytes = rkyv::util::AlignedVec::new();
        bytes.extend_from_slice(&MANIFEST_MAGIC);
        bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
        rkyv::api::high::to_bytes_in::<_, rkyv::rancor::BoxedError>(self, bytes).map_err(io::Error::other)
    }

    /// From bytes, validated.
    ///
    /// # Errors
    /// When the bytes are no manifest, or one of another version.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let (head, told) = bytes.split_at_checked(MANIFEST_HEAD_BYTES).unwrap_or_default();
        match head.strip_prefix(&MANIFEST_MAGIC).and_then(|version| version.try_into().ok()) {
            Some(version) if u32::from_le_bytes(version) == MANIFEST_VERSION => {}
            version => return Err(of_another_build(version.map(u32::from_le_bytes))),
        }
        rkyv::from_bytes::<Self, rkyv::rancor::BoxedError>(told).map_err(|e| {
            io::Error::other(format!("what the supervisor handed over is no manifest of this build: {e}"))
        })
    }
}

fn of_another_build(version: Option<u32>) -> io::Error {
    let theirs = version.map_or("without a version".to_owned(), |version| format!("of version {version}"));
    io::Error::other(format!(
        "the supervisor is of another build of Shoal than this agent: its manifest is {theirs}, the agent reads version \
         {MANIFEST_VERSION}; build both with the same Shoal"
    ))
}

/// From the supervisor to an agent. Descriptors in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// The first packet [own segment, board, doorbell, manifest, then the claims in the manifest's order].
    Hello,
    /// Incarnations of neighbours [segment, doorbell of each].
    Links(Vec<Incarnation>),
    /// Every peer has been told: begin.
    Go,
    /// A declaration is accepted.
    Declared,
    /// What was asked for is refused, with the text for the agent's author.
    Refused(String),
    /// A message lies with the dead letters now: acknowledge it.
    Parked,
    /// As `Links`, of standbys: they count from when the board names their generation.
    Ahead(Vec<Incarnation>),
    /// A standby takes over what these bytes say that it inherits; [where they are too many for a packet, they come frozen].
    Begin(Vec<u8>),
    /// A zygote forks [the child's control socket, standard output, standard error].
    Fork,
}

/// From an agent to the supervisor: a tag and fixed words, range-checked there, then perhaps a text. Descriptors in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent {
    /// The own segment is mapped: seal it.
    Mapped,
    /// The last links are mapped: send more.
    LinksTaken,
    /// The type of a channel's messages.
    Declare {
        /// Index of the channel.
        channel: u32,
        /// Whether it publishes (or subscribes).
        publishes: bool,
        /// Fingerprint of the type.
        fingerprint: u64,
    },
    /// Ready for messages.
    Ready,
    /// An accusation: evidence, not proof.
    Fault {
        /// Whose words cannot be true.
        of: Incarnation,
        /// When that was met, CLOCK_MONOTONIC ns.
        seen_ns: u64,
    },
    /// A step with a message failed.
    Failed {
        /// The input.
        input: u32,
        /// Where the message begins.
        at: Place,
        /// Which attempt at it this was, from 1; 0 when others began the step: that is none, but it is not to be taken along again.
        attempt: u32,
        /// Why, as far as it is known.
        why: String,
    },
    /// A message is to lie with the dead letters [its bytes, frozen].
    Park(Park),
    /// A lane that it shares in groups is closed: nothing of it is left. Other members may sleep behind what this one did last.
    Closed,
    /// A standby has written what it inherits: it can be named on the board.
    Begun,
    /// A zygote takes orders.
    Forks,
    /// A child of a zygote waits to be handed what it attaches to.
    Forked,
    /// A zygote cannot be forked.
    Unfit {
        /// Why, and what to do.
        why: String,
    },
}

/// A message that an agent gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The input.
    pub input: u32,
    /// Where the message begins.
    pub at: Place,
    /// Bytes of its payload.
    pub len_bytes: u64,
    /// Attempts at it, the last one included.
    pub attempts: u32,
    /// Whether its reader rejected it on purpose.
    pub rejected: bool,
    /// Why.
    pub why: String,
}

/// The name of who brings dead letters back: a neighbour that comes and goes.
pub const POSTMAN: &str = "dead-letters";

/// The longest text that an agent may send along, bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of the tag and the fixed words that an agent's packet begins with.
const HEAD_BYTES: usize = 56;

impl ToAgent {
    fn encode(&self, number: u32) -> Vec<u8> {
        let list = |links: &[Incarnation]| {
            let words = links.iter().flat_map(|l| [l.agent.to_le_bytes(), l.generation.to_le_bytes()]);
            words.flatten().collect()
        };
        let (tag, body): (u64, Vec<u8>) = match self {
            ToAgent::Hello => (1, Vec::new()),
            ToAgent::Links(links) => (2, list(links)),
            ToAgent::Go => (3, Vec::new()),
            ToAgent::Declared => (4, Vec::new()),
            ToAgent::Refused(text) => (5, text.bytes().take(BODY_BYTES_MAX).collect()),
            ToAgent::Parked => (6, Vec::new()),
            ToAgent::Ahead(links) => (20, list(links)),
            ToAgent::Begin(inherited) => (21, inherited.clone()),
            ToAgent::Fork => (22, Vec::new()),
        };
        [&(tag | u64::from(number) << 32).to_le_bytes()[..], &body].concat()
    }

    fn decode(packet: &[u8]) -> Option<(Self, u32)> {
        let (tag, body) = packet.split_first_chunk::<8>()?;
        let list = || {
            let half = |b: &[u8]| b.try_into().ok().map(u32::from_le_bytes);
            let links = body
                .chunks_exact(8)
                .map(|b| Some(Incarnation { agent: half(&b[..4])?, generation: half(&b[4..])? }));
            links.collect::<Option<_>>()
        };
        let tag = u64::from_le_bytes(*tag);
        let message = match tag as u32 {
            1 => ToAgent::Hello,
            2 => ToAgent::Links(list()?),
            3 => ToAgent::Go,
            4 => ToAgent::Declared,
            5 => ToAgent::Refused(String::from_utf8_lossy(body).into_owned()),
            6 => ToAgent::Parked,
            20 => ToAgent::Ahead(list()?),
            21 => ToAgent::Begin(body.to_vec()),
            22 => ToAgent::Fork,
            _ => return None,
        };
        Some((message, (tag >> 32) as u32))
    }
}

impl FromAgent {
    fn encode(&self, number: u32) -> Vec<u8> {
        let small = |word: u32| u64::from(word);
        let (mut head, text): ([u64; HEAD_BYTES / 8], &str) = match self {
            FromAgent::Mapped => ([1, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::LinksTaken => ([2, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Declare { channel, publishes, fingerprint } => {
                ([3, small(*channel), u64::from(*publishes), *fingerprint, 0, 0, 0], "")
            }
            FromAgent::Ready => ([4, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Fault { of, seen_ns } => {
                ([5, small(of.agent), small(of.generation), *seen_ns, 0, 0, 0], "")
            }
            FromAgent::Closed => ([6, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Begun => ([20, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Forks => ([21, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Forked => ([22, 0, 0, 0, 0, 0, 0], ""),
            FromAgent::Unfit { why } => ([23, 0, 0, 0, 0, 0, 0], why),
            FromAgent::Failed { input, at, attempt, why } => {
                ([7, small(*input), at.position, at.sequence, small(*attempt), 0, 0], why)
            }
            FromAgent::Park(Park { input, at, len_bytes, attempts, rejected, why }) => {
                let (attempts, rejected) = (small(*attempts), u64::from(*rejected));
                ([8, small(*input), at.position, at.sequence, attempts, *len_bytes, rejected], why)
            }
        };
        let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|&end| text.is_char_boundary(end));
        let text = &text[..end.unwrap_or(0)];
        head[0] |= small(number) << 32;
        head.iter().flat_map(|w| w.to_le_bytes()).chain(text.bytes()).collect()
    }

    /// Decodes a packet, and the number of its question; `None` when it is none of ours.
    fn decode(packet: &[u8]) -> Option<(Self, u32)> {
        let (head, text) = packet.split_at_checked(HEAD_BYTES)?;
        let mut words = [0u64; HEAD_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let number = (words[0] >> 32) as u32;
        words[0] &= u64::from(u32::MAX);
        if text.len() > if words[0] >= 7 { TEXT_BYTES_MAX } else { 0 } {
            return None;
        }
        let why = || String::from_utf8_lossy(text).into_owned();
        let small = |w: u64| u32::try_from(w).ok();
        let message = match words {
            [1, ..] => FromAgent::Mapped,
            [2, ..] => FromAgent::LinksTaken,
            [3, channel, publishes @ 0..=1, fingerprint, ..] => {
                FromAgent::Declare { channel: small(channel)?, publishes: publishes == 1, fingerprint }
            }
            [4, ..] => FromAgent::Ready,
            [5, agent, generation, seen_ns, ..] => {
                let of = Incarnation { agent: small(agent)?, generation: small(generation)? };
                FromAgent::Fault { of, seen_ns }
            }
            [6, ..] => FromAgent::Closed,
            [20, ..] => FromAgent::Begun,
            [21, ..] => FromAgent::Forks,
            [22, ..] => FromAgent::Forked,
            [23, ..] => FromAgent::Unfit { why: why() },
            [7, input, position, sequence, attempt, ..] => {
                let at = Place { position, sequence };
                FromAgent::Failed { input: small(input)?, at, attempt: small(attempt)?, why: why() }
            }
            [8, input, position, sequence, attempts, len_bytes, rejected @ 0..=1] => FromAgent::Park(Park {
                input: small(input)?,
                at: Place { position, sequence },
                len_bytes,
                attempts: small(attempts)?,
                rejected: rejected == 1,
                why: why(),
            }),
            _ => return None,
        };
        Some((message, number))
    }
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received<T> {
    /// A packet with its descriptors.
    Packet(T, Vec<OwnedFd>),
    /// Nothing is there now.
    Nothing,
    /// The other side is gone.
    Closed,
}

fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>], flags: MsgFlags) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let io = [IoSlice::new(packet)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &io, rights, flags | MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// How often a receive is made again for want of memory.
const LACKS_MAX: u32 = 3;

fn receive(socket: impl AsFd, wait: bool) -> io::Result<Received<Vec<u8>>> {
    receive_with(socket, if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT })
}

fn receive_with(socket: impl AsFd, flags: MsgFlags) -> io::Result<Received<Vec<u8>>> {
    Ok(match receive_whom(socket, flags)? {
        Received::Packet((packet, _), fds) => Received::Packet(packet, fds),
        Received::Nothing => Received::Nothing,
        Received::Closed => Received::Closed,
    })
}

/// Receives, and who sent it, where the socket asks for that.
#[allow(unsafe_code)]
fn receive_whom(socket: impl AsFd, flags: MsgFlags) -> io::Result<Received<(Vec<u8>, Option<i32>)>> {
    let mut packet = vec![0u8; PACKET_BYTES];
    let mut space = cmsg_space!([RawFd; FDS_MAX], UnixCredentials);
    let mut io = [IoSliceMut::new(&mut packet)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let (mut lacks, mut reset) = (0, false);
    let (bytes, fds, sender, cut) = loop {
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut io, Some(&mut space), flags) {
            Ok(message) => {
                let (mut fds, mut sender) = (Vec::new(), None);
                for control in message.cmsgs()? {
                    match control {
                        ControlMessageOwned::ScmRights(raw) => {
                            // SAFETY: the kernel has just made these descriptors for this process and nobody else knows
                            // their numbers; each is owned exactly once from here on.
                            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                        }
                        ControlMessageOwned::ScmCredentials(of) => sender = Some(of.pid()),
                        _ => {}
                    }
                }
                let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                break (message.bytes, fds, sender, cut);
            }
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ENOMEM | nix::Error::ENOBUFS) if lacks < LACKS_MAX => lacks += 1,
            Err(nix::Error::EAGAIN) => return Ok(Received::Nothing),
            // Said once, and before anything else, when the other end has left something unread behind: what it had said itself lies here
            // still.
            Err(nix::Error::ECONNRESET) if !reset => reset = true,
            Err(nix::Error::ECONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    if cut {
        return Err(io::Error::other("a packet was cut: too many descriptors are open (see `ulimit -n`)"));
    }
    if bytes == 0 {
        return Ok(Received::Closed);
    }
    packet.truncate(bytes);
    Ok(Received::Packet((packet, sender), fds))
}

/// Whether descriptors may be sent at the moment; nothing is known to be in the way where it cannot be tried.
pub fn may_hand_over() -> bool {
    let tried = UnixDatagram::pair().and_then(|(one, other)| tell(&one, &ToAgent::Go, &[other.as_fd()]));
    !tried.is_err_and(|error| again::is_congested(&error))
}

/// Sends to an agent without ever blocking.
///
/// # Errors
/// `WouldBlock` when its socket is full, `BrokenPipe` when it is gone.
pub fn tell(socket: impl AsFd, message: &ToAgent, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    insist(|| send(&socket, &message.encode(0), fds, MsgFlags::MSG_DONTWAIT))
}

/// Answers the question of an agent that has this number; otherwise as [`tell`].
///
/// # Errors
/// As [`tell`].
pub fn answer(socket: impl AsFd, message: &ToAgent, number: u32) -> io::Result<()> {
    insist(|| send(&socket, &message.encode(number), &[], MsgFlags::MSG_DONTWAIT))
}

/// Sends to the supervisor; waits while the socket is full, since the supervisor always reads.
///
/// # Errors
/// `BrokenPipe` when it is gone.
pub fn say(socket: impl AsFd, message: &FromAgent, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    hand(socket, &message.encode(0), fds)
}

/// Asks the supervisor; otherwise as [`say`]. The answer has the question's number: a supervisor that died after it had answered may
/// have a successor that answers again.
///
/// # Errors
/// As [`say`].
pub fn ask(socket: impl AsFd, message: &FromAgent, number: u32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    hand(socket, &message.encode(number), fds)
}

/// How long, and how often, a descriptor that the kernel takes along no more waits for that to pass.
const CONGESTED_PAUSE: Duration = Duration::from_millis(10);
const CONGESTED_PAUSES_MAX: u32 = 500;

/// Sends a packet of any bytes with descriptors, over a pair that speaks another language than this one.
///
/// # Errors
/// `BrokenPipe` when the other side is gone; or no descriptor was taken along for five seconds.
pub fn hand(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut pauses = 0;
    loop {
        match send(&socket, packet, fds, MsgFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nobody tells when it is over.
            Err(error) if again::is_congested(&error) && pauses < CONGESTED_PAUSES_MAX => {
                pauses += 1;
                std::thread::sleep(CONGESTED_PAUSE);
            }
            result => return result,
        }
    }
}

/// Waits for what [`hand`] sent; at most 8 KiB.
///
/// # Errors
/// A packet that was cut, or the kernel's refusal.
pub fn take(socket: impl AsFd) -> io::Result<Received<Vec<u8>>> {
    receive(socket, true)
}

/// Receives from the supervisor.
///
/// # Errors
/// A packet that is none of ours, or the kernel's refusal.
pub fn hear(socket: impl AsFd, wait: bool) -> io::Result<Received<ToAgent>> {
    decoded(receive(socket, wait)?, |packet| ToAgent::decode(packet).map(|(message, _)| message))
}

/// Receives from the supervisor, with the number of the question that it answers; 0 for none.
///
/// # Errors
/// As [`hear`].
pub fn hear_answer(socket: impl AsFd, wait: bool) -> io::Result<Received<(ToAgent, u32)>> {
    decoded(receive(socket, wait)?, ToAgent::decode)
}

/// Receives from an agent without blocking.
///
/// # Errors
/// A packet that is none of ours, or the kernel's refusal.
pub fn listen(socket: impl AsFd) -> io::Result<Received<FromAgent>> {
    decoded(receive(socket, false)?, |packet| FromAgent::decode(packet).map(|(message, _)| message))
}

/// As [`listen`], with the process that sent it, by the kernel's word; 0 if it was not asked for that ([`ask_for_senders`]).
///
/// # Errors
/// As [`listen`].
pub fn listen_whom(socket: impl AsFd) -> io::Result<Received<(FromAgent, i32)>> {
    let (packet, sender, fds) = match receive_whom(socket, MsgFlags::MSG_DONTWAIT)? {
        Received::Packet((packet, sender), fds) => (packet, sender, fds),
        Received::Nothing => return Ok(Received::Nothing),
        Received::Closed => return Ok(Received::Closed),
    };
    let sender = sender.unwrap_or(0);
    decoded(Received::Packet(packet, fds), |packet| {
        FromAgent::decode(packet).map(|(message, _)| (message, sender))
    })
}

/// From here on the kernel says of each packet which process sent it.
///
/// # Errors
/// The kernel's refusal.
pub fn ask_for_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_passcred(socket, true)?)
}

/// As [`listen`], with the number of the question; what is there stays there until [`drop_one`]: who dies over it leaves it to be
/// heard again.
///
/// # Errors
/// As [`listen`].
pub fn overhear(socket: impl AsFd) -> io::Result<Received<(FromAgent, u32)>> {
    let received = receive_with(&socket, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK)?;
    if matches!(received, Received::Closed) && !hung_up(&socket)? {
        // It looks like the end of the socket, and stays at its head.
        return Err(io::Error::other("a packet on the control socket is empty"));
    }
    decoded(received, FromAgent::decode)
}

/// Whether nobody is left at the other end.
fn hung_up(socket: impl AsFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let ended = PollFlags::RDHUP | PollFlags::HUP;
    let mut seen = [PollFd::new(&socket, PollFlags::RDHUP)];
    insist(|| poll(&mut seen, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    Ok(seen[0].revents().intersects(ended))
}

/// Drops the packet that was overheard.
///
/// # Errors
/// The kernel's refusal: the packet is still there.
pub fn drop_one(socket: impl AsFd) -> io::Result<()> {
    insist(|| match receive(&socket, false)? {
        Received::Nothing => Err(io::Error::from(io::ErrorKind::WouldBlock)),
        Received::Packet(..) | Received::Closed => Ok(()),
    })
}

fn decoded<T>(received: Received<Vec<u8>>, decode: impl Fn(&[u8]) -> Option<T>) -> io::Result<Received<T>> {
    Ok(match received {
        Received::Packet(packet, fds) => match decode(&packet) {
            Some(message) => Received::Packet(message, fds),
            None => return Err(io::Error::other("a packet on the control socket is none of ours")),
        },
        Received::Nothing => Received::Nothing,
        Received::Closed => Received::Closed,
    })
}

#[cfg(test)]
mod tests;
