//! Faster, slower or noise: what the pairs of two runs say. Pure.
//!
//! A result's pairs are ratios to a floor that was measured in turns with it, so what the machine did to one run it did to its
//! floor. The medians of two runs are compared by the bootstrap: both runs' pairs are drawn again, with replacement, and it is
//! counted how often the newer median is still on the same side.

use crate::outcome::{FORMAT, Outcome, Run};
use crate::pairs::spread;

/// How often the pairs are drawn again.
const DRAWS: usize = 2000;
/// A difference needs this much of the draws.
const CONFIDENCE_MIN: f64 = 0.95;
/// And it must be this large: smaller ones come from where the linker puts things.
const CHANGE_MIN: f64 = 0.03;

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is better now.
    Faster,
    /// It is worse.
    Slower,
    /// It cannot be told apart.
    Noise,
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Word::Faster => "faster",
            Word::Slower => "slower",
            Word::Noise => "noise",
        })
    }
}

/// What became of a result, by how much, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// In a word.
    pub word: Word,
    /// The newer median over the older one, less 1.
    pub change: f64,
    /// The part of the draws in which the newer median is on this side.
    pub confidence: f64,
}

/// Compares the ratios of a former run with those of a newer one; `None` if one has none.
pub fn verdict(before: &[f64], now: &[f64], more_is_better: bool) -> Option<Verdict> {
    if before.is_empty() || now.is_empty() {
        return None;
    }
    let median = |ratios: &[f64]| spread(ratios.iter().copied()).median;
    let change = median(now) / median(before) - 1.0;
    let mut chance = Chance(0x5107_5107);
    let less = (0..DRAWS).map(|_| {
        let (before, now) = (chance.median_of(before), chance.median_of(now));
        if now == before { 0.5 } else { f64::from(u8::from(now < before)) }
    });
    let less = less.sum::<f64>() / DRAWS as f64;
    let confidence = less.max(1.0 - less);
    let is_better = (change > 0.0) == more_is_better;
    let word = match confidence >= CONFIDENCE_MIN && change.abs() >= CHANGE_MIN {
        true if is_better => Word::Faster,
        true => Word::Slower,
        false => Word::Noise,
    };
    Some(Verdict { word, change, confidence })
}

/// Compares a run with a former one, result by result; `None` where the former has no such result.
pub fn compare<'a>(before: &Run, now: &'a Run) -> Vec<(&'a Outcome, Option<Verdict>)> {
    let former = |outcome: &Outcome| before.results.iter().find(|o| o.name() == outcome.name());
    let compared = now.results.iter().map(|outcome| {
        let verdict = former(outcome).and_then(|o| verdict(&o.ratios, &outcome.ratios, outcome.is_rate()));
        (outcome, verdict)
    });
    compared.collect()
}

/// Reads a former run.
///
/// # Errors
/// In words: it is no run of `shoal bench`, or one of another version.
pub fn read(text: &str) -> Result<Run, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    let format = value["machine"]["format"].as_u64();
    match format {
        None => Err("it is not what `shoal bench --json` writes: there is no machine.format".into()),
        Some(format) if format != u64::from(FORMAT) => Err(format!(
            "it is of format {format}, this build writes format {FORMAT}: measure again with this build"
        )),
        Some(_) => serde_json::from_value(value).map_err(|e| format!("it is not whole: {e}")),
    }
}

/// Draws that are the same in every run.
struct Chance(u64);

impl Chance {
    /// The next number below `end` (splitmix64).
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn median_of(&mut self, ratios: &[f64]) -> f64 {
        spread((0..ratios.len()).map(|_| ratios[self.below(ratios.len())])).median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(middle: f64, width: f64) -> Vec<f64> {
        let mut chance = Chance(7);
        (0..21).map(|_| middle + width * (chance.below(1000) as f64 / 1000.0 - 0.5)).collect()
    }

    #[test]
    fn clear_change_is_named_by_its_side() {
        let (slow, quick) = (around(2.0, 0.1), around(1.6, 0.1));
        let times = verdict(&slow, &quick, false).expect("pairs");
        assert_eq!(times.word, Word::Faster);
        assert!(times.confidence > 0.99 && (-0.25..-0.15).contains(&times.change), "{times:?}");
        assert_eq!(verdict(&quick, &slow, false).map(|v| v.word), Some(Word::Slower));
        assert_eq!(
            verdict(&quick, &slow, true).map(|v| v.word),
            Some(Word::Faster),
            "of rates more is better"
        );
    }

    #[test]
    fn what_lies_within_the_spread_is_noise_and_so_is_a_sure_change_that_is_tiny() {
        let before = around(2.0, 0.8);
        let mut now = before.clone();
        now.rotate_left(5);
        now[3] *= 1.1;
        assert_eq!(verdict(&before, &now, false).map(|v| v.word), Some(Word::Noise));
        let tiny = verdict(&[2.0; 21], &[2.02; 21], false).expect("pairs");
        assert_eq!((tiny.word, tiny.confidence), (Word::Noise, 1.0));
        assert_eq!(verdict(&[], &[1.0], false), None);
    }

    #[test]
    fn former_run_of_another_version_or_kind_is_refused_in_words() {
        let refused = |text: &str| read(text).expect_err("refused");
        assert!(refused("{").contains("no JSON"));
        assert!(refused(r#"{"results": []}"#).contains("not what `shoal bench --json` writes"));
        assert!(refused(r#"{"machine": {"format": 99}, "results": []}"#).contains("format 99"));
        assert!(refused(r#"{"machine": {"format": 1}, "results": []}"#).contains("not whole"));
    }

    #[test]
    fn run_compared_with_itself_is_noise_and_knows_what_was_not_there() {
        let outcome = Outcome { case: "latency".into(), ratios: around(1.0, 0.1), ..Outcome::default() };
        let machine = crate::outcome::Machine::here();
        let run = Run { machine: machine.clone(), results: vec![outcome] };
        let text = serde_json::to_string(&run).expect("JSON");
        let again = read(&text).expect("a run");
        let compared = compare(&again, &run);
        assert_eq!(compared[0].1.map(|v| v.word), Some(Word::Noise));
        assert_eq!(compare(&Run { machine, results: Vec::new() }, &run)[0].1, None);
    }
}
