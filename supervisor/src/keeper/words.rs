//! The words of the journal that keeper, guard and supervisors share.

use crate::ended::Ending;
use shoal_runtime::journal::Journal;

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Word {
    /// The process number of the living supervisor; 0 while there is none. The keeper's.
    Supervisor = 0,
    /// How many supervisors were started. The keeper's.
    Lives = 1,
    /// How many of them died by SIGKILL. The keeper's.
    Kills = 2,
    /// When the last one was found dead, CLOCK_MONOTONIC ns. The keeper's.
    DiedAt = 3,
    /// When one was last killed on purpose, CLOCK_MONOTONIC ns; 0 when its successor has noted it. The guard's.
    KilledAt = 4,
    /// The living supervisor has taken over, or made the start: it is number so many. The supervisor's.
    Watching = 5,
    /// 1 while supervisors may be killed on purpose. The supervisor's.
    Storm = 6,
    /// 1 and the descriptor of the journal that holds the swarm since it was changed; 0 while it is what it was at the split. The
    /// supervisor's.
    Journal = 7,
    /// 1 and the exit status once the end is concluded: nothing is taken over any more. The supervisor's.
    Over = 8,
    /// 1 once a record could not be written: what records name may be something else by now. The supervisor's.
    Unsure = 9,
    /// How the last one ended, see [`note_ended`]; 0 before. The keeper's.
    HowEnded = 10,
    /// Of how many things the supervisor was told since it last waited; they lie in the words behind. The supervisor's.
    Told = 11,
}

/// So many of them lie there.
pub const TOLD_MAX: usize = 32;

/// Reads a shared word.
pub fn word(journal: &Journal, which: Word) -> u64 {
    journal.word(which as usize)
}

/// Writes a shared word.
pub fn set_word(journal: &Journal, which: Word, value: u64) {
    journal.set_word(which as usize, value);
}

/// From here on a word of how a process ended is a signal's.
const SIGNALS: u64 = 1 << 16;

/// Writes how a supervisor ended.
///
/// # If we die here
/// Nobody asks.
pub fn note_ended(journal: &Journal, ended: Ending) {
    let ended = match ended {
        Ending::Exited(status) => u64::from(status.unsigned_abs()) % (SIGNALS - 1) + 1,
        Ending::Signalled(signal) => SIGNALS + u64::from(signal.unsigned_abs()),
    };
    set_word(journal, Word::HowEnded, ended);
}

/// How the last supervisor ended; `None` before one has.
pub fn ended(journal: &Journal) -> Option<Ending> {
    match word(journal, Word::HowEnded) {
        0 => None,
        status @ 1..SIGNALS => Some(Ending::Exited(status as i32 - 1)),
        signal => Some(Ending::Signalled((signal - SIGNALS) as i32)),
    }
}

/// Writes of what the supervisor was told.
///
/// # If we die here
/// The successor believes that it was told less: it asks everybody, but later.
pub fn note_told(journal: &Journal, told: impl ExactSizeIterator<Item = u64>) {
    let count = told.len();
    told.take(TOLD_MAX).enumerate().for_each(|(at, one)| journal.set_word(Word::Told as usize + 1 + at, one));
    set_word(journal, Word::Told, count as u64);
}

/// What a supervisor was told since it last waited; `None` when it was more than lies there.
pub fn told(journal: &Journal) -> Option<Vec<u64>> {
    let count = usize::try_from(word(journal, Word::Told)).ok().filter(|count| *count <= TOLD_MAX)?;
    Some((0..count).map(|at| journal.word(Word::Told as usize + 1 + at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_supervisor_ended_is_what_its_successor_reads() {
        let journal = Journal::create(64, &[], &[]).expect("memory");
        assert_eq!(ended(&journal), None);
        for how in [Ending::Exited(0), Ending::Exited(255), Ending::Signalled(9), Ending::Signalled(64)] {
            note_ended(&journal, how);
            assert_eq!(ended(&journal), Some(how));
        }
    }

    #[test]
    fn what_was_told_is_known_until_the_next_wait_and_more_than_there_is_room_for_is_known_to_be() {
        let journal = Journal::create(64, &[], &[]).expect("memory");
        let note = |count: usize| {
            note_told(&journal, (0..count).map(|at| 7 + at as u64));
            told(&journal)
        };
        assert_eq!(told(&journal), Some(vec![]));
        assert_eq!(note(3), Some(vec![7, 8, 9]));
        assert_eq!(note(0), Some(vec![]));
        assert_eq!(note(TOLD_MAX), Some((7..7 + TOLD_MAX as u64).collect()));
        assert_eq!(note(TOLD_MAX + 1), None, "all are asked");
        assert_eq!(note(1), Some(vec![7]));
    }
}
