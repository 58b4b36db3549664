//! Goal: what one agent does to its own memory, its socket or its descriptors changes nothing that others read, and the swarm
//! goes on. Method: real processes under the real supervisor, one of them bad; the others count every number.

use crate::layers::user;
use shoal::output::{FILE_BYTES_MAX, FILES_MAX, LINE_BYTES_MAX};
use shoal_tests::attack::{SEAL_FOR_EVER, WAYS, WRITES};
use shoal_tests::attacked::{Play, Told, run_among};
use std::time::Duration;

const COUNT: u64 = 20_000;

/// Hostile, but it may read /proc and leave notes: else many an attack would end at its first look around.
pub const HOSTILE: &str =
    "trust = \"hostile\"\nenv_allow = [\"NOTES\"]\nlandlock = { read = [\"/proc\"], write = [\"notes\"] }";

fn play(role: &str, when_full: &str) -> Told {
    play_with(role, when_full, "")
}

/// The same, with further lines in the bad agent's table.
pub fn play_with(role: &str, when_full: &str, lines: &str) -> Told {
    play_among(role, when_full, lines, "")
}

/// The same, with further lines in the good agents' tables, too.
pub fn play_among(role: &str, when_full: &str, lines: &str, good: &str) -> Told {
    let (shoal, agents) = (env!("CARGO_BIN_EXE_shoal-under-test"), env!("CARGO_BIN_EXE_bad-agent"));
    run_among(&Play { shoal, agents, role, count: COUNT, when_full, lines }, good, Duration::from_secs(60))
}

/// The attempts that the bad agent told: what, and what came of it.
pub fn attempts(told: &Told) -> Vec<(&str, &str)> {
    let lines = told.stdout.lines().filter_map(|line| line.split_once("tried ").map(|(_, rest)| rest));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

pub fn assert_ear_is_exact(told: &Told) {
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
}

pub fn assert_sink_is_exact(told: &Told) {
    let exact = format!("sink saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
    assert_eq!(told.status, Some(0), "{}", told.all());
}

pub fn assert_nobody_else_died(told: &Told) {
    let others = ["source", "sink", "ear"].map(|name| format!("agent {name} (generation"));
    assert!(!others.iter().any(|text| told.stderr.contains(text)), "{}", told.all());
}

#[test]
fn no_descriptor_of_the_same_user_changes_a_ready_peers_segment() {
    let told = play("attacker", "block");
    assert_sink_is_exact(&told);
    assert!(!told.stdout.contains("BROKEN"), "{}", told.all());
    let line = told
        .stdout
        .lines()
        .find(|l| l.contains("attacker tried"))
        .unwrap_or_else(|| panic!("{}", told.all()));
    let tried: u32 = line.split_whitespace().find_map(|w| w.parse().ok()).expect("a number");
    assert!(tried >= 20, "{line}");
    // Whom the swarm trusts can do that, and the deaths of all are proved nevertheless.
    assert!(told.stdout.contains("sealed for ever: 3 of 3"), "{}", told.all());
}

#[test]
fn agent_that_scribbles_over_its_own_segment_and_dies_disturbs_nobody_and_comes_back() {
    let told = play("scribble", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("wrote over its own memory"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert!(told.stdout.contains("ear saw"), "{}", told.all());
}

// Whose memory it is they know from the supervisor, and not from its words.
#[test]
fn agent_that_says_it_is_another_of_another_build_keeps_nobody_from_mapping_it() {
    let told = play("impostor", "block");
    assert_sink_is_exact(&told);
    assert_eq!(told.stderr.matches("agent ear (generation").count(), 1, "{}", told.all());
    // Its next life begins in the middle.
    assert!(told.stdout.contains(&format!("ear saw {COUNT} of {COUNT}, 1 odd")), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 1"), "{}", told.all());
}

#[test]
fn agent_that_scribbles_over_its_memory_while_it_is_introduced_hurts_nobody_else() {
    let told = play("scribble-early", "block");
    assert_sink_is_exact(&told);
    assert_nobody_else_died(&told);
    assert!(told.stdout.contains("bad ends in generation 11"), "{}", told.all());
}

#[test]
fn agent_that_says_its_cursor_is_ahead_is_restarted() {
    let told = play("lie-ahead", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("contradicts itself and is killed"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert_removed(&told);
}

// Its record still names the true cursor, so its words do not convict it: the accusation is told, its producer does not believe
// it, and nobody is hurt.
#[test]
fn agent_whose_cursor_goes_back_is_accused_and_not_believed() {
    let told = play("lie-back", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("accuses bad"), "{}", told.all());
    assert_eq!(told.stderr.matches("accuses").count(), 1, "once, however often it looks: {}", told.all());
    assert!(!told.stderr.contains("is killed"), "{}", told.all());
}

#[test]
fn agent_that_floods_its_socket_with_garbage_is_killed_and_comes_back() {
    let told = play("garbage", "block");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("agent bad is killed"), "{}", told.all());
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
    assert_removed(&told);
}

#[test]
fn agent_that_chatters_without_end_does_not_keep_the_supervisor_from_the_others() {
    let told = play("chatter", "block");
    assert_sink_is_exact(&told);
    let exact = format!("ear saw {COUNT} of {COUNT}, 0 odd");
    assert!(told.stdout.contains(&exact), "{}", told.all());
}

/// What the supervisor said of removals, for who runs this with `--nocapture`: the figures are this machine's, and no judgement.
fn assert_removed(told: &Told) {
    let removals: Vec<_> = told.stderr.lines().filter(|line| line.contains("was removed")).collect();
    assert!(!removals.is_empty(), "{}", told.all());
    assert!(removals.iter().all(|line| line.ends_with("ms after its first seen violation")), "{removals:?}");
    println!("{}", removals.join("\n"));
}

/// Ways by which one process reaches into another; all that `reach` tries.
pub const REACHES: usize = WAYS.len();

// The ways are real: whom the swarm trusts, and the kernel lets, gets in by them.
#[test]
fn trusted_agent_of_the_same_user_reaches_into_its_peers_and_uses_it_for_nothing() {
    let told = play("reach", "block");
    assert_sink_is_exact(&told);
    let attempts = attempts(&told);
    assert_eq!(attempts.len(), REACHES, "{}", told.all());
    let open = attempts.iter().filter(|(_, came)| *came == "succeeded").count();
    assert!(open >= 8, "{attempts:?}");
}

#[test]
fn isolated_agent_of_the_same_user_reaches_into_no_other_process() {
    let told = play_with("reach", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    let attempts = attempts(&told);
    assert_eq!(attempts.len(), REACHES, "{}", told.all());
    // Said at the start by kernels whose landlock is older than version 6.
    let may_signal = told.stderr.contains("this kernel cannot restrict signals");
    let is_signal = |how: &str| may_signal && how.starts_with("kill");
    assert!(attempts.iter().all(|(how, came)| *came != "succeeded" || is_signal(how)), "{attempts:?}");
}

#[test]
fn isolated_agent_changes_no_segment_by_any_descriptor() {
    let told = play_with("attacker", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert!(!told.stdout.contains("BROKEN"), "{}", told.all());
    assert!(told.stdout.contains("attacker tried"), "{}", told.all());
    assert!(told.stdout.contains("sealed for ever: 0 of 3"), "{}", told.all());
}

// Every life tries one thing more. The filter ends it there, inside the call, or landlock refuses it; the supervisor starts it again, and nobody
// else notices.
#[test]
fn hostile_agent_is_ended_by_the_first_call_that_it_does_not_need() {
    let blind = "trust = \"hostile\"\nenv_allow = [\"NOTES\"]\nlandlock = { read = [\"notes\"] }";
    // Who may not list processes finds nobody to signal.
    for (lines, finds_others) in [(blind, false), (HOSTILE, true)] {
        let told = play_with("reach-one", "block", lines);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        let attempts = attempts(&told);
        assert!(attempts.iter().all(|(_, came)| *came != "succeeded"), "{attempts:?}");
        assert_eq!(ended_inside(WAYS.iter().map(|(name, _)| *name), &attempts), {
            let calls = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kill"];
            let bounds = ["prlimit", "setpriority", "sched_setaffinity"];
            [&calls[..], if finds_others { &["kill of anybody"] } else { &[] }, &bounds].concat()
        });
        let ended = told.stderr.matches("was killed by SIGSYS").count();
        assert_eq!(ended, REACHES, "who came through was ended as it would end itself: {}", told.all());
        assert!(told.stdout.contains(&format!("bad ends in generation {}", REACHES + 1)), "{}", told.all());
    }
}

/// The attempts of which no answer came.
fn ended_inside(all: impl Iterator<Item = &'static str>, attempts: &[(&str, &str)]) -> Vec<&'static str> {
    let came_back = |name: &str| attempts.iter().any(|(tried, _)| *tried == name);
    all.filter(|name| !came_back(name)).collect()
}

// The same for each way to write to a peer's memory through what was handed over, and for the seal that would make its own death unprovable: the
// filter ends whoever needs a call that no agent does, and the seals refuse the others. The bytes are looked at by those who count.
#[test]
fn hostile_agent_changes_no_peers_memory_by_any_call_and_is_ended_by_those_that_it_does_not_need() {
    let told = play_with("write-one", "block", HOSTILE);
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert_nobody_else_died(&told);
    let tries = told.stdout.lines().filter(|line| line.contains("tries ")).count();
    assert_eq!(tries, WRITES.len() + 1, "{}", told.all());
    let attempts = attempts(&told);
    assert!(attempts.iter().all(|(_, came)| *came != "succeeded"), "{attempts:?}");
    // A map that grew would be read by a child, which is not made either.
    let due = [
        "mremap beyond the file",
        "ftruncate, longer",
        "ftruncate, shorter",
        "punching a hole",
        "zeroing a range",
        "allocating beyond",
        SEAL_FOR_EVER.0,
    ];
    let all = [&WRITES[..], &[SEAL_FOR_EVER]].concat();
    assert_eq!(ended_inside(all.iter().map(|(name, _)| *name), &attempts), due);
    assert_eq!(told.stderr.matches("was killed by SIGSYS").count(), tries, "{}", told.all());
    let last = format!("bad ends in generation {}", tries + 1);
    assert!(told.stdout.contains(&last), "{}", told.all());
}

/// Goal: what a producer that is not trusted writes into a message that was leased reaches nobody. Method: its reader looks at a message, and
/// once more when it was written anew; of one that is trusted it sees the other value, so that the attempt is a real one.
#[test]
fn message_that_is_written_anew_while_its_reader_holds_it_stays_as_it_was_unless_its_sender_is_trusted() {
    for (lines, then) in [("", 0xbad), ("trust = \"isolated\"", 2999), (HOSTILE, 2999)] {
        let told = play_with("rewrites", "block", lines);
        assert!(
            told.stdout.contains(&format!("ear holds 2999, and then {then}\n")),
            "{lines}: {}",
            told.all()
        );
        assert_sink_is_exact(&told);
    }
}

#[test]
fn agent_that_writes_its_frames_while_they_are_read_hurts_no_reader_that_copies() {
    let told = play_with("flicker", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    // What the ear counts is the liar's own affair; that it lives to count is not.
    assert!(told.stdout.contains("ear saw"), "{}", told.all());
    assert!(!told.stderr.contains("agent ear (generation"), "{}", told.all());
}

#[test]
fn agent_that_seals_its_own_segment_for_ever_dies_as_any_other() {
    let told = play("seal", "block");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert!(told.stdout.contains("sealed: true"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
}

/// The doorbells of both its neighbours were filled, again and again. And nobody sleeps on a word of their memory: there was its own sleeper to steal, so it
/// could have stolen others.
pub fn assert_filled_and_stole_nobody(told: &Told) {
    let filled = told.stdout.split("each so often: [").nth(1).and_then(|rest| rest.split(']').next());
    let filled: Vec<u64> =
        filled.unwrap_or_default().split(", ").filter_map(|times| times.parse().ok()).collect();
    assert!(filled.len() == 2 && filled.iter().all(|times| *times > 0), "{}", told.all());
    assert!(told.stdout.contains("stole from 2 maps: own Some(Ok(1)), others Ok(0)"), "{}", told.all());
}

#[test]
fn isolated_agent_makes_no_doorbell_blocking_and_filling_them_leaves_nobody_asleep() {
    let told = play_with("bells", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert!(told.stdout.contains("made blocking: 0 of 2"), "{}", told.all());
    assert_filled_and_stole_nobody(&told);
}

#[test]
fn agent_that_fills_its_peers_doorbells_leaves_nobody_asleep() {
    let told = play("fill", "block");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert_filled_and_stole_nobody(&told);
    assert!(!told.stderr.contains("was woken"), "{}", told.all());
}

// Whoever waits for room is looked for by nobody: a ring that is lost would be the end of it.
#[test]
fn agent_that_reads_its_peers_doorbells_takes_no_ring_away() {
    for lines in ["", "trust = \"isolated\"", HOSTILE] {
        let told = play_with("empty", "block", lines);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        assert!(told.stdout.contains("empties 2 doorbells"), "{}", told.all());
        assert!(!told.stderr.contains("was woken"), "{}", told.all());
    }
}

#[test]
fn accused_agent_that_is_trusted_less_than_its_accuser_is_killed_at_once() {
    let told = play_with("lie-back", "block", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert!(told.stderr.contains("is trusted less than who accuses it and is killed"), "{}", told.all());
    assert!(told.stdout.contains("bad ends in generation 2"), "{}", told.all());
    assert_removed(&told);
}

#[test]
fn agent_that_accuses_whom_it_does_not_meet_is_not_believed_however_much_it_is_trusted() {
    let told = play_among("slander", "block", "", "trust = \"isolated\"");
    assert_sink_is_exact(&told);
    assert_ear_is_exact(&told);
    assert_nobody_else_died(&told);
    for name in ["source", "ear", "dead-letters"] {
        assert!(told.stderr.contains(&format!("agent bad accuses {name} (generation 2)")), "{}", told.all());
    }
    assert_eq!(told.stderr.matches("accuses").count(), 3, "of others nothing is told: {}", told.all());
}

// What it printed last is kept, in as many files as large as are promised, and a line more.
#[test]
fn agent_that_prints_without_end_disturbs_nobody_and_its_logs_are_bounded() {
    for lines in ["", "trust = \"isolated\""] {
        let told = play_with("flood", "block", lines);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        let printed = told.stdout.matches("xxxxxxxx").count() * 8;
        let logs = std::fs::read_dir(told.folder.path().join("logs")).expect("logs").flatten();
        let of_bad = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("bad."));
        let sizes: Vec<u64> = of_bad.map(|entry| entry.metadata().expect("a file").len()).collect();
        let bound = FILES_MAX as u64 * (FILE_BYTES_MAX + LINE_BYTES_MAX as u64);
        assert!(printed as u64 > 2 * bound, "{printed} bytes were printed");
        assert!((bound / 4..=bound).contains(&sizes.iter().sum()), "{sizes:?}");
    }
}

#[test]
fn descriptors_with_sound_packets_are_closed_and_disturb_nobody() {
    // What is under way counts for its user: as the tests' own it would keep swarms of other tests, which are no real root, from handing links over.
    let user = user(3).map(|(_, user)| user).unwrap_or_default();
    for lines in [user.clone(), format!("{user}\ntrust = \"isolated\""), HOSTILE.to_owned()] {
        let told = play_with("descriptors", "block", &lines);
        assert_sink_is_exact(&told);
        assert_ear_is_exact(&told);
        assert_nobody_else_died(&told);
        let sent = std::fs::read_to_string(told.folder.path().join("notes/sent")).unwrap_or_default();
        assert!(sent.parse::<u64>().is_ok_and(|sent| sent > 10), "{sent:?} {}", told.all());
        assert!(told.stdout.contains("descriptors there are 0 more"), "{}", told.all());
        assert!(told.stdout.contains("bad ends in generation 1"), "{}", told.all());
    }
}

// Its own words do not convict it: where it is trusted the lane is cut and the accusation told, and where it is not it is removed.
#[test]
fn frame_that_lies_about_its_length_or_number_is_met_by_its_reader_and_hurts_nobody() {
    for role in ["lie-length", "lie-number"] {
        for (lines, removed) in [("", false), ("trust = \"isolated\"", true)] {
            let told = play_with(role, "block", lines);
            assert_sink_is_exact(&told);
            assert_nobody_else_died(&told);
            assert!(told.stderr.contains("agent ear accuses bad (generation 1)"), "{role}: {}", told.all());
            assert_eq!(told.stderr.contains("than who accuses it and is killed"), removed, "{}", told.all());
            assert!(told.stdout.contains("bad ends in generation 2"), "{role}: {}", told.all());
        }
    }
}
