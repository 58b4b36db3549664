//! Who goes before others (`spawn/urgency.rs`): the supervisor, an agent that it ends, and one that is not ready yet.

use super::Swarm;
use crate::confine;
use crate::spawn::Urgency;
use shoal_runtime::Incarnation;

impl Swarm {
    /// From here on what others wait for is done with this priority.
    pub fn be_urgent(&mut self, urgency: Urgency) {
        self.cradle.urgency = urgency;
    }

    /// Nobody waits for this incarnation any more: it is scheduled as the swarm file says.
    pub(super) fn settle_urgency(&self, of: Incarnation) {
        let config = &self.file.agents[self.topology.agents[of.agent as usize].config];
        let settled = confine::settled(config);
        if let Some(live) = self.agents[of.agent as usize].life(of.generation) {
            self.cradle.urgency.settle(&live.child, settled);
        }
    }
}
