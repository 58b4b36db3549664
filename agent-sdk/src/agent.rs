//! The agent: what its author's body is given.

use crate::error::{self, Error, InvalidMessage, Result, SupervisorGone};
use crate::handle::{self, Publisher, Subscription, Way};
use crate::payload::{Bytes, Payload};
use crate::step::{Failures, Parts, Received, Step};
use crate::{Log, Port};
use shoal_runtime::attachment::{Attachment, Found, World};
use shoal_runtime::board::Request;
use shoal_runtime::consumer::Frame;
use shoal_runtime::desk::Life;
use shoal_runtime::message::{AccessError, Message, Scratch};
use shoal_runtime::port::Control;
use shoal_runtime::{PeerFault, attachment};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// First pause before a message is given again to a handler that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An attached agent.
pub struct Agent {
    core: Core,
    subscriptions: Vec<Subscribed>,
}

/// The inputs of one channel, and in the handler form who is given their messages.
struct Subscribed {
    channel: u32,
    inputs: Vec<usize>,
    handler: Option<Handler>,
}

type Handler = Box<dyn FnMut(&mut Step<'_>, &[u8]) -> Result<(), Problem>>;

/// Why a handler's step failed.
enum Problem {
    Invalid(AccessError),
    Failed(Error),
}

/// Everything but the handlers: what receiving and sending need.
struct Core {
    at: Attachment<Port>,
    scratch: Scratch,
    failures: Vec<Failures>,
    attempts_max: u32,
    log: Log,
    ready: bool,
    armed: bool,
    gone: bool,
}

/// What came of a receive.
#[must_use]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for every message")]
pub enum Next<'a, T: Payload> {
    /// A message.
    Message(Received<'a, T>),
    /// Nothing came in time; for [`Agent::try_receive`], nothing is there now.
    TimedOut,
    /// All producers of the channel ended for good, and everything was read.
    Closed,
    /// The supervisor asks for an end, and nothing is left that should be done before.
    Stopping,
}

impl Agent {
    /// Attaches to the supervisor that started this process.
    pub(crate) fn attach() -> Result<Self> {
        let attachment = attachment::attach().map_err(error::of_runtime)?;
        let log = Log::to_stderr(&attachment.manifest.name);
        Ok(Agent::of(attachment.boxed(), log, u32::MAX))
    }

    /// An agent of an attachment; `attempts_max` tries for each message.
    pub(crate) fn of(at: Attachment<Port>, log: Log, attempts_max: u32) -> Self {
        let failures = at.manifest.inputs.iter().map(|_| Failures::default()).collect();
        let scratch = Scratch::new();
        let core = Core { at, scratch, failures, attempts_max, log, ready: false, armed: false, gone: false };
        Agent { core, subscriptions: Vec::new() }
    }

    /// The agent's name in the swarm, with its replica: `worker.1`.
    pub fn name(&self) -> &str {
        &self.core.at.manifest.name
    }

    /// Which replica this is, from 0, and of how many.
    pub fn replica(&self) -> (u32, u32) {
        self.core.at.manifest.replica
    }

    /// The number of this life: 1 at first, more after each restart.
    pub fn generation(&self) -> u32 {
        self.core.at.manifest.generation
    }

    /// Whether the supervisor asks for an end. A source ends then; who receives is told by what it receives.
    #[inline]
    pub fn stopping(&self) -> bool {
        self.core.at.world.request() != Request::Run
    }

    /// A handle to send messages of type `T` on a channel that the swarm file says this agent publishes.
    ///
    /// # Errors
    /// In words for the author: no such channel, not published by this agent, or another type of message.
    pub fn publish<T: Payload>(&mut self, channel: &str) -> Result<Publisher<T>> {
        let index = handle::channel::<T>(&self.core.at.manifest, channel)?;
        let lane = self.core.at.manifest.lanes.iter().position(|l| l.channel == index);
        let way = Way::Publishes;
        let lane = lane.ok_or_else(|| handle::wrong_way(&self.core.at.manifest, index, way))?;
        self.core.declare::<T>(index, way)?;
        Ok(Publisher::new(lane))
    }

    /// A handle to receive messages of type `T` from a channel that the swarm file says this agent subscribes: the loop
    /// form. See [`Agent::on`] for the handler form.
    ///
    /// # Errors
    /// As [`Agent::publish`], and when the agent subscribed the channel before.
    pub fn subscribe<T: Payload>(&mut self, channel: &str) -> Result<Subscription<T>> {
        let manifest = &self.core.at.manifest;
        let index = handle::channel::<T>(manifest, channel)?;
        let inputs = manifest.inputs.iter().enumerate().filter(|(_, i)| i.channel == index);
        let inputs: Vec<usize> = inputs.map(|(i, _)| i).collect();
        let way = Way::Subscribes;
        if inputs.is_empty() {
            return Err(handle::wrong_way(manifest, index, way));
        }
        if self.subscriptions.iter().any(|s| s.channel == index) {
            return Err(Error::from(format!(
                "agent `{}` subscribes channel `{channel}` twice: each message is given once",
                self.name()
            )));
        }
        self.core.declare::<T>(index, way)?;
        self.subscriptions.push(Subscribed { channel: index, inputs, handler: None });
        Ok(Subscription::new(self.subscriptions.len() - 1))
    }

    /// Gives each message of a channel to a handler, once [`Agent::serve`] runs.
    ///
    /// What the handler sends through its step, and the acknowledgement of the message, become visible together when it
    /// returns `Ok`. When it returns `Err` all of that is forgotten, the error is reported, and the message is given again
    /// after a pause that grows from 1 ms to 1 s. When it panics the process ends, and the next incarnation is given it.
    ///
    /// # Errors
    /// As [`Agent::subscribe`].
    pub fn on<T: Payload>(
        &mut self,
        channel: &str,
        mut handler: impl FnMut(&mut Step<'_>, &T::Archived) -> Result<()> + 'static,
    ) -> Result<()> {
        let subscription = self.subscribe::<T>(channel)?;
        let handler: Handler = Box::new(move |step, bytes| {
            let message = T::access(bytes).map_err(Problem::Invalid)?;
            handler(step, message).map_err(Problem::Failed)
        });
        self.subscriptions[subscription.index()].handler = Some(handler);
        Ok(())
    }

    /// Says ready and gives messages to the handlers until the supervisor asks for an end, or all producers have ended.
    ///
    /// # Errors
    /// An error that trying again cannot help: a message too large for its lane, an invalid message, the supervisor gone.
    pub fn serve(&mut self) -> Result<()> {
        self.core.ready(&self.subscriptions)?;
        let mut among = Vec::new();
        let mut subscription_of = vec![0; self.core.failures.len()];
        for (index, subscribed) in self.subscriptions.iter().enumerate() {
            subscribed.inputs.iter().for_each(|&input| subscription_of[input] = index);
            among.extend(subscribed.inputs.iter().copied().filter(|_| subscribed.handler.is_some()));
        }
        loop {
            match self.core.next(&among, None)? {
                Some(Found::Message(input, frame)) => {
                    if let Some(handler) = &mut self.subscriptions[subscription_of[input]].handler {
                        self.core.work(input, frame, handler)?;
                    }
                }
                Some(Found::Stop | Found::Closed) => {
                    self.core.at.world.desk.life(Life::Stopping);
                    return Ok(());
                }
                None => {}
            }
        }
    }

    /// Says ready: the supervisor counts the agent as started. The first send or receive says it too.
    ///
    /// # Errors
    /// A channel that the swarm file says this agent subscribes was not, or the supervisor is gone.
    pub fn ready(&mut self) -> Result<()> {
        self.core.ready(&self.subscriptions)
    }

    /// Receives the next message of a channel, waiting up to `timeout` (`None`: without limit).
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Task { path: String }
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// use shoal_agent::Next;
    /// let tasks = agent.subscribe::<Task>("tasks")?;
    /// while let Next::Message(task) = agent.receive(&tasks, None)? {
    ///     println!("{}", task.message().path);
    ///     task.commit()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An invalid message, or the supervisor is gone.
    pub fn receive<T: Payload>(
        &mut self,
        from: &Subscription<T>,
        timeout: Option<Duration>,
    ) -> Result<Next<'_, T>> {
        self.core.ready(&self.subscriptions)?;
        let found = self.core.next(&self.subscriptions[from.index()].inputs, timeout)?;
        self.core.lend(found)
    }

    /// Receives the next message of a channel if there is one now.
    ///
    /// # Errors
    /// As [`Agent::receive`].
    pub fn try_receive<T: Payload>(&mut self, from: &Subscription<T>) -> Result<Next<'_, T>> {
        self.core.ready(&self.subscriptions)?;
        let found = self.core.try_next(&self.subscriptions[from.index()].inputs)?;
        self.core.lend(found)
    }

    /// Before waiting for a message on the agent's descriptor (`AsFd`): true when there is none and the descriptor will
    /// become readable when there is something to do; false when there is already. Then call [`Agent::try_receive`].
    ///
    /// From true to the next receive the agent counts as asleep, so that its peers ring. Await the descriptor level- or
    /// edge-triggered, and do not read it.
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Task { path: String }
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use shoal_agent::Next;
    /// let tasks = agent.subscribe::<Task>("tasks")?;
    /// loop {
    ///     match agent.try_receive(&tasks)? {
    ///         Next::Message(task) => {
    ///             task.commit()?;
    ///             continue;
    ///         }
    ///         Next::Closed | Next::Stopping => return Ok(()),
    ///         Next::TimedOut => {}
    ///     }
    ///     if agent.arm(&tasks)? {
    ///         // In an async runtime: `async_fd.readable().await`.
    ///         poll(&mut [PollFd::new(&*agent, PollFlags::IN)], None)?;
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn arm<T: Payload>(&mut self, on: &Subscription<T>) -> Result<bool> {
        self.core.ready(&self.subscriptions)?;
        self.core.arm(&self.subscriptions[on.index()].inputs)
    }

    /// Sends a message that answers nothing, waiting for space as long as it takes.
    ///
    /// # Errors
    /// A [`crate::SendError`], or [`crate::SupervisorGone`].
    pub fn send<T: Message>(&mut self, to: &Publisher<T>, message: &T) -> Result<()> {
        self.step_within(None, |step| step.send(to, message))
    }

    /// Sends a message that answers nothing, waiting for space up to `timeout`.
    ///
    /// # Errors
    /// As [`Agent::send`].
    pub fn send_within<T: Message>(
        &mut self,
        to: &Publisher<T>,
        message: &T,
        timeout: Duration,
    ) -> Result<()> {
        self.step_within(Some(timeout), |step| step.send(to, message))
    }

    /// Sends raw bytes that answer nothing, written by hand; see [`Step::send_with`].
    ///
    /// # Errors
    /// As [`Agent::send`], or `fill`'s own.
    pub fn send_with(
        &mut self,
        to: &Publisher<Bytes>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        self.step_within(None, |step| step.send_with(to, len, fill))
    }

    /// Runs a step that answers nothing: what `body` sends becomes visible at once when it returns `Ok`, and never otherwise.
    /// Sends wait for space as long as it takes, unless [`Step::deadline`] says otherwise.
    ///
    /// # Errors
    /// `body`'s own; the send that failed the step as a whole; the supervisor is gone.
    pub fn step<R>(&mut self, body: impl FnOnce(&mut Step<'_>) -> Result<R>) -> Result<R> {
        self.step_within(None, body)
    }

    #[inline]
    fn step_within<R>(
        &mut self,
        timeout: Option<Duration>,
        body: impl FnOnce(&mut Step<'_>) -> Result<R>,
    ) -> Result<R> {
        self.core.ready(&self.subscriptions)?;
        let mut step = Step::without_input(self.core.parts(), timeout);
        let result = body(&mut step)?;
        step.commit(None)?;
        if self.core.at.world.faulty() {
            self.core.accuse()?;
        }
        Ok(result)
    }

    /// How many messages were ever committed to this lane, by this incarnation and all before it: where a source resumes
    /// after a restart.
    pub fn sent<T>(&mut self, to: &Publisher<T>) -> u64 {
        self.core.at.outputs.producer(to.lane()).tail().sequence
    }

    /// How many messages of a channel whose lanes say `when_full = "drop-oldest"` were given up before this incarnation read
    /// them, exactly.
    pub fn missed<T>(&mut self, of: &Subscription<T>) -> u64 {
        let inputs = &self.subscriptions[of.index()].inputs;
        inputs.iter().map(|&input| self.core.at.inputs.consumer(input).missed()).sum()
    }
}

impl AsFd for Agent {
    /// Readable when there is something to do after [`Agent::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.at.world.port.descriptor()
    }
}

impl Core {
    fn parts(&mut self) -> Parts<'_> {
        let Attachment { manifest, outputs, world, .. } = &mut self.at;
        Parts { outputs, world, manifest, scratch: &mut self.scratch, gone: &mut self.gone }
    }

    fn declare<T: Payload>(&mut self, channel: u32, way: Way) -> Result<()> {
        let answer = self.at.declare(channel, way == Way::Publishes, T::FINGERPRINT.0);
        let refusal = answer.map_err(error::of_runtime)?.err();
        refusal.map_or(Ok(()), |text| Err(handle::refused::<T>(&self.at.manifest, channel, way, &text)))
    }

    #[inline]
    fn ready(&mut self, subscriptions: &[Subscribed]) -> Result<()> {
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
    fn accuse(&mut self) -> Result<()> {
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
    fn next(&mut self, among: &[usize], timeout: Option<Duration>) -> Result<Option<Found>> {
        self.disarm();
        let mut deadline = None;
        loop {
            let Attachment { inputs, world, .. } = &mut self.at;
            let found = match inputs.look(among, world, false) {
                Some(found) => Some(found),
                None => {
                    // The clock is read only now that there is a wait. A time-out beyond its range is none.
                    deadline = deadline.or_else(|| Instant::now().checked_add(timeout?));
                    let look = |world: &mut World<Port>, thorough| inputs.look(among, world, thorough);
                    world.wait(deadline, look).map_err(error::of_runtime)?
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

    fn try_next(&mut self, among: &[usize]) -> Result<Option<Found>> {
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

    fn arm(&mut self, among: &[usize]) -> Result<bool> {
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
    fn lend<T: Payload>(&mut self, found: Option<Found>) -> Result<Next<'_, T>> {
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
        let parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, gone: &mut self.gone };
        let step = Step::answering(parts, index, frame, &mut self.failures[index]);
        Ok(Next::Message(Received::new(message, step, cursor)))
    }

    /// Gives a message to its handler, as one step.
    #[inline]
    fn work(&mut self, index: usize, frame: Frame, handler: &mut Handler) -> Result<()> {
        let Attachment { manifest, outputs, inputs, world } = &mut self.at;
        let (sources, cursor) = inputs.consumer(index).split();
        let parts = Parts { outputs, world, manifest, scratch: &mut self.scratch, gone: &mut self.gone };
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
        if self.gone {
            return Err(SupervisorGone.into());
        }
        let world = &mut self.at.world;
        let failures = &mut self.failures[index];
        if hopeless || failures.count >= self.attempts_max {
            return Err(error);
        }
        if world.request() == Request::Stop {
            return Ok(());
        }
        let text = error::text(&error);
        if failures.reported != text {
            let id = handle::message_id(&self.at.manifest, index, frame);
            self.log.report(&format!("message {id}, attempt {}: {text}", failures.count));
            failures.reported = text;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << (failures.count - 1).min(10)).min(PAUSE_MAX);
        let stop = |world: &mut World<Port>, _| (world.request() == Request::Stop).then_some(());
        world.wait(Some(Instant::now() + pause), stop).map_err(error::of_runtime)?;
        Ok(())
    }
}

fn accuse(world: &mut World<Port>, log: &Log) -> Result<()> {
    for fault in world.accuse().map_err(error::of_runtime)? {
        log.report(&fault.to_string());
    }
    Ok(())
}

fn invalid(
    manifest: &shoal_runtime::wire::Manifest,
    input: usize,
    frame: &Frame,
    why: AccessError,
) -> InvalidMessage {
    let id = handle::message_id(manifest, input, frame);
    InvalidMessage { from: id.agent.to_owned(), channel: id.channel.to_owned(), position: id.position, why }
}
