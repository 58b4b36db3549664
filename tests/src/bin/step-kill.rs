//! Kills agents at every instruction and prints what was wrong: see `scripts/step-kill` and `shoal_tests::step_kill`.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use shoal_tests::step_kill::{Extent, everything, report::Report};
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    let after = |name: &str| std::env::args().skip_while(|arg| arg != name).nth(1);
    let only = after("--only").unwrap_or_default();
    let part = after("--part").map(|text| {
        let numbers = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        numbers.filter(|(k, n): &(usize, usize)| k < n)
    });
    let part = match part {
        None => (0, 1),
        Some(Some(part)) => part,
        Some(None) => {
            eprintln!("step-kill: --part takes K/N, K from 0 to N - 1");
            return std::process::ExitCode::from(2);
        }
    };
    let mut report = Report { first_only: given("--first"), only, part, ..Report::default() };
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
