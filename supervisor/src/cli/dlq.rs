//! `shoal dlq`: what agents gave up. The letters are files, read and removed directly, whether their swarm runs or not; only
//! replaying them needs it.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use super::client::{Client, looked_in};
use super::{Failure, own_place, print};
use crate::control::{Request, Response, nearest};
use crate::dead_letters::{self, Letter};
use crate::run_dir::{self, Place, list_dead_letters_in, list_running_in};

/// Bytes of a message that `show` prints for people; all are in its JSON.
const SHOWN_BYTES_MAX: usize = 4096;

/// What `shoal dlq` is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List the dead letters, oldest first
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one: its facts, what became of each attempt, its bytes
    Show {
        /// Its number in the list
        id: u64,
        /// Print one JSON object, with the bytes in hexadecimal
        #[arg(long)]
        json: bool,
    },
    /// Send some, or all, once more to the agents that gave them up; the swarm must run
    Replay(Which),
    /// Remove some, or all
    Purge(Which),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The numbers in the list
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The dead letters of one swarm.
struct LetterBox {
    place: Place,
    swarm: String,
    folder: PathBuf,
}

/// Does what `shoal dlq` is asked for.
pub(super) fn dlq(swarm: Option<&str>, command: &DlqCommand) -> Result<(), Failure> {
    let letters = LetterBox::of(own_place()?, swarm)?;
    match command {
        DlqCommand::List { json } => letters.list(*json),
        DlqCommand::Show { id, json } => letters.show(*id, *json),
        DlqCommand::Replay(which) => letters.replay(which),
        DlqCommand::Purge(which) => letters.purge(which),
    }
}

/// What `list --json` prints.
#[derive(Serialize)]
struct Listed<'a> {
    swarm: &'a str,
    letters: &'a [Letter],
}

/// What `show --json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    payload: String,
}

/// What `replay --json` prints.
#[derive(Serialize)]
struct Replayed<'a> {
    swarm: &'a str,
    replayed: &'a [u64],
}

/// What `purge --json` prints.
#[derive(Serialize)]
struct Purged<'a> {
    swarm: &'a str,
    purged: &'a [u64],
}

impl LetterBox {
    /// Of the swarm of this name; else of the only one that runs; else of the only one that left some.
    fn of(place: Place, wanted: Option<&str>) -> Result<LetterBox, Failure> {
        let failed = |error: crate::run_dir::ClaimError| Failure::failed(error.to_string());
        let running: Vec<String> =
            list_running_in(&place).map_err(failed)?.into_iter().map(|r| r.name).collect();
        let left: Vec<String> =
            list_dead_letters_in(&place).map_err(failed)?.into_iter().map(|(name, _)| name).collect();
        let mut known: Vec<&str> = running.iter().chain(&left).map(String::as_str).collect();
        known.sort_unstable();
        known.dedup();
        let chosen = match (wanted, running.as_slice(), left.as_slice()) {
            (Some(wanted), ..) => known.iter().find(|name| **name == wanted).copied(),
            (None, [only], _) | (None, [], [only]) => Some(only.as_str()),
            (None, ..) => None,
        };
        let list = known.join(", ");
        match (chosen, wanted) {
            (Some(swarm), _) => {
                let folder = place.path().join(swarm).join(dead_letters::FOLDER);
                Ok(LetterBox { swarm: swarm.to_owned(), folder, place })
            }
            (None, _) if known.is_empty() => {
                let looked = looked_in(&place);
                Err(Failure::failed(format!(
                    "no swarm is running, and none has left dead letters ({looked})"
                )))
            }
            (None, Some(wanted)) => {
                let hint =
                    nearest(wanted, &known).map_or(String::new(), |near| format!("did you mean `{near}`? "));
                Err(Failure::bad_input(format!(
                    "no swarm `{wanted}` is running or has left dead letters; {hint}there are: {list}"
                )))
            }
            (None, None) => Err(Failure::bad_input(format!(
                "several swarms are meant, name one with `--swarm NAME`: {list}"
            ))),
        }
    }

    fn letters(&self) -> Result<Vec<Letter>, Failure> {
        dead_letters::list(&self.folder).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("dead letters of `{}` in {}: {error}", self.swarm, self.folder.display()))
    }

    fn unknown(&self, id: u64) -> Failure {
        let ids: Vec<String> =
            self.letters().unwrap_or_default().iter().map(|letter| letter.id.to_string()).collect();
        let there =
            if ids.is_empty() { "it has none".to_owned() } else { format!("it has {}", ids.join(", ")) };
        Failure::bad_input(format!("the swarm `{}` has no dead letter {id}; {there}", self.swarm))
    }

    fn list(&self, json: bool) -> Result<(), Failure> {
        let letters = self.letters()?;
        if json {
            return print_json(&Listed { swarm: &self.swarm, letters: &letters });
        }
        let text = match letters.as_slice() {
            [] => format!("the swarm `{}` has no dead letters\n", self.swarm),
            letters => table(letters),
        };
        print(text.as_bytes()).map(|_| ())
    }

    fn show(&self, id: u64, json: bool) -> Result<(), Failure> {
        let read = dead_letters::read(&self.folder, id).map_err(|error| self.failed(&error))?;
        let (letter, bytes) = read.ok_or_else(|| self.unknown(id))?;
        if json {
            let payload = bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            return print_json(&Shown { letter: &letter, payload });
        }
        print(page(&letter, &bytes).as_bytes()).map(|_| ())
    }

    /// The numbers that are meant, each checked to be there.
    fn meant(&self, which: &Which) -> Result<Vec<u64>, Failure> {
        let there: Vec<u64> = self.letters()?.iter().map(|letter| letter.id).collect();
        if which.all {
            return Ok(there);
        }
        match which.ids.iter().find(|id| !there.contains(id)) {
            Some(&unknown) => Err(self.unknown(unknown)),
            None => Ok(which.ids.clone()),
        }
    }

    /// Answers when the letters lie in the lanes of those that gave them up, as long as it takes.
    fn replay(&self, which: &Which) -> Result<(), Failure> {
        let ids = self.meant(which)?;
        let mut client = Client::connect_in(&self.place, Some(&self.swarm))?;
        if !ids.is_empty() {
            match client.ask(&Request::Replay { ids: Some(ids.clone()) }, None)? {
                Response::Done { .. } | Response::Ordered { .. } => {}
                refused => return Err(client.unexpected(&refused)),
            }
        }
        if which.json {
            return print_json(&Replayed { swarm: &self.swarm, replayed: &ids });
        }
        print(format!("{} replayed\n", counted(ids.len())).as_bytes()).map(|_| ())
    }

    fn purge(&self, which: &Which) -> Result<(), Failure> {
        let ids = self.meant(which)?;
        for &id in &ids {
            dead_letters::remove(&self.folder, id).map_err(|error| self.failed(&error))?;
        }
        run_dir::forget_in(&self.place, &self.swarm);
        if which.json {
            return print_json(&Purged { swarm: &self.swarm, purged: &ids });
        }
        print(format!("{} purged\n", counted(ids.len())).as_bytes()).map(|_| ())
    }
}

fn counted(count: usize) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    text.push('\n');
    print(text.as_bytes()).map(|_| ())
}

fn table(letters: &[Letter]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "PARKED", "AGENT", "MESSAGE", "TYPE", "BYTES", "ATTEMPTS", "REASON"]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for letter in letters {
        let reason =
            if letter.rejected { format!("rejected: {}", letter.reason) } else { letter.reason.clone() };
        table.add_row([
            right(letter.id.to_string()),
            Cell::new(&letter.parked),
            Cell::new(&letter.agent),
            Cell::new(&letter.message),
            Cell::new(&letter.message_type),
            right(letter.bytes.to_string()),
            right(letter.attempts.to_string()),
            Cell::new(reason),
        ]);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A letter for people.
fn page(letter: &Letter, bytes: &[u8]) -> String {
    let how = if letter.rejected { "rejected" } else { "parked" };
    let mut text = format!(
        "dead letter {} of swarm `{}`\n  message   {}, a {} of {} bytes (fingerprint {})\n  {how:<9} {} by {} at attempt {}\n  \
         reason    {}\n",
        letter.id,
        letter.swarm,
        letter.message,
        letter.message_type,
        letter.bytes,
        letter.fingerprint,
        letter.parked,
        letter.agent,
        letter.attempts,
        letter.reason,
    );
    for report in &letter.reports {
        let _ = writeln!(text, "  {}  generation {} {}", report.at, report.generation, report.how);
        report.output.iter().for_each(|line| _ = writeln!(text, "    | {line}"));
    }
    if !letter.kept {
        text.push_str("  its bytes were too many to keep\n");
    }
    for (row, chunk) in bytes.chunks(16).take(SHOWN_BYTES_MAX / 16).enumerate() {
        let hex: String = chunk.iter().map(|byte| format!(" {byte:02x}")).collect();
        let plain =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let ascii: String = chunk.iter().map(plain).collect();
        let _ = writeln!(text, "  {:08x} {hex:<48}  {ascii}", row * 16);
    }
    if bytes.len() > SHOWN_BYTES_MAX {
        let _ = writeln!(text, "  and {} bytes more (`--json` has them all)", bytes.len() - SHOWN_BYTES_MAX);
    }
    text
}
