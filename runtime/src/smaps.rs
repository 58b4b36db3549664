//! What the kernel was told of this process's maps, for tests.

use std::ops::Range;

/// Each map of this process, and its flags as `/proc/PID/smaps` names them.
pub fn maps() -> Vec<(Range<usize>, String)> {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("read");
    let (mut range, mut maps) = (0..0, Vec::new());
    for line in text.lines() {
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
        if let Some((Some(from), Some(to))) = bounds.map(|(from, to)| (hex(from), hex(to))) {
            range = from..to;
        }
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            maps.push((range.clone(), flags.to_owned()));
        }
    }
    maps
}
