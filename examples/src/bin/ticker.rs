//! Sends the next number five times a second until it is asked to end. A restarted one goes on where its predecessor
//! was: at the number of messages ever sent.

use shoal_examples::Tick;
use std::time::Duration;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let ticks = agent.publish::<Tick>("ticks")?;
        while !agent.stopping() {
            let number = agent.sent(&ticks) + 1;
            agent.send(&ticks, &Tick { number })?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    })
}
