//! What a journal's records hold, as plain words. One record an agent, one for the swarm as a whole.
//!
//! A new field of [`crate::agent::Agent`] or of the swarm is journalled in two lines: one where its record is made (`swarm/kept.rs`), one where it is
//! taken over (`swarm/kept/take_over.rs`).

use crate::keeper::table::Held;
use crate::restart::Streak;
use crate::strategy::Standing;
use rkyv::{Archive, Deserialize, Serialize};
use shoal_runtime::board::{Verdict, VerdictKind};
use shoal_runtime::layout::BoardShape;
use shoal_runtime::mark::Place;
use std::time::Duration;

/// A place, as words.
pub type Words = (u64, u64);

/// An agent.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct AgentRecord {
    /// Its state, by its place in `State::ALL`.
    pub state: u8,
    /// What it was when it had gone, the same way, while somebody reads in its place.
    pub stand_in: Option<u8>,
    pub state_serial: u64,
    pub generation: u32,
    /// The last number that was used, by a standby perhaps.
    pub numbered: u32,
    pub streak: Streak,
    pub live: Option<LiveRecord>,
    pub graves: Vec<GraveRecord>,
    pub last: VerdictRecord,
    /// Without the zeros at its end.
    pub last_state: Vec<u8>,
    /// How long it is with them.
    pub last_state_bytes: u64,
    pub was_ready: bool,
    pub restarts: u64,
    pub rescues: u64,
    pub hangs: u64,
    pub faults: u64,
    /// Sent, received.
    pub past: Words,
    pub past_latency: Vec<u64>,
    pub died_at: Option<(u32, u64)>,
    pub last_ending: Option<String>,
    /// Generation, how, when since the start.
    pub last_crash: Option<(u32, String, Duration)>,
    /// What for (by its place in `Timer::KEPT`), when (CLOCK_MONOTONIC ns), in which state.
    pub paused: bool,
    pub timer: Option<(u8, u64, u64)>,
}

/// A living incarnation: its descriptors by their numbers, and what they are of.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct LiveRecord {
    pub generation: u32,
    pub owner: u32,
    pub pid: i32,
    pub pidfd: Held,
    pub control: Held,
    pub segment: Held,
    pub doorbell: Held,
    /// None for one that ended.
    pub pipes: [Held; 2],
    /// None before it was sealed.
    pub read_only: Held,
    pub going: bool,
    pub begun: bool,
    pub by: Option<String>,
    pub born_ns: u64,
    pub killed_ns: Option<u64>,
    pub violated_ns: Option<u64>,
    pub ordered: bool,
}

/// A dead incarnation that is not drained.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct GraveRecord {
    pub generation: u32,
    pub read_only: Held,
    pub doorbell: Held,
    pub ends: Vec<Words>,
}

/// A verdict.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct VerdictRecord {
    pub generation: u32,
    pub corrupt: bool,
    pub lanes: Vec<Words>,
    pub inputs: Vec<Words>,
}

/// The swarm as a whole.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq, Default)]
pub struct SwarmRecord {
    /// 0: it is not ending; 1: killed; 2: its start is undone; n + 3: in stage n.
    pub ends: u64,
    /// When the stage has had its time, CLOCK_MONOTONIC ns.
    pub stage_due_ns: u64,
    pub waiting: Vec<u64>,
    pub failed_start: Option<String>,
    pub escalated: Option<String>,
    pub kills_proven: u64,
    pub accusations: u64,
    /// The number of the last incarnation, of all agents together.
    pub owners: u32,
    /// The number of the last batch of dead letters.
    pub batch: u64,
    /// The number of the next dead letter.
    pub letters: u64,
    /// As JSON.
    pub trials: Vec<u8>,
    /// What each companion wants to be kept, by its name.
    pub companions: Vec<(String, Vec<u8>)>,
    /// What hooks are still to be told of, as JSON.
    pub happenings: Vec<u8>,
    /// What the sets are doing.
    pub sets: Standing,
    /// Who was stopped for a reload that is under way, and runs again if nothing comes of it.
    pub called: Vec<u64>,
    /// Who is struck for a reload that was applied.
    pub struck: Vec<u64>,
    /// Who is started again for it: agent, generation.
    pub again: Vec<(u64, u32)>,
    pub upgrade: Option<UpgradeRecord>,
}

/// An upgrade that is under way.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct UpgradeRecord {
    pub config: u64,
    pub command: Vec<String>,
    pub proof: (Duration, Option<u64>),
    pub todo: Vec<u64>,
    pub done: Vec<u64>,
    /// Whose turn it is: agent, the generation and the deaths that it had before.
    pub now: Option<(u64, u32, u64)>,
    pub failed: Option<String>,
}

/// What a swarm was changed to.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub struct StandRecord {
    /// Its file, merged, as JSON.
    pub file: Vec<u8>,
    /// Who reads whom, as JSON.
    pub topology: Vec<u8>,
    pub board: BoardShape,
    /// The descriptors of each group's memory: for members, for producers.
    pub groups: Vec<(Held, Held)>,
    /// How often it was changed.
    pub reloads: u64,
}

/// A place as words.
pub fn words(place: &Place) -> Words {
    (place.position, place.sequence)
}

/// Words as a place.
pub fn place(&(position, sequence): &Words) -> Place {
    Place { position, sequence }
}

impl VerdictRecord {
    /// Of a verdict.
    pub fn of(verdict: &Verdict) -> VerdictRecord {
        VerdictRecord {
            generation: verdict.generation,
            corrupt: verdict.kind == VerdictKind::Corrupt,
            lanes: verdict.lanes.iter().map(words).collect(),
            inputs: verdict.inputs.iter().map(words).collect(),
        }
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        Verdict {
            generation: self.generation,
            kind: if self.corrupt { VerdictKind::Corrupt } else { VerdictKind::Committed },
            lanes: self.lanes.iter().map(place).collect(),
            inputs: self.inputs.iter().map(place).collect(),
        }
    }
}
