//! The scenarios by name, and their swarm files. Pure.

use std::fmt::Write;
use std::time::Duration;

/// Sources that an account has room for.
pub const SOURCES_MAX: u32 = 1000;
/// Agents that are neither members nor tellers: who asks and who listens.
const ACCOUNTANTS: u32 = 2;
/// Members that share the calls of one channel. Each message wakes all of them who sleep, so a group is kept small.
const TEAM_MEMBERS: u32 = 25;
/// Calls for each member of those that are started and then idle.
const START_CALLS: u64 = 20;
/// Bytes of a frame beside the body, at most.
const FRAME_BYTES: u64 = 128;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Agents are started at once; each tells its first word, they share calls, and then they idle.
    Start {
        /// All, with the two who ask and listen.
        agents: u32,
        /// For how long they idle.
        idle: Duration,
    },
    /// A call to everybody, and everybody's answer, one round after the other.
    Broadcast {
        /// Who hear it.
        listeners: u32,
        /// Calls.
        rounds: u64,
    },
    /// Members tell notes and share tasks.
    Team {
        /// All, with the two who ask and listen.
        agents: u32,
        /// Notes of all members together.
        messages: u64,
        /// Calls.
        tasks: u64,
    },
    /// Producers tell as fast as they can.
    Producers {
        /// How many.
        producers: u32,
        /// Bytes of each note's body.
        bytes: u64,
        /// For how long.
        time: Duration,
    },
    /// Again and again more at once than the lane holds.
    Overload {
        /// How often.
        times: u64,
        /// Notes each time.
        messages: u64,
        /// Bytes of each.
        bytes: u64,
    },
    /// A member is killed as soon as it works, and its next life again.
    SpawnAndKill {
        /// How often.
        cycles: u64,
    },
    /// Members answer calls for a time, while one of them is killed every so often.
    Coordinators {
        /// How many.
        coordinators: u32,
        /// For how long.
        time: Duration,
        /// From kill to kill.
        kill_every: Duration,
    },
    /// Pairs: first as fast as they can, then at half of that.
    HalfLoad {
        /// How many.
        pairs: u32,
        /// How long each half.
        time: Duration,
    },
}

/// A scenario that can be asked for: its name, what it is, and how it is done in full and `--quick`.
pub struct Named {
    /// As it is asked for.
    pub name: &'static str,
    /// In a line.
    pub what: &'static str,
    full: Job,
    quick: Job,
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn started(agents: u32) -> [Job; 2] {
    [Job::Start { agents, idle: s(10) }, Job::Start { agents, idle: s(2) }]
}

const fn named(name: &'static str, what: &'static str, [full, quick]: [Job; 2]) -> Named {
    Named { name, what, full, quick }
}

const fn team(agents: u32, messages: u64, tasks: u64) -> [Job; 2] {
    [Job::Team { agents, messages, tasks }; 2]
}

const fn broadcast(rounds: u64) -> Job {
    Job::Broadcast { listeners: 100, rounds }
}

const fn producers(seconds: u64) -> Job {
    Job::Producers { producers: 8, bytes: 512, time: s(seconds) }
}

const fn coordinators(seconds: u64) -> Job {
    Job::Coordinators { coordinators: 10, time: s(seconds), kill_every: s(1) }
}

const OVERLOAD: [Job; 2] = [Job::Overload { times: 10, messages: 1000, bytes: 8192 }; 2];
const SPAWN_AND_KILL: [Job; 2] = [Job::SpawnAndKill { cycles: 1000 }, Job::SpawnAndKill { cycles: 100 }];
const HALF_LOAD: [Job; 2] =
    [Job::HalfLoad { pairs: 50, time: s(5) }, Job::HalfLoad { pairs: 50, time: s(2) }];

/// All of them.
pub const ALL: [Named; 14] = [
    named("start-10", "10 agents started at once, then idle", started(10)),
    named("start-100", "100 agents started at once, then idle", started(100)),
    named("start-500", "500 agents started at once, then idle", started(500)),
    named("start-1000", "1,000 agents started at once, then idle", started(1000)),
    named("broadcast", "calls to 100 agents at once, and their 100 answers", [broadcast(100), broadcast(20)]),
    named("team-100", "100 agents, 500 messages, 200 tasks", team(100, 500, 200)),
    named("team-1000", "1,000 agents, 5,000 messages, 2,000 tasks", team(1000, 5000, 2000)),
    named("messages-50000", "500 agents, 50,000 messages, 1,000 tasks", team(500, 50_000, 1000)),
    named("tasks-25000", "1,000 agents, 2,000 messages, 25,000 tasks", team(1000, 2000, 25_000)),
    named("producers", "8 producers of 512 B for 5 s into one", [producers(5), producers(1)]),
    named("overload", "10 overloads of 1,000 messages of 8 KiB", OVERLOAD),
    named("spawn-kill", "1,000 spawn-and-kill cycles, with flat memory and descriptors", SPAWN_AND_KILL),
    named(
        "coordinators",
        "10 coordinators, of which one is killed every second",
        [coordinators(20), coordinators(5)],
    ),
    named("half-load", "100 agents in pairs at half of what they can", HALF_LOAD),
];

impl Named {
    /// The one of this name.
    pub fn of(name: &str) -> Option<&'static Named> {
        ALL.iter().find(|named| named.name == name)
    }

    /// What is done.
    pub fn job(&self, quick: bool) -> Job {
        if quick { self.quick } else { self.full }
    }
}

/// Who keeps the accounts of a scene: the names of the agents, and of what.
pub type Accountants = Vec<(String, &'static str)>;

/// A swarm to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The swarm file.
    pub file: String,
    /// Agents of it.
    pub agents: u32,
    /// Who keeps accounts; when all of them have ended, so does the swarm.
    pub accountants: Accountants,
}

/// Writes a swarm file.
struct Script<'a> {
    text: String,
    binary: &'a str,
    agents: u32,
}

impl Script<'_> {
    fn channel(&mut self, name: &str, message: &str, capacity_bytes: u64) {
        let capacity = capacity_bytes.next_power_of_two().clamp(4096, 1 << 26);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "[channel.{name}]\nmessage = \"{message}\"\ncapacity = {capacity}");
    }

    fn agent(&mut self, name: &str, replicas: u32, role: &str, orders: &[(&str, u64)], ways: &str) {
        let words: String = orders.iter().map(|(key, number)| format!(", \"{key}={number}\"")).collect();
        // Deaths that come from elsewhere are no reason to give up.
        let _ = writeln!(
            self.text,
            "[agent.{name}]\ncommand = [{}, \"agent\", \"scenario\", \"{role}\"{words}]\nreplicas = {replicas}\n{ways}\n\
             stop_timeout = \"30s\"\nready_timeout = \"120s\"",
            self.binary
        );
        self.agents += replicas;
    }

    /// One that asks when all of those are ready.
    fn asker(&mut self, teams: u32, orders: &[(&str, u64)], after: &str) {
        let calls: Vec<String> = (0..teams).map(|team| format!("\"calls-{team}\"")).collect();
        let ways = format!(
            "publishes = [{}]\nsubscribes = [\"answers\"]\nafter = [{after}]\n{ENDS}",
            calls.join(", ")
        );
        self.agent("asker", 1, "asker", &[&[("teams", u64::from(teams))], orders].concat(), &ways);
    }

    fn clerk(&mut self, channel: u64, orders: &[(&str, u64)]) {
        let orders = [&[("channel", channel)], orders].concat();
        self.agent(
            &format!("clerk-{channel}"),
            1,
            "clerk",
            &orders,
            &format!("subscribes = [\"notes-{channel}\"]\n{ENDS}"),
        );
    }

    fn teller(&mut self, channel: u64, replicas: u32, orders: &[(&str, u64)]) {
        let orders = [&[("channel", channel)], orders].concat();
        self.agent(
            &format!("teller-{channel}"),
            replicas,
            "teller",
            &orders,
            &format!("publishes = [\"notes-{channel}\"]\n{ENDS}"),
        );
    }

    fn done(self, accountants: &[(&str, &'static str)]) -> Scene {
        let accountants = accountants.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        Scene { file: self.text, agents: self.agents, accountants }
    }
}

/// Ends by itself.
const ENDS: &str = "restart = { policy = \"transient\", intensity = 10000 }";
/// Is there until the swarm ends.
const STAYS: &str = "restart = { intensity = 10000 }";

impl Job {
    /// The swarm file; `binary` is this binary as a TOML string, `now_ns` the moment from which starts count. Of half a load,
    /// `gap_ns` is the time from one note of a pair to the next: 0 for all that they can.
    pub fn scene(&self, name: &str, binary: &str, now_ns: u64, gap_ns: u64) -> Scene {
        let mut script = Script { text: format!("[swarm]\nname = \"{name}\"\n"), binary, agents: 0 };
        match *self {
            Job::Start { agents, .. } => {
                let members = agents - ACCOUNTANTS;
                script.teams(members, 0, START_CALLS * u64::from(members), now_ns);
                script.done(&[("asker", "calls"), ("clerk-0", "first words")])
            }
            Job::Team { agents, messages, tasks } => {
                script.teams(agents - ACCOUNTANTS, messages, tasks, 0);
                script.done(&[("clerk-0", "messages"), ("asker", "tasks")])
            }
            Job::Broadcast { listeners, rounds } => {
                let bytes = 64;
                script.channel("calls-0", "Call", 64 << 10);
                script.channel("answers", "Answer", 4096);
                for listener in 0..listeners {
                    let ways = format!("subscribes = [\"calls-0\"]\npublishes = [\"answers\"]\n{STAYS}");
                    script.agent(&format!("listener-{listener}"), 1, "member", &[("bytes", bytes)], &ways);
                }
                let orders =
                    [("count", rounds), ("window", 1), ("answers", u64::from(listeners)), ("bytes", bytes)];
                let after: Vec<String> = (0..listeners).map(|k| format!("\"listener-{k}\"")).collect();
                script.asker(1, &orders, &after.join(", "));
                script.done(&[("asker", "answers")])
            }
            Job::Producers { producers, bytes, time } => {
                script.channel("notes-0", "Note", 1 << 20);
                script.teller(0, producers, &[("bytes", bytes), ("ms", time.as_millis() as u64)]);
                script.clerk(0, &[("bytes", bytes), ("sources", u64::from(producers))]);
                script.done(&[("clerk-0", "messages")])
            }
            Job::Overload { times, messages, bytes } => {
                script.channel("notes-0", "Note", 256 << 10);
                let orders =
                    [("bytes", bytes), ("count", times * messages), ("burst", messages), ("pause_ms", 100)];
                script.teller(0, 1, &orders);
                script.clerk(0, &[("bytes", bytes), ("sources", 1)]);
                script.done(&[("clerk-0", "messages")])
            }
            Job::SpawnAndKill { .. } => {
                script.pool("worker", 1, 64, &[("gap_ns", 500_000), ("window", 64)]);
                script.done(&[("asker", "calls")])
            }
            Job::Coordinators { coordinators, time, .. } => {
                let orders = [("ms", time.as_millis() as u64), ("gap_ns", 1_000_000), ("window", 4096)];
                script.pool("coordinator", coordinators, 64, &orders);
                script.done(&[("asker", "calls")])
            }
            Job::HalfLoad { pairs, time } => script.pairs(pairs, time, gap_ns),
        }
    }
}

impl Script<'_> {
    /// Members, in teams that share calls each, who tell notes: their first words since a moment, or when a call asks for them.
    fn teams(&mut self, members: u32, messages: u64, tasks: u64, since_ns: u64) {
        let (bytes, count) = (64, u64::from(members));
        let window = count.min(256);
        let teams = members.div_ceil(TEAM_MEMBERS);
        let (each, extra) = (messages / count, messages % count);
        let tells = if messages > 0 { count } else { 0 };
        self.channel("answers", "Answer", 4096);
        // The notes of one call are of one step, and take half a lane at most.
        self.channel("notes-0", "Note", 2 * (each + 1) * (bytes + FRAME_BYTES));
        let mut names = Vec::new();
        for team in 0..teams {
            self.channel(&format!("calls-{team}"), "Call", 2 * window * (bytes + FRAME_BYTES));
            let base = team * TEAM_MEMBERS;
            let orders = [
                ("bytes", bytes),
                ("channel", u64::from(team)),
                ("base", u64::from(base)),
                ("tells", tells),
                ("since_ns", since_ns),
            ];
            let ways = format!(
                "subscribes = [\"calls-{team}\"]\npublishes = [\"answers\", \"notes-0\"]\n{STAYS}\nafter = [\"clerk-0\"]"
            );
            self.agent(&format!("member-{team}"), TEAM_MEMBERS.min(members - base), "member", &orders, &ways);
            names.push(format!("\"member-{team}\""));
        }
        let orders = [
            ("count", tasks),
            ("window", window),
            ("answers", 1),
            ("bytes", bytes),
            ("tell", each),
            ("tells", tells),
            ("extra", extra),
        ];
        self.asker(teams, &orders, &names.join(", "));
        self.clerk(0, &[("bytes", bytes), ("sources", count), ("notes", messages)]);
    }

    /// Replicas that share calls.
    fn pool(&mut self, name: &str, replicas: u32, bytes: u64, orders: &[(&str, u64)]) {
        self.channel("calls-0", "Call", 1 << 20);
        self.channel("answers", "Answer", 256 << 10);
        let ways =
            format!("subscribes = [\"calls-0\"]\npublishes = [\"answers\"]\n{STAYS}\nmax_attempts = 0");
        self.agent(name, replicas, "member", &[("bytes", bytes)], &ways);
        let orders = [orders, &[("answers", 1), ("bytes", bytes)]].concat();
        self.asker(1, &orders, &format!("\"{name}\""));
    }

    fn pairs(mut self, pairs: u32, time: Duration, gap_ns: u64) -> Scene {
        let bytes = 64;
        for pair in 0..u64::from(pairs) {
            self.channel(&format!("notes-{pair}"), "Note", 64 << 10);
            let told = [("bytes", bytes), ("ms", time.as_millis() as u64), ("gap_ns", gap_ns)];
            self.teller(pair, 1, &told);
            self.clerk(pair, &[("bytes", bytes), ("sources", 1)]);
        }
        let clerks: Vec<String> = (0..pairs).map(|pair| format!("clerk-{pair}")).collect();
        let accountants: Vec<_> = clerks.iter().map(|name| (name.as_str(), "messages")).collect();
        self.done(&accountants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn every_scenario_has_a_valid_swarm_file_with_as_many_agents_as_it_says() {
        for named in &ALL {
            for quick in [false, true] {
                let job = named.job(quick);
                let scene = job.scene("test", "\"/bin/true\"", 1, 0);
                let file = config::parse(Path::new("a scenario"), &scene.file)
                    .unwrap_or_else(|error| panic!("{}: {error}", named.name));
                let agents: u32 = file.agents.iter().map(|agent| agent.replicas).sum();
                assert_eq!(agents, scene.agents, "{}", named.name);
                for (name, _) in &scene.accountants {
                    assert!(file.agents.iter().any(|agent| agent.name == *name), "{}: {name}", named.name);
                }
                match job {
                    Job::Start { agents, .. } | Job::Team { agents, .. } => assert_eq!(agents, scene.agents),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn names_are_found_and_no_others() {
        assert!(ALL.iter().all(|named| Named::of(named.name).is_some_and(|found| found.what == named.what)));
        assert!(Named::of("start-11").is_none());
    }
}
