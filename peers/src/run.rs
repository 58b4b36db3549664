//! The turns: Shoal, its floors and all peers, one after the other, every other round the other way round. Each pair is checked
//! before it is timed, and checks every message while it is.

use crate::pair::{Pair, Place};
use crate::registry::Peer;
use crate::report::{Missing, Report, Row};
use crate::server::Server;
use crate::wire::Mode;
use shoal_measure::cases::{self, STREAM_FLOORS, clock_ns, pinned_pair, single};
use shoal_measure::outcome::Machine;
use shoal_measure::pairs::spread;
use shoal_measure::star::Star;
use shoal_measure::task::{Op, Reply, Task};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds of each result: in each, everybody has a turn.
pub const ROUNDS: usize = 21;
/// About how long a turn of a peer is at most.
const TURN: Duration = Duration::from_millis(8);
/// Messages of a check.
const CHECKED: u64 = 300;

/// What to measure.
pub struct Asked {
    /// Which peers.
    pub peers: Vec<Peer>,
    /// With messages of which sizes.
    pub sizes: Vec<usize>,
    /// Waiting how.
    pub modes: Vec<Mode>,
    /// Rounds of each result.
    pub rounds: usize,
    /// One of so many messages is sent: more than 1 shows that it works, not how fast.
    pub share: u64,
    /// Where peers may leave things while it runs.
    pub base: PathBuf,
}

/// Where shared memory is, so that what peers map from files there is no slower than a memfd.
pub fn base() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

/// Something that takes turns.
struct Turn<'a> {
    name: &'static str,
    how: &'static str,
    act: Box<dyn FnMut() -> io::Result<Reply> + 'a>,
    replies: Vec<Reply>,
    failed: Option<String>,
}

impl<'a> Turn<'a> {
    fn new(name: &'static str, how: &'static str, act: impl FnMut() -> io::Result<Reply> + 'a) -> Self {
        Turn { name, how, act: Box::new(act), replies: Vec::new(), failed: None }
    }
}

/// Lets all have their turns. One that fails has no more.
fn take_turns(turns: &mut [Turn<'_>], rounds: usize) {
    let mut take = |turn: &mut Turn<'_>| {
        if turn.failed.is_none() {
            match (turn.act)() {
                Ok(reply) => turn.replies.push(reply),
                Err(error) => turn.failed = Some(error.to_string()),
            }
        }
    };
    for round in 0..rounds {
        if round % 2 == 0 {
            turns.iter_mut().for_each(&mut take)
        } else {
            turns.iter_mut().rev().for_each(&mut take)
        }
    }
}

/// Measures what was asked for, and tells each row as it comes.
///
/// # Errors
/// Shoal or a floor failed. A peer that fails has its reason in the report.
pub fn run(asked: &Asked, each: &mut dyn FnMut(&Row)) -> io::Result<Report> {
    let mut run = Run { asked, report: Report::new(Machine::here()), servers: BTreeMap::new(), each };
    // What peers leave is in a folder of its own, and goes with it.
    sweep_strays(&asked.base);
    let own = format!("{LEFT}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&own).tempdir_in(&asked.base)?;
    run.start_servers(folder.path());
    let mut star = pinned_pair(&[])?;
    for &mode in &asked.modes {
        for &bytes in &asked.sizes {
            run.size(&mut star, folder.path(), mode, bytes)?;
        }
    }
    // The servers write into the folder.
    run.servers.clear();
    sweep(Path::new("/dev/shm"), folder.path());
    Ok(run.report)
}

/// What the names of things that peers may leave begin with; behind it stands the number of the process that measured.
const LEFT: &str = "shoal-peers-";

/// Removes what a run left that was killed, so that nobody cleared up after it.
fn sweep_strays(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(LEFT)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let path = entry.path();
            // Gone already is as good.
            let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

/// Removes what iceoryx2 has named after the folder (its prefix) and leaves in shared memory even when all have ended.
fn sweep(shared: &Path, folder: &Path) {
    let Some(prefix) = folder.file_name().map(|name| format!("{}_", name.to_string_lossy())) else { return };
    let left = std::fs::read_dir(shared).into_iter().flatten().filter_map(Result::ok);
    for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        // Gone already is as good.
        let _ = std::fs::remove_file(entry.path());
    }
}

struct Run<'a> {
    asked: &'a Asked,
    report: Report,
    servers: BTreeMap<Peer, Server>,
    each: &'a mut dyn FnMut(&Row),
}

impl Run<'_> {
    fn miss(&mut self, peer: Peer, what: Option<(Mode, usize)>, why: String, failed: bool) {
        let (mode, size_bytes) =
            what.map_or((None, None), |(mode, bytes)| (Some(mode.name().to_owned()), Some(bytes)));
        self.report.not_measured.push(Missing {
            peer: peer.name().to_owned(),
            mode,
            size_bytes,
            why,
            failed,
        });
    }

    fn start_servers(&mut self, folder: &Path) {
        for &peer in &self.asked.peers {
            match peer.absent().map_or_else(|| Server::start(peer, folder), |why| Err(io::Error::other(why)))
            {
                Ok(Some(server)) => drop(self.servers.insert(peer, server)),
                Ok(None) => {}
                Err(error) => self.miss(peer, None, error.to_string(), false),
            }
        }
    }

    /// The pairs of a way of waiting and a size: those that can be had, each checked.
    fn pairs(&mut self, folder: &Path, mode: Mode, bytes: usize) -> io::Result<Vec<(Peer, Pair)>> {
        let cpus = rustix::thread::sched_getaffinity(None)?;
        let mut free = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| cpus.is_set(cpu));
        let cpus = match (free.next(), free.next()) {
            (Some(first), Some(second)) => [Some(first), Some(second)],
            _ => [None, None],
        };
        let mut pairs = Vec::new();
        for &peer in &self.asked.peers {
            if self.report.not_measured.iter().any(|m| m.mode.is_none() && m.peer == peer.name()) {
                continue;
            }
            if let Some(why) = peer.refuses(mode, bytes) {
                self.miss(peer, Some((mode, bytes)), why.to_owned(), false);
                continue;
            }
            let server = self.servers.get(&peer).map_or("", Server::address);
            match Pair::start(peer, mode, bytes, Place { folder, cpus, server }, None).and_then(checked) {
                Ok(pair) => pairs.push((peer, pair)),
                Err(error) => self.miss(peer, Some((mode, bytes)), error.to_string(), true),
            }
        }
        Ok(pairs)
    }

    fn size(&mut self, star: &mut Star, folder: &Path, mode: Mode, bytes: usize) -> io::Result<()> {
        let mut pairs = self.pairs(folder, mode, bytes)?;
        self.latency(star, &mut pairs, mode, bytes)?;
        self.throughput(star, &mut pairs, mode, bytes, 1)?;
        self.throughput(star, &mut pairs, mode, bytes, 16)
    }

    fn latency(
        &mut self,
        star: &mut Star,
        pairs: &mut [(Peer, Pair)],
        mode: Mode,
        bytes: usize,
    ) -> io::Result<()> {
        let (ours, floors, names) = cases::latency_tasks(mode.name(), bytes, self.asked.share);
        let acts = pairs.iter_mut().map(|(peer, pair)| -> Act<'_> {
            let mut count = None;
            let act = move || {
                let count = *count.get_or_insert(fitting(&pair.round_trips(10)?, 10, ours.count));
                pair.round_trips(count)
            };
            (*peer, Box::new(act))
        });
        let turns = self.turns(star, (ours, &floors), acts.collect(), mode)?;
        let clock = clock_ns();
        let at = |column| move |reply: &Reply| single(column, clock, 2.0)(reply);
        self.rows("latency", mode, bytes, turns, floors.len(), |shown| {
            let floor = shown.floor(at(0), f64::min, names);
            let to_floor_p99 = shown.to_floor(at(2), f64::min);
            Row {
                p50_ns: Some(shown.median(at(0))),
                p95_ns: Some(shown.median(at(1))),
                p99_ns: Some(shown.median(at(2))),
                p999_ns: Some(shown.median(at(3))),
                floor: Some(floor.0),
                against: floor.1.to_owned(),
                ratio_p50: shown.to_floor(at(0), f64::min),
                ratio_p99: to_floor_p99,
                ratio_shoal_p50: spread(shown.to_shoal(at(0))).median,
                ratio_shoal_p99: Some(spread(shown.to_shoal(at(2))).median),
                ratios_shoal: shown.to_shoal(at(0)),
                ..Row::default()
            }
        })
    }

    fn throughput(
        &mut self,
        star: &mut Star,
        pairs: &mut [(Peer, Pair)],
        mode: Mode,
        bytes: usize,
        every: u64,
    ) -> io::Result<()> {
        let ours = cases::stream_task(bytes, every, self.asked.share);
        let floors = cases::stream_floors(ours, Op::FloorStream);
        let able = pairs.iter_mut().filter(|(_, pair)| every == 1 || pair.batches);
        let acts = able.map(|(peer, pair)| -> Act<'_> {
            let mut count = None;
            let act = move || {
                let few = ours.count.min(100);
                let count = *count.get_or_insert(fitting(&pair.stream(few, ours.every)?, few, ours.count));
                pair.stream(count, ours.every)
            };
            (*peer, Box::new(act))
        });
        let turns = self.turns(star, (ours, &floors), acts.collect(), mode)?;
        let rate = |reply: &Reply| reply.received as f64 / reply.elapsed().as_secs_f64();
        let case = if every == 1 { "throughput" } else { "throughput_batch" };
        self.rows(case, mode, bytes, turns, floors.len(), |shown| {
            let floor = shown.floor(rate, f64::max, &STREAM_FLOORS);
            Row {
                msgs_per_s: Some(shown.median(rate)),
                floor: Some(floor.0),
                against: floor.1.to_owned(),
                ratio_p50: shown.to_floor(rate, f64::max),
                ratio_shoal_p50: spread(shown.to_shoal(rate)).median,
                ratios_shoal: shown.to_shoal(rate),
                ..Row::default()
            }
        })
    }

    /// Shoal first, then its floors, then the peers: all with their turns taken.
    fn turns(
        &self,
        star: &mut Star,
        (ours, floors): (Task, &[Task]),
        peers: Vec<Act<'_>>,
        mode: Mode,
    ) -> io::Result<Vec<Taken>> {
        let star = std::cell::RefCell::new(star);
        // Once unmeasured, as with the others.
        star.borrow_mut().run(Task { count: (ours.count / 10).max(1), ..ours })?;
        let of_star = |task: Task| {
            let star = &star;
            move || star.borrow_mut().run(task)
        };
        let mut turns = vec![Turn::new("shoal", "steps with commit", of_star(ours))];
        turns.extend(floors.iter().map(|&floor| Turn::new("floor", "", of_star(floor))));
        turns.extend(peers.into_iter().map(|(peer, act)| Turn::new(peer.name(), peer.how(mode), act)));
        take_turns(&mut turns, self.asked.rounds);
        let taken: Vec<Taken> = turns.into_iter().map(Taken::from).collect();
        match taken.iter().take(1 + floors.len()).find_map(|own| own.failed.clone()) {
            Some(why) => Err(io::Error::other(why)),
            None => Ok(taken),
        }
    }

    fn rows(
        &mut self,
        case: &str,
        mode: Mode,
        bytes: usize,
        turns: Vec<Taken>,
        floors: usize,
        row: impl Fn(&Shown<'_>) -> Row,
    ) -> io::Result<()> {
        let [ours, rest @ ..] = &turns[..] else { return Ok(()) };
        let (floors, peers) = rest.split_at(floors);
        for measured in std::iter::once(ours).chain(peers) {
            if let (Some(why), Some(peer)) = (&measured.failed, Peer::named(measured.name)) {
                self.miss(peer, Some((mode, bytes)), why.clone(), true);
                continue;
            }
            let shown = Shown { ours: &ours.replies, floors, measured: &measured.replies };
            let row = Row {
                case: case.to_owned(),
                mode: mode.name().to_owned(),
                size_bytes: bytes,
                peer: measured.name.to_owned(),
                how: measured.how.to_owned(),
                count: measured.replies.iter().map(|reply| reply.received).sum(),
                ..row(&shown)
            };
            (self.each)(&row);
            self.report.results.push(row);
        }
        Ok(())
    }
}

type Act<'a> = (Peer, Box<dyn FnMut() -> io::Result<Reply> + 'a>);

/// What came of somebody's turns.
struct Taken {
    name: &'static str,
    how: &'static str,
    replies: Vec<Reply>,
    failed: Option<String>,
}

impl From<Turn<'_>> for Taken {
    fn from(turn: Turn<'_>) -> Self {
        let Turn { name, how, replies, failed, .. } = turn;
        Taken { name, how, replies, failed }
    }
}

/// One measured in turns with Shoal and its floors.
struct Shown<'a> {
    ours: &'a [Reply],
    floors: &'a [Taken],
    measured: &'a [Reply],
}

impl Shown<'_> {
    fn median(&self, of: impl Fn(&Reply) -> f64) -> f64 {
        spread(self.measured.iter().map(of)).median
    }

    /// Of each round the best floor.
    fn best(&self, of: &impl Fn(&Reply) -> f64, best: fn(f64, f64) -> f64) -> Vec<f64> {
        let at = |round: usize| self.floors.iter().map(|floor| of(&floor.replies[round])).reduce(best);
        (0..self.measured.len()).map(|round| at(round).unwrap_or(f64::NAN)).collect()
    }

    /// The best floor's median and name.
    fn floor<'n>(
        &self,
        of: impl Fn(&Reply) -> f64,
        best: fn(f64, f64) -> f64,
        names: &[&'n str],
    ) -> (f64, &'n str) {
        let medians: Vec<f64> =
            self.floors.iter().map(|floor| spread(floor.replies.iter().map(&of)).median).collect();
        let median = medians.iter().copied().reduce(best).unwrap_or(f64::NAN);
        let which = medians.iter().position(|&m| m == median).unwrap_or_default();
        (spread(self.best(&of, best)).median, names.get(which).copied().unwrap_or_default())
    }

    fn to_floor(&self, of: impl Fn(&Reply) -> f64, best: fn(f64, f64) -> f64) -> Option<f64> {
        let ratios = self.measured.iter().zip(self.best(&of, best)).map(|(reply, floor)| of(reply) / floor);
        Some(spread(ratios).median)
    }

    fn to_shoal(&self, of: impl Fn(&Reply) -> f64) -> Vec<f64> {
        self.measured.iter().zip(self.ours).map(|(reply, ours)| of(reply) / of(ours)).collect()
    }
}

/// As many as fit a turn, by how long a few took: at least ten, at most those that Shoal has.
fn fitting(few: &Reply, count: u64, most: u64) -> u64 {
    let each = few.elapsed().as_nanos().max(1) as u64 / count;
    (TURN.as_nanos() as u64 / each.max(1)).clamp(10.min(most), most)
}

/// Looks whether a pair delivers everything once, in order and whole, before it is timed.
fn checked(mut pair: Pair) -> io::Result<Pair> {
    let trips = pair.round_trips(CHECKED / 10)?.received;
    let streamed = pair.stream(CHECKED, 1)?.received;
    if (trips, streamed) == (2 * (CHECKED / 10), CHECKED) {
        return Ok(pair);
    }
    Err(io::Error::other(format!(
        "{trips} and {streamed} messages were received of {} and {CHECKED}",
        2 * (CHECKED / 10)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(ns: u64) -> Reply {
        Reply { begin_ns: 0, end_ns: ns, received: 1, cpu_ns: 0, row: [ns; 5] }
    }

    #[test]
    fn turns_go_there_and_back_and_one_that_fails_has_no_more() {
        let said = std::cell::RefCell::new(Vec::new());
        let turn = |name: &'static str, fails: bool| {
            let said = &said;
            Turn::new(name, "", move || {
                said.borrow_mut().push(name);
                if fails { Err(io::Error::other("broke")) } else { Ok(reply(1)) }
            })
        };
        let mut turns = [turn("a", false), turn("b", true), turn("c", false)];
        take_turns(&mut turns, 3);
        assert_eq!(turns[1].failed.as_deref(), Some("broke"));
        assert_eq!(turns.each_ref().map(|turn| turn.replies.len()), [3, 0, 3]);
        drop(turns);
        assert_eq!(said.into_inner(), ["a", "b", "c", "c", "a", "a", "c"]);
    }

    #[test]
    fn ratio_is_of_the_pairs_and_of_the_best_floor_of_each() {
        let floor =
            |ns: [u64; 3]| Taken { name: "floor", how: "", replies: ns.map(reply).into(), failed: None };
        let (ours, measured) = ([10, 20, 30].map(reply), [20, 60, 120].map(reply));
        let floors = [floor([10, 10, 10]), floor([5, 20, 40])];
        let shown = Shown { ours: &ours, floors: &floors, measured: &measured };
        let of = |reply: &Reply| reply.row[0] as f64;
        assert_eq!(shown.to_shoal(of), [2.0, 3.0, 4.0]);
        // 20 : 5, 60 : 10, 120 : 10.
        assert_eq!(shown.to_floor(of, f64::min), Some(6.0));
        assert_eq!(shown.floor(of, f64::min, &["x", "y"]), (10.0, "x"));
        assert_eq!(shown.median(of), 60.0);
    }

    #[test]
    fn what_is_named_after_the_folder_goes_and_nothing_else() {
        let shared = tempfile::tempdir().expect("a folder");
        for name in ["run-a_node", "run-a_x", "run-ab_node", "run-a"] {
            std::fs::write(shared.path().join(name), "").expect("written");
        }
        sweep(shared.path(), Path::new("/elsewhere/run-a"));
        let left = std::fs::read_dir(shared.path()).expect("there").filter_map(Result::ok);
        let mut left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["run-a", "run-ab_node"]);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_and_what_a_living_one_has_is_not() {
        let base = tempfile::tempdir().expect("a folder");
        let mut ended = std::process::Command::new("true").spawn().expect("a process");
        ended.wait().expect("its end");
        let [dead, living] = [ended.id(), std::process::id()].map(|pid| format!("{LEFT}{pid}-a"));
        for name in [&*dead, &*living, "shoal-peers-of-somebody", "other"] {
            std::fs::create_dir(base.path().join(name)).expect("made");
        }
        std::fs::write(base.path().join(format!("{dead}_node")), "").expect("written");
        sweep_strays(base.path());
        let left = std::fs::read_dir(base.path()).expect("there").filter_map(Result::ok);
        let mut left: Vec<_> = left.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        left.sort();
        assert_eq!(left, ["other".to_owned(), living, "shoal-peers-of-somebody".to_owned()]);
    }

    #[test]
    fn count_fits_a_turn_and_is_never_nothing() {
        let ms = |ms: u64| reply(ms * 1_000_000);
        assert_eq!(fitting(&ms(1), 10, 500), 80);
        assert_eq!(fitting(&ms(1), 1000, 500), 500);
        assert_eq!(fitting(&ms(10_000), 10, 500), 10);
        assert_eq!(fitting(&ms(10_000), 10, 4), 4);
    }
}
