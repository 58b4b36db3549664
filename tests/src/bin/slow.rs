//! Agents that take their time over numbers: `slow WAY DEADLINE_MS`, where numbers 5 and 15 meet
//!
//! - `sleeps`, `loops`: for ever, in the first life that is given them;
//! - `stops`: stopped by a signal of its own;
//! - `ignores`: for ever, and SIGABRT does not end it;
//! - `busy`: eight deadlines long, and says so all the time;
//! - `yields`: until it is asked to pause, and says so all the time;
//! - `floods`: waiting eight deadlines for space on the full channel `flood`, once;
//! - `works`: nothing of the kind, but each number takes a twentieth of a deadline;
//! - `naps`: nobody, for it never receives, and is awake all the time.
//!
//! Each number that was handled is noted in the file `handled-NAME`, with the life that did it and the attempt that it was.

use shoal_agent::{Agent, Publisher, Result, Step};
use shoal_tests::agents::{Number, note, number, path};
use std::time::{Duration, Instant};

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let args: Vec<String> = std::env::args().collect();
        let way = args.get(1).map(String::as_str).unwrap_or_default();
        let long = Duration::from_millis(number(&args, 2)?) * 8;
        match way {
            "naps" => naps(agent),
            _ => serves(agent, way, long),
        }
    })
}

fn naps(agent: &mut Agent) -> Result<()> {
    let _flood = agent.subscribe::<Number>("flood")?;
    agent.ready()?;
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn serves(agent: &mut Agent, way: &str, long: Duration) -> Result<()> {
    let name = agent.name().to_owned();
    let generation = agent.generation();
    let way = way.to_owned();
    let flood = if way == "floods" { Some(agent.publish::<Number>("flood")?) } else { None };
    agent.on::<Number>("numbers", move |step, number| {
        let value = number.value.to_native();
        if way == "works" {
            work(long / 160);
        }
        let met = path(&format!("met-{name}-{value}"));
        if matches!(value, 5 | 15) && way != "works" && !met.exists() {
            std::fs::write(&met, "")?;
            match (way.as_str(), &flood) {
                ("sleeps", _) => for_ever(),
                ("loops", _) => spin(),
                ("ignores", _) => ignore()?,
                ("stops", _) => nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)?,
                ("busy", _) => busy(step, long),
                ("yields", _) => while !step.yield_now() {},
                (_, Some(flood)) => {
                    step.deadline(long);
                    return fill(step, flood, value);
                }
                _ => return Err(format!("{way:?}?").into()),
            }
        }
        if let Some(flood) = flood.as_ref().filter(|_| value < 5) {
            (0..12).try_for_each(|_| step.send(flood, &Number { value }))?;
        }
        note(&format!("handled-{name}"), format_args!("{value} {generation} {}", step.attempt()))?;
        Ok(())
    })?;
    agent.serve()
}

/// Sends until the lane has been full for as long as the step bears.
fn fill(step: &mut Step<'_>, flood: &Publisher<Number>, value: u64) -> Result<()> {
    loop {
        step.send(flood, &Number { value })?;
    }
}

fn for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Waits for ever, without an ear for who would have it end by itself.
fn ignore() -> Result<()> {
    let mut deaf = nix::sys::signal::SigSet::empty();
    deaf.add(nix::sys::signal::Signal::SIGABRT);
    deaf.thread_block()?;
    for_ever()
}

fn work(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn busy(step: &mut Step<'_>, long: Duration) {
    let end = Instant::now() + long;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        step.busy();
    }
}
