//! Which peers there are, how each is used, and why one is not measured here.

use crate::wire::Mode;
use crate::wires::{packets, zeromq};
use serde::{Deserialize, Serialize};

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// A pipe each way.
    Pipe,
    /// A Unix stream socket.
    UnixStream,
    /// A Unix seqpacket socket.
    UnixSeqpacket,
    /// `shared_memory` and `raw_sync`.
    SharedMemory,
    /// Servo's ipc-channel.
    IpcChannel,
    /// iceoryx2.
    Iceoryx2,
    /// Aeron over shared memory.
    Aeron,
    /// ZeroMQ over `ipc://`.
    Zeromq,
    /// A local Redis.
    Redis,
    /// A local NATS.
    Nats,
}

/// All of them.
pub const PEERS: [Peer; 10] = [
    Peer::Pipe,
    Peer::UnixStream,
    Peer::UnixSeqpacket,
    Peer::SharedMemory,
    Peer::IpcChannel,
    Peer::Iceoryx2,
    Peer::Aeron,
    Peer::Zeromq,
    Peer::Redis,
    Peer::Nats,
];

impl Peer {
    /// As it stands on the command line and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Pipe => "pipe",
            Peer::UnixStream => "unix-stream",
            Peer::UnixSeqpacket => "unix-seqpacket",
            Peer::SharedMemory => "shared-memory",
            Peer::IpcChannel => "ipc-channel",
            Peer::Iceoryx2 => "iceoryx2",
            Peer::Aeron => "aeron",
            Peer::Zeromq => "zeromq",
            Peer::Redis => "redis",
            Peer::Nats => "nats",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Peer> {
        PEERS.into_iter().find(|peer| peer.name() == name)
    }

    /// How it is used and waits.
    pub fn how(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Peer::Pipe | Peer::UnixStream | Peer::UnixSeqpacket, Mode::Spin) => {
                "O_NONBLOCK, asked again and again"
            }
            (Peer::Pipe | Peer::UnixStream | Peer::UnixSeqpacket, Mode::Parked) => "blocking calls",
            (Peer::SharedMemory, Mode::Spin) => "a ring under raw_sync's Mutex, BusyEvents",
            (Peer::SharedMemory, Mode::Parked) => "a ring under raw_sync's Mutex, Events",
            (Peer::IpcChannel, Mode::Spin) => "bytes_channel, try_recv",
            (Peer::IpcChannel, Mode::Parked) => "bytes_channel, recv",
            (Peer::Iceoryx2, Mode::Spin) => "loaned slices, receive again and again",
            (Peer::Iceoryx2, Mode::Parked) => "loaned slices, a notifier and a listener",
            (Peer::Aeron, Mode::Spin) => {
                "exclusive publication, claims, polled; C driver with its own waiting"
            }
            (Peer::Aeron, Mode::Parked) => "the same with its back-off idle strategy: it has no wake-up",
            (Peer::Zeromq, _) => "PAIR sockets over ipc, zmq_msg, blocking",
            (Peer::Redis, _) => "publish and subscribe over a Unix socket, answers read in batches",
            (Peer::Nats, _) => "publish and subscribe over loopback",
        }
    }

    /// Why it cannot be measured at all here: it was not built, or is not installed.
    pub fn absent(self) -> Option<String> {
        let built = |is: bool, feature: &str| {
            (!is).then(|| {
                format!("this build is without it (feature `{feature}`; `scripts/peers` builds what it can)")
            })
        };
        let on_path = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            // Debian keeps servers where not everybody looks.
            let found = std::env::split_paths(&path)
                .chain([PATH_OF_SERVERS.into()])
                .any(|p| p.join(program).is_file());
            (!found).then(|| format!("{program} is not installed"))
        };
        match self {
            Peer::IpcChannel => built(cfg!(feature = "ipc-channel"), "ipc-channel"),
            Peer::Iceoryx2 => built(cfg!(feature = "iceoryx2"), "iceoryx2"),
            Peer::Aeron => built(cfg!(feature = "aeron"), "aeron"),
            Peer::Zeromq => (!zeromq::is_installed()).then(|| "libzmq.so.5 is not installed".to_owned()),
            Peer::Redis => on_path("redis-server"),
            Peer::Nats => on_path("nats-server"),
            _ => None,
        }
    }

    /// Why it has no figure for this way of waiting and size.
    pub fn refuses(self, mode: Mode, bytes: usize) -> Option<&'static str> {
        match (self, mode) {
            (Peer::Zeromq, Mode::Spin) => {
                Some("its I/O threads need the CPUs that spinning callers would take")
            }
            (Peer::Redis | Peer::Nats, Mode::Spin) => {
                Some("its server needs a CPU that spinning clients would take")
            }
            (Peer::UnixSeqpacket, _) if bytes > packets::BYTES_MAX => {
                Some("a packet must fit the socket's buffer")
            }
            _ => None,
        }
    }
}

/// Where servers are that are not on the path.
pub const PATH_OF_SERVERS: &str = "/usr/sbin";
