//! Numbers from a source to a sink that some of them kill: `letters source COUNT | sink [MAX] | loop [MAX] | raw KIND`.
//!
//! With MAX the sink begins when the source has sent all, and takes up to so many in a step.
//!
//! The file `poison` says how the sink takes which numbers: lines of `NUMBER HOW`, read anew for each message, so that a test
//! can repair it. What the sink handled is its state, a count and the sum, committed with the message; it notes
//! `NUMBER attempt N` in `tried` before it handles one and `NUMBER` in `handled` in the same life after the commit of the
//! step before it. What it sends on, exactly once, is noted by the `teller`.

use shoal_agent::{Agent, Next, Reject, Result, Step};
use shoal_runtime::attachment::{Attachment, Found, attach};
use shoal_runtime::board::Request;
use shoal_runtime::mark::Place;
use shoal_runtime::port::Control as _;
use shoal_runtime::segment;
use shoal_runtime::wire::{FromAgent, Park};
use shoal_tests::agents::{Number, note, number, path};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let arg = |at: usize| args.get(at).map_or("", String::as_str);
    // Until its second life, by hand: what the SDK never does.
    if arg(1) == "raw" && !path("raw-done").exists() {
        raw(arg(2));
    }
    if arg(1) == "source" && path("liar").exists() {
        liar(number(&args, 2).unwrap_or_default());
        return std::process::ExitCode::SUCCESS;
    }
    shoal_agent::run(|agent| match arg(1) {
        "source" => source(agent, number(&args, 2)?),
        "raw" => sink(agent, 1),
        "sink" => sink(agent, max(&args)?),
        "loop" => in_a_loop(agent, max(&args)?),
        "teller" => teller(agent),
        other => Err(format!("{other:?}?").into()),
    })
}

/// How many messages a step may take. If several, waits until all are there.
fn max(args: &[String]) -> Result<u32> {
    let Some(max) = args.get(2) else { return Ok(1) };
    while !path("sent").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(max.parse()?)
}

fn source(agent: &mut Agent, count: u64) -> Result<()> {
    let numbers = agent.publish::<Number>("numbers")?;
    for value in agent.sent(&numbers)..count {
        agent.send(&numbers, &Number { value })?;
    }
    note("sent", count)?;
    // It stays, so that its readers do.
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A source on the bare runtime that sends three bytes where the number 2 belongs.
fn liar(count: u64) {
    let mut a = attach().unwrap_or_else(|error| panic!("{error}"));
    let fingerprint = <Number as shoal_runtime::fingerprint::Typed>::FINGERPRINT.0;
    a.declare(0, true, fingerprint).expect("alive").expect("declared");
    a.ready().expect("ready");
    for value in a.outputs.producer(0).tail().sequence..count {
        let bytes = value.to_le_bytes();
        let bytes = if value == 2 { &bytes[..3] } else { &bytes[..] };
        send(&mut a, bytes);
        a.outputs.commit(None, &mut a.world).expect("alive");
    }
    while a.world.request() == Request::Run {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(a: &mut Attachment, bytes: &[u8]) {
    let sent = a.outputs.write_by_hand(0, bytes.len(), &mut a.world, None, |slot| {
        slot[..bytes.len()].copy_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(bytes.len())
    });
    sent.expect("alive").expect("sent").expect("filled");
}

/// How a number is to be taken.
fn how(value: u64) -> String {
    let poison = std::fs::read_to_string(path("poison")).unwrap_or_default();
    let line = poison.lines().find_map(|line| {
        let (number, how) = line.split_once(' ')?;
        (number.parse() == Ok(value)).then(|| how.to_owned())
    });
    line.unwrap_or_default()
}

#[allow(unsafe_code)]
fn take(value: u64, attempt: u32) -> Result<()> {
    note("tried", format_args!("{value} attempt {attempt}"))?;
    match how(value).as_str() {
        "" => Ok(()),
        "aborts" => std::process::abort(),
        "crashes" => {
            // SAFETY: it is not sound, and meant: nothing is mapped there, and the process dies of it.
            unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) };
            std::process::abort()
        }
        "exits" => {
            eprintln!("number {value} makes me exit");
            std::process::exit(7)
        }
        "panics" => panic!("number {value} makes me panic"),
        "fails" | "ends" => Err(format!("number {value} makes me fail").into()),
        "rejects" => Err(Reject::new(format!("nobody wants {value}")).into()),
        "holds" => loop {
            std::thread::sleep(Duration::from_millis(2));
            if how(value) != "holds" {
                return Ok(());
            }
        },
        other => Err(format!("{other:?}?").into()),
    }
}

fn sink(agent: &mut Agent, max: u32) -> Result<()> {
    let on = agent.publish::<Number>("handled")?;
    agent.batch(max);
    agent.on::<Number>("numbers", move |step: &mut Step<'_>, number| {
        let value = number.value.to_native();
        // Sent before it fails: nobody may see it.
        step.send(&on, &Number { value })?;
        take(value, step.attempt())
    })?;
    agent.serve()
}

fn in_a_loop(agent: &mut Agent, max: u32) -> Result<()> {
    let on = agent.publish::<Number>("handled")?;
    let numbers = agent.subscribe::<Number>("numbers")?;
    while let Next::Message(mut message) = agent.receive(&numbers, None)? {
        loop {
            let value = message.message().value.to_native();
            message.send(&on, &Number { value })?;
            match take(value, message.attempt()) {
                Ok(()) if message.advance(max) => continue,
                Ok(()) => message.commit()?,
                Err(error) if how(value) == "ends" => return Err(error),
                Err(error) => match error.downcast_ref::<Reject>() {
                    Some(reject) => message.reject(reject.reason())?,
                    None => drop(message),
                },
            }
            break;
        }
    }
    Ok(())
}

/// Notes what was handled, each before its acknowledgement: it is never killed.
fn teller(agent: &mut Agent) -> Result<()> {
    agent.on::<Number>("handled", |_, number| Ok(note("handled", number.value.to_native())?))?;
    agent.serve()
}

/// A reader on the bare runtime that does something with the first message that is 2.
fn raw(kind: &str) {
    let mut a = attach().unwrap_or_else(|error| panic!("{error}"));
    declare(&mut a);
    a.ready().expect("ready");
    let (index, frame, bytes) = loop {
        let all: Vec<usize> = (0..a.manifest.inputs.len()).collect();
        let inputs = &mut a.inputs;
        let found = a.world.wait(None, |world, thorough| inputs.look(&all, world, thorough)).expect("alive");
        let Some(Found::Message(index, frame)) = found else { std::process::exit(0) };
        let bytes = a.inputs.consumer(index).split().0.leased(&frame).to_vec();
        if bytes == 2u64.to_le_bytes() {
            break (index, frame, bytes);
        }
        send(&mut a, &bytes);
        let (_, cursor) = a.inputs.consumer(index).split();
        a.outputs.commit(Some((index, cursor, &frame)), &mut a.world).expect("alive");
    };
    let park = Park {
        input: index as u32,
        at: frame.at,
        len_bytes: bytes.len() as u64,
        attempts: 1,
        rejected: true,
        why: "by hand".to_owned(),
    };
    let frozen = segment::freeze("letter", &bytes).expect("frozen");
    std::fs::write(path("raw-done"), "").expect("noted");
    if kind == "hostile" {
        hostile(&mut a, &park, &frozen);
    }
    // Parked, and dead before the acknowledgement; as by kill -9, nothing of this process runs any more.
    assert_eq!(ask(&mut a, &park, &[frozen.as_fd()]), Ok(()));
    std::process::abort();
}

fn declare(a: &mut Attachment) {
    let fingerprint = <Number as shoal_runtime::fingerprint::Typed>::FINGERPRINT.0;
    for (channel, publishes) in [(0, false), (1, true)] {
        a.declare(channel, publishes, fingerprint).expect("alive").expect("declared");
    }
}

fn ask(a: &mut Attachment, park: &Park, along: &[BorrowedFd<'_>]) -> std::result::Result<(), String> {
    let (answer, links) =
        a.world.port.ask(&FromAgent::Park(park.clone()), along.first().copied()).expect("alive");
    a.world.links.add_all(links);
    answer
}

/// Everything that a dead letter must not be.
fn hostile(a: &mut Attachment, park: &Park, frozen: &OwnedFd) {
    let open = rustix::fs::memfd_create(
        "open",
        rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING,
    )
    .expect("a memory file");
    rustix::fs::ftruncate(&open, park.len_bytes).expect("sized");
    let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
    let null = std::fs::File::open("/dev/zero").expect("there is one");
    let with = |change: &dyn Fn(&mut Park)| {
        let mut park = park.clone();
        change(&mut park);
        park
    };
    let cases: [(&str, Park, Option<BorrowedFd<'_>>); 12] = [
        ("an input that it does not have", with(&|p| p.input = 1), Some(frozen.as_fd())),
        ("an input that nobody has", with(&|p| p.input = u32::MAX), Some(frozen.as_fd())),
        ("what it acknowledged", with(&|p| p.at.position -= 64), Some(frozen.as_fd())),
        ("position 0", with(&|p| p.at.position = 0), Some(frozen.as_fd())),
        ("what nobody sent yet", with(&|p| p.at.position = u64::MAX), Some(frozen.as_fd())),
        ("a length that is not the file's", with(&|p| p.len_bytes += 1), Some(frozen.as_fd())),
        ("a huge length", with(&|p| p.len_bytes = 1 << 40), Some(frozen.as_fd())),
        ("the hugest length", with(&|p| p.len_bytes = u64::MAX), Some(frozen.as_fd())),
        ("no bytes", park.clone(), None),
        ("bytes that can change", park.clone(), Some(open.as_fd())),
        ("a pipe", with(&|p| p.len_bytes = 0), Some(pipe.as_fd())),
        ("a device", with(&|p| p.len_bytes = 0), Some(null.as_fd())),
    ];
    for (what, park, along) in &cases {
        match ask(a, park, along.as_slice()) {
            Ok(()) => note("violations", format_args!("parked: {what}")).expect("noted"),
            Err(why) => note("refused", format_args!("{what}: {why}")).expect("noted"),
        }
    }
    // Failures of what it does not hold count nothing.
    for (input, position, attempt) in [(0, 64, 9), (9, 4096, 9), (u32::MAX, u64::MAX, u32::MAX)] {
        let at = Place { position, sequence: 0 };
        let said = FromAgent::Failed { input, at, attempt, why: "x".repeat(100_000) };
        a.world.port.say(&said).expect("alive");
    }
    note("refused", "end").expect("noted");
}
