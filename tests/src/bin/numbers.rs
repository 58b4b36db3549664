//! Numbers in order, from a source over relays to a sink that checks each: `numbers source COUNT | tap | relay | dozer | steps FORM | mourner [receive | descriptor] | sink WAYS`.
//!
//! A source begins where the lineage left off, and ends after COUNT numbers (0: when it is asked to). A tap sends up to
//! the number that the file `want` says, to `numbers` or to the channel that ON names. A relay sends on what it reads on `numbers` to `relayed`, or to the channel that ON
//! names; with a message in hand it waits while the file `hold-NAME` exists, and notes the message in `held`; while the file
//! `scribble-NAME` exists each of its lives writes over its own record and dies. Who relays in steps of up to 64 (`steps handler`, `steps loop`)
//! counts what it did in its state, and at its end notes in `largest` how many a step took at most. A dozer wakes every few seconds, sends a number, and sleeps. The sink notes each number in the file `sink` before it acknowledges it, so that
//! its next life knows what is due. A mourner notes who is gone. At its end each notes its name in `order`.
//!
//! With INIT in its environment it first makes something that is known by its address, and notes its process in `init`; each life then
//! notes in `lives` its name, its process, the process that made that, and where. INIT = thread: a thread goes on beside; INIT = lie: a zygote
//! says of itself that it was forked; INIT = silent: a zygote's first fork closes its socket without a word and goes on, and its second says its
//! word and waits; they are noted in `forks`.

use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid, setpgid};
use rustix::event::{PollFd, PollFlags, poll};
use shoal_agent::{Agent, Next, Result};
use shoal_runtime::bootstrap::take_control_socket;
use shoal_runtime::layout::desk;
use shoal_runtime::wire::{self, FromAgent, Received, ToAgent};
use shoal_runtime::zygote::ZYGOTE_ENV;
use shoal_tests::agents::{Number, note, number, path, violation};
use shoal_tests::attack::{OwnMap, fork, kill_self};
use shoal_tests::{Book, Entry};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// What a program makes before it is an agent.
struct Made {
    by: u32,
}

fn make(how: &str) -> Result<Box<Made>> {
    let made = Box::new(Made { by: std::process::id() });
    note("init", made.by)?;
    match how {
        "thread" => _ = std::thread::spawn(|| std::thread::sleep(Duration::MAX)),
        "silent" if std::env::var_os(ZYGOTE_ENV).is_some() => fall_silent()?,
        "lie" if std::env::var_os(ZYGOTE_ENV).is_some() => lie()?,
        _ => {}
    }
    Ok(made)
}

/// A zygote that says of itself that it was forked.
fn lie() -> Result<()> {
    let orders = take_control_socket()?;
    wire::say(&orders, &FromAgent::Forks, &[])?;
    let Received::Packet(ToAgent::Fork, given) = wire::hear(&orders, true)? else { return Ok(()) };
    wire::say(&given[0], &FromAgent::Forked, &[])?;
    loop {
        std::thread::park();
    }
}

/// A zygote whose first fork closes its socket without a word, and whose second says its word and is never more than that.
fn fall_silent() -> Result<()> {
    let orders = take_control_socket()?;
    // Its orphans are the keeper's children, as a zygote's forks are.
    rustix::process::set_child_subreaper(None)?;
    wire::say(&orders, &FromAgent::Forks, &[])?;
    let mut silent = true;
    while let Received::Packet(ToAgent::Fork, given) = wire::hear(&orders, true)? {
        let Some(between) = fork()? else {
            let between = getpid();
            if fork()?.is_some() {
                kill_self();
            }
            while getppid() == between {
                std::thread::yield_now();
            }
            note("forks", getpid())?;
            // A fork that has said its word and closes its socket is ended, too.
            if silent {
                drop(given);
            } else {
                setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                wire::say(&given[0], &FromAgent::Forked, &[])?;
            }
            loop {
                std::thread::park();
            }
        };
        waitpid(Pid::from_raw(between), None)?;
        silent = false;
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    let made = std::env::var("INIT").ok().map(|how| make(&how)).transpose();
    shoal_agent::run(|agent| {
        if let Some(made) = made? {
            note("lives", format_args!("{} {} {} {made:p}", agent.name(), std::process::id(), made.by))?;
        }
        let args: Vec<String> = std::env::args().collect();
        match args.get(1).map(String::as_str) {
            Some("source") => source(agent, number(&args, 2)?)?,
            Some("tap") => tap(agent)?,
            Some("relay") => relay(agent)?,
            Some("dozer") => dozer(agent)?,
            Some("steps") if args.get(2).is_some_and(|form| form == "handler") => steps(agent)?,
            Some("steps") => steps_in_a_loop(agent)?,
            Some("mourner") => match args.get(2).map(String::as_str) {
                None => mourner(agent)?,
                Some(way) => mourning_loop(agent, way == "descriptor")?,
            },
            Some("sink") => sink(agent, number(&args, 2)?)?,
            _ => return Err("source, tap, relay or sink?".into()),
        }
        note("order", agent.name())?;
        Ok(())
    })
}

fn source(agent: &mut Agent, count: u64) -> Result<()> {
    let numbers = agent.publish::<Number>("numbers")?;
    let mut value = agent.sent(&numbers);
    while (count == 0 || value < count) && !agent.stopping() {
        agent.send(&numbers, &Number { value })?;
        value += 1;
    }
    println!("sent {value}");
    Ok(())
}

fn tap(agent: &mut Agent) -> Result<()> {
    let on = std::env::var("ON").unwrap_or_else(|_| "numbers".to_owned());
    let numbers = agent.publish::<Number>(&on)?;
    agent.ready()?;
    while !agent.stopping() {
        let wanted = std::fs::read_to_string(path("want")).unwrap_or_default();
        let wanted: u64 = wanted.trim().parse().unwrap_or(0);
        for value in agent.sent(&numbers)..wanted {
            agent.send(&numbers, &Number { value })?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn relay(agent: &mut Agent) -> Result<()> {
    let on = std::env::var("ON").unwrap_or_else(|_| "relayed".to_owned());
    let on = agent.publish::<Number>(&on)?;
    let name = agent.name().to_owned();
    let hold = path(&format!("hold-{name}"));
    agent.on::<Number>("numbers", move |step, number| {
        let value = number.value.to_native();
        if hold.exists() {
            note("held", format_args!("{name} {value} {}", step.attempt()))?;
        }
        while hold.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        step.send(&on, &Number { value })
    })?;
    if path(&format!("scribble-{}", agent.name())).exists() {
        OwnMap::find().ok_or("no segment of its own")?.store(desk::COMMIT, u64::MAX);
        kill_self();
    }
    agent.serve()
}

/// How long a dozer sleeps: longer than the supervisor watches by day when nobody does anything.
const DOZE: Duration = Duration::from_secs(4);

/// Sends a number after each time in which it was sent none.
fn dozer(agent: &mut Agent) -> Result<()> {
    let numbers = agent.publish::<Number>("numbers")?;
    let relayed = agent.subscribe::<Number>("relayed")?;
    loop {
        match agent.receive(&relayed, Some(DOZE))? {
            Next::Message(number) => {
                number.commit()?;
                continue;
            }
            Next::Closed | Next::Stopping => return Ok(()),
            Next::TimedOut => {}
        }
        let value = agent.sent(&numbers);
        agent.send(&numbers, &Number { value })?;
    }
}

/// What a relay of steps did: its state.
#[shoal_agent::message]
#[derive(Default)]
pub struct Done {
    /// How many numbers it sent on.
    count: u64,
    /// How many a step took at most, in the loop form.
    largest: u64,
}

impl Done {
    fn relay(&mut self, value: u64) -> Result<Number> {
        if value != self.count {
            return violation(format_args!("the relay met {value} where {} was due", self.count));
        }
        self.count += 1;
        Ok(Number { value })
    }
}

/// How many numbers a step takes at most.
const STEP_MAX: u32 = 64;

fn steps(agent: &mut Agent) -> Result<()> {
    let on = agent.publish::<Number>("relayed")?;
    let state = agent.state::<Done>()?;
    agent.batch(STEP_MAX);
    agent.on::<Number>("numbers", move |step, number| {
        let mut done = step.load(&state)?.unwrap_or_default();
        step.send(&on, &done.relay(number.value.to_native())?)?;
        step.keep(&state, &done)
    })?;
    agent.serve()
}

fn steps_in_a_loop(agent: &mut Agent) -> Result<()> {
    let on = agent.publish::<Number>("relayed")?;
    let numbers = agent.subscribe::<Number>("numbers")?;
    let state = agent.state::<Done>()?;
    let mut done = agent.load(&state)?.unwrap_or_default();
    while let Next::Message(mut message) = agent.receive(&numbers, None)? {
        let first = done.count;
        loop {
            message.send(&on, &done.relay(message.message().value.to_native())?)?;
            if !message.advance(STEP_MAX) {
                break;
            }
        }
        done.largest = done.largest.max(done.count - first);
        message.keep(&state, &done)?;
        message.commit()?;
    }
    Ok(note("largest", done.largest)?)
}

/// Counts what it reads, and notes who is gone, and how much it had read by then, in `gone-NAME`.
fn mourner(agent: &mut Agent) -> Result<()> {
    let name = agent.name().to_owned();
    let read = Rc::new(Cell::new(0_u64));
    let count = read.clone();
    agent.on::<Number>("relayed", move |_, _| {
        count.set(count.get() + 1);
        Ok(())
    })?;
    agent.on_gone(move |peer| Ok(note(&format!("gone-{name}"), format_args!("{peer} {}", read.get()))?));
    agent.serve()
}

/// The same in the loop form, waiting in a receive or for the descriptor.
fn mourning_loop(agent: &mut Agent, by_descriptor: bool) -> Result<()> {
    let numbers = agent.subscribe::<Number>("relayed")?;
    let (peers, name, mut read) = (agent.peers(), agent.name().to_owned(), 0_u64);
    loop {
        match if by_descriptor { agent.try_receive(&numbers)? } else { agent.receive(&numbers, None)? } {
            Next::Message(number) => {
                number.commit()?;
                read += 1;
                continue;
            }
            Next::Closed | Next::Stopping => return Ok(()),
            Next::TimedOut => {}
        }
        if by_descriptor && agent.arm(&numbers)? {
            poll(&mut [PollFd::new(&*agent, PollFlags::IN)], None)?;
            continue;
        }
        // That it is not to sleep now has told it enough.
        while let Some(peer) = agent.gone(&peers)? {
            note(&format!("gone-{name}"), format_args!("{peer} {read}"))?;
        }
    }
}

fn sink(agent: &mut Agent, ways: u64) -> Result<()> {
    let channel = std::env::var("CHANNEL").unwrap_or_else(|_| "relayed".to_owned());
    let numbers = agent.subscribe::<Number>(&channel)?;
    let mut book = Book::open(&path(agent.name()), ways)?;
    while let Next::Message(message) = agent.receive(&numbers, None)? {
        let value = message.message().value.to_native();
        if let Entry::Wrong(due) = book.enter(value)? {
            return violation(format_args!("the sink met {value} where {due} was due"));
        }
        message.commit()?;
    }
    println!("sink ends");
    Ok(())
}
