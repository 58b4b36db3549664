//! The agent of a scenario: the runtime's own code, in a process of its own or inside the judge.

use super::story::{Manner, STATE_FINGERPRINT, Story};
use shoal_runtime::attachment::{Encode, Found, Inputs, Outputs, World, neighbours};
use shoal_runtime::board::Board;
use shoal_runtime::links::{Link, Links, Port};
use shoal_runtime::wire::Manifest;
use shoal_runtime::{Region, clock};
use std::io;
use std::mem::MaybeUninit;
use std::time::Instant;

/// A port of an agent that was given all links at its birth and never has to sleep.
pub struct Quiet;

impl Port for Quiet {
    fn receive(&mut self, wait: bool) -> io::Result<Vec<Link>> {
        if wait {
            return Err(io::Error::other("it waits for a link that nobody will hand over"));
        }
        Ok(Vec::new())
    }

    fn sleep(&mut self, _: Option<Instant>) -> io::Result<bool> {
        Err(io::Error::other("it goes to sleep although there is work"))
    }
}

/// One incarnation of the agent.
pub struct Life<'a> {
    story: &'a Story,
    inputs: Inputs,
    outputs: Outputs,
    world: World<Quiet>,
}

/// Bytes that write themselves into a claim.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Encode for Bytes<'_> {
    fn fill(&mut self, slot: &mut [MaybeUninit<u8>]) -> Option<usize> {
        let slot = slot.get_mut(..self.0.len())?;
        slot.iter_mut().zip(self.0).for_each(|(to, &from)| {
            to.write(from);
        });
        Some(slot.len())
    }

    fn exact(&mut self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// How the agent sends a message that it then thinks better of.
pub(super) const ABORTED: &[u8] = &[0x5a; 120];

impl<'a> Life<'a> {
    /// Opens an incarnation over its segment, as `attachment::attach` does.
    ///
    /// # Errors
    /// A link is missing.
    pub fn open(
        story: &'a Story,
        own: &Region,
        manifest: &Manifest,
        board: Board,
        links: Vec<Link>,
    ) -> io::Result<Self> {
        let mut world = World::new(manifest, Links::new(board, neighbours(manifest)), Quiet, own.clone());
        world.links.add_all(links);
        world.links.sync(&mut world.port)?;
        let outputs = Outputs::open(own, manifest, &[]);
        let mut inputs = Inputs::open(own, manifest, &[]);
        inputs.sync(&mut world.links);
        Ok(Life { story, inputs, outputs, world })
    }

    /// The step that comes next, by the own cursor and tails.
    pub fn next_step(&mut self) -> Option<u64> {
        let lanes: Vec<u64> =
            (0..self.story.lanes.len()).map(|lane| self.outputs.producer(lane).tail().sequence).collect();
        let input = self.story.input.as_ref().map(|_| self.inputs.consumer(0).at().sequence);
        self.story.step_at(&lanes, input)
    }

    /// Takes the input of a step, one message or several, sends its outputs, commits, publishes, acknowledges, rings.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn step(&mut self, step: u64) -> Result<(), String> {
        let frame = match &self.story.input {
            Some(row) => Some(self.receive(row, step)?),
            None => None,
        };
        if step % 4 >= 2 && !self.story.lanes.is_empty() {
            // A handler that fails after it sent: nothing of it may ever be seen.
            write(&mut self.outputs, &mut self.world, 0, false, ABORTED)?;
            self.keep(ABORTED)?;
            self.outputs.abort();
        }
        for lane in 0..self.story.lanes.len() {
            for (i, message) in self.story.lanes[lane].of_step(step).enumerate() {
                write(
                    &mut self.outputs,
                    &mut self.world,
                    lane,
                    (lane + i + step as usize) % 2 == 1,
                    &message.payload,
                )?;
            }
        }
        if self.story.changes_state(step) {
            self.keep(&self.story.state_at(step + 1))?;
        }
        match (&frame, self.story.manner) {
            (Some(frame), Manner::PlainAck) => {
                self.inputs.consumer(0).ack(frame);
                self.world.links.fence();
                let (_, cursor) = self.inputs.consumer(0).split();
                cursor.ring_if_wanted(&mut self.world.links);
            }
            (Some(frame), Manner::Step) => {
                let (_, cursor) = self.inputs.consumer(0).split();
                let input = Some((0, cursor, frame));
                self.outputs.commit(input, &mut self.world).map_err(|e| e.to_string())?;
            }
            (None, _) => self.outputs.commit(None, &mut self.world).map_err(|e| e.to_string())?,
        }
        self.world.desk.release();
        if let Some(fault) = self.world.take_faults().pop() {
            return Err(format!("it accuses {}: {}", fault.incarnation, fault.what));
        }
        Ok(())
    }

    fn receive(
        &mut self,
        row: &super::story::Row,
        step: u64,
    ) -> Result<shoal_runtime::consumer::Frame, String> {
        let look = |life: &mut Self, thorough| life.inputs.look(&[0], &mut life.world, thorough);
        let found = look(self, false).or_else(|| look(self, true));
        let Some(Found::Message(0, frame)) = found else {
            let faults = self.world.take_faults();
            return Err(format!("there is no input for step {step}: {found:?}, faults {faults:?}"));
        };
        let desk = &self.world.desk;
        desk.hold(0, frame.at, frame.attempts + 1, clock::coarse_ns());
        let (sources, cursor) = self.inputs.consumer(0).split();
        if !sources.lease(&frame) {
            return Err(format!("input {} cannot be leased", frame.at.sequence));
        }
        let (mut in_hand, mut due) = (frame, row.sequence_at(step));
        for (i, message) in row.of_step(step).enumerate() {
            if i > 0 {
                // As `Step::take_along` of the SDK does.
                in_hand = sources.behind(&in_hand).ok_or(format!("input {due} cannot be taken along"))?;
                cursor.take_along(&in_hand);
                desk.release();
                desk.hold(0, in_hand.at, 1, clock::coarse_ns());
            }
            if in_hand.at.sequence != due {
                return Err(format!("input {} came instead of {due}", in_hand.at.sequence));
            }
            if sources.leased(&in_hand) != message.payload {
                return Err(format!("input {due} has other bytes than were sent"));
            }
            due += 1;
        }
        Ok(in_hand)
    }

    /// Replaces the state, as part of the step.
    fn keep(&mut self, value: &[u8]) -> Result<(), String> {
        let state = self.outputs.state();
        if self.story.stateful && !state.replace(STATE_FINGERPRINT, |room| Bytes(value).fill(room)) {
            return Err("its state does not fit the slot".into());
        }
        Ok(())
    }

    /// Checks the state that it begins a step with.
    ///
    /// # Errors
    /// What it is instead.
    pub fn check_state(&mut self, step: u64) -> Result<(), String> {
        let expected = self.story.state_at(step);
        let found = self.outputs.state().value();
        let same = match found {
            None => expected.is_empty(),
            Some((value, fingerprint)) => value == expected && fingerprint == STATE_FINGERPRINT,
        };
        if same {
            Ok(())
        } else {
            Err(format!("its state before step {step} is {found:x?}, not {expected:x?}"))
        }
    }
}

/// Sends a payload on a lane, in one of the two ways in which agents write.
pub(super) fn write(
    outputs: &mut Outputs,
    world: &mut World<Quiet>,
    lane: usize,
    by_hand: bool,
    payload: &[u8],
) -> Result<(), String> {
    let written = if by_hand {
        let fill = |slot: &mut [u8]| {
            slot[..payload.len()].copy_from_slice(payload);
            Ok::<usize, ()>(payload.len())
        };
        outputs.write_by_hand(lane, payload.len(), world, None, fill).map(|outer| outer.map(drop))
    } else {
        outputs.write(lane, world, None, &mut Bytes(payload))
    };
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("a send on lane {lane} failed: {error:?}")),
        Err(error) => Err(format!("a send on lane {lane} failed: {error}")),
    }
}
