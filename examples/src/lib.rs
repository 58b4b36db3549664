//! Small agents and swarm files to learn from: `wordcount.toml` starts lister, workers and collector, `ticks.toml` starts
//! ticker and teller; all are in `src/bin`.

/// A file to count.
#[shoal_agent::message]
pub struct Task {
    /// Its path.
    pub path: String,
}

/// A file counted.
#[shoal_agent::message]
pub struct Count {
    /// Its path.
    pub path: String,
    /// Words in it.
    pub words: u64,
}

/// A number, one more than the last.
#[shoal_agent::message]
pub struct Tick {
    /// The number.
    pub number: u64,
}
