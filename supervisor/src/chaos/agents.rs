//! Chaos's agents: processes of this same binary (`shoal agent chaos NAME`), written with nothing but the SDK.

use super::account::Account;
use super::number::{self, ArchivedNumber, Number, Stage};
use super::{SOURCES, number::mix};
use crate::log::report;
use shoal_agent::{Agent, Next, Result};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Messages that a source sends in one step, at most.
const STEP_MESSAGES_MAX: u64 = 16;
/// Messages that the counter takes in one step, at most.
const COUNTED_MAX: u32 = 64;
/// How long the beat rests.
const BEAT_EVERY: Duration = Duration::from_millis(20);

/// How many messages a source sent on each of its lanes: its state.
#[shoal_agent::message]
pub struct Sent {
    /// So many.
    pub count: u64,
}

/// What went through a worker: its state.
#[shoal_agent::message]
pub struct Passed {
    /// Messages that it changed and sent on.
    pub count: u64,
    /// Messages that were not whole.
    pub corrupted: u64,
}

/// Runs one of chaos's agents.
pub fn main(args: &[OsString]) -> ExitCode {
    match args.iter().map(|arg| arg.to_str()).collect::<Vec<_>>()[..] {
        [Some("source")] => shoal_agent::run(source),
        [Some("worker")] => shoal_agent::run(worker),
        [Some("sink")] => shoal_agent::run(|agent| receiver(agent, "results", SOURCES, Stage::Worked)),
        [Some("counter")] => shoal_agent::run(counter),
        [Some("beat")] => shoal_agent::run(beat),
        [Some("onlooker")] => shoal_agent::run(onlooker),
        [Some("listener")] => shoal_agent::run(|agent| receiver(agent, "beats", 1, Stage::Sent)),
        _ => {
            let names = "source|worker|sink|counter|beat|listener|onlooker";
            report!("usage: shoal agent chaos {names} (started by `shoal chaos`)");
            ExitCode::from(2)
        }
    }
}

/// Sends its numbers, each on both of its lanes, a few in every step. It goes on where its state says, not where its lanes
/// say: if they disagree, the receivers notice.
fn source(agent: &mut Agent) -> Result<()> {
    let numbers = agent.publish::<Number>("numbers")?;
    let direct = agent.publish::<Number>("direct")?;
    let state = agent.state::<Sent>()?;
    let mut sent = agent.load(&state)?.map_or(0, |sent| sent.count);
    let (source, _) = agent.replica();
    let mut number = number::blank();
    while !agent.stopping() {
        let end = sent + 1 + mix(sent) % STEP_MESSAGES_MAX;
        agent.step(|step| {
            for sequence in sent..end {
                number::write(Stage::Sent, source, sequence, &mut number);
                step.send(&numbers, &number)?;
                step.send(&direct, &number)?;
            }
            step.keep(&state, &Sent { count: end })
        })?;
        sent = end;
    }
    Ok(())
}

/// Sends a message, and rests. Its reader has long read everything and sleeps when the next one comes.
fn beat(agent: &mut Agent) -> Result<()> {
    let beats = agent.publish::<Number>("beats")?;
    let state = agent.state::<Sent>()?;
    let mut sent = agent.load(&state)?.map_or(0, |sent| sent.count);
    let mut number = number::blank();
    while !agent.stopping() {
        number::write(Stage::Sent, 0, sent, &mut number);
        sent += 1;
        agent.step(|step| {
            step.send(&beats, &number)?;
            step.keep(&state, &Sent { count: sent })
        })?;
        std::thread::sleep(BEAT_EVERY);
    }
    Ok(())
}

/// Changes every number and sends it on.
fn worker(agent: &mut Agent) -> Result<()> {
    let results = agent.publish::<Number>("results")?;
    let state = agent.state::<Passed>()?;
    let mut result = number::blank();
    agent.on::<Number>("numbers", move |step, number| {
        let mut passed = step.load(&state)?.unwrap_or(Passed { count: 0, corrupted: 0 });
        match number::read(Stage::Sent, SOURCES, number) {
            Some((source, sequence)) => {
                passed.count += 1;
                number::write(Stage::Worked, source, sequence, &mut result);
                step.send(&results, &result)?;
            }
            None => passed.corrupted += 1,
        }
        step.keep(&state, &passed)
    })?;
    agent.serve()
}

/// Keeps account of what comes, of many messages in a step.
fn counter(agent: &mut Agent) -> Result<()> {
    let numbers = agent.subscribe::<Number>("direct")?;
    let state = agent.state::<Account>()?;
    let mut account = agent.load(&state)?.unwrap_or_else(|| Account::new(SOURCES));
    while let Next::Message(mut number) = agent.receive(&numbers, None)? {
        loop {
            account.note(number::read(Stage::Sent, SOURCES, number.message()));
            if !number.advance(COUNTED_MAX) {
                break;
            }
        }
        number.keep(&state, &account)?;
        number.commit()?;
    }
    Ok(())
}

/// Reads, as long as it is there; what it has not read then is dropped.
fn onlooker(agent: &mut Agent) -> Result<()> {
    agent.on::<Number>("beats", |_, _: &ArchivedNumber| Ok(()))?;
    agent.serve()
}

/// Keeps account of what comes, of one message in a step.
fn receiver(agent: &mut Agent, channel: &str, sources: u32, stage: Stage) -> Result<()> {
    let state = agent.state::<Account>()?;
    let mut account = agent.load(&state)?.unwrap_or_else(|| Account::new(sources));
    agent.on::<Number>(channel, move |step, number: &ArchivedNumber| {
        if step.attempt() > 1 {
            // What was counted for a step that failed was not committed.
            account = step.load(&state)?.unwrap_or_else(|| Account::new(sources));
        }
        account.note(number::read(stage, sources, number));
        step.keep(&state, &account)
    })?;
    agent.serve()
}
