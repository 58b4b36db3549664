//! Sleeping and ringing: nobody sleeps while something waits for him.

use crate::swarm::{Swarm, model};
use loom::thread;
use shoal_runtime::layout::WhenFull;
use shoal_runtime::mark::Place;

#[test]
fn consumer_that_parks_while_its_producer_publishes_is_woken() {
    model(Some(3), || {
        let swarm = Swarm::block(128);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        let writer = thread::spawn(move || (0..2).for_each(|_| sender.send(1)));
        (0..2).for_each(|_| receiver.receive());
        assert_eq!(receiver.numbers(0), [0, 1]);
        writer.join().expect("no panic");
    });
}

#[test]
fn consumer_that_left_its_fence_to_its_producer_is_woken() {
    model(Some(3), || {
        let swarm = Swarm::block(128);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        // As after a sleep for which the producer was fenced; from then on it knows that it fences itself.
        receiver.agent.desk.parked().set_leaving(true);
        receiver.agent.desk.parked().clear();
        sender.agent.links.is_registered = true;
        let writer = thread::spawn(move || sender.send(1));
        receiver.receive();
        assert_eq!(receiver.numbers(0), [0]);
        writer.join().expect("no panic");
    });
}

#[test]
fn consumer_of_two_producers_is_woken_by_both() {
    model(Some(2), || {
        let swarm = Swarm::new(2, 64, WhenFull::Block, Place { position: 64, sequence: 0 });
        let (lives, life) = swarm.begin();
        let senders = lives.iter().map(|sender| {
            let mut sender = swarm.sender(sender, life.link());
            thread::spawn(move || sender.send(1))
        });
        let senders: Vec<_> = senders.collect();
        let mut receiver = swarm.receiver(&life, lives.iter().map(|l| l.link()).collect());
        (0..2).for_each(|_| receiver.receive());
        assert_eq!((receiver.numbers(0), receiver.numbers(1)), (vec![0], vec![0]));
        senders.into_iter().for_each(|s| s.join().expect("no panic"));
    });
}

#[test]
fn consumer_asleep_behind_messages_of_other_members_wakes_the_producer_that_waits_for_it() {
    model(Some(3), || {
        let mut swarm = Swarm::block(64);
        swarm.share = (1, 2);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        let writer = thread::spawn(move || (0..2).for_each(|_| sender.send(1)));
        receiver.receive();
        assert_eq!(receiver.numbers(0), [1]);
        writer.join().expect("no panic");
    });
}
