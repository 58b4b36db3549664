//! Starts and recoveries: a swarm of a source and a sink, whose sink is killed again and again. Beside each recovery stands a
//! raw one in the same moment: a child that does nothing is killed, noticed by its pidfd, and another started by vfork and exec.

use super::agents::Heard;
use super::crowd::Crowd;
use super::kept::{self, Measured};
use crate::agent::Agent;
use crate::config::{self, SwarmFile};
use crate::event_loop::{Companion, Watch};
use crate::log::report;
use crate::scenario::usage;
use crate::swarm::Swarm;
use serde::{Deserialize, Serialize};
use shoal_measure::floor::RawChild;
use shoal_measure::outcome::Outcome;
use shoal_measure::pairs::{percentile, spread};
use shoal_runtime::clock::now_ns;
use shoal_runtime::desk::{self, Counter};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Kills of each run: enough for the 99th of a hundred not to be the slowest of all.
const KILLS: usize = 201;
/// The same of a quick run.
const KILLS_QUICK: usize = 41;
/// Kills of the run that is to end as it began, and how many of them are its beginning and its end.
const KILLS_LONG: (usize, usize) = (1_100, 100);
/// How soon it looks again.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// What a large one has besides its lane of 1 MiB, and what any process has.
const LARGE_BYTES: usize = 14 << 20;
/// How long the sink works between kills.
const REST: Duration = Duration::from_millis(5);
/// The same where nothing is to be warm of the death before.
const REST_LONG: Duration = Duration::from_millis(100);
/// Who gathers its memory is killed when it has, or after so long, where the kernel has no large pages.
const GATHERING_MAX: Duration = Duration::from_millis(200);
/// Of [`LARGE_BYTES`] it has so much in large pages then, KiB: it begins and ends in small ones.
const GATHERED_KIB: u64 = 12 << 10;
/// A recovery that takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(20);

/// The case of recoveries of large agents, on a crowded machine, and after many.
const HARD: &str = "hardship";

/// Kills of each run, with a share of the work.
pub fn kills(share: u64) -> usize {
    if share > 1 { KILLS_QUICK } else { KILLS }
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lives {
    /// From the start of a process to the first message that it was given, which comes after its word that it is ready, ns.
    pub starts_ns: Vec<u64>,
    /// From SIGKILL to the first message that the next incarnation was given, ns.
    pub recoveries_ns: Vec<u64>,
    /// Raw: vfork and exec to the first byte out of `main`, ns.
    pub raw_starts_ns: Vec<u64>,
    /// Raw: SIGKILL, seen by the pidfd, and a start, ns.
    pub raw_recoveries_ns: Vec<u64>,
    /// As `recoveries_ns`, and the raw ones beside them, where SIGKILL came from outside.
    pub outside_ns: Vec<u64>,
    /// See there.
    pub raw_outside_ns: Vec<u64>,
    /// What the supervisor held after the first kills and before the last one.
    held: [Held; 2],
}

/// Descriptors, and shared memory of all of the swarm, KiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Held {
    descriptors: u64,
    memfds_kib: u64,
}

/// How the sink comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Its command is executed.
    Exec,
    /// A standby is promoted.
    Standby,
    /// A standby is promoted that was forked of a process that initialised once.
    Fork,
}

impl Way {
    /// All.
    pub const ALL: [Way; 3] = [Way::Exec, Way::Standby, Way::Fork];

    /// What the swarm file says of it.
    fn key(self) -> &'static str {
        match self {
            Way::Exec => "",
            Way::Standby => "standby = 1",
            Way::Fork => "prefork = true",
        }
    }
}

/// How a large process takes its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Pages {
    /// By the SDK's allocator, while it works.
    Large,
    /// In small pages, as those that do not have that do.
    Small,
    /// In small pages before it is an agent: the SDK gathers them.
    Ahead,
    /// In small pages while it works: the SDK gathers them, when it would sleep.
    Pieces,
}

/// What is done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    way: Way,
    kills: usize,
    how: How,
}

/// Under which circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    /// As it is most of the time.
    Plain,
    /// Who is killed, the sink and the raw child, has 14 MiB of its own.
    Large(Pages),
    /// Eight processes that never wait run beside it, and what others wait for goes before them; then every other kill comes from
    /// outside.
    Crowded,
    /// Nothing has died for long: what the answer to a death needs lies in no cache.
    Rested,
    /// After many, of which the beginning is compared with the end.
    Long,
}

impl Plan {
    /// Each way, as it is most of the time.
    pub fn plain(share: u64) -> Vec<Plan> {
        Way::ALL.map(|way| Plan { way, kills: kills(share), how: How::Plain }).into()
    }

    /// Each way with large agents, also in small pages, on a crowded machine and on one at rest; and one that goes on for long.
    pub fn hard(share: u64) -> Vec<Plan> {
        let large = [Pages::Large, Pages::Ahead, Pages::Pieces, Pages::Small].map(How::Large);
        let hows = large.into_iter().chain([How::Crowded, How::Rested]);
        let mut plans: Vec<Plan> = hows
            .flat_map(|how| Way::ALL.map(|way| Plan { way, kills: kills(share), how }))
            // Who is executed anew gathers nothing.
            .filter(|plan| !plan.gathers() || plan.way != Way::Exec)
            .collect();
        plans.iter_mut().filter(|plan| plan.how == How::Crowded).for_each(|plan| plan.kills *= 2);
        let kills = if share > 1 { kills(share) } else { KILLS_LONG.0 };
        plans.push(Plan { way: Way::Exec, kills, how: How::Long });
        plans
    }

    /// What results call it.
    fn mode(&self) -> String {
        let mode = match self.way {
            Way::Exec => "cold",
            Way::Standby => "standby",
            Way::Fork => "fork",
        };
        let how = match self.how {
            How::Large(Pages::Small) => " 16 MiB in small pages",
            How::Large(Pages::Ahead) => " 16 MiB loaded ahead",
            How::Large(Pages::Pieces) => " 16 MiB taken at work",
            How::Large(Pages::Large) => " 16 MiB",
            How::Crowded => " crowded",
            How::Rested => " rested",
            How::Plain | How::Long => "",
        };
        format!("{mode}{how}")
    }

    fn bytes(&self) -> usize {
        if matches!(self.how, How::Large(_)) { LARGE_BYTES } else { 0 }
    }

    fn pages(&self) -> &'static str {
        match self.how {
            How::Large(Pages::Small) => super::SMALL,
            How::Large(Pages::Ahead) => super::AHEAD,
            How::Large(Pages::Pieces) => super::PIECES,
            _ => super::LARGE,
        }
    }

    /// Whether the SDK makes large pages of small ones.
    fn gathers(&self) -> bool {
        matches!(self.how, How::Large(Pages::Ahead | Pages::Pieces))
    }

    /// How long the sink works between kills.
    fn rest(&self) -> Duration {
        if self.how == How::Rested { REST_LONG } else { REST }
    }

    /// Measures, in a process of its own.
    ///
    /// # Errors
    /// In words: what is lacking, or did not come back.
    pub fn measure(self) -> Result<Vec<Outcome>, String> {
        let _crowd = (self.how == How::Crowded)
            .then(Crowd::gather)
            .transpose()
            .map_err(|e| format!("gathering a crowd: {e}"))?;
        kept::measure::<Lives>(Measured::Lives(self)).map(|lives| lives.outcomes(&self))
    }
}

/// Runs the swarm in this process; its sink comes back as planned, and is killed only while what it needs for that is there. Says
/// [`Lives`].
///
/// # Errors
/// In words: what is lacking.
pub(super) fn watch(plan: Plan) -> Result<u8, String> {
    let name = format!("bench-{}", std::process::id());
    let killer = Killer {
        plan,
        raw: None,
        lives: Lives::default(),
        phase: Phase::Before,
        look_next: Instant::now(),
        why: None,
    };
    // That the sink was killed is no news.
    let notices = Box::new(|text: &str| {
        if !text.starts_with("agent sink ") {
            report!("shoal: {text}");
        }
    });
    kept::run(swarm_file(&name, plan)?, killer, notices, |killer, swarm| {
        if let Some(why) = killer.why.take() {
            return Err(why);
        }
        let done = killer.done();
        if done < plan.kills || swarm.kills_proven < killer.lives.recoveries_ns.len() as u64 {
            return Err(format!("interrupted after {done} of {} kills", plan.kills));
        }
        all_arrived(swarm).map(|()| std::mem::take(&mut killer.lives))
    })
}

/// Source and sink have committed the same.
///
/// # Errors
/// In words: what, if not.
pub(super) fn all_arrived(swarm: &Swarm) -> Result<(), String> {
    let heard = |name: &str| {
        let agent = swarm.agents.iter().find(|agent| agent.name == name);
        agent.and_then(|agent| agent.committed_state::<Heard>()).map_or(0, |heard| heard.count)
    };
    match (heard("source"), heard("sink")) {
        (sent, received) if sent == received && received > 0 => Ok(()),
        (sent, received) => {
            let letters = swarm.letters();
            Err(format!("{sent} messages were sent and {received} received; {letters} are dead letters"))
        }
    }
}

#[derive(Clone, Copy)]
enum Phase {
    /// Until the swarm is at work.
    Before,
    /// The sink works, until.
    Rest(Instant),
    /// A generation was killed at, CLOCK_MONOTONIC ns.
    Killed(u32, u64),
    /// The swarm was ended.
    Over,
}

struct Killer {
    plan: Plan,
    /// A child of the supervisor.
    raw: Option<RawChild>,
    lives: Lives,
    phase: Phase,
    look_next: Instant,
    why: Option<String>,
}

impl Killer {
    fn done(&self) -> usize {
        self.lives.recoveries_ns.len() + self.lives.outside_ns.len()
    }

    fn is_from_outside(&self) -> bool {
        self.plan.how == How::Crowded && self.done() % 2 == 1
    }

    fn note_held(&mut self) {
        let (_, some) = KILLS_LONG;
        let which =
            [some.min(self.plan.kills / 2), self.plan.kills - 1].iter().position(|at| *at == self.done());
        if let Some(which) = which.filter(|_| self.plan.how == How::Long) {
            self.lives.held[which] =
                Held { descriptors: usage::descriptors() as u64, memfds_kib: usage::memfds_kib() };
        }
    }

    /// Whether the sink has no more to make large pages of, or is not to be waited for.
    fn has_gathered(&self, sink: &Agent) -> bool {
        let Some(live) = sink.live.as_ref().filter(|_| self.plan.gathers()) else { return true };
        live.born.elapsed() >= GATHERING_MAX
            || usage::rollup_kib(live.child.pid as u32, "AnonHugePages:")
                .is_some_and(|kib| kib >= GATHERED_KIB)
    }

    /// Kills the sink; false if that cannot be now.
    fn kill(&self, swarm: &mut Swarm, sink: usize) -> io::Result<bool> {
        if !self.is_from_outside() {
            return Ok(swarm.kill(sink));
        }
        let Some(live) = &swarm.agents[sink].live else { return Ok(false) };
        rustix::process::pidfd_send_signal(&live.child.pidfd, rustix::process::Signal::KILL)?;
        Ok(true)
    }

    fn end(&mut self, swarm: &mut Swarm, why: Option<String>) {
        (self.why, self.phase) = (why, Phase::Over);
        swarm.shut_down();
    }

    fn look(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        let Some(sink) = swarm.agents.iter().position(|agent| agent.name == "sink") else { return Ok(()) };
        match self.phase {
            Phase::Rest(until) if until <= Instant::now() => {
                let returned = match self.plan.way {
                    // What readers have drained, and what is let go of when nothing else is to be done, is not held for good.
                    Way::Exec if self.plan.how == How::Long => swarm.has_let_go(sink),
                    Way::Exec => true,
                    Way::Standby | Way::Fork => swarm.agents[sink].parked().next().is_some(),
                };
                // Whoever still takes memory keeps a processor busy, and has less to lose.
                let filled = |view| desk::counter(view, Counter::Received) > 1;
                let settled = self.raw.as_mut().map_or(Ok(true), RawChild::is_settled)?
                    && swarm.agents[sink].view().is_some_and(filled);
                if !(returned && settled && self.has_gathered(&swarm.agents[sink])) {
                    self.phase = Phase::Rest(Instant::now() + LOOK_EVERY);
                    return Ok(());
                }
                self.note_held();
                let generation = swarm.agents[sink].generation;
                let at_ns = now_ns();
                if self.kill(swarm, sink)? {
                    self.phase = Phase::Killed(generation, at_ns);
                }
            }
            Phase::Killed(generation, at_ns) => {
                if now_ns() - at_ns > PATIENCE.as_nanos() as u64 {
                    return Err(io::Error::other("the sink did not come back"));
                }
                let agent = &swarm.agents[sink];
                let (Some(view), Some(live)) = (agent.view(), &agent.live) else { return Ok(()) };
                let first_ns = desk::view(view).first_message_ns;
                if live.incarnation.generation <= generation || first_ns <= at_ns {
                    return Ok(());
                }
                let outside = self.is_from_outside();
                let born_ns = now_ns() - live.born.elapsed().as_nanos() as u64;
                let start_ns = first_ns.saturating_sub(born_ns);
                let Some(raw) = &mut self.raw else { return Ok(()) };
                let (life, lives) = (raw.recover()?, &mut self.lives);
                if outside {
                    lives.outside_ns.push(first_ns - at_ns);
                    lives.raw_outside_ns.push(life.all_ns());
                } else {
                    lives.recoveries_ns.push(first_ns - at_ns);
                    lives.raw_recoveries_ns.push(life.all_ns());
                    lives.starts_ns.push(start_ns);
                    lives.raw_starts_ns.push(life.start_ns);
                }
                match self.done() < self.plan.kills {
                    true => self.phase = Phase::Rest(Instant::now() + self.plan.rest()),
                    false => self.end(swarm, None),
                }
            }
            Phase::Before | Phase::Rest(_) | Phase::Over => {}
        }
        Ok(())
    }
}

impl Companion for Killer {
    fn register(&mut self, _watch: &Watch) -> io::Result<()> {
        self.raw = Some(raw_child_in(self.plan.bytes(), self.plan.pages()).map_err(io::Error::other)?);
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Before | Phase::Over => None,
            Phase::Rest(until) => Some(until),
            Phase::Killed(..) => Some(self.look_next),
        }
    }

    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, _watch: &Watch) {
        if ready.is_some() || swarm.is_ending() {
            return;
        }
        self.look_next = Instant::now() + LOOK_EVERY;
        if let Err(error) = self.look(swarm) {
            self.end(swarm, Some(error.to_string()));
        }
    }

    fn passed(&mut self, swarm: &mut Swarm) {
        if matches!(self.phase, Phase::Before) && swarm.agents.iter().all(|agent| agent.was_ready) {
            self.phase = Phase::Rest(Instant::now() + self.plan.rest());
        }
    }
}

/// Starts a child that says a byte and waits; made without Shoal.
///
/// # Errors
/// In words.
pub(super) fn raw_child() -> Result<RawChild, String> {
    raw_child_in(0, super::LARGE)
}

/// The same of one that has so many bytes of memory in such pages.
fn raw_child_in(bytes: usize, pages: &str) -> Result<RawChild, String> {
    let binary = config::own_binary()?;
    RawChild::start(&[&binary, super::PEER[0], super::RAW, &bytes.to_string(), pages])
        .map_err(|e| format!("starting a raw child: {e}"))
}

/// What so many raw starts take, one after the other, as a few of them say, ns.
///
/// # Errors
/// In words: a raw child could not be started.
pub(super) fn raw_starts_ns(count: usize) -> Result<f64, String> {
    let mut raw = raw_child()?;
    let starts = (0..KILLS_QUICK).map(|_| raw.recover().map(|life| life.start_ns as f64));
    let starts =
        starts.collect::<io::Result<Vec<f64>>>().map_err(|e| format!("starting a raw child: {e}"))?;
    Ok(spread(starts).median * count as f64)
}

fn swarm_file(name: &str, plan: Plan) -> Result<SwarmFile, String> {
    let binary = toml::Value::String(config::own_binary()?);
    let (key, bytes, pages) = (plan.way.key(), plan.bytes(), plan.pages());
    // The source has its turn, too, and there is always a message: what is measured is not how long one is awaited.
    let (realtime, source, pause_us) = match plan.how {
        How::Crowded => ("realtime = 50", "limits = { scheduling = \"fifo:1\" }", 20),
        _ => ("", "", 200),
    };
    let text = format!(
        r#"
        [swarm]
        name = "{name}"
        {realtime}
        [channel.beats]
        message = "Beat"
        capacity = "1 MiB"
        [agent.source]
        command = [{binary}, "agent", "bench", "source", "{pause_us}"]
        publishes = ["beats"]
        stop_timeout = "10s"
        {source}
        [agent.sink]
        command = [{binary}, "agent", "bench", "sink", "{bytes}", "{pages}"]
        subscribes = ["beats"]
        stop_timeout = "10s"
        # On a crowded machine a message may be in hand at several deaths: it is no fault of its own.
        max_attempts = 0
        # Each death is alone in its period: no pause comes before a start.
        restart = {{ policy = "permanent", period = "1ms" }}
        {key}
        "#
    );
    config::parse(Path::new("the bench's swarm file"), &text).map_err(|e| e.to_string())
}

impl Lives {
    /// As results: `spawn` and `recovery`, or `hardship`. With a standby a start is a promotion, also of one that was forked.
    fn outcomes(&self, plan: &Plan) -> Vec<Outcome> {
        let (mode, death) = (&plan.mode(), "kill, pidfd, vfork and exec to main");
        if plan.how == How::Long {
            return vec![self.end_and_beginning()];
        }
        let recovery =
            |case: &str, mode: &str| outcome(case, mode, &self.recoveries_ns, &self.raw_recoveries_ns, death);
        if plan.how == How::Plain {
            let start =
                outcome("spawn", mode, &self.starts_ns, &self.raw_starts_ns, "vfork and exec to main");
            return vec![start, recovery("recovery", mode)];
        }
        let mut all = vec![recovery(HARD, mode)];
        if plan.how == How::Crowded {
            let mode = format!("{mode}, killed from outside");
            all.push(outcome(HARD, &mode, &self.outside_ns, &self.raw_outside_ns, death));
        }
        all
    }
}

impl Lives {
    /// The last recoveries beside the first ones, and what is held more.
    fn end_and_beginning(&self) -> Outcome {
        let (all, (_, some)) = (&self.recoveries_ns, KILLS_LONG);
        let some = some.min(all.len() / 2);
        let [before, after] = self.held;
        let more = after.descriptors.saturating_sub(before.descriptors);
        let more_kib = after.memfds_kib.saturating_sub(before.memfds_kib);
        Outcome {
            count: all.len() as u64,
            descriptors: Some(more),
            memory_bytes: Some(more_kib * 1024),
            ..outcome(
                HARD,
                "cold, after 1,000 kills",
                &all[all.len() - some..],
                &all[..some],
                &format!(
                    "the first {some} of {}; {more} descriptors and {more_kib} KiB of shared memory more",
                    all.len()
                ),
            )
        }
    }
}

pub(super) fn outcome(case: &str, mode: &str, ours: &[u64], raw: &[u64], against: &str) -> Outcome {
    let ratios: Vec<f64> =
        ours.iter().zip(raw).map(|(ours, raw)| *ours as f64 / (*raw).max(1) as f64).collect();
    let at = |percent| percentile(&mut ours.to_vec(), percent).map(|ns| ns as f64);
    Outcome {
        case: case.into(),
        mode: mode.into(),
        count: ours.len() as u64,
        p50_ns: at(50),
        p95_ns: at(95),
        p99_ns: at(99),
        floor: Some(spread(raw.iter().map(|&ns| ns as f64)).median),
        ratio_p50: Some(spread(ratios.iter().copied()).median),
        against: against.into(),
        message: "the sink of a swarm; trusted".into(),
        ratios,
        ..Outcome::default()
    }
}
