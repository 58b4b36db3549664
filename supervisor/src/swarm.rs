//! The swarm: applies what happens to the state table and does what the table says. Never waits.
//!
//! Order of a start: segment → process maps it → seals → read-only descriptors to the peers → generation on the board → go.
//! Order of a death: pidfd → tree killed → proof → verdict on the board → doorbells → reap → the table decides.

use crate::agent::{Agent, Live, Remains, Totals};
use crate::birth::{self, Cradle};
use crate::child::State;
use crate::config::SwarmFile;
use crate::confine::Cages;
use crate::dead_letters::DeadLetters;
use crate::hooks::Happenings;
use crate::output::Capture;
use crate::postman;
use crate::records::Records;
use crate::restart::{Intensity, draw};
use crate::spawn::{Spawner, Urgency};
use crate::strategy::Supervision;
use crate::topology::Topology;
use crate::trial::Trials;
use shoal_runtime::Incarnation;
use shoal_runtime::board::{BoardWriter, Verdict, VerdictKind};
use shoal_runtime::clock;
use shoal_runtime::cursor::first_position;
use shoal_runtime::layout::{BoardShape, SegmentShape};
use shoal_runtime::mark::Place;
use shoal_runtime::segment::{self};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a death may stay unproved before the agent is shown as `unproven`.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);
/// How often the proof is asked for again.
const PROOF_RETRY: Duration = Duration::from_millis(1);
/// How often a start that waits for readers to drain looks again.
const DRAIN_RETRY: Duration = Duration::from_millis(2);

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// The agent should be ready by now.
    Ready,
    /// It should have ended by now.
    Stop,
    /// Its pause is over.
    Backoff,
    /// Ask for the proof of its death again.
    Proof,
    /// Look whether its predecessors are drained.
    Drain,
    /// A stage of a shutdown (instead of an agent) has had its time.
    Stage,
    /// Look for agents (all of them) that sleep though work waits.
    Rescue,
    /// Look for agents (all that have a deadline) that hang.
    Hang,
    /// The pause of a set (instead of an agent) may be over.
    Set,
    /// Make a standby that is lacking.
    Standby,
    /// Look after the zygote of an agent of the file (instead of an agent).
    Zygote,
    /// Look how far a reload or an upgrade is.
    Reload,
    /// Hand over the descriptors (of all agents) that the kernel did not take along.
    HandOver,
}

impl Timer {
    /// Whether it is void when its agent's state has changed; all others outlive an agent's states.
    fn is_of_a_state(self) -> bool {
        matches!(self, Timer::Ready | Timer::Stop | Timer::Backoff | Timer::Drain)
    }
}

/// What the event loop is to do for the swarm.
pub enum Effect {
    /// Watch the descriptors of a new incarnation.
    Watch(Incarnation),
    /// Say when a stray is dead.
    WatchStray(i32),
    /// Watch the descriptors of a process that is no agent's: of which agent of the file, and its serial number.
    WatchNursling(usize, u32),
    /// Say again when an incarnation has said something, also what lies there already.
    HearOn(Incarnation),
    /// Feed a timer of an agent at a time, if its state serial is still this one.
    Arm(Instant, usize, Timer, u64),
    /// Say when an agent that has a deadline is rung.
    AwaitRing,
    /// Say when anybody is rung.
    AwaitDawn,
}

/// Why the swarm is ending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ends {
    /// It is not.
    No,
    /// In stages, sources first; this one now.
    Stage(usize),
    /// Its start is undone: agents end at once, hooks by themselves.
    Undone,
    /// At once, hooks included.
    Killed,
}

/// The swarm.
pub struct Swarm {
    /// The swarm file.
    pub file: SwarmFile,
    /// Who reads whom.
    pub topology: Topology,
    /// The agents, in the order of the topology.
    pub agents: Agents,
    board: BoardWriter,
    board_shape: BoardShape,
    cradle: Cradle,
    groups: Groups,
    effects: Vec<Effect>,
    ends: Ends,
    stages: Vec<Vec<usize>>,
    /// The first start of the whole swarm failed, and why.
    pub failed_start: Option<String>,
    /// The swarm ended because too many deaths were told to it, and for whom.
    pub escalated: Option<String>,
    /// Sets of agents that are restarted together.
    pub supervision: Supervision,
    /// What happened that hooks are to be told of.
    pub happenings: Happenings,
    /// Processes of this one that are no agents': hooks.
    guests: Vec<i32>,
    /// When a timer is armed for the sets, since the start.
    set_timer: Option<Duration>,
    started: Instant,
    /// SIGKILLs ordered here that a wait status proved.
    pub kills_proven: u64,
    /// SIGKILL from here to the end of the verdict, ns: from then on nobody waits for the dead.
    pub verdicts_ns: Vec<u64>,
    /// When this supervisor last published a verdict, CLOCK_MONOTONIC ns; 0 if it has published none.
    pub last_verdict_ns: u64,
    /// First seen violation to the end of the verdict of who committed it, ns.
    pub removals_ns: Vec<u64>,
    /// How long those hung that were aborted for it, each from the beginning of its hang to its verdict, ns.
    pub hangs_ns: Vec<u64>,
    /// Death to the first message that the next incarnation took or committed, ns.
    pub recoveries_ns: Vec<u64>,
    /// Accusations of peers heard.
    pub accusations: u64,
    dead_letters: DeadLetters,
    /// Messages that were given in vain.
    trials: Trials,
    postman: Postman,
    sleepers: rescue::Sleepers,
    congestion: congestion::Congestion,
    hangs: hangs::Hangs,
    /// Agents that were not started yet, because they come after others.
    waiting: Vec<usize>,
    records: Records,
    /// What is being decided of a death.
    decided: Option<crashes::Decided>,
    /// Its end was told.
    told_over: bool,
    /// What it writes for a successor, if there is a keeper.
    kept: Option<kept::Kept>,
    /// The start was made, here or by a predecessor.
    begun: bool,
    /// All have been started, see [`Swarm::started_once`].
    started_once: Cell<bool>,
    /// What is let go of after the next writing.
    remains: Vec<Remains>,
    /// What waits while an incarnation is on its way.
    later: later::Later,
    /// Who was stopped for what is being applied, and runs again if nothing comes of it.
    called: BTreeSet<usize>,
    /// Who is struck for what was applied.
    struck: Vec<usize>,
    /// Who is started again for it: agent, generation.
    again: Vec<(usize, u32)>,
    /// What is being applied of a changed swarm file.
    reload: Option<reload::Reload>,
    /// What became of the last one.
    outcome: Option<reload::Outcome>,
    /// How often one was applied.
    reloads: u64,
    /// Whose replicas are being replaced.
    upgrade: Option<upgrade::Upgrade>,
    /// What became of the last time.
    upgraded: Option<upgrade::Upgraded>,
    captures: Captures,
    nurseries: nursery::Nurseries,
    /// Agents of the file that have standbys or a zygote.
    reared: Vec<usize>,
    strays: strays::Strays,
    /// What the swarm file asks for and this machine does not give, in words.
    pub lacks: Vec<String>,
}

/// Makes the capture of an agent's output, by its name.
pub type Captures = Box<dyn FnMut(&str) -> Capture>;

/// Where the operator is told of what happens.
pub type Notices = Box<dyn FnMut(&str)>;

mod act;
mod agents;
mod bells;
mod births;
mod congestion;
mod crashes;
mod deaths;
mod end;
mod evidence;
mod gone;
mod groups;
mod guests;
mod hangs;
mod hear;
mod kept;
mod later;
pub(crate) use kept::{instant_of, ns_of};
mod letters;
mod night;
mod nursery;
mod order;
pub mod pause;
mod record;
mod reload;
mod removal;
mod replay;
mod rescue;
mod sets;
mod stand;
mod standby;
mod stopped;
mod strays;
mod tell;
mod upgrade;
mod urgent;
mod zygote;

pub use agents::Agents;
use groups::Groups;
pub use nursery::End;
pub use reload::{Outcome, Prepared};
use replay::Postman;
pub use upgrade::{Proof, Upgraded};

impl Swarm {
    /// Makes the board and everything else that exists before any agent.
    ///
    /// # Errors
    /// What is lacking.
    pub fn new(
        mut file: SwarmFile,
        dead_letters: DeadLetters,
        mut capture: Captures,
        records: Records,
    ) -> io::Result<Self> {
        // For messages of who read it.
        file.text = String::new();
        let mut topology = Topology::of(&file);
        let swarm: u64 = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), clock::now_ns());
        let happenings = Happenings::of(&file.hooks);
        let supervision = Supervision::of(&file, &topology, swarm);
        let postman = Postman::join(&mut topology, &file);
        file.agents.push(postman::agent(dead_letters.folder())?);
        let board_shape = birth::board_shape(&topology);
        let (board, board_fd) = segment::create_board(board_shape.clone(), swarm)?;
        let groups = Groups::new(&topology)?;
        let hangs = hangs::Hangs::new(&file, &topology)?;
        let cradle = Cradle {
            spawner: Spawner::new()?,
            cages: Cages::for_all(&file.agents),
            urgency: Urgency::default(),
            swarm,
            board: board_fd,
            adopted: HashMap::new(),
        };
        let reared = standby::reared(&file);
        let mut seed = swarm;
        let agents = topology.agents.iter().map(|instance| {
            let restart = Intensity::new(file.agents[instance.config].restart.clone(), draw(&mut seed));
            let last = beginning(&topology, instance);
            new_agent(&instance.name, birth::segment_shape(instance), restart, last, capture(&instance.name))
        });
        let agents = agents.collect();
        let stages = topology.stop_order();
        let mut swarm = Swarm {
            agents,
            topology,
            file,
            board,
            board_shape,
            cradle,
            groups,
            effects: Vec::new(),
            ends: Ends::No,
            stages,
            failed_start: None,
            escalated: None,
            supervision,
            set_timer: None,
            happenings,
            guests: Vec::new(),
            started: Instant::now(),
            kills_proven: 0,
            verdicts_ns: Vec::new(),
            last_verdict_ns: 0,
            removals_ns: Vec::new(),
            hangs_ns: Vec::new(),
            recoveries_ns: Vec::new(),
            accusations: 0,
            dead_letters,
            trials: Trials::default(),
            postman,
            started_once: Cell::default(),
            sleepers: rescue::Sleepers::default(),
            congestion: congestion::Congestion::default(),
            hangs,
            waiting: Vec::new(),
            records,
            decided: None,
            told_over: false,
            kept: None,
            begun: false,
            remains: Vec::new(),
            later: later::Later::default(),
            called: BTreeSet::new(),
            struck: Vec::new(),
            again: Vec::new(),
            reload: None,
            outcome: None,
            upgraded: None,
            reloads: 0,
            upgrade: None,
            captures: capture,
            nurseries: nursery::Nurseries::default(),
            reared,
            strays: strays::Strays::default(),
            lacks: Vec::new(),
        };
        let rests = |agent: &usize| *agent == swarm.postman.agent || !swarm.topology.agents[*agent].active;
        let resting: Vec<usize> = (0..swarm.agents.len()).filter(rests).collect();
        resting.into_iter().for_each(|agent| swarm.rest(agent));
        Ok(swarm)
    }

    /// What the event loop is to do since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The swarm's random number.
    pub fn id(&self) -> u64 {
        self.cradle.swarm
    }

    /// What of an agent's confinement could not be applied, in words.
    pub fn unapplied(&self, agent: usize) -> &[String] {
        self.cradle.cages.lacks(agent as u32)
    }

    /// Makes the processes that hold the other ends of these control sockets the agents of these names: they are not spawned,
    /// never signalled, and have one life. To be said before the start.
    ///
    /// # Panics
    /// When there is no agent of such a name.
    pub fn adopt(&mut self, controls: Vec<(&str, OwnedFd)>) {
        for (name, control) in controls {
            let agent = self.agents.iter().position(|a| a.name == name);
            let agent = agent.expect("who adopts a process names an agent of the swarm");
            self.cradle.adopted.insert(agent as u32, Some(control));
        }
    }

    /// Whether there is nothing left to wait for.
    pub fn is_over(&self) -> bool {
        let ending = self.ends != Ends::No;
        self.nurseries.are_empty()
            && self.agents.iter().all(|a| match a.state {
                State::Ended | State::Failed => a.lives().next().is_none(),
                state => ending && state.is_at_rest() && a.lives().next().is_none(),
            })
    }

    /// How long ago it was made.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the swarm is, or was, ended by SIGKILL.
    pub fn is_killed(&self) -> bool {
        self.ends >= Ends::Undone
    }

    /// Whether somebody wants nothing to go on any more, hooks neither.
    pub fn is_cut_short(&self) -> bool {
        self.ends == Ends::Killed
    }

    /// Whether the swarm is being ended.
    pub fn is_ending(&self) -> bool {
        self.ends != Ends::No
    }
}

fn live_of(agent: &Agent) -> &Live {
    agent.live.as_ref().expect("asked only while the process lives")
}

/// An agent that was never started.
fn new_agent(
    name: &str,
    shape: SegmentShape,
    intensity: Intensity,
    last: Verdict,
    capture: Capture,
) -> Agent {
    Agent {
        name: name.to_owned(),
        shape,
        state: State::Stopped,
        state_serial: 0,
        generation: 0,
        numbered: 0,
        intensity,
        live: None,
        spares: VecDeque::new(),
        spare_deaths: 0,
        graves: VecDeque::new(),
        last,
        last_state: Vec::new(),
        was_ready: false,
        restarts: 0,
        rescues: 0,
        hangs: 0,
        told_of_stop: None,
        past: Totals::default(),
        died_at: None,
        capture,
        last_ending: None,
        last_crash: None,
        paused: false,
        timer: None,
        faults: 0,
        command: None,
        stand_in: None,
    }
}

/// Where lanes and cursors stand before the first incarnation.
fn beginning(topology: &Topology, instance: &crate::topology::Instance) -> Verdict {
    let first = |capacity: u64| Place { position: first_position(capacity), sequence: 0 };
    let capacity_of =
        |i: &crate::topology::InputSpec| topology.agents[i.producer].lanes[i.lane].capacity_bytes;
    Verdict {
        generation: 0,
        kind: VerdictKind::Committed,
        lanes: instance.lanes.iter().map(|l| first(l.capacity_bytes)).collect(),
        inputs: instance.inputs.iter().map(|i| first(capacity_of(i))).collect(),
    }
}
