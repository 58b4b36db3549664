//! `shoal demo`: passes of a real swarm over a real tree, compared with one process that does it all.

use super::agents::Folder;
use super::killer::Killer;
use super::report::percentile;
use super::{Asked, CollectedFile, Comparison, Figures, FileResult, Report, Seen, Walk};
use super::{compare, sequential, walk, walk_file};
use crate::cli::DemoOptions;
use crate::config::{self, SwarmFile};
use crate::output::Echo;
use crate::run::{Setting, run_file};
use crate::run_dir::{self, RunDir};
use crate::signals::Signals;
use crate::swarm::Swarm;
use indicatif::{ProgressBar, ProgressStyle};
use shoal_runtime::desk::Histogram;
use std::collections::{BTreeSet, HashMap};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Passes after which the demo stops hoping for a kill in a tree that is too small.
const PASSES_WITHOUT_KILL_MAX: u64 = 50;

/// Runs the demo and prints its report.
pub fn demo(options: &DemoOptions) -> ExitCode {
    match run(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("shoal demo: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the passes sum up to.
#[derive(Default)]
struct Sums {
    passes: u64,
    messages: u64,
    kills: u64,
    restarts: u64,
    seconds: f64,
    recoveries_ns: Vec<u64>,
    latency: Histogram,
}

fn run(options: &DemoOptions) -> Result<u8, String> {
    let dir = options.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let skip_build_folders = options.dir.is_none();
    let tree = walk(&dir, skip_build_folders).map_err(|e| format!("{}: {e}", dir.display()))?;
    let expected = sequential(&tree);
    let (last, comparison, sums) = passes(options, &tree, &expected)?;
    let figures = sums.figures();
    let report = Report::new(&tree, &last, &comparison, figures);
    if options.json {
        println!("{}", serde_json::to_string(&report).map_err(|e| e.to_string())?);
    } else {
        println!("{}", report.table());
    }
    let asked = Asked { kills: !options.kill_every.is_zero(), allow_changes: options.allow_changes };
    Ok(report.exit_status(asked))
}

/// Runs passes until enough kills were proven, or one is not identical.
fn passes(
    options: &DemoOptions,
    tree: &Walk,
    expected: &[FileResult],
) -> Result<(Vec<FileResult>, Comparison, Sums), String> {
    let name = format!("demo-{}", std::process::id());
    let _ = run_dir::list_running();
    // Over all passes, so that no signal falls between two.
    let mut signals = Signals::new()?;
    let folder = RunDir::claim(&name).map_err(|e| e.to_string())?;
    let files = tree.files().count() as u64;
    let bar = bar(options, files);
    let wanted = if options.kill_every.is_zero() { 0 } else { options.kills.unwrap_or(1) };
    let mut sums = Sums::default();
    let mut killer: Option<Killer> = None;
    loop {
        let data = folder.path().join(format!("pass-{}", sums.passes));
        Folder::new(&data)
            .create(&tree.dir, options.dir.is_none())
            .map_err(|e| format!("making {}: {e}", data.display()))?;
        let file = swarm_file(&name, &data, workers(options))?;
        let collector = file.agents.iter().take(2).map(|a| a.replicas as usize).sum();
        let hasty = sums.passes > 0 && sums.kills == 0;
        let killer =
            killer.get_or_insert_with(|| Killer::new(options.kill_every, hasty, collector, bar.clone()));
        killer.begin_pass(hasty);
        let began = Instant::now();
        let setting = Setting {
            echo: Echo::to_stderr().unwrap_or_default(),
            notices: notices(&bar),
            companions: vec![&mut signals, killer],
            adopted: Vec::new(),
        };
        let swarm = run_file(file, &folder, setting)?;
        sums.add(&swarm, began.elapsed());
        let failed = swarm.failed_start.clone().or_else(|| swarm.is_ending().then(|| "interrupted".into()));
        if let Some(why) = failed {
            return Err(why);
        }
        let (got, listed) = gathered(&Folder::new(&data))?;
        let comparison = compare_still(tree, &listed, expected, &got);
        let hopeless = sums.kills == 0 && sums.passes >= PASSES_WITHOUT_KILL_MAX;
        if !comparison.identical || sums.kills >= wanted || hopeless {
            bar.finish_and_clear();
            return Ok((got, comparison, sums));
        }
        std::fs::remove_dir_all(&data).map_err(|e| format!("removing {}: {e}", data.display()))?;
    }
}

/// What the collector gathered, and the walk that the lister made.
fn gathered(folder: &Folder) -> Result<(Vec<FileResult>, Walk), String> {
    let records = folder.records();
    let failed = |path: &Path, e: std::io::Error| format!("reading {}: {e}", path.display());
    let (_, reload) = CollectedFile::open(&records).map_err(|e| failed(&records, e))?;
    let listed = walk_file::load(&folder.list()).map_err(|e| failed(&folder.list(), e))?;
    Ok((reload.records.into_iter().map(|r| r.result).collect(), listed))
}

/// Compares what held still between the two walks; files that came, went or moved in between are `changed`.
fn compare_still(tree: &Walk, listed: &Walk, expected: &[FileResult], got: &[FileResult]) -> Comparison {
    let seen = |walk: &Walk| -> HashMap<PathBuf, Seen> {
        walk.files().map(|(_, path, seen)| (path.to_owned(), seen)).collect()
    };
    let (before, after) = (seen(tree), seen(listed));
    let still = |r: &&FileResult| before.get(&r.path) == after.get(&r.path);
    let kept = |results: &[FileResult]| results.iter().filter(still).cloned().collect::<Vec<_>>();
    let mut comparison = compare(&kept(expected), &kept(got));
    let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let moved = all.into_iter().filter(|path| before.get(*path) != after.get(*path));
    comparison.changed.extend(moved.cloned());
    comparison
}

fn workers(options: &DemoOptions) -> u32 {
    let by_cpus = || std::thread::available_parallelism().map_or(2, |n| n.get() as u32 * 2).min(16);
    options.workers.map_or_else(by_cpus, |n| n.get())
}

/// The demo's swarm file. Its agents are this same binary.
fn swarm_file(name: &str, data: &Path, workers: u32) -> Result<SwarmFile, String> {
    let binary = std::env::current_exe().map_err(|e| format!("finding the own binary: {e}"))?;
    let quoted = |path: &Path| {
        let text = path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        Ok::<_, String>(toml::Value::String(text.to_owned()).to_string())
    };
    let (binary, data) = (quoted(&binary)?, quoted(data)?);
    // Kills that come from outside during the demo are no reason to give up.
    let restart =
        r#"restart = { policy = "transient", intensity = 1000, period = "1s", backoff = "1ms..10ms" }"#;
    let text = format!(
        r#"
        [swarm]
        name = "{name}"
        [channel.tasks]
        message = "Task"
        capacity = "1 MiB"
        [channel.tallies]
        message = "Tally"
        capacity = "1 MiB"
        [agent.lister]
        command = [{binary}, "agent", "lister", {data}]
        publishes = ["tasks"]
        {restart}
        [agent.worker]
        command = [{binary}, "agent", "worker", {data}]
        replicas = {workers}
        subscribes = ["tasks"]
        publishes = ["tallies"]
        {restart}
        [agent.collector]
        command = [{binary}, "agent", "collector", {data}]
        subscribes = ["tallies"]
        {restart}
        "#
    );
    config::parse(Path::new("the demo's swarm file"), &text).map_err(|e| e.to_string())
}

/// A progress bar on a terminal, else nothing.
fn bar(options: &DemoOptions, files: u64) -> ProgressBar {
    if options.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files  {elapsed}");
    ProgressBar::new(files).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn notices(bar: &ProgressBar) -> crate::swarm::Notices {
    let bar = bar.clone();
    Box::new(move |text| bar.suspend(|| eprintln!("shoal: {text}")))
}

impl Sums {
    fn add(&mut self, swarm: &Swarm, took: Duration) {
        self.passes += 1;
        self.kills += swarm.kills_proven;
        self.seconds += took.as_secs_f64();
        self.recoveries_ns.extend(&swarm.recoveries_ns);
        for agent in &swarm.agents {
            let totals = agent.totals();
            self.messages += totals.received;
            self.restarts += agent.restarts;
            self.latency.merge(&totals.latency);
        }
    }

    fn figures(mut self) -> Figures {
        let us = |ns: Option<u64>| ns.map(|ns| ns / 1000);
        Figures {
            messages: self.messages,
            kills: self.kills,
            restarts: self.restarts,
            recovery_p50_us: us(percentile(&mut self.recoveries_ns, 50)),
            recovery_p99_us: us(percentile(&mut self.recoveries_ns, 99)),
            latency_p50_ns: self.latency.quantile(0.5),
            latency_p99_ns: self.latency.quantile(0.99),
            passes: self.passes,
            seconds: self.seconds,
        }
    }
}
