//! What a successor has to know at once of an agent that calls for nothing: a line of words in the journal, beside its record. Of a thousand agents
//! these are sixteen pages, which lie in a row; their records are hundreds, and are read when somebody asks for what they say.
//!
//! ```text
//!   word 0  Post          1: not all that it is to be handed was handed over
//!   word 1  Watched       the life of it of which all descriptors are watched
//!   word 2  Calm          the life of it that calls for nothing; 0: its record says more than this
//!   words 3 to 6          that life's descriptors, two in each
//! ```

use crate::child::State;
use crate::keeper::table::Held;
use crate::swarm::record::{AgentRecord, LiveRecord};
use shoal_runtime::board::Request;
use shoal_runtime::journal::Journal;
use std::os::fd::RawFd;

/// Words before those of the agents: the keeper's, and room.
const WORDS: usize = 64;
/// Words of each agent.
const OF_AGENT: usize = 8;
/// How many descriptors a life has at most.
pub(super) const FDS: usize = 7;

/// Words of a journal for so many agents.
pub(in crate::swarm) fn words_for(agents: usize) -> usize {
    WORDS + agents * OF_AGENT
}

/// What an agent's words say.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Post = 0,
    Watched = 1,
    Calm = 2,
    Descriptors = 3,
}

pub(super) fn word_of(agent: usize, which: Of) -> usize {
    WORDS + agent * OF_AGENT + which as usize
}

/// Copies what the words of so many agents say.
pub(in crate::swarm) fn copy_words(from: &Journal, to: &Journal, agents: usize) {
    (WORDS..words_for(agents)).for_each(|index| to.set_word(index, from.word(index)));
}

/// What is known of an agent beside its record, each in a word that stands for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// Not all that it is to be handed was handed over.
    lacks: bool,
    /// The life of it of which all descriptors are watched.
    watched: u64,
    /// What it is asked for, by the board.
    request: Request,
}

impl Beside {
    /// What a journal and, by the caller, the board say.
    pub(super) fn read(journal: &Journal, agent: usize, request: Request) -> Beside {
        let word = |which| journal.word(word_of(agent, which));
        Beside { lacks: word(Of::Post) != 0, watched: word(Of::Watched), request }
    }
}

/// An agent that calls for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Digest {
    /// Which life of it.
    pub(super) generation: u32,
    /// Its descriptors; negative for none.
    pub(super) fds: [RawFd; FDS],
}

impl Digest {
    /// Of an agent of which nothing follows for a successor: it is ready, and asked for nothing. `None` of all others.
    pub(super) fn of(record: &AgentRecord) -> Option<Digest> {
        let live = record
            .live
            .as_ref()
            .filter(|live| live.going && !live.ordered && live.read_only != Held::NONE)?;
        // A timer belongs to the state in which it was armed.
        let is_timed = record.timer.is_some_and(|(_, _, serial)| serial == record.state_serial);
        let is_asked = record.paused || record.stand_in.is_some() || !record.graves.is_empty() || is_timed;
        let is_calm = State::ALL.get(usize::from(record.state)) == Some(&State::Ready) && !is_asked;
        is_calm.then(|| Digest { generation: live.generation, fds: named_by(live).map(|held| held.number) })
    }

    /// Whether nothing follows from what is known beside it, either.
    pub(super) fn holds(&self, beside: Beside) -> bool {
        let Beside { lacks, watched, request } = beside;
        !lacks && watched == u64::from(self.generation) && request == Request::Run
    }

    /// What a predecessor has written; `None` when the agent's record is to be read.
    pub(super) fn read(journal: &Journal, agent: usize) -> Option<Digest> {
        let generation =
            u32::try_from(journal.word(word_of(agent, Of::Calm))).ok().filter(|life| *life > 0)?;
        let number = |index: usize| {
            let pair = journal.word(word_of(agent, Of::Descriptors) + index / 2);
            (pair >> (index % 2 * 32)) as u32 as RawFd
        };
        Some(Digest { generation, fds: std::array::from_fn(number) })
    }

    /// Writes it, once the agent's record says the same.
    ///
    /// # If we die here
    /// The record is read.
    pub(super) fn write(self, journal: &Journal, agent: usize) {
        for (pair, fds) in self.fds.chunks(2).enumerate() {
            let half = |index: usize| u64::from(fds.get(index).copied().unwrap_or(-1) as u32);
            journal.set_word(word_of(agent, Of::Descriptors) + pair, half(1) << 32 | half(0));
        }
        journal.set_word(word_of(agent, Of::Calm), self.generation.into());
    }

    /// There is none until it is written: the agent's record is about to change.
    pub(super) fn clear(journal: &Journal, agent: usize) {
        journal.set_word(word_of(agent, Of::Calm), 0);
    }
}

/// The descriptors of a life.
pub(super) fn named_by(live: &LiveRecord) -> [Held; FDS] {
    let LiveRecord { pidfd, control, segment, doorbell, pipes: [out, err], read_only, .. } = *live;
    [pidfd, control, segment, doorbell, out, err, read_only]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::{Intensity, Restart};
    use crate::swarm::record::{GraveRecord, VerdictRecord};

    /// A ready agent in its third life, whose descriptors have these numbers: the last pipe has ended.
    const FDS_OF_IT: [RawFd; FDS] = [20, 21, 22, 23, 24, -1, 26];

    fn calm() -> AgentRecord {
        let held = |number: RawFd| {
            let mut held = Held::NONE;
            held.number = number;
            held
        };
        let [pidfd, control, segment, doorbell, out, _, read_only] = FDS_OF_IT.map(held);
        let live = LiveRecord {
            generation: 3,
            owner: 7,
            pid: 4711,
            pidfd,
            control,
            segment,
            doorbell,
            pipes: [out, Held::NONE],
            read_only,
            going: true,
            begun: true,
            by: None,
            born_ns: 5,
            killed_ns: None,
            violated_ns: None,
            ordered: false,
        };
        AgentRecord {
            state: State::ALL.iter().position(|state| *state == State::Ready).expect("it is one") as u8,
            stand_in: None,
            state_serial: 9,
            generation: 3,
            numbered: 3,
            streak: Intensity::new(Restart::default(), 1).streak(),
            live: Some(live),
            graves: Vec::new(),
            last: VerdictRecord { generation: 0, corrupt: false, lanes: Vec::new(), inputs: Vec::new() },
            last_state: Vec::new(),
            last_state_bytes: 0,
            was_ready: true,
            restarts: 2,
            rescues: 0,
            hangs: 0,
            faults: 0,
            past: (0, 0),
            past_latency: Vec::new(),
            died_at: None,
            last_ending: None,
            last_crash: None,
            paused: false,
            // That of its start, which is void.
            timer: Some((0, 1000, 8)),
        }
    }

    #[test]
    fn who_calls_for_something_has_none() {
        assert_eq!(Digest::of(&calm()), Some(Digest { generation: 3, fds: FDS_OF_IT }));
        type Change = fn(&mut AgentRecord);
        let live: [Change; 4] = [
            |record| record.live = None,
            |record| record.live.iter_mut().for_each(|live| live.going = false),
            |record| record.live.iter_mut().for_each(|live| live.ordered = true),
            |record| record.live.iter_mut().for_each(|live| live.read_only = Held::NONE),
        ];
        let other: [Change; 4] = [
            |record| record.paused = true,
            |record| record.stand_in = Some(1),
            |record| record.timer = Some((0, 1000, 9)),
            |record| {
                let (read_only, doorbell) = (Held::NONE, Held::NONE);
                record.graves.push(GraveRecord { generation: 2, read_only, doorbell, ends: Vec::new() });
            },
        ];
        for (number, change) in live.into_iter().chain(other).enumerate() {
            let mut record = calm();
            change(&mut record);
            assert_eq!(Digest::of(&record), None, "change {number}");
        }
        for (number, state) in State::ALL.iter().enumerate() {
            let record = AgentRecord { state: number as u8, ..calm() };
            assert_eq!(Digest::of(&record).is_some(), *state == State::Ready, "{state:?}");
        }
    }

    #[test]
    fn who_lacks_something_or_is_asked_for_something_is_not_calm() {
        let digest = Digest::of(&calm()).expect("it is calm");
        let beside = Beside { lacks: false, watched: 3, request: Request::Run };
        assert!(digest.holds(beside));
        assert!(!digest.holds(Beside { lacks: true, ..beside }));
        assert!(!digest.holds(Beside { watched: 2, ..beside }), "it is watched with the effects of a birth");
        for request in [Request::Pause, Request::Stop] {
            assert!(!digest.holds(Beside { request, ..beside }), "{request:?}");
        }
    }

    #[test]
    fn each_agents_digest_is_read_as_it_was_written_and_none_while_its_record_changes() {
        let journal = Journal::create(words_for(3), &[], &[]).expect("memory");
        assert_eq!(Digest::read(&journal, 1), None, "it was never written");
        let digests = [0, 1, 2].map(|agent| {
            let fds = FDS_OF_IT.map(|fd| if fd < 0 { fd } else { fd + 100 * agent });
            Digest { generation: agent as u32 + 1, fds }
        });
        for (agent, digest) in digests.iter().enumerate() {
            journal.set_word(word_of(agent, Of::Watched), 70 + agent as u64);
            digest.write(&journal, agent);
        }
        for (agent, digest) in digests.iter().enumerate() {
            assert_eq!(Digest::read(&journal, agent).as_ref(), Some(digest));
            let beside = (journal.word(word_of(agent, Of::Post)), journal.word(word_of(agent, Of::Watched)));
            assert_eq!(beside, (0, 70 + agent as u64));
            let Beside { lacks, watched, .. } = Beside::read(&journal, agent, Request::Run);
            assert_eq!((u64::from(lacks), watched), beside);
        }
        Digest::clear(&journal, 1);
        let read = [0, 1, 2].map(|agent| Digest::read(&journal, agent).is_some());
        assert_eq!(read, [true, false, true]);
    }
}
