//! What wakes a sleeping agent: an eventfd, fresh for every incarnation, watched edge-triggered and never read.
//!
//! Whoever may ring it may read it, too, and the kernel forgets an edge when nothing is left of it as the sleeper wakes. So it counts as a
//! semaphore, of which a read takes one, and has more from the start than anybody ever takes.

#[cfg(not(loom))]
mod real {
    use rustix::event::{EventfdFlags, eventfd};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::Arc;

    /// What it counts from the start: to take it away, one by one, would take thousands of years, and to ring it full three times as long.
    const STOCK: u64 = 1 << 62;

    /// One incarnation's doorbell.
    #[derive(Clone, Debug)]
    pub struct Doorbell {
        fd: Arc<OwnedFd>,
    }

    impl Doorbell {
        /// Makes a doorbell.
        ///
        /// # Errors
        /// No descriptors left.
        pub fn create() -> io::Result<Self> {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE)?;
            rustix::io::write(&fd, &STOCK.to_ne_bytes())?;
            Ok(Doorbell { fd: Arc::new(fd) })
        }

        /// Takes over a doorbell that was handed over.
        pub fn from_fd(fd: OwnedFd) -> Self {
            Doorbell { fd: Arc::new(fd) }
        }

        /// Wakes its owner if it sleeps, or lets its next sleep end at once.
        #[inline]
        pub fn ring(&self) {
            let one = 1u64.to_ne_bytes();
            if rustix::io::write(&self.fd, &one).is_err() {
                // Somebody filled it: a full counter takes no ring, and whoever sleeps on it would not be woken. Less one, it does.
                let _ = rustix::io::read(&self.fd, &mut [0; 8]);
                let _ = rustix::io::write(&self.fd, &one);
            }
        }
    }

    impl AsFd for Doorbell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use rustix::event::epoll;

        /// A bell that is watched as its owner does, and what tells how often that would wake.
        fn watched() -> (Doorbell, impl Fn() -> usize) {
            let bell = Doorbell::create().expect("a doorbell");
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, &bell, epoll::EventData::new_u64(7), edge).expect("watched");
            let woken = move || {
                let mut events = Vec::with_capacity(4);
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).expect("waited")
            };
            assert_eq!((woken(), woken()), (1, 0), "its first sleep ends at once");
            (bell, woken)
        }

        #[test]
        fn ring_of_a_doorbell_that_somebody_filled_wakes_its_owner() {
            let (bell, woken) = watched();
            let write = |amount: u64| rustix::io::write(&bell, &amount.to_ne_bytes());
            (0..u64::BITS).rev().for_each(|bit| _ = write(1 << bit));
            assert!(write(1).is_err(), "it is full");
            assert_eq!((woken(), woken()), (1, 0), "the filling itself is an edge, once");
            bell.ring();
            assert_eq!(woken(), 1);
        }

        #[test]
        fn ring_that_somebody_reads_before_its_owner_wakes_wakes_it_all_the_same() {
            let (bell, woken) = watched();
            bell.ring();
            for _ in 0..1000 {
                let _ = rustix::io::read(&bell, &mut [0; 8]);
            }
            assert_eq!((woken(), woken()), (1, 0), "and no read wakes anybody");
        }
    }
}

#[cfg(loom)]
mod modelled {
    use crate::links::{Link, Port};
    use loom::sync::{Condvar, Mutex};
    use std::sync::Arc;
    use std::{io, time::Instant};

    #[derive(Default)]
    struct Waiting {
        rung: bool,
        packet: bool,
        links: Vec<Link>,
    }

    /// A doorbell and a control socket, of loom's: the port of the model.
    #[derive(Clone)]
    pub struct Doorbell {
        waiting: Arc<(Mutex<Waiting>, Condvar)>,
    }

    #[expect(missing_docs, reason = "documented on the real form")]
    impl Doorbell {
        pub fn model() -> Self {
            Doorbell { waiting: Arc::new((Mutex::new(Waiting::default()), Condvar::new())) }
        }

        pub fn ring(&self) {
            self.change(|waiting| waiting.rung = true);
        }

        /// Hands a link over, as the supervisor does through the control socket.
        pub fn post(&self, link: Link) {
            self.change(|waiting| {
                waiting.packet = true;
                waiting.links.push(link);
            });
        }

        /// Hands over a packet whose links have died meanwhile.
        pub fn post_nothing(&self) {
            self.change(|waiting| waiting.packet = true);
        }

        fn change(&self, how: impl FnOnce(&mut Waiting)) {
            let mut waiting = self.waiting.0.lock().expect("nobody panics with it");
            how(&mut waiting);
            self.waiting.1.notify_one();
        }
    }

    impl Port for Doorbell {
        fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>> {
            let mut waiting = self.waiting.0.lock().expect("nobody panics with it");
            while wait && !waiting.packet {
                waiting = self.waiting.1.wait(waiting).expect("nobody panics with it");
            }
            waiting.packet = false;
            Ok(std::mem::take(&mut waiting.links))
        }

        fn sleep(&mut self, _: Option<Instant>) -> io::Result<bool> {
            let mut waiting = self.waiting.0.lock().expect("nobody panics with it");
            while !waiting.rung && !waiting.packet {
                waiting = self.waiting.1.wait(waiting).expect("nobody panics with it");
            }
            waiting.rung = false;
            Ok(waiting.packet)
        }
    }
}

#[cfg(loom)]
pub use modelled::Doorbell;
#[cfg(not(loom))]
pub use real::Doorbell;
