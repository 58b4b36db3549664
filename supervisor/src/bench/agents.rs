//! The agents of `shoal bench`: processes of this same binary (`shoal agent bench NAME`), written with nothing but the SDK.

use super::{AHEAD, IN_A_ROW, PIECES, take_small_pages};
use crate::log::report;
use shoal_agent::{Agent, Next, Result};
use shoal_runtime::clock::now_ns;
use shoal_runtime::wire;
use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How often the source sends, if it is not told.
const SEND_EVERY: Duration = Duration::from_micros(200);

/// What the sink takes at once where it is in pieces: an allocator that asks for large pages does not for such.
const PIECE_BYTES: usize = 64 << 10;

/// How often a ping is sent, but for those in a row; and every how manieth of those is noted.
const PING_EVERY: Duration = Duration::from_millis(1);
const IN_A_ROW_NOTED: u64 = 16;

/// What is sent.
#[shoal_agent::message]
pub struct Beat {
    /// Its number, from 0.
    pub number: u64,
}

/// What the sink has received: its state.
#[shoal_agent::message]
pub struct Heard {
    /// All numbers below, each once and in order.
    pub count: u64,
}

/// Runs one of them.
pub fn main(args: &[OsString]) -> ExitCode {
    match args.iter().map(|arg| arg.to_str()).collect::<Vec<_>>()[..] {
        [Some("source")] => shoal_agent::run(|agent| source(agent, SEND_EVERY)),
        [Some("source"), Some(us)] => match us.parse() {
            Ok(us) => shoal_agent::run(|agent| source(agent, Duration::from_micros(us))),
            Err(_) => usage(),
        },
        [Some("sink")] => shoal_agent::run(|agent| sink(agent, 0, "")),
        [Some("sink"), Some(bytes), Some(pages)] => match bytes.parse() {
            Ok(bytes) if pages == AHEAD => {
                let _loaded = pieces(bytes);
                shoal_agent::run(|agent| sink(agent, 0, ""))
            }
            Ok(bytes) => shoal_agent::run(|agent| sink(agent, bytes, pages)),
            Err(_) => usage(),
        },
        [Some("ping"), Some(pace), Some(file)] => shoal_agent::run(|agent| ping(agent, pace, file)),
        [Some("pong")] => shoal_agent::run(pong),
        [Some("rogue")] => shoal_agent::run(rogue),
        [Some("hung")] => shoal_agent::run(hung),
        [Some("idle"), Some(lanes), Some(own), Some(other)] => match lanes.parse() {
            Ok(lanes) => shoal_agent::run(|agent| idle(agent, lanes, own, other)),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    report!("usage: shoal agent bench source|sink|ping|pong|rogue|hung|idle (started by `shoal bench`)");
    ExitCode::from(2)
}

fn source(agent: &mut Agent, pause: Duration) -> Result<()> {
    let beats = agent.publish::<Beat>("beats")?;
    let state = agent.state::<Heard>()?;
    let mut number = agent.load(&state)?.map_or(0, |sent| sent.count);
    while !agent.stopping() {
        agent.step(|step| {
            step.send(&beats, &Beat { number })?;
            step.keep(&state, &Heard { count: number + 1 })
        })?;
        number += 1;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Counts what comes; what comes twice, or not in order, ends it for good. With its first message it takes so many bytes of memory,
/// in such pages.
fn sink(agent: &mut Agent, bytes: usize, pages: &str) -> Result<()> {
    let state = agent.state::<Heard>()?;
    take_small_pages(pages);
    let in_pieces = pages == PIECES;
    let mut taken = Vec::new();
    agent.on::<Beat>("beats", move |step, beat| {
        if taken.is_empty() && bytes > 0 {
            taken = std::hint::black_box(if in_pieces { pieces(bytes) } else { vec![vec![1u8; bytes]] });
        }
        let count = step.load(&state)?.map_or(0, |heard| heard.count);
        assert_eq!(beat.number.to_native(), count, "each beat comes once, in order");
        step.keep(&state, &Heard { count: count + 1 })
    })?;
    agent.serve()
}

/// So many bytes, in pieces.
fn pieces(bytes: usize) -> Vec<Vec<u8>> {
    vec![vec![1u8; PIECE_BYTES]; bytes / PIECE_BYTES]
}

/// Takes its first beat, and breaks a rule over it: it says what no agent says. It is not there to see what comes of it.
fn rogue(agent: &mut Agent) -> Result<()> {
    agent.on::<Beat>("beats", |_, _| {
        let socket = wire::CONTROL_FD;
        nix::sys::socket::send(socket, &[0xa5; 7], nix::sys::socket::MsgFlags::MSG_NOSIGNAL)?;
        loop {
            std::thread::park();
        }
    })?;
    agent.serve()
}

/// Takes its first beat, and holds it for ever.
fn hung(agent: &mut Agent) -> Result<()> {
    agent.on::<Beat>("beats", |_, _| {
        loop {
            std::thread::park();
        }
    })?;
    agent.serve()
}

/// Sends a beat each millisecond, or as soon as the last one has come back. In the end it writes, a line each, when it sent one, CLOCK_MONOTONIC
/// ns, and how long that took.
fn ping(agent: &mut Agent, pace: &str, file: &str) -> Result<()> {
    let in_a_row = pace == IN_A_ROW;
    let (out, back) = (agent.publish::<Beat>("pings")?, agent.subscribe::<Beat>("pongs")?);
    let mut took = String::new();
    for number in 0.. {
        if !in_a_row {
            std::thread::sleep(PING_EVERY);
        }
        if agent.stopping() {
            break;
        }
        let sent_ns = now_ns();
        agent.send(&out, &Beat { number })?;
        let Next::Message(beat) = agent.receive(&back, None)? else { break };
        if !in_a_row || number.is_multiple_of(IN_A_ROW_NOTED) {
            writeln!(took, "{sent_ns} {}", now_ns() - sent_ns)?;
        }
        assert_eq!(beat.message().number.to_native(), number, "what was sent comes back");
        beat.commit()?;
    }
    std::fs::write(file, took)?;
    Ok(())
}

fn pong(agent: &mut Agent) -> Result<()> {
    let back = agent.publish::<Beat>("pongs")?;
    agent
        .on::<Beat>("pings", move |step, beat| step.send(&back, &Beat { number: beat.number.to_native() }))?;
    agent.serve()
}

/// Has lanes, and sleeps until it is asked to end.
fn idle(agent: &mut Agent, lanes: usize, own: &str, other: &str) -> Result<()> {
    for lane in 0..lanes {
        agent.publish::<Beat>(&format!("{own}x{lane}"))?;
        agent.on::<Beat>(&format!("{other}x{lane}"), |_, _| Ok(()))?;
    }
    agent.serve()
}
