//! What is in memory.
