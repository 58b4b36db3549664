//! What a measured process does when told: something on its lanes, or the same on a floor.

use crate::baseline::Baseline;
use crate::floor::{Floor, Word};
use crate::talk::Talker;
use hdrhistogram::Histogram;
use rustix::process::Signal;
use rustix::thread::CpuSet;
use shoal_runtime::attachment::{Attachment, Found, attach};
use shoal_runtime::clock::now_ns;
use shoal_runtime::consumer::Frame;
use shoal_runtime::links::Port;
use shoal_runtime::port::ControlPort;
use shoal_runtime::wire::CONTROL_FD;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where the floor's memory is opened; that it is set makes a process a peer.
pub const FLOOR_ENV: &str = "SHOAL_BENCH_FLOOR";
/// The name of the baseline's segment.
pub const BASELINE_ENV: &str = "SHOAL_BENCH_BASELINE";
/// The pause between messages to a sleeper.
const PAUSE: Duration = Duration::from_micros(200);

/// What both do together. The number of messages or round trips goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Op {
    /// Waits for the other.
    Meet,
    /// Moves to a CPU; the count is its number.
    Pin,
    /// Round trips, both spinning; each answers in a step, whose commit record acknowledges the message before.
    Steps,
    /// The same, the time of each kept.
    StepsTimed,
    /// Round trips, both spinning; each message is sent and acknowledged by itself, without a record.
    Plain,
    /// Round trips through `World::wait`, as an agent waits, the time of each kept.
    WaitingTimed,
    /// Messages one way, as fast as they go.
    Stream,
    /// The same in steps of 16.
    Stream16,
    /// Messages to a sleeper, the time of each kept.
    Wake,
    /// Round trips of one raw cache line.
    FloorOneLine,
    /// Round trips of two raw cache lines.
    FloorTwoLines,
    /// Round trips of two raw cache lines, the time of each kept.
    FloorTimed,
    /// 64-byte slots through a raw ring.
    FloorStream,
    /// Rings of a doorbell whose owner sleeps in epoll, the time of each kept.
    FloorWake,
    /// Round trips through a ring of `shared_memory` and `raw_sync`, the time of each kept.
    Baseline,
}

const OPS: [Op; 15] = [
    Op::Meet,
    Op::Pin,
    Op::Steps,
    Op::StepsTimed,
    Op::Plain,
    Op::WaitingTimed,
    Op::Stream,
    Op::Stream16,
    Op::Wake,
    Op::FloorOneLine,
    Op::FloorTwoLines,
    Op::FloorTimed,
    Op::FloorStream,
    Op::FloorWake,
    Op::Baseline,
];

/// When it began and ended, CLOCK_MONOTONIC ns, and the single times: p50, p99, p99.9, max; 0 where none were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its begin.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// p50, p99, p99.9, max, in ns.
    pub row: [u64; 4],
}

impl Reply {
    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.end_ns.saturating_sub(self.begin_ns))
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words = line.split_whitespace().map(|w| w.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let [begin_ns, end_ns, row @ ..] = &words[..] else { return None };
        Some(Reply { begin_ns: *begin_ns, end_ns: *end_ns, row: row.try_into().ok()? })
    }
}

/// Makes this process a peer if it was started as one, and never returns then.
pub fn run_if_peer() {
    let Ok(floor) = std::env::var(FLOOR_ENV) else { return };
    let served = serve(&floor);
    if let Err(error) = &served {
        eprintln!("a peer of the bench: {error}");
    }
    std::process::exit(i32::from(served.is_err()));
}

fn serve(floor: &str) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The control socket came as standard input; an agent finds it at its agreed number, the first free one here.
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), CONTROL_FD)?;
    assert_eq!(control.into_raw_fd(), CONTROL_FD, "nothing else was inherited");
    let commands = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let attachment = attach()?;
    let first = attachment.manifest.agent == 0;
    let baseline = std::env::var(BASELINE_ENV).map_err(io::Error::other)?;
    let mut peer = Peer {
        talk: Talker::new(attachment),
        first,
        floor: Floor::open(floor)?,
        baseline: Baseline::open(&baseline, first).map_err(|e| io::Error::other(e.to_string()))?,
        times: Times {
            histogram: Histogram::new_with_bounds(1, 10_000_000_000, 3).map_err(io::Error::other)?,
            last_ns: 0,
        },
    };
    let mut replies = commands.try_clone()?;
    for line in BufReader::new(commands).lines() {
        let line = line?;
        let mut words = line.split(' ').map(|w| w.parse::<u64>().unwrap_or_default());
        let (op, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Reply { begin_ns, end_ns, row: [p50, p99, p999, max] } = peer.run(OPS[op as usize], count)?;
        writeln!(replies, "{begin_ns} {end_ns} {p50} {p99} {p999} {max}")?;
    }
    Ok(())
}

struct Peer {
    talk: Talker<ControlPort>,
    first: bool,
    floor: Floor,
    baseline: Baseline,
    times: Times,
}

/// The time of each round trip or message.
struct Times {
    histogram: Histogram<u64>,
    last_ns: u64,
}

impl Times {
    fn begin(&mut self) {
        self.histogram.clear();
        self.last_ns = now_ns();
    }

    fn lap(&mut self) {
        let now_ns = now_ns();
        self.histogram.saturating_record(now_ns - self.last_ns);
        self.last_ns = now_ns;
    }

    fn row(&self) -> [u64; 4] {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        [at(0.5), at(0.99), at(0.999), self.histogram.max()]
    }
}

impl Peer {
    fn run(&mut self, op: Op, count: u64) -> io::Result<Reply> {
        if op == Op::Pin {
            let mut cpus = CpuSet::new();
            cpus.set(count as usize);
            rustix::thread::sched_setaffinity(None, &cpus)?;
            return Ok(Reply::default());
        }
        self.floor.meet(self.first);
        self.times.begin();
        let begin_ns = now_ns();
        let timed = self.act(op, count)?;
        let end_ns = now_ns();
        Ok(Reply { begin_ns, end_ns, row: if timed { self.times.row() } else { [0; 4] } })
    }

    /// Does it; true when this process kept single times.
    fn act(&mut self, op: Op, count: u64) -> io::Result<bool> {
        let first = self.first;
        match op {
            Op::Meet | Op::Pin => {}
            Op::Steps => self.steps(count, Peer::spin, |_| ())?,
            Op::StepsTimed => self.steps(count, Peer::spin, Times::lap)?,
            Op::WaitingTimed => self.steps(count, Peer::wait, Times::lap)?,
            Op::Plain => self.plain(count)?,
            Op::Stream => self.stream(count, 1)?,
            Op::Stream16 => self.stream(count, 16)?,
            Op::Wake => self.wake(count)?,
            Op::FloorOneLine => self.floor.ping_pong_one_line(first, count, || ()),
            Op::FloorTwoLines => self.floor.ping_pong_two_lines(first, count, || ()),
            Op::FloorTimed => self.floor.ping_pong_two_lines(first, count, || self.times.lap()),
            Op::FloorStream if first => self.floor.ring_write(count),
            Op::FloorStream => self.floor.ring_read(count),
            Op::FloorWake => self.floor_wake(count)?,
            Op::Baseline => self.baseline(count)?,
        }
        Ok(match op {
            Op::StepsTimed | Op::WaitingTimed | Op::FloorTimed | Op::Baseline => first,
            Op::Wake | Op::FloorWake => !first,
            _ => false,
        })
    }

    /// Looks until there is a message.
    #[inline]
    fn spin(&mut self) -> io::Result<(usize, Frame)> {
        loop {
            if let Some(got) = self.talk.look() {
                return Ok(got);
            }
        }
    }

    /// Waits for a message as the SDK does.
    #[inline]
    fn wait(&mut self) -> io::Result<(usize, Frame)> {
        let Attachment { inputs, world, .. } = &mut self.talk.at;
        match world.wait(None, |world, thorough| inputs.look(&[0], world, thorough))? {
            Some(Found::Message(input, frame)) => Ok((input, frame)),
            other => Err(io::Error::other(format!("{other:?} instead of a message"))),
        }
    }

    #[inline]
    fn steps(
        &mut self,
        rounds: u64,
        receive: impl Fn(&mut Peer) -> io::Result<(usize, Frame)>,
        each: impl Fn(&mut Times),
    ) -> io::Result<()> {
        let mut held = None;
        for _ in 0..rounds {
            if self.first {
                self.talk.write()?;
                self.talk.commit(held.take())?;
            }
            let got = receive(self)?;
            self.talk.read(&got)?;
            held = Some(got);
            if !self.first {
                self.talk.write()?;
                self.talk.commit(held.take())?;
            }
            each(&mut self.times);
        }
        self.talk.commit(held)
    }

    fn plain(&mut self, rounds: u64) -> io::Result<()> {
        for _ in 0..rounds {
            if self.first {
                self.talk.write()?;
                self.talk.commit(None)?;
            }
            let got = self.spin()?;
            self.talk.read(&got)?;
            if self.first {
                self.talk.commit(Some(got))?;
                continue;
            }
            self.talk.write()?;
            self.talk.commit(None)?;
            self.talk.commit(Some(got))?;
        }
        Ok(())
    }

    fn stream(&mut self, count: u64, batch: u64) -> io::Result<()> {
        if self.first {
            for number in 1..=count {
                self.talk.write()?;
                if number.is_multiple_of(batch) || number == count {
                    self.talk.commit(None)?;
                }
            }
            return Ok(());
        }
        for _ in 0..count {
            let got = match self.talk.look() {
                Some(got) => got,
                None => self.wait()?,
            };
            self.talk.read(&got)?;
            self.talk.commit(Some(got))?;
        }
        Ok(())
    }

    fn wake(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            if self.first {
                std::thread::sleep(PAUSE);
                self.talk.sending.quote.sent_ns = now_ns();
                self.talk.write()?;
                self.talk.commit(None)?;
                continue;
            }
            let got = self.wait()?;
            self.times.last_ns = self.talk.read(&got)?;
            self.times.lap();
            self.talk.commit(Some(got))?;
        }
        self.talk.sending.quote.sent_ns = 0;
        Ok(())
    }

    fn floor_wake(&mut self, count: u64) -> io::Result<()> {
        let [woken, at] = [Word::Woken, Word::WokenAtNs].map(|w| self.floor.word(w));
        let mut number = woken.load(Ordering::Acquire);
        let last = number + count;
        self.floor.meet(self.first);
        while number < last {
            if self.first {
                std::thread::sleep(PAUSE);
                number += 1;
                at.store(now_ns(), Ordering::Relaxed);
                woken.store(number, Ordering::Release);
                self.talk.at.world.links.ring(0);
                continue;
            }
            while woken.load(Ordering::Acquire) == number {
                self.talk.at.world.port.sleep(None)?;
            }
            // More than one when this process was kept from running: then the last counts.
            number = woken.load(Ordering::Acquire);
            self.times.last_ns = at.load(Ordering::Relaxed);
            self.times.lap();
        }
        Ok(())
    }

    fn baseline(&mut self, rounds: u64) -> io::Result<()> {
        let failed = |error: Box<dyn std::error::Error>| io::Error::other(error.to_string());
        let mut bytes = [0; 64];
        for _ in 0..rounds {
            if self.first {
                self.baseline.send(&bytes).map_err(failed)?;
            }
            bytes = self.baseline.receive().map_err(failed)?;
            if !self.first {
                self.baseline.send(&bytes).map_err(failed)?;
            }
            self.times.lap();
        }
        Ok(())
    }
}
