//! Where the kernel leaves the core of a dead process. Pure but for one look at the file.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A core that the kernel wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Where it is, if that can be told and it is there.
    pub path: Option<PathBuf>,
    /// The kernel's pattern (`/proc/sys/kernel/core_pattern`): a name, or behind `|` the program that takes cores.
    pub pattern: String,
}

/// Whose core it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// Its process number.
    pub pid: i32,
    /// The signal that killed it.
    pub signal: i32,
    /// Its program, a path.
    pub program: &'a str,
    /// The folder that it worked in.
    pub folder: &'a Path,
    /// Its user and its group.
    pub identity: (u32, u32),
}

impl Core {
    /// Looks where the kernel's pattern says.
    pub fn look(whose: Whose<'_>) -> Core {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        let with_pid =
            std::fs::read_to_string("/proc/sys/kernel/core_uses_pid").is_ok_and(|word| word.trim() == "1");
        let pattern = pattern.trim_end().to_owned();
        let path = name(&pattern, with_pid, whose).map(|name| whose.folder.join(name));
        Core { path: path.filter(|path| path.exists()), pattern }
    }
}

/// The name by a pattern, relative to the process's folder; `None` when a program takes it, or the pattern holds what is not
/// known here (the time, the thread).
///
/// Source: core(5).
fn name(pattern: &str, with_pid: bool, whose: Whose<'_>) -> Option<String> {
    if pattern.is_empty() || pattern.starts_with('|') {
        return None;
    }
    let (mut name, mut has_pid) = (String::new(), false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            name.push(c);
            continue;
        }
        match chars.next()? {
            '%' => name.push('%'),
            'p' | 'P' => {
                has_pid = true;
                name.push_str(&whose.pid.to_string());
            }
            's' => name.push_str(&whose.signal.to_string()),
            'u' => name.push_str(&whose.identity.0.to_string()),
            'g' => name.push_str(&whose.identity.1.to_string()),
            'h' => name.push_str(&rustix::system::uname().nodename().to_string_lossy()),
            // The kernel's name of a process has 15 bytes.
            'e' => name.extend(whose.program.rsplit('/').next()?.chars().take(15)),
            'E' => name.push_str(&whose.program.replace('/', "!")),
            _ => return None,
        }
    }
    if with_pid && !has_pid {
        name.push_str(&format!(".{}", whose.pid));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernels_pattern_and_what_is_not_known_is_not_guessed() {
        let (program, folder) = ("/opt/a-long-program-name", Path::new("/w"));
        let whose = Whose { pid: 77, signal: 11, program, folder, identity: (1001, 1002) };
        let name = |pattern, with_pid| super::name(pattern, with_pid, whose);
        assert_eq!(name("core", false).as_deref(), Some("core"));
        assert_eq!(name("core", true).as_deref(), Some("core.77"));
        assert_eq!(name("/c/%e-%p-%s%%", true).as_deref(), Some("/c/a-long-program--77-11%"));
        assert_eq!(name("core-%u-%g", false).as_deref(), Some("core-1001-1002"));
        assert_eq!(name("%E", false).as_deref(), Some("!opt!a-long-program-name"));
        for unknown in ["|/usr/lib/handler %p", "core.%t", "core%", ""] {
            assert_eq!(name(unknown, true), None, "{unknown}");
        }
    }
}
