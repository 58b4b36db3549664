//! The thin binary.
fn main() -> std::process::ExitCode {
    shoal::run::run(std::path::Path::new(&std::env::args().nth(2).unwrap_or_default()))
}
