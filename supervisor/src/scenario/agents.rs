//! The agents of scenarios: processes of this same binary (`shoal agent scenario ROLE KEY=NUMBER…`), written with nothing but
//! the SDK. What each message holds follows from its number; who receives it looks at every byte.

use super::tally::Tally;
use crate::log::report;
use shoal_agent::{Agent, Next, Publisher, Result, State, Subscription};
use shoal_measure::load::{fill, is_filled};
use shoal_runtime::clock::now_ns;
use std::collections::HashMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An asker whose oldest call has waited for longer is not being served.
pub const DOWN_AFTER: Duration = Duration::from_millis(250);
/// How often an asker looks at its watch while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// An asker gives up when calls wait and nothing came for so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// A teller that is early sleeps at least so long: what became due meanwhile is sent at once.
const NAP_MIN: Duration = Duration::from_millis(1);
/// Where members tell their notes.
const NOTES: &str = "notes-0";

/// A question.
#[shoal_agent::message]
pub struct Call {
    /// Its number, from 0.
    pub number: u64,
    /// When it was made, CLOCK_MONOTONIC ns.
    pub made_ns: u64,
    /// So many notes are to be told for it, and one more by some; 0: it is a task.
    pub tell: u32,
    /// Filled with its number.
    pub body: Vec<u8>,
}

/// An answer.
#[shoal_agent::message]
pub struct Answer {
    /// Of which call.
    pub number: u64,
    /// When that was made.
    pub made_ns: u64,
    /// Whether it was a task, and not a call for notes.
    pub task: bool,
    /// Whether the call was what it must be.
    pub right: bool,
}

/// Something that is told and not answered.
#[shoal_agent::message]
pub struct Note {
    /// Who tells it, from 0.
    pub source: u32,
    /// Its number, from 0.
    pub number: u64,
    /// When it was made.
    pub made_ns: u64,
    /// Filled with its number.
    pub body: Vec<u8>,
}

/// What a member has done: its state.
#[shoal_agent::message]
pub struct Done {
    /// Tasks that it answered.
    pub count: u64,
    /// Notes that it told.
    pub told: u64,
    /// Calls that were not what was sent.
    pub wrong: u64,
}

/// What an agent is told on its command line; 0 where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// How many calls or notes; 0: no bound.
    pub count: u64,
    /// Bytes of each one's body, a multiple of 8.
    pub bytes: u64,
    /// For how long, ms; 0: no bound.
    pub ms: u64,
    /// From one to the next, ns; 0: as fast as they go.
    pub gap_ns: u64,
    /// So many at once, then a pause.
    pub burst: u64,
    /// How long a pause, ms.
    pub pause_ms: u64,
    /// Calls that may wait for answers at once.
    pub window: u64,
    /// Answers that each call awaits.
    pub answers: u64,
    /// How many tell.
    pub sources: u64,
    /// How many notes there will be; 0: until all who tell have ended.
    pub notes: u64,
    /// How many notes each call for notes asks for.
    pub tell: u64,
    /// So many calls for notes there are before the tasks.
    pub tells: u64,
    /// So many of them ask for one more.
    pub extra: u64,
    /// Teams of members: an asker's calls go to each in turn.
    pub teams: u64,
    /// The number of the first replica as a source.
    pub base: u64,
    /// The first note counts from this moment, CLOCK_MONOTONIC ns; 0: from when it is made.
    pub since_ns: u64,
    /// Which channel `notes.N` it is.
    pub channel: u64,
}

impl Orders {
    /// Reads `KEY=NUMBER` words.
    fn parse(words: &[OsString]) -> Option<Orders> {
        let mut orders = Orders { burst: 1, ..Orders::default() };
        for word in words {
            let (key, number) = word.to_str()?.split_once('=')?;
            let number = number.parse().ok()?;
            *orders.field(key)? = number;
        }
        Some(orders)
    }

    fn field(&mut self, key: &str) -> Option<&mut u64> {
        Some(match key {
            "count" => &mut self.count,
            "bytes" => &mut self.bytes,
            "ms" => &mut self.ms,
            "gap_ns" => &mut self.gap_ns,
            "burst" => &mut self.burst,
            "pause_ms" => &mut self.pause_ms,
            "window" => &mut self.window,
            "answers" => &mut self.answers,
            "sources" => &mut self.sources,
            "notes" => &mut self.notes,
            "tell" => &mut self.tell,
            "tells" => &mut self.tells,
            "extra" => &mut self.extra,
            "teams" => &mut self.teams,
            "base" => &mut self.base,
            "since_ns" => &mut self.since_ns,
            "channel" => &mut self.channel,
            _ => return None,
        })
    }
}

/// Runs one of them.
pub fn main(args: &[OsString]) -> ExitCode {
    let role = args.first().and_then(|role| role.to_str()).unwrap_or_default();
    let Some(orders) = args.get(1..).and_then(Orders::parse) else { return usage() };
    match role {
        "asker" => shoal_agent::run(|agent| Asker::new(agent, orders)?.ask(agent)),
        "member" => shoal_agent::run(|agent| member(agent, orders)),
        "teller" => shoal_agent::run(|agent| teller(agent, orders)),
        "clerk" => shoal_agent::run(|agent| clerk(agent, orders)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    report!(
        "usage: shoal agent scenario asker|member|teller|clerk KEY=NUMBER… (started by `shoal bench scenario`)"
    );
    ExitCode::from(crate::cli::BAD_INPUT)
}

/// Makes calls, a window of them at a time, and awaits every answer: first those for notes, then the tasks. SIGUSR1 ends it:
/// no more calls, and what is under way is awaited.
struct Asker {
    calls: Vec<Publisher<Call>>,
    answers: Subscription<Answer>,
    state: State<Tally>,
    orders: Orders,
    tally: Tally,
    /// Calls that wait: when made, answers still to come.
    waiting: HashMap<u64, (u64, u64)>,
    /// The lowest number that may wait.
    oldest: u64,
    made: u64,
    /// When the tasks began; 0 before.
    began_ns: u64,
    looked_ns: u64,
    /// When an answer came last, or a call was made while none waited.
    heard_ns: u64,
    enough: Arc<AtomicBool>,
}

impl Asker {
    fn new(agent: &mut Agent, orders: Orders) -> Result<Asker> {
        let enough = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&enough))?;
        let calls = (0..orders.teams.max(1)).map(|team| agent.publish(&format!("calls-{team}")));
        Ok(Asker {
            calls: calls.collect::<Result<_>>()?,
            answers: agent.subscribe("answers")?,
            state: agent.state()?,
            orders,
            tally: Tally::of(0),
            waiting: HashMap::new(),
            oldest: 0,
            made: 0,
            began_ns: 0,
            looked_ns: 0,
            heard_ns: 0,
            enough,
        })
    }

    fn ask(mut self, agent: &mut Agent) -> Result<()> {
        agent.ready()?;
        let mut call = Call { number: 0, made_ns: 0, tell: 0, body: vec![0; self.orders.bytes as usize] };
        loop {
            let now = now_ns();
            // The tasks begin when all notes were told.
            if self.began_ns == 0 && self.made >= self.orders.tells && self.waiting.is_empty() {
                (self.began_ns, self.looked_ns) = (now, now);
            }
            self.look(now);
            let over = self.is_over(now) || agent.stopping();
            let given_up = now.saturating_sub(self.heard_ns) > PATIENCE.as_nanos() as u64;
            if (over && self.waiting.is_empty()) || (given_up && !self.waiting.is_empty()) {
                break;
            }
            let room = (self.waiting.len() as u64) < self.orders.window.max(1);
            let begun = self.made < self.orders.tells || self.began_ns > 0;
            if !over && room && begun && now >= self.due_ns() {
                self.call(agent, &mut call)?;
                continue;
            }
            let timeout = match over || !room || !begun {
                true => LOOK_EVERY,
                false => LOOK_EVERY.min(Duration::from_nanos(self.due_ns().saturating_sub(now))),
            };
            if !self.hear(agent, timeout)? {
                break;
            }
        }
        self.tally.missing = self.waiting.values().map(|(_, open)| open).sum();
        self.tally.served_ns = now_ns().saturating_sub(self.began_ns.max(1));
        let Asker { state, tally, .. } = &self;
        agent.step(|step| step.keep(state, tally))
    }

    fn is_over(&self, now: u64) -> bool {
        let Orders { count, tells, ms, .. } = self.orders;
        // Relaxed: nothing comes with it.
        (count > 0 && self.made >= tells + count)
            || (ms > 0 && self.began_ns > 0 && now - self.began_ns >= ms * 1_000_000)
            || self.enough.load(Ordering::Relaxed)
    }

    fn due_ns(&self) -> u64 {
        self.began_ns + self.made.saturating_sub(self.orders.tells) * self.orders.gap_ns
    }

    /// Counts the time since the last look as down if the oldest call waits for too long.
    fn look(&mut self, now: u64) {
        while self.oldest < self.made && !self.waiting.contains_key(&self.oldest) {
            self.oldest += 1;
        }
        let waits = self.waiting.get(&self.oldest).map_or(0, |(made_ns, _)| now.saturating_sub(*made_ns));
        if self.began_ns > 0 && waits > DOWN_AFTER.as_nanos() as u64 {
            self.tally.down_ns += now - self.looked_ns;
        }
        self.looked_ns = now;
    }

    fn call(&mut self, agent: &mut Agent, call: &mut Call) -> Result<()> {
        let Orders { tells, tell, extra, answers, .. } = self.orders;
        let is_task = self.made >= tells;
        (call.number, call.made_ns) = (self.made, now_ns());
        if self.waiting.is_empty() {
            self.heard_ns = call.made_ns;
        }
        call.tell = if is_task { 0 } else { (tell + u64::from(self.made < extra)) as u32 };
        fill(&mut call.body, call.number);
        let to = &self.calls[self.made as usize % self.calls.len()];
        agent.step(|step| step.send(to, call))?;
        let awaited = answers.max(1);
        self.waiting.insert(call.number, (call.made_ns, awaited));
        self.tally.asked += if is_task { awaited } else { 0 };
        self.made += 1;
        Ok(())
    }

    /// False when nobody is left who could answer.
    fn hear(&mut self, agent: &mut Agent, timeout: Duration) -> Result<bool> {
        let answer = match agent.receive(&self.answers, Some(timeout))? {
            Next::Message(answer) => answer,
            Next::TimedOut => return Ok(true),
            Next::Stopping | Next::Closed => return Ok(false),
        };
        let now = now_ns();
        self.heard_ns = now;
        let told = answer.message();
        let (number, right, task) = (told.number.to_native(), told.right, told.task);
        let made_ns = told.made_ns.to_native();
        match self.waiting.get_mut(&number) {
            Some((own_ns, open)) if *own_ns == made_ns && right && task == (number >= self.orders.tells) => {
                if task {
                    self.tally.came(made_ns, now);
                }
                *open -= 1;
                if *open == 0 {
                    self.waiting.remove(&number);
                }
            }
            Some(_) => self.tally.wrong += 1,
            None => self.tally.repeated += 1,
        }
        answer.keep(&self.state, &self.tally)?;
        answer.commit()?;
        Ok(true)
    }
}

/// Tells its first word if it is to, then answers calls: a task by the answer alone, a call for notes by notes besides, in one step.
fn member(agent: &mut Agent, orders: Orders) -> Result<()> {
    let answers = agent.publish::<Answer>("answers")?;
    let tells = orders.since_ns > 0 || orders.tells > 0;
    let notes = if tells { Some(agent.publish::<Note>(NOTES)?) } else { None };
    let state = agent.state::<Done>()?;
    let source = orders.base as u32 + agent.replica().0;
    let mut note = Note { source, number: 0, made_ns: 0, body: vec![0; orders.bytes as usize] };
    let mut first_word =
        Note { source, number: 0, made_ns: orders.since_ns, body: vec![0; orders.bytes as usize] };
    fill(&mut first_word.body, 0);
    agent.on::<Call>(&format!("calls-{}", orders.channel), move |step, call| {
        let mut done = step.load(&state)?.unwrap_or(Done { count: 0, told: 0, wrong: 0 });
        let (number, made_ns, tell) =
            (call.number.to_native(), call.made_ns.to_native(), call.tell.to_native());
        let right = call.body.len() as u64 == orders.bytes && is_filled(&call.body, number);
        done.count += u64::from(tell == 0);
        done.wrong += u64::from(!right);
        for _ in 0..tell {
            let notes = notes.as_ref().ok_or("a call for notes, and no lane for them")?;
            (note.number, note.made_ns) = (done.told, now_ns());
            fill(&mut note.body, note.number);
            step.send(notes, &note)?;
            done.told += 1;
        }
        step.send(&answers, &Answer { number, made_ns, task: tell == 0, right })?;
        step.keep(&state, &done)
    })?;
    if let Some(notes) = notes.filter(|notes| orders.since_ns > 0 && agent.sent(notes) == 0) {
        agent.send(&notes, &first_word)?;
    }
    agent.serve()
}

/// Tells notes.
fn teller(agent: &mut Agent, orders: Orders) -> Result<()> {
    let notes = agent.publish::<Note>(&channel(orders))?;
    agent.ready()?;
    let (source, _) = agent.replica();
    let mut note = Note { source, number: 0, made_ns: 0, body: vec![0; orders.bytes as usize] };
    let (began_ns, first) = (now_ns(), agent.sent(&notes));
    let count = if orders.count == 0 { u64::MAX } else { orders.count };
    for number in first..count {
        let due_ns = began_ns + (number - first) * orders.gap_ns;
        let early = Duration::from_nanos(due_ns.saturating_sub(now_ns()));
        if !early.is_zero() {
            std::thread::sleep(early.max(NAP_MIN));
        }
        if number > first && orders.pause_ms > 0 && number.is_multiple_of(orders.burst.max(1)) {
            std::thread::sleep(Duration::from_millis(orders.pause_ms));
        }
        let now = now_ns();
        if agent.stopping() || (orders.ms > 0 && now - began_ns >= orders.ms * 1_000_000) {
            return Ok(());
        }
        (note.number, note.made_ns) = (number, now);
        fill(&mut note.body, number);
        agent.send(&notes, &note)?;
    }
    Ok(())
}

fn channel(orders: Orders) -> String {
    format!("notes-{}", orders.channel)
}

/// Hears notes, of each source in order.
fn clerk(agent: &mut Agent, orders: Orders) -> Result<()> {
    let notes = agent.subscribe::<Note>(&channel(orders))?;
    let state = agent.state::<Tally>()?;
    let mut tally = Tally::of(orders.sources as u32);
    // Nobody kills a clerk: its account is kept now and then, and at the end.
    let mut kept = 0;
    while orders.notes == 0 || tally.delivered < orders.notes {
        let Next::Message(note) = agent.receive(&notes, None)? else { break };
        let told = note.message();
        let number = told.number.to_native();
        match told.body.len() as u64 == orders.bytes && is_filled(&told.body, number) {
            true => tally.note(told.source.to_native(), number, told.made_ns.to_native(), now_ns()),
            false => tally.wrong += 1,
        }
        kept += 1;
        if kept % 256 == 0 {
            note.keep(&state, &tally)?;
        }
        note.commit()?;
    }
    agent.step(|step| step.keep(&state, &tally))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written_and_nothing_else_is() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let orders = Orders::parse(&words("count=3 bytes=64 channel=7")).expect("orders");
        assert_eq!(orders, Orders { count: 3, bytes: 64, channel: 7, burst: 1, ..Orders::default() });
        for wrong in ["count", "count=x", "counts=3"] {
            assert_eq!(Orders::parse(&words(wrong)), None, "{wrong}");
        }
    }
}
