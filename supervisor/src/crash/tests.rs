#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;

/// A report of everything that a report can hold.
pub(crate) fn crash(id: u64) -> Crash {
    let message = "lister/tasks/4096".to_owned();
    Crash {
        id,
        swarm: "s".into(),
        run: "f".into(),
        agent: "worker.2".into(),
        generation: 3,
        pid: 77,
        at: "2026-11-22T18:07:39.123Z".into(),
        lived_ms: 12_345,
        state: "ready".into(),
        how: "was killed by SIGSEGV".into(),
        status: None,
        signal: Some(11),
        signal_name: Some("SIGSEGV".into()),
        usage: Some(Usage { user_us: 5, max_rss_kib: 900, ..Usage::default() }),
        core: Some(Core { path: None, pattern: "|/usr/lib/handler".into() }),
        ordered: false,
        by: Some("its deadline".into()),
        verdict: "corrupt".into(),
        in_hand: Some(InHand {
            message: message.clone(),
            producer: "lister".into(),
            channel: "tasks".into(),
            position: 4096,
            sequence: 60,
            attempt: 2,
            attempts_max: 3,
            held_ms: 7,
        }),
        received: vec![Seen { message: message.clone(), attempt: 2, before_end_ms: Some(8) }],
        sent: vec![Seen { message: "worker.2/counts/64".into(), attempt: 0, before_end_ms: None }],
        counts: Counts { received: 59, ..Counts::default() },
        output: vec!["a last line".into()],
        decision: Decision {
            what: What::Pauses,
            why: "death 4 of at most 10 within 1s of its life".into(),
            pause_us: Some(20_000),
            counted: true,
            deaths: 4,
            deaths_max: 10,
            period_ms: 1000,
        },
    }
}

fn filed(crashes: &mut Crashes) -> (u64, Filed) {
    let id = crashes.number();
    (id, crashes.file(crash(id)))
}

#[test]
fn a_report_comes_back_whole_and_numbers_go_on_with_the_next_run() {
    let logs = tempfile::tempdir().unwrap();
    assert!(list(logs.path()).unwrap().is_empty());
    let mut crashes = Crashes::in_folder(logs.path(), BOUNDS).unwrap();
    assert!(matches!(filed(&mut crashes), (1, Filed::Written)));
    assert_eq!(read(logs.path(), 1).unwrap(), Some(crash(1)));
    let mut again = Crashes::in_folder(logs.path(), BOUNDS).unwrap();
    assert!(matches!(filed(&mut again), (2, Filed::Written)));
    assert_eq!(list(logs.path()).unwrap(), [crash(1), crash(2)]);
    assert_eq!(read(logs.path(), 3).unwrap(), None);
    fs::write(logs.path().join("crashes/2.json"), "no report").unwrap();
    let error = list(logs.path()).unwrap_err().to_string();
    assert!(error.contains("2.json is no crash report of this build"), "{error}");
}

#[test]
fn a_storm_leaves_the_last_reports_in_files_and_in_memory() {
    let logs = tempfile::tempdir().unwrap();
    let mut crashes = Crashes::in_folder(logs.path(), Bounds { count: 5, bytes: 1 << 20 }).unwrap();
    (0..100).for_each(|_| assert!(matches!(filed(&mut crashes).1, Filed::Written)));
    let there: Vec<u64> = list(logs.path()).unwrap().iter().map(|crash| crash.id).collect();
    assert_eq!(there, [96, 97, 98, 99, 100]);
    let kept: Vec<u64> = crashes.kept().map(|crash| crash.id).collect();
    assert_eq!((kept.len(), kept[0]), (IN_MEMORY_MAX, 69));
}

#[test]
fn what_cannot_be_written_is_in_memory_and_said_once_until_it_can() {
    let logs = tempfile::tempdir().unwrap();
    let mut crashes = Crashes::in_folder(logs.path(), BOUNDS).unwrap();
    // In the way of the folder.
    fs::write(logs.path().join(FOLDER), "").unwrap();
    let (_, Filed::InMemory(Some(said))) = filed(&mut crashes) else { panic!("written through a file") };
    assert!(said.contains("crash reports cannot be written to") && said.contains("crashes"), "{said}");
    assert!(matches!(filed(&mut crashes).1, Filed::InMemory(None)));
    fs::remove_file(logs.path().join(FOLDER)).unwrap();
    assert!(matches!(filed(&mut crashes).1, Filed::Written));
    fs::remove_dir_all(logs.path().join(FOLDER)).unwrap();
    fs::write(logs.path().join(FOLDER), "").unwrap();
    assert!(matches!(filed(&mut crashes).1, Filed::InMemory(Some(_))), "it is said again");
    assert_eq!(crashes.kept().map(|crash| crash.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn the_page_says_all_that_is_known() {
    let page = page::page(&crash(12));
    for text in [
        "crash 12: worker.2 (generation 3, process 77) was killed by SIGSEGV",
        "12.3 s, its state was: ready",
        "its deadline",
        "started again after 20 ms: death 4 of at most 10",
        "lister/tasks/4096 (number 60), attempt 2 of 3, for 7 ms",
        "59 received",
        "its verdict is: corrupt",
        "900 KiB at most",
        "|/usr/lib/handler",
        "  lister/tasks/4096, attempt 2, 8 ms before its end",
        "  worker.2/counts/64\n",
        "  | a last line",
    ] {
        assert!(page.contains(text), "{text} in\n{page}");
    }
    let table = page::table(&[crash(12)]);
    assert!(table.contains("was killed by SIGSEGV") && table.lines().count() == 2, "{table}");
}
