//! Adds up what the workers counted, and says the sum at the end. The loop form.
//!
//! The sum lives in this process: killed, it begins again with what is not acknowledged yet.

use shoal_agent::Next;
use shoal_examples::Count;

fn main() -> std::process::ExitCode {
    shoal_agent::run(|agent| {
        let counts = agent.subscribe::<Count>("counts")?;
        let (mut files, mut words) = (0u64, 0u64);
        while let Next::Message(count) = agent.receive(&counts, None)? {
            files += 1;
            words += count.message().words.to_native();
            count.commit()?;
        }
        println!("{words} words in {files} files");
        Ok(())
    })
}
