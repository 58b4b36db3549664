//! An agent that tells what it is bounded by, or strains at it: `confined KIND`.

use shoal_agent::{Agent, Result};
use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

fn main() -> std::process::ExitCode {
    let kind = std::env::args().nth(1).unwrap_or_default();
    shoal_agent::run(|agent| body(agent, &kind))
}

fn body(agent: &mut Agent, kind: &str) -> Result<()> {
    while kind == "tarries" && !shoal_tests::agents::path("go").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    agent.ready()?;
    match kind {
        "tells" => tell(),
        "changes" => change(),
        "hands-down" => hand_down(),
        "filtered" if agent.generation() > 1 => println!("filtered: it is back"),
        "filtered" => be_filtered(),
        "hoards" => hoard(agent),
        "forks" => fork_many(),
        "burns" | "writes" | "aborts" if agent.generation() > 1 => println!("{kind}: it is back"),
        "burns" => burn(|| false),
        "throttled" => {
            burn(is_throttled);
            println!("it was throttled");
        }
        "opens" => open_many(),
        "writes" => write_much()?,
        "aborts" => std::process::abort(),
        "idles" | "tarries" => {}
        _ => return Err(format!("{kind:?}?").into()),
    }
    while !agent.stopping() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Prints, a line each, what the kernel says of this process.
fn tell() {
    for (name, lines) in [("/proc/self/status", STATUS), ("/proc/self/limits", LIMITS)] {
        let text = fs::read_to_string(name).unwrap_or_default();
        for line in text.lines().filter(|line| lines.iter().any(|start| line.starts_with(start))) {
            println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name: niceness is the 19th, the policy the 41st of all.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    println!("nice {} policy {}", fields.get(16).unwrap_or(&"?"), fields.get(38).unwrap_or(&"?"));
    println!("cwd {}", std::env::current_dir().unwrap_or_default().display());
    let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    println!("environment {}", names.join(" "));
    for name in ["KEY", "NONE"] {
        match shoal_agent::secret(name) {
            Ok(secret) => println!("secret {name} has {} bytes: {secret:?}", secret.bytes().len()),
            Err(error) => println!("secret {name}: {error}"),
        }
    }
    let parent = |file: &str| fs::read_to_string(file).map_or_else(|e| e.to_string(), |_| "read".to_owned());
    println!("outside {} inside {}", parent("outside"), parent("inside/file"));
    println!("told");
}

/// Reads its secret; prints whether a child that it makes before, and one that it makes after, has it.
fn hand_down() {
    let number = std::env::var("SHOAL_SECRET_KEY").unwrap_or_default();
    let has = format!("test -e /proc/self/fd/{number}");
    let inherits =
        || Command::new("/bin/sh").args(["-c", &has]).status().is_ok_and(|status| status.success());
    let before = inherits();
    let bytes = shoal_agent::secret("KEY").map_or(0, |secret| secret.bytes().len());
    println!("a secret of {bytes} bytes, inherited before: {before}, after: {}", inherits());
}

const STATUS: &[&str] =
    &["Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Seccomp:", "CapEff:", "Cpus_allowed_list:"];
const LIMITS: &[&str] = &[
    "Max cpu time",
    "Max file size",
    "Max core file size",
    "Max open files",
    "Max data size",
    "Max processes",
];

/// Tries what can be done to files, in folders that are there and hold `file` and `spare` each; prints what it may.
fn change() {
    for folder in ["outside", "readable", "writable"] {
        let at = |name: &str| format!("{folder}/{name}");
        let came = [
            ("reads", fs::read(at("file")).map(drop)),
            (
                "writes",
                fs::OpenOptions::new().append(true).open(at("file")).and_then(|mut f| f.write_all(b"y")),
            ),
            ("creates", fs::write(at("new"), "new")),
            ("folders", fs::create_dir(at("folder"))),
            ("renames", fs::rename(at("spare"), at("moved"))),
            ("removes", fs::remove_file(at("moved")).or_else(|_| fs::remove_file(at("spare")))),
        ];
        let may = came.iter().filter(|(_, came)| came.is_ok()).map(|(what, _)| *what);
        println!("{folder}: {}", may.collect::<Vec<_>>().join(" "));
    }
    println!("changed");
}

/// Makes calls that the filters answer differently, the one that `strict` does not know last.
fn be_filtered() {
    // Nobody may, by `default`; who may is told that there is no such folder, root or not.
    println!("chroot: {:?}", std::os::unix::fs::chroot("/nowhere").map_err(|error| error.kind()));
    println!("socket: {}", std::os::unix::net::UnixDatagram::unbound().is_ok());
}

/// Allocates, and touches, until it cannot. Then the allocator ends the process.
fn hoard(agent: &Agent) {
    if agent.generation() > 1 {
        return println!("hoarder is back");
    }
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

/// Uses a processor until something is so.
fn burn(mut enough: impl FnMut() -> bool) {
    while !enough() {
        (0..100_000).for_each(|i| _ = std::hint::black_box(i));
    }
}

/// Whether a control group that was made for this process has used up its share of a processor, by either version's file.
fn is_throttled() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own =
        groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| path.contains("/shoal-"));
    own.flat_map(|path| ["", "/cpu", "/cpu,cpuacct"].map(|of| format!("/sys/fs/cgroup{of}{path}/cpu.stat")))
        .any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"))
        })
}

/// Opens files until the kernel refuses; tells how many there were.
fn open_many() {
    let mut files = Vec::new();
    loop {
        match fs::File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => break println!("refused after {} files: {error}", files.len()),
        }
        if files.len() >= 10_000 {
            break println!("{} files and no end", files.len());
        }
    }
}

/// Writes into a file for as long as it is let.
fn write_much() -> Result<()> {
    let mut file = fs::File::create("much")?;
    for _ in 0..1000 {
        file.write_all(&[7; 10_000])?;
    }
    println!("wrote all of it");
    Ok(())
}

/// Makes processes until the kernel refuses; tells how many there were.
fn fork_many() {
    let mut children = Vec::new();
    loop {
        match std::process::Command::new("/bin/sleep").arg("1000").spawn() {
            Ok(child) => children.push(child),
            Err(error) => break println!("refused after {} processes: {error}", children.len()),
        }
        if children.len() >= 300 {
            break println!("{} processes and no end", children.len());
        }
    }
}
