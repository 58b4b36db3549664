//! Lanes between two processes, each beside its floor in the same run.
//!
//! Criterion's part gives a figure for each case; the tables at the end give pairs (A B A B ...) and their ratios, which is what
//! counts on a machine whose host moves its CPUs about.

use criterion::{BenchmarkId, Criterion, Throughput};
use shoal_benches::duo::Duo;
use shoal_benches::pairs::{Spread, spread};
use shoal_benches::peer::{self, Op, Reply};
use std::io;
use std::time::Duration;

/// Both on CPUs of their own, and both on one.
const APART: [usize; 2] = [0, 1];
const TOGETHER: [usize; 2] = [0, 0];

fn main() {
    peer::run_if_peer();
    let mut duo = Duo::start().expect("two processes");
    let apart = std::thread::available_parallelism().map_or(1, usize::from) > 1;
    duo.pin(if apart { APART } else { TOGETHER }).expect("a CPU each");
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    cases(&mut criterion, &mut duo);
    criterion.final_summary();
    // `cargo bench` says --bench; a run as a test (-- --test), a list, or a run of chosen cases wants no tables.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--bench"] || args.iter().any(|arg| arg == "tables") {
        tables(&mut duo).expect("the peers are alive");
    }
}

fn cases(criterion: &mut Criterion, duo: &mut Duo) {
    one_way(criterion, duo, "lane/one_way", "64B", Op::Steps);
    one_way(criterion, duo, "lane/one_way_plain", "64B", Op::Plain);
    one_way(criterion, duo, "floor/one_way", "cache_line", Op::FloorOneLine);
    one_way(criterion, duo, "floor/one_way", "two_cache_lines", Op::FloorTwoLines);
    stream(criterion, duo, "lane/throughput", "64B", Op::Stream);
    stream(criterion, duo, "lane/throughput_steps_of_16", "64B", Op::Stream16);
    stream(criterion, duo, "floor/throughput", "64B", Op::FloorStream);
    round_trip(criterion, duo, "lane/round_trip_waiting", "64B", Op::WaitingTimed);
    round_trip(criterion, duo, "baseline/shared_memory_raw_sync", "64B", Op::Baseline);
}

fn one_way(criterion: &mut Criterion, duo: &mut Duo, group: &str, size: &str, op: Op) {
    criterion.bench_with_input(BenchmarkId::new(group, size), &op, |bencher, &op| {
        bencher.iter_custom(|rounds| run(duo, op, rounds).elapsed() / 2);
    });
}

fn round_trip(criterion: &mut Criterion, duo: &mut Duo, group: &str, size: &str, op: Op) {
    criterion.bench_with_input(BenchmarkId::new(group, size), &op, |bencher, &op| {
        bencher.iter_custom(|rounds| run(duo, op, rounds).elapsed());
    });
}

fn stream(criterion: &mut Criterion, duo: &mut Duo, group: &str, size: &str, op: Op) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    group.bench_function(size, |bencher| {
        bencher.iter_custom(|messages| run(duo, op, messages).elapsed());
    });
    group.finish();
}

fn run(duo: &mut Duo, op: Op, count: u64) -> Reply {
    duo.run(op, count).expect("the peers are alive")
}

/// One row of single times, the medians of several runs.
fn single_times(name: &str, rows: &[[u64; 4]], divisor: f64, less_ns: f64) {
    let column = |i: usize| spread(rows.iter().map(|row| (row[i] as f64 - less_ns) / divisor)).median;
    let [p50, p99, p999, max] = [0, 1, 2, 3].map(column);
    println!("{name:<44} p50 {p50:>9.1}  p99 {p99:>9.1}  p99.9 {p999:>9.1}  max {max:>11.1} ns");
}

fn tables(duo: &mut Duo) -> io::Result<()> {
    latency(duo)?;
    throughput(duo)?;
    wake(duo, APART, "another core")?;
    wake(duo, TOGETHER, "the same core")?;
    duo.pin(APART)
}

fn latency(duo: &mut Duo) -> io::Result<()> {
    const PAIRS: usize = 301;
    const ROUNDS: u64 = 2_000;
    let mut pairs = Vec::new();
    let (mut timed, mut floor_timed) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let mut one_way =
            |op| Ok::<_, io::Error>(duo.run(op, ROUNDS)?.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64);
        let ops = [Op::Steps, Op::FloorOneLine, Op::Plain, Op::FloorTwoLines];
        let [steps, one, plain, two] = ops.map(&mut one_way);
        pairs.push((steps?, plain?, one?, two?));
        timed.push(duo.run(Op::StepsTimed, ROUNDS)?.row);
        floor_timed.push(duo.run(Op::FloorTimed, ROUNDS)?.row);
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

/// What one read of the clock costs.
fn clock_ns() -> f64 {
    const READS: u32 = 1_000_000;
    let begin = std::time::Instant::now();
    for _ in 0..READS {
        std::hint::black_box(shoal_runtime::clock::now_ns());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(READS)
}

fn throughput(duo: &mut Duo) -> io::Result<()> {
    const PAIRS: usize = 101;
    const MESSAGES: u64 = 100_000;
    let mut rows = Vec::new();
    for _ in 0..PAIRS {
        let mut rate =
            |op| Ok::<_, io::Error>(MESSAGES as f64 / duo.run(op, MESSAGES)?.elapsed().as_secs_f64() / 1e6);
        rows.push([rate(Op::Stream)?, rate(Op::FloorStream)?, rate(Op::Stream16)?]);
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

fn wake(duo: &mut Duo, cpus: [usize; 2], place: &str) -> io::Result<()> {
    const PAIRS: usize = 9;
    const MESSAGES: u64 = 300;
    duo.pin(cpus)?;
    let (mut lane, mut floor, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut waiting, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        lane.push(duo.run(Op::Wake, MESSAGES)?.row);
        floor.push(duo.run(Op::FloorWake, MESSAGES)?.row);
        waiting.push(duo.run(Op::WaitingTimed, MESSAGES)?.row);
        baseline.push(duo.run(Op::Baseline, MESSAGES)?.row);
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
