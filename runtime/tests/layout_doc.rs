//! `docs/layout.md` says what `layout.rs`, `frame.rs` and `beacon.rs` say: same names, same numbers, none missing.
#![cfg(not(loom))]

use shoal_runtime::frame;
use shoal_runtime::layout::{self, board, desk, header, input, lane, mark, record, recorder};
use std::collections::BTreeMap;

const DOC: &str = include_str!("../../docs/layout.md");

/// Names and numbers by name.
type Numbers = BTreeMap<String, u64>;

/// Pairs each name with its value: the compiler knows both.
macro_rules! numbers {
    ($($module:ident: $($name:ident)*;)*) => {
        [$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as u64),)*)*]
    };
}

fn in_code() -> Numbers {
    let pairs = numbers! {
        layout: SEGMENT_MAGIC BOARD_MAGIC MAJOR MINOR VERSION LINE_BYTES PAGE_BYTES SEGMENT_UNIT_BYTES CAPACITY_MIN_BYTES
            STATE_BYTES CAPACITY_MAX_BYTES HISTOGRAM_BUCKETS RECORD_SLOTS RECORDER_ENTRIES;
        header: MAGIC VERSION TOTAL_BYTES SWARM AGENT GENERATION LANE_COUNT INPUT_COUNT FINGERPRINT STATE_OFFSET
            STATE_BYTES RECORDER_OFFSET RECORDER_BYTES;
        desk: LIFE CPU FIRST_MESSAGE_NS AWAITS PARKED PROGRESS HELD_SINCE_NS HELD_INPUT HELD_POSITION HELD_SEQUENCE COMMIT
            COUNTERS
            COUNTER_COUNT HISTOGRAM;
        recorder: TAKEN SENT SENT_COUNT ENTRY_BYTES BYTES;
        record: NUMBER GENERATION COUNT CHECKSUM STATE_SLOT ENTRIES ENTRY_BYTES;
        mark: POSITION SLOTS BYTES;
        input: CURSOR RECEIVED MISSED FAULTS INTENTS INTENT_COUNT;
        lane: RING_OFFSET CAPACITY POLICY CHANNEL BASE BASE_SEQUENCE FINGERPRINT WANT TAIL FLOOR DROPPED REJECTED
            BLOCKED BYTES;
        board: MAGIC VERSION TOTAL_BYTES SWARM AGENT_COUNT CHANNEL_COUNT EPOCH CHANNELS GENERATION STATUS REQUEST
            LAST_VERDICT AGENT_BYTES VERDICT_SLOTS VERDICT_GENERATION VERDICT_KIND VERDICT_MARKS;
        frame: EXTENSION_BYTES;
    };
    let mut numbers: Numbers =
        pairs.into_iter().map(|(name, n)| (name.trim_start_matches("layout::").to_owned(), n)).collect();
    // What is private is read from the source; these are plain numbers there.
    for (name, text, _) in constants(include_str!("../src/beacon.rs")) {
        if let (true, Ok(n)) = (name.starts_with("word::"), text.parse()) {
            numbers.insert(name, n);
        }
    }
    for (module, source) in
        [("frame", include_str!("../src/frame.rs")), ("state", include_str!("../src/state.rs"))]
    {
        for (name, text, _) in constants(source) {
            if let ("POSITION" | "FACTS" | "LENGTH" | "FINGERPRINT" | "VALUE", Ok(n)) =
                (name.as_str(), text.parse())
            {
                numbers.insert(format!("{module}::{name}"), n);
            }
        }
    }
    numbers
}

/// The constants of a source file with their modules, their values as written, and whether others see them.
fn constants(source: &str) -> Vec<(String, String, bool)> {
    let (mut module, mut found) = (String::new(), Vec::new());
    for line in source.lines().take_while(|line| *line != "#[cfg(test)]") {
        if let Some(name) = line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")) {
            module = name.strip_suffix(" {").map(|name| format!("{name}::")).unwrap_or_default();
        } else if line == "}" {
            module.clear();
        }
        let line = line.trim_start();
        let private = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(rest) = private.strip_prefix("const ")
            && let Some((name, value)) = rest.split_once(": ")
            && let Some((_, value)) = value.split_once(" = ")
        {
            let value = value.trim_end_matches(';').to_owned();
            found.push((format!("{module}{name}"), value, line.starts_with("pub")));
        }
    }
    found
}

/// The rows of the document's tables that begin with a number and a name.
fn in_doc() -> Numbers {
    let mut numbers = Numbers::new();
    for row in DOC.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[2].strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        let quoted = cells[1].strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let number = match quoted {
            Some(text) => text.as_bytes().try_into().ok().map(u64::from_le_bytes),
            None => cells[1].parse().ok(),
        };
        if let (Some(name), Some(number)) = (name, number) {
            let before = numbers.insert(name.to_owned(), number);
            assert_eq!(before, None, "{name} stands twice in docs/layout.md");
        }
    }
    numbers
}

#[test]
fn every_number_of_the_document_is_that_of_the_code_and_none_is_missing() {
    let (doc, code) = (in_doc(), in_code());
    for (name, number) in &code {
        assert_eq!(doc.get(name), Some(number), "{name} in docs/layout.md; the code says {number}");
    }
    let unknown: Vec<_> = doc.keys().filter(|name| !code.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "docs/layout.md names what the code does not: {unknown:?}");
}

#[test]
fn this_test_knows_every_constant_of_the_layout() {
    let known = in_code();
    let missing: Vec<_> = constants(include_str!("../src/layout.rs"))
        .into_iter()
        .filter(|(name, _, public)| *public && !known.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "add to this test and to docs/layout.md: {missing:?}");
}

#[test]
fn records_begin_where_the_document_draws_them() {
    let begin = layout::SegmentShape::default().records_offset();
    assert!(DOC.contains(&format!("\n{begin}     records")), "the records begin at {begin}");
}

#[test]
fn counters_stand_in_the_document_in_their_order() {
    use shoal_runtime::desk::Counter;
    let row = DOC.lines().find(|line| line.contains("`desk::COUNTERS`")).expect("a row");
    let words = row.split('|').nth(5).expect("a cell").split([',', ';']).map(str::trim);
    assert_eq!(words.clone().position(|word| word == "peer faults"), Some(Counter::PeerFaults as usize));
    assert_eq!(words.clone().position(|word| word == "blocked"), Some(Counter::Blocked as usize));
}
