#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::PermissionsExt;

fn letter(position: u64, bytes: u64) -> Letter {
    let report = Report {
        generation: 2,
        at: "2026-11-22T18:07:39.123Z".into(),
        how: "was killed by SIGSEGV".into(),
        status: None,
        signal: Some(11),
        output: vec!["a last line".into()],
    };
    Letter {
        id: 0,
        message: format!("lister/tasks/{position}"),
        swarm: "s".into(),
        run: "f".into(),
        channel: "tasks".into(),
        message_type: "Task".into(),
        fingerprint: "1".into(),
        producer: "lister".into(),
        position,
        agent: "worker.2".into(),
        group: "worker".into(),
        attempts: 3,
        rejected: false,
        reason: "was killed by SIGSEGV".into(),
        first: String::new(),
        parked: String::new(),
        bytes,
        kept: true,
        reports: vec![report; 3],
    }
}

fn store(folder: &Path, count: u32, bytes: u64) -> DeadLetters {
    DeadLetters::open(folder, Bounds { count, bytes }).unwrap()
}

fn ids(folder: &Path) -> Vec<u64> {
    list(folder).unwrap().iter().map(|letter| letter.id).collect()
}

#[test]
fn a_letter_comes_back_whole_also_to_the_next_supervisor_and_numbers_go_on() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(FOLDER);
    assert!(list(&folder).unwrap().is_empty() && read(&folder, 1).unwrap().is_none());
    let bytes: Vec<u8> = (0..=255).chain(*b"\n{}\n").collect();
    let kept = store(&folder, 9, 1 << 20).keep(letter(64, 260), &bytes).unwrap();
    assert_eq!(kept, Kept { id: 1, whole: true, dropped: Vec::new() });
    let again = store(&folder, 9, 1 << 20).keep(letter(128, 0), b"").unwrap();
    assert_eq!(again.id, 2, "the first one's number is taken");
    let expected = Letter { id: 1, ..letter(64, 260) };
    assert_eq!(read(&folder, 1).unwrap(), Some((expected, bytes)));
    assert_eq!(read(&folder, 2).unwrap().unwrap().1, b"");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("1.letter"))), (0o700, 0o600));
    assert!(remove(&folder, 1).unwrap() && !remove(&folder, 1).unwrap());
    assert!(remove(&folder, 2).unwrap() && !folder.exists(), "nothing is left of the last one");
}

#[test]
fn what_is_too_much_is_dropped_oldest_first_and_told() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join(FOLDER);
    let mut letters = store(&folder, 3, 1 << 20);
    for position in 1..=3 {
        assert!(letters.keep(letter(position, 1), b"x").unwrap().dropped.is_empty());
    }
    assert_eq!(letters.keep(letter(4, 1), b"x").unwrap().dropped, [1]);
    assert_eq!(ids(&folder), [2, 3, 4]);
    // What an operator has purged meanwhile makes room.
    assert!(remove(&folder, 3).unwrap());
    assert!(letters.keep(letter(5, 1), b"x").unwrap().dropped.is_empty());
    assert_eq!(ids(&folder), [2, 4, 5]);
    let facts = fs::metadata(folder.join("5.letter")).unwrap().len();
    let mut letters = store(&folder, 100, 3 * facts + 700);
    assert_eq!(letters.keep(letter(6, 600), &[7; 600]).unwrap().dropped, [2], "bytes count as well");
    assert_eq!(ids(&folder), [4, 5, 6]);
}

#[test]
fn a_message_larger_than_all_may_be_together_leaves_its_facts() {
    let place = tempfile::tempdir().unwrap();
    let mut letters = store(place.path(), 9, 4096);
    letters.keep(letter(1, 1), b"x").unwrap();
    let kept = letters.keep(letter(2, 5000), &[7; 5000]).unwrap();
    assert_eq!((kept.id, kept.whole), (2, false));
    let (facts, bytes) = read(place.path(), 2).unwrap().unwrap();
    assert_eq!((facts.kept, facts.bytes, bytes.len()), (false, 5000, 0));
}

#[test]
fn half_written_letters_are_swept_and_files_that_are_none_are_named() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("8.new"), "{\"id\":").unwrap();
    let mut letters = store(place.path(), 9, 1 << 20);
    assert!(!place.path().join("8.new").exists());
    letters.keep(letter(1, 4), b"four").unwrap();
    let path = place.path().join("1.letter");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = read(place.path(), 1).unwrap_err().to_string();
    assert!(error.contains("1.letter") && error.contains("length"), "{error}");
    fs::write(&path, "no letter").unwrap();
    let error = list(place.path()).unwrap_err().to_string();
    assert!(error.contains("1.letter is no dead letter of this build"), "{error}");
}
