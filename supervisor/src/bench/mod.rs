//! `shoal bench`: figures of this machine, each beside its floor, from real processes of this same binary.
//!
//! What two or a few processes do is measured in the crate `shoal-measure`; here is what needs a supervisor (`lives`, `removals`, `hangs`, `scale`, `takeover`, `orphans`), and
//! what the command shows: a table (`table`), a page (`html`), JSON, a comparison (`command`).

use crate::log::report;
pub mod agents;
pub mod command;
mod crowd;
mod ends;
mod guarded;
pub mod hangs;
pub mod html;
mod kept;
pub mod lives;
pub mod orphans;
pub mod removals;
pub mod scale;
pub mod table;
pub mod takeover;

use std::process::ExitCode;

/// The cases, in the order in which they run.
pub const CASES: [&str; 16] = [
    "latency",
    "throughput",
    "placement",
    "sparse",
    "text",
    "message",
    "step",
    "fan",
    "spawn",
    "recovery",
    "hardship",
    "removal",
    "hang",
    "scale",
    "takeover",
    "orphans",
];
/// The command line of a measured process.
pub const PEER: [&str; 1] = ["bench-peer"];
/// What the raw child beside a start and a death is told to be.
const RAW: &str = "born";
/// What one is told whose memory is to be in small pages, whatever the allocator asks for; and one to whom the kernel may give large ones.
const SMALL: &str = "small";
/// See there.
const LARGE: &str = "large";
/// And a sink that takes it in small pieces before it is an agent, as who loads something in `main`.
const AHEAD: &str = "ahead";
/// Of two agents that talk: that each message waits for a new millisecond.
const EACH_MS: &str = "each-ms";
/// The same: that each follows as soon as the last one has come back.
const IN_A_ROW: &str = "in-a-row";
/// And one that does so at work, as who has another allocator.
const PIECES: &str = "pieces";
/// What a process that never waits is told to be.
const BUSY: &str = "busy";

/// This process has its memory in small pages from here on, if it is told so.
fn take_small_pages(told: &str) {
    if told == SMALL {
        // Refused by kernels that have no large ones.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}

/// Is a process that `shoal bench` measures.
pub fn peer(what: &[String]) -> ExitCode {
    match what {
        [born, bytes, pages] if born == RAW => {
            take_small_pages(pages);
            // It waits to be killed, so it returns only when something is wrong.
            let _ = bytes.parse().map(shoal_measure::floor::be_raw_child);
        }
        [busy, parent] if busy == BUSY => {
            if parent.parse().is_ok_and(|parent| kept::ends_with(parent).is_ok()) {
                loop {
                    std::hint::spin_loop();
                }
            }
        }
        [observer, rest_ms, parent] if observer == scale::OBSERVER => {
            if let (Ok(rest_ms), Ok(parent)) = (rest_ms.parse(), parent.parse())
                && kept::ends_with(parent).is_ok()
            {
                scale::be_observer(rest_ms, parent);
                return ExitCode::SUCCESS;
            }
        }
        [swarm, what, parent] if swarm == kept::SWARM => {
            if let Ok(parent) = parent.parse() {
                return kept::be_swarm(what, parent);
            }
        }
        [swarm, agents, pace, orphans, parent] if swarm == guarded::SWARM => {
            if let (Ok(agents), Ok(parent)) = (agents.parse(), parent.parse()) {
                return guarded::be_swarm(agents, pace, orphans, parent);
            }
        }
        _ => shoal_measure::peer::run_if_peer(),
    }
    report!("shoal: `shoal bench` starts the processes that it measures itself");
    ExitCode::from(crate::cli::BAD_INPUT)
}
