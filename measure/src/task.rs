//! What processes of a star are told to do together, and what they answer: lines of numbers.

use std::time::Duration;

/// What all do together. The hub is the process that measures, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Op {
    /// Waits for the others.
    Meet,
    /// Moves to a CPU; the count is its number.
    Pin,
    /// Round trips with spoke 1, both spinning; each answers in a step, whose commit record acknowledges the message before.
    Steps,
    /// Round trips, both spinning; each message is sent and acknowledged by itself, without a record.
    Plain,
    /// Round trips in steps, both waiting as agents wait.
    Adaptive,
    /// Round trips in steps, both sleeping at once whenever there is nothing.
    Parked,
    /// Messages from the hub to every spoke as fast as they go, committed `every` so many.
    Stream,
    /// Messages from every spoke to the hub, likewise; the count is each spoke's.
    Gather,
    /// Messages to a sleeping spoke, which measures.
    Wake,
    /// Round trips of one raw cache line.
    FloorOneLine,
    /// Round trips of a cache line each, with raw bytes behind the word if the size says so, through `every` places in turn.
    FloorTwoLines,
    /// Round trips by eventfds whose owners sleep in `read`.
    FloorEventfd,
    /// Round trips by eventfds whose owners sleep in epoll, edge-triggered, and never read them.
    FloorEpoll,
    /// Round trips by futexes.
    FloorFutex,
    /// Slots of the size through a raw ring from the hub to every spoke, published `every` so many.
    FloorStream,
    /// Slots through a raw ring of each spoke to the hub.
    FloorGather,
    /// Rings of a doorbell whose owner, spoke 1, sleeps in epoll; it measures.
    FloorWake,
    /// Round trips through a ring of `shared_memory` and `raw_sync`.
    Baseline,
}

/// All of them, in the order of their numbers.
const OPS: [Op; 18] = [
    Op::Meet,
    Op::Pin,
    Op::Steps,
    Op::Plain,
    Op::Adaptive,
    Op::Parked,
    Op::Stream,
    Op::Gather,
    Op::Wake,
    Op::FloorOneLine,
    Op::FloorTwoLines,
    Op::FloorEventfd,
    Op::FloorEpoll,
    Op::FloorFutex,
    Op::FloorStream,
    Op::FloorGather,
    Op::FloorWake,
    Op::Baseline,
];

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What.
    pub op: Op,
    /// How many messages or round trips.
    pub count: u64,
    /// Bytes of each.
    pub bytes: usize,
    /// Messages in a batch.
    pub every: u64,
    /// The number of the first message.
    pub first: u64,
    /// Whether the time of each is kept.
    pub timed: bool,
    /// How long the hub pauses before each round trip, µs; no part of the time of any.
    pub gap_us: u64,
    /// Whether small messages too have a text and a list in them.
    pub text: bool,
}

impl Task {
    /// So many, of 48 bytes: one cache line of a lane.
    pub fn new(op: Op, count: u64) -> Task {
        Task { op, count, bytes: 48, every: 1, first: 0, timed: false, gap_us: 0, text: false }
    }

    /// The same with messages of another size.
    pub fn of_bytes(self, bytes: usize) -> Task {
        Task { bytes, ..self }
    }

    /// The same with a text and a list in each message.
    pub fn of_text(self) -> Task {
        Task { text: true, ..self }
    }

    /// The same in batches.
    pub fn in_batches_of(self, every: u64) -> Task {
        Task { every, ..self }
    }

    /// The same with the time of each kept.
    pub fn timed(self) -> Task {
        Task { timed: true, ..self }
    }

    /// The same with a pause before each round trip.
    pub fn with_gaps_of(self, gap_us: u64) -> Task {
        Task { gap_us, ..self }
    }

    pub(crate) fn line(self) -> String {
        let Task { op, count, bytes, every, first, timed, gap_us, text } = self;
        let (timed, text) = (u8::from(timed), u8::from(text));
        format!("{} {count} {bytes} {every} {first} {timed} {gap_us} {text}\n", op as usize)
    }

    pub(crate) fn parse(line: &str) -> Option<Task> {
        let [op, count, bytes, every, first, timed, gap_us, text] = numbers(line)?[..] else { return None };
        let op = *OPS.get(op as usize)?;
        let (bytes, every, timed, text) = (bytes as usize, every.max(1), timed == 1, text == 1);
        Some(Task { op, count, bytes, every, first, timed, gap_us, text })
    }
}

/// Single times: p50, p95, p99, p99.9, max, in ns.
pub type Row = [u64; 5];

/// When it began and ended, CLOCK_MONOTONIC ns, how many messages were taken and found right, what CPU time that took, and single
/// times; 0 where none were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its begin.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// Messages that were received, each looked at.
    pub received: u64,
    /// CPU time that it took, of all processes but the hub, ns.
    pub cpu_ns: u64,
    /// p50, p95, p99, p99.9, max, in ns.
    pub row: Row,
}

impl Reply {
    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.end_ns.saturating_sub(self.begin_ns))
    }

    /// As a line.
    pub fn line(&self) -> String {
        let Reply { begin_ns, end_ns, received, cpu_ns, row: [p50, p95, p99, p999, max] } = self;
        format!("{begin_ns} {end_ns} {received} {cpu_ns} {p50} {p95} {p99} {p999} {max}\n")
    }

    /// What a line says, if it says one.
    pub fn parse(line: &str) -> Option<Reply> {
        let numbers = numbers(line)?;
        let [begin_ns, end_ns, received, cpu_ns, row @ ..] = &numbers[..] else { return None };
        let (begin_ns, end_ns, received, cpu_ns) = (*begin_ns, *end_ns, *received, *cpu_ns);
        Some(Reply { begin_ns, end_ns, received, cpu_ns, row: row.try_into().ok()? })
    }
}

fn numbers(line: &str) -> Option<Vec<u64>> {
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_replies_come_as_they_were_said() {
        for (number, op) in OPS.into_iter().enumerate() {
            assert_eq!(op as usize, number, "{op:?} stands where its number says");
            let task =
                Task { op, count: 3, bytes: 64, every: 16, first: 9, timed: true, gap_us: 20, text: true };
            assert_eq!(Task::parse(&task.line()), Some(task));
        }
        let reply = Reply { begin_ns: 1, end_ns: 3, received: 2, cpu_ns: 7, row: [1, 2, 3, 4, 5] };
        assert_eq!(Reply::parse(&reply.line()), Some(reply));
        assert_eq!(Reply::parse("error: it broke"), None);
    }
}
