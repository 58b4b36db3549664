//! Goal: steps of several messages are whole or not at all, and none of them is lost, done twice, or blamed for another. Method: the
//! in-process harness, in both forms; a second run stands for a death.
#![allow(clippy::unwrap_used, missing_docs)]

use shoal_agent::harness::{Ending, Hand, Harness, WhenFull};
use shoal_agent::{Agent, Bytes, InvalidMessage, Next, Reject, Result};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

#[shoal_agent::message]
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    n: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Handler,
    Loop,
}

const FORMS: [Form; 2] = [Form::Handler, Form::Loop];

fn worker() -> Harness {
    Harness::new("worker").subscribes::<Number>("in").publishes::<Number>("out")
}

fn fed(mut harness: Harness, numbers: std::ops::Range<u64>) -> Harness {
    numbers.for_each(|n| harness.feed("in", Number { n }));
    harness
}

fn sent(hand: &Hand) -> Vec<u64> {
    hand.sent::<Number>("out").iter().map(|number| number.n).collect()
}

/// Sends each number on, and counts them in its state, in steps of up to `max`. `take` is told the number and the attempt, and says
/// what becomes of it.
fn relay(
    agent: &mut Agent,
    form: Form,
    max: u32,
    mut take: impl FnMut(u64, u32) -> Result<()> + 'static,
) -> Result<()> {
    let out = agent.publish::<Number>("out")?;
    let state = agent.state::<Number>()?;
    if form == Form::Handler {
        agent.batch(max);
        agent.on::<Number>("in", move |step, number| {
            let n = number.n.to_native();
            step.send(&out, &Number { n })?;
            let before = step.load(&state)?.map_or(0, |count| count.n);
            step.keep(&state, &Number { n: before + 1 })?;
            take(n, step.attempt())
        })?;
        return agent.serve();
    }
    let numbers = agent.subscribe::<Number>("in")?;
    while let Next::Message(mut number) = agent.receive(&numbers, None)? {
        loop {
            let n = number.message().n.to_native();
            number.send(&out, &Number { n })?;
            let before = number.load(&state)?.map_or(0, |count| count.n);
            number.keep(&state, &Number { n: before + 1 })?;
            match take(n, number.attempt()) {
                Ok(()) if number.advance(max) => continue,
                Ok(()) => number.commit()?,
                Err(error) => match error.downcast_ref::<Reject>() {
                    Some(reject) => number.reject(reject.reason())?,
                    None => drop(number),
                },
            }
            break;
        }
    }
    Ok(())
}

/// What a run was given, in order: each number and the attempt at it.
type Given = Rc<RefCell<Vec<(u64, u32)>>>;

/// Runs [`relay`] and returns what it was given.
fn given(
    harness: &mut Harness,
    form: Form,
    max: u32,
    mut take: impl FnMut(u64, u32) -> Result<()> + 'static,
) -> (Vec<(u64, u32)>, Result<()>) {
    let given = Given::default();
    let noted = given.clone();
    let ended = harness.run(|agent| {
        relay(agent, form, max, move |n, attempt| {
            noted.borrow_mut().push((n, attempt));
            take(n, attempt)
        })
    });
    (given.take(), ended)
}

fn state_of(harness: &mut Harness) -> u64 {
    let mut count = 0;
    harness
        .run(|agent| {
            let _ = (agent.publish::<Number>("out")?, agent.subscribe::<Number>("in")?);
            let state = agent.state::<Number>()?;
            count = agent.load(&state)?.map_or(0, |count| count.n);
            Ok(())
        })
        .unwrap();
    count
}

fn first(numbers: std::ops::Range<u64>) -> Vec<(u64, u32)> {
    numbers.map(|n| (n, 1)).collect()
}

/// How many messages were handled before each time that something had become visible.
fn sizes(form: Form, max: u32, count: u64) -> Vec<usize> {
    let mut harness = fed(worker(), 0..count);
    let (hand, seen) = (harness.hand(), Rc::new(RefCell::new(Vec::new())));
    let noted = seen.clone();
    let (all, ended) = given(&mut harness, form, max, move |_, _| {
        noted.borrow_mut().push(sent(&hand).len());
        Ok(())
    });
    ended.unwrap();
    assert_eq!(all, first(0..count));
    let last = sent(&harness.hand()).len();
    assert_eq!(state_of(&mut harness), count);
    seen.borrow().iter().copied().chain([last]).filter(|&size| size > 0).collect()
}

#[test]
fn one_commit_acknowledges_all_and_shows_what_was_sent_for_any_and_a_step_takes_no_more_than_it_may() {
    for form in FORMS {
        assert_eq!(sizes(form, 7, 20), [7, 7, 6], "{form:?}");
        assert_eq!(sizes(form, 64, 20), [20], "{form:?}: none is waited for");
        for max in [0, 1] {
            assert_eq!(sizes(form, max, 3), [1, 1, 1], "{form:?}");
        }
    }
}

#[test]
fn messages_dropped_without_a_commit_all_come_again_in_order_also_to_the_next_incarnation() {
    let mut harness = fed(worker(), 0..10);
    let drops = |agent: &mut Agent| {
        let out = agent.publish::<Number>("out")?;
        let numbers = agent.subscribe::<Number>("in")?;
        let Next::Message(mut number) = agent.receive(&numbers, None)? else { panic!("there are ten") };
        for n in 0..5 {
            assert_eq!(number.message().n, n);
            number.send(&out, &Number { n: 100 + n })?;
            assert_eq!(number.advance(5), n < 4);
        }
        drop(number);
        Ok(())
    };
    for _ in 0..2 {
        harness.run(drops).unwrap();
        assert_eq!(sent(&harness.hand()), Vec::<u64>::new());
    }
    // A process that panics with them in hand.
    let panics = catch_unwind(AssertUnwindSafe(|| {
        given(&mut harness, Form::Handler, 8, |n, _| if n == 6 { panic!("6") } else { Ok(()) })
    }));
    assert!(panics.is_err());
    let (all, ended) = given(&mut harness, Form::Handler, 8, |_, _| Ok(()));
    ended.unwrap();
    assert_eq!((all, sent(&harness.hand())), (first(0..10), (0..10).collect()));
    assert_eq!(state_of(&mut harness), 10);
}

#[test]
fn a_handler_that_fails_in_a_step_of_several_is_tried_as_often_as_it_may_be_by_itself_and_the_others_are_done_once()
 {
    for attempts_max in [1, 3] {
        let mut harness = fed(worker().attempts_max(attempts_max), 0..10);
        let fails = |n: u64, _| if n == 5 { Err("5 fails".into()) } else { Ok(()) };
        let (all, ended) = given(&mut harness, Form::Handler, 64, fails);
        assert_eq!(ended.unwrap_err().to_string(), "5 fails");
        let alone = (1..=attempts_max).map(|attempt| (5, attempt));
        let expected: Vec<_> = first(0..6).into_iter().chain(first(0..5)).chain(alone).collect();
        assert_eq!(all, expected, "no attempt where others began the step, then as many as it may have");
        assert_eq!(sent(&harness.hand()), (0..5).collect::<Vec<_>>(), "those before it and nothing of it");
        assert_eq!(harness.reports().len(), usize::from(attempts_max > 1));
        given(&mut harness, Form::Handler, 64, |_, _| Ok(())).1.unwrap();
        assert_eq!(sent(&harness.hand()), (5..10).collect::<Vec<_>>());
        assert_eq!(state_of(&mut harness), 10);
    }
    let mut harness = fed(worker(), 0..10);
    let fails = |n, attempt| if n == 5 && attempt < 3 { Err("5 fails".into()) } else { Ok(()) };
    let (all, ended) = given(&mut harness, Form::Loop, 64, fails);
    ended.unwrap();
    // It is done in a step of its own at its third attempt, and so are those behind it, together.
    let alone = [(5, 1), (5, 2), (5, 3)];
    let expected: Vec<_> =
        first(0..6).into_iter().chain(first(0..5)).chain(alone).chain(first(6..10)).collect();
    assert_eq!((all, sent(&harness.hand())), (expected, (0..10).collect()));
}

#[test]
fn a_message_that_fails_only_in_company_is_no_burden_to_itself_or_others() {
    for form in FORMS {
        let mut harness = fed(worker().attempts_max(1), 0..10);
        let mut company = true;
        let (all, ended) = given(&mut harness, form, 64, move |n, attempt| {
            assert_eq!(attempt, 1);
            if n == 5 && std::mem::take(&mut company) { Err("not now".into()) } else { Ok(()) }
        });
        ended.unwrap();
        let expected: Vec<_> = first(0..6).into_iter().chain(first(0..10)).collect();
        assert_eq!((all, sent(&harness.hand())), (expected, (0..10).collect()));
    }
}

#[test]
fn a_message_rejected_in_a_step_of_several_is_gone_alone() {
    for form in FORMS {
        for rejected in [0, 5, 9] {
            let mut harness = fed(worker(), 0..10);
            let rejects = move |n, _| if n == rejected { Err(Reject::new("no").into()) } else { Ok(()) };
            given(&mut harness, form, 64, rejects).1.unwrap();
            assert_eq!(harness.rejected::<Number>("in"), [(Number { n: rejected }, "no".to_owned())]);
            let others: Vec<_> = (0..10).filter(|n| *n != rejected).collect();
            assert_eq!(sent(&harness.hand()), others, "{form:?} without {rejected}");
            assert_eq!(state_of(&mut harness), 9);
        }
    }
}

#[test]
fn an_invalid_message_ends_the_step_before_it_and_its_sender_is_accused_once() {
    for form in FORMS {
        let mut harness = fed(worker(), 0..5);
        harness.feed_bytes("in", b"xyz".as_slice());
        let mut harness = fed(harness, 6..9);
        let (_, ended) = given(&mut harness, form, 64, |_, _| Ok(()));
        assert!(ended.unwrap_err().is::<InvalidMessage>());
        assert_eq!((sent(&harness.hand()), harness.accusations()), ((0..5).collect(), 1), "{form:?}");
    }
}

#[test]
fn a_request_for_an_end_ends_the_step_with_the_message_in_hand() {
    for form in FORMS {
        for (ending, done) in [(Ending::Drain, 10), (Ending::Stop, 4)] {
            let mut harness = fed(worker().by_hand(), 0..0);
            let hand = harness.hand();
            (0..10).for_each(|n| hand.feed("in", Number { n }));
            let visible = Rc::new(RefCell::new(Vec::new()));
            let noted = visible.clone();
            let (all, ended) = given(&mut harness, form, 64, move |n, _| {
                noted.borrow_mut().extend(sent(&hand));
                if n == 3 {
                    hand.end(ending);
                }
                if n > 3 {
                    assert_eq!(noted.borrow().len() as u64, n, "each in a step of its own from then on");
                }
                Ok(())
            });
            ended.unwrap();
            let all_sent: Vec<_> = visible.take().into_iter().chain(sent(&harness.hand())).collect();
            assert_eq!((all, all_sent), (first(0..done), (0..done).collect()), "{form:?} {ending:?}");
        }
    }
}

#[test]
fn messages_that_are_copied_come_in_steps_of_one() {
    for form in FORMS {
        let harness = || Harness::new("worker").subscribes::<Number>("in");
        for harness in [harness().when_full(WhenFull::DropOldest), harness().isolated()] {
            let mut harness = fed(harness.publishes::<Number>("out"), 0..5);
            let hand = harness.hand();
            let (all, ended) = given(&mut harness, form, 64, move |n, _| {
                assert_eq!(sent(&hand), if n > 0 { vec![n - 1] } else { vec![] });
                Ok(())
            });
            ended.unwrap();
            assert_eq!(all, first(0..5));
        }
    }
}

#[test]
fn steps_of_several_producers_keep_the_order_of_each() {
    for form in FORMS {
        let harness = Harness::new("worker").subscribes::<Number>("in").producers(3);
        let mut harness = fed(harness.publishes::<Number>("out"), 0..900);
        let fails = |n, attempt| if n % 7 == 3 && attempt == 1 { Err("once".into()) } else { Ok(()) };
        let (_, ended) = given(&mut harness, form, 9, fails);
        ended.unwrap();
        let sent = sent(&harness.hand());
        assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), 900);
        assert_eq!(sent.len(), 900);
        for producer in 0..3 {
            assert!(sent.iter().filter(|n| *n % 3 == producer).is_sorted(), "{form:?}");
        }
    }
}

#[test]
fn raw_bytes_come_in_steps_of_several_too() {
    let mut harness = Harness::new("worker").subscribes::<Bytes>("in").publishes::<Bytes>("out");
    let bytes = |n: u64| vec![n as u8; n as usize * 3];
    (0..20).for_each(|n| harness.feed_bytes("in", bytes(n)));
    harness
        .run(|agent| {
            let out = agent.publish::<Bytes>("out")?;
            let blobs = agent.subscribe::<Bytes>("in")?;
            let mut steps = Vec::new();
            while let Next::Message(mut blob) = agent.receive(&blobs, None)? {
                let mut count = 1;
                loop {
                    let bytes = blob.message();
                    blob.send_with(&out, bytes.len(), |slot| {
                        slot.copy_from_slice(bytes);
                        Ok(bytes.len())
                    })?;
                    if !blob.advance(8) {
                        break;
                    }
                    count += 1;
                }
                steps.push(count);
                blob.commit()?;
            }
            assert_eq!(steps, [8, 8, 4]);
            Ok(())
        })
        .unwrap();
    assert_eq!(harness.sent::<Bytes>("out"), (0..20).map(bytes).collect::<Vec<_>>());
}

/// Sends answers of 600 bytes, six of which fill the lane.
fn answers(agent: &mut Agent, max: u32, mut look: impl FnMut(u64, u32) + 'static) -> Result<()> {
    let out = agent.publish::<Bytes>("out")?;
    agent.batch(max);
    agent.on::<Number>("in", move |step, number| {
        look(number.n.to_native(), step.attempt());
        step.deadline(Duration::from_millis(1));
        step.send_with(&out, 600, |slot| {
            slot.fill(number.n.to_native() as u8);
            Ok(600)
        })
    })?;
    agent.serve()
}

fn answering() -> Harness {
    Harness::new("worker").subscribes::<Number>("in").publishes::<Bytes>("out").capacity(4096).attempts_max(1)
}

fn answered(harness: &mut Harness) -> Vec<u64> {
    harness.sent::<Bytes>("out").iter().map(|bytes| u64::from(bytes[0])).collect()
}

#[test]
fn a_step_whose_answers_do_not_fit_a_lane_together_is_no_attempt_of_the_message_that_met_it() {
    let mut harness = fed(answering(), 0..40);
    harness.run(|agent| answers(agent, 64, |_, attempt| assert_eq!(attempt, 1))).unwrap();
    assert_eq!(answered(&mut harness), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_step_that_waits_in_vain_for_space_is_made_with_what_there_is_space_for() {
    let mut harness = answering().without_readers().by_hand();
    let hand = harness.hand();
    (0..9).for_each(|n| hand.feed("in", Number { n }));
    let visits = Rc::new(RefCell::new(Vec::new()));
    let noted = visits.clone();
    harness
        .run(|agent| {
            answers(agent, 4, move |n, attempt| {
                assert_eq!(attempt, 1);
                noted.borrow_mut().push(n);
                // It met the full lane in the step of 4, and twice in its own.
                if n == 6 && noted.borrow().iter().filter(|met| **met == 6).count() == 3 {
                    hand.collect();
                    hand.end(Ending::Drain);
                }
            })
        })
        .unwrap();
    assert_eq!(visits.take(), [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 6, 7, 8]);
    assert_eq!(answered(&mut harness), (0..9).collect::<Vec<_>>());
}

#[test]
fn whatever_handlers_do_each_message_is_done_once_in_order_or_rejected() {
    let mix = |seed: u64| {
        let z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    };
    for seed in 0..80_u64 {
        let form = FORMS[seed as usize % 2];
        let mut harness = fed(worker().attempts_max(4), 0..60);
        let refused = move |n: u64| mix(seed << 20 | n).is_multiple_of(9);
        let (mut calls, mut done) = (seed << 32, false);
        while !done {
            let mut next = calls;
            let count = Rc::new(RefCell::new(0));
            let counted = count.clone();
            let run = catch_unwind(AssertUnwindSafe(|| {
                given(&mut harness, form, 1 + mix(seed) as u32 % 12, move |n, _| {
                    next += 1;
                    *counted.borrow_mut() += 1;
                    match mix(next) % 16 {
                        _ if refused(n) => Err(Reject::new("refused").into()),
                        0 => panic!("{n}"),
                        1 | 2 => Err("fails".into()),
                        _ => Ok(()),
                    }
                })
            }));
            calls += *count.borrow();
            done = matches!(run, Ok((_, Ok(()))));
        }
        let others: Vec<_> = (0..60).filter(|n| !refused(*n)).collect();
        assert_eq!(sent(&harness.hand()), others, "seed {seed}");
        let gone: Vec<_> = harness.rejected::<Number>("in").iter().map(|(number, _)| number.n).collect();
        assert_eq!(gone, (0..60).filter(|n| refused(*n)).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(state_of(&mut harness), others.len() as u64);
    }
}
