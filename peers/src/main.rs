//! The command line of the peers: `scripts/peers` builds and runs it.

use clap::Parser;
use shoal_measure::outcome::size;
use shoal_peers::registry::{PEERS, Peer};
use shoal_peers::run::{Asked, ROUNDS, base, run};
use shoal_peers::wire::Mode;
use shoal_peers::{end, report, server};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures what one could use instead of Shoal, beside Shoal and the machine's floor, in turns. Exit status: 0 measured,
/// 1 something failed or delivered wrongly, 2 wrong use.
#[derive(Parser)]
#[command(name = "peers")]
struct Options {
    /// Only these peers (default: all)
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_parser = peer)]
    only: Vec<Peer>,
    /// Sizes of the messages in bytes, multiples of 8: 8, or 40 and more
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = bytes, default_values_t = [8, 64, 1024, 16 << 10, 64 << 10])]
    sizes: Vec<usize>,
    /// Only this way of waiting: spin or parked
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
    /// Write the results as JSON; `-` is standard output, which has nothing else then
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Few messages and rounds: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
}

fn peer(name: &str) -> Result<Peer, String> {
    Peer::named(name)
        .ok_or_else(|| format!("there is no such peer; there are: {}", PEERS.map(Peer::name).join(", ")))
}

fn mode(name: &str) -> Result<Mode, String> {
    [Mode::Spin, Mode::Parked]
        .into_iter()
        .find(|mode| mode.name() == name)
        .ok_or_else(|| "spin or parked".to_owned())
}

fn bytes(said: &str) -> Result<usize, String> {
    let right = |&bytes: &usize| bytes.is_multiple_of(8) && (bytes == 8 || (40..=BYTES_MAX).contains(&bytes));
    said.parse().ok().filter(right).ok_or_else(|| format!("a multiple of 8: 8, or 40 to {BYTES_MAX}"))
}

/// Half of a lane is the most that a message may take.
const BYTES_MAX: usize = 256 << 10;

fn main() -> ExitCode {
    shoal_measure::peer::run_if_peer();
    server::run_if_server();
    end::run_if_end();
    let options = Options::parse();
    match measure(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> std::io::Result<bool> {
    let asked = Asked {
        peers: if options.only.is_empty() { PEERS.into() } else { options.only.clone() },
        sizes: options.sizes.clone(),
        modes: options.mode.map_or_else(|| vec![Mode::Spin, Mode::Parked], |mode| vec![mode]),
        rounds: if options.quick { 3 } else { ROUNDS },
        share: if options.quick { 10 } else { 1 },
        base: base(),
    };
    let json_only = options.json.as_deref() == Some("-".as_ref());
    if !json_only {
        println!("{}", report::head(&shoal_measure::outcome::Machine::here()));
    }
    let mut before = None;
    let report = run(&asked, &mut |row| {
        if !json_only {
            let here = (row.case.clone(), row.mode.clone(), row.size_bytes);
            if before.as_ref().is_some_and(|before| *before != here) {
                println!();
            }
            println!("{}", report::line(row));
            before = Some(here);
        }
    })?;
    let missing = report.missing();
    if json_only {
        missing.iter().for_each(|line| eprintln!("{line}"));
    } else {
        println!();
        missing.iter().for_each(|line| println!("{line}"));
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        if json_only {
            print!("{text}");
        } else {
            std::fs::write(path, text)
                .map_err(|e| std::io::Error::other(format!("writing {}: {e}", path.display())))?;
        }
    }
    for failed in report.not_measured.iter().filter(|missing| missing.failed) {
        let place =
            failed.size_bytes.map_or(String::new(), |bytes| format!(" with messages of {}", size(bytes)));
        eprintln!("peers: {} failed{place}: {}", failed.peer, failed.why);
    }
    Ok(!report.not_measured.iter().any(|missing| missing.failed))
}
