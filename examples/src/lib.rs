//! Small agents and a swarm file to learn from: `wordcount.toml` starts the three in `src/bin`.

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
