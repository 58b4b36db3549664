//! The agent: what its author's body is given.

use crate::core::{Core, Event, Handler, Patience, Problem, Subscribed};
use crate::error::{self, Error, Result};
use crate::gone::{Gone, Mourner};
use crate::handle::{self, Publisher, Subscription, Way};
use crate::payload::{Bytes, Payload};
use crate::state::{self, State};
use crate::step::{Failures, Lost, Received, Step};
use crate::{Log, Port};
use shoal_runtime::attachment::{self, Attachment, Found};
use shoal_runtime::board::Request;
use shoal_runtime::desk::Life;
use shoal_runtime::message::{Message, Scratch};
use shoal_runtime::port::Control;
use shoal_runtime::wire::Manifest;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// An attached agent.
pub struct Agent {
    core: Core,
    subscriptions: Vec<Subscribed>,
    mourner: Option<(Mourner, Gone)>,
    /// In the loop form, if it asked for it.
    gone: Option<Gone>,
    /// Name and fingerprint of its state's type, once it asked for it.
    state: Option<(&'static str, u64)>,
}

/// Who is gone for good, in the loop form: a plain handle, made by [`Agent::peers`].
#[derive(Clone, Copy, Debug)]
pub struct Peers(());

/// What came of a receive.
#[must_use]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for every message")]
pub enum Next<'a, T: Payload> {
    /// A message.
    Message(Received<'a, T>),
    /// Nothing came in time; for [`Agent::try_receive`], nothing is there now; for who asked for [`Agent::peers`], perhaps one is gone.
    TimedOut,
    /// All producers of the channel ended for good, and everything was read. An agent whose `restart` is `permanent` never
    /// gets this: it waits for producers that an operator may start again.
    Closed,
    /// The supervisor asks for an end, and nothing is left that should be done before.
    Stopping,
}

impl Agent {
    /// Attaches to the supervisor that started this process.
    pub(crate) fn attach() -> Result<Self> {
        Ok(Agent::attached(attachment::attach().map_err(error::of_runtime)?))
    }

    /// Attaches this process through one end of a socket pair (`SOCK_SEQPACKET`) whose other end a supervisor adopted: for a
    /// process that no supervisor started. It leaves the swarm when the agent is dropped.
    ///
    /// # Errors
    /// The supervisor is gone, or has not adopted the other end; no memory or descriptors.
    pub fn attach_through(control: OwnedFd) -> Result<Self> {
        Ok(Agent::attached(attachment::attach_through(control).map_err(error::of_runtime)?))
    }

    fn attached(attachment: Attachment) -> Self {
        let log = Log::to_stderr(&attachment.manifest.name);
        let patience = match attachment.manifest.attempts_max {
            0 => Patience { attempts_max: u32::MAX, parks: false },
            attempts_max => Patience { attempts_max, parks: true },
        };
        Agent::of(attachment.boxed(), log, patience)
    }

    /// An agent of an attachment.
    pub(crate) fn of(at: Attachment<Port>, log: Log, patience: Patience) -> Self {
        let failures = at.manifest.inputs.iter().map(|_| Failures::default()).collect();
        let scratch = Scratch::new();
        let core = Core {
            at,
            scratch,
            failures,
            patience,
            log,
            ready: false,
            armed: false,
            lost: Lost::Nothing,
            batch: 1,
        };
        Agent { core, subscriptions: Vec::new(), mourner: None, gone: None, state: None }
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
        matches!(self.core.at.world.request(), Request::Drain | Request::Stop)
    }

    /// A handle to send messages of type `T` on a channel that the swarm file says this agent publishes.
    ///
    /// # Errors
    /// In words for the author: no such channel, not published by this agent, or another type of message.
    pub fn publish<T: Payload>(&mut self, channel: &str) -> Result<Publisher<T>> {
        let way = Way::Publishes;
        let index = handle::channel::<T>(&self.core.at.manifest, channel, way)?;
        let lane = self.core.at.manifest.lanes.iter().position(|l| l.channel == index);
        let lane = lane.ok_or_else(|| handle::wrong_way(&self.core.at.manifest, channel, way))?;
        handle::check_size::<T>(&self.core.at.manifest, lane)?;
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
        let way = Way::Subscribes;
        let index = handle::channel::<T>(manifest, channel, way)?;
        let inputs = manifest.inputs.iter().enumerate().filter(|(_, i)| i.channel == index);
        let inputs: Vec<usize> = inputs.map(|(i, _)| i).collect();
        if inputs.is_empty() {
            return Err(handle::wrong_way(manifest, channel, way));
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
    /// After `max_attempts` of the swarm file, or at once when the error is a [`crate::Reject`], it is given up: it lies with
    /// the dead letters, and the next message is given.
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

    /// From now on a step of [`Agent::serve`] handles up to so many messages of a lane, as far as they are there already: the handler is
    /// called for one after the other, and what it sent for any, its state and all acknowledgements become visible together when
    /// the last is handled. Many small messages cost half as much so; each answer comes a little later. 1 at first.
    ///
    /// When a handler fails, nothing of the step has happened, and its messages come again: the one that failed in a step of its own, so that
    /// it keeps no other from being done, and only what it does there is an attempt at it. Which are never taken along: see
    /// [`crate::Received::advance`].
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Tick { value: u64 }
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// agent.batch(64);
    /// agent.on::<Tick>("ticks", |_, tick| {
    ///     println!("{}", tick.value);
    ///     Ok(())
    /// })?;
    /// agent.serve()
    /// # }
    /// ```
    pub fn batch(&mut self, max: u32) {
        self.core.batch = max;
    }

    /// Has a handler told, once [`Agent::serve`] runs, when an agent that this one sends to or receives from is gone for good: it was given
    /// up, ended by its policy, or was removed. Who was stopped by an operator is expected back, and waited for.
    ///
    /// The handler is given the name, with its replica, when everything that the gone one had sent was read and handled. What that one had
    /// not read is read by nobody, unless an operator starts it again; then it is told of again when it goes again. Each life of this agent
    /// is told anew. An error ends [`Agent::serve`].
    ///
    /// ```no_run
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// agent.on_gone(|peer| {
    ///     println!("{peer} will not come back by itself");
    ///     Ok(())
    /// });
    /// agent.serve()
    /// # }
    /// ```
    pub fn on_gone(&mut self, handler: impl FnMut(&str) -> Result<()> + 'static) {
        self.mourner = Some((Box::new(handler), Gone::of(&self.core.at.manifest)));
    }

    /// A handle to hear in the loop form which peers are gone for good, in the sense of [`Agent::on_gone`]: from now on a receive
    /// ends with [`Next::TimedOut`] for each, once, and [`Agent::gone`] has the name.
    ///
    /// ```no_run
    /// # #[shoal_agent::message] pub struct Task { path: String }
    /// # fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
    /// use shoal_agent::Next;
    /// let tasks = agent.subscribe::<Task>("tasks")?;
    /// let peers = agent.peers();
    /// loop {
    ///     match agent.receive(&tasks, None)? {
    ///         Next::Message(task) => {
    ///             task.commit()?;
    ///             continue;
    ///         }
    ///         Next::Closed | Next::Stopping => return Ok(()),
    ///         Next::TimedOut => {}
    ///     }
    ///     while let Some(peer) = agent.gone(&peers)? {
    ///         println!("{peer} will not come back by itself");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn peers(&mut self) -> Peers {
        self.gone.get_or_insert_with(|| Gone::of(&self.core.at.manifest));
        Peers(())
    }

    /// The name of the next peer that is gone for good and was not told of, with its replica; `None` if there is none now. Each life of
    /// this agent is told anew, and of one that came back when it goes again.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn gone(&mut self, _: &Peers) -> Result<Option<String>> {
        let Some(gone) = &mut self.gone else { return Ok(None) };
        let agent = self.core.ask_gone(gone)?;
        Ok(agent.map(|agent| peer_of(&self.core.at.manifest, agent).to_owned()))
    }

    /// The next message among some inputs, or what ends the wait for it.
    #[inline]
    fn next_in_loop(&mut self, of: usize, timeout: Option<Duration>) -> Result<Option<Found>> {
        let among = &self.subscriptions[of].inputs;
        let Some(gone) = &mut self.gone else { return self.core.next(among, timeout) };
        match self.core.next_or_gone(among, timeout, gone)? {
            Event::Found(found) => Ok(found),
            Event::Gone(agent) => {
                gone.note(agent);
                Ok(None)
            }
        }
    }

    /// The next thing to do, after the handler was told who is gone.
    fn next_to_serve(&mut self, among: &[usize]) -> Result<Option<Found>> {
        let Some((handler, gone)) = &mut self.mourner else { return self.core.next(among, None) };
        loop {
            match self.core.next_or_gone(among, None, gone)? {
                Event::Found(found) => return Ok(found),
                Event::Gone(agent) => {
                    handler(peer_of(&self.core.at.manifest, agent))?;
                }
            }
        }
    }

    /// Says ready and gives messages to the handlers until the supervisor asks for an end, or all producers have ended for
    /// good (see [`Next::Closed`]).
    ///
    /// # Errors
    /// A channel was subscribed without a handler, and the agent did not say ready before, by [`Agent::ready`], a receive or a send: nobody
    /// would ever read it. The supervisor is gone, or cannot store a message that is given up. With `max_attempts = 0` also what trying
    /// again cannot help: a message too large for its lane, an invalid message.
    pub fn serve(&mut self) -> Result<()> {
        let unserved = self.subscriptions.iter().find(|subscribed| subscribed.handler.is_none());
        if let Some(subscribed) = unserved.filter(|_| !self.core.ready) {
            return Err(handle::unserved(&self.core.at.manifest, subscribed.channel));
        }
        self.core.ready(&self.subscriptions)?;
        let mut among = Vec::new();
        let mut subscription_of = vec![0; self.core.failures.len()];
        for (index, subscribed) in self.subscriptions.iter().enumerate() {
            subscribed.inputs.iter().for_each(|&input| subscription_of[input] = index);
            among.extend(subscribed.inputs.iter().copied().filter(|_| subscribed.handler.is_some()));
        }
        loop {
            let found = self.next_to_serve(&among)?;
            match found {
                Some(Found::Message(..)) if self.core.settles(&found)? => {}
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
    /// An invalid message, which is parked with the dead letters; or the supervisor is gone, or cannot store one.
    pub fn receive<T: Payload>(
        &mut self,
        from: &Subscription<T>,
        timeout: Option<Duration>,
    ) -> Result<Next<'_, T>> {
        self.core.ready(&self.subscriptions)?;
        loop {
            let found = self.next_in_loop(from.index(), timeout)?;
            if !self.core.settles(&found)? {
                return self.core.lend(found);
            }
        }
    }

    /// Receives the next message of a channel if there is one now.
    ///
    /// # Errors
    /// As [`Agent::receive`].
    pub fn try_receive<T: Payload>(&mut self, from: &Subscription<T>) -> Result<Next<'_, T>> {
        self.core.ready(&self.subscriptions)?;
        loop {
            let found = self.core.try_next(&self.subscriptions[from.index()].inputs)?;
            if !self.core.settles(&found)? {
                return self.core.lend(found);
            }
        }
    }

    /// Before waiting for a message on the agent's descriptor (`AsFd`): true when there is none and the descriptor will
    /// become readable when there is something to do; false when there is already. Then call [`Agent::try_receive`], and for who asked for
    /// [`Agent::peers`], [`Agent::gone`].
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
        self.core.arm(&self.subscriptions[on.index()].inputs, self.gone.as_mut())
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
        if self.core.at.world.request() == Request::Pause {
            self.core.sit_out_pause(timeout)?;
        }
        let mut step = Step::without_input(self.core.parts(), timeout);
        let result = body(&mut step)?;
        step.commit(None)?;
        if self.core.at.world.faulty() {
            self.core.accuse()?;
        }
        Ok(result)
    }

    /// The agent's one state, of type `S`: what its next incarnation finds as it was at the last commit.
    ///
    /// # Errors
    /// What was kept is of another type; both fingerprints are named. Or it was asked for as another type before.
    pub fn state<S: Message>(&mut self) -> Result<State<S>> {
        let Attachment { manifest, outputs, .. } = &mut self.core.at;
        let own = (S::NAME, S::FINGERPRINT.0);
        if let Some((name, _)) = self.state.filter(|(_, fingerprint)| *fingerprint != own.1) {
            return Err(state::second(&manifest.name, name, S::NAME));
        }
        let state = State::open(&manifest.name, outputs.state())?;
        self.state = Some(own);
        Ok(state)
    }

    /// The state as it was committed last; `None` before the first.
    ///
    /// # Errors
    /// What was kept is no value of this type.
    pub fn load<S: Message>(&mut self, _state: &State<S>) -> Result<Option<S>> {
        state::load(self.core.at.outputs.state())
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

/// The name of a peer.
fn peer_of(manifest: &Manifest, agent: u32) -> &str {
    manifest.neighbours.iter().find(|peer| peer.agent == agent).map_or("", |peer| &peer.name)
}

impl AsFd for Agent {
    /// Readable when there is something to do after [`Agent::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.at.world.port.descriptor()
    }
}
