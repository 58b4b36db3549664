//! What a dead member of groups held is settled: each of its claims is done or free again, and the other members are told.
//!
//! Pure but for the claim tables and the doorbells. Whoever dies in the middle of it, or after it, does it again: a message is
//! settled once, and its attempts are raised once.

use crate::trial::Trial;
use shoal_runtime::bug::{Bug, placed};
use shoal_runtime::claims::{Claim, ClaimTable};
use shoal_runtime::commit::{self, Key, Record};
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::SegmentShape;
use shoal_runtime::{Region, desk};

/// A member whose death is proved.
#[derive(Clone, Copy)]
pub struct DeadMember<'a> {
    /// What it left.
    pub view: &'a Region,
    /// The shape of that.
    pub shape: &'a SegmentShape,
    /// Its number in the swarm.
    pub owner: u32,
}

/// Settles what a dead member held: done if its record says so or it lies with the dead letters, else free again, with the attempts
/// that `trial` knows of. `tables` are those of its inputs. Then wakes the members of its groups.
///
/// # If we die here
/// Every claim is settled or is not, and who settles again finds those that are not.
pub fn settle<'a, 't>(
    dead: &DeadMember<'_>,
    tables: &[(usize, ClaimTable)],
    trial: impl Fn(usize, u64) -> Option<&'t Trial>,
    members: impl Iterator<Item = &'a Doorbell>,
) {
    let record = commit::read(dead.view, dead.shape).ok();
    for (input, table) in tables {
        let claimed = match record {
            Some(_) => desk::intents(dead.view, dead.shape, *input),
            // What it scribbled over says nothing: the table is searched.
            None => table.held_by(dead.owner, u64::MAX),
        };
        let mut freed = false;
        for sequence in claimed {
            let trial = trial(*input, sequence);
            let done = is_done(record.as_ref(), *input, sequence) || trial.is_some_and(Trial::is_settled);
            freed |= settle_one(table, sequence, dead.owner, done, trial.map_or(0, Trial::attempts));
        }
        // Freed or not: who settles again finds nothing to free, but perhaps nobody was told.
        if !placed(Bug::ReturnNotTold) && (freed || !placed(Bug::ReturnToldOnce)) {
            table.tell_returned();
        }
    }
    wake(members);
}

/// Wakes members of a group: a message is free again, the frontier can be moved, or a lane is closed and they sleep behind what
/// another did last.
pub fn wake<'a>(members: impl Iterator<Item = &'a Doorbell>) {
    if !placed(Bug::GroupNotRung) {
        members.for_each(Doorbell::ring);
    }
}

/// Whether a dead member's record says that it was done with a message.
fn is_done(record: Option<&Record>, input: usize, sequence: u64) -> bool {
    let said = record.and_then(|record| record.place(Key::Claim(input)));
    let same = |number: u64| number == sequence || placed(Bug::ClaimRecordForAny);
    said.is_some_and(|place| same(place.sequence)) && !placed(Bug::ClaimRecordOverlooked)
}

/// Settles one claim of a dead member; true when the message is free again. Whoever claims it next is told how often it was given
/// in vain.
fn settle_one(table: &ClaimTable, sequence: u64, owner: u32, done: bool, in_vain: u32) -> bool {
    let in_vain = match in_vain.min(u32::from(u8::MAX)) as u8 {
        _ if placed(Bug::AttemptsForgotten) => 0,
        0 if placed(Bug::AttemptsForHeld) => 1,
        in_vain => in_vain,
    };
    let (by, attempts) = match table.see(sequence) {
        Claim::Owned { owner: by, attempts } => (by, attempts),
        Claim::Free { attempts } if placed(Bug::ClaimReturnedTwice) => {
            let again = Claim::Free { attempts: attempts + in_vain };
            return table.take(sequence, owner).is_ok() && table.settle(sequence, owner, again);
        }
        _ => return false,
    };
    if placed(Bug::ClaimNeverReturned) || (by != owner && !placed(Bug::ClaimOfAnybody)) {
        return false;
    }
    if done {
        table.settle(sequence, by, Claim::Done);
        return false;
    }
    table.settle(sequence, by, Claim::Free { attempts: attempts.max(in_vain) })
}
