//! The board: the supervisor's published words about everybody.
//!
//! Everything but the counters of the epoch is written before the epoch moves, so whoever saw an epoch sees what it told.

use crate::bug::{Bug, placed};
use crate::incarnation::Incarnation;
use crate::layout::{BOARD_MAGIC, BoardShape, VERSION, board};
use crate::mark::Place;
use crate::region::{Region, Row};
use crate::sync::{Ordering, Site, fence, ordering};

/// Whether an agent is expected to come (back).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Status {
    /// It runs, or will.
    Expected = 0,
    /// It ended for good, was given up or removed: nobody waits for it.
    Gone = 1,
    /// As a sender it is gone; as a reader it is waited for: what it has not read is kept until an operator decides.
    Kept = 2,
}

impl Status {
    /// Whether nothing more comes of it: it ended for good, was given up or removed.
    pub fn sends_no_more(self) -> bool {
        self != Status::Expected
    }
}

/// What the supervisor asks of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Request {
    /// To work.
    Run = 0,
    /// To finish what lies in its lanes, then to end.
    Drain = 1,
    /// To end after the step in hand.
    Stop = 2,
    /// To take no new message and begin no step of its own until it is asked for something else.
    Pause = 3,
}

impl Request {
    #[inline(always)]
    fn of(word: u64) -> Self {
        match word {
            0 => Request::Run,
            1 => Request::Drain,
            3 => Request::Pause,
            _ => Request::Stop,
        }
    }
}

/// How a verdict came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum VerdictKind {
    /// The dead incarnation's own record says so.
    Committed = 1,
    /// Its words contradicted each other: lanes end where readers had accepted.
    Corrupt = 2,
}

/// The supervisor's word on a dead incarnation: where its lanes end and its cursors stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whose end it is.
    pub generation: u32,
    /// How it came about.
    pub kind: VerdictKind,
    /// End of each lane that it wrote.
    pub lanes: Vec<Place>,
    /// Cursor in each lane that it read.
    pub inputs: Vec<Place>,
}

/// What is asked of one agent.
pub(crate) struct Asked {
    word: Row<1>,
}

impl Asked {
    /// As it stands now.
    #[inline(always)]
    pub(crate) fn now(&self) -> Request {
        // Acquire: pairs with the Release stores of `BoardWriter`.
        Request::of(self.word.word(0).load(ordering(Site::AgentWordLoad, Ordering::Acquire)))
    }
}

/// The board as its readers see it.
#[derive(Clone)]
pub struct Board {
    region: Region,
    epoch: Row<1>,
    shape: std::sync::Arc<BoardShape>,
    verdicts: std::sync::Arc<[usize]>,
}

impl Board {
    /// How many agents it is about.
    pub fn agents(&self) -> usize {
        self.shape.agents.len()
    }

    /// Reads a board of the given shape.
    ///
    /// # Errors
    /// When magic, version or size are not those of this build, with both sides named.
    pub fn open(region: Region, shape: BoardShape) -> Result<Self, String> {
        // Relaxed: written before the board was handed out.
        let word = |offset: usize| region.word(offset).load(Ordering::Relaxed);
        let expected = [BOARD_MAGIC, VERSION, shape.total_bytes() as u64];
        let found = [word(board::MAGIC), word(board::VERSION), word(board::TOTAL_BYTES)];
        if expected != found {
            return Err(format!(
                "the board does not fit this build: magic, version, size are {found:x?}, not {expected:x?}"
            ));
        }
        Ok(Board::of(region, shape))
    }

    fn of(region: Region, shape: BoardShape) -> Self {
        let verdicts = shape.verdict_offsets().into();
        let epoch = Row::new(&region, board::EPOCH);
        Board { region, epoch, shape: shape.into(), verdicts }
    }

    /// Number of the last change.
    #[inline]
    pub fn epoch(&self) -> u64 {
        // Acquire: pairs with the Release in `BoardWriter::announce`; what the epoch told is seen.
        self.epoch.word(0).load(ordering(Site::EpochLoad, Ordering::Acquire))
    }

    fn agent_word(&self, agent: u32, offset: usize) -> u64 {
        // Acquire: pairs with the Release stores of `BoardWriter`.
        let word = self.region.word(self.shape.agent_offset(agent as usize) + offset);
        word.load(ordering(Site::AgentWordLoad, Ordering::Acquire))
    }

    /// The newest incarnation whose segment was handed to its peers; 0 before the first.
    pub fn generation(&self, agent: u32) -> u32 {
        self.agent_word(agent, board::GENERATION) as u32
    }

    /// Whether an agent is expected.
    pub fn status(&self, agent: u32) -> Status {
        match self.agent_word(agent, board::STATUS) {
            1 => Status::Gone,
            2 => Status::Kept,
            _ => Status::Expected,
        }
    }

    /// What is asked of an agent.
    #[inline]
    pub fn request(&self, agent: u32) -> Request {
        Request::of(self.agent_word(agent, board::REQUEST))
    }

    /// Where it stands what is asked of an agent, for who looks at it again and again.
    pub(crate) fn asked(&self, agent: u32) -> Asked {
        Asked { word: Row::new(&self.region, self.shape.agent_offset(agent as usize) + board::REQUEST) }
    }

    /// Fingerprint of the message type of a channel; 0 until somebody declared it.
    pub fn fingerprint(&self, channel: u32) -> u64 {
        // Relaxed: the word stands for itself.
        self.region.word(self.shape.channel_offset(channel as usize)).load(Ordering::Relaxed)
    }

    /// Generation of the last verdict on an agent; 0 before the first.
    pub fn last_verdict(&self, agent: u32) -> u32 {
        self.agent_word(agent, board::LAST_VERDICT) as u32
    }

    /// The verdict on an incarnation, if there is one and it is kept still.
    pub fn verdict(&self, of: Incarnation) -> Option<Verdict> {
        let agent = of.agent as usize;
        let at = self.shape.verdict_slot_offset(self.verdicts[agent], agent, of.generation);
        let word = |offset: usize| self.region.word(at + offset);
        // Acquire: pairs with the Release in `BoardWriter::verdict`.
        if word(board::VERDICT_GENERATION).load(ordering(Site::VerdictLoad, Ordering::Acquire))
            != u64::from(of.generation)
        {
            return None;
        }
        // Relaxed: ordered by the Acquire before and the fence after.
        let kind = match word(board::VERDICT_KIND).load(Ordering::Relaxed) {
            2 => VerdictKind::Corrupt,
            _ => VerdictKind::Committed,
        };
        let place = |mark: usize| Place {
            position: word(board::VERDICT_MARKS + mark * 16).load(Ordering::Relaxed),
            sequence: word(board::VERDICT_MARKS + mark * 16 + 8).load(Ordering::Relaxed),
        };
        let (lanes, inputs) = self.shape.agents[agent];
        let (lanes, inputs) = (lanes as usize, inputs as usize);
        let verdict = Verdict {
            generation: of.generation,
            kind,
            lanes: (0..lanes).map(place).collect(),
            inputs: (lanes..lanes + inputs).map(place).collect(),
        };
        // Acquire fence: pairs with the Release fence in `BoardWriter::verdict`, against a slot that is used again.
        fence(Site::VerdictReadFence, Ordering::Acquire);
        // Relaxed: only compared; the fence orders it.
        let same = word(board::VERDICT_GENERATION).load(Ordering::Relaxed) == u64::from(of.generation);
        same.then_some(verdict)
    }
}

/// The board as its one writer sees it.
pub struct BoardWriter {
    board: Board,
}

impl BoardWriter {
    /// Initialises a board in a zeroed region.
    pub fn create(region: Region, shape: BoardShape, swarm: u64) -> Self {
        let words = [
            (board::VERSION, VERSION),
            (board::TOTAL_BYTES, shape.total_bytes() as u64),
            (board::SWARM, swarm),
            (board::AGENT_COUNT, shape.agents.len() as u64),
            (board::CHANNEL_COUNT, u64::from(shape.channel_count)),
            (board::MAGIC, BOARD_MAGIC),
        ];
        for (offset, value) in words {
            // Relaxed: nobody maps the board before it is handed over.
            region.word(offset).store(value, Ordering::Relaxed);
        }
        BoardWriter { board: Board::of(region, shape) }
    }

    /// A board on the heap, of loom's words.
    #[cfg(loom)]
    pub fn heap(shape: BoardShape) -> Self {
        use crate::region::As;
        let (agents, verdicts) = (shape.agent_offset(0), shape.agent_offset(shape.agents.len()));
        let what = |offset: usize| match offset {
            board::EPOCH => As::Modelled,
            o if o >= verdicts => As::Modelled,
            o if o >= agents && (o - agents) % board::AGENT_BYTES <= board::LAST_VERDICT => As::Modelled,
            _ => As::Plain,
        };
        Self::create(Region::of(shape.total_bytes(), &Default::default(), what, u64::MAX), shape, 1)
    }

    /// The board as its readers see it.
    pub fn view(&self) -> &Board {
        &self.board
    }

    fn set(&self, agent: u32, offset: usize, value: u64) {
        // Release: pairs with the Acquire in `Board::agent_word`.
        self.board
            .region
            .word(self.board.shape.agent_offset(agent as usize) + offset)
            .store(value, ordering(Site::AgentWordStore, Ordering::Release));
    }

    /// Publishes that an incarnation's segment was handed to all its peers.
    pub fn publish_generation(&self, of: Incarnation) {
        self.set(of.agent, board::GENERATION, u64::from(of.generation));
    }

    /// Publishes whether an agent is expected.
    pub fn publish_status(&self, agent: u32, status: Status) {
        self.set(agent, board::STATUS, status as u64);
    }

    /// Publishes what is asked of an agent.
    pub fn publish_request(&self, agent: u32, request: Request) {
        self.set(agent, board::REQUEST, request as u64);
    }

    /// Takes over the shape that the board has grown to, see [`BoardShape::grown`]. Verdicts whose place moved are to be written anew.
    ///
    /// # Panics
    /// When it is another board's.
    pub fn reshape(&mut self, shape: BoardShape) {
        assert_eq!(shape.total_bytes(), self.board.shape.total_bytes(), "a board grows in its room");
        for (offset, value) in [
            (board::AGENT_COUNT, shape.agents.len() as u64),
            (board::CHANNEL_COUNT, u64::from(shape.channel_count)),
        ] {
            // Relaxed: nobody reads them but to show them.
            self.board.region.word(offset).store(value, Ordering::Relaxed);
        }
        self.board.verdicts = shape.verdict_offsets().into();
        self.board.shape = shape.into();
    }

    /// Publishes the fingerprint of a channel's message type.
    pub fn declare(&self, channel: u32, fingerprint: u64) {
        // Relaxed: the word stands for itself.
        self.board
            .region
            .word(self.board.shape.channel_offset(channel as usize))
            .store(fingerprint, Ordering::Relaxed);
    }

    /// Publishes a verdict. The caller announces it and rings all ends.
    ///
    /// # If we die here
    /// Without the generation there is no verdict, and the successor of the supervisor writes it anew.
    pub fn verdict(&self, agent: u32, verdict: &Verdict) {
        let shape = &self.board.shape;
        let at = shape.verdict_slot_offset(
            self.board.verdicts[agent as usize],
            agent as usize,
            verdict.generation,
        );
        let word = |offset: usize| self.board.region.word(at + offset);
        if placed(Bug::VerdictNamedFirst) {
            self.set(agent, board::LAST_VERDICT, u64::from(verdict.generation));
        }
        if placed(Bug::EpochBeforeVerdict) {
            self.announce();
        }
        // Relaxed and a Release fence: pairs with the Acquire fence in `Board::verdict`; a reader of the slot's former
        // verdict notices that it is gone.
        let cleared = if placed(Bug::VerdictGenerationFirst) { u64::from(verdict.generation) } else { 0 };
        if !placed(Bug::VerdictSlotNotCleared) {
            word(board::VERDICT_GENERATION).store(cleared, Ordering::Relaxed);
        }
        fence(Site::VerdictFence, Ordering::Release);
        // Relaxed: published by the Release of the generation below.
        word(board::VERDICT_KIND).store(verdict.kind as u64, Ordering::Relaxed);
        for (mark, place) in verdict.lanes.iter().chain(&verdict.inputs).enumerate() {
            word(board::VERDICT_MARKS + mark * 16).store(place.position, Ordering::Relaxed);
            word(board::VERDICT_MARKS + mark * 16 + 8).store(place.sequence, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `Board::verdict`; publishes the slot.
        word(board::VERDICT_GENERATION)
            .store(u64::from(verdict.generation), ordering(Site::VerdictStore, Ordering::Release));
        self.set(agent, board::LAST_VERDICT, u64::from(verdict.generation));
    }

    /// Announces everything published so far: moves the epoch.
    pub fn announce(&self) {
        let epoch = self.board.region.word(board::EPOCH);
        // Relaxed load: one writer. Release: pairs with the Acquire in `Board::epoch`.
        epoch.store(epoch.load(Ordering::Relaxed) + 1, ordering(Site::EpochStore, Ordering::Release));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn writer() -> BoardWriter {
        let shape = BoardShape { channel_count: 2, agents: vec![(1, 0), (2, 3)], ..BoardShape::default() };
        BoardWriter::create(Region::heap(shape.total_bytes()), shape, 7)
    }

    fn verdict(generation: u32) -> Verdict {
        let place = |n: u64| Place { position: 4096 + 16 * n, sequence: u64::from(generation) * 10 + n };
        Verdict {
            generation,
            kind: VerdictKind::Committed,
            lanes: (0..2).map(place).collect(),
            inputs: (2..5).map(place).collect(),
        }
    }

    #[test]
    fn verdicts_are_found_by_generation_until_their_slot_is_used_again() {
        let writer = writer();
        let slots = board::VERDICT_SLOTS as u32;
        (1..=slots + 1).for_each(|g| writer.verdict(1, &verdict(g)));
        let view =
            Board::open(writer.view().region.clone(), (*writer.view().shape).clone()).expect("it fits");
        assert_eq!(view.verdict(Incarnation { agent: 1, generation: 1 }), None);
        for generation in 2..=slots + 1 {
            assert_eq!(view.verdict(Incarnation { agent: 1, generation }), Some(verdict(generation)));
        }
        assert_eq!(view.verdict(Incarnation { agent: 0, generation: 2 }), None);
        assert_eq!(view.last_verdict(1), slots + 1);
    }

    #[test]
    fn board_of_another_size_is_refused_with_both_sides_named() {
        let writer = writer();
        let other = BoardShape { channel_count: 2, agents: vec![(9, 9); 900], ..BoardShape::default() };
        let error = Board::open(writer.view().region.clone(), other).err().expect("refused");
        assert!(error.contains("does not fit"), "{error}");
    }
}
