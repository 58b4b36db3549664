//! Users and groups of this machine, as `/etc/passwd` and `/etc/group` say.
//!
//! The C library is not asked: it loads modules for it (`nsswitch.conf`), which a program that is linked with everything in it does not
//! survive. A number needs no line in either file.

use std::fs;

/// What the kernel takes for "as it is".
const NO_NUMBER: u32 = u32::MAX;

/// The numbers of a user and of its group.
pub(super) fn user(name: &str) -> Option<(u32, u32)> {
    user_in(&text("/etc/passwd"), name)
}

/// The number of a group.
pub(super) fn group(name: &str) -> Option<u32> {
    group_in(&text("/etc/group"), name)
}

/// A file that cannot be read names nobody.
fn text(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Of `name:password:uid:gid:…` lines. A number that none of them has is a user whose group has the same number.
fn user_in(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let number = name.parse::<u32>().ok();
    let known = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (named, _) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_meant = number.map_or(named == name, |number| number == uid);
        is_meant.then_some((uid, gid))
    });
    known
        .or(number.map(|number| (number, number)))
        .filter(|(uid, gid)| *uid != NO_NUMBER && *gid != NO_NUMBER)
}

/// Of `name:password:gid:…` lines.
fn group_in(group: &str, name: &str) -> Option<u32> {
    let known = || {
        group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (named, _) = (fields.next()?, fields.next()?);
            let gid = fields.next()?.parse().ok()?;
            (named == name).then_some(gid)
        })
    };
    name.parse().ok().or_else(known).filter(|gid| *gid != NO_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# a remark\n+nis\nshort:x:8\nodd:x:many:9::/:\n\
                          alice:x:1000:100:Alice, A:/home/alice:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n\
                          kept:x:4294967295:1::/:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:alice,bob\nodd:x:\n\nwheel:x:10";

    #[test]
    fn user_is_found_by_name_and_by_number() {
        assert_eq!(user_in(PASSWD, "root"), Some((0, 0)));
        assert_eq!(user_in(PASSWD, "alice"), Some((1000, 100)));
        assert_eq!(user_in(PASSWD, "1000"), Some((1000, 100)), "with the group that it has");
        for unknown in ["ali", "alice:x", "short", "odd", "+nis", "# a remark", ""] {
            assert_eq!(user_in(PASSWD, unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn number_of_a_user_or_group_needs_no_line() {
        assert_eq!(user_in(PASSWD, "12345"), Some((12345, 12345)));
        assert_eq!(user_in("", "0"), Some((0, 0)));
        assert_eq!(group_in(GROUP, "54321"), Some(54321));
    }

    #[test]
    fn number_that_the_kernel_takes_for_no_change_is_nobody() {
        // Given to setresuid, it would leave an agent what the supervisor is.
        assert_eq!((user_in(PASSWD, "4294967295"), user_in(PASSWD, "kept")), (None, None));
        assert_eq!(group_in(GROUP, "4294967295"), None);
    }

    #[test]
    fn group_is_found_by_name_and_by_number() {
        assert_eq!(group_in(GROUP, "users"), Some(100));
        assert_eq!(group_in(GROUP, "wheel"), Some(10));
        assert_eq!(group_in(GROUP, "10"), Some(10));
        for unknown in ["user", "odd", "alice,bob", ""] {
            assert_eq!(group_in(GROUP, unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn who_runs_this_machine_stands_in_its_files() {
        assert_eq!((user("root"), group("root")), (Some((0, 0)), Some(0)));
        assert_eq!((user("no-such-user"), group("no-such-group")), (None, None));
    }
}
