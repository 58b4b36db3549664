//! A swarm with one bad agent among good ones, run by the real supervisor.
//!
//! ```text
//!   source ──numbers──┬─> sink            counts exactly to the last number
//!                     └─> bad ──noise──> ear
//! ```

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Who does what, and how long.
pub struct Play<'a> {
    /// The supervisor's binary.
    pub shoal: &'a str,
    /// The agents' binary.
    pub agents: &'a str,
    /// What the bad agent does.
    pub role: &'a str,
    /// Numbers that are sent.
    pub count: u64,
    /// What a full ring of numbers does.
    pub when_full: &'a str,
    /// Further lines of the bad agent's table.
    pub lines: &'a str,
}

/// What came of it.
pub struct Told {
    /// Standard output of the supervisor: what agents printed.
    pub stdout: String,
    /// Its notices.
    pub stderr: String,
    /// Its exit status; `None` when it had to be killed because it took too long.
    pub status: Option<i32>,
    /// The swarm's folder: agents leave notes in `notes`, and its logs are in `logs`.
    pub folder: tempfile::TempDir,
}

impl Told {
    /// Everything, for a message.
    pub fn all(&self) -> String {
        let cut = |text: &str| text.chars().take(6000).collect::<String>();
        format!("status {:?}\n--- out\n{}\n--- err\n{}", self.status, cut(&self.stdout), cut(&self.stderr))
    }
}

fn swarm_file(play: &Play<'_>, good: &str, folder: &Path) -> String {
    let agent = |name: &str, args: String, ends: &str| {
        format!(
            "[agent.{name}]\ncommand = [\"{}\", {args}]\n{ends}\nrestart = {{ policy = \"transient\", intensity = 50, period = \"1s\", \
             backoff = \"1ms..5ms\" }}\nenv = {{ NOTES = \"{}\" }}\n",
            play.agents,
            folder.join("notes").display()
        )
    };
    let Play { role, count, when_full, lines, .. } = play;
    [
        format!("[swarm]\nname = \"{role}-{}\"\nlogs = \"logs\"\n", std::process::id()),
        format!("[channel.numbers]\nmessage = \"N\"\ncapacity = \"64 KiB\"\nwhen_full = \"{when_full}\"\n"),
        "[channel.noise]\nmessage = \"N\"\ncapacity = \"64 KiB\"\nwhen_full = \"block\"\n".to_owned(),
        agent("source", format!("\"source\", \"{count}\""), &format!("publishes = [\"numbers\"]\n{good}")),
        agent("sink", format!("\"sink\", \"{count}\""), &format!("subscribes = [\"numbers\"]\n{good}")),
        agent(
            "bad",
            format!("\"{role}\", \"{count}\""),
            // It is handed both its neighbours' links before it begins.
            &format!(
                "after = [\"source\", \"ear\"]\nsubscribes = [\"numbers\"]\npublishes = [\"noise\"]\n{lines}"
            ),
        ),
        agent("ear", format!("\"ear\", \"{count}\""), &format!("subscribes = [\"noise\"]\n{good}")),
    ]
    .join("\n")
}

/// Runs it to its end, at most `patience`.
///
/// # Panics
/// When the supervisor cannot be run.
pub fn run(play: &Play<'_>, patience: Duration) -> Told {
    run_among(play, "", patience)
}

/// The same, with further lines in the good agents' tables.
///
/// # Panics
/// As [`run`].
pub fn run_among(play: &Play<'_>, good: &str, patience: Duration) -> Told {
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("swarm.toml");
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).expect("a folder");
    // Agents of another user leave notes, too.
    for (folder, mode) in [(folder.path(), 0o711), (&notes, 0o777)] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).expect("our folder");
    }
    std::fs::write(&file, swarm_file(play, good, folder.path())).expect("written");
    let mut command = Command::new(play.shoal);
    command.arg("run").arg(&file).env("XDG_RUNTIME_DIR", folder.path()).env_remove("SHOAL_SWARM");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the supervisor runs");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let reader = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let out = std::thread::spawn(move || reader(&mut out));
    let err = std::thread::spawn(move || reader(&mut err));
    let began = Instant::now();
    let status = loop {
        match child.try_wait().expect("waited") {
            Some(status) => break status.code(),
            None if began.elapsed() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let (stdout, stderr) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    Told { stdout, stderr, status, folder }
}
