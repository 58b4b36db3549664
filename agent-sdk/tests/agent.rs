//! Goal: what the SDK promises about steps, receiving, sending and errors. Method: bodies in the in-process harness, which
//! runs the same agent over the same lanes; a panic or a second run stands for a death.
#![allow(clippy::unwrap_used, missing_docs)]

use shoal_agent::harness::{Ending, Harness, WhenFull};
use shoal_agent::{Agent, Bytes, InvalidMessage, Next, Reject, Result, SendError};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[shoal_agent::message]
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    n: u64,
    text: String,
}

#[shoal_agent::message]
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    n: u64,
}

mod other {
    #[shoal_agent::message]
    pub struct Task {
        pub n: u32,
    }
}

const NONE: [u64; 0] = [];

fn task(n: u64) -> Task {
    Task { n, text: "x".repeat(20) }
}

fn worker() -> Harness {
    Harness::new("worker").subscribes::<Task>("tasks").publishes::<Count>("counts")
}

fn fed(mut harness: Harness, count: u64) -> Harness {
    (0..count).for_each(|n| harness.feed("tasks", task(n)));
    harness
}

fn numbers(harness: &mut Harness) -> Vec<u64> {
    harness.sent::<Count>("counts").iter().map(|count| count.n).collect()
}

/// Answers each task with its number.
fn echo(agent: &mut Agent) -> Result<()> {
    let counts = agent.publish::<Count>("counts")?;
    agent.on::<Task>("tasks", move |step, task| step.send(&counts, &Count { n: task.n.to_native() }))?;
    agent.serve()
}

#[test]
fn a_step_that_ends_well_publishes_its_answers_and_acknowledges_its_message() {
    let mut harness = fed(worker(), 3000);
    harness.run(echo).unwrap();
    assert!(harness.is_ready());
    assert_eq!(numbers(&mut harness), (0..3000).collect::<Vec<_>>());
    harness.run(echo).unwrap();
    assert_eq!(numbers(&mut harness), NONE, "nothing comes again to the next incarnation");
}

#[test]
fn a_handlers_error_takes_back_what_it_sent_and_the_message_comes_again() {
    let mut harness = fed(worker(), 3);
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            agent.on::<Task>("tasks", move |step, task| {
                step.send(&counts, &Count { n: task.n.to_native() })?;
                match (task.n.to_native(), step.attempt()) {
                    (1, 1 | 2) => Err("not yet".into()),
                    (1, attempt) => {
                        assert_eq!(attempt, 3);
                        step.send(&counts, &Count { n: 100 })
                    }
                    (_, attempt) => {
                        assert_eq!(attempt, 1);
                        Ok(())
                    }
                }
            })?;
            agent.serve()
        })
        .unwrap();
    assert_eq!(numbers(&mut harness), [0, 1, 100, 2]);
    let reports = harness.reports();
    assert_eq!(reports.len(), 1, "one report for a message and text: {reports:?}");
    assert!(reports[0].contains("tasks-source/tasks/") && reports[0].contains("not yet"), "{reports:?}");
}

#[test]
fn a_rejected_message_is_gone_with_its_answers_and_its_reason_is_kept() {
    let mut harness = fed(worker(), 4);
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            let state = agent.state::<Count>()?;
            agent.on::<Task>("tasks", move |step, task| {
                let n = task.n.to_native();
                step.send(&counts, &Count { n })?;
                let before = step.load(&state)?.map_or(0, |count| count.n);
                step.keep(&state, &Count { n: before + 1 })?;
                if n % 2 == 1 { Err(Reject::new(format!("{n} is odd")).into()) } else { Ok(()) }
            })?;
            agent.serve()?;
            assert_eq!(agent.load(&state)?, Some(Count { n: 2 }), "nor is its change of state kept");
            Ok(())
        })
        .unwrap();
    assert_eq!(numbers(&mut harness), [0, 2]);
    let rejected = harness.rejected::<Task>("tasks");
    assert_eq!(rejected, [(task(1), "1 is odd".to_owned()), (task(3), "3 is odd".to_owned())]);
    let mut harness = fed(worker(), 3);
    harness
        .run(|agent| {
            let tasks = agent.subscribe::<Task>("tasks")?;
            while let Next::Message(task) = agent.receive(&tasks, None)? {
                if task.message().n == 1 { task.reject("no")? } else { task.commit()? }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(harness.rejected::<Task>("tasks"), [(task(1), "no".to_owned())]);
}

#[test]
fn a_lane_that_stays_full_is_no_attempt_of_the_message() {
    let harness = worker().capacity(4096).without_readers().by_hand().attempts_max(2);
    let mut harness = fed(harness, 1);
    let hand = harness.hand();
    let tries = Rc::new(Cell::new(0));
    let counted = tries.clone();
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            let (feeding, counted) = (hand.clone(), counted.clone());
            agent.on::<Task>("tasks", move |step, _| {
                assert_eq!(step.attempt(), 1);
                counted.set(counted.get() + 1);
                step.deadline(Duration::from_millis(1));
                if counted.get() == 5 {
                    hand.collect();
                    hand.end(Ending::Drain);
                }
                step.send(&counts, &Count { n: 1 })
            })?;
            while agent.send_within(&counts, &Count { n: 0 }, Duration::from_millis(1)).is_ok() {}
            feeding.feed("tasks", task(1));
            agent.serve()
        })
        .unwrap();
    assert_eq!(tries.get(), 6, "five for the first message, one for the second");
    assert_eq!(numbers(&mut harness).iter().filter(|n| **n == 1).count(), 2);
}

#[test]
fn the_pause_before_the_next_attempt_doubles() {
    let mut harness = fed(worker().attempts_max(6), 1);
    let began = Instant::now();
    let error = harness.run(|agent| {
        agent.on::<Task>("tasks", |_, _| Err("never".into()))?;
        agent.serve()
    });
    assert_eq!(error.unwrap_err().to_string(), "never");
    assert!(began.elapsed() >= Duration::from_millis(1 + 2 + 4 + 8 + 16), "{:?}", began.elapsed());
}

#[test]
fn a_stop_request_ends_the_pause() {
    let mut harness = fed(worker().attempts_max(u32::MAX).by_hand(), 1);
    let hand = harness.hand();
    harness.feed("tasks", task(1));
    let began = Instant::now();
    harness
        .run(|agent| {
            let stop = hand.clone();
            stop.feed("tasks", task(2));
            agent.on::<Task>("tasks", move |step, _| {
                if step.attempt() == 11 {
                    stop.end(Ending::Stop);
                }
                Err("never".into())
            })?;
            agent.serve()
        })
        .unwrap();
    // Ten pauses of 1 to 512 ms; the eleventh would be of a second.
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
}

#[test]
fn a_panic_takes_back_the_step_and_the_next_incarnation_is_given_its_message() {
    let mut harness = fed(worker(), 5);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        harness.run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            agent.on::<Task>("tasks", move |step, task| {
                step.send(&counts, &Count { n: task.n.to_native() })?;
                assert!(task.n != 2, "on purpose");
                Ok(())
            })?;
            agent.serve()
        })
    }));
    assert!(ended.is_err());
    assert_eq!(numbers(&mut harness), [0, 1]);
    harness.run(echo).unwrap();
    assert_eq!(numbers(&mut harness), [2, 3, 4]);
}

#[test]
fn a_panic_that_the_body_catches_leaves_nothing_for_the_next_step() {
    let mut harness = fed(worker(), 2);
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            agent.on::<Task>("tasks", move |step, task| {
                step.send(&counts, &Count { n: task.n.to_native() })
            })?;
            let caught = catch_unwind(AssertUnwindSafe(|| {
                agent.step(|step| -> Result<()> {
                    step.send(&counts, &Count { n: 77 })?;
                    panic!("on purpose")
                })
            }));
            assert!(caught.is_err());
            agent.serve()
        })
        .unwrap();
    assert_eq!(numbers(&mut harness), [0, 1]);
}

#[test]
fn a_received_message_dropped_without_commit_comes_again_without_its_answers() {
    let mut harness = fed(worker(), 2);
    harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            let tasks = agent.subscribe::<Task>("tasks")?;
            let mut seen = Vec::new();
            while let Next::Message(task) = agent.receive(&tasks, None)? {
                let message = task.message();
                task.send(&counts, &Count { n: message.n.to_native() })?;
                seen.push((message.n.to_native(), task.attempt()));
                if task.attempt() == 2 {
                    task.commit()?;
                }
            }
            assert_eq!(seen, [(0, 1), (0, 2), (1, 1), (1, 2)]);
            Ok(())
        })
        .unwrap();
    assert_eq!(numbers(&mut harness), [0, 1]);
}

#[test]
fn receive_tells_a_message_a_time_out_closed_and_stopping_apart() {
    for ending in [Ending::Close, Ending::Drain, Ending::Stop] {
        let mut harness = worker().by_hand();
        let hand = harness.hand();
        harness
            .run(|agent| {
                let tasks = agent.subscribe::<Task>("tasks")?;
                let short = Some(Duration::from_millis(3));
                assert!(matches!(agent.try_receive(&tasks)?, Next::TimedOut));
                let began = Instant::now();
                assert!(matches!(agent.receive(&tasks, short)?, Next::TimedOut));
                assert!(began.elapsed() >= Duration::from_millis(3));
                hand.feed("tasks", task(7));
                hand.end(ending);
                if ending != Ending::Stop {
                    let Next::Message(task) = agent.try_receive(&tasks)? else { panic!("no message") };
                    assert_eq!(task.message().n, 7);
                    task.commit()?;
                }
                let closed = ending == Ending::Close;
                for _ in 0..2 {
                    assert_eq!(matches!(agent.try_receive(&tasks)?, Next::Closed), closed);
                    assert_eq!(matches!(agent.receive(&tasks, None)?, Next::Stopping), !closed);
                }
                assert_eq!(agent.stopping(), !closed);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn loop_that_asks_is_told_once_who_is_gone_after_the_last_message_and_before_closed() {
    for asks in [true, false] {
        let mut harness = worker().by_hand();
        let hand = harness.hand();
        harness
            .run(|agent| {
                let tasks = agent.subscribe::<Task>("tasks")?;
                let peers = if asks { Some(agent.peers()) } else { None };
                let short = Some(Duration::from_millis(3));
                let began = Instant::now();
                assert!(matches!(agent.receive(&tasks, short)?, Next::TimedOut));
                assert!(began.elapsed() >= Duration::from_millis(3));
                hand.feed("tasks", task(7));
                hand.end(Ending::Close);
                let told = |agent: &mut Agent| peers.map_or(Ok(None), |peers| agent.gone(&peers));
                assert_eq!(told(agent)?, None, "its message is not read yet");
                let Next::Message(task) = agent.receive(&tasks, None)? else { panic!("no message") };
                task.commit()?;
                if asks {
                    assert!(!agent.arm(&tasks)?, "there is something to ask for");
                    assert_eq!(told(agent)?.as_deref(), Some("tasks-source"));
                    assert_eq!(told(agent)?, None, "it is told once");
                }
                for _ in 0..2 {
                    assert!(matches!(agent.receive(&tasks, None)?, Next::Closed));
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn receive_without_limit_ends_for_who_is_gone_once_even_if_nobody_asks_then() {
    let mut harness = worker().by_hand();
    let hand = harness.hand();
    harness
        .run(|agent| {
            let tasks = agent.subscribe::<Task>("tasks")?;
            let peers = agent.peers();
            hand.end(Ending::Close);
            assert!(matches!(agent.receive(&tasks, None)?, Next::TimedOut));
            assert!(matches!(agent.receive(&tasks, None)?, Next::Closed));
            assert_eq!(agent.gone(&peers)?.as_deref(), Some("tasks-source"), "it can be asked for later");
            assert_eq!(agent.gone(&peers)?, None);
            Ok(())
        })
        .unwrap();
}

#[test]
fn serve_returns_when_all_producers_have_ended() {
    let mut harness = fed(worker().ends_with(Ending::Close), 500);
    harness.run(echo).unwrap();
    assert_eq!(numbers(&mut harness).len(), 500);
}

#[test]
fn a_message_too_large_is_a_permanent_error_that_names_sizes_and_the_line() {
    let mut harness = fed(worker().capacity(4096), 1);
    let error = harness
        .run(|agent| {
            let counts = agent.publish::<Count>("counts")?;
            agent.on::<Task>("tasks", move |step, _| {
                for n in 0..1000 {
                    step.send(&counts, &Count { n })?;
                }
                Ok(())
            })?;
            agent.serve()
        })
        .unwrap_err();
    assert!(error.to_string().contains("what the same step sent before"), "{error}");
    assert_eq!(harness.reports(), Vec::<String>::new(), "it is not tried again");
    assert_eq!(numbers(&mut harness), NONE);

    let mut source = Harness::new("lister").publishes::<Task>("tasks").capacity(4096);
    let error = source
        .run(|agent| {
            let tasks = agent.publish::<Task>("tasks")?;
            agent.send(&tasks, &Task { n: 1, text: "x".repeat(3000) })
        })
        .unwrap_err();
    let Some(SendError::TooLarge { message_bytes, max_bytes, .. }) = error.downcast_ref() else {
        panic!("{error}")
    };
    assert_eq!((*message_bytes, *max_bytes), (Some(3016), 2032));
    let text = error.to_string();
    for part in ["3016 bytes", "2032 bytes", "[channel.tasks]", "harness:1"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

fn fill(agent: &mut Agent) -> Result<(u64, SendError)> {
    let tasks = agent.publish::<Task>("tasks")?;
    loop {
        let n = agent.sent(&tasks);
        if let Err(error) = agent.send_within(&tasks, &task(n), Duration::from_millis(5)) {
            return Ok((n, error.downcast_ref::<SendError>().unwrap().clone()));
        }
    }
}

#[test]
fn a_full_lane_refuses_or_times_out_as_its_channel_says_and_nothing_is_lost() {
    for when_full in [WhenFull::Reject, WhenFull::Block] {
        let lister = Harness::new("lister").publishes::<Task>("tasks");
        let mut harness = lister.capacity(4096).when_full(when_full).without_readers();
        let mut count = 0;
        harness
            .run(|agent| {
                let (sent, error) = fill(agent)?;
                count = sent;
                let channel = "tasks".to_owned();
                let expected = match when_full {
                    WhenFull::Reject => SendError::Full { channel },
                    _ => SendError::TimedOut { channel, after: Duration::from_millis(5) },
                };
                assert_eq!(error, expected);
                Ok(())
            })
            .unwrap();
        assert!(count > 20);
        let numbers: Vec<u64> = harness.sent::<Task>("tasks").iter().map(|t| t.n).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn a_blocked_sender_goes_on_when_its_reader_does() {
    let mut harness = Harness::new("lister").publishes::<Task>("tasks").capacity(4096);
    harness
        .run(|agent| {
            let tasks = agent.publish::<Task>("tasks")?;
            (0..1000).try_for_each(|n| agent.send(&tasks, &task(n)))
        })
        .unwrap();
    assert_eq!(harness.sent::<Task>("tasks").len(), 1000);
}

#[test]
fn a_blocked_sender_gives_up_when_asked_to_stop() {
    let lister = Harness::new("lister").publishes::<Task>("tasks").capacity(4096);
    let mut harness = lister.without_readers().ends_with(Ending::Stop);
    let error = harness
        .run(|agent| {
            let tasks = agent.publish::<Task>("tasks")?;
            (0..1000).try_for_each(|n| agent.send(&tasks, &task(n)))
        })
        .unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&SendError::Stopping { channel: "tasks".into() }));
}

#[test]
fn a_step_whose_send_timed_out_fails_even_if_its_body_goes_on() {
    let lister =
        Harness::new("lister").publishes::<Task>("tasks").capacity(4096).publishes::<Count>("counts");
    let mut harness = lister.without_readers();
    harness
        .run(|agent| {
            fill(agent)?;
            let tasks = agent.publish::<Task>("tasks")?;
            let counts = agent.publish::<Count>("counts")?;
            let error = agent.step(|step| {
                step.send(&counts, &Count { n: 1 })?;
                step.deadline(Duration::from_millis(2));
                let _ = step.send(&tasks, &task(0));
                Ok(())
            });
            assert!(matches!(error.unwrap_err().downcast_ref(), Some(SendError::TimedOut { .. })));
            Ok(())
        })
        .unwrap();
    assert_eq!(numbers(&mut harness), NONE);
}

#[test]
fn a_source_resumes_at_what_all_incarnations_before_it_sent() {
    let mut harness = Harness::new("lister").publishes::<Task>("tasks");
    for _ in 0..5 {
        harness
            .run(|agent| {
                let tasks = agent.publish::<Task>("tasks")?;
                let first = agent.sent(&tasks);
                (first..first + 10).try_for_each(|n| agent.send(&tasks, &task(n)))?;
                assert_eq!(u64::from(agent.generation()) * 10, agent.sent(&tasks));
                Ok(())
            })
            .unwrap();
    }
    let numbers: Vec<u64> = harness.sent::<Task>("tasks").iter().map(|t| t.n).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[test]
fn several_producers_are_served_in_turns() {
    let reader = Harness::new("reader").subscribes::<Task>("tasks").producers(4);
    let mut harness = fed(reader, 400);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = seen.clone();
    harness
        .run(move |agent| {
            agent.on::<Task>("tasks", move |step, _| {
                noted.borrow_mut().push(step.message_id().unwrap().agent.to_owned());
                Ok(())
            })?;
            agent.serve()
        })
        .unwrap();
    assert_eq!(seen.borrow().len(), 400);
    // In turns of some messages each: while all have some, nobody waits for more than a turn of each other.
    for turns in seen.borrow().chunks(64).take(5) {
        let different: std::collections::BTreeSet<_> = turns.iter().collect();
        assert_eq!(different.len(), 4, "{turns:?}");
    }
}

#[test]
fn drop_oldest_gives_the_newest_in_order() {
    let reader = Harness::new("reader").subscribes::<Task>("tasks").capacity(4096);
    let mut harness = fed(reader.when_full(WhenFull::DropOldest), 1000);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = seen.clone();
    let missed = Rc::new(Cell::new(0));
    let counted = missed.clone();
    harness
        .run(move |agent| {
            let tasks = agent.subscribe::<Task>("tasks")?;
            while let Next::Message(task) = agent.receive(&tasks, None)? {
                noted.borrow_mut().push(task.message().n.to_native());
                task.commit()?;
            }
            counted.set(agent.missed(&tasks));
            Ok(())
        })
        .unwrap();
    let seen = seen.borrow();
    assert!(
        seen.len() > 20 && seen.windows(2).all(|w| w[0] + 1 == w[1]) && seen.last() == Some(&999),
        "{seen:?}"
    );
    assert_eq!(missed.get() + seen.len() as u64, 1000, "the gap is counted exactly");
}

#[test]
fn bytes_are_written_into_the_lane_by_hand_and_only_what_was_used_is_sent() {
    let copier = Harness::new("copier").subscribes::<Bytes>("in").publishes::<Bytes>("out");
    let mut harness = copier;
    let big: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
    harness.feed_bytes("in", big.clone());
    harness.feed_bytes("in", b"".as_slice());
    harness.feed_bytes("in", b"abc".as_slice());
    harness
        .run(|agent| {
            let out = agent.publish::<Bytes>("out")?;
            agent.on::<Bytes>("in", move |step, bytes| {
                assert!(step.send_with(&out, 30, |_| Err("no".into())).is_err());
                step.send_with(&out, bytes.len() + 5, |slot| {
                    assert_eq!(slot.len(), bytes.len() + 5);
                    slot[..bytes.len()].copy_from_slice(bytes);
                    Ok(bytes.len())
                })
            })?;
            agent.serve()
        })
        .unwrap();
    assert_eq!(harness.sent::<Bytes>("out"), [big, vec![], b"abc".to_vec()]);
}

#[test]
fn wrong_channels_ways_and_types_are_errors_in_words_for_the_author() {
    fn says(error: Result<()>, parts: &[&str]) {
        let text = error.unwrap_err().to_string();
        for part in ["worker", "harness"].iter().chain(parts) {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }
    let mut harness = worker();
    says(
        harness.run(|a| a.publish::<Count>("count").map(drop)),
        &["`count`", "did you mean `counts`?", "`tasks`"],
    );
    says(
        harness.run(|a| a.publish::<Task>("tasks").map(drop)),
        &["publishes", "only subscribes", "[agent.worker]"],
    );
    says(harness.run(|a| a.subscribe::<Count>("counts").map(drop)), &["subscribes", "only publishes"]);
    says(harness.run(|a| a.subscribe::<Count>("tasks").map(drop)), &["`Task`", "`Count`", "harness:1"]);
    let prints = [
        <Task as shoal_agent::__private::Typed>::FINGERPRINT,
        <other::Task as shoal_agent::__private::Typed>::FINGERPRINT,
    ];
    let prints = prints.map(|p| p.to_string());
    says(
        harness.run(|a| a.subscribe::<other::Task>("tasks").map(drop)),
        &["harness:1", &prints[0], &prints[1]],
    );
    says(harness.run(|a| a.ready()), &["without reading", "`tasks`"]);
    let twice = harness.run(|a| {
        a.on::<Task>("tasks", |_, _| Ok(()))?;
        a.on::<Task>("tasks", |_, _| Ok(()))
    });
    assert!(twice.unwrap_err().to_string().contains("twice"));
    harness.run(|a| a.publish::<Count>("counts").and(a.publish::<Count>("counts")).and(echo(a))).unwrap();
}

#[test]
fn an_invalid_message_names_its_sender_who_is_accused() {
    for handler in [true, false] {
        let mut harness = worker();
        harness.feed_bytes("tasks", b"too short".as_slice());
        let error = harness.run(|agent| {
            if handler {
                return echo(agent);
            }
            let tasks = agent.subscribe::<Task>("tasks")?;
            agent.receive(&tasks, None).map(|_| ())
        });
        let error = error.unwrap_err();
        let invalid = error.downcast_ref::<InvalidMessage>().unwrap();
        assert_eq!((invalid.from.as_str(), invalid.channel.as_str()), ("tasks-source", "tasks"));
        assert_eq!(harness.accusations(), 1);
        assert!(harness.reports()[0].contains("peer fault"));
    }
}

#[test]
fn a_message_has_one_id_whoever_is_given_it() {
    let mut harness = fed(worker(), 1);
    let mut ids = Vec::new();
    for _ in 0..2 {
        harness
            .run(|agent| {
                let tasks = agent.subscribe::<Task>("tasks")?;
                let Next::Message(task) = agent.receive(&tasks, None)? else { panic!("no message") };
                ids.push(task.message_id().unwrap().to_string());
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(ids[0], ids[1]);
    assert!(ids[0].starts_with("tasks-source/tasks/"), "{ids:?}");
}

#[test]
fn an_armed_agents_descriptor_becomes_readable_with_the_next_message_and_not_before() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut harness = worker().by_hand();
    let hand = harness.hand();
    let readable = |agent: &Agent| {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(agent, PollFlags::IN)], Some(&none)).unwrap() == 1
    };
    harness
        .run(|agent| {
            let tasks = agent.subscribe::<Task>("tasks")?;
            for n in 0..10 {
                assert!(agent.arm(&tasks)?);
                assert!(!readable(agent), "round {n}");
                hand.feed("tasks", task(n));
                assert!(readable(agent), "round {n}");
                if n % 2 == 0 {
                    assert!(!agent.arm(&tasks)?, "there is a message already");
                }
                let Next::Message(task) = agent.try_receive(&tasks)? else { panic!("no message") };
                assert_eq!(task.message().n, n);
                task.commit()?;
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn waiting_for_what_never_comes_is_an_error_of_the_harness() {
    let mut harness = Harness::new("lister").publishes::<Task>("tasks").capacity(4096).without_readers();
    let error = harness.run(|agent| {
        let tasks = agent.publish::<Task>("tasks")?;
        (0..1000).try_for_each(|n| agent.send(&tasks, &task(n)))
    });
    assert!(error.unwrap_err().to_string().contains("never comes"));
}

#[shoal_agent::message]
struct Number {
    value: u64,
}

#[shoal_agent::message]
struct Total {
    sum: u64,
    names: Vec<String>,
}

fn summing(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    let total = agent.state::<Total>()?;
    agent.on::<Number>("in", move |step, number| {
        let mut kept = step.load(&total)?.unwrap_or(Total { sum: 0, names: Vec::new() });
        kept.sum += number.value.to_native();
        kept.names.push(format!("n{}", number.value.to_native()));
        step.keep(&total, &kept)?;
        if number.value.to_native() == 13 { Err("an unlucky number".into()) } else { Ok(()) }
    })?;
    agent.serve()
}

#[test]
fn state_of_a_failed_step_is_forgotten_and_the_next_incarnation_finds_what_was_committed() {
    let mut harness = Harness::new("summer").subscribes::<Number>("in").attempts_max(2);
    for value in [1, 2, 3] {
        harness.feed("in", Number { value });
    }
    harness.run(summing).expect("no error");
    harness.feed("in", Number { value: 13 });
    let _ = harness.run(summing);
    let mut found = None;
    let _ = harness.run(|agent| {
        let total = agent.state::<Total>()?;
        found = agent.load(&total)?.map(|t| (t.sum, t.names));
        Ok(())
    });
    assert_eq!(found, Some((6, vec!["n1".to_string(), "n2".into(), "n3".into()])));
}

/// They would lie in one place, and each be read as the other.
#[test]
fn second_state_of_another_type_is_refused_before_anything_is_kept() {
    let mut harness = Harness::new("keeper").publishes::<Number>("out");
    let refused = harness.run(|agent| {
        agent.state::<Total>()?;
        agent.state::<Total>()?;
        agent.state::<Number>().map(|_| ())
    });
    let text = refused.expect_err("refused").to_string();
    assert!(text.contains("`keeper`") && text.contains("`Total`") && text.contains("`Number`"), "{text}");
    assert!(text.contains("put both in one message"), "{text}");
}

#[test]
fn state_of_another_type_or_too_large_is_an_error_that_says_so() {
    let mut harness = Harness::new("summer").subscribes::<Number>("in");
    harness.feed("in", Number { value: 1 });
    harness.run(summing).expect("no error");
    let error = harness.run(|agent| agent.state::<Number>().map(|_| ())).expect_err("refused").to_string();
    assert!(error.contains("former") && error.contains("Number"), "{error}");
    let mut harness = Harness::new("keeper").publishes::<Number>("out");
    let error = harness.run(|agent| {
        let total = agent.state::<Total>()?;
        agent.step(|step| step.keep(&total, &Total { sum: 0, names: vec!["x".repeat(9000)] }))
    });
    assert!(error.expect_err("refused").to_string().contains("too large"));
}
