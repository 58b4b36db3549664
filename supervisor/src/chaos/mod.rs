//! `shoal chaos`: a swarm at full speed, disturbed at random, whose accounts must come out even.
//!
//! ```text
//!             ┌─ numbers ─► worker.1 ─┐
//!  source.1 ──┤             worker.2  ├─ results ─► sink       each message once, in any order
//!  source.2 ──┤             worker.3 ─┘         ▲
//!             ├─ asides ────────────────────────┘        each message once, in order; it comes and goes with reloads
//!             └─ direct ──────────────────────────► counter    each message once, in order, many in a step
//!  beat ──────── beats ───────────────────────────► listener   the same, one at a time: its reader always sleeps before
//!
//!  disturber (drawn from a seed): SIGKILL, SIGSTOP and SIGCONT, restarts, more and fewer workers; reloads and upgrades, also such that
//!  must roll back, when they are asked for
//!  supervisor_killer (in the guard, when it is asked for): SIGKILL to the supervisor, and to its successors while they take over
//! ```
//!
//! Every agent keeps its account in its state, so an account is committed with the step that it counts, and a killed
//! counter counts right. At the end the supervisor reads what each agent committed last, and what the sources committed is
//! compared with what the receivers committed.
//!
//! Pure: what a message holds (`number`), the account of a receiver (`account`), the plan of disturbances (`plan`), the
//! final account (`balance`), what was done (`done`). The rest runs: `agents`, `disturber`, `supervisor_killer`, `command`.

pub mod account;
pub mod agents;
pub mod balance;
pub mod command;
pub mod disturber;
pub mod done;
pub mod file;
pub mod number;
pub mod plan;
pub mod supervisor_killer;

/// How many sources there are.
pub const SOURCES: u32 = 2;
/// How many workers share the sources' numbers.
pub const WORKERS: u32 = 3;
/// How many workers there are at most: their number changes.
pub const WORKERS_MAX: u32 = 5;
/// How many agents there are besides: a counter, a sink, a beat and its listener.
pub const OTHERS: u32 = 4;
