//! Agents that do what they should not, and plain ones beside them: `misbehaving KIND`.

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use shoal_agent::{Agent, Next, Result};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

/// The definition that most have.
mod one {
    #[shoal_agent::message]
    pub struct Task {
        pub path: String,
    }
}

/// Another definition of the same name.
mod other {
    #[shoal_agent::message]
    pub struct Task {
        pub path: String,
        pub size: u64,
    }
}

/// A message of another name.
#[shoal_agent::message]
struct Count {
    words: u64,
}

fn main() -> std::process::ExitCode {
    let kind = std::env::args().nth(1).unwrap_or_default();
    match kind.as_str() {
        "exits" => {
            eprintln!("I have no configuration");
            return std::process::ExitCode::from(3);
        }
        // Never attaches.
        "absent" => sleep_for_ever(),
        _ => {}
    }
    shoal_agent::run(|agent| body(agent, &kind))
}

fn body(agent: &mut Agent, kind: &str) -> Result<()> {
    match kind {
        "never-ready" => sleep_for_ever(),
        "panics" => panic!("out of tasks"),
        "idle" => idle(agent),
        "deaf" => {
            agent.ready()?;
            sleep_for_ever()
        }
        "busy" => {
            agent.ready()?;
            loop {
                std::hint::spin_loop();
            }
        }
        "talks" => talk(agent),
        "hoards" => hoard(agent),
        "publishes" => {
            agent.publish::<one::Task>("tasks")?;
            idle(agent)
        }
        "publishes-nothing" => {
            let _ = agent.publish::<one::Task>("tasks")?;
            agent.ready()
        }
        "publishes-other" => {
            agent.publish::<other::Task>("tasks")?;
            idle(agent)
        }
        "publishes-unknown" => agent.publish::<one::Task>("taks").map(|_| ()),
        "publishes-far" => agent.publish::<one::Task>("elsewhere").map(|_| ()),
        "publishes-count" => agent.publish::<Count>("tasks").map(|_| ()),
        "subscribes" => {
            let tasks = agent.subscribe::<one::Task>("tasks")?;
            while let Next::Message(task) = agent.receive(&tasks, None)? {
                task.commit()?;
            }
            Ok(())
        }
        "reads-relayed" => {
            let relayed = agent.subscribe::<shoal_tests::agents::Number>("relayed")?;
            while let Next::Message(number) = agent.receive(&relayed, None)? {
                number.commit()?;
            }
            Ok(())
        }
        "serves-without-handler" => {
            let _ = agent.subscribe::<one::Task>("tasks")?;
            agent.serve()
        }
        "subscribes-nothing" => agent.ready(),
        "sends-large" => {
            let tasks = agent.publish::<one::Task>("tasks")?;
            agent.send(&tasks, &one::Task { path: "x".repeat(100_000) })
        }
        _ => Err(format!("{kind:?}?").into()),
    }
}

/// Ready, and nothing else until it is asked to end.
fn idle(agent: &mut Agent) -> Result<()> {
    agent.ready()?;
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A line on both streams whenever the file `say` holds a new one.
fn talk(agent: &mut Agent) -> Result<()> {
    let name = agent.name().to_owned();
    println!("{name} begins");
    agent.ready()?;
    let mut said = String::new();
    let leave = shoal_tests::agents::path("leave");
    while !agent.stopping() && !leave.exists() {
        let say = std::fs::read_to_string(shoal_tests::agents::path("say")).unwrap_or_default();
        if say.ends_with('\n') && say != said {
            print!("{name} says {say}");
            eprint!("{name} warns {say}");
            said = say;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{name} ends");
    Ok(())
}

/// Has descriptors under way in sockets that nobody reads, as many as the kernel lets its user have: from when the file `hoard` is there, until it
/// is there no more.
fn hoard(agent: &mut Agent) -> Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    let many = vec![null.as_fd(); 253];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut kept = Vec::new();
    agent.ready()?;
    let wanted = || shoal_tests::agents::path("hoard").exists();
    while !agent.stopping() && !wanted() {
        std::thread::sleep(Duration::from_millis(2));
    }
    while !agent.stopping() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None)?;
        let refused = loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&many));
            if let Err(error) = sendmsg(&ours, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()) {
                break error;
            }
        };
        kept.push((ours, theirs));
        if refused == rustix::io::Errno::TOOMANYREFS {
            shoal_tests::agents::note("hoarded", kept.len())?;
            break;
        }
    }
    while !agent.stopping() && wanted() {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(kept);
    idle(agent)
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}
