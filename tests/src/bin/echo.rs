//! A sparse sender and its reader: `echo asker PAUSE_US | answerer`.
//!
//! The asker sends a number and waits for its answer before it sends the next, after a pause in which the reader falls
//! asleep or does not. It notes each answered number in the file `answered`.

use shoal_agent::{Agent, Next, Result};
use shoal_tests::agents::{Number, number, path, violation};
use shoal_tests::{Book, Chance, Entry};
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let args: Vec<String> = std::env::args().collect();
        match args.get(1).map(String::as_str) {
            Some("asker") => asker(agent, number(&args, 2)?),
            Some("answerer") => answerer(agent),
            _ => Err("asker or answerer?".into()),
        }
    })
}

fn asker(agent: &mut Agent, pause_us: u64) -> Result<()> {
    let asks = agent.publish::<Number>("asks")?;
    let answers = agent.subscribe::<Number>("answers")?;
    let mut book = Book::open(&path("answered"), 1)?;
    let mut chance = Chance::of(1);
    let mut value = agent.sent(&asks);
    while !agent.stopping() {
        agent.send(&asks, &Number { value })?;
        let Next::Message(answer) = agent.receive(&answers, None)? else { break };
        let answered = answer.message().value.to_native();
        if answered != value || book.enter(answered)? != Entry::New {
            return violation(format_args!("asked {value}, answered {answered}"));
        }
        answer.commit()?;
        value += 1;
        pass(chance.time(Duration::from_micros(pause_us)));
    }
    Ok(())
}

fn answerer(agent: &mut Agent) -> Result<()> {
    let answers = agent.publish::<Number>("answers")?;
    let mut chance = Chance::of(u64::from(agent.generation()));
    agent.on::<Number>("asks", move |step, ask| {
        // At work for a while, so that some deaths meet it there.
        if chance.below(2) == 0 {
            pass(chance.time(Duration::from_micros(300)));
        }
        step.send(&answers, &Number { value: ask.value.to_native() })
    })?;
    agent.serve()
}

/// Lets time pass: asleep when it is long, at work when it is short.
fn pass(time: Duration) {
    if time > Duration::from_micros(200) {
        return std::thread::sleep(time);
    }
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
