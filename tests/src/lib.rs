//! Integration tests, and the tracer that kills an agent at every instruction.

#[cfg(target_arch = "x86_64")]
pub mod step_kill;
