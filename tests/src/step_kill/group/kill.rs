//! Kill mode: a member in a process of its own is brought to a boundary and dies there, for real, while its mate goes on.
//!
//! Also: a member that only stands still keeps what it claimed, and gets no verdict; when it goes on, it does so as if nothing
//! had been. And a producer that waits for the frontier while a member stands still is rung when the member moves it.

use super::super::kill::Fate;
use super::super::report::Report;
use super::super::stage::{Heir, Order, WORKER};
use super::super::tracer::{Stop, Word, kill_heir, phase};
use super::account::{self, Holding};
use super::reader;
use super::setting::{self, beginning, owner_of};
use super::snapshot::{Pass, order};
use super::stage::{Stage, Worker};
use super::story::{Consumed, Event, GroupStory};
use shoal_runtime::board::VerdictKind;
use shoal_runtime::cursor::FRAME_ALIGN_BYTES;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::segment::{self, Proof};
use std::collections::HashMap;
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
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for (k, &rip) in pass.trace.iter().enumerate() {
        let nth = seen.entry(rip).or_default();
        *nth += 1;
        if !k.is_multiple_of(every) || report.enough() {
            continue;
        }
        report.boundaries += 1;
        if let Err(what) = at_boundary(story, rip, *nth, fate, k / every)? {
            report.violation(&name, Some(rip), format!("{what} (boundary {k})"));
        }
    }
    Ok(())
}

/// A worker that stands at a boundary, what surrounds it, and how many were before it: the circumstances take turns.
struct Stopped<'a> {
    stage: Stage<'a>,
    worker: Worker,
    turn: usize,
}

fn at_boundary(
    story: &GroupStory,
    rip: u64,
    nth: usize,
    fate: Fate,
    turn: usize,
) -> io::Result<Result<(), String>> {
    let mut stage = Stage::new(story)?;
    let heir = match fate {
        Fate::Kept => Heir::Keeping,
        Fate::Survived => Heir::Plain,
        Fate::Killed | Fate::Parked | Fate::Stopped => Heir::None,
    };
    let mut worker = stage.bear(1, &beginning(story), order(story, heir))?;
    if let Err(error) = stage.run_to_section(&mut worker) {
        return Ok(Err(error.to_string()));
    }
    let mut there = worker.child.run_to(rip, nth)?;
    if !there && stage.control.get(Word::Phase) == phase::MAPPED {
        // On its way from its birth it stopped to be introduced; what was to be counted before lies behind it.
        stage.introduce(&mut worker)?;
        there = worker.child.run_to(rip, 1)?;
    }
    if !there && stage.control.get(Word::Phase) != phase::END {
        return Ok(Err("the worker ended before its section was over".into()));
    }
    let mut stopped = Stopped { stage, worker, turn };
    match fate {
        Fate::Parked => stopped.want(),
        Fate::Stopped => stopped.stand_still(),
        Fate::Killed | Fate::Kept | Fate::Survived => {
            let holdings = match stopped.late_binding() {
                Ok(holdings) => holdings,
                Err(what) => return Ok(Err(what)),
            };
            if let Err(what) = stopped.die(heir)? {
                return Ok(Err(what));
            }
            stopped.succeed(holdings)
        }
    }
}

fn rung(bell: &Doorbell) -> bool {
    rustix::io::read(bell, &mut [0u8; 8]).is_ok()
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
        rung(&stage.mate_bell);
        let owner = owner_of(self.worker.generation);
        let (diary, tail) = (stage.diary(), stage.source.tail());
        account::pins(stage.story, &stage.table, owner, &diary, tail, true)
    }

    /// It stands still while its mate goes on: no verdict. Then it goes on itself.
    fn stand_still(mut self) -> io::Result<Result<(), String>> {
        if let Err(what) = self.late_binding() {
            return Ok(Err(what));
        }
        if self.worker.view.is_some() && self.proof()? != Proof::StillWritable {
            return Ok(Err("a worker that only stands still is taken for dead".into()));
        }
        if self.stage.control.get(Word::Phase) != phase::END
            && !self.stage.run_to_phase(&mut self.worker, phase::END)?
        {
            return Ok(Err("it ended before its section was over".into()));
        }
        // At the end of its section it may hold what it claimed ahead.
        let holdings = match self.late_binding() {
            Ok(holdings) => holdings,
            Err(what) => return Ok(Err(what)),
        };
        match self.worker.child.run()? {
            Stop::Exited(0) => self.succeed(holdings),
            ended => Ok(Err(format!("it ended with {ended:?}"))),
        }
    }

    /// Kills it, and asks for the proof.
    fn die(&mut self, heir: Heir) -> io::Result<Result<(), String>> {
        if self.worker.view.is_some() && self.proof()? != Proof::StillWritable {
            return Ok(Err("a worker that only stands still is taken for dead".into()));
        }
        self.worker.child.kill()?;
        let proof = self.proof()?;
        kill_heir(self.stage.control.get(Word::Heir));
        Ok(match (heir, proof) {
            (Heir::Keeping, Proof::Dead) => {
                Err("a verdict is possible while a child keeps the memory".into())
            }
            (Heir::None | Heir::Plain, Proof::StillWritable) => Err("a death cannot be proved".into()),
            _ if self.proof()? != Proof::Dead => {
                Err("a death cannot be proved when all children are gone".into())
            }
            _ => Ok(()),
        })
    }

    /// Verdict and settlement; then mate and successor do the rest.
    fn succeed(mut self, holdings: Vec<Holding>) -> io::Result<Result<(), String>> {
        let story = self.stage.story;
        let ordered = self.turn % 5 == 4;
        let ended = match self.bury(ordered) {
            Ok(ended) => ended,
            Err(what) => return Ok(Err(what)),
        };
        let diary = self.stage.diary();
        let consumed = match account::consumed(&ended) {
            Ok(consumed) => consumed,
            Err(what) => return Ok(Err(what)),
        };
        let freed = match account::settled(&self.stage.table, &holdings, consumed, &diary, ordered) {
            Ok(freed) => freed,
            Err(what) => return Ok(Err(what)),
        };
        if !freed.is_empty() && !rung(&self.stage.mate_bell) {
            return Ok(Err("the mate sleeps although messages are free again".into()));
        }
        self.stage.mate.park(false);
        if self.turn.is_multiple_of(2)
            && let Err(what) = self.stage.others_go_on()
        {
            return Ok(Err(what));
        }
        self.stage.readers.iter_mut().for_each(|reader| reader.sink.ack());
        let order =
            Order { traced: true, warm: 0, stepped: SUCCESSOR_STEPS, from_birth: false, heir: Heir::None };
        self.worker = self.stage.bear(2, &ended, order)?;
        self.worker.child.wait()?;
        self.stage.introduce(&mut self.worker)?;
        if !self.stage.run_to_phase(&mut self.worker, phase::END)? {
            return Ok(Err("the successor ended before it was done".into()));
        }
        if let Err(what) = self.stage.take_all(true) {
            return Ok(Err(format!("after the successor: {what}")));
        }
        match self.worker.child.run()? {
            Stop::Exited(0) => {}
            ended => return Ok(Err(format!("the successor ended with {ended:?}"))),
        }
        if self.proof()? != Proof::Dead {
            return Ok(Err("the successor's end cannot be proved".into()));
        }
        let last = match self.bury(false) {
            Ok(last) => last,
            Err(what) => return Ok(Err(what)),
        };
        Ok(self.stage.others_go_on().and_then(|()| self.all_is_there(story, account::consumed(&last)?)))
    }

    /// The verdict on the worker, checked, and the settlement of what it held.
    fn bury(&mut self, ordered: bool) -> Result<super::super::stage::Ended, String> {
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

    fn all_is_there(&self, story: &GroupStory, consumed: Consumed) -> Result<(), String> {
        let stage = &self.stage;
        let diary = stage.diary();
        let mate = |sequence| stage.mate.done.iter().filter(|(s, _)| *s == sequence).count() as u64;
        let worker = |sequence| match story.lanes {
            0 => {
                let noted = |event| diary.iter().filter(|e| **e == (event, sequence)).count() as u64;
                // A death between the settling and the note of it.
                let unnoted =
                    noted(Event::Committed) == 0 && noted(Event::Committing) > 0 && mate(sequence) == 0;
                noted(Event::Committed) + u64::from(unnoted)
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
    fn want(mut self) -> io::Result<Result<(), String>> {
        let story = self.stage.story;
        let frontier = |stage: &Stage<'_>| stage.table.frontier_place(story.input.base).position;
        let wanted = frontier(&self.stage) + FRAME_ALIGN_BYTES;
        rung(&self.stage.source.doorbell);
        self.stage.source.want(wanted);
        if frontier(&self.stage) >= wanted {
            return Ok(Err("the frontier moves although everybody stands still".into()));
        }
        if self.stage.control.get(Word::Phase) != phase::END
            && !self.stage.run_to_phase(&mut self.worker, phase::END)?
        {
            return Ok(Err("it ended before its section was over".into()));
        }
        if frontier(&self.stage) >= wanted && !rung(&self.stage.source.doorbell) {
            return Ok(Err("the producer sleeps although the space that it waits for is there".into()));
        }
        Ok(Ok(()))
    }
}
