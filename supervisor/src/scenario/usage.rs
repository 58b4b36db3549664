//! What processes cost, as the kernel counts it: CPU time, memory, descriptors. Read from /proc.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// CPU time that a process has used in its first thread, ns; agents have no other. `None` when it is gone.
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Memory of a process without what it shares with the swarm: the proportional share of anonymous pages and of files (the
/// binary, its libraries), and its page tables, in KiB. The swarm's memfds are counted by [`memfds_kib`].
pub fn own_kib(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(field_kib(&rollup, "Pss_Anon:")? + field_kib(&rollup, "Pss_File:")? + field_kib(&status, "VmPTE:")?)
}

/// What the kernel says of all memory of a process under such a name (`Pss:`, `AnonHugePages:`), KiB. `None` when it is gone.
pub fn rollup_kib(pid: u32, name: &str) -> Option<u64> {
    field_kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, name)
}

/// Anonymous memory of this process, KiB.
pub fn anonymous_kib() -> Option<u64> {
    field_kib(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// All pages of the memfds that this process holds, each counted once, mapped or not, KiB: of a supervisor, those of its swarm.
pub fn memfds_kib() -> u64 {
    let mut seen = HashSet::new();
    let each = descriptors_of_self().filter(|(target, _)| target.starts_with("/memfd:"));
    let blocks = each.filter_map(|(_, path)| {
        let metadata = fs::metadata(path).ok()?;
        seen.insert((metadata.dev(), metadata.ino())).then(|| metadata.blocks())
    });
    // A block of `stat` is 512 bytes.
    blocks.sum::<u64>() / 2
}

/// Descriptors that this process holds.
pub fn descriptors() -> usize {
    descriptors_of_self().count()
}

fn descriptors_of_self() -> impl Iterator<Item = (String, std::path::PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    // The listing's own descriptor is gone when it is looked at.
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((target.to_string_lossy().into_owned(), entry.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn memfd_counts_by_the_pages_that_it_has_and_once_whatever_descriptors_there_are() {
        let before = memfds_kib();
        let file = memfd_create("usage-test", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&file, 1 << 30).expect("sized");
        assert_eq!(memfds_kib(), before, "a hole is no page");
        rustix::io::pwrite(&file, &[1; 8192], 0).expect("written");
        let again = file.try_clone().expect("a second descriptor");
        assert_eq!(memfds_kib(), before + 8);
        drop((file, again));
        assert_eq!(memfds_kib(), before);
    }

    #[test]
    fn process_that_works_uses_cpu_and_memory() {
        let pid = std::process::id();
        let (cpu, anonymous) = (cpu_ns(pid).expect("counted"), anonymous_kib().expect("counted"));
        let work: Vec<u64> = (0..1 << 20).collect();
        assert!(std::hint::black_box(work).len() == 1 << 20);
        assert!(own_kib(pid).is_some_and(|kib| kib > 100) && anonymous > 0 && descriptors() >= 3);
        // Tests run in threads, of which the first waits: its time may stand, but does not go back.
        assert!(cpu_ns(pid).is_some_and(|now| now >= cpu));
        assert_eq!(cpu_ns(u32::MAX), None);
    }
}
