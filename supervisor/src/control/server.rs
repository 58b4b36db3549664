//! The serving side of the control socket. Never blocks; everything is bounded; holds one epoll descriptor with all
//! its sockets in it, so that the event loop waits for one descriptor and asks `on_ready` when that is readable.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};

use super::{CLIENTS_MAX, REQUEST_BYTES_MAX, Request, Response, UNSENT_BYTES_MAX};

/// What one call reads of one client at most, bytes.
const READ_BYTES_MAX: usize = 16 << 10;
/// How many events one call serves at most; level-triggered, the rest comes with the next call.
const EVENTS_MAX: usize = 32;
/// The longest path that a socket address takes, bytes.
const ADDRESS_BYTES_MAX: usize = 107;
/// What a client that asks too long is told.
const TOO_LONG: &str = "the question is longer than 64 KiB";
/// The epoll word of the listening socket; clients count from 1.
const LISTENER: u64 = 0;

/// One connection, for as long as the supervisor lives: ids are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// The control socket and its clients.
pub struct Control {
    epoll: OwnedFd,
    listener: UnixListener,
    pub(super) clients: BTreeMap<ClientId, Client>,
    /// Given up for a moment to turn somebody away when all descriptors are used.
    spare: Option<OwnedFd>,
    last_id: u64,
    refused_count: u64,
}

pub(super) struct Client {
    stream: UnixStream,
    /// Of the next question; no more than `REQUEST_BYTES_MAX` and one read.
    unread: Vec<u8>,
    /// Of the answers.
    unsent: Vec<u8>,
    /// A question of it is with the event loop.
    asked: bool,
    /// Nothing more will come from it; it goes when what it waits for is sent.
    ended: bool,
    interest: EventFlags,
}

impl Control {
    /// Listens at a path in a folder that only this user can enter (`RunDir::socket`).
    ///
    /// # Errors
    /// The system's refusal; `AddrInUse` if there is anything at the path.
    pub fn listen(path: &Path) -> io::Result<Control> {
        let (address, _folder) = address_of(path)?;
        let listener = UnixListener::bind(address)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let spare = open_spare();
        Ok(Control { epoll, listener, clients: BTreeMap::new(), spare, last_id: 0, refused_count: 0 })
    }

    /// What the event loop waits for, level-triggered: readable when `on_ready` has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Who a client is: its user and its process.
    pub fn peer(&self, client: ClientId) -> Option<(u32, i32)> {
        peer_of(&self.clients.get(&client)?.stream)
    }

    /// How many clients there are.
    pub fn clients_count(&self) -> usize {
        self.clients.len()
    }

    /// How many were turned away or cut off.
    pub fn refused_count(&self) -> u64 {
        self.refused_count
    }

    /// Does what can be done without waiting: new clients, sends, reads; returns whole questions. Each is to be
    /// answered by `reply`, now or later.
    pub fn on_ready(&mut self) -> Vec<(ClientId, Request)> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&zero)).is_err() {
            return Vec::new(); // a signal came first: level-triggered, it will be told again
        }
        let mut requests = Vec::new();
        for event in events {
            let (flags, word) = (event.flags, event.data.u64());
            if word == LISTENER {
                self.accept();
                continue;
            }
            let id = ClientId(word);
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let served = if broken && !flags.contains(EventFlags::IN) {
                Err(Cut::Gone)
            } else {
                client.serve(flags, &mut |request| requests.push((id, request)))
            };
            self.settle(id, served);
        }
        requests
    }

    /// Answers a client's question. One that is gone is ignored, one that does not read is cut off.
    pub fn reply(&mut self, client: ClientId, response: &Response) {
        let Some(found) = self.clients.get_mut(&client) else { return };
        found.asked = false;
        let sent = found.answer(response);
        self.settle(client, sent);
    }

    /// Takes all that knock, and turns away who is not this user or root, or has no number here.
    fn accept(&mut self) {
        for _ in 0..EVENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    // Who knocks is taken and dropped, or the listener would stay readable and the loop would spin.
                    self.spare = None;
                    drop(self.listener.accept());
                    self.refused_count += 1;
                    self.spare = open_spare();
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        let allowed = peer_of(&stream).is_some_and(|(uid, _)| is_allowed(uid, own));
        if !allowed || stream.set_nonblocking(true).is_err() || !self.make_room() {
            self.refused_count += 1;
            return;
        }
        self.last_id += 1;
        let id = ClientId(self.last_id);
        if epoll::add(&self.epoll, &stream, EventData::new_u64(id.0), EventFlags::IN).is_err() {
            self.refused_count += 1;
            return;
        }
        self.clients.insert(id, Client::new(stream));
    }

    /// Cuts off the client that idles longest if there are too many. False if all wait for answers.
    fn make_room(&mut self) -> bool {
        if self.clients.len() < CLIENTS_MAX {
            return true;
        }
        let idle = self.clients.iter().find(|(_, client)| !client.asked).map(|(id, _)| *id);
        self.refused_count += u64::from(idle.is_some());
        idle.is_some_and(|id| self.clients.remove(&id).is_some())
    }

    /// Drops a client that is gone, done or cut off; else waits for what it needs next.
    fn settle(&mut self, id: ClientId, served: Result<(), Cut>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let keep = match served {
            Ok(()) if client.ended && !client.asked && client.unsent.is_empty() => false,
            Ok(()) => client.watch(&self.epoll, id).is_ok(),
            Err(cut) => {
                self.refused_count += u64::from(matches!(cut, Cut::Misbehaved));
                false
            }
        };
        if !keep {
            self.clients.remove(&id); // closing takes it out of the epoll, too
        }
    }
}

/// Why a client is dropped.
enum Cut {
    /// It went.
    Gone,
    /// It broke a rule.
    Misbehaved,
}

impl Client {
    fn new(stream: UnixStream) -> Client {
        let (unread, unsent) = (Vec::new(), Vec::new());
        Client { stream, unread, unsent, asked: false, ended: false, interest: EventFlags::IN }
    }

    #[cfg(test)]
    pub(super) fn unread_bytes(&self) -> usize {
        self.unread.len()
    }

    fn serve(&mut self, flags: EventFlags, ask: &mut dyn FnMut(Request)) -> Result<(), Cut> {
        if flags.contains(EventFlags::OUT) {
            self.send()?;
        }
        if flags.contains(EventFlags::IN) && !self.ended {
            self.read()?;
            if let Some(request) = self.next_question()? {
                ask(request);
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Cut> {
        let mut bytes = [0; READ_BYTES_MAX];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(got) => self.unread.extend_from_slice(&bytes[..got]),
            Err(error) if is_later(&error) => {}
            Err(_) => return Err(Cut::Gone),
        }
        Ok(())
    }

    /// The whole question that was read, if there is one. Cuts off who asks before the last one is answered, asks
    /// too long, or asks what cannot be understood: nothing that a client sends can keep the loop busy.
    fn next_question(&mut self) -> Result<Option<Request>, Cut> {
        let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') else {
            let fits = self.unread.len() <= REQUEST_BYTES_MAX;
            return if fits { Ok(None) } else { Err(self.cut(TOO_LONG)) };
        };
        if end > REQUEST_BYTES_MAX {
            return Err(self.cut(TOO_LONG));
        }
        if self.asked || self.unread.len() > end + 1 {
            return Err(self.cut("one question at a time: wait for the answer before you ask again"));
        }
        match serde_json::from_slice(&self.unread[..end]) {
            Ok(request) => {
                self.unread.clear();
                self.asked = true;
                Ok(Some(request))
            }
            Err(error) => Err(self.cut(&format!("not a question: {error}"))),
        }
    }

    /// The last words to a client that broke a rule.
    fn cut(&mut self, text: &str) -> Cut {
        let _ = self.answer(&Response::Error { text: text.to_owned() });
        Cut::Misbehaved
    }

    fn answer(&mut self, response: &Response) -> Result<(), Cut> {
        // An answer that has no JSON names a path that is not UTF-8: that is told instead.
        let told = |error: serde_json::Error| {
            serde_json::to_vec(&Response::Error { text: format!("the answer cannot be told: {error}") })
        };
        let line = serde_json::to_vec(response).or_else(told).map_err(|_| Cut::Gone)?;
        if self.unsent.len() + line.len() > UNSENT_BYTES_MAX {
            return Err(Cut::Misbehaved);
        }
        self.unsent.extend_from_slice(&line);
        self.unsent.push(b'\n');
        self.send()
    }

    /// Sends what goes without waiting. Rust ignores SIGPIPE, so a reader that is gone is an error here.
    fn send(&mut self) -> Result<(), Cut> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(0) => return Err(Cut::Gone),
                Ok(wrote) => sent += wrote,
                Err(error) if is_later(&error) => break,
                Err(_) => return Err(Cut::Gone),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Watches for what can happen next: an ended client would be readable for ever.
    fn watch(&mut self, epoll: &OwnedFd, id: ClientId) -> io::Result<()> {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.ended);
        interest.set(EventFlags::OUT, !self.unsent.is_empty());
        if interest != self.interest {
            epoll::modify(epoll, &self.stream, EventData::new_u64(id.0), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// Who is at the other end: its user and its process. `None` of one that has no number in this namespace: the numbers of processes that it is
/// told would mean others to it.
fn peer_of(stream: &UnixStream) -> Option<(u32, i32)> {
    // Not by rustix, for which a process number is never 0.
    let peer = getsockopt(stream, PeerCredentials).ok()?;
    (peer.pid() != 0).then(|| (peer.uid(), peer.pid()))
}

/// Whether a peer may ask.
fn is_allowed(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == own_uid || peer_uid == 0
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn open_spare() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// A path that fits into a socket address, and the open folder that it may go through.
pub(crate) fn address_of(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    if path.as_os_str().as_bytes().len() <= ADDRESS_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket's path needs a folder and a name"));
    };
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(file);
    Ok((short, Some(folder)))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn only_the_same_user_and_root_are_heard() {
        assert!(is_allowed(1000, 1000));
        assert!(is_allowed(0, 1000));
        assert!(!is_allowed(1001, 1000));
        assert!(!is_allowed(1000, 0));
    }
}
