//! Which swarm is meant: by `--swarm`, by the environment, or by the name or swarm file that a command is given.

use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{Command, Failure};
use crate::config;

/// What a command is given that names a swarm.
enum Own<'c> {
    Name(&'c str),
    File(&'c Path),
}

/// The swarm that is meant where the command does not name one itself. An empty name in the environment is none, and any there yields to
/// what the command is given.
///
/// # Errors
/// `--swarm` and what the command is given name two swarms.
pub(super) fn meant(
    swarm: Option<String>,
    matches: &ArgMatches,
    command: &Command,
) -> Result<Option<String>, Failure> {
    let by_environment = matches.value_source("swarm") == Some(ValueSource::EnvVariable);
    let (Some(asked), own) = (swarm, own(command)) else { return Ok(None) };
    match own {
        None if by_environment && asked.is_empty() => Ok(None),
        Some(_) if by_environment => Ok(None),
        None => Ok(Some(asked)),
        Some(own) => agree(&asked, &own).map(|()| Some(asked)),
    }
}

fn own(command: &Command) -> Option<Own<'_>> {
    match command {
        Command::Down(options) => options.name.as_deref().map(Own::Name),
        Command::Run { file, .. } | Command::Check { file, .. } | Command::Unit { file } => {
            Some(Own::File(file))
        }
        Command::Up(options) => Some(Own::File(&options.file)),
        Command::Doctor(options) => options.file.as_deref().map(Own::File),
        Command::Events(options) => options.file.as_deref().map(Own::File),
        Command::Crashes(options) => options.file().map(Own::File),
        _ => None,
    }
}

fn agree(asked: &str, own: &Own<'_>) -> Result<(), Failure> {
    let (name, whose) = match own {
        Own::Name(name) => ((*name).to_owned(), String::new()),
        // What is wrong with a file is told by the command.
        Own::File(path) => match std::fs::read_to_string(path).map(|text| config::parse(path, &text)) {
            Ok(Ok(file)) => (file.name, format!(", the swarm of {}", path.display())),
            _ => return Ok(()),
        },
    };
    if name == asked {
        return Ok(());
    }
    Err(Failure::bad_input(format!("`--swarm {asked}` is not `{name}`{whose}: which of them is meant?")))
}
