//! Lanes between two processes, each beside its floor in the same run.
//!
//! Criterion's part gives a figure for each case; the tables at the end give pairs (A B A B ...) and their ratios, which is what
//! counts on a machine whose host moves its CPUs about.

use criterion::{BenchmarkId, Criterion, Throughput};
use shoal_measure::cases::clock_ns;
use shoal_measure::pairs::{Spread, spread};
use shoal_measure::peer;
use shoal_measure::star::Star;
use shoal_measure::task::{Op, Reply, Row, Task};
use std::io;
use std::time::Duration;

/// Both on CPUs of their own, and both on one.
const APART: [usize; 2] = [0, 1];
const TOGETHER: [usize; 2] = [0, 0];

fn main() {
    peer::run_if_peer();
    let mut star = Star::start(1, &[]).expect("two processes");
    let apart = std::thread::available_parallelism().map_or(1, usize::from) > 1;
    star.pin(if apart { APART } else { TOGETHER }).expect("a CPU each");
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    cases(&mut criterion, &mut star);
    criterion.final_summary();
    // `cargo bench` says --bench; a run as a test (-- --test), a list, or a run of chosen cases wants no tables.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--bench"] || args.iter().any(|arg| arg == "tables") {
        tables(&mut star).expect("the peers are alive");
    }
}

fn cases(criterion: &mut Criterion, star: &mut Star) {
    one_way(criterion, star, "lane/one_way", "64B", Op::Steps);
    one_way(criterion, star, "lane/one_way_plain", "64B", Op::Plain);
    one_way(criterion, star, "floor/one_way", "cache_line", Op::FloorOneLine);
    one_way(criterion, star, "floor/one_way", "two_cache_lines", Op::FloorTwoLines);
    stream(criterion, star, "lane/throughput", "64B", Op::Stream, 1);
    stream(criterion, star, "lane/throughput_steps_of_16", "64B", Op::Stream, 16);
    stream(criterion, star, "floor/throughput", "64B", Op::FloorStream, 1);
    round_trip(criterion, star, "lane/round_trip_waiting", "64B", Op::Adaptive);
    round_trip(criterion, star, "baseline/shared_memory_raw_sync", "64B", Op::Baseline);
}

fn one_way(criterion: &mut Criterion, star: &mut Star, group: &str, size: &str, op: Op) {
    criterion.bench_with_input(BenchmarkId::new(group, size), &op, |bencher, &op| {
        bencher.iter_custom(|rounds| run(star, Task::new(op, rounds)).elapsed() / 2);
    });
}

fn round_trip(criterion: &mut Criterion, star: &mut Star, group: &str, size: &str, op: Op) {
    criterion.bench_with_input(BenchmarkId::new(group, size), &op, |bencher, &op| {
        bencher.iter_custom(|rounds| run(star, Task::new(op, rounds).timed()).elapsed());
    });
}

fn stream(criterion: &mut Criterion, star: &mut Star, group: &str, size: &str, op: Op, every: u64) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    group.bench_function(size, |bencher| {
        let task = |messages| Task::new(op, messages).in_batches_of(every);
        bencher.iter_custom(|messages| run(star, task(messages)).elapsed());
    });
    group.finish();
}

fn run(star: &mut Star, task: Task) -> Reply {
    star.run(task).expect("the peers are alive")
}

/// One row of single times, the medians of several runs.
fn single_times(name: &str, rows: &[Row], divisor: f64, less_ns: f64) {
    let column = |i: usize| spread(rows.iter().map(|row| (row[i] as f64 - less_ns) / divisor)).median;
    let [p50, p99, p999, max] = [0, 2, 3, 4].map(column);
    println!("{name:<44} p50 {p50:>9.1}  p99 {p99:>9.1}  p99.9 {p999:>9.1}  max {max:>11.1} ns");
}

fn tables(star: &mut Star) -> io::Result<()> {
    latency(star)?;
    throughput(star)?;
    wake(star, APART, "another core")?;
    wake(star, TOGETHER, "the same core")?;
    star.pin(APART)
}

fn latency(star: &mut Star) -> io::Result<()> {
    const PAIRS: usize = 301;
    const ROUNDS: u64 = 2_000;
    let mut pairs = Vec::new();
    let (mut timed, mut floor_timed) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let mut one_way = |op| {
            Ok::<_, io::Error>(
                star.run(Task::new(op, ROUNDS))?.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64,
            )
        };
        let ops = [Op::Steps, Op::FloorOneLine, Op::Plain, Op::FloorTwoLines];
        let [steps, one, plain, two] = ops.map(&mut one_way);
        pairs.push((steps?, plain?, one?, two?));
        timed.push(star.run(Task::new(Op::Steps, ROUNDS).timed())?.row);
        floor_timed.push(star.run(Task::new(Op::FloorTwoLines, ROUNDS).timed())?.row);
    }
    println!(
        "\none way, 64 B, both spinning, ns: {PAIRS} interleaved runs of {ROUNDS} round trips, median (quartiles)"
    );
    println!("{:<44} {}", "lane/one_way/64B (a step each)", spread(pairs.iter().map(|p| p.0)));
    println!("{:<44} {}", "lane/one_way_plain/64B", spread(pairs.iter().map(|p| p.1)));
    println!("{:<44} {}", "floor/one_way/cache_line", spread(pairs.iter().map(|p| p.2)));
    println!("{:<44} {}", "floor/one_way/two_cache_lines", spread(pairs.iter().map(|p| p.3)));
    type Pair = (f64, f64, f64, f64);
    let ratio = |name: &str, of: fn(&Pair) -> f64| println!("{name:<44} {}", spread(pairs.iter().map(of)));
    ratio("ratio, step : two lines", |p| p.0 / p.3);
    ratio("ratio, step : one line", |p| p.0 / p.2);
    ratio("ratio, plain : two lines", |p| p.1 / p.3);
    ratio("ratio, plain : one line", |p| p.1 / p.2);
    let clock_ns = clock_ns();
    println!("single round trips, halved, less the {clock_ns:.1} ns of the clock read in each");
    single_times("lane/one_way/64B", &timed, 2.0, clock_ns);
    single_times("floor/one_way/two_cache_lines", &floor_timed, 2.0, clock_ns);
    Ok(())
}

fn throughput(star: &mut Star) -> io::Result<()> {
    const PAIRS: usize = 101;
    const MESSAGES: u64 = 100_000;
    let mut rows = Vec::new();
    for _ in 0..PAIRS {
        let mut rate =
            |task| Ok::<_, io::Error>(MESSAGES as f64 / star.run(task)?.elapsed().as_secs_f64() / 1e6);
        let [single, floor] = [Op::Stream, Op::FloorStream].map(|op| Task::new(op, MESSAGES));
        rows.push([rate(single)?, rate(floor.of_bytes(64))?, rate(single.in_batches_of(16))?]);
    }
    let column = |i: usize| spread(rows.iter().map(|row| row[i]));
    println!(
        "\nmessages one way, 64 B, millions a second: {PAIRS} interleaved runs of {MESSAGES}, median (quartiles)"
    );
    println!("{:<44} {}", "lane/throughput/64B", column(0));
    println!("{:<44} {}", "lane/throughput_steps_of_16/64B", column(2));
    println!("{:<44} {}", "floor/throughput/64B (raw ring)", column(1));
    Ok(())
}

fn wake(star: &mut Star, cpus: [usize; 2], place: &str) -> io::Result<()> {
    const PAIRS: usize = 9;
    const MESSAGES: u64 = 300;
    star.pin(cpus)?;
    let (mut lane, mut floor, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut waiting, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        lane.push(star.run(Task::new(Op::Wake, MESSAGES).timed())?.row);
        floor.push(star.run(Task::new(Op::FloorWake, MESSAGES).timed())?.row);
        waiting.push(star.run(Task::new(Op::Adaptive, MESSAGES).timed())?.row);
        baseline.push(star.run(Task::new(Op::Baseline, MESSAGES).timed())?.row);
        ratios.push(lane[lane.len() - 1][0] as f64 / floor[floor.len() - 1][0] as f64);
    }
    println!("\nto a sleeper on {place}, one way: {PAIRS} interleaved runs of {MESSAGES}, 200 µs apart");
    single_times("lane/wake/64B", &lane, 1.0, 0.0);
    single_times("floor/wake/eventfd", &floor, 1.0, 0.0);
    let ratio: Spread = spread(ratios);
    println!("{:<44} {ratio}", "ratio of the medians");
    println!("round trips, each waiting as an agent does; and without Shoal");
    single_times("lane/round_trip_waiting/64B", &waiting, 1.0, 0.0);
    single_times("baseline/shared_memory_raw_sync/64B", &baseline, 1.0, 0.0);
    Ok(())
}
