//! What was looked at, and what was wrong.

use std::fmt::Display;

/// Counts and violations of a run.
#[derive(Default)]
pub struct Report {
    /// Instruction boundaries at which an agent stood or died.
    pub boundaries: u64,
    /// Distinct images of shared memory that were judged.
    pub images: u64,
    /// What was wrong, one line each.
    pub violations: Vec<String>,
    /// Whether the first violation ends everything.
    pub first_only: bool,
    /// If not empty, only modes whose name with the story's (`killed/group`) begins so; and snapshots, which the others need.
    pub only: String,
    /// Which part of so many: modes of stories go to the parts in turns, the snapshots to the first.
    pub part: (usize, usize),
    /// Modes of stories that came up so far.
    pub turn: usize,
}

/// Violations that are printed at most.
const PRINTED_MAX: usize = 40;

impl Report {
    /// Notes what was wrong.
    pub fn violation(&mut self, scenario: &str, rip: Option<u64>, what: impl Display) {
        let place =
            rip.map(|rip| format!(" at {}", place_of(rip))).filter(|_| self.violations.len() < PRINTED_MAX);
        self.violations.push(format!("{scenario}{}: {what}", place.unwrap_or_default()));
    }

    /// Whether there is nothing more to find out.
    pub fn enough(&self) -> bool {
        self.violations.len() >= if self.first_only { 1 } else { 1000 }
    }

    /// Whether a mode of a story is wanted, and is this part's.
    pub fn wants(&mut self, mode: &str, story: &str) -> bool {
        if mode == "snapshot" {
            return true;
        }
        let (part, parts) = self.part;
        self.turn += 1;
        self.turn % parts.max(1) == part && format!("{mode}/{story}").starts_with(&self.only)
    }

    /// Prints the violations and the one line that ends a run.
    pub fn print(&self) {
        self.violations.iter().take(PRINTED_MAX).for_each(|line| println!("VIOLATION {line}"));
        println!(
            "boundaries={} images={} violations={}",
            self.boundaries,
            self.images,
            self.violations.len()
        );
    }
}

/// Function and line of an instruction of this program, as far as `addr2line` is there and knows.
fn place_of(rip: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let exe = std::env::current_exe().unwrap_or_default();
    let exe = exe.to_string_lossy();
    let base = maps.lines().find(|line| line.ends_with(exe.as_ref()));
    let base = base.and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok()).unwrap_or(0);
    let offset = format!("{:#x}", rip.wrapping_sub(base));
    let named = std::process::Command::new("addr2line").args(["-Cfse", &exe, &offset]).output();
    let text = named.map(|out| String::from_utf8_lossy(&out.stdout).replace('\n', " ")).unwrap_or_default();
    format!("{} ({offset})", text.trim())
}
