//! A step: what a handler sends, and the message that it answers, become real together or not at all.

use crate::error::{self, Error, Result, SendError, SupervisorGone};
use crate::handle::Publisher;
use crate::payload::Bytes;
use crate::state::{self, State};
use crate::{Port, handle};
use shoal_runtime::attachment::{self, Encode, Outputs, World};
use shoal_runtime::board::Request;
use shoal_runtime::clock;
use shoal_runtime::consumer::{Cursor, Frame, Sources};
use shoal_runtime::desk::Counter;
use shoal_runtime::message::{self, EncodeError, Message, Scratch};
use shoal_runtime::wire::{FromAgent, Manifest};
use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

mod park;
mod received;

pub(crate) use park::{Lease, park};
pub use received::Received;

/// How long a send in a step waits for space, unless [`Step::deadline`] says otherwise.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a message came from: the same for every delivery of it, so that an effect outside the swarm can be made once.
///
/// As text it is `agent/channel/position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId<'a> {
    /// Name of the agent that sent it.
    pub agent: &'a str,
    /// Name of the channel.
    pub channel: &'a str,
    /// Its position on that agent's lane; positions go on when the agent is restarted.
    pub position: u64,
}

impl fmt::Display for MessageId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.agent, self.channel, self.position)
    }
}

/// The message of an input that failed last, and how often this incarnation was given it in vain.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    sequence: Option<u64>,
    /// 0 when it only failed in a step that others began.
    pub(crate) count: u32,
    /// The last text reported for it.
    pub(crate) reported: String,
}

impl Failures {
    /// By this incarnation and all before it.
    #[inline]
    pub(crate) fn so_far(&self, frame: &Frame) -> u32 {
        frame.attempts.saturating_add(self.of(frame))
    }

    /// Whether a message begins a step of its own: what it may do to the step is not done to others.
    #[inline]
    fn begins_a_step(&self, frame: &Frame) -> bool {
        self.sequence == Some(frame.at.sequence)
    }

    fn of(&self, frame: &Frame) -> u32 {
        if self.begins_a_step(frame) { self.count } else { 0 }
    }

    fn add(&mut self, frame: &Frame) {
        let before = self.of(frame);
        if before == 0 {
            self.reported.clear();
        }
        (self.sequence, self.count) = (Some(frame.at.sequence), before.saturating_add(1));
    }

    /// Nothing is held against it, but it is to begin a step.
    fn set_apart(&mut self, frame: &Frame) {
        *self = Failures { sequence: Some(frame.at.sequence), ..Failures::default() };
    }
}

/// Whether the runtime failed: then trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Nothing,
    /// No memory, no descriptors, links that cannot be used.
    Runtime,
    Supervisor,
}

/// The parts of an agent that a step borrows.
pub(crate) struct Parts<'a> {
    pub(crate) outputs: &'a mut Outputs,
    pub(crate) world: &'a mut World<Port>,
    pub(crate) manifest: &'a Manifest,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) lost: &'a mut Lost,
}

/// What a step answers: a message, or several of one lane.
struct Input<'a> {
    index: usize,
    /// The last of them, which is in hand.
    frame: Frame,
    /// How many they are.
    count: u32,
    failures: &'a mut Failures,
}

/// A step in hand. What is sent through it stays hidden until the step ends well; then all of it, and the acknowledgement
/// of the message that it answers, become visible at once.
pub struct Step<'a> {
    parts: Parts<'a>,
    input: Option<Input<'a>>,
    timeout: Option<Duration>,
    /// A send that failed the step as a whole.
    broken: Option<SendError>,
    /// A send that will never succeed.
    hopeless: bool,
    /// Why it fails, as far as it is known.
    why: String,
    done: bool,
}

impl<'a> Step<'a> {
    /// A step without an input.
    pub(crate) fn without_input(parts: Parts<'a>, timeout: Option<Duration>) -> Self {
        Step { parts, input: None, timeout, broken: None, hopeless: false, why: String::new(), done: false }
    }

    /// A step that answers a message.
    #[inline]
    pub(crate) fn answering(
        parts: Parts<'a>,
        index: usize,
        frame: Frame,
        failures: &'a mut Failures,
    ) -> Self {
        let attempt = failures.so_far(&frame).saturating_add(1);
        parts.world.desk.hold(index, frame.at, attempt, clock::coarse_ns());
        let input = Some(Input { index, frame, count: 1, failures });
        let timeout = Some(SEND_TIMEOUT);
        Step { parts, input, timeout, broken: None, hopeless: false, why: String::new(), done: false }
    }

    /// The message behind the one in hand, if it may be taken into the step: it is there, the step holds fewer than `max` and is not
    /// broken, nobody asks for an end or a pause, and neither of the two is to begin a step.
    #[inline]
    pub(crate) fn behind(&self, sources: &Sources, max: u32) -> Option<Frame> {
        let Input { frame, count, failures, .. } = self.input.as_ref()?;
        let whole = self.broken.is_none() && *self.parts.lost == Lost::Nothing;
        let may = *count < max && whole && !failures.begins_a_step(frame);
        if !may || self.parts.world.request() != Request::Run {
            return None;
        }
        sources.behind(frame).filter(|next| !failures.begins_a_step(next))
    }

    /// Takes the message that [`Step::behind`] found into the step: it is the one in hand, with a deadline of its own.
    #[inline]
    pub(crate) fn take_along(&mut self, frame: Frame, cursor: &mut Cursor) {
        let Some(input) = &mut self.input else { return };
        cursor.take_along(&frame);
        (input.frame, input.count) = (frame, input.count + 1);
        let desk = &self.parts.world.desk;
        // Let go of first: who dies in between is found with neither, and not with a half of each.
        desk.release();
        desk.hold(input.index, frame.at, 1, clock::coarse_ns());
    }

    /// Whether the message in hand is not the first of the step. If the step fails, all its messages come again, and this one in a step
    /// that it begins: it fails no other then, and what others sent or kept does not fail it. Only what it does there counts.
    pub(crate) fn is_along(&self) -> bool {
        self.input.as_ref().is_some_and(|input| input.count > 1)
    }

    /// Sends a message as a part of this step: it is serialized straight into the lane, and hidden until the step ends well.
    ///
    /// When the lane is full and its channel says `block`, it waits up to the step's deadline.
    ///
    /// # Errors
    /// A [`SendError`], or [`crate::SupervisorGone`]. After [`SendError::TimedOut`] and [`SendError::Stopping`] the step
    /// fails even if its handler returns `Ok`; the other errors may be handled.
    #[inline]
    pub fn send<T: Message>(&mut self, to: &Publisher<T>, message: &T) -> Result<()> {
        self.check()?;
        let Parts { outputs, world, scratch, .. } = &mut self.parts;
        let mut encoding = Encoding { message, scratch, problem: None };
        let sent = outputs.write(to.lane(), world, self.timeout, &mut encoding);
        if let Ok(Ok(())) = sent {
            return Ok(());
        }
        let problem = encoding.problem;
        let message_bytes = message::encoded_len(message, self.parts.scratch).ok().map(|n| n as u64);
        match (sent, problem) {
            (_, Some(error)) => {
                self.hopeless = true;
                Err(SendError::Encoding(error).into())
            }
            (Ok(Err(error)), None) => Err(self.not_sent(to.lane(), error, message_bytes)),
            (Err(error), None) => Err(self.lost(error)),
            (Ok(Ok(())), None) => Ok(()),
        }
    }

    /// Sends raw bytes as a part of this step, written by hand: `fill` gets `len` bytes of the lane itself and says how many
    /// it used. They hold whatever an older frame left there; only what was used is sent.
    ///
    /// # Errors
    /// As [`Step::send`], or `fill`'s own; then nothing was written.
    ///
    /// # Panics
    /// When `fill` says that it used more than `len`.
    pub fn send_with(
        &mut self,
        to: &Publisher<Bytes>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        self.check()?;
        let Parts { outputs, world, .. } = &mut self.parts;
        match outputs.write_by_hand(to.lane(), len, world, self.timeout, fill) {
            Ok(Ok(filled)) => filled,
            Ok(Err(error)) => Err(self.not_sent(to.lane(), error, Some(len as u64))),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// The agent's state as this step sees it: its own change, else what was committed last; `None` before the first.
    ///
    /// # Errors
    /// What was kept is no value of this type.
    pub fn load<S: Message>(&mut self, _state: &State<S>) -> Result<Option<S>> {
        state::load(self.parts.outputs.state())
    }

    /// Changes the agent's state as a part of this step.
    ///
    /// # Errors
    /// The value is too large, or cannot be encoded.
    pub fn keep<S: Message>(&mut self, _state: &State<S>, value: &S) -> Result<()> {
        state::keep(self.parts.outputs.state(), self.parts.scratch, value)
    }

    /// Sets how long each later send of this step waits for space on a channel that says `block`; 5 s at first.
    pub fn deadline(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Says that work on the message is still going on, so that the agent's `deadline` begins anew: for work that may
    /// rightly take longer. Where it is called often it costs a read of the coarse clock and a store.
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Task { parts: Vec<u32> }
    /// # fn long_work(_: u32) {}
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// agent.on::<Task>("tasks", |step, task| {
    ///     for part in task.parts.iter() {
    ///         long_work(part.to_native());
    ///         step.busy();
    ///     }
    ///     Ok(())
    /// })?;
    /// agent.serve()
    /// # }
    /// ```
    pub fn busy(&mut self) {
        if self.input.is_some() {
            self.parts.world.desk.still_at_it(clock::coarse_ns());
        }
    }

    /// The same, for work that takes the processor for long: hands that on to who waits for it, and says whether the agent is asked to
    /// pause or to end. A handler that hears so may come to its end early, for example keep how far it came and send itself the rest; else
    /// it is waited for, at an end for no longer than `stop_timeout`.
    pub fn yield_now(&mut self) -> bool {
        self.busy();
        std::thread::yield_now();
        self.parts.world.request() != Request::Run
    }

    /// The identity of the message that this step answers; `None` for a step without one.
    pub fn message_id(&self) -> Option<MessageId<'a>> {
        let input = self.input.as_ref()?;
        Some(handle::message_id(self.parts.manifest, input.index, &input.frame))
    }

    /// Which attempt at the message this is, over all incarnations: 1 at first, and for a step without one.
    ///
    /// An attempt counts when its handler failed or its process died, but not when that was ordered (`shoal kill`, `stop`,
    /// `restart`), not when the step failed because a lane stayed full, and not when a handler failed in a step that other messages
    /// began ([`crate::Agent::batch`]). After `max_attempts` of the swarm file the message is parked with the dead letters.
    pub fn attempt(&self) -> u32 {
        self.input.as_ref().map_or(1, |input| input.failures.so_far(&input.frame).saturating_add(1))
    }

    /// Ends a step that never was an attempt.
    pub(crate) fn forget(mut self) {
        self.done = true;
        self.parts.outputs.abort();
        self.parts.world.desk.release();
    }

    /// Ends it in vain; whether one of its sends will never succeed.
    pub(crate) fn fail(mut self, why: String) -> bool {
        self.why = why;
        self.hopeless
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    #[cold]
    fn lost(&mut self, error: std::io::Error) -> Error {
        let error = error::of_runtime(error);
        *self.parts.lost = if error.is::<SupervisorGone>() { Lost::Supervisor } else { Lost::Runtime };
        error
    }

    #[cold]
    fn not_sent(&mut self, lane: usize, error: attachment::SendError, message_bytes: Option<u64>) -> Error {
        let manifest = self.parts.manifest;
        let entry = manifest.channel(manifest.lanes[lane].channel);
        let channel = entry.name.clone();
        let error = match error {
            attachment::SendError::Full => SendError::Full { channel },
            attachment::SendError::TimedOut => {
                SendError::TimedOut { channel, after: self.timeout.unwrap_or_default() }
            }
            attachment::SendError::Stopping => SendError::Stopping { channel },
            attachment::SendError::TooLarge { max_bytes } => {
                let place = format!("{}:{}", manifest.file, entry.line);
                SendError::TooLarge { channel, message_bytes, max_bytes, place }
            }
            attachment::SendError::Refused => {
                SendError::Encoding(EncodeError::TooLarge { message: "message" })
            }
        };
        match error {
            SendError::TimedOut { .. } | SendError::Stopping { .. } => self.broken = Some(error.clone()),
            SendError::TooLarge { .. } | SendError::Encoding(_) => self.hopeless = true,
            SendError::Full { .. } | SendError::Paused { .. } => {}
        }
        error.into()
    }

    /// Commits the step, with the acknowledgement of its message if it answers one.
    #[inline]
    pub(crate) fn commit(mut self, cursor: Option<&mut Cursor>) -> Result<()> {
        self.check()?;
        self.done = true;
        let Parts { outputs, world, .. } = &mut self.parts;
        let input = match (&self.input, cursor) {
            (Some(input), Some(cursor)) => Some((input.index, cursor, &input.frame)),
            _ => None,
        };
        let committed = outputs.commit(input, world);
        if self.input.is_some() {
            world.desk.release();
        }
        committed.map_err(|error| self.lost(error))
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.parts.outputs.abort();
        let along = self.is_along();
        let Some(input) = &mut self.input else { return };
        let world = &mut self.parts.world;
        world.desk.count(Counter::Aborted, 1);
        let attempt = if along { 0 } else { input.failures.so_far(&input.frame).saturating_add(1) };
        // A message is not to blame for lanes that stay full, nor for the end that an operator asks for.
        let excused = self.broken.is_some() && !along || world.request() == Request::Stop;
        match excused {
            true => {}
            false if along => input.failures.set_apart(&input.frame),
            false => input.failures.add(&input.frame),
        }
        if std::thread::panicking() {
            // The message counts as held until the process is dead: that is the failed attempt.
            return;
        }
        if !excused {
            let (input, at) = (input.index as u32, input.frame.at);
            let why = std::mem::take(&mut self.why);
            // If the supervisor is gone, the next wait says so.
            let _ = world.port.say(&FromAgent::Failed { input, at, attempt, why });
        }
        world.desk.release();
    }
}

/// A message on its way into a lane.
struct Encoding<'a, T> {
    message: &'a T,
    scratch: &'a mut Scratch,
    problem: Option<EncodeError>,
}

impl<T: Message> Encode for Encoding<'_, T> {
    #[inline]
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        match message::encode(self.message, slot, self.scratch) {
            Ok(len) => Some(len),
            Err(EncodeError::SlotTooSmall) => None,
            Err(error) => {
                self.problem = Some(error);
                None
            }
        }
    }

    fn exact(&mut self) -> Option<usize> {
        if self.problem.is_some() {
            return None;
        }
        message::encoded_len(self.message, self.scratch).map_err(|error| self.problem = Some(error)).ok()
    }
}
