//! Kill mode: a member in a process of its own is brought to a boundary and dies there, for real, while its mate goes on.
//!
//! Also: a member that only stands still keeps what it claimed, and gets no verdict; when it goes on, it does so as if nothing
//! had been. And a producer that waits for the frontier while a member stands still is rung when the member moves it.

use super::super::ear::Ear;
use super::super::kill::{Boundary, Fate, sampled};
use super::super::report::Report;
use super::super::stage::{Ended, Heir, Order, WORKER};
use super::super::tracer::{Stop, Word, kill_heir, phase};
use super::account::{self, Holding};
use super::reader;
use super::setting::{self, beginning, owner_of};
use super::snapshot::{Pass, order};
use super::stage::{Stage, Worker};
use super::story::{Consumed, Event, GroupStory};
use shoal_runtime::board::VerdictKind;
use shoal_runtime::cursor::FRAME_ALIGN_BYTES;
use shoal_runtime::segment::{self, Proof};
use std::io;

/// Messages that a successor takes at the most: as many as fit its lanes before their readers look.
const SUCCESSOR_STEPS: u64 = 8;

/// Lets `fate` happen at every so many of a pass's boundaries.
///
/// # Errors
/// The system's, not the protocol's.
pub fn run(story: &GroupStory, pass: &Pass, every: usize, fate: Fate, report: &mut Report) -> io::Result<()> {
    let name = format!("{}/{}", fate.name(), story.name);
    if story.warm == 0 && matches!(fate, Fate::Kept | Fate::Survived) {
        // The section begins before there could be a child.
        return Ok(());
    }
    for Boundary { k, rip, nth } in sampled(&pass.trace, every) {
        if report.enough() {
            break;
        }
        report.boundaries += 1;
        match at_boundary(story, rip, nth, fate, k / every) {
            Ok(()) => {}
            Err(Broken::Wrong(what)) => report.violation(&name, Some(rip), format!("{what} (boundary {k})")),
            Err(Broken::System(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Why a boundary could not be passed.
enum Broken {
    /// The protocol, in words.
    Wrong(String),
    /// The system.
    System(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::System(error)
    }
}

impl From<String> for Broken {
    fn from(what: String) -> Self {
        Broken::Wrong(what)
    }
}

impl From<&str> for Broken {
    fn from(what: &str) -> Self {
        Broken::Wrong(what.into())
    }
}

/// A worker that stands at a boundary, what surrounds it, and how many were before it: the circumstances take turns.
struct Stopped<'a> {
    stage: Stage<'a>,
    worker: Worker,
    turn: usize,
}

fn at_boundary(story: &GroupStory, rip: u64, nth: usize, fate: Fate, turn: usize) -> Result<(), Broken> {
    let mut stage = Stage::new(story)?;
    let heir = match fate {
        Fate::Kept => Heir::Keeping,
        Fate::Survived => Heir::Plain,
        Fate::Killed | Fate::Parked | Fate::Stopped => Heir::None,
    };
    let mut worker = stage.bear(1, &beginning(story), order(story, heir))?;
    stage.run_to_section(&mut worker).map_err(|error| error.to_string())?;
    let mut there = worker.child.run_to(rip, nth)?;
    if !there && stage.control.get(Word::Phase) == phase::MAPPED {
        // On its way from its birth it stopped to be introduced; what was to be counted before lies behind it.
        stage.introduce(&mut worker)?;
        there = worker.child.run_to(rip, 1)?;
    }
    if !there && stage.control.get(Word::Phase) != phase::END {
        return Err("the worker ended before its section was over".into());
    }
    let mut stopped = Stopped { stage, worker, turn };
    match fate {
        Fate::Parked => stopped.want(),
        Fate::Stopped => stopped.stand_still(),
        Fate::Killed | Fate::Kept | Fate::Survived => {
            let holdings = stopped.late_binding()?;
            stopped.die(heir)?;
            stopped.succeed(&holdings)
        }
    }
}

impl Stopped<'_> {
    fn proof(&self) -> io::Result<Proof> {
        segment::prove_dead(&self.worker.segment)
    }

    /// The mate takes everything that the worker has not claimed, as far as the source can send, and then sleeps.
    fn late_binding(&mut self) -> Result<Vec<Holding>, String> {
        let stage = &mut self.stage;
        stage.take_all(true)?;
        stage.others_go_on()?;
        stage.mate.park(true);
        if stage.mate.finds_something()? {
            return Err("the mate took all that there was, and then there was more".into());
        }
        stage.mate_ear.has_heard();
        let owner = owner_of(self.worker.generation);
        let (diary, tail) = (stage.diary(), stage.source.tail());
        account::pins(stage.story, &stage.table, owner, &diary, tail, true)
    }

    /// It stands still while its mate goes on: no verdict. Then it goes on itself.
    fn stand_still(mut self) -> Result<(), Broken> {
        self.late_binding()?;
        self.demand_no_verdict()?;
        self.run_to_the_end()?;
        // At the end of its section it may hold what it claimed ahead.
        let holdings = self.late_binding()?;
        match self.worker.child.run()? {
            Stop::Exited(0) => self.succeed(&holdings),
            ended => Err(format!("it ended with {ended:?}").into()),
        }
    }

    fn demand_no_verdict(&self) -> Result<(), Broken> {
        if self.worker.view.is_some() && self.proof()? != Proof::StillWritable {
            return Err("a worker that only stands still is taken for dead".into());
        }
        Ok(())
    }

    fn run_to_the_end(&mut self) -> Result<(), Broken> {
        let over = self.stage.control.get(Word::Phase) == phase::END;
        if over || self.stage.run_to_phase(&mut self.worker, phase::END)? {
            Ok(())
        } else {
            Err("it ended before it was done".into())
        }
    }

    /// Kills it, and asks for the proof.
    fn die(&mut self, heir: Heir) -> Result<(), Broken> {
        self.demand_no_verdict()?;
        self.worker.child.kill()?;
        let proof = self.proof()?;
        kill_heir(self.stage.control.get(Word::Heir));
        match (heir, proof) {
            (Heir::Keeping, Proof::Dead) => {
                Err("a verdict is possible while a child keeps the memory".into())
            }
            (Heir::None | Heir::Plain, Proof::StillWritable) => Err("a death cannot be proved".into()),
            _ if self.proof()? != Proof::Dead => {
                Err("a death cannot be proved when all children are gone".into())
            }
            _ => Ok(()),
        }
    }

    /// Verdict and settlement; then mate and successor do the rest.
    fn succeed(mut self, holdings: &[Holding]) -> Result<(), Broken> {
        let ordered = self.turn % 5 == 4;
        let ended = self.bury(ordered)?;
        let (diary, consumed) = (self.stage.diary(), account::consumed(&ended)?);
        let freed = account::settled(&self.stage.table, holdings, consumed, &diary, ordered)?;
        if !freed.is_empty() && !self.stage.mate_ear.has_heard() {
            return Err("the mate sleeps although messages are free again".into());
        }
        self.stage.mate.park(false);
        if self.turn.is_multiple_of(2) {
            self.stage.others_go_on()?;
        }
        self.stage.readers.iter_mut().for_each(|reader| reader.sink.ack());
        let stepped = SUCCESSOR_STEPS;
        let order = Order { traced: true, warm: 0, stepped, from_birth: false, heir: Heir::None };
        self.worker = self.stage.bear(2, &ended, order)?;
        self.worker.child.wait()?;
        self.stage.introduce(&mut self.worker)?;
        self.run_to_the_end()?;
        self.stage.take_all(true)?;
        match self.worker.child.run()? {
            Stop::Exited(0) => {}
            ended => return Err(format!("the successor ended with {ended:?}").into()),
        }
        if self.proof()? != Proof::Dead {
            return Err("the successor's end cannot be proved".into());
        }
        let last = self.bury(false)?;
        self.stage.others_go_on()?;
        Ok(self.all_is_there(account::consumed(&last)?)?)
    }

    /// The verdict on the worker, checked, and the settlement of what it held.
    fn bury(&mut self, ordered: bool) -> Result<Ended, String> {
        let stage = &mut self.stage;
        stage.take_all(true)?;
        let visible = reader::places(&stage.readers);
        let (view, generation) = (self.worker.view.as_ref(), self.worker.generation);
        let tail = stage.source.tail();
        let ended = setting::end_of(stage.story, generation, view, &self.worker.began, &visible, tail);
        if ended.verdict.kind != VerdictKind::Committed || ended.verdict.lanes != visible {
            return Err(format!("readers had seen {visible:?}, the verdict is {:?}", ended.verdict));
        }
        reader::check(stage.story, &stage.readers, account::consumed(&ended)?)?;
        stage.board.verdict(WORKER, &ended.verdict);
        stage.board.announce();
        if let Some(view) = view {
            setting::settle(stage.story, generation, view, ordered, &stage.table, &stage.mate_bell);
        }
        Ok(ended)
    }

    fn all_is_there(&self, consumed: Consumed) -> Result<(), String> {
        let (stage, story) = (&self.stage, self.stage.story);
        let diary = stage.diary();
        let mate = |sequence| stage.mate.done.iter().filter(|(s, _)| *s == sequence).count() as u64;
        let worker = |sequence| match story.lanes {
            0 => {
                let noted = |event| diary.iter().filter(|e| **e == (event, sequence)).count() as u64;
                // A death between the end of the claim and the note of it.
                let begun = noted(Event::Committed) == 0 && noted(Event::Committing) > 0;
                noted(Event::Committed) + u64::from(begun && mate(sequence) == 0)
            }
            _ => u64::from(consumed.has(sequence)),
        };
        if stage.source.tail().sequence != story.end() {
            return Err(format!("the source stopped at {:?}", stage.source.tail()));
        }
        account::once(worker, mate, story.end())?;
        let frontier = stage.table.frontier_place(story.input.base);
        if frontier == stage.source.tail() {
            Ok(())
        } else {
            Err(format!("all is done, but the frontier stands at {frontier:?}"))
        }
    }

    /// The source waits for space behind the message that the worker holds, and sleeps; the worker goes on.
    fn want(mut self) -> Result<(), Broken> {
        let ear = Ear::at(&self.stage.source.doorbell)?;
        let base = self.stage.story.input.base;
        let frontier = |stage: &Stage<'_>| stage.table.frontier_place(base).position;
        let wanted = frontier(&self.stage) + FRAME_ALIGN_BYTES;
        self.stage.source.want(wanted);
        self.run_to_the_end()?;
        if frontier(&self.stage) >= wanted && !ear.has_heard() {
            return Err("the producer sleeps although the space that it waits for is there".into());
        }
        Ok(())
    }
}
