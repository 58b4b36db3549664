//! From `main` to the body and back: attach, run, report, exit status.

use crate::error::{self, Error, Result, SendError, SupervisorGone};
use crate::{Agent, Log};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// Exit status when the supervisor is gone.
pub const EXIT_SUPERVISOR_GONE: u8 = 70;

/// Attaches this process to the supervisor that started it, runs `body`, and says with what status to exit.
///
/// An error of the body goes to standard error as text, and so do the message and place of a panic; the status is 1 then,
/// and [`EXIT_SUPERVISOR_GONE`] when the supervisor is gone.
pub fn run(body: impl FnOnce(&mut Agent) -> Result<()>) -> ExitCode {
    let mut agent = match Agent::attach() {
        Ok(agent) => agent,
        Err(error) => {
            let program = std::env::args_os().next().map(std::path::PathBuf::from);
            let name = program.as_deref().and_then(|p| p.file_name()).unwrap_or_default();
            return failure(&Log::to_stderr(&name.to_string_lossy()), &error);
        }
    };
    let log = Log::to_stderr(agent.name());
    report_panics(Log::to_stderr(agent.name()));
    // Nothing of the agent or the body is used after a panic.
    let ended = panic::catch_unwind(AssertUnwindSafe(|| body(&mut agent).and_then(|()| agent.ready())));
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // A source that waited for space when it was asked to end, and did.
        Ok(Err(error)) if matches!(error.downcast_ref(), Some(SendError::Stopping { .. })) => {
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => failure(&log, &error),
        Err(_) => ExitCode::FAILURE,
    }
}

fn failure(log: &Log, error: &Error) -> ExitCode {
    log.report(&error::text(error));
    if error.is::<SupervisorGone>() { ExitCode::from(EXIT_SUPERVISOR_GONE) } else { ExitCode::FAILURE }
}

/// One line for each panic of any thread; the backtrace too when RUST_BACKTRACE asks for it.
fn report_panics(log: Log) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
        let text = panic.payload().downcast_ref::<&str>().copied();
        let owned = panic.payload().downcast_ref::<String>().map(String::as_str);
        let message = text.or(owned).unwrap_or("with something that is no text");
        log.report(&format!("panicked at {place}: {message}"));
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            before(panic);
        }
    }));
}
