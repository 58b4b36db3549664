//! The same for a group: the worker is one of two members that share its input by claims.
//!
//! ```text
//!  story    what a member does with a message, whoever is given it
//!  member   the runtime's own code as a member, in a process or in the judge
//!  setting  shapes, manifests, the source, the settlement as a supervisor does it
//!  stage    one run over real memory: source, mate, readers, and the worker's birth
//!  account  what must hold of the claim table, and of all effects together
//!  judge    from the bytes of a dead worker and of the claim table: everybody's life after it
//! ```
//! Modes: [`snapshot`] (the bytes at every boundary, with a mate that stands still or is busy), [`settlement`] (a supervisor that
//! dies while it settles, and settles again), and [`kill`] (a real death, or only a stop, while the mate goes on).

pub mod account;
pub mod judge;
pub mod kill;
pub mod member;
pub mod reader;
pub mod setting;
pub mod settlement;
pub mod snapshot;
pub mod stage;
pub mod story;
