//! Who waits for the end of the swarm, and what he is told: also by a successor of the supervisor that he asked.

use super::Operator;
use crate::child::State;
use crate::control::{ClientId, DownReport, Response, Unread};
use crate::swarm::Swarm;
use std::time::{Duration, Instant};

/// By this name a successor is left whose processes wait.
const KEPT: &str = "operator";
/// How long a swarm that is over waits for those who had asked a predecessor, live, and have not come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they live.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who is told when the swarm is over.
#[derive(Default)]
pub(super) struct UntilOver {
    clients: Vec<ClientId>,
    /// The processes of those who had asked a predecessor, and are to ask again.
    expected: Vec<i32>,
    has_looked: bool,
    /// Until when they are waited for, once the swarm is over.
    until: Option<Instant>,
}

impl UntilOver {
    /// Whether nobody is waited for.
    pub(super) fn is_done(&self) -> bool {
        let late = self.until.is_some_and(|until| until <= Instant::now());
        late || !self.expected.iter().any(|process| lives(*process))
    }

    /// When it is to be looked for that again.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let waits = self.until.is_some() && !self.expected.is_empty();
        waits.then(|| Instant::now() + LOOK_EVERY)
    }
}

fn lives(process: i32) -> bool {
    let process = rustix::process::Pid::from_raw(process);
    let asked = process.map(rustix::process::test_kill_process);
    asked.is_some_and(|asked| asked != Err(rustix::io::Errno::SRCH))
}

impl Operator {
    /// One more is told when the swarm is over: one of those who had asked before, perhaps.
    pub(super) fn add_until_over(&mut self, client: ClientId, swarm: &mut Swarm) {
        let UntilOver { clients, expected, .. } = &mut self.until_over;
        clients.push(client);
        let mut processes: Vec<i32> =
            clients.iter().filter_map(|client| Some(self.control.peer(*client)?.1)).collect();
        expected.retain(|process| !processes.contains(process));
        processes.extend(&*expected);
        swarm.keep_for(KEPT, serde_json::to_vec(&processes).unwrap_or_default());
    }

    /// Tells who waits for the end of the swarm how it ended: a moment before the supervisor leaves.
    pub(super) fn tell_over(&mut self, swarm: &Swarm) {
        if !std::mem::replace(&mut self.until_over.has_looked, true) && swarm.is_successor() {
            let kept = swarm.kept_for(KEPT).and_then(|kept| serde_json::from_slice(kept).ok());
            self.until_over.expected = kept.unwrap_or_default();
        }
        // Who asks again while hooks run has them ended, too.
        if !swarm.is_over() || swarm.awaits_hooks() {
            return;
        }
        self.until_over.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        if !self.until_over.clients.is_empty() {
            let report = Response::Down(down_report(swarm));
            self.until_over.clients.drain(..).for_each(|client| self.control.reply(client, &report));
        }
    }
}

/// How a swarm that is over ended.
fn down_report(swarm: &Swarm) -> DownReport {
    let unread = swarm.unread_by_reader().into_iter().map(|(reader, channel, count)| Unread {
        agent: reader.to_owned(),
        channel: channel.to_owned(),
        count,
    });
    let failed = swarm.agents.iter().filter(|agent| agent.state == State::Failed);
    DownReport {
        swarm: swarm.file.name.clone(),
        killed: swarm.is_killed(),
        failed: failed.map(|agent| agent.name.clone()).collect(),
        unread: unread.collect(),
    }
}
