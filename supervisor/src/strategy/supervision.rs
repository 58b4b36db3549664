//! What comes of a death in a swarm that has sets: who falls along, and to whom too many deaths are told. Pure.

use super::{Order, Plan, Sets};
use crate::child::State;
use crate::config::{Set, SwarmFile};
use crate::restart::{Decision, Intensity, OnGiveUp, Streak};
use crate::topology::Topology;
use std::time::Duration;

/// What comes of the death of a process whose policy wants it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// It falls alone, and comes back at once.
    Now,
    /// It falls alone, and comes back after this pause.
    After(Duration),
    /// Others fall with it: these agents of the file, none if it was to fall already. It is to be set aside.
    Together(Vec<usize>),
    /// It is given up; the rest goes on.
    Fails,
    /// It was given up, and this set restarts as a whole. It is to be set aside; all processes of the set have a clean record.
    Restarts {
        /// The set.
        set: usize,
        /// The sets within it that were given up before, innermost first.
        given_up: Vec<usize>,
        /// The processes of the set.
        processes: Vec<usize>,
    },
    /// It was given up, and this set with all that is in it. It is to be set aside.
    SetFails {
        /// The set.
        set: usize,
        /// The sets that were given up, innermost first; the last is the set.
        given_up: Vec<usize>,
    },
    /// It was given up, and every set around it, if there is one: the swarm ends.
    SwarmEnds {
        /// The sets that were given up, innermost first.
        given_up: Vec<usize>,
    },
}

/// The sets of a swarm, and what they are doing. Plain numbers beside the file's own words; times since the swarm's start.
#[derive(Clone, Debug)]
pub struct Supervision {
    /// Who is in which set.
    pub sets: Sets,
    /// For each set how often it was restarted as a whole.
    pub restarts: Vec<u64>,
    /// For each set whether it was given up.
    pub given_up: Vec<bool>,
    /// For each set how often that was too much.
    records: Vec<Intensity>,
    /// For each outermost set the restart that is under way; for others nothing ever is.
    plans: Vec<Plan>,
    /// For each process its agent of the file.
    agents: Vec<usize>,
}

/// What the sets are doing, to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Standing {
    /// For each set how often it was restarted as a whole.
    restarts: Vec<u64>,
    /// For each set whether it was given up.
    given_up: Vec<bool>,
    /// For each set how often that was too much.
    records: Vec<Streak>,
    /// For each outermost set the restart that is under way.
    plans: Vec<Plan>,
}

impl Supervision {
    /// What a supervisor's successor must know of them.
    pub fn standing(&self) -> Standing {
        Standing {
            restarts: self.restarts.clone(),
            given_up: self.given_up.clone(),
            records: self.records.iter().map(Intensity::streak).collect(),
            plans: self.plans.clone(),
        }
    }

    /// Goes on from what a predecessor knew; nothing that is not of these sets.
    pub fn restore(&mut self, standing: Standing) {
        let Standing { restarts, given_up, records, plans } = standing;
        let count = self.sets.all().len();
        if [restarts.len(), given_up.len(), records.len(), plans.len()] != [count; 4] {
            return;
        }
        (self.restarts, self.given_up, self.plans) = (restarts, given_up, plans);
        self.records.iter_mut().zip(records).for_each(|(record, streak)| record.restore(streak));
    }

    /// Whether a process is of a set of which the restart is under way.
    pub fn concerns(&self, process: usize) -> bool {
        self.set_of(process).is_some_and(|set| self.is_restarting(set))
    }

    /// The sets of a swarm that has not begun; the seed is that of their pauses.
    pub fn of(file: &SwarmFile, topology: &Topology, seed: u64) -> Supervision {
        let sets = Sets::of(file);
        let count = sets.all().len();
        let record = |(index, set): (usize, &Set)| {
            let mut record = Intensity::new(set.restart.clone(), seed ^ (1 << 32 | index as u64));
            record.started(Duration::ZERO);
            record
        };
        Supervision {
            restarts: vec![0; count],
            given_up: vec![false; count],
            records: sets.all().iter().enumerate().map(record).collect(),
            plans: vec![Plan::default(); count],
            agents: topology.agents.iter().map(|instance| instance.config).collect(),
            sets,
        }
    }

    /// Takes over a changed file while nothing is under way. Sets that change at all begin with a clean record, all of them.
    pub fn follow(&mut self, file: &SwarmFile, topology: &Topology, seed: u64) {
        let next = Supervision::of(file, topology, seed);
        if next.sets.all() == self.sets.all() {
            (self.sets, self.agents) = (next.sets, next.agents);
        } else {
            *self = next;
        }
    }

    /// Whether the restart of a set, or of a part of it, or of a set around it, is under way.
    pub fn is_restarting(&self, set: usize) -> bool {
        !self.plans[self.sets.top(set)].is_over()
    }

    /// The set that a process is a member of.
    pub fn set_of(&self, process: usize) -> Option<usize> {
        self.sets.set_of(*self.agents.get(process)?)
    }

    /// All processes of these agents of the file.
    fn processes(&self, agents: &[usize]) -> Vec<usize> {
        let of = |&(_, agent): &(usize, &usize)| agents.contains(agent);
        self.agents.iter().enumerate().filter(of).map(|(process, _)| process).collect()
    }

    /// A process died, and its own record decides this. Its agent's policy wants it back.
    pub fn died(&mut self, process: usize, decision: Decision, now: Duration) -> Course {
        let (alone, pause) = match decision {
            Decision::Now => (Course::Now, Duration::ZERO),
            Decision::After(pause) => (Course::After(pause), pause),
            Decision::GiveUp => return self.gave_up(process, now),
        };
        let Some(set) = self.set_of(process) else { return alone };
        let along = self.sets.fall_with(self.agents[process]);
        let top = self.sets.top(set);
        if along.is_empty() && !self.plans[top].is_falling(process) {
            return alone;
        }
        let processes = self.processes(&along).into_iter().chain([process]);
        self.plans[top].add(processes, now + pause);
        Course::Together(along)
    }

    fn gave_up(&mut self, process: usize, now: Duration) -> Course {
        if self.sets.on_give_up(self.agents[process]) == OnGiveUp::Fail {
            return Course::Fails;
        }
        let mut given_up = Vec::new();
        let mut above = self.set_of(process);
        while let Some(set) = above {
            match self.records[set].died(now, false) {
                Decision::Now => return self.restart(set, given_up, now),
                Decision::After(pause) => return self.restart(set, given_up, now + pause),
                Decision::GiveUp => given_up.push(set),
            }
            if self.sets.all()[set].restart.on_give_up == Some(OnGiveUp::Fail) {
                return self.fail(set, given_up);
            }
            above = self.sets.parent(set);
        }
        Course::SwarmEnds { given_up }
    }

    /// Another life of a whole set, with a clean record for all that is in it.
    fn restart(&mut self, set: usize, given_up: Vec<usize>, not_before: Duration) -> Course {
        self.restarts[set] += 1;
        let top = self.sets.top(set);
        for inner in self.sets.within(set) {
            self.plans[top].add_begin(inner);
            if inner != set {
                self.records[inner].forget();
            }
        }
        let processes = self.processes(&self.sets.agents(set));
        self.plans[top].add(processes.iter().copied(), not_before);
        Course::Restarts { set, given_up, processes }
    }

    /// The end of a whole set.
    fn fail(&mut self, set: usize, given_up: Vec<usize>) -> Course {
        for inner in self.sets.within(set) {
            self.given_up[inner] = true;
        }
        let (top, processes) = (self.sets.top(set), self.processes(&self.sets.agents(set)));
        self.plans[top].add_lost(processes);
        Course::SetFails { set, given_up }
    }

    /// What is to be done next for the sets; nothing if they wait. To be called until there is nothing, and after whatever has
    /// happened.
    pub fn step(&mut self, state: impl Fn(usize) -> State, now: Duration) -> Vec<Order> {
        let rank = |process: usize| self.sets.rank(self.agents[process]);
        for plan in self.plans.iter_mut().filter(|plan| !plan.is_over()) {
            let orders = plan.step(rank, &state, now);
            for order in &orders {
                if let Order::Begins(set) = order {
                    self.records[*set].started(now);
                }
            }
            if !orders.is_empty() {
                return orders;
            }
        }
        Vec::new()
    }

    /// When the next set goes on that waits for a time and for nothing else.
    pub fn waits_until(&self, now: Duration) -> Option<Duration> {
        self.plans.iter().filter_map(|plan| plan.waits_until(now)).min()
    }

    /// Nobody falls any more, and nobody is brought back: the swarm ends.
    pub fn cancel(&mut self) {
        self.plans.iter_mut().for_each(Plan::cancel);
    }

    /// An operator starts a process: the sets around it have a clean record, too.
    pub fn forgive(&mut self, process: usize, now: Duration) {
        let mut above = self.set_of(process);
        while let Some(set) = above {
            self.records[set].forget();
            self.records[set].started(now);
            self.given_up[set] = false;
            above = self.sets.parent(set);
        }
    }
}
