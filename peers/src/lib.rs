//! What one could use instead of Shoal, measured beside it and beside the machine's floor, in turns in one run.
//!
//! ```text
//!                    ┌── star: hub ◄──► spoke       Shoal, and the floors (shoal-measure)
//!   run ── in turns ─┼── pair of peer 1: end ◄──► end     each pair is two processes, pinned to the CPUs of the star;
//!                    └── pair of peer N: end ◄──► end     the others sleep meanwhile
//! ```
//!
//! | room | holds |
//! |---|---|
//! | `wire` | what a peer must do: send, receive |
//! | `wires` | the peers, each used as its documentation says is fastest |
//! | `check` | whether what came is what was to come: lost, doubled, reordered, damaged |
//! | `broken` | a wire that does it wrong, for the tests |
//! | `talk` | what both ends do with any wire: round trips, a stream |
//! | `end` | the process of an end: comes up, does what it is told |
//! | `pair` | both ends, as who measures has them |
//! | `server` | brokers and drivers that a peer needs |
//! | `registry` | which peers there are, and why one is not measured |
//! | `run` | the turns, and what comes of them |
//! | `report` | the table and the JSON |

pub mod broken;
pub mod check;
pub mod end;
pub mod pair;
pub mod registry;
pub mod report;
pub mod run;
pub mod server;
pub mod talk;
pub mod wire;
pub mod wires;
