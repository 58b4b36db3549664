//! What receiving and sending need: everything of an agent but its handlers.

use crate::agent::Next;
use crate::error::{self, Error, InvalidMessage, Reject, Result, SendError, SupervisorGone};
use crate::gone::Gone;
use crate::handle::{self, Way};
use crate::payload::Payload;
use crate::step::{Failures, Lease, Lost, Parts, Received, Step, park};
use crate::{Log, Port};
use shoal_runtime::PeerFault;
use shoal_runtime::attachment::{Attachment, Found, World};
use shoal_runtime::board::Request;
use shoal_runtime::consumer::{Frame, Given};
use shoal_runtime::desk::Awaits;
use shoal_runtime::message::{AccessError, Scratch};
use shoal_runtime::wire::Manifest;
use std::time::{Duration, Instant};

/// First pause before a message is given again to a handler that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The inputs of one channel, and in the handler form who is given their messages.
pub(crate) struct Subscribed {
    pub(crate) channel: u32,
    pub(crate) inputs: Vec<usize>,
    pub(crate) handler: Option<Handler>,
}

/// What ends a wait of an agent that is told of peers that are gone.
pub(crate) enum Event {
    Found(Option<Found>),
    Gone(u32),
}

pub(crate) type Handler = Box<dyn FnMut(&mut Step<'_>, &[u8]) -> Result<(), Problem>>;

/// Why a handler's step failed.
pub(crate) enum Problem {
    Invalid(AccessError),
    Failed(Error),
}

/// How often a message is given, and whether it is parked then; else the agent ends with the last error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) attempts_max: u32,
    pub(crate) parks: bool,
}

/// Everything but the handlers: what receiving and sending need.
pub(crate) struct Core {
    pub(crate) at: Attachment<Port>,
    pub(crate) scratch: Scratch,
    pub(crate) failures: Vec<Failures>,
    pub(crate) patience: Patience,
    pub(crate) log: Log,
    pub(crate) ready: bool,
    pub(crate) armed: bool,
    pub(crate) lost: Lost,
    /// How many messages a step of the handlers takes at most.
    pub(crate) batch: u32,
}

impl Core {
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        let Attachment { manifest, outputs, world, .. } = &mut self.at;
        Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost }
    }

    pub(crate) fn declare<T: Payload>(&mut self, channel: u32, way: Way) -> Result<()> {
        let answer = self.at.declare(channel, way == Way::Publishes, T::FINGERPRINT.0);
        let refusal = answer.map_err(error::of_runtime)?.err();
        refusal.map_or(Ok(()), |text| Err(handle::refused::<T>(&self.at.manifest, channel, way, &text)))
    }

    #[inline]
    pub(crate) fn ready(&mut self, subscriptions: &[Subscribed]) -> Result<()> {
        if self.ready { Ok(()) } else { self.say_ready(subscriptions) }
    }

    #[cold]
    fn say_ready(&mut self, subscriptions: &[Subscribed]) -> Result<()> {
        let read = |channel: u32| subscriptions.iter().any(|s| s.channel == channel);
        if let Some(input) = self.at.manifest.inputs.iter().position(|i| !read(i.channel)) {
            return Err(handle::unread(&self.at.manifest, input));
        }
        self.ready = true;
        self.at.ready().map_err(error::of_runtime)
    }

    /// Tells supervisor and log of the faults seen.
    #[cold]
    pub(crate) fn accuse(&mut self) -> Result<()> {
        accuse(&mut self.at.world, &self.log)
    }

    /// Waits while the supervisor asks for a pause: a step that answers nothing begins after it.
    ///
    /// # Errors
    /// The pause is longer than the time-out; the supervisor is gone.
    #[cold]
    pub(crate) fn sit_out_pause(&mut self, timeout: Option<Duration>) -> Result<()> {
        let over = |world: &mut World<Port>, _| (world.request() != Request::Pause).then_some(());
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let resumed = self.at.world.wait(deadline, over).map_err(error::of_runtime)?;
        match (resumed, timeout) {
            (None, Some(after)) => Err(SendError::Paused { after }.into()),
            _ => Ok(()),
        }
    }

    #[inline]
    fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            self.at.world.desk.parked().clear();
        }
    }

    /// Waits for the next message on some inputs, leased; `None` when nothing came in time.
    #[inline]
    pub(crate) fn next(&mut self, among: &[usize], timeout: Option<Duration>) -> Result<Option<Found>> {
        self.disarm();
        let mut deadline = None;
        loop {
            let Attachment { manifest, inputs, world, .. } = &mut self.at;
            let found = match inputs.look(among, world, false) {
                Some(found) => Some(found),
                None => {
                    // The clock is read only now that there is a wait. A time-out beyond its range is none.
                    deadline = deadline.or_else(|| Instant::now().checked_add(timeout?));
                    let look = |world: &mut World<Port>, thorough| inputs.look(among, world, thorough);
                    wait(world, awaited(manifest, among), deadline, look)?
                }
            };
            if world.faulty() {
                self.accuse()?;
            }
            if let Some(found) = self.leased(found) {
                return Ok(found);
            }
        }
    }

    /// The same, or a peer that is gone and was not told of.
    pub(crate) fn next_or_gone(
        &mut self,
        among: &[usize],
        timeout: Option<Duration>,
        gone: &mut Gone,
    ) -> Result<Event> {
        self.disarm();
        let mut deadline = None;
        loop {
            let Attachment { manifest, inputs, world, .. } = &mut self.at;
            if let Some(peer) = gone.next_between(inputs, &world.links) {
                return Ok(Event::Gone(peer));
            }
            let mut look = |world: &mut World<Port>, thorough| {
                let found = inputs.look(among, world, thorough).map(|found| Event::Found(Some(found)));
                let ends = matches!(found, None | Some(Event::Found(Some(Found::Closed))));
                let peer = if ends && thorough { gone.next(inputs, &world.links) } else { None };
                peer.map(Event::Gone).or(found)
            };
            let event = match look(world, false) {
                Some(event) => event,
                None => {
                    // As in `next`.
                    deadline = deadline.or_else(|| Instant::now().checked_add(timeout?));
                    wait(world, awaited(manifest, among), deadline, look)?.unwrap_or(Event::Found(None))
                }
            };
            if world.faulty() {
                self.accuse()?;
            }
            match event {
                Event::Gone(_) => return Ok(event),
                Event::Found(found) => {
                    if let Some(found) = self.leased(found) {
                        return Ok(Event::Found(found));
                    }
                }
            }
        }
    }

    pub(crate) fn try_next(&mut self, among: &[usize]) -> Result<Option<Found>> {
        self.disarm();
        loop {
            let Attachment { inputs, world, .. } = &mut self.at;
            let mut found = inputs.look(among, world, false);
            if found.is_none() {
                world.moved().map_err(error::of_runtime)?;
                found = inputs.look(among, world, true);
            }
            if world.faulty() {
                self.accuse()?;
            }
            if let Some(found) = self.leased(found) {
                return Ok(found);
            }
        }
    }

    /// Leases the frame that was found; `None` when it was overwritten meanwhile, on a drop-oldest lane.
    #[inline]
    fn leased(&mut self, found: Option<Found>) -> Option<Option<Found>> {
        match found {
            Some(Found::Message(input, frame)) => {
                let (sources, _) = self.at.inputs.consumer(input).split();
                sources.lease(&frame).then_some(found)
            }
            other => Some(other),
        }
    }

    /// A peer that is gone and that a loop has not asked for.
    pub(crate) fn ask_gone(&mut self, gone: &mut Gone) -> Result<Option<u32>> {
        let Attachment { inputs, world, .. } = &mut self.at;
        world.moved().map_err(error::of_runtime)?;
        Ok(gone.ask(inputs, &world.links))
    }

    pub(crate) fn arm(&mut self, among: &[usize], gone: Option<&mut Gone>) -> Result<bool> {
        let Attachment { inputs, world, .. } = &mut self.at;
        // Announce, then take the rings of before, then look: what rings from here on makes the descriptor readable.
        world.desk.parked().set();
        self.armed = true;
        world.port.sleep(Some(Instant::now())).map_err(error::of_runtime)?;
        world.links.sync(&mut world.port).map_err(error::of_runtime)?;
        let is_due = gone.is_some_and(|gone| gone.is_due(inputs, &world.links));
        let nothing = inputs.look(among, world, true).is_none() && !is_due;
        if world.faulty() {
            self.accuse()?;
        }
        if !nothing {
            self.disarm();
        }
        Ok(nothing)
    }

    /// Parks a message that was given in vain as often as it may be, before any handler sees it; true if so.
    #[inline]
    pub(crate) fn settles(&mut self, found: &Option<Found>) -> Result<bool> {
        let Some(Found::Message(index, frame)) = found else { return Ok(false) };
        let so_far = self.failures[*index].so_far(frame);
        let spent = so_far == Given::SETTLED || self.patience.parks && so_far >= self.patience.attempts_max;
        if spent {
            self.park(*index, frame, so_far, "")?;
        }
        Ok(spent)
    }

    #[cold]
    fn park(&mut self, index: usize, frame: &Frame, attempts: u32, why: &str) -> Result<()> {
        let Attachment { manifest, outputs, inputs, world } = &mut self.at;
        let (sources, cursor) = inputs.consumer(index).split();
        let mut parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
        let lease = Lease { index, frame, bytes: sources.leased(frame), cursor };
        park(&mut parts, lease, attempts, false, why)
    }

    /// What was found, with its message opened.
    pub(crate) fn lend<T: Payload>(&mut self, found: Option<Found>) -> Result<Next<'_, T>> {
        let (index, frame) = match found {
            Some(Found::Message(index, frame)) => (index, frame),
            Some(Found::Stop) => return Ok(Next::Stopping),
            Some(Found::Closed) => return Ok(Next::Closed),
            None => return Ok(Next::TimedOut),
        };
        let Attachment { manifest, outputs, inputs, world } = &mut self.at;
        let (sources, cursor) = inputs.consumer(index).split();
        let bytes = sources.leased(&frame);
        let mut parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
        let message = match T::access(bytes) {
            Ok(message) => message,
            Err(why) => {
                let lease = Lease { index, frame: &frame, bytes, cursor };
                let attempt = self.failures[index].so_far(&frame).saturating_add(1);
                return Err(invalid(&mut parts, lease, attempt, self.patience, &self.log, why)?.into());
            }
        };
        let step = Step::answering(parts, index, frame, &mut self.failures[index]);
        Ok(Next::Message(Received::new(message, bytes, step, sources, cursor)))
    }

    /// Gives a message to its handler, and those behind it that the step may take along, as one step.
    #[inline]
    pub(crate) fn work(&mut self, index: usize, frame: Frame, handler: &mut Handler) -> Result<()> {
        let batch = self.batch;
        let Attachment { manifest, outputs, inputs, world } = &mut self.at;
        let (sources, cursor) = inputs.consumer(index).split();
        let parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
        let mut step = Step::answering(parts, index, frame, &mut self.failures[index]);
        let mut in_hand = frame;
        let mut bytes = sources.leased(&in_hand);
        let handled = loop {
            let handled = handler(&mut step, bytes);
            let Some(next) = step.behind(sources, batch).filter(|_| handled.is_ok()) else { break handled };
            step.take_along(next, cursor);
            in_hand = next;
            bytes = sources.leased(&in_hand);
        };
        let (attempt, along) = (step.attempt(), step.is_along());
        let (problem, hopeless) = match handled {
            Ok(()) => match step.commit(Some(cursor)) {
                Ok(()) => return Ok(()),
                Err(error) => (Problem::Failed(error), false),
            },
            Err(problem) if along => {
                drop(step);
                (problem, false)
            }
            Err(Problem::Failed(error)) => {
                if let Some(reject) = error.downcast_ref::<Reject>() {
                    return step.reject(cursor, bytes, reject.reason());
                }
                let hopeless = step.fail(error::text(&error));
                (Problem::Failed(error), hopeless)
            }
            // An invalid message is no attempt of the handler's.
            Err(invalid) => {
                step.forget();
                (invalid, false)
            }
        };
        // Where others began the step it comes again at once, in one of its own: that is its attempt.
        if along && self.lost == Lost::Nothing {
            return Ok(());
        }
        self.failed(index, &in_hand, attempt, problem, hopeless)
    }

    /// A step failed and was aborted: reports it, and pauses before the message is given again.
    #[cold]
    fn failed(
        &mut self,
        index: usize,
        frame: &Frame,
        attempt: u32,
        problem: Problem,
        hopeless: bool,
    ) -> Result<()> {
        let error = match problem {
            Problem::Failed(error) => error,
            Problem::Invalid(why) => {
                let Patience { parks, .. } = self.patience;
                let Attachment { manifest, outputs, inputs, world } = &mut self.at;
                let (sources, cursor) = inputs.consumer(index).split();
                let mut parts =
                    Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
                let lease = Lease { index, frame, bytes: sources.leased(frame), cursor };
                let error = invalid(&mut parts, lease, attempt, self.patience, &self.log, why)?;
                return if parks { Ok(()) } else { Err(error.into()) };
            }
        };
        match self.lost {
            Lost::Nothing => {}
            Lost::Runtime => return Err(error),
            // Whatever the handler made of it.
            Lost::Supervisor => return Err(SupervisorGone.into()),
        }
        let world = &mut self.at.world;
        let failures = &mut self.failures[index];
        let Patience { attempts_max, parks } = self.patience;
        let spent = failures.so_far(frame) >= attempts_max;
        if !parks && (hopeless || spent) {
            return Err(error);
        }
        let text = error::text(&error);
        // A stop request ends the pause at once, and is the reason of some errors: not worth a report.
        if failures.reported != text && world.request() != Request::Stop {
            let id = handle::message_id(&self.at.manifest, index, frame);
            self.log.report(&format!("message {id}, attempt {attempt}: {text}"));
            failures.reported.clone_from(&text);
        }
        if spent {
            return self.park(index, frame, attempt, &text);
        }
        let pause = PAUSE_MIN.saturating_mul(1 << failures.count.saturating_sub(1).min(10)).min(PAUSE_MAX);
        let stop = |world: &mut World<Port>, _| (world.request() == Request::Stop).then_some(());
        world.wait(Some(Instant::now() + pause), stop).map_err(error::of_runtime)?;
        Ok(())
    }
}

/// A message whose bytes are not what its channel carries: its producer is accused, and it is parked, since no attempt can end
/// better.
#[cold]
fn invalid(
    parts: &mut Parts<'_>,
    lease: Lease<'_>,
    attempt: u32,
    patience: Patience,
    log: &Log,
    why: AccessError,
) -> Result<InvalidMessage> {
    let id = handle::message_id(parts.manifest, lease.index, lease.frame);
    let (from, channel, position) = (id.agent.to_owned(), id.channel.to_owned(), id.position);
    let error = InvalidMessage { from, channel, position, why };
    parts.world.note(PeerFault { incarnation: lease.frame.from, what: error.to_string() });
    accuse(parts.world, log)?;
    if patience.parks {
        park(parts, lease, attempt, false, &error.to_string())?;
    }
    Ok(error)
}

/// Waits until `look` finds something, or the deadline; the supervisor can see for what.
fn wait<T>(
    world: &mut World<Port>,
    awaits: Awaits,
    deadline: Option<Instant>,
    look: impl FnMut(&mut World<Port>, bool) -> Option<T>,
) -> Result<Option<T>> {
    world.desk.awaits(awaits, deadline.is_none());
    let found = world.wait(deadline, look).map_err(error::of_runtime);
    world.desk.awaits(Awaits::Nothing, false);
    found
}

/// For what a wait among some inputs is, as the supervisor is told. Of a choice that is neither everything nor one channel it
/// is told nothing.
fn awaited(manifest: &Manifest, among: &[usize]) -> Awaits {
    if among.len() == manifest.inputs.len() {
        return Awaits::All;
    }
    let mut channels = among.iter().map(|&input| manifest.inputs[input].channel);
    match channels.next() {
        Some(first) if channels.all(|channel| channel == first) => Awaits::Channel(first),
        _ => Awaits::Nothing,
    }
}

fn accuse(world: &mut World<Port>, log: &Log) -> Result<()> {
    for fault in world.accuse().map_err(error::of_runtime)? {
        log.report(&fault.to_string());
    }
    Ok(())
}
