//! Counts the words of the files that it is told of.

use shoal_examples::{Count, Task};

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let counts = agent.publish::<Count>("counts")?;
        agent.on::<Task>("tasks", move |step, task| {
            let text = std::fs::read(task.path.as_str())?;
            let words = text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).count() as u64;
            step.send(&counts, &Count { path: task.path.to_string(), words })
        })?;
        agent.serve()
    })
}
