//! Kills agents at every instruction and prints what was wrong: see `scripts/step-kill` and `shoal_tests::step_kill`.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use shoal_tests::step_kill::{Extent, everything, report::Report};
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1).unwrap_or_default();
    let mut report = Report { first_only: given("--first"), only, ..Report::default() };
    let extent = match () {
        () if given("--smoke") => Extent::SMOKE,
        () if given("--quick") => Extent::QUICK,
        () => Extent::FULL,
    };
    if let Err(error) = everything(extent, &mut report) {
        eprintln!("step-kill: {error}");
        return std::process::ExitCode::from(2);
    }
    report.print();
    std::process::ExitCode::from(u8::from(!report.violations.is_empty()))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("step-kill: single-stepping is written for x86-64 only");
}
