//! Agents' lines on the supervisor's own output. A terminal that does not keep up loses lines; nobody waits for it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::object;
use crate::log::{self, Level};

/// What is written in one go where writing could block: what a pipe or terminal that polls as writable takes.
const WRITE_BYTES_MAX: usize = 4096;

/// Where agents' lines are shown, if anywhere; clones share it.
#[derive(Clone, Default)]
pub struct Echo {
    sink: Option<Rc<RefCell<Sink>>>,
}

struct Sink {
    out: File,
    /// A write may wait, so ask before each.
    may_block: bool,
    /// The rest of a line of which a part was written.
    begun: Vec<u8>,
    /// Lines lost since the last one that was shown.
    lost: u64,
    lost_count: u64,
    closed: bool,
    /// Where lines are shown as objects, the swarm whose they are.
    swarm: Option<String>,
    /// There: what is left to be shown when the swarm is over, for the process that shows its end.
    rest: Option<File>,
}

impl Echo {
    /// Shows nothing.
    pub fn off() -> Echo {
        Echo::default()
    }

    /// Shows lines on the supervisor's standard output.
    ///
    /// # Errors
    /// As `to`.
    pub fn to_stdout() -> io::Result<Echo> {
        Echo::to(io::stdout().as_fd())
    }

    /// Shows lines on the supervisor's standard error.
    ///
    /// # Errors
    /// As `to`.
    pub fn to_stderr() -> io::Result<Echo> {
        Echo::to(io::stderr().as_fd())
    }

    /// Shows lines on a descriptor. A pipe or terminal is opened once more, so that it can be made non-blocking
    /// without doing so to the shell that shares it.
    ///
    /// # Errors
    /// The system's refusal to duplicate the descriptor.
    pub fn to(fd: BorrowedFd<'_>) -> io::Result<Echo> {
        let own = File::from(rustix::io::fcntl_dupfd_cloexec(fd, 3)?);
        let kind = own.metadata()?.file_type();
        let (out, may_block) = if kind.is_file() {
            (own, false)
        } else if let (true, Ok(again)) = (kind.is_fifo() || kind.is_char_device(), reopen(&own)) {
            (again, false)
        } else {
            (own, true)
        };
        let sink = Sink {
            out,
            may_block,
            begun: Vec::new(),
            lost: 0,
            lost_count: 0,
            closed: false,
            swarm: None,
            rest: None,
        };
        Ok(Echo { sink: Some(Rc::new(RefCell::new(sink))) })
    }

    /// Shows lines of this swarm as objects, as `shoal logs --json` prints them; and those that were lost as a record of the log.
    pub fn in_objects(self, swarm: &str) -> Echo {
        if let Some(sink) = &self.sink {
            let mut sink = sink.borrow_mut();
            sink.swarm = Some(swarm.to_owned());
            sink.rest = rustix::fs::memfd_create("shoal-rest", MemfdFlags::CLOEXEC).ok().map(File::from);
        }
        self
    }

    /// The last line is shown: where lines are objects, what is left of one of which a part was written, and how many were lost since, are left
    /// to who shows the end ([`Echo::take_rest`]), who waits for the reader anyway.
    pub fn leave_rest(&self) {
        let Some(sink) = &self.sink else { return };
        let mut sink = sink.borrow_mut();
        sink.push();
        if sink.closed {
            return;
        }
        if sink.lost > 0 {
            let remark = sink.remark();
            sink.begin(&remark);
        }
        // Without memory for it the line stays cut.
        let _ = sink.rest.as_ref().map(|mut rest| rest.write_all(&sink.begun));
    }

    /// What was left in another process.
    pub fn take_rest(&self) -> Vec<u8> {
        let mut left = Vec::new();
        if let Some(mut rest) = self.sink.as_ref().and_then(|sink| sink.borrow_mut().rest.take()) {
            // What cannot be read is not shown.
            let _ = rest.rewind().and_then(|()| rest.read_to_end(&mut left));
        }
        left
    }

    /// Shows a line, or counts it as lost: its record, and its text without control characters.
    pub fn line(&self, agent: &str, record: &[u8], text: &str) {
        if let Some(sink) = &self.sink {
            let mut sink = sink.borrow_mut();
            let line = match sink.swarm {
                Some(_) => object(agent, record),
                None => format!("{agent} | {text}"),
            };
            sink.line(&line);
        }
    }

    /// How many lines were not shown because nobody read them in time.
    pub fn lost_count(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.borrow().lost_count)
    }
}

impl Sink {
    fn line(&mut self, line: &str) {
        self.push();
        if self.closed || !self.begun.is_empty() {
            self.lose();
            return;
        }
        // Remark and line are one unit: where only the remark fits, it would be told line by line.
        if self.lost > 0 {
            let remark = self.remark();
            self.begin(&remark);
        }
        self.begin(line);
        let whole = self.begun.len();
        self.push();
        if self.begun.len() == whole {
            self.begun.clear();
            self.lose();
        } else {
            self.lost = 0;
        }
    }

    /// What was lost, in words.
    fn remark(&self) -> String {
        let remark = format!("{} lines not shown here: the reader was too slow", self.lost);
        match &self.swarm {
            Some(swarm) => log::record(Level::Warn, swarm, &remark),
            None => format!("shoal | {remark}"),
        }
    }

    fn begin(&mut self, line: &str) {
        self.begun.extend_from_slice(line.as_bytes());
        self.begun.push(b'\n');
    }

    fn lose(&mut self) {
        self.lost += 1;
        self.lost_count += 1;
    }

    /// Writes what goes without waiting.
    fn push(&mut self) {
        while !self.begun.is_empty() && !self.closed {
            if self.may_block && !is_writable(&self.out) {
                return;
            }
            let part = if self.may_block { self.begun.len().min(WRITE_BYTES_MAX) } else { self.begun.len() };
            match self.out.write(&self.begun[..part]) {
                Ok(wrote) => drop(self.begun.drain(..wrote)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true, // nobody reads any more
            }
        }
    }
}

fn reopen(own: &File) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", own.as_raw_fd()), flags, Mode::empty())?.into())
}

fn is_writable(out: &File) -> bool {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(out, PollFlags::OUT)];
    poll(&mut fds, Some(&zero)).is_ok_and(|ready| ready > 0)
}
