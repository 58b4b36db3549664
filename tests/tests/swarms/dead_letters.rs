//! Messages that kill or fail their reader: parked after so many attempts, with a report of each; what lies behind them is
//! handled exactly once and in order; orders of an operator count nothing.
//!
//! Method: a source sends the numbers from 0 up, a sink takes them as the file `poison` says and sends each on in the step that
//! acknowledges it, a teller that is never killed notes what arrives.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shoal::control::PsState;
use shoal_tests::seized::Seized;
use shoal_tests::{Running, Stage, stage, traces, until};
use std::fs;

/// How many numbers there are.
pub const COUNT: u64 = 100;

/// A swarm of numbers, some of which kill or fail their reader.
pub struct Swarm<'s> {
    pub stage: &'s Stage,
    pub shoal: Running<'s>,
}

/// The swarm, with a sink of some kind that takes numbers as `poison` says.
fn swarm<'s>(stage: &'s Stage, sink: &str, poison: &str, more: &str, swarm: &str) -> Swarm<'s> {
    swarm_with("4 KiB", stage, sink, poison, more, swarm)
}

/// The same with so much room for numbers.
pub fn swarm_with<'s>(
    capacity: &str,
    stage: &'s Stage,
    sink: &str,
    poison: &str,
    more: &str,
    swarm: &str,
) -> Swarm<'s> {
    fs::write(stage.path("poison"), poison).expect("written");
    let file = stage.write(
        "swarm.toml",
        &format!(
            r#"
            [swarm]
            name = "NAME"
            {swarm}
            [channel.numbers]
            message = "Number"
            capacity = "{capacity}"
            [channel.handled]
            message = "Number"
            [agent.source]
            command = ["BIN/letters", "source", "{COUNT}"]
            publishes = ["numbers"]
            [agent.sink]
            command = ["BIN/letters", {sink}]
            subscribes = ["numbers"]
            publishes = ["handled"]
            restart = {{ intensity = 100, backoff = "1ms" }}
            {more}
            [agent.teller]
            command = ["BIN/letters", "teller"]
            subscribes = ["handled"]
            "#
        ),
    );
    Swarm { stage, shoal: stage.run(&file) }
}

impl Swarm<'_> {
    pub fn handled(&self) -> Vec<u64> {
        numbers(self.stage, "handled")
    }

    /// Waits until the last number was handled.
    pub fn until_done(&mut self) {
        let last = COUNT - 1;
        until("the last number", || {
            assert_eq!(self.shoal.poll(), None, "{}", self.shoal.err());
            self.handled().contains(&last).then_some(())
        });
    }

    /// The attempts that were begun at a number, as the sink itself counted them.
    pub fn tried(&self, value: u64) -> Vec<String> {
        let text = fs::read_to_string(self.stage.path("tried")).unwrap_or_default();
        let mine = |line: &&str| line.starts_with(&format!("{value} "));
        text.lines().filter(mine).map(str::to_owned).collect()
    }

    fn dlq(&self, args: &[&str]) -> Value {
        let done = self.stage.done(&[&["dlq"], args, &["--json"]].concat());
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&done.out).expect("one JSON object")
    }

    pub fn letters(&self) -> Vec<Value> {
        self.dlq(&["list"])["letters"].as_array().expect("a list").clone()
    }

    /// Ends it; the letters are purged, so that nothing is left.
    pub fn end(self) {
        let stage = self.stage;
        assert_eq!(stage.violations(), "");
        assert_eq!(self.shoal.stop().status, 0);
        let done = stage.done(&["dlq", "purge", "--all", "--swarm", stage.name()]);
        assert!(done.status == 0 || done.err.contains("none has left dead letters"), "{}", done.err);
        stage.assert_nothing_left();
    }
}

fn numbers(stage: &Stage, file: &str) -> Vec<u64> {
    let text = fs::read_to_string(stage.path(file)).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

/// All numbers but some.
pub fn but(poisoned: &[u64]) -> Vec<u64> {
    (0..COUNT).filter(|value| !poisoned.contains(value)).collect()
}

/// Changes what is poison while the swarm runs: a file that is being written would be read half.
fn change_poison(stage: &Stage, text: &str) {
    fs::write(stage.path("poison.new"), text).expect("written");
    fs::rename(stage.path("poison.new"), stage.path("poison")).expect("renamed");
}

#[test]
fn a_message_that_kills_its_reader_is_parked_after_three_attempts_with_the_crash_report_of_each() {
    let kinds = [
        (3, "aborts", None, Some(6), "was killed by SIGABRT", None),
        (4, "crashes", None, Some(11), "was killed by SIGSEGV", None),
        (9, "exits", Some(7), None, "exited with status 7", Some("number 9 makes me exit")),
        (30, "panics", Some(1), None, "exited with status 1", Some("number 30 makes me panic")),
    ];
    let poison: String = kinds.iter().map(|(value, how, ..)| format!("{value} {how}\n")).collect();
    for sink in ["\"sink\"", "\"loop\""] {
        let stage = stage!("poison");
        let mut swarm = swarm(&stage, sink, &poison, "", "");
        swarm.until_done();
        assert_eq!(swarm.handled(), but(&[3, 4, 9, 30]), "each exactly once and in order");
        let letters = swarm.letters();
        assert_eq!(letters.len(), kinds.len());
        for (letter, (value, _, status, signal, how, said)) in letters.iter().zip(kinds) {
            assert_eq!(swarm.tried(value), [1, 2, 3].map(|n| format!("{value} attempt {n}")));
            assert_eq!((&letter["attempts"], &letter["rejected"]), (&3.into(), &false.into()));
            assert_eq!(letter["reason"], format!("its reader {how}"));
            assert_eq!((&letter["channel"], &letter["message_type"]), (&"numbers".into(), &"Number".into()));
            assert_eq!((&letter["producer"], &letter["agent"]), (&"source".into(), &"sink".into()));
            let reports = letter["reports"].as_array().expect("a list");
            assert_eq!(reports.len(), 3, "one of each attempt: {letter}");
            let generations: Vec<_> =
                reports.iter().map(|r| r["generation"].as_u64().expect("one")).collect();
            assert!(generations.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{generations:?}");
            for report in reports {
                assert_eq!((&report["status"], &report["signal"]), (&status.into(), &signal.into()));
                assert_eq!(report["how"], how);
                let output = report["output"].as_array().expect("lines");
                let with = |text: &str| {
                    output.iter().filter(|l| l.as_str().is_some_and(|l| l.contains(text))).count()
                };
                said.iter().for_each(|said| assert_eq!(with(said), 1, "of this life alone: {report}"));
            }
            let shown = swarm.dlq(&["show", &letter["id"].to_string()]);
            let bytes: String = u64::to_le_bytes(value).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((&shown["payload"], &shown["message"]), (&bytes.into(), &letter["message"]));
        }
        swarm.end();
    }
}

#[test]
fn kills_from_outside_count_and_kills_that_are_ordered_do_not() {
    let stage = stage!("ordered");
    let mut swarm = swarm(&stage, "\"sink\"", "5 holds\n", "", "");
    let held = |swarm: &Swarm<'_>, times: usize| {
        until("5 in hand", || (swarm.tried(5).len() == times).then_some(()))
    };
    held(&swarm, 1);
    for (times, verb) in (2..).zip(["kill", "restart", "kill", "kill", "restart", "kill"]) {
        assert_eq!(stage.done(&[verb, "sink"]).status, 0);
        held(&swarm, times);
    }
    assert_eq!(swarm.tried(5), vec!["5 attempt 1".to_owned(); 7], "seven lives, no attempt in vain");
    let outside = |swarm: &mut Swarm<'_>, times: usize| {
        let pid = Pid::from_raw(swarm.shoal.pid_of("sink")).expect("a process");
        kill_process(pid, Signal::KILL).expect("killed");
        held(swarm, times);
    };
    outside(&mut swarm, 8);
    assert_eq!(swarm.tried(5).last().expect("tried"), "5 attempt 2");
    // What was counted is not forgotten by an order.
    assert_eq!(stage.done(&["kill", "sink"]).status, 0);
    held(&swarm, 9);
    outside(&mut swarm, 10);
    assert_eq!(swarm.tried(5)[8..], ["5 attempt 2", "5 attempt 3"]);
    assert!(swarm.letters().is_empty());
    let pid = Pid::from_raw(swarm.shoal.pid_of("sink")).expect("a process");
    kill_process(pid, Signal::KILL).expect("killed");
    swarm.until_done();
    assert_eq!(swarm.handled(), but(&[5]));
    let letters = swarm.letters();
    assert_eq!((letters.len(), &letters[0]["attempts"]), (1, &3.into()));
    let reports = letters[0]["reports"].as_array().expect("a list");
    assert!(reports.len() == 3 && reports.iter().all(|r| r["signal"] == 9), "{reports:?}");
    swarm.end();
}

/// A supervisor counts from what its predecessor had counted.
#[test]
fn attempts_in_vain_are_counted_over_the_deaths_of_supervisors() {
    let stage = stage!("succeeded");
    let mut swarm = swarm(&stage, "\"sink\"", "5 holds\n", "", "");
    for attempt in 1..=3 {
        until("5 in hand", || (swarm.tried(5).len() == attempt).then_some(()));
        swarm.shoal.succeed();
        assert!(traces::kill(swarm.shoal.pid_of("sink"), stage.mark()));
    }
    swarm.until_done();
    assert_eq!(swarm.tried(5), [1, 2, 3].map(|n| format!("5 attempt {n}")));
    assert_eq!(swarm.handled(), but(&[5]));
    let letters = swarm.letters();
    assert_eq!((letters.len(), &letters[0]["attempts"]), (1, &3.into()));
    assert_eq!(letters[0]["reports"].as_array().map(Vec::len), Some(3), "{}", letters[0]);
    swarm.end();
}

/// An order that was begun stays one: what an agent has in hand as it is killed for it is not held against the message.
#[test]
fn a_death_that_was_ordered_counts_nothing_under_the_next_supervisor_either() {
    let stage = stage!("ordered-on");
    let mut swarm = swarm(&stage, "\"sink\"", "5 holds\n", "stop_timeout = \"1h\"", "");
    until("5 in hand", || (swarm.tried(5).len() == 1).then_some(()));
    let sink = swarm.shoal.pid_of("sink");
    let restart = stage.start(stage.shoal(&["restart", "sink"]));
    swarm.shoal.until_agent("sink", "asked to end", |a| (a.state == PsState::Stopping).then_some(()));
    swarm.shoal.succeed();
    assert!(traces::kill(sink, stage.mark()));
    until("5 in the next life's hand", || (swarm.tried(5).len() == 2).then_some(()));
    assert_eq!(swarm.tried(5), ["5 attempt 1", "5 attempt 1"]);
    // Who asked is told that nobody answers: it is not asked twice.
    assert_eq!(restart.ended().status, 1);
    change_poison(&stage, "");
    swarm.until_done();
    assert_eq!((swarm.handled(), swarm.letters().len()), (but(&[]), 0));
    swarm.end();
}

/// No letter is written over, and a number that an operator has read names no other letter later, also when it was purged.
#[test]
fn numbers_of_dead_letters_are_used_once_whatever_supervisor_gives_them() {
    let stage = stage!("lettered");
    let mut swarm = swarm(&stage, "\"sink\"", "3 rejects\n4 rejects\n5 holds\n6 rejects\n", "", "");
    until("5 in hand", || (swarm.tried(5).len() == 1).then_some(()));
    assert_eq!(swarm.letters().len(), 2);
    assert_eq!(swarm.dlq(&["purge", "2"])["purged"], serde_json::json!([2]));
    swarm.shoal.succeed();
    change_poison(&stage, "6 rejects\n");
    swarm.until_done();
    let letters = swarm.letters();
    let letters: Vec<_> = letters.iter().map(|letter| (&letter["id"], &letter["reason"])).collect();
    assert_eq!(letters, [(&1.into(), &"nobody wants 3".into()), (&3.into(), &"nobody wants 6".into())]);
    swarm.end();
}

/// Whoever replays knows the orders of one supervisor from those of the next: no letter is taken for one that it has sent already.
#[test]
fn letters_are_replayed_also_when_others_were_under_the_supervisor_before() {
    let stage = stage!("replay-on");
    let mut swarm = swarm(&stage, "\"sink\"", "5 rejects\n6 rejects\n", "", "");
    until_handled(&mut swarm, COUNT as usize - 2);
    change_poison(&stage, "");
    assert_eq!(swarm.dlq(&["replay", "1"])["replayed"], serde_json::json!([1]));
    until_handled(&mut swarm, COUNT as usize - 1);
    swarm.shoal.succeed();
    assert_eq!(swarm.dlq(&["replay", "2"])["replayed"], serde_json::json!([2]));
    assert_eq!(swarm.letters(), Vec::<Value>::new());
    // Both lie before the end of what the sink reads.
    let handled = swarm.stage.path("handled");
    swarm.end();
    let text = fs::read_to_string(handled).expect("the numbers that were handled");
    assert!(text.ends_with("\n5\n6\n"), "{text}");
}

#[test]
fn a_handler_that_fails_thrice_parks_its_message_without_the_end_of_its_process() {
    for sink in ["\"sink\"", "\"loop\""] {
        let stage = stage!("fails");
        let mut swarm = swarm(&stage, sink, "0 fails\n99 fails\n20 fails\n", "", "");
        until("the end", || (numbers(&stage, "handled").len() == COUNT as usize - 3).then_some(()));
        until("three letters", || (swarm.letters().len() == 3).then_some(()));
        assert_eq!(swarm.handled(), but(&[0, 20, 99]));
        for (letter, value) in swarm.letters().iter().zip([0, 20, 99]) {
            assert_eq!(swarm.tried(value), [1, 2, 3].map(|n| format!("{value} attempt {n}")));
            let reports = letter["reports"].as_array().expect("a list");
            assert_eq!((reports.len(), &letter["attempts"]), (3, &3.into()), "{letter}");
            if sink == "\"sink\"" {
                assert_eq!(letter["reason"], format!("number {value} makes me fail"));
                assert!(reports.iter().all(|r| r["how"] == format!("failed: number {value} makes me fail")));
            }
        }
        swarm
            .shoal
            .until_agent("sink", "alive", |a| (a.generation == 1 && a.state == PsState::Ready).then_some(()));
        swarm.end();
    }
}

#[test]
fn attempts_are_counted_over_failures_and_deaths_alike_up_to_what_the_swarm_file_says() {
    let stage = stage!("mixed");
    let mut swarm = swarm(&stage, "\"sink\"", "7 fails\n", "max_attempts = 5", "");
    until("7 failed once", || (!swarm.tried(7).is_empty()).then_some(()));
    change_poison(&stage, "7 exits\n");
    swarm.until_done();
    assert_eq!(swarm.handled(), but(&[7]));
    assert_eq!(swarm.tried(7), [1, 2, 3, 4, 5].map(|n| format!("7 attempt {n}")));
    let letter = &swarm.letters()[0];
    assert_eq!((&letter["attempts"], letter["reports"].as_array().map(Vec::len)), (&5.into(), Some(5)));
    swarm.end();
}

#[test]
fn an_agent_without_a_bound_is_given_its_message_until_it_takes_it() {
    let stage = stage!("patient");
    let mut swarm = swarm(&stage, "\"sink\"", "2 exits\n", "max_attempts = 0", "");
    until("ten attempts", || (swarm.tried(2).len() >= 10).then_some(()));
    assert_eq!(swarm.tried(2)[9], "2 attempt 10");
    assert!(swarm.letters().is_empty());
    change_poison(&stage, "2 rejects\n");
    swarm.until_done();
    assert_eq!(swarm.handled(), but(&[2]), "what is rejected is parked even so");
    assert_eq!(swarm.letters()[0]["reason"], "nobody wants 2");
    swarm.end();
}

#[test]
fn a_message_that_is_rejected_is_parked_at_once_with_its_reason() {
    for sink in ["\"sink\"", "\"loop\""] {
        let stage = stage!("rejects");
        let mut swarm = swarm(&stage, sink, "8 rejects\n9 rejects\n", "", "");
        swarm.until_done();
        assert_eq!(swarm.handled(), but(&[8, 9]), "and nothing that was sent for it is seen");
        for (letter, value) in swarm.letters().iter().zip([8, 9]) {
            assert_eq!(swarm.tried(value), [format!("{value} attempt 1")]);
            assert_eq!(letter["reason"], format!("nobody wants {value}"));
            assert_eq!((&letter["rejected"], &letter["attempts"]), (&true.into(), &1.into()));
        }
        let done = stage.done(&["dlq", "list"]);
        assert!(done.out.contains("rejected: nobody wants 8"), "{}", done.out);
        let done = stage.done(&["dlq", "show", "1"]);
        assert!(done.out.contains("rejected") && done.out.contains("00000000  08 00 00 00"), "{}", done.out);
        let said = swarm.shoal.err();
        assert!(said.contains("source/numbers/") && said.contains(" after 1 attempt: "), "{said}");
        swarm.end();
    }
}

#[test]
fn a_reader_that_dies_between_parking_and_acknowledging_parks_once() {
    let stage = stage!("between");
    let mut swarm = swarm(&stage, "\"raw\", \"park\"", "", "", "");
    swarm.until_done();
    assert_eq!(swarm.handled(), but(&[2]), "no later life is given it");
    assert_eq!(swarm.tried(2), Vec::<String>::new());
    let letters = swarm.letters();
    assert_eq!((letters.len(), &letters[0]["reason"]), (1, &"by hand".into()));
    swarm.shoal.until_agent("sink", "in its second life", |a| (a.generation == 2).then_some(()));
    swarm.end();
}

#[test]
fn attempts_of_a_group_are_counted_over_its_members_and_the_others_go_on() {
    let stage = stage!("group");
    let poison = "3 aborts\n17 exits\n25 fails\n30 rejects\n";
    let swarm = swarm(&stage, "\"sink\"", poison, "replicas = 3\nprefetch = 4", "");
    let handled = until("all that can be handled", || {
        let mut handled = numbers(&stage, "handled");
        handled.sort_unstable();
        (handled.len() >= COUNT as usize - 4 && swarm.letters().len() == 4).then_some(handled)
    });
    assert_eq!(handled, but(&[3, 17, 25, 30]), "each exactly once");
    for value in [3, 17, 25] {
        assert_eq!(swarm.tried(value), [1, 2, 3].map(|n| format!("{value} attempt {n}")));
    }
    assert_eq!(swarm.tried(30), ["30 attempt 1"]);
    for letter in swarm.letters() {
        let rejected = letter["rejected"] == true;
        let (attempts, reports) = if rejected { (1, 0) } else { (3, 3) };
        assert_eq!((&letter["group"], &letter["attempts"]), (&"sink".into(), &attempts.into()), "{letter}");
        assert_eq!(letter["reports"].as_array().map(Vec::len), Some(reports), "{letter}");
    }
    swarm.end();
}

#[test]
fn a_member_that_dies_between_parking_and_acknowledging_parks_once_and_no_other_is_given_the_message() {
    let stage = stage!("member");
    let mut swarm = swarm(&stage, "\"raw\", \"park\"", "", "replicas = 3", "");
    let handled = until("all that can be handled", || {
        let mut handled = numbers(&stage, "handled");
        handled.sort_unstable();
        (handled.len() >= COUNT as usize - 1).then_some(handled)
    });
    assert_eq!(handled, but(&[2]));
    let lives = swarm.shoal.until("one in its second life", |report| {
        let sinks = report.agents.iter().filter(|a| a.name.starts_with("sink"));
        let lives = sinks.map(|a| a.generation).sum::<u64>();
        (lives > 3).then_some(lives)
    });
    assert_eq!((lives, swarm.letters().len()), (4, 1));
    swarm.end();
}

#[test]
fn an_invalid_message_is_parked_at_once_and_names_its_sender() {
    for sink in ["\"sink\"", "\"loop\""] {
        let stage = stage!("invalid");
        fs::write(stage.path("liar"), "").expect("written");
        let mut swarm = swarm(&stage, sink, "", "", "");
        swarm.until_done();
        assert_eq!(swarm.handled(), but(&[2]));
        assert_eq!(swarm.tried(2), Vec::<String>::new(), "no handler sees it");
        let letters = swarm.letters();
        assert_eq!((letters.len(), &letters[0]["attempts"], &letters[0]["bytes"]), (1, &1.into(), &3.into()));
        let reason = letters[0]["reason"].as_str().expect("a text");
        assert!(reason.contains("`source` sent an invalid message on channel `numbers`"), "{reason}");
        assert_eq!(swarm.dlq(&["show", "1"])["payload"], "020000", "as it came");
        assert!(swarm.shoal.err().contains("accuses source"), "{}", swarm.shoal.err());
        swarm.end();
    }
}

/// Waits until the last of some numbers were handled, and returns all that were, in order.
fn until_handled(swarm: &mut Swarm<'_>, count: usize) -> Vec<u64> {
    until("all handled", || {
        assert_eq!(swarm.shoal.poll(), None, "{}", swarm.shoal.err());
        (swarm.handled().len() >= count).then_some(())
    });
    swarm.handled()
}

#[test]
fn replayed_letters_are_handled_once_by_the_reader_that_gave_them_up_once_it_is_repaired() {
    for more in ["", "replicas = 3"] {
        let stage = stage!("replay");
        let mut swarm = swarm(&stage, "\"sink\"", "5 exits\n6 rejects\n7 rejects\n", more, "");
        let mut handled = until_handled(&mut swarm, COUNT as usize - 3);
        until("three letters", || (swarm.letters().len() == 3).then_some(()));
        change_poison(&stage, "7 rejects\n");
        // One that is not rejected again.
        let letters = swarm.letters();
        let good = letters.iter().find(|letter| letter["reason"] != "nobody wants 7").expect("two of them");
        let id = good["id"].as_u64().expect("a number");
        assert_eq!(swarm.dlq(&["replay", &id.to_string()])["replayed"], serde_json::json!([id]));
        assert_eq!(swarm.letters().len(), 2);
        let all = stage.done(&["dlq", "replay", "--all"]);
        assert_eq!((all.status, all.out.as_str()), (0, "2 dead letters replayed\n"), "{}", all.err);
        handled.extend(until_handled(&mut swarm, COUNT as usize - 1).split_off(handled.len()));
        let letters = until("the one that is rejected again", || {
            let letters = swarm.letters();
            (letters.len() == 1 && letters[0]["id"] == 4).then_some(letters)
        });
        assert_eq!(letters[0]["producer"], "dead-letters");
        assert_eq!((&letters[0]["reason"], &letters[0]["attempts"]), (&"nobody wants 7".into(), &1.into()));
        handled.sort_unstable();
        assert_eq!(handled, but(&[7]));
        let report = swarm.shoal.try_ps().expect("an answer");
        assert!(report.agents.iter().all(|a| a.name != "dead-letters"), "it is shown only while it runs");
        swarm.end();
    }
}

#[test]
fn a_replay_is_exact_whoever_is_killed_meanwhile() {
    let all: String = (0..COUNT).map(|value| format!("{value} rejects\n")).collect();
    let mut all_kills = [0, 0];
    for _ in 0..6 {
        let mut kills = [0, 0];
        let stage = stage!("storm");
        let mut swarm = swarm(&stage, "\"sink\"", &all, "max_attempts = 100", "");
        swarm.shoal.until_ready();
        until("all parked", || (swarm.letters().len() == COUNT as usize).then_some(()));
        change_poison(&stage, "");
        let mut replay = stage.start(stage.shoal(&["dlq", "replay", "--all"]));
        // Whoever replays, and its reader, each up to eight times.
        while replay.poll().is_none() {
            let report = swarm.shoal.try_ps().expect("an answer");
            for (name, kills) in
                ["dead-letters", "sink"].iter().zip(&mut kills).filter(|(_, kills)| **kills < 8)
            {
                let pid = report.agents.iter().find(|a| a.name == *name).and_then(|a| a.pid);
                let pid = pid.and_then(|pid| Pid::from_raw(pid as i32));
                *kills += usize::from(pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
            }
        }
        let replay = replay.ended();
        assert_eq!((replay.status, replay.err.as_str()), (0, ""));
        let mut handled = until_handled(&mut swarm, COUNT as usize);
        handled.sort_unstable();
        assert_eq!((handled, swarm.letters().len()), (but(&[]), 0), "each letter once");
        swarm.end();
        all_kills.iter_mut().zip(kills).for_each(|(all, kills)| *all += kills);
    }
    assert!(all_kills.iter().all(|kills| *kills > 0), "killed whoever replays and its reader: {all_kills:?}");
}

#[test]
fn a_letter_that_was_sent_is_not_sent_again_by_the_next_life_of_whoever_replays() {
    for nth in [0, 1, 4] {
        let stage = stage!("sent");
        // More than the lane takes: whoever replays waits for a reader that holds the first.
        let count = 90;
        let poison: String = (0..count).map(|value| format!("{value} rejects\n")).collect();
        let mut swarm = swarm(&stage, "\"sink\"", &poison, "", "");
        swarm.until_done();
        change_poison(&stage, "0 holds\n");
        let replay = stage.start(stage.shoal(&["dlq", "replay", "--all"]));
        let pid = swarm.shoal.until_agent("dead-letters", "there", |agent| agent.pid);
        let mut seized = Seized::of(pid as i32).expect("seized");
        change_poison(&stage, "");
        // The commit is behind it, the removal before it.
        assert!(seized.run_until_removal(nth).expect("traced"), "it ended before");
        seized.kill().expect("killed");
        let replay = replay.ended();
        let done = format!("{count} dead letters replayed\n");
        assert_eq!((replay.status, replay.out), (0, done), "{}", replay.err);
        let handled = until_handled(&mut swarm, COUNT as usize);
        let replayed: Vec<u64> = (0..count).collect();
        assert_eq!(handled[(COUNT - count) as usize..], replayed, "each once and in order");
        assert!(swarm.letters().is_empty());
        swarm.end();
    }
}

#[test]
fn what_cannot_be_replayed_is_refused_and_stays() {
    let stage = stage!("refused");
    let mut swarm = swarm(&stage, "\"sink\"", "5 rejects\n", "", "");
    swarm.until_done();
    let path = stage.run_folder().join("dead-letters/1.letter");
    let whole = fs::read(&path).expect("read");
    let text = String::from_utf8_lossy(&whole).into_owned();
    for (from, to, says) in [
        (
            "\"channel\":\"numbers\"",
            "\"channel\":\"letters\"",
            "no agent of group `sink` subscribes channel `letters`",
        ),
        ("\"group\":\"sink\"", "\"group\":\"tank\"", "no agent of group `tank` subscribes channel `numbers`"),
        ("\"message_type\":\"Number\"", "\"message_type\":\"Word\"", "it is a `Word`"),
        ("\"fingerprint\":\"", "\"fingerprint\":\"f", "go back to the former definition"),
        ("\"kept\":true", "\"kept\":false", "its bytes were too many to keep"),
        ("\"bytes\":8", "\"bytes\":8000000", "raise `capacity`"),
    ] {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
        let done = stage.done(&["dlq", "replay", "1"]);
        assert!(done.status == 1 && done.err.contains(says), "{says}: {} {}", done.status, done.err);
    }
    fs::write(&path, &whole).expect("written");
    assert!(stage.done(&["events"]).out.contains("): shoal dlq replay 1\n"), "who ordered it is an event");
    assert_eq!(stage.done(&["dlq", "replay", "2"]).status, 2);
    assert_eq!(stage.done(&["stop", "sink"]).status, 0);
    assert_eq!(swarm.letters().len(), 1);
    assert_eq!(swarm.shoal.stop().status, 0);
    let done = stage.done(&["dlq", "replay", "1"]);
    assert!(done.status != 0, "nobody runs: {}", done.out);
    assert_eq!(stage.done(&["dlq", "purge", "1"]).status, 0);
    stage.assert_nothing_left();
}

#[test]
fn the_commands_of_the_guide_do_what_it_says() {
    let guide = include_str!("../../../docs/dead-letters.md");
    let stage = stage!("guide");
    let mut swarm = swarm(&stage, "\"sink\"", "1 exits\n2 rejects\n3 rejects\n", "", "");
    swarm.until_done();
    change_poison(&stage, "");
    let mut ran = Vec::new();
    for block in guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        for line in block.lines() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            assert_eq!(words[0], "shoal", "{line}");
            let done = stage.done(&words[1..]);
            assert_eq!((done.status, done.err.as_str()), (0, ""), "{line}");
            ran.push((words[2..].join(" "), done.out));
        }
    }
    let said = |command: &str| &ran.iter().find(|(known, _)| known == command).expect(command).1;
    assert_eq!(said("list").lines().count(), 4, "a header, and one line each: {}", said("list"));
    let page = said("show 1");
    for part in [
        "source/numbers/",
        "generation 3 exited with status 7",
        "| number 1 makes me exit",
        "00000000  01 00",
    ] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    let listed: Value = serde_json::from_str(said("list --json")).expect("one JSON object");
    for key in ["id", "message", "reason", "reports", "kept", "run", "first", "parked"] {
        assert!(listed["letters"][0].get(key).is_some() && guide.contains(&format!("`{key}`")), "{key}");
    }
    assert_eq!(said("purge 3"), "1 dead letter purged\n");
    assert_eq!(said("replay 1"), "1 dead letter replayed\n");
    assert_eq!(said("replay --all"), "1 dead letter replayed\n");
    let handled = until_handled(&mut swarm, COUNT as usize - 1);
    assert_eq!(handled[COUNT as usize - 3..], [1, 2]);
    swarm.end();
}

#[test]
fn hostile_dead_letters_are_refused_and_the_swarm_goes_on() {
    let stage = stage!("hostile");
    let mut swarm = swarm(&stage, "\"raw\", \"hostile\"", "", "", "");
    swarm.until_done();
    let refused = fs::read_to_string(stage.path("refused")).expect("read");
    assert_eq!((refused.lines().count(), refused.lines().last()), (13, Some("end")), "{refused}");
    assert_eq!(stage.violations(), "");
    assert_eq!(swarm.handled(), but(&[2]));
    assert_eq!(swarm.letters().len(), 1, "the one that was sound");
    swarm.end();
}

#[test]
fn dead_letters_outlive_their_swarm_and_are_listed_shown_and_purged_without_it() {
    let stage = stage!("outlive");
    let mut first = swarm(&stage, "\"sink\"", "1 rejects\n2 rejects\n3 rejects\n", "", "");
    first.until_done();
    let mut killed = first;
    killed.shoal.send(Signal::KILL);
    stage.until_no_process();
    assert_eq!(killed.shoal.ended().status, 137);
    let done = stage.done(&["dlq", "list"]);
    assert_eq!(
        (done.status, done.out.lines().count()),
        (0, 4),
        "a header and three: {}{}",
        done.out,
        done.err
    );
    // The next run of that name finds them, and its own have numbers of their own.
    fs::remove_file(stage.path("handled")).expect("removed");
    let mut again = swarm(&stage, "\"sink\"", "5 rejects\n", "", "");
    again.until_done();
    let ids = |swarm: &Swarm<'_>| -> Vec<u64> {
        swarm.letters().iter().map(|letter| letter["id"].as_u64().expect("a number")).collect()
    };
    assert_eq!(ids(&again), [1, 2, 3, 4]);
    assert_eq!(again.dlq(&["purge", "2", "4"])["purged"], serde_json::json!([2, 4]));
    assert_eq!(ids(&again), [1, 3]);
    for (args, says) in [
        (&["dlq", "show", "2"][..], "has no dead letter 2; it has 1, 3"),
        (&["dlq", "purge", "7"], "has no dead letter 7; it has 1, 3"),
        (&["dlq", "list", "--swarm", "otulive"], "no swarm `otulive` is running or has left dead letters"),
        (&["dlq", "purge"], "required"),
    ] {
        let done = stage.done(args);
        assert!(done.status == 2 && done.err.contains(says), "{args:?}: {} {}", done.status, done.err);
    }
    assert_eq!(again.shoal.stop().status, 0);
    let done = stage.done(&["dlq", "purge", "--all"]);
    assert_eq!((done.status, done.out.as_str()), (0, "2 dead letters purged\n"));
    stage.assert_nothing_left();
    let done = stage.done(&["dlq", "list"]);
    assert!(done.status == 1 && done.err.contains("none has left dead letters"), "{}", done.err);
}

#[test]
fn a_full_store_drops_the_oldest_and_says_so() {
    let stage = stage!("full");
    let poison: String = (10..20).map(|value| format!("{value} rejects\n")).collect();
    let mut swarm = swarm(&stage, "\"sink\"", &poison, "", "dead_letters = { count = 4 }");
    swarm.until_done();
    let ids: Vec<_> = swarm.letters().iter().map(|letter| letter["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids, [7, 8, 9, 10]);
    for dropped in 1..=6 {
        let says = format!("dead letters {dropped} made room and are gone");
        assert!(swarm.shoal.err().contains(&says), "{says:?} is not in {}", swarm.shoal.err());
    }
    swarm.end();
}
