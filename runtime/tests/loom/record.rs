//! Commit records, marks and the board's words: what is read together belongs together.

use crate::swarm::{Swarm, model};
use loom::thread;
use shoal_runtime::Incarnation;
use shoal_runtime::board::{BoardWriter, Status, Verdict, VerdictKind};
use shoal_runtime::commit::{self, Committer, Key, RecordError};
use shoal_runtime::image::{Origin, heap};
use shoal_runtime::layout::{BoardShape, SegmentShape};
use shoal_runtime::mark::Place;

/// The place of step `n`.
fn place(n: u64) -> Place {
    Place { position: 16 * n, sequence: 7 * n }
}

#[test]
fn record_read_while_its_writer_commits_a_whole_round_of_slots_is_never_a_mixture() {
    model(Some(3), || {
        let shape = SegmentShape { lanes: vec![], input_count: 1, state_bytes: 0 };
        let incarnation = Incarnation { agent: 0, generation: 1 };
        let origin =
            Origin { swarm: 1, incarnation, lanes: vec![], inputs: vec![place(0)], state: Vec::new() };
        let region = heap(&shape, &origin);
        let mut committer = Committer::new(&region, &shape, 1);
        let mut commit = move |n| {
            committer.commit(&[(Key::Input(0), place(n))]);
        };
        commit(1);
        let writer = thread::spawn(move || (2..=5).for_each(commit));
        match commit::read(&region, &shape) {
            Ok(record) => assert_eq!(record.place(Key::Input(0)), Some(place(record.number))),
            Err(error) => assert_eq!(error, RecordError::Busy),
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn mark_read_while_its_writer_moves_it_twice_is_never_a_mixture() {
    model(Some(3), || {
        let swarm = Swarm::block(256);
        let (lives, receiver) = swarm.begin();
        let mut sender = swarm.sender(&lives[0], receiver.link());
        let writer = thread::spawn(move || {
            (0..3).for_each(|_| {
                sender.write(1);
                sender.producers[0].publish();
            })
        });
        match commit::committed(&lives[0].region, &swarm.sender_shape(), Key::Lane(0)) {
            Ok(tail) => assert_eq!(tail.sequence, (tail.position - 256) / 32),
            Err(error) => assert_eq!(error, RecordError::Busy),
        }
        writer.join().expect("no panic");
    });
}

fn verdict(generation: u32) -> Verdict {
    Verdict {
        generation,
        kind: VerdictKind::Committed,
        lanes: vec![place(u64::from(generation))],
        inputs: vec![],
    }
}

#[test]
fn verdict_read_while_its_slot_is_used_again_is_whole_or_gone() {
    model(None, || {
        let board =
            BoardWriter::heap(BoardShape { channel_count: 0, agents: vec![(1, 0)], ..BoardShape::default() });
        board.verdict(0, &verdict(1));
        let view = board.view().clone();
        let supervisor = thread::spawn(move || board.verdict(0, &verdict(3)));
        for generation in [1, 3] {
            let found = view.verdict(Incarnation { agent: 0, generation });
            assert!(found.is_none() || found == Some(verdict(generation)));
        }
        supervisor.join().expect("no panic");
    });
}

#[test]
fn who_sees_an_epoch_sees_what_it_told_and_who_sees_an_agent_gone_sees_its_last_verdict() {
    model(None, || {
        let board =
            BoardWriter::heap(BoardShape { channel_count: 0, agents: vec![(1, 0)], ..BoardShape::default() });
        let view = board.view().clone();
        let supervisor = thread::spawn(move || {
            board.publish_generation(Incarnation { agent: 0, generation: 1 });
            board.announce();
            board.verdict(0, &verdict(1));
            board.publish_status(0, Status::Gone);
            board.announce();
        });
        let first = Incarnation { agent: 0, generation: 1 };
        if view.status(0) == Status::Gone {
            assert_eq!(view.verdict(first), Some(verdict(1)));
        }
        let epoch = view.epoch();
        assert!(epoch == 0 || view.generation(0) == 1);
        assert!(epoch < 2 || view.status(0) == Status::Gone && view.verdict(first).is_some());
        supervisor.join().expect("no panic");
    });
}
