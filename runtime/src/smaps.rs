//! What the kernel says of this process's maps, for tests.

use std::ops::Range;

/// One.
#[derive(Default)]
pub struct Map {
    /// Where it lies.
    pub range: Range<usize>,
    /// What the kernel was told of it, as `/proc/PID/smaps` names that.
    pub flags: String,
    /// How much of it, of memory that is no file's, is in large pages.
    pub large_kib: usize,
}

/// Each map of this process.
pub fn maps() -> Vec<Map> {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("read");
    let mut maps: Vec<Map> = Vec::new();
    for line in text.lines() {
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
        if let Some((Some(from), Some(to))) = bounds.map(|(from, to)| (hex(from), hex(to))) {
            maps.push(Map { range: from..to, ..Map::default() });
        }
        let Some(map) = maps.last_mut() else { continue };
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            map.flags = flags.to_owned();
        } else if let Some(kib) = line.strip_prefix("AnonHugePages:") {
            map.large_kib = kib.trim_end_matches("kB").trim().parse().expect("a number");
        }
    }
    maps
}
