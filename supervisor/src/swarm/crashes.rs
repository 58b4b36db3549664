//! Evidence of a death for its report: what the pinned segment, the pipes, the kernel and the supervisor's own record say.
//!
//! Gathered in three moments: before the death means anything (`scene`), while it is decided what it means (`note_decision`), and
//! when that is done and the next incarnation is on its way (`report_crash`, which looks at what does not change any more).

use super::{Ends, Swarm};
use crate::agent::Live;
use crate::child::State;
use crate::crash::core_file::Whose;
use crate::crash::page::us;
use crate::crash::{Core, Counts, Crash, Decision, Filed, InHand, Seen, What};
use crate::ended::{Ended, signal_name};
use crate::events::Kind;
use crate::log::Level;
use crate::output::utc_of;
use crate::spawn::Ending;
use crate::strategy::Course;
use crate::trial;
use shoal_runtime::board::VerdictKind;
use shoal_runtime::desk::{self, Counter, DeskView};
use shoal_runtime::recorder::{self, Recorded};
use shoal_runtime::{Region, clock};
use std::time::{Duration, SystemTime};

/// The longest account of who ended a process, bytes.
const BY_BYTES_MAX: usize = 500;

/// What a death's report says that cannot be found out later.
pub(super) struct Scene {
    state: &'static str,
    /// What it wrote: its memory does not change any more.
    view: Option<Region>,
    in_hand: Option<InHand>,
    lived: Duration,
}

/// What was decided of the death that is being dealt with.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    counted: bool,
    /// How many deaths the window held with this one.
    deaths: u32,
    pause: Option<Duration>,
    given_up: bool,
    /// In words, where more than one agent is concerned.
    why: Option<String>,
}

impl Swarm {
    /// Notes who or what ends an agent's process, for the report of its death; the first word comes first.
    pub fn blame(&mut self, agent: usize, whom: &str) {
        let Some(live) = &mut self.agents[agent].live else { return };
        match &mut live.by {
            Some(by) if by.contains(whom) || by.len() + whom.len() > BY_BYTES_MAX => {}
            Some(by) => *by = format!("{by}; then {whom}"),
            None => live.by = Some(whom.to_owned()),
        }
    }

    /// Whether the death that is being dealt with is one too many, as far as deaths are counted.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.decided.as_ref().is_some_and(|decided| decided.given_up)
    }

    /// Notes what follows the death that is being dealt with.
    pub(super) fn note_decision(
        &mut self,
        agent: usize,
        counted: bool,
        course: &Course,
        why: Option<String>,
    ) {
        self.decided = Some(Decided {
            counted,
            deaths: self.agents[agent].intensity.deaths_count(),
            pause: match course {
                Course::After(pause) => Some(*pause),
                _ => None,
            },
            given_up: matches!(course, Course::Fails | Course::SetFails { .. } | Course::SwarmEnds { .. }),
            why,
        });
    }

    /// What of a death's report is known only before it is decided what follows; `None` for a normal end.
    ///
    /// To be asked before the dead's messages are settled.
    pub(super) fn scene(
        &mut self,
        agent: usize,
        live: &Live,
        view: Option<Region>,
        desk: Option<&DeskView>,
        ending: Ending,
    ) -> Option<Scene> {
        if live.child.adopted || self.is_normal_end(agent, live, ending) {
            return None;
        }
        self.decided = None;
        let in_hand = desk.and_then(|desk| self.in_hand(agent, live.owner, desk));
        let state = self.agents[agent].state.name();
        Some(Scene { state, view, in_hand, lived: live.born.elapsed() })
    }

    /// The report of a death whose output was read.
    fn evidence(&self, agent: usize, live: &Live, scene: Scene, ended: &Ended) -> Crash {
        let Ended { ending, usage, core_dumped } = *ended;
        let config = &self.file.agents[self.topology.agents[agent].config];
        let record = &self.agents[agent];
        let (status, signal) = match ending {
            Ending::Exited(status) => (Some(status), None),
            Ending::Signalled(signal) => (None, Some(signal)),
        };
        let view = scene.view.as_ref();
        let (received, sent) = view.map_or_else(Default::default, |view| self.recorded(agent, view));
        let program = config.command.first().map_or("", String::as_str);
        let core = core_dumped.then(|| self.core(agent, live.child.pid, signal.unwrap_or(0), program));
        let verdict = match (view, record.last.kind) {
            (None, _) => "none",
            (_, VerdictKind::Committed) => "committed",
            (_, VerdictKind::Corrupt) => "corrupt",
        };
        Crash {
            id: 0,
            swarm: self.file.name.clone(),
            run: format!("{:016x}", self.id()),
            agent: record.name.clone(),
            generation: live.incarnation.generation,
            pid: live.child.pid,
            at: utc_of(SystemTime::now()),
            lived_ms: scene.lived.as_millis() as u64,
            state: scene.state.to_owned(),
            how: ending.to_string(),
            status,
            signal,
            signal_name: signal.and_then(signal_name).map(str::to_owned),
            usage,
            core,
            ordered: trial::is_ordered(live.ordered, ending),
            by: live.by.clone(),
            verdict: verdict.to_owned(),
            in_hand: scene.in_hand,
            received,
            sent,
            counts: view.map_or_else(Counts::default, counts),
            output: record.capture.recent().map(str::to_owned).collect(),
            decision: Decision::default(),
        }
    }

    /// The core of a dead process, where the kernel left it.
    fn core(&self, agent: usize, pid: i32, signal: i32, program: &str) -> Core {
        let bounds = &self.file.agents[self.topology.agents[agent].config].confinement;
        let folder = bounds.cwd.clone().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        let named = || bounds.identity.map(|identity| (identity.uid, identity.gid));
        let own = || (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let identity = self.cradle.cages.identity(agent as u32).or_else(named).unwrap_or_else(own);
        Core::look(Whose { pid, signal, program, folder: &folder, identity })
    }

    /// The message that a dead process says to have had in hand, if it can have had it.
    fn in_hand(&self, agent: usize, owner: u32, desk: &DeskView) -> Option<InHand> {
        let (input, at) = desk.held?;
        let pending = self.pending(agent, owner, u32::try_from(input).ok()?, at)?;
        let spec = &self.topology.agents[agent].inputs[pending.input];
        let (producer, channel) =
            (&self.agents[spec.producer].name, &self.topology.channels[spec.channel].name);
        let since = desk.held_since_ns;
        Some(InHand {
            message: format!("{producer}/{channel}/{}", at.position),
            producer: producer.clone(),
            channel: channel.clone(),
            position: at.position,
            sequence: at.sequence,
            attempt: desk.held_attempt,
            attempts_max: self.file.agents[self.topology.agents[agent].config].max_attempts,
            held_ms: clock::now_ns().saturating_sub(since) / 1_000_000 * u64::from(since > 0),
        })
    }

    /// What the flight recorder says, as far as it can be true: lanes and inputs that there are, positions that were reached.
    fn recorded(&self, agent: usize, view: &Region) -> (Vec<Seen>, Vec<Seen>) {
        let Recorded { taken, sent } = recorder::read(view);
        let now_ns = clock::now_ns();
        let before = |at_ns: u64| (at_ns > 0 && at_ns <= now_ns).then(|| (now_ns - at_ns) / 1_000_000);
        let instance = &self.topology.agents[agent];
        let received = taken.into_iter().filter_map(|taken| {
            let spec = instance.inputs.get(taken.input)?;
            let end = self.tail(spec.producer, spec.lane);
            let (producer, channel) =
                (&self.agents[spec.producer].name, &self.topology.channels[spec.channel].name);
            end.is_none_or(|end| taken.position < end.position).then(|| Seen {
                message: format!("{producer}/{channel}/{}", taken.position),
                attempt: taken.attempt,
                before_end_ms: before(taken.at_ns),
            })
        });
        let sent = sent.into_iter().filter_map(|sent| {
            let channel = &self.topology.channels[instance.lanes.get(sent.lane)?.channel].name;
            let end = self.agents[agent].last.lanes.get(sent.lane)?;
            (sent.end <= end.position).then(|| Seen {
                message: format!("{}/{channel}/{}", self.agents[agent].name, sent.end),
                attempt: 0,
                before_end_ms: before(sent.at_ns),
            })
        });
        (received.collect(), sent.collect())
    }

    /// Files the report of a death: what it led to is known, and its output is read. While the next incarnation is on its way that
    /// comes later.
    pub(super) fn report_crash(&mut self, agent: usize, live: &Live, scene: Scene, ended: &Ended) {
        self.agents[agent].capture.flush();
        let mut crash = self.evidence(agent, live, scene, ended);
        crash.id = self.records.crashes.number();
        crash.decision = self.decision(agent);
        match self.agents[agent].live {
            Some(_) => self.report_later(agent, crash),
            None => self.file_crash(agent, crash),
        }
    }

    /// Files the report of a standby's death: it held nothing, and another one is made after a pause.
    pub(super) fn report_standby(&mut self, agent: usize, spare: &Live, ended: &Ended, pause: Duration) {
        let scene = Scene { state: "standby", view: None, in_hand: None, lived: spare.born.elapsed() };
        let mut crash = self.evidence(agent, spare, scene, ended);
        crash.id = self.records.crashes.number();
        crash.decision = Decision {
            what: What::Pauses,
            why: "another standby is made".to_owned(),
            pause_us: Some(pause.as_micros() as u64),
            ..Decision::default()
        };
        self.file_crash(agent, crash);
    }

    pub(super) fn file_crash(&mut self, agent: usize, crash: Crash) {
        let text = format!("{}; {}", crash.how, what_follows(&crash.decision));
        let (id, generation) = (crash.id, crash.generation);
        self.happened_in(Kind::Died, agent, generation, &text, Some(id));
        if let Filed::InMemory(Some(text)) = self.records.crashes.file(crash) {
            self.remark(Level::Warn, &text);
        }
    }

    /// What the state of an agent after a death says of what follows.
    fn decision(&mut self, agent: usize) -> Decision {
        let decided = self.decided.take();
        let record = &self.agents[agent];
        let bounds = &self.file.agents[self.topology.agents[agent].config].restart;
        let counted = decided.as_ref().is_some_and(|decided| decided.counted);
        let deaths =
            decided.as_ref().map_or_else(|| record.intensity.deaths_count(), |decided| decided.deaths);
        let streak = || match counted {
            true => format!(
                "death {deaths} of at most {} within {:?} of its life",
                bounds.intensity, bounds.period
            ),
            false => "the death was ordered and is not counted".to_owned(),
        };
        let policy = || format!("its policy is {}", bounds.policy.word());
        let given_up = decided.as_ref().is_some_and(|decided| decided.given_up);
        let (what, why) = match record.state {
            State::Backoff => (What::Pauses, streak()),
            State::Draining => (What::Drains, "`history` of [swarm] is full".to_owned()),
            // With its set, perhaps, of which others are still to be ended.
            State::Failed | State::Aside if given_up => (
                What::GivenUp,
                format!(
                    "more than {} within {:?} of its life",
                    crate::counted::counted(bounds.intensity, "death"),
                    bounds.period
                ),
            ),
            State::Aside => (What::Together, "its set starts again together".to_owned()),
            State::Failed => (What::GivenUp, policy()),
            State::Ended => (What::Ended, policy()),
            State::Stopped if self.ends != Ends::No => (What::Stopped, "the swarm ends".to_owned()),
            State::Stopped => (What::Stopped, "it was asked to".to_owned()),
            _ if decided.is_some() => (What::Restarted, streak()),
            _ => (What::Restarted, "it was asked to".to_owned()),
        };
        let pause = decided.as_ref().and_then(|decided| decided.pause).filter(|_| what == What::Pauses);
        Decision {
            what,
            why: decided.and_then(|decided| decided.why).unwrap_or(why),
            pause_us: pause.map(|pause| pause.as_micros() as u64),
            counted,
            deaths,
            deaths_max: bounds.intensity,
            period_ms: bounds.period.as_millis() as u64,
        }
    }
}

/// In few words, for an event.
fn what_follows(decision: &Decision) -> String {
    match decision.what {
        What::Restarted => "started again".to_owned(),
        What::Pauses => format!("started again after {}", us(decision.pause_us.unwrap_or(0))),
        What::Drains => "its start waits for readers".to_owned(),
        What::Together => "started again with its set".to_owned(),
        What::GivenUp => "given up".to_owned(),
        What::Stopped => "stays down".to_owned(),
        What::Ended => "is not started again".to_owned(),
    }
}

fn counts(view: &Region) -> Counts {
    let count = |counter| desk::counter(view, counter);
    Counts {
        sent: count(Counter::Sent),
        received: count(Counter::Received),
        aborted: count(Counter::Aborted),
        rejected: count(Counter::Rejected),
        peer_faults: count(Counter::PeerFaults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_is_told_in_the_unit_in_which_the_report_tells_it() {
        let told = |pause_us| {
            let decision = Decision {
                what: What::Pauses,
                why: String::new(),
                pause_us: Some(pause_us),
                counted: true,
                deaths: 3,
                deaths_max: 10,
                period_ms: 1000,
            };
            what_follows(&decision)
        };
        assert_eq!(told(4_200), "started again after 4200 µs");
        assert_eq!(told(811_525), "started again after 811 ms");
    }
}
