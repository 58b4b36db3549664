//! The message in hand of the loop form: its step, and the way to the next one.

use super::{MessageId, Step};
use crate::error::Result;
use crate::handle::Publisher;
use crate::payload::{Bytes, Payload};
use crate::state::State;
use shoal_runtime::consumer::{Cursor, Sources};
use shoal_runtime::message::Message;
use std::cell::RefCell;
use std::time::Duration;

/// A message in hand, in the loop form, or one after the other ([`Received::advance`]). Dropped without [`Received::commit`], what was
/// sent for it is forgotten and the message comes again at the next receive.
#[must_use = "a message that is not committed comes again"]
pub struct Received<'a, T: Payload> {
    message: &'a T::Archived,
    pub(super) bytes: &'a [u8],
    pub(super) step: RefCell<Step<'a>>,
    sources: &'a Sources,
    pub(super) cursor: &'a mut Cursor,
}

impl<'a, T: Payload> Received<'a, T> {
    pub(crate) fn new(
        message: &'a T::Archived,
        bytes: &'a [u8],
        step: Step<'a>,
        sources: &'a Sources,
        cursor: &'a mut Cursor,
    ) -> Self {
        Received { message, bytes, step: RefCell::new(step), sources, cursor }
    }

    /// The message in hand, in place. It may be used while its answers are sent, and not after the commit.
    #[inline]
    pub fn message(&self) -> &T::Archived {
        self.message
    }

    /// Goes on to the next message of the same lane, in the same step, if it is there already and the step holds fewer than `max`: true if
    /// so, and it is the message in hand. One commit then acknowledges all of them, and makes visible what was sent for any: many small
    /// messages cost half as much so.
    ///
    /// A message that failed before is not taken along: it begins a step, and is alone in it. Nor is one of a group, of a drop-oldest lane, or of a producer that
    /// is not trusted; nor while a pause or an end is asked for. A death counts as an attempt at the message in hand. Dropped without a commit,
    /// or rejected, when others began the step, the message in hand is given again in a step of its own, and only that counts as an attempt.
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Tick { value: u64 }
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// use shoal_agent::Next;
    /// let ticks = agent.subscribe::<Tick>("ticks")?;
    /// let mut sum = 0;
    /// while let Next::Message(mut tick) = agent.receive(&ticks, None)? {
    ///     sum += tick.message().value.to_native();
    ///     while tick.advance(64) {
    ///         sum += tick.message().value.to_native();
    ///     }
    ///     tick.commit()?;
    /// }
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn advance(&mut self, max: u32) -> bool {
        let step = self.step.get_mut();
        let Some(frame) = step.behind(self.sources, max) else { return false };
        let bytes = self.sources.leased(&frame);
        // One that is not valid begins a step, which ends with it.
        let Ok(message) = T::access(bytes) else { return false };
        step.take_along(frame, self.cursor);
        (self.message, self.bytes) = (message, bytes);
        true
    }

    /// As [`Step::send`].
    ///
    /// # Errors
    /// As [`Step::send`].
    pub fn send<U: Message>(&self, to: &Publisher<U>, message: &U) -> Result<()> {
        self.step.borrow_mut().send(to, message)
    }

    /// As [`Step::send_with`].
    ///
    /// # Errors
    /// As [`Step::send_with`].
    pub fn send_with(
        &self,
        to: &Publisher<Bytes>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        self.step.borrow_mut().send_with(to, len, fill)
    }

    /// As [`Step::load`].
    ///
    /// # Errors
    /// As [`Step::load`].
    pub fn load<S: Message>(&self, state: &State<S>) -> Result<Option<S>> {
        self.step.borrow_mut().load(state)
    }

    /// As [`Step::keep`].
    ///
    /// # Errors
    /// As [`Step::keep`].
    pub fn keep<S: Message>(&self, state: &State<S>, value: &S) -> Result<()> {
        self.step.borrow_mut().keep(state, value)
    }

    /// As [`Step::deadline`].
    pub fn deadline(&self, timeout: Duration) {
        self.step.borrow_mut().deadline(timeout);
    }

    /// As [`Step::busy`].
    pub fn busy(&self) {
        self.step.borrow_mut().busy();
    }

    /// As [`Step::yield_now`].
    pub fn yield_now(&self) -> bool {
        self.step.borrow_mut().yield_now()
    }

    /// As [`Step::message_id`], of the message in hand.
    pub fn message_id(&self) -> Option<MessageId<'a>> {
        self.step.borrow().message_id()
    }

    /// As [`Step::attempt`].
    pub fn attempt(&self) -> u32 {
        self.step.borrow().attempt()
    }

    /// Makes everything that was sent for this message, and those before it in the step, visible and acknowledges them, at once.
    ///
    /// # Errors
    /// The send that failed the step, or [`crate::SupervisorGone`].
    pub fn commit(self) -> Result<()> {
        let Received { step, cursor, .. } = self;
        step.into_inner().commit(Some(cursor))
    }
}
