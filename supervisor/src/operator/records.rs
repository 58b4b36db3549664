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
        let (verb, name) = match request {
            Request::Stop { name } => ("stop", name.as_str()),
            Request::Start { name } => ("start", name.as_str()),
            Request::Restart { name } => ("restart", name.as_str()),
            Request::Kill { name, .. } => ("kill", name.as_str()),
            Request::Pause { name } => ("pause", name.as_str()),
            Request::Resume { name } => ("resume", name.as_str()),
            Request::Shutdown | Request::Down => ("down", ""),
            _ => return,
        };
        let whom = self.control.peer(client).map_or("an operator".to_owned(), |(user, process)| {
            format!("an operator (user {user}, process {process})")
        });
        let signal = match request {
            Request::Kill { signal: Some(number), .. } => format!(" --signal {number}"),
            _ => String::new(),
        };
        let text = format!("{whom}: shoal {verb} {name}{signal}");
        let text = text.trim_end();
        swarm.tell(Level::Debug, Kind::Order, None, text);
        // The others end nothing.
        if !["stop", "restart", "kill"].contains(&verb) {
            return;
        }
        for agent in super::meant(swarm, name).unwrap_or_default() {
            swarm.blame(agent, text);
        }
    }
}
