//! Who is told that a peer is gone for good: which peers are, and which of them were told of.

use crate::error::Result;
use shoal_runtime::attachment::Inputs;
use shoal_runtime::links::Links;
use shoal_runtime::wire::{Manifest, POSTMAN};

/// What an author does about a peer that is gone, by its name.
pub(crate) type Mourner = Box<dyn FnMut(&str) -> Result<()>>;

/// The peers of an agent, each with whether it is known to be gone.
pub(crate) struct Gone {
    peers: Vec<(u32, bool)>,
    /// The board's epoch at the last look while there was work.
    epoch: Option<u64>,
}

impl Gone {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let peers =
            manifest.neighbours.iter().filter(|peer| peer.agent != manifest.agent && peer.name != POSTMAN);
        Gone { peers: peers.map(|peer| (peer.agent, false)).collect(), epoch: None }
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

    /// The same between two messages: only where the board has changed since.
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
