//! The only place of the supervisor that waits: one thread, one epoll.
//!
//! It turns what the kernel says into events of the swarm, and the swarm's effects into watches and timers. Nothing else
//! here blocks: sends to agents and clients never do, and output is read as it comes.

use crate::agent::Agent;
use crate::swarm::{Effect, End, Swarm, Timer};
use crate::thrift::{self, Give, Thrift};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use shoal_runtime::Incarnation;
use shoal_runtime::again::insist;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Something that runs beside the swarm on the supervisor's thread: the demo's killer, the control socket.
pub trait Companion {
    /// Registers its descriptors under tokens of its own, below 2^60.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn register(&mut self, watch: &Watch) -> io::Result<()>;
    /// When it wants to run next by the clock.
    fn deadline(&self) -> Option<Instant>;
    /// A descriptor of some companion is ready (`Some(token)`), or its deadline has come (`None`).
    fn run(&mut self, ready: Option<u64>, swarm: &mut Swarm, watch: &Watch);
    /// Whether it lets go of a swarm that is over.
    fn is_done(&self) -> bool {
        true
    }
    /// A batch of events has passed.
    fn passed(&mut self, _swarm: &mut Swarm) {}
}

/// Where descriptors are watched.
pub struct Watch {
    epoll: OwnedFd,
}

/// Whose descriptor is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Source {
    Companion = 0,
    Control = 1,
    Death = 2,
    Output = 3,
    Errors = 4,
    Bells = 5,
    Nursling = 6,
    Stray = 7,
    Night = 8,
}

const SOURCE_SHIFT: u32 = 60;
const AGENT_SHIFT: u32 = 32;

fn token(source: Source, agent: usize, generation: u32) -> u64 {
    (source as u64) << SOURCE_SHIFT | (agent as u64) << AGENT_SHIFT | u64::from(generation)
}

/// The agent of which a token is.
fn agent_of(token: u64) -> usize {
    (token >> AGENT_SHIFT & 0x0fff_ffff) as usize
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Watch> {
        Ok(Watch { epoll: insist(|| epoll::create(epoll::CreateFlags::CLOEXEC))? })
    }

    /// Watches a descriptor for a companion; `token` must be below 2^60 and comes back in `Companion::run`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add(&self, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        match insist(|| epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(token), flags)) {
            // When it was tried before, and other descriptors had to wait; or a fork is now an agent's process.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                insist(|| epoll::modify(&self.epoll, &fd, epoll::EventData::new_u64(token), flags))
            }
            added => added,
        }
    }

    /// Says once when a bell is rung.
    fn bells(&self, swarm: &Swarm) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token(Source::Bells, 0, 0));
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        insist(|| epoll::modify(&self.epoll, swarm.bells(), data, once))
    }

    /// Says once when anybody is rung at night.
    fn night(&self, swarm: &Swarm) -> io::Result<()> {
        let Some(rings) = swarm.night_rings() else { return Ok(()) };
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        self.add(rings, token(Source::Night, 0, 0), once)
    }

    /// Asks anew for what an agent says: an edge for what lies there unread.
    fn control(&self, swarm: &Swarm, of: Incarnation) -> io::Result<()> {
        let agent = of.agent as usize;
        let Some(live) = swarm.agents[agent].life(of.generation) else { return Ok(()) };
        let data = epoll::EventData::new_u64(token(Source::Control, agent, of.generation));
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        match insist(|| epoll::modify(&self.epoll, &live.control, data, edge)) {
            // It is watched in a moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            asked => asked,
        }
    }

    /// Watches a process that is no agent's yet.
    fn nursling(&self, swarm: &Swarm, config: usize, serial: u32) -> io::Result<()> {
        for (fd, word, end) in swarm.nursling(config, serial) {
            let edge = if matches!(end, End::Control | End::Death) {
                epoll::EventFlags::ET
            } else {
                epoll::EventFlags::empty()
            };
            self.add(fd, token(Source::Nursling, config, word), epoll::EventFlags::IN | edge)?;
        }
        Ok(())
    }

    /// Watches a new incarnation's descriptors.
    fn life(&self, swarm: &Swarm, of: Incarnation) -> io::Result<()> {
        let (agent, generation) = (of.agent as usize, of.generation);
        let Some(live) = swarm.agents[agent].life(generation) else { return Ok(()) };
        // The control socket is read until it is empty, a pidfd tells once: edges. Output is read in bounded pieces: level.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        self.add(&live.control, token(Source::Control, agent, generation), edge)?;
        self.add(&live.child.pidfd, token(Source::Death, agent, generation), edge)?;
        for (pipe, source) in live.pipes.iter().zip([Source::Output, Source::Errors]) {
            if let Some(pipe) = pipe {
                self.add(pipe, token(source, agent, generation), epoll::EventFlags::IN)?;
            }
        }
        Ok(())
    }
}

/// How long what could not be watched waits to be tried again.
const WATCH_RETRY: Duration = Duration::from_millis(10);

/// What the loop is to do besides waiting.
#[derive(Default)]
struct Due {
    timers: BinaryHeap<Reverse<Armed>>,
    /// What could not be watched, for want of something, and when that is tried again.
    unwatched: Vec<Effect>,
    again: Option<Instant>,
    /// Agents that are not asked yet what a predecessor may have been told of them.
    unasked: Range<usize>,
}

impl Due {
    /// When the next timer is due; those that nobody waits for any more are forgotten, so that a start's time-outs do not wake whoever has long
    /// been ready.
    fn next_timer(&mut self, swarm: &Swarm) -> Option<Instant> {
        while let Some(&Reverse((at, agent, timer, serial))) = self.timers.peek() {
            if swarm.awaits(agent, timer, serial) {
                return Some(at);
            }
            self.timers.pop();
        }
        None
    }
}

/// A timer: when, whose, what for, and in which state it was armed.
type Armed = (Instant, usize, Timer, u64);

/// Runs a swarm until it is over. What is watched already stays so: a successor's predecessor has used the same.
///
/// # Errors
/// The kernel's refusal to let us wait; or what was taken over is not what it should be.
pub fn run(swarm: &mut Swarm, companions: &mut [&mut dyn Companion], watch: &Watch) -> io::Result<()> {
    for companion in companions.iter_mut() {
        companion.register(watch)?;
    }
    // Silent until it is asked for.
    watch.add(swarm.bells(), token(Source::Bells, 0, 0), epoll::EventFlags::ONESHOT)?;
    let mut due = Due::default();
    if !swarm.has_begun() {
        swarm.start();
    }
    settle(swarm, watch, &mut due);
    swarm.give_way();
    let missed = if swarm.is_successor() { missed(swarm, &mut due) } else { Vec::new() };
    settle(swarm, watch, &mut due);
    swarm.note_taken_over();
    swarm.give_way();
    let (mut output_waited, mut thrift) = (false, Thrift::new(swarm.is_successor()));
    for token in in_turn(missed.into_iter(), &mut false) {
        dispatch(swarm, companions, watch, token);
    }
    loop {
        settle(swarm, watch, &mut due);
        swarm.settle_batch();
        companions.iter_mut().for_each(|c| c.passed(swarm));
        if swarm.is_over() && companions.iter().all(|c| c.is_done()) {
            swarm.catch_up(true);
            return Ok(());
        }
        let quiet = swarm.catch_up_pause().map(|pause| Instant::now() + pause);
        let timer = due.next_timer(swarm);
        let deadlines = companions.iter().filter_map(|c| c.deadline());
        let unchecked = (swarm.is_unchecked() || !due.unasked.is_empty()).then(Instant::now);
        let others = [timer, due.again, quiet, unchecked, thrift.at()];
        let deadline = deadlines.chain(others.into_iter().flatten()).min();
        let mut events = Vec::with_capacity(256);
        swarm.note_told([].into_iter());
        wait(watch, &mut events, deadline)?;
        swarm.note_told(events.iter().map(|event| event.data.u64()));
        let mut late = untold(swarm, &mut due, if events.is_empty() { ASKED_AT_ONCE } else { ASKED_BESIDE });
        swarm.catch_up(events.is_empty());
        swarm.check_taken_over(events.is_empty())?;
        if !events.is_empty() {
            thrift.note(Instant::now());
            swarm.stir();
        } else if !swarm.is_unchecked()
            && swarm.started_once()
            && let Some(what) = thrift.due(Instant::now())
        {
            give_back(what);
            swarm.leave_records();
        }
        let told = || events.iter().map(|event| event.data.u64());
        late.retain(|late| told().all(|token| token != *late));
        let tokens = told().chain(late);
        for token in in_turn(tokens, &mut output_waited) {
            dispatch(swarm, companions, watch, token);
        }
        fire(swarm, companions, watch, &mut due.timers);
    }
}

/// Nothing is to be done: what was needed is given back.
fn give_back(what: Give) {
    if what != Give::Program {
        thrift::trim_heap();
    }
    if what != Give::Heap {
        thrift::leave_program();
    }
}

/// So many agents are asked about in one call, which nobody else on this processor can interrupt.
const ASKED_AT_ONCE: usize = 16;
/// The same beside something else that is to be done.
const ASKED_BESIDE: usize = 4;

/// What a predecessor was told of agents' sockets and processes, and died before it did anything: an edge is not told twice. What ended its
/// wait when it died it was told, too, and had no time to note: so everybody is asked, but most of them when nothing else is to be done.
fn missed(swarm: &mut Swarm, due: &mut Due) -> Vec<u64> {
    due.unasked = 0..swarm.agents.len();
    let Some(told) = swarm.told_before() else { return untold(swarm, due, usize::MAX) };
    let agents: BTreeSet<usize> = told.into_iter().map(agent_of).collect();
    let agents = agents.into_iter().filter_map(|agent| swarm.agents.get(agent));
    ready_of(agents).unwrap_or_else(|_| untold(swarm, due, usize::MAX))
}

/// What has happened at sockets and processes of the next so many agents.
fn untold(swarm: &mut Swarm, due: &mut Due, agents: usize) -> Vec<u64> {
    let mut untold = Vec::new();
    let end = due.unasked.start.saturating_add(agents).min(due.unasked.end);
    while due.unasked.start < end {
        let next = end.min(due.unasked.start + ASKED_AT_ONCE);
        match ready_of((due.unasked.start..next).map(|agent| &swarm.agents[agent])) {
            Ok(ready) => untold.extend(ready),
            Err(_) => {
                // Who is watched anew is told of what is so already.
                swarm.watch_all_anew();
                due.unasked = 0..0;
                return untold;
            }
        }
        due.unasked.start = next;
        swarm.give_way();
    }
    untold
}

/// The tokens of these agents' sockets and processes at which something has happened.
fn ready_of<'a>(agents: impl Iterator<Item = &'a Agent>) -> io::Result<Vec<u64>> {
    let ends = agents.filter_map(|agent| agent.live.as_ref()).flat_map(|live| {
        let Incarnation { agent, generation } = live.incarnation;
        let ends = [(Source::Control, &live.control), (Source::Death, &live.child.pidfd)];
        ends.map(|(source, fd)| (token(source, agent as usize, generation), PollFd::new(fd, PollFlags::IN)))
    });
    let (tokens, mut fds): (Vec<u64>, Vec<PollFd<'_>>) = ends.unzip();
    insist(|| poll(&mut fds, Some(&Timespec::default())))?;
    let ready = tokens.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(token, _)| token).collect())
}

fn wait(watch: &Watch, events: &mut Vec<epoll::Event>, deadline: Option<Instant>) -> io::Result<()> {
    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
    match epoll::wait(&watch.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is ready, in the order of its turn: deaths, what agents say, all else. What agents print has its turn when nobody died or said
/// anything, or when it has waited once: it is told of again.
fn in_turn(tokens: impl Iterator<Item = u64>, output_waited: &mut bool) -> Vec<u64> {
    let is = |token: u64, sources: &[Source]| sources.iter().any(|s| token >> SOURCE_SHIFT == *s as u64);
    let rank = |token: u64| match token {
        t if is(t, &[Source::Death]) => 0,
        t if is(t, &[Source::Control, Source::Nursling]) => 1,
        _ => 2,
    };
    let mut tokens: Vec<u64> = tokens.collect();
    tokens.sort_by_key(|token| rank(*token));
    let urgent = tokens.first().is_some_and(|token| rank(*token) < 2);
    *output_waited = urgent && !*output_waited;
    if *output_waited {
        tokens.retain(|token| !is(*token, &[Source::Output, Source::Errors]));
    }
    tokens
}

fn dispatch(swarm: &mut Swarm, companions: &mut [&mut dyn Companion], watch: &Watch, token: u64) {
    if token >> SOURCE_SHIFT == Source::Companion as u64 {
        // Who asks is told all that happened.
        swarm.file_crashes();
        companions.iter_mut().for_each(|c| c.run(Some(token), swarm, watch));
        return;
    }
    if token >> SOURCE_SHIFT == Source::Bells as u64 {
        swarm.watch_on();
        return;
    }
    if token >> SOURCE_SHIFT == Source::Night as u64 {
        // The night is over with whatever is told.
        return;
    }
    if token >> SOURCE_SHIFT == Source::Stray as u64 {
        swarm.on_stray_death(token as i32);
        return;
    }
    let agent = agent_of(token);
    if token >> SOURCE_SHIFT == Source::Nursling as u64 {
        swarm.on_nursling(agent, token as u32);
        return;
    }
    swarm.touch(agent);
    let current = swarm.agents[agent].live.as_ref().map(|l| l.incarnation.generation);
    if current != Some(token as u32) {
        let of = Incarnation { agent: agent as u32, generation: token as u32 };
        return dispatch_spare(swarm, of, token >> SOURCE_SHIFT);
    }
    match token >> SOURCE_SHIFT {
        t if t == Source::Control as u64 => swarm.on_control(agent),
        t if t == Source::Output as u64 => swarm.on_output(agent, 0),
        t if t == Source::Errors as u64 => swarm.on_output(agent, 1),
        _ => {
            // What it said before it died counts.
            swarm.hear_last(agent);
            swarm.on_death(agent);
        }
    }
}

/// The same of a standby, if it is one: whoever is dead and buried is none.
fn dispatch_spare(swarm: &mut Swarm, of: Incarnation, source: u64) {
    match source {
        s if s == Source::Control as u64 => swarm.on_spare_control(of),
        s if s == Source::Output as u64 => swarm.on_spare_output(of, 0),
        s if s == Source::Errors as u64 => swarm.on_spare_output(of, 1),
        _ => swarm.on_spare_death(of),
    }
}

/// Does what the swarm wants done: watches and timers. What the kernel has no room to watch is tried again after a pause.
fn settle(swarm: &mut Swarm, watch: &Watch, due: &mut Due) {
    let now = Instant::now();
    let retried = due.again.is_some_and(|at| at <= now);
    let mut effects = if retried { std::mem::take(&mut due.unwatched) } else { Vec::new() };
    loop {
        swarm.advance();
        effects.append(&mut swarm.take_effects());
        if effects.is_empty() {
            break;
        }
        for effect in effects.drain(..) {
            let done = match &effect {
                Effect::Watch(of) => watch.life(swarm, *of).map(|()| swarm.note_watched(*of)),
                Effect::WatchNursling(config, serial) => watch.nursling(swarm, *config, *serial),
                Effect::WatchStray(pid) => swarm.stray(*pid).map_or(Ok(()), |pidfd| {
                    watch.add(pidfd, token(Source::Stray, 0, *pid as u32), epoll::EventFlags::IN)
                }),
                Effect::HearOn(of) => watch.control(swarm, *of),
                Effect::AwaitRing => watch.bells(swarm),
                Effect::AwaitDawn => watch.night(swarm),
                &Effect::Arm(at, agent, timer, serial) => {
                    due.timers.push(Reverse((at, agent, timer, serial)));
                    Ok(())
                }
            };
            if let Err(error) = done {
                // Once for each time that it begins to fail.
                if due.again.is_none() {
                    swarm.notice(&format!("a descriptor cannot be watched, which is tried again: {error}"));
                    due.again = Some(now + WATCH_RETRY);
                }
                due.unwatched.push(effect);
            }
        }
    }
    if retried {
        due.again = (!due.unwatched.is_empty()).then(|| now + WATCH_RETRY);
    }
}

fn fire(
    swarm: &mut Swarm,
    companions: &mut [&mut dyn Companion],
    watch: &Watch,
    timers: &mut BinaryHeap<Reverse<Armed>>,
) {
    let now = Instant::now();
    while let Some(&Reverse((at, agent, timer, serial))) = timers.peek() {
        if at > now {
            break;
        }
        timers.pop();
        if swarm.awaits(agent, timer, serial) {
            swarm.on_timer(agent, timer);
        }
    }
    for companion in companions.iter_mut() {
        if companion.deadline().is_some_and(|at| at <= now) {
            companion.run(None, swarm, watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_have_their_turn_first_and_output_waits_for_what_agents_say_but_once() {
        let of = |source| token(source, 7, 3);
        let ready =
            [Source::Output, Source::Companion, Source::Control, Source::Errors, Source::Death].map(of);
        let mut waited = false;
        let first = [Source::Death, Source::Control, Source::Companion].map(of);
        assert_eq!(in_turn(ready.into_iter(), &mut waited), first);
        let second =
            [Source::Death, Source::Control, Source::Output, Source::Companion, Source::Errors].map(of);
        assert_eq!(in_turn(ready.into_iter(), &mut waited), second, "output waited once");
        let calm = [Source::Errors, Source::Output].map(of);
        assert_eq!(in_turn(calm.into_iter(), &mut waited), calm, "nobody says anything");
        assert!(!waited);
    }
}
