//! The supervisor.

pub mod child;
pub mod config;
pub mod demo;
pub mod restart;
pub mod topology;
