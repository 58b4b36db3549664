//! What becomes of what a reader had not read when it will not return by itself. Pure.
//!
//! What lives here: the words of the swarm file, and what follows from them. What does not: who does it (`swarm/gone.rs`), and the process
//! that reads in the place of who is gone (`stand_in.rs`).

/// What the swarm file says about the messages that an agent leaves unread when it has ended for good, was given up or was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnGone {
    /// They are counted, and nobody waits for it any more.
    #[default]
    Drop,
    /// They are put with the dead letters; then nobody waits for it any more.
    DeadLetter,
    /// They are kept, and what is sent from then on, too: its lanes fill until an operator decides.
    Block,
}

impl OnGone {
    /// All, in the order of the documentation.
    pub const ALL: [OnGone; 3] = [OnGone::Drop, OnGone::DeadLetter, OnGone::Block];

    /// The word of the swarm file.
    pub fn word(self) -> &'static str {
        match self {
            OnGone::Drop => "drop",
            OnGone::DeadLetter => "dead-letter",
            OnGone::Block => "block",
        }
    }

    /// What becomes of what a reader that a changed file removes has not read.
    pub fn says(self) -> &'static str {
        match self {
            OnGone::Drop => "dropped",
            OnGone::DeadLetter => "put with the dead letters",
            OnGone::Block => "kept for it until it is back, and its senders wait",
        }
    }

    /// What becomes of what a reader that stays has not read of a channel that it subscribes no more.
    pub fn says_of_a_channel(self) -> &'static str {
        match self {
            OnGone::Drop => "dropped",
            OnGone::DeadLetter | OnGone::Block => "read first",
        }
    }

    /// What is done about a reader that is gone and left so many messages that nobody else reads. A swarm that is being killed waits for
    /// nobody, and whoever stood in for it has done what could be done.
    pub fn course(self, unread: u64, stood_in: bool, killed: bool) -> Course {
        match self {
            OnGone::Block if !killed => Course::Keep,
            OnGone::DeadLetter if unread > 0 && !stood_in && !killed => Course::StandIn,
            OnGone::Drop | OnGone::DeadLetter | OnGone::Block => Course::Strike,
        }
    }
}

/// What is done about a reader that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nobody waits for it: what it left is dropped.
    Strike,
    /// Somebody reads in its place first, what it left.
    StandIn,
    /// Its senders wait for it still.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nobody_stands_in_twice_or_for_nothing_and_who_blocks_is_struck_by_the_end_only(
            unread in prop_oneof![Just(0u64), any::<u64>()], stood_in: bool, killed: bool,
        ) {
            for word in OnGone::ALL {
                let course = word.course(unread, stood_in, killed);
                prop_assert_eq!(course == Course::Keep, word == OnGone::Block && !killed);
                prop_assert_eq!(
                    course == Course::StandIn,
                    word == OnGone::DeadLetter && unread > 0 && !stood_in && !killed
                );
            }
        }
    }

    #[test]
    fn file_that_says_nothing_drops() {
        assert_eq!(OnGone::default(), OnGone::Drop);
    }
}
