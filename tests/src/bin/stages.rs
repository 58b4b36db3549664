//! Agents whose begin and end matter: `stages slow | fails | worker COUNT`.
//!
//! `slow` notes in the file `order` when it begins, when it is ready, which it says once the file `let-NAME` exists, and when it
//! ends, which it does when it is asked to and no file `stay-NAME` exists. `fails` does so once it is ready. `worker` reads `COUNT` numbers and ends; its first life fails in the middle.

use shoal_agent::{Agent, Next, Result};
use shoal_tests::agents::{Number, note, number, path};
use std::time::Duration;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let args: Vec<String> = std::env::args().collect();
        match args.get(1).map(String::as_str) {
            Some("slow") => slow(agent),
            Some("fails") => {
                agent.ready()?;
                Err("nothing to store in".into())
            }
            Some("worker") => worker(agent, number(&args, 2)?),
            _ => Err("slow, fails or worker?".into()),
        }
    })
}

fn slow(agent: &mut Agent) -> Result<()> {
    let name = agent.name().to_owned();
    let may = path(&format!("let-{name}"));
    note("order", format_args!("{name} begins"))?;
    while !may.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    note("order", format_args!("{name} is ready"))?;
    agent.ready()?;
    let stays = path(&format!("stay-{name}"));
    while !agent.stopping() || stays.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    note("order", format_args!("{name} ends"))?;
    Ok(())
}

fn worker(agent: &mut Agent, count: u64) -> Result<()> {
    let numbers = agent.subscribe::<Number>("numbers")?;
    let first = agent.generation() == 1;
    while let Next::Message(message) = agent.receive(&numbers, None)? {
        let value = message.message().value.to_native();
        if first && value == count / 2 {
            return Err("half is enough".into());
        }
        message.commit()?;
        if value + 1 == count {
            break;
        }
    }
    println!("{count} numbers were read");
    Ok(())
}
