//! What a peer must do to be measured. Each end of a pair has one wire, to the other end and back.

use std::io;

/// An end of a peer's way to talk.
pub trait Wire {
    /// Whether messages wait for [`Wire::flush`], so that several can be given to the system at once.
    const BATCHES: bool = false;

    /// Sends a message of so many bytes, which `fill` writes: into the peer's own memory where it lends some.
    ///
    /// # Errors
    /// What the peer refuses.
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()>;

    /// Sends what waits.
    ///
    /// # Errors
    /// What the peer refuses.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for messages and shows them, in place where the peer can: at least one, at most `limit`. Returns how many.
    ///
    /// # Errors
    /// The other end is gone.
    fn receive(&mut self, limit: u64, look: impl FnMut(&[u8])) -> io::Result<u64>;
}

/// How a wire waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It asks again and again.
    Spin,
    /// It sleeps until it is woken.
    Parked,
}

impl Mode {
    /// As it stands in tables and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Spin => "spin",
            Mode::Parked => "parked",
        }
    }
}

/// Who spins, and now and then lets another process run that wants to: on a CPU of its own that costs nothing.
#[derive(Default)]
pub struct Spinning(u32);

impl Spinning {
    /// Looks so often before it gives way.
    const LOOKS: u32 = 2048;

    /// Between two looks.
    #[inline]
    pub fn between(&mut self) {
        self.0 = self.0.wrapping_add(1);
        if self.0.is_multiple_of(Self::LOOKS) { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

/// An error of a peer's own kind.
pub(crate) fn peers_own(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
