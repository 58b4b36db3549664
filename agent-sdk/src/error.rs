//! What goes wrong, in words for the agent's author.

use shoal_runtime::message::{AccessError, EncodeError};
use std::fmt;
use std::io;
use std::time::Duration;

/// Any error: what `?` makes of whatever a body or a handler meets.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result with any error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a message was not sent. `error.downcast_ref::<SendError>()` finds it in an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The lane is full and its channel says `when_full = "reject"`. Nothing of this message was written; the step goes on.
    Full {
        /// The channel.
        channel: String,
    },
    /// The lane stayed full. The step as a whole fails.
    TimedOut {
        /// The channel.
        channel: String,
        /// How long the send waited.
        after: Duration,
    },
    /// It would not fit an empty lane either. Trying again does not help.
    TooLarge {
        /// The channel.
        channel: String,
        /// What the message takes; `None` if more than any lane can hold.
        message_bytes: Option<u64>,
        /// What the lane takes at most.
        max_bytes: u64,
        /// Where the lane's capacity stands: the swarm file and the channel's line.
        place: String,
    },
    /// The lane is full, and the supervisor asks for an end. The step as a whole fails.
    Stopping {
        /// The channel.
        channel: String,
    },
    /// The message cannot be serialized. Trying again does not help.
    Encoding(EncodeError),
    /// The operator paused the agent, and it was not resumed in time. The step did not begin.
    Paused {
        /// How long the send waited.
        after: Duration,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { channel } => {
                write!(f, "channel `{channel}` is full, and it says when_full = \"reject\"")
            }
            Self::TimedOut { channel, after } => {
                write!(
                    f,
                    "channel `{channel}` stayed full for {after:?}: its readers do not keep up, or are down"
                )
            }
            Self::TooLarge { channel, message_bytes, max_bytes, place } => {
                match message_bytes {
                    Some(bytes) if bytes <= max_bytes => write!(
                        f,
                        "a message of {bytes} bytes and what the same step sent before do not fit the lane together"
                    )?,
                    Some(bytes) => write!(f, "a message of {bytes} bytes is too large")?,
                    None => write!(f, "a message is too large for any lane")?,
                }
                write!(
                    f,
                    ": channel `{channel}` takes messages of at most {max_bytes} bytes, half of its capacity; raise \
                     `capacity` of [channel.{channel}] ({place})"
                )
            }
            Self::Stopping { channel } => {
                write!(f, "channel `{channel}` is full, and the supervisor asks for an end")
            }
            Self::Encoding(error) => error.fmt(f),
            Self::Paused { after } => {
                write!(f, "the agent is paused since {after:?} or longer: `shoal resume` lets it go on")
            }
        }
    }
}

impl std::error::Error for SendError {}

/// A message that its reader rejects on purpose: `return Err(Reject::new("no such account").into())`.
///
/// It is not given again. It lies with the dead letters from then on, with this reason (`shoal dlq list`), and the swarm goes
/// on with the next message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    reason: String,
}

impl Reject {
    /// A rejection, and why.
    pub fn new(reason: impl Into<String>) -> Self {
        Reject { reason: reason.into() }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected: {}", self.reason)
    }
}

impl std::error::Error for Reject {}

/// The supervisor is gone: nothing that this process does has an effect any more, and it should end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupervisorGone;

impl fmt::Display for SupervisorGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the supervisor is gone")
    }
}

impl std::error::Error for SupervisorGone {}

/// A message whose bytes are not what its channel carries: its sender's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMessage {
    /// Who sent it.
    pub from: String,
    /// On which channel.
    pub channel: String,
    /// Where on the sender's lane.
    pub position: u64,
    /// What validation said.
    pub why: AccessError,
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, channel, position, why } = self;
        write!(f, "`{from}` sent an invalid message on channel `{channel}`, position {position}: {why}")
    }
}

impl std::error::Error for InvalidMessage {}

/// What the runtime's error means to an agent.
pub(crate) fn of_runtime(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe { SupervisorGone.into() } else { error.into() }
}

/// An error with what caused it, unless its text says that already.
pub(crate) fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
