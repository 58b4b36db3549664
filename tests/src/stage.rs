//! A test's own place: a folder, a runtime folder, a swarm's name, and the command line under test.

use crate::{Running, traces, until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// For the table of an agent that bears every death, and starts again soon.
pub const HARDY: &str = "restart = { policy = \"transient\", intensity = 10000, period = \"1s\", backoff = \"1ms..5ms\" }\nmax_attempts = 0";

/// A swarm in which numbers go from a source over a relay to a sink, which keeps a book of them; all are [`HARDY`].
pub struct Relayed<'a> {
    /// Further keys of `[swarm]`.
    pub swarm: &'a str,
    /// How many numbers; 0 for no end.
    pub count: u64,
    /// Arguments of the relay: how it relays.
    pub how: &'a str,
    /// Further keys of the relay.
    pub relay: &'a str,
    /// Further keys of the sink.
    pub sink: &'a str,
    /// On how many lanes the sink expects an order: 1, or 0 for none, as a group of several relays keeps none.
    pub ways: u32,
}

impl Default for Relayed<'_> {
    fn default() -> Self {
        Relayed { swarm: "", count: 0, how: "\"relay\"", relay: "", sink: "", ways: 1 }
    }
}

impl Relayed<'_> {
    /// Writes its swarm file.
    ///
    /// # Panics
    /// When the stage cannot be written to.
    pub fn write(&self, stage: &Stage) -> PathBuf {
        let Relayed { swarm, count, how, relay, sink, ways } = self;
        let text = format!(
            r#"
            [swarm]
            name = "NAME"
            {swarm}
            [channel.numbers]
            message = "Number"
            capacity = "16 KiB"
            [channel.relayed]
            message = "Number"
            capacity = "8 KiB"
            [agent.source]
            command = ["BIN/numbers", "source", "{count}"]
            publishes = ["numbers"]
            {HARDY}
            [agent.relay]
            command = ["BIN/numbers", {how}]
            subscribes = ["numbers"]
            publishes = ["relayed"]
            {relay}
            {HARDY}
            [agent.sink]
            command = ["BIN/numbers", "sink", "{ways}"]
            subscribes = ["relayed"]
            {sink}
            {HARDY}
            "#
        );
        stage.write("swarm.toml", &text)
    }
}

/// A stage; nothing of it is left when it is dropped.
pub struct Stage {
    folder: tempfile::TempDir,
    shoal: PathBuf,
    name: String,
    outputs: AtomicU32,
    user: Option<u32>,
}

/// How a command ended, and what it said.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit status; 128 and the number of the signal that killed it.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// The exit status as a shell says it.
pub(crate) fn shells(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

impl Stage {
    /// A stage for swarms whose names begin with `label`; `shoal` is the command line. See `stage!`.
    ///
    /// # Panics
    /// Without a temporary folder.
    pub fn new(label: &str, shoal: &str) -> Stage {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("shoal-test-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("run")).expect("a runtime folder");
        let name = format!("{label}-{}-{number}", std::process::id());
        Stage { folder, shoal: PathBuf::from(shoal), name, outputs: AtomicU32::new(0), user: None }
    }

    /// The same stage, given to another user: the command line, and all that it starts, runs as that one.
    ///
    /// # Panics
    /// When it is not root who gives.
    pub fn given_to(mut self, user: u32) -> Stage {
        for folder in [self.path(""), self.path("run")] {
            chown(folder, Some(user), Some(user)).expect("root gives away what it has");
        }
        self.user = Some(user);
        self
    }

    /// The name of its swarm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The mark of its processes.
    pub fn mark(&self) -> &str {
        self.folder.path().to_str().expect("a temporary folder with a UTF-8 name")
    }

    /// Stops one of its processes by a signal, and waits until it stands.
    ///
    /// # Panics
    /// When it is none of its own, or gone.
    pub fn halt(&self, pid: i32) {
        assert!(traces::send(pid, self.mark(), Signal::STOP), "process {pid} is none of the stage's");
        until("the stop", || (traces::state(pid) == Some('T')).then_some(()));
    }

    /// The folder of its running swarm.
    pub fn run_folder(&self) -> PathBuf {
        self.path("run").join("shoal").join(&self.name)
    }

    /// The command line under test, as the kernel names it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn program(&self) -> PathBuf {
        self.shoal.canonicalize().expect("the command line under test")
    }

    /// Writes a file in its folder. In the text, `BIN/` stands for the folder of the test's agents and `NAME` for the
    /// swarm's name.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        let bin = self.shoal.parent().and_then(Path::to_str).expect("a UTF-8 folder of binaries");
        let path = self.path(file);
        let text = text.replace("BIN/", &format!("{bin}/")).replace("NAME", &self.name);
        fs::write(&path, text).expect("a file in the stage's folder");
        path
    }

    /// A command of the command line, in this stage's runtime folder, its processes marked.
    pub fn shoal(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.shoal);
        self.prepare(&mut command).args(args);
        command
    }

    /// The same command line under limits of the shell's `ulimit`, for example `-Sn 256`.
    pub fn shoal_limited(&self, limit: &str, args: &[&str]) -> Command {
        self.shoal_after(&format!("ulimit {limit}"), args)
    }

    /// The same command line in a shell that did something before.
    pub fn shoal_after(&self, before: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        self.prepare(&mut command);
        command.args(["-c", &format!("{before} && exec \"$@\""), "sh"]).arg(&self.shoal).args(args);
        command
    }

    fn prepare<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .current_dir(self.folder.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env(traces::MARK, self.mark())
            .env_remove("SHOAL_SWARM")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        self.user.iter().for_each(|user| _ = command.uid(*user).gid(*user));
        command
    }

    /// Starts a command; its output goes to files.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, mut command: Command) -> Running<'_> {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let paths = ["out", "err"].map(|stream| self.path(&format!("shoal-{number}.{stream}")));
        let [out, err] = paths.each_ref().map(|path| fs::File::create(path).expect("a file for output"));
        let child = command.stdout(out).stderr(err).spawn().expect("the command line under test");
        Running::new(self, child, paths)
    }

    /// Starts `shoal run FILE`.
    pub fn run(&self, file: &Path) -> Running<'_> {
        self.start(self.shoal(&["run", file.to_str().expect("a UTF-8 path")]))
    }

    /// The same command, run by `unshare` with these arguments: in namespaces of its own.
    pub fn unshared(&self, command: &Command, how: &[&str]) -> Command {
        let mut unshare = Command::new("unshare");
        unshare.args(how).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        command.get_current_dir().into_iter().for_each(|folder| _ = unshare.current_dir(folder));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => unshare.env(name, value),
                None => unshare.env_remove(name),
            };
        }
        unshare
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(&self, command: Command) -> Done {
        self.start(command).ended()
    }

    /// Runs the command line to its end.
    pub fn done(&self, args: &[&str]) -> Done {
        self.finish(self.shoal(args))
    }

    /// The pages of numbers and remarks that agents left.
    pub fn violations(&self) -> String {
        fs::read_to_string(self.path("violations")).unwrap_or_default()
    }

    /// Nothing of a swarm that ended is left: no process, no folder, no name in /dev/shm.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_nothing_left(&self) {
        let left = traces::marked(self.mark());
        let names: Vec<_> =
            left.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline"))).collect();
        assert!(left.is_empty(), "processes are left: {left:?} {names:?}");
        let place = self.path("run").join("shoal");
        assert!(!place.exists(), "{} is left", place.display());
        assert_eq!(traces::shared_names(&self.name), Vec::<String>::new(), "left in /dev/shm");
    }

    /// Waits until no process of this stage is left: after a SIGKILL of the supervisor, the kernel ends the agents.
    pub fn until_no_process(&self) {
        until("the end of every process", || traces::marked(self.mark()).is_empty().then_some(()));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let violations = self.violations();
            if !violations.is_empty() {
                eprintln!("violations:\n{violations}");
            }
        }
        // Its own processes only: each is looked at again before it is killed.
        for pid in traces::marked(self.mark()) {
            traces::kill(pid, self.mark());
        }
        for name in traces::shared_names(&self.name) {
            let _ = fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
}
