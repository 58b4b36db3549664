//! Who is told that a peer is gone for good: which peers are, and which of them were told of.

use crate::error::Result;
use shoal_runtime::attachment::Inputs;
use shoal_runtime::links::Links;
use shoal_runtime::wire::{Manifest, POSTMAN};
use std::collections::VecDeque;

/// What an author does about a peer that is gone, by its name.
pub(crate) type Mourner = Box<dyn FnMut(&str) -> Result<()>>;

/// The peers of an agent, each with whether it is known to be gone.
pub(crate) struct Gone {
    peers: Vec<(u32, bool)>,
    /// The board's epoch at the last look while there was work.
    epoch: Option<u64>,
    /// For whom a wait was ended, in the loop form, and whose names were not asked for since.
    noted: VecDeque<u32>,
}

impl Gone {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let peers =
            manifest.neighbours.iter().filter(|peer| peer.agent != manifest.agent && peer.name != POSTMAN);
        Gone { peers: peers.map(|peer| (peer.agent, false)).collect(), epoch: None, noted: VecDeque::new() }
    }

    /// The next peer that is gone and was not told of. One that came back is told of again when it goes again.
    pub(crate) fn next(&mut self, inputs: &Inputs, links: &Links) -> Option<u32> {
        for (agent, told) in &mut self.peers {
            let is_gone = inputs.is_gone(*agent, links);
            if is_gone && !*told {
                *told = true;
                return Some(*agent);
            }
            *told &= is_gone;
        }
        None
    }

    /// The next one that the author of a loop has not asked for.
    pub(crate) fn ask(&mut self, inputs: &Inputs, links: &Links) -> Option<u32> {
        while let Some(agent) = self.noted.pop_front() {
            // It may be back.
            if inputs.is_gone(agent, links) {
                return Some(agent);
            }
        }
        self.next(inputs, links)
    }

    /// A wait of the loop form ends for this one.
    pub(crate) fn note(&mut self, agent: u32) {
        self.noted.push_back(agent);
    }

    /// Whether there is somebody to ask for; each is noted once.
    pub(crate) fn is_due(&mut self, inputs: &Inputs, links: &Links) -> bool {
        let next = self.next(inputs, links);
        self.noted.extend(next);
        !self.noted.is_empty()
    }

    /// As [`Gone::next`], between two messages: only where the board has changed since.
    pub(crate) fn next_between(&mut self, inputs: &Inputs, links: &Links) -> Option<u32> {
        let epoch = Some(links.board.epoch());
        if self.epoch == epoch {
            return None;
        }
        let next = self.next(inputs, links);
        if next.is_none() {
            self.epoch = epoch;
        }
        next
    }
}
