//! Numbers in order, from a source over relays to a sink that checks each: `numbers source COUNT | tap | relay | sink WAYS`.
//!
//! A source begins where the lineage left off, and ends after COUNT numbers (0: when it is asked to). A tap sends up to
//! the number that the file `want` says, to `numbers` or to the channel that ON names. A relay sends on what it reads on `numbers` to `relayed`, or to the channel that ON
//! names; with a message in hand it waits while the file `hold-NAME` exists, and notes the message in `held`. The sink notes each number in the file `sink` before it acknowledges it, so that
//! its next life knows what is due. At its end each notes its name in `order`.

use shoal_agent::{Agent, Next, Result};
use shoal_tests::agents::{Number, note, number, path, violation};
use shoal_tests::{Book, Entry};
use std::time::Duration;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let args: Vec<String> = std::env::args().collect();
        match args.get(1).map(String::as_str) {
            Some("source") => source(agent, number(&args, 2)?)?,
            Some("tap") => tap(agent)?,
            Some("relay") => relay(agent)?,
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
    agent.serve()
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
