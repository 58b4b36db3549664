//! UNSAFE. The command line itself, built with the tests; and whoever of it gets [`PANICS`] panics.
#![allow(unsafe_code)]

use nix::sys::signal::{SigHandler, Signal, signal};
use shoal_tests::PANICS;

/// For what `shoal agent bench` takes, as any agent that is to be back soon.
#[global_allocator]
static MEMORY: shoal_agent::LargePages = shoal_agent::LargePages;

/// Stands for a fault of the code that was interrupted.
extern "C" fn panic_here(_: i32) {
    panic!("a test wants it so");
}

fn main() -> std::process::ExitCode {
    let wanted = Signal::try_from(PANICS.as_raw()).expect("a signal");
    // SAFETY: tests send it to a supervisor that waits for events, so no call that it makes is cut in two; and what panics there ends at
    // once, without going back to what was interrupted.
    unsafe { signal(wanted, SigHandler::Handler(panic_here)) }.expect("a signal that may be caught");
    shoal::main()
}
