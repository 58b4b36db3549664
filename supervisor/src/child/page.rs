//! The table as a page of the documentation.

use super::{Action, Event, State, next};
use crate::restart::Policy;

/// The whole table as markdown, for `docs/`: one row per event, one column per state. An empty cell changes
/// nothing and does nothing; `by policy` refers to the second table.
pub fn table_markdown() -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = |columns: usize| format!("|{}\n", "---|".repeat(columns));
    let head =
        |first: &str, rest: Vec<&str>| row(std::iter::once(first).chain(rest).map(str::to_owned).collect());
    let mut text = head("event \\ state", State::ALL.map(State::name).to_vec());
    text += &rule(State::ALL.len() + 1);
    for event in Event::ALL {
        let cells = State::ALL.map(|state| {
            let results = Policy::ALL.map(|policy| next(state, event, policy));
            if results.iter().all(|r| *r == results[0]) {
                cell(state, results[0])
            } else {
                "by policy".into()
            }
        });
        text += &row(std::iter::once(event.name().to_owned()).chain(cells).collect());
    }
    text += "\n";
    text += &head("death", Policy::ALL.map(Policy::word).to_vec());
    text += &rule(Policy::ALL.len() + 1);
    for event in Event::ALL.into_iter().filter(|event| matches!(event, Event::Exited { .. })) {
        let cells = Policy::ALL.map(|policy| cell(State::Ready, next(State::Ready, event, policy)));
        text += &row(std::iter::once(event.name().to_owned()).chain(cells).collect());
    }
    text
}

/// One cell: the next state where it differs, and the action where there is one.
fn cell(from: State, (to, action): (State, Action)) -> String {
    match (from == to, action) {
        (true, Action::None) => String::new(),
        (true, action) => action.name().to_owned(),
        (false, Action::None) => format!("→ {}", to.name()),
        (false, action) => format!("→ {}: {}", to.name(), action.name()),
    }
}
