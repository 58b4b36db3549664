//! A member of the group: the runtime's own code, in a process of its own (the worker) or inside the judge (its mate).

use super::super::life::{ABORTED, Bytes, Quiet, write};
use super::super::story::STATE_FINGERPRINT;
use super::super::tracer::Control;
use super::story::{Consumed, Event, GroupStory};
use shoal_runtime::attachment::{Encode, Found, Inputs, Outputs, World, neighbours};
use shoal_runtime::board::Board;
use shoal_runtime::consumer::Frame;
use shoal_runtime::desk::Desk;
use shoal_runtime::links::{Link, Links};
use shoal_runtime::wire::Manifest;
use shoal_runtime::{Region, clock};
use std::io;

/// One incarnation of a member.
pub struct Member<'a> {
    story: &'a GroupStory,
    lanes: usize,
    stateful: bool,
    inputs: Inputs,
    outputs: Outputs,
    world: World<Quiet>,
    diary: Option<&'a Control>,
    /// What it was given and is done with: numbers, and how often each was given before.
    pub done: Vec<(u64, u32)>,
}

impl<'a> Member<'a> {
    /// Opens an incarnation over its segment and the claim table, as `attachment::attach` does.
    ///
    /// # Errors
    /// A link is missing.
    pub fn open(
        story: &'a GroupStory,
        own: &Region,
        manifest: &Manifest,
        table: &Region,
        board: Board,
        links: Vec<Link>,
        diary: Option<&'a Control>,
    ) -> io::Result<Self> {
        let mut world = World::new(manifest, Links::new(board, neighbours(manifest)), Quiet, own.clone());
        world.links.add_all(links);
        world.links.sync(&mut world.port)?;
        let claims = [table.clone()];
        let outputs = Outputs::open(own, manifest, &claims);
        let mut inputs = Inputs::open(own, manifest, &claims);
        inputs.sync(&mut world.links);
        let (lanes, stateful) = (manifest.lanes.len(), manifest.shape.state_bytes > 0);
        Ok(Member { story, lanes, stateful, inputs, outputs, world, diary, done: Vec::new() })
    }

    fn note(&self, event: Event, sequence: u64) {
        if let Some(diary) = self.diary {
            diary.note(event.entry(sequence));
        }
    }

    /// The messages that it consumed in all its lives, by its state.
    ///
    /// # Errors
    /// It is none.
    pub fn consumed(&mut self) -> Result<Consumed, String> {
        let value = self.outputs.state().value();
        if let Some((_, fingerprint)) = value
            && fingerprint != STATE_FINGERPRINT
        {
            return Err(format!("its state has the fingerprint {fingerprint:x}"));
        }
        Consumed::from_bytes(value.map(|(bytes, _)| bytes))
    }

    /// Says that it sleeps, or no longer.
    pub fn park(&self, parked: bool) {
        let desk: &Desk = &self.world.desk;
        if parked { desk.parked().set() } else { desk.parked().clear() }
    }

    /// Whether a look before a sleep finds a message; it is then held.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn finds_something(&mut self) -> Result<bool, String> {
        Ok(self.receive()?.is_some())
    }

    fn receive(&mut self) -> Result<Option<Frame>, String> {
        let found = match self.inputs.look(&[0], &mut self.world, false) {
            None => self.inputs.look(&[0], &mut self.world, true),
            found => found,
        };
        if let Some(fault) = self.world.take_faults().pop() {
            return Err(format!("it accuses {}: {}", fault.incarnation, fault.what));
        }
        match found {
            None => Ok(None),
            Some(Found::Message(0, frame)) => Ok(Some(frame)),
            other => Err(format!("it was told {other:?}")),
        }
    }

    /// Receives, handles, sends, keeps state, commits, publishes, settles, rings. False when there is no message for it.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn step(&mut self) -> Result<bool, String> {
        let Some(frame) = self.receive()? else { return Ok(false) };
        let sequence = frame.at.sequence;
        self.note(Event::Received, sequence);
        self.note(Event::Holding, sequence);
        self.world.desk.hold(0, frame.at, frame.attempts + 1, clock::coarse_ns());
        self.note(Event::Held, sequence);
        self.compare(&frame)?;
        if self.lanes > 0 && sequence % 4 >= 2 {
            // A handler that fails after it sent: nothing of it may ever be seen.
            write(&mut self.outputs, &mut self.world, 0, false, ABORTED)?;
            self.keep(ABORTED)?;
            self.outputs.abort();
        }
        for lane in 0..self.lanes {
            let story = self.story;
            for (nth, payload) in story.outputs(lane, sequence).iter().enumerate() {
                write(
                    &mut self.outputs,
                    &mut self.world,
                    lane,
                    ((lane + nth) as u64 + sequence) % 2 == 1,
                    payload,
                )?;
            }
        }
        if self.stateful {
            let mut consumed = self.consumed()?;
            consumed.add(sequence);
            self.keep(&consumed.to_bytes())?;
        }
        // Whatever others did meanwhile: nobody may have touched the message in hand.
        self.compare(&frame)?;
        self.note(Event::Committing, sequence);
        if self.lanes == 0 && sequence % 2 == 1 {
            self.inputs.consumer(0).ack(&frame);
            self.world.links.fence();
            let (_, cursor) = self.inputs.consumer(0).split();
            cursor.ring_if_wanted(&mut self.world.links);
        } else {
            let (_, cursor) = self.inputs.consumer(0).split();
            self.outputs.commit(Some((0, cursor, &frame)), &mut self.world).map_err(|e| e.to_string())?;
        }
        self.note(Event::Committed, sequence);
        self.world.desk.release();
        self.done.push((sequence, frame.attempts));
        Ok(true)
    }

    /// Takes everything that is there for it, at most `most` messages. How many.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn work(&mut self, most: u64) -> Result<u64, String> {
        for taken in 0..most {
            if !self.step()? {
                return Ok(taken);
            }
        }
        Ok(most)
    }

    fn compare(&mut self, frame: &Frame) -> Result<(), String> {
        let number = frame.at.sequence;
        let (sources, _) = self.inputs.consumer(0).split();
        let whole = sources.lease(frame)
            && self.story.input.message(number).is_some_and(|m| sources.leased(frame) == m.payload);
        if whole { Ok(()) } else { Err(format!("input {number} has other bytes than were sent")) }
    }

    fn keep(&mut self, value: &[u8]) -> Result<(), String> {
        let state = self.outputs.state();
        if self.stateful && !state.replace(STATE_FINGERPRINT, |room| Bytes(value).fill(room)) {
            return Err("its state does not fit the slot".into());
        }
        Ok(())
    }
}
