//! `docs/states.md` is the table, and `docs/swarm-file.md` says what the swarm file's reader does.

use shoal::config::{self, OnGiveUp, Policy, Restart, Strategy, WhenFull};
use std::path::Path;

const STATES: &str = include_str!("../../docs/states.md");
const SWARM_FILE: &str = include_str!("../../docs/swarm-file.md");
const CONFIG: &str = include_str!("../src/config.rs");

fn parse(text: &str) -> Result<config::SwarmFile, String> {
    config::parse(Path::new("swarm.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn states_page_is_the_table_that_the_code_prints() {
    let (_, page) = STATES.split_once("<!-- table -->\n\n").expect("the mark before the table");
    let (agents, sets) = page.split_once("\n## ").expect("the heading before the sets");
    let table = shoal::child::table_markdown();
    assert!(agents == table, "put this behind the mark in docs/states.md:\n{table}");
    let (_, sets) = sets.split_once("<!-- sets -->\n\n").expect("the mark before the sets");
    let table = shoal::strategy::table_markdown();
    assert!(sets == table, "put this behind the mark of the sets in docs/states.md:\n{table}");
}

#[test]
fn example_of_the_swarm_file_page_is_a_swarm_file() {
    let toml = SWARM_FILE.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("one");
    let file = parse(toml).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((file.channels.len(), file.agents.len()), (2, 3));
}

/// The rows of the page's tables: key, default, bounds.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let rows = SWARM_FILE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`'), cells.next()?, cells.next()?))
    });
    rows.collect()
}

#[test]
fn every_key_that_the_reader_lists_stands_on_the_page() {
    let rows = rows();
    let listed = CONFIG.lines().filter_map(|line| line.strip_prefix("//! | `")?.split(" | ").next());
    let mut count = 0;
    for cell in listed {
        // `agent.NAME.subscribes`, `.publishes`
        let mut before = String::new();
        for key in cell.split('`').filter(|part| part.contains('.')) {
            let parent = before.rsplit_once('.').map_or("", |(parent, _)| parent);
            let key = if key.starts_with('.') { format!("{parent}{key}") } else { key.to_owned() };
            assert!(rows.iter().any(|(known, ..)| *known == key), "{key} is not in docs/swarm-file.md");
            before = key;
            count += 1;
        }
    }
    assert!(count >= 14, "{count} keys are listed");
}

#[test]
fn defaults_of_the_page_are_those_of_the_reader() {
    let head = "[swarm]\nname = \"s\"\n";
    let least = format!(
        "{head}[channel.c]\nmessage = \"M\"\n[agent.a]\ncommand = [\"x\"]\npublishes = [\"c\"]\nsubscribes = [\"c\"]\n"
    );
    let file = parse(&least).unwrap_or_else(|error| panic!("{error}"));
    let (agent, channel) = (&file.agents[0], &file.channels[0]);
    let default = |key: &str| rows().iter().find(|(k, ..)| *k == key).expect(key).1.replace(['`', '"'], "");
    assert_eq!(default("swarm.history"), file.history.to_string());
    assert_eq!(default("swarm.dead_letters.count"), file.dead_letters.count.to_string());
    assert_eq!(default("swarm.dead_letters.bytes"), format!("{} MiB", file.dead_letters.bytes >> 20));
    assert_eq!(default("swarm.crashes.count"), file.records.crashes.count.to_string());
    assert_eq!(default("swarm.crashes.bytes"), format!("{} MiB", file.records.crashes.bytes >> 20));
    assert_eq!(default("swarm.log_level"), file.records.log_level.word());
    assert_eq!(default("swarm.log_format"), file.records.log_format.word());
    assert_eq!(default("agent.NAME.max_attempts"), agent.max_attempts.to_string());
    assert_eq!(default("channel.NAME.capacity"), format!("{} KiB", channel.capacity_bytes / 1024));
    assert_eq!(default("channel.NAME.when_full"), channel.when_full.word());
    assert_eq!(default("agent.NAME.replicas"), agent.replicas.to_string());
    assert_eq!(default("agent.NAME.restart"), agent.restart.policy.word());
    assert_eq!(default("agent.NAME.restart.policy"), Policy::default().word());
    assert_eq!(default("agent.NAME.restart.intensity"), agent.restart.intensity.to_string());
    let Restart { period, backoff_min, backoff_max, .. } = *agent.restart;
    assert_eq!(default("agent.NAME.restart.period"), format!("{period:?}"));
    assert_eq!(default("agent.NAME.restart.backoff"), format!("{backoff_min:?}..{backoff_max:?}"));
    assert_eq!(default("agent.NAME.stop_timeout"), format!("{:?}", agent.stop_timeout));
    assert_eq!(default("agent.NAME.ready_timeout"), format!("{:?}", agent.ready_timeout));
    assert_eq!((default("agent.NAME.deadline"), agent.deadline), ("none".into(), None));
    assert_eq!(default("agent.NAME.significant"), agent.significant.to_string());
    assert_eq!((default("agent.NAME.after"), agent.after.len()), ("none".into(), 0));
    assert_eq!(default("agent.NAME.restart.jitter"), format!("{}%", agent.restart.jitter_percent));
    let set = config::Set::restart_default();
    assert_eq!(default("set.NAME.strategy"), Strategy::default().word());
    assert_eq!(default("set.NAME.intensity"), set.intensity.to_string());
    assert_eq!(default("set.NAME.period"), format!("{}m", set.period.as_secs() / 60));
    assert_eq!(default("set.NAME.backoff"), format!("{:?}..{:?}", set.backoff_min, set.backoff_max));
    assert_eq!(default("set.NAME.jitter"), format!("{}%", set.jitter_percent));
    assert_eq!(default("hooks.timeout"), format!("{:?}", file.hooks.timeout));
    assert_eq!(default("hooks.at_once"), file.hooks.at_once.to_string());
    for (row, words) in [
        ("set.NAME.strategy", Strategy::ALL.map(Strategy::word).to_vec()),
        ("set.NAME.on_give_up", OnGiveUp::ALL.map(OnGiveUp::word).to_vec()),
        ("agent.NAME.restart.on_give_up", OnGiveUp::ALL.map(OnGiveUp::word).to_vec()),
    ] {
        let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        assert!(rows().iter().any(|(key, _, bounds)| *key == row && *bounds == words), "{row}: {words}");
    }
    let policies = WhenFull::all().map(|policy| format!("`{}`", policy.word())).join(", ");
    assert!(rows().iter().any(|(key, _, bounds)| *key == "channel.NAME.when_full" && *bounds == policies));
}

#[test]
fn bounds_of_the_page_are_those_of_the_reader() {
    let with = |swarm: &str, channel: &str, agent: &str| {
        parse(&format!(
            "[swarm]\nname = \"s\"\n{swarm}\n[channel.c]\nmessage = \"M\"\n{channel}\n[agent.a]\ncommand = [\"x\"]\n\
             publishes = [\"c\"]\nsubscribes = [\"c\"]\n{agent}\n"
        ))
        .is_ok()
    };
    for (number, good) in [(0, false), (1, true), (64, true), (65, false)] {
        assert_eq!(with(&format!("history = {number}"), "", ""), good, "history {number}");
    }
    for (table, good) in [
        ("count = 0", false),
        ("count = 1", true),
        ("count = 100000", true),
        ("count = 100001", false),
        ("bytes = 65535", false),
        ("bytes = \"64 KiB\"", true),
        ("bytes = \"1024 GiB\"", true),
        ("bytes = \"1025 GiB\"", false),
        ("conut = 5", false),
    ] {
        assert_eq!(with(&format!("dead_letters = {{ {table} }}"), "", ""), good, "dead_letters {table}");
    }
    for (size, good) in [("4095", false), ("4 KiB", true), ("512 MiB", true), ("513 MiB", false)] {
        assert_eq!(with("", &format!("capacity = \"{size}\""), ""), good, "capacity {size}");
    }
    for (key, text, good) in [
        ("replicas", "0", false),
        ("replicas", "1000", true),
        ("replicas", "1001", false),
        ("max_attempts", "0", true),
        ("max_attempts", "100", true),
        ("max_attempts", "101", false),
        ("stop_timeout", "\"0us\"", true),
        ("stop_timeout", "\"24h\"", true),
        ("stop_timeout", "\"25h\"", false),
        ("ready_timeout", "\"999us\"", false),
        ("ready_timeout", "\"1ms\"", true),
        ("deadline", "\"19ms\"", false),
        ("deadline", "\"20ms\"", true),
        ("deadline", "\"24h\"", true),
        ("restart", "{ intensity = 0 }", true),
        ("restart", "{ intensity = 10000 }", true),
        ("restart", "{ intensity = 10001 }", false),
        ("restart", "{ period = \"999us\" }", false),
        ("restart", "{ period = \"24h\" }", true),
        ("restart", "{ jitter = \"0%\" }", true),
        ("restart", "{ jitter = \"100%\" }", true),
        ("restart", "{ jitter = \"101%\" }", false),
        ("restart", "{ jitter = \"20\" }", false),
        ("restart", "{ on_give_up = \"pray\" }", false),
        ("restart", "{ backoff = \"0ms\" }", false),
        ("restart", "{ backoff = \"1us..24h\" }", true),
    ] {
        assert_eq!(with("", "", &format!("{key} = {text}")), good, "{key} = {text}");
    }
    let numbers = [u64::from(config::REPLICAS_MAX), config::TABLES_MAX as u64, config::INSTANCES_MAX];
    assert!(SWARM_FILE.contains("at most 1000\n") && numbers == [1000, 1000, 10_000]);
    assert_eq!(config::FILE_BYTES_MAX, 1 << 20);
}

/// The names in a definition of a source file: those of its lines that begin, inside, with `prefix`.
fn names<'s>(source: &'s str, definition: &str, prefix: &str) -> Vec<&'s str> {
    let (_, rest) = source.split_once(&format!("{definition} {{\n")).expect(definition);
    let (body, _) = rest.split_once("\n}\n").expect("an end");
    let inside = body.lines().filter_map(|line| line.strip_prefix("    ")?.strip_prefix(prefix));
    inside.filter_map(|line| line.split([':', ',']).next()).collect()
}

#[test]
fn every_field_of_a_crash_report_and_every_kind_of_event_stands_on_their_page() {
    const PAGE: &str = include_str!("../../docs/crash-reports.md");
    let fields = names(include_str!("../src/crash.rs"), "pub struct Crash", "pub ");
    assert!(fields.len() > 20, "{fields:?}");
    let missing: Vec<&&str> = fields.iter().filter(|field| !PAGE.contains(&format!("`{field}`"))).collect();
    assert!(missing.is_empty(), "fields that docs/crash-reports.md does not name: {missing:?}");
    let kinds = names(include_str!("../src/events.rs"), "pub enum Kind", "");
    let kinds: Vec<String> =
        kinds.into_iter().filter(|kind| kind.starts_with(char::is_uppercase)).map(kebab).collect();
    assert!(kinds.len() > 15, "{kinds:?}");
    let missing: Vec<&String> = kinds.iter().filter(|kind| !PAGE.contains(&format!("`{kind}`"))).collect();
    assert!(missing.is_empty(), "kinds that docs/crash-reports.md does not name: {missing:?}");
}

/// `SwarmStarted` as `swarm-started`.
fn kebab(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}
