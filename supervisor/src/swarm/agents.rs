//! UNSAFE. The agents of a swarm, each at its place.
//!
//! A supervisor that takes over has to know at once what of a thousand agents calls for something, and that nothing else is lost; all else that the journal holds of
//! them it needs when it is asked for them. So those that call for nothing are put off: they are restored when somebody first looks at them, whoever that
//! is, and by and by. Nobody sees one that is not.
#![allow(unsafe_code)]

use crate::agent::Agent;
use std::cell::{Cell, UnsafeCell};
use std::ops::{Index, IndexMut};

/// Makes an agent, at its place, what it was when its supervisor died.
pub(super) type Restore = Box<dyn Fn(usize, &mut Agent)>;

/// The agents, in the order of the topology.
pub struct Agents {
    all: Vec<UnsafeCell<Agent>>,
    put_off: Option<PutOff>,
}

struct PutOff {
    /// Whether it is, of each.
    is: Vec<Cell<bool>>,
    left: Cell<usize>,
    restore: Restore,
}

impl PutOff {
    /// Whether an agent is to be restored now: it is asked for.
    fn is_due(&self, agent: usize) -> bool {
        self.left.get() > 0 && self.is.get(agent).is_some_and(Cell::get)
    }

    fn is_done(&self, agent: usize) {
        self.is[agent].set(false);
        self.left.set(self.left.get() - 1);
    }
}

impl Agents {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// That at a place.
    pub fn get(&self, agent: usize) -> Option<&Agent> {
        let place = self.all.get(agent)?;
        if let Some(put_off) = self.put_off.as_ref().filter(|put_off| put_off.is_due(agent)) {
            // SAFETY: as long as one is put off no reference to it is out: each comes from here or from what asks for `&mut self`, and both restore it
            // first. What restores it has no way to the agents but this one reference, and this type is for one thread (no `Sync`).
            (put_off.restore)(agent, unsafe { &mut *place.get() });
            put_off.is_done(agent);
        }
        // SAFETY: it is not put off, and is changed only by who has `&mut self`.
        Some(unsafe { &*place.get() })
    }

    /// That at a place, to be changed.
    pub fn get_mut(&mut self, agent: usize) -> Option<&mut Agent> {
        self.get(agent);
        self.all.get_mut(agent).map(UnsafeCell::get_mut)
    }

    /// All of them, each restored when it is its turn.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Agent> + ExactSizeIterator {
        (0..self.len()).map(|agent| &self[agent])
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Agent> {
        for agent in 0..self.len() {
            self.get(agent);
        }
        self.all.iter_mut().map(UnsafeCell::get_mut)
    }

    /// One more.
    pub(super) fn push(&mut self, agent: Agent) {
        self.all.push(agent.into());
    }

    /// These are restored when somebody asks for them.
    pub(super) fn put_off(&mut self, agents: &[usize], restore: Restore) {
        let mut is = vec![Cell::new(false); self.len()];
        agents.iter().for_each(|&agent| is[agent] = Cell::new(true));
        self.put_off = Some(PutOff { is, left: agents.len().into(), restore });
    }

    /// Nobody is put off any more: lets go of what restored them, which holds a journal that the swarm may leave behind.
    pub(super) fn forget_put_off(&mut self) {
        self.put_off.take_if(|put_off| put_off.left.get() == 0);
    }

    /// Whether somebody is put off.
    pub fn any_put_off(&self) -> bool {
        self.put_off.as_ref().is_some_and(|put_off| put_off.left.get() > 0)
    }
}

impl Index<usize> for Agents {
    type Output = Agent;

    fn index(&self, agent: usize) -> &Agent {
        self.get(agent).unwrap_or_else(|| no_such(agent))
    }
}

impl IndexMut<usize> for Agents {
    fn index_mut(&mut self, agent: usize) -> &mut Agent {
        self.get_mut(agent).unwrap_or_else(|| no_such(agent))
    }
}

#[track_caller]
fn no_such<T>(agent: usize) -> T {
    panic!("there is no agent {agent}")
}

impl FromIterator<Agent> for Agents {
    fn from_iter<I: IntoIterator<Item = Agent>>(agents: I) -> Agents {
        Agents { all: agents.into_iter().map(UnsafeCell::new).collect(), put_off: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Capture, Echo};
    use crate::restart::{Intensity, Restart};
    use crate::swarm::new_agent;
    use shoal_runtime::board::{Verdict, VerdictKind};
    use shoal_runtime::layout::SegmentShape;
    use std::path::Path;
    use std::rc::Rc;

    /// Three agents of which the last two are put off; those that were restored, in this order. Whoever is restored has a restart more.
    fn agents() -> (Agents, Rc<Cell<Vec<usize>>>) {
        let agent = |name: &str| {
            let shape = SegmentShape { lanes: Vec::new(), input_count: 0, state_bytes: 0 };
            let last = Verdict {
                generation: 0,
                kind: VerdictKind::Committed,
                lanes: Vec::new(),
                inputs: Vec::new(),
            };
            let intensity = Intensity::new(Restart::default(), 1);
            new_agent(name, shape, intensity, last, Capture::new(name, Path::new("/"), Echo::default()))
        };
        let mut agents: Agents = ["a", "b", "c"].map(agent).into_iter().collect();
        let restored = Rc::new(Cell::new(Vec::new()));
        let seen = restored.clone();
        let restore = move |place: usize, agent: &mut Agent| {
            agent.restarts += 1;
            seen.set([seen.take(), vec![place]].concat());
        };
        agents.put_off(&[1, 2], Box::new(restore));
        (agents, restored)
    }

    #[test]
    fn who_is_put_off_is_restored_once_however_it_is_asked_for_first() {
        type Look = fn(&mut Agents) -> u64;
        let looks: [Look; 6] = [
            |agents| agents[2].restarts,
            |agents| agents.get(2).map_or(0, |agent| agent.restarts),
            |agents| agents.get_mut(2).map_or(0, |agent| agent.restarts),
            |agents| {
                let agent = &mut agents[2];
                agent.restarts
            },
            |agents| agents.iter().next_back().map_or(0, |agent| agent.restarts),
            |agents| agents.iter_mut().last().map_or(0, |agent| agent.restarts),
        ];
        for (number, look) in looks.into_iter().enumerate() {
            let (mut agents, restored) = agents();
            assert!(agents.any_put_off());
            assert_eq!((look(&mut agents), look(&mut agents)), (1, 1), "look {number}");
            let all: Vec<u64> = agents.iter().map(|agent| agent.restarts).collect();
            assert_eq!(all, [0, 1, 1], "look {number}: the first was not put off");
            assert!(!agents.any_put_off());
            let mut in_turn = restored.take();
            in_turn.sort_unstable();
            assert_eq!(in_turn, [1, 2], "look {number}: each once");
        }
    }

    #[test]
    fn nobody_is_restored_for_another() {
        let (mut agents, restored) = agents();
        let before = agents[0].restarts + agents.get(1).map_or(0, |agent| agent.restarts);
        assert_eq!((before, agents.len(), agents.get(3).is_none()), (1, 3, true));
        assert_eq!(agents.iter().take(2).count(), 2);
        assert_eq!((restored.take(), agents.any_put_off()), (vec![1], true));
        agents.forget_put_off();
        let last = agents.iter_mut().last();
        assert_eq!(last.map(|agent| agent.restarts), Some(1), "it was still put off");
        assert_eq!(Rc::strong_count(&restored), 2);
        agents.forget_put_off();
        assert_eq!(Rc::strong_count(&restored), 1, "what restores them is kept for nobody");
    }
}
