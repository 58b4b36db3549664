//! `shoal down`: ends a swarm in order, waits for its end, and says what was left.

use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::{Client, Target};
use super::{Failure, duration, json, print};
use crate::control::{DownReport, Request, Response};
use crate::counted::{counted, one_or};

/// How long the process may take to leave once it said that the swarm is over.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// What `shoal down` is asked for.
#[derive(Debug, Args)]
pub(super) struct DownOptions {
    /// The swarm; not needed while only one is running
    pub(super) name: Option<String>,
    /// Kill what has not ended after this time, such as `30s` or `2m`
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Ends a swarm and waits until its supervisor is gone.
pub(super) fn down(swarm: Option<&str>, options: &DownOptions) -> Result<(), Failure> {
    let target = Target::find(options.name.as_deref().or(swarm))?;
    let gone = Gone::of(&target);
    let mut client = target.connect()?;
    if options.timeout.is_none() {
        client.be_heard()?;
    }
    let report = match client.ask_within(&Request::Down, options.timeout)? {
        Some(answer) => ended(&client, answer)?,
        None => {
            // Asked once more, a supervisor kills; the first question is answered then.
            target.connect()?.ask(&Request::Shutdown, Some(LEAVE_MAX))?;
            match client.await_answer(Some(LEAVE_MAX))? {
                Some(answer) => ended(&client, answer)?,
                None => return Err(Failure::failed(format!("the swarm `{}` does not end", target.name()))),
            }
        }
    };
    gone.wait(LEAVE_MAX).map_err(|why| {
        Failure::failed(format!("the swarm `{}` is over, but its supervisor {why}", report.swarm))
    })?;
    print(if options.json { json(&report)? } else { told(&report) }.as_bytes())?;
    match report.killed {
        false => Ok(()),
        true => {
            Err(Failure::printed(format!("the swarm `{}` did not end in time and was killed", report.swarm)))
        }
    }
}

fn ended(client: &Client, answer: Response) -> Result<DownReport, Failure> {
    match answer {
        Response::Down(report) => Ok(report),
        other => Err(client.unexpected(&other)),
    }
}

fn told(report: &DownReport) -> String {
    let mut text = format!("swarm `{}` is down\n", report.swarm);
    for agent in &report.failed {
        text += &format!("  {agent} had been given up\n");
    }
    for left in &report.unread {
        text += &format!(
            "  {} of channel {} {} not read by {}\n",
            counted(left.count, "message"),
            left.channel,
            one_or(left.count, "was", "were"),
            left.agent
        );
    }
    text
}

/// The end of the process that holds a swarm's name.
struct Gone {
    pidfd: Option<rustix::fd::OwnedFd>,
}

impl Gone {
    /// To be made before the swarm is asked to end: a number that is free may be used again.
    fn of(target: &Target) -> Gone {
        let pid = target.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Gone { pidfd: pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) }
    }

    fn wait(&self, max: Duration) -> Result<(), String> {
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        let end = Instant::now() + max;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
                Ok(1..) => return Ok(()),
                Ok(_) => return Err(format!("has not left within {max:?}")),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("cannot be waited for: {error}")),
            }
        }
    }
}
