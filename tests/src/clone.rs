//! A folder that looks like a clone of the repository in which `cargo build --release` was run, for the commands that documents
//! show: each ```sh block is given to a shell there. `shoal` is the binary built for these tests; `cargo run --release -- X` is
//! `shoal X`; what would build or run the workspace again (`cargo build`, `cargo test`, `cargo bench`) and `scripts/crash-test`
//! are only noted.

use crate::traces;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The contents of the fenced blocks of a language in a document.
pub fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let fence = format!("```{language}\n");
    let parts = document.split(fence.as_str()).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default()).collect()
}

/// The repository.
///
/// # Panics
/// When the tests do not live in it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the repository")
}

/// A folder that looks like a clone in which `cargo build --release` was run.
pub struct Clone {
    folder: tempfile::TempDir,
    /// What is not part of the clone: notes, runtime folder, the `cargo` of the tests.
    beside: tempfile::TempDir,
}

impl Clone {
    /// A clone in which `shoal` is this binary, and the examples' agents are those beside it.
    ///
    /// # Panics
    /// Without a temporary folder.
    pub fn new(shoal: &str) -> Self {
        let clone = Clone {
            folder: tempfile::tempdir().expect("a folder"),
            beside: tempfile::tempdir().expect("a folder"),
        };
        let at = |path: &str| clone.path(path);
        for made in ["target/release", "examples", "scripts"] {
            fs::create_dir_all(at(made)).expect("made");
        }
        for file in ["wordcount.toml", "ticks.toml"] {
            fs::copy(root().join("examples").join(file), at("examples").join(file)).expect("copied");
        }
        let built = Path::new(shoal).parent().expect("a folder of binaries");
        symlink(shoal, at("target/release/shoal")).expect("linked");
        for agent in ["lister", "worker", "collector", "ticker", "teller"] {
            let binary = built.join(format!("example-{agent}"));
            symlink(binary, at("target/release").join(agent)).expect("linked");
        }
        let cargo = "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || { echo \"$*\" >> \"$NOTED\"; exit 0; }\n\
                     shift 3; exec target/release/shoal \"$@\"\n";
        let crash_test = "#!/bin/sh\necho \"crash-test $*\" >> \"$NOTED\"\n";
        let programs = [(clone.beside("cargo"), cargo), (at("scripts/crash-test"), crash_test)];
        for (path, text) in programs {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        clone
    }

    /// A path in the clone.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A path beside it.
    pub fn beside(&self, path: &str) -> PathBuf {
        self.beside.path().join(path)
    }

    /// Runs a script in the clone; returns its standard output.
    ///
    /// # Panics
    /// When it fails, or leaves a process.
    pub fn run(&self, script: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        // Not through pipes: what a failed script leaves running would hold them.
        let [out, err] = ["out", "err"].map(|name| self.beside(name));
        let file = |path: &Path| fs::File::create(path).expect("created");
        let mut shell = Command::new("sh")
            .args(["-e", "-u", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.beside.path().display()))
            .env("NOTED", self.beside("noted"))
            .env("XDG_RUNTIME_DIR", self.beside.path())
            .env(traces::MARK, self.mark())
            .env_remove("SHOAL_SWARM")
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .process_group(0)
            .spawn()
            .expect("a shell");
        let ended = shell.wait().expect("waited");
        // A supervisor that is left runs in the shell's group; its agents end with it.
        let group = rustix::process::Pid::from_child(&shell);
        let left = rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_ok();
        // Nor is anything left that a daemon is.
        let left = traces::marked(self.mark()).into_iter().any(|pid| traces::kill(pid, self.mark())) || left;
        let [out, err] = [out, err].map(|path| fs::read_to_string(path).expect("read"));
        assert!(ended.success() && !left, "{ended}, something left: {left}\n{script}\n{out}\n{err}");
        out
    }

    /// What was only noted.
    pub fn noted(&self) -> String {
        fs::read_to_string(self.beside("noted")).unwrap_or_default()
    }

    fn mark(&self) -> &str {
        self.beside.path().to_str().expect("a temporary folder with a UTF-8 name")
    }
}
