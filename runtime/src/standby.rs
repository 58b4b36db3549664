//! A standby: an incarnation that attaches ahead of time and waits until another one dies.
//!
//! Its segment is mapped and sealed, and its peers have mapped it, before anybody knows where its lanes will begin. So the
//! supervisor, which cannot write it, hands over what the verdict on the dead says, and the standby itself writes that where
//! the image of a fresh segment has it. Only then does the board name its generation, and only from then do peers look at it.

use crate::consumer::Given;
use crate::image::{Origin, image};
use crate::incarnation::Incarnation;
use crate::layout::SegmentShape;
use crate::mark::Place;
use crate::region::Region;
use crate::segment;
use crate::sync::Ordering;
use crate::wire::{self, ToAgent};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What an incarnation takes over from the ones before it.
#[derive(Clone, Debug, Default, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Inheritance {
    /// Where each of its lanes begins.
    pub lanes: Vec<Place>,
    /// The first cursor of each input.
    pub inputs: Vec<Place>,
    /// For each input the message that earlier incarnations were given in vain.
    pub given: Vec<Given>,
    /// The committed state: its slot without the zeros that it ends with, which a fresh segment has.
    pub state: Vec<u8>,
    /// Whether it may begin as soon as it has said that it has taken over: nothing else is to be handed to it before.
    pub at_once: bool,
}

impl Inheritance {
    /// As bytes.
    ///
    /// # Errors
    /// More memory than there is.
    pub fn to_bytes(&self) -> io::Result<rkyv::util::AlignedVec> {
        rkyv::to_bytes::<rkyv::rancor::BoxedError>(self).map_err(io::Error::other)
    }

    /// Tells a standby, over its control socket, to take over; never blocks.
    ///
    /// # Errors
    /// As [`wire::tell`], or no descriptor is left.
    ///
    /// # If we die here
    /// The standby is not named yet: a successor ends it, and starts another.
    pub fn hand_over(&self, socket: impl AsFd) -> io::Result<()> {
        let bytes = self.to_bytes()?;
        if bytes.len() <= wire::BODY_BYTES_MAX {
            return wire::tell(socket, &ToAgent::Begin(bytes.into_vec()), &[]);
        }
        let frozen = segment::freeze("shoal-inheritance", &bytes)?;
        wire::tell(socket, &ToAgent::Begin(Vec::new()), &[frozen.as_fd()])
    }

    /// What came of [`Inheritance::hand_over`].
    ///
    /// # Errors
    /// When it is no inheritance, or the kernel's refusal.
    pub fn taken(bytes: &[u8], along: &[OwnedFd]) -> io::Result<Self> {
        match along.first() {
            Some(frozen) => Self::from_bytes(&segment::thaw(frozen)?),
            None => Self::from_bytes(bytes),
        }
    }

    /// From bytes, validated.
    ///
    /// # Errors
    /// When the bytes are no inheritance.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Self, rkyv::rancor::BoxedError>(&aligned).map_err(|e| {
            io::Error::other(format!("what the supervisor handed over is no inheritance of this build: {e}"))
        })
    }
}

/// Writes what a standby inherits into its own segment, which holds its header only.
///
/// # Errors
/// When it is not of the segment's shape.
///
/// # If we die here
/// The board has not named this incarnation: nobody looks at what was written, and the next one inherits the same.
pub fn take_over(
    region: &Region,
    shape: &SegmentShape,
    incarnation: Incarnation,
    from: &Inheritance,
) -> io::Result<()> {
    let fits = from.lanes.len() == shape.lanes.len()
        && from.inputs.len() == shape.input_count as usize
        && from.state.len() <= shape.state_bytes as usize;
    if !fits {
        return Err(io::Error::other("what is inherited is not of the segment's shape"));
    }
    let origin = Origin {
        // The header stands already.
        swarm: 0,
        incarnation,
        lanes: from.lanes.clone(),
        inputs: from.inputs.clone(),
        state: from.state.clone(),
    };
    for (offset, words) in image(shape, &origin).into_iter().filter(|(offset, _)| *offset > 0) {
        for (i, word) in words.into_iter().enumerate() {
            // Relaxed: peers look only after the board's Release of the generation, which follows our word that it is written.
            region.word(offset + i * 8).store(word, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::{LaneShape, WhenFull};
    use crate::state;

    fn shape() -> SegmentShape {
        let lane = LaneShape { capacity_bytes: 4096, when_full: WhenFull::Block, channel: 0 };
        SegmentShape { lanes: vec![lane], input_count: 1, state_bytes: 64 }
    }

    /// A state of 41 bytes, of which the last two are zeros.
    fn slot() -> Vec<u8> {
        (1..=39).chain(std::iter::repeat_n(0, 25)).collect()
    }

    fn inheritance() -> Inheritance {
        let place = |position, sequence| Place { position, sequence };
        let given = Given { position: 8192, attempts: 2 };
        let state = state::used(&slot()).to_vec();
        let (lanes, inputs) = (vec![place(8256, 7)], vec![place(8192, 3)]);
        Inheritance { lanes, inputs, given: vec![given], state, at_once: true }
    }

    #[test]
    fn standby_that_took_over_has_the_words_of_a_fresh_segment() {
        let incarnation = Incarnation { agent: 1, generation: 5 };
        let origin = |lanes, inputs, state| Origin { swarm: 9, incarnation, lanes, inputs, state };
        let Inheritance { lanes, inputs, state, .. } = inheritance();
        assert_eq!(state.len(), 40, "whole words, and no zeros behind");
        let fresh = segment::heap(&shape(), &origin(lanes, inputs, slot()));
        let standby = segment::heap(&shape(), &origin(Vec::new(), Vec::new(), Vec::new()));
        take_over(&standby, &shape(), incarnation, &inheritance()).expect("it fits");
        for offset in (0..fresh.len_bytes()).step_by(8) {
            let words = [&fresh, &standby].map(|r| r.word(offset).load(Ordering::Relaxed));
            assert_eq!(words[0], words[1], "at {offset}");
        }
    }

    #[test]
    fn inheritance_comes_whole_in_its_packet_or_frozen_beside_it() {
        for (words, descriptors) in [(5, 0), (2000, 1)] {
            let given =
                Inheritance { state: (1..=words).flat_map(u64::to_le_bytes).collect(), ..inheritance() };
            let (ours, its) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
            given.hand_over(&ours).expect("handed over");
            let wire::Received::Packet(ToAgent::Begin(bytes), along) = wire::hear(&its, true).expect("heard")
            else {
                panic!("no word to begin")
            };
            assert_eq!(along.len(), descriptors);
            assert_eq!(Inheritance::taken(&bytes, &along).expect("taken"), given);
        }
    }

    #[test]
    fn inheritance_of_another_shape_is_refused_and_comes_back_whole_from_bytes() {
        let incarnation = Incarnation { agent: 1, generation: 5 };
        let region = Region::heap(shape().total_bytes());
        let other = Inheritance { lanes: Vec::new(), ..inheritance() };
        assert!(take_over(&region, &shape(), incarnation, &other).is_err());
        let bytes = inheritance().to_bytes().expect("as bytes");
        assert_eq!(Inheritance::from_bytes(&bytes).expect("from bytes"), inheritance());
        assert!(Inheritance::from_bytes(&bytes[..8]).is_err());
        for state in [vec![], vec![0; 64], vec![7; 64]] {
            let trimmed = if state.contains(&7) { state.clone() } else { Vec::new() };
            assert_eq!(state::used(&state), trimmed);
        }
    }
}
