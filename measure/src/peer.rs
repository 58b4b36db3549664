//! What a measured process does when told: something on its lanes, or the same on a floor.

#[cfg(feature = "peers")]
use crate::baseline::Baseline;
use crate::floor::{Floor, Stream, Word, ping_pong_eventfd};
use crate::load::{Freight, Load, Loads};
use crate::talk::Talker;
use crate::task::{Op, Reply, Task};
use crate::times::Times;
use crate::with_load;
use rustix::process::Signal;
use rustix::thread::CpuSet;
use shoal_runtime::attachment::attach;
use shoal_runtime::clock::now_ns;
use shoal_runtime::links::Port;
use shoal_runtime::port::ControlPort;
use shoal_runtime::wire::CONTROL_FD;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where the floor's memory is opened; that it is set makes a process one that is measured.
pub const FLOOR_ENV: &str = "SHOAL_BENCH_FLOOR";
/// How many processes there are.
pub const PROCESSES_ENV: &str = "SHOAL_BENCH_PROCESSES";
/// How many bytes a ring of the floor has.
pub const RING_ENV: &str = "SHOAL_BENCH_RING";
/// The numbers of inherited eventfds, the hub's and the first spoke's in turns.
pub const BELLS_ENV: &str = "SHOAL_BENCH_BELLS";
/// The name of the baseline's segment.
pub const BASELINE_ENV: &str = "SHOAL_BENCH_BASELINE";
/// A shorter pause than this is spun through: going to sleep and waking up takes about as long.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// The pause between messages to a sleeper.
const PAUSE: Duration = Duration::from_micros(200);

/// Makes this process a measured one if it was started as one, and never returns then.
pub fn run_if_peer() {
    let Ok(floor) = std::env::var(FLOOR_ENV) else { return };
    let served = serve(&floor);
    if let Err(error) = &served {
        eprintln!("a measured process: {error}");
    }
    std::process::exit(i32::from(served.is_err()));
}

fn serve(floor: &str) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The control socket came as standard input; an agent finds it at its agreed number, the first free one here.
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), CONTROL_FD)?;
    assert_eq!(control.into_raw_fd(), CONTROL_FD, "nothing else was inherited below it");
    let commands = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let variable = |name| std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let number = |name| variable(name)?.parse().map_err(io::Error::other);
    let (processes, ring_bytes) = (number(PROCESSES_ENV)?, number(RING_ENV)?);
    let attachment = attach()?;
    let agent = attachment.manifest.agent as usize;
    let mut peer = Peer {
        talk: Talker::new(attachment),
        agent,
        processes,
        floor: Floor::open(floor, processes, ring_bytes)?,
        bells: bells(&variable(BELLS_ENV)?, agent)?,
        #[cfg(feature = "peers")]
        baseline: Baseline::open(&variable(BASELINE_ENV)?, agent == 0)
            .map_err(|e| io::Error::other(e.to_string()))?,
        times: Times::new()?,
        received: 0,
    };
    let mut replies = commands.try_clone()?;
    for line in BufReader::new(commands).lines() {
        let line = line?;
        let task = Task::parse(&line).ok_or_else(|| io::Error::other(format!("{line:?} is no task")))?;
        match peer.run(task) {
            Ok(reply) => replies.write_all(reply.line().as_bytes())?,
            Err(error) => {
                replies.write_all(format!("{error}\n").as_bytes())?;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The inherited eventfds: a pair to be read and a pair that never is; of each the own first.
fn bells(said: &str, agent: usize) -> io::Result<[[OwnedFd; 2]; 2]> {
    let wrong = || io::Error::other(format!("{said:?} are not four descriptors"));
    let open = |number: &str| crate::floor::inherited(number.parse().map_err(|_| wrong())?);
    let bells = said.split(' ').map(open).collect::<io::Result<Vec<OwnedFd>>>()?;
    let [a, b, c, d] = <[OwnedFd; 4]>::try_from(bells).map_err(|_| wrong())?;
    Ok(if agent == 0 { [[a, b], [c, d]] } else { [[b, a], [d, c]] })
}

struct Peer {
    talk: Talker<ControlPort>,
    agent: usize,
    processes: usize,
    floor: Floor,
    bells: [[OwnedFd; 2]; 2],
    #[cfg(feature = "peers")]
    baseline: Baseline,
    times: Times,
    received: u64,
}

/// CPU time that this process has used, ns.
fn cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Lets time pass: asleep, if it is enough for that.
fn pause(gap_us: u64) {
    let gap = Duration::from_micros(gap_us);
    if gap >= SLEEP_MIN {
        return std::thread::sleep(gap);
    }
    let begin = std::time::Instant::now();
    while begin.elapsed() < gap {
        std::hint::spin_loop();
    }
}

/// How often this thread has slept so far.
fn sleeps() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/proc tells of no switches"))
}

fn right(all: bool) -> io::Result<()> {
    all.then_some(()).ok_or_else(|| io::Error::other("what came over a floor is not what was sent"))
}

impl Peer {
    fn run(&mut self, task: Task) -> io::Result<Reply> {
        if task.op == Op::Pin {
            let mut cpus = CpuSet::new();
            cpus.set(task.count as usize);
            rustix::thread::sched_setaffinity(None, &cpus)?;
            return Ok(Reply::default());
        }
        self.received = 0;
        // Who slept in a task before and spins in this one: as an agent that spins has it.
        self.talk.at.world.desk.parked().take_back();
        self.floor.meet();
        if matches!(task.op, Op::FloorStream | Op::FloorGather) {
            if self.agent == 0 {
                self.floor.ring_reset();
            }
            self.floor.meet();
        }
        self.times.begin();
        let (begin_ns, cpu_began_ns) = (now_ns(), cpu_ns());
        match task.text {
            true => self.act(task, &mut Load::of(task.bytes))?,
            false => with_load!(Loads::of(task.bytes), mut load => self.act(task, &mut load))?,
        }
        let (end_ns, cpu_ns) = (now_ns(), cpu_ns() - cpu_began_ns);
        Ok(Reply { begin_ns, end_ns, received: self.received, cpu_ns, row: self.times.row() })
    }

    fn first(&self) -> bool {
        self.agent == 0
    }

    fn act(&mut self, task: Task, load: &mut impl Freight) -> io::Result<()> {
        let all = matches!(task.op, Op::Stream | Op::Gather | Op::FloorStream | Op::FloorGather);
        if !all && self.agent > 1 {
            // The rest is between the hub and the first spoke.
            return Ok(());
        }
        match task.op {
            Op::Meet | Op::Pin => Ok(()),
            Op::Steps => self.steps(task, load, Talker::spin),
            Op::Adaptive => self.steps(task, load, Talker::wait),
            Op::Parked => self.steps(task, load, Talker::park),
            Op::Plain => self.plain(task, load),
            Op::Stream if self.first() => self.send_all(task, load),
            Op::Stream => self.take_all(task, load, 1),
            Op::Gather if self.first() => self.take_all(task, load, self.processes - 1),
            Op::Gather => self.send_all(task, load),
            Op::Wake => self.wake(task, load),
            Op::FloorWake => self.floor_wake(task.count),
            Op::FloorStream | Op::FloorGather => self.floor_stream(task),
            Op::FloorOneLine
            | Op::FloorTwoLines
            | Op::FloorEventfd
            | Op::FloorEpoll
            | Op::FloorFutex
            | Op::Baseline => self.floor_ping_pong(task),
        }
    }

    fn floor_ping_pong(&mut self, task: Task) -> io::Result<()> {
        let first = self.first();
        let Task { op, count, bytes, every, .. } = task;
        // These two store before they ring: while both sides stay awake, each finds the other's number before it would sleep.
        let may_stay_awake = matches!(op, Op::FloorEpoll | Op::FloorFutex);
        let slept = if may_stay_awake { sleeps()? } else { 0 };
        let Peer { floor, bells: [[own, other], [never_read, its_other]], times, .. } = self;
        let lap = || {
            if task.timed && first {
                times.lap();
            }
        };
        match op {
            Op::FloorOneLine => {
                floor.ping_pong_one_line(first, count, lap);
                Ok(())
            }
            // What fits a line or two is beside the bare words.
            Op::FloorTwoLines if bytes <= 64 => right(floor.ping_pong_two_lines(first, count, [0, 1], lap)),
            Op::FloorTwoLines => right(floor.ping_pong_two_lines(first, count, [bytes, every as usize], lap)),
            Op::FloorEventfd => ping_pong_eventfd([own, other], first, count, lap),
            Op::FloorEpoll => floor.ping_pong_epoll([never_read, its_other], first, count, lap),
            Op::FloorFutex => floor.ping_pong_futex(first, count, lap),
            #[cfg(feature = "peers")]
            _ => self.baseline.ping_pong(first, count, lap).map_err(|e| io::Error::other(e.to_string())),
            #[cfg(not(feature = "peers"))]
            _ => Err(io::Error::other("this build has no peers to compare with (feature `peers`)")),
        }?;
        if may_stay_awake && (sleeps()? - slept) * 2 < count {
            // No floor of those who sleep.
            self.times.discard();
        }
        Ok(())
    }

    fn floor_stream(&mut self, task: Task) -> io::Result<()> {
        let Task { op, count, bytes, every, .. } = task;
        let stream = Stream { count, bytes, every, crowded: self.processes > 2 };
        let floor = &self.floor;
        match (op, self.agent) {
            (Op::FloorStream, 0) => floor.ring_write(0, 1..self.processes, stream),
            (Op::FloorStream, agent) => {
                self.received = count;
                right(floor.ring_read(0..1, Some(agent), stream))?;
            }
            (_, 0) => {
                self.received = count * (self.processes as u64 - 1);
                right(floor.ring_read(1..self.processes, None, stream))?;
            }
            (_, agent) => floor.ring_write(agent, agent..agent + 1, stream),
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, load: &impl Freight, number: u64) -> io::Result<u64> {
        let sent_ns = self.talk.read(load, number)?;
        self.received += 1;
        Ok(sent_ns)
    }

    #[inline]
    fn steps(
        &mut self,
        task: Task,
        load: &mut impl Freight,
        receive: impl Fn(&mut Talker<ControlPort>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (first, keeps) = (self.first(), task.timed && self.first());
        for number in task.first..task.first + task.count {
            if first {
                if task.gap_us > 0 {
                    // What is in hand is let go of first: the pause is no part of anything.
                    self.talk.commit()?;
                    pause(task.gap_us);
                    self.times.last_ns = now_ns();
                }
                self.talk.write(load, number)?;
                self.talk.commit()?;
            }
            receive(&mut self.talk)?;
            self.take(load, number)?;
            if !first {
                self.talk.write(load, number)?;
                self.talk.commit()?;
            }
            if keeps {
                self.times.lap();
            }
        }
        self.talk.commit()
    }

    fn plain(&mut self, task: Task, load: &mut impl Freight) -> io::Result<()> {
        let (first, keeps) = (self.first(), task.timed && self.first());
        for number in task.first..task.first + task.count {
            if first {
                self.talk.write(load, number)?;
                self.talk.commit()?;
            }
            self.talk.spin()?;
            self.take(load, number)?;
            if !first {
                self.talk.write(load, number)?;
                self.talk.commit_sent()?;
            }
            self.talk.commit()?;
            if keeps {
                self.times.lap();
            }
        }
        Ok(())
    }

    fn send_all(&mut self, task: Task, load: &mut impl Freight) -> io::Result<()> {
        for number in task.first..task.first + task.count {
            self.talk.write(load, number)?;
            if (number + 1 - task.first).is_multiple_of(task.every) || number + 1 == task.first + task.count {
                self.talk.commit()?;
            }
        }
        Ok(())
    }

    /// Takes everything of some inputs, in steps of up to `every` messages that are there: of a pair it spins, of more it waits as an agent
    /// does, for they share the CPUs.
    fn take_all(&mut self, task: Task, load: &impl Freight, inputs: usize) -> io::Result<()> {
        let mut next = vec![task.first; inputs];
        let mut left = task.count * inputs as u64;
        while left > 0 {
            if !self.talk.look() {
                if self.processes > 2 { self.talk.wait()? } else { self.talk.spin()? }
            }
            let input = self.talk.input();
            let before = next[input];
            self.take(load, next[input])?;
            next[input] += 1;
            while next[input] - before < task.every && self.talk.look_behind() {
                self.take(load, next[input])?;
                next[input] += 1;
            }
            left -= next[input] - before;
            self.talk.commit()?;
        }
        Ok(())
    }

    fn wake(&mut self, task: Task, load: &mut impl Freight) -> io::Result<()> {
        for number in task.first..task.first + task.count {
            if self.first() {
                std::thread::sleep(PAUSE);
                load.stamp(now_ns());
                self.talk.write(load, number)?;
                self.talk.commit()?;
                continue;
            }
            self.talk.wait()?;
            self.times.last_ns = self.take(load, number)?;
            self.times.lap();
            self.talk.commit()?;
        }
        Ok(())
    }

    fn floor_wake(&mut self, count: u64) -> io::Result<()> {
        let [woken, at] = [Word::Woken, Word::WokenAtNs].map(|w| self.floor.word(w));
        let mut number = woken.load(Ordering::Acquire);
        let last = number + count;
        self.floor.meet();
        while number < last {
            if self.first() {
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
}
