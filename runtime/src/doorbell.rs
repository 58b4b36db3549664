//! What wakes a sleeping agent: an eventfd, fresh for every incarnation, watched edge-triggered and never read.

#[cfg(not(loom))]
mod real {
    use rustix::event::{EventfdFlags, eventfd};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::Arc;

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
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            Ok(Doorbell { fd: Arc::new(fd) })
        }

        /// Takes over a doorbell that was handed over.
        pub fn from_fd(fd: OwnedFd) -> Self {
            Doorbell { fd: Arc::new(fd) }
        }

        /// Wakes its owner if it sleeps, or lets its next sleep end at once.
        #[inline]
        pub fn ring(&self) {
            // A full counter (somebody filled it) refuses the write, but then the edge was given already.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    impl AsFd for Doorbell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::sync::Arc;

    /// A doorbell of loom's.
    #[derive(Clone)]
    pub struct Doorbell {
        notify: Arc<loom::sync::Notify>,
    }

    #[expect(missing_docs, reason = "documented on the real form")]
    impl Doorbell {
        pub fn model() -> Self {
            Doorbell { notify: Arc::new(loom::sync::Notify::new()) }
        }

        pub fn ring(&self) {
            self.notify.notify();
        }

        pub fn wait(&self) {
            self.notify.wait();
        }
    }
}

#[cfg(loom)]
pub use modelled::Doorbell;
#[cfg(not(loom))]
pub use real::Doorbell;
