//! What comes of a case: the figures, in the words of the JSON that `shoal bench` prints.

use serde::{Deserialize, Serialize};
use std::fs;

/// The version of the JSON. Another one is refused by `--compare`.
pub const FORMAT: u32 = 1;

/// A run of `shoal bench`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Where.
    pub machine: Machine,
    /// What came of it.
    pub results: Vec<Outcome>,
}

/// The machine, and the build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// [`FORMAT`].
    pub format: u32,
    /// Shoal's version.
    pub shoal: String,
    /// The processor, as the kernel names it.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Runnable processes of the last minute when the run began: more than there are CPUs disturb each other.
    pub load: f64,
}

/// One case in one mode with messages of one size. Times are nanoseconds; what a case does not have is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was measured.
    pub case: String,
    /// How.
    pub mode: String,
    /// Bytes of the archive of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<usize>,
    /// Messages that were received and found right, or starts, or recoveries.
    pub count: u64,
    /// Half are below: the median of all runs' medians.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<f64>,
    /// 95 of 100 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ns: Option<f64>,
    /// 99 of 100 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<f64>,
    /// 999 of 1000 are below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ns: Option<f64>,
    /// Messages a second, received by all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msgs_per_s: Option<f64>,
    /// The same of the floor: p50 in ns, or messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Of the pairs, the median of measured : floor. Of rates more is better, of times less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p50: Option<f64>,
    /// The same of the p99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p99: Option<f64>,
    /// Of a process, or of a swarm's every agent: bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Of an idle agent: memory of its own, page tables and its share of all memfds, without the lanes as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_bytes: Option<u64>,
    /// CPU time of the supervisor, ns for each second in which nothing happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor_cpu_ns: Option<f64>,
    /// CPU time of all agents together while nothing happened, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_cpu_ns: Option<u64>,
    /// Descriptors that the supervisor had open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<u64>,
    /// CPU time of the receiver for each message, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<f64>,
    /// The same of the floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_cpu_ns: Option<f64>,
    /// What the floor is.
    pub against: String,
    /// What is sent, and how far peers are trusted.
    pub message: String,
    /// The ratio of every pair, in order: `--compare` needs them.
    pub ratios: Vec<f64>,
}

impl Outcome {
    /// Case, mode and size: what tells results apart.
    pub fn name(&self) -> String {
        match self.size_bytes {
            Some(bytes) => format!("{} {} {}", self.case, self.mode, size(bytes)),
            None => format!("{} {}", self.case, self.mode),
        }
    }

    /// Whether more is better.
    pub fn is_rate(&self) -> bool {
        self.msgs_per_s.is_some()
    }
}

/// A size as people write it.
pub fn size(bytes: usize) -> String {
    match bytes {
        1024.. if bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        _ => format!("{bytes} B"),
    }
}

impl Machine {
    /// This one, now.
    pub fn here() -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let named = read("/proc/cpuinfo");
        let cpu = named.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            format: FORMAT,
            shoal: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: cpu.map_or(std::env::consts::ARCH, |(_, name)| name).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default(),
        }
    }
}
