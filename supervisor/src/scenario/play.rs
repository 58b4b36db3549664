//! Runs a scenario: its swarm, in this process as the supervisor, and what became of it.

use super::agents::Done;
use super::director::{Cue, Director, Seen};
use super::outcome::{Outcome, Part};
use super::swarms::{Job, Named, Scene};
use super::tally::Tally;
use crate::config;
use crate::run::{Claimed, told_on_stderr};
use crate::swarm::Swarm;
use shoal_measure::pairs::percentile;
use shoal_runtime::clock::now_ns;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a scenario may take, and more for each agent.
const PATIENCE: Duration = Duration::from_secs(90);
const PATIENCE_EACH: Duration = Duration::from_millis(200);

/// What a scene left.
struct Played {
    swarm: Swarm,
    seen: Seen,
    took: Duration,
}

/// Runs a scenario.
///
/// # Errors
/// In words: what is lacking, or the interruption.
pub fn perform(named: &Named, quick: bool) -> Result<Outcome, String> {
    let job = named.job(quick);
    let cue = match job {
        Job::Start { idle, .. } => Cue::Idle(idle),
        Job::SpawnAndKill { cycles } => Cue::Cycle("worker", cycles),
        Job::Coordinators { kill_every, .. } => Cue::Kill("coordinator", kill_every),
        Job::Producers { .. } | Job::HalfLoad { .. } => Cue::Cost,
        Job::Broadcast { .. } | Job::Team { .. } | Job::Overload { .. } => Cue::Nothing,
    };
    let mut gap_ns = 0;
    if let Job::HalfLoad { pairs, .. } = job {
        // What they can, all together; then each pair at half of its share.
        let all = play(&job, cue.clone(), 0)?.into_outcome(named);
        let can: f64 = all.parts.iter().filter_map(|part| part.msgs_per_s).sum();
        if !all.passed || can <= 0.0 {
            return Ok(all);
        }
        gap_ns = (2.0 * f64::from(pairs) * 1e9 / can) as u64;
    }
    Ok(play(&job, cue, gap_ns)?.into_outcome(named))
}

fn play(job: &Job, cue: Cue, gap_ns: u64) -> Result<Stage, String> {
    let name = format!("scenario-{}", std::process::id());
    let claimed = Claimed::folder(&name)?;
    let binary = toml::Value::String(config::own_binary()?).to_string();
    let scene = job.scene(&name, &binary, now_ns(), gap_ns);
    let file =
        config::parse(Path::new("the scenario's swarm file"), &scene.file).map_err(|e| e.to_string())?;
    let accountants = scene.accountants.iter().map(|(name, _)| name.clone()).collect();
    let mut director = Director::new(cue, accountants, PATIENCE + scene.agents * PATIENCE_EACH);
    let began = Instant::now();
    let mut swarm = claimed.run(file, &mut director, told_on_stderr())?;
    if let Some(why) = swarm.failed_start.take() {
        return Err(format!("the swarm did not start: {why}"));
    }
    let played = Played { swarm, seen: director.seen, took: began.elapsed() };
    Ok(Stage { scene, played })
}

struct Stage {
    scene: Scene,
    played: Played,
}

impl Stage {
    fn into_outcome(self, named: &Named) -> Outcome {
        let Stage { scene, played: Played { mut swarm, seen, took } } = self;
        let mut outcome = Outcome {
            scenario: named.name.into(),
            what: named.what.into(),
            agents: u64::from(scene.agents),
            ready: seen.ready_max,
            all_ready_s: seen.all_ready_s,
            seconds: took.as_secs_f64(),
            kills: swarm.kills_proven,
            cpu_ns_per_message: seen.cpu_ns_per_message,
            idle: seen.idle,
            flat: seen.flat,
            why: seen.late.into_iter().collect(),
            ..Outcome::default()
        };
        let recovery = |percent, ns: &mut Vec<u64>| percentile(ns, percent);
        outcome.recovery_ns = recovery(50, &mut swarm.recoveries_ns)
            .zip(recovery(99, &mut swarm.recoveries_ns))
            .map(|(p50, p99)| [p50, p99]);
        // Accounts of the same kind are one.
        let mut kinds: Vec<&str> = scene.accountants.iter().map(|(_, what)| *what).collect();
        kinds.dedup();
        for what in kinds {
            let (mut sum, mut expected) = (Tally::of(0), 0);
            for (name, _) in scene.accountants.iter().filter(|(_, of)| *of == what) {
                let tally = committed(&swarm, name);
                expected += match name.strip_prefix("clerk") {
                    Some(channel) => told(&swarm, channel),
                    None => tally.as_ref().map_or(0, |tally| tally.asked),
                };
                match tally {
                    Some(tally) => sum.merge(&tally),
                    None => outcome.why.push(format!("{name} left no account")),
                }
            }
            outcome.parts.push(Part::of(what, expected, &sum));
            if sum.served_ns > 0 && outcome.kills > 0 {
                outcome.uptime = Some(1.0 - sum.down_ns as f64 / sum.served_ns as f64);
            }
        }
        outcome.why.extend(answered(&swarm, &outcome.parts));
        outcome.judged()
    }
}

fn committed(swarm: &Swarm, name: &str) -> Option<Tally> {
    swarm.agents.iter().find(|agent| agent.name == name)?.committed_state()
}

/// Notes that were committed to the lanes of a channel, by the verdicts on those who told them.
fn told(swarm: &Swarm, channel: &str) -> u64 {
    let channel = format!("notes{channel}");
    let Some(channel) = swarm.topology.channels.iter().position(|c| c.name == channel) else { return 0 };
    let agents = swarm.agents.iter().zip(&swarm.topology.agents);
    let lanes = agents.flat_map(|(agent, instance)| instance.lanes.iter().zip(&agent.last.lanes));
    lanes.filter(|(of, _)| of.channel == channel).map(|(_, end)| end.sequence).sum()
}

/// What the members committed as answered, against what the asker heard: a call that two members took shows here.
fn answered(swarm: &Swarm, parts: &[Part]) -> Option<String> {
    let done: Vec<Done> = swarm.agents.iter().filter_map(|agent| agent.committed_state()).collect();
    let heard: u64 = parts
        .iter()
        .filter(|p| matches!(p.what.as_str(), "calls" | "tasks" | "answers"))
        .map(|p| p.delivered)
        .sum();
    let (count, wrong) = done.iter().fold((0, 0), |(count, wrong), d| (count + d.count, wrong + d.wrong));
    if heard == 0 && count == 0 {
        return None;
    }
    (count != heard || wrong > 0).then(|| {
        format!("members answered {count} calls, {wrong} of them wrong, and {heard} answers were heard")
    })
}
