//! Members of a group that share a lane: each message is one's, none is lost with who dies, and space is reused only behind
//! what all of them are done with.
//!
//! Loom looks for other interleavings of a thread's access only against the last access of the same word. Who only reads runs in
//! the thread that was spawned last, so that no reading of its own stands before what others write.

use crate::swarm::{Receiver, Sender, Swarm, model, word_of};
use loom::thread;
use shoal_runtime::Region;
use shoal_runtime::claims::{self, Claim, ClaimTable};
use shoal_runtime::consumer::Frame;
use shoal_runtime::mark::Place;
use shoal_runtime::producer::Claimed;

fn table(entries: u64) -> ClaimTable {
    ClaimTable::new(Region::heap(claims::table_bytes(entries)), 0, entries)
}

#[test]
fn messages_go_to_one_member_each_whoever_is_first() {
    model(Some(2), || {
        let swarm = Swarm::group(128);
        let (mut sender, [mut one, mut other], _) = swarm.begin_group();
        (0..2).for_each(|_| sender.send(1));
        let second = thread::spawn(move || {
            while other.try_receive(false) {}
            other
        });
        while one.try_receive(false) {}
        let other = second.join().expect("no panic");
        let mut all = [one.numbers(0), other.numbers(0)].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
        assert_eq!(swarm.table.expect("of a group").frontier(), 2);
    });
}

#[test]
fn two_members_done_at_once_leave_the_frontier_behind_neither() {
    model(None, || {
        let table = table(4);
        for sequence in 0..2 {
            assert_eq!(table.take(sequence, sequence as u32 + 1), Ok(0));
            table.note_end(sequence, 100 * (sequence + 1));
        }
        let done = |table: &ClaimTable, sequence: u64| {
            assert!(table.settle(sequence, sequence as u32 + 1, Claim::Done));
            table.advance();
        };
        let other = table.clone();
        let second = thread::spawn(move || done(&other, 1));
        done(&table, 0);
        second.join().expect("no panic");
        assert_eq!(table.frontier_place(Place::default()), Place { position: 200, sequence: 2 });
    });
}

#[test]
fn place_of_the_frontier_is_never_that_of_a_later_lap() {
    model(None, || {
        let table = table(2);
        let other = table.clone();
        let reader = thread::spawn(move || {
            let Place { position, sequence } = other.frontier_place(Place::default());
            assert_eq!(position, 100 * sequence);
        });
        for sequence in 0..3 {
            assert_eq!(table.take(sequence, 1), Ok(0), "an entry is used once a lap");
            table.note_end(sequence, 100 * (sequence + 1));
            assert!(table.settle(sequence, 1, Claim::Done));
            table.advance();
        }
        reader.join().expect("no panic");
    });
}

#[test]
fn space_is_written_again_only_after_all_members_have_let_go() {
    model(Some(3), || {
        // Two messages of three words lie in the ring; the third takes the words of the first.
        let swarm = Swarm::group(128);
        let (mut sender, [mut one, mut other], _) = swarm.begin_group();
        (0..2).for_each(|_| sender.send(3));
        let held = [one.look(false), other.look(false)].map(|found| found.expect("one for each"));
        let let_go = |member: &mut Receiver, found: &(usize, Frame)| {
            member.read(found).expect("leased");
            // No fence and no mark here: only the frontier gives the space back.
            member.consumers[0].ack(&found.1);
        };
        let second = held[1];
        let reader = thread::spawn(move || let_go(&mut other, &second));
        let writer = thread::spawn(move || {
            let Sender { agent, producers } = &mut sender;
            if let Claimed::Space(claim) = producers[0].claim(24, &agent.links) {
                producers[0].fill(&claim, &[0; 24]);
            }
        });
        let_go(&mut one, &held[0]);
        reader.join().expect("no panic");
        writer.join().expect("no panic");
    });
}

#[test]
fn producer_that_waits_for_two_members_is_woken_by_who_is_done_last() {
    model(Some(2), || {
        // The ring holds two messages; the third needs the space of both.
        let swarm = Swarm::group(128);
        let (mut sender, members, _) = swarm.begin_group();
        (0..2).for_each(|_| sender.send(3));
        let readers = members.map(|mut member| {
            let found = member.look(false).expect("one for each");
            thread::spawn(move || member.ack(&found))
        });
        sender.send(3);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
    });
}

#[test]
fn member_left_behind_believes_nothing_that_was_overwritten() {
    model(Some(2), || {
        // A message of one word and one of six lie in the ring; a third of six takes the words of the first.
        let mut swarm = Swarm::group(128);
        swarm.prefetch = 2;
        let (mut sender, [mut slow, mut fast], _) = swarm.begin_group();
        sender.send(1);
        sender.send(6);
        assert!(fast.look(false).is_some(), "it claims both");
        let writer = thread::spawn(move || {
            let Sender { agent, producers } = &mut sender;
            if let Claimed::Space(claim) = producers[0].claim(48, &agent.links) {
                producers[0].fill(&claim, &word_of(2).to_le_bytes().repeat(6));
                producers[0].finish(claim, 48, None);
            }
        });
        // A fault would be a panic. Nothing is free: the other member holds both.
        let behind = thread::spawn(move || assert_eq!(slow.look(false), None));
        let table = swarm.table.expect("of a group");
        (0..2).for_each(|sequence| assert!(table.settle(sequence, 2, Claim::Done)));
        table.advance();
        writer.join().expect("no panic");
        behind.join().expect("no panic");
    });
}

#[test]
fn member_asleep_while_another_dies_with_a_message_gets_it() {
    model(Some(3), || {
        let swarm = Swarm::group(128);
        let (mut sender, [mut dead, mut heir], [_, _, life]) = swarm.begin_group();
        sender.send(1);
        let (_, frame) = dead.look(false).expect("it was sent");
        let table = swarm.table.clone().expect("of a group");
        let supervisor = thread::spawn(move || {
            assert!(table.settle(frame.at.sequence, 1, Claim::Free { attempts: 1 }));
            table.tell_returned();
            life.bell.ring();
        });
        let found = heir.wait();
        assert_eq!(found.1.attempts, 1);
        heir.ack(&found);
        supervisor.join().expect("no panic");
        assert_eq!(heir.numbers(0), [0]);
    });
}

#[test]
fn members_asleep_are_both_woken_by_what_is_published() {
    model(Some(1), || {
        let swarm = Swarm::group(128);
        let (mut sender, members, _) = swarm.begin_group();
        let readers = members.map(|mut member| {
            thread::spawn(move || {
                member.receive();
                member.numbers(0)
            })
        });
        (0..2).for_each(|_| sender.send(1));
        let mut all: Vec<u64> =
            readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
    });
}
