//! `shoal bench scenario NAME`: swarms of real processes with a job, whose every message is counted.
//!
//! ```text
//!   asker ── calls ──► member.1 … member.N ── answers ──► asker     the members share the calls, or each hears all of them
//!                      member.k ── notes ───────────────► clerk     of each member in order
//!   teller.k ── notes ──────────────────────────────────► clerk
//! ```
//!
//! Who asks or listens keeps the account in its state: how many came, what came twice, was left out or was not what was sent,
//! and how long each took. When the swarm has ended the supervisor reads what they committed last, and everything that was
//! to come is compared with it. A scenario in which nothing was delivered has failed.
//!
//! Pure: the account (`tally`), the swarm files (`swarms`), what is said of it (`outcome`). The rest runs: `agents`, `director`,
//! `usage` (what processes cost), `play`, `command`.

pub mod agents;
pub mod command;
pub mod director;
pub mod outcome;
pub mod play;
pub mod swarms;
pub mod tally;
pub mod usage;
