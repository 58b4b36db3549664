//! What agents print: captured line by line into files, shown on the supervisor's terminal, remembered for the
//! message about a crash.
//!
//! ```text
//!   pipe ─► Lines (cut, bounded) ─┬─► LogFile   <logs>/<agent>.log, .1, .2, .3   as printed
//!                                 ├─► Echo      name | line                      control characters escaped; or an object
//!                                 └─► the last 20 lines, in memory               the same
//! ```
//! A record is `<time> <stream> <line>`: UTC to the millisecond, then `out`, `err` or, for the supervisor's own
//! remarks, `sup`. `out+` is a piece of a line longer than 8 KiB that goes on in the next record of that stream.

mod echo;
mod lines;
mod log_file;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use echo::Echo;
pub use log_file::LogFile;

use lines::{Lines, Piece};

/// What one call reads at most, bytes.
pub const READ_BYTES_MAX: usize = 64 << 10;
/// The longest line that is kept whole, bytes.
pub const LINE_BYTES_MAX: usize = 8 << 10;
/// How many lines are remembered for the message about a crash.
pub const RECENT_LINES_MAX: usize = 20;
/// How much of each is remembered, bytes.
pub const RECENT_LINE_BYTES_MAX: usize = 1 << 10;
/// When a log file is rotated, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// How many log files of an agent there are, the one that is written counted.
pub const FILES_MAX: usize = 4;

/// Which of an agent's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Its standard output.
    Out,
    /// Its standard error.
    Err,
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// More may come; if the descriptor is still readable, call again.
    Open,
    /// End of file: close it.
    Closed,
}

/// The captured output of one agent, through all its generations.
pub struct Capture {
    agent: String,
    folder: Arc<Path>,
    /// Made with the first record.
    log: Option<Box<LogFile>>,
    echo: Echo,
    stdout: Lines,
    stderr: Lines,
    recent: VecDeque<String>,
    /// Whether the life before is not told of yet, and if so whether another has begun.
    held: Option<bool>,
}

impl Capture {
    /// Captures for an agent (or a replica: `worker.1`) into a folder that exists.
    pub fn new(agent: &str, folder: impl Into<Arc<Path>>, echo: Echo) -> Capture {
        Capture {
            agent: agent.to_owned(),
            folder: folder.into(),
            log: None,
            echo,
            stdout: Lines::default(),
            stderr: Lines::default(),
            recent: VecDeque::new(),
            held: None,
        }
    }

    /// Takes what a pipe holds: one read, so that neither a blocking descriptor nor an agent that never stops
    /// printing holds up the loop. For a level-triggered watch.
    ///
    /// # Errors
    /// The system's refusal to read; close the descriptor and call `flush`.
    pub fn on_readable(&mut self, fd: BorrowedFd<'_>, stream: Stream) -> io::Result<Drained> {
        let mut bytes = [0; READ_BYTES_MAX];
        let got = match rustix::io::read(fd, &mut bytes) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Drained::Open),
            Err(error) => return Err(error.into()),
        };
        if got == 0 {
            self.flush_stream(stream);
            return Ok(Drained::Closed);
        }
        let pieces = self.lines(stream).take(&bytes[..got]);
        self.keep(tag(stream), &pieces);
        Ok(Drained::Open)
    }

    /// Another life begins: the lines of the one before are remembered no longer.
    pub fn begin(&mut self) {
        match &mut self.held {
            Some(begun) => *begun = true,
            None => {
                self.flush();
                self.recent.clear();
            }
        }
    }

    /// Remembers the lines of a life that has ended also when another begins, until [`Capture::go_on`].
    pub fn hold(&mut self) {
        self.held = Some(false);
    }

    /// It was told of: the other life begins, if it did meanwhile.
    pub fn go_on(&mut self) {
        if self.held.take() == Some(true) {
            self.begin();
        }
    }

    /// Ends a line that was begun, on both streams: nothing more comes from this incarnation.
    pub fn flush(&mut self) {
        self.flush_stream(Stream::Out);
        self.flush_stream(Stream::Err);
    }

    /// Puts the supervisor's own remark among the agent's lines, as "generation 3 started, pid 4711".
    pub fn note(&mut self, text: &str) {
        self.keep("sup", &[Piece { bytes: text.as_bytes().to_vec(), goes_on: false }]);
    }

    /// The last lines, oldest first, control characters escaped; for the message about a crash.
    pub fn recent(&self) -> impl Iterator<Item = &str> {
        self.recent.iter().map(String::as_str)
    }

    /// How many records could not be written to the log file, and why the last one was not.
    pub fn log_faults(&self) -> (u64, Option<&io::Error>) {
        self.log.as_ref().map_or((0, None), |log| log.faults())
    }

    /// Why the log file cannot be written, once for each time that it begins to fail after it went well for a while.
    pub fn take_log_fault(&mut self) -> Option<String> {
        self.log.as_mut()?.take_fault()
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Out => &mut self.stdout,
            Stream::Err => &mut self.stderr,
        }
    }

    fn flush_stream(&mut self, stream: Stream) {
        let last = self.lines(stream).finish();
        self.keep(tag(stream), last.as_slice());
    }

    fn keep(&mut self, tag: &str, pieces: &[Piece]) {
        if pieces.is_empty() {
            return;
        }
        let time = utc_of(SystemTime::now());
        let log = self.log.get_or_insert_with(|| Box::new(LogFile::new(&self.folder, &self.agent)));
        for piece in pieces {
            let more = if piece.goes_on { "+" } else { "" };
            let mut record = format!("{time} {tag}{more} ").into_bytes();
            record.extend_from_slice(&piece.bytes);
            let text = shown(&piece.bytes);
            self.echo.line(&self.agent, &record, &text);
            record.push(b'\n');
            log.append(&record);
            remember(&mut self.recent, text);
        }
        log.write_out();
    }
}

fn remember(recent: &mut VecDeque<String>, mut text: String) {
    if text.len() > RECENT_LINE_BYTES_MAX {
        text.truncate(floor(&text, RECENT_LINE_BYTES_MAX));
        text.push('…');
    }
    if recent.len() == RECENT_LINES_MAX {
        recent.pop_front();
    }
    recent.push_back(text);
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.flush();
    }
}

fn tag(stream: Stream) -> &'static str {
    match stream {
        Stream::Out => "out",
        Stream::Err => "err",
    }
}

/// A line as a terminal may see it: what is no text is replaced, what could steer the terminal or turn the
/// direction of the text is escaped.
pub fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        let turns = matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        match c {
            '\t' => text.push('\t'),
            _ if c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}') => {
                text.extend(c.escape_default())
            }
            _ => text.push(c),
        }
    }
    text
}

/// A record of an agent's, without its end, as an object.
pub fn object(agent: &str, record: &[u8]) -> String {
    let record = String::from_utf8_lossy(record);
    let mut parts = record.splitn(3, ' ');
    let mut part = || parts.next().unwrap_or_default();
    let (time, stream, text) = (part(), part(), part());
    serde_json::json!({ "agent": agent, "time": time, "stream": stream, "text": text }).to_string()
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// `2026-11-22T18:07:39.123Z`; always 24 bytes until the year 9999, so that records sort as text.
pub fn utc_of(time: SystemTime) -> String {
    Utc(time).to_string()
}

/// What [`utc_of`] says, without memory of its own.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub struct Utc(pub SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
            since.subsec_millis()
        )
    }
}

#[cfg(test)]
mod tests;
