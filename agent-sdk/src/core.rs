//! What receiving and sending need: everything of an agent but its handlers.

use crate::agent::Next;
use crate::error::{self, Error, InvalidMessage, Result, SupervisorGone};
use crate::handle::{self, Way};
use crate::payload::Payload;
use crate::step::{Failures, Lost, Parts, Received, Step};
use crate::{Log, Port};
use shoal_runtime::PeerFault;
use shoal_runtime::attachment::{Attachment, Found, World};
use shoal_runtime::board::Request;
use shoal_runtime::consumer::Frame;
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

pub(crate) type Handler = Box<dyn FnMut(&mut Step<'_>, &[u8]) -> Result<(), Problem>>;

/// Why a handler's step failed.
pub(crate) enum Problem {
    Invalid(AccessError),
    Failed(Error),
}

/// Everything but the handlers: what receiving and sending need.
pub(crate) struct Core {
    pub(crate) at: Attachment<Port>,
    pub(crate) scratch: Scratch,
    pub(crate) failures: Vec<Failures>,
    pub(crate) attempts_max: u32,
    pub(crate) log: Log,
    pub(crate) ready: bool,
    pub(crate) armed: bool,
    pub(crate) lost: Lost,
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
                    world.desk.awaits(awaited(manifest, among));
                    let found = world.wait(deadline, look).map_err(error::of_runtime);
                    world.desk.awaits(Awaits::Nothing);
                    found?
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

    pub(crate) fn try_next(&mut self, among: &[usize]) -> Result<Option<Found>> {
        self.disarm();
        loop {
            let Attachment { inputs, world, .. } = &mut self.at;
            let mut found = inputs.look(among, world, false);
            if found.is_none() {
                if world.links.stale() {
                    world.links.sync(&mut world.port).map_err(error::of_runtime)?;
                }
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

    pub(crate) fn arm(&mut self, among: &[usize]) -> Result<bool> {
        let Attachment { inputs, world, .. } = &mut self.at;
        // Announce, then take the rings of before, then look: what rings from here on makes the descriptor readable.
        world.desk.parked().set();
        self.armed = true;
        world.port.sleep(Some(Instant::now())).map_err(error::of_runtime)?;
        world.links.sync(&mut world.port).map_err(error::of_runtime)?;
        let nothing = inputs.look(among, world, true).is_none();
        if world.faulty() {
            self.accuse()?;
        }
        if !nothing {
            self.disarm();
        }
        Ok(nothing)
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
        let message = match T::access(sources.leased(&frame)) {
            Ok(message) => message,
            Err(why) => {
                let error = invalid(manifest, index, &frame, why);
                world.note(PeerFault { incarnation: frame.from, what: error.to_string() });
                accuse(world, &self.log)?;
                return Err(error.into());
            }
        };
        let parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
        let step = Step::answering(parts, index, frame, &mut self.failures[index]);
        Ok(Next::Message(Received::new(message, step, cursor)))
    }

    /// Gives a message to its handler, as one step.
    #[inline]
    pub(crate) fn work(&mut self, index: usize, frame: Frame, handler: &mut Handler) -> Result<()> {
        let Attachment { manifest, outputs, inputs, world } = &mut self.at;
        let (sources, cursor) = inputs.consumer(index).split();
        let parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, lost: &mut self.lost };
        let mut step = Step::answering(parts, index, frame, &mut self.failures[index]);
        let (problem, hopeless) = match handler(&mut step, sources.leased(&frame)) {
            Ok(()) => match step.commit(Some(cursor)) {
                Ok(()) => return Ok(()),
                Err(error) => (Problem::Failed(error), false),
            },
            Err(problem) => {
                let hopeless = step.hopeless();
                drop(step);
                (problem, hopeless)
            }
        };
        self.failed(index, &frame, problem, hopeless)
    }

    /// A step failed and was aborted: reports it, and pauses before the message is given again.
    #[cold]
    fn failed(&mut self, index: usize, frame: &Frame, problem: Problem, hopeless: bool) -> Result<()> {
        let error = match problem {
            Problem::Failed(error) => error,
            Problem::Invalid(why) => {
                let error = invalid(&self.at.manifest, index, frame, why);
                let fault = PeerFault { incarnation: frame.from, what: error.to_string() };
                self.at.world.note(fault);
                self.accuse()?;
                return Err(error.into());
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
        if hopeless || failures.count >= self.attempts_max {
            return Err(error);
        }
        let text = error::text(&error);
        // A stop request ends the pause at once, and is the reason of some errors: not worth a report.
        if failures.reported != text && world.request() != Request::Stop {
            let id = handle::message_id(&self.at.manifest, index, frame);
            self.log.report(&format!("message {id}, attempt {}: {text}", failures.count));
            failures.reported = text;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << failures.count.saturating_sub(1).min(10)).min(PAUSE_MAX);
        let stop = |world: &mut World<Port>, _| (world.request() == Request::Stop).then_some(());
        world.wait(Some(Instant::now() + pause), stop).map_err(error::of_runtime)?;
        Ok(())
    }
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

fn invalid(manifest: &Manifest, input: usize, frame: &Frame, why: AccessError) -> InvalidMessage {
    let id = handle::message_id(manifest, input, frame);
    InvalidMessage { from: id.agent.to_owned(), channel: id.channel.to_owned(), position: id.position, why }
}
