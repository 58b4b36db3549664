//! How often and after which pause: the keys `restart` of an agent and those of a set.

use std::time::Duration;

use toml::de::DeValue;

use super::keys::Table;
use super::value::{self, DURATION_MAX};
use super::walk::Walker;
use super::{OnGiveUp, OnGone, Policy, Restart};

const POLICIES: &str = "the policies";

impl Walker<'_> {
    /// An agent's `restart`: a policy, or a table.
    pub(super) fn restart(&mut self, table: &Table<'_>) -> Restart {
        let mut restart = Restart::default();
        let Some(entry) = table.get("restart") else { return restart };
        if let DeValue::String(word) = entry.value {
            let policy = self.word(word, &entry, POLICIES, &Policy::ALL, Policy::word);
            return Restart { policy: policy.unwrap_or_default(), ..restart };
        }
        let DeValue::Table(inner) = entry.value else {
            let help = "write restart = \"permanent\", or { policy = \"permanent\", intensity = 10, period = \"1s\", \
                        backoff = \"5ms..1s\" }";
            self.wrong_type::<()>(&entry, "a policy or a table", entry.value, help);
            return restart;
        };
        let table = Table::of(&entry.key, entry.key_span, inner);
        self.known(&table, &["policy", "intensity", "period", "backoff", "jitter", "on_give_up"]);
        if let Some((word, entry)) = self.optional_text(&table, "policy") {
            restart.policy =
                self.word(&word, &entry, POLICIES, &Policy::ALL, Policy::word).unwrap_or_default();
        }
        self.restart_numbers(&table, &mut restart);
        restart
    }

    /// What becomes of what an agent had not read when it will not return.
    pub(super) fn on_gone(&mut self, table: &Table<'_>) -> OnGone {
        let Some((word, entry)) = self.optional_text(table, "on_gone") else { return OnGone::default() };
        self.word(&word, &entry, "what may become of it", &OnGone::ALL, OnGone::word).unwrap_or_default()
    }

    /// The keys that an agent's `restart` and a set have in common.
    pub(super) fn restart_numbers(&mut self, table: &Table<'_>, restart: &mut Restart) {
        restart.intensity = self.count(table, "intensity", 0, 10_000).unwrap_or(restart.intensity);
        let ms = Duration::from_millis(1);
        restart.period = self.duration(table, "period", ms, DURATION_MAX).unwrap_or(restart.period);
        if let Some((min, max)) = self.backoff(table) {
            (restart.backoff_min, restart.backoff_max) = (min, max);
        }
        restart.jitter_percent = self.jitter(table).unwrap_or(restart.jitter_percent);
        if let Some((word, entry)) = self.optional_text(table, "on_give_up") {
            let what = "what may follow";
            restart.on_give_up = self.word(&word, &entry, what, &OnGiveUp::ALL, OnGiveUp::word);
        }
    }

    /// `"5ms..1s"`, or one duration for a pause that does not grow.
    fn backoff(&mut self, table: &Table<'_>) -> Option<(Duration, Duration)> {
        let (text, entry) = self.optional_text(table, "backoff")?;
        let (min, max) = text.split_once("..").unwrap_or((&text, &text));
        let read = (value::duration(min), value::duration(max));
        let help = "write the first and the longest pause, for example \"5ms..1s\" (1us to 24h)";
        let what = match read {
            (Some(min), Some(max)) if min > max => "the first pause is longer than the longest",
            (Some(min), Some(_)) if min.is_zero() => "a pause of zero is no back-off",
            (Some(_), Some(max)) if max > DURATION_MAX => "the longest pause is longer than a day",
            (Some(min), Some(max)) => return Some((min, max)),
            _ => "this is not a range of durations",
        };
        self.note(entry.span, &entry.key, what, help);
        None
    }

    /// `"20%"`.
    fn jitter(&mut self, table: &Table<'_>) -> Option<u32> {
        let (text, entry) = self.optional_text(table, "jitter")?;
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        let percent = number.filter(|percent| *percent <= 100);
        if percent.is_none() {
            let help = "write a share of the pause, \"0%\" to \"100%\", for example \"20%\"";
            self.note(entry.span, &entry.key, "this is not a share", help);
        }
        percent
    }
}
