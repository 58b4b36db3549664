//! Where an agent sleeps and where its links come from: the doorbell and the control socket in one epoll.

use crate::clock;
use crate::doorbell::Doorbell;
use crate::incarnation::Incarnation;
use crate::large_pages::{Due, Gatherer};
use crate::layout::SegmentShape;
use crate::links::{Link, Links, Port};
use crate::segment;
use crate::standby::Inheritance;
use crate::wire::{self, FromAgent, Received, ToAgent};
use rustix::event::{Timespec, epoll};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The agent's end of the control socket, and its epoll.
pub struct ControlPort {
    socket: OwnedFd,
    epoll: OwnedFd,
    shapes: HashMap<u32, Arc<SegmentShape>>,
    go: bool,
    /// What a standby inherits, once it came.
    inherited: Option<Inheritance>,
    /// The number of the last question.
    asked: u32,
    answers: Vec<ToAgent>,
    /// Makes use of the time in which it would sleep.
    gatherer: Option<Gatherer>,
}

/// What the epoll says of the doorbell, and of the socket.
const BELL: u64 = 0;
const SOCKET: u64 = 1;

/// What the supervisor answered (a refusal with its text), and the links that came meanwhile.
pub type Answer = (Result<(), String>, Vec<Link>);

/// A port that also speaks to the supervisor, or to what stands for it, and that an async runtime can wait on.
pub trait Control: Port {
    /// Says something to the supervisor.
    ///
    /// # Errors
    /// It is gone.
    fn say(&self, message: &FromAgent) -> io::Result<()>;

    /// Asks for something (a declaration, a dead letter with its bytes) and waits for the answer; links that came meanwhile
    /// are returned too.
    ///
    /// # Errors
    /// It is gone; a refusal is an `Ok(Err(text))`.
    fn ask(&mut self, message: &FromAgent, along: Option<BorrowedFd<'_>>) -> io::Result<Answer>;

    /// What is readable when a sleep would end.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl Port for Box<dyn Control> {
    fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>> {
        (**self).receive(wait)
    }

    fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        (**self).sleep(deadline)
    }

    fn accuse(&mut self, of: Incarnation) -> io::Result<()> {
        (**self).accuse(of)
    }

    fn tell_closed(&mut self) -> io::Result<()> {
        (**self).tell_closed()
    }
}

impl Control for Box<dyn Control> {
    fn say(&self, message: &FromAgent) -> io::Result<()> {
        (**self).say(message)
    }

    fn ask(&mut self, message: &FromAgent, along: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        (**self).ask(message, along)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        (**self).descriptor()
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the supervisor is gone")
}

impl ControlPort {
    /// Watches a control socket and the own doorbell.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new(
        socket: OwnedFd,
        doorbell: &Doorbell,
        shapes: HashMap<u32, Arc<SegmentShape>>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered and never read: every ring is an edge, and nothing is to be reset.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, doorbell, epoll::EventData::new_u64(BELL), edge)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(SOCKET), epoll::EventFlags::IN)?;
        Ok(ControlPort {
            socket,
            epoll,
            shapes,
            go: false,
            inherited: None,
            asked: 0,
            answers: Vec::new(),
            gatherer: None,
        })
    }

    /// From here on also gathers, whenever it would sleep, what this process has taken into large pages.
    pub(crate) fn gather(&mut self, has_gathered: bool) {
        self.gatherer = Some(Gatherer::new(has_gathered));
    }

    /// Waits for the doorbell or the socket, and whether it was the socket; `None` when the time is over, or a signal came.
    #[inline]
    fn wait(&self, time: Option<Duration>) -> io::Result<Option<bool>> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        let timeout = time.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
        match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
            // What it does not say now it says at the next sleep: the socket is watched for as long as something lies there.
            Ok(count) => Ok(Some(events[..count].iter().any(|event| event.data.u64() == SOCKET))),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes one packet; links that came are returned mapped.
    fn take(&mut self, wait: bool) -> io::Result<Option<Vec<Link>>> {
        let (message, number, fds) = match wire::hear_answer(&self.socket, wait)? {
            Received::Packet((message, number), fds) => (message, number, fds),
            Received::Nothing => return Ok(None),
            Received::Closed => return Err(gone()),
        };
        match message {
            ToAgent::Links(_) | ToAgent::Ahead(_) => {
                let links = self.map(&message, fds)?;
                wire::say(&self.socket, &FromAgent::LinksTaken, &[])?;
                return Ok(Some(links));
            }
            ToAgent::Begin(bytes) => self.inherited = Some(Inheritance::taken(&bytes, &fds)?),
            ToAgent::Go => self.go = true,
            ToAgent::Declared | ToAgent::Parked | ToAgent::Refused(_) => {
                // An answer that was given twice, by a supervisor and its successor, is to an earlier question. One without a number
                // comes from what has no successors.
                if number == self.asked || number == 0 {
                    self.answers.push(message);
                }
            }
            ToAgent::Hello => return Err(io::Error::other("the supervisor said hello twice")),
            ToAgent::Fork => return Err(io::Error::other("the supervisor ordered an agent to fork")),
        }
        Ok(Some(Vec::new()))
    }

    fn map(&self, message: &ToAgent, fds: Vec<OwnedFd>) -> io::Result<Vec<Link>> {
        let (incarnations, ahead) = match message {
            ToAgent::Links(incarnations) => (incarnations, false),
            ToAgent::Ahead(incarnations) => (incarnations, true),
            _ => return Ok(Vec::new()),
        };
        if fds.len() != 2 * incarnations.len() {
            return Err(io::Error::other(
                "links came without their descriptors: too many are open (see `ulimit -n`)",
            ));
        }
        let mut fds = fds.into_iter();
        let mut links = Vec::with_capacity(incarnations.len());
        for &incarnation in incarnations {
            let (Some(segment), Some(doorbell)) = (fds.next(), fds.next()) else { break };
            let shape = self.shapes.get(&incarnation.agent).ok_or_else(|| {
                io::Error::other(format!("the supervisor linked {incarnation}, which is no neighbour"))
            })?;
            let region = segment::view(&segment, shape, incarnation)?;
            let link = Link::new(incarnation, region, Doorbell::from_fd(doorbell));
            links.push(if ahead { link.ahead() } else { link });
        }
        Ok(links)
    }

    /// As a standby: takes links as they come, until the supervisor says what is inherited.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn wait_for_inheritance(&mut self, links: &mut Links) -> io::Result<Inheritance> {
        loop {
            let arrived = self.take(true)?;
            if let Some(inherited) = self.inherited.take() {
                // From here on older incarnations are needed, too: who has died since the supervisor said this was alive then, so that it was
                // not among the dead that are handed to a standby.
                self.go |= inherited.at_once;
                return Ok(inherited);
            }
            links.add_all(arrived.unwrap_or_default());
            links.keep_newest();
        }
    }

    /// Waits until the supervisor says go; returns the links that came before.
    ///
    /// # Errors
    /// As [`Port::receive`].
    pub fn wait_for_go(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        while !self.go {
            links.extend(self.take(true)?.unwrap_or_default());
        }
        Ok(links)
    }
}

impl Control for ControlPort {
    fn say(&self, message: &FromAgent) -> io::Result<()> {
        wire::say(&self.socket, message, &[])
    }

    fn ask(&mut self, message: &FromAgent, along: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        self.asked = self.asked.wrapping_add(1).max(1);
        self.answers.clear();
        wire::ask(&self.socket, message, self.asked, along.as_slice())?;
        let mut links = Vec::new();
        loop {
            match self.answers.pop() {
                Some(ToAgent::Refused(text)) => return Ok((Err(text), links)),
                Some(_) => return Ok((Ok(()), links)),
                None => links.extend(self.take(true)?.unwrap_or_default()),
            }
        }
    }

    /// The epoll: readable when the doorbell rang or the supervisor wrote.
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Port for ControlPort {
    fn accuse(&mut self, of: Incarnation) -> io::Result<()> {
        wire::say(&self.socket, &FromAgent::Fault { of, seen_ns: clock::now_ns() }, &[])
    }

    fn tell_closed(&mut self) -> io::Result<()> {
        wire::say(&self.socket, &FromAgent::Closed, &[])
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>> {
        // One packet ends the wait even without a link: the one that was waited for may have died meanwhile, and then the
        // caller looks at the board again.
        let (mut links, mut wait) = (Vec::new(), wait);
        while let Some(more) = self.take(wait)? {
            links.extend(more);
            wait = false;
        }
        Ok(links)
    }

    fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let mut until = deadline;
        // Who has no time to sleep has none for that.
        let has_time = || deadline.is_none_or(|at| Instant::now() < at);
        while let Some(gatherer) = self.gatherer.as_mut().filter(|_| has_time()) {
            match gatherer.due() {
                Due::Nothing => break,
                Due::At(at) => {
                    // It is looked again then: nothing that is waited for has come, to whoever sleeps.
                    until = Some(deadline.map_or(at, |deadline| deadline.min(at)));
                    break;
                }
                Due::Now => gatherer.gather_one(),
            }
            if let Some(heard) = self.wait(Some(Duration::ZERO))? {
                return Ok(heard);
            }
        }
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        Ok(self.wait(left)?.unwrap_or(false))
    }
}
