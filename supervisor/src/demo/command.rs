//! `shoal demo`: passes of a real swarm over a real tree, compared with one process that does it all.

use super::agents::Read;
use super::backstage::{Done, Pass};
use super::stage::Stage;
use super::{Asked, Comparison, Figures, FileResult, Report, Seen, Walk};
use super::{compare, sequential, walk};
use crate::cli::{BAD_INPUT, DemoOptions, FAILED, print, print_error};
use crate::log::report;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// Passes after which the demo stops hoping for a kill in a tree that is too small.
const PASSES_WITHOUT_KILL_MAX: u64 = 50;

/// Runs the demo and prints its report.
pub fn demo(options: &DemoOptions) -> ExitCode {
    match run(options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report!("shoal demo: {error}");
            if options.json {
                print_error(&error);
            }
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn run(options: &DemoOptions) -> Result<u8, String> {
    let dir = options.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let skip_build_folders = options.dir.is_none();
    let tree = walk(&dir, skip_build_folders).map_err(|e| format!("{}: {e}", dir.display()))?;
    let expected = sequential(&tree);
    let (last, comparison, figures) = passes(options, &tree, &expected)?;
    let report = Report::new(&tree, &last, &comparison, figures);
    let text = match options.json {
        true => serde_json::to_string(&report).map_err(|e| e.to_string())?,
        false => report.table(),
    };
    if let Err(failure) = print(format!("{text}\n").as_bytes()) {
        report!("shoal demo: {failure}");
        return Ok(FAILED);
    }
    let asked = Asked { kills: !options.kill_every.is_zero(), allow_changes: options.allow_changes };
    Ok(report.exit_status(asked))
}

/// Runs passes until enough kills were proven, or one is not identical.
fn passes(
    options: &DemoOptions,
    tree: &Walk,
    expected: &[FileResult],
) -> Result<(Vec<FileResult>, Comparison, Figures), String> {
    let pass = Pass {
        name: format!("demo-{}", std::process::id()),
        workers: workers(options),
        kill_every: options.kill_every,
        skip_build_folders: options.dir.is_none(),
    };
    let stage = Stage::open(&tree.dir)?;
    let bar = bar(options, expected.len() as u64);
    let wanted = if options.kill_every.is_zero() { 0 } else { options.kills.unwrap_or(1) };
    loop {
        bar.set_position(0);
        let (figures, read) = match stage.pass(&pass, || bar.inc(1))? {
            (Done::Passed(figures), read) if !read.stopped => (figures, read),
            _ => return Err("interrupted".into()),
        };
        let comparison = compare_all(tree, expected, &read);
        let hopeless = figures.kills == 0 && figures.passes >= PASSES_WITHOUT_KILL_MAX;
        if !comparison.identical || figures.kills >= wanted || hopeless {
            bar.finish_and_clear();
            return Ok((read.results, comparison, figures));
        }
    }
}

/// Compares every result with one process's, and the collector's sums with both.
fn compare_all(tree: &Walk, expected: &[FileResult], read: &Read) -> Comparison {
    let mut comparison = compare(expected, &read.results, |path| Seen::now(&tree.dir.join(path)));
    comparison.check_sums(&read.sums, &read.results, expected);
    comparison
}

fn workers(options: &DemoOptions) -> u32 {
    let by_cpus = || std::thread::available_parallelism().map_or(2, |n| n.get() as u32 * 2).min(16);
    options.workers.map_or_else(by_cpus, |n| n.get())
}

/// A progress bar on a terminal, else nothing.
fn bar(options: &DemoOptions, files: u64) -> ProgressBar {
    if options.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files  {elapsed}");
    ProgressBar::new(files).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
