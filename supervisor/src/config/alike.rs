//! What many agents of a swarm say alike is held once: a thousand of one kind are not a thousand copies of the same words.

use super::{Agent, SwarmFile};
use std::sync::Arc;

/// So many agents before one are looked through for the same words.
const LOOKED_MAX: usize = 16;

/// The same words of one that is known, or these.
fn alike<'a, T: PartialEq + 'a>(mut known: impl Iterator<Item = &'a Arc<T>>, words: &Arc<T>) -> Arc<T> {
    known.find(|known| **known == *words).unwrap_or(words).clone()
}

/// Lets an agent share what one of those before it says alike.
pub(super) fn share(before: &[Agent], agent: &mut Agent) {
    let near = &before[before.len().saturating_sub(LOOKED_MAX)..];
    agent.confinement = alike(near.iter().map(|near| &near.confinement), &agent.confinement);
    agent.restart = alike(near.iter().map(|near| &near.restart), &agent.restart);
}

impl SwarmFile {
    /// Lets agents share what they say alike, as those of a file that was read do.
    pub fn share(&mut self) {
        for index in 0..self.agents.len() {
            let (before, rest) = self.agents.split_at_mut(index);
            share(before, &mut rest[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn agents_that_say_the_same_hold_it_once_also_when_it_was_written_down_for_a_successor() {
        let text = "[swarm]\nname = \"s\"\n\
            [agent.a]\ncommand = [\"x\"]\n\
            [agent.b]\ncommand = [\"y\"]\ntrust = \"isolated\"\nrestart = \"temporary\"\n\
            [agent.c]\ncommand = [\"z\"]\n";
        let file = parse(Path::new("t.toml"), text).unwrap_or_else(|error| panic!("{error}"));
        let json = serde_json::to_vec(&file).expect("written");
        let mut read: super::SwarmFile = serde_json::from_slice(&json).expect("read");
        read.share();
        for file in [file, read] {
            let [a, b, c] = &file.agents[..] else { panic!("three agents") };
            assert!(Arc::ptr_eq(&a.confinement, &c.confinement) && Arc::ptr_eq(&a.restart, &c.restart));
            assert!(a.confinement != b.confinement && a.restart != b.restart);
        }
    }
}
