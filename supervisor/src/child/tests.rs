//! Properties of the whole table, and the ways through it that have a name.

use super::*;
use std::collections::HashSet;

const CRASH: Event = Event::Exited { normal: false, ordered: false };
const END: Event = Event::Exited { normal: true, ordered: false };
const KILL: Event = Event::Exited { normal: false, ordered: true };

/// Feeds events from `Starting` on; returns the last result.
fn run(policy: Policy, events: &[Event]) -> (State, Action) {
    events.iter().fold((State::Starting, Action::Spawn), |(state, _), event| next(state, *event, policy))
}

/// Every cell of the table with its policy.
fn cells() -> impl Iterator<Item = (State, Event, Policy, State, Action)> {
    State::ALL.into_iter().flat_map(|state| {
        Event::ALL.into_iter().flat_map(move |event| {
            Policy::ALL.into_iter().map(move |policy| {
                let (to, action) = next(state, event, policy);
                (state, event, policy, to, action)
            })
        })
    })
}

#[test]
fn every_state_and_event_has_a_defined_result_and_the_lists_name_each_once() {
    assert_eq!(State::ALL.iter().collect::<HashSet<_>>().len(), 16);
    assert_eq!(Event::ALL.iter().collect::<HashSet<_>>().len(), 21);
    assert_eq!(State::ALL.map(State::name).iter().collect::<HashSet<_>>().len(), 16);
    assert_eq!(Event::ALL.map(Event::name).iter().collect::<HashSet<_>>().len(), 21);
    assert_eq!(cells().count(), 16 * 21 * 3);
    for (_, _, _, to, _) in cells() {
        assert!(State::ALL.contains(&to), "{to:?} is not in the list");
    }
}

#[test]
fn every_state_is_reached_from_starting() {
    let mut reached = HashSet::from([State::Starting]);
    while let Some((_, _, _, to, _)) =
        cells().find(|(from, _, _, to, _)| reached.contains(from) && !reached.contains(to))
    {
        reached.insert(to);
    }
    assert_eq!(reached.len(), State::ALL.len());
}

#[test]
fn a_spawn_leads_to_starting_and_starting_comes_only_from_a_spawn() {
    for (from, event, _, to, action) in cells() {
        if from != State::Starting {
            assert_eq!(to == State::Starting, action == Action::Spawn, "{from:?} {event:?}");
        } else {
            assert_ne!(action, Action::Spawn, "a second process: {event:?}");
        }
    }
}

#[test]
fn nothing_is_spawned_while_a_process_may_live_unless_its_death_is_proved() {
    for (from, event, _, _, action) in cells() {
        if from.may_live() && action == Action::Spawn {
            assert!(matches!(event, Event::Exited { .. } | Event::SpawnFailed), "{from:?} {event:?}");
        }
    }
}

#[test]
fn a_living_process_is_never_forgotten() {
    for (from, event, _, to, _) in cells() {
        let proved = matches!(event, Event::Exited { .. } | Event::SpawnFailed | Event::HistoryFull);
        assert!(!from.may_live() || to.may_live() || proved, "{from:?} {event:?} -> {to:?}");
    }
}

#[test]
fn an_agent_at_rest_moves_only_when_an_operator_asks() {
    for (from, event, _, to, _) in cells().filter(|(from, ..)| from.is_at_rest()) {
        let asked = matches!(event, Event::StartAsked | Event::RestartAsked);
        assert_eq!(from != to, asked, "{from:?} {event:?}");
    }
}

#[test]
fn a_stop_ends_in_rest_whatever_the_policy() {
    for state in State::ALL {
        for policy in Policy::ALL {
            let (asked, _) = next(state, Event::StopAsked, policy);
            let (last, _) = next(asked, CRASH, policy);
            assert!(last.is_at_rest(), "{state:?} {policy:?} -> {last:?}");
        }
    }
}

#[test]
fn a_crash_is_decided_by_the_policy() {
    let counted = (State::Backoff, Action::SpawnAfter { counted: true });
    assert_eq!(run(Policy::Permanent, &[Event::Ready, CRASH]), counted);
    assert_eq!(run(Policy::Permanent, &[Event::Ready, END]), counted);
    assert_eq!(run(Policy::Transient, &[Event::Ready, CRASH]), counted);
    assert_eq!(run(Policy::Transient, &[Event::Ready, END]), (State::Ended, Action::MarkEnded));
    assert_eq!(run(Policy::Temporary, &[Event::Ready, END]), (State::Ended, Action::MarkEnded));
    assert_eq!(run(Policy::Temporary, &[Event::Ready, CRASH]), (State::Failed, Action::GiveUp));
}

#[test]
fn an_ordered_death_is_followed_by_a_start_that_is_not_counted() {
    let free = (State::Backoff, Action::SpawnAfter { counted: false });
    assert_eq!(run(Policy::Permanent, &[Event::Ready, Event::KillAsked, KILL]), free);
    assert_eq!(run(Policy::Transient, &[Event::Ready, KILL]), free);
    assert_eq!(run(Policy::Temporary, &[Event::Ready, KILL]), (State::Ended, Action::MarkEnded));
}

#[test]
fn a_time_out_on_ready_counts_as_a_death_even_if_the_agent_ends_normally_meanwhile() {
    let killed = (State::Stopping(Next::Decide), Action::KillTree);
    assert_eq!(run(Policy::Transient, &[Event::Spawned, Event::ReadyTimedOut]), killed);
    let counted = (State::Backoff, Action::SpawnAfter { counted: true });
    assert_eq!(run(Policy::Transient, &[Event::ReadyTimedOut, CRASH]), counted);
    assert_eq!(run(Policy::Transient, &[Event::ReadyTimedOut, END]), counted);
}

#[test]
fn a_hung_agent_is_aborted_then_killed_and_its_death_counts_even_if_it_ends_normally_meanwhile() {
    let aborted = (State::Stopping(Next::Decide), Action::Abort);
    assert_eq!(run(Policy::Transient, &[Event::Ready, Event::Hung]), aborted);
    let killed = (State::Stopping(Next::Decide), Action::KillTree);
    assert_eq!(run(Policy::Transient, &[Event::Ready, Event::Hung, Event::StopTimedOut]), killed);
    let counted = (State::Backoff, Action::SpawnAfter { counted: true });
    assert_eq!(run(Policy::Transient, &[Event::Ready, Event::Hung, CRASH]), counted);
    assert_eq!(run(Policy::Transient, &[Event::Ready, Event::Hung, END]), counted);
    assert_eq!(run(Policy::Temporary, &[Event::Ready, Event::Hung, CRASH]), (State::Failed, Action::GiveUp));
    for state in State::ALL.into_iter().filter(|state| *state != State::Ready) {
        assert_eq!(next(state, Event::Hung, Policy::Permanent), (state, Action::None));
    }
}

#[test]
fn an_order_to_a_hung_agent_does_not_leave_it_waiting_for_a_grace_that_is_void() {
    let stopped = [Event::Ready, Event::Hung, Event::StopAsked];
    assert_eq!(run(Policy::Permanent, &stopped), (State::Stopping(Next::Rest), Action::KillTree));
    for event in [Event::StartAsked, Event::RestartAsked] {
        let (state, action) = run(Policy::Permanent, &[Event::Ready, Event::Hung, event]);
        assert_eq!((state, action), (State::Stopping(Next::Start), Action::KillTree));
    }
}

#[test]
fn an_unproven_death_has_no_successor_until_it_is_proved() {
    let unproven = (State::Unproven(Next::Decide), Action::KillTree);
    assert_eq!(run(Policy::Permanent, &[Event::Ready, Event::ProofRefused]), unproven);
    for event in Event::ALL.into_iter().filter(|e| !matches!(e, Event::Exited { .. })) {
        let (to, action) = next(unproven.0, event, Policy::Permanent);
        assert!(matches!(to, State::Unproven(_)) && action != Action::Spawn, "{event:?}");
    }
    let stop = [Event::Ready, Event::ProofRefused, Event::StopAsked, CRASH];
    assert_eq!(run(Policy::Permanent, &stop), (State::Stopped, Action::None));
}

#[test]
fn a_restart_asks_the_agent_to_stop_and_starts_it_whatever_the_policy() {
    for policy in Policy::ALL {
        let asked = (State::Stopping(Next::Start), Action::AskToStop);
        assert_eq!(run(policy, &[Event::Ready, Event::RestartAsked]), asked);
        let started = (State::Starting, Action::Spawn);
        assert_eq!(run(policy, &[Event::Ready, Event::RestartAsked, Event::StopTimedOut, KILL]), started);
    }
}

#[test]
fn a_start_waits_in_draining_until_history_is_freed() {
    let drain = [Event::Ready, CRASH, Event::BackoffOver, Event::HistoryFull];
    assert_eq!(run(Policy::Permanent, &drain), (State::Draining, Action::None));
    let freed = next(State::Draining, Event::HistoryFreed, Policy::Permanent);
    assert_eq!(freed, (State::Starting, Action::Spawn));
    assert_eq!(next(State::Draining, Event::StartAsked, Policy::Permanent).1, Action::None);
}

#[test]
fn an_agent_given_up_starts_again_when_an_operator_asks() {
    let gave_up = [Event::Ready, CRASH, Event::GaveUp];
    assert_eq!(run(Policy::Permanent, &gave_up), (State::Failed, Action::GiveUp));
    assert_eq!(next(State::Failed, Event::StartAsked, Policy::Permanent), (State::Starting, Action::Spawn));
}

#[test]
fn an_agent_set_aside_ends_and_waits_until_it_is_recalled() {
    let aside = [Event::Ready, Event::SetAside];
    assert_eq!(run(Policy::Permanent, &aside), (State::Stopping(Next::Aside), Action::AskToStop));
    for ending in [CRASH, END, KILL] {
        for policy in Policy::ALL {
            let ended = run(policy, &[Event::Ready, Event::SetAside, ending]);
            assert_eq!(ended, (State::Aside, Action::None), "{policy:?}: it was told to end");
        }
    }
    for event in Event::ALL {
        let (to, action) = next(State::Aside, event, Policy::Permanent);
        let expected = match event {
            Event::Recalled => (State::Starting, Action::Spawn),
            Event::StopAsked => (State::Stopped, Action::None),
            Event::GaveUp => (State::Failed, Action::GiveUp),
            Event::Spawned => (State::Aside, Action::KillTree),
            _ => (State::Aside, Action::None),
        };
        assert_eq!((to, action), expected, "{event:?}");
    }
}

#[test]
fn a_death_of_its_own_is_decided_before_an_agent_is_set_aside() {
    let counted = (State::Backoff, Action::SpawnAfter { counted: true });
    assert_eq!(run(Policy::Permanent, &[Event::Ready, Event::Hung, Event::SetAside, CRASH]), counted);
    let unproven = [Event::Ready, Event::ProofRefused, Event::SetAside, CRASH];
    assert_eq!(run(Policy::Permanent, &unproven), counted);
    assert_eq!(next(State::Backoff, Event::SetAside, Policy::Permanent), (State::Aside, Action::None));
}

#[test]
fn who_rests_does_not_come_back_with_its_set() {
    for state in State::ALL.into_iter().filter(|state| state.is_at_rest()) {
        for event in [Event::SetAside, Event::Recalled] {
            assert_eq!(next(state, event, Policy::Permanent), (state, Action::None));
        }
    }
    let stopped = [Event::Ready, Event::StopAsked, Event::SetAside, END, Event::Recalled];
    assert_eq!(run(Policy::Permanent, &stopped), (State::Stopped, Action::None));
}

#[test]
fn users_see_six_words() {
    let words: HashSet<_> = State::ALL.map(State::shown).into();
    assert_eq!(words, HashSet::from(["starting", "ready", "stopping", "backoff", "stopped", "failed"]));
    assert_eq!(State::Ended.shown(), "stopped");
}

#[test]
fn the_markdown_has_a_row_for_each_event_and_a_column_for_each_state() {
    let text = table_markdown();
    println!("{text}");
    let (states, deaths) = text.split_once("\n\n").expect("two tables");
    assert_eq!(states.lines().count(), Event::ALL.len() + 2);
    for line in states.lines().skip(2) {
        assert_eq!(line.matches('|').count(), State::ALL.len() + 2, "{line}");
    }
    assert_eq!(deaths.lines().count(), 4 + 2);
    assert!(states.contains("| BackoffOver |  |  |  |  |  |  |  |  |  |  | → starting: Spawn |"), "{states}");
}
