//! One lane: what is polled is whole, whatever is published and however the ring wraps.

use crate::swarm::{Sender, Swarm, model, word_of};
use loom::thread;
use shoal_runtime::commit::{self, Committer, Key};
use shoal_runtime::layout::WhenFull;
use shoal_runtime::mark::Place;
use shoal_runtime::producer::Claimed;

#[test]
fn message_polled_is_whole_and_in_order_over_the_wrap_with_its_padding() {
    model(Some(3), || {
        // The first message of three words ends the lap only with padding before it; the second follows it.
        let first = Place { position: 224, sequence: 5 };
        let swarm = Swarm::new(1, 128, WhenFull::Block, first);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        let writer = thread::spawn(move || {
            sender.write(3);
            sender.producers[0].publish();
            sender.write(1);
            sender.producers[0].publish();
        });
        for _ in 0..3 {
            receiver.try_receive(false);
        }
        writer.join().expect("no panic");
        while receiver.try_receive(true) {}
        assert_eq!(receiver.numbers(0), [5, 6]);
    });
}

#[test]
fn messages_of_one_step_are_found_by_headers_mark_and_record_and_only_when_committed() {
    model(Some(2), || {
        let swarm = Swarm::block(128);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        let region = lives[0].region.clone();
        let shape = swarm.sender_shape();
        let mut committer = Committer::new(&region, &shape, 1);
        let writer = thread::spawn(move || {
            sender.write(1);
            sender.write(1);
            committer.commit(&[(Key::Lane(0), sender.producers[0].pending())]);
            sender.producers[0].publish();
        });
        // A message that is found is committed: the record says so to everybody who looks after that.
        if receiver.try_receive(true) {
            let tail = commit::committed(&region, &shape, Key::Lane(0)).expect("it commits once");
            assert_eq!(tail.sequence, 2);
        }
        writer.join().expect("no panic");
        while receiver.try_receive(true) {}
        assert_eq!(receiver.numbers(0), [0, 1]);
    });
}

#[test]
fn writer_dead_before_any_store_of_a_step_leaves_all_of_it_or_nothing() {
    let mut outcomes = [0, 0];
    for stores in 0..40 {
        let (sent, received) = (std::sync::Mutex::new(0), std::sync::Mutex::new(0));
        let outcome = std::sync::Arc::new((sent, received));
        let told = outcome.clone();
        model(None, move || {
            let (tail, cursor) = step_of_a_relay_that_dies(stores);
            (*told.0.lock().unwrap(), *told.1.lock().unwrap()) = (tail.sequence, cursor.sequence);
        });
        let (sent, received) = (*outcome.0.lock().unwrap(), *outcome.1.lock().unwrap());
        assert_eq!(
            sent,
            2 * received,
            "died before store {stores}: the outputs are there exactly if the input is taken"
        );
        outcomes[received as usize] += 1;
    }
    assert!(outcomes[0] > 8 && outcomes[1] > 8, "both happened: {outcomes:?}");
}

/// An agent with one input and one lane takes a message and sends two in one step, and dies before store `stores` of its
/// segment; what its verdict says then.
fn step_of_a_relay_that_dies(stores: u64) -> (Place, Place) {
    use shoal_runtime::consumer::{Consumer, InputEnd, Polled};
    use shoal_runtime::image::{Origin, mortal};
    use shoal_runtime::layout::SegmentShape;
    use shoal_runtime::links::{Links, Neighbour};
    use shoal_runtime::producer::Producer;
    let swarm = Swarm::block(128);
    let (lives, life) = swarm.begin();
    swarm.sender(&lives[0], life.link()).send(1);
    let producer_shape = std::sync::Arc::new(swarm.sender_shape());
    let shape = SegmentShape { lanes: producer_shape.lanes.clone(), input_count: 1, state_bytes: 0 };
    let at = Place { position: 128, sequence: 0 };
    let origin =
        Origin { swarm: 1, incarnation: life.who, lanes: vec![at], inputs: vec![at], state: Vec::new() };
    let region = mortal(&shape, &origin, stores);
    let mut links =
        Links::new(swarm.board.view().clone(), vec![Neighbour::new(0, producer_shape.clone(), true)]);
    links.add_all(vec![lives[0].link()]);
    let end = InputEnd { neighbour: 0, lane: 0, share: (0, 1) };
    let mut consumer = Consumer::open(region.clone(), &shape, 0, end, producer_shape);
    consumer.sync(&mut links);
    let mut producer = Producer::open(region.clone(), &shape, 0, vec![]);
    let mut committer = Committer::new(&region, &shape, 1);
    let Polled::Frame(frame) = consumer.poll() else { panic!("a message waits") };
    for _ in 0..2 {
        let Claimed::Space(claim) = producer.claim(8, &links) else { panic!("the ring is empty") };
        producer.fill(&claim, &word_of(0).to_le_bytes());
        producer.finish(claim, 8, None);
    }
    committer.commit(&[(Key::Lane(0), producer.pending()), (Key::Input(0), frame.next())]);
    producer.publish();
    consumer.ack(&frame);
    let of = |key| commit::committed(&region, &shape, key).expect("nobody writes now");
    (of(Key::Lane(0)), of(Key::Input(0)))
}

#[test]
fn full_ring_neither_overwrites_a_leased_message_nor_leaves_its_producer_asleep() {
    model(Some(2), || {
        // The ring holds one message.
        let swarm = Swarm::block(64);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        let writer = thread::spawn(move || (0..3).for_each(|_| sender.send(1)));
        for _ in 0..3 {
            let found = receiver.wait();
            receiver.read(&found).expect("leased");
            receiver.read(&found).expect("still leased");
            receiver.ack(&found);
        }
        writer.join().expect("no panic");
        assert_eq!(receiver.numbers(0), [0, 1, 2]);
    });
}

#[test]
fn space_is_written_again_only_after_its_reader_has_let_go() {
    model(Some(3), || {
        // Two messages of three words lie in the ring; the third takes the words of the first.
        let swarm = Swarm::block(128);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        (0..2).for_each(|_| sender.send(3));
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                let found = receiver.look(false).expect("it was sent");
                receiver.read(&found).expect("leased");
                // No fence here: only the cursor itself gives the space back.
                receiver.consumers[0].ack(&found.1);
            }
        });
        let Sender { agent, producers } = &mut sender;
        if let Claimed::Space(claim) = producers[0].claim(24, &agent.links) {
            producers[0].fill(&claim, &[0; 24]);
        }
        reader.join().expect("no panic");
    });
}

/// Lets a drop-oldest sender do `sends` while the receiver looks `looks` times; what it got and missed is everything.
fn drop_oldest(capacity: u64, sends: &'static [usize], looks: usize) {
    model(Some(2), move || {
        let first = Place { position: capacity, sequence: 0 };
        let swarm = Swarm::new(1, capacity, WhenFull::DropOldest, first);
        let (lives, life) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], life.link());
        let mut receiver = swarm.receiver(&life, vec![lives[0].link()]);
        // One lap is written before the receiver looks.
        let before = (capacity as usize - 16) / 32;
        (0..before).for_each(|_| sender.write(2));
        sender.producers[0].publish();
        let writer = thread::spawn(move || {
            for &step in sends {
                (0..step).for_each(|_| sender.write(2));
                sender.producers[0].publish();
            }
        });
        for _ in 0..looks {
            receiver.try_receive(false);
        }
        writer.join().expect("no panic");
        while receiver.try_receive(true) {}
        let got = receiver.numbers(0);
        assert!(got.is_sorted_by(|a, b| a < b));
        let all = before + sends.iter().sum::<usize>();
        assert_eq!(got.len() as u64 + receiver.consumers[0].missed(), all as u64);
        assert_eq!(got.last().copied().map(|n| n + 1), Some(all as u64));
    });
}

#[test]
fn message_overwritten_while_it_is_copied_is_never_taken_and_is_counted_as_missed() {
    drop_oldest(64, &[1, 1], 2);
}

#[test]
fn step_that_drops_a_whole_ring_is_counted_exactly() {
    drop_oldest(128, &[3], 2);
}
