//! Who runs a swarm, as what it makes for its agents names it: a process, and the namespace in which that has its number. Two swarms in namespaces of
//! their own may both be run by process 1.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How the names of all cgroups of swarms begin.
const PREFIX: &str = "shoal-";

/// The process that runs a swarm: whoever prepares it, before there is a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The namespace in which it has its number, by the kernel's number for that: 0 where /proc tells none.
    space: u64,
    pid: u32,
}

/// The number of the namespace that holds all others.
const FIRST_SPACE: u64 = 0xEFFF_FFFC;

impl Owner {
    /// This process.
    pub fn this() -> Owner {
        Owner { space: space_of("self").unwrap_or(0), pid: std::process::id() }
    }

    /// What a cgroup of an agent of its is called.
    pub(super) fn name_for(self, agent: &str) -> String {
        format!("{PREFIX}{}.{}-{agent}", self.space, self.pid)
    }

    /// Whose a cgroup of this name is.
    pub(super) fn in_name(name: &str) -> Option<Owner> {
        let (owner, _agent) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let (space, pid) = owner.split_once('.')?;
        Some(Owner { space: space.parse().ok()?, pid: pid.parse().ok()? })
    }

    /// Whether another, who asks, can say for certain that it has ended. Of another namespace only who is in the first knows.
    pub(super) fn is_gone(self, asked_by: Owner) -> bool {
        if self.space == asked_by.space {
            return matches!(Path::new(&format!("/proc/{}", self.pid)).try_exists(), Ok(false));
        }
        let Ok(everybody) = fs::read_dir("/proc") else { return false };
        let names = everybody.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        // The first process of all is in the first namespace, and tells only who has all its rights.
        let mut processes = names.filter(|name| name.parse::<u32>().is_ok_and(|pid| pid != 1));
        // Who ends meanwhile is not in it any more; of whom we may not know counts as in it.
        let may_be_in_it = |process: String| match space_of(&process) {
            Ok(space) => space == self.space,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        asked_by.space == FIRST_SPACE && !processes.any(may_be_in_it)
    }

    /// A number of which the lower 16 bits are others for nearly every other owner.
    pub(super) fn folded(self) -> u32 {
        let space = (self.space as u32).wrapping_sub(FIRST_SPACE as u32);
        self.pid.wrapping_add(space.wrapping_mul(0x9E37))
    }
}

/// The namespace in which a process has its number.
fn space_of(process: &str) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{process}/ns/pid"))?.ino())
}

#[cfg(test)]
impl Owner {
    /// Another process of the same namespace.
    pub(super) fn with(self, pid: u32) -> Owner {
        Owner { pid, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_names_the_process_that_runs_the_swarm_and_where_that_has_its_number() {
        let owner = Owner { space: FIRST_SPACE, pid: 12 };
        assert_eq!(owner.name_for("worker.1"), "shoal-4026531836.12-worker.1");
        assert_eq!(Owner::in_name(&owner.name_for("worker.1")), Some(owner));
        for other in
            ["shoal-", "shoal-x-y", "shoal-1.x-y", "system.slice", "shoal-4026531836.12", "shoal-12-a"]
        {
            assert_eq!(Owner::in_name(other), None, "{other}");
        }
    }

    #[test]
    fn owner_is_gone_when_nobody_has_its_number_or_nobody_is_where_it_had_one() {
        let this = Owner::this();
        let ended = Owner { pid: u32::MAX, ..this };
        assert!(!this.is_gone(this) && ended.is_gone(this));
        let elsewhere = Owner { space: 7, ..this };
        assert!(
            !elsewhere.is_gone(Owner { space: 8, ..this }),
            "who is not in the first does not see everybody"
        );
        let everybody = fs::read_dir("/proc").expect("listed").flatten().map(|entry| entry.file_name());
        let others = everybody.filter(|name| name != "1").filter_map(|name| name.into_string().ok());
        let hidden = others.filter_map(|name| space_of(&name).err());
        let all_tell = !hidden.map(|error| error.kind()).any(|kind| kind == io::ErrorKind::PermissionDenied);
        assert_eq!(elsewhere.is_gone(this), this.space == FIRST_SPACE && all_tell);
        let (twin, root) = (Owner { space: 4026532700, pid: 1 }, Owner { space: FIRST_SPACE, pid: 1 });
        assert!(twin.folded() != root.folded() && root.folded() == 1);
    }
}
