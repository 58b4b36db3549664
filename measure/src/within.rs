//! Two agents in one process, on the heap, with a lane to each other: what the protocol costs without any other processor.

use crate::star::{CAPACITY_BYTES, agents, manifest};
use crate::talk::Talker;
use shoal_runtime::attachment::{Attachment, Inputs, Outputs, World, neighbours};
use shoal_runtime::board::BoardWriter;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::BoardShape;
use shoal_runtime::links::{Link, Links, Port};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self, Origin};
use shoal_runtime::{Region, cursor, sync};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// A port over which nothing comes and nobody sleeps.
pub struct Still;

impl Port for Still {
    fn receive(&mut self, _wait: bool) -> io::Result<Vec<Link>> {
        Ok(Vec::new())
    }

    fn sleep(&mut self, _deadline: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }
}

/// Room for a state, bytes.
const STATE_BYTES: u32 = 256;

/// Makes both. Where agents leave a publisher's fence to who sleeps, so does this process from here on.
///
/// # Errors
/// No descriptors for their doorbells, or the kernel's refusal.
pub fn pair() -> io::Result<[Talker<Still>; 2]> {
    if sync::can_fence_peers() {
        sync::let_peers_fence()?;
    }
    let shape = BoardShape { channel_count: 2, agents: agents(1), ..BoardShape::default() };
    let board = BoardWriter::create(Region::heap(shape.total_bytes()), shape.clone(), 1);
    let place = Place { position: cursor::first_position(CAPACITY_BYTES), sequence: 0 };
    let manifests = [0, 1].map(|agent| {
        let mut manifest = manifest(agent, 1, CAPACITY_BYTES, &shape);
        manifest.shape.state_bytes = STATE_BYTES;
        manifest
            .neighbours
            .iter_mut()
            .for_each(|peer| Arc::make_mut(&mut peer.shape).state_bytes = STATE_BYTES);
        manifest
    });
    let regions = manifests.each_ref().map(|manifest| {
        let incarnation = manifest.incarnation();
        board.publish_generation(incarnation);
        let origin =
            Origin { swarm: 1, incarnation, lanes: vec![place], inputs: vec![place], state: Vec::new() };
        segment::heap(&manifest.shape, &origin)
    });
    board.announce();
    let talker = |own: usize| -> io::Result<_> {
        let (manifest, region) = (manifests[own].clone(), regions[own].clone());
        let links = Links::new(board.view().clone(), neighbours(&manifest));
        let mut world = World::new(&manifest, links, Still, region.clone());
        let peer = (manifests[1 - own].incarnation(), regions[1 - own].clone());
        world.links.add_all(vec![Link::new(peer.0, peer.1, Doorbell::create()?)]);
        world.links.sync(&mut world.port)?;
        let outputs = Outputs::open(&region, &manifest, &[]);
        let mut inputs = Inputs::open(&region, &manifest, &[]);
        inputs.sync(&mut world.links);
        Ok(Talker::new(Attachment { manifest, outputs, inputs, world }))
    };
    Ok([talker(0)?, talker(1)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Line;
    use shoal_runtime::desk::{Counter, counter};
    use std::time::Duration;

    // Goal: who waits for room, content at first with nothing less than a good part of the ring, goes on with little where no more comes.
    // Method: a full lane, whose reader lets go of one message when its producer waits, and of no other.
    #[test]
    fn who_waits_for_room_is_content_with_one_place_in_the_end() {
        let [mut from, mut to] = pair().expect("two agents");
        let place = |from: &mut Talker<Still>, timeout| {
            let Attachment { outputs, world, .. } = &mut from.at;
            outputs.claim(0, 48, world, Some(timeout)).expect("nobody is gone").is_ok()
        };
        let mut sent = 0;
        while place(&mut from, Duration::ZERO) {
            from.write(&mut Line::default(), sent).expect("there is room");
            from.commit().expect("nobody is gone");
            sent += 1;
        }
        assert!(sent > 1000, "{sent} messages fill the lane");
        let waits = to.at.world.links.neighbour(0).newest().expect("it is linked").region.clone();
        let before = counter(&waits, Counter::Blocked);
        let reader = std::thread::spawn(move || {
            while counter(&waits, Counter::Blocked) == before {
                std::thread::yield_now();
            }
            assert!(to.look(), "it is there");
            to.read(&Line::default(), 0).expect("the first");
            to.commit().expect("nobody is gone");
        });
        assert!(place(&mut from, Duration::from_secs(10)), "the place that was let go of");
        reader.join().expect("no panic");
    }
}
