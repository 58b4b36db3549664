//! What must hold of a claim table, whoever looks: whose each message is, and that each took effect once.

use super::super::stage::Ended;
use super::story::{Consumed, Event, FIRST_SEQUENCE, GroupStory};
use shoal_runtime::claims::{Claim, ClaimTable};
use shoal_runtime::mark::Place;
use shoal_runtime::state::VALUE;

/// A message that the worker holds, and how often it was given before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Its number.
    pub sequence: u64,
    /// How often it was given before.
    pub attempts: u8,
}

/// What the worker noted last of a message.
pub fn last_event(diary: &[(Event, u64)], sequence: u64) -> Option<Event> {
    diary.iter().rev().find(|(_, of)| *of == sequence).map(|(event, _)| *event)
}

/// Checks, while the worker stands still or after it died, that the table agrees with what it noted, and that its messages are
/// pinned. With `alone`, its mate has taken everything that there is. Returns what the worker holds.
///
/// # Errors
/// What was wrong, in words.
pub fn pins(
    story: &GroupStory,
    table: &ClaimTable,
    owner: u32,
    diary: &[(Event, u64)],
    tail: Place,
    alone: bool,
) -> Result<Vec<Holding>, String> {
    let held = |sequence: &u64| match table.see(*sequence) {
        Claim::Owned { owner: by, attempts } if by == owner => {
            Some(Holding { sequence: *sequence, attempts })
        }
        _ => None,
    };
    let holdings: Vec<Holding> = (FIRST_SEQUENCE..tail.sequence).filter_map(|s| held(&s)).collect();
    if holdings.len() > story.prefetch {
        return Err(format!("the worker holds {holdings:?}, but {} at most", story.prefetch));
    }
    for sequence in FIRST_SEQUENCE..tail.sequence {
        let owned = holdings.iter().any(|h| h.sequence == sequence);
        let fits = match last_event(diary, sequence) {
            // It was perhaps claimed, and the claim not noted yet.
            None | Some(Event::Committing) => true,
            Some(Event::Received | Event::Holding | Event::Held) => owned,
            Some(Event::Committed) => table.frontier() > sequence || table.see(sequence) == Claim::Done,
        };
        if !fits {
            let noted = last_event(diary, sequence);
            return Err(format!(
                "the worker noted {noted:?} of {sequence}, its claim is {:?}",
                table.see(sequence)
            ));
        }
    }
    let frontier = table.frontier();
    let first = holdings.iter().map(|h| h.sequence).min().unwrap_or(tail.sequence);
    if frontier > first {
        return Err(format!(
            "the frontier {frontier} has passed {first}, which the worker holds or nobody sent"
        ));
    }
    if alone && table.left(tail.sequence) != holdings.len() as u64 {
        let left = table.left(tail.sequence);
        return Err(format!("{left} messages are not done although only {holdings:?} are held"));
    }
    Ok(holdings)
}

/// Checks that what a dead worker held is done if its state says so, and else free again, with one attempt more exactly if it was
/// in hand and the death was not ordered. Returns what is free again.
///
/// # Errors
/// What was wrong, in words.
pub fn settled(
    table: &ClaimTable,
    holdings: &[Holding],
    consumed: Consumed,
    diary: &[(Event, u64)],
    ordered: bool,
) -> Result<Vec<Holding>, String> {
    let mut freed = Vec::new();
    for &Holding { sequence, attempts } in holdings {
        let now = table.see(sequence);
        if consumed.has(sequence) {
            // Done, and perhaps the frontier has passed it and another lap begun.
            if now != Claim::Done {
                return Err(format!("{sequence} took effect, but its claim is {now:?}"));
            }
            continue;
        }
        let more: &[u8] = match last_event(diary, sequence) {
            _ if ordered => &[0],
            Some(Event::Held | Event::Committing) => &[1],
            Some(Event::Holding) => &[0, 1],
            _ => &[0],
        };
        match now {
            Claim::Free { attempts: now } if more.iter().any(|more| now == attempts + more) => {
                freed.push(Holding { sequence, attempts: now });
            }
            _ => {
                return Err(format!(
                    "{sequence} took no effect and was given {attempts} times before; now its claim is {now:?}"
                ));
            }
        }
    }
    Ok(freed)
}

/// Checks that each message before `end` took effect once, with the worker or with its mate.
///
/// # Errors
/// What was wrong, in words.
pub fn once(worker: impl Fn(u64) -> u64, mate: impl Fn(u64) -> u64, end: u64) -> Result<(), String> {
    for sequence in FIRST_SEQUENCE..end {
        let (by_worker, by_mate) = (worker(sequence), mate(sequence));
        if by_worker + by_mate != 1 {
            return Err(format!(
                "input {sequence} took effect {by_worker} times with the worker and {by_mate} times with its mate"
            ));
        }
    }
    Ok(())
}

/// The committed state of a dead worker.
///
/// # Errors
/// It is none.
pub fn consumed(ended: &Ended) -> Result<Consumed, String> {
    let len = ended.state.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes) as usize;
    Consumed::from_bytes(ended.state.get(VALUE..VALUE + len).filter(|bytes| !bytes.is_empty()))
}
