//! A crowded machine: more processes that never wait than it has processors.

use crate::config;
use std::io;
use std::process::{Child, Command, Stdio};

/// Processes that never wait; they end with this.
pub(super) struct Crowd(Vec<Child>);

impl Crowd {
    /// How many.
    const MANY: usize = 8;

    pub(super) fn gather() -> io::Result<Crowd> {
        let binary = config::own_binary().map_err(io::Error::other)?;
        let mut crowd = Crowd(Vec::new());
        for _ in 0..Crowd::MANY {
            let mut one = Command::new(&binary);
            let one = one.args([super::PEER[0], super::BUSY, &std::process::id().to_string()]);
            crowd.0.push(one.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for one in &mut self.0 {
            let _ = one.kill();
            let _ = one.wait();
        }
    }
}
