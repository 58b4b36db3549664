//! The cases of `shoal bench` that processes of a star can measure. Each runs beside its floors, in turns: A B A B …, every
//! other pair the other way round; of a pair the best floor counts.

use crate::outcome::Outcome;
use crate::pairs::{PAIRS, in_turns, spread};
use crate::star::{CAPACITY_BYTES, Star};
use crate::task::{Op, Reply, Task};
use std::io;
use std::time::Instant;

/// Sizes of messages; the first is reported first.
pub const SIZES: [usize; 6] = [64, 8, 40, 1024, 16 << 10, 64 << 10];
/// Sizes of large messages, and the capacity of the lanes that they go through: a message is at most half of it.
const LARGE_SIZES: [usize; 2] = [256 << 10, 1 << 20];
const LARGE_CAPACITY_BYTES: u64 = 8 << 20;

/// The names of a stream's floors.
pub const STREAM_FLOORS: [&str; 2] = ["a raw ring", "a raw ring in batches of 16"];

/// Spokes of the fans, and the capacity of the lanes between them and the hub.
const FANS: [(u32, u64); 4] =
    [(1, CAPACITY_BYTES), (10, CAPACITY_BYTES), (100, CAPACITY_BYTES), (1000, 64 << 10)];
/// Descriptors that the processes of the largest of them may come to have open, each.
pub const FAN_DESCRIPTORS: u64 = 8 * FANS[FANS.len() - 1].0 as u64 + 256;
/// One into more than so many is not measured.
const TAKERS_MAX: u32 = 100;

/// What the cases run with.
pub struct Bench<'a> {
    /// The command line of a measured process.
    pub args: &'a [&'a str],
    /// One of so many messages is sent: more than 1 shows the shape of the results, not their figures.
    pub share: u64,
    /// Is told of every result as it comes.
    pub each: &'a mut dyn FnMut(Outcome),
}

/// Something measured in turns with its floors.
struct Pairs {
    ours: Vec<Reply>,
    floors: Vec<Vec<Reply>>,
}

fn pairs(star: &mut Star, ours: Task, floors: &[Task]) -> io::Result<Pairs> {
    // Once unmeasured: what is met for the first time is no part of the figures.
    star.run(Task { count: (ours.count / 10).max(1), ..ours })?;
    let (ours, floors) = in_turns(floors.len(), |floor| star.run(floor.map_or(ours, |floor| floors[floor])))?;
    Ok(Pairs { ours, floors })
}

impl Pairs {
    /// Ratios of the pairs by a figure, of the best floor of each; the floor's median, and which floor it is.
    fn ratios(&self, of: impl Fn(&Reply) -> f64, best: fn(f64, f64) -> f64) -> (Vec<f64>, f64, usize) {
        let floor =
            |pair: usize| self.floors.iter().map(|row| of(&row[pair])).reduce(best).unwrap_or(f64::NAN);
        let medians: Vec<f64> = self.floors.iter().map(|row| spread(row.iter().map(&of)).median).collect();
        let median = medians.iter().copied().reduce(best).unwrap_or(f64::NAN);
        let which = medians.iter().position(|&m| m == median).unwrap_or_default();
        let ratios = self.ours.iter().enumerate().map(|(pair, ours)| of(ours) / floor(pair)).collect();
        (ratios, spread((0..self.ours.len()).map(floor)).median, which)
    }

    fn median(&self, of: impl Fn(&Reply) -> f64) -> f64 {
        spread(self.ours.iter().map(of)).median
    }

    fn received(&self) -> u64 {
        self.ours.iter().map(|r| r.received).sum()
    }
}

/// Column of a row, less the clock's share, one way or both.
pub fn single(column: usize, clock_ns: f64, parts: f64) -> impl Fn(&Reply) -> f64 {
    move |reply| ((reply.row[column] as f64 - clock_ns) / parts).max(1.0)
}

fn message(bytes: usize, text: bool) -> String {
    let kind = match bytes {
        _ if bytes > crate::load::LOAD_BYTES_MAX => "bytes by hand",
        ..=64 if !text => "rkyv, validated",
        _ => "rkyv with a text and a list, validated",
    };
    let lines = (bytes + 16).div_ceil(64);
    format!("{kind}; {lines} cache line{} with its header; trusted", if lines == 1 { "" } else { "s" })
}

/// What one read of the clock costs.
pub fn clock_ns() -> f64 {
    const READS: u32 = 100_000;
    let begin = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(shoal_runtime::clock::now_ns());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(READS)
}

/// A pair of processes, each on a CPU of its own where there are two.
///
/// # Errors
/// What the system refuses.
pub fn pinned_pair(args: &[&str]) -> io::Result<Star> {
    pinned_apart(Star::start(1, args)?)
}

fn pinned_apart(mut star: Star) -> io::Result<Star> {
    if let [first, second, ..] = cpus()?[..] {
        star.pin([first, second])?;
    }
    Ok(star)
}

/// CPUs that this process may use.
fn cpus() -> io::Result<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// Two pairs, each on two CPUs: for all sizes but the large ones, and for those.
fn pairs_by_size(args: &[&str]) -> io::Result<[(Star, &'static [usize]); 2]> {
    let large = pinned_apart(Star::start_with(1, LARGE_CAPACITY_BYTES, args)?)?;
    Ok([(pinned_pair(args)?, &SIZES), (large, &LARGE_SIZES)])
}

/// Floors of those who sleep, and their names.
const SLEEPERS: [Op; 3] = [Op::FloorEventfd, Op::FloorEpoll, Op::FloorFutex];
const SLEEPERS_NAMES: [&str; 3] = ["eventfd", "eventfd in epoll", "futex"];

/// What the latency of a way of waiting is measured with: round trips of messages of a size, and its floors with their names.
pub fn latency_tasks(mode: &str, bytes: usize, share: u64) -> (Task, Vec<Task>, &'static [&'static str]) {
    let rounds = match bytes {
        ..=1024 => 500,
        1025..=16_384 => 100,
        16_385..=65_536 => 40,
        _ => 10,
    };
    let task = |op, count: u64| Task::new(op, count.div_ceil(share)).of_bytes(bytes).timed();
    if mode == "parked" {
        let rounds = rounds.min(50);
        return (task(Op::Parked, rounds), SLEEPERS.map(|op| task(op, rounds)).into(), &SLEEPERS_NAMES);
    }
    let ours = task(if mode == "spin" { Op::Steps } else { Op::Adaptive }, rounds);
    let mut floors = vec![task(Op::FloorTwoLines, rounds)];
    if bytes > 64 {
        return (ours, floors, &["a line and a copy"]);
    }
    floors.push(task(Op::FloorOneLine, rounds));
    (ours, floors, &["two cache lines", "one cache line"])
}

/// Latency by a way of waiting and a size: one way (half a round trip) and round trip.
///
/// # Errors
/// A measured process failed: it found something wrong, or was killed.
pub fn latency_of(star: &mut Star, mode: &str, bytes: usize, share: u64) -> io::Result<[Outcome; 2]> {
    let (ours, floors, names) = latency_tasks(mode, bytes, share);
    let trips = Trips::measure(star, ours, &floors, names)?;
    Ok([trips.outcome("latency", mode, 2.0), trips.outcome("round_trip", mode, 1.0)])
}

/// Round trips with their floors.
struct Trips<'a> {
    pairs: Pairs,
    names: &'a [&'static str],
    ours: Task,
    clock_ns: f64,
}

impl<'a> Trips<'a> {
    fn measure(
        star: &mut Star,
        ours: Task,
        floors: &[Task],
        names: &'a [&'static str],
    ) -> io::Result<Trips<'a>> {
        Ok(Trips { pairs: pairs(star, ours, floors)?, names, ours, clock_ns: clock_ns() })
    }

    /// As one result; of a round trip that has so many parts, of one.
    fn outcome(&self, case: &str, mode: &str, parts: f64) -> Outcome {
        let column = |column| single(column, self.clock_ns, parts);
        let (ratios, floor, which) = self.pairs.ratios(column(0), f64::min);
        let (ratios_p99, ..) = self.pairs.ratios(column(2), f64::min);
        let at = |of| Some(self.pairs.median(column(of)));
        Outcome {
            case: case.into(),
            mode: mode.into(),
            size_bytes: Some(self.ours.bytes),
            count: self.pairs.received(),
            p50_ns: at(0),
            p95_ns: at(1),
            p99_ns: at(2),
            p999_ns: at(3),
            floor: Some(floor),
            ratio_p50: Some(spread(ratios.iter().copied()).median),
            ratio_p99: Some(spread(ratios_p99).median),
            against: self.names[which].into(),
            message: message(self.ours.bytes, self.ours.text),
            ratios,
            ..Outcome::default()
        }
    }
}

/// All latencies.
///
/// # Errors
/// As [`latency_of`].
pub fn latency(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut stars = pairs_by_size(bench.args)?;
    for mode in ["spin", "adaptive", "parked"] {
        for (star, sizes) in &mut stars {
            for &bytes in *sizes {
                latency_of(star, mode, bytes, bench.share)?.into_iter().for_each(&mut bench.each);
            }
        }
    }
    Ok(())
}

/// Latency of small messages with a text and a list in them, spinning: beside `latency`, what such messages cost more.
///
/// # Errors
/// As [`latency_of`].
pub fn text(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut star = pinned_pair(bench.args)?;
    for bytes in [64, 40] {
        let (ours, floors, names) = latency_tasks("spin", bytes, bench.share);
        let trips = Trips::measure(&mut star, ours.of_text(), &floors, names)?;
        (bench.each)(trips.outcome("text", "spin", 2.0));
    }
    Ok(())
}

/// Latency of 64 bytes where the two share a CPU, and where the scheduler places them. Who spins on the other's CPU only keeps it from
/// running, so there both ways of waiting stand beside the floors of those who sleep.
///
/// # Errors
/// As [`latency_of`].
pub fn placement(bench: &mut Bench<'_>) -> io::Result<()> {
    for place in ["together", "unpinned"] {
        let mut star = Star::start(1, bench.args)?;
        if let ("together", Some(&cpu)) = (place, cpus()?.first()) {
            star.pin([cpu, cpu])?;
        }
        for mode in ["adaptive", "parked"] {
            let (ours, mut floors, mut names) = latency_tasks(mode, 64, bench.share);
            if place == "together" {
                (floors, names) = (SLEEPERS.map(|op| Task { op, ..ours }).into(), &SLEEPERS_NAMES);
            }
            let trips = Trips::measure(&mut star, ours, &floors, names)?;
            (bench.each)(trips.outcome("placement", &format!("{mode} {place}"), 2.0));
        }
    }
    Ok(())
}

/// One message now and then: an agent's own way of waiting beside spinning while the gaps are shorter than a wake-up, and beside sleeping at
/// once where they are longer, with what CPU the receiver takes for each message.
///
/// # Errors
/// As [`latency_of`].
pub fn sparse(bench: &mut Bench<'_>) -> io::Result<()> {
    const SPINNING: [&str; 1] = ["spinning"];
    const SLEEPING: [&str; 1] = ["sleeping at once"];
    let every = [
        (2, 500_u64, Op::Steps, &SPINNING),
        (20, 200, Op::Parked, &SLEEPING),
        (100, 100, Op::Parked, &SLEEPING),
        (1000, 30, Op::Parked, &SLEEPING),
    ];
    let mut star = pinned_pair(bench.args)?;
    for (gap_us, rounds, floor, names) in every {
        let task = |op| Task::new(op, rounds.div_ceil(bench.share)).of_bytes(64).timed().with_gaps_of(gap_us);
        let trips = Trips::measure(&mut star, task(Op::Adaptive), &[task(floor)], names)?;
        let cpu = |reply: &Reply| reply.cpu_ns as f64 / (reply.received as f64 / 2.0);
        (bench.each)(Outcome {
            cpu_ns: Some(trips.pairs.median(cpu)),
            floor_cpu_ns: Some(spread(trips.pairs.floors[0].iter().map(cpu)).median),
            ..trips.outcome("sparse", &format!("every {gap_us} µs"), 1.0)
        });
    }
    Ok(())
}

/// A rate beside raw rings.
fn rate(star: &mut Star, case: &str, mode: &str, ours: Task, floor: Op, takers: u64) -> io::Result<Outcome> {
    let floors = stream_floors(ours, floor);
    let pairs = pairs(star, ours, &floors)?;
    // The floors' processes say what they received, too.
    let rate = |reply: &Reply| reply.received as f64 / reply.elapsed().as_secs_f64();
    let (ratios, floor, which) = pairs.ratios(rate, f64::max);
    let expected = ours.count * takers * PAIRS as u64;
    if pairs.received() != expected {
        return Err(io::Error::other(format!("{} of {expected} messages were received", pairs.received())));
    }
    Ok(Outcome {
        case: case.into(),
        mode: mode.into(),
        size_bytes: Some(ours.bytes),
        count: pairs.received(),
        msgs_per_s: Some(pairs.median(rate)),
        floor: Some(floor),
        ratio_p50: Some(spread(ratios.iter().copied()).median),
        against: STREAM_FLOORS[which].into(),
        message: message(ours.bytes, ours.text),
        ratios,
        ..Outcome::default()
    })
}

/// How many messages of a size make a run of some milliseconds.
pub fn messages(bytes: usize) -> u64 {
    let least = if bytes > 64 << 10 { 60 } else { 300 };
    ((16 << 20) / (bytes as u64 + 512)).clamp(least, 20_000)
}

/// What a rate is measured with: messages of a size, committed `every` so many, or fewer where those would not fit half a ring.
pub fn stream_task(bytes: usize, every: u64, share: u64) -> Task {
    let every = every.min((256 << 10) / bytes as u64).max(1);
    Task::new(Op::Stream, messages(bytes) / share).of_bytes(bytes).in_batches_of(every)
}

/// Its floors: raw rings, published slot by slot and 16 at once.
pub fn stream_floors(ours: Task, floor: Op) -> [Task; 2] {
    [1, 16].map(|every| Task { op: floor, every, ..ours })
}

/// Messages of a size from one process to another, as fast as they go, committed `every` so many.
///
/// # Errors
/// As [`latency_of`].
pub fn throughput_of(star: &mut Star, bytes: usize, every: u64, share: u64) -> io::Result<Outcome> {
    let mode = if every == 1 { "single" } else { "batch" };
    let task = stream_task(bytes, every, share);
    rate(star, "throughput", mode, task, Op::FloorStream, 1)
}

/// All throughputs of a pair.
///
/// # Errors
/// As [`latency_of`].
pub fn throughput(bench: &mut Bench<'_>) -> io::Result<()> {
    let [(mut star, _), (mut large, _)] = pairs_by_size(bench.args)?;
    for every in [1, 16] {
        for bytes in [64, 40, 1024, 16 << 10, 64 << 10] {
            let outcome = throughput_of(&mut star, bytes, every, bench.share)?;
            (bench.each)(outcome);
        }
    }
    // No batch of them would fit the lane.
    for bytes in LARGE_SIZES {
        let outcome = throughput_of(&mut large, bytes, 1, bench.share)?;
        (bench.each)(outcome);
    }
    Ok(())
}

/// A step (receive, handle, send, acknowledge, with a commit record), beside the same without a record.
///
/// # Errors
/// As [`latency_of`].
pub fn step(bench: &mut Bench<'_>) -> io::Result<()> {
    let mut star = pinned_pair(bench.args)?;
    for bytes in [40, 64] {
        let task = |op| Task::new(op, 1000 / bench.share).of_bytes(bytes).timed();
        let floors = [task(Op::Plain)];
        let trips = Trips::measure(&mut star, task(Op::Steps), &floors, &["the same without a record"])?;
        (bench.each)(trips.outcome("step", "spin", 2.0));
    }
    Ok(())
}

/// Several into one, and one into several; not pinned.
///
/// # Errors
/// As [`latency_of`].
pub fn fan(bench: &mut Bench<'_>) -> io::Result<()> {
    for (spokes, capacity_bytes) in FANS {
        let mut star = Star::start_with(spokes, capacity_bytes, bench.args)?;
        let takers = u64::from(spokes);
        // As many for each as make the same sum, and some at least; to see that it works, as few as elsewhere.
        let each = (200_000 / (bench.share * bench.share) / takers).max(10);
        let task = |op| Task::new(op, each).of_bytes(64);
        let into_one =
            rate(&mut star, "fan", &format!("{spokes} into 1"), task(Op::Gather), Op::FloorGather, takers)?;
        (bench.each)(into_one);
        // One into one is no fan the other way round either.
        if !(2..=TAKERS_MAX).contains(&spokes) {
            continue;
        }
        let of_one =
            rate(&mut star, "fan", &format!("1 into {spokes}"), task(Op::Stream), Op::FloorStream, takers)?;
        (bench.each)(of_one);
    }
    Ok(())
}
