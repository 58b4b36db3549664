//! Doorbells that are listened to together: whose ring it is does not matter, only that there was one.

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use shoal_runtime::again::insist;
use shoal_runtime::doorbell::Doorbell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An epoll of doorbells: readable when any was rung since the rings were forgotten.
pub(super) struct Bells(OwnedFd);

impl Bells {
    /// Listens to none yet.
    pub(super) fn new() -> io::Result<Bells> {
        Ok(Bells(insist(|| epoll::create(epoll::CreateFlags::CLOEXEC))?))
    }

    /// Listens to one more, or as before if it is listened to already.
    pub(super) fn hear(&self, doorbell: &Doorbell) -> io::Result<()> {
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        insist(|| match epoll::add(&self.0, doorbell, epoll::EventData::new_u64(0), edge) {
            Err(Errno::EXIST) => Ok(()),
            added => added,
        })
    }

    /// Forgets the rings heard so far. Each is told once, so this ends.
    pub(super) fn forget(&self) {
        let mut rung: Vec<epoll::Event> = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while matches!(epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut rung), Some(&now)), Ok(1..)) {
            rung.clear();
        }
    }
}

impl AsFd for Bells {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
