//! Messages given in vain: what agents say of failed attempts, what their deaths say, and what is given up.

use super::Swarm;
use crate::agent::Live;
use crate::dead_letters::{Kept, Letter};
use crate::output::utc_of;
use crate::spawn::Ending;
use crate::trial::{self, Report, Trial};
use shoal_runtime::cursor::payload_max;
use shoal_runtime::desk::DeskView;
use shoal_runtime::segment;
use shoal_runtime::wire::{self, Park, ToAgent};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

fn now() -> String {
    utc_of(SystemTime::now())
}

impl Swarm {
    /// The input that an agent speaks of, if a message can lie there that it has not acknowledged.
    fn pending(&self, agent: usize, input: u32, position: u64) -> Option<usize> {
        let index = input as usize;
        let spec = self.topology.agents[agent].inputs.get(index)?;
        let (from, to) = (self.cursor(agent, index), self.tail(spec.producer, spec.lane));
        let there = position >= from.position && to.is_none_or(|to| position < to.position);
        there.then_some(index)
    }

    /// A step of an agent failed. What is not about a message in hand is nobody's business.
    pub(super) fn on_failed(&mut self, agent: usize, input: u32, position: u64, attempt: u32, why: &str) {
        let Some(input) = self.pending(agent, input, position) else { return };
        let record = &mut self.agents[agent];
        let report = Report::of_handler(record.generation, now(), why);
        record.trials.at(input, position).count(attempt, report);
    }

    /// A death is proved, with its verdict: what was in hand was given in vain, unless the death was ordered.
    pub(super) fn note_attempts(
        &mut self,
        agent: usize,
        live: &Live,
        desk: Option<DeskView>,
        ending: Ending,
    ) {
        let cursors: Vec<u64> = self.agents[agent].last.inputs.iter().map(|place| place.position).collect();
        self.agents[agent].trials.forget_before(cursors.into_iter());
        let Some(DeskView { held: Some((input, position)), held_attempt, .. }) = desk else { return };
        let input = u32::try_from(input).ok().and_then(|input| self.pending(agent, input, position));
        let Some(input) = input.filter(|_| !trial::is_ordered(live.ordered, ending)) else { return };
        let record = &mut self.agents[agent];
        record.capture.flush();
        let output = record.capture.recent().map(str::to_owned).collect();
        let report = Report::of_process(live.incarnation.generation, now(), ending, output);
        record.trials.at(input, position).count(held_attempt, report);
    }

    /// An agent gives a message up: stores it, then tells the agent to acknowledge it.
    pub(super) fn on_park(&mut self, agent: usize, park: &Park, along: &[OwnedFd]) {
        let answer = match self.park(agent, park, along) {
            Ok(()) => ToAgent::Parked,
            Err(why) => {
                let name = &self.agents[agent].name;
                self.notice(&format!("agent {name}: a dead letter is refused: {why}"));
                ToAgent::Refused(why)
            }
        };
        if let Some(live) = &self.agents[agent].live {
            let _ = wire::tell(&live.control, &answer, &[]);
        }
    }

    fn park(&mut self, agent: usize, park: &Park, along: &[OwnedFd]) -> Result<(), String> {
        let position = park.position;
        let pending = self.pending(agent, park.input, position);
        let input = pending.ok_or_else(|| {
            format!(
                "no message lies at position {position} of input {} that it has not acknowledged",
                park.input
            )
        })?;
        let spec = self.topology.agents[agent].inputs[input];
        let capacity_bytes = self.topology.agents[spec.producer].lanes[spec.lane].capacity_bytes;
        if park.len_bytes > payload_max(capacity_bytes) {
            return Err(format!("no message on this lane has {} bytes", park.len_bytes));
        }
        if self.agents[agent].trials.at(input, position).is_settled() {
            // Its former life was told so and died before it acknowledged it.
            return Ok(());
        }
        let [frozen] = along else {
            return Err(format!("the message's bytes come as one descriptor, not as {}", along.len()));
        };
        let bytes = segment::thaw_bytes(frozen, park.len_bytes as usize).map_err(|e| e.to_string())?;
        let letter = self.letter(agent, input, park);
        let text = format!(
            "agent {} gives up message {} after {} attempts: {}",
            letter.agent, letter.message, letter.attempts, letter.reason
        );
        let Kept { id, whole, dropped } =
            self.dead_letters.keep(letter, &bytes).map_err(|e| e.to_string())?;
        self.agents[agent].trials.at(input, position).settle();
        self.notice(&format!("{text} (`shoal dlq show {id}`)"));
        if !whole {
            self.notice(&format!(
                "the bytes of dead letter {id} are more than `dead_letters` allows: only its facts are kept"
            ));
        }
        if !dropped.is_empty() {
            let ids: Vec<String> = dropped.iter().map(u64::to_string).collect();
            self.notice(&format!(
                "dead letters {} made room and are gone: `dead_letters` of [swarm] sets how many are kept",
                ids.join(", ")
            ));
        }
        Ok(())
    }

    /// The facts of a message that is given up.
    fn letter(&mut self, agent: usize, input: usize, park: &Park) -> Letter {
        let trial: Trial = self.agents[agent].trials.at(input, park.position).clone();
        let instance = &self.topology.agents[agent];
        let spec = instance.inputs[input];
        let channel = &self.topology.channels[spec.channel];
        let producer = &self.topology.agents[spec.producer].name;
        let reports: Vec<Report> = trial.reports().cloned().collect();
        let reason = match (park.why.as_str(), reports.last()) {
            ("", Some(last)) => format!("its reader {}", last.how),
            ("", None) => "given in vain".to_owned(),
            (why, _) => crate::output::shown(why.as_bytes()),
        };
        let parked = now();
        Letter {
            id: 0,
            message: format!("{producer}/{}/{}", channel.name, park.position),
            swarm: self.file.name.clone(),
            run: format!("{:016x}", self.id()),
            channel: channel.name.clone(),
            message_type: channel.message.clone(),
            fingerprint: format!("{:016x}", self.board.view().fingerprint(spec.channel as u32)),
            producer: producer.clone(),
            position: park.position,
            agent: self.agents[agent].name.clone(),
            group: self.file.agents[instance.config].name.clone(),
            attempts: park.attempts.clamp(trial.attempts(), trial.attempts().saturating_add(1)),
            rejected: park.rejected,
            reason,
            first: reports.first().map_or_else(|| parked.clone(), |report| report.at.clone()),
            parked,
            bytes: park.len_bytes,
            kept: true,
            reports,
        }
    }
}
