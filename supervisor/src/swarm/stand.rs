//! What the swarm was changed to, for a successor of the supervisor: its file, who reads whom, the shape of its board, the memory of
//! its groups.
//!
//! A successor is a copy of the keeper, and knows the swarm as it was at the split. Each change (a reload, a scale, the end of an
//! upgrade) therefore makes a journal anew, with room for all agents that there are then; its last record says what the swarm is.
//! ```text
//!   words of the first journal ── Word::Journal ──> descriptor ──> swarm │ agent 0 │ agent 1 │ … │ what the swarm is
//! ```
//! It is written whole, then named: from that store on a successor takes over what the swarm was changed to, before it what it was.
//! So nothing that the former swarm would not survive is done before, and whatever follows from the change is done after.

use super::groups::Memory;
use super::kept::{Kept, claim, copy_words, read, words_for};
use super::record::StandRecord;
use super::{Swarm, hangs, standby};
use crate::config::SwarmFile;
use crate::keeper::table::{self, Held};
use crate::keeper::{self, Word};
use crate::topology::Topology;
use shoal_runtime::journal::Journal;
use shoal_runtime::layout::{BoardShape, SegmentShape};
use shoal_runtime::segment;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Room for the record of the swarm as a whole: the reports of messages given in vain are most of it.
pub(super) const SWARM_BYTES_MAX: usize = 4 << 20;
/// Room for an agent's record beside what its shape and history take.
const AGENT_BYTES_MAX: usize = 16 << 10;

/// Room for the records of a swarm: its own, then those of its agents.
pub(super) fn room_for<'a>(history: u32, shapes: impl Iterator<Item = &'a SegmentShape>) -> Vec<usize> {
    let history = history as usize;
    let of_agent = |shape: &SegmentShape| {
        let places = shape.lanes.len() * (2 + history) + shape.input_count as usize;
        AGENT_BYTES_MAX + places * 32 + history * 64 + shape.state_bytes as usize
    };
    std::iter::once(SWARM_BYTES_MAX).chain(shapes.map(of_agent)).collect()
}

/// The journal of what a swarm is to be, with room for everything. Nobody was told of it yet.
pub(super) struct Next {
    journal: Journal,
    fd: OwnedFd,
    /// Still without the memory of groups, and how often the swarm was changed.
    record: StandRecord,
}

fn bytes_of(record: &StandRecord) -> Result<rkyv::util::AlignedVec, String> {
    rkyv::to_bytes::<rkyv::rancor::BoxedError>(record).map_err(|error| error.to_string())
}

fn contradicts(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("taking over what the swarm was changed to: {error}"))
}

impl Swarm {
    /// Makes the journal of what the swarm is to be; none without a keeper.
    ///
    /// # Errors
    /// What is lacking, in words. Nothing has changed.
    pub(super) fn next_stand(
        &self,
        file: &SwarmFile,
        topology: &Topology,
        board: &BoardShape,
    ) -> Result<Option<Next>, String> {
        if self.kept.is_none() {
            return Ok(None);
        }
        let told = |error: serde_json::Error| {
            format!("a successor of the supervisor could not be told of this file: {error}")
        };
        let mut record = StandRecord {
            file: serde_json::to_vec(file).map_err(told)?,
            topology: serde_json::to_vec(topology).map_err(told)?,
            board: board.clone(),
            groups: vec![(Held::NONE, Held::NONE); topology.groups.len()],
            reloads: 0,
        };
        let shapes: Vec<SegmentShape> = topology.agents.iter().map(crate::birth::segment_shape).collect();
        // What was left under the former file is kept, too.
        let history = file.history.max(self.file.history);
        let mut room = room_for(history, shapes.iter());
        room.push(bytes_of(&record)?.len());
        record.groups.clear();
        let (journal, fd) = Journal::create_named(words_for(shapes.len()), &room)
            .map_err(|error| format!("no memory for the journal of the changed swarm: {error}"))?;
        Ok(Some(Next { journal, fd, record }))
    }

    /// Writes everything into the journal of what the swarm is now, and names it for a successor.
    ///
    /// # If we die here
    /// A successor takes over what was before, or all of this.
    pub(super) fn publish_stand(&mut self, next: Option<Next>) {
        let (Some(Next { journal, fd, mut record }), Some(kept)) = (next, &mut self.kept) else { return };
        (record.groups, record.reloads) = (self.groups.held(), self.reloads);
        copy_words(&kept.records, &journal, kept.agents());
        for agent in kept.unchecked() {
            kept.check_before(agent, &self.agents[agent]);
        }
        let last = journal.records() - 1;
        let written = bytes_of(&record)
            .and_then(|bytes| journal.write(last, &bytes).map_err(|error| format!("{error:?}")));
        kept.records = Arc::new(journal);
        kept.touch_all(self.agents.len());
        self.write_journal();
        self.complain(written.err());
        if let Some(kept) = &mut self.kept {
            keeper::set_word(&kept.journal, Word::Journal, 1 + fd.as_raw_fd() as u64);
            // The former one is closed, if it had a descriptor.
            kept.named = Some(fd);
        }
    }

    /// The swarm is another in something that a successor reads in what it was changed to.
    pub(super) fn write_stand(&mut self) {
        match self.next_stand(&self.file, &self.topology, &self.board_shape) {
            Ok(next) => self.publish_stand(next),
            Err(why) => self.notice(&format!("a successor will not know what was changed: {why}")),
        }
    }

    /// In a successor: becomes what the swarm was changed to, if it was. `open` are the descriptors that were open at the split; as
    /// nobody closes what is not in it, it follows. Opens nothing.
    pub(super) fn follow_stand(&mut self, open: &mut BTreeSet<RawFd>) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let Some(number) = keeper::word(&kept.journal, Word::Journal).checked_sub(1) else { return Ok(()) };
        let fd =
            table::claim_number(number as RawFd).ok_or_else(|| contradicts("its journal is not open"))?;
        let journal = self.or_leave(Journal::open(&fd))?;
        let record = journal.records().checked_sub(1).map(|last| read::<StandRecord, _>(&journal, last));
        let Some(StandRecord { file, topology, board, groups, reloads }) = record.transpose()?.flatten()
        else {
            return Err(contradicts("it was not written"));
        };
        let mut file: SwarmFile = serde_json::from_slice(&file).map_err(contradicts)?;
        let mut topology: Topology = serde_json::from_slice(&topology).map_err(contradicts)?;
        file.share();
        if topology.channels == file.channels {
            topology.channels = file.channels.clone();
        }
        let both = |&(one, other): &(Held, Held)| [one.number, other.number];
        self.groups.held().iter().flat_map(both).for_each(|fd| _ = open.remove(&fd));
        open.extend(groups.iter().flat_map(both).chain([fd.as_raw_fd()]));
        let mut memory = Vec::new();
        for (group, (writable, read_only)) in topology.groups.iter().zip(groups) {
            let [writable, read_only] = [writable, read_only].map(|held| claim(held, "memory of a group"));
            let (writable, read_only) = (writable?, read_only?);
            let region = self.or_leave(segment::open_table(&writable, group.bytes, true))?;
            memory.push(Memory { writable, read_only, region });
        }
        self.groups.take_over(memory);
        self.board.reshape(board.clone());
        (self.file, self.topology, self.board_shape, self.reloads) = (file, topology, board, reloads);
        self.supervision.follow(&self.file, &self.topology, self.cradle.swarm ^ reloads);
        self.stages = self.topology.stop_order();
        self.reared = standby::reared(&self.file);
        self.hangs.watch_anew(hangs::watched(&self.file, &self.topology));
        (0..self.topology.agents.len()).for_each(|agent| _ = self.fit(agent));
        if let Some(kept) = &mut self.kept {
            (kept.records, kept.named) = (Arc::new(journal), Some(fd));
        }
        Ok(())
    }
}

impl Kept {
    /// How many agents its records are of.
    fn agents(&self) -> usize {
        let others = 1 + usize::from(self.named.is_some());
        self.records.records() - others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    const TEXT: &str = r#"
        [swarm]
        name = "s"
        logs = "logs"
        history = 7
        crashes = { count = 3 }
        [channel.tasks]
        message = "Task"
        when_full = "drop-oldest"
        [channel.counts]
        message = "Count"
        [agent.lister]
        command = ["x", "y"]
        publishes = ["tasks"]
        env = { KEY = "value" }
        trust = "isolated"
        cwd = "/"
        seccomp = "strict"
        landlock = { read = ["/"] }
        limits = { memory = "1 MiB", cpus = [0], scheduling = "fifo:3" }
        restart = { policy = "transient", backoff = "1ms..2ms", jitter = "3%" }
        [agent.worker]
        command = ["x"]
        replicas = 3
        subscribes = ["tasks"]
        publishes = ["counts"]
        after = ["lister"]
        deadline = "1s"
        [agent.sink]
        command = ["x"]
        subscribes = ["counts"]
        standby = 1
        [set.all]
        members = ["lister", "worker"]
        strategy = "one_for_all"
        [hooks]
        crash = ["z"]
    "#;

    #[test]
    fn swarm_file_and_topology_are_the_same_when_they_are_read_again() {
        let file = config::parse(Path::new("t.toml"), TEXT).unwrap_or_else(|error| panic!("{error}"));
        let topology = Topology::of(&file);
        let bytes = serde_json::to_vec(&file).expect("written");
        let again: SwarmFile = serde_json::from_slice(&bytes).expect("read");
        // It has no order of its own: everything of it is shown.
        assert_eq!(format!("{again:?}"), format!("{file:?}"));
        let bytes = serde_json::to_vec(&topology).expect("written");
        assert_eq!(serde_json::from_slice::<Topology>(&bytes).expect("read"), topology);
    }
}
