//! Kill at every instruction: a tracer that single-steps real agents through whole steps, and judges what a death leaves.
//!
//! ```text
//!  story   what the agent shall do, and every byte that its readers may see: the oracle
//!  life    the agent: the runtime's own code over real segments, in a process or in the judge
//!  stage   source, sinks and board of one run, and the birth of a worker in a process of its own
//!  tracer  UNSAFE  fork, ptrace, breakpoints
//!  judge   from the bytes of a dead worker: live readers, verdict, successor, and whether all of it is right
//! ```
//! Modes: [`snapshot`] (linear: the bytes at every boundary are judged), [`kill`] (a real death, proof and successor at
//! every boundary; also a worker that stands still, a child that keeps the memory, a reader that falls asleep there),
//! [`succession`] (the second death, at every boundary of recovery), [`verdicts`] (the supervisor's own writing), and
//! [`scribble`] (words that a dying agent wrote over).

pub mod judge;
pub mod kill;
pub mod life;
pub mod report;
pub mod scribble;
pub mod sink;
pub mod snapshot;
pub mod stage;
pub mod story;
pub mod succession;
pub mod tracer;
pub mod verdicts;
