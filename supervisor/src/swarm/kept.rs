//! The swarm's journal: what is written for a successor, and the take-over, which reconciles it with what is.
//!
//! Written: at the end of every batch of events, for the agents that it touched; and at once where others are about to act on it
//! (an incarnation exists, it is told to begin, a death is ordered, a question of an agent is dropped). Whatever was done since the
//! last writing is found by looking: at the board, at the seals of a segment, at the children of the keeper. So a take-over may die at
//! any point, too, and the next one does the same again.

use super::record::{self, AgentRecord, GraveRecord, LiveRecord, SwarmRecord, VerdictRecord};
use super::stand::{SWARM_BYTES_MAX, room_for};
use super::{Effect, Ends, Swarm, Timer};
use crate::agent::{Agent, Crash, Grave, Live, Post, Sealed, Totals};
use crate::child::{Event, Next, State};
use crate::events::Kind;
use crate::keeper::table::{self, Held};
use crate::keeper::{self, Link, Word};
use crate::log::Level;
use crate::spawn::Child;
use shoal_runtime::desk::Histogram;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::journal::Journal;
use shoal_runtime::{Incarnation, clock, segment};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Words before those of the agents: the keeper's, and room.
const WORDS: usize = 64;
/// How many values each series keeps.
const SERIES_MAX: usize = 1 << 20;

/// Words of a journal for so many agents.
pub(super) fn words_for(agents: usize) -> usize {
    WORDS + agents * OF_AGENT
}

/// Words of each agent.
const OF_AGENT: usize = 2;

/// What an agent's words say.
#[derive(Clone, Copy)]
enum Of {
    /// 1: not all that it is to be handed was handed over.
    Post = 0,
    /// Of which life of it all descriptors are watched.
    Watched = 1,
}

fn word_of(agent: usize, which: Of) -> usize {
    WORDS + agent * OF_AGENT + which as usize
}

/// Copies what the words of so many agents say.
pub(super) fn copy_words(from: &Journal, to: &Journal, agents: usize) {
    (WORDS..words_for(agents)).for_each(|index| to.set_word(index, from.word(index)));
}

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
    /// What was taken over unchecked, and is checked in turns.
    unchecked: Vec<Unchecked>,
}

/// The descriptors of an agent's life, as a predecessor has named them.
struct Unchecked {
    agent: usize,
    generation: u32,
    fds: [Held; FDS],
}

/// How many descriptors a life has at most.
const FDS: usize = 7;
/// So many lives are checked in a turn of the loop that has nothing else to do.
const CHECKED_AT_ONCE: usize = 32;

impl Kept {
    /// All agents, of so many, are to be written.
    pub(super) fn touch_all(&mut self, agents: usize) {
        self.touched.extend(0..agents);
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

fn gone(what: &str) -> io::Error {
    io::Error::other(format!("taking over: the {what} that the journal names is not open, or is another"))
}

pub(super) fn claim(held: Held, what: &str) -> io::Result<OwnedFd> {
    table::claim(held).ok_or_else(|| gone(what))
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
        self.cradle.spawner.keep(link);
        self.kept = Some(Kept {
            journal: journal.clone(),
            records: journal.clone(),
            named: None,
            touched: BTreeSet::new(),
            companions: Vec::new(),
            trials: Default::default(),
            stage_due_ns: 0,
            complained: false,
            watching_ns: 0,
            unchecked: Vec::new(),
        });
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
        let record = agent_record(&self.agents[agent]);
        let written = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&record)
            .map_err(|error| error.to_string())
            .and_then(|bytes| kept.records.write(1 + agent, &bytes).map_err(|error| format!("{error:?}")));
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
                Ends::Stage(stage) => stage as u64 + 2,
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

    /// Whether the start was made, here or by a predecessor.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether this supervisor is not the first.
    pub fn is_successor(&self) -> bool {
        self.journal().is_some_and(|journal| keeper::word(journal, Word::Lives) > 1)
    }

    /// Instead of the start: takes over from a supervisor that died. `open` is what was open at the split.
    ///
    /// # If we die here
    /// The next one does the same.
    ///
    /// # Errors
    /// The journal contradicts what is open: somebody wrote over it.
    pub fn take_over(&mut self, open: &BTreeSet<RawFd>, logs: &Path) -> io::Result<()> {
        let mut open = open.clone();
        self.follow_stand(&mut open)?;
        let Some(kept) = &self.kept else { return Ok(()) };
        let (journal, held) = (kept.journal.clone(), kept.records.clone());
        let record = read::<SwarmRecord, _>(&held, 0)?;
        let sure = keeper::word(&journal, Word::Unsure) == 0;
        let (mut known, mut timers) = (Vec::from_iter(open), Vec::new());
        for agent in 0..self.agents.len() {
            let Some(of_agent) = read::<AgentRecord, _>(&held, 1 + agent)? else { continue };
            known.extend(descriptors(&of_agent));
            if record.is_some() {
                timers.extend(of_agent.timer.map(|timer| (agent, timer)));
                self.restore_agent(agent, of_agent, sure)?;
            }
        }
        self.cradle.spawner.begin_link();
        // From here on something may be opened.
        table::close_others(known)?;
        // Without it, it died before the start.
        let Some(record) = record else { return Ok(()) };
        self.begun = true;
        self.records.take_over(logs);
        self.restore_swarm(&journal, record);
        let number = keeper::word(&journal, Word::Lives);
        let text =
            format!("the supervisor died: number {number} takes over, the agents have gone on meanwhile");
        self.tell(Level::Warn, Kind::TakeOver, None, &text);
        (0..self.agents.len()).try_for_each(|agent| self.see_sealed(agent))?;
        // Who was started after that was written waits no longer.
        let agents = &self.agents;
        self.waiting.retain(|&agent| agents[agent].state.is_at_rest() && agents[agent].live.is_none());
        // What was cloned and never written down, and orphans.
        self.strays.put_off();
        for agent in 0..self.agents.len() {
            self.go_on_with(agent);
        }
        for (agent, (what, due_ns, serial)) in timers {
            if let Some(&timer) = Timer::KEPT.get(what as usize)
                && self.agents[agent].state_serial == serial
            {
                self.agents[agent].timer = Some((timer, instant_of(due_ns), serial));
                self.effects.push(Effect::Arm(instant_of(due_ns), agent, timer, serial));
            }
        }
        if let Ends::Stage(stage) = self.ends {
            let due_ns = self.kept.as_ref().map_or(0, |kept| kept.stage_due_ns);
            self.effects.push(Effect::Arm(instant_of(due_ns), stage, Timer::Stage, 0));
        }
        self.go_on_changing();
        self.start_due();
        // Its predecessor's standbys are ended as nobody's.
        (0..self.agents.len()).for_each(|agent| self.refill(agent));
        (0..self.file.agents.len()).for_each(|config| self.tend(config));
        self.look_again_for_sleepers();
        self.watch_on();
        Ok(())
    }

    /// What an operator had asked for, and was under way.
    fn go_on_changing(&mut self) {
        self.act_on_exchange();
        match self.ends {
            Ends::No if !self.called.is_empty() => {
                self.undo("the supervisor died while it was under way: ask for it again".into());
            }
            _ => self.called.clear(),
        }
        self.go_on_upgrading();
    }

    /// Whatever is watched is watched anew.
    pub fn watch_all_anew(&mut self) {
        let lives = self.agents.iter().filter_map(|agent| agent.live.as_ref());
        self.effects.extend(lives.map(|live| Effect::Watch(live.incarnation)));
    }

    /// Whether something was taken over that is not checked yet, or strays were not looked for.
    pub fn is_unchecked(&self) -> bool {
        self.strays.are_put_off() || self.kept.as_ref().is_some_and(|kept| !kept.unchecked.is_empty())
    }

    /// Checks some of what was taken over unchecked, of who still lives: more of it when nothing else is to be done.
    ///
    /// # Errors
    /// The journal contradicts what is open: somebody wrote over it.
    pub fn check_taken_over(&mut self, idle: bool) -> io::Result<()> {
        self.end_strays_put_off(idle);
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let rest = kept.unchecked.len().saturating_sub(if idle { CHECKED_AT_ONCE } else { 1 });
        for Unchecked { agent, generation, fds } in kept.unchecked.drain(rest..) {
            let of = Incarnation { agent: agent as u32, generation };
            let Some(live) = self.agents[agent].live.as_ref().filter(|live| live.incarnation == of) else {
                continue;
            };
            let [pidfd, control, segment, doorbell, out, err, read_only] = fds;
            let [ours_out, ours_err] = &live.pipes;
            let is = |held: Held, fd: Option<&OwnedFd>| held == Held::NONE || fd.is_none_or(|fd| held.is(fd));
            let all = is(pidfd, Some(&live.child.pidfd))
                && is(control, Some(&live.control))
                && is(segment, Some(&live.segment))
                && doorbell.is(&live.doorbell)
                && is(out, ours_out.as_ref())
                && is(err, ours_err.as_ref())
                && is(read_only, live.sealed.as_ref().map(|sealed| &sealed.read_only));
            if !all {
                return Err(gone(&format!("process, memory, socket or pipe of {of}")));
            }
        }
        if rest == 0 {
            kept.unchecked = Vec::new();
        }
        Ok(())
    }

    /// Everything is watched: notes how long the take-over took.
    pub fn note_taken_over(&mut self) {
        let Some(journal) = self.journal() else { return };
        let now_ns = clock::now_ns();
        let killed_ns = keeper::word(journal, Word::KilledAt);
        // Who kills on purpose knows when; the keeper knows when it found it dead.
        let died_ns = if killed_ns > 0 { killed_ns } else { keeper::word(journal, Word::DiedAt) };
        let number = keeper::word(journal, Word::Lives);
        if number > 1 {
            journal.extend(Series::TakeOvers as usize, &[now_ns.saturating_sub(died_ns)]);
        }
        keeper::set_word(journal, Word::KilledAt, 0);
        keeper::set_word(journal, Word::Watching, number);
        if let Some(kept) = &mut self.kept {
            kept.watching_ns = now_ns;
        }
    }

    /// Since when this supervisor watches all agents, CLOCK_MONOTONIC ns; 0 without a keeper.
    pub fn watching_ns(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.watching_ns)
    }

    fn restore_swarm(&mut self, journal: &Journal, record: SwarmRecord) {
        self.ends = match record.ends {
            0 => Ends::No,
            1 => Ends::Killed,
            stage => Ends::Stage(stage as usize - 2),
        };
        self.waiting = record.waiting.iter().map(|agent| *agent as usize).collect();
        self.failed_start = record.failed_start;
        self.escalated = record.escalated;
        self.kills_proven = record.kills_proven;
        self.accusations = record.accusations;
        self.groups.restore_owners(record.owners);
        self.postman.batch = record.batch;
        self.happenings.put_back(&record.happenings);
        self.supervision.restore(record.sets);
        self.called = record.called.iter().map(|agent| *agent as usize).collect();
        self.struck = record.struck.iter().map(|agent| *agent as usize).collect();
        self.again = record.again.iter().map(|(agent, generation)| (*agent as usize, *generation)).collect();
        if let Some(upgrade) = record.upgrade {
            self.restore_upgrade(upgrade);
        }
        self.dead_letters.restore_next(record.letters);
        self.trials.restore(&record.trials);
        self.verdicts_ns = journal.series(Series::Verdicts as usize);
        self.recoveries_ns = journal.series(Series::Recoveries as usize);
        if let Some(kept) = &mut self.kept {
            kept.stage_due_ns = record.stage_due_ns;
            kept.companions = record.companions;
        }
    }

    fn restore_agent(&mut self, agent: usize, record: AgentRecord, sure: bool) -> io::Result<()> {
        let shape = &self.agents[agent].shape;
        let named =
            self.board.view().generation(agent as u32).max(self.board.view().last_verdict(agent as u32));
        let mine = |generation| Incarnation { agent: agent as u32, generation };
        if let (Some(live), Some(kept)) = (&record.live, self.kept.as_mut().filter(|_| sure)) {
            kept.unchecked.push(Unchecked { agent, generation: live.generation, fds: named_by(live) });
        }
        let live =
            record.live.map(|live| restore_live(mine(live.generation), shape, live, sure)).transpose()?;
        let graves = record.graves.into_iter().map(|grave| {
            Ok(Grave {
                incarnation: mine(grave.generation),
                read_only: claim(grave.read_only, "segment of a dead incarnation")?,
                doorbell: Doorbell::from_fd(claim(grave.doorbell, "doorbell of a dead incarnation")?),
                ends: grave.ends.iter().map(record::place).collect(),
            })
        });
        let graves = graves.collect::<io::Result<_>>()?;
        let entry = &mut self.agents[agent];
        entry.state = State::ALL.get(record.state as usize).copied().unwrap_or(State::Failed);
        entry.state_serial = record.state_serial;
        // One that was used and not written down is not used again.
        entry.generation = record.generation;
        entry.numbered = record.numbered.max(named);
        entry.intensity.restore(record.streak);
        entry.live = live;
        entry.graves = graves;
        let last = record.last.verdict();
        // Who never died has what the keeper knows, which lies in memory that this process shares with it until it writes there.
        if entry.last != last {
            entry.last = last;
        }
        entry.last_state = record.last_state;
        entry.last_state.resize(record.last_state_bytes as usize, 0);
        entry.was_ready = record.was_ready;
        entry.restarts = record.restarts;
        entry.rescues = record.rescues;
        entry.hangs = record.hangs;
        entry.faults = record.faults;
        let (sent, received) = record.past;
        entry.past = Totals { sent, received, latency: Histogram::from_counts(record.past_latency) };
        entry.died_at = record.died_at;
        entry.last_ending = record.last_ending;
        entry.paused = record.paused;
        entry.last_crash = record.last_crash.map(|(generation, how, at)| Crash { generation, how, at });
        Ok(())
    }

    /// An incarnation of which the journal says that it is not sealed: it may have been since, and its peers may know it. The kernel knows.
    fn see_sealed(&mut self, agent: usize) -> io::Result<()> {
        let Agent { shape, live, .. } = &mut self.agents[agent];
        let Some(live) = live.as_mut().filter(|live| live.sealed.is_none()) else { return Ok(()) };
        if segment::is_live_sealed(&live.segment) {
            let read_only = segment::reopen_read_only(&live.segment)?;
            live.sealed = Some(Sealed::new(read_only, shape, live.incarnation)?);
        }
        Ok(())
    }

    /// An agent's record is restored, and everybody's: what was under way goes on.
    fn go_on_with(&mut self, agent: usize) {
        let state = self.agents[agent].state;
        if state == State::Draining {
            self.arm(Instant::now(), agent, Timer::Drain);
        }
        let Some(live) = &mut self.agents[agent].live else {
            match state {
                // Its set knows nothing of it, which died too early to write that down: it comes back by itself.
                State::Aside if !self.supervision.concerns(agent) => self.feed(agent, Event::Recalled),
                State::Starting => self.spawn(agent),
                // Its death was being concluded.
                state if state.may_live() => self.feed(agent, Event::Exited { normal: false, ordered: true }),
                _ => {}
            }
            return;
        };
        let incarnation = live.incarnation;
        let word = |which| self.kept.as_ref().map_or(0, |kept| kept.records.word(word_of(agent, which)));
        let (lacks, watched) = (word(Of::Post) != 0, word(Of::Watched));
        if watched != u64::from(incarnation.generation) {
            self.effects.push(Effect::Watch(incarnation));
        }
        if !live.going {
            // Nobody can tell how far its introduction got; it is not its fault. It has done nothing yet, or is a standby that has begun, whose
            // word of that is heard before its death is judged.
            live.ordered = true;
            live.kill();
            return;
        }
        self.hear_bell(agent);
        if state == State::Stopping(Next::Aside) && !self.supervision.concerns(agent) {
            self.feed(agent, Event::StartAsked);
        }
        match state {
            State::Starting => self.tell_to_begin(agent),
            // It may not have been asked yet.
            State::Stopping(Next::Rest | Next::Start | Next::Aside) => self.ask_to_stop(agent),
            _ => {}
        }
        if lacks {
            // What it has already it does not take again.
            for neighbour in self.topology.neighbours(agent) {
                self.introduce(incarnation, neighbour);
            }
            self.flush(agent);
        }
    }
}

fn restore_live(
    incarnation: Incarnation,
    shape: &shoal_runtime::layout::SegmentShape,
    record: LiveRecord,
    sure: bool,
) -> io::Result<Live> {
    let try_claim = if sure { table::take } else { table::claim };
    let claim = |held, what| try_claim(held).ok_or_else(|| gone(what));
    Ok(Live {
        incarnation,
        owner: record.owner,
        child: Child { pid: record.pid, pidfd: claim(record.pidfd, "process")?, adopted: false },
        control: claim(record.control, "control socket of a living incarnation")?,
        segment: claim(record.segment, "segment of a living incarnation")?,
        doorbell: Doorbell::from_fd(claim(record.doorbell, "doorbell of a living incarnation")?),
        pipes: record.pipes.map(try_claim),
        sealed: try_claim(record.read_only).map(|read_only| Sealed::seen_before(read_only, shape)),
        post: Post::default(),
        at_once: false,
        going: record.going,
        parked: false,
        begun: record.begun,
        by: record.by,
        asked: 0,
        born: instant_of(record.born_ns),
        killed_ns: record.killed_ns,
        violated_ns: record.violated_ns,
        ordered: record.ordered,
        dead_since: None,
    })
}

/// Reads a record; `None` when it was never written.
pub(super) fn read<T, A>(journal: &Journal, index: usize) -> io::Result<Option<T>>
where
    T: rkyv::Archive<Archived = A>,
    A: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::BoxedError>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::BoxedError>>,
{
    let Some(bytes) = journal.read(index) else { return Ok(None) };
    rkyv::from_bytes::<T, rkyv::rancor::BoxedError>(&bytes).map(Some).map_err(|error| {
        io::Error::other(format!("taking over: record {index} of the journal is not whole: {error}"))
    })
}

/// The descriptors that a record names.
fn descriptors(record: &AgentRecord) -> Vec<RawFd> {
    let live = record.live.iter().flat_map(named_by);
    let all = live.chain(record.graves.iter().flat_map(|grave| [grave.read_only, grave.doorbell]));
    all.map(|held| held.number).collect()
}

/// The same of a life.
fn named_by(live: &LiveRecord) -> [Held; FDS] {
    let LiveRecord { pidfd, control, segment, doorbell, pipes: [out, err], read_only, .. } = *live;
    [pidfd, control, segment, doorbell, out, err, read_only]
}

fn agent_record(agent: &Agent) -> AgentRecord {
    let whole = &agent.last_state;
    AgentRecord {
        state: State::ALL.iter().position(|state| *state == agent.state).unwrap_or_default() as u8,
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
