//! The take-over: what a journal says, reconciled with what is. What is written into it: `swarm/kept.rs`.

use super::digest::{Beside, Digest, Of, named_by, word_of};
use super::{Series, instant_of};
use crate::agent::{Agent, Crash, Grave, Live, Post, Sealed, Totals};
use crate::child::{Event, Next, State};
use crate::ended::Ending;
use crate::events::Kind;
use crate::keeper::table::{self, Held};
use crate::keeper::{self, Word};
use crate::log::Level;
use crate::spawn::Child;
use crate::swarm::record::{self, AgentRecord, LiveRecord, SwarmRecord};
use crate::swarm::{Effect, Ends, Swarm, Timer};
use shoal_runtime::again::is_passing;
use shoal_runtime::desk::Histogram;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::journal::Journal;
use shoal_runtime::{Incarnation, clock, segment};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// So many lives are checked in a turn of the loop that has nothing else to do.
const CHECKED_AT_ONCE: usize = 8;

fn gone(what: &str) -> io::Error {
    io::Error::other(format!("taking over: the {what} that the journal names is not open, or is another"))
}

pub(in crate::swarm) fn claim(held: Held, what: &str) -> io::Result<OwnedFd> {
    table::claim(held).ok_or_else(|| gone(what))
}

/// After so many agents that are restored whoever waits for this processor has it.
const IN_ONE_GO: usize = 4;
/// After so many that are put off.
const PUT_OFF_IN_ONE_GO: usize = 64;

/// What follows from the records of agents.
#[derive(Default)]
struct Found {
    /// Of which agent: what for, when, in which state.
    timers: Vec<(usize, (u8, u64, u64))>,
    /// Who is restored, and goes on with what was under way.
    at_once: Vec<usize>,
}

impl Swarm {
    /// Whether the start was made, here or by a predecessor.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether this supervisor is not the first.
    pub fn is_successor(&self) -> bool {
        self.journal().is_some_and(|journal| keeper::word(journal, Word::Lives) > 1)
    }

    /// What the predecessor was told since it last waited, but for what ended its wait as it died; `None` when that is not known.
    pub fn told_before(&self) -> Option<Vec<u64>> {
        keeper::told(self.journal()?)
    }

    /// Notes for a successor what this supervisor was told.
    pub fn note_told(&self, told: impl ExactSizeIterator<Item = u64>) {
        if let Some(journal) = self.journal() {
            keeper::note_told(journal, told);
        }
    }

    /// Instead of the start: takes over from a supervisor that died. `open` is what was open at the split.
    ///
    /// # If we die here
    /// The next one does the same.
    ///
    /// # Errors
    /// The journal contradicts what is open: somebody wrote over it. Or something is lacking, that may be there for the next one.
    pub fn take_over(&mut self, open: &BTreeSet<RawFd>, logs: &Path) -> io::Result<()> {
        self.give_way();
        let mut open = open.clone();
        self.follow_stand(&mut open)?;
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let (journal, held) = (kept.journal.clone(), kept.records.clone());
        kept.courtesy.give_way();
        let record = read::<SwarmRecord, _>(&held, 0)?;
        kept.courtesy.give_way();
        let sure = keeper::word(&journal, Word::Unsure) == 0;
        let mut known = Vec::from_iter(open);
        let Found { timers, at_once } = self.find_agents(&held, (record.is_some(), sure), &mut known)?;
        self.cradle.spawner.begin_link();
        // From here on something may be opened.
        table::close_others(known)?;
        self.give_way();
        // Without it, it died before the start.
        let Some(record) = record else { return Ok(()) };
        self.begun = true;
        self.records.take_over(logs);
        self.give_way();
        self.restore_swarm(&journal, record);
        self.give_way();
        let number = keeper::word(&journal, Word::Lives);
        let how = match keeper::ended(&journal) {
            Some(Ending::Exited(status)) if status == i32::from(keeper::PANICKED) => "panicked".to_owned(),
            Some(Ending::Exited(status)) if status == i32::from(keeper::LACKED) => {
                "lacked something".to_owned()
            }
            ended => ended.map_or_else(|| "died".to_owned(), |ended| ended.to_string()),
        };
        let text =
            format!("the supervisor {how}: number {number} takes over, the agents have gone on meanwhile");
        self.tell(Level::Warn, Kind::TakeOver, None, &text);
        self.give_way();
        for &agent in &at_once {
            self.see_sealed(agent)?;
            self.give_way_after(agent);
        }
        // Who was started after that was written waits no longer.
        let agents = &self.agents;
        self.waiting.retain(|&agent| agents[agent].state.is_at_rest() && agents[agent].live.is_none());
        // What was cloned and never written down, and orphans.
        self.end_strays_later();
        for &agent in &at_once {
            self.go_on_with(agent);
            self.give_way_after(agent);
        }
        self.give_way();
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
        self.give_way();
        // Its predecessor's standbys are ended as nobody's.
        for config in self.reared.clone() {
            let instances: Vec<usize> = self.topology.instances(config).collect();
            instances.into_iter().for_each(|agent| self.refill(agent));
            self.tend(config);
        }
        self.give_way();
        self.look_soon();
        self.watch_on();
        self.give_way();
        Ok(())
    }

    /// Restores those that call for something, or all if it is not sure that the records are whole; of all others the journal says what
    /// a successor has to know at once. Their descriptors are known.
    fn find_agents(
        &mut self,
        held: &Arc<Journal>,
        (begun, sure): (bool, bool),
        known: &mut Vec<RawFd>,
    ) -> io::Result<Found> {
        let (mut found, mut put_off) = (Found::default(), Vec::new());
        for agent in 0..self.agents.len() {
            let request = self.board.view().request(agent as u32);
            let calm = Digest::read(held, agent).filter(|it| it.holds(Beside::read(held, agent, request)));
            if let Some(digest) = calm.filter(|_| begun && sure) {
                known.extend(digest.fds);
                put_off.push(agent);
                if put_off.len() % PUT_OFF_IN_ONE_GO == 0 {
                    self.give_way();
                }
                continue;
            }
            let Some(record) = read::<AgentRecord, _>(held, 1 + agent)? else { continue };
            known.extend(descriptors(&record));
            if begun {
                found.timers.extend(record.timer.map(|timer| (agent, timer)));
                found.at_once.push(agent);
                let (board, of) = (self.board.view(), agent as u32);
                let named = board.generation(of).max(board.last_verdict(of));
                let entry = &mut self.agents[agent];
                restore(entry, agent, record, sure)?;
                // One that was used and not written down is not used again.
                entry.numbered = entry.numbered.max(named);
            }
            self.give_way_after(agent);
        }
        let held = held.clone();
        let restore = move |agent: usize, entry: &mut Agent| {
            let record = read::<AgentRecord, _>(&held, 1 + agent);
            let record =
                record.and_then(|record| record.ok_or_else(|| gone(&format!("record of agent {agent}"))));
            // Somebody wrote over it: a death.
            record
                .and_then(|record| restore(entry, agent, record, true))
                .unwrap_or_else(|error| panic!("{error}"));
        };
        self.agents.put_off(&put_off, Box::new(restore));
        if let Some(kept) = self.kept.as_mut().filter(|_| begun && sure) {
            kept.unchecked = 0..self.agents.len();
        }
        Ok(found)
    }

    /// Lets whoever waits for this processor have it: they answer each other meanwhile.
    pub fn give_way(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.courtesy.give_way();
        }
    }

    fn give_way_after(&mut self, agent: usize) {
        if agent % IN_ONE_GO == IN_ONE_GO - 1 {
            self.give_way();
        }
    }

    /// What a take-over needs. If it is lacking this supervisor ends as by any death, and the next one may find it. To be asked while all that was
    /// taken over is still held: what is let go of is closed, for the next one, too.
    ///
    /// # Errors
    /// Those that do not pass.
    pub(in crate::swarm) fn or_leave<T>(&mut self, needed: io::Result<T>) -> io::Result<T> {
        if let Some(error) = needed.as_ref().err().filter(|error| is_passing(error)) {
            self.remark(
                Level::Warn,
                &format!("the supervisor cannot take over: {error}; the next one tries it"),
            );
            keeper::leave_to_next();
        }
        needed
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

    /// Whether something was taken over that is not checked yet.
    pub fn is_unchecked(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.unchecked.is_empty())
    }

    /// Restores whoever was put off, while others have their turns: before somebody asks about all agents in one go.
    pub fn recollect(&mut self) {
        for agent in 0..self.agents.len() {
            if !self.agents.any_put_off() {
                return;
            }
            self.agents.get(agent);
            self.give_way_after(agent);
        }
    }

    /// Checks some of what was taken over unchecked, of who still lives: more of it when nothing else is to be done.
    ///
    /// # Errors
    /// The journal contradicts what is open: somebody wrote over it.
    pub fn check_taken_over(&mut self, idle: bool) -> io::Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.contradiction.take().map_or(Ok(()), Err)?;
        if kept.unchecked.is_empty() {
            return Ok(());
        }
        let records = kept.records.clone();
        let rest = kept.unchecked.clone();
        let at_once = rest.start..rest.end.min(rest.start + if idle { CHECKED_AT_ONCE } else { 1 });
        kept.unchecked.start = at_once.end;
        for agent in at_once {
            check(&records, agent, &self.agents[agent])?;
            self.hear_bell(agent);
        }
        self.agents.forget_put_off();
        if !self.is_unchecked() {
            self.leave_records();
        }
        self.give_way();
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
            2 => Ends::Undone,
            stage => Ends::Stage(stage as usize - 3),
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

    /// An incarnation of which the journal says that it is not sealed: it may have been since, and its peers may know it. The kernel knows.
    fn see_sealed(&mut self, agent: usize) -> io::Result<()> {
        let Agent { shape, live: Some(live), .. } = &self.agents[agent] else { return Ok(()) };
        if live.sealed.is_some() || !segment::is_live_sealed(&live.segment) {
            return Ok(());
        }
        let reopened = segment::reopen_read_only(&live.segment);
        let sealed = reopened.and_then(|read_only| Sealed::new(read_only, shape, live.incarnation));
        let sealed = self.or_leave(sealed)?;
        if let Some(live) = &mut self.agents[agent].live {
            live.sealed = Some(sealed);
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
            live.kill(self.cradle.urgency);
            return;
        }
        self.hear_bell(agent);
        if self.ends == Ends::No {
            self.ask_to_pause(agent);
        }
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
        hung_ns: None,
        ordered: record.ordered,
        dead_since: None,
    })
}

/// Makes an agent what a record says.
fn restore(entry: &mut Agent, agent: usize, record: AgentRecord, sure: bool) -> io::Result<()> {
    let mine = |generation| Incarnation { agent: agent as u32, generation };
    let live = record.live.map(|live| restore_live(mine(live.generation), &entry.shape, live, sure));
    let graves = record.graves.into_iter().map(|grave| {
        Ok(Grave {
            incarnation: mine(grave.generation),
            read_only: claim(grave.read_only, "segment of a dead incarnation")?,
            doorbell: Doorbell::from_fd(claim(grave.doorbell, "doorbell of a dead incarnation")?),
            ends: grave.ends.iter().map(record::place).collect(),
        })
    });
    entry.live = live.transpose()?;
    entry.graves = graves.collect::<io::Result<_>>()?;
    entry.state = state_of(record.state);
    entry.stand_in = record.stand_in.map(state_of);
    entry.state_serial = record.state_serial;
    entry.generation = record.generation;
    entry.numbered = record.numbered;
    entry.intensity.restore(record.streak);
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

/// Compares the descriptors of an agent's life with what its record names; what was written since the take-over is compared before that.
///
/// # Errors
/// One is of something else.
pub(super) fn check(records: &Journal, agent: usize, entry: &Agent) -> io::Result<()> {
    let record = read::<AgentRecord, _>(records, 1 + agent)?.and_then(|record| record.live);
    let (Some(record), Some(live)) = (record, &entry.live) else { return Ok(()) };
    if record.generation != live.incarnation.generation || is_as_named(&record, live) {
        return Ok(());
    }
    Err(gone(&format!("process, memory, socket or pipe of {}", live.incarnation)))
}

/// Whether the descriptors of a life are of what its record names.
fn is_as_named(record: &LiveRecord, live: &Live) -> bool {
    let [pidfd, control, segment, doorbell, out, err, read_only] = named_by(record);
    let [ours_out, ours_err] = &live.pipes;
    let is = |held: Held, fd: Option<&OwnedFd>| held == Held::NONE || fd.is_none_or(|fd| held.is(fd));
    is(pidfd, Some(&live.child.pidfd))
        && is(control, Some(&live.control))
        && is(segment, Some(&live.segment))
        && doorbell.is(&live.doorbell)
        && is(out, ours_out.as_ref())
        && is(err, ours_err.as_ref())
        && is(read_only, live.sealed.as_ref().map(|sealed| &sealed.read_only))
}

/// Reads a record; `None` when it was never written.
pub(in crate::swarm) fn read<T, A>(journal: &Journal, index: usize) -> io::Result<Option<T>>
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

/// A state, by its place in `State::ALL`.
fn state_of(number: u8) -> State {
    State::ALL.get(number as usize).copied().unwrap_or(State::Failed)
}

#[cfg(test)]
mod tests;
