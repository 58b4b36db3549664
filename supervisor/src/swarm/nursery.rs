//! Where the processes are that no agent has yet: zygotes, and their forks (`zygote.rs` says what becomes of them).

use crate::config;
use crate::spawn::{self, Child};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

/// What a process of a nursery is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// The zygote, which has not said yet that it can be forked.
    Starting,
    /// The zygote, which takes orders.
    Fit,
    /// A fork that was ordered and has not spoken.
    Egg,
    /// A fork that waits to be an agent's process.
    Forked,
}

/// A process that is no agent's yet, or never.
pub(super) struct Member {
    pub(super) serial: u32,
    pub(super) role: Role,
    /// None of an egg: who it is, it has yet to say.
    pub(super) child: Option<Child>,
    pub(super) control: OwnedFd,
    pub(super) pipes: [Option<OwnedFd>; 2],
    /// When it was started, or ordered.
    pub(super) since: Instant,
    /// It is being ended.
    pub(super) ordered: bool,
}

impl Member {
    pub(super) fn kill(&self) {
        self.child.iter().for_each(spawn::kill_tree);
    }

    pub(super) fn is_zygote(&self) -> bool {
        matches!(self.role, Role::Starting | Role::Fit) && !self.ordered
    }

    pub(super) fn is_to_take(&self) -> bool {
        self.role == Role::Forked && !self.ordered && !self.child.as_ref().is_some_and(Child::is_dead)
    }
}

/// The zygote of one agent of the swarm file, and its forks that are no agent's processes yet.
#[derive(Default)]
pub(super) struct Nursery {
    /// What the zygote was started by.
    pub(super) of: Option<config::Agent>,
    pub(super) members: Vec<Member>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Until when nothing is tried.
    pub(super) pause: Option<Instant>,
    /// It said that it cannot be forked.
    pub(super) unfit: bool,
}

impl Nursery {
    pub(super) fn zygote(&self) -> Option<&Member> {
        self.members.iter().find(|m| m.is_zygote())
    }

    pub(super) fn has_egg(&self) -> bool {
        self.members.iter().any(|m| m.role == Role::Egg)
    }

    pub(super) fn pauses(&self) -> bool {
        self.pause.is_some_and(|until| Instant::now() < until)
    }
}

/// All of a swarm.
#[derive(Default)]
pub(super) struct Nurseries {
    pub(super) of: BTreeMap<usize, Nursery>,
    pub(super) serial: u32,
}

impl Nurseries {
    /// Whether no process is left.
    pub(super) fn are_empty(&self) -> bool {
        self.of.values().all(|nursery| nursery.members.is_empty())
    }

    /// Whether a process is one of theirs.
    pub(super) fn know(&self, pid: i32) -> bool {
        let mut members = self.of.values().flat_map(|nursery| &nursery.members);
        members.any(|m| m.child.as_ref().is_some_and(|child| child.pid == pid))
    }

    /// Whether there may be processes of theirs that nobody knows yet.
    pub(super) fn hatch(&self) -> bool {
        self.of.values().any(Nursery::has_egg)
    }

    pub(super) fn member(&mut self, config: usize, serial: u32) -> Option<&mut Member> {
        self.of.get_mut(&config)?.members.iter_mut().find(|m| m.serial == serial)
    }

    pub(super) fn remove(&mut self, config: usize, serial: u32) -> Option<Member> {
        let members = &mut self.of.get_mut(&config)?.members;
        let place = members.iter().position(|m| m.serial == serial)?;
        Some(members.remove(place))
    }
}

/// Which descriptor of a process is meant, in the low bits of what the event loop is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its control socket.
    Control = 0,
    /// Its death.
    Death = 1,
    /// Its standard output.
    Output = 2,
    /// Its standard error.
    Errors = 3,
}

/// The descriptors of one process, and what the event loop says when one is ready.
pub type Watched<'s> = Vec<(BorrowedFd<'s>, u32, End)>;

pub(super) fn word(serial: u32, end: End) -> u32 {
    serial << 2 | end as u32
}
