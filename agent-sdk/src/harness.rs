//! An agent under test, without a supervisor and in this process: the harness stands for the rest of the swarm.
//!
//! It runs the body with the same [`Agent`] and the same lanes as a real run, only on the heap. Whenever the agent would
//! sleep, the harness takes what was sent and feeds what is left; when nothing is left it asks for an end.
//!
//! ```
//! use shoal_agent::harness::Harness;
//! #[shoal_agent::message] #[derive(Debug, PartialEq)] pub struct Task { text: String }
//! #[shoal_agent::message] #[derive(Debug, PartialEq)] pub struct Count { words: u64 }
//!
//! fn body(agent: &mut shoal_agent::Agent) -> shoal_agent::Result<()> {
//!     let counts = agent.publish::<Count>("counts")?;
//!     agent.on::<Task>("tasks", move |step, task| {
//!         step.send(&counts, &Count { words: task.text.split_whitespace().count() as u64 })
//!     })?;
//!     agent.serve()
//! }
//!
//! let mut harness = Harness::new("worker").subscribes::<Task>("tasks").publishes::<Count>("counts");
//! harness.feed("tasks", Task { text: "one two".into() });
//! harness.run(body)?;
//! assert_eq!(harness.sent::<Count>("counts"), [Count { words: 2 }]);
//! # Ok::<(), shoal_agent::Error>(())
//! ```

mod outside;
mod port;
mod roster;

use crate::core::Patience;
use crate::log::Log;
use crate::payload::Payload;
use crate::{Agent, Message, Result};
use outside::Outside;
use port::HarnessPort;
use roster::ChannelSpec;
pub use shoal_runtime::layout::WhenFull;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Capacity of a lane unless [`Harness::capacity`] says otherwise.
const CAPACITY_BYTES: u64 = 64 << 10;
/// Attempts of a message unless [`Harness::attempts_max`] says otherwise.
const ATTEMPTS_MAX: u32 = 3;

/// How a run ends once everything that was fed is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent is asked to finish what lies in its lanes, then to end.
    Drain,
    /// The agent's producers end for good.
    Close,
    /// The agent is asked to end at once.
    Stop,
}

/// What stands for the rest of the swarm.
pub struct Harness {
    name: String,
    replica: (u32, u32),
    channels: Vec<ChannelSpec>,
    attempts_max: u32,
    reports: Arc<Mutex<Vec<String>>>,
    outside: Option<Rc<RefCell<Outside>>>,
    ending: Option<Ending>,
    collects: bool,
    by_hand: bool,
}

/// The rest of the swarm, in the hand of a body under test.
#[derive(Clone)]
pub struct Hand(Rc<RefCell<Outside>>);

impl Hand {
    /// As [`Harness::feed`], at once.
    pub fn feed<T: Message>(&self, channel: &str, message: T) {
        let mut outside = self.0.borrow_mut();
        outside.feed(channel, message);
        outside.pump_inputs();
    }

    /// Takes what was sent, so that there is space again.
    pub fn collect(&self) {
        self.0.borrow_mut().collect();
    }

    /// As [`Harness::sent`], by now.
    pub fn sent<T: Payload>(&self, channel: &str) -> Vec<T::Owned> {
        let mut outside = self.0.borrow_mut();
        outside.collect();
        let taken = outside.take_sent(channel);
        let open = |bytes: &rkyv::util::AlignedVec<16>| T::access(bytes).and_then(T::to_owned);
        let messages: Result<Vec<_>, _> = taken.iter().map(open).collect();
        messages.unwrap_or_else(|error| panic!("channel `{channel}`: {error}"))
    }

    /// Asks the agent for an end.
    pub fn end(&self, how: Ending) {
        self.0.borrow_mut().end(how);
    }
}

impl Harness {
    /// A swarm around an agent of this name.
    pub fn new(name: &str) -> Self {
        Harness {
            name: name.to_owned(),
            replica: (0, 1),
            channels: Vec::new(),
            attempts_max: ATTEMPTS_MAX,
            reports: Arc::default(),
            outside: None,
            ending: None,
            collects: true,
            by_hand: false,
        }
    }

    fn channel<T: Payload>(mut self, name: &str, publishes: bool) -> Self {
        self.channels.push(ChannelSpec {
            name: name.to_owned(),
            message: T::NAME.to_owned(),
            fingerprint: T::FINGERPRINT.0,
            publishes,
            capacity_bytes: CAPACITY_BYTES,
            when_full: WhenFull::Block,
            producers: 1,
            isolated: false,
        });
        self
    }

    /// The agent subscribes a channel of messages `T`.
    pub fn subscribes<T: Payload>(self, channel: &str) -> Self {
        self.channel::<T>(channel, false)
    }

    /// The agent publishes a channel of messages `T`.
    pub fn publishes<T: Payload>(self, channel: &str) -> Self {
        self.channel::<T>(channel, true)
    }

    fn last(&mut self) -> &mut ChannelSpec {
        self.channels.last_mut().unwrap_or_else(|| panic!("name a channel first"))
    }

    /// The capacity of each lane of the channel named last, a power of two of at least 4096 bytes; 64 KiB unless said.
    pub fn capacity(mut self, bytes: u64) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= 4096, "a capacity is a power of two from 4096 bytes");
        self.last().capacity_bytes = bytes;
        self
    }

    /// What a full lane of the channel named last does; `Block` unless said.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.last().when_full = when_full;
        self
    }

    /// How many agents publish the channel named last, which the agent under test subscribes; 1 unless said.
    pub fn producers(mut self, count: u32) -> Self {
        self.last().producers = count;
        self
    }

    /// The agents that publish the channel named last, which the agent under test subscribes, are not trusted: each message is copied
    /// before it is looked at.
    pub fn isolated(mut self) -> Self {
        self.last().isolated = true;
        self
    }

    /// Which replica the agent is, from 0, and of how many.
    pub fn replica(mut self, replica: u32, of: u32) -> Self {
        self.replica = (replica, of);
        self
    }

    /// How many times a failing message is given before the body ends with its error; 3 unless said.
    pub fn attempts_max(mut self, count: u32) -> Self {
        self.attempts_max = count;
        self
    }

    /// How a run ends once everything is taken: [`Ending::Drain`] unless said, and never if the agent subscribes nothing.
    pub fn ends_with(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }

    /// Takes nothing that the agent sends until its run is over, so that its lanes fill.
    pub fn without_readers(mut self) -> Self {
        self.collects = false;
        self
    }

    /// Does nothing by itself while the agent sleeps: the test's body does it through [`Harness::hand`].
    pub fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    fn open(&mut self) -> &Rc<RefCell<Outside>> {
        let Harness { name, replica, channels, ending, collects, by_hand, .. } = self;
        self.outside.get_or_insert_with(|| {
            let inputs = channels.iter().any(|c| !c.publishes);
            let mut outside = Outside::new(name, *replica, channels);
            outside.ending = ending.or(inputs.then_some(Ending::Drain));
            (outside.collects, outside.by_hand) = (*collects, *by_hand);
            Rc::new(RefCell::new(outside))
        })
    }

    /// The rest of the swarm, for a body to move.
    pub fn hand(&mut self) -> Hand {
        Hand(self.open().clone())
    }

    /// Has a message sent to the agent, by the channel's producers in turn.
    ///
    /// # Panics
    /// When the channel is not subscribed, or the message never fits its lane.
    pub fn feed<T: Message>(&mut self, channel: &str, message: T) {
        self.open().borrow_mut().feed(channel, message);
    }

    /// Has bytes sent to the agent as they are, whatever the channel carries.
    ///
    /// # Panics
    /// As [`Harness::feed`].
    pub fn feed_bytes(&mut self, channel: &str, bytes: impl Into<Vec<u8>>) {
        self.open().borrow_mut().feed_bytes(channel, bytes.into());
    }

    /// Runs a body as the agent's next incarnation: a second run goes on with what the first committed, as after a death.
    ///
    /// # Errors
    /// The body's own, and waiting for something that never comes.
    pub fn run(&mut self, body: impl FnOnce(&mut Agent) -> Result<()>) -> Result<()> {
        let outside = self.open().clone();
        let attachment = HarnessPort::attach(&outside)?;
        let log = Log::kept(&self.name, &self.reports);
        let patience = Patience { attempts_max: self.attempts_max, parks: false };
        let mut agent = Agent::of(attachment.boxed(), log, patience);
        let ended = body(&mut agent).and_then(|()| agent.ready());
        drop(agent);
        outside.borrow_mut().collect();
        ended
    }

    /// Takes the messages that became visible on a channel since the last call, whatever incarnation sent them.
    ///
    /// # Panics
    /// When the channel is not published, or carries something else.
    pub fn sent<T: Payload>(&mut self, channel: &str) -> Vec<T::Owned> {
        self.hand().sent::<T>(channel)
    }

    /// Takes the messages of a channel that the agent rejected on purpose since the last call, with its reasons.
    ///
    /// # Panics
    /// When the channel carries something else.
    pub fn rejected<T: Payload>(&mut self, channel: &str) -> Vec<(T::Owned, String)> {
        let taken = self.open().borrow_mut().take_rejected(channel);
        let open = |bytes: &rkyv::util::AlignedVec<16>| T::access(bytes).and_then(T::to_owned);
        let opened = taken.into_iter().map(|(bytes, why)| open(&bytes).map(|message| (message, why)));
        let messages: Result<Vec<_>, _> = opened.collect();
        messages.unwrap_or_else(|error| panic!("channel `{channel}`: {error}"))
    }

    /// What the agent reported since the last call: what would have gone to its standard error.
    pub fn reports(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the agent said ready.
    pub fn is_ready(&mut self) -> bool {
        self.open().borrow().ready
    }

    /// How many times the agent accused a peer.
    pub fn accusations(&mut self) -> usize {
        self.open().borrow().accusations
    }
}
