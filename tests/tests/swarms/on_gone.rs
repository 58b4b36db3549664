//! What becomes of what a reader that will not return had not read.
//!
//! Method: a tap sends numbers; its reader, which is never started again, is killed by SIGKILL with the first in its hand and the others
//! unread; then supervisors, senders and whoever reads in its place are killed. Every number is accounted for: handled, with the dead
//! letters, or counted as dropped.

use serde_json::Value;
use shoal::control::PsState;
use shoal_tests::failing::Failing;
use shoal_tests::stage::HARDY;
use shoal_tests::tapped::{arguments, change, until_met, want};
use shoal_tests::{Book, Chance, Running, Stage, stage, traces, until};
use std::fs;
use std::path::PathBuf;

/// Numbers that fit the lane to the reader: its 4 KiB have 64 frames.
const FIT: u64 = 40;

/// A tap, with what is said of it besides.
fn source(more: &str) -> String {
    format!(
        r#"
        [swarm]
        name = "NAME"
        [channel.numbers]
        message = "Number"
        capacity = "4 KiB"
        [agent.source]
        command = ["BIN/numbers", "tap"]
        publishes = ["numbers"]
        {more}
        "#
    )
}

/// Its reader, with what is said of it besides, and who takes what that passes on.
fn with_relay(more: &str) -> String {
    format!(
        r#"
        [channel.relayed]
        message = "Number"
        [agent.relay]
        command = ["BIN/numbers", "relay"]
        subscribes = ["numbers"]
        publishes = ["relayed"]
        {more}
        [agent.sink]
        command = ["BIN/numbers", "sink", "0"]
        subscribes = ["relayed"]
        "#
    )
}

fn write(stage: &Stage, on_gone: &str, more: &str) -> PathBuf {
    let relay = with_relay(&format!("{on_gone}\nrestart = \"temporary\"\n{more}"));
    stage.write("swarm.toml", &format!("{}{relay}", source("")))
}

fn until_sent(shoal: &mut Running<'_>, count: u64) {
    shoal.until_agent("source", &format!("sent {count}"), |a| (a.sent >= count).then_some(()));
}

/// A swarm whose reader of `numbers` was killed with the first of so many numbers in its hand; at least `sent` had been sent.
fn bereaved<'s>(stage: &'s Stage, on_gone: &str, more: &str, wanted: u64, sent: u64) -> Running<'s> {
    let mut shoal = stage.run(&write(stage, on_gone, more));
    shoal.until_ready();
    for name in ["relay", "relay.1", "relay.2"] {
        fs::write(stage.path(&format!("hold-{name}")), "").expect("a hold");
    }
    want(stage, wanted);
    until("a number in hand", || stage.path("held").exists().then_some(()));
    until_sent(&mut shoal, sent);
    let names: Vec<String> = shoal.try_ps().expect("an answer").agents.into_iter().map(|a| a.name).collect();
    for name in names.iter().filter(|name| name.starts_with("relay")) {
        let pid = shoal.pid_of(name);
        assert!(traces::kill(pid, stage.mark()), "{name}");
    }
    shoal
}

fn letters(stage: &Stage) -> Vec<u64> {
    let list = change(stage, &["dlq", "list", "--json", "--swarm", stage.name()]);
    let ids = list["letters"].as_array().expect("a list").iter().map(|letter| letter["id"].as_u64());
    let value = |id: u64| {
        let shown: Value =
            change(stage, &["dlq", "show", &id.to_string(), "--json", "--swarm", stage.name()]);
        assert_eq!(shown["reason"], "its reader is gone", "{shown}");
        let bytes = shown["payload"].as_str().expect("hexadecimal");
        u64::from_str_radix(&bytes[..16], 16).expect("a number").swap_bytes()
    };
    ids.map(|id| value(id.expect("a number"))).collect()
}

fn succeed(shoal: &Running<'_>) {
    let said = || shoal.err().matches("takes over").count();
    let before = said();
    until("a supervisor to kill", || shoal.kill_supervisor().then_some(()));
    until("a successor", || (said() > before).then_some(()));
}

/// Starts the reader again, which lets go of what it holds, and waits until the sink has met so many.
fn restart(stage: &Stage, shoal: &mut Running<'_>, count: u64) {
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    assert_eq!(stage.done(&["start", "relay"]).status, 0, "{}", shoal.err());
    until_met(stage, shoal, count);
}

fn end(stage: &Stage, shoal: Running<'_>) {
    assert_eq!(stage.violations(), "");
    let done = shoal.stop();
    // 1 for the agent that was given up.
    assert!(done.status < 2, "{}", done.err);
    let _ = stage.done(&["dlq", "purge", "--all", "--swarm", stage.name()]);
    stage.assert_nothing_left();
}

#[test]
fn what_a_gone_reader_had_not_read_is_dropped_and_counted_and_its_sender_goes_on() {
    let stage = stage!("gone-drop");
    let mut shoal = bereaved(&stage, "", "", FIT, FIT);
    shoal.until_said(&format!("agent relay is gone, and {FIT} messages that it has not read are dropped"));
    // Three times what the lane holds.
    want(&stage, 200);
    until_sent(&mut shoal, 200);
    assert_eq!(letters(&stage), [0_u64; 0]);
    end(&stage, shoal);
}

/// Through the deaths of its sender and of the supervisor the lane stays full, and not one number is lost.
#[test]
fn what_a_gone_reader_had_not_read_is_kept_until_it_is_started_again() {
    let stage = stage!("gone-block");
    let mut shoal = bereaved(&stage, "on_gone = \"block\"", "", 200, FIT);
    shoal.until_said("agent relay is gone, and its senders wait for it");
    let pid = shoal.pid_of("source");
    assert!(traces::kill(pid, stage.mark()));
    shoal.until_agent("source", "again", |a| (a.generation > 1 && a.state == PsState::Ready).then_some(()));
    succeed(&shoal);
    let source = shoal.until_agent("source", "ready", |a| (a.state == PsState::Ready).then(|| a.clone()));
    // Each of its lives has a ring of its own.
    assert!((FIT..=128).contains(&source.sent), "{} of the 128 that fit two rings", source.sent);
    restart(&stage, &mut shoal, 200);
    assert!(Book::read(&stage.path("sink")).expect("a book").into_iter().eq(0..200));
    end(&stage, shoal);
}

#[test]
fn operator_who_reloads_another_word_lets_the_senders_of_a_gone_reader_go_on() {
    for (word, said) in [("drop", "are dropped"), ("dead-letter", "are put with the dead letters")] {
        let stage = stage!("gone-word");
        let mut shoal = bereaved(&stage, "on_gone = \"block\"", "", 200, FIT);
        shoal.until_said("agent relay is gone, and its senders wait for it");
        write(&stage, &format!("on_gone = \"{word}\""), "");
        let told = change(&stage, &["reload", "--json"]);
        assert_eq!(told["plan"]["settings"][0]["why"][0], "on_gone", "{told}");
        shoal.until_said(said);
        until_sent(&mut shoal, 200);
        if word == "dead-letter" {
            shoal.until_agent("relay", "gone", |a| (a.state == PsState::Failed).then_some(()));
            let found = letters(&stage);
            assert!(
                found.len() as u64 >= FIT && found.iter().copied().eq(0..found.len() as u64),
                "{found:?}"
            );
        }
        end(&stage, shoal);
    }
}

/// Whoever reads in its place and the supervisor are killed again and again meanwhile: each number lies there once, in order; then the
/// reader is started again, and is given all of them.
#[test]
fn what_a_gone_reader_had_not_read_lies_with_the_dead_letters_once_whoever_is_killed() {
    let stage = stage!("gone-letters");
    let mut shoal = bereaved(&stage, "on_gone = \"dead-letter\"", "", FIT, FIT);
    let gone = |shoal: &Running<'_>| {
        let report = shoal.try_ps()?;
        let relay = report.agents.into_iter().find(|a| a.name == "relay")?;
        Some((relay.state == PsState::Failed, relay.pid, relay.generation))
    };
    let mut killed = 0;
    until("the reader is gone for good", || {
        let (over, pid, generation) = gone(&shoal)?;
        if let Some(pid) = pid.filter(|_| generation > 1 && killed < 5) {
            killed += u32::from(traces::kill(pid as i32, stage.mark()));
            if killed % 2 == 0 {
                shoal.kill_supervisor();
            }
        }
        over.then_some(())
    });
    let all: Vec<u64> = (0..FIT).collect();
    assert_eq!(letters(&stage), all, "{}", shoal.err());
    // Nobody waits for it.
    want(&stage, 200);
    until_sent(&mut shoal, 200);
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    assert_eq!(stage.done(&["start", "relay"]).status, 0);
    shoal.until_agent("relay", "ready", |a| (a.state == PsState::Ready).then_some(()));
    let done = stage.done(&["dlq", "replay", "--all"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    until_met(&stage, &mut shoal, FIT);
    assert_eq!(Book::read(&stage.path("sink")).expect("a book"), all);
    assert_eq!(letters(&stage), [0_u64; 0]);
    end(&stage, shoal);
}

/// The last member that goes leaves what none of them has read; the first leaves nothing.
#[test]
fn what_a_gone_group_had_not_read_lies_with_the_dead_letters_once() {
    let stage = stage!("gone-group");
    let mut shoal = bereaved(&stage, "on_gone = \"dead-letter\"", "replicas = 2\nreplicas_max = 2", FIT, FIT);
    shoal.until("both are gone", |report| {
        let mut group = report.agents.iter().filter(|a| a.name.starts_with("relay"));
        group.all(|a| a.state == PsState::Failed).then_some(())
    });
    let mut found = letters(&stage);
    found.sort_unstable();
    assert_eq!(found, (0..FIT).collect::<Vec<_>>(), "{}", shoal.err());
    end(&stage, shoal);
}

#[test]
fn operator_who_starts_a_gone_reader_while_another_reads_in_its_place_gets_the_reader() {
    let stage = stage!("gone-back");
    let mut shoal = bereaved(&stage, "on_gone = \"dead-letter\"", "", FIT, FIT);
    shoal.until_said("are put with the dead letters");
    fs::remove_file(stage.path("hold-relay")).expect("let go");
    let done = stage.done(&["start", "relay"]);
    assert_eq!(done.status, 0, "{}{}", done.out, done.err);
    let want_all = |stage: &Stage| letters(stage).len() as u64 + Book::count(&stage.path("sink"));
    shoal.until_agent("relay", "ready", |a| (a.state == PsState::Ready).then_some(()));
    let arguments = arguments(&mut shoal, "relay");
    assert!(arguments.contains("numbers"), "{arguments}");
    until("every number, here or there", || (want_all(&stage) == FIT).then_some(()));
    end(&stage, shoal);
}

/// Writes a file whose relay can be taken out of it: another reads the same numbers.
fn write_removable(stage: &Stage, more: &str) -> PathBuf {
    let witness = format!(
        r#"
        [agent.witness]
        command = ["BIN/numbers", "sink", "0"]
        env = {{ CHANNEL = "numbers" }}
        subscribes = ["numbers"]
        {more}
        "#
    );
    stage.write("swarm.toml", &format!("{}{witness}", source(HARDY)))
}

/// A swarm whose relay is paused, and has read nothing of so many numbers.
fn removable<'s>(stage: &'s Stage, more: &str) -> Running<'s> {
    let mut shoal = stage.run(&write_removable(stage, &with_relay(more)));
    shoal.until_ready();
    assert_eq!(stage.done(&["pause", "relay"]).status, 0, "{}", shoal.err());
    want(stage, FIT);
    until_sent(&mut shoal, FIT);
    shoal
}

fn until_removed(shoal: &Running<'_>) {
    until("the reader is no more", || {
        let report = shoal.try_ps()?;
        report.agents.iter().all(|agent| !agent.name.starts_with("relay")).then_some(())
    });
}

/// Whoever reads in its place, and the supervisor, are killed meanwhile.
#[test]
fn what_a_removed_reader_had_not_read_lies_with_the_dead_letters_once_whoever_is_killed() {
    let stage = stage!("removed-letters");
    let mut shoal = removable(&stage, "on_gone = \"dead-letter\"");
    write_removable(&stage, "");
    let plan = stage.done(&["reload", "--dry-run"]);
    let said = "stop relay: what it has not read is put with the dead letters\n";
    assert!(plan.out.contains(said), "{}", plan.out);
    let told = change(&stage, &["reload", "--json"]);
    assert_eq!(told["plan"]["left"][0]["name"], "relay", "{told}");
    assert!(told["unread"][0].as_str().is_some_and(|text| text.contains("put with the dead")), "{told}");
    let mut killed = 0;
    until("the reader is no more", || {
        let report = shoal.try_ps()?;
        let relay = report.agents.into_iter().find(|agent| agent.name == "relay");
        if let Some(pid) =
            relay.as_ref().filter(|r| r.generation > 1 && killed < 3).and_then(|relay| relay.pid)
        {
            killed += u32::from(traces::kill(pid as i32, stage.mark()));
            shoal.kill_supervisor();
        }
        relay.is_none().then_some(())
    });
    assert_eq!(letters(&stage), (0..FIT).collect::<Vec<_>>(), "{}", shoal.err());
    // Nobody waits for it, and another reader met all.
    want(&stage, 200);
    until_sent(&mut shoal, 200);
    until("all at the other reader", || (Book::count(&stage.path("witness")) >= 200).then_some(()));
    end(&stage, shoal);
}

/// Through the deaths of its sender and of the supervisor its lane stays full; back in the file it goes on where it was, and not one
/// number is lost. Its sender keeps its process over both reloads.
#[test]
fn what_a_removed_reader_had_not_read_is_kept_until_it_is_back() {
    let stage = stage!("removed-block");
    let mut shoal = removable(&stage, "on_gone = \"block\"");
    let source = shoal.pid_of("source");
    want(&stage, 200);
    write_removable(&stage, "");
    let told = change(&stage, &["reload", "--json"]);
    assert!(
        told["plan"]["left"][0]["why"][0].as_str().is_some_and(|why| why.contains("its senders wait")),
        "{told}"
    );
    until_removed(&shoal);
    shoal.until_said("its senders wait for it, with");
    assert_eq!(shoal.pid_of("source"), source, "removing concerns nobody else");
    assert!(traces::kill(source, stage.mark()));
    shoal.until_agent("source", "again", |a| (a.generation > 1 && a.state == PsState::Ready).then_some(()));
    succeed(&shoal);
    let source = shoal.until_agent("source", "ready", |a| (a.state == PsState::Ready).then(|| a.clone()));
    // Each of its lives has a ring of its own.
    assert!((FIT..=128).contains(&source.sent), "{} of the 128 that fit two rings", source.sent);
    write_removable(&stage, &with_relay("on_gone = \"block\""));
    let told = change(&stage, &["reload", "--json"]);
    assert_eq!(told["plan"]["restart"].as_array().map(Vec::len), Some(0), "{told}");
    until_met(&stage, &mut shoal, 200);
    assert!(Book::read(&stage.path("sink")).expect("a book").into_iter().eq(0..200));
    assert_eq!(Some(shoal.pid_of("source") as u32), source.pid, "nor does its return");
    assert_eq!(letters(&stage), [0_u64; 0]);
    end(&stage, shoal);
}

/// Goal: one reload lets go of what is kept for a removed reader, as it removes it or later, and starts nobody. Method: its `block` has another
/// word on the command line; its senders go on, also under the next supervisor.
#[test]
fn operator_lets_go_of_what_is_kept_for_a_removed_reader_with_one_reload() {
    let hint = "`shoal reload --on-gone drop` (or `dead-letter`) lets go of it";
    let ways = ["with its removal", "once it is removed", "once it is scaled to nothing"];
    for (word, way) in ["drop", "dead-letter"].into_iter().flat_map(|word| ways.map(|way| (word, way))) {
        let stage = stage!("removed-let-go");
        let mut shoal = removable(&stage, "on_gone = \"block\"");
        let source = shoal.pid_of("source");
        let becomes = if word == "drop" { "dropped" } else { "put with the dead letters" };
        let mut line = format!("settings of relay: on_gone; what it has not read is {becomes}\n");
        if way == "once it is scaled to nothing" {
            assert_eq!(change(&stage, &["scale", "relay", "0", "--json"])["outcome"], "applied");
            shoal.until_said("until `shoal reload` or `shoal scale` brings it back");
            write_removable(&stage, "");
        } else {
            write_removable(&stage, "");
            let plan = stage.done(&["reload", "--dry-run"]);
            let kept =
                "stop relay: what it has not read is kept for it until it is back, and its senders wait";
            assert!(plan.out.contains(&format!("{kept}; {hint}\n")), "{}", plan.out);
        }
        if way == "once it is removed" {
            assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
            shoal.until_said(hint);
            assert_eq!(
                change(&stage, &["reload", "--json"])["outcome"],
                "unchanged",
                "nothing is lost unasked"
            );
        } else if way == "with its removal" {
            line = format!("stop relay: what it has not read is {becomes}\n");
        }
        let plan = stage.done(&["reload", "--on-gone", word, "--dry-run"]);
        assert!(plan.out.contains(&line), "{way}: {}", plan.out);
        let told = change(&stage, &["reload", "--on-gone", word, "--json"]);
        let unread = format!(
            "{FIT} messages of channel numbers were not read by relay, which is removed, and are {becomes}"
        );
        assert_eq!((&told["unread"][0], &told["unread"][1]), (&unread.into(), &Value::Null), "{told}");
        until_removed(&shoal);
        assert_eq!(shoal.pid_of("source"), source, "nobody is started again for it");
        succeed(&shoal);
        want(&stage, 200);
        until_sent(&mut shoal, 200);
        let expected = if word == "drop" { 0 } else { FIT };
        assert!(letters(&stage).into_iter().eq(0..expected), "{word}, {way}: {}", shoal.err());
        assert_eq!(Book::count(&stage.path("sink")), 0, "it was not started once more");
        let events = stage.done(&["events"]);
        assert!(events.out.contains(&format!("shoal reload --on-gone {word}")), "{}", events.out);
        end(&stage, shoal);
    }
}

#[test]
fn change_of_a_lane_that_a_removed_reader_is_waited_for_on_is_undone_and_says_what_lets_go_of_it() {
    let stage = stage!("removed-in-the-way");
    let mut shoal = removable(&stage, "on_gone = \"block\"");
    let file = write_removable(&stage, "");
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    let as_it_was = fs::read_to_string(&file).expect("the file");
    let resized = as_it_was.replace("4 KiB", "8 KiB");
    fs::write(&file, &resized).expect("written");
    let undone = stage.done(&["reload", "--timeout", "100ms"]);
    let said = "what source sent was not read in time, and must be before its memory or its readers change: relay should, which is removed and \
                waited for; with the file as it was, `shoal reload --on-gone drop`";
    assert!(undone.status == 1 && undone.err.contains(said), "{}", undone.err);
    for (text, options) in [(as_it_was, &["--on-gone", "drop"][..]), (resized, &[])] {
        fs::write(&file, text).expect("written");
        assert_eq!(change(&stage, &[&["reload", "--json"], options].concat())["outcome"], "applied");
    }
    want(&stage, 200);
    until_sent(&mut shoal, 200);
    until("all at the other reader", || (Book::count(&stage.path("witness")) >= 200).then_some(()));
    end(&stage, shoal);
}

/// No replica of a group is left: by its word, and by what else comes it is one again.
#[test]
fn what_a_group_had_not_read_that_is_scaled_to_nothing_goes_by_its_word() {
    for word in ["drop", "dead-letter", "block"] {
        let stage = stage!("removed-scale");
        let more = format!("on_gone = \"{word}\"\n{HARDY}\nreplicas = 2\nreplicas_max = 3");
        let mut shoal = removable(&stage, &more);
        let source = shoal.pid_of("source");
        let told = change(&stage, &["scale", "relay", "0", "--json"]);
        assert_eq!(told["plan"]["left"].as_array().map(Vec::len), Some(2), "{told}");
        until_removed(&shoal);
        want(&stage, 200);
        if word == "block" {
            assert_eq!(change(&stage, &["scale", "relay", "3", "--json"])["outcome"], "applied");
            until_met(&stage, &mut shoal, 200);
            let mut met = Book::read(&stage.path("sink")).expect("a book");
            met.sort_unstable();
            assert!(met.into_iter().eq(0..200), "each once");
            // Fewer is no end while others read on.
            assert_eq!(change(&stage, &["scale", "relay", "1", "--json"])["outcome"], "applied");
            want(&stage, 400);
            until_met(&stage, &mut shoal, 400);
            assert_eq!(shoal.pid_of("source"), source, "it was waited for: nobody else is started again");
        } else {
            until_sent(&mut shoal, 200);
            let mut found = letters(&stage);
            found.sort_unstable();
            let expected = if word == "drop" { 0 } else { FIT };
            assert!(found.iter().copied().eq(0..expected), "{word}: {found:?}");
        }
        end(&stage, shoal);
    }
}

/// Goal: a change waits for who reads in the place of one that is gone, and is undone if that takes too long. Method: a plain file lies
/// where letters are to be put, so that each attempt fails; then it is taken away.
#[test]
fn reader_that_is_back_in_the_file_waits_until_its_letters_lie_where_they_are_to() {
    let stage = stage!("removed-waits");
    let more = format!("on_gone = \"dead-letter\"\n{HARDY}");
    let mut shoal = removable(&stage, &more);
    let folder = stage.run_folder().join("dead-letters");
    let _ = fs::remove_dir(&folder);
    fs::write(&folder, "").expect("in the way");
    write_removable(&stage, "");
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    for order in ["start", "stop", "restart"] {
        let done = stage.done(&[order, "relay"]);
        assert_eq!(done.status, 1, "{}{}", done.out, done.err);
        assert!(done.err.contains("relay is removed"), "{}", done.err);
    }
    write_removable(&stage, &with_relay(&more));
    let done = stage.done(&["reload", "--timeout", "100ms"]);
    assert_eq!(done.status, 1, "{}{}", done.out, done.err);
    assert!(
        done.err.contains("what relay has not read was not put with the dead letters in time"),
        "{}",
        done.err
    );
    fs::remove_file(&folder).expect("out of the way");
    assert_eq!(change(&stage, &["reload", "--json"])["outcome"], "applied");
    assert_eq!(letters(&stage), (0..FIT).collect::<Vec<_>>(), "{}", shoal.err());
    want(&stage, 200);
    until_met(&stage, &mut shoal, 200 - FIT);
    assert!(
        Book::read(&stage.path("sink")).expect("a book").into_iter().eq(FIT..200),
        "what is sent from then on"
    );
    end(&stage, shoal);
}

/// Goal: wherever in a removal the supervisor dies, what the removed one had not read lies with the dead letters once, or it is not
/// removed. Method: SIGKILL instead of one of its system calls, drawn from all after it opened the changed file, or from those around the
/// exchange; a removal that came to nothing is asked for again.
#[test]
fn supervisor_may_die_at_any_system_call_of_a_removal() {
    const EACH: u64 = 6;
    let stage = stage!("removed-anywhere");
    let back = with_relay(&format!("on_gone = \"dead-letter\"\n{HARDY}"));
    let (mut shoal, failing) = Failing::run(&stage, &write_removable(&stage, &back), None);
    let (mut chance, mut calls, mut deaths) = (Chance::seeded(), 0, 0);
    for round in 0..16 {
        shoal.until_ready();
        assert_eq!(stage.done(&["pause", "relay"]).status, 0, "{}", shoal.err());
        want(&stage, (round + 1) * EACH);
        until_sent(&mut shoal, (round + 1) * EACH);
        write_removable(&stage, "");
        let before = failing.seen();
        // The first is not disturbed: so many calls there are.
        match round {
            0 => {}
            _ if chance.below(2) == 0 => failing.kill_supervisor_at(chance.below(calls), "swarm.toml"),
            // Around the exchange, which begins with this.
            _ => failing.kill_supervisor_at(chance.below(120), "shoal-journal"),
        }
        let _ = stage.done(&["reload"]);
        let mut asked = 1;
        until("the reader is no more", || {
            let report = shoal.try_ps()?;
            let relay = report.agents.iter().find(|agent| agent.name == "relay");
            if asked == 1 && relay.is_some_and(|relay| relay.state == PsState::Paused) {
                asked += u64::from(stage.done(&["reload"]).status == 0);
            }
            relay.is_none().then_some(())
        });
        if round == 0 {
            calls = failing.seen() - before;
        }
        deaths += u64::from(failing.spare_supervisor() && round > 0);
        let due: Vec<u64> = (round * EACH..(round + 1) * EACH).collect();
        assert_eq!(letters(&stage), due, "in round {round}: {}", shoal.err());
        assert_eq!(stage.done(&["dlq", "purge", "--all"]).status, 0);
        write_removable(&stage, &back);
        until("the reader is back", || (stage.done(&["reload"]).status == 0).then_some(()));
    }
    assert!(deaths > 5, "of {calls} calls only {deaths} were a supervisor's last");
    end(&stage, shoal);
}

/// A reader of one of two channels, each with a tap and another reader.
fn write_reader(stage: &Stage, channel: &str, on_gone: &str) -> PathBuf {
    let text = format!(
        r#"
        {}
        [channel.others]
        message = "Number"
        [agent.other]
        command = ["BIN/numbers", "tap"]
        env = {{ ON = "others" }}
        publishes = ["others"]
        [agent.witness]
        command = ["BIN/numbers", "sink", "0"]
        env = {{ CHANNEL = "numbers" }}
        subscribes = ["numbers"]
        [agent.second]
        command = ["BIN/numbers", "sink", "0"]
        env = {{ CHANNEL = "others" }}
        subscribes = ["others"]
        [agent.reader]
        command = ["BIN/numbers", "sink", "0"]
        env = {{ CHANNEL = "{channel}" }}
        subscribes = ["{channel}"]
        on_gone = "{on_gone}"
        "#,
        source("")
    );
    stage.write("swarm.toml", &text)
}

/// A swarm whose reader is paused, and has read nothing of so many numbers.
fn behind<'s>(stage: &'s Stage, on_gone: &str) -> Running<'s> {
    let mut shoal = stage.run(&write_reader(stage, "numbers", on_gone));
    shoal.until_ready();
    assert_eq!(stage.done(&["pause", "reader"]).status, 0, "{}", shoal.err());
    want(stage, FIT);
    until_sent(&mut shoal, FIT);
    shoal
}

#[test]
fn what_an_agent_had_not_read_of_a_channel_that_it_subscribes_no_more_is_dropped_and_told() {
    let stage = stage!("unsubscribed-drop");
    let mut shoal = behind(&stage, "drop");
    write_reader(&stage, "others", "drop");
    let plan = stage.done(&["reload", "--dry-run"]);
    assert!(plan.out.contains("what it has not read of numbers is dropped"), "{}", plan.out);
    let told = change(&stage, &["reload", "--json"]);
    let said = format!(
        "{FIT} messages of channel numbers were not read by reader, which subscribes it no more, and are dropped"
    );
    assert_eq!(told["unread"][0], said, "{told}");
    assert_eq!(Book::count(&stage.path("reader")), 0);
    // Nobody waits for it on that channel.
    want(&stage, 200);
    until_sent(&mut shoal, 200);
    until("all at the other reader", || (Book::count(&stage.path("witness")) >= 200).then_some(()));
    assert_eq!(shoal.stop().status, 0);
    stage.assert_nothing_left();
}

#[test]
fn what_an_agent_had_not_read_of_a_channel_that_it_subscribes_no_more_is_read_first_if_it_is_to_be() {
    for on_gone in ["dead-letter", "block"] {
        let stage = stage!("unsubscribed-read");
        let mut shoal = behind(&stage, on_gone);
        write_reader(&stage, "others", on_gone);
        let plan = stage.done(&["reload", "--dry-run"]);
        assert!(plan.out.contains("what it has not read of numbers is read first"), "{}", plan.out);
        // Paused it does not read, so nothing comes of it.
        let late = stage.done(&["reload", "--timeout", "300ms"]);
        assert_eq!(late.status, 1, "{} {}", late.out, late.err);
        shoal.until_said("was not read in time");
        shoal.until_agent("source", "again", |a| (a.state == PsState::Ready).then_some(()));
        assert_eq!(Book::count(&stage.path("reader")), 0);
        let reload = stage.start(stage.shoal(&["reload", "--json"]));
        shoal.until_agent("source", "stopped for it", |a| (a.state != PsState::Ready).then_some(()));
        assert_eq!(stage.done(&["resume", "reader"]).status, 0, "{}", shoal.err());
        let done = reload.ended();
        assert_eq!(done.status, 0, "{} {}", done.out, done.err);
        assert!(Book::read(&stage.path("reader")).expect("a book").into_iter().eq(0..FIT));
        // From here on it reads the others: those that are sent from now on.
        want(&stage, 2 * FIT);
        until("the others' numbers", || (Book::count(&stage.path("reader")) >= 2 * FIT).then_some(()));
        assert!(Book::read(&stage.path("reader")).expect("a book").into_iter().eq(0..2 * FIT));
        assert_eq!(stage.violations(), "");
        assert_eq!(shoal.stop().status, 0);
        stage.assert_nothing_left();
    }
}
