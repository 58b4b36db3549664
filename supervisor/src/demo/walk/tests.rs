//! Tests of the walk, and of going on with one.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

fn by_name(walk: &Walk) -> BTreeMap<Vec<u8>, Kind> {
    walk.entries.iter().map(|e| (e.path.as_os_str().as_bytes().to_vec(), e.kind.clone())).collect()
}

#[test]
fn odd_names_are_files_in_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&[u8]; 8] = [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"a-b", b"a/b", b"a.b", b"\\\"'\x01"];
    fs::create_dir(dir.path().join("a")).unwrap();
    for name in names {
        fs::write(dir.path().join(OsString::from_vec(name.to_vec())), name).unwrap();
    }
    let walked = walk(dir.path(), false).unwrap();
    let found: Vec<_> = walked.entries.iter().map(|e| e.path.as_os_str().as_bytes()).collect();
    let mut expected = names.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    for (entry, name) in walked.entries.iter().zip(expected) {
        assert!(matches!(entry.kind, Kind::File(Seen { size_bytes, .. }) if size_bytes == name.len() as u64));
    }
}

#[test]
fn links_fifos_sockets_and_devices_are_skipped_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink(".", at("loop")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let found = by_name(&walk(dir.path(), false).unwrap());
    let skipped = |name: &str| found[name.as_bytes()].clone();
    assert_eq!(found.len(), 4);
    assert_eq!(skipped("loop"), Kind::Skipped("symbolic link".into()));
    assert_eq!(skipped("dangling"), Kind::Skipped("symbolic link".into()));
    assert_eq!(skipped("fifo"), Kind::Skipped("FIFO".into()));
    assert_eq!(skipped("socket"), Kind::Skipped("socket".into()));
    let devices = by_name(&walk(Path::new("/dev"), false).unwrap());
    assert_eq!(devices[b"null".as_slice()], Kind::Skipped("character device".into()));
}

#[test]
fn default_walk_leaves_out_folders_named_target_or_git_and_a_named_one_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["target", "sub/.git", "targets"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("file"), "x").unwrap();
    }
    fs::write(dir.path().join("sub/target"), "a file of that name is no folder").unwrap();
    let names = |skip| by_name(&walk(dir.path(), skip).unwrap()).into_keys().collect::<Vec<_>>();
    assert_eq!(names(true), [b"sub/target".to_vec(), b"targets/file".to_vec()]);
    assert_eq!(names(false).len(), 4);
}

#[test]
fn missing_folder_and_a_file_in_its_place_are_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let error = walk(&dir.path().join("gone"), false).unwrap_err().to_string();
    assert!(error.contains("gone: it does not exist"), "{error}");
    fs::write(dir.path().join("file"), "x").unwrap();
    let error = walk(&dir.path().join("file"), false).unwrap_err().to_string();
    assert!(error.contains("file: it is not a folder"), "{error}");
}

#[test]
fn folder_that_may_not_be_listed_is_unreadable() {
    if nix::unistd::geteuid().is_root() {
        return; // root may list everything; `count` tests an unreadable kind that root cannot read either
    }
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let found = by_name(&walk(dir.path(), false).unwrap());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(&found[b"closed".as_slice()], Kind::Unreadable(why) if why.contains("denied")));
}

/// The paths of all files, or of those that a lister finds which goes on behind `from`.
fn files_behind(dir: &Path, from: Place) -> Vec<PathBuf> {
    let steps = Steps::behind(dir, false, from).unwrap();
    steps.filter(|entry| entry.file().is_some()).map(|entry| entry.path).collect()
}

/// The place behind the first `count` of some files.
fn behind(files: &[PathBuf], count: usize) -> Place {
    let mut place = Place::default();
    files[..count].iter().for_each(|path| place.pass(path));
    place
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Goal: a lister that is killed anywhere skips nothing and repeats nothing. Method: a tree of names that sort unlike
    /// their folders do; the walk goes on behind every file, which may be gone by then.
    #[test]
    fn walk_that_goes_on_behind_any_file_yields_exactly_the_rest(
        paths in prop::collection::btree_set(
            prop::collection::vec(prop::sample::select(vec!["a", "a-b", "a.b", "a b", "ab", "\u{1}", "b"]), 1..4), 1..20),
        gone: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = path.iter().fold(dir.path().to_owned(), |path, name| path.join(name));
            // Some of the names are folders already, or in the way of one.
            let _ = fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(&path, "x"));
        }
        let all = files_behind(dir.path(), Place::default());
        prop_assert!(all.is_sorted_by(|a, b| crate::demo::by_bytes(a, b).is_lt()));
        for count in 0..=all.len() {
            if gone && count > 0 {
                fs::remove_file(dir.path().join(&all[count - 1])).unwrap();
            }
            prop_assert_eq!(&files_behind(dir.path(), behind(&all, count))[..], &all[count..]);
        }
    }
}

#[test]
fn what_came_meanwhile_is_met_if_it_lies_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    };
    put("f");
    put("d/m");
    let place = behind(&[PathBuf::from("d/m")], 1);
    fs::remove_file(dir.path().join("f")).unwrap();
    // The folder `f` stands where the file did, and the file `d/m` is a folder now.
    fs::remove_file(dir.path().join("d/m")).unwrap();
    ["a", "d/a", "d/m/x", "d/z", "f/x"].iter().for_each(|name| put(name));
    assert_eq!(files_behind(dir.path(), place), ["d/m/x", "d/z", "f/x"].map(PathBuf::from));
}

/// Goal: neither the call stack nor `PATH_MAX` bounds the depth. Method: 3000 folders in each other,
/// made relative to descriptors, path of 33,000 bytes; of the files at the bottom one is counted, and the walk goes on
/// behind each.
#[test]
fn tree_deeper_than_a_path_may_be_long_is_walked_and_counted() {
    use rustix::fs::{Mode, mkdirat, openat};
    let dir = tempfile::tempdir().unwrap();
    let mut folder = open_folder(dir.path()).unwrap();
    for _ in 0..3000 {
        mkdirat(&folder, "0123456789", Mode::RWXU).unwrap();
        folder = openat(&folder, "0123456789", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    }
    for name in ["file", "file2", "other"] {
        let bottom = openat(&folder, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&bottom, b"two words\n").unwrap();
    }
    let walked = walk(dir.path(), false).unwrap();
    let all = files_behind(dir.path(), Place::default());
    assert_eq!(all.len(), 3);
    for count in 0..=3 {
        // Their paths begin with the same 4096 bytes.
        assert_eq!(files_behind(dir.path(), behind(&all, count)), all[count..]);
    }
    let (path, seen) = walked.files().next().unwrap();
    let outcome = crate::demo::count(&walked.dir.join(path), seen);
    assert!(
        matches!(outcome, crate::demo::Outcome::Counted { words: 2, bytes: 10, changed: false, .. }),
        "{outcome:?}"
    );
}
