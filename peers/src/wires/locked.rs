//! UNSAFE. A ring in a named segment of `shared_memory`, guarded by a `Mutex` of `raw_sync`, with an event each for "there is
//! something" and "there is room": what one would write with these two crates. It sleeps on `Event`s or spins on `BusyEvent`s.
//! How it fares when an end is killed: `docs/decisions/0002`.

use crate::wire::{Mode, Wire, peers_own};
use raw_sync::Timeout;
use raw_sync::events::{BusyEvent, Event, EventImpl, EventInit, EventState};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use shared_memory::{Shmem, ShmemConf};
use std::io;

// Of a ring, each on lines of its own. A mutex is of 40 bytes, an event of at most 136.
const MUTEX: usize = 0;
const SOMETHING: usize = 256;
const ROOM: usize = 512;
const TAIL: usize = 768;
const HEAD: usize = 896;
const SLOTS: usize = 1024;
/// Bytes of a ring's slots, unless four messages need more.
const RING_BYTES: usize = 1 << 20;

/// Both ends: a ring each way.
pub struct Locked {
    out: Ring,
    into: Ring,
}

/// One ring. The segment is declared last, so that it outlives the handles into it.
struct Ring {
    mutex: Box<dyn LockImpl>,
    something: Box<dyn EventImpl>,
    room: Box<dyn EventImpl>,
    bytes: usize,
    slot_bytes: usize,
    slots: u64,
    segment: Shmem,
}

impl Locked {
    /// Makes the ring that this end writes, and says its name.
    ///
    /// # Errors
    /// What the crates say.
    pub fn offer(bytes: usize, mode: Mode) -> io::Result<(Offered, String)> {
        let (slot_bytes, slots) = Ring::shape(bytes);
        let segment = ShmemConf::new().size(SLOTS + slot_bytes * slots).create().map_err(peers_own)?;
        let name = segment.get_os_id().to_owned();
        let ring = Ring::over(segment, bytes, mode, true)?;
        Ok((Offered { ring, bytes, mode }, name))
    }
}

/// An end that has its own ring, and not yet the other's.
pub struct Offered {
    ring: Ring,
    bytes: usize,
    mode: Mode,
}

impl Offered {
    /// Opens the other's ring.
    ///
    /// # Errors
    /// What the crates say.
    pub fn meet(self, name: &str) -> io::Result<Locked> {
        let segment = ShmemConf::new().os_id(name).open().map_err(peers_own)?;
        let into = Ring::over(segment, self.bytes, self.mode, false)?;
        Ok(Locked { out: self.ring, into })
    }
}

impl Ring {
    fn shape(bytes: usize) -> (usize, usize) {
        let slot_bytes = bytes.next_multiple_of(64);
        (slot_bytes, (RING_BYTES / slot_bytes).max(4))
    }

    fn over(segment: Shmem, bytes: usize, mode: Mode, new: bool) -> io::Result<Ring> {
        let (slot_bytes, slots) = Ring::shape(bytes);
        if segment.len() < SLOTS + slot_bytes * slots {
            return Err(io::Error::other("the other end's segment is too short"));
        }
        let base = segment.as_ptr();
        let event = |at: usize| {
            // SAFETY: inside the segment, apart from all else in it; `new` is said once, by its maker, before any other
            // process knows its name. The handle is dropped before the segment is unmapped.
            let made = unsafe {
                match (mode, new) {
                    (Mode::Parked, true) => Event::new(base.add(at), true),
                    (Mode::Parked, false) => Event::from_existing(base.add(at)),
                    (Mode::Spin, true) => BusyEvent::new(base.add(at), true),
                    (Mode::Spin, false) => BusyEvent::from_existing(base.add(at)),
                }
            };
            made.map(|(event, _)| event).map_err(peers_own)
        };
        // SAFETY: as above.
        let mutex = unsafe {
            let (at, guarded) = (base.add(MUTEX), base.add(TAIL));
            if new { Mutex::new(at, guarded) } else { Mutex::from_existing(at, guarded) }
        };
        let (mutex, _) = mutex.map_err(peers_own)?;
        let slots = slots as u64;
        let (something, room) = (event(SOMETHING)?, event(ROOM)?);
        Ok(Ring { mutex, something, room, bytes, slot_bytes, slots, segment })
    }

    /// A word that the mutex guards.
    fn word(&self, at: usize) -> *mut u64 {
        // SAFETY: inside the segment, and aligned.
        unsafe { self.segment.as_ptr().add(at).cast() }
    }

    fn slot(&self, number: u64, bytes: usize) -> *mut [u8] {
        debug_assert!(bytes <= self.slot_bytes);
        // SAFETY: inside the segment: there are so many slots.
        let at =
            unsafe { self.segment.as_ptr().add(SLOTS + (number % self.slots) as usize * self.slot_bytes) };
        std::ptr::slice_from_raw_parts_mut(at, bytes)
    }

    /// Takes the lock, and lets `act` see the tail and the head; says whether it did something.
    fn locked(&self, act: impl FnOnce(&mut u64, &mut u64) -> bool) -> io::Result<bool> {
        let _guard = self.mutex.lock().map_err(peers_own)?;
        // SAFETY: the lock is held, so no other thread or process touches the words.
        Ok(unsafe { act(&mut *self.word(TAIL), &mut *self.word(HEAD)) })
    }
}

impl Wire for Locked {
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let (ring, mut fill) = (&self.out, Some(fill));
        loop {
            let mut was_empty = false;
            let sent = ring.locked(|tail, head| {
                if *tail - *head == ring.slots {
                    return false;
                }
                if let Some(fill) = fill.take() {
                    // SAFETY: the lock is held, and the slot is free.
                    fill(unsafe { &mut *ring.slot(*tail, bytes) });
                }
                was_empty = tail == head;
                *tail += 1;
                true
            })?;
            match (sent, was_empty) {
                (true, true) => return ring.something.set(EventState::Signaled).map_err(peers_own),
                (true, false) => return Ok(()),
                (false, _) => ring.room.wait(Timeout::Infinite).map_err(peers_own)?,
            }
        }
    }

    fn receive(&mut self, _limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let ring = &self.into;
        loop {
            let mut was_full = false;
            let taken = ring.locked(|tail, head| {
                if tail == head {
                    return false;
                }
                // SAFETY: the lock is held, and the slot was written.
                look(unsafe { &*ring.slot(*head, ring.bytes) });
                was_full = *tail - *head == ring.slots;
                *head += 1;
                true
            })?;
            match (taken, was_full) {
                (true, true) => ring.room.set(EventState::Signaled).map_err(peers_own)?,
                (true, false) => {}
                (false, _) => {
                    ring.something.wait(Timeout::Infinite).map_err(peers_own)?;
                    continue;
                }
            }
            return Ok(1);
        }
    }
}
