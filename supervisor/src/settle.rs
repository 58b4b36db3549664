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
            let again = Claim::Free { attempts: attempts + 1 };
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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_runtime::Incarnation;
    use shoal_runtime::claims;
    use shoal_runtime::mark::Place;
    use shoal_runtime::segment::{self, Origin};

    #[test]
    fn member_that_wrote_over_its_record_gives_back_all_that_it_held_and_only_that() {
        let shape = |input_count| SegmentShape { lanes: Vec::new(), input_count, state_bytes: 0 };
        let incarnation = Incarnation { agent: 1, generation: 2 };
        let inputs = vec![Place { position: 4096, sequence: 0 }];
        let origin = Origin { swarm: 1, incarnation, lanes: Vec::new(), inputs, state: Vec::new() };
        let view = segment::heap(&shape(40), &origin);
        // A record where another shape would have it: the number names a slot that holds nothing.
        commit::Committer::new(&view, &shape(40), 2).commit(&[]);
        let shape = shape(1);
        assert!(commit::read(&view, &shape).is_err(), "what it left contradicts itself");
        let table = ClaimTable::new(Region::heap(claims::table_bytes(64)), 0, 64);
        for (sequence, owner) in [(0, 8), (1, 7), (2, 9), (3, 7)] {
            assert_eq!(table.take(sequence, owner), Ok(0));
        }
        let bell = Doorbell::create().expect("a doorbell");
        let dead = DeadMember { view: &view, shape: &shape, owner: 7 };
        settle(&dead, &[(0, table.clone())], |_, _| None, [&bell].into_iter());
        let owned = |owner| Claim::Owned { owner, attempts: 0 };
        let free = Claim::Free { attempts: 0 };
        assert_eq!([0, 1, 2, 3].map(|s| table.see(s)), [owned(8), free, owned(9), free]);
        assert_eq!(table.returned(), 1, "the others are told to look again");
    }
}
