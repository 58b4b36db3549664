//! The arithmetic of deadlines, against a supervisor that is stopped at will and agents that do what they like.

use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const TICK: u64 = 4 * MS;

fn hold(since_ns: u64) -> Hold {
    Hold { generation: 1, progress: 7, since_ns, sleep: 2 }
}

fn look(now_ns: u64) -> Look {
    Look { now_ns, late_ns: 0, since_ns: 0 }
}

/// Looks as the swarm does while an agent holds one message for ever, beginning `ahead_ns` before the first look. From
/// `stop.0` on (after the beginning of the hold) the supervisor sleeps for `stop.1`. Returns when the hang is found.
fn found_hung(deadline_ns: u64, ahead_ns: u64, stop: (u64, u64)) -> u64 {
    let since_ns = 1000 * MS;
    let (stop_ns, end_ns) = (since_ns + stop.0, since_ns + stop.0 + stop.1);
    let (mut planned_ns, mut last) = (since_ns + ahead_ns, None);
    loop {
        let now_ns = if (stop_ns..end_ns).contains(&planned_ns) { end_ns } else { planned_ns };
        let look = Look { now_ns, late_ns: now_ns - planned_ns, since_ns: 0 };
        let seen = Watched::at(last, hold(since_ns), look);
        let due_ns = seen.due_ns(deadline_ns, TICK);
        if due_ns <= now_ns {
            return now_ns - since_ns;
        }
        (last, planned_ns) = (Some(seen), due_ns.min(now_ns + deadline_ns / 4));
    }
}

#[test]
fn nobody_is_hung_at_first_sight_however_old_its_stamp_says_it_is() {
    let seen = Watched::at(None, hold(0), look(1 << 60));
    assert!(seen.due_ns(20 * MS, TICK) > 1 << 60);
}

#[test]
fn a_word_a_step_a_wait_for_space_or_a_death_begin_the_deadline_anew() {
    let first = Watched::at(None, hold(100 * MS), look(120 * MS));
    assert_eq!(
        Watched::at(Some(first), hold(100 * MS), look(150 * MS)),
        first,
        "the same message all the time"
    );
    let others = [
        hold(101 * MS),
        Hold { progress: 8, ..hold(100 * MS) },
        Hold { sleep: 4, ..hold(100 * MS) },
        Hold { generation: 2, ..hold(100 * MS) },
    ];
    for other in others {
        let seen = Watched::at(Some(first), other, look(1000 * MS));
        assert!(seen.due_ns(100 * MS, TICK) > 1000 * MS, "{other:?}");
    }
}

#[test]
fn what_lies_before_the_supervisor_opened_its_eyes_does_not_count() {
    let seen = Watched::at(None, hold(MS), Look { since_ns: 900 * MS, ..look(950 * MS) });
    assert_eq!(seen.due_ns(100 * MS, TICK), 1000 * MS + TICK);
}

#[test]
fn a_stamp_of_the_future_is_of_now() {
    let seen = Watched::at(None, hold(u64::MAX), look(1000 * MS));
    assert_eq!(seen.due_ns(100 * MS, TICK), 1100 * MS + TICK);
}

#[test]
fn time_without_a_processor_does_not_count_from_the_second_look_on() {
    let (since_ns, deadline_ns) = (100 * MS, 100 * MS);
    let fare = |at, ran, waited, ready| Fare {
        at_ns: at * MS,
        ran_ns: ran * MS,
        waited_ns: waited * MS,
        ready,
        ahead_ns: 0,
    };
    let again = |seen: Watched, fare: Fare, late_ns| {
        let look = Look { late_ns, ..look(fare.at_ns) };
        let seen = Watched::at(Some(seen), hold(since_ns), look).faring(fare, late_ns);
        (seen, (seen.due_ns(deadline_ns, TICK) - TICK) / MS)
    };
    let first = Watched::at(None, hold(since_ns), look(120 * MS));
    // What it had waited before the second look is not known to be of this hold.
    let (second, due) = again(first, fare(150, 30, 7000, true), 0);
    assert_eq!(due, 200);
    let (third, due) = again(second, fare(200, 30, 7000, true), 0);
    assert_eq!(due, 250, "it waits, which the kernel has not counted yet");
    assert_eq!(
        again(third, fare(250, 40, 7060, true), 0).1,
        260,
        "nor is it counted twice when the kernel has"
    );
    assert_eq!(again(third, fare(250, 80, 7000, true), 0).1, 250, "it has run");
    assert_eq!(again(third, fare(250, 30, 7000, false), 0).1, 250, "it sleeps");
    // A supervisor that comes late has mostly waited for a processor as long: that is left out once.
    assert_eq!(again(third, fare(240, 30, 7000, true), 30 * MS).1, 290);
}

proptest! {
    #[test]
    fn a_hang_is_found_within_one_and_a_quarter_deadlines_and_a_tick(
        deadline in 20u64..100_000, ahead in 0.0f64..1.0,
    ) {
        let deadline_ns = deadline * MS;
        let held_ns = found_hung(deadline_ns, (ahead * deadline_ns as f64) as u64, (0, 0));
        prop_assert!(held_ns >= deadline_ns + TICK);
        prop_assert!(held_ns <= deadline_ns + deadline_ns / 4 + TICK, "{} of {}", held_ns, deadline_ns);
    }

    #[test]
    fn a_stop_of_the_supervisor_gives_who_was_stopped_with_it_most_of_its_deadline_all_the_same(
        deadline in 20u64..5000, ahead in 0.0f64..0.5, at in 0.0f64..1.0, stop in 0u64..1_000_000,
    ) {
        let deadline_ns = deadline * MS;
        let part = |share: f64| (share * deadline_ns as f64) as u64;
        let (ahead_ns, at_ns, stop_ns) = (part(ahead), part(at), stop * MS);
        let held_ns = found_hung(deadline_ns, ahead_ns, (at_ns, stop_ns));
        // What is left of the step into which the stop fell is counted: half a deadline before the first look, then a quarter.
        let counted_ns = if at_ns < ahead_ns { deadline_ns / 2 } else { deadline_ns / 4 };
        prop_assert!(held_ns - stop_ns + counted_ns >= deadline_ns, "{} of {}", held_ns, deadline_ns);
        // And nobody hangs for ever.
        prop_assert!(held_ns - stop_ns <= deadline_ns * 5 / 4 + TICK, "{} of {}", held_ns, deadline_ns);
    }

    #[test]
    fn who_ends_each_message_within_its_deadline_is_never_found_hung(
        deadline in 20u64..5000,
        works in proptest::collection::vec((0.0f64..1.0, 0u64..3), 1..100),
        late in proptest::collection::vec(0u64..200, 1..100),
    ) {
        // The agent's messages: from when to when; at most a deadline each. The stamp may be a tick too old.
        let deadline_ns = deadline * MS;
        let (mut at, mut holds) = (10 * MS, Vec::new());
        for (share, pause) in works {
            let end = at + (share * deadline_ns as f64) as u64;
            holds.push((at, end));
            at = end + pause * MS;
        }
        let (mut last, mut planned_ns, mut late) = (None, 11 * MS, late.into_iter().cycle());
        while planned_ns < at {
            let late_ns = late.next().unwrap_or(0) * MS;
            let now_ns = planned_ns + late_ns;
            let held = holds.iter().enumerate().find(|(_, (from, to))| *from <= now_ns && now_ns < *to);
            planned_ns = match held {
                None => {
                    last = None;
                    now_ns + deadline_ns / 2
                }
                Some((index, (from, _))) => {
                    let hold = Hold { progress: index as u64, ..hold(from - from % TICK) };
                    let seen = Watched::at(last, hold, Look { now_ns, late_ns, since_ns: 0 });
                    last = Some(seen);
                    let due_ns = seen.due_ns(deadline_ns, TICK);
                    prop_assert!(due_ns > now_ns, "message {} of {:?} at {}", index, holds[index], now_ns);
                    due_ns.min(now_ns + deadline_ns / 4)
                }
            };
        }
    }
}
