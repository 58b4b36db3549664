//! The command line itself, built with the tests.

/// For what `shoal agent bench` takes, as any agent that is to be back soon.
#[global_allocator]
static MEMORY: shoal_agent::LargePages = shoal_agent::LargePages;

fn main() -> std::process::ExitCode {
    shoal::main()
}
