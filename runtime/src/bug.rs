//! Deliberate bugs, one change of the protocol each, to show that the proofs would notice: `scripts/step-kill --bugs`.
//!
//! In a release build [`placed`] is `false` at compile time, unless the feature `seeded-bugs` is on, which only that script turns on. A build with
//! debug assertions has them, so that `cargo test` shows what each does to a real swarm; they are placed by `SHOAL_BUG` only.

use std::sync::OnceLock;

/// Declares [`Bug`] and the list of all bugs in one place.
macro_rules! bugs {
    ($($name:ident,)*) => {
        /// A change of the protocol that must not go unnoticed.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "documented by their names and by what stands where they are placed")]
        pub enum Bug { $($name,)* }

        const BUGS: &[Bug] = &[$(Bug::$name,)*];
    };
}

bugs! {
    TailBeforePayload,
    TailBeforeFacts,
    FactsAfterCommit,
    CommitWordsBeforeTail,
    CommitWordAtOnce,
    NextHeaderLeftAlone,
    PaddingNumbered,
    AbortForgotten,
    MarkOneSlot,
    MarkPositionFirst,
    MarkFirstSlotFirst,
    CommitBeforeFields,
    OneRecordSlot,
    ChecksumForgotten,
    RecordOverlooked,
    RecordAlwaysBelieved,
    ConfirmByMarkOnly,
    AcknowledgeBeforeCommit,
    PublishBeforeCommit,
    RecordWithoutInput,
    RecordWithoutLastLane,
    RecordNumberedAhead,
    RecordSpared,
    RecordBeforeLast,
    TakenAlongAcknowledged,
    StateSlotKept,
    StateInPlace,
    StateAbortForgotten,
    VerdictOverlooked,
    VerdictGenerationFirst,
    VerdictSlotNotCleared,
    VerdictNamedFirst,
    EpochBeforeVerdict,
    RingForgotten,
    RingBeforePublish,
    WantForgotten,
    DeathAssumed,
    InheritedByChildren,
    ClaimWithoutIntent,
    ClaimIntentAfterwards,
    ClaimIntentClearedEarly,
    ClaimSettledEarly,
    ClaimUnseen,
    ClaimWithoutLap,
    ClaimEndForgotten,
    FrontierOverOwned,
    RecordWithoutClaim,
    ClaimRecordOverlooked,
    ClaimRecordForAny,
    ClaimNeverReturned,
    ClaimReturnedTwice,
    ClaimOfAnybody,
    AttemptsForgotten,
    AttemptsForHeld,
    ReturnNotTold,
    ReturnToldOnce,
    ReturnOverlooked,
    GroupNotRung,
    GroupWantForgotten,
    GroupNotAwaited,
}

/// Whether this build has the bugs in it: said here for the whole crate.
pub const SEEDED: bool = cfg!(any(feature = "seeded-bugs", debug_assertions));

/// What only a bug needs: nothing, of no size, in a build without them.
pub(crate) type IfSeeded<T> = [T; SEEDED as usize];

/// Whether the environment names this bug in `SHOAL_BUG`.
#[inline(always)]
pub fn placed(bug: Bug) -> bool {
    SEEDED && is_named(bug)
}

fn is_named(bug: Bug) -> bool {
    static PLACED: OnceLock<Option<Bug>> = OnceLock::new();
    let placed = PLACED.get_or_init(|| {
        let named = std::env::var("SHOAL_BUG").ok()?;
        let found = BUGS.iter().copied().find(|bug| format!("{bug:?}") == named);
        Some(found.unwrap_or_else(|| panic!("SHOAL_BUG={named} names no bug of bug.rs")))
    });
    *placed == Some(bug)
}
