//! Chaos's agents: processes of this same binary (`shoal agent chaos NAME`), written with nothing but the SDK.

use super::account::Account;
use super::file::{ASIDES, ASIDES_ENV};
use super::number::{self, ArchivedNumber, Number, Stage};
use super::{SOURCES, number::mix};
use crate::log::report;
use shoal_agent::{Agent, Next, Result, State};
use std::cell::RefCell;
use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// Messages that a source sends in one step, at most.
const STEP_MESSAGES_MAX: u64 = 16;
/// Messages that the counter takes in one step, at most.
const COUNTED_MAX: u32 = 64;
/// How long the beat rests.
const BEAT_EVERY: Duration = Duration::from_millis(20);

/// How many messages a source sent: its state.
#[shoal_agent::message]
pub struct Sent {
    /// On each of the lanes that it always has.
    pub count: u64,
    /// On all lanes of asides that it ever had.
    pub asides: u64,
}

/// What went through a worker: its state.
#[shoal_agent::message]
pub struct Passed {
    /// Messages that it changed and sent on.
    pub count: u64,
    /// Messages that were not whole.
    pub corrupted: u64,
}

/// Runs one of chaos's agents; with a time behind its name one that ends by itself, so many milliseconds after its start.
pub fn main(args: &[OsString]) -> ExitCode {
    match args.iter().map(|arg| arg.to_str()).collect::<Vec<_>>()[..] {
        [Some(name)] => run(name),
        [Some(name), Some(time)] => match time.parse().map(Duration::from_millis) {
            Ok(Duration::ZERO) => ExitCode::FAILURE,
            Ok(time) => {
                end_after(time);
                run(name)
            }
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn run(name: &str) -> ExitCode {
    match name {
        "source" => shoal_agent::run(source),
        "worker" => shoal_agent::run(worker),
        "sink" => shoal_agent::run(sink),
        "counter" => shoal_agent::run(counter),
        "beat" => shoal_agent::run(beat),
        "onlooker" => shoal_agent::run(onlooker),
        "listener" => shoal_agent::run(listener),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    let names = "source|worker|sink|counter|beat|listener|onlooker";
    report!("usage: shoal agent chaos {names} [MILLISECONDS] (started by `shoal chaos`)");
    ExitCode::from(2)
}

/// Ends the process as one that fails, wherever it is then: before it is ready, or in the middle of a step.
fn end_after(time: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        std::process::exit(1);
    });
}

/// Sends its numbers, each on all of its lanes, a few in every step. It goes on where its state says, not where its lanes
/// say: if they disagree, the receivers notice. The numbers of the asides go on while there is no channel for them.
fn source(agent: &mut Agent) -> Result<()> {
    let numbers = agent.publish::<Number>("numbers")?;
    let direct = agent.publish::<Number>("direct")?;
    let asides = has_asides().then(|| agent.publish::<Number>(ASIDES)).transpose()?;
    let state = agent.state::<Sent>()?;
    let mut sent = agent.load(&state)?.unwrap_or(Sent { count: 0, asides: 0 });
    let (source, _) = agent.replica();
    let mut number = number::blank();
    while !agent.stopping() {
        let more = 1 + mix(sent.count) % STEP_MESSAGES_MAX;
        let mut next = Sent { count: sent.count + more, asides: sent.asides };
        agent.step(|step| {
            for sequence in sent.count..next.count {
                number::write(Stage::Sent, source, sequence, &mut number);
                step.send(&numbers, &number)?;
                step.send(&direct, &number)?;
                if let Some(asides) = &asides {
                    number::write(Stage::Sent, source, next.asides, &mut number);
                    step.send(asides, &number)?;
                    next.asides += 1;
                }
            }
            step.keep(&state, &next)
        })?;
        sent = next;
    }
    Ok(())
}

/// Whether the swarm file has the channel that comes and goes.
fn has_asides() -> bool {
    std::env::var_os(ASIDES_ENV).is_some()
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
            step.keep(&state, &Sent { count: sent, asides: 0 })
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

/// Keeps account of what the workers made of the numbers, and of the asides as long as there are any.
fn sink(agent: &mut Agent) -> Result<()> {
    let mut receiver = Receiver::new(agent, Account::of_sink)?;
    receiver.note(agent, "results", (SOURCES, 0), Stage::Worked)?;
    if has_asides() {
        receiver.note(agent, ASIDES, (SOURCES, SOURCES), Stage::Sent)?;
    }
    agent.serve()
}

/// Keeps account of the beats.
fn listener(agent: &mut Agent) -> Result<()> {
    Receiver::new(agent, || Account::new(1))?.note(agent, "beats", (1, 0), Stage::Sent)?;
    agent.serve()
}

/// Keeps account of what comes, of one message in a step.
struct Receiver {
    state: State<Account>,
    account: Rc<RefCell<Account>>,
    /// Before anything has come.
    blank: fn() -> Account,
}

impl Receiver {
    fn new(agent: &mut Agent, blank: fn() -> Account) -> Result<Receiver> {
        let state = agent.state::<Account>()?;
        let account = agent.load(&state)?.unwrap_or_else(blank);
        Ok(Receiver { state, account: Rc::new(account.into()), blank })
    }

    /// Notes what comes on a channel, of so many sources, which stand in the account from a place on.
    fn note(
        &mut self,
        agent: &mut Agent,
        channel: &str,
        (sources, place): (u32, u32),
        stage: Stage,
    ) -> Result<()> {
        let (state, account, blank) = (self.state, self.account.clone(), self.blank);
        agent.on::<Number>(channel, move |step, number: &ArchivedNumber| {
            let mut account = account.borrow_mut();
            if step.attempt() > 1 {
                // What was counted for a step that failed was not committed.
                *account = step.load(&state)?.unwrap_or_else(blank);
            }
            let message = number::read(stage, sources, number);
            account.note(message.map(|(source, sequence)| (place + source, sequence)));
            step.keep(&state, &*account)
        })
    }
}
