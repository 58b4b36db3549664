//! What the agents of the tests share: the stage's folder, remarks in it, and the messages.

use shoal_runtime::attachment::Encode;
use std::fmt::Display;
use std::io::Write;
use std::mem::MaybeUninit;
use std::path::PathBuf;

use crate::traces::MARK;

/// A number.
#[shoal_agent::message]
pub struct Number {
    /// It.
    pub value: u64,
}

/// A number as eight raw bytes, for agents that use the runtime without the SDK.
#[derive(Debug)]
pub struct RawNumber(pub u64);

impl Encode for RawNumber {
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let slot = slot.get_mut(..8)?;
        slot.iter_mut().zip(self.0.to_le_bytes()).for_each(|(to, byte)| _ = to.write(byte));
        Some(8)
    }

    fn exact(&mut self) -> Option<usize> {
        Some(8)
    }
}

/// A path in the folder of the stage that this agent plays on.
///
/// # Panics
/// When nobody named one.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(MARK).expect("the stage's folder")).join(name)
}

/// Adds a line to a file of the stage.
///
/// # Errors
/// The system's refusal.
pub fn note(file: &str, line: impl Display) -> std::io::Result<()> {
    let mut to = std::fs::OpenOptions::new().append(true).create(true).open(path(file))?;
    to.write_all(format!("{line}\n").as_bytes())
}

/// Notes that something was seen that must not be, and ends the process.
///
/// # Errors
/// Always.
pub fn violation<T>(what: impl Display) -> shoal_agent::Result<T> {
    note("violations", &what)?;
    Err(format!("violation: {what}").into())
}

/// The number in an argument.
///
/// # Errors
/// There is none.
pub fn number(args: &[String], at: usize) -> shoal_agent::Result<u64> {
    Ok(args.get(at).ok_or("a number is missing")?.parse()?)
}
