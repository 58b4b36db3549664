//! The ports of a harness: the agent's, which moves the outside whenever the agent would sleep, and its peers', which
//! never sleep.

use super::outside::Outside;
use super::roster::AGENT;
use crate::Result;
use rustix::event::{Timespec, epoll};
use shoal_runtime::Incarnation;
use shoal_runtime::attachment::Attachment;
use shoal_runtime::board::Status;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::links::{Link, Port};
use shoal_runtime::port::{Answer, Control};
use shoal_runtime::segment;
use shoal_runtime::wire::FromAgent;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// The port of the agent under test.
pub(super) struct HarnessPort {
    outside: Rc<RefCell<Outside>>,
    epoll: OwnedFd,
    links: Vec<Link>,
}

impl HarnessPort {
    /// Makes the next incarnation of the agent and attaches it.
    pub(super) fn attach(outside: &Rc<RefCell<Outside>>) -> Result<Attachment<HarnessPort>> {
        let doorbell = Doorbell::create()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &doorbell, epoll::EventData::new_u64(0), edge)?;
        let mut there = outside.borrow_mut();
        let links = there.links();
        let port = HarnessPort { outside: outside.clone(), epoll, links };
        Ok(there.incarnate(doorbell, port)?)
    }
}

impl Port for HarnessPort {
    fn accuse(&mut self, of: Incarnation) -> io::Result<()> {
        Control::say(self, &FromAgent::Fault { of, seen_ns: 0 })
    }

    fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>> {
        if wait && self.links.is_empty() {
            return Err(io::Error::other("the harness has no more links to give"));
        }
        Ok(std::mem::take(&mut self.links))
    }

    fn sleep(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let mut outside = self.outside.borrow_mut();
        let moved = !outside.by_hand && (outside.pump() || outside.finish());
        drop(outside);
        let left = match (moved, deadline) {
            (true, _) => std::time::Duration::ZERO,
            (false, Some(at)) => at.saturating_duration_since(Instant::now()),
            (false, None) => {
                return Err(io::Error::other(
                    "the agent waits for something that never comes: all that was fed was read, all that was sent was taken",
                ));
            }
        };
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!self.links.is_empty()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Control for HarnessPort {
    fn say(&self, message: &FromAgent) -> io::Result<()> {
        let mut outside = self.outside.borrow_mut();
        match message {
            FromAgent::Ready => outside.ready = true,
            FromAgent::Fault { .. } => outside.accusations += 1,
            _ => {}
        }
        Ok(())
    }

    fn ask(&mut self, message: &FromAgent, along: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        let mut outside = self.outside.borrow_mut();
        let answer = match (message, along) {
            (&FromAgent::Declare { channel, fingerprint, .. }, _) => {
                let known = outside.board.view().fingerprint(channel);
                debug_assert_eq!(outside.board.view().status(AGENT), Status::Expected);
                let same = known == fingerprint;
                same.then_some(()).ok_or_else(|| {
                    format!("the harness was told of a type of fingerprint {known:016x}; this one is {fingerprint:016x}")
                })
            }
            (FromAgent::Park(park), Some(bytes)) => {
                outside.reject(park, segment::thaw(bytes)?);
                Ok(())
            }
            _ => return Err(io::Error::other("this is no question")),
        };
        Ok((answer, Vec::new()))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// The port of a peer.
#[derive(Default)]
pub(super) struct PeerPort {
    pub(super) links: Vec<Link>,
}

impl Port for PeerPort {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(std::mem::take(&mut self.links))
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Err(io::Error::other("a peer of a harness does not sleep"))
    }
}
