//! Messages given in vain: what agents say of failed attempts, what their deaths say, and what is given up.

use super::Swarm;
use crate::agent::Live;
use crate::counted::counted;
use crate::dead_letters::{Kept, Letter};
use crate::events::Kind;
use crate::log::Level;
use crate::output::utc_of;
use crate::spawn::Ending;
use crate::trial::{self, Reader, Report, Trial};
use shoal_runtime::claims::Claim;
use shoal_runtime::cursor::payload_max;
use shoal_runtime::desk::DeskView;
use shoal_runtime::mark::Place;
use shoal_runtime::segment;
use shoal_runtime::wire::{Park, ToAgent};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

fn now() -> String {
    utc_of(SystemTime::now())
}

/// A message that an agent can be working on.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) input: usize,
    reader: Reader,
    at: Place,
}

impl Swarm {
    /// How many messages were given up and lie with the dead letters.
    pub fn letters(&self) -> usize {
        crate::dead_letters::list(self.dead_letters.folder()).map_or(0, |letters| letters.len())
    }

    /// Who is given the messages of an input.
    pub(super) fn reader_of(&self, agent: usize, input: usize) -> Reader {
        match self.topology.agents[agent].inputs[input].table {
            Some(table) => Reader::Group(table.group, table.offset),
            None => Reader::Input(agent, input),
        }
    }

    /// What an agent speaks of, if it can have it in hand: a message that was sent and that it has not acknowledged; in a group,
    /// that it has claimed.
    pub(super) fn pending(&self, agent: usize, owner: u32, input: u32, at: Place) -> Option<Pending> {
        let input = input as usize;
        let spec = self.topology.agents[agent].inputs.get(input)?;
        let (from, to) = (self.cursor(agent, input), self.tail(spec.producer, spec.lane));
        let sent = to.is_none_or(|to| at.position < to.position && at.sequence < to.sequence);
        let left = at.position >= from.position && at.sequence >= from.sequence;
        let claimed = spec.table.is_none_or(|table| {
            matches!(self.groups.table(&table).see(at.sequence), Claim::Owned { owner: by, .. } if by == owner)
        });
        (sent && left && claimed).then(|| Pending { input, reader: self.reader_of(agent, input), at })
    }

    /// A step of an agent failed. What is not about a message in hand is nobody's business.
    pub(super) fn on_failed(&mut self, agent: usize, input: u32, at: Place, attempt: u32, why: &str) {
        let Some(live) = &self.agents[agent].live else { return };
        let generation = live.incarnation.generation;
        let Some(Pending { input, reader, at }) = self.pending(agent, live.owner, input, at) else { return };
        self.trials.forget_before(reader, self.cursor(agent, input));
        self.trials.at(reader, at).count(attempt, Report::of_handler(generation, now(), why));
    }

    /// A death is proved, with its verdict, and its claims are not settled yet: what was in hand was given in vain, unless the
    /// death was ordered. Returns what was counted, for [`Swarm::note_output`].
    pub(super) fn note_attempts(
        &mut self,
        agent: usize,
        live: &Live,
        desk: Option<DeskView>,
        ending: Ending,
    ) -> Option<(Reader, Place)> {
        for input in 0..self.topology.agents[agent].inputs.len() {
            self.trials.forget_before(self.reader_of(agent, input), self.cursor(agent, input));
        }
        let DeskView { held: Some((input, at)), held_attempt, .. } = desk? else { return None };
        let pending = self.pending(agent, live.owner, u32::try_from(input).ok()?, at);
        let Pending { reader, at, .. } = pending.filter(|_| !trial::is_ordered(live.ordered, ending))?;
        let report = Report::of_process(live.incarnation.generation, now(), ending);
        self.trials.at(reader, at).count(held_attempt, report).then_some((reader, at))
    }

    /// The output of a dead life is read: its last lines belong to the report of the attempt that it was.
    pub(super) fn note_output(&mut self, agent: usize, (reader, at): (Reader, Place)) {
        let capture = &mut self.agents[agent].capture;
        capture.flush();
        let output = capture.recent().map(str::to_owned).collect();
        self.trials.at(reader, at).add_output(output);
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
        self.answer(agent, &answer);
    }

    fn park(&mut self, agent: usize, park: &Park, along: &[OwnedFd]) -> Result<(), String> {
        let owner = self.agents[agent].live.as_ref().map_or(0, |live| live.owner);
        let Pending { input, reader, at } = self.pending(agent, owner, park.input, park.at).ok_or_else(|| {
            let (input, position) = (park.input, park.at.position);
            format!("no message lies at position {position} of input {input} that it has in hand and has not acknowledged")
        })?;
        let spec = self.topology.agents[agent].inputs[input];
        let capacity_bytes = self.topology.agents[spec.producer].lanes[spec.lane].capacity_bytes;
        if park.len_bytes > payload_max(capacity_bytes) {
            return Err(format!("no message on this lane has {} bytes", park.len_bytes));
        }
        if self.trials.at(reader, at).is_settled() {
            // Its former life was told so and died before it acknowledged it.
            return Ok(());
        }
        let [frozen] = along else {
            return Err(format!("the message's bytes come as one descriptor, not as {}", along.len()));
        };
        let bytes = segment::thaw_bytes(frozen, park.len_bytes as usize).map_err(|e| e.to_string())?;
        let letter = self.letter(agent, input, reader, park);
        // A predecessor of this supervisor may have kept it, and died before it wrote that down.
        if self.is_successor()
            && self.dead_letters.find(&letter.run, &letter.message, &letter.group).is_some()
        {
            self.trials.at(reader, at).settle();
            return Ok(());
        }
        let text = format!(
            "agent {} gives up message {} after {}: {}",
            letter.agent,
            letter.message,
            counted(letter.attempts, "attempt"),
            letter.reason
        );
        let Kept { id, whole, dropped } =
            self.dead_letters.keep(letter, &bytes).map_err(|e| e.to_string())?;
        self.trials.at(reader, at).settle();
        self.tell(Level::Warn, Kind::DeadLetter, Some(agent), &format!("{text} (`shoal dlq show {id}`)"));
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
    fn letter(&mut self, agent: usize, input: usize, reader: Reader, park: &Park) -> Letter {
        let trial: Trial = self.trials.at(reader, park.at).clone();
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
            message: format!("{producer}/{}/{}", channel.name, park.at.position),
            swarm: self.file.name.clone(),
            run: format!("{:016x}", self.id()),
            channel: channel.name.clone(),
            message_type: channel.message.clone(),
            fingerprint: format!("{:016x}", self.board.view().fingerprint(spec.channel as u32)),
            producer: producer.clone(),
            position: park.at.position,
            agent: self.agents[agent].name.clone(),
            group: self.file.agents[instance.config].group.clone(),
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
