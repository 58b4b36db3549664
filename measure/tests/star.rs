//! What is measured is delivered and looked at: real processes, told to send one thing and to await another.
//!
//! The test starts itself as the measured processes, so it has a `main` of its own.

use shoal_measure::floor::{RawChild, be_raw_child};
use shoal_measure::load::LOAD_BYTES_MAX;
use shoal_measure::peer;
use shoal_measure::star::Star;
use shoal_measure::task::{Op, Task};

type Test = (&'static str, fn());

const TESTS: [Test; 7] = [
    (
        "what_is_counted_was_delivered_of_every_kind_and_size",
        what_is_counted_was_delivered_of_every_kind_and_size,
    ),
    ("answer_with_a_wrong_number_ends_the_run", answer_with_a_wrong_number_ends_the_run),
    ("message_of_another_size_ends_the_run", message_of_another_size_ends_the_run),
    ("fans_deliver_everything_to_everybody", fans_deliver_everything_to_everybody),
    ("large_messages_come_whole_over_large_lanes", large_messages_come_whole_over_large_lanes),
    (
        "pauses_are_no_part_of_the_times_and_cost_no_sleeper_a_cpu",
        pauses_are_no_part_of_the_times_and_cost_no_sleeper_a_cpu,
    ),
    (
        "raw_children_are_killed_and_reaped_one_by_one_and_none_is_left",
        raw_children_are_killed_and_reaped_one_by_one_and_none_is_left,
    ),
];

/// What this binary is told to be a raw child.
const RAW: &str = "raw-child";
/// And to be one that ends at once.
const SHORT: &str = "short-child";

fn main() {
    peer::run_if_peer();
    match std::env::args().nth(1).as_deref() {
        Some(RAW) => return be_raw_child(0).expect("only a kill ends it"),
        Some(SHORT) => return,
        _ => {}
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    for (name, test) in TESTS.iter().filter(|(name, _)| args.iter().all(|arg| name.contains(arg.as_str()))) {
        test();
        println!("test {name} ... ok");
    }
    println!("test result: ok.");
}

fn pair() -> Star {
    Star::start(1, &[]).expect("two processes")
}

fn what_is_counted_was_delivered_of_every_kind_and_size() {
    let mut star = pair();
    for bytes in [8, 40, 64, LOAD_BYTES_MAX, 64 << 10] {
        for (op, both) in [
            (Op::Steps, 2),
            (Op::Plain, 2),
            (Op::Adaptive, 2),
            (Op::Parked, 2),
            (Op::Stream, 1),
            (Op::FloorStream, 1),
        ] {
            let reply = star.run(Task::new(op, 50).of_bytes(bytes).in_batches_of(4)).expect("delivered");
            assert_eq!(reply.received, both * 50, "{op:?} of {bytes} bytes");
        }
    }
    for op in [
        Op::FloorOneLine,
        Op::FloorTwoLines,
        Op::FloorEventfd,
        Op::FloorEpoll,
        Op::FloorEventfd,
        Op::FloorFutex,
        Op::Parked,
    ] {
        let row = star.run(Task::new(op, 50).timed()).expect("to and fro").row;
        assert!(row[0] > 0 && row.is_sorted(), "{op:?}: {row:?}");
    }
}

fn answer_with_a_wrong_number_ends_the_run() {
    for op in [Op::Steps, Op::Plain, Op::Parked, Op::Adaptive] {
        let mut star = pair();
        let task = |agent: usize| Task { first: agent as u64, ..Task::new(op, 10) };
        let error = star.run_each(task).expect_err("wrong numbers");
        assert!(error.to_string().contains("is not the one that was sent"), "{op:?}: {error}");
    }
}

fn message_of_another_size_ends_the_run() {
    for bytes in [[64, 48], [8 << 10, 16 << 10]] {
        let mut star = pair();
        let error =
            star.run_each(|agent| Task::new(Op::Stream, 10).of_bytes(bytes[agent])).expect_err("wrong size");
        assert!(error.to_string().contains("is not the one that was sent"), "{error}");
    }
}

fn fans_deliver_everything_to_everybody() {
    let mut star = Star::start(3, &[]).expect("four processes");
    for op in [Op::Stream, Op::Gather, Op::FloorStream, Op::FloorGather, Op::Stream] {
        let reply = star.run(Task::new(op, 5000).of_bytes(64)).expect("delivered");
        assert_eq!(reply.received, 15_000, "{op:?}");
    }
}

fn large_messages_come_whole_over_large_lanes() {
    let mut star = Star::start_with(1, 8 << 20, &[]).expect("two processes");
    for (op, both) in [(Op::Steps, 2), (Op::Parked, 2), (Op::Stream, 1), (Op::FloorStream, 1)] {
        let reply = star.run(Task::new(op, 20).of_bytes(1 << 20)).expect("delivered");
        assert_eq!(reply.received, both * 20, "{op:?}");
    }
    let error = star.run(Task::new(Op::Stream, 1).of_bytes(5 << 20)).expect_err("more than half a lane");
    assert!(error.to_string().contains("measured process"), "{error}");
}

fn pauses_are_no_part_of_the_times_and_cost_no_sleeper_a_cpu() {
    const GAP_US: u64 = 20_000;
    let mut star = pair();
    let task = Task::new(Op::Parked, 20).timed().with_gaps_of(GAP_US);
    let reply = star.run(task).expect("to and fro");
    assert!(reply.elapsed().as_micros() as u64 >= 20 * GAP_US, "{reply:?}");
    // The median of round trips beside a pause that is a thousand times as long: no measure of speed.
    assert!(reply.row[0] < GAP_US * 1000, "{reply:?}");
    assert!((1..reply.elapsed().as_nanos() as u64 / 2).contains(&reply.cpu_ns), "{reply:?}");
}

/// The children of this process, of all its threads.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("own threads").flatten();
    let of =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).expect("children");
    tasks
        .flat_map(|task| {
            of(task).split_whitespace().map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>()
        })
        .collect()
}

fn raw_children_are_killed_and_reaped_one_by_one_and_none_is_left() {
    let binary = std::env::current_exe().expect("own binary");
    let binary = binary.to_str().expect("a path in UTF-8");
    let before = children();
    let new = || children().into_iter().filter(|pid| !before.contains(pid)).collect::<Vec<_>>();
    let mut raw = RawChild::start(&[binary, RAW]).expect("a raw child");
    let mut seen = Vec::new();
    for _ in 0..5 {
        let [pid] = new()[..] else { panic!("one raw child, not {:?}", new()) };
        assert!(!seen.contains(&pid), "{pid} was killed before");
        seen.push(pid);
        let life = raw.recover().expect("another");
        assert!(life.death_ns > 0 && life.start_ns > 0, "{life:?}");
        assert_eq!(life.all_ns(), life.death_ns + life.start_ns);
    }
    drop(raw);
    assert!(new().is_empty(), "all are reaped");
    let Err(error) = RawChild::start(&[binary, SHORT]) else { panic!("it said something") };
    assert!(error.to_string().contains("ended of itself"), "{error}");
    assert!(new().is_empty(), "it is reaped, too");
}
