//! The case `message`: what it takes to write one message into a lane and to read one in place, within one process. Writing stands beside
//! a plain write of as many bytes, reading beside a plain read of them.

use crate::cases::Bench;
use crate::floor::access_unvalidated;
use crate::load::{Bytes, Freight, LOAD_BYTES_MAX, Load, Loads, Small, Wide, fill, is_filled};
use crate::outcome::Outcome;
use crate::pairs::{PAIRS, in_turns, spread};
use crate::star::CAPACITY_BYTES;
use crate::talk::Talker;
use crate::with_load;
use crate::within::{Still, pair};
use rkyv::api::high::{HighSerializer, to_bytes};
use rkyv::rancor::BoxedError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use shoal_runtime::message::{self, Message};
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// Messages of a run: as many of the largest fit the lane.
const MESSAGES: u64 = 100;
/// Sizes of the messages.
const SIZES: [usize; 4] = [64, 40, 1024, LOAD_BYTES_MAX];

/// Writes and reads by size and way.
///
/// # Errors
/// What was written is not what is read.
pub fn message(bench: &mut Bench<'_>) -> io::Result<()> {
    for bytes in SIZES {
        let mut own = vec![0; bytes * MESSAGES as usize];
        let mut floor = move || {
            timed(|| {
                own.chunks_exact_mut(bytes).zip(0..).for_each(|(slot, number)| fill(black_box(slot), number))
            })
        };
        let ways = [("encode", Loads::of(bytes)), ("by hand", Loads::Bytes(Bytes { bytes }))];
        let texts = (bytes <= 64).then(|| ("encode text", Loads::Texts(Load::of(bytes))));
        for (mode, loads) in ways.into_iter().chain(texts) {
            let outcome = with_load!(loads, load => written(mode, bytes, load, &mut floor))?;
            (bench.each)(outcome);
        }
        match Loads::of(bytes) {
            Loads::Wides(record) => {
                validated::<Wide>(bench, "validated", &archive(&record)?, |wide| wide.number.to_native())?;
            }
            Loads::Smalls(record) => {
                validated::<Small>(bench, "validated", &archive(&record)?, |small| small.number.to_native())?;
            }
            _ => {}
        }
        let load = Load::of(bytes);
        let [checked, unchecked] = match bytes {
            ..=64 => ["validated text", "unvalidated text"],
            _ => ["validated", "unvalidated"],
        };
        let archive = archive(&load)?;
        validated::<Load>(bench, checked, &archive, |load| load.number.to_native())?;
        let mut unvalidated = || {
            let read = || black_box(access_unvalidated(black_box(&archive)).number.to_native());
            timed(|| {
                (0..MESSAGES).for_each(|_| {
                    read();
                });
            })
        };
        (bench.each)(beside(unchecked, bytes, &mut unvalidated, &mut as_many_read(bytes), READ)?);
    }
    Ok(())
}

fn archive(
    of: &impl for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, BoxedError>>,
) -> io::Result<AlignedVec> {
    to_bytes(of).map_err(io::Error::other)
}

/// The floor of reading.
const READ: &str = "as many bytes read";

/// As many bytes read, each time found to be those that were written.
fn as_many_read(bytes: usize) -> impl FnMut() -> io::Result<f64> {
    let mut raw = vec![0; bytes];
    fill(&mut raw, 1);
    move || {
        let mut right = true;
        let ns = timed(|| (0..MESSAGES).for_each(|_| right &= is_filled(black_box(&raw), 1)))?;
        if right { Ok(ns) } else { Err(io::Error::other("the bytes are not those that were written")) }
    }
}

/// An archive of a message, validated in place again and again.
fn validated<M: Message>(
    bench: &mut Bench<'_>,
    mode: &str,
    archive: &AlignedVec,
    number: fn(&M::Archived) -> u64,
) -> io::Result<()> {
    let mut validated = || {
        let read = || message::access::<M>(black_box(archive)).map(number);
        timed(|| (0..MESSAGES).for_each(|_| drop(black_box(read()))))
    };
    let bytes = archive.len();
    (bench.each)(beside(mode, bytes, &mut validated, &mut as_many_read(bytes), READ)?);
    Ok(())
}

/// How long one of [`MESSAGES`] takes, ns.
fn timed(act: impl FnOnce()) -> io::Result<f64> {
    let begin = Instant::now();
    act();
    Ok(begin.elapsed().as_nanos() as f64 / MESSAGES as f64)
}

/// Messages of a kind, written into a lane beside a floor.
fn written(mode: &str, bytes: usize, mut load: impl Freight, floor: Run<'_>) -> io::Result<Outcome> {
    let mut agents = pair()?;
    // Round the ring once: the first lap meets pages that nobody has touched.
    for _ in 0..=CAPACITY_BYTES / (MESSAGES * bytes as u64) {
        write(&mut agents, &mut load)?;
    }
    beside(mode, bytes, &mut || write(&mut agents, &mut load), floor, "as many bytes written")
}

/// Messages written into a lane, of one step; then, unmeasured, they are committed, and read by the other, who looks at each.
fn write([from, to]: &mut [Talker<Still>; 2], load: &mut impl Freight) -> io::Result<f64> {
    let begin = Instant::now();
    for number in 0..MESSAGES {
        from.write(load, number)?;
    }
    let ns = begin.elapsed().as_nanos() as f64 / MESSAGES as f64;
    from.commit()?;
    for number in 0..MESSAGES {
        if !to.look() {
            return Err(io::Error::other(format!("message {number} did not come")));
        }
        to.read(load, number)?;
        to.commit()?;
    }
    Ok(ns)
}

type Run<'a> = &'a mut dyn FnMut() -> io::Result<f64>;

/// Pairs of a way and its floor, in turns.
fn beside(mode: &str, bytes: usize, ours: Run<'_>, floor: Run<'_>, against: &str) -> io::Result<Outcome> {
    // Once unmeasured: what is met for the first time is no part of the figures.
    ours()?;
    floor()?;
    let (times, mut floors) = in_turns(1, |of| if of.is_none() { ours() } else { floor() })?;
    let floors = floors.remove(0);
    let ratios: Vec<f64> = times.iter().zip(&floors).map(|(ours, floor)| ours / floor.max(0.1)).collect();
    Ok(Outcome {
        case: "message".into(),
        mode: mode.into(),
        size_bytes: Some(bytes),
        count: MESSAGES * PAIRS as u64,
        p50_ns: Some(spread(times).median),
        floor: Some(spread(floors).median),
        ratio_p50: Some(spread(ratios.iter().copied()).median),
        against: against.into(),
        message: if mode == "by hand" { "bytes by hand" } else { "rkyv" }.into(),
        ratios,
        ..Outcome::default()
    })
}
