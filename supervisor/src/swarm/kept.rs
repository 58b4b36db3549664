//! The swarm's journal: what is written for a successor. The take-over, which reconciles it with what is: `kept/take_over.rs`.
//!
//! Written: at the end of every batch of events, for the agents that it touched; and at once where others are about to act on it
//! (an incarnation exists, it is told to begin, a death is ordered, a question of an agent is dropped). Whatever was done since the
//! last writing is found by looking: at the board, at the seals of a segment, at the children of the keeper. So a take-over may die at
//! any point, too, and the next one does the same again.

mod digest;
mod take_over;

pub(super) use digest::{copy_words, words_for};
pub(super) use take_over::{claim, read};

use super::record::{self, AgentRecord, GraveRecord, LiveRecord, SwarmRecord, VerdictRecord};
use super::stand::{SWARM_BYTES_MAX, room_for};
use super::{Ends, Swarm, Timer};
use crate::agent::{Agent, Grave, Live};
use crate::child::State;
use crate::courtesy::Courtesy;
use crate::keeper::table::Held;
use crate::keeper::{self, Link, Word};
use digest::{Digest, Of, word_of};
use shoal_runtime::journal::Journal;
use shoal_runtime::{Incarnation, clock};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use take_over::check;

/// How many values each series keeps.
const SERIES_MAX: usize = 1 << 20;

/// Series of the journal.
#[derive(Clone, Copy)]
enum Series {
    Verdicts = 0,
    Recoveries = 1,
    TakeOvers = 2,
}

/// What a swarm that has a keeper knows besides.
pub(super) struct Kept {
    /// The words that keeper, guard and all supervisors share, and the series.
    pub(super) journal: Arc<Journal>,
    /// What holds the records: the same, or one that was made when the swarm was changed (`swarm/stand.rs`).
    pub(super) records: Arc<Journal>,
    /// The descriptor of the latter.
    pub(super) named: Option<OwnedFd>,
    touched: BTreeSet<usize>,
    /// What the companions want to be kept.
    companions: Vec<(String, Vec<u8>)>,
    /// The trials as they were written, and their version.
    trials: (u64, Vec<u8>),
    stage_due_ns: u64,
    complained: bool,
    watching_ns: u64,
    /// Of a take-over.
    courtesy: Courtesy,
    /// Whose descriptors were taken over unchecked, and are checked in turns.
    unchecked: Range<usize>,
    /// What was found to be another when its record was to be written anew.
    contradiction: Option<io::Error>,
}

impl Kept {
    /// What is known before anything was written.
    fn of(journal: Arc<Journal>) -> Kept {
        Kept {
            records: journal.clone(),
            journal,
            named: None,
            touched: BTreeSet::new(),
            companions: Vec::new(),
            trials: Default::default(),
            stage_due_ns: 0,
            complained: false,
            watching_ns: 0,
            courtesy: Courtesy::default(),
            unchecked: 0..0,
            contradiction: None,
        }
    }

    /// All agents, of so many, are to be written.
    pub(super) fn touch_all(&mut self, agents: usize) {
        self.touched.extend(0..agents);
    }

    /// Whose descriptors are not checked yet.
    pub(super) fn unchecked(&self) -> Range<usize> {
        self.unchecked.clone()
    }

    /// An agent's record is about to be written anew, and what it named can be compared no more.
    pub(super) fn check_before(&mut self, agent: usize, entry: &Agent) {
        if self.unchecked.contains(&agent) && self.contradiction.is_none() {
            self.contradiction = check(&self.records, agent, entry).err();
        }
    }
}

impl Timer {
    /// Those that belong to an agent's state, and are armed again by a successor.
    const KEPT: [Timer; 3] = [Timer::Ready, Timer::Stop, Timer::Backoff];
}

/// When a moment of CLOCK_MONOTONIC is.
pub(crate) fn instant_of(at_ns: u64) -> Instant {
    let (now, now_ns) = (Instant::now(), clock::now_ns());
    match at_ns.checked_sub(now_ns) {
        Some(ahead_ns) => now + Duration::from_nanos(ahead_ns),
        None => now.checked_sub(Duration::from_nanos(now_ns - at_ns)).unwrap_or(now),
    }
}

/// An instant as CLOCK_MONOTONIC, ns.
pub(crate) fn ns_of(at: Instant) -> u64 {
    let (now, now_ns) = (Instant::now(), clock::now_ns());
    match at.checked_duration_since(now) {
        Some(ahead) => now_ns + ahead.as_nanos() as u64,
        None => now_ns.saturating_sub((now - at).as_nanos() as u64),
    }
}

impl Swarm {
    /// Prepares for a keeper: makes the journal, and lets agents be the keeper's children. Before the split.
    ///
    /// # Errors
    /// No address space.
    pub fn keep(&mut self, link: Link) -> io::Result<Arc<Journal>> {
        let sizes = room_for(self.file.history, self.agents.iter().map(|agent| &agent.shape));
        let words = words_for(self.agents.len());
        let journal = Arc::new(Journal::create(words, &sizes, &[SERIES_MAX, SERIES_MAX, SERIES_MAX])?);
        self.cradle.spawner.keep(link, journal.clone());
        self.kept = Some(Kept::of(journal.clone()));
        Ok(journal)
    }

    /// The journal, if there is a keeper.
    pub fn journal(&self) -> Option<&Journal> {
        self.kept.as_ref().map(|kept| &*kept.journal)
    }

    /// How long take-overs took, from a supervisor's death to when its successor watches everything, ns.
    pub fn take_overs_ns(&self) -> Vec<u64> {
        self.journal().map_or(Vec::new(), |journal| journal.series(Series::TakeOvers as usize))
    }

    /// How many supervisors of it were killed.
    pub fn supervisor_kills(&self) -> u64 {
        self.journal().map_or(0, |journal| keeper::word(journal, Word::Kills))
    }

    /// Whether supervisors may be killed on purpose from here on.
    pub fn let_supervisors_be_killed(&self, may: bool) {
        if let Some(journal) = self.journal() {
            keeper::set_word(journal, Word::Storm, may.into());
        }
    }

    /// Something about an agent may have changed.
    pub fn touch(&mut self, agent: usize) {
        if let Some(kept) = &mut self.kept {
            kept.touched.insert(agent);
        }
    }

    /// Keeps something for a companion's successor.
    pub fn keep_for(&mut self, name: &str, bytes: Vec<u8>) {
        let Some(kept) = &mut self.kept else { return };
        match kept.companions.iter_mut().find(|(of, _)| of == name) {
            Some((_, held)) => *held = bytes,
            None => kept.companions.push((name.to_owned(), bytes)),
        }
    }

    /// What a companion's predecessor had kept.
    pub fn kept_for(&self, name: &str) -> Option<&[u8]> {
        let companions = &self.kept.as_ref()?.companions;
        companions.iter().find(|(of, _)| of == name).map(|(_, bytes)| &bytes[..])
    }

    pub(super) fn note_stage_due(&mut self, due: Instant) {
        if let Some(kept) = &mut self.kept {
            kept.stage_due_ns = ns_of(due);
        }
    }

    /// Not all links that an agent is to know were handed over and taken: a successor hands them over again. Or all were.
    pub(super) fn note_post(&self, agent: usize, done: bool) {
        if let Some(kept) = &self.kept {
            kept.records.set_word(word_of(agent, Of::Post), u64::from(!done));
        }
    }

    /// All descriptors of a life are watched: a successor inherits that.
    pub fn note_watched(&self, of: Incarnation) {
        let agent = of.agent as usize;
        let is_its = self.agents[agent].live.as_ref().is_some_and(|live| live.incarnation == of);
        if let Some(kept) = self.kept.as_ref().filter(|_| is_its) {
            kept.records.set_word(word_of(agent, Of::Watched), of.generation.into());
        }
    }

    /// Gives back the pages of the records: they are for a successor, and a supervisor that dies with them takes longer to be gone.
    pub fn leave_records(&self) {
        if let Some(kept) = &self.kept {
            kept.records.leave_pages();
        }
    }

    /// Writes what was touched since the last time.
    pub fn write_journal(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let touched = std::mem::take(&mut kept.touched);
        touched.into_iter().for_each(|agent| self.write_agent(agent));
        self.write_swarm();
    }

    /// Writes one agent's record.
    pub(super) fn write_agent(&mut self, agent: usize) {
        let Some(kept) = &mut self.kept else { return };
        kept.touched.remove(&agent);
        kept.check_before(agent, &self.agents[agent]);
        let record = agent_record(&self.agents[agent]);
        Digest::clear(&kept.records, agent);
        let written = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&record)
            .map_err(|error| error.to_string())
            .and_then(|bytes| kept.records.write(1 + agent, &bytes).map_err(|error| format!("{error:?}")));
        if let Some(digest) = Digest::of(&record).filter(|_| written.is_ok()) {
            digest.write(&kept.records, agent);
        }
        self.complain(written.err());
    }

    /// Writes the record of the swarm as a whole.
    pub(super) fn write_swarm(&mut self) {
        let upgrade = self.upgrade_record();
        let Some(kept) = &mut self.kept else { return };
        if kept.trials.0 != self.trials.version() {
            kept.trials = (self.trials.version(), self.trials.to_json(SWARM_BYTES_MAX / 2));
        }
        let record = SwarmRecord {
            ends: match self.ends {
                Ends::No => 0,
                Ends::Killed => 1,
                Ends::Undone => 2,
                Ends::Stage(stage) => stage as u64 + 3,
            },
            stage_due_ns: kept.stage_due_ns,
            waiting: self.waiting.iter().map(|agent| *agent as u64).collect(),
            failed_start: self.failed_start.clone(),
            escalated: self.escalated.clone(),
            kills_proven: self.kills_proven,
            accusations: self.accusations,
            owners: self.groups.owners(),
            batch: self.postman.batch,
            letters: self.dead_letters.next(),
            trials: kept.trials.1.clone(),
            companions: kept.companions.clone(),
            happenings: self.happenings.to_json(),
            sets: self.supervision.standing(),
            called: self.called.iter().map(|agent| *agent as u64).collect(),
            struck: self.struck.iter().map(|agent| *agent as u64).collect(),
            again: self.again.iter().map(|(agent, generation)| (*agent as u64, *generation)).collect(),
            upgrade,
        };
        for (series, values) in
            [(Series::Verdicts, &self.verdicts_ns), (Series::Recoveries, &self.recoveries_ns)]
        {
            let held = kept.journal.series_len(series as usize);
            kept.journal.extend(series as usize, values.get(held..).unwrap_or_default());
        }
        let written = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&record)
            .map_err(|error| error.to_string())
            .and_then(|bytes| kept.records.write(0, &bytes).map_err(|error| format!("{error:?}")));
        self.complain(written.err());
    }

    /// A record that cannot be written is told once.
    pub(super) fn complain(&mut self, error: Option<String>) {
        let (Some(kept), Some(error)) = (&mut self.kept, error) else { return };
        keeper::set_word(&kept.journal, Word::Unsure, 1);
        if !std::mem::replace(&mut kept.complained, true) {
            self.notice(&format!("the journal cannot be written, a successor will know less: {error}"));
        }
    }
}

fn number_of(state: State) -> u8 {
    State::ALL.iter().position(|known| *known == state).unwrap_or_default() as u8
}

fn agent_record(agent: &Agent) -> AgentRecord {
    let whole = &agent.last_state;
    AgentRecord {
        state: number_of(agent.state),
        stand_in: agent.stand_in.map(number_of),
        state_serial: agent.state_serial,
        generation: agent.generation,
        numbered: agent.numbered,
        streak: agent.intensity.streak(),
        live: agent.live.as_ref().map(live_record),
        graves: agent.graves.iter().map(grave_record).collect(),
        last: VerdictRecord::of(&agent.last),
        last_state: shoal_runtime::state::used(whole).to_vec(),
        last_state_bytes: whole.len() as u64,
        was_ready: agent.was_ready,
        restarts: agent.restarts,
        rescues: agent.rescues,
        hangs: agent.hangs,
        faults: agent.faults,
        past: (agent.past.sent, agent.past.received),
        past_latency: agent.past.latency.counts().to_vec(),
        died_at: agent.died_at,
        last_ending: agent.last_ending.clone(),
        last_crash: agent.last_crash.as_ref().map(|crash| (crash.generation, crash.how.clone(), crash.at)),
        paused: agent.paused,
        timer: agent.timer.and_then(|(timer, due, serial)| {
            let kind = Timer::KEPT.iter().position(|kept| *kept == timer)?;
            Some((kind as u8, ns_of(due), serial))
        }),
    }
}

fn live_record(live: &Live) -> LiveRecord {
    LiveRecord {
        generation: live.incarnation.generation,
        owner: live.owner,
        pid: live.child.pid,
        pidfd: Held::new(&live.child.pidfd),
        control: Held::new(&live.control),
        segment: Held::new(&live.segment),
        doorbell: Held::new(&live.doorbell),
        pipes: live.pipes.each_ref().map(|pipe| pipe.as_ref().map_or(Held::NONE, Held::new)),
        read_only: live.sealed.as_ref().map_or(Held::NONE, |sealed| Held::new(&sealed.read_only)),
        going: live.going,
        begun: live.begun,
        by: live.by.clone(),
        born_ns: ns_of(live.born),
        killed_ns: live.killed_ns,
        violated_ns: live.violated_ns,
        ordered: live.ordered,
    }
}

fn grave_record(grave: &Grave) -> GraveRecord {
    GraveRecord {
        generation: grave.incarnation.generation,
        read_only: Held::new(&grave.read_only),
        doorbell: Held::new(&grave.doorbell),
        ends: grave.ends.iter().map(record::words).collect(),
    }
}
