//! Prints the numbers that it is told.

use shoal_examples::Tick;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        agent.on::<Tick>("ticks", |_, tick| {
            println!("tick {}", tick.number);
            Ok(())
        })?;
        agent.serve()
    })
}
