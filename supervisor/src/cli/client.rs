//! The asking side of the control socket: which swarm, who is meant, what to say when it cannot be asked.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Failure, NOT_RUNNING, Order, json, own_place, print};
use crate::control::status::StatusReport;
use crate::control::{
    ALL, ANSWER_BYTES_MAX, PsReport, Request, Response, SwarmInfo, address_of, agent_of, is_meant, nearest,
};
use crate::run_dir::{Place, Running, list_running_in};

/// How long a supervisor may take for an answer that needs no agent: longer means it is stopped or stuck.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a question is asked at most: one that kills whoever is asked must not end the swarm.
const ASKED_MAX: u32 = 4;
/// How often it is connected for that in a row: each time that nobody answers a supervisor has died, or the swarm is just ending.
const CONNECTED_MAX: u32 = 16;

/// A connection to a running supervisor.
pub(super) struct Client {
    swarm: Running,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the swarm of this name, or to the only one that is running.
    pub(super) fn connect(swarm: Option<&str>) -> Result<Client, Failure> {
        Client::connect_in(&own_place()?, swarm)
    }

    pub(super) fn connect_in(place: &Place, swarm: Option<&str>) -> Result<Client, Failure> {
        let running = list_running_in(place).map_err(|error| Failure::failed(error.to_string()))?;
        Client::to(choose(place, running, swarm)?)
    }

    pub(super) fn status(&mut self) -> Result<StatusReport, Failure> {
        match self.ask(&Request::Status, Some(ANSWER_MAX))? {
            Response::Status(report) => Ok(*report),
            other => Err(self.unexpected(&other)),
        }
    }

    fn to(swarm: Running) -> Result<Client, Failure> {
        let stream = address_of(&swarm.socket)
            .and_then(|(address, _folder)| UnixStream::connect(address))
            .map_err(|error| cannot_connect(&swarm, &error))?;
        Ok(Client { stream: BufReader::new(stream), swarm })
    }

    /// Connects once more to the same swarm, if it is still running: if somebody answers there. A socket outlives its supervisor,
    /// for the next one, and at the end of the swarm for a moment; who dies over this question may have a successor, too.
    pub(super) fn again(&self) -> Option<Client> {
        for _ in 0..CONNECTED_MAX {
            let mut client = Client::to(self.swarm.clone()).ok()?;
            let answered = client.tell(&Request::Info).and_then(|()| client.await_answer(Some(ANSWER_MAX)));
            if let Ok(answer) = answered {
                return matches!(answer, Some(Response::Info(_))).then_some(client);
            }
        }
        None
    }

    /// The socket itself: readable at the end of the supervisor.
    pub(super) fn socket(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    pub(super) fn ps(&mut self) -> Result<PsReport, Failure> {
        match self.ask(&Request::Ps, Some(ANSWER_MAX))? {
            Response::Ps(report) => Ok(report),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sees that somebody listens, whatever the answer is.
    pub(super) fn be_heard(&mut self) -> Result<(), Failure> {
        self.ask(&Request::Info, Some(ANSWER_MAX)).map(drop)
    }

    pub(super) fn swarm_info(&mut self) -> Result<SwarmInfo, Failure> {
        match self.ask(&Request::Info, Some(ANSWER_MAX))? {
            Response::Info(info) => Ok(info),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Asks and waits for the answer, as long as it takes if there is no limit, once it is seen that somebody listens.
    pub(super) fn ask(&mut self, request: &Request, max: Option<Duration>) -> Result<Response, Failure> {
        if max.is_none() {
            self.be_heard()?;
        }
        self.ask_within(request, max)?.ok_or_else(|| {
            let Running { name, pid, .. } = &self.swarm;
            let pid = pid.map_or(String::new(), |pid| format!(", below process {pid},"));
            Failure::failed(format!("the supervisor of `{name}`{pid} does not answer: is it stopped?"))
        })
    }

    /// As `ask`; `None` when there is no answer in time. Then `await_answer` goes on.
    pub(super) fn ask_within(
        &mut self,
        request: &Request,
        max: Option<Duration>,
    ) -> Result<Option<Response>, Failure> {
        let mut asked = 1;
        loop {
            match self.tell(request).and_then(|()| self.await_answer(max)) {
                // A supervisor that died may have a successor, at the same socket. What may be done twice is asked again.
                Err(error) if may_be_asked_again(request) && asked < ASKED_MAX => {
                    let Some(again) = self.again() else { return Err(error) };
                    *self = again;
                    asked += 1;
                }
                answered => return answered,
            }
        }
    }

    /// Asks; `await_answer` waits for the answer.
    pub(super) fn tell(&mut self, request: &Request) -> Result<(), Failure> {
        let untold = |error| {
            Failure::bad_input(format!("this cannot be asked of swarm `{}`: {error}", self.swarm.name))
        };
        let mut line = serde_json::to_vec(request).map_err(untold)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|_| self.ended())
    }

    /// Waits for the answer to what was asked.
    pub(super) fn await_answer(&mut self, max: Option<Duration>) -> Result<Option<Response>, Failure> {
        let name = &self.swarm.name;
        let mut answer = Vec::new();
        let got = self
            .socket()
            .set_read_timeout(max.map(|max| max.max(Duration::from_millis(1))))
            .and_then(|()| (&mut self.stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer));
        match got {
            Ok(_) if answer.last() == Some(&b'\n') => match serde_json::from_slice(&answer) {
                Ok(response) => Ok(Some(response)),
                Err(error) => Err(Failure::failed(format!(
                    "the supervisor of `{name}` speaks another version: {error}"
                ))),
            },
            Err(error) if is_time_out(&error) => Ok(None),
            Ok(_) | Err(_) => Err(self.ended()),
        }
    }

    /// Waits until the supervisor is gone; false when it is not in time.
    pub(super) fn until_gone(&mut self, max: Option<Duration>) -> Result<bool, Failure> {
        let end = max.map(|max| Instant::now() + max);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            match self.socket().set_read_timeout(left.map(|left| left.max(Duration::from_millis(1)))) {
                Ok(()) => {}
                Err(error) => return Err(Failure::failed(format!("waiting for the supervisor: {error}"))),
            }
            match self.stream.read(&mut [0; 64]) {
                Err(error) if is_time_out(&error) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(1..) => {}
                // A supervisor with too many clients cuts off who idles; that is not its end.
                Ok(0) | Err(_) => match self.again() {
                    Some(again) => *self = again,
                    None => return Ok(true),
                },
            }
        }
    }

    fn ended(&self) -> Failure {
        let ended = || format!("the supervisor of `{}` ended before it answered", self.swarm.name);
        Failure::failed(elsewhere(&self.swarm, self.socket()).unwrap_or_else(ended))
    }

    pub(super) fn unexpected(&self, response: &Response) -> Failure {
        match response {
            Response::Error { text } => Failure::failed(text.clone()),
            Response::BadInput { text } => Failure::bad_input(text.clone()),
            _ => {
                Failure::failed(format!("the supervisor of `{}` answered another question", self.swarm.name))
            }
        }
    }
}

/// What to do where the process that listens has another number than it says of itself: its supervisor does not hear who asks from here.
fn elsewhere(swarm: &Running, socket: &UnixStream) -> Option<String> {
    let there = swarm.pid?;
    let here = getsockopt(socket, PeerCredentials).ok()?.pid();
    if i64::from(here) == i64::from(there) {
        return None;
    }
    // 0: it is not seen from here at all.
    let here = if here == 0 { "PID".to_owned() } else { here.to_string() };
    Some(format!(
        "the swarm `{}` is in another namespace of process numbers (its process {here} is {there} there), and hears only who is in it: ask \
         from inside, as {}",
        swarm.name,
        from_inside(&here)
    ))
}

/// Whether it comes to the same if a question is asked twice.
fn may_be_asked_again(request: &Request) -> bool {
    matches!(
        request,
        Request::Ps
            | Request::Info
            | Request::Status
            | Request::Wait { .. }
            | Request::Stop { .. }
            | Request::Start { .. }
            | Request::Pause { .. }
            | Request::Resume { .. }
            | Request::Crashes { .. }
            | Request::Events { .. }
            | Request::Reload { dry_run: true, .. }
            | Request::Scale { dry_run: true, .. }
            // It only waits for the end that is under way.
            | Request::Down
    )
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn cannot_connect(swarm: &Running, error: &io::Error) -> Failure {
    let name = &swarm.name;
    Failure::failed(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("the supervisor of `{name}` is just starting or ending: try again")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{} may be opened by the swarm's owner only: {error}", swarm.socket.display())
        }
        _ => format!("connecting to {}: {error}", swarm.socket.display()),
    })
}

/// A command that is given from inside of the namespaces of a process.
fn from_inside(pid: &str) -> String {
    format!("`nsenter --user --pid --mount --preserve-credentials --target {pid} shoal ps`")
}

/// Where it was looked for swarms, and where others could be, of which nothing is seen there.
pub(super) fn looked_in(place: &Place) -> String {
    format!(
        "looked in {}; one that was started with another XDG_RUNTIME_DIR, or with a /tmp of its own as in a container, is asked with the same, or \
         from inside, as {}",
        place.path().display(),
        from_inside("PID")
    )
}

/// The swarm that is meant, of those that run in a place.
pub(super) fn choose(place: &Place, running: Vec<Running>, wanted: Option<&str>) -> Result<Running, Failure> {
    let names: Vec<&str> = running.iter().map(|swarm| swarm.name.as_str()).collect();
    let list = names.join(", ");
    let text = match wanted {
        Some(wanted) => match running.iter().find(|swarm| swarm.name == wanted) {
            Some(found) => return Ok(found.clone()),
            None if names.is_empty() => {
                format!("no swarm `{wanted}` is running, nor any other ({})", looked_in(place))
            }
            None => {
                let hint =
                    nearest(wanted, &names).map_or(String::new(), |near| format!("did you mean `{near}`? "));
                format!("no swarm `{wanted}` is running; {hint}running: {list}")
            }
        },
        None => match running.as_slice() {
            [only] => return Ok(only.clone()),
            [] => {
                let text =
                    format!("no swarm is running: start one with `shoal run FILE` ({})", looked_in(place));
                return Err(Failure::failed(text));
            }
            _ => format!("several swarms are running, name one with `--swarm NAME`: {list}"),
        },
    };
    Err(Failure::bad_input(text))
}

/// A running swarm that was found, for commands that say with a status of its own that there is none.
pub(super) struct Target {
    swarm: Running,
}

impl Target {
    /// The swarm of this name, or the only one that is running.
    ///
    /// # Errors
    /// With the status [`NOT_RUNNING`]: there is none.
    pub(super) fn find(swarm: Option<&str>) -> Result<Target, Failure> {
        let place = own_place()?;
        let running = list_running_in(&place).map_err(|error| Failure::failed(error.to_string()))?;
        let none = match swarm {
            Some(wanted) => !running.iter().any(|found| found.name == wanted),
            None => running.is_empty(),
        };
        match choose(&place, running, swarm) {
            Ok(swarm) => Ok(Target { swarm }),
            Err(failure) if none => Err(Failure { status: NOT_RUNNING, ..failure }),
            Err(failure) => Err(failure),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.swarm.name
    }

    /// The process that holds its name.
    pub(super) fn pid(&self) -> Option<u32> {
        self.swarm.pid
    }

    /// Connects to its supervisor.
    pub(super) fn connect(&self) -> Result<Client, Failure> {
        Client::to(self.swarm.clone())
    }
}

/// `stop`, `start`, `restart`, `kill`: asks, waits as long as it takes, prints what was done.
pub(super) fn order(
    swarm: Option<&str>,
    order: &Order,
    request: impl FnOnce(String) -> Request,
) -> Result<(), Failure> {
    let mut client = Client::connect(swarm)?;
    let (text, agents) = match client.ask(&request(order.name.clone()), None)? {
        Response::Done { text } => (text, Vec::new()),
        Response::Ordered { text, agents } => (text, agents),
        refused => {
            // Only now: how the agents are is a dear question to ask for a mistyped name.
            if order.name != ALL {
                check_name(&order.name, &client.ps()?)?;
            }
            return Err(client.unexpected(&refused));
        }
    };
    let line = match order.json {
        true => json(&serde_json::json!({ "swarm": client.swarm.name, "done": text, "agents": agents }))?,
        false => format!("{text}\n"),
    };
    print(line.as_bytes()).map(|_| ())
}

/// The instances that a name means.
///
/// # Errors
/// If it means none: which ones there are, and which one is probably meant.
pub(super) fn check_name<'r>(name: &str, report: &'r PsReport) -> Result<Vec<&'r str>, Failure> {
    let instances: Vec<&str> = report.agents.iter().map(|agent| agent.name.as_str()).collect();
    let meant: Vec<&str> = instances.iter().copied().filter(|instance| is_meant(name, instance)).collect();
    if !meant.is_empty() {
        return Ok(meant);
    }
    if let Some(agent) = report.scaled_to_nothing.iter().find(|agent| **agent == agent_of(name)) {
        return Err(Failure::bad_input(format!(
            "`{agent}` of swarm `{}` is scaled to 0: `shoal scale {agent} 1` starts it",
            report.swarm
        )));
    }
    let mut agents: Vec<&str> = instances.iter().map(|instance| agent_of(instance)).collect();
    agents.dedup();
    let known: Vec<&str> = agents.iter().chain(&instances).copied().collect();
    let hint = nearest(name, &known).map_or(String::new(), |near| format!("did you mean `{near}`? "));
    let list = agents.join(", ");
    let shown: String = name.escape_debug().collect();
    Err(Failure::bad_input(format!(
        "the swarm `{}` has no agent `{shown}`; {hint}agents: {list}",
        report.swarm
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Serves as so many supervisors that die of a question, each with so many successors that die before they answer anything, and others
    /// that answer it, until one is told to shut down; how often it was asked.
    fn serve(control: &UnixListener, deaths: u32, short_lives: u32) -> u32 {
        let (mut asked, mut lived) = (0, 0);
        loop {
            let mut client = BufReader::new(control.accept().unwrap().0);
            let mut line = String::new();
            while client.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let response = match serde_json::from_str(&std::mem::take(&mut line)).unwrap() {
                    Request::Shutdown => return asked,
                    Request::Info if lived < short_lives => {
                        lived += 1;
                        break;
                    }
                    Request::Info => Response::Info(SwarmInfo {
                        swarm: "s".into(),
                        pid: 1,
                        supervisor: 1,
                        watching_ns: 0,
                        last_verdict_ns: 0,
                        logs: "/".into(),
                        file: "/".into(),
                    }),
                    _ => {
                        asked += 1;
                        Response::Done { text: "done".into() }
                    }
                };
                if asked > 0 && asked <= deaths && matches!(response, Response::Done { .. }) {
                    lived = 0;
                    break;
                }
                let answer = [serde_json::to_vec(&response).unwrap(), b"\n".to_vec()].concat();
                client.get_mut().write_all(&answer).unwrap();
            }
        }
    }

    /// Whether it was answered, and how often it was asked.
    fn asked(request: &Request, deaths: u32, short_lives: u32) -> (bool, u32) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let control = UnixListener::bind(&socket).unwrap();
        let served = std::thread::spawn(move || serve(&control, deaths, short_lives));
        let client = || Client::to(Running { name: "s".into(), pid: None, socket: socket.clone() }).unwrap();
        let answered = client().ask_within(request, None).is_ok();
        client().tell(&Request::Shutdown).unwrap();
        (answered, served.join().unwrap())
    }

    #[test]
    fn what_may_be_asked_twice_is_asked_of_the_next_supervisor_and_the_rest_is_not() {
        let name = || "a".to_owned();
        let timeout_ms = 1;
        let twice = [
            Request::Ps,
            Request::Status,
            Request::Wait { name: None, ended: true },
            Request::Stop { name: name() },
            Request::Start { name: name(), timeout_ms: None },
            Request::Pause { name: name() },
            Request::Resume { name: name() },
            Request::Down,
            Request::Crashes { name: None },
            Request::Events { from: 0, wait: false },
            Request::Reload { file: None, on_gone: None, dry_run: true, timeout_ms },
            Request::Scale { name: name(), replicas: 2, dry_run: true, timeout_ms },
        ];
        for request in &twice {
            assert_eq!(asked(request, 1, 0), (true, 2), "{request:?}");
        }
        let once = [
            Request::Kill { name: name(), signal: None },
            Request::Restart { name: name(), timeout_ms: None },
            Request::Replay { ids: None },
            Request::Reload { file: None, on_gone: None, dry_run: false, timeout_ms },
            Request::Scale { name: name(), replicas: 2, dry_run: false, timeout_ms },
            Request::Upgrade {
                name: name(),
                command: None,
                prove_ms: 1,
                prove_messages: None,
                timeout_ms: None,
            },
        ];
        for request in &once {
            assert_eq!(asked(request, 1, 0), (false, 1), "{request:?}");
        }
    }

    #[test]
    fn question_that_kills_whoever_is_asked_is_not_asked_for_ever() {
        assert_eq!(asked(&Request::Ps, ASKED_MAX - 1, 0), (true, ASKED_MAX));
        assert_eq!(asked(&Request::Ps, 1000, 0), (false, ASKED_MAX));
    }

    #[test]
    fn who_is_not_heard_is_told_of_the_end_or_of_the_namespace_that_the_swarm_is_in() {
        let own = std::process::id();
        let told = |pid: u32| {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("control");
            let control = UnixListener::bind(&socket).unwrap();
            let mut client = Client::to(Running { name: "s".into(), pid: Some(pid), socket }).unwrap();
            drop(control);
            client.ask(&Request::Ps, None).unwrap_err().to_string()
        };
        assert_eq!(told(own), "the supervisor of `s` ended before it answered");
        let elsewhere = told(own + 1);
        for said in [format!("its process {own} is {} there", own + 1), format!("--target {own} ")] {
            assert!(elsewhere.contains(&said), "{said:?} is not in {elsewhere:?}");
        }
    }

    #[test]
    fn successors_that_die_before_they_answer_are_no_end_of_the_swarm() {
        assert_eq!(asked(&Request::Down, 2, 3), (true, 3));
        assert_eq!(asked(&Request::Down, 1, 1000), (false, 1));
    }
}
