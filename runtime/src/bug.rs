//! Deliberate bugs, one change of the protocol each, to show that the proofs would notice: `scripts/step-kill --bugs`.
//!
//! In a release build [`placed`] is `false` at compile time, unless the feature `seeded-bugs` is on, which only that script turns on. A build with
//! debug assertions has them, so that `cargo test` shows what each does to a real swarm; they are placed by `SHOAL_BUG` only.

/// Declares [`Bug`] and the list of all bugs in one place.
macro_rules! bugs {
    ($($name:ident,)*) => {
        /// A change of the protocol that must not go unnoticed.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "documented by their names and by what stands where they are placed")]
        pub enum Bug { $($name,)* }

        #[cfg(any(feature = "seeded-bugs", debug_assertions))]
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

/// Whether the environment names this bug in `SHOAL_BUG`.
#[inline(always)]
pub fn placed(bug: Bug) -> bool {
    #[cfg(any(feature = "seeded-bugs", debug_assertions))]
    return seeded::placed(bug);
    #[cfg(not(any(feature = "seeded-bugs", debug_assertions)))]
    {
        let _ = bug;
        false
    }
}

#[cfg(any(feature = "seeded-bugs", debug_assertions))]
mod seeded {
    use super::{BUGS, Bug};
    use std::sync::OnceLock;

    pub(super) fn placed(bug: Bug) -> bool {
        static PLACED: OnceLock<Option<Bug>> = OnceLock::new();
        let placed = PLACED.get_or_init(|| {
            let named = std::env::var("SHOAL_BUG").ok()?;
            let found = BUGS.iter().copied().find(|bug| format!("{bug:?}") == named);
            Some(found.unwrap_or_else(|| panic!("SHOAL_BUG={named} names no bug of bug.rs")))
        });
        *placed == Some(bug)
    }
}
