//! Deliberate bugs, one change of the protocol each, to show that the proofs would notice: `scripts/step-kill --bugs`.
//!
//! Without the feature `seeded-bugs`, which nothing but that script turns on, [`placed`] is `false` at compile time.

/// Declares [`Bug`] and the list of all bugs in one place.
macro_rules! bugs {
    ($($name:ident,)*) => {
        /// A change of the protocol that must not go unnoticed.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "documented by their names and by what stands where they are placed")]
        pub enum Bug { $($name,)* }

        #[cfg(feature = "seeded-bugs")]
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
    #[cfg(feature = "seeded-bugs")]
    return seeded::placed(bug);
    #[cfg(not(feature = "seeded-bugs"))]
    {
        let _ = bug;
        false
    }
}

#[cfg(feature = "seeded-bugs")]
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
