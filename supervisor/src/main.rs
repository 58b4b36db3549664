//! The thin binary.
fn main() -> std::process::ExitCode {
    shoal::main()
}
