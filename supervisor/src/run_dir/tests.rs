use super::*;
use crate::log::report;
use std::io::BufRead;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

const CLAIMED_BY_CHILD: &str = "SHOAL_TEST_CLAIM";

fn fresh() -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(&dir.path().join("shoal"));
    (dir, place)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Not a test by itself: what `claimed_by_child` starts. Claims a name and sleeps until it is killed.
#[test]
fn a_child_claims_a_name_and_waits_to_be_killed() {
    let Some(path) = std::env::var_os(CLAIMED_BY_CHILD) else { return };
    let dir = RunDir::claim_in(&Place::at(Path::new(&path)), "killed").unwrap();
    fs::write(dir.socket(), "stale").unwrap();
    fs::write(dir.logs().join("worker.log"), "stale").unwrap();
    report!("claimed");
    std::thread::sleep(Duration::from_secs(60));
}

fn claimed_by_child(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run_dir::tests::a_child_claims_a_name_and_waits_to_be_killed", "--nocapture"])
        .env(CLAIMED_BY_CHILD, place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "claimed"), "the child ended before it claimed the name");
    child
}

#[test]
fn claimed_folder_is_closed_to_others_and_gone_after_drop() {
    let (_dir, place) = fresh();
    let run = RunDir::claim_in(&place, "a-swarm_1").unwrap();
    assert_eq!(mode(place.path()), 0o700);
    assert_eq!(mode(run.path()), 0o700);
    assert_eq!(mode(&run.logs()), 0o700);
    assert_eq!(mode(&run.path().join("lock")), 0o600);
    fs::write(run.logs().join("x.log"), "x").unwrap();
    let path = run.path().to_owned();
    drop(run);
    assert!(!path.exists());
    let run = RunDir::claim_in(&place, "a-swarm_1").unwrap();
    run.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn second_claim_of_a_name_names_the_pid_of_the_first() {
    let (_dir, place) = fresh();
    let first = RunDir::claim_in(&place, "x").unwrap();
    let refused = RunDir::claim_in(&place, "x").unwrap_err();
    assert!(matches!(&refused, ClaimError::Running { pid, .. } if *pid == Some(std::process::id())));
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    let other = RunDir::claim_in(&place, "y").unwrap();
    drop(first);
    drop(RunDir::claim_in(&place, "x").unwrap());
    drop(other);
}

/// Goal: a killed supervisor's name is free at once and its leavings are gone. Method: a real process, SIGKILL.
#[test]
fn name_of_a_killed_holder_is_claimed_and_its_leavings_are_swept() {
    let (_dir, place) = fresh();
    let mut child = claimed_by_child(&place);
    let refused = RunDir::claim_in(&place, "killed").unwrap_err();
    assert!(matches!(refused, ClaimError::Running { pid, .. } if pid == Some(child.id())));
    let running = list_running_in(&place).unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!((running[0].name.as_str(), running[0].pid), ("killed", Some(child.id())));
    child.kill().unwrap();
    child.wait().unwrap();
    let run = RunDir::claim_in(&place, "killed").unwrap();
    assert!(!run.socket().exists());
    assert_eq!(fs::read_dir(run.logs()).unwrap().count(), 0);
}

#[test]
fn listing_sweeps_the_folder_of_a_killed_holder() {
    let (_dir, place) = fresh();
    let mut child = claimed_by_child(&place);
    let living = RunDir::claim_in(&place, "living").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let names: Vec<String> = list_running_in(&place).unwrap().into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["living"]);
    assert!(!place.path().join("killed").exists());
    drop(living);
    assert_eq!(list_running_in(&place).unwrap(), []);
}

#[test]
fn listing_of_no_place_is_empty_and_makes_none() {
    let (_dir, place) = fresh();
    assert_eq!(list_running_in(&place).unwrap(), []);
    assert!(!place.path().exists());
}

/// Goal: never two holders, never a claim that fails though nobody holds. Method: threads that claim, list and
/// remove the same name as fast as they can.
#[test]
fn claims_at_once_have_exactly_one_winner_and_listings_disturb_none() {
    let (_dir, place) = fresh();
    let (holders, wins) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    match RunDir::claim_in(&place, "raced") {
                        Ok(run) => {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders at once");
                            assert!(run.logs().is_dir());
                            wins.fetch_add(1, Ordering::SeqCst);
                            holders.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(ClaimError::Running { .. }) => {}
                        // The folder was removed by its holder between the steps of making it.
                        Err(ClaimError::System { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                            panic!("a claim failed on a removed folder: {error}")
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..300 {
                list_running_in(&place).unwrap();
            }
        });
    });
    assert!(wins.load(Ordering::SeqCst) > 0);
    assert!(!place.path().exists(), "something is left");
}

#[test]
fn lock_on_a_file_that_was_removed_or_replaced_meanwhile_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let first = open();
    fs::remove_file(&path).unwrap();
    assert!(matches!(take_lock(first, &path).unwrap(), Lock::Gone));
    let first = open();
    fs::remove_file(&path).unwrap();
    let second = open();
    assert!(matches!(take_lock(first, &path).unwrap(), Lock::Gone));
    assert!(matches!(take_lock(second, &path).unwrap(), Lock::Ours(_)));
}

#[test]
fn lister_that_holds_a_dead_lock_does_not_refuse_a_claimant() {
    let (_dir, place) = fresh();
    let path = place.path().join("x");
    make_dir(place.path()).unwrap();
    make_dir(&path).unwrap();
    let Ok(Lock::Ours(held)) = try_lock(&path.join("lock"), true) else { panic!("not locked") };
    std::thread::scope(|scope| {
        let claimant = scope.spawn(|| RunDir::claim_in(&place, "x").map(drop));
        std::thread::sleep(Duration::from_millis(50));
        dismantle(&path).unwrap();
        drop(held);
        claimant.join().unwrap().unwrap();
    });
}

#[test]
fn symlinked_place_is_refused() {
    let (dir, place) = fresh();
    let elsewhere = dir.path().join("elsewhere");
    DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
    symlink(&elsewhere, place.path()).unwrap();
    let refused = RunDir::claim_in(&place, "x").unwrap_err();
    assert!(matches!(refused, ClaimError::Unsafe { .. }), "{refused}");
    assert!(refused.to_string().contains("symbolic link"), "{refused}");
    assert!(list_running_in(&place).is_err());
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn symlinked_folder_of_a_swarm_is_refused_and_its_target_kept() {
    let (dir, place) = fresh();
    let victim = dir.path().join("victim");
    DirBuilder::new().mode(0o700).create(&victim).unwrap();
    fs::write(victim.join("precious"), "x").unwrap();
    make_dir(place.path()).unwrap();
    symlink(&victim, place.path().join("x")).unwrap();
    assert!(matches!(RunDir::claim_in(&place, "x").unwrap_err(), ClaimError::Unsafe { .. }));
    assert_eq!(list_running_in(&place).unwrap(), []);
    assert!(victim.join("precious").exists());
}

#[test]
fn symlinked_lock_is_refused_and_symlinks_inside_are_removed_not_followed() {
    let (dir, place) = fresh();
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("precious"), "x").unwrap();
    make_dir(place.path()).unwrap();
    make_dir(&place.path().join("x")).unwrap();
    symlink(victim.join("precious"), place.path().join("x/lock")).unwrap();
    assert!(RunDir::claim_in(&place, "x").is_err());
    fs::remove_file(place.path().join("x/lock")).unwrap();
    symlink(&victim, place.path().join("x/logs")).unwrap();
    let run = RunDir::claim_in(&place, "x").unwrap();
    assert!(fs::symlink_metadata(run.logs()).unwrap().is_dir());
    drop(run);
    assert_eq!(fs::read(victim.join("precious")).unwrap(), b"x");
}

#[test]
fn place_that_others_may_enter_or_that_is_a_file_is_refused() {
    let (_dir, place) = fresh();
    fs::create_dir(place.path()).unwrap();
    for bits in [0o755, 0o770, 0o701, 0o777] {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(bits)).unwrap();
        let refused = RunDir::claim_in(&place, "x").unwrap_err();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
    }
    fs::remove_dir(place.path()).unwrap();
    fs::write(place.path(), "").unwrap();
    assert!(RunDir::claim_in(&place, "x").unwrap_err().to_string().contains("not a folder"));
}

#[test]
fn place_of_another_user_is_refused() {
    if own_uid() != 0 {
        return; // only root can make a folder that is not its own
    }
    let (_dir, place) = fresh();
    make_dir(place.path()).unwrap();
    std::os::unix::fs::chown(place.path(), Some(4242), None).unwrap();
    assert!(RunDir::claim_in(&place, "x").unwrap_err().to_string().contains("belongs to user 4242"));
}

#[test]
fn name_that_leaves_the_folder_is_refused() {
    let (_dir, place) = fresh();
    for name in ["", ".", "..", "a/b", "a.b", "ä", "a b", "a\n", &"x".repeat(65)] {
        assert!(matches!(RunDir::claim_in(&place, name), Err(ClaimError::Name(_))), "{name:?}");
    }
    assert!(!place.path().exists());
}

#[test]
fn runtime_folder_is_the_one_that_is_named_or_one_in_tmp() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Place::chosen(Some(dir.path().into())).unwrap().path(), dir.path().join("shoal"));
    let in_tmp = PathBuf::from(format!("/tmp/shoal-{}", own_uid()));
    for unnamed in [None, Some("".into())] {
        assert_eq!(Place::chosen(unnamed).unwrap().path(), in_tmp);
    }
}

#[test]
fn runtime_folder_that_is_named_and_cannot_be_used_is_told_and_no_other_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let of_another = dir.path().join("theirs");
    fs::create_dir(&of_another).unwrap();
    let mut cases = vec![
        (PathBuf::from("relative"), "no absolute path"),
        (dir.path().join("absent"), "No such file"),
        (file, "not a folder"),
    ];
    match own_uid() {
        0 => {
            std::os::unix::fs::chown(&of_another, Some(4242), Some(4243)).unwrap();
            cases.push((
                of_another,
                "user 4242, not to user 0 (its swarms hear `setpriv --reuid=4242 --regid=4243 ",
            ));
        }
        _ => cases.push(("/".into(), "belongs to user 0, not to user ")),
    }
    for (path, what) in cases {
        let refused = Place::chosen(Some(path.clone())).unwrap_err().to_string();
        for word in ["XDG_RUNTIME_DIR is ", path.to_str().unwrap(), what, "unset it for /tmp/shoal-"] {
            assert!(refused.contains(word), "{word:?} is not in {refused}");
        }
    }
}

#[test]
fn garbage_in_a_lock_file_is_overwritten() {
    let (_dir, place) = fresh();
    make_dir(place.path()).unwrap();
    make_dir(&place.path().join("x")).unwrap();
    fs::write(place.path().join("x/lock"), [0xFF; 5000]).unwrap();
    let run = RunDir::claim_in(&place, "x").unwrap();
    assert_eq!(list_running_in(&place).unwrap()[0].pid, Some(std::process::id()));
    drop(run);
}
