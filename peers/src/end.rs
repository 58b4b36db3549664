//! The process of an end: it comes up, meets the other, and does what it is told over its standard input: `trips COUNT` or
//! `stream COUNT EVERY`. It answers on its standard output, a line each.

use crate::broken::{Broken, Fault};
use crate::registry::Peer;
use crate::talk::Talk;
use crate::wire::{Mode, Wire};
use crate::wires::bytes::Bytes;
use crate::wires::locked::Locked;
use crate::wires::nats::Nats;
use crate::wires::packets::Packets;
use crate::wires::redis::Redis;
use crate::wires::zeromq::ZeroMq;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use shoal_measure::task::Reply;
use std::io::{self, BufRead, StdinLock, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Says which end this process is; that it is set makes it one.
pub const SEAT_ENV: &str = "SHOAL_PEERS_SEAT";

/// Which end of which pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seat {
    /// Of what.
    pub peer: Peer,
    /// How it waits.
    pub mode: Mode,
    /// Bytes of a message.
    pub bytes: usize,
    /// Whether it is the first: the one that sends first, and keeps the time.
    pub first: bool,
    /// The CPU that it stays on.
    pub cpu: Option<usize>,
    /// Inherited descriptors.
    pub fds: Vec<i32>,
    /// Where the pair may put things; it goes with the pair.
    pub folder: PathBuf,
    /// The address of the server that it needs.
    pub server: String,
    /// The number of the pair.
    pub pair: u64,
    /// For tests of the tests: what goes wrong with a message.
    pub fault: Option<Fault>,
}

/// Makes this process an end if it was started as one, and never returns then.
pub fn run_if_end() {
    let Ok(said) = std::env::var(SEAT_ENV) else { return };
    let served = serve(&said);
    if let Err(error) = &served {
        // Who measures reads it instead of an answer, if it still listens.
        let _ = answer(&format!("{error}\n"));
    }
    std::process::exit(i32::from(served.is_err()));
}

fn serve(said: &str) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let seat: Seat = serde_json::from_str(said)?;
    if let Some(cpu) = seat.cpu {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(cpu);
        rustix::thread::sched_setaffinity(None, &cpus)?;
    }
    let mut inherited = seat.fds.iter().map(|&fd| shoal_measure::floor::inherited(fd));
    let mut fd = || inherited.next().unwrap_or_else(|| Err(io::Error::other("a descriptor is missing")));
    let mut commands = io::stdin().lock();
    let (bytes, mode, first) = (seat.bytes, seat.mode, seat.first);
    let names = if first { ["a", "b"] } else { ["b", "a"] }.map(|end| format!("{end}{}", seat.pair));
    let names = [names[0].as_str(), names[1].as_str()];
    match seat.peer {
        Peer::Pipe => go(&seat, Bytes::pipes([fd()?, fd()?], bytes, mode)?, commands),
        Peer::UnixStream => go(&seat, Bytes::socket(fd()?, bytes, mode)?, commands),
        Peer::UnixSeqpacket => go(&seat, Packets::new(fd()?, bytes, mode)?, commands),
        Peer::SharedMemory => {
            let (own, name) = Locked::offer(bytes, mode)?;
            let other = exchange(&name, &mut commands)?;
            go(&seat, own.meet(&other)?, commands)
        }
        Peer::Zeromq => {
            let address = format!("ipc://{}/zeromq{}", seat.folder.display(), seat.pair);
            go(&seat, ZeroMq::open(&address, first)?, commands)
        }
        Peer::Redis => go(&seat, Redis::connect(&seat.server, names, bytes)?, commands),
        Peer::Nats => go(&seat, Nats::connect(&seat.server, names, bytes)?, commands),
        #[cfg(feature = "ipc-channel")]
        Peer::IpcChannel => {
            let (own, name) = crate::wires::ipc_channel::Offered::new()?;
            let other = exchange(&name, &mut commands)?;
            go(&seat, own.meet(&other, mode)?, commands)
        }
        #[cfg(feature = "iceoryx2")]
        Peer::Iceoryx2 => {
            let wire = crate::wires::iceoryx::Iceoryx::open(&seat.folder, names, bytes, mode)?;
            go(&seat, wire, commands)
        }
        #[cfg(feature = "aeron")]
        Peer::Aeron => {
            let wire = crate::wires::aeron::Aeron::open(&seat.server, seat.pair, first, bytes, mode)?;
            go(&seat, wire, commands)
        }
        #[allow(unreachable_patterns)]
        absent => Err(io::Error::other(format!("{} is not in this build", absent.name()))),
    }
}

fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Tells the other end a word, and hears its word.
fn exchange(word: &str, commands: &mut StdinLock<'static>) -> io::Result<String> {
    answer(&format!("word {word}\n"))?;
    let mut line = String::new();
    commands.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Does what it is told until nobody tells any more.
fn go<W: Wire>(seat: &Seat, wire: W, commands: StdinLock<'static>) -> io::Result<()> {
    match seat.fault {
        None => obey(Talk::new(wire, seat.first, seat.bytes)?, commands),
        Some(fault) => obey(Talk::new(Broken::new(wire, fault), seat.first, seat.bytes)?, commands),
    }
}

fn obey<W: Wire>(mut talk: Talk<W>, commands: StdinLock<'static>) -> io::Result<()> {
    answer(if W::BATCHES { "here batches\n" } else { "here\n" })?;
    for line in commands.lines() {
        let line = line?;
        match task(&mut talk, &line) {
            Ok(reply) => answer(&reply.line())?,
            Err(error) => {
                // While the wire is open still: the other end then knows of nothing before it is said here.
                answer(&format!("{error}\n"))?;
                return Err(error);
            }
        }
    }
    Ok(())
}

fn task<W: Wire>(talk: &mut Talk<W>, line: &str) -> io::Result<Reply> {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).filter(|&n| n > 0);
    match (words[0], number(1), number(2)) {
        ("trips", Some(count), _) => talk.round_trips(count),
        ("stream", Some(count), Some(every)) => talk.stream(count, every),
        _ => Err(io::Error::other(format!("{line:?} is no task"))),
    }
}

/// Descriptors of both ends, as a peer needs them.
///
/// # Errors
/// The kernel's refusal.
pub fn descriptors(peer: Peer) -> io::Result<[Vec<OwnedFd>; 2]> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    Ok(match peer {
        Peer::Pipe => {
            let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            let (there, back) = (pipe()?, pipe()?);
            [vec![back.0, there.1], vec![there.0, back.1]]
        }
        Peer::UnixStream | Peer::UnixSeqpacket => {
            let stream = peer == Peer::UnixStream;
            let (a, b) = pair(if stream { SocketType::STREAM } else { SocketType::SEQPACKET })?;
            [vec![a], vec![b]]
        }
        _ => [Vec::new(), Vec::new()],
    })
}
