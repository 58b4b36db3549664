//! What callgrind counts: two agents in one process publish, poll, commit and step, a known number of times each.
//! `scripts/instructions` runs it once for each of the four functions and counts what is executed inside of that function alone.

use shoal_measure::load::Line;
use shoal_measure::talk::Talker;
use shoal_measure::within::{Still, pair};
use std::io;

type Agent = Talker<Still>;

/// Messages that go one way, and as many that are answered in a step.
const ROUNDS: u64 = 1000;

#[inline(always)]
fn look(agent: &mut Agent) -> io::Result<()> {
    if agent.look() { Ok(()) } else { Err(io::Error::other("the message is not there")) }
}

/// A message is serialized into its claim, committed and published.
#[inline(never)]
fn measured_publish(agent: &mut Agent, number: u64) -> io::Result<()> {
    agent.write(&mut Line::default(), number)?;
    agent.commit()
}

/// A message is found, leased, validated, and every byte of it looked at.
#[inline(never)]
fn measured_poll(agent: &mut Agent, number: u64) -> io::Result<()> {
    look(agent)?;
    agent.read(&Line::default(), number)?;
    Ok(())
}

/// A message is acknowledged by itself.
#[inline(never)]
fn measured_commit(agent: &mut Agent) -> io::Result<()> {
    agent.commit()
}

/// A message is found, leased, validated and answered; the answer and the acknowledgement are committed by one record.
#[inline(never)]
fn measured_step(agent: &mut Agent, number: u64) -> io::Result<()> {
    look(agent)?;
    agent.read(&Line::default(), number)?;
    agent.write(&mut Line::default(), number)?;
    agent.commit()
}

fn main() -> io::Result<()> {
    let [mut first, mut second] = pair()?;
    for number in 0..ROUNDS {
        measured_publish(&mut first, number)?;
        measured_poll(&mut second, number)?;
        measured_commit(&mut second)?;
    }
    for number in 0..ROUNDS {
        measured_publish(&mut first, number)?;
        measured_step(&mut second, number)?;
        measured_poll(&mut first, number)?;
        measured_commit(&mut first)?;
    }
    // How often each was called.
    println!("publish {} poll {} commit {} step {ROUNDS}", 2 * ROUNDS, 2 * ROUNDS, 2 * ROUNDS);
    Ok(())
}
