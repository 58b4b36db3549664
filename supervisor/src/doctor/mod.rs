//! The doctor: what the kernel and the limits of this machine give, what a swarm file needs of them, and what former runs
//! left. Nothing is believed because of a version number: each thing is tried, what could change this process in one of its
//! own (`shoal doctor-probe`).
//!
//! What lives here: findings and what they amount to. `probe.rs` (UNSAFE) tries the kernel, `limits.rs` does the sums,
//! `strays.rs` looks for what was left.

pub mod limits;
pub mod probe;
pub mod strays;

use serde::Serialize;

/// What a finding means for running swarms here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It is as it should be.
    Fine,
    /// It is worth knowing; nothing is lacking.
    Note,
    /// Something works less well, or not at all; swarms run.
    Limits,
    /// Swarms do not run, or this one does not.
    Stops,
}

impl Weight {
    /// The word that people see.
    pub fn word(self) -> &'static str {
        match self {
            Weight::Fine => "ok",
            Weight::Note => "note",
            Weight::Limits => "limits",
            Weight::Stops => "STOPS",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which group it is shown in: `kernel`, `bounds`, `strays`.
    pub group: &'static str,
    /// What was looked at.
    pub what: String,
    /// What it means.
    pub weight: Weight,
    /// What was found.
    pub found: String,
    /// What its lack means, and what to do; empty when it is fine.
    pub advice: String,
}

impl Finding {
    /// A finding that is as it should be.
    pub fn fine(group: &'static str, what: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { group, what: what.into(), weight: Weight::Fine, found: found.into(), advice: String::new() }
    }

    /// One that is not.
    pub fn lack(
        group: &'static str,
        what: impl Into<String>,
        weight: Weight,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { group, what: what.into(), weight, found: found.into(), advice: advice.into() }
    }
}

/// The worst of all findings.
pub fn worst(findings: &[Finding]) -> Weight {
    findings.iter().map(|finding| finding.weight).max().unwrap_or(Weight::Fine)
}
