//! UNSAFE. What one would write without Shoal: a ring in a named segment of `shared_memory`, guarded by a `Mutex` of
//! `raw_sync` and announced by its `Event`s. For comparison only: see `docs/decisions/0002`.

use raw_sync::Timeout;
use raw_sync::events::{Event, EventImpl, EventInit, EventState};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use shared_memory::{Shmem, ShmemConf};
use std::error::Error;

const MUTEX: usize = 0;
const TO_SECOND: usize = 256;
const TO_FIRST: usize = 512;
const RING: usize = 1024;
const SLOTS: u64 = 64;
const SLOT_BYTES: usize = 64;
const BYTES: usize = RING + 16 + SLOTS as usize * SLOT_BYTES;

/// One process's handles. The mapping is declared last, so that it outlives them.
pub struct Baseline {
    mutex: Box<dyn LockImpl>,
    events: [Box<dyn EventImpl>; 2],
    base: *mut u8,
    _map: Shmem,
}

impl Baseline {
    /// Creates the segment. Its name goes when the returned owner is dropped.
    ///
    /// # Errors
    /// What the crates say.
    pub fn create() -> Result<Shmem, Box<dyn Error>> {
        let map = ShmemConf::new().size(BYTES).create()?;
        let base = map.as_ptr();
        // SAFETY: inside the map, which is fresh and zeroed, and nobody else has it yet; the parts do not overlap (a mutex is
        // of 40 bytes, an event of at most 136).
        unsafe {
            Mutex::new(base.add(MUTEX), base.add(RING))?;
            Event::new(base.add(TO_SECOND), true)?;
            Event::new(base.add(TO_FIRST), true)?;
        }
        Ok(map)
    }

    /// Opens it.
    ///
    /// # Errors
    /// What the crates say.
    pub fn open(id: &str, first: bool) -> Result<Self, Box<dyn Error>> {
        let map = ShmemConf::new().os_id(id).open()?;
        if map.len() < BYTES {
            return Err("the segment is too short".into());
        }
        let base = map.as_ptr();
        let (own, other) = if first { (TO_FIRST, TO_SECOND) } else { (TO_SECOND, TO_FIRST) };
        // SAFETY: inside the map (checked above), initialised by `create`; the handles are dropped before the map.
        unsafe {
            let (mutex, _) = Mutex::from_existing(base.add(MUTEX), base.add(RING))?;
            let (awaited, _) = Event::from_existing(base.add(own))?;
            let (told, _) = Event::from_existing(base.add(other))?;
            Ok(Baseline { mutex, events: [awaited, told], base, _map: map })
        }
    }

    /// Puts a message into the ring and tells the other process.
    ///
    /// # Errors
    /// What `raw_sync` says.
    pub fn send(&self, bytes: &[u8; SLOT_BYTES]) -> Result<(), Box<dyn Error>> {
        let guard = self.mutex.lock()?;
        // SAFETY: inside the map; the mutex is held, so nobody else touches the ring.
        unsafe {
            let tail = self.base.add(RING).cast::<u64>();
            self.slot(*tail).write(*bytes);
            *tail += 1;
        }
        drop(guard);
        self.events[1].set(EventState::Signaled)
    }

    /// Waits until told and takes a message.
    ///
    /// # Errors
    /// What `raw_sync` says.
    pub fn receive(&self) -> Result<[u8; SLOT_BYTES], Box<dyn Error>> {
        self.events[0].wait(Timeout::Infinite)?;
        let _guard = self.mutex.lock()?;
        // SAFETY: as in `send`.
        unsafe {
            let head = self.base.add(RING + 8).cast::<u64>();
            let bytes = self.slot(*head).read();
            *head += 1;
            Ok(bytes)
        }
    }

    /// Round trips.
    ///
    /// # Errors
    /// What `raw_sync` says; an answer that is not what was sent.
    pub fn ping_pong(&self, first: bool, rounds: u64, mut each: impl FnMut()) -> Result<(), Box<dyn Error>> {
        let mut bytes = [0; SLOT_BYTES];
        for round in 0..rounds {
            bytes[..8].copy_from_slice(&round.to_ne_bytes());
            if first {
                self.send(&bytes)?;
            }
            if self.receive()? != bytes {
                return Err("a message is not the one that was sent".into());
            }
            if !first {
                self.send(&bytes)?;
            }
            each();
        }
        Ok(())
    }

    unsafe fn slot(&self, number: u64) -> *mut [u8; SLOT_BYTES] {
        // SAFETY: the offset is below `BYTES`.
        unsafe { self.base.add(RING + 16 + (number % SLOTS) as usize * SLOT_BYTES).cast() }
    }
}
