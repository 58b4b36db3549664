//! The command line itself, built with the tests.

fn main() -> std::process::ExitCode {
    shoal::main()
}
