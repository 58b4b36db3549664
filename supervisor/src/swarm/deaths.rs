//! The end of an incarnation: proof, verdict, conclusions; and of an agent that is given up.

use super::{Ends, PROOF_PATIENCE, PROOF_RETRY, Swarm, Timer};
use crate::agent::{Crash, Grave, Live, Remains};
use crate::child::{Event, Next, State};
use crate::config::Policy;
use crate::counted::counted;
use crate::death;
use crate::events::Kind;
use crate::hooks::Occasion;
use crate::log::Level;
use crate::output::{Drained, Stream};
use crate::spawn::{self, Ended, Ending};
use shoal_runtime::board::VerdictKind;
use shoal_runtime::segment::{self, Proof};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use shoal_runtime::{clock, commit, desk, state};

impl Swarm {
    /// A process is dead: prove it, and when it is proved, draw the conclusions.
    pub fn on_death(&mut self, agent: usize) {
        let now = Instant::now();
        let Some(live) = &mut self.agents[agent].live else { return };
        spawn::kill_tree(&live.child);
        let since = *live.dead_since.get_or_insert(now);
        // Its standbys share its cgroup.
        if self.agents[agent].spares.is_empty() {
            self.cradle.cages.kill_all(agent as u32);
        }
        let Some(live) = &self.agents[agent].live else { return };
        // What it committed is read after the proof: it must be in sight.
        let in_sight = live.sealed.as_ref().map_or(Ok(()), |sealed| sealed.view().map(drop));
        match in_sight.and_then(|()| segment::prove_dead(&live.segment)) {
            Ok(Proof::Dead) => self.on_proved(agent),
            Ok(Proof::StillWritable) => {
                self.end_strays();
                if now - since > PROOF_PATIENCE && !matches!(self.agents[agent].state, State::Unproven(_)) {
                    let text = format!(
                        "agent {} is dead but something still maps its memory: it stays down until that is gone",
                        self.agents[agent].name
                    );
                    self.tell(Level::Warn, Kind::Unproven, Some(agent), &text);
                    self.feed(agent, Event::ProofRefused);
                }
                self.arm(now + PROOF_RETRY, agent, Timer::Proof);
            }
            Err(error) => {
                let text = format!("agent {}: {error}", self.agents[agent].name);
                self.notice(&text);
                self.arm(now + PROOF_PATIENCE, agent, Timer::Proof);
            }
        }
    }

    /// Whether a process is an agent's, a standby's, a zygote's, or a fork of one.
    pub(super) fn knows(&self, pid: i32) -> bool {
        self.nurseries.know(pid) || self.agents.iter().any(|a| a.lives().any(|l| l.child.pid == pid))
    }

    pub(super) fn on_proved(&mut self, agent: usize) {
        self.note_death(agent);
        let (lanes, inputs) = self.bounds(agent);
        let record = &mut self.agents[agent];
        let Some(mut live) = record.live.take() else { return };
        // A standby that died while it was promoted: nobody was told of it, and nobody has looked at it. The journal names it still.
        let unseen = if live.begun { None } else { live.sealed.take() };
        let view = live.sealed.as_ref().and_then(|sealed| sealed.view().ok()).cloned();
        let segment = view.as_ref().map(|view| (view, &record.shape));
        // One that a predecessor of this supervisor has written may be known already.
        let written = self.board.view().verdict(live.incarnation);
        let generation = live.incarnation.generation;
        let verdict = written.unwrap_or_else(|| death::verdict(generation, segment, &lanes, &inputs));
        if live.begun {
            self.board.verdict(agent as u32, &verdict);
            self.board.announce();
        }
        let corrupt = verdict.kind == VerdictKind::Corrupt;
        let desk = view.as_ref().map(desk::view);
        let record = &mut self.agents[agent];
        record.last_state = match &view {
            // Nothing of what it scribbled over is believed.
            Some(_) if corrupt => Vec::new(),
            Some(view) => commit::read(view, &record.shape)
                .map(|last| state::committed(view, &record.shape, &last))
                .unwrap_or_default(),
            None => std::mem::take(&mut record.last_state),
        };
        record.last = verdict;
        view.iter().for_each(|view| record.past.add(view));
        let ended = self.cradle.spawner.ended(&live.child).unwrap_or(Ended::unknown(Ending::Exited(255)));
        let ending = ended.ending;
        let scene = self.scene(agent, &live, view, desk.as_ref(), ending);
        let in_vain = self.note_attempts(agent, &live, desk, ending);
        self.settle_claims(agent, &live);
        let ends = self.agents[agent].last.lanes.clone();
        // One without lanes has nothing to drain. It goes with the rest of the dead: until the journal is written that names it, and what
        // is opened next would have its number.
        if !ends.is_empty()
            && let Some(sealed) = live.sealed.take()
        {
            let grave = Grave {
                incarnation: live.incarnation,
                read_only: sealed.read_only,
                doorbell: live.doorbell.clone(),
                ends,
            };
            self.agents[agent].graves.push_back(grave);
        }
        self.reclaim(agent);
        for neighbour in self.topology.neighbours(agent) {
            if let Some(other) = &self.agents[neighbour].live {
                other.doorbell.ring();
            }
            self.reclaim(neighbour);
        }
        self.last_verdict_ns = clock::now_ns();
        self.verdicts_ns
            .extend(live.killed_ns.map(|killed_ns| self.last_verdict_ns.saturating_sub(killed_ns)));
        self.note_removed(agent, &live);
        self.agents[agent].capture.hold();
        self.conclude(agent, &live, ending, corrupt);
        // The next incarnation is on its way. What the dead one printed comes before anything of it.
        self.drain_output(agent, &live.pipes);
        if let Some(message) = in_vain {
            self.note_output(agent, message);
        }
        match scene {
            Some(scene) => self.report_crash(agent, &live, scene, &ended),
            None => {
                let generation = live.incarnation.generation;
                self.happened_in(Kind::Died, agent, generation, &ending.to_string(), None);
            }
        }
        self.agents[agent].capture.go_on();
        live.sealed = live.sealed.or(unseen);
        self.remains.push(Remains::Live(Box::new(live)));
        self.end_strays_later();
    }

    fn was_asked_to_stop(&self, agent: usize) -> bool {
        let (State::Stopping(next) | State::Unproven(next)) = self.agents[agent].state else { return false };
        matches!(next, Next::Rest | Next::Start | Next::Aside)
    }

    /// Whether an end is one that nobody wonders about: not that of a permanent agent that ends by itself, nor of who was killed, by
    /// order or not.
    pub(super) fn is_normal_end(&self, agent: usize, live: &Live, ending: Ending) -> bool {
        let config = &self.file.agents[self.topology.agents[agent].config];
        // What became of who was adopted is not known.
        let is_wanted = live.ordered
            || live.child.adopted
            || self.was_asked_to_stop(agent)
            || config.restart.policy != Policy::Permanent;
        ending == Ending::Exited(0) && is_wanted
    }

    /// What the death means for the agent's life.
    pub(super) fn conclude(&mut self, agent: usize, live: &Live, ending: Ending, corrupt: bool) {
        if live.ordered && ending == Ending::Signalled(9) {
            self.kills_proven += 1;
        }
        let asked = live.ordered || self.was_asked_to_stop(agent);
        self.agents[agent].last_ending = Some(ending.to_string());
        let name = self.agents[agent].name.clone();
        let before_ready = !self.agents[agent].was_ready && !live.child.adopted && !self.started_once();
        if before_ready {
            // A failed start says what it printed.
            self.drain_output(agent, &live.pipes);
        }
        if corrupt {
            let text = format!(
                "agent {name} wrote over its own memory before it died (generation {}): what it committed last is lost, its \
                 lanes end where their readers had accepted them",
                live.incarnation.generation
            );
            self.tell(Level::Error, Kind::Corrupt, Some(agent), &text);
        }
        if !asked && !self.is_normal_end(agent, live, ending) {
            self.tell_hooks(agent, Occasion::Crash, &ending.to_string());
            let (generation, at) = (live.incarnation.generation, self.started.elapsed());
            self.agents[agent].last_crash = Some(Crash { generation, how: ending.to_string(), at });
            self.remark(
                Level::Warn,
                &format!("agent {name} (generation {}) {ending}", live.incarnation.generation),
            );
        }
        if !asked {
            self.count_fault(agent, live, ending);
        }
        if before_ready && matches!(ending, Ending::Exited(_)) && self.ends == Ends::No && !live.ordered {
            let place = self.place_of(agent);
            let why = format!(
                "{place}: agent {name} {ending} before it was ready: run its command by hand to see why"
            );
            self.fail_start_of(agent, &why);
        }
        self.feed(agent, Event::Exited { normal: ending == Ending::Exited(0), ordered: live.ordered });
    }

    /// Nobody had asked for the end of an agent: a fault, unless it was ready and by its policy has done its work.
    fn count_fault(&mut self, agent: usize, live: &Live, ending: Ending) {
        let state = self.agents[agent].state;
        let is_normal = ending == Ending::Exited(0) && state == State::Ready;
        if is_normal && !self.policy_of(agent).restarts(true) {
            return;
        }
        self.agents[agent].faults += 1;
        let by = live.by.as_ref().map_or(String::new(), |by| format!(" ({by})"));
        let early = if state == State::Starting { " before it was ready" } else { "" };
        self.fails_upgrade(agent, &format!("{ending}{early}{by}"));
    }

    /// Reads what a dead process left in its pipes.
    pub(super) fn drain_output(&mut self, agent: usize, pipes: &[Option<OwnedFd>; 2]) {
        for (pipe, stream) in pipes.iter().zip([Stream::Out, Stream::Err]) {
            pipe.iter().for_each(|pipe| self.drain_pipe(agent, pipe, stream));
        }
    }

    fn drain_pipe(&mut self, agent: usize, pipe: &OwnedFd, stream: Stream) {
        // What the dead has written fits the pipe's buffer; a descendant that writes on is not waited for.
        for _ in 0..64 {
            let mut waiting = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
            let ready =
                rustix::event::poll(&mut waiting, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }));
            if !matches!(ready, Ok(1..)) {
                break;
            }
            if !matches!(self.agents[agent].capture.on_readable(pipe.as_fd(), stream), Ok(Drained::Open)) {
                break;
            }
        }
    }

    pub(super) fn give_up(&mut self, agent: usize) {
        let how = self.agents[agent].last_ending.clone().unwrap_or_default();
        let config = &self.file.agents[self.topology.agents[agent].config];
        let name = &self.agents[agent].name;
        // Who was adopted and leaves lives on, and whoever handed it over knows.
        let never = !self.agents[agent].was_ready && !self.cradle.was_adopted(agent as u32);
        let undoes_start = never || self.is_awaited(agent);
        let ends = self.escalated.is_some() || self.is_ending() || undoes_start && !self.started_once();
        let again = if ends { String::new() } else { format!("`shoal start {name}` tries again; ") };
        let text = match self.given_up_with(agent) {
            Some(set) => {
                format!("agent {name} is given up with its set {set} ({again}[set.{set}] sets the bounds)")
            }
            None if config.restart.policy == Policy::Temporary && !self.is_one_too_many() => format!(
                "agent {name} is given up: it {how}, and its policy is temporary ({again}`restart` of [agent.{}] sets the policy)",
                config.name
            ),
            None => format!(
                "agent {name} is given up: more than {} within {:?} of its life, the last: it {how} ({again}`restart` of [agent.{}] sets the bounds)",
                counted(config.restart.intensity, "death"),
                config.restart.period,
                config.name
            ),
        };
        self.tell(Level::Error, Kind::GiveUp, Some(agent), &text);
        self.tell_hooks(agent, Occasion::GiveUp, &text);
        self.go(agent);
        if undoes_start {
            self.fail_start_of(agent, &format!("{}: {text}", self.place_of(agent)));
        }
    }
}
