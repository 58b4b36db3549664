//! `shoal`, for the tests of attacks: this package cannot name the binary of another.
fn main() -> std::process::ExitCode {
    shoal::main()
}
