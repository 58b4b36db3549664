//! Landlock: which files an agent may reach, and that it may reach no process but its own children.
//!
//! Whoever is restricted can neither trace a process outside of its restriction, nor read or write its memory, nor take its
//! descriptors, nor open what /proc shows of them; since version 6 it cannot signal it either. So each agent below "trusted" is
//! restricted: with the paths of the swarm file, or to write no file below /proc and /sys.

use crate::config::{Reach, Trust};
use crate::spawn::landlock_version;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What every program needs: its libraries, and the devices that hold nothing.
const READ: [&str; 9] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/zero",
];
const WRITE: [&str; 1] = ["/dev/null"];

/// The rules, if the kernel has them, and what is lacking.
///
/// # Errors
/// A path that cannot be opened.
pub(super) fn rules(
    reach: Option<&Reach>,
    trust: Trust,
    program: &str,
) -> io::Result<(Option<OwnedFd>, Option<String>)> {
    let version = landlock_version();
    let lacks = lacking(version, reach.is_some(), trust != Trust::Trusted);
    if version == 0 {
        return Ok((None, lacks));
    }
    let made = make(reach, trust, program).map_err(|error| io::Error::other(format!("landlock: {error}")))?;
    Ok((made, lacks))
}

/// What the kernel cannot do, in words.
fn lacking(version: i32, paths: bool, alone: bool) -> Option<String> {
    let none = version == 0;
    match (paths, alone) {
        _ if none && paths && alone => Some(
            "landlock: this kernel has none, so paths are not restricted and it may reach processes of its user".into(),
        ),
        _ if none && paths => Some("landlock: this kernel has none, so paths are not restricted".into()),
        _ if none => Some("landlock: this kernel has none, so it may reach processes of its user".into()),
        (_, true) if version < SCOPES => {
            Some("landlock: this kernel cannot restrict signals, so it may signal processes of its user".into())
        }
        _ => None,
    }
}

/// The version that can restrict signals.
const SCOPES: i32 = 6;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn make(reach: Option<&Reach>, trust: Trust, program: &str) -> Result<Option<OwnedFd>, Failure> {
    let all = AccessFs::from_all(ABI::V5);
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    if reach.is_some() {
        rules = rules.handle_access(all)?;
    }
    if trust != Trust::Trusted {
        rules = rules.scope(Scope::from_all(ABI::V6))?;
    }
    if reach.is_none() {
        rules = rules.handle_access(AccessFs::WriteFile)?;
    }
    let mut rules = rules.create()?;
    if reach.is_none() {
        // Some files of other processes in /proc, and cgroups in /sys, are guarded by their user alone.
        for entry in std::fs::read_dir("/")? {
            let path = entry?.path();
            // What is named and is not there, as a link to a kernel that was removed, needs no rule.
            if !is_kernels(&path) {
                rules =
                    rules.add_rules(rule(&path, AccessFs::WriteFile.into())?.map(Ok::<_, RulesetError>))?;
            }
        }
    }
    if let Some(reach) = reach {
        let read = AccessFs::from_read(ABI::V5);
        let implied = READ.iter().map(Path::new).chain([Path::new(program)]);
        for (path, access) in implied.map(|p| (p, read)).chain(WRITE.iter().map(|p| (Path::new(p), all))) {
            // Not every machine has each of them.
            rules = rules.add_rules(rule(path, access)?.map(Ok::<_, RulesetError>))?;
        }
        let named = reach.read.iter().map(|path| (path, read));
        for (path, access) in named.chain(reach.write.iter().map(|path| (path, all))) {
            let named = rule(path, access)?.ok_or_else(|| format!("{} is not there", path.display()))?;
            rules = rules.add_rule(named)?;
        }
    }
    Ok(rules.into())
}

/// Whether what lies there is the kernel's, and no file.
fn is_kernels(path: &Path) -> bool {
    ["/proc", "/sys"].iter().any(|kernels| path == Path::new(kernels))
}

/// The rule for what lies at a path; `None` when nothing does, of which the kernel alone can be sure: an agent without its libraries never starts.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> Result<Option<PathBeneath<OwnedFd>>, Failure> {
    let said = |error: Errno| format!("{}: {}", path.display(), io::Error::from(error));
    let file = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(said)?,
    };
    let kind = FileType::from_raw_mode(fstat(&file).map_err(said)?.st_mode);
    // What concerns folders alone cannot be granted for a file.
    let access = if kind.is_dir() { access } else { access & AccessFs::from_file(ABI::V5) };
    Ok(Some(PathBeneath::new(file, access)))
}
