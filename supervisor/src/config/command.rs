//! Finds the program that a command names. Looks at files and at PATH; starts nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where programs are looked for.
pub(super) struct Places {
    /// The absolute folder of the swarm file.
    folder: PathBuf,
    /// The user's search path.
    search: OsString,
}

/// The path of this very binary: the agents of demo, chaos, bench and replays are processes of it.
///
/// # Errors
/// It cannot be found, or a swarm file could not name it.
pub fn own_binary() -> Result<String, String> {
    let binary = std::env::current_exe().map_err(|e| format!("finding the own binary: {e}"))?;
    binary
        .into_os_string()
        .into_string()
        .map_err(|path| format!("{} is not UTF-8", Path::new(&path).display()))
}

/// What is wrong, and what to do.
pub type Fault = (String, String);

/// The absolute path of a program, as the command of an agent of a swarm file names it.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn find_command(file: &Path, program: &str) -> Result<String, Fault> {
    Places::of(file).resolve(program)
}

impl Places {
    /// The places for a swarm file.
    pub(super) fn of(file: &Path) -> Places {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Places { folder, search: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// The absolute path of a program: a name with `/` is relative to the file's folder; a bare name is looked
    /// for in that folder and then in PATH.
    pub(super) fn resolve(&self, program: &str) -> Result<String, Fault> {
        let beside = self.folder.join(program);
        let found = if program.contains('/') || is_program(&beside) {
            beside
        } else {
            std::env::split_paths(&self.search)
                .filter(|folder| folder.is_absolute())
                .map(|folder| folder.join(program))
                .find(|path| is_program(path))
                .unwrap_or(beside)
        };
        check(&found).map_err(|fault| if program.contains('/') { fault } else { bare(fault, program) })?;
        // Collected again, `/a/./b` is `/a/b`.
        let found: PathBuf = found.components().collect();
        let not_utf8 = |path: OsString| {
            let what = format!("the path {path:?} is not UTF-8");
            (what, "move the swarm file or the program to a folder with a UTF-8 name".to_owned())
        };
        found.into_os_string().into_string().map_err(not_utf8)
    }
}

/// Whether this is a file that we may execute.
fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Why a path cannot be executed.
fn check(path: &Path) -> Result<(), Fault> {
    let shown = path.components().collect::<PathBuf>().display().to_string();
    let shown = shown.escape_debug();
    let fault = |what: String, help: &str| Err((what, help.to_owned()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => fault(
            format!("command not found: {shown}"),
            "build the program, or correct the path (it is relative to the folder of this file)",
        ),
        Err(error) => fault(format!("command not accessible: {shown}: {error}"), "correct the path"),
        Ok(found) if found.is_dir() => {
            fault(format!("command is a folder: {shown}"), "name a program inside it")
        }
        Ok(found) if !found.is_file() => fault(format!("command is not a file: {shown}"), "name a program"),
        Ok(_) => match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::ACCESS) => fault(
                format!("command is not executable: {shown}"),
                "make it executable (chmod +x), or put its interpreter first",
            ),
            Err(error) => fault(format!("command not accessible: {shown}: {error}"), "correct the path"),
        },
    }
}

/// The fault of a bare name, which was also looked for in PATH.
fn bare((what, help): Fault, program: &str) -> Fault {
    let program = program.escape_debug();
    (format!("{what}, and no `{program}` in PATH"), help)
}
