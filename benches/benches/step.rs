//! Within one process: a message into bytes, bytes into a message, and a step with and without its commit record.

use criterion::{Criterion, criterion_group, criterion_main};
use shoal_measure::load::{Line, Load};
use shoal_measure::talk::Talker;
use shoal_measure::within::{Still, pair};
use shoal_runtime::message::{self, Scratch};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Duration;

criterion_group! {
    name = step;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = encode, access, commit, own_work
}
criterion_main!(step);

/// Bytes of a state that changes in every step.
const STATE_BYTES: usize = 64;

#[repr(align(16))]
struct Slot([MaybeUninit<u8>; 256]);

fn encode(criterion: &mut Criterion) {
    let (mut scratch, mut slot) = (Scratch::new(), Slot([const { MaybeUninit::uninit() }; 256]));
    let (line, text) = (Line::default(), Load::of(48));
    criterion.bench_function("message/encode/64B", |bencher| {
        bencher.iter(|| message::encode(black_box(&line), black_box(&mut slot.0), &mut scratch));
    });
    criterion.bench_function("message/encode/64B text", |bencher| {
        bencher.iter(|| message::encode(black_box(&text), black_box(&mut slot.0), &mut scratch));
    });
}

fn access(criterion: &mut Criterion) {
    let bytes = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&Line::default()).expect("encoded");
    criterion.bench_function("message/access/64B", |bencher| {
        bencher.iter(|| message::access::<Line>(black_box(&bytes)).expect("valid").number);
    });
    let bytes = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&Load::of(48)).expect("encoded");
    criterion.bench_function("message/access/64B text", |bencher| {
        bencher.iter(|| message::access::<Load>(black_box(&bytes)).expect("valid").number);
    });
}

/// One message there and one back: the second agent answers in a step, or with an acknowledgement of its own.
fn there_and_back(agents: &mut [Talker<Still>; 2], number: u64, step: bool) {
    let [first, second] = agents;
    // One cache line with its header.
    let mut load = Line::default();
    first.write(&mut load, number).expect("sent");
    first.commit().expect("committed");
    assert!(second.look(), "it is there");
    second.read(&load, number).expect("valid");
    second.write(&mut load, number).expect("sent");
    if !step {
        second.commit_sent().expect("committed");
    }
    second.commit().expect("committed");
    assert!(first.look(), "it is there");
    first.read(&load, number).expect("valid");
    first.commit().expect("committed");
}

/// A step whole: receive, look at every byte, change the state, send, commit and acknowledge.
fn step_whole(agent: &mut Talker<Still>, number: u64, state: Option<&[MaybeUninit<u8>; STATE_BYTES]>) {
    let mut load = Line::default();
    assert!(agent.look(), "it is there");
    agent.read(&load, number).expect("valid");
    if let Some(value) = state {
        let kept = agent.at.outputs.state().replace(1, |room| {
            room.get_mut(..STATE_BYTES)?.copy_from_slice(black_box(value));
            Some(STATE_BYTES)
        });
        assert!(kept, "there is room for it");
    }
    agent.write(&mut load, number).expect("sent");
    agent.commit().expect("committed");
}

/// Two agents answer each other in steps, with and without a state that changes each time: half of a turn is a step's own work.
fn own_work(criterion: &mut Criterion) {
    for (name, state) in
        [("step/whole/state", Some(&[MaybeUninit::new(7); STATE_BYTES])), ("step/whole/stateless", None)]
    {
        let [mut first, mut second] = pair().expect("two agents");
        first.write(&mut Line::default(), 1).expect("sent");
        first.commit().expect("committed");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                step_whole(&mut second, 1, state);
                step_whole(&mut first, 1, state);
            });
        });
    }
}

fn commit(criterion: &mut Criterion) {
    for (name, step) in [("step/commit/record", true), ("step/commit/plain", false)] {
        let mut agents: [Talker<Still>; 2] = pair().expect("two agents");
        criterion.bench_function(name, |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number += 1;
                there_and_back(&mut agents, number, step);
            });
        });
    }
}
