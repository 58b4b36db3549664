//! Measuring: real processes, what they do, the floors beside them, and the arithmetic of pairs.
//!
//! ```text
//!                       ┌── lane ──► spoke 1      a binary starts itself again for the hub and each spoke (star);
//!   who measures ──► hub ◄── lane ──              they attach to it as agents do to a supervisor, and do what they
//!        tasks, replies └── lane ──► spoke N      are told over a socket (peer): something on lanes, or on a raw floor
//! ```
//!
//! | room | holds |
//! |---|---|
//! | `star` | the processes: segments, seals, links, go |
//! | `peer`, `task` | what a process does when told, and the words for it |
//! | `talk`, `load` | sending and receiving on the runtime, and what is sent |
//! | `times` | how long each took |
//! | `floor` | UNSAFE: what the machine can do without Shoal |
//! | `baseline` | UNSAFE: what one would write instead (feature `peers`) |
//! | `pairs`, `compare` | medians of pairs; faster, slower or noise: pure |
//! | `cases`, `outcome` | the cases of `shoal bench`, and what comes of one |
//! | `within` | two agents in one process |
//! | `messages` | the case that needs no other process: making and reading one message |

#[cfg(feature = "peers")]
#[allow(unsafe_code)]
pub mod baseline;
pub mod cases;
pub mod compare;
#[allow(unsafe_code)]
pub mod floor;
pub mod load;
pub mod messages;
pub mod outcome;
pub mod pairs;
pub mod peer;
pub mod star;
pub mod talk;
pub mod task;
pub mod times;
pub mod within;
