//! A supervisor, or another command, while it runs.

use crate::stage::{Done, Stage, shells};
use crate::{patience, traces, until};
use rustix::process::{Pid, Signal, kill_process};
use shoal::control::{PsAgent, PsReport, PsState};
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

/// A running command; killed, with all that it started, when dropped.
pub struct Running<'s> {
    stage: &'s Stage,
    child: Child,
    paths: [PathBuf; 2],
    status: Option<i32>,
}

impl<'s> Running<'s> {
    pub(crate) fn new(stage: &'s Stage, child: Child, paths: [PathBuf; 2]) -> Self {
        Running { stage, child, paths, status: None }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its supervisor at the moment: a child of the keeper, which is the only child of what was started.
    pub fn supervisor(&self) -> Option<i32> {
        let keeper = self.keeper()?;
        let is_it = |pid: &i32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|name| name.trim_end() == "shoal-superv") && traces::state(*pid) != Some('Z')
        };
        traces::children(keeper).into_iter().find(is_it)
    }

    /// The keeper.
    pub fn keeper(&self) -> Option<i32> {
        traces::children(self.pid()).first().copied()
    }

    /// Kills the supervisor, and nobody else; false when there was none to kill.
    pub fn kill_supervisor(&self) -> bool {
        self.supervisor().is_some_and(|pid| traces::kill(pid, self.stage.mark()))
    }

    /// Kills the supervisor, and waits until the next one has taken over.
    pub fn succeed(&self) {
        let said = || self.err().matches("takes over").count();
        let before = said();
        until("a supervisor to kill", || self.kill_supervisor().then_some(()));
        until("a successor", || (said() > before).then_some(()));
    }

    /// Its standard output so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.paths[0]).unwrap_or_default()).into_owned()
    }

    /// Its standard error so far.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.paths[1]).unwrap_or_default()).into_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn send(&mut self, signal: Signal) {
        assert_eq!(self.poll(), None, "it ended before: {}", self.err());
        // It is our child and not reaped, so the number is its own.
        kill_process(Pid::from_raw(self.pid()).expect("a process number"), signal).expect("signalled");
    }

    /// Its exit status, if it ended.
    ///
    /// # Panics
    /// When the system refuses to tell.
    pub fn poll(&mut self) -> Option<i32> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child of this process").map(shells);
        }
        self.status
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Done {
        let status = until("the end of the command", || self.poll());
        Done { status, out: self.out(), err: self.err() }
    }

    /// Asks it to end by SIGTERM, and waits.
    pub fn stop(mut self) -> Done {
        self.send(Signal::TERM);
        self.ended()
    }

    /// What `shoal ps --json` prints; `None` while there is no answer.
    pub fn try_ps(&self) -> Option<PsReport> {
        let output = self.stage.shoal(&["ps", "--json"]).output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("one JSON object"))
    }

    /// Waits until `shoal ps --json` shows something.
    ///
    /// # Panics
    /// When the supervisor ends before.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&PsReport) -> Option<T>) -> T {
        until(what, || {
            if let Some(status) = self.poll() {
                panic!("the supervisor ended with {status} before {what}:\n{}{}", self.err(), self.out());
            }
            look(&self.try_ps()?)
        })
    }

    /// Waits until it printed something, on either stream.
    pub fn until_said(&mut self, text: &str) {
        until(&format!("{text:?} in the output"), || {
            let said = self.out() + &self.err();
            assert!(
                self.poll().is_none() || said.contains(text),
                "the supervisor ended and never said {text:?}:\n{said}"
            );
            said.contains(text).then_some(())
        });
    }

    /// Waits until every agent is ready.
    pub fn until_ready(&mut self) -> PsReport {
        self.until("every agent ready", |report| {
            report.agents.iter().all(|a| a.state == PsState::Ready).then(|| report.clone())
        })
    }

    /// Waits until `shoal ps --json` shows something of one agent.
    pub fn until_agent<T>(
        &mut self,
        name: &str,
        what: &str,
        mut look: impl FnMut(&PsAgent) -> Option<T>,
    ) -> T {
        self.until(&format!("{name} {what}"), |report| {
            report.agents.iter().find(|a| a.name == name).and_then(&mut look)
        })
    }

    /// Waits until a second passes in which the supervisor woke hardly ever: once for its look at sleepers, and what follows.
    ///
    /// # Panics
    /// When there is none.
    pub fn until_quiet(&self) {
        until("a quiet supervisor", || {
            let before = traces::sleeps(self.supervisor()?);
            std::thread::sleep(Duration::from_secs(1));
            (traces::sleeps(self.supervisor()?) - before <= 4).then_some(())
        });
    }

    /// The process of an agent that is ready.
    pub fn pid_of(&mut self, name: &str) -> i32 {
        self.until_agent(name, "ready", |a| (a.state == PsState::Ready).then_some(a.pid?)) as i32
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── standard error ──\n{}── standard output ──\n{}", self.err(), self.out());
        }
        if self.poll().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let end = std::time::Instant::now() + patience();
            let mark = self.stage.mark();
            while !traces::marked(mark).is_empty() && std::time::Instant::now() < end {
                for pid in traces::marked(mark) {
                    traces::kill(pid, mark);
                }
            }
        }
    }
}
