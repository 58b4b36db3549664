//! Sets against agents that die whenever they like: a model of a swarm in which every process is a state of `child.rs`.

use super::*;
use crate::child::{self, Action, Event, Next, State};
use crate::config;
use crate::restart::Intensity;
use crate::strategy::Strategy;
use crate::topology::Topology;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Chance;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A swarm without processes: what the event loop does, by the same tables.
struct World {
    supervision: Supervision,
    file: SwarmFile,
    /// For each process its agent.
    agents: Vec<usize>,
    names: Vec<String>,
    states: Vec<State>,
    records: Vec<Intensity>,
    /// For each process how often it was spawned.
    lives: Vec<u32>,
    /// When a process in back-off comes back.
    due: Vec<Option<Duration>>,
    now: Duration,
    /// What was ordered, in words.
    trace: Vec<String>,
    ended: Option<Vec<usize>>,
}

impl World {
    /// A swarm whose first start is over.
    fn of(text: &str) -> World {
        let file = config::parse(Path::new("t.toml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut topology = Topology::of(&file);
        // What is reserved for replicas to come lies behind, and is no part of the model.
        let count = topology.agents.iter().take_while(|instance| instance.active).count();
        topology.agents.truncate(count);
        let mut world = World {
            supervision: Supervision::of(&file, &topology, 1),
            agents: topology.agents.iter().map(|instance| instance.config).collect(),
            names: topology.agents.iter().map(|instance| instance.name.clone()).collect(),
            states: vec![State::Ready; count],
            records: topology
                .agents
                .iter()
                .map(|instance| Intensity::new(file.agents[instance.config].restart.clone(), 1))
                .collect(),
            lives: vec![1; count],
            due: vec![None; count],
            now: Duration::ZERO,
            trace: Vec::new(),
            ended: None,
            file,
        };
        world.records.iter_mut().for_each(|record| record.started(Duration::ZERO));
        world
    }

    fn process(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).expect(name)
    }

    fn feed(&mut self, process: usize, event: Event) {
        let policy = self.file.agents[self.agents[process]].restart.policy;
        let (state, action) = child::next(self.states[process], event, policy);
        self.states[process] = state;
        if state != State::Backoff {
            self.due[process] = None;
        }
        match action {
            Action::Spawn => {
                self.lives[process] += 1;
                self.records[process].started(self.now);
            }
            Action::SpawnAfter { counted } => self.died(process, counted),
            _ => {}
        }
    }

    fn died(&mut self, process: usize, counted: bool) {
        let decision = self.records[process].died(self.now, !counted);
        match self.supervision.died(process, decision, self.now) {
            Course::Now => self.feed(process, Event::BackoffOver),
            Course::After(pause) => self.due[process] = Some(self.now + pause),
            Course::Together(_) | Course::SetFails { .. } => self.feed(process, Event::SetAside),
            Course::Restarts { processes, .. } => {
                processes.into_iter().for_each(|process| self.records[process].forget());
                self.feed(process, Event::SetAside);
            }
            Course::Fails => self.feed(process, Event::GaveUp),
            Course::SwarmEnds { given_up } => {
                self.feed(process, Event::GaveUp);
                self.ended = Some(given_up);
            }
        }
    }

    /// Does what is ordered until there is nothing, and looks whether each order may be given.
    fn advance(&mut self) {
        loop {
            let orders = self.supervision.step(|process| self.states[process], self.now);
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::SetAside(process) => {
                        self.trace.push(format!("-{}", self.names[process]));
                        self.feed(process, Event::SetAside);
                    }
                    Order::Recall(process) => {
                        self.check_recall(process);
                        self.trace.push(format!("+{}", self.names[process]));
                        self.feed(process, Event::Recalled);
                    }
                    Order::GiveUp(process) => {
                        self.trace.push(format!("!{}", self.names[process]));
                        self.feed(process, Event::GaveUp);
                    }
                    Order::Begins(set) => {
                        self.trace.push(format!("*{}", self.supervision.sets.all()[set].name));
                    }
                }
            }
        }
    }

    fn top(&self, process: usize) -> Option<usize> {
        self.supervision.set_of(process).map(|set| self.supervision.sets.top(set))
    }

    /// Whoever comes back comes back to a set of which nothing falls any more, after all that stand before it and fell.
    fn check_recall(&self, process: usize) {
        let rank = |process: usize| self.supervision.sets.rank(self.agents[process]);
        for other in (0..self.states.len()).filter(|&other| self.top(other) == self.top(process)) {
            let state = self.states[other];
            assert!(!matches!(state, State::Stopping(Next::Aside)), "{} falls still", self.names[other]);
            let waits = state == State::Aside && rank(other) < rank(process);
            assert!(!waits, "{} comes back before {}", self.names[process], self.names[other]);
        }
    }

    /// Lets every process do what it was asked, and time pass, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            self.advance();
            let moved = (0..self.states.len()).any(|process| self.obey(process));
            if moved {
                continue;
            }
            let next = self.due.iter().flatten().copied();
            let Some(next) = next.chain(self.supervision.waits_until(self.now)).min() else { return };
            self.pass(next);
        }
        panic!("it never ends: {:?}", self.trace);
    }

    fn pass(&mut self, until: Duration) {
        self.now = self.now.max(until);
        for process in 0..self.states.len() {
            if self.due[process].is_some_and(|due| due <= self.now) {
                self.feed(process, Event::BackoffOver);
            }
        }
    }

    /// A process does what is expected of it; false when that is nothing.
    fn obey(&mut self, process: usize) -> bool {
        let event = match self.states[process] {
            State::Starting => Event::Ready,
            State::Stopping(next) => Event::Exited { normal: true, ordered: next == Next::Aside },
            State::Unproven(_) => Event::Exited { normal: false, ordered: false },
            State::Draining => Event::HistoryFreed,
            _ => return false,
        };
        self.feed(process, event);
        true
    }

    fn crash(&mut self, process: usize) {
        self.feed(process, Event::Exited { normal: false, ordered: false });
    }
}

fn swarm(agents: &str, sets: &str) -> String {
    let mut text = String::from("[swarm]\nname = \"s\"\n");
    for agent in agents.split_whitespace() {
        let (name, replicas) = agent.split_once('*').unwrap_or((agent, "1"));
        let restart = "restart = { intensity = 1000, backoff = \"1ms\" }";
        writeln!(text, "[agent.{name}]\ncommand = [\"x\"]\nreplicas = {replicas}\n{restart}")
            .expect("written");
    }
    text + sets
}

#[test]
fn those_after_the_dead_stop_last_first_and_all_start_first_first() {
    let set = "[set.s]\nmembers = [\"a\", \"b\", \"c\", \"d\"]\nstrategy = \"rest_for_one\"";
    // The order of the file is not that of the set.
    let mut world = World::of(&swarm("d c b a", set));
    world.crash(world.process("b"));
    world.settle();
    assert_eq!(world.trace, ["-d", "-c", "+b", "+c", "+d"]);
}

#[test]
fn nobody_starts_before_the_last_is_down_and_nobody_before_the_one_before_it_is_ready() {
    let set = "[set.s]\nmembers = [\"a\", \"b\", \"c\"]\nstrategy = \"one_for_all\"";
    let mut world = World::of(&swarm("a b*2 c", set));
    let [a, b1, b2, c] = ["a", "b.1", "b.2", "c"].map(|name| world.process(name));
    world.crash(b1);
    world.advance();
    assert_eq!(world.trace, ["-c"], "one after the other");
    world.obey(c);
    world.advance();
    assert_eq!(world.trace, ["-c", "-b.2"]);
    // The first dies by itself while the others are being stopped.
    world.crash(a);
    world.obey(b2);
    world.advance();
    assert_eq!(world.trace, ["-c", "-b.2", "+a"]);
    world.obey(a);
    world.advance();
    world.obey(b1);
    world.advance();
    assert_eq!(world.trace[3..], ["+b.1", "+b.2"], "all replicas at once, and c waits for both");
    world.settle();
    assert_eq!(world.trace[5..], ["+c"]);
    assert_eq!(world.lives, [2, 2, 2, 2]);
}

#[test]
fn a_member_that_dies_while_its_set_comes_back_takes_those_after_it_along_again() {
    let set = "[set.s]\nmembers = [\"a\", \"b\", \"c\"]\nstrategy = \"rest_for_one\"";
    let mut world = World::of(&swarm("a b c", set));
    let [a, b] = ["a", "b"].map(|name| world.process(name));
    world.crash(a);
    world.advance();
    while world.states[b] != State::Starting {
        assert!((0..3).any(|process| world.obey(process)), "{:?}", world.trace);
        world.advance();
    }
    world.crash(a);
    world.settle();
    assert_eq!(world.trace, ["-c", "-b", "+a", "+b", "-b", "+a", "+b", "+c"]);
}

#[test]
fn who_was_stopped_or_has_ended_stays_so_when_its_set_restarts() {
    let set = "[set.s]\nmembers = [\"a\", \"b\", \"c\"]\nstrategy = \"one_for_all\"";
    let mut world = World::of(&swarm("a b c", set));
    let [a, b, c] = ["a", "b", "c"].map(|name| world.process(name));
    world.feed(b, Event::StopAsked);
    world.crash(a);
    world.advance();
    // And one is stopped while it waits for its turn.
    world.obey(c);
    world.feed(c, Event::StopAsked);
    world.settle();
    assert_eq!(
        (world.states[a], world.states[b], world.states[c]),
        (State::Ready, State::Stopped, State::Stopped)
    );
}

#[test]
fn a_producer_that_waits_for_a_reader_that_comes_after_it_is_not_waited_for() {
    let set = "[set.s]\nmembers = [\"a\", \"b\"]\nstrategy = \"rest_for_one\"";
    let mut world = World::of(&swarm("a b", set));
    let [a, b] = ["a", "b"].map(|name| world.process(name));
    world.crash(a);
    world.advance();
    world.obey(b);
    world.advance();
    world.feed(a, Event::HistoryFull);
    world.advance();
    assert_eq!((world.states[a], world.states[b]), (State::Draining, State::Starting));
}

#[test]
fn a_set_that_waits_for_its_pause_is_not_hurried() {
    let set = "[set.s]\nmembers = [\"a\", \"b\"]\nstrategy = \"one_for_all\"";
    let mut world = World::of(&swarm("a b", set).replace("1ms", "500ms"));
    for _ in 0..3 {
        world.crash(world.process("a"));
        world.settle();
    }
    assert_eq!(world.lives, [4, 4]);
    let pause = world.now;
    assert!(
        pause >= Duration::from_millis(400) && pause <= Duration::from_millis(500),
        "the third: {pause:?}"
    );
}

#[test]
fn a_member_that_dies_while_its_set_falls_brings_its_own_pause_along() {
    let sets = "[set.inner]\nmembers = [\"m\"]\n[set.outer]\nmembers = [\"inner\", \"x\"]\nstrategy = \"one_for_all\"";
    let mut world = World::of(&swarm("m x", sets).replace("1ms", "500ms"));
    let [m, x] = ["m", "x"].map(|name| world.process(name));
    for _ in 0..2 {
        world.crash(m);
        world.settle();
    }
    world.crash(x);
    world.crash(m);
    world.settle();
    assert_eq!(world.lives, [4, 2]);
    assert!(world.now >= Duration::from_millis(400), "the third death of its own: {:?}", world.now);
}

/// Three sets around an agent that dies as soon as it is ready.
fn nested(inner: &str, outer: &str) -> World {
    let text = format!(
        "[swarm]\nname = \"s\"\n[agent.bad]\ncommand = [\"x\"]\nrestart = {{ intensity = 2 }}\n[agent.good]\ncommand = [\"x\"]\n\
         [agent.other]\ncommand = [\"x\"]\n[set.inner]\nmembers = [\"bad\"]\nintensity = 1\n{inner}\n\
         [set.outer]\nmembers = [\"inner\", \"good\"]\nintensity = 2\n{outer}"
    );
    World::of(&text)
}

/// Lets the bad agent die as soon as it is ready until it does not come back; returns how often it was started.
fn exhaust(world: &mut World) -> u32 {
    let bad = world.process("bad");
    while world.states[bad] == State::Ready && world.ended.is_none() {
        world.crash(bad);
        world.settle();
    }
    world.lives[bad]
}

#[test]
fn too_many_deaths_restart_the_set_then_the_set_around_it_then_end_the_swarm() {
    let mut world = nested("", "");
    let lives = exhaust(&mut world);
    // Borne are 2 deaths in a life of the inner set, 1 of its restarts in a life of the outer, 2 of its restarts.
    assert_eq!(lives, (2 + 1) * (1 + 1) * (2 + 1));
    assert_eq!(world.ended, Some(vec![0, 1]));
    assert_eq!(world.supervision.restarts, [3, 2]);
    let [good, other] = ["good", "other"].map(|name| world.process(name));
    assert_eq!((world.lives[good], world.lives[other]), (3, 1));
}

#[test]
fn a_set_that_says_fail_is_given_up_with_all_that_is_in_it_and_nothing_else() {
    let mut world = nested("", "on_give_up = \"fail\"");
    exhaust(&mut world);
    assert_eq!(world.ended, None);
    assert_eq!(world.supervision.given_up, [true, true]);
    let states = ["bad", "good", "other"].map(|name| world.states[world.process(name)]);
    assert_eq!(states, [State::Failed, State::Failed, State::Ready]);
    let mut world = nested("on_give_up = \"fail\"", "");
    exhaust(&mut world);
    assert_eq!(world.supervision.given_up, [true, false]);
    let states = ["bad", "good", "other"].map(|name| world.states[world.process(name)]);
    assert_eq!(states, [State::Failed, State::Ready, State::Ready]);
}

#[test]
fn without_a_set_an_agent_fails_alone_unless_it_says_otherwise() {
    let text = "[swarm]\nname = \"s\"\n[agent.bad]\ncommand = [\"x\"]\nrestart = { intensity = 0, on_give_up = \"WORD\" }\n";
    let mut world = World::of(&text.replace("WORD", "escalate"));
    exhaust(&mut world);
    assert_eq!(world.ended, Some(Vec::new()));
    for text in [text.replace("WORD", "fail"), text.replace(", on_give_up = \"WORD\"", "")] {
        let mut world = World::of(&text);
        exhaust(&mut world);
        assert_eq!((world.ended, world.states[0]), (None, State::Failed));
    }
}

#[test]
fn an_operators_start_gives_the_sets_a_clean_record() {
    let mut world = nested("on_give_up = \"fail\"", "");
    let before = exhaust(&mut world);
    let bad = world.process("bad");
    world.feed(bad, Event::StartAsked);
    world.records[bad].forget();
    world.supervision.forgive(bad, world.now);
    world.settle();
    assert_eq!(world.supervision.given_up, [false, false]);
    assert_eq!(exhaust(&mut world), before * 2);
}

#[test]
fn the_markdown_says_what_a_plan_does() {
    let text = table_markdown();
    println!("{text}");
    for (strategy, row) in Strategy::ALL.into_iter().zip(text.lines().skip(2)) {
        for (died, cell) in row.split('|').skip(2).take(5).enumerate() {
            let set = format!(
                "[set.s]\nmembers = [\"a\", \"b\", \"c\", \"d\", \"e\"]\nstrategy = \"{}\"",
                strategy.word()
            );
            let mut world = World::of(&swarm("a b c d e", &set));
            world.crash(died);
            world.settle();
            let mut trace = world.trace.join(" ");
            if trace.is_empty() {
                trace = format!("+{}", world.names[died]);
            }
            assert_eq!(cell.trim(), trace, "{}", strategy.word());
        }
    }
}

#[test]
fn ranks_are_the_longest_ways() {
    let after = [vec![], vec![0], vec![0, 1], vec![], vec![3, 2]];
    assert_eq!(ranks(5, |agent| &after[agent]), [0, 1, 2, 0, 3]);
}

/// A swarm of sets within sets, by chance: for each agent its replicas and its set, for each set its strategy and the set around
/// it, and an order of members.
fn any_swarm() -> impl Chance<Value = String> {
    let agents = proptest::collection::vec((1u32..3, 0usize..5), 1..7);
    let sets = proptest::collection::vec((0usize..3, 0usize..5), 4);
    (agents, sets, any::<u64>()).prop_map(|(agents, sets, order)| {
        let names: Vec<String> = (0..agents.len()).map(|agent| format!("a{agent}")).collect();
        let list = names.iter().zip(&agents).map(|(name, (replicas, _))| format!("{name}*{replicas}"));
        let mut members: Vec<Vec<String>> = vec![Vec::new(); sets.len()];
        for (name, (_, set)) in names.iter().zip(&agents) {
            members.get_mut(*set).into_iter().for_each(|members| members.push(name.clone()));
        }
        let mut text = swarm(&list.collect::<Vec<_>>().join(" "), "");
        // Inner sets have the higher numbers, so that there is no circle; an empty one is nobody's member.
        for set in (0..sets.len()).rev().filter(|&set| !members[set].is_empty()).collect::<Vec<_>>() {
            let (strategy, outer) = sets[set];
            if outer < set && !members[outer].is_empty() {
                members[outer].push(format!("s{set}"));
            }
            let mut here = members[set].clone();
            here.sort_by_key(|name| order.rotate_left(name.bytes().map(u32::from).sum()));
            let strategy = Strategy::ALL[strategy].word();
            writeln!(text, "[set.s{set}]\nmembers = {here:?}\nstrategy = \"{strategy}\"").expect("written");
        }
        text
    })
}

/// Who is started again when a process of a swarm dies in peace, told another way: by the words of the strategies.
fn expected(world: &World, died: usize) -> Vec<bool> {
    let sets = &world.supervision.sets;
    let own = world.agents[died];
    let restarted = |process: usize| {
        let Some(set) = sets.set_of(own) else { return process == died };
        let set = &sets.all()[set];
        let place = |agent: usize| {
            set.members.iter().position(|member| match *member {
                Member::Agent(known) => known == agent,
                Member::Set(inner) => sets.agents(inner).contains(&agent),
            })
        };
        let (here, there) = (place(own), place(world.agents[process]));
        process == died
            || match set.strategy {
                Strategy::OneForOne => false,
                Strategy::RestForOne => there > here,
                Strategy::OneForAll => there.is_some(),
            }
    };
    (0..world.states.len()).map(restarted).collect()
}

proptest! {
    #[test]
    fn a_death_restarts_exactly_who_falls_with_it(text in any_swarm(), died: prop::sample::Index) {
        let mut world = World::of(&text);
        let died = died.index(world.states.len());
        let expected = expected(&world, died);
        world.crash(died);
        world.settle();
        let restarted: Vec<bool> = world.lives.iter().map(|lives| *lives == 2).collect();
        prop_assert_eq!(restarted, expected, "{}", text);
        prop_assert!(world.lives.iter().all(|lives| *lives <= 2), "nobody twice: {:?}", world.lives);
        prop_assert!(world.states.iter().all(|state| *state == State::Ready), "{:?}", world.states);
    }

    #[test]
    fn sets_come_to_rest_in_order_whatever_happens_meanwhile(
        text in any_swarm(),
        happens in proptest::collection::vec((any::<prop::sample::Index>(), 0u32..12), 1..80),
    ) {
        let mut world = World::of(&text);
        let mut asked_down = vec![false; world.states.len()];
        for (process, what) in happens {
            let process = process.index(world.states.len());
            match what {
                0..3 if world.states[process].may_live() => world.crash(process),
                3 if world.states[process].may_live() => {
                    world.feed(process, Event::Exited { normal: false, ordered: true });
                }
                4 => {
                    world.feed(process, Event::StopAsked);
                    asked_down[process] = true;
                }
                5 => {
                    world.feed(process, Event::StartAsked);
                    asked_down[process] = false;
                }
                6 => {
                    world.feed(process, Event::RestartAsked);
                    asked_down[process] = false;
                }
                7 => world.feed(process, Event::ProofRefused),
                8 => world.feed(process, Event::HistoryFull),
                9 => world.pass(world.now + Duration::from_millis(1)),
                _ => { world.obey(process); }
            }
            world.advance();
        }
        world.settle();
        for (process, state) in world.states.iter().enumerate() {
            let down = asked_down[process];
            prop_assert_eq!(*state, if down { State::Stopped } else { State::Ready }, "{}", &world.names[process]);
        }
    }

    #[test]
    fn an_agent_that_never_lives_ends_its_sets_and_the_swarm_after_a_bounded_number_of_starts(
        intensities in (0u32..4, 0u32..4, 0u32..4),
        strategies in (0usize..3, 0usize..3),
    ) {
        let strategy = |number: usize| Strategy::ALL[number].word();
        let text = format!(
            "[swarm]\nname = \"s\"\n[agent.first]\ncommand = [\"x\"]\n[agent.bad]\ncommand = [\"x\"]\nrestart = {{ intensity = {} }}\n\
             [agent.good]\ncommand = [\"x\"]\n[set.inner]\nmembers = [\"bad\", \"good\"]\nintensity = {}\nstrategy = \"{}\"\n\
             [set.outer]\nmembers = [\"first\", \"inner\"]\nintensity = {}\nstrategy = \"{}\"",
            intensities.0, intensities.1, strategy(strategies.0), intensities.2, strategy(strategies.1)
        );
        let mut world = World::of(&text);
        let bound = (intensities.0 + 1) * (intensities.1 + 1) * (intensities.2 + 1);
        prop_assert_eq!(exhaust(&mut world), bound);
        prop_assert_eq!(world.ended, Some(vec![0, 1]));
        prop_assert!(world.lives.iter().all(|lives| *lives <= bound), "no storm: {:?}", world.lives);
    }
}
