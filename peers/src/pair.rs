//! Both ends of a pair, as who measures has them: starts them, tells them what to do, hears what came of it, ends them.

use crate::broken::Fault;
use crate::end::{SEAT_ENV, Seat, descriptors};
use crate::registry::Peer;
use crate::wire::Mode;
use rustix::event::{PollFd, PollFlags, poll};
use shoal_measure::task::Reply;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an end may take for what takes milliseconds: then its pair has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where inherited descriptors begin.
const INHERITED: i32 = 100;

/// Where a pair is, and what it has at hand.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where it may put things.
    pub folder: &'a Path,
    /// The CPU of each end.
    pub cpus: [Option<usize>; 2],
    /// The address of the server that it needs.
    pub server: &'a str,
}

/// A pair.
pub struct Pair {
    ends: [End; 2],
    /// Whether it can give several messages to the system at once.
    pub batches: bool,
}

struct End {
    child: Child,
    told: BufReader<UnixStream>,
}

impl Pair {
    /// Starts both ends, and waits until they have met.
    ///
    /// # Errors
    /// One of them says why it cannot.
    pub fn start(
        peer: Peer,
        mode: Mode,
        bytes: usize,
        place: Place<'_>,
        fault: Option<Fault>,
    ) -> io::Result<Pair> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let pair = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [a, b] = descriptors(peer)?;
        let end = |first: bool, fds: Vec<OwnedFd>| {
            let seat = Seat {
                peer,
                mode,
                bytes,
                first,
                cpu: place.cpus[usize::from(!first)],
                fds: Vec::new(),
                folder: place.folder.to_owned(),
                server: place.server.to_owned(),
                pair,
                fault,
            };
            End::start(seat, fds)
        };
        let mut pair = Pair { ends: [end(true, a)?, end(false, b)?], batches: false };
        pair.meet()?;
        Ok(pair)
    }

    /// Passes the words that they have for each other, until both are here.
    fn meet(&mut self) -> io::Result<()> {
        let mut here = [false; 2];
        while here != [true; 2] {
            let waiting = here.map(|is| !is);
            for (at, line) in self.hear(waiting)?.into_iter().enumerate() {
                match line.as_deref().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
                    Some(("word", word)) => self.ends[1 - at].tell(word)?,
                    Some(("here", how)) => {
                        here[at] = true;
                        self.batches = how == "batches";
                    }
                    Some(_) => return Err(failed(line)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Round trips, timed by the first end.
    ///
    /// # Errors
    /// An end failed: it found something wrong, or took too long.
    pub fn round_trips(&mut self, count: u64) -> io::Result<Reply> {
        self.run(&format!("trips {count}"))
    }

    /// Messages from the first end to the second, `every` so many at once.
    ///
    /// # Errors
    /// As [`Pair::round_trips`].
    pub fn stream(&mut self, count: u64, every: u64) -> io::Result<Reply> {
        self.run(&format!("stream {count} {every}"))
    }

    /// From the first end's begin to the end of both; what both received; the first's single times.
    fn run(&mut self, task: &str) -> io::Result<Reply> {
        self.ends.iter_mut().try_for_each(|end| end.tell(task))?;
        let (mut replies, mut wrong) = ([None; 2], Vec::new());
        while replies.iter().any(Option::is_none) {
            let heard = self.hear(replies.map(|reply| reply.is_none()))?;
            for (at, line) in heard.into_iter().enumerate() {
                let Some(line) = line else { continue };
                replies[at] = Reply::parse(&line);
                wrong.extend(replies[at].is_none().then_some(line));
            }
            if !wrong.is_empty() {
                // An end that found something wrong has said so before the other could miss it.
                wrong.extend(replies.iter().enumerate().filter_map(|(at, _)| self.ends[at].said_too()));
                return Err(io::Error::other(wrong.join("; ")));
            }
        }
        let [first, second] = replies.map(Option::unwrap_or_default);
        Ok(Reply {
            begin_ns: first.begin_ns,
            end_ns: first.end_ns.max(second.end_ns),
            received: first.received + second.received,
            cpu_ns: 0,
            row: first.row,
        })
    }

    /// Hears a line of each that is waited for and has one; at least one.
    fn hear(&mut self, waiting: [bool; 2]) -> io::Result<[Option<String>; 2]> {
        let at: Vec<usize> = (0..2).filter(|&at| waiting[at]).collect();
        // What was read with the line before is here already.
        let mut ready: Vec<bool> = at.iter().map(|&at| !self.ends[at].told.buffer().is_empty()).collect();
        if !ready.contains(&true) {
            let sockets = at
                .iter()
                .map(|&at| PollFd::from_borrowed_fd(self.ends[at].told.get_ref().as_fd(), PollFlags::IN));
            let mut fds: Vec<PollFd<'_>> = sockets.collect();
            let wait = rustix::time::Timespec {
                tv_sec: PATIENCE.as_secs() as i64,
                tv_nsec: PATIENCE.subsec_nanos().into(),
            };
            if poll(&mut fds, Some(&wait))? == 0 {
                return Err(io::Error::other(format!(
                    "an end did not answer within {} s",
                    PATIENCE.as_secs()
                )));
            }
            ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        }
        let mut lines = [None, None];
        for (at, _) in at.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            lines[at] = Some(self.ends[at].hear()?);
        }
        Ok(lines)
    }
}

fn failed(said: Option<String>) -> io::Error {
    io::Error::other(said.unwrap_or_else(|| "it says nothing".to_owned()))
}

impl End {
    fn start(mut seat: Seat, fds: Vec<OwnedFd>) -> io::Result<End> {
        // Only this child inherits them: copies without close-on-exec live for this moment.
        let mut inherited = Vec::new();
        for fd in &fds {
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, INHERITED)?;
            rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty())?;
            seat.fds.push(copy.as_raw_fd());
            inherited.push(copy);
        }
        let (told, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let child = Command::new(std::env::current_exe()?)
            .env(SEAT_ENV, serde_json::to_string(&seat)?)
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs))
            .spawn()?;
        Ok(End { child, told: BufReader::new(told) })
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        self.told.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        match line.trim_end() {
            "" => Err(io::Error::other("an end ended")),
            line => Ok(line.to_owned()),
        }
    }
}

impl End {
    /// A line that is here already, of one that was not waited for any more.
    fn said_too(&mut self) -> Option<String> {
        let here = {
            let none = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut fds = [PollFd::new(self.told.get_ref(), PollFlags::IN)];
            poll(&mut fds, Some(&none)).is_ok_and(|ready| ready > 0)
        };
        here.then(|| self.hear().ok()).flatten()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in &mut self.ends {
            let _ = end.told.get_ref().shutdown(std::net::Shutdown::Both);
        }
        let until = Instant::now() + Duration::from_secs(2);
        for end in &mut self.ends {
            // One that is asked nothing any more ends by itself and leaves nothing behind; one that hangs is ended.
            while Instant::now() < until && matches!(end.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = end.child.kill();
            let _ = end.child.wait();
        }
    }
}
