//! A death and the next incarnation, while the other end sends, waits for space, or sleeps.
//!
//! The thread of the one that dies becomes the supervisor when it is dead, and then the next incarnation: in reality the
//! proof of the death and the start of the process order these three in just that way.

use crate::swarm::{Life, Receiver, Swarm, model};
use loom::thread;
use shoal_runtime::board::Status;
use shoal_runtime::commit::Key;

/// How far the first receiver comes before it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    /// It took nothing, and its desk says that it is awake.
    Awake,
    /// It took nothing, and its desk says that it sleeps.
    Parked,
    /// It acknowledged a message by its record only.
    Committed,
    /// It acknowledged a message, and rang nobody.
    Acknowledged,
}

fn live_and_die(receiver: &mut Receiver, how: Dies) {
    match how {
        Dies::Awake => {}
        Dies::Parked => {
            receiver.agent.desk.parked().set();
            assert!(receiver.received.is_empty());
        }
        Dies::Committed | Dies::Acknowledged => {
            let Some(found) = receiver.look(false) else { return };
            receiver.read(&found).expect("leased");
            receiver.received.push((found.0, found.1.at.sequence));
            if how == Dies::Committed {
                receiver.committer.commit(&[(Key::Input(0), found.1.next())]);
            } else {
                receiver.consumers[0].ack(&found.1);
            }
        }
    }
}

/// Makes the next incarnation of the receiver, in the supervisor's order.
fn succeed(swarm: &Swarm, dead: &Life, sender: &Life) -> Receiver {
    let cursors = swarm.judge(dead, &[sender]);
    let life = swarm.bear(1, dead.who.generation + 1, Some(&cursors), u64::MAX);
    swarm.announce(life.who);
    sender.bell.post(life.link());
    swarm.receiver(&life, vec![sender.link()])
}

fn consumer_replaced(capacity: u64, messages: u64, preemptions: usize, how: Dies) {
    model(Some(preemptions), move || {
        let swarm = Swarm::block(capacity);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut first = swarm.receiver(&life, vec![lives[0].link()]);
        let writer = thread::spawn(move || (0..messages).for_each(|_| sender.send(1)));
        live_and_die(&mut first, how);
        let taken = first.numbers(0);
        drop(first);
        let mut second = succeed(&swarm, &life, &lives[0]);
        (taken.len() as u64..messages).for_each(|_| second.receive());
        let all: Vec<u64> = taken.into_iter().chain(second.numbers(0)).collect();
        assert_eq!(all, (0..messages).collect::<Vec<_>>());
        writer.join().expect("no panic");
    });
}

#[test]
fn consumer_replaced_awake_under_a_sparse_sender_never_sleeps_with_a_message_waiting() {
    consumer_replaced(128, 1, 3, Dies::Awake);
}

#[test]
fn consumer_replaced_parked_under_a_sparse_sender_never_sleeps_with_a_message_waiting() {
    consumer_replaced(128, 1, 3, Dies::Parked);
}

#[test]
fn consumer_replaced_after_a_commit_gets_each_message_exactly_once() {
    consumer_replaced(128, 2, 2, Dies::Committed);
}

#[test]
fn consumer_replaced_under_a_blocked_producer_that_nobody_rang_wakes_it() {
    consumer_replaced(64, 2, 2, Dies::Acknowledged);
}

#[test]
fn consumer_replaced_under_a_blocked_producer_after_a_commit_wakes_it() {
    consumer_replaced(64, 2, 2, Dies::Committed);
}

#[test]
fn consumer_replaced_under_a_blocked_producer_without_a_word_wakes_it() {
    consumer_replaced(64, 2, 2, Dies::Parked);
}

#[test]
fn consumer_dead_before_its_link_was_handed_over_does_not_hold_up_the_producer() {
    model(Some(2), || {
        let swarm = Swarm::block(64);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let writer = thread::spawn(move || (0..2).for_each(|_| sender.send(1)));
        // The second incarnation is named on the board and dies before the packet with its link; there is no third.
        let cursors = swarm.judge(&life, &[&lives[0]]);
        let second = swarm.bear(1, 2, Some(&cursors), u64::MAX);
        swarm.announce(second.who);
        swarm.judge(&second, &[&lives[0]]);
        lives[0].bell.post_nothing();
        swarm.board.publish_status(1, Status::Gone);
        swarm.board.announce();
        lives[0].bell.ring();
        writer.join().expect("no panic");
    });
}

/// A producer that dies before store `stores` is replaced; `messages` come exactly once, in order, over both lives.
fn producer_replaced(stores: u64, preemptions: usize, messages: u64) {
    model(Some(preemptions), move || {
        let swarm = Swarm::block(128);
        let dying = swarm.bear(0, 1, None, stores);
        let life = swarm.bear(1, 1, None, u64::MAX);
        [dying.who, life.who].into_iter().for_each(|who| swarm.announce(who));
        let mut first = swarm.sender(&dying, life.link());
        let mut receiver = swarm.receiver(&life, vec![dying.link()]);
        let supervisor = thread::spawn(move || {
            // It rings nobody: it dies before that at the latest.
            first.write(1);
            first.producers[0].publish();
            drop(first);
            let ends = swarm.judge(&dying, &[&life]);
            let next = swarm.bear(0, 2, Some(&ends), u64::MAX);
            swarm.announce(next.who);
            life.bell.post(next.link());
            let mut second = swarm.sender(&next, life.link());
            (ends[0].sequence..messages).for_each(|_| second.send(1));
        });
        (0..messages).for_each(|_| receiver.receive());
        assert_eq!(receiver.numbers(0), (0..messages).collect::<Vec<_>>());
        supervisor.join().expect("no panic");
    });
}

// A message takes eight stores: payload, commit word 0, facts, commit word of the next 0, the mark's two words and its
// position (the commit), the commit word.

#[test]
fn producer_replaced_before_it_committed_has_sent_nothing() {
    producer_replaced(6, 2, 2);
}

#[test]
fn producer_replaced_between_commit_and_header_has_sent_its_message() {
    producer_replaced(7, 2, 2);
}

#[test]
fn producer_replaced_before_it_rang_has_sent_its_message() {
    producer_replaced(8, 2, 2);
}
