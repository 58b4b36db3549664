//! Take-overs: the supervisor of a swarm of idle agents is killed under its keeper, again and again, and asked who it is. What answers is
//! the next one, which says since when it watches all agents: the answer itself comes a little later.

use super::crowd::Crowd;
use super::guarded::{Swarm, pidfd_of};
use super::lives::{kills, outcome, raw_child};
use super::{EACH_MS, IN_A_ROW};
use crate::config::Orphans;
use crate::control::{PsReport, SwarmInfo};
use rustix::process::{Signal, pidfd_send_signal};
use shoal_measure::cases::Bench;
use shoal_measure::floor::RawChild;
use shoal_measure::outcome::Outcome;
use shoal_measure::pairs::percentile;
use shoal_runtime::clock::now_ns;
use std::io;
use std::time::{Duration, Instant};

/// How many agents.
const SIZES: [usize; 3] = [10, 100, 1000];
/// How many times as often the supervisor of the most is killed: of a message each millisecond few are under way in one take-over, and one of a
/// hundred of them is to be told.
const OFTENER: usize = 5;
/// How many beside processes that never wait.
const CROWDED: usize = 100;
/// How long a swarm is left alone between them.
const REST: Duration = Duration::from_millis(20);
/// The same after each so many: a keeper gives up whose supervisors live shortly too often in a row.
const LONG_REST: (usize, Duration) = (32, Duration::from_millis(150));
/// So long somebody who computes meanwhile does so before it lets others have their turn: as most of what a successor does between two yields.
const TURN: Duration = Duration::from_micros(30);

/// Runs a swarm of each size; with a small share of the work none of a thousand, and fewer kills.
///
/// # Errors
/// In words: what is lacking.
pub fn run(share: u64, bench: &mut Bench<'_>) -> Result<(), String> {
    let sizes = if share > 1 { 2 } else { SIZES.len() };
    for agents in SIZES.into_iter().take(sizes) {
        let oftener = if agents == SIZES[2] { OFTENER } else { 1 };
        let measured = measure(agents, kills(share) * oftener);
        let in_a_row = measure_in_a_row(agents, kills(share));
        for measured in [measured, in_a_row] {
            let measured = measured.map_err(|error| format!("{agents} agents: {error}"))?;
            measured.into_iter().for_each(&mut *bench.each);
        }
    }
    let _crowd = Crowd::gather().map_err(|error| format!("gathering a crowd: {error}"))?;
    let (agents, kills) = (CROWDED, kills(share));
    let measured =
        measure_crowded(agents, kills).map_err(|error| format!("{agents} agents in a crowd: {error}"))?;
    measured.into_iter().for_each(&mut *bench.each);
    Ok(())
}

/// From when to when, CLOCK_MONOTONIC ns.
type Span = (u64, u64);

/// What was seen of a swarm whose supervisor is killed again and again.
#[derive(Default)]
struct Seen {
    taken: Vec<TakeOver>,
    /// As long, and with the same questions, but nothing was killed.
    calm: Vec<Span>,
    /// As long, and nothing was killed, but a process computed all the time that has nothing to do with the swarm.
    busy: Vec<Span>,
    /// A raw death and start beside each, ns.
    floor: Vec<u64>,
}

/// How long one take-over took since the kill, ns.
struct TakeOver {
    /// When the supervisor was killed, CLOCK_MONOTONIC.
    killed_ns: u64,
    /// Until the successor watches all agents.
    watching_ns: u64,
    /// Until it has answered.
    answered_ns: u64,
}

fn measure(agents: usize, kills: usize) -> io::Result<Vec<Outcome>> {
    let mut raw = raw_child().map_err(io::Error::other)?;
    let mut swarm = Swarm::start(agents, EACH_MS, Orphans::Keep)?;
    let seen = take_over_often(&mut swarm, &mut raw, kills, true)?;
    let mut deaths = Vec::new();
    while deaths.len() < kills {
        deaths.push(swarm.see_death()?);
        rest_after(deaths.len());
    }
    let took = swarm.end()?;
    let mut all = outcomes(&agents.to_string(), &seen);
    let seen_first = "has the verdict of one killed with its predecessor";
    all.push(one(format!("next death seen {agents}"), seen_first, &deaths, &seen.floor));
    all.extend(messages_meanwhile(agents, EACH_MS, &took, &seen));
    Ok(all)
}

/// The messages of two that never rest.
fn measure_in_a_row(agents: usize, kills: usize) -> io::Result<Vec<Outcome>> {
    let mut raw = raw_child().map_err(io::Error::other)?;
    let mut swarm = Swarm::start(agents, IN_A_ROW, Orphans::Keep)?;
    let seen = take_over_often(&mut swarm, &mut raw, kills, true)?;
    let took = swarm.end()?;
    Ok(messages_meanwhile(agents, IN_A_ROW, &took, &seen).into())
}

/// The same beside a crowd, of the take-overs alone.
fn measure_crowded(agents: usize, kills: usize) -> io::Result<Vec<Outcome>> {
    let mut raw = raw_child().map_err(io::Error::other)?;
    let mut swarm = Swarm::start(agents, EACH_MS, Orphans::Keep)?;
    let seen = take_over_often(&mut swarm, &mut raw, kills, false)?;
    swarm.end()?;
    Ok(outcomes(&format!("{agents} crowded"), &seen))
}

/// So many take-overs, and, where messages are compared, as many times the same without one, and beside a process that computes.
fn take_over_often(swarm: &mut Swarm, raw: &mut RawChild, kills: usize, compares: bool) -> io::Result<Seen> {
    let before = swarm.ready()?;
    let mut seen = Seen::default();
    while seen.floor.len() < kills {
        let took = swarm.take_over()?;
        seen.floor.push(raw.recover()?.all_ns());
        rest_after(seen.floor.len());
        if compares {
            let time = Duration::from_nanos(took.answered_ns);
            seen.calm.push(swarm.be_calm(time)?);
            std::thread::sleep(REST);
            seen.busy.push(swarm.be_busy(time)?);
            std::thread::sleep(REST);
        }
        seen.taken.push(took);
    }
    let lives = |report: &PsReport| report.agents.iter().map(|a| (a.pid, a.generation)).collect::<Vec<_>>();
    if lives(&swarm.ready()?) != lives(&before) {
        return Err(io::Error::other("an agent was started again over the deaths of its supervisor"));
    }
    Ok(seen)
}

fn outcomes(mode: &str, seen: &Seen) -> Vec<Outcome> {
    let [watching, answered] = [|t: &TakeOver| t.watching_ns, |t: &TakeOver| t.answered_ns]
        .map(|of| seen.taken.iter().map(of).collect::<Vec<_>>());
    vec![
        one(format!("watching {mode}"), "watches all of them", &watching, &seen.floor),
        one(mode.to_owned(), "answers", &answered, &seen.floor),
    ]
}

fn one(mode: String, until: &str, ours: &[u64], floor: &[u64]) -> Outcome {
    Outcome {
        message: format!("idle agents, until the next supervisor {until}; trusted"),
        ..outcome("takeover", &mode, ours, floor, "kill, pidfd, vfork and exec to main")
    }
}

fn rest_after(kills: usize) {
    let (each, long) = LONG_REST;
    std::thread::sleep(if kills.is_multiple_of(each) { long } else { REST });
}

/// How long messages took that were under way during a take-over, and while some other process computed, beside those of spans that are as
/// long and in which nothing dies.
fn messages_meanwhile(agents: usize, pace: &str, took: &[(u64, u64)], seen: &Seen) -> [Outcome; 2] {
    let (name, message) = match pace == IN_A_ROW {
        true => ("messages in a row", "there and back, as soon as the last one is back; trusted"),
        false => ("messages", "there and back, one each millisecond, asleep in between; trusted"),
    };
    let while_taken: Vec<Span> =
        seen.taken.iter().map(|t| (t.killed_ns, t.killed_ns + t.answered_ns)).collect();
    let within = |spans: &[Span]| -> Vec<u64> {
        let is_in = |&(sent_ns, took_ns): &(u64, u64)| {
            spans.iter().any(|&(from_ns, until_ns)| sent_ns < until_ns && sent_ns + took_ns > from_ns)
        };
        took.iter().filter(|message| is_in(message)).map(|&(_, took_ns)| took_ns).collect()
    };
    let mut calm = within(&seen.calm);
    [("meanwhile", &while_taken), ("beside work", &seen.busy)].map(|(mode, spans)| {
        let mut meanwhile = within(spans);
        let mut at =
            |percent| [&mut meanwhile, &mut calm].map(|took| percentile(took, percent).map(|ns| ns as f64));
        let [p50, p95, p99] = [50, 95, 99].map(&mut at);
        let ratio = |[meanwhile, calm]: [Option<f64>; 2]| Some(meanwhile? / calm?);
        Outcome {
            case: "takeover".into(),
            mode: format!("{name} {mode} {agents}"),
            count: meanwhile.len() as u64,
            p50_ns: p50[0],
            p95_ns: p95[0],
            p99_ns: p99[0],
            floor: p50[1],
            ratio_p50: ratio(p50),
            ratio_p99: ratio(p99),
            against: "the same while nothing dies".into(),
            message: message.into(),
            ..Outcome::default()
        }
    })
}

impl Swarm {
    /// Kills the supervisor and one of its agents; how long until the agent's death has its verdict, ns.
    fn see_death(&mut self) -> io::Result<u64> {
        let report = self.ready()?;
        let (former, pidfd) = self.supervisor()?;
        let victim = report.agents.iter().find(|agent| agent.name == "a0").and_then(|agent| agent.pid);
        let victim = pidfd_of(victim.ok_or_else(|| io::Error::other("an agent without a process"))?)?;
        let killed_ns = now_ns();
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        pidfd_send_signal(&victim, Signal::KILL)?;
        let verdict = |swarm: &mut Swarm| {
            let is_new = |now: &SwarmInfo| now.supervisor != former && now.last_verdict_ns > killed_ns;
            Ok(swarm.info()?.filter(is_new))
        };
        Ok(self.until("the verdict of another supervisor", verdict)?.last_verdict_ns - killed_ns)
    }

    /// Kills the supervisor; how long until another watched all and answered.
    fn take_over(&mut self) -> io::Result<TakeOver> {
        let (former, pidfd) = self.supervisor()?;
        let killed_ns = now_ns();
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        let other = |swarm: &mut Swarm| Ok(swarm.info()?.filter(|now| now.supervisor != former));
        let next = self.until("another supervisor", other)?;
        let answered_ns = now_ns() - killed_ns;
        // Both by the clock of this machine.
        let watching_ns = next
            .watching_ns
            .checked_sub(killed_ns)
            .ok_or_else(|| io::Error::other("another supervisor watched all before this one was killed"))?;
        Ok(TakeOver { killed_ns, watching_ns, answered_ns })
    }

    /// Asks what is asked at a take-over, in as long a time, and kills nobody; from when to when.
    fn be_calm(&mut self, time: Duration) -> io::Result<Span> {
        self.supervisor()?;
        let (began_ns, end) = (now_ns(), Instant::now() + time);
        self.info()?;
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok((began_ns, now_ns()))
    }

    /// Asks what is asked at a take-over, and computes for as long, as considerate of others as a successor is; from when to when.
    fn be_busy(&mut self, time: Duration) -> io::Result<Span> {
        self.supervisor()?;
        let (began_ns, end) = (now_ns(), Instant::now() + time);
        self.info()?;
        let mut sum = 0u64;
        while Instant::now() < end {
            let turn = Instant::now() + TURN;
            while Instant::now() < turn {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            std::thread::yield_now();
        }
        Ok((began_ns, now_ns()))
    }
}
