//! The supervisor's own log: what it has to say, with a level, to the operator's terminal and into a file that is rotated.
//!
//! ```text
//!   Swarm::notice, Swarm::remark ─► Log ─┬─► standard error         shoal: text      or one JSON object a line
//!                                        └─► <logs>/shoal.supervisor.log   time level text      or the same JSON
//! ```
//! In the background standard error is a file, which outlives the run: each text there begins with the time.
//!
//! What happens to agents is told as events besides ([`crate::events`]); those that nobody needs to be told of come here with
//! the level `debug`.

use crate::output::{LogFile, Utc, utc_of};
use serde::{Serialize, Serializer};
use shoal_runtime::again::insist;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

/// The name of the file in the log folder. No agent's: behind a dot an agent's name has a number.
pub const FILE: &str = "shoal.supervisor.log";

/// A log in a file of its own is put aside when it is longer than this, bytes.
pub const BYTES_MAX: u64 = 1 << 20;
/// The file that standard error is.
const OPEN_LOG: &str = "/proc/self/fd/2";

/// How much something matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
pub enum Level {
    /// The swarm, or a part of it, is no more.
    Error,
    /// Something is not as it should be, and is dealt with.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What somebody who looks for a fault wants to know.
    Debug,
}

impl Level {
    /// All levels, the most severe first.
    pub const ALL: [Level; 4] = [Level::Error, Level::Warn, Level::Info, Level::Debug];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Says a line on standard error. One that cannot be taken there (a full disk, a terminal that is gone) is lost, and nothing else.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    let _ = insist(|| io::Write::write_all(&mut io::stderr(), line.as_bytes()));
}

/// As [`say`], where standard error is a file that this process and its keeper write alone: one that is longer than [`BYTES_MAX`] is put
/// aside as `.1`, and begun anew.
pub fn say_bounded(line: &str) {
    say(line);
    let log = rustix::stdio::stderr();
    let is_long = rustix::fs::fstat(log).is_ok_and(|seen| {
        rustix::fs::FileType::from_raw_mode(seen.st_mode).is_file() && seen.st_size as u64 > BYTES_MAX
    });
    if !is_long {
        return;
    }
    // Copied, not renamed: the guard, who writes there, too, has it open for himself.
    let kept = std::fs::read_link(OPEN_LOG).and_then(|path| {
        let mut aside = path.into_os_string();
        aside.push(".1");
        std::fs::copy(OPEN_LOG, aside)
    });
    let begun = insist(|| rustix::fs::ftruncate(log, 0).map_err(io::Error::from));
    if let (Err(error), Ok(())) = (kept, begun) {
        let text = format!("what this log held could not be put aside as .1, and is lost: {error}");
        say(&for_people(&text, true));
    }
}

/// A text for people, as it is said on a terminal; where it is kept, with the time.
pub fn for_people(text: &str, kept: bool) -> String {
    match kept {
        true => format!("{} shoal: {text}", Utc(SystemTime::now())),
        false => format!("shoal: {text}"),
    }
}

/// Says a formatted line, see [`say`]: where `eprintln!` would panic.
macro_rules! report {
    ($($text:tt)*) => { $crate::log::say(&format!($($text)*)) };
}
pub(crate) use report;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 2] = [Format::Text, Format::Json];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }
}

/// What an environment variable like `SHOAL_LOG=debug,json` says: a level, a format, or both.
///
/// # Errors
/// A word that is neither, in words.
pub fn parse(text: &str) -> Result<(Option<Level>, Option<Format>), String> {
    let (mut level, mut format) = (None, None);
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let as_level = Level::ALL.into_iter().find(|level| level.word() == word);
        let as_format = Format::ALL.into_iter().find(|format| format.word() == word);
        if as_level.is_none() && as_format.is_none() {
            return Err(format!(
                "{word:?} is no level of the log and no format: use error, warn, info or debug, and text or json, for example \
                 debug,json"
            ));
        }
        level = as_level.or(level);
        format = as_format.or(format);
    }
    Ok((level, format))
}

/// One record as JSON.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(serialize_with = "in_words")]
    at: Utc,
    level: &'static str,
    swarm: &'a str,
    text: &'a str,
}

fn in_words<S: Serializer>(at: &Utc, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

impl Record<'_> {
    fn now<'a>(level: Level, swarm: &'a str, text: &'a str) -> Record<'a> {
        Record { at: Utc(SystemTime::now()), level: level.word(), swarm, text }
    }
}

/// What a log says in JSON, without an end.
pub fn record(level: Level, swarm: &str, text: &str) -> String {
    serde_json::to_string(&Record::now(level, swarm, text)).unwrap_or_default()
}

/// How the processes of a swarm say on standard error why they end, beside the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastWords<'a> {
    /// The swarm, where a program reads them: as records of its log.
    pub for_program: Option<&'a str>,
    /// Standard error is a log in a file, and who started the swarm may wait at the other end of standard output: he is told, too, as
    /// the file may be what is lacking.
    pub in_background: bool,
}

/// The longest line that is said without heap, bytes.
const BRIEF_BYTES_MAX: usize = 512;

impl LastWords<'_> {
    /// Says why.
    pub fn say(self, why: &str) {
        match self.for_program {
            Some(swarm) => say(&record(Level::Error, swarm, why)),
            None => {
                say(&for_people(why, self.in_background));
                if self.in_background {
                    tell_who_waits(for_people(why, false).as_bytes());
                    tell_who_waits(b"\n");
                }
            }
        }
    }

    /// The same in few words and without heap.
    pub fn say_briefly(self, why: &str) {
        let mut line = io::Cursor::new([0; BRIEF_BYTES_MAX]);
        // What is too long is cut.
        let _ = match self.for_program {
            Some(swarm) => serde_json::to_writer(&mut line, &Record::now(Level::Error, swarm, why))
                .map_err(io::Error::from),
            None if self.in_background => write!(line, "{} shoal: {why}", Utc(SystemTime::now())),
            None => write!(line, "shoal: {why}"),
        };
        let _ = line.write_all(b"\n");
        let said = line.position() as usize;
        let _ = insist(|| io::stderr().write_all(&line.get_ref()[..said]));
        if self.in_background {
            tell_who_waits(b"shoal: ");
            tell_who_waits(why.as_bytes());
            tell_who_waits(b"\n");
        }
    }
}

/// Says something to who waits until the swarm is up; when it is, standard output is the log, and nobody waits.
fn tell_who_waits(bytes: &[u8]) {
    let (out, log) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    let of = |fd| rustix::fs::fstat(fd).map(|seen| (seen.st_dev, seen.st_ino));
    if of(out) != of(log) {
        // Who waits no longer has closed his end.
        let _ = insist(|| rustix::io::write(out, bytes).map_err(io::Error::from));
    }
}

/// The log of one supervisor.
pub struct Log {
    swarm: String,
    level: Level,
    format: Format,
    terminal: Box<dyn FnMut(&str)>,
    file: Option<LogFile>,
}

impl Log {
    /// Writes to a terminal only: its lines without an end.
    pub fn to_terminal(terminal: Box<dyn FnMut(&str)>) -> Log {
        let (level, format) = (Level::default(), Format::default());
        Log { swarm: String::new(), level, format, terminal, file: None }
    }

    /// Writes into a log folder, too, what is at least as severe as a level.
    pub fn into_folder(self, logs: &Path, swarm: &str, level: Level, format: Format) -> Log {
        Log { swarm: swarm.to_owned(), level, format, file: Some(LogFile::at(logs.join(FILE))), ..self }
    }

    /// Whether something of this level is written at all.
    pub fn hears(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes something. What the disk refuses is counted, see [`Log::fault`].
    pub fn say(&mut self, level: Level, text: &str) {
        if !self.hears(level) {
            return;
        }
        let line = match self.format {
            Format::Json => {
                let line = record(level, &self.swarm, text);
                (self.terminal)(&line);
                line
            }
            Format::Text => {
                (self.terminal)(text);
                let at = utc_of(SystemTime::now());
                format!("{at} {:<5} {}", level.word(), crate::output::shown(text.as_bytes()))
            }
        };
        if let Some(file) = &mut self.file {
            file.append(format!("{line}\n").as_bytes());
            file.write_out();
        }
    }

    /// Why the file could not be written, once for each time that it begins to fail.
    pub fn fault(&mut self) -> Option<String> {
        self.file.as_mut().and_then(LogFile::take_fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn said(level: Level, format: Format) -> (Vec<String>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = Rc::new(RefCell::new(Vec::new()));
        let heard = lines.clone();
        let log = Log::to_terminal(Box::new(move |line| heard.borrow_mut().push(line.to_owned())));
        let mut log = log.into_folder(folder.path(), "s", level, format);
        for level in Level::ALL {
            log.say(level, &format!("a remark\nof {}", level.word()));
        }
        assert_eq!(log.fault(), None);
        let file = std::fs::read_to_string(folder.path().join(FILE)).expect("written");
        let lines = lines.borrow().clone();
        (lines, file)
    }

    #[test]
    fn a_level_hears_what_is_at_least_as_severe_on_the_terminal_and_in_the_file() {
        for (index, level) in Level::ALL.into_iter().enumerate() {
            let (lines, file) = said(level, Format::Text);
            assert_eq!((lines.len(), file.lines().count()), (index + 1, index + 1), "{level:?}");
            assert_eq!(lines[index], format!("a remark\nof {}", level.word()));
            let last = file.lines().last().expect("a line");
            assert!(last.get(24..).is_some_and(|rest| rest.trim_start().starts_with(level.word())), "{last}");
            assert!(
                last.ends_with(r"a remark\nof ".trim_end()) || last.contains(r"a remark\nof"),
                "one line each: {last}"
            );
        }
    }

    #[test]
    fn json_lines_are_objects_that_say_level_swarm_and_text() {
        let (lines, file) = said(Level::Warn, Format::Json);
        assert_eq!(file.lines().collect::<Vec<_>>(), lines);
        let last: serde_json::Value = serde_json::from_str(&lines[1]).expect("an object");
        assert_eq!(
            (&last["level"], &last["swarm"], &last["text"]),
            (&"warn".into(), &"s".into(), &"a remark\nof warn".into())
        );
    }

    #[test]
    fn the_environment_names_a_level_a_format_or_both_and_nothing_else() {
        assert_eq!(parse("debug"), Ok((Some(Level::Debug), None)));
        assert_eq!(parse(" json , error"), Ok((Some(Level::Error), Some(Format::Json))));
        assert_eq!(parse(""), Ok((None, None)));
        assert!(parse("loud").expect_err("no level").contains("\"loud\""));
    }
}
