//! What operators are told of what happened: crash reports, events as they come; and what is noted of their orders.

use super::Operator;
use crate::control::{ClientId, Request, Response, is_meant};
use crate::events::Kind;
use crate::log::Level;
use crate::swarm::Swarm;

/// Who follows the events: he asks for the next ones, and is told the last ones even if he is just about to ask.
pub(super) struct Follower {
    client: ClientId,
    from: u64,
    asks: bool,
}

impl Operator {
    /// Answers with the crash reports in memory.
    pub(super) fn crashes(swarm: &Swarm, name: Option<&str>) -> Response {
        let crashes = swarm.crashes().filter(|crash| name.is_none_or(|name| is_meant(name, &crash.agent)));
        Response::Crashes { crashes: crashes.cloned().collect() }
    }

    /// Answers with the events from a number on; if there is none and it is wanted so, when there is one.
    pub(super) fn events(&mut self, client: ClientId, from: u64, wait: bool, swarm: &Swarm) {
        let (events, next) = swarm.events_from(from);
        let asks = wait && events.is_empty() && from <= next;
        self.followers
            .retain(|follower| follower.client != client && self.control.peer(follower.client).is_some());
        if wait {
            self.followers.push(Follower { client, from: if asks { from } else { next }, asks });
        }
        if !asks {
            self.control.reply(client, &Response::Events { events, next });
        }
    }

    /// Answers who waited for what has happened.
    pub(super) fn tell_followers(&mut self, swarm: &mut Swarm) {
        if swarm.is_over() {
            swarm.over();
        }
        swarm.write_out();
        let over = swarm.is_over();
        for follower in &mut self.followers {
            if follower.from < swarm.next_event() && (follower.asks || over) {
                let (events, next) = swarm.events_from(follower.from);
                self.control.reply(follower.client, &Response::Events { events, next });
                (follower.from, follower.asks) = (next, false);
            }
        }
    }

    /// Notes who ordered what, for the events and for the reports of deaths that come of it.
    pub(super) fn note_order(&self, client: ClientId, request: &Request, swarm: &mut Swarm) {
        let Some(order) = words(request) else { return };
        let whom = self.control.peer(client).map_or("an operator".to_owned(), |(user, process)| {
            format!("an operator (user {user}, process {process})")
        });
        let text = format!("{whom}: shoal {order}");
        swarm.tell(Level::Debug, Kind::Order, None, &text);
        // The others end nothing, or not by themselves.
        let (Request::Stop { name } | Request::Restart { name, .. } | Request::Kill { name, .. }) = request
        else {
            return;
        };
        for agent in super::meant(swarm, name).unwrap_or_default() {
            swarm.blame(agent, &text);
        }
    }
}

/// What somebody orders, as on the command line; `None` of who only asks.
fn words(request: &Request) -> Option<String> {
    Some(match request {
        Request::Stop { name } => format!("stop {name}"),
        Request::Start { name, .. } => format!("start {name}"),
        Request::Restart { name, .. } => format!("restart {name}"),
        Request::Kill { name, signal: None } => format!("kill {name}"),
        Request::Kill { name, signal: Some(number) } => format!("kill {name} --signal {number}"),
        Request::Pause { name } => format!("pause {name}"),
        Request::Resume { name } => format!("resume {name}"),
        Request::Shutdown | Request::Down => "down".to_owned(),
        Request::Reload { dry_run: false, file, on_gone, .. } => {
            let file = file.as_ref().map(|file| format!(" {}", file.display()));
            let word = on_gone.map(|word| format!(" --on-gone {}", word.word()));
            format!("reload{}{}", file.unwrap_or_default(), word.unwrap_or_default())
        }
        Request::Scale { dry_run: false, name, replicas, .. } => format!("scale {name} {replicas}"),
        Request::Upgrade { name, command: None, .. } => format!("upgrade {name}"),
        Request::Upgrade { name, command: Some(command), .. } => {
            format!("upgrade {name} --command {}", command.join(" "))
        }
        Request::Replay { ids: None } => "dlq replay --all".to_owned(),
        Request::Replay { ids: Some(ids) } => {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            format!("dlq replay {}", ids.join(" "))
        }
        Request::Ps
        | Request::Status
        | Request::Info
        | Request::Wait { .. }
        | Request::Crashes { .. }
        | Request::Events { .. }
        | Request::Reload { .. }
        | Request::Scale { .. } => return None,
    })
}
