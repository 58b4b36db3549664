//! The eight metrics: what is asked for, by which commands it is measured, and what of their words answers it. Pure but for the
//! asking, which is passed in.

use super::report::{Bar, Check, Metric, Side, Verdict};
use serde_json::Value;

/// Asks a command and returns its JSON, or in words why there is none.
pub type Ask<'a> = &'a mut dyn FnMut(&str) -> Result<Value, String>;

/// The words for the eight, in the order of the report.
pub const ALL: [&str; 8] =
    ["latency", "throughput", "agents", "reliability", "cpu", "memory", "recovery", "uptime"];

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Shorter runs, and fewer agents.
    pub quick: bool,
    /// Whether this build's `shoal chaos` can kill the supervisor, and the swarm goes on.
    pub kills_supervisor: bool,
}

impl Size {
    fn bench(self, case: &str) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        format!("shoal bench {case}{quick} --json -")
    }

    fn scenario(self, name: &str) -> String {
        self.bench(&format!("scenario {name}"))
    }

    fn start(self) -> String {
        self.scenario(if self.quick { "start-100" } else { "start-1000" })
    }

    fn chaos(self, kills_supervisor: bool) -> String {
        let time = if self.quick { "5s" } else { "60s" };
        let supervisor = if kills_supervisor { " --kill-supervisor" } else { "" };
        format!("shoal chaos --for {time}{supervisor} --json")
    }
}

/// A metric under way.
struct Draft<'a> {
    ask: Ask<'a>,
    metric: Metric,
}

impl<'a> Draft<'a> {
    fn new(ask: Ask<'a>, word: &str, name: &str, target: Check, method: &str) -> Draft<'a> {
        let metric = Metric {
            metric: word.into(),
            name: name.into(),
            target,
            verdict: Verdict::Failed,
            bars: Vec::new(),
            own_bar: Bar::Missed,
            besides: Vec::new(),
            method: method.into(),
            commands: Vec::new(),
            why: Vec::new(),
        };
        Draft { ask, metric }
    }

    /// Asks a command that belongs to the metric.
    fn ask(&mut self, command: &str) -> Value {
        self.metric.commands.push(command.to_owned());
        (self.ask)(command).unwrap_or_else(|why| {
            self.metric.why.push(why);
            Value::Null
        })
    }

    /// Asks for a scenario, which must have delivered everything.
    fn scenario(&mut self, command: &str) -> Value {
        let said = self.ask(command);
        let scenario = said["scenarios"][0].clone();
        if !said.is_null() && scenario["passed"] != Value::Bool(true) {
            let why = scenario["why"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let why: Vec<&str> = why.collect();
            self.metric.why.push(format!("`{command}` failed: {}", why.join("; ")));
        }
        scenario
    }

    fn bar(&mut self, check: Check, measured: Option<f64>) {
        self.metric.bars.push(Check { measured, ..check });
    }

    fn besides(&mut self, what: &str, unit: &str, measured: Option<f64>) {
        let check = Check::new(what, Side::Above, 0.0, unit);
        self.metric.besides.push(Check { measured, ..check });
    }

    fn done(mut self, measured: Option<f64>) -> Metric {
        self.metric.target.measured = measured;
        self.metric.judged()
    }
}

/// A figure of a result of `shoal bench`.
fn result(run: &Value, case: &str, mode: &str, bytes: Option<u64>, key: &str) -> Option<f64> {
    let is = |result: &&Value| {
        result["case"] == case
            && result["mode"] == mode
            && result["size_bytes"].as_u64() == bytes
            && result["count"].as_u64() > Some(0)
    };
    run["results"].as_array()?.iter().find(is)?[key].as_f64()
}

/// Measures one of the eight.
///
/// # Panics
/// For a word that is not one of [`ALL`].
pub fn measure(word: &str, size: Size, ask: Ask<'_>) -> Metric {
    match word {
        "latency" => latency(size, ask),
        "throughput" => throughput(size, ask),
        "agents" => agents(size, ask),
        "reliability" => reliability(size, ask),
        "cpu" => cpu(size, ask),
        "memory" => memory(size, ask),
        "recovery" => recovery(size, ask),
        "uptime" => uptime(size, ask),
        _ => unreachable!("the command line takes only these words"),
    }
}

fn latency(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "latency",
        "inter-agent latency P95",
        Check::new("one way, 64 B, the slowest way of waiting, P95", Side::Below, 10.0, "ms"),
        "two processes on a CPU each, steps with commit both ways, half a round trip; 50 pairs of agents at half of what they \
         can, from making a message to hearing it",
    );
    let run = draft.ask(&size.bench("latency"));
    let half = draft.scenario(&size.scenario("half-load"));
    let p95 = |mode| result(&run, "latency", mode, Some(64), "p95_ns");
    let modes = ["spin", "adaptive", "parked"].map(p95);
    draft.bar(Check::new("awake, P95", Side::Below, 1.0, "µs"), modes[0].map(|ns| ns / 1e3));
    draft.bar(Check::new("asleep, P95", Side::Below, 100.0, "µs"), modes[2].map(|ns| ns / 1e3));
    let p99 = half["p99_ns"].as_f64().map(|ns| ns / 1e6);
    draft.bar(Check::new("100 agents at half load, P99", Side::Below, 1.0, "ms"), p99);
    let all: Option<Vec<f64>> = modes.into_iter().collect();
    draft.done(all.map(|ns| ns.into_iter().fold(0.0, f64::max) / 1e6))
}

fn throughput(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "throughput",
        "message throughput",
        Check::new("the lower of one pair's and 100 into one's, 64 B", Side::Above, 100_000.0, "messages/s"),
        "real processes send as fast as they can, committed one by one; every message is validated and looked at",
    );
    let run = draft.ask(&size.bench("throughput"));
    let fan = draft.ask(&size.bench("fan"));
    let pair = result(&run, "throughput", "single", Some(64), "msgs_per_s");
    let into_one = result(&fan, "fan", "100 into 1", Some(64), "msgs_per_s");
    draft.bar(Check::new("one pair, 64 B", Side::Above, 20e6, "messages/s"), pair);
    draft.bar(Check::new("100 into one, 64 B", Side::Above, 5e6, "messages/s"), into_one);
    let batch = result(&run, "throughput", "batch", Some(64), "msgs_per_s");
    draft.besides("one pair, 64 B, 16 in a step", "messages/s", batch);
    draft.done(pair.zip(into_one).map(|(a, b)| a.min(b)))
}

fn agents(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "agents",
        "agents at once",
        Check::new(
            "agents that were ready in one moment, and exchanged messages",
            Side::AtLeast,
            100.0,
            "agents",
        ),
        "a swarm whose agents are started at once; each tells a first word, and they share 20 calls for each; all must come",
    );
    let start = draft.scenario(&size.start());
    let ready = start["ready"].as_f64();
    let ready = ready.filter(|_| start["delivered"].as_u64() > Some(0));
    draft.bar(Check::new("agents at once", Side::AtLeast, 1000.0, "agents"), ready);
    draft.besides("from the begin until all were ready", "s", start["all_ready_s"].as_f64());
    draft.done(ready)
}

fn reliability(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "reliability",
        "message reliability",
        Check::new("messages that took effect exactly once", Side::Above, 99.9, "%"),
        "a swarm at full speed under SIGKILL, SIGSTOP and restarts at random; what senders committed against what receivers did",
    );
    let chaos = draft.ask(&size.chaos(false));
    let reliable = exactly_once_percent(&chaos);
    if !chaos.is_null() && chaos["kills"].as_u64() < Some(1) {
        draft.metric.why.push("nobody was killed".to_owned());
    }
    draft.bar(Check::new("exactly once, with kills", Side::AtLeast, 100.0, "%"), reliable);
    draft.besides("kills", "", chaos["kills"].as_f64());
    draft.besides("messages", "", chaos["messages"].as_f64());
    draft.done(reliable)
}

/// Of all messages that were to take effect, those that did so once, unharmed and in order.
fn exactly_once_percent(chaos: &Value) -> Option<f64> {
    let count = |key: &str| chaos[key].as_u64();
    let messages = count("messages")?;
    let wrong = count("duplicated")? + count("reordered")? + count("corrupted")? + count("unaccounted")?;
    let all = messages + count("lost")?;
    (messages > 0).then(|| 100.0 * messages.saturating_sub(wrong) as f64 / all as f64)
}

fn cpu(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "cpu",
        "CPU overhead per agent",
        Check::new("the busiest idle agent", Side::Below, 5.0, "% of a CPU"),
        "the kernel's count of each agent's time on a CPU while the swarm idles; under load, of all agents for each message",
    );
    let start = draft.scenario(&size.start());
    let busy = draft.scenario(&size.scenario("producers"));
    let idle = &start["idle"];
    let agents = idle["agents"].as_u64() > Some(0);
    let busiest = idle["cpu_percent_max"].as_f64().filter(|_| agents);
    // A look of the kernel's at its clock costs more than this.
    let check = Check::new(
        "an idle agent, of all the mean (0, to a thousandth of a percent)",
        Side::Below,
        0.001,
        "% of a CPU",
    );
    draft.bar(check, idle["cpu_percent_mean"].as_f64().filter(|_| agents));
    draft.besides(
        "under load, 8 producers of 512 B into one",
        "ns a message",
        busy["cpu_ns_per_message"].as_f64(),
    );
    draft.done(busiest)
}

fn memory(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "memory",
        "memory per agent",
        Check::new("the largest idle agent", Side::Below, 10.0, "MB"),
        "private pages, its share of binary and libraries, page tables, and its share of all memfds of the swarm, mapped or not",
    );
    let start = draft.scenario(&size.start());
    let idle = &start["idle"];
    let agents = idle["agents"].as_u64() > Some(0);
    let kib = |key: &str| idle[key].as_f64().filter(|kib| agents && *kib > 0.0);
    draft.bar(
        Check::new("an idle agent with its lanes", Side::Below, 300.0, "KB"),
        kib("memory_kib_mean").map(kb),
    );
    draft.besides("of that in memfds", "KB", kib("memfd_kib_mean").map(kb));
    draft.done(kib("memory_kib_max").map(|kib| kb(kib) / 1e3))
}

fn kb(kib: f64) -> f64 {
    kib * 1.024
}

fn recovery(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "recovery",
        "recovery time",
        Check::new("from SIGKILL to the next life's first message, cold, P99", Side::Below, 5.0, "s"),
        "the sink of a swarm at work is killed again and again",
    );
    // Always in full: it is short.
    let _ = size;
    let run = draft.ask("shoal bench recovery --json -");
    let cold = result(&run, "recovery", "cold", None, "p99_ns");
    let standby = result(&run, "recovery", "standby", None, "p50_ns");
    draft.bar(Check::new("cold, P99", Side::Below, 10.0, "ms"), cold.map(|ns| ns / 1e6));
    draft.bar(Check::new("standby, P50", Side::Below, 0.5, "ms"), standby.map(|ns| ns / 1e6));
    draft.done(cold.map(|ns| ns / 1e9))
}

fn uptime(size: Size, ask: Ask<'_>) -> Metric {
    let mut draft = Draft::new(
        ask,
        "uptime",
        "uptime",
        Check::new("time in which no call had waited for more than 250 ms", Side::Above, 99.9, "%"),
        "10 coordinators answer 1,000 calls a second, one of them is killed every second",
    );
    let coordinators = draft.scenario(&size.scenario("coordinators"));
    let served = coordinators["uptime"].as_f64().filter(|_| coordinators["kills"].as_u64() > Some(0));
    let served = served.map(|part| 100.0 * part);
    draft.bar(Check::new("with agents killed", Side::AtLeast, 100.0, "%"), served);
    let with_supervisor = with_supervisor_killed(&mut draft, size);
    draft.bar(
        Check::new("exactly once while the supervisor is killed, too", Side::AtLeast, 100.0, "%"),
        with_supervisor,
    );
    draft.besides("kills of coordinators", "", coordinators["kills"].as_f64());
    draft.done(served)
}

/// What took effect exactly once while supervisors were killed; nothing where this build cannot have them killed.
fn with_supervisor_killed(draft: &mut Draft<'_>, size: Size) -> Option<f64> {
    if !size.kills_supervisor {
        return None;
    }
    let chaos = draft.ask(&size.chaos(true));
    exactly_once_percent(&chaos).filter(|_| chaos["supervisor_kills"].as_u64() > Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const QUICK: Size = Size { quick: true, kills_supervisor: true };

    fn scenario(passed: bool) -> Value {
        json!({ "scenarios": [{
            "passed": passed, "why": if passed { vec![] } else { vec!["9 of 10 calls were delivered"] },
            "ready": 100, "delivered": 200, "all_ready_s": 1.0, "p99_ns": 500_000, "uptime": 1.0, "kills": 4,
            "cpu_ns_per_message": 700.0,
            "idle": { "agents": 99, "cpu_percent_max": 0.0, "cpu_percent_mean": 0.0, "memory_kib_mean": 250.0,
                "memory_kib_max": 260.0, "memfd_kib_mean": 80.0 },
        }]})
    }

    fn results() -> Value {
        let latency =
            |mode, ns| json!({ "case": "latency", "mode": mode, "size_bytes": 64, "count": 9, "p95_ns": ns });
        let rate = |case, mode, rate| json!({ "case": case, "mode": mode, "size_bytes": 64, "count": 9, "msgs_per_s": rate });
        json!({ "results": [
            latency("spin", 300.0), latency("adaptive", 400.0), latency("parked", 40_000.0),
            rate("throughput", "single", 25e6), rate("throughput", "batch", 40e6), rate("fan", "100 into 1", 6e6),
            { "case": "recovery", "mode": "cold", "count": 41, "p99_ns": 5e6 },
            { "case": "recovery", "mode": "standby", "count": 41, "p50_ns": 3e5 },
        ]})
    }

    fn chaos(lost: u64) -> Value {
        json!({ "messages": 1000, "kills": 20, "lost": lost, "duplicated": 0, "reordered": 0, "corrupted": 0,
            "unaccounted": 0, "supervisor_kills": 3 })
    }

    /// What a sound machine says.
    fn sound(command: &str) -> Result<Value, String> {
        Ok(match command {
            c if c.contains("scenario") => scenario(true),
            c if c.contains("chaos") => chaos(0),
            _ => results(),
        })
    }

    fn all(mut ask: impl FnMut(&str) -> Result<Value, String>) -> Vec<Metric> {
        ALL.map(|word| measure(word, QUICK, &mut ask)).into()
    }

    #[test]
    fn sound_swarm_passes_every_target_and_tells_its_figures_and_commands() {
        for metric in all(sound) {
            assert_eq!(metric.verdict, Verdict::Passed, "{metric:?}");
            assert!(!metric.commands.is_empty() && metric.why.is_empty());
            let met = metric.own_bar == Bar::Met;
            // Which --quick does not try.
            assert_eq!(met, metric.metric != "agents", "{metric:?}");
        }
        let without = Size { kills_supervisor: false, ..QUICK };
        let uptime = measure("uptime", without, &mut { sound });
        assert_eq!((uptime.verdict, uptime.own_bar), (Verdict::Passed, Bar::Missed));
    }

    #[test]
    fn nothing_is_certified_where_commands_fail_or_say_nothing() {
        for metric in all(|command| Err(format!("{command} is not there"))) {
            assert_eq!((metric.verdict, metric.own_bar), (Verdict::Failed, Bar::Missed), "{metric:?}");
            assert!(!metric.why.is_empty());
        }
        for metric in all(|_| Ok(json!({}))) {
            assert_eq!((metric.verdict, metric.own_bar), (Verdict::Failed, Bar::Missed), "{metric:?}");
        }
    }

    #[test]
    fn scenario_that_failed_fails_its_metrics_whatever_its_figures_are() {
        let broken = |command: &str| match command.contains("scenario") {
            true => Ok(scenario(false)),
            false => sound(command),
        };
        let failed: Vec<String> =
            all(broken).into_iter().filter(|m| m.verdict == Verdict::Failed).map(|m| m.metric).collect();
        assert_eq!(failed, ["latency", "agents", "cpu", "memory", "uptime"]);
    }

    #[test]
    fn no_deliveries_no_agents_and_losses_are_failures() {
        let nothing = |command: &str| match command.contains("chaos") {
            true => Ok(
                json!({ "messages": 0, "kills": 20, "lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0, "unaccounted": 0 }),
            ),
            false => sound(command),
        };
        let reliability = measure("reliability", QUICK, &mut { nothing });
        assert_eq!(reliability.verdict, Verdict::Failed);
        let lossy = |_: &str| Ok(chaos(1));
        let reliability = measure("reliability", QUICK, &mut { lossy });
        // One of a thousand is beyond the bar and on the target.
        assert_eq!((reliability.verdict, reliability.own_bar), (Verdict::Passed, Bar::Missed));
        let lossy = |_: &str| Ok(chaos(2));
        assert_eq!(measure("reliability", QUICK, &mut { lossy }).verdict, Verdict::Failed);
        let empty = |_: &str| {
            let mut said = scenario(true);
            said["scenarios"][0]["idle"]["agents"] = json!(0);
            said["scenarios"][0]["delivered"] = json!(0);
            Ok(said)
        };
        for word in ["agents", "cpu", "memory"] {
            assert_eq!(measure(word, QUICK, &mut { empty }).verdict, Verdict::Failed, "{word}");
        }
    }
}
