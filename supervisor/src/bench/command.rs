//! `shoal bench`: runs the cases, shows what comes as it comes, writes what was asked for.

use super::{CASES, PEER, hangs, html, lives, orphans, removals, scale, table, takeover};
use crate::cli::{BAD_INPUT, BenchOptions, FAILED, Failure, print, print_error};
use crate::config;
use crate::log::report;
use crate::run::raise_descriptor_limit;
use shoal_measure::cases::{self, Bench};
use shoal_measure::compare::{compare, read};
use shoal_measure::messages;
use shoal_measure::outcome::{Machine, Outcome, Run};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Runs it.
pub fn bench(options: &BenchOptions) -> ExitCode {
    if options.case.as_deref() == Some("scenario") {
        return crate::scenario::command::scenario(options);
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, text)) => {
            report!("shoal bench: {text}");
            if options.json.as_deref() == Some(Path::new("-")) {
                print_error(&text);
            }
            ExitCode::from(status)
        }
    }
}

type Told<T> = Result<T, (u8, String)>;

fn bad<T>(text: String) -> Told<T> {
    Err((BAD_INPUT, text))
}

fn run(options: &BenchOptions) -> Told<()> {
    if let Some(name) = &options.scenario {
        return bad(format!(
            "`{name}` says which scenario, and none was asked for: `shoal bench scenario {name}`"
        ));
    }
    let asked = match options.case.as_deref() {
        None => &CASES[..],
        Some(case) => match CASES.iter().position(|known| *known == case) {
            Some(at) => &CASES[at..=at],
            None => return bad(format!("there is no case `{case}`; there are: {}", CASES.join(", "))),
        },
    };
    // Whatever can be refused is refused before a minute is spent.
    let former = options.compare.as_deref().map(|path| recorded("--compare", path)).transpose()?;
    let results = options.results.as_deref().map(|path| recorded("--results", path)).transpose()?;
    if let Some(folder) = &options.report {
        fs::create_dir_all(folder).or_else(|e| bad(format!("making {}: {e}", folder.display())))?;
    }
    // Standard output is the JSON's alone, when it goes there.
    let json_only = options.json.as_deref() == Some(Path::new("-"));
    let show =
        |text: String| if json_only { Ok(()) } else { print(format!("{text}\n").as_bytes()).map(drop) };
    let told = |failure: Failure| (FAILED, failure.to_string());
    let machine = results.as_ref().map_or_else(Machine::here, |run| run.machine.clone());
    let mut run = Run { machine, results: Vec::new() };
    show(table::head(&run.machine)).map_err(told)?;
    let mut shown = Ok(());
    let mut each = |outcome: Outcome| {
        if shown.is_ok() {
            shown = show(table::line(&outcome));
        }
        run.results.push(outcome);
    };
    match results {
        Some(recorded) => {
            let asked = |o: &Outcome| options.case.as_ref().is_none_or(|case| o.case == *case);
            recorded.results.into_iter().filter(asked).for_each(&mut each);
        }
        None => measure(asked, if options.quick { 10 } else { 1 }, &mut each).map_err(|e| (FAILED, e))?,
    }
    shown.map_err(told)?;
    if let Some(former) = &former {
        show(String::new()).map_err(told)?;
        let lines =
            compare(former, &run).into_iter().map(|(outcome, verdict)| table::verdict(outcome, verdict));
        let lines: Vec<String> = lines.collect();
        // With `--json -` too the comparison is for who asked for it.
        if json_only { report!("{}", lines.join("\n")) } else { show(lines.join("\n")).map_err(told)? }
    }
    write(options, &run, json_only).map_err(|e| (FAILED, e))
}

fn recorded(option: &str, path: &Path) -> Told<Run> {
    let text = fs::read_to_string(path).or_else(|e| bad(format!("{option} {}: {e}", path.display())))?;
    read(&text).or_else(|why| bad(format!("{option} {}: {why}", path.display())))
}

fn measure(asked: &[&str], share: u64, each: &mut dyn FnMut(Outcome)) -> Result<(), String> {
    let mut of_kills: Vec<Outcome> = Vec::new();
    for &case in asked {
        let mut bench = Bench { args: &PEER, share, each };
        let of_star = match case {
            "latency" => Some(cases::latency(&mut bench)),
            "throughput" => Some(cases::throughput(&mut bench)),
            "placement" => Some(cases::placement(&mut bench)),
            "sparse" => Some(cases::sparse(&mut bench)),
            "text" => Some(cases::text(&mut bench)),
            "message" => Some(messages::message(&mut bench)),
            "step" => Some(cases::step(&mut bench)),
            "fan" => Some(
                raise_descriptor_limit("the largest fan", cases::FAN_DESCRIPTORS)
                    .map_err(std::io::Error::other)
                    .and_then(|()| cases::fan(&mut bench)),
            ),
            "scale" => {
                // After other cases this process is larger than a supervisor.
                let measured = match asked.len() {
                    1 => scale::run(share, &mut bench),
                    _ => apart(case, share).map(|outcomes| outcomes.into_iter().for_each(&mut *bench.each)),
                };
                Some(measured.map_err(std::io::Error::other))
            }
            "takeover" => Some(takeover::run(share, &mut bench).map_err(std::io::Error::other)),
            "orphans" => Some(orphans::run(share, &mut bench).map_err(std::io::Error::other)),
            _ => None,
        };
        if let Some(measured) = of_star {
            measured.map_err(|e| format!("measuring {case}: {e}"))?;
            continue;
        }
        if case == "removal" {
            let measured =
                removals::run(lives::kills(share)).map_err(|e| format!("measuring {case}: {e}"))?;
            (bench.each)(measured);
            continue;
        }
        if case == "hang" {
            let measured = hangs::run(lives::kills(share)).map_err(|e| format!("measuring {case}: {e}"))?;
            measured.into_iter().for_each(&mut *bench.each);
            continue;
        }
        if case == "hardship" {
            for plan in lives::Plan::hard(share) {
                let measured = plan.measure().map_err(|e| format!("measuring {case}: {e}"))?;
                measured.into_iter().for_each(&mut *bench.each);
            }
            continue;
        }
        // Starts and recoveries are of the same kills.
        if of_kills.is_empty() {
            for plan in lives::Plan::plain(share) {
                of_kills.extend(plan.measure().map_err(|e| format!("measuring {case}: {e}"))?);
            }
        }
        of_kills.iter().filter(|outcome| outcome.case == case).cloned().for_each(&mut *bench.each);
    }
    Ok(())
}

/// Measures a case in a process of its own.
fn apart(case: &str, share: u64) -> Result<Vec<Outcome>, String> {
    let mut command = Command::new(config::own_binary()?);
    command.args(["bench", case, "--json", "-"]).args((share > 1).then_some("--quick"));
    let ended = command.stderr(Stdio::inherit()).output().map_err(|e| format!("starting it: {e}"))?;
    match ended.status.success() {
        true => Ok(read(&String::from_utf8_lossy(&ended.stdout))?.results),
        false => Err(format!("its process ended with {}", ended.status)),
    }
}

fn write(options: &BenchOptions, run: &Run, json_only: bool) -> Result<(), String> {
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(run).map_err(|e| e.to_string())? + "\n";
        match json_only {
            true => print(text.as_bytes()).map(drop).map_err(|failure| failure.to_string())?,
            false => fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display()))?,
        }
    }
    if let Some(folder) = &options.report {
        let path = folder.join("bench.html");
        fs::write(&path, html::page(run)).map_err(|e| format!("writing {}: {e}", path.display()))?;
        report!("shoal bench: wrote {}", path.display());
    }
    Ok(())
}
