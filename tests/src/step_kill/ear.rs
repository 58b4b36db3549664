//! What hears of a doorbell's rings, as the epoll does in which its owner sleeps.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use shoal_runtime::doorbell::Doorbell;
use std::io;
use std::os::fd::OwnedFd;

/// Hears whether a doorbell is rung.
pub struct Ear(OwnedFd);

impl Ear {
    /// Listens from now on.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn at(bell: &Doorbell) -> io::Result<Ear> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, bell, epoll::EventData::new_u64(0), edge)?;
        let ear = Ear(epoll);
        ear.has_heard();
        Ok(ear)
    }

    /// Whether it was rung since this was last asked.
    pub fn has_heard(&self) -> bool {
        let (mut events, now) = (Vec::with_capacity(1), Timespec { tv_sec: 0, tv_nsec: 0 });
        epoll::wait(&self.0, spare_capacity(&mut events), Some(&now)).is_ok_and(|count| count > 0)
    }
}
