//! One who calls, many who answer, one who counts: `calls caller | answerer | counter COUNT`.

use shoal_agent::{Agent, Next, Result};
use shoal_tests::agents::{Number, number, violation};
use std::collections::BTreeSet;
use std::time::Duration;

/// An answer to a call.
#[shoal_agent::message]
struct Answer {
    from: String,
    call: u64,
}

/// What is called.
const CALL: u64 = 4711;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let args: Vec<String> = std::env::args().collect();
        match args.get(1).map(String::as_str) {
            Some("caller") => caller(agent),
            Some("answerer") => answerer(agent),
            Some("counter") => counter(agent, number(&args, 2)?),
            _ => Err("caller, answerer or counter?".into()),
        }
    })
}

/// Calls once, and stays.
fn caller(agent: &mut Agent) -> Result<()> {
    let calls = agent.publish::<Number>("calls")?;
    if agent.sent(&calls) == 0 {
        agent.send(&calls, &Number { value: CALL })?;
    }
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn answerer(agent: &mut Agent) -> Result<()> {
    let answers = agent.publish::<Answer>("answers")?;
    let from = agent.name().to_owned();
    agent.on::<Number>("calls", move |step, call| {
        step.send(&answers, &Answer { from: from.clone(), call: call.value.to_native() })
    })?;
    agent.serve()
}

/// Says when all answered; goes on counting until the end, because one too many would come later.
fn counter(agent: &mut Agent, count: u64) -> Result<()> {
    let answers = agent.subscribe::<Answer>("answers")?;
    let mut who = BTreeSet::new();
    let mut seen = 0;
    while let Next::Message(answer) = agent.receive(&answers, None)? {
        let from = answer.message().from.as_str().to_owned();
        if answer.message().call.to_native() != CALL || !who.insert(from.clone()) {
            return violation(format_args!("{from} answered twice, or another call"));
        }
        answer.commit()?;
        seen += 1;
        if seen == count {
            println!("all {count} answered");
        }
    }
    println!("counted {seen} answers of {} agents", who.len());
    Ok(())
}
