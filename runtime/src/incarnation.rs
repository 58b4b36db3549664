//! Which life of which agent.

use core::fmt;

/// One life of one agent: the agent's index in the swarm and the number of this life.
///
/// Generations start at 1, only grow, and may skip numbers: a start that failed used one up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Incarnation {
    /// The agent's index on the board.
    pub agent: u32,
    /// The number of this life.
    pub generation: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent {} generation {}", self.agent, self.generation)
    }
}

/// What a peer wrote and cannot be true: evidence against that incarnation, not proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFault {
    /// Whose memory held the impossible value.
    pub incarnation: Incarnation,
    /// What was seen, in words for an operator.
    pub what: String,
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer fault of {}: {}", self.incarnation, self.what)
    }
}

impl std::error::Error for PeerFault {}
