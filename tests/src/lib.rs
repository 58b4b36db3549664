//! What the integration tests share: a stage of its own for every test, a running supervisor on it, the traces that
//! processes leave, and numbers that can be drawn again.
//!
//! The agents of the tests are the binaries in `src/bin`; `shoal-under-test` is the command line itself, because a crate
//! is given no path to another crate's binary, and one that happens to lie in `target/` may be stale.
//!
//! Nobody here waits for a time: a test waits for a condition, up to [`patience`], after which it counts as a hang.

pub mod agents;
pub mod attack;
pub mod attacked;
pub mod book;
pub mod chance;
pub mod clone;
pub mod failing;
pub mod running;
pub mod seized;
pub mod stage;
#[cfg(target_arch = "x86_64")]
pub mod step_kill;
pub mod tapped;
pub mod told;
pub mod traces;

pub use book::{Book, Entry};
pub use chance::Chance;
pub use running::Running;
pub use stage::{Done, Stage};

use rustix::process::Signal;
use std::time::{Duration, Instant};

/// `shoal-under-test` panics when it gets this.
pub const PANICS: Signal = Signal::USR2;

/// How long a condition may take before the test counts as hung: `SHOAL_TEST_PATIENCE` seconds, else 90. Generous: the
/// machine may be busy.
pub fn patience() -> Duration {
    let given = std::env::var("SHOAL_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(90))
}

/// How long to pause before a condition is looked at again.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until a condition holds and returns what it yields.
///
/// # Panics
/// When it does not hold within [`patience`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "hung: {what} did not come to pass within {:?}", patience());
        std::thread::sleep(PAUSE);
    }
}

/// A stage for a test of this crate.
#[macro_export]
macro_rules! stage {
    ($label:expr) => {
        $crate::Stage::new($label, env!("CARGO_BIN_EXE_shoal-under-test"))
    };
}
