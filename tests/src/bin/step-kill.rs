//! Kills agents at every instruction and prints what was wrong: see `scripts/step-kill` and `shoal_tests::step_kill`.

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use shoal_tests::step_kill::{report::Report, snapshot, story::Story, tracer};
    let given = |name: &str| std::env::args().any(|arg| arg == name);
    tracer::pin();
    tracer::adopt_orphans();
    let mut report = Report { first_only: given("--first"), ..Report::default() };
    let stories = [Story::step(8), Story::send(12), Story::ack(4), Story::plain_ack(4)];
    for story in &stories {
        let began = std::time::Instant::now();
        let before = (report.boundaries, report.images);
        if let Err(error) = snapshot::run(story, &mut report) {
            eprintln!("step-kill: {}: {error}", story.name);
            return std::process::ExitCode::from(2);
        }
        eprintln!(
            "snapshot {}: {} boundaries, {} images, {:?}",
            story.name,
            report.boundaries - before.0,
            report.images - before.1,
            began.elapsed()
        );
    }
    report.print();
    std::process::ExitCode::from(u8::from(!report.violations.is_empty()))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("step-kill: single-stepping is written for x86-64 only");
}
