//! Small agents and a swarm file to learn from.
