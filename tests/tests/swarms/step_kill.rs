//! A death at every instruction: a very short form, so that it never rots. `scripts/step-kill` is the whole.
#![cfg(target_arch = "x86_64")]

use std::process::Command;

/// Goal: the tracer, its judge and every mode work on this build. Method: the binary itself, because it forks and traces
/// and so wants one thread; a few steps and a sparse sample of the boundaries.
#[test]
fn agents_killed_at_sampled_instructions_leave_exactly_what_they_committed() {
    let out = Command::new(env!("CARGO_BIN_EXE_step-kill")).arg("--smoke").output().expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    let told = format!("{text}{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && last.ends_with(" violations=0"), "{told}");
    let count = |name: &str| {
        let word = last.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    assert!(count("boundaries") > 10_000 && count("images") > 1_000, "{told}");
}
