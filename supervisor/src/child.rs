//! The life of one agent as a pure table: child state × event → (state, action).
//!
//! What lives here: which state follows, and what the event loop is to do. What does not: time (`restart.rs`
//! decides the pause of a back-off and when to give up), processes (`spawn.rs`, `death.rs`), waiting
//! (`event_loop.rs`).
//!
//! ```text
//!            Spawn            Ready              StopAsked            Exited
//!   stopped ───────> starting ─────> ready ──────────────> stopping ─────────> stopped
//!                     ^    └──────────┤ Exited
//!          BackoffOver│               v             GaveUp
//!                     └──────────── backoff ──────────────────> failed
//! ```
//!
//! An agent whose set restarts is `SetAside`: it ends, and is `aside` until it is `Recalled` (`strategy.rs`).
//!
//! Two rules for the event loop. Timers belong to a state: leaving the state cancels them, so that no event
//! of an earlier life arrives. And `Exited` means a *proved* death: the pidfd is readable and the write seal
//! of the dead's segment was granted; a death that cannot be proved within a second is `ProofRefused`.

mod page;

pub use page::table_markdown;

use crate::restart::Policy;

/// What follows when the present process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The policy decides, as after any death.
    Decide,
    /// Nothing: the agent was asked to stop.
    Rest,
    /// A start at once: a restart was asked for.
    Start,
    /// It waits until the restart of its set comes to it.
    Aside,
}

/// Where an agent is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Spawned, or about to be; it has not said ready yet.
    Starting,
    /// It said ready.
    Ready,
    /// It is being ended: asked (`Rest`, `Start`, `Aside`), or killed because it did not become ready, or hung (`Decide`).
    Stopping(Next),
    /// Its process is gone but something may still write its memory: no verdict and no successor.
    Unproven(Next),
    /// Dead; waits for its next start.
    Backoff,
    /// Dead; the next start waits until readers have drained enough predecessors (`history`), a zygote has forked, or descriptors
    /// can be handed over.
    Draining,
    /// Dead; its set restarts, and has not come to it yet.
    Aside,
    /// Not running because it was stopped.
    Stopped,
    /// Not running because it was given up.
    Failed,
    /// Not running because its policy says that it is done.
    Ended,
}

impl State {
    /// Every state, in the order of the documentation.
    pub const ALL: [State; 16] = [
        State::Starting,
        State::Ready,
        State::Stopping(Next::Decide),
        State::Stopping(Next::Rest),
        State::Stopping(Next::Start),
        State::Stopping(Next::Aside),
        State::Unproven(Next::Decide),
        State::Unproven(Next::Rest),
        State::Unproven(Next::Start),
        State::Unproven(Next::Aside),
        State::Backoff,
        State::Draining,
        State::Aside,
        State::Stopped,
        State::Failed,
        State::Ended,
    ];

    /// The word that users see: one of `starting ready stopping backoff stopped failed`.
    pub fn shown(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Stopping(_) | State::Unproven(_) => "stopping",
            State::Backoff | State::Draining | State::Aside => "backoff",
            State::Stopped | State::Ended => "stopped",
            State::Failed => "failed",
        }
    }

    /// The exact name, for logs and the documentation.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Stopping(Next::Decide) => "stopping, then decide",
            State::Stopping(Next::Rest) => "stopping",
            State::Stopping(Next::Start) => "stopping, then start",
            State::Stopping(Next::Aside) => "stopping, then aside",
            State::Unproven(Next::Decide) => "unproven, then decide",
            State::Unproven(Next::Rest) => "unproven",
            State::Unproven(Next::Start) => "unproven, then start",
            State::Unproven(Next::Aside) => "unproven, then aside",
            State::Backoff => "backoff",
            State::Draining => "draining",
            State::Aside => "aside",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::Ended => "ended",
        }
    }

    /// Whether a process of the agent may exist, so that its death is still to come (and to be proved).
    pub fn may_live(self) -> bool {
        matches!(self, State::Starting | State::Ready | State::Stopping(_) | State::Unproven(_))
    }

    /// Whether nothing happens any more unless an operator asks.
    pub fn is_at_rest(self) -> bool {
        matches!(self, State::Stopped | State::Failed | State::Ended)
    }
}

/// What happens to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The process exists.
    Spawned,
    /// The process could not be made, or could not execute its command.
    SpawnFailed,
    /// The agent said ready.
    Ready,
    /// The process is gone, and that is proved.
    Exited {
        /// It ended by itself with status 0.
        normal: bool,
        /// An operator, the demo or chaos ordered this death: it does not count towards the intensity.
        ordered: bool,
    },
    /// The process is gone, but the proof is refused for a second now.
    ProofRefused,
    /// An operator, or the shutdown, asks the agent to stop.
    StopAsked,
    /// An operator asks for a start.
    StartAsked,
    /// An operator asks for a stop and a start.
    RestartAsked,
    /// An operator, the demo or chaos asks for a SIGKILL; the `Exited` that follows is `ordered`.
    KillAsked,
    /// The agent did not say ready within `ready_timeout`.
    ReadyTimedOut,
    /// The agent holds a message beyond its `deadline`.
    Hung,
    /// The agent did not end within `stop_timeout`, or after an abort within its grace.
    StopTimedOut,
    /// The pause before the next start is over.
    BackoffOver,
    /// `restart.rs` says that there were too many deaths, or its set was given up.
    GaveUp,
    /// Its set restarts, or it has to wait for its set's restart.
    SetAside,
    /// The restart of its set has come to it.
    Recalled,
    /// The start that was due must wait: too many predecessors are not drained, or a fork is on its way.
    HistoryFull,
    /// Enough predecessors are drained, and a fork is there: a waiting start can be made.
    HistoryFreed,
}

impl Event {
    /// Every event, in the order of the documentation.
    pub const ALL: [Event; 21] = [
        Event::Spawned,
        Event::SpawnFailed,
        Event::Ready,
        Event::Exited { normal: true, ordered: false },
        Event::Exited { normal: false, ordered: false },
        Event::Exited { normal: true, ordered: true },
        Event::Exited { normal: false, ordered: true },
        Event::ProofRefused,
        Event::StopAsked,
        Event::StartAsked,
        Event::RestartAsked,
        Event::KillAsked,
        Event::ReadyTimedOut,
        Event::Hung,
        Event::StopTimedOut,
        Event::BackoffOver,
        Event::GaveUp,
        Event::SetAside,
        Event::Recalled,
        Event::HistoryFull,
        Event::HistoryFreed,
    ];

    /// The name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Event::Spawned => "Spawned",
            Event::SpawnFailed => "SpawnFailed",
            Event::Ready => "Ready",
            Event::Exited { normal: true, ordered: false } => "Exited, normal",
            Event::Exited { normal: false, ordered: false } => "Exited, abnormal",
            Event::Exited { normal: true, ordered: true } => "Exited, normal, ordered",
            Event::Exited { normal: false, ordered: true } => "Exited, abnormal, ordered",
            Event::ProofRefused => "ProofRefused",
            Event::StopAsked => "StopAsked",
            Event::StartAsked => "StartAsked",
            Event::RestartAsked => "RestartAsked",
            Event::KillAsked => "KillAsked",
            Event::ReadyTimedOut => "ReadyTimedOut",
            Event::Hung => "Hung",
            Event::StopTimedOut => "StopTimedOut",
            Event::BackoffOver => "BackoffOver",
            Event::GaveUp => "GaveUp",
            Event::SetAside => "SetAside",
            Event::Recalled => "Recalled",
            Event::HistoryFull => "HistoryFull",
            Event::HistoryFreed => "HistoryFreed",
        }
    }
}

/// What the event loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    None,
    /// Make the next incarnation now; answers with `Spawned`, `SpawnFailed` or `HistoryFull`.
    Spawn,
    /// Set the timer of `ready_timeout`.
    AwaitReady,
    /// Ask `restart.rs`: arm the timer of the pause (or feed `BackoffOver` at once), or feed `GaveUp`.
    SpawnAfter {
        /// Whether the death counts towards the intensity.
        counted: bool,
    },
    /// Ask the process to stop and set the timer of `stop_timeout`.
    AskToStop,
    /// SIGABRT to the process, so that it can leave a trace of where it hangs, and set the timer of the grace.
    Abort,
    /// SIGKILL the whole process tree.
    KillTree,
    /// Strike the agent from its lanes and tell the operator that it failed.
    GiveUp,
    /// Strike the agent from its lanes: it will not return.
    MarkEnded,
}

impl Action {
    /// The name in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Action::None => "",
            Action::Spawn => "Spawn",
            Action::AwaitReady => "AwaitReady",
            Action::SpawnAfter { counted: true } => "SpawnAfter",
            Action::SpawnAfter { counted: false } => "SpawnAfter, not counted",
            Action::AskToStop => "AskToStop",
            Action::Abort => "Abort",
            Action::KillTree => "KillTree",
            Action::GiveUp => "GiveUp",
            Action::MarkEnded => "MarkEnded",
        }
    }
}

/// The table: the state that follows and what is to be done.
///
/// `policy` matters only where a death is decided. An operator's `StartAsked` or `RestartAsked` also gives the
/// agent a clean record (`Intensity::forget`).
pub fn next(state: State, event: Event, policy: Policy) -> (State, Action) {
    use State::{Aside, Backoff, Draining, Ended, Failed, Ready, Starting, Stopped, Stopping, Unproven};
    match event {
        Event::Spawned => match state {
            Starting => (Starting, Action::AwaitReady),
            // Asked to stop while it was being made: nobody was there to be asked.
            Stopping(Next::Rest | Next::Start | Next::Aside) => (state, Action::AskToStop),
            Ready => (Ready, Action::None),
            // Nobody wants this process.
            Stopping(Next::Decide) | Unproven(_) | Backoff | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::KillTree)
            }
        },
        Event::Ready => match state {
            Starting => (Ready, Action::None),
            Ready | Stopping(_) | Unproven(_) | Backoff | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::SpawnFailed => match state {
            Starting | Stopping(_) => gone(state, policy, false, false),
            // There was a process: only a proved `Exited` ends this state.
            Ready | Unproven(_) | Backoff | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::Exited { normal, ordered } => gone(state, policy, normal, ordered),
        Event::ProofRefused => match state {
            Starting | Ready => (Unproven(Next::Decide), Action::KillTree),
            Stopping(next) | Unproven(next) => (Unproven(next), Action::KillTree),
            Backoff | Draining | Aside | Stopped | Failed | Ended => (state, Action::None),
        },
        Event::StopAsked => match state {
            Starting | Ready => (Stopping(Next::Rest), Action::AskToStop),
            // It is being killed, or was aborted and had its grace: that is not waited for twice.
            Stopping(Next::Decide) => (Stopping(Next::Rest), Action::KillTree),
            Stopping(_) => (Stopping(Next::Rest), Action::None),
            Unproven(_) => (Unproven(Next::Rest), Action::None),
            Backoff | Draining | Aside => (Stopped, Action::None),
            Stopped | Failed | Ended => (state, Action::None),
        },
        Event::StartAsked | Event::RestartAsked => match state {
            Starting | Ready if event == Event::StartAsked => (state, Action::None),
            Starting | Ready => (Stopping(Next::Start), Action::AskToStop),
            Stopping(Next::Decide) => (Stopping(Next::Start), Action::KillTree),
            Stopping(_) => (Stopping(Next::Start), Action::None),
            Unproven(_) => (Unproven(Next::Start), Action::None),
            // It is as good as on its way.
            Draining | Aside => (state, Action::None),
            Backoff | Stopped | Failed | Ended => (Starting, Action::Spawn),
        },
        Event::KillAsked => match state {
            Starting | Ready | Stopping(_) | Unproven(_) => (state, Action::KillTree),
            Backoff | Draining | Aside | Stopped | Failed | Ended => (state, Action::None),
        },
        Event::ReadyTimedOut => match state {
            Starting => (Stopping(Next::Decide), Action::KillTree),
            Ready | Stopping(_) | Unproven(_) | Backoff | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::Hung => match state {
            Ready => (Stopping(Next::Decide), Action::Abort),
            // Who is not ready is given no message; who was asked to stop has `stop_timeout`.
            Starting | Stopping(_) | Unproven(_) | Backoff | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::StopTimedOut => match state {
            Stopping(_) | Unproven(_) => (state, Action::KillTree),
            Starting | Ready | Backoff | Draining | Aside | Stopped | Failed | Ended => (state, Action::None),
        },
        Event::BackoffOver => match state {
            Backoff => (Starting, Action::Spawn),
            Starting | Ready | Stopping(_) | Unproven(_) | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::GaveUp => match state {
            Backoff | Draining | Aside => (Failed, Action::GiveUp),
            Starting | Ready | Stopping(_) | Unproven(_) | Stopped | Failed | Ended => (state, Action::None),
        },
        Event::SetAside => match state {
            Starting | Ready => (Stopping(Next::Aside), Action::AskToStop),
            // Its death is its own: that is decided, and counted, first.
            Stopping(Next::Decide) | Unproven(Next::Decide) => (state, Action::None),
            Stopping(Next::Start) => (Stopping(Next::Aside), Action::None),
            Unproven(Next::Start) => (Unproven(Next::Aside), Action::None),
            Backoff | Draining => (Aside, Action::None),
            // Who was asked to rest does not come back with its set.
            Stopping(_) | Unproven(_) | Aside | Stopped | Failed | Ended => (state, Action::None),
        },
        Event::Recalled => match state {
            Aside => (Starting, Action::Spawn),
            Starting | Ready | Stopping(_) | Unproven(_) | Backoff | Draining | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::HistoryFull => match state {
            Starting | Backoff => (Draining, Action::None),
            Ready | Stopping(_) | Unproven(_) | Draining | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
        Event::HistoryFreed => match state {
            Draining => (Starting, Action::Spawn),
            Starting | Ready | Stopping(_) | Unproven(_) | Backoff | Aside | Stopped | Failed | Ended => {
                (state, Action::None)
            }
        },
    }
}

/// The table's part for a process that is gone.
fn gone(state: State, policy: Policy, normal: bool, ordered: bool) -> (State, Action) {
    match state {
        State::Starting | State::Ready | State::Unproven(Next::Decide) => decide(policy, normal, ordered),
        // It was killed because it did not become ready, or hung: a death like a crash, whatever its status says.
        State::Stopping(Next::Decide) => decide(policy, false, ordered),
        State::Stopping(Next::Rest) | State::Unproven(Next::Rest) => (State::Stopped, Action::None),
        State::Stopping(Next::Start) | State::Unproven(Next::Start) => (State::Starting, Action::Spawn),
        State::Stopping(Next::Aside) | State::Unproven(Next::Aside) => (State::Aside, Action::None),
        State::Backoff | State::Draining | State::Aside | State::Stopped | State::Failed | State::Ended => {
            (state, Action::None)
        }
    }
}

/// What the policy makes of a death. A temporary agent that crashed by itself has failed; one that ended
/// normally, or whose death was ordered, has ended.
fn decide(policy: Policy, normal: bool, ordered: bool) -> (State, Action) {
    if policy.restarts(normal) {
        (State::Backoff, Action::SpawnAfter { counted: !ordered })
    } else if normal || ordered {
        (State::Ended, Action::MarkEnded)
    } else {
        (State::Failed, Action::GiveUp)
    }
}

#[cfg(test)]
mod tests;
